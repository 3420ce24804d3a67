//! The linear layers of BLOOM-560M (c = 1024): many rows as in training and prefill, few rows as in decode.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a bench: wrong shapes are bugs here, and its output is for people

mod ceilings;

use ceilings::{Suite, Work, random};
use kernels::linear::{self, Epilogue, Products};
use tensor::{DType, Tensor};

/// Name, outputs n and inputs k.
const LAYERS: [(&str, usize, usize); 4] =
    [("qkv", 3072, 1024), ("dense", 1024, 1024), ("up", 4096, 1024), ("down", 1024, 4096)];
const VOCABULARY: usize = 250_880;

fn main() {
    let mut suite = Suite::new();
    for (layer, n, k) in LAYERS {
        for t in [64, 256, 1024] {
            many_rows(&mut suite, layer, t, n, k);
        }
    }
    for dtype in [DType::F32, DType::BF16, DType::Q8, DType::Q4] {
        for (layer, n, k) in LAYERS.into_iter().chain([("head", VOCABULARY, 1024)]) {
            few_rows(&mut suite, layer, dtype, n, k);
        }
    }
    for dtype in [DType::Q8, DType::Q4] {
        for (layer, n, k) in LAYERS {
            quantized(&mut suite, layer, dtype, n, k);
        }
    }
}

/// Prefill with quantised weights.
fn quantized(suite: &mut Suite, layer: &str, dtype: DType, n: usize, k: usize) {
    const ROWS: usize = 512;
    let x = random(&[ROWS, k], 1.0);
    let w = linear::quantize(&random(&[n, k], 0.03), dtype).unwrap();
    let b = Tensor::zeros(&[n], DType::F32).unwrap();
    let work = Work { flops: 2.0 * (ROWS * n * k) as f64, bytes: (w.size() + 4 * ROWS * (n + k)) as f64 };
    suite.case(&format!("linear/forward/{layer}/{dtype}/t{ROWS}"), work, || {
        linear::forward(&x, &w, &b, Products::Stored).unwrap()
    });
}

fn many_rows(suite: &mut Suite, layer: &str, t: usize, n: usize, k: usize) {
    let [x, dy] = [k, n].map(|width| random(&[t, width], 1.0));
    let w = random(&[n, k], 0.03);
    let [b, mut db] = [(); 2].map(|()| Tensor::zeros(&[n], DType::F32).unwrap());
    let mut dw = Tensor::zeros(&[n, k], DType::F32).unwrap();
    // Each of the two factors and of the products, and a second time what is added to.
    let work =
        |again: usize| Work { flops: 2.0 * (t * n * k) as f64, bytes: 4.0 * (t * k + n * k + t * n + again) as f64 };
    let name = |operation: &str| format!("linear/{operation}/{layer}/t{t}");
    suite.case(&name("forward"), work(0), || linear::forward(&x, &w, &b, Products::Stored).unwrap());
    if layer == "up" {
        suite.case(&name("forward_gelu"), work(0), || linear::forward_gelu(&x, &w, &b, Products::Stored).unwrap());
    }
    suite.case(&name("backward_input"), work(0), || linear::backward_input(&dy, &w, Products::Stored).unwrap());
    suite.case(&name("backward_weight"), work(n * k), || {
        linear::backward_weight(&dy, &x, &mut dw, &mut db, Products::Stored).unwrap();
    });
}

fn few_rows(suite: &mut Suite, layer: &str, dtype: DType, n: usize, k: usize) {
    /// In decode a layer's weights come from memory: by the time of the next token, others have filled the cache.
    const COLD: usize = 256 << 20;
    let w = random(&[n, k], 0.03);
    let w = if dtype.tile().is_some() { linear::quantize(&w, dtype).unwrap() } else { w.to_dtype(dtype).unwrap() };
    let size = w.size();
    let copies: Vec<Tensor> = (0..COLD.div_ceil(size)).map(|_| copy(&w)).collect();
    for b in [1, 4, 8] {
        let x = random(&[b, k], 1.0);
        let work = Work { flops: 2.0 * (b * n * k) as f64, bytes: (size + 4 * b * (n + k)) as f64 };
        let mut weights = copies.iter().cycle();
        suite.case(&format!("linear/few_rows/{layer}/{dtype}/b{b}"), work, || {
            linear::few_rows(&x, weights.next().unwrap(), None, Epilogue::None).unwrap()
        });
    }
}

/// The same weights elsewhere in memory.
fn copy(w: &Tensor) -> Tensor {
    let (n, k) = w.dims2().unwrap();
    let words = || w.bytes().unwrap().as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word)).collect();
    match w.dtype() {
        DType::Q8 | DType::Q4 => Tensor::quantized([n, k], w.dtype(), words()).unwrap(),
        DType::BF16 => Tensor::new(&[n, k], w.values::<tensor::bf16>().unwrap().to_vec()).unwrap(),
        _ => Tensor::new(&[n, k], w.values::<f32>().unwrap().to_vec()).unwrap(),
    }
}
