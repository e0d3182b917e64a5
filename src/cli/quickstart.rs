//! `fipk quickstart`: everything once, on data it makes itself.
use super::globals::Context;
use super::output::Output;
use super::runs::{self, MODEL, Manner, metric};
use super::settings::Settings;
use super::setup::{self, Setup, Source};
use crate::fip::evaluate::mean_distance;
use crate::fip::recipe::{Method, Preset};
use crate::fip::run::Outcome;
use crate::ops::Distance;
use crate::report::numbers::{duration, number, percent};
use crate::report::{Event, Table, html};
use crate::{Error, Result};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Train, sparsify and compare on drawn digits, in a minute or two and without any file
///
/// Draws digits from strokes with random distortions, trains LeNet-300-100 on them, then makes it sparse three ways:
/// along a functionally invariant path, by gradual magnitude pruning with as many steps, and at one stroke. Prints
/// how they compare on digits that none of them saw, and leaves the runs with their reports.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk quickstart
  fipk quickstart --sparsity 0.98 --out extreme")]
pub struct Args {
    /// Folder for the runs
    #[arg(long, value_name = "DIR", default_value = "fipk-quickstart")]
    out: PathBuf,
    /// Replace --out if it is there from an earlier time
    #[arg(long)]
    overwrite: bool,
    /// Share of the prunable weights to set to zero, as 0.9 or 90%
    #[arg(long, value_name = "SHARE", default_value = "0.9", value_parser = super::flags::share)]
    sparsity: f64,
    /// Digits to train on; half as many are held out
    #[arg(long, value_name = "DIGITS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..))]
    digits: u32,
    /// Steps of each way that takes any; the training takes three times as many
    #[arg(long, value_name = "STEPS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
}

/// The ways to the sparse network, with the folders their runs go to inside `--out`; the first has `--out` itself.
const WAYS: [(Method, &str, &str); 3] = [
    (Method::Fip, "", "invariant path"),
    (Method::Gradual, "gradual", "gradual magnitude"),
    (Method::OneShot, "one-shot", "one-shot magnitude"),
];

pub fn run(args: &Args, context: &Context) -> Result<()> {
    context.refuse_config()?;
    let clock = Instant::now();
    let output = context.output;
    // The runs' own events and summaries stay in their folders; what is printed is the comparison.
    let inner = Output { json: false, quiet: output.quiet || output.json };
    let say = |text: String| {
        if !output.json {
            output.remark(text)
        }
    };
    let folder = setup::claim(Some(&args.out), args.overwrite)?;
    let root = std::path::absolute(folder.target()).map_err(Error::io("find", &args.out))?;
    let dense = root.join("dense");
    let model = dense.join(MODEL).display().to_string();

    let mut recipes = Vec::new();
    for (method, ..) in WAYS {
        let mut s = settings(args, context, method)?;
        (s.model, s.path.sparsity) = (Some(model.clone()), args.sparsity);
        s.check(true)?;
        recipes.push(s);
    }
    setup::found(folder, &recipes[0])?;

    say(format!("1/4  training LeNet-300-100 on {} drawn digits", args.digits));
    let mut s = settings(args, context, Method::Train)?;
    s.arch = Some("lenet-300-100".into());
    s.budget.steps = Some(3 * u64::from(args.steps));
    let trained = one(s, context, Some(&dense), &dense, inner, &|_| Vec::new())?;

    let mut found: Vec<Option<Outcome>> = vec![None; WAYS.len()];
    for (nth, at) in [2, 1, 0].into_iter().enumerate() {
        let (_, dir, name) = WAYS[at];
        say(format!("{}/4  {} zeros by {name}", nth + 2, percent(args.sparsity)));
        let out = if dir.is_empty() { root.clone() } else { root.join(dir) };
        let claim = (!dir.is_empty()).then_some(out.as_path());
        let closing = |last: &Outcome| match dir.is_empty() {
            true => vec![Event::from(comparison(&trained, &[Some(last), found[1].as_ref(), found[2].as_ref()], args))],
            false => Vec::new(),
        };
        let outcome = one(recipes[at].clone(), context, claim, &out, inner, &closing)?;
        found[at] = Some(outcome);
    }
    html::write(&root)?;

    let all: Vec<Option<&Outcome>> = found.iter().map(Option::as_ref).collect();
    let table = comparison(&trained, &all, args);
    let object = json!({ "out": root, "seconds": clock.elapsed().as_secs_f64(), "table": table });
    output.result(&object, &[table])?;
    if !output.json {
        output.remark(format!(
            "\nin {}; wrote\n  {}\n  {}    the dense network\n  {}    the sparse one\n",
            duration(clock.elapsed().as_secs_f64()),
            root.join("report.html").display(),
            Path::new(&model).display(),
            root.join(MODEL).display(),
        ));
    }
    Ok(())
}

fn settings(args: &Args, context: &Context, method: Method) -> Result<Settings> {
    let source = Source::open(&Settings { arch: Some("lenet-300-100".into()), ..Settings::default() })?;
    let mut s = Settings::resolve(context, Some(&source.config), Some(method), Some(Preset::Fip), None)?;
    s.data = Some(format!("digits:{}", args.digits));
    s.eval_data = Some(format!("digits:{}", args.digits / 2));
    s.budget.steps = Some(u64::from(args.steps));
    s.budget.checkpoint_every = 0;
    Ok(s)
}

fn one(
    settings: Settings,
    context: &Context,
    claim: Option<&Path>,
    out: &Path,
    output: Output,
    closing: &dyn Fn(&Outcome) -> Vec<Event>,
) -> Result<Outcome> {
    if let Some(dir) = claim {
        setup::found(setup::claim(Some(dir), false)?, &settings)?;
    }
    let setup = Setup::new(settings, context)?;
    runs::drive(&setup, out, &Manner { output, summary: false, command: runs::typed(), closing }).map_err(|e| match e {
        Error::Interrupted(_) => Error::Interrupted("start again with `fipk quickstart --overwrite`".into()),
        other => other,
    })
}

/// A row a network, by what it does on held-out digits.
fn comparison(trained: &Outcome, found: &[Option<&Outcome>], args: &Args) -> Table {
    let dense = trained.last.as_ref();
    let row = |name: &str, outcome: &Outcome| {
        let last = outcome.last.as_ref();
        let accuracy = last.and_then(|e| e.metrics.get("accuracy")).map_or("-".into(), |v| metric("accuracy", *v));
        let distance =
            dense.zip(last).map_or("-".into(), |(d, e)| number(mean_distance(Distance::Kl, &e.logits, &d.logits, 10)));
        vec![name.to_string(), percent(outcome.sparsity), outcome.steps.to_string(), accuracy, distance]
    };
    let mut rows = vec![row("dense", &Outcome { sparsity: 0.0, ..trained.clone() })];
    rows.extend(WAYS.iter().zip(found).filter_map(|((_, _, name), o)| o.map(|o| row(name, o))));
    let columns = ["network", "zeros", "steps", "accuracy", "KL from dense"].map(String::from).to_vec();
    Table { title: format!("LeNet-300-100 on {} held-out digits", args.digits / 2), columns, rows }
}
