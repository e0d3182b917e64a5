//! What the losses share: Σ_r w_r ℓ_r over rows of scores, one constant weight w_r a row, summed in f64 in a
//! fixed order. A caller's weights say what the sum is: 1/N for N real rows makes a mean, 0 leaves padding out.
//!
//! The weights have no derivative: asked for one, a loss answers NaN, which no caller can overlook.
use super::{Cotangent, DeviceIo, DeviceTensor, Pass, rows_per_task};
use crate::gpu::{Args, Dtype, Ptr, Queue};
use crate::tensor::{View, rows_cols};
use rayon::prelude::*;

/// The shape rule's part that concerns weights (and labels): `per_row` is `scores` [.., C] without its last axis.
pub(super) fn fits(scores: &[usize], per_row: &[usize]) -> bool {
    matches!(scores, [lead @ .., _] if lead == per_row)
}

/// Σ_r w_r f(r); a row of weight 0 is not looked at.
pub(super) fn sum(weights: &View, cols: usize, f: impl Fn(usize) -> f64 + Sync) -> f32 {
    let rows = rows_per_task(cols);
    let task = |(task, weights): (usize, &[f32])| {
        let rows = weights.iter().enumerate().filter(|(_, w)| **w != 0.0);
        rows.fold(0.0, |sum, (i, w)| sum + f64::from(*w) * f(task * rows_per_task(cols) + i))
    };
    let partial: Vec<f64> = weights.data.par_chunks(rows).enumerate().map(task).collect();
    partial.iter().fold(0.0, |sum, p| sum + p) as f32
}

/// Row r of g (+)= gy w_r f(r), where f fills a row with dℓ_r/dx_r; a row of weight 0 gets zeros (or nothing).
pub(super) fn gradient(
    weights: &View,
    cols: usize,
    gy: &[f32],
    g: &mut Cotangent,
    f: impl Fn(usize, &mut [f64]) + Sync,
) {
    let (rows, add, gy) = (rows_per_task(cols), g.add, f64::from(gy[0]));
    g.data.par_chunks_mut(rows * cols).zip(weights.data.par_chunks(rows)).enumerate().for_each(
        |(task, (g, weights))| {
            let mut slope = vec![0.0; cols];
            for (i, (g, &w)) in g.chunks_mut(cols).zip(weights).enumerate() {
                if w != 0.0 {
                    f(task * rows + i, &mut slope);
                    let scaled = slope.iter().map(|v| (gy * f64::from(w) * v) as f32);
                    g.iter_mut().zip(scaled).for_each(|(g, v)| *g = if add { *g + v } else { v });
                } else if !add {
                    g.fill(0.0);
                }
            }
        },
    );
}

/// As `SumLossesArgs` in kernels/loss.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct SumLossesArgs {
    values: Ptr,
    y: Ptr,
    rows: u64,
}
impl Args for SumLossesArgs {}
const _: () = assert!(size_of::<SumLossesArgs>() == 24);

/// As `PairArgs` in kernels/loss.cuh: a loss of two rows of scores.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct PairArgs {
    z: Ptr,
    t: Ptr,
    weights: Ptr,
    dz: Ptr,
    dt: Ptr,
    gy: Ptr,
    values: Ptr,
    gz: Ptr,
    gt: Ptr,
    rows: u64,
    cols: u64,
    kind: u32,
    add_z: u32,
    add_t: u32,
    unused: u32,
}
impl Args for PairArgs {}
const _: () = assert!(size_of::<PairArgs>() == 104);

/// A value in f64 for each row of the scores, for a pass that sums.
pub(super) fn scratch(pass: Pass, scores: &[usize]) -> usize {
    if pass == Pass::Vjp { 0 } else { rows_cols(scores).0 * size_of::<f64>() }
}

/// Launch a loss's kernel: a block a row, of as many threads as have 8 columns each.
pub(super) fn launch<A: Args>(kernel: &str, scores: &DeviceTensor, args: &A, queue: &Queue) -> crate::Result<()> {
    let (rows, cols) = scores.rows_cols();
    let threads = cols.div_ceil(8).next_multiple_of(32).clamp(32, 256) as u32;
    queue.launch(&format!("{kernel}_{}", scores.dtype.suffix()), queue.blocks(rows, 1), threads, 0, args)
}

/// y = the sum of the values that a pass left in scratch, a row each.
pub(super) fn sum_values(y: &DeviceTensor, rows: usize, queue: &Queue) -> crate::Result<()> {
    let args = SumLossesArgs { values: queue.scratch, y: y.stored(Dtype::F32, "loss", "y")?, rows: rows as u64 };
    queue.launch("sum_losses", 1, 1024, 0, &args)
}

/// NaN for the cotangent of the weights, if it is asked for.
pub(super) fn no_derivative(io: &DeviceIo, queue: &Queue) -> crate::Result<()> {
    io.gx[2].as_ref().map_or(Ok(()), |g| g.to.fill(f32::NAN, queue))
}

/// The passes of a loss of scores, scores in f32 to hold them against, and weights.
pub(super) fn pair_cuda(
    op: &'static str,
    (kernel, kind): (&str, u32),
    pass: Pass,
    io: &DeviceIo,
    queue: &Queue,
) -> crate::Result<()> {
    let (z, (rows, cols)) = (&io.x[0], io.x[0].rows_cols());
    let dtypes = [z.dtype, Dtype::F32];
    let mut args = PairArgs {
        z: z.at,
        t: io.x[1].stored(Dtype::F32, op, "t")?,
        weights: io.x[2].stored(Dtype::F32, op, "weights")?,
        rows: rows as u64,
        cols: cols as u64,
        values: queue.scratch,
        kind,
        ..bytemuck::Zeroable::zeroed()
    };
    match pass {
        Pass::Forward => {
            launch(&format!("{kernel}_forward"), z, &args, queue)?;
            sum_values(&io.y, rows, queue)
        }
        Pass::Jvp => {
            let dy = io.dy()?;
            let tangent = |i: usize, name| io.dx[i].map_or(Ok(Ptr::NULL), |d| d.stored(dtypes[i], op, name));
            if io.dx[2].is_some() {
                return dy.fill(f32::NAN, queue);
            }
            (args.dz, args.dt) = (tangent(0, "dz")?, tangent(1, "dt")?);
            if args.dz.is_null() && args.dt.is_null() {
                return dy.zero(queue);
            }
            launch(&format!("{kernel}_jvp"), z, &args, queue)?;
            sum_values(&dy, rows, queue)
        }
        Pass::Vjp => {
            let cotangent = |i: usize, name| io.gx[i].map_or(Ok(Ptr::NULL), |g| g.to.stored(dtypes[i], op, name));
            let add = |i: usize| u32::from(io.gx[i].is_some_and(|g| g.add));
            (args.gz, args.gt, args.add_z, args.add_t) = (cotangent(0, "gz")?, cotangent(1, "gt")?, add(0), add(1));
            args.gy = io.dy()?.stored(Dtype::F32, op, "gy")?;
            if !args.gz.is_null() || !args.gt.is_null() {
                launch(&format!("{kernel}_vjp"), z, &args, queue)?;
            }
            no_derivative(io, queue)
        }
        Pass::Dual => {
            pair_cuda(op, (kernel, kind), Pass::Forward, io, queue)?;
            pair_cuda(op, (kernel, kind), Pass::Jvp, io, queue)
        }
    }
}
