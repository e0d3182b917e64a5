//! Images in parquet files: a column of PNG or JPEG bytes, as Hugging Face writes it, and a column of classes.
use std::path::PathBuf;
use std::sync::Arc;

use super::{At, Content, Found, Item};
use crate::Result;
use crate::data::table::Place;
use crate::data::{labels, parquet};

/// Which columns hold what.
pub struct Columns<'a> {
    /// `image` or `img` where it is not given.
    pub image: Option<&'a str>,
    /// The first of these that is there.
    pub labels: &'a [&'a str],
    /// Only rows whose column `task` holds this.
    pub task: Option<i64>,
}

/// All rows of `files`. Classes are `known`, or what the files' own metadata calls them, or what the column implies.
pub(in crate::data) fn read(
    files: &[PathBuf],
    columns: &Columns,
    known: Option<&[String]>,
    place: &str,
) -> Result<Found> {
    let (mut rows, mut cells, mut named) = (Vec::new(), Vec::new(), None);
    for path in files {
        let file: Arc<str> = path.display().to_string().into();
        let table = parquet::pictures(path, columns)?;
        named = named.or(table.names);
        for row in table.rows {
            rows.push((At { file: file.clone(), row: Some(row.number) }, Content::Encoded(row.image)));
            cells.push((Place::row(&file, row.number), row.label));
        }
    }
    let cells: Vec<labels::Cell> = cells.iter().map(|(at, cell)| (at, cell.as_str())).collect();
    let (names, classes) = labels::classes(&cells, known.or(named.as_deref()), None, place)?;
    let items = rows.into_iter().zip(classes).map(|((at, content), class)| Item { at, content, class: class as usize });
    Ok(Found { items: items.collect(), names })
}
