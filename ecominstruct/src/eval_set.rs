//! Evaluation sets: items with a prompt to answer and a gold answer, read from the released folders or from own records.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use self::released::released;
use crate::instruction::{Gold, Instruction, Lang, Paradigm};
use crate::prompt::render;
use crate::read::{BadRows, Format, ReadError, Reader};
use crate::score::parse;

mod released;

/// The released folder that is not in the official list of twelve; report it apart.
pub const EXTRA: &str = "ZH-Multi_CPR-CLS-query_item_matching";

/// Label sets above this size are shown as a drawn list of 2 to `MAX_CANDIDATES` labels.
pub const MAX_CANDIDATES: usize = 50;

/// Kind of a set, as in the name of its folder; decides how answers look and are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetKind {
    /// One label or several.
    Cls,
    /// Spans; in the released sets always one per item.
    Extract,
    /// All spans of any of the given types, without their types.
    ConditionExtract,
    /// Typed entities, one line per type.
    Ner,
    /// Free text.
    Generate,
}

impl SetKind {
    /// Name as in the released folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cls => "CLS",
            Self::Extract => "Extract",
            Self::ConditionExtract => "Condition_Extract",
            Self::Ner => "NER",
            Self::Generate => "Generate",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Cls, Self::Extract, Self::ConditionExtract, Self::Ner, Self::Generate]
            .into_iter()
            .find(|k| k.name() == name)
    }

    /// The paradigm it belongs to.
    pub fn paradigm(self) -> Paradigm {
        match self {
            Self::Cls => Paradigm::Cls,
            Self::Extract | Self::ConditionExtract => Paradigm::Ext,
            Self::Ner => Paradigm::Oth,
            Self::Generate => Paradigm::Gen,
        }
    }
}

/// One evaluation set: one task in one language.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalSet {
    /// Folder name, or `task-lang` for own records.
    pub name: String,
    /// Name of the task definition.
    pub definition: String,
    /// Kind of task.
    pub kind: SetKind,
    /// Language of the texts.
    pub lang: Lang,
    /// All labels or entity types in file order; empty where there are none.
    pub labels: Vec<String>,
    /// Separator in gold answers.
    pub label_sep: String,
    /// The items.
    pub items: Vec<EvalItem>,
}

/// One question of an [`EvalSet`].
#[derive(Debug, Clone, PartialEq)]
pub struct EvalItem {
    /// Unique within the set.
    pub id: String,
    /// Rendered prompt, with the marker that ends it.
    pub prompt: String,
    /// The text the question is about.
    pub text: String,
    /// Labels, types or texts to choose from, in the order shown; empty where there are none.
    pub candidates: Vec<String>,
    /// The answer as text.
    pub gold: String,
    /// The answer with its structure.
    pub answer: Gold,
}

/// Why an evaluation set cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// File or folder not readable.
    #[error("{path}: {source}")]
    Io {
        /// What was read.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not what it should be; `place` is `file` or `file:line`.
    #[error("{place}: {what}")]
    Content {
        /// File, and line where there is one.
        place: String,
        /// What was wanted.
        what: String,
    },
    /// A bad row among own records.
    #[error(transparent)]
    Row(#[from] ReadError),
    /// No items.
    #[error("{0}: no evaluation items")]
    Empty(String),
}

impl EvalError {
    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.display().to_string(), source }
    }

    fn content(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Content { place: place.into(), what: what.into() }
    }
}

/// Reads all evaluation sets at `path`, in order of name:
/// a released task folder (`meta-info.json` + `test.json`), a folder of data sets with `*/tasks/*` below it, a folder of
/// `.jsonl` files of own records, or one such file. `seed` draws candidate lists for label sets over [`MAX_CANDIDATES`].
///
/// # Errors
/// [`EvalError`], also when nothing is found.
pub fn read(path: &Path, seed: u64) -> Result<Vec<EvalSet>, EvalError> {
    read_all(&[path.to_path_buf()], seed)
}

/// Reads all evaluation sets at several such paths as if they were in one folder: records of one task and language make
/// one set, whichever files they are in.
///
/// # Errors
/// [`EvalError`], also when one of the paths holds nothing, or two sets or two records of a set have one name.
pub fn read_all(paths: &[PathBuf], seed: u64) -> Result<Vec<EvalSet>, EvalError> {
    let mut sets = Vec::new();
    let mut records = Records::default();
    for path in paths {
        let (sets_before, rows_before) = (sets.len(), records.rows.len());
        if !path.is_dir() {
            records.read(path)?;
        } else if is_task(path) {
            sets.push(released(path, seed)?);
        } else {
            for entry in entries(path)? {
                let tasks = entry.join("tasks");
                if tasks.is_dir() {
                    for folder in entries(&tasks)?.into_iter().filter(|f| is_task(f)) {
                        sets.push(released(&folder, seed)?);
                    }
                } else if entry.extension().is_some_and(|e| e == "jsonl") {
                    records.read(&entry)?;
                }
            }
        }
        if records.rows.len() == rows_before && sets[sets_before..].iter().all(|s| s.items.is_empty()) {
            return Err(EvalError::Empty(path.display().to_string()));
        }
    }
    sets.extend(from_instructions(&records.rows)?);
    sets.sort_by(|a, b| a.name.cmp(&b.name));
    match sets.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(EvalError::content(&pair[0].name, "this set is there twice")),
        None => Ok(sets),
    }
}

/// Whether this is a released task folder, or what is left of one.
fn is_task(folder: &Path) -> bool {
    folder.join("meta-info.json").is_file() || folder.join("test.json").is_file()
}

/// Entries of a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    let list = fs::read_dir(folder).and_then(|d| d.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>());
    let mut list = list.map_err(|e| EvalError::io(folder, e))?;
    list.sort();
    Ok(list)
}

/// The answer as the released sets write it: joined with `sep`; entities as one `Type: a, b` line per type of `types`, with
/// `None` for types without.
pub fn answer_text(answer: &Gold, types: &[String], sep: &str) -> String {
    match answer {
        Gold::Labels(list) | Gold::Spans(list) => list.join(sep),
        Gold::Text(text) => text.clone(),
        Gold::Entities(entities) => {
            let line = |kind: &String| {
                let values: Vec<&str> = entities.iter().filter(|e| e.kind == *kind).map(|e| e.text.as_str()).collect();
                format!("{kind}: {}", if values.is_empty() { "None".to_owned() } else { values.join(sep) })
            };
            types.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    }
}

/// Own records, of one file or several.
#[derive(Default)]
struct Records {
    rows: Vec<Instruction>,
    /// Where each id of each set was found.
    places: BTreeMap<(String, Lang, String), String>,
}

impl Records {
    fn read(&mut self, file: &Path) -> Result<(), EvalError> {
        let mut reader = Reader::open(file, Format::Auto, BadRows::Error)?;
        while let Some(row) = reader.next() {
            let row = row?;
            let place = format!("{}:{}", file.display(), reader.report().lines);
            let set = (task_name(&row).to_owned(), row.lang, row.id.clone());
            if let Some(before) = self.places.insert(set, place.clone()) {
                let set = format!("{}-{}", task_name(&row), row.lang.name());
                let what = format!("record {} of set {set} was already in {before}: wanted another id", row.id);
                return Err(EvalError::content(place, what));
            }
            self.rows.push(row);
        }
        Ok(())
    }
}

fn task_name(row: &Instruction) -> &str {
    if row.task.is_empty() { "untitled" } else { &row.task }
}

/// Makes evaluation sets of records, one per task and language, named `task-lang`, in order of name.
///
/// # Errors
/// [`EvalError::Content`] if one task has two paradigms.
pub fn from_instructions(rows: &[Instruction]) -> Result<Vec<EvalSet>, EvalError> {
    let mut sets: BTreeMap<(&str, Lang), EvalSet> = BTreeMap::new();
    for row in rows {
        let kind = match row.paradigm {
            Paradigm::Cls => SetKind::Cls,
            Paradigm::Ext => SetKind::Extract,
            Paradigm::Gen => SetKind::Generate,
            Paradigm::Oth => SetKind::Ner,
        };
        let task = task_name(row);
        let set = sets.entry((task, row.lang)).or_insert_with(|| EvalSet {
            name: format!("{task}-{}", row.lang.name()),
            definition: row.description.clone(),
            kind,
            lang: row.lang,
            labels: Vec::new(),
            label_sep: comma(),
            items: Vec::new(),
        });
        if set.kind != kind {
            let what = format!("task {task} is {} here and {} before", row.paradigm.name(), set.kind.paradigm().name());
            return Err(EvalError::content(format!("record {}", row.id), what));
        }
        let item = EvalItem {
            id: row.id.clone(),
            prompt: render(row).prompt,
            text: row.input.clone(),
            candidates: row.candidates.clone(),
            gold: row.output.clone(),
            answer: row.gold.clone().unwrap_or_else(|| parse::gold(kind, &row.output, &row.candidates)),
        };
        let gold_labels = if let Gold::Labels(labels) = &item.answer { labels.as_slice() } else { &[] };
        let named = if matches!(kind, SetKind::Cls | SetKind::Ner) { row.candidates.as_slice() } else { &[] };
        for label in named.iter().chain(gold_labels) {
            if !set.labels.contains(label) {
                set.labels.push(label.clone());
            }
        }
        set.items.push(item);
    }
    Ok(sets.into_values().collect())
}

fn comma() -> String {
    ", ".to_owned()
}
