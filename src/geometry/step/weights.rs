//! The sphere-constrained quadratic through weight space, where there are fewer weights than outputs: the generalised
//! Lanczos trust-region method (Gould, Lucidi, Roma and Toint 1999) on the boundary of the region.
use super::sphere::{lengthen, secular};
use super::{Goal, Step};
use crate::Result;
use crate::geometry::lanczos::{Krylov, Search, smallest};
use crate::geometry::map::{Map, OutputMetric};
use crate::geometry::pullback::Pullback;
use crate::geometry::space::{Space, plain};
use crate::geometry::tridiagonal::Ritz;

/// How many times as many products a second search for the smallest eigenvalue may take.
const MORE: usize = 4;

/// (T + μI)⁻¹ ‖b‖ e₁ from the eigenpairs of T, with μ = s − `lowest`: a small s is not lost beside it. Values at or below
/// the lowest one are left out where s is 0.
fn coefficients(ritz: &Ritz, norm: f64, lowest: f64, s: f64) -> Vec<f64> {
    let mut h = vec![0.0; ritz.values.len()];
    for (i, theta) in ritz.values.iter().enumerate() {
        let shifted = theta - lowest + s;
        if shifted > 0.0 {
            plain::axpy(norm * ritz.first(i) / shifted, ritz.vector(i), &mut h);
        }
    }
    h
}

pub(super) fn through_weights<M: Map>(
    map: &mut M,
    w: &M::Vector,
    kind: OutputMetric,
    b: &M::Vector,
    &Goal { epsilon, accuracy, seed, .. }: &Goal,
) -> Result<Step<M::Vector>> {
    let precision = map.precision();
    let start = map.copied(b)?;
    let mut g = Pullback::new(map, w, kind)?;
    let (mut krylov, norm) = Krylov::new(&mut g, start)?;
    // With a shift s = μ + θ_min of ‖b‖ / √ε the step is at most √ε long; with one near 0 it is as long as one likes,
    // since T couples all of its space to b.
    let most = norm / epsilon.sqrt();
    let least = most * f64::MIN_POSITIVE.sqrt();
    let (mut mu, mut h, mut ritz) = (most, Vec::new(), krylov.ritz()?);
    while !krylov.complete() && krylov.steps() < accuracy.products {
        krylov.extend(&mut g, precision)?;
        ritz = krylov.ritz()?;
        let smallest = ritz.values.last().copied().unwrap_or(0.0);
        let part = |i: usize, s: f64| (norm * ritz.first(i) / (ritz.values[i] - smallest + s)).powi(2);
        let length = |s: f64| (0..ritz.values.len()).map(|i| part(i, s)).sum();
        let s = secular(length, epsilon, least, most).unwrap_or(least);
        mu = s - smallest;
        h = coefficients(&ritz, norm, smallest, s);
        if krylov.coupling() * h.last().copied().unwrap_or(0.0).abs() <= accuracy.tolerance * norm {
            break;
        }
    }
    let (mut products, mut hard, mut certain) = (krylov.steps(), None, true);
    // A Krylov space from b knows the eigenvalues that b has a part along; with μ ≥ 0 the others do not matter.
    if mu < 0.0 {
        let search = Search { pairs: 1, tolerance: accuracy.tolerance, products: accuracy.products, seed, precision };
        let mut found = smallest(&mut g, &search, |_| ())?;
        products += found.products;
        if !found.converged {
            // Too high an estimate misses the hard case: there are few weights here, and another try is cheap.
            found.vectors.drain(..).for_each(|v| g.recycle(v));
            let products_more = MORE * search.products;
            found = smallest(&mut g, &Search { products: products_more, ..search }, |_| ())?;
            products += found.products;
        }
        certain = found.converged;
        let lowest = found.values.first().copied().unwrap_or(0.0);
        // By more than the products' rounding.
        if mu + lowest < -precision * ritz.values.first().copied().unwrap_or(0.0) {
            mu = -lowest;
            h = coefficients(&ritz, norm, lowest, 0.0);
            hard = found.vectors.pop();
        }
        found.vectors.into_iter().for_each(|v| g.recycle(v));
    }
    let mut psi = krylov.combine(&mut g, &h)?;
    krylov.recycle(&mut g);
    let is_hard = hard.is_some();
    if let Some(z) = hard {
        lengthen(&mut g, &mut psi, z, epsilon)?;
    }
    Ok(Step { psi, mu, squared_speed: 0.0, residual: 0.0, hard: is_hard, certain, products })
}
