//! From an instruction back to its raw row, through every decision on the way.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::draft::{Maker, meta, rows};
use super::heldout::{heldout_blocks, texts, wall_off};
use super::manifest::Manifest;
use super::recipe::{Recipe, Source};
use super::source::{Border, blocks, each_record};
use super::{BuildError, Faults, Output};
use crate::eval_set;
use crate::firewall::Firewall;
use crate::instruction::{DataType, Instruction, Kind};
use crate::record::Record;
use crate::task::Make;
use crate::task::block::Block;
use crate::wording::Paraphrases;

/// Tells the story of the instruction `id` (`TASK:raw id`) of the data in `folder`, which `recipe` built.
///
/// # Errors
/// If no source has the raw row, or the data cannot be read.
pub fn trace(recipe: &Recipe, folder: &Path, id: &str) -> Result<String, BuildError> {
    let wrong = |what: String| BuildError::Recipe(what);
    let (task_id, raw_id) = id
        .split_once(':')
        .filter(|(task, _)| crate::task::find(task).is_some())
        .ok_or_else(|| wrong(format!("wanted an instruction id such as A03:source/file:12, found {id:?}")))?;
    // A long dialogue is asked about in several places, numbered after a tilde.
    let name = raw_id;
    let raw_id = name.rsplit_once('~').filter(|v| v.1.parse::<u32>().is_ok()).map_or(name, |v| v.0);
    let manifest = Manifest::read(folder)?;
    let sources = recipe.sources()?;
    let source = sources
        .iter()
        .find(|s| raw_id.strip_prefix(&s.name).is_some_and(|rest| rest.starts_with(['/', '#'])))
        .ok_or_else(|| wrong(format!("no source of the recipe has the raw row {raw_id:?}")))?;
    let mut out = format!("{id}\n\nsource {}: licence {}\n", source.name, source.licence);
    let mut records = Vec::new();
    each_record(source, &mut Faults::default(), &mut |file, record| {
        if record.meta().raw_id == raw_id {
            records.push((file.name.clone(), file.split, record));
        }
        true
    })?;
    let Some((file, split, first)) = records.first() else {
        return Err(wrong(format!("{}: no row {raw_id:?}", source.name)));
    };
    let _ = writeln!(out, "raw row {raw_id} of {file}, split {}, group {}", split.name(), first.meta().group);
    if records.len() > 1 {
        let _ = writeln!(out, "  {} rows of the source are this record; they are merged", records.len());
    }
    for (_, _, record) in records.iter().take(3) {
        let _ = writeln!(out, "  {}", brief(record));
    }
    let border = Border::survey(source)?;
    let held = border.holds(source, first);
    let _ = writeln!(
        out,
        "border: {:.0} % of the source's groups are held out; this row is on the {} side",
        100.0 * source.heldout,
        if held { "held-out" } else { "training" }
    );
    let mut firewall = Firewall::new();
    for path in &recipe.evaluation {
        for set in eval_set::read(path, 0)? {
            wall_off(&mut firewall, &set);
        }
    }
    let borders = sources.iter().map(Border::survey).collect::<Result<Vec<_>, _>>()?;
    heldout_blocks(recipe, &sources, &borders, &mut firewall)?;
    if let Some((block, dtype, at)) = locate(source, &border, held, raw_id)? {
        for text in texts(&block, dtype, at) {
            let shown: String = text.chars().take(60).collect();
            let verdict = match firewall.check(&text) {
                Some(hit) if !held => format!("is held out ({})", hit.name()),
                _ => "passes".to_owned(),
            };
            let _ = writeln!(out, "firewall: {shown:?} {verdict}");
        }
        let open = Firewall::new();
        let maker = Maker::new(recipe, if held { &open } else { &firewall }, Output::Instruct, |t| {
            if held { t.id == task_id } else { recipe.trains(t) }
        });
        let made = maker.row(&block, dtype, at, &|_, _, _| true, Paraphrases::Train);
        let list: Vec<&str> = made.iter().map(|m| m.task.id).collect();
        let _ = writeln!(
            out,
            "tasks: the row gives {}; of its atomic tasks, the first {} by hash",
            list.join(", "),
            recipe.atomic_per_row
        );
        match made.iter().find(|m| m.instruction.id == id) {
            Some(m) => {
                let class = if m.ticket.class.is_empty() { "none" } else { &m.ticket.class };
                let _ = writeln!(out, "draft: class {class}, key {:016x}, format {}", m.ticket.key, m.format);
                let others = m.instruction.raw_ids.get(1..).unwrap_or_default();
                if !others.is_empty() {
                    let _ = writeln!(out, "  with text of {}", others.join(", "));
                }
                if m.task.kind() == Kind::Atomic {
                    let _ = writeln!(out, "  derived from {} ({:?})", m.task.parents.join(", "), m.task.strategy);
                }
            }
            None => {
                let task = crate::task::find(task_id).filter(|t| matches!(t.draft, Make::From(_)));
                let why = match task {
                    Some(task) if maker.draft(task, &block, name, at).is_some() => {
                        "it was not among the row's atomic tasks, or its text is too long or behind the firewall"
                    }
                    _ => "the row lacks what it needs",
                };
                let _ = writeln!(out, "draft: none for {task_id}: {why}");
            }
        }
    }
    out.push_str(&kept(&manifest, task_id, &source.name));
    out.push_str(&written(&manifest, folder, id));
    Ok(out)
}

/// What became of the unit.
fn kept(manifest: &Manifest, task: &str, source: &str) -> String {
    let mut out = String::new();
    if let Some(unit) = manifest.units.iter().find(|u| u.task == task && u.source == source) {
        let _ = writeln!(out, "unit: {} made, {} kept (smallest keys of each class)", unit.made, unit.kept);
        if let Some(gate) = &unit.gate_before {
            let after = unit
                .gate_after
                .as_ref()
                .map_or("dropped".to_owned(), |v| format!("{:.1} and {:.1}", v.rule, v.regression));
            let _ = writeln!(
                out,
                "gate: rule {:.1} and regression {:.1} with a bar of {:.0}; after hardening {after}",
                gate.rule, gate.regression, gate.bar
            );
        }
    }
    out
}

type Place = (Block, DataType, usize);

/// The block that holds a raw row, and where in it.
fn locate(source: &Source, border: &Border, held: bool, raw_id: &str) -> Result<Option<Place>, BuildError> {
    let mut found: Option<Place> = None;
    blocks(source, border, held, &mut Faults::default(), &mut |block| {
        let place = rows(&block).into_iter().find_map(|(dtype, mut range)| {
            let at = range.find(|&at| meta(&block, dtype, at).is_some_and(|m| m.raw_id == raw_id))?;
            Some((dtype, at))
        });
        found = place.map(|(dtype, at)| (block, dtype, at));
        found.is_none()
    })?;
    Ok(found)
}

/// The record on one line.
fn brief(record: &Record) -> String {
    let whole = match record {
        Record::Product(p) => {
            format!("product {:?}, {} attributes, {} spans", p.title, p.attributes.len(), p.spans.len())
        }
        Record::Review(r) => {
            format!("review {:?}, {} opinions, {} questions", r.text, r.opinions.len(), r.questions.len())
        }
        Record::Dialogue(d) => format!("dialogue of {} turns, intent {:?}", d.turns.len(), d.intent),
        Record::Query(q) => format!("query {:?}, {} judgements, {} segments", q.text, q.judged.len(), q.segments.len()),
    };
    if whole.chars().count() > 300 { whole.chars().take(300).chain(['…']).collect() } else { whole }
}

/// Whether and where the data has the instruction.
fn written(manifest: &Manifest, folder: &Path, id: &str) -> String {
    for file in manifest.files.iter().filter(|f| Path::new(&f.name).extension().is_some_and(|e| e == "jsonl")) {
        let Ok(open) = File::open(folder.join(&file.name)) else { continue };
        for (n, line) in BufReader::new(open).lines().enumerate() {
            let row = line.ok().filter(|l| l.contains(id)).and_then(|l| serde_json::from_str::<Instruction>(&l).ok());
            if let Some(row) = row.filter(|r| r.id == id) {
                let rendered = crate::prompt::render(&row);
                return format!("written: {}:{}\n\n{}{}\n", file.name, n + 1, rendered.prompt, rendered.response);
            }
        }
    }
    "written: no file has it\n".to_owned()
}
