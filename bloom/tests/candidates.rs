//! What prompts share is read once, given answers are weighed, and answers keep to rules: each to the bit what comes of doing it the
//! long way, for any company.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // how a test fails

use std::collections::BTreeSet;

use bloom::{Bloom, Choices, Config, Decoding, Finish, Generation, Rule};
use kernels::sample::{Philox, Sampling};
use proptest::prelude::*;
use tensor::{DType, Device};

const VOCAB: u32 = 211;
const EOS: u32 = 2;

fn model() -> Bloom {
    Bloom::random(Config::new(48, 3, 4, VOCAB as usize).unwrap(), 5).unwrap()
}

/// The same with weights so large that answers are any tokens, not one over and over.
fn models() -> [Bloom; 3] {
    [model(), model().quantize(DType::Q8).unwrap(), model().quantize(DType::Q4).unwrap()]
}

fn random(n: usize, key: u64) -> Vec<u32> {
    let draws = Philox::new(key, 9);
    (0..n as u64).map(|i| 3 + (draws.uniform(i) * f64::from(VOCAB - 3)) as u32).collect()
}

/// Prompts that share one beginning, some of them a second; two are equal, one begins another, one is alone. The cuts are at no tile of
/// attention, which takes 48 keys at a time.
fn prompts() -> Vec<Vec<u32>> {
    let (head, texts) = (random(41, 1), [random(90, 2), random(130, 3)]);
    let mut all: Vec<Vec<u32>> = (0..9)
        .map(|i| {
            let (end, text) = (random(1 + i * 7, 10 + i as u64), &texts[i % 2]);
            [&head[..], if i < 6 { text } else { &[] }, &end].concat()
        })
        .collect();
    all.extend([random(30, 4), all[3].clone(), [&all[3][..], &[7, 8]].concat(), head]);
    all.extend([vec![5], vec![5, 6]]);
    all
}

fn settings(decoding: Decoding, answers: usize, batch: usize) -> Generation {
    Generation {
        decoding,
        answers,
        max_new_tokens: 12,
        eos: EOS,
        limit: VOCAB as usize,
        repetition_penalty: 1.0,
        seed: 3,
        first: 0,
        batch,
    }
}

fn sampling() -> Decoding {
    Decoding::Sample(Sampling { temperature: 1.0, top_p: 0.95, ..Sampling::default() })
}

#[test]
fn what_is_shared_changes_no_answer() {
    let prompts = prompts();
    for model in models() {
        for (decoding, answers) in
            [(Decoding::Greedy, 1), (sampling(), 2), (Decoding::Beam { beams: 3, length_penalty: 1.0 }, 2)]
        {
            // One call for each prompt: there is nothing to share.
            let alone: Vec<_> = (0..prompts.len())
                .flat_map(|i| {
                    let s = Generation { first: i as u64, ..settings(decoding.clone(), answers, 1) };
                    model.generate(&prompts[i..=i], &s, &mut |_, _, _| true).unwrap()
                })
                .collect();
            assert!(alone.iter().map(|a| a[0].ids.clone()).collect::<BTreeSet<_>>().len() > 4);
            for batch in [1, 3, 8, 64] {
                let s = settings(decoding.clone(), answers, batch);
                let together = model.generate(&prompts, &s, &mut |_, _, _| true).unwrap();
                // Scores of beams too, bit for bit.
                assert_eq!(together, alone, "{decoding:?}, batch {batch}");
            }
        }
    }
}

/// Answers of several lengths, some beginning others.
fn answers(prompts: &[Vec<u32>]) -> Vec<Vec<Vec<u32>>> {
    let some = |i: usize| {
        let first = random(4, 100 + i as u64);
        let more = (0..i % 5).map(|j| [random(1 + j, (200 + i + j) as u64), vec![EOS]].concat());
        more.chain([vec![EOS], [&first[..2], &[EOS]].concat(), [&first[..], &[EOS]].concat()]).collect()
    };
    (0..prompts.len()).map(some).collect()
}

/// Four pieces of 400 tokens: one ends with a prompt, others cut prompts, and one has the whole of a third.
#[test]
fn long_prompts_are_read_in_pieces_without_a_difference() {
    let prompts: Vec<_> = [400, 700, 1, 499].iter().enumerate().map(|(i, &n)| random(n, 50 + i as u64)).collect();
    let answers = answers(&prompts);
    for model in models() {
        let apart: Vec<Vec<f64>> =
            prompts.iter().zip(&answers).map(|(p, all)| all.iter().map(|a| brute(&model, p, a)).collect()).collect();
        assert_eq!(model.score(&prompts, &answers, 4).unwrap(), apart);
    }
}

/// An answer's log-likelihood, from prompt and answer in one document of their own.
fn brute(model: &Bloom, prompt: &[u32], answer: &[u32]) -> f64 {
    let ids = [prompt, &answer[..answer.len() - 1]].concat();
    let rows: Vec<u32> = (prompt.len() as u32 - 1..ids.len() as u32).collect();
    let losses = model.losses(&ids, &[0, ids.len() as u32], &rows, answer).unwrap();
    losses.iter().fold(0.0, |sum, &loss| sum - f64::from(loss))
}

#[test]
fn scores_are_those_of_each_prompt_and_answer_apart() {
    let prompts = prompts();
    let answers = answers(&prompts);
    for model in models() {
        let apart: Vec<Vec<f64>> =
            prompts.iter().zip(&answers).map(|(p, all)| all.iter().map(|a| brute(&model, p, a)).collect()).collect();
        for batch in [1, 4, 64] {
            assert_eq!(model.score(&prompts, &answers, batch).unwrap(), apart, "batch {batch}");
        }
        let order: Vec<usize> = (0..prompts.len()).rev().collect();
        let [p, a] = [0, 1].map(|_| &order);
        let p: Vec<_> = p.iter().map(|&i| prompts[i].clone()).collect();
        let a: Vec<_> = a.iter().map(|&i| answers[i].clone()).collect();
        let mut turned = model.score(&p, &a, 5).unwrap();
        turned.reverse();
        assert_eq!(turned, apart, "the other way round");
    }
}

#[test]
fn more_answers_than_are_read_at_once() {
    let (model, prompts) = (model(), vec![random(20, 1), random(25, 2)]);
    let answers: Vec<Vec<Vec<u32>>> =
        (0..2u64).map(|p| (0..70).map(|i| random(60 + i, 50 + p * 100 + i as u64)).collect()).collect();
    let scores = model.score(&prompts, &answers, 8).unwrap();
    for (i, j) in [(0, 0), (0, 35), (0, 69), (1, 0), (1, 40), (1, 69)] {
        assert_eq!(scores[i][j], brute(&model, &prompts[i], &answers[i][j]), "{i} {j}");
    }
}

#[test]
fn a_gpu_scores_as_the_cpu_does() {
    let (model, prompts) = (model(), prompts());
    let answers = answers(&prompts);
    let right = model.score(&prompts, &answers, 8).unwrap();
    for device in simulator::gpus().iter().take(2) {
        let there = model.clone().to_device(device).unwrap();
        let found = there.score(&prompts, &answers, 8).unwrap();
        for (right, found) in right.iter().flatten().zip(found.iter().flatten()) {
            // In f32: the sums' order is all that differs; a wrong row would be off by whole nats.
            assert!((right - found).abs() <= 1e-4 * right.abs(), "{right} {found}");
        }
        // There too, what is shared changes no bit.
        let s = settings(Decoding::Beam { beams: 2, length_penalty: 1.0 }, 1, 4);
        let together = there.generate(&prompts[..6], &s, &mut |_, _, _| true).unwrap();
        for (i, together) in together.iter().enumerate() {
            assert_eq!(&there.generate(&prompts[i..=i], &s, &mut |_, _, _| true).unwrap()[0], together, "prompt {i}");
        }
    }
}

#[test]
fn bad_questions_are_refused() {
    let model = model();
    let refused = |prompts: &[Vec<u32>], answers: &[Vec<Vec<u32>>], part: &str| {
        let text = model.score(prompts, answers, 8).unwrap_err().to_string();
        assert!(text.contains(part) && !text.contains('\n'), "{part:?}: {text}");
    };
    refused(&[vec![1]], &[], "0 lists of answers to 1 prompts");
    refused(&[vec![1], vec![]], &[vec![], vec![]], "prompt 2: wanted at least one token");
    refused(&[vec![1]], &[vec![vec![3], vec![]]], "prompt 1: wanted at least one token");
    refused(&[vec![1]], &[vec![vec![VOCAB]]], "a target");
    refused(&[vec![1]], &[vec![vec![VOCAB, 1]]], "");
    assert!(model.score(&[], &[], 8).unwrap().is_empty());
    let never: &Rule = &|_, _| Vec::new();
    let ask = |decoding, rules: &[Option<&Rule>]| {
        let asked = model.generate_within(&[vec![1], vec![4]], rules, &settings(decoding, 1, 8), &mut |_, _, _| true);
        asked.unwrap_err().to_string()
    };
    assert!(ask(Decoding::Greedy, &[None]).contains("1 rules for 2 prompts"));
    assert!(ask(Decoding::Greedy, &[None, Some(never)]).contains("prompt 2: no token may follow, with 12 left"));
    let beams = Decoding::Beam { beams: 2, length_penalty: 1.0 };
    assert!(ask(beams, &[None, Some(never)]).contains("a beam search keeps to no rules"));
}

/// Labels: one begins another, and one is another with the separator and a third behind it.
fn labels() -> Vec<Vec<u32>> {
    vec![vec![10, 11], vec![10, 11, 12], vec![20], vec![20, 9, 10, 11], vec![30, 31, 32, 33]]
}

const SEPARATOR: u32 = 9;

fn later() -> Vec<Vec<u32>> {
    labels().iter().map(|label| [&[SEPARATOR], &label[..]].concat()).collect()
}

/// Whether the ids are labels that all differ, with separators between.
fn is_list(ids: &[u32], named: &mut Vec<Vec<u32>>) -> bool {
    labels().iter().any(|label| {
        let Some(rest) = ids.strip_prefix(&label[..]) else { return false };
        if named.contains(label) {
            return false;
        }
        named.push(label.clone());
        let whole = match rest.split_first() {
            None => true,
            Some((&SEPARATOR, rest)) => is_list(rest, named),
            Some(_) => false,
        };
        named.pop();
        whole
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn answers_keep_to_their_labels(seed in 0u64..1000, longest in 1usize..12, draws in any::<bool>(), penalty in any::<bool>()) {
        let model = Bloom::random(Config::new(16, 1, 2, VOCAB as usize).unwrap(), seed).unwrap();
        let (one, several) = (Choices::one(&labels(), EOS), Choices::several(&labels(), &later(), EOS));
        let one: &Rule = &|answer, left| one.next(answer, left);
        let several: &Rule = &|answer, left| several.next(answer, left);
        let prompts: Vec<Vec<u32>> = (0..12).map(|i| random(3 + i, seed + i as u64)).collect();
        let rules: Vec<_> = (0..12).map(|i| [Some(one), Some(several), None][i % 3]).collect();
        let decoding = if draws { sampling() } else { Decoding::Greedy };
        let repetition_penalty = if penalty { 1.5 } else { 1.0 };
        let s = Generation { max_new_tokens: longest, repetition_penalty, ..settings(decoding, 1, 5) };
        let answers = model.generate_within(&prompts, &rules, &s, &mut |_, _, _| true).unwrap();
        let free = model.generate(&prompts, &s, &mut |_, _, _| true).unwrap();
        for i in 0..12 {
            let ids = &answers[i][0].ids;
            match i % 3 {
                0 => prop_assert!(labels().contains(ids), "{ids:?}"),
                1 => prop_assert!(is_list(ids, &mut Vec::new()), "{ids:?}"),
                _ => prop_assert_eq!(&answers[i], &free[i], "others answer as ever"),
            }
            prop_assert!(ids.len() <= longest && answers[i][0].finish != Finish::Stopped);
        }
        let lucky = (0..12).filter(|&i| is_list(&free[i][0].ids, &mut Vec::new())).count();
        prop_assert!(lucky < 3, "a model that answers so by itself shows nothing");
    }
}

/// A GPU's logits are masked as the CPU's.
#[test]
fn rules_hold_on_gpus() {
    let (prompts, s) = (prompts(), settings(Decoding::Greedy, 1, 4));
    let choices = Choices::several(&labels(), &later(), EOS);
    let rule: &Rule = &|answer, left| choices.next(answer, left);
    let rules = vec![Some(rule); prompts.len()];
    let ask = |model: &Bloom| model.generate_within(&prompts, &rules, &s, &mut |_, _, _| true).unwrap();
    let right = ask(&model());
    assert!(right.iter().all(|a| is_list(&a[0].ids, &mut Vec::new())));
    for device in simulator::gpus().iter().take(1) {
        assert_ne!(device, &Device::Cpu);
        assert_eq!(ask(&model().to_device(device).unwrap()), right);
    }
}

#[test]
fn choices_end_where_a_label_is_whole_and_the_rest_still_fits() {
    let one = Choices::one(&labels(), EOS);
    assert_eq!(one.next(&[], 9), [10, 20, 30]);
    assert_eq!(one.next(&[], 3), [10, 20]);
    assert_eq!(one.next(&[], 1), [20]);
    // A label that begins another may end, or go on; where nothing more fits it ends.
    assert_eq!(one.next(&[10, 11], 9), [EOS, 12]);
    assert_eq!(one.next(&[10, 11], 0), [EOS]);
    assert_eq!(one.next(&[10], 9), [11]);
    assert_eq!(one.next(&[10, 11, 12], 9), [EOS]);
    assert!(one.next(&[10, 12], 9).is_empty());
    let several = Choices::several(&labels(), &later(), EOS);
    // 20, or 20 and another, or the label that looks like both.
    assert_eq!(several.next(&[20], 9), [EOS, SEPARATOR]);
    assert_eq!(several.next(&[20, SEPARATOR], 9), [10, 20, 30]);
    assert_eq!(several.next(&[20, SEPARATOR, 20], 9), [SEPARATOR], "20 alone was named");
    assert_eq!(several.next(&[20, SEPARATOR, 10, 11], 9), [EOS, SEPARATOR, 12]);
    // The label of all of these is one, or they are two: in one of both readings 10 11 is not yet named.
    assert_eq!(several.next(&[20, SEPARATOR, 10, 11, SEPARATOR], 9), [10, 20, 30]);
    assert_eq!(several.next(&[10, 11, SEPARATOR], 9), [10, 20, 30]);
    assert_eq!(several.next(&[10, 11, SEPARATOR, 10, 11], 9), [12], "named already");
    assert_eq!(several.next(&[10, 11], 1), [EOS, 12], "a separator and nothing behind it would not do");
}
