//! Launches of kernels/embedding.cu.
use crate::Result;
use crate::gpu::{Args, Dtype, Ptr, Queue};
use crate::ops::device::packs;
use crate::ops::{DeviceCotangent, DeviceTensor};

const NAME: &str = "embedding";

/// As `GatherArgs`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct GatherArgs {
    ids: Ptr,
    table: Ptr,
    y: Ptr,
    n: u64,
    h: u64,
    packs: u64,
}
impl Args for GatherArgs {}
const _: () = assert!(size_of::<GatherArgs>() == 48);

/// As `OrderArgs`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct OrderArgs {
    ids: Ptr,
    sorted: Ptr,
    n: u64,
}
impl Args for OrderArgs {}
const _: () = assert!(size_of::<OrderArgs>() == 24);

/// As `ScatterArgs`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ScatterArgs {
    ids: Ptr,
    sorted: Ptr,
    gy: Ptr,
    g: Ptr,
    sums: Ptr,
    n: u64,
    h: u64,
    packs: u32,
    add: u32,
}
impl Args for ScatterArgs {}
const _: () = assert!(size_of::<ScatterArgs>() == 64);

/// Sorted rows that a block sums: `ROWS` of the kernels.
const ROWS: usize = 32;

/// y = table\[ids\].
pub fn gather(ids: &DeviceTensor, table: &DeviceTensor, y: &DeviceTensor, queue: &Queue) -> Result<()> {
    let (n, h, dtype) = (ids.numel(), table.shape[1], y.dtype);
    let table = table.stored(dtype, NAME, "table")?;
    let packs = packs(dtype, h, &[table, y.at]).into();
    let args = GatherArgs { ids: ids.at, table, y: y.at, n: n as u64, h: h as u64, packs };
    queue.launch(&format!("embedding_forward_{}", dtype.suffix()), queue.blocks(n, 8), 256, 0, &args)
}

/// Bytes of the sorted positions (three words each), to a whole pack.
fn sorted_bytes(n: usize) -> usize {
    (12 * n).next_multiple_of(16)
}

/// The sorted positions, and for each block of them the sums of the runs that enter and leave it.
pub fn scratch(n: usize, h: usize) -> usize {
    sorted_bytes(n) + n.div_ceil(ROWS) * 2 * h * size_of::<f32>()
}

/// g\[ids\] (+)= gy.
pub fn scatter(ids: &DeviceTensor, gy: &DeviceTensor, g: &DeviceCotangent, queue: &Queue) -> Result<()> {
    let (n, h, dtype) = (ids.numel(), g.to.shape[1], gy.dtype);
    let to = g.to.stored(Dtype::F32, NAME, "gradient")?;
    if !g.add {
        g.to.zero(queue)?;
    }
    let (sorted, sums) = (queue.scratch, queue.scratch.offset(sorted_bytes(n)));
    let order = OrderArgs { ids: ids.at, sorted, n: n as u64 };
    queue.launch("embedding_order", queue.blocks(n, 8), 256, 0, &order)?;

    let packs = packs(dtype, h, &[gy.at, to, sums]);
    let args =
        ScatterArgs { ids: ids.at, sorted, gy: gy.at, g: to, sums, n: n as u64, h: h as u64, packs, add: g.add.into() };
    let steps = if packs == 1 { h * dtype.bytes() / 16 } else { h };
    let threads = steps.next_multiple_of(32).clamp(32, 256) as u32;
    let kernel = format!("embedding_vjp_{}", dtype.suffix());
    queue.launch(&kernel, queue.blocks(n, ROWS), threads, 0, &args)?;
    if n <= ROWS {
        return Ok(());
    }
    let grid = [queue.blocks(n, ROWS), h.div_ceil(32).clamp(1, 64) as u32];
    queue.launch("embedding_vjp_runs", grid, 256, 0, &args)
}
