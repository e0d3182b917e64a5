//! The part of a run that chooses and projects: which weights the path draws to zero, how hard, and w_p itself.
use super::Run;
use crate::Result;
use crate::engine::{Criterion, Pattern, Pull, Score, Selected, Vector};
use crate::fip::recipe::{Method, PullKind};
use crate::params::Role;

impl Run<'_> {
    /// w_p at the present mask.
    pub(super) fn projection(&mut self) -> Result<Vector> {
        let at = match self.projected {
            Some(at) => at,
            None => *self.projected.insert(self.runner.engine.zeros()?),
        };
        self.runner.engine.copy(self.w, at)?;
        if let Some(mask) = self.mask {
            self.runner.engine.project(at, mask)?;
        }
        Ok(at)
    }

    /// w − w_p at the present mask, the gradient of ½ ‖w − w_p‖², and its norm.
    pub(super) fn pulled(&mut self) -> Result<(Vector, f64)> {
        let at = match self.pulled {
            Some(at) => at,
            None => *self.pulled.insert(self.runner.engine.zeros()?),
        };
        let engine = &mut self.runner.engine;
        engine.copy(self.w, at)?;
        if let Some(mask) = self.mask {
            engine.project(at, mask)?;
        }
        engine.scale(-1.0, at)?;
        engine.axpy(1.0, self.w, at)?;
        let norm = engine.dot(at, at, engine.layout().range(Role::Prunable))?.sqrt();
        Ok((at, norm))
    }

    fn criterion(&self, sparsity: f64) -> Criterion {
        let recipe = &self.job.recipe;
        let score = match recipe.method {
            Method::Random => Score::Random { seed: recipe.budget.seed },
            _ => Score::Magnitude,
        };
        // The engine counts n:m from none pruned (0) to m − n of m (1).
        let share = match recipe.path.scope {
            Pattern::NofM { n, m } => sparsity / (1.0 - n as f64 / m as f64),
            _ => sparsity,
        };
        Criterion { pattern: recipe.path.scope, score, sparsity: share }
    }

    fn select(&mut self, sparsity: f64) -> Result<Option<Selected>> {
        let Some(mask) = self.mask else { return Ok(None) };
        let (how, census) = (self.criterion(sparsity), self.census.take());
        let found = self.runner.engine.select(self.w, &how, census, mask)?;
        self.state.sparsity = sparsity;
        self.state.threshold = found.threshold.to_bits();
        self.state.pruned_squares = found.pruned_squares.to_bits();
        self.state.squares = found.squares.to_bits();
        Ok(Some(found))
    }

    /// Choose anew what is drawn to zero.
    pub(super) fn refresh(&mut self, t: u64) -> Result<()> {
        self.select(self.target(t))?;
        if self.job.recipe.method == Method::Gradual {
            self.zero()?;
        }
        Ok(())
    }

    /// The sparsity that step `t` walks towards; what a step of the path was taken towards before.
    fn target(&self, t: u64) -> f64 {
        let path = &self.job.recipe.path;
        path.sparsity * path.ramp.share(t / path.refresh * path.refresh, self.plan.ramp)
    }

    /// The milestones that the path has come to with the steps before `t` and not before: it is asked where what is pruned
    /// is chosen anew and at the path's end, and depends on `t` alone, so that a run that goes on asks the same.
    pub(super) fn milestones(&self, t: u64) -> Vec<f64> {
        let (all, refresh, end) = (&self.job.recipe.budget.milestones, self.job.recipe.path.refresh, self.path_end());
        if all.is_empty() || t == 0 || t > end || (t < end && !t.is_multiple_of(refresh)) {
            return Vec::new();
        }
        // Those of the interval before this one are past.
        let last = (t - 1) / refresh * refresh;
        let past = if last == 0 { 0.0 } else { self.target(last - 1) };
        let here = if t == end { f64::INFINITY } else { self.target(t - 1) };
        all.iter().copied().filter(|m| *m > past && *m <= here).collect()
    }

    /// The network where the path stands, with exactly the zeros of a milestone; the path's own choice stays as it is.
    pub(super) fn projection_at(&mut self, milestone: f64) -> Result<Vector> {
        let how = self.criterion(milestone);
        let engine = &mut self.runner.engine;
        let mask = match self.passing {
            Some(mask) => mask,
            None => *self.passing.insert(engine.mask()?),
        };
        let at = match self.projected {
            Some(at) => at,
            None => *self.projected.insert(engine.zeros()?),
        };
        engine.select(self.w, &how, None, mask)?;
        engine.copy(self.w, at)?;
        engine.project(at, mask)?;
        Ok(at)
    }

    fn zero(&mut self) -> Result<()> {
        let Some(mask) = self.mask else { return Ok(()) };
        self.state.pruned_squares = 0.0f64.to_bits();
        self.runner.engine.project(self.w, mask)
    }

    /// The final projection: exactly k zeros from here on.
    pub(super) fn project(&mut self) -> Result<()> {
        self.select(self.job.recipe.path.sparsity)?;
        self.zero()?;
        self.state.projected_at = Some(self.state.step);
        Ok(())
    }

    pub(super) fn pull(&self, finishing: bool) -> Pull {
        let recipe = &self.job.recipe;
        if self.mask.is_none() {
            return Pull::None;
        }
        if finishing || recipe.method != Method::Fip {
            return Pull::Hold;
        }
        let lambda = recipe.path.lambda as f32;
        match recipe.path.pull {
            PullKind::L2Sq => Pull::Gradient { coefficient: lambda },
            PullKind::L2 => {
                let norm = f64::from_bits(self.state.pruned_squares).sqrt() as f32;
                Pull::Gradient { coefficient: if norm > 0.0 { lambda / norm } else { 0.0 } }
            }
            PullKind::Prox => {
                Pull::Shrink { by: lambda * f32::from_bits(self.state.threshold) / recipe.path.refresh as f32 }
            }
        }
    }

    /// Where the next threshold will most likely lie: within 1 % of the last.
    pub(super) fn bracket(&self) -> Option<(u32, u32)> {
        let threshold = f32::from_bits(self.state.threshold);
        let exact = self.job.recipe.path.scope == Pattern::Global && self.job.recipe.method == Method::Fip;
        (exact && threshold > 0.0).then(|| ((threshold * 0.99).to_bits(), (threshold * 1.01).to_bits()))
    }
}
