//! Running averages of batch normalisations (Ioffe and Szegedy 2015) along a run: kept, followed, or estimated anew.
//!
//! A graph that normalises by its batch ([`crate::graph::Scope::batch_statistics`]) marks each mean and variance by the name of
//! the running average it stands for. So whoever ran it fetches them, and writes averages into the weights' vector, where
//! they lie among what nothing trains.
use super::objective::Inputs;
use crate::data::Batch;
use crate::engine::{Bindings, Engine, Loaded, Vector};
use crate::graph::{Graph, Kind, Mode, Program, Source, Wrt, build};
use crate::models::{Network, Sample};
use crate::params::Layout;
use crate::tensor::numel;
use crate::{Error, Result};
use std::ops::Range;

/// What PyTorch's batch norms take of a new batch by default.
const MOMENTUM: f64 = 0.1;

/// A running average in the layout, and how many numbers a channel its batch's value was made of.
#[derive(Clone, Debug)]
struct Average {
    name: String,
    range: Range<usize>,
    count: usize,
    variance: bool,
}

/// The statistics of one graph.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    averages: Vec<Average>,
}

/// Whether the network has batch norms.
pub fn any(layout: &Layout) -> bool {
    layout.spans().iter().any(|s| s.kind == Kind::Statistic)
}

impl Statistics {
    /// Those that `graph` marks.
    pub fn of(graph: &Graph, layout: &Layout) -> Self {
        let statistic = |(name, value): &(String, crate::graph::Value)| {
            let span = layout.span(name).filter(|s| s.kind == Kind::Statistic)?;
            let Source::Node { args, .. } = &graph.tensor(*value).source else { return None };
            let count = numel(&graph.tensor(*args.first()?).shape) / span.len.max(1);
            Some(Average { name: name.clone(), range: span.range(), count, variance: name.ends_with("var") })
        };
        Self { averages: graph.marks.iter().filter_map(statistic).collect() }
    }

    /// What the batch that `program` ran on last has, as PyTorch averages it: variances unbiased. In the averages' order.
    fn batch(&self, engine: &dyn Engine, program: Loaded) -> Result<Vec<Vec<f64>>> {
        let one = |a: &Average| {
            if a.variance && a.count < 2 {
                let what = format!("{}: one number a channel has no variance", a.name);
                return Err(Error::usage("--batch", what, "take batches of two images or more"));
            }
            let unbiased = if a.variance { a.count as f64 / (a.count - 1) as f64 } else { 1.0 };
            Ok(engine.fetch(program, &a.name)?.into_iter().map(|x| f64::from(x) * unbiased).collect())
        };
        self.averages.iter().map(one).collect()
    }

    /// running += momentum (batch − running), at `w`.
    ///
    /// # Errors
    /// What the engine says; [`Error::Usage`] for a batch of one number a channel.
    pub fn follow(&self, engine: &mut dyn Engine, program: Loaded, w: Vector) -> Result<()> {
        for (a, batch) in self.averages.iter().zip(self.batch(engine, program)?) {
            let mut running = vec![0.0f32; a.range.len()];
            engine.read(w, a.range.start, &mut running)?;
            let next = |(r, b): (&mut f32, f64)| *r = (f64::from(*r) + MOMENTUM * (b - f64::from(*r))) as f32;
            running.iter_mut().zip(batch).for_each(next);
            engine.write(w, a.range.start, &running)?;
        }
        Ok(())
    }

    /// Plain means over batches, written to `w` once all are in.
    ///
    /// # Errors
    /// As [`Statistics::follow`]; [`Error::NotFinite`].
    fn average(&self, engine: &mut dyn Engine, w: Vector, sums: &[Vec<f64>], batches: usize) -> Result<()> {
        for (a, sum) in self.averages.iter().zip(sums) {
            let mean: Vec<f32> = sum.iter().map(|s| (s / batches as f64) as f32).collect();
            if mean.iter().any(|m| !m.is_finite()) {
                let hint = "the weights have run away; lower --learning-rate";
                return Err(Error::not_finite("batch norm", format!("the estimate of {}", a.name), hint));
            }
            engine.write(w, a.range.start, &mean)?;
        }
        Ok(())
    }
}

/// The statistics of `batches` under the weights `w`, in place of the running averages there: each layer's are those of what the
/// layers before it give when they normalise by the batch too, as in training. Batches that are not full are left out.
///
/// # Errors
/// [`Error::Data`] without a full batch; what engine and data say.
pub fn reestimate(
    engine: &mut dyn Engine,
    network: &Network,
    w: Vector,
    shape_of: impl Fn(&Batch) -> (usize, Sample),
    batches: impl Iterator<Item = Result<Batch>>,
) -> Result<()> {
    let mut ready: Option<((usize, Sample), Loaded, Statistics)> = None;
    let (mut sums, mut count): (Vec<Vec<f64>>, usize) = (Vec::new(), 0);
    for batch in batches {
        let batch = batch?;
        let shape = shape_of(&batch);
        if batch.examples.len() < batch.rows || ready.as_ref().is_some_and(|r| r.0 != shape) {
            continue;
        }
        if ready.is_none() {
            let (rows, sample) = shape;
            let graph = build(|s| s.mark("logits", network.logits(&s.batch_statistics(), rows, sample)))?;
            let statistics = Statistics::of(&graph, engine.layout());
            let program = engine.load(Program::compile(&graph, Mode::Forward, &Wrt::default(), "logits")?)?;
            ready = Some((shape, program, statistics));
        }
        let Some((_, program, statistics)) = &ready else { continue };
        engine.run(*program, &Bindings::new(w, &Inputs::of(&batch).bind()))?;
        let found = statistics.batch(engine, *program)?;
        if sums.is_empty() {
            sums = found.iter().map(|f| vec![0.0; f.len()]).collect();
        }
        for (sum, found) in sums.iter_mut().zip(found) {
            sum.iter_mut().zip(found).for_each(|(s, f)| *s += f);
        }
        count += 1;
    }
    match ready {
        Some((_, _, statistics)) if count > 0 => statistics.average(engine, w, &sums, count),
        _ => Err(Error::data("batch norm", "no full batch to estimate from", "lower --batch, or give more data")),
    }
}
