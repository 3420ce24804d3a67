//! Reads instructions from JSON Lines, one row at a time, in bounded memory, and says exactly what is wrong with a row.
//!
//! A byte-order mark, CRLF line ends and blank lines are accepted. Everything else that is not a clean row has a message
//! with file and line; nothing is guessed or repaired.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;

use self::formats::{Alpaca, Conversation};
use crate::instruction::Instruction;

mod formats;

/// Longest line read into memory, in bytes.
pub const MAX_LINE: usize = 16 << 20;

/// What a row looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// [`Instruction`] records.
    Instruct,
    /// `{"instruction", "input", "output"}`; `input` may be missing, an `id` may be there.
    Alpaca,
    /// `{"messages": [{"role", "content"}, …]}`; the last message is the assistant's response, the last user turn before
    /// it the prompt, and all that comes earlier (system text first) the input. An `id` may be there.
    Messages,
    /// Decided by the keys of the first object of the file and then kept.
    #[default]
    Auto,
}

/// What to do with a row that cannot be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BadRows {
    /// Stop at the first.
    #[default]
    Error,
    /// Skip and count up to this many; one more is an error.
    Skip(usize),
}

/// Why a row cannot be used. Each message says what was wanted or what was found.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file could not be read.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// Over [`MAX_LINE`] bytes.
    #[error("line is longer than {} MiB", MAX_LINE >> 20)]
    TooLong,
    /// Not UTF-8.
    #[error("invalid UTF-8 at byte {0} of the line")]
    Utf8(usize),
    /// A NUL character, raw or written `\u0000`.
    #[error("NUL character in {0}")]
    Nul(String),
    /// Not JSON.
    #[error("broken JSON at column {column}: {what}")]
    Json {
        /// Byte column, from 1.
        column: usize,
        /// What the parser says.
        what: String,
    },
    /// JSON, but no object.
    #[error("wanted one JSON object per line, found {0}")]
    NotObject(&'static str),
    /// The same key twice.
    #[error("key {0:?} appears twice")]
    DuplicateKey(String),
    /// Missing, mistyped or unknown key.
    #[error("{0}")]
    Keys(String),
    /// Nothing to learn.
    #[error("output is empty")]
    EmptyOutput,
    /// Messages in an order that gives no prompt and response.
    #[error("{0}")]
    Turns(&'static str),
    /// More unusable rows than allowed; holds the last one.
    #[error("{last} (bad row number {count}, {allowed} may be skipped)")]
    TooMany {
        /// Unusable rows so far.
        count: usize,
        /// How many may be skipped.
        allowed: usize,
        /// The last one.
        last: Box<Fault>,
    },
}

/// A [`Fault`] with its place.
#[derive(Debug, thiserror::Error)]
#[error("{file}{}: {fault}", if *line == 0 { String::new() } else { format!(":{line}") })]
pub struct ReadError {
    /// Name of the file, as given.
    pub file: String,
    /// Line, from 1; 0 where the file could not be opened.
    pub line: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// What a [`Reader`] has seen so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadReport {
    /// Lines, blank ones included.
    pub lines: usize,
    /// Rows handed out.
    pub rows: usize,
    /// Blank lines.
    pub blank: usize,
    /// Rows skipped under [`BadRows::Skip`].
    pub skipped: usize,
    /// `file:line: message` of the first ten skipped rows.
    pub first_skipped: Vec<String>,
}

/// Iterator over the instructions of one file. After an error it ends.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    file: String,
    format: Format,
    bad_rows: BadRows,
    report: ReadReport,
    line: Vec<u8>,
    done: bool,
}

impl Reader<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Fault::Io`] at line 0 if the file cannot be opened.
    pub fn open(path: &Path, format: Format, bad_rows: BadRows) -> Result<Self, ReadError> {
        let file = path.display().to_string();
        match File::open(path) {
            Ok(source) => Ok(Self::new(BufReader::with_capacity(1 << 16, source), file, format, bad_rows)),
            Err(error) => Err(ReadError { file, line: 0, fault: error.into() }),
        }
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads from `source`, which is called `file` in messages.
    pub fn new(source: R, file: impl Into<String>, format: Format, bad_rows: BadRows) -> Self {
        let file = file.into();
        Self { source, file, format, bad_rows, report: ReadReport::default(), line: Vec::new(), done: false }
    }

    /// Counts so far; complete once the iterator has ended.
    pub fn report(&self) -> &ReadReport {
        &self.report
    }

    /// The format, once [`Format::Auto`] has been decided.
    pub fn format(&self) -> Format {
        self.format
    }

    fn place(&self, fault: Fault) -> ReadError {
        ReadError { file: self.file.clone(), line: self.report.lines, fault }
    }

    /// Parses `self.line`; `None` for a blank line.
    fn parse(&mut self) -> Result<Option<Instruction>, Fault> {
        let mut bytes = self.line.as_slice();
        if self.report.lines == 1 {
            bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        }
        let text = str::from_utf8(bytes).map_err(|e| Fault::Utf8(e.valid_up_to()))?.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if text.contains('\0') {
            return Err(Fault::Nul("the line".into()));
        }
        let keys = top_keys(text)?;
        if self.format == Format::Auto {
            let has = |key: &str| keys.iter().any(|k| k == key);
            self.format = match () {
                () if has("messages") => Format::Messages,
                () if has("instruction") => Format::Alpaca,
                () => Format::Instruct,
            };
        }
        let mut row = match self.format {
            Format::Alpaca => typed::<Alpaca>(text, r#"{"instruction":"","output":""}"#)?.into_instruction(),
            Format::Messages => typed::<Conversation>(text, r#"{"messages":[]}"#)?.into_instruction()?,
            Format::Instruct | Format::Auto => {
                typed::<Instruction>(text, r#"{"description":"","prompt":"","input":"","output":""}"#)?
            }
        };
        if row.id.is_empty() {
            let stem =
                Path::new(&self.file).file_stem().map_or_else(|| self.file.clone().into(), |s| s.to_string_lossy());
            row.id = format!("{stem}-{}", self.report.lines);
        }
        let parts = [("description", &row.description), ("prompt", &row.prompt), ("input", &row.input)];
        let parts =
            parts.into_iter().chain([("constraint", &row.constraint), ("output", &row.output), ("id", &row.id)]);
        if let Some((key, _)) =
            parts.chain(row.candidates.iter().map(|c| ("candidates", c))).find(|p| p.1.contains('\0'))
        {
            return Err(Fault::Nul(format!("{key:?}")));
        }
        if row.output.trim().is_empty() { Err(Fault::EmptyOutput) } else { Ok(Some(row)) }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Instruction, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let fault = match next_line(&mut self.source, &mut self.line) {
                Ok(Line::End) => {
                    self.done = true;
                    return None;
                }
                Ok(Line::Whole) => {
                    self.report.lines += 1;
                    match self.parse() {
                        Ok(Some(row)) => {
                            self.report.rows += 1;
                            return Some(Ok(row));
                        }
                        Ok(None) => {
                            self.report.blank += 1;
                            continue;
                        }
                        Err(fault) => fault,
                    }
                }
                Ok(Line::TooLong) => {
                    self.report.lines += 1;
                    Fault::TooLong
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(self.place(error.into())));
                }
            };
            let fault = match self.bad_rows {
                BadRows::Error => fault,
                BadRows::Skip(allowed) if self.report.skipped < allowed => {
                    self.report.skipped += 1;
                    if self.report.first_skipped.len() < 10 {
                        let message = self.place(fault).to_string();
                        self.report.first_skipped.push(message);
                    }
                    continue;
                }
                BadRows::Skip(allowed) => Fault::TooMany { count: allowed + 1, allowed, last: Box::new(fault) },
            };
            self.done = true;
            return Some(Err(self.place(fault)));
        }
        None
    }
}

/// What [`next_line`] found.
pub(crate) enum Line {
    /// A line is in the buffer, without its line feed.
    Whole,
    /// The line was over [`MAX_LINE`] bytes and was passed over.
    TooLong,
    /// No more lines.
    End,
}

/// Reads up to the next line feed into `line`, keeping at most [`MAX_LINE`] bytes.
pub(crate) fn next_line(source: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let (mut seen, mut long) = (false, false);
    loop {
        let buffer = match source.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            break;
        }
        seen = true;
        let end = buffer.iter().position(|&b| b == b'\n');
        let piece = &buffer[..end.unwrap_or(buffer.len())];
        long |= line.len() + piece.len() > MAX_LINE;
        if long {
            line.clear();
        } else {
            line.extend_from_slice(piece);
        }
        let used = piece.len() + usize::from(end.is_some());
        source.consume(used);
        if end.is_some() {
            break;
        }
    }
    Ok(match (seen, long) {
        (false, _) => Line::End,
        (true, true) => Line::TooLong,
        (true, false) => Line::Whole,
    })
}

/// The keys of the object `text`, in order. `IgnoredAny` walks values without recursion, so that depth is no danger here.
fn top_keys(text: &str) -> Result<Vec<String>, Fault> {
    struct Keys(Vec<String>);
    impl<'de> Deserialize<'de> for Keys {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            struct Walk;
            impl<'de> Visitor<'de> for Walk {
                type Value = Keys;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                    let mut keys = Vec::new();
                    while let Some((key, IgnoredAny)) = map.next_entry::<String, _>()? {
                        keys.push(key);
                    }
                    Ok(Keys(keys))
                }
            }
            from.deserialize_map(Walk)
        }
    }
    let found = match text.as_bytes().first() {
        Some(b'{') => None,
        Some(b'[') => Some("an array"),
        Some(b'"') => Some("a string"),
        Some(b'0'..=b'9' | b'-') => Some("a number"),
        Some(b't' | b'f') => Some("a boolean"),
        Some(b'n') => Some("null"),
        _ => Some("something else"),
    };
    if let Some(found) = found {
        return Err(Fault::NotObject(found));
    }
    let Keys(mut keys) = serde_json::from_str::<Keys>(text).map_err(|e| json_fault(&e))?;
    let in_order = keys.clone();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Fault::DuplicateKey(pair[0].clone())),
        None => Ok(in_order),
    }
}

/// Parses `text` as a `T`. `minimal` is a row that is complete and right; a mistyped key is found by trying each key of the
/// row in it, because serde does not name the key.
fn typed<T: DeserializeOwned>(text: &str, minimal: &str) -> Result<T, Fault> {
    let error = match serde_json::from_str::<T>(text) {
        Ok(row) => return Ok(row),
        Err(error) => error,
    };
    if error.classify() != Category::Data {
        return Err(json_fault(&error));
    }
    let plain = |e: &serde_json::Error| {
        let whole = e.to_string();
        whole.split(" at line ").next().unwrap_or_default().to_owned()
    };
    let object =
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).map_err(|e| json_fault(&e))?;
    for (key, value) in object {
        let mut trial: serde_json::Map<_, _> = serde_json::from_str(minimal).map_err(|e| json_fault(&e))?;
        trial.insert(key.clone(), value);
        if let Err(error) = serde_json::from_value::<T>(serde_json::Value::Object(trial)) {
            let what = plain(&error);
            return Err(Fault::Keys(if what.starts_with("unknown field") {
                what
            } else {
                format!("key {key:?}: {what}")
            }));
        }
    }
    Err(Fault::Keys(plain(&error)))
}

fn json_fault(error: &serde_json::Error) -> Fault {
    let whole = error.to_string();
    let what = whole.split(" at line ").next().unwrap_or_default().to_owned();
    Fault::Json { column: error.column(), what }
}

#[cfg(test)]
mod tests;
