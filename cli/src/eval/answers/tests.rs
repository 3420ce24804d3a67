#![allow(clippy::unwrap_used)] // how a test fails

use std::sync::LazyLock;

use bloom::Config;
use clap::Parser;
use ecominstruct::eval_set::from_instructions;
use ecominstruct::instruction::{Instruction, Lang, Paradigm};

use super::*;

const TEXTS: [&str; 5] = [
    "Aro red wool scarf, 30 x 180 cm (hand-made), red & soft",
    "Title: Bex blue lamp\nA lamp, blue, with 2 bulbs: it's nice.",
    "纯棉圆领T恤，女款 夏季, 红色 350ml×2 纯棉",
    "naïve café 🙂👍🏽 mug\n\n  green, black or blue",
    "Nonesuch of these, a None",
];

static TEXT: LazyLock<Text> = LazyLock::new(|| {
    let texts = (0..60).flat_map(|i| TEXTS.iter().map(move |t| format!("{t} {i} None Brand: red, blue")));
    Text::train(texts, 420).unwrap()
});

#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    decoding: DecodingArgs,
}

fn decoding(flags: &str) -> DecodingArgs {
    Settings::try_parse_from(std::iter::once("ecom").chain(flags.split_whitespace())).unwrap().decoding
}

/// A set for each form, with an item for each text.
fn sets() -> Vec<EvalSet> {
    let words = |text: &str, n: usize| {
        let words: Vec<&str> = text.split([' ', '\n', ',', '，']).filter(|w| !w.is_empty()).take(n).collect();
        words.join(", ")
    };
    let mut rows = Vec::new();
    for (i, text) in TEXTS.iter().enumerate() {
        let colours = ["red", "red and blue", "blue", "绿色", "no colour, or none"].map(String::from).to_vec();
        let row = |task: &str, paradigm, candidates: &[String], prompt: &str, output: String| Instruction {
            id: format!("{task}-{i}"),
            task: task.into(),
            paradigm,
            lang: Lang::En,
            prompt: prompt.into(),
            input: (*text).into(),
            candidates: candidates.to_vec(),
            output,
            ..Instruction::default()
        };
        let types = ["Brand", "颜色", "Size"].map(String::from);
        rows.extend([
            row("one", Paradigm::Cls, &colours, "Which?", colours[i].clone()),
            row("several", Paradigm::Cls, &colours[..4], "Which ones?", colours[i % 2..3].join(", ")),
            row("span", Paradigm::Ext, &[], "Copy one.", words(text, 1)),
            row("spans", Paradigm::Ext, &[], "Copy some.", words(text, 1 + i % 2)),
            row("or-none", Paradigm::Ext, &[], "Copy some or write None.", words(text, 1 + i % 2)),
            row("types", Paradigm::Oth, &types, "List them.", format!("Brand: None\n颜色: {}", words(text, 2))),
            row("text", Paradigm::Gen, &[], "Say something.", "Something.".into()),
        ]);
    }
    from_instructions(&rows).unwrap()
}

fn form(name: &str) -> Form {
    match name.rsplit_once('-').unwrap().0 {
        "one" => Form::One,
        "several" => Form::Several,
        "span" => Form::Span,
        "spans" | "or-none" => Form::Spans,
        "types" => Form::Typed,
        _ => Form::Free,
    }
}

/// Whether this is a span of the text: no word is cut.
fn is_span(text: &str, span: &str) -> bool {
    let inner = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() && !('\u{4e00}'..='\u{9fff}').contains(&c));
    !span.is_empty()
        && span.trim() == span
        && !span.contains('\n')
        && text.match_indices(span).any(|(at, _)| {
            let (before, after) = (text[..at].chars().last(), text[at + span.len()..].chars().next());
            let (first, last) = (span.chars().next(), span.chars().last());
            !(inner(before) && inner(first) || inner(last) && inner(after))
        })
}

fn is_list(text: &str, list: &str) -> bool {
    is_span(text, list)
        || list.match_indices(", ").any(|(at, _)| is_span(text, &list[..at]) && is_list(text, &list[at + 2..]))
}

fn is_value(text: &str, value: &str) -> bool {
    value == "None" || is_list(text, value)
}

/// Whether an answer has its set's form, found out in another way than the one that makes it so.
fn keeps(set: &EvalSet, item: &EvalItem, answer: &str) -> bool {
    let (text, labels) = (item.text.as_str(), &item.candidates);
    match set.name.rsplit_once('-').unwrap().0 {
        "one" => labels.iter().any(|l| l == answer),
        "several" => {
            let named: Vec<&str> = answer.split(", ").collect();
            let distinct = named.iter().enumerate().all(|(i, n)| !named[..i].contains(n));
            distinct && named.iter().all(|n| labels.iter().any(|l| l == n))
        }
        "span" => is_span(text, answer),
        "spans" => is_list(text, answer),
        "or-none" => is_value(text, answer),
        _ => {
            let kinds: Option<Vec<usize>> = answer
                .split('\n')
                .map(|line| {
                    let (kind, value) = line.split_once(": ")?;
                    is_value(text, value).then(|| labels.iter().position(|l| l == kind))?
                })
                .collect();
            kinds.is_some_and(|kinds| !kinds.is_empty() && kinds.is_sorted_by(|a, b| a < b))
        }
    }
}

fn model(seed: u64) -> Bloom {
    Bloom::random(Config::new(32, 1, 4, TEXT.len()).unwrap(), seed).unwrap()
}

#[test]
fn the_form_of_a_set_follows_from_its_items() {
    for set in sets() {
        assert_eq!(Form::of(&set), form(&set.name), "{}", set.name);
    }
    // Answers that are not copied have no spans to be.
    let mut named = sets().into_iter().find(|s| s.name == "types-en").unwrap();
    named.items.iter_mut().for_each(|item| item.text = "elsewhere".into());
    assert_eq!(Form::of(&named), Form::Free);
}

#[test]
fn constrained_answers_have_the_form_of_their_set() {
    let sets: Vec<EvalSet> = sets().into_iter().filter(|s| form(&s.name) != Form::Free).collect();
    let ways: Vec<(Decode, Form)> = sets.iter().map(|s| (Decode::Constrained, Form::of(s))).collect();
    let (mut different, mut lucky, mut all) = (std::collections::BTreeSet::new(), 0, 0);
    for seed in 0..12 {
        let model = model(seed);
        for flags in
            ["", "--temperature 1.5", "--temperature 1 --repetition-penalty 1.3", "--max-new-tokens 40 --top-k 5"]
        {
            let decoding = decoding(&format!("--seed {seed} --batch 4 {flags}"));
            let answering = Answering { model: &model, text: &TEXT, decoding: &decoding, prompt_tokens: 800 };
            let answers = answering.answer(&sets, &ways).unwrap();
            for (set, answers) in sets.iter().zip(&answers) {
                for (item, answer) in set.items.iter().zip(answers) {
                    assert!(
                        keeps(set, item, answer),
                        "{}, seed {seed} {flags}: {answer:?} to {:?}",
                        set.name,
                        item.text
                    );
                    different.insert(answer.clone());
                }
            }
            if flags.contains("1.5") {
                let free = answering.freely(&sets).unwrap();
                let kept =
                    sets.iter().zip(&free).flat_map(|(s, a)| s.items.iter().zip(a).map(move |(i, a)| keeps(s, i, a)));
                let kept: Vec<bool> = kept.collect();
                all += kept.len();
                lucky += kept.iter().filter(|k| **k).count();
            }
        }
    }
    assert!(different.len() > 200, "{} different answers", different.len());
    assert!(100 * lucky < all, "{lucky} of {all} free answers have the form: these models show nothing");
}

/// What the model was not shown is no answer.
#[test]
fn spans_are_of_what_is_left_of_a_long_text() {
    let mut sets: Vec<EvalSet> = sets().into_iter().filter(|s| s.name.starts_with("span")).collect();
    for set in &mut sets {
        for item in &mut set.items {
            let rest: String = (0..40).fold(String::new(), |rest, i| rest + &format!(" w{i}é"));
            let long = format!("{}{rest}", item.text);
            item.prompt = item.prompt.replacen(&item.text, &long, 1);
            item.text = long;
        }
    }
    let ways: Vec<(Decode, Form)> = sets.iter().map(|s| (Decode::Constrained, form(&s.name))).collect();
    let decoding = decoding("--temperature 2");
    for (seed, prompt_tokens) in (0..8).zip([60, 61, 62, 63, 64, 65, 66, 67]) {
        let model = model(seed);
        let answering = Answering { model: &model, text: &TEXT, decoding: &decoding, prompt_tokens };
        for (set, answers) in sets.iter().zip(answering.answer(&sets, &ways).unwrap()) {
            for (item, answer) in set.items.iter().zip(answers) {
                let ids = TEXT.encode(&item.prompt).unwrap();
                let shown = TEXT.decode(&ids[ids.len() - prompt_tokens..]);
                assert!(!shown.contains(&item.text[..6]) && is_list(&shown, &answer), "{answer:?} of {shown:?}");
            }
        }
    }
}

#[test]
fn ranked_answers_are_the_likeliest() {
    let mut sets: Vec<EvalSet> = sets().into_iter().filter(|s| s.name.starts_with("one")).collect();
    // Of few tokens, as these models find all tokens about as likely.
    let labels = ["ab", "a", "b", "c", "d", "cd", "\u{e9}"].map(String::from);
    sets[0].items.iter_mut().for_each(|item| item.candidates = labels.to_vec());
    let decoding = decoding("--batch 3");
    let mut chosen = std::collections::BTreeSet::new();
    for seed in 0..6 {
        let model = model(seed);
        let answering = Answering { model: &model, text: &TEXT, decoding: &decoding, prompt_tokens: 30 };
        let answers = answering.answer(&sets, &[(Decode::Rank, Form::One)]).unwrap();
        for (item, answer) in sets[0].items.iter().zip(&answers[0]) {
            // Each on its own, as training would have it.
            let score = |label: &String| {
                let prompt = TEXT.encode(&item.prompt).unwrap();
                let prompt = &prompt[prompt.len() - 30..];
                let response = [TEXT.encode(label).unwrap(), vec![TEXT.eos()]].concat();
                let ids = [prompt, &response[..response.len() - 1]].concat();
                let rows: Vec<u32> = (29..ids.len() as u32).collect();
                let losses = model.losses(&ids, &[0, ids.len() as u32], &rows, &response).unwrap();
                losses.iter().fold(0.0, |sum, &loss| sum - f64::from(loss))
            };
            let best = item.candidates.iter().map(score).fold(f64::NEG_INFINITY, f64::max);
            assert_eq!(score(answer), best, "{answer:?}");
            chosen.insert(answer.clone());
        }
    }
    assert!(chosen.len() > 1, "{chosen:?}");
}

/// All tokens are tried one by one, and none is left out or let in.
#[test]
fn a_walk_through_the_vocabulary_finds_what_all_tokens_tried_apart_do() {
    let vocabulary = Vocabulary::new(&TEXT);
    let bytes = |id: u32| {
        let mut stream = Vec::new();
        TEXT.push_bytes(id, &mut stream);
        stream
    };
    for set in sets().iter().filter(|s| matches!(form(&s.name), Form::Span | Form::Spans | Form::Typed)) {
        for item in &set.items {
            let shape = Shape::new(form(&set.name), set, item, 0);
            let begun = [String::new(), item.answer_beginning(3), item.answer_beginning(usize::MAX)];
            for (answer, left) in begun.iter().flat_map(|b| [(b, 1), (b, 5), (b, 200)]) {
                let ids = TEXT.encode(answer).unwrap();
                let found = vocabulary.next(&TEXT, &shape, &ids, left);
                let before = answer.bytes().fold(shape.begin(), |r, byte| shape.step(&r, byte));
                let apart = (0..TEXT.len() as u32).filter(|&id| {
                    if id == TEXT.eos() {
                        return !answer.is_empty() && shape.rest(&before) == Some(0);
                    }
                    let after = bytes(id).into_iter().fold(before.clone(), |r, byte| shape.step(&r, byte));
                    !bytes(id).is_empty() && shape.rest(&after).is_some_and(|rest| rest < left)
                });
                assert_eq!(found, apart.collect::<Vec<_>>(), "{}: {answer:?}, {left} left", set.name);
            }
        }
    }
}

trait Beginning {
    fn answer_beginning(&self, chars: usize) -> String;
}

impl Beginning for EvalItem {
    fn answer_beginning(&self, chars: usize) -> String {
        self.gold.chars().take(chars).collect()
    }
}
