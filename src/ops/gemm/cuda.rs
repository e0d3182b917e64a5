//! The products of a linear map on a device: launches of kernels/gemm.cu and kernels/column_sums.cu.
use super::shape::{GemmConfig, GemmShape, Layout};
use crate::Result;
use crate::gpu::{Args, Dtype, Ptr, Queue};

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

/// C = Σ over the pairs of A and B (one or two), all contiguous; then the epilogue. Takes `scratch` of its shape.
pub fn product(queue: &Queue, shape: &GemmShape, pairs: &[(Ptr, Ptr)], c: Ptr, epilogue: Epilogue) -> Result<()> {
    product_as(shape.config(), queue, shape, pairs, c, epilogue)
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
    let (Some(first), Some(last)) = (pairs.first(), pairs.last()) else { return Ok(()) };
    if m * n == 0 {
        return Ok(());
    }
    let (lda, ldb) = match layout {
        Layout::Nt => (k, k),
        Layout::Nn => (k, n),
        Layout::Tn => (m, n),
    };
    let args = GemmArgs {
        a: [first.0, last.0],
        b: [first.1, last.1],
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

/// As `ColumnSumsArgs` in kernels/column_sums.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ColumnSumsArgs {
    x: Ptr,
    partial: Ptr,
    sums: Ptr,
    rows: u64,
    columns: u64,
    rows_a_part: u64,
    parts: u32,
    add: u32,
}
impl Args for ColumnSumsArgs {}
const _: () = assert!(size_of::<ColumnSumsArgs>() == 56);

/// Parts that the rows are summed in at most, and rows of a part at least.
const PARTS: usize = 64;
const ROWS: usize = 64;

fn rows_a_part(rows: usize) -> usize {
    rows.div_ceil(PARTS).max(ROWS)
}

/// Bytes of scratch that [`column_sums`] takes.
pub fn column_sums_scratch(rows: usize, columns: usize) -> usize {
    4 * rows.div_ceil(rows_a_part(rows)) * columns
}

/// sums [columns], f32, (+)= the sum of the rows of x.
pub fn column_sums(
    queue: &Queue,
    (rows, columns): (usize, usize),
    (x, dtype): (Ptr, Dtype),
    (sums, add): (Ptr, bool),
) -> Result<()> {
    if columns == 0 {
        return Ok(());
    }
    let rows_a_part = rows_a_part(rows);
    let args = ColumnSumsArgs {
        x,
        partial: queue.scratch,
        sums,
        rows: rows as u64,
        columns: columns as u64,
        rows_a_part: rows_a_part as u64,
        parts: rows.div_ceil(rows_a_part) as u32,
        add: u32::from(add),
    };
    let across = columns.div_ceil(32) as u32;
    if args.parts > 0 {
        let kernel = format!("column_sums_{}", dtype.suffix());
        queue.launch(&kernel, [across, args.parts], THREADS, 0, &args)?;
    }
    queue.launch("column_sums_finish", columns.div_ceil(THREADS as usize) as u32, THREADS, 0, &args)
}

/// As `NaiveGemmArgs` in kernels/naive.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct NaiveArgs {
    a: Ptr,
    b: Ptr,
    c: Ptr,
    bias: Ptr,
    m: u64,
    n: u64,
    k: u64,
    a_row: u64,
    a_column: u64,
    b_row: u64,
    b_column: u64,
    /// Bits: A, B, C is bf16.
    bf16: u32,
    add: u32,
}
impl Args for NaiveArgs {}
const _: () = assert!(size_of::<NaiveArgs>() == 96);

/// What [`product`] makes of one pair, an element a thread and summed in f64: its judge on the device.
pub fn naive(queue: &Queue, shape: &GemmShape, (a, b): (Ptr, Ptr), c: Ptr, epilogue: Epilogue) -> Result<()> {
    let GemmShape { layout, m, n, k, .. } = *shape;
    if m * n == 0 {
        return Ok(());
    }
    let ((a_row, a_column), (b_row, b_column)) = match layout {
        Layout::Nt => ((k, 1), (1, k)),
        Layout::Nn => ((k, 1), (n, 1)),
        Layout::Tn => ((1, m), (n, 1)),
    };
    let bit = |dtype: Dtype, at: u32| u32::from(dtype == Dtype::Bf16) << at;
    let args = NaiveArgs {
        a,
        b,
        c,
        bias: epilogue.bias,
        m: m as u64,
        n: n as u64,
        k: k as u64,
        a_row: a_row as u64,
        a_column: a_column as u64,
        b_row: b_row as u64,
        b_column: b_column as u64,
        bf16: bit(shape.a, 0) | bit(shape.b, 1) | bit(shape.c, 2),
        add: u32::from(epilogue.add),
    };
    queue.launch("gemm_naive", queue.blocks(m * n, THREADS as usize), THREADS, 0, &args)
}
