//! One model in one process: prompts and new tokens, or training steps, timed as the programs beside it time themselves
//! (`benches/peers.py` runs them by turns). A line of JSON for each case.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a bench: wrong shapes are bugs here, and its output is for people

use std::path::PathBuf;
use std::time::{Duration, Instant};

use autograd::Settings;
use bloom::{Batch, Bloom, Config, Decoding, Dtype, Generation, Recompute, Trainer};
use clap::{Parser, Subcommand};
use kernels::linear::Products::{self, Bf16, Stored};
use kernels::sample::Philox;
use serde_json::json;
use tensor::Device;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    mode: Option<Mode>,
    /// Given by cargo
    #[arg(long, global = true)]
    bench: bool,
    /// Given by cargo: that it runs is all that is asked
    #[arg(long, global = true)]
    test: bool,
}

#[derive(Subcommand)]
enum Mode {
    /// Prompts to their first new tokens, and the tokens after them; weights are held as they are stored
    Infer {
        model: PathBuf,
        #[arg(long, num_args = 1.., default_values_t = [1])]
        batch: Vec<usize>,
        #[arg(long, num_args = 1.., default_values_t = [128])]
        prompt: Vec<usize>,
        #[arg(long, default_value_t = 64)]
        new: usize,
        #[arg(long, default_value_t = 3)]
        reps: usize,
    },
    /// Steps of AdamW: gradients, their norm, the update
    Train {
        model: PathBuf,
        /// Lengths of the documents of a step
        #[arg(long, num_args = 1.., required = true)]
        lengths: Vec<usize>,
        /// The share of a document that is its response
        #[arg(long, default_value_t = 0.15)]
        response: f64,
        #[arg(long, default_value_t = 3)]
        steps: usize,
        /// Compute blocks again in the backward pass, for less memory
        #[arg(long)]
        recompute: bool,
        /// Multiply in bf16, where the processor can
        #[arg(long)]
        bf16: bool,
    },
}

fn main() {
    // As the binary does it: on one of the threads that share the work.
    rayon::scope(|_| run(Args::parse()));
}

fn run(args: Args) {
    match args.mode {
        Some(Mode::Infer { model, batch, prompt, new, reps }) => {
            let start = Instant::now();
            let model = Bloom::load(&model, Dtype::Stored).unwrap();
            let what = model.params().iter().find(|p| p.value.shape().len() == 2).unwrap().value.dtype().to_string();
            let load = start.elapsed().as_secs_f64();
            for &batch in &batch {
                for &prompt in &prompt {
                    infer(&model, &what, load, [batch, prompt, new], reps);
                }
            }
        }
        Some(Mode::Train { model, lengths, response, steps, recompute, bf16 }) => {
            let how = (if recompute { Recompute::Again } else { Recompute::Keep }, if bf16 { Bf16 } else { Stored });
            train(Bloom::load(&model, Dtype::F32).unwrap(), &lengths, response, steps, how);
        }
        None => {
            let model = Bloom::random(Config::new(64, 2, 4, 512).unwrap(), 1).unwrap();
            infer(&model, "f32", 0.0, [2, 16, 4], 1);
            train(model, &[24, 40], 0.15, 1, (Recompute::Again, Bf16));
            println!("of a model of {} weights; see --help", 64 * 512);
        }
    }
}

fn infer(model: &Bloom, weights: &str, load: f64, [batch, prompt, new]: [usize; 3], reps: usize) {
    let prompts: Vec<Vec<u32>> =
        ids(batch * prompt, model.vocab(), prompt as u64).chunks(prompt).map(<[u32]>::to_vec).collect();
    let settings = Generation {
        decoding: Decoding::Greedy,
        answers: 1,
        max_new_tokens: new,
        eos: u32::MAX,
        limit: model.vocab(),
        repetition_penalty: 1.0,
        seed: 1,
        first: 0,
        batch,
    };
    let times: Vec<[f64; 2]> = (0..=reps).map(|_| times(model, &prompts, &settings)).collect();
    let [first, rest] = [0, 1].map(|i| median(times[1..].iter().map(|times| times[i])));
    println!(
        "{}",
        json!({
            "weights": weights, "batch": batch, "prompt": prompt, "new": new, "load_s": load,
            "prefill_tps": (batch * prompt) as f64 / first, "decode_tps": (batch * (new - 1)) as f64 / rest,
            "peak_rss_gib": peak_gib(),
        })
    );
}

/// Seconds to all first new tokens, and from there to the last.
fn times(model: &Bloom, prompts: &[Vec<u32>], settings: &Generation) -> [f64; 2] {
    let (start, mut seen, mut first) = (Instant::now(), 0, Duration::ZERO);
    model
        .generate(prompts, settings, &mut |_, _, _| {
            seen += 1;
            if seen == prompts.len() {
                first = start.elapsed();
            }
            true
        })
        .unwrap();
    [first.as_secs_f64(), start.elapsed().as_secs_f64() - first.as_secs_f64()]
}

fn train(model: Bloom, lengths: &[usize], response: f64, steps: usize, (recompute, products): (Recompute, Products)) {
    let mut bounds = vec![0u32];
    let mut rows = Vec::new();
    for &length in lengths {
        let start = *bounds.last().unwrap();
        let end = start + length as u32;
        let answer = ((length as f64 * response).round() as u32).clamp(1, length as u32 - 1);
        rows.extend(end - answer - 1..end - 1);
        bounds.push(end);
    }
    let tokens: usize = lengths.iter().sum();
    let (vocab, targets) = (model.vocab(), ids(rows.len(), model.vocab(), 2));
    let batch = Batch { ids: ids(tokens, vocab, 1), bounds, targets, rows };
    let mut trainer = Trainer::new(model, Settings::default(), recompute, &Device::Cpu).unwrap();
    trainer.set_products(products);
    let scale = 1.0 / batch.rows.len() as f32;
    let mut step = || {
        let start = Instant::now();
        trainer.accumulate(&batch, scale).unwrap();
        let gradients = start.elapsed();
        let norm = trainer.grad_norm().unwrap();
        trainer.update(&norm, 1e-5).unwrap();
        [start.elapsed(), gradients].map(|time| time.as_secs_f64())
    };
    let times: Vec<[f64; 2]> = (0..=steps).map(|_| step()).collect();
    let [whole, gradients] = [0, 1].map(|i| median(times[1..].iter().map(|times| times[i])));
    println!(
        "{}",
        json!({
            "documents": lengths.len(), "tokens": tokens, "labelled": batch.rows.len(), "step_s": whole,
            "gradients_s": gradients, "tokens_per_s": tokens as f64 / whole, "peak_rss_gib": peak_gib(),
        })
    );
}

fn ids(count: usize, vocab: usize, stream: u64) -> Vec<u32> {
    let random = Philox::new(1, stream);
    (0..count as u64).map(|i| (random.uniform(i) * vocab as f64) as u32).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The most memory that this process has had, where Linux tells.
fn peak_gib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? / f64::from(1 << 20))
}
