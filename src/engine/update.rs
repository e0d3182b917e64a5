//! The fused step's arguments and results: what one pass over weight space does.
use super::{Census, Mask, Vector};

/// The rule that turns a gradient into a step. Decay leaves norms and biases alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// Loshchilov and Hutter 2019: the decay acts on the weights.
    AdamW { beta1: f32, beta2: f32, epsilon: f32, decay: f32 },
    /// Kingma and Ba 2015: the decay acts on the gradient.
    Adam { beta1: f32, beta2: f32, epsilon: f32, decay: f32 },
    /// v = μ v + g, w = w − η v, as PyTorch has it; the decay acts on the gradient.
    Sgd { momentum: f32, decay: f32 },
}

impl Optimizer {
    /// Whether it keeps second moments.
    pub fn second_moments(&self) -> bool {
        !matches!(self, Self::Sgd { .. })
    }
}

/// What draws the pruned coordinates to zero (METHOD, algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pull {
    None,
    /// Add `coefficient · w` to their gradient: λ for `l2sq`, λ / ‖w − w_p‖ for `l2`.
    Gradient {
        coefficient: f32,
    },
    /// After the optimizer's step, bring them nearer to zero by `by`, and no further than zero: `prox`.
    Shrink {
        by: f32,
    },
    /// Hold them, and their moments, at zero: steps inside the sparse subspace.
    Hold,
}

#[derive(Clone, Debug)]
pub struct Update {
    pub optimizer: Optimizer,
    /// 1 for the first step: Adam's bias correction.
    pub step: u64,
    pub learning_rate: f32,
    /// What the gradient is multiplied with first (clipping, accumulation).
    pub gradient_scale: f32,
    pub w: Vector,
    pub g: Vector,
    /// First moments.
    pub m: Vector,
    /// Second moments; unused by SGD.
    pub v: Option<Vector>,
    pub mask: Option<Mask>,
    pub pull: Pull,
    /// Count magnitudes of the prunable weights around these bits in passing.
    pub census: Option<(u32, u32)>,
}

/// Norms of the weights after the step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Updated {
    /// ‖w‖² over the trained weights; not finite if any weight is not.
    pub squares: f64,
    /// ‖w‖² over the prunable weights.
    pub prunable_squares: f64,
    /// ‖w − w_p‖².
    pub pruned_squares: f64,
    pub census: Option<Census>,
}

/// What a step makes of its gradient before the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// What makes a mean of the gradient: 1 over the batches it was summed over.
    pub mean: f64,
    /// The largest norm the mean may keep; 0 for any.
    pub limit: f64,
}

impl Clip {
    /// Norm of the mean gradient, and what the gradient is multiplied with, from ‖g‖². A NaN is not clipped: the
    /// update's norms show it.
    pub fn of(&self, squares: f64) -> (f64, f32) {
        let norm = squares.sqrt() * self.mean;
        let clip = if self.limit > 0.0 && norm > self.limit { self.limit / norm } else { 1.0 };
        (norm, (clip * self.mean) as f32)
    }
}

/// What [`super::Engine::step`] did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stepped {
    pub updated: Updated,
    /// ‖g‖ of the mean gradient over the trained weights, before clipping.
    pub gradient_norm: f64,
}
