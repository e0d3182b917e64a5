//! `preprocessor_config.json`: how a picture becomes the numbers a network takes, as `transformers` does it.
use std::fmt::Display;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::files;
use super::images::decode::MOST_PIXELS;
use super::images::picture::Picture;
use super::images::resize::{Filter, resize};
use crate::{Error, Result};

mod size;

/// What the file is called in a model's folder.
pub const FILE: &str = "preprocessor_config.json";

/// (height, width) in pixels.
pub type Size = (usize, usize);

/// What `do_resize` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Exact(Size),
    /// The shorter side; the longer one in proportion, rounded down.
    Shortest(usize),
}

/// Resize, crop to the middle, then `(byte * rescale - mean) / std` for each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    pub resize: Option<(Target, Filter)>,
    pub crop: Option<Size>,
    pub rescale: f32,
    /// One a channel, or empty: no normalisation.
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
}

impl Default for Preprocess {
    fn default() -> Self {
        Self { resize: None, crop: None, rescale: 1.0 / 255.0, mean: Vec::new(), std: Vec::new() }
    }
}

impl Preprocess {
    /// Reads `preprocessor_config.json` of a model folder; the default where there is none.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        if path.is_file() { Self::read(&path) } else { Ok(Self::default()) }
    }

    /// Reads a file of any name.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Model`] as [`Preprocess::from_map`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_map(&read_map(path)?, &path.display().to_string())
    }

    /// From the keys `do_resize size resample crop_pct do_center_crop crop_size do_rescale rescale_factor do_normalize
    /// image_mean image_std`; a step whose `do_` key is left out is taken if its other keys are there. Pictures are
    /// always converted to the channels wanted, whatever `do_convert_rgb` says.
    ///
    /// # Errors
    /// [`Error::Model`] for a value of the wrong type, a zero or non-finite one, or means and deviations that do not pair.
    pub fn from_map(map: &Map<String, Value>, place: &str) -> Result<Self> {
        let wrong = |key: &str, wanted: &str| {
            let got = map.get(key).map_or("nothing".to_string(), Value::to_string);
            Error::model(place, format!("`{key}` wants {wanted}, got {got}"), "correct the file")
        };
        let given = |key: &str| map.get(key).filter(|value| !value.is_null());
        let flag = |key: &str, default: bool| match given(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| wrong(key, "true or false")),
        };
        let finite = |value: &Value| value.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
        let numbers = |key: &str| match given(key) {
            Some(Value::Array(all)) if !all.is_empty() => {
                all.iter().map(finite).collect::<Option<Vec<f32>>>().ok_or_else(|| wrong(key, "finite numbers"))
            }
            _ => Err(wrong(key, "a list of numbers, one a channel")),
        };
        let rescale = match given("rescale_factor") {
            _ if !flag("do_rescale", true)? => 1.0,
            None => 1.0 / 255.0,
            Some(value) => {
                finite(value).filter(|&x| x > 0.0).ok_or_else(|| wrong("rescale_factor", "a number above 0"))?
            }
        };
        let (mut mean, mut std) = (Vec::new(), Vec::new());
        if flag("do_normalize", given("image_mean").is_some())? {
            (mean, std) = (numbers("image_mean")?, numbers("image_std")?);
            if mean.len() != std.len() || std.iter().any(|&s| s <= 0.0) {
                return Err(wrong("image_std", "as many numbers above 0 as image_mean has"));
            }
        }
        let (mut resize, mut crop) = (None, None);
        if flag("do_center_crop", given("crop_size").is_some())? {
            let size = given("crop_size").and_then(target);
            crop = Some(match size.ok_or_else(|| wrong("crop_size", "a height and a width"))? {
                Target::Exact(size) => size,
                Target::Shortest(side) => (side, side),
            });
        }
        if flag("do_resize", given("size").is_some())? {
            let convnext = convnext(map);
            let size = match given("size") {
                Some(side @ Value::Number(_)) if convnext => whole(side).map(Target::Shortest),
                size => size.and_then(target),
            };
            let size = size.ok_or_else(|| wrong("size", "a height and a width, or shortest_edge"))?;
            let filter = match given("resample") {
                None => Filter::Bilinear,
                Some(value) => value
                    .as_u64()
                    .and_then(Filter::numbered)
                    .ok_or_else(|| wrong("resample", "a filter from 0 to 5"))?,
            };
            resize = Some((size, filter));
            if let (Target::Shortest(side), true) = (size, convnext) {
                let share = match given("crop_pct") {
                    None => CONVNEXT_SHARE,
                    Some(value) => value
                        .as_f64()
                        .filter(|share| (0.1..=1.0).contains(share))
                        .ok_or_else(|| wrong("crop_pct", "a share from 0.1 to 1"))?,
                };
                // Large pictures are squeezed to the square, small ones keep their proportions and lose their edges.
                let target = match side {
                    384.. => Target::Exact((side, side)),
                    _ => Target::Shortest((side as f64 / share) as usize),
                };
                (resize, crop) = (Some((target, filter)), Some((side, side)));
            }
        }
        Ok(Self { resize, crop, rescale, mean, std })
    }

    /// As `preprocessor_config.json` says it; reading that gives the same again.
    pub fn to_map(&self) -> Map<String, Value> {
        let real = |x: &f32| Value::from(x.to_string().parse::<f64>().unwrap_or_default());
        let sides = |(height, width): Size| json!({ "height": height, "width": width });
        let mut map = Map::new();
        let mut set = |key: &str, value: Value| drop(map.insert(key.into(), value));
        set("image_processor_type", self.processor().into());
        set("do_resize", self.resize.is_some().into());
        if let Some((target, filter)) = self.resize {
            set(
                "size",
                match target {
                    Target::Exact(size) => sides(size),
                    Target::Shortest(side) => json!({ "shortest_edge": side }),
                },
            );
            set("resample", (filter as u64).into());
        }
        set("do_center_crop", self.crop.is_some().into());
        if let Some(size) = self.crop {
            set("crop_size", sides(size));
        }
        set("do_rescale", true.into());
        set("rescale_factor", if self.rescale == 1.0 / 255.0 { (1.0 / 255.0_f64).into() } else { real(&self.rescale) });
        set("do_normalize", (!self.mean.is_empty()).into());
        if !self.mean.is_empty() {
            set("image_mean", self.mean.iter().map(real).collect());
            set("image_std", self.std.iter().map(real).collect());
        }
        map
    }

    /// A class of `transformers` that does what this does: ViT's resizes to a height and a width, DeiT's cuts out the
    /// middle as well, BiT's resizes by the shorter side.
    fn processor(&self) -> &'static str {
        match (self.resize, self.crop) {
            (Some((Target::Shortest(_), _)), _) => "BitImageProcessor",
            (_, Some(_)) => "DeiTImageProcessor",
            (_, None) => "ViTImageProcessor",
        }
    }

    /// The picture in the size the network sees.
    ///
    /// # Errors
    /// [`Error::Data`] for one so long and thin that its shorter side cannot be made longer.
    pub fn fit(&self, picture: Picture, place: &dyn Display) -> Result<Picture> {
        let resized = match self.resize {
            None => picture,
            Some((target, filter)) => {
                let (height, width) = target.of(picture.size());
                if height.saturating_mul(width) > MOST_PIXELS {
                    let what = format!("resized to {height}x{width} the image would have too many pixels");
                    return Err(Error::data(place.to_string(), what, "leave it out, or cut it first"));
                }
                resize(picture, (height, width), filter)
            }
        };
        Ok(match self.crop {
            None => resized,
            Some(size) => resized.centre(size),
        })
    }

    /// The number each of the 256 bytes becomes, a row a channel.
    pub(super) fn shades(&self, channels: usize, place: &str) -> Result<Vec<[f32; 256]>> {
        if !self.mean.is_empty() && self.mean.len() != channels {
            return Err(Error::data(
                place,
                format!(
                    "wanted a mean and a deviation for each of the images' {channels} channel{}, got image_mean and image_std of {}",
                    if channels == 1 { "" } else { "s" },
                    self.mean.len()
                ),
                "use a model made for such images, or a file with a number a channel, as `fipk data --json` makes it",
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

fn read_map(path: &Path) -> Result<Map<String, Value>> {
    serde_json::from_str(&files::read_text(path)?).map_err(|cause| {
        Error::model(path.display().to_string(), format!("wanted a JSON object: {cause}"), "correct the file")
    })
}

/// What ConvNeXT and ResNet processors take where the file names no `crop_pct`: 224 / 256.
const CONVNEXT_SHARE: f64 = 0.875;

/// Most pixels of a side that a file may ask for.
const MOST_SIDE: u64 = 1 << 14;

impl Target {
    fn of(self, (height, width): Size) -> Size {
        match self {
            Self::Exact(size) => size,
            Self::Shortest(side) => {
                let (short, long) = (height.min(width), height.max(width));
                // In integers what `transformers` computes as int(side * long / short).
                let other = (side * long / short.max(1)).max(1);
                if height <= width { (side, other) } else { (other, side) }
            }
        }
    }
}

/// Whether a file is for ConvNeXT's processor, which ResNets have as well: a size is that of the shorter side before the
/// cut, `crop_pct` how much of it the cut leaves.
fn convnext(map: &Map<String, Value>) -> bool {
    let kind = |key: &str| map.get(key).and_then(Value::as_str).is_some_and(|kind| kind.contains("ConvNext"));
    kind("image_processor_type") || kind("feature_extractor_type") || map.get("crop_pct").is_some_and(|v| !v.is_null())
}

/// Pixels of a side.
fn whole(value: &Value) -> Option<usize> {
    value.as_u64().filter(|n| (1..=MOST_SIDE).contains(n)).map(|n| n as usize)
}

/// `{"height": h, "width": w}`, `{"shortest_edge": s}`, or a number for both sides. A null is no key.
fn target(size: &Value) -> Option<Target> {
    match size {
        Value::Object(map) => match map.get("shortest_edge").filter(|side| !side.is_null()) {
            Some(side) => whole(side).map(Target::Shortest),
            None => Some(Target::Exact((whole(map.get("height")?)?, whole(map.get("width")?)?))),
        },
        Value::Array(sides) => match &sides[..] {
            [height, width] => Some(Target::Exact((whole(height)?, whole(width)?))),
            _ => None,
        },
        side => whole(side).map(|side| Target::Exact((side, side))),
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
        assert_eq!(mnist, Preprocess { rescale: 0.5, mean: vec![0.25], std: vec![2.0], ..Preprocess::default() });
        // (3 * 0.5 - 0.25) / 2
        assert_eq!(mnist.shades(1, "f").unwrap()[0][3], 0.625);
        assert_eq!(read(r#"{"do_normalize": false, "image_mean": [1]}"#).unwrap().mean, Vec::<f32>::new());
        let sized = read(r#"{"do_resize": true, "size": {"height": 32, "width": 24}, "resample": 3}"#).unwrap();
        assert_eq!(sized.resize, Some((Target::Exact((32, 24)), Filter::Bicubic)));
        assert_eq!(read(r#"{"do_resize": false, "size": 224}"#).unwrap().resize, None);
    }

    #[test]
    fn processors_resize_and_crop_as_transformers_does() {
        let vit = read(r#"{"do_resize": true, "size": 224, "resample": 2, "do_normalize": false}"#).unwrap();
        assert_eq!((vit.resize, vit.crop), (Some((Target::Exact((224, 224)), Filter::Bilinear)), None));
        let deit =
            r#"{"size": {"height": 256, "width": 256}, "resample": 3, "crop_size": {"height": 224, "width": 224}}"#;
        let deit = read(deit).unwrap();
        assert_eq!((deit.resize, deit.crop), (Some((Target::Exact((256, 256)), Filter::Bicubic)), Some((224, 224))));
        let resnet = read(r#"{"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}"#).unwrap();
        assert_eq!((resnet.resize, resnet.crop), (Some((Target::Shortest(256), Filter::Bicubic)), Some((224, 224))));
        let large =
            read(r#"{"size": {"shortest_edge": 384}, "image_processor_type": "ConvNextImageProcessor"}"#).unwrap();
        assert_eq!((large.resize.unwrap().0, large.crop), (Target::Exact((384, 384)), Some((384, 384))));
        for preprocess in [vit, deit, resnet, large, Preprocess::default()] {
            assert_eq!(Preprocess::from_map(&preprocess.to_map(), "f").unwrap(), preprocess);
        }
        // An older file of a ResNet: the number is that of the shorter side.
        let bare =
            r#"{"size": 224, "crop_pct": 0.875, "resample": 3, "feature_extractor_type": "ConvNextFeatureExtractor"}"#;
        let bare = read(bare).unwrap();
        assert_eq!((bare.resize, bare.crop), (Some((Target::Shortest(256), Filter::Bicubic)), Some((224, 224))));
        let bare = read(r#"{"size": 64, "image_processor_type": "ConvNextImageProcessor"}"#).unwrap();
        assert_eq!((bare.resize.unwrap().0, bare.crop), (Target::Shortest(73), Some((64, 64))));
        let clip = read(r#"{"size": {"shortest_edge": 4}, "do_center_crop": true, "crop_size": 4}"#).unwrap();
        let wide = Picture { channels: 1, height: 8, width: 21, bytes: vec![9; 168] };
        assert_eq!(clip.resize.unwrap().0.of(wide.size()), (4, 10));
        let thin = Picture { channels: 1, height: 1, width: 1 << 26, bytes: vec![0; 1 << 26] };
        assert!(clip.fit(thin, &"f").unwrap_err().to_string().contains("too many pixels"));
        assert_eq!(clip.fit(wide, &"f").unwrap(), Picture { channels: 1, height: 4, width: 4, bytes: vec![9; 16] });
    }

    #[test]
    fn a_null_is_a_key_that_is_not_there() {
        let keys = ["do_resize", "size", "resample", "crop_pct", "do_center_crop", "crop_size", "do_rescale"];
        let more = ["rescale_factor", "do_normalize", "image_mean", "image_std", "image_processor_type"];
        let nulls: Map<String, Value> = keys.iter().chain(&more).map(|key| (key.to_string(), Value::Null)).collect();
        assert_eq!(Preprocess::from_map(&nulls, "f").unwrap(), Preprocess::default());
        let sides = r#"{"size": {"height": 8, "width": 9, "shortest_edge": null, "longest_edge": null}}"#;
        assert_eq!(read(sides).unwrap().resize.unwrap().0, Target::Exact((8, 9)));
        let error = read(r#"{"do_normalize": true, "image_mean": null}"#).unwrap_err().to_string();
        assert!(error.contains("`image_mean` wants a list of numbers, one a channel, got null"), "{error}");
    }

    #[test]
    fn what_is_written_names_a_processor_that_does_the_same() {
        let kind = |json: &str| read(json).unwrap().to_map()["image_processor_type"].clone();
        assert_eq!(kind("{}"), "ViTImageProcessor");
        assert_eq!(kind(r#"{"size": 9}"#), "ViTImageProcessor");
        assert_eq!(kind(r#"{"size": 9, "crop_size": 8}"#), "DeiTImageProcessor");
        // ConvNeXT's would take the 256 that were resized to for the 224 that are left.
        assert_eq!(kind(r#"{"size": {"shortest_edge": 224}, "crop_pct": 0.875}"#), "BitImageProcessor");
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
            (r#"{"size": {"shortest_edge": 0}}"#, "size"),
            (r#"{"size": 9, "resample": 6}"#, "resample"),
            (r#"{"do_center_crop": true}"#, "crop_size"),
            (r#"{"size": {"shortest_edge": 9}, "crop_pct": 0}"#, "crop_pct"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(&format!("p.json: `{key}` wants")), "{json}: {error}");
        }
        let three = Preprocess { mean: vec![0.5; 3], std: vec![0.5; 3], ..Preprocess::default() };
        assert!(
            three
                .shades(1, "f")
                .unwrap_err()
                .to_string()
                .contains("the images' 1 channel, got image_mean and image_std of 3")
        );
    }
}
