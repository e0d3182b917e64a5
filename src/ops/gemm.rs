//! The three matrix products of a linear map, row-major, over the `gemm` crate.
//!
//! Every product is bit-identical for any number of threads: `gemm` splits the output into tiles and never
//! the sum over k (tests/engine.rs holds it to that).
use gemm::Parallelism;
use rayon::prelude::*;

mod config;
pub mod cuda;
pub mod dual;
mod epilogue;
mod mma;
pub mod naive;
pub mod reverse;
mod shape;
mod wgmma;
pub use config::{Family, GemmConfig, Tile};
pub use epilogue::Epilogue;
pub use shape::{GemmShape, Layout};

/// Whether a product takes every thread of the pool, or the caller already runs in parallel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    All,
    One,
}

/// A row-major matrix inside a slice: element (i, j) stands at `i * rows + j * cols` (strides).
#[derive(Clone, Copy, Debug)]
pub struct Strides {
    pub row: usize,
    pub col: usize,
}

impl Strides {
    /// A matrix whose rows stand `row` elements apart.
    pub const fn rows(row: usize) -> Self {
        Self { row, col: 1 }
    }
    pub const fn transposed(self) -> Self {
        Self { row: self.col, col: self.row }
    }
    fn end(self, rows: usize, cols: usize) -> usize {
        if rows == 0 || cols == 0 { 0 } else { (rows - 1) * self.row + (cols - 1) * self.col + 1 }
    }
}

/// c[m, n] = α a[m, k] b[k, n] (+ c if `add`), each with its strides.
///
/// # Panics
/// If a slice is too short for its matrix.
#[allow(clippy::too_many_arguments)] // a BLAS call has a BLAS call's arguments
pub fn product(
    (m, n, k): (usize, usize, usize),
    alpha: f32,
    a: &[f32],
    sa: Strides,
    b: &[f32],
    sb: Strides,
    add: bool,
    c: &mut [f32],
    sc: Strides,
    threads: Threads,
) {
    assert!(
        a.len() >= sa.end(m, k) && b.len() >= sb.end(k, n) && c.len() >= sc.end(m, n),
        "a matrix outgrows its slice"
    );
    let parallelism = match threads {
        Threads::All => Parallelism::Rayon(rayon::current_num_threads()),
        Threads::One => Parallelism::None,
    };
    // SAFETY: the assertion above bounds every element that the strides reach, and c is borrowed mutably,
    // so it overlaps neither a nor b. f32 has no invalid bit patterns, so reading c is defined for any `add`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            sc.col as isize,
            sc.row as isize,
            add,
            a.as_ptr(),
            sa.col as isize,
            sa.row as isize,
            b.as_ptr(),
            sb.col as isize,
            sb.row as isize,
            1.0,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// c[m, n] (+)= a[m, k] b[k, n] with the rows dealt out to the threads, each with its own copy of b's panels: faster
/// than letting `gemm` cut tiles when a thread has rows enough to pay for the copy.
fn by_rows((m, n, k): (usize, usize, usize), a: &[f32], b: &[f32], sb: Strides, add: bool, c: &mut [f32]) {
    const FEWEST: usize = 192;
    let (sa, sc) = (Strides::rows(k), Strides::rows(n));
    let rows = m.div_ceil(rayon::current_num_threads()).next_multiple_of(16);
    if rows < FEWEST || rows >= m {
        return product((m, n, k), 1.0, a, sa, b, sb, add, c, sc, Threads::All);
    }
    c.par_chunks_mut(rows * n).zip(a.par_chunks(rows * k)).for_each(|(c, a)| {
        product((c.len() / n, n, k), 1.0, a, sa, b, sb, add, c, sc, Threads::One);
    });
}

/// y[m, n] (+)= x[m, k] w[n, k]ᵀ: a linear layer's forward.
pub fn nt((m, n, k): (usize, usize, usize), x: &[f32], w: &[f32], add: bool, y: &mut [f32]) {
    by_rows((m, n, k), x, w, Strides::rows(k).transposed(), add, y);
}

/// gx[m, k] (+)= gy[m, n] w[n, k]: the cotangent of its input.
pub fn nn((m, n, k): (usize, usize, usize), gy: &[f32], w: &[f32], add: bool, gx: &mut [f32]) {
    by_rows((m, k, n), gy, w, Strides::rows(k), add, gx);
}

/// gw[n, k] (+)= gy[m, n]ᵀ x[m, k]: the cotangent of its weight.
pub fn tn((m, n, k): (usize, usize, usize), gy: &[f32], x: &[f32], add: bool, gw: &mut [f32]) {
    let sg = Strides::rows(n).transposed();
    product((n, k, m), 1.0, gy, sg, x, Strides::rows(k), add, gw, Strides::rows(k), Threads::All);
}
