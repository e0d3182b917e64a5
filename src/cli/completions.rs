//! `fipk completions`: completion scripts for shells.
use super::output::print;
use crate::Result;
use clap_complete::Shell;

/// Print a completion script for your shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk completions bash > ~/.local/share/bash-completion/completions/fipk
  fipk completions zsh  > ~/.zfunc/_fipk
  fipk completions fish > ~/.config/fish/completions/fipk.fish")]
pub struct Args {
    /// The shell
    shell: Shell,
}

pub fn run(args: &Args, mut command: clap::Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "fipk", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())
}
