//! The Gram matrix K = (1/N) Aᵀ J Jᵀ A on the space of outputs, with H = A Aᵀ: the non-zero eigenvalues of the metric
//! (METHOD, "Notation"), in N m dimensions in place of n.
//!
//! What the algorithms keep are vectors of N m numbers, so that a hundred of them cost nothing beside the network:
//! eigenvectors and solutions in weight space come out of them by one product with Jᵀ each.
use super::map::{Map, Metric, OutputMetric};
use super::pullback::metric;
use super::space::{Space, Symmetric, plain};
use crate::Result;

/// K of a map at a point, as an operator on plain vectors [N m].
pub struct Gram<'a, M: Map> {
    map: &'a mut M,
    w: &'a M::Vector,
    metric: Metric,
}

impl<'a, M: Map> Gram<'a, M> {
    /// At `w`.
    ///
    /// # Errors
    /// What the map says.
    pub fn new(map: &'a mut M, w: &'a M::Vector, kind: OutputMetric) -> Result<Self> {
        let metric = metric(map, w, kind)?;
        Ok(Self { map, w, metric })
    }

    fn root(&self) -> f64 {
        (self.map.samples() as f64).sqrt()
    }

    /// (1/√N) Jᵀ A x, into weight space.
    ///
    /// # Errors
    /// What the map says.
    pub fn pull(&mut self, x: &[f64], to: &mut M::Vector) -> Result<()> {
        let mut u = x.to_vec();
        self.metric.factor(0, &mut u);
        plain::scale(1.0 / self.root(), &mut u);
        self.map.jtu(self.w, &u, to)
    }

    /// (1/√N) Aᵀ J v, into the space of outputs.
    ///
    /// # Errors
    /// What the map says.
    pub fn push(&mut self, v: &M::Vector) -> Result<Vec<f64>> {
        let mut u = self.map.jv(self.w, v)?;
        self.metric.factor_transposed(0, &mut u);
        plain::scale(1.0 / self.root(), &mut u);
        Ok(u)
    }

    /// The eigenvector of the metric for an eigenvector x of K with a value above 0: (1/√(N λ)) Jᵀ A x, normalised anew.
    ///
    /// # Errors
    /// What the map says.
    pub fn eigenvector(&mut self, x: &[f64]) -> Result<M::Vector> {
        let mut v = self.map.zeros()?;
        self.pull(x, &mut v)?;
        let norm = self.map.norm(&v)?;
        if norm > 0.0 {
            self.map.scale(1.0 / norm, &mut v)?;
        }
        Ok(v)
    }

    /// The i-th row of (1/√N) Aᵀ J, in weight space: K is the rows' inner products.
    ///
    /// # Errors
    /// What the map says.
    pub fn row(&mut self, i: usize) -> Result<M::Vector> {
        let mut unit = vec![0.0; self.dim()];
        unit[i] = 1.0;
        let mut row = self.map.zeros()?;
        self.pull(&unit, &mut row)?;
        Ok(row)
    }

    /// The map, for what else there is to do in weight space.
    pub fn map(&mut self) -> &mut M {
        self.map
    }

    /// (1/√N) Aᵀ f_vv, of the second derivative along v: what a geodesic's acceleration takes back.
    ///
    /// # Errors
    /// What the map says.
    pub fn second(&mut self, v: &M::Vector) -> Result<Vec<f64>> {
        let mut u = self.map.second(self.w, v)?;
        self.metric.factor_transposed(0, &mut u);
        plain::scale(1.0 / self.root(), &mut u);
        Ok(u)
    }
}

impl<M: Map> Space for Gram<'_, M> {
    type Vector = Vec<f64>;
    fn dim(&self) -> usize {
        self.map.samples() * self.map.width()
    }
    fn zeros(&mut self) -> Result<Vec<f64>> {
        Ok(vec![0.0; self.dim()])
    }
    fn normal(&mut self, seed: u64, stream: u64, to: &mut Vec<f64>) -> Result<()> {
        plain::normal(seed, stream, to);
        Ok(())
    }
    fn copy(&mut self, from: &Vec<f64>, to: &mut Vec<f64>) -> Result<()> {
        to.copy_from_slice(from);
        Ok(())
    }
    fn axpy(&mut self, a: f64, x: &Vec<f64>, y: &mut Vec<f64>) -> Result<()> {
        plain::axpy(a, x, y);
        Ok(())
    }
    fn scale(&mut self, a: f64, x: &mut Vec<f64>) -> Result<()> {
        plain::scale(a, x);
        Ok(())
    }
    fn dot(&self, x: &Vec<f64>, y: &Vec<f64>) -> Result<f64> {
        Ok(plain::dot(x, y))
    }
}

impl<M: Map> Symmetric for Gram<'_, M> {
    fn apply(&mut self, x: &Vec<f64>, y: &mut Vec<f64>) -> Result<()> {
        let mut v = self.map.zeros()?;
        self.pull(x, &mut v)?;
        *y = self.push(&v)?;
        self.map.recycle(v);
        Ok(())
    }
}
