//! The f64 reference of the linear layer, and the laws it keeps.

use std::collections::BTreeMap;

use half::bf16;
use proptest::prelude::*;
use tensor::{DType, Tensor};

use super::gemm::{Matrix, Start, Values, gemm};
use super::{
    Epilogue, backward_input, backward_weight, few_rows, forward, forward_gelu, forward_gelu_saved, forward_residual,
    gelu_backward,
};
use crate::spec::{Arith, EXACT, NAIVE, assert_close, f32s, gradient, random};

/// Sizes at and around the tiles (6 × 16), a task (96 × 256, 64 rows of w), a block of k (256) and a vector.
const ROWS: [usize; 8] = [1, 2, 5, 6, 7, 13, 97, 103];
const DEPTHS: [usize; 9] = [1, 3, 15, 16, 17, 127, 256, 257, 1031];
const COLS: [usize; 8] = [1, 15, 16, 17, 31, 64, 65, 259];

/// `a[m, k] · b[k, n]`, elements given by functions of their indices.
fn product(
    [m, k, n]: [usize; 3],
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
    arith: Arith,
) -> Vec<f64> {
    let sum = |i, j| (0..k).fold(0.0, |sum, p| (arith.step)(sum + (arith.step)(a(i, p) * b(p, j))));
    (0..m * n).map(|at| (arith.store)(sum(at / n, at % n))).collect()
}

/// `x · Wᵀ + b`
fn reference(sizes: [usize; 3], x: &[f64], w: &[f64], b: &[f64], arith: Arith) -> Vec<f64> {
    let [_, k, n] = sizes;
    let y = product(sizes, |i, p| x[i * k + p], |p, j| w[j * k + p], arith);
    y.iter().enumerate().map(|(at, y)| (arith.store)((arith.step)(y + b[at % n]))).collect()
}

/// `1 + tanh u`: as Hugging Face has it, but exact where exactness is asked for, as the sum cancels below -1 even in
/// f64.
fn one_plus_tanh(u: f64, arith: Arith) -> f64 {
    let exact = (arith.step)(0.1) == 0.1;
    if exact { 2.0 / (1.0 + (-2.0 * u).exp()) } else { (arith.step)(1.0 + (arith.step)(u.tanh())) }
}

/// As `bloom_gelu_forward`.
fn gelu(x: f64, arith: Arith) -> f64 {
    let s = arith.step;
    let cubic = s(1.0 + s(s(0.044_715 * x) * x));
    (arith.store)(s(s(x * 0.5) * one_plus_tanh(s(s(0.797_884_56 * x) * cubic), arith)))
}

/// As `bloom_gelu_back`, with `1 - tanh²` as `(1 + tanh)(1 - tanh)`.
fn gelu_slope(x: f64, arith: Arith) -> f64 {
    let s = arith.step;
    let square = s(x * x);
    let u = s(s(0.797_884_56 * x) * s(1.0 + s(0.044_715 * square)));
    let (up, down) = (one_plus_tanh(u, arith), one_plus_tanh(-u, arith));
    let left = s(s(0.5 * x) * s(s(up * down) * s(0.797_884_56 + s(0.107_032_224_3 * square))));
    s(left + s(0.5 * up))
}

fn tensor(sizes: &[usize], values: &[f64]) -> Tensor {
    Tensor::new(sizes, f32s(values)).unwrap()
}

/// Numbers that are exact in `dtype`.
fn exact_in(dtype: DType, values: Vec<f64>) -> Vec<f64> {
    if dtype == DType::BF16 { values.into_iter().map(|x| bf16::from_f64(x).to_f64()).collect() } else { values }
}

fn got(t: &Tensor) -> &[f32] {
    t.values().unwrap()
}

/// What is drawn; the numbers follow from it.
#[derive(Clone, Debug)]
struct Draw {
    sizes: [usize; 3],
    dtype: DType,
    scale: f64,
    offset: f64,
    seed: u64,
}

fn draw() -> impl Strategy<Value = Draw> {
    let sizes = (prop::sample::select(&ROWS[..]), prop::sample::select(&DEPTHS[..]), prop::sample::select(&COLS[..]));
    let scale = prop::sample::select(&[1e-3, 1.0, 1e3][..]);
    let offset = prop::sample::select(&[0.0, 100.0][..]);
    (sizes, scale, offset, prop::sample::select(&[DType::F32, DType::BF16][..]), any::<u32>()).prop_map(
        |((t, k, n), scale, offset, dtype, seed)| Draw { sizes: [t, k, n], dtype, scale, offset, seed: seed.into() },
    )
}

/// x, w, b, and r as a residual or an upstream gradient.
struct Case {
    sizes: [usize; 3],
    dtype: DType,
    x: Vec<f64>,
    w: Vec<f64>,
    b: Vec<f64>,
    r: Vec<f64>,
}

impl Case {
    fn tensors(&self) -> [Tensor; 4] {
        let [t, k, n] = self.sizes;
        let w = tensor(&[n, k], &self.w).to_dtype(self.dtype).unwrap();
        [tensor(&[t, k], &self.x), w, tensor(&[n], &self.b), tensor(&[t, n], &self.r)]
    }
}

impl Draw {
    /// So many cases that even the smallest output has 64 numbers in all: a naive run over few may be lucky.
    fn cases(self) -> impl Iterator<Item = Case> {
        let Self { sizes, dtype, scale, offset, seed } = self;
        let [t, k, n] = sizes;
        let smallest = (t * k).min(n * k).min(n);
        (0..64usize.div_ceil(smallest) as u64).map(move |copy| {
            let seed = (seed + (copy << 32)) * 8;
            Case {
                sizes,
                dtype,
                x: random(t * k, seed, scale, offset),
                w: exact_in(dtype, random(n * k, seed + 1, 1.0, 0.0)),
                b: random(n, seed + 2, scale, 0.0),
                r: random(t * n, seed + 3, scale, offset),
            }
        })
    }
}

/// Results by name, with their references.
#[derive(Default)]
struct Outcomes(BTreeMap<&'static str, Outcome>);

#[derive(Default)]
struct Outcome {
    got: Vec<f32>,
    exact: Vec<f64>,
    naive: Vec<f64>,
}

impl Outcomes {
    fn add(&mut self, name: &'static str, got: &[f32], want: impl Fn(Arith) -> Vec<f64>) {
        let all = self.0.entry(name).or_default();
        all.got.extend(got);
        all.exact.extend(want(EXACT));
        all.naive.extend(want(NAIVE));
    }

    fn check(self) {
        for (name, all) in self.0 {
            assert_close(name, &all.got, &all.exact, &all.naive);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn forwards_match_the_reference(draw in draw()) {
        let mut outcomes = Outcomes::default();
        for case in draw.cases() {
            let [x, w, b, r] = case.tensors();
            let both = [EXACT, NAIVE].map(|arith| reference(case.sizes, &case.x, &case.w, &case.b, arith));
            let plain = |arith: Arith| both[usize::from((arith.step)(0.1) != 0.1)].clone();
            let y = forward(&x, &w, &b).unwrap();
            outcomes.add("forward", got(&y), plain);
            outcomes.add("few_rows", got(&few_rows(&x, &w, Some(&b), Epilogue::None).unwrap()), plain);

            let residual = |arith: Arith| -> Vec<f64> {
                plain(arith).iter().zip(&case.r).map(|(y, r)| (arith.store)((arith.step)(y + r))).collect()
            };
            outcomes.add("residual", got(&forward_residual(&x, &w, &b, &r).unwrap()), residual);
            let few = few_rows(&x, &w, Some(&b), Epilogue::Residual(&r)).unwrap();
            outcomes.add("few_rows, residual", got(&few), residual);

            let (pre, saved) = forward_gelu_saved(&x, &w, &b).unwrap();
            prop_assert_eq!(got(&pre), got(&y));
            let y = forward_gelu(&x, &w, &b).unwrap();
            prop_assert_eq!(got(&saved), got(&y));
            let gelus = |arith: Arith| -> Vec<f64> { plain(arith).iter().map(|&y| gelu(y, arith)).collect() };
            outcomes.add("gelu", got(&y), gelus);
            let few = few_rows(&x, &w, Some(&b), Epilogue::Gelu).unwrap();
            outcomes.add("few_rows, gelu", got(&few), gelus);
        }
        outcomes.check();
    }

    #[test]
    fn backwards_match_the_reference(draw in draw()) {
        let mut outcomes = Outcomes::default();
        for case in draw.cases() {
            let [x, w, _, dy] = case.tensors();
            let [t, k, n] = case.sizes;
            outcomes.add("dx", got(&backward_input(&dy, &w).unwrap()), |arith| {
                product([t, n, k], |i, j| case.r[i * n + j], |j, p| case.w[j * k + p], arith)
            });
            let (before_w, before_b) = (random(n * k, 5, 1.0, 0.0), random(n, 6, 1.0, 0.0));
            let (mut dw, mut db) = (tensor(&[n, k], &before_w), tensor(&[n], &before_b));
            backward_weight(&dy, &x, &mut dw, &mut db).unwrap();
            let add = |before: &[f64], new: Vec<f64>, arith: Arith| -> Vec<f64> {
                before.iter().zip(new).map(|(a, b)| (arith.store)((arith.step)(a + b))).collect()
            };
            outcomes.add("dw", got(&dw), |arith| {
                let new = product([n, t, k], |j, i| case.r[i * n + j], |i, p| case.x[i * k + p], arith);
                add(&before_w, new, arith)
            });
            outcomes.add("db", got(&db), |arith| {
                add(&before_b, product([n, t, 1], |j, i| case.r[i * n + j], |_, _| 1.0, arith), arith)
            });
        }
        outcomes.check();
    }

    #[test]
    fn gelu_and_its_slope_match_the_reference(
        seed in any::<u32>(),
        n in prop::sample::select(&[1usize, 7, 8, 9, 1000][..]),
        scale in prop::sample::select(&[1e-3, 1.0, 10.0, 1e3][..]),
        offset in prop::sample::select(&[0.0, -5.0, 100.0][..]),
    ) {
        let mut outcomes = Outcomes::default();
        for copy in 0..64u64.div_ceil(n as u64) {
            let (x, dy) = (random(n, u64::from(seed) + (copy << 32), scale, offset), random(n, 9 + copy, 1.0, 0.0));
            let dx = gelu_backward(&tensor(&[n], &dy), &tensor(&[n], &x)).unwrap();
            outcomes.add("slope", got(&dx), |arith| {
                x.iter().zip(&dy).map(|(&x, dy)| (arith.store)((arith.step)(dy * gelu_slope(x, arith)))).collect()
            });
            let mut y = f32s(&x);
            super::gelu::forward(&mut y);
            outcomes.add("gelu", &y, |arith| x.iter().map(|&x| gelu(x, arith)).collect());
        }
        // One ordinary number, for the tolerance to be relative to: far to the left all is next to nothing.
        let dx = gelu_backward(&tensor(&[1], &[1.0]), &tensor(&[1], &[1.0])).unwrap();
        outcomes.add("slope", got(&dx), |arith| vec![gelu_slope(1.0, arith)]);
        outcomes.check();
    }
}

#[test]
fn gradients_are_the_central_differences_of_the_reference() {
    let [t, k, n] = [3, 5, 4];
    let (x, w, b) = (random(t * k, 1, 1.0, 0.0), random(n * k, 2, 1.0, 0.0), random(n, 3, 1.0, 0.0));
    let r = random(t * n, 4, 1.0, 0.0);
    // Σ r · gelu(x · Wᵀ + b)
    let loss = |x: &[f64], w: &[f64], b: &[f64]| -> f64 {
        let pre = reference([t, k, n], x, w, b, EXACT);
        pre.iter().zip(&r).map(|(&y, r)| r * gelu(y, EXACT)).sum()
    };
    let (pre, _) = forward_gelu_saved(&tensor(&[t, k], &x), &tensor(&[n, k], &w), &tensor(&[n], &b)).unwrap();
    let dy = gelu_backward(&tensor(&[t, n], &r), &pre).unwrap();
    let dx = backward_input(&dy, &tensor(&[n, k], &w)).unwrap();
    let mut dw = Tensor::zeros(&[n, k], DType::F32).unwrap();
    let mut db = Tensor::zeros(&[n], DType::F32).unwrap();
    backward_weight(&dy, &tensor(&[t, k], &x), &mut dw, &mut db).unwrap();

    let naive_pre = reference([t, k, n], &x, &w, &b, NAIVE);
    let dy: Vec<f64> = naive_pre.iter().zip(&r).map(|(&y, r)| (NAIVE.store)(r * gelu_slope(y, NAIVE))).collect();
    let naive = product([t, n, k], |i, j| dy[i * n + j], |j, p| w[j * k + p], NAIVE);
    assert_close("dx", got(&dx), &gradient(&x, |x| loss(x, &w, &b)), &naive);
    let naive = product([n, t, k], |j, i| dy[i * n + j], |i, p| x[i * k + p], NAIVE);
    assert_close("dw", got(&dw), &gradient(&w, |w| loss(&x, w, &b)), &naive);
    let naive = product([n, t, 1], |j, i| dy[i * n + j], |_, _| 1.0, NAIVE);
    assert_close("db", got(&db), &gradient(&b, |b| loss(&x, &w, b)), &naive);
}

/// Bits, so that NaN counts too.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

#[test]
fn a_row_has_the_same_bits_alone_in_a_batch_and_with_any_number_of_threads() {
    // More than one task and shared block of k and n, none of them full.
    let [t, k, n] = [100, 1100, 1100];
    for dtype in [DType::F32, DType::BF16] {
        let x = random(t * k, 1, 1.0, 0.0);
        let w = tensor(&[n, k], &random(n * k, 2, 1.0, 0.0)).to_dtype(dtype).unwrap();
        let b = tensor(&[n], &random(n, 3, 1.0, 0.0));
        let ops: [fn(&Tensor, &Tensor, &Tensor) -> Tensor; 3] = [
            |x, w, b| forward_gelu(x, w, b).unwrap(),
            |x, w, b| few_rows(x, w, Some(b), Epilogue::Gelu).unwrap(),
            |x, w, _| backward_input(x, w).unwrap(),
        ];
        for op in ops {
            let part = |rows: std::ops::Range<usize>| tensor(&[rows.len(), k], &x[rows.start * k..rows.end * k]);
            let all = with_threads(1, || op(&part(0..t), &w, &b));
            for threads in [2, 3] {
                assert_eq!(bits(got(&all)), bits(got(&with_threads(threads, || op(&part(0..t), &w, &b)))));
            }
            for rows in [0..1, 50..51, 99..100, 3..5, 40..43, 64..68, 91..99] {
                let some = op(&part(rows.clone()), &w, &b);
                assert_eq!(bits(got(&some)), bits(&got(&all)[rows.start * n..rows.end * n]), "rows {rows:?}");
            }
        }
    }
}

#[test]
fn weight_gradients_have_the_same_bits_for_any_number_of_threads() {
    let [t, k, n] = [300, 270, 500];
    let (dy, x) = (tensor(&[t, n], &random(t * n, 1, 1.0, 0.0)), tensor(&[t, k], &random(t * k, 2, 1.0, 0.0)));
    let run = || {
        let mut dw = Tensor::zeros(&[n, k], DType::F32).unwrap();
        let mut db = Tensor::zeros(&[n], DType::F32).unwrap();
        backward_weight(&dy, &x, &mut dw, &mut db).unwrap();
        [bits(got(&dw)), bits(got(&db))]
    };
    assert_eq!(with_threads(1, run), with_threads(3, run));
}

#[test]
fn the_multiplication_writes_all_of_c_and_nothing_else() {
    const GUARD: usize = 64;
    for [m, k, n] in [[1, 1, 1], [6, 256, 16], [7, 257, 17], [101, 300, 270], [4, 0, 5]] {
        let (a, b) = (f32s(&random(m * k, 1, 1.0, 0.0)), f32s(&random(k * n, 2, 1.0, 0.0)));
        let mut memory = vec![f32::NAN; m * n + 2 * GUARD];
        let a = Matrix::row_major(Values::F32(&a), m, k);
        let b = Matrix::row_major(Values::F32(&b), k, n);
        gemm(&mut memory[GUARD..GUARD + m * n], a, b, Start::Zero);
        let (before, rest) = memory.split_at(GUARD);
        let (c, after) = rest.split_at(m * n);
        assert!(c.iter().all(|x| x.is_finite()), "{m} {k} {n}");
        assert!(before.iter().chain(after).all(|x| x.to_bits() == f32::NAN.to_bits()), "{m} {k} {n}");
    }
}

#[test]
fn infinities_and_nan_stay_in_their_row() {
    let [t, k, n] = [3, 20, 18];
    let mut x = random(t * k, 1, 1.0, 0.0);
    x[k + 3] = f64::NAN;
    x[2 * k] = f64::INFINITY;
    let (x, w) = (tensor(&[t, k], &x), tensor(&[n, k], &random(n * k, 2, 1.0, 0.0)));
    let b = Tensor::zeros(&[n], DType::F32).unwrap();
    for y in [forward(&x, &w, &b).unwrap(), few_rows(&x, &w, None, Epilogue::None).unwrap()] {
        let rows: Vec<&[f32]> = got(&y).chunks(n).collect();
        assert!(rows[0].iter().all(|y| y.is_finite()));
        assert!(rows[1].iter().all(|y| y.is_nan()));
        assert!(rows[2].iter().all(|y| y.is_infinite()));
    }
}

#[test]
fn misfits_are_errors_and_empty_tensors_are_not() {
    let zeros = |sizes: &[usize]| Tensor::zeros(sizes, DType::F32).unwrap();
    let (x, w, b) = (zeros(&[2, 3]), zeros(&[4, 3]), zeros(&[4]));
    assert!(forward(&zeros(&[2, 5]), &w, &b).is_err());
    assert!(forward(&x, &w, &zeros(&[3])).is_err());
    assert!(forward(&x, &w.to_dtype(DType::BF16).unwrap(), &b).is_ok());
    assert!(forward(&x.to_dtype(DType::BF16).unwrap(), &w, &b).is_err());
    assert!(forward(&x, &Tensor::zeros(&[4, 3], DType::U32).unwrap(), &b).is_err());
    assert!(forward_residual(&x, &w, &b, &zeros(&[4, 2])).is_err());
    assert!(few_rows(&x, &w, None, Epilogue::Residual(&zeros(&[2, 3]))).is_err());
    assert!(backward_input(&zeros(&[2, 3]), &w).is_err());
    assert!(backward_weight(&zeros(&[2, 4]), &x, &mut zeros(&[3, 4]), &mut zeros(&[4])).is_err());
    assert!(gelu_backward(&x, &w).is_err());
    assert_eq!(forward(&zeros(&[0, 3]), &w, &b).unwrap().shape(), [0, 4]);
    assert_eq!(few_rows(&zeros(&[0, 3]), &w, None, Epilogue::None).unwrap().shape(), [0, 4]);
    assert_eq!(few_rows(&x, &zeros(&[0, 3]), None, Epilogue::None).unwrap().shape(), [2, 0]);
    let one = Tensor::new(&[1], vec![1.0f32]).unwrap();
    let y = forward(&zeros(&[2, 0]), &zeros(&[1, 0]), &one).unwrap();
    assert_eq!(got(&y), [1.0, 1.0]);
    let y = few_rows(&zeros(&[2, 0]), &zeros(&[1, 0]), Some(&one), Epilogue::None).unwrap();
    assert_eq!(got(&y), [1.0, 1.0]);
    assert!(backward_weight(&zeros(&[2, 0]), &x, &mut zeros(&[0, 3]), &mut zeros(&[0])).is_ok());
}
