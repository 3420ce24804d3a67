//! The builder's own held-out sets: made before anything is trained on, and walled off from it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rayon::prelude::*;

use super::draft::{Format, Made, Maker, meta, rows};
use super::manifest::FileEntry;
use super::output::Output;
use super::recipe::{self, Recipe, Source};
use super::source::{Border, blocks};
use super::unit::{Ticket, Unit, balance};
use super::{BuildError, Faults, Written};
use crate::eval_set;
use crate::firewall::Firewall;
use crate::instruction::{DataType, Instruction, Lang};
use crate::record::Dialogue;
use crate::task::Task;
use crate::task::block::Block;
use crate::wording::Paraphrases;

/// The held-out side of every source that has one; all of it goes into the firewall.
pub(super) fn heldout_blocks(
    recipe: &Recipe,
    sources: &[Source],
    borders: &[Border],
    firewall: &mut Firewall,
) -> Result<BTreeMap<String, Vec<Block>>, BuildError> {
    let mut all = BTreeMap::new();
    for (source, border) in sources.iter().zip(borders) {
        if source.heldout == 0.0 || !recipe.heldout.iter().any(|h| h.source == source.name) {
            continue;
        }
        let mut list = Vec::new();
        blocks(source, border, true, &mut Faults::default(), &mut |block| {
            list.push(block);
            true
        })?;
        all.insert(source.name.clone(), list);
    }
    for block in all.values().flatten() {
        for (dtype, range) in rows(block) {
            for at in range {
                for text in texts(block, dtype, at) {
                    firewall.add(&text);
                }
            }
        }
    }
    Ok(all)
}

/// Puts an evaluation set behind the wall: whole texts, their fields, and the texts to choose from.
pub(super) fn wall_off(firewall: &mut Firewall, set: &eval_set::EvalSet) {
    for item in &set.items {
        firewall.add_with_fields(&item.text);
        if matches!(set.kind, eval_set::SetKind::Extract | eval_set::SetKind::Generate) {
            for text in item.candidates.iter().chain([&item.gold]) {
                firewall.add(text);
            }
        }
    }
}

/// The texts of a record that must not be held-out ones.
pub(super) fn texts(block: &Block, dtype: DataType, at: usize) -> Vec<Cow<'_, str>> {
    let mut list: Vec<Cow<'_, str>> = Vec::with_capacity(4);
    match dtype {
        DataType::Product => block.products.get(at).into_iter().for_each(|p| {
            list.push(p.title.as_str().into());
            list.extend(p.description.as_deref().map(Cow::from));
            list.extend(p.short_title.as_deref().map(Cow::from));
            // "brand: X; color: blue; size: M" is true of many products.
            if p.attributes.len() >= 6 {
                let sheet: Vec<String> = p.attributes.iter().map(|a| format!("{}: {}", a.name, a.value)).collect();
                list.push(sheet.join("; ").into());
            }
        }),
        DataType::Review => block.reviews.get(at).into_iter().for_each(|r| {
            list.push(r.text.as_str().into());
            list.extend(r.headline.as_deref().map(Cow::from));
            list.extend(r.questions.iter().map(|q| Cow::from(q.text.as_str())));
        }),
        DataType::Dialogue => list.extend(block.dialogues.get(at).map(|d| Cow::from(spoken(d)))),
        DataType::Query => list.extend(block.queries.get(at).map(|q| Cow::from(q.text.as_str()))),
    }
    list.retain(|text| !text.is_empty());
    list
}

/// All that is said in a dialogue.
pub(super) fn spoken(dialogue: &Dialogue) -> String {
    dialogue.turns.iter().map(|t| t.text.as_str()).collect::<Vec<_>>().join("\n")
}

/// A held-out set, made before anything is trained on.
pub(super) struct HeldSet<'a> {
    pub recipe: &'a recipe::HeldOut,
    pub task: &'static Task,
    pub unit: Unit,
    pub format: Format,
    /// The items in the trained wordings, and in the held-out one.
    pub rows: [Vec<Instruction>; 2],
}

impl<'a> HeldSet<'a> {
    /// Makes the set from the held-out blocks of its source.
    pub fn make(
        recipe: &Recipe,
        held: &'a recipe::HeldOut,
        all: &BTreeMap<String, Vec<Block>>,
    ) -> Result<Self, BuildError> {
        let wrong = |what: String| BuildError::HeldOut { name: held.name.clone(), what };
        let open = Firewall::new();
        // What training leaves out may still be asked for here, by name.
        let whole = |source: &recipe::SourceRecipe| recipe::SourceRecipe { skip: Vec::new(), ..source.clone() };
        let plain = Recipe {
            source: recipe.source.iter().map(whole).collect(),
            atomic_per_row: usize::MAX,
            floor: 0,
            size: 0,
            cap: held.items,
            tasks: recipe::Tasks { shuffle_atomic: false, ..recipe.tasks.clone() },
            shares: recipe::Shares { language: 0.0, data_type: 0.0, source: 1.0, paradigm: BTreeMap::new() },
            ..recipe.clone()
        };
        let maker = Maker::new(&plain, &open, Output::Instruct, |t| t.id == held.task);
        let task = crate::task::find(&held.task).ok_or_else(|| wrong("no such task".into()))?;
        let lang = all.get(&held.source).and_then(|b| b.first()).map(|b| b.lang).unwrap_or_default();
        let mut unit = Unit::new(task, 0, lang);
        let (mut made, mut keys, mut same) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for block in all.get(&held.source).map_or(&[][..], Vec::as_slice) {
            let Some((_, range)) = rows(block).into_iter().find(|r| r.0 == task.dtype) else { continue };
            let rows: Vec<(usize, Made)> = range
                .into_par_iter()
                .flat_map_iter(|at| {
                    let one = maker.row(block, task.dtype, at, &|_, _, _| true, Paraphrases::Train);
                    one.into_iter().map(move |m| (at, m))
                })
                .collect();
            for (at, mut m) in rows {
                if !keys.insert(m.ticket.key) || !same.insert(m.sameness) {
                    continue;
                }
                let sides = m.ticket.sides.take();
                unit.add(Ticket { key: m.ticket.key, class: m.ticket.class.clone(), sides, tokens: 0, written: 0 }, 0);
                made.push((block, at, m));
            }
        }
        unit.run_gate(recipe.seed, 50);
        balance(std::slice::from_mut(&mut unit), 1, &plain);
        made.retain(|(_, _, m)| unit.keeps(&m.ticket.class, m.ticket.key));
        made.sort_by_key(|(_, _, m)| m.order);
        let Some(format) = made.first().map(|(_, _, m)| m.format.clone()) else {
            return Err(wrong(format!("the held-out rows of {} give no item of task {}", held.source, held.task)));
        };
        // The set is one task of one source: its name tells sets of the same task apart.
        let named = |row| Instruction { task: held.name.clone(), source_split: "heldout".into(), ..row };
        let mut lists = [Vec::new(), Vec::new()];
        for (block, at, m) in made {
            let name = m.instruction.id.split_once(':').map_or("", |id| id.1);
            let again = meta(block, task.dtype, at).and_then(|meta| {
                let draft = maker.draft(task, block, name, at)?;
                maker.word(task, &draft, block, (meta, name), (String::new(), 0), Paraphrases::HeldOut)
            });
            // Chinese prompts have no held-out wording.
            lists[1].extend(again.map(|m| named(m.instruction)).filter(|row| row.prompt_lang == Lang::En));
            lists[0].push(named(m.instruction));
        }
        Ok(Self { recipe: held, task, unit, format, rows: lists })
    }

    /// Writes both files. The first one's SHA-256 must be the recipe's, where that names one.
    pub fn write(&self, folder: &Path) -> Result<Vec<FileEntry>, BuildError> {
        let mut files = Vec::new();
        for (part, rows) in ["heldout", "heldout-paraphrase"].into_iter().zip(&self.rows) {
            let dir = folder.join(part);
            fs::create_dir_all(&dir).map_err(|e| BuildError::io(&dir, e))?;
            let path = dir.join(format!("{}.jsonl", self.recipe.name));
            let fail = |e| BuildError::io(&path, e);
            let mut file = Written::create(&path, Output::Instruct).map_err(fail)?;
            rows.iter().try_for_each(|row| file.row(&Output::Instruct.line(row))).map_err(fail)?;
            files.push(file.finish(part).map_err(fail)?);
        }
        match (&self.recipe.sha256, files.first()) {
            (Some(wanted), Some(file)) if *wanted != file.sha256 => Err(BuildError::HeldOut {
                name: self.recipe.name.clone(),
                what: format!("wanted SHA-256 {wanted}, built {}", file.sha256),
            }),
            _ => Ok(files),
        }
    }
}
