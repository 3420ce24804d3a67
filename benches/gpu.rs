//! Times on a GPU, beside the copy bandwidth measured in the same run: `cargo xtask gpu` makes one binary of it that needs no Rust
//! where it runs. `--test` runs everything once at small sizes. Without a GPU there is nothing to do, and it says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a program that reports and stops at once

use std::time::Instant;

use autograd::Settings;
use bloom::{Batch, Bloom, Config, Decoding, Generation, Recompute, Trainer};
use kernels::{attention, layer_norm, linear};
use tensor::{DType, Device, Gpu, Tensor};

/// What is measured, once or at full size.
struct Run {
    gpu: Gpu,
    device: Device,
    times: usize,
    small: bool,
    /// Bytes a second, read and written.
    copy: f64,
}

fn main() {
    let small = std::env::args().any(|a| a == "--test");
    let Ok(gpu) = Gpu::open(0) else {
        println!("gpu: skipped, as there is no GPU");
        return;
    };
    let device = Device::Cuda(gpu.clone());
    println!("gpu: {}, {}", gpu.name().unwrap(), if small { "everything once, small" } else { "medians of 20" });
    let mut run = Run { gpu, device, times: if small { 1 } else { 20 }, small, copy: 0.0 };
    let bytes = run.size(1 << 30, 1 << 16);
    let from = run.zeros(&[bytes / 4], DType::F32);
    let seconds = run.time(|| {
        let mut to = from.clone();
        // Shared memory is copied before it is written to.
        to.gpu_pointer_mut(&run.gpu).unwrap();
    });
    run.copy = 2.0 * bytes as f64 / seconds;
    println!("copy within the GPU's memory: {:.0} GB/s read and written", run.copy / 1e9);
    let shapes = if small {
        vec![("tiny", 64, 2, 1, 320)]
    } else {
        vec![("560m", 1024, 16, 24, 250_880), ("1b7", 2048, 16, 24, 250_880)]
    };
    for (name, c, heads, layers, vocab) in shapes {
        run.operations(name, c, heads);
        run.model(name, &Config::new(c, layers, heads, vocab).unwrap());
    }
}

impl Run {
    const fn size(&self, full: usize, small: usize) -> usize {
        if self.small { small } else { full }
    }

    fn zeros(&self, sizes: &[usize], dtype: DType) -> Tensor {
        Tensor::zeros_on(&self.device, sizes, dtype).unwrap()
    }

    /// The median time of some work, in seconds; it is done once before.
    fn time(&self, mut work: impl FnMut()) -> f64 {
        let mut once = || {
            self.gpu.synchronize().unwrap();
            let started = Instant::now();
            work();
            self.gpu.synchronize().unwrap();
            started.elapsed().as_secs_f64()
        };
        once();
        let mut all: Vec<f64> = (0..self.times).map(|_| once()).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    }

    fn line(&self, what: &str, seconds: f64, bytes: f64, flops: f64) {
        let share = bytes / seconds / self.copy * 100.0;
        println!(
            "{what:<32} {:>10.3} ms  {:>8.1} GB/s ({share:>3.0} % of copy)  {:>8.2} TFLOP/s",
            seconds * 1e3,
            bytes / seconds / 1e9,
            flops / seconds / 1e12
        );
    }

    /// Documents as instructions have them: most are short.
    fn bounds(t: usize) -> Vec<u32> {
        let mut bounds = vec![0];
        for length in [150, 90, 310, 60, 200, 120, 700].iter().cycle() {
            let next = bounds.last().copied().unwrap_or(0) + length;
            if next as usize >= t {
                break;
            }
            bounds.push(next);
        }
        bounds.push(t as u32);
        bounds
    }

    fn operations(&self, name: &str, c: usize, heads: usize) {
        let t = self.size(16_384, 48);
        let rows = |n: usize| self.zeros(&[t, n], DType::BF16);
        let vector = |n: usize| self.zeros(&[n], DType::F32);
        let (x, gamma) = (rows(c), vector(c));
        let tc = (t * c) as f64;
        let seconds = self.time(|| drop(layer_norm::forward(&x, &gamma, &gamma, 1e-5).unwrap()));
        self.line(&format!("{name} layer_norm forward"), seconds, 2.0 * tc * 2.0, 0.0);
        let normed = layer_norm::forward(&x, &gamma, &gamma, 1e-5).unwrap();
        let (mut dgamma, mut dbeta) = (vector(c), vector(c));
        let seconds = self.time(|| {
            drop(layer_norm::backward(&x, &x, &gamma, &normed.stats, &mut dgamma, &mut dbeta).unwrap());
        });
        self.line(&format!("{name} layer_norm backward"), seconds, 3.0 * tc * 2.0, 0.0);
        for (layer, n, k) in [("qkv", 3 * c, c), ("dense", c, c), ("up", 4 * c, c), ("down", c, 4 * c)] {
            let (x, dy, w, b) = (rows(k), rows(n), self.zeros(&[n, k], DType::BF16), vector(n));
            let (mut dw, mut db) = (self.zeros(&[n, k], DType::F32), vector(n));
            let bytes = 2.0 * (t * k + n * k + t * n) as f64;
            let flops = 2.0 * (t * n * k) as f64;
            let seconds = self.time(|| drop(linear::forward(&x, &w, &b).unwrap()));
            self.line(&format!("{name} {layer} forward"), seconds, bytes, flops);
            let seconds = self.time(|| drop(linear::backward_input(&dy, &w).unwrap()));
            self.line(&format!("{name} {layer} backward, input"), seconds, bytes, flops);
            let seconds = self.time(|| linear::backward_weight(&dy, &x, &mut dw, &mut db).unwrap());
            self.line(&format!("{name} {layer} backward, weight"), seconds, bytes, flops);
        }
        let d = c / heads;
        for (documents, bounds) in [("instructions", Self::bounds(t)), ("one document", vec![0, t as u32])] {
            let (qkv, dout) = (rows(3 * c), rows(c));
            let pairs: f64 = bounds.windows(2).map(|w| f64::from(w[1] - w[0]).powi(2) / 2.0).sum();
            let flops = 4.0 * pairs * (d * heads) as f64;
            let seconds = self.time(|| drop(attention::forward(&qkv, &bounds, heads).unwrap()));
            self.line(&format!("{name} attention, {documents}"), seconds, 4.0 * tc * 2.0, flops);
            let (out, stats) = attention::forward(&qkv, &bounds, heads).unwrap();
            let seconds = self.time(|| drop(attention::backward(&dout, &qkv, &out, &stats, &bounds, heads).unwrap()));
            self.line(&format!("{name} its backward"), seconds, 9.0 * tc * 2.0, 2.5 * flops);
        }
    }

    /// A training step of packed tokens, 15 % of them responses, and tokens one at a time.
    fn model(&self, name: &str, config: &Config) {
        let t = self.size(16_384, 48);
        let model = Bloom::random(config.clone(), 0).unwrap();
        let mut trainer = Trainer::new(model, Settings::default(), Recompute::Again, &self.device).unwrap();
        let ids: Vec<u32> = (0..t).map(|i| (i * 7919 % config.vocab) as u32).collect();
        let rows: Vec<u32> = (0..t as u32 - 1).filter(|i| i % 20 < 3).collect();
        let targets: Vec<u32> = rows.iter().map(|&i| ids[i as usize + 1]).collect();
        let batch = Batch { ids, bounds: Self::bounds(t), rows, targets };
        let scale = 1.0 / batch.targets.len() as f32;
        let gradient = self.time(|| drop(trainer.accumulate(&batch, scale).unwrap()));
        let update = self.time(|| {
            let norm = trainer.grad_norm().unwrap();
            trainer.update(&norm, 1e-5).unwrap();
        });
        let p = config.parameters() as f64;
        // Blocks twice forward and once backward (recomputed), the head on the response rows.
        let blocks = (config.layers * 12 * config.hidden * config.hidden) as f64;
        let head = (config.vocab * config.hidden) as f64 * batch.targets.len() as f64;
        let needed = 6.0 * (blocks * t as f64 + head);
        self.line(&format!("{name} step, gradients"), gradient, 0.0, needed);
        self.line(&format!("{name} step, update"), update, p * 30.0, 0.0);
        println!("{name} step: {:.0} tokens/s", t as f64 / (gradient + update));
        let model = trainer.into_model();
        let new = self.size(64, 4);
        let settings = Generation {
            decoding: Decoding::Greedy,
            answers: 1,
            max_new_tokens: new,
            eos: config.vocab as u32 - 1,
            limit: config.vocab - 1,
            repetition_penalty: 1.0,
            seed: 0,
            first: 0,
            batch: 1,
        };
        let prompts = vec![(0..self.size(128, 8) as u32).collect::<Vec<_>>()];
        let all = |n| {
            let settings = Generation { max_new_tokens: n, ..settings.clone() };
            self.time(|| drop(model.generate(&prompts, &settings, &mut |_, _, _| true).unwrap()))
        };
        let one = (all(new) - all(1)) / (new - 1) as f64;
        self.line(&format!("{name} one token, f32 weights"), one.max(1e-9), p * 4.0, 2.0 * p);
    }
}
