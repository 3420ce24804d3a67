//! What a dialogue was about.

use super::{around, most, one_line, whole};
use crate::record::Dialogue;
use crate::splitmix::SplitMix;
use crate::task::block::Block;
use crate::task::{Answer, Draft};

/// F28: dialogue -> summary.
pub(super) fn write(block: &Block, at: usize, _rng: &mut SplitMix) -> Option<Draft> {
    let d = block.dialogues.get(at)?;
    Some(Draft::new("dialogue", whole(d)?, Answer::Text(summary(d)?)))
}

/// A68: dialogue + three summaries -> the number of its own. The others are those of dialogues with the same intent, then of
/// those that end alike, then of any.
pub(super) fn choose(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let d = block.dialogues.get(at)?;
    let (text, own) = (whole(d)?, summary(d)?);
    let mut same: Vec<usize> = d.intent.iter().flat_map(|i| block.dialogues_of_intent(i)).copied().collect();
    rng.shuffle(&mut same);
    let end = d.turns.last().map_or("", |t| &t.text);
    let mut any: Vec<usize> = around(block, at).take(64).collect();
    rng.shuffle(&mut any);
    let mut options = vec![(own.clone(), None)];
    let near = block.near_dialogues().near(end, 4, |_| true);
    for i in same.into_iter().chain(near).chain(any).filter(|&i| i != at) {
        let Some(other) = block.dialogues.get(i) else { continue };
        if let Some(text) = summary(other).filter(|s| options.iter().all(|o| o.0 != *s)) {
            options.push((text, Some(other.meta.raw_id.clone())));
        }
        if options.len() == 3 {
            break;
        }
    }
    let size: usize = options.iter().map(|o| o.0.chars().count()).sum();
    if options.len() < 3 || size + text.chars().count() > most(d.meta.lang) {
        return None;
    }
    rng.shuffle(&mut options);
    let number = 1 + options.iter().position(|o| o.0 == own)?;
    let others: Vec<String> = options.iter().filter_map(|o| o.1.clone()).collect();
    let draft = Draft::new("dialogue", text, Answer::Spans(vec![number.to_string()])).others(others);
    Some(options.into_iter().fold(draft, |draft, o| draft.part("option", o.0)))
}

fn summary(d: &Dialogue) -> Option<String> {
    d.summary.as_deref().map(one_line).filter(|s| !s.is_empty())
}
