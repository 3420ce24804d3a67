//! The f64 reference of the linear layer, and the laws it keeps.

mod bf16;
mod gpu;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use simulator::{devices, gpus};
use tensor::{DType, Device, Tensor};

use super::Products::{self, Bf16, Stored};
use super::gemm::{Matrix, Start, Values, gemm};
use super::{
    Epilogue, backward_input, backward_weight, few_rows, forward, forward_gelu, forward_gelu_saved, forward_residual,
    gelu_backward, quantize,
};
use crate::simd;
use crate::spec::{
    Arith, EXACT, NAIVE, assert_close, exact_in, f32s, gradient, hoppers, naive, numbers, random, tensor_on,
};

/// Sizes at and around the tiles (6 × 16), a task (96 × 256, 64 rows of w), a block of k (256) and a vector.
const ROWS: [usize; 8] = [1, 2, 5, 6, 7, 13, 97, 103];
const DEPTHS: [usize; 10] = [1, 3, 15, 16, 17, 127, 256, 257, 1030, 1031];
const COLS: [usize; 8] = [1, 15, 16, 17, 31, 64, 65, 259];
/// The same on a GPU: tiles of 128 × 128, 64 or 16 products deep; few rows by 4 and 16, wide loads of 4 and 8.
const GPU_ROWS: [usize; 10] = [1, 3, 4, 5, 16, 17, 72, 127, 128, 131];
const GPU_DEPTHS: [usize; 10] = [1, 7, 8, 16, 63, 64, 65, 132, 200, 264];
const GPU_COLS: [usize; 10] = [1, 4, 7, 8, 31, 64, 127, 128, 130, 136];

/// `a[m, k] · b[k, n]`, elements given by functions of their indices; sums that are not stored yet.
fn product(
    [m, k, n]: [usize; 3],
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
    arith: Arith,
) -> Vec<f64> {
    let sum = |i, j| (0..k).fold(0.0, |sum, p| (arith.step)(sum + (arith.step)(a(i, p) * b(p, j))));
    (0..m * n).map(|at| sum(at / n, at % n)).collect()
}

/// `x · Wᵀ + b`, not stored yet.
fn reference(sizes: [usize; 3], x: &[f64], w: &[f64], b: &[f64], arith: Arith) -> Vec<f64> {
    let [_, k, n] = sizes;
    let y = product(sizes, |i, p| x[i * k + p], |p, j| w[j * k + p], arith);
    y.iter().enumerate().map(|(at, y)| (arith.step)(y + b[at % n])).collect()
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

fn got(t: &Tensor) -> &[f32] {
    t.values().unwrap()
}

/// How activations and weights are stored and multiplied.
#[derive(Clone, Copy, Debug)]
struct Storage {
    rows: DType,
    weights: DType,
    products: Products,
}

const F32: Storage = Storage { rows: DType::F32, weights: DType::F32, products: Stored };
const ROUNDED: Storage = Storage { products: Bf16, ..F32 };
const MIXED: Storage = Storage { weights: DType::BF16, ..F32 };
const BF16: Storage = Storage { rows: DType::BF16, ..MIXED };

/// What is drawn; the numbers follow from it.
#[derive(Clone, Debug)]
struct Draw {
    sizes: [usize; 3],
    storage: Storage,
    scale: f64,
    offset: f64,
    seed: u64,
    /// So many cases that even the smallest output has so many numbers in all: a naive run over few may be lucky.
    numbers: usize,
}

fn draw(
    [rows, depths, cols]: [&'static [usize]; 3],
    storages: &'static [Storage],
    numbers: usize,
) -> impl Strategy<Value = Draw> {
    let sizes = (prop::sample::select(rows), prop::sample::select(depths), prop::sample::select(cols));
    let scale = prop::sample::select(&[1e-3, 1.0, 1e3][..]);
    let offset = prop::sample::select(&[0.0, 100.0][..]);
    (sizes, scale, offset, prop::sample::select(storages), any::<u32>()).prop_map(
        move |((t, k, n), scale, offset, storage, seed)| Draw {
            sizes: [t, k, n],
            storage,
            scale,
            offset,
            seed: seed.into(),
            numbers,
        },
    )
}

fn cpu_draw() -> impl Strategy<Value = Draw> {
    draw([&ROWS, &DEPTHS, &COLS], &[F32, MIXED, ROUNDED], 64)
}

/// One seed: of few numbers, now and then a naive run's are exact by luck.
fn gpu_config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

fn gpu_draw() -> impl Strategy<Value = Draw> {
    draw([&GPU_ROWS, &GPU_DEPTHS, &GPU_COLS], &[F32, MIXED, BF16, BF16], 16)
}

/// x, w, b, and r as a residual or an upstream gradient.
struct Case {
    sizes: [usize; 3],
    storage: Storage,
    x: Vec<f64>,
    w: Vec<f64>,
    b: Vec<f64>,
    r: Vec<f64>,
}

impl Case {
    fn tensors(&self, device: &Device) -> [Tensor; 4] {
        let ([t, k, n], Storage { rows, weights, .. }) = (self.sizes, self.storage);
        [
            tensor_on(device, rows, &[t, k], &self.x),
            tensor_on(device, weights, &[n, k], &self.w),
            tensor_on(device, DType::F32, &[n], &self.b),
            tensor_on(device, rows, &[t, n], &self.r),
        ]
    }
}

impl Draw {
    fn cases(self) -> impl Iterator<Item = Case> {
        let Self { sizes, storage, scale, offset, seed, numbers } = self;
        let [t, k, n] = sizes;
        let smallest = (t * k).min(n * k).min(n);
        // Now and then such that no rounding to bf16 changes a factor.
        let in_bf16 = |dtype| if seed.is_multiple_of(2) { DType::BF16 } else { dtype };
        let [rows, weights] = [storage.rows, storage.weights].map(in_bf16);
        (0..numbers.div_ceil(smallest) as u64).map(move |copy| {
            let seed = (seed + (copy << 32)) * 8;
            Case {
                sizes,
                storage,
                x: exact_in(rows, &random(t * k, seed, scale, offset)),
                w: exact_in(weights, &random(n * k, seed + 1, 1.0, 0.0)),
                b: random(n, seed + 2, scale, 0.0),
                r: exact_in(rows, &random(t * n, seed + 3, scale, offset)),
            }
        })
    }
}

/// A case's exact results and a naive run's.
type Want = [Vec<f64>; 2];

/// Results by name, with their references.
#[derive(Default)]
struct Outcomes(BTreeMap<String, (Vec<f32>, Want)>);

impl Outcomes {
    fn add(&mut self, name: &str, device: &Device, got: &Tensor, want: &Want) {
        let (all, [exact, naive]) = self.0.entry(format!("{name}, {device}")).or_default();
        all.extend(numbers(got));
        exact.extend(&want[0]);
        naive.extend(&want[1]);
    }

    fn check(self) {
        for (name, (got, [exact, naive])) in self.0 {
            assert_close(&name, &got, &exact, &naive);
        }
    }
}

/// A reference by both arithmetics, the naive one storing as `dtype`.
fn both(dtype: DType, reference: impl Fn(Arith) -> Vec<f64>) -> Want {
    [EXACT, naive(dtype)].map(reference)
}

/// The same with something done to each of its numbers.
fn then(sums: &Want, dtype: DType, f: impl Fn(usize, f64, Arith) -> f64) -> Want {
    let [exact, rough] = sums;
    let all = |sums: &[f64], arith: Arith| -> Vec<f64> {
        sums.iter().enumerate().map(|(i, &sum)| (arith.store)(f(i, sum, arith))).collect()
    };
    [all(exact, EXACT), all(rough, naive(dtype))]
}

/// A factor as it becomes on its way into a product of many rows, with weights of a dtype.
fn factor(x: &[f64], weights: DType, products: Products, device: &Device) -> Vec<f64> {
    let rounds = device == &Device::Cpu && (weights == DType::BF16 || products == Bf16) && simd::has_bf16();
    exact_in(if rounds { DType::BF16 } else { DType::F32 }, x)
}

fn forwards_are_as_good_as_naive_ones(draw: Draw, on: &[Device]) {
    let mut outcomes = Outcomes::default();
    let Storage { rows, weights, products } = draw.storage;
    for case in draw.cases() {
        let wants = |x: &[f64], w: &[f64]| {
            let exact = reference(case.sizes, &case.x, &case.w, &case.b, EXACT);
            let sums = [exact, reference(case.sizes, x, w, &case.b, naive(rows))];
            [
                then(&sums, rows, |_, sum, _| sum),
                then(&sums, rows, |i, sum, arith| (arith.step)(sum + case.r[i])),
                then(&sums, rows, |_, sum, arith| gelu(sum, arith)),
            ]
        };
        let few = wants(&case.x, &case.w);
        for device in on {
            let [x, w, b, r] = case.tensors(device);
            let [fx, fw] = [&case.x, &case.w].map(|x| factor(x, weights, products, device));
            let [plain, residual, gelus] = &wants(&fx, &fw);
            let y = forward(&x, &w, &b, products).unwrap();
            assert_eq!(y.dtype(), rows);
            outcomes.add("forward", device, &y, plain);
            outcomes.add("residual", device, &forward_residual(&x, &w, &b, &r, products).unwrap(), residual);
            let (pre, saved) = forward_gelu_saved(&x, &w, &b, products).unwrap();
            let same = forward_gelu(&x, &w, &b, products).unwrap();
            // cuBLASLt may sum otherwise for results of another dtype.
            if !matches!(device, Device::Cuda(gpu) if gpu.use_of().cublaslt) {
                assert_eq!(bits(&numbers(&pre)), bits(&numbers(&y)));
                assert_eq!(bits(&numbers(&saved)), bits(&numbers(&same)));
            }
            outcomes.add("saved", device, &pre, plain);
            outcomes.add("gelu, saved", device, &saved, gelus);
            outcomes.add("gelu", device, &same, gelus);
            let epilogues = [Epilogue::None, Epilogue::Residual(&r), Epilogue::Gelu];
            for ((name, epilogue), want) in ["plain", "residual", "gelu"].iter().zip(epilogues).zip(&few) {
                let y = few_rows(&x, &w, Some(&b), epilogue).unwrap();
                outcomes.add(&format!("few rows, {name}"), device, &y, want);
            }
        }
    }
    outcomes.check();
}

/// Sums of products of x, w and r.
type Sums<'a> = &'a dyn Fn(&[Vec<f64>; 3], Arith) -> Vec<f64>;

fn backwards_are_as_good_as_naive_ones(draw: Draw, on: &[Device]) {
    let mut outcomes = Outcomes::default();
    let Storage { rows, products, .. } = draw.storage;
    for case in draw.cases() {
        let [t, k, n] = case.sizes;
        let (before_w, before_b) = (random(n * k, 5, 1.0, 0.0), random(n, 6, 1.0, 0.0));
        let (f32, r) = (DType::F32, &case.r);
        let db = both(f32, |arith| product([n, t, 1], |j, i| r[i * n + j], |_, _| 1.0, arith));
        let db = then(&db, f32, |i, sum, arith| (arith.step)(before_b[i] + sum));
        for device in on {
            let [x, w, _, dy] = case.tensors(device);
            // Exactly, and naively with factors as they become.
            let want = |dtype, sums: Sums<'_>| {
                let factors = [&case.x, &case.w, r];
                let rounded = factors.map(|x| factor(x, f32, products, device));
                [sums(&factors.map(Clone::clone), EXACT), sums(&rounded, naive(dtype))]
            };
            let dx =
                want(rows, &|[_, w, r], arith| product([t, n, k], |i, j| r[i * n + j], |j, p| w[j * k + p], arith));
            let dx = then(&dx, rows, |_, sum, _| sum);
            let dw = want(f32, &|[x, _, r], arith| product([n, t, k], |j, i| r[i * n + j], |i, p| x[i * k + p], arith));
            let dw = then(&dw, f32, |i, sum, arith| (arith.step)(before_w[i] + sum));
            outcomes.add("dx", device, &backward_input(&dy, &w, products).unwrap(), &dx);
            let mut to_w = tensor_on(device, f32, &[n, k], &before_w);
            let mut to_b = tensor_on(device, f32, &[n], &before_b);
            backward_weight(&dy, &x, &mut to_w, &mut to_b, products).unwrap();
            outcomes.add("dw", device, &to_w, &dw);
            outcomes.add("db", device, &to_b, &db);
        }
    }
    outcomes.check();
}

fn the_slope_of_gelu_is_as_good_as_a_naive_one(n: usize, dtype: DType, [scale, offset]: [f64; 2], seed: u64) {
    let mut outcomes = Outcomes::default();
    let f32 = DType::F32;
    let slopes = |x: &[f64], dy: &[f64]| {
        then(&[x.to_vec(), x.to_vec()], dtype, |i, x, arith| (arith.step)(dy[i] * gelu_slope(x, arith)))
    };
    let on = if dtype == f32 { devices().collect::<Vec<_>>() } else { gpus().iter().collect() };
    for copy in 0..64u64.div_ceil(n as u64) {
        let x = exact_in(dtype, &random(n, seed + (copy << 32), scale, offset));
        let dy = exact_in(dtype, &random(n, 9 + copy, 1.0, 0.0));
        let want = slopes(&x, &dy);
        for device in &on {
            let [dy, x] = [&dy, &x].map(|x| tensor_on(device, dtype, &[n], x));
            outcomes.add("slope", device, &gelu_backward(&dy, &x).unwrap(), &want);
        }
        let mut y = f32s(&x);
        super::gelu::forward(&mut y);
        let want = then(&[x.clone(), x.clone()], f32, |_, x, arith| gelu(x, arith));
        outcomes.add("gelu", &Device::Cpu, &Tensor::new(&[n], y).unwrap(), &want);
    }
    // One ordinary number, for the tolerance to be relative to: far to the left all is next to nothing.
    for device in &on {
        let one = tensor_on(device, dtype, &[1], &[1.0]);
        outcomes.add("slope", device, &gelu_backward(&one, &one).unwrap(), &slopes(&[1.0], &[1.0]));
    }
    outcomes.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn forwards_match_the_reference(draw in cpu_draw()) {
        forwards_are_as_good_as_naive_ones(draw, &[Device::Cpu]);
    }

    #[test]
    fn backwards_match_the_reference(draw in cpu_draw()) {
        backwards_are_as_good_as_naive_ones(draw, &[Device::Cpu]);
    }

    #[test]
    fn gelu_and_its_slope_match_the_reference(
        seed in any::<u32>(),
        n in prop::sample::select(&[1usize, 7, 8, 9, 1000][..]),
        dtype in prop::sample::select(&[DType::F32, DType::BF16][..]),
        scale in prop::sample::select(&[1e-3, 1.0, 10.0, 1e3][..]),
        offset in prop::sample::select(&[0.0, -5.0, 100.0][..]),
    ) {
        the_slope_of_gelu_is_as_good_as_a_naive_one(n, dtype, [scale, offset], seed.into());
    }
}

proptest! {
    #![proptest_config(gpu_config(24))]

    #[test]
    fn forwards_on_gpus_match_the_reference(draw in gpu_draw()) {
        forwards_are_as_good_as_naive_ones(draw, gpus());
    }

    #[test]
    fn backwards_on_gpus_match_the_reference(draw in gpu_draw()) {
        backwards_are_as_good_as_naive_ones(draw, gpus());
    }
}

proptest! {
    #![proptest_config(gpu_config(24))]

    #[test]
    fn forwards_by_cublaslt_match_the_reference(draw in gpu_draw()) {
        forwards_are_as_good_as_naive_ones(draw, &gpu::with_cublaslt());
    }

    #[test]
    fn forwards_on_hoppers_match_the_reference(draw in draw([&GPU_ROWS, &GPU_DEPTHS, &GPU_COLS], &[BF16], 16)) {
        forwards_are_as_good_as_naive_ones(draw, &hoppers());
    }

    #[test]
    fn backwards_on_hoppers_match_the_reference(draw in draw([&GPU_ROWS, &GPU_DEPTHS, &GPU_COLS], &[BF16], 16)) {
        backwards_are_as_good_as_naive_ones(draw, &hoppers());
    }

    #[test]
    fn backwards_by_cublaslt_match_the_reference(draw in gpu_draw()) {
        backwards_are_as_good_as_naive_ones(draw, &gpu::with_cublaslt());
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
    let (pre, _) = forward_gelu_saved(&tensor(&[t, k], &x), &tensor(&[n, k], &w), &tensor(&[n], &b), Stored).unwrap();
    let dy = gelu_backward(&tensor(&[t, n], &r), &pre).unwrap();
    let dx = backward_input(&dy, &tensor(&[n, k], &w), Stored).unwrap();
    let mut dw = Tensor::zeros(&[n, k], DType::F32).unwrap();
    let mut db = Tensor::zeros(&[n], DType::F32).unwrap();
    backward_weight(&dy, &tensor(&[t, k], &x), &mut dw, &mut db, Stored).unwrap();

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

/// Of x, w and b.
type Op = fn(&Tensor, &Tensor, &Tensor, Products) -> Tensor;

#[test]
fn a_row_has_the_same_bits_alone_in_a_batch_and_with_any_number_of_threads() {
    // More than one task and shared block of k and n, none of them full; and of rows.
    for ([t, k, n], dtype, products) in [
        ([100, 1100, 1100], DType::F32, Stored),
        ([100, 1100, 1100], DType::F32, Bf16),
        ([100, 1100, 1100], DType::BF16, Stored),
        ([100, 1100, 1100], DType::Q8, Stored),
        ([600, 40, 33], DType::BF16, Stored),
        ([600, 40, 33], DType::Q4, Stored),
    ] {
        let x = random(t * k, 1, 1.0, 0.0);
        let w = tensor(&[n, k], &random(n * k, 2, 1.0, 0.0));
        let quantised = dtype.tile().is_some();
        let w = if quantised { quantize(&w, dtype) } else { Ok(w.to_dtype(dtype).unwrap()) }.unwrap();
        let b = tensor(&[n], &random(n, 3, 1.0, 0.0));
        let ops: [Op; 4] = [
            |x, w, b, products| forward_gelu(x, w, b, products).unwrap(),
            |x, w, b, _| few_rows(x, w, Some(b), Epilogue::Gelu).unwrap(),
            // What is added to a row is a number of its own.
            |x, w, b, products| {
                let [(t, _), (n, _)] = [x, w].map(|x| x.dims2().unwrap());
                let own: Vec<f32> = got(x).chunks(got(x).len() / t).flat_map(|x| vec![x[0]; n]).collect();
                forward_residual(x, w, b, &Tensor::new(&[t, n], own).unwrap(), products).unwrap()
            },
            |x, w, _, products| backward_input(x, w, products).unwrap(),
        ];
        for op in &ops[..if quantised || k != n { 3 } else { 4 }] {
            let part = |rows: std::ops::Range<usize>| tensor(&[rows.len(), k], &x[rows.start * k..rows.end * k]);
            let all = with_threads(1, || op(&part(0..t), &w, &b, products));
            for threads in [2, 3] {
                assert_eq!(bits(got(&all)), bits(got(&with_threads(threads, || op(&part(0..t), &w, &b, products)))));
            }
            for rows in [0..1, 50..51, t - 1..t, 3..5, 40..43, 64..68, 91..99] {
                let some = op(&part(rows.clone()), &w, &b, products);
                assert_eq!(bits(got(&some)), bits(&got(&all)[rows.start * n..rows.end * n]), "rows {rows:?}");
            }
        }
    }
}

#[test]
fn weight_gradients_have_the_same_bits_for_any_number_of_threads() {
    let [t, k, n] = [300, 270, 500];
    let (dy, x) = (tensor(&[t, n], &random(t * n, 1, 1.0, 0.0)), tensor(&[t, k], &random(t * k, 2, 1.0, 0.0)));
    for products in [Stored, Bf16] {
        let run = || {
            let mut dw = Tensor::zeros(&[n, k], DType::F32).unwrap();
            let mut db = Tensor::zeros(&[n], DType::F32).unwrap();
            backward_weight(&dy, &x, &mut dw, &mut db, products).unwrap();
            [bits(got(&dw)), bits(got(&db))]
        };
        assert_eq!(with_threads(1, run), with_threads(3, run));
    }
}

#[test]
fn the_multiplication_writes_all_of_c_and_nothing_else() {
    const GUARD: usize = 64;
    let sizes = [[1, 1, 1], [6, 256, 16], [7, 257, 17], [101, 300, 270], [4, 0, 5]];
    for ([m, k, n], products) in sizes.iter().flat_map(|&sizes| [(sizes, Stored), (sizes, Bf16)]) {
        let (a, b) = (f32s(&random(m * k, 1, 1.0, 0.0)), f32s(&random(k * n, 2, 1.0, 0.0)));
        let mut memory = vec![f32::NAN; m * n + 2 * GUARD];
        let a = Matrix::row_major(Values::F32(&a), m, k);
        let b = Matrix::row_major(Values::F32(&b), k, n);
        gemm(&mut memory[GUARD..GUARD + m * n], a, b, Start::Zero, products);
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
    let on_cpu = vec![&Device::Cpu];
    let all = [(F32, devices().collect()), (ROUNDED, on_cpu.clone()), (MIXED, on_cpu), (BF16, gpus().iter().collect())];
    for (storage, device) in all.iter().flat_map(|(storage, on)| on.iter().map(move |device| (storage, device))) {
        let x = tensor_on(device, storage.rows, &[t, k], &x);
        let w = tensor_on(device, storage.weights, &[n, k], &random(n * k, 2, 1.0, 0.0));
        let b = Tensor::zeros_on(device, &[n], DType::F32).unwrap();
        for y in [forward(&x, &w, &b, storage.products).unwrap(), few_rows(&x, &w, None, Epilogue::None).unwrap()] {
            let y = numbers(&y);
            let rows: Vec<&[f32]> = y.chunks(n).collect();
            assert!(rows[0].iter().all(|y| y.is_finite()));
            assert!(rows[1].iter().all(|y| y.is_nan()));
            assert!(rows[2].iter().all(|y| y.is_infinite()));
        }
    }
}

#[test]
fn misfits_are_errors_and_empty_tensors_are_not() {
    for device in devices() {
        let zeros_of = |dtype, sizes: &[usize]| Tensor::zeros_on(device, sizes, dtype).unwrap();
        let zeros = |sizes: &[usize]| zeros_of(DType::F32, sizes);
        let (x, w, b) = (zeros(&[2, 3]), zeros(&[4, 3]), zeros(&[4]));
        assert!(forward(&zeros(&[2, 5]), &w, &b, Stored).is_err());
        assert!(forward(&x, &w, &zeros(&[3]), Stored).is_err());
        assert!(forward(&x, &zeros_of(DType::BF16, &[4, 3]), &b, Stored).is_ok());
        assert!(forward(&zeros_of(DType::BF16, &[2, 3]), &w, &b, Stored).is_err());
        assert!(forward(&x, &zeros_of(DType::U32, &[4, 3]), &b, Stored).is_err());
        assert!(forward_residual(&x, &w, &b, &zeros(&[4, 2]), Stored).is_err());
        assert!(few_rows(&x, &w, None, Epilogue::Residual(&zeros(&[2, 3]))).is_err());
        assert!(backward_input(&zeros(&[2, 3]), &w, Stored).is_err());
        assert!(backward_weight(&zeros(&[2, 4]), &x, &mut zeros(&[3, 4]), &mut zeros(&[4]), Stored).is_err());
        assert!(gelu_backward(&x, &w).is_err());
        assert_eq!(forward(&zeros(&[0, 3]), &w, &b, Stored).unwrap().shape(), [0, 4]);
        assert_eq!(few_rows(&zeros(&[0, 3]), &w, None, Epilogue::None).unwrap().shape(), [0, 4]);
        assert_eq!(few_rows(&x, &zeros(&[0, 3]), None, Epilogue::None).unwrap().shape(), [2, 0]);
        assert_eq!(gelu_backward(&zeros(&[0, 3]), &zeros(&[0, 3])).unwrap().shape(), [0, 3]);
        let one = tensor_on(device, DType::F32, &[1], &[1.0]);
        let y = forward(&zeros(&[2, 0]), &zeros(&[1, 0]), &one, Stored).unwrap();
        assert_eq!(numbers(&y), [1.0, 1.0]);
        let y = few_rows(&zeros(&[2, 0]), &zeros(&[1, 0]), Some(&one), Epilogue::None).unwrap();
        assert_eq!(numbers(&y), [1.0, 1.0]);
        assert!(backward_weight(&zeros(&[2, 0]), &x, &mut zeros(&[0, 3]), &mut zeros(&[0]), Stored).is_ok());
        let (mut dw, mut db) = (tensor_on(device, DType::F32, &[1, 1], &[5.0]), one);
        backward_weight(&zeros(&[0, 1]), &zeros(&[0, 1]), &mut dw, &mut db, Stored).unwrap();
        assert_eq!([numbers(&dw), numbers(&db)], [[5.0], [1.0]]);
    }
}
