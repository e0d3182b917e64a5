//! Element-wise nonlinearities: GELU (erf and tanh forms), ReLU, tanh.
use super::{CHUNK, Cost, Cotangent, Op, Pass, Reads, math, simd};
use crate::dual::Dual;
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x Φ(x), Φ the standard normal's distribution function (Hugging Face's "gelu").
    GeluErf,
    /// ½ x (1 + tanh(√(2/π)(x + 0.044715 x³))) ("gelu_new", "gelu_pytorch_tanh").
    GeluTanh,
    Relu,
    Tanh,
}

/// √(2/π) and the cubic coefficient of the tanh form (Hendrycks and Gimpel 2016).
const C: f32 = 0.797_884_6;
const A: f32 = 0.044_715;

/// y_i = f(x_i, w_i) in parallel, compiled for the machine's widest vectors.
fn map(x: &[f32], w: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    let arch = simd();
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(w.par_chunks(CHUNK)).for_each(|((y, x), w)| {
        arch.dispatch(
            #[inline(always)]
            || {
                for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                    *y = f(*x, *w);
                }
            },
        );
    });
}

/// Run `$body` with `$slope` bound to this activation's derivative (of x; of y for tanh), so that each
/// loop is compiled for one function.
macro_rules! with_slope {
    ($self:expr, $slope:ident => $body:expr) => {
        match $self {
            Activation::GeluErf => {
                let $slope = |x: f32| math::normal_cdf(x) + x * math::normal_pdf(x);
                $body
            }
            Activation::GeluTanh => {
                let $slope = |x: f32| {
                    let t = math::tanh(C * (x + A * x * x * x));
                    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * C * (1.0 + 3.0 * A * x * x)
                };
                $body
            }
            Activation::Relu => {
                let $slope = |x: f32| if x > 0.0 { 1.0 } else { 0.0 };
                $body
            }
            Activation::Tanh => {
                let $slope = |y: f32| 1.0 - y * y;
                $body
            }
        }
    };
}

impl Activation {
    /// What the slope is a function of: y for tanh, x for the others.
    fn at<'a>(self, x: &'a [f32], y: &'a [f32]) -> &'a [f32] {
        if self == Self::Tanh { y } else { x }
    }
}

impl Op for Activation {
    fn name(&self) -> &'static str {
        match self {
            Self::GeluErf => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Relu => "relu",
            Self::Tanh => "tanh",
        }
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        Ok(x[0].to_vec())
    }
    fn reverse_reads(&self) -> Reads {
        if *self == Self::Tanh { Reads::OUTPUT } else { Reads::inputs(&[0]) }
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let n = numel(x[0]) as u64;
        let flops = if *self == Self::Relu { 1 } else { 20 };
        Cost { flops: flops * n, bytes: if pass == Pass::Forward { 8 } else { 12 } * n }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let half = Dual::constant(0.5);
        for (y, &x) in y.iter_mut().zip(x[0].data) {
            *y = match self {
                Self::GeluErf => half * x * (Dual::ONE + (x * Dual::constant(std::f64::consts::FRAC_1_SQRT_2)).erf()),
                Self::GeluTanh => {
                    let c = Dual::constant((2.0 / std::f64::consts::PI).sqrt());
                    half * x * (Dual::ONE + (c * (x + Dual::constant(0.044715) * x * x * x)).tanh())
                }
                Self::Relu => x.relu(),
                Self::Tanh => x.tanh(),
            };
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        let x = x[0].data;
        match self {
            Self::GeluErf => map(
                x,
                x,
                y,
                #[inline(always)]
                |x, _| x * math::normal_cdf(x),
            ),
            Self::GeluTanh => map(
                x,
                x,
                y,
                #[inline(always)]
                |x, _| 0.5 * x * (1.0 + math::tanh(C * (x + A * x * x * x))),
            ),
            Self::Relu => map(
                x,
                x,
                y,
                #[inline(always)]
                |x, _| if x > 0.0 { x } else { 0.0 * x },
            ),
            Self::Tanh => map(
                x,
                x,
                y,
                #[inline(always)]
                |x, _| math::tanh(x),
            ),
        }
    }
    fn jvp(&self, x: &[View], y: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        match dx[0] {
            Some(dx) => {
                with_slope!(self, slope => map(self.at(x[0].data, y), dx, dy, #[inline(always)] |x, d| slope(x) * d))
            }
            None => dy.fill(0.0),
        }
    }
    fn vjp(&self, x: &[View], y: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let Some(g) = &mut gx[0] else { return };
        let (arch, at, add) = (simd(), self.at(x[0].data, y), g.add);
        with_slope!(self, slope => {
            g.data.par_chunks_mut(CHUNK).zip(at.par_chunks(CHUNK)).zip(gy.par_chunks(CHUNK)).for_each(|((g, x), gy)| {
                arch.dispatch(#[inline(always)] || {
                    for ((g, x), gy) in g.iter_mut().zip(x).zip(gy) {
                        let v = slope(*x) * gy;
                        *g = if add { *g + v } else { v };
                    }
                });
            });
        });
    }
}
