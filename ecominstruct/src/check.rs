//! Checks instruction data from the outside: what a build promises is looked for in its files, row by row.
//!
//! Held-out files are read first and make a firewall of their own; then training files are streamed in chunks, whose rows are
//! looked at in parallel. Memory: two or three hashes a row, and up to [`KEPT`] rows of each unit for the baselines.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use self::row::{Facts, Look};
use self::tally::{Tally, UnitKey};
use crate::build::manifest::Manifest;
use crate::firewall::Firewall;
use crate::instruction::Instruction;
use crate::read::{BadRows, Format, Reader};

mod counts;
mod row;
mod tally;
mod unit;

/// Rows of a unit that the baselines are scored on: those with the smallest hash of their id.
pub const KEPT: usize = 1_000;

/// Rows looked at in one go.
const CHUNK: usize = 2_048;

/// Offenders named for each check.
const NAMED: usize = 5;

/// Why data cannot be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// File or folder not readable.
    #[error("{path}: {source}")]
    Io {
        /// What was read.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// No instructions there.
    #[error("{0}: wanted a .jsonl file, or a folder with some; found none")]
    Nothing(String),
}

impl CheckError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.display().to_string(), source }
    }
}

/// What all checks came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The files, with their rows.
    pub files: Vec<(String, usize)>,
    /// The checks, in a fixed order.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether every check passed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|c| c.passed)
    }
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What is checked.
    pub name: &'static str,
    /// Whether the data is as it should be.
    pub passed: bool,
    /// What was found, on one line.
    pub found: String,
    /// The first offenders, with file and line where there is one: what was wanted, what was found.
    pub faults: Vec<String>,
    /// Numbers for the record.
    pub detail: Vec<String>,
}

/// Which part of a data folder a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Part {
    HeldOut,
    /// Held-out items, asked with the paraphrase that training never has.
    Paraphrase,
    Train,
}

impl Part {
    /// What the files of a folder are, by its name.
    fn of(folder: &Path) -> Self {
        let name = folder.canonicalize().ok().and_then(|f| f.file_name().map(|n| n.to_string_lossy().into_owned()));
        let named = |part: &Self| name.as_deref() == Some(part.folder());
        [Self::HeldOut, Self::Paraphrase].into_iter().find(named).unwrap_or(Self::Train)
    }

    fn folder(self) -> &'static str {
        match self {
            Self::HeldOut => "heldout",
            Self::Paraphrase => "heldout-paraphrase",
            Self::Train => "",
        }
    }
}

/// A file to check.
#[derive(Debug)]
struct DataFile {
    path: PathBuf,
    name: String,
    part: Part,
}

/// Checks a data folder (`*.jsonl`, `heldout/*.jsonl`, `heldout-paraphrase/*.jsonl`, `manifest.json`) or one file.
/// `progress` is told how many rows were read.
///
/// # Errors
/// Only where there is nothing to check. Bad data is no error: it is in the report.
pub fn check(path: &Path, progress: &mut dyn FnMut(usize)) -> Result<Report, CheckError> {
    let files = files(path)?;
    let manifest = manifest(path);
    let repeats_wanted = matches!(&manifest, Some(Ok(m)) if m.recipe.get("deduplicate") == Some(&false.into()));
    let mut tally = Tally::new(repeats_wanted);
    let mut look = Look::new();
    let mut seen = Vec::new();
    let mut done = 0;
    for file in &files {
        let rows = read(file, &mut look, &mut tally, &mut |n| progress(done + n))?;
        done += rows;
        seen.push((file.name.clone(), rows));
    }
    let mut checks = tally.checks();
    if let Some(manifest) = manifest {
        checks.push(match manifest {
            Ok(manifest) => counts::compare(path, &manifest, &seen, &tally),
            Err(what) => Check {
                name: "manifest",
                passed: false,
                found: "it cannot be read".to_owned(),
                faults: vec![what],
                detail: Vec::new(),
            },
        });
    }
    Ok(Report { files: seen, checks })
}

/// The files of a folder, held-out ones first.
fn files(path: &Path) -> Result<Vec<DataFile>, CheckError> {
    let lines = |p: &Path| p.extension().is_some_and(|e| e == "jsonl");
    let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let nothing = || CheckError::Nothing(path.display().to_string());
    if !path.is_dir() {
        fs::metadata(path).map_err(|e| CheckError::io(path, e))?;
        if !lines(path) {
            return Err(nothing());
        }
        let part = path.parent().map_or(Part::Train, Part::of);
        return Ok(vec![DataFile { path: path.to_path_buf(), name: path.display().to_string(), part }]);
    }
    let mut files = Vec::new();
    for part in [Part::HeldOut, Part::Paraphrase, Part::Train] {
        let folder = path.join(part.folder());
        if !folder.is_dir() {
            continue;
        }
        let list = fs::read_dir(&folder).and_then(|d| d.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>());
        let mut list = list.map_err(|e| CheckError::io(&folder, e))?;
        list.retain(|p| p.is_file() && lines(p));
        list.sort();
        files.extend(list.into_iter().map(|p| {
            let name = if part == Part::Train { name(&p) } else { format!("{}/{}", part.folder(), name(&p)) };
            let part = if part == Part::Train { Part::of(path) } else { part };
            DataFile { path: p, name, part }
        }));
    }
    if files.is_empty() { Err(nothing()) } else { Ok(files) }
}

/// The manifest beside the data, if there is one.
fn manifest(path: &Path) -> Option<Result<Manifest, String>> {
    path.join("manifest.json").exists().then(|| Manifest::read(path).map_err(|e| e.to_string()))
}

/// Reads one file into the tally, and held-out rows into the firewall as well.
fn read(
    file: &DataFile,
    look: &mut Look,
    tally: &mut Tally,
    progress: &mut dyn FnMut(usize),
) -> Result<usize, CheckError> {
    let open = File::open(&file.path).map_err(|e| CheckError::io(&file.path, e))?;
    let source = BufReader::with_capacity(1 << 18, open);
    let mut reader = Reader::new(source, file.name.clone(), Format::Auto, BadRows::Skip(usize::MAX));
    let (mut ids, mut same, mut alike) = (HashSet::new(), HashSet::new(), HashSet::new());
    let mut rows = 0;
    loop {
        let mut chunk: Vec<(usize, Instruction)> = Vec::with_capacity(CHUNK);
        while chunk.len() < CHUNK {
            match reader.next() {
                Some(Ok(row)) => chunk.push((reader.report().lines, row)),
                Some(Err(e)) => tally.schema.add(e.to_string()),
                None => break,
            }
        }
        if chunk.is_empty() {
            break;
        }
        rows += chunk.len();
        let whole = reader.format() == Format::Instruct;
        let facts: Vec<Facts> = chunk.par_iter().map(|(_, row)| look.row(row, file.part, whole)).collect();
        for ((line, row), facts) in chunk.into_iter().zip(facts) {
            let place = format!("{}:{line}", file.name);
            if !ids.insert(facts.id) {
                tally.schema.add(format!("{place}: wanted an id that no other row has, found {:?} again", row.id));
            }
            if !same.insert(facts.same) {
                tally.same.add(format!("{place}: an earlier row has this task, input, candidates and output"));
            }
            tally.alike += usize::from(!alike.insert(facts.alike));
            if file.part == Part::HeldOut {
                look.wall_off(&row);
            }
            tally.add(UnitKey::new(file.part, &row), &place, row, facts, whole);
        }
        progress(rows);
    }
    let report = reader.report();
    // All prompts may be Chinese, and these have no other wording.
    if report.rows + report.skipped == 0 && file.part != Part::Paraphrase {
        tally.schema.add(format!("{}: wanted instructions, found none", file.name));
    }
    tally.schema.count += report.skipped;
    let room = NAMED.saturating_sub(tally.schema.first.len());
    tally.schema.first.extend(report.first_skipped.iter().take(room).cloned());
    match reader.format() {
        Format::Alpaca | Format::Messages => tally.foreign.push(file.name.clone()),
        Format::Instruct | Format::Auto => {}
    }
    Ok(rows)
}

/// What is wrong somewhere: how often, and the first few.
#[derive(Debug, Default)]
struct Faults {
    count: usize,
    first: Vec<String>,
}

impl Faults {
    fn add(&mut self, what: String) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(what);
        }
    }

    fn check(&self, name: &'static str, found: String, detail: Vec<String>) -> Check {
        let found = if self.count == 0 { found } else { format!("{} faults; {found}", self.count) };
        Check { name, passed: self.count == 0, found, faults: self.first.clone(), detail }
    }
}

impl Look {
    /// Puts the input of a held-out row, and its long lines, behind the wall.
    fn wall_off(&mut self, row: &Instruction) {
        self.wall.add_row(row);
        self.groups.insert(row::hash(&[&row.source, &row.group]));
        self.raw_ids.extend(row.raw_ids.first().map(|id| row::hash(&[id])));
    }
}

#[cfg(test)]
mod tests;
