//! The engine of devices: programs and vectors of weight space on a [`Device`], a CUDA one or the emulator.
//!
//! Every vector is f32 in the layout. In bf16, matrices are read from a bf16 shadow of the vector, which the fused
//! update writes along and everything else leaves stale until it is cast anew. Activations, uploads and scratch
//! have an arena each, as large as the largest program that has run.
use super::{
    Bindings, Census, Clip, Criterion, Engine, Loaded, Mask, Selected, Stepped, Update, Updated, Vector, bind,
};
use crate::gpu::{Device, Dtype, Memory, Ptr, Recorded};
use crate::graph::{Id, Lowering, Program};
use crate::params::{Layout, Role};
use crate::{Error, Result};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

mod arena;
mod blocks;
mod flat;
mod run;
mod select;
mod step;
mod storage;
mod update;
use arena::{Arena, named};
pub use flat::{Flat, Sizes};
pub use select::Source;
pub use storage::Storage;
pub use update::{At, Knobs};

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
    tf32: bool,
    layout: Layout,
    vectors: Vec<Held>,
    masks: Vec<Memory>,
    programs: Vec<Stored>,
    work: Arena,
    outside: Arena,
    scratch: Arena,
    flat: Flat,
    recordings: HashMap<step::Key, Recorded>,
    last: Option<Last>,
    poison: bool,
    lowering: Lowering,
}

impl Cuda {
    /// An engine that computes in `dtype`.
    ///
    /// # Errors
    /// [`Error::Memory`] on a device without room for the little it starts with.
    pub fn new(device: Rc<dyn Device>, layout: Layout, dtype: Dtype) -> Result<Self> {
        Ok(Self {
            flat: Flat::new(&device, &layout).map_err(|e| named(e, "workspace"))?,
            device,
            dtype,
            tf32: false,
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
            lowering: Lowering::device(),
        })
    }

    /// Allow products of f32 to round their factors to tf32.
    pub fn with_tf32(mut self, tf32: bool) -> Self {
        self.tf32 = tf32;
        self
    }

    /// Fill the arenas, and every buffer that is about to be written, with NaN: a read of what nobody wrote shows at
    /// once. For tests.
    pub fn poisoned(mut self) -> Self {
        self.poison = true;
        self
    }

    /// Run programs with these calls, in place of what [`Lowering::device`] says.
    pub fn lowering(mut self, lowering: Lowering) -> Self {
        self.lowering = lowering;
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

    fn mask_words(&self) -> usize {
        self.layout.range(Role::Prunable).end.div_ceil(32)
    }

    fn mask_at(&self, m: Mask) -> Result<Ptr> {
        self.masks.get(m.0).map(Memory::at).ok_or_else(|| Error::Graph {
            op: "mask",
            place: format!("mask {}", m.0),
            what: format!("this engine has {} masks", self.masks.len()),
        })
    }

    /// Two vectors, the second to be changed.
    fn pair(&mut self, x: Vector, y: Vector) -> Result<(Ptr, Ptr)> {
        self.check(x, 0, 0)?;
        self.check(y, 0, 0)?;
        if x == y {
            return Err(Error::Graph {
                op: "vector",
                place: format!("vectors {} and {}", x.0, y.0),
                what: "the two must be there, and not be the same".into(),
            });
        }
        Ok((self.vectors[x.0].f32(0), self.changed(y)))
    }

    /// The numbers of a vector that is about to be changed.
    fn changed(&mut self, v: Vector) -> Ptr {
        self.vectors[v.0].stale();
        self.vectors[v.0].f32(0)
    }

    /// See to a vector's shadow, where programs read one.
    fn refresh(&mut self, v: usize) -> Result<()> {
        let held = &mut self.vectors[v];
        if self.dtype == Dtype::F32 || held.fresh {
            return Ok(());
        }
        let len = self.layout.len();
        let shadow = match held.shadow.take() {
            Some(shadow) => shadow,
            None => Memory::new(&self.device, 2 * len).map_err(|e| named(e, "a bf16 shadow"))?,
        };
        self.flat.narrow(held.master.at(), shadow.at(), 0..len)?;
        (held.shadow, held.fresh) = (Some(shadow), true);
        Ok(())
    }
}

impl Engine for Cuda {
    fn describe(&self) -> String {
        format!("{}, {}", self.device.describe(), self.dtype.suffix())
    }
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn dtype(&self) -> Option<Dtype> {
        Some(self.dtype)
    }
    fn zeros(&mut self) -> Result<Vector> {
        let len = self.layout.len();
        let master = Memory::new(&self.device, 4 * len).map_err(|e| named(e, "a vector of weight space"))?;
        self.device.fill(master.at(), 0, len)?;
        self.vectors.push(Held { master, shadow: None, fresh: false });
        Ok(Vector(self.vectors.len() - 1))
    }
    fn write(&mut self, v: Vector, at: usize, data: &[f32]) -> Result<()> {
        self.check(v, at, data.len())?;
        let to = self.changed(v).offset(4 * at);
        if data.is_empty() { Ok(()) } else { self.device.upload(to, bytemuck::cast_slice(data)) }
    }
    fn read(&self, v: Vector, at: usize, data: &mut [f32]) -> Result<()> {
        self.check(v, at, data.len())?;
        let from = self.vectors[v.0].f32(at);
        if data.is_empty() { Ok(()) } else { self.device.download(from, bytemuck::cast_slice_mut(data)) }
    }
    fn load(&mut self, program: Program) -> Result<Loaded> {
        bind::check(&program, &self.layout)?;
        let program = program.lowered(self.lowering)?;
        let storage = Storage::new(&program, self.dtype)?;
        self.programs.push(Stored { program, storage });
        Ok(Loaded(self.programs.len() - 1))
    }
    fn run(&mut self, program: Loaded, with: &Bindings) -> Result<()> {
        self.execute(program.0, with)
    }
    fn fetch(&self, program: Loaded, name: &str) -> Result<Vec<f32>> {
        self.fetched(program.0, name)
    }
    fn copy(&mut self, x: Vector, y: Vector) -> Result<()> {
        let (x, y) = self.pair(x, y)?;
        self.flat.copy(x, y)
    }
    fn axpy(&mut self, a: f32, x: Vector, y: Vector) -> Result<()> {
        let (x, y) = self.pair(x, y)?;
        self.flat.axpy(a, x, y)
    }
    fn scale(&mut self, a: f32, x: Vector) -> Result<()> {
        self.check(x, 0, 0)?;
        let x = self.changed(x);
        self.flat.scale(a, x)
    }
    fn dot(&self, x: Vector, y: Vector, range: Range<usize>) -> Result<f64> {
        self.check(x, range.start, range.len())?;
        self.check(y, range.start, range.len())?;
        self.flat.dot(self.vectors[x.0].f32(0), self.vectors[y.0].f32(0), range)
    }
    fn mask(&mut self) -> Result<Mask> {
        let words = self.mask_words();
        let mask = Memory::new(&self.device, 4 * words).map_err(|e| named(e, "a mask"))?;
        if words > 0 {
            self.device.fill(mask.at(), 0, words)?;
        }
        self.masks.push(mask);
        Ok(Mask(self.masks.len() - 1))
    }
    fn read_mask(&self, m: Mask) -> Result<Vec<u32>> {
        let from = self.mask_at(m)?;
        let mut words = vec![0u32; self.mask_words()];
        if !words.is_empty() {
            self.device.download(from, bytemuck::cast_slice_mut(&mut words))?;
        }
        Ok(words)
    }
    fn write_mask(&mut self, m: Mask, words: &[u32]) -> Result<()> {
        let (to, have) = (self.mask_at(m)?, self.mask_words());
        if words.len() != have {
            let what = format!("wanted {have} words, got {}", words.len());
            return Err(Error::Graph { op: "mask", place: format!("mask {}", m.0), what });
        }
        if have == 0 { Ok(()) } else { self.device.upload(to, bytemuck::cast_slice(words)) }
    }
    fn select(&mut self, w: Vector, how: &Criterion, census: Option<Census>, mask: Mask) -> Result<Selected> {
        self.check(w, 0, 0)?;
        let mask = self.mask_at(mask)?;
        self.flat.select(self.vectors[w.0].f32(0), how, census.as_ref(), mask)
    }
    fn project(&mut self, w: Vector, mask: Mask) -> Result<()> {
        self.check(w, 0, 0)?;
        let mask = self.mask_at(mask)?;
        let held = &self.vectors[w.0];
        let shadow = held.shadow.as_ref().map_or(Ptr::NULL, Memory::at);
        self.flat.project(held.f32(0), shadow, mask)
    }
    fn update(&mut self, step: &Update) -> Result<Updated> {
        self.fused(step)
    }
    fn step(&mut self, program: Loaded, with: &Bindings, update: &Update, clip: &Clip) -> Result<Stepped> {
        self.stepped(program.0, with, update, clip)
    }
}
