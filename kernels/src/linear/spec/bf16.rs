//! Products in bf16, in every way that they are multiplied.

use half::bf16;
use proptest::prelude::*;
use tensor::{DType, Device, Tensor};

use super::{COLS, DEPTHS, Draw, F32, MIXED, Outcomes, ROWS, both, draw, product, then};
use crate::linear::gemm::{Matrix, Start, Values, Way, multiply_by};
use crate::spec::{exact_in, f32s};

/// All ways that are here, also those that another one is taken before; factors that lie along k or across it.
fn products_in_bf16_are_as_good_as_naive_ones(draw: Draw) {
    let mut outcomes = Outcomes::default();
    for case in draw.cases() {
        let [t, k, n] = case.sizes;
        let (x, w) = (exact_in(DType::BF16, &case.x), exact_in(DType::BF16, &case.w));
        let want = both(DType::F32, |arith| product(case.sizes, |i, p| x[i * k + p], |p, j| w[j * k + p], arith));
        let want = then(&want, DType::F32, |at, sum, arith| (arith.step)(case.r[at] + sum));
        let w_across: Vec<f64> = (0..k * n).map(|at| w[at % n * k + at / n]).collect();
        let x_across: Vec<f64> = (0..k * t).map(|at| x[at % t * k + at / t]).collect();
        let halves = |x: &[f64]| f32s(x).into_iter().map(bf16::from_f32).collect::<Vec<_>>();
        let factors = [x, x_across, w_across, w].map(|x| (f32s(&x), halves(&x)));
        let of = |i: usize, in_bf16: bool| {
            let (numbers, halves) = &factors[i];
            if in_bf16 { Values::Bf16(halves) } else { Values::F32(numbers) }
        };
        for way in [Way::Numbers, Way::Pairs, Way::Tiles].into_iter().filter(|way| way.is_here()) {
            // Whether x lies across k, w along it; and whether both are stored in bf16.
            for bits in 0..8 {
                let [across, along, halves] = [1, 2, 4].map(|bit| bits & bit != 0);
                let (x, w) = (of(usize::from(across), halves), of(2 + usize::from(along), halves));
                let x = if across { Matrix::row_major(x, k, t).t() } else { Matrix::row_major(x, t, k) };
                let w = if along { Matrix::row_major(w, n, k).t() } else { Matrix::row_major(w, k, n) };
                let mut y = f32s(&case.r);
                multiply_by(way, &mut y, x, w, Start::Add, |_, _, _| ());
                let name = format!("{way:?}, {bits:03b}");
                outcomes.add(&name, &Device::Cpu, &Tensor::new(&[t, n], y).unwrap(), &want);
            }
        }
    }
    outcomes.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn products_in_bf16_match_the_reference(draw in draw([&ROWS, &DEPTHS, &COLS], &[F32, MIXED], 64)) {
        products_in_bf16_are_as_good_as_naive_ones(draw);
    }
}

#[test]
fn more_rows_or_a_longer_sum_than_tiles_hold_at_once() {
    for sizes in [[530, 33, 20], [5, 33_001, 18]] {
        products_in_bf16_are_as_good_as_naive_ones(Draw {
            sizes,
            storage: F32,
            scale: 1.0,
            offset: 0.0,
            seed: 1,
            numbers: 1,
        });
    }
}
