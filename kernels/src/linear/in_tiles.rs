//! Products of many rows in bf16 where the machine multiplies tiles ([`crate::amx`]). Whatever the factors are stored in, f32, bf16 or, of
//! weights, 8 or 4 bits, becomes tiles of bf16 here; sums are f32.
//!
//! The bits of `c[i, j]` depend on row i of `a`, column j of `b` and k alone, along which 32 products are added at a time within a piece of
//! 16,384; pieces are added to c in order. Neither the other rows nor the number of threads takes part.

#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use std::arch::x86_64::{
    __m512, _mm256_loadu_si256, _mm512_and_si512, _mm512_castsi256_si512, _mm512_castsi512_ps, _mm512_cvtepi32_ps,
    _mm512_cvtph_ps, _mm512_fmsub_ps, _mm512_inserti64x4, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_srli_epi16, _mm512_srli_epi32,
};
use std::cell::RefCell;
use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::gemm::{Matrix, Start, Values};
use super::output::Output;
use super::pack::{Widen, transpose};
use super::quantized::{Bits, SCALES};
use crate::amx::{self, LANES, PAIR, Registers, STEP, Tile, by_turns, in_bf16, side_by_side, tiles_in};
use crate::simd::wide::{ask, load_512, load32, load64, store_512};

/// At most so many rows of the result at once, so many numbers along k, and so many columns of the result in a task, if their part of the
/// right factor fits in half a second-level cache.
const SHARED_ROWS: usize = 512;
const SHARED_DEPTH: usize = 1 << 14;
const TASK_COLS: usize = 128;
const TASK_BYTES: usize = 1 << 20;

/// The right factor `[k, n]`.
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    Matrix(Matrix<'a>),
    /// The transpose of quantised weights, and k and n.
    Weights(&'a [u8], Bits, [usize; 2]),
}

impl Right<'_> {
    fn sizes(self) -> [usize; 2] {
        match self {
            Self::Matrix(b) => [b.rows, b.cols],
            Self::Weights(_, _, sizes) => sizes,
        }
    }

    /// Columns, of which the first is the first of a tile, as panels of tiles along a piece of k, which begins with one. What is beyond the last
    /// column is anything, beyond k zero.
    fn tiles(self, columns: Range<usize>, depth: Range<usize>, to: &mut [Tile]) {
        match self {
            // SAFETY: its instructions are here, as the tiles are.
            Self::Matrix(b) => unsafe { pack(b.t(), columns, depth, Side::Right, to) },
            Self::Weights(codes, bits, [k, _]) => {
                let [all, first, steps] = [k, depth.start, depth.len()].map(|numbers| numbers.div_ceil(STEP));
                for (panel, to) in to.chunks_exact_mut(steps).enumerate() {
                    let from = (columns.start / LANES + panel) * all + first;
                    let codes = codes.get(from * bits.tile()..).unwrap_or(&[]);
                    for (to, tile) in to.iter_mut().zip(codes.chunks_exact(bits.tile())) {
                        // SAFETY: as above.
                        unsafe { dequantize(tile, bits, to) };
                    }
                }
            }
        }
    }
}

thread_local! {
    /// Tiles of the left factor, of the thread that multiplies; of the right one and sums, of those that help it. Kept so that the next
    /// product need not ask for memory.
    static SPARE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static TASK: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// `output = a · b` or `output += a · b`, then `finish(row, column, part)` on each part of a row of it. Only where
/// [`crate::amx::is_here`]; k is not 0, and one of a matrix's strides is 1.
pub(super) fn multiply(
    a: Matrix<'_>,
    b: Right<'_>,
    output: &Output<'_>,
    start: Start,
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    assert!(amx::is_here(), "tiles are for machines that have them");
    let [k, n] = b.sizes();
    let widest = (TASK_BYTES / (2 * k.min(SHARED_DEPTH))).clamp(PAIR, TASK_COLS) / PAIR * PAIR;
    // Several tasks to a thread, as not all threads are alike.
    let cols = n.div_ceil(4 * rayon::current_num_threads()).next_multiple_of(PAIR).min(widest);
    let mut memory = SPARE.take();
    for (first, from) in
        (0..a.rows).step_by(SHARED_ROWS).flat_map(|row| (0..k).step_by(SHARED_DEPTH).map(move |k| (row, k)))
    {
        let (rows, depth) = (first..a.rows.min(first + SHARED_ROWS), from..k.min(from + SHARED_DEPTH));
        let start = if from == 0 { start } else { Start::Add };
        let steps = depth.len().div_ceil(STEP);
        let tiles = tiles_in(&mut memory, rows.len().div_ceil(PAIR) * 2 * steps);
        tiles.par_chunks_mut(GROUP * steps).enumerate().for_each(|(group, to)| {
            let first = rows.start + group * GROUP * LANES;
            // SAFETY: its instructions are here, as the tiles are.
            unsafe { pack(a, first..rows.end.min(first + GROUP * LANES), depth.clone(), Side::Left, to) };
        });
        let tiles = &*tiles;
        (0..n.div_ceil(cols)).into_par_iter().with_max_len(1).for_each(|task| {
            let cols = task * cols..n.min((task + 1) * cols);
            TASK.with_borrow_mut(|[right, sums]| {
                let wide = cols.len().div_ceil(PAIR) * 2;
                let right = tiles_in(right, wide * steps);
                b.tiles(cols.clone(), depth.clone(), right);
                let sums = tiles_in(sums, wide * (tiles.len() / steps));
                Registers::open().multiply(tiles, right, steps, sums);
                for (i, row) in rows.clone().enumerate() {
                    // SAFETY: a task alone writes to its columns.
                    let part = unsafe { output.part(row, cols.clone()) };
                    let from = sums[i / LANES * wide..].iter().map(|tile| &tile[i % LANES]);
                    for (to, from) in part.chunks_mut(LANES).zip(from) {
                        match start {
                            Start::Zero => to.copy_from_slice(&from[..to.len()]),
                            Start::Add => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
                        }
                    }
                    if depth.end == k {
                        finish(row, cols.start, part);
                    }
                }
            });
        });
    }
    SPARE.set(memory);
}

/// Tiles along k between one that is packed and one that is asked for.
const AHEAD: usize = 4;
/// Panels of the left factor that are packed together: of numbers that lie across them, whole cache lines are used at once.
const GROUP: usize = 8;

/// Which factor tiles are of: a row of one has pairs along k, or a pair of each lane.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// A piece along k of rows of a matrix whose columns run along k, 16 to a panel of tiles; of a row that is beyond `lanes` any numbers, beyond
/// the piece zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma")]
fn pack(m: Matrix<'_>, lanes: Range<usize>, depth: Range<usize>, side: Side, to: &mut [Tile]) {
    match m.values {
        Values::F32(from) => pack_from(from, m, lanes, depth, side, to),
        Values::Bf16(from) => pack_from(from, m, lanes, depth, side, to),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16,avx2,fma")]
fn pack_from<T: Pairs>(
    from: &[T],
    m: Matrix<'_>,
    lanes: Range<usize>,
    depth: Range<usize>,
    side: Side,
    to: &mut [Tile],
) {
    let along = m.col_stride == 1;
    assert!(along || m.row_stride == 1, "numbers that lie side by side");
    let mut tile = [[0.0; LANES]; LANES];
    let (panels, steps) = (lanes.len().div_ceil(LANES), depth.len().div_ceil(STEP));
    for i in 0..steps * panels {
        // In the order in which the numbers lie.
        let (panel, step) = if along { (i / steps, i % steps) } else { (i % panels, i / panels) };
        let (first, start) = (lanes.start + panel * LANES, depth.start + step * STEP);
        let depth = start..depth.end.min(start + STEP);
        let to = &mut to[panel * steps + step];
        let count = LANES.min(lanes.end - first);
        // As a tile of the side that the numbers lie in order for, and as the other one turned over.
        let straight = along == (side == Side::Left);
        let into = if straight { &mut *to } else { &mut tile };
        if along {
            for (i, into) in into.iter_mut().enumerate().take(count) {
                let row = &from[(first + i) * m.row_stride..][depth.clone()];
                ask_behind(row, AHEAD * STEP);
                // SAFETY: its instructions are here.
                store_512(into, unsafe { T::neighbours(&filled(row)) });
            }
        } else {
            for (i, into) in into.iter_mut().enumerate() {
                let row = |d| if d < depth.end { &from[first + d * m.col_stride..][..count] } else { &[] };
                let rows = [row(depth.start + 2 * i), row(depth.start + 2 * i + 1)];
                rows.iter().for_each(|row| ask_behind(row, STEP * m.col_stride));
                // SAFETY: as above.
                store_512(into, unsafe { T::above_each_other([&filled(rows[0]), &filled(rows[1])]) });
            }
        }
        if !straight {
            transpose::<true, _, LANES>(std::array::from_fn(|i| tile[i].as_slice()), to);
        }
    }
}

/// Asks for what lies so many numbers behind the first of a row, as much as the row, to read it later.
#[inline(always)]
fn ask_behind<T>(row: &[T], numbers: usize) {
    ask::<{ std::arch::x86_64::_MM_HINT_T0 }>(row.as_ptr().wrapping_add(numbers).cast(), size_of_val(row));
}

/// All of a row, or what there is of it and zeros.
#[inline(always)]
fn filled<T: Pairs, const N: usize>(row: &[T]) -> [T; N] {
    row.as_array().copied().unwrap_or_else(|| {
        let mut all = [T::ZERO; N];
        all[..row.len()].copy_from_slice(row);
        all
    })
}

/// Numbers that become pairs in bf16, rounded to the nearest.
trait Pairs: Widen {
    /// # Safety
    /// AVX-512 F, BW and BF16 are here.
    unsafe fn neighbours(row: &[Self; STEP]) -> __m512;

    /// # Safety
    /// As above.
    unsafe fn above_each_other(rows: [&[Self; LANES]; 2]) -> __m512;
}

impl Pairs for f32 {
    // SAFETY: the caller's to see to, as the trait says: the instructions are here.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[inline]
    unsafe fn neighbours(row: &[Self; STEP]) -> __m512 {
        let halves = row.as_chunks::<LANES>().0;
        in_bf16([load_512(&halves[0]), load_512(&halves[1])])
    }

    // SAFETY: as above.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[inline]
    unsafe fn above_each_other(rows: [&[Self; LANES]; 2]) -> __m512 {
        by_turns(in_bf16([load_512(rows[0]), load_512(rows[1])]))
    }
}

impl Pairs for bf16 {
    // SAFETY: the caller's to see to, as the trait says: the instructions are here.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[inline]
    unsafe fn neighbours(row: &[Self; STEP]) -> __m512 {
        // SAFETY: 64 bytes are there to read; the instruction asks for no alignment.
        unsafe { _mm512_loadu_ps(row.as_ptr().cast()) }
    }

    // SAFETY: as above.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[inline]
    unsafe fn above_each_other(rows: [&[Self; LANES]; 2]) -> __m512 {
        // SAFETY: 32 bytes of each are there to read; the instruction asks for no alignment.
        let [first, second] = unsafe { rows.map(|row| _mm256_loadu_si256(row.as_ptr().cast())) };
        by_turns(_mm512_castsi512_ps(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second)))
    }
}

/// 16 rows of 32 weights, rounded to the nearest.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16,f16c,avx2")]
fn dequantize(tile: &[u8], bits: Bits, to: &mut Tile) {
    let (scales, codes) = tile.split_at(SCALES);
    let Some(scales) = scales.as_array::<SCALES>() else { return };
    let scales = _mm512_cvtph_ps(load32(scales));
    let zero = _mm512_mul_ps(scales, _mm512_set1_ps(bits.zero() as f32));
    let codes = codes.as_chunks::<64>().0;
    let low = _mm512_set1_epi8(15);
    for (group, to) in to.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let fours = match bits {
            Bits::Eight => load64(&codes[group]),
            Bits::Four if group % 2 == 0 => _mm512_and_si512(load64(&codes[group / 2]), low),
            Bits::Four => _mm512_and_si512(_mm512_srli_epi16::<4>(load64(&codes[group / 2])), low),
        };
        let byte = _mm512_set1_epi32(255);
        let all = [
            _mm512_and_si512(fours, byte),
            _mm512_and_si512(_mm512_srli_epi32::<8>(fours), byte),
            _mm512_and_si512(_mm512_srli_epi32::<16>(fours), byte),
            _mm512_srli_epi32::<24>(fours),
        ];
        let mut numbers = [_mm512_setzero_ps(); 4];
        for (to, codes) in numbers.iter_mut().zip(all) {
            // Not rounded: a code less its zero has 8 bits at most, and a scale 11.
            *to = _mm512_fmsub_ps(_mm512_cvtepi32_ps(codes), scales, zero);
        }
        for (to, pair) in to.iter_mut().zip(numbers.as_chunks::<2>().0) {
            store_512(to, side_by_side(*pair));
        }
    }
}
