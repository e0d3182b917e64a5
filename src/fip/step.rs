//! A step along a path: one interface, whatever the step is solved by (METHOD, "The step: equations 3 and 4").
//!
//! | kind | what moves w |
//! |---|---|
//! | [`StepKind::Gradient`] | the optimizer, on the gradient of the objective, with the pull in the update: the paper's algorithms |
//! | [`StepKind::Exact`] | equation 4: the ψ of a given length with the least ψᵀ g ψ + β ψᵀ ∇L |
//! | [`StepKind::Null`] | equation 3: where L points, without what the outputs feel of it |
//!
//! A run shows a [`Stepper`] its batches one by one and asks for the step with the last. Whatever walks through weight space
//! with the outputs held in place can: L is whatever has a gradient, or nothing at all ([`Goal::Anywhere`]).
use super::runner::{Losses, Runner};
use crate::data::Batch;
use crate::engine::{Clip, Stepped, Update, Vector};
use crate::geometry::OutputMetric;
use crate::ops::Distance;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

mod gradient;
mod metric;
pub use gradient::Gradient;
pub use metric::InMetric;

/// What a step is solved by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    #[default]
    Gradient,
    Exact,
    Null,
}

impl StepKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gradient => "gradient",
            Self::Exact => "exact",
            Self::Null => "null",
        }
    }
}

/// In what coordinates the metric is solved with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precondition {
    #[default]
    None,
    /// Weights scaled by the root of the metric's diagonal; lengths are measured there too.
    Diagonal,
}

/// How the steps of a path are taken. All but `kind` are of steps in the metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stepping {
    pub kind: StepKind,
    pub output_metric: OutputMetric,
    /// Batches that the metric is a mean over, drawn anew for every step.
    pub metric_batches: u64,
    /// Of the exact step: β over the metric's largest eigenvalue, where the distance has a weight of 1.
    pub beta: f64,
    /// Of the null step: μ over the metric's largest eigenvalue.
    pub damping: f64,
    /// The most products with the metric in a step.
    pub products: usize,
    /// Of the residual that a solution in the metric may leave, relative to its right-hand side.
    pub solve_tolerance: f64,
    pub precondition: Precondition,
}

impl Default for Stepping {
    fn default() -> Self {
        Self {
            kind: StepKind::Gradient,
            output_metric: OutputMetric::Fisher,
            metric_batches: 1,
            beta: 0.01,
            damping: 0.01,
            products: 100,
            solve_tolerance: 1e-3,
            precondition: Precondition::None,
        }
    }
}

impl Stepping {
    /// The stepper of this kind.
    pub fn stepper(&self) -> Box<dyn Stepper> {
        match self.kind {
            StepKind::Gradient => Box::new(Gradient::default()),
            StepKind::Exact | StepKind::Null => Box::new(InMetric::new(self.clone())),
        }
    }

    /// The metric that a distance of outputs has as its second order, up to a factor.
    pub const fn metric_of(distance: Distance) -> OutputMetric {
        match distance {
            Distance::Euclidean => OutputMetric::Euclidean,
            Distance::Kl | Distance::Bhattacharyya | Distance::Hellinger => OutputMetric::Fisher,
        }
    }

    /// Whether steps are solved for in the metric.
    pub fn in_metric(&self) -> bool {
        self.kind != StepKind::Gradient
    }

    /// # Errors
    /// [`Error::Usage`] naming the first setting that makes no sense.
    pub fn check(&self) -> Result<()> {
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let rules = [
            ("--metric-batches", self.metric_batches > 0, self.metric_batches.to_string(), "at least 1"),
            ("--beta", positive(self.beta), self.beta.to_string(), "a number above 0"),
            ("--damping", positive(self.damping), self.damping.to_string(), "a number above 0"),
            ("--products", self.products > 0, self.products.to_string(), "at least 1"),
            (
                "--solve-tolerance",
                positive(self.solve_tolerance) && self.solve_tolerance < 1.0,
                self.solve_tolerance.to_string(),
                "a number between 0 and 1",
            ),
        ];
        match rules.into_iter().find(|r| !r.1) {
            None => Ok(()),
            Some((flag, _, got, wanted)) => {
                Err(Error::usage(flag, format!("{got} makes no sense"), format!("give {wanted}")))
            }
        }
    }
}

/// A batch as a step looks at it.
pub struct Seen {
    pub batch: Batch,
    /// The logits that its outputs are held to [rows, outputs], where the objective has a distance.
    pub anchor: Option<Vec<f32>>,
}

/// Where a step in the metric leads.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// Against this gradient ∇L, whose norm is given.
    Against { gradient: Vector, norm: f64 },
    /// L = 0: the direction of a seed.
    Anywhere { seed: u64, stream: u64 },
}

/// What is known where a step is taken.
pub struct Given<'a> {
    /// The weights that move, what is pruned, and the optimizer's update for a step of the gradient.
    pub update: &'a Update,
    pub clip: &'a Clip,
    pub goal: Goal,
    /// ‖ψ‖, of a step in the metric; over ‖∇L‖ where there is a goal. 0 for no step at all.
    pub length: f64,
    /// The metric's largest eigenvalue where it was looked at before and may be used again.
    pub largest: Option<f64>,
    pub seed: u64,
}

/// What a step in the metric was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Solved {
    /// ‖ψ‖, in the coordinates that it was solved in.
    pub length: f64,
    /// The multiplier of the sphere, or the damping.
    pub mu: f64,
    /// ‖(g + μI) ψ − b‖ / ‖b‖, from a product of its own.
    pub residual: f64,
    /// The hard case of equation 4.
    pub hard: bool,
    /// Whether the products did not suffice to tell the metric's smallest eigenvalue: ψ may be no minimum.
    pub uncertain: bool,
    /// Products with the metric, those for its largest eigenvalue and its diagonal left out.
    pub products: usize,
    /// ½ ψᵀ g ψ: the drift of the outputs by this step, to second order.
    pub drift: f64,
    /// The metric's largest eigenvalue.
    pub largest: f64,
}

/// What a step came to.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    pub losses: Losses,
    pub examples: u64,
    /// Norms of the weights after it, and the norm of the gradient.
    pub stepped: Stepped,
    pub solved: Option<Solved>,
}

/// Takes steps. What it keeps between two of them changes none of their numbers, so a checkpoint needs nothing of it.
pub trait Stepper {
    /// Look at a batch of the next step that is not its last.
    ///
    /// # Errors
    /// What runner and engine say; the step is worth nothing then.
    fn look(&mut self, runner: &mut Runner, seen: Seen, given: &Given) -> Result<()>;

    /// Look at the last batch, and move the weights.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; what runner and engine say. The weights are worth nothing then.
    fn step(&mut self, runner: &mut Runner, last: Seen, given: &Given) -> Result<Taken>;
}
