//! The embedding against plain loops in f64.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use simulator::{devices, gpus};
use tensor::{DType, Device, Tensor};

use super::{backward, forward, gather_backward};
use crate::spec::{Arith, EXACT, NAIVE, assert_close, exact_in, f32s, gradient, naive, numbers, random, tensor_on};

/// `before` with row i of `dy` added to row `ids[i]`.
fn reference(dy: &[f64], ids: &[u32], before: &[f64], c: usize, arith: Arith) -> Vec<f64> {
    let mut table = before.to_vec();
    for (t, &id) in ids.iter().enumerate() {
        for i in 0..c {
            let to = &mut table[id as usize * c + i];
            *to = (arith.step)(*to + dy[t * c + i]);
        }
    }
    table
}

#[derive(Debug)]
struct Case {
    v: usize,
    c: usize,
    ids: Vec<u32>,
    table: Vec<f64>,
    dy: Vec<f64>,
}

fn case(v: usize, c: usize, picks: &[u32], [scale, offset]: [f64; 2]) -> Case {
    let ids: Vec<u32> = picks.iter().map(|pick| pick % v as u32).collect();
    Case { v, c, table: random(v * c, 1, scale, offset), dy: random(ids.len() * c, 2, scale, offset), ids }
}

/// Where a case runs, and how its rows are stored.
#[derive(Clone, Debug)]
struct Setting {
    device: Device,
    rows: DType,
}

impl Setting {
    fn rows(&self, case: &Case, rows: usize, x: &[f64]) -> Tensor {
        tensor_on(&self.device, self.rows, &[rows, case.c], x)
    }
}

fn rows_are_copied(case: &Case, on: &Setting) {
    let table = exact_in(on.rows, &case.table);
    let y = forward(&on.rows(case, case.v, &table), &case.ids).unwrap();
    let rows = if on.device == Device::Cpu { DType::F32 } else { on.rows };
    assert_eq!((y.shape(), y.dtype()), (&[case.ids.len(), case.c][..], rows));
    let wanted = case.ids.iter().flat_map(|&id| &table[id as usize * case.c..][..case.c]).copied();
    assert_eq!(numbers(&y), f32s(&wanted.collect::<Vec<_>>()));
}

fn gradients_are_added_by_id(case: &Case, on: &Setting) {
    let dy = exact_in(on.rows, &case.dy);
    let mut dtable = tensor_on(&on.device, DType::F32, &[case.v, case.c], &case.table);
    backward(&on.rows(case, case.ids.len(), &dy), &case.ids, &mut dtable).unwrap();
    let [exact, naive] = [EXACT, NAIVE].map(|a| reference(&dy, &case.ids, &case.table, case.c, a));
    assert_close("dtable", &numbers(&dtable), &exact, &naive);
}

fn chosen_rows_give_their_gradient_back(case: &Case, on: &Setting) {
    let dy = exact_in(on.rows, &case.dy);
    let dx = gather_backward(&on.rows(case, case.ids.len(), &dy), &case.ids, case.v).unwrap();
    assert_eq!((dx.shape(), dx.dtype()), (&[case.v, case.c][..], on.rows));
    let zeros = vec![0.0; case.table.len()];
    let [exact, naive] = [EXACT, naive(on.rows)].map(|a| {
        let sums = reference(&dy, &case.ids, &zeros, case.c, a);
        sums.into_iter().map(a.store).collect::<Vec<_>>()
    });
    assert_close("dx", &numbers(&dx), &exact, &naive);
}

fn cases() -> impl Strategy<Value = Case> {
    let c = prop::sample::select(&[1usize, 7, 8, 16, 33, 68, 127, 264][..]);
    let picks = prop::collection::vec(any::<u32>(), 0..100);
    let scale = prop::sample::select(&[1e-3, 1.0, 1e3][..]);
    let offset = prop::sample::select(&[0.0, 100.0][..]);
    (1usize..40, c, picks, scale, offset).prop_map(|(v, c, picks, scale, offset)| case(v, c, &picks, [scale, offset]))
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn the_cpu_keeps_the_laws(case in cases()) {
        let on = Setting { device: Device::Cpu, rows: DType::F32 };
        rows_are_copied(&case, &Setting { rows: DType::BF16, ..on.clone() });
        rows_are_copied(&case, &on);
        gradients_are_added_by_id(&case, &on);
        chosen_rows_give_their_gradient_back(&case, &on);
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn gpus_keep_the_laws(case in cases(), narrow in any::<bool>()) {
        for device in gpus() {
            let on = Setting { device: device.clone(), rows: if narrow { DType::BF16 } else { DType::F32 } };
            rows_are_copied(&case, &on);
            gradients_are_added_by_id(&case, &on);
            chosen_rows_give_their_gradient_back(&case, &on);
        }
    }
}

/// More columns than the lanes of a block take, and more rows of one id than its warps.
#[test]
fn gpus_take_wide_and_frequent_rows() {
    for device in gpus() {
        for rows in [DType::F32, DType::BF16] {
            let on = Setting { device: device.clone(), rows };
            rows_are_copied(&case(2, 2056, &[1, 0, 1], [1.0, 0.0]), &on);
            gradients_are_added_by_id(&case(3, 520, &[1; 70], [1.0, 0.5]), &on);
            chosen_rows_give_their_gradient_back(&case(3, 520, &[2; 70], [1.0, 0.5]), &on);
        }
    }
}

#[test]
fn the_gradient_is_the_central_difference() {
    let case = case(4, 3, &[2, 0, 2, 3], [1.0, 0.0]);
    let Case { v, c, ids, table, dy } = &case;
    let loss =
        |table: &[f64]| -> f64 { (0..ids.len() * c).map(|at| dy[at] * table[ids[at / c] as usize * c + at % c]).sum() };
    let exact = gradient(table, loss);
    let naive = reference(dy, ids, &vec![0.0; v * c], *c, NAIVE);
    for device in devices() {
        let mut dtable = Tensor::zeros_on(device, &[*v, *c], DType::F32).unwrap();
        backward(&tensor_on(device, DType::F32, &[ids.len(), *c], dy), ids, &mut dtable).unwrap();
        assert_close("dtable", &numbers(&dtable), &exact, &naive);
    }
}

#[test]
fn the_gradient_has_the_same_bits_for_any_number_of_threads_and_order_of_theirs() {
    let (v, c) = (50, 64);
    let picks: Vec<u32> = random(1000, 1, 10.0, 25.0).iter().map(|x| x.clamp(0.0, 49.0) as u32).collect();
    let case = case(v, c, &picks, [1.0, 0.0]);
    let run = |device: &Device| {
        let mut dtable = Tensor::zeros_on(device, &[v, c], DType::F32).unwrap();
        backward(&tensor_on(device, DType::F32, &[1000, c], &case.dy), &case.ids, &mut dtable).unwrap();
        numbers(&dtable)
    };
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&Device::Cpu))
    };
    assert_eq!(with(1), with(3));
    let all: Vec<_> = gpus().iter().map(run).collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn misfits_are_errors_and_leave_the_gradient_alone() {
    for device in devices() {
        let zeros = |sizes: &[usize], dtype| Tensor::zeros_on(device, sizes, dtype).unwrap();
        let mut dtable = zeros(&[4, 2], DType::F32);
        let ones = tensor_on(device, DType::F32, &[2, 2], &[1.0; 4]);
        assert!(forward(&dtable, &[3, 4]).unwrap_err().to_string().contains("below 4"));
        assert!(forward(&zeros(&[4], DType::F32), &[0]).is_err());
        assert!(forward(&zeros(&[4, 2], DType::U32), &[0]).is_err());
        assert_eq!(forward(&dtable, &[]).unwrap().shape(), [0, 2]);
        assert!(backward(&ones, &[0, 4], &mut dtable).is_err());
        assert!(backward(&ones, &[0], &mut dtable).is_err());
        assert!(backward(&ones, &[0, 1], &mut zeros(&[4, 2], DType::BF16)).is_err());
        backward(&zeros(&[0, 2], DType::F32), &[], &mut dtable).unwrap();
        assert!(gather_backward(&ones, &[0, 4], 4).is_err());
        assert!(gather_backward(&ones, &[0], 4).is_err());
        assert_eq!(numbers(&gather_backward(&zeros(&[0, 2], DType::F32), &[], 3).unwrap()), [0.0; 6]);
        assert_eq!(numbers(&dtable), [0.0; 8]);
    }
}
