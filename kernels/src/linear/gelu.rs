//! The tanh form of GELU by element: `x/2 · (1 + tanh u)` with `u = 0.79788456 x (1 + 0.044715 x²)`, computed as
//! `x · s` with `s = 1 / (1 + e^(-2u))`, which is the same and does not cancel for negative x.

#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use crate::simd::{self, Work, exp, fma};

const ROOT: f32 = 0.797_884_6;
const CUBE: f32 = 0.044_715;
/// `3 · CUBE · ROOT`, as Hugging Face has it.
const SLOPE: f32 = 0.107_032_225;

/// `gelu(x)` in place.
pub(super) fn forward(x: &mut [f32]) {
    simd::run(Forward(x));
}

/// `dx = dy · gelu'(pre)`.
pub(super) fn backward(dy: &[f32], pre: &[f32], dx: &mut [f32]) {
    simd::run(Backward(dy, pre, dx));
}

/// `e^(-2u)`
#[inline(always)]
fn decay<const FMA: bool>(x: f32) -> f32 {
    exp::<FMA>(-2.0 * ROOT * x * fma::<FMA>(CUBE * x, x, 1.0))
}

struct Forward<'a>(&'a mut [f32]);

impl Work for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        for x in self.0 {
            *x /= 1.0 + decay::<FMA>(*x);
        }
    }
}

struct Backward<'a>(&'a [f32], &'a [f32], &'a mut [f32]);

impl Work for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        let Self(dy, pre, dx) = self;
        for ((dx, dy), &x) in dx.iter_mut().zip(dy).zip(pre) {
            // Beyond ±10 the slope is 1, or 0 to within 1e-35; before, e^(-2u) is finite.
            let x = x.clamp(-10.0, 10.0);
            let e = decay::<FMA>(x);
            let s = 1.0 / (1.0 + e);
            // 2x · s · (1 - s) · (ROOT + SLOPE x²) + s, and 1 - s = e · s.
            *dx = dy * s * fma::<FMA>(2.0 * x * (e * s), fma::<FMA>(SLOPE * x, x, ROOT), 1.0);
        }
    }
}
