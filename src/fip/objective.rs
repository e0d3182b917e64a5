//! What a step minimises, as a graph: the network's logits, their distance to the anchor's, the loss on labels.
use super::recipe::{BatchNorms, Objective};
use crate::data::{Batch, NOT_SCORED, Targets, Values};
use crate::engine::Data;
use crate::graph::{Graph, Mode, Program, Scope, Value, Wrt, build};
use crate::models::{Head, Network, Sample};
use crate::params::{Layout, Role};
use crate::tensor::Element;
use crate::{Error, Result};

/// Inputs the objective adds to the network's.
const TEACHER: &str = "teacher.logits";
const DISTANCE_WEIGHTS: &str = "distance.weights";
const LABELS: &str = "labels";
const LABEL_WEIGHTS: &str = "labels.weights";

/// The marks "logits", "loss" and, where they are part of it, "distance" and "labels" (both times their weight).
pub fn graph(network: &Network, objective: &Objective, rows: usize, sample: impl Into<Sample>) -> Result<Graph> {
    let sample = sample.into();
    build(|s| {
        let logits = match objective.batch_norm {
            BatchNorms::Running => network.logits(&s.batch_statistics(), rows, sample),
            _ => network.logits(s, rows, sample),
        };
        s.mark("logits", logits);
        let terms = [distance(s, objective, logits), labels(s, network.head, objective, logits)];
        if let Some(loss) = terms.into_iter().flatten().reduce(|a, b| s.add(a, b)) {
            s.mark("loss", loss);
        }
    })
}

/// The program of an objective's gradient with respect to what the layout trains.
pub fn reverse(graph: &Graph, layout: &Layout) -> Result<Program> {
    let frozen = layout.with_role(Role::Frozen).map(|s| s.name.clone()).collect();
    Program::compile(graph, Mode::Reverse, &Wrt { frozen, ..Wrt::params() }, "loss")
}

/// The shapes of logits and of what weighs their rows.
fn shapes(s: &Scope, logits: Value) -> (Vec<usize>, Vec<usize>) {
    let shape = s.shape(logits);
    let rows = shape[..shape.len().saturating_sub(1)].to_vec();
    (shape, rows)
}

fn distance(s: &Scope, objective: &Objective, logits: Value) -> Option<Value> {
    (objective.distance > 0.0).then(|| {
        let (shape, rows) = shapes(s, logits);
        let teacher = s.input(TEACHER, &shape, Element::Real);
        let weights = s.input(DISTANCE_WEIGHTS, &rows, Element::Real);
        let d = s.distance(objective.odist, logits, teacher, weights);
        s.mark("distance", d);
        d
    })
}

fn labels(s: &Scope, head: Head, objective: &Objective, logits: Value) -> Option<Value> {
    (objective.labels > 0.0).then(|| {
        let (shape, rows) = shapes(s, logits);
        let weights = s.input(LABEL_WEIGHTS, &rows, Element::Real);
        let loss = match head {
            Head::Regression => s.squared_error(logits, s.input(LABELS, &shape, Element::Real), weights),
            _ => s.cross_entropy(logits, s.input(LABELS, &rows, Element::Index), weights),
        };
        s.mark("labels", loss);
        loss
    })
}

/// The inputs of a batch: the network's own, and those of its objective.
pub struct Inputs {
    own: Vec<(&'static str, Values)>,
}

impl Inputs {
    /// The network's own.
    pub fn of(batch: &Batch) -> Self {
        Self { own: batch.inputs.iter().map(|i| (i.name, i.values.clone())).collect() }
    }

    /// With the weights of a mean over real samples (over their unmasked, or scored, positions), and the anchor's logits.
    ///
    /// # Errors
    /// [`Error::Data`] for targets that do not go with the head.
    pub fn with(mut self, batch: &Batch, head: Head, objective: &Objective, teacher: Option<Vec<f32>>) -> Result<Self> {
        if let Some(teacher) = teacher {
            let weights = mean(objective.distance, &attended(batch, head));
            self.own.extend([(TEACHER, Values::Real(teacher)), (DISTANCE_WEIGHTS, Values::Real(weights))]);
        }
        if objective.labels > 0.0 {
            let (labels, weights) = match (&batch.targets, head) {
                (Targets::Classes(y), Head::Classification { .. }) => (Values::Index(y.clone()), real(batch)),
                (Targets::Scores(y), Head::Regression) => (Values::Real(y.clone()), real(batch)),
                (Targets::Tokens(y), Head::MaskedLm) => {
                    (Values::Index(y.iter().map(|&y| y.max(0)).collect()), y.iter().map(|&y| y != NOT_SCORED).collect())
                }
                (_, head) => {
                    return Err(Error::data(
                        "labels",
                        format!("these targets do not go with a head for {head:?}"),
                        "choose data of the model's task, or train a head for it with `fipk train`",
                    ));
                }
            };
            let weights = mean(objective.labels, &weights);
            self.own.extend([(LABELS, labels), (LABEL_WEIGHTS, Values::Real(weights))]);
        }
        Ok(self)
    }

    /// As an engine binds them.
    pub fn bind(&self) -> Vec<(&str, Data<'_>)> {
        self.own.iter().map(|(name, values)| (*name, bound(values))).collect()
    }
}

fn bound(values: &Values) -> Data<'_> {
    match values {
        Values::Real(v) => Data::Real(v),
        Values::Index(v) => Data::Index(v),
    }
}

/// Which rows are examples and not padding.
fn real(batch: &Batch) -> Vec<bool> {
    (0..batch.rows).map(|r| r < batch.examples.len()).collect()
}

/// Which rows of logits count for a distance: real samples, or every attended position of them.
pub fn attended(batch: &Batch, head: Head) -> Vec<bool> {
    let mask = batch.inputs.iter().find(|i| i.name == "attention_mask");
    match (head, mask.map(|m| &m.values)) {
        (Head::MaskedLm, Some(Values::Index(mask))) => mask.iter().map(|&m| m != 0).collect(),
        _ => real(batch),
    }
}

/// `total` spread evenly over the rows that count.
fn mean(total: f64, counts: &[bool]) -> Vec<f32> {
    let n = counts.iter().filter(|&&c| c).count().max(1);
    let each = (total / n as f64) as f32;
    counts.iter().map(|&c| if c { each } else { 0.0 }).collect()
}
