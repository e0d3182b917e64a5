//! An op's tensors in a device's memory, and its passes on them.
use super::case::{Case, Input, Role};
use super::memory::{poisoned, upload};
use crate::gpu::{Device, Dtype, Memory, Ptr, Queue};
use crate::ops::{DeviceCotangent, DeviceIo, DeviceTensor, Pass};
use crate::tensor::{Shape, numel};
use crate::{Error, Result};
use std::rc::Rc;

/// As the device holds them: those of bf16 rounded.
pub(super) fn rounded(data: &[f32], dtype: Dtype) -> Vec<f32> {
    let round = |v: &f32| if dtype == Dtype::Bf16 { half::bf16::from_f32(*v).to_f32() } else { *v };
    // Indices pass as f32 and keep their bits.
    data.iter().map(round).collect()
}

/// What is stored how, by the rule of [`DeviceTensor`].
#[derive(Clone, Debug)]
pub struct Stored {
    pub x: Vec<Dtype>,
    pub gx: Vec<Dtype>,
    pub y: Dtype,
}

impl Stored {
    /// `wide`: the output is f32 where the inputs are not.
    pub fn new(case: &Case, dtype: Dtype, wide: bool) -> Self {
        let exact = case.op.exact();
        let of = |(i, input): (usize, &Input)| match input.role {
            Role::Index | Role::Constant => Dtype::F32,
            Role::Parameter if input.shape.len() < 2 => Dtype::F32,
            // What a loss compares its scores to.
            Role::Activation if exact && i > 0 => Dtype::F32,
            Role::Parameter | Role::Activation => dtype,
        };
        let x: Vec<Dtype> = case.inputs.iter().enumerate().map(of).collect();
        let gradient = |(input, of): (&Input, &Dtype)| if input.role == Role::Parameter { Dtype::F32 } else { *of };
        let gx = case.inputs.iter().zip(&x).map(gradient).collect();
        Self { x, gx, y: if exact || wide { Dtype::F32 } else { dtype } }
    }
}

/// A case with each tensor in memory of its own; y, what is saved, and scratch hold NaN.
#[derive(Debug)]
pub struct Bound {
    device: Rc<dyn Device>,
    pub case: Case,
    pub stored: Stored,
    shape: Shape,
    x: Vec<Memory>,
    pub y: Memory,
    saved: Memory,
    kept: Option<Memory>,
    scratch: Option<Memory>,
}

impl Bound {
    /// # Errors
    /// Shapes that the op refuses; what the device says.
    pub fn new(device: &Rc<dyn Device>, case: Case, stored: Stored) -> Result<Self> {
        let refused = |what| Error::Graph { op: case.op.name(), place: "selftest".into(), what };
        let shapes = case.shapes();
        let shape = case.op.output(&shapes).map_err(refused)?;
        let put = |(input, dtype): (&Input, &Dtype)| upload(device, &input.data, *dtype);
        let x = case.inputs.iter().zip(&stored.x).map(put).collect::<Result<_>>()?;
        let y = poisoned(device, numel(&shape) * stored.y.bytes())?;
        let kept = case.op.kept(&shapes);
        let saved = poisoned(device, 4 * (case.op.saved(&shapes) - kept))?;
        let kept = (kept > 0).then(|| poisoned(device, kept * stored.y.bytes())).transpose()?;
        let scratch = [Pass::Forward, Pass::Jvp, Pass::Vjp, Pass::Dual].map(|pass| case.op.scratch(pass, &shapes));
        let scratch = scratch.into_iter().max().filter(|bytes| *bytes > 0);
        let scratch = scratch.map(|bytes| poisoned(device, bytes)).transpose()?;
        drop(shapes);
        Ok(Self { device: device.clone(), case, stored, shape, x, y, saved, kept, scratch })
    }

    /// Fill scratch with NaN again.
    pub fn poison(&self) -> Result<()> {
        let Some(scratch) = &self.scratch else { return Ok(()) };
        self.device.upload(scratch.at(), &vec![0xff; scratch.bytes()])
    }

    /// Fill y and what is saved with NaN again.
    pub fn forget(&self) -> Result<()> {
        let each = [&self.y, &self.saved].into_iter().filter(|m| m.bytes() > 0);
        each.into_iter().try_for_each(|m| self.device.upload(m.at(), &vec![0xff; m.bytes()]))
    }

    /// Queue one pass. The reverse pass sees what the op says it reads and nothing else.
    pub fn run(
        &self,
        pass: Pass,
        dx: &[Option<Memory>],
        dy: Option<&Memory>,
        gx: &[Option<(Memory, bool)>],
    ) -> Result<()> {
        let (op, shapes, reads) = (&self.case.op, self.case.shapes(), self.case.op.reverse_reads());
        let tensor = |at: Ptr, dtype: Dtype, i: usize| DeviceTensor { at, dtype, shape: shapes[i] };
        let shown = |i: usize| pass != Pass::Vjp || reads.inputs.contains(&i);
        let x = |(i, m): (usize, &Memory)| tensor(if shown(i) { m.at() } else { Ptr::NULL }, self.stored.x[i], i);
        let x: Vec<DeviceTensor> = self.x.iter().enumerate().map(x).collect();
        let at_y = |at: Ptr| DeviceTensor { at, dtype: self.stored.y, shape: &self.shape };
        let tangent = |(i, m): (usize, &Option<Memory>)| m.as_ref().map(|m| tensor(m.at(), self.stored.x[i], i));
        let dx: Vec<Option<DeviceTensor>> = dx.iter().enumerate().map(tangent).collect();
        let cotangent = |(i, m): (usize, &Option<(Memory, bool)>)| {
            m.as_ref().map(|(m, add)| DeviceCotangent { to: tensor(m.at(), self.stored.gx[i], i), add: *add })
        };
        let gx: Vec<Option<DeviceCotangent>> = gx.iter().enumerate().map(cotangent).collect();
        let scratch = self.scratch.as_ref().map_or(Ptr::NULL, Memory::at);
        let io = DeviceIo {
            x: &x,
            y: at_y(if pass != Pass::Vjp || reads.output { self.y.at() } else { Ptr::NULL }),
            saved: self.saved.at(),
            kept: self.kept.as_ref().filter(|_| pass != Pass::Dual).map_or(Ptr::NULL, Memory::at),
            dx: &dx,
            dy: dy.map(|m| at_y(m.at())),
            gx: &gx,
        };
        op.cuda(pass, &io, &Queue::new(&*self.device, scratch))
    }
}
