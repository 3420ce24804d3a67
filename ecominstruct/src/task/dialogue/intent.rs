//! What the customer wants.

use super::{around, most, says_something, shown};
use crate::instruction::Lang;
use crate::record::{Dialogue, Speaker};
use crate::splitmix::SplitMix;
use crate::task::block::Block;
use crate::task::{Answer, Draft, chance, either, pick};

/// F24: window up to the last customer turn -> its intent. "Out of scope" is neither asked for nor offered: it would be
/// true of nothing that has another name in the list, and of much that has none.
pub(super) fn of_last_turn(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let d = block.dialogues.get(at)?;
    let intent = named(d)?;
    let text = shown(d, last_customer(d)? + 1)?;
    let mut candidates = block.intents().choices(&[intent], 9..=19, rng)?;
    candidates.retain(|c| nameable(c, d.meta.lang));
    if candidates.len() < 2 {
        return None;
    }
    Some(Draft::new("dialogue", text, Answer::Labels(vec![intent.to_owned()])).candidates(candidates))
}

/// A51: what the customer says + an intent -> yes or no. The wrong intent is one that is easily confused.
pub(super) fn confirm(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let d = block.dialogues.get(at)?;
    let intent = named(d)?;
    let text = shown(d, last_customer(d)? + 1)?;
    let yes = chance(rng, 50);
    let asked = if yes { intent } else { other_intent(block, intent, rng)? };
    Some(Draft::new("dialogue", text, either(yes)).fill("intent", asked))
}

/// A52: two customers' requests -> same or different intent. Half of the different ones are the nearest in words.
pub(super) fn compare(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let d = block.dialogues.get(at)?;
    let (intent, first) = (named(d)?, request(d)?);
    let same = chance(rng, 50);
    let fits = |i: usize| {
        let other = block.dialogues.get(i)?;
        let wanted = named(other).is_some_and(|o| (o == intent) == same);
        request(other).filter(|text| i != at && wanted && !text.eq_ignore_ascii_case(first))
    };
    let near = if !same && chance(rng, 60) {
        let near = block.near_dialogues().near(first, 6, |i| fits(i).is_some());
        pick(rng, &near).copied()
    } else {
        None
    };
    let other = match near {
        Some(i) => i,
        None => {
            let of = if same { intent } else { other_intent(block, intent, rng)? };
            let mut all = block.dialogues_of_intent(of).to_vec();
            rng.shuffle(&mut all);
            all.into_iter().find(|&i| fits(i).is_some())?
        }
    };
    let second = fits(other)?;
    let (a, b) = if chance(rng, 50) { (first, second) } else { (second, first) };
    let id = block.dialogues.get(other)?.meta.raw_id.clone();
    Some(Draft::new("utterance_a", a, either(same)).part("utterance_b", b).others([id]))
}

/// A55: intent (with the details that the message holds) -> the customer's message.
pub(super) fn phrase(block: &Block, at: usize, _rng: &mut SplitMix) -> Option<Draft> {
    let d = block.dialogues.get(at)?;
    let (intent, text) = (named(d)?, request(d)?);
    let said = d.slots.iter().filter(|s| !s.value.is_empty() && text.contains(&s.value));
    let details: Vec<String> = said.map(|s| format!("{}: {}", s.name, s.value)).collect();
    let common = around(block, at).filter(|&i| block.dialogues.get(i).and_then(request) == Some(text)).nth(1).is_some();
    if common || text.chars().count() > most(d.meta.lang) / 6 {
        return None;
    }
    let draft = Draft::new("intent", intent, Answer::Text(text.to_owned())).fill("intent", intent);
    Some(if details.is_empty() { draft } else { draft.part("list", details.join("; ")) })
}

/// Place of the last customer turn that has words.
fn last_customer(d: &Dialogue) -> Option<usize> {
    d.turns.iter().rposition(|t| t.speaker == Speaker::Customer && !t.text.trim().is_empty())
}

/// The last customer turn, where it says by itself what is wanted.
fn request(d: &Dialogue) -> Option<&str> {
    let text = d.turns.get(last_customer(d)?)?.text.trim();
    (says_something(text, d.meta.lang) && text.chars().count() <= most(d.meta.lang)).then_some(text)
}

/// The intent, where its name can stand in a sentence (not "out of scope").
fn named(d: &Dialogue) -> Option<&str> {
    d.intent.as_deref().filter(|i| nameable(i, d.meta.lang))
}

fn nameable(intent: &str, lang: Lang) -> bool {
    match lang {
        Lang::En => {
            let lower = intent.to_lowercase();
            !["out of scope", "other", "others", "none", "unknown", "misc", "no nodes detected"]
                .contains(&lower.as_str())
        }
        Lang::Zh => !["其他", "其它", "无", "未知", "超出范围"].contains(&intent),
    }
}

/// An intent that is easily confused with this one.
fn other_intent<'a>(block: &'a Block, intent: &str, rng: &mut SplitMix) -> Option<&'a str> {
    (0..8).find_map(|_| block.intents().confusable(intent, &[intent], rng).filter(|i| nameable(i, block.lang)))
}
