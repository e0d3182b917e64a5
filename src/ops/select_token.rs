//! y[b] = x[b, index]: one token of each sequence, x [B, S, H] -> [B, H].
use super::device::packs;
use super::{Cost, Cotangent, DeviceIo, DeviceTensor, Op, Pass, Reads};
use crate::dual::Dual;
use crate::gpu::{Args, Ptr, Queue};
use crate::tensor::{Shape, View};
use rayon::prelude::*;

/// The token that stands for its sequence (0: BERT's `[CLS]`).
#[derive(Debug)]
pub struct SelectToken {
    pub index: usize,
}

/// As `CopyRowsArgs` in kernels/embedding.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct CopyRowsArgs {
    x: Ptr,
    y: Ptr,
    x_first: u64,
    x_stride: u64,
    y_first: u64,
    y_stride: u64,
    n: u64,
    h: u64,
    packs: u32,
    add: u32,
}
impl Args for CopyRowsArgs {}
const _: () = assert!(size_of::<CopyRowsArgs>() == 72);

impl SelectToken {
    /// Between the token's rows of `of` [B, S, H] and `y` [B, H]: out of `of`, or (added) into it.
    fn copy_cuda(
        &self,
        of: &DeviceTensor,
        y: &DeviceTensor,
        into: bool,
        add: bool,
        queue: &Queue,
    ) -> crate::Result<()> {
        let (dtype, s, h) = (y.dtype, of.shape[1], of.shape[2] as u64);
        let (first, stride, at) = (self.index as u64 * h, s as u64 * h, of.stored(dtype, "select_token", "x")?);
        let (n, packs) = (y.shape[0], packs(dtype, of.shape[2], &[at, y.at]));
        let add = u32::from(add);
        let args = if into {
            CopyRowsArgs {
                x: y.at,
                y: at,
                x_first: 0,
                x_stride: h,
                y_first: first,
                y_stride: stride,
                n: n as u64,
                h,
                packs,
                add,
            }
        } else {
            CopyRowsArgs {
                x: at,
                y: y.at,
                x_first: first,
                x_stride: stride,
                y_first: 0,
                y_stride: h,
                n: n as u64,
                h,
                packs,
                add,
            }
        };
        queue.launch(&format!("copy_rows_{}", dtype.suffix()), queue.blocks(n, 8), 256, 0, &args)
    }

    /// y[b] = x[b, index], for x of this shape.
    fn select<T: Copy>(&self, x: &[T], shape: &[usize], y: &mut [T]) {
        let (s, h) = (shape[1], shape[2]);
        for (x, y) in x.chunks(s * h).zip(y.chunks_mut(h)) {
            y.copy_from_slice(&x[self.index * h..][..h]);
        }
    }
}

impl Op for SelectToken {
    fn name(&self) -> &'static str {
        "select_token"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        match *x {
            [&[b, s, h]] if self.index < s => Ok(vec![b, h]),
            [&[_, s, _]] => Err(format!("token {} of a sequence of {s}", self.index)),
            _ => Err(format!("wants x [B, S, H]; got {x:?}")),
        }
    }
    fn reverse_reads(&self) -> Reads {
        Reads::NOTHING
    }
    /// A vjp that sets also clears the other tokens.
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let y = (x[0][0] * x[0][2]) as u64;
        match pass {
            Pass::Forward | Pass::Jvp => Cost { flops: 0, bytes: 8 * y },
            Pass::Vjp => Cost { flops: 0, bytes: 4 * y * (1 + x[0][1] as u64) },
            Pass::Dual => self.cost(Pass::Forward, x) + self.cost(Pass::Jvp, x),
        }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        self.select(x[0].data, x[0].shape, y);
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        self.select(x[0].data, x[0].shape, y);
    }
    fn jvp(&self, x: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        match dx[0] {
            Some(dx) => self.select(dx, x[0].shape, dy),
            None => dy.fill(0.0),
        }
    }
    fn vjp(&self, x: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let (s, h) = (x[0].shape[1], x[0].shape[2]);
        let Some(g) = &mut gx[0] else { return };
        let add = g.add;
        g.data.par_chunks_mut(s * h).zip(gy.par_chunks(h)).for_each(|(g, gy)| {
            if !add {
                g.fill(0.0);
            }
            g[self.index * h..].iter_mut().zip(gy).for_each(|(g, v)| *g += v);
        });
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        match pass {
            Pass::Forward => self.copy_cuda(&io.x[0], &io.y, false, false, queue),
            Pass::Jvp => match &io.dx[0] {
                Some(dx) => self.copy_cuda(dx, &io.dy()?, false, false, queue),
                None => io.dy()?.zero(queue),
            },
            Pass::Vjp => {
                let Some(g) = &io.gx[0] else { return Ok(()) };
                if !g.add {
                    g.to.zero(queue)?;
                }
                self.copy_cuda(&g.to, &io.dy()?, true, g.add, queue)
            }
            Pass::Dual => super::in_turn(self, io, queue),
        }
    }
}
