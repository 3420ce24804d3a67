//! Whether a manifest tells the truth: its files, and what it counts in them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::tally::Tally;
use super::{Check, Faults, Part};
use crate::build::manifest::{Manifest, UnitEntry};
use crate::build::sha256;
use crate::instruction::Lang;
use crate::task::find;

/// The text of a manifest, to say on which line something is.
struct Text(String);

impl Text {
    /// `manifest.json:LINE` of the `nth` one (from 0) of `key` behind `section`, or of `section` itself.
    fn place(&self, section: &str, key: &str, nth: usize) -> String {
        let mut at = 0;
        let mut find = |what: &str| {
            let found = self.0[at..].find(&format!("{}:", serde_json::json!(what)))?;
            at += found + 1;
            Some(at)
        };
        let found = find(section);
        let found = if section == key { found } else { found.and_then(|at| (0..=nth).try_fold(at, |_, _| find(key))) };
        let line = found.map_or(1, |at| self.0[..at].matches('\n').count() + 1);
        format!("manifest.json:{line}")
    }
}

/// A manifest being compared.
struct Compare {
    text: Text,
    faults: Faults,
}

impl Compare {
    fn wrong(&mut self, section: &str, key: &str, nth: usize, what: &str) {
        let place = self.text.place(section, key, nth);
        self.faults.add(format!("{place}: {what}"));
    }

    fn count(&mut self, section: &str, key: &str, nth: usize, what: &str, [says, found]: [u64; 2]) {
        if says != found {
            self.wrong(section, key, nth, &format!("says {says} {what}, found {found}"));
        }
    }
}

/// Holds a manifest against the files that were `seen` with their rows, and against what was counted in them.
pub(super) fn compare(folder: &Path, manifest: &Manifest, seen: &[(String, usize)], tally: &Tally) -> Check {
    let text = Text(fs::read_to_string(folder.join("manifest.json")).unwrap_or_default());
    let mut compare = Compare { text, faults: Faults::default() };
    compare.files(folder, manifest, seen);
    let rows = [manifest.instructions as u64, tally.bare as u64];
    compare.count("instructions", "instructions", 0, "training rows", rows);
    for (n, held) in manifest.heldout.iter().enumerate() {
        let file = format!("{}/{}.jsonl", Part::HeldOut.folder(), held.name);
        let rows = seen.iter().find(|(name, _)| *name == file).map_or(0, |(_, rows)| *rows);
        compare.count("heldout", "items", n, &format!("items of {}", held.name), [held.items as u64, rows as u64]);
    }
    // Other forms than the project's own say nothing about task and language.
    if tally.train > 0 {
        let maps = [
            ("tasks", "task", &manifest.tasks, &tally.tasks),
            ("languages", "language", &manifest.languages, &tally.languages),
            ("paradigms", "paradigm", &manifest.paradigms, &tally.paradigms),
        ];
        for (section, what, says, found) in maps {
            for name in says.keys().chain(found.keys().filter(|k| !says.contains_key(*k))) {
                let rows = [says, found].map(|map| map.get(name).copied().unwrap_or_default() as u64);
                compare.count(section, name, 0, &format!("training rows of {what} {name}"), rows);
            }
        }
        compare.units(manifest, tally);
    }
    let what = "counts by unit, task, language, paradigm, held-out set; tokens";
    let found = format!("{} files by size, SHA-256 and rows; {what}", manifest.files.len());
    compare.faults.check("manifest", found, Vec::new())
}

impl Compare {
    fn files(&mut self, folder: &Path, manifest: &Manifest, seen: &[(String, usize)]) {
        for file in &manifest.files {
            let path = folder.join(&file.name);
            match (sha256(&path), fs::metadata(&path)) {
                (Ok(found), Ok(data)) => {
                    if found != file.sha256 {
                        self.faults.add(format!("{}: wanted SHA-256 {}, found {found}", file.name, file.sha256));
                    }
                    if data.len() != file.bytes {
                        self.faults.add(format!("{}: wanted {} bytes, found {}", file.name, file.bytes, data.len()));
                    }
                }
                (Err(e), _) | (_, Err(e)) => self.faults.add(format!("{}: cannot read: {e}", file.name)),
            }
            if let Some((_, rows)) = seen.iter().find(|(name, rows)| *name == file.name && *rows != file.rows) {
                self.faults.add(format!("{}: wanted {} rows, found {rows}", file.name, file.rows));
            }
        }
        for (name, _) in seen.iter().filter(|(name, _)| manifest.files.iter().all(|f| f.name != *name)) {
            self.wrong("files", "files", 0, &format!("wanted {name} among the files, found no such one"));
        }
    }

    /// The units: rows and tokens of each, and what is said of their tasks.
    fn units(&mut self, manifest: &Manifest, tally: &Tally) {
        let train = || tally.units.iter().filter(|(k, _)| k.part == Part::Train);
        let mut listed: BTreeSet<(&str, &str, Lang)> = BTreeSet::new();
        for (n, unit) in manifest.units.iter().enumerate() {
            let UnitEntry { task, source, lang, .. } = unit;
            let name = format!("{task} {source} {}", lang.name());
            if !listed.insert((task, source, *lang)) {
                self.wrong("units", "task", n, &format!("wanted each unit once, found {name} again"));
            }
            let here = train().find(|(k, _)| (&k.task, &k.source, k.lang) == (task, source, *lang));
            let (rows, tokens) = here.map_or((0, 0), |(_, unit)| (unit.rows as u64, unit.tokens));
            self.count("units", "kept", n, &format!("training rows of unit {name}"), [unit.kept as u64, rows]);
            if let Some(says) = unit.tokens {
                self.count("units", "tokens", n, &format!("estimated tokens of unit {name}"), [says, tokens]);
            }
            match find(task) {
                None => self.wrong("units", "task", n, &format!("wanted an id from F01 to A68, found {task:?}")),
                Some(t) if (t.paradigm, t.kind(), t.twin) != (unit.paradigm, unit.kind, unit.format_twin) => {
                    let says = format!("{} {:?}, twin {}", unit.paradigm.name(), unit.kind, unit.format_twin);
                    let is = format!("{} {:?}, twin {}", t.paradigm.name(), t.kind(), t.twin);
                    self.wrong("units", "paradigm", n, &format!("says that {task} is {says}; it is {is}"));
                }
                Some(_) => {}
            }
            if unit.kept > 0 && manifest.sources.iter().all(|s| s.name != *source) {
                self.wrong("units", "source", n, &format!("wanted {source:?} among the sources, found no such one"));
            }
        }
        for (key, unit) in train().filter(|(k, _)| !listed.contains(&(&*k.task, &*k.source, k.lang))) {
            self.wrong("units", "units", 0, &format!("wanted a unit {key} of {} rows, found none", unit.rows));
        }
        if manifest.units.iter().all(|u| u.tokens.is_some()) {
            let all: u64 = train().map(|(_, unit)| unit.tokens).sum();
            let tokens = [manifest.estimated_tokens, all];
            self.count("estimated_tokens", "estimated_tokens", 0, "estimated tokens of the training rows", tokens);
        }
    }
}
