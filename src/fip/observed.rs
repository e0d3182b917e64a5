//! A network over a data set as the geometry looks at it: the same batches every time, in the data's own order.
use super::objective::attended;
use super::runner::shape;
use crate::data::{Batch, Dataset, EVALUATION, Values};
use crate::geometry::{self, Numbers, Samples};
use crate::graph::Graph;
use crate::models::{Network, Sample};
use crate::{Error, Result};

/// `network` over `data`, `rows` examples a batch.
pub struct Observed<'a> {
    network: &'a Network,
    data: &'a dyn Dataset,
    rows: usize,
    /// Examples, longest first, so that like lengths share a batch.
    order: Vec<usize>,
}

impl<'a> Observed<'a> {
    /// # Errors
    /// [`Error::Usage`] for batches of no rows.
    pub fn new(network: &'a Network, data: &'a dyn Dataset, rows: usize) -> Result<Self> {
        if rows == 0 {
            return Err(Error::usage("--batch", "wanted at least 1, got 0", "choose a batch size above zero"));
        }
        let mut order: Vec<usize> = (0..data.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(data.length(i)));
        Ok(Self { network, data, rows, order })
    }

    fn batch(&self, nth: usize) -> Result<Batch> {
        let examples = &self.order[nth * self.rows..self.order.len().min((nth + 1) * self.rows)];
        self.data.batch(examples, self.rows, EVALUATION)
    }
}

impl Samples for Observed<'_> {
    type Shape = (usize, Sample);

    fn len(&self) -> usize {
        self.order.len().div_ceil(self.rows)
    }

    fn get(&self, nth: usize) -> Result<geometry::Batch<Self::Shape>> {
        let batch = self.batch(nth)?;
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
