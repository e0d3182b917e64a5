//! Parquet tables, row by row, reading only the columns that are wanted. Without the feature: an error that says so.
use std::path::Path;

use super::spec::BadLines;
use super::table::{Choose, Table};
#[cfg(not(feature = "parquet"))]
use crate::Error;
use crate::Result;

#[cfg(feature = "parquet")]
pub use reader::read;

/// # Errors
/// Always [`Error::Unsupported`]: this build has no parquet reader.
#[cfg(not(feature = "parquet"))]
pub fn read(path: &Path, _: Choose, _: BadLines) -> Result<Table> {
    Err(Error::unsupported(
        path.display().to_string(),
        "parquet in this build",
        "build with `--features parquet`, or convert the file to jsonl",
    ))
}

#[cfg(feature = "parquet")]
mod reader {
    use std::fs::File;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use parquet::errors::ParquetError;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    use parquet::schema::types::Type;

    use super::{BadLines, Choose, Path, Result, Table};
    use crate::Error;
    use crate::data::table::Sink;

    /// The chosen columns of every row group of `path`; rows count from 1.
    ///
    /// # Errors
    /// [`Error::Data`] for a file that is cut short or damaged, or a cell that is neither text nor number.
    pub fn read(path: &Path, choose: Choose, bad: BadLines) -> Result<Table> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let place = path.display().to_string();
        // The parquet crate returns errors for most damage, but asserts a few lengths in footers and pages (the
        // property test meets both); nothing it touched is used after a panic.
        catch_unwind(AssertUnwindSafe(|| rows(file, &place, choose, bad)))
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
        let fields = schema.get_fields().iter().filter(|field| wanted.iter().any(|name| name == field.name()));
        let projection = Type::group_type_builder(schema.name()).with_fields(fields.cloned().collect()).build();
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
