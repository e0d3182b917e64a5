//! The loop of every run: training, functionally invariant paths and their baselines are one loop with
//! different recipes (METHOD, algorithm 2), one checkpoint format and one way to resume.
use super::checkpoint::{Checkpoint, State};
use super::evaluate::Evaluation;
use super::path::Stored;
use super::plan::Plan;
use super::recipe::{Anchor, Method, Recipe};
use super::runner::Runner;
use super::step::{Given, Goal, Gradient, Seen, Solved, Stepper, Taken};
use super::teacher::Teacher;
use crate::data::{Ahead, Batch, Cursor, Dataset, Epochs, ahead};
use crate::engine::{Census, Clip, Engine, Mask, Update, Updated, Vector};
use crate::geometry::OutputMetric;
use crate::models::{Head, Network};
use crate::ops::Distance;
use crate::params::Role;
use crate::report::{self, Event, Recorder};
use crate::{Error, Result};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

mod looks;
mod projection;
mod stored;
pub use stored::Keep;

/// A relative residual above this is worth a warning.
const MISSED: f64 = 0.1;

/// Training batches that a second thread makes ahead, each with the cursor behind it.
type Feed = Ahead<Result<(Batch, Cursor)>>;

/// What a run starts from. `weights` stand in the engine's layout.
pub struct Job<'a> {
    pub network: Network,
    pub weights: &'a [f32],
    pub train: &'a dyn Dataset,
    /// Held-out data and what its split is called.
    pub held_out: Option<(&'a dyn Dataset, String)>,
    pub recipe: Recipe,
    /// Where checkpoints go; none are written without it.
    pub checkpoints: Option<PathBuf>,
    /// Where networks on the way go, if they are to be stored.
    pub path: Option<Keep>,
    /// SHA-256 of the model: a checkpoint of another one is refused.
    pub model: String,
}

/// What a run ended with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// In the engine's layout.
    pub weights: Vec<f32>,
    pub steps: u64,
    /// Zeros over the prunable weights, and over the whole model, in 0..1.
    pub sparsity: f64,
    pub sparsity_model: f64,
    /// On the held-out data.
    pub dense: Option<Evaluation>,
    pub last: Option<Evaluation>,
}

/// Drives a [`Job`] on an engine.
pub struct Run<'a> {
    job: &'a Job<'a>,
    plan: Plan,
    runner: Runner,
    state: State,
    w: Vector,
    g: Vector,
    m: Vector,
    v: Option<Vector>,
    /// w_t, and room for w_p where a projection is looked at.
    dense: Vector,
    projected: Option<Vector>,
    mask: Option<Mask>,
    /// What is pruned of a network that is looked at in passing.
    passing: Option<Mask>,
    teacher: Option<Teacher>,
    /// w − w_p, for steps in the metric.
    pulled: Option<Vector>,
    census: Option<Census>,
    /// Of the path, and of the steps inside the subspace.
    stepper: Box<dyn Stepper>,
    finishing: Gradient,
    stored: Option<Stored>,
    /// Whether the last step in the metric may be no minimum.
    uncertain: bool,
    resumed: bool,
}

impl<'a> Run<'a> {
    /// Start, or go on from the newest checkpoint.
    ///
    /// # Errors
    /// A recipe that makes no sense or does not fit the network; a checkpoint of another run; what engine and data say.
    pub fn new(job: &'a Job<'a>, mut engine: Box<dyn Engine>) -> Result<Self> {
        let r = &job.recipe;
        r.check()?;
        if job.network.head == Head::Regression
            && r.objective.distance > 0.0
            && r.objective.odist != Distance::Euclidean
        {
            let what = format!("{} compares classes, and this network gives one number", r.objective.odist);
            return Err(Error::usage("--distance", what, "use --distance euclidean"));
        }
        if job.network.head == Head::Regression && r.step.in_metric() && r.step.output_metric == OutputMetric::Fisher {
            let what = "fisher compares classes, and this network gives one number";
            return Err(Error::usage("--output-metric", what, "use --output-metric euclidean"));
        }
        let prunes = r.method != Method::Train;
        if prunes && engine.layout().count(Role::Prunable) == 0 {
            return Err(Error::usage(
                "--include, --exclude",
                "no parameter is left to prune",
                "see `--dry-run` for the roles",
            ));
        }
        let (w, g, m, dense) = (engine.zeros()?, engine.zeros()?, engine.zeros()?, engine.zeros()?);
        let v = if r.optimization.rule().second_moments() { Some(engine.zeros()?) } else { None };
        engine.write(w, 0, job.weights)?;
        engine.write(dense, 0, job.weights)?;
        let mask = if prunes { Some(engine.mask()?) } else { None };

        let data = job.train.fingerprint();
        let mut state = State { model: job.model.clone(), data, ..State::default() };
        let token_head = job.network.head == Head::MaskedLm;
        // What is masked or augmented anew every epoch has other logits each time; those of every token would be too many.
        let keeps = r.objective.distance > 0.0
            && r.objective.anchor == Anchor::Dense
            && r.objective.cache_teacher
            && !job.train.changes_with_epoch()
            && !token_head;
        let outputs = job.network.head.outputs();
        let mut teacher = keeps.then(|| Teacher::new(job.train.len(), outputs));
        let stored = match &job.checkpoints {
            Some(dir) => Checkpoint::newest(dir, engine.layout().len(), outputs)?,
            None => None,
        };
        let resumed = stored.is_some();
        if let Some(c) = stored {
            if (&c.state.model, &c.state.data) != (&state.model, &state.data) {
                let place = job.checkpoints.as_deref().map(|d| d.display().to_string()).unwrap_or_default();
                return Err(Error::model(
                    place,
                    "these checkpoints are of another model or other data",
                    "resume with the files the run started with, or choose another --out",
                ));
            }
            engine.write(w, 0, &c.w)?;
            engine.write(m, 0, &c.m)?;
            if let Some(v) = v {
                engine.write(v, 0, &c.v)?;
            }
            if let Some(mask) = mask {
                engine.write_mask(mask, &c.mask)?;
            }
            if teacher.is_some() {
                teacher = Some(c.teacher);
            }
            state = c.state;
        }
        let stored = Self::open_path(job, &*engine, resumed.then_some(state.step))?;
        let runner = Runner::new(engine, job.network.clone(), r.objective.clone());
        let plan = Plan::new(r, job.train.len());
        let (stepper, finishing) = (r.step.stepper(), Gradient::default());
        let (projected, pulled, passing, census) = (None, None, None, None);
        Ok(Self {
            job,
            plan,
            runner,
            state,
            w,
            g,
            m,
            v,
            dense,
            projected,
            mask,
            passing,
            teacher,
            pulled,
            census,
            stepper,
            finishing,
            stored,
            uncertain: false,
            resumed,
        })
    }

    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Whether this run goes on from a checkpoint.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    pub fn runner(&mut self) -> &mut Runner {
        &mut self.runner
    }

    /// Run to the end. Every event goes to `recorder` and to `observe`.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after `stop` was set and the state was saved; [`Error::NotFinite`] for a run that
    /// diverged; what data, engine and disk say.
    pub fn drive(self, recorder: &mut Recorder, observe: &mut dyn FnMut(&Event), stop: &AtomicBool) -> Result<Outcome> {
        let budget = &self.job.recipe.budget;
        let epochs = Epochs::new(self.job.train, budget.batch, budget.seed, self.state.cursor)?;
        ahead(epochs, |feed| self.walk(feed, recorder, observe, stop))
    }

    fn walk(
        mut self,
        feed: &mut Feed,
        recorder: &mut Recorder,
        observe: &mut dyn FnMut(&Event),
        stop: &AtomicBool,
    ) -> Result<Outcome> {
        let mut tell = |event: Event| {
            observe(&event);
            recorder.write(event)
        };
        let dense = self.evaluate(self.dense)?;
        if let (Some(e), false) = (&dense, self.resumed) {
            tell(self.eval_event(e, report::Network::Dense, dense.as_ref(), 0.0).into())?;
        }
        let budget = &self.job.recipe.budget;
        let every = budget.evaluate_every.unwrap_or(self.plan.steps.div_ceil(10));
        let save_every = budget.checkpoint_every;
        while self.state.step < self.steps() {
            if stop.load(Ordering::Relaxed) {
                self.save()?;
                return Err(Error::Interrupted(format!("{} of {} steps are saved", self.state.step, self.steps())));
            }
            let step = self.advance(feed)?;
            let missed = step.solve.clone().filter(|s| s.products > 0 && s.residual > MISSED);
            tell(step.into())?;
            let uncertain = std::mem::take(&mut self.uncertain);
            if (missed.is_some() || uncertain) && !std::mem::replace(&mut self.state.warned, true) {
                let what = match &missed {
                    Some(s) => {
                        format!("missed its optimality system by {:.2} after {} products", s.residual, s.products)
                    }
                    None => "may be no minimum: the metric's smallest eigenvalue was not found".into(),
                };
                let message = format!("a step in the metric {what}; allow more with --products");
                tell(report::Warning { message }.into())?;
            }
            let last = self.state.step == self.steps();
            if !last {
                self.keep_point(false)?;
            }
            if every > 0 && self.state.step.is_multiple_of(every) && !last {
                let (w, network) = self.looked_at()?;
                if let Some(e) = self.evaluate(w)? {
                    let sparsity = self.state.sparsity;
                    tell(self.eval_event(&e, network, dense.as_ref(), sparsity).into())?;
                }
            }
            for milestone in self.milestones(self.state.step) {
                let w = self.projection_at(milestone)?;
                self.reestimate(w)?;
                if let Some(e) = self.evaluate(w)? {
                    tell(self.eval_event(&e, report::Network::Passing, dense.as_ref(), milestone).into())?;
                }
            }
            if save_every > 0 && self.state.step.is_multiple_of(save_every) && !last {
                self.save()?;
            }
        }
        if self.mask.is_some() && self.state.projected_at.is_none() {
            self.project()?;
        }
        self.reestimate(self.w)?;
        self.keep_point(true)?;
        self.save()?;
        let last = self.evaluate(self.w)?;
        let outcome = self.outcome(dense, last)?;
        if let Some(e) = &outcome.last {
            tell(self.eval_event(e, report::Network::Final, outcome.dense.as_ref(), outcome.sparsity).into())?;
        }
        if self.job.recipe.method != Method::Train
            && let Some(found) = self.drift()?
        {
            tell(found.into())?;
        }
        Ok(outcome)
    }

    /// Steps this run takes in all: fewer than planned where the stop rule ended the path early.
    fn steps(&self) -> u64 {
        self.plan.steps - self.state.ended_at.map_or(0, |t| self.plan.path - t)
    }

    fn path_end(&self) -> u64 {
        self.state.ended_at.unwrap_or(self.plan.path)
    }

    /// One optimizer step, with the projection or the choice of a new target before it where it is due.
    fn advance(&mut self, feed: &mut Feed) -> Result<report::Step> {
        let (clock, waited) = (Instant::now(), feed.waited());
        let recipe = &self.job.recipe;
        let (t, pruning) = (self.state.step, self.mask.is_some());
        let finishing = pruning && t >= self.path_end();
        if finishing && self.state.projected_at.is_none() {
            self.project()?;
        } else if pruning && !finishing && t.is_multiple_of(recipe.path.refresh) {
            self.refresh(t)?;
        }
        let o = &recipe.optimization;
        // A path that ended early leaves the schedule's end where it was.
        let skipped = if finishing { self.plan.path - self.path_end() } else { 0 };
        let rate = o.learning_rate * o.decay.factor(t + skipped, self.plan.steps, self.plan.warmup);
        let due = !finishing && pruning && (t + 1).is_multiple_of(recipe.path.refresh);
        let in_metric = recipe.step.in_metric() && pruning && !finishing;
        // Where the path's steps are not the optimizer's, it begins with those after them.
        let others = if recipe.step.in_metric() { self.state.projected_at.unwrap_or(0) } else { 0 };
        let update = Update {
            optimizer: o.rule(),
            step: t + 1 - others,
            learning_rate: rate as f32,
            gradient_scale: 1.0,
            w: self.w,
            g: self.g,
            m: self.m,
            v: self.v,
            mask: self.mask,
            pull: self.pull(finishing),
            census: due.then(|| self.bracket()).flatten(),
        };
        let clip = Clip { mean: 1.0 / o.accumulation as f64, limit: o.clip };
        let Taken { losses, examples, stepped, solved } = match in_metric {
            true => self.step_in_metric(feed, t, &update, &clip)?,
            false => {
                let goal = Goal::Anywhere { seed: 0, stream: 0 };
                let given = Given { update: &update, clip: &clip, goal, length: 0.0, largest: None, seed: 0 };
                self.step_with(feed, o.accumulation, !pruning || finishing, &given)?
            }
        };
        let done = stepped.updated;
        self.check(&done, in_metric)?;
        self.census = done.census;
        self.state.pruned_squares = done.pruned_squares.to_bits();
        self.state.squares = done.prunable_squares.to_bits();
        self.state.step += 1;

        let pull = done.pruned_squares.sqrt();
        let relative = pull / done.prunable_squares.sqrt().max(f64::MIN_POSITIVE);
        let full = self.state.sparsity == recipe.path.sparsity && recipe.path.tolerance > 0.0;
        if pruning && !finishing && recipe.method == Method::Fip && full && relative < recipe.path.tolerance {
            self.state.ended_at = Some(self.state.step);
        }
        let weighed = |value: Option<f64>, weight: f64| value.map(|v| v / weight);
        let batches = self.job.train.len().div_ceil(recipe.budget.batch).max(1) as f64;
        Ok(report::Step {
            step: self.state.step,
            steps: self.steps(),
            epoch: self.state.cursor.epoch as f64 + self.state.cursor.batch as f64 / batches,
            loss: losses.loss,
            distance: weighed(losses.distance, recipe.objective.distance),
            cross_entropy: weighed(losses.labels, recipe.objective.labels),
            pull: pruning.then_some(pull),
            pull_relative: pruning.then_some(relative),
            sparsity_target: pruning.then_some(self.state.sparsity),
            learning_rate: if in_metric { 0.0 } else { rate },
            gradient_norm: stepped.gradient_norm,
            solve: solved.map(|s| self.solve(&s)),
            milliseconds: clock.elapsed().as_secs_f64() * 1e3,
            data_wait: (feed.waited() - waited).as_secs_f64() * 1e3,
            examples,
        })
    }

    /// A step over so many batches of the feed.
    fn step_with(&mut self, feed: &mut Feed, batches: u64, finishing: bool, given: &Given) -> Result<Taken> {
        for part in 1..=batches {
            let (batch, cursor) = feed.next().unwrap_or_else(|| Err(no_data()))?;
            self.state.cursor = cursor;
            let anchor = self.anchor(&batch)?;
            let seen = Seen { batch, anchor };
            let stepper: &mut dyn Stepper = if finishing { &mut self.finishing } else { &mut *self.stepper };
            match part == batches {
                true => return stepper.step(&mut self.runner, seen, given),
                false => stepper.look(&mut self.runner, seen, given)?,
            }
        }
        Err(no_data())
    }

    /// A step in the metric towards w_p: with λ = 1 as long as what is left of the way, over the steps to the next choice of
    /// what is pruned.
    fn step_in_metric(&mut self, feed: &mut Feed, t: u64, update: &Update, clip: &Clip) -> Result<Taken> {
        let recipe = &self.job.recipe;
        let (gradient, norm) = self.pulled()?;
        let refresh = recipe.path.refresh;
        let left = (refresh - t % refresh).min(self.path_end() - t);
        let length = if norm > 0.0 { recipe.path.lambda / left as f64 } else { 0.0 };
        // The metric's scale changes slowly: it is looked at anew with every choice.
        let known = f64::from_bits(self.state.largest);
        let largest = (!t.is_multiple_of(refresh) && known > 0.0).then_some(known);
        let goal = Goal::Against { gradient, norm };
        let seed = recipe.budget.seed;
        let given = Given { update, clip, goal, length, largest, seed };
        let taken = self.step_with(feed, recipe.step.metric_batches, false, &given)?;
        self.uncertain = taken.solved.is_some_and(|s| s.uncertain);
        self.state.largest = taken.solved.map_or(0.0, |s| s.largest).to_bits();
        Ok(taken)
    }

    /// The logits that the outputs are held to, if the objective has a distance.
    fn anchor(&mut self, batch: &Batch) -> Result<Option<Vec<f32>>> {
        let objective = &self.job.recipe.objective;
        if objective.distance == 0.0 {
            return Ok(None);
        }
        if objective.anchor == Anchor::Projected && self.mask.is_some() && self.state.projected_at.is_none() {
            let at = self.projection()?;
            return self.runner.logits(at, batch).map(Some);
        }
        if let Some(known) = self.teacher.as_ref().and_then(|t| t.get(batch)) {
            return Ok(Some(known));
        }
        let z = self.runner.logits(self.dense, batch)?;
        Ok(Some(match &mut self.teacher {
            None => z,
            Some(teacher) => {
                teacher.put(batch, &z);
                teacher.get(batch).unwrap_or(z)
            }
        }))
    }

    /// A step in the metric, for the record.
    fn solve(&self, s: &Solved) -> report::Solve {
        report::Solve {
            kind: self.job.recipe.step.kind.as_str().into(),
            length: s.length,
            mu: s.mu,
            residual: s.residual,
            hard: s.hard,
            products: s.products as u64,
            drift: s.drift,
        }
    }

    fn check(&self, done: &Updated, in_metric: bool) -> Result<()> {
        if done.squares.is_finite() {
            return Ok(());
        }
        let step = self.state.step + 1;
        let hint = match in_metric {
            true => "take shorter steps, with a smaller --lambda or a larger --refresh; the last checkpoint is whole",
            false => "lower --learning-rate, or set --clip 1; the last checkpoint is whole",
        };
        Err(Error::not_finite(format!("step {step}"), "a weight", hint))
    }

    fn save(&mut self) -> Result<()> {
        let Some(dir) = &self.job.checkpoints else { return Ok(()) };
        let engine = &self.runner.engine;
        let read = |v: Option<Vector>| {
            let mut data = vec![0.0; engine.layout().len()];
            v.map_or(Ok(()), |v| engine.read(v, 0, &mut data))?;
            Ok::<_, Error>(data)
        };
        let checkpoint = Checkpoint {
            state: self.state.clone(),
            w: read(Some(self.w))?,
            m: read(Some(self.m))?,
            v: read(self.v)?,
            mask: self.mask.map_or(Ok(Vec::new()), |m| engine.read_mask(m))?,
            teacher: self.teacher.clone().unwrap_or_default(),
        };
        checkpoint.write(dir).map(drop)
    }
}

fn no_data() -> Error {
    Error::data("training data", "no examples", "give a data set with at least one")
}
