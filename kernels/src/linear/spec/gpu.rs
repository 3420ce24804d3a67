//! What the linear layer keeps on GPUs beside the laws of all devices.

use std::ops::Range;

use half::bf16;
use simulator::gpus;
use tensor::{DType, Device, Gpu, Tensor, UseOf};

use super::{
    BF16, Draw, F32, MIXED, Storage, backwards_are_as_good_as_naive_ones, bits, forwards_are_as_good_as_naive_ones,
};
use crate::cuda::Arg;
use crate::linear::Products::Stored;
use crate::linear::{
    Epilogue, backward_input, backward_weight, cublaslt, cuda, few_rows, forward, forward_gelu, forward_residual,
    gelu_backward,
};
use crate::spec::{hoppers, numbers, random, tensor_on};

/// More tiles than a group of them, more rows than a part of a weight's gradient and than a chunk of a bias's.
#[test]
fn many_tiles_and_many_rows() {
    for (storage, sizes) in [(BF16, [1030, 8, 130]), (BF16, [1100, 9, 7]), (F32, [1030, 5, 130])] {
        let draw = Draw { sizes, storage, scale: 1.0, offset: 0.5, seed: 3, numbers: 1 };
        forwards_are_as_good_as_naive_ones(draw.clone(), &gpus()[..gpus().len().min(1)]);
        backwards_are_as_good_as_naive_ones(draw, &gpus()[gpus().len() / 2..]);
    }
}

/// Two GPUs on which cuBLASLt multiplies.
pub(super) fn with_cublaslt() -> Vec<Device> {
    let use_of = UseOf { cublaslt: true, ..UseOf::default() };
    (0..gpus().len()).step_by(3).map(|i| Device::Cuda(Gpu::open_to_use(i, use_of).unwrap())).collect()
}

#[test]
fn many_tiles_and_many_rows_on_hoppers() {
    // More products than there are stages; factors of which no map can be, one or both, and of which it can, in parts too.
    for sizes in [[1030, 8, 130], [1100, 9, 7], [140, 520, 264], [1030, 72, 8]] {
        let draw = Draw { sizes, storage: BF16, scale: 1.0, offset: 0.5, seed: 3, numbers: 1 };
        let on = hoppers();
        forwards_are_as_good_as_naive_ones(draw.clone(), &on[..on.len().min(1)]);
        backwards_are_as_good_as_naive_ones(draw, &on[on.len() / 2..]);
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_a_batch_on_hoppers() {
    for (device, k) in hoppers().iter().flat_map(|device| [(device, 136), (device, 75)]) {
        let of = |rows| {
            let [x, w, b] = arguments(device, BF16, rows, k);
            bits(&numbers(&forward_gelu(&x, &w, &b, Stored).unwrap()))
        };
        let all = of(0..37);
        for rows in [0..1, 36..37, 3..8, 9..37] {
            assert_eq!(of(rows.clone()), all[rows.start * k..rows.end * k], "rows {rows:?}");
        }
    }
}

/// A graph has the maps that its launches were given, and reads what is there at each.
#[test]
fn products_on_hoppers_are_captured() {
    for device in hoppers() {
        let Device::Cuda(gpu) = &device else { continue };
        let [mut x, w, b] = arguments(&device, BF16, 0..5, 72);
        // What is launched has been loaded then.
        let one = numbers(&forward(&x, &w, &b, Stored).unwrap());
        let (y, graph) = gpu.capture(|| Ok::<_, tensor::Error>(forward(&x, &w, &b, Stored).unwrap())).unwrap();
        assert_eq!(numbers(&y), one);
        let other = tensor_on(&Device::Cpu, DType::BF16, &[5, 72], &random(5 * 72, 4, 1.0, 0.0));
        x.write(other.values::<bf16>().unwrap()).unwrap();
        graph.launch().unwrap();
        let two = numbers(&forward(&x, &w, &b, Stored).unwrap());
        assert_ne!(one, two);
        assert_eq!(numbers(&y), two);
    }
}

/// Sizes that it is asked to do everything for, and others; f32 rows with bf16 weights it has none for.
#[test]
fn cublaslt_is_asked() {
    for device in with_cublaslt() {
        let Device::Cuda(gpu) = &device else { continue };
        if cublaslt(gpu).is_none() {
            continue; // a real GPU without it
        }
        for (storage, k, asked) in [(F32, 75, 2), (BF16, 136, 2), (BF16, 75, 2), (MIXED, 75, 0)] {
            let before = simulator::products();
            let [x, w, b] = arguments(&device, storage, 0..5, k);
            forward_gelu(&x, &w, &b, Stored).unwrap();
            backward_input(&x, &w, Stored).unwrap();
            if let (Some(before), Some(after)) = (before, simulator::products()) {
                assert!(after - before >= asked, "{storage:?}");
            }
        }
    }
}

/// Rows that begin anywhere, so that they are aligned to their numbers only. Small whole numbers have one sum in any order.
#[test]
fn cublaslt_takes_rows_of_any_alignment() {
    for (device, dtype) in with_cublaslt().iter().flat_map(|device| [(device, DType::F32), (device, DType::BF16)]) {
        let Device::Cuda(gpu) = device else { continue };
        let [k, n] = [5, 3];
        let whole = |count: usize| -> Vec<f64> { (0..count).map(|i| (i * 7 % 13) as f64 - 6.0).collect() };
        let (x, w) = (whole(4 * k), whole(n * k));
        let [left, right] = [(4, &x), (n, &w)].map(|(rows, values)| tensor_on(device, dtype, &[rows, k], values));
        let mut y = Tensor::undefined(gpu, &[3, n], DType::F32).unwrap();
        let product =
            cuda::Product { name: "forward", left: (&left, k), right: (&right, 0), sizes: [3, n, k], depth: k };
        product.launch(gpu, Arg::Out(&mut y), None, cuda::Finish::STORED).unwrap();
        let right: Vec<f32> = (0..3 * n)
            .map(|at| (0..k).map(|p| x[(at / n + 1) * k + p] * w[at % n * k + p]).sum::<f64>() as f32)
            .collect();
        assert_eq!(numbers(&y), right);
    }
}

/// x `[rows, k]` of numbers that are always the same, w `[k, k]`, b `[k]`.
fn arguments(device: &Device, storage: Storage, rows: Range<usize>, k: usize) -> [Tensor; 3] {
    let x = random(rows.end * k, 1, 1.0, 0.0);
    [
        tensor_on(device, storage.rows, &[rows.len(), k], &x[rows.start * k..]),
        tensor_on(device, storage.weights, &[k, k], &random(k * k, 2, 1.0, 0.0)),
        tensor_on(device, DType::F32, &[k], &random(k, 3, 1.0, 0.0)),
    ]
}

#[test]
fn a_row_has_the_same_bits_alone_in_a_batch_and_on_any_gpu() {
    let ops: [fn([Tensor; 3]) -> Tensor; 3] = [
        |[x, w, b]| forward_gelu(&x, &w, &b, Stored).unwrap(),
        |[x, w, b]| few_rows(&x, &w, Some(&b), Epilogue::Gelu).unwrap(),
        |[x, w, _]| backward_input(&x, &w, Stored).unwrap(),
    ];
    // Rows that are aligned, and others.
    for (storage, k) in [F32, MIXED, BF16].into_iter().flat_map(|storage| [(storage, 136), (storage, 75)]) {
        for op in ops {
            let of = |device: &Device, rows| bits(&numbers(&op(arguments(device, storage, rows, k))));
            let Some((first, others)) = gpus().split_first() else { return };
            let all = of(first, 0..37);
            for device in others {
                assert_eq!(of(device, 0..37), all, "{device}");
            }
            for rows in [0..1, 36..37, 3..7, 3..8, 15..32, 9..37] {
                assert_eq!(of(first, rows.clone()), all[rows.start * k..rows.end * k], "rows {rows:?} of {storage:?}");
            }
        }
    }
}

#[test]
fn weight_gradients_have_the_same_bits_on_any_gpu() {
    for rows in [DType::F32, DType::BF16] {
        let of = |device: &Device| {
            let dy = tensor_on(device, rows, &[1060, 7], &random(1060 * 7, 1, 1.0, 0.0));
            let x = tensor_on(device, rows, &[1060, 9], &random(1060 * 9, 2, 1.0, 0.0));
            let mut dw = Tensor::zeros_on(device, &[7, 9], DType::F32).unwrap();
            let mut db = Tensor::zeros_on(device, &[7], DType::F32).unwrap();
            backward_weight(&dy, &x, &mut dw, &mut db, Stored).unwrap();
            [bits(&numbers(&dw)), bits(&numbers(&db))]
        };
        let all: Vec<_> = gpus().iter().map(of).collect();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

/// As the logits of bf16 rows are wanted.
#[test]
fn a_result_may_be_f32_for_bf16_rows() {
    for device in gpus() {
        let [x, w, b] = arguments(device, BF16, 0..5, 72);
        let Device::Cuda(gpu) = device else { continue };
        for product in [cuda::forward, cuda::few_rows] {
            let y = product(gpu, &x, &w, Some(&b), Epilogue::None, DType::F32).unwrap();
            let rounded = product(gpu, &x, &w, Some(&b), Epilogue::None, DType::BF16).unwrap();
            let near = y.to_device(&Device::Cpu).unwrap();
            assert_eq!(numbers(&near.to_dtype(DType::BF16).unwrap()), numbers(&rounded));
            assert_ne!(numbers(&near), numbers(&rounded));
        }
    }
}

#[test]
fn dtypes_that_do_not_go_together_are_errors() {
    for device in gpus() {
        let [f32, bf16] = [DType::F32, DType::BF16]
            .map(|dtype| move |sizes: &[usize]| Tensor::zeros_on(device, sizes, dtype).unwrap());
        let b = f32(&[4]);
        let error = forward(&bf16(&[2, 3]), &f32(&[4, 3]), &b, Stored).unwrap_err().to_string();
        assert!(error.contains("found bf16 with f32"), "{error}");
        assert!(forward(&bf16(&[2, 3]), &bf16(&[4, 3]), &bf16(&[4]), Stored).is_err());
        assert!(forward_residual(&bf16(&[2, 3]), &bf16(&[4, 3]), &b, &f32(&[2, 4]), Stored).is_err());
        assert!(few_rows(&bf16(&[2, 3]), &f32(&[4, 3]), None, Epilogue::None).is_err());
        assert!(backward_input(&bf16(&[2, 4]), &f32(&[4, 3]), Stored).is_err());
        assert!(backward_weight(&f32(&[2, 4]), &bf16(&[2, 3]), &mut f32(&[4, 3]), &mut f32(&[4]), Stored).is_err());
        assert!(backward_weight(&f32(&[2, 4]), &f32(&[2, 3]), &mut bf16(&[4, 3]), &mut f32(&[4]), Stored).is_err());
        assert!(gelu_backward(&f32(&[2, 4]), &bf16(&[2, 4])).is_err());
        let near = Tensor::zeros(&[4], DType::F32).unwrap();
        let error = forward(&f32(&[2, 3]), &f32(&[4, 3]), &near, Stored).unwrap_err().to_string();
        assert!(error.contains("wanted cuda:"), "{error}");
        let (mut dw, mut db) = (f32(&[1, 1]), Tensor::zeros(&[1], DType::F32).unwrap());
        let one = tensor_on(device, DType::F32, &[1, 1], &[1.0]);
        assert!(backward_weight(&one, &one, &mut dw, &mut db, Stored).is_err());
        assert_eq!(numbers(&dw), [0.0], "nothing was added");
    }
}
