//! `fipk frontier`: what is left of a network at several sparsities, by the path and by its baselines.
use super::files::DataFlags;
use super::flags::{set, share};
use super::globals::Context;
use super::output::facts;
use super::points::{complete, finished, inner};
use super::project::missing;
use super::runs::{METRICS, metric};
use super::settings::{FILE, SaveDtype, Settings};
use super::setup::{self, Setup, Source};
use super::sparsify::{Tuning, resolved};
use crate::engine::Pattern;
use crate::fip::recipe::{Method, Preset};
use crate::params::atomic::write_file;
use crate::report::numbers::percent;
use crate::report::plots::{Line, LinePlot, Series};
use crate::report::{Eval, Event, Network, Table, record};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Draw the frontier of sparsity and quality: the path and its baselines at several sparsities
///
/// A run each of as many steps from the same dense network, in a folder of its own below --out: runs that are finished are
/// not made again, and `fipk resume OUT` goes on with what was stopped. One table, frontier.json and frontier.svg say what
/// the stored networks do on held-out data. The path to the last sparsity passes the others: its network is projected to each
/// of them, with exactly that share of zeros, and looked at there, with no steps inside the subspace; gradual pruning's too.
/// These are all there is of the two with --one-path.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk frontier --model lenet/model --data mnist:MNIST --sparsities 0.67,0.89,0.96,0.99 --epochs 20 --out frontier
  fipk frontier --model bert-sst2 --data glue/sst2:SST-2 --sparsities 50%,60%,70% --methods fip,one-shot --out frontier
  fipk frontier --model lenet/model --data mnist:MNIST --sparsities 0.67,0.89,0.96,0.99 --one-path --out one
  fipk resume frontier")]
pub struct Args {
    /// Folder with config.json and safetensors, or a Hugging Face id in the local cache
    #[arg(long, value_name = "DIR|ID")]
    model: Option<String>,
    #[command(flatten)]
    data: DataFlags,
    /// Shares of the prunable weights that are zero, as 0.5,0.6,90%
    #[arg(long, value_name = "SHARES", value_delimiter = ',', value_parser = share, required = true)]
    sparsities: Vec<f64>,
    /// Ways to get there: the path (fip), the paper's listing as printed (paper), gradual magnitude pruning with labels
    /// (gradual), the smallest weights at once (one-shot), random ones (random) [default: fip,gradual,paper,one-shot]
    #[arg(long, value_name = "METHODS", value_delimiter = ',', value_parser = super::flags::one_of::<Way>(&["fip", "gradual", "paper", "one-shot", "random"]))]
    methods: Vec<Way>,
    /// Walk one path to the last sparsity, and one of gradual pruning [default: one to each sparsity]
    #[arg(long)]
    one_path: bool,
    /// Folder for the runs, frontier.json and frontier.svg
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace --out if it is a frontier or a run
    #[arg(long)]
    overwrite: bool,
    /// Type of the stored weights [default: f32]
    #[arg(long, value_name = "TYPE")]
    save_dtype: Option<SaveDtype>,
    #[command(flatten)]
    tuning: Tuning,
}

/// A way to a sparse network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    Fip,
    Gradual,
    Paper,
    OneShot,
    Random,
}

impl Way {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Fip => "fip",
            Self::Gradual => "gradual",
            Self::Paper => "paper",
            Self::OneShot => "one-shot",
            Self::Random => "random",
        }
    }
    const fn title(self) -> &'static str {
        match self {
            Self::Fip => "FIP",
            Self::Gradual => "gradual magnitude",
            Self::Paper => "listing as printed",
            Self::OneShot => "one-shot magnitude",
            Self::Random => "random",
        }
    }
    const fn method(self) -> Method {
        match self {
            Self::Fip | Self::Paper => Method::Fip,
            Self::Gradual => Method::Gradual,
            Self::OneShot => Method::OneShot,
            Self::Random => Method::Random,
        }
    }
    const fn preset(self) -> Preset {
        match self {
            Self::Paper => Preset::Paper,
            _ => Preset::Fip,
        }
    }

    /// Whether the sparsity rises along the way, so that the way to one sparsity passes smaller ones.
    const fn passes(self) -> bool {
        matches!(self, Self::Fip | Self::Gradual)
    }

    /// What makes another way than FIP what it is stays so, whatever is asked of the path: its steps are the optimizer's, the
    /// listing is the one printed, and what takes no path takes no step.
    fn settle(self, s: &mut Settings) {
        let own = self.preset().recipe(self.method(), s.budget.batch);
        if self != Self::Fip {
            s.step.kind = own.step.kind;
        }
        match self {
            Self::Fip | Self::Gradual => {}
            Self::Paper => {
                let p = own.path;
                (s.path.pull, s.path.ramp, s.path.refresh, s.path.finish) = (p.pull, p.ramp, p.refresh, p.finish);
                (s.objective.anchor, s.objective.odist) = (own.objective.anchor, own.objective.odist);
            }
            Self::OneShot | Self::Random => s.path.finish = own.path.finish,
        }
    }
}

/// What a frontier is made of; in the `config.toml` of its folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frontier {
    pub sparsities: Vec<f64>,
    pub methods: Vec<Way>,
    #[serde(default)]
    pub one_path: bool,
}

impl Frontier {
    fn points(&self) -> impl Iterator<Item = (Way, f64)> + '_ {
        let all = self.sparsities.iter().flat_map(|&p| self.methods.iter().map(move |&way| (way, p)));
        all.filter(|&(way, p)| !(self.one_path && way.passes()) || self.is_last(p))
    }

    fn is_last(&self, sparsity: f64) -> bool {
        self.sparsities.last() == Some(&sparsity)
    }

    /// Sorted, each once.
    ///
    /// # Errors
    /// [`Error::Usage`] for a sparsity that makes no sense.
    fn new(mut sparsities: Vec<f64>, mut methods: Vec<Way>, one_path: bool) -> Result<Self> {
        if let Some(p) = sparsities.iter().find(|p| !(**p > 0.0 && **p < 1.0)) {
            return Err(Error::usage("--sparsities", format!("{p} makes no sense"), "give shares between 0 and 1"));
        }
        if methods.is_empty() {
            methods = vec![Way::Fip, Way::Gradual, Way::Paper, Way::OneShot];
        }
        if one_path && !methods.iter().any(|w| w.passes()) {
            let hint = "add fip or gradual to --methods, or leave it out";
            return Err(Error::usage("--one-path", "none of the methods takes a path past other sparsities", hint));
        }
        sparsities.sort_by(f64::total_cmp);
        sparsities.dedup();
        methods.sort_unstable();
        methods.dedup();
        Ok(Self { sparsities, methods, one_path })
    }
}

fn folder_of(out: &Path, way: Way, sparsity: f64) -> PathBuf {
    out.join(format!("{}-{sparsity}", way.as_str()))
}

pub fn run(args: Args, context: &Context) -> Result<()> {
    let frontier = Frontier::new(args.sparsities, args.methods, args.one_path)?;
    let mut shared = Settings::of_file(context)?;
    args.data.apply(&mut shared);
    let model = args.model.or(shared.model.clone());
    let model = model.ok_or_else(|| missing("--model", "a folder or a Hugging Face id"))?;
    let source = Source::open(&Settings { model: Some(model.clone()), ..shared.clone() })?;
    let mut points = Vec::new();
    for (way, sparsity) in frontier.points() {
        let tuning = &args.tuning;
        let mut s = resolved(&source, context, Some(way.method()), Some(way.preset()), tuning)?;
        if matches!(s.path.scope, Pattern::NofM { .. }) {
            let what = format!("scope {} has one sparsity, and no frontier", s.path.scope);
            return Err(Error::usage("--scope", what, "take global, layer, row or block:RxC"));
        }
        way.settle(&mut s);
        (s.model, s.path.sparsity) = (Some(model.clone()), sparsity);
        (s.arch, s.preprocessor, s.new_head) = (None, None, false);
        (s.data, s.eval_data) = (shared.data.clone(), shared.eval_data.clone());
        (s.max_length, s.image_size) = (shared.max_length, shared.image_size);
        (s.drift, s.store_path, s.frontier) = (None, None, None);
        let passes = way.passes() && frontier.is_last(sparsity);
        s.budget.milestones = if passes { frontier.sparsities.clone() } else { Vec::new() };
        // A point that misses a requirement is a point of the frontier all the same.
        s.require = Vec::new();
        set(&mut s.save_dtype, args.save_dtype);
        s.check(true)?;
        s.absolute()?;
        points.push((way, sparsity, s));
    }
    let Some((_, _, base)) = points.first() else { return Err(missing("--sparsities", "one at least")) };
    let base = Settings { frontier: Some(frontier), ..base.clone() };
    let folder = setup::claim(args.out.as_deref(), args.overwrite)?;
    // What cannot run is known before anything is written; its settings say where it ran.
    let setup = Setup::new(Settings { frontier: None, ..base.clone() }, context)?;
    if setup.held_out.is_none() {
        return Err(Error::usage("--eval-data", "a frontier needs held-out data", "give some"));
    }
    for (way, sparsity, s) in &points {
        let s = Settings { device: setup.settings.device, dtype: setup.settings.dtype, ..s.clone() };
        let text = s.to_toml()?;
        let name = folder_of(Path::new(""), *way, *sparsity).join(FILE);
        folder.write(&name.display().to_string(), |w| w.write_all(text.as_bytes()))?;
    }
    let out = setup::found(folder, &base)?;
    go(&out, context, Some(setup))
}

/// Bring the frontier in `out` to its end.
///
/// # Errors
/// As a run; interrupted, it says how to go on.
pub fn drive(out: &Path, context: &Context) -> Result<()> {
    go(out, context, None)
}

fn go(out: &Path, context: &Context, mut setup: Option<Setup>) -> Result<()> {
    let settings = Settings::read(out)?;
    let Some(frontier) = settings.frontier.clone() else {
        return Err(Error::data(out.display().to_string(), "no frontier", "name the folder of `fipk frontier --out`"));
    };
    let output = context.output;
    let count = frontier.points().count();
    for (nth, (way, sparsity)) in frontier.points().enumerate() {
        let dir = folder_of(out, way, sparsity);
        if finished(&dir)?.is_some() {
            continue;
        }
        if !output.json {
            output.remark(format!("{}/{count}  {} zeros by {}", nth + 1, percent(sparsity), way.title()));
        }
        let own = Settings::read(&dir)?;
        let ready = match setup.take() {
            // Model, data and roles are the same for all.
            Some(ready) => Setup { settings: own, ..ready },
            None => Setup::new(own, context)?,
        };
        complete(&ready, &dir, out, inner(output))?;
        setup = Some(ready);
    }
    let found = Found::read(out, &frontier)?;
    let svg = found.plot().svg((720, 440))?;
    write_file(&out.join("frontier.svg"), |w| w.write_all(svg.as_bytes()))?;
    let object = json!({
        "out": out,
        "model": settings.model,
        "data": settings.data,
        "seed": settings.budget.seed,
        "metric": found.metric,
        "dense": found.dense,
        "points": found.points,
        "one_path": found.passed,
        "in_passing": found.passing,
    });
    write_file(&out.join("frontier.json"), |w| writeln!(w, "{object:#}"))?;
    output.result(&object, &[found.table(&frontier), facts(&[("dense", metric(&found.metric, found.dense))])])?;
    if !output.json {
        let [json, svg] = ["frontier.json", "frontier.svg"].map(|name| out.join(name).display().to_string());
        output.remark(format!("\ntable  {json}\nplot   {svg}"));
    }
    Ok(())
}

/// A stored network of the frontier.
#[derive(Clone, Debug, Serialize)]
struct Point {
    method: Way,
    sparsity_target: f64,
    /// Zeros over the prunable weights, as stored.
    sparsity: f64,
    metrics: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    distance: Option<f64>,
    steps: u64,
    seconds: f64,
    run: PathBuf,
}

/// A network of the way to the last sparsity, projected to one of the others.
#[derive(Clone, Debug, Serialize)]
struct Passed {
    method: Way,
    sparsity: f64,
    metrics: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    distance: Option<f64>,
    step: u64,
}

/// What the runs say.
struct Found {
    metric: String,
    dense: f64,
    points: Vec<Point>,
    passed: Vec<Passed>,
    /// (zeros, metric) of all projected networks along the longest path.
    passing: Vec<(f64, f64)>,
}

impl Found {
    fn read(out: &Path, frontier: &Frontier) -> Result<Self> {
        let (mut points, mut dense, mut name) = (Vec::new(), None, None);
        let (mut passed, mut passing) = (Vec::new(), Vec::new());
        for (method, target) in frontier.points() {
            let run = folder_of(out, method, target);
            let records = record::read(&run.join(METRICS))?;
            let evals: Vec<&Eval> =
                records.iter().filter_map(|r| if let Event::Eval(e) = &r.event { Some(e) } else { None }).collect();
            let of = |network| evals.iter().rev().find(|e| e.network == network);
            let (Some(last), Some(first)) = (of(Network::Final), of(Network::Dense)) else {
                let hint = "remove its folder, and `fipk resume` the frontier";
                return Err(Error::data(run.display().to_string(), "this run was not evaluated", hint));
            };
            let name: &String = name.get_or_insert_with(|| headline(&first.metrics));
            dense = dense.or(first.metrics.get(name).copied());
            if method == Way::Fip && frontier.sparsities.last() == Some(&target) {
                // At its full sparsity the path is over, and steps inside the subspace follow.
                let path = |e: &&&Eval| e.network == Network::Projected && e.sparsity < target;
                let seen = evals.iter().filter(|e| path(e) || e.network == Network::Passing);
                passing = seen.filter_map(|e| Some((e.sparsity, *e.metrics.get(name)?))).collect();
                passing.sort_by(|a, b| a.0.total_cmp(&b.0));
            }
            passed.extend(evals.iter().filter(|e| e.network == Network::Passing).map(|e| Passed {
                method,
                sparsity: e.sparsity,
                metrics: e.metrics.clone(),
                distance: e.distance,
                step: e.step,
            }));
            points.push(Point {
                method,
                sparsity_target: target,
                sparsity: last.sparsity,
                metrics: last.metrics.clone(),
                distance: last.distance,
                steps: last.step,
                seconds: records.last().map_or(0.0, |r| r.seconds),
                run,
            });
        }
        let dense = dense.unwrap_or(f64::NAN);
        Ok(Self { metric: name.unwrap_or_default(), dense, points, passed, passing })
    }

    fn of(&self, method: Way) -> impl Iterator<Item = (&Point, f64)> {
        self.points.iter().filter(move |p| p.method == method).filter_map(|p| Some((p, *p.metrics.get(&self.metric)?)))
    }

    fn table(&self, frontier: &Frontier) -> Table {
        let say = |value: Option<f64>| value.map_or("-".into(), |value| metric(&self.metric, value));
        let passing: Vec<Way> = frontier.methods.iter().copied().filter(|w| w.passes()).collect();
        let row = |&target: &f64| {
            let stored = |&way: &Way| say(self.of(way).find(|(p, _)| p.sparsity_target == target).map(|(_, v)| v));
            let passed = |&way: &Way| {
                let here = |p: &&Passed| p.method == way && p.sparsity == target;
                say(self.passed.iter().find(here).and_then(|p| p.metrics.get(&self.metric).copied()))
            };
            let cells = frontier.methods.iter().map(stored).chain(passing.iter().map(passed));
            [percent(target)].into_iter().chain(cells).collect()
        };
        let columns = ["zeros"].into_iter().chain(frontier.methods.iter().map(|w| w.title())).map(String::from);
        let in_passing = passing.iter().map(|w| format!("{}, one path", w.title()));
        Table {
            title: format!("{} of the stored networks on held-out data, and of one path in passing", self.metric),
            columns: columns.chain(in_passing).collect(),
            rows: frontier.sparsities.iter().map(row).collect(),
        }
    }

    fn plot(&self) -> LinePlot {
        let scale = if matches!(self.metric.as_str(), "accuracy" | "f1") { 100.0 } else { 1.0 };
        let mut ways: Vec<Way> = self.points.iter().map(|p| p.method).collect();
        ways.sort_unstable();
        ways.dedup();
        let mut series: Vec<Series> = Vec::new();
        for (color, way) in ways.into_iter().enumerate() {
            let points = self.of(way).map(|(p, value)| (100.0 * p.sparsity, scale * value)).collect();
            series.push(Series { markers: true, color: Some(color), ..Series::new(way.title(), points) });
        }
        if self.passing.len() > 1 {
            let points = self.passing.iter().map(|(p, value)| (100.0 * p, scale * value)).collect();
            series.push(Series { line: Line::Dashed, color: Some(5), ..Series::new("one path, in passing", points) });
        }
        let ends = self.points.iter().map(|p| 100.0 * p.sparsity).chain(self.passing.iter().map(|p| 100.0 * p.0));
        let (low, high) = ends.fold((f64::INFINITY, 0.0f64), |(low, high), x| (low.min(x), high.max(x)));
        let level = vec![(low, scale * self.dense), (high, scale * self.dense)];
        series.push(Series { line: Line::Dashed, color: Some(6), ..Series::new("dense", level) });
        LinePlot {
            x_label: "zeros among the prunable weights (%)".into(),
            y_label: if scale > 1.0 { format!("{} (%)", self.metric) } else { self.metric.clone() },
            series,
            ..LinePlot::default()
        }
    }
}

/// The metric that names a network's quality.
fn headline(metrics: &BTreeMap<String, f64>) -> String {
    let known = ["accuracy", "matthews", "pearson", "perplexity", "loss"].into_iter();
    known.map(String::from).find(|name| metrics.contains_key(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_sorted_and_come_once() {
        let f = Frontier::new(vec![0.9, 0.5, 0.9], vec![Way::OneShot, Way::Fip], false).unwrap();
        let points: Vec<_> = f.points().collect();
        let want = [(Way::Fip, 0.5), (Way::OneShot, 0.5), (Way::Fip, 0.9), (Way::OneShot, 0.9)];
        assert_eq!(points, want);
        let one: Vec<_> = Frontier { one_path: true, ..f }.points().collect();
        assert_eq!(one, [(Way::OneShot, 0.5), (Way::Fip, 0.9), (Way::OneShot, 0.9)]);
        assert_eq!(Frontier::new(vec![0.5], vec![], false).unwrap().methods.len(), 4);
        assert_eq!(Frontier::new(vec![0.5], vec![Way::OneShot], true).unwrap_err().exit_code(), 2);
        for p in [0.0, 1.0, f64::NAN, -0.5] {
            assert_eq!(Frontier::new(vec![0.5, p], vec![], false).unwrap_err().exit_code(), 2, "{p}");
        }
    }
}
