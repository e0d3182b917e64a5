//! Habits that a compiler does not hold us to: floors, short files, no panics in the library, `unsafe` in few places,
//! every op in the op table.
use std::path::{Path, PathBuf};

/// What each top module may use of the crate besides itself: the floors of the architecture, lowest first.
const FLOORS: [(&str, &[&str]); 16] = [
    ("error", &[]),
    ("tensor", &[]),
    ("dual", &[]),
    ("rng", &[]),
    ("gpu", &["error", "tensor"]),
    ("ops", &["error", "dual", "tensor", "gpu"]),
    ("graph", &["error", "tensor", "ops"]),
    ("params", &["error", "tensor", "graph"]),
    ("engine", &["error", "tensor", "rng", "gpu", "ops", "graph", "params"]),
    ("selftest", &["error", "dual", "tensor", "rng", "gpu", "ops", "graph", "params", "engine"]),
    ("geometry", &["error", "tensor", "rng", "ops", "graph", "params", "engine"]),
    ("models", &["error", "tensor", "rng", "ops", "graph", "params"]),
    ("data", &["error", "tensor", "rng"]),
    ("report", &["error"]),
    ("fip", &["error", "tensor", "rng", "ops", "graph", "params", "engine", "geometry", "models", "data", "report"]),
    (
        "cli",
        &[
            "error", "tensor", "rng", "gpu", "ops", "graph", "params", "engine", "geometry", "selftest", "models",
            "data", "report", "fip",
        ],
    ),
];

/// Where `unsafe` may stand: the call into the matrix product, the memory map of weight files, and devices.
const UNSAFE: [&str; 9] = [
    "src/gpu/cublaslt.rs",
    "src/gpu/discover.rs",
    "src/gpu/driver/mod.rs",
    "src/gpu/driver/modules.rs",
    "src/gpu/driver/staging.rs",
    "src/gpu/driver/tensor_map.rs",
    "src/gpu/emulator.rs",
    "src/ops/gemm.rs",
    "src/params/weights.rs",
];

const LINES: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` that ends in `.ext`, with its path from the root and its text.
fn files(folder: &str, ext: &str) -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.map(|e| e.unwrap().path()) {
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|e| e == ext) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        (name, std::fs::read_to_string(&path).unwrap())
    };
    found.into_iter().map(read).collect()
}

fn sources() -> Vec<(String, String)> {
    let all = files("src", "rs");
    assert!(all.len() > 20, "only {} source files: the scan looks in the wrong place", all.len());
    all
}

/// Rust source with comments and the insides of literals turned to blanks; lines stay lines.
fn code(text: &str) -> String {
    let b = text.as_bytes();
    let mut out = b.to_vec();
    let blank = |out: &mut Vec<u8>, from: usize, to: usize| {
        out[from..to].iter_mut().filter(|c| **c != b'\n').for_each(|c| *c = b' ');
    };
    let find = |from: usize, what: &str| text[from..].find(what).map_or(b.len(), |n| from + n);
    let mut i = 0;
    while i < b.len() {
        let word = i > 0 && (b[i - 1].is_ascii_alphanumeric() || b[i - 1] == b'_');
        let hashes = b[i + 1..].iter().take_while(|c| **c == b'#').count();
        let end = match b[i] {
            b'/' if text[i..].starts_with("//") => find(i, "\n"),
            b'/' if text[i..].starts_with("/*") => (find(i, "*/") + 2).min(b.len()),
            b'r' if !word && b.get(i + 1 + hashes) == Some(&b'"') => {
                let close = format!("\"{}", "#".repeat(hashes));
                (find(i + 2 + hashes, &close) + close.len()).min(b.len())
            }
            b'"' => {
                let mut end = i + 1;
                while end < b.len() && b[end] != b'"' {
                    end += if b[end] == b'\\' { 2 } else { 1 };
                }
                (end + 1).min(b.len())
            }
            // A character, not a lifetime: 'x', '\n', '\u{2028}', 'é'.
            b'\'' if text[i + 1..].starts_with('\\') => find(i + 3, "'") + 1,
            b'\'' if text[i + 1..].chars().nth(1) == Some('\'') => find(i + 1, "'").max(i + 2) + 1,
            _ => {
                i += 1;
                continue;
            }
        };
        let end = end.min(b.len());
        blank(&mut out, i, end);
        i = end;
    }
    String::from_utf8(out).unwrap()
}

/// [`code`] without the items that stand under `#[cfg(test)]`.
fn shipped(text: &str) -> String {
    let mut code = code(text);
    while let Some(start) = code.find("#[cfg(test)]") {
        let (mut depth, mut end) = (0usize, code.len());
        for (i, c) in code[start..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ';' if depth == 0 => {}
                _ => continue,
            }
            if depth == 0 {
                end = start + i + 1;
                break;
            }
        }
        let gone: String = code[start..end].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        code.replace_range(start..end, &gone);
    }
    code
}

/// The words that follow `crate::`, braces opened: `crate::{ops::Op, Result}` gives ops and Result.
fn uses(code: &str) -> Vec<String> {
    let word = |s: &str| s.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.push(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (i, c) in list.char_indices() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && !c.is_whitespace() => {
                    found.push(word(&list[i..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn the_scan_sees_code_and_only_code() {
    let text = "a(\"x.unwrap()\"); // .unwrap()\nlet c = '\"'; b.unwrap(); r#\"panic!(\"#; f::<'a>('\\'', 'é');\n";
    let code = code(text);
    assert_eq!((code.matches(".unwrap()").count(), code.matches("panic!").count()), (1, 0), "{code}");
    assert!(code.contains("b.unwrap()") && code.contains("f::<'a>(") && code.lines().count() == 2, "{code}");
    let text =
        "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { x.unwrap() } }\nfn c() {}\n#[cfg(test)]\nuse d;\nfn e() {}";
    let code = shipped(text);
    assert!(!code.contains("unwrap") && !code.contains("use d"), "{code}");
    assert!(["fn a", "fn c", "fn e"].iter().all(|f| code.contains(f)), "{code}");
    let text = "use crate::{Error, graph::{Mode, Id}, ops::Op}; fn f(x: crate::rng::Rng) {} use crate::Result;";
    assert_eq!(uses(text), ["Error", "graph", "ops", "rng", "Result"]);
}

#[test]
fn floors_use_only_what_lies_below() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let top = name["src/".len()..].split(['/', '.']).next().unwrap().to_string();
        if top == "lib" || top == "main" {
            continue;
        }
        let floor = FLOORS.iter().find(|f| f.0 == top);
        let Some((_, below)) = floor else { panic!("{name}: give {top} its floor in tests/tidy.rs") };
        for used in uses(&shipped(&text)) {
            let used = if used == "Error" || used == "Result" { "error".to_string() } else { used };
            if used != top && !below.contains(&used.as_str()) {
                wrong.push(format!("{name} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the floors:\n{}", wrong.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    let rust = ["src", "tests", "benches"].iter().flat_map(|f| files(f, "rs"));
    for (name, text) in rust {
        if !text.starts_with("//! ") {
            wrong.push(format!("{name} does not start with a line `//! ..`"));
        }
        if text.lines().count() > LINES {
            wrong.push(format!("{name} has {} lines", text.lines().count()));
        }
    }
    for (name, text) in ["tests", "benches"].iter().flat_map(|f| files(f, "py")) {
        if text.lines().count() > LINES {
            wrong.push(format!("{name} has {} lines", text.lines().count()));
        }
    }
    let main = std::fs::read_to_string(root().join("src/main.rs")).unwrap();
    if main.lines().count() > 60 {
        wrong.push(format!("src/main.rs has {} lines, more than 60", main.lines().count()));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_panics_on_purpose() {
    const FORBIDDEN: [&str; 7] =
        [".unwrap()", ".expect(", "panic!(", "todo!", "unimplemented!", "unreachable!", "dbg!"];
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        for (i, line) in shipped(&text).lines().enumerate() {
            let found = FORBIDDEN.iter().filter(|f| line.contains(**f));
            wrong.extend(found.map(|f| format!("{name}:{}: {f}", i + 1)));
        }
    }
    assert!(wrong.is_empty(), "return an Error instead:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_in_few_places_and_says_why() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let raw: Vec<&str> = text.lines().collect();
        for (i, line) in code(&text).lines().enumerate() {
            let is_word = |w: &str| w == "unsafe";
            if !line.split(|c: char| !c.is_alphanumeric() && c != '_').any(is_word) {
                continue;
            }
            if !UNSAFE.contains(&name.as_str()) {
                wrong.push(format!("{name}:{}: `unsafe` belongs in {UNSAFE:?} alone", i + 1));
            }
            // The comment stands right above the statement, which may begin a line or two earlier.
            let above = raw[..i].iter().rev().skip_while(|l| !l.trim_start().starts_with("//")).enumerate();
            let near = raw[..i].iter().rev().take(3).any(|l| l.trim_start().starts_with("//"));
            let says = above.take_while(|(_, l)| l.trim_start().starts_with("//")).any(|(_, l)| l.contains("SAFETY:"));
            if !(near && says) {
                wrong.push(format!("{name}:{}: no `// SAFETY:` comment above", i + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_op_is_in_the_table() {
    let table = std::fs::read_to_string(root().join("src/selftest/cases.rs")).unwrap();
    let table = code(&table);
    let words: Vec<&str> = table.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let mut ops = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| name.starts_with("src/ops/")) {
        let code = shipped(text);
        let found = code.match_indices("impl Op for ").map(|(at, s)| {
            let rest = &code[at + s.len()..];
            rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_string()
        });
        ops.extend(found.map(|op| (name.clone(), op)));
    }
    assert!(ops.len() >= 3, "only {} ops found", ops.len());
    let missing: Vec<_> = ops.iter().filter(|(_, op)| !words.contains(&op.as_str())).collect();
    assert!(missing.is_empty(), "without a row in src/selftest/cases.rs: {missing:?}");
}

#[test]
fn there_is_one_error_of_few_kinds() {
    let text = std::fs::read_to_string(root().join("src/error.rs")).unwrap();
    let code = shipped(&text);
    let start = code.find("pub enum Error").expect("src/error.rs has the error");
    let (mut depth, mut variants) = (0, 0);
    for line in code[start..].lines() {
        let name = line.trim_start().starts_with(|c: char| c.is_ascii_uppercase());
        variants += usize::from(depth == 1 && name);
        depth += line.matches('{').count();
        depth -= line.matches('}').count();
        if depth == 0 {
            break;
        }
    }
    assert!((1..=12).contains(&variants), "Error has {variants} variants");
}

#[test]
fn decisions_are_numbered_and_say_why() {
    let records = files("docs/decisions", "md");
    assert!(!records.is_empty(), "docs/decisions is empty");
    for (i, (name, text)) in records.iter().enumerate() {
        let number = format!("docs/decisions/{:04}-", i + 1);
        assert!(name.starts_with(&number), "{name}: wanted {number}..");
        for part in ["# ", "## Context", "## Choice", "## Consequence"] {
            assert!(text.lines().any(|l| l.starts_with(part)), "{name} has no '{part}'");
        }
        assert!(text.lines().count() <= 60, "{name} is longer than a page");
    }
}
