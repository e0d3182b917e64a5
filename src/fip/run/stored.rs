//! The networks of a run's path, stored on the way: a path that `fipk path` shows, measures, draws and exports.
use super::{Job, Run};
use crate::engine::Engine;
use crate::fip::path::{Origin, Point, Stored, distance, packed};
use crate::{Error, Result};
use serde_json::json;
use std::path::PathBuf;

/// Networks a path has where nobody says how many.
const POINTS: u64 = 20;
/// What the last one is called: it is stored anew whenever a run comes to its end.
const LAST: &str = "projected";

/// Where a run's path is stored.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    pub dir: PathBuf,
    pub origin: Origin,
    /// Steps between two networks; a twentieth of the run where it is not given.
    pub every: Option<u64>,
}

impl Run<'_> {
    /// The path of a run that starts, or goes on after `step` steps: what was stored of later ones happens again.
    pub(super) fn open_path(job: &Job, engine: &dyn Engine, step: Option<u64>) -> Result<Option<Stored>> {
        let Some(keep) = &job.path else { return Ok(None) };
        let mut stored = match keep.dir.join("path.json").exists() {
            true => Stored::open(&keep.dir)?,
            false => Stored::create(&keep.dir, keep.origin.clone(), engine.layout())?,
        };
        if stored.model_sha256() != keep.origin.model_sha256 {
            let hint = "choose another --path, or remove the folder";
            return Err(Error::model(keep.dir.display().to_string(), "this path starts from another model", hint));
        }
        stored.cut(|p| step.is_some_and(|step| p.time <= step as f64) && p.operation != LAST)?;
        if stored.points().is_empty() {
            let start = Point { operation: "start".into(), ..Point::default() };
            stored.add(packed(engine.layout(), job.weights), start)?;
        }
        Ok(Some(stored))
    }

    /// Store the network where the path stands, if it is due; `last` stores it in any case.
    pub(super) fn keep_point(&mut self, last: bool) -> Result<()> {
        let (Some(stored), Some(keep)) = (&mut self.stored, &self.job.path) else { return Ok(()) };
        let every = keep.every.unwrap_or(self.plan.steps.div_ceil(POINTS)).max(1);
        if !last && !self.state.step.is_multiple_of(every) {
            return Ok(());
        }
        let engine = &self.runner.engine;
        let mut weights = vec![0.0; engine.layout().len()];
        engine.read(self.w, 0, &mut weights)?;
        let numbers = packed(engine.layout(), &weights);
        let from_start = distance(&numbers, &packed(engine.layout(), self.job.weights));
        let finishing = self.state.projected_at.is_some();
        let operation = match (last, finishing) {
            (true, _) => LAST,
            (_, true) => "inside the subspace",
            _ => "sparsify",
        };
        let facts = json!({ "from_start": from_start, "sparsity": self.state.sparsity });
        let facts = facts.as_object().cloned().unwrap_or_default();
        stored.add(
            numbers,
            Point { time: self.state.step as f64, operation: operation.into(), facts, ..Point::default() },
        )
    }
}
