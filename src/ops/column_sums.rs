//! The gradient of a bias on a device: the rows of a cotangent, summed; by kernels/column_sums.cu in parts, which
//! `sum_rows` adds up.
use super::sum_rows::sum_rows;
use super::{DeviceCotangent, DeviceTensor};
use crate::Result;
use crate::gpu::{Args, Dtype, Ptr, Queue};

/// As `ColumnSumsArgs` in kernels/column_sums.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ColumnSumsArgs {
    x: Ptr,
    sums: Ptr,
    rows: u64,
    columns: u64,
    rows_a_part: u64,
}
impl Args for ColumnSumsArgs {}
const _: () = assert!(size_of::<ColumnSumsArgs>() == 40);

/// Parts that the rows are summed in at most, and rows of a part at least.
const PARTS: usize = 64;
const ROWS: usize = 64;

/// (rows of a part, parts).
fn parts(rows: usize) -> (usize, usize) {
    let of_each = rows.div_ceil(PARTS).max(ROWS);
    (of_each, rows.div_ceil(of_each))
}

/// Bytes of scratch that [`column_sums`] takes.
pub fn column_sums_scratch(rows: usize, columns: usize) -> usize {
    4 * parts(rows).1 * columns
}

/// g \[columns\], f32, (+)= the sum of the rows of x.
pub fn column_sums(x: &DeviceTensor, g: &DeviceCotangent, queue: &Queue) -> Result<()> {
    let (rows, columns) = x.rows_cols();
    let (rows_a_part, parts) = parts(rows);
    let sums = queue.scratch;
    if rows * columns > 0 {
        let args = ColumnSumsArgs {
            x: x.at,
            sums,
            rows: rows as u64,
            columns: columns as u64,
            rows_a_part: rows_a_part as u64,
        };
        let grid = [columns.div_ceil(32) as u32, parts as u32];
        queue.launch(&format!("column_sums_{}", x.dtype.suffix()), grid, 256, 0, &args)?;
    }
    let shape = [parts, columns];
    sum_rows(&DeviceTensor { at: sums, dtype: Dtype::F32, shape: &shape }, parts, columns, g, queue)
}
