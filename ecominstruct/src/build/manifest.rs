//! The manifest of a build (JSON) and its data card (Markdown).

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::heldout::HeldSet;
use super::recipe::{Recipe, Source};
use super::source::hash;
use super::unit::Unit;
use super::{BuildError, Counts, Faults};
use crate::baseline::{self, Policy};
use crate::eval_set::from_instructions;
use crate::gate::Verdict;
use crate::instruction::{Kind, Lang, Paradigm};
use crate::score;
use crate::shingle::Plain;
use crate::task::{Make, tasks};
use crate::wording::Wording;

/// All that a build says about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the program.
    pub version: String,
    /// Seed of all draws.
    pub seed: u64,
    /// Written files.
    pub files: Vec<FileEntry>,
    /// Training instructions.
    pub instructions: usize,
    /// Training instructions of each language.
    pub languages: BTreeMap<String, usize>,
    /// Training instructions of each paradigm.
    pub paradigms: BTreeMap<String, usize>,
    /// Training instructions of each task.
    pub tasks: BTreeMap<String, usize>,
    /// Estimated tokens of the training instructions, prompts and answers.
    pub estimated_tokens: u64,
    /// Sources read.
    pub sources: Vec<SourceEntry>,
    /// Units, those that were dropped as well.
    pub units: Vec<UnitEntry>,
    /// Held-out sets.
    pub heldout: Vec<HeldOutEntry>,
    /// Made instructions whose shown text met the firewall, by rule; they were left out.
    pub firewall_prompts: BTreeMap<String, usize>,
    /// Made instructions left out because another one says the same.
    pub repeated_instructions: usize,
    /// Tasks without a unit, and why.
    pub not_built: BTreeMap<String, String>,
    /// The recipe, as it was understood.
    pub recipe: serde_json::Value,
}

/// A written file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path within the folder.
    pub name: String,
    /// Instructions.
    pub rows: usize,
    /// Size.
    pub bytes: u64,
    /// SHA-256, in hex.
    pub sha256: String,
}

/// A source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceEntry {
    /// Name.
    pub name: String,
    /// Licence, as its publisher states it.
    pub licence: String,
    /// Share of its groups that is held out.
    pub heldout: f64,
    /// Records read, before repeated ones were merged.
    pub records: usize,
    /// Rows that could not be used.
    pub bad_rows: usize,
    /// `file:line: what` of the first of them.
    pub first_bad_rows: Vec<String>,
    /// Records left out by the firewall, by rule.
    pub walled: BTreeMap<String, usize>,
    /// Records left out because they nearly repeat an earlier one.
    pub repeated: usize,
}

impl SourceEntry {
    pub(super) fn new(source: &Source) -> Self {
        Self {
            name: source.name.clone(),
            licence: source.licence.clone(),
            heldout: source.heldout,
            records: 0,
            bad_rows: 0,
            first_bad_rows: Vec::new(),
            walled: BTreeMap::new(),
            repeated: 0,
        }
    }

    pub(super) fn faults(&mut self, faults: Faults) {
        (self.records, self.bad_rows, self.first_bad_rows) = (faults.records, faults.bad, faults.first);
    }
}

/// One unit: a task, a source, a language.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnitEntry {
    /// Task id.
    pub task: String,
    /// Name of the task.
    pub name: String,
    /// Source.
    pub source: String,
    /// Language of the texts.
    pub lang: Lang,
    /// Paradigm.
    pub paradigm: Paradigm,
    /// Final or atomic.
    pub kind: Kind,
    /// Whether it asks in the format of a released evaluation set.
    pub format_twin: bool,
    /// Instructions that could be made.
    pub made: usize,
    /// Instructions kept.
    pub kept: usize,
    /// Estimated tokens of those kept, prompts and answers; missing in manifests of earlier versions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tokens: Option<u64>,
    /// Estimated tokens of one of those that could be made.
    pub mean_tokens: f64,
    /// Sizes of the classes that are balanced, where there are at most twelve.
    pub classes: BTreeMap<String, usize>,
    /// What the hard-negative gate found, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gate_before: Option<Verdict>,
    /// The same after hardening; missing where the unit was dropped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gate_after: Option<Verdict>,
}

impl UnitEntry {
    pub(super) fn new(unit: &Unit, source: &str, _: &Recipe) -> Self {
        let classes = unit.class_counts();
        let few = classes.len() <= 12;
        Self {
            task: unit.task.id.to_owned(),
            name: Wording::builtin().name(unit.task.id, Lang::En).to_owned(),
            source: source.to_owned(),
            lang: unit.lang,
            paradigm: unit.task.paradigm,
            kind: unit.task.kind(),
            format_twin: unit.task.twin,
            made: unit.seen(),
            kept: unit.quota(),
            tokens: Some(unit.kept_tokens()),
            mean_tokens: (unit.mean_tokens() * 10.0).round() / 10.0,
            classes: if few { classes.into_iter().map(|(c, n)| (c.to_owned(), n)).collect() } else { BTreeMap::new() },
            gate_before: unit.gate.as_ref().map(|g| g.before),
            gate_after: unit.gate.as_ref().and_then(|g| g.after),
        }
    }
}

/// A held-out set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldOutEntry {
    /// Name.
    pub name: String,
    /// Task id.
    pub task: String,
    /// Source.
    pub source: String,
    /// Language.
    pub lang: Lang,
    /// Paradigm.
    pub paradigm: Paradigm,
    /// Items.
    pub items: usize,
    /// `unseen data set`, `unseen task`, both, or `unseen rows`.
    pub level: String,
    /// Whether the task is trained on other data.
    pub task_seen: bool,
    /// Whether some trained task has the same format of question and answer.
    pub format_seen: bool,
    /// Whether at least half of its labels occur in training.
    pub labels_seen: bool,
    /// Strict scores without a model: `constant`, `random`, `lexical`.
    pub baselines: BTreeMap<String, f64>,
    /// What the gate found.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gate: Option<Verdict>,
}

impl HeldOutEntry {
    pub(super) fn new(
        recipe: &Recipe,
        set: &HeldSet<'_>,
        format_seen: bool,
        labels: &HashSet<u64, Plain>,
    ) -> Result<Self, BuildError> {
        let HeldSet { recipe: held, task, unit, rows: [rows, _], .. } = set;
        let sets = from_instructions(rows)?;
        let mut baselines = BTreeMap::new();
        if let Some(set) = sets.first() {
            for (name, policy) in
                [("constant", Policy::Constant), ("random", Policy::Random { seed: 0 }), ("lexical", Policy::Lexical)]
            {
                if let Some(answers) = baseline::predict(set, policy)
                    && let Ok(scores) = score::strict::score(set, &answers.predictions)
                {
                    baselines.insert(name.to_owned(), (scores.headline * 100.0).round() / 100.0);
                }
            }
        }
        let task_seen = recipe.trains(task);
        let whole = recipe.source.iter().any(|s| s.name == held.source && s.heldout >= 1.0);
        let level = match (whole, task_seen) {
            (true, false) => "unseen data set and task",
            (true, true) => "unseen data set",
            (false, false) => "unseen task",
            (false, true) => "unseen rows",
        };
        let own: std::collections::BTreeSet<&String> = rows.iter().flat_map(|r| &r.candidates).collect();
        let known = own.iter().filter(|l| labels.contains(&hash(&[l]))).count();
        Ok(Self {
            name: held.name.clone(),
            task: held.task.clone(),
            source: held.source.clone(),
            lang: rows.first().map(|r| r.lang).unwrap_or_default(),
            paradigm: task.paradigm,
            items: rows.len(),
            level: level.to_owned(),
            task_seen,
            format_seen,
            labels_seen: task.paradigm == Paradigm::Cls && 2 * known >= own.len().max(1),
            baselines,
            gate: unit.gate.as_ref().map(|g| g.after.unwrap_or(g.before)),
        })
    }
}

impl Manifest {
    pub(super) fn new(
        recipe: &Recipe,
        sources: Vec<SourceEntry>,
        units: Vec<UnitEntry>,
        heldout: Vec<HeldOutEntry>,
        files: Vec<FileEntry>,
        counts: &Counts,
    ) -> Self {
        let sum = |key: &dyn Fn(&UnitEntry) -> String| {
            let mut map: BTreeMap<String, usize> = BTreeMap::new();
            units.iter().filter(|u| u.kept > 0).for_each(|u| *map.entry(key(u)).or_default() += u.kept);
            map
        };
        let mut not_built = BTreeMap::new();
        for task in tasks() {
            let made: usize = units.iter().filter(|u| u.task == task.id).map(|u| u.made).sum();
            let kept: usize = units.iter().filter(|u| u.task == task.id).map(|u| u.kept).sum();
            let skips = recipe.source.iter().filter(|s| s.skip.iter().any(|id| id == task.id));
            let skips: Vec<&str> = skips.map(|s| s.name.as_str()).collect();
            let why = match task.draft {
                Make::Never(why) => format!("no record holds what it needs, {why}"),
                Make::From(_) if kept > 0 => continue,
                Make::From(_) if !recipe.trains(task) && recipe.heldout.iter().any(|h| h.task == task.id) => {
                    "held out as an unseen task".to_owned()
                }
                Make::From(_) if !recipe.trains(task) => "left out by the recipe".to_owned(),
                Make::From(_) if made == 0 && !skips.is_empty() => {
                    format!(
                        "skipped by the recipe for {}; no other source has the annotation it needs",
                        skips.join(", ")
                    )
                }
                Make::From(_) if made == 0 => "no source has the annotation it needs".to_owned(),
                Make::From(_) => {
                    format!("{made} instructions were made; the gate or the floor of {} left none", recipe.floor)
                }
            };
            not_built.insert(task.id.to_owned(), why);
        }
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: recipe.seed,
            instructions: units.iter().map(|u| u.kept).sum(),
            languages: sum(&|u| u.lang.name().to_owned()),
            paradigms: sum(&|u| u.paradigm.name().to_owned()),
            tasks: sum(&|u| u.task.clone()),
            estimated_tokens: units.iter().filter_map(|u| u.tokens).sum(),
            files,
            sources,
            units,
            heldout,
            firewall_prompts: counts.walled.iter().map(|(&rule, &n)| (rule.to_owned(), n)).collect(),
            repeated_instructions: counts.same,
            not_built,
            recipe: serde_json::to_value(recipe).unwrap_or_default(),
        }
    }

    /// Units that gave instructions.
    pub fn kept_units(&self) -> impl Iterator<Item = &UnitEntry> {
        self.units.iter().filter(|u| u.kept > 0)
    }

    /// Reads the manifest of a data folder.
    ///
    /// # Errors
    /// If it is not there or not a manifest.
    pub fn read(folder: &Path) -> Result<Self, BuildError> {
        let path = folder.join("manifest.json");
        let text = fs::read_to_string(&path).map_err(|e| BuildError::io(&path, e))?;
        let wrong = |e| io::Error::other(format!("wanted the manifest of a build, found something else: {e}"));
        serde_json::from_str(&text).map_err(|e| BuildError::io(&path, wrong(e)))
    }

    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        fs::write(folder.join("manifest.json"), serde_json::to_string_pretty(self)? + "\n")?;
        fs::write(folder.join("README.md"), self.card())
    }

    /// The data card.
    pub fn card(&self) -> String {
        let mut out = String::from("# Instruction data\n\n");
        let _ = writeln!(
            out,
            "{} training instructions of {} tasks from {} sources, {} units; about {} tokens. Built by ecom {} with seed {}.\n",
            self.instructions,
            self.tasks.len(),
            self.sources.len(),
            self.kept_units().count(),
            self.estimated_tokens,
            self.version,
            self.seed
        );
        let list = |map: &BTreeMap<String, usize>| {
            let parts: Vec<String> = map
                .iter()
                .map(|(k, n)| format!("{k} {n} ({:.1} %)", 100.0 * *n as f64 / self.instructions.max(1) as f64))
                .collect();
            parts.join(", ")
        };
        let _ = writeln!(out, "- Languages: {}\n- Paradigms: {}\n", list(&self.languages), list(&self.paradigms));
        out.push_str("## Files\n\n| file | rows | bytes | SHA-256 |\n|---|--:|--:|---|\n");
        for f in &self.files {
            let _ = writeln!(out, "| {} | {} | {} | `{}` |", f.name, f.rows, f.bytes, f.sha256);
        }
        out.push_str(
            "\n## Sources and their licences\n\nPassing the data on is bound by the licence of each source.\n\n",
        );
        out.push_str("| source | licence | records | bad rows | near repeats | behind the firewall | held out |\n|---|---|--:|--:|--:|--:|--:|\n");
        for s in &self.sources {
            let walled: usize = s.walled.values().sum();
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {walled} | {:.0} % |",
                s.name,
                s.licence,
                s.records,
                s.bad_rows,
                s.repeated,
                100.0 * s.heldout
            );
        }
        out.push_str("\n## Held-out sets\n\nColumns \"seen\" say whether training has the task, a task of the same format, or the labels.\n\n");
        out.push_str("| set | task | source | lang | paradigm | items | level | task seen | format seen | labels seen | constant | random | lexical |\n|---|---|---|---|---|--:|---|---|---|---|--:|--:|--:|\n");
        let yes = |b: bool| if b { "yes" } else { "no" };
        for h in &self.heldout {
            let base = |name: &str| h.baselines.get(name).map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                h.name,
                h.task,
                h.source,
                h.lang.name(),
                h.paradigm.name(),
                h.items,
                h.level,
                yes(h.task_seen),
                yes(h.format_seen),
                yes(h.labels_seen),
                base("constant"),
                base("random"),
                base("lexical")
            );
        }
        out.push_str("\n## Units\n\nThe gate's columns are the accuracies of a character-overlap rule and of a bag of words before → after hardening.\n\n");
        out.push_str("| task | name | source | lang | made | kept | gate: rule | gate: regression |\n|---|---|---|---|--:|--:|---|---|\n");
        for u in &self.units {
            let side = |f: &dyn Fn(&Verdict) -> f64| match (&u.gate_before, &u.gate_after) {
                (Some(a), Some(b)) => format!("{:.1} → {:.1} (bar {:.0})", f(a), f(b), b.bar),
                (Some(a), None) => format!("{:.1} (bar {:.0}): dropped", f(a), a.bar),
                _ => String::new(),
            };
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                u.task,
                u.name,
                u.source,
                u.lang.name(),
                u.made,
                u.kept,
                side(&|v| v.rule),
                side(&|v| v.regression)
            );
        }
        out.push_str("\n## Tasks that are not here\n\n| task | name | why |\n|---|---|---|\n");
        for (task, why) in &self.not_built {
            let _ = writeln!(out, "| {task} | {} | {why} |", Wording::builtin().name(task, Lang::En));
        }
        let _ = writeln!(
            out,
            "\n## Left out\n\nInstructions that repeat another one: {}. Instructions whose text met the firewall: {}.",
            self.repeated_instructions,
            self.firewall_prompts.values().sum::<usize>()
        );
        out
    }
}
