//! What every run has in common: the loop with its progress, what is stored and said at the end.
use super::device::open_engine;
use super::output::{Output, facts};
use super::project::Zeros;
use super::require;
use super::setup::Setup;
use super::stop;
use crate::data::preprocess;
use crate::fip::evaluate::Evaluation;
use crate::fip::path::Origin;
use crate::fip::recipe::{BatchNorms, Method};
use crate::fip::run::{Job, Keep, Outcome, Run};
use crate::models::folder;
use crate::params::atomic::Folder;
use crate::params::{Role, Span};
use crate::report::numbers::{number, percent};
use crate::report::{self, Event, Histogram, Progress, Recorder, html};
use crate::{Error, Result};
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// The events of a run, in its folder.
pub const METRICS: &str = "metrics.jsonl";
/// The model a run ends with.
pub const MODEL: &str = "model";
const CHECKPOINTS: &str = "checkpoints";

/// Bins of a layer's histogram.
const BINS: usize = 64;

/// How a run speaks.
pub struct Manner<'a> {
    pub output: Output,
    /// Whether its end is summed up on stdout.
    pub summary: bool,
    /// As it was typed.
    pub command: String,
    /// What is recorded at the end besides the run's own events.
    pub closing: &'a dyn Fn(&Outcome) -> Vec<Event>,
}

impl Manner<'_> {
    /// Of a command that is one run.
    pub fn new(output: Output) -> Self {
        Self { output, summary: true, command: typed(), closing: &|_| Vec::new() }
    }
}

/// Runs to the end in `out`, which holds the settings, from its newest checkpoint if it has one.
///
/// # Errors
/// [`Error::Interrupted`] once the state is saved; [`Error::TargetNotMet`] once everything is stored; whatever else
/// went wrong on the way.
pub fn drive(setup: &Setup, out: &Path, manner: &Manner) -> Result<Outcome> {
    let output = manner.output;
    let stop = stop::on_interrupt()?;
    let held_out = setup.held_out.as_ref().map(|(data, name)| (&**data, name.clone()));
    let job = Job {
        network: setup.network.clone(),
        weights: &setup.weights,
        train: &*setup.train,
        held_out,
        recipe: setup.settings.recipe(),
        checkpoints: Some(out.join(CHECKPOINTS)),
        path: setup.settings.store_path.as_ref().map(|dir| Keep {
            dir: dir.clone(),
            origin: Origin {
                model: setup.settings.model.clone().unwrap_or_default(),
                model_sha256: setup.fingerprint.clone(),
                data: setup.settings.data.clone().unwrap_or_default(),
                seed: setup.settings.budget.seed,
            },
            every: setup.settings.path_every,
        }),
        model: setup.fingerprint.clone(),
    };
    let engine = open_engine(setup.place, setup.layout.clone())?;
    let device = engine.describe();
    let run = Run::new(&job, engine)?;
    let metrics = out.join(METRICS);
    let mut recorder = match (run.resumed(), metrics.exists()) {
        (true, true) => Recorder::resume(&metrics, run.step())?,
        // Killed before its first checkpoint: the run begins anew, and so does its record.
        (false, true) => {
            std::fs::remove_file(&metrics).map_err(Error::io("replace", &metrics))?;
            Recorder::create(&metrics)?
        }
        _ => Recorder::create(&metrics)?,
    }
    .echo(output.json);
    if !run.resumed() {
        recorder.write(start(setup, manner.command.clone(), device))?;
        if !setup.new_head.is_empty() && !output.json {
            output.remark(format!("head    {}", setup.new_head));
        }
    }
    let progress = Progress::new(run.plan().steps, !output.quiet && !output.json);
    progress.resume(run.step());
    let remarks = !output.quiet && !output.json;
    let mut observe = |event: &Event| match event {
        Event::Step(step) => progress.step(step),
        Event::Eval(eval) if remarks => progress.say(&evaluation(eval)),
        Event::Warning(warning) if remarks => progress.say(&format!("warning: {}", warning.message)),
        _ => {}
    };
    let ended = run.drive(&mut recorder, &mut observe, stop);
    progress.finish();
    match ended {
        Ok(outcome) => finish(setup, out, &mut recorder, manner, outcome),
        Err(error) => {
            let (status, error) = match error {
                Error::Interrupted(saved) => {
                    ("interrupted", Error::Interrupted(format!("{saved}; go on with `fipk resume {}`", out.display())))
                }
                other => ("failed", other),
            };
            // The first error is the one to report, whatever becomes of the record.
            let _ = recorder.write(report::End {
                status: status.into(),
                message: error.to_string(),
                ..report::End::default()
            });
            let _ = html::write(out);
            Err(error)
        }
    }
}

fn start(setup: &Setup, command: String, device: String) -> report::Start {
    let s = &setup.settings;
    let count = |role| setup.layout.count(role) as u64;
    let prunes = s.method != Method::Train;
    report::Start {
        command,
        method: serde_json::to_value(s.method).ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_default(),
        model: s.model.clone().or(s.arch.clone()).unwrap_or_default(),
        data: s.data.clone().unwrap_or_default(),
        seed: s.budget.seed,
        threads: rayon::current_num_threads(),
        device,
        version: env!("CARGO_PKG_VERSION").into(),
        parameters: setup.layout.parameters() as u64,
        prunable: if prunes { count(Role::Prunable) } else { 0 },
        step: match s.step.in_metric() {
            true => format!(
                "{} in the {} metric, {} products at most",
                s.step.kind.as_str(),
                s.step.output_metric.as_str(),
                s.step.products
            ),
            false => String::new(),
        },
        target_sparsity: prunes.then_some(s.path.sparsity),
        head: setup.new_head.clone(),
        image_size: s.image_size.map(|size| size.to_string()).unwrap_or_default(),
    }
}

fn evaluation(eval: &report::Eval) -> String {
    let network = format!("{:?}", eval.network).to_lowercase();
    let metrics: Vec<String> =
        eval.metrics.iter().map(|(name, value)| format!("{name} {}", metric(name, *value))).collect();
    let distance = eval.distance.map(|d| format!(", distance {}", number(d))).unwrap_or_default();
    let sparsity = if eval.sparsity > 0.0 { format!(" at {} zeros", percent(eval.sparsity)) } else { String::new() };
    format!("step {:>5}  {network}{sparsity}: {}{distance}", eval.step, metrics.join(", "))
}

/// Shares as percentages, everything else as it is.
pub fn metric(name: &str, value: f64) -> String {
    if name == "accuracy" { percent(value) } else { number(value) }
}

/// Stores the model and the report, and says how it ended.
fn finish(setup: &Setup, out: &Path, recorder: &mut Recorder, manner: &Manner, outcome: Outcome) -> Result<Outcome> {
    for (nth, span) in setup.layout.spans().iter().enumerate() {
        let (before, after) = (&setup.weights[span.range()], &outcome.weights[span.range()]);
        let zeros = after.iter().filter(|&&x| x == 0.0).count() as u64;
        let prunable = span.role == Role::Prunable && setup.settings.method != Method::Train;
        recorder.write(report::Layer {
            name: span.name.clone(),
            shape: span.shape.clone(),
            parameters: span.len as u64,
            zeros,
            prunable,
            histogram: (prunable || nth == 0).then(|| Histogram::of(before, after, BINS)),
            filters: if prunable { filters(span, after) } else { Vec::new() },
        })?;
    }
    let model = out.join(MODEL);
    let folder = Folder::create(&model, true)?;
    let tensors = setup.network.tensors(&setup.layout, &outcome.weights);
    let followed = setup.settings.objective.batch_norm == BatchNorms::Running;
    let batches = if followed { outcome.steps * setup.settings.optimization.accumulation } else { 0 };
    match &setup.folder {
        Some(from) => from.write(&folder, &tensors, &setup.raw, setup.settings.save_dtype.precision(), batches)?,
        None => {
            folder::write_new(&folder, &tensors, &setup.raw, batches)?;
        }
    }
    if let Some(map) = &setup.preprocessor {
        // How bytes became numbers.
        let map = serde_json::Value::Object(map.clone());
        folder.write(preprocess::FILE, |w| w.write_all(format!("{map:#}\n").as_bytes()))?;
    }
    let model = folder.commit()?;

    for event in (manner.closing)(&outcome) {
        recorder.write(event)?;
    }
    let judged = judge(setup, &outcome);
    let prunes = setup.settings.method != Method::Train;
    let end = report::End {
        status: if judged.is_ok() { "done" } else { "target not met" }.into(),
        sparsity_prunable: prunes.then_some(outcome.sparsity),
        sparsity_model: prunes.then_some(outcome.sparsity_model),
        message: judged.as_ref().err().map(Error::to_string).unwrap_or_default(),
    };
    recorder.write(end)?;
    let page = html::write(out)?;
    let output = manner.output;
    if manner.summary && !output.json {
        output.result(&json!(null), &[summary(setup, &outcome, recorder.seconds())])?;
        output.remark(format!("\nmodel   {}\nreport  {}", model.display(), page.display()));
    }
    judged.map(|()| outcome)
}

/// How many weights each filter of a convolution has left.
fn filters(span: &Span, weights: &[f32]) -> Vec<u64> {
    let each = match span.shape[..] {
        [_, c, h, w] => c * h * w,
        _ => return Vec::new(),
    };
    weights.chunks(each).map(|filter| filter.iter().filter(|&&x| x != 0.0).count() as u64).collect()
}

/// Whether the stored network is what was asked for.
fn judge(setup: &Setup, outcome: &Outcome) -> Result<()> {
    let zeros = Zeros::count(&setup.layout, &outcome.weights);
    let s = &setup.settings;
    // Scopes round their own counts, row by row; more than a weight a row short is a failure.
    let slack = setup.layout.with_role(Role::Prunable).map(|x| x.matrix().0).sum::<usize>() as f64
        / setup.layout.count(Role::Prunable).max(1) as f64;
    if s.method != Method::Train && zeros.prunable() + slack < s.path.sparsity {
        return Err(Error::TargetNotMet(format!(
            "wanted a sparsity of {}, reached {}",
            s.path.sparsity,
            zeros.prunable()
        )));
    }
    require::check(&s.require, &outcome.last.as_ref().map(|e| e.metrics.clone()).unwrap_or_default())
}

fn summary(setup: &Setup, outcome: &Outcome, seconds: f64) -> report::Table {
    let mut rows = vec![("steps", outcome.steps.to_string()), ("time", report::numbers::duration(seconds))];
    if setup.settings.method != Method::Train {
        let sparsity = format!(
            "{} of the prunable weights, {} of the model",
            percent(outcome.sparsity),
            percent(outcome.sparsity_model)
        );
        rows.push(("sparsity", sparsity));
    }
    let names: Vec<String> = outcome.last.iter().flat_map(|e| e.metrics.keys().cloned()).collect();
    for name in &names {
        let of = |e: &Option<Evaluation>| e.as_ref().and_then(|e| e.metrics.get(name)).map(|v| metric(name, *v));
        if let Some(last) = of(&outcome.last) {
            rows.push((name, of(&outcome.dense).map_or(last.clone(), |dense| format!("{last} (was {dense})"))));
        }
    }
    facts(&rows)
}

/// The command line as it was typed, quoted where a shell needs it.
pub fn typed() -> String {
    let quoted = |word: String| {
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./:,%@+".contains(c)) && !word.is_empty();
        if plain { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    let words: Vec<String> = std::env::args().skip(1).map(quoted).collect();
    format!("fipk {}", words.join(" "))
}
