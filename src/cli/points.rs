//! Several runs in one folder, each in a folder of its own: what is finished is left as it is, what was stopped goes on.
use super::output::Output;
use super::runs::{self, METRICS, MODEL, Manner};
use super::settings;
use super::setup::{self, Setup};
use crate::report::{Event, record};
use crate::{Error, Result};
use std::path::Path;

/// How a run ended, if it came to its end.
///
/// # Errors
/// A record that cannot be read.
pub fn finished(run: &Path) -> Result<Option<String>> {
    let metrics = run.join(METRICS);
    if !metrics.is_file() || !run.join(MODEL).is_dir() {
        return Ok(None);
    }
    let last = record::read(&metrics)?.pop().map(|r| r.event);
    Ok(match last {
        Some(Event::End(end)) if end.status == "done" || end.status == "target not met" => Some(end.status),
        _ => None,
    })
}

/// Bring the run in `dir` to its end, with the setup's settings where it has none yet. `whole` is the folder of all of them.
///
/// # Errors
/// As [`runs::drive`]; interrupted, it says how to go on with all of them.
pub fn complete(setup: &Setup, dir: &Path, whole: &Path, output: Output) -> Result<()> {
    if finished(dir)?.is_some() {
        return Ok(());
    }
    if !dir.join(settings::FILE).is_file() {
        setup::found(setup::claim(Some(dir), false)?, &setup.settings)?;
    }
    let manner = Manner { output, summary: false, command: runs::typed(), closing: &|_| Vec::new() };
    runs::drive(setup, dir, &manner).map(drop).map_err(|e| match e {
        Error::Interrupted(_) => {
            Error::Interrupted(format!("what was reached is saved; go on with `fipk resume {}`", whole.display()))
        }
        other => other,
    })
}

/// What the runs inside a command may say: their events stay in their folders.
pub fn inner(output: Output) -> Output {
    Output { json: false, quiet: output.quiet || output.json }
}
