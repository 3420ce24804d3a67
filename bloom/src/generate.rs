use std::collections::VecDeque;
use std::iter::repeat_n;

use kernels::attention::KvCache;
use kernels::embedding::Ids;
use kernels::sample::{self, Choice, Philox, Sampling};
use rayon::prelude::*;
use tensor::{Device, Tensor};

use crate::beam::BeamSearch;
use crate::decode::Decoder;
use crate::prefix::{Reader, order};
use crate::rule::{Rule, choose_among};
use crate::{Bloom, Error, Result};

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoding {
    /// The likeliest token, every time.
    Greedy,
    /// Drawn at random, from what the settings leave.
    Sample(Sampling),
    /// Several hypotheses side by side, as in transformers' beam search (`early_stopping=False`).
    Beam {
        /// Hypotheses kept.
        beams: usize,
        /// The power of the length by which a finished hypothesis' log-probability is divided.
        length_penalty: f32,
    },
}

/// What is asked of a generation.
#[derive(Clone, Debug)]
pub struct Generation {
    /// How tokens are chosen.
    pub decoding: Decoding,
    /// Answers for each prompt, the best first where they have scores.
    pub answers: usize,
    /// New tokens at most.
    pub max_new_tokens: usize,
    /// The token that ends an answer.
    pub eos: u32,
    /// Ids from here on are never produced: the tokenizer's size, where the embedding has more rows.
    pub limit: usize,
    /// Divides the logits of tokens already seen, if positive (multiplies, if negative): 1 leaves them alone.
    pub repetition_penalty: f32,
    /// Keys the random draws, together with the prompt's place and the answer's.
    pub seed: u64,
    /// The place of the first prompt: 0, or how many were answered before where all are answered in several calls.
    pub first: u64,
    /// Sequences that run side by side. The answers do not depend on it.
    pub batch: usize,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// By the end-of-text token, which is not among the answer's ids.
    Eos,
    /// By its length.
    Length,
    /// By the caller.
    Stopped,
}

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The new tokens, without the end of text.
    pub ids: Vec<u32>,
    /// The log-probability over the penalised length, from a beam search.
    pub score: Option<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// Tokens of prompts that are handed to the model together, at most, unless a single prompt is longer.
pub(crate) const PREFILL: usize = 4096;

/// A sequence that draws or takes the likeliest token.
struct Running<'r> {
    prompt: usize,
    /// What its answer must keep to.
    rule: Option<&'r Rule<'r>>,
    answer: usize,
    /// The prompt's tokens and the new ones.
    ids: Vec<u32>,
    start: usize,
    cache: KvCache,
}

/// A prompt in beam search, with a cache for each hypothesis.
struct Searching {
    prompt: usize,
    search: BeamSearch,
    caches: Vec<KvCache>,
}

impl Bloom {
    /// Continues each prompt. `on_token(prompt, answer, id)` is told of each token as it comes (not in beam search) and
    /// ends that answer by returning `false`. Neither the batch size nor the other prompts change an answer; what prompts
    /// share at their beginning is read once.
    ///
    /// # Errors
    /// An empty prompt, an id at or beyond the vocabulary, settings that make no sense, or weights so large that the
    /// logits overflow.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        settings: &Generation,
        on_token: &mut dyn FnMut(usize, usize, u32) -> bool,
    ) -> Result<Vec<Vec<Completion>>> {
        self.generate_within(prompts, &vec![None; prompts.len()], settings, on_token)
    }

    /// As [`Bloom::generate`], where the answers to a prompt keep to its [`Rule`], if it has one.
    ///
    /// # Errors
    /// As [`Bloom::generate`]; rules in a beam search, another number of rules than prompts, or a rule that no answer of the
    /// wanted length can keep to.
    pub fn generate_within(
        &self,
        prompts: &[Vec<u32>],
        rules: &[Option<&Rule>],
        settings: &Generation,
        on_token: &mut dyn FnMut(usize, usize, u32) -> bool,
    ) -> Result<Vec<Vec<Completion>>> {
        settings.check(self)?;
        if rules.len() != prompts.len() {
            return Err(Error::Input(format!("{} rules for {} prompts", rules.len(), prompts.len())));
        }
        if let Some(at) = prompts.iter().position(Vec::is_empty) {
            return Err(Error::Input(format!("prompt {} is empty: wanted at least one token", at + 1)));
        }
        self.awake(|| match settings.decoding {
            Decoding::Beam { .. } if rules.iter().any(Option::is_some) => {
                Err(Error::Input("a beam search keeps to no rules: wanted greedy decoding or sampling".into()))
            }
            Decoding::Beam { beams, length_penalty } => self.search(prompts, settings, beams, length_penalty),
            _ => self.draw(prompts, rules, settings, on_token),
        })
    }

    fn draw<'r>(
        &self,
        prompts: &[Vec<u32>],
        rules: &[Option<&'r Rule<'r>>],
        settings: &Generation,
        on_token: &mut dyn FnMut(usize, usize, u32) -> bool,
    ) -> Result<Vec<Vec<Completion>>> {
        let blank = Completion { ids: Vec::new(), score: None, finish: Finish::Length };
        let mut done = vec![vec![blank; settings.answers]; prompts.len()];
        if settings.max_new_tokens == 0 {
            return Ok(done);
        }
        let mut waiting = VecDeque::from(order(prompts));
        let mut running: Vec<Running> = Vec::new();
        let (mut reader, mut decoder) = (Reader::new(self, settings.max_new_tokens), Decoder::new(self));
        let mut take = |running: &mut Vec<Running<'r>>, mut s: Running<'r>, id: u32| {
            let mut finish = None;
            if id == settings.eos {
                finish = Some(Finish::Eos);
            } else {
                s.ids.push(id);
                if !on_token(s.prompt, s.answer, id) {
                    finish = Some(Finish::Stopped);
                } else if s.ids.len() - s.start == settings.max_new_tokens {
                    finish = Some(Finish::Length);
                }
            }
            match finish {
                None => running.push(s),
                Some(finish) => {
                    let ids = s.ids.split_off(s.start);
                    done[s.prompt][s.answer] = Completion { ids, score: None, finish };
                }
            }
        };
        while !waiting.is_empty() || !running.is_empty() {
            let room = settings.batch.saturating_sub(running.len()).div_ceil(settings.answers);
            let room = if running.is_empty() { room.max(1) } else { room };
            let next = next_prompts(&mut waiting, prompts, room);
            if !next.is_empty() {
                for read in reader.read(prompts, &next, waiting.front().copied())? {
                    let logits = self.head(&read.states)?;
                    let mut fresh = Vec::with_capacity(next.len() * settings.answers);
                    for (row, (prompt, cache)) in read.prompts.into_iter().zip(read.caches).enumerate() {
                        let (start, rule) = (prompts[prompt].len(), rules[prompt]);
                        for (answer, cache) in repeat_n(cache, settings.answers).enumerate() {
                            let ids = prompts[prompt].clone();
                            fresh.push((row, Running { prompt, rule, answer, ids, start, cache }));
                        }
                    }
                    let chosen = settings.choose(&logits, fresh.iter().map(|(row, s)| (*row, s)))?;
                    fresh.into_iter().zip(chosen).for_each(|((_, s), id)| take(&mut running, s, id));
                }
                continue;
            }
            let last: Vec<u32> = running.iter().filter_map(|s| s.ids.last().copied()).collect();
            let mut caches: Vec<&mut KvCache> = running.iter_mut().map(|s| &mut s.cache).collect();
            let logits = decoder.step(&last, &mut caches)?;
            // Of all that a GPU computes for a token, only the token comes back.
            let chosen = settings.choose(&logits, running.iter().enumerate())?;
            let each = std::mem::take(&mut running).into_iter();
            each.zip(chosen).for_each(|(s, id)| take(&mut running, s, id));
        }
        Ok(done)
    }

    fn search(
        &self,
        prompts: &[Vec<u32>],
        settings: &Generation,
        beams: usize,
        length_penalty: f32,
    ) -> Result<Vec<Vec<Completion>>> {
        if settings.max_new_tokens == 0 {
            let blank = Completion { ids: Vec::new(), score: Some(0.0), finish: Finish::Length };
            return Ok(vec![vec![blank; settings.answers]; prompts.len()]);
        }
        let mut done = vec![Vec::new(); prompts.len()];
        let mut waiting = VecDeque::from(order(prompts));
        // On a GPU a beam that forks copies all of its cache, room or not.
        let room = if self.device() == &Device::Cpu { settings.max_new_tokens } else { 0 };
        let mut reader = Reader::new(self, room);
        let mut running: Vec<Searching> = Vec::new();
        let v = self.vocab();
        while !waiting.is_empty() || !running.is_empty() {
            let room = (settings.batch / beams).saturating_sub(running.len());
            let room = if running.is_empty() { room.max(1) } else { room };
            let next = next_prompts(&mut waiting, prompts, room);
            if next.is_empty() {
                let last: Vec<u32> = running.iter().flat_map(|s| s.search.last_tokens()).collect();
                let mut caches: Vec<&mut KvCache> = running.iter_mut().flat_map(|s| s.caches.iter_mut()).collect();
                let ids = Ids::new(self.device(), &last, v)?;
                let logits = self.decode(&ids, &mut caches, None)?.to_device(&Device::Cpu)?;
                let mut rest = finite(&logits)?;
                for s in &mut running {
                    let (own, others) = rest.split_at(s.caches.len() * v);
                    rest = others;
                    s.advance(own, settings);
                }
            } else {
                for read in reader.read(prompts, &next, waiting.front().copied())? {
                    let logits = self.head(&read.states)?.to_device(&Device::Cpu)?;
                    let logits = finite(&logits)?;
                    for ((prompt, cache), logits) in
                        read.prompts.into_iter().zip(read.caches).zip(logits.chunks_exact(v))
                    {
                        let search = BeamSearch::new(&prompts[prompt], beams, length_penalty);
                        let mut s = Searching { prompt, search, caches: vec![cache] };
                        s.advance(logits, settings);
                        running.push(s);
                    }
                }
            }
            running.retain_mut(|s| {
                let ended = s.search.is_done();
                if ended {
                    done[s.prompt] = s.search.take_best(settings.answers);
                }
                !ended
            });
        }
        Ok(done)
    }
}

/// The logits, if all are numbers: of others no token is the likeliest.
fn finite(logits: &Tensor) -> Result<&[f32]> {
    let logits = logits.values::<f32>()?;
    if logits.iter().all(|x| x.is_finite()) { Ok(logits) } else { Err(overflow()) }
}

pub(crate) fn overflow() -> Error {
    Error::Input("the model's logits are not finite numbers: its weights overflow".into())
}

/// The prompts to read next: as many as there is room for, and within [`PREFILL`] tokens.
pub(crate) fn next_prompts(waiting: &mut VecDeque<usize>, prompts: &[Vec<u32>], room: usize) -> Vec<usize> {
    let mut next = Vec::new();
    let mut tokens = 0;
    while next.len() < room
        && let Some(&i) = waiting.front()
    {
        tokens += prompts[i].len();
        if !next.is_empty() && tokens > PREFILL {
            break;
        }
        waiting.pop_front();
        next.push(i);
    }
    next
}

impl Searching {
    fn advance(&mut self, logits: &[f32], settings: &Generation) {
        let parents = self.search.advance(logits, settings);
        // A hypothesis' cache moves to its last child and is copied for the others.
        let mut left: Vec<Option<KvCache>> = std::mem::take(&mut self.caches).into_iter().map(Some).collect();
        for (i, &parent) in parents.iter().enumerate() {
            let last = !parents[i + 1..].contains(&parent);
            let cache = if last { left[parent].take() } else { left[parent].clone() };
            self.caches.extend(cache);
        }
    }
}

impl Generation {
    fn check(&self, model: &Bloom) -> Result<()> {
        let wrong = |what: String| Err(Error::Input(what));
        if self.limit == 0 || self.limit > model.vocab() {
            let rows = model.vocab();
            return wrong(format!("the tokenizer has {} tokens, the model {rows} rows in its vocabulary", self.limit));
        }
        if self.answers == 0 || self.batch == 0 {
            return wrong("answers and batch: wanted at least 1".into());
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return wrong(format!("repetition penalty: wanted a positive number, found {}", self.repetition_penalty));
        }
        match &self.decoding {
            Decoding::Greedy if self.answers > 1 => {
                wrong("greedy decoding has one answer: sample, or search with beams".into())
            }
            Decoding::Greedy => Ok(()),
            Decoding::Beam { beams, length_penalty } => {
                if *beams == 0 || *beams > self.limit / 2 {
                    return wrong(format!("beams: wanted 1 to half the vocabulary, found {beams}"));
                }
                if self.answers > *beams {
                    return wrong(format!("{} answers from {beams} beams: wanted at most as many", self.answers));
                }
                if !length_penalty.is_finite() {
                    return wrong(format!("length penalty: wanted a number, found {length_penalty}"));
                }
                Ok(())
            }
            Decoding::Sample(s) => {
                let share = |name: &str, x: f32| {
                    if (0.0..=1.0).contains(&x) { Ok(()) } else { wrong(format!("{name}: wanted 0 to 1, found {x}")) }
                };
                if !(s.temperature > 0.0 && s.temperature.is_finite()) {
                    return wrong(format!("temperature: wanted a positive number, found {}", s.temperature));
                }
                share("top-p", s.top_p)?;
                share("min-p", s.min_p)
            }
        }
    }

    /// Makes what must not be produced impossible and what was said before less likely.
    pub(crate) fn process(&self, scores: &mut [f32], seen: &[u32]) {
        if self.repetition_penalty != 1.0 {
            sample::penalize(scores, seen, self.repetition_penalty);
        }
        scores[self.limit..].fill(f32::NEG_INFINITY);
    }

    /// The next token of each sequence, from the row of the logits `[b, v]` that stands beside it.
    fn choose<'a, 'r: 'a>(
        &self,
        logits: &Tensor,
        sequences: impl Iterator<Item = (usize, &'a Running<'r>)>,
    ) -> Result<Vec<u32>> {
        let (sampling, draws) = match self.decoding {
            Decoding::Sample(sampling) => (sampling, true),
            _ => (Sampling::default(), false),
        };
        let sampling = Sampling { repetition_penalty: self.repetition_penalty, ..sampling };
        let choice = |(row, s): (usize, &'a Running)| {
            let stream = (self.first + s.prompt as u64) << 20 | s.answer as u64;
            let draw = || Philox::new(self.seed, stream).uniform((s.ids.len() - s.start) as u64);
            Choice { row, seen: &s.ids, uniform: if draws { draw() } else { 0.0 } }
        };
        let (bound, free): (Vec<_>, Vec<_>) = sequences.enumerate().partition(|(_, (_, s))| s.rule.is_some());
        let choices: Vec<Choice> = free.iter().map(|(_, sequence)| choice(*sequence)).collect();
        let chosen = sample::choose(logits, self.limit, &sampling, &choices)?;
        if !chosen.iter().all(|c| c.finite) {
            return Err(overflow());
        }
        let mut all = vec![0; bound.len() + free.len()];
        free.iter().zip(chosen).for_each(|((at, _), c)| all[*at] = c.token);
        if !bound.is_empty() {
            let logits = logits.to_device(&Device::Cpu)?;
            let (logits, v) = (logits.values::<f32>()?, logits.dims2()?.1);
            let chosen = bound.par_iter().map(|&(at, (row, s))| {
                let left = self.max_new_tokens - (s.ids.len() - s.start);
                let allowed = s.rule.map(|rule| rule(&s.ids[s.start..], left)).unwrap_or_default();
                let values = &logits[row * v..][..self.limit];
                if !values.iter().all(|x| x.is_finite()) {
                    return Err(overflow());
                }
                let id = choose_among(values, &allowed, &sampling, &choice((row, s)));
                id.map(|id| (at, id)).ok_or_else(|| {
                    Error::Input(format!("prompt {}: no token may follow, with {left} left to say", s.prompt + 1))
                })
            });
            chosen.collect::<Result<Vec<_>>>()?.into_iter().for_each(|(at, id)| all[at] = id);
        }
        Ok(all)
    }
}
