//! What a pass of an op sees of its tensors on a device.
use super::{Op, Pass, in_turn};
use crate::gpu::{Args, Dtype, Ptr, Queue};
use crate::tensor::{numel, rows_cols};
use crate::{Error, Result};

/// A contiguous, row-major tensor in a device's memory. Indices are i32; `dtype` then says nothing.
///
/// What is stored how (the engine's rule): parameters with two axes or more, their directions, and everything between
/// ops have the engine's dtype; parameters with one axis (biases, scales), every gradient of a parameter, `saved`, and
/// what a loss reads and writes are f32. A cotangent or tangent of anything else has the dtype of what it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct DeviceTensor<'a> {
    /// [`Ptr::NULL`] for what the pass may not read.
    pub at: Ptr,
    pub dtype: Dtype,
    pub shape: &'a [usize],
}

impl DeviceTensor<'_> {
    /// (rows, columns), the last axis being the columns.
    pub fn rows_cols(&self) -> (usize, usize) {
        rows_cols(self.shape)
    }
    pub fn numel(&self) -> usize {
        numel(self.shape)
    }
    pub fn bytes(&self) -> usize {
        self.numel() * self.dtype.bytes()
    }

    /// Where it lies, if it is stored as a kernel reads it.
    ///
    /// # Errors
    /// [`Error::Graph`] naming the tensor and both dtypes.
    pub fn stored(&self, dtype: Dtype, op: &'static str, name: &str) -> Result<Ptr> {
        if self.dtype == dtype {
            return Ok(self.at);
        }
        let what = format!("wanted {}, got {}", dtype.suffix(), self.dtype.suffix());
        Err(Error::Graph { op, place: name.into(), what })
    }

    pub fn fill(&self, value: f32, queue: &Queue) -> Result<()> {
        let (bits, n) = (value.to_bits(), self.numel());
        match self.dtype {
            Dtype::F32 => queue.device.fill(self.at, bits, n),
            // 0 and NaN, which are all that ops fill with, lose nothing to truncation.
            Dtype::Bf16 if n % 2 == 0 => queue.device.fill(self.at, (bits >> 16) | (bits & 0xffff_0000), n / 2),
            Dtype::Bf16 => {
                let args = FillArgs { y: self.at, n: n as u64, value, unused: 0 };
                queue.launch("fill_bf16", queue.blocks(n, 256), 256, 0, &args)
            }
        }
    }

    pub fn zero(&self, queue: &Queue) -> Result<()> {
        self.fill(0.0, queue)
    }

    /// What `from` holds, which is as many elements of the same dtype.
    pub fn copy_from(&self, from: &DeviceTensor, queue: &Queue) -> Result<()> {
        queue.device.copy(self.at, from.stored(self.dtype, "copy", "from")?, self.bytes())
    }
}

/// As `FillArgs` in kernels/pointwise.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct FillArgs {
    y: Ptr,
    n: u64,
    value: f32,
    unused: u32,
}
impl Args for FillArgs {}
const _: () = assert!(size_of::<FillArgs>() == 24);

/// As `AccumulateArgs` in kernels/pointwise.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct AccumulateArgs {
    v: Ptr,
    g: Ptr,
    n: u64,
    add: u32,
    wide: u32,
}
impl Args for AccumulateArgs {}
const _: () = assert!(size_of::<AccumulateArgs>() == 32);

/// Whether rows of `cols` elements at these addresses can be read in packs of 16 bytes: 1 or 0, as kernels take it.
pub(super) fn packs(dtype: Dtype, cols: usize, at: &[Ptr]) -> u32 {
    u32::from(cols.is_multiple_of(16 / dtype.bytes()) && aligned(at))
}

/// Whether all bases are aligned to 16 bytes.
pub(super) fn aligned(at: &[Ptr]) -> bool {
    at.iter().all(|at| at.0 % 16 == 0)
}

/// A cotangent to be written, or added to.
#[derive(Clone, Copy, Debug)]
pub struct DeviceCotangent<'a> {
    pub to: DeviceTensor<'a>,
    pub add: bool,
}

impl DeviceCotangent<'_> {
    /// g (+)= v, element by element; g is stored as v is, or in f32.
    pub fn receive(&self, v: &DeviceTensor, queue: &Queue) -> Result<()> {
        let (g, n) = (&self.to, v.numel());
        if !self.add && g.dtype == v.dtype {
            return g.copy_from(v, queue);
        }
        let wide = g.dtype == Dtype::F32;
        let at = if wide { g.at } else { g.stored(v.dtype, "accumulate", "gx")? };
        let args = AccumulateArgs { v: v.at, g: at, n: n as u64, add: self.add.into(), wide: wide.into() };
        queue.launch(&format!("accumulate_{}", v.dtype.suffix()), queue.blocks(n, 2048), 256, 0, &args)
    }
}

/// The passes of an op of one input that only moves numbers: `launch(x, y, back)` takes them from x to y or, with
/// `Some(add)`, back to x, added or not.
pub(super) fn moved(
    op: &dyn Op,
    pass: Pass,
    io: &DeviceIo,
    queue: &Queue,
    launch: impl Fn(&DeviceTensor, &DeviceTensor, Option<bool>) -> Result<()>,
) -> Result<()> {
    match pass {
        Pass::Forward => launch(&io.x[0], &io.y, None),
        Pass::Jvp => match &io.dx[0] {
            Some(dx) => launch(dx, &io.dy()?, None),
            None => io.dy()?.zero(queue),
        },
        Pass::Dual => in_turn(op, io, queue),
        Pass::Vjp => match &io.gx[0] {
            Some(g) => launch(&g.to, &io.dy()?, Some(g.add)),
            None => Ok(()),
        },
    }
}

/// One call: as the host passes have it, the fields a pass does not use being empty.
#[derive(Clone, Copy, Debug)]
pub struct DeviceIo<'a> {
    pub x: &'a [DeviceTensor<'a>],
    pub y: DeviceTensor<'a>,
    /// f32, as many as `Op::saved` says, without those that are kept.
    pub saved: Ptr,
    /// What is kept (`Op::kept`), of the type of y; null where nothing reads it later, as of a Dual.
    pub kept: Ptr,
    /// Jvp and Dual: tangents of the inputs, `None` being zero.
    pub dx: &'a [Option<DeviceTensor<'a>>],
    /// Jvp and Dual: the tangent to write. Vjp: the cotangent of y.
    pub dy: Option<DeviceTensor<'a>>,
    /// Vjp: what to write.
    pub gx: &'a [Option<DeviceCotangent<'a>>],
}

impl<'a> DeviceIo<'a> {
    /// dy, which the compiler gives to every pass but forward.
    ///
    /// # Errors
    /// [`Error::Graph`] for a call without one.
    pub fn dy(&self) -> Result<DeviceTensor<'a>> {
        let missing = || Error::Graph { op: "call", place: "dy".into(), what: "the pass needs one".into() };
        self.dy.ok_or_else(missing)
    }
}
