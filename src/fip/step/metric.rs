//! Steps that are solved for in the metric of the batches looked at: equations 3 and 4.
//!
//! The exact step minimises ψᵀ g ψ + β ψᵀ ∇L on a sphere, with L the goal's. To the goal's gradient comes that of the distance
//! to the anchor, (2/β) ∇odist, with the distance that g is the second order of: ψᵀ g ψ + 2 ψᵀ ∇odist is twice the second-order
//! change of that distance, so that a step takes back what earlier ones let drift. A weight d of the distance in the objective
//! weighs both terms, which is a β of β/d. The null step has no L and takes back nothing.
use super::{Given, Goal, Precondition, Seen, Solved, StepKind, Stepper, Stepping, Taken};
use crate::data::Batch;
use crate::engine::{Stepped, Updated, Vector};
use crate::fip::objective::attended;
use crate::fip::observed::Drawn;
use crate::fip::runner::{Losses, Runner};
use crate::geometry::lanczos::{Search, largest};
use crate::geometry::step::{self, Goal as Sphere};
use crate::geometry::{
    Accuracy, Elementwise, Gram, Kept, Map, OnEngine, OutputMetric, Scaled, Space, diagonal, inverse_root,
};
use crate::models::{Head, Sample};
use crate::ops::Distance;
use crate::ops::distance::row;
use crate::params::Role;
use crate::{Error, Result};

/// Random combinations of rows that the diagonal of g is estimated from, and what is added to it over its mean.
const PROBES: usize = 16;
const FLOOR: f64 = 0.1;
/// Spreads a step's number over the bits of a seed: odd, near 2⁶⁴ over the golden ratio.
const STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;
/// Products that the largest eigenvalue is looked for with: it sets a scale, and need not be known well.
const SCALE: usize = 10;

/// See the module.
pub struct InMetric {
    how: Stepping,
    seen: Vec<Seen>,
    kept: Kept<(usize, Sample)>,
}

impl InMetric {
    pub fn new(how: Stepping) -> Self {
        Self { how, seen: Vec::new(), kept: Kept::default() }
    }
}

/// What takes the outputs back to the anchor: the gradient of the distance with respect to them, and its weight.
struct Restoring {
    residual: Vec<f64>,
    weight: f64,
}

/// Outputs of a step's batches and those they are held to, rows that count alone.
struct Outputs {
    width: usize,
    anchor: Vec<f64>,
}

impl Outputs {
    fn of(seen: &[Seen], head: Head, width: usize) -> Option<Self> {
        let mut anchor = Vec::new();
        for Seen { batch, anchor: logits } in seen {
            let rows = logits.as_ref()?.chunks(width).zip(attended(batch, head)).filter(|(_, counts)| *counts);
            anchor.extend(rows.flat_map(|(row, _)| row.iter().map(|&x| f64::from(x))));
        }
        Some(Self { width, anchor })
    }

    /// Mean distance of outputs z from the anchor.
    fn distance(&self, kind: Distance, z: &[f64]) -> f64 {
        let single = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let rows = z.chunks(self.width).zip(self.anchor.chunks(self.width));
        let n = (z.len() / self.width).max(1) as f64;
        rows.map(|(z, t)| row(kind, &single(z), &single(t))).sum::<f64>() / n
    }

    /// The gradient of the distance that the metric is the second order of, with respect to the outputs: of half the square
    /// for the euclidean metric, of the Kullback-Leibler divergence for Fisher's.
    fn residual(&self, kind: OutputMetric, z: &[f64]) -> Vec<f64> {
        let n = (z.len() / self.width).max(1) as f64;
        let soft = |x: &[f64]| match kind {
            OutputMetric::Euclidean => x.to_vec(),
            OutputMetric::Fisher => softmax(x),
        };
        let rows = z.chunks(self.width).zip(self.anchor.chunks(self.width));
        rows.flat_map(|(z, t)| soft(z).into_iter().zip(soft(t)).map(move |(p, q)| (p - q) / n).collect::<Vec<_>>())
            .collect()
    }
}

fn softmax(z: &[f64]) -> Vec<f64> {
    let top = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = z.iter().map(|z| (z - top).exp()).collect();
    let total: f64 = e.iter().sum();
    e.into_iter().map(|e| e / total).collect()
}

impl Stepper for InMetric {
    fn look(&mut self, _: &mut Runner, seen: Seen, _: &Given) -> Result<()> {
        self.seen.push(seen);
        Ok(())
    }

    fn step(&mut self, runner: &mut Runner, last: Seen, given: &Given) -> Result<Taken> {
        self.seen.push(last);
        let seen = std::mem::take(&mut self.seen);
        let examples = seen.iter().map(|s| s.batch.examples.len() as u64).sum();
        let (network, objective) = (runner.network.clone(), runner.objective.clone());
        let batches: Vec<Batch> = seen.iter().map(|s| s.batch.clone()).collect();
        let drawn = Drawn { network: &network, batches: &batches };
        let mut map = OnEngine::with(&mut *runner.engine, &drawn, std::mem::take(&mut self.kept))?;
        let w = given.update.w;

        let outputs = Outputs::of(&seen, network.head, map.width());
        let mut losses = Losses::default();
        let mut restoring = None;
        if let Some(outputs) = outputs.filter(|_| objective.distance > 0.0) {
            let z = map.value(&w)?;
            let distance = objective.distance * outputs.distance(objective.odist, &z);
            if !distance.is_finite() {
                let hint =
                    "the weights have run away; take shorter steps, with a smaller --lambda or a larger --refresh";
                return Err(Error::not_finite("step", "the distance to the anchor", hint));
            }
            losses = Losses { loss: distance, distance: Some(distance), labels: None };
            let residual = outputs.residual(self.how.output_metric, &z);
            restoring = Some(Restoring { residual, weight: objective.distance });
        }
        let solved = match given.length > 0.0 {
            false => Solved { largest: given.largest.unwrap_or(0.0), ..Solved::default() },
            true => self.solve(&mut map, w, restoring.as_ref(), given)?,
        };
        let updated = norms(&mut map, given)?;
        self.kept = map.keep();
        let gradient_norm = match given.goal {
            Goal::Against { norm, .. } => norm,
            Goal::Anywhere { .. } => 0.0,
        };
        Ok(Taken { losses, examples, stepped: Stepped { updated, gradient_norm }, solved: Some(solved) })
    }
}

impl InMetric {
    /// w += ψ, solved for in the coordinates that are asked for.
    fn solve(
        &self,
        map: &mut OnEngine<Drawn>,
        w: Vector,
        restoring: Option<&Restoring>,
        given: &Given,
    ) -> Result<Solved> {
        let kind = self.how.output_metric;
        if self.how.precondition == Precondition::None {
            let goal = self.goal(map, None, given)?;
            let (solved, psi) = self.sphere(map, w, goal, restoring, given)?;
            map.axpy(1.0, &psi, &mut { w })?;
            map.recycle(psi);
            return Ok(solved);
        }
        // Other combinations of rows in every step: the estimate's errors do not add up along a path.
        let seed = given.seed ^ given.update.step.wrapping_mul(STRIDE);
        let mut d = diagonal(map, &w, kind, PROBES, seed)?;
        inverse_root(map, &mut d, FLOOR)?;
        let goal = self.goal(map, Some(&d), given)?;
        let (solved, mut psi) = self.sphere(&mut Scaled::new(map, &d), w, goal, restoring, given)?;
        map.multiply(&d, &mut psi)?;
        map.axpy(1.0, &psi, &mut { w })?;
        map.recycle(psi);
        map.recycle(d);
        Ok(solved)
    }

    /// The gradient of L, or the direction to filter, in the coordinates of the step. With D, L is measured by D⁻²: against its
    /// gradient D⁻¹ ∇L lies the same straight way in the weights' own coordinates.
    fn goal(&self, map: &mut OnEngine<Drawn>, d: Option<&Vector>, given: &Given) -> Result<Vector> {
        match given.goal {
            Goal::Against { gradient, .. } => {
                let mut goal = map.copied(&gradient)?;
                if let Some(d) = d {
                    let mut inverse = map.copied(d)?;
                    map.each(&mut inverse, &mut |x| 1.0 / x)?;
                    map.multiply(&inverse, &mut goal)?;
                    map.recycle(inverse);
                }
                Ok(goal)
            }
            Goal::Anywhere { seed, stream } => {
                let mut goal = map.zeros()?;
                map.normal(seed, stream, &mut goal)?;
                Ok(goal)
            }
        }
    }

    /// ψ on the sphere, and what it is known to be.
    fn sphere<M: Map<Vector = Vector>>(
        &self,
        map: &mut M,
        w: Vector,
        mut goal: Vector,
        restoring: Option<&Restoring>,
        given: &Given,
    ) -> Result<(Solved, Vector)> {
        let how = &self.how;
        let kind = how.output_metric;
        let top = match given.largest.filter(|top| top.is_finite() && *top > 0.0) {
            Some(top) => top,
            None => {
                let (seed, precision) = (given.seed, map.precision());
                let search = Search { pairs: 1, tolerance: 1e-2, products: SCALE, seed, precision };
                let mut found = largest(&mut Gram::new(map, &w, kind)?, &search, |_| ())?;
                found.values.drain(..).next().unwrap_or(0.0)
            }
        };
        // Outputs that no weight moves have no scale: every direction is as good.
        let scale = if top > 0.0 { top } else { 1.0 };
        let against = matches!(given.goal, Goal::Against { .. });
        let length = if against { given.length * map.norm(&goal)? } else { given.length };
        let accuracy = Accuracy { tolerance: how.solve_tolerance, products: how.products };
        let step = if how.kind == StepKind::Exact && against {
            let beta = how.beta * scale / restoring.map_or(1.0, |r| r.weight);
            if let Some(Restoring { residual: u, .. }) = restoring {
                let mut back = map.zeros()?;
                map.jtu(&w, u, &mut back)?;
                map.axpy(2.0 / beta, &back, &mut goal)?;
                map.recycle(back);
            }
            let sphere = Sphere { beta, epsilon: length * length, accuracy, seed: given.seed };
            step::exact(map, &w, kind, &goal, &sphere)?
        } else {
            if against {
                map.scale(-1.0, &mut goal)?;
            }
            step::null(map, &w, kind, &goal, how.damping * scale, length * length, accuracy)?
        };
        map.recycle(goal);
        let solved = Solved {
            length,
            mu: step.mu,
            residual: step.residual,
            hard: step.hard,
            uncertain: !step.certain,
            products: step.products,
            drift: 0.5 * step.squared_speed,
            largest: top,
        };
        Ok((solved, step.psi))
    }
}

/// Of the weights after a step, as an update gives them.
fn norms(map: &mut OnEngine<Drawn>, given: &Given) -> Result<Updated> {
    let w = given.update.w;
    let away = map.copied(&w)?;
    let engine = map.engine();
    let (trained, prunable) = (0..engine.layout().range(Role::Frozen).start, engine.layout().range(Role::Prunable));
    let pruned_squares = match given.update.mask {
        Some(mask) => {
            engine.project(away, mask)?;
            engine.axpy(-1.0, w, away)?;
            engine.dot(away, away, prunable.clone())?
        }
        None => 0.0,
    };
    let (squares, prunable_squares) = (engine.dot(w, w, trained)?, engine.dot(w, w, prunable)?);
    map.recycle(away);
    Ok(Updated { squares, prunable_squares, pruned_squares, census: None })
}
