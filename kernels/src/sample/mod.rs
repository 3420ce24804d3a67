//! Choosing the next token from logits `[v]`, as Hugging Face's `generation/logits_process.py`: the repetition penalty is a
//! processor of its own ([`penalize`]); then temperature, top-k, top-p and min-p in this order ([`sample`]), each on what the
//! one before has left. Randomness comes from outside, as a number in [0, 1) of a [`Philox`] stream.

mod cuda;
mod philox;
#[cfg(test)]
mod spec;

pub use philox::Philox;

use std::borrow::Cow;

use rayon::prelude::*;
use tensor::{DType, Device, Tensor};

use crate::error::{expect, of};
use crate::simd::{self, Work};
use crate::{Error, Result};

const OP: &str = "sample";

/// How to choose a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 is greedy: the most likely token, whatever the rest says.
    pub temperature: f32,
    /// Keep the k most likely tokens and those as likely as the last of them; 0 keeps all.
    pub top_k: usize,
    /// Keep the most likely tokens until their probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens of at least this share of the largest probability; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen before; 1 leaves them. For [`penalize`].
    pub repetition_penalty: f32,
}

impl Default for Sampling {
    /// Greedy, with nothing filtered or penalised.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

/// What there is to know of a sequence whose next token is to be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The row of its logits.
    pub row: usize,
    /// Tokens seen before, which the repetition penalty makes less likely.
    pub seen: &'a [u32],
    /// A number in [0, 1), as of [`Philox::uniform`]; greedy choices do without.
    pub uniform: f64,
}

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The token.
    pub token: u32,
    /// Whether all logits of the row (below the limit) are finite: of others no token is the likeliest.
    pub finite: bool,
}

/// The next token of each choice, all below `limit`, from logits `[b, v]` in f32: [`penalize`] and [`sample`]. On a GPU only the tokens
/// come back; its sums are in another order than the CPU's, so that a token differs where `uniform` is within some 1e-13 of the
/// border between two.
///
/// # Errors
/// A row of b or more, a limit above v, or logits that are not f32 of two axes.
pub fn choose(logits: &Tensor, limit: usize, settings: &Sampling, choices: &[Choice]) -> Result<Vec<Chosen>> {
    let (b, v) = logits.dims2().map_err(of(OP))?;
    expect(OP, "dtype of the logits", logits.dtype(), DType::F32)?;
    let wrong = |what, wanted, found: usize| Err(Error::Argument { op: OP, what, wanted, found: found.to_string() });
    if limit > v {
        return wrong("the limit", format!("at most {v}"), limit);
    }
    if let Some(choice) = choices.iter().find(|choice| choice.row >= b) {
        return wrong("a row", format!("below {b}"), choice.row);
    }
    if let Device::Cuda(gpu) = logits.device() {
        return cuda::choose(gpu, logits, limit, settings, choices);
    }
    let values = logits.values::<f32>().map_err(of(OP))?;
    let one = |choice: &Choice| {
        let row = &values[choice.row * v..][..limit];
        let mut penalized = Cow::Borrowed(row);
        if settings.repetition_penalty != 1.0 {
            penalize(penalized.to_mut(), choice.seen, settings.repetition_penalty);
        }
        let token = sample(&penalized, settings, choice.uniform);
        Chosen { token, finite: simd::run(Scan(row)).finite }
    };
    Ok(choices.par_iter().map(one).collect())
}

/// Makes the tokens `seen` less likely (`RepetitionPenaltyLogitsProcessor`; Keskar et al., arXiv:1909.05858): negative
/// logits are multiplied by `penalty`, others divided by it. An id counts once, however often it was seen; ids past the
/// vocabulary are passed over.
pub fn penalize(logits: &mut [f32], seen: &[u32], penalty: f32) {
    for id in distinct(seen) {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
    }
}

fn distinct(ids: &[u32]) -> Vec<u32> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The id of the largest logit: the lowest of several; never that of a NaN, unless there is nothing else, then 0.
pub fn argmax(logits: &[f32]) -> u32 {
    let largest = simd::run(Scan(logits)).largest;
    // By parts, in each of which all are compared at once.
    let has_it = |part: &[f32]| part.iter().map(|&x| u32::from(x == largest)).sum::<u32>() > 0;
    let Some(first) = logits.chunks(LANES).position(has_it) else { return 0 };
    let within = logits[first * LANES..].iter().position(|&x| x == largest);
    (first * LANES + within.unwrap_or(0)) as u32
}

/// Logits compared side by side.
const LANES: usize = 64;

/// What one look at all logits tells.
struct Scan<'a>(&'a [f32]);

struct Scanned {
    /// −∞ if there is nothing else than that and NaN.
    largest: f32,
    /// Whether all are.
    finite: bool,
}

impl Work for Scan<'_> {
    type Output = Scanned;

    #[inline(always)]
    #[allow(clippy::inline_always)]
    fn call<const FMA: bool>(self) -> Scanned {
        let (mut most, mut zeros) = ([f32::NEG_INFINITY; LANES], [0.0f32; LANES]);
        let (whole, rest) = self.0.as_chunks::<LANES>();
        for part in whole {
            for l in 0..LANES {
                most[l] = if part[l] > most[l] { part[l] } else { most[l] };
                // Not 0 but NaN of what is infinite or NaN.
                zeros[l] += part[l] * 0.0;
            }
        }
        let finite = zeros.iter().all(|zero| *zero == 0.0) && rest.iter().all(|x| x.is_finite());
        Scanned { largest: most.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &x| most.max(x)), finite }
    }
}

/// Turns logits into log-probabilities, in place. The sum is f64, in order of the ids.
pub fn log_softmax(logits: &mut [f32]) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - f64::from(max)).exp()).sum();
    let total = f64::from(max) + sum.ln();
    for x in logits {
        *x = (f64::from(*x) - total) as f32;
    }
}

/// A token drawn by `settings`: the first, in order of ids, at which the kept tokens' summed probability exceeds
/// `uniform` [0, 1). A NaN is never drawn; with nothing but NaN and −∞, as [`argmax`].
pub fn sample(logits: &[f32], settings: &Sampling, uniform: f64) -> u32 {
    let best = argmax(logits);
    let top = logits.get(best as usize).copied().unwrap_or(f32::NEG_INFINITY);
    if settings.temperature <= 0.0 || !top.is_finite() {
        return best;
    }
    let temperature = f64::from(settings.temperature);
    let weight = |logit: f32| ((f64::from(logit) - f64::from(top)) / temperature).exp();
    // Weights are probabilities over that of the best token, which is 1.
    let mut kept: Vec<Candidate> = (0u32..)
        .zip(logits)
        .filter(|(_, logit)| !logit.is_nan())
        .map(|(id, &logit)| Candidate { id, logit, weight: weight(logit) })
        .filter(|candidate| candidate.weight > 0.0)
        .collect();
    if settings.top_k > 0 && settings.top_k < kept.len() {
        let (_, last, _) = kept.select_nth_unstable_by(settings.top_k - 1, Candidate::order);
        let last = last.logit;
        kept.retain(|candidate| candidate.logit >= last);
    }
    if settings.top_p < 1.0 {
        kept.sort_unstable_by_key(|candidate| candidate.id);
        let total: f64 = kept.iter().map(|candidate| candidate.weight).sum();
        keep_most_likely(&mut kept, f64::from(settings.top_p) * total);
    }
    kept.retain(|candidate| candidate.weight >= f64::from(settings.min_p) || candidate.id == best);
    kept.sort_unstable_by_key(|candidate| candidate.id);
    let total: f64 = kept.iter().map(|candidate| candidate.weight).sum();
    let (target, mut sum) = (uniform * total, 0.0);
    for candidate in &kept {
        sum += candidate.weight;
        if sum > target {
            return candidate.id;
        }
    }
    kept.last().map_or(best, |candidate| candidate.id)
}

struct Candidate {
    id: u32,
    logit: f32,
    weight: f64,
}

impl Candidate {
    /// Likelier first, then by id. The two zeros are one.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        (other.logit + 0.0).total_cmp(&(self.logit + 0.0)).then(self.id.cmp(&other.id))
    }
}

/// Keeps the likeliest candidates as long as those before them sum to less than `mass`, and one at least. Sorts only
/// as many as that takes: of a vocabulary, few.
fn keep_most_likely(kept: &mut Vec<Candidate>, mass: f64) {
    let mut size = 64.min(kept.len());
    loop {
        if size < kept.len() {
            kept.select_nth_unstable_by(size, Candidate::order);
        }
        kept[..size].sort_unstable_by(Candidate::order);
        let mut before = 0.0;
        for (i, candidate) in kept[..size].iter().enumerate() {
            if i > 0 && before >= mass {
                kept.truncate(i);
                return;
            }
            before += candidate.weight;
        }
        if size == kept.len() {
            return;
        }
        size = (size * 8).min(kept.len());
    }
}
