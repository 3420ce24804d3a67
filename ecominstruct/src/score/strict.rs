//! The scores to trust, one headline number per paradigm:
//!
//! | paradigm | headline | beside it |
//! |---|---|---|
//! | CLS, one label | class-macro F1 | accuracy, balanced accuracy, invalid rate |
//! | CLS, several labels | F1 over label sets, mean over items | micro F1, accuracy of whole sets, invalid rate |
//! | EXT, a choice among candidates | exact match | token F1 |
//! | EXT, one span each | token F1 | exact match |
//! | EXT, lists | multiset F1, mean over items | exact match |
//! | OTH | micro F1 over (type, string) | span-only F1 |
//! | GEN | ROUGE-L F1 | length ratio, faithfulness |
//!
//! A token is a word in English and a character in Chinese. An empty prediction scores 0 and is counted; `None` for an item
//! without spans is a right answer, but `Type: None` lines earn nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::parse::{labels, list, normal, typed_lines, words};
use super::{WrongCount, f1, ratio};
use crate::eval_set::{EvalItem, EvalSet};
use crate::instruction::{Gold, Paradigm};

/// All strict scores of one set.
#[derive(Debug, Clone, PartialEq)]
pub struct Strict {
    /// The number to quote, in percent; see the table of the module.
    pub headline: f64,
    /// Its name.
    pub headline_name: &'static str,
    /// Items.
    pub items: usize,
    /// Items with a prediction of nothing but white space.
    pub empty: usize,
    /// The details.
    pub detail: Detail,
}

/// Scores by paradigm. All are in percent, save where it says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub enum Detail {
    /// Classification.
    Cls {
        /// Items whose labels are exactly right.
        accuracy: f64,
        /// Mean F1 over the classes that occur in gold or among valid predictions.
        macro_f1: f64,
        /// Mean recall over the gold classes.
        balanced_accuracy: f64,
        /// Mean over items of the F1 between label sets.
        sample_f1: f64,
        /// F1 over pooled labels.
        micro_f1: f64,
        /// Items with a label that was not offered, or without any.
        invalid: f64,
    },
    /// Extraction.
    Ext {
        /// Mean over items of the multiset F1 between lists; empty against empty is 1.
        list_f1: f64,
        /// Whole answers that agree in normal form.
        exact: f64,
        /// Mean over items of the token F1 between whole answers.
        token_f1: f64,
    },
    /// Typed entities.
    Oth {
        /// Micro F1 over (type, string).
        entity_f1: f64,
        /// Micro F1 over strings.
        span_f1: f64,
    },
    /// Generation.
    Gen {
        /// Mean over items of the longest-common-subsequence F1.
        rouge_l: f64,
        /// Tokens predicted per gold token; not a percentage.
        length_ratio: f64,
        /// Mean over items of the share of predicted content words that occur in the input.
        faithfulness: f64,
    },
}

/// Scores one prediction per item of `set`.
///
/// # Errors
/// [`WrongCount`] if the numbers differ.
pub fn score<S: AsRef<str>>(set: &EvalSet, predictions: &[S]) -> Result<Strict, WrongCount> {
    if predictions.len() != set.items.len() {
        return Err(WrongCount { set: set.name.clone(), wanted: set.items.len(), found: predictions.len() });
    }
    let rows: Vec<(&EvalItem, &str)> = set.items.iter().zip(predictions).map(|(i, p)| (i, p.as_ref())).collect();
    let (headline, headline_name, detail) = match set.kind.paradigm() {
        Paradigm::Cls => classification(set, &rows),
        Paradigm::Ext => extraction(set, &rows),
        Paradigm::Oth => typed_entities(&rows),
        Paradigm::Gen => generation(set, &rows),
    };
    let empty = rows.iter().filter(|(_, p)| p.trim().is_empty()).count();
    Ok(Strict { headline, headline_name, items: rows.len(), empty, detail })
}

type Rows<'a> = [(&'a EvalItem, &'a str)];

fn classification(set: &EvalSet, rows: &Rows<'_>) -> (f64, &'static str, Detail) {
    let mut classes: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let (mut exact, mut sample, mut invalid, mut predicted) = (0usize, 0.0, 0usize, 0usize);
    let mut several = false;
    for (item, prediction) in rows {
        let offered = if item.candidates.is_empty() { &set.labels } else { &item.candidates };
        let valid: BTreeSet<String> = offered.iter().map(|l| normal(l)).collect();
        let gold: BTreeSet<String> = match &item.answer {
            Gold::Labels(gold) | Gold::Spans(gold) => gold.iter().map(|l| normal(l)).collect(),
            Gold::Text(_) | Gold::Entities(_) => labels(&item.gold, offered).into_iter().collect(),
        };
        let found: BTreeSet<String> = labels(prediction, offered).into_iter().collect();
        several |= gold.len() > 1;
        invalid += usize::from(found.is_empty() || !found.is_subset(&valid));
        exact += usize::from(!found.is_empty() && found == gold);
        predicted += found.len();
        let both = found.intersection(&gold).count();
        sample += f1(ratio(both, found.len()), ratio(both, gold.len()));
        for label in &gold {
            let count = classes.entry(label.clone()).or_default();
            count[0] += usize::from(found.contains(label));
            count[2] += 1;
        }
        for label in found.intersection(&valid) {
            classes.entry(label.clone()).or_default()[1] += 1;
        }
    }
    let n = rows.len().max(1) as f64;
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let class_f1 = |c: &[usize; 3]| f1(ratio(c[0], c[1].max(c[0])), ratio(c[0], c[2]));
    let macro_f1 = mean(classes.values().map(class_f1).collect());
    let recalls = classes.values().filter(|c| c[2] > 0).map(|c| ratio(c[0], c[2]));
    let (both, wanted) = classes.values().fold((0, 0), |sum, c| (sum.0 + c[0], sum.1 + c[2]));
    let detail = Detail::Cls {
        accuracy: 100.0 * exact as f64 / n,
        macro_f1: 100.0 * macro_f1,
        balanced_accuracy: 100.0 * mean(recalls.collect()),
        sample_f1: 100.0 * sample / n,
        micro_f1: 100.0 * f1(ratio(both, predicted), ratio(both, wanted)),
        invalid: 100.0 * invalid as f64 / n,
    };
    if several { (100.0 * sample / n, "sample F1", detail) } else { (100.0 * macro_f1, "class-macro F1", detail) }
}

fn extraction(set: &EvalSet, rows: &Rows<'_>) -> (f64, &'static str, Detail) {
    let (mut lists, mut exact, mut tokens) = (0.0, 0usize, 0.0);
    let (mut choice, mut single) = (true, true);
    for (item, prediction) in rows {
        // Gold spans that hold a separator are cut like predictions, so that copying them earns full marks.
        let gold: Vec<String> = match &item.answer {
            Gold::Spans(spans) => spans.iter().flat_map(|s| list(s)).collect(),
            _ => list(&item.gold),
        };
        choice &= !item.candidates.is_empty();
        single &= matches!(&item.answer, Gold::Spans(spans) if spans.len() == 1);
        if prediction.trim().is_empty() {
            continue;
        }
        lists += list_f1(list(prediction), gold);
        exact += usize::from(normal(prediction) == normal(&item.gold));
        let (p, g) = (words(prediction, set.lang), words(&item.gold, set.lang));
        tokens += if p.is_empty() && g.is_empty() {
            f64::from(normal(prediction) == normal(&item.gold))
        } else {
            list_f1(p, g)
        };
    }
    let n = rows.len().max(1) as f64;
    let (list_f1, exact, token_f1) = (100.0 * lists / n, 100.0 * exact as f64 / n, 100.0 * tokens / n);
    let detail = Detail::Ext { list_f1, exact, token_f1 };
    match (choice, single) {
        (true, _) => (exact, "exact match", detail),
        (false, true) => (token_f1, "token F1", detail),
        (false, false) => (list_f1, "list F1", detail),
    }
}

fn typed_entities(rows: &Rows<'_>) -> (f64, &'static str, Detail) {
    let (mut pairs, mut spans) = ([0usize; 3], [0usize; 3]);
    for (item, prediction) in rows {
        let gold: Vec<(String, String)> = match &item.answer {
            Gold::Entities(entities) => {
                let cut = |e: &crate::instruction::Entity| {
                    list(&e.text).into_iter().map(|v| (normal(&e.kind), v)).collect::<Vec<_>>()
                };
                entities.iter().flat_map(cut).collect()
            }
            _ => typed_lines(&item.gold),
        };
        let found = typed_lines(prediction);
        let strings = |pairs: &[(String, String)]| pairs.iter().map(|p| p.1.clone()).collect();
        add(&mut spans, strings(&found), strings(&gold));
        add(&mut pairs, found, gold);
    }
    let micro = |c: [usize; 3]| 100.0 * f1(ratio(c[0], c[1]), ratio(c[0], c[2]));
    let (entity_f1, span_f1) = (micro(pairs), micro(spans));
    (entity_f1, "entity F1", Detail::Oth { entity_f1, span_f1 })
}

fn generation(set: &EvalSet, rows: &Rows<'_>) -> (f64, &'static str, Detail) {
    let (mut rouge, mut faithful, mut predicted, mut wanted) = (0.0, 0.0, 0usize, 0usize);
    for (item, prediction) in rows {
        let (p, g) = (words(prediction, set.lang), words(&item.gold, set.lang));
        let common = common_length(&p, &g);
        rouge += f1(ratio(common, p.len()), ratio(common, g.len()));
        predicted += p.len();
        wanted += g.len();
        let source: BTreeSet<String> = words(&item.text, set.lang).into_iter().collect();
        let content: Vec<&String> = p.iter().filter(|w| !STOP_WORDS.contains(&w.as_str())).collect();
        faithful += ratio(content.iter().filter(|w| source.contains(**w)).count(), content.len());
    }
    let n = rows.len().max(1) as f64;
    let rouge_l = 100.0 * rouge / n;
    let detail = Detail::Gen { rouge_l, length_ratio: ratio(predicted, wanted), faithfulness: 100.0 * faithful / n };
    (rouge_l, "ROUGE-L", detail)
}

/// Words that say nothing about the product.
const STOP_WORDS: [&str; 44] = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "from", "has", "have", "in", "is", "it", "its",
    "of", "on", "or", "that", "the", "this", "to", "was", "were", "will", "with", "you", "your", "not", "的", "了",
    "是", "在", "和", "与", "也", "就", "都", "而", "及", "或", "这",
];

/// Adds (common, predicted, gold) counts of two multisets.
fn add<T: Ord>(counts: &mut [usize; 3], found: Vec<T>, gold: Vec<T>) {
    counts[1] += found.len();
    counts[2] += gold.len();
    counts[0] += overlap(found, gold);
}

/// Size of the intersection of two multisets.
fn overlap<T: Ord>(mut a: Vec<T>, mut b: Vec<T>) -> usize {
    a.sort_unstable();
    b.sort_unstable();
    let (mut i, mut j, mut both) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, both) = (i + 1, j + 1, both + 1),
        }
    }
    both
}

/// F1 between two multisets; 1 if both are empty.
fn list_f1<T: Ord>(found: Vec<T>, gold: Vec<T>) -> f64 {
    if found.is_empty() && gold.is_empty() {
        return 1.0;
    }
    let (p, g) = (found.len(), gold.len());
    let both = overlap(found, gold);
    f1(ratio(both, p), ratio(both, g))
}

/// Length of the longest common subsequence.
fn common_length(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0usize; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (j, other) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if word == other { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}
