//! A map in other coordinates of weight space: ψ = D φ with a positive diagonal D, so that lengths are measured by
//! M = D⁻² and the metric becomes D g D. With M near the diagonal of g its eigenvalues lie closer together, and weights that
//! the outputs hardly feel move further than those that they feel much: a preconditioner.
use super::gram::Gram;
use super::map::{Map, OutputMetric};
use super::space::{Space, plain, through};
use crate::Result;

/// What a diagonal needs of a space: passes over the numbers of a vector one by one.
pub trait Elementwise: Map {
    /// Every x = f(x), in order; what is held fixed, and padding, left out.
    ///
    /// # Errors
    /// What the engine says.
    fn each(&mut self, x: &mut Self::Vector, f: &mut dyn FnMut(f64) -> f64) -> Result<()>;

    /// y = x y, number by number.
    ///
    /// # Errors
    /// What the engine says.
    fn multiply(&mut self, x: &Self::Vector, y: &mut Self::Vector) -> Result<()>;
}

/// diag(g) at `w`. The rows of (1/√N) Aᵀ J, squared and summed, are exactly that; where there are more than `probes` of
/// them, the mean square of so many random combinations of rows (Hutchinson's estimate: unbiased, never below 0).
///
/// # Errors
/// What the map says.
pub fn diagonal<M: Elementwise>(
    map: &mut M,
    w: &M::Vector,
    kind: OutputMetric,
    probes: usize,
    seed: u64,
) -> Result<M::Vector> {
    let mut total = map.zeros()?;
    let mut gram = Gram::new(map, w, kind)?;
    let rows = gram.dim();
    let exact = rows <= probes;
    for i in 0..if exact { rows } else { probes } {
        let mut row = match exact {
            true => gram.row(i)?,
            false => {
                let mut signs = vec![0.0; rows];
                plain::normal(seed, i as u64, &mut signs);
                let mut row = gram.map().zeros()?;
                gram.pull(&signs, &mut row)?;
                row
            }
        };
        let map = gram.map();
        map.each(&mut row, &mut |x| x * x)?;
        map.axpy(if exact { 1.0 } else { 1.0 / probes as f64 }, &row, &mut total)?;
        map.recycle(row);
    }
    Ok(total)
}

/// D = (d + δ mean(d))^(−1/2) in place of a diagonal d: δ keeps weights that the outputs do not feel at all from running
/// away. Where all of d is 0, D is 1.
///
/// # Errors
/// What the map says.
pub fn inverse_root<M: Elementwise>(map: &mut M, d: &mut M::Vector, delta: f64) -> Result<()> {
    let mut sum = 0.0;
    map.each(d, &mut |x| {
        sum += x;
        x
    })?;
    let floor = delta * sum / map.dim().max(1) as f64;
    map.each(d, &mut |x| if floor > 0.0 { 1.0 / (x.max(0.0) + floor).sqrt() } else { 1.0 })
}

/// A map as seen from φ. `w` stays in the map's own coordinates; directions and gradients are in the new ones.
pub struct Scaled<'a, M: Elementwise> {
    map: &'a mut M,
    d: &'a M::Vector,
}

impl<'a, M: Elementwise> Scaled<'a, M> {
    /// With the diagonal D `d`, all above 0.
    pub fn new(map: &'a mut M, d: &'a M::Vector) -> Self {
        Self { map, d }
    }

    /// D φ, a vector of its own.
    fn outer(&mut self, x: &M::Vector) -> Result<M::Vector> {
        let mut y = self.map.copied(x)?;
        self.map.multiply(self.d, &mut y)?;
        Ok(y)
    }
}

impl<M: Elementwise> Space for Scaled<'_, M> {
    type Vector = M::Vector;
    through!(self, map);
}

impl<M: Elementwise> Map for Scaled<'_, M> {
    fn samples(&self) -> usize {
        self.map.samples()
    }
    fn width(&self) -> usize {
        self.map.width()
    }
    fn precision(&self) -> f64 {
        self.map.precision()
    }
    fn value(&mut self, w: &M::Vector) -> Result<Vec<f64>> {
        self.map.value(w)
    }
    fn jv(&mut self, w: &M::Vector, v: &M::Vector) -> Result<Vec<f64>> {
        let outer = self.outer(v)?;
        let jv = self.map.jv(w, &outer);
        self.map.recycle(outer);
        jv
    }
    fn jtu(&mut self, w: &M::Vector, u: &[f64], g: &mut M::Vector) -> Result<()> {
        self.map.jtu(w, u, g)?;
        self.map.multiply(self.d, g)
    }
    fn product(
        &mut self,
        w: &M::Vector,
        v: &M::Vector,
        between: &mut dyn FnMut(usize, &mut [f64]),
        g: &mut M::Vector,
    ) -> Result<()> {
        let outer = self.outer(v)?;
        self.map.product(w, &outer, between, g)?;
        self.map.recycle(outer);
        self.map.multiply(self.d, g)
    }
    fn second(&mut self, w: &M::Vector, v: &M::Vector) -> Result<Vec<f64>> {
        let outer = self.outer(v)?;
        let second = self.map.second(w, &outer);
        self.map.recycle(outer);
        second
    }
}
