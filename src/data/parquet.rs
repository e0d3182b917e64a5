//! Parquet tables, row by row, reading only the columns that are wanted. Without the feature: an error that says so.
use std::path::Path;

use super::images::table::Columns;
use super::spec::BadLines;
use super::table::{Choose, Table};
#[cfg(not(feature = "parquet"))]
use crate::Error;
use crate::Result;

#[cfg(feature = "parquet")]
pub use reader::{pictures, read};

/// A row of a table of images.
#[derive(Debug)]
pub struct Row {
    /// From 1.
    pub number: usize,
    /// A PNG or a JPEG, not yet looked at.
    pub image: Vec<u8>,
    pub label: String,
}

#[derive(Debug, Default)]
pub struct Pictures {
    pub rows: Vec<Row>,
    /// What the file's metadata calls the classes.
    pub names: Option<Vec<String>>,
}

/// # Errors
/// Always [`Error::Unsupported`]: this build has no parquet reader.
#[cfg(not(feature = "parquet"))]
pub fn read(path: &Path, _: Choose, _: BadLines) -> Result<Table> {
    Err(missing(path))
}

/// # Errors
/// Always [`Error::Unsupported`]: this build has no parquet reader.
#[cfg(not(feature = "parquet"))]
pub fn pictures(path: &Path, _: &Columns) -> Result<Pictures> {
    Err(missing(path))
}

#[cfg(not(feature = "parquet"))]
fn missing(path: &Path) -> Error {
    Error::unsupported(
        path.display().to_string(),
        "parquet in this build",
        "build with `--features parquet`, or convert the file",
    )
}

#[cfg(feature = "parquet")]
mod reader {
    use std::fs::File;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use parquet::errors::ParquetError;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    use parquet::schema::types::Type;

    use super::{BadLines, Choose, Columns, Path, Pictures, Result, Row, Table};
    use crate::Error;
    use crate::data::table::{Sink, column};

    /// The chosen columns of every row group of `path`; rows count from 1.
    ///
    /// # Errors
    /// [`Error::Data`] for a file that is cut short or damaged, or a cell that is neither text nor number.
    pub fn read(path: &Path, choose: Choose, bad: BadLines) -> Result<Table> {
        guarded(path, |file, place| rows(file, place, choose, bad))
    }

    /// The images and the labels of every row of `path`.
    ///
    /// # Errors
    /// As [`read`], and for a column that is not there or a cell that is no image.
    pub fn pictures(path: &Path, columns: &Columns) -> Result<Pictures> {
        guarded(path, |file, place| images(file, place, columns))
    }

    fn guarded<T>(path: &Path, read: impl FnOnce(File, &str) -> Result<T>) -> Result<T> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let place = path.display().to_string();
        // The parquet crate returns errors for most damage, but asserts a few lengths in footers and pages (the
        // property test meets both); nothing it touched is used after a panic.
        catch_unwind(AssertUnwindSafe(|| read(file, &place)))
            .unwrap_or_else(|_| Err(damaged(&place, &"its lengths contradict each other")))
    }

    fn damaged(place: &str, cause: &dyn std::fmt::Display) -> Error {
        Error::data(
            place,
            format!("wanted a parquet file, got one cut short or damaged ({cause})"),
            "fetch the file again",
        )
    }

    fn rows(file: File, place: &str, choose: Choose, bad: BadLines) -> Result<Table> {
        let broken = |cause: ParquetError| damaged(place, &cause);
        let reader = SerializedFileReader::new(file).map_err(broken)?;
        let schema = reader.metadata().file_metadata().schema();
        let names: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_string()).collect();
        let wanted: Vec<String> = choose(place, &names)?.keep.iter().map(|&i| names[i].clone()).collect();
        let projection = projection(schema, &wanted);
        let mut sink = Sink::new(place, ": row ", bad);
        sink.columns(wanted.clone());
        for (i, row) in reader.get_row_iter(Some(projection.map_err(broken)?)).map_err(broken)?.enumerate() {
            let columns = row.map_err(broken)?.into_columns();
            let cells = wanted.iter().map(|name| match columns.iter().find(|(column, _)| column == name) {
                Some((_, field)) => {
                    cell(field).map_err(|what| format!("wanted text or a number in `{name}`, got {what}"))
                }
                None => Err(format!("the row has no `{name}`")),
            });
            sink.row(i + 1, cells.collect())?;
        }
        sink.finish()
    }

    /// The schema with the columns `wanted` alone.
    fn projection(schema: &Type, wanted: &[String]) -> Result<Type, ParquetError> {
        let fields = schema.get_fields().iter().filter(|field| wanted.iter().any(|name| name == field.name()));
        Type::group_type_builder(schema.name()).with_fields(fields.cloned().collect()).build()
    }

    fn images(file: File, place: &str, columns: &Columns) -> Result<Pictures> {
        let broken = |cause: ParquetError| damaged(place, &cause);
        let reader = SerializedFileReader::new(file).map_err(broken)?;
        let metadata = reader.metadata().file_metadata();
        let schema = metadata.schema();
        let names: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_string()).collect();
        let find = |candidates: &[&str]| column(place, &names, candidates).map(|i| names[i].clone());
        let image = columns.image.map_or_else(|| find(&["image", "img"]), |name| find(&[name]))?;
        let label = find(columns.labels)?;
        let task = columns.task.map(|task| find(&["task"]).map(|column| (column, task.to_string()))).transpose()?;
        let wanted = [Some(image.clone()), Some(label.clone()), task.as_ref().map(|(column, _)| column.clone())];
        let projection = projection(schema, &wanted.into_iter().flatten().collect::<Vec<_>>()).map_err(broken)?;
        let named = metadata.key_value_metadata().into_iter().flatten();
        let mut named = named.filter_map(|pair| class_names(&pair.key, pair.value.as_deref()?, &label));
        let mut found = Pictures { names: named.next_back(), rows: Vec::new() };
        for (i, row) in reader.get_row_iter(Some(projection)).map_err(broken)?.enumerate() {
            let (number, row) = (i + 1, row.map_err(broken)?.into_columns());
            let wrong = |name: &str, wanted: &str, got: &str| {
                let what = format!("wanted {wanted} in `{name}`, got {got}");
                Error::data(format!("{place}: row {number}"), what, "name the columns with ?image= and ?label=")
            };
            let field = |name: &str| row.iter().find(|(column, _)| column == name).map_or(&Field::Null, |(_, f)| f);
            let text = |name: &str| cell(field(name)).map_err(|got| wrong(name, "text or a number", got));
            if let Some((column, task)) = &task
                && text(column)? != *task
            {
                continue;
            }
            let bytes = bytes(field(&image)).map_err(|got| wrong(&image, "the bytes of an image", got))?;
            found.rows.push(Row { number, image: bytes, label: text(&label)? });
        }
        Ok(found)
    }

    /// The bytes themselves, or those of a group as Hugging Face's Image feature has it.
    fn bytes(field: &Field) -> Result<Vec<u8>, &'static str> {
        match field {
            Field::Bytes(bytes) => Ok(bytes.data().to_vec()),
            Field::Group(row) => match row.get_column_iter().find(|(name, _)| *name == "bytes") {
                Some((_, Field::Bytes(bytes))) => Ok(bytes.data().to_vec()),
                Some((_, Field::Null)) => Err("the path of a file that is not in the table"),
                _ => Err("a group without bytes"),
            },
            Field::Null => Err("nothing"),
            _ => Err("another type"),
        }
    }

    /// The names of a column's classes: of the features in Hugging Face's metadata, or a list under `class_names`.
    fn class_names(key: &str, json: &str, column: &str) -> Option<Vec<String>> {
        let json: serde_json::Value = serde_json::from_str(json).ok()?;
        let names = match key {
            "huggingface" => json.get("info")?.get("features")?.get(column)?.get("names")?,
            "class_names" => &json,
            _ => return None,
        };
        names.as_array()?.iter().map(|name| name.as_str().map(str::to_string)).collect()
    }

    fn cell(field: &Field) -> Result<String, &'static str> {
        Ok(match field {
            Field::Str(text) => text.clone(),
            Field::Bytes(bytes) => bytes.as_utf8().map_err(|_| "bytes that are not UTF-8")?.to_string(),
            Field::Bool(value) => value.to_string(),
            Field::Byte(value) => value.to_string(),
            Field::Short(value) => value.to_string(),
            Field::Int(value) => value.to_string(),
            Field::Long(value) => value.to_string(),
            Field::UByte(value) => value.to_string(),
            Field::UShort(value) => value.to_string(),
            Field::UInt(value) => value.to_string(),
            Field::ULong(value) => value.to_string(),
            Field::Float(value) => value.to_string(),
            Field::Double(value) => value.to_string(),
            Field::Null => return Err("nothing"),
            Field::Group(_) => return Err("a group of columns"),
            _ => return Err("another type"),
        })
    }
}
