//! The cotangent of W where x has few channels, or a group one: gW[o, t] = Σ_q gy[o, q] x[where tap t reads for pixel q].
//!
//! Both factors stand in the order of pixels, gy as it came and x in shifted planes, so lanes go over pixels and nothing
//! is turned or copied together. Lanes are summed at the end of a task; samples are dealt out to tasks, and their sums
//! added in order, as the sizes alone decide.
use super::buffers;
use super::geometry::Geometry;
use super::partials::{Deal, Partials, Piece};
use super::planes::{Planes, Tap};
use super::tile::Registers;
use crate::ops::{Cotangent, Vectorised, simd};
use pulp::Simd;
use std::cell::Cell;

/// Channels of x at most: with more, other passes' register tile has vectors to fill.
const FEW: usize = 4;
/// Output channels and taps of a register tile, and pixels that it goes over: its share of gy stays in the nearest cache.
const OUTPUTS: usize = 8;
const TAPS: usize = 3;
const PIXELS: usize = 512;
/// Floats that a task's images may take, and how many tasks are wanted.
const BAND: usize = 120_000;
const TASKS: usize = 8;

#[derive(Debug)]
pub(super) struct Dots {
    deal: Deal,
    /// Channels of a group.
    inputs: usize,
    outputs: usize,
    /// Sizes of the images of x and of y.
    from: [usize; 2],
    to: [usize; 2],
    taps: Vec<Tap>,
    planes: Planes,
}

thread_local! {
    static IMAGES: Cell<Vec<f32>> = Cell::default();
}

impl Dots {
    /// Where it pays: taps of `g`, which come apart as its stride says.
    pub fn new(g: &Geometry, taps: Vec<Tap>) -> Option<Self> {
        let groups = g.op.groups;
        let (inputs, outputs) = (g.inputs / groups, g.outputs / groups);
        // Of one group, long rows at stride 1; of a depthwise convolution, whatever it is: nothing else fits it.
        let pays = match groups {
            1 => inputs <= FEW && g.op.stride == [1, 1] && g.to[0] * g.to[1] >= PIXELS / 2,
            _ => inputs == 1,
        };
        if !pays {
            return None;
        }
        let planes = Planes::shifted(g.from, g.op.stride, g.to, &taps)?;
        let tasks = TASKS.div_ceil(groups);
        let each = g.batch.div_ceil(tasks);
        let partials = g.batch.div_ceil(each);
        let share = outputs.div_ceil(tasks / partials.min(tasks)).next_multiple_of(OUTPUTS);
        let deal = Deal { batch: g.batch, outputs, groups, each, share };
        Some(Self { deal, inputs, outputs, from: g.from, to: g.to, taps, planes })
    }

    /// Rows of y whose images are laid out together.
    fn rows(&self) -> usize {
        let fits = |rows: &usize| self.planes.len(*rows, self.inputs) <= BAND;
        let most = (1..=self.to[0]).rev().find(fits).unwrap_or(1);
        self.to[0].div_ceil(self.to[0].div_ceil(most))
    }
}

/// Sums over some samples: those of each block of output channels and taps, lane by lane.
pub(super) struct Partial {
    sums: Vec<f32>,
    images: Vec<f32>,
}

impl Dots {
    /// Floats of a block's sums, and its blocks of taps.
    fn block(&self, lanes: usize) -> (usize, usize) {
        (OUTPUTS * TAPS * lanes, (self.inputs * self.taps.len()).div_ceil(TAPS))
    }
}

impl Partials for Dots {
    type Partial = Partial;

    fn deal(&self) -> &Deal {
        &self.deal
    }
    fn together(&self) -> usize {
        1
    }
    fn begin(&self, at: &Piece) -> Partial {
        let (tile, tiles) = self.block(Registers::new().lanes);
        let mut sums = buffers::take(at.outputs.len().div_ceil(OUTPUTS) * tiles * tile);
        sums.fill(0.0);
        Partial { sums, images: IMAGES.take() }
    }
    fn add(&self, at: &Piece, samples: usize, x: &[f32], gy: &[f32], to: &mut Partial) {
        simd().run(Task { of: self, x, gy, at, samples, to });
    }
    /// A row of sums for each output channel.
    fn end(&self, at: &Piece, partial: Partial) -> Vec<f32> {
        IMAGES.set(partial.images);
        let all = simd().run(Lanes { of: self, outputs: at.outputs.len(), sums: &partial.sums });
        buffers::give(partial.sums);
        all
    }
    fn write(&self, sums: Vec<Vec<f32>>, g: &mut Cotangent) {
        let terms = self.inputs * self.taps.len();
        for (o, gw) in g.data.chunks_exact_mut(terms).enumerate() {
            let (group, o) = (o / self.outputs, o % self.outputs);
            for (t, gw) in gw.iter_mut().enumerate() {
                let at = o % self.deal.share * terms + t;
                let sum: f32 = self.deal.of(&sums, group, o).iter().map(|sums| sums[at]).sum();
                *gw = if g.add { *gw + sum } else { sum };
            }
        }
    }
}

/// The sums of a partial's lanes.
struct Lanes<'a> {
    of: &'a Dots,
    outputs: usize,
    sums: &'a [f32],
}

impl Vectorised for Lanes<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let (lanes, terms) = (S::F32_LANES, self.of.inputs * self.of.taps.len());
        let (_, tiles) = self.of.block(lanes);
        let sum = |at: usize| {
            let (o, t) = (at / terms, at % terms);
            let tile = ((o / OUTPUTS) * tiles + t / TAPS) * OUTPUTS + o % OUTPUTS;
            s.reduce_sum_f32s(S::as_simd_f32s(&self.sums[(tile * TAPS + t % TAPS) * lanes..][..lanes]).0[0])
        };
        (0..self.outputs * terms).map(sum).collect()
    }
}

struct Task<'a> {
    of: &'a Dots,
    /// From the first sample on.
    x: &'a [f32],
    gy: &'a [f32],
    at: &'a Piece,
    samples: usize,
    to: &'a mut Partial,
}

impl Vectorised for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { of, x, gy, at: Piece { group, outputs, .. }, samples, to: Partial { sums, images } } = self;
        let groups = of.deal.groups;
        let (width, pixels) = (of.to[1], of.to[0] * of.to[1]);
        let (image, terms) = (of.inputs * of.from[0] * of.from[1], of.inputs * of.taps.len());
        let (tile, tiles) = of.block(S::F32_LANES);
        let most = of.rows();
        for sample in 0..samples {
            for first in (0..of.to[0]).step_by(most) {
                let rows = most.min(of.to[0] - first);
                let all = of.planes.len(rows, of.inputs);
                let laid = buffers::aligned(images, all);
                of.planes.fill(s, &x[(sample * groups + group) * image..][..image], (first, rows), laid);
                let reads = (0..of.inputs).flat_map(|c| of.taps.iter().map(move |tap| (c, tap)));
                let reads: Vec<usize> = reads.map(|(c, tap)| of.planes.offset(rows, c, tap)).collect();
                for start in (0..rows * width).step_by(PIXELS) {
                    let n = PIXELS.min(rows * width - start);
                    for (block, sums) in sums.chunks_exact_mut(tiles * tile).enumerate() {
                        // What is beyond the last channel, or the last tap, does the last once more.
                        let row = |k: usize| {
                            let o = (outputs.start + block * OUTPUTS + k).min(outputs.end - 1);
                            &gy[((sample * groups + group) * of.outputs + o) * pixels + first * width + start..][..n]
                        };
                        let alone = outputs.len() == block * OUTPUTS + 1;
                        for (nth, sums) in sums.chunks_exact_mut(tile).enumerate() {
                            let read = |k: usize| &laid[reads[(nth * TAPS + k).min(terms - 1)] + start..][..n];
                            let reads = [read(0), read(1), read(2)];
                            if alone {
                                dot(s, [row(0)], reads, &mut sums[..tile / OUTPUTS]);
                            } else if S::REGISTER_COUNT >= 32 {
                                let rows = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
                                dot(s, rows, reads, sums);
                            } else {
                                let (first, last) = sums.split_at_mut(tile / 2);
                                dot(s, [row(0), row(1), row(2), row(3)], reads, first);
                                dot(s, [row(4), row(5), row(6), row(7)], reads, last);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// sums [M, V, lanes] += a bᵀ, lane by lane.
#[inline(always)]
fn dot<S: Simd, const M: usize, const V: usize>(s: S, a: [&[f32]; M], b: [&[f32]; V], sums: &mut [f32]) {
    let zero = s.splat_f32s(0.0);
    let mut all = [[zero; V]; M];
    // All of one length, so that one check does for all.
    let n = a[0].len() / S::F32_LANES;
    let (mut rows, mut reads) = ([S::as_simd_f32s(a[0]); M], [S::as_simd_f32s(b[0]); V]);
    for (row, a) in rows.iter_mut().zip(a) {
        *row = S::as_simd_f32s(a);
        row.0 = &row.0[..n];
    }
    for (read, b) in reads.iter_mut().zip(b) {
        *read = S::as_simd_f32s(b);
        read.0 = &read.0[..n];
    }
    for q in 0..n {
        let mut pixels = [zero; V];
        for (pixels, read) in pixels.iter_mut().zip(reads) {
            *pixels = read.0[q];
        }
        for i in 0..M {
            for j in 0..V {
                all[i][j] = s.mul_add_e_f32s(rows[i].0[q], pixels[j], all[i][j]);
            }
        }
    }
    if !rows[0].1.is_empty() {
        for i in 0..M {
            let row = s.partial_load_f32s(rows[i].1);
            for j in 0..V {
                all[i][j] = s.mul_add_e_f32s(row, s.partial_load_f32s(reads[j].1), all[i][j]);
            }
        }
    }
    for (sums, all) in S::as_mut_simd_f32s(sums).0.iter_mut().zip(all.as_flattened()) {
        *sums = s.add_f32s(*sums, *all);
    }
}
