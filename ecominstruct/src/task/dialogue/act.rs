//! What a turn does, and who speaks it.

use super::{says_something, shown, window};
use crate::record::Speaker;
use crate::splitmix::SplitMix;
use crate::task::block::Block;
use crate::task::{Answer, Draft, chance, pick};

/// F27: window up to an annotated turn -> the act that most annotators saw in it. Other acts of the same turn are not offered.
pub(super) fn of_last_turn(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let d = block.dialogues.get(at)?;
    let annotated = |t: &crate::record::Turn| !t.acts.is_empty() && !t.text.trim().is_empty();
    let places: Vec<usize> = (0..d.turns.len()).filter(|&i| d.turns.get(i).is_some_and(annotated)).collect();
    let &place = pick(rng, &places)?;
    let (act, also) = d.turns.get(place)?.acts.split_first()?;
    let text = shown(d, place + 1)?;
    let mut candidates = block.acts().choices(&[act], 4..=9, rng)?;
    candidates.retain(|c| !also.contains(c));
    (candidates.len() >= 2)
        .then(|| Draft::new("dialogue", text, Answer::Labels(vec![act.clone()])).candidates(candidates))
}

/// A48: window without speakers -> customer or agent, for its last line.
pub(super) fn who_speaks(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let d = block.dialogues.get(at)?;
    let agent = chance(rng, 50);
    let speaker = if agent { Speaker::Agent } else { Speaker::Customer };
    let asked = |t: &crate::record::Turn| t.speaker == speaker && says_something(&t.text, d.meta.lang);
    let places: Vec<usize> = (1..d.turns.len()).filter(|&i| d.turns.get(i).is_some_and(asked)).collect();
    let &place = pick(rng, &places)?;
    // Names of the others would tell, as the two mostly take turns.
    let said = d.turns.get(window(d, place + 1)?)?.iter().map(|t| super::one_line(&t.text));
    let text: Vec<String> = said.filter(|t| !t.is_empty()).collect();
    if text.len() < 2 {
        return None;
    }
    Some(Draft::new("dialogue", text.join("\n"), Answer::Nth(usize::from(agent))))
}
