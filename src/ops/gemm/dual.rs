//! A linear map and its tangent in one launch: y = x Wᵀ and dy = dx Wᵀ + x dWᵀ, by the kernels `gemm_dual_nt_*` of
//! kernels/gemm_mma_*.cu.
use super::cuda::{GemmArgs, add_up, arguments};
use super::{Epilogue, Family, GemmConfig, GemmShape, Layout, Tile, mma, wgmma};
use crate::gpu::{Abilities, Args, Dtype, Ptr, Queue};
use crate::ops::DeviceTensor;
use crate::{Error, Result};

/// As `GemmDualArgs` in kernels/gemm_mma.cuh.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct DualArgs {
    y: GemmArgs,
    dy: GemmArgs,
}
impl Args for DualArgs {}
const _: () = assert!(size_of::<DualArgs>() == 304);

/// What a dual product makes: where it lies, of which dtype, and what is done to it on its way.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub at: Ptr,
    pub dtype: Dtype,
    pub epilogue: Epilogue,
}

/// The kernels that there are for operands of this dtype, in one part.
pub fn configs(operands: Dtype) -> Vec<GemmConfig> {
    mma::of_duals(operands)
}

/// Bytes of scratch that a dual product of this size takes at most, whatever its operands are stored in.
pub fn scratch((m, n, k): (usize, usize, usize)) -> usize {
    let bytes = [Dtype::F32, Dtype::Bf16].map(|dtype| {
        let shape = GemmShape { layout: Layout::Nt, m, n, k, pairs: 1, a: dtype, b: dtype, c: dtype };
        if shape.fits_mma(true) { scratch_of(shape.mma_dual(), &shape) } else { 0 }
    });
    bytes.into_iter().max().unwrap_or(0)
}

/// Bytes of the parts of both sums.
pub fn scratch_of(config: GemmConfig, shape: &GemmShape) -> usize {
    2 * config.scratch(shape)
}

/// y [m, n] = x [m, k] W [n, k]ᵀ, and its tangent from dx and dW; then the epilogue of each, that of dy after that of y,
/// so that dy's `slope` may be what y's stores (`pre`, or y itself). Whether it was done: not where these kernels are not
/// the device's choice, or bases are not aligned to 16 bytes. The queue's scratch has room for [`scratch`].
///
/// # Errors
/// [`Error::Graph`] for a tangent of another dtype than what it belongs to; what the device says.
pub fn dual(
    queue: &Queue,
    (m, n, k): (usize, usize, usize),
    (x, w): (DeviceTensor, DeviceTensor),
    (dx, dw): (DeviceTensor, DeviceTensor),
    y: Output,
    dy: Output,
) -> Result<bool> {
    let tangents = (dx.stored(x.dtype, "gemm", "dx")?, dw.stored(w.dtype, "gemm", "dW")?);
    let shape = GemmShape { layout: Layout::Nt, m, n, k, pairs: 1, a: x.dtype, b: w.dtype, c: y.dtype };
    let operands = [(x.at, w.at), tangents];
    if !chosen(&shape, queue.device.abilities(), queue.tf32) || !mma::aligned(&operands) {
        return Ok(false);
    }
    dual_as(shape.mma_dual(), queue, &shape, operands, y, dy)?;
    Ok(true)
}

/// Whether the product alone would be done by `mma.sync`; or by `wgmma`, but in too few tiles to fill the device: one
/// launch that brings x and W once is then worth more than the faster instruction. On paper, not measured.
fn chosen(shape: &GemmShape, abilities: Abilities, tf32: bool) -> bool {
    match shape.family(abilities, tf32) {
        Family::Mma => true,
        Family::Wgmma => shape.fits_mma(tf32) && wgmma::leaves_idle(shape),
        Family::Simt => false,
    }
}

/// The same in a way of one's own: y's operands, then their tangents.
///
/// # Errors
/// [`Error::Graph`] for what these kernels do not take.
pub fn dual_as(
    config: GemmConfig,
    queue: &Queue,
    shape: &GemmShape,
    operands: [(Ptr, Ptr); 2],
    y: Output,
    dy: Output,
) -> Result<()> {
    let refuse = |what: &str| Err(Error::Graph { op: "gemm", place: format!("{shape}, dual"), what: what.into() });
    if shape.layout != Layout::Nt || shape.pairs != 1 {
        return refuse("there are dual products of nt and one pair alone");
    }
    if !shape.fits_mma(true) || !mma::aligned(&operands) {
        return refuse("tensor cores want two bf16 or two f32, rows of whole 16 bytes and bases aligned to them");
    }
    [&y, &dy].into_iter().try_for_each(|output| output.epilogue.check(shape))?;
    let of = |output: &Output, pair: (Ptr, Ptr), scratch: Ptr| {
        let shape = GemmShape { c: output.dtype, ..*shape };
        arguments(config, &Queue { scratch, ..*queue }, &shape, &[pair], output.at, &output.epilogue)
    };
    let behind = queue.scratch.offset(config.scratch(shape));
    let args = DualArgs { y: of(&y, operands[0], queue.scratch), dy: of(&dy, operands[1], behind) };
    let Tile { rows, columns, .. } = config.tile;
    let kernel = format!("gemm_dual_nt_{rows}x{columns}_{}", mma::operands(shape.a));
    let (threads, shared) = (mma::threads(config.tile, true), mma::shared(config, shape.a, true));
    queue.launch(&kernel, [shape.tiles(config.tile) as u32, config.split as u32], threads, shared, &args)?;
    add_up(queue, &args.y)?;
    add_up(queue, &args.dy)
}
