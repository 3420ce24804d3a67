//! The recipe of a build: which raw data, which tasks, how much of each, how rendered, and what is held out. One TOML file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::BuildError;
use crate::instruction::{Kind, Lang};
use crate::raw::generic::Mapping;
use crate::raw::{Adapter, RawFile, Split, adapters};
use crate::shop;
use crate::task::{Make, Task, find, tasks};
use crate::wording::{PARADIGMS, Style};

/// All that decides a build. The same recipe, data and seed give the same bytes.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// Decides every draw.
    pub seed: u64,
    /// Folder of the known raw data sets.
    pub raw: PathBuf,
    /// Folders or files with evaluation sets that must not enter the data.
    pub evaluation: Vec<PathBuf>,
    /// Most instructions of one unit (task, source and language); 0 for no limit.
    pub cap: usize,
    /// Units with fewer instructions are dropped.
    pub floor: usize,
    /// Most atomic instructions made of one raw row.
    pub atomic_per_row: usize,
    /// Exponent that flattens unit sizes: 1 keeps them, 0 makes them equal as far as they reach.
    pub alpha: f64,
    /// Most training instructions, reached where cap and shares allow it; 0 for as many as these allow.
    pub size: usize,
    /// Whether rows and instructions that repeat are removed.
    pub deduplicate: bool,
    /// Limits on the mixture.
    pub shares: Shares,
    /// Which tasks.
    pub tasks: Tasks,
    /// How prompts are rendered.
    pub style: Style,
    /// The sources; all known ones where none are named.
    pub source: Vec<SourceRecipe>,
    /// The held-out sets.
    pub heldout: Vec<HeldOut>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            seed: 1,
            raw: PathBuf::from("raw"),
            evaluation: Vec::new(),
            cap: 800,
            floor: 100,
            atomic_per_row: 4,
            alpha: 0.5,
            size: 0,
            deduplicate: true,
            shares: Shares::default(),
            tasks: Tasks::default(),
            style: Style::default(),
            source: Vec::new(),
            heldout: Vec::new(),
        }
    }
}

/// Limits on the mixture, as shares of its tokens. They hold as far as the sources reach.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shares {
    /// The smaller of the two languages gets at least this share of the instructions.
    pub language: f64,
    /// Each basic data type gets at least this share.
    pub data_type: f64,
    /// No source gets more than this share.
    pub source: f64,
    /// Share of each paradigm.
    pub paradigm: BTreeMap<String, f64>,
}

impl Default for Shares {
    fn default() -> Self {
        let paradigm = [("CLS", 0.30), ("EXT", 0.25), ("GEN", 0.30), ("OTH", 0.15)];
        Self {
            language: 0.45,
            data_type: 0.15,
            source: 0.12,
            paradigm: paradigm.into_iter().map(|(name, share)| (name.to_owned(), share)).collect(),
        }
    }
}

/// Which tasks are built.
#[allow(clippy::struct_excessive_bools)] // each is a switch of the recipe file
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tasks {
    /// Final tasks.
    #[serde(rename = "final")]
    pub finals: bool,
    /// Atomic tasks.
    pub atomic: bool,
    /// Tasks in the format of a released evaluation set.
    pub format_twins: bool,
    /// Only these ids; all where empty.
    pub only: Vec<String>,
    /// Ids that never enter training; held-out sets of them are "unseen tasks".
    pub unseen: Vec<String>,
    /// Whether the outputs of atomic tasks are permuted within each unit: a control that teaches formats without sense.
    pub shuffle_atomic: bool,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            finals: true,
            atomic: true,
            format_twins: true,
            only: Vec::new(),
            unseen: Vec::new(),
            shuffle_atomic: false,
        }
    }
}

/// One source.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceRecipe {
    /// Name of a known data set, of the demo shop in one language, or a name for one's own.
    pub name: String,
    /// Share of the groups that stay out of training, for held-out sets; 1 for a data set that is never trained on.
    pub heldout: f64,
    /// Ids of tasks that training does not make of it, where its annotation is too poor for them. A held-out set may.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip: Vec<String>,
    /// Own data: the files, relative to the recipe.
    pub files: Vec<PathBuf>,
    /// Own data: its licence, for the manifest.
    pub licence: String,
    /// Own data: which columns hold what.
    #[serde(skip_serializing)]
    pub mapping: Option<Mapping>,
}

/// One held-out set.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOut {
    /// Name of the set and of its file.
    pub name: String,
    /// Source, with a share of groups held out.
    pub source: String,
    /// Task.
    pub task: String,
    /// Most items.
    #[serde(default = "items")]
    pub items: usize,
    /// SHA-256 of the set's file, where it must not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

fn items() -> usize {
    500
}

/// A source with all that is needed to read it.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) licence: String,
    pub(super) files: Vec<RawFile>,
    pub(super) how: How,
    pub(super) heldout: f64,
}

/// How the rows of a source become records.
#[derive(Debug)]
pub(super) enum How {
    Known(Adapter),
    Mapped(Box<Mapping>),
    /// Made in memory: the demo shop of this seed.
    Made(Lang, u64),
}

impl Recipe {
    /// The recipe for the known data sets.
    pub fn builtin() -> &'static str {
        include_str!("../../recipe.toml")
    }

    /// The recipe for the demo shop, which needs no raw data.
    pub fn demo() -> &'static str {
        include_str!("../shop/recipe.toml")
    }

    /// Reads a recipe; paths in it are relative to `folder`.
    ///
    /// # Errors
    /// The parser's message with its line.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, BuildError> {
        let mut recipe: Self = toml::from_str(text).map_err(|e| BuildError::Recipe(one_line(&e, text)))?;
        let place = |path: &mut PathBuf| *path = folder.join(&*path);
        place(&mut recipe.raw);
        recipe.evaluation.iter_mut().for_each(place);
        recipe.source.iter_mut().flat_map(|s| &mut s.files).for_each(place);
        recipe.check()?;
        Ok(recipe)
    }

    /// Whether a task is trained.
    pub fn trains(&self, task: &Task) -> bool {
        let chosen = &self.tasks;
        let kind = match task.kind() {
            Kind::Final => chosen.finals,
            Kind::Atomic => chosen.atomic,
            Kind::Control => false,
        };
        matches!(task.draft, Make::From(_))
            && kind
            && (chosen.format_twins || !task.twin)
            && (chosen.only.is_empty() || chosen.only.iter().any(|id| id == task.id))
            && !chosen.unseen.iter().any(|id| id == task.id)
    }

    /// Tasks that are not made of a source.
    pub(super) fn skipped(&self, source: &str) -> &[String] {
        self.source.iter().find(|s| s.name == source).map_or(&[], |s| s.skip.as_slice())
    }

    fn check(&self) -> Result<(), BuildError> {
        let bad = |what: String| Err(BuildError::Recipe(what));
        let ids = self.tasks.only.iter().chain(&self.tasks.unseen).chain(self.heldout.iter().map(|h| &h.task));
        let ids = ids.chain(self.source.iter().flat_map(|s| &s.skip));
        for id in ids {
            let known: Vec<&str> = tasks().iter().map(|t| t.id).collect();
            match find(id) {
                Some(task) if matches!(task.draft, Make::From(_)) => {}
                Some(Task { draft: Make::Never(why), .. }) => return bad(format!("task {id} cannot be built: {why}")),
                _ => return bad(format!("wanted a task id from {} to A68, found {id:?}", known[0])),
            }
        }
        let unit = |name: &str, value: f64, most: f64| match value / most {
            0.0..=1.0 => Ok(()),
            _ => Err(BuildError::Recipe(format!("{name}: wanted a number from 0 to {most}, found {value}"))),
        };
        unit("alpha", self.alpha, 1.0)?;
        unit("style.chinese_share", self.style.chinese_share, 1.0)?;
        unit("shares.language", self.shares.language, 0.5)?;
        unit("shares.data_type", self.shares.data_type, 1.0)?;
        unit("shares.source", self.shares.source, 1.0)?;
        for (name, share) in &self.shares.paradigm {
            if PARADIGMS.iter().all(|p| p.name() != name) {
                let known: Vec<&str> = PARADIGMS.iter().map(|p| p.name()).collect();
                return bad(format!("shares.paradigm: wanted names out of {}, found {name:?}", known.join(", ")));
            }
            unit(&format!("shares.paradigm.{name}"), *share, 1.0)?;
        }
        self.source.iter().try_for_each(SourceRecipe::check)?;
        for source in &self.source {
            if self.source.iter().filter(|s| s.name == source.name).count() > 1 {
                return bad(format!("source {:?} is there twice", source.name));
            }
        }
        self.heldout.iter().try_for_each(|held| self.check_heldout(held))
    }

    fn check_heldout(&self, held: &HeldOut) -> Result<(), BuildError> {
        let bad = |what: &str| Err(BuildError::Recipe(format!("held-out set {:?}: {what}", held.name)));
        let short = held.name.len() <= NAME;
        if !short
            || held.name.contains(['/', '\\'])
            || held.name.contains(char::is_control)
            || held.name.starts_with('.')
        {
            return bad(&format!("wanted a name that can be a file's, of at most {NAME} bytes"));
        }
        if held.name.is_empty() {
            return bad("wanted a name");
        }
        if self.heldout.iter().filter(|h| h.name == held.name).count() > 1 {
            return bad("it is there twice");
        }
        if held.items == 0 {
            return bad("items: wanted at least 1, found 0");
        }
        if let Some(sum) = &held.sha256
            && !(sum.len() == 64 && sum.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        {
            return bad(&format!("sha256: wanted 64 digits out of 0-9 and a-f, found {sum:?}"));
        }
        match self.source.iter().find(|s| s.name == held.source) {
            Some(source) if source.heldout > 0.0 => Ok(()),
            Some(_) => bad(&format!("source {:?} holds nothing out", held.source)),
            None => bad(&format!("no source {:?} in the recipe", held.source)),
        }
    }

    /// The sources, files looked up.
    pub(super) fn sources(&self) -> Result<Vec<Source>, BuildError> {
        if self.cap > 0 && self.cap < self.floor {
            let (cap, floor) = (self.cap, self.floor);
            return Err(BuildError::Recipe(format!("cap: wanted 0 or at least the floor of {floor}, found {cap}")));
        }
        let all: Vec<SourceRecipe> = if self.source.is_empty() {
            let named = |a: &Adapter| SourceRecipe { name: a.name.to_owned(), ..SourceRecipe::default() };
            adapters().iter().map(named).collect()
        } else {
            self.source.clone()
        };
        let mut sources = Vec::with_capacity(all.len());
        for source in all {
            sources.push(match (source.mapping, adapters().iter().find(|a| a.name == source.name)) {
                (Some(mapping), _) => {
                    let names = short_names(&source.files)
                        .map_err(|what| BuildError::Recipe(format!("source {:?}: {what}", source.name)))?;
                    let file = |(path, name): (&PathBuf, String)| {
                        let name = format!("{}/{name}", source.name);
                        RawFile { path: path.clone(), name, split: Split::Train }
                    };
                    for path in &source.files {
                        let found = std::fs::metadata(path).map_err(|e| BuildError::io(path, e))?;
                        if !found.is_file() {
                            return Err(BuildError::io(
                                path,
                                std::io::Error::other("wanted a file, found something else"),
                            ));
                        }
                    }
                    let files = source.files.iter().zip(names).map(file).collect();
                    let how = How::Mapped(Box::new(mapping));
                    Source { name: source.name, licence: source.licence, files, how, heldout: source.heldout }
                }
                (None, Some(adapter)) => Source {
                    name: source.name,
                    licence: adapter.licence.to_owned(),
                    files: adapter.locate(&self.raw).map_err(|e| BuildError::io(&self.raw.join(adapter.name), e))?,
                    how: How::Known(*adapter),
                    heldout: source.heldout,
                },
                (None, None) if shop::SOURCES.iter().any(|s| s.0 == source.name) => {
                    let lang = shop::SOURCES.iter().find(|s| s.0 == source.name).map(|s| s.1).unwrap_or_default();
                    let files = vec![RawFile { path: PathBuf::new(), name: source.name.clone(), split: Split::Train }];
                    let (licence, how) = (shop::LICENCE.to_owned(), How::Made(lang, self.seed));
                    Source { name: source.name, licence, files, how, heldout: source.heldout }
                }
                (None, None) => return Err(unknown(&source.name)),
            });
        }
        Ok(sources)
    }
}

/// What files go by in ids, wherever they are read from: their names without `.gz`, and of files of one name as many folders as tell
/// them apart.
pub(super) fn short_names(files: &[PathBuf]) -> Result<Vec<String>, String> {
    let parts = |path: &PathBuf| -> Vec<String> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let mut parts: Vec<String> = path.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect();
        if let Some(last) = parts.last_mut() {
            *last = last.strip_suffix(".gz").unwrap_or(last).to_owned();
        }
        parts.reverse();
        parts
    };
    let all: Vec<Vec<String>> = files.iter().map(parts).collect();
    let name = |own: &Vec<String>| {
        let tells = |n: &usize| all.iter().filter(|other| other.iter().take(*n).eq(own.iter().take(*n))).count() == 1;
        let n = (1..=own.len()).find(tells)?;
        Some(own.iter().take(n).rev().map(String::as_str).collect::<Vec<_>>().join("/"))
    };
    let named = |(path, own)| name(own).ok_or_else(|| format!("{} is there twice", Path::display(path)));
    files.iter().map(PathBuf::as_path).zip(&all).map(named).collect()
}

/// Longest name of a held-out set, in bytes: with its ending, a file's may have 255.
const NAME: usize = 200;

impl SourceRecipe {
    fn check(&self) -> Result<(), BuildError> {
        let bad = |what: &str| Err(BuildError::Recipe(format!("source {:?}: {what}", self.name)));
        if self.name.is_empty() || self.name.contains(char::is_control) {
            return bad("wanted a name");
        }
        if !(0.0..=1.0).contains(&self.heldout) {
            return bad(&format!("heldout: wanted a share from 0 to 1, found {}", self.heldout));
        }
        match &self.mapping {
            Some(_) if self.files.is_empty() => bad("wanted files, found none"),
            Some(mapping) if mapping.kinds() != 1 => bad(&format!(
                "wanted one of product, review, dialogue and query in the mapping, found {}",
                mapping.kinds()
            )),
            None if !is_known(&self.name) => Err(unknown(&self.name)),
            None if !self.files.is_empty() => bad("a known source has files of its own; those named want a mapping"),
            None if !self.licence.is_empty() => bad("a known source has a licence of its own; leave the key out"),
            _ => Ok(()),
        }
    }
}

fn is_known(source: &str) -> bool {
    adapters().iter().any(|a| a.name == source) || shop::SOURCES.iter().any(|s| s.0 == source)
}

fn unknown(source: &str) -> BuildError {
    let known: Vec<&str> = adapters().iter().map(|a| a.name).chain(shop::SOURCES.map(|s| s.0)).collect();
    BuildError::Recipe(format!(
        "source {source:?} is not known and has no [source.mapping]; known are {}",
        known.join(", ")
    ))
}

/// The parser's message with line and what is wrong, without its drawing of the line.
fn one_line(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    format!("line {line}: {}", error.message().replace('\n', " "))
}
