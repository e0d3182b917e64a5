//! From a data spec to padded batches: images (`mnist:DIR`, `cifar10:DIR`, `images:DIR`, ..) and text (`glue/TASK:DIR`,
//! `text:FILE`, `lm:FILE`).
//!
//! [`load`] reads a [`Spec`] into a [`Dataset`], whole and in memory, or says which line of which file is wrong;
//! [`Batches`] gives an epoch of it in an order that depends on (seed, epoch) alone.
//!
//! ```
//! use fipk::data::{self, Batches, Cursor, Reading};
//!
//! let digits = data::load(&"digits:100?seed=1".parse()?, "train", &Reading::default())?;
//! for batch in Batches::shuffled(&*digits, 32, 7, Cursor::default())? {
//!     let batch = batch?;
//!     assert_eq!(batch.inputs[0].name, "pixel_values");
//!     assert_eq!(batch.inputs[0].shape, [32, 784]); // the last batch too: 4 images, 28 rows of zeros
//! }
//! # Ok::<(), fipk::Error>(())
//! ```
pub mod ahead;
pub mod batches;
pub mod digits;
pub mod files;
pub mod fingerprint;
pub mod glue;
pub mod idx;
pub mod images;
pub mod labels;
pub mod masked;
pub mod parquet;
pub mod preprocess;
pub mod sequences;
pub mod spec;
pub mod table;
pub mod text;
pub mod tokenizer;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

pub use ahead::{Ahead, ahead};
pub use batches::{Batches, Cursor, Epochs};
use fingerprint::Fingerprint;
pub use preprocess::Preprocess;
pub use spec::{Kind, Spec};
pub use tokenizer::Tokenizer;

use crate::rng::Rng;
use crate::{Error, Result};

/// The target of a token whose prediction is not scored.
pub const NOT_SCORED: i32 = -100;

/// The epoch whose masks every evaluation of a masked language model uses.
pub const EVALUATION: u64 = stream::NUMBER;

/// Random streams of this module; the low 56 bits number the epoch, the image, ..
mod stream {
    pub const NUMBER: u64 = (1 << 56) - 1;
    pub const SHUFFLE: u64 = 1 << 56;
    pub const MASKING: u64 = 2 << 56;
    pub const SUBSET: u64 = 3 << 56;
    pub const DIGITS: u64 = 4 << 56;
    pub const AUGMENT: u64 = 5 << 56;
}

/// What is to be learned from a data set.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "task")]
pub enum Task {
    /// One of these classes; where the model names its outputs these are the model's names.
    Classification { labels: Vec<String> },
    /// One score.
    Regression,
    /// The tokens that were hidden.
    MaskedLm,
}

/// The numbers of an input, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    Real(Vec<f32>),
    Index(Vec<i32>),
}

/// One input of a model under Hugging Face's name: `pixel_values` `[rows, pixels]` or `[rows, channels, height, width]`
/// (see [`Form`]), or `input_ids`, `attention_mask`
/// and, for models that have them, `token_type_ids` `[rows, sequence]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub name: &'static str,
    pub shape: Vec<usize>,
    pub values: Values,
}

/// What the outputs are held against.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// `[rows]`
    Classes(Vec<i32>),
    /// `[rows]`
    Scores(Vec<f32>),
    /// `[rows, sequence]`; [`NOT_SCORED`] where nothing was hidden.
    Tokens(Vec<i32>),
}

impl Targets {
    /// Those of `examples`; for targets of one number an example.
    fn pick(&self, examples: &[usize]) -> Self {
        match self {
            Self::Classes(all) => Self::Classes(examples.iter().map(|&i| all[i]).collect()),
            Self::Scores(all) => Self::Scores(examples.iter().map(|&i| all[i]).collect()),
            Self::Tokens(all) => Self::Tokens(examples.iter().map(|&i| all[i]).collect()),
        }
    }

    /// Filled up with zeros to `rows`.
    fn padded(mut self, rows: usize) -> Self {
        match &mut self {
            Self::Classes(all) | Self::Tokens(all) => all.resize(rows, 0),
            Self::Scores(all) => all.resize(rows, 0.0),
        }
        self
    }
}

/// Examples side by side. `examples.len()` of the `rows` are real, in that order; the rest are zeros: mask 0, class
/// 0, token targets [`NOT_SCORED`].
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub examples: Vec<usize>,
    pub rows: usize,
    pub inputs: Vec<Input>,
    pub targets: Targets,
}

impl Batch {
    /// Without the rows that are padding.
    pub fn unpadded(&self) -> Cow<'_, Self> {
        let rows = self.examples.len();
        if rows == self.rows {
            return Cow::Borrowed(self);
        }
        let mut cut = self.clone();
        for input in &mut cut.inputs {
            let each = input.shape.iter().skip(1).product::<usize>();
            input.shape[0] = rows;
            match &mut input.values {
                Values::Real(x) => x.truncate(rows * each),
                Values::Index(x) => x.truncate(rows * each),
            }
        }
        cut.targets = match cut.targets {
            Targets::Classes(y) => Targets::Classes(y[..rows].to_vec()),
            Targets::Scores(y) => Targets::Scores(y[..rows].to_vec()),
            Targets::Tokens(y) => Targets::Tokens(y[..y.len() / self.rows * rows].to_vec()),
        };
        cut.rows = rows;
        Cow::Owned(cut)
    }
}

/// A data set in memory.
pub trait Dataset: Send + Sync {
    /// How many examples there are; never 0 once loaded.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn task(&self) -> &Task;

    /// How long an example is in tokens, for batches of like lengths; 1 for images.
    fn length(&self, example: usize) -> usize;

    /// `examples` as one batch of at least `rows` rows. `epoch` decides what is hidden from a masked language model and
    /// how images are augmented ([`EVALUATION`] to measure: they are not); other data do not depend on it.
    ///
    /// # Errors
    /// [`Error::Data`] or [`Error::Io`] for an image that is read only now and is damaged or gone.
    ///
    /// # Panics
    /// If an example is not below [`Dataset::len`].
    fn batch(&self, examples: &[usize], rows: usize, epoch: u64) -> Result<Batch>;

    /// Whether the inputs of an example change with the epoch, so that outputs kept from one are no use in another.
    fn changes_with_epoch(&self) -> bool {
        false
    }

    /// SHA-256, in hexadecimal, of everything a network can see of this data: inputs as they are given, targets,
    /// class names. Equal data by another route has the same fingerprint.
    fn fingerprint(&self) -> String;
}

/// How `pixel_values` lie in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `[rows, pixels]`: an image in one row, plane after plane.
    #[default]
    Flat,
    /// `[rows, channels, height, width]`, with as many channels as the network takes.
    Planes { channels: usize },
}

/// How to read data for a model.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The folder of the tokenizer's files (the model's); needed for text.
    pub tokenizer: Option<PathBuf>,
    /// Most tokens of a sequence, special ones included.
    pub max_length: usize,
    /// Whether the model takes `token_type_ids`; BERT does, DistilBERT does not.
    pub with_types: bool,
    /// The model's `vocab_size`, which no token id may reach.
    pub vocabulary: Option<usize>,
    /// What the model's outputs are called, in order ([`labels::unnamed`] for nameless ones); `None` for a head that
    /// is still to be made for this data.
    pub labels: Option<Vec<String>>,
    pub preprocess: Preprocess,
    pub form: Form,
    /// Bytes of decoded images that are kept; a data set of more is decoded with every batch.
    pub hold: usize,
    /// Decides what is hidden from a masked language model and how images are augmented, unless the spec gives a seed.
    pub seed: u64,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            tokenizer: None,
            max_length: 128,
            with_types: true,
            vocabulary: None,
            labels: None,
            preprocess: Preprocess::default(),
            form: Form::Flat,
            hold: 1 << 30,
            seed: 0,
        }
    }
}

impl Reading {
    fn tokenizer(&self, spec: &Spec) -> Result<&Path> {
        self.tokenizer.as_deref().ok_or_else(|| {
            Error::usage(
                spec.place(),
                "text needs a tokenizer, and this model has none",
                "use a text model, or image data",
            )
        })
    }

    fn check_vocabulary(&self, largest: u32, spec: &Spec) -> Result<()> {
        match self.vocabulary {
            Some(size) if largest as usize >= size => Err(Error::model(
                spec.place(),
                format!("the tokenizer gives the id {largest}, the model's vocabulary has {size}"),
                "use the tokenizer that belongs to the model",
            )),
            _ => Ok(()),
        }
    }
}

/// Reads the data `spec` names. Where it names no split, the verb's own is taken: `split_default` is `train`, or `test`
/// to evaluate, which then tries test and dev in that order (GLUE: dev and test, for its test labels are not public).
///
/// # Errors
/// [`Error::Data`] names file, line, what is wrong and what was wanted; [`Error::Io`] a file that cannot be read;
/// [`Error::Model`] a tokenizer or preprocessor that cannot be used; [`Error::Usage`] a split the kind does not have.
pub fn load(spec: &Spec, split_default: &str, how: &Reading) -> Result<Box<dyn Dataset>> {
    Ok(match spec.kind {
        Kind::Mnist => Box::new(images::Images::mnist(spec, split_default, how)?),
        Kind::Digits(count) => Box::new(images::Images::digits(spec, count, split_default, how)?),
        Kind::Cifar(set) => Box::new(images::Images::of(spec, images::cifar::read(spec, set, split_default)?, how)?),
        Kind::Images => Box::new(images::Images::of(spec, images::folders::read(spec, split_default)?, how)?),
        Kind::Parquet => Box::new(images::Images::of(spec, images_of_table(spec, split_default)?, how)?),
        Kind::Glue(task) => Box::new(text::Texts::load(spec, Some(task), &tables(spec, split_default)?, how)?),
        Kind::Text => Box::new(text::Texts::load(spec, None, &tables(spec, split_default)?, how)?),
        Kind::Lm => Box::new(masked::MaskedText::load(spec, &split_files(spec, split_default, &["txt"])?, how)?),
    })
}

/// Images of any parquet files.
fn images_of_table(spec: &Spec, split_default: &str) -> Result<images::Found> {
    let labels: Vec<&str> = spec.label.iter().map(String::as_str).collect();
    let labels = if labels.is_empty() { &["label", "labels", "fine_label"][..] } else { &labels };
    let columns = images::table::Columns { image: spec.image.as_deref(), labels, task: spec.of_task };
    let files = split_files(spec, split_default, &["parquet"])?;
    images::table::read(&files, &columns, spec.labels.as_deref(), &spec.place())
}

fn tables(spec: &Spec, split_default: &str) -> Result<Vec<PathBuf>> {
    split_files(spec, split_default, table::FORMATS)
}

/// The file the spec names, or those of the split in the folder it names.
fn split_files(spec: &Spec, split_default: &str, formats: &[&str]) -> Result<Vec<PathBuf>> {
    if !spec.path.is_dir() {
        if spec.split.is_some() && spec.path.is_file() {
            let what = "one file has no splits";
            return Err(Error::usage(spec.place(), what, "name the folder of the splits, or leave ?split= out"));
        }
        return Ok(vec![spec.path.clone()]);
    }
    let splits: &[&str] = match &spec.split {
        Some(split) => &[split.as_str()],
        None if split_default == "train" => &["train"],
        None if matches!(spec.kind, Kind::Glue(_)) => &["dev", "test"],
        None => &["test", "dev"],
    };
    files::of_split(&spec.path, splits, formats)
}

/// Which of `n` examples `limit` keeps, in their order: the first ones, or with a seed a random choice. `None`: all.
fn subset(n: usize, limit: Option<usize>, seed: Option<u64>) -> Option<Vec<usize>> {
    let limit = limit.filter(|&limit| limit < n)?;
    let mut kept: Vec<usize> = (0..n).collect();
    if let Some(seed) = seed {
        Rng::new(seed, stream::SUBSET).shuffle(&mut kept);
    }
    kept.truncate(limit);
    kept.sort_unstable();
    Some(kept)
}
