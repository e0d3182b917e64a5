//! A layer norm of a sum, in which a residual connection ends: y = (x − mean)/√(var + eps) · w + b, x = x₁ + x₂.
//! No model asks for it: engines of devices make it of the two ops (src/graph/fuse.rs), since the sum then need not be
//! read back from memory, and both addends get their cotangent from one pass.
use super::{LayerNorm, cuda};
use crate::dual::Dual;
use crate::gpu::Queue;
use crate::ops::add::{receive, sum, sum_on};
use crate::ops::{Cost, Cotangent, DeviceIo, DeviceTensor, Op, Pass, Reads};
use crate::tensor::{Shape, View, numel};

/// Inputs: x₁ and x₂ [.., n], w \[n\], b \[n\]. Saves what [`LayerNorm`] saves, and keeps x.
#[derive(Clone, Copy, Debug)]
pub struct AddLayerNorm {
    pub eps: f32,
}

impl AddLayerNorm {
    fn norm(self) -> LayerNorm {
        LayerNorm { eps: self.eps }
    }
}

/// What the norm reads: the sum, w, b.
fn normed<'a>(x: &[View<'a>], total: &'a [f32]) -> [View<'a>; 3] {
    [View { data: total, shape: x[0].shape }, x[2], x[3]]
}

/// (what the norm saved, the sum).
fn split<'a>(x: &[View], saved: &'a [f32]) -> (&'a [f32], &'a [f32]) {
    saved.split_at(saved.len() - numel(x[0].shape))
}

impl Op for AddLayerNorm {
    fn name(&self) -> &'static str {
        "add_layer_norm"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        match x {
            [x1, x2, w, b] if x1 == x2 => self.norm().output(&[x1, w, b]),
            _ => Err(format!("wants x1 and x2 [.., n], w [n], b [n]; got {x:?}")),
        }
    }
    fn saved(&self, x: &[&[usize]]) -> usize {
        self.norm().saved(x) + self.kept(x)
    }
    fn kept(&self, x: &[&[usize]]) -> usize {
        numel(x[0])
    }
    fn reverse_reads(&self) -> Reads {
        Reads::inputs(&[2])
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let n = numel(x[0]) as u64;
        // Beside the norm's own: the other addend and the sum; tangents added up in memory; a second cotangent.
        self.norm().cost(pass, x)
            + match pass {
                Pass::Forward => Cost { flops: n, bytes: 8 * n },
                Pass::Jvp => Cost { flops: n, bytes: 12 * n },
                Pass::Vjp => Cost { flops: 0, bytes: 4 * n },
                Pass::Dual => Cost { flops: 2 * n, bytes: 8 * n },
            }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let total: Vec<Dual> = x[0].data.iter().zip(x[1].data).map(|(a, b)| *a + *b).collect();
        self.norm().reference(&[View { data: &total, shape: x[0].shape }, x[2], x[3]], y);
    }
    fn forward(&self, x: &[View], y: &mut [f32], saved: &mut [f32]) {
        let (saved, total) = saved.split_at_mut(saved.len() - x[0].data.len());
        sum(x[0].data, x[1].data, total);
        self.norm().forward(&normed(x, total), y, saved);
    }
    fn jvp(&self, x: &[View], y: &[f32], saved: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        let (saved, total) = split(x, saved);
        let both = dx[0].zip(dx[1]).map(|(a, b)| {
            let mut d = vec![0.0; a.len()];
            sum(a, b, &mut d);
            d
        });
        let d = both.as_deref().or(dx[0]).or(dx[1]);
        self.norm().jvp(&normed(x, total), y, saved, &[d, dx[2], dx[3]], dy);
    }
    fn vjp(&self, x: &[View], y: &[f32], saved: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let [g1, g2, gw, gb] = gx else { return };
        let (saved, total) = split(x, saved);
        let asked = g1.is_some() || g2.is_some();
        let mut g = vec![0.0; if asked { gy.len() } else { 0 }];
        let of_sum = asked.then_some(Cotangent { data: &mut g, add: false });
        self.norm().vjp(&normed(x, total), y, saved, gy, &mut [of_sum, gw.take(), gb.take()]);
        [g1, g2].into_iter().flatten().for_each(|to| receive(&g, to));
    }
    fn dual(&self) -> bool {
        true
    }
    fn scratch(&self, pass: Pass, x: &[&[usize]]) -> usize {
        match pass {
            // The sum of both tangents.
            Pass::Jvp => 4 * numel(x[0]),
            _ => self.norm().scratch(pass, x),
        }
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        let total = DeviceTensor { at: io.kept, dtype: io.y.dtype, shape: io.x[0].shape };
        match pass {
            Pass::Forward => cuda::forward(self.eps, io, queue),
            Pass::Jvp => {
                let d = match (io.dx[0], io.dx[1]) {
                    (Some(a), Some(b)) => {
                        let d = DeviceTensor { at: queue.scratch, ..total };
                        sum_on(&a, &b, &d, queue)?;
                        Some(d)
                    }
                    (a, b) => a.or(b),
                };
                cuda::jvp(&total, d, io, queue)
            }
            Pass::Vjp => cuda::vjp(&total, io, queue),
            Pass::Dual => cuda::dual(self.eps, io, queue),
        }
    }
}
