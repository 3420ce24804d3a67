//! `ecom data` on a market stall's own tables: built twice, checked, counted, shown, traced; and what it says of mistakes.

use super::*;

/// Made-up words that say little about each other.
struct Words(u64);

impl Words {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn word(&mut self) -> String {
        let parts =
            ["ta", "mo", "vi", "ke", "lu", "ra", "so", "ni", "pe", "do", "gu", "fi", "ban", "cor", "lem", "tis"];
        (0..2 + self.below(2)).map(|_| parts[self.below(parts.len())]).collect()
    }

    fn words(&mut self, n: usize) -> String {
        (0..n).map(|_| self.word()).collect::<Vec<_>>().join(" ")
    }
}

const RECIPE: &str = r#"
seed = 5
cap = 80
floor = 10

[shares]
source = 1.0
data_type = 0.0
language = 0.0

[[source]]
name = "stall"
licence = "CC0-1.0"
heldout = 0.2
files = ["products.csv"]
[source.mapping]
language = "en"
[source.mapping.product]
id = "sku"
title = "name"
category = "path"
category_separator = " > "
attribute_columns = ["maker", "colour", "material", "series", "style"]
brand = "maker"

[[source]]
name = "guestbook"
licence = "CC0-1.0"
heldout = 0.2
files = ["reviews.jsonl"]
[source.mapping]
language = "en"
[source.mapping.review]
text = "body"
stars = "rate"

[[heldout]]
name = "stall-titles"
source = "stall"
task = "F07"
items = 20
[[heldout]]
name = "guestbook-mood"
source = "guestbook"
task = "F12"
items = 20
"#;

/// A folder with products, reviews and a recipe.
fn market() -> TempDir {
    let dir = folder();
    let mut words = Words(7);
    let (colours, materials) = (["red", "blue", "green", "white"], ["oak", "brass", "linen", "glass"]);
    let shelves =
        ["House > Lamps", "House > Chairs", "Garden > Pots", "Garden > Tools", "Wear > Hats", "Wear > Scarves"];
    let mut csv = "sku,name,path,colour,material,series,style,maker\n".to_owned();
    for n in 0..180 {
        let (colour, material) = (colours[words.below(4)], materials[words.below(4)]);
        let (maker, series, style) = (words.word(), words.words(2), words.word());
        // A title says no more than the other columns, so that it can be written from them.
        let shelf = shelves[n % 6];
        let thing = shelf.rsplit(' ').next().unwrap_or_default().trim_end_matches('s').to_lowercase();
        let name = format!("{maker} {series} {thing} {colour} {style} {material}");
        let _ = writeln!(csv, "{n},{name},{shelf},{colour},{material},{series},{style},{maker}");
    }
    let review = |n: usize| {
        let rate = 1 + n % 5;
        let mood = ["dreadful", "poor", "middling", "good", "splendid"][rate - 1];
        json!({ "body": format!("The {} is {mood}. We took it to {} and {}.", words.word(), words.words(4), words.words(6)), "rate": rate })
    };
    let reviews: Vec<Value> = (0..300).map(review).collect();
    fs::write(dir.path().join("products.csv"), csv).unwrap();
    fs::write(dir.path().join("reviews.jsonl"), lines(&reviews)).unwrap();
    fs::write(dir.path().join("market.toml"), RECIPE).unwrap();
    dir
}

#[test]
fn own_tables_become_checked_data_for_any_number_of_threads() {
    let dir = market();
    let dir = dir.path();
    let one = ecom(dir, "--threads 1 data build market.toml --output one").ok();
    ecom(dir, "--threads 2 data build market.toml --output two").ok();
    assert_eq!(tree(&dir.join("one")), tree(&dir.join("two")));
    let manifest = read_json(&dir.join("one/manifest.json"));
    let sum = manifest["files"][0]["sha256"].as_str().unwrap();
    assert_eq!(sum, sha256(&dir.join("one/train.jsonl")));
    for part in ["instructions of", "languages  en", "firewall   raw rows left out", "gates      ", sum] {
        assert!(one.out.contains(part), "no {part:?} in\n{}", one.out);
    }
    let card = fs::read_to_string(dir.join("one/README.md")).unwrap();
    assert!(card.contains("CC0-1.0") && card.contains(sum), "{card}");
    let other = ecom(dir, "data build market.toml --seed 6 --cap 20 --output other").ok();
    assert!(!other.out.contains(sum));
    for size in [1, 150, 211] {
        edit(dir, "seed = 5", &format!("seed = 5\nsize = {size}"));
        ecom(dir, "data build market.toml --output small --overwrite").ok();
        edit(dir, &format!("\nsize = {size}"), "");
        assert_eq!(read_json(&dir.join("small/manifest.json"))["instructions"], size);
        assert_eq!(fs::read_to_string(dir.join("small/train.jsonl")).unwrap().lines().count(), size);
    }
    assert_eq!(read_json(&dir.join("other/manifest.json"))["seed"], 6);
    // The recipe that is kept builds the same from where it is.
    ecom(dir, "data build other/recipe.toml --output again").ok();
    assert_eq!(sha256(&dir.join("again/train.jsonl")), sha256(&dir.join("other/train.jsonl")));
    let temporaries: Vec<_> =
        tree(dir).into_keys().filter(|name| name.contains(".tmp-") || name.contains(".spool")).collect();
    assert!(temporaries.is_empty(), "{temporaries:?}");

    let checked = ecom(dir, "data check one").ok();
    assert!(checked.out.ends_with("all 15 checks passed\n"), "{}", checked.out);
    assert!(!checked.out.contains("FAILED") && checked.out.contains("overlap        ok"), "{}", checked.out);
    let details = ecom(dir, "data check one --details").ok();
    assert!(details.out.contains("F12 guestbook en: constant"), "{}", details.out);
}

#[test]
fn checks_that_fail_end_with_code_2() {
    let dir = market();
    let dir = dir.path();
    ecom(dir, "data build market.toml --output data").ok();
    let path = dir.join("data/train.jsonl");
    let mut rows = json_lines(&fs::read_to_string(&path).unwrap());
    rows[3]["output"] = "moonshine".into();
    fs::write(&path, lines(&rows)).unwrap();
    let ran = ecom(dir, "data check data");
    assert_eq!(ran.code, Some(2), "{}", ran.out);
    assert!(!ran.err.contains("error:"), "{}", ran.err);
    assert!(
        ran.out.contains("manifest       FAILED") && ran.out.contains("train.jsonl:4: \"moonshine\""),
        "{}",
        ran.out
    );
    let ran = ecom(dir, "data check data --json");
    assert_eq!(ran.code, Some(2));
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["passed"], false);
    let failed =
        |name: &str| report["checks"].as_array().unwrap().iter().any(|c| c["name"] == name && c["passed"] == false);
    assert!(failed("manifest") && failed("round trip") && !failed("schema"), "{}", ran.out);
}

#[test]
fn a_skipped_task_is_left_out_of_training_alone() {
    let dir = market();
    let dir = dir.path();
    let recipe = fs::read_to_string(dir.join("market.toml")).unwrap();
    let skipping = recipe.replace("name = \"guestbook\"\n", "name = \"guestbook\"\nskip = [\"F12\"]\n");
    assert_ne!(recipe, skipping);
    fs::write(dir.join("market.toml"), skipping).unwrap();
    ecom(dir, "data build market.toml --output data").ok();
    let rows = |file: &str| json_lines(&fs::read_to_string(dir.join("data").join(file)).unwrap());
    assert!(rows("train.jsonl").iter().all(|r| r["task"] != "F12" || r["source"] != "guestbook"));
    assert!(rows("train.jsonl").iter().any(|r| r["source"] == "guestbook"));
    let held = rows("heldout/guestbook-mood.jsonl");
    assert!(held.len() >= 10 && held.iter().all(|r| r["id"].as_str().is_some_and(|id| id.starts_with("F12:"))));
    ecom(dir, "data check data").ok();
}

#[test]
fn data_is_counted_shown_and_traced() {
    let dir = market();
    let dir = dir.path();
    ecom(dir, "data build market.toml --output data").ok();
    let rows = json_lines(&fs::read_to_string(dir.join("data/train.jsonl")).unwrap());

    let stats = ecom(dir, "data stats data").ok();
    for part in ["by task", "F12", "guestbook", "answers, in characters", "heldout/guestbook-mood.jsonl"] {
        assert!(stats.out.contains(part), "no {part:?} in\n{}", stats.out);
    }
    let stats: Value = serde_json::from_str(&ecom(dir, "data stats data --json").ok().out).unwrap();
    assert_eq!(stats["instructions"], rows.len());
    let mood = rows.iter().filter(|r| r["task"] == "F12").count();
    assert_eq!(stats["task"]["F12"], mood);

    let shown = ecom(dir, "data show data --task F12 --source guestbook --lang en -n 2 --seed 3").ok();
    assert_eq!(shown.out.matches("━━ F12:guestbook/").count(), 2, "{}", shown.out);
    for part in ["── prompt\n", "── response\n", "── gold\n{\"labels\":[", "template F12-en-", "### Response:"]
    {
        assert!(shown.out.contains(part), "no {part:?} in\n{}", shown.out);
    }
    let first = ecom(dir, "data show data -n 1").ok();
    assert!(first.out.contains(rows[0]["id"].as_str().unwrap()), "{}", first.out);
    ecom(dir, "data show data --task F99").refused(2, "no instruction is like that");

    for row in [&rows[0], rows.iter().find(|r| r["task"] == "F12").unwrap()] {
        let id = row["id"].as_str().unwrap();
        let story = ecom(dir, &format!("data trace data '{id}'")).ok();
        let wanted = [
            id,
            "licence CC0-1.0",
            "raw row ",
            "this row is on the training side",
            "firewall: ",
            "unit: ",
            "written: train.jsonl:",
            "made again: from this row, word for word",
        ];
        for part in wanted {
            assert!(story.out.contains(part), "no {part:?} in\n{}", story.out);
        }
    }
    let raw = dir.join("products.csv");
    fs::write(&raw, fs::read_to_string(&raw).unwrap().replace("red", "pink")).unwrap();
    let changed = rows
        .iter()
        .find(|r| r["id"].as_str().unwrap().starts_with("F07:stall") && r["input"].to_string().contains("red"));
    let changed = changed.unwrap()["id"].as_str().unwrap();
    let story = ecom(dir, &format!("data trace data '{changed}'"));
    assert_eq!(story.code, Some(2), "{}{}", story.out, story.err);
    assert!(story.out.contains("made again: with another "), "{}", story.out);
    ecom(dir, "data trace data F12:guestbook/reviews.jsonl:9999").refused(2, "reviews.jsonl:9999");
    ecom(dir, "data trace data nonsense").refused(2, "wanted an instruction id");

    let tasks = ecom(dir, "data tasks data").ok();
    assert_eq!(tasks.out.lines().count(), 104);
    let line = |id: &str| tasks.out.lines().find(|l| l.starts_with(id)).unwrap().to_owned();
    assert!(line("F12").contains("guestbook en "), "{}", line("F12"));
    assert!(line("F26").contains("no source has the annotation it needs"), "{}", line("F26"));
    assert_eq!(ecom(dir, "data tasks").ok().out.lines().count(), 104);
}

#[test]
fn data_comes_in_other_forms() {
    let dir = market();
    let dir = dir.path();
    for (form, keys) in [("alpaca", vec!["id", "instruction", "input", "output"]), ("messages", vec!["id", "messages"])]
    {
        ecom(dir, &format!("data build market.toml --output {form} --format {form}")).ok();
        let rows = json_lines(&fs::read_to_string(dir.join(form).join("train.jsonl")).unwrap());
        assert_eq!(rows[0].as_object().unwrap().keys().collect::<Vec<_>>(), keys);
        ecom(dir, &format!("data check {form}")).ok();
        ecom(dir, &format!("inspect {form}/train.jsonl")).ok();
        let traced = ecom(dir, &format!("data trace {form} '{}'", rows[0]["id"].as_str().unwrap())).ok();
        assert!(traced.out.contains("made again: from this row, word for word"), "{}", traced.out);
    }
    ecom(dir, "data build market.toml --output table --format parquet").ok();
    let parquet = fs::read(dir.join("table/train.parquet")).unwrap();
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    ecom(dir, "data stats table").refused(2, "found train.parquet");
    ecom(dir, "data check table").refused(2, "found train.parquet");
}

#[test]
fn an_earlier_build_is_replaced_only_where_asked() {
    let dir = market();
    let dir = dir.path();
    fs::create_dir(dir.join("data")).unwrap();
    fs::write(dir.join("data/notes.txt"), "mine").unwrap();
    let before = tree(dir);
    ecom(dir, "data build market.toml --output data").refused(2, "data is not empty: replace it with --overwrite");
    assert_eq!(tree(dir), before);
    // Said before any work: this recipe's files are not even looked for.
    fs::write(dir.join("poor.toml"), RECIPE.replace("products.csv", "none.csv")).unwrap();
    fs::write(dir.join("taken"), "mine").unwrap();
    let before = tree(dir);
    for flags in ["", "--overwrite"] {
        ecom(dir, &format!("data build poor.toml --output taken {flags}")).refused(2, "taken: wanted a folder");
    }
    ecom(dir, "data build poor.toml --output taken/data").refused(4, "taken");
    assert_eq!(tree(dir), before);
    // Not a build: the notes stay. Nor is what is read from.
    ecom(dir, "data build market.toml --output data --overwrite").refused(2, "a folder without manifest.json");
    assert_eq!(tree(dir), before);
    fs::remove_file(dir.join("data/notes.txt")).unwrap();
    ecom(dir, "data build market.toml --output data").ok();
    fs::copy(dir.join("market.toml"), dir.join("data/market.toml")).unwrap();
    ecom(dir, "data build data/market.toml --data . --output data --overwrite").refused(2, "is read from");
    // Nothing but the build is thrown away.
    let before = tree(dir);
    ecom(dir, "data build market.toml --output data --overwrite").refused(2, "data/market.toml: not of the build that");
    assert_eq!(tree(dir), before);
    fs::remove_file(dir.join("data/market.toml")).unwrap();
    ecom(dir, "data build market.toml --output data --overwrite --seed 6").ok();
    assert_eq!(read_json(&dir.join("data/manifest.json"))["seed"], 6);
    fs::create_dir(dir.join("thesis")).unwrap();
    fs::write(dir.join("thesis/manifest.json"), "{\"name\": \"mine\"}").unwrap();
    ecom(dir, "data build market.toml --output thesis --overwrite")
        .refused(2, "thesis/manifest.json: wanted the manifest of a build");
    assert!(dir.join("thesis/manifest.json").is_file());
}

#[test]
fn bad_rows_are_located_and_a_source_needs_a_good_one() {
    let dir = market();
    let dir = dir.path();
    let csv = fs::read_to_string(dir.join("products.csv")).unwrap();
    fs::write(dir.join("products.csv"), format!("{csv}short,row\n")).unwrap();
    let ran = ecom(dir, "data build market.toml --output data").ok();
    let line = csv.lines().count() + 1;
    let told = format!("stall: 1 bad rows left out; first stall/products.csv:{line}: ");
    assert!(ran.err.contains(&told), "no {told:?} in {}", ran.err);
    fs::write(dir.join("reviews.jsonl"), "no\nnor this\n").unwrap();
    let none =
        "source \"guestbook\": wanted at least one good row, found 2 bad ones; first guestbook/reviews.jsonl:1: ";
    ecom(dir, "data build market.toml --output none").refused(2, none);
    fs::write(dir.join("reviews.jsonl"), "").unwrap();
    ecom(dir, "data build market.toml --output none").refused(2, "found 0 bad ones; its files hold no row");
    assert!(!dir.join("none").exists());
}

#[test]
fn ids_that_stand_for_two_things_are_bad_rows() {
    let dir = market();
    let dir = dir.path();
    for part in ["a", "b"] {
        fs::create_dir(dir.join(part)).unwrap();
        let row = |n: usize| json!({ "body": format!("The {part} lamp number {n} is fine for us."), "rate": 5 - 4 * (n % 2) });
        fs::write(dir.join(part).join("r.jsonl"), lines(&(0..200).map(row).collect::<Vec<_>>())).unwrap();
    }
    edit(dir, "[\"reviews.jsonl\"]", "[\"a/r.jsonl\", \"b/r.jsonl\"]");
    let sku = fs::read_to_string(dir.join("products.csv")).unwrap();
    let (header, row) = (sku.lines().next().unwrap(), sku.lines().nth(1).unwrap());
    let other = row.replacen(row.split(',').nth(1).unwrap(), "Another name", 1);
    fs::write(dir.join("products.csv"), format!("{}\n{other}\n", sku.trim_end())).unwrap();
    assert!(header.starts_with("sku,name"), "{header}");
    ecom(dir, "data build market.toml --output data").ok();
    let manifest = read_json(&dir.join("data/manifest.json"));
    let of = |name: &str| manifest["sources"].as_array().unwrap().iter().find(|s| s["name"] == name).unwrap().clone();
    assert_eq!((of("guestbook")["records"].as_u64(), of("guestbook")["bad_rows"].as_u64()), (Some(400), Some(0)));
    assert_eq!(of("stall")["bad_rows"], 1);
    assert!(of("stall")["first_bad_rows"][0].as_str().unwrap().contains("is there already, with another text"));
}

#[test]
fn mistakes_in_a_recipe_are_named() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage, &str); 10] = [
        ("market.toml", |d| edit(d, "seed = 5", "sed = 5"), "market.toml:2: unknown key `sed`; did you mean `seed`?"),
        ("market.toml", |d| edit(d, "brand = \"maker\"", "brnd = \"maker\""), "did you mean `brand`?"),
        ("market.toml", |d| edit(d, "task = \"F12\"", "task = \"F77\""), "found \"F77\""),
        (
            "market.toml",
            |d| edit(d, "source = 1.0", "source = 1.0\nparadigm = { CLZ = 1.0 }"),
            "market.toml: shares.paradigm: wanted names out of CLS, EXT, GEN, OTH, found \"CLZ\"",
        ),
        ("market.toml", |d| edit(d, "\"stall\"\nlicence", "\"stal\"\nlicence"), "no source \"stall\" in the recipe"),
        ("market.toml", |d| edit(d, "body\"", "boddy\""), "boddy"),
        ("market.toml", |d| edit(d, "cap = 80", "cap = \"all\""), "market.toml:3: invalid type"),
        ("market.toml", |d| edit(d, "products.csv", "wares.csv"), "wares.csv"),
        (
            "market.toml",
            |d| edit(d, "cap = 80\nfloor = 10", "cap = 0\nfloor = 100000"),
            "no unit reached the floor of 100000",
        ),
        ("nothing.toml", |_| {}, "nothing.toml: cannot read"),
    ];
    for (recipe, damage, says) in cases {
        let dir = market();
        let dir = dir.path();
        damage(dir);
        let before = tree(dir);
        ecom(dir, &format!("data build {recipe} --output data")).refused(2, says);
        assert_eq!(tree(dir), before, "{says}: something was left");
    }
    let dir = folder();
    ecom(dir.path(), "data build --data . --output data").refused(2, "raw");
    ecom(dir.path(), "data check none").refused(2, "none: ");
}

#[test]
fn what_is_no_data_is_refused_on_one_line() {
    let dir = market();
    let dir = dir.path();
    ecom(dir, "data build market.toml --output data").ok();
    let id =
        json_lines(&fs::read_to_string(dir.join("data/train.jsonl")).unwrap())[0]["id"].as_str().unwrap().to_owned();
    let noise: Vec<u8> = (0..4000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(dir.join("noise.jsonl"), &noise).unwrap();
    fs::write(dir.join("empty.jsonl"), "").unwrap();
    fs::create_dir(dir.join("tool")).unwrap();
    fs::write(dir.join("tool/train.jsonl"), lines(&rows(3))).unwrap();
    fs::write(dir.join("tool/manifest.json"), "{\"name\": \"a package\"}").unwrap();
    for (line, says) in [
        ("data stats empty.jsonl", "empty.jsonl: wanted instructions, found none"),
        ("data show empty.jsonl", "empty.jsonl: wanted instructions, found none"),
        ("data stats noise.jsonl", "noise.jsonl:1: invalid UTF-8"),
        ("data show noise.jsonl", "noise.jsonl:1: invalid UTF-8"),
        ("data trace none F12:a/b:1", "none: cannot read"),
        ("data trace empty.jsonl F12:a/b:1", "empty.jsonl: wanted data that `ecom data build` made"),
        ("data trace tool F12:a/b:1", "wanted the recipe that built the data, found none; name it with --recipe"),
        ("data trace tool F12:a/b:1 --recipe market.toml", "tool/manifest.json: wanted the manifest of a build"),
        ("data tasks tool", "tool/manifest.json: wanted the manifest of a build"),
        ("data trace data F12:stall/none", "stall: no row \"stall/none\""),
        ("data trace data 'F12:\u{1b}[31m'", "no source of the recipe has the raw row"),
        ("data build market.toml --output new --cap 1", "cap: wanted 0 or at least the floor of 10, found 1"),
    ] {
        ecom(dir, line).refused(2, says);
    }
    let failed = |path: &str, says: &str| {
        let ran = ecom(dir, &format!("data check {path}"));
        assert!(ran.code == Some(2) && ran.out.contains("FAILED") && ran.out.contains(says), "{}{}", ran.out, ran.err);
        assert!(!ran.err.contains("panicked"), "{}", ran.err);
    };
    failed("empty.jsonl", "empty.jsonl: wanted instructions, found none");
    failed("noise.jsonl", "noise.jsonl:1: invalid UTF-8");
    failed("tool", "wanted the manifest of a build");
    for part in ["heldout", "heldout-paraphrase", "heldout/stall-titles.jsonl", "train.jsonl"] {
        ecom(dir, &format!("data check data/{part}")).ok();
    }
    // Cut off in the middle of a row: what is there is still traced.
    let whole = fs::read(dir.join("data/train.jsonl")).unwrap();
    fs::write(dir.join("data/train.jsonl"), &whole[..=whole.len() / 2]).unwrap();
    failed("data", "broken JSON");
    ecom(dir, "data stats data").refused(2, "broken JSON");
    ecom(dir, &format!("data trace data '{id}'")).ok();
    fs::write(dir.join("data/train.jsonl"), &noise).unwrap();
    ecom(dir, &format!("data trace data '{id}'")).refused(2, "train.jsonl: ");
}

#[test]
fn the_demo_is_built_as_any_data_and_trained_on() {
    let dir = folder();
    let dir = dir.path();
    let run = "train --threads 1 --seed 3 --output demo --hidden 16 --layers 1 --heads 2 --vocab 600 --steps 3 --save-every 0";
    let ran = ecom(dir, run).ok();
    for part in ["en-brand ", "zh-intent ", "\nSeen tasks: ", "\nUnseen tasks: ", "Some answers:"] {
        assert!(ran.out.contains(part), "no {part:?} in\n{}", ran.out);
    }
    assert_eq!(fs::read_to_string(dir.join("demo/report.txt")).unwrap(), ran.out);
    let checked = ecom(dir, "data check demo/data").ok();
    assert!(checked.out.ends_with("all 15 checks passed\n"), "{}", checked.out);
    ecom(dir, "data build --seed 3 --output again").ok();
    assert_eq!(tree(&dir.join("demo/data")), tree(&dir.join("again")));
    let row = &json_lines(&fs::read_to_string(dir.join("again/train.jsonl")).unwrap())[0];
    let story = ecom(dir, &format!("data trace again '{}'", row["id"].as_str().unwrap())).ok();
    assert!(story.out.contains("written: train.jsonl:1\n"), "{}", story.out);
    // Another's folder is not taken for the demo's.
    fs::create_dir_all(dir.join("mine/data")).unwrap();
    fs::write(dir.join("mine/data/notes.txt"), "mine").unwrap();
    ecom(dir, &run.replace("demo", "mine")).refused(2, "is there and not the demo's");
    assert!(dir.join("mine/data/notes.txt").is_file());
}

fn edit(dir: &Path, from: &str, to: &str) {
    let path = dir.join("market.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
}
