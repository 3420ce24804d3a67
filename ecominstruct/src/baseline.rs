//! Answers without a model: what a constant, a coin or one line of string matching scores. Any reported number belongs
//! next to these.
//!
//! The constant is chosen on the evaluated set itself (its majority answer), and the lexical rules were written after seeing
//! the formats, so both are as good as such rules get; a model that stays below them has learnt nothing about the task.

use std::collections::{BTreeMap, BTreeSet};

use crate::eval_set::{EvalItem, EvalSet, SetKind};
use crate::instruction::{Gold, Lang};
use crate::score::parse::{normal, words};
use crate::splitmix::SplitMix;

/// How to answer without a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The same answer, or the same cut of the text, for all items.
    Constant,
    /// A random candidate; a random stretch of the text where there are none.
    Random {
        /// Draws the answers.
        seed: u64,
    },
    /// String matching between question, text and candidates.
    Lexical,
}

/// The answers of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baseline {
    /// What was done, for the table.
    pub rule: String,
    /// One answer per item, to be scored like a model's.
    pub predictions: Vec<String>,
}

/// Answers `set` by `policy`. `None` where there is no lexical rule for this kind of set.
pub fn predict(set: &EvalSet, policy: Policy) -> Option<Baseline> {
    Some(match policy {
        Policy::Constant => constant(set),
        Policy::Random { seed } => random(set, seed),
        Policy::Lexical => return lexical(set),
    })
}

fn each(set: &EvalSet, rule: impl Into<String>, answer: impl FnMut(&EvalItem) -> String) -> Baseline {
    Baseline { rule: rule.into(), predictions: set.items.iter().map(answer).collect() }
}

fn constant(set: &EvalSet) -> Baseline {
    match set.kind {
        SetKind::Cls => {
            let majority = majority(set);
            each(set, format!("always {majority:?}, the most frequent label of this set"), |_| majority.clone())
        }
        SetKind::Ner => each(set, "\"None\" for every type", |item| {
            let types = if item.candidates.is_empty() { &set.labels } else { &item.candidates };
            types.iter().map(|t| format!("{t}: None")).collect::<Vec<_>>().join("\n")
        }),
        SetKind::ConditionExtract if set.lang == Lang::En => each(set, "the first eight words", |item| {
            item.text.split_whitespace().take(8).collect::<Vec<_>>().join(" ")
        }),
        SetKind::ConditionExtract => each(set, "the first two characters", |item| item.text.chars().take(2).collect()),
        SetKind::Extract if set.items.iter().all(|i| !i.candidates.is_empty()) => {
            each(set, "the first candidate", |item| item.candidates.first().cloned().unwrap_or_default())
        }
        SetKind::Extract => each(set, "the first sentence", |item| first_sentence(&item.text).to_owned()),
        SetKind::Generate => {
            let length = set.items.iter().map(|i| i.gold.chars().count()).sum::<usize>() / set.items.len().max(1);
            let rule =
                format!("the attribute values, or else the first sentence, cut to the mean answer length of {length}");
            each(set, rule, |item| {
                let values = values(&item.text);
                let copied = if values.is_empty() { first_sentence(&item.text).to_owned() } else { values.concat() };
                copied.chars().take(length).collect()
            })
        }
    }
}

/// The label most items have; the first in the label list among equals.
fn majority(set: &EvalSet) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for item in &set.items {
        if let Gold::Labels(labels) = &item.answer {
            for label in labels {
                *counts.entry(label).or_default() += 1;
            }
        }
    }
    let most = counts.values().copied().max().unwrap_or_default();
    let mut labels = set.labels.iter().map(String::as_str).chain(counts.keys().copied());
    labels.find(|l| counts.get(l).copied().unwrap_or_default() == most).unwrap_or_default().to_owned()
}

/// Up to and without the first full stop that ends a sentence, and without a leading `Context: `.
fn first_sentence(text: &str) -> &str {
    let text = text.strip_prefix("Context: ").unwrap_or(text);
    let end = ["\n", ". ", "。"].iter().filter_map(|stop| text.find(stop)).min();
    &text[..end.unwrap_or(text.len())]
}

/// The values of an attribute block `name#:#value#;#name#:#value`; none in other texts.
fn values(text: &str) -> Vec<&str> {
    text.split("#;#").filter_map(|pair| pair.split_once("#:#")).map(|(_, value)| value).collect()
}

fn random(set: &EvalSet, seed: u64) -> Baseline {
    let mut index = 0;
    each(set, "a random candidate, or else a random stretch of up to eight words of the text", |item| {
        let mut rng = SplitMix::stream(seed, index);
        index += 1;
        let text = &item.text;
        let choices =
            if item.candidates.is_empty() && set.kind == SetKind::Cls { &set.labels } else { &item.candidates };
        match set.kind {
            SetKind::Cls | SetKind::Extract if !choices.is_empty() => choices[rng.below(choices.len())].clone(),
            SetKind::Ner => {
                let types = if item.candidates.is_empty() { &set.labels } else { &item.candidates };
                types
                    .iter()
                    .map(|t| format!("{t}: {}", stretch(text, set.lang, &mut rng)))
                    .collect::<Vec<_>>()
                    .join("\n")
            }
            _ => stretch(text, set.lang, &mut rng),
        }
    })
}

/// One to eight neighbouring words (characters in Chinese).
fn stretch(text: &str, lang: Lang, rng: &mut SplitMix) -> String {
    let pieces: Vec<String> = match lang {
        Lang::En => text.split_whitespace().map(str::to_owned).collect(),
        Lang::Zh => text.chars().filter(|c| !c.is_whitespace()).map(String::from).collect(),
    };
    let start = rng.below(pieces.len());
    let end = (start + 1 + rng.below(8)).min(pieces.len());
    pieces[start..end].join(if lang == Lang::En { " " } else { "" })
}

fn lexical(set: &EvalSet) -> Option<Baseline> {
    match set.kind {
        SetKind::Extract if set.items.iter().all(|i| !i.candidates.is_empty()) => {
            Some(each(set, "the candidate that shares most characters or words with the question", |item| {
                let question = item.text.split("\nCandidate").next().unwrap_or_default();
                let question = question.strip_prefix("Query: ").unwrap_or(question);
                let (wanted, shared) = (units(question, set.lang), &item.candidates);
                best(shared, |c| (units(c, set.lang).intersection(&wanted).count(), 0)).unwrap_or_default()
            }))
        }
        SetKind::Cls => {
            let shown =
                |item: &EvalItem| if item.candidates.is_empty() { set.labels.clone() } else { item.candidates.clone() };
            let pairs = set.items.iter().all(|i| halves(&i.text).is_some() && opposites(&shown(i)).is_some());
            let rule = match pairs {
                true if set.items.iter().all(|i| title_and_attributes(&i.text).is_some()) => {
                    "yes if a value of two or more characters is in the title"
                }
                true => {
                    "yes if both sides share half of their characters or words (Jaccard; of the search, where one is a search)"
                }
                false => "the label that shares most characters or words with the title",
            };
            Some(each(set, rule, |item| {
                let shown = shown(item);
                match opposites(&shown) {
                    Some((yes, no)) if pairs => if agrees(&item.text, set.lang) { yes } else { no }.to_owned(),
                    _ => nearest(&shown, &item.text, set.lang),
                }
            }))
        }
        _ => None,
    }
}

/// The first of the candidates with the highest score.
fn best(candidates: &[String], score: impl Fn(&str) -> (usize, usize)) -> Option<String> {
    let top = candidates.iter().map(|c| score(c)).max()?;
    candidates.iter().find(|c| score(c) == top).cloned()
}

/// Distinct characters (Chinese) or words (English).
fn units(text: &str, lang: Lang) -> BTreeSet<String> {
    match lang {
        Lang::En => words(text, lang).into_iter().collect(),
        Lang::Zh => text.chars().map(String::from).collect(),
    }
}

/// The label whose name shares most with the title (the text up to the first tab): most units, then most of its own.
fn nearest(labels: &[String], text: &str, lang: Lang) -> String {
    let title = units(text.split('\t').next().unwrap_or_default(), lang);
    let shared = |label: &str| {
        let name = units(label, lang);
        let both = name.intersection(&title).count();
        (both, both * 1000 / name.len().max(1))
    };
    best(labels, shared).unwrap_or_default()
}

/// (yes, no) of two labels that say the opposite, such as `match` and `not match`.
fn opposites(labels: &[String]) -> Option<(&str, &str)> {
    let [a, b] = labels else { return None };
    let says_no = |label: &str, other: &str| {
        let (label, other) = (normal(label), normal(other));
        matches!(label.as_str(), "no" | "false" | "different" | "differ" | "irrelevant" | "否" | "不同" | "矛盾")
            || (label.len() > other.len() && label.ends_with(&other))
    };
    match (says_no(a, b), says_no(b, a)) {
        (false, true) => Some((a, b)),
        (true, false) => Some((b, a)),
        _ => None,
    }
}

/// The two sides of a pair: the text before and after its first line feed, or title and attributes.
fn halves(text: &str) -> Option<(&str, &str)> {
    title_and_attributes(text).or_else(|| text.split_once('\n'))
}

/// `Title: …, Attritute: …` (so spelled in the released set).
fn title_and_attributes(text: &str) -> Option<(&str, &str)> {
    let (title, attributes) = text.split_once(", Attritute: ").or_else(|| text.split_once(", Attribute: "))?;
    Some((title.strip_prefix("Title: ").unwrap_or(title), attributes))
}

fn agrees(text: &str, lang: Lang) -> bool {
    if let Some((title, attributes)) = title_and_attributes(text) {
        let alternatives = values(attributes).into_iter().flat_map(|v| v.split('/'));
        return alternatives.into_iter().any(|v| v.chars().count() >= 2 && title.contains(v));
    }
    let title = |side: &str| {
        let named = side.split_once(": ").map_or(side, |(_, rest)| rest);
        units(named.split(", ").next().unwrap_or_default(), lang)
    };
    let Some((first, second)) = halves(text) else { return false };
    let (a, b) = (title(first), title(second));
    // A search is short: what counts is how much of it the product name holds.
    let whole =
        if ["Query: ", "搜索词: "].iter().any(|q| first.starts_with(q)) { a.len() } else { a.union(&b).count() };
    2 * a.intersection(&b).count() >= whole.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposites_are_recognised() {
        let pair = |a: &str, b: &str| {
            opposites(&[a.to_owned(), b.to_owned()]).map(|(yes, no)| (yes.to_owned(), no.to_owned()))
        };
        assert_eq!(pair("not same", "same"), Some(("same".into(), "not same".into())));
        assert_eq!(pair("匹配", "不匹配"), Some(("匹配".into(), "不匹配".into())));
        assert_eq!(pair("是", "否"), Some(("是".into(), "否".into())));
        assert_eq!(pair("positive", "neutral"), None);
    }

    #[test]
    fn first_sentences_end_where_sentences_end() {
        assert_eq!(first_sentence("Context: It has v1.2 inside. And more."), "It has v1.2 inside");
        assert_eq!(first_sentence("很好。真的"), "很好");
        assert_eq!(first_sentence("no end"), "no end");
        assert_eq!(first_sentence(""), "");
    }

    #[test]
    fn stretches_of_nothing_are_empty() {
        assert_eq!(stretch("", Lang::En, &mut SplitMix::new(1)), "");
        assert_eq!(stretch(" \n", Lang::Zh, &mut SplitMix::new(1)), "");
    }
}
