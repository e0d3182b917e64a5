//! The `fipk` command: parse, run, exit code.
use clap::Parser;
use fipk::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    match fipk::cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A cause from another library may have lines of its own; an error here is one line.
            eprintln!("error: {}", error.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" "));
            ExitCode::from(error.exit_code())
        }
    }
}
