//! A run's whole state on disk: written aside and renamed, so that the newest one is always whole.
use super::teacher::Teacher;
use crate::data::Cursor;
use crate::params::atomic::Folder;
use crate::params::save::{self, Data, Tensor};
use crate::params::weights::{Dtype, TensorInfo, Weights};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything but the vectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps done.
    pub step: u64,
    pub cursor: Cursor,
    /// The step before which the final projection was made.
    pub projected_at: Option<u64>,
    /// The step at which the path ends, where the stop rule ended it early.
    pub ended_at: Option<u64>,
    /// The bits of f64s, so that they come back exactly: ‖w − w_p‖², ‖w‖² over the prunable weights.
    pub pruned_squares: u64,
    pub squares: u64,
    /// The bits of the last threshold.
    pub threshold: u32,
    pub sparsity: f64,
    /// The bits of the metric's largest eigenvalue, where steps are solved for in it.
    #[serde(default)]
    pub largest: u64,
    /// Whether it was said that steps are not solved for well.
    #[serde(default)]
    pub warned: bool,
    /// SHA-256 of the model the run started from, and of its training data.
    pub model: String,
    pub data: String,
}

/// A state with its vectors, all in the run's layout.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    pub state: State,
    pub w: Vec<f32>,
    pub m: Vec<f32>,
    pub v: Vec<f32>,
    pub mask: Vec<u32>,
    pub teacher: Teacher,
}

const STATE: &str = "state.json";
const VECTORS: &str = "vectors.safetensors";
/// How many checkpoints are kept.
const KEEP: usize = 2;

impl Checkpoint {
    /// Store this state as `dir/step-N` and remove all but the newest two.
    ///
    /// # Errors
    /// [`Error::Io`]; what was there before stays.
    pub fn write(&self, dir: &Path) -> Result<PathBuf> {
        let folder = Folder::create(&dir.join(format!("step-{:08}", self.state.step)), true)?;
        let known: Vec<u8> = self.teacher.known.iter().map(|&k| u8::from(k)).collect();
        let real = |name: &str, data| tensor(name, Dtype::F32, data_len(&data), data);
        let tensors = [
            real("w", Data::Real(&self.w)),
            real("m", Data::Real(&self.m)),
            real("v", Data::Real(&self.v)),
            real("teacher.logits", Data::Real(&self.teacher.logits)),
            tensor("mask", Dtype::U32, self.mask.len(), Data::Raw(bytemuck::cast_slice(&self.mask))),
            tensor("teacher.known", Dtype::U8, known.len(), Data::Raw(&known)),
        ];
        save::write_file(&folder.path().join(VECTORS), &tensors, &BTreeMap::new())?;
        folder.write(STATE, |w| serde_json::to_writer_pretty(w, &self.state).map_err(Into::into))?;
        // Kept by name in the folder, so that `Folder` knows it for one of ours when it replaces it.
        folder.write("config.json", |w| {
            serde_json::to_writer(w, &serde_json::json!({"fipk": "checkpoint"})).map_err(Into::into)
        })?;
        let path = folder.commit()?;
        let mut all = list(dir);
        all.sort_unstable();
        for old in all.iter().rev().skip(KEEP) {
            // An old checkpoint that cannot be removed costs space, no more.
            let _ = fs::remove_dir_all(dir.join(old));
        }
        Ok(path)
    }

    /// The newest whole checkpoint in `dir`; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Model`] if there are checkpoints and none can be read.
    pub fn newest(dir: &Path, length: usize, outputs: usize) -> Result<Option<Self>> {
        let mut all = list(dir);
        all.sort_unstable();
        let mut first = None;
        for name in all.iter().rev() {
            match Self::read(&dir.join(name), length, outputs) {
                Ok(found) => return Ok(Some(found)),
                Err(error) => first = first.or(Some(error)),
            }
        }
        first.map_or(Ok(None), Err)
    }

    fn read(path: &Path, length: usize, outputs: usize) -> Result<Self> {
        let file = path.join(STATE);
        let text = fs::read(&file).map_err(Error::io("read", &file))?;
        let broken = |e: String| Error::model(file.display().to_string(), e, "remove this checkpoint and resume again");
        let state: State =
            serde_json::from_slice(&text).map_err(|e| broken(format!("wanted a run's state, got {e}")))?;
        let vectors = Weights::open_file(&path.join(VECTORS))?;
        let real = |name: &str| {
            let n = vectors.info(name).and_then(|i| i.numel()).unwrap_or(0);
            let mut data = vec![0.0; n];
            vectors.read(name, &[n], &mut data)?;
            Ok::<_, Error>(data)
        };
        let raw = |name: &str| vectors.bytes(name).ok_or_else(|| broken(format!("'{name}' is missing from {VECTORS}")));
        let known: Vec<bool> = raw("teacher.known")?.iter().map(|&k| k != 0).collect();
        let outputs = if known.is_empty() { 0 } else { outputs };
        let found = Self {
            state,
            w: real("w")?,
            m: real("m")?,
            v: real("v")?,
            mask: raw("mask")?.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            teacher: Teacher { outputs, logits: real("teacher.logits")?, known },
        };
        let fits = [&found.w, &found.m, &found.v].iter().all(|x| x.len() == length);
        if fits && found.teacher.logits.len() == found.teacher.known.len() * outputs {
            return Ok(found);
        }
        Err(broken(format!(
            "wanted vectors of {length} floats, got {}, {}, {}",
            found.w.len(),
            found.m.len(),
            found.v.len()
        )))
    }
}

fn data_len(data: &Data) -> usize {
    match data {
        Data::Real(d) => d.len(),
        Data::Raw(d) => d.len(),
    }
}

fn tensor<'a>(name: &str, dtype: Dtype, len: usize, data: Data<'a>) -> Tensor<'a> {
    Tensor { name: name.to_string(), info: TensorInfo { dtype, shape: vec![len] }, data }
}

/// Names of the checkpoints in `dir`, in no order.
fn list(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.starts_with("step-")).collect()
}
