//! y = w (x − μ)/√(v + ε) + b a channel, for x [N, C, ..] and μ, v, w, b \[C\] (Ioffe and Szegedy 2015).
//!
//! μ and v are inputs like any other. Running averages make it batch normalisation in evaluation; a batch's own
//! [`super::Moment`]s make it batch normalisation in training, whose derivative through the statistics is then the
//! graph's.
use super::planes::{Planes, sum2};
use super::{Cost, Cotangent, DeviceIo, Op, Pass, Reads, channels, simd};
use crate::dual::Dual;
use crate::gpu::Queue;
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

mod cuda;
mod rectified;
pub use rectified::RectifiedBatchNorm;
pub(super) use rectified::{passed, rectified};

/// Inputs: x, mean, variance, weight, bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    pub eps: f32,
}

/// What a channel's numbers have in common.
pub(super) struct Channel {
    pub mean: f32,
    /// 1/√(v + ε).
    pub rstd: f32,
    /// w/√(v + ε).
    pub scale: f32,
    pub weight: f32,
}

impl Channel {
    /// Slope and shift of dy = scale dx + (x − μ) slope + shift, for tangents of mean, variance, weight and bias (1 to 4).
    pub fn moved(&self, of: impl Fn(usize) -> f32) -> (f32, f32) {
        let slope = self.rstd * (of(3) - 0.5 * self.weight * self.rstd * self.rstd * of(2));
        (slope, of(4) - self.scale * of(1))
    }
}

impl BatchNorm {
    pub(super) fn channel(&self, x: &[View], c: usize) -> Channel {
        let (mean, weight) = (x[1].data[c], x[3].data[c]);
        let rstd = (1.0 / (f64::from(x[2].data[c]) + f64::from(self.eps)).sqrt()) as f32;
        Channel { mean, rstd, scale: weight * rstd, weight }
    }

    /// A plane of dy = scale dx + (x − μ) slope + shift.
    fn tangent(&self, x: &[View], dx: &[Option<&[f32]>], (c, plane): (usize, usize), dy: &mut [f32]) {
        let (p, arch) = (Self::planes(x), simd());
        let channel = self.channel(x, c);
        let (slope, shift) = channel.moved(|i| dx[i].map_or(0.0, |d| d[c]));
        let Channel { mean, scale, .. } = channel;
        let x = p.plane(x[0].data, plane);
        let moved = dx[1..].iter().any(Option::is_some);
        match dx[0].map(|d| p.plane(d, plane)) {
            Some(dx) if moved => arch.dispatch(
                #[inline(always)]
                || {
                    for ((dy, x), dx) in dy.iter_mut().zip(x).zip(dx) {
                        *dy = scale.mul_add(*dx, (x - mean).mul_add(slope, shift));
                    }
                },
            ),
            Some(dx) => arch.dispatch(
                #[inline(always)]
                || scaled(dy, dx, scale, false),
            ),
            None => arch.dispatch(
                #[inline(always)]
                || dy.iter_mut().zip(x).for_each(|(dy, x)| *dy = (x - mean).mul_add(slope, shift)),
            ),
        }
    }

    /// The cotangents of mean, variance, weight and bias from Σ gy and Σ gy (x − μ) of each channel.
    pub(super) fn deal(&self, x: &[View], sums: &[[f64; 2]], to: &mut [Option<Cotangent>]) {
        for (c, [total, along]) in sums.iter().enumerate() {
            let Channel { rstd, scale, weight, .. } = self.channel(x, c);
            let (rstd, weight) = (f64::from(rstd), f64::from(weight));
            let each = [-f64::from(scale) * total, -0.5 * weight * rstd * rstd * rstd * along, rstd * along, *total];
            for (g, v) in to.iter_mut().zip(each) {
                if let Some(g) = g {
                    g.put(c, v as f32);
                }
            }
        }
    }

    fn planes(x: &[View]) -> Planes {
        Planes::of(x[0].shape).unwrap_or(Planes { batch: 0, channels: 1, area: 1 })
    }
}

/// gx (+)= a gy.
#[inline(always)]
pub(super) fn scaled(gx: &mut [f32], gy: &[f32], a: f32, add: bool) {
    if add {
        gx.iter_mut().zip(gy).for_each(|(g, v)| *g = a.mul_add(*v, *g));
    } else {
        gx.iter_mut().zip(gy).for_each(|(g, v)| *g = a * v);
    }
}

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        match *x {
            [&[_, c, ..], ref rest @ ..] if rest.len() == 4 && rest.iter().all(|s| **s == [c]) => Ok(x[0].to_vec()),
            _ => Err(format!("wants x [N, C, ..] and mean, variance, weight, bias [C]; got {x:?}")),
        }
    }
    fn reverse_reads(&self) -> Reads {
        Reads::inputs(&[0, 1, 2, 3])
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let n = numel(x[0]) as u64;
        match pass {
            Pass::Forward => Cost { flops: 3 * n, bytes: 8 * n },
            Pass::Jvp => Cost { flops: 5 * n, bytes: 12 * n },
            Pass::Dual => self.cost(Pass::Forward, x) + self.cost(Pass::Jvp, x),
            Pass::Vjp => Cost { flops: 5 * n, bytes: 12 * n },
        }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let Some(p) = Planes::of(x[0].shape) else { return };
        for (i, y) in y.iter_mut().enumerate() {
            let c = i / p.area % p.channels;
            let deviation = (x[2].data[c] + f64::from(self.eps).into()).sqrt();
            *y = (x[0].data[i] - x[1].data[c]) / deviation * x[3].data[c] + x[4].data[c];
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        let (p, arch) = (Self::planes(x), simd());
        p.each(y, |c, plane, y| {
            let (Channel { mean, scale, .. }, bias) = (self.channel(x, c), x[4].data[c]);
            let x = p.plane(x[0].data, plane);
            arch.dispatch(
                #[inline(always)]
                || y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - mean).mul_add(scale, bias)),
            );
        });
    }
    fn jvp(&self, x: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        Self::planes(x).each(dy, |c, plane, dy| self.tangent(x, dx, (c, plane), dy));
    }
    /// One pass for gx and the sums a plane, Σ gy and Σ gy (x − μ), of which the others are made.
    fn vjp(&self, x: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let (p, arch) = (Self::planes(x), simd());
        let [gx, rest @ ..] = gx else { return };
        let wanted = rest.iter().any(Option::is_some);
        let sum = |c: usize, plane: usize| {
            let mean = x[1].data[c];
            sum2(p.plane(gy, plane), p.plane(x[0].data, plane), |g, x| [g, g * (x - mean)])
        };
        let sums = match gx {
            Some(Cotangent { data, add }) => {
                let add = *add;
                let mut parts = vec![[0.0; 2]; p.batch * p.channels];
                data.par_chunks_mut(p.area.max(1)).zip(parts.par_iter_mut()).enumerate().with_min_len(4).for_each(
                    |(plane, (gx, part))| {
                        let c = plane % p.channels;
                        let Channel { scale, .. } = self.channel(x, c);
                        arch.dispatch(
                            #[inline(always)]
                            || scaled(gx, p.plane(gy, plane), scale, add),
                        );
                        if wanted {
                            *part = sum(c, plane);
                        }
                    },
                );
                p.add_up(&parts)
            }
            None if wanted => p.sums(sum),
            None => return,
        };
        self.deal(x, &sums, rest);
    }
    fn scratch(&self, pass: Pass, x: &[&[usize]]) -> usize {
        if pass == Pass::Vjp { channels::scratch(x[0]) } else { 0 }
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        match pass {
            Pass::Forward => self.forward_on(io, queue),
            Pass::Jvp => self.jvp_on(io, queue),
            Pass::Dual => super::in_turn(self, io, queue),
            Pass::Vjp => self.vjp_on(io, queue),
        }
    }
}
