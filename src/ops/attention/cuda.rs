//! Attention on a device: launches of kernels/attention_mma.cu and attention_mma_vjp.cu for bf16, of kernels/attention.cu
//! for everything that those do not take.
use super::config::{self, AttentionConfig, AttentionShape, Part};
use super::{Attention, Dims};
use crate::Result;
use crate::gpu::{Args, Dtype, Ptr, Queue};
use crate::ops::device::aligned;
use crate::ops::{DeviceIo, DeviceTensor, Pass};

/// As `Axes` in kernels/attention_args.cuh, like the structs that follow.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Axes {
    seq: u64,
    heads: u32,
    dim: u32,
    column_blocks: u32,
    scale: f32,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ForwardArgs {
    q: Ptr,
    k: Ptr,
    v: Ptr,
    mask: Ptr,
    y: Ptr,
    lse: Ptr,
    axes: Axes,
}
impl Args for ForwardArgs {}
const _: () = assert!(size_of::<ForwardArgs>() == 72);

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct JvpArgs {
    q: Ptr,
    k: Ptr,
    v: Ptr,
    mask: Ptr,
    lse: Ptr,
    dq: Ptr,
    dk: Ptr,
    dv: Ptr,
    dy: Ptr,
    axes: Axes,
}
impl Args for JvpArgs {}
const _: () = assert!(size_of::<JvpArgs>() == 96);

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct DualArgs {
    q: Ptr,
    k: Ptr,
    v: Ptr,
    mask: Ptr,
    dq: Ptr,
    dk: Ptr,
    dv: Ptr,
    y: Ptr,
    lse: Ptr,
    dy: Ptr,
    axes: Axes,
}
impl Args for DualArgs {}
const _: () = assert!(size_of::<DualArgs>() == 104);

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct VjpArgs {
    q: Ptr,
    k: Ptr,
    v: Ptr,
    mask: Ptr,
    lse: Ptr,
    gy: Ptr,
    delta: Ptr,
    gq: Ptr,
    gk: Ptr,
    gv: Ptr,
    axes: Axes,
    add: u32,
    unused: u32,
}
impl Args for VjpArgs {}
const _: () = assert!(size_of::<VjpArgs>() == 112);

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct DeltaArgs {
    y: Ptr,
    gy: Ptr,
    delta: Ptr,
    rows: u64,
    seq: u64,
    heads: u32,
    dim: u32,
}
impl Args for DeltaArgs {}
const _: () = assert!(size_of::<DeltaArgs>() == 48);

/// Of a block of a portable kernel.
const THREADS: u32 = 256;
/// Rows of a block of a portable kernel.
const SIDE: usize = 64;
/// Columns of a head that a block may have: the kernels there are.
const WIDTHS: [usize; 4] = [32, 64, 96, 128];

/// (blocks that share the columns of a head, columns of each).
fn columns(dim: usize) -> (usize, usize) {
    let blocks = dim.div_ceil(WIDTHS[3]);
    let width = WIDTHS.into_iter().find(|w| w * blocks >= dim).unwrap_or(WIDTHS[3]);
    (blocks, width)
}

/// Bytes of what both kernels of the reverse pass read: gy y of each query and head.
pub(super) fn scratch(pass: Pass, saved: usize) -> usize {
    if pass == Pass::Vjp { 4 * saved } else { 0 }
}

/// Which kernels a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// What the shape and dtype suggest.
    Rule,
    /// Those that take everything.
    Portable,
    /// Those for tensor cores, with blocks of so many rows where there are several kinds.
    TensorCores(usize),
}

/// One pass.
pub fn run(op: Attention, pass: Pass, io: &DeviceIo, queue: &Queue) -> Result<()> {
    run_as(Choice::Rule, op, pass, io, queue)
}

/// The same by kernels of one's own choice, if they take it.
pub fn run_as(choice: Choice, op: Attention, pass: Pass, io: &DeviceIo, queue: &Queue) -> Result<()> {
    let call = Call::new(choice, op, io, queue);
    let (q, k, v, mask) = (io.x[0].at, call.at(Some(io.x[1]), "k")?, call.at(Some(io.x[2]), "v")?, io.x[3].at);
    let (axes, y, lse) = (call.axes, call.at(Some(io.y), "y")?, io.saved);
    match pass {
        Pass::Forward => call.launch(Part::Forward, &[q, k, v, y], &ForwardArgs { q, k, v, mask, y, lse, axes }),
        Pass::Jvp => {
            let [dq, dk, dv] = call.tangents(io)?;
            let dy = call.at(Some(io.dy()?), "dy")?;
            match call.tensor_cores(Part::Jvp, &[q, k, v, y, dq, dk, dv, dy]) {
                Some(config) => {
                    let args = DualArgs { q, k, v, mask, dq, dk, dv, y, lse, dy, axes };
                    call.launch_as(&config, &args)
                }
                None => call.portable(Part::Jvp, &JvpArgs { q, k, v, mask, lse, dq, dk, dv, dy, axes }),
            }
        }
        Pass::Vjp => {
            let (gy, delta) = (call.at(Some(io.dy()?), "gy")?, queue.scratch);
            let to = |i: usize, name| call.at(io.gx[i].map(|g| g.to), name);
            let (gq, gk, gv) = (to(0, "gq")?, to(1, "gk")?, to(2, "gv")?);
            let add = [0, 1, 2].map(|i| u32::from(io.gx[i].is_some_and(|g| g.add)) << i).iter().sum();
            let args = VjpArgs { q, k, v, mask, lse, gy, delta, gq, gk, gv, axes, add, unused: 0 };
            call.delta(y, gy)?;
            let all = [q, k, v, gy, gq, gk, gv];
            if !gq.is_null() {
                call.launch(Part::VjpQ, &all, &args)?;
            }
            if !gk.is_null() || !gv.is_null() {
                call.launch(Part::VjpKv, &all, &args)?;
            }
            Ok(())
        }
        Pass::Dual => {
            let [dq, dk, dv] = call.tangents(io)?;
            let dy = call.at(Some(io.dy()?), "dy")?;
            match call.tensor_cores(Part::Dual, &[q, k, v, y, dq, dk, dv, dy]) {
                Some(config) => call.launch_as(&config, &DualArgs { q, k, v, mask, dq, dk, dv, y, lse, dy, axes }),
                None => {
                    run_as(choice, op, Pass::Forward, io, queue)?;
                    run_as(choice, op, Pass::Jvp, io, queue)
                }
            }
        }
    }
}

/// What all launches of a pass share.
struct Call<'a> {
    choice: Choice,
    shape: AttentionShape,
    dtype: Dtype,
    axes: Axes,
    queue: &'a Queue<'a>,
}

impl<'a> Call<'a> {
    fn new(choice: Choice, op: Attention, io: &DeviceIo, queue: &'a Queue) -> Self {
        let Dims { batch, seq, heads, dim } = Dims::new(op.heads, io.x[0].shape);
        let shape = AttentionShape { batch, seq, heads, dim };
        let axes = Axes {
            seq: shape.seq as u64,
            heads: shape.heads as u32,
            dim: shape.dim as u32,
            column_blocks: columns(shape.dim).0 as u32,
            scale: 1.0 / (shape.dim as f32).sqrt(),
        };
        Self { choice, shape, dtype: io.x[0].dtype, axes, queue }
    }

    /// Where a tensor lies; null for one that is not there.
    fn at(&self, t: Option<DeviceTensor>, name: &str) -> Result<Ptr> {
        t.map_or(Ok(Ptr::NULL), |t| t.stored(self.dtype, "attention", name))
    }

    fn tangents(&self, io: &DeviceIo) -> Result<[Ptr; 3]> {
        Ok([self.at(io.dx[0], "dq")?, self.at(io.dx[1], "dk")?, self.at(io.dx[2], "dv")?])
    }

    /// The tensor-core kernel of a part for tensors that lie there, if one takes them.
    fn tensor_cores(&self, part: Part, tensors: &[Ptr]) -> Option<AttentionConfig> {
        let takes = self.dtype == Dtype::Bf16 && self.shape.fits() && aligned(tensors);
        match self.choice {
            _ if !takes => None,
            Choice::Portable => None,
            Choice::Rule => Some(self.shape.config(part)),
            Choice::TensorCores(rows) => Some(self.shape.config_of(part, rows)),
        }
    }

    fn launch<A: Args>(&self, part: Part, tensors: &[Ptr], args: &A) -> Result<()> {
        match self.tensor_cores(part, tensors) {
            Some(config) => self.launch_as(&config, args),
            None => self.portable(part, args),
        }
    }

    fn launch_as<A: Args>(&self, config: &AttentionConfig, args: &A) -> Result<()> {
        let blocks = self.shape.blocks(config.rows) as u32;
        self.queue.launch(&config.kernel(), blocks, config::THREADS, config.shared(), args)
    }

    fn portable<A: Args>(&self, part: Part, args: &A) -> Result<()> {
        let (column_blocks, width) = columns(self.shape.dim);
        let grid = (self.shape.blocks(SIDE) * column_blocks) as u32;
        let kernel = format!("attention_{}_{width}_{}", part.name(), self.dtype.suffix());
        self.queue.launch(&kernel, grid, THREADS, 0, args)
    }

    /// gy y of each query and head, into scratch.
    fn delta(&self, y: Ptr, gy: Ptr) -> Result<()> {
        let AttentionShape { batch, seq, heads, dim } = self.shape;
        let rows = batch * seq * heads;
        let (heads, dim) = (heads as u32, dim as u32);
        let args = DeltaArgs { y, gy, delta: self.queue.scratch, rows: rows as u64, seq: seq as u64, heads, dim };
        if self.tensor_cores(Part::VjpQ, &[y, gy]).is_some() {
            let blocks = self.queue.blocks(rows, config::THREADS as usize / 16);
            return self.queue.launch("attention_mma_delta", blocks, config::THREADS, 0, &args);
        }
        let kernel = format!("attention_delta_{}", self.dtype.suffix());
        self.queue.launch(&kernel, self.queue.blocks(rows, THREADS as usize / 32), THREADS, 0, &args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_is_covered_by_few_columns() {
        for dim in 1..=512 {
            let (blocks, width) = columns(dim);
            assert!(WIDTHS.contains(&width) && blocks * width >= dim, "{dim}: {blocks} of {width}");
            assert!(blocks * width < dim + 32 * blocks, "{dim}: {blocks} of {width}");
        }
    }
}
