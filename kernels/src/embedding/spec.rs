//! The embedding against plain loops in f64.

use half::bf16;
use proptest::prelude::*;
use tensor::{DType, Tensor};

use super::{backward, forward};
use crate::spec::{Arith, EXACT, NAIVE, assert_close, f32s, gradient, random};

fn reference(dy: &[f64], ids: &[u32], before: &[f64], c: usize, arith: Arith) -> Vec<f64> {
    let mut table = before.to_vec();
    for (t, &id) in ids.iter().enumerate() {
        for i in 0..c {
            let to = &mut table[id as usize * c + i];
            *to = (arith.store)((arith.step)(*to + dy[t * c + i]));
        }
    }
    table
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_directions_match_the_reference(
        v in 1u32..40,
        c in prop::sample::select(&[1usize, 7, 16, 33][..]),
        picks in prop::collection::vec(any::<u32>(), 0..100),
        scale in prop::sample::select(&[1e-3, 1.0, 1e3][..]),
        offset in prop::sample::select(&[0.0, 100.0][..]),
    ) {
        let ids: Vec<u32> = picks.iter().map(|p| p % v).collect();
        let table = random(v as usize * c, 1, scale, offset);
        let tensor = Tensor::new(&[v as usize, c], f32s(&table)).unwrap();
        for dtype in [DType::F32, DType::BF16] {
            let y = forward(&tensor.to_dtype(dtype).unwrap(), &ids).unwrap();
            prop_assert_eq!(y.shape(), &[ids.len(), c]);
            for (row, &id) in y.values::<f32>().unwrap().chunks(c).zip(&ids) {
                for (y, &x) in row.iter().zip(&table[id as usize * c..]) {
                    // Not `bf16::from_f64`, which drops the low bits before it rounds.
                    let want = if dtype == DType::BF16 { bf16::from_f32(x as f32).to_f32() } else { x as f32 };
                    prop_assert_eq!(*y, want);
                }
            }
        }
        let dy = random(ids.len() * c, 2, scale, offset);
        let mut dtable = tensor;
        backward(&Tensor::new(&[ids.len(), c], f32s(&dy)).unwrap(), &ids, &mut dtable).unwrap();
        let want = |arith| reference(&dy, &ids, &table, c, arith);
        assert_close("dtable", dtable.values().unwrap(), &want(EXACT), &want(NAIVE));
    }
}

#[test]
fn the_gradient_is_the_central_difference() {
    let (v, c, ids) = (4, 3, [2u32, 0, 2, 3]);
    let (table, dy) = (random(v * c, 1, 1.0, 0.0), random(ids.len() * c, 2, 1.0, 0.0));
    let loss =
        |table: &[f64]| -> f64 { (0..ids.len() * c).map(|at| dy[at] * table[ids[at / c] as usize * c + at % c]).sum() };
    let mut dtable = Tensor::zeros(&[v, c], DType::F32).unwrap();
    backward(&Tensor::new(&[ids.len(), c], f32s(&dy)).unwrap(), &ids, &mut dtable).unwrap();
    let naive = reference(&dy, &ids, &vec![0.0; v * c], c, NAIVE);
    assert_close("dtable", dtable.values().unwrap(), &gradient(&table, loss), &naive);
}

#[test]
fn the_gradient_has_the_same_bits_for_any_number_of_threads() {
    let (v, c) = (50, 64);
    let ids: Vec<u32> = random(1000, 1, 10.0, 25.0).iter().map(|x| x.clamp(0.0, 49.0) as u32).collect();
    let dy = Tensor::new(&[ids.len(), c], f32s(&random(ids.len() * c, 2, 1.0, 0.0))).unwrap();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut dtable = Tensor::zeros(&[v, c], DType::F32).unwrap();
        pool.install(|| backward(&dy, &ids, &mut dtable)).unwrap();
        dtable.bytes().to_vec()
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn misfits_are_errors_and_leave_the_gradient_alone() {
    let zeros = |sizes: &[usize]| Tensor::zeros(sizes, DType::F32).unwrap();
    let mut dtable = zeros(&[4, 2]);
    let ones = Tensor::new(&[2, 2], vec![1.0f32; 4]).unwrap();
    assert!(forward(&dtable, &[3, 4]).unwrap_err().to_string().contains("below 4"));
    assert!(forward(&zeros(&[4]), &[0]).is_err());
    assert!(forward(&Tensor::zeros(&[4, 2], DType::U32).unwrap(), &[0]).is_err());
    assert!(backward(&ones, &[0, 4], &mut dtable).is_err());
    assert!(backward(&ones, &[0], &mut dtable).is_err());
    assert_eq!(dtable.values::<f32>().unwrap(), [0.0; 8]);
}
