//! Reading of lines, tables and JSON with line numbers. A row that cannot be read is a bad row, not the end of the
//! file.

use std::io::{self, BufRead, Read};
use std::marker::PhantomData;

use csv::{ErrorKind, StringRecord};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::{RawFile, Rows};
use crate::read::MAX_LINE;

/// Gives each line of `file` to `each`, with its number from 1 and without its line end.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn lines(
    file: &RawFile,
    rows: &mut Rows<'_>,
    mut each: impl FnMut(&mut Rows<'_>, usize, &str),
) -> io::Result<()> {
    let mut reader = file.open()?;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let limit = MAX_LINE as u64 + 1;
        if reader.by_ref().take(limit).read_until(b'\n', &mut line).map_err(|e| file.error(&e))? == 0 {
            break;
        }
        if line.len() > MAX_LINE && line.last() != Some(&b'\n') {
            rows.bad(number, format!("line is longer than {} MiB", MAX_LINE >> 20));
            reader.skip_until(b'\n').map_err(|e| file.error(&e))?;
            continue;
        }
        let end = line.strip_suffix(b"\n").map_or(line.len(), <[u8]>::len);
        let end = line[..end].strip_suffix(b"\r").map_or(end, <[u8]>::len);
        match std::str::from_utf8(&line[..end]) {
            Ok(text) => each(rows, number, text),
            Err(e) => rows.bad(number, format!("invalid UTF-8 at byte {} of the line", e.valid_up_to())),
        }
    }
    Ok(())
}

/// How the fields of a table are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Commas; fields may stand in double quotes and then span lines.
    Csv,
    /// Tabs; quotes as in CSV.
    Tsv,
    /// Tabs; a quote is a character like any other.
    PlainTsv,
}

/// A table with a header line.
pub(super) struct Table<'f> {
    file: &'f RawFile,
    reader: csv::Reader<Box<dyn BufRead>>,
    record: StringRecord,
    /// 1 where lines end in CR LF: the CSV parser takes the LF for part of the next row.
    late: usize,
    /// Names of the columns.
    pub(super) header: Vec<String>,
}

impl<'f> Table<'f> {
    /// Opens `file` and reads its header.
    pub(super) fn open(file: &'f RawFile, layout: Layout) -> io::Result<Self> {
        let delimiter = if layout == Layout::Csv { b',' } else { b'\t' };
        let mut input = file.open()?;
        let start = input.fill_buf().map_err(|e| file.error(&e))?;
        let late = start.iter().position(|&b| b == b'\n').is_some_and(|end| start[..end].ends_with(b"\r"));
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .quoting(layout != Layout::PlainTsv)
            .flexible(true)
            .buffer_capacity(1 << 16)
            .from_reader(input);
        let header = reader.headers().map_err(|e| file.invalid(&format!("cannot read the header: {e}")))?;
        let header = header.iter().map(|name| name.trim().to_owned()).collect();
        Ok(Self { file, reader, record: StringRecord::new(), late: usize::from(late), header })
    }

    /// Index of the column `name`.
    pub(super) fn column(&self, name: &str) -> io::Result<usize> {
        self.header.iter().position(|h| h == name).ok_or_else(|| missing(self.file, name, &self.header))
    }

    /// The next row with its line number; rows that cannot be read count as bad.
    pub(super) fn next(&mut self, rows: &mut Rows<'_>) -> io::Result<Option<(usize, &StringRecord)>> {
        loop {
            let result = self.reader.read_record(&mut self.record);
            let line = self.record.position().map_or(0, |p| p.line() as usize + self.late);
            match result {
                Ok(false) => return Ok(None),
                Ok(true) if self.record.len() == self.header.len() => return Ok(Some((line, &self.record))),
                Ok(true) => {
                    rows.bad(line, format!("wanted {} fields, found {}", self.header.len(), self.record.len()));
                }
                Err(e) => {
                    let line = e.position().map_or(line, |p| p.line() as usize + self.late);
                    match e.into_kind() {
                        ErrorKind::Io(e) => return Err(self.file.error(&e)),
                        ErrorKind::Utf8 { err, .. } => rows.bad(line, format!("invalid UTF-8: {err}")),
                        _ => rows.bad(line, "not a row of this table"),
                    }
                }
            }
        }
    }
}

/// Gives the fields of `columns` of each row to `each`.
///
/// # Errors
/// If the file cannot be read or a column is missing.
pub(super) fn table<const N: usize>(
    file: &RawFile,
    layout: Layout,
    columns: [&str; N],
    rows: &mut Rows<'_>,
    mut each: impl FnMut(&mut Rows<'_>, usize, [&str; N]),
) -> io::Result<()> {
    let mut table = Table::open(file, layout)?;
    let mut at = [0; N];
    for (at, name) in at.iter_mut().zip(columns) {
        *at = table.column(name)?;
    }
    while let Some((line, row)) = table.next(rows)? {
        each(rows, line, at.map(|i| &row[i]));
    }
    Ok(())
}

/// The error for a column that is not there, with the closest name where one is close.
pub(super) fn missing(file: &RawFile, wanted: &str, found: &[String]) -> io::Error {
    let close = |name: &&String| strsim::jaro_winkler(&name.to_lowercase(), &wanted.to_lowercase());
    let hint = found.iter().max_by(|a, b| close(a).total_cmp(&close(b))).filter(|name| close(name) > 0.75);
    let hint = hint.map_or(String::new(), |name| format!("; did you mean {name:?}?"));
    let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    file.invalid(&format!("wanted a column {wanted:?}, found {found}{hint}"))
}

/// An object of JSON as pairs in the order of the text.
pub(super) struct Pairs<K, V>(pub(super) Vec<(K, V)>);

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Pairs<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<K, V>(PhantomData<(K, V)>);
        impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Object<K, V> {
            type Value = Pairs<K, V>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object(PhantomData))
    }
}

/// The objects of a JSON array with the line each begins at; what is not an object is passed over.
pub(super) fn objects(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let (mut line, mut depth, mut start, mut quoted, mut escaped) = (1, 0usize, (0, 0), false, false);
    text.bytes().enumerate().filter_map(move |(i, b)| {
        line += usize::from(b == b'\n');
        if quoted {
            quoted = escaped || b != b'"';
            escaped = !escaped && b == b'\\';
            return None;
        }
        match b {
            b'"' => quoted = true,
            b'{' => {
                if depth == 0 {
                    start = (line, i);
                }
                depth += 1;
            }
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some((start.0, &text[start.1..=i]));
                }
            }
            _ => {}
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::tests::{raw_file, told};

    #[test]
    fn lines_lose_their_ends_and_broken_ones_count() {
        let mut seen = Vec::new();
        let (_folder, file) = raw_file("set/a.txt", b"\xEF\xBB\xBFone\r\n\ntw\xFFo\nthree");
        let report = told(&file, |rows| lines(&file, rows, |_, n, line| seen.push((n, line.to_owned()))).unwrap());
        assert_eq!(seen, [(1, "one".into()), (2, String::new()), (4, "three".into())]);
        assert_eq!(report.first_bad, ["set/a.txt:3: invalid UTF-8 at byte 2 of the line"]);
    }

    #[test]
    fn tables_know_the_line_of_a_row_and_say_which_column_is_missing() {
        for end in ["\n", "\r\n"] {
            let text = ["id,Title", "1,\"a,", "b\"", "2", "3,c", ""].join(end);
            let (_folder, file) = raw_file("set/a.csv", text.as_bytes());
            let mut seen = Vec::new();
            let report = told(&file, |rows| {
                let keep = |_: &mut Rows<'_>, n: usize, [title, id]: [&str; 2]| seen.push(format!("{n} {id} {title}"));
                table(&file, Layout::Csv, ["Title", "id"], rows, keep).unwrap();
            });
            assert_eq!(seen, [format!("2 1 a,{end}b"), "5 3 c".into()]);
            assert_eq!(report.first_bad, ["set/a.csv:4: wanted 2 fields, found 1"]);
            let mut emit = |_| {};
            let error =
                table(&file, Layout::Csv, ["titel"], &mut Rows::new(&file, &mut emit), |_, _, _| {}).unwrap_err();
            let wanted = "set/a.csv: wanted a column \"titel\", found id, Title; did you mean \"Title\"?";
            assert_eq!(error.to_string(), wanted);
        }
    }

    #[test]
    fn objects_of_an_array_know_their_lines() {
        let text = "[\n {\"a\": \"}\\\"{\"},\n {\"b\": {\n }}\n]";
        let found: Vec<_> = objects(text).collect();
        assert_eq!(found, [(2, "{\"a\": \"}\\\"{\"}"), (3, "{\"b\": {\n }}")]);
    }
}
