use std::fs;

use serde_json::json;

use super::*;
use crate::build::build;
use crate::splitmix::SplitMix;

const RECIPE: &str = r#"
cap = 60
floor = 5
evaluation = ["seen.jsonl"]
[shares]
source = 1.0
data_type = 0.0
language = 0.0
[[source]]
name = "early"
files = ["early.jsonl"]
mapping.review = { text = "body", stars = "rate" }
[[source]]
name = "shop"
heldout = 0.2
files = ["shop.csv"]
[source.mapping.product]
id = "sku"
title = "name"
category = "path"
category_separator = " > "
attribute_columns = ["maker", "colour", "style"]
[[source]]
name = "late"
heldout = 0.2
files = ["late.jsonl"]
mapping.review = { id = "key", text = "body", stars = "rate", category = "shelf" }
[[heldout]]
name = "brands"
source = "shop"
task = "A02"
[[heldout]]
name = "moods"
source = "late"
task = "F12"
"#;

struct Words(SplitMix);

impl Words {
    fn say(&mut self, n: usize) -> String {
        let parts = ["ta", "mo", "vi", "ke", "lu", "ra", "so", "ni", "pe", "do", "gu", "fi", "ban", "cor"];
        let mut word = || (0..3).map(|_| parts[self.0.below(parts.len())]).collect::<String>();
        (0..n).map(|_| word()).collect::<Vec<_>>().join(" ")
    }
}

/// A folder with raw data in which much must be left out: some products are in an evaluation set, and many reviews repeat.
fn stall() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut words = Words(SplitMix::new(3));
    let shelves = ["House > Lamps", "House > Chairs", "Garden > Pots", "Garden > Tools", "Wear > Hats"];
    let (mut csv, mut seen, mut early, mut late) =
        ("sku,name,path,maker,colour,style\n".to_owned(), vec![], vec![], vec![]);
    for n in 0..200 {
        let (maker, style) = (words.say(1), words.say(1));
        let colour = ["red", "blue", "green"][n % 3];
        let title = format!("{maker} {} {colour} {style} {}", words.say(2), words.say(2));
        // Ids of a user may have what JSON escapes, and what marks a view.
        let row = format!("\"a\"\"b\\{n}~{}\",{title},{},{maker},{colour},{style}\n", n % 4, shelves[n % 5]);
        csv.push_str(&row);
        if n % 4 == 0 {
            seen.push(
                json!({ "task": "F09", "description": "", "prompt": "Describe it.", "input": title, "output": "x" }),
            );
        }
        let rate = 1 + n % 5;
        let body =
            format!("The {} is {}. We took it to {}.", words.say(3), ["bad", "so so", "good"][rate / 2], words.say(6));
        let shelf = shelves[n % 5].split_once(" > ").unwrap().1;
        late.push(json!({ "key": n, "body": body, "rate": rate, "shelf": shelf }));
        if n % 3 == 0 {
            early.push(json!({ "body": format!("{body}!"), "rate": rate }));
        }
    }
    let lines = |rows: &[Value]| rows.iter().map(|r| r.to_string() + "\n").collect::<String>();
    fs::write(dir.path().join("shop.csv"), csv).unwrap();
    for (name, rows) in [("seen.jsonl", seen), ("early.jsonl", early), ("late.jsonl", late)] {
        fs::write(dir.path().join(name), lines(&rows)).unwrap();
    }
    dir
}

fn recipe(dir: &Path, more: &str) -> Recipe {
    Recipe::parse(&format!("{more}\n{RECIPE}"), dir).unwrap()
}

/// Ids of the rows of a file.
fn ids(path: &Path) -> Vec<String> {
    let mut ids = Vec::new();
    each_row(path, &mut |_, row| {
        ids.push(serde_json::from_str::<Value>(&row).unwrap()["id"].as_str().unwrap().to_owned());
    })
    .unwrap();
    ids
}

fn built(dir: &Path, recipe: &Recipe, output: Output) -> std::path::PathBuf {
    let data = dir.join(format!("data-{output:?}"));
    fs::create_dir(&data).unwrap();
    build(recipe, &data, output, &mut |_| {}).unwrap();
    data
}

#[test]
fn every_instruction_is_made_again_word_for_word() {
    let dir = stall();
    let recipe = recipe(dir.path(), "");
    let data = built(dir.path(), &recipe, Output::Instruct);
    let manifest = Manifest::read(&data).unwrap();
    let of = |name: &str| manifest.sources.iter().find(|s| s.name == name).unwrap();
    assert!(of("shop").walled.values().sum::<usize>() > 20 && of("late").repeated > 20, "{:?}", manifest.sources);
    let train = ids(&data.join("train.jsonl"));
    assert!(train.len() > 400 && train.iter().any(|id| id.starts_with("A02:") && id.contains("a\"b\\")));
    for id in train.iter().step_by(7) {
        let story = trace(&recipe, &data, id).unwrap();
        assert!(story.holds && story.text.contains("from this row, word for word"), "{}", story.text);
    }
    for id in ids(&data.join("heldout/brands.jsonl")).iter().chain(&ids(&data.join("heldout/moods.jsonl"))).step_by(9) {
        let story = trace(&recipe, &data, id).unwrap();
        assert!(story.holds && story.text.contains("on the held-out side\nheld-out set "), "{}", story.text);
        assert_eq!(story.text.matches("word for word").count(), 2, "{}", story.text);
    }
    fs::remove_dir_all(data.join("heldout")).unwrap();
    assert!(trace(&recipe, &data, &train[0]).unwrap().holds);
    fs::remove_file(data.join("train.jsonl")).unwrap();
    let error = trace(&recipe, &data, &train[0]).unwrap_err().to_string();
    assert!(error.contains("train.jsonl: "), "{error}");
}

#[test]
fn a_row_that_gives_another_instruction_is_told() {
    let dir = stall();
    let recipe_now = recipe(dir.path(), "");
    let data = built(dir.path(), &recipe_now, Output::Instruct);
    let train = ids(&data.join("train.jsonl"));
    let mood = train.iter().find(|id| id.starts_with("F12:late")).unwrap();
    let path = dir.path().join("late.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("We took", "They took")).unwrap();
    let story = trace(&recipe_now, &data, mood).unwrap();
    assert!(!story.holds && story.text.contains("made again: with another input; raw data"), "{}", story.text);
    fs::write(&path, "").unwrap();
    let error = trace(&recipe_now, &data, mood).unwrap_err().to_string();
    assert!(error.contains("late: no row \"late/late.jsonl#"), "{error}");
    fs::write(&path, text).unwrap();
    let other = recipe(dir.path(), "seed = 9");
    assert!(train.iter().step_by(40).any(|id| !trace(&other, &data, id).unwrap().holds));
}

#[test]
fn forms_of_other_trainers_keep_the_id() {
    let dir = stall();
    let recipe = recipe(dir.path(), "");
    for output in [Output::Alpaca, Output::Messages, Output::Parquet] {
        let data = built(dir.path(), &recipe, output);
        let train = data.join(format!("train.{}", output.extension()));
        for id in ids(&train).iter().step_by(150) {
            let story = trace(&recipe, &data, id).unwrap();
            assert!(story.holds && story.text.contains("word for word\n\nHere is an instruction"), "{}", story.text);
        }
        if output == Output::Alpaca {
            fs::write(&train, "{\"instruction\": \"a\", \"input\": \"b\", \"output\": \"c\"}\n").unwrap();
            let error = trace(&recipe, &data, "F12:late/late.jsonl#3").unwrap_err().to_string();
            assert!(error.contains("train.jsonl: wanted rows with an id, found none"), "{error}");
        }
    }
}

/// The rows of a file by their ids, without what a permutation changes.
fn questions(path: &Path) -> std::collections::BTreeMap<String, Value> {
    let mut rows = std::collections::BTreeMap::new();
    each_row(path, &mut |_, row| {
        let mut row: Value = serde_json::from_str(&row).unwrap();
        let _ = ["output", "gold", "kind"].map(|key| row[key].take());
        rows.insert(row["id"].as_str().unwrap().to_owned(), row);
    })
    .unwrap();
    rows
}

#[test]
fn the_control_asks_the_same_questions_and_passes_the_same_checks() {
    let dir = stall();
    let plain = recipe(dir.path(), "");
    let tasks = crate::build::recipe::Tasks { shuffle_atomic: true, ..plain.tasks.clone() };
    let control = Recipe { tasks, ..plain.clone() };
    let data = [plain, control].map(|recipe| {
        let data = built(dir.path(), &recipe, Output::Instruct);
        let report = crate::check::check(&data, &mut |_| {}).unwrap();
        let failed: Vec<_> = report.checks.iter().filter(|c| !c.passed).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        let rows = fs::read_to_string(data.join("train.jsonl")).unwrap();
        let questions = questions(&data.join("train.jsonl"));
        fs::remove_dir_all(data).unwrap();
        (rows, questions)
    });
    assert!(data[0].0 != data[1].0 && data[0].1 == data[1].1);
}

#[test]
fn permuted_answers_are_named_as_such() {
    let dir = stall();
    let recipe = Recipe {
        tasks: crate::build::recipe::Tasks { shuffle_atomic: true, ..Default::default() },
        ..recipe(dir.path(), "")
    };
    for output in [Output::Instruct, Output::Messages] {
        let data = built(dir.path(), &recipe, output);
        for id in ids(&data.join("train.jsonl")).iter().step_by(60) {
            let story = trace(&recipe, &data, id).unwrap();
            let wanted =
                if id.starts_with('A') { "with another's answer as the recipe wants" } else { "word for word" };
            assert!(story.holds && story.text.contains(wanted), "{}", story.text);
        }
    }
}
