//! The sphere-constrained quadratic through the space of outputs, where there are fewer outputs than weights: the
//! metric then has a null space, so that λ_min = 0 and μ ≥ 0.
use super::{Goal, Step};
use crate::Result;
use crate::geometry::gram::Gram;
use crate::geometry::map::{Map, OutputMetric};
use crate::geometry::solve::{self, Damped, difference};
use crate::geometry::space::Space;

/// ‖ψ(μ)‖² of the ψ that [`difference`] makes: exact for the Krylov space as it is, converged or not.
fn squares(damped: &Damped, b: f64, mu: f64) -> f64 {
    // ‖b‖² − 2 cᵀ(K + μ)⁻¹c + cᵀ(K + μ)⁻¹ K (K + μ)⁻¹c, over μ².
    let part = |(theta, weight): (f64, f64)| weight * (theta / (theta + mu) - 2.0) / (theta + mu);
    (b + damped.weights().map(part).sum::<f64>()).max(0.0) / (mu * mu)
}

/// The μ with ‖ψ(μ)‖² = ε, by halving the interval of its logarithm: ‖ψ‖ falls as μ grows. `None` if not even the
/// smallest damping that the products' accuracy allows makes ψ that long: the hard case.
pub(super) fn secular(length: impl Fn(f64) -> f64, epsilon: f64, least: f64, most: f64) -> Option<f64> {
    if length(least) < epsilon {
        return None;
    }
    let (mut low, mut high) = (least.ln(), most.ln());
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if length(middle.exp()) >= epsilon { low = middle } else { high = middle }
    }
    Some((0.5 * (low + high)).exp())
}

pub(super) fn through_outputs<M: Map>(
    map: &mut M,
    w: &M::Vector,
    kind: OutputMetric,
    b: &M::Vector,
    &Goal { epsilon, accuracy, seed, .. }: &Goal,
) -> Result<Step<M::Vector>> {
    let (total, precision) = (map.dot(b, b)?, map.precision());
    let mut gram = Gram::new(map, w, kind)?;
    let c = gram.push(b)?;
    let mut damped = Damped::new(&mut gram, c)?;
    // With μ = ‖b‖ / √ε the step is at most √ε long: ‖ψ‖ ≤ ‖b‖ / μ.
    let most = (total / epsilon).sqrt();
    // What of b lies in the null space is known to the accuracy of ‖b‖² less what the outputs see of it; a smaller part
    // counts as none, and the damping that would make it long enough as 0.
    let least = most * (10.0 * precision).sqrt();
    let mut mu = Some(most);
    damped.grow(&mut gram, accuracy.products, |damped| {
        let top = damped.weights().map(|w| w.0).fold(0.0, f64::max);
        mu = secular(|mu| squares(damped, total, mu), epsilon, least, most);
        // What the residual r of the system in outputs comes to in weights: at most √θ ‖r‖ / μ.
        let at = mu.unwrap_or(least);
        let c = damped.weights().map(|w| w.1).sum::<f64>().sqrt();
        damped.residual(at) * c * top.sqrt() / at <= accuracy.tolerance * total.sqrt()
    })?;
    let at = mu.unwrap_or(least);
    let y = damped.solution(&mut gram, at)?;
    let mut psi = difference(&mut gram, b, &y, at)?;
    let mut products = damped.products();
    if mu.is_none() {
        // A vector of the null space makes up the length: a random one, filtered as a null step is.
        let mut random = gram.map().zeros()?;
        gram.map().normal(seed, 0, &mut random)?;
        let (z, more) = solve::damped(&mut gram, &random, least, accuracy)?;
        gram.map().recycle(random);
        products += more;
        lengthen(gram.map(), &mut psi, z, epsilon)?;
    }
    let mu = mu.unwrap_or(0.0);
    Ok(Step { psi, mu, squared_speed: 0.0, residual: 0.0, hard: mu == 0.0, certain: true, products })
}

/// ψ += τ z with the τ ≥ 0 for which ‖ψ‖² = ε.
pub(super) fn lengthen<S: Space>(map: &mut S, psi: &mut S::Vector, z: S::Vector, epsilon: f64) -> Result<()> {
    let (zz, pz, pp) = (map.dot(&z, &z)?, map.dot(psi, &z)?, map.dot(psi, psi)?);
    let short = (epsilon - pp).max(0.0);
    let tau = if zz > 0.0 { (-pz + (pz * pz + zz * short).sqrt()) / zz } else { 0.0 };
    map.axpy(tau, &z, psi)?;
    map.recycle(z);
    Ok(())
}
