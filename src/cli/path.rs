//! `fipk path`: stored paths, shown, measured, seen from above, and their networks written as models.
use super::globals::Context;
use super::model::Model;
use super::output::facts;
use super::settings::SaveDtype;
use crate::fip::path::pca::components;
use crate::fip::path::{Stored, unpacked};
use crate::params::Roles;
use crate::params::atomic::{Folder, write_file};
use crate::report::Table;
use crate::report::numbers::{grouped, number, percent};
use crate::report::plots::{LinePlot, Series};
use crate::{Error, Result};
use clap::Subcommand;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

/// Look at stored paths: their networks, their length, their shape; write one of their networks as a model
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fipk path show walk/geodesic
  fipk path pca walk/geodesic walk/line walk/null --out pca.svg
  fipk path export walk/geodesic --point 20 --out moved

A path is a folder with path.json in it: geodesic, line and null of what `fipk geodesic --out` writes, or what
`fipk sparsify --path` named.")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The networks of a path: where each lies and how it came about
    Show {
        /// The path's folder
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// How long paths are: the sum of the distances in weights between their networks
    Length {
        /// The paths' folders
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
    },
    /// Draw paths on the first two principal components of all their networks
    Pca {
        /// The paths' folders, of one architecture
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
        /// The plot, as SVG; replaced if it exists
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Write a network of a path as a model folder
    Export {
        /// The path's folder
        #[arg(value_name = "PATH")]
        path: PathBuf,
        /// Which network, counted from 0
        #[arg(long, value_name = "N")]
        point: usize,
        /// The model's folder
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Replace a model that is there
        #[arg(long)]
        overwrite: bool,
    },
}

pub fn run(args: &Args, context: &Context) -> Result<()> {
    context.refuse_config()?;
    match &args.what {
        What::Show { path } => show(&Stored::open(path)?, context),
        What::Length { paths } => length(&open(paths)?, context),
        What::Pca { paths, out } => pca(&open(paths)?, out, context),
        What::Export { path, point, out, overwrite } => {
            let folder = Folder::create(out, *overwrite)?;
            export(&Stored::open(path)?, *point, folder, context)
        }
    }
}

fn open(paths: &[PathBuf]) -> Result<Vec<Stored>> {
    paths.iter().map(|p| Stored::open(p)).collect()
}

fn show(path: &Stored, context: &Context) -> Result<()> {
    let fact = |p: &crate::fip::path::Point, name: &str| p.facts.get(name).and_then(|v| v.as_f64());
    let cell = |value: Option<f64>| value.map_or("-".to_string(), number);
    let row = |(i, p): (usize, &crate::fip::path::Point)| {
        let numbers =
            [Some(p.time), Some(p.weight_distance), fact(p, "from_start"), fact(p, "drift"), fact(p, "speed")];
        [vec![i.to_string(), p.operation.clone()], numbers.map(cell).to_vec()].concat()
    };
    let columns = ["", "operation", "time", "step", "from start", "drift", "speed"].map(String::from).to_vec();
    let table = Table { title: String::new(), columns, rows: path.points().iter().enumerate().map(row).collect() };
    let summary = facts(&[
        ("model", path.model().to_string()),
        ("weights", grouped(path.dimensions() as u64)),
        ("length", number(path.length())),
    ]);
    let object = json!({
        "path": path.dir(),
        "model": path.model(),
        "weights": path.dimensions(),
        "length": path.length(),
        "points": path.points(),
    });
    context.output.result(&object, &[summary, table])
}

fn length(paths: &[Stored], context: &Context) -> Result<()> {
    let name = |p: &Stored| p.dir().display().to_string();
    let rows = paths.iter().map(|p| vec![name(p), p.points().len().to_string(), number(p.length())]).collect();
    let columns = ["path", "networks", "length"].map(String::from).to_vec();
    let lengths: Vec<_> =
        paths.iter().map(|p| json!({ "path": p.dir(), "networks": p.points().len(), "length": p.length() })).collect();
    context.output.result(&lengths, &[Table { title: String::new(), columns, rows }])
}

fn pca(paths: &[Stored], out: &std::path::Path, context: &Context) -> Result<()> {
    let found = components(paths, 2)?;
    let at = |of: &[f64], c: usize| of.get(c).copied().unwrap_or(0.0);
    let series = paths.iter().zip(&found.coordinates).map(|(path, networks)| {
        let name =
            path.dir().file_name().map_or_else(|| path.dir().display().to_string(), |n| n.to_string_lossy().into());
        let mut series = Series::new(name, networks.iter().map(|n| (at(n, 0), at(n, 1))).collect());
        series.markers = true;
        series
    });
    let share = |c: usize| percent(at(&found.shares, c));
    let plot = LinePlot {
        x_label: format!("first component ({} of the variance)", share(0)),
        y_label: format!("second component ({})", share(1)),
        series: series.collect(),
        ..LinePlot::default()
    };
    let svg = plot.svg((720, 480))?;
    write_file(out, |w| w.write_all(svg.as_bytes()))?;
    context.output.remark(format!("wrote {}", out.display()));
    let coordinates: Vec<_> = paths
        .iter()
        .zip(&found.coordinates)
        .map(|(path, networks)| json!({ "path": path.dir(), "networks": networks }))
        .collect();
    let object = json!({ "out": out, "shares": found.shares, "coordinates": coordinates });
    context.output.result(&object, &[facts(&[("first component", share(0)), ("second component", share(1))])])
}

fn export(path: &Stored, point: usize, out: Folder, context: &Context) -> Result<()> {
    let model = Model::open(path.model())?;
    if model.folder.fingerprint()? != path.model_sha256() {
        let what = "the model the path starts from is another one now";
        return Err(Error::model(path.model(), what, "put it back where it was: its config and tokenizer are needed"));
    }
    let layout = model.layout(&Roles::default())?;
    let weights = unpacked(&layout, &path.network(point)?);
    model.write(&out, &layout, &weights, &model.folder.raw, SaveDtype::F32)?;
    let target = out.commit()?;
    context.output.remark(format!("wrote {}", target.display()));
    context.output.result(&json!({ "path": path.dir(), "point": point, "out": target }), &[])
}
