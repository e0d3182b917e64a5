//! Tables on the terminal, as wide as it is, and as Markdown.
use super::record::Table;
use comfy_table::{CellAlignment, ContentArrangement, ContentLineStyle, LineStyle, TableStyle};
use std::io::IsTerminal;

/// What the output can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    /// Columns to fit into, by wrapping cells; without it lines are as long as they need to be.
    pub width: Option<u16>,
    /// Lines drawn in Unicode; plain ASCII otherwise.
    pub unicode: bool,
}

impl Screen {
    /// A terminal's width and lines, or plain text where stdout is a file or a pipe.
    pub fn stdout() -> Self {
        match std::io::stdout().is_terminal() {
            true => Self { width: console::Term::stdout().size_checked().map(|(_, columns)| columns), unicode: true },
            false => Self::default(),
        }
    }
}

/// The table with its title above it, numbers to the right, no trailing newline.
pub fn render(table: &Table, screen: Screen) -> String {
    let mut drawn = comfy_table::Table::new();
    let rule = if screen.unicode { '─' } else { '-' };
    let columns_apart = ContentLineStyle::none().junction(' ');
    drawn.load_style(
        TableStyle::new()
            .header_lines(columns_apart)
            .header_separator(LineStyle::none().fill(rule).junction(rule))
            .content_lines(columns_apart),
    );
    if let Some(width) = screen.width {
        drawn.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    let columns = width(table);
    let line = |cells: &[String]| (0..columns).map(|at| clean(cells.get(at))).collect::<Vec<_>>();
    drawn.set_header(line(&table.columns));
    for row in &table.rows {
        drawn.add_row(line(row));
    }
    for at in 0..columns {
        let Some(column) = drawn.column_mut(at) else { continue };
        column.set_padding((0, if at + 1 < columns { 1 } else { 0 }));
        if is_numeric(table, at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let body: Vec<String> = drawn.lines().map(|line| line.trim_end().to_string()).collect();
    match table.title.is_empty() {
        true => body.join("\n"),
        false => format!("{}\n{}", clean(Some(&table.title)), body.join("\n")),
    }
}

/// The table in GitHub's Markdown, its title in bold above it, ending in a newline.
pub fn markdown(table: &Table) -> String {
    let columns = width(table);
    let line = |cells: &[String]| {
        let cells: Vec<String> = (0..columns).map(|at| clean(cells.get(at)).replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule: Vec<&str> = (0..columns).map(|at| if is_numeric(table, at) { "---:" } else { "---" }).collect();
    let title = if table.title.is_empty() { String::new() } else { format!("**{}**\n\n", clean(Some(&table.title))) };
    let rows: String = table.rows.iter().map(|row| line(row)).collect();
    format!("{title}{}| {} |\n{rows}", line(&table.columns), rule.join(" | "))
}

/// Columns of the widest row.
pub(super) fn width(table: &Table) -> usize {
    table.rows.iter().map(Vec::len).chain([table.columns.len()]).max().unwrap_or(0)
}

/// Whether a column holds numbers (with units, perhaps) and gaps only.
pub(super) fn is_numeric(table: &Table, column: usize) -> bool {
    let cells = || table.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.trim());
    let gap = |cell: &str| matches!(cell, "" | "-" | "–");
    let numeric =
        |cell: &str| cell.trim_start_matches(['-', '+', '−', '±', '.']).starts_with(|c: char| c.is_ascii_digit());
    cells().all(|cell| gap(cell) || numeric(cell)) && cells().any(|cell| !gap(cell))
}

/// A cell on one line, without what would steer a terminal.
fn clean(cell: Option<&String>) -> String {
    cell.map(|text| text.replace(char::is_control, " ")).unwrap_or_default()
}
