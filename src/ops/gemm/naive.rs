//! The judge of matrix products on a device: kernels/naive.cu.
use super::{Epilogue, GemmShape, Layout};
use crate::Result;
use crate::gpu::{Args, Dtype, Ptr, Queue};

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

/// What [`super::cuda::product_as`] makes of one pair, an element a thread and summed in f64: its judge on the device. Of the
/// epilogue it has the bias and the adding.
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
    queue.launch("gemm_naive", queue.blocks(m * n, 256), 256, 0, &args)
}
