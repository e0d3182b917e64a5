//! Running averages of batch normalisations (Ioffe and Szegedy 2015) along a run: kept, followed, or estimated anew.
//!
//! A graph that normalises by its batch ([`crate::graph::Scope::batch_statistics`]) marks each mean and variance by the name of
//! the running average it stands for. So whoever ran it fetches them, and writes averages into the weights' vector, where
//! they lie among what nothing trains.
use crate::engine::{Engine, Loaded, Vector};
use crate::graph::{Graph, Kind, Source};
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
}

/// Plain means of batches' statistics.
pub struct Mean {
    statistics: Statistics,
    sums: Vec<Vec<f64>>,
    batches: usize,
}

impl Mean {
    pub fn new(statistics: Statistics) -> Self {
        let sums = statistics.averages.iter().map(|a| vec![0.0; a.range.len()]).collect();
        Self { statistics, sums, batches: 0 }
    }

    /// Take in the batch that `program` ran on last.
    ///
    /// # Errors
    /// As [`Statistics::follow`].
    pub fn add(&mut self, engine: &dyn Engine, program: Loaded) -> Result<()> {
        for (sum, found) in self.sums.iter_mut().zip(self.statistics.batch(engine, program)?) {
            sum.iter_mut().zip(found).for_each(|(s, f)| *s += f);
        }
        self.batches += 1;
        Ok(())
    }

    /// The means in place of the running averages at `w`.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; what the engine says.
    pub fn write(self, engine: &mut dyn Engine, w: Vector) -> Result<()> {
        for (a, sum) in self.statistics.averages.iter().zip(&self.sums) {
            let mean: Vec<f32> = sum.iter().map(|s| (s / self.batches as f64) as f32).collect();
            if mean.iter().any(|m| !m.is_finite()) {
                let hint = "the weights have run away; lower --learning-rate";
                return Err(Error::not_finite("batch norm", format!("the estimate of {}", a.name), hint));
            }
            engine.write(w, a.range.start, &mean)?;
        }
        Ok(())
    }
}
