#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use rayon::prelude::*;

use super::AdamW;
use crate::simd::{self, Work};

/// Elements that a thread takes at a time; also what one partial sum covers, so it must not change with the machine.
const CHUNK: usize = 1 << 14;
/// Partial sums side by side.
const LANES: usize = 8;

/// In f64: within a chunk by lane, then the chunks in order.
pub(super) fn sum_of_squares(g: &[f32]) -> f64 {
    let sums: Vec<f64> = g.par_chunks(CHUNK).map(|g| simd::run(SumOfSquares(g))).collect();
    sums.into_iter().sum()
}

struct SumOfSquares<'a>(&'a [f32]);

impl Work for SumOfSquares<'_> {
    type Output = f64;

    #[inline(always)]
    fn call<const FMA: bool>(self) -> f64 {
        let mut lanes = [0.0f64; LANES];
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, &g) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(g) * f64::from(g);
            }
        }
        for (lane, &g) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(g) * f64::from(g);
        }
        lanes.iter().sum()
    }
}

/// What a step multiplies by, rounded to f32 once, as torch does with its f64 scalars.
pub(super) struct Factors {
    /// `1 - lr · weight_decay`
    pub keep: f32,
    /// `1 - β1`, `β2` and `1 - β2`
    pub new1: f32,
    pub beta2: f32,
    pub new2: f32,
    /// `lr / (1 - β1^step)`
    pub size: f32,
    /// `1 / √(1 - β2^step)`
    pub root: f32,
    pub eps: f32,
}

impl Factors {
    pub fn new(settings: &AdamW, step: u64) -> Self {
        let AdamW { lr, beta1, beta2, eps, weight_decay } = *settings;
        let [lr, beta1, beta2, weight_decay] = [lr, beta1, beta2, weight_decay].map(f64::from);
        let step = step as f64;
        Self {
            keep: (1.0 - lr * weight_decay) as f32,
            new1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            new2: (1.0 - beta2) as f32,
            size: (lr / (1.0 - beta1.powf(step))) as f32,
            root: (1.0 / (1.0 - beta2.powf(step)).sqrt()) as f32,
            eps,
        }
    }
}

/// One pass over memory. The gradient is multiplied by `scale` first.
pub(super) fn update(w: &mut [f32], g: &[f32], [m, v]: [&mut [f32]; 2], scale: f32, factors: &Factors) {
    let weights = w.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK));
    let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
    weights.zip(moments).for_each(|((w, g), (m, v))| simd::run(Update { w, g, m, v, scale, factors }));
}

struct Update<'a> {
    w: &'a mut [f32],
    g: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    scale: f32,
    factors: &'a Factors,
}

impl Work for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        let &Factors { keep, new1, beta2, new2, size, root, eps } = self.factors;
        for (((w, g), m), v) in self.w.iter_mut().zip(self.g).zip(self.m).zip(self.v) {
            let g = g * self.scale;
            *m = simd::fma::<FMA>(new1, g - *m, *m);
            *v = simd::fma::<FMA>(new2 * g, g, beta2 * *v);
            *w = *w * keep - size * *m / simd::fma::<FMA>(v.sqrt(), root, eps);
        }
    }
}
