//! The tasks of the demo shop and their wording. Ids are those of the `EcomInstruct` task list (F final, A atomic).

use super::draft::{self, Answer, Draft, Part};
use super::words::{fill, split};
use super::world::World;
use super::{DemoData, Shop};
use crate::instruction::{DataType, Gold, Instruction, Kind, Lang, Paradigm, Strategy};
use crate::splitmix::SplitMix;

/// Instructions per task and language.
const TRAIN: usize = 400;
const HELDOUT_SEEN: usize = 14;
const HELDOUT_TASK: usize = 30;

struct Task {
    id: &'static str,
    parents: &'static [&'static str],
    strategy: Strategy,
    dtype: DataType,
    paradigm: Paradigm,
    /// Number of classes to balance; 1 where the answer is no class.
    classes: usize,
    /// How many drafts there can be.
    size: fn(&Part) -> usize,
    draft: fn(&Part, usize, &mut SplitMix) -> Option<Draft>,
}

const SEEN: [Task; 12] = [
    final_task("F03", DataType::Product, Paradigm::Cls, 10, |p| p.listings.len(), draft::category),
    final_task("F11", DataType::Product, Paradigm::Ext, 1, |p| p.listings.len(), draft::brand),
    final_task("F02", DataType::Product, Paradigm::Oth, 1, |p| p.listings.len(), draft::attributes),
    final_task("F07", DataType::Product, Paradigm::Gen, 1, |p| p.products.len() * 2, draft::title),
    final_task("F12", DataType::Review, Paradigm::Cls, 2, |p| p.reviews.len(), draft::polarity),
    final_task("F15", DataType::Review, Paradigm::Ext, 1, |p| p.reviews.len(), draft::aspects),
    final_task("F16", DataType::Review, Paradigm::Cls, 2, |p| p.reviews.len(), draft::aspect_polarity),
    final_task("F24", DataType::Dialogue, Paradigm::Cls, 9, |p| p.dialogues.len(), draft::intent),
    Task {
        parents: &["F01", "F02"],
        strategy: Strategy::Simplification,
        ..final_task("A02", DataType::Product, Paradigm::Ext, 1, |p| p.listings.len(), draft::value)
    },
    Task {
        parents: &["F06", "F02"],
        strategy: Strategy::Simplification,
        ..final_task("A16", DataType::Product, Paradigm::Cls, 2, |p| p.listings.len(), draft::attribute_match)
    },
    Task {
        parents: &["F04"],
        strategy: Strategy::Reversal,
        ..final_task("A29", DataType::Product, Paradigm::Ext, 1, |p| p.products.len() * 2, draft::category_choice)
    },
    Task {
        parents: &["F30", "F31"],
        strategy: Strategy::Recombination,
        ..final_task("A57", DataType::Query, Paradigm::Cls, 2, |p| p.queries.len(), draft::query_match)
    },
];

/// Never trained.
const UNSEEN: Task = final_task("F31", DataType::Query, Paradigm::Ext, 1, |p| p.queries.len(), draft::query_choice);

const fn final_task(
    id: &'static str,
    dtype: DataType,
    paradigm: Paradigm,
    classes: usize,
    size: fn(&Part) -> usize,
    draft: fn(&Part, usize, &mut SplitMix) -> Option<Draft>,
) -> Task {
    Task { id, parents: &[], strategy: Strategy::None, dtype, paradigm, classes, size, draft }
}

/// The instructions of a shop.
pub(super) fn instructions(shop: &Shop) -> DemoData {
    let mut data = DemoData::default();
    for lang in [Lang::En, Lang::Zh] {
        let world = shop.world(lang);
        let [train, test] = [false, true].map(|heldout| Part::new(shop, world, heldout));
        for (n, task) in SEEN.iter().enumerate() {
            let mut rng = SplitMix::stream(shop.seed, 100_000 + 100 * n as u64 + lang as u64);
            data.train.extend(unit(task, &train, TRAIN, "train", &mut rng));
            data.heldout_seen.extend(unit(task, &test, HELDOUT_SEEN, "test", &mut rng));
        }
        let mut rng = SplitMix::stream(shop.seed, 200_000 + lang as u64);
        data.heldout_task.extend(unit(&UNSEEN, &test, HELDOUT_TASK, "test", &mut rng));
    }
    SplitMix::stream(shop.seed, 300_000).shuffle(&mut data.train);
    data
}

/// Up to `count` instructions of one task and language, equally many of each class.
fn unit(task: &Task, part: &Part, count: usize, split: &str, rng: &mut SplitMix) -> Vec<Instruction> {
    let mut order: Vec<usize> = (0..(task.size)(part)).collect();
    rng.shuffle(&mut order);
    let mut room = vec![count.div_ceil(task.classes); task.classes];
    let mut rows = Vec::new();
    for at in order {
        if rows.len() == count {
            break;
        }
        let Some(draft) = (task.draft)(part, at, rng) else { continue };
        if let Some(room) = room.get_mut(draft.class).filter(|room| **room > 0) {
            *room -= 1;
            let id = format!("{}-shop-{}-{split}-{:04}", task.id, part.world.lang.name(), rows.len());
            rows.push(Instruction { id, source_split: split.to_owned(), ..word(task, part.world, draft, rng) });
        }
    }
    rows
}

/// Puts a draft into one of the task's wordings.
fn word(task: &Task, world: &World, draft: Draft, rng: &mut SplitMix) -> Instruction {
    let lang = world.lang;
    let prompts = world.tasks.list(task.id, "prompts");
    let at = rng.below(prompts.len());
    let mut prompt = String::new();
    fill(&mut prompt, prompts.get(at).copied().unwrap_or_default(), &mut |out, name| {
        for (_, text) in draft.fills.iter().filter(|(fill, _)| *fill == name) {
            out.push_str(text);
        }
    });
    let mut candidates = draft.candidates;
    let (gold, output) = match draft.answer {
        Answer::Label(label) => (Gold::Labels(vec![label.clone()]), label),
        Answer::Either(first) => {
            let labels = split(world.tasks.line(task.id, "labels"));
            let (yes, no) = labels.get(at).and_then(|pair| pair.split_once(", ")).unwrap_or_default();
            candidates = vec![yes.to_owned(), no.to_owned()];
            rng.shuffle(&mut candidates);
            let label = if first { yes } else { no }.to_owned();
            (Gold::Labels(vec![label.clone()]), label)
        }
        Answer::Spans(spans) => {
            let output = list(&spans);
            (Gold::Spans(spans), output)
        }
        Answer::Entities(entities) => {
            let line = |kind: &String| {
                let texts: Vec<String> = entities.iter().filter(|e| e.kind == *kind).map(|e| e.text.clone()).collect();
                format!("{kind}: {}", list(&texts))
            };
            let output = candidates.iter().map(line).collect::<Vec<_>>().join("\n");
            (Gold::Entities(entities), output)
        }
        Answer::Text(text) => (Gold::Text(text.clone()), text),
    };
    Instruction {
        task: task.id.to_owned(),
        kind: if task.parents.is_empty() { Kind::Final } else { Kind::Atomic },
        parents: task.parents.iter().map(|&p| p.to_owned()).collect(),
        strategy: task.strategy,
        dtype: Some(task.dtype),
        paradigm: task.paradigm,
        lang,
        prompt_lang: lang,
        source: "demo-shop".to_owned(),
        raw_ids: draft.raw_ids,
        group: draft.group,
        description: world.tasks.line(task.id, "description").to_owned(),
        prompt,
        input: draft.input,
        n_candidates: (!candidates.is_empty()).then_some(candidates.len() as u32),
        candidates,
        output,
        gold: Some(gold),
        template_id: format!("{}-{}-{}", task.id, lang.name(), at + 1),
        ..Instruction::default()
    }
}

/// Copied words as an answer.
fn list(texts: &[String]) -> String {
    if texts.is_empty() { "None".to_owned() } else { texts.join(", ") }
}
