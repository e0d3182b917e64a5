//! `fipk project`: the smallest magnitudes set to zero, at once; needs no data.
use super::flags::{RoleFlags, set, share};
use super::globals::Context;
use super::model::Model;
use super::output::facts;
use super::settings::{SaveDtype, Settings};
use crate::engine::{Criterion, Pattern, Score, Selected};
use crate::fip::recipe::Method;
use crate::params::atomic::Folder;
use crate::params::{Layout, Role};
use crate::report::Table;
use crate::report::numbers::{grouped, number, percent};
use crate::{Error, Result};
use serde_json::json;
use std::path::PathBuf;

/// Set the smallest weights of a model to zero and store it: no data, no training
///
/// Exactly round(sparsity · n) of the prunable weights become zero, ties broken by position, so the same on every
/// machine. This is the one-shot baseline: `fipk sparsify` reaches the same sparsity and keeps the network's outputs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk project --model bert-sst2 --sparsity 0.5 --out half
  fipk project --model bert-sst2 --scope 2:4 --out two-of-four
  fipk project --model bert-sst2 --sparsity 90% --include '*.intermediate.dense.weight' --out thin")]
pub struct Args {
    /// Folder with config.json and safetensors, or a Hugging Face id in the local cache
    #[arg(long, value_name = "DIR|ID")]
    model: Option<String>,
    /// Share of the prunable weights to set to zero, as 0.9 or 90%
    #[arg(long, value_name = "SHARE", value_parser = share)]
    sparsity: Option<f64>,
    /// Among what the smallest are chosen: global, layer, row, or n:m (as 2:4: two of every four stay), which says
    /// the sparsity as well [default: global]
    #[arg(long, value_name = "SCOPE")]
    scope: Option<Pattern>,
    #[command(flatten)]
    roles: RoleFlags,
    /// Folder to write the model to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace --out if it is a model or a run
    #[arg(long)]
    overwrite: bool,
    /// Type of the stored weights [default: f32]
    #[arg(long, value_name = "TYPE")]
    save_dtype: Option<SaveDtype>,
}

pub fn run(args: Args, context: &Context) -> Result<()> {
    let mut settings = Settings::of_file(context)?;
    let place = settings.look(context)?;
    settings.method = Method::OneShot;
    set(&mut settings.path.sparsity, args.sparsity);
    set(&mut settings.path.scope, args.scope);
    set(&mut settings.save_dtype, args.save_dtype);
    let mut recipe = settings.recipe();
    args.roles.apply(&mut recipe);
    settings.set_recipe(recipe);
    require_sparsity(&settings, args.sparsity, context)?;
    settings.check(args.sparsity.is_some())?;
    let name =
        args.model.or(settings.model.clone()).ok_or_else(|| missing("--model", "a folder or a Hugging Face id"))?;

    let model = Model::open(&name)?;
    let layout = model.layout(&settings.roles)?;
    if layout.count(Role::Prunable) == 0 {
        return Err(Error::usage(
            "--include, --exclude",
            "no parameter is left to prune",
            "see `fipk sparsify .. --dry-run`",
        ));
    }
    let out = Folder::create(&args.out, args.overwrite)?;
    let (mut engine, w) = model.engine(place, layout)?;
    let sparsity = match settings.path.scope {
        // The engine counts n:m from none pruned (0) to m - n of m (1).
        Pattern::NofM { .. } => 1.0,
        _ => settings.path.sparsity,
    };
    let mask = engine.mask()?;
    let how = Criterion { pattern: settings.path.scope, score: Score::Magnitude, sparsity };
    let found = engine.select(w, &how, None, mask)?;
    engine.project(w, mask)?;
    let layout = engine.layout();
    let mut weights = vec![0.0; layout.len()];
    engine.read(w, 0, &mut weights)?;
    model.write(&out, layout, &weights, &model.folder.raw, settings.save_dtype)?;
    let path = out.commit()?;

    let zeros = Zeros::count(layout, &weights);
    let object = json!({
        "model": path,
        "scope": settings.path.scope,
        "prunable": layout.count(Role::Prunable),
        "pruned": found.pruned,
        "sparsity_prunable": zeros.prunable(),
        "sparsity_model": zeros.model(),
        "threshold": found.threshold,
        "relative_change": relative(&found),
    });
    let summary = facts(&[
        (
            "pruned",
            format!(
                "{} of {} prunable weights",
                grouped(found.pruned as u64),
                grouped(layout.count(Role::Prunable) as u64)
            ),
        ),
        (
            "sparsity",
            format!("{} of the prunable weights, {} of the model", percent(zeros.prunable()), percent(zeros.model())),
        ),
        ("threshold", number(f64::from(found.threshold))),
        ("‖w − w_p‖/‖w‖", number(relative(&found))),
    ]);
    context.output.result(&object, &[zeros.table(layout), summary])?;
    context.output.remark(format!("wrote {}", path.display()));
    Ok(())
}

fn relative(found: &Selected) -> f64 {
    (found.pruned_squares / found.squares.max(f64::MIN_POSITIVE)).sqrt()
}

/// A setting that neither flag nor file gives.
pub fn missing(flag: &str, wanted: &str) -> Error {
    Error::usage(flag, "is needed", format!("give {wanted}, by flag or in --config; --help has examples"))
}

/// The sparsity must come from somewhere: a default would prune by accident.
pub fn require_sparsity(settings: &Settings, flag: Option<f64>, context: &Context) -> Result<()> {
    let by_file =
        context.file.as_ref().is_some_and(|(_, t)| t.get("path").is_some_and(|p| p.get("sparsity").is_some()));
    match flag.is_some() || by_file || matches!(settings.path.scope, Pattern::NofM { .. }) {
        true => Ok(()),
        false => Err(missing("--sparsity", "the share of the prunable weights to set to zero, as 0.9")),
    }
}

/// Zeros a parameter, as they are stored.
pub struct Zeros {
    each: Vec<usize>,
    prunable: (usize, usize),
    model: (usize, usize),
}

impl Zeros {
    pub fn count(layout: &Layout, weights: &[f32]) -> Self {
        let each: Vec<usize> =
            layout.spans().iter().map(|s| weights[s.range()].iter().filter(|&&x| x == 0.0).count()).collect();
        let prunable = layout.spans().iter().zip(&each).filter(|(s, _)| s.role == Role::Prunable).map(|(_, z)| z).sum();
        let model = (each.iter().sum(), layout.parameters());
        Self { each, prunable: (prunable, layout.count(Role::Prunable)), model }
    }

    /// Over the prunable weights, in 0..=1.
    pub fn prunable(&self) -> f64 {
        self.prunable.0 as f64 / self.prunable.1.max(1) as f64
    }

    /// Over the whole model, in 0..=1.
    pub fn model(&self) -> f64 {
        self.model.0 as f64 / self.model.1.max(1) as f64
    }

    pub fn table(&self, layout: &Layout) -> Table {
        let pruned = layout.spans().iter().zip(&self.each).filter(|(s, _)| s.role == Role::Prunable);
        let rows = pruned
            .map(|(s, &zeros)| {
                let share = zeros as f64 / s.len.max(1) as f64;
                vec![s.name.clone(), grouped(s.len as u64), grouped(zeros as u64), percent(share)]
            })
            .collect();
        let columns = ["parameter", "weights", "zeros", "sparsity"].map(String::from).to_vec();
        Table { title: String::new(), columns, rows }
    }
}
