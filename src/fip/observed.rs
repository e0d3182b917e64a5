//! A network over a data set as the geometry looks at it: the same batches every time, longest examples first.
use super::objective::attended;
use super::runner::shape;
use crate::Result;
use crate::data::{Batches, Dataset, Values};
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
        let batch = self.batches.get(nth)?;
        let counts = attended(&batch, self.network.head);
        let shape = shape(&batch);
        let numbers = |values| match values {
            Values::Real(x) => Numbers::Real(x),
            Values::Index(x) => Numbers::Index(x),
        };
        let inputs = batch.inputs.into_iter().map(|i| (i.name.to_string(), numbers(i.values))).collect();
        Ok(geometry::Batch { shape, inputs, counts })
    }

    fn graph(&self, (rows, sample): Self::Shape) -> Result<Graph> {
        self.network.graph(rows, sample)
    }
}
