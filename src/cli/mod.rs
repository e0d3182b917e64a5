//! The command line: a file a verb. Plain arguments are parsed here, then resolved (preset < `--config` < flags), then run.
use crate::Result;
use clap::{CommandFactory, Parser, Subcommand};

mod arch;
mod bench;
mod completions;
mod data;
mod device;
mod doctor;
mod drift;
mod eval;
mod files;
mod flags;
mod forward;
mod frontier;
mod geodesic;
mod globals;
mod jvp;
mod metric;
mod model;
mod output;
mod path;
mod plan;
mod points;
mod project;
mod quickstart;
mod report;
mod require;
mod resume;
mod runs;
mod search;
mod selftest;
mod settings;
mod setup;
mod size;
mod sparsify;
mod stop;
mod tensors;
mod train;
mod vjp;

use device::{Place, Purpose};
use globals::Globals;

/// Move a trained network through weight space while its outputs stay put
///
/// fipk takes a trained network (a Hugging Face folder, or an mlp of its own) along a functionally invariant path:
/// a walk through weight space that leaves the network's outputs where they are. Here the walk ends where most
/// weights are zero, so the network becomes sparse and keeps doing what it did. The folders it writes load in
/// `transformers` unchanged.
#[derive(Debug, Parser)]
#[command(name = "fipk", version, max_term_width = 110, after_help = AFTER, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

const AFTER: &str = "\
Examples:
  fipk quickstart                                  all of it in a minute or two, on data it makes itself
  fipk sparsify --model bert-sst2 --data glue/sst2:SST-2 --sparsity 0.6 --out run
  fipk eval     --model run/model --data glue/sst2:SST-2
  fipk drift    bert-sst2 run/model --data glue/sst2:SST-2

Data is given as KIND:PATH?key=value&key=value, the same for every verb:
  mnist:DIR           IDX images and labels, plain or .gz
  cifar10:DIR         cifar100:DIR too: the binary files, or Hugging Face's parquet; ?label=coarse, ?task=K
  images:DIR          PNG and JPEG, a folder a class, below train/ and test/ or not
  parquet:FILE        any parquet with a column of PNG or JPEG bytes; ?image=, ?label= name its columns
  digits:COUNT        digits drawn from strokes; needs no file
  glue/TASK:DIR       cola sst2 mrpc qqp stsb mnli qnli rte, as tsv, jsonl or parquet
  text:FILE           any csv, tsv, jsonl or parquet; ?text=, ?text2=, ?label= name its columns
  lm:FILE             plain text, for masked language models
  ?classes=0-4,cat    of images, only these classes; ?augment=flip,crop:4 changes them at random in training
  ?limit=N&seed=S     N examples at random (the first N without a seed); ?split=NAME picks a split

Exit codes: 0 done, 1 failed, 2 usage, 3 target not met, 4 bad model or data, 130 interrupted (after saving).
Each verb's --help ends in examples.";

#[derive(Debug, Subcommand)]
enum Verb {
    Sparsify(sparsify::Args),
    Frontier(frontier::Args),
    Train(train::Args),
    Resume(resume::Args),
    Eval(eval::Args),
    Drift(drift::Args),
    Data(data::Args),
    Metric(metric::Args),
    Geodesic(geodesic::Args),
    Path(path::Args),
    Plan(plan::Args),
    Project(project::Args),
    Forward(forward::Args),
    Jvp(jvp::Args),
    Vjp(vjp::Args),
    Report(report::Args),
    Quickstart(quickstart::Args),
    Bench(bench::Args),
    Selftest(selftest::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
}

/// Runs the command; its results go to stdout, everything else to stderr.
///
/// # Errors
/// Whatever went wrong, in one line; [`crate::Error::exit_code`] is what the process ends with.
pub fn run(cli: Cli) -> Result<()> {
    let context = cli.globals.start()?;
    // What makes no sense is known before a model is read; `plan` may ask about devices that are not here.
    if !matches!(cli.verb, Verb::Plan(_)) {
        Place::settle(context.device, context.dtype, Purpose::Look)?;
    }
    match cli.verb {
        Verb::Sparsify(args) => sparsify::run(args, &context),
        Verb::Frontier(args) => frontier::run(args, &context),
        Verb::Train(args) => train::run(args, &context),
        Verb::Resume(args) => resume::run(&args, &context),
        Verb::Eval(args) => eval::run(args, &context),
        Verb::Drift(args) => drift::run(&args, &context),
        Verb::Data(args) => data::run(&args, &context),
        Verb::Metric(args) => metric::run(&args, &context),
        Verb::Geodesic(args) => geodesic::run(&args, &context),
        Verb::Path(args) => path::run(&args, &context),
        Verb::Plan(args) => plan::run(&args, &context),
        Verb::Project(args) => project::run(args, &context),
        Verb::Forward(args) => forward::run(&args, &context),
        Verb::Jvp(args) => jvp::run(&args, &context),
        Verb::Vjp(args) => vjp::run(&args, &context),
        Verb::Report(args) => report::run(&args, &context),
        Verb::Quickstart(args) => quickstart::run(&args, &context),
        Verb::Bench(args) => bench::run(&args, &context),
        Verb::Selftest(args) => selftest::run(&args, &context),
        Verb::Doctor(args) => doctor::run(&args, &context),
        Verb::Completions(args) => completions::run(&args, Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }
}
