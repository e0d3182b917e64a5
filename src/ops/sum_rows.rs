//! Sums over a leading axis on a device: what two-stage sums end in, and the gradient of what was broadcast.
use super::device::packs;
use super::{DeviceCotangent, DeviceTensor};
use crate::Result;
use crate::gpu::{Args, Dtype, Ptr, Queue};

/// As `SumRowsArgs` in kernels/sum_rows.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct SumRowsArgs {
    x: Ptr,
    y: Ptr,
    rows: u64,
    cols: u64,
    packs: u32,
    add: u32,
}
impl Args for SumRowsArgs {}
const _: () = assert!(size_of::<SumRowsArgs>() == 40);

/// Below this many columns packs would leave most of a device idle.
const MANY: usize = 32_768;

/// g (+)= Σ_r x[r], x being `rows` rows of `cols`, and g the first `cols` elements of a gradient in f32.
pub(super) fn sum_rows(x: &DeviceTensor, rows: usize, cols: usize, g: &DeviceCotangent, queue: &Queue) -> Result<()> {
    let y = g.to.stored(Dtype::F32, "sum_rows", "gradient")?;
    let packs = if cols >= MANY { packs(x.dtype, cols, &[x.at]) } else { 0 };
    let columns = if packs == 1 { 32 * 16 / x.dtype.bytes() } else { 32 };
    let args = SumRowsArgs { x: x.at, y, rows: rows as u64, cols: cols as u64, packs, add: g.add.into() };
    queue.launch(&format!("sum_rows_{}", x.dtype.suffix()), queue.blocks(cols, columns), 512, 0, &args)
}
