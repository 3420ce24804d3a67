use proptest::prelude::*;
use simulator::devices;
use tensor::{DType, Device, Tensor};

use super::{add, clear, convert};
use crate::spec::{exact_in, f32s, naive, numbers, random, tensor_on};

/// Sizes around what a thread takes at a time and what a block does.
fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..40, prop::sample::select(vec![255usize, 256, 257, 2047, 8191, 8192, 8193, 16_389])]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_number_is_rounded_once(n in sizes(), narrow in any::<bool>(), scale in -3i32..4, seed in 0u64..1 << 40) {
        let [a, b] = [0, 1].map(|i| random(n, seed + i, 10f64.powi(scale), 0.5));
        for device in devices() {
            let dtype = if narrow && device != &Device::Cpu { DType::BF16 } else { DType::F32 };
            let [a, b] = [&a, &b].map(|x| exact_in(dtype, x));
            let wanted: Vec<f64> = a.iter().zip(&b).map(|(a, b)| (naive(dtype).store)(a + b)).collect();
            let mut sum = tensor_on(device, dtype, &[n], &a);
            let before = sum.clone();
            add(&mut sum, &tensor_on(device, dtype, &[n], &b)).unwrap();
            prop_assert_eq!(numbers(&sum), f32s(&wanted));
            prop_assert_eq!(numbers(&before), f32s(&a), "what shared the memory was changed");
            clear(&mut sum).unwrap();
            prop_assert_eq!(numbers(&sum), vec![0.0; n]);
        }
    }

    #[test]
    fn conversion_rounds_to_nearest_even(n in sizes(), scale in -3i32..4, seed in 0u64..1 << 40) {
        let x = random(n, seed, 10f64.powi(scale), 0.0);
        for device in devices() {
            let wide = tensor_on(device, DType::F32, &[n], &x);
            let short = convert(&wide, DType::BF16).unwrap();
            prop_assert_eq!((short.dtype(), short.device()), (DType::BF16, device));
            prop_assert_eq!(numbers(&short), f32s(&exact_in(DType::BF16, &x)));
            let back = convert(&short, DType::F32).unwrap();
            prop_assert_eq!((back.dtype(), back.device()), (DType::F32, device));
            prop_assert_eq!(numbers(&back), numbers(&short));
        }
    }
}

#[test]
fn strange_numbers_stay_strange() {
    let x = [f32::NAN, f32::INFINITY, -f32::INFINITY, f32::MAX, -0.0, 1e-40];
    for device in devices() {
        let wide = Tensor::new(&[6], x.to_vec()).unwrap().to_device(device).unwrap();
        let got = numbers(&convert(&wide, DType::BF16).unwrap());
        assert!(got[0].is_nan(), "{device}");
        assert_eq!(got[1..4], [f32::INFINITY, -f32::INFINITY, f32::INFINITY], "{device}");
        assert_eq!(got[4].to_bits(), (-0.0f32).to_bits(), "{device}");
        assert!((got[5] - 1e-40).abs() < 1e-41, "{device}: numbers below the normal ones are kept");
    }
}

#[test]
fn misfits_are_errors_and_change_nothing() {
    for device in devices() {
        let ones = |n: usize, dtype| tensor_on(device, dtype, &[n], &vec![1.0; n]);
        let mut sum = ones(3, DType::F32);
        assert!(add(&mut sum, &ones(2, DType::F32)).is_err());
        assert!(add(&mut sum, &ones(3, DType::BF16)).is_err());
        let integers = Tensor::zeros_on(device, &[3], DType::U32).unwrap();
        assert!(add(&mut sum, &integers).is_err());
        assert!(convert(&integers, DType::F32).is_err());
        assert!(convert(&sum, DType::U32).is_err());
        assert_eq!(numbers(&sum), [1.0; 3]);
        let near = Tensor::zeros(&[3], DType::F32).unwrap();
        assert!(device == &Device::Cpu || (add(&mut sum, &near).is_err() && add(&mut near.clone(), &sum).is_err()));
    }
}
