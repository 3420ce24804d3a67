//! What the rows of a unit (one task of one source in one language) come to together.

use std::collections::BTreeMap;

use super::row::Facts;
use super::{KEPT, row::hash};
use crate::baseline::{self, Policy};
use crate::eval_set::from_instructions;
use crate::instruction::Instruction;
use crate::score;

/// Bins of the candidates' places.
const BINS: usize = 10;

/// Counts of a unit.
#[derive(Debug, Default)]
pub(super) struct Unit {
    pub(super) rows: usize,
    /// Estimated tokens of prompts and answers.
    pub(super) tokens: u64,
    /// Answers by number among fixed labels, for each number of labels.
    fixed: BTreeMap<usize, Vec<usize>>,
    labels: BTreeMap<String, usize>,
    /// Rows where nothing fits, of so many.
    none: (usize, usize),
    /// Right candidates by tenth of the list: found, and expected of a shuffle.
    places: [(usize, f64); BINS],
    /// Rows in the right language, of so many: of the input, of the prompt.
    input_lang: (usize, usize),
    prompt_lang: (usize, usize),
    kept: BTreeMap<u64, Instruction>,
}

impl Unit {
    pub(super) fn add(&mut self, row: Instruction, facts: &Facts) {
        self.rows += 1;
        self.tokens += (facts.tokens.0 + facts.tokens.1) as u64;
        if let Some((n, of)) = facts.fixed {
            let counts = self.fixed.entry(of).or_insert_with(|| vec![0; of]);
            counts.iter_mut().skip(n).take(1).for_each(|c| *c += 1);
        }
        if let Some(label) = &facts.label {
            *self.labels.entry(label.clone()).or_default() += 1;
        }
        if let Some(none) = facts.none {
            self.none.0 += usize::from(none);
            self.none.1 += 1;
        }
        if let Some((at, of)) = facts.position {
            for place in 0..of {
                let bin = place * BINS / of;
                self.places[bin].1 += 1.0 / of as f64;
                self.places[bin].0 += usize::from(place == at);
            }
        }
        for (count, fact) in [(&mut self.input_lang, facts.input_lang), (&mut self.prompt_lang, facts.prompt_lang)] {
            if let Some(right) = fact {
                count.0 += usize::from(right);
                count.1 += 1;
            }
        }
        let key = hash(&[&row.id]);
        if self.kept.len() < KEPT || self.kept.last_key_value().is_some_and(|(last, _)| key < *last) {
            self.kept.insert(key, row);
            if self.kept.len() > KEPT {
                self.kept.pop_last();
            }
        }
    }

    /// What is wrong with the balance of two fixed labels, and the share of the largest class.
    pub(super) fn balance(&self) -> (Option<String>, Option<f64>) {
        let wrong = self.fixed.get(&2).and_then(|counts| match counts.as_slice() {
            [a, b] if a.abs_diff(*b) > 1 => Some(format!("wanted both labels equally often, found {a} and {b}")),
            _ => None,
        });
        let most = self.fixed.values().flatten().chain(self.labels.values()).max();
        let all: usize = self.fixed.values().flatten().chain(self.labels.values()).sum();
        (wrong, most.map(|&n| n as f64 / all.max(1) as f64))
    }

    /// Share of rows where nothing fits, if there are any.
    pub(super) fn none_share(&self) -> Option<f64> {
        (self.none.0 > 0).then(|| self.none.0 as f64 / self.none.1 as f64)
    }

    /// How far the right candidates' places are from those of a shuffle: chi-square and its degrees of freedom. `None`
    /// where there are too few rows to tell.
    pub(super) fn places(&self) -> Option<(f64, usize)> {
        // Neighbours are pooled until each pool may expect five.
        let mut used: Vec<(usize, f64)> = vec![(0, 0.0)];
        for (found, expected) in &self.places {
            match used.last_mut() {
                Some(open) if open.1 < 5.0 => *open = (open.0 + found, open.1 + expected),
                _ => used.push((*found, *expected)),
            }
        }
        if let Some(short) = used.pop_if(|open| open.1 < 5.0)
            && let Some(last) = used.last_mut()
        {
            *last = (last.0 + short.0, last.1 + short.1);
        }
        if used.len() < 2 {
            return None;
        }
        let chi = used.iter().map(|(found, expected)| (*found as f64 - expected).powi(2) / expected).sum();
        Some((chi, used.len() - 1))
    }

    /// Shares of rows in the language that they name, and of how many: of inputs, of prompts.
    pub(super) fn languages(&self) -> [(f64, usize); 2] {
        [self.input_lang, self.prompt_lang].map(|(right, of)| (right as f64 / of.max(1) as f64, of))
    }

    /// Strict scores of the gold answers and of answering without a model, in percent: gold, constant, random, lexical.
    pub(super) fn baselines(&self) -> Option<Baselines> {
        let rows: Vec<Instruction> = self.kept.values().cloned().collect();
        let sets = from_instructions(&rows).ok()?;
        let set = sets.first()?;
        let gold: Vec<&str> = set.items.iter().map(|i| i.gold.as_str()).collect();
        let gold = score::strict::score(set, &gold).ok()?;
        let policies = [Policy::Constant, Policy::Random { seed: 0 }, Policy::Lexical];
        let scores = policies.map(|policy| {
            let answers = baseline::predict(set, policy)?;
            Some(score::strict::score(set, &answers.predictions).ok()?.headline)
        });
        Some(Baselines { measure: gold.headline_name, items: set.items.len(), scores })
    }
}

/// What a unit scores without a model.
#[derive(Debug)]
pub(super) struct Baselines {
    pub(super) measure: &'static str,
    pub(super) items: usize,
    /// Constant, random, lexical.
    pub(super) scores: [Option<f64>; 3],
}

/// The chi-square that chance alone passes with a probability below `p`: the Wilson–Hilferty approximation, with a Chernoff
/// bound for the quantile of the normal distribution, so on the safe side.
pub(super) fn chi_square_bound(freedom: usize, p: f64) -> f64 {
    let k = freedom as f64;
    let z = (2.0 * (0.5 / p).ln()).sqrt();
    k * (1.0 - 2.0 / (9.0 * k) + z * (2.0 / (9.0 * k)).sqrt()).powi(3)
}
