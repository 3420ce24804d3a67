#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use crate::simd::{self, Work};

/// Independent partial results: two AVX2 registers of f32.
const LANES: usize = 16;
/// Logits whose exponentials are summed in f32, lane by lane, before the sum goes to f64.
const BLOCK: usize = 1024;

/// The loss of one row of logits `[v]`.
pub struct Loss<'a> {
    pub logits: &'a [f32],
    pub target: usize,
}

/// A row's loss, and what gives its softmax: exp(logit − max) · share.
#[derive(Clone, Copy)]
pub struct Softmax {
    pub loss: f32,
    max: f32,
    share: f32,
}

impl Work for Loss<'_> {
    type Output = Softmax;

    #[inline(always)]
    fn call<const FMA: bool>(self) -> Softmax {
        let (whole, rest) = self.logits.as_chunks::<LANES>();
        let mut most = [f32::NEG_INFINITY; LANES];
        for x in whole {
            for l in 0..LANES {
                most[l] = if x[l] > most[l] { x[l] } else { most[l] };
            }
        }
        let max = most.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
        let mut sum = 0.0f64;
        for block in self.logits.chunks(BLOCK) {
            let (whole, rest) = block.as_chunks::<LANES>();
            let mut lanes = [0.0f32; LANES];
            for x in whole {
                for l in 0..LANES {
                    lanes[l] += simd::exp::<FMA>(x[l] - max);
                }
            }
            sum += lanes.iter().map(|&x| f64::from(x)).sum::<f64>();
            sum += rest.iter().map(|&x| f64::from(simd::exp::<FMA>(x - max))).sum::<f64>();
        }
        let below = f64::from(max) - f64::from(self.logits[self.target]);
        Softmax { loss: (sum.ln() + below) as f32, max, share: (1.0 / sum) as f32 }
    }
}

/// Turns one row of logits `[v]` into scale · softmax.
pub struct Gradient<'a> {
    pub logits: &'a mut [f32],
    pub softmax: Softmax,
    pub scale: f32,
}

impl Work for Gradient<'_> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        let factor = self.softmax.share * self.scale;
        for x in self.logits {
            *x = simd::exp::<FMA>(*x - self.softmax.max) * factor;
        }
    }
}
