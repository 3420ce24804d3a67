//! A whole tiny model on GPUs, simulated where there is none: training steps and generation, held against the CPU.
//!
//! What rounding explains is found out on the CPU, which does the same with as wide weights but f32 activations. Storing an activation
//! as bf16 moves it by at most 2⁻⁹ of itself, which is as if the weights that it was computed with had been moved so. So models whose
//! weights are moved at random by up to 2⁻⁸ of themselves (2⁻²³ where all is f32) take the same steps, and twice their largest
//! distance from the model that was left alone is allowed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)] // how a test fails and tells

use autograd::Settings;
use bloom::{Batch, Bloom, Config, Decoding, Dtype, Generation, Recompute, Trainer};
use kernels::linear::Products;
use kernels::sample::{Philox, Sampling};
use tensor::{DType, Device, Gpu, Tensor, UseOf};

const STEPS: usize = 10;
const VOCAB: usize = 97;
/// Moved models that the tolerance is taken from.
const MOVED: u64 = 4;
const RATE: f32 = 2e-3;
const SETTINGS: Settings = Settings { beta1: 0.9, beta2: 0.98, eps: 1e-8, weight_decay: 0.01, clip: 1.0 };

/// One head size that has tensor-core kernels: two heads of 64.
fn model() -> Bloom {
    Bloom::random(Config::new(128, 2, 2, VOCAB).unwrap(), 7).unwrap()
}

/// A model with each weight moved by up to `by` of itself.
fn moved(model: &Bloom, seed: u64, by: f32) -> Bloom {
    let folder = tempfile::tempdir().unwrap();
    let draws = Philox::new(seed, 1);
    let mut at = 0;
    let tensors: Vec<(String, Tensor)> = model
        .params()
        .iter()
        .map(|p| {
            let exact = p.value.to_dtype(tensor::DType::F32).unwrap();
            let values = exact.values::<f32>().unwrap().iter().map(|&x| {
                at += 1;
                x + x * by * (2.0 * draws.uniform(at) as f32 - 1.0)
            });
            (p.name.clone(), Tensor::new(exact.shape(), values.collect()).unwrap())
        })
        .collect();
    model.save(folder.path()).unwrap();
    let named: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
    tensor::safetensors::save(&folder.path().join("model.safetensors"), &named, &std::collections::BTreeMap::new())
        .unwrap();
    Bloom::load(folder.path(), Dtype::F32).unwrap()
}

fn batch(seed: u64) -> Batch {
    documents(seed, 1, VOCAB)
}

/// Documents of several lengths in one row, `times` as long; the last third of each is learned.
fn documents(seed: u64, times: usize, vocab: usize) -> Batch {
    let draws = Philox::new(seed, 2);
    let mut b = Batch { ids: vec![], bounds: vec![0], rows: vec![], targets: vec![] };
    for (i, length) in [9, 1, 17, 6].map(|length| times * length).into_iter().enumerate() {
        let start = b.ids.len();
        let draw = |j| (draws.uniform((100 * times * i + j) as u64) * vocab as f64) as u32;
        let ids: Vec<u32> = (0..length).map(draw).collect();
        let learned = (2 * length / 3).max(1);
        b.rows.extend((learned..length).map(|j| (start + j - 1) as u32));
        b.targets.extend_from_slice(&ids[learned.min(length)..]);
        b.ids.extend(ids);
        b.bounds.push(b.ids.len() as u32);
    }
    b
}

/// The mean loss of each step, in two batches, and the trainer after them.
fn train(model: Bloom, recompute: Recompute, device: &Device, matrices: DType) -> (Vec<f64>, Trainer) {
    let mut trainer = Trainer::with_matrices(model, SETTINGS, recompute, device, matrices).unwrap();
    let losses = steps(&mut trainer, STEPS);
    (losses, trainer)
}

fn steps(trainer: &mut Trainer, n: usize) -> Vec<f64> {
    steps_on(&[batch(1), batch(2)], trainer, n, RATE)
}

fn steps_on(batches: &[Batch], trainer: &mut Trainer, n: usize, rate: f32) -> Vec<f64> {
    let targets: usize = batches.iter().map(|b| b.targets.len()).sum();
    (0..n)
        .map(|_| {
            let losses = batches.iter().flat_map(|b| trainer.accumulate(b, 1.0 / targets as f32).unwrap());
            let loss = losses.map(f64::from).sum::<f64>() / targets as f64;
            let norm = trainer.grad_norm().unwrap();
            assert!(norm.value().unwrap() > 0.0);
            trainer.update(&norm, rate).unwrap();
            loss
        })
        .collect()
}

/// Twice the largest distance of the moved models from `right`, of each number of its own.
fn tolerance(right: &[f64], moved: &[Vec<f64>]) -> Vec<f64> {
    let far = |i: usize| moved.iter().map(|m| (m[i] - right[i]).abs()).fold(0.0, f64::max);
    // The largest up to each step: a path may cross the right one by chance.
    let mut largest = 0.0f64;
    (0..right.len())
        .map(|i| {
            largest = largest.max(far(i));
            2.0 * largest
        })
        .collect()
}

/// The losses of the CPU's steps, and what may be added to or taken from each; and the trainer after them.
fn reference(matrices: DType) -> (Vec<f64>, Vec<f64>, Trainer) {
    let by = if matrices == DType::BF16 { 2f32.powi(-8) } else { 2f32.powi(-23) };
    let (right, trained) = train(model(), Recompute::Keep, &Device::Cpu, matrices);
    let moved: Vec<Vec<f64>> =
        (0..MOVED).map(|seed| train(moved(&model(), seed, by), Recompute::Keep, &Device::Cpu, matrices).0).collect();
    let allowed = tolerance(&right, &moved);
    assert!(right[STEPS - 1] < right[0] - 10.0 * allowed[STEPS - 1], "much is learned: {right:?} {allowed:?}");
    (right, allowed, trained)
}

#[track_caller]
fn assert_near(what: &str, found: &[f64], right: &[f64], allowed: &[f64]) {
    for (i, ((found, right), allowed)) in found.iter().zip(right).zip(allowed).enumerate() {
        let off = (found - right).abs();
        assert!(off <= *allowed, "{what}: loss {found} at step {i}, {right} on the CPU, {allowed} allowed");
    }
    eprintln!("{what}: losses {found:.5?}, CPU {right:.5?}, allowed {allowed:.7?}");
}

#[test]
fn ten_training_steps_on_gpus_are_those_of_the_cpu() {
    for matrices in [DType::BF16, DType::F32] {
        let (right, allowed, trained) = reference(matrices);
        // Two of five schedules; each operation's own tests run in all.
        for (device, recompute) in simulator::gpus().iter().step_by(3).zip([Recompute::Keep, Recompute::Again]) {
            let (found, trainer) = train(model(), recompute, device, matrices);
            assert_near(&format!("{device}, {matrices}"), &found, &right, &allowed);
            // As a checkpoint has it: f32, under the same names.
            for (p, q) in trainer.exact_model().params().iter().zip(trained.exact_model().params().iter()) {
                assert_eq!((&p.name, p.value.shape(), p.value.dtype()), (&q.name, q.value.shape(), q.value.dtype()));
            }
        }
    }
}

#[test]
fn ten_training_steps_with_products_in_bf16_are_those_in_f32() {
    let right = train(model(), Recompute::Keep, &Device::Cpu, DType::F32).0;
    let by = 2f32.powi(-8);
    let moved = (0..MOVED).map(|seed| train(moved(&model(), seed, by), Recompute::Keep, &Device::Cpu, DType::F32).0);
    let allowed = tolerance(&right, &moved.collect::<Vec<_>>());
    let found = [Recompute::Keep, Recompute::Again].map(|recompute| {
        let mut trainer = Trainer::new(model(), SETTINGS, recompute, &Device::Cpu).unwrap();
        trainer.set_products(Products::Bf16);
        steps(&mut trainer, STEPS)
    });
    assert_near("products in bf16", &found[0], &right, &allowed);
    assert_eq!(found[0], found[1], "kept or computed again");
    assert_eq!(found[0] != right, Products::has_bf16(), "in bf16 if it can be");
}

#[test]
fn training_steps_with_other_products_are_those_of_the_cpu() {
    let Some(last) = simulator::gpus().len().checked_sub(1) else { return };
    let cublaslt = UseOf { cublaslt: true, ..UseOf::default() };
    let hopper = UseOf { hopper: true, ..UseOf::default() };
    for (use_of, matrices) in [(cublaslt, DType::BF16), (cublaslt, DType::F32), (hopper, DType::BF16)] {
        let (right, allowed, _) = reference(matrices);
        let products = simulator::products();
        let device = own(last, use_of);
        let (found, _) = train(model(), Recompute::Keep, &device, matrices);
        assert_near(&format!("{device} with {use_of:?}, {matrices}"), &found, &right, &allowed);
        assert!(products.is_none() || use_of.hopper || products < simulator::products());
        let Device::Cuda(gpu) = device else { continue };
        assert!(products.is_none() || gpu.hopper().unwrap() == use_of.hopper);
    }
}

/// Each parameter's gradient.
fn gradients(model: Bloom, device: &Device) -> Vec<(String, Vec<f32>)> {
    let mut trainer = Trainer::with_matrices(model, SETTINGS, Recompute::Keep, device, DType::BF16).unwrap();
    trainer.accumulate(&batch(1), 0.1).unwrap();
    trainer.accumulate(&batch(2), 0.1).unwrap();
    let near = |g: &Tensor| g.to_device(&Device::Cpu).unwrap().values::<f32>().unwrap().to_vec();
    trainer.model().params().iter().zip(trainer.grads().iter()).map(|(p, g)| (p.name.clone(), near(g))).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn gradients_on_gpus_are_those_of_the_cpu() {
    let right = gradients(model(), &Device::Cpu);
    let moved: Vec<_> = (0..MOVED).map(|seed| gradients(moved(&model(), seed, 2f32.powi(-8)), &Device::Cpu)).collect();
    for device in simulator::gpus().iter().step_by(2) {
        let found = gradients(model(), device);
        let mut wrong = Vec::new();
        for (i, (name, right)) in right.iter().enumerate() {
            let allowed = 2.0 * moved.iter().map(|m| distance(&m[i].1, right)).fold(0.0, f64::max);
            let off = distance(&found[i].1, right);
            if off.is_nan() || off > allowed {
                wrong.push(format!(
                    "{name}: {off:e} from a gradient of {:e}, {allowed:e} allowed",
                    distance(right, &vec![0.0; right.len()])
                ));
            }
        }
        assert!(wrong.is_empty(), "{device}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn recomputation_changes_no_bit_on_a_gpu() {
    let Some(device) = simulator::gpus().last() else { return };
    let [kept, again] = [Recompute::Keep, Recompute::Again].map(|recompute| {
        let mut trainer = Trainer::new(model(), Settings::default(), recompute, device).unwrap();
        trainer.accumulate(&batch(1), 0.1).unwrap();
        let near = |g: &Tensor| g.to_device(&Device::Cpu).unwrap().values::<f32>().unwrap().to_vec();
        trainer.grads().iter().map(near).collect::<Vec<_>>()
    });
    assert_eq!(kept, again);
}

#[test]
fn training_goes_on_on_the_other_device() {
    let Some(gpu) = simulator::gpus().first() else { return };
    let (right, allowed, _) = reference(DType::BF16);
    for [first, second] in [[gpu, &Device::Cpu], [&Device::Cpu, gpu]] {
        let go_on =
            |model, device| Trainer::with_matrices(model, SETTINGS, Recompute::Keep, device, DType::BF16).unwrap();
        let mut before = go_on(model(), first);
        let mut found = steps(&mut before, 5);
        let folder = tempfile::tempdir().unwrap();
        let exact = before.exact_model();
        exact.save(folder.path()).unwrap();
        let state: Vec<(String, Tensor)> =
            before.optimizer().state(exact.params()).map(|(name, t)| (name, t.clone())).collect();
        let mut after = go_on(Bloom::load(folder.path(), Dtype::F32).unwrap(), second);
        let find = |name: &str| {
            let found = state.iter().find(|(n, _)| n == name).map(|(_, t)| t.to_device(&Device::Cpu).unwrap());
            Ok::<_, autograd::Error>(found)
        };
        after.restore(5, find).unwrap();
        found.extend(steps(&mut after, 5));
        assert_near(&format!("{first} then {second}"), &found, &right, &allowed);
    }
}

/// As many steps of the shape of BLOOM-560M as a loss curve takes, where `ECOM_CURVE=560m` asks for them: the CPU has minutes to
/// do. Otherwise a few of the tiny model.
///
/// Here the CPU is exact, all f32. What rounding to bf16 does to its curve is what two models show that were moved by 2⁻⁸ and have
/// bf16 matrices; the GPU may be off by twice as much. Of each curve the largest distance counts, as one may cross another by chance.
#[test]
fn the_loss_curve_is_that_of_the_cpu() {
    let Some(gpu) = simulator::gpus().first() else { return };
    let small = (model().config().clone(), 1, RATE, STEPS);
    let (config, times, rate, n) = match std::env::var("ECOM_CURVE").as_deref() {
        Ok("560m") => (Config::new(1024, 24, 16, 250_880).unwrap(), 8, 1e-4, 50),
        Ok(other) => panic!("ECOM_CURVE: wanted 560m, found {other}"),
        Err(_) => small,
    };
    let batches = [1, 2].map(|seed| documents(seed, times, config.vocab));
    let random = || Bloom::random(config.clone(), 7).unwrap();
    let curve = |model, device: &Device, matrices| {
        let mut trainer = Trainer::with_matrices(model, SETTINGS, Recompute::Keep, device, matrices).unwrap();
        steps_on(&batches, &mut trainer, n, rate)
    };
    let found = curve(random(), gpu, DType::BF16);
    let exact = curve(random(), &Device::Cpu, DType::F32);
    let rounded = [1, 2].map(|seed| curve(moved(&random(), seed, 2f32.powi(-8)), &Device::Cpu, DType::BF16));
    eprintln!("loss of {config:?}\nstep  {gpu}, bf16  CPU, f32   off by  CPU, rounded, off by");
    for i in 0..n {
        let off = |curve: &[f64]| curve[i] - exact[i];
        let [first, second] = [0, 1].map(|which| off(&rounded[which]));
        eprintln!(
            "{:>4}  {:>12.5}  {:>8.5} {:>8.5}  {first:>8.5} {second:>8.5}",
            i + 1,
            found[i],
            exact[i],
            off(&found)
        );
    }
    let distance = |curve: &Vec<f64>| curve.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let (off, allowed) = (distance(&found), 2.0 * rounded.iter().map(distance).fold(0.0, f64::max));
    let learned = exact[0] - exact[n - 1];
    eprintln!("off by {off:.5} at the most, {allowed:.5} allowed, {learned:.5} learned");
    assert!(learned > 10.0 * allowed, "much is learned");
    assert!(found.iter().all(|loss| loss.is_finite()) && off <= allowed);
}

/// A model that is sure of what comes next, since it was trained, and prompts that it goes on with.
fn trained() -> (Bloom, Vec<Vec<u32>>) {
    let (_, trainer) = train(model(), Recompute::Keep, &Device::Cpu, DType::F32);
    let b = batch(1);
    let prompts = b.bounds.windows(2).map(|w| b.ids[w[0] as usize..w[1] as usize].to_vec()).collect();
    (trainer.into_model(), prompts)
}

fn greedy() -> Generation {
    Generation {
        decoding: Decoding::Greedy,
        answers: 1,
        max_new_tokens: 8,
        eos: VOCAB as u32 - 1,
        limit: VOCAB,
        repetition_penalty: 1.0,
        seed: 0,
        first: 0,
        batch: 3,
    }
}

/// As [`answers`], each to its own length at most.
fn answers_up_to(lengths: &[usize], model: &Bloom, prompts: &[Vec<u32>], settings: &Generation) -> Vec<Vec<u32>> {
    let mut counts = vec![0; prompts.len()];
    let mut go_on = |prompt: usize, _: usize, _: u32| {
        counts[prompt] += 1;
        counts[prompt] < lengths[prompt]
    };
    model.generate(prompts, settings, &mut go_on).unwrap().into_iter().map(|each| each[0].ids.clone()).collect()
}

fn answers(model: &Bloom, prompts: &[Vec<u32>], settings: &Generation) -> Vec<Vec<Vec<u32>>> {
    let answers = model.generate(prompts, settings, &mut |_, _, _| true).unwrap();
    answers.into_iter().map(|each| each.into_iter().map(|answer| answer.ids).collect()).collect()
}

/// A GPU that no other test asks for anything, which would be captured too.
fn own(ordinal: usize, use_of: UseOf) -> Device {
    Device::Cuda(Gpu::open_to_use(ordinal, use_of).unwrap())
}

#[test]
fn greedy_generation_on_gpus_is_that_of_the_cpu() {
    let (model, prompts) = trained();
    let right = answers(&model, &prompts, &greedy());
    for i in (0..simulator::gpus().len()).step_by(2) {
        let device = own(i, UseOf::default());
        // In f32: the sums' order is all that differs.
        let launched = simulator::graphs_launched();
        assert_eq!(answers(&model.clone().to_device(&device).unwrap(), &prompts, &greedy()), right, "{device}");
        assert!(launched.is_none() || launched < simulator::graphs_launched(), "its steps are captured");
    }
}

/// Caches outgrow their memory (16 tokens at first, then 32 …) and answers end one after the other, so that steps are captured
/// several times.
#[test]
fn captured_steps_give_the_same_tokens() {
    let (model, prompts) = trained();
    let Some(last) = simulator::gpus().len().checked_sub(1) else { return };
    let [captures, plain] = [true, false].map(|graphs| own(last, UseOf { graphs, ..UseOf::default() }));
    let sampling = Sampling { temperature: 0.9, top_p: 0.9, ..Sampling::default() };
    for settings in [
        Generation { max_new_tokens: 40, eos: VOCAB as u32, ..greedy() },
        Generation { max_new_tokens: 20, repetition_penalty: 1.2, ..greedy() },
        Generation { decoding: Decoding::Sample(sampling), answers: 2, max_new_tokens: 20, batch: 8, ..greedy() },
    ] {
        for matrices in [DType::F32, DType::BF16] {
            let on = |device: &Device| {
                let folder = tempfile::tempdir().unwrap();
                model.save(folder.path()).unwrap();
                let dtype = if matrices == DType::F32 { Dtype::F32 } else { Dtype::Bf16 };
                let launched = simulator::graphs_launched();
                let answers = answers(
                    &Bloom::load(folder.path(), dtype).unwrap().to_device(device).unwrap(),
                    &prompts,
                    &settings,
                );
                (answers, simulator::graphs_launched().zip(launched).map(|(after, before)| after - before))
            };
            let ((captured, graphs), (plain, _)) = (on(&captures), on(&plain));
            assert_eq!(captured, plain, "{settings:?}, {matrices}");
            assert_ne!(graphs, Some(0));
            let lengths: Vec<usize> = plain.iter().flatten().map(Vec::len).collect();
            eprintln!("{matrices}: answers of {lengths:?} tokens, graphs launched: {graphs:?}");
        }
    }
}

/// The step that was refused is done again, by caches as they were before it.
#[test]
fn a_driver_that_refuses_a_graph_gives_the_same_tokens() {
    let (model, prompts) = trained();
    let Some(last) = simulator::gpus().len().checked_sub(1) else { return };
    let settings = Generation { max_new_tokens: 20, eos: VOCAB as u32, ..greedy() };
    let [tries, plain] = [true, false].map(|graphs| own(last, UseOf { graphs, ..UseOf::default() }));
    let on = |device: &Device| answers(&model.clone().to_device(device).unwrap(), &prompts, &settings);
    if !simulator::refuse_graphs(true) {
        return; // a driver of which nothing can be wished
    }
    let found = on(&tries);
    simulator::refuse_graphs(false);
    assert_eq!(found, on(&plain));
    let Device::Cuda(gpu) = &tries else { panic!("a GPU") };
    assert!(gpu.refused().is_some_and(|why| why.contains("NOT_SUPPORTED")), "{:?}", gpu.refused());
}

/// Caches that are read in cuts of 256 tokens, and whose sums are joined, while sequences end one after the other.
#[test]
fn captured_steps_give_the_same_tokens_behind_hundreds_of_others() {
    let (model, prompts) = trained();
    let Some(last) = simulator::gpus().len().checked_sub(1) else { return };
    let settings = Generation { max_new_tokens: 262, eos: VOCAB as u32, ..greedy() };
    let lengths = [262, 40, 200, 90];
    let [captured, plain] = [true, false].map(|graphs| {
        let device = own(last, UseOf { graphs, ..UseOf::default() });
        answers_up_to(&lengths, &model.clone().to_device(&device).unwrap(), &prompts, &settings)
    });
    assert_eq!(captured.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
    assert_eq!(captured, plain);
    // In f32: the sums' order is all that differs.
    assert_eq!(captured, answers_up_to(&lengths, &model, &prompts, &settings));
}
