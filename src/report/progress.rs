//! The progress bar on stderr: only where a person watches.
use super::numbers::{number, percent};
use super::record::Step;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;

/// A bar over the steps of a run with loss, sparsity and time left; does nothing where stderr is no terminal.
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// `show` is what the flags allow: false under `--quiet` and `--json`.
    pub fn new(steps: u64, show: bool) -> Self {
        if !show || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new(steps);
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar:.cyan/dim} {pos}/{len} steps, {eta} left") {
            bar.set_style(style.progress_chars("━╸─"));
        }
        Self(Some(bar))
    }

    /// A bar over the products of something that is solved for, which may end before `most` of them.
    pub fn of_products(most: u64, show: bool) -> Self {
        let bar = Self::new(most, show);
        if let Some(bar) = &bar.0
            && let Ok(style) = ProgressStyle::with_template("{wide_bar:.cyan/dim} {pos} of at most {len} products")
        {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar
    }

    /// Where the bar stands.
    pub fn at(&self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
        }
    }

    /// Shows that `done` steps were taken before, without counting them as speed.
    pub fn resume(&self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(done);
            bar.reset_eta();
        }
    }

    pub fn step(&self, step: &Step) {
        let Some(bar) = &self.0 else { return };
        bar.set_position(step.step);
        let sparsity = step.sparsity_target.map(|share| format!(" sparsity {}", percent(share))).unwrap_or_default();
        let solve = step.solve.as_ref().filter(|s| s.products > 0);
        let solve = solve.map(|s| format!(" {} products, residual {}", s.products, number(s.residual)));
        bar.set_message(format!("loss {}{sparsity}{}", number(step.loss), solve.unwrap_or_default()));
    }

    /// Prints a line on stderr, above the bar where there is one.
    pub fn say(&self, line: &str) {
        match &self.0 {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
