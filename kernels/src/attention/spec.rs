use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tensor::{DType, Tensor};

use super::{KvCache, append, backward, decode, extend, forward, slopes};
use crate::spec::{Arith, EXACT, NAIVE, assert_close, f32s, gradient, max_error, random, tolerance};

/// Rows of documents, packed: `lengths` of them, `qkv` `[t, h, 3, d]`, `dout` `[t, h, d]`.
#[derive(Debug)]
struct Pack {
    lengths: Vec<usize>,
    heads: usize,
    d: usize,
    qkv: Vec<f64>,
    dout: Vec<f64>,
}

impl Pack {
    fn new(lengths: Vec<usize>, heads: usize, d: usize, [scale, offset]: [f64; 2], seed: u64) -> Self {
        let (t, c) = (lengths.iter().sum::<usize>(), heads * d);
        let (qkv, dout) = (random(t * 3 * c, seed, scale, offset), random(t * c, seed + 1, scale, 0.0));
        Self { lengths, heads, d, qkv, dout }
    }

    fn t(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn c(&self) -> usize {
        self.heads * self.d
    }

    fn bounds(&self) -> Vec<u32> {
        let ends = self.lengths.iter().scan(0, |end, n| {
            *end += *n as u32;
            Some(*end)
        });
        std::iter::once(0).chain(ends).collect()
    }

    /// Document `i` alone.
    fn document(&self, i: usize) -> Self {
        let (start, n, c) = (self.lengths[..i].iter().sum::<usize>(), self.lengths[i], self.c());
        Self {
            lengths: vec![n],
            qkv: self.qkv[start * 3 * c..][..n * 3 * c].to_vec(),
            dout: self.dout[start * c..][..n * c].to_vec(),
            ..*self
        }
    }

    fn qkv(&self) -> Tensor {
        tensor(&[self.t(), 3 * self.c()], &self.qkv)
    }

    fn forward(&self) -> [Tensor; 2] {
        forward(&self.qkv(), &self.bounds(), self.heads).unwrap().into()
    }

    fn backward(&self) -> Tensor {
        let [out, stats] = self.forward();
        let dout = tensor(&[self.t(), self.c()], &self.dout);
        backward(&dout, &self.qkv(), &out, &stats, &self.bounds(), self.heads).unwrap()
    }

    /// As [`Self::reference`] with rounded steps. What a naive run gives depends on the order of its sums: of six orders,
    /// the worst for each number.
    fn naive(&self, exact: &[Vec<f64>; 5]) -> [Vec<f64>; 5] {
        let mut worst = self.reference(NAIVE, 0);
        for order in 1..6 {
            for (i, all) in self.reference(NAIVE, order).into_iter().enumerate() {
                for ((worst, x), exact) in worst[i].iter_mut().zip(all).zip(&exact[i]) {
                    *worst = if (x - exact).abs() > (*worst - exact).abs() { x } else { *worst };
                }
            }
        }
        worst
    }

    fn exact(&self) -> [Vec<f64>; 5] {
        self.reference(EXACT, 0)
    }

    /// Of every document: out `[t, c]`, log-sum-exp `[t, h]` (unlike the kernel's), and dq, dk and dv `[t, c]`.
    fn reference(&self, a: Arith, order: usize) -> [Vec<f64>; 5] {
        let mut all: [Vec<f64>; 5] = Default::default();
        for i in 0..self.lengths.len() {
            let document = self.document(i);
            for (all, part) in all.iter_mut().zip(reference(&document, a, order)) {
                all.extend(part);
            }
        }
        all
    }
}

/// Σ x · y, from the element `order` sixths in, round to the one before it.
fn dot(a: Arith, order: usize, pairs: &[(f64, f64)]) -> f64 {
    let (last, first) = pairs.split_at(pairs.len() * order / 6);
    first.iter().chain(last).fold(0.0, |sum, (x, y)| (a.step)(sum + (a.step)(x * y)))
}

/// One document, as the equations say, with whole matrices.
fn reference(pack: &Pack, a: Arith, order: usize) -> [Vec<f64>; 5] {
    let (n, heads, d, c) = (pack.t(), pack.heads, pack.d, pack.c());
    let (mut out, mut lse) = (vec![0.0; n * c], vec![0.0; n * heads]);
    let (mut dq, mut dk, mut dv) = (vec![0.0; n * c], vec![0.0; n * c], vec![0.0; n * c]);
    let scale = (a.store)(1.0 / (d as f64).sqrt());
    for (h, slope) in slopes(heads).into_iter().enumerate() {
        let part = |i: usize, part: usize| &pack.qkv[((i * heads + h) * 3 + part) * d..][..d];
        let pairs = |x: &'_ [f64], y: &'_ [f64]| x.iter().copied().zip(y.iter().copied()).collect::<Vec<_>>();
        for i in 0..n {
            let at = (i * heads + h) * d;
            let scores: Vec<f64> = (0..=i)
                .map(|j| {
                    let product = dot(a, order, &pairs(part(i, 0), part(j, 1)));
                    let bias = (a.step)(f64::from(slope) * (j as f64 - i as f64));
                    (a.step)((a.step)(product * scale) + bias)
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (a.step)((a.step)(s - max).exp())).collect();
            let sum = weights.iter().fold(0.0, |sum, w| (a.step)(sum + w));
            lse[i * heads + h] = (a.store)(max + (a.step)(sum.ln()));
            let weights: Vec<f64> = weights.iter().map(|w| (a.step)(w / sum)).collect();
            for p in 0..d {
                out[at + p] =
                    (a.store)(dot(a, order, &(0..=i).map(|j| (weights[j], part(j, 2)[p])).collect::<Vec<_>>()));
            }
            let dout = &pack.dout[at..][..d];
            let total = dot(a, order, &pairs(dout, &out[at..][..d]));
            for (j, weight) in weights.into_iter().enumerate() {
                let dweight = dot(a, order, &pairs(dout, part(j, 2)));
                let dscore = (a.step)((a.step)(weight * (a.step)(dweight - total)) * scale);
                let to = (j * heads + h) * d;
                for p in 0..d {
                    dq[at + p] = (a.step)(dq[at + p] + (a.step)(dscore * part(j, 1)[p]));
                    dk[to + p] = (a.step)(dk[to + p] + (a.step)(dscore * part(i, 0)[p]));
                    dv[to + p] = (a.step)(dv[to + p] + (a.step)(weight * dout[p]));
                }
            }
        }
    }
    [out, lse, dq, dk, dv]
}

fn tensor(sizes: &[usize], values: &[f64]) -> Tensor {
    Tensor::new(sizes, f32s(values)).unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.values::<f32>().unwrap().iter().map(|x| x.to_bits()).collect()
}

/// Query, key or value of `[t, h, 3, d]` as `[t, c]`.
fn part(x: &Tensor, d: usize, part: usize) -> Vec<f32> {
    x.values::<f32>().unwrap().chunks_exact(d).skip(part).step_by(3).flatten().copied().collect()
}

fn packs() -> impl Strategy<Value = Pack> {
    let length =
        prop_oneof![6 => 1usize..24, 3 => prop::sample::select(vec![31, 32, 33, 47, 48, 49, 97]), 1 => 120usize..150];
    let d = prop::sample::select(vec![4usize, 5, 6, 7, 8, 12, 16, 17, 24, 33, 64, 128]);
    let range =
        (-3i32..=3, prop_oneof![3 => Just(0.0), 1 => Just(100.0)]).prop_map(|(e, offset)| [10f64.powi(e), offset]);
    (prop::collection::vec(length, 1..4), 1usize..5, d, range, 0u64..1 << 40)
        .prop_map(|(lengths, heads, d, range, seed)| Pack::new(lengths, heads, d, range, seed))
}

/// One seed: in a document of few tokens a naive run comes out exact by luck now and then, and what it allows is little.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 24, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn forward_is_as_good_as_a_naive_one(pack in packs()) {
        let exact = pack.exact();
        let (naive, got) = (pack.naive(&exact), pack.forward());
        assert_close("out", got[0].values().unwrap(), &exact[0], &naive[0]);
        let stats = got[1].values::<f32>().unwrap().as_chunks::<2>().0;
        let lse: Vec<f32> = stats.iter().map(|[max, sum]| max + sum.ln()).collect();
        assert_close("log-sum-exp", &lse, &exact[1], &naive[1]);
    }

    #[test]
    fn backward_is_as_good_as_a_naive_one(pack in packs()) {
        let exact = pack.exact();
        let (naive, got) = (pack.naive(&exact), pack.backward());
        for (i, name) in ["dq", "dk", "dv"].into_iter().enumerate() {
            assert_close(name, &part(&got, pack.d, i), &exact[2 + i], &naive[2 + i]);
        }
    }

    #[test]
    fn packed_documents_are_the_documents_apart(pack in packs()) {
        let (mut out, mut stats, mut dqkv) = (vec![], vec![], vec![]);
        for i in 0..pack.lengths.len() {
            let one = pack.document(i);
            let [o, s] = one.forward();
            out.extend(bits(&o));
            stats.extend(bits(&s));
            dqkv.extend(bits(&one.backward()));
        }
        let got = pack.forward();
        prop_assert_eq!(bits(&got[0]), out);
        prop_assert_eq!(bits(&got[1]), stats);
        prop_assert_eq!(bits(&pack.backward()), dqkv);
    }

    #[test]
    fn a_poisoned_document_leaves_the_others_alone(mut pack in packs(), poison in prop::sample::select(vec![f64::NAN, 1e30])) {
        let c = pack.c();
        let first = pack.lengths[0];
        let (forward, backward) = (pack.forward().map(|x| bits(&x)), bits(&pack.backward()));
        pack.qkv[..first * 3 * c].fill(poison);
        pack.dout[..first * c].fill(poison);
        let poisoned = pack.forward().map(|x| bits(&x));
        prop_assert_eq!(&forward[0][first * c..], &poisoned[0][first * c..]);
        prop_assert_eq!(&forward[1][2 * first * pack.heads..], &poisoned[1][2 * first * pack.heads..]);
        prop_assert_eq!(&backward[first * 3 * c..], &bits(&pack.backward())[first * 3 * c..]);
    }

    #[test]
    fn a_token_changes_nothing_before_it(mut pack in packs(), which in any::<prop::sample::Index>()) {
        let (c, heads) = (pack.c(), pack.heads);
        let before = pack.forward().map(|x| bits(&x));
        let token = which.index(pack.t());
        for x in &mut pack.qkv[token * 3 * c..][..3 * c] {
            *x = f64::from((*x * -7.0 + 3.0) as f32);
        }
        let after = pack.forward().map(|x| bits(&x));
        prop_assert_eq!(&before[0][..token * c], &after[0][..token * c]);
        prop_assert_eq!(&before[1][..2 * token * heads], &after[1][..2 * token * heads]);
        prop_assert_ne!(&before[0][token * c..][..c], &after[0][token * c..][..c]);
    }

    #[test]
    fn the_weights_of_a_row_sum_to_one(mut pack in packs()) {
        let d = pack.d;
        pack.qkv.chunks_exact_mut(3 * d).for_each(|row| row[2 * d..].fill(1.0));
        // Both the weights' sum and the weighted sum of ones round once per key at most.
        let allowed = 2.0 * pack.t() as f32 * f32::EPSILON;
        for x in pack.forward()[0].values::<f32>().unwrap() {
            prop_assert!((x - 1.0).abs() <= allowed, "{}", x);
        }
    }

    #[test]
    fn backward_is_linear_in_dout(mut pack in packs(), seed in 0u64..1 << 40) {
        pack.qkv.iter_mut().for_each(|x| *x = f64::from((*x / 64.0) as f32));
        let first = (pack.dout.clone(), pack.backward());
        let errors = |pack: &Pack| {
            let (exact, naive) = (pack.exact(), pack.reference(NAIVE, 0));
            [2, 3, 4].map(|i| tolerance(&exact[i], &naive[i]))
        };
        let mut allowed = vec![errors(&pack)];
        pack.dout = random(pack.dout.len(), seed, 1.0, 0.0);
        let second = pack.backward();
        allowed.push(errors(&pack));
        pack.dout.iter_mut().zip(&first.0).for_each(|(x, y)| *x += y);
        let both = pack.backward();
        allowed.push(errors(&pack));
        for i in 0..3 {
            let wide = |x: &Tensor| part(x, pack.d, i).iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let sum: Vec<f64> = wide(&first.1).iter().zip(wide(&second)).map(|(x, y)| x + y).collect();
            prop_assert!(max_error(&sum, &wide(&both)) <= allowed.iter().map(|a| a[i]).sum());
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit(pack in packs()) {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| (pack.forward().map(|x| bits(&x)), bits(&pack.backward())))
        };
        prop_assert_eq!(on(1), on(3));
    }

    #[test]
    fn a_prompt_in_parts_is_the_prompt_at_once(pack in packs(), cut in 0.0f64..1.0) {
        let (heads, d, width) = (pack.heads, pack.d, 3 * pack.c());
        let whole = bits(&pack.forward()[0]);
        let mut caches = vec![KvCache::new(2, heads, d); pack.lengths.len()];
        let cuts: Vec<usize> = pack.lengths.iter().map(|n| (cut * *n as f64) as usize).collect();
        let mut parts = vec![vec![]; pack.lengths.len()];
        for second in [false, true] {
            let (mut qkv, mut lengths) = (vec![], vec![]);
            for (i, cut) in cuts.iter().enumerate() {
                let rows = pack.document(i).qkv;
                let rows = if second { &rows[cut * width..] } else { &rows[..cut * width] };
                lengths.push(rows.len() / width);
                qkv.extend_from_slice(rows);
            }
            let new = Pack { lengths, qkv, dout: vec![], ..pack };
            append(&new.qkv(), &new.bounds(), &mut caches.iter_mut().collect::<Vec<_>>(), 1).unwrap();
            let out = extend(&new.qkv(), &new.bounds(), &caches.iter().collect::<Vec<_>>(), 1).unwrap();
            for (i, rows) in new.bounds().windows(2).enumerate() {
                parts[i].extend_from_slice(&bits(&out)[rows[0] as usize * new.c()..rows[1] as usize * new.c()]);
            }
        }
        prop_assert_eq!(parts.concat(), whole);
    }

    #[test]
    fn decode_is_the_last_row_of_forward(pack in packs()) {
        let (heads, d, c) = (pack.heads, pack.d, pack.c());
        let mut caches = vec![KvCache::new(1, heads, d); pack.lengths.len()];
        // The prompts without their last tokens, then those one by one.
        let last: Vec<usize> = pack.bounds()[1..].iter().map(|&end| end as usize - 1).collect();
        for (i, cache) in caches.iter_mut().enumerate() {
            let mut prompt = pack.document(i);
            prompt.lengths[0] -= 1;
            prompt.qkv.truncate(prompt.lengths[0] * 3 * c);
            append(&prompt.qkv(), &prompt.bounds(), &mut [&mut *cache], 0).unwrap();
        }
        let rows: Vec<f64> = last.iter().flat_map(|&row| pack.qkv[row * 3 * c..][..3 * c].to_vec()).collect();
        let new = Pack { lengths: vec![1; last.len()], qkv: rows, dout: vec![], ..pack };
        append(&new.qkv(), &new.bounds(), &mut caches.iter_mut().collect::<Vec<_>>(), 0).unwrap();
        prop_assert_eq!(caches.iter().map(KvCache::len).collect::<Vec<_>>(), &pack.lengths[..]);
        let out = decode(&new.qkv(), &caches.iter().collect::<Vec<_>>(), 0).unwrap();
        let exact = pack.exact();
            let naive = pack.naive(&exact);
        let pick = |all: &[f64]| last.iter().flat_map(|&row| all[row * c..][..c].to_vec()).collect::<Vec<_>>();
        // Of the whole output, as a single row may have come out exact by luck.
        let allowed = tolerance(&exact[0], &naive[0]);
        let got: Vec<f64> = out.values::<f32>().unwrap().iter().map(|&x| f64::from(x)).collect();
        prop_assert!(max_error(&pick(&exact[0]), &got) <= allowed);
        for (i, cache) in caches.iter().enumerate() {
            let alone = tensor(&[1, 3 * c], &new.qkv[i * 3 * c..][..3 * c]);
            prop_assert_eq!(bits(&decode(&alone, &[cache], 0).unwrap()), &bits(&out)[i * c..][..c]);
        }
    }
}

#[test]
fn three_hundred_tokens() {
    for (heads, d) in [(3, 20), (4, 64)] {
        let pack = Pack::new(vec![300], heads, d, [1.0, 0.0], 17);
        let exact = pack.exact();
        let (naive, got) = (pack.naive(&exact), pack.backward());
        assert_close("out", pack.forward()[0].values().unwrap(), &exact[0], &naive[0]);
        for (i, name) in ["dq", "dk", "dv"].into_iter().enumerate() {
            assert_close(name, &part(&got, d, i), &exact[2 + i], &naive[2 + i]);
        }
    }
}

#[test]
fn the_reference_gradient_is_the_slope_of_the_reference() {
    let pack = Pack::new(vec![5, 2], 3, 3, [0.7, 0.2], 11);
    let loss = |qkv: &[f64]| -> f64 {
        let out = Pack { lengths: pack.lengths.clone(), qkv: qkv.to_vec(), dout: pack.dout.clone(), ..pack }.exact();
        out[0].iter().zip(&pack.dout).map(|(x, dout)| x * dout).sum()
    };
    let numeric = gradient(&pack.qkv, loss);
    let [_, _, dq, dk, dv] = pack.exact();
    for (i, analytic) in [dq, dk, dv].into_iter().enumerate() {
        let numeric: Vec<f64> = numeric.chunks_exact(3).skip(i).step_by(3).flatten().copied().collect();
        // A step of h = 1e-5 leaves an error of the order of h² and of 1e-16 / h.
        assert!(max_error(&analytic, &numeric) < 1e-8);
    }
}

#[test]
fn hugging_face_adds_the_bias_of_the_key_alone() {
    let pack = Pack::new(vec![19], 3, 8, [1.0, 0.0], 23);
    let [exact, ..] = pack.exact();
    let mut out = vec![0.0; exact.len()];
    for (h, slope) in slopes(3).into_iter().enumerate() {
        let part = |i: usize, part: usize| &pack.qkv[((i * 3 + h) * 3 + part) * 8..][..8];
        for i in 0..19 {
            let score = |j: usize| {
                let product: f64 = part(i, 0).iter().zip(part(j, 1)).map(|(q, k)| q * k).sum();
                (product * (1.0 / 8f64.sqrt()) + f64::from(slope) * j as f64).exp()
            };
            let sum: f64 = (0..=i).map(score).sum();
            for p in 0..8 {
                out[(i * 3 + h) * 8 + p] = (0..=i).map(|j| score(j) * part(j, 2)[p]).sum::<f64>() / sum;
            }
        }
    }
    assert!(max_error(&exact, &out) < 1e-6);
    assert_close("out", pack.forward()[0].values().unwrap(), &out, &pack.reference(NAIVE, 0)[0]);
}

#[test]
fn slopes_follow_the_paper() {
    // "For 8 heads, the slopes are 1/2, 1/4, …, 1/256"; "for n heads, the set is the geometric sequence that starts at
    // 2^(−8/n) and uses that same value as its ratio".
    assert_eq!(slopes(8), [1, 2, 3, 4, 5, 6, 7, 8].map(|i| 2f32.powi(-i)));
    assert_eq!(slopes(4), [2, 4, 6, 8].map(|i| 2f32.powi(-i)));
    for (n, i, slope) in
        [1usize, 2, 16, 32, 64].into_iter().flat_map(|n| slopes(n).into_iter().enumerate().map(move |(i, s)| (n, i, s)))
    {
        let exact = 2f64.powf(-8.0 * (i + 1) as f64 / n as f64);
        // The base is rounded to f32, and its power multiplies that error.
        assert!((f64::from(slope) / exact - 1.0).abs() <= (i + 2) as f64 * f64::from(f32::EPSILON));
    }
    for n in 1..70usize {
        let power = 1 << n.ilog2();
        let wanted: Vec<f32> =
            slopes(power).into_iter().chain(slopes(2 * power).into_iter().step_by(2)).take(n).collect();
        assert_eq!(slopes(n), wanted);
    }
}

#[test]
fn wrong_arguments_are_errors() {
    let zeros = |sizes: &[usize]| Tensor::zeros(sizes, DType::F32).unwrap();
    let qkv = zeros(&[4, 24]);
    assert!(forward(&qkv, &[0, 4], 2).is_ok());
    for bounds in [&[][..], &[0], &[0, 3], &[1, 4], &[0, 3, 2, 4], &[0, 5]] {
        assert!(forward(&qkv, bounds, 2).is_err(), "{bounds:?}");
    }
    assert!(forward(&qkv, &[0, 4], 0).is_err());
    assert!(forward(&qkv, &[0, 4], 3).is_err());
    assert!(forward(&zeros(&[24]), &[0, 24], 2).is_err());
    assert_eq!(forward(&zeros(&[0, 24]), &[0], 2).unwrap().0.shape(), [0, 8]);
    assert_eq!(forward(&qkv, &[0, 0, 4, 4], 2).unwrap().0.shape(), [4, 8]);
    let (out, stats) = forward(&qkv, &[0, 4], 2).unwrap();
    assert!(backward(&out, &qkv, &out, &stats, &[0, 2, 4], 2).is_ok());
    assert!(backward(&qkv, &qkv, &out, &stats, &[0, 4], 2).is_err());
    assert!(backward(&out, &qkv, &out, &out, &[0, 4], 2).is_err());
    let mut cache = KvCache::new(1, 2, 4);
    assert!(cache.is_empty());
    assert!(extend(&qkv, &[0, 4], &[&cache], 0).is_err());
    assert!(decode(&zeros(&[1, 24]), &[&cache], 0).is_err());
    assert!(append(&qkv, &[0, 4], &mut [&mut cache], 1).is_err());
    assert!(append(&qkv, &[0, 2, 4], &mut [&mut cache], 0).is_err());
    append(&qkv, &[0, 4], &mut [&mut cache], 0).unwrap();
    assert!(decode(&qkv, &[&cache], 0).is_err());
    assert!(decode(&zeros(&[1, 24]), &[&cache], 0).is_ok());
    assert!(decode(&zeros(&[0, 24]), &[], 0).is_ok());
    assert!(decode(&zeros(&[1, 12]), &[&cache], 0).is_err());
}
