//! Logistic regression on hashed words: sigmoid for a match, softmax over the candidates of a selection.

use super::rule::{Answer, Choice, Encoded, FEATURES};
use crate::splitmix::SplitMix;

/// Parts of the cross-validation.
const FOLDS: usize = 5;
const EPOCHS: usize = 4;
/// Step of `AdaGrad` (Duchi et al. 2011).
const STEP: f32 = 0.1;
/// L2 penalty on the weights of a case's features.
const L2: f32 = 1e-4;

/// One weight a feature.
#[derive(Debug, Clone)]
pub(super) struct Weights(Vec<f32>);

/// Whether each case is answered rightly by weights learned from the other folds, drawn by `seed`.
pub(super) fn cross_validate(cases: &[&Encoded], seed: u64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..cases.len()).collect();
    SplitMix::stream(seed, 1 << 32).shuffle(&mut order);
    let mut right = vec![false; cases.len()];
    for fold in 0..FOLDS {
        let others = order.iter().enumerate().filter(|(at, _)| at % FOLDS != fold);
        let others: Vec<&Encoded> = others.map(|(_, &case)| cases[case]).collect();
        let weights = Weights::train(&others, seed);
        order.iter().skip(fold).step_by(FOLDS).for_each(|&case| right[case] = weights.right(cases[case]));
    }
    right
}

impl Weights {
    /// A few epochs of `AdaGrad` in an order drawn by `seed`.
    pub(super) fn train(cases: &[&Encoded], seed: u64) -> Self {
        // Weight and sum of squared gradients side by side: one cache line for both.
        let mut state = vec![(0.0f32, 1e-8f32); FEATURES];
        let mut order: Vec<&Encoded> = cases.to_vec();
        let mut rng = SplitMix::stream(seed, 1 << 33);
        for _ in 0..EPOCHS {
            rng.shuffle(&mut order);
            for case in &order {
                let scores = case.choices.iter().map(|choice| score(choice, |f| state[f as usize].0)).collect();
                for (choice, error) in case.choices.iter().zip(errors(scores, case.answer)) {
                    let slope = error * scale(choice);
                    for &feature in &choice.features {
                        let (weight, squares) = &mut state[feature as usize];
                        let gradient = slope + L2 * *weight;
                        *squares += gradient * gradient;
                        *weight -= STEP * gradient / squares.sqrt();
                    }
                }
            }
        }
        Self(state.into_iter().map(|(weight, _)| weight).collect())
    }

    /// Whether the case is answered rightly: by the sign of a match, by the highest score of a selection, the first on
    /// a tie.
    pub(super) fn right(&self, case: &Encoded) -> bool {
        let scores = case.choices.iter().map(|choice| score(choice, |f| self.0[f as usize]));
        match case.answer {
            Answer::Match(yes) => scores.sum::<f32>().is_sign_positive() == yes,
            Answer::Select(gold) => {
                let mut best = (usize::MAX, f32::NEG_INFINITY);
                for (at, score) in scores.enumerate() {
                    if score > best.1 {
                        best = (at, score);
                    }
                }
                best.0 == gold
            }
        }
    }
}

/// Length of a feature's entry, so that a long text is no longer vector than a short one.
fn scale(choice: &Choice) -> f32 {
    1.0 / (choice.features.len().max(1) as f32).sqrt()
}

fn score(choice: &Choice, weight: impl Fn(u32) -> f32) -> f32 {
    scale(choice) * choice.features.iter().map(|&feature| weight(feature)).sum::<f32>()
}

/// Derivative of the cross entropy by each score.
fn errors(mut scores: Vec<f32>, answer: Answer) -> Vec<f32> {
    match answer {
        Answer::Match(yes) => {
            scores.iter_mut().for_each(|s| *s = 1.0 / (1.0 + exp(-*s)) - f32::from(u8::from(yes)));
        }
        Answer::Select(gold) => {
            let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scores.iter_mut().for_each(|s| *s = exp(*s - most));
            let sum: f32 = scores.iter().sum();
            scores.iter_mut().for_each(|s| *s /= sum);
            if let Some(right) = scores.get_mut(gold) {
                *right -= 1.0;
            }
        }
    }
    scores
}

/// eˣ within 2⁻²⁰, by IEEE sums and products alone: the same bits on every machine, which a C library does not
/// promise.
pub(super) fn exp(x: f32) -> f32 {
    let x = x.clamp(-80.0, 80.0);
    let power = (x * std::f32::consts::LOG2_E).round();
    let rest = x - power * std::f32::consts::LN_2;
    let series = (1..=7u8).rev().fold(1.0, |sum, n| 1.0 + sum * rest / f32::from(n));
    series * f32::from_bits(((power as i32 + 127) as u32) << 23)
}
