//! The head with its loss: the response rows of a packed batch under BLOOM's vocabulary, and a model that fits caches.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a bench: wrong shapes are bugs here, and its output is for people

mod ceilings;

use ceilings::{Suite, Work, random, random_ids};
use kernels::cross_entropy;
use kernels::linear::Products;
use tensor::{DType, Tensor};

fn main() {
    let mut suite = Suite::new();
    for (name, r, v, c) in [("small", 150, 16_384, 384), ("bloom560m", 150, 250_880, 1024)] {
        let hidden = random(&[r, c], 1.0);
        let table = random(&[v, c], 0.1);
        let mut dtable = Tensor::zeros(&[v, c], DType::F32).unwrap();
        let targets = random_ids(r, v);
        // Logits need not leave the chip, so they count no bytes. The gradient reads the table once more, and reads and
        // writes its own.
        let product = 2.0 * (r * v * c) as f64;
        let forward = Work { flops: product, bytes: (4 * (v * c + r * c)) as f64 };
        let both = Work { flops: 3.0 * product, bytes: (4 * (4 * v * c + 2 * r * c)) as f64 };
        suite.case(&format!("cross_entropy/forward/{name}"), forward, || {
            cross_entropy::forward(&hidden, &table, &targets).unwrap()
        });
        suite.case(&format!("cross_entropy/forward_backward/{name}"), both, || {
            cross_entropy::forward_backward(&hidden, &table, &targets, 1e-3, &mut dtable, Products::Stored).unwrap()
        });
    }
}
