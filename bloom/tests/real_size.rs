//! Agreement with transformers at the size of bloom-560m, on random weights, and the cost of one training step there.
//! `tests/scripts/real_size.py make DIR` and `… reference DIR` make the folder (2.2 GB, not in the tree);
//! `ECOM_REAL_SIZE=DIR cargo test --release -p bloom --test real_size -- --nocapture` runs this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // how a test fails and tells

use std::path::PathBuf;
use std::time::Instant;

use autograd::Settings;
use bloom::{Batch, Bloom, Decoding, Dtype, Generation, Recompute, Trainer};
use serde_json::Value;
use tensor::safetensors::Checkpoint;

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("ECOM_REAL_SIZE").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: ECOM_REAL_SIZE names no folder");
    }
    folder
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as u32).collect()
}

/// |got − want| over |want − mean(want)|, as the script's control error.
fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    let mean = want.iter().map(|&x| f64::from(x)).sum::<f64>() / want.len() as f64;
    let error: f64 = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - f64::from(*w)).powi(2)).sum();
    let spread: f64 = want.iter().map(|&w| (f64::from(w) - mean).powi(2)).sum();
    (error / spread).sqrt()
}

/// Megabytes of this process at its largest.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("unknown").trim().to_string()
}

#[test]
fn logits_and_greedy_ids_agree_with_transformers() {
    let Some(folder) = folder() else { return };
    let started = Instant::now();
    let model = Bloom::load(&folder, Dtype::Stored).unwrap();
    println!("load: {:.2} s", started.elapsed().as_secs_f64());
    let json: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("reference.json")).unwrap()).unwrap();
    let reference = Checkpoint::open(&folder.join("reference.safetensors")).unwrap();
    for (length, prompt) in json["prompts"].as_object().unwrap() {
        let prompt = ids(prompt);
        let want = reference.load(&format!("logits.{length}"), None).unwrap().unwrap();
        let end = prompt.len() as u32;
        let started = Instant::now();
        let got = model.logits(&prompt, &[0, end], &[end - 1]).unwrap();
        let seconds = started.elapsed().as_secs_f64();
        let error = relative_error(got.values::<f32>().unwrap(), want.values::<f32>().unwrap());
        let control = json["control_error"][length].as_f64().unwrap();
        println!("{length} tokens: relative L2 error {error:.2e}, control {control:.2}, {seconds:.2} s");
        // A model that ignored its context would be as far off as the control.
        assert!(error < control / 1000.0);
    }
    let greedy = &json["greedy"];
    let want = ids(&greedy["ids"]);
    let prompt = ids(&json["prompts"]["24"]);
    let settings = Generation {
        decoding: Decoding::Greedy,
        answers: 1,
        max_new_tokens: want.len(),
        eos: u32::MAX,
        limit: model.vocab(),
        repetition_penalty: 1.0,
        seed: 0,
        first: 0,
        batch: 1,
    };
    let started = Instant::now();
    let got = model.generate(&[prompt], &settings, &mut |_, _, _| true).unwrap();
    println!("{} greedy tokens: {:.1} s, peak memory {}", want.len(), started.elapsed().as_secs_f64(), peak_memory());
    assert_eq!(got[0][0].ids, want);
}

/// Six documents of 1,024 tokens in all, 15 % of them responses, as the script's training step has them.
fn documents() -> Batch {
    let mut batch = Batch { ids: vec![], bounds: vec![0], rows: vec![], targets: vec![] };
    for (n, length) in [250usize, 210, 180, 150, 130, 104].into_iter().enumerate() {
        let start = batch.ids.len();
        batch.ids.extend((0..length).map(|i| (10 + (n * 7919 + i * 104_729) % 250_000) as u32));
        let prompt = length - (length * 15 + 50) / 100;
        batch.rows.extend((prompt..length).map(|i| (start + i - 1) as u32));
        batch.targets.extend_from_slice(&batch.ids[start + prompt..]);
        batch.bounds.push(batch.ids.len() as u32);
    }
    batch
}

#[test]
fn a_training_step_of_1024_tokens_runs() {
    let Some(folder) = folder() else { return };
    let model = Bloom::load(&folder, Dtype::F32).unwrap();
    let mut trainer =
        Trainer::new(model, Settings { clip: 1.0, ..Settings::default() }, Recompute::Keep, &tensor::Device::Cpu)
            .unwrap();
    let batch = documents();
    let mut losses = Vec::new();
    for step in 0..3 {
        let started = Instant::now();
        let scale = 1.0 / batch.targets.len() as f32;
        let loss = trainer.accumulate(&batch, scale).unwrap().iter().sum::<f32>() * scale;
        let norm = trainer.grad_norm().unwrap();
        trainer.update(&norm, 2e-5).unwrap();
        let (tokens, targets) = (batch.ids.len(), batch.targets.len());
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "step {step}: {seconds:.1} s for {tokens} tokens, {targets} targets; loss {loss:.4}, peak memory {}",
            peak_memory()
        );
        losses.push(loss);
    }
    assert!(losses[2] < losses[0], "{losses:?}");
}
