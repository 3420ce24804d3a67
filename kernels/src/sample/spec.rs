use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use simulator::{devices, gpus};
use tensor::{DType, Device, Tensor};

use super::philox::rounds;
use super::{Choice, Chosen, Philox, Sampling, argmax, choose, log_softmax, penalize, sample};
use crate::spec::{f32s, random, tensor_on};

/// Draws of one distribution.
const DRAWS: u64 = 4000;

/// What the settings leave, by the text of Hugging Face's warpers: probabilities `[v]`, 0 for what is filtered.
fn reference(logits: &[f32], settings: &Sampling) -> Vec<f64> {
    // Plus zero, as a sort that tells −0 from 0 is not meant.
    let mut scores: Vec<f64> = logits.iter().map(|&x| f64::from(x) / f64::from(settings.temperature) + 0.0).collect();
    let softmax = |scores: &[f64]| -> Vec<f64> {
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let all: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let sum: f64 = all.iter().sum();
        all.iter().map(|x| x / sum).collect()
    };
    if settings.top_k > 0 {
        let mut sorted = scores.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let last = sorted[settings.top_k.min(sorted.len()) - 1];
        scores.iter_mut().filter(|s| **s < last).for_each(|s| *s = f64::NEG_INFINITY);
    }
    if settings.top_p < 1.0 {
        let (probabilities, mut order) = (softmax(&scores), (0..scores.len()).collect::<Vec<_>>());
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
        let mut sum = 0.0;
        for &id in &order[..order.len() - 1] {
            sum += probabilities[id];
            if sum <= 1.0 - f64::from(settings.top_p) {
                scores[id] = f64::NEG_INFINITY;
            }
        }
    }
    let probabilities = softmax(&scores);
    let largest = probabilities.iter().copied().fold(0.0, f64::max);
    for (score, p) in scores.iter_mut().zip(probabilities) {
        if p < f64::from(settings.min_p) * largest {
            *score = f64::NEG_INFINITY;
        }
    }
    softmax(&scores)
}

fn settings() -> impl Strategy<Value = Sampling> {
    let top_k = prop_oneof![Just(0usize), 1usize..12, Just(1000)];
    let top_p = prop_oneof![Just(1.0f32), 0.0f32..1.0];
    let min_p = prop_oneof![Just(0.0f32), 0.0f32..1.0];
    (0.2f32..3.0, top_k, top_p, min_p).prop_map(|(temperature, top_k, top_p, min_p)| Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty: 1.0,
    })
}

proptest! {
    #[test]
    fn frequencies_are_those_of_the_filtered_softmax(
        settings in settings(), v in 1usize..200, seed in 0u64..1 << 40, ties in any::<bool>(),
    ) {
        let mut logits = f32s(&random(v, seed, 2.0, 0.0));
        if ties {
            for x in &mut logits {
                *x = x.round();
            }
        }
        let wanted = reference(&logits, &settings);
        let random = Philox::new(seed, 7);
        let mut counts = vec![0u64; v];
        for i in 0..DRAWS {
            counts[sample(&logits, &settings, random.uniform(i)) as usize] += 1;
        }
        for (id, (count, p)) in counts.iter().zip(wanted).enumerate() {
            if p == 0.0 {
                prop_assert_eq!(*count, 0, "{} was filtered", id);
            }
            // Seven standard deviations of a binomial, and a few draws where it is far from normal.
            let spread = 7.0 * (DRAWS as f64 * p * (1.0 - p)).sqrt() + 8.0;
            prop_assert!((*count as f64 - DRAWS as f64 * p).abs() <= spread, "{} times {}, p {}", count, id, p);
        }
    }

    #[test]
    fn drawing_is_the_inverse_of_the_distribution_function(settings in settings(), v in 1usize..100, seed in 0u64..1 << 40) {
        let logits = f32s(&random(v, seed, 1.0, 0.0));
        let wanted = reference(&logits, &settings);
        let mut below = 0.0;
        for (id, p) in wanted.into_iter().enumerate() {
            if p > 1e-9 {
                prop_assert_eq!(sample(&logits, &settings, below + 0.5 * p), id as u32);
            }
            below += p;
        }
        let last = sample(&logits, &settings, 1.0 - 1.0 / (1u64 << 53) as f64);
        prop_assert!((last as usize) < v);
    }

    #[test]
    fn greedy_is_the_argmax_and_top_one_too(v in 1usize..100, seed in 0u64..1 << 40, uniform in 0.0f64..1.0) {
        let logits = f32s(&random(v, seed, 1.0, 0.0));
        let best = argmax(&logits);
        prop_assert!(logits.iter().all(|x| *x <= logits[best as usize]));
        prop_assert_eq!(sample(&logits, &Sampling::default(), uniform), best);
        prop_assert_eq!(sample(&logits, &Sampling { temperature: 1.0, top_k: 1, ..Sampling::default() }, uniform), best);
        prop_assert_eq!(sample(&logits, &Sampling { temperature: 1.0, top_p: 0.0, ..Sampling::default() }, uniform), best);
        prop_assert_eq!(sample(&logits, &Sampling { temperature: 1.0, min_p: 1.0, ..Sampling::default() }, uniform), best);
    }

    #[test]
    fn log_probabilities_sum_to_one_and_keep_differences(v in 1usize..300, seed in 0u64..1 << 40, offset in -1e4f64..1e4) {
        let logits = f32s(&random(v, seed, 3.0, offset));
        let mut logs = logits.clone();
        log_softmax(&mut logs);
        // Each logarithm is rounded to f32 once.
        let largest = logs.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let allowed = f64::from(largest.max(1.0) * f32::EPSILON);
        let sum: f64 = logs.iter().map(|&x| f64::from(x).exp()).sum();
        prop_assert!((sum - 1.0).abs() <= allowed);
        for (x, log) in logits.iter().zip(&logs) {
            let (wanted, got) = (f64::from(*x) - f64::from(logits[0]), f64::from(*log) - f64::from(logs[0]));
            prop_assert!((wanted - got).abs() <= 2.0 * allowed);
        }
    }

    #[test]
    fn a_permutation_holds_every_number_once(n in 0usize..500, seed in any::<u64>(), stream in any::<u64>()) {
        let mut order = Philox::new(seed, stream).permutation(n);
        prop_assert_eq!(&order, &Philox::new(seed, stream).permutation(n));
        order.sort_unstable();
        prop_assert_eq!(order, (0..n as u32).collect::<Vec<_>>());
    }
}

/// Rows of logits `[b, v]` and choices from them.
#[derive(Debug)]
struct Case {
    v: usize,
    limit: usize,
    logits: Vec<f32>,
    settings: Sampling,
    rows: Vec<usize>,
    seen: Vec<Vec<u32>>,
    seed: u64,
}

impl Case {
    fn choose(&self, device: &Device) -> Vec<Chosen> {
        let Self { v, limit, logits, settings, rows, seen, seed } = self;
        let logits = Tensor::new(&[logits.len() / v, *v], logits.clone()).unwrap().to_device(device).unwrap();
        let draw = |i| Philox::new(*seed, 7).uniform(i);
        let all = (0..).zip(rows.iter().zip(seen));
        let choices: Vec<_> = all.map(|(i, (&row, seen))| Choice { row, seen, uniform: draw(i) }).collect();
        choose(&logits, *limit, settings, &choices).unwrap()
    }

    /// What [`sample`] says, one choice after the other.
    fn wanted(&self) -> Vec<Chosen> {
        let one = |(i, (&row, seen)): (u64, (&usize, &Vec<u32>))| {
            let mut logits = self.logits[row * self.v..][..self.limit].to_vec();
            let finite = logits.iter().all(|x| x.is_finite());
            penalize(&mut logits, seen, self.settings.repetition_penalty);
            Chosen { token: sample(&logits, &self.settings, Philox::new(self.seed, 7).uniform(i)), finite }
        };
        (0..).zip(self.rows.iter().zip(&self.seen)).map(one).collect()
    }
}

fn tokens(chosen: &[Chosen]) -> Vec<u32> {
    chosen.iter().map(|chosen| chosen.token).collect()
}

/// How a row's logits are spoiled.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Fine,
    Ties,
    /// With some that are NaN or −∞.
    Holes,
    AllEqual,
}

fn cases() -> impl Strategy<Value = Case> {
    let v = prop_oneof![1usize..70, prop::sample::select(vec![255usize, 256, 257, 600])];
    let kind = prop::sample::select(&[Kind::Fine, Kind::Fine, Kind::Ties, Kind::Holes, Kind::AllEqual][..]);
    let greedy = prop_oneof![1 => Just(true), 4 => Just(false)];
    let penalty = prop_oneof![Just(1.0f32), Just(1.3), Just(0.7)];
    (v, 1usize..4, 1usize..24, (settings(), greedy, penalty), kind, -1i32..2, 0u64..1 << 40).prop_map(
        |(v, b, n, (settings, greedy, repetition_penalty), kind, scale, seed)| {
            let mut logits = f32s(&random(b * v, seed, 2.0 * 10f64.powi(scale), 0.0));
            for (i, x) in logits.iter_mut().enumerate() {
                match (kind, i % 7) {
                    (Kind::Ties, _) => *x = x.round(),
                    (Kind::Holes, 2) => *x = f32::NAN,
                    (Kind::Holes, 4) => *x = f32::NEG_INFINITY,
                    (Kind::AllEqual, _) => *x = -1.5,
                    _ => (),
                }
            }
            let temperature = if greedy { 0.0 } else { settings.temperature };
            let settings = Sampling { temperature, repetition_penalty, ..settings };
            let draw = |i: usize, below: usize| Philox::new(seed, i as u64).at(0)[0] as usize % below;
            let seen = |i: usize| (0..i % 9).map(|j| draw(100 + i * 9 + j / 2, v + 2) as u32).collect();
            let limit = v - draw(0, v.min(5));
            let (rows, seen) = ((0..n).map(|i| draw(i, b)).collect(), (0..n).map(seen).collect());
            Case { v, limit, logits, settings, rows, seen, seed }
        },
    )
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn every_device_chooses_the_same_tokens(case in cases()) {
        let wanted = case.wanted();
        for device in devices() {
            prop_assert_eq!(&case.choose(device), &wanted, "{}", device);
        }
    }
}

/// More logits than the threads of a block take at a time, and probabilities far apart.
#[test]
fn wide_rows() {
    for (top_k, top_p) in [(0, 1.0), (50, 1.0), (0, 0.9), (1000, 0.5)] {
        let settings = Sampling { temperature: 0.8, top_k, top_p, ..Sampling::default() };
        let (v, n) = (5003, 6);
        let logits = f32s(&random(2 * v, 3, 3.0, 0.0));
        let rows = (0..n).map(|i| i % 2).collect();
        let case = Case { v, limit: v - 3, logits, settings, rows, seen: vec![vec![]; n], seed: 5 };
        let wanted = case.wanted();
        for device in gpus() {
            assert_eq!(case.choose(device), wanted, "{device}");
        }
    }
}

/// The first and the last number that can be drawn, and one kept token only.
#[test]
fn the_ends_of_the_interval() {
    let logits = [f32::NEG_INFINITY, 1.0, 2.0, f32::NAN, 1.5, -300.0];
    let warm = Sampling { temperature: 1.0, ..Sampling::default() };
    for device in devices() {
        let there = Tensor::new(&[1, 6], logits.to_vec()).unwrap().to_device(device).unwrap();
        let choices = [0.0, 1.0 - 1.0 / (1u64 << 53) as f64].map(|uniform| Choice { row: 0, seen: &[], uniform });
        let chosen = |settings: Sampling| tokens(&choose(&there, 6, &settings, &choices).unwrap());
        assert_eq!(chosen(warm), [1, 4], "{device}");
        for one in [
            Sampling { top_k: 1, ..warm },
            Sampling { top_p: 0.0, ..warm },
            Sampling { min_p: 1.0, ..warm },
            Sampling { temperature: 0.0, ..warm },
        ] {
            assert_eq!(chosen(one), [2, 2], "{device}");
        }
        assert_eq!(chosen(Sampling { top_k: 2, ..warm }), [2, 4], "{device}");
    }
}

/// A number on the border between two tokens belongs to the latter.
#[test]
fn borders_between_tokens() {
    let settings = Sampling { temperature: 1.0, ..Sampling::default() };
    for device in devices() {
        let there = tensor_on(device, DType::F32, &[1, 64], &[2.5; 64]);
        let choices: Vec<_> = (0..64).map(|i| Choice { row: 0, seen: &[], uniform: f64::from(i) / 64.0 }).collect();
        let chosen = tokens(&choose(&there, 64, &settings, &choices).unwrap());
        assert_eq!(chosen, (0..64).collect::<Vec<_>>(), "{device}");
    }
}

#[test]
fn wrong_choices_are_errors_and_none_is_nothing() {
    for device in devices() {
        let zeros = |sizes: &[usize], dtype| Tensor::zeros_on(device, sizes, dtype).unwrap();
        let logits = zeros(&[2, 5], DType::F32);
        let chosen = |logits: &Tensor, limit, row| {
            let choices = [Choice { row, seen: &[], uniform: 0.0 }];
            choose(logits, limit, &Sampling::default(), &choices).map(|chosen| tokens(&chosen))
        };
        assert_eq!(chosen(&logits, 5, 1).unwrap(), [0]);
        assert_eq!(chosen(&logits, 0, 1).unwrap(), [0]);
        assert!(chosen(&logits, 5, 2).is_err());
        assert!(chosen(&logits, 6, 0).is_err());
        assert!(chosen(&zeros(&[5], DType::F32), 5, 0).is_err());
        assert!(chosen(&zeros(&[1, 5], DType::BF16), 5, 0).is_err());
        assert!(choose(&logits, 5, &Sampling::default(), &[]).unwrap().is_empty());
        let nan = Tensor::new(&[1, 3], vec![f32::NAN; 3]).unwrap().to_device(device).unwrap();
        assert_eq!(chosen(&nan, 3, 0).unwrap(), [0]);
    }
}

#[test]
fn philox_gives_the_published_numbers() {
    // Random123 1.14.0, tests/kat_vectors, the lines "philox4x32 10": counter, key, output.
    let ones = u32::MAX;
    let known = [
        ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ];
    for (counter, key, output) in known {
        assert_eq!(rounds(counter, key), output);
    }
    // The same, with counter and key as seed, stream and counter.
    let philox = Philox::new(0x299f_31d0_a409_3822, 0x0370_7344_1319_8a2e);
    assert_eq!(philox.at(0x85a3_08d3_243f_6a88), known[2].2);
}

#[test]
fn uniform_numbers_fill_the_interval_evenly() {
    let philox = Philox::new(1, 2);
    let mut counts = [0f64; 16];
    for i in 0..16_000 {
        let x = philox.uniform(i);
        assert!((0.0..1.0).contains(&x));
        counts[(x * 16.0) as usize] += 1.0;
    }
    // χ² with 15 degrees of freedom: mean 15, standard deviation √30; seven of them.
    let chi: f64 = counts.iter().map(|c| (c - 1000.0) * (c - 1000.0) / 1000.0).sum();
    assert!(chi < 15.0 + 7.0 * 30f64.sqrt(), "{chi}");
    assert_ne!(philox.at(0), Philox::new(1, 3).at(0));
    assert_ne!(philox.at(0), Philox::new(2, 2).at(0));
}

#[test]
fn every_order_of_four_is_equally_likely() {
    let mut counts = std::collections::BTreeMap::new();
    for stream in 0..24_000 {
        *counts.entry(Philox::new(5, stream).permutation(4)).or_insert(0f64) += 1.0;
    }
    assert_eq!(counts.len(), 24);
    // χ² with 23 degrees of freedom: seven standard deviations.
    let chi: f64 = counts.values().map(|c| (c - 1000.0) * (c - 1000.0) / 1000.0).sum();
    assert!(chi < 23.0 + 7.0 * 46f64.sqrt(), "{chi}");
}

#[test]
fn a_seen_token_is_penalised_once() {
    let mut logits = [2.0, -2.0, 1.0, 0.0];
    penalize(&mut logits, &[1, 0, 1, 3, 9], 2.0);
    assert_eq!(logits, [1.0, -4.0, 1.0, 0.0]);
}

#[test]
fn ties_and_strange_logits() {
    let (nan, low) = (f32::NAN, f32::NEG_INFINITY);
    assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
    assert_eq!(argmax(&[nan, low, nan]), 1);
    assert_eq!(argmax(&[nan, -5.0, nan, -4.0]), 3);
    assert_eq!(argmax(&[nan]), 0);
    assert_eq!(argmax(&[]), 0);
    let warm = Sampling { temperature: 1.0, ..Sampling::default() };
    for i in 0..50 {
        assert_eq!(sample(&[nan, low, 0.5, nan], &warm, f64::from(i) / 50.0), 2);
        assert_eq!(sample(&[low, low], &warm, f64::from(i) / 50.0), 0);
    }
    assert_eq!(sample(&[], &warm, 0.5), 0);
}
