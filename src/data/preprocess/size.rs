//! A model's `preprocessor_config.json` for images of another size than the model was made for.
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{FILE, Filter, MOST_SIDE, Preprocess, Size, Target, convnext, read_map};
use crate::Result;

impl Preprocess {
    /// The `preprocessor_config.json` of a model's folder with other sizes, so that the network sees images of `size`: the
    /// share that a cut leaves of what was resized stays. Where nothing was resized, or the folder has no such file,
    /// images are resized to `size`.
    ///
    /// # Errors
    /// As [`Preprocess::read`].
    pub fn map_at(folder: &Path, size: Size) -> Result<Map<String, Value>> {
        let path = folder.join(FILE);
        let map = if path.is_file() { read_map(&path)? } else { Self::default().to_map() };
        at_size(map, size, &path.display().to_string())
    }

    /// This for images of `size`.
    fn at_size(&self, size: Size) -> Self {
        // A side before the cut, in proportion.
        let scaled = |before: usize, by: f64| ((before as f64 * by).round() as usize).clamp(1, MOST_SIDE as usize);
        let share = |cut: Size| (size.0 as f64 / cut.0.max(1) as f64, size.1 as f64 / cut.1.max(1) as f64);
        let resize = match (self.resize, self.crop) {
            (None, Some(_)) => None,
            (None, None) => Some((Target::Exact(size), Filter::Bilinear)),
            (Some((_, filter)), None) => Some((Target::Exact(size), filter)),
            (Some((Target::Exact((height, width)), filter)), Some(cut)) => {
                Some((Target::Exact((scaled(height, share(cut).0), scaled(width, share(cut).1))), filter))
            }
            (Some((Target::Shortest(side), filter)), Some(cut)) => {
                Some((Target::Shortest(scaled(side, share(cut).0.max(share(cut).1))), filter))
            }
        };
        Self { resize, crop: self.crop.map(|_| size), ..self.clone() }
    }
}

fn at_size(mut map: Map<String, Value>, size: Size, place: &str) -> Result<Map<String, Value>> {
    let now = Preprocess::from_map(&map, place)?;
    if convnext(&map) && now.resize.is_some() && size.0 == size.1 {
        // Its processor is told the size after the cut.
        map.insert("size".into(), json!({ "shortest_edge": size.0 }));
        return Ok(map);
    }
    let next = now.at_size(size);
    let kind = |p: &Preprocess| p.resize.map(|(target, _)| std::mem::discriminant(&target));
    let other = convnext(&map) || kind(&now) != kind(&next);
    if other {
        // Another class of processor does this.
        ["crop_pct", "feature_extractor_type"].iter().for_each(|key| drop(map.shift_remove(*key)));
    }
    let sizes = ["do_resize", "size", "resample", "do_center_crop", "crop_size"];
    let changed = next.to_map().into_iter();
    map.extend(changed.filter(|(key, _)| sizes.contains(&key.as_str()) || other && key == "image_processor_type"));
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, size: Size) -> (Map<String, Value>, Preprocess) {
        let map = at_size(serde_json::from_str(json).unwrap(), size, "p.json").unwrap();
        let preprocess = Preprocess::from_map(&map, "p.json").unwrap();
        (map, preprocess)
    }

    #[test]
    fn the_network_sees_the_size_that_is_asked_for() {
        let vit = r#"{"do_resize": true, "size": {"height": 224, "width": 224}, "resample": 3, "mine": 1}"#;
        let (map, vit) = read(vit, (32, 48));
        assert_eq!((vit.resize, vit.crop), (Some((Target::Exact((32, 48)), Filter::Bicubic)), None));
        assert_eq!(map["mine"], 1);
        let deit = r#"{"size": 256, "resample": 3, "crop_size": {"height": 224, "width": 224}}"#;
        let (_, deit) = read(deit, (112, 112));
        assert_eq!((deit.resize.unwrap().0, deit.crop), (Target::Exact((128, 128)), Some((112, 112))));
        // The same size again changes nothing.
        assert_eq!(deit.at_size((112, 112)), deit);
        let convnext =
            r#"{"size": {"shortest_edge": 224}, "crop_pct": 0.875, "image_processor_type": "ConvNextImageProcessor"}"#;
        let (map, square) = read(convnext, (112, 112));
        assert_eq!((square.resize.unwrap().0, square.crop), (Target::Shortest(128), Some((112, 112))));
        assert_eq!(map["image_processor_type"], "ConvNextImageProcessor");
        let (map, wide) = read(convnext, (112, 224));
        assert_eq!((wide.resize.unwrap().0, wide.crop), (Target::Shortest(256), Some((112, 224))));
        assert_eq!((&map["image_processor_type"], map.get("crop_pct")), (&json!("BitImageProcessor"), None));
        for nothing in ["{}", r#"{"do_resize": false, "size": 224}"#, r#"{"size": {"shortest_edge": 9}}"#] {
            let (_, resized) = read(nothing, (16, 20));
            assert_eq!((resized.resize.unwrap().0, resized.crop), (Target::Exact((16, 20)), None), "{nothing}");
        }
        let (_, cut) = read(r#"{"crop_size": 9}"#, (16, 20));
        assert_eq!((cut.resize, cut.crop), (None, Some((16, 20))));
    }

    #[test]
    fn a_folder_without_a_file_has_its_images_resized() {
        let folder = tempfile::tempdir().unwrap();
        let map = Preprocess::map_at(folder.path(), (8, 8)).unwrap();
        assert_eq!(Preprocess::from_map(&map, "f").unwrap().resize.unwrap().0, Target::Exact((8, 8)));
        std::fs::write(folder.path().join(FILE), "[1]").unwrap();
        assert!(Preprocess::map_at(folder.path(), (8, 8)).unwrap_err().to_string().contains("a JSON object"));
    }
}
