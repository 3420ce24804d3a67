//! What the demo shop promises: the same bits for a seed, true annotations, nothing said twice, and a build that holds products
//! out with all that is said about them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;
use crate::build::manifest::Manifest;
use crate::build::recipe::Recipe;
use crate::build::{Output, build};
use crate::check;
use crate::instruction::Instruction;
use crate::raw::{RawFile, Split};
use crate::record::{Grade, Span};
use crate::task::tasks;

const BOTH: [Lang; 2] = [Lang::En, Lang::Zh];

/// Every text of a record that is said by itself.
fn said(record: &Record) -> String {
    match record {
        Record::Product(r) => r.title.clone(),
        Record::Review(r) => r.text.clone(),
        Record::Dialogue(r) => r.turns.iter().map(|t| t.text.as_str()).collect::<Vec<_>>().join("\n"),
        Record::Query(r) => r.text.clone(),
    }
}

#[test]
fn the_seed_decides_every_record() {
    for lang in BOTH {
        let first = records(lang, 1);
        assert!(first == records(lang, 1));
        assert!(first != records(lang, 2));
    }
}

#[test]
fn records_hold_up_and_no_text_is_said_twice() {
    for (lang, seed) in BOTH.into_iter().flat_map(|lang| [(lang, 0), (lang, 7)]) {
        let file = RawFile { path: "".into(), name: source(lang).into(), split: Split::Train };
        let mut all = Vec::new();
        let mut emit = |record| all.push(record);
        let mut rows = Rows::new(&file, &mut emit);
        read(lang, seed, &mut rows);
        let report = rows.finish();
        assert_eq!(report.bad, 0, "{:?}", report.first_bad);
        let mut counts = BTreeMap::new();
        let (mut texts, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for record in &all {
            assert!(texts.insert(said(record)), "{record:?}");
            assert!(ids.insert(&record.meta().raw_id), "{record:?}");
            assert!(record.meta().raw_id.starts_with(source(lang)) && record.meta().group.starts_with("product-"));
            assert!(!said(record).contains(['{', '}', '|']), "{record:?}");
            *counts.entry(record.meta().raw_id.split(':').next().unwrap()).or_insert(0usize) += 1;
        }
        assert_eq!(counts.len(), 4);
        assert!(counts.values().all(|&n| n >= 500), "{counts:?}");
    }
}

#[test]
fn annotations_are_true() {
    for lang in BOTH {
        let all = records(lang, 3);
        let groups: BTreeMap<&str, &str> =
            all.iter().map(|r| (r.meta().raw_id.as_str(), r.meta().group.as_str())).collect();
        let mut grades = BTreeMap::new();
        for record in &all {
            match record {
                Record::Product(p) => {
                    assert!(p.attributes.len() >= 2 && p.category.len() == 2, "{p:?}");
                    for a in &p.attributes {
                        assert_eq!(a.span.and_then(|s| s.of(&p.title)), Some(a.value.as_str()), "{p:?}");
                    }
                    assert!(p.judged.iter().all(|j| groups[j.other.as_str()] == p.meta.group), "{p:?}");
                }
                Record::Review(r) => {
                    for o in &r.opinions {
                        assert!(o.aspect.zip(o.opinion).is_some_and(|(a, o)| a.end <= o.start || o.end <= a.start));
                    }
                    let of = |p: Polarity| r.opinions.iter().any(|o| o.polarity == p);
                    let wanted = match (of(Polarity::Positive), of(Polarity::Negative)) {
                        (true, true) => Some(Polarity::Neutral),
                        (true, false) => Some(Polarity::Positive),
                        (false, true) => Some(Polarity::Negative),
                        (false, false) => None,
                    };
                    assert_eq!(r.polarity, wanted, "{r:?}");
                }
                Record::Dialogue(d) => {
                    let customer = d.turns.iter().filter(|t| t.speaker == crate::record::Speaker::Customer);
                    let text = customer.map(|t| t.text.as_str()).collect::<Vec<_>>().join("\n");
                    assert!(d.slots.iter().all(|s| text.contains(&s.value)), "{d:?}");
                    assert!(d.turns.iter().all(|t| t.acts.iter().all(|a| !a.is_empty())), "{d:?}");
                    assert!(d.replies.len() == 1 && d.turns.last().is_some_and(|t| t.speaker == d.turns[0].speaker));
                }
                Record::Query(q) => {
                    let covered: usize = q.segments.iter().map(|s| s.span.end - s.span.start).sum();
                    assert_eq!(
                        covered,
                        q.text.chars().filter(|c| *c != ' ').map(char::len_utf8).sum::<usize>() + inner(q),
                        "{q:?}"
                    );
                    for judged in &q.judged {
                        assert_eq!(groups[judged.product.as_str()], q.meta.group, "{q:?}");
                        *grades.entry(judged.grade).or_insert(0usize) += 1;
                    }
                }
            }
        }
        for grade in [Grade::Exact, Grade::Partial, Grade::Irrelevant] {
            assert!(grades[&grade] >= 200, "{grades:?}");
        }
    }
}

/// Spaces within the segments of a query.
fn inner(query: &crate::record::Query) -> usize {
    let spaces = |span: Span| span.of(&query.text).unwrap().matches(' ').count();
    query.segments.iter().map(|s| spaces(s.span)).sum()
}

fn rows(path: &Path) -> Vec<Instruction> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn built(recipe: &Recipe, folder: &Path) -> Manifest {
    build(recipe, folder, Output::Instruct, &mut |_| ()).unwrap()
}

#[test]
fn what_is_said_of_a_heldout_product_is_not_in_training() {
    let mut recipe = Recipe::parse(Recipe::demo(), Path::new("")).unwrap();
    for seed in [0, 42] {
        recipe.seed = seed;
        let dir = tempfile::tempdir().unwrap();
        let manifest = built(&recipe, dir.path());
        let train = rows(&dir.path().join("train.jsonl"));
        let trained: BTreeSet<(&str, &str)> = train.iter().map(|r| (r.source.as_str(), r.group.as_str())).collect();
        let tasks: BTreeSet<&str> = train.iter().map(|r| r.task.as_str()).collect();
        assert!(recipe.tasks.unseen.iter().all(|id| !tasks.contains(id.as_str())));
        assert_eq!(tasks.len(), recipe.tasks.only.len());
        for held in &manifest.heldout {
            let rows = rows(&dir.path().join("heldout").join(format!("{}.jsonl", held.name)));
            assert!(rows.len() >= 12, "{}: {}", held.name, rows.len());
            assert!(rows.iter().all(|r| !trained.contains(&(r.source.as_str(), r.group.as_str()))), "{}", held.name);
        }
        let report = check::check(dir.path(), &mut |_| ()).unwrap();
        assert!(report.passed(), "{:#?}", report.checks.iter().filter(|c| !c.passed).collect::<Vec<_>>());
    }
}

#[test]
fn the_shop_feeds_most_tasks() {
    let mut recipe = Recipe::parse(Recipe::demo(), Path::new("")).unwrap();
    recipe.tasks.only.clear();
    recipe.tasks.unseen.clear();
    recipe.heldout.clear();
    let dir = tempfile::tempdir().unwrap();
    let manifest = built(&recipe, dir.path());
    let without: Vec<&str> =
        tasks().iter().map(|t| t.id).filter(|id| manifest.units.iter().all(|u| u.task != *id || u.made == 0)).collect();
    assert!(without.len() <= 19, "{without:?}");
}
