//! What changes with the step: the learning rate and the sparsity asked for.
use serde::{Deserialize, Serialize};

/// How the learning rate falls after its warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    Constant,
    /// To zero at the last step.
    #[default]
    Linear,
    /// To zero at the last step, as half a cosine.
    Cosine,
}

impl Decay {
    /// The factor on the learning rate at step `t` (from 0) of `steps`, rising linearly over `warmup` steps first.
    pub fn factor(self, t: u64, steps: u64, warmup: u64) -> f64 {
        if t < warmup {
            return (t + 1) as f64 / warmup as f64;
        }
        let x = (t - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Linear => 1.0 - x,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * x).cos()),
        }
    }
}

/// How the sparsity asked for rises from 0 to p (METHOD, algorithm 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ramp {
    /// p from the first step on.
    Direct,
    Linear,
    /// p_t = p (1 − (1 − t/T)³): Zhu and Gupta 2017.
    #[default]
    Cubic,
}

impl Ramp {
    /// The share of p asked for at step `t` of a ramp of `length` steps; 1 from its last step on.
    pub fn share(self, t: u64, length: u64) -> f64 {
        let x = if length <= 1 { 1.0 } else { (t as f64 / (length - 1) as f64).min(1.0) };
        match self {
            Self::Direct => 1.0,
            Self::Linear => x,
            Self::Cubic => 1.0 - (1.0 - x).powi(3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ramps_end_at_one_and_never_fall() {
        for ramp in [Ramp::Direct, Ramp::Linear, Ramp::Cubic] {
            for length in [0, 1, 2, 7, 100] {
                let shares: Vec<f64> = (0..=length + 3).map(|t| ramp.share(t, length)).collect();
                assert!(shares.windows(2).all(|s| s[0] <= s[1]), "{ramp:?} {length}: {shares:?}");
                assert!(shares[length.saturating_sub(1) as usize..].iter().all(|&s| s == 1.0), "{ramp:?} {length}");
            }
        }
        assert!((Ramp::Cubic.share(5, 11) - 0.875).abs() <= 1e-12); // 1 − (1/2)³
    }

    #[test]
    fn learning_rates_warm_up_and_fall_to_zero() {
        assert_eq!((Decay::Linear.factor(0, 10, 4), Decay::Linear.factor(3, 10, 4)), (0.25, 1.0));
        assert_eq!((Decay::Linear.factor(4, 10, 4), Decay::Linear.factor(7, 10, 4)), (1.0, 0.5));
        assert!((Decay::Cosine.factor(7, 10, 4) - 0.5).abs() <= 1e-12);
        assert_eq!(Decay::Constant.factor(9, 10, 0), 1.0);
        assert!((0..10).all(|t| Decay::Linear.factor(t, 10, 0) > 0.0));
    }
}
