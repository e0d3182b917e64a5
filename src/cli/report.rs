//! `fipk report`: the page of a run, written anew.
use super::globals::Context;
use crate::report::html;
use crate::{Error, Result};
use serde_json::json;
use std::path::PathBuf;

/// Write a run's report.html anew, from its metrics.jsonl
///
/// The page is one file with its plots in it. Runs write it themselves when they end; this does it for one that is
/// still going, or was stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  fipk report run && xdg-open run/report.html")]
pub struct Args {
    /// The run's folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    context.refuse_config()?;
    if !args.run.join("metrics.jsonl").is_file() {
        let hint = "name the folder that was given as --out of `fipk sparsify` or `fipk train`";
        return Err(Error::data(args.run.display().to_string(), "not a run: no metrics.jsonl in it", hint));
    }
    let page = html::write(&args.run)?;
    match context.output.json {
        true => context.output.result(&json!({ "report": page }), &[]),
        false => {
            context.output.remark(format!("wrote {}", page.display()));
            Ok(())
        }
    }
}
