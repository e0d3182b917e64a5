//! Engines: what runs programs and holds vectors of weight space. One trait, at the height of programs.
use crate::Result;
use crate::graph::Program;
use crate::params::{Layout, Role};
use std::ops::Range;

mod arenas;
mod bind;
mod constants;
pub mod cuda;
mod host;
mod select;
mod update;
pub use crate::gpu::Dtype;
pub use arenas::{Arenas, workspace};
pub use cuda::Cuda;
pub use host::Host;
pub use select::{Census, Counted, Criterion, Pattern, Score, Selected};
pub use update::{Clip, Optimizer, Pull, Stepped, Update, Updated};

/// A vector of weight space that an engine holds, in its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vector(pub(crate) usize);

/// One bit a prunable parameter that an engine holds; set means pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask(pub(crate) usize);

/// A program that an engine has taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded(pub(crate) usize);

/// The elements of an input.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    Real(&'a [f32]),
    Index(&'a [i32]),
}

/// What one run of a program reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Bindings<'a> {
    /// The weights.
    pub params: Vector,
    /// The direction v of J v, for a tangent program with respect to parameters.
    pub tangents: Option<Vector>,
    /// Where Jᵀ u goes, for a reverse program with respect to parameters.
    pub cotangents: Option<Vector>,
    /// Add to the cotangents that are there (gradient accumulation).
    pub accumulate: bool,
    pub inputs: &'a [(&'a str, Data<'a>)],
    /// Directions in inputs, for a tangent program with respect to them.
    pub input_tangents: &'a [(&'a str, &'a [f32])],
    /// u; one where it is not given and the output is a single number.
    pub seed: Option<&'a [f32]>,
}

impl<'a> Bindings<'a> {
    /// A forward run at `params`.
    pub fn new(params: Vector, inputs: &'a [(&'a str, Data<'a>)]) -> Self {
        Self { params, tangents: None, cotangents: None, accumulate: false, inputs, input_tangents: &[], seed: None }
    }
}

/// A device with programs and vectors. Whole-vector operations take ranges of the layout, never tensors.
pub trait Engine {
    /// The device, in words.
    fn describe(&self) -> String;

    fn layout(&self) -> &Layout;

    /// What a device computes in; none on the host, which has f32 alone.
    fn dtype(&self) -> Option<Dtype> {
        None
    }

    /// A vector of zeros.
    fn zeros(&mut self) -> Result<Vector>;

    fn write(&mut self, v: Vector, at: usize, data: &[f32]) -> Result<()>;

    fn read(&self, v: Vector, at: usize, data: &mut [f32]) -> Result<()>;

    /// Take in a program whose parameters stand in this engine's layout.
    fn load(&mut self, program: Program) -> Result<Loaded>;

    /// # Errors
    /// An input that is missing or of another length, an index out of its range, a binding the mode needs.
    fn run(&mut self, program: Loaded, with: &Bindings) -> Result<()>;

    /// A mark, `grad.<input>`, `output` or `tangent` (J v) of the last run; overwritten by the next.
    fn fetch(&self, program: Loaded, name: &str) -> Result<Vec<f32>>;

    /// y = x.
    fn copy(&mut self, x: Vector, y: Vector) -> Result<()>;

    /// y += a x.
    fn axpy(&mut self, a: f32, x: Vector, y: Vector) -> Result<()>;

    /// x = a x.
    fn scale(&mut self, a: f32, x: Vector) -> Result<()>;

    /// ⟨x, y⟩ over a range, summed in f64 in a fixed order.
    fn dot(&self, x: Vector, y: Vector, range: Range<usize>) -> Result<f64>;

    /// An empty mask.
    fn mask(&mut self) -> Result<Mask>;

    /// Words of a mask, a bit a float of the prunable range, lowest first.
    fn read_mask(&self, m: Mask) -> Result<Vec<u32>>;

    fn write_mask(&mut self, m: Mask, words: &[u32]) -> Result<()>;

    /// Set `mask` to the smallest magnitudes of `w` in the prunable range; exact, ties by index.
    fn select(&mut self, w: Vector, how: &Criterion, census: Option<Census>, mask: Mask) -> Result<Selected>;

    /// w = 0 where the mask is set: the projection onto the sparse subspace.
    fn project(&mut self, w: Vector, mask: Mask) -> Result<()>;

    /// The fused step of a path: optimizer, pull, mask and norms in one pass over the trained range.
    fn update(&mut self, step: &Update) -> Result<Updated>;

    /// The last part of an optimizer step as one unit: the gradient of `program`, its norm, clipping, the update.
    /// `clip` decides in place of the update's `gradient_scale`. A program's marks can be fetched as after a run.
    ///
    /// # Errors
    /// As [`Engine::run`] and [`Engine::update`].
    fn step(&mut self, program: Loaded, with: &Bindings, update: &Update, clip: &Clip) -> Result<Stepped> {
        self.run(program, with)?;
        let trained = 0..self.layout().range(Role::Frozen).start;
        let (gradient_norm, gradient_scale) = clip.of(self.dot(update.g, update.g, trained)?);
        let updated = self.update(&Update { gradient_scale, ..update.clone() })?;
        Ok(Stepped { updated, gradient_norm })
    }
}
