//! Whole models: a training step, prefill, a decoded token. A small shape to train from scratch; BLOOM-560M's, which takes
//! about 12 GiB and many minutes, with `ECOM_BENCH_560M=1`. Random weights: speed does not depend on them.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a bench: wrong shapes are bugs here, and its output is for people

mod ceilings;

use std::time::{Duration, Instant};

use autograd::Settings;
use bloom::{Batch, Bloom, Config, Decoding, Dtype, Generation, Recompute, Trainer};
use ceilings::{Suite, Work, random_ids};
use tensor::DType;

/// A packed batch: documents of 128 tokens, of which 19 (15 %) are the response.
const DOCUMENTS: usize = 8;
const LENGTH: usize = 128;
const RESPONSE: usize = 19;
/// Tokens decoded after a prompt; a timed iteration is one of them.
const NEW: u64 = 16;

fn main() {
    let mut suite = Suite::new();
    shape(&mut suite, "small", || Config::new(384, 6, 6, 16_384).unwrap());
    if std::env::var_os("ECOM_BENCH_560M").is_some_and(|value| value == "1") {
        shape(&mut suite, "bloom560m", || Config::new(1024, 24, 16, 250_880).unwrap());
    }
}

fn shape(suite: &mut Suite, name: &str, config: impl Fn() -> Config) {
    train(suite, name, config());
    let model = Bloom::random(config(), 1).unwrap();
    prefill(suite, &format!("model/prefill128/{name}/f32"), &model);
    for batch in [1, 8] {
        decode(suite, &format!("model/decode/{name}/f32/b{batch}"), &model, batch);
    }
    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path()).unwrap();
    drop(model);
    let model = Bloom::load(folder.path(), Dtype::Bf16).unwrap();
    for batch in [1, 8] {
        decode(suite, &format!("model/decode/{name}/bf16/b{batch}"), &model, batch);
    }
    for dtype in [DType::Q8, DType::Q4] {
        let model = model.clone().quantize(dtype).unwrap();
        prefill(suite, &format!("model/prefill128/{name}/{dtype}"), &model);
        for batch in [1, 8] {
            decode(suite, &format!("model/decode/{name}/{dtype}/b{batch}"), &model, batch);
        }
    }
}

/// Gradients of one packed batch, their norm, the update.
fn train(suite: &mut Suite, name: &str, config: Config) {
    let t = DOCUMENTS * LENGTH;
    let rows: Vec<u32> =
        (1..=DOCUMENTS).flat_map(|i| i * LENGTH - 1 - RESPONSE..i * LENGTH - 1).map(|i| i as u32).collect();
    let batch = Batch {
        ids: random_ids(t, config.vocab),
        bounds: (0..=DOCUMENTS).map(|i| (i * LENGTH) as u32).collect(),
        targets: random_ids(rows.len(), config.vocab),
        rows,
    };
    let part = Parts::of(&config);
    // Forward once and backward twice, attention two and a half times. Bytes of the weights and what goes with them
    // alone: read twice, gradients added to, read for the norm and cleared, seven for the update.
    let attention = part.attention(DOCUMENTS * LENGTH * (LENGTH + 1) / 2);
    let flops = 6.0 * (part.body * t as f64 + part.head * batch.rows.len() as f64) + 3.5 * attention;
    let work = Work { flops, bytes: 4.0 * 13.0 * (part.body + part.head) };
    let model = Bloom::random(config, 1).unwrap();
    let mut trainer = Trainer::new(model, Settings::default(), Recompute::Keep, &tensor::Device::Cpu).unwrap();
    let scale = 1.0 / batch.rows.len() as f32;
    suite.case(&format!("model/train/{name}/t{t}"), work, || {
        let losses = trainer.accumulate(&batch, scale).unwrap();
        let norm = trainer.grad_norm().unwrap();
        trainer.update(&norm, 1e-4).unwrap();
        losses
    });
}

/// A prompt of 128 tokens to its first new token.
fn prefill(suite: &mut Suite, name: &str, model: &Bloom) {
    let part = Parts::of(model.config());
    let flops = 2.0 * (part.body * LENGTH as f64 + part.head) + part.attention(LENGTH * (LENGTH + 1) / 2);
    let work = Work { flops, bytes: size(model) };
    let prompts = [random_ids(LENGTH, model.vocab())];
    let settings = greedy(model, 1, 1);
    suite.case(name, work, || model.generate(&prompts, &settings, &mut |_, _, _| true).unwrap());
}

/// One more token for each of `batch` prompts of 128, from the second new token on.
fn decode(suite: &mut Suite, name: &str, model: &Bloom, batch: usize) {
    let part = Parts::of(model.config());
    let tokens = batch * (LENGTH + NEW as usize / 2);
    let weights = part.body + part.head;
    let cached = 4.0 * (2 * model.config().layers * model.config().hidden * tokens) as f64;
    let flops = 2.0 * batch as f64 * weights + part.attention(tokens);
    let work = Work { flops, bytes: size(model) + cached };
    let prompts: Vec<Vec<u32>> =
        random_ids(batch * LENGTH, model.vocab()).chunks(LENGTH).map(<[u32]>::to_vec).collect();
    let settings = greedy(model, batch, NEW as usize + 1);
    suite.timed(name, work, |tokens| {
        let runs = tokens.div_ceil(NEW);
        let time: Duration = (0..runs).map(|_| after_first(model, &prompts, &settings)).sum();
        // As if exactly `tokens` had been decoded.
        time.mul_f64(tokens as f64 / (runs * NEW) as f64)
    });
}

/// Bytes of the weights.
fn size(model: &Bloom) -> f64 {
    model.params().iter().map(|p| p.value.size() as f64).sum()
}

/// The time from every prompt's first new token to its last.
fn after_first(model: &Bloom, prompts: &[Vec<u32>], settings: &Generation) -> Duration {
    let (mut seen, mut first) = (0, Instant::now());
    let done = model.generate(prompts, settings, &mut |_, _, _| {
        seen += 1;
        if seen == prompts.len() {
            first = Instant::now();
        }
        true
    });
    let time = first.elapsed();
    assert_eq!(seen, prompts.len() * settings.max_new_tokens, "tokens of {} prompts", done.unwrap().len());
    time
}

/// The likeliest tokens, never the end.
fn greedy(model: &Bloom, batch: usize, max_new_tokens: usize) -> Generation {
    Generation {
        decoding: Decoding::Greedy,
        answers: 1,
        max_new_tokens,
        eos: u32::MAX,
        limit: model.vocab(),
        repetition_penalty: 1.0,
        seed: 1,
        first: 0,
        batch,
    }
}

/// A model's sizes, for counting.
struct Parts {
    /// Weights outside the embedding.
    body: f64,
    /// Weights of the head, which is the embedding.
    head: f64,
    /// Flops of the attention of one query and one key, in all layers.
    pair: f64,
}

impl Parts {
    fn of(config: &Config) -> Self {
        let head = config.vocab * config.hidden;
        let pair = 4 * config.hidden * config.layers;
        Self { body: (config.parameters() - head) as f64, head: head as f64, pair: pair as f64 }
    }

    fn attention(&self, pairs: usize) -> f64 {
        self.pair * pairs as f64
    }
}
