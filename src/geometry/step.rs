//! One step on the sphere ‖ψ‖² = ε: equations 3 and 4 of the paper, made well-posed (METHOD, "The step").
use super::gram::Gram;
use super::map::{Map, OutputMetric};
use super::pullback::Pullback;
use super::solve::{self, Accuracy};
use super::space::Symmetric;
use crate::{Error, Result};

mod sphere;
mod weights;

/// A step and what it is known to be.
#[derive(Debug)]
pub struct Step<V> {
    pub psi: V,
    /// The multiplier of the sphere.
    pub mu: f64,
    /// ψᵀ g ψ: twice the second-order drift.
    pub squared_speed: f64,
    /// ‖(g + μI) ψ − b‖ / ‖b‖, from a product of its own; for a null step, of the system it was filtered by.
    pub residual: f64,
    /// The hard case: b has nothing along the smallest eigenvalue, and a step of this length needs a vector of its
    /// eigenspace beside the damped solution.
    pub hard: bool,
    /// Whether μ is known to be at least −λ_min, as it must: false where the search for the smallest eigenvalue ran out of
    /// products.
    pub certain: bool,
    /// Products with the metric.
    pub products: usize,
}

/// What an exact step weighs, how long it is, and how well it is solved for.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// β: the weight of ψᵀ ∇L beside ψᵀ g ψ.
    pub beta: f64,
    /// ε = ‖ψ‖².
    pub epsilon: f64,
    pub accuracy: Accuracy,
    /// Of the random direction that the hard case may need.
    pub seed: u64,
}

/// Equation 4: the ψ that makes ψᵀ g ψ + β ψᵀ ∇L least on ‖ψ‖² = ε.
///
/// (g + μI) ψ = b = −(β/2) ∇L with the one μ ≥ −λ_min for which the length is right (Moré and Sorensen 1983; Gould, Lucidi,
/// Roma and Toint 1999), in Krylov spaces of outputs where there are fewer of those than weights, of weights elsewhere.
///
/// # Errors
/// [`Error::Usage`] for an ε that is not above 0 or a gradient of zeros; [`Error::NotFinite`]; what the map says.
pub fn exact<M: Map>(
    map: &mut M,
    w: &M::Vector,
    kind: OutputMetric,
    gradient: &M::Vector,
    goal: &Goal,
) -> Result<Step<M::Vector>> {
    let &Goal { beta, epsilon, .. } = goal;
    length(epsilon)?;
    let mut b = map.copied(gradient)?;
    map.scale(-beta / 2.0, &mut b)?;
    let squares = map.dot(&b, &b)?;
    if !squares.is_finite() {
        return Err(Error::not_finite("step", "the gradient of the goal", "look at the weights and the data"));
    }
    if squares == 0.0 {
        let hint = "without a goal any direction that leaves the outputs alone will do: take a null step";
        return Err(Error::usage("--step exact", "the goal has no gradient here", hint));
    }
    let mut step = if map.samples() * map.width() < map.dim() {
        sphere::through_outputs(map, w, kind, &b, goal)?
    } else {
        weights::through_weights(map, w, kind, &b, goal)?
    };
    (step.residual, step.squared_speed) = optimality(map, w, kind, &step.psi, step.mu, &b)?;
    map.recycle(b);
    Ok(step)
}

/// Equation 3: a direction that leaves the outputs where they are. `direction` (a random one, or that of the last step)
/// passes through (I + g/μ)⁻¹, which takes a part λ / (λ + μ) out of it along an eigenvector of value λ, and is scaled to √ε.
///
/// # Errors
/// [`Error::Usage`] for an ε or μ that is not above 0; [`Error::NotFinite`] for a direction that the filter leaves nothing
/// of; what the map says.
pub fn null<M: Map>(
    map: &mut M,
    w: &M::Vector,
    kind: OutputMetric,
    direction: &M::Vector,
    mu: f64,
    epsilon: f64,
    accuracy: Accuracy,
) -> Result<Step<M::Vector>> {
    length(epsilon)?;
    let (mut psi, products) = {
        let mut gram = Gram::new(map, w, kind)?;
        solve::damped(&mut gram, direction, mu, accuracy)?
    };
    let (residual, speed) = optimality(map, w, kind, &psi, mu, direction)?;
    let norm = map.norm(&psi)?;
    if !(norm > 0.0 && norm.is_finite()) {
        let hint = "give another --seed, or more --damping";
        return Err(Error::not_finite("step", "the length of a null direction", hint));
    }
    map.scale(epsilon.sqrt() / norm, &mut psi)?;
    // Rounding may leave a little below nothing.
    let squared_speed = (speed * epsilon / (norm * norm)).max(0.0);
    Ok(Step { psi, mu, squared_speed, residual, hard: false, certain: true, products })
}

/// ‖(g + μI) ψ − b‖ / ‖b‖, and ψᵀ g ψ.
fn optimality<M: Map>(
    map: &mut M,
    w: &M::Vector,
    kind: OutputMetric,
    psi: &M::Vector,
    mu: f64,
    b: &M::Vector,
) -> Result<(f64, f64)> {
    let mut r = map.zeros()?;
    Pullback::new(map, w, kind)?.apply(psi, &mut r)?;
    let speed = map.dot(psi, &r)?;
    map.axpy(mu, psi, &mut r)?;
    map.axpy(-1.0, b, &mut r)?;
    let residual = map.norm(&r)? / map.norm(b)?;
    map.recycle(r);
    Ok((residual, speed))
}

fn length(epsilon: f64) -> Result<()> {
    if epsilon > 0.0 && epsilon.is_finite() {
        return Ok(());
    }
    Err(Error::usage("--epsilon", format!("{epsilon} makes no sense"), "give the squared length of a step, above 0"))
}
