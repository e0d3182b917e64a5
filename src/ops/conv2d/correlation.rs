//! Convolutions as stride-1 correlations: y and its tangent, and the cotangent of x, all through one register tile.
//!
//! A task takes a few samples (or some output channels of one) and goes over them in bands of rows that stay in cache
//! with what they read. The tile reads vectors of pixels where they stand; where lanes of theirs would idle, pixels of
//! many rows, and samples, are first packed side by side. Each output is a sum over blocks of taps, the blocks and the
//! taps in their order, whatever the tasks.
use super::bands::{self, Band, MOST, Run, Tiles};
use super::buffers;
use super::planes::{Planes, Tap};
use super::tile::{self, Registers, multiply_tile, put, transpose};
use crate::ops::{Vectorised, simd};
use pulp::Simd;
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

/// Taps whose products are summed in registers before they are added to the sum of the blocks before: with three
/// vectors each, what stays in the nearest cache while all output channels meet it.
const TAPS: usize = 144;

/// One phase of the outputs: every `step`-th row and column from `phase` on.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub phase: [usize; 2],
    pub taps: Vec<Tap>,
}

/// What is correlated, for one group of channels after the other.
#[derive(Debug)]
pub(super) struct Correlation {
    pub batch: usize,
    pub groups: usize,
    /// Channels of a group.
    pub inputs: usize,
    pub outputs: usize,
    /// Of the images read and written, and which rows and columns of them make a phase.
    pub from: [usize; 2],
    pub from_step: [usize; 2],
    pub to: [usize; 2],
    pub to_step: [usize; 2],
    pub parts: Vec<Part>,
    /// How far apart the weights of two groups, output channels and input channels stand.
    pub strides: [usize; 3],
}

/// Images with the weights they meet.
pub(super) type Term<'a> = (&'a [f32], &'a [f32]);

/// A task's working memory, kept by its thread from call to call.
#[derive(Default)]
struct Scratch {
    planes: Vec<f32>,
    panel: Vec<f32>,
    sums: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Weights as tiles read them: for each part, group and block of output channels, a row of channels a tap.
struct Packed {
    /// (first output channel, channels), the same for each group.
    blocks: Vec<(usize, usize)>,
    /// By part and group.
    data: Vec<Vec<f32>>,
}

impl Correlation {
    pub(super) fn grid(&self, part: &Part) -> [usize; 2] {
        [0, 1].map(|axis| self.to[axis].saturating_sub(part.phase[axis]).div_ceil(self.to_step[axis]))
    }

    fn pack(&self, registers: Registers, weights: &[&[f32]]) -> Packed {
        let whole = self.outputs / registers.channels * registers.channels;
        let mut blocks: Vec<(usize, usize)> =
            (0..whole).step_by(registers.channels).map(|o| (o, registers.channels)).collect();
        // A group of one channel, as depthwise convolutions have, would do nothing with three rows of four.
        let left = if self.outputs == 1 { 1 } else { 4 };
        blocks.extend((whole..self.outputs).step_by(left).map(|o| (o, left)));
        let rows = blocks.iter().map(|b| b.1).sum::<usize>();
        let pack = |(part, group): (&Part, usize)| {
            let taps = weights.len() * self.inputs * part.taps.len();
            let mut data = buffers::take(rows * taps);
            // A block of channels a task; what is left over at the end in one.
            let tasks = data.par_chunks_mut((registers.channels * taps).max(1)).enumerate();
            tasks.for_each(|(nth, mut data)| {
                let first = nth * registers.channels;
                for &(o, channels) in blocks.iter().filter(|b| (first..first + registers.channels).contains(&b.0)) {
                    let (block, rest) = std::mem::take(&mut data).split_at_mut(channels * taps);
                    let from = group * self.strides[0] + o * self.strides[1];
                    let each = block.chunks_exact_mut(channels * taps / weights.len());
                    weights.iter().zip(each).for_each(|(w, block)| {
                        let rows = self.outputs - o;
                        simd().dispatch(
                            #[inline(always)]
                            || self.pack_block(part, &w[from..], rows.min(channels), channels, block),
                        );
                    });
                    data = rest;
                }
            });
            data
        };
        let all = self.parts.iter().flat_map(|p| (0..self.groups).map(move |group| (p, group)));
        Packed { data: all.map(pack).collect(), blocks }
    }

    /// A row of `channels` weights, `real` of them there, for each input channel and tap of a part.
    #[inline(always)]
    fn pack_block(&self, part: &Part, w: &[f32], real: usize, channels: usize, to: &mut [f32]) {
        let (taps, [_, across, along]) = (part.taps.len(), self.strides);
        let in_order = part.taps.iter().enumerate().all(|(nth, tap)| tap.weight == nth);
        if in_order && channels == 1 && along == taps {
            return to.copy_from_slice(&w[..to.len()]);
        }
        if across == 1 {
            // Taps of one weight each: the channels of a row stand side by side.
            let rows = to.chunks_exact_mut(channels).zip((0..self.inputs).map(|c| c * along));
            return rows.for_each(|(to, from)| {
                to[..real].copy_from_slice(&w[from..from + real]);
                to[real..].fill(0.0);
            });
        }
        // What stands side by side in a row of weights.
        let run = if along == taps { self.inputs * taps } else { taps };
        if in_order && run >= 4 && channels >= 4 {
            for (c, to) in to.chunks_exact_mut(channels * run).enumerate() {
                for i in (0..channels).step_by(4) {
                    let row = |k: usize| {
                        let from = c * along + (i + k) * across;
                        if i + k < real { &w[from..from + run] } else { &[] }
                    };
                    transpose([row(0), row(1), row(2), row(3)], &mut to[i..], channels);
                }
            }
            return;
        }
        let mut rows = to.chunks_exact_mut(channels);
        for (c, tap) in (0..self.inputs).flat_map(|c| part.taps.iter().map(move |tap| (c, tap))) {
            let from = c * along + tap.weight;
            let Some(to) = rows.next() else { return };
            for (i, to) in to[..real].iter_mut().enumerate() {
                *to = w[from + i * across];
            }
            to[real..].fill(0.0);
        }
    }

    /// Samples that a task takes at most: as many as fill the lanes of their tiles and stay in cache.
    fn most(&self, planes: &Planes, registers: Registers, sources: usize) -> usize {
        let Some(part) = self.parts.first() else { return 1 };
        let [rows, width] = self.grid(part);
        if rows * width == 0 {
            return 1;
        }
        let fit = bands::FLOATS / planes.len(rows, sources * self.inputs).max(1);
        (3 * MOST * registers.lanes / (rows * width)).min(fit).max(1)
    }

    /// All that tasks share, made of the terms' weights.
    pub fn prepare(&self, weights: &[&[f32]]) -> Prepared<'_> {
        let registers = Registers::new();
        let taps: Vec<Tap> = self.parts.iter().flat_map(|p| p.taps.iter().copied()).collect();
        let grid = self.parts.first().map_or([0, 0], |p| self.grid(p));
        // Three copies of an image want more than a few channels to be made of it, and vectors that none idles in.
        let pays = |planes: &Planes| self.outputs > 4 && bands::in_place(planes.pitch, grid, registers.lanes);
        let shifted = Planes::shifted(self.from, self.from_step, grid, &taps).filter(pays);
        let planes = shifted.unwrap_or_else(|| Planes::new(self.from, self.from_step, grid, &taps));
        let most = self.most(&planes, registers, weights.len());
        Prepared { of: self, sources: weights.len(), packed: self.pack(registers, weights), registers, planes, most }
    }

    /// y (+)= bias + the sum of the terms; `then` gets what each task made.
    pub fn run(&self, terms: &[Term], bias: Option<&[f32]>, add: bool, y: &mut [f32], then: Option<Then>) {
        let (pixels, outputs) = (self.to[0] * self.to[1], self.groups * self.outputs);
        if terms.is_empty() {
            return y.par_chunks_mut(outputs * pixels).enumerate().for_each(|(sample, y)| {
                for (o, y) in y.chunks_exact_mut(pixels).enumerate() {
                    let bias = bias.map_or(0.0, |bias| bias[o]);
                    y.iter_mut().for_each(|y| *y = if add { *y + bias } else { bias });
                }
                if let Some(then) = then {
                    then(Made { first: sample, outputs: 0..outputs }, y);
                }
            });
        }
        let weights: Vec<&[f32]> = terms.iter().map(|term| term.1).collect();
        let prepared = self.prepare(&weights);
        // As many tasks for each thread as for the others.
        let threads = rayon::current_num_threads();
        let samples = self.batch.div_ceil(self.batch.div_ceil(prepared.most).next_multiple_of(threads));
        let bands = [samples, self.batch % samples].map(|samples| prepared.bands(samples));
        // Fewer samples than threads: deal a sample's output channels out.
        let few = samples == 1 && self.groups == 1 && self.batch < 2 * threads;
        let share = if few { (self.outputs / 2).next_multiple_of(prepared.registers.channels) } else { outputs };
        let share = if outputs.is_multiple_of(share) { share } else { outputs };
        let image = self.groups * self.inputs * self.from[0] * self.from[1];
        let task = |(nth, y): (usize, &mut [f32])| {
            let (from, outputs) = if share == outputs { (0, outputs) } else { (nth * share % outputs, share) };
            let count = y.len() / (outputs * pixels);
            let first = nth * samples * share / (self.groups * self.outputs);
            let images: Vec<&[f32]> = terms.iter().map(|term| &term.0[first * image..]).collect();
            let bands = &bands[usize::from(count != samples)];
            prepared.correlate(bands, &images, from..from + outputs, bias, add, y);
            if let Some(then) = then {
                then(Made { first, outputs: from..from + outputs }, y);
            }
        };
        y.par_chunks_mut(samples * share * pixels).enumerate().for_each(task);
        prepared.done();
    }
}

/// What stands in the memory that a task hands on: channels `outputs` of samples from `first` on.
#[derive(Clone, Debug)]
pub(super) struct Made {
    first: usize,
    outputs: Range<usize>,
}

impl Made {
    /// Sample and channel of its nth plane.
    pub fn place(&self, nth: usize) -> (usize, usize) {
        (self.first + nth / self.outputs.len(), self.outputs.start + nth % self.outputs.len())
    }
}

/// What is done to a task's outputs while they are in cache.
pub(super) type Then<'a> = &'a (dyn Fn(Made, &mut [f32]) + Sync);

/// A correlation with weights that are packed, and its way of laying images out.
pub(super) struct Prepared<'a> {
    of: &'a Correlation,
    sources: usize,
    planes: Planes,
    packed: Packed,
    registers: Registers,
    /// Samples that a task takes at most.
    pub most: usize,
}

/// Bands of some number of samples.
pub(super) struct Bands {
    samples: usize,
    all: Vec<Band>,
}

impl Prepared<'_> {
    pub fn bands(&self, samples: usize) -> Bands {
        Bands { samples, all: self.of.bands(&self.planes, self.registers, samples, self.sources) }
    }

    /// y (+)= bias + the sum of the terms, for some channels of as many samples as the bands are of. Images and y begin
    /// with the first.
    pub fn correlate(
        &self,
        bands: &Bands,
        images: &[&[f32]],
        outputs: Range<usize>,
        bias: Option<&[f32]>,
        add: bool,
        y: &mut [f32],
    ) {
        SCRATCH.with_borrow_mut(|scratch| {
            simd().run(Task { of: self.of, prepared: self, bands, images, outputs, bias, add, y, scratch });
        });
    }

    /// Leave the memory to later calls.
    pub fn done(self) {
        self.packed.data.into_iter().for_each(buffers::give);
    }
}

struct Task<'a> {
    of: &'a Correlation,
    prepared: &'a Prepared<'a>,
    bands: &'a Bands,
    images: &'a [&'a [f32]],
    /// Output channels, of all groups.
    outputs: Range<usize>,
    bias: Option<&'a [f32]>,
    add: bool,
    y: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl Vectorised for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let of = self.of;
        // Nothing reaches the pixels of such a part.
        if !self.add && of.parts.iter().any(|p| p.taps.is_empty()) {
            self.y.fill(0.0);
        }
        let Scratch { planes, panel, sums } = std::mem::take(self.scratch);
        let (mut planes, mut panel, mut sums) = (planes, panel, sums);
        let (laid_out, samples) = (&self.prepared.planes, self.bands.samples);
        let (image, lanes) = (of.from[0] * of.from[1], S::F32_LANES);
        let mut cleared = None;
        for group in self.outputs.start / of.outputs..self.outputs.end.div_ceil(of.outputs) {
            let mut laid = None;
            for band in &self.bands.all {
                let len = laid_out.len(band.rows, of.inputs);
                let all = len * self.images.len() * samples;
                let room = buffers::aligned(&mut planes, all + laid_out.slack(lanes));
                if laid != Some((band.first, band.rows)) {
                    if laid_out.wants_zeros() && cleared != Some((band.first, band.rows)) {
                        room.fill(0.0);
                        cleared = Some((band.first, band.rows));
                    }
                    let mut to = room[..all].chunks_exact_mut(len);
                    for sample in 0..samples {
                        for x in self.images {
                            let at = (sample * of.groups + group) * of.inputs * image;
                            let Some(to) = to.next() else { continue };
                            laid_out.fill(s, &x[at..at + of.inputs * image], (band.first, band.rows), to);
                        }
                    }
                    laid = Some((band.first, band.rows));
                }
                for tiles in &band.tiles {
                    self.tiles(s, group, band, tiles, room, &mut panel, &mut sums);
                }
            }
        }
        *self.scratch = Scratch { planes, panel, sums };
    }
}

impl Task<'_> {
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // a place in the loops, and the memory of each
    fn tiles<S: Simd>(
        &mut self,
        s: S,
        group: usize,
        band: &Band,
        tiles: &Tiles,
        planes: &[f32],
        panel: &mut Vec<f32>,
        sums: &mut Vec<f32>,
    ) {
        let (of, lanes) = (self.of, S::F32_LANES);
        // Odd in cache lines, so that rows do not meet in the cache.
        let wide = lanes * (MOST + 2);
        let weights = &self.prepared.packed.data[band.part * of.groups + group];
        let taps = band.offsets.len();
        // The group's output channels that are this task's.
        let own = self.outputs.start.max(group * of.outputs) - group * of.outputs
            ..self.outputs.end.min((group + 1) * of.outputs) - group * of.outputs;
        let blocks = self.prepared.packed.blocks.iter().filter(|b| own.contains(&b.0));
        let rows = own.len().next_multiple_of(8);
        let sums = buffers::aligned(sums, rows * wide);
        let short = lanes >= 8 && tiles.runs.iter().all(|run| run.len <= 8);
        let in_panel: [usize; TAPS] = std::array::from_fn(|t| t * wide);
        let (pixels, step) = (of.to[0] * of.to[1], of.to_step[1]);
        // Where a run of outputs stands, for the first of this task's channels of the group.
        let place = |run: &Run| {
            let channel = group * of.outputs + own.start - self.outputs.start;
            (run.sample * self.outputs.len() + channel) * pixels + run.to
        };
        // Sums of one block of taps that are whole vectors side by side go where they belong.
        let straight = match tiles.written[..] {
            [run] => {
                let whole = run.len == tiles.bases.len() * lanes && blocks.clone().all(|b| b.0 + b.1 <= own.end);
                (whole && step == 1 && (taps <= TAPS || !self.add) && self.bias.is_none()).then(|| place(&run))
            }
            _ => None,
        };
        for (nth, offsets) in band.offsets.chunks(TAPS).enumerate() {
            let (source, offsets) = match tiles.packed {
                false => (planes, offsets),
                true => {
                    let panel = buffers::aligned(panel, TAPS * wide + lanes);
                    for (t, offset) in offsets.iter().enumerate() {
                        let (to, from) = (&mut panel[t * wide..(t + 1) * wide + lanes], &planes[*offset..]);
                        for run in &tiles.runs {
                            // So much each: what is too much is overwritten by the next, or idle.
                            if short {
                                to[run.at..run.at + 8].copy_from_slice(&from[run.from..run.from + 8]);
                            } else {
                                let from = S::as_simd_f32s(&from[run.from..run.from + lanes]).0;
                                S::as_mut_simd_f32s(&mut to[run.at..run.at + lanes]).0.copy_from_slice(from);
                            }
                        }
                    }
                    (&*panel, &in_panel[..offsets.len()])
                }
            };
            let mut done = 0;
            for tile in tile::tiles(&tiles.bases) {
                for &(o, channels) in blocks.clone() {
                    let a = &weights[o * taps + nth * TAPS * channels..][..offsets.len() * channels];
                    let c = match straight {
                        Some(at) => {
                            (&mut self.y[at + (o - own.start) * pixels + done * lanes..], pixels, self.add || nth > 0)
                        }
                        None => (&mut sums[(o - own.start) * wide + done * lanes..], wide, nth > 0),
                    };
                    match channels {
                        8 => multiply_tile::<S, 8>(s, a, (source, tile), offsets, c),
                        1 => multiply_tile::<S, 1>(s, a, (source, tile), offsets, c),
                        _ => multiply_tile::<S, 4>(s, a, (source, tile), offsets, c),
                    }
                }
                done += tile.len();
            }
        }
        if straight.is_some() {
            return;
        }
        for run in &tiles.written {
            for o in 0..own.len() {
                let bias = self.bias.and_then(|b| b.get(group * of.outputs + own.start + o)).copied();
                let at = place(run) + o * pixels;
                let sums = &sums[o * wide + run.at..][..run.len];
                if step == 1 {
                    put(s, &mut self.y[at..at + run.len], sums, bias, self.add);
                } else {
                    let (to, bias) = (self.y[at..].iter_mut().step_by(step), bias.unwrap_or(0.0));
                    to.zip(sums).for_each(|(y, v)| *y = if self.add { *y + (v + bias) } else { v + bias });
                }
            }
        }
    }
}
