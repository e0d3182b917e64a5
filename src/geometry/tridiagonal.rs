//! Eigenvalues of small symmetric matrices in f64.
use crate::{Error, Result};
use faer::{Mat, Side};

/// Eigenvalues of a tridiagonal matrix, largest first, with its orthonormal eigenvectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Ritz {
    pub values: Vec<f64>,
    /// One after the other, in the order of the values.
    vectors: Vec<f64>,
}

impl Ritz {
    pub fn vector(&self, i: usize) -> &[f64] {
        let n = self.values.len();
        &self.vectors[i * n..(i + 1) * n]
    }
    /// The first component: its square is the weight of this value in a quadrature from the start.
    pub fn first(&self, i: usize) -> f64 {
        self.vectors[i * self.values.len()]
    }
    /// The last component.
    pub fn last(&self, i: usize) -> f64 {
        self.vectors[(i + 1) * self.values.len() - 1]
    }
}

/// Of the tridiagonal matrix with this diagonal and these numbers beside it.
///
/// # Errors
/// [`Error::NotFinite`].
pub fn eigen(diagonal: &[f64], beside: &[f64]) -> Result<Ritz> {
    let n = diagonal.len();
    symmetric(n, |i, j| match i.abs_diff(j) {
        0 => diagonal[i],
        1 => beside[i.min(j)],
        _ => 0.0,
    })
}

/// Of the symmetric matrix [n, n] with these entries, of which the lower half is read.
///
/// # Errors
/// [`Error::NotFinite`] for entries that have no decomposition.
pub fn symmetric(n: usize, entry: impl Fn(usize, usize) -> f64) -> Result<Ritz> {
    if n == 0 {
        return Ok(Ritz { values: Vec::new(), vectors: Vec::new() });
    }
    let found = Mat::from_fn(n, n, entry).self_adjoint_eigen(Side::Lower);
    let wrong = || Error::not_finite("metric", "the matrix of a Krylov space", "look at the weights and the data");
    let found = found.map_err(|_| wrong())?;
    let (values, vectors) = (found.S().column_vector(), found.U());
    // They come smallest first.
    let values: Vec<f64> = (0..n).rev().map(|i| values[i]).collect();
    if values.iter().any(|v| !v.is_finite()) {
        return Err(wrong());
    }
    let vectors = (0..n).rev().flat_map(|j| (0..n).map(move |i| vectors[(i, j)])).collect();
    Ok(Ritz { values, vectors })
}
