//! Tasks on reviews and on passages that are asked about (F12 to F23, A33 to A47, A65), and what their drafts share.

mod aspects;
mod kinds;
mod overall;
mod questions;
mod sentences;
#[cfg(test)]
mod tests;
mod topics;

use super::block::Block;
use super::{Draft, GateKind, Make, Task};
use crate::instruction::Paradigm::{self, Cls, Ext, Gen, Oth};
use crate::instruction::Strategy::{self, Recombination, Reversal, Simplification};
use crate::instruction::{DataType, Lang};
use crate::record::{Polarity, Review};
use crate::splitmix::SplitMix;
use sentences::has_words;

/// All tasks of [`DataType::Review`].
pub(super) const TASKS: &[Task] = &[
    whole("F12", Cls, overall::polarity),
    whole("F13", Cls, overall::stars),
    Task { twin: true, ..whole("F14", Cls, topics::touched) },
    whole("F15", Ext, aspects::terms),
    whole("F16", Cls, aspects::attitude),
    whole("F17", Oth, aspects::triples),
    whole("F18", Oth, topics::judged),
    Task { twin: true, ..whole("F19", Ext, questions::answer) },
    whole("F20", Cls, questions::answerable),
    whole("F21", Gen, overall::headline),
    whole("F22", Cls, overall::useful),
    whole("F23", Cls, questions::subjective),
    step("A33", Cls, Simplification, &["F14", "F18"], topics::about),
    step("A34", Ext, Simplification, &["F17"], aspects::opinion_words),
    step("A35", Ext, Simplification, &["F17"], aspects::opinion_on),
    step("A36", Cls, Simplification, &["F16", "F17"], aspects::pair),
    step("A37", Ext, Simplification, &["F16", "F17"], aspects::judged_so),
    Task { gate: Some(GateKind::Select), ..step("A38", Ext, Recombination, &["F12", "F13"], overall::unhappy) },
    step("A39", Cls, Recombination, &["F13"], overall::happier),
    step("A40", Gen, Reversal, &["F17", "F12"], aspects::compose),
    step("A41", Cls, Simplification, &["F12"], aspects::sum),
    step("A42", Gen, Reversal, &["F19"], questions::ask),
    step("A43", Ext, Simplification, &["F19"], questions::sentence),
    step("A44", Cls, Simplification, &["F19"], questions::right),
    Task { gate: Some(GateKind::Match), ..step("A45", Cls, Recombination, &["F20"], questions::related) },
    step("A46", Cls, Simplification, &["F19"], questions::kind),
    Task { gate: Some(GateKind::Select), ..step("A47", Ext, Recombination, &["F19"], questions::passage) },
    Task { gate: Some(GateKind::Match), ..step("A65", Cls, Recombination, &["F21"], overall::own_headline) },
];

type Maker = fn(&Block, usize, &mut SplitMix) -> Option<Draft>;

const fn whole(id: &'static str, paradigm: Paradigm, draft: Maker) -> Task {
    step(id, paradigm, Strategy::None, &[], draft)
}

const fn step(
    id: &'static str,
    paradigm: Paradigm,
    strategy: Strategy,
    parents: &'static [&'static str],
    draft: Maker,
) -> Task {
    let draft = Make::From(draft);
    Task { id, dtype: DataType::Review, paradigm, strategy, parents, twin: false, gate: None, draft }
}

/// Most characters of all input texts of a draft together: about 900 tokens.
fn limit(lang: Lang) -> usize {
    match lang {
        Lang::En => 2_400,
        Lang::Zh => 900,
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Review number `at`, if its text says something and can be shown whole.
fn shown(block: &Block, at: usize) -> Option<&Review> {
    block.reviews.get(at).filter(|r| has_words(&r.text, 2) && length(&r.text) <= limit(block.lang))
}

/// Place among the labels `positive, negative, neutral`.
fn place(polarity: Polarity) -> usize {
    match polarity {
        Polarity::Positive => 0,
        Polarity::Negative => 1,
        Polarity::Neutral => 2,
    }
}

/// Nearest reviews that are looked at, and chance finds that are tried, for a partner that is costly to judge.
const NEAREST: usize = 32;
const TRIES: usize = 16;

/// A review with its number in the block.
type Numbered<'a> = (usize, &'a Review);

/// Up to `k` reviews other than `at`, with different texts, that `wanted` lets pass: the nearest ones to `query` in
/// random order, then chance finds.
fn neighbours<'a>(
    block: &'a Block,
    at: usize,
    query: &str,
    k: usize,
    rng: &mut SplitMix,
    wanted: impl Fn(usize, &Review) -> bool,
) -> Vec<Numbered<'a>> {
    let mut looked = 0;
    let mut near = block.near_reviews().near(query, 2 * k, |i| {
        looked += 1;
        looked <= NEAREST && i != at && block.reviews.get(i).is_some_and(|r| wanted(i, r))
    });
    rng.shuffle(&mut near);
    let mut found = Vec::with_capacity(k);
    for i in near {
        keep_new(block, at, i, &mut found);
    }
    found.truncate(k);
    strangers(block, at, found, (k, TRIES), rng, wanted)
}

/// `found`, filled up to `k` with chance finds that `wanted` lets pass, in at most `tries` tries.
fn strangers<'a>(
    block: &'a Block,
    at: usize,
    mut found: Vec<Numbered<'a>>,
    (k, tries): (usize, usize),
    rng: &mut SplitMix,
    wanted: impl Fn(usize, &Review) -> bool,
) -> Vec<Numbered<'a>> {
    for _ in 0..tries {
        if found.len() >= k {
            break;
        }
        let drawn = rng.below(block.reviews.len());
        if block.reviews.get(drawn).is_some_and(|r| wanted(drawn, r)) {
            keep_new(block, at, drawn, &mut found);
        }
    }
    found
}

/// Adds review number `other` if it is not `at` and its text is new.
fn keep_new<'a>(block: &'a Block, at: usize, number: usize, found: &mut Vec<Numbered<'a>>) {
    let (Some(own), Some(other)) = (block.reviews.get(at), block.reviews.get(number)) else { return };
    if other.text != own.text && found.iter().all(|f| f.1.text != other.text) {
        found.push((number, other));
    }
}
