//! Rows of 1024 out of a table that no cache holds, and their gradients into one.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a bench: wrong shapes are bugs here, and its output is for people

mod ceilings;

use ceilings::{Suite, Work, random, random_ids};
use kernels::embedding;
use tensor::{DType, Tensor};

const V: usize = 65_536;
const C: usize = 1024;
const T: usize = 1024;

fn main() {
    let mut suite = Suite::new();
    let ids = random_ids(T, V);
    let table = random(&[V, C], 0.03);
    for (format, size, table) in [("f32", 4, table.clone()), ("bf16", 2, table.to_dtype(DType::BF16).unwrap())] {
        let work = Work { flops: 0.0, bytes: (T * C * (size + 4)) as f64 };
        suite.case(&format!("embedding/forward/{format}"), work, || embedding::forward(&table, &ids).unwrap());
    }
    let dy = random(&[T, C], 1.0);
    let mut dtable = Tensor::zeros(&[V, C], DType::F32).unwrap();
    let work = Work { flops: (T * C) as f64, bytes: (4 * 3 * T * C) as f64 };
    suite.case("embedding/backward", work, || embedding::backward(&dy, &ids, &mut dtable).unwrap());
}
