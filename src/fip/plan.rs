//! How many steps a run takes and what they are for.
use super::recipe::{Method, Recipe};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Optimizer steps in all.
    pub steps: u64,
    /// Steps before the final projection; the rest stay inside the sparse subspace.
    pub path: u64,
    /// Steps over which the sparsity rises.
    pub ramp: u64,
    pub warmup: u64,
}

impl Plan {
    /// For `examples` of training data.
    pub fn new(r: &Recipe, examples: usize) -> Self {
        let batches = examples.div_ceil(r.budget.batch.max(1)) as f64;
        let (part, optimizer) = (r.path.finish, r.optimization.accumulation.max(1) as f64);
        // Steps in the metric, before the projection, see batches of their own number.
        let a_step = match r.method == Method::Fip && r.step.in_metric() {
            true => (1.0 - part) * r.step.metric_batches as f64 + part * optimizer,
            false => optimizer,
        };
        let whole = (r.budget.epochs * batches / a_step).ceil() as u64;
        let whole = r.budget.steps.unwrap_or(whole.max(1));
        let finish = (whole as f64 * r.path.finish).round() as u64;
        let (steps, path) = match r.method {
            Method::Train => (whole, whole),
            Method::OneShot | Method::Random => (finish, 0),
            Method::Fip | Method::Gradual => (whole, (whole - finish).max(1)),
        };
        let share = |x: f64, n: u64| (x * n as f64).round() as u64;
        Self { steps, path, ramp: share(r.path.ramp_share, path), warmup: share(r.optimization.warmup, steps) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fip::step::StepKind;

    #[test]
    fn epochs_become_steps() {
        let mut r = Recipe::default();
        (r.budget.batch, r.budget.epochs, r.path.finish, r.optimization.warmup) = (32, 2.0, 0.25, 0.1);
        assert_eq!(Plan::new(&r, 1000), Plan { steps: 64, path: 48, ramp: 48, warmup: 6 });
        r.optimization.accumulation = 2;
        assert_eq!(Plan::new(&r, 1000).steps, 32);
        (r.step.kind, r.step.metric_batches, r.optimization.accumulation) = (StepKind::Exact, 5, 1);
        // 64 batches: 12 steps of five, and 4 of one.
        assert_eq!(Plan::new(&r, 1000), Plan { steps: 16, path: 12, ramp: 12, warmup: 2 });
        (r.step.kind, r.optimization.accumulation) = (StepKind::Gradient, 2);
        r.method = Method::OneShot;
        assert_eq!(Plan::new(&r, 1000).path, 0);
        (r.method, r.budget.steps) = (Method::Train, Some(7));
        assert_eq!((Plan::new(&r, 1000).steps, Plan::new(&r, 1000).path), (7, 7));
    }
}
