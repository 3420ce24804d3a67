//! Builds `EcomInstruct`: raw data sets in, instruction data out.
//!
//! ```text
//! held-out rows and evaluation sets ─ firewall
//! raw files ─ adapters → records ─ blocks ─ firewall, duplicates → tasks → drafts → words → spool on disk
//!   ─ gate, balance: which keys stay → spool, in random order → train file, manifest, data card
//! ```
//! Memory depends on the size of a block and on the number of instructions (a key each), not on that of the raw data.
//! The same recipe, data and seed give the same bytes for any number of threads.

mod draft;
mod heldout;
pub mod manifest;
pub mod output;
pub mod recipe;
mod sieve;
mod size;
mod source;
mod spool;
#[cfg(test)]
mod tests;
pub mod trace;
mod unit;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::sync_channel;

use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};
use sha2::{Digest, Sha256};

use self::draft::{Format, Made, Maker, rows, shuffle};
use self::heldout::{HeldSet, heldout_blocks, wall_off};
use self::manifest::{FileEntry, HeldOutEntry, Manifest, SourceEntry, UnitEntry};
use self::recipe::{Recipe, Source};
use self::sieve::Sieve;
use self::source::{Border, blocks, must_have_rows};
use self::spool::{Entry, Spool};
use self::unit::{Ticket, Unit, balance};
use crate::dedup::Dedup;
use crate::eval_set;
use crate::firewall::Firewall;
use crate::instruction::{Lang, is_han};
use crate::shingle::Plain;
use crate::task::Task;
use crate::task::block::Block;
use crate::wording::Paraphrases;
pub use output::Output;

/// Why a build ends without data.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A wrong recipe.
    #[error("recipe: {0}")]
    Recipe(String),
    /// File not readable or writable.
    #[error("{path}: {source}")]
    Io {
        /// What was read or written.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// A source without a good row.
    #[error("{0}")]
    Rows(String),
    /// An evaluation set that cannot be read.
    #[error(transparent)]
    Evaluation(#[from] eval_set::EvalError),
    /// A held-out set that came out other than the recipe says.
    #[error("held-out set {name:?}: {what}")]
    HeldOut {
        /// Name of the set.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// Nothing to write.
    #[error("no instruction could be built: {0}")]
    Empty(String),
}

impl BuildError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.display().to_string(), source }
    }
}

/// What was wrong with the rows of a source.
#[derive(Debug, Clone, Default)]
struct Faults {
    records: usize,
    bad: usize,
    first: Vec<String>,
}

/// What the builder says while it works.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Source number `at` of `of` is being read; so many instructions wait.
    Source {
        /// Name.
        name: &'a str,
        /// Number, from 0.
        at: usize,
        /// Sources in all.
        of: usize,
        /// Instructions so far.
        made: usize,
    },
    /// Instructions are written.
    Writing {
        /// How many so far.
        at: usize,
        /// How many in all.
        of: usize,
    },
}

/// Rows handled in one go between two updates of what is still wanted. Part of the result: it must not depend on threads.
const CHUNK: usize = 2_048;

/// Runs a recipe and writes `train.*`, `heldout/*`, `manifest.json` and `README.md` (the data card) into `folder`.
///
/// # Errors
/// [`BuildError`]; what was written until then stays in `folder` for the caller to remove.
pub fn build(
    recipe: &Recipe,
    folder: &Path,
    output: Output,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Manifest, BuildError> {
    let sources = recipe.sources()?;
    let Walls { firewall, borders, sets } = Walls::raise(recipe, &sources)?;
    let maker = Maker::new(recipe, &firewall, output, |t| recipe.trains(t));
    let mut build = Build {
        recipe,
        maker: &maker,
        units: Vec::new(),
        places: BTreeMap::new(),
        spool: Spool::create(&folder.join(".spool")).map_err(|e| BuildError::io(folder, e))?,
        same: HashSet::default(),
        keys: HashSet::default(),
        dedup: Dedup::new(),
        counts: Counts::default(),
        formats: FxHashSet::default(),
        labels: HashSet::default(),
    };
    let mut entries = Vec::with_capacity(sources.len());
    for (at, (source, border)) in sources.iter().zip(&borders).enumerate() {
        progress(Progress::Source { name: &source.name, at, of: sources.len(), made: build.counts.made });
        entries.push(build.source(at, source, border)?);
    }
    let seed = recipe.seed;
    build.units.par_iter_mut().for_each(|u| u.run_gate(seed, recipe.floor));
    balance(&mut build.units, sources.len(), recipe);
    let wanted: usize = build.units.iter().map(Unit::quota).sum();
    if wanted == 0 {
        let read: usize = entries.iter().map(|e: &SourceEntry| e.records).sum();
        let (bad, walled): (usize, usize) =
            entries.iter().fold((0, 0), |(b, w), e| (b + e.bad_rows, w + e.walled.values().sum::<usize>()));
        let first =
            entries.iter().flat_map(|e| &e.first_bad_rows).next().map_or(String::new(), |b| format!(", first {b}"));
        let what = format!(
            "{read} records of {} sources were read, {bad} rows were bad{first}; the firewall left {walled} out; no unit reached \
             the floor of {}",
            sources.len(),
            recipe.floor
        );
        return Err(BuildError::Empty(what));
    }
    let Build { units, spool, counts, formats, labels, .. } = build;
    let mut files = vec![write_train(folder, output, spool, &units, wanted, progress)?];
    let mut entries_held = Vec::with_capacity(sets.len());
    for set in &sets {
        files.extend(set.write(folder)?);
        entries_held.push(HeldOutEntry::new(recipe, set, formats.contains(&set.format), &labels)?);
    }
    let mut unit_entries: Vec<UnitEntry> =
        units.iter().map(|u| UnitEntry::new(u, &sources[u.source].name, recipe)).collect();
    unit_entries.sort_by(|a, b| (&a.task, &a.source, a.lang).cmp(&(&b.task, &b.source, b.lang)));
    let manifest = Manifest::new(recipe, entries, unit_entries, entries_held, files, &counts);
    manifest.write(folder).map_err(|e| BuildError::io(folder, e))?;
    Ok(manifest)
}

/// What is held out, and the wall before it.
struct Walls<'a> {
    firewall: Firewall,
    borders: Vec<Border>,
    sets: Vec<HeldSet<'a>>,
}

impl<'a> Walls<'a> {
    fn raise(recipe: &'a Recipe, sources: &[Source]) -> Result<Self, BuildError> {
        let mut firewall = Firewall::new();
        for path in &recipe.evaluation {
            for set in eval_set::read(path, 0)? {
                wall_off(&mut firewall, &set);
            }
        }
        let borders = sources.iter().map(Border::survey).collect::<Result<Vec<_>, _>>()?;
        let heldout = heldout_blocks(recipe, sources, &borders, &mut firewall)?;
        let sets = recipe.heldout.iter().map(|h| HeldSet::make(recipe, h, &heldout)).collect::<Result<Vec<_>, _>>()?;
        for row in sets.iter().flat_map(|s| &s.rows[0]) {
            firewall.add_row(row);
        }
        Ok(Self { firewall, borders, sets })
    }
}

/// What happened to rows and instructions on their way.
#[derive(Debug, Default)]
struct Counts {
    made: usize,
    same: usize,
    walled: BTreeMap<&'static str, usize>,
}

/// A build under way.
struct Build<'a> {
    recipe: &'a Recipe,
    maker: &'a Maker<'a>,
    units: Vec<Unit>,
    places: BTreeMap<(&'static str, usize, Lang), usize>,
    spool: Spool,
    same: HashSet<u64, Plain>,
    keys: HashSet<u64, Plain>,
    dedup: Dedup,
    counts: Counts,
    formats: FxHashSet<Format>,
    /// Hashes of all labels to choose from.
    labels: HashSet<u64, Plain>,
}

impl Build<'_> {
    /// Reads one source and makes its instructions; a thread reads ahead.
    fn source(&mut self, at: usize, source: &Source, border: &Border) -> Result<SourceEntry, BuildError> {
        let mut entry = SourceEntry::new(source);
        let mut sieve = Sieve {
            firewall: self.maker.firewall,
            dedup: self.recipe.deduplicate.then(|| std::mem::take(&mut self.dedup)),
            walled: BTreeMap::new(),
            repeated: 0,
        };
        std::thread::scope(|scope| {
            let (sender, blocks_read) = sync_channel::<Block>(1);
            let sieve = &mut sieve;
            let reader = scope.spawn(move || {
                let mut faults = Faults::default();
                let read =
                    blocks(source, border, false, &mut faults, &mut |block| sender.send(sieve.sift(block)).is_ok());
                read.map(|()| faults)
            });
            let result = blocks_read.iter().try_for_each(|block| self.block(at, &block));
            drop(blocks_read);
            let read = reader.join().unwrap_or_else(|_| {
                Err(BuildError::Io { path: source.name.clone(), source: io::Error::other("the reading thread ended") })
            });
            result?;
            let faults = read?;
            must_have_rows(source, &faults)?;
            entry.faults(faults);
            Ok::<(), BuildError>(())
        })?;
        self.dedup = sieve.dedup.unwrap_or_default();
        (entry.walled, entry.repeated) = (sieve.walled, sieve.repeated);
        Ok(entry)
    }

    /// Makes the instructions of a block: while those of one chunk are filed, the next ones are made.
    fn block(&mut self, source: usize, block: &Block) -> Result<(), BuildError> {
        let chunks = rows(block).into_iter().flat_map(|(dtype, rows)| {
            let end = rows.end;
            rows.step_by(CHUNK).map(move |start| (dtype, start..end.min(start + CHUNK)))
        });
        let mut waiting = Vec::new();
        for (dtype, rows) in chunks {
            let limits = self.limits(source, block.lang);
            let wants = |task: &Task, class: &str, key: u64| {
                let limit = limits.get(task.id).and_then(|classes| classes.get(class));
                limit.is_none_or(|&limit| key <= limit)
            };
            let (maker, shuffled) = (self.maker, self.recipe.tasks.shuffle_atomic);
            let mut made: Vec<Vec<Made>> = Vec::new();
            let mut filed = Ok(());
            rayon::in_place_scope(|scope| {
                scope.spawn(|_| {
                    let row = |at| {
                        let mut made = maker.row(block, dtype, at, &wants, Paraphrases::Train);
                        if !shuffled {
                            made.iter_mut().for_each(Made::forget);
                        }
                        made
                    };
                    made = rows.into_par_iter().map(row).collect();
                });
                filed = self.take(source, block.lang, std::mem::take(&mut waiting));
            });
            filed?;
            waiting = made;
        }
        self.take(source, block.lang, waiting)
    }

    /// The largest keys that are still of use, by task and class, where a class has enough.
    fn limits(&self, source: usize, lang: Lang) -> FxHashMap<&'static str, FxHashMap<String, u64>> {
        let units = self.places.iter().filter(|((_, s, l), _)| (*s, *l) == (source, lang));
        let limits = units.filter_map(|((task, ..), &u)| Some((*task, self.units.get(u)?.limits(self.recipe.cap))));
        limits.filter(|(_, classes)| !classes.is_empty()).collect()
    }

    /// Files instructions with their units and puts them into the spool.
    fn take(&mut self, source: usize, lang: Lang, made: Vec<Vec<Made>>) -> Result<(), BuildError> {
        let mut made: Vec<Made> = made.into_iter().flatten().collect();
        for m in &made {
            let next = self.units.len();
            let place = *self.places.entry((m.task.id, source, lang)).or_insert(next);
            if place == next {
                self.units.push(Unit::new(m.task, source, lang));
            }
        }
        if self.recipe.tasks.shuffle_atomic {
            let places = &self.places;
            let find = |m: &Made| places.get(&(m.task.id, source, lang)).copied();
            shuffle(&mut made, &find, &self.units, self.recipe, self.maker.output);
        }
        for m in made {
            if let Some(hit) = m.hit {
                *self.counts.walled.entry(hit.name()).or_default() += 1;
                continue;
            }
            // A row that two files share has one key: its instruction is there already.
            if !self.keys.insert(m.ticket.key) || (self.recipe.deduplicate && !self.same.insert(m.sameness)) {
                self.counts.same += 1;
                continue;
            }
            let Some(&place) = self.places.get(&(m.task.id, source, lang)) else { continue };
            self.formats.insert(m.format);
            self.labels.extend(m.labels);
            let Ticket { key, class, .. } = &m.ticket;
            let entry = Entry { order: m.order, key: *key, unit: place as u32, class, line: &m.line };
            self.spool.add(&entry).map_err(|e| BuildError::Io { path: ".spool".into(), source: e })?;
            if let Some(unit) = self.units.get_mut(place) {
                unit.add(m.ticket, self.recipe.cap);
            }
            self.counts.made += 1;
        }
        Ok(())
    }
}

/// Writes what stays of the spool.
fn write_train(
    folder: &Path,
    output: Output,
    spool: Spool,
    units: &[Unit],
    wanted: usize,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<FileEntry, BuildError> {
    let path = folder.join(format!("train.{}", output.extension()));
    let fail = |e| BuildError::io(&path, e);
    let mut file = Written::create(&path, output).map_err(fail)?;
    let keep = |e: &Entry<'_>| units.get(e.unit as usize).is_some_and(|u| u.keeps(e.class, e.key));
    spool
        .drain(&keep, &mut |entry| {
            file.row(entry.line)?;
            if file.rows % 4096 == 0 {
                progress(Progress::Writing { at: file.rows, of: wanted });
            }
            Ok(())
        })
        .map_err(fail)?;
    progress(Progress::Writing { at: wanted, of: wanted });
    file.finish("train").map_err(fail)
}

/// A file being written, with its SHA-256.
struct Written {
    path: std::path::PathBuf,
    file: output::Sink,
    rows: usize,
}

impl Written {
    fn create(path: &Path, output: Output) -> io::Result<Self> {
        let file = Hashed { file: File::create(path)?, bytes: 0, hasher: Sha256::new() };
        let file = output::Sink::new(BufWriter::with_capacity(1 << 18, file), output)?;
        Ok(Self { path: path.to_path_buf(), file, rows: 0 })
    }

    fn row(&mut self, line: &[u8]) -> io::Result<()> {
        self.rows += 1;
        self.file.row(line)
    }

    fn finish(self, part: &str) -> io::Result<FileEntry> {
        let Hashed { bytes, hasher, .. } = self.file.finish()?.into_inner()?;
        let name = self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let name = if part == "train" { name } else { format!("{part}/{name}") };
        Ok(FileEntry { name, rows: self.rows, bytes, sha256: hex(&hasher.finalize()) })
    }
}

/// A file that is hashed as it is written.
pub struct Hashed {
    file: File,
    bytes: u64,
    hasher: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buffer)?;
        self.hasher.update(buffer.get(..n).unwrap_or_default());
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// SHA-256 of a file, in hex.
///
/// # Errors
/// If it cannot be read.
pub fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 18]);
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hex(&hasher.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).filter_map(|d| char::from_digit(d.into(), 16)).collect()
}

/// Tokens of a text, estimated without a tokenizer: a character each for Chinese, a third of a token for a letter, one for other
/// signs. The manifest says that these are estimates; `ecom data stats --tokenizer` counts.
pub(crate) fn tokens(text: &str) -> usize {
    let (mut han, mut letters, mut other) = (0usize, 0usize, 0usize);
    for c in text.chars() {
        match c {
            ' ' | '0'..='9' | 'A'..='Z' | 'a'..='z' => letters += 1,
            '\0'..='\x7F' => other += 1,
            _ if is_han(c) => han += 1,
            _ if c.is_alphanumeric() => letters += 1,
            _ => other += 1,
        }
    }
    han * 2 / 3 + letters / 4 + other
}
