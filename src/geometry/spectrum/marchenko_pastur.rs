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
    /// The law with the mean and the variance of these eigenvalues: σ² is their mean, p/n their variance over its square.
    ///
    /// The rows of a network's J are far from independent: the fitted ratio is that of an effective number of weights, well
    /// below the real one, and what sticks out of the law is what J knows. `values` hold no structural zeros. `None`
    /// without a positive eigenvalue.
    pub fn fit(values: &[(f64, f64)]) -> Option<Self> {
        let moment = |f: fn(f64) -> f64| values.iter().map(|&(v, weight)| weight * f(v)).sum::<f64>();
        let (count, mean) = (moment(|_| 1.0), moment(|v| v) / moment(|_| 1.0));
        let spread = moment(|v| v * v) / count - mean * mean;
        (mean > 0.0 && spread.is_finite()).then(|| Self { ratio: (spread / (mean * mean)).max(0.0), variance: mean })
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
    fn a_fit_finds_the_law_that_its_values_come_from() {
        let law = MarchenkoPastur { ratio: 0.3, variance: 1.7 };
        let (low, high) = law.edges();
        let at = |i: u32| low + (high - low) * (f64::from(i) + 0.5) / 10_000.0;
        let values: Vec<(f64, f64)> = (0..10_000).map(|i| (at(i), law.density(at(i)))).collect();
        let fitted = MarchenkoPastur::fit(&values).unwrap();
        assert!((fitted.ratio - 0.3).abs() <= 1e-3 && (fitted.variance - 1.7).abs() <= 1e-3, "{fitted:?}");
        assert_eq!(MarchenkoPastur::fit(&[(0.0, 1.0), (0.0, 1.0)]), None);
    }
}
