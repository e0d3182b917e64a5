//! The IDX format of MNIST: a magic number, big-endian dimensions, then bytes.
use std::path::{Path, PathBuf};

use super::files;
use crate::{Error, Result};

/// The two dimensions of every image and the bytes of all, or the bytes of all labels.
#[derive(Debug, PartialEq, Eq)]
pub struct Idx<'a> {
    pub dimensions: Vec<usize>,
    pub bytes: &'a [u8],
}

/// Reads a file of `rank` dimensions: 3 for images `[n, height, width]`, 1 for labels `[n]`.
///
/// # Errors
/// [`Error::Data`] for another magic number, or a length that is not what the header says.
pub fn parse<'a>(bytes: &'a [u8], rank: usize, file: &str) -> Result<Idx<'a>> {
    let wrong = |what: String| {
        Error::data(file, what, "fetch the file again, and check that images and labels are not swapped")
    };
    let number = |at: usize| Some(u32::from_be_bytes(bytes.get(4 * at..4 * at + 4)?.try_into().ok()?));
    // Two zero bytes, 8 for unsigned bytes, the number of dimensions.
    let wanted = 0x0800 | rank as u32;
    match number(0) {
        Some(magic) if magic == wanted => {}
        Some(magic) => return Err(wrong(format!("wanted the IDX magic number {wanted:#010x}, got {magic:#010x}"))),
        None => return Err(wrong(format!("wanted an IDX file, got {} bytes", bytes.len()))),
    }
    let dimensions: Option<Vec<usize>> = (1..=rank).map(|i| number(i).map(|n| n as usize)).collect();
    let Some(dimensions) = dimensions else {
        return Err(wrong(format!("wanted {rank} dimensions, got a file of {} bytes", bytes.len())));
    };
    let body = &bytes[4 * (1 + rank)..];
    let size = dimensions.iter().try_fold(1usize, |size, &n| size.checked_mul(n));
    if size != Some(body.len()) {
        return Err(wrong(format!("wanted {dimensions:?} bytes after the header, got {}", body.len())));
    }
    if size == Some(0) {
        return Err(wrong(format!("wanted items, got none: {dimensions:?}")));
    }
    Ok(Idx { dimensions, bytes: body })
}

/// The file of `folder` whose name is `stem` (`train-images-idx3-ubyte`), with `.gz` or without, with `.idx` or `-idx`.
pub fn find(folder: &Path, stem: &str) -> Result<PathBuf> {
    let dotted = stem.replace("-idx", ".idx");
    let names = [stem.to_string(), dotted.clone(), format!("{stem}.gz"), format!("{dotted}.gz")];
    names.iter().map(|name| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        Error::data(
            folder.display().to_string(),
            format!("wanted the file {stem} or {stem}.gz, found neither"),
            "name the folder that holds MNIST's four files",
        )
    })
}

/// The bytes and the name of `stem` in `folder`.
pub fn read(folder: &Path, stem: &str) -> Result<(Vec<u8>, String)> {
    let path = find(folder, stem)?;
    Ok((files::read(&path)?, path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_held_against_the_file() {
        let labels = [0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1];
        assert_eq!(parse(&labels, 1, "f").unwrap(), Idx { dimensions: vec![3], bytes: &[7, 2, 1] });
        let says = |bytes: &[u8], rank, what: &str| {
            let error = parse(bytes, rank, "f").unwrap_err().to_string();
            assert!(error.starts_with("f: ") && error.contains(what), "`{error}` does not say `{what}`");
        };
        says(&labels, 3, "wanted the IDX magic number 0x00000803, got 0x00000801");
        says(&labels[..10], 1, "wanted [3] bytes after the header, got 2");
        says(&[labels.as_slice(), &[0]].concat(), 1, "got 4");
        says(&labels[..6], 1, "wanted 1 dimensions, got a file of 6 bytes");
        says(&labels[..3], 1, "got 3 bytes");
        says(&[0, 0, 8, 1, 0, 0, 0, 0], 1, "got none");
        let huge = [&[0, 0, 8, 3], [255u8; 12].as_slice()].concat();
        says(&huge, 3, "bytes after the header, got 0");
    }
}
