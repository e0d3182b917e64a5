//! A run as data: what is minimised, how the path to the sparse subspace goes, and the presets.
use super::schedule::{Decay, Ramp};
use super::step::{StepKind, Stepping};
use crate::engine::{Optimizer, Pattern};
use crate::ops::Distance;
use crate::params::Roles;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// What a run does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Supervised training; nothing is pruned.
    Train,
    /// A functionally invariant path (METHOD, algorithm 2).
    #[default]
    Fip,
    /// Gradual magnitude pruning with labels (Zhu and Gupta 2017): pruned weights are zero at once and stay so.
    Gradual,
    /// The smallest magnitudes set to zero, no step taken.
    OneShot,
    /// Random weights set to zero, no step taken.
    Random,
}

/// What the outputs are held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anchor {
    /// f(x; w_t), the network as it was given.
    #[default]
    Dense,
    /// f(x; w_p), the present projection: the listing as printed.
    Projected,
}

/// What batch norms normalise by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNorms {
    /// The running averages that the network came with.
    #[default]
    Frozen,
    /// The same in steps; estimated anew on the training data for every network that is evaluated, the last one included.
    Reestimated,
    /// Each batch's own in steps, which the running averages follow: training.
    Running,
}

/// The pull on the pruned coordinates (METHOD, algorithm 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullKind {
    /// λ ∇‖w − w_p‖₂: the paper's.
    L2,
    /// λ (w − w_p).
    #[serde(rename = "l2sq")]
    L2Sq,
    /// Decoupled from the optimizer: each step brings a pruned weight nearer to zero by λ τ / h, with τ the
    /// threshold and h the steps to the next refresh; with λ = 1 all are zero by then.
    #[default]
    Prox,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    #[default]
    AdamW,
    Adam,
    Sgd,
}

/// The optimizer and its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Optimization {
    pub optimizer: OptimizerKind,
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub momentum: f64,
    pub weight_decay: f64,
    pub decay: Decay,
    /// Steps over which the learning rate rises, as a share of all.
    pub warmup: f64,
    /// Largest norm of the gradient; 0 for none.
    pub clip: f64,
    /// Batches whose gradients are averaged into one step.
    pub accumulation: u64,
}

impl Default for Optimization {
    fn default() -> Self {
        Self {
            optimizer: OptimizerKind::AdamW,
            learning_rate: 5e-5,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            momentum: 0.9,
            weight_decay: 0.01,
            decay: Decay::Linear,
            warmup: 0.06,
            clip: 1.0,
            accumulation: 1,
        }
    }
}

impl Optimization {
    pub fn rule(&self) -> Optimizer {
        let (beta1, beta2, epsilon, decay) =
            (self.beta1 as f32, self.beta2 as f32, self.epsilon as f32, self.weight_decay as f32);
        match self.optimizer {
            OptimizerKind::AdamW => Optimizer::AdamW { beta1, beta2, epsilon, decay },
            OptimizerKind::Adam => Optimizer::Adam { beta1, beta2, epsilon, decay },
            OptimizerKind::Sgd => Optimizer::Sgd { momentum: self.momentum as f32, decay },
        }
    }
}

/// What is minimised besides the pull: distance · odist + labels · (cross-entropy or squared error).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objective {
    pub anchor: Anchor,
    pub odist: crate::ops::Distance,
    /// Weight of the output distance; 0 leaves it out.
    pub distance: f64,
    /// Weight of the loss on labels; 0 leaves it out.
    pub labels: f64,
    /// Keep the dense network's logits of every example across epochs.
    pub cache_teacher: bool,
    pub batch_norm: BatchNorms,
}

impl Default for Objective {
    fn default() -> Self {
        Self {
            anchor: Anchor::Dense,
            odist: crate::ops::Distance::Kl,
            distance: 1.0,
            labels: 0.0,
            cache_teacher: true,
            batch_norm: BatchNorms::Frozen,
        }
    }
}

/// The way to the sparse subspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Path {
    /// Share of the prunable weights that is zero at the end, in 0..1.
    pub sparsity: f64,
    pub scope: Pattern,
    pub pull: PullKind,
    pub lambda: f64,
    pub ramp: Ramp,
    /// The part of the path's steps over which the sparsity rises.
    pub ramp_share: f64,
    /// Steps between two choices of what is pruned.
    pub refresh: u64,
    /// The part of all steps that is spent after the final projection, inside the sparse subspace.
    pub finish: f64,
    /// The path ends early once ‖w − w_p‖/‖w‖ is below this, at full sparsity; 0 for never.
    pub tolerance: f64,
}

impl Default for Path {
    fn default() -> Self {
        Self {
            sparsity: 0.5,
            scope: Pattern::Global,
            pull: PullKind::Prox,
            lambda: 1.0,
            ramp: Ramp::Cubic,
            ramp_share: 1.0,
            refresh: 10,
            finish: 0.5,
            tolerance: 0.0,
        }
    }
}

/// How long, on what batches, and what is looked at on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    pub batch: usize,
    pub epochs: f64,
    /// Optimizer steps; in place of epochs where it is given.
    pub steps: Option<u64>,
    /// Steps between two evaluations of the projected network on held-out data; 0 for only at both ends. A tenth of
    /// the run where it is not given.
    pub evaluate_every: Option<u64>,
    /// Sparsities at which the network of a path is projected, with exactly so many zeros, and evaluated once the path has
    /// come there: one path instead of a run for each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub milestones: Vec<f64>,
    /// Steps between two checkpoints; 0 for only at an interruption and at the end.
    pub checkpoint_every: u64,
    pub seed: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            batch: 16,
            epochs: 1.0,
            steps: None,
            evaluate_every: None,
            milestones: Vec::new(),
            checkpoint_every: 100,
            seed: 0,
        }
    }
}

/// All of a run but its model and data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    pub method: Method,
    pub objective: Objective,
    pub path: Path,
    /// How the steps before the final projection are taken; those after it are the optimizer's.
    pub step: Stepping,
    pub optimization: Optimization,
    pub budget: Budget,
    pub roles: Roles,
}

/// A named starting point; flags change it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The best known here: dense anchor, KL distance, cubic ramp, prox pull, a last part inside the subspace.
    #[default]
    Fip,
    /// The listing as printed: projected anchor, squared distance, l2 pull, direct, no steps after projection.
    Paper,
    /// The published code's choices: dense anchor, a Bhattacharyya distance summed over the batch, l2 pull, direct.
    Reference,
}

impl Preset {
    /// The recipe of `method` under this preset.
    pub fn recipe(self, method: Method, batch: usize) -> Recipe {
        let mut r = Recipe { method, ..Recipe::default() };
        r.budget.batch = batch;
        match method {
            Method::Train | Method::Gradual => (r.objective.labels, r.objective.distance) = (1.0, 0.0),
            Method::OneShot | Method::Random => r.path.finish = 0.0,
            Method::Fip => {}
        }
        if method == Method::Train {
            r.objective.batch_norm = BatchNorms::Running;
        }
        if method != Method::Fip || self == Self::Fip {
            return r;
        }
        r.path = Path { pull: PullKind::L2, ramp: Ramp::Direct, refresh: 1, finish: 0.0, tolerance: 1e-3, ..r.path };
        r.optimization = Optimization { decay: Decay::Constant, warmup: 0.0, clip: 0.0, ..r.optimization };
        match self {
            Self::Paper => {
                r.objective.anchor = Anchor::Projected;
                r.objective.odist = crate::ops::Distance::Euclidean;
            }
            // Its distance is a sum over the batch; ours is a mean, so the pull is weighed down instead (METHOD).
            _ => {
                r.objective.odist = crate::ops::Distance::Bhattacharyya;
                r.objective.distance = batch as f64;
            }
        }
        r
    }
}

impl Recipe {
    /// # Errors
    /// [`Error::Usage`] naming the first setting that makes no sense.
    pub fn check(&self) -> Result<()> {
        let (o, p, b) = (&self.optimization, &self.path, &self.budget);
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let passes = matches!(self.method, Method::Fip | Method::Gradual);
        let rules: [(&str, bool, String, &str); 15] = [
            (
                "--sparsity",
                self.method == Method::Train || (p.sparsity > 0.0 && p.sparsity < 1.0),
                p.sparsity.to_string(),
                "a share between 0 and 1, as 0.9",
            ),
            ("--lambda", p.lambda >= 0.0 && p.lambda.is_finite(), p.lambda.to_string(), "a number from 0 up"),
            ("--ramp-share", share(p.ramp_share), p.ramp_share.to_string(), "a share in 0..=1"),
            ("--finish", (0.0..1.0).contains(&p.finish), p.finish.to_string(), "a share in 0..1"),
            ("--tolerance", p.tolerance >= 0.0, p.tolerance.to_string(), "a number from 0 up"),
            ("--refresh", p.refresh > 0, p.refresh.to_string(), "at least 1"),
            ("--learning-rate", positive(o.learning_rate), o.learning_rate.to_string(), "a positive number"),
            (
                "optimization.beta1, beta2, momentum",
                [o.beta1, o.beta2, o.momentum].iter().all(|b| (0.0..1.0).contains(b)),
                format!("{} {} {}", o.beta1, o.beta2, o.momentum),
                "shares in 0..1",
            ),
            ("optimization.epsilon", positive(o.epsilon), o.epsilon.to_string(), "a positive number"),
            (
                "--weight-decay, --clip",
                o.weight_decay >= 0.0 && o.clip >= 0.0,
                format!("{} {}", o.weight_decay, o.clip),
                "numbers from 0 up",
            ),
            ("--warmup", share(o.warmup), o.warmup.to_string(), "a share in 0..=1"),
            (
                "--accumulation, --batch",
                o.accumulation > 0 && b.batch > 0,
                format!("{} {}", o.accumulation, b.batch),
                "at least 1",
            ),
            (
                "--epochs, --steps",
                b.steps.map_or(positive(b.epochs), |s| s > 0),
                b.steps.map_or(b.epochs.to_string(), |s| s.to_string()),
                "more than 0",
            ),
            (
                "budget.milestones",
                b.milestones.is_empty() || passes && b.milestones.iter().all(|m| *m > 0.0 && *m <= p.sparsity),
                format!("{:?}", b.milestones),
                "sparsities above 0 that the path comes to, and none to a method without a path",
            ),
            (
                "--distance-weight, --labels-weight",
                [self.objective.distance, self.objective.labels].iter().all(|x| *x >= 0.0 && x.is_finite()),
                format!("{} {}", self.objective.distance, self.objective.labels),
                "weights from 0 up",
            ),
        ];
        match rules.into_iter().find(|r| !r.1) {
            None => self.check_step(),
            Some((flag, _, got, wanted)) => {
                Err(Error::usage(flag, format!("{got} makes no sense"), format!("give {wanted}")))
            }
        }
    }

    /// Whether the steps of this path can be taken as they are asked for.
    fn check_step(&self) -> Result<()> {
        self.step.check()?;
        let step = format!("--step {}", self.step.kind.as_str());
        if self.step.kind == StepKind::Gradient {
            return Ok(());
        }
        if self.method != Method::Fip {
            let what = "only a functionally invariant path has steps in the metric";
            return Err(Error::usage(step, what, "leave it out, or take --method fip"));
        }
        if self.objective.batch_norm == BatchNorms::Running {
            let what =
                "the metric looks at batch norms' running averages, which --batch-norm running lets follow the batches";
            return Err(Error::usage(step, what, "take --batch-norm frozen or reestimated"));
        }
        if self.optimization.accumulation > 1 {
            let what = "a step in the metric is no mean of gradients";
            return Err(Error::usage(step, what, "give --metric-batches in place of --accumulation"));
        }
        if self.objective.labels > 0.0 {
            let what = format!("{step} has no loss on labels, got a weight of {}", self.objective.labels);
            return Err(Error::usage("--labels-weight", what, "give 0, or take --step gradient"));
        }
        self.check_distance()
    }

    /// An exact step takes back the distance that its metric is the second order of: no multiple, and no other.
    fn check_distance(&self) -> Result<()> {
        let (distance, metric) = (self.objective.odist, self.step.output_metric);
        let fits = match distance {
            Distance::Kl | Distance::Euclidean => metric == Stepping::metric_of(distance),
            Distance::Bhattacharyya | Distance::Hellinger => false,
        };
        if self.step.kind != StepKind::Exact || self.objective.distance == 0.0 || fits {
            return Ok(());
        }
        let hint = match distance {
            Distance::Euclidean => "give --output-metric euclidean",
            Distance::Kl => "give --output-metric fisher",
            _ => "take --distance kl with --output-metric fisher, or euclidean with euclidean",
        };
        let what = format!("an exact step in the {} metric does not hold this distance", metric.as_str());
        Err(Error::usage(format!("--distance {distance}"), what, hint))
    }
}
