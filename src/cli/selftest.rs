//! `fipk selftest`: every kernel against the host, on the device at hand.
use super::device::{Place, Purpose, open_device};
use super::globals::Context;
use super::output::print;
use crate::gpu::Device;
use crate::selftest::{Row, checks, run as run_checks};
use crate::{Error, Result};
use std::rc::Rc;

/// Run every kernel on a device and hold it against the host
///
/// Each op runs forward, J v and Jᵀ u in both dtypes on awkward sizes; the operations on weight space, recorded launches
/// and what the kernels build on have rows of their own. A row gives the worst element's error and the norm's,
/// relative to the scale of what was computed, and the tolerance of the first. Any failure ends in exit code 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk selftest --device cuda:0
  fipk selftest --filter 'linear_*' --seed 3
  fipk selftest --emulated --filter '*_vjp'        in builds with the feature `emulator`")]
pub struct Args {
    /// Rows to run, by name: * and ? stand for any characters [default: all of them]
    #[arg(long, value_name = "GLOB")]
    filter: Option<String>,
    /// Run without a GPU, in the emulator, with every access to memory checked
    #[cfg(feature = "emulator")]
    #[arg(long)]
    emulated: bool,
}

#[derive(Default, serde::Serialize)]
struct Summary {
    device: String,
    seed: u64,
    rows: usize,
    failed: usize,
    seconds: f64,
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    context.refuse_config()?;
    let wanted = match &args.filter {
        None => None,
        Some(glob) => {
            let bad = |e: globset::Error| Error::usage("--filter", e.to_string(), "a glob, as 'linear_*'");
            Some(globset::Glob::new(glob).map_err(bad)?.compile_matcher())
        }
    };
    let seed = context.seed.unwrap_or(1);
    let bench = Bench::open(args, context, seed)?;
    let clock = std::time::Instant::now();
    let mut summary = Summary { device: bench.device.describe(), seed, ..Summary::default() };
    context.output.remark(format!("{}, seed {seed}", summary.device));
    let json = context.output.json;
    let mut failed = Vec::new();
    let mut each = |row: Row| {
        summary.rows += 1;
        if !row.ok {
            failed.push(format!("{} {} {}", row.name, row.dtype, row.shape));
        }
        if json {
            let text = serde_json::to_string(&row);
            return print(&text.map_err(|e| Error::data("--json", e.to_string(), "leave --json out"))?);
        }
        if summary.rows == 1 {
            print(&heading())?;
        }
        print(&line(&row))
    };
    let named = |name: &str| wanted.as_ref().is_none_or(|w| w.is_match(name));
    run_checks(&bench.device, &checks(seed), &named, &mut each)?;
    if wanted.is_none() {
        bench.coverage().into_iter().try_for_each(&mut each)?;
    }
    summary.failed = failed.len();
    summary.seconds = clock.elapsed().as_secs_f64();
    if summary.rows == 0 {
        return Err(Error::usage("--filter", "names no row", "fipk selftest without it shows all names"));
    }
    if json {
        let text = serde_json::to_string(&serde_json::json!({ "summary": summary }));
        print(&text.map_err(|e| Error::data("--json", e.to_string(), "leave --json out"))?)?;
    } else {
        print(&format!("{} rows, {} failed, {:.1} s", summary.rows, summary.failed, summary.seconds))?;
    }
    match failed.first() {
        None => Ok(()),
        Some(first) => Err(Error::device(
            summary.device,
            format!("{} of {} rows failed, the first: {first}", failed.len(), summary.rows),
            "run it again with --filter and this row's name",
        )),
    }
}

fn heading() -> String {
    let (worst, norm, tolerance) = ("worst", "norm", "allowed");
    format!("{:<24} {:<8} {:<36} {worst:>8} {norm:>8} {tolerance:>8}", "check", "dtype", "shape")
}

fn line(row: &Row) -> String {
    let error = |e: f64| if e.is_nan() { "nan".to_string() } else { format!("{e:.1e}") };
    let verdict = if row.ok { "ok" } else { "FAILED" };
    let numbers = format!("{:>8} {:>8} {:>8}", error(row.worst), error(row.norm), error(row.tolerance));
    let note = if row.ok { String::new() } else { format!("  {}", row.note) };
    format!("{:<24} {:<8} {:<36} {numbers}  {verdict}{note}", row.name, row.dtype, row.shape)
}

/// The device that is checked.
struct Bench {
    device: Rc<dyn Device>,
    #[cfg(feature = "emulator")]
    emulator: Option<Rc<crate::gpu::emulator::Emulator>>,
}

impl Bench {
    fn open(args: &Args, context: &Context, seed: u64) -> Result<Self> {
        #[cfg(feature = "emulator")]
        if args.emulated {
            let options = crate::gpu::emulator::Options { seed: Some(seed), checked: true };
            let emulator = Rc::new(crate::gpu::emulator::Emulator::new(options));
            return Ok(Self { device: emulator.clone(), emulator: Some(emulator) });
        }
        let _ = (args, seed);
        Ok(Self {
            device: open_device(Place::of(context, Purpose::Look)?.device)?,
            #[cfg(feature = "emulator")]
            emulator: None,
        })
    }

    fn coverage(&self) -> Option<Row> {
        #[cfg(feature = "emulator")]
        return self.emulator.as_ref().map(|e| crate::selftest::coverage(&e.launched()));
        #[cfg(not(feature = "emulator"))]
        None
    }
}
