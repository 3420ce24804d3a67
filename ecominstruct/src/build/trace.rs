//! From an instruction back to its raw row, through every decision on the way: the row is taken through the builder again, and
//! what comes out is held against what was written.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

use super::draft::{Made, Maker, meta, rows};
use super::heldout::texts;
use super::manifest::Manifest;
use super::recipe::{Recipe, Source};
use super::sieve::Sieve;
use super::source::{blocks, each_record};
use super::{BuildError, Faults, Output, Walls};
use crate::dedup::Dedup;
use crate::firewall::Firewall;
use crate::instruction::{DataType, Instruction, Kind, Lang};
use crate::raw::Split;
use crate::read::{BadRows, Format, Reader};
use crate::record::{Meta, Record};
use crate::task::block::Block;
use crate::task::{Make, Task};
use crate::wording::Paraphrases;

/// What is known of an instruction.
#[derive(Debug)]
pub struct Story {
    /// The story, some lines.
    pub text: String,
    /// Whether raw row and recipe still give what the data has, or the data has no such instruction.
    pub holds: bool,
}

/// Tells the story of the instruction `id` (`TASK:raw id`) of the data in `folder`, which `recipe` built.
///
/// # Errors
/// If no source has the raw row, the data keeps no ids, or something cannot be read.
pub fn trace(recipe: &Recipe, folder: &Path, id: &str) -> Result<Story, BuildError> {
    let wrong = |what: String| BuildError::Recipe(what);
    let (task, name) = id
        .split_once(':')
        .and_then(|(task, name)| Some((crate::task::find(task)?, name)))
        .ok_or_else(|| wrong(format!("wanted an instruction id such as A03:source/file:12, found {id:?}")))?;
    let manifest = Manifest::read(folder)?;
    let places = places(&manifest, folder, id)?;
    let sources = recipe.sources()?;
    let Some((at, records)) = find(&sources, name)? else {
        let named = |s: &&Source| starts(name, &s.name);
        return Err(wrong(match sources.iter().find(named) {
            Some(source) => format!("{}: no row {name:?}", source.name),
            None => format!("no source of the recipe has the raw row {name:?}"),
        }));
    };
    let (source, (file, split, first)) = (&sources[at], &records[0]);
    let meta = first.meta();
    let mut out = format!("{id}\n\nsource {}: licence {}\n", source.name, source.licence);
    let _ = writeln!(out, "raw row {} of {file}, split {}, group {}", meta.raw_id, split.name(), meta.group);
    if records.len() > 1 {
        let _ = writeln!(out, "  {} rows of the source are this record; they are merged", records.len());
    }
    for (_, _, record) in records.iter().take(3) {
        let _ = writeln!(out, "  {}", brief(record));
    }
    let walls = Walls::raise(recipe, &sources)?;
    let held = walls.borders[at].holds(source, first);
    let _ = writeln!(
        out,
        "border: {:.0} % of the source's groups are held out; this row is on the {} side",
        100.0 * source.heldout,
        if held { "held-out" } else { "training" }
    );
    let again: Vec<Instruction> = if held {
        heldout(&walls, id, &mut out)
    } else {
        let row = Row { recipe, sources: &sources, walls: &walls, at, meta, name, task };
        row.make(id, &mut out)?
    };
    out.push_str(&kept(&manifest, task, &source.name, meta.lang));
    let mut holds = true;
    for place in &places {
        let answers = recipe.tasks.shuffle_atomic && !held && task.kind() == Kind::Atomic;
        let told = place.compare(&again, answers).map_err(|e| BuildError::io(&folder.join(&place.file), e))?;
        holds &= told.is_ok();
        let told = match told {
            Ok(()) if answers => "from this row, with another's answer as the recipe wants".to_owned(),
            Ok(()) => "from this row, word for word".to_owned(),
            Err(what) => what,
        };
        let _ = writeln!(out, "written: {}:{}\nmade again: {told}", place.file, place.line);
    }
    match places.first() {
        Some(place) => out.push_str(&place.shown()),
        None => out.push_str("written: no file has it\n"),
    }
    Ok(Story { text: out, holds })
}

/// Whether a raw id is one of a source's.
fn starts(raw_id: &str, source: &str) -> bool {
    raw_id.strip_prefix(source).is_some_and(|rest| rest.starts_with(['/', '#']))
}

type Records = Vec<(String, Split, Record)>;

/// The source with the raw row `name`, and its records.
fn find(sources: &[Source], name: &str) -> Result<Option<(usize, Records)>, BuildError> {
    // A long dialogue is asked about in several places, numbered after a tilde; an id of the data may have one as well.
    let view = name.rsplit_once('~').filter(|v| v.1.parse::<u32>().is_ok()).map(|v| v.0);
    for (at, source) in sources.iter().enumerate().filter(|(_, s)| starts(name, &s.name)) {
        let (mut whole, mut viewed) = (Vec::new(), Vec::new());
        each_record(source, &mut Faults::default(), &mut |file, record| {
            let raw_id = &record.meta().raw_id;
            if raw_id == name {
                whole.push((file.name.clone(), file.split, record));
            } else if Some(raw_id.as_str()) == view {
                viewed.push((file.name.clone(), file.split, record));
            }
            true
        })?;
        if let Some(records) = [whole, viewed].into_iter().find(|r| !r.is_empty()) {
            return Ok(Some((at, records)));
        }
    }
    Ok(None)
}

/// The items of held-out sets with this id.
fn heldout(walls: &Walls<'_>, id: &str, out: &mut String) -> Vec<Instruction> {
    for set in walls.sets.iter().filter(|set| set.rows[0].iter().any(|row| row.id == id)) {
        let _ = writeln!(out, "held-out set {}: one of its {} items", set.recipe.name, set.rows[0].len());
    }
    walls.sets.iter().flat_map(|set| set.rows.iter().flatten()).filter(|row| row.id == id).cloned().collect()
}

/// A raw row of the training side.
struct Row<'a> {
    recipe: &'a Recipe,
    sources: &'a [Source],
    walls: &'a Walls<'a>,
    /// Its source.
    at: usize,
    meta: &'a Meta,
    /// Its raw id, with the number of the view.
    name: &'a str,
    task: &'static Task,
}

impl Row<'_> {
    /// Takes the row through the builder again, with all that is read before it: an earlier source's text may be near one of this
    /// block, and what stays of the block decides what a row is mixed with.
    fn make(&self, id: &str, out: &mut String) -> Result<Vec<Instruction>, BuildError> {
        let Self { recipe, walls, at, .. } = self;
        let maker = Maker::new(recipe, &walls.firewall, Output::Instruct, |t| recipe.trains(t));
        let (dedup, mut again) = (recipe.deduplicate.then(Dedup::new), Vec::new());
        let mut sieve = Sieve { firewall: &walls.firewall, dedup, walled: BTreeMap::new(), repeated: 0 };
        for (n, source) in self.sources.iter().enumerate().take(at + 1) {
            if n < *at && !recipe.deduplicate {
                continue;
            }
            blocks(source, &walls.borders[n], false, &mut Faults::default(), &mut |block| {
                let here = if n == *at { locate(&block, &self.meta.raw_id) } else { None };
                let repeats = recipe.deduplicate && block.reviews.len() + block.dialogues.len() > 0;
                if here.is_none() && !repeats {
                    return true;
                }
                if let Some((dtype, at)) = here {
                    firewall(&walls.firewall, &block, dtype, at, out);
                }
                let open = sieve.sift(block);
                if here.is_some() {
                    again.extend(self.draft(&maker, &open, id, out));
                }
                true
            })?;
        }
        Ok(again)
    }

    /// What a block without what must not be trained on gives.
    fn draft(&self, maker: &Maker<'_>, block: &Block, id: &str, out: &mut String) -> Option<Instruction> {
        let Some((dtype, at)) = locate(block, &self.meta.raw_id) else {
            out.push_str("row: left out; a text of it is held out, or nearly repeats that of an earlier row\n");
            return None;
        };
        let made = maker.row(block, dtype, at, &|_, _, _| true, Paraphrases::Train);
        let list: Vec<&str> = made.iter().map(|m| m.task.id).collect();
        let _ = writeln!(
            out,
            "tasks: the row gives {}; of its atomic tasks, the first {} by hash",
            list.join(", "),
            self.recipe.atomic_per_row
        );
        let Some(made) = made.into_iter().find(|m| m.instruction.id == id) else {
            let makes = matches!(self.task.draft, Make::From(_));
            let why = if makes && maker.draft(self.task, block, self.name, at).is_some() {
                "the recipe leaves the task out, it was not among the row's atomic tasks, or its text is too long"
            } else {
                "the row lacks what it needs"
            };
            let _ = writeln!(out, "draft: none for {}: {why}", self.task.id);
            return None;
        };
        let Made { ticket, format, instruction, hit, .. } = made;
        let class = if ticket.class.is_empty() { "none" } else { &ticket.class };
        let _ = writeln!(out, "draft: class {class}, key {:016x}, format {format}", ticket.key);
        let others = instruction.raw_ids.get(1..).unwrap_or_default();
        if !others.is_empty() {
            let _ = writeln!(out, "  with text of {}", others.join(", "));
        }
        if self.task.kind() == Kind::Atomic {
            let _ = writeln!(out, "  derived from {} ({:?})", self.task.parents.join(", "), self.task.strategy);
        }
        if let Some(hit) = hit {
            let _ = writeln!(out, "  left out: its text is held out ({})", hit.name());
            return None;
        }
        Some(instruction)
    }
}

/// What the firewall says about each text of a record.
fn firewall(wall: &Firewall, block: &Block, dtype: DataType, at: usize, out: &mut String) {
    for text in texts(block, dtype, at) {
        let shown: String = text.chars().take(60).collect();
        let verdict = wall.check(&text).map_or("passes".to_owned(), |hit| format!("is held out ({})", hit.name()));
        let _ = writeln!(out, "firewall: {shown:?} {verdict}");
    }
}

/// Where in a block a raw row is.
fn locate(block: &Block, raw_id: &str) -> Option<(DataType, usize)> {
    rows(block).into_iter().find_map(|(dtype, mut range)| {
        let at = range.find(|&at| meta(block, dtype, at).is_some_and(|m| m.raw_id == raw_id))?;
        Some((dtype, at))
    })
}

/// What became of the unit.
fn kept(manifest: &Manifest, task: &Task, source: &str, lang: Lang) -> String {
    let mut out = String::new();
    if let Some(unit) = manifest.units.iter().find(|u| u.task == task.id && u.source == source && u.lang == lang) {
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

/// Where the data has an instruction.
struct Place {
    /// Path within the folder.
    file: String,
    line: usize,
    /// The record or row, as JSON.
    row: String,
}

/// All places of the instruction `id`.
fn places(manifest: &Manifest, folder: &Path, id: &str) -> Result<Vec<Place>, BuildError> {
    let quoted = serde_json::to_string(id).unwrap_or_default();
    let mut places = Vec::new();
    for entry in &manifest.files {
        let path = folder.join(&entry.name);
        // A held-out set may have been moved to where it is used.
        if entry.name.contains('/') && !path.exists() {
            continue;
        }
        let mut nameless = None;
        each_row(&path, &mut |line, row| {
            if line == 1 && !row.contains("\"id\":") {
                nameless = Some(line);
            }
            if row.contains(&quoted)
                && serde_json::from_str::<Value>(&row).is_ok_and(|v| v.get("id").and_then(Value::as_str) == Some(id))
            {
                places.push(Place { file: entry.name.clone(), line, row });
            }
        })
        .map_err(|e| BuildError::io(&path, e))?;
        if nameless.is_some() {
            let what =
                format!("{}: wanted rows with an id, found none; build the data again to trace it", path.display());
            return Err(BuildError::Recipe(what));
        }
    }
    Ok(places)
}

/// Gives each row of a JSON Lines or Parquet file, with its number from 1, to `visit`.
fn each_row(path: &Path, visit: &mut dyn FnMut(usize, String)) -> io::Result<()> {
    let file = File::open(path)?;
    if path.extension().is_none_or(|e| e != "parquet") {
        for (n, line) in BufReader::with_capacity(1 << 18, file).lines().enumerate() {
            visit(n + 1, line?);
        }
        return Ok(());
    }
    let reader = SerializedFileReader::new(file).map_err(io::Error::other)?;
    for (n, row) in reader.get_row_iter(None).map_err(io::Error::other)?.enumerate() {
        let row = row.map_err(io::Error::other)?;
        if let Some((_, Field::Str(record))) = row.get_column_iter().find(|(name, _)| *name == "record") {
            visit(n + 1, record.clone());
        }
    }
    Ok(())
}

impl Place {
    /// Whether one of `again` is what is written here; else what differs. With `answers`, the answer may be another row's.
    fn compare(&self, again: &[Instruction], answers: bool) -> io::Result<Result<(), String>> {
        let written: Value = serde_json::from_str(&self.row)?;
        let form = match () {
            () if written.get("messages").is_some() => Output::Messages,
            () if written.get("instruction").is_some() => Output::Alpaca,
            () => Output::Instruct,
        };
        let mut differ = Vec::new();
        for row in again {
            let mut made: Value = serde_json::from_slice(&form.line(row))?;
            if answers {
                for answer in ["/output", "/gold", "/kind", "/messages/1/content"] {
                    if let (Some(made), Some(written)) = (made.pointer_mut(answer), written.pointer(answer)) {
                        made.clone_from(written);
                    }
                }
            }
            if made == written {
                return Ok(Ok(()));
            }
            let keys = |v: &Value| v.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
            let mut all = keys(&written);
            all.extend(keys(&made).into_iter().filter(|k| written.get(k).is_none()));
            differ = all.into_iter().filter(|k| made.get(k) != written.get(k)).collect();
        }
        let changed = "raw data, recipe or program are not those that built it";
        Ok(Err(match differ.as_slice() {
            [] => format!("not possible; {changed}"),
            keys => format!("with another {}; {changed}", keys.join(", ")),
        }))
    }

    /// The instruction as a model sees it.
    fn shown(&self) -> String {
        match Reader::new(self.row.as_bytes(), &*self.file, Format::Auto, BadRows::Error).next() {
            Some(Ok(row)) => {
                let rendered = crate::prompt::render(&row);
                format!("\n{}{}\n", rendered.prompt, rendered.response)
            }
            _ => format!("\n{}\n", self.row),
        }
    }
}

#[cfg(test)]
mod tests;
