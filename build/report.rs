//! What ptxas says of each kernel (`-Xptxas -v`), and the report that is made of it.
use std::fmt::Write;

/// A kernel on one architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub kernel: String,
    pub arch: String,
    /// A thread.
    pub registers: u32,
    /// Static shared memory of a block, bytes.
    pub shared: u32,
    /// Stored to and loaded from local memory for want of registers, bytes.
    pub spills: u32,
    /// Of a thread, bytes; includes arrays that were indexed by what is not known when compiling.
    pub stack: u32,
}

const HEAD: [&str; 7] = ["file", "kernel", "arch", "registers", "shared", "spills", "stack"];

/// The entries of one compilation. What a function that was not inlined spills counts as its kernel's.
pub fn parse(log: &str) -> Vec<Entry> {
    let mut entries = Vec::<Entry>::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let mut quoted = rest.split('\'');
            if let (Some(kernel), Some(arch)) = (quoted.next(), quoted.nth(1)) {
                entries.push(Entry { kernel: kernel.into(), arch: arch.into(), ..Entry::default() });
            }
            continue;
        }
        let Some(entry) = entries.last_mut() else { continue };
        let bytes = |of: &str| before(line, &format!(" bytes {of}"));
        if let Some(stack) = bytes("stack frame") {
            entry.stack = entry.stack.max(stack);
            entry.spills += bytes("spill stores").unwrap_or(0) + bytes("spill loads").unwrap_or(0);
        }
        if let Some(registers) = before(line, " registers") {
            entry.registers = registers;
            entry.shared = bytes("smem").unwrap_or(0);
            entry.stack = entry.stack.max(bytes("cumulative stack size").unwrap_or(0));
        }
    }
    entries
}

/// The number that stands before `unit`.
fn before(line: &str, unit: &str) -> Option<u32> {
    let start = &line[..line.find(unit)?];
    start.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The report: a line a kernel and architecture, with the file it comes from.
pub fn table(entries: &[(String, Entry)]) -> String {
    let mut rows = vec![HEAD.map(String::from)];
    rows.extend(entries.iter().map(|(file, e)| {
        let numbers = [e.registers, e.shared, e.spills, e.stack].map(|n| n.to_string());
        let [registers, shared, spills, stack] = numbers;
        [file.clone(), e.kernel.clone(), e.arch.clone(), registers, shared, spills, stack]
    }));
    let width = |i: usize| rows.iter().map(|r| r[i].len()).max().unwrap_or(0);
    let widths: [usize; HEAD.len()] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
            let _ = if i < 3 { write!(text, "{cell:<width$}  ") } else { write!(text, "{cell:>width$}  ") };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// The entries of a report.
///
/// # Errors
/// The line that is none.
#[allow(dead_code, reason = "what reads the report is its test")]
pub fn read(text: &str) -> Result<Vec<(String, Entry)>, String> {
    let mut lines = text.lines();
    if !lines.next().is_some_and(|line| line.split_whitespace().eq(HEAD)) {
        return Err(format!("the report does not begin with: {}", HEAD.join(" ")));
    }
    let row = |line: &str| {
        let cells: [&str; HEAD.len()] = line.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
        let [file, kernel, arch, numbers @ ..] = cells;
        let mut parsed = [0; 4];
        for (to, from) in parsed.iter_mut().zip(numbers) {
            *to = from.parse().ok()?;
        }
        let [registers, shared, spills, stack] = parsed;
        let entry = Entry { kernel: kernel.into(), arch: arch.into(), registers, shared, spills, stack };
        Some((file.to_string(), entry))
    };
    lines.map(|line| row(line).ok_or_else(|| format!("no line of a report: {line}"))).collect()
}
