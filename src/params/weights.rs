//! Read-only, memory-mapped safetensors: one file, or an index and its shards, checked on opening.
pub use super::header::TensorInfo;
use super::header::{Header, Metadata};
use crate::tensor::numel;
use crate::{Error, Result};
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use rayon::prelude::*;
pub use safetensors::Dtype;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

/// The usual names within a model folder.
pub const SINGLE_FILE: &str = "model.safetensors";
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Elements converted at a time: enough work for a task, and the converted block is still in cache for its check.
const BLOCK: usize = 1 << 15;

/// The tensors of a model folder. Opening reads the headers only; bytes are paged in when they are used.
#[derive(Debug)]
pub struct Weights {
    shards: Vec<Shard>,
    index: Option<Map<String, Value>>,
    tensors: Vec<Tensor>,
    by_name: HashMap<String, usize>,
}

/// One file. `name` is relative to the folder.
#[derive(Debug)]
pub struct Shard {
    pub name: String,
    pub metadata: Metadata,
    path: PathBuf,
    map: Mmap,
}

#[derive(Debug)]
struct Tensor {
    name: String,
    shard: usize,
    info: TensorInfo,
    bytes: Range<usize>,
}

impl Weights {
    /// Opens a folder's `model.safetensors`, or its `model.safetensors.index.json` with the shards it names.
    ///
    /// Everything the headers and the index claim is checked here (`Error::Model`; `Error::Io` when a file
    /// cannot be read), so later reads can only fail on a name, a shape, a type or a bad number.
    pub fn open(dir: &Path) -> Result<Self> {
        if dir.join(SINGLE_FILE).exists() {
            return Self::open_file(&dir.join(SINGLE_FILE));
        }
        if dir.join(INDEX_FILE).exists() {
            return Self::open_index(dir);
        }
        Err(no_weights(dir))
    }

    /// Opens one safetensors file.
    pub fn open_file(path: &Path) -> Result<Self> {
        let mut weights = Self::empty(None);
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        weights.add_shard(path, name)?;
        Ok(weights)
    }

    fn open_index(dir: &Path) -> Result<Self> {
        let path = dir.join(INDEX_FILE);
        let place = path.display().to_string();
        let bad = |what: String| Error::model(&place, what, "fetch the folder again, or save the model anew");
        let text = fs::read(&path).map_err(Error::io("read", &path))?;
        let index: Map<String, Value> =
            serde_json::from_slice(&text).map_err(|e| bad(format!("not a JSON object: {e}")))?;
        let Some(Value::Object(listed)) = index.get("weight_map") else {
            return Err(bad("wanted a \"weight_map\" of tensor names to file names, found none".into()));
        };
        let listed: Vec<(String, String)> = listed
            .iter()
            .map(|(tensor, file)| match file {
                Value::String(file) => Ok((tensor.clone(), file.clone())),
                other => Err(bad(format!("weight_map: wanted a file name for {tensor:?}, got {other}"))),
            })
            .collect::<Result<_>>()?;

        let mut weights = Self::empty(Some(index));
        for (_, file) in &listed {
            if weights.shards.iter().any(|s| &s.name == file) {
                continue;
            }
            let within = Path::new(file).components().all(|c| matches!(c, Component::Normal(_))) && !file.is_empty();
            if !within || file.contains('\\') {
                return Err(bad(format!("weight_map: {file:?} points outside the folder")));
            }
            let shard = dir.join(file);
            if !shard.is_file() {
                return Err(bad(format!("weight_map: the file {file:?} is not in the folder")));
            }
            weights.add_shard(&shard, file.clone())?;
        }
        for (tensor, file) in &listed {
            match weights.by_name.get(tensor) {
                None => return Err(bad(format!("weight_map: tensor {tensor:?} is not in {file:?}"))),
                Some(&i) if weights.shard_of(i).name != *file => {
                    let found = &weights.shard_of(i).name;
                    return Err(bad(format!("weight_map: tensor {tensor:?} is in {found:?}, not in {file:?}")));
                }
                Some(_) => {}
            }
        }
        if listed.len() != weights.tensors.len() {
            let listed: std::collections::HashSet<_> = listed.iter().map(|(tensor, _)| tensor.as_str()).collect();
            let unlisted = weights.names().find(|n| !listed.contains(n)).unwrap_or_default().to_string();
            return Err(bad(format!("weight_map: tensor {unlisted:?} of the shards is not listed")));
        }
        Ok(weights)
    }

    fn empty(index: Option<Map<String, Value>>) -> Self {
        Self { shards: Vec::new(), index, tensors: Vec::new(), by_name: HashMap::new() }
    }

    fn add_shard(&mut self, path: &Path, name: String) -> Result<()> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        if !file.metadata().map_err(Error::io("read", path))?.is_file() {
            return Err(Error::model(
                path.display().to_string(),
                "wanted a file, got something else",
                "check the folder",
            ));
        }
        // SAFETY: the map is only ever read, as bytes, for which any content is valid. That the file is not
        // shortened meanwhile cannot be enforced; fipk itself only replaces files by renaming, which leaves
        // a mapped one whole.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        let header = Header::parse(path, &map)?;
        let shard = self.shards.len();
        for entry in header.entries {
            if let Some(&other) = self.by_name.get(&entry.name) {
                let what = format!("tensor {:?} is also in {}", entry.name, self.shard_of(other).name);
                let hint = "a tensor belongs in one shard: save the model anew";
                return Err(Error::model(path.display().to_string(), what, hint));
            }
            self.by_name.insert(entry.name.clone(), self.tensors.len());
            self.tensors.push(Tensor { name: entry.name, shard, info: entry.info, bytes: entry.bytes });
        }
        self.shards.push(Shard { name, metadata: header.metadata, path: path.to_path_buf(), map });
        Ok(())
    }

    /// All names, shard after shard, in the order of their bytes.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.iter().map(|t| t.name.as_str())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&i| &self.tensors[i].info)
    }

    /// A tensor's bytes as they lie in the file (little-endian, row-major).
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let &i = self.by_name.get(name)?;
        Some(&self.shard_of(i).map[self.tensors[i].bytes.clone()])
    }

    /// The files, in the order in which the index first names them.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The position in [`Weights::shards`] of the file that holds a tensor.
    pub fn shard(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).map(|&i| self.tensors[i].shard)
    }

    /// The index file's JSON, for a sharded folder.
    pub fn index(&self) -> Option<&Map<String, Value>> {
        self.index.as_ref()
    }

    /// The first file's `__metadata__`.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.shards.first().map(|s| &s.metadata)
    }

    /// The one type of all floating-point tensors, if they share one.
    pub fn common_dtype(&self) -> Option<Dtype> {
        let mut types = self.tensors.iter().map(|t| t.info.dtype).filter(|&d| is_real(d));
        let first = types.next()?;
        types.all(|d| d == first).then_some(first)
    }

    /// Reads a tensor of the given shape into `out` (one f32 an element) from F32, F16, BF16 or F64, in parallel.
    ///
    /// `Error::Model` when the tensor is missing, has another shape, holds integers, or holds a number that is
    /// not finite in f32 (the message counts them and names the first).
    pub fn read(&self, name: &str, shape: &[usize], out: &mut [f32]) -> Result<()> {
        let Some(&i) = self.by_name.get(name) else {
            let place = self.shards.first().map(|s| s.path.display().to_string()).unwrap_or_default();
            let what = format!("wanted a tensor {name:?}, found none of that name among {}", self.tensors.len());
            return Err(Error::model(place, what, "the weights must belong to the model that config.json describes"));
        };
        let info = &self.tensors[i].info;
        let place = || format!("{}: tensor {name:?}", self.shard_of(i).path.display());
        if info.shape != shape || numel(shape) != out.len() {
            let what = format!("wanted shape {shape:?}, got {:?}", info.shape);
            return Err(Error::model(place(), what, "check the sizes in config.json against the weights"));
        }
        let bytes = &self.shard_of(i).map[self.tensors[i].bytes.clone()];
        let (bad, first) = match info.dtype {
            Dtype::F32 => convert::<4>(bytes, out, |from, to| {
                to.iter_mut().zip(from).for_each(|(x, &b)| *x = f32::from_le_bytes(b));
            }),
            Dtype::BF16 => convert::<2>(bytes, out, |from, to| {
                to.iter_mut().zip(from).for_each(|(x, &b)| *x = half::bf16::from_le_bytes(b).to_f32());
            }),
            Dtype::F16 => convert::<2>(bytes, out, |from, to| {
                // The CPU converts whole slices of f16; those of the file may be misaligned, a block here is not.
                let mut block = [half::f16::ZERO; 256];
                for (to, from) in to.chunks_mut(block.len()).zip(from.chunks(block.len())) {
                    let block = &mut block[..from.len()];
                    block.iter_mut().zip(from).for_each(|(x, &b)| *x = half::f16::from_le_bytes(b));
                    block.convert_to_f32_slice(to);
                }
            }),
            Dtype::F64 => convert::<8>(bytes, out, |from, to| {
                to.iter_mut().zip(from).for_each(|(x, &b)| *x = f64::from_le_bytes(b) as f32);
            }),
            other => {
                let what = format!("wanted F32, F16, BF16 or F64 for a parameter, got {other}");
                return Err(Error::model(place(), what, "convert the model to one of these"));
            }
        };
        if bad > 0 {
            let what = format!("{bad} of {} numbers are not finite, the first at index {first}", out.len());
            return Err(Error::model(place(), what, "the checkpoint is broken (a diverged training?): use another"));
        }
        Ok(())
    }

    fn shard_of(&self, tensor: usize) -> &Shard {
        &self.shards[self.tensors[tensor].shard]
    }
}

/// Types that a parameter may be stored in.
pub fn is_real(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64)
}

/// Converts block by block; returns how many results are not finite and the index of the first.
fn convert<const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[[u8; N]], &mut [f32]) + Sync,
) -> (usize, usize) {
    let (from, _) = bytes.as_chunks::<N>();
    let one = |(i, (to, from)): (usize, (&mut [f32], &[[u8; N]]))| {
        block(from, to);
        let bad = to.iter().map(|x| u32::from(!x.is_finite())).sum::<u32>() as usize;
        let first = if bad == 0 { usize::MAX } else { i * BLOCK + to.iter().take_while(|x| x.is_finite()).count() };
        (bad, first)
    };
    let join = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1.min(b.1));
    if out.len() <= BLOCK {
        return one((0, (out, from)));
    }
    let blocks = out.par_chunks_mut(BLOCK).zip(from.par_chunks(BLOCK)).enumerate();
    blocks.map(one).reduce(|| (0, usize::MAX), join)
}

/// No safetensors: says what there is instead and how to get them.
fn no_weights(dir: &Path) -> Error {
    let place = dir.display().to_string();
    let wanted = format!("wanted {SINGLE_FILE} or {INDEX_FILE}");
    let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let mut old: Vec<_> = names.filter(|n| n.starts_with("pytorch_model") && n.ends_with(".bin")).collect();
    old.sort();
    let Some(first) = old.first() else {
        return Error::model(place, format!("{wanted}, found neither"), "point at a folder that holds a saved model");
    };
    let convert = if old.len() == 1 {
        format!(
            "convert it: python -c \"import torch, safetensors.torch as s; s.save_file({{k: v.contiguous().clone() for k, v in \
             torch.load('{place}/{first}', map_location='cpu', weights_only=True).items()}}, '{place}/{SINGLE_FILE}', \
             {{'format': 'pt'}})\""
        )
    } else {
        format!("convert it: load {place} with transformers and save_pretrained it to a new folder")
    };
    Error::model(place.as_str(), format!("{wanted}, found only {first} (pickled, which can run code)"), convert)
}
