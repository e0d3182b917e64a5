//! `fipk sparsify --drift`: the highest sparsity that keeps a drift budget, and its certificate.
//!
//! Sparsities are halved in on, with a whole run each: only a run to the end has the network that would be stored. A
//! sparsity counts as kept when the whole interval of every limit keeps it on the examples of the choice. The
//! certificate is measured on the other half of the held-out examples.
use super::device::open_engine;
use super::globals::Context;
use super::output::facts;
use super::points::{complete, inner};
use super::require;
use super::runs::{METRICS, MODEL};
use super::settings::Settings;
use super::setup::Setup;
use crate::engine::Vector;
use crate::fip::drift::FEWEST;
use crate::fip::drift::{Budget, Certificate, Estimate, Half, Held, Part, Subject, hold, second_order};
use crate::fip::evaluate::{Apart, apart};
use crate::fip::observed::Observed;
use crate::fip::recipe::Objective;
use crate::fip::runner::Runner;
use crate::models::Head;
use crate::models::folder::ModelFolder;
use crate::params::Role;
use crate::params::atomic::{Folder, write_file};
use crate::report::numbers::{grouped, number, percent};
use crate::report::{Event, Network, Table, html, record};
use crate::{Error, Result};
use serde::Serialize;
use serde_json::json;
use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The most that is tried where nobody says.
pub const HIGHEST: f64 = 0.99;
const RESOLUTION: f64 = 0.01;
const CANDIDATES: &str = "candidates";
/// The certificate, and what was tried on the way to it.
const CERTIFICATE: &str = "drift.json";
const TRIED: &str = "search.json";

/// A search that is about to start or to go on.
pub struct Search {
    settings: Settings,
    setup: Setup,
    budget: Budget,
}

/// A sparsity that was tried.
#[derive(Clone, Debug, Serialize)]
struct Tried {
    sparsity: f64,
    run: PathBuf,
    limits: Vec<Held>,
    kept: bool,
    /// Where the run came to no end: a number stopped being finite.
    #[serde(skip_serializing_if = "Option::is_none")]
    diverged: Option<String>,
}

/// The two networks on one engine, the sparse one's weights written where they are looked at.
struct Looker {
    runner: RefCell<Runner>,
    dense: Vector,
    w: Vector,
}

impl Search {
    /// # Errors
    /// Of the setup; [`Error::Usage`] without held-out data, or for limits that the network has no outputs for.
    pub fn new(settings: Settings, context: &Context) -> Result<Self> {
        let Some(budget) = settings.drift.clone() else {
            return Err(Error::usage("--drift", "no limits", "give some, as 'kl<=0.01'"));
        };
        let one = Settings { drift: None, store_path: None, require: Vec::new(), ..settings.clone() };
        let setup = Setup::new(one, context)?;
        let examples = setup.held_out.as_ref().map_or(0, |(data, _)| data.len());
        if examples < 2 * FEWEST {
            let what = format!(
                "needs {} held-out examples, {FEWEST} to choose by and {FEWEST} for the certificate, and there are {examples}",
                2 * FEWEST
            );
            return Err(Error::usage("--drift", what, "give more of them with --eval-data"));
        }
        if let (Head::Regression, Some(limit)) = (setup.network.head, budget.of_classes()) {
            let what = format!("{limit} compares classes, and this network gives one number");
            return Err(Error::usage("--drift", what, "limit euclidean"));
        }
        let settings = Settings { device: setup.settings.device, dtype: setup.settings.dtype, ..settings };
        Ok(Self { settings, setup, budget })
    }

    /// As the folder's `config.toml` has them.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Search to the end in `out`, which holds the settings.
    ///
    /// # Errors
    /// [`Error::TargetNotMet`] where no sparsity keeps the budget, or the certificate's examples do not; as a run.
    pub fn drive(mut self, out: &Path, context: &Context) -> Result<()> {
        let highest = self.settings.path.sparsity;
        let resolution = self.settings.drift_resolution.unwrap_or(RESOLUTION);
        let looker = self.looker(context)?;
        let (mut low, mut high, mut best, mut tried) = (0.0, highest, None, Vec::new());
        let mut next = highest;
        loop {
            let found = self.candidate(&looker, next, out, context)?;
            if found.kept {
                (low, best) = (next, Some(found.clone()));
            } else {
                high = next;
            }
            tried.push(found);
            self.write_tried(out, &tried, best.as_ref())?;
            // Four decimals name a folder.
            next = (0.5 * (low + high) * 1e4).round() / 1e4;
            if high - low <= resolution || next <= low || next >= high {
                break;
            }
        }
        let Some(best) = best else {
            let what = format!("not even {} zeros keep {}; {TRIED} has what was tried", percent(high), self.budget);
            return Err(Error::TargetNotMet(what));
        };
        self.finish(&looker, &best, &tried, out, context)
    }

    fn held_out(&self, part: Part) -> Option<Half<'_>> {
        self.setup.held_out.as_ref().map(|(data, _)| Half::new(&**data, part, self.settings.budget.seed))
    }

    fn looker(&self, context: &Context) -> Result<Looker> {
        let mut engine = open_engine(self.settings.look(context)?, self.setup.layout.clone())?;
        let (dense, w) = (engine.zeros()?, engine.zeros()?);
        engine.write(dense, 0, &self.setup.weights)?;
        let runner = Runner::new(engine, self.setup.network.clone(), Objective::default());
        Ok(Looker { runner: RefCell::new(runner), dense, w })
    }

    /// How far the network of a run is from the dense one on a part of the held-out examples, as it is stored.
    fn apart(&self, looker: &Looker, run: &Path, part: Part) -> Result<Apart> {
        let folder = ModelFolder::open(&run.join(MODEL).display().to_string())?;
        let weights = self.setup.network.load(&folder, &self.setup.layout, None)?;
        looker.runner.borrow_mut().engine.write(looker.w, 0, &weights)?;
        let Some(half) = self.held_out(part) else { return Ok(Apart::default()) };
        let at = |v: Vector, batch: &crate::data::Batch| looker.runner.borrow_mut().logits(v, batch);
        let batch = self.settings.budget.batch.max(32);
        apart(&half, batch, self.setup.network.head, |b| at(looker.dense, b), |b| at(looker.w, b))
    }

    fn candidate(&mut self, looker: &Looker, sparsity: f64, out: &Path, context: &Context) -> Result<Tried> {
        let run = out.join(CANDIDATES).join(format!("{sparsity:.4}"));
        self.setup.settings.path.sparsity = sparsity;
        let output = context.output;
        if !output.json {
            output.remark(format!("trying {} zeros", percent(sparsity)));
        }
        match complete(&self.setup, &run, out, inner(output)) {
            Ok(()) => {}
            // A sparsity at which the run diverges is one that keeps nothing.
            Err(e @ Error::NotFinite { .. }) => {
                if !output.json {
                    output.remark(format!("  not kept: {e}"));
                }
                return Ok(Tried { sparsity, run, limits: Vec::new(), kept: false, diverged: Some(e.to_string()) });
            }
            Err(e) => return Err(e),
        }
        let limits = hold(&self.budget, &self.apart(looker, &run, Part::Choice)?, self.settings.budget.seed);
        let kept = limits.iter().all(|l| l.surely);
        if !output.json {
            let all: Vec<String> =
                limits.iter().map(|l| format!("{} {}", l.limit.measure, shown(&l.estimate))).collect();
            output.remark(format!("  {}: {}", if kept { "kept" } else { "not kept" }, all.join(", ")));
        }
        Ok(Tried { sparsity, run, limits, kept, diverged: None })
    }

    fn write_tried(&self, out: &Path, tried: &[Tried], best: Option<&Tried>) -> Result<()> {
        let object = json!({
            "budget": self.budget,
            "resolution": self.settings.drift_resolution.unwrap_or(RESOLUTION),
            "rule": "kept where the whole interval of every limit is, on the examples of the choice",
            "found": best.map(|b| b.sparsity),
            "tried": tried,
        });
        write_file(&out.join(TRIED), |w| writeln!(w, "{object:#}"))
    }

    /// The best run's model, its record and the certificate, in the search's own folder.
    fn finish(&self, looker: &Looker, best: &Tried, tried: &[Tried], out: &Path, context: &Context) -> Result<()> {
        let apart = self.apart(looker, &best.run, Part::Certificate)?;
        let (Some(half), Some((data, name))) = (self.held_out(Part::Certificate), &self.setup.held_out) else {
            return Err(Error::data("--drift", "no held-out examples", "give --eval-data"));
        };
        let observed = Observed::new(&self.setup.network, &half, self.settings.budget.batch)?;
        let classes = self.setup.network.head != Head::Regression;
        let predicted = {
            let mut runner = looker.runner.borrow_mut();
            second_order(&mut *runner.engine, &observed, (looker.dense, looker.w), classes)?
        };
        let sparse = ModelFolder::open(&best.run.join(MODEL).display().to_string())?;
        let mut subject = Subject {
            dense_sha256: self.setup.fingerprint.clone(),
            sparse_sha256: sparse.fingerprint()?,
            data: self.settings.eval_data.clone().unwrap_or_else(|| format!("the {name} split of the data")),
            data_fingerprint: data.fingerprint(),
            sparsity: 0.0,
            seed: self.settings.budget.seed,
            examples_of_the_choice: self.held_out(Part::Choice).map_or(0, |h| crate::data::Dataset::len(&h)),
        };
        let layout = &self.setup.layout;
        let weights = self.setup.network.load(&sparse, layout, None)?;
        let zeros: usize =
            layout.with_role(Role::Prunable).map(|s| weights[s.range()].iter().filter(|x| **x == 0.0).count()).sum();
        subject.sparsity = zeros as f64 / layout.count(Role::Prunable).max(1) as f64;
        let certificate = Certificate::new(&self.budget, &apart, predicted, subject);
        let text = serde_json::to_string_pretty(&certificate)
            .map_err(|e| Error::data(CERTIFICATE, e.to_string(), "look at the weights and the data"))?;

        let model = Folder::create(&out.join(MODEL), true)?;
        let from = best.run.join(MODEL);
        for entry in fs::read_dir(&from).map_err(Error::io("read", &from))? {
            let entry = entry.map_err(Error::io("read", &from))?;
            model.copy(&entry.path(), &entry.file_name().to_string_lossy())?;
        }
        let model = model.commit()?;
        write_file(&out.join(CERTIFICATE), |w| writeln!(w, "{text}"))?;

        let missed: Vec<String> = certificate.limits.iter().filter(|l| !l.kept).map(|l| l.limit.to_string()).collect();
        let judged = match missed.is_empty() {
            true => Ok(()),
            false => Err(Error::TargetNotMet(format!(
                "{} held on the examples of the choice, and not on those of the certificate",
                missed.join(" and ")
            ))),
        };
        let tables = [searched(&self.budget, tried), certified(&certificate)];
        let (judged, metrics) = self.write_record(best, out, &tables, judged)?;
        let page = html::write(out)?;
        let output = context.output;
        let mut rows = vec![("sparsity", format!("{} of the prunable weights", percent(certificate.sparsity)))];
        rows.extend(metrics.iter().map(|(name, value)| (name.as_str(), super::runs::metric(name, *value))));
        rows.push(("examples", format!("{} for the certificate", grouped(apart.len() as u64))));
        output.result(&certificate, &[&tables[..], &[facts(&rows)]].concat())?;
        if !output.json {
            output.remark(format!(
                "\nmodel        {}\ncertificate  {}\nreport       {}",
                model.display(),
                out.join(CERTIFICATE).display(),
                page.display()
            ));
        }
        judged
    }

    /// The best run's events as the search's, with what was tried before their end. Its requirements are judged here.
    fn write_record(
        &self,
        best: &Tried,
        out: &Path,
        tables: &[Table],
        judged: Result<()>,
    ) -> Result<(Result<()>, std::collections::BTreeMap<String, f64>)> {
        let mut records = record::read(&best.run.join(METRICS))?;
        let last = records.iter().rev().find_map(|r| match &r.event {
            Event::Eval(e) if e.network == Network::Final => Some(e.metrics.clone()),
            _ => None,
        });
        let metrics = last.unwrap_or_default();
        let judged = judged.and_then(|()| require::check(&self.settings.require, &metrics));
        let Some(mut end) = records.pop() else {
            let hint = "remove this folder, and search again";
            return Err(Error::data(best.run.display().to_string(), "this run has no record", hint));
        };
        for table in tables {
            records.push(record::Record { seconds: end.seconds, event: table.clone().into() });
        }
        if let (Event::End(end), Err(missed)) = (&mut end.event, &judged) {
            (end.status, end.message) = ("target not met".into(), missed.to_string());
        }
        records.push(end);
        write_file(&out.join(METRICS), |w| {
            records.iter().try_for_each(|r| {
                serde_json::to_writer(&mut *w, r)?;
                writeln!(w)
            })
        })?;
        Ok((judged, metrics))
    }
}

fn shown(e: &Estimate) -> String {
    format!("{} ({} to {})", number(e.value), number(e.low), number(e.high))
}

fn yes(kept: bool) -> String {
    if kept { "yes" } else { "no" }.into()
}

/// What was tried, fewest zeros first.
fn searched(budget: &Budget, tried: &[Tried]) -> Table {
    let mut order: Vec<&Tried> = tried.iter().collect();
    order.sort_by(|a, b| a.sparsity.total_cmp(&b.sparsity));
    let mut columns = vec!["zeros".to_string()];
    columns.extend(budget.limits().iter().map(ToString::to_string));
    columns.push("kept".into());
    let row = |t: &&Tried| {
        let measured = |i: usize| t.limits.get(i).map_or_else(|| "diverged".into(), |l| shown(&l.estimate));
        let cells = (0..budget.limits().len()).map(measured);
        [percent(t.sparsity)].into_iter().chain(cells).chain([yes(t.kept)]).collect()
    };
    Table {
        title: "Sparsities tried, on the examples of the choice".into(),
        columns,
        rows: order.iter().map(row).collect(),
    }
}

fn certified(certificate: &Certificate) -> Table {
    let row = |h: &Held| vec![h.limit.to_string(), shown(&h.estimate), yes(h.kept)];
    Table {
        title: "Drift on held-out examples that had no part in the choice (a measurement, no guarantee)".into(),
        columns: ["limit", "measured (95 % interval)", "kept"].map(String::from).to_vec(),
        rows: certificate.limits.iter().map(row).collect(),
    }
}
