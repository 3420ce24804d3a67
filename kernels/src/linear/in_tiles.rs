//! Many rows of x times weights in bf16, 8 or 4 bits, where the machine multiplies tiles ([`crate::amx`]). Whatever the weights are stored
//! in becomes tiles of bf16 here, and so does x; sums are f32.
//!
//! The bits of `y[i, j]` depend on row i of x, row j of the weights and k alone, along which 32 products are added at a time. Neither the
//! other rows nor the number of threads takes part.

use std::arch::x86_64::{
    _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_fmsub_ps, _mm512_mul_ps, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_srli_epi16, _mm512_srli_epi32,
};
use std::cell::RefCell;

use half::bf16;
use rayon::prelude::*;
use tensor::{DType, Tensor};

use super::output::Output;
use super::pack::transpose;
use super::quantized::{Bits, SCALES};
use crate::amx::{self, LANES, PAIR, Registers, STEP, Tile, round, side_by_side, tiles_in};
use crate::simd::wide::{load32, load64, store_512};

/// At most so many rows of x at once, and so many columns of y in a task, if their weights fit in half a second-level cache.
const SHARED_ROWS: usize = 512;
const TASK_COLS: usize = 128;
const TASK_BYTES: usize = 1 << 20;

/// Weights `[n, k]`.
#[derive(Clone, Copy)]
pub(super) enum Weights<'a> {
    /// With an even k.
    Bf16(&'a [bf16]),
    Quantized(&'a [u8], Bits),
}

impl<'a> Weights<'a> {
    /// Those of a tensor `[n, k]`, if it has a form that becomes tiles.
    pub fn of(w: &'a Tensor) -> Option<Self> {
        match w.dtype() {
            DType::BF16 => w.values().ok().filter(|_| w.shape()[1].is_multiple_of(2)).map(Self::Bf16),
            dtype => Some(Self::Quantized(w.bytes().ok()?, Bits::of("linear", dtype).ok()?)),
        }
    }

    /// 16 rows from `first` on. What is beyond the last row is anything, beyond k zero.
    fn tiles(self, first: usize, [n, k]: [usize; 2], to: &mut [Tile]) {
        match self {
            Self::Bf16(w) => {
                let rows = std::array::from_fn(|i| w[(first + i).min(n - 1) * k..][..k].as_chunks::<2>().0);
                let (to, beyond) = to.as_flattened_mut().split_at_mut(k / 2);
                transpose::<true, _, LANES>(rows, to);
                beyond.fill([0.0; LANES]);
            }
            Self::Quantized(codes, bits) => {
                let size = bits.tile();
                let codes = &codes[first / LANES * to.len() * size..];
                for (to, tile) in to.iter_mut().zip(codes.chunks_exact(size)) {
                    // SAFETY: its instructions are here, as the tiles are.
                    unsafe { dequantize(tile, bits, to) };
                }
            }
        }
    }
}

thread_local! {
    /// Tiles of x of the thread that multiplies; weights and sums of those that help it. Kept so that the next product need not ask
    /// for memory.
    static SPARE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static TASK: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// `output[t, n] = x[t, k] · wᵀ`, then `finish(row, column, part)` on each part of a row of it. Only where [`crate::amx::is_here`]; k is not 0.
pub(super) fn multiply(
    x: &[f32],
    w: Weights<'_>,
    [n, k]: [usize; 2],
    output: &Output<'_>,
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    assert!(amx::is_here(), "tiles are for machines that have them");
    let steps = k.div_ceil(STEP);
    let widest = (TASK_BYTES / (2 * steps * STEP)).clamp(PAIR, TASK_COLS) / PAIR * PAIR;
    // Several tasks to a thread, as not all threads are alike.
    let cols = n.div_ceil(4 * rayon::current_num_threads()).next_multiple_of(PAIR).min(widest);
    let mut memory = SPARE.take();
    for (chunk, x) in x.chunks(SHARED_ROWS * k).enumerate() {
        let rows = x.len() / k;
        let tiles = tiles_in(&mut memory, rows.div_ceil(PAIR) * 2 * steps);
        tiles.par_chunks_mut(steps).zip(x.par_chunks(LANES * k)).for_each(|(to, x)| {
            for (i, x) in x.chunks_exact(k).enumerate() {
                // SAFETY: its instructions are here, as the tiles are.
                unsafe { round(x, i, to) };
            }
        });
        let tiles = &*tiles;
        (0..n.div_ceil(cols)).into_par_iter().with_max_len(1).for_each(|task| {
            let cols = task * cols..n.min((task + 1) * cols);
            TASK.with_borrow_mut(|[weights, sums]| {
                let wide = cols.len().div_ceil(PAIR) * 2;
                let weights = tiles_in(weights, wide * steps);
                for (i, to) in weights.chunks_exact_mut(steps).enumerate() {
                    w.tiles((cols.start + i * LANES).min(n - 1), [n, k], to);
                }
                let sums = tiles_in(sums, wide * (tiles.len() / steps));
                Registers::open().multiply(tiles, weights, steps, sums);
                for row in 0..rows {
                    // SAFETY: a task alone writes to its columns.
                    let part = unsafe { output.part(chunk * SHARED_ROWS + row, cols.clone()) };
                    let from = sums[row / LANES * wide..].iter().map(|tile| &tile[row % LANES]);
                    part.chunks_mut(LANES).zip(from).for_each(|(to, from)| to.copy_from_slice(&from[..to.len()]));
                    finish(chunk * SHARED_ROWS + row, cols.start, part);
                }
            });
        });
    }
    SPARE.set(memory);
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
