//! One broken row for each check, which turns that check red and no other.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::build::{sha256, tokens};
use crate::instruction::{Entity, Gold, Kind, Lang, Paradigm};
use crate::task::find;
use crate::wording::Wording;
use std::collections::BTreeMap;

/// A row as a build makes it, of a task, about a text.
fn row(task: &str, n: usize, input: &str, gold: Gold, candidates: &[&str]) -> Instruction {
    let t = find(task).unwrap();
    let candidates: Vec<String> = candidates.iter().map(|&c| c.to_owned()).collect();
    let output = match &gold {
        Gold::Labels(l) | Gold::Spans(l) if l.is_empty() => "None".to_owned(),
        Gold::Labels(l) | Gold::Spans(l) => l.join(", "),
        Gold::Entities(_) => crate::eval_set::answer_text(&gold, &candidates, ", "),
        Gold::Text(text) => text.clone(),
    };
    let row = Instruction {
        id: format!("{task}:stall/rows.csv:{n}"),
        task: task.to_owned(),
        kind: t.kind(),
        parents: t.parents.iter().map(|&p| p.to_owned()).collect(),
        strategy: t.strategy,
        dtype: Some(t.dtype),
        paradigm: t.paradigm,
        source: "stall".to_owned(),
        source_split: "train".to_owned(),
        raw_ids: vec![format!("stall/rows.csv:{n}")],
        group: format!("stall/rows.csv:{n}"),
        description: Wording::builtin().name(task, Lang::En).to_owned(),
        input: input.to_owned(),
        n_candidates: (!candidates.is_empty()).then_some(candidates.len() as u32),
        candidates,
        output,
        gold: Some(gold),
        format_twin: t.twin,
        ..Instruction::default()
    };
    worded(row, n % 3 + 1)
}

/// The row in the words of a template.
fn worded(row: Instruction, number: usize) -> Instruction {
    let task = find(row.id.split(':').next().unwrap()).unwrap();
    let template = Wording::builtin().template(task, row.prompt_lang, &number.to_string()).unwrap();
    let list = row.candidates.join(", ");
    let prompt = template.replace("{labels}", &list).replace("{types}", &list).replace("{type}", "material");
    let template_id = format!("{}-{}-{number}", task.id, row.prompt_lang.name());
    Instruction { prompt, template_id, ..row }
}

fn labels(label: &str) -> Gold {
    Gold::Labels(vec![label.to_owned()])
}

fn polarity(n: usize, label: &str) -> Instruction {
    let input = format!("The {n}. melon from this stall was as sweet as the seller had promised me.");
    row("F12", n, &input, labels(label), &["positive", "negative"])
}

fn title(n: usize) -> Instruction {
    let text = format!("ceramic teapot number {n} with bamboo handle");
    row("F07", n, &format!("material: ceramic; kind: teapot; number: {n}; handle: bamboo"), Gold::Text(text), &[])
}

fn aspects(n: usize, spans: &[&str]) -> Instruction {
    let input = format!("Visit {n}: the counter was clean, but the queue went round the corner.");
    row("F15", n, &input, Gold::Spans(spans.iter().map(|&s| s.to_owned()).collect()), &[])
}

fn shelf(n: usize, gold: &str, candidates: &[&str]) -> Instruction {
    row("F03", n, &format!("wooden spoon number {n} for stirring jam"), labels(gold), candidates)
}

fn entities(n: usize) -> Instruction {
    let gold = Gold::Entities(vec![
        Entity { kind: "material".to_owned(), text: "oak".to_owned() },
        Entity { kind: "product".to_owned(), text: "stool".to_owned() },
    ]);
    row("F01", n, &format!("oak stool number {n}"), gold, &["product", "colour", "material"])
}

/// A row that has `filled` in its prompt, where it had `gap`.
fn materials(gap: &str, filled: &str) -> Instruction {
    let row = row("A02", 8, "oak stool number 8 with a leather seat", Gold::Spans(vec!["oak".to_owned()]), &[]);
    let row = worded(row, 1);
    Instruction { prompt: row.prompt.replacen(gap, filled, 1), ..row }
}

/// The good rows and one more.
fn with(row: Instruction) -> Report {
    let mut rows = good();
    rows.push(row);
    report(&rows)
}

/// Rows in which nothing is wrong.
fn good() -> Vec<Instruction> {
    vec![
        polarity(0, "positive"),
        polarity(1, "negative"),
        title(2),
        aspects(3, &["counter", "queue"]),
        aspects(4, &[]),
        shelf(5, "Kitchen", &["Garden", "Kitchen", "Toys"]),
        entities(6),
    ]
}

/// Held-out rows, which share nothing with the good ones.
fn held() -> Vec<Instruction> {
    let texts =
        ["Our raincoats kept two children dry for a whole day", "The umbrella turned inside out in the first gust"];
    let make = |(n, text): (usize, &&str)| {
        let label = if n == 0 { "positive" } else { "negative" };
        Instruction {
            task: "rainy".to_owned(),
            ..row("F12", 10_000 + n, &format!("{text}."), labels(label), &["negative", "positive"])
        }
    };
    texts.iter().enumerate().map(make).collect()
}

fn write(path: &Path, rows: &[Instruction]) -> serde_json::Value {
    let lines: String = rows.iter().map(|r| serde_json::to_string(r).unwrap() + "\n").collect();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, &lines).unwrap();
    json!({ "rows": rows.len(), "bytes": lines.len(), "sha256": sha256(path).unwrap() })
}

/// A data folder of these training rows, with its manifest.
fn folder(train: &[Instruction]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let held = held();
    let reworded: Vec<_> = held.iter().map(|r| worded(r.clone(), 4)).collect();
    let files = [("train.jsonl", train), ("heldout/rainy.jsonl", &held), ("heldout-paraphrase/rainy.jsonl", &reworded)];
    let mut entries = Vec::new();
    for (name, rows) in files {
        let mut entry = write(&dir.path().join(name), rows);
        entry["name"] = name.into();
        entries.push(entry);
    }
    let count = |key: &dyn Fn(&Instruction) -> String| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        train.iter().for_each(|r| *counts.entry(key(r)).or_default() += 1);
        counts
    };
    let mut units: BTreeMap<_, (usize, usize)> = BTreeMap::new();
    for r in train {
        let unit = units.entry((&r.task, &r.source, r.lang)).or_default();
        *unit = (unit.0 + 1, unit.1 + tokens(&r.input) + tokens(&r.prompt) + tokens(&r.output));
    }
    let unit = |(&(task, source, lang), &(kept, tokens)): (&(&String, &String, Lang), &(usize, usize))| {
        let t = find(task).unwrap_or(find("F07").unwrap());
        json!({
            "task": task, "name": "", "source": source, "lang": lang, "paradigm": t.paradigm, "kind": t.kind(),
            "format_twin": t.twin, "made": kept, "kept": kept, "tokens": tokens, "mean_tokens": 0.0, "classes": {},
        })
    };
    let source = json!({
        "name": "stall", "licence": "", "heldout": 0.1, "records": 9, "bad_rows": 0, "first_bad_rows": [], "walled": {},
        "repeated": 0,
    });
    let heldout = json!({
        "name": "rainy", "task": "F12", "source": "stall", "lang": "en", "paradigm": "CLS", "items": held.len(), "level": "",
        "task_seen": true, "format_seen": true, "labels_seen": true, "baselines": {},
    });
    let manifest = json!({
        "version": "0", "seed": 1, "files": entries, "instructions": train.len(),
        "languages": count(&|r| r.lang.name().to_owned()), "paradigms": count(&|r| r.paradigm.name().to_owned()),
        "tasks": count(&|r| r.task.clone()), "estimated_tokens": units.values().map(|u| u.1).sum::<usize>(),
        "sources": [source], "units": units.iter().map(unit).collect::<Vec<_>>(), "heldout": [heldout],
        "firewall_prompts": {}, "repeated_instructions": 0, "not_built": {}, "recipe": {},
    });
    fs::write(dir.path().join("manifest.json"), format!("{manifest:#}")).unwrap();
    dir
}

fn report(train: &[Instruction]) -> Report {
    check(folder(train).path(), &mut |_| {}).unwrap()
}

fn failed(report: &Report) -> Vec<&'static str> {
    report.checks.iter().filter(|c| !c.passed).map(|c| c.name).collect()
}

/// Exactly `name` must fail, and say something that holds `says`.
#[track_caller]
fn red(report: &Report, name: &str, says: &str) {
    let all: Vec<&String> = report.checks.iter().flat_map(|c| &c.faults).collect();
    assert_eq!(failed(report), [name], "{all:#?}");
    assert!(all.iter().any(|f| f.contains(says)), "{says:?} not in {all:#?}");
}

/// The good rows, the first one of `task` changed.
#[track_caller]
fn changed(task: &str, change: impl FnOnce(&mut Instruction)) -> Report {
    let mut rows = good();
    change(rows.iter_mut().find(|r| r.task == task).unwrap());
    report(&rows)
}

#[test]
fn good_rows_pass() {
    let report = report(&good());
    assert!(report.passed(), "{:#?}", report.checks);
    assert_eq!(report.files.len(), 3);
    let baselines = report.checks.iter().find(|c| c.name == "baselines").unwrap();
    assert!(baselines.detail.iter().any(|l| l.starts_with("F12 stall en: constant ")), "{:#?}", baselines.detail);
    assert!(baselines.detail.iter().any(|l| l.contains("(held out)")), "{:#?}", baselines.detail);
}

#[test]
fn schema() {
    red(&changed("F07", |r| r.parents = vec!["F99".into()]), "schema", "train.jsonl:3: parents of F07: wanted []");
    red(&changed("F07", |r| r.paradigm = Paradigm::Oth), "schema", "paradigm of F07: wanted GEN, found OTH");
    let error = changed("F07", |r| r.task = "F36".into());
    assert!(error.checks[0].faults[0].contains("found \"F36\""), "{:?}", error.checks[0]);
    red(&changed("F07", |r| r.raw_ids.clear()), "schema", "train.jsonl:3: raw_ids: wanted the raw rows, found []");
    red(&changed("F07", |r| r.raw_ids.push(String::new())), "schema", "raw_ids: wanted the raw rows");
    red(
        &changed("F07", |r| r.raw_ids[0].push('9')),
        "schema",
        "id: wanted F07:stall/rows.csv:29 (task, first of raw_ids)",
    );
    red(
        &changed("F07", |r| r.raw_ids.push("stalls/b:1".into())),
        "schema",
        "wanted rows of \"stall\", found \"stalls/b:1\"",
    );
    red(&changed("F07", |r| r.group.clear()), "schema", "group: wanted a name");
    let views = changed("F07", |r| r.id.push_str("~3"));
    assert!(views.passed(), "{:#?}", views.checks);
    red(&changed("F07", |r| r.format_twin ^= true), "schema", "format_twin of F07");
    red(&changed("F07", |r| r.dtype = None), "schema", "dtype of F07: wanted Product, found none");
    red(&changed("F07", |r| r.gold = None), "schema", "wanted text, found none");
    red(&changed("F07", |r| r.prompt = " ".into()), "schema", "wanted a prompt");
    red(&changed("F01", |r| r.n_candidates = Some(2)), "schema", "n_candidates: wanted 3, found 2");
    let again =
        |r: &mut Instruction| (r.id, r.raw_ids) = ("F07:stall/rows.csv:2".into(), vec!["stall/rows.csv:2".into()]);
    let mut rows = good();
    rows.push(title(8));
    again(&mut rows[7]);
    red(&report(&rows), "schema", "train.jsonl:8: wanted an id that no other row has");
}

#[test]
fn broken_lines_are_found_and_named() {
    let dir = folder(&good());
    let path = dir.path().join("heldout/rainy.jsonl");
    fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"prompt\": 1\n").unwrap();
    let report = check(dir.path(), &mut |_| {}).unwrap();
    assert_eq!(failed(&report), ["schema", "manifest"]);
    assert!(report.checks[0].faults[0].starts_with("heldout/rainy.jsonl:3: "), "{:?}", report.checks[0].faults);
}

#[test]
fn round_trip() {
    let report = changed("F07", |r| r.gold = Some(Gold::Text("another pot".into())));
    red(&report, "round trip", "train.jsonl:3: \"ceramic teapot");
}

#[test]
fn gold_score() {
    // Dots and plus signs are no words: no answer to this can score.
    let report = changed("F07", |r| (r.gold, r.output) = (Some(Gold::Text("+.+".into())), "+.+".into()));
    red(&report, "gold score", "scores 0.00 (ROUGE-L), wanted 100");
}

#[test]
fn label_balance() {
    let mut rows = good();
    rows.extend([polarity(10, "positive"), polarity(11, "positive")]);
    red(&report(&rows), "label balance", "F12 stall en: wanted both labels equally often, found 3 and 1");
}

#[test]
fn none_answers() {
    let mut rows = good();
    rows.extend((10..70).map(|n| aspects(n, &[])));
    red(&report(&rows), "None answers", "F15 stall en: wanted 5 to 45 % of answers None, found 98.4 %");
}

#[test]
fn candidates() {
    let one = |shown: &'static [&'static str]| changed("F03", |r| *r = shelf(5, "Kitchen", shown));
    red(&one(&["Kitchen"]), "candidates", "gold only");
    red(&one(&["Garden", "Toys"]), "candidates", "wanted \"Kitchen\" among the candidates");
    red(&one(&["Garden", "Kitchen", "Garden"]), "candidates", "\"Garden\" is there twice");
    red(&one(&[]), "candidates", "wanted candidates with \"Kitchen\"");
}

#[test]
fn gold_position() {
    let rows = |at: fn(usize) -> usize| -> Vec<Instruction> {
        let shop = ["Kitchen", "Garden", "Toys", "Books"];
        let mut rows = good();
        rows.extend((10..210).map(|n| {
            let mut shown = shop[1..].to_vec();
            shown.insert(at(n), shop[0]);
            shelf(n, "Kitchen", &shown)
        }));
        rows
    };
    let even = report(&rows(|n| n % 4));
    assert!(even.passed(), "{:#?}", even.checks);
    red(&report(&rows(|n| usize::from(n % 8 == 0))), "gold position", "F03 stall en: wanted right answers all over");
}

#[test]
fn copies() {
    let report = changed("F15", |r| {
        (r.output, r.gold) = ("cash desk".into(), Some(Gold::Spans(vec!["cash desk".into()])));
    });
    red(&report, "copies", "\"cash desk\": wanted words of the input");
}

#[test]
fn templates() {
    red(&changed("F07", |r| *r = worded(r.clone(), 4)), "templates", "is the held-out paraphrase");
    let asked = "train.jsonl:3: prompt: wanted \"Turn this attribute list into the name under which the product could be sold.\", \
                 filled, found \"Sell it.\"";
    red(&changed("F07", |r| r.prompt = "Sell it.".into()), "templates", asked);
    red(&changed("F07", |r| r.template_id = "F07-en-1".into()), "templates", "prompt: wanted \"Write a product title");
    red(
        &changed("F07", |r| r.template_id = "F07-en-generic".into()),
        "templates",
        "prompt: wanted \"Carry out the task",
    );
    red(&changed("F12", |r| r.candidates.reverse()), "templates", "prompt: wanted \"What is the overall sentiment");
    red(
        &changed("F07", |r| r.description.push('s')),
        "templates",
        "description: wanted \"product title generation\" or none",
    );
    red(
        &changed("F07", |r| r.constraint = "Be brief.".into()),
        "templates",
        "constraint: wanted \"Give the requested text",
    );
    red(&changed("F07", |r| r.template_id = "F07-zh-1".into()), "templates", "wanted F07-en-…");
    red(&changed("F07", |r| r.template_id = "F07-en-9".into()), "templates", "wanted a number from 1 to 4");
    let mut rows = good();
    rows[2] = worded(title(2), 1);
    rows.extend((10..150).map(|n| worded(title(n), n % 2 + 1)));
    red(&report(&rows), "templates", "found no F07-en-3");
    let dir = folder(&good());
    fs::copy(dir.path().join("heldout/rainy.jsonl"), dir.path().join("heldout-paraphrase/other.jsonl")).unwrap();
    fs::remove_file(dir.path().join("manifest.json")).unwrap();
    let report = check(dir.path(), &mut |_| {}).unwrap();
    red(&report, "templates", "heldout-paraphrase/other.jsonl:1: wanted the held-out paraphrase F12-en-4");
}

#[test]
fn language() {
    red(&changed("F07", |r| r.lang = Lang::Zh), "language", "F07 stall zh: wanted 90 % of inputs");
    let chinese =
        Instruction { prompt_lang: Lang::Zh, description: String::new(), ..materials("material", "material") };
    let asked = |filled: &str| {
        let row = worded(chinese.clone(), 1);
        with(Instruction { prompt: row.prompt.replace("material", filled), ..row })
    };
    assert!(asked("material").passed());
    red(&asked(&"sort of material ".repeat(9)), "language", "A02 stall en: wanted 90 % of prompts");
}

#[test]
fn lengths() {
    let report = changed("F07", |r| {
        r.output = "pot ".repeat(500).trim().to_owned();
        r.gold = Some(Gold::Text(r.output.clone()));
    });
    red(&report, "lengths", "output: wanted at most 400 tokens, found about");
}

#[test]
fn overlap() {
    let held = held();
    red(&changed("F07", |r| r.input.clone_from(&held[0].input)), "overlap", "is in a held-out set (exact");
    let inside = |r: &mut Instruction| r.input = format!("kind: review\n{}\nnumber: 3", held[1].input.to_uppercase());
    red(&changed("F07", inside), "overlap", "train.jsonl:3: ");
    red(&changed("F07", |r| r.raw_ids.push(held[0].raw_ids[0].clone())), "overlap", "raw row");
    red(&changed("F07", |r| r.group.clone_from(&held[0].group)), "overlap", "group");
}

#[test]
fn duplicates() {
    let mut rows = good();
    let raw_ids = vec!["stall/rows.csv:99".to_owned()];
    rows.push(worded(Instruction { id: "F07:stall/rows.csv:99".into(), raw_ids, ..rows[2].clone() }, 1));
    red(&report(&rows), "duplicates", "train.jsonl:8: an earlier row has this task");
}

#[test]
fn permuted_answers_tell_no_rows_apart() {
    let permuted = |n: usize, kind: &str| {
        let row = materials("material", kind);
        let raw_ids = vec![format!("stall/rows.csv:{n}")];
        Instruction { id: format!("A02:stall/rows.csv:{n}"), raw_ids, kind: Kind::Control, ..row }
    };
    // Two questions about one text, with the answer of a third.
    let mut rows = good();
    rows.extend([permuted(10, "material"), permuted(10, "colour"), permuted(11, "material")]);
    rows[8].id.push_str("~1");
    let found = report(&rows);
    assert!(found.passed(), "{:#?}", found.checks);
    rows.push(Instruction { id: "A02:stall/rows.csv:10~2".into(), ..rows[7].clone() });
    red(&report(&rows), "duplicates", "train.jsonl:11: an earlier row has this task");
}

#[test]
fn manifest_tells_the_truth() {
    let dir = folder(&good());
    let path = dir.path().join("train.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("bamboo", "linden")).unwrap();
    red(&check(dir.path(), &mut |_| {}).unwrap(), "manifest", "train.jsonl: wanted SHA-256");
    fs::write(&path, text.lines().skip(2).fold(String::new(), |all, l| all + l + "\n")).unwrap();
    red(&check(dir.path(), &mut |_| {}).unwrap(), "manifest", "says 7 training rows, found 5");
    fs::write(&path, &text).unwrap();
    let manifest = dir.path().join("manifest.json");
    let truth = fs::read_to_string(&manifest).unwrap();
    let value: serde_json::Value = serde_json::from_str(&truth).unwrap();
    assert!(check(dir.path(), &mut |_| {}).unwrap().passed());
    let lie = |place: &str, wrong: serde_json::Value| {
        let mut value = value.clone();
        *value.pointer_mut(place).unwrap() = wrong.clone();
        let text = format!("{value:#}");
        fs::write(&manifest, &text).unwrap();
        let same = |(a, b): (&str, &str)| a == b;
        (
            text.lines().zip(truth.lines()).position(|pair| !same(pair)).unwrap() + 1,
            check(dir.path(), &mut |_| {}).unwrap(),
        )
    };
    let number = |place: &str| value.pointer(place).unwrap().as_u64().unwrap();
    assert_eq!(value["units"][3]["task"], "F12");
    for (place, what) in [
        ("/instructions", "training rows"),
        ("/tasks/F12", "training rows of task F12"),
        ("/languages/en", "training rows of language en"),
        ("/paradigms/EXT", "training rows of paradigm EXT"),
        ("/estimated_tokens", "estimated tokens of the training rows"),
        ("/units/3/kept", "training rows of unit F12 stall en"),
        ("/units/4/tokens", "estimated tokens of unit F15 stall en"),
        ("/heldout/0/items", "items of rainy"),
    ] {
        let (line, report) = lie(place, json!(number(place) + 1));
        let says = format!("manifest.json:{line}: says {} {what}, found {}", number(place) + 1, number(place));
        red(&report, "manifest", &says);
    }
    for (place, wrong, says) in [
        ("/units/3/source", json!("stalls"), "wanted \"stalls\" among the sources, found no such one"),
        ("/units/3/lang", json!("zh"), "training rows of unit F12 stall zh, found 0"),
        ("/units/3/task", json!("F99"), "wanted an id from F01 to A68, found \"F99\""),
        ("/units/3/paradigm", json!("GEN"), "says that F12 is GEN Final, twin false; it is CLS Final, twin false"),
        ("/units/3/task", json!("F15"), "wanted each unit once, found F15 stall en again"),
        ("/units/3/task", json!("F15"), "wanted a unit F12 stall en of 2 rows, found none"),
        ("/sources", json!([]), "wanted \"stall\" among the sources, found no such one"),
    ] {
        red(&lie(place, wrong).1, "manifest", says);
    }
    fs::write(dir.path().join("manifest.json"), "{").unwrap();
    red(&check(dir.path(), &mut |_| {}).unwrap(), "manifest", "manifest.json");
}

#[test]
fn other_forms_are_checked_as_far_as_they_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.jsonl");
    fs::write(
        &path,
        "{\"instruction\":\"Name the fruit.\",\"input\":\"a ripe melon\",\"output\":\"melon\"}\n".repeat(2),
    )
    .unwrap();
    red(&check(&path, &mut |_| {}).unwrap(), "duplicates", ":2: an earlier row");
    let nothing = check(&dir.path().join("none.jsonl"), &mut |_| {}).unwrap_err();
    assert!(nothing.to_string().contains("none.jsonl: "), "{nothing}");
    fs::remove_file(&path).unwrap();
    assert!(check(dir.path(), &mut |_| {}).unwrap_err().to_string().contains("wanted a .jsonl file"));
}

#[test]
fn held_out_text_in_other_places() {
    let text = held()[0].input.clone();
    let candidate = changed("F03", |r| *r = shelf(5, "Kitchen", &["Garden", "Kitchen", &text]));
    red(
        &candidate,
        "overlap",
        "train.jsonl:6: candidate \"Our raincoats kept two children dry for a whole day.\" holds text",
    );
    red(
        &with(materials("material", &text)),
        "overlap",
        "train.jsonl:8: prompt \"Find everything in the text that is of the type",
    );
    let short = with(materials("material", "kept dry"));
    assert!(short.passed(), "{:#?}", short.checks);
}

#[test]
fn chi_square_bound_is_on_the_safe_side() {
    // Quantiles of the chi-square distribution at 0.999 (tables): 9 degrees 27.88, 3 degrees 16.27.
    for (freedom, exact) in [(9, 27.88), (3, 16.27)] {
        let bound = unit::chi_square_bound(freedom, 0.001);
        assert!(bound > exact && bound < exact * 1.35, "{bound}");
    }
}
