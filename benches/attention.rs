//! Attention of one layer of BLOOM-560M, 16 heads of 64: training and prefill of packed documents, and one new token.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a bench: wrong shapes are bugs here, and its output is for people

mod ceilings;

use ceilings::{Suite, Work, random};
use kernels::attention::{self, KvCache};
use tensor::DType;

const HEADS: usize = 16;
const SIZE: usize = 64;
const C: usize = HEADS * SIZE;
const LAYERS: usize = 24;

fn main() {
    let mut suite = Suite::new();
    for (name, documents, length) in [("1x1024", 1, 1024), ("8x128", 8, 128)] {
        packed(&mut suite, name, documents, length);
    }
    for dtype in [DType::F32, DType::BF16] {
        for cached in [128, 512, 2048] {
            decode(&mut suite, cached, dtype);
        }
    }
}

fn packed(suite: &mut Suite, name: &str, documents: usize, length: usize) {
    let t = documents * length;
    let bounds: Vec<u32> = (0..=documents).map(|i| (i * length) as u32).collect();
    let (qkv, dout) = (random(&[t, 3 * C], 1.0), random(&[t, C], 1.0));
    let (out, stats) = attention::forward(&qkv, &bounds, HEADS).unwrap();
    // Every query with the keys up to its own; a product of two vectors of all heads is 2c flops.
    let pairs = documents * length * (length + 1) / 2;
    let product = 2.0 * (pairs * C) as f64;
    let stats_size = 2 * t * HEADS;
    // Forward: scores and values. Backward: scores again, and the gradients of probabilities, values, queries, keys.
    let forward = Work { flops: 2.0 * product, bytes: 4.0 * (4 * t * C + stats_size) as f64 };
    let backward = Work { flops: 5.0 * product, bytes: 4.0 * (8 * t * C + stats_size) as f64 };
    suite.case(&format!("attention/forward/{name}"), forward, || attention::forward(&qkv, &bounds, HEADS).unwrap());
    suite.case(&format!("attention/backward/{name}"), backward, || {
        attention::backward(&dout, &qkv, &out, &stats, &bounds, HEADS).unwrap()
    });
}

fn decode(suite: &mut Suite, cached: usize, dtype: DType) {
    // All layers, taken in turn, so that the keys come from where they come from in a model.
    let mut cache = KvCache::new(LAYERS, HEADS, SIZE, dtype);
    let prompt = random(&[cached, 3 * C], 1.0);
    for layer in 0..LAYERS {
        attention::append(&prompt, &[0, cached as u32], &mut [&mut cache], layer, None).unwrap();
    }
    let qkv = random(&[1, 3 * C], 1.0);
    let work = Work { flops: 4.0 * (cached * C) as f64, bytes: (2 * cached * C * dtype.size() + 8 * C) as f64 };
    let mut layers = (0..LAYERS).cycle();
    suite.case(&format!("attention/decode/{dtype}/{cached}"), work, || {
        attention::decode(&qkv, &[&cache], layers.next().unwrap(), None).unwrap()
    });
}
