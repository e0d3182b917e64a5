//! A network on a data set: its metrics, and its logits where they are few.
use super::metrics::{accuracy, argmax, cross_entropy, f1, matthews, pearson, spearman};
use super::objective::attended;
use super::runner::Runner;
use crate::data::{Ahead, Batch, Batches, Dataset, NOT_SCORED, Targets, ahead};
use crate::engine::Vector;
use crate::models::Head;
use crate::ops::Distance;
use crate::ops::distance::row;
use crate::report::{Drift, Quantiles};
use crate::{Error, Result};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// By name, as [`crate::report::Eval`] has them.
    pub metrics: BTreeMap<String, f64>,
    /// [examples, outputs] in the data's order; empty for a network with logits at every token.
    pub logits: Vec<f32>,
}

/// Predictions and targets as they come in, example by example.
#[derive(Default)]
struct Tally {
    predicted: Vec<usize>,
    labels: Vec<usize>,
    scores: (Vec<f64>, Vec<f64>),
    loss: f64,
}

/// Evaluate the network at weights `w` on all of `data`.
///
/// # Errors
/// [`Error::Data`] for data of another task; [`Error::NotFinite`] for logits that are no numbers.
pub fn evaluate(runner: &mut Runner, w: Vector, data: &dyn Dataset, batch: usize) -> Result<Evaluation> {
    ahead(Batches::in_order(data, batch)?, |batches| tally(runner, w, data.len(), batches))
}

fn tally(runner: &mut Runner, w: Vector, examples: usize, batches: &mut Ahead<Result<Batch>>) -> Result<Evaluation> {
    let (mut tally, mut logits) = (Tally::default(), Vec::new());
    let head = runner.network.head;
    for batch in batches {
        let batch = batch?;
        let z = runner.logits(w, &batch)?;
        if z.iter().any(|v| !v.is_finite()) {
            let hint = "the weights have run away; lower --learning-rate, or --lambda with exact and null steps";
            return Err(Error::not_finite("evaluation", "a logit", hint));
        }
        let outputs = tally.add(&batch, head, &z)?;
        if head != Head::MaskedLm {
            logits.resize(examples * outputs, 0.0);
            for (r, &i) in batch.examples.iter().enumerate() {
                logits[i * outputs..(i + 1) * outputs].copy_from_slice(&z[r * outputs..(r + 1) * outputs]);
            }
        }
    }
    Ok(Evaluation { metrics: tally.metrics(head), logits })
}

impl Tally {
    /// Takes in a batch and returns the number of logits a row.
    fn add(&mut self, batch: &Batch, head: Head, z: &[f32]) -> Result<usize> {
        let rows = match &batch.targets {
            Targets::Tokens(y) => y.len(),
            _ => batch.rows,
        };
        let outputs = z.len() / rows.max(1);
        let line = |r: usize| &z[r * outputs..(r + 1) * outputs];
        match (&batch.targets, head) {
            (Targets::Classes(y), Head::Classification { .. }) => {
                for (r, &y) in y.iter().enumerate().take(batch.examples.len()) {
                    self.class(line(r), y)?;
                }
            }
            (Targets::Scores(y), Head::Regression) => {
                for (r, &y) in y.iter().enumerate().take(batch.examples.len()) {
                    let (z, y) = (f64::from(line(r)[0]), f64::from(y));
                    self.scores.0.push(z);
                    self.scores.1.push(y);
                    self.loss += (z - y) * (z - y);
                }
            }
            (Targets::Tokens(y), Head::MaskedLm) => {
                for (r, &y) in y.iter().enumerate().filter(|(_, y)| **y != NOT_SCORED) {
                    self.class(line(r), y)?;
                }
            }
            (_, head) => {
                let hint = "evaluate on data of the model's task";
                return Err(Error::data("labels", format!("these targets do not go with a head for {head:?}"), hint));
            }
        }
        Ok(outputs)
    }

    fn class(&mut self, row: &[f32], label: i32) -> Result<()> {
        let Some(class) = usize::try_from(label).ok().filter(|&y| y < row.len()) else {
            let what = format!("wanted a class in 0..{}, got {label}", row.len());
            return Err(Error::data("labels", what, "the model's number of labels must cover those of the data"));
        };
        self.predicted.push(argmax(row));
        self.labels.push(class);
        self.loss += cross_entropy(row, class);
        Ok(())
    }

    fn metrics(self, head: Head) -> BTreeMap<String, f64> {
        let (p, y) = (&self.predicted, &self.labels);
        let loss = self.loss / y.len().max(self.scores.0.len()).max(1) as f64;
        let mut out = vec![("loss", loss)];
        match head {
            Head::Regression => {
                let (z, y) = (&self.scores.0, &self.scores.1);
                out.extend([("pearson", pearson(z, y)), ("spearman", spearman(z, y))]);
            }
            Head::MaskedLm => out.extend([("accuracy", accuracy(p, y)), ("perplexity", loss.exp())]),
            _ => out.push(("accuracy", accuracy(p, y))),
        }
        if head == (Head::Classification { labels: 2 }) {
            out.extend([("f1", f1(p, y)), ("matthews", matthews(p, y))]);
        }
        out.into_iter().map(|(k, v)| (k.to_string(), v)).collect()
    }
}

/// Mean distance of logits [rows, outputs] to a teacher's.
pub fn mean_distance(kind: Distance, z: &[f32], teacher: &[f32], outputs: usize) -> f64 {
    let rows = z.chunks(outputs).zip(teacher.chunks(outputs));
    let total: f64 = rows.map(|(z, t)| row(kind, z, t)).sum();
    total / (z.len() / outputs.max(1)).max(1) as f64
}

/// The distances that drift is measured by, in the order of [`Apart::distances`].
pub const KINDS: [Distance; 4] = [Distance::Euclidean, Distance::Bhattacharyya, Distance::Kl, Distance::Hellinger];

/// How far apart the outputs of two networks are, example by example.
///
/// An example's distance is that of its logits; for a network with logits at every token, the mean over its attended
/// positions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Apart {
    pub distances: [Vec<f64>; 4],
    /// The share of an example's positions on which another class comes first; none for a network that gives one number.
    pub flips: Option<Vec<f64>>,
    /// Positions that count, and those of them with the same first class.
    pub examples: Vec<(usize, usize)>,
}

impl Apart {
    pub fn len(&self) -> usize {
        self.distances[0].len()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The mean over positions that count, whatever example they are of: what the metric predicts.
    pub fn mean(&self, kind: Distance) -> f64 {
        let weighed = self.of(kind).iter().zip(&self.examples).map(|(d, (n, _))| d * *n as f64);
        weighed.sum::<f64>() / self.examples.iter().map(|(n, _)| *n).sum::<usize>() as f64
    }
    /// Of one kind.
    pub fn of(&self, kind: Distance) -> &[f64] {
        KINDS.iter().position(|k| *k == kind).map_or(&[], |i| &self.distances[i])
    }
}

/// How far apart the outputs of two networks are on `data`: `a` and `b` give the logits of a batch.
///
/// # Errors
/// Those of `a` and `b`; [`Error::Model`] where the two differ in their number of outputs; [`Error::NotFinite`].
pub fn drift(
    data: &dyn Dataset,
    batch: usize,
    head: Head,
    a: impl FnMut(&Batch) -> Result<Vec<f32>>,
    b: impl FnMut(&Batch) -> Result<Vec<f32>>,
) -> Result<Drift> {
    let found = apart(data, batch, head, a, b)?;
    let quantiles = KINDS.iter().zip(&found.distances).map(|(k, d)| Ok((k.to_string(), Quantiles::of(k.as_str(), d)?)));
    let (positions, same) = found.examples.iter().fold((0, 0), |(p, s), e| (p + e.0, s + e.1));
    Ok(Drift {
        examples: found.len() as u64,
        distances: quantiles.collect::<Result<_>>()?,
        same_top1: found.flips.as_ref().map(|_| same as f64 / positions.max(1) as f64),
        ..Drift::default()
    })
}

/// The same, example by example in the order of the batches; what is not a number stays so.
///
/// # Errors
/// Those of `a` and `b`; [`Error::Model`] where the two differ in their number of outputs.
pub fn apart(
    data: &dyn Dataset,
    batch: usize,
    head: Head,
    mut a: impl FnMut(&Batch) -> Result<Vec<f32>>,
    mut b: impl FnMut(&Batch) -> Result<Vec<f32>>,
) -> Result<Apart> {
    ahead(Batches::in_order(data, batch)?, |batches| each_apart(batches, head, &mut a, &mut b))
}

fn each_apart(
    batches: &mut Ahead<Result<Batch>>,
    head: Head,
    a: &mut dyn FnMut(&Batch) -> Result<Vec<f32>>,
    b: &mut dyn FnMut(&Batch) -> Result<Vec<f32>>,
) -> Result<Apart> {
    let mut found = Apart { flips: (head != Head::Regression).then(Vec::new), ..Apart::default() };
    for batch in batches {
        let batch = batch?;
        let (z, t) = (b(&batch)?, a(&batch)?);
        if z.len() != t.len() {
            let what = format!("the two networks have {} and {} outputs a batch", t.len(), z.len());
            return Err(Error::model("drift", what, "compare networks with the same head"));
        }
        let counts = attended(&batch, head);
        let outputs = z.len() / counts.len().max(1);
        let per_sample = counts.len() / batch.rows.max(1);
        for sample in 0..batch.examples.len() {
            let rows: Vec<usize> = (sample * per_sample..(sample + 1) * per_sample).filter(|&r| counts[r]).collect();
            let line = |x: &[f32], r: usize| x[r * outputs..(r + 1) * outputs].to_vec();
            // What is not a number has no distance, and no first class.
            let real = |&&r: &&usize| line(&z, r).iter().chain(&line(&t, r)).all(|v| v.is_finite());
            let finite = rows.iter().all(|r| real(&r));
            for (kind, found) in KINDS.iter().zip(&mut found.distances) {
                let total: f64 = rows.iter().map(|&r| row(*kind, &line(&z, r), &line(&t, r))).sum();
                found.push(if finite { total / rows.len().max(1) as f64 } else { f64::NAN });
            }
            let first = |x: &[f32], r: usize| argmax(&line(x, r));
            let same = rows.iter().filter(real).filter(|&&r| first(&z, r) == first(&t, r)).count();
            found.examples.push((rows.len(), same));
            if let Some(flips) = &mut found.flips {
                flips.push(if finite { 1.0 - same as f64 / rows.len().max(1) as f64 } else { f64::NAN });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{self, Reading};
    use crate::fip::drift::hold;

    #[test]
    fn a_mean_over_positions_weighs_long_examples_more() {
        let distances = std::array::from_fn(|_| vec![1.0, 2.0]);
        let found = Apart { distances, flips: None, examples: vec![(1, 0), (3, 0)] };
        assert_eq!(found.mean(Distance::Kl), 1.75);
        assert!(Apart::default().mean(Distance::Kl).is_nan());
    }

    #[test]
    fn logits_that_are_no_numbers_keep_no_limit() {
        let data = data::load(&"digits:3".parse().unwrap(), "test", &Reading::default()).unwrap();
        let head = Head::Classification { labels: 10 };
        // Both put class 0 first wherever there are numbers.
        let numbers: Vec<f32> = (0..30).map(|i| if i % 10 == 0 { 1.0 } else { 0.0 }).collect();
        for (place, value) in [(10, f32::NAN), (15, f32::NAN), (12, f32::INFINITY)] {
            let mut broken = numbers.clone();
            broken[place] = value;
            for swap in [false, true] {
                let (a, b) = if swap { (&broken, &numbers) } else { (&numbers, &broken) };
                let found = apart(&*data, 3, head, |_| Ok(a.clone()), |_| Ok(b.clone())).unwrap();
                let flips = found.flips.as_ref().unwrap();
                assert!(flips[0] == 0.0 && flips[1].is_nan() && flips[2] == 0.0, "{flips:?}");
                assert_eq!(found.examples, [(1, 1), (1, 0), (1, 1)]);
                let held = hold(&"flips<=100%,kl<=1e9,euclidean.max<=1e9".parse().unwrap(), &found, 0);
                assert!(held.iter().all(|h| !h.kept && !h.surely), "{held:?}");
            }
        }
    }
}
