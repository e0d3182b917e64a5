//! The spectrum of the metric: its largest eigenvalues, all of them where there are few outputs, and their density.
//!
//! The eigenvalues of g that are not zero are those of the Gram matrix K, so that everything here runs in the smaller
//! of the two spaces (METHOD, "Spectrum").
use super::gram::Gram;
use super::lanczos::{Eigenpairs, Krylov, Search, largest};
use super::map::{Map, OutputMetric};
use super::pullback::Pullback;
use super::space::{Space, Symmetric};
use super::tridiagonal::symmetric;
use crate::{Error, Result};

pub mod marchenko_pastur;
pub mod shares;

/// Whether the space of outputs is the smaller one.
pub fn fewer_outputs<M: Map>(map: &M) -> bool {
    map.samples() * map.width() <= map.dim()
}

/// The largest eigenvalues, with residuals of the operator they were found with (K where it is the smaller one: an eigenvalue
/// is that near), and on request their eigenvectors in weight space.
///
/// # Errors
/// As [`largest`].
pub fn top<M: Map>(
    map: &mut M,
    w: &M::Vector,
    kind: OutputMetric,
    search: &Search,
    vectors: bool,
    step: impl FnMut(usize),
) -> Result<Eigenpairs<M::Vector>> {
    if !fewer_outputs(map) {
        let mut g = Pullback::new(map, w, kind)?;
        let mut found = largest(&mut g, search, step)?;
        found.values.iter_mut().for_each(|v| *v = v.max(0.0));
        if !vectors {
            found.vectors.drain(..).for_each(|v| g.recycle(v));
        }
        return Ok(found);
    }
    let mut gram = Gram::new(map, w, kind)?;
    let Eigenpairs { values, residuals, vectors: of_outputs, products, converged } = largest(&mut gram, search, step)?;
    let vectors = match vectors {
        true => of_outputs.iter().map(|x| gram.eigenvector(x)).collect::<Result<_>>()?,
        false => Vec::new(),
    };
    let values = values.into_iter().map(|v| v.max(0.0)).collect();
    Ok(Eigenpairs { values, residuals, vectors, products, converged })
}

/// The most outputs whose Gram matrix is formed.
pub const MOST_OUTPUTS: usize = 4096;

/// All eigenvalues of K, largest first: with `dim() − N m` zeros those of g, if there are fewer outputs than weights. K comes
/// from rows of (1/√N) Aᵀ J, `block` of them kept at a time.
///
/// # Errors
/// [`Error::Usage`] for more than [`MOST_OUTPUTS`] outputs; what the map says.
pub fn all<M: Map>(map: &mut M, w: &M::Vector, kind: OutputMetric, block: usize) -> Result<Vec<f64>> {
    let outputs = map.samples() * map.width();
    if outputs > MOST_OUTPUTS {
        let what = format!("{} examples with {} outputs each are {outputs} rows", map.samples(), map.width());
        let hint = format!("give at most {} examples with ?limit=, or ask for --top", MOST_OUTPUTS / map.width());
        return Err(Error::usage("--exact", what, hint));
    }
    let k = matrix(map, w, kind, block)?;
    let found = symmetric(outputs, |i, j| k[i * outputs + j])?;
    Ok(found.values.into_iter().map(|v| v.max(0.0)).collect())
}

/// K [N m, N m].
///
/// # Errors
/// What the map says.
pub fn matrix<M: Map>(map: &mut M, w: &M::Vector, kind: OutputMetric, block: usize) -> Result<Vec<f64>> {
    let outputs = map.samples() * map.width();
    let block = block.clamp(1, outputs);
    let mut gram = Gram::new(map, w, kind)?;
    let mut k = vec![0.0; outputs * outputs];
    for first in (0..outputs).step_by(block) {
        let rows = (first..outputs.min(first + block)).map(|i| gram.row(i)).collect::<Result<Vec<_>>>()?;
        // These with themselves, then with all that come after them, as few at a time.
        for second in (first..outputs).step_by(block) {
            let others = match second == first {
                true => Vec::new(),
                false => (second..outputs.min(second + block)).map(|i| gram.row(i)).collect::<Result<Vec<_>>>()?,
            };
            let columns = if second == first { &rows } else { &others };
            let dots = gram.map().inner(&rows, columns)?;
            for (i, line) in (first..).zip(dots.chunks(columns.len())) {
                for (j, &dot) in (second..).zip(line) {
                    (k[i * outputs + j], k[j * outputs + i]) = (dot, dot);
                }
            }
            others.into_iter().for_each(|row| gram.map().recycle(row));
        }
        rows.into_iter().for_each(|row| gram.map().recycle(row));
    }
    Ok(k)
}

/// A quadrature of the spectral density: eigenvalues with the number of dimensions each stands for.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Density {
    /// (eigenvalue, dimensions), of all probes; the dimensions add up to those of the space.
    pub nodes: Vec<(f64, f64)>,
    /// Dimensions of g that are zero for lack of outputs, beside the nodes.
    pub zeros: f64,
    /// Random starts, and products for each.
    pub probes: usize,
    pub products: usize,
    /// The nodes of every probe for itself: what an estimate's spread is taken from.
    #[serde(skip)]
    samples: Vec<Vec<(f64, f64)>>,
}

impl Density {
    /// How many dimensions have an eigenvalue of at least `threshold`: mean and standard error over the probes.
    pub fn at_least(&self, threshold: f64) -> (f64, f64) {
        let count = |nodes: &Vec<(f64, f64)>| nodes.iter().filter(|n| n.0 >= threshold).map(|n| n.1).sum::<f64>();
        mean_and_error(self.samples.iter().map(count))
    }

    /// Σ λ and Σ λ²: means and standard errors.
    pub fn moments(&self) -> [(f64, f64); 2] {
        [1, 2].map(|p| mean_and_error(self.samples.iter().map(|s| s.iter().map(|n| n.1 * n.0.powi(p)).sum::<f64>())))
    }
}

fn mean_and_error(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values: Vec<f64> = values.collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, (variance / n).sqrt())
}

/// The density by stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017): from each random start, the eigenvalues of T
/// weighed by the squared first components of its eigenvectors.
///
/// # Errors
/// [`Error::Usage`] for no probe; what the map says.
pub fn density<M: Map>(
    map: &mut M,
    w: &M::Vector,
    kind: OutputMetric,
    probes: usize,
    products: usize,
    seed: u64,
    mut step: impl FnMut(usize),
) -> Result<Density> {
    if probes == 0 || products == 0 {
        return Err(Error::usage("--probes", "no random start to estimate from", "give at least one"));
    }
    let (dim, outputs, precision) = (map.dim(), map.samples() * map.width(), map.precision());
    let through_outputs = fewer_outputs(map);
    let mut samples = Vec::new();
    for probe in 0..probes {
        let mut heard = |n| step(probe * products + n);
        let nodes = if through_outputs {
            quadrature(&mut Gram::new(map, w, kind)?, products, precision, (seed, probe as u64), &mut heard)?
        } else {
            quadrature(&mut Pullback::new(map, w, kind)?, products, precision, (seed, probe as u64), &mut heard)?
        };
        samples.push(nodes);
    }
    let nodes = samples.iter().flatten().map(|&(value, weight)| (value, weight / probes as f64)).collect();
    let zeros = if through_outputs { (dim - outputs) as f64 } else { 0.0 };
    Ok(Density { nodes, zeros, probes, products, samples })
}

fn quadrature<A: Symmetric>(
    op: &mut A,
    products: usize,
    precision: f64,
    (seed, stream): (u64, u64),
    step: &mut impl FnMut(usize),
) -> Result<Vec<(f64, f64)>> {
    let mut start = op.zeros()?;
    op.normal(seed, stream, &mut start)?;
    let (mut krylov, _) = Krylov::new(op, start)?;
    while !krylov.complete() && krylov.steps() < products {
        krylov.extend(op, precision)?;
        step(krylov.steps());
    }
    let ritz = krylov.ritz()?;
    krylov.recycle(op);
    let dim = op.dim() as f64;
    Ok((0..ritz.values.len()).map(|i| (ritz.values[i].max(0.0), dim * ritz.first(i).powi(2))).collect())
}

/// (Σ λ)² / Σ λ²: how many equal eigenvalues would have this sum and this sum of squares.
pub fn participation(values: &[f64]) -> f64 {
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(s, q), v| (s + v, q + v * v));
    if squares > 0.0 { sum * sum / squares } else { 0.0 }
}

/// exp of the entropy of λ / Σ λ: the effective rank of Roy and Vetterli 2007.
pub fn effective_rank(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().sum();
    let entropy = values.iter().filter(|v| **v > 0.0).map(|v| -(v / sum) * (v / sum).ln()).sum::<f64>();
    if sum > 0.0 { entropy.exp() } else { 0.0 }
}
