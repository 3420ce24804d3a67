//! Copies a block of a matrix to where the innermost loop of the multiplication reads it in order.

#![allow(clippy::inline_always)] // a requirement of `simd::Work`

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m512, _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_slli_epi32, _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_slli_epi32,
};
use std::cell::RefCell;
use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::gemm::{Matrix, Values, Way};
use crate::simd::{self, Work};

/// Panels copied together: where a source row runs across the panels, whole cache lines of it are used at once.
const GROUP: usize = 16;
/// In f32.
const CACHE_LINE: usize = 16;

thread_local! {
    /// The blocks of the last multiplication, kept so that the next one need not ask for memory.
    static SPARE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// A block as panels of `W` lanes (rows of the left factor, columns of the right one), each stored by depth, `W`
/// numbers at each; lanes beyond the matrix are zero.
pub(super) struct Packed<const W: usize> {
    memory: Vec<f32>,
    /// Where the panels are in `memory`.
    here: Range<usize>,
    first_lane: usize,
    depth: usize,
}

impl<const W: usize> Packed<W> {
    /// The panels from the one that begins with `lane` of the matrix: `W` numbers at each depth.
    pub fn panels(&self, lane: usize) -> &[[f32; W]] {
        let first = (lane - self.first_lane) / W * self.depth;
        &self.memory[self.here.clone()].as_chunks::<W>().0[first..]
    }
}

impl<const W: usize> Drop for Packed<W> {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < 2 {
                spare.push(memory);
            }
        });
    }
}

/// Room for `size` numbers from a cache line on, so that no load touches two; what is there stays.
pub(crate) fn aligned(memory: &mut Vec<f32>, size: usize) -> Range<usize> {
    if memory.len() < size + CACHE_LINE {
        memory.resize(size + CACHE_LINE, 0.0);
    }
    let start = memory.as_ptr().align_offset(CACHE_LINE * size_of::<f32>()).min(CACHE_LINE);
    start..start + size
}

/// Packs the rows `lanes` and the columns `depth` of `source`, where each is two neighbours if pairs are multiplied; on this thread if
/// `alone`.
pub(super) fn pack<const W: usize>(
    source: Matrix<'_>,
    lanes: Range<usize>,
    depth: Range<usize>,
    way: Way,
    alone: bool,
) -> Packed<W> {
    let size = lanes.len().div_ceil(W) * W * depth.len();
    let mut memory = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    let here = aligned(&mut memory, size);
    // What is left from before is overwritten in full.
    let values = &mut memory[here.clone()];
    let group = GROUP * W;
    let copy = |(i, to): (usize, &mut [f32])| {
        let first = lanes.start + i * group;
        let lanes = first..lanes.end.min(first + group);
        let to = to.as_chunks_mut::<W>().0;
        let depth = depth.clone();
        match (source.values, way == Way::Pairs) {
            (Values::F32(from), false) => simd::run(Copy { from, source, lanes, depth, to }),
            (Values::Bf16(from), false) => simd::run(Copy { from, source, lanes, depth, to }),
            (Values::F32(from), true) => simd::run(InPairs(Copy { from, source, lanes, depth, to })),
            (Values::Bf16(from), true) => simd::run(InPairs(Copy { from, source, lanes, depth, to })),
        }
    };
    if alone {
        values.chunks_mut(group * depth.len()).enumerate().for_each(copy);
    } else {
        values.par_chunks_mut(group * depth.len()).enumerate().for_each(copy);
    }
    Packed { memory, here, first_lane: lanes.start, depth: depth.len() }
}

/// A number format of a weight, as f32.
pub(crate) trait Widen: std::marker::Copy {
    const ZERO: Self;

    fn widen(self) -> f32;

    /// # Safety
    /// AVX2 is here.
    #[cfg(target_arch = "x86_64")]
    unsafe fn widen_8(from: &[Self; 8]) -> __m256;

    /// # Safety
    /// AVX-512F is here.
    #[cfg(target_arch = "x86_64")]
    unsafe fn widen_16(from: &[Self; 16]) -> __m512;
}

impl Widen for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn widen_8(from: &[Self; 8]) -> __m256 {
        simd::wide::load(from)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn widen_16(from: &[Self; 16]) -> __m512 {
        simd::wide::load_512(from)
    }
}

impl Widen for bf16 {
    const ZERO: Self = Self::ZERO;

    // Not `to_f32`, which asks about NaN first and so keeps the loop from using wide instructions.
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn widen_8(from: &[Self; 8]) -> __m256 {
        // SAFETY: 8 numbers of 16 bits are there to read; the instruction asks for no alignment.
        let bits = unsafe { _mm_loadu_si128(from.as_ptr().cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn widen_16(from: &[Self; 16]) -> __m512 {
        // SAFETY: 16 numbers of 16 bits are there to read; the instruction asks for no alignment.
        let bits = unsafe { _mm256_loadu_si256(from.as_ptr().cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
    }
}

/// What fills a lane of a panel: a number in f32, or the bits of two in bf16, the first in the lower half.
pub(crate) trait Lane: std::marker::Copy {
    fn lane(self) -> f32;

    /// # Safety
    /// AVX2 is here.
    #[cfg(target_arch = "x86_64")]
    unsafe fn lanes_8(from: &[Self; 8]) -> __m256;
}

impl<T: Widen> Lane for T {
    #[inline(always)]
    fn lane(self) -> f32 {
        self.widen()
    }

    // SAFETY: the caller's to see to, as the trait says: AVX2 is here.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn lanes_8(from: &[Self; 8]) -> __m256 {
        // SAFETY: AVX2 is here.
        unsafe { T::widen_8(from) }
    }
}

impl Lane for [bf16; 2] {
    #[inline(always)]
    fn lane(self) -> f32 {
        let [low, high] = self.map(|x| u32::from(x.to_bits()));
        f32::from_bits(low | high << 16)
    }

    // SAFETY: the caller's to see to, as the trait says: AVX2 is here.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn lanes_8(from: &[Self; 8]) -> __m256 {
        // SAFETY: 32 bytes are there to read; the instruction asks for no alignment.
        unsafe { _mm256_loadu_ps(from.as_ptr().cast()) }
    }
}

/// Rounded to the nearest, to even between two.
impl Lane for [f32; 2] {
    #[inline(always)]
    fn lane(self) -> f32 {
        self.map(simd::to_bf16).lane()
    }

    // SAFETY: the caller's to see to, as the trait says: AVX2 is here.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn lanes_8(from: &[Self; 8]) -> __m256 {
        wide::round_to_pairs(from)
    }
}

/// Some panels to fill.
struct Copy<'a, T, const W: usize> {
    from: &'a [T],
    source: Matrix<'a>,
    lanes: Range<usize>,
    depth: Range<usize>,
    to: &'a mut [[f32; W]],
}

impl<T: Widen, const W: usize> Work for Copy<'_, T, W> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        let Self { from, source, lanes, depth, to } = self;
        let at = |lane: usize, depth: usize| lane * source.row_stride + depth * source.col_stride;
        let whole = lanes.len() / W;
        if source.row_stride == 1 {
            for (i, d) in depth.clone().enumerate() {
                let row = &from[at(lanes.start, d)..at(lanes.start + whole * W, d)];
                for (panel, row) in row.as_chunks::<W>().0.iter().enumerate() {
                    to[panel * depth.len() + i] = row.map(T::lane);
                }
            }
        } else if source.col_stride == 1 {
            for (panel, to) in to.chunks_exact_mut(depth.len()).take(whole).enumerate() {
                let first = lanes.start + panel * W;
                let rows: [&[T]; W] =
                    std::array::from_fn(|i| &from[at(first + i, depth.start)..at(first + i, depth.end)]);
                transpose::<FMA, T, W>(rows, to);
            }
        } else {
            for (panel, to) in to.chunks_exact_mut(depth.len()).take(whole).enumerate() {
                for (d, to) in depth.clone().zip(to) {
                    *to = std::array::from_fn(|i| from[at(lanes.start + panel * W + i, d)].lane());
                }
            }
        }
        // The last lanes, where they fill no panel.
        for (d, to) in depth.clone().zip(&mut to[whole * depth.len()..]) {
            *to = std::array::from_fn(|i| {
                let lane = lanes.start + whole * W + i;
                if lane < lanes.end { from[at(lane, d)].lane() } else { 0.0 }
            });
        }
    }
}

/// The same with pairs along the depth, the last perhaps a number and zero.
struct InPairs<'a, T, const W: usize>(Copy<'a, T, W>);

impl<T: Widen, const W: usize> Work for InPairs<'_, T, W>
where
    [T; 2]: Lane,
{
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        let Copy { from, source, lanes, depth, to } = self.0;
        let at = |lane: usize, depth: usize| lane * source.row_stride + depth * source.col_stride;
        let whole = lanes.len() / W;
        let mut filled = whole;
        if source.row_stride == 1 {
            let zeros = vec![T::ZERO; source.cols % 2 * whole * W];
            for (i, d) in depth.clone().enumerate() {
                let row = |d| if d < source.cols { &from[at(lanes.start, d)..][..whole * W] } else { &zeros };
                let rows = row(2 * d).as_chunks::<W>().0.iter().zip(row(2 * d + 1).as_chunks::<W>().0);
                for (panel, (&first, &second)) in rows.enumerate() {
                    to[panel * depth.len() + i] = std::array::from_fn(|i| [first[i], second[i]].lane());
                }
            }
        } else if source.col_stride == 1 {
            let numbers = 2 * depth.start..source.cols.min(2 * depth.end);
            for (panel, to) in to.chunks_exact_mut(depth.len()).take(whole).enumerate() {
                let first = lanes.start + panel * W;
                let rows: [_; W] = std::array::from_fn(|i| from[at(first + i, 0)..][numbers.clone()].as_chunks::<2>());
                let (pairs, last) = to.split_at_mut(numbers.len() / 2);
                transpose::<FMA, [T; 2], W>(rows.map(|(pairs, _)| pairs), pairs);
                last.fill(rows.map(|(_, odd)| odd.first().map_or(0.0, |&x| [x, T::ZERO].lane())));
            }
        } else {
            filled = 0;
        }
        // What no whole panel was filled with.
        for (at_panel, to) in to.chunks_mut(depth.len()).enumerate().skip(filled) {
            for (d, to) in depth.clone().zip(to) {
                *to = std::array::from_fn(|i| {
                    let lane = lanes.start + at_panel * W + i;
                    let number = |d| if lane < lanes.end && d < source.cols { from[at(lane, d)] } else { T::ZERO };
                    [number(2 * d), number(2 * d + 1)].lane()
                });
            }
        }
    }
}

/// `to[d][i] = rows[i][d]`
#[inline(always)]
pub(crate) fn transpose<const FMA: bool, T: Lane, const W: usize>(rows: [&[T]; W], to: &mut [[f32; W]]) {
    #[cfg(target_arch = "x86_64")]
    let done = if FMA {
        // SAFETY: on this architecture `FMA` means that AVX2 is here.
        unsafe { wide::transpose(rows, to) }
    } else {
        0
    };
    #[cfg(not(target_arch = "x86_64"))]
    let done = 0;
    for (d, to) in to.iter_mut().enumerate().skip(done) {
        *to = std::array::from_fn(|i| rows[i][d].lane());
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m256, __m256i, _CMP_UNORD_Q, _mm256_add_epi32, _mm256_and_si256, _mm256_blend_epi16, _mm256_blendv_ps,
        _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_permute2f128_ps, _mm256_permute4x64_epi64,
        _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_srli_epi32, _mm256_unpackhi_ps,
        _mm256_unpacklo_ps,
    };

    use super::Lane;
    use crate::simd::wide::{load, store};

    /// As [`super::transpose`], for the whole blocks of 8 depths alone; returns how many depths are done.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn transpose<T: Lane, const W: usize>(rows: [&[T]; W], to: &mut [[f32; W]]) -> usize {
        // The last store of a block may reach two numbers into the next depth, which is written later.
        let blocks = if W.is_multiple_of(8) { to.len() / 8 } else { to.len().saturating_sub(1) / 8 };
        let to = to.as_flattened_mut();
        for block in 0..blocks {
            for first in (0..W).step_by(8) {
                let mut lanes = [_mm256_setzero_ps(); 8];
                for (lane, row) in lanes.iter_mut().zip(&rows[first..]) {
                    if let Some(row) = row[block * 8..].first_chunk::<8>() {
                        // SAFETY: AVX2 is here.
                        *lane = unsafe { T::lanes_8(row) };
                    }
                }
                for (d, column) in transpose_8(lanes).into_iter().enumerate() {
                    if let Some(to) = to[(block * 8 + d) * W + first..].first_chunk_mut::<8>() {
                        store(to, column);
                    }
                }
            }
        }
        blocks * 8
    }

    /// Pairs in f32 as pairs in bf16.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub fn round_to_pairs(from: &[[f32; 2]; 8]) -> __m256 {
        let (eights, _) = from.as_flattened().as_chunks::<8>();
        let (front, back) = (load(&eights[0]), load(&eights[1]));
        // The first numbers of all pairs and the second ones: of front and back by turns, two and two.
        let [first, second] =
            [round(_mm256_shuffle_ps::<0x88>(front, back)), round(_mm256_shuffle_ps::<0xDD>(front, back))];
        let both = _mm256_blend_epi16::<0xAA>(_mm256_srli_epi32::<16>(first), second);
        _mm256_castsi256_ps(_mm256_permute4x64_epi64::<0xD8>(both))
    }

    /// The nearest numbers that bf16 has, in the upper halves; the lower ones hold anything.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn round(x: __m256) -> __m256i {
        let none = _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x);
        let bits = _mm256_castps_si256(x);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
        _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_set1_ps(f32::NAN), none))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn transpose_8(r: [__m256; 8]) -> [__m256; 8] {
        let mut pairs = [_mm256_setzero_ps(); 8];
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let mut fours = [_mm256_setzero_ps(); 8];
        for i in 0..2 {
            let p = &pairs[4 * i..];
            fours[4 * i] = _mm256_shuffle_ps::<0x44>(p[0], p[2]);
            fours[4 * i + 1] = _mm256_shuffle_ps::<0xEE>(p[0], p[2]);
            fours[4 * i + 2] = _mm256_shuffle_ps::<0x44>(p[1], p[3]);
            fours[4 * i + 3] = _mm256_shuffle_ps::<0xEE>(p[1], p[3]);
        }
        let mut eights = [_mm256_setzero_ps(); 8];
        for i in 0..4 {
            eights[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
            eights[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
        }
        eights
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use half::bf16;

    use super::{Lane, wide};
    use crate::simd;

    #[test]
    fn pairs_are_rounded_alike_one_by_one_and_by_eight() {
        if !simd::has_avx2() {
            println!("skipped: no AVX2 here");
            return;
        }
        // A prime step through all numbers: signs, infinities and what is no number among them.
        let all: Vec<f32> = (0..=u32::MAX).step_by(4099).map(f32::from_bits).collect();
        for from in all.as_chunks::<16>().0 {
            let pairs = from.as_chunks::<2>().0.as_array::<8>().unwrap();
            let mut got = [0.0; 8];
            // SAFETY: AVX2 was found on this machine.
            let eight = unsafe { wide::round_to_pairs(pairs) };
            // SAFETY: as above.
            unsafe { simd::wide::store(&mut got, eight) };
            for (got, pair) in got.iter().zip(pairs) {
                let halves = [got.to_bits() as u16, (got.to_bits() >> 16) as u16].map(bf16::from_bits);
                for ((half, x), same) in halves.iter().zip(pair).zip(pair.map(bf16::from_f32)) {
                    assert!(half == &same || (half.is_nan() && x.is_nan()), "{x:e}: {half} and {same}");
                }
                assert!(pair.iter().any(|x| x.is_nan()) || got.to_bits() == pair.lane().to_bits());
            }
        }
    }
}
