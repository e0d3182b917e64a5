//! The report: one self-contained HTML page with inline plots, no script and nothing to load.
use super::record::{self, Record};
use super::view::View;
use crate::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The page for these events. `config` is the resolved configuration as TOML, shown as it is; it may be empty.
///
/// Sections without data are left out, so the events of a run in progress make a page as well.
///
/// # Errors
/// None in practice: only if the drawing backend or the embedded template refuses.
pub fn render(records: &[Record], config: &str, title: &str) -> Result<String> {
    let broken = |why: minijinja::Error| Error::io("render", Path::new("report.html"))(std::io::Error::other(why));
    let view = View::new(records, config, title)?;
    let mut environment = minijinja::Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(broken)?;
    environment.set_syntax(syntax);
    // The name's ending turns HTML escaping on.
    environment.add_template("report.html", include_str!("report.html")).map_err(broken)?;
    environment.get_template("report.html").and_then(|template| template.render(Serde(&view))).map_err(broken)
}

/// Reads `metrics.jsonl` and `config.toml` (if there) of a run folder and writes its `report.html`; returns its path.
///
/// The page appears whole or not at all.
pub fn write(run: &Path) -> Result<PathBuf> {
    let records = record::read(&run.join("metrics.jsonl"))?;
    let config_path = run.join("config.toml");
    let config = match std::fs::read_to_string(&config_path) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("read", &config_path)(why)),
        other => other.unwrap_or_default(),
    };
    let absolute = run.canonicalize().map_err(Error::io("open", run))?;
    let title = absolute.file_name().map_or("run".into(), |name| name.to_string_lossy());
    let page = render(&records, &config, &title)?;

    let path = run.join("report.html");
    let draft = run.join(".report.html.part");
    let written = std::fs::File::create(&draft).and_then(|mut file| {
        file.write_all(page.as_bytes())?;
        std::fs::rename(&draft, &path)
    });
    written.map_err(|why| {
        // The write's error is the one to report, whatever becomes of the draft.
        let _ = std::fs::remove_file(&draft);
        Error::io("write", &path)(why)
    })?;
    Ok(path)
}
