//! Sums up the facts of all rows, and turns them into checks.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::row::{Facts, LIMITS, Look, Topic};
use super::unit::{Unit, chi_square_bound};
use super::{Check, Faults, KEPT, Part};
use crate::instruction::{Gold, Instruction, Lang, Paradigm};

/// Share of "nothing fits" that an extraction unit may have.
const NONE: (f64, f64) = (0.05, 0.45);

/// Share of rows whose language must be the one that they name.
const RIGHT_LANGUAGE: f64 = 0.9;

/// Rows below which a share says nothing.
const FEW: usize = 50;

/// A unit, or a held-out set, which has a name of its own in the place of the task.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UnitKey {
    pub(super) part: Part,
    pub(super) task: String,
    pub(super) source: String,
    pub(super) lang: Lang,
}

impl UnitKey {
    pub(super) fn new(part: Part, row: &Instruction) -> Self {
        Self { part, task: row.task.clone(), source: row.source.clone(), lang: row.lang }
    }
}

impl std::fmt::Display for UnitKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = match self.part {
            Part::Train => "",
            Part::HeldOut => " (held out)",
            Part::Paraphrase => " (held out, other wording)",
        };
        write!(f, "{} {} {}{part}", self.task, self.source, self.lang.name())
    }
}

/// Templates of a task in one part of the data: rows by template.
type Templates = BTreeMap<(Part, &'static str), BTreeMap<String, usize>>;

/// Everything counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) schema: Faults,
    pub(super) same: Faults,
    /// Rows whose task, input and output an earlier one has, whatever the candidates.
    pub(super) alike: usize,
    /// Files in a form without task or language.
    pub(super) foreign: Vec<String>,
    /// Training rows, and how many of each task, language and paradigm.
    pub(super) train: usize,
    pub(super) tasks: BTreeMap<String, usize>,
    pub(super) languages: BTreeMap<String, usize>,
    pub(super) paradigms: BTreeMap<String, usize>,
    /// Rows of training files, whatever their form.
    pub(super) bare: usize,
    repeats_wanted: bool,
    faults: BTreeMap<&'static str, Faults>,
    rows: usize,
    pub(super) units: BTreeMap<UnitKey, Unit>,
    templates: Templates,
    candidates: BTreeMap<Paradigm, BTreeMap<usize, usize>>,
    gold_only: usize,
    spans: usize,
    lengths: [BTreeMap<usize, usize>; 3],
    longest: (usize, usize),
}

impl Topic {
    fn name(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::RoundTrip => "round trip",
            Self::Score => "gold score",
            Self::Candidates => "candidates",
            Self::Copies => "copies",
            Self::Lengths => "lengths",
            Self::Overlap => "overlap",
            Self::Templates => "templates",
        }
    }
}

impl Tally {
    pub(super) fn new(repeats_wanted: bool) -> Self {
        Self { repeats_wanted, ..Self::default() }
    }

    pub(super) fn add(&mut self, unit: UnitKey, place: &str, row: Instruction, mut facts: Facts, whole: bool) {
        self.rows += 1;
        for (topic, what) in std::mem::take(&mut facts.faults) {
            let what = format!("{place}: {what}");
            match topic {
                Topic::Schema => self.schema.add(what),
                _ => self.faults.entry(topic.name()).or_default().add(what),
            }
        }
        let bin = |n: usize| n.next_power_of_two();
        let sizes = [facts.tokens.0, facts.tokens.1, row.input.chars().count() + row.prompt.chars().count()];
        for (histogram, n) in self.lengths.iter_mut().zip(sizes) {
            *histogram.entry(bin(n)).or_default() += 1;
        }
        self.longest = (self.longest.0.max(facts.tokens.0), self.longest.1.max(facts.tokens.1));
        self.bare += usize::from(unit.part == Part::Train);
        if !whole {
            return;
        }
        if unit.part == Part::Train {
            self.train += 1;
            let count = |map: &mut BTreeMap<String, usize>, key: &str| *map.entry(key.to_owned()).or_default() += 1;
            count(&mut self.tasks, &row.task);
            count(&mut self.languages, row.lang.name());
            count(&mut self.paradigms, row.paradigm.name());
        }
        if let Some(task) = facts.task {
            let templates = self.templates.entry((unit.part, task)).or_default();
            *templates.entry(row.template_id.clone()).or_default() += 1;
        }
        if !row.candidates.is_empty() {
            let counts = self.candidates.entry(row.paradigm).or_default();
            *counts.entry(row.candidates.len()).or_default() += 1;
            if let Some(Gold::Entities(entities)) = &row.gold {
                let all = row.candidates.iter().all(|c| entities.iter().any(|e| e.kind == *c));
                self.gold_only += usize::from(all);
            }
        }
        if let Some(Gold::Spans(spans)) = &row.gold {
            self.spans += spans.len();
        }
        self.units.entry(unit).or_default().add(row, &facts);
    }

    /// All checks but that of the manifest.
    pub(super) fn checks(&self) -> Vec<Check> {
        let rows = format!("{} rows", self.rows);
        let of = |name: &'static str, found: String, detail: Vec<String>| match self.faults.get(name) {
            Some(faults) => faults.check(name, found, detail),
            None => Faults::default().check(name, found, detail),
        };
        let foreign = self.foreign.iter().map(|f| {
            format!("{f} names neither task nor language: only reading, ids, lengths, overlap and repeats are checked")
        });
        vec![
            self.schema.check("schema", rows.clone(), foreign.collect()),
            of("round trip", rows.clone(), Vec::new()),
            of("gold score", format!("{rows} in {} units", self.units.len()), Vec::new()),
            self.baselines(),
            self.balance(),
            self.none(),
            of("candidates", self.candidates_found(), self.candidate_counts()),
            self.places(),
            of("copies", format!("{} spans", self.spans), Vec::new()),
            self.templates(),
            self.language(),
            of("lengths", self.lengths_found(), self.histograms()),
            of("overlap", format!("{} training rows against the held-out ones", self.train_rows()), Vec::new()),
            self.duplicates(),
        ]
    }

    fn train_rows(&self) -> usize {
        let whole: usize = self.units.iter().filter(|(k, _)| k.part != Part::Train).map(|(_, u)| u.rows).sum();
        self.rows - whole
    }

    fn baselines(&self) -> Check {
        let units: Vec<(&UnitKey, &Unit)> = self.units.iter().collect();
        let detail: Vec<String> = units
            .par_iter()
            .filter_map(|(key, unit)| {
                let b = unit.baselines()?;
                let show = |s: Option<f64>| s.map_or("-".to_owned(), |s| format!("{s:.1}"));
                let [constant, random, lexical] = b.scores.map(show);
                Some(format!(
                    "{key}: constant {constant}, random {random}, lexical {lexical} ({} of {} rows)",
                    b.measure, b.items
                ))
            })
            .collect();
        let found = format!("{} units scored without a model, on up to {KEPT} rows each", detail.len());
        Faults::default().check("baselines", found, detail)
    }

    fn balance(&self) -> Check {
        let (mut faults, mut detail) = (Faults::default(), Vec::new());
        for (key, unit) in &self.units {
            let (wrong, largest) = unit.balance();
            // In other words only those with an English prompt come again.
            if let Some(what) = wrong.filter(|_| key.part != Part::Paraphrase) {
                faults.add(format!("{key}: {what}"));
            }
            if let Some(share) = largest {
                detail.push(format!("{key}: largest class {:.1} % of {} rows", 100.0 * share, unit.rows));
            }
        }
        faults.check("label balance", format!("{} units with labels", detail.len()), detail)
    }

    fn none(&self) -> Check {
        let (mut faults, mut detail) = (Faults::default(), Vec::new());
        for (key, unit) in &self.units {
            let Some(share) = unit.none_share() else { continue };
            let percent = 100.0 * share;
            detail.push(format!("{key}: nothing fits in {percent:.1} % of {} rows", unit.rows));
            // One row may be missing where shares were rounded.
            let slack = 1.0 / unit.rows as f64;
            if unit.rows >= FEW && !(NONE.0 - slack..=NONE.1 + slack).contains(&share) {
                let (low, high) = (100.0 * NONE.0, 100.0 * NONE.1);
                faults.add(format!("{key}: wanted {low:.0} to {high:.0} % of answers None, found {percent:.1} %"));
            }
        }
        faults.check("None answers", format!("{} units have some", detail.len()), detail)
    }

    fn candidates_found(&self) -> String {
        let with: usize = self.candidates.values().flat_map(BTreeMap::values).sum();
        format!("{with} rows with candidates")
    }

    fn candidate_counts(&self) -> Vec<String> {
        let mut detail: Vec<String> = self
            .candidates
            .iter()
            .map(|(paradigm, counts)| {
                let list: Vec<String> = counts.iter().map(|(n, rows)| format!("{n}: {rows}")).collect();
                format!("{} rows by number of candidates: {}", paradigm.name(), list.join(", "))
            })
            .collect();
        detail.push(format!("OTH rows in which every type asked for occurs: {}", self.gold_only));
        detail
    }

    fn places(&self) -> Check {
        let (mut faults, mut detail) = (Faults::default(), Vec::new());
        let measured: Vec<_> = self.units.iter().filter_map(|(key, unit)| Some((key, unit.places()?))).collect();
        // One unit in a thousand would fail by chance: the bound holds for all of them together.
        let p = 0.001 / measured.len().max(1) as f64;
        for (key, (chi, freedom)) in measured {
            let bound = chi_square_bound(freedom, p);
            detail.push(format!("{key}: chi-square {chi:.1}, bound {bound:.1}"));
            if chi > bound {
                faults.add(format!(
                    "{key}: wanted right answers all over the list, found chi-square {chi:.1} > {bound:.1}"
                ));
            }
        }
        faults.check("gold position", format!("{} units with enough rows", detail.len()), detail)
    }

    fn templates(&self) -> Check {
        let look = Look::new();
        let mut faults = Faults::default();
        if let Some(rows) = self.faults.get(Topic::Templates.name()) {
            (faults.count, faults.first) = (rows.count, rows.first.clone());
        }
        let mut detail = Vec::new();
        for ((part, task), counts) in &self.templates {
            let all: usize = counts.values().sum();
            let shares: Vec<String> =
                counts.iter().map(|(id, n)| format!("{id} {:.0} %", 100.0 * *n as f64 / all as f64)).collect();
            if *part != Part::Train {
                continue;
            }
            detail.push(shares.join(", "));
            if counts.keys().any(|id| id.ends_with("-generic")) {
                continue;
            }
            let [en, zh] = look.paraphrases(task);
            // The last English one is held out.
            for (lang, used) in [(Lang::En, en.saturating_sub(1)), (Lang::Zh, zh)] {
                let id = |n: usize| format!("{task}-{}-{n}", lang.name());
                let rows: usize = (1..=used).filter_map(|n| counts.get(&id(n))).sum();
                for n in (1..=used).filter(|&n| rows >= 30 * used && !counts.contains_key(&id(n))) {
                    faults.add(format!("{task}: wanted every paraphrase in {rows} rows, found no {}", id(n)));
                }
            }
        }
        faults.check("templates", format!("{} tasks in training", detail.len()), detail)
    }

    fn language(&self) -> Check {
        let (mut faults, mut detail) = (Faults::default(), Vec::new());
        for (key, unit) in &self.units {
            for (what, (share, rows)) in ["inputs", "prompts"].into_iter().zip(unit.languages()) {
                if rows > 0 && share < RIGHT_LANGUAGE {
                    let (wanted, found) = (100.0 * RIGHT_LANGUAGE, 100.0 * share);
                    faults.add(format!(
                        "{key}: wanted {wanted:.0} % of {what} in the language they name, found {found:.1} % of {rows}"
                    ));
                }
                if rows > 0 && share < 1.0 {
                    detail.push(format!("{key}: {:.1} % of {rows} {what}", 100.0 * share));
                }
            }
        }
        faults.check("language", format!("{} units", self.units.len()), detail)
    }

    fn lengths_found(&self) -> String {
        let (prompt, answer) = self.longest;
        format!("longest about {prompt} tokens, answer {answer}; limits {} and {}", LIMITS.0, LIMITS.1)
    }

    fn histograms(&self) -> Vec<String> {
        let names =
            ["input and prompt, tokens (estimated)", "output, tokens (estimated)", "input and prompt, characters"];
        let line = |(name, counts): (&str, &BTreeMap<usize, usize>)| {
            let list: Vec<String> = counts.iter().map(|(n, rows)| format!("≤{n}: {rows}")).collect();
            format!("{name}: {}", list.join(", "))
        };
        names.into_iter().zip(&self.lengths).map(line).collect()
    }

    fn duplicates(&self) -> Check {
        let found = format!(
            "{} rows that differ from an earlier one in nothing but candidates",
            self.alike - self.same.count.min(self.alike)
        );
        if self.repeats_wanted {
            let found = format!("{} repeats, wanted by the recipe", self.same.count);
            return Faults::default().check("duplicates", found, Vec::new());
        }
        self.same.check("duplicates", found, Vec::new())
    }
}
