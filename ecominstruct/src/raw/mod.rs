//! Raw data sets, read into canonical records. One adapter for each known folder, and generic ones for a user's own
//! files.
//!
//! An adapter only maps rows to [`Record`]s. It streams: nothing but the row at hand is in memory, save where a source
//! keeps its labels in a second file. What is wrong with a row is said with file and line and counted, and the row is
//! left out; nothing is guessed or repaired.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use crate::instruction::Lang;
use crate::record::{Meta, Record};

mod advertisegen;
mod amazon_pqa;
mod attribute_text;
mod bio;
mod check;
pub mod clean;
mod cosmetics;
mod extract_gpt;
mod fashion;
mod flipkart;
pub mod generic;
mod hint;
mod home_depot;
mod jddc;
mod known;
mod laptop_acos;
mod polarity_reviews;
mod pricerunner;
mod product_matching;
mod sentence_absa;
mod shopdial;
mod star_reviews;
mod subjqa;
mod table;
mod wdc_pave;

#[cfg(test)]
mod tests;

pub use self::known::adapters;

/// A file of a raw data set.
#[derive(Debug, Clone)]
pub struct RawFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its name in messages and raw ids: `folder/file`, the same on every machine, without `.gz`.
    pub name: String,
    /// Published split.
    pub split: Split,
}

impl RawFile {
    /// Its content, unpacked where the path ends in `.gz`, without a byte-order mark.
    ///
    /// # Errors
    /// If it cannot be opened or read; the message begins with the file's name.
    pub fn open(&self) -> io::Result<Box<dyn BufRead>> {
        let file = File::open(&self.path).map_err(|e| self.error(&e))?;
        let mut reader: Box<dyn BufRead> = if self.path.extension().is_some_and(|e| e == "gz") {
            Box::new(BufReader::with_capacity(1 << 16, flate2::read::MultiGzDecoder::new(file)))
        } else {
            Box::new(BufReader::with_capacity(1 << 16, file))
        };
        if reader.fill_buf().map_err(|e| self.error(&e))?.starts_with("\u{FEFF}".as_bytes()) {
            reader.consume(3);
        }
        Ok(reader)
    }

    /// All of its content, for the few formats that are not read row by row.
    ///
    /// # Errors
    /// If it cannot be read or is not UTF-8; the message begins with the file's name.
    pub fn text(&self) -> io::Result<String> {
        let mut text = String::new();
        self.open()?.read_to_string(&mut text).map_err(|e| self.error(&e))?;
        Ok(text)
    }

    /// `e` with the file's name.
    pub fn error(&self, e: &io::Error) -> io::Error {
        io::Error::new(e.kind(), format!("{}: {e}", self.name))
    }

    /// An error that says `what` about this file.
    pub fn invalid(&self, what: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", self.name))
    }

    /// The raw id of the row at `line`.
    pub fn raw_id(&self, line: usize) -> String {
        format!("{}:{line}", self.name)
    }

    /// Origin of the row at `line`, in a group of its own.
    pub(crate) fn meta(&self, line: usize, lang: Lang) -> Meta {
        Meta { raw_id: self.raw_id(line), group: String::new(), lang }
    }

    /// The first folder of its name, which names the data set.
    pub(crate) fn folder(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// The file `name` (or `name.gz`) in the same folder.
    pub(crate) fn sibling(&self, name: &str) -> Self {
        let plain = self.path.with_file_name(name);
        let path = if plain.is_file() { plain } else { self.path.with_file_name(format!("{name}.gz")) };
        let stem = self.name.rsplit_once('/').map_or(String::new(), |(stem, _)| format!("{stem}/"));
        Self { path, name: format!("{stem}{name}"), split: self.split }
    }
}

/// Published split of a raw file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// Training part, and all of a data set without splits.
    #[default]
    Train,
    /// Development part.
    Dev,
    /// Test part.
    Test,
}

impl Split {
    /// `train`, `dev` or `test`, as on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Test => "test",
        }
    }
}

/// What an adapter gives its records to, and tells its complaints.
pub struct Rows<'a> {
    file: String,
    emit: &'a mut dyn FnMut(Record),
    report: RowReport,
}

impl<'a> Rows<'a> {
    /// Rows of `file`; each record that holds up goes to `emit`.
    pub fn new(file: &RawFile, emit: &'a mut dyn FnMut(Record)) -> Self {
        Self { file: file.name.clone(), emit, report: RowReport::default() }
    }

    /// Hands on the record made of the row at `line` if all its texts are clean and all its spans hold; else the row
    /// counts as bad. An empty group becomes the raw id.
    pub fn push(&mut self, line: usize, mut record: Record) {
        let meta = match &mut record {
            Record::Product(r) => &mut r.meta,
            Record::Review(r) => &mut r.meta,
            Record::Dialogue(r) => &mut r.meta,
            Record::Query(r) => &mut r.meta,
        };
        if meta.group.is_empty() {
            meta.group.clone_from(&meta.raw_id);
        }
        match check::check(&record) {
            Ok(()) => {
                self.report.records += 1;
                (self.emit)(record);
            }
            Err(what) => self.bad(line, what),
        }
    }

    /// Counts the row at `line` as left out and keeps the first ten reasons.
    pub fn bad(&mut self, line: usize, what: impl AsRef<str>) {
        self.report.bad += 1;
        if self.report.first_bad.len() < 10 {
            self.report.first_bad.push(format!("{}:{line}: {}", self.file, what.as_ref()));
        }
    }

    /// The counts.
    pub fn finish(self) -> RowReport {
        self.report
    }
}

/// Counts of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowReport {
    /// Records handed on.
    pub records: usize,
    /// Rows left out.
    pub bad: usize,
    /// `file:line: what` of the first ten rows left out.
    pub first_bad: Vec<String>,
}

/// Reads one file of a raw data set.
pub type Read = fn(&RawFile, &mut Rows<'_>) -> io::Result<()>;

/// A known raw data set.
#[derive(Debug, Clone, Copy)]
pub struct Adapter {
    /// Name of the folder and of the source.
    pub name: &'static str,
    /// Licence as its publisher states it.
    pub licence: &'static str,
    /// Its files, without `.gz`, which is tried as well.
    pub files: &'static [(&'static str, Split)],
    /// Reads one of them.
    pub read: Read,
}

impl Adapter {
    /// Its files under `root`, as they are or with `.gz`.
    ///
    /// # Errors
    /// If one is in neither form; the message names it.
    pub fn locate(&self, root: &Path) -> io::Result<Vec<RawFile>> {
        let found = |&(file, split): &(&str, Split)| {
            let name = format!("{}/{file}", self.name);
            let forms = [root.join(&name), root.join(format!("{name}.gz"))];
            let path = forms.into_iter().find(|path| path.is_file()).ok_or_else(|| {
                let what = format!("{name}: wanted this file or {name}.gz in {}, found neither", root.display());
                io::Error::new(io::ErrorKind::NotFound, what)
            })?;
            Ok(RawFile { path, name, split })
        };
        self.files.iter().map(found).collect()
    }
}

/// `prefix#` and 16 hex digits of FNV-1a (64 bits) over `text`: the id of a text that stands in many rows.
pub(crate) fn text_id(prefix: &str, text: &str) -> String {
    let hash = text.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3));
    format!("{prefix}#{hash:016x}")
}
