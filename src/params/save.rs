//! Writes tensors as safetensors: streamed, atomic, in the source's order, types and shards.
use super::atomic::{self, Folder, Writer};
use super::header::{Metadata, encode};
use super::weights::{Dtype, INDEX_FILE, SINGLE_FILE, TensorInfo, Weights, is_real};
use crate::{Error, Result};
use half::{bf16, f16, slice::HalfFloatSliceExt};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};
use std::path::Path;

/// Elements encoded at a time while a tensor streams to disk.
const BLOCK: usize = 1 << 14;

/// The type parameters are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Each in the type it had in the source (f16 and bf16 round to nearest, ties to even); one the source did
    /// not have in the type all of the source's parameters share, else in f32.
    #[default]
    Keep,
    F32,
}

/// A tensor to write; `data` has as many elements, or bytes, as `info` says.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    pub name: String,
    pub info: TensorInfo,
    pub data: Data<'a>,
}

/// Numbers to be encoded as F32, F16, BF16 or F64, or bytes to be written as they are.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    Real(&'a [f32]),
    Raw(&'a [u8]),
}

/// A network's parameter: its name there, and the name under which the source folder has it, if it does.
#[derive(Clone, Debug)]
pub struct Parameter<'a> {
    pub name: &'a str,
    pub source: Option<String>,
    pub shape: &'a [usize],
    pub data: &'a [f32],
}

/// Writes one safetensors file, atomically. Nothing is written if a tensor cannot be stored: `Error::NotFinite`
/// for a NaN or an infinity, `Error::Model` for a repeated name, a wrong length or a number too large for its type.
pub fn write_file(path: &Path, tensors: &[Tensor], metadata: &Metadata) -> Result<()> {
    check(tensors)?;
    let tensors = aligned(tensors.iter().collect());
    atomic::write_file(path, |w| stream(w, &tensors, metadata))
}

/// Writes a model's weights into `folder`: `model.safetensors`, or the shards and the index of a sharded source.
///
/// Source tensors that no parameter comes from are carried over byte for byte, under the name `carry` gives
/// them (`None` leaves one out). The order is the source's, new ones last by name, wider types before narrower ones (so that every
/// tensor stays aligned). `metadata.format` is `pt`; other metadata is the source's. `counts` are whole numbers by the names they are
/// written under: in place of the source's, where it has them, and new ones where there is no source. Errors as [`write_file`].
pub fn write_weights(
    folder: &Folder,
    parameters: &[Parameter],
    source: Option<&Weights>,
    carry: impl Fn(&str) -> Option<String>,
    counts: &[(String, [u8; 8])],
    precision: Precision,
) -> Result<()> {
    let mut fresh: BTreeMap<&str, &Parameter> = BTreeMap::new();
    let mut known: HashMap<&str, &Parameter> = HashMap::new();
    for parameter in parameters {
        let from = parameter.source.as_deref().filter(|name| source.is_some_and(|s| s.contains(name)));
        if from.map_or_else(|| fresh.insert(parameter.name, parameter), |name| known.insert(name, parameter)).is_some()
        {
            return Err(repeated(parameter.name));
        }
    }
    let mut tensors = Vec::new();
    let mut shard_of = Vec::new();
    if let Some(source) = source {
        for name in source.names() {
            let (Some(info), Some(bytes)) = (source.info(name), source.bytes(name)) else { continue };
            tensors.push(match (known.get(name), carry(name)) {
                (Some(parameter), _) => parameter.stored(precision, Some(info.dtype)),
                (None, Some(name)) => {
                    let count = counts.iter().find(|(n, _)| *n == name && info.dtype == Dtype::I64);
                    let bytes = count.map_or(bytes, |(_, count)| count);
                    Tensor { name, info: info.clone(), data: Data::Raw(bytes) }
                }
                (None, None) => continue,
            });
            shard_of.push(source.shard(name).unwrap_or(0));
        }
    }
    let common = source.and_then(Weights::common_dtype);
    tensors.extend(fresh.values().map(|p| p.stored(precision, common)));
    if source.is_none() {
        let info = TensorInfo { dtype: Dtype::I64, shape: Vec::new() };
        tensors.extend(counts.iter().map(|(name, count)| Tensor {
            name: name.clone(),
            info: info.clone(),
            data: Data::Raw(count),
        }));
    }
    shard_of.resize(tensors.len(), source.map_or(0, |s| s.shards().len().saturating_sub(1)));
    check(&tensors)?;

    let shards = source.map_or(1, |s| s.shards().len());
    let mut weight_map = serde_json::Map::new();
    for shard in 0..shards {
        let mine = tensors.iter().zip(&shard_of).filter(|(_, s)| **s == shard).map(|(t, _)| t);
        let mine = aligned(mine.collect());
        if mine.is_empty() && shards > 1 {
            continue;
        }
        let from = source.map(|s| &s.shards()[shard]);
        let name = match (from, source.and_then(Weights::index)) {
            (Some(from), Some(_)) => from.name.as_str(),
            _ => SINGLE_FILE,
        };
        let mut metadata = from.map(|s| s.metadata.clone()).unwrap_or_default();
        metadata.insert("format".into(), "pt".into());
        folder.write(name, |w| stream(w, &mine, &metadata))?;
        weight_map.extend(mine.iter().map(|t| (t.name.clone(), json!(name))));
    }
    if let Some(index) = source.and_then(Weights::index) {
        let mut index = index.clone();
        let mut about = index.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        let total: usize = tensors.iter().filter_map(|t| t.info.byte_len()).sum();
        about.insert("total_size".into(), json!(total));
        if let Some(parameters) = about.get_mut("total_parameters") {
            let real = tensors.iter().filter(|t| is_real(t.info.dtype));
            *parameters = json!(real.filter_map(|t| t.info.numel()).sum::<usize>());
        }
        index.insert("metadata".into(), about.into());
        index.insert("weight_map".into(), weight_map.into());
        folder.write(INDEX_FILE, |w| {
            serde_json::to_writer_pretty(&mut *w, &index)?;
            w.write_all(b"\n")
        })?;
    }
    Ok(())
}

impl<'a> Parameter<'a> {
    fn stored(&self, precision: Precision, kept: Option<Dtype>) -> Tensor<'a> {
        let dtype = match precision {
            Precision::Keep => kept.unwrap_or(Dtype::F32),
            Precision::F32 => Dtype::F32,
        };
        let info = TensorInfo { dtype, shape: self.shape.to_vec() };
        Tensor { name: self.name.to_string(), info, data: Data::Real(self.data) }
    }
}

/// Everything that could be wrong with the numbers, before the first byte is written.
fn check(tensors: &[Tensor]) -> Result<()> {
    let mut names = HashSet::new();
    for Tensor { name, info, data } in tensors {
        let place = || format!("tensor {name:?}");
        if !names.insert(name.as_str()) {
            return Err(repeated(name));
        }
        let (wanted, got) = match data {
            Data::Real(x) => (info.numel(), x.len()),
            Data::Raw(x) => (info.byte_len(), x.len()),
        };
        if wanted != Some(got) {
            let what = format!("shape {:?} of {} does not fit its {got} elements or bytes", info.shape, info.dtype);
            return Err(Error::model(place(), what, "its data must match its shape"));
        }
        let Data::Real(x) = data else { continue };
        let first_bad = |good: fn(f32) -> bool| x.par_iter().position_first(move |&x| !good(x));
        if let Some(i) = first_bad(f32::is_finite) {
            let hint = "training diverged: lower the learning rate";
            return Err(Error::not_finite(place(), format!("the number at index {i} ({})", x[i]), hint));
        }
        let too_large = match info.dtype {
            Dtype::F32 | Dtype::F64 => None,
            Dtype::F16 => first_bad(|x| f16::from_f32(x).is_finite()),
            Dtype::BF16 => first_bad(|x| bf16::from_f32(x).is_finite()),
            other => {
                return Err(Error::model(place(), format!("{other} cannot hold a parameter"), "write it in F32"));
            }
        };
        if let Some(i) = too_large {
            let what = format!("the number at index {i} ({:e}) is too large for {}", x[i], info.dtype);
            return Err(Error::model(place(), what, "write the model in f32"));
        }
    }
    Ok(())
}

fn repeated(name: &str) -> Error {
    Error::model(format!("tensor {name:?}"), "would be written twice", "two tensors of the source map to this name")
}

/// Wider types first, otherwise as given: readers that map a file need each tensor aligned to its type.
fn aligned<'t, 'a>(mut tensors: Vec<&'t Tensor<'a>>) -> Vec<&'t Tensor<'a>> {
    tensors.sort_by_key(|t| std::cmp::Reverse(t.info.dtype.bitsize()));
    tensors
}

fn stream(w: &mut Writer, tensors: &[&Tensor], metadata: &Metadata) -> io::Result<()> {
    w.write_all(&encode(tensors.iter().map(|t| (t.name.as_str(), &t.info)), metadata))?;
    let mut bytes = Vec::with_capacity(8 * BLOCK);
    let mut halves = vec![f16::ZERO; BLOCK];
    for tensor in tensors {
        let numbers = match tensor.data {
            Data::Raw(bytes) => {
                w.write_all(bytes)?;
                continue;
            }
            Data::Real(numbers) => numbers,
        };
        for block in numbers.chunks(BLOCK) {
            bytes.clear();
            match tensor.info.dtype {
                Dtype::F16 => {
                    let halves = &mut halves[..block.len()];
                    halves.convert_from_f32_slice(block);
                    bytes.extend(halves.iter().flat_map(|x| x.to_le_bytes()));
                }
                Dtype::BF16 => bytes.extend(block.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes())),
                Dtype::F64 => bytes.extend(block.iter().flat_map(|&x| f64::from(x).to_le_bytes())),
                // `check` has let nothing else through.
                _ => bytes.extend(block.iter().flat_map(|x| x.to_le_bytes())),
            }
            w.write_all(&bytes)?;
        }
    }
    Ok(())
}
