//! Images with a class each: the `mnist:`, `digits:`, `cifar10:`, `cifar100:`, `images:` and `parquet:` kinds.
//!
//! What fits into [`Reading::hold`] is decoded, resized and cropped once and kept as bytes; more stays encoded and is
//! decoded with every batch. Normalisation and augmentation happen as a batch is made.
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::labels::{self, unnamed};
use super::spec::Spec;
use super::{
    Batch, Dataset, EVALUATION, Fingerprint, Form, Input, Preprocess, Reading, Targets, Task, Values, digits, idx,
    subset,
};
use crate::{Error, Result};
use augment::Augment;
use picture::Picture;

pub mod augment;
pub mod cifar;
pub mod decode;
pub mod folders;
pub mod picture;
pub mod resize;
pub mod table;

/// Where an image stands.
#[derive(Clone, Debug)]
pub struct At {
    pub file: Arc<str>,
    /// From 1, in a file of many.
    pub row: Option<usize>,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        self.row.map_or(Ok(()), |row| write!(f, ": row {row}"))
    }
}

/// An image as it is stored.
#[derive(Clone, Debug)]
pub enum Content {
    Pixels(Picture),
    /// A PNG or a JPEG.
    Encoded(Vec<u8>),
    /// A file that is one.
    Path(PathBuf),
}

#[derive(Clone, Debug)]
pub struct Item {
    pub at: At,
    pub content: Content,
    /// One of [`Found::names`].
    pub class: usize,
}

/// All that a reader found of a split.
#[derive(Debug, Default)]
pub struct Found {
    pub items: Vec<Item>,
    /// The data's classes; their numbers where it has no names for them.
    pub names: Vec<String>,
}

enum Store {
    /// Fitted pictures, one behind the other.
    Fitted(Vec<u8>),
    Stored(Vec<(At, Content)>),
}

/// Images of one size as a network is to see them.
pub struct Images {
    store: Store,
    channels: usize,
    height: usize,
    width: usize,
    /// Axes of a batch besides its rows.
    axes: Vec<usize>,
    preprocess: Preprocess,
    shades: Vec<[f32; 256]>,
    augment: Option<Augment>,
    seed: u64,
    classes: Vec<i32>,
    task: Task,
}

impl Images {
    /// The train or the t10k pair of files in MNIST's folder.
    pub(super) fn mnist(spec: &Spec, split_default: &str, how: &Reading) -> Result<Self> {
        let prefix = match spec.split.as_deref().unwrap_or(split_default) {
            "train" => "train",
            "test" => "t10k",
            other => {
                let what = format!("mnist has no split `{other}`");
                return Err(Error::usage(spec.place(), what, "choose ?split=train or ?split=test"));
            }
        };
        let (pixels, file) = idx::read(&spec.path, &format!("{prefix}-images-idx3-ubyte"))?;
        let (labels, label_file) = idx::read(&spec.path, &format!("{prefix}-labels-idx1-ubyte"))?;
        let (images, labels) = (idx::parse(&pixels, 3, &file)?, idx::parse(&labels, 1, &label_file)?);
        let (n, height, width) = (images.dimensions[0], images.dimensions[1], images.dimensions[2]);
        if labels.bytes.len() != n {
            let what = format!("wanted a label for each of the {n} images, got {}", labels.bytes.len());
            return Err(Error::data(label_file, what, "fetch both files again, from one place"));
        }
        let present = labels.bytes.iter().max().map_or(0, |&label| usize::from(label) + 1);
        let task = numbered(how.labels.as_deref(), present.max(digits::CLASSES));
        if let Task::Classification { labels: names } = &task {
            let outside = |&label: &u8| usize::from(label) >= names.len();
            if let Some(item) = labels.bytes.iter().position(outside) {
                return Err(Error::data(
                    format!("{label_file}: item {item}"),
                    format!("label {} is not one of 0..={}", labels.bytes[item], names.len() - 1),
                    labels::NEW_HEAD,
                ));
            }
        }
        let kept = subset(n, spec.limit, spec.seed).unwrap_or_else(|| (0..n).collect());
        let classes = kept.iter().map(|&i| i32::from(labels.bytes[i])).collect();
        let area = height * width;
        let picture = |i: usize| grey(images.bytes[i * area..(i + 1) * area].to_vec(), height, width);
        let items = kept.iter().map(|&i| (At { file: file.as_str().into(), row: Some(i + 1) }, picture(i)));
        Self::new(spec, how, items.collect(), classes, task)
    }

    /// `count` drawn digits; `limit` keeps the first ones, for any of them are a random choice.
    pub(super) fn digits(spec: &Spec, count: usize, split_default: &str, how: &Reading) -> Result<Self> {
        let Some(split) = digits::Split::parse(spec.split.as_deref().unwrap_or(split_default)) else {
            let what = format!("digits has no split `{}`", spec.split.as_deref().unwrap_or(split_default));
            return Err(Error::usage(spec.place(), what, "choose ?split=train, test or dev"));
        };
        let outputs = how.labels.as_ref().map_or(digits::CLASSES, Vec::len);
        if outputs < digits::CLASSES {
            let what = format!("there are ten digits, the model has {outputs} outputs");
            return Err(Error::data(spec.place(), what, labels::NEW_HEAD));
        }
        let count = count.min(spec.limit.unwrap_or(count));
        let bytes = count.checked_mul(digits::AREA).filter(|&bytes| bytes <= isize::MAX as usize >> 8);
        let Some(bytes) = bytes else {
            let what = format!("{count} images do not fit in memory");
            return Err(Error::usage(spec.place(), what, "draw fewer digits"));
        };
        let mut pixels = vec![0; bytes];
        digits::draw_all(spec.seed.unwrap_or(0), split, &mut pixels);
        let file: Arc<str> = spec.place().into();
        let images = pixels.chunks_exact(digits::AREA).enumerate();
        let items = images.map(|(i, image)| {
            (At { file: file.clone(), row: Some(i + 1) }, grey(image.to_vec(), digits::SIDE, digits::SIDE))
        });
        let classes = (0..count).map(|i| digits::class(i) as i32).collect();
        Self::new(spec, how, items.collect(), classes, numbered(how.labels.as_deref(), digits::CLASSES))
    }

    /// What a reader found, as far as the spec wants it, under the numbers of the model's outputs.
    pub(super) fn of(spec: &Spec, mut found: Found, how: &Reading) -> Result<Self> {
        let chosen =
            spec.classes.as_deref().map(|words| labels::chosen(words, &found.names, &spec.place())).transpose()?;
        if let Some(chosen) = &chosen {
            found.items.retain(|item| chosen.contains(&item.class));
        }
        if found.items.is_empty() {
            let what = "wanted images, got none of the chosen classes";
            return Err(Error::data(spec.place(), what, "choose other ?classes=, or another split"));
        }
        let (names, output) = labels::outputs(&found.names, chosen.as_deref(), how.labels.as_deref(), &spec.place())?;
        if let Some(kept) = subset(found.items.len(), spec.limit, spec.seed) {
            let mut keep = vec![false; found.items.len()];
            kept.iter().for_each(|&i| keep[i] = true);
            let mut keep = keep.into_iter();
            found.items.retain(|_| keep.next().unwrap_or(false));
        }
        let classes = found.items.iter().map(|item| output[item.class]).collect();
        let items = found.items.into_iter().map(|item| (item.at, item.content)).collect();
        Self::new(spec, how, items, classes, Task::Classification { labels: names })
    }

    fn new(spec: &Spec, how: &Reading, items: Vec<(At, Content)>, classes: Vec<i32>, task: Task) -> Result<Self> {
        let (at, content) = items.first().ok_or_else(|| {
            Error::data(spec.place(), "wanted images, got none", "name a folder or a file with images")
        })?;
        let preprocess = how.preprocess.clone();
        // Drawn digits and the like are grey, and stay so unless the network wants colours; files become what the
        // network takes, as `do_convert_rgb` has it.
        let channels = match (how.form, content) {
            (Form::Planes { channels: 1 }, Content::Pixels(picture)) if picture.channels == 3 => {
                return Err(Error::data(
                    format!("{}: {at}", spec.place()),
                    "wanted images of 1 channel (grey), as the network takes them, got 3 (red, green, blue)",
                    "use a network whose config.json says \"num_channels\": 3, or grey images",
                ));
            }
            (Form::Planes { channels: channels @ (1 | 3) }, _) => channels,
            (Form::Planes { channels }, _) => {
                return Err(Error::data(
                    spec.place(),
                    format!(
                        "wanted images of {channels} channels, as the network takes them, got 1 or 3: images have no others"
                    ),
                    "use a network whose config.json says \"num_channels\": 1 or 3",
                ));
            }
            (Form::Flat, Content::Pixels(picture)) => picture.channels,
            (Form::Flat, _) if preprocess.mean.len() == 1 => 1,
            (Form::Flat, _) => 3,
        };
        let shades = preprocess.shades(channels, &spec.place())?;
        let first = fitted(at, content, channels, &preprocess)?;
        let (height, width) = first.size();
        if let Some(Err(what)) = spec.augment.as_ref().map(|augment| augment.fits((height, width))) {
            return Err(Error::usage(spec.place(), what, "choose a smaller crop, or larger images"));
        }
        let axes = match how.form {
            Form::Flat => vec![first.bytes.len()],
            Form::Planes { .. } => vec![channels, height, width],
        };
        let seed = spec.seed.unwrap_or(how.seed);
        let store = Store::Fitted(Vec::new());
        let augment = spec.augment.clone();
        let mut all = Self { store, channels, height, width, axes, preprocess, shades, augment, seed, classes, task };
        all.store = match items.len().checked_mul(first.bytes.len()) {
            Some(bytes) if bytes <= how.hold => Store::Fitted(all.decode(&items)?),
            _ => Store::Stored(items),
        };
        Ok(all)
    }

    /// Bytes of one image.
    fn area(&self) -> usize {
        self.channels * self.height * self.width
    }

    fn decode(&self, items: &[(At, Content)]) -> Result<Vec<u8>> {
        let mut bytes = vec![0; items.len() * self.area()];
        let copy = |(out, (at, content)): (&mut [u8], &(At, Content))| {
            self.open(at, content).map(|picture| out.copy_from_slice(&picture.bytes))
        };
        first_error(bytes.par_chunks_exact_mut(self.area()).zip(items).map(copy))?;
        Ok(bytes)
    }

    /// A picture of the size that all have.
    fn open(&self, at: &At, content: &Content) -> Result<Picture> {
        let picture = fitted(at, content, self.channels, &self.preprocess)?;
        if picture.size() != (self.height, self.width) {
            let (h, w) = picture.size();
            return Err(Error::data(
                at.to_string(),
                format!("wanted an image of {}x{} as the first one is, got {h}x{w}", self.height, self.width),
                "set do_resize and size in the model's preprocessor_config.json, or in the file given as --preprocessor",
            ));
        }
        Ok(picture)
    }

    /// The numbers of one image.
    fn paint(&self, example: usize, epoch: u64, out: &mut [f32]) -> Result<()> {
        let augment = self.augment.as_ref().filter(|_| epoch != EVALUATION);
        let mut picture = match &self.store {
            Store::Fitted(all) => {
                let bytes = &all[example * self.area()..(example + 1) * self.area()];
                if augment.is_none() {
                    self.shade(bytes, out);
                    return Ok(());
                }
                let (channels, height, width) = (self.channels, self.height, self.width);
                Picture { channels, height, width, bytes: bytes.to_vec() }
            }
            Store::Stored(all) => self.open(&all[example].0, &all[example].1)?,
        };
        if let Some(augment) = augment {
            picture = augment.apply(picture, self.seed, epoch, example);
        }
        self.shade(&picture.bytes, out);
        Ok(())
    }

    fn shade(&self, bytes: &[u8], out: &mut [f32]) {
        let plane = self.height * self.width;
        for ((bytes, shades), out) in bytes.chunks_exact(plane).zip(&self.shades).zip(out.chunks_exact_mut(plane)) {
            bytes.iter().zip(out).for_each(|(&byte, out)| *out = shades[usize::from(byte)]);
        }
    }
}

/// The error of the first item that has one, whatever the order they were done in.
fn first_error(all: impl IndexedParallelIterator<Item = Result<()>>) -> Result<()> {
    let errors = all.enumerate().filter_map(|(i, result)| result.err().map(|error| (i, error)));
    errors.min_by_key(|(i, _)| *i).map_or(Ok(()), |(_, error)| Err(error))
}

/// The picture as the network sees it.
fn fitted(at: &At, content: &Content, channels: usize, preprocess: &Preprocess) -> Result<Picture> {
    let picture = match content {
        Content::Pixels(picture) => picture.clone(),
        Content::Encoded(bytes) => decode::decode(bytes, at)?,
        Content::Path(path) => decode::decode(&std::fs::read(path).map_err(Error::io("read", path))?, at)?,
    };
    preprocess.fit(picture.into_channels(channels), at)
}

fn grey(bytes: Vec<u8>, height: usize, width: usize) -> Content {
    Content::Pixels(Picture { channels: 1, height, width, bytes })
}

/// Classes under the model's names; their numbers where there is no model or it has no names.
fn numbered(model: Option<&[String]>, classes: usize) -> Task {
    let numbers = |n: usize| (0..n).map(|i| i.to_string()).collect();
    let labels = match model {
        Some(names) if names != unnamed(names.len()) => names.to_vec(),
        Some(names) => numbers(names.len()),
        None => numbers(classes),
    };
    Task::Classification { labels }
}

impl Dataset for Images {
    fn len(&self) -> usize {
        self.classes.len()
    }

    fn task(&self) -> &Task {
        &self.task
    }

    fn length(&self, _example: usize) -> usize {
        1
    }

    fn batch(&self, examples: &[usize], rows: usize, epoch: u64) -> Result<Batch> {
        let (rows, area) = (rows.max(examples.len()), self.area());
        let mut values = vec![0.0; rows * area];
        // A decoded small image is done sooner than a thread is woken.
        let least = if matches!(self.store, Store::Fitted(_)) { (1 << 16) / area + 1 } else { 1 };
        let images = values.par_chunks_exact_mut(area).zip(examples).with_min_len(least);
        first_error(images.map(|(out, &example)| self.paint(example, epoch, out)))?;
        let mut classes: Vec<i32> = examples.iter().map(|&i| self.classes[i]).collect();
        classes.resize(rows, 0);
        let shape = [&[rows], &self.axes[..]].concat();
        let pixels = Input { name: "pixel_values", shape, values: Values::Real(values) };
        Ok(Batch { examples: examples.to_vec(), rows, inputs: vec![pixels], targets: Targets::Classes(classes) })
    }

    fn changes_with_epoch(&self) -> bool {
        self.augment.is_some()
    }

    fn fingerprint(&self) -> String {
        let mut hash = Fingerprint::new("images");
        hash.task(&self.task);
        hash.numbers([self.channels, self.height, self.width].map(|n| n as u64));
        self.shades.iter().for_each(|shades| hash.reals(shades));
        if let Some(augment) = &self.augment {
            hash.bytes(augment.to_string().as_bytes());
            hash.numbers([self.seed]);
        }
        match &self.store {
            Store::Fitted(bytes) => hash.bytes(bytes),
            Store::Stored(items) => {
                hash.bytes(format!("{:?} {:?}", self.preprocess.resize, self.preprocess.crop).as_bytes());
                let digest = |(_, content): &(At, Content)| match content {
                    Content::Pixels(picture) => Sha256::digest(&picture.bytes),
                    Content::Encoded(bytes) => Sha256::digest(bytes),
                    // A file that cannot be read has no batch either.
                    Content::Path(path) => Sha256::digest(std::fs::read(path).unwrap_or_default()),
                };
                let digests: Vec<_> = items.par_iter().map(digest).collect();
                digests.iter().for_each(|digest| hash.bytes(digest));
            }
        }
        hash.numbers(self.classes.iter().map(|&class| class as u64));
        hash.finish()
    }
}
