//! CIFAR-10 and CIFAR-100 (Krizhevsky 2009): the official binary files, and Hugging Face's parquet with PNGs.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::picture::Picture;
use super::{At, Content, Found, Item, table};
use crate::data::{Spec, files, split_files};
use crate::{Error, Result};

const SIDE: usize = 32;
const AREA: usize = 3 * SIDE * SIDE;

/// CIFAR-10's classes by number.
pub const TEN: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// CIFAR-100's fine classes by number.
#[rustfmt::skip]
pub const HUNDRED: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];

/// CIFAR-100's coarse classes by number.
pub const TWENTY: [&str; 20] = [
    "aquatic_mammals",
    "fish",
    "flowers",
    "food_containers",
    "fruit_and_vegetables",
    "household_electrical_devices",
    "household_furniture",
    "insects",
    "large_carnivores",
    "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes",
    "large_omnivores_and_herbivores",
    "medium_mammals",
    "non-insect_invertebrates",
    "people",
    "reptiles",
    "small_mammals",
    "trees",
    "vehicles_1",
    "vehicles_2",
];

/// Which of the two sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    Ten,
    Hundred,
}

/// The split of `spec` in whichever form its folder holds.
pub(in crate::data) fn read(spec: &Spec, set: Set, split_default: &str) -> Result<Found> {
    let coarse = match (set, spec.label.as_deref()) {
        (_, None) | (Set::Hundred, Some("fine" | "fine_label")) | (Set::Ten, Some("label")) => false,
        (Set::Hundred, Some("coarse" | "coarse_label")) => true,
        (Set::Hundred, Some(other)) => {
            let what = format!("label wants fine or coarse, got `{other}`");
            return Err(Error::usage(spec.place(), what, "correct it"));
        }
        (Set::Ten, Some(_)) => {
            return Err(Error::usage(spec.place(), "cifar10 has one kind of label", "leave ?label= out"));
        }
    };
    let names: Vec<String> = match (set, coarse) {
        (Set::Ten, _) => TEN.map(String::from).to_vec(),
        (Set::Hundred, false) => HUNDRED.map(String::from).to_vec(),
        (Set::Hundred, true) => TWENTY.map(String::from).to_vec(),
    };
    let split = spec.split.as_deref().unwrap_or(split_default);
    let binaries = binaries(&spec.path, set, split);
    if binaries.is_empty() {
        let columns = table::Columns {
            image: spec.image.as_deref(),
            labels: match (set, coarse) {
                (Set::Ten, _) => &["label"],
                (Set::Hundred, false) => &["fine_label"],
                (Set::Hundred, true) => &["coarse_label"],
            },
            task: spec.of_task,
        };
        let files = split_files(spec, split_default, &["parquet"]).map_err(|error| wanted(spec, set, split, error))?;
        return table::read(&files, &columns, Some(&names), &spec.place());
    }
    if spec.of_task.is_some() {
        let hint = "choose the task's classes with ?classes=0-9";
        return Err(Error::usage(spec.place(), "the binary files have no tasks", hint));
    }
    // CIFAR-100 has a coarse label before the fine one.
    let (labels, label) = match set {
        Set::Ten => (1, 0),
        Set::Hundred => (2, usize::from(!coarse)),
    };
    let shards = if (set, split) == (Set::Ten, "train") { 5 } else { 1 };
    if binaries.len() < shards {
        let what = format!("wanted data_batch_1.bin to data_batch_5.bin, got {} of the {shards} files", binaries.len());
        return Err(Error::data(spec.path.display().to_string(), what, "fetch the missing ones"));
    }
    let mut items = Vec::new();
    for path in binaries {
        let bytes = files::read(&path)?;
        let file: Arc<str> = path.display().to_string().into();
        let size = labels + AREA;
        if bytes.is_empty() || bytes.len() % size != 0 {
            let what = format!("wanted images of {size} bytes each, got {} bytes in all", bytes.len());
            return Err(Error::data(&*file, what, "fetch the file again; it is the binary version that is read"));
        }
        for (i, image) in bytes.chunks_exact(size).enumerate() {
            let (at, class) = (At { file: file.clone(), row: Some(i + 1) }, usize::from(image[label]));
            if class >= names.len() {
                let what = format!("label {class} is not one of 0..={}", names.len() - 1);
                return Err(Error::data(at.to_string(), what, "fetch the file again, and check which CIFAR it is"));
            }
            let picture = Picture { channels: 3, height: SIDE, width: SIDE, bytes: image[labels..].to_vec() };
            items.push(Item { at, content: Content::Pixels(picture), class });
        }
    }
    Ok(Found { items, names })
}

/// The official binary files of a split, in order; none where they are not there.
fn binaries(folder: &Path, set: Set, split: &str) -> Vec<PathBuf> {
    let (inner, names): (_, Vec<String>) = match (set, split) {
        (Set::Ten, "train") => ("cifar-10-batches-bin", (1..=5).map(|i| format!("data_batch_{i}.bin")).collect()),
        (Set::Ten, "test") => ("cifar-10-batches-bin", vec!["test_batch.bin".into()]),
        (Set::Hundred, "train" | "test") => ("cifar-100-binary", vec![format!("{split}.bin")]),
        _ => return Vec::new(),
    };
    let find = |folder: &Path| -> Vec<PathBuf> {
        let file = |name: &String| {
            [name.clone(), format!("{name}.gz")].into_iter().map(|name| folder.join(name)).find(|path| path.is_file())
        };
        names.iter().filter_map(file).collect()
    };
    let here = find(folder);
    if here.is_empty() { find(&folder.join(inner)) } else { here }
}

/// What could have been there, beside what the search for a table says.
fn wanted(spec: &Spec, set: Set, split: &str, error: Error) -> Error {
    let Error::Data { what, .. } = error else { return error };
    let (train, test) = match set {
        Set::Ten => ("data_batch_1.bin to data_batch_5.bin", "test_batch.bin"),
        Set::Hundred => ("train.bin", "test.bin"),
    };
    let binary = if split == "train" { train } else { test };
    let hint = format!("the folder may also hold the binary version's {binary}; ?split= chooses train or test");
    Error::data(spec.path.display().to_string(), what, hint)
}
