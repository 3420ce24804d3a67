//! `AdamW` against the update of `torch.optim.AdamW` written out in f64.

use proptest::prelude::*;
use tensor::{DType, Tensor};

use super::{AdamW, sum_of_squares, update};
use crate::spec::{Arith, EXACT, NAIVE, assert_close, f32s, random};

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

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ten_steps_match_the_reference(
        n in prop::sample::select(&[1usize, 7, 8, 9, 17, 1000][..]),
        scale in prop::sample::select(&[1e-3, 1.0, 1e3][..]),
        offset in prop::sample::select(&[0.0, 100.0][..]),
        eps in prop::sample::select(&[1e-8f32, 1e-3][..]),
        grad_scale in prop::sample::select(&[1.0f32, 0.3][..]),
        seed in any::<u32>(),
    ) {
        let settings = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps, weight_decay: 0.1 };
        // At least 64 numbers in all, as a naive run over few may be lucky.
        let mut all: [(Vec<f32>, Vec<f64>, Vec<f64>); 3] = Default::default();
        for copy in 0..64u64.div_ceil(n as u64) {
            let seed = u64::from(seed) + (copy << 32);
            let start = [random(n, seed, scale, offset), vec![0.0; n], vec![0.0; n]];
            let (mut exact, mut naive) = (start.clone(), start.clone());
            let [mut w, mut m, mut v] = start.map(|x| Tensor::new(&[n], f32s(&x)).unwrap());
            for step in 1..=10u8 {
                let g = random(n, seed + u64::from(step), scale, offset);
                reference(&mut exact, &g, &settings, step.into(), grad_scale.into(), EXACT);
                reference(&mut naive, &g, &settings, step.into(), grad_scale.into(), NAIVE);
                let g = Tensor::new(&[n], f32s(&g)).unwrap();
                update(&mut w, &g, &mut m, &mut v, &settings, step.into(), grad_scale).unwrap();
            }
            for (all, ((got, exact), naive)) in all.iter_mut().zip([w, m, v].into_iter().zip(exact).zip(naive)) {
                all.0.extend(got.values::<f32>().unwrap());
                all.1.extend(exact);
                all.2.extend(naive);
            }
        }
        for (name, (got, exact, naive)) in ["w", "m", "v"].into_iter().zip(&all) {
            assert_close(name, got, exact, naive);
        }
    }
}

#[test]
fn results_have_the_same_bits_for_any_number_of_threads() {
    let n = 100_003;
    let settings = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let g = Tensor::new(&[n], f32s(&random(n, 1, 1.0, 0.0))).unwrap();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let [mut w, mut m, mut v] = [2, 3, 4].map(|seed| {
            let x = random(n, seed, 1.0, 0.0).iter().map(|x| x.abs()).collect::<Vec<_>>();
            Tensor::new(&[n], f32s(&x)).unwrap()
        });
        let sum = pool.install(|| {
            update(&mut w, &g, &mut m, &mut v, &settings, 3, 0.5).unwrap();
            sum_of_squares(&g).unwrap()
        });
        (sum.to_bits(), [w, m, v].map(|x| x.bytes().to_vec()))
    };
    assert!(run(1) == run(3));
}

#[test]
fn the_sum_of_squares_is_exact_to_f64() {
    for n in [0, 1, 7, 8, 9, 40_000] {
        let x = random(n, 5, 1e3, 0.0);
        let want: f64 = x.iter().map(|x| x * x).sum();
        let got = sum_of_squares(&Tensor::new(&[n], f32s(&x)).unwrap()).unwrap();
        // Each of the n additions, here and there, rounds to within half an ulp of the sum.
        assert!((got - want).abs() <= want * n as f64 * f64::EPSILON, "{n}: {got} {want}");
    }
    let large = Tensor::new(&[1], vec![1e30f32]).unwrap();
    assert!(sum_of_squares(&large).unwrap().is_finite());
}

#[test]
fn misfits_are_errors_and_change_nothing() {
    let settings = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let ones = |n| Tensor::new(&[n], vec![1.0f32; n]).unwrap();
    let (mut w, mut m, mut v) = (ones(3), ones(3), ones(3));
    assert!(update(&mut w, &ones(2), &mut m, &mut v, &settings, 1, 1.0).is_err());
    assert!(update(&mut w, &ones(3), &mut ones(2), &mut v, &settings, 1, 1.0).is_err());
    assert!(update(&mut w, &ones(3), &mut m, &mut v, &settings, 0, 1.0).is_err());
    let mut integers = Tensor::zeros(&[3], DType::U32).unwrap();
    assert!(update(&mut w, &ones(3), &mut m, &mut integers, &settings, 1, 1.0).is_err());
    assert_eq!(w.values::<f32>().unwrap(), [1.0; 3]);
    assert_eq!(m.values::<f32>().unwrap(), [1.0; 3]);
    assert!(sum_of_squares(&integers).is_err());
}
