//! The instructions behind `device.cuh`, on every device there is to test on.

use simulator::gpus;
use tensor::{DType, Device, Gpu, Tensor};

use super::{Arg, Code, Grid, Matrix, launch};
use crate::spec::{EXACT, exact_in, f32s, max_error, naive, numbers, random, tensor_on};

const CODE: Code = Code { op: "self_test", ptx: include_str!("self_test.ptx") };

fn on_each_gpu(test: impl Fn(&Gpu, &Device)) {
    for device in gpus() {
        if let Device::Cuda(gpu) = device {
            test(gpu, device);
        }
    }
}

#[test]
fn tensor_cores_matrices_and_asynchronous_copies() {
    let [a, b] = [1, 2].map(|seed| exact_in(DType::BF16, &random(256, seed, 1.0, 0.0)));
    let product = |rows: usize, round: fn(f64) -> f64| -> Vec<f64> {
        let sum = |i, j| (0..16).fold(0.0, |sum, k| round(sum + a[i * 16 + k] * b[k * 16 + j]));
        (0..256).map(|at| if at / 16 < rows { sum(at / 16, at % 16) } else { 0.0 }).collect()
    };
    on_each_gpu(|gpu, device| {
        for rows in [16, 5] {
            let [a, b] = [&a, &b].map(|x| tensor_on(device, DType::BF16, &[16, 16], x));
            let mut y = Tensor::undefined(gpu, &[16, 16], DType::F32).unwrap();
            let mut args = [Arg::Out(&mut y), Arg::In(&a), Arg::In(&b), Arg::Size(rows)];
            launch(gpu, &CODE, "self_test_product", Grid::new(1, 32), &mut args).unwrap();
            let (exact, naive) = (product(rows, EXACT.step), product(rows, naive(DType::F32).step));
            crate::spec::assert_close("product", &numbers(&y), &exact, &naive);
        }
    });
}

/// How much a block can have is a GPU's own (CUDA C++ Programming Guide, "Compute Capabilities"); the kernel declares 1 KiB of it.
#[test]
fn a_block_gets_the_shared_memory_that_its_gpu_has() {
    on_each_gpu(|gpu, device| {
        let most = match gpu.compute_capability().unwrap() {
            (8, 0 | 7) => 163 << 10,
            (8, _) => 99 << 10,
            (9, 0) => 227 << 10,
            _ => return,
        };
        let run = |shared_bytes| {
            let [a, b] = [(); 2].map(|()| tensor_on(device, DType::BF16, &[16, 16], &[0.5; 256]));
            let mut y = Tensor::undefined(gpu, &[16, 16], DType::F32).unwrap();
            let mut args = [Arg::Out(&mut y), Arg::In(&a), Arg::In(&b), Arg::Size(16)];
            launch(gpu, &CODE, "self_test_product", Grid { shared_bytes, ..Grid::new(1, 32) }, &mut args)
        };
        assert!(run(most - 1024).is_ok(), "{device}");
        assert!(run(most - 1023).is_err(), "{device}");
        assert!(run(0).is_ok(), "{device}: goes on");
    });
}

#[test]
fn lanes_see_each_other() {
    let x: Vec<f64> = (0..32).map(|i| f64::from(i * 7 % 32 - 11)).collect();
    let positive = x.iter().filter(|&&x| x > 0.0).count() as f64;
    let mut wanted: Vec<f64> = (0..32).map(|i| x[(i + 5) % 32]).collect();
    wanted.extend((0..32).map(|i| x[i ^ 6]));
    for value in [x.iter().sum(), 20.0, positive] {
        wanted.extend([value; 32]);
    }
    on_each_gpu(|gpu, device| {
        let x = tensor_on(device, DType::F32, &[32], &x);
        let mut y = Tensor::undefined(gpu, &[5, 32], DType::F32).unwrap();
        launch(gpu, &CODE, "self_test_lanes", Grid::new(1, 32), &mut [Arg::Out(&mut y), Arg::In(&x)]).unwrap();
        assert_eq!(numbers(&y), f32s(&wanted));
    });
}

#[test]
fn approximate_functions_and_rounding() {
    let x = random(1000, 3, 4.0, 0.0);
    let functions: [fn(f64) -> f64; 3] = [f64::exp2, |x| 1.0 / x.abs().sqrt(), f64::tanh];
    let rounded = f32s(&exact_in(DType::BF16, &x));
    on_each_gpu(|gpu, device| {
        let input = tensor_on(device, DType::F32, &[1000], &x);
        let mut y = Tensor::undefined(gpu, &[5, 1000], DType::F32).unwrap();
        let mut args = [Arg::Out(&mut y), Arg::In(&input), Arg::Size(1000)];
        launch(gpu, &CODE, "self_test_numbers", Grid::new(1, 32), &mut args).unwrap();
        let got = numbers(&y);
        for (got, f) in got.chunks(1000).zip(functions) {
            // Relative to the value, or to 1 below it, in ulp of f32: 2 as the PTX manual has it, and those of four more operations.
            let error: Vec<f64> =
                got.iter().zip(&x).map(|(&y, &x)| (f64::from(y) - f(x)) / f(x).abs().max(1.0)).collect();
            assert!(max_error(&vec![0.0; 1000], &error) <= 6.0 * 2f64.powi(-23));
        }
        assert_eq!(got[3000..4000], rounded);
        assert_eq!(got[4000..], rounded);
    });
}

#[test]
fn a_matrix_with_a_map_is_within_its_tensor() {
    on_each_gpu(|gpu, device| {
        let x = tensor_on(device, DType::BF16, &[96], &[0.0; 96]);
        let of = |from, lines, columns| Matrix { tensor: &x, from, lines, columns };
        for matrix in [of(0, 7, 16), of(16, 6, 16), of(usize::MAX, 1, 8), of(8, usize::MAX, 8)] {
            assert!(matrix.map(gpu, "self_test").unwrap_err().to_string().contains("a matrix"));
        }
        for (matrix, has_map) in [
            (of(16, 5, 16), true),
            (of(8, 1, 8), true),
            (of(4, 5, 16), false),
            (of(0, 5, 12), false),
            (of(0, 0, 8), false),
        ] {
            assert_eq!(matrix.has_map(gpu, "self_test").unwrap(), has_map);
        }
    });
}

#[test]
fn a_launch_is_checked() {
    on_each_gpu(|gpu, device| {
        let x = tensor_on(device, DType::F32, &[32], &[0.0; 32]);
        let mut y = Tensor::undefined(gpu, &[5, 32], DType::F32).unwrap();
        let mut wrong = |name: &str, grid, extra: Option<Arg>| {
            let mut args = vec![Arg::Out(&mut y), Arg::In(&x)];
            args.extend(extra);
            launch(gpu, &CODE, name, grid, &mut args).unwrap_err().to_string()
        };
        let grid = Grid::new(1, 32);
        assert!(wrong("self_test_lanes", grid, Some(Arg::Size(1))).contains("a kernel's parameters"));
        assert!(wrong("self_test_numbers", grid, None).contains("a kernel's parameters"));
        assert!(wrong("self_test_numbers", grid, Some(Arg::F32(1.0))).contains("a kernel's parameters"));
        assert!(wrong("self_test_numbers", grid, Some(Arg::Size(1 << 32))).contains("32 bits"));
        assert!(wrong("self_test_lanes", Grid::new(1, 64), None).contains("self_test_lanes"));
        assert!(wrong("self_test_nothing", grid, None).contains("self_test_nothing"));
    });
}
