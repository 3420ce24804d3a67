#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use super::forward::scale;
use super::tile::{Kept, LANES, Rows};
use crate::linear::Widen;
use crate::simd::{self, Work, fma};

/// Keys, or values, between one that is read and one that is asked for: 4 KiB of bf16 with d = 64.
const AHEAD: usize = 32;
/// Elements of a head that are summed together, in registers.
const TOGETHER: usize = 64;

/// One head's attention of the last token over all keys and values, its own included.
pub struct Token<'a> {
    /// `[d]`
    pub out: &'a mut [f32],
    pub query: &'a [f32],
    pub keys: Kept<'a>,
    pub values: Kept<'a>,
    pub slope: f32,
}

impl Work for Token<'_> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        match (self.keys, self.values) {
            (Kept::F32(keys), Kept::F32(values)) => self.attend::<FMA, _>(keys, values),
            (Kept::Bf16(keys), Kept::Bf16(values)) => self.attend::<FMA, _>(keys, values),
            _ => {} // a layer keeps both alike
        }
    }
}

impl Token<'_> {
    #[inline(always)]
    fn attend<const FMA: bool, T: Widen>(self, keys: Rows<T>, values: Rows<T>) {
        let scale = scale(self.query.len());
        let count = keys.count;
        let mut weights = vec![0.0; count];
        let mut max = f32::NEG_INFINITY;
        for (j, weight) in weights.iter_mut().enumerate() {
            let Some(key) = keys.row(j) else { continue };
            keys.ask(j + AHEAD);
            let bias = -(self.slope * (count - 1 - j) as f32);
            *weight = fma::<FMA>(dot::<FMA, T>(self.query, key), scale, bias);
            max = if *weight > max { *weight } else { max };
        }
        (0..AHEAD).for_each(|j| values.ask(j));
        for weight in &mut weights {
            *weight = simd::exp::<FMA>(*weight - max);
        }
        let sum: f32 = weights.iter().sum();
        for (i, out) in self.out.chunks_mut(TOGETHER).enumerate() {
            let mut sums = [0.0; TOGETHER];
            for (j, weight) in weights.iter().enumerate() {
                let Some(value) = values.row(j) else { continue };
                values.ask(j + AHEAD);
                let value = &value[i * TOGETHER..];
                // The whole width first, in a form of constant length.
                if let Some(value) = value.first_chunk::<TOGETHER>() {
                    for (sum, value) in sums.iter_mut().zip(value) {
                        *sum = fma::<FMA>(*weight, value.widen(), *sum);
                    }
                } else {
                    for (sum, value) in sums.iter_mut().zip(value) {
                        *sum = fma::<FMA>(*weight, value.widen(), *sum);
                    }
                }
            }
            out.iter_mut().zip(sums).for_each(|(out, of_values)| *out = of_values / sum);
        }
    }
}

/// Σ x · y: element i goes to lane i mod 16, and the lanes are added pairwise.
#[inline(always)]
fn dot<const FMA: bool, T: Widen>(x: &[f32], y: &[T]) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        for l in 0..LANES {
            lanes[l] = fma::<FMA>(x[l], y[l].widen(), lanes[l]);
        }
    }
    for (lane, (x, y)) in lanes.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *lane = fma::<FMA>(*x, y.widen(), *lane);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
        width /= 2;
    }
    lanes[0]
}
