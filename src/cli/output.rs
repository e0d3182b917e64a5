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
        let draw = |t: &Table| if t.columns.is_empty() { aligned(t) } else { tables::render(t, screen) };
        let drawn: Vec<String> = tables.iter().map(draw).collect();
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

/// A fact a row: a table of two columns that need no heading.
pub fn facts(rows: &[(&str, String)]) -> Table {
    let rows = rows.iter().map(|(name, value)| vec![name.to_string(), value.clone()]).collect();
    Table { rows, ..Table::default() }
}

fn aligned(facts: &Table) -> String {
    let width = facts.rows.iter().filter_map(|row| row.first()).map(|name| name.chars().count()).max().unwrap_or(0);
    let lines = facts.rows.iter().filter_map(|row| match &row[..] {
        [name, value] => Some(format!("{name:width$}  {value}")),
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}
