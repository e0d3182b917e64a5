//! What the algorithms of this floor run on: a space of vectors with an inner product, and symmetric operators on it.
//!
//! Weight space on an engine is one ([`super::Pullback`]), the space of a data set's outputs another
//! ([`super::Gram`]), small dense matrices in tests a third. Scalars are f64 everywhere; what a vector is stored in is
//! the space's affair.
use crate::Result;

/// A real vector space with the euclidean inner product.
pub trait Space {
    type Vector;

    /// How many numbers a vector has, padding and what is held fixed left out.
    fn dim(&self) -> usize;

    fn zeros(&mut self) -> Result<Self::Vector>;

    /// Independent standard normal numbers, of (seed, stream) alone.
    fn normal(&mut self, seed: u64, stream: u64, to: &mut Self::Vector) -> Result<()>;

    fn copy(&mut self, from: &Self::Vector, to: &mut Self::Vector) -> Result<()>;

    /// A vector of its own with the numbers of `x`.
    ///
    /// # Errors
    /// What the space says of memory.
    fn copied(&mut self, x: &Self::Vector) -> Result<Self::Vector> {
        let mut y = self.zeros()?;
        self.copy(x, &mut y)?;
        Ok(y)
    }

    /// y += a x.
    fn axpy(&mut self, a: f64, x: &Self::Vector, y: &mut Self::Vector) -> Result<()>;

    /// x = a x.
    fn scale(&mut self, a: f64, x: &mut Self::Vector) -> Result<()>;

    fn dot(&self, x: &Self::Vector, y: &Self::Vector) -> Result<f64>;

    /// A vector that is needed no more: its memory may be used again.
    fn recycle(&mut self, _x: Self::Vector) {}

    fn norm(&self, x: &Self::Vector) -> Result<f64> {
        Ok(self.dot(x, x)?.sqrt())
    }
}

/// A symmetric linear map of a space into itself.
pub trait Symmetric: Space {
    /// y = A x.
    fn apply(&mut self, x: &Self::Vector, y: &mut Self::Vector) -> Result<()>;
}

/// The operations of [`Space`] on plain numbers in memory; for spaces whose vectors are such.
pub(super) mod plain {
    use crate::rng::Rng;

    pub fn normal(seed: u64, stream: u64, to: &mut [f64]) {
        let mut rng = Rng::new(seed, stream);
        to.iter_mut().for_each(|x| *x = f64::from(rng.normal()));
    }

    pub fn axpy(a: f64, x: &[f64], y: &mut [f64]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
    }

    pub fn scale(a: f64, x: &mut [f64]) {
        x.iter_mut().for_each(|x| *x *= a);
    }

    /// In the order of the elements.
    pub fn dot(x: &[f64], y: &[f64]) -> f64 {
        x.iter().zip(y).map(|(x, y)| x * y).sum()
    }
}

/// [`Space`]'s methods for what wraps another one in a field: the same vectors, the same arithmetic.
macro_rules! through {
    ($this:ident, $inner:ident) => {
        fn dim(&$this) -> usize {
            $this.$inner.dim()
        }
        fn zeros(&mut $this) -> Result<M::Vector> {
            $this.$inner.zeros()
        }
        fn normal(&mut $this, seed: u64, stream: u64, to: &mut M::Vector) -> Result<()> {
            $this.$inner.normal(seed, stream, to)
        }
        fn copy(&mut $this, from: &M::Vector, to: &mut M::Vector) -> Result<()> {
            $this.$inner.copy(from, to)
        }
        fn axpy(&mut $this, a: f64, x: &M::Vector, y: &mut M::Vector) -> Result<()> {
            $this.$inner.axpy(a, x, y)
        }
        fn scale(&mut $this, a: f64, x: &mut M::Vector) -> Result<()> {
            $this.$inner.scale(a, x)
        }
        fn dot(&$this, x: &M::Vector, y: &M::Vector) -> Result<f64> {
            $this.$inner.dot(x, y)
        }
        fn recycle(&mut $this, x: M::Vector) {
            $this.$inner.recycle(x);
        }
    };
}
pub(super) use through;
