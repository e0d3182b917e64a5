//! What a program takes besides vectors, before anything is loaded.
use super::cuda::{Flat, Storage};
use crate::Result;
use crate::gpu::Dtype;
use crate::graph::{Lowering, Program};
use crate::params::Layout;

/// Bytes by purpose; what several programs share is the largest of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arenas {
    /// Outputs of ops, their tangents or cotangents, and what ops save.
    pub activations: usize,
    /// What is uploaded for a run.
    pub inputs: usize,
    /// What ops need for themselves.
    pub scratch: usize,
}

impl Arenas {
    /// Of a device that computes in `dtype`, with the calls that its engine makes; of the host, which reads inputs where they are, without one.
    ///
    /// # Errors
    /// As [`Storage::new`].
    pub fn of(program: &Program, dtype: Option<Dtype>) -> Result<Self> {
        let Some(dtype) = dtype else { return Ok(Self { activations: 4 * program.arena, ..Self::default() }) };
        let s = Storage::new(&program.lowered(Lowering::device())?, dtype)?;
        Ok(Self { activations: s.activations(), inputs: s.inputs(), scratch: s.scratch() })
    }

    /// What both fit in, one after the other.
    pub fn shared(self, other: Self) -> Self {
        Self {
            activations: self.activations.max(other.activations),
            inputs: self.inputs.max(other.inputs),
            scratch: self.scratch.max(other.scratch),
        }
    }

    pub fn total(self) -> usize {
        self.activations + self.inputs + self.scratch
    }
}

/// Bytes that operations on weight space need on a device.
pub fn workspace(layout: &Layout) -> usize {
    Flat::need(layout)
}
