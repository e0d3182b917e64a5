//! Images with a class each, kept as bytes and scaled as a batch is made: the `mnist:` and `digits:` kinds.
use std::path::Path;

use serde_json::{Map, Value};

use super::labels::unnamed;
use super::spec::Spec;
use super::{Batch, Dataset, Fingerprint, Input, Reading, Targets, Task, Values, digits, files, idx, subset};
use crate::{Error, Result};

/// How bytes become numbers: `(byte * rescale - mean) / std` for each channel, as `preprocessor_config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    pub rescale: f32,
    /// One a channel, or empty: no normalisation.
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
    /// The (height, width) images are to be resized to, if any.
    pub size: Option<(usize, usize)>,
}

impl Default for Preprocess {
    fn default() -> Self {
        Self { rescale: 1.0 / 255.0, mean: Vec::new(), std: Vec::new(), size: None }
    }
}

impl Preprocess {
    /// Reads `preprocessor_config.json` of a model folder; the default where there is none.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("preprocessor_config.json");
        if !path.is_file() {
            return Ok(Self::default());
        }
        let place = path.display().to_string();
        let map = serde_json::from_str(&files::read_text(&path)?).map_err(|cause| {
            Error::model(place.clone(), format!("wanted a JSON object: {cause}"), "correct the file")
        })?;
        Self::from_map(&map, &place)
    }

    /// From the keys `do_rescale rescale_factor do_normalize image_mean image_std do_resize size`.
    ///
    /// # Errors
    /// [`Error::Model`] for a value of the wrong type, a zero or non-finite one, or means and deviations that do not pair.
    pub fn from_map(map: &Map<String, Value>, place: &str) -> Result<Self> {
        let wrong = |key: &str, wanted: &str| {
            let got = map.get(key).map_or("nothing".to_string(), Value::to_string);
            Error::model(place, format!("`{key}` wants {wanted}, got {got}"), "correct the file")
        };
        let flag = |key: &str, default: bool| match map.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| wrong(key, "true or false")),
        };
        let finite = |value: &Value| value.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
        let numbers = |key: &str| match map.get(key) {
            Some(Value::Array(all)) if !all.is_empty() => {
                all.iter().map(finite).collect::<Option<Vec<f32>>>().ok_or_else(|| wrong(key, "finite numbers"))
            }
            _ => Err(wrong(key, "a list of numbers, one a channel")),
        };
        let rescale = match map.get("rescale_factor") {
            _ if !flag("do_rescale", true)? => 1.0,
            None => 1.0 / 255.0,
            Some(value) => {
                finite(value).filter(|&x| x > 0.0).ok_or_else(|| wrong("rescale_factor", "a number above 0"))?
            }
        };
        let (mut mean, mut std) = (Vec::new(), Vec::new());
        if flag("do_normalize", map.contains_key("image_mean"))? {
            (mean, std) = (numbers("image_mean")?, numbers("image_std")?);
            if mean.len() != std.len() || std.iter().any(|&s| s <= 0.0) {
                return Err(wrong("image_std", "as many numbers above 0 as image_mean has"));
            }
        }
        let size = match (flag("do_resize", false)?, map.get("size")) {
            (false, _) => None,
            (true, Some(size)) => Some(dimensions(size).ok_or_else(|| wrong("size", "a height and a width"))?),
            (true, None) => return Err(wrong("size", "a height and a width")),
        };
        Ok(Self { rescale, mean, std, size })
    }

    /// The number each of the 256 bytes becomes, a row a channel.
    fn shades(&self, channels: usize, height: usize, width: usize, place: &str) -> Result<Vec<[f32; 256]>> {
        if let Some((h, w)) = self.size.filter(|&size| size != (height, width)) {
            return Err(Error::unsupported(
                place,
                format!("resizing images of {height}x{width} to the model's {h}x{w}"),
                "use a model made for this size of image",
            ));
        }
        if !self.mean.is_empty() && self.mean.len() != channels {
            return Err(Error::data(
                place,
                format!(
                    "the images have {channels} channels, the model's preprocessor_config.json {}",
                    self.mean.len()
                ),
                "use a model made for such images",
            ));
        }
        let shade = |channel: usize, byte: usize| {
            let value = byte as f32 * self.rescale;
            match (self.mean.get(channel), self.std.get(channel)) {
                (Some(mean), Some(std)) => (value - mean) / std,
                _ => value,
            }
        };
        Ok((0..channels).map(|channel| std::array::from_fn(|byte| shade(channel, byte))).collect())
    }
}

/// `{"height": h, "width": w}` or a number for both.
fn dimensions(size: &Value) -> Option<(usize, usize)> {
    let whole = |value: &Value| value.as_u64().map(|n| n as usize);
    match size {
        Value::Object(map) => Some((whole(map.get("height")?)?, whole(map.get("width")?)?)),
        side => whole(side).map(|side| (side, side)),
    }
}

/// Grey images of one size, all in memory.
pub struct Images {
    pixels: Vec<u8>,
    /// Pixels of one image.
    area: usize,
    classes: Vec<i32>,
    shades: Vec<[f32; 256]>,
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
        let task = task(how.labels.as_deref(), present.max(digits::CLASSES));
        if let Task::Classification { labels: names } = &task {
            let outside = |&label: &u8| usize::from(label) >= names.len();
            if let Some(item) = labels.bytes.iter().position(outside) {
                return Err(Error::data(
                    format!("{label_file}: item {item}"),
                    format!("label {} is not one of 0..={}", labels.bytes[item], names.len() - 1),
                    "use a model with that many outputs",
                ));
            }
        }
        let mut all = Self {
            area: height * width,
            shades: how.preprocess.shades(1, height, width, &file)?,
            classes: labels.bytes.iter().map(|&label| i32::from(label)).collect(),
            pixels: images.bytes.to_vec(),
            task,
        };
        all.limit(spec.limit, spec.seed);
        Ok(all)
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
            return Err(Error::data(spec.place(), what, "use a model with ten outputs"));
        }
        let count = count.min(spec.limit.unwrap_or(count));
        let bytes = count.checked_mul(digits::AREA).filter(|&bytes| bytes <= isize::MAX as usize >> 8);
        let Some(bytes) = bytes else {
            let what = format!("{count} images do not fit in memory");
            return Err(Error::usage(spec.place(), what, "draw fewer digits"));
        };
        let mut pixels = vec![0; bytes];
        digits::draw_all(spec.seed.unwrap_or(0), split, &mut pixels);
        Ok(Self {
            area: digits::AREA,
            shades: how.preprocess.shades(1, digits::SIDE, digits::SIDE, &spec.place())?,
            classes: (0..count).map(|i| digits::class(i) as i32).collect(),
            pixels,
            task: task(how.labels.as_deref(), digits::CLASSES),
        })
    }

    fn limit(&mut self, limit: Option<usize>, seed: Option<u64>) {
        if let Some(kept) = subset(self.classes.len(), limit, seed) {
            self.pixels = kept.iter().flat_map(|&i| self.image(i)).copied().collect();
            self.classes = kept.iter().map(|&i| self.classes[i]).collect();
        }
    }

    /// The bytes of image `i`, row by row.
    pub fn image(&self, i: usize) -> &[u8] {
        &self.pixels[i * self.area..(i + 1) * self.area]
    }
}

/// Classes under the model's names; their numbers where there is no model or it has no names.
fn task(model: Option<&[String]>, classes: usize) -> Task {
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

    fn batch(&self, examples: &[usize], rows: usize, _epoch: u64) -> Batch {
        let rows = rows.max(examples.len());
        let channel = self.area / self.shades.len();
        let mut values = Vec::with_capacity(rows * self.area);
        for &example in examples {
            for (bytes, shades) in self.image(example).chunks_exact(channel).zip(&self.shades) {
                values.extend(bytes.iter().map(|&byte| shades[usize::from(byte)]));
            }
        }
        values.resize(rows * self.area, 0.0);
        let mut classes: Vec<i32> = examples.iter().map(|&i| self.classes[i]).collect();
        classes.resize(rows, 0);
        let pixels = Input { name: "pixel_values", shape: vec![rows, self.area], values: Values::Real(values) };
        Batch { examples: examples.to_vec(), rows, inputs: vec![pixels], targets: Targets::Classes(classes) }
    }

    fn fingerprint(&self) -> String {
        let mut hash = Fingerprint::new("images");
        hash.task(&self.task);
        hash.numbers([self.area as u64]);
        self.shades.iter().for_each(|shades| hash.reals(shades));
        hash.bytes(&self.pixels);
        hash.numbers(self.classes.iter().map(|&class| class as u64));
        hash.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Preprocess> {
        Preprocess::from_map(&serde_json::from_str(json).unwrap(), "p.json")
    }

    #[test]
    fn a_preprocessor_config_is_read_with_its_defaults() {
        assert_eq!(read("{}").unwrap(), Preprocess::default());
        assert_eq!(read(r#"{"do_rescale": false}"#).unwrap().rescale, 1.0);
        let mnist = read(r#"{"rescale_factor": 0.5, "image_mean": [0.25], "image_std": [2]}"#).unwrap();
        assert_eq!(mnist, Preprocess { rescale: 0.5, mean: vec![0.25], std: vec![2.0], size: None });
        // (3 * 0.5 - 0.25) / 2
        assert_eq!(mnist.shades(1, 28, 28, "f").unwrap()[0][3], 0.625);
        assert_eq!(read(r#"{"do_normalize": false, "image_mean": [1]}"#).unwrap().mean, Vec::<f32>::new());
        let sized = read(r#"{"do_resize": true, "size": {"height": 32, "width": 24}}"#).unwrap();
        assert_eq!(sized.size, Some((32, 24)));
        assert!(matches!(sized.shades(1, 28, 28, "f"), Err(Error::Unsupported { .. })));
        assert!(sized.shades(1, 32, 24, "f").is_ok());
    }

    #[test]
    fn a_wrong_preprocessor_config_names_the_key() {
        for (json, key) in [
            (r#"{"rescale_factor": 0}"#, "rescale_factor"),
            (r#"{"do_rescale": 1}"#, "do_rescale"),
            (r#"{"do_normalize": true}"#, "image_mean"),
            (r#"{"image_mean": [0.5, 1e99], "image_std": [1, 1]}"#, "image_mean"),
            (r#"{"image_mean": [0.5], "image_std": [0]}"#, "image_std"),
            (r#"{"image_mean": [0.5], "image_std": [1, 1]}"#, "image_std"),
            (r#"{"do_resize": true}"#, "size"),
            (r#"{"do_resize": true, "size": "big"}"#, "size"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(&format!("p.json: `{key}` wants")), "{json}: {error}");
        }
        let three = Preprocess { mean: vec![0.5; 3], std: vec![0.5; 3], ..Preprocess::default() };
        assert!(three.shades(1, 28, 28, "f").unwrap_err().to_string().contains("1 channels"));
    }
}
