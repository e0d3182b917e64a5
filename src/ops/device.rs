//! What a pass of an op sees of its tensors on a device.
use crate::gpu::{Dtype, Ptr};
use crate::tensor::{numel, rows_cols};

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
}

/// A cotangent to be written, or added to.
#[derive(Clone, Copy, Debug)]
pub struct DeviceCotangent<'a> {
    pub to: DeviceTensor<'a>,
    pub add: bool,
}

/// One call: as the host passes have it, the fields a pass does not use being empty.
#[derive(Clone, Copy, Debug)]
pub struct DeviceIo<'a> {
    pub x: &'a [DeviceTensor<'a>],
    pub y: DeviceTensor<'a>,
    /// f32, as many as `Op::saved` says.
    pub saved: Ptr,
    /// Jvp: tangents of the inputs, `None` being zero.
    pub dx: &'a [Option<DeviceTensor<'a>>],
    /// Jvp: the tangent to write. Vjp: the cotangent of y.
    pub dy: Option<DeviceTensor<'a>>,
    /// Vjp: what to write.
    pub gx: &'a [Option<DeviceCotangent<'a>>],
}

impl<'a> DeviceIo<'a> {
    /// dy, which the compiler gives to every jvp and vjp.
    ///
    /// # Errors
    /// [`crate::Error::Graph`] for a call without one.
    pub fn dy(&self) -> crate::Result<DeviceTensor<'a>> {
        let missing = || crate::Error::Graph { op: "call", place: "dy".into(), what: "the pass needs one".into() };
        self.dy.ok_or_else(missing)
    }
}
