//! The cotangent of W where x has few channels: gW[o, t] = Σ_q gy[o, q] x[where tap t reads for pixel q].
//!
//! Both factors stand in the order of pixels, gy as it came and x in shifted planes, so lanes go over pixels and nothing
//! is turned or copied together. Lanes are summed at the end of a task; samples are dealt out to tasks, and their sums
//! added in order, as the sizes alone decide.
use super::buffers;
use super::geometry::Geometry;
use super::planes::{Planes, Tap};
use crate::ops::{Cotangent, Vectorised, simd};
use pulp::Simd;
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

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
    batch: usize,
    inputs: usize,
    outputs: usize,
    /// Sizes of the images of x and of y.
    from: [usize; 2],
    to: [usize; 2],
    taps: Vec<Tap>,
    planes: Planes,
}

thread_local! {
    static IMAGES: RefCell<Vec<f32>> = RefCell::default();
}

impl Dots {
    /// Where it pays: taps of `g`, a convolution of one group and stride 1.
    pub fn new(g: &Geometry, taps: Vec<Tap>) -> Option<Self> {
        let long = g.to[0] * g.to[1] >= PIXELS / 2;
        if g.inputs > FEW || g.op.groups != 1 || g.op.stride != [1, 1] || !long {
            return None;
        }
        let planes = Planes::shifted(g.from, [1, 1], g.to, &taps)?;
        Some(Self { batch: g.batch, inputs: g.inputs, outputs: g.outputs, from: g.from, to: g.to, taps, planes })
    }

    /// g (+)= the sums over all samples.
    pub fn run(&self, x: &[f32], gy: &[f32], g: &mut Cotangent) {
        let each = self.batch.div_ceil(TASKS);
        let partials = self.batch.div_ceil(each);
        let share = self.outputs.div_ceil(TASKS / partials.min(TASKS)).next_multiple_of(OUTPUTS);
        let parts = self.outputs.div_ceil(share);
        let task = |nth: usize| {
            let (part, partial) = (nth / partials, nth % partials);
            let outputs = part * share..self.outputs.min((part + 1) * share);
            let samples = partial * each..self.batch.min((partial + 1) * each);
            IMAGES.with_borrow_mut(|images| simd().run(Task { of: self, x, gy, outputs, samples, images }))
        };
        let sums: Vec<Vec<f32>> = (0..parts * partials).into_par_iter().map(task).collect();
        let terms = self.inputs * self.taps.len();
        for (o, gw) in g.data.chunks_exact_mut(terms).enumerate() {
            let sums = &sums[o / share * partials..][..partials];
            for (t, gw) in gw.iter_mut().enumerate() {
                let sum: f32 = sums.iter().map(|sums| sums[o % share * terms + t]).sum();
                *gw = if g.add { *gw + sum } else { sum };
            }
        }
    }

    /// Rows of y whose images are laid out together.
    fn rows(&self) -> usize {
        let fits = |rows: &usize| self.planes.len(*rows, self.inputs) <= BAND;
        let most = (1..=self.to[0]).rev().find(fits).unwrap_or(1);
        self.to[0].div_ceil(self.to[0].div_ceil(most))
    }
}

struct Task<'a> {
    of: &'a Dots,
    x: &'a [f32],
    gy: &'a [f32],
    outputs: Range<usize>,
    samples: Range<usize>,
    images: &'a mut Vec<f32>,
}

impl Vectorised for Task<'_> {
    /// A row of sums for each output channel.
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        let Self { of, x, gy, outputs, samples, images } = self;
        let (lanes, width, pixels) = (S::F32_LANES, of.to[1], of.to[0] * of.to[1]);
        let (image, terms) = (of.inputs * of.from[0] * of.from[1], of.inputs * of.taps.len());
        let tile = OUTPUTS * TAPS * lanes;
        let (blocks, tiles) = (outputs.len().div_ceil(OUTPUTS), terms.div_ceil(TAPS));
        let mut sums = buffers::take(blocks * tiles * tile);
        sums.fill(0.0);
        let most = of.rows();
        for sample in samples {
            for first in (0..of.to[0]).step_by(most) {
                let rows = most.min(of.to[0] - first);
                let all = of.planes.len(rows, of.inputs);
                let laid = buffers::aligned(images, all);
                of.planes.fill(s, &x[sample * image..(sample + 1) * image], (first, rows), laid);
                let reads = (0..of.inputs).flat_map(|c| of.taps.iter().map(move |tap| (c, tap)));
                let reads: Vec<usize> = reads.map(|(c, tap)| of.planes.offset(rows, c, tap)).collect();
                for start in (0..rows * width).step_by(PIXELS) {
                    let n = PIXELS.min(rows * width - start);
                    for (block, sums) in sums.chunks_exact_mut(tiles * tile).enumerate() {
                        // What is beyond the last channel, or the last tap, does the last once more.
                        let row = |k: usize| {
                            let o = (outputs.start + block * OUTPUTS + k).min(outputs.end - 1);
                            &gy[(sample * of.outputs + o) * pixels + first * width + start..][..n]
                        };
                        let gy: [&[f32]; OUTPUTS] = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
                        for (nth, sums) in sums.chunks_exact_mut(tile).enumerate() {
                            let read = |k: usize| &laid[reads[(nth * TAPS + k).min(terms - 1)] + start..][..n];
                            dot(s, gy, [read(0), read(1), read(2)], sums);
                        }
                    }
                }
            }
        }
        let sum = |at: usize| {
            let (o, t) = (at / terms, at % terms);
            let tile = ((o / OUTPUTS) * tiles + t / TAPS) * OUTPUTS + o % OUTPUTS;
            s.reduce_sum_f32s(S::as_simd_f32s(&sums[(tile * TAPS + t % TAPS) * lanes..][..lanes]).0[0])
        };
        let all = (0..outputs.len() * terms).map(sum).collect();
        buffers::give(sums);
        all
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
