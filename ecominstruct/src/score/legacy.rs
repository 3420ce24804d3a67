//! The scorer released with `EcomGPT`, quirks and all, for comparison with published numbers only.
//!
//! What it does differently from what its names say: "macro" F1 of a set task is the harmonic mean of two means over items;
//! `Generate` compares the *sets of characters*; answers of one character become the word `error` in attribute value
//! detection, so that even the gold scores 98.8 there; entities are painted over every place where their string occurs;
//! ROUGE runs over whole answers, `Type: None` lines included, with unsegmented Chinese as one word; a wrong one of
//! `not same`/`same` still gets ROUGE 66.7.
//!
//! Two things the released code leaves open are fixed here: where its packages raise (an answer of nothing but full stops),
//! ROUGE is 0 and `undefined` counts it; where it walks a Python set (overlapping entities of one type), shorter strings
//! are painted first.

use std::collections::{BTreeMap, BTreeSet};

use super::rouge::{python_space, rouge_l};
use super::{WrongCount, f1, ratio};
use crate::eval_set::{EvalSet, SetKind};

/// Scores in percent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Legacy {
    /// Precision, recall and F1 over pooled counts.
    pub micro: Prf,
    /// Means over items (over entity types for NER), and for set tasks the harmonic mean of those two.
    pub macro_: Prf,
    /// Share of items whose set is exactly right; `None` for NER.
    pub accuracy: Option<f64>,
    /// ROUGE-L F, mean over items.
    pub rouge_l: f64,
    /// Items for which ROUGE is not defined; they count as 0.
    pub undefined: usize,
    /// Items with an empty prediction.
    pub empty: usize,
    /// Items.
    pub items: usize,
}

/// Precision, recall and F1, in percent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Prf {
    /// Precision.
    pub p: f64,
    /// Recall.
    pub r: f64,
    /// F1.
    pub f1: f64,
}

impl Prf {
    /// From fractions.
    fn percent(p: f64, r: f64, f1: f64) -> Self {
        Self { p: 100.0 * p, r: 100.0 * r, f1: 100.0 * f1 }
    }
}

/// One item to score.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// The text that entities are painted over.
    pub text: &'a str,
    /// Gold answer.
    pub gold: &'a str,
    /// Predicted answer.
    pub prediction: &'a str,
}

/// Scores one prediction per item of `set`.
///
/// # Errors
/// [`WrongCount`] if the numbers differ.
pub fn score<S: AsRef<str>>(set: &EvalSet, predictions: &[S]) -> Result<Legacy, WrongCount> {
    if predictions.len() != set.items.len() {
        return Err(WrongCount { set: set.name.clone(), wanted: set.items.len(), found: predictions.len() });
    }
    let pairs = set.items.iter().zip(predictions);
    let rows: Vec<_> =
        pairs.map(|(item, p)| Answered { text: &item.text, gold: &item.gold, prediction: p.as_ref() }).collect();
    Ok(score_answers(set.kind, &set.label_sep, &rows))
}

/// Scores `rows` as answers of a set of this kind; all zero for no rows.
pub fn score_answers(kind: SetKind, label_sep: &str, rows: &[Answered<'_>]) -> Legacy {
    let split = |text: &str| -> Vec<String> { text.split(label_sep).map(str::to_owned).collect() };
    let characters = |text: &str| -> Vec<String> { text.chars().map(String::from).collect() };
    let strip = |text: &str| text.trim_matches(python_space).to_owned();
    // What the scorer sees instead of the prediction and of the gold.
    let seen = |row: &Answered<'_>| -> (String, String) {
        let (p, g) = (row.prediction, row.gold);
        let or_error = |keep: bool| if keep { p.to_owned() } else { "error".to_owned() };
        match kind {
            SetKind::Cls if p.is_empty() => ("error".to_owned(), g.to_owned()),
            SetKind::Cls => (strip(p).replace('.', ""), g.to_owned()),
            SetKind::Extract => (or_error(!p.chars().all(|c| c == '.' || python_space(c))), g.to_owned()),
            SetKind::ConditionExtract => {
                (or_error(strip(p).chars().count() > 1), if g.is_empty() { "error".to_owned() } else { g.to_owned() })
            }
            SetKind::Generate | SetKind::Ner => (or_error(!p.is_empty()), g.to_owned()),
        }
    };
    let as_set = |text: &str| match kind {
        // An answer of full stops only ends up as the characters of the word "error".
        SetKind::Cls if text.is_empty() => characters("error"),
        SetKind::Cls | SetKind::ConditionExtract | SetKind::Ner => split(text),
        SetKind::Extract => split(&strip(text)),
        SetKind::Generate => characters(&strip(text)),
    };
    let pairs: Vec<_> = rows.iter().map(seen).collect();
    let mut scores = if kind == SetKind::Ner {
        let tag = |text: &str, answer: &str| entities(&paint(text, &typed_lines(answer, label_sep)));
        entity_scores(rows.iter().zip(&pairs).map(|(row, (p, g))| (tag(row.text, p), tag(row.text, g))))
    } else {
        set_scores(pairs.iter().map(|(p, g)| (as_set(p), as_set(g))))
    };
    let mut rouge_sum = 0.0;
    for (prediction, gold) in &pairs {
        match rouge_l(prediction, gold) {
            Some(f) => rouge_sum += f,
            None => scores.undefined += 1,
        }
    }
    scores.items = rows.len();
    scores.empty = rows.iter().filter(|r| r.prediction.is_empty()).count();
    scores.rouge_l = 100.0 * (rouge_sum / rows.len().max(1) as f64);
    scores
}

fn set_scores(pairs: impl Iterator<Item = (Vec<String>, Vec<String>)>) -> Legacy {
    let (mut correct, mut predicted, mut wanted, mut same, mut n) = (0, 0, 0, 0usize, 0usize);
    let (mut precision, mut recall) = (0.0, 0.0);
    for (p, g) in pairs {
        let (p, g) = (BTreeSet::from_iter(p), BTreeSet::from_iter(g));
        let both = p.intersection(&g).count();
        (correct, predicted, wanted, n) = (correct + both, predicted + p.len(), wanted + g.len(), n + 1);
        same += usize::from(p == g);
        if !p.is_empty() && !g.is_empty() {
            precision += ratio(both, p.len());
            recall += ratio(both, g.len());
        }
    }
    let (p, r) =
        if predicted == 0 || wanted == 0 { (0.0, 0.0) } else { (ratio(correct, predicted), ratio(correct, wanted)) };
    let count = n.max(1) as f64;
    let (mean_p, mean_r) = (precision / count, recall / count);
    Legacy {
        micro: Prf::percent(p, r, f1(p, r)),
        macro_: Prf::percent(mean_p, mean_r, f1(mean_p, mean_r)),
        accuracy: Some(100.0 * ratio(same, n)),
        ..Legacy::default()
    }
}

/// `Type: a, b` lines as types, in order of appearance, with their strings. Lines without colon and space or without
/// anything after them are passed over.
fn typed_lines(answer: &str, label_sep: &str) -> Vec<(String, BTreeSet<(usize, String)>)> {
    let mut types: Vec<(String, BTreeSet<(usize, String)>)> = Vec::new();
    for line in answer.split('\n').filter(|line| !line.ends_with(": ")) {
        let Some((kind, values)) = line.split_once(": ") else { continue };
        let at = types.iter().position(|(k, _)| k == kind).unwrap_or_else(|| {
            types.push((kind.to_owned(), BTreeSet::new()));
            types.len() - 1
        });
        types[at].1.extend(values.split(label_sep).map(|v| (v.chars().count(), v.to_owned())));
    }
    types
}

/// One tag per character: the type it belongs to and whether it begins an entity. Later types overwrite earlier ones, and a
/// string is painted wherever it occurs, even inside words.
fn paint<'a>(text: &str, types: &'a [(String, BTreeSet<(usize, String)>)]) -> Vec<Option<(&'a str, bool)>> {
    let text: Vec<char> = text.chars().collect();
    let mut tags = vec![None; text.len()];
    for (kind, values) in types {
        for (_, value) in values.iter().filter(|(_, v)| v != "None") {
            let value: Vec<char> = value.chars().collect();
            for at in 0..text.len() {
                if text[at..].starts_with(&value) {
                    tags[at] = Some((kind.as_str(), true));
                    for tag in tags.iter_mut().take(at + value.len()).skip(at + 1) {
                        *tag = Some((kind.as_str(), false));
                    }
                }
            }
        }
    }
    tags
}

/// Chunks (type, first, last) as in `seqeval` 1.2.2 without scheme: a chunk starts at a begin tag or where the type
/// changes. An empty type is called `_`.
fn entities(tags: &[Option<(&str, bool)>]) -> Vec<(String, usize, usize)> {
    let mut found: Vec<(String, usize, usize)> = Vec::new();
    let mut open: Option<&str> = None;
    for (at, tag) in tags.iter().enumerate() {
        let tag = tag.map(|(kind, begin)| (if kind.is_empty() { "_" } else { kind }, begin));
        match tag {
            Some((kind, false)) if open == Some(kind) => {
                if let Some(last) = found.last_mut() {
                    last.2 = at;
                }
            }
            Some((kind, _)) => found.push((kind.to_owned(), at, at)),
            None => {}
        }
        open = tag.map(|(kind, _)| kind);
    }
    found
}

type Chunks = Vec<(String, usize, usize)>;

/// Micro and macro over the types that occur in gold or prediction.
fn entity_scores(pairs: impl Iterator<Item = (Chunks, Chunks)>) -> Legacy {
    let mut counts: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    for (predicted, gold) in pairs {
        for chunk in &predicted {
            let count = counts.entry(chunk.0.clone()).or_default();
            count[1] += 1;
            count[0] += usize::from(gold.binary_search_by(|g| g.1.cmp(&chunk.1)).is_ok_and(|at| gold[at] == *chunk));
        }
        for (kind, _, _) in gold {
            counts.entry(kind).or_default()[2] += 1;
        }
    }
    let total = counts.values().fold([0; 3], |sum, c| [sum[0] + c[0], sum[1] + c[1], sum[2] + c[2]]);
    let (p, r) = (ratio(total[0], total[1]), ratio(total[0], total[2]));
    let mut sums = [0.0; 3];
    for [both, predicted, wanted] in counts.values().copied() {
        let (p, r) = (ratio(both, predicted), ratio(both, wanted));
        sums = [sums[0] + p, sums[1] + r, sums[2] + f1(p, r)];
    }
    let types = counts.len().max(1) as f64;
    Legacy {
        micro: Prf::percent(p, r, f1(p, r)),
        macro_: Prf::percent(sums[0] / types, sums[1] / types, sums[2] / types),
        ..Legacy::default()
    }
}
