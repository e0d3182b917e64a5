//! The Marchenko-Pastur density, to lay over a spectrum: what the eigenvalues of K would be if the entries of J were
//! independent (Marchenko and Pastur 1967; METHOD, "Spectrum").

/// For p eigenvalues of (1/n) Z Zᵀ, Z [p, n] with independent entries of variance σ²: support σ² (1 ± √(p/n))².
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct MarchenkoPastur {
    /// p / n.
    pub ratio: f64,
    /// σ².
    pub variance: f64,
}

impl MarchenkoPastur {
    /// The variance that makes the bulk's mean right: of the eigenvalues, those beyond the upper edge are signal and are left out,
    /// until none is left beyond it. `values` hold no structural zeros; `ratio` is outputs over weights (or its inverse
    /// where there are more outputs). `None` without a positive eigenvalue.
    pub fn fit(values: &[f64], ratio: f64) -> Option<Self> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let mut count = sorted.len();
        while count > 0 {
            let variance = sorted[..count].iter().sum::<f64>() / count as f64;
            let fitted = Self { ratio, variance };
            let inside = sorted.partition_point(|&v| v <= fitted.edges().1);
            if inside >= count {
                return (variance > 0.0).then_some(fitted);
            }
            count = inside;
        }
        None
    }

    /// Where the density begins and ends.
    pub fn edges(&self) -> (f64, f64) {
        let root = self.ratio.sqrt();
        (self.variance * (1.0 - root).powi(2), self.variance * (1.0 + root).powi(2))
    }

    /// The density at x, of the part that has no point mass at 0.
    pub fn density(&self, x: f64) -> f64 {
        let (low, high) = self.edges();
        if x <= low || x >= high || x <= 0.0 {
            return 0.0;
        }
        ((high - x) * (x - low)).sqrt() / (std::f64::consts::TAU * self.variance * self.ratio.min(1.0) * x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_density_integrates_to_one_with_the_right_mean() {
        for ratio in [0.1, 0.5, 0.9] {
            let law = MarchenkoPastur { ratio, variance: 2.0 };
            let (low, high) = law.edges();
            // x = middle − half cos t takes the square roots out of the integrand's ends.
            let (middle, half, n) = (0.5 * (low + high), 0.5 * (high - low), 20_000);
            let (mut mass, mut mean) = (0.0, 0.0);
            for i in 0..n {
                let t = std::f64::consts::PI * (f64::from(i) + 0.5) / f64::from(n);
                let x = middle - half * t.cos();
                let part = law.density(x) * half * t.sin() * std::f64::consts::PI / f64::from(n);
                mass += part;
                mean += part * x;
            }
            assert!((mass - 1.0).abs() <= 1e-4 && (mean - 2.0).abs() <= 1e-3, "{ratio}: {mass} {mean}");
        }
    }

    #[test]
    fn signals_do_not_spoil_the_fit() {
        // Quantiles of nothing in particular: a bulk near 1 and three large values.
        let mut values: Vec<f64> = (0..200).map(|i| 0.6 + 0.004 * f64::from(i)).collect();
        let bulk = values.iter().sum::<f64>() / 200.0;
        values.extend([30.0, 80.0, 500.0]);
        let fitted = MarchenkoPastur::fit(&values, 0.1).unwrap();
        assert!((fitted.variance - bulk).abs() <= 1e-12 * bulk, "{fitted:?}");
        assert_eq!(MarchenkoPastur::fit(&[0.0, 0.0], 0.1), None);
    }
}
