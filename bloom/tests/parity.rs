//! Agreement with Hugging Face transformers on tiny BLOOMs. `tests/scripts/bloom_fixtures.py` makes the expected values
//! in float64 and notes, for each, how far transformers' own float32 run is off. Tolerance: twice that, plus 4 f32 ulp of
//! the largest value. Models with one thing wrong (no ALiBi, wrong slopes, no causality) must fail the same check.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // how a test fails and tells

use std::path::{Path, PathBuf};

use autograd::Settings;
use bloom::{Batch, Bloom, Decoding, Dtype, Finish, Generation, Recompute, Trainer};
use serde_json::Value;
use tensor::safetensors::Checkpoint;
use tensor::{Device, Tensor};

const CASES: [&str; 3] = ["four_heads", "three_heads", "padded_vocab"];

struct Fixture {
    name: &'static str,
    folder: PathBuf,
    json: Value,
    tensors: Checkpoint,
}

impl Fixture {
    fn all() -> impl Iterator<Item = Self> {
        CASES.into_iter().map(|name| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/bloom").join(name);
            let json = std::fs::read_to_string(folder.join("expected.json")).unwrap();
            let tensors = Checkpoint::open(&folder.join("expected.safetensors")).unwrap();
            Self { name, json: serde_json::from_str(&json).unwrap(), tensors, folder }
        })
    }

    fn model(&self) -> Bloom {
        Bloom::load(&self.folder, Dtype::Stored).unwrap()
    }

    fn expected(&self, name: &str) -> Vec<f32> {
        let t = self.tensors.load(name, None).unwrap().unwrap_or_else(|| panic!("{}: no {name}", self.name));
        t.values::<f32>().unwrap().to_vec()
    }

    fn tolerance(&self, name: &str) -> f64 {
        let number =
            |key: &str| self.json[key][name].as_f64().unwrap_or_else(|| panic!("{}: no {key} of {name}", self.name));
        let ulp = 2f64.powi(number("largest").log2().floor() as i32 - 23);
        2.0 * number("naive_error") + 4.0 * ulp
    }

    /// How far `got` is off, in tolerances.
    fn off(&self, name: &str, got: &[f32], expected: &[f32]) -> f64 {
        assert_eq!(got.len(), expected.len(), "{}: {name}", self.name);
        let error = got
            .iter()
            .zip(expected)
            .map(|(g, e)| f64::from((g - e).abs()))
            .fold(0.0, |m: f64, x| if x.is_nan() { f64::INFINITY } else { m.max(x) });
        error / self.tolerance(name)
    }

    #[track_caller]
    fn check(&self, name: &str, got: &Tensor) {
        let off = self.off(name, got.values::<f32>().unwrap(), &self.expected(name));
        assert!(off <= 1.0, "{}: {name} is off by {off} tolerances", self.name);
    }

    #[track_caller]
    fn check_scalar(&self, name: &str, got: f64, expected: &Value) {
        let error = (got - expected.as_f64().unwrap()).abs();
        assert!(error <= self.tolerance(name), "{}: {name} is off by {error:e}", self.name);
    }

    fn documents(&self) -> Vec<(Vec<u32>, usize)> {
        let prompts = self.json["prompt_lengths"].as_array().unwrap();
        let documents = self.json["documents"].as_array().unwrap();
        documents.iter().zip(prompts).map(|(d, p)| (ids(d), p.as_u64().unwrap() as usize)).collect()
    }

    fn batch(&self) -> Batch {
        pack(&self.documents())
    }

    fn generation(&self, decoding: Decoding, answers: usize, batch: usize) -> Generation {
        let g = &self.json["generation"];
        Generation {
            decoding,
            answers,
            max_new_tokens: g["max_new_tokens"].as_u64().unwrap() as usize,
            eos: g["eos"].as_u64().unwrap() as u32,
            limit: self.json["tokenizer_size"].as_u64().unwrap() as usize,
            repetition_penalty: 1.0,
            seed: 0,
            first: 0,
            batch,
        }
    }

    fn prompts(&self) -> Vec<Vec<u32>> {
        self.json["generation"]["prompts"].as_array().unwrap().iter().map(ids).collect()
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as u32).collect()
}

/// Documents in one row of tokens; every token after the prompt is a target.
fn pack(documents: &[(Vec<u32>, usize)]) -> Batch {
    let mut batch = Batch { ids: vec![], bounds: vec![0], rows: vec![], targets: vec![] };
    for (ids, prompt) in documents {
        let start = batch.ids.len();
        batch.rows.extend((*prompt..ids.len()).map(|i| (start + i - 1) as u32));
        batch.targets.extend_from_slice(&ids[*prompt..]);
        batch.ids.extend_from_slice(ids);
        batch.bounds.push(batch.ids.len() as u32);
    }
    batch
}

fn everything(batch: &Batch) -> Vec<u32> {
    (0..batch.ids.len() as u32).collect()
}

fn trainer(f: &Fixture, weight_decay: f32, recompute: Recompute) -> Trainer {
    let mut model = f.model();
    // The fixtures' optimiser knows one group: everything decays.
    model.decay_everything();
    let settings = Settings { weight_decay, ..Settings::default() };
    Trainer::new(model, settings, recompute, &Device::Cpu).unwrap()
}

#[test]
fn hidden_states_and_logits_agree_and_broken_models_do_not() {
    for f in Fixture::all() {
        let (model, b) = (f.model(), f.batch());
        for (i, state) in model.hidden_states(&b.ids, &b.bounds).unwrap().iter().enumerate() {
            f.check(&format!("hidden.{i}"), state);
        }
        let logits = model.logits(&b.ids, &b.bounds, &everything(&b)).unwrap();
        f.check("logits", &logits);
        for control in ["no_alibi", "wrong_slopes", "bidirectional"] {
            let broken = f.expected(&format!("control.{control}"));
            let off = f.off("logits", &broken, &f.expected("logits"));
            assert!(off > 100.0, "{}: {control} passes as right: {off} tolerances", f.name);
        }
    }
}

#[test]
fn loss_and_all_gradients_agree() {
    for f in Fixture::all() {
        for recompute in [Recompute::Keep, Recompute::Again] {
            let mut trainer = trainer(&f, 0.0, recompute);
            let b = f.batch();
            let n = b.targets.len() as f32;
            let losses = trainer.accumulate(&b, 1.0 / n).unwrap();
            let loss = losses.iter().map(|&l| f64::from(l)).sum::<f64>() / f64::from(n);
            f.check_scalar("loss", loss, &f.json["loss"]);
            f.check_scalar("grad_norm", trainer.grad_norm().unwrap().value().unwrap(), &f.json["grad_norm"]);
            for (p, g) in trainer.model().params().iter().zip(trainer.grads().iter()) {
                f.check(&format!("grad.{}", p.name), g);
            }
        }
    }
}

#[test]
fn ten_adamw_steps_agree() {
    for f in Fixture::all() {
        let a = &f.json["adamw"];
        let mut trainer = trainer(&f, a["weight_decay"].as_f64().unwrap() as f32, Recompute::Keep);
        let b = f.batch();
        let n = b.targets.len() as f32;
        let mean = |losses: Vec<f32>| losses.iter().map(|&l| f64::from(l)).sum::<f64>() / f64::from(n);
        let expected = f.json["adamw_losses"].as_array().unwrap();
        assert_eq!(expected.len(), 10);
        for (i, expected) in expected.iter().enumerate() {
            let loss = mean(trainer.accumulate(&b, 1.0 / n).unwrap());
            let off = (loss - expected.as_f64().unwrap()).abs() / f.tolerance("adamw_losses");
            assert!(off <= 1.0, "{}: loss {i} is off by {off} tolerances", f.name);
            let norm = trainer.grad_norm().unwrap();
            trainer.update(&norm, a["lr"].as_f64().unwrap() as f32).unwrap();
        }
        let last = mean(trainer.model().losses(&b.ids, &b.bounds, &b.rows, &b.targets).unwrap());
        let off = (last - f.json["adamw_loss_after"].as_f64().unwrap()).abs() / f.tolerance("adamw_losses");
        assert!(off <= 1.0, "{}: the loss after ten steps is off by {off} tolerances", f.name);
        for p in trainer.model().params().iter() {
            let name = format!("adamw.{}", p.name);
            if f.tensors.info(&name).is_some() {
                f.check(&name, &p.value);
            }
        }
    }
}

/// The new ids as the fixtures have them: with the end of text.
fn with_eos(c: &bloom::Completion, eos: u32) -> Vec<u32> {
    let mut ids = c.ids.clone();
    if c.finish == Finish::Eos {
        ids.push(eos);
    }
    ids
}

#[test]
fn greedy_ids_are_equal_in_any_batch() {
    for f in Fixture::all() {
        let expected: Vec<Vec<u32>> = f.json["greedy"].as_array().unwrap().iter().map(ids).collect();
        for batch in [1, 3, 8] {
            let g = f.generation(Decoding::Greedy, 1, batch);
            let got = f.model().generate(&f.prompts(), &g, &mut |_, _, _| true).unwrap();
            let got: Vec<Vec<u32>> = got.iter().map(|c| with_eos(&c[0], g.eos)).collect();
            assert_eq!(got, expected, "{}, batch {batch}", f.name);
        }
        for (control, broken) in f.json["control"].as_object().unwrap() {
            if control != "no_alibi" {
                continue;
            }
            let broken: Vec<Vec<u32>> = broken["greedy"].as_array().unwrap().iter().map(ids).collect();
            assert_ne!(broken, expected, "{}: {control} changes nothing", f.name);
        }
    }
}

#[test]
fn beam_ids_are_equal_for_both_length_penalties() {
    for f in Fixture::all() {
        let beam = &f.json["beam"];
        let answers = beam["num_return_sequences"].as_u64().unwrap() as usize;
        for (penalty, expected) in beam["by_length_penalty"].as_object().unwrap() {
            let decoding = Decoding::Beam {
                beams: beam["num_beams"].as_u64().unwrap() as usize,
                length_penalty: penalty.parse().unwrap(),
            };
            for batch in [1, 8] {
                let g = f.generation(decoding.clone(), answers, batch);
                let got = f.model().generate(&f.prompts(), &g, &mut |_, _, _| true).unwrap();
                for (i, got) in got.iter().enumerate() {
                    let expected: Vec<Vec<u32>> = expected["ids"][i].as_array().unwrap().iter().map(ids).collect();
                    let got: Vec<Vec<u32>> = got.iter().map(|c| with_eos(c, g.eos)).collect();
                    assert_eq!(got, expected, "{}, prompt {i}, length penalty {penalty}", f.name);
                }
            }
        }
    }
}

#[test]
fn packing_and_batching_leave_every_bit_alone() {
    for f in Fixture::all() {
        let (model, b) = (f.model(), f.batch());
        let together = model.logits(&b.ids, &b.bounds, &everything(&b)).unwrap();
        let mut alone = Vec::new();
        for (document, prompt) in f.documents() {
            let one = pack(&[(document, prompt)]);
            let logits = model.logits(&one.ids, &one.bounds, &everything(&one)).unwrap();
            alone.extend_from_slice(logits.values::<f32>().unwrap());
        }
        assert_eq!(together.values::<f32>().unwrap(), alone, "{}", f.name);
    }
}

#[test]
fn recomputation_changes_no_bit_and_the_cut_of_a_step_only_the_order_of_sums() {
    for f in Fixture::all() {
        let grads = |recompute, batches: &[Batch]| {
            let n: usize = batches.iter().map(|b| b.targets.len()).sum();
            let mut t = trainer(&f, 0.0, recompute);
            for b in batches {
                t.accumulate(b, 1.0 / n as f32).unwrap();
            }
            let names: Vec<String> = t.model().params().iter().map(|p| p.name.clone()).collect();
            let grads: Vec<Vec<f32>> = t.grads().iter().map(|g| g.values::<f32>().unwrap().to_vec()).collect();
            (names, grads)
        };
        let whole = f.batch();
        let (names, kept) = grads(Recompute::Keep, std::slice::from_ref(&whole));
        assert_eq!(kept, grads(Recompute::Again, std::slice::from_ref(&whole)).1, "{}: recomputation", f.name);
        let cut: Vec<Batch> =
            f.documents().iter().map(|d| pack(std::slice::from_ref(d))).filter(|b| !b.rows.is_empty()).collect();
        for ((name, a), b) in names.iter().zip(&kept).zip(&grads(Recompute::Keep, &cut).1) {
            let off = f.off(&format!("grad.{name}"), b, a);
            assert!(off <= 1.0, "{}: {name}: cutting the step moved its gradient by {off} tolerances", f.name);
        }
    }
}

#[test]
fn saved_folders_load_to_the_same_bits() {
    for f in Fixture::all() {
        let dir = tempfile::tempdir().unwrap();
        let (model, b) = (f.model(), f.batch());
        model.save(dir.path()).unwrap();
        let again = Bloom::load(dir.path(), Dtype::Stored).unwrap();
        let logits =
            |m: &Bloom| m.logits(&b.ids, &b.bounds, &everything(&b)).unwrap().values::<f32>().unwrap().to_vec();
        assert_eq!(logits(&model), logits(&again), "{}", f.name);
    }
}
