//! Layer norm over rows of 1024, as many as a packed batch has and as many as no cache holds.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a bench: wrong shapes are bugs here, and its output is for people

mod ceilings;

use ceilings::{Suite, Work, random};
use kernels::layer_norm;
use tensor::{DType, Tensor};

const C: usize = 1024;
const EPS: f32 = 1e-5;

fn main() {
    let mut suite = Suite::new();
    for t in [1024, 16_384] {
        let [x, other] = [1.0, 2.0].map(|scale| random(&[t, C], scale));
        let [gamma, beta] = [1.0, 0.1].map(|scale| random(&[C], scale));
        let stats = layer_norm::forward(&x, &gamma, &beta, EPS).unwrap().stats;
        let [mut dgamma, mut dbeta] = [(); 2].map(|()| Tensor::zeros(&[C], DType::F32).unwrap());
        let work =
            |flops: usize, tensors: usize| Work { flops: (flops * t * C) as f64, bytes: (4 * tensors * t * C) as f64 };
        // Mean 1, variance 3, normalised 2, scaled and shifted 2.
        suite.case(&format!("layer_norm/forward/t{t}"), work(8, 2), || {
            layer_norm::forward(&x, &gamma, &beta, EPS).unwrap()
        });
        suite.case(&format!("layer_norm/add_forward/t{t}"), work(9, 4), || {
            layer_norm::add_forward(&x, &other, &gamma, &beta, EPS).unwrap()
        });
        // x̂ 2, g 1, two means 3, dx 4, dgamma 2, dbeta 1.
        suite.case(&format!("layer_norm/backward/t{t}"), work(13, 3), || {
            layer_norm::backward(&other, &x, &gamma, &stats, &mut dgamma, &mut dbeta).unwrap()
        });
    }
}
