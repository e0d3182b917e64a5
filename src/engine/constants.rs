//! A step's constants, the same for every engine: one formula serves every pull, so loops over weights have no branches.
use super::{Optimizer, Pull, Update};

/// As numbers, or each in all lanes of a register.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Constants<T> {
    pub scale: T,
    pub rate: T,
    /// Added to a pruned weight's gradient, times the weight.
    pub pull: T,
    /// How far a pruned weight shrinks.
    pub shrink: T,
    /// 0 to hold pruned weights at zero, 1 to let them go.
    pub keep: T,
    pub decay: T,
    /// 1 − rate · decay.
    pub decayed: T,
    pub beta1: T,
    pub beta2: T,
    /// 1 − β.
    pub fresh1: T,
    pub fresh2: T,
    pub epsilon: T,
    /// rate / (1 − β₁ᵗ) and 1/√(1 − β₂ᵗ).
    pub length: T,
    pub correct2: T,
}

impl Constants<f32> {
    /// Of weights that decay, or of those that do not.
    pub fn new(u: &Update, decays: bool) -> Self {
        let (beta1, beta2, epsilon, decay) = match u.optimizer {
            Optimizer::AdamW { beta1, beta2, epsilon, decay } | Optimizer::Adam { beta1, beta2, epsilon, decay } => {
                (beta1, beta2, epsilon, decay)
            }
            Optimizer::Sgd { momentum, decay } => (momentum, 0.0, 0.0, decay),
        };
        let power = |beta: f32| 1.0 - f64::from(beta).powi(i32::try_from(u.step).unwrap_or(i32::MAX));
        let (pull, shrink, keep) = match u.pull {
            Pull::None => (0.0, 0.0, 1.0),
            Pull::Gradient { coefficient } => (coefficient, 0.0, 1.0),
            Pull::Shrink { by } => (0.0, by, 1.0),
            Pull::Hold => (0.0, 0.0, 0.0),
        };
        let (rate, decay) = (u.learning_rate, if decays { decay } else { 0.0 });
        Self {
            scale: u.gradient_scale,
            rate,
            pull,
            shrink,
            keep,
            decay,
            decayed: (1.0 - f64::from(rate) * f64::from(decay)) as f32,
            beta1,
            beta2,
            fresh1: 1.0 - beta1,
            fresh2: 1.0 - beta2,
            epsilon,
            length: (f64::from(rate) / power(beta1)) as f32,
            correct2: (1.0 / power(beta2).sqrt()) as f32,
        }
    }
}
