//! The head of a safetensors file: read with every claim in it checked, and written.
//!
//! A file is a little-endian u64 (the length of the JSON), the JSON
//! `{"__metadata__": {..}, name: {"dtype", "shape", "data_offsets": [begin, end]}, ..}` and the tensors' bytes,
//! which lie without gaps and little-endian; offsets count from the end of the JSON.
use crate::tensor::Shape;
use crate::{Error, Result};
use safetensors::Dtype;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::Path;

/// The format's own limit on the JSON; also what keeps a corrupt length from asking for terabytes.
const MAX_JSON: u64 = 100_000_000;

/// Text kept with the tensors, as `{"format": "pt"}`.
pub type Metadata = BTreeMap<String, String>;

/// What is stored of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    pub dtype: Dtype,
    pub shape: Shape,
}

/// A tensor's place: `bytes` counts from the start of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: String,
    pub info: TensorInfo,
    pub bytes: Range<usize>,
}

/// One file's tensors, in the order of their bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    pub entries: Vec<Entry>,
    pub metadata: Metadata,
}

#[derive(Deserialize, Serialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl Header {
    /// Reads the header of a whole file and checks that its tensors fill the rest of the file exactly.
    /// Every disagreement is an `Error::Model` that names `path` and, where there is one, the tensor.
    pub fn parse(path: &Path, file: &[u8]) -> Result<Self> {
        let bad = |what: String| Error::model(path.display().to_string(), what, "the file is damaged: fetch it again");
        let Some((length, rest)) = file.split_first_chunk::<8>() else {
            return Err(bad(format!("wanted a safetensors file (8 bytes and more), got {} bytes", file.len())));
        };
        let length = u64::from_le_bytes(*length);
        if length > MAX_JSON || length > rest.len() as u64 {
            let room = MAX_JSON.min(rest.len() as u64);
            return Err(bad(format!("the header claims {length} bytes of JSON, at most {room} are possible here")));
        }
        let (json, data) = rest.split_at(length as usize);
        let raw: RawHeader =
            serde_json::from_slice(json).map_err(|e| bad(format!("the header is not safetensors JSON: {e}")))?;

        let mut header = Self { entries: Vec::with_capacity(raw.entries.len()), metadata: raw.metadata };
        let mut seen = HashSet::with_capacity(raw.entries.len());
        for (name, entry) in raw.entries {
            let info = entry.info().map_err(|what| bad(format!("tensor {name:?}: {what}")))?;
            let bytes = entry.bytes(&info, data.len()).map_err(|what| bad(format!("tensor {name:?}: {what}")))?;
            if !seen.insert(name.clone()) {
                return Err(bad(format!("tensor {name:?} is listed twice")));
            }
            header.entries.push(Entry { name, info, bytes });
        }
        // Stable, so that empty tensors keep the order of the JSON.
        header.entries.sort_by_key(|e| (e.bytes.start, e.bytes.end));
        let mut end = 0;
        let mut before = None;
        for entry in &header.entries {
            let start = entry.bytes.start;
            if start < end {
                let other = before.map_or("", String::as_str);
                return Err(bad(format!("the bytes of tensors {other:?} and {:?} overlap", entry.name)));
            }
            if start > end {
                return Err(bad(format!("{} bytes before tensor {:?} belong to no tensor", start - end, entry.name)));
            }
            (end, before) = (entry.bytes.end, Some(&entry.name));
        }
        if end != data.len() {
            let (want, got) = (end, data.len());
            return Err(bad(format!("the tensors take {want} bytes but the file holds {got} after its header")));
        }
        let offset = 8 + json.len();
        for entry in &mut header.entries {
            entry.bytes = entry.bytes.start + offset..entry.bytes.end + offset;
        }
        Ok(header)
    }
}

/// The length and the JSON, padded with spaces so that the tensors begin at a multiple of 8.
pub fn encode<'a>(tensors: impl Iterator<Item = (&'a str, &'a TensorInfo)>, metadata: &Metadata) -> Vec<u8> {
    let mut json = serde_json::Map::new();
    if !metadata.is_empty() {
        json.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    let mut end = 0u64;
    for (name, info) in tensors {
        let start = end;
        end += info.byte_len().unwrap_or(0) as u64;
        let (dtype, shape) = (info.dtype, &info.shape);
        json.insert(name.into(), serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}));
    }
    let mut json = serde_json::Value::Object(json).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    header
}

impl TensorInfo {
    /// Elements; `None` when the number overflows.
    pub fn numel(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
    }

    /// Bytes; `None` when the number overflows or is no whole number of bytes (types of 4 and 6 bits).
    pub fn byte_len(&self) -> Option<usize> {
        let bits = self.numel()?.checked_mul(self.dtype.bitsize())?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

impl RawEntry {
    fn info(&self) -> Result<TensorInfo, String> {
        let dtype = Dtype::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(&self.dtype))
            .map_err(|_| format!("unknown dtype {:?}", self.dtype))?;
        let shape = self.shape.iter().map(|&d| usize::try_from(d)).collect::<Result<_, _>>();
        Ok(TensorInfo { dtype, shape: shape.map_err(|_| format!("shape {:?} is out of range", self.shape))? })
    }

    /// The claimed bytes, once they lie within the `room` there is and agree with shape and dtype.
    fn bytes(&self, info: &TensorInfo, room: usize) -> Result<Range<usize>, String> {
        let [start, end] = self.data_offsets;
        if start > end || end > room as u64 {
            return Err(format!("its bytes {start}..{end} do not lie within the file's {room}"));
        }
        let wanted =
            info.byte_len().ok_or_else(|| format!("shape {:?} of {} is out of range", info.shape, info.dtype))?;
        if end - start != wanted as u64 {
            let (shape, dtype) = (&info.shape, info.dtype);
            return Err(format!("shape {shape:?} of {dtype} takes {wanted} bytes, its offsets span {}", end - start));
        }
        Ok(start as usize..end as usize)
    }
}

/// The JSON as it stands: in order, with repeated names kept so that they can be told.
struct RawHeader {
    entries: Vec<(String, RawEntry)>,
    metadata: Metadata,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut raw = RawHeader { entries: Vec::new(), metadata: Metadata::new() };
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        raw.metadata = map.next_value::<Option<Metadata>>()?.unwrap_or_default();
                    } else {
                        raw.entries.push((name, map.next_value()?));
                    }
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
