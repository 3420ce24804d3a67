//! Times on a GPU, each beside a ceiling measured in the same run: `cargo xtask gpu` makes one program of it that needs no Rust where
//! it runs. Its arguments are the shapes to measure (`560m`, `1b7`, `7b1`; all without any), best one in a process, since freed
//! memory stays with it. `--hopper` uses the kernels for compute capability 9.0 alone, to be held against those of every GPU. `--test`
//! runs everything once at small sizes. Without a GPU there is nothing to do, and it says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a program that reports and stops at once

use std::time::Instant;

use autograd::Settings;
use bloom::{Batch, Bloom, Config, Decoding, Generation, Memory, Plan, PlanFor, Recompute, Trainer};
use half::bf16;
use kernels::adamw::{self, AdamW, Weight};
use kernels::linear::Products;
use kernels::{attention, cross_entropy, layer_norm, linear};
use tensor::{DType, Device, Gpu, Tensor, UseOf};

/// The published sizes: hidden size, heads, layers.
const SHAPES: [(&str, [usize; 3]); 3] = [("560m", [1024, 16, 24]), ("1b7", [2048, 16, 24]), ("7b1", [4096, 32, 30])];
const SMALL: [usize; 3] = [128, 2, 1];

/// What is measured, once or at full size.
struct Run {
    gpu: Gpu,
    device: Device,
    times: usize,
    small: bool,
    /// Free memory at the beginning, in bytes.
    free: usize,
    ceilings: Ceilings,
}

/// What this GPU can do.
#[derive(Default)]
struct Ceilings {
    /// Bytes a second, read and written.
    copy: f64,
    /// Flops a second of a large product of bf16 matrices: ours, or cuBLASLt's where that is faster.
    dense: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let small = arguments.iter().any(|a| a == "--test");
    let hopper = arguments.iter().any(|a| a == "--hopper");
    let Ok(gpu) = Gpu::open_to_use(0, UseOf { hopper, ..UseOf::default() }) else {
        println!("gpu: skipped, as there is no GPU");
        return;
    };
    if hopper && !gpu.hopper().unwrap() {
        println!("gpu: skipped, as its compute capability is not 9.0");
        return;
    }
    let device = Device::Cuda(gpu.clone());
    let free = gpu.memory().unwrap().0;
    let times = if small { 1 } else { 20 };
    println!("gpu: {}, {}", gpu.name().unwrap(), if small { "everything once, small" } else { "medians of 20" });
    let mut run = Run { gpu, device, times, small, free, ceilings: Ceilings::default() };
    run.measure_ceilings();
    let chosen = |name: &str| arguments.iter().all(|a| a.starts_with("--")) || arguments.iter().any(|a| a == name);
    // All small shapes are one.
    let shapes = SHAPES.iter().filter(|(name, _)| chosen(name)).take(if small { 1 } else { SHAPES.len() });
    for &(name, shape) in shapes {
        let (name, [c, heads, layers]) = if small { ("small", SMALL) } else { (name, shape) };
        let config = Config::new(c, layers, heads, run.size(250_880, 320)).unwrap();
        // The model first: what it takes is what the memory is full of at its fullest.
        run.model(name, &config);
        run.operations(name, &config);
    }
}

impl Run {
    const fn size(&self, full: usize, small: usize) -> usize {
        if self.small { small } else { full }
    }

    fn tokens(&self) -> usize {
        self.size(16_384, 48)
    }

    /// 15 % of the tokens are responses.
    fn responses(&self) -> usize {
        self.tokens() * 3 / 20
    }

    fn measure_ceilings(&mut self) {
        let from = self.floats(&[self.size(1 << 28, 1 << 14)]);
        let seconds = self.time(|| {
            let mut to = from.clone();
            // Shared memory is copied before it is written to.
            to.gpu_pointer_mut(&self.gpu).unwrap();
        });
        self.ceilings.copy = 2.0 * from.size() as f64 / seconds;
        let copy = self.ceilings.copy;
        println!("ceiling copy: {:.0} GB/s read and written, {} MiB in memory", copy / 1e9, from.size() >> 20);
        let n = self.size(8192, 64);
        let (x, w, b) = (self.numbers(&[n, n]), self.numbers(&[n, n]), self.floats(&[n]));
        let own = self.time(|| drop(linear::forward(&x, &w, &b, Products::Stored).unwrap()));
        for (by, seconds) in [("linear::forward", Some(own)), ("cuBLASLt", self.seconds_of_cublaslt(n))] {
            let Some(seconds) = seconds else { continue };
            let dense = 2.0 * (n as f64).powi(3) / seconds;
            println!("ceiling dense: {:.1} TFLOP/s, bf16, {n} x {n} x {n}, by {by}", dense / 1e12);
            self.ceilings.dense = self.ceilings.dense.max(dense);
        }
    }

    /// Of the same product, where it is installed; without a bias, which it would leave to us.
    fn seconds_of_cublaslt(&self, n: usize) -> Option<f64> {
        let gpu = Gpu::open_to_use(0, UseOf { cublaslt: true, ..UseOf::default() }).unwrap();
        let Some(version) = linear::cublaslt(&gpu) else {
            println!("ceiling dense: no cuBLASLt that can be loaded");
            return None;
        };
        println!("ceiling dense: cuBLASLt is version {version}");
        let run = Self { device: Device::Cuda(gpu.clone()), gpu, ceilings: Ceilings::default(), ..*self };
        let [dy, w] = [(); 2].map(|()| run.numbers(&[n, n]));
        // Whatever is wrong with it, the other ceiling is there.
        linear::backward_input(&dy, &w, Products::Stored).inspect_err(|e| println!("cuBLASLt: {e}")).ok()?;
        Some(run.time(|| drop(linear::backward_input(&dy, &w, Products::Stored).unwrap())))
    }

    fn numbers(&self, sizes: &[usize]) -> Tensor {
        Tensor::new(sizes, pattern(sizes)).unwrap().to_device(&self.device).unwrap()
    }

    fn floats(&self, sizes: &[usize]) -> Tensor {
        let numbers = pattern(sizes).iter().map(|x| x.to_f32()).collect();
        Tensor::new(sizes, numbers).unwrap().to_device(&self.device).unwrap()
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

    /// Prints a time, what was moved or computed in it, and its share of the ceiling that allows less of it.
    fn line(&self, what: &str, seconds: f64, bytes: f64, flops: f64) {
        let Ceilings { copy, dense } = self.ceilings;
        let (moving, computing) = (bytes / copy, flops / dense);
        let (rate, unit, ceiling) = if moving > computing {
            (bytes / seconds / 1e9, "GB/s", "copy")
        } else {
            (flops / seconds / 1e12, "TFLOP/s", "dense")
        };
        let share = moving.max(computing) / seconds * 100.0;
        println!("{what:<38} {:>10.3} ms  {rate:>8.1} {unit:<7}  {share:>5.1} % of {ceiling}", seconds * 1e3);
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

    fn operations(&self, name: &str, config: &Config) {
        self.layer_norm(name, config.hidden);
        self.linear(name, config.hidden);
        self.attention(name, config);
        self.head(name, config);
        self.adamw(name, config.hidden);
    }

    fn layer_norm(&self, name: &str, c: usize) {
        let (t, x, gamma) = (self.tokens(), self.numbers(&[self.tokens(), c]), self.floats(&[c]));
        let tc = (t * c) as f64;
        let seconds = self.time(|| drop(layer_norm::forward(&x, &gamma, &gamma, 1e-5).unwrap()));
        self.line(&format!("{name} layer norm"), seconds, 2.0 * tc * 2.0, 0.0);
        let normed = layer_norm::forward(&x, &gamma, &gamma, 1e-5).unwrap();
        let (mut dgamma, mut dbeta) = (self.floats(&[c]), self.floats(&[c]));
        let seconds = self.time(|| {
            drop(layer_norm::backward(&x, &x, &gamma, &normed.stats, &mut dgamma, &mut dbeta).unwrap());
        });
        self.line(&format!("{name} layer norm, backward"), seconds, 3.0 * tc * 2.0, 0.0);
    }

    fn linear(&self, name: &str, c: usize) {
        let t = self.tokens();
        for (layer, n, k) in [("qkv", 3 * c, c), ("dense", c, c), ("up", 4 * c, c), ("down", c, 4 * c)] {
            let (x, dy, w, b) =
                (self.numbers(&[t, k]), self.numbers(&[t, n]), self.numbers(&[n, k]), self.floats(&[n]));
            let (mut dw, mut db) = (self.floats(&[n, k]), self.floats(&[n]));
            let bytes = 2.0 * (t * k + n * k + t * n) as f64;
            let flops = 2.0 * (t * n * k) as f64;
            let seconds = self.time(|| drop(linear::forward(&x, &w, &b, Products::Stored).unwrap()));
            self.line(&format!("{name} {layer}"), seconds, bytes, flops);
            let seconds = self.time(|| drop(linear::backward_input(&dy, &w, Products::Stored).unwrap()));
            self.line(&format!("{name} {layer}, backward, input"), seconds, bytes, flops);
            let seconds = self.time(|| linear::backward_weight(&dy, &x, &mut dw, &mut db, Products::Stored).unwrap());
            self.line(&format!("{name} {layer}, backward, weight"), seconds, bytes, flops);
        }
    }

    fn attention(&self, name: &str, config: &Config) {
        let (t, c, heads) = (self.tokens(), config.hidden, config.heads);
        let (tc, d) = ((t * c) as f64, c / heads);
        for (documents, bounds) in [("instructions", Self::bounds(t)), ("one document", vec![0, t as u32])] {
            let (qkv, dout) = (self.numbers(&[t, 3 * c]), self.numbers(&[t, c]));
            let pairs: f64 = bounds.windows(2).map(|w| f64::from(w[1] - w[0]).powi(2) / 2.0).sum();
            let flops = 4.0 * pairs * c as f64;
            let what = format!("{name} attention, d {d}, {documents}");
            let seconds = self.time(|| drop(attention::forward(&qkv, &bounds, heads).unwrap()));
            self.line(&what, seconds, 4.0 * tc * 2.0, flops);
            let (out, stats) = attention::forward(&qkv, &bounds, heads).unwrap();
            let seconds = self.time(|| drop(attention::backward(&dout, &qkv, &out, &stats, &bounds, heads).unwrap()));
            // Five products for two.
            self.line("    its backward pass", seconds, 8.0 * tc * 2.0, 2.5 * flops);
        }
    }

    fn head(&self, name: &str, config: &Config) {
        let (r, c, v) = (self.responses(), config.hidden, config.vocab);
        let (hidden, table, mut dtable) = (self.numbers(&[r, c]), self.numbers(&[v, c]), self.floats(&[v, c]));
        let targets: Vec<u32> = (0..r).map(|i| (i * 7919 % v) as u32).collect();
        let seconds = self.time(|| {
            drop(
                cross_entropy::forward_backward(&hidden, &table, &targets, 1e-3, &mut dtable, Products::Stored)
                    .unwrap(),
            );
        });
        self.line(&format!("{name} head and loss, both passes"), seconds, 0.0, 6.0 * (r * c * v) as f64);
    }

    /// The weights of one block's linear layers.
    fn adamw(&self, name: &str, c: usize) {
        let sizes = [12 * c, c];
        let n = (12 * c * c) as f64;
        let [mut master, gradient, mut m] = [(); 3].map(|()| self.floats(&sizes));
        let mut v = Tensor::zeros_on(&self.device, &sizes, DType::F32).unwrap();
        let mut value = self.numbers(&sizes);
        let seconds = self.time(|| drop(adamw::norm(&[&gradient], 1.0).unwrap()));
        self.line(&format!("{name} norm of a gradient"), seconds, 4.0 * n, 0.0);
        let norm = adamw::norm(&[&gradient], 1.0).unwrap();
        let settings = AdamW { lr: 1e-5, beta1: 0.9, beta2: 0.98, eps: 1e-8, weight_decay: 0.1 };
        let seconds = self.time(|| {
            let moments = [&mut m, &mut v];
            let (value, master) = (&mut value, Some(&mut master));
            let weight = Weight { value, master, gradient: &gradient, moments, decays: true };
            adamw::update(&mut [weight], &settings, 1, &norm).unwrap();
        });
        // Gradient; master and two moments, read and written; bf16 written.
        self.line(&format!("{name} AdamW"), seconds, (4.0 + 3.0 * 8.0 + 2.0) * n, 0.0);
    }

    /// A training step of packed tokens, the memory that it takes, and tokens one at a time.
    fn model(&self, name: &str, config: &Config) {
        let t = self.tokens();
        let ids: Vec<u32> = (0..t).map(|i| (i * 7919 % config.vocab) as u32).collect();
        let rows: Vec<u32> = (0..t as u32 - 1).filter(|i| i % 20 < 3).take(self.responses()).collect();
        let targets: Vec<u32> = rows.iter().map(|&i| ids[i as usize + 1]).collect();
        let batch = Batch { ids, bounds: Self::bounds(t), rows, targets };
        let plan = |recompute| {
            let job = PlanFor::Training { tokens: t, targets: batch.targets.len(), recompute };
            Plan::new(config, job, Memory::Gpu).total()
        };
        let keep = plan(Recompute::Keep) < self.free as u64;
        let (recompute, kept) =
            if keep { (Recompute::Keep, "blocks kept") } else { (Recompute::Again, "blocks recomputed") };
        let model = Bloom::random(config.clone(), 0).unwrap();
        let mut trainer = Trainer::new(model, Settings::default(), recompute, &self.device).unwrap();
        let scale = 1.0 / batch.targets.len() as f32;
        let gradient = self.time(|| drop(trainer.accumulate(&batch, scale).unwrap()));
        let update = self.time(|| {
            let norm = trainer.grad_norm().unwrap();
            trainer.update(&norm, 1e-5).unwrap();
        });
        let p = config.parameters() as f64;
        let blocks = (config.layers * 12 * config.hidden * config.hidden) as f64;
        let head = (config.vocab * config.hidden) as f64 * batch.targets.len() as f64;
        // What a step needs; computing blocks again earns nothing.
        let needed = 6.0 * (blocks * t as f64 + head);
        self.line(&format!("{name} step, {kept}: gradients"), gradient, 0.0, needed);
        // The gradient read for its norm, as `adamw` above, and cleared.
        self.line(&format!("{name} step: update"), update, (4.0 + 30.0 + 4.0) * p, 0.0);
        self.line(&format!("{name} step"), gradient + update, 0.0, needed);
        let taken = self.free.saturating_sub(self.gpu.memory().unwrap().0);
        let gib = |bytes: f64| bytes / f64::from(1 << 30);
        println!(
            "{name} step: {:.0} tokens/s of {t} in a step, {:.1} GiB taken at the most, {:.1} planned",
            t as f64 / (gradient + update),
            gib(taken as f64),
            gib(plan(recompute) as f64)
        );
        self.decoding(name, trainer.model());
    }

    /// Tokens one at a time, with the bf16 matrices of a model in training.
    fn decoding(&self, name: &str, model: &Bloom) {
        let config = model.config();
        let settings = Generation {
            decoding: Decoding::Greedy,
            answers: 1,
            max_new_tokens: 0,
            eos: config.vocab as u32 - 1,
            limit: config.vocab - 1,
            repetition_penalty: 1.0,
            seed: 0,
            first: 0,
            batch: 1,
        };
        let prompts = vec![(0..self.size(128, 8) as u32).collect::<Vec<_>>()];
        let all = |max_new_tokens| {
            let settings = Generation { max_new_tokens, ..settings.clone() };
            self.time(|| drop(model.generate(&prompts, &settings, &mut |_, _, _| true).unwrap()))
        };
        let new = self.size(64, 4);
        let one = ((all(new) - all(1)) / (new - 1) as f64).max(1e-9);
        let weights: usize = model.params().iter().map(|p| p.value.size()).sum();
        self.line(&format!("{name} one token, batch 1, bf16"), one, weights as f64, 0.0);
        println!("{name} one token: {:.0} tokens/s, {:.2} GB of weights", 1.0 / one, weights as f64 / 1e9);
    }
}

/// Numbers about 0 without an order: a GPU takes less power, and so less time, for zeros.
fn pattern(sizes: &[usize]) -> Vec<bf16> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bf16::from_f32((state >> 40) as f32 / (1 << 24) as f32 - 0.5)
    };
    let few: Vec<bf16> = (0..65_537).map(|_| next()).collect();
    let all = sizes.iter().product();
    let mut numbers = Vec::with_capacity(all);
    while numbers.len() < all {
        numbers.extend_from_slice(&few[..few.len().min(all - numbers.len())]);
    }
    numbers
}
