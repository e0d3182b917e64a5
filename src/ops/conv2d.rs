//! y[n, o] = b[o] + Σ_{c, r, s} W[o, c, r, s] x[n, g C/G + c, i S − P + r D, j S − P + s D]: convolution as PyTorch has
//! it (a correlation), with x [N, C, H, W], W [O, C/G, kh, kw], b \[O\] (or none) and y [N, O, H', W'].
//!
//! H' = ⌊(H + 2P − D (kh − 1) − 1) / S⌋ + 1, and so for W'; g is the group of output channel o.
use super::channels::channel_sums;
use super::{Cost, Cotangent, DeviceIo, DeviceTensor, Op, Pass, Reads};
use crate::dual::Dual;
use crate::gpu::Queue;
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

mod bands;
mod buffers;
mod correlation;
mod cuda;
mod dots;
mod geometry;
mod partials;
mod planes;
mod rectified;
mod tile;
mod weights;
use correlation::Term;
use geometry::Geometry;
pub use rectified::RectifiedConv;

/// Inputs: x, W, and b where there is a bias. Pairs are of height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    pub stride: [usize; 2],
    /// Rows (columns) of zeros on either side.
    pub padding: [usize; 2],
    /// How far apart the taps of a kernel stand.
    pub dilation: [usize; 2],
    /// Channels fall into that many groups, each with output channels of its own.
    pub groups: usize,
}

impl Default for Conv2d {
    fn default() -> Self {
        Self { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

impl Conv2d {
    /// The same stride and padding both ways.
    pub fn square(stride: usize, padding: usize) -> Self {
        Self { stride: [stride; 2], padding: [padding; 2], ..Self::default() }
    }

    fn geometry(&self, x: &[&[usize]]) -> Result<Geometry, String> {
        Geometry::new(self, x)
    }

    /// What a tangent is the sum of.
    fn terms<'a>(&self, x: &[View<'a>], dx: &[Option<&'a [f32]>]) -> (Vec<Term<'a>>, Option<&'a [f32]>) {
        let terms = [dx[0].map(|dx| (dx, x[1].data)), dx[1].map(|dw| (x[0].data, dw))];
        (terms.into_iter().flatten().collect(), dx.get(2).copied().flatten())
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        let g = self.geometry(x)?;
        Ok(vec![g.batch, g.outputs, g.to[0], g.to[1]])
    }
    fn reverse_reads(&self) -> Reads {
        Reads::inputs(&[0, 1])
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let Ok(g) = self.geometry(x) else { return Cost::default() };
        let (input, weight, output) =
            (numel(x[0]) as u64, numel(x[1]) as u64, (g.batch * g.outputs * g.pixels()) as u64);
        let product = 2 * output * g.taps() as u64;
        match pass {
            Pass::Forward => Cost { flops: product, bytes: 4 * (input + weight + output) },
            Pass::Dual => self.cost(Pass::Forward, x) + self.cost(Pass::Jvp, x),
            Pass::Jvp | Pass::Vjp => Cost { flops: 2 * product, bytes: 4 * (2 * (input + weight) + output) },
        }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let Ok(g) = self.geometry(&x.iter().map(|v| v.shape).collect::<Vec<_>>()) else { return };
        for (at, y) in y.iter_mut().enumerate() {
            let (n, o, p) = (at / (g.outputs * g.pixels()), at / g.pixels() % g.outputs, at % g.pixels());
            let (i, j) = (p / g.to[1], p % g.to[1]);
            let group = o / (g.outputs / self.groups);
            let mut sum = x.get(2).map_or(Dual::ZERO, |b| b.data[o]);
            for tap in 0..g.taps() {
                let (c, r, s) = (tap / (g.kernel[0] * g.kernel[1]), tap / g.kernel[1] % g.kernel[0], tap % g.kernel[1]);
                let row = (i * self.stride[0] + r * self.dilation[0]).checked_sub(self.padding[0]);
                let column = (j * self.stride[1] + s * self.dilation[1]).checked_sub(self.padding[1]);
                if let (Some(row), Some(column)) = (row.filter(|r| *r < g.from[0]), column.filter(|c| *c < g.from[1])) {
                    let plane = n * g.inputs + group * (g.inputs / self.groups) + c;
                    sum += x[1].data[o * g.taps() + tap] * x[0].data[(plane * g.from[0] + row) * g.from[1] + column];
                }
            }
            *y = sum;
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        let Ok(g) = self.geometry(&x.iter().map(|v| v.shape).collect::<Vec<_>>()) else { return };
        g.forward().run(&[(x[0].data, x[1].data)], x.get(2).map(|b| b.data), false, y, None);
    }
    fn jvp(&self, x: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        let Ok(g) = self.geometry(&x.iter().map(|v| v.shape).collect::<Vec<_>>()) else { return };
        let (terms, bias) = self.terms(x, dx);
        g.forward().run(&terms, bias, false, dy, None);
    }
    fn vjp(&self, x: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let Ok(g) = self.geometry(&x.iter().map(|v| v.shape).collect::<Vec<_>>()) else { return };
        let pixels = g.pixels();
        if let Some(to) = &mut gx[0] {
            g.backward().run(&[(gy, x[1].data)], None, to.add, to.data, None);
        }
        if let Some(to) = &mut gx[1] {
            g.weights(x[0].data, gy, to);
        }
        if let Some(Some(to)) = gx.get_mut(2) {
            let parts: Vec<Vec<f32>> =
                gy.par_chunks(g.outputs * pixels).map(|gy| gy.chunks(pixels).map(super::math::sum).collect()).collect();
            sum(&parts, to);
        }
    }
    fn scratch(&self, pass: Pass, x: &[&[usize]]) -> usize {
        if pass != Pass::Vjp {
            return 0;
        }
        self.geometry(x).map_or(0, |g| g.scratch(x.len() > 2))
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        let (x, w) = (io.x[0], io.x[1]);
        let wrong = |what| crate::Error::Graph { op: "conv2d", place: "launch".into(), what };
        let g = self.geometry(&io.x.iter().map(|v| v.shape).collect::<Vec<_>>()).map_err(wrong)?;
        match pass {
            Pass::Forward => g.correlate(&[(x, w)], io.x.get(2), &io.y, queue),
            // Two pairs in one launch: one sum, rounded once.
            Pass::Jvp => {
                let terms = [io.dx[0].map(|dx| (dx, w)), io.dx[1].map(|dw| (x, dw))];
                let terms: Vec<(DeviceTensor, DeviceTensor)> = terms.into_iter().flatten().collect();
                g.correlate(&terms, io.dx.get(2).and_then(Option::as_ref), &io.dy()?, queue)
            }
            Pass::Dual => super::in_turn(self, io, queue),
            Pass::Vjp => {
                let gy = io.dy()?;
                if let Some(to) = &io.gx[0] {
                    g.turned(&gy, &w, to, queue)?;
                }
                if let Some(to) = &io.gx[1] {
                    g.weight(&x, &gy, to, queue)?;
                }
                if let Some(Some(to)) = io.gx.get(2) {
                    channel_sums(&gy, to, "conv2d", queue)?;
                }
                Ok(())
            }
        }
    }
}

/// g (+)= the sum of the parts, in their order.
fn sum(parts: &[Vec<f32>], g: &mut Cotangent) {
    if !g.add {
        g.data.fill(0.0);
    }
    parts.iter().for_each(|part| g.data.iter_mut().zip(part).for_each(|(g, v)| *g += v));
}
