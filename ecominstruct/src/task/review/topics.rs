//! Tasks on the categories of aspects that a review judges.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::super::{Answer, Draft, chance, either, pick, polarity_mark};
use super::{Block, shown};
use crate::instruction::{Entity, Lang};
use crate::record::{Polarity, Review};
use crate::splitmix::SplitMix;

/// Up to so many topics may be shown all together.
const FEW: usize = 12;

/// F14: review, topics -> those it touches on.
pub(super) fn touched(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let review = shown(block, at)?;
    let (gold, _) = mentioned(review)?;
    let all = chance(rng, 30) && block.topics().len() <= FEW;
    let list = offer(block, &gold, &[], if all { FEW..=FEW } else { 4..=9 }, rng)?;
    let labels = list.iter().filter(|t| gold.contains(&t.as_str())).cloned().collect();
    Some(Draft::new("review", &review.text, Answer::Labels(labels)).candidates(list))
}

/// F18: review, topics -> polarity of each that is judged. Topics judged both ways are not asked for.
pub(super) fn judged(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let review = shown(block, at)?;
    let (all, _) = mentioned(review)?;
    let gold: BTreeMap<&str, char> = review
        .topics
        .iter()
        .filter(|t| !is_vague(&t.name))
        .map(|t| (t.name.as_str(), polarity_mark(t.polarity)))
        .collect();
    let names: Vec<&str> = gold.keys().copied().collect();
    // Sentences with many topics and those that judge neutrally are annotated as somebody felt like it.
    let crowded = block.lang == Lang::En && all.len() > 3;
    let neutral = review.opinions.iter().any(|o| o.polarity == Polarity::Neutral);
    if names.is_empty() || crowded || neutral {
        return None;
    }
    let list = offer(block, &names, &all, 2..=6, rng)?;
    let found = list.iter().filter_map(|t| Some(Entity { kind: t.clone(), text: gold.get(t.as_str())?.to_string() }));
    Some(Draft::new("review", &review.text, Answer::Entities(found.collect())).candidates(list))
}

/// A33: review and topic -> yes or no; the wrong topic is one that often goes with a right one, about another thing.
pub(super) fn about(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let review = shown(block, at)?;
    let (gold, vague) = mentioned(review)?;
    // "Is the whole judged?" is no question to ask.
    let told: Vec<&str> = gold.iter().copied().filter(|t| !is_whole(t)).collect();
    let with = *pick(rng, &told)?;
    let yes = chance(rng, 50);
    let topic = if yes {
        with
    } else {
        let mut not: Vec<&str> = gold.iter().copied().chain(vague).collect();
        let things: BTreeSet<&str> = gold.iter().map(|t| thing(t)).collect();
        let names = block.topics().names().iter().map(String::as_str);
        not.extend(names.filter(|t| is_vague(t) || is_whole(t) || things.contains(thing(t))));
        block.topics().confusable(with, &not, rng)?
    };
    if topic.contains(['{', '}']) {
        return None;
    }
    Some(Draft::new("review", &review.text, either(yes)).fill("topic", topic))
}

/// What the review touches on, in order of name: topics that say what they are (at least one), and others.
fn mentioned(review: &Review) -> Option<(Vec<&str>, Vec<&str>)> {
    let topics = review.topics.iter().map(|t| t.name.as_str());
    let all: BTreeSet<&str> = topics.chain(review.opinions.iter().filter_map(|o| o.category.as_deref())).collect();
    let (vague, clear): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|t| is_vague(t));
    (!clear.is_empty()).then_some((clear, vague))
}

/// `gold` and a number of other topics drawn from `extra`, none of `out`, none vague and none about a thing that one of
/// `gold` is about, in random order.
fn offer(
    block: &Block,
    gold: &[&str],
    out: &[&str],
    extra: RangeInclusive<usize>,
    rng: &mut SplitMix,
) -> Option<Vec<String>> {
    let wanted = extra.start() + rng.below(extra.end() + 1 - extra.start());
    let names = block.topics().names().iter().map(String::as_str);
    let things: BTreeSet<&str> = gold.iter().map(|t| thing(t)).collect();
    let close = |t: &&str| is_vague(t) || things.contains(thing(t));
    let mut not: Vec<&str> = names.filter(close).chain(gold.iter().copied()).chain(out.iter().copied()).collect();
    let mut list: Vec<String> = gold.iter().map(|&t| t.to_owned()).collect();
    for _ in 0..wanted {
        let with = *pick(rng, gold)?;
        let Some(other) = block.topics().distractor(with, &not, rng) else { break };
        not.push(other);
        list.push(other.to_owned());
    }
    rng.shuffle(&mut list);
    (list.len() >= 2).then_some(list)
}

/// Whether a topic is a rest class, which nobody can tell from its name.
fn is_vague(topic: &str) -> bool {
    let lower = topic.to_lowercase();
    matches!(lower.as_str(), "other" | "others" | "其他" | "其它")
        || ["miscellaneous", "out of scope", "out_of_scope"].iter().any(|w| lower.contains(w))
}

/// Whether a topic is the product as a whole.
pub(super) fn is_whole(topic: &str) -> bool {
    let lower = topic.to_lowercase();
    matches!(lower.as_str(), "overall" | "general" | "整体" | "总体") || lower.ends_with(" general")
}

/// The thing in `thing property` (`battery quality`), the whole name where it is one word.
fn thing(topic: &str) -> &str {
    topic.split_whitespace().next().unwrap_or(topic)
}
