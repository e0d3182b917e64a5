//! (g + μI)⁻¹ for every damping μ at once, from one Krylov space of K on the space of outputs.
//!
//! With c = (1/√N) Aᵀ J b, Woodbury's identity gives (g + μI)⁻¹ b = (b − (1/√N) Jᵀ A (K + μI)⁻¹ c) / μ (METHOD, "the
//! dual form"), and for a right-hand side that is itself pulled back, (g + μI)⁻¹ (1/√N) Jᵀ A r = (1/√N) Jᵀ A (K + μI)⁻¹ r.
//! Lanczos' process from c (or r) makes K tridiagonal, where (K + μI)⁻¹ costs nothing for any μ.
use super::gram::Gram;
use super::lanczos::Krylov;
use super::map::Map;
use super::space::plain;
use super::tridiagonal::Ritz;
use crate::{Error, Result};

/// How far a Krylov space is built.
#[derive(Clone, Copy, Debug)]
pub struct Accuracy {
    /// Of the residual ‖(K + μI) y − c‖, relative to ‖c‖.
    pub tolerance: f64,
    /// The most products with K.
    pub products: usize,
}

impl Default for Accuracy {
    fn default() -> Self {
        Self { tolerance: 1e-6, products: 200 }
    }
}

/// Products between two looks at how far a solution is.
const LOOK: usize = 5;

/// A Krylov space of K from a vector c of outputs.
#[derive(Debug)]
pub struct Damped {
    krylov: Krylov<Vec<f64>>,
    ritz: Ritz,
    /// ‖c‖.
    norm: f64,
}

impl Damped {
    /// # Errors
    /// As [`Krylov::new`].
    pub fn new<M: Map>(gram: &mut Gram<M>, c: Vec<f64>) -> Result<Self> {
        let (krylov, norm) = Krylov::new(gram, c)?;
        let ritz = krylov.ritz()?;
        Ok(Self { krylov, ritz, norm })
    }

    /// Products with K so far.
    pub fn products(&self) -> usize {
        self.krylov.steps()
    }

    /// Products with K until the space is complete, there are as many as allowed, or `done` says so, which is asked now and
    /// then: the decomposition of T behind it is cheap, but not for nothing.
    ///
    /// # Errors
    /// As [`Krylov::extend`].
    pub fn grow<M: Map>(
        &mut self,
        gram: &mut Gram<M>,
        products: usize,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        let precision = gram.map().precision();
        while !self.krylov.complete() && self.products() < products {
            self.krylov.extend(gram, precision)?;
            let last = self.krylov.complete() || self.products() == products;
            if last || self.products().is_multiple_of(LOOK) {
                self.ritz = self.krylov.ritz()?;
                if done(self) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The Ritz values θ with the share of c along each: c = Σ √ω q. Rounding can make a θ a little negative; it is 0 then.
    pub fn weights(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let weight = |i: usize| (self.norm * self.ritz.first(i)).powi(2);
        self.ritz.values.iter().enumerate().map(move |(i, &theta)| (theta.max(0.0), weight(i)))
    }

    /// Coefficients of y = (K + μI)⁻¹ c in the basis.
    fn coefficients(&self, mu: f64) -> Vec<f64> {
        let n = self.ritz.values.len();
        let mut y = vec![0.0; n];
        for (i, &theta) in self.ritz.values.iter().enumerate() {
            plain::axpy(self.norm * self.ritz.first(i) / (theta.max(0.0) + mu), self.ritz.vector(i), &mut y);
        }
        y
    }

    /// ‖(K + μI) y − c‖ / ‖c‖ as the process has it.
    pub fn residual(&self, mu: f64) -> f64 {
        let last = self.coefficients(mu).last().copied().unwrap_or(0.0);
        if self.norm == 0.0 { 0.0 } else { self.krylov.coupling() * last.abs() / self.norm }
    }

    /// y = (K + μI)⁻¹ c.
    ///
    /// # Errors
    /// What the map says.
    pub fn solution<M: Map>(&self, gram: &mut Gram<M>, mu: f64) -> Result<Vec<f64>> {
        self.krylov.combine(gram, &self.coefficients(mu))
    }
}

/// x = (g + μI)⁻¹ (1/√N) Jᵀ A r for a vector r of outputs, and the products it took.
///
/// # Errors
/// [`Error::Usage`] for a damping that is not above 0; [`Error::NotFinite`]; what the map says.
pub fn pulled_back<M: Map>(
    gram: &mut Gram<M>,
    r: Vec<f64>,
    mu: f64,
    accuracy: Accuracy,
    x: &mut M::Vector,
) -> Result<usize> {
    damping(mu)?;
    let mut damped = Damped::new(gram, r)?;
    damped.grow(gram, accuracy.products, |damped| damped.residual(mu) <= accuracy.tolerance)?;
    let y = damped.solution(gram, mu)?;
    gram.pull(&y, x)?;
    Ok(damped.products())
}

/// (g + μI)⁻¹ b, and the products it took.
///
/// # Errors
/// As [`pulled_back`].
pub fn damped<M: Map>(gram: &mut Gram<M>, b: &M::Vector, mu: f64, accuracy: Accuracy) -> Result<(M::Vector, usize)> {
    damping(mu)?;
    let c = gram.push(b)?;
    let mut space = Damped::new(gram, c)?;
    space.grow(gram, accuracy.products, |space| space.residual(mu) <= accuracy.tolerance)?;
    let y = space.solution(gram, mu)?;
    Ok((difference(gram, b, &y, mu)?, space.products()))
}

/// (b − (1/√N) Jᵀ A y) / μ.
pub(super) fn difference<M: Map>(gram: &mut Gram<M>, b: &M::Vector, y: &[f64], mu: f64) -> Result<M::Vector> {
    let mut x = gram.map().zeros()?;
    gram.pull(y, &mut x)?;
    let map = gram.map();
    map.scale(-1.0 / mu, &mut x)?;
    map.axpy(1.0 / mu, b, &mut x)?;
    Ok(x)
}

pub(super) fn damping(mu: f64) -> Result<()> {
    if mu > 0.0 && mu.is_finite() {
        return Ok(());
    }
    Err(Error::usage("--damping", format!("{mu} makes no sense"), "give a number above 0"))
}
