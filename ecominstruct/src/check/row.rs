//! What one row says about itself: all that can be found out without the others.

use std::collections::{BTreeMap, HashSet};

use unicode_normalization::UnicodeNormalization;

use super::{Firewall, Part};
use crate::build::tokens;
use crate::eval_set::{SetKind, from_instructions};
use crate::instruction::{DataType, Gold, Instruction, Kind, Lang, Paradigm};
use crate::score;
use crate::score::parse::{self, list, normal, typed_lines};
use crate::splitmix::SplitMix;
use crate::task::{self, Task};
use crate::wording::Wording;

/// Most estimated tokens of input and prompt, and of an answer.
pub(super) const LIMITS: (usize, usize) = (900, 400);

/// What a row can be wrong about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    Schema,
    RoundTrip,
    Score,
    Candidates,
    Copies,
    Lengths,
    Overlap,
    Templates,
}

/// All that the checks need to know of a row, beside the row.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) faults: Vec<(Topic, String)>,
    pub(super) id: u64,
    /// Hash of task, input, candidates and output.
    pub(super) same: u64,
    /// Hash of task, input and output.
    pub(super) alike: u64,
    /// Id of the task.
    pub(super) task: Option<&'static str>,
    /// Number of the answer among the task's fixed labels, and how many there are.
    pub(super) fixed: Option<(usize, usize)>,
    /// The single label of other rows.
    pub(super) label: Option<String>,
    /// Place of the only right candidate, and how many there are; none where their order is fixed.
    pub(super) position: Option<(usize, usize)>,
    /// Whether nothing fits, for extraction.
    pub(super) none: Option<bool>,
    /// Whether the input's language is the one named, where it has enough letters to tell.
    pub(super) input_lang: Option<bool>,
    pub(super) prompt_lang: Option<bool>,
    /// Estimated tokens of input and prompt, and of the answer.
    pub(super) tokens: (usize, usize),
}

/// What rows are held against.
pub(super) struct Look {
    pub(super) wall: Firewall,
    /// Hashes of held-out sources' groups, and of held-out raw rows.
    pub(super) groups: HashSet<u64>,
    pub(super) raw_ids: HashSet<u64>,
    /// Labels in a fixed order: of a task, a list for each paraphrase.
    labels: BTreeMap<&'static str, Vec<Vec<String>>>,
    /// Paraphrases of a task in English and Chinese.
    paraphrases: BTreeMap<&'static str, [usize; 2]>,
}

/// A number that depends on the texts and nothing else.
pub(super) fn hash(parts: &[&str]) -> u64 {
    use std::hash::Hasher;
    let mut hasher = rustc_hash::FxHasher::default();
    for part in parts {
        hasher.write_u64(part.len() as u64);
        hasher.write(part.as_bytes());
    }
    SplitMix::new(hasher.finish()).next_u64()
}

impl Look {
    pub(super) fn new() -> Self {
        // Part of the program, and read by its tests.
        let words: toml::Table = toml::from_str(include_str!("../wording/tasks.toml")).unwrap_or_default();
        let (mut labels, mut paraphrases) = (BTreeMap::new(), BTreeMap::new());
        for task in task::tasks() {
            let Some(words) = words.get(task.id) else { continue };
            let count = |lang: &str| words.get(lang).and_then(toml::Value::as_array).map_or(0, Vec::len);
            paraphrases.insert(task.id, [count("en"), count("zh")]);
            let mut lists: Vec<Vec<String>> = Vec::new();
            for key in ["labels", "labels3"] {
                let both = words.get(key).into_iter().flat_map(|v| ["en", "zh"].map(|lang| v.get(lang)));
                for list in both.flatten().filter_map(toml::Value::as_array).flatten() {
                    let list = list.as_array().into_iter().flatten().filter_map(toml::Value::as_str);
                    lists.push(list.map(str::to_owned).collect());
                }
            }
            labels.insert(task.id, lists);
        }
        Self { wall: Firewall::new(), groups: HashSet::new(), raw_ids: HashSet::new(), labels, paraphrases }
    }

    /// Paraphrases of a task: in English, in Chinese.
    pub(super) fn paraphrases(&self, task: &str) -> [usize; 2] {
        self.paraphrases.get(task).copied().unwrap_or_default()
    }

    /// Looks at one row. `whole` says that it came as a record, not as bare question and answer.
    pub(super) fn row(&self, row: &Instruction, part: Part, whole: bool) -> Facts {
        let mut shown = row.candidates.clone();
        shown.sort_unstable();
        // Answers that belong to other rows do not tell questions apart: there, the whole prompt and the raw rows do.
        let control = row.kind == Kind::Control;
        let prompt = if whole && !control { "" } else { &row.prompt };
        let raw = if control { row.raw_ids.concat() } else { String::new() };
        let mut facts = Facts {
            id: hash(&[&row.id]),
            same: hash(&[&row.task, &row.input, &shown.concat(), &row.output, prompt, &raw]),
            alike: hash(&[&row.task, &row.input, &row.output]),
            ..Facts::default()
        };
        lengths(row, &mut facts);
        if part == Part::Train {
            self.overlap(row, &mut facts);
        }
        if row.prompt.trim().is_empty() {
            facts.fault(Topic::Schema, "wanted a prompt, found none".to_owned());
        }
        if !whole {
            return facts;
        }
        let task = schema(row, part, &mut facts);
        facts.task = task.map(|t| t.id);
        if let Some(task) = task.filter(|_| !row.prompt.trim().is_empty()) {
            self.template(row, task, part, &mut facts);
        }
        languages(row, &mut facts);
        // A row of the wrong shape is not looked into; the control experiment's answers belong to other rows on purpose.
        let sound = facts.faults.iter().all(|(topic, _)| *topic != Topic::Schema);
        if sound && row.kind != Kind::Control {
            self.answer(row, &mut facts);
        }
        facts
    }

    fn template(&self, row: &Instruction, task: &Task, part: Part, facts: &mut Facts) {
        let mut wrong = |what: String| facts.fault(Topic::Templates, what);
        let start = format!("{}-{}-", task.id, row.prompt_lang.name());
        let Some(number) = row.template_id.strip_prefix(&start) else {
            return wrong(format!("template_id: wanted {start}… (task, prompt_lang), found {:?}", row.template_id));
        };
        let misfit = Wording::builtin().misfit(task, number, row);
        if number == "generic" {
            return misfit.into_iter().for_each(wrong);
        }
        let [en, zh] = self.paraphrases(task.id);
        let last = if row.prompt_lang == Lang::En { en } else { zh };
        match number.parse::<usize>() {
            Ok(n) if n == 0 || n > last => wrong(format!("template_id: wanted a number from 1 to {last}, found {n}")),
            Ok(n) if part == Part::Paraphrase && n != last => {
                wrong(format!("wanted the held-out paraphrase {start}{last}, found {:?}", row.template_id));
            }
            Ok(n) if part != Part::Paraphrase && n == last && row.prompt_lang == Lang::En => {
                wrong(format!("{:?} is the held-out paraphrase, wanted another one here", row.template_id));
            }
            Ok(_) => misfit.into_iter().for_each(wrong),
            Err(_) => wrong(format!("template_id: wanted {start}NUMBER, found {:?}", row.template_id)),
        }
    }

    fn overlap(&self, row: &Instruction, facts: &mut Facts) {
        let first = self.wall.check_row(row).map(|(hit, text)| {
            let shown: String = text.chars().take(60).collect();
            format!("{shown:?} is in a held-out set ({})", hit.name())
        });
        let within = || {
            let parts = row.candidates.iter().map(|c| ("candidate", c)).chain([("prompt", &row.prompt)]);
            parts.into_iter().find_map(|(what, text)| {
                let hit = self.wall.check_part(text)?;
                let shown: String = text.chars().take(60).collect();
                Some(format!("{what} {shown:?} holds text of a held-out set ({})", hit.name()))
            })
        };
        let raw = || row.raw_ids.iter().find(|id| self.raw_ids.contains(&hash(&[id])));
        if let Some(what) = first.or_else(within) {
            facts.fault(Topic::Overlap, what);
        } else if let Some(id) = raw() {
            facts.fault(Topic::Overlap, format!("raw row {id:?} is held out"));
        } else if !row.group.is_empty() && self.groups.contains(&hash(&[&row.source, &row.group])) {
            facts.fault(Topic::Overlap, format!("group {:?} of {} is held out", row.group, row.source));
        }
    }

    /// The answer: read back, scored, held against candidates and input.
    fn answer(&self, row: &Instruction, facts: &mut Facts) {
        let Some(gold) = &row.gold else { return };
        let kind = match row.paradigm {
            Paradigm::Cls => SetKind::Cls,
            Paradigm::Ext => SetKind::Extract,
            Paradigm::Oth => SetKind::Ner,
            Paradigm::Gen => SetKind::Generate,
        };
        let wanted = canonical(gold);
        let found = canonical(&parse::gold(kind, &row.output, &row.candidates));
        if wanted != found {
            let what = format!("{:?} reads as {found:?}, wanted {wanted:?}", row.output);
            facts.fault(Topic::RoundTrip, what);
        }
        // Nothing to find and nothing found earns nothing among typed entities: it is no fault.
        let nothing = row.paradigm == Paradigm::Oth && wanted.is_empty() && typed_lines(&row.output).is_empty();
        if !nothing
            && let Ok(sets) = from_instructions(std::slice::from_ref(row))
            && let Some(set) = sets.first()
            && let Ok(strict) = score::strict::score(set, &[&row.output])
            && strict.headline < 100.0 - 1e-9
        {
            let what = format!("the gold answer scores {:.2} ({}), wanted 100", strict.headline, strict.headline_name);
            facts.fault(Topic::Score, what);
        }
        self.candidates(row, gold, facts);
        if let Gold::Spans(spans) = gold {
            facts.none = Some(spans.is_empty());
            let fold = |text: &str| text.nfkc().collect::<String>();
            let input = fold(&row.input);
            let missing = spans.iter().find(|s| !row.candidates.contains(*s) && !input.contains(&fold(s)));
            if let Some(span) = missing {
                let what = format!("{span:?}: wanted words of the input or a candidate, found neither");
                facts.fault(Topic::Copies, what);
            }
        }
    }

    fn candidates(&self, row: &Instruction, gold: &Gold, facts: &mut Facts) {
        let shown = &row.candidates;
        let mut wrong = |what: String| facts.fault(Topic::Candidates, what);
        let mut sorted: Vec<&String> = shown.iter().collect();
        sorted.sort_unstable();
        if let Some([same, _]) = sorted.array_windows().find(|[a, b]| a == b) {
            wrong(format!("candidate {same:?} is there twice"));
        }
        let right: &[String] = match gold {
            Gold::Labels(right) => {
                match right.iter().find(|l| !shown.contains(*l)) {
                    Some(label) if shown.is_empty() => wrong(format!("wanted candidates with {label:?}, found none")),
                    Some(label) => wrong(format!("wanted {label:?} among the candidates, found {shown:?}")),
                    None => {}
                }
                right
            }
            Gold::Entities(entities) => {
                if let Some(e) = entities.iter().find(|e| !shown.is_empty() && !shown.contains(&e.kind)) {
                    wrong(format!("wanted the type {:?} among the candidates, found {shown:?}", e.kind));
                }
                return;
            }
            // Candidates may be the types to look for; then no span is one.
            Gold::Spans(spans) if spans.iter().any(|s| shown.contains(s)) => spans,
            Gold::Spans(_) | Gold::Text(_) => return,
        };
        if !shown.is_empty() && shown.iter().all(|c| right.contains(c)) {
            wrong("gold only: wanted a wrong candidate beside the right ones, found none".to_owned());
        }
        let [only] = right else { return };
        let Some(at) = shown.iter().position(|c| c == only) else { return };
        let lists = facts.task.and_then(|task| self.labels.get(task)).map_or(&[][..], Vec::as_slice);
        let fits = |list: &&Vec<String>| list.len() == shown.len() && list.iter().all(|l| shown.contains(l));
        match lists.iter().find(fits) {
            Some(list) => facts.fixed = list.iter().position(|l| l == only).map(|n| (n, list.len())),
            None if row.paradigm == Paradigm::Cls => facts.label = Some(only.clone()),
            None => {}
        }
        if shown.iter().any(|c| c.parse::<u32>().is_err()) {
            facts.position = Some((at, shown.len()));
        }
    }
}

impl Facts {
    fn fault(&mut self, topic: Topic, what: String) {
        self.faults.push((topic, what));
    }
}

fn lengths(row: &Instruction, facts: &mut Facts) {
    let n = (tokens(&row.input) + tokens(&row.prompt), tokens(&row.output));
    facts.tokens = n;
    if n.0 > LIMITS.0 {
        facts.fault(
            Topic::Lengths,
            format!("input and prompt: wanted at most {} tokens, found about {}", LIMITS.0, n.0),
        );
    }
    if n.1 > LIMITS.1 {
        facts.fault(Topic::Lengths, format!("output: wanted at most {} tokens, found about {}", LIMITS.1, n.1));
    }
}

/// Whether the row is what the registry says of its task.
fn schema(row: &Instruction, part: Part, facts: &mut Facts) -> Option<&'static Task> {
    let mut wrong = |what: String| facts.fault(Topic::Schema, what);
    // A held-out set has a name of its own in the place of its task; the id begins with the task.
    let name = if part == Part::Train { &row.task } else { row.id.split(':').next().unwrap_or_default() };
    let Some(task) = task::find(name) else {
        wrong(format!("task: wanted an id from F01 to A68, found {:?}", row.task));
        return None;
    };
    if row.kind != task.kind() && row.kind != Kind::Control {
        wrong(format!("kind of {}: wanted {:?}, found {:?}", task.id, task.kind(), row.kind));
    }
    if row.paradigm != task.paradigm {
        let (wanted, found) = (task.paradigm.name(), row.paradigm.name());
        wrong(format!("paradigm of {}: wanted {wanted}, found {found}", task.id));
    }
    if row.parents != task.parents {
        wrong(format!("parents of {}: wanted {:?}, found {:?}", task.id, task.parents, row.parents));
    }
    if row.strategy != task.strategy {
        wrong(format!("strategy of {}: wanted {:?}, found {:?}", task.id, task.strategy, row.strategy));
    }
    if row.dtype != Some(task.dtype) {
        let name = |d: Option<DataType>| d.map_or("none".to_owned(), |d| format!("{d:?}"));
        wrong(format!("dtype of {}: wanted {}, found {}", task.id, name(Some(task.dtype)), name(row.dtype)));
    }
    if row.format_twin != task.twin {
        wrong(format!("format_twin of {}: wanted {}, found {}", task.id, task.twin, row.format_twin));
    }
    let count = (!row.candidates.is_empty()).then_some(row.candidates.len() as u32);
    if row.n_candidates.unwrap_or_default() != count.unwrap_or_default() {
        let found = row.n_candidates.unwrap_or_default();
        wrong(format!("n_candidates: wanted {}, found {found}", row.candidates.len()));
    }
    if row.source.is_empty() {
        wrong("source: wanted a name, found none".to_owned());
    }
    // A long record is asked about in several places, numbered after a tilde.
    let own = row.raw_ids.first().map_or("", String::as_str);
    let view = |rest: &str| rest.strip_prefix('~').is_some_and(|n| n.parse::<u32>().is_ok());
    let name = row.id.strip_prefix(task.id).and_then(|rest| rest.strip_prefix(':')).unwrap_or_default();
    if own.is_empty() || row.raw_ids.iter().any(String::is_empty) {
        wrong(format!("raw_ids: wanted the raw rows, found {:?}", row.raw_ids));
    } else if !name.strip_prefix(own).is_some_and(|rest| rest.is_empty() || view(rest)) {
        wrong(format!("id: wanted {}:{own} (task, first of raw_ids), found {:?}", task.id, row.id));
    } else if let Some(id) = row.raw_ids.iter().find(|id| !of_source(id, &row.source)) {
        wrong(format!("raw_ids: wanted rows of {:?}, found {id:?}", row.source));
    }
    if row.group.is_empty() {
        wrong("group: wanted a name, found none".to_owned());
    }
    let fits = match (&row.gold, row.paradigm) {
        (Some(Gold::Labels(l)), Paradigm::Cls) => !l.is_empty(),
        (Some(Gold::Spans(_)), Paradigm::Ext)
        | (Some(Gold::Entities(_)), Paradigm::Oth)
        | (Some(Gold::Text(_)), Paradigm::Gen) => true,
        _ => false,
    };
    if !fits {
        let wanted = match row.paradigm {
            Paradigm::Cls => "labels",
            Paradigm::Ext => "spans",
            Paradigm::Oth => "entities",
            Paradigm::Gen => "text",
        };
        let found = match &row.gold {
            None => "none",
            Some(Gold::Labels(l)) if l.is_empty() => "no labels",
            Some(Gold::Labels(_)) => "labels",
            Some(Gold::Spans(_)) => "spans",
            Some(Gold::Entities(_)) => "entities",
            Some(Gold::Text(_)) => "text",
        };
        wrong(format!("gold of {}: wanted {wanted}, found {found}", row.paradigm.name()));
    }
    Some(task)
}

/// Whether a raw id is one of a source's.
fn of_source(raw_id: &str, source: &str) -> bool {
    raw_id.strip_prefix(source).is_some_and(|rest| rest.starts_with(['/', '#']))
}

/// An answer as the strict scores see it: sorted pairs of type and text in normal form, without separators.
fn canonical(gold: &Gold) -> Vec<(String, String)> {
    let untyped = |text: String| (String::new(), text);
    let mut all: Vec<(String, String)> = match gold {
        Gold::Labels(labels) => labels.iter().map(|l| untyped(normal(l))).collect(),
        Gold::Spans(spans) => spans.iter().flat_map(|s| list(s)).map(untyped).collect(),
        Gold::Entities(entities) => {
            entities.iter().flat_map(|e| list(&e.text).into_iter().map(|text| (normal(&e.kind), text))).collect()
        }
        Gold::Text(text) => vec![untyped(normal(text))],
    };
    all.sort_unstable();
    all
}

fn languages(row: &Instruction, facts: &mut Facts) {
    let enough = |text: &str| text.chars().filter(|c| c.is_alphabetic()).count() >= 8;
    if enough(&row.input) {
        facts.input_lang = Some(Lang::detect(&row.input) == row.lang);
    }
    // What was filled into a prompt may be in the language of the input.
    let mut frame = format!("{} {}", row.description, row.constraint);
    if frame.trim().is_empty() {
        frame.clone_from(&row.prompt);
        row.candidates.iter().for_each(|c| frame = frame.replace(c.as_str(), " "));
    }
    if enough(&frame) {
        facts.prompt_lang = Some(Lang::detect(&frame) == row.prompt_lang);
    }
}
