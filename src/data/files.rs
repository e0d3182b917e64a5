//! Finding the file of a split in a folder, and reading it whole, plain or gzipped.
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The bytes of `path`, unpacked when its name ends in `.gz`.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    if path.extension().is_none_or(|extension| extension != "gz") {
        return Ok(bytes);
    }
    let mut plain = Vec::new();
    match flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain) {
        Ok(_) => Ok(plain),
        Err(cause) => Err(Error::data(
            path.display().to_string(),
            format!("wanted a whole gzip stream, got one cut short or damaged ({cause})"),
            "fetch the file again",
        )),
    }
}

/// The text of `path` without a byte-order mark.
pub fn read_text(path: &Path) -> Result<String> {
    text(read(path)?, &path.display().to_string())
}

/// `bytes` as UTF-8 without a byte-order mark; an error names the first line that is not.
pub fn text(bytes: Vec<u8>, file: &str) -> Result<String> {
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
        Error::data(format!("{file}:{line}"), "wanted UTF-8 text, got other bytes", "convert the file to UTF-8")
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// The other names a split goes by, itself first.
pub(super) fn synonyms(split: &str) -> Vec<String> {
    let held_out = ["dev", "validation", "valid", "val"];
    let split = split.to_lowercase();
    let (base, suffix) = ["_matched", "_mismatched"]
        .iter()
        .find_map(|suffix| split.strip_suffix(suffix).map(|base| (base, *suffix)))
        .unwrap_or((split.as_str(), ""));
    let mut names = vec![split.clone()];
    if held_out.contains(&base) {
        names.extend(held_out.iter().map(|name| format!("{name}{suffix}")));
        if suffix.is_empty() {
            // MNLI's own name for the held-out split from the training genres.
            names.extend(held_out.iter().map(|name| format!("{name}_matched")));
        }
    }
    names
}

/// A file name in lower case, cut at its first `.`: (`train-00000-of-00002`, `parquet`).
fn parts(path: &Path) -> Option<(String, String)> {
    let name = path.file_name()?.to_str()?.to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let (stem, extension) = name.rsplit_once('.')?;
    Some((stem.to_string(), extension.to_string()))
}

/// The extension that says how `path` is written: lower case, `.gz` taken off.
pub fn format_of(path: &Path) -> Option<String> {
    parts(path).map(|(_, extension)| extension)
}

/// `stem` as shard (i, n) of `split`: Hugging Face writes `train-00000-of-00002.parquet`.
fn shard(stem: &str, split: &str) -> Option<(usize, usize)> {
    let (i, n) = stem.strip_prefix(split)?.strip_prefix('-')?.split_once("-of-")?;
    Some((i.parse().ok()?, n.get(..5)?.parse().ok()?))
}

/// The files of the first of `splits` that `folder` (or its `data/`) holds, in shard order.
///
/// # Errors
/// [`Error::Data`] names the splits wanted and the files found, two files for one split, or a missing shard.
pub fn of_split(folder: &Path, splits: &[&str], formats: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for inside in [folder.to_path_buf(), folder.join("data")] {
        match fs::read_dir(&inside) {
            Ok(entries) => {
                for entry in entries {
                    let path = entry.map_err(Error::io("list", &inside))?.path();
                    found.extend(
                        parts(&path)
                            .filter(|(_, format)| formats.contains(&format.as_str()))
                            .map(|(stem, _)| (stem, path)),
                    );
                }
            }
            Err(cause) if inside == folder => return Err(Error::io("list", folder)(cause)),
            Err(_) => {}
        }
    }
    found.sort();
    for name in splits.iter().flat_map(|split| synonyms(split)) {
        let whole: Vec<&PathBuf> = found.iter().filter(|(stem, _)| *stem == name).map(|(_, path)| path).collect();
        let shards: Vec<(usize, usize, &PathBuf)> =
            found.iter().filter_map(|(stem, path)| shard(stem, &name).map(|(i, n)| (i, n, path))).collect();
        match (whole.as_slice(), shards.as_slice()) {
            ([], []) => {}
            ([one], []) => return Ok(vec![(*one).clone()]),
            ([], shards) if shards.iter().enumerate().all(|(at, s)| s.0 == at && s.1 == shards.len()) => {
                return Ok(shards.iter().map(|(_, _, path)| (*path).clone()).collect());
            }
            _ => {
                let names = list(whole.iter().copied().chain(shards.iter().map(|s| s.2)));
                return Err(Error::data(
                    folder.display().to_string(),
                    format!("wanted one file, or every shard once, for split `{name}`, got {names}"),
                    "remove the extra files or fetch the missing shards, or name the file itself",
                ));
            }
        }
    }
    Err(Error::data(
        folder.display().to_string(),
        format!("wanted a file for split {}, got {}", splits.join(" or "), list(found.iter().map(|(_, path)| path))),
        format!("name the files like train.{0} and dev.{0}, or choose with ?split=", formats[0]),
    ))
}

fn list<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> String {
    let mut names: Vec<String> =
        paths.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    match names.len() {
        0 => "none".to_string(),
        1..=8 => names.join(", "),
        more => {
            names.truncate(8);
            format!("{} and {} more", names.join(", "), more - 8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_found_by_any_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let touch = |name: &str| fs::write(folder.path().join(name), "x").unwrap();
        let find = |splits: &[&str]| of_split(folder.path(), splits, &["tsv", "parquet"]);
        let names = |splits: &[&str]| list(find(splits).unwrap().iter());
        touch("Train.TSV");
        touch("dev_matched.tsv");
        touch("dev_mismatched.tsv");
        touch("readme.md");
        touch("test-00001-of-00002.parquet");
        assert_eq!(names(&["train"]), "Train.TSV");
        assert_eq!(names(&["validation"]), "dev_matched.tsv");
        assert_eq!(names(&["validation_mismatched"]), "dev_mismatched.tsv");
        let missing = find(&["test", "dev"]).unwrap_err().to_string();
        assert!(missing.contains("every shard") && missing.contains("test-00001-of-00002.parquet"), "{missing}");
        touch("test-00000-of-00002.parquet");
        assert_eq!(names(&["test", "dev"]), "test-00000-of-00002.parquet, test-00001-of-00002.parquet");
        touch("train.tsv.gz");
        assert!(find(&["train"]).unwrap_err().to_string().contains("got Train.TSV, train.tsv.gz"));
        let none = find(&["extra"]).unwrap_err().to_string();
        assert!(none.contains("split extra") && none.contains("dev_matched.tsv") && !none.contains("readme"), "{none}");
    }
}
