//! Flags every verb takes, and what they set up: logging, threads, the configuration file.
use super::device::{Numbers, Which};
use super::output::Output;
use crate::{Error, Result};
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Global options", next_display_order = 1000)]
pub struct Globals {
    /// Where to compute: auto, cpu, cuda or cuda:N; auto takes CUDA where this build and this machine have it, and
    /// results on two devices differ in their last digits [default: auto]
    #[arg(long, global = true, value_name = "DEVICE")]
    device: Option<Which>,
    /// What to compute in, weights and sums being f32 always: bf16, f32, or tf32, which stores f32 and rounds the
    /// factors of products to tf32; the CPU has f32 alone [default: bf16 for the steps of a run on CUDA, else f32]
    #[arg(long, global = true, value_name = "TYPE", hide_possible_values = true)]
    dtype: Option<Numbers>,
    /// Threads to compute with; results do not depend on it [default: all cores]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Decides everything random: order of the data, new weights, drawn digits [default: 0]
    #[arg(long, global = true, value_name = "S", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// Settings as TOML, in the form of a run's config.toml; flags win over it
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say more on stderr; twice for every detail
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say nothing but errors and results
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Results on stdout as JSON (runs: one event a line), and nothing else there
    #[arg(long, global = true)]
    json: bool,
}

/// What the verbs need of the global flags.
#[derive(Clone, Debug)]
pub struct Context {
    pub output: Output,
    pub seed: Option<u64>,
    /// The configuration file, by its path.
    pub file: Option<(PathBuf, toml::Table)>,
    /// Threads asked for by flag or file.
    pub threads: Option<usize>,
    /// Device and numbers asked for by flag.
    pub device: Option<Which>,
    pub dtype: Option<Numbers>,
}

impl Globals {
    /// Sets up logging and threads, and reads the configuration file.
    ///
    /// # Errors
    /// A file that is missing or not TOML.
    pub fn start(&self) -> Result<Context> {
        let level = match (self.quiet, self.verbose) {
            (true, _) => "error",
            (_, 0) => "warn",
            (_, 1) => "fipk=info,warn",
            _ => "fipk=trace,info",
        };
        // A second call (tests) keeps the first one's.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(level))
            .with_writer(std::io::stderr)
            .without_time()
            .with_target(self.verbose > 1)
            .try_init();
        let file = self.config.as_ref().map(|path| Ok((path.clone(), read_config(path)?))).transpose()?;
        let of_file = file.as_ref().and_then(|(_, table)| table.get("threads")?.as_integer());
        let threads = self.threads.map(usize::from).or(of_file.and_then(|n| usize::try_from(n).ok()));
        if let Some(n) = threads.filter(|&n| n > 0) {
            // Fails only where a pool is there already (tests), which then stays.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(n).build_global();
        }
        Ok(Context {
            output: Output::new(self.json, self.quiet),
            seed: self.seed,
            file,
            threads,
            device: self.device,
            dtype: self.dtype,
        })
    }
}

fn read_config(path: &std::path::Path) -> Result<toml::Table> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    text.parse().map_err(|e: toml::de::Error| {
        let line = e.span().map_or(1, |s| 1 + text[..s.start.min(text.len())].matches('\n').count());
        Error::usage(
            format!("{}:{line}", path.display()),
            e.message(),
            "correct the line; a run's config.toml shows the form",
        )
    })
}

impl Context {
    /// For verbs that take no settings from a file.
    ///
    /// # Errors
    /// [`Error::Usage`] where a file was given all the same.
    pub fn refuse_config(&self) -> Result<()> {
        match self.file {
            None => Ok(()),
            Some(_) => Err(Error::usage(
                "--config",
                "this verb takes no settings from a file",
                "leave it out; train, sparsify, project and eval take it",
            )),
        }
    }
}
