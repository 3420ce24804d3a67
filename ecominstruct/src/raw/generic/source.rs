//! The rows of a user's files as lists of values, one for each wanted column.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde_json::{Map, Value};

use super::Format;
use crate::raw::table::{Layout, Table, lines, missing};
use crate::raw::{RawFile, Rows};

/// What takes a row: its line (row number in Parquet) and the values of the wanted columns.
pub(super) type Take<'a> = &'a mut dyn FnMut(&mut Rows<'_>, usize, &[Value]);

/// The format that the ending of `name` stands for.
pub(super) fn by_name(name: &str) -> Option<Format> {
    match Path::new(name).extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "gz" => by_name(&name[..name.len() - 3]),
        "csv" => Some(Format::Csv),
        "tsv" => Some(Format::Tsv),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        "parquet" => Some(Format::Parquet),
        _ => None,
    }
}

/// Gives the values of `wanted` of each row of `file` to `take`.
pub(super) fn read(
    file: &RawFile,
    format: Format,
    wanted: &[String],
    rows: &mut Rows<'_>,
    take: Take<'_>,
) -> io::Result<()> {
    match format {
        Format::Csv => table(file, Layout::Csv, wanted, rows, take),
        Format::Tsv => table(file, Layout::Tsv, wanted, rows, take),
        Format::PlainTsv => table(file, Layout::PlainTsv, wanted, rows, take),
        Format::Jsonl => jsonl(file, wanted, rows, take),
        Format::Parquet => parquet(file, wanted, rows, take),
    }
}

fn table(file: &RawFile, layout: Layout, wanted: &[String], rows: &mut Rows<'_>, take: Take<'_>) -> io::Result<()> {
    let mut table = Table::open(file, layout)?;
    let columns = wanted.iter().map(|name| table.column(name)).collect::<io::Result<Vec<_>>>()?;
    let mut values = Vec::with_capacity(columns.len());
    while let Some((line, row)) = table.next(rows)? {
        values.clear();
        values.extend(columns.iter().map(|&i| Value::String(row[i].to_owned())));
        take(rows, line, &values);
    }
    Ok(())
}

/// A key may be absent from a row, but not from all.
fn jsonl(file: &RawFile, wanted: &[String], rows: &mut Rows<'_>, take: Take<'_>) -> io::Result<()> {
    let mut seen = vec![false; wanted.len()];
    let mut keys: Option<Vec<String>> = None;
    lines(file, rows, |rows, line, text| {
        if text.trim().is_empty() {
            return;
        }
        let mut object: Map<String, Value> = match serde_json::from_str(text) {
            Ok(object) => object,
            Err(e) => return rows.bad(line, format!("wanted one JSON object per line: {e}")),
        };
        if keys.is_none() {
            keys = Some(object.keys().cloned().collect());
        }
        let cells = wanted.iter().zip(&mut seen).map(|(name, seen)| {
            let value = object.get_mut(name).map(Value::take);
            *seen |= value.is_some();
            value.unwrap_or_default()
        });
        let values: Vec<Value> = cells.collect();
        take(rows, line, &values);
    })?;
    match (keys, seen.iter().position(|seen| !seen)) {
        (Some(keys), Some(i)) => Err(missing(file, &wanted[i], &keys)),
        _ => Ok(()),
    }
}

/// Reads the wanted columns only.
fn parquet(file: &RawFile, wanted: &[String], rows: &mut Rows<'_>, take: Take<'_>) -> io::Result<()> {
    let wrong = |e: parquet::errors::ParquetError| file.invalid(&format!("not a Parquet file that can be read: {e}"));
    let input = File::open(&file.path).map_err(|e| file.error(&e))?;
    let reader = SerializedFileReader::new(input).map_err(wrong)?;
    let schema = reader.metadata().file_metadata().schema();
    let found: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let mut fields: Vec<Arc<Type>> = Vec::new();
    for name in wanted {
        let field = schema.get_fields().iter().find(|field| field.name() == name);
        let field = field.ok_or_else(|| missing(file, name, &found))?;
        if !fields.iter().any(|seen| seen.name() == field.name()) {
            fields.push(Arc::clone(field));
        }
    }
    let projection = Type::group_type_builder(schema.name()).with_fields(fields).build().map_err(wrong)?;
    for (number, row) in reader.get_row_iter(Some(projection)).map_err(wrong)?.enumerate() {
        let row = row.map_err(wrong)?;
        let values: Vec<Value> = wanted
            .iter()
            .map(|name| {
                row.get_column_iter().find(|(column, _)| *column == name).map_or(Value::Null, |(_, field)| value(field))
            })
            .collect();
        take(rows, number + 1, &values);
    }
    Ok(())
}

fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(b) => (*b).into(),
        Field::Byte(n) => (*n).into(),
        Field::Short(n) => (*n).into(),
        Field::Int(n) => (*n).into(),
        Field::Long(n) => (*n).into(),
        Field::UByte(n) => (*n).into(),
        Field::UShort(n) => (*n).into(),
        Field::UInt(n) => (*n).into(),
        Field::ULong(n) => (*n).into(),
        Field::Float(x) => (*x).into(),
        Field::Double(x) => (*x).into(),
        Field::Str(text) => text.as_str().into(),
        // Text whose writer did not say that it is.
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).map_or(Value::Null, Into::into),
        Field::Group(row) => row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect(),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::MapInternal(map) => {
            map.entries().iter().map(|(key, field)| (text(key), value(field))).collect::<Map<_, _>>().into()
        }
        // A day or a time that no calendar has stays the number that it is: its text would be a panic.
        Field::Date(days) if days.unsigned_abs() > FARTHEST => (*days).into(),
        Field::TimestampMillis(ms) if ms.unsigned_abs() / 86_400_000 > FARTHEST.into() => (*ms).into(),
        Field::TimestampMicros(us) if us.unsigned_abs() / 86_400_000_000 > FARTHEST.into() => (*us).into(),
        other => other.to_string().into(),
    }
}

/// Days from 1970 that a calendar has at least, to both sides: 200,000 years.
const FARTHEST: u32 = 73_000_000;

fn text(key: &Field) -> String {
    match value(key) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_that_no_calendar_has_are_numbers() {
        assert_eq!(value(&Field::Date(0)), "1970-01-01");
        assert_eq!(value(&Field::Date(i32::MAX)), i32::MAX);
        for field in [Field::TimestampMillis(0), Field::TimestampMicros(0)] {
            assert!(value(&field).as_str().is_some_and(|text| text.starts_with("1970-01-01")), "{field:?}");
        }
        for (far, near) in [(i64::MIN, -FARTHEST_MS), (i64::MAX, FARTHEST_MS)] {
            assert_eq!(value(&Field::TimestampMillis(far)), far);
            assert!(value(&Field::TimestampMillis(near)).is_string());
            assert!(value(&Field::TimestampMicros(far)).is_number());
        }
        assert!(value(&Field::Date(FARTHEST.cast_signed())).is_string());
    }

    const FARTHEST_MS: i64 = 86_400_000 * FARTHEST as i64;
}
