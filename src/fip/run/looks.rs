//! What a run looks at on its way and in the end: held-out data, drift from the dense network, the zeros it stored.
use super::{Outcome, Run};
use crate::data::{Batch, Batches};
use crate::engine::Vector;
use crate::fip::evaluate::{Evaluation, drift, evaluate, mean_distance};
use crate::fip::recipe::{BatchNorms, Method};
use crate::fip::statistics;
use crate::graph::Kind;
use crate::params::Role;
use crate::report;
use crate::{Error, Result};
use std::cell::RefCell;

impl Run<'_> {
    pub(super) fn evaluate(&mut self, w: Vector) -> Result<Option<Evaluation>> {
        let batch = self.job.recipe.budget.batch.max(32);
        self.job.held_out.as_ref().map(|(data, _)| evaluate(&mut self.runner, w, *data, batch)).transpose()
    }

    /// How far the outputs on held-out data have moved.
    pub(super) fn drift(&mut self) -> Result<Option<report::Drift>> {
        let Some((data, _)) = &self.job.held_out else { return Ok(None) };
        let (dense, w, batch, head) = (self.dense, self.w, self.job.recipe.budget.batch.max(32), self.job.network.head);
        let runner = RefCell::new(&mut self.runner);
        let at = |v: Vector, batch: &Batch| runner.borrow_mut().logits(v, batch);
        let found = drift(*data, batch, head, |b| at(dense, b), |b| at(w, b))?;
        Ok(Some(report::Drift { a: "dense".into(), b: "final".into(), ..found }))
    }

    /// The running averages of batch norms at `w`, estimated anew where the recipe says so.
    pub(super) fn reestimate(&mut self, w: Vector) -> Result<()> {
        let recipe = &self.job.recipe;
        if !self.reestimates() {
            return Ok(());
        }
        // The same batches every time, whatever step it is.
        let order = Batches::in_order(self.job.train, recipe.budget.batch)?;
        self.runner.reestimate(w, order)
    }

    fn reestimates(&self) -> bool {
        let batch_norm = self.job.recipe.objective.batch_norm;
        batch_norm == BatchNorms::Reestimated && statistics::any(self.runner.engine.layout())
    }

    /// What is evaluated on the way: the projected network wherever there is a mask; a copy where averages are estimated.
    pub(super) fn looked_at(&mut self) -> Result<(Vector, report::Network)> {
        if self.mask.is_none() && !self.reestimates() {
            return Ok((self.w, report::Network::Unprojected));
        }
        let at = self.projection()?;
        self.reestimate(at)?;
        let kind = if self.mask.is_some() { report::Network::Projected } else { report::Network::Unprojected };
        Ok((at, kind))
    }

    pub(super) fn eval_event(
        &self,
        e: &Evaluation,
        network: report::Network,
        dense: Option<&Evaluation>,
        sparsity: f64,
    ) -> report::Eval {
        let outputs = self.job.network.head.outputs();
        let teacher = dense.filter(|d| outputs > 0 && d.logits.len() == e.logits.len() && !e.logits.is_empty());
        let teacher = teacher.filter(|_| self.job.recipe.method != Method::Train);
        let kind = self.job.recipe.objective.odist;
        report::Eval {
            step: if network == report::Network::Dense { 0 } else { self.state.step },
            split: self.job.held_out.as_ref().map(|h| h.1.clone()).unwrap_or_default(),
            network,
            metrics: e.metrics.clone(),
            distance: teacher.map(|d| mean_distance(kind, &e.logits, &d.logits, outputs)),
            sparsity,
        }
    }

    /// Read the weights back and count their zeros, so that what is reported is what is stored.
    pub(super) fn outcome(&self, dense: Option<Evaluation>, last: Option<Evaluation>) -> Result<Outcome> {
        let engine = &self.runner.engine;
        let layout = engine.layout();
        let mut weights = vec![0.0; layout.len()];
        engine.read(self.w, 0, &mut weights)?;
        let zeros = |prunable: bool| -> usize {
            let spans = layout
                .spans()
                .iter()
                .filter(|s| if prunable { s.role == Role::Prunable } else { s.kind != Kind::Statistic });
            spans.map(|s| weights[s.range()].iter().filter(|&&x| x == 0.0).count()).sum()
        };
        let (pruned, all) = (zeros(true), zeros(false));
        if let Some(mask) = self.mask {
            let wanted: usize = engine.read_mask(mask)?.iter().map(|w| w.count_ones() as usize).sum();
            if pruned < wanted {
                return Err(Error::TargetNotMet(format!(
                    "wanted {wanted} zeros after the final projection, found {pruned}"
                )));
            }
        }
        let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
        Ok(Outcome {
            sparsity: share(pruned, layout.count(Role::Prunable)),
            sparsity_model: share(all, layout.parameters()),
            weights,
            steps: self.state.step,
            dense,
            last,
        })
    }
}
