//! A convolution, the batch norm of it under statistics that it has no part in, what is added to that where a residual
//! connection ends, and the ReLU behind: y = max(0, z), z = w (x * W + b' − μ)/√(v + ε) + b (+ r). No model asks for it: the
//! host makes it of the ops (src/graph/fuse.rs).
//!
//! A convolution's outputs are as large as its images, and the norm is a pass over memory. Here a task's outputs get it
//! while they are in cache, and are stored once. On the way back a task takes a few samples from the cotangent of y to
//! those of x and W: that of the convolution's outputs never leaves its cache.
//!
//! Those outputs are not kept. Where z > 0, and nowhere else has it a cotangent, z tells them: u − μ = (z − r − b)/(w/√(v + ε)),
//! as activations are inverted in Rota Bulò et al. 2018 (In-Place Activated BatchNorm). Where w is too small beside what it
//! is added to, that channel is convolved anew.
use super::correlation::{Made, Prepared};
use super::geometry::Geometry;
use super::partials::{Partials, Piece};
use super::{Conv2d, buffers};
use crate::dual::Dual;
use crate::ops::batch_norm::{Channel, passed, rectified, scaled};
use crate::ops::planes::{Planes, sum2};
use crate::ops::{BatchNorm, Cost, Cotangent, Op, Pass, Reads, simd};
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

/// Inputs: x and W, with `bias` the convolution's, the norm's mean, variance, weight and bias, and with `residual` r as y.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RectifiedConv {
    /// In one group.
    pub conv: Conv2d,
    pub eps: f32,
    pub bias: bool,
    pub residual: bool,
}

/// A channel is convolved anew where |w| is less than this share of what it is added to: |b|, and 1 for a residual,
/// which numbers behind a norm are about the size of. Then (z − r − b)/w is off by some 4e-6 at most.
const TOLD: f32 = 1.0 / 32.0;

/// Threads that a backward pass which takes samples all the way can feed; with more, it goes step by step.
fn fed(pieces: usize) -> bool {
    rayon::current_num_threads() <= pieces
}

/// What u − μ of a channel is found by.
#[derive(Clone, Copy)]
enum Told<'a> {
    /// y: it is (y − b)/scale, or (y − r − b)/scale.
    Output,
    /// The convolution's outputs [N, P, area], and which of P it is.
    Anew(&'a [f32], usize, usize),
}

/// A call's inputs.
struct Inputs<'x> {
    of: RectifiedConv,
    g: Geometry,
    x: View<'x>,
    w: View<'x>,
    bias: Option<&'x [f32]>,
    /// As [`BatchNorm`] reads them; the first is not its x.
    norm: &'x [View<'x>],
    residual: Option<&'x [f32]>,
}

impl<'x> Inputs<'x> {
    fn channel(&self, c: usize) -> (Channel, f32) {
        (BatchNorm { eps: self.of.eps }.channel(self.norm, c), self.norm[4].data[c])
    }
    fn planes(&self) -> Planes {
        Planes { batch: self.g.batch, channels: self.g.outputs, area: self.g.pixels() }
    }

    /// Channels that y does not tell, a NaN's among them.
    fn untold(&self) -> Vec<usize> {
        let told = |c: &usize| {
            let (Channel { weight, .. }, bias) = self.channel(*c);
            weight.abs() >= TOLD * (bias.abs() + f32::from(u8::from(self.of.residual))) && weight != 0.0
        };
        (0..self.g.outputs).filter(|c| !told(c)).collect()
    }

    /// The convolution's outputs for these channels, [N, P, H', W'].
    fn anew(&self, channels: &[usize]) -> Vec<f32> {
        let (taps, g) = (self.g.taps(), Geometry { outputs: channels.len(), ..self.g });
        let w: Vec<f32> = channels.iter().flat_map(|c| &self.w.data[c * taps..(c + 1) * taps]).copied().collect();
        let bias: Option<Vec<f32>> = self.bias.map(|b| channels.iter().map(|c| b[*c]).collect());
        let mut u = buffers::take(g.batch * g.outputs * g.pixels());
        if !channels.is_empty() {
            g.forward().run(&[(self.x.data, &w)], bias.as_deref(), false, &mut u, None);
        }
        u
    }

    /// How each channel is told, by channels and their outputs that were convolved anew.
    fn told<'a>(&self, untold: &[usize], anew: &'a [f32]) -> Vec<Told<'a>> {
        let of = |c| untold.iter().position(|u| *u == c);
        let told = |c| of(c).map_or(Told::Output, |nth| Told::Anew(anew, untold.len(), nth));
        (0..self.g.outputs).map(told).collect()
    }

    /// u − μ of a plane where y > 0, to `to`.
    fn deviation(&self, told: Told, (sample, c): (usize, usize), y: &[f32], to: &mut [f32]) {
        let (Channel { mean, scale, .. }, bias) = self.channel(c);
        let (area, arch) = (self.g.pixels(), simd());
        let by = 1.0 / scale;
        match (told, self.residual) {
            (Told::Anew(u, channels, nth), _) => {
                let u = &u[(sample * channels + nth) * area..][..area];
                arch.dispatch(
                    #[inline(always)]
                    || to.iter_mut().zip(u).for_each(|(to, u)| *to = u - mean),
                );
            }
            (Told::Output, Some(r)) => {
                let r = &r[(sample * self.g.outputs + c) * area..][..area];
                arch.dispatch(
                    #[inline(always)]
                    || to.iter_mut().zip(y).zip(r).for_each(|((to, y), r)| *to = ((y - r) - bias) * by),
                );
            }
            (Told::Output, None) => arch.dispatch(
                #[inline(always)]
                || to.iter_mut().zip(y).for_each(|(to, y)| *to = (y - bias) * by),
            ),
        }
    }
}

impl RectifiedConv {
    fn norm(self) -> BatchNorm {
        BatchNorm { eps: self.eps }
    }
    /// Where the norm's inputs begin, its x in place of the last of the convolution's.
    fn at(self) -> usize {
        1 + usize::from(self.bias)
    }

    fn inputs<'x>(self, x: &'x [View<'x>]) -> Option<Inputs<'x>> {
        let shapes: Vec<&[usize]> = x[..=self.at()].iter().map(|v| v.shape).collect();
        let norm = &x[self.at()..self.at() + 5];
        let (bias, residual) = (self.bias.then(|| x[2].data), self.residual.then(|| x[self.at() + 5].data));
        let g = Geometry::new(&self.conv, &shapes).ok()?;
        Some(Inputs { of: self, g, x: x[0], w: x[1], bias, norm, residual })
    }
}

impl Op for RectifiedConv {
    fn name(&self) -> &'static str {
        if self.residual { "conv2d_batch_norm_add_relu" } else { "conv2d_batch_norm_relu" }
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        let (at, rest) = (self.at(), 5 + usize::from(self.residual));
        if x.len() != at + rest || self.conv.groups != 1 {
            return Err(format!("wants one group and {} inputs; got {} groups, {x:?}", at + rest, self.conv.groups));
        }
        let shape = self.conv.output(&x[..=at])?;
        let norm = [&[&shape[..]], &x[at + 1..at + 5]].concat();
        match x.get(at + 5) {
            Some(r) if **r != shape => Err(format!("wants r as the output, {shape:?}; got {r:?}")),
            _ => self.norm().output(&norm),
        }
    }
    fn reverse_reads(&self) -> Reads {
        const ALL: &[usize] = &[0, 1, 2, 3, 4, 5, 6, 7];
        Reads { inputs: &ALL[..self.at() + 5 + usize::from(self.residual)], output: true }
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let n = self.conv.output(&x[..=self.at()]).map_or(0, |y| numel(&y)) as u64;
        let residual = if self.residual { 4 * n } else { 0 };
        // Of the norm and what is behind it.
        let forward = Cost { flops: 5 * n, bytes: residual };
        let linear = Cost { flops: 9 * n, bytes: 4 * n + residual };
        self.conv.cost(pass, &x[..=self.at()])
            + match pass {
                Pass::Forward => forward,
                Pass::Dual => forward + linear,
                _ => linear,
            }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let at = self.at();
        let mut u = vec![Dual::ZERO; y.len()];
        self.conv.reference(&x[..=at], &mut u);
        let shapes: Vec<&[usize]> = x[..=at].iter().map(|v| v.shape).collect();
        let Ok(shape) = self.conv.output(&shapes) else { return };
        let u = View { data: &u, shape: &shape };
        self.norm().reference(&[&[u], &x[at + 1..at + 5]].concat(), y);
        for (i, y) in y.iter_mut().enumerate() {
            let z = x.get(at + 5).map_or(*y, |r| *y + r.data[i]);
            *y = if z.re > 0.0 { z } else { Dual::from(0.0) };
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        let Some(inputs) = self.inputs(x) else { return };
        let (area, channels, arch) = (inputs.g.pixels(), inputs.g.outputs, simd());
        let then = |made: Made, y: &mut [f32]| {
            for (nth, y) in y.chunks_exact_mut(area).enumerate() {
                let (sample, c) = made.place(nth);
                let (Channel { mean, scale, .. }, bias) = inputs.channel(c);
                match inputs.residual.map(|r| &r[(sample * channels + c) * area..][..area]) {
                    Some(r) => arch.dispatch(
                        #[inline(always)]
                        || {
                            for (y, r) in y.iter_mut().zip(r) {
                                *y = rectified((*y - mean).mul_add(scale, bias) + r);
                            }
                        },
                    ),
                    None => arch.dispatch(
                        #[inline(always)]
                        || y.iter_mut().for_each(|y| *y = rectified((*y - mean).mul_add(scale, bias))),
                    ),
                }
            }
        };
        inputs.g.forward().run(&[(inputs.x.data, inputs.w.data)], inputs.bias, false, y, Some(&then));
    }
    fn jvp(&self, x: &[View], y: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        let Some(inputs) = self.inputs(x) else { return };
        let (area, channels, arch, at) = (inputs.g.pixels(), inputs.g.outputs, simd(), self.at());
        let (terms, bias) = self.conv.terms(&x[..=at], &dx[..=at]);
        let (norm, residual) = (&dx[at..at + 5], dx.get(at + 5).copied().flatten());
        // Those of variance and weight alone read u.
        let slopes = norm[2].is_some() || norm[3].is_some();
        let untold = if slopes { inputs.untold() } else { Vec::new() };
        let anew = inputs.anew(&untold);
        let told = inputs.told(&untold, &anew);
        let then = |made: Made, dy: &mut [f32]| {
            let mut deviation = vec![0.0; if slopes { area } else { 0 }];
            for (nth, dy) in dy.chunks_exact_mut(area).enumerate() {
                let (sample, c) = made.place(nth);
                let plane = sample * channels + c;
                let y = &y[plane * area..][..area];
                let (channel, _) = inputs.channel(c);
                let (slope, shift) = channel.moved(|i| norm[i].map_or(0.0, |d| d[c]));
                let scale = channel.scale;
                if slopes {
                    inputs.deviation(told[c], (sample, c), y, &mut deviation);
                    arch.dispatch(
                        #[inline(always)]
                        || {
                            for (dy, x) in dy.iter_mut().zip(&deviation) {
                                *dy = scale.mul_add(*dy, x.mul_add(slope, shift));
                            }
                        },
                    );
                } else {
                    arch.dispatch(
                        #[inline(always)]
                        || dy.iter_mut().for_each(|dy| *dy = scale.mul_add(*dy, shift)),
                    );
                }
                match residual.map(|d| &d[plane * area..][..area]) {
                    Some(dr) => arch.dispatch(
                        #[inline(always)]
                        || dy.iter_mut().zip(y).zip(dr).for_each(|((dy, y), dr)| *dy = passed(*dy + dr, *y)),
                    ),
                    None => arch.dispatch(
                        #[inline(always)]
                        || dy.iter_mut().zip(y).for_each(|(dy, y)| *dy = passed(*dy, *y)),
                    ),
                }
            }
        };
        inputs.g.forward().run(&terms, bias, false, dy, Some(&then));
        buffers::give(anew);
    }
    fn vjp(&self, x: &[View], y: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let Some(inputs) = self.inputs(x) else { return };
        let at = self.at();
        let (conv, norm) = gx.split_at_mut(at + 1);
        let (norm, residual) = norm.split_at_mut(4);
        let [of_x, of_w, of_bias @ ..] = conv else { return };
        let sums = norm.iter().chain(&*of_bias).any(Option::is_some);
        // Those of variance and weight alone read u.
        let untold = if norm[1].is_some() || norm[2].is_some() { inputs.untold() } else { Vec::new() };
        let anew = inputs.anew(&untold);
        let told = inputs.told(&untold, &anew);
        let back = Back { inputs: &inputs, told: &told, y, gy, sums };
        let of_r = residual.first_mut().and_then(Option::as_mut);
        let (of_x, of_w) = (of_x.as_mut(), of_w.as_mut());
        let sums = match inputs.g.dots() {
            Some(dots) => back.run(&dots, of_x, of_w, of_r),
            None => back.run(&inputs.g.weight_gradient().prepare(), of_x, of_w, of_r),
        };
        buffers::give(anew);
        self.norm().deal(inputs.norm, &sums, norm);
        if let Some(Some(to)) = of_bias.first_mut() {
            for (c, [total, _]) in sums.iter().enumerate() {
                to.put(c, (f64::from(inputs.channel(c).0.scale) * total) as f32);
            }
        }
    }
}

/// A reverse pass: from gy to the cotangents of x, W and r, and Σ g and Σ g (u − μ) a channel.
struct Back<'a> {
    inputs: &'a Inputs<'a>,
    told: &'a [Told<'a>],
    y: &'a [f32],
    gy: &'a [f32],
    sums: bool,
}

/// A part of a cotangent, and whether it is added to.
type Part<'a> = Option<(&'a mut [f32], bool)>;

/// What a piece of the samples is to make.
struct Share<'a> {
    at: Piece,
    gx: Part<'a>,
    gr: Part<'a>,
    sums: &'a mut [[f64; 2]],
}

/// A cotangent in parts of `n` floats; of none, as many.
fn parts<'a>(g: Option<&'a mut Cotangent>, n: usize, count: usize) -> Vec<Part<'a>> {
    match g {
        Some(Cotangent { data, add }) => data.chunks_mut(n).map(|data| Some((data, *add))).collect(),
        None => (0..count).map(|_| None).collect(),
    }
}

impl Back<'_> {
    fn run<P: Partials>(
        &self,
        weights: &P,
        of_x: Option<&mut Cotangent>,
        of_w: Option<&mut Cotangent>,
        of_r: Option<&mut Cotangent>,
    ) -> Vec<[f64; 2]> {
        let (g, planes) = (&self.inputs.g, self.inputs.planes());
        let (image, output) = (g.image(), g.outputs * g.pixels());
        let mut sums = vec![[0.0; 2]; g.batch * g.outputs];
        let pieces = weights.deal().pieces();
        let (count, each) = (pieces.len(), weights.deal().each);
        let backward = g.backward();
        // A piece must have all channels of its samples.
        let whole = count == weights.deal().partials() && fed(count);
        if (of_x.is_some() || of_w.is_some()) && whole {
            let prepared = of_x.is_some().then(|| backward.prepare(&[self.inputs.w.data]));
            let (wanted, of_x) = (of_w.is_some(), parts(of_x, each * image, count));
            let of_r = parts(of_r, each * output, count);
            let sums_of = sums.chunks_mut(each * g.outputs);
            let work = pieces.into_iter().zip(of_x).zip(of_r).zip(sums_of);
            let work: Vec<_> = work.map(|(((at, gx), gr), sums)| Share { at, gx, gr, sums }).collect();
            let piece = |Share { at, gx, gr, sums }: Share| {
                self.piece(weights, wanted, &at, prepared.as_ref().zip(gx), gr, sums)
            };
            let partials: Vec<Option<Vec<f32>>> = work.into_par_iter().map(piece).collect();
            if let Some(prepared) = prepared {
                prepared.done();
            }
            if let Some(to) = of_w {
                weights.write(partials.into_iter().flatten().collect(), to);
            }
            return planes.add_up(&sums);
        }
        let mut u = buffers::take(g.batch * output);
        let of_r = parts(of_r, output, g.batch);
        let work = u.par_chunks_mut(output).zip(of_r).zip(sums.par_chunks_mut(g.outputs)).enumerate();
        work.for_each(|(sample, ((u, gr), sums))| self.normed(sample, u, gr, sums));
        if let Some(Cotangent { data, add }) = of_x {
            backward.run(&[(&u, self.inputs.w.data)], None, *add, data, None);
        }
        if let Some(to) = of_w {
            weights.run((self.inputs.x.data, image), (&u, output), to);
        }
        buffers::give(u);
        planes.add_up(&sums)
    }

    /// A piece's samples, a few at a time, all the way.
    fn piece<P: Partials>(
        &self,
        weights: &P,
        wanted: bool,
        at: &Piece,
        to_x: Option<(&Prepared, (&mut [f32], bool))>,
        mut to_r: Part,
        sums: &mut [[f64; 2]],
    ) -> Option<Vec<f32>> {
        let g = &self.inputs.g;
        let (image, output, together) = (g.image(), g.outputs * g.pixels(), weights.together());
        // Whatever it is, the sums are the same; it must be a multiple of what is summed at once.
        let most = to_x.as_ref().map_or(1, |(prepared, _)| prepared.most).min(at.samples.len());
        let some = (most / together).max(1) * together;
        let mut to_x = to_x.map(|(prepared, (gx, add))| {
            let counts = [some.min(at.samples.len()), at.samples.len() % some];
            (prepared, counts.map(|samples| prepared.bands(samples)), gx, add)
        });
        let mut partial = wanted.then(|| weights.begin(at));
        let mut u = buffers::take(some * output);
        for begin in (0..at.samples.len()).step_by(some) {
            let count = some.min(at.samples.len() - begin);
            for nth in begin..begin + count {
                let u = &mut u[(nth - begin) * output..][..output];
                let gr = to_r.as_mut().map(|(gr, add)| (&mut gr[nth * output..][..output], *add));
                self.normed(at.samples.start + nth, u, gr, &mut sums[nth * g.outputs..][..g.outputs]);
            }
            let u = &u[..count * output];
            if let Some((prepared, bands, gx, add)) = &mut to_x {
                let bands = &bands[usize::from(count != some.min(at.samples.len()))];
                let gx = &mut gx[begin * image..][..count * image];
                prepared.correlate(bands, &[u], 0..g.inputs, None, *add, gx);
            }
            if let Some(partial) = &mut partial {
                weights.add(at, count, &self.inputs.x.data[(at.samples.start + begin) * image..], u, partial);
            }
        }
        buffers::give(u);
        partial.map(|partial| weights.end(at, partial))
    }

    /// A sample's cotangent of the convolution's outputs, to `u`; of what passes the ReLU, the residual's cotangent, and
    /// the sums.
    fn normed(&self, sample: usize, u: &mut [f32], mut gr: Part, sums: &mut [[f64; 2]]) {
        let (area, arch) = (self.inputs.g.pixels(), simd());
        let first = sample * self.inputs.g.outputs;
        let mut deviation = vec![0.0; if self.sums { area } else { 0 }];
        for (c, (u, sums)) in u.chunks_exact_mut(area).zip(sums).enumerate() {
            let of = |v| -> &[f32] { &<[f32]>::as_ref(v)[(first + c) * area..][..area] };
            let (gy, y) = (of(self.gy), of(self.y));
            arch.dispatch(
                #[inline(always)]
                || u.iter_mut().zip(gy).zip(y).for_each(|((u, g), y)| *u = passed(*g, *y)),
            );
            if let Some((gr, add)) = &mut gr {
                let gr = &mut gr[c * area..][..area];
                arch.dispatch(
                    #[inline(always)]
                    || scaled(gr, u, 1.0, *add),
                );
            }
            if self.sums {
                self.inputs.deviation(self.told[c], (sample, c), y, &mut deviation);
                *sums = sum2(u, &deviation, |g, x| [g, g * x]);
            }
            let scale = self.inputs.channel(c).0.scale;
            arch.dispatch(
                #[inline(always)]
                || u.iter_mut().for_each(|u| *u *= scale),
            );
        }
    }
}
