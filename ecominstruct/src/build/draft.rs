//! From the records of a block to instructions: which tasks a row feeds, their drafts, words and tickets.

use std::collections::BTreeMap;
use std::ops::Range;

use super::heldout::texts;
use super::recipe::Recipe;
use super::source::hash;
use super::unit::{NONE, Sides, Ticket, Unit};
use super::{Output, tokens};
use crate::firewall::{Firewall, Hit};
use crate::instruction::{DataType, Instruction, Kind, Paradigm};
use crate::record::Meta;
use crate::shingle::distinct;
use crate::splitmix::SplitMix;
use crate::task::block::Block;
use crate::task::{Answer, Draft, GateKind, Make, Task};
use crate::wording::{Paraphrases, Wording};

/// What is needed to make instructions.
pub(super) struct Maker<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) wording: &'a Wording,
    pub(super) firewall: &'a Firewall,
    /// The tasks to make, by record type.
    pub(super) tasks: Vec<(DataType, Vec<&'static Task>)>,
    pub(super) output: Output,
}

/// An instruction with what decides about it.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) task: &'static Task,
    pub(super) ticket: Ticket,
    pub(super) order: u64,
    /// Hash of what makes it the same as another.
    pub(super) sameness: u64,
    pub(super) instruction: Instruction,
    pub(super) line: Vec<u8>,
    /// What the firewall says about the text shown.
    pub(super) hit: Option<Hit>,
    /// Format of question and answer, to tell whether a held-out format was trained.
    pub(super) format: Format,
    /// Hashes of the labels to choose from.
    pub(super) labels: Vec<u64>,
}

impl Made {
    /// Lets the texts go that are in the line already.
    pub(super) fn forget(&mut self) {
        self.instruction = Instruction::default();
    }
}

/// What records of each type there are in a block, as one list of numbers.
pub(super) fn rows(block: &Block) -> [(DataType, Range<usize>); 4] {
    [
        (DataType::Product, 0..block.products.len()),
        (DataType::Review, 0..block.reviews.len()),
        (DataType::Dialogue, 0..block.dialogues.len()),
        (DataType::Query, 0..block.queries.len()),
    ]
}

pub(super) fn meta(block: &Block, dtype: DataType, at: usize) -> Option<&Meta> {
    match dtype {
        DataType::Product => block.products.get(at).map(|r| &r.meta),
        DataType::Review => block.reviews.get(at).map(|r| &r.meta),
        DataType::Dialogue => block.dialogues.get(at).map(|r| &r.meta),
        DataType::Query => block.queries.get(at).map(|r| &r.meta),
    }
}

/// How often a record is drawn from: a long dialogue has many places to ask about, and each is a row of its source.
fn views(block: &Block, dtype: DataType, at: usize) -> usize {
    match dtype {
        DataType::Dialogue => block.dialogues.get(at).map_or(1, |d| (d.turns.len() / 5).clamp(1, 8)),
        _ => 1,
    }
}

impl<'a> Maker<'a> {
    /// A maker of the tasks that `wanted` lets pass.
    pub(super) fn new(
        recipe: &'a Recipe,
        firewall: &'a Firewall,
        output: Output,
        wanted: impl Fn(&Task) -> bool,
    ) -> Self {
        let types = [DataType::Product, DataType::Review, DataType::Dialogue, DataType::Query];
        let all = crate::task::tasks();
        let of = |dtype| all.iter().copied().filter(|t| t.dtype == dtype && wanted(t)).collect();
        let tasks = types.into_iter().map(|dtype| (dtype, of(dtype))).collect();
        Self { recipe, wording: Wording::builtin(), firewall, tasks, output }
    }

    /// The instructions of one record: every final task it feeds, and up to the recipe's number of atomic ones, chosen by hash.
    /// `wants` says whether an instruction of a task and class with a key can still be of use.
    pub(super) fn row(
        &self,
        block: &Block,
        dtype: DataType,
        at: usize,
        wants: &dyn Fn(&Task, &str, u64) -> bool,
        which: Paraphrases,
    ) -> Vec<Made> {
        let Some(meta) = meta(block, dtype, at) else { return Vec::new() };
        let Some((_, tasks)) = self.tasks.iter().find(|t| t.0 == dtype) else { return Vec::new() };
        // Single texts of the record passed the wall with it.
        let passed: Vec<u64> = texts(block, dtype, at).iter().map(|text| hash(&[text])).collect();
        let skip = self.recipe.skipped(&block.source);
        let open = || tasks.iter().filter(|t| !skip.iter().any(|id| id == t.id));
        let mut made = Vec::new();
        for view in 0..views(block, dtype, at) {
            let name = if view == 0 { meta.raw_id.clone() } else { format!("{}~{view}", meta.raw_id) };
            let mut order: Vec<(bool, u64, &'static Task)> =
                open().map(|&t| (t.kind() == Kind::Atomic, hash(&[t.id, &name]) ^ self.recipe.seed, t)).collect();
            order.sort_by_key(|&(atomic, hash, _)| (atomic, hash));
            let mut atomic = 0;
            for (_, _, task) in order {
                if task.kind() == Kind::Atomic && atomic == self.recipe.atomic_per_row {
                    break;
                }
                let Some(draft) = self.draft(task, block, &name, at) else { continue };
                atomic += usize::from(task.kind() == Kind::Atomic);
                let class = class(&draft);
                let key = SplitMix::stream(self.recipe.seed, hash(&["key", task.id, &name])).next_u64();
                if wants(task, &class, key) {
                    let words = self.word(task, &draft, block, (meta, &name), (class, key), which);
                    made.extend(words.map(|m| self.walled(m, &passed, &draft.fills)));
                }
            }
        }
        made
    }

    fn rng(&self, what: &str, task: &Task, name: &str) -> SplitMix {
        SplitMix::stream(self.recipe.seed, hash(&[what, task.id, name]))
    }

    /// The draft of record `at` by a task; `name` is the record's raw id, with the number of the view after the first.
    pub(super) fn draft(&self, task: &Task, block: &Block, name: &str, at: usize) -> Option<Draft> {
        let Make::From(make) = task.draft else { return None };
        make(block, at, &mut self.rng("draft", task, name))
    }

    pub(super) fn word(
        &self,
        task: &'static Task,
        draft: &Draft,
        block: &Block,
        (meta, name): (&Meta, &str),
        (class, key): (String, u64),
        which: Paraphrases,
    ) -> Option<Made> {
        let mut rng = self.rng("words", task, name);
        let words = self.wording.word(task, draft, block.lang, &self.recipe.style, which, &mut rng)?;
        if words.output.trim().is_empty() {
            return None;
        }
        let n = tokens(&words.input) + tokens(&words.prompt);
        let instruction = Instruction {
            id: format!("{}:{name}", task.id),
            source: block.source.clone(),
            source_split: block.split.name().to_owned(),
            raw_ids: std::iter::once(&meta.raw_id).chain(&draft.others).cloned().collect(),
            group: meta.group.clone(),
            ..words
        };
        // Longer than the context window of a run with the paper's settings, or than an answer is allowed to be.
        let answer = tokens(&instruction.output);
        if n > 900 || answer > 400 {
            return None;
        }
        let sameness = hash(&[task.id, &instruction.input, &instruction.prompt_content(), &instruction.output]);
        let ticket = Ticket { key, class, sides: sides(task, draft), tokens: n + answer, written: n + answer };
        let order = SplitMix::stream(!self.recipe.seed, hash(&["order", &instruction.id])).next_u64();
        let format = format(task, draft);
        let labelled = task.paradigm == Paradigm::Cls;
        let labels = instruction.candidates.iter().filter(|_| labelled).map(|label| hash(&[label])).collect();
        Some(Made { task, ticket, order, sameness, instruction, line: Vec::new(), hit: None, format, labels })
    }

    /// Asks the firewall, and writes the line where it says nothing. `passed` are texts that it was asked about before, `fills` is
    /// what the prompt holds of the data.
    fn walled(&self, mut made: Made, passed: &[u64], fills: &[(&str, String)]) -> Made {
        let shown = &made.instruction.input;
        if shown.contains('\n') || !passed.contains(&hash(&[shown])) {
            made.hit = self.firewall.check_row(&made.instruction).map(|(hit, _)| hit);
        }
        // Without fills a prompt is the project's own words and the candidates.
        let prompt = Some(&made.instruction.prompt).filter(|_| !fills.is_empty());
        let parts = made.instruction.candidates.iter().chain(prompt);
        let mut unknown = parts.filter(|text| !passed.contains(&hash(&[text])));
        made.hit = made.hit.or_else(|| unknown.find_map(|text| self.firewall.check_part(text)));
        if made.hit.is_none() && !self.recipe.tasks.shuffle_atomic {
            made.line = self.output.line(&made.instruction);
        }
        made
    }
}

impl Instruction {
    /// What of the prompt comes from the data: two questions about one text differ in it, two wordings of one question not.
    fn prompt_content(&self) -> String {
        let mut shown = self.candidates.clone();
        shown.sort_unstable();
        shown.concat()
    }
}

/// The class to balance by.
fn class(draft: &Draft) -> String {
    match (&draft.class, &draft.answer) {
        (Some(class), _) => class.clone(),
        (None, Answer::Nth(n) | Answer::NthOfThree(n)) => n.to_string(),
        (None, Answer::Labels(labels)) => labels.join(", "),
        (None, Answer::Spans(spans)) if spans.is_empty() => NONE.to_owned(),
        _ => String::new(),
    }
}

/// What the gate looks at.
fn sides(task: &Task, draft: &Draft) -> Option<Sides> {
    let fills = || draft.fills.iter().map(|f| f.1.as_str()).collect::<Vec<_>>().join(" ");
    match task.gate? {
        GateKind::Match => {
            let (Answer::Nth(n), Some((_, first))) = (&draft.answer, draft.input.first()) else { return None };
            let second = draft.input.get(1).map_or_else(fills, |p| p.1.clone());
            Some(Sides::Match { first: first.clone(), second, yes: *n == 0 })
        }
        GateKind::Select => {
            let Answer::Spans(gold) = &draft.answer else { return None };
            let gold = gold.first()?;
            let options: Vec<String> = draft.input.iter().filter(|p| p.0 == "option").map(|p| p.1.clone()).collect();
            let mut question: Vec<&str> =
                draft.input.iter().filter(|p| p.0 != "option").map(|p| p.1.as_str()).collect();
            let fills = fills();
            question.push(&fills);
            let question = question.join("\n");
            if options.is_empty() {
                let at = draft.candidates.iter().position(|c| c == gold)?;
                Some(Sides::Select { question, candidates: draft.candidates.clone(), gold: at })
            } else {
                let at = gold.parse::<usize>().ok()?.checked_sub(1)?;
                Some(Sides::Select { question, candidates: options, gold: at })
            }
        }
    }
}

/// The form of a question and its answer, whatever they are about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Format {
    paradigm: Paradigm,
    answer: &'static str,
    /// Parts of the input, sorted, each once.
    parts: Vec<&'static str>,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} about {}", self.paradigm.name(), self.answer, self.parts.join(" + "))
    }
}

fn format(task: &Task, draft: &Draft) -> Format {
    let answer = match &draft.answer {
        Answer::Nth(_) | Answer::NthOfThree(_) => "one of fixed words",
        Answer::Labels(_) => "labels",
        Answer::Spans(_) if !draft.candidates.is_empty() => "one of several texts",
        Answer::Spans(_) => "spans",
        Answer::Entities(_) => "typed lines",
        Answer::Text(_) => "text",
    };
    Format { paradigm: task.paradigm, answer, parts: distinct(draft.input.iter().map(|p| p.0)) }
}

/// Gives each instruction of a unit the answer of another one of it: the control that teaches formats without sense.
pub(super) fn shuffle(
    made: &mut [Made],
    units: &dyn Fn(&Made) -> Option<usize>,
    all: &[Unit],
    recipe: &Recipe,
    output: Output,
) {
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, m) in made.iter().enumerate() {
        if let Some(unit) = units(m).filter(|&u| all.get(u).is_some_and(|u| super::unit::shuffled(u, recipe))) {
            members.entry(unit).or_default().push(i);
        }
    }
    for (unit, list) in members {
        let mut answers: Vec<_> =
            list.iter().map(|&i| (made[i].instruction.output.clone(), made[i].instruction.gold.clone())).collect();
        SplitMix::stream(recipe.seed, hash(&["shuffle", &unit.to_string()])).shuffle(&mut answers);
        for (&i, (text, gold)) in list.iter().zip(answers) {
            let own = tokens(&made[i].instruction.output);
            made[i].ticket.written = made[i].ticket.tokens - own + tokens(&text);
            made[i].instruction.output = text;
            made[i].instruction.gold = gold;
            made[i].instruction.kind = Kind::Control;
        }
    }
    for m in made.iter_mut().filter(|m| m.hit.is_none()) {
        m.line = output.line(&m.instruction);
    }
}
