//! Attention as the equations say, with whole matrices, in f64 or rounded as a plain implementation would.

use std::fmt;

use half::bf16;
use tensor::{DType, Device, Tensor};

use super::{KvCache, append, backward, branch, decode, extend, forward, slopes};
use crate::spec::{Arith, EXACT, exact_in, max_error, naive, numbers, random, tensor_on};

/// Where a case runs, and how its rows are stored.
#[derive(Clone, Debug)]
pub struct Setting {
    pub device: Device,
    pub dtype: DType,
    /// How caches keep keys and values in main memory.
    pub kept: DType,
}

pub const CPU: Setting = Setting { device: Device::Cpu, dtype: DType::F32, kept: DType::F32 };

impl Setting {
    pub fn gpu(device: &Device, dtype: DType) -> Self {
        Self { device: device.clone(), dtype, kept: dtype }
    }

    /// Whether tiles of bf16 multiply what is kept, which tells queries and weights rounded to bf16 from those of [`forward`].
    pub fn in_tiles(&self, d: usize) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.device == Device::Cpu && self.kept == DType::BF16 && d.is_multiple_of(2) && crate::amx::is_here();
        #[cfg(not(target_arch = "x86_64"))]
        return d == 0;
    }

    /// A cache for a document of a pack.
    pub fn cache(&self, layers: usize, pack: &Pack) -> KvCache {
        KvCache::new(layers, pack.heads, pack.d, self.kept)
    }
}

/// The roundings of a run, and where its sums begin, in sixths.
#[derive(Clone, Copy)]
pub struct How {
    arith: Arith,
    /// Of what else than stored numbers goes into a product on tensor cores.
    operand: fn(f64) -> f64,
    order: usize,
}

impl How {
    /// A weight or dS as it goes into a product. Where it lies between two numbers of bf16 depends on the score that the
    /// softmax is taken relative to, of which there are as many as orders; but a lone weight is one.
    fn operand(&self, x: f64) -> f64 {
        let relative = if x == 1.0 { 1.0 } else { (self.order as f64 / 6.0).exp2() };
        (self.operand)(x * relative) / relative
    }
}

pub const PLAIN: How = How { arith: EXACT, operand: |x| x, order: 0 };

/// Rows of documents, packed: `lengths` of them, `qkv` `[t, h, 3, d]`, `dout` `[t, h, d]`.
#[derive(Clone)]
pub struct Pack {
    pub lengths: Vec<usize>,
    pub heads: usize,
    pub d: usize,
    pub qkv: Vec<f64>,
    pub dout: Vec<f64>,
}

impl fmt::Debug for Pack {
    /// Its sizes, and enough of it to tell its scale.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lengths, heads, d, qkv, .. } = self;
        write!(f, "Pack {{ lengths: {lengths:?}, heads: {heads}, d: {d}, qkv: {:?} … }}", qkv.get(..3))
    }
}

impl Pack {
    pub fn new(lengths: Vec<usize>, heads: usize, d: usize, [scale, offset]: [f64; 2], seed: u64) -> Self {
        let (t, c) = (lengths.iter().sum::<usize>(), heads * d);
        let (qkv, dout) = (random(t * 3 * c, seed, scale, offset), random(t * c, seed + 1, scale, 0.0));
        Self { lengths, heads, d, qkv, dout }
    }

    /// The same with numbers that are exact as they are stored.
    pub fn stored(&self, on: &Setting) -> Self {
        Self { qkv: exact_in(on.kept, &self.qkv), dout: exact_in(on.dtype, &self.dout), ..self.clone() }
    }

    pub fn t(&self) -> usize {
        self.lengths.iter().sum()
    }

    pub fn c(&self) -> usize {
        self.heads * self.d
    }

    pub fn bounds(&self) -> Vec<u32> {
        let ends = self.lengths.iter().scan(0, |end, n| {
            *end += *n as u32;
            Some(*end)
        });
        std::iter::once(0).chain(ends).collect()
    }

    /// Rows `rows` of document `i`, and nothing of the other documents.
    pub fn part(&self, i: usize, rows: std::ops::Range<usize>) -> Self {
        let (start, c) = (self.lengths[..i].iter().sum::<usize>() + rows.start, self.c());
        let n = rows.len();
        Self {
            lengths: vec![n],
            qkv: self.qkv[start * 3 * c..][..n * 3 * c].to_vec(),
            dout: self.dout[start * c..][..n * c].to_vec(),
            ..*self
        }
    }

    pub fn document(&self, i: usize) -> Self {
        self.part(i, 0..self.lengths[i])
    }

    /// These one after the other, not as one document.
    pub fn of(parts: &[Self]) -> Self {
        let all = |f: fn(&Self) -> &[f64]| parts.iter().flat_map(f).copied().collect();
        Self {
            lengths: parts.iter().flat_map(|part| part.lengths.clone()).collect(),
            qkv: all(|part| &part.qkv),
            dout: all(|part| &part.dout),
            ..parts[0]
        }
    }

    pub fn qkv(&self, on: &Setting) -> Tensor {
        tensor_on(&on.device, on.dtype, &[self.t(), 3 * self.c()], &self.qkv)
    }

    pub fn forward(&self, on: &Setting) -> [Tensor; 2] {
        forward(&self.qkv(on), &self.bounds(), self.heads).unwrap().into()
    }

    pub fn backward(&self, on: &Setting) -> Tensor {
        let [out, stats] = self.forward(on);
        let dout = tensor_on(&on.device, on.dtype, &[self.t(), self.c()], &self.dout);
        backward(&dout, &self.qkv(on), &out, &stats, &self.bounds(), self.heads).unwrap()
    }

    pub fn append(&self, on: &Setting, caches: &mut [KvCache], layer: usize) {
        append(&self.qkv(on), &self.bounds(), &mut caches.iter_mut().collect::<Vec<_>>(), layer, None).unwrap();
    }

    pub fn extend(&self, on: &Setting, caches: &[KvCache], layer: usize) -> Tensor {
        extend(&self.qkv(on), &self.bounds(), &caches.iter().collect::<Vec<_>>(), layer).unwrap()
    }

    /// The rows as branches of the caches, which they leave alone: each document twice, side by side.
    pub fn branches(&self, on: &Setting, caches: &[KvCache], layer: usize) -> [Tensor; 2] {
        let twice = Self::of(&[self.clone(), self.clone()]);
        let caches: Vec<&KvCache> = caches.iter().chain(caches).collect();
        let both = branch(&twice.qkv(on), &twice.bounds(), &caches, layer).unwrap();
        let (once, again) = both.values::<f32>().unwrap().split_at(self.t() * self.c());
        [once, again].map(|half| Tensor::new(&[self.t(), self.c()], half.to_vec()).unwrap())
    }

    pub fn decode(&self, on: &Setting, caches: &[KvCache], layer: usize) -> Tensor {
        decode(&self.qkv(on), &caches.iter().collect::<Vec<_>>(), layer, None).unwrap()
    }

    /// The output of the documents as prompts, at once.
    pub fn prompts(&self, on: &Setting) -> Tensor {
        let mut caches = vec![on.cache(1, self); self.lengths.len()];
        self.append(on, &mut caches, 0);
        self.extend(on, &caches, 0)
    }

    /// The output, of prompts where those go another way.
    pub fn out(&self, on: &Setting) -> Tensor {
        if on.in_tiles(self.d) { self.prompts(on) } else { self.forward(on)[0].clone() }
    }

    /// As [`Self::reference`] with rounded steps. What a naive run gives depends on the order of its sums: of six orders,
    /// the worst for each number.
    pub fn naive(&self, on: &Setting, exact: &[Vec<f64>; 5]) -> [Vec<f64>; 5] {
        let tensor_cores = on.dtype == DType::BF16 && [64, 80, 96, 128].contains(&self.d);
        self.naive_with(on, tensor_cores, exact)
    }

    /// As [`Self::naive`], with operands of products in bf16 or not.
    pub fn naive_with(&self, on: &Setting, in_bf16: bool, exact: &[Vec<f64>; 5]) -> [Vec<f64>; 5] {
        let operand: fn(f64) -> f64 = if in_bf16 { |x| f64::from(bf16::from_f32(x as f32)) } else { |x| x };
        let run = |order| self.reference(How { arith: naive(on.dtype), operand, order });
        let mut worst = run(0);
        for order in 1..6 {
            for (i, all) in run(order).into_iter().enumerate() {
                for ((worst, x), exact) in worst[i].iter_mut().zip(all).zip(&exact[i]) {
                    *worst = if (x - exact).abs() > (*worst - exact).abs() { x } else { *worst };
                }
            }
        }
        worst
    }

    pub fn exact(&self) -> [Vec<f64>; 5] {
        self.reference(PLAIN)
    }

    /// Of every document: out `[t, c]`, log-sum-exp `[t, h]` (unlike the kernel's), and dq, dk and dv `[t, c]`.
    fn reference(&self, how: How) -> [Vec<f64>; 5] {
        let mut all: [Vec<f64>; 5] = Default::default();
        for i in 0..self.lengths.len() {
            for (all, part) in all.iter_mut().zip(reference(&self.document(i), how)) {
                all.extend(part);
            }
        }
        all
    }
}

/// Σ x · y, from the element `order` sixths in, round to the one before it.
fn dot(how: How, pairs: &[(f64, f64)]) -> f64 {
    let step = how.arith.step;
    let (last, first) = pairs.split_at(pairs.len() * how.order / 6);
    first.iter().chain(last).fold(0.0, |sum, (x, y)| step(sum + step(x * y)))
}

/// One document.
fn reference(pack: &Pack, how: How) -> [Vec<f64>; 5] {
    let Arith { step, store } = how.arith;
    let operand = |x| how.operand(x);
    let (n, heads, d, c) = (pack.t(), pack.heads, pack.d, pack.c());
    let (mut out, mut lse) = (vec![0.0; n * c], vec![0.0; n * heads]);
    let (mut dq, mut dk, mut dv) = (vec![0.0; n * c], vec![0.0; n * c], vec![0.0; n * c]);
    let scale = step(1.0 / (d as f64).sqrt());
    for (h, slope) in slopes(heads).into_iter().enumerate() {
        let part = |i: usize, part: usize| &pack.qkv[((i * heads + h) * 3 + part) * d..][..d];
        let pairs = |x: &'_ [f64], y: &'_ [f64]| x.iter().copied().zip(y.iter().copied()).collect::<Vec<_>>();
        for i in 0..n {
            let at = (i * heads + h) * d;
            let scores: Vec<f64> = (0..=i)
                .map(|j| {
                    let product = dot(how, &pairs(part(i, 0), part(j, 1)));
                    let bias = step(f64::from(slope) * (j as f64 - i as f64));
                    step(step(product * scale) + bias)
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| step(step(s - max).exp())).collect();
            let sum = weights.iter().fold(0.0, |sum, w| step(sum + w));
            lse[i * heads + h] = step(max + step(sum.ln()));
            for p in 0..d {
                let values: Vec<_> = (0..=i).map(|j| (operand(weights[j]), part(j, 2)[p])).collect();
                out[at + p] = store(step(dot(how, &values) / sum));
            }
            let dout = &pack.dout[at..][..d];
            let total = dot(how, &pairs(dout, &out[at..][..d]));
            for (j, weight) in weights.into_iter().map(|w| step(w / sum)).enumerate() {
                let dweight = dot(how, &pairs(dout, part(j, 2)));
                let dscore = operand(step(step(weight * step(dweight - total)) * scale));
                let to = (j * heads + h) * d;
                for p in 0..d {
                    dq[at + p] = step(dq[at + p] + step(dscore * part(j, 1)[p]));
                    dk[to + p] = step(dk[to + p] + step(dscore * part(i, 0)[p]));
                    dv[to + p] = step(dv[to + p] + step(operand(weight) * dout[p]));
                }
            }
        }
    }
    [&mut dq, &mut dk, &mut dv].into_iter().flatten().for_each(|x| *x = store(*x));
    [out, lse, dq, dk, dv]
}

pub fn bits(x: &Tensor) -> Vec<u32> {
    numbers(x).iter().map(|x| x.to_bits()).collect()
}

/// Query, key or value of `[t, h, 3, d]` as `[t, c]`.
pub fn part(x: &Tensor, d: usize, part: usize) -> Vec<f32> {
    numbers(x).chunks_exact(d).skip(part).step_by(3).flatten().copied().collect()
}

/// The error, as [`max_error`], of numbers that are f32.
pub fn error_of(exact: &[f64], got: &[f32]) -> f64 {
    max_error(exact, &got.iter().map(|&x| f64::from(x)).collect::<Vec<_>>())
}
