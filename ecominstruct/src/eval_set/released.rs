//! The released folders: `meta-info.json` with prompt and labels, `test.json` with one row a line.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{EvalError, EvalItem, EvalSet, MAX_CANDIDATES, SetKind, answer_text};
use crate::instruction::{Entity, Gold, Lang};
use crate::prompt::{INSTRUCTION_MARKER, RESPONSE_MARKER, header};
use crate::read::{Line, next_line};
use crate::splitmix::SplitMix;

#[derive(Deserialize)]
struct Meta {
    defi: String,
    test_prompt: TestPrompt,
    #[serde(default)]
    label_set: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    label_key: String,
    #[serde(default = "super::comma")]
    label_sep: String,
}

#[derive(Deserialize)]
struct TestPrompt {
    instruction: String,
}

#[derive(Deserialize)]
struct Row {
    sentences: String,
    #[serde(default)]
    labels: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    spans: Vec<Span>,
}

/// Offsets are left alone: in two of the released sets they point nowhere, `term` is right in all.
#[derive(Deserialize)]
struct Span {
    term: String,
    #[serde(default, rename = "type")]
    kind: String,
}

/// Reads one released folder. Language and kind come from its name (`LANG-DATASET-KIND-TASK`), since `task` inside the file
/// is another set's in two of them.
pub(super) fn released(folder: &Path, seed: u64) -> Result<EvalSet, EvalError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parts: Vec<&str> = name.split('-').collect();
    let lang = match parts.first() {
        Some(&"EN") => Some(Lang::En),
        Some(&"ZH") => Some(Lang::Zh),
        _ => None,
    };
    let (Some(lang), Some(kind)) = (lang, parts.get(2).and_then(|k| SetKind::from_name(k))) else {
        let what = "wanted a folder named LANG-DATASET-KIND-TASK, such as EN-ABSA-CLS-review_topic_category";
        return Err(EvalError::content(folder.display().to_string(), what));
    };
    let meta_path = folder.join("meta-info.json");
    let meta = fs::read_to_string(&meta_path).map_err(|e| EvalError::io(&meta_path, e))?;
    let meta: Meta = parse_json(&meta, &meta_path, 1)?;
    let labels = match meta.label_set.get(&meta.label_key) {
        Some(labels) => labels.clone(),
        None if matches!(kind, SetKind::Extract | SetKind::Generate) => Vec::new(),
        None => {
            let what = format!("label_key {:?} names no label set", meta.label_key);
            return Err(EvalError::content(meta_path.display().to_string(), what));
        }
    };
    let mut set = EvalSet {
        name,
        definition: meta.defi.clone(),
        kind,
        lang,
        labels,
        label_sep: meta.label_sep.clone(),
        items: vec![],
    };
    let path = folder.join("test.json");
    let mut source = BufReader::new(fs::File::open(&path).map_err(|e| EvalError::io(&path, e))?);
    let (mut line, mut number) = (Vec::new(), 0usize);
    loop {
        let found = next_line(&mut source, &mut line).map_err(|e| EvalError::io(&path, e))?;
        number += 1;
        let place = format!("{}:{number}", path.display());
        match found {
            Line::End => break,
            Line::TooLong => return Err(EvalError::content(place, "line is too long")),
            Line::Whole => {}
        }
        let text = str::from_utf8(&line).map_err(|_| EvalError::content(&place, "invalid UTF-8"))?;
        let text = text.trim_start_matches('\u{FEFF}').trim();
        if !text.is_empty() {
            let row: Row = parse_json(text, &path, number)?;
            let item = released_item(&set, &meta, row, seed).map_err(|what| EvalError::content(&place, what))?;
            set.items.push(item);
        }
    }
    Ok(set)
}

/// Parses what starts on line `first` of the file.
fn parse_json<T: DeserializeOwned>(text: &str, path: &Path, first: usize) -> Result<T, EvalError> {
    serde_json::from_str(text).map_err(|e| {
        let place = format!("{}:{}", path.display(), first + e.line().saturating_sub(1));
        let whole = e.to_string();
        EvalError::content(place, whole.rsplit_once(" at line ").map_or(whole.as_str(), |(what, _)| what))
    })
}

fn released_item(set: &EvalSet, meta: &Meta, mut row: Row, seed: u64) -> Result<EvalItem, String> {
    let index = set.items.len();
    let terms = || row.spans.iter().map(|s| s.term.clone()).collect::<Vec<_>>();
    let (mut candidates, mut shown) = (set.labels.clone(), set.labels.clone());
    let answer = match set.kind {
        SetKind::Cls => {
            let gold = row.labels.remove(&meta.label_key).unwrap_or_default();
            if gold.is_empty() {
                return Err(format!("no labels under label_key {:?}", meta.label_key));
            }
            candidates = draw_candidates(&set.labels, &gold, SplitMix::stream(seed, index as u64));
            shown.clone_from(&candidates);
            Gold::Labels(gold)
        }
        SetKind::Extract => {
            candidates = listed_documents(&row.sentences);
            Gold::Spans(terms())
        }
        SetKind::ConditionExtract => {
            candidates = Vec::new();
            Gold::Spans(terms())
        }
        SetKind::Ner => {
            Gold::Entities(row.spans.iter().map(|s| Entity { kind: s.kind.clone(), text: s.term.clone() }).collect())
        }
        SetKind::Generate => Gold::Text(terms().join(&meta.label_sep)),
    };
    Ok(EvalItem {
        id: format!("{}-{index}", set.name),
        prompt: released_prompt(meta, &row.sentences, &shown.join(&meta.label_sep)),
        gold: answer_text(&answer, &set.labels, &set.label_sep),
        text: row.sentences,
        candidates,
        answer,
    })
}

/// Header, filled template, response marker. The template of title generation lacks the instruction marker that all others
/// have; it is put in.
fn released_prompt(meta: &Meta, sentences: &str, labels: &str) -> String {
    let mut prompt = header(&meta.defi);
    let template = meta.test_prompt.instruction.trim_end();
    let template = template.strip_suffix(RESPONSE_MARKER.trim_end()).unwrap_or(template);
    if !template.starts_with(INSTRUCTION_MARKER) {
        prompt.push_str(INSTRUCTION_MARKER);
    }
    // Filled from left to right, so that braces inside the texts stay.
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        prompt.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{sentences}") {
            prompt.push_str(sentences);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("{label_set}") {
            prompt.push_str(labels);
            rest = after;
        } else {
            prompt.push('{');
            rest = &rest[1..];
        }
    }
    prompt.push_str(rest);
    prompt.push_str(RESPONSE_MARKER);
    prompt
}

/// The labels to show: all of them, or from more than [`MAX_CANDIDATES`] a list of 2 to [`MAX_CANDIDATES`] (uniform) that
/// holds the gold and never the gold alone; shuffled. The number drawn does not depend on the gold.
pub(super) fn draw_candidates(labels: &[String], gold: &[String], mut rng: SplitMix) -> Vec<String> {
    let mut others: Vec<&String> = labels.iter().filter(|l| !gold.contains(l)).collect();
    let wanted = if labels.len() > MAX_CANDIDATES { 2 + rng.below(MAX_CANDIDATES - 1) } else { labels.len() };
    rng.shuffle(&mut others);
    others.truncate(wanted.saturating_sub(gold.len()).max(1));
    let mut shown: Vec<String> = gold.iter().chain(others).cloned().collect();
    rng.shuffle(&mut shown);
    shown
}

/// The choices inside a product-selection text (`Query: …\nCandidate Document: a, b, c.`); none in other texts.
fn listed_documents(text: &str) -> Vec<String> {
    let Some((_, list)) = text.split_once("\nCandidate Document: ") else { return Vec::new() };
    list.strip_suffix('.').unwrap_or(list).split(", ").map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
    #[test]
    fn candidate_lists_hold_the_gold_and_company(labels in 2usize..200, seed in any::<u64>(), gold in any::<u64>()) {
        let labels: Vec<String> = (0..labels).map(|l| l.to_string()).collect();
        let gold = vec![labels[gold as usize % labels.len()].clone()];
        let shown = draw_candidates(&labels, &gold, SplitMix::stream(seed, 0));
        prop_assert!(shown.contains(&gold[0]) && (2..=50).contains(&shown.len()));
        prop_assert!(labels.len() > 50 || shown.len() == labels.len());
        let mut distinct = shown.clone();
        distinct.sort();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), shown.len());
    }
    }
}
