//! The events of a run, one JSON line each: `metrics.jsonl` is written as things happen and read back by the report.
use super::summary::{Histogram, Quantiles};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// One line of `metrics.jsonl`: an event and when it happened, in seconds since the run started (time between an
/// interruption and its resumption is not counted).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub seconds: f64,
    #[serde(flatten)]
    pub event: Event,
}

/// What can happen; the JSON field `event` says which, in snake case.
///
/// Absent values are left out of the line, so no `null` is ever written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Start(Start),
    Step(Step),
    Eval(Eval),
    Layer(Layer),
    Drift(Drift),
    Table(Table),
    Warning(Warning),
    End(End),
}

/// What is about to run, on what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The command line as typed.
    pub command: String,
    pub method: String,
    pub model: String,
    pub data: String,
    pub seed: u64,
    pub threads: usize,
    pub device: String,
    pub version: String,
    /// Weights of the whole model, and those that may be set to zero.
    pub parameters: u64,
    pub prunable: u64,
    /// How the path's steps are solved for, where not by the optimizer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// Over the prunable weights, in 0..1; none where nothing is pruned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_sparsity: Option<f64>,
    /// What of the model's head was drawn anew, if anything.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub head: String,
    /// Pixels of the images, where it is not the model's own size.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image_size: String,
}

/// One optimizer step. What a method has no notion of (a distance in supervised training, say) is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Counted from 1, out of `steps`.
    pub step: u64,
    pub steps: u64,
    /// Passes over the data so far, with fractions.
    pub epoch: f64,
    /// What the optimizer descends.
    pub loss: f64,
    /// Output distance to the anchor, mean over the batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_entropy: Option<f64>,
    /// ‖w − w_p‖₂ over the prunable weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<f64>,
    /// ‖w − w_p‖ / ‖w‖, what the stop rule looks at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_relative: Option<f64>,
    /// Where the ramp stands, in 0..1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparsity_target: Option<f64>,
    pub learning_rate: f64,
    /// ‖gradient‖₂ before clipping.
    pub gradient_norm: f64,
    /// Of a step in the metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solve: Option<Solve>,
    pub milliseconds: f64,
    /// Of these, what was spent waiting for data.
    #[serde(default)]
    pub data_wait: f64,
    /// Examples in this step, over all accumulated batches.
    pub examples: u64,
}

/// How a step in the metric was solved for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Solve {
    /// `exact` or `null`.
    pub kind: String,
    /// Of the step, in the coordinates that it was solved in.
    pub length: f64,
    /// The multiplier of the sphere, or the damping.
    pub mu: f64,
    /// What the optimality system is missed by, relative to its right-hand side.
    pub residual: f64,
    /// The hard case: the goal has nothing along the metric's smallest eigenvalue.
    pub hard: bool,
    /// Products with the metric: the inner iterations.
    pub products: u64,
    /// ½ ψᵀ g ψ: the second-order drift of this step alone.
    pub drift: f64,
}

/// Which network an evaluation is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// As it came.
    #[default]
    Dense,
    /// On the path, projected to its present sparsity.
    Projected,
    /// On the path, projected to a sparsity that was asked for in passing.
    Passing,
    /// On the path, as it is: a diagnostic only.
    Unprojected,
    /// As it is stored.
    Final,
}

/// Metrics of one network on one split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Eval {
    pub step: u64,
    pub split: String,
    pub network: Network,
    /// `accuracy` and `f1` in 0..1, `matthews`, `pearson`, `spearman` in -1..1, `perplexity`, `loss`.
    pub metrics: BTreeMap<String, f64>,
    /// Output distance to the dense network, mean over the split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
    /// Over the prunable weights, in 0..1.
    pub sparsity: f64,
}

/// One parameter tensor at the end of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    pub name: String,
    pub shape: Vec<usize>,
    pub parameters: u64,
    pub zeros: u64,
    pub prunable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histogram>,
    /// Of a pruned convolution: the weights left in each filter (output channel), in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<u64>,
}

/// How far the outputs of network `b` are from those of `a` on the same examples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    pub a: String,
    pub b: String,
    pub examples: u64,
    /// By the distance's name.
    pub distances: BTreeMap<String, Quantiles>,
    /// Share of examples on which both networks put the same class first, in 0..1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_top1: Option<f64>,
}

/// A table for people: a comparison of methods, for example.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub title: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Warning {
    pub message: String,
}

/// How it ended: `done`, `interrupted`, `target not met`, `failed`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub status: String,
    /// Over the prunable weights and over the whole model, in 0..1; none where nothing is pruned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparsity_prunable: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparsity_model: Option<f64>,
    pub message: String,
}

macro_rules! events {
    ($($name:ident),*) => {$(
        impl From<$name> for Event {
            fn from(event: $name) -> Self { Event::$name(event) }
        }
    )*};
}
events!(Start, Step, Eval, Layer, Drift, Table, Warning, End);

/// Appends events to `metrics.jsonl`, each line in one write, so that a killed process leaves at most the last line torn.
pub struct Recorder {
    file: Option<(File, PathBuf)>,
    /// Bytes of whole lines in the file.
    length: u64,
    echo: bool,
    started: Instant,
    /// Seconds already on the clock when this process took over.
    before: f64,
}

impl Recorder {
    /// A new file, or an empty one; a file with events belongs to another run and is refused.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(Error::io("create", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        if length > 0 {
            let hint = "give another --out, delete the folder, or continue that run with `fipk resume`";
            return Err(Error::usage(path.display().to_string(), "holds the events of another run", hint));
        }
        Ok(Self::over(Some((file, path.to_path_buf())), 0, 0.0))
    }

    /// Continues the run whose checkpoint was written after `step` steps: what the file says of later steps, of an end,
    /// and a torn last line is cut off, since it will happen again.
    ///
    /// So record what belongs to a step before writing its checkpoint.
    pub fn resume(path: &Path, step: u64) -> Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(Error::io("open", path))?;
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let later = |event: &Event| match event {
            Event::Step(at) => at.step > step,
            // What belongs to the end happens again, even at the last step.
            Event::Eval(at) => at.step > step || at.network == Network::Final,
            Event::Layer(_) | Event::Drift(_) | Event::End(_) => true,
            _ => false,
        };
        let (mut length, mut before) = (0, 0.0);
        for (end, record) in parse(path, &bytes)? {
            if later(&record.event) {
                break;
            }
            (length, before) = (end, record.seconds);
        }
        file.set_len(length as u64).map_err(Error::io("truncate", path))?;
        if length > 0 && bytes[length - 1] != b'\n' {
            file.write_all(b"\n").map_err(Error::io("write", path))?;
            length += 1;
        }
        Ok(Self::over(Some((file, path.to_path_buf())), length as u64, before))
    }

    /// Keeps nothing: for commands without a run folder, alone or with [`Recorder::echo`].
    pub fn none() -> Self {
        Self::over(None, 0, 0.0)
    }

    fn over(file: Option<(File, PathBuf)>, length: u64, before: f64) -> Self {
        Self { file, length, echo: false, started: Instant::now(), before }
    }

    /// Also prints every line on stdout (`--json`).
    pub fn echo(self, echo: bool) -> Self {
        Self { echo, ..self }
    }

    /// Seconds since the run started.
    pub fn seconds(&self) -> f64 {
        self.before + self.started.elapsed().as_secs_f64()
    }

    /// Appends one line. A number that is not finite is an error that names its field, since JSON would make it `null`.
    /// When the disk refuses, what was written of the line is taken back.
    pub fn write(&mut self, event: impl Into<Event>) -> Result<()> {
        let mut line = self.line(event.into())?;
        line.push('\n');
        if let Some((file, path)) = &mut self.file {
            if let Err(refused) = file.write_all(line.as_bytes()) {
                // The first error is the one to report; a line that stays torn is what the reader tolerates.
                let _ = file.set_len(self.length);
                return Err(Error::io("write", path)(refused));
            }
            self.length += line.len() as u64;
        }
        if self.echo {
            let mut stdout = std::io::stdout().lock();
            let shown = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
            shown.map_err(Error::io("write", Path::new("stdout")))?;
        }
        Ok(())
    }

    fn line(&self, event: Event) -> Result<String> {
        let place = || self.file.as_ref().map_or("an event".to_string(), |(_, path)| path.display().to_string());
        let broken = |why: serde_json::Error| Error::data(place(), why.to_string(), "this event cannot be JSON");
        // Rounded to microseconds: the digits after them say nothing.
        let record = Record { seconds: (self.seconds() * 1e6).round() / 1e6, event };
        let value = serde_json::to_value(&record).map_err(broken)?;
        if let Some(field) = find_null(&value) {
            let kind = value["event"].as_str().unwrap_or("event");
            let hint = "the run diverged or its input holds NaN; lower the learning rate or check the data";
            return Err(Error::not_finite(place(), format!("field {field} of event {kind}"), hint));
        }
        serde_json::to_string(&value).map_err(broken)
    }
}

/// The dotted name of the first `null`: events write none of their own, so each was a number that is not finite.
fn find_null(value: &Value) -> Option<String> {
    let within = |key: String, inner: &Value| {
        find_null(inner).map(|rest| if rest.is_empty() { key.clone() } else { format!("{key}.{rest}") })
    };
    match value {
        Value::Null => Some(String::new()),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| within(index.to_string(), item)),
        Value::Object(fields) => fields.iter().find_map(|(key, field)| within(key.clone(), field)),
        _ => None,
    }
}

/// All events of a file, in order. A torn last line (no newline, no JSON) is passed over; any other damage is an error
/// that names file and line. Numbers come back to within one unit in their last place.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    Ok(parse(path, &bytes)?.into_iter().map(|(_, record)| record).collect())
}

/// Each record with the offset just behind its line.
fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<(usize, Record)>> {
    let mut records = Vec::new();
    let mut end = 0;
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        end += line.len();
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(record) => records.push((end, record)),
            Err(_) if !line.ends_with(b"\n") => break,
            Err(why) => {
                let place = format!("{}:{}", path.display(), index + 1);
                let hint = "delete that line, or restore the file; the run's checkpoints do not depend on it";
                return Err(Error::data(place, format!("wanted one event as JSON, got: {why}"), hint));
            }
        }
    }
    Ok(records)
}
