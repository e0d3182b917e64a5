//! Matrix products on a device: launches of kernels/gemm.cu.
use super::shape::{GemmConfig, GemmShape, Layout};
use crate::Result;
use crate::gpu::{Args, Dtype, Ptr, Queue};
use crate::ops::DeviceTensor;

/// As `GemmArgs` in kernels/gemm.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct GemmArgs {
    a: [Ptr; 2],
    b: [Ptr; 2],
    c: Ptr,
    bias: Ptr,
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
const _: () = assert!(size_of::<GemmArgs>() == 120);

const THREADS: u32 = 256;

/// What is done to a product before it is stored; the bits are those of `epilogue` in kernels/gemm.cu.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue {
    /// f32, one a column; [`Ptr::NULL`] for none.
    pub bias: Ptr,
    /// Whether C is added to.
    pub add: bool,
}

impl Epilogue {
    pub const NONE: Self = Self { bias: Ptr::NULL, add: false };

    fn bits(self, c: Dtype) -> u32 {
        u32::from(self.add) | u32::from(!self.bias.is_null()) << 1 | u32::from(c == Dtype::Bf16) << 2
    }
}

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
    product_as(shape.config(), queue, &shape, &operands, c.at, epilogue)
}

/// The same in a way of one's own.
pub fn product_as(
    config: GemmConfig,
    queue: &Queue,
    shape: &GemmShape,
    pairs: &[(Ptr, Ptr)],
    c: Ptr,
    epilogue: Epilogue,
) -> Result<()> {
    let GemmShape { layout, m, n, k, .. } = *shape;
    if m * n == 0 {
        return Ok(());
    }
    let none = (Ptr::NULL, Ptr::NULL);
    let first = pairs.first().copied().unwrap_or(none);
    let second = pairs.get(1).copied().unwrap_or(none);
    let (lda, ldb) = match layout {
        Layout::Nt => (k, k),
        Layout::Nn => (k, n),
        Layout::Tn => (m, n),
    };
    let args = GemmArgs {
        a: [first.0, second.0],
        b: [first.1, second.1],
        c,
        bias: epilogue.bias,
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
    };
    let (a, b) = (shape.a.suffix(), shape.b.suffix());
    let kernel = format!("gemm_{}_{}x{}_{a}_{b}", layout.name(), config.tile.rows, config.tile.columns);
    queue.launch(&kernel, [shape.tiles(config.tile) as u32, args.split], THREADS, 0, &args)?;
    match config.split {
        1 => Ok(()),
        _ => queue.launch("gemm_split_sum", queue.blocks(m * n, THREADS as usize), THREADS, 0, &args),
    }
}
