//! A batch norm, what is added to it where a residual connection ends, and the ReLU behind them: y = max(0, z),
//! z = w (x − μ)/√(v + ε) + b (+ r). No model asks for it: the host makes it of the ops (src/graph/fuse.rs), for the tensors
//! between them are as large as x, and a step then holds none of them.
use super::{BatchNorm, Channel, scaled};
use crate::dual::Dual;
use crate::ops::planes::{Planes, sum2};
use crate::ops::{Cost, Cotangent, Op, Pass, Reads, simd};
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

/// Inputs: x, mean, variance, weight, bias, and with `residual` r as x.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RectifiedBatchNorm {
    pub eps: f32,
    pub residual: bool,
}

/// As the ReLU by itself has it: a NaN stays one.
#[inline(always)]
pub(in crate::ops) fn rectified(z: f32) -> f32 {
    if z < 0.0 { 0.0 } else { z }
}

/// d where y > 0, which is where z > 0.
#[inline(always)]
pub(in crate::ops) fn passed(d: f32, y: f32) -> f32 {
    if y > 0.0 { d } else { 0.0 }
}

/// A plane of a cotangent that may not be asked for.
type Plane<'a> = Option<&'a mut [f32]>;

/// The planes of a cotangent; of none, as many.
fn chunks<'a>(g: Option<&'a mut Cotangent>, p: Planes) -> Vec<Plane<'a>> {
    match g {
        Some(g) => g.data.chunks_mut(p.area.max(1)).map(Some).collect(),
        None => (0..p.batch * p.channels).map(|_| None).collect(),
    }
}

impl RectifiedBatchNorm {
    fn norm(self) -> BatchNorm {
        BatchNorm { eps: self.eps }
    }
    /// What the norm reads, and what is added to it.
    fn split<'x, 'a, T>(self, x: &'x [View<'a, T>]) -> (&'x [View<'a, T>], Option<&'x View<'a, T>>) {
        (&x[..5.min(x.len())], x.get(5).filter(|_| self.residual))
    }
}

impl Op for RectifiedBatchNorm {
    fn name(&self) -> &'static str {
        if self.residual { "batch_norm_add_relu" } else { "batch_norm_relu" }
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        match (self.residual, x) {
            (false, norm) => self.norm().output(norm),
            (true, [norm @ .., r]) if !norm.is_empty() && norm[0] == *r => self.norm().output(norm),
            (true, _) => Err(format!("wants x [N, C, ..], mean, variance, weight, bias [C] and r as x; got {x:?}")),
        }
    }
    fn reverse_reads(&self) -> Reads {
        Reads { inputs: &[0, 1, 2, 3], output: true }
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let (n, norm) = (numel(x[0]) as u64, self.norm().cost(pass, x));
        let residual = if self.residual { 4 * n } else { 0 };
        norm + match pass {
            Pass::Forward => Cost { flops: 2 * n, bytes: residual },
            Pass::Jvp | Pass::Vjp => Cost { flops: 2 * n, bytes: 4 * n + residual },
            Pass::Dual => Cost { flops: 4 * n, bytes: 4 * n + 2 * residual },
        }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let (norm, residual) = self.split(x);
        self.norm().reference(norm, y);
        for (i, y) in y.iter_mut().enumerate() {
            let z = residual.map_or(*y, |r| *y + r.data[i]);
            *y = if z.re > 0.0 { z } else { Dual::from(0.0) };
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        let (p, arch) = (BatchNorm::planes(x), simd());
        let (_, residual) = self.split(x);
        p.each(y, |c, plane, y| {
            let (Channel { mean, scale, .. }, bias) = (self.norm().channel(x, c), x[4].data[c]);
            let from = p.plane(x[0].data, plane);
            match residual.map(|r| p.plane(r.data, plane)) {
                Some(r) => arch.dispatch(
                    #[inline(always)]
                    || {
                        for ((y, x), r) in y.iter_mut().zip(from).zip(r) {
                            *y = rectified((x - mean).mul_add(scale, bias) + r);
                        }
                    },
                ),
                None => arch.dispatch(
                    #[inline(always)]
                    || y.iter_mut().zip(from).for_each(|(y, x)| *y = rectified((x - mean).mul_add(scale, bias))),
                ),
            }
        });
    }
    fn jvp(&self, x: &[View], y: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        let (p, arch) = (BatchNorm::planes(x), simd());
        let (moved, residual) = dx.split_at(5);
        p.each(dy, |c, plane, dy| {
            self.norm().tangent(x, moved, (c, plane), dy);
            let y = p.plane(y, plane);
            match residual.first().copied().flatten().map(|d| p.plane(d, plane)) {
                Some(dr) => arch.dispatch(
                    #[inline(always)]
                    || dy.iter_mut().zip(y).zip(dr).for_each(|((dy, y), dr)| *dy = passed(*dy + dr, *y)),
                ),
                None => arch.dispatch(
                    #[inline(always)]
                    || dy.iter_mut().zip(y).for_each(|(dy, y)| *dy = passed(*dy, *y)),
                ),
            }
        });
    }
    /// Plane by plane: what passes the ReLU, which is the residual's cotangent, and from it the norm's.
    fn vjp(&self, x: &[View], y: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let (p, arch) = (BatchNorm::planes(x), simd());
        let (norm, residual) = gx.split_at_mut(5);
        let [of_x, statistics @ ..] = norm else { return };
        let wanted = statistics.iter().any(Option::is_some);
        let of_r = residual.first_mut().and_then(Option::as_mut);
        let adds = |g: &Option<&mut Cotangent>| g.as_ref().is_some_and(|g| g.add);
        let of_x = of_x.as_mut();
        let (add_x, add_r) = (adds(&of_x), adds(&of_r));
        let each: Vec<[Plane; 2]> = chunks(of_x, p).into_iter().zip(chunks(of_r, p)).map(Into::into).collect();
        let one = |buffer: &mut Vec<f32>, (plane, [gx, gr]): (usize, [Plane; 2])| {
            let c = plane % p.channels;
            let (gy, y) = (p.plane(gy, plane), p.plane(y, plane));
            buffer.resize(p.area, 0.0);
            arch.dispatch(
                #[inline(always)]
                || buffer.iter_mut().zip(gy).zip(y).for_each(|((g, d), y)| *g = passed(*d, *y)),
            );
            for (to, factor, add) in [(gr, 1.0, add_r), (gx, self.norm().channel(x, c).scale, add_x)] {
                if let Some(to) = to {
                    arch.dispatch(
                        #[inline(always)]
                        || scaled(to, buffer, factor, add),
                    );
                }
            }
            match wanted {
                true => {
                    let mean = x[1].data[c];
                    sum2(buffer, p.plane(x[0].data, plane), |g, x| [g, g * (x - mean)])
                }
                false => [0.0; 2],
            }
        };
        let parts: Vec<[f64; 2]> = each.into_par_iter().enumerate().with_min_len(4).map_init(Vec::new, one).collect();
        if wanted {
            self.norm().deal(x, &p.add_up(&parts), statistics);
        }
    }
}
