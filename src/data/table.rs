//! Tables of text: csv, tsv, jsonl and parquet files as rows of the chosen columns, each row knowing its line.
use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::files;
use super::spec::BadLines;
use crate::{Error, Result};

/// File formats a table can have; `json` is read as a line an object too, as Hugging Face writes it.
pub const FORMATS: &[&str] = &["tsv", "csv", "jsonl", "json", "parquet"];

/// Where a row stands; shows as `file:line`, or `file: row n` in parquet.
#[derive(Clone, Debug)]
pub struct Place {
    file: Arc<str>,
    line: usize,
    numbered: &'static str,
}

impl Place {
    /// A row of a file without lines.
    pub(super) fn row(file: &Arc<str>, row: usize) -> Self {
        Self { file: file.clone(), line: row, numbered: ": row " }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.file, self.numbered, self.line)
    }
}

/// One row: its chosen cells, in the order they were chosen, none of them empty.
#[derive(Clone, Debug)]
pub struct Row {
    pub at: Place,
    pub cells: Vec<String>,
}

/// What [`read`] is to keep of a file.
#[derive(Clone, Debug)]
pub struct Columns {
    /// Positions in the header.
    pub keep: Vec<usize>,
    /// The file has no header line: what was shown as one is its first row.
    pub headless: bool,
}

/// Picks columns from a header; gets the file's name for its error.
pub type Choose<'a> = &'a dyn Fn(&str, &[String]) -> Result<Columns>;

/// The rows of a table.
#[derive(Debug, Default)]
pub struct Table {
    pub rows: Vec<Row>,
    /// Lines left out under [`BadLines::Skip`].
    pub skipped: usize,
}

/// Collects the rows of one file, judging each.
pub(super) struct Sink {
    file: Arc<str>,
    numbered: &'static str,
    bad: BadLines,
    names: Vec<String>,
    table: Table,
}

impl Sink {
    pub(super) fn new(file: &str, numbered: &'static str, bad: BadLines) -> Self {
        Self { file: file.into(), numbered, bad, names: Vec::new(), table: Table::default() }
    }

    /// Names the kept columns, for messages.
    pub(super) fn columns(&mut self, names: Vec<String>) {
        self.names = names;
    }

    /// A row of kept cells, or what is wrong with it.
    pub(super) fn row(&mut self, line: usize, cells: Result<Vec<String>, String>) -> Result<()> {
        let cells = cells.and_then(|cells| match cells.iter().position(|cell| cell.trim().is_empty()) {
            Some(at) => Err(format!("column `{}` is empty", self.names.get(at).map_or("?", String::as_str))),
            None => Ok(cells),
        });
        let at = Place { file: self.file.clone(), line, numbered: self.numbered };
        match cells {
            Ok(cells) => self.table.rows.push(Row { at, cells }),
            Err(_) if self.bad == BadLines::Skip => self.table.skipped += 1,
            Err(what) => {
                return Err(Error::data(
                    at.to_string(),
                    what,
                    "correct the line, or leave such lines out with ?bad_lines=skip",
                ));
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Table> {
        if self.table.rows.is_empty() {
            let what = format!("wanted rows of data, got none ({} unreadable)", self.table.skipped);
            return Err(Error::data(
                self.file.to_string(),
                what,
                "check that this is the right file and that it is whole",
            ));
        }
        if self.table.skipped > 0 {
            tracing::warn!(file = %self.file, lines = self.table.skipped, "left out lines that cannot be read");
        }
        Ok(self.table)
    }
}

/// The rows of `path`, read by its extension (see [`FORMATS`]).
///
/// # Errors
/// [`Error::Data`] for the first line that cannot be read, with its place, unless `bad` says to skip it; for a
/// file with no rows; for one that is not UTF-8. [`Error::Unsupported`] for another format.
pub fn read(path: &Path, choose: Choose, bad: BadLines) -> Result<Table> {
    let file = path.display().to_string();
    match files::format_of(path).as_deref() {
        Some("tsv") => tsv(&files::read_text(path)?, &file, choose, bad),
        Some("csv") => csv(&files::read_text(path)?, &file, choose, bad),
        Some("jsonl" | "json") => jsonl(&files::read_text(path)?, &file, choose, bad),
        Some("parquet") => super::parquet::read(path, choose, bad),
        other => Err(Error::unsupported(
            file,
            format!("the format `{}`", other.unwrap_or("(none)")),
            format!("the name has to end in one of {}", FORMATS.join(", ")),
        )),
    }
}

/// The first of `names` that `header` has, letter case aside.
///
/// # Errors
/// [`Error::Data`] names the column wanted and those there are.
pub fn column(file: &str, header: &[String], names: &[&str]) -> Result<usize> {
    let position = |name: &&str| header.iter().position(|column| column.eq_ignore_ascii_case(name));
    names.iter().find_map(position).ok_or_else(|| {
        let mut shown: String = header.join(", ");
        if let Some((end, _)) = shown.char_indices().nth(200) {
            shown.replace_range(end.., "..");
        }
        Error::data(
            file,
            format!("wanted a column `{}`, got the columns {shown}", names.join("` or `")),
            "check the file, or name its columns: ?text=..&label=.. of a text: spec, ?image=..&label=.. of a parquet: spec",
        )
    })
}

/// Tab-separated text: a header line, then rows. Quotes are ordinary characters, as in GLUE.
pub fn tsv(text: &str, file: &str, choose: Choose, bad: BadLines) -> Result<Table> {
    let records = text.lines().enumerate().map(|(i, line)| Ok((i + 1, line.split('\t').map(Cow::Borrowed).collect())));
    delimited(records, file, choose, bad)
}

/// Comma-separated text after RFC 4180: a header line, then rows; a quoted field may hold commas, quotes and lines.
pub fn csv(text: &str, file: &str, choose: Choose, bad: BadLines) -> Result<Table> {
    delimited(Csv { rest: text, line: 1 }, file, choose, bad)
}

type Record<'a> = (usize, Vec<Cow<'a, str>>);

fn delimited<'a>(
    records: impl Iterator<Item = Result<Record<'a>, (usize, &'static str)>>,
    file: &str,
    choose: Choose,
    bad: BadLines,
) -> Result<Table> {
    let mut sink = Sink::new(file, ":", bad);
    let mut header: Option<(usize, Columns)> = None;
    for record in records {
        // A lost quote leaves no way to tell where the next row begins, so it is never skipped.
        let (line, cells) = record.map_err(|(line, what)| {
            Error::data(format!("{file}:{line}"), what, "double the quotes inside a quoted field, and close it")
        })?;
        if header.is_none() {
            let names: Vec<String> = cells.iter().map(|cell| cell.trim().to_string()).collect();
            let columns = choose(file, &names)?;
            sink.columns(columns.keep.iter().map(|&i| names[i].clone()).collect());
            let headless = columns.headless;
            header = Some((cells.len(), columns));
            if !headless {
                continue;
            }
        }
        let Some((width, columns)) = &header else { continue };
        let row = if cells.len() == *width {
            Ok(columns.keep.iter().map(|&i| cells[i].to_string()).collect())
        } else if cells.len() == 1 && cells[0].trim().is_empty() {
            Err("the line is empty".to_string())
        } else {
            Err(format!("wanted {width} columns as in the first line, got {}", cells.len()))
        };
        sink.row(line, row)?;
    }
    sink.finish()
}

/// The records of comma-separated text, each with the line it begins on.
struct Csv<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Csv<'a> {
    /// The next field, and whether the record goes on after it.
    fn field(&mut self) -> Result<(Cow<'a, str>, bool), &'static str> {
        let mut value = Cow::Borrowed("");
        if let Some(mut quoted) = self.rest.strip_prefix('"') {
            loop {
                let (part, after) =
                    quoted.split_once('"').ok_or("a quoted field is not closed before the file ends")?;
                self.line += part.matches('\n').count();
                value += part;
                match after.strip_prefix('"') {
                    Some(more) => {
                        value += "\"";
                        quoted = more;
                    }
                    None => {
                        self.rest = after;
                        break;
                    }
                }
            }
        } else {
            let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
            let (plain, rest) = self.rest.split_at(end);
            // The carriage return of a line's end is no part of its last field.
            let plain = if rest.starts_with(',') { plain } else { plain.strip_suffix('\r').unwrap_or(plain) };
            (value, self.rest) = (Cow::Borrowed(plain), rest);
        }
        if let Some(rest) = self.rest.strip_prefix(',') {
            self.rest = rest;
            return Ok((value, true));
        }
        let line_end = self.rest.strip_prefix("\r\n").or_else(|| self.rest.strip_prefix('\n'));
        match line_end {
            Some(rest) => {
                self.rest = rest;
                self.line += 1;
            }
            None if self.rest.is_empty() => {}
            None => return Err("a quoted field goes on after its closing quote"),
        }
        Ok((value, false))
    }
}

impl<'a> Iterator for Csv<'a> {
    type Item = Result<Record<'a>, (usize, &'static str)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (first, mut cells) = (self.line, Vec::new());
        loop {
            match self.field() {
                Ok((cell, goes_on)) => {
                    cells.push(cell);
                    if !goes_on {
                        return Some(Ok((first, cells)));
                    }
                }
                Err(what) => {
                    self.rest = "";
                    return Some(Err((first, what)));
                }
            }
        }
    }
}

/// A JSON object a line; the first one's keys are the header.
pub fn jsonl(text: &str, file: &str, choose: Choose, bad: BadLines) -> Result<Table> {
    let mut sink = Sink::new(file, ":", bad);
    let mut keep: Option<Vec<String>> = None;
    for (i, line) in text.lines().enumerate() {
        let object = match serde_json::from_str::<Value>(line) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(other) => Err(format!("wanted a JSON object, got {}", kind(&other))),
            Err(_) if line.trim().is_empty() => Err("the line is empty".to_string()),
            Err(cause) => Err(format!("wanted a JSON object, got text that is not JSON ({cause})")),
        };
        if let (None, Ok(object)) = (&keep, &object) {
            let names: Vec<String> = object.keys().cloned().collect();
            let names: Vec<String> = choose(file, &names)?.keep.iter().map(|&i| names[i].clone()).collect();
            sink.columns(names.clone());
            keep = Some(names);
        }
        let names = keep.as_deref().unwrap_or_default();
        let row = object.and_then(|object| {
            names
                .iter()
                .map(|name| match object.get(name) {
                    Some(Value::String(text)) => Ok(text.clone()),
                    Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
                    Some(other) => Err(format!("wanted text or a number in `{name}`, got {}", kind(other))),
                    None => Err(format!("the object has no `{name}`")),
                })
                .collect()
        });
        sink.row(i + 1, row)?;
    }
    sink.finish()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(_: &str, names: &[String]) -> Result<Columns> {
        Ok(Columns { keep: (0..names.len()).collect(), headless: false })
    }

    fn cells(table: Result<Table>) -> Vec<Vec<String>> {
        table.unwrap().rows.into_iter().map(|row| row.cells).collect()
    }

    #[test]
    fn csv_keeps_quoted_commas_quotes_and_lines() {
        let text = "a,b\r\n\"x, \"\"y\"\"\r\nz\",1\r\nplain \"quotes\",2\n\"last\",3";
        let table = csv(text, "f.csv", &all, BadLines::Refuse).unwrap();
        let lines: Vec<String> = table.rows.iter().map(|row| row.at.to_string()).collect();
        assert_eq!(lines, ["f.csv:2", "f.csv:4", "f.csv:5"]);
        assert_eq!(cells(Ok(table)), [["x, \"y\"\r\nz", "1"], ["plain \"quotes\"", "2"], ["last", "3"]]);
    }

    #[test]
    fn tsv_takes_quotes_as_they_are() {
        assert_eq!(cells(tsv("a\tb\n\"x\t1\r\n", "f.tsv", &all, BadLines::Refuse)), [["\"x", "1"]]);
    }

    #[test]
    fn jsonl_takes_strings_numbers_and_truth_values() {
        let text = "{\"a\":\"x\\ty\",\"b\":1}\n{\"b\":true,\"a\":2.5,\"c\":[]}\n";
        assert_eq!(cells(jsonl(text, "f.jsonl", &all, BadLines::Refuse)), [["x\ty", "1"], ["2.5", "true"]]);
    }

    #[test]
    fn a_bad_line_is_named_or_skipped() {
        type Parse = fn(&str, &str, Choose, BadLines) -> Result<Table>;
        let cases: [(Parse, &str, &str, usize); 12] = [
            (tsv, "a\tb\nx\t1\ny\n", "f:3: wanted 2 columns as in the first line, got 1", 1),
            (tsv, "a\tb\nx\t1\n\ny\t1\n", "f:3: the line is empty", 2),
            (tsv, "a\tb\nx\t1\n \t1\n", "f:3: column `a` is empty", 1),
            (csv, "a,b\nx,1\ny,1,2\n", "f:3: wanted 2 columns as in the first line, got 3", 1),
            (csv, "a,b\nx,1\n\n", "f:3: the line is empty", 1),
            (csv, "a,b\nx,1\n\"y,2\nz,3\n", "f:3: a quoted field is not closed", 0),
            (csv, "a,b\nx,1\n\"y\"z,2\n", "f:3: a quoted field goes on", 0),
            (jsonl, "{\"a\":1}\n{\"a\":\n", "f:2: wanted a JSON object, got text", 1),
            (jsonl, "{\"a\":1}\n[1]\n", "f:2: wanted a JSON object, got an array", 1),
            (jsonl, "{\"a\":1}\n{\"b\":1}\n", "f:2: the object has no `a`", 1),
            (jsonl, "{\"a\":1}\n{\"a\":null}\n", "f:2: wanted text or a number in `a`, got null", 1),
            (jsonl, "{\"a\":1}\n\n", "f:2: the line is empty", 1),
        ];
        for (parse, text, says, kept) in cases {
            let error = parse(text, "f", &all, BadLines::Refuse).unwrap_err().to_string();
            assert!(error.contains(says), "`{error}` does not say `{says}`");
            match parse(text, "f", &all, BadLines::Skip) {
                Ok(table) => assert_eq!((table.rows.len(), table.skipped), (kept, 1), "{text}"),
                Err(error) => assert_eq!(kept, 0, "{error}"),
            }
        }
    }

    #[test]
    fn no_rows_is_an_error() {
        for parse in [tsv, csv, jsonl] {
            let error = parse("", "f", &all, BadLines::Refuse).unwrap_err().to_string();
            assert!(error.contains("wanted rows of data, got none"), "{error}");
        }
        assert!(tsv("a\tb\n", "f", &all, BadLines::Refuse).is_err());
    }
}
