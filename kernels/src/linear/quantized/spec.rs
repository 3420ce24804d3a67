//! What quantised weights are, and that their products are those of the weights they stand for.

use proptest::prelude::*;
use tensor::{DType, Tensor};

use super::super::Products::Stored;
use super::super::{Epilogue, few_rows, forward, forward_gelu, forward_residual};
use super::product::{Path, Rows, multiply};
use super::{BLOCK, Bits, Output, dequantize, quantize};
use crate::embedding;
use crate::spec::{Arith, EXACT, NAIVE, assert_close, exact_in, f32s, random};

const ROWS: [usize; 11] = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 40];
const DEPTHS: [usize; 7] = [1, 31, 32, 33, 64, 200, 1031];
const COLS: [usize; 7] = [1, 15, 16, 17, 64, 65, 259];

#[derive(Clone, Debug)]
struct Draw {
    sizes: [usize; 3],
    dtype: DType,
    scale: f64,
    seed: u64,
}

fn draw() -> impl Strategy<Value = Draw> {
    let pick = |from: &'static [usize]| prop::sample::select(from);
    let scale = prop::sample::select(&[1e-3, 1.0, 1e3][..]);
    let dtype = prop::sample::select(&[DType::Q8, DType::Q4][..]);
    (pick(&ROWS), pick(&DEPTHS), pick(&COLS), dtype, scale, any::<u32>())
        .prop_map(|(t, k, n, dtype, scale, seed)| Draw { sizes: [t, k, n], dtype, scale, seed: seed.into() })
}

fn tensor(sizes: &[usize], values: &[f64]) -> Tensor {
    Tensor::new(sizes, f32s(values)).unwrap()
}

fn values(t: &Tensor) -> Vec<f64> {
    t.values::<f32>().unwrap().iter().map(|&x| f64::from(x)).collect()
}

struct Case {
    x: Tensor,
    w: Tensor,
    q: Tensor,
    b: Tensor,
}

impl Draw {
    fn case(&self) -> Case {
        let [t, k, n] = self.sizes;
        let x = tensor(&[t, k], &random(t * k, self.seed, self.scale, 0.0));
        let w = tensor(&[n, k], &random(n * k, self.seed ^ 1, 0.05, 0.0));
        let b = tensor(&[n], &random(n, self.seed ^ 2, self.scale, 0.0));
        let q = quantize(&w, self.dtype).unwrap();
        Case { x, w, q, b }
    }
}

/// x as rows of 8 bits stand for it: written anew, from the definition.
fn rounded(x: &[f64], k: usize) -> Vec<f64> {
    let block = |x: &[f64]| {
        let most = x.iter().fold(0.0f32, |m, &x| m.max(x.abs() as f32));
        let (scale, inverse) = (most / 127.0, if most > 0.0 { 127.0 / most } else { 0.0 });
        x.iter().map(|&x| f64::from((x as f32 * inverse).round_ties_even()) * f64::from(scale)).collect::<Vec<f64>>()
    };
    x.chunks(k).flat_map(|row| row.chunks(BLOCK).flat_map(block).collect::<Vec<f64>>()).collect()
}

/// x · wᵀ + b, the sums of so many products at once, as those of whole numbers are.
fn reference([t, k, n]: [usize; 3], at_once: usize, [x, w, b]: [&[f64]; 3], arith: Arith) -> Vec<f64> {
    let dot = |i: usize, j: usize| {
        let (x, w) = (&x[i * k..(i + 1) * k], &w[j * k..(j + 1) * k]);
        let blocks = x.chunks(at_once).zip(w.chunks(at_once));
        blocks.fold(0.0, |sum, (x, w)| (arith.step)(sum + (arith.step)(x.iter().zip(w).map(|(x, w)| x * w).sum())))
    };
    (0..t * n).map(|at| (arith.step)(dot(at / n, at % n) + b[at % n])).collect()
}

/// The bits of x · wᵀ.
fn by(path: Path, x: &[f32], q: &Tensor) -> Vec<u32> {
    let [n, k] = *q.shape() else { unreachable!("weights have two axes") };
    let bits = Bits::of("test", q.dtype()).unwrap();
    let mut y = vec![f32::NAN; x.len() / k * n];
    let rows = Rows::new(path, x, k, bits);
    multiply(&rows, q.bytes().unwrap(), bits, &Output::new(&mut y, n), n, |_, _, _| {});
    y.iter().map(|y| y.to_bits()).collect()
}

fn has_tiles() -> bool {
    #[cfg(target_arch = "x86_64")]
    return crate::amx::is_here();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn products_are_those_of_the_weights_they_stand_for(draw in draw()) {
        let [t, k, n] = draw.sizes;
        // Of few numbers a naive run's may all be exact by luck.
        let mut all: [[Vec<f64>; 3]; 2] = Default::default();
        for copy in 0..64_u64.div_ceil((t * n) as u64) {
            let Case { x, q, b, .. } = Draw { seed: draw.seed + (copy << 32), ..draw.clone() }.case();
            let (xs, ws) = (values(&x), values(&dequantize(&q).unwrap()));
            let few = [rounded(&xs, k), ws.clone()];
            // In tiles both are bf16.
            let many = if has_tiles() { [xs, ws].map(|x| exact_in(DType::BF16, &x)) } else { few.clone() };
            let (b64, blocks) = (values(&b), if has_tiles() { [BLOCK, 1] } else { [BLOCK; 2] });
            let ys = [few_rows(&x, &q, Some(&b), Epilogue::None).unwrap(), forward(&x, &q, &b, Stored).unwrap()];
            for ((([got, exact, naive], y), [x, w]), at_once) in all.iter_mut().zip(ys).zip([few, many]).zip(blocks) {
                got.extend(values(&y));
                exact.extend(reference(draw.sizes, at_once, [&x, &w, &b64], EXACT));
                naive.extend(reference(draw.sizes, at_once, [&x, &w, &b64], NAIVE));
            }
        }
        for (name, [got, exact, naive]) in ["few rows", "many rows"].iter().zip(&all) {
            assert_close(name, &f32s(got), exact, naive);
        }
        let Case { x, q, b, .. } = draw.case();
        let y = forward(&x, &q, &b, Stored).unwrap();
        prop_assert_eq!(y.shape(), &[t, n]);
        if !has_tiles() {
            let few = few_rows(&x, &q, Some(&b), Epilogue::None).unwrap();
            prop_assert_eq!(y.values::<f32>().unwrap(), few.values::<f32>().unwrap());
        }
        // What comes behind is what it is elsewhere.
        let residual = tensor(&[t, n], &random(t * n, draw.seed ^ 3, draw.scale, 0.0));
        let sum = forward_residual(&x, &q, &b, &residual, Stored).unwrap();
        let sums = y.values::<f32>().unwrap().iter().zip(residual.values::<f32>().unwrap()).map(|(y, r)| y + r);
        prop_assert!(sums.eq(sum.values::<f32>().unwrap().iter().copied()));
        let mut gelu = y.values::<f32>().unwrap().to_vec();
        gelu.chunks_mut(n).for_each(super::super::gelu::forward);
        let got = forward_gelu(&x, &q, &b, Stored).unwrap();
        prop_assert!(gelu.iter().zip(got.values::<f32>().unwrap()).all(|(a, b)| (a - b).abs() <= 1e-6 * a.abs() || a == b));
    }

    #[test]
    fn every_machine_gives_the_same_bits_and_no_row_depends_on_others(draw in draw()) {
        let [t, k, n] = draw.sizes;
        let Case { x, q, .. } = draw.case();
        let x = x.values::<f32>().unwrap();
        let all = by(Path::here(), x, &q);
        for path in Path::all() {
            prop_assert_eq!(&by(path, x, &q), &all, "{:?}", path);
        }
        let last = by(Path::here(), &x[(t - 1) * k..], &q);
        prop_assert_eq!(&last[..], &all[(t - 1) * n..]);
    }

    #[test]
    fn codes_are_the_nearest_ones(draw in draw()) {
        let [_, k, n] = draw.sizes;
        let Case { w, q, .. } = draw.case();
        let (w, back) = (w.values::<f32>().unwrap(), dequantize(&q).unwrap());
        prop_assert_eq!((back.shape(), q.elements()), (&[n, k][..], n * k));
        for (w, back) in w.chunks(k).zip(back.values::<f32>().unwrap().chunks(k)) {
            for (w, back) in w.chunks(BLOCK).zip(back.chunks(BLOCK)) {
                let most = w.iter().fold(0.0f32, |m, w| m.max(w.abs()));
                let squares = |to: &dyn Fn(f32) -> f32| w.iter().map(|&w| (w - to(w)).powi(2)).sum::<f32>();
                if draw.dtype == DType::Q8 {
                    // Half a step, and 127 times what the scale lost in f16, whose numbers lie at least 2^-24 apart.
                    let allowed = most / 127.0 * 0.5 + (most / 1024.0).max(127.0 * 2f32.powi(-25));
                    prop_assert!(w.iter().zip(back).all(|(w, b)| (w - b).abs() <= allowed));
                } else {
                    // No worse than the plain way: the largest falls on -8.
                    let largest = w.iter().fold(0.0f32, |m, &w| if w.abs() > m.abs() { w } else { m });
                    let scale = half::f16::from_f32(largest / -8.0).to_f32();
                    let plain = |w: f32| if scale == 0.0 { 0.0 } else { (w / scale).round_ties_even().clamp(-8.0, 7.0) * scale };
                    let got: f32 = w.iter().zip(back).map(|(w, b)| (w - b).powi(2)).sum();
                    prop_assert!(got <= squares(&plain) * 1.001 + f32::MIN_POSITIVE, "{} {}", got, squares(&plain));
                }
            }
        }
    }

    #[test]
    fn an_embedding_has_the_rows(draw in draw()) {
        let [_, k, n] = draw.sizes;
        let Case { q, .. } = draw.case();
        let back = dequantize(&q).unwrap();
        let ids = [n as u32 - 1, 0, n as u32 / 2];
        let wanted: Vec<f32> = ids.iter().flat_map(|&id| back.values::<f32>().unwrap()[id as usize * k..][..k].to_vec()).collect();
        let found = embedding::forward(&q, &ids).unwrap();
        prop_assert_eq!(found.values::<f32>().unwrap(), &wanted[..]);
    }
}

/// Of no sizes that are drawn: each number of rows that registers hold and one more, and the largest codes, all of one sign in some blocks.
#[test]
fn every_path_for_every_number_of_rows() {
    let (n, k) = (37, 100);
    let ends = |count: usize, seed: u64| -> Vec<f64> {
        let all = random(count, seed, 1.0, 0.0).into_iter().enumerate();
        all.map(|(i, x)| if i / 32 % 3 == 0 { x } else { (x + (i / 32 % 3) as f64 - 1.5).signum() }).collect()
    };
    #[cfg(target_arch = "x86_64")]
    assert_eq!(Path::here() == Path::Tiles, crate::amx::has_bytes());
    for dtype in [DType::Q8, DType::Q4] {
        let q = quantize(&tensor(&[n, k], &ends(n * k, 1)), dtype).unwrap();
        for rows in 1..=33 {
            let x = f32s(&ends(rows * k, 2));
            let wanted = by(Path::Portable, &x, &q);
            assert!(wanted.iter().all(|&y| f32::from_bits(y).is_finite() && y != 0), "{rows} rows");
            for path in Path::all() {
                assert_eq!(by(path, &x, &q), wanted, "{path:?}, {rows} rows");
            }
        }
    }
}

#[test]
fn what_is_no_number_stays_none() {
    let w = tensor(&[16, 64], &random(16 * 64, 1, 0.1, 0.0));
    for dtype in [DType::Q8, DType::Q4] {
        let q = quantize(&w, dtype).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 31, 63] {
                let mut x = vec![1.0f32; 64];
                x[at] = bad;
                let y = few_rows(&Tensor::new(&[1, 64], x).unwrap(), &q, None, Epilogue::None).unwrap();
                assert!(y.values::<f32>().unwrap().iter().all(|y| !y.is_finite()), "{bad} at {at}");
            }
        }
    }
}

#[test]
fn tiny_and_huge_numbers() {
    let w = tensor(&[16, 64], &random(16 * 64, 1, 0.1, 0.0));
    for dtype in [DType::Q8, DType::Q4] {
        let q = quantize(&w, dtype).unwrap();
        for tiny in [f32::from_bits(1), 1e-40, 1e-38, f32::MIN_POSITIVE] {
            let y = few_rows(&Tensor::new(&[1, 64], vec![tiny; 64]).unwrap(), &q, None, Epilogue::None).unwrap();
            // 64 products of at most that size.
            assert!(y.values::<f32>().unwrap().iter().all(|y| y.abs() <= 64.0 * tiny), "{tiny}");
        }
        for huge in [1e7, f32::MAX, f32::NAN, f32::NEG_INFINITY] {
            let refused = quantize(&Tensor::new(&[1, 2], vec![0.0, huge]).unwrap(), dtype).is_err();
            assert!(refused || (huge == 1e7 && dtype == DType::Q8), "{huge}");
        }
        let large = Tensor::new(&[1, 2], vec![4e5f32, -4e5]).unwrap();
        let back = dequantize(&quantize(&large, dtype).unwrap()).unwrap();
        assert!(back.values::<f32>().unwrap().iter().all(|w| w.is_finite() && w.abs() > 3e5));
    }
}

#[test]
fn zeros_and_wrong_arguments() {
    let zeros = Tensor::zeros(&[17, 40], DType::BF16).unwrap();
    let q = quantize(&zeros, DType::Q4).unwrap();
    assert!(dequantize(&q).unwrap().values::<f32>().unwrap().iter().all(|&w| w == 0.0));
    assert!(quantize(&zeros, DType::BF16).is_err());
    assert!(quantize(&q, DType::Q8).is_err());
    assert!(dequantize(&zeros).is_err());
    assert!(quantize(&Tensor::zeros(&[4], DType::F32).unwrap(), DType::Q8).is_err());
    let x = Tensor::zeros(&[1, 39], DType::F32).unwrap();
    assert!(few_rows(&x, &q, None, Epilogue::None).is_err());
}
