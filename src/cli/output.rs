//! Where words go: results to stdout, as tables or JSON; progress and remarks to stderr.
use crate::report::Table;
use crate::report::tables::{self, Screen};
use crate::{Error, Result};
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::path::Path;

#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub json: bool,
    pub quiet: bool,
}

impl Output {
    pub fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Prints the result: `object` under `--json`, else the tables one after the other.
    pub fn result(&self, object: &impl Serialize, tables: &[Table]) -> Result<()> {
        if self.json {
            let text =
                serde_json::to_string(object).map_err(|e| Error::data("--json", e.to_string(), "leave --json out"))?;
            return print(&text);
        }
        let screen = Screen::stdout();
        let drawn: Vec<String> = tables.iter().map(|t| tables::render(t, screen)).collect();
        print(&drawn.join("\n\n"))
    }

    /// A remark on stderr, such as where something was written; not under `--quiet`.
    pub fn remark(&self, text: impl AsRef<str>) {
        if !self.quiet {
            eprintln!("{}", text.as_ref());
        }
    }
}

/// A line on stdout. A reader that went away (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("write", Path::new("stdout"))(e)),
        _ => Ok(()),
    }
}

/// A table of two columns without a header line of numbers: a fact a row.
pub fn facts(title: &str, rows: &[(&str, String)]) -> Table {
    let rows = rows.iter().map(|(name, value)| vec![name.to_string(), value.clone()]).collect();
    Table { title: title.into(), columns: vec!["".into(), "".into()], rows }
}
