//! A network over data as the geometry looks at it: a data set in the same batches every time, longest examples first, or
//! the batches that a run has drawn for a step.
use super::objective::attended;
use super::runner::shape;
use crate::Result;
use crate::data::{self, Batches, Dataset, Values};
use crate::geometry::{self, Numbers, Samples};
use crate::graph::Graph;
use crate::models::{Network, Sample};

/// `network` over a data set.
pub struct Observed<'a> {
    network: &'a Network,
    batches: Batches<'a>,
}

impl<'a> Observed<'a> {
    /// `rows` examples a batch.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) for batches of no rows.
    pub fn new(network: &'a Network, data: &'a dyn Dataset, rows: usize) -> Result<Self> {
        Ok(Self { network, batches: Batches::in_order(data, rows)? })
    }
}

impl Samples for Observed<'_> {
    type Shape = (usize, Sample);

    fn len(&self) -> usize {
        Batches::count(&self.batches)
    }

    fn get(&self, nth: usize) -> Result<geometry::Batch<Self::Shape>> {
        Ok(looked_at(self.network, self.batches.get(nth)?))
    }

    fn graph(&self, (rows, sample): Self::Shape) -> Result<Graph> {
        self.network.graph(rows, sample)
    }
}

/// `network` over batches that a run has drawn.
pub struct Drawn<'a> {
    pub network: &'a Network,
    pub batches: &'a [data::Batch],
}

impl Samples for Drawn<'_> {
    type Shape = (usize, Sample);

    fn len(&self) -> usize {
        self.batches.len()
    }

    fn get(&self, nth: usize) -> Result<geometry::Batch<Self::Shape>> {
        Ok(looked_at(self.network, self.batches[nth].clone()))
    }

    fn graph(&self, (rows, sample): Self::Shape) -> Result<Graph> {
        self.network.graph(rows, sample)
    }
}

/// A batch as the geometry takes it.
fn looked_at(network: &Network, batch: data::Batch) -> geometry::Batch<(usize, Sample)> {
    let (counts, shape) = (attended(&batch, network.head), shape(&batch));
    let numbers = |values| match values {
        Values::Real(x) => Numbers::Real(x),
        Values::Index(x) => Numbers::Index(x),
    };
    let inputs = batch.inputs.into_iter().map(|i| (i.name.to_string(), numbers(i.values))).collect();
    geometry::Batch { shape, inputs, counts }
}
