//! One optimiser step on 16 M weights, and the norm that clipping needs: both are a matter of memory alone.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a bench: wrong shapes are bugs here, and its output is for people

mod ceilings;

use ceilings::{Suite, Work, random};
use kernels::adamw::{self, AdamW, Weight};
use tensor::{DType, Tensor};

const N: usize = 1 << 24;

fn main() {
    let mut suite = Suite::new();
    let mut w = random(&[N], 0.03);
    let g = random(&[N], 1e-3);
    let [mut m, mut v] = [(); 2].map(|()| Tensor::zeros(&[N], DType::F32).unwrap());
    let settings = AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    // Four tensors read, three written; scaled gradient 1, moments 3 and 4, step 7.
    let update = Work { flops: (15 * N) as f64, bytes: (4 * 7 * N) as f64 };
    let norm = adamw::norm(&[&g], 1.0).unwrap();
    let mut step = 0;
    suite.case("adamw/update", update, || {
        step += 1;
        let weight = Weight { value: &mut w, master: None, gradient: &g, moments: [&mut m, &mut v], decays: true };
        adamw::update(&mut [weight], &settings, step, &norm).unwrap();
    });
    let sum = Work { flops: (2 * N) as f64, bytes: (4 * N) as f64 };
    suite.case("adamw/norm", sum, || adamw::norm(&[&g], 1.0).unwrap());
}
