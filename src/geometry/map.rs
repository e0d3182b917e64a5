//! A network over a data set as one map from weight space to outputs, and the output metrics that pull back along it
//! (METHOD, "Notation").
use super::space::Space;
use crate::Result;

/// f: weights to the outputs of a data set, [`Map::samples`] rows of [`Map::width`] logits, one after the other.
///
/// The space is that of the weights.
pub trait Map: Space {
    /// N: what the mean of the metric goes over; rows of outputs.
    fn samples(&self) -> usize;

    /// m: numbers a row.
    fn width(&self) -> usize;

    /// The relative accuracy of a product with J.
    fn precision(&self) -> f64;

    /// f(w) [N m].
    fn value(&mut self, w: &Self::Vector) -> Result<Vec<f64>>;

    /// J(w) v [N m].
    fn jv(&mut self, w: &Self::Vector, v: &Self::Vector) -> Result<Vec<f64>>;

    /// g = J(w)ᵀ u.
    fn jtu(&mut self, w: &Self::Vector, u: &[f64], g: &mut Self::Vector) -> Result<()>;

    /// g = J(w)ᵀ U J(w) v, where `between` turns a part of J v, whole rows from the given one on, into that of U J v in
    /// place. One pass over the data where the map can.
    fn product(
        &mut self,
        w: &Self::Vector,
        v: &Self::Vector,
        between: &mut dyn FnMut(usize, &mut [f64]),
        g: &mut Self::Vector,
    ) -> Result<()> {
        let mut u = self.jv(w, v)?;
        between(0, &mut u);
        self.jtu(w, &u, g)
    }

    /// ⟨x, y⟩ of every x with every y [x, y].
    fn inner(&mut self, x: &[Self::Vector], y: &[Self::Vector]) -> Result<Vec<f64>> {
        let mut all = Vec::with_capacity(x.len() * y.len());
        for x in x {
            for y in y {
                all.push(self.dot(x, y)?);
            }
        }
        Ok(all)
    }

    /// f_vv = d²/dt² f(w + t v) at t = 0 [N m], by the central difference (J(w + h v) v − J(w − h v) v) / 2h.
    /// h makes ‖h v‖ the cube root of the products' accuracy, relative to ‖w‖: where the error of the difference, h², and
    /// that of rounding, accuracy / h, balance.
    fn second(&mut self, w: &Self::Vector, v: &Self::Vector) -> Result<Vec<f64>> {
        let length = self.norm(v)?;
        if length == 0.0 {
            return Ok(vec![0.0; self.samples() * self.width()]);
        }
        let h = self.precision().cbrt() * self.norm(w)?.max(1.0) / length;
        let mut at = self.copied(w)?;
        self.axpy(h, v, &mut at)?;
        let mut ahead = self.jv(&at, v)?;
        self.copy(w, &mut at)?;
        self.axpy(-h, v, &mut at)?;
        let behind = self.jv(&at, v)?;
        self.recycle(at);
        ahead.iter_mut().zip(&behind).for_each(|(a, b)| *a = (*a - b) / (2.0 * h));
        Ok(ahead)
    }
}

/// H, how a change of a row of logits is measured: δzᵀ H δz.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputMetric {
    /// H = I: the paper's.
    #[default]
    Euclidean,
    /// H = diag(q) − q qᵀ with q = softmax(z): twice the second-order term of the Kullback-Leibler divergence.
    Fisher,
}

impl OutputMetric {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Euclidean => "euclidean",
            Self::Fisher => "fisher",
        }
    }
}

/// H at the rows of a data set's outputs, as H = A Aᵀ; with A = diag(√q) − q √qᵀ for the Fisher metric.
#[derive(Clone, Debug)]
pub struct Metric {
    width: usize,
    /// Softmax of the logits [N m]; empty for the euclidean metric.
    q: Vec<f64>,
}

impl Metric {
    /// At outputs `logits` [N, m].
    pub fn new(kind: OutputMetric, logits: &[f64], width: usize) -> Self {
        let q = match kind {
            OutputMetric::Euclidean => Vec::new(),
            OutputMetric::Fisher => logits.chunks(width).flat_map(softmax).collect(),
        };
        Self { width, q }
    }

    /// x = H x, for the rows from `first` on.
    pub fn apply(&self, first: usize, x: &mut [f64]) {
        self.rows(first, x, |x, q| {
            let mean: f64 = x.iter().zip(q).map(|(x, q)| x * q).sum();
            x.iter_mut().zip(q).for_each(|(x, q)| *x = q * (*x - mean));
        });
    }

    /// x = A x.
    pub fn factor(&self, first: usize, x: &mut [f64]) {
        self.rows(first, x, |x, q| {
            let along: f64 = x.iter().zip(q).map(|(x, q)| x * q.sqrt()).sum();
            x.iter_mut().zip(q).for_each(|(x, q)| *x = q.sqrt() * *x - q * along);
        });
    }

    /// x = Aᵀ x.
    pub fn factor_transposed(&self, first: usize, x: &mut [f64]) {
        self.rows(first, x, |x, q| {
            let mean: f64 = x.iter().zip(q).map(|(x, q)| x * q).sum();
            x.iter_mut().zip(q).for_each(|(x, q)| *x = q.sqrt() * (*x - mean));
        });
    }

    fn rows(&self, first: usize, x: &mut [f64], each: impl Fn(&mut [f64], &[f64])) {
        if self.q.is_empty() {
            return;
        }
        let q = &self.q[first * self.width..];
        x.chunks_mut(self.width).zip(q.chunks(self.width)).for_each(|(x, q)| each(x, q));
    }
}

fn softmax(z: &[f64]) -> Vec<f64> {
    let top = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = z.iter().map(|z| (z - top).exp()).collect();
    let total: f64 = e.iter().sum();
    e.into_iter().map(|e| e / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fisher_metric_is_the_covariance_of_its_classes_and_factors() {
        let z = [0.3, -1.2, 2.0, 0.0, 0.5, -0.5];
        let metric = Metric::new(OutputMetric::Fisher, &z, 3);
        for row in 0..2 {
            let e: Vec<f64> = z[row * 3..row * 3 + 3].iter().map(|z| z.exp()).collect();
            let q: Vec<f64> = e.iter().map(|x| x / e.iter().sum::<f64>()).collect();
            for j in 0..3 {
                let unit: Vec<f64> = (0..3).map(|i| f64::from(i == j)).collect();
                let (mut whole, mut twice) = (unit.clone(), unit);
                metric.apply(row, &mut whole);
                metric.factor_transposed(row, &mut twice);
                metric.factor(row, &mut twice);
                for i in 0..3 {
                    let want = f64::from(i == j) * q[i] - q[i] * q[j];
                    assert!((whole[i] - want).abs() <= 1e-15 && (twice[i] - want).abs() <= 1e-15, "{row} {i} {j}");
                }
            }
        }
    }
}
