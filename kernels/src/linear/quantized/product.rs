//! Rows of x in 8 bits, times tiles: the same whole numbers on every machine, then one product and one sum in f32 for each block, in
//! the order of k. So a dot product's bits depend on its row of x and its row of w alone.

#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use half::f16;
use rayon::prelude::*;

use super::{BLOCK, Bits, Output, ROWS, SCALES};
use crate::simd::{self, Work};

/// Groups of four columns in a block.
const GROUPS: usize = BLOCK / 4;
/// Rows of tiles that a task takes.
const TASK: usize = 4;
/// Rows of x that pass a tile together.
const TOGETHER: usize = 8;
/// Up to so many products, waking other threads costs more than it saves.
const ALONE: usize = 1 << 16;

/// Rows of x in 8 bits.
pub(super) struct Rows {
    /// Four codes each, from -127 to 127.
    codes: Vec<[i8; 4]>,
    scales: Vec<f32>,
    /// What the weights' zero adds up to, negative.
    offsets: Vec<i32>,
    blocks: usize,
    count: usize,
}

impl Rows {
    /// x `[t, k]`. A block with a number that is infinite or none has that for a scale.
    pub fn new(x: &[f32], k: usize, bits: Bits) -> Self {
        let (blocks, count) = (k.div_ceil(BLOCK), x.len().checked_div(k).unwrap_or(0));
        let mut all = Self {
            codes: vec![[0; 4]; count * blocks * GROUPS],
            scales: vec![0.0; count * blocks],
            offsets: vec![0; count * blocks],
            blocks,
            count,
        };
        let row = |x: &[f32], codes: &mut [[i8; 4]], scales: &mut [f32], offsets: &mut [i32]| {
            simd::run(Quantize { x, codes: codes.as_flattened_mut(), scales, offsets, zero: bits.zero() });
        };
        if k == 0 {
            return all;
        }
        let codes = all.codes.par_chunks_exact_mut(blocks * GROUPS);
        let others = all.scales.par_chunks_exact_mut(blocks).zip(all.offsets.par_chunks_exact_mut(blocks));
        let each = x.par_chunks_exact(k).zip(codes).zip(others);
        each.with_min_len(32).for_each(|((x, codes), (scales, offsets))| row(x, codes, scales, offsets));
        all
    }
}

/// One row of x.
struct Quantize<'a> {
    x: &'a [f32],
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    offsets: &'a mut [i32],
    zero: i32,
}

impl Work for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        let blocks = self.codes.chunks_exact_mut(BLOCK).zip(self.scales).zip(self.offsets);
        for (x, ((codes, scale), offset)) in self.x.chunks(BLOCK).zip(blocks) {
            let mut block = [0.0f32; BLOCK];
            block[..x.len()].copy_from_slice(x);
            let most = block.iter().fold(0.0f32, |most, x| if most > x.abs() { most } else { x.abs() });
            // What is no number stays none; the comparison above may have lost it.
            let bad = block.iter().fold(0.0f32, |sum, x| sum + x * 0.0);
            *scale = most / 127.0 + bad;
            let inverse = if most > 0.0 && scale.is_finite() { 127.0 / most } else { 0.0 };
            let mut sum = 0i32;
            for (code, x) in codes.iter_mut().zip(block) {
                let near = (x * inverse).round_ties_even() as i32;
                sum += near;
                *code = near as i8;
            }
            *offset = -self.zero * sum;
        }
    }
}

/// Which instructions multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// AVX-512 with its dot product of bytes.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Path {
    /// Those that this machine has, the best first.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            #[cfg(target_arch = "x86_64")]
            (Self::Vnni, has_vnni()),
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2, simd::has_avx2()),
            (Self::Portable, true),
        ]
        .into_iter()
        .filter_map(|(path, is_here)| is_here.then_some(path))
    }

    pub fn here() -> Self {
        Self::all().next().unwrap_or(Self::Portable)
    }
}

#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
        && simd::has_avx2()
}

/// `output[t, n] = x · wᵀ` with w in tiles, then `finish(row, column, part)` on each part of a row of it. The path must be one that is
/// here.
pub(super) fn multiply_by(
    path: Path,
    x: &Rows,
    tiles: &[u8],
    bits: Bits,
    output: &Output<'_>,
    n: usize,
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let stride = x.blocks * bits.tile();
    let task = |i: usize| {
        for tile in i * TASK..n.div_ceil(ROWS).min((i + 1) * TASK) {
            let cols = tile * ROWS..n.min((tile + 1) * ROWS);
            let tiles = &tiles[tile * stride..][..stride];
            let mut row = 0;
            while row < x.count {
                let mut sums = [[0.0f32; ROWS]; TOGETHER];
                let rows = TOGETHER.min(x.count - row);
                match bits {
                    Bits::Eight => together::<false>(path, x, row, tiles, &mut sums[..rows]),
                    Bits::Four => together::<true>(path, x, row, tiles, &mut sums[..rows]),
                }
                for (i, sums) in sums[..rows].iter().enumerate() {
                    // SAFETY: a task alone writes to its columns.
                    let part = unsafe { output.part(row + i, cols.clone()) };
                    part.copy_from_slice(&sums[..cols.len()]);
                    finish(row + i, cols.start, part);
                }
                row += rows;
            }
        }
    };
    let tasks = n.div_ceil(TASK * ROWS);
    if n.saturating_mul(x.blocks * BLOCK) <= ALONE {
        (0..tasks).for_each(task);
    } else {
        (0..tasks).into_par_iter().for_each(task);
    }
}

/// Some rows of x, from `row` on, times a row of tiles.
fn together<const FOUR: bool>(path: Path, x: &Rows, row: usize, tiles: &[u8], sums: &mut [[f32; ROWS]]) {
    match sums.len() {
        8 => some::<FOUR, 8>(path, x, row, tiles, sums),
        4..8 => {
            let (first, rest) = sums.split_at_mut(4);
            some::<FOUR, 4>(path, x, row, tiles, first);
            together::<FOUR>(path, x, row + 4, tiles, rest);
        }
        2 | 3 => {
            let (first, rest) = sums.split_at_mut(2);
            some::<FOUR, 2>(path, x, row, tiles, first);
            together::<FOUR>(path, x, row + 2, tiles, rest);
        }
        1 => some::<FOUR, 1>(path, x, row, tiles, sums),
        _ => {}
    }
}

fn some<const FOUR: bool, const M: usize>(path: Path, x: &Rows, row: usize, tiles: &[u8], sums: &mut [[f32; ROWS]]) {
    let Ok(sums) = <&mut [[f32; ROWS]; M]>::try_from(sums) else { return };
    let of = |m: usize| (row + m) * x.blocks..(row + m + 1) * x.blocks;
    let (codes, _) = x.codes.as_chunks::<GROUPS>();
    let mut dots = Dots::<FOUR, M> {
        codes: std::array::from_fn(|m| &codes[of(m)]),
        scales: std::array::from_fn(|m| &x.scales[of(m)]),
        offsets: std::array::from_fn(|m| &x.offsets[of(m)]),
        tiles,
        sums,
    };
    let tile = if FOUR { Bits::Four.tile() } else { Bits::Eight.tile() };
    assert_eq!(tiles.len(), x.blocks * tile, "whole tiles");
    match path {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the path is one that is here, and so are its instructions.
        Path::Vnni => unsafe { wide::vnni(&mut dots) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Path::Avx2 => unsafe { wide::avx2(&mut dots) },
        Path::Portable => simd::run(dots),
    }
}

/// `M` rows of x, block by block, and a row of tiles.
struct Dots<'a, const FOUR: bool, const M: usize> {
    codes: [&'a [[[i8; 4]; GROUPS]]; M],
    scales: [&'a [f32]; M],
    offsets: [&'a [i32]; M],
    tiles: &'a [u8],
    sums: &'a mut [[f32; ROWS]; M],
}

/// The portable form.
impl<const FOUR: bool, const M: usize> Work for Dots<'_, FOUR, M> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        let bits = if FOUR { Bits::Four } else { Bits::Eight };
        for (b, tile) in self.tiles.chunks_exact(bits.tile()).enumerate() {
            for m in 0..M {
                let x = self.codes[m][b].as_flattened();
                for (row, sum) in self.sums[m].iter_mut().enumerate() {
                    let mut dot = self.offsets[m][b];
                    for (col, &x) in x.iter().enumerate() {
                        dot += bits.code(tile, row, col) * i32::from(x);
                    }
                    let scale = f16::from_le_bytes([tile[2 * row], tile[2 * row + 1]]).to_f32();
                    *sum = simd::fma::<FMA>(dot as f32, scale * self.scales[m][b], *sum);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m128i, __m256i, __m512i, _mm_loadu_si128, _mm256_abs_epi8, _mm256_add_epi32, _mm256_and_si256,
        _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_loadu_si256, _mm256_madd_epi16,
        _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
        _mm256_setzero_ps, _mm256_sign_epi8, _mm256_srli_epi16, _mm256_xor_si256, _mm512_add_epi32, _mm512_and_si512,
        _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_mul_ps,
        _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
        _mm512_srli_epi16, _mm512_storeu_ps,
    };

    use super::{Bits, Dots, GROUPS, ROWS, SCALES};
    use crate::simd::wide::store;

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load64(from: &[u8; 64]) -> __m512i {
        // SAFETY: 64 bytes are there to read; the instruction asks for no alignment.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load32(from: &[u8; 32]) -> __m256i {
        // SAFETY: 32 bytes are there to read; the instruction asks for no alignment.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load16(from: &[u8; 16]) -> __m128i {
        // SAFETY: 16 bytes are there to read; the instruction asks for no alignment.
        unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
    }

    const fn word(four: [i8; 4]) -> i32 {
        let [a, b, c, d] = four;
        i32::from_ne_bytes([a.cast_unsigned(), b.cast_unsigned(), c.cast_unsigned(), d.cast_unsigned()])
    }

    /// The products with AVX-512 and its dot product of bytes.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,f16c,fma")]
    pub fn vnni<const FOUR: bool, const M: usize>(dots: &mut Dots<'_, FOUR, M>) {
        let size = if FOUR { Bits::Four.tile() } else { Bits::Eight.tile() };
        let low = _mm512_set1_epi8(15);
        let mut sums = [_mm512_setzero_ps(); M];
        for (b, tile) in dots.tiles.chunks_exact(size).enumerate() {
            let (scales, codes) = tile.split_at(SCALES);
            let Some(scales) = scales.as_array::<SCALES>() else { return };
            let scales = _mm512_cvtph_ps(load32(scales));
            let codes = codes.as_chunks::<64>().0;
            let x = dots.codes.map(|codes| &codes[b]);
            // Two sums in turn, so that one instruction need not wait for the one before.
            let mut even = dots.offsets.map(|offsets| _mm512_set1_epi32(offsets[b]));
            let mut odd = [_mm512_setzero_si512(); M];
            for pair in 0..GROUPS / 2 {
                let (w, v) = if FOUR {
                    let both = load64(&codes[pair]);
                    (_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16::<4>(both), low))
                } else {
                    (load64(&codes[2 * pair]), load64(&codes[2 * pair + 1]))
                };
                for m in 0..M {
                    even[m] = _mm512_dpbusd_epi32(even[m], w, _mm512_set1_epi32(word(x[m][2 * pair])));
                    odd[m] = _mm512_dpbusd_epi32(odd[m], v, _mm512_set1_epi32(word(x[m][2 * pair + 1])));
                }
            }
            for m in 0..M {
                let dot = _mm512_cvtepi32_ps(_mm512_add_epi32(even[m], odd[m]));
                let scale = _mm512_mul_ps(scales, _mm512_set1_ps(dots.scales[m][b]));
                sums[m] = _mm512_fmadd_ps(dot, scale, sums[m]);
            }
        }
        for (to, sum) in dots.sums.iter_mut().zip(sums) {
            // SAFETY: 16 numbers are there to write.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), sum) };
        }
    }

    /// The products with AVX2, eight rows of a tile at a time.
    #[target_feature(enable = "avx2,f16c,fma")]
    pub fn avx2<const FOUR: bool, const M: usize>(dots: &mut Dots<'_, FOUR, M>) {
        let size = if FOUR { Bits::Four.tile() } else { Bits::Eight.tile() };
        let (low, top, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi8(i8::MIN), _mm256_set1_epi16(1));
        let mut sums = [[_mm256_setzero_ps(); M]; 2];
        for (b, tile) in dots.tiles.chunks_exact(size).enumerate() {
            let (scales, codes) = tile.split_at(SCALES);
            let codes = codes.as_chunks::<32>().0;
            let x = dots.codes.map(|codes| &codes[b]);
            for (half, (scales, sums)) in scales.as_chunks::<ROWS>().0.iter().zip(&mut sums).enumerate() {
                let scales = _mm256_cvtph_ps(load16(scales));
                // 8-bit codes are taken with their sign, as two of them times 127 would not fit in 16 bits without.
                let mut all = dots.offsets.map(|offsets| _mm256_set1_epi32(if FOUR { offsets[b] } else { 0 }));
                for group in 0..GROUPS {
                    let w = if FOUR {
                        let both = load32(&codes[2 * (group / 2) + half]);
                        let both = if group % 2 == 0 { both } else { _mm256_srli_epi16::<4>(both) };
                        _mm256_and_si256(both, low)
                    } else {
                        _mm256_xor_si256(load32(&codes[2 * group + half]), top)
                    };
                    let size = if FOUR { w } else { _mm256_abs_epi8(w) };
                    for (x, all) in x.iter().zip(&mut all) {
                        let x = _mm256_set1_epi32(word(x[group]));
                        let x = if FOUR { x } else { _mm256_sign_epi8(x, w) };
                        *all = _mm256_add_epi32(*all, _mm256_madd_epi16(_mm256_maddubs_epi16(size, x), ones));
                    }
                }
                for m in 0..M {
                    let scale = _mm256_mul_ps(scales, _mm256_set1_ps(dots.scales[m][b]));
                    sums[m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(all[m]), scale, sums[m]);
                }
            }
        }
        for (m, to) in dots.sums.iter_mut().enumerate() {
            for (to, sums) in to.as_chunks_mut::<8>().0.iter_mut().zip(&sums) {
                store(to, sums[m]);
            }
        }
    }
}
