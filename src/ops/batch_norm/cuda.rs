//! Launches of kernels/batch_norm.cu.
use super::BatchNorm;
use crate::Result;
use crate::gpu::{Args, Dtype, Ptr, Queue};
use crate::ops::channels::{Sum, parts, plane_packs, planes, sums};
use crate::ops::{DeviceIo, DeviceTensor};

const NAME: &str = "batch_norm";

/// As `BatchNormArgs`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct MapArgs {
    x: Ptr,
    /// Mean, variance, weight, bias.
    of: [Ptr; 4],
    d: Ptr,
    d_of: [Ptr; 4],
    y: Ptr,
    n: u64,
    area: u32,
    channels: u32,
    eps: f32,
    packs: u32,
    add: u32,
    unused: u32,
}
impl Args for MapArgs {}
const _: () = assert!(size_of::<MapArgs>() == 120);

/// As `BatchNormGradientsArgs`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct GradientsArgs {
    sums: Ptr,
    variance: Ptr,
    w: Ptr,
    g: [Ptr; 4],
    channels: u32,
    parts: u32,
    eps: f32,
    add: u32,
}
impl Args for GradientsArgs {}
const _: () = assert!(size_of::<GradientsArgs>() == 72);

/// The four tensors a channel, after the first; those that a pass does not read are null.
fn of(tensors: &[Option<DeviceTensor>]) -> Result<[Ptr; 4]> {
    let mut at = [Ptr::NULL; 4];
    for (at, tensor) in at.iter_mut().zip(&tensors[1..]) {
        *at = tensor.as_ref().map_or(Ok(Ptr::NULL), |t| t.stored(Dtype::F32, NAME, "a tensor a channel"))?;
    }
    Ok(at)
}

impl BatchNorm {
    /// Forward, Jvp, or gx of Vjp: `y` from x and `d`.
    fn map(
        &self,
        pass: &str,
        io: &DeviceIo,
        d: Option<&DeviceTensor>,
        (y, add): (&DeviceTensor, bool),
        queue: &Queue,
    ) -> Result<()> {
        let p = planes(y, NAME)?;
        let all: Vec<Option<DeviceTensor>> = io.x.iter().copied().map(Some).collect();
        let x = io.x[0].stored(y.dtype, NAME, "x")?;
        let d = d.map_or(Ok(Ptr::NULL), |d| d.stored(y.dtype, NAME, "dx or gy"))?;
        let args = MapArgs {
            x,
            of: of(&all)?,
            d,
            d_of: if pass == "jvp" { of(io.dx)? } else { [Ptr::NULL; 4] },
            y: y.at,
            n: y.numel() as u64,
            area: p.area as u32,
            channels: p.channels as u32,
            eps: self.eps,
            packs: plane_packs(p, y.dtype, &[x, d, y.at]),
            add: add.into(),
            unused: 0,
        };
        let kernel = format!("batch_norm_{pass}_{}", y.dtype.suffix());
        queue.launch(&kernel, queue.blocks(y.numel(), 2048), 256, 0, &args)
    }

    pub(super) fn forward_on(&self, io: &DeviceIo, queue: &Queue) -> Result<()> {
        self.map("forward", io, None, (&io.y, false), queue)
    }

    pub(super) fn jvp_on(&self, io: &DeviceIo, queue: &Queue) -> Result<()> {
        self.map("jvp", io, io.dx[0].as_ref(), (&io.dy()?, false), queue)
    }

    pub(super) fn vjp_on(&self, io: &DeviceIo, queue: &Queue) -> Result<()> {
        let gy = io.dy()?;
        if let Some(g) = &io.gx[0] {
            self.map("vjp", io, Some(&gy), (&g.to, g.add), queue)?;
        }
        let rest = &io.gx[1..];
        if rest.iter().all(Option::is_none) {
            return Ok(());
        }
        let [mean, variance, w, ..] = of(&io.x.iter().copied().map(Some).collect::<Vec<_>>())?;
        sums(&Sum::Products(&io.x[0], &gy, [mean, Ptr::NULL]), NAME, queue)?;
        let p = planes(&gy, NAME)?;
        let (mut g, mut add) = ([Ptr::NULL; 4], 0);
        for (i, cotangent) in rest.iter().enumerate() {
            if let Some(cotangent) = cotangent {
                g[i] = cotangent.to.stored(Dtype::F32, NAME, "gradient")?;
                add |= u32::from(cotangent.add) << i;
            }
        }
        let args = GradientsArgs {
            sums: queue.scratch,
            variance,
            w,
            g,
            channels: p.channels as u32,
            parts: parts(p) as u32,
            eps: self.eps,
            add,
        };
        queue.launch("batch_norm_gradients", queue.blocks(p.channels, 4), 128, 0, &args)
    }
}
