//! The engine of devices: programs and vectors of weight space on a [`Device`], a CUDA one or the emulator.
//!
//! Every vector is f32 in the layout. In bf16, matrices are read from a bf16 shadow of the vector, which the fused
//! update writes along and everything else leaves stale until it is cast anew. Activations, uploads and scratch
//! have an arena each, as large as the largest program that was loaded.
use super::{Bindings, Census, Clip, Criterion, Engine, Loaded, Mask, Selected, Stepped, Update, Updated, Vector, bind};
use crate::gpu::{Device, Dtype, Memory, Ptr, Recorded};
use crate::graph::{Id, Program};
use crate::params::{Layout, Role};
use crate::{Error, Result};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

mod arena;
mod run;
mod step;
mod storage;
use arena::{Arena, named};
pub use storage::Storage;

/// A vector of weight space on the device.
#[derive(Debug)]
struct Held {
    master: Memory,
    /// The same numbers in bf16, from the first time that a program reads them so.
    shadow: Option<Memory>,
    /// Whether the shadow is what the master holds.
    fresh: bool,
}

impl Held {
    /// The f32 at `at`.
    fn f32(&self, at: usize) -> Ptr {
        self.master.at().offset(4 * at)
    }
    /// The element at `at`, as stored in `dtype`.
    fn stored(&self, dtype: Dtype, at: usize) -> Ptr {
        match (dtype, &self.shadow) {
            (Dtype::Bf16, Some(shadow)) => shadow.at().offset(2 * at),
            _ => self.f32(at),
        }
    }
    fn stale(&mut self) {
        self.fresh = false;
    }
}

/// A program with what it takes on the device.
#[derive(Debug)]
struct Stored {
    program: Program,
    storage: Storage,
}

/// The program whose results the arena holds, and those of one number that were read with the step's.
#[derive(Debug)]
struct Last {
    program: usize,
    scalars: Vec<(Id, f32)>,
}

#[derive(Debug)]
pub struct Cuda {
    device: Rc<dyn Device>,
    dtype: Dtype,
    layout: Layout,
    vectors: Vec<Held>,
    masks: Vec<Memory>,
    programs: Vec<Stored>,
    work: Arena,
    outside: Arena,
    scratch: Arena,
    recordings: HashMap<step::Key, Recorded>,
    last: Option<Last>,
    poison: bool,
}

impl Cuda {
    /// An engine that computes in `dtype`.
    ///
    /// # Errors
    /// [`Error::Memory`] on a device without room for the little it starts with.
    pub fn new(device: Rc<dyn Device>, layout: Layout, dtype: Dtype) -> Result<Self> {
        Ok(Self {
            device,
            dtype,
            layout,
            vectors: Vec::new(),
            masks: Vec::new(),
            programs: Vec::new(),
            work: Arena::new("activations"),
            outside: Arena::new("inputs"),
            scratch: Arena::new("scratch"),
            recordings: HashMap::new(),
            last: None,
            poison: false,
        })
    }

    /// Fill the arenas, and every buffer that is about to be written, with NaN: a read of what nobody wrote shows at
    /// once. For tests.
    pub fn poisoned(mut self) -> Self {
        self.poison = true;
        self
    }

    fn check(&self, v: Vector, at: usize, len: usize) -> Result<()> {
        let what = match self.vectors.get(v.0) {
            Some(_) if at.checked_add(len).is_some_and(|end| end <= self.layout.len()) => return Ok(()),
            Some(_) => format!("{len} floats at {at} lie outside its {}", self.layout.len()),
            None => format!("this engine has {} vectors", self.vectors.len()),
        };
        Err(Error::Graph { op: "vector", place: format!("vector {}", v.0), what })
    }
}
