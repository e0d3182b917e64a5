//! A step's constants: one formula serves every optimizer's pull, so loops over weights have no branches.
use super::{Optimizer, Pull, Update};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Constants {
    pub scale: f32,
    pub rate: f32,
    /// Added to a pruned weight's gradient, times the weight.
    pub pull: f32,
    /// How far a pruned weight shrinks.
    pub shrink: f32,
    /// 0 to hold pruned weights at zero, 1 to let them go.
    pub keep: f32,
    pub decay: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    /// 1/(1 − β₁ᵗ) and 1/√(1 − β₂ᵗ).
    pub correct1: f32,
    pub correct2: f32,
}

impl Constants {
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
        Self {
            scale: u.gradient_scale,
            rate: u.learning_rate,
            pull,
            shrink,
            keep,
            decay: if decays { decay } else { 0.0 },
            beta1,
            beta2,
            epsilon,
            correct1: (1.0 / power(beta1)) as f32,
            correct2: (1.0 / power(beta2).sqrt()) as f32,
        }
    }
}
