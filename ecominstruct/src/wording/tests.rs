//! The wording file itself, and how drafts are put into it.

use std::collections::BTreeSet;

use super::*;
use crate::score::parse::normal;
use crate::task::{either, tasks};

fn placeholders(template: &str) -> BTreeSet<String> {
    template.split('{').skip(1).filter_map(|p| p.split_once('}')).map(|p| p.0.to_owned()).collect()
}

#[test]
fn every_task_is_worded_in_both_languages() {
    let wording = Wording::parse(include_str!("tasks.toml")).unwrap();
    let ids: Vec<&str> = tasks().iter().map(|t| t.id).collect();
    assert_eq!(wording.tasks.keys().map(String::as_str).collect::<BTreeSet<_>>(), ids.iter().copied().collect());
    assert_eq!(ids.len(), 103);
    let mut names = BTreeSet::new();
    for (id, words) in &wording.tasks {
        assert!(names.insert(words.name.en.clone()) && names.insert(words.name.zh.clone()), "{id}: name");
        assert!(words.en.len() >= 4 && words.zh.len() >= 3, "{id}: paraphrases");
        assert!(wording.constraint.contains_key(&words.constraint), "{id}: constraint {}", words.constraint);
        let shown = ["labels", "types", "attrs", "slots"];
        let content = |t: &String| -> BTreeSet<String> {
            placeholders(t).into_iter().filter(|p| !shown.contains(&p.as_str())).collect()
        };
        let first = content(&words.en[0]);
        for template in words.en.iter().chain(&words.zh) {
            assert_eq!(content(template), first, "{id}: {template}");
        }
        for labels in [&words.labels, &words.labels3].into_iter().flatten() {
            assert_eq!((labels.en.len(), labels.zh.len()), (words.en.len(), words.zh.len()), "{id}: label lists");
            for list in labels.en.iter().chain(&labels.zh) {
                for (i, a) in list.iter().enumerate() {
                    for (j, b) in list.iter().enumerate() {
                        assert!(i == j || !normal(b).contains(&normal(a)), "{id}: {a} is part of {b}");
                    }
                }
            }
        }
    }
    for paradigm in PARADIGMS {
        assert!(placeholders(&wording.generic[paradigm.name()].en).is_empty());
    }
    assert_eq!((wording.polarity.en.len(), wording.polarity.zh.len()), (3, 3));
}

#[test]
fn styles_change_the_words_and_nothing_else() {
    let wording = Wording::builtin();
    let task = crate::task::find("A25").unwrap();
    let draft = Draft::new("title", "红色跑鞋 42", either(true)).fill("cat", "鞋");
    let word =
        |style: Style| wording.word(task, &draft, Lang::Zh, &style, Paraphrases::Train, &mut SplitMix::new(5)).unwrap();
    let plain = word(Style { chinese_share: 0.0, ..Style::default() });
    assert_eq!((plain.lang, plain.prompt_lang, plain.input.as_str()), (Lang::Zh, Lang::En, "红色跑鞋 42"));
    assert!(plain.prompt.contains('鞋') && plain.candidates.contains(&plain.output));
    assert_eq!(plain.gold, Some(Gold::Labels(vec![plain.output.clone()])));
    assert_eq!(word(Style { prompts: Prompts::Input, ..Style::default() }).prompt_lang, Lang::Zh);
    assert_eq!(word(Style { prompts: Prompts::Chinese, ..Style::default() }).prompt_lang, Lang::Zh);
    assert_eq!(word(Style { description: false, ..Style::default() }).description, "");
    assert_eq!(word(Style { constraint: false, ..Style::default() }).constraint, "");
    let generic = word(Style { generic: true, chinese_share: 0.0, ..Style::default() });
    assert_eq!(generic.template_id, "A25-en-generic");
    assert!(generic.input.ends_with(": 鞋"), "{}", generic.input);
}

#[test]
fn the_last_english_paraphrase_is_kept_out_of_training() {
    let wording = Wording::builtin();
    let task = crate::task::find("F11").unwrap();
    let draft = Draft::new("title", "Acme lamp", Answer::Spans(vec!["Acme".into()]));
    let ids = |which| -> BTreeSet<String> {
        let word = |s| wording.word(task, &draft, Lang::En, &Style::default(), which, &mut SplitMix::new(s)).unwrap();
        (0..100).map(|s| word(s).template_id).collect()
    };
    let (train, held) = (ids(Paraphrases::Train), ids(Paraphrases::HeldOut));
    assert_eq!(train.len(), wording.paraphrases("F11", Lang::En) - 1);
    assert!(held.len() == 1 && held.is_disjoint(&train));
}
