//! The patches of an image as rows: x [N, C, H, W] to y [N, (H/p) (W/q), C p q], a pure rearrangement. A product with a
//! convolution's weight [D, C, p, q] makes it the convolution whose stride is its kernel: a vision transformer's patch
//! embedding (Dosovitskiy et al. 2021).
use super::{Cost, Cotangent, DeviceIo, DeviceTensor, Op, Pass, Reads};
use crate::dual::Dual;
use crate::gpu::{Args, Ptr, Queue};
use crate::tensor::{Shape, View, numel};
use rayon::prelude::*;

/// Input: x. Rows and columns of pixels that fill no patch take no part, as in a convolution without padding.
#[derive(Clone, Copy, Debug)]
pub struct Patches {
    /// p.
    pub height: usize,
    /// q.
    pub width: usize,
}

/// As `PatchesArgs` in kernels/patches.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct PatchesArgs {
    x: Ptr,
    y: Ptr,
    images: u64,
    channels: u32,
    height: u32,
    width: u32,
    patch_height: u32,
    patch_width: u32,
    add: u32,
}
impl Args for PatchesArgs {}
const _: () = assert!(size_of::<PatchesArgs>() == 48);

/// Where the numbers of an image stand in its patches.
#[derive(Clone, Copy)]
struct Grid {
    channels: usize,
    height: usize,
    width: usize,
    p: usize,
    q: usize,
}

impl Grid {
    /// Numbers of an image.
    fn image(&self) -> usize {
        self.channels * self.height * self.width
    }
    /// Numbers of the patches beside each other in one row of them.
    fn band(&self) -> usize {
        self.width / self.q * self.channels * self.p * self.q
    }
    /// Numbers of all patches of an image.
    fn patches(&self) -> usize {
        self.height / self.p * self.band()
    }
    /// Visits the runs of q pixels that a band of patches is made of: (offset in the image, offset in the band).
    #[inline(always)]
    fn runs(&self, band: usize, mut visit: impl FnMut(usize, usize)) {
        let Self { channels, height, width, p, q } = *self;
        for c in 0..channels {
            for i in 0..p {
                let row = (c * height + band * p + i) * width;
                for patch in 0..width / q {
                    visit(row + patch * q, ((patch * channels + c) * p + i) * q);
                }
            }
        }
    }
}

impl Patches {
    fn grid(&self, x: &[usize]) -> Grid {
        Grid { channels: x[1], height: x[2], width: x[3], p: self.height, q: self.width }
    }

    fn gather<T: Copy + Send + Sync>(&self, x: &[T], shape: &[usize], y: &mut [T]) {
        let grid = self.grid(shape);
        let bands = grid.height / grid.p;
        y.par_chunks_mut(grid.band()).enumerate().for_each(|(at, y)| {
            let image = &x[at / bands * grid.image()..][..grid.image()];
            grid.runs(at % bands, |from, to| y[to..to + grid.q].copy_from_slice(&image[from..from + grid.q]));
        });
    }

    fn launch(
        &self,
        images: &DeviceTensor,
        patches: &DeviceTensor,
        add: Option<bool>,
        queue: &Queue,
    ) -> crate::Result<()> {
        let (dtype, shape) = (patches.dtype, images.shape);
        let args = PatchesArgs {
            x: images.stored(dtype, "patches", "x")?,
            y: patches.at,
            images: shape[0] as u64,
            channels: shape[1] as u32,
            height: shape[2] as u32,
            width: shape[3] as u32,
            patch_height: self.height as u32,
            patch_width: self.width as u32,
            add: add.unwrap_or_default().into(),
        };
        let (pass, items) = match add {
            None => ("forward", patches.numel()),
            Some(_) => ("vjp", images.numel()),
        };
        queue.launch(&format!("patches_{pass}_{}", dtype.suffix()), queue.blocks(items, 1024), 256, 0, &args)
    }
}

impl Op for Patches {
    fn name(&self) -> &'static str {
        "patches"
    }
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String> {
        let (p, q) = (self.height, self.width);
        match *x {
            [&[n, c, h, w]] if p > 0 && q > 0 && h >= p && w >= q => Ok(vec![n, h / p * (w / q), c * p * q]),
            _ => Err(format!("wants x [N, C, H, W] of at least one patch of {p}x{q}; got {x:?}")),
        }
    }
    fn reverse_reads(&self) -> Reads {
        Reads::NOTHING
    }
    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost {
        let patches = x[0][0] * self.grid(x[0]).patches();
        Cost { flops: 0, bytes: pass.count() * 4 * (patches + numel(x[0])) as u64 }
    }
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]) {
        let &[_, channels, height, width] = x[0].shape else { return };
        let (p, q) = (self.height, self.width);
        for (at, y) in y.iter_mut().enumerate() {
            let (number, patch) = (at % (channels * p * q), at / (channels * p * q));
            let (c, i, j) = (number / (p * q), number / q % p, number % q);
            let (across, down) = (width / q, height / p);
            let (n, row, column) = (patch / (across * down), patch / across % down, patch % across);
            *y = x[0].data[((n * channels + c) * height + row * p + i) * width + column * q + j];
        }
    }
    fn forward(&self, x: &[View], y: &mut [f32], _: &mut [f32]) {
        self.gather(x[0].data, x[0].shape, y);
    }
    fn jvp(&self, x: &[View], _: &[f32], _: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]) {
        match dx[0] {
            Some(dx) => self.gather(dx, x[0].shape, dy),
            None => dy.fill(0.0),
        }
    }
    /// The transpose of a rearrangement is its inverse.
    fn vjp(&self, x: &[View], _: &[f32], _: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]) {
        let Some(g) = &mut gx[0] else { return };
        let (grid, add) = (self.grid(x[0].shape), g.add);
        g.data.par_chunks_mut(grid.image()).zip(gy.par_chunks(grid.patches())).for_each(|(g, gy)| {
            if !add {
                g.fill(0.0); // pixels beyond the last patch have no part in y
            }
            for (band, gy) in gy.chunks_exact(grid.band()).enumerate() {
                grid.runs(band, |to, from| {
                    g[to..to + grid.q].iter_mut().zip(&gy[from..from + grid.q]).for_each(|(g, v)| *g += v);
                });
            }
        });
    }
    fn cuda(&self, pass: Pass, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
        super::device::moved(self, pass, io, queue, |x, y, back| self.launch(x, y, back, queue))
    }
}
