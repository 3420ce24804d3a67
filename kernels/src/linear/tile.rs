//! The innermost loop of the matrix multiplication: a tile of 6 × 16 sums that stay in registers. In plain Rust the
//! compiler keeps them there in some surroundings and not in others, hence intrinsics. Of pairs of bf16, 6 × 32.

#![allow(clippy::inline_always)] // a requirement of `simd::Work`

/// Rows and columns of the tile: 12 registers of sums, 3 for the factors.
pub(super) const ROWS: usize = 6;
pub(super) const COLS: usize = 16;

/// The sums over k of 6 rows of a times 16 columns of b, from zero, in order of k.
#[inline(always)]
pub(super) fn multiply<const FMA: bool>(a: &[[f32; ROWS]], b: &[[f32; COLS]]) -> [[f32; COLS]; ROWS] {
    let mut sums = [[0.0f32; COLS]; ROWS];
    #[cfg(target_arch = "x86_64")]
    if FMA {
        // SAFETY: on this architecture `FMA` means that AVX2 and FMA are here.
        unsafe { wide::multiply(a, b, &mut sums) };
        return sums;
    }
    for (a, b) in a.iter().zip(b) {
        for (sums, &a) in sums.iter_mut().zip(a) {
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum = crate::simd::fma::<FMA>(a, b, *sum);
            }
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
pub(super) mod wide {
    use std::arch::x86_64::{
        __m512, __m512bh, _mm256_fmadd_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps,
        _mm512_set1_ps, _mm512_setzero_ps,
    };

    use super::{COLS, ROWS};
    use crate::simd::wide::{load, load_512, store, store_512};

    /// As [`super::multiply`], of pairs of bf16 and two panels of b of one length: of each pair both products are added.
    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    pub fn multiply_pairs(a: &[[f32; ROWS]], b: [&[[f32; COLS]]; 2], to: &mut [[[f32; COLS]; ROWS]; 2]) {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for (a, (left, right)) in a.iter().zip(b[0].iter().zip(b[1])) {
            let (left, right) = (pairs(load_512(left)), pairs(load_512(right)));
            for (sums, &a) in sums.iter_mut().zip(a) {
                let a = pairs(_mm512_set1_ps(a));
                sums[0] = _mm512_dpbf16_ps(sums[0], a, left);
                sums[1] = _mm512_dpbf16_ps(sums[1], a, right);
            }
        }
        put(&sums, to);
    }

    /// As [`super::multiply`], of two panels of b of one length.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub fn multiply_singles(a: &[[f32; ROWS]], b: [&[[f32; COLS]]; 2], to: &mut [[[f32; COLS]; ROWS]; 2]) {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for (a, (left, right)) in a.iter().zip(b[0].iter().zip(b[1])) {
            let (left, right) = (load_512(left), load_512(right));
            for (sums, &a) in sums.iter_mut().zip(a) {
                let a = _mm512_set1_ps(a);
                sums[0] = _mm512_fmadd_ps(a, left, sums[0]);
                sums[1] = _mm512_fmadd_ps(a, right, sums[1]);
            }
        }
        put(&sums, to);
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn put(sums: &[[__m512; 2]; ROWS], to: &mut [[[f32; COLS]; ROWS]; 2]) {
        for (i, sums) in sums.iter().enumerate() {
            for (to, sum) in to.iter_mut().zip(sums) {
                store_512(&mut to[i], *sum);
            }
        }
    }

    /// The same bits, as 32 numbers.
    #[inline]
    fn pairs(bits: __m512) -> __m512bh {
        // SAFETY: both are 64 bytes that may be any.
        unsafe { std::mem::transmute(bits) }
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub fn multiply(a: &[[f32; ROWS]], b: &[[f32; COLS]], to: &mut [[f32; COLS]; ROWS]) {
        let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
        for (a, b) in a.iter().zip(b) {
            let [low, high] = halves(b);
            let (low, high) = (load(low), load(high));
            for (sums, &a) in sums.iter_mut().zip(a) {
                let a = _mm256_set1_ps(a);
                sums[0] = _mm256_fmadd_ps(a, low, sums[0]);
                sums[1] = _mm256_fmadd_ps(a, high, sums[1]);
            }
        }
        for (to, sums) in to.iter_mut().zip(sums) {
            for (to, sum) in to.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
                store(to, sum);
            }
        }
    }

    #[inline]
    fn halves(row: &[f32; COLS]) -> [&[f32; 8]; 2] {
        let (chunks, _) = row.as_chunks::<8>();
        [&chunks[0], &chunks[1]]
    }
}
