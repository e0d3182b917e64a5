//! A folder a class: `DIR/cat/1.png`, or `DIR/train/cat/1.png` where there are splits.
use std::fs;
use std::path::{Path, PathBuf};

use super::{At, Content, Found, Item};
use crate::data::{Spec, files};
use crate::{Error, Result};

const FORMATS: [&str; 3] = ["png", "jpg", "jpeg"];

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
    let found = wanted.iter().flat_map(|split| files::synonyms(split)).map(|name| spec.path.join(name));
    if let Some(folder) = found.into_iter().find(|path| path.is_dir()) {
        return Ok(folder);
    }
    if spec.split.is_none() && !spec.path.join("train").is_dir() {
        return Ok(spec.path.clone());
    }
    Err(Error::data(
        spec.path.display().to_string(),
        format!("wanted a folder for split {}", wanted.join(" or ")),
        "name the folder of one split, or put folders train and test in it",
    ))
}

/// All images below the folders of a folder, in the order of their names; the folders' names are the classes.
pub(in crate::data) fn read(spec: &Spec, split_default: &str) -> Result<Found> {
    let folder = split_folder(spec, split_default)?;
    let classes: Vec<PathBuf> = entries(&folder)?.into_iter().filter(|path| path.is_dir()).collect();
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut found = Found { names: classes.iter().map(|path| name(path)).collect(), ..Found::default() };
    for (class, path) in classes.iter().enumerate() {
        let mut below = vec![path.clone()];
        let mut images = Vec::new();
        while let Some(folder) = below.pop() {
            for path in entries(&folder)? {
                if path.is_dir() {
                    below.push(path);
                } else if files::format_of(&path).is_some_and(|format| FORMATS.contains(&format.as_str())) {
                    images.push(path);
                }
            }
        }
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
