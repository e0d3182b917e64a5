//! y[n, p + c, i, j] = x[n, c, s i, s j], and zero in p channels before and after: the shortcut without parameters of
//! He et al. 2015 (option A), which a residual block takes where it halves the image and widens.
use super::{Cost, Cotangent, DeviceIo, DeviceTensor, Op, Pass, Reads};
use crate::dual::Dual;
use crate::gpu::{Args, Ptr, Queue};
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

/// x [N, C, H, W] to [N, C + 2 pad, ⌈H/stride⌉, ⌈W/stride⌉].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subsample {
    pub stride: usize,
    /// Channels of zeros on either side.
    pub pad: usize,
}

/// As `SubsampleArgs` in kernels/pool.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct SubsampleArgs {
    x: Ptr,
    y: Ptr,
    batch: u64,
    channels: u32,
    from: [u32; 2],
    to: [u32; 2],
    stride: u32,
    pad: u32,
    add: u32,
}
impl Args for SubsampleArgs {}
const _: () = assert!(size_of::<SubsampleArgs>() == 56);

impl Subsample {
    /// From x to y, or back where `add` says how.
    fn launch(&self, x: &DeviceTensor, y: &DeviceTensor, add: Option<bool>, queue: &Queue) -> crate::Result<()> {
        let size = |shape: &[usize]| [shape[2] as u32, shape[3] as u32];
        let args = SubsampleArgs {
            x: x.stored(y.dtype, "subsample", "x")?,
            y: y.at,
            batch: x.shape[0] as u64,
            channels: x.shape[1] as u32,
            from: size(x.shape),
            to: size(y.shape),
            stride: self.stride as u32,
            pad: self.pad as u32,
            add: add.unwrap_or_default().into(),
        };
        let (pass, items) = if add.is_some() { ("vjp", x.numel()) } else { ("forward", y.numel()) };
        queue.launch(&format!("subsample_{pass}_{}", y.dtype.suffix()), queue.blocks(items, 1024), 256, 0, &args)
    }

    /// Every `stride`-th pixel of every channel of `x`, into `y` that is of the output's shape.
    fn take<T: Copy + Send + Sync>(&self, x: &[T], shape: &[usize], y: &mut [T], zero: T) {
        let (c, h, w, s) = (shape[1], shape[2], shape[3], self.stride);
        let to = [h.div_ceil(s), w.div_ceil(s)];
        y.par_chunks_mut((c + 2 * self.pad) * to[0] * to[1]).zip(x.par_chunks(c * h * w)).for_each(|(y, x)| {
            y.fill(zero);
            let planes = y.chunks_mut(to[0] * to[1]).skip(self.pad).zip(x.chunks(h * w));
            for (y, x) in planes {
                for (y, x) in y.chunks_mut(to[1]).zip(x.chunks(w).step_by(s)) {
                    y.iter_mut().zip(x.iter().step_by(s)).for_each(|(y, x)| *y = *x);
                }
            }
        });
    }
}

impl Op for Subsample {
    fn name(&self) -> &'static str {
        "subsample"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        match *x {
            [&[n, c, h, w]] if self.stride > 0 => {
                Ok(vec![n, c + 2 * self.pad, h.div_ceil(self.stride), w.div_ceil(self.stride)])
            }
            _ => Err(format!("wants x [N, C, H, W] and a stride of 1 or more; got {x:?}, {}", self.stride)),
        }
    }
    fn reverse_reads(&self) -> Reads {
        Reads::NOTHING
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let (n, y) = (numel(x[0]), self.output(x).map_or(0, |y| numel(&y)));
        let read = n / (self.stride * self.stride).max(1);
        match pass {
            Pass::Forward | Pass::Jvp => Cost { flops: 0, bytes: 4 * (read + y) as u64 },
            Pass::Dual => self.cost(Pass::Forward, x) + self.cost(Pass::Jvp, x),
            Pass::Vjp => Cost { flops: 0, bytes: 4 * (read + n) as u64 },
        }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        self.take(x[0].data, x[0].shape, y, Dual::ZERO);
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        self.take(x[0].data, x[0].shape, y, 0.0);
    }
    fn jvp(&self, x: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        match dx[0] {
            Some(dx) => self.take(dx, x[0].shape, dy, 0.0),
            None => dy.fill(0.0),
        }
    }
    fn vjp(&self, x: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let Some(Cotangent { data, add }) = &mut gx[0] else { return };
        let (c, h, w, s, add) = (x[0].shape[1], x[0].shape[2], x[0].shape[3], self.stride, *add);
        let to = [h.div_ceil(s), w.div_ceil(s)];
        data.par_chunks_mut(c * h * w).zip(gy.par_chunks((c + 2 * self.pad) * to[0] * to[1])).for_each(|(gx, gy)| {
            if !add {
                gx.fill(0.0);
            }
            for (gx, gy) in gx.chunks_mut(h * w).zip(gy.chunks(to[0] * to[1]).skip(self.pad)) {
                for (gx, gy) in gx.chunks_mut(w).step_by(s).zip(gy.chunks(to[1])) {
                    gx.iter_mut().step_by(s).zip(gy).for_each(|(g, v)| *g += v);
                }
            }
        });
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        super::device::moved(self, pass, io, queue, |x, y, back| self.launch(x, y, back, queue))
    }
}
