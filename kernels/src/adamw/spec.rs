//! `AdamW` against the update of `torch.optim.AdamW` written out in f64.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use simulator::{devices, gpus};
use tensor::{DType, Device, Tensor};

use super::{AdamW, Norm, Weight, norm, update};
use crate::spec::{Arith, EXACT, NAIVE, assert_close, exact_in, f32s, numbers, random, tensor_on, tolerance};

/// What multiplies the gradients of this norm.
fn scale(norm: f64, clip: f32) -> f64 {
    if clip > 0.0 { (f64::from(clip) / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

/// One step on w, m and v.
fn reference(state: &mut [Vec<f64>; 3], g: &[f64], settings: &AdamW, step: i32, grad_scale: f64, arith: Arith) {
    let [lr, b1, b2, eps, decay] =
        [settings.lr, settings.beta1, settings.beta2, settings.eps, settings.weight_decay].map(f64::from);
    let (s, store) = (arith.step, arith.store);
    let [w, m, v] = state;
    for i in 0..g.len() {
        let g = s(g[i] * grad_scale);
        w[i] = s(w[i] * s(1.0 - lr * decay));
        m[i] = store(s(s(m[i] * s(b1)) + s(g * s(1.0 - b1))));
        v[i] = store(s(s(v[i] * s(b2)) + s(s(g * g) * s(1.0 - b2))));
        let root = s(s(s(v[i].sqrt()) / s((1.0 - b2.powi(step)).sqrt())) + eps);
        w[i] = store(s(w[i] - s(s(lr / (1.0 - b1.powi(step))) * s(m[i] / root))));
    }
}

/// A weight and what goes with it, on a device.
#[derive(Debug)]
struct Kept {
    value: Tensor,
    master: Option<Tensor>,
    moments: [Tensor; 2],
    decays: bool,
}

impl Kept {
    fn new(device: &Device, dtype: DType, w: &[f64], decays: bool) -> Self {
        let master = (dtype == DType::BF16).then(|| tensor_on(device, DType::F32, &[w.len()], w));
        let moments = [(); 2].map(|()| Tensor::zeros_on(device, &[w.len()], DType::F32).unwrap());
        Self { value: tensor_on(device, dtype, &[w.len()], w), master, moments, decays }
    }

    fn with<'a>(&'a mut self, gradient: &'a Tensor) -> Weight<'a> {
        let Self { value, master, moments: [m, v], decays } = self;
        Weight { value, master: master.as_mut(), gradient, moments: [m, v], decays: *decays }
    }

    /// w, m and v; checks that a narrow weight is its master rounded.
    fn numbers(&self) -> [Vec<f32>; 3] {
        let [m, v] = self.moments.each_ref().map(numbers);
        let Some(master) = &self.master else { return [numbers(&self.value), m, v] };
        let w = numbers(master);
        let wide: Vec<f64> = w.iter().map(|&w| w.into()).collect();
        assert_eq!(numbers(&self.value), f32s(&exact_in(DType::BF16, &wide)));
        [w, m, v]
    }
}

fn step(kept: &mut [Kept], gradients: &[Tensor], settings: &AdamW, step: u64, clip: f32) -> Norm {
    let norm = norm(&gradients.iter().collect::<Vec<_>>(), clip).unwrap();
    let mut weights: Vec<Weight> = kept.iter_mut().zip(gradients).map(|(kept, g)| kept.with(g)).collect();
    update(&mut weights, settings, step, &norm).unwrap();
    norm
}

#[derive(Debug)]
struct Case {
    sizes: Vec<usize>,
    settings: AdamW,
    clip: f32,
    scale: f64,
    offset: f64,
    seed: u64,
    narrow: bool,
}

fn ten_steps_match_the_reference(case: &Case, device: &Device) {
    let Case { sizes, settings, clip, scale: size, offset, seed, narrow } = case;
    let numbers = |n: usize, i: usize, step: u64| random(n, seed + step + ((i as u64) << 32), *size, *offset);
    let dtype = |i: usize| if *narrow && i % 3 != 1 { DType::BF16 } else { DType::F32 };
    let start = |(i, &n): (usize, &usize)| [numbers(n, i, 0), vec![0.0; n], vec![0.0; n]];
    let mut exact: Vec<_> = sizes.iter().enumerate().map(start).collect();
    let mut naive = exact.clone();
    let mut kept: Vec<Kept> = (0..sizes.len()).map(|i| Kept::new(device, dtype(i), &exact[i][0], i % 2 == 0)).collect();
    for t in 1..=10u8 {
        let gradients: Vec<_> = sizes.iter().enumerate().map(|(i, &n)| numbers(n, i, t.into())).collect();
        let total = gradients.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
        for (i, g) in gradients.iter().enumerate() {
            let weight_decay = if i % 2 == 0 { settings.weight_decay } else { 0.0 };
            let settings = AdamW { weight_decay, ..*settings };
            reference(&mut exact[i], g, &settings, t.into(), scale(total, *clip), EXACT);
            let scale = f64::from(scale(total, *clip) as f32);
            reference(&mut naive[i], g, &settings, t.into(), scale, NAIVE);
        }
        let there: Vec<_> = gradients.iter().map(|g| tensor_on(device, DType::F32, &[g.len()], g)).collect();
        let got = step(&mut kept, &there, settings, t.into(), *clip).value().unwrap();
        assert!((got - total).abs() <= tolerance(&[total], &[total]), "{got} {total}");
    }
    // All weights together, as a naive run over few may be lucky.
    let got: Vec<_> = kept.iter().map(Kept::numbers).collect();
    for (part, name) in ["w", "m", "v"].into_iter().enumerate() {
        let all = |x: &[[Vec<f64>; 3]]| x.iter().flat_map(|x| x[part].clone()).collect::<Vec<_>>();
        let got: Vec<f32> = got.iter().flat_map(|x| x[part].clone()).collect();
        assert_close(name, &got, &all(&exact), &all(&naive));
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = prop::collection::vec(prop::sample::select(&[0usize, 1, 3, 7, 8, 9, 17, 1000][..]), 8..20);
    let scale = prop::sample::select(&[1e-3, 1.0, 1e3][..]);
    let offset = prop::sample::select(&[0.0, 100.0][..]);
    let eps = prop::sample::select(&[1e-8f32, 1e-3][..]);
    let clip = prop::sample::select(&[0.0f32, 1.0, 1e9][..]);
    (sizes, scale, offset, eps, clip, any::<u32>(), any::<bool>()).prop_map(
        |(mut sizes, scale, offset, eps, clip, seed, narrow)| {
            sizes.push(64);
            let settings = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps, weight_decay: 0.1 };
            Case { sizes, settings, clip, scale, offset, seed: seed.into(), narrow }
        },
    )
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn the_cpu_keeps_the_laws(case in cases()) {
        ten_steps_match_the_reference(&case, &Device::Cpu);
    }
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn gpus_keep_the_laws(case in cases()) {
        for device in gpus() {
            ten_steps_match_the_reference(&case, device);
        }
    }
}

const SETTINGS: AdamW = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

/// More numbers than a block takes, and more tensors than a launch.
#[test]
fn large_and_many_tensors() {
    for device in devices() {
        let mut sizes = vec![16_384, 16_385, 40_003];
        sizes.extend((0..200).map(|i| i % 5));
        let case = Case { sizes, settings: SETTINGS, clip: 1.0, scale: 1.0, offset: 0.0, seed: 3, narrow: true };
        ten_steps_match_the_reference(&case, device);
    }
}

/// On a CPU for any number of threads, on a GPU for any order of theirs.
#[test]
fn results_have_the_same_bits_however_they_are_computed() {
    let n = 100_003;
    let run = |device: &Device| {
        let g = tensor_on(device, DType::F32, &[n], &random(n, 1, 1.0, 0.0));
        let mut kept = [Kept::new(device, DType::F32, &random(n, 2, 1.0, 0.0), true)];
        let norm = step(&mut kept, &[g], &SETTINGS, 3, 1.0).value().unwrap();
        (norm.to_bits(), kept[0].numbers().map(|x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>()))
    };
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&Device::Cpu))
    };
    assert!(with(1) == with(3));
    let all: Vec<_> = gpus().iter().map(run).collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn the_norm_is_exact() {
    for device in devices() {
        for n in [0, 1, 7, 8, 9, 40_000] {
            let x = random(n, 5, 1e3, 0.0);
            let want = x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let got = norm(&[&tensor_on(device, DType::F32, &[n], &x)], 1.0).unwrap().value().unwrap();
            // f64 until it is rounded to f32, on a GPU.
            assert!((got - want).abs() <= want * f64::from(f32::EPSILON), "{device}, {n}: {got} {want}");
        }
        // Squares beyond f32.
        let large = norm(&[&tensor_on(device, DType::F32, &[2], &[3e30, 4e30])], 0.0).unwrap();
        assert!((large.value().unwrap() / 5e30 - 1.0).abs() < 1e-6, "{device}");
        assert_eq!(norm(&[], 1.0).unwrap().value().unwrap(), 0.0);
    }
}

/// A gradient with a NaN or an infinity spoils nothing, whichever tensor it is in.
#[test]
fn a_norm_that_is_not_finite_changes_nothing_and_is_told() {
    for device in devices() {
        for (bad, at) in [(f64::NAN, 0), (f64::INFINITY, 1), (f64::NEG_INFINITY, 1)] {
            let mut kept = [DType::BF16, DType::F32].map(|dtype| Kept::new(device, dtype, &[1.0, 2.0, 3.0], true));
            let good = [(); 2].map(|()| tensor_on(device, DType::F32, &[3], &[0.5; 3]));
            step(&mut kept, &good, &SETTINGS, 1, 1.0);
            let before = kept.each_ref().map(Kept::numbers);
            assert!(before[0][0].iter().all(|w| w.is_finite()));
            let mut spoiled = good.clone();
            spoiled[at] = tensor_on(device, DType::F32, &[3], &[0.5, bad, 0.5]);
            let norm = step(&mut kept, &spoiled, &SETTINGS, 2, 1.0);
            assert!(!norm.value().unwrap().is_finite(), "{device}");
            assert_eq!(kept.each_ref().map(Kept::numbers), before, "{device}");
            step(&mut kept, &good, &SETTINGS, 2, 1.0);
            assert_ne!(kept.each_ref().map(Kept::numbers), before, "{device}: the next step is one again");
        }
    }
}

#[test]
fn misfits_are_errors_and_change_nothing() {
    for device in devices() {
        let zeros = |n: usize, dtype| Tensor::zeros_on(device, &[n], dtype).unwrap();
        let ones = |n: usize| tensor_on(device, DType::F32, &[n], &vec![1.0; n]);
        let mut kept = Kept::new(device, DType::F32, &[1.0; 3], true);
        let g = ones(3);
        let clipped = norm(&[&g], 1.0).unwrap();
        let mut refused = |g: &Tensor, step, change: &dyn Fn(&mut Kept)| {
            let mut changed = Kept { value: kept.value.clone(), master: None, moments: kept.moments.clone(), ..kept };
            change(&mut changed);
            let good = ones(3);
            update(&mut [kept.with(&good), changed.with(g)], &SETTINGS, step, &clipped).is_err()
        };
        assert!(refused(&ones(2), 1, &|_| ()));
        assert!(refused(&g, 0, &|_| ()));
        assert!(refused(&g, 1, &|kept| kept.moments[0] = zeros(2, DType::F32)));
        assert!(refused(&g, 1, &|kept| kept.moments[1] = zeros(3, DType::U32)));
        assert!(refused(&g, 1, &|kept| kept.value = zeros(3, DType::BF16)));
        assert!(refused(&g, 1, &|kept| kept.master = Some(ones(3))));
        assert_eq!(kept.numbers(), [vec![1.0; 3], vec![0.0; 3], vec![0.0; 3]]);
        assert!(norm(&[&zeros(3, DType::U32)], 1.0).is_err());
        let near = Tensor::zeros(&[3], DType::F32).unwrap();
        assert!(device == &Device::Cpu || norm(&[&g, &near], 1.0).is_err());
    }
}
