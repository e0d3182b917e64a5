//! The metric g_H = (1/N) Jᵀ H J on weight space, never formed (METHOD, "Notation"; the paper's equations 1 and 2).
use super::map::{Map, Metric, OutputMetric};
use super::space::{Space, Symmetric, through};
use crate::Result;

/// g_H of a map at a point, as an operator on weight space.
pub struct Pullback<'a, M: Map> {
    map: &'a mut M,
    w: &'a M::Vector,
    metric: Metric,
}

impl<'a, M: Map> Pullback<'a, M> {
    /// At `w`; the Fisher metric needs the outputs there.
    ///
    /// # Errors
    /// What the map says.
    pub fn new(map: &'a mut M, w: &'a M::Vector, kind: OutputMetric) -> Result<Self> {
        let metric = metric(map, w, kind)?;
        Ok(Self { map, w, metric })
    }

    /// ⟨v, v⟩_g = (1/N) (J v)ᵀ H (J v): the mean second-order change of the outputs along v, twice.
    ///
    /// # Errors
    /// What the map says.
    pub fn squared(&mut self, v: &M::Vector) -> Result<f64> {
        let jv = self.map.jv(self.w, v)?;
        let mut h = jv.clone();
        self.metric.apply(0, &mut h);
        Ok(jv.iter().zip(&h).map(|(a, b)| a * b).sum::<f64>() / self.map.samples() as f64)
    }
}

pub(super) fn metric<M: Map>(map: &mut M, w: &M::Vector, kind: OutputMetric) -> Result<Metric> {
    let logits = if kind == OutputMetric::Euclidean { Vec::new() } else { map.value(w)? };
    Ok(Metric::new(kind, &logits, map.width()))
}

impl<M: Map> Space for Pullback<'_, M> {
    type Vector = M::Vector;
    through!(self, map);
}

impl<M: Map> Symmetric for Pullback<'_, M> {
    fn apply(&mut self, x: &M::Vector, y: &mut M::Vector) -> Result<()> {
        let (metric, share) = (&self.metric, 1.0 / self.map.samples() as f64);
        let mut between = |first: usize, u: &mut [f64]| {
            metric.apply(first, u);
            u.iter_mut().for_each(|u| *u *= share);
        };
        self.map.product(self.w, x, &mut between, y)
    }
}
