//! Launches of the pools of kernels/pool.cu.
use super::DeviceTensor;
use super::window::Windows;
use crate::gpu::{Args, Ptr, Queue};
use crate::tensor::numel;
use crate::{Error, Result};

/// As `PoolArgs`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct PoolArgs {
    x: Ptr,
    y: Ptr,
    chosen: Ptr,
    planes: u64,
    from: [u32; 2],
    to: [u32; 2],
    kernel: [u32; 2],
    stride: [u32; 2],
    padding: [u32; 2],
    adaptive: u32,
    count_padding: u32,
    add: u32,
    warps: u32,
}
impl Args for PoolArgs {}
const _: () = assert!(size_of::<PoolArgs>() == 88);

/// Numbers of a window from which a warp takes it.
const LARGE: usize = 32;

/// A pool of planes of one shape.
pub(super) struct Pool<'a> {
    pub op: &'static str,
    pub windows: &'a Windows,
    pub count_padding: bool,
    /// Shapes of x and y.
    pub x: &'a [usize],
    pub y: &'a [usize],
    /// What a max pool chose.
    pub chosen: Ptr,
}

impl Pool<'_> {
    /// The kernel of `pass`, from one tensor to another; `add` where it is a cotangent's.
    pub fn launch(
        &self,
        pass: &str,
        from: &DeviceTensor,
        to: &DeviceTensor,
        add: Option<bool>,
        queue: &Queue,
    ) -> Result<()> {
        let (dtype, size) = (to.dtype, |shape: &[usize]| [shape[2] as u32, shape[3] as u32]);
        let (kernel, stride, padding, adaptive) = match *self.windows {
            Windows::Strided { kernel, stride, padding, .. } => (kernel, stride, padding, 0),
            Windows::Adaptive { .. } => ([0; 2], [1; 2], [0; 2], 1),
        };
        // Places in a plane, its padding and a window's reach are u32, and what is chosen is one.
        let reach = |axis: usize| self.x[2 + axis] + 2 * padding[axis] + kernel[axis] + stride[axis];
        if reach(0).saturating_mul(reach(1)) > u32::MAX as usize {
            let what = format!("planes of fewer than 2^32 pixels, windows included; got {:?}", self.x);
            return Err(Error::Graph { op: self.op, place: "launch".into(), what });
        }
        let window = match adaptive {
            0 => kernel[0].min(self.x[2]) * kernel[1].min(self.x[3]),
            _ => self.x[2].div_ceil(self.y[2]) * self.x[3].div_ceil(self.y[3]),
        };
        let warps = self.op == "average_pool" && add.is_none() && window >= LARGE;
        let args = PoolArgs {
            x: from.stored(dtype, self.op, "x")?,
            y: to.at,
            chosen: self.chosen,
            planes: (self.x[0] * self.x[1]) as u64,
            from: size(self.x),
            to: size(self.y),
            kernel: kernel.map(|v| v as u32),
            stride: stride.map(|v| v as u32),
            padding: padding.map(|v| v as u32),
            adaptive,
            count_padding: self.count_padding.into(),
            add: add.unwrap_or_default().into(),
            warps: warps.into(),
        };
        let items = if add.is_some() { numel(self.x) } else { numel(self.y) };
        let blocks = queue.blocks(items, if warps { 8 } else { 256 });
        queue.launch(&format!("{}_{pass}_{}", self.op, dtype.suffix()), blocks, 256, 0, &args)
    }
}
