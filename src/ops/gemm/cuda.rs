//! Matrix products on a device: launches of kernels/gemm.cu and kernels/gemm_mma_*.cu, and the way to those of wgmma.rs.
pub use super::dual::dual;
use super::{Epilogue, Family, GemmConfig, GemmShape, Layout, Tile, mma, wgmma};
use crate::gpu::{Abilities, Args, Ptr, Queue};
use crate::ops::DeviceTensor;
use crate::{Error, Result};

/// As `GemmArgs` in kernels/gemm.cuh.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct GemmArgs {
    pub(super) a: [Ptr; 2],
    pub(super) b: [Ptr; 2],
    c: Ptr,
    bias: Ptr,
    residual: Ptr,
    slope: Ptr,
    pre: Ptr,
    bias_gradient: Ptr,
    partial: Ptr,
    m: u64,
    n: u64,
    k: u64,
    lda: u64,
    ldb: u64,
    ldc: u64,
    pairs: u32,
    split: u32,
    epilogue: u32,
    alpha: f32,
}
impl Args for GemmArgs {}
const _: () = assert!(size_of::<GemmArgs>() == 152);

/// C [m, n] = Σ over the pairs of A and B, none to two, all contiguous; then the epilogue. The queue's scratch has room
/// for a product of this layout, size and number of pairs.
pub fn product(
    queue: &Queue,
    layout: Layout,
    (m, n, k): (usize, usize, usize),
    pairs: &[(DeviceTensor, DeviceTensor)],
    c: &DeviceTensor,
    epilogue: Epilogue,
) -> Result<()> {
    let (a, b) = pairs.first().map_or((c.dtype, c.dtype), |(a, b)| (a.dtype, b.dtype));
    let stored = |(of_a, of_b): &(DeviceTensor, DeviceTensor)| {
        Ok((of_a.stored(a, "gemm", "another A")?, of_b.stored(b, "gemm", "another B")?))
    };
    let operands = pairs.iter().map(stored).collect::<Result<Vec<_>>>()?;
    let shape = GemmShape { layout, m, n, k, pairs: pairs.len(), a, b, c: c.dtype };
    let on = queue.device.abilities();
    let mut config = shape.config(on, queue.tf32);
    if config.family == Family::Wgmma && !wgmma::aligned(&operands) {
        config = shape.config(Abilities { sm_90a: false, ..on }, queue.tf32);
    }
    if config.family == Family::Mma && !mma::aligned(&operands) {
        config = shape.simt();
    }
    product_as(config, queue, &shape, &operands, c.at, epilogue)
}

/// The same in a way of one's own.
///
/// # Errors
/// [`Error::Graph`] for a bias's gradient of another layout than [`Layout::Tn`], a slope without its activation, or
/// operands that the family does not take.
pub fn product_as(
    config: GemmConfig,
    queue: &Queue,
    shape: &GemmShape,
    pairs: &[(Ptr, Ptr)],
    c: Ptr,
    epilogue: Epilogue,
) -> Result<()> {
    epilogue.check(shape)?;
    if shape.m * shape.n == 0 {
        return Ok(());
    }
    let args = arguments(config, queue, shape, pairs, c, &epilogue);
    match config.family {
        Family::Simt => {
            let (a, b) = (shape.a.suffix(), shape.b.suffix());
            let kernel = format!("gemm_{}_{}x{}_{a}_{b}", shape.layout.name(), config.tile.rows, config.tile.columns);
            queue.launch(&kernel, [shape.tiles(config.tile) as u32, args.split], 256, 0, &args)?;
        }
        Family::Mma => {
            if !shape.fits_mma(true) || !mma::aligned(pairs) {
                let what = "mma wants two bf16 or two f32, rows of whole 16 bytes and bases aligned to them";
                return Err(Error::Graph { op: "gemm", place: shape.to_string(), what: what.into() });
            }
            let Tile { rows, columns, .. } = config.tile;
            let kernel = format!("gemm_mma_{}_{rows}x{columns}_{}", shape.layout.name(), mma::operands(shape.a));
            let (threads, shared) = (mma::threads(config.tile, false), mma::shared(config, shape.a, false));
            queue.launch(&kernel, [shape.tiles(config.tile) as u32, args.split], threads, shared, &args)?;
        }
        Family::Wgmma => wgmma::launch(queue, &config, shape, args)?,
    }
    add_up(queue, &args)
}

pub(super) fn arguments(
    config: GemmConfig,
    queue: &Queue,
    shape: &GemmShape,
    pairs: &[(Ptr, Ptr)],
    c: Ptr,
    epilogue: &Epilogue,
) -> GemmArgs {
    let GemmShape { layout, m, n, k, .. } = *shape;
    let none = (Ptr::NULL, Ptr::NULL);
    let first = pairs.first().copied().unwrap_or(none);
    let second = pairs.get(1).copied().unwrap_or(none);
    let (lda, ldb) = match layout {
        Layout::Nt => (k, k),
        Layout::Nn => (k, n),
        Layout::Tn => (m, n),
    };
    GemmArgs {
        a: [first.0, second.0],
        b: [first.1, second.1],
        c,
        bias: epilogue.bias,
        residual: epilogue.residual,
        slope: epilogue.slope,
        pre: epilogue.pre,
        bias_gradient: epilogue.bias_gradient,
        partial: queue.scratch,
        m: m as u64,
        n: n as u64,
        k: k as u64,
        lda: lda as u64,
        ldb: ldb as u64,
        ldc: n as u64,
        pairs: pairs.len() as u32,
        split: config.split as u32,
        epilogue: epilogue.bits(shape.c),
        alpha: 1.0,
    }
}

/// The parts of a sum that was split, in their order, and the epilogue; whatever kernel left them in scratch.
pub(super) fn add_up(queue: &Queue, args: &GemmArgs) -> Result<()> {
    match args.split {
        1 => Ok(()),
        _ => queue.launch("gemm_split_sum", queue.blocks((args.m * args.n) as usize, 256), 256, 0, args),
    }
}
