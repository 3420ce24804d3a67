//! The tasks of `EcomInstruct`: 35 final ones and 68 atomic "Chain-of-Task" ones derived from the same gold annotations.
//!
//! A task is a small function from one record, in the company of its block, to a [`Draft`]: a question without its wording.
//! It returns `None` where the record lacks the annotation. Wording, language, rendering and balance are not its business.
//! Sources: `EcomGPT` (arXiv 2308.06966), sections 2 and 3; task ids are this project's.

pub mod block;
mod dialogue;
pub mod inventory;
pub mod near;
mod product;
mod query;
mod review;
mod texts;

use crate::instruction::{DataType, Entity, Kind, Paradigm, Strategy};
use crate::record::Polarity;
use crate::splitmix::SplitMix;
use block::Block;

/// One task.
#[derive(Debug, Clone, Copy)]
pub struct Task {
    /// `F01` to `F35` for final tasks, `A01` to `A68` for atomic ones.
    pub id: &'static str,
    /// Record type it is made of.
    pub dtype: DataType,
    /// How its answers are scored.
    pub paradigm: Paradigm,
    /// How it was derived; [`Strategy::None`] for final tasks.
    pub strategy: Strategy,
    /// The final tasks it was derived from.
    pub parents: &'static [&'static str],
    /// Whether it asks in the format of one of the released evaluation sets ("format twin").
    pub twin: bool,
    /// What the hard-negative gate checks.
    pub gate: Option<GateKind>,
    /// Makes the draft of record number `usize` of its type; `None` where the record cannot feed the task.
    pub draft: Make,
}

/// What makes a task's drafts.
#[derive(Debug, Clone, Copy)]
pub enum Make {
    /// From record number `n` of the block's list of the task's type. The numbers are the task's own: the same seed draws
    /// the same draft.
    From(fn(&Block, usize, &mut SplitMix) -> Option<Draft>),
    /// No record type holds what it needs; says what that would be.
    Never(&'static str),
}

/// Which shortcut the hard-negative gate looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateKind {
    /// Two texts go together or not: [`Answer::Nth`] 0 or 1 about the first two parts of the input (about the first part and
    /// the fillings of the prompt, where the input has one part).
    Match,
    /// One of several texts belongs to the question: an [`Answer::Spans`] of one of the candidates, or the number of one of
    /// the `option` parts.
    Select,
}

impl Task {
    /// Final or atomic.
    pub fn kind(&self) -> Kind {
        if self.id.starts_with('F') { Kind::Final } else { Kind::Atomic }
    }
}

/// A question before it is worded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Draft {
    /// Parts of the input: key of the part's name in the wording's `[field]` section, and text. A single part is shown
    /// without its name, several as `Name: text` lines, parts called `option` as numbered lines from 1.
    pub input: Vec<(&'static str, String)>,
    /// Fillings of the prompt's `{name}`. `{labels}`, `{types}`, `{attrs}` and `{slots}` are filled with the candidates.
    pub fills: Vec<(&'static str, String)>,
    /// What to choose from, or the types asked for, in the order shown. Empty for [`Answer::Nth`]: the wording knows those.
    pub candidates: Vec<String>,
    /// The answer.
    pub answer: Answer,
    /// Class to balance by, where it is not the answer's label (an empty list of spans is a class of its own anyway).
    pub class: Option<String>,
    /// `raw_id`s of the other records used.
    pub others: Vec<String>,
}

/// The answer of a draft. Texts may hold [`polarity_mark`]s.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Number `n` of the labels that the task's wording lists (`yes, no`; `positive, negative, neutral`).
    Nth(usize),
    /// As [`Answer::Nth`] of the wording's `labels3`, which adds a neutral label.
    NthOfThree(usize),
    /// Labels out of the candidates, in the order of the candidates.
    Labels(Vec<String>),
    /// Words copied from the input or from the candidates; none is the answer `None`.
    Spans(Vec<String>),
    /// One `Type: words, words` line for each candidate, `None` for types without words. Without candidates, one line for
    /// each type in order of first appearance.
    Entities(Vec<Entity>),
    /// Free text.
    Text(String),
}

impl Default for Answer {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Draft {
    /// A draft on one text.
    pub fn new(field: &'static str, text: impl Into<String>, answer: Answer) -> Self {
        Self { input: vec![(field, text.into())], answer, ..Self::default() }
    }

    /// Adds a part to the input.
    pub fn part(mut self, field: &'static str, text: impl Into<String>) -> Self {
        self.input.push((field, text.into()));
        self
    }

    /// Fills `{name}` of the prompt.
    pub fn fill(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.fills.push((name, text.into()));
        self
    }

    /// Sets what to choose from.
    pub fn candidates(mut self, candidates: Vec<String>) -> Self {
        self.candidates = candidates;
        self
    }

    /// Notes other records that were used.
    pub fn others(mut self, raw_ids: impl IntoIterator<Item = String>) -> Self {
        self.others.extend(raw_ids);
        self
    }
}

/// Stands for the word of a polarity in any text of a draft; the wording puts the word of the prompt's language there.
pub fn polarity_mark(polarity: Polarity) -> char {
    match polarity {
        Polarity::Positive => '\u{E000}',
        Polarity::Negative => '\u{E001}',
        Polarity::Neutral => '\u{E002}',
    }
}

/// `yes` as [`Answer::Nth`]: the first label of the wording means yes.
pub fn either(yes: bool) -> Answer {
    Answer::Nth(usize::from(!yes))
}

/// True `percent` times in a hundred.
pub fn chance(rng: &mut SplitMix, percent: usize) -> bool {
    rng.below(100) < percent
}

/// One of `items`.
pub fn pick<'a, T>(rng: &mut SplitMix, items: &'a [T]) -> Option<&'a T> {
    items.get(rng.below(items.len()))
}

/// The gold text among the others in random order; `None` unless all are different and there are at least two.
pub fn select(gold: &str, others: impl IntoIterator<Item = String>, rng: &mut SplitMix) -> Option<Vec<String>> {
    let mut list: Vec<String> = vec![gold.to_owned()];
    for other in others {
        if list.contains(&other) {
            return None;
        }
        list.push(other);
    }
    rng.shuffle(&mut list);
    (list.len() >= 2).then_some(list)
}

/// All 103 tasks, final ones first, in order of id.
pub fn tasks() -> Vec<&'static Task> {
    let mut all: Vec<&'static Task> =
        [product::TASKS, review::TASKS, dialogue::TASKS, query::TASKS].into_iter().flatten().collect();
    all.sort_by_key(|t| (t.kind(), t.id));
    all
}

/// The task of an id.
pub fn find(id: &str) -> Option<&'static Task> {
    tasks().into_iter().find(|t| t.id == id)
}
