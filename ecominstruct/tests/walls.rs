//! Leaks planted in rows, and rows that are none: the firewall on real text. The data is not part of this repository:
//! it is looked for at `$ECOM_DATA`, or else `../shared/data` beside the repository; without it these tests say so and
//! pass.

// The lint table spares `#[test]` functions, but not the functions they call.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use ecominstruct::eval_set::{EvalSet, read};
use ecominstruct::firewall::{Firewall, Hit, fields};
use ecominstruct::instruction::Lang;
use ecominstruct::score::parse::words;
use ecominstruct::splitmix::SplitMix;

fn data() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let data = std::env::var_os("ECOM_DATA").map_or_else(beside, PathBuf::from);
    if !data.join("ecominstruct_eval").is_dir() || !data.join("raw").is_dir() {
        eprintln!("SKIPPED: no data at {} (set ECOM_DATA)", data.display());
        return None;
    }
    Some(data)
}

/// All released texts, and a wall that holds them out.
fn wall(data: &Path) -> (Vec<EvalSet>, Firewall) {
    let sets = read(&data.join("ecominstruct_eval"), 0).unwrap();
    let mut wall = Firewall::new();
    for item in sets.iter().flat_map(|set| &set.items) {
        wall.add_with_fields(&item.text);
        wall.add(&item.gold);
    }
    (sets, wall)
}

/// The lines of a file, which `gzip` unpacks; `None` without file or `gzip`.
fn lines(path: &Path) -> Option<Vec<String>> {
    let unpacked = Command::new("gzip").arg("-dc").arg(path).output().ok().filter(|out| out.status.success());
    let Some(unpacked) = unpacked else {
        eprintln!("SKIPPED: cannot unpack {}", path.display());
        return None;
    };
    Some(String::from_utf8(unpacked.stdout).unwrap().lines().skip(1).map(str::to_owned).collect())
}

/// Jaccard similarity as the rules say, on text and not on hashes; the larger where two kinds of pieces count.
fn jaccard(a: &str, b: &str, lang: Lang) -> f64 {
    let of = |pieces: &dyn Fn(&[String]) -> BTreeSet<String>| {
        let (a, b) = (pieces(&words(a, lang)), pieces(&words(b, lang)));
        let both = a.intersection(&b).count();
        both as f64 / (a.len() + b.len() - both).max(1) as f64
    };
    let runs = |pieces: &[String], n: usize| pieces.windows(n).map(|run| run.join(" ")).collect::<BTreeSet<_>>();
    let length = words(a, lang).len();
    let (run, few, coarse) = if lang == Lang::En { (8, 20, 3) } else { (13, 33, 5) };
    let fine = |units: &[String]| match lang {
        Lang::En => runs(&units.join(" ").chars().map(String::from).collect::<Vec<_>>(), 3),
        Lang::Zh => runs(units, 1).into_iter().chain(runs(units, 2)).collect(),
    };
    let fine = if length < few { of(&fine) } else { 0.0 };
    let coarse = if length >= run { of(&|units| runs(units, coarse)) } else { 0.0 };
    fine.max(coarse)
}

/// Another word for one (English), another character for one (Chinese).
fn edited(text: &str, lang: Lang, rng: &mut SplitMix) -> String {
    let mut pieces: Vec<String> = match lang {
        Lang::En => text.split(' ').map(str::to_owned).collect(),
        Lang::Zh => text.chars().map(String::from).collect(),
    };
    let places: Vec<usize> = (0..pieces.len()).filter(|&i| pieces[i].chars().any(char::is_alphanumeric)).collect();
    pieces[places[rng.below(places.len())]] = if lang == Lang::En { "lantern".into() } else { "灯".into() };
    pieces.join(if lang == Lang::En { " " } else { "" })
}

fn wide(text: &str) -> String {
    let wide = |c: char| if c.is_ascii_graphic() { char::from_u32(u32::from(c) + 0xFEE0).unwrap_or(c) } else { c };
    text.chars().map(wide).collect()
}

fn swap_case(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect()
}

fn spaced(text: &str, lang: Lang) -> String {
    match lang {
        Lang::En => format!("  {}\t", text.replace(' ', " \u{3000} ")),
        Lang::Zh => text.chars().flat_map(|c| [c, ' ']).collect(),
    }
}

const AROUND: [(&str, &str); 2] = [
    (
        "My sister wanted something for her new kitchen and could not make up her mind until she wrote to me:",
        "That was in spring, and since then nobody has heard her complain about drawers, hooks or the wall.",
    ),
    ("邻居家的小朋友周末过来玩的时候顺口说起了这么一件事情，", "后来大家一边喝茶一边聊到很晚才各自回家休息。"),
];

#[test]
fn planted_leaks_are_caught() {
    let Some(data) = data() else { return };
    let (sets, wall) = wall(&data);
    let texts: BTreeSet<&str> = sets.iter().flat_map(|set| &set.items).flat_map(|i| fields(&i.text)).collect();
    let long_enough = |text: &&&str| {
        let lang = Lang::detect(text);
        words(text, lang).len() >= if lang == Lang::En { 4 } else { 8 }
    };
    let mut rng = SplitMix::new(20);
    let mut texts: Vec<&str> = texts.iter().filter(long_enough).copied().collect();
    rng.shuffle(&mut texts);
    // Half of them English, though most of the texts are Chinese.
    let of = |lang: Lang| texts.iter().copied().filter(move |text| Lang::detect(text) == lang).take(50);
    let texts: Vec<&str> = of(Lang::En).chain(of(Lang::Zh)).collect();
    assert_eq!(texts.len(), 100);

    let mut caught: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    let (mut similar, mut similar_caught) = (0, 0);
    for text in texts {
        let lang = Lang::detect(text);
        let edited = edited(text, lang, &mut rng);
        let mut rows = vec![
            ("copy", text.to_owned()),
            ("case", swap_case(text)),
            ("width", wide(text)),
            ("space", spaced(text, lang)),
            ("one word edited", edited.clone()),
        ];
        rows.extend(AROUND.map(|(before, after)| ("embedded", format!("{before} {text} {after}"))));
        for (kind, row) in rows {
            let hit = wall.check(&row).map_or("missed", Hit::name);
            *caught.entry(kind).or_default().entry(hit).or_default() += 1;
        }
        if jaccard(text, &edited, lang) >= 0.7 {
            similar += 1;
            similar_caught += usize::from(wall.check(&edited).is_some());
        }
    }
    println!("planted leaks: {caught:?}; of {similar} edits of similarity 0.7 or more {similar_caught} were caught");
    for kind in ["copy", "case", "width", "space", "embedded"] {
        assert_eq!(caught[kind].get("missed"), None, "{kind}");
    }
    assert!(similar >= 50 && similar_caught * 100 >= similar * 95, "{similar_caught} of {similar}");
    assert_eq!(caught["copy"].get("exact"), Some(&100));
}

#[test]
fn other_rows_pass() {
    let Some(data) = data() else { return };
    let (_, wall) = wall(&data);
    let raw = data.join("raw");
    let title = |line: &str| match line.strip_prefix('"') {
        Some(quoted) => quoted.split("\",").next().unwrap_or_default().to_owned(),
        None => line.split(',').next().unwrap_or_default().to_owned(),
    };
    for (file, text) in [
        ("waimai_reviews/waimai_10k.csv.gz", &(|line: &str| line[2..].to_owned()) as &dyn Fn(&str) -> String),
        ("womens_clothing_reviews/reviews_12k.csv.gz", &str::to_owned),
        ("home_depot_search/train_20k.csv.gz", &title),
    ] {
        let Some(lines) = lines(&raw.join(file)) else { continue };
        let mut lost: BTreeMap<&str, usize> = BTreeMap::new();
        lines
            .iter()
            .filter_map(|line| wall.check(&text(line)))
            .for_each(|hit| *lost.entry(hit.name()).or_default() += 1);
        println!("{file}: {} rows, lost {lost:?}", lines.len());
        assert!(lost.values().sum::<usize>() * 1000 < lines.len(), "{file}: {lost:?}");
    }
}
