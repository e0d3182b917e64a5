//! Paths as objects: a sequence of stored networks with where each comes from (METHOD, "Composition and paths").
//!
//! A path is a folder: `path.json` with a line of facts a network, and `points/N.delta`, each network as its compressed
//! difference from the one before ([`delta`]), the first as it is against zeros. Points are added one by one, each on disk
//! before `path.json` names it, so that a crash loses at most the last.
use crate::params::atomic;
use crate::params::{Layout, delta};
use crate::tensor::Shape;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

pub mod pca;

const INDEX: &str = "path.json";
const POINTS: &str = "points";
const VERSION: u32 = 1;

/// A parameter of the networks, in the order in which points store them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    pub name: String,
    pub shape: Shape,
}

/// What a path's folder says of a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The path's parameter there: time of a geodesic, step of a run.
    pub time: f64,
    /// How it came about: `start`, `geodesic`, `null`, `line`, `sparsify`, ..
    pub operation: String,
    /// ‖w_i − w_{i−1}‖₂.
    pub weight_distance: f64,
    /// Of the outputs: mean over examples of ‖z_i − z_{i−1}‖, where they were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_distance: Option<f64>,
    /// Facts of the operation, by name.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub facts: serde_json::Map<String, serde_json::Value>,
}

/// `path.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Index {
    version: u32,
    /// The folder of the model the path starts from, and its SHA-256.
    model: String,
    model_sha256: String,
    data: String,
    seed: u64,
    parameters: Vec<Parameter>,
    points: Vec<Point>,
}

/// A path on disk.
#[derive(Clone, Debug)]
pub struct Stored {
    dir: PathBuf,
    index: Index,
    /// The last network, for the next one's difference; empty until it is needed.
    last: Vec<f32>,
}

/// Where a path comes from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    pub model: String,
    pub model_sha256: String,
    pub data: String,
    pub seed: u64,
}

/// The numbers of a network without the layout's padding, in the order of its spans by name.
pub fn packed(layout: &Layout, weights: &[f32]) -> Vec<f32> {
    ordered(layout).into_iter().flat_map(|i| weights[layout.spans()[i].range()].iter().copied()).collect()
}

/// The reverse of [`packed`].
pub fn unpacked(layout: &Layout, numbers: &[f32]) -> Vec<f32> {
    let (mut weights, mut at) = (vec![0.0; layout.len()], 0);
    for i in ordered(layout) {
        let span = &layout.spans()[i];
        weights[span.range()].copy_from_slice(&numbers[at..at + span.len]);
        at += span.len;
    }
    weights
}

/// Spans by name: an order that does not depend on what a run prunes or freezes.
fn ordered(layout: &Layout) -> Vec<usize> {
    let mut order: Vec<usize> = (0..layout.spans().len()).collect();
    order.sort_by(|&a, &b| layout.spans()[a].name.cmp(&layout.spans()[b].name));
    order
}

impl Stored {
    /// An empty path in `dir`, which is made.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(dir: &Path, origin: Origin, layout: &Layout) -> Result<Self> {
        let points = dir.join(POINTS);
        fs::create_dir_all(&points).map_err(Error::io("create", &points))?;
        let parameter = |i: usize| {
            let span = &layout.spans()[i];
            Parameter { name: span.name.clone(), shape: span.shape.clone() }
        };
        let Origin { model, model_sha256, data, seed } = origin;
        let parameters = ordered(layout).into_iter().map(parameter).collect();
        let index = Index { version: VERSION, model, model_sha256, data, seed, parameters, points: Vec::new() };
        let stored = Self { dir: dir.into(), index, last: Vec::new() };
        stored.save()?;
        Ok(stored)
    }

    /// # Errors
    /// [`Error::Data`] for a folder that holds no path, or one of another version.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(INDEX);
        let wrong = |what: String| {
            let hint = "name a path's folder: geodesic/, line/ or null/ of `fipk geodesic --out`, or that of `sparsify --path`";
            Error::data(path.display().to_string(), what, hint)
        };
        let text = fs::read_to_string(&path).map_err(|e| wrong(e.to_string()))?;
        let index: Index = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        if index.version != VERSION {
            return Err(wrong(format!("wanted version {VERSION}, got {}", index.version)));
        }
        Ok(Self { dir: dir.into(), index, last: Vec::new() })
    }

    pub fn points(&self) -> &[Point] {
        &self.index.points
    }
    pub fn parameters(&self) -> &[Parameter] {
        &self.index.parameters
    }
    pub fn model(&self) -> &str {
        &self.index.model
    }
    pub fn model_sha256(&self) -> &str {
        &self.index.model_sha256
    }
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many numbers a network has.
    pub fn dimensions(&self) -> usize {
        self.index.parameters.iter().map(|p| p.shape.iter().product::<usize>()).sum()
    }

    /// Add a network, `numbers` as [`packed`] gives them. Its `weight_distance` is filled in.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for a weight that is no number; [`Error::Io`].
    pub fn add(&mut self, numbers: Vec<f32>, mut point: Point) -> Result<()> {
        if numbers.iter().any(|w| !w.is_finite()) {
            return Err(Error::not_finite("path", "a weight", "the path went too far; take smaller steps"));
        }
        if self.last.is_empty() {
            self.last = match self.index.points.len() {
                0 => vec![0.0; self.dimensions()],
                n => self.network(n - 1)?,
            };
        }
        if numbers.len() != self.last.len() {
            let what = format!("wanted {} weights, got {}", self.last.len(), numbers.len());
            return Err(Error::model(self.dir.display().to_string(), what, "add networks of one architecture"));
        }
        point.weight_distance = match self.index.points.is_empty() {
            true => 0.0,
            false => distance(&numbers, &self.last),
        };
        let bytes = delta::encode(&self.last, &numbers)?;
        atomic::write_file(&self.file(self.index.points.len()), |w| w.write_all(&bytes))?;
        self.index.points.push(point);
        self.last = numbers;
        self.save()
    }

    /// Keep the points from the first on for as long as `keep` says so, and let go of the rest.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn cut(&mut self, keep: impl Fn(&Point) -> bool) -> Result<()> {
        let (before, kept) = (self.index.points.len(), self.index.points.iter().take_while(|p| keep(p)).count());
        if kept == before {
            return Ok(());
        }
        self.index.points.truncate(kept);
        self.last.clear();
        // The index first: files that it does not name are of no path.
        self.save()?;
        for nth in kept..before {
            let file = self.file(nth);
            fs::remove_file(&file).map_err(Error::io("remove", &file))?;
        }
        Ok(())
    }

    fn save(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.index)
            .map_err(|e| Error::data(INDEX, e.to_string(), "facts of a point must be finite numbers"))?;
        atomic::write_file(&self.dir.join(INDEX), |w| writeln!(w, "{text}"))
    }

    fn file(&self, nth: usize) -> PathBuf {
        self.dir.join(POINTS).join(format!("{nth:05}.delta"))
    }

    /// The networks in order, one at a time in memory; ends early where `visit` says false.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that is missing or damaged; what `visit` says.
    pub fn walk(&self, mut visit: impl FnMut(usize, &[f32]) -> Result<bool>) -> Result<()> {
        let mut w = vec![0.0; self.dimensions()];
        for nth in 0..self.index.points.len() {
            let path = self.file(nth);
            let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
            delta::decode(&bytes, &mut w).map_err(|e| match e {
                Error::Io { doing, source, .. } => Error::Io { doing, path: path.clone(), source },
                other => other,
            })?;
            if !visit(nth, &w)? {
                break;
            }
        }
        Ok(())
    }

    /// The n-th network.
    ///
    /// # Errors
    /// [`Error::Usage`] for one that the path does not have; as [`Stored::walk`].
    pub fn network(&self, nth: usize) -> Result<Vec<f32>> {
        let count = self.index.points.len();
        if nth >= count {
            let what = format!("this path has {count} networks, counted from 0; got {nth}");
            return Err(Error::usage("--point", what, "`fipk path show` lists them"));
        }
        let mut found = Vec::new();
        self.walk(|i, w| {
            if i == nth {
                found = w.to_vec();
            }
            Ok(i < nth)
        })?;
        Ok(found)
    }

    /// Σ ‖w_i − w_{i−1}‖₂.
    pub fn length(&self) -> f64 {
        self.index.points.iter().map(|p| p.weight_distance).sum()
    }
}

/// ‖a − b‖₂, summed in f64 in order.
pub fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}
