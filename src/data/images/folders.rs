//! A folder a class: `DIR/cat/1.png`, or `DIR/train/cat/1.png` where there are splits.
use std::fs;
use std::path::{Path, PathBuf};

use super::{At, Content, Found, Item};
use crate::data::{Spec, files};
use crate::{Error, Result};

const FORMATS: [&str; 3] = ["png", "jpg", "jpeg"];

/// What folders of splits are called; as classes they would be a mistake.
const SPLITS: [&str; 10] =
    ["train", "training", "test", "testing", "dev", "val", "valid", "validation", "eval", "evaluation"];

/// The folder in `parent` of one of these names, small letters or capitals.
fn named(parent: &Path, names: &[String]) -> Result<Option<PathBuf>> {
    let folders = folders(parent)?;
    let of = |wanted: &String| folders.iter().find(|path| name(path).to_lowercase() == *wanted);
    Ok(names.iter().find_map(of).cloned())
}

/// Whether a folder has one of training images, classes of them, so that there may be others held out.
pub fn has_splits(folder: &Path) -> bool {
    named(folder, &["train".into()]).is_ok_and(|found| found.is_some_and(|train| is_split(&train)))
}

/// Whether a folder is called as splits are and holds folders: a class may be called `test` or `train` as well, but
/// then it holds images.
fn is_split(folder: &Path) -> bool {
    let called = SPLITS.contains(&name(folder).to_lowercase().as_str());
    called && folders(folder).is_ok_and(|folders| !folders.is_empty())
}

/// The folder of the split that is wanted; the folder itself where it has no splits.
///
/// # Errors
/// [`Error::Data`] for a split that is asked for, or a folder of splits without the one that is needed.
pub(in crate::data) fn split_folder(spec: &Spec, split_default: &str) -> Result<PathBuf> {
    let wanted = match spec.split.as_deref() {
        Some(split) => vec![split],
        None if split_default == "train" => vec!["train"],
        None => vec!["test", "dev"],
    };
    let names: Vec<String> = wanted.iter().flat_map(|split| files::synonyms(split)).collect();
    if let Some(folder) = named(&spec.path, &names)?.filter(|folder| spec.split.is_some() || is_split(folder)) {
        return Ok(folder);
    }
    let splits: Vec<String> =
        folders(&spec.path)?.iter().filter(|path| is_split(path)).map(|path| name(path)).collect();
    let (found, hint) = match splits.first() {
        None if spec.split.is_none() => return Ok(spec.path.clone()),
        None => ("none".into(), "leave ?split= out, or put folders train and test there".to_string()),
        Some(first) => (splits.join(", "), format!("choose one with ?split={first}, or name its folder itself")),
    };
    let what = format!("wanted a folder for split {}, got {found}", wanted.join(" or "));
    Err(Error::data(spec.path.display().to_string(), what, hint))
}

/// All images below the folders of a folder, in the order of their names; the folders' names are the classes.
///
/// # Errors
/// [`Error::Data`] for a class without images, a folder without classes, or a link that leads back to where it is.
pub(in crate::data) fn read(spec: &Spec, split_default: &str) -> Result<Found> {
    let folder = split_folder(spec, split_default)?;
    let classes = folders(&folder)?;
    let mut found = Found { names: classes.iter().map(|path| name(path)).collect(), ..Found::default() };
    for (class, path) in classes.iter().enumerate() {
        let mut images = Vec::new();
        collect(path, &mut vec![real(&folder)?], &mut images)?;
        if images.is_empty() {
            let what = "wanted PNG or JPEG images of the class, got none";
            return Err(Error::data(path.display().to_string(), what, "remove the folder, or fill it"));
        }
        images.sort();
        found.items.extend(images.into_iter().map(|path| {
            let at = At { file: path.display().to_string().into(), row: None };
            Item { at, content: Content::Path(path), class }
        }));
    }
    if found.items.is_empty() {
        let what = "wanted a folder for each class, got none";
        return Err(Error::data(folder.display().to_string(), what, "lay it out as DIR/CLASS/IMAGE.png"));
    }
    Ok(found)
}

/// All images below `folder`, which lies in the folders `above`, links followed.
fn collect(folder: &Path, above: &mut Vec<PathBuf>, images: &mut Vec<PathBuf>) -> Result<()> {
    let here = real(folder)?;
    if above.contains(&here) {
        let what = format!("is a link to {}, which it lies in", here.display());
        return Err(Error::data(folder.display().to_string(), what, "remove the link"));
    }
    above.push(here);
    for path in entries(folder)? {
        if path.is_dir() {
            collect(&path, above, images)?;
        } else if files::format_of(&path).is_some_and(|format| FORMATS.contains(&format.as_str())) {
            images.push(path);
        }
    }
    above.pop();
    Ok(())
}

/// Where a folder is once links are followed.
fn real(folder: &Path) -> Result<PathBuf> {
    fs::canonicalize(folder).map_err(Error::io("open", folder))
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The folders that a folder holds.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

/// What a folder holds, sorted, without hidden files.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}
