//! Both scorers on any strings at all, and the strict one on answers whose score is plain to see.

// The lint table spares `#[test]` functions, but not the functions they call.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

use ecominstruct::baseline::{Policy, predict};
use ecominstruct::eval_set::{EvalSet, SetKind, from_instructions, read};
use ecominstruct::instruction::{Entity, Gold, Instruction, Lang, Paradigm};
use ecominstruct::score::legacy::{self, Answered, score_answers};
use ecominstruct::score::strict::{self, Detail};
use proptest::prelude::*;

const KINDS: [SetKind; 5] =
    [SetKind::Cls, SetKind::Extract, SetKind::ConditionExtract, SetKind::Ner, SetKind::Generate];

fn row(paradigm: Paradigm, input: &str, candidates: &[&str], output: &str, gold: Option<Gold>) -> Instruction {
    Instruction {
        task: "T".into(),
        paradigm,
        lang: Lang::detect(input),
        prompt: "?".into(),
        input: input.into(),
        candidates: candidates.iter().map(|c| (*c).to_owned()).collect(),
        output: output.into(),
        gold,
        ..Instruction::default()
    }
}

fn one_set(rows: &[Instruction]) -> EvalSet {
    let mut sets = from_instructions(rows).unwrap();
    assert_eq!(sets.len(), 1);
    sets.remove(0)
}

fn close(found: f64, wanted: f64) {
    assert!((found - wanted).abs() < 1e-9, "{found} is not {wanted}");
}

#[test]
fn single_labels() {
    let labels = ["yes", "no", "perhaps"];
    let set = one_set(&[
        row(Paradigm::Cls, "a", &labels, "yes", None),
        row(Paradigm::Cls, "b", &labels, "yes", None),
        row(Paradigm::Cls, "c", &labels, "yes", None),
        row(Paradigm::Cls, "d", &labels, "no", None),
    ]);
    let scores = strict::score(&set, &["ＹＥＳ", " yes\n", "no", "maybe"]).unwrap();
    let Detail::Cls { accuracy, macro_f1, balanced_accuracy, invalid, .. } = scores.detail else { panic!() };
    // yes: p 1, r 2/3, F1 0.8; no: nothing right.
    close(accuracy, 50.0);
    close(macro_f1, 40.0);
    close(balanced_accuracy, 100.0 / 3.0);
    close(invalid, 25.0);
    assert_eq!((scores.headline, scores.headline_name), (macro_f1, "class-macro F1"));
    let constant = strict::score(&set, &["yes"; 4]).unwrap();
    let Detail::Cls { accuracy, balanced_accuracy, .. } = constant.detail else { panic!() };
    close(accuracy, 75.0);
    close(balanced_accuracy, 50.0);
}

#[test]
fn several_labels() {
    let labels = ["Food", "Price", "Service"];
    let set = one_set(&[
        row(Paradigm::Cls, "a", &labels, "Food, Price", None),
        row(Paradigm::Cls, "b", &labels, "Service", None),
    ]);
    assert_eq!(set.items[0].answer, Gold::Labels(vec!["Food".into(), "Price".into()]));
    let scores = strict::score(&set, &["price，food", "service, food"]).unwrap();
    let Detail::Cls { sample_f1, micro_f1, accuracy, .. } = scores.detail else { panic!() };
    close(sample_f1, 100.0 * (1.0 + 2.0 / 3.0) / 2.0);
    close(micro_f1, 100.0 * 2.0 * (3.0 / 4.0) / (3.0 / 4.0 + 1.0));
    close(accuracy, 50.0);
    assert_eq!(scores.headline_name, "sample F1");
}

#[test]
fn empty_predictions_score_nothing_and_are_counted() {
    for (paradigm, output) in
        [(Paradigm::Cls, "x"), (Paradigm::Ext, "None"), (Paradigm::Gen, "x"), (Paradigm::Oth, "T: x")]
    {
        let set = one_set(&[row(paradigm, "x y", &["x", "z"], output, None)]);
        for nothing in ["", " \n"] {
            let scores = strict::score(&set, &[nothing]).unwrap();
            assert_eq!((scores.headline, scores.empty), (0.0, 1), "{paradigm:?}");
        }
        assert_eq!(legacy::score(&set, &[""]).unwrap().empty, 1);
    }
}

#[test]
fn lists_answers_and_choices() {
    let spans = |s: &[&str]| Some(Gold::Spans(s.iter().map(|s| (*s).to_owned()).collect()));
    let set = one_set(&[
        row(Paradigm::Ext, "red red blue", &[], "red, red, blue", spans(&["red", "red", "blue"])),
        row(Paradigm::Ext, "nothing", &[], "None", spans(&[])),
        row(Paradigm::Ext, "green, dark", &[], "green, dark", spans(&["green, dark"])),
    ]);
    let scores = strict::score(&set, &["blue, red", "none", "green, dark"]).unwrap();
    close(scores.headline, 100.0 * (0.8 + 1.0 + 1.0) / 3.0);
    assert_eq!(scores.headline_name, "list F1");

    let answer = one_set(&[row(Paradigm::Ext, "It runs at 5 volts.", &[], "5 volts", spans(&["5 volts"]))]);
    let scores = strict::score(&answer, &["at 5 volts"]).unwrap();
    let Detail::Ext { exact, token_f1, .. } = scores.detail else { panic!() };
    close(exact, 0.0);
    close(token_f1, 80.0);
    assert_eq!(scores.headline_name, "token F1");

    let zh = one_set(&[row(Paradigm::Ext, "红色丝绸围巾", &[], "丝绸", spans(&["丝绸"]))]);
    close(strict::score(&zh, &["丝绸围"]).unwrap().headline, 80.0);

    let choice = one_set(&[row(Paradigm::Ext, "q", &["lamp, red", "chair"], "lamp, red", None)]);
    let scores = strict::score(&choice, &["lamp, red"]).unwrap();
    assert_eq!((scores.headline, scores.headline_name), (100.0, "exact match"));
}

#[test]
fn absent_types_earn_nothing() {
    let entity = |kind: &str, text: &str| Entity { kind: kind.into(), text: text.into() };
    let gold = Gold::Entities(vec![entity("Brand", "Acme"), entity("Colour", "red")]);
    let set = one_set(&[row(
        Paradigm::Oth,
        "Acme red lamp",
        &["Brand", "Colour", "Size"],
        "Brand: Acme\nColour: red\nSize: None",
        Some(gold),
    )]);
    let entity_f1 = |answer: &str| {
        let Detail::Oth { entity_f1, span_f1 } = strict::score(&set, &[answer]).unwrap().detail else { panic!() };
        (entity_f1, span_f1)
    };
    assert_eq!(entity_f1("Brand: None\nColour: None\nSize: None"), (0.0, 0.0));
    assert_eq!(entity_f1("Brand: ACME\nColour: red"), (100.0, 100.0));
    assert_eq!(entity_f1("Brand: red\nColour: Acme"), (0.0, 100.0));
    let constant = predict(&set, Policy::Constant).unwrap();
    assert_eq!(constant.predictions, ["Brand: None\nColour: None\nSize: None"]);
}

#[test]
fn generation_by_word_and_by_character() {
    let en = one_set(&[row(Paradigm::Gen, "brand Acme colour red", &[], "Acme red lamp", None)]);
    let scores = strict::score(&en, &["Acme lamp"]).unwrap();
    let Detail::Gen { rouge_l, length_ratio, faithfulness } = scores.detail else { panic!() };
    close(rouge_l, 80.0);
    close(length_ratio, 2.0 / 3.0);
    close(faithfulness, 50.0);
    let zh = one_set(&[row(Paradigm::Gen, "颜色#:#白", &[], "白色台灯", None)]);
    close(strict::score(&zh, &["白台灯"]).unwrap().headline, 100.0 * 2.0 * 0.75 / 1.75);
}

#[test]
fn records_become_sets_by_task_and_language() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [
        row(Paradigm::Gen, "English text", &[], "x", None),
        row(Paradigm::Gen, "中文", &[], "x", None),
        Instruction { task: "A".into(), ..row(Paradigm::Cls, "more", &["x", "y"], "y", None) },
    ];
    let lines: Vec<String> = rows.iter().map(|r| serde_json::to_string(r).unwrap()).collect();
    std::fs::write(folder.path().join("test.jsonl"), lines.join("\n")).unwrap();
    let sets = read(folder.path(), 0).unwrap();
    let names: Vec<&str> = sets.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["A-en", "T-en", "T-zh"]);
    assert_eq!(sets[0].labels, ["x", "y"]);

    std::fs::write(folder.path().join("test.jsonl"), "{}").unwrap();
    assert!(read(folder.path(), 0).unwrap_err().to_string().contains("test.jsonl:1: missing field `description`"));
    std::fs::write(folder.path().join("test.jsonl"), "\n").unwrap();
    assert!(read(folder.path(), 0).unwrap_err().to_string().contains("no evaluation items"));
    let mixed = [row(Paradigm::Gen, "a", &[], "x", None), row(Paradigm::Ext, "b", &[], "x", None)];
    assert!(from_instructions(&mixed).unwrap_err().to_string().contains("task T is EXT here and GEN before"));
}

#[test]
fn faulty_folders_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let task = folder.path().join("Shop/tasks/EN-Shop-CLS-colour");
    std::fs::create_dir_all(&task).unwrap();
    let meta = r####"{"defi":"colour","label_key":"en","label_set":{"en":["red","blue"]},"label_sep":", ",
        "test_prompt":{"instruction":"### Instruction:\n{sentences}\nOne of {label_set}. \n### Response:"}}"####;
    std::fs::write(task.join("meta-info.json"), meta).unwrap();
    let error = |test: &str| {
        std::fs::write(task.join("test.json"), test).unwrap();
        read(folder.path(), 0).unwrap_err().to_string()
    };
    let good = r#"{"sentences": "a {label_set} scarf", "labels": {"en": ["red"]}}"#;
    assert!(error(&format!("{good}\n{{")).contains("test.json:2: EOF"));
    assert!(
        error(r#"{"sentences": "x", "labels": {"zh": ["red"]}}"#)
            .contains("test.json:1: no labels under label_key \"en\"")
    );
    assert!(error("").contains("no evaluation items"));
    std::fs::write(task.join("test.json"), good).unwrap();
    let set = read(&task, 3).unwrap().remove(0);
    let shown = set.items[0].candidates.join(", ");
    assert_eq!(
        set.items[0].prompt,
        format!(
            "Here is an instruction for the colour task. Answer with a response that completes it.\n\
             ### Instruction:\na {{label_set}} scarf\nOne of {shown}. \n### Response:\n"
        )
    );
    std::fs::write(task.join("meta-info.json"), meta.replace("\"label_key\":\"en\"", "\"label_key\":\"fr\"")).unwrap();
    assert!(read(&task, 3).unwrap_err().to_string().contains("label_key \"fr\" names no label set"));
    std::fs::rename(&task, folder.path().join("Shop/tasks/colour")).unwrap();
    assert!(read(folder.path(), 0).unwrap_err().to_string().contains("LANG-DATASET-KIND-TASK"));
}

fn in_range(scores: &[f64]) -> bool {
    scores.iter().all(|s| (0.0..=100.0 + 1e-9).contains(s))
}

/// Strings with a good share of what answers are made of.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("None".to_owned()),
        Just(", ".to_owned()),
        Just(": ".to_owned()),
        Just("\n".to_owned()),
        Just(".".to_owned()),
        Just("红色".to_owned()),
        Just("red".to_owned()),
        "\\PC{0,6}",
        any::<String>(),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|p| p.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_strings_score_between_0_and_100(rows in proptest::collection::vec((text(), text(), text()), 0..6)) {
        for kind in KINDS {
            let answered: Vec<_> =
                rows.iter().map(|(t, g, p)| Answered { text: t, gold: g, prediction: p }).collect();
            let s = score_answers(kind, ", ", &answered);
            let all = [s.micro.p, s.micro.r, s.micro.f1, s.macro_.p, s.macro_.r, s.macro_.f1, s.rouge_l, s.accuracy.unwrap_or(0.0)];
            prop_assert!(in_range(&all), "{:?} {:?}", kind, s);
        }
        for paradigm in [Paradigm::Cls, Paradigm::Ext, Paradigm::Gen, Paradigm::Oth] {
            let records: Vec<_> = rows.iter().map(|(t, g, _)| row(paradigm, t, &[g, "red"], g, None)).collect();
            for set in from_instructions(&records).unwrap() {
                let predictions: Vec<_> = rows.iter().take(set.items.len()).map(|r| r.2.clone()).collect();
                let s = strict::score(&set, &predictions).unwrap();
                let all = match s.detail {
                    Detail::Cls { accuracy, macro_f1, balanced_accuracy, sample_f1, micro_f1, invalid } =>
                        vec![accuracy, macro_f1, balanced_accuracy, sample_f1, micro_f1, invalid],
                    Detail::Ext { list_f1, exact, token_f1 } => vec![list_f1, exact, token_f1],
                    Detail::Oth { entity_f1, span_f1 } => vec![entity_f1, span_f1],
                    Detail::Gen { rouge_l, faithfulness, length_ratio } => {
                        prop_assert!(length_ratio.is_finite() && length_ratio >= 0.0);
                        vec![rouge_l, faithfulness]
                    }
                };
                prop_assert!(in_range(&all) && in_range(&[s.headline]), "{:?} {:?}", paradigm, all);
                for policy in [Policy::Constant, Policy::Random { seed: 5 }, Policy::Lexical] {
                    if let Some(baseline) = predict(&set, policy) {
                        prop_assert_eq!(baseline.predictions.len(), set.items.len());
                    }
                }
            }
        }
    }
}
