//! `fipk resume`: a run that was stopped goes on.
use super::frontier;
use super::globals::Context;
use super::points::finished;
use super::runs::{self, MODEL, Manner};
use super::search::Search;
use super::settings::{self, Settings};
use super::setup::Setup;
use crate::{Error, Result};
use serde_json::json;
use std::path::PathBuf;

/// Go on with a run that was interrupted or killed
///
/// Starts from the newest whole checkpoint, or from the beginning if there is none yet, and ends with the same bytes
/// as a run that was never stopped. A run that is finished is left as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  fipk resume run")]
pub struct Args {
    /// The run's folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    context.refuse_config()?;
    let place = args.run.display().to_string();
    if context.seed.is_some() {
        return Err(Error::usage("--seed", "a run keeps its own", "leave it out, or start a new run"));
    }
    if !args.run.join(settings::FILE).is_file() {
        let hint = "name the folder that was given as --out of `fipk sparsify` or `fipk train`";
        return Err(Error::data(place, format!("not a run: no {} in it", settings::FILE), hint));
    }
    if let Some(status) = finished(&args.run)? {
        context
            .output
            .remark(format!("{place} is finished ({status}); its model is {}", args.run.join(MODEL).display()));
        return match context.output.json {
            true => context.output.result(&json!({ "run": place, "status": status }), &[]),
            false => Ok(()),
        };
    }
    let settings = Settings::read(&args.run)?;
    if settings.frontier.is_some() {
        return frontier::drive(&args.run, context);
    }
    if settings.drift.is_some() {
        return Search::new(settings, context)?.drive(&args.run, context);
    }
    let setup = Setup::new(settings, context)?;
    runs::drive(&setup, &args.run, &Manner::new(context.output)).map(drop)
}
