//! A Hugging Face model folder: opened, its parameters found by name, and written again.
use super::config::{Config, RawConfig};
use super::head::Head;
use super::hub;
use crate::params::atomic::Folder;
use crate::params::save::{self, Parameter, Precision};
use crate::params::weights::Weights;
use crate::tensor::View;
use crate::{Error, Result};
use rayon::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

pub const CONFIG_FILE: &str = "config.json";

/// What goes along with a model, byte for byte.
pub const COPIED_FILES: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "preprocessor_config.json",
    "generation_config.json",
];

/// A folder with a `config.json` and safetensors.
#[derive(Debug)]
pub struct ModelFolder {
    pub dir: PathBuf,
    pub config: Config,
    /// `config.json` as it stands: the base of what is written.
    pub raw: RawConfig,
    pub weights: Weights,
}

impl ModelFolder {
    /// Opens a folder, or the Hugging Face model of that id from the local cache (see [`hub::locate`]).
    pub fn open(model: &str) -> Result<Self> {
        Self::open_dir(&hub::locate(model)?)
    }

    pub fn open_dir(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG_FILE);
        if !path.exists() {
            let place = dir.display().to_string();
            let hint = "point at a folder saved by transformers or by fipk";
            return Err(Error::model(place, format!("wanted a {CONFIG_FILE}, found none"), hint));
        }
        let text = fs::read(&path).map_err(Error::io("read", &path))?;
        let (config, raw) = Config::parse(&path.display().to_string(), &text)?;
        Ok(Self { dir: dir.to_path_buf(), config, raw, weights: Weights::open(dir)? })
    }

    /// The head the folder has, or the `wanted` one ([`Config::head`]).
    pub fn head(&self, wanted: Option<Head>) -> Result<Head> {
        self.config.head(&self.dir.join(CONFIG_FILE).display().to_string(), wanted)
    }

    /// The stored name of the parameter that the task model calls `name`, if the folder has it: the name itself,
    /// without the prefix that base classes leave out, with the old `gamma` and `beta` of layer norms, or that
    /// of the parameter it is tied to.
    pub fn resolve(&self, name: &str) -> Option<String> {
        let twins = self.config.ties().iter().filter_map(|&(a, b)| match name {
            n if n == a => Some(b),
            n if n == b => Some(a),
            _ => None,
        });
        std::iter::once(name).chain(twins).find_map(|name| self.stored(name))
    }

    /// As [`ModelFolder::resolve`], ties aside.
    fn stored(&self, name: &str) -> Option<String> {
        let base = self.config.base_prefix().and_then(|prefix| name.strip_prefix(prefix));
        let candidates = std::iter::once(name).chain(base).flat_map(|name| {
            let old = name
                .strip_suffix("LayerNorm.weight")
                .map(|stem| format!("{stem}LayerNorm.gamma"))
                .or_else(|| name.strip_suffix("LayerNorm.bias").map(|stem| format!("{stem}LayerNorm.beta")));
            std::iter::once(name.to_string()).chain(old)
        });
        candidates.into_iter().find(|name| self.weights.contains(name))
    }

    /// Writes this model with new numbers into `out` (not yet committed): `raw` as its `config.json`, `tensors`
    /// under the task model's names, every other tensor and the tokenizer's files carried over.
    ///
    /// A tied duplicate is stored where this folder stores it, with its original's numbers. Where `raw` names
    /// other `architectures` than this folder's, the former head's tensors stay behind. With
    /// [`Precision::F32`] a `dtype` in the config becomes float32. `batches` is how many the running averages of batch norms
    /// have taken in since, which PyTorch counts beside them. Errors as [`save::write_weights`].
    pub fn write(
        &self,
        out: &Folder,
        tensors: &[(&str, View)],
        raw: &RawConfig,
        precision: Precision,
        batches: u64,
    ) -> Result<()> {
        write(out, Some(self), tensors, raw, precision, batches)
    }

    /// SHA-256, in hexadecimal, of `config.json` and of every tensor's name, type, shape and bytes, in the order
    /// of their names: the same however the tensors are spread over files.
    pub fn fingerprint(&self) -> Result<String> {
        let path = self.dir.join(CONFIG_FILE);
        let config = fs::read(&path).map_err(Error::io("read", &path))?;
        let mut names: Vec<_> = self.weights.names().collect();
        names.sort_unstable();
        let digests: Vec<_> =
            names.par_iter().map(|name| Sha256::digest(self.weights.bytes(name).unwrap_or(&[]))).collect();
        let mut whole = Sha256::new_with_prefix(Sha256::digest(config));
        for (name, digest) in names.into_iter().zip(digests) {
            let info = self.weights.info(name);
            let head = info.map(|i| json!([name, i.dtype, i.shape]).to_string()).unwrap_or_default();
            whole.update(Sha256::digest(head));
            whole.update(digest);
        }
        Ok(format!("{:x}", whole.finalize()))
    }

    /// Whether the weights were saved from a base class, which leaves its own prefix out.
    fn is_base(&self, prefix: &str) -> bool {
        !self.weights.names().any(|name| name.starts_with(prefix))
    }
}

/// SHA-256, in hexadecimal, of a `config.json` that stands in no folder yet.
pub fn fingerprint(raw: &RawConfig) -> String {
    format!("{:x}", Sha256::digest(serde_json::Value::Object(raw.clone()).to_string()))
}

/// Writes a model that comes from no folder, as [`ModelFolder::write`] does.
pub fn write_new(out: &Folder, tensors: &[(&str, View)], raw: &RawConfig, batches: u64) -> Result<()> {
    write(out, None, tensors, raw, Precision::F32, batches)
}

fn write(
    out: &Folder,
    source: Option<&ModelFolder>,
    tensors: &[(&str, View)],
    raw: &RawConfig,
    precision: Precision,
    batches: u64,
) -> Result<()> {
    // Parsed again, so that what is written can be opened.
    let config = Config::from_raw(&out.target().join(CONFIG_FILE).display().to_string(), raw)?;
    let names = Names::new(&config, source, raw);
    let mut parameters: Vec<Parameter> = Vec::new();
    let duplicates = config.ties().iter().filter(|(copy, _)| tensors.iter().all(|(name, _)| name != copy));
    let duplicates = duplicates.filter_map(|&(copy, original)| {
        tensors.iter().find(|(name, _)| *name == original).map(|(_, view)| (copy, *view))
    });
    for (name, view) in tensors.iter().copied().chain(duplicates) {
        let stored = source.and_then(|s| s.stored(name));
        if stored.is_none() && config.ties().iter().any(|(copy, _)| *copy == name) {
            continue;
        }
        parameters.push(Parameter { name: names.written(name), source: stored, shape: view.shape, data: view.data });
    }
    let counts = counts(source, &names, tensors, batches);
    let weights = source.map(|s| &s.weights);
    save::write_weights(out, &parameters, weights, |name| names.carried(name), &counts, precision)?;

    let mut raw = raw.clone();
    if precision == Precision::F32 {
        // Otherwise `transformers` would round the weights to the type the source had.
        for key in ["dtype", "torch_dtype"] {
            if let Some(dtype) = raw.get_mut(key).filter(|v| !v.is_null()) {
                *dtype = json!("float32");
            }
        }
    }
    match source {
        Some(source) if source.raw == raw => out.copy(&source.dir.join(CONFIG_FILE), CONFIG_FILE)?,
        _ => out.write(CONFIG_FILE, |w| {
            serde_json::to_writer_pretty(&mut *w, &raw)?;
            w.write_all(b"\n")
        })?,
    }
    let files = COPIED_FILES.iter().filter_map(|name| source.map(|s| (s.dir.join(name), name)));
    for (path, name) in files.filter(|(path, _)| path.is_file()) {
        out.copy(&path, name)?;
    }
    Ok(())
}

/// `num_batches_tracked` of every batch norm, where the source counts it or there is no source.
fn counts(
    source: Option<&ModelFolder>,
    names: &Names,
    tensors: &[(&str, View)],
    batches: u64,
) -> Vec<(String, [u8; 8])> {
    let norms = tensors.iter().filter_map(|(name, _)| name.strip_suffix("running_var"));
    let count = |stem: &str| {
        let name = format!("{stem}num_batches_tracked");
        let before = match source {
            None => 0,
            Some(s) => i64::from_le_bytes(s.weights.bytes(&s.stored(&name)?)?.try_into().ok()?),
        };
        Some((names.written(&name).to_string(), before.saturating_add_unsigned(batches).to_le_bytes()))
    };
    norms.filter_map(count).collect()
}

/// Under which names tensors are written.
struct Names {
    prefix: &'static str,
    /// What the base's names begin with, without the prefix.
    modules: &'static [&'static str],
    /// The source's tensors lack the prefix..
    base_source: bool,
    /// ..and so do those written, since the class stays a base class.
    base_output: bool,
    /// The task changes, so that the former head has no place.
    drop_head: bool,
    pooler: bool,
}

impl Names {
    fn new(config: &Config, source: Option<&ModelFolder>, raw: &RawConfig) -> Self {
        let prefix = config.base_prefix().unwrap_or_default();
        let base_source = !prefix.is_empty() && source.is_some_and(|s| s.is_base(prefix));
        let same_task = source.is_none_or(|s| s.raw.get("architectures") == raw.get("architectures"));
        let pooler = !matches!(config, Config::Vit(_))
            && !config.task().architectures.iter().any(|class| class == "BertForMaskedLM");
        Self {
            prefix,
            modules: config.base_modules(),
            base_source,
            base_output: base_source && same_task,
            drop_head: !prefix.is_empty() && !same_task,
            pooler,
        }
    }

    fn written<'n>(&self, name: &'n str) -> &'n str {
        let short = name.strip_prefix(self.prefix).filter(|_| self.base_output);
        short.unwrap_or(name)
    }

    fn carried(&self, name: &str) -> Option<String> {
        let of_base = self.modules.iter().any(|module| name.starts_with(module));
        let name = match self.base_source && !self.base_output && of_base {
            true => format!("{}{name}", self.prefix),
            false => name.to_string(),
        };
        let body = name.strip_prefix(self.prefix);
        let fits = body.is_some_and(|body| self.pooler || !body.starts_with("pooler."));
        (!self.drop_head || fits).then_some(name)
    }
}
