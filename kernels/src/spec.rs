//! What every operation's tests share. A reference is written once in f64 and takes an [`Arith`]: with [`EXACT`] it is
//! the truth, with [`NAIVE`] it is what a plain f32 implementation would give. A tolerance is computed from the two.

use half::bf16;
use tensor::{DType, Device, Gpu, Tensor, UseOf};

/// Two roundings: after each arithmetic step, and of each stored value.
#[derive(Clone, Copy)]
pub(crate) struct Arith {
    pub step: fn(f64) -> f64,
    pub store: fn(f64) -> f64,
}

/// No rounding.
pub(crate) const EXACT: Arith = Arith { step: |x| x, store: |x| x };
/// Every step and every stored value rounded to f32.
pub(crate) const NAIVE: Arith = Arith { step: |x| f64::from(x as f32), store: |x| f64::from(x as f32) };

/// As [`NAIVE`], with what is stored as `dtype`.
pub(crate) fn naive(dtype: DType) -> Arith {
    match dtype {
        DType::BF16 => Arith { store: |x| f64::from(bf16::from_f32(x as f32)), ..NAIVE },
        _ => NAIVE,
    }
}

/// The largest error allowed: twice the naive run's, plus 4 f32 ulp of the largest output.
pub(crate) fn tolerance(exact: &[f64], naive: &[f64]) -> f64 {
    let largest = exact.iter().fold(0.0f64, |m, x| m.max(x.abs())).max(f64::from(f32::MIN_POSITIVE));
    let ulp = 2f64.powi(largest.log2().floor() as i32 - 23);
    2.0 * max_error(exact, naive) + 4.0 * ulp
}

/// The largest absolute difference; NaN counts as infinite.
pub(crate) fn max_error(exact: &[f64], got: &[f64]) -> f64 {
    assert_eq!(exact.len(), got.len());
    exact
        .iter()
        .zip(got)
        .map(|(e, g)| (e - g).abs())
        .fold(0.0, |m, x| if x.is_nan() { f64::INFINITY } else { m.max(x) })
}

/// Panics unless `got` is within [`tolerance`] of `exact`.
#[track_caller]
pub(crate) fn assert_close(name: &str, got: &[f32], exact: &[f64], naive: &[f64]) {
    let got: Vec<f64> = got.iter().map(|&x| f64::from(x)).collect();
    let (error, allowed) = (max_error(exact, &got), tolerance(exact, naive));
    assert!(error <= allowed, "{name}: error {error:e}, allowed {allowed:e}");
}

/// The GPUs of compute capability 9.0, as far as there are, with kernels for it: a simulated one for each schedule.
pub(crate) fn hoppers() -> Vec<Device> {
    // Which ones there are is known when a driver has been found.
    let any = simulator::gpus().len();
    let use_of = UseOf { hopper: true, ..UseOf::default() };
    let all = (0..if any > 0 { Gpu::count() } else { 0 }).map(|i| Gpu::open_to_use(i, use_of).unwrap());
    all.filter(|gpu| gpu.hopper().unwrap()).map(Device::Cuda).collect()
}

/// Central differences of a scalar function of `x`, by every element.
pub(crate) fn gradient(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    (0..x.len())
        .map(|i| {
            let h = 1e-5 * x[i].abs().max(1.0);
            let at = |shift: f64| {
                let mut y = x.to_vec();
                y[i] += shift;
                f(&y)
            };
            (at(h) - at(-h)) / (2.0 * h)
        })
        .collect()
}

/// `n` numbers from a small generator: `offset + scale * (about normal)`, each exactly an f32.
pub(crate) fn random(n: usize, seed: u64, scale: f64, offset: f64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x1234_5678_9ABC_DEF1);
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..n)
        .map(|_| {
            let sum: f64 = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
            f64::from((offset + scale * sum) as f32)
        })
        .collect()
}

/// Numbers that are exact in `dtype`.
pub(crate) fn exact_in(dtype: DType, x: &[f64]) -> Vec<f64> {
    x.iter().map(|&x| (naive(dtype).store)(x)).collect()
}

/// A tensor of these numbers, rounded to `dtype`, on a device.
pub(crate) fn tensor_on(device: &Device, dtype: DType, sizes: &[usize], x: &[f64]) -> Tensor {
    Tensor::new(sizes, f32s(x)).unwrap().to_dtype(dtype).unwrap().to_device(device).unwrap()
}

/// The numbers of a float tensor, wherever it is.
pub(crate) fn numbers(x: &Tensor) -> Vec<f32> {
    x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap().values().unwrap().to_vec()
}

pub(crate) fn f32s(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&x| x as f32).collect()
}
