//! `fipk sparsify`: a network moved to a sparse subspace, by an invariant path or a baseline.
use super::files::{DataFlags, OutFlags};
use super::flags::{
    BudgetFlags, ObjectiveFlags, OptimizerFlags, PathFlags, RoleFlags, StepFlags, WayFlags, set, share,
};
use super::globals::Context;
use super::model::Model;
use super::output::facts;
use super::project::{missing, require_sparsity};
use super::runs::{self, Manner};
use super::search::{HIGHEST, Search};
use super::settings::Settings;
use super::setup::{self, Setup, Source};
use crate::fip::drift::Budget;
use crate::fip::recipe::{Method, Preset, Recipe};
use crate::fip::step::Stepping;
use crate::geometry::OutputMetric;
use crate::models::Head;
use crate::ops::Distance;
use crate::params::Role;
use crate::report::Table;
use crate::report::numbers::grouped;
use crate::{Error, Result};
use serde_json::json;
use std::path::PathBuf;

/// Make a network sparse along a path on which its outputs stay put
///
/// The weights walk to the nearest sparse subspace while a distance between the network's outputs and those it had at
/// the start is held down; at the end exactly round(sparsity · n) of the prunable weights are zero, and the last part
/// of the steps is taken inside that subspace. Needs no labels. What is written loads in `transformers` as it is.
///
/// Baselines through the same command: --method gradual, one-shot, random. Stopped by Ctrl-C or killed, a run goes on
/// with `fipk resume RUN`, to the same bytes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk sparsify --model bert-sst2 --data glue/sst2:SST-2 --sparsity 0.6 --out run
  fipk sparsify --model bert-sst2 --data glue/sst2:SST-2 --sparsity 60% --dry-run
  fipk sparsify --model bert-sst2 --data glue/sst2:SST-2 --scope 2:4 --epochs 3 --out run24
  fipk sparsify --model lenet --data mnist:MNIST --sparsity 0.96 --method gradual --out baseline
  fipk sparsify --model lenet --data mnist:MNIST --sparsity 0.9 --step exact --steps 200 --out exact
  fipk sparsify --model bert-sst2 --data glue/sst2:SST-2 --drift 'kl<=0.01,flips<=0.5%' --out kept
  fipk sparsify --config run/config.toml --sparsity 0.7 --out run70 --require 'accuracy>=0.9'")]
pub struct Args {
    /// Folder with config.json and safetensors, or a Hugging Face id in the local cache
    #[arg(long, value_name = "DIR|ID")]
    model: Option<String>,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    out: OutFlags,
    /// List every parameter with its role and count, then stop
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    way: WayFlags,
    #[command(flatten)]
    tuning: Tuning,
    #[command(flatten)]
    drift: DriftFlags,
    #[command(flatten)]
    keep: KeepFlags,
}

/// Everything about a path but where it starts, where it leads and what is written.
#[derive(Debug, Default, clap::Args)]
pub struct Tuning {
    #[command(flatten)]
    path: PathFlags,
    #[command(flatten)]
    step: StepFlags,
    #[command(flatten)]
    objective: ObjectiveFlags,
    #[command(flatten)]
    optimizer: OptimizerFlags,
    #[command(flatten)]
    budget: BudgetFlags,
    #[command(flatten)]
    roles: RoleFlags,
    /// Neither train nor prune what matches
    #[arg(long, value_name = "GLOB")]
    freeze: Vec<String>,
}

impl Tuning {
    pub fn apply(&self, recipe: &mut Recipe) {
        self.path.apply(recipe);
        self.step.apply(recipe);
        self.objective.apply(recipe);
        self.optimizer.apply(recipe);
        self.budget.apply(recipe);
        self.roles.apply(recipe);
        if !self.freeze.is_empty() {
            recipe.roles.freeze.clone_from(&self.freeze);
        }
    }
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Drift budget")]
struct DriftFlags {
    /// Find the highest sparsity, up to --sparsity (0.99 unless it is given), that keeps these limits on held-out data:
    /// 'kl<=0.01,flips<=0.5%', with kl, euclidean, bhattacharyya and hellinger by their mean or .median, .p90, .p99, .max.
    /// The search halves the interval of sparsities with a whole run each, and chooses by one half of the held-out data; the
    /// other half, which it never saw, gives the certificate in drift.json
    #[arg(long, value_name = "LIMITS")]
    drift: Option<Budget>,
    /// How near that sparsity is looked for [default: 0.01]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    drift_resolution: Option<f64>,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Stored path")]
struct KeepFlags {
    /// Store networks on the way as a path that `fipk path` reads: each as its compressed difference from the one before
    #[arg(long = "path", value_name = "DIR")]
    store_path: Option<PathBuf>,
    /// Steps between two stored networks [default: a twentieth of the run]
    #[arg(long, value_name = "STEPS")]
    path_every: Option<u64>,
}

pub fn run(args: Args, context: &Context) -> Result<()> {
    let mut settings = resolve(&args, context)?;
    args.data.apply(&mut settings);
    if args.dry_run {
        return dry_run(&settings, context);
    }
    if settings.drift.is_none() {
        require_sparsity(&settings, args.way.sparsity, context)?;
    }
    settings.check(args.way.sparsity.is_some())?;
    let folder = setup::claim(args.out.out.as_deref(), args.out.overwrite)?;
    settings.absolute()?;
    if settings.drift.is_some() {
        let search = Search::new(settings, context)?;
        let out = setup::found(folder, search.settings())?;
        return search.drive(&out, context);
    }
    if let Some(dir) = settings.store_path.as_deref().filter(|dir| dir.exists()) {
        let empty = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
        if !empty {
            let what = "it is there, and not empty";
            return Err(Error::usage(format!("--path {}", dir.display()), what, "name a new folder for the path"));
        }
    }
    let setup = Setup::new(settings, context)?;
    let out = setup::found(folder, &setup.settings)?;
    runs::drive(&setup, &out, &Manner::new(context.output)).map(drop)
}

fn resolve(args: &Args, context: &Context) -> Result<Settings> {
    let of_file = Settings::of_file(context)?;
    let model = args
        .model
        .clone()
        .or(of_file.model.clone())
        .ok_or_else(|| missing("--model", "a folder or a Hugging Face id"))?;
    let image_size = args.data.image_size.or(of_file.image_size);
    let source = Source::open(&Settings { model: Some(model.clone()), image_size, ..of_file })?;
    let mut settings = resolved(&source, context, args.way.method, args.way.preset, &args.tuning)?;
    // What a configuration says of a network from scratch, or of a head, was for the run that made the model.
    (settings.model, settings.arch, settings.preprocessor, settings.new_head) = (Some(model), None, None, false);
    set(&mut settings.path.sparsity, args.way.sparsity);
    settings.frontier = None;
    settings.drift = args.drift.drift.clone().or(settings.drift);
    settings.drift_resolution = args.drift.drift_resolution.or(settings.drift_resolution);
    let by_file = context.file.as_ref().is_some_and(|f| f.1.get("path").is_some_and(|p| p.get("sparsity").is_some()));
    if settings.drift.is_some() && args.way.sparsity.is_none() && !by_file {
        settings.path.sparsity = HIGHEST;
    }
    settings.store_path = args.keep.store_path.clone().or(settings.store_path);
    settings.path_every = args.keep.path_every.or(settings.path_every);
    for (flag, given, wants, there) in [
        ("--path-every", args.keep.path_every.is_some(), "--path", settings.store_path.is_some()),
        ("--drift-resolution", args.drift.drift_resolution.is_some(), "--drift", settings.drift.is_some()),
    ] {
        if given && !there {
            let what = format!("it says something of {wants}, which is not given");
            return Err(Error::usage(flag, what, format!("leave it out, or give {wants}")));
        }
    }
    args.out.apply(&mut settings);
    Ok(settings)
}

/// The settings of a way to a sparse network: preset, file, flags.
pub fn resolved(
    source: &Source,
    context: &Context,
    method: Option<Method>,
    preset: Option<Preset>,
    tuning: &Tuning,
) -> Result<Settings> {
    let mut settings = Settings::resolve(context, Some(&source.config), method, preset, tuning.budget.batch)?;
    let file = context.file.as_ref().map(|f| &f.1);
    let chosen = |table: &str, key: &str| file.is_some_and(|t| t.get(table).is_some_and(|o| o.get(key).is_some()));
    let head = source.folder.as_ref().map(|f| f.head(None)).transpose()?;
    if head == Some(Head::Regression) {
        // The others compare classes, and one number has none.
        if !chosen("objective", "odist") {
            settings.objective.odist = Distance::Euclidean;
        }
        if !chosen("step", "output_metric") {
            settings.step.output_metric = OutputMetric::Euclidean;
        }
    }
    let mut recipe = settings.recipe();
    tuning.apply(&mut recipe);
    tuning.step.check(recipe.step.kind, tuning.path.pull.is_some())?;
    if recipe.step.in_metric() && tuning.step.output_metric.is_none() && !chosen("step", "output_metric") {
        recipe.step.output_metric = Stepping::metric_of(recipe.objective.odist);
    }
    settings.set_recipe(recipe);
    Ok(settings)
}

/// What would be pruned, trained and left alone.
fn dry_run(settings: &Settings, context: &Context) -> Result<()> {
    let model = Model::open_at(settings.model.as_deref().unwrap_or_default(), settings.image_size)?;
    let layout = model.layout(&settings.roles)?;
    let role = |role: Role| match role {
        Role::Prunable => "prunable",
        Role::Free => "trained",
        Role::Frozen => "frozen",
    };
    let rows = layout.spans().iter();
    let rows = rows.map(|s| vec![s.name.clone(), format!("{:?}", s.shape), role(s.role).into(), grouped(s.len as u64)]);
    let columns = ["parameter", "shape", "role", "weights"].map(String::from).to_vec();
    let table = Table { title: String::new(), columns, rows: rows.collect() };
    let total = |r| layout.count(r);
    let totals = [
        ("prunable", total(Role::Prunable)),
        ("trained", total(Role::Free)),
        ("frozen", total(Role::Frozen)),
        ("all", layout.parameters()),
    ];
    let parameters: Vec<_> = layout
        .spans()
        .iter()
        .map(|s| json!({ "name": s.name, "aliases": s.aliases, "shape": s.shape, "role": role(s.role), "weights": s.len }))
        .collect();
    let sums: serde_json::Map<_, _> = totals.iter().map(|(name, n)| (name.to_string(), json!(n))).collect();
    let words = totals.map(|(name, n)| (name, grouped(n as u64)));
    context.output.result(&json!({ "parameters": parameters, "totals": sums }), &[table, facts(&words)])
}
