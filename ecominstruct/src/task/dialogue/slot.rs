//! The details that a customer gave.

use std::collections::BTreeSet;

use super::{among, around, one_line, whole};
use crate::instruction::Entity;
use crate::record::{Dialogue, Speaker};
use crate::splitmix::SplitMix;
use crate::task::block::Block;
use crate::task::{Answer, Draft, chance, pick};

/// F25: dialogue + names of details -> a line with the values of each.
pub(super) fn values(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let d = block.dialogues.get(at)?;
    let (text, given) = (whole(d)?, given(d));
    let gold: Vec<&str> = given.iter().map(|g| g.0).collect::<BTreeSet<_>>().into_iter().collect();
    if gold.is_empty() {
        return None;
    }
    let candidates = among(&gold, absent(block, at), 2..=6, rng)?;
    let of = |kind: &String| {
        let values = given.iter().filter(move |g| g.0 == kind).map(|g| g.1.to_owned());
        let kind = kind.clone();
        values.map(move |text| Entity { kind: kind.clone(), text }).collect::<Vec<_>>()
    };
    let entities = candidates.iter().flat_map(of).collect();
    Some(Draft::new("dialogue", text, Answer::Entities(entities)).candidates(candidates))
}

/// A53: dialogue + the name of a detail -> its values, or none (three in ten).
pub(super) fn value(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let d = block.dialogues.get(at)?;
    let (text, given) = (whole(d)?, given(d));
    if chance(rng, 30) {
        let absent = absent(block, at);
        let &slot = pick(rng, &absent)?;
        return Some(Draft::new("dialogue", text, Answer::Spans(Vec::new())).fill("slot", slot));
    }
    let &(slot, _) = pick(rng, &given)?;
    let values = given.iter().filter(|g| g.0 == slot).map(|g| g.1.to_owned()).collect();
    Some(Draft::new("dialogue", text, Answer::Spans(values)).fill("slot", slot))
}

/// A54: dialogue + names of details -> those that were given.
pub(super) fn names(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let d = block.dialogues.get(at)?;
    let (text, given) = (whole(d)?, given(d));
    let gold: Vec<&str> = given.iter().map(|g| g.0).collect::<BTreeSet<_>>().into_iter().collect();
    if gold.is_empty() {
        return None;
    }
    let candidates = among(&gold, absent(block, at), 2..=6, rng)?;
    let answer = candidates.iter().filter(|c| gold.contains(&c.as_str())).cloned().collect();
    Some(Draft::new("dialogue", text, Answer::Labels(answer)).candidates(candidates))
}

/// Names and values of the details whose values a customer says word by word, in order of the dialogue, each once.
fn given(d: &Dialogue) -> Vec<(&str, &str)> {
    let turns = d.turns.iter().filter(|t| t.speaker == Speaker::Customer);
    let said: Vec<String> = turns.map(|t| one_line(&t.text)).collect();
    let listed = |text: &str| !text.is_empty() && !text.contains([',', ';', '，', '；', '、', '\n']);
    let mut found: Vec<(usize, usize, &str, &str)> = Vec::new();
    for slot in d.slots.iter().filter(|s| listed(&s.value) && listed(&s.name) && !s.name.contains([':', '：'])) {
        let place = said.iter().enumerate().find_map(|(i, text)| text.find(&slot.value).map(|at| (i, at)));
        if let Some((turn, at)) = place
            && !found.iter().any(|f| f.2 == slot.name && f.3 == slot.value)
        {
            found.push((turn, at, &slot.name, &slot.value));
        }
    }
    found.sort_unstable();
    found.into_iter().map(|f| (f.2, f.3)).collect()
}

/// Names of details that other dialogues have and this one has not, in order.
fn absent(block: &Block, at: usize) -> Vec<&str> {
    let own = |name: &str| block.dialogues.get(at).is_none_or(|d| d.slots.iter().any(|s| s.name == name));
    let others = around(block, at).filter_map(|i| block.dialogues.get(i));
    let names: BTreeSet<&str> = others.flat_map(|d| &d.slots).map(|s| s.name.as_str()).collect();
    names.into_iter().filter(|n| !own(n) && !n.is_empty() && !n.contains([':', '：', ',', '，'])).collect()
}
