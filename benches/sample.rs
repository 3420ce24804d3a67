//! Choosing one token of 250,880. One thread does it, so the ceiling, of all threads, is far away.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a bench: wrong shapes are bugs here, and its output is for people

mod ceilings;

use ceilings::{Suite, Work, random, random_ids};
use kernels::sample::{self, Philox, Sampling};

const V: usize = 250_880;

fn main() {
    let mut suite = Suite::new();
    let logits = random(&[V], 10.0).values::<f32>().unwrap().to_vec();
    // A comparison is no flop; of an exponential, only what is around it counts.
    let read = |flops: usize| Work { flops: (flops * V) as f64, bytes: (4 * V) as f64 };
    suite.case("sample/argmax", read(0), || sample::argmax(&logits));
    let all = Sampling { temperature: 0.8, ..Sampling::default() };
    let cases = [
        ("temperature", all),
        ("top_k", Sampling { top_k: 50, ..all }),
        ("top_p", Sampling { top_p: 0.9, ..all }),
        ("min_p", Sampling { min_p: 0.05, ..all }),
        ("top_k_top_p", Sampling { top_k: 50, top_p: 0.9, ..all }),
    ];
    let philox = Philox::new(1, 1);
    for (name, settings) in cases {
        let mut draws = 0;
        suite.case(&format!("sample/{name}"), read(3), || {
            draws += 1;
            sample::sample(&logits, &settings, philox.uniform(draws))
        });
    }
    let mut scores = logits.clone();
    let both = Work { flops: (3 * V) as f64, bytes: (8 * V) as f64 };
    suite.case("sample/log_softmax", both, || sample::log_softmax(&mut scores));
    // 512 tokens seen; the id and its logit read, the logit written. Multiplied by 1, or a long run would end in infinity.
    let seen = random_ids(512, V);
    let few = Work { flops: 512.0, bytes: 12.0 * 512.0 };
    suite.case("sample/penalize/512", few, || sample::penalize(&mut scores, &seen, 1.0));
}
