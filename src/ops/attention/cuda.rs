//! Attention on a device: launches of kernels/attention.cu.
use super::{Attention, Dims};
use crate::Result;
use crate::gpu::{Args, Ptr, Queue};
use crate::ops::{DeviceIo, DeviceTensor, Pass};

/// As `Axes` in kernels/attention.cu.
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

const THREADS: u32 = 256;
/// Rows of a block.
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

/// One pass.
pub(super) fn run(op: Attention, pass: Pass, io: &DeviceIo, queue: &Queue) -> Result<()> {
    let (dims, dtype) = (Dims::new(op.heads, io.x[0].shape), io.x[0].dtype);
    let (column_blocks, width) = columns(dims.dim);
    let axes = Axes {
        seq: dims.seq as u64,
        heads: dims.heads as u32,
        dim: dims.dim as u32,
        column_blocks: column_blocks as u32,
        scale: 1.0 / (dims.dim as f32).sqrt(),
    };
    let grid = (dims.batch * dims.heads * column_blocks * dims.seq.div_ceil(SIDE)) as u32;
    let kernel = |pass: &str| format!("attention_{pass}_{width}_{}", dtype.suffix());
    let at = |t: Option<DeviceTensor>, name| t.map_or(Ok(Ptr::NULL), |t| t.stored(dtype, "attention", name));
    let (q, k, v, mask) = (io.x[0].at, at(Some(io.x[1]), "k")?, at(Some(io.x[2]), "v")?, io.x[3].at);
    match pass {
        Pass::Forward => {
            let args = ForwardArgs { q, k, v, mask, y: at(Some(io.y), "y")?, lse: io.saved, axes };
            queue.launch(&kernel("forward"), grid, THREADS, 0, &args)
        }
        Pass::Jvp => {
            let (dq, dk, dv) = (at(io.dx[0], "dq")?, at(io.dx[1], "dk")?, at(io.dx[2], "dv")?);
            let dy = at(Some(io.dy()?), "dy")?;
            let args = JvpArgs { q, k, v, mask, lse: io.saved, dq, dk, dv, dy, axes };
            queue.launch(&kernel("jvp"), grid, THREADS, 0, &args)
        }
        Pass::Vjp => {
            let (y, gy, delta) = (at(Some(io.y), "y")?, at(Some(io.dy()?), "gy")?, queue.scratch);
            let to = |i: usize, name| at(io.gx[i].map(|g| g.to), name);
            let (gq, gk, gv) = (to(0, "gq")?, to(1, "gk")?, to(2, "gv")?);
            let add = [0, 1, 2].map(|i| u32::from(io.gx[i].is_some_and(|g| g.add)) << i).iter().sum();
            let args = VjpArgs { q, k, v, mask, lse: io.saved, gy, delta, gq, gk, gv, axes, add, unused: 0 };

            let rows = dims.batch * dims.seq * dims.heads;
            let (heads, dim) = (axes.heads, axes.dim);
            let sums = DeltaArgs { y, gy, delta, rows: rows as u64, seq: axes.seq, heads, dim };
            let name = format!("attention_delta_{}", dtype.suffix());
            queue.launch(&name, queue.blocks(rows, THREADS as usize / 32), THREADS, 0, &sums)?;
            if !gq.is_null() {
                queue.launch(&kernel("vjp_q"), grid, THREADS, 0, &args)?;
            }
            if !gk.is_null() || !gv.is_null() {
                queue.launch(&kernel("vjp_kv"), grid, THREADS, 0, &args)?;
            }
            Ok(())
        }
        Pass::Dual => crate::ops::in_turn(&op, io, queue),
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
