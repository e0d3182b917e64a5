//! Ops: a file each, holding the shape rule, the oracle, the host passes and the cost.
//!
//! To add one: its file here, a line below, a method in [`crate::graph::Scope`], a row in the op table of
//! `src/selftest/cases.rs`. Nothing else knows an op by name: the compiler, the planner and the engines see calls. Only
//! `src/graph/fuse.rs` does, where it makes one op of two.
use crate::dual::Dual;
use crate::gpu::Queue;
use crate::tensor::{Element, Shape, View};
use std::any::Any;
use std::fmt::Debug;

mod activation;
mod add;
pub mod attention;
mod average_pool;
mod batch_norm;
mod channels;
pub mod column_sums;
mod conv2d;
pub mod cross_entropy;
mod device;
pub mod distance;
pub mod embedding;
mod flatten;
pub mod gemm;
mod interpolate;
mod layer_norm;
mod linear;
pub mod math;
mod max_pool;
mod mean;
mod moment;
mod patches;
mod planes;
mod pool;
mod position;
mod prepend;
mod row_loss;
mod select_token;
mod squared_error;
mod subsample;
mod sum_rows;
mod window;
pub use activation::Activation;
pub use add::Add;
pub use attention::Attention;
pub use average_pool::AveragePool;
pub use batch_norm::{BatchNorm, RectifiedBatchNorm};
pub use conv2d::{Conv2d, RectifiedConv};
pub use cross_entropy::CrossEntropy;
pub use device::{DeviceCotangent, DeviceIo, DeviceTensor};
pub use distance::Distance;
pub use embedding::Embedding;
pub use flatten::Flatten;
pub use interpolate::Interpolate;
pub use layer_norm::{AddLayerNorm, LayerNorm};
pub use linear::{FusedLinear, Linear};
pub use max_pool::MaxPool;
pub use mean::Mean;
pub use moment::Moment;
pub use patches::Patches;
pub use position::AddPosition;
pub use prepend::Prepend;
pub use select_token::SelectToken;
pub use squared_error::SquaredError;
pub use subsample::Subsample;
pub use window::Windows;

/// Which part of an op a call runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// y = f(x).
    Forward,
    /// dy = (df/dx) dx.
    Jvp,
    /// gx (+)= (df/dx)ᵀ gy.
    Vjp,
    /// Forward and Jvp at once: an op's operands are read once for both (see [`Op::dual`]).
    Dual,
}

impl Pass {
    /// Whether it writes y and what is saved.
    pub fn gives_output(self) -> bool {
        matches!(self, Self::Forward | Self::Dual)
    }
    /// How many passes it takes the place of: an op whose forward pass and jvp cost the same, and share nothing, multiplies
    /// its cost by it.
    pub fn count(self) -> u64 {
        if self == Self::Dual { 2 } else { 1 }
    }
    /// Whether it takes tangents to a tangent.
    pub fn takes_tangents(self) -> bool {
        matches!(self, Self::Jvp | Self::Dual)
    }
}

/// What a reverse pass reads. The planner keeps exactly this alive; the engines show nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Reads {
    pub inputs: &'static [usize],
    pub output: bool,
}

impl Reads {
    pub const NOTHING: Self = Self::inputs(&[]);
    pub const OUTPUT: Self = Self { inputs: &[], output: true };
    pub const fn inputs(inputs: &'static [usize]) -> Self {
        Self { inputs, output: false }
    }
}

/// What one pass takes on paper: floating-point operations, and bytes that must move when nothing is cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub flops: u64,
    pub bytes: u64,
}

impl std::ops::Add for Cost {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        Self { flops: self.flops + o.flops, bytes: self.bytes + o.bytes }
    }
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, o: Self) {
        self.flops += o.flops;
        self.bytes += o.bytes;
    }
}

/// A cotangent to be written (`add == false`) or added to.
#[derive(Debug)]
pub struct Cotangent<'a> {
    pub data: &'a mut [f32],
    pub add: bool,
}

impl Cotangent<'_> {
    /// Store `v` at `i`, or add it there.
    #[inline(always)]
    pub fn put(&mut self, i: usize, v: f32) {
        if self.add { self.data[i] += v } else { self.data[i] = v }
    }
}

/// A differentiable function of tensors. Its three passes agree with one reference; the tests see to it.
///
/// Shapes reach every method that needs them in the views or as `x: &[&[usize]]`, one entry an input.
/// Errors of the shape rule are plain text: the builder adds the op's name and its place in the network.
pub trait Op: Any + Debug + Send + Sync {
    fn name(&self) -> &'static str;

    /// The output's shape, or what does not fit: what was wanted and what was found.
    fn output(&self, x: &[&[usize]]) -> Result<Shape, String>;

    /// What input `i` holds. Index inputs have no tangent.
    fn element(&self, _i: usize) -> Element {
        Element::Real
    }

    /// Whether the indices among the inputs that come from outside are in range: a pass has no way to fail. Engines
    /// call it when inputs are bound; views of what is not there yet have no data.
    ///
    /// # Errors
    /// [`crate::Error::Data`] naming the first index that has no row, and its position.
    fn check(&self, _x: &[View]) -> crate::Result<()> {
        Ok(())
    }

    /// How many floats the forward pass leaves for the other two.
    fn saved(&self, _x: &[&[usize]]) -> usize {
        0
    }

    /// How many of those, the last ones, are a tensor between two ops that this one does at once. A device stores them as
    /// it stores activations, and not at all where neither jvp nor vjp of the call comes later.
    fn kept(&self, _x: &[&[usize]]) -> usize {
        0
    }

    fn reverse_reads(&self) -> Reads;

    fn cost(&self, pass: Pass, x: &[&[usize]]) -> Cost;

    /// The oracle: the definition, in f64 dual numbers, with no thought of speed. An index input's `re` is the index.
    fn reference(&self, x: &[View<Dual>], y: &mut [Dual]);

    fn forward(&self, x: &[View], y: &mut [f32], saved: &mut [f32]);

    /// dy = Σ_i (dy/dx_i) dx_i; `None` is a tangent known to be zero.
    fn jvp(&self, x: &[View], y: &[f32], saved: &[f32], dx: &[Option<&[f32]>], dy: &mut [f32]);

    /// gx_i (+)= (dy/dx_i)ᵀ gy; `None` is a cotangent nobody asked for. Views of inputs (and `y`) that
    /// [`Op::reverse_reads`] does not name have no data; their shapes stay.
    fn vjp(&self, x: &[View], y: &[f32], saved: &[f32], gy: &[f32], gx: &mut [Option<Cotangent>]);

    /// Whether the op keeps f32 for its output whatever an engine computes in: true of losses and of statistics.
    fn exact(&self) -> bool {
        false
    }

    /// Whether the output may be f32 where the inputs are not: the engine asks for that where a loss reads it, or the
    /// caller does.
    fn widens(&self) -> bool {
        false
    }

    /// Whether a device's [`Pass::Dual`] does better than its two passes one after the other. An engine of devices then
    /// makes one call of them; the host keeps two.
    fn dual(&self) -> bool {
        false
    }

    /// Bytes that a pass needs for its own use on a device with `multiprocessors`.
    fn scratch(&self, _pass: Pass, _x: &[&[usize]]) -> usize {
        0
    }

    /// The same passes as kernels, queued on a device; [`Pass::Dual`] is asked of an op that says [`Op::dual`], and of
    /// others by tests: [`in_turn`] is right for them.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] from an op that has none; what the device says.
    fn cuda(&self, pass: Pass, _io: &DeviceIo, _queue: &Queue) -> crate::Result<()> {
        let what = format!("{pass:?} of {} on a CUDA device", self.name());
        Err(crate::Error::unsupported("--device", what, "use --device cpu"))
    }
}

/// [`Pass::Dual`] of an op that has no better way: forward, then jvp.
pub fn in_turn(op: &dyn Op, io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
    op.cuda(Pass::Forward, io, queue)?;
    op.cuda(Pass::Jvp, io, queue)
}

/// Rows a task of a row-parallel loop takes: enough to pay for the hand-over, and fixed, so that no
/// sum depends on the number of threads.
pub(crate) fn rows_per_task(cols: usize) -> usize {
    (16_384 / cols.max(1)).max(1)
}

/// Elements a task of an element-wise loop takes.
pub(crate) const CHUNK: usize = 16_384;

/// The instruction set that loops run inside its `dispatch` are compiled for, found once at run time.
#[derive(Clone, Copy)]
pub(crate) struct Vectors(pulp::Arch);

pub(crate) fn simd() -> Vectors {
    Vectors(pulp::Arch::new())
}

impl Vectors {
    /// Run `body`, compiled for these vectors: true only of what is inlined into it, so write
    /// `#[inline(always)]` on the closure and on all it calls, and loops in place of `for_each`.
    pub fn dispatch<T>(self, body: impl FnMut() -> T) -> T {
        // Not pulp's own closure form: it calls through `FnOnce`, whose shim for an `FnMut` is not always inlined.
        struct Body<F>(F);
        impl<T, F: FnMut() -> T> pulp::WithSimd for Body<F> {
            type Output = T;
            #[inline(always)]
            fn with_simd<S: pulp::Simd>(mut self, _: S) -> T {
                (self.0)()
            }
        }
        self.0.dispatch(Body(body))
    }

    /// Run a kernel that is written in vector registers, where the compiler does not find them by itself.
    pub fn run<K: Vectorised>(self, kernel: K) -> K::Output {
        struct Kernel<K>(K);
        impl<K: Vectorised> pulp::WithSimd for Kernel<K> {
            type Output = K::Output;
            #[inline(always)]
            fn with_simd<S: pulp::Simd>(self, s: S) -> K::Output {
                self.0.run(s)
            }
        }
        self.0.dispatch(Kernel(kernel))
    }
}

/// A kernel in vector registers of any width. `run` and all it calls want `#[inline(always)]`.
pub(crate) trait Vectorised {
    type Output;
    fn run<S: pulp::Simd>(self, s: S) -> Self::Output;
}
