//! Lanczos' process with full reorthogonalisation: a basis Q of a Krylov space in which a symmetric operator is the
//! tridiagonal T = Qᵀ A Q (Golub and Van Loan, "Matrix Computations", 10.1 and 10.3.4).
use super::space::Symmetric;
use super::tridiagonal::{Ritz, eigen};
use crate::{Error, Result};

/// What the process has found so far.
#[derive(Debug)]
pub struct Krylov<V> {
    /// Orthonormal, one a step.
    pub basis: Vec<V>,
    /// The diagonal of T.
    pub alpha: Vec<f64>,
    /// What couples basis vector j to j + 1; the last one couples to the vector that would come next. 0 where the space
    /// was exhausted and went on from a new direction.
    pub beta: Vec<f64>,
    next: Option<V>,
}

/// Below this share of the operator's size so far, what is left of a new direction is rounding.
const EXHAUSTED: f64 = 1e-12;

impl<V> Krylov<V> {
    /// The space of `start`, which need not be normalised; its norm comes back with it.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; what the operator's space says. A start of zeros gives a space that is already complete.
    pub fn new<A: Symmetric<Vector = V>>(op: &mut A, mut start: V) -> Result<(Self, f64)> {
        let norm = finite(op.norm(&start)?)?;
        let mut krylov = Self { basis: Vec::new(), alpha: Vec::new(), beta: Vec::new(), next: None };
        if norm > 0.0 {
            op.scale(1.0 / norm, &mut start)?;
            krylov.next = Some(start);
        }
        Ok((krylov, norm))
    }

    pub fn steps(&self) -> usize {
        self.alpha.len()
    }

    /// Whether the space holds everything that powers of the operator make of its start.
    pub fn complete(&self) -> bool {
        self.next.is_none()
    }

    /// One more basis vector and product. `precision` is the relative accuracy of the operator's products: what is left
    /// below it, after what the basis already spans is taken out, is no direction of its own.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for a product that is no number; what the operator says.
    pub fn extend<A: Symmetric<Vector = V>>(&mut self, op: &mut A, precision: f64) -> Result<()> {
        let Some(q) = self.next.take() else { return Ok(()) };
        let mut r = op.zeros()?;
        op.apply(&q, &mut r)?;
        let alpha = finite(op.dot(&q, &r)?)?;
        self.basis.push(q);
        self.alpha.push(alpha);
        self.orthogonalise(op, &mut r)?;
        let beta = finite(op.norm(&r)?)?;
        let size = self.alpha.iter().chain(&self.beta).fold(0.0f64, |m, x| m.max(x.abs()));
        if beta <= size * precision.max(EXHAUSTED) || self.steps() == op.dim() {
            self.beta.push(0.0);
            op.recycle(r);
        } else {
            self.beta.push(beta);
            op.scale(1.0 / beta, &mut r)?;
            self.next = Some(r);
        }
        Ok(())
    }

    /// Go on from a random direction outside of a complete space, if there is one: eigenvalues of several eigenvectors show
    /// once in every such part.
    ///
    /// # Errors
    /// What the operator's space says.
    pub fn restart<A: Symmetric<Vector = V>>(&mut self, op: &mut A, seed: u64) -> Result<()> {
        if !self.complete() || self.steps() >= op.dim() {
            return Ok(());
        }
        let mut r = op.zeros()?;
        op.normal(seed, self.steps() as u64, &mut r)?;
        let before = op.norm(&r)?;
        self.orthogonalise(op, &mut r)?;
        let norm = op.norm(&r)?;
        // A random direction is nowhere near a space of fewer dimensions than there are.
        if norm > 1e-6 * before {
            op.scale(1.0 / norm, &mut r)?;
            self.next = Some(r);
        }
        Ok(())
    }

    /// Take out of `r` what the basis spans; twice is enough (Parlett, "The Symmetric Eigenvalue Problem", 6.9).
    fn orthogonalise<A: Symmetric<Vector = V>>(&self, op: &mut A, r: &mut V) -> Result<()> {
        for _ in 0..2 {
            for q in &self.basis {
                let along = op.dot(q, r)?;
                op.axpy(-along, q, r)?;
            }
        }
        Ok(())
    }

    /// Eigenvalues of T, largest first, and its eigenvectors.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for a T that has no decomposition.
    pub fn ritz(&self) -> Result<Ritz> {
        eigen(&self.alpha, &self.beta[..self.steps().saturating_sub(1)])
    }

    /// What the last product left over: ‖A y − θ y‖ = |β| |s| for a Ritz vector y = Q s with last component s.
    pub fn coupling(&self) -> f64 {
        self.beta.last().copied().unwrap_or(0.0)
    }

    /// Q s.
    ///
    /// # Errors
    /// What the operator's space says.
    pub fn combine<A: Symmetric<Vector = V>>(&self, op: &mut A, s: &[f64]) -> Result<V> {
        let mut y = op.zeros()?;
        for (q, &s) in self.basis.iter().zip(s) {
            op.axpy(s, q, &mut y)?;
        }
        Ok(y)
    }

    /// Give the vectors back.
    pub fn recycle<A: Symmetric<Vector = V>>(self, op: &mut A) {
        self.basis.into_iter().chain(self.next).for_each(|v| op.recycle(v));
    }
}

fn finite(x: f64) -> Result<f64> {
    if x.is_finite() {
        return Ok(x);
    }
    Err(Error::not_finite(
        "metric",
        "a product with the metric",
        "look at the weights and the data for NaN and infinity",
    ))
}

/// Eigenvalues at one end of an operator's spectrum, with their eigenvectors.
#[derive(Debug)]
pub struct Eigenpairs<V> {
    /// Outermost first.
    pub values: Vec<f64>,
    /// ‖A y − θ y‖ as Lanczos' process bounds it, for normalised y.
    pub residuals: Vec<f64>,
    pub vectors: Vec<V>,
    /// Products with the operator.
    pub products: usize,
    /// Whether all residuals are within the tolerance, or the space is exhausted.
    pub converged: bool,
}

/// When the search for eigenpairs ends.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    pub pairs: usize,
    /// Of a residual, relative to the largest eigenvalue.
    pub tolerance: f64,
    /// The most products with the operator, and so the most vectors kept.
    pub products: usize,
    pub seed: u64,
    /// The relative accuracy of a product: 1e-6 where it is computed in f32, 1e-15 in f64.
    pub precision: f64,
}

/// The `pairs` largest eigenvalues and their vectors, from a random start. `step` hears of every product.
///
/// # Errors
/// [`Error::NotFinite`]; what the operator says.
pub fn largest<A: Symmetric>(op: &mut A, search: &Search, step: impl FnMut(usize)) -> Result<Eigenpairs<A::Vector>> {
    extreme(op, search, false, step)
}

/// The smallest ones, smallest first; the tolerance is relative to the largest all the same.
///
/// # Errors
/// As [`largest`].
pub fn smallest<A: Symmetric>(op: &mut A, search: &Search, step: impl FnMut(usize)) -> Result<Eigenpairs<A::Vector>> {
    extreme(op, search, true, step)
}

/// The process finds both ends of a spectrum at once.
fn extreme<A: Symmetric>(
    op: &mut A,
    search: &Search,
    from_below: bool,
    mut step: impl FnMut(usize),
) -> Result<Eigenpairs<A::Vector>> {
    let mut start = op.zeros()?;
    op.normal(search.seed, 0, &mut start)?;
    let (mut krylov, _) = Krylov::new(op, start)?;
    let wanted = search.pairs.min(op.dim());
    // The place among values that stand largest first.
    let nth = |steps: usize, i: usize| if from_below { steps - 1 - i } else { i };
    // The wanted values when the space was last exhausted.
    let mut before: Option<Vec<f64>> = None;
    let (ritz, converged) = loop {
        krylov.extend(op, search.precision)?;
        let steps = krylov.steps();
        step(steps);
        let over = steps >= search.products || steps == op.dim();
        // The decomposition of T is cheap, but not for nothing: not at every step.
        if !over && !krylov.complete() && (steps < wanted || !steps.is_multiple_of(5) || before.is_some()) {
            continue;
        }
        let ritz = krylov.ritz()?;
        let tolerance = search.tolerance * ritz.values.first().copied().unwrap_or(0.0).abs();
        let within = |i: usize| krylov.coupling() * ritz.last(nth(steps, i)).abs() <= tolerance;
        let converged = steps >= wanted && (0..wanted).all(within);
        if !krylov.complete() || over {
            if converged || over {
                break (ritz, converged);
            }
            continue;
        }
        // An exhausted space has each of its eigenvalues once. Another start has a second vector of those that have one; when
        // it adds none to those wanted, there is none.
        let now: Vec<f64> = (0..wanted.min(steps)).map(|i| ritz.values[nth(steps, i)]).collect();
        let same = |before: &Vec<f64>| {
            before.len() == now.len() && before.iter().zip(&now).all(|(a, b)| (a - b).abs() <= tolerance)
        };
        if now.len() == wanted && before.as_ref().is_some_and(same) {
            break (ritz, true);
        }
        before = Some(now);
        krylov.restart(op, search.seed.wrapping_add(1))?;
        if krylov.complete() {
            break (ritz, true);
        }
    };
    let products = krylov.steps();
    let found = || (0..wanted.min(products)).map(|i| nth(products, i));
    let residuals = found().map(|i| krylov.coupling() * ritz.last(i).abs()).collect();
    let vectors = found().map(|i| krylov.combine(op, ritz.vector(i))).collect::<Result<_>>()?;
    let values = found().map(|i| ritz.values[i]).collect();
    krylov.recycle(op);
    Ok(Eigenpairs { values, residuals, vectors, products, converged })
}
