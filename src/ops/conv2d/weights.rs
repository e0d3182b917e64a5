//! The cotangent of W: gW[o, t] = Σ_q gy[o, q] x[where tap t reads for pixel q], over all pixels q of all samples.
//!
//! With x turned to pixel-major order, what the taps of a kernel's row read for one pixel stands side by side, channels
//! and all: the register tile of the other passes takes vectors of that, some output channels, and sums over pixels.
//! Images of few channels (those that `dots.rs` does not take) stay as they are, and what all taps read for a pixel is
//! copied together first. Samples are dealt out to a number of partial sums that the sizes alone decide, and these are
//! added in their order.
use super::buffers;
use super::partials::{Deal, Partials, Piece};
use super::planes::{Planes, Tap};
use super::tile::{Registers, VECTORS, multiply_tile, tiles, transpose};
use crate::ops::{Cotangent, Vectorised, simd};
use pulp::Simd;
use rayon::prelude::*;
use std::cell::Cell;

/// Pixels whose products are summed in registers at a time.
const PIXELS: usize = 128;
/// Floats that a task's images may take.
const BAND: usize = 120_000;
/// Floats that all partial sums may take, how many tasks are wanted, and how many output channels one takes at least.
const SUMS: usize = 1 << 20;
const TASKS: usize = 8;
const CHANNELS: usize = 64;

/// The sizes of a convolution, for one group of channels after the other.
#[derive(Debug)]
pub(super) struct WeightGradient {
    pub batch: usize,
    pub groups: usize,
    /// Channels of a group.
    pub inputs: usize,
    pub outputs: usize,
    pub from: [usize; 2],
    pub stride: [usize; 2],
    pub to: [usize; 2],
    pub kernel: [usize; 2],
    /// Whether what a pixel's taps read is copied together, from images that `stride` did not take apart.
    pub gathered: bool,
    pub taps: Vec<Tap>,
}

/// Where things lie, for all tasks.
struct Plan {
    planes: Planes,
    bands: Vec<Band>,
    /// Floats of a row of sums, and where in it the sums of each tap's channels stand, unless gathered.
    width: usize,
    places: Vec<usize>,
    /// How far apart pixels stand in images that are turned.
    apart: usize,
    /// Samples whose pixels are summed together.
    together: usize,
}

/// Rows of outputs whose images are laid out together.
struct Band {
    first: usize,
    rows: usize,
    /// Where each pixel reads.
    offsets: Vec<usize>,
    /// Where the vectors lie for the first pixel; their sums stand side by side.
    vectors: Vec<usize>,
    /// Where each row of each channel's kernel reads, if gathered.
    kernel_rows: Vec<usize>,
}

#[derive(Default)]
struct Scratch {
    images: Vec<f32>,
    columns: Vec<f32>,
    outputs: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// Taps that read side by side, as the first of them and the places of all in the kernel.
fn segments(taps: &[Tap]) -> Vec<(Tap, Vec<usize>)> {
    let mut taps = taps.to_vec();
    taps.sort_unstable_by_key(|t| (t.phase[0], t.shift[0], t.phase[1], t.shift[1]));
    let mut all: Vec<(Tap, Vec<usize>)> = Vec::new();
    for tap in taps {
        match all.last_mut() {
            Some((first, weights))
                if (first.phase, first.shift[0]) == (tap.phase, tap.shift[0])
                    && first.shift[1] + weights.len() as isize == tap.shift[1] =>
            {
                weights.push(tap.weight);
            }
            _ => all.push((tap, vec![tap.weight])),
        }
    }
    all
}

impl WeightGradient {
    /// How the sums are made, and where things lie.
    pub fn prepare(&self) -> Prepared<'_> {
        let plan = self.plan(Registers::new().lanes);
        // By the sizes alone, and not by the threads.
        let partials = (SUMS / (self.groups * self.outputs * plan.width)).clamp(1, TASKS).min(self.batch);
        let each = self.batch.div_ceil(partials);
        let partials = self.batch.div_ceil(each);
        let parts = TASKS.div_ceil(partials).min(self.outputs / CHANNELS).max(1);
        let share = self.outputs.div_ceil(parts).next_multiple_of(8);
        let deal = Deal { batch: self.batch, outputs: self.outputs, groups: self.groups, each, share };
        Prepared { of: self, plan, deal }
    }

    fn plan(&self, lanes: usize) -> Plan {
        let ([height, wide], [down, right]) = (self.to, self.stride);
        let (inputs, kernel) = (self.inputs, self.taps.len());
        // Side by side from pixel to pixel, unless a tap fills vectors of its own: then an odd number of cache lines
        // apart, so that pixels do not meet in the cache.
        let alone = inputs >= 64;
        let apart = if self.gathered {
            inputs
        } else if alone {
            inputs.next_multiple_of(2 * lanes) + lanes
        } else {
            inputs
        };
        let segments: Vec<(Tap, Vec<usize>)> =
            if alone { self.taps.iter().map(|t| (*t, vec![t.weight])).collect() } else { segments(&self.taps) };
        let (mut width, mut places) = (0, vec![0; kernel]);
        if self.gathered {
            width = (inputs * kernel).next_multiple_of(lanes);
        } else {
            for (_, weights) in &segments {
                for (nth, weight) in weights.iter().enumerate() {
                    places[*weight] = width + nth * inputs;
                }
                width += (weights.len() * inputs).next_multiple_of(lanes);
            }
        }
        let (step, reached) = match self.gathered {
            true => ([1, 1], [(height - 1) * down + 1, (wide - 1) * right + 1]),
            false => (self.stride, self.to),
        };
        let planes = Planes::new(self.from, step, reached, &self.taps);
        let laid = |rows: usize| if self.gathered { (rows - 1) * down + 1 } else { rows };
        let rows = (1..=height).rev().find(|rows| planes.len(laid(*rows), apart) <= BAND).unwrap_or(1);
        let rows = height.div_ceil(height.div_ceil(rows));
        let fit = BAND / planes.len(laid(rows), apart);
        let together = if rows == height { (PIXELS / (height * wide)).min(fit).max(1) } else { 1 };
        let band = |first: usize| {
            let rows = rows.min(height - first);
            let pixels = (0..rows).flat_map(|i| (0..wide).map(move |j| (i, j)));
            let (offsets, vectors, kernel_rows) = if self.gathered {
                let starts = self.taps.iter().filter(|t| t.weight % self.kernel[1] == 0);
                let starts = (0..inputs).flat_map(|c| starts.clone().map(move |tap| (c, tap)));
                (
                    pixels.map(|(i, j)| i * down * planes.pitch + j * right).collect(),
                    (0..width).step_by(lanes).collect(),
                    starts.map(|(c, tap)| planes.offset(laid(rows), c, tap)).collect(),
                )
            } else {
                let vectors = segments.iter().flat_map(|(first, weights)| {
                    let base = planes.offset(rows, 0, first) * apart;
                    (base..base + weights.len() * inputs).step_by(lanes)
                });
                (pixels.map(|(i, j)| (i * planes.pitch + j) * apart).collect(), vectors.collect(), Vec::new())
            };
            let offsets: Vec<usize> = offsets;
            let each = planes.len(laid(rows), apart);
            let offsets = (0..together).flat_map(|nth| offsets.iter().map(move |at| nth * each + at)).collect();
            Band { first, rows: laid(rows), offsets, vectors, kernel_rows }
        };
        let bands = (0..height).step_by(rows).map(band).collect();
        Plan { planes, bands, width, places, apart, together }
    }
}

/// A weight gradient that is laid out.
pub(super) struct Prepared<'a> {
    of: &'a WeightGradient,
    plan: Plan,
    deal: Deal,
}

/// Sums over some samples.
pub(super) struct Partial {
    sums: Vec<f32>,
    add: bool,
    scratch: Scratch,
    /// The band that the images have their zeros for.
    cleared: Option<(usize, usize)>,
}

impl Partials for Prepared<'_> {
    type Partial = Partial;

    fn deal(&self) -> &Deal {
        &self.deal
    }
    fn together(&self) -> usize {
        if let [_] = self.plan.bands[..] { self.plan.together } else { 1 }
    }
    fn begin(&self, at: &Piece) -> Partial {
        let sums = buffers::take(at.outputs.len().next_multiple_of(8) * self.plan.width);
        Partial { sums, add: false, scratch: SCRATCH.take(), cleared: None }
    }
    fn add(&self, at: &Piece, samples: usize, x: &[f32], gy: &[f32], to: &mut Partial) {
        simd().run(Task { of: self.of, prepared: self, x, gy, at, samples, to });
    }
    fn end(&self, _: &Piece, partial: Partial) -> Vec<f32> {
        SCRATCH.set(partial.scratch);
        partial.sums
    }
    fn write(&self, sums: Vec<Vec<f32>>, g: &mut Cotangent) {
        let (of, plan, deal) = (self.of, &self.plan, &self.deal);
        let (add, inputs, kernel) = (g.add, of.inputs, of.taps.len());
        let write = |(o, gw): (usize, &mut [f32])| {
            let (group, o) = (o / of.outputs, o % of.outputs);
            let row = o % deal.share * plan.width;
            let (mut all, mut ordered) = (vec![0.0; plan.width], vec![0.0; gw.len()]);
            for sums in deal.of(&sums, group, o) {
                all.iter_mut().zip(&sums[row..]).for_each(|(all, sum)| *all += sum);
            }
            if of.gathered {
                ordered.copy_from_slice(&all[..gw.len()]);
            } else {
                let taps: Vec<&[f32]> = plan.places.iter().map(|at| &all[*at..*at + inputs]).collect();
                for (nth, taps) in taps.chunks(4).enumerate() {
                    if let Ok(taps) = <[&[f32]; 4]>::try_from(taps) {
                        transpose(taps, &mut ordered[4 * nth..], kernel);
                        continue;
                    }
                    for (i, taps) in taps.iter().enumerate() {
                        let to = ordered[4 * nth + i..].iter_mut().step_by(kernel);
                        to.zip(*taps).for_each(|(to, sum)| *to = *sum);
                    }
                }
            }
            gw.iter_mut().zip(&ordered).for_each(|(gw, sum)| *gw = if add { *gw + sum } else { *sum });
        };
        let rows = g.data.par_chunks_mut(inputs * kernel).enumerate();
        rows.for_each(|row| {
            simd().dispatch(
                #[inline(always)]
                || write((row.0, &mut *row.1)),
            )
        });
        sums.into_iter().for_each(buffers::give);
    }
}

struct Task<'a> {
    of: &'a WeightGradient,
    prepared: &'a Prepared<'a>,
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
        if S::REGISTER_COUNT >= 32 { self.by::<S, 8>(s) } else { self.by::<S, 4>(s) }
    }
}

impl Task<'_> {
    /// The same, by M output channels at a time, which 8 are a multiple of.
    #[inline(always)]
    fn by<S: Simd, const M: usize>(self, s: S) {
        let Self { of, prepared: Prepared { plan, .. }, at, to, .. } = self;
        let (lanes, own, width) = (S::F32_LANES, at.outputs.len(), plan.width);
        let (image, pixels) = (of.from[0] * of.from[1], of.to[0] * of.to[1]);
        let Partial { sums, add, scratch: Scratch { images, columns, outputs }, cleared } = to;
        let outputs_of = buffers::aligned(outputs, own.next_multiple_of(8) * PIXELS);
        let gathered: Vec<usize> = (0..if of.gathered { PIXELS } else { 0 }).map(|q| q * width).collect();
        let columns_of = buffers::aligned(columns, gathered.len() * width + of.kernel[1] + 16);
        let together = self.prepared.together();
        let samples: Vec<usize> = (0..self.samples).collect();
        for samples in samples.chunks(together) {
            let mut from = 0;
            for band in &plan.bands {
                let each = plan.planes.len(band.rows, plan.apart);
                let all = each * together;
                let laid =
                    buffers::aligned(images, all + VECTORS * lanes + (plan.planes.slack(lanes) + 16) * plan.apart);
                let first = if of.gathered { band.first * of.stride[0] } else { band.first };
                if *cleared != Some((band.first, band.rows)) {
                    laid.fill(0.0);
                    *cleared = Some((band.first, band.rows));
                }
                for (sample, to) in samples.iter().zip(laid.chunks_exact_mut(each)) {
                    let x = (sample * of.groups + at.group) * of.inputs * image;
                    let x = &self.x[x..x + of.inputs * image];
                    match of.gathered {
                        true => plan.planes.fill(s, x, (first, band.rows), to),
                        false => plan.planes.turn(x, (first, band.rows), plan.apart, to),
                    }
                }
                for offsets in band.offsets[..band.offsets.len() / together * samples.len()].chunks(PIXELS) {
                    let n = offsets.len();
                    for (nth, sample) in samples.iter().enumerate() {
                        let gy = ((sample * of.groups + at.group) * of.outputs + at.outputs.start) * pixels;
                        let gy = &self.gy[gy + from..gy + own * pixels];
                        let n = n / samples.len();
                        interleave::<M>(gy, pixels, n, &mut outputs_of[M * n * nth..]);
                    }
                    from += n / samples.len();
                    let (source, offsets) = if of.gathered {
                        gather(laid, offsets, &band.kernel_rows, of.kernel[1], width, columns_of);
                        (&*columns_of, &gathered[..n])
                    } else {
                        (&*laid, offsets)
                    };
                    let mut begin = 0;
                    for tile in tiles(&band.vectors) {
                        let blocks = outputs_of.chunks_exact(M * PIXELS).zip(sums.chunks_exact_mut(M * width));
                        for (a, sums) in blocks {
                            let c = (&mut sums[begin..], width, *add);
                            multiply_tile::<S, M>(s, &a[..M * n], (source, tile), offsets, c);
                        }
                        begin += tile.len() * lanes;
                    }
                    *add = true;
                }
            }
        }
    }
}

/// The first `n` of `pitch` pixels of each channel, in blocks of M channels side by side.
#[inline(always)]
fn interleave<const M: usize>(gy: &[f32], pitch: usize, n: usize, to: &mut [f32]) {
    for (gy, to) in gy.chunks(M * pitch).zip(to.chunks_mut(M * PIXELS)) {
        let mut rows: [&[f32]; M] = [&[]; M];
        rows.iter_mut().zip(gy.chunks(pitch)).for_each(|(row, gy)| *row = &gy[..n]);
        for (half, rows) in rows.as_chunks::<4>().0.iter().enumerate() {
            transpose(*rows, &mut to[4 * half..M * n], M);
        }
    }
}

/// What each row of each channel's kernel reads for a pixel, one after the other, `width` from pixel to pixel.
#[inline(always)]
fn gather(from: &[f32], pixels: &[usize], rows: &[usize], kernel: usize, width: usize, to: &mut [f32]) {
    match kernel {
        ..=4 => gather_by::<4>(from, pixels, rows, kernel, width, to),
        5..=8 => gather_by::<8>(from, pixels, rows, kernel, width, to),
        _ => gather_by::<16>(from, pixels, rows, kernel, width, to),
    }
}

/// The same, N numbers at a time: what is too much is overwritten by the next, or idle.
#[inline(always)]
fn gather_by<const N: usize>(
    from: &[f32],
    pixels: &[usize],
    rows: &[usize],
    kernel: usize,
    width: usize,
    to: &mut [f32],
) {
    for (q, pixel) in pixels.iter().enumerate() {
        let (from, to) = (&from[*pixel..], &mut to[q * width..]);
        let mut place = 0;
        for row in rows {
            let mut at = 0;
            while at < kernel {
                to[place + at..][..N].copy_from_slice(&from[row + at..][..N]);
                at += N;
            }
            place += kernel;
        }
    }
}
