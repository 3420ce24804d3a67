//! One source, three compilations: an inner loop is written once over plain arrays and slices, and compiled for the
//! machine's baseline, with AVX2 and FMA, and with AVX-512, chosen at run time. No width changes a bit.

use half::bf16;

/// An inner loop with its arguments. `call` must be `#[inline(always)]`, and so must everything it uses, or the wide
/// instructions do not reach it. No rayon inside: parallelism goes around [`run`], never within.
pub(crate) trait Work {
    type Output;
    /// `FMA` says whether fused multiply-add is a machine instruction.
    fn call<const FMA: bool>(self) -> Self::Output;
}

/// Runs `work` with the widest instructions that this machine has.
pub(crate) fn run<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn wide<W: Work>(work: W) -> W::Output {
            work.call::<true>()
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn widest<W: Work>(work: W) -> W::Output {
            work.call::<true>()
        }
        if has_avx512() {
            // SAFETY: its features were found on this machine.
            return unsafe { widest(work) };
        }
        if has_avx2() {
            // SAFETY: the three features were found on this machine.
            return unsafe { wide(work) };
        }
    }
    work.call::<{ cfg!(target_arch = "aarch64") }>()
}

/// Whether AVX2, FMA and F16C are here.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// Whether AVX-512 is here too: F, BW, DQ and VL.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && has_avx2()
}

/// Whether products of pairs of bf16 are here: AVX-512's dot product.
pub(crate) fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return has_avx512() && is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// `a * b + c`, fused where the machine fuses. Without the instruction `f32::mul_add` would call a slow routine.
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// 1.5 · 2²³: added to a number, it leaves the nearest whole one, to even between two, in the low bits of the mantissa.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// The nearest number that bf16 has, to even between two. No branches.
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn to_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    bf16::from_bits(if x.is_nan() { bf16::NAN.to_bits() } else { nearest as u16 })
}

/// `e^x`, at most 2 ulp from the truth; 0 from `x = -104` down to -∞, ∞ from 88.73 up, NaN for NaN. No branches.
/// Reduction to |r| ≤ ln 2 / 2 and the degree-7 polynomial of Cephes (`expf.c`).
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const POLYNOMIAL: [f32; 5] = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let x = x.clamp(-104.0, 89.0);
    let rounded = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let whole = rounded - ROUND;
    let r = fma::<FMA>(whole, -LN2_LOW, fma::<FMA>(whole, -LN2_HIGH, x));
    let mut p = 1.987_569_1e-4;
    for c in POLYNOMIAL {
        p = fma::<FMA>(p, r, c);
    }
    let y = fma::<FMA>(p, r * r, r) + 1.0;
    // 2^whole in two factors, as it may lie outside the normal numbers.
    let n = rounded.to_bits().wrapping_sub(ROUND.to_bits()).cast_signed();
    let half = n >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) << 23).cast_unsigned());
    y * power(half) * power(n - half)
}

/// Loads and stores for loops that have to be written with intrinsics.
#[cfg(target_arch = "x86_64")]
pub(crate) mod wide {
    use std::arch::x86_64::{
        __m256, __m256i, __m512, __m512i, _mm_prefetch, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_storeu_ps,
        _mm512_loadu_ps, _mm512_loadu_si512, _mm512_storeu_ps,
    };

    const CACHE_LINE: usize = 64;

    /// Asks for the cache lines of `bytes` from an address on, which may be any: this reads nothing.
    #[inline(always)]
    #[allow(clippy::inline_always)]
    pub(crate) fn ask<const HINT: i32>(from: *const u8, bytes: usize) {
        for line in (0..bytes).step_by(CACHE_LINE) {
            // SAFETY: it reads nothing, and may be asked of any address.
            unsafe { _mm_prefetch::<HINT>(from.wrapping_add(line).cast()) };
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn load(from: &[f32; 8]) -> __m256 {
        // SAFETY: 8 numbers are there to read; the instruction asks for no alignment.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn store(to: &mut [f32; 8], value: __m256) {
        // SAFETY: 8 numbers are there to write; the instruction asks for no alignment.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), value) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(crate) fn load64(from: &[u8; 64]) -> __m512i {
        // SAFETY: 64 bytes are there to read; the instruction asks for no alignment.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn load32(from: &[u8; 32]) -> __m256i {
        // SAFETY: 32 bytes are there to read; the instruction asks for no alignment.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(crate) fn load_512(from: &[f32; 16]) -> __m512 {
        // SAFETY: 16 numbers are there to read; the instruction asks for no alignment.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(crate) fn store_512(to: &mut [f32; 16], value: __m512) {
        // SAFETY: 16 numbers are there to write; the instruction asks for no alignment.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Work, exp, run};

    struct Exp(f32);

    impl Work for Exp {
        type Output = f32;

        #[inline(always)]
        #[allow(clippy::inline_always)]
        fn call<const FMA: bool>(self) -> f32 {
            exp::<FMA>(self.0)
        }
    }

    #[test]
    fn exp_is_within_two_ulp() {
        let mut worst = [0.0f64; 2];
        // A prime step through all numbers, of both signs.
        for bits in (0..=u32::MAX).step_by(1009) {
            let x = f32::from_bits(bits);
            let want = f64::from(x).exp();
            if x.is_nan() || want > f64::from(f32::MAX) {
                continue;
            }
            let above = f32::from_bits((want as f32).to_bits() + 1);
            let ulp = f64::from(above) - f64::from(want as f32);
            for (worst, got) in worst.iter_mut().zip([run(Exp(x)), exp::<false>(x)]) {
                *worst = worst.max((f64::from(got) - want).abs() / ulp);
            }
        }
        assert!(worst.iter().all(|&w| w <= 2.0), "{worst:?}");
    }

    #[test]
    fn exp_at_the_ends() {
        for exp in [exp::<false>, |x| run(Exp(x))] {
            assert_eq!(exp(f32::NEG_INFINITY).to_bits(), 0);
            assert_eq!(exp(-104.0).to_bits(), 0);
            assert_eq!(exp(-1e30).to_bits(), 0);
            assert_eq!(exp(0.0), 1.0);
            assert_eq!(exp(-0.0), 1.0);
            assert!(exp(88.7).is_finite());
            assert_eq!(exp(89.0), f32::INFINITY);
            assert_eq!(exp(f32::INFINITY), f32::INFINITY);
            assert!(exp(f32::NAN).is_nan());
        }
    }
}
