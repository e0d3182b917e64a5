//! The folder that `fipk metric` writes.
use super::{Found, plots};
use crate::cli::tensors;
use crate::engine::{Engine, Vector};
use crate::params::atomic::Folder;
use crate::{Error, Result};
use std::io::Write;
use std::path::PathBuf;

/// config.toml (what was asked), metric.json, spectrum.svg, density.svg and eigenvector-NN.safetensors, then the folder in its place.
pub fn write(
    folder: Folder,
    asked: &toml::Table,
    found: &Found,
    vectors: &[Vector],
    engine: &mut dyn Engine,
) -> Result<PathBuf> {
    folder.write("config.toml", |w| write!(w, "{asked}"))?;
    let text = serde_json::to_string_pretty(found)
        .map_err(|e| Error::data("metric.json", e.to_string(), "look at the weights and the data"))?;
    folder.write("metric.json", |w| writeln!(w, "{text}"))?;
    for (name, svg) in plots::all(found)? {
        folder.write(name, |w| w.write_all(svg.as_bytes()))?;
    }
    let layout = engine.layout().clone();
    let mut numbers = vec![0.0; layout.len()];
    for (i, &v) in vectors.iter().enumerate() {
        engine.read(v, 0, &mut numbers)?;
        let path = folder.path().join(format!("eigenvector-{:02}.safetensors", i + 1));
        tensors::write(&path, &tensors::by_name(&layout, &numbers))?;
    }
    folder.commit()
}
