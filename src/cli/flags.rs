//! The flags of a run, in groups; each given one is applied over the recipe. What is documented as a default is
//! what the preset holds: a test compares the two.
use crate::engine::Pattern;
use crate::fip::recipe::{Anchor, BatchNorms, Method, OptimizerKind, Preset, PullKind, Recipe};
use crate::fip::schedule::{Decay, Ramp};
use crate::fip::step::{Precondition, StepKind};
use crate::geometry::OutputMetric;
use crate::ops::Distance;
use crate::{Error, Result as Done};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as WordError, StrDeserializer};

/// A parser of the words that an enum of the recipe is written in.
pub(super) fn one_of<T>(words: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: for<'de> Deserialize<'de> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words).try_map(|word| {
        let word: StrDeserializer<WordError> = word.as_str().into_deserializer();
        T::deserialize(word)
    })
}

/// Everything that a run can be.
pub fn method() -> impl TypedValueParser<Value = Method> {
    one_of::<Method>(&["fip", "train", "gradual", "one-shot", "random"])
}

/// `0.9` or `90%`.
pub fn share(s: &str) -> Result<f64, String> {
    let (digits, unit) = s.strip_suffix('%').map_or((s, 1.0), |d| (d.trim_end(), 100.0));
    let value = digits.parse::<f64>().map_err(|_| "wanted a share, as 0.9 or 90%".to_string())?;
    Ok(value / unit)
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Path to the sparse subspace")]
pub struct WayFlags {
    /// What to do: a functionally invariant path, or a baseline: gradual magnitude pruning with labels, the smallest
    /// weights set to zero at once, random ones [default: fip]
    #[arg(long, value_name = "METHOD", value_parser = one_of::<Method>(&["fip", "gradual", "one-shot", "random"]))]
    pub method: Option<Method>,
    /// Where the settings start from: the best known, the paper's listing as printed, or the published code's
    /// choices [default: fip]
    #[arg(long, value_name = "PRESET", value_parser = one_of::<Preset>(&["fip", "paper", "reference"]))]
    pub preset: Option<Preset>,
    /// Share of the prunable weights that is zero at the end, as 0.9 or 90%
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub sparsity: Option<f64>,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Path to the sparse subspace")]
pub struct PathFlags {
    /// Among what the smallest are chosen: global, layer, row, or n:m (as 2:4: two of every four stay), which says
    /// the sparsity as well [default: global]
    #[arg(long, value_name = "SCOPE")]
    pub scope: Option<Pattern>,
    /// How pruned weights are drawn to zero: a gradient (l2, l2sq), or a shrinking of its own (prox) [default: prox]
    #[arg(long, value_name = "PULL", value_parser = one_of::<PullKind>(&["l2", "l2sq", "prox"]))]
    pub pull: Option<PullKind>,
    /// Strength of the pull; with prox, 1 brings pruned weights to zero within --refresh steps; with exact and null steps
    /// their length [default: 1]
    #[arg(long, value_name = "λ")]
    pub lambda: Option<f64>,
    /// How the sparsity asked for rises: at once, linearly, fast then slowly [default: cubic]
    #[arg(long, value_name = "RAMP", value_parser = one_of::<Ramp>(&["direct", "linear", "cubic"]))]
    pub ramp: Option<Ramp>,
    /// Share of the path's steps over which it rises [default: 1]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub ramp_share: Option<f64>,
    /// Steps between two choices of what is pruned [default: 10]
    #[arg(long, value_name = "STEPS")]
    pub refresh: Option<u64>,
    /// Share of all steps taken after the final projection, inside the sparse subspace [default: 0.5]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub finish: Option<f64>,
    /// End the path early once ‖w − w_p‖/‖w‖ is below this, at full sparsity; 0 for never [default: 0]
    #[arg(long, value_name = "RATIO")]
    pub tolerance: Option<f64>,
}

impl PathFlags {
    pub fn apply(&self, r: &mut Recipe) {
        let p = &mut r.path;
        set(&mut p.scope, self.scope);
        set(&mut p.pull, self.pull);
        set(&mut p.lambda, self.lambda);
        set(&mut p.ramp, self.ramp);
        set(&mut p.ramp_share, self.ramp_share);
        set(&mut p.refresh, self.refresh);
        set(&mut p.finish, self.finish);
        set(&mut p.tolerance, self.tolerance);
    }
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Steps along the path")]
pub struct StepFlags {
    /// What the steps before the final projection are solved by: the optimizer on the objective's gradient (gradient);
    /// equation 4 on the sphere in the metric, towards the projected network (exact); the way there with what the outputs
    /// feel of it filtered out (null). With the last two a step is --lambda times what is left of the way to the next choice
    /// of what is pruned [default: gradient]
    #[arg(long, value_name = "KIND", value_parser = one_of::<StepKind>(&["gradient", "exact", "null"]))]
    pub step: Option<StepKind>,
    /// How the metric of exact and null steps measures a change of logits: euclidean, or fisher [default: fisher; euclidean
    /// for a network that gives one number]
    #[arg(long, value_name = "METRIC", value_parser = super::metric::output_metric())]
    pub output_metric: Option<OutputMetric>,
    /// Batches that the metric is a mean over, drawn anew for every step [default: 1]
    #[arg(long, value_name = "BATCHES")]
    pub metric_batches: Option<u64>,
    /// Weight of the way to the projected network in an exact step, over the metric's largest eigenvalue, beside a
    /// --distance-weight of 1: less keeps the outputs more [default: 0.01]
    #[arg(long, value_name = "β")]
    pub beta: Option<f64>,
    /// What is added to the metric in a null step, over its largest eigenvalue: directions below it count as flat
    /// [default: 0.01]
    #[arg(long, value_name = "SHARE")]
    pub damping: Option<f64>,
    /// The most products with the metric in a step [default: 100]
    #[arg(long, value_name = "N")]
    pub products: Option<usize>,
    /// Of the residual that a solution in the metric may leave, relative to its right-hand side [default: 0.001]
    #[arg(long, value_name = "T")]
    pub solve_tolerance: Option<f64>,
    /// Whether weights are scaled by the root of the metric's diagonal where a step is solved for [default: none]
    #[arg(long, value_name = "WHICH", value_parser = one_of::<Precondition>(&["none", "diagonal"]))]
    pub precondition: Option<Precondition>,
}

impl StepFlags {
    pub fn apply(&self, r: &mut Recipe) {
        let s = &mut r.step;
        set(&mut s.kind, self.step);
        set(&mut s.output_metric, self.output_metric);
        set(&mut s.metric_batches, self.metric_batches);
        set(&mut s.beta, self.beta);
        set(&mut s.damping, self.damping);
        set(&mut s.products, self.products);
        set(&mut s.solve_tolerance, self.solve_tolerance);
        set(&mut s.precondition, self.precondition);
    }

    /// Whether steps of this kind look at what is given; `pull` is whether a --pull is.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the first flag that would say nothing.
    pub fn check(&self, kind: StepKind, pull: bool) -> Done<()> {
        use StepKind::{Exact, Gradient, Null};
        let both: &[StepKind] = &[Exact, Null];
        let flags: [(&str, bool, &[StepKind]); 8] = [
            ("--output-metric", self.output_metric.is_some(), both),
            ("--metric-batches", self.metric_batches.is_some(), both),
            ("--products", self.products.is_some(), both),
            ("--solve-tolerance", self.solve_tolerance.is_some(), both),
            ("--precondition", self.precondition.is_some(), both),
            ("--beta", self.beta.is_some(), &[Exact]),
            ("--damping", self.damping.is_some(), &[Null]),
            ("--pull", pull, &[Gradient]),
        ];
        match flags.into_iter().find(|(_, given, kinds)| *given && !kinds.contains(&kind)) {
            None => Ok(()),
            Some((flag, _, kinds)) => {
                let what = format!("--step {} does not look at it", kind.as_str());
                let kinds: Vec<&str> = kinds.iter().map(|k| k.as_str()).collect();
                Err(Error::usage(flag, what, format!("leave it out, or take --step {}", kinds.join(" or "))))
            }
        }
    }
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "What is minimised")]
pub struct ObjectiveFlags {
    /// What the outputs are held to: the network as given, or its present projection [default: dense]
    #[arg(long, value_name = "ANCHOR", value_parser = one_of::<Anchor>(&["dense", "projected"]))]
    pub anchor: Option<Anchor>,
    /// How far two outputs are apart [default: kl; euclidean for a network that gives one number]
    #[arg(long, value_name = "DISTANCE", value_parser = one_of::<Distance>(&["euclidean", "bhattacharyya", "kl", "hellinger"]))]
    pub distance: Option<Distance>,
    /// Weight of the distance in the loss [default: 1; 0 with --method gradual]
    #[arg(long, value_name = "WEIGHT")]
    pub distance_weight: Option<f64>,
    /// Weight of the loss on the data's labels [default: 0; 1 with --method gradual]
    #[arg(long, value_name = "WEIGHT")]
    pub labels_weight: Option<f64>,
    /// What batch norms normalise by: the running averages as given (frozen), the same with an estimate on the training
    /// data for every network that is evaluated, the last one included (reestimated), or each batch's own, followed by the running
    /// averages (running) [default: frozen; running in training]
    #[arg(long, value_name = "WHICH", value_parser = one_of::<BatchNorms>(&["frozen", "reestimated", "running"]))]
    pub batch_norm: Option<BatchNorms>,
    /// Compute the dense network's outputs anew each time; otherwise kept in memory, 4 bytes an output and example
    #[arg(long)]
    pub no_teacher_cache: bool,
}

impl ObjectiveFlags {
    pub fn apply(&self, r: &mut Recipe) {
        let o = &mut r.objective;
        set(&mut o.anchor, self.anchor);
        set(&mut o.odist, self.distance);
        set(&mut o.distance, self.distance_weight);
        set(&mut o.labels, self.labels_weight);
        set(&mut o.batch_norm, self.batch_norm);
        o.cache_teacher &= !self.no_teacher_cache;
    }
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Optimizer")]
pub struct OptimizerFlags {
    /// The rule of a step [default: adamw]
    #[arg(long, value_name = "RULE", value_parser = one_of::<OptimizerKind>(&["adamw", "adam", "sgd"]))]
    pub optimizer: Option<OptimizerKind>,
    /// The largest learning rate of the schedule [default: 5e-5; 1e-3 for an mlp]
    #[arg(long, visible_alias = "lr", value_name = "RATE")]
    pub learning_rate: Option<f64>,
    /// Decay of weight matrices, not of biases and norms [default: 0.01]
    #[arg(long, value_name = "DECAY")]
    pub weight_decay: Option<f64>,
    /// How the learning rate falls after its warm-up [default: linear]
    #[arg(long, value_name = "SCHEDULE", value_parser = one_of::<Decay>(&["constant", "linear", "cosine"]))]
    pub schedule: Option<Decay>,
    /// Share of all steps over which the learning rate rises first [default: 0.06]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub warmup: Option<f64>,
    /// Largest norm of the gradient; 0 for none [default: 1]
    #[arg(long, value_name = "NORM")]
    pub clip: Option<f64>,
    /// Batches whose gradients are averaged into a step [default: 1]
    #[arg(long, value_name = "BATCHES")]
    pub accumulation: Option<u64>,
}

impl OptimizerFlags {
    pub fn apply(&self, r: &mut Recipe) {
        let o = &mut r.optimization;
        set(&mut o.optimizer, self.optimizer);
        set(&mut o.learning_rate, self.learning_rate);
        set(&mut o.weight_decay, self.weight_decay);
        set(&mut o.decay, self.schedule);
        set(&mut o.warmup, self.warmup);
        set(&mut o.clip, self.clip);
        set(&mut o.accumulation, self.accumulation);
    }
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Length")]
pub struct BudgetFlags {
    /// Passes over the data, fractions allowed [default: 1]
    #[arg(long, value_name = "EPOCHS", conflicts_with = "steps")]
    pub epochs: Option<f64>,
    /// Optimizer steps, in place of --epochs
    #[arg(long, value_name = "STEPS")]
    pub steps: Option<u64>,
    /// Examples in a batch [default: 16; 64 for an mlp]
    #[arg(long, value_name = "EXAMPLES")]
    pub batch: Option<usize>,
    /// Steps between two evaluations on held-out data; 0 for only at both ends [default: a tenth of the run]
    #[arg(long, value_name = "STEPS")]
    pub evaluate_every: Option<u64>,
    /// Steps between two checkpoints; 0 for only at an interruption and at the end [default: 100]
    #[arg(long, value_name = "STEPS")]
    pub checkpoint_every: Option<u64>,
}

impl BudgetFlags {
    pub fn apply(&self, r: &mut Recipe) {
        let b = &mut r.budget;
        if let Some(epochs) = self.epochs {
            (b.epochs, b.steps) = (epochs, None);
        }
        if self.steps.is_some() {
            b.steps = self.steps;
        }
        set(&mut b.batch, self.batch);
        b.evaluate_every = self.evaluate_every.or(b.evaluate_every);
        set(&mut b.checkpoint_every, self.checkpoint_every);
    }
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Parameters (globs on names; * crosses dots; repeatable)")]
pub struct RoleFlags {
    /// Prune exactly what matches [default: the body's weight matrices, neither embeddings nor the head]
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Never prune what matches
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
}

impl RoleFlags {
    pub fn apply(&self, r: &mut Recipe) {
        for (to, from) in [(&mut r.roles.include, &self.include), (&mut r.roles.exclude, &self.exclude)] {
            if !from.is_empty() {
                to.clone_from(from);
            }
        }
    }
}

pub fn set<T>(to: &mut T, from: Option<T>) {
    if let Some(value) = from {
        *to = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, Command};

    /// What the help of `flag` says in `[default: ..]`, up to a semicolon.
    fn documented(command: &Command, flag: &str) -> String {
        let arg = command.get_arguments().find(|a| a.get_long() == Some(flag)).unwrap_or_else(|| panic!("no --{flag}"));
        let help = arg.get_long_help().or(arg.get_help()).unwrap().to_string();
        let text = help.split("[default: ").nth(1).unwrap_or_else(|| panic!("--{flag} documents no default: {help}"));
        text.split([';', ']']).next().unwrap().to_string()
    }

    #[test]
    fn documented_defaults_are_the_presets() {
        let r = Preset::Fip.recipe(Method::Fip, 16);
        let (p, o, b) = (&r.path, &r.optimization, &r.budget);
        let mut command = Command::new("flags");
        for augment in [
            WayFlags::augment_args,
            PathFlags::augment_args,
            StepFlags::augment_args,
            ObjectiveFlags::augment_args,
            OptimizerFlags::augment_args,
            BudgetFlags::augment_args,
        ] {
            command = augment(command);
        }
        let numbers = [
            ("lambda", p.lambda),
            ("ramp-share", p.ramp_share),
            ("refresh", p.refresh as f64),
            ("finish", p.finish),
            ("tolerance", p.tolerance),
            ("metric-batches", r.step.metric_batches as f64),
            ("beta", r.step.beta),
            ("damping", r.step.damping),
            ("products", r.step.products as f64),
            ("solve-tolerance", r.step.solve_tolerance),
            ("distance-weight", r.objective.distance),
            ("labels-weight", r.objective.labels),
            ("learning-rate", o.learning_rate),
            ("weight-decay", o.weight_decay),
            ("warmup", o.warmup),
            ("clip", o.clip),
            ("accumulation", o.accumulation as f64),
            ("epochs", b.epochs),
            ("batch", b.batch as f64),
            ("checkpoint-every", b.checkpoint_every as f64),
        ];
        for (flag, value) in numbers {
            assert_eq!(documented(&command, flag).parse::<f64>().unwrap(), value, "--{flag}");
        }
        let table = toml::Table::try_from(&r).unwrap();
        let words = [
            ("method", table["method"].as_str()),
            ("scope", table["path"]["scope"].as_str()),
            ("pull", table["path"]["pull"].as_str()),
            ("ramp", table["path"]["ramp"].as_str()),
            ("step", table["step"]["kind"].as_str()),
            ("output-metric", table["step"]["output_metric"].as_str()),
            ("precondition", table["step"]["precondition"].as_str()),
            ("anchor", table["objective"]["anchor"].as_str()),
            ("distance", table["objective"]["odist"].as_str()),
            ("optimizer", table["optimization"]["optimizer"].as_str()),
            ("schedule", table["optimization"]["decay"].as_str()),
        ];
        for (flag, value) in words {
            assert_eq!(Some(documented(&command, flag).as_str()), value, "--{flag}");
        }
    }

    #[test]
    fn shares_are_numbers_or_percentages() {
        assert_eq!((share("0.9"), share("90%"), share("62.5 %")), (Ok(0.9), Ok(0.9), Ok(0.625)));
        assert!(share("most").is_err());
    }
}
