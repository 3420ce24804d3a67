//! Many rows of x times weights in bf16, 8 or 4 bits, where the machine has Intel's AMX: it multiplies 16 rows of 32 numbers in bf16 by
//! 32 rows of 16 at one go. Whatever the weights are stored in becomes tiles of bf16 here; sums are f32.
//!
//! The bits of `y[i, j]` depend on row i of x, row j of the weights and k alone: of 32 products at a time those at even places are summed
//! and those at odd ones, and both are added to y, in order of k. Neither the other rows nor the number of threads takes part.

use std::cell::RefCell;
use std::sync::OnceLock;

use half::bf16;
use rayon::prelude::*;
use tensor::{DType, Tensor};

use super::output::Output;
use super::pack::{aligned, transpose};
use super::quantized::Bits;
use crate::simd;

/// What a tile holds: of x, in each row 16 pairs along k; of the weights, in each row a pair of 16 rows; of y, sums.
type Tile = [[f32; LANES]; LANES];
const LANES: usize = 16;
/// Numbers along k in a tile.
const STEP: usize = 2 * LANES;
/// Steps after which sums return to memory: so many tiles of x and of weights, two by two, fit in the first-level cache.
const STEPS: usize = 8;
/// Two tiles of x by two of weights are multiplied together.
const PAIR: usize = 2 * LANES;
/// At most so many rows of x at once, and so many columns of y in a task, if their weights fit in half a second-level cache.
const SHARED_ROWS: usize = 512;
const TASK_COLS: usize = 128;
const TASK_BYTES: usize = 1 << 20;

/// Whether the machine has tiles, and the system lets this process use them.
pub(super) fn is_here() -> bool {
    static HERE: OnceLock<bool> = OnceLock::new();
    *HERE.get_or_init(|| simd::has_bf16() && is_x86_feature_detected!("avx512bw") && registers::may_be_used())
}

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
                    unsafe { wide::dequantize(tile, bits, to) };
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

/// `output[t, n] = x[t, k] · wᵀ`, then `finish(row, column, part)` on each part of a row of it. Only where [`is_here`].
pub(super) fn multiply(
    x: &[f32],
    w: Weights<'_>,
    [n, k]: [usize; 2],
    output: &Output<'_>,
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    assert!(is_here() && k > 0, "tiles are for machines that have them");
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
                unsafe { wide::round(x, i, to) };
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
                registers::multiply(tiles, weights, steps, sums);
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

/// So many tiles, each on a cache line; they hold what they held.
fn tiles_in(memory: &mut Vec<f32>, count: usize) -> &mut [Tile] {
    let here = aligned(memory, count * LANES * LANES);
    memory[here].as_chunks_mut().0.as_chunks_mut().0
}

/// The tile registers. No compiler uses them yet, so what one instruction leaves there the next one finds.
mod registers {
    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;

    use super::{LANES, STEPS, Tile};

    /// Whether the processor has them and multiplies bf16 there, and the system lets this process use them: Linux wants to be asked.
    pub fn may_be_used() -> bool {
        const BF16: u32 = 1 << 22;
        const TILES: u32 = 1 << 24;
        #[cfg(target_os = "linux")]
        if __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & (BF16 | TILES) == BF16 | TILES {
            const REQUEST: libc::c_int = 0x1023;
            const TILE_DATA: libc::c_ulong = 18;
            // SAFETY: it takes two numbers, and changes nothing but what this process may do.
            return unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) } == 0;
        }
        false
    }

    /// All eight registers with 16 rows of 64 bytes, as long as this is there.
    struct Open;

    impl Open {
        fn new() -> Self {
            #[repr(align(64))]
            struct Shape([u8; 64]);
            let mut shape = Shape([0; 64]);
            shape.0[0] = 1;
            for register in 0..8 {
                shape.0[16 + 2 * register] = 64;
                shape.0[48 + register] = LANES as u8;
            }
            // SAFETY: 64 bytes of a shape that the processor allows; it has the registers, as the caller made sure.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shape, options(nostack, preserves_flags)) };
            Self
        }
    }

    impl Drop for Open {
        fn drop(&mut self) {
            // SAFETY: it empties the registers, which hold nothing of use now.
            unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
        }
    }

    /// `c = a · b` with panels of `steps` tiles along k, an even number of them in a and in b; c has a row of tiles for each panel of a.
    pub fn multiply(a: &[Tile], b: &[Tile], steps: usize, c: &mut [Tile]) {
        let _open = Open::new();
        let wide = b.len() / steps;
        for first in (0..steps).step_by(STEPS) {
            let some = first..steps.min(first + STEPS);
            for (j, b) in b.chunks_exact(2 * steps).enumerate() {
                let b = b.split_at(steps);
                let b = [&b.0[some.clone()], &b.1[some.clone()]];
                for (a, c) in a.chunks_exact(2 * steps).zip(c.chunks_exact_mut(2 * wide)) {
                    let a = a.split_at(steps);
                    let a = [&a.0[some.clone()], &a.1[some.clone()]];
                    let (above, below) = c.split_at_mut(wide);
                    four(a, b, [&mut above[2 * j..], &mut below[2 * j..]], first == 0);
                }
            }
        }
    }

    /// Two panels by two, of one length: `c = a · b` if this is the first part of k, otherwise `c += a · b`; c two rows of two tiles.
    #[inline]
    fn four(a: [&[Tile]; 2], b: [&[Tile]; 2], c: [&mut [Tile]; 2], first: bool) {
        let [above, below] = c;
        let ([c0, c1, ..], [c2, c3, ..]) = (above, below) else { return };
        let row = size_of::<[f32; LANES]>();
        if first {
            // SAFETY: the registers are open.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    options(nostack, nomem, preserves_flags)
                );
            }
        } else {
            // SAFETY: the registers are open, and take 16 rows of 64 bytes each from a tile.
            unsafe {
                asm!(
                    "tileloadd tmm0, [{0} + {4} * 1]", "tileloadd tmm1, [{1} + {4} * 1]",
                    "tileloadd tmm2, [{2} + {4} * 1]", "tileloadd tmm3, [{3} + {4} * 1]",
                    in(reg) &raw const *c0, in(reg) &raw const *c1, in(reg) &raw const *c2, in(reg) &raw const *c3, in(reg) row,
                    options(nostack, readonly, preserves_flags)
                );
            }
        }
        for ((a0, a1), (b0, b1)) in a[0].iter().zip(a[1]).zip(b[0].iter().zip(b[1])) {
            // SAFETY: as above.
            unsafe {
                asm!(
                    "tileloadd tmm4, [{0} + {4} * 1]", "tileloadd tmm6, [{2} + {4} * 1]",
                    "tileloadd tmm7, [{3} + {4} * 1]", "tileloadd tmm5, [{1} + {4} * 1]",
                    "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
                    in(reg) &raw const *a0, in(reg) &raw const *a1, in(reg) &raw const *b0, in(reg) &raw const *b1, in(reg) row,
                    options(nostack, readonly, preserves_flags)
                );
            }
        }
        // SAFETY: the registers are open, and give 16 rows of 64 bytes each to a tile that no one else has.
        unsafe {
            asm!(
                "tilestored [{0} + {4} * 1], tmm0", "tilestored [{1} + {4} * 1], tmm1",
                "tilestored [{2} + {4} * 1], tmm2", "tilestored [{3} + {4} * 1], tmm3",
                in(reg) &raw mut *c0, in(reg) &raw mut *c1, in(reg) &raw mut *c2, in(reg) &raw mut *c3, in(reg) row,
                options(nostack, preserves_flags)
            );
        }
    }
}

mod wide {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm256_loadu_si256, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps,
        _mm512_cvtepi32_ps, _mm512_cvtne2ps_pbh, _mm512_cvtph_ps, _mm512_fmsub_ps, _mm512_loadu_si512, _mm512_mul_ps,
        _mm512_permutexvar_epi16, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_srli_epi16, _mm512_srli_epi32,
    };

    use super::super::quantized::{Bits, SCALES};
    use super::{LANES, STEP, Tile};
    use crate::simd::wide::{load_512, store_512};

    /// A row of x, rounded to the nearest, as row `i` of tiles along k.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn round(x: &[f32], i: usize, to: &mut [Tile]) {
        for (x, to) in x.chunks(STEP).zip(to) {
            let mut all = [0.0; STEP];
            let x = if let Some(x) = x.as_array::<STEP>() {
                x
            } else {
                all[..x.len()].copy_from_slice(x);
                &all
            };
            let (front, back) = x.split_at(LANES);
            if let (Some(front), Some(back)) = (front.as_array(), back.as_array()) {
                store_512(&mut to[i], floats(_mm512_cvtne2ps_pbh(load_512(back), load_512(front))));
            }
        }
    }

    /// 16 rows of 32 weights, rounded to the nearest.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16,f16c,avx2")]
    pub fn dequantize(tile: &[u8], bits: Bits, to: &mut Tile) {
        let (scales, codes) = tile.split_at(SCALES);
        // SAFETY: 32 bytes are there to read; the instruction asks for no alignment.
        let scales = _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(scales.as_ptr().cast()) });
        let zero = _mm512_mul_ps(scales, _mm512_set1_ps(bits.zero() as f32));
        let codes = codes.as_chunks::<64>().0;
        let low = _mm512_set1_epi8(15);
        for (group, to) in to.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let fours = match bits {
                Bits::Eight => load_64(&codes[group]),
                Bits::Four if group % 2 == 0 => _mm512_and_si512(load_64(&codes[group / 2]), low),
                Bits::Four => _mm512_and_si512(_mm512_srli_epi16::<4>(load_64(&codes[group / 2])), low),
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

    /// Two times 16 numbers as pairs.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[inline]
    fn side_by_side([first, second]: [__m512; 2]) -> __m512 {
        /// By turns from the lower half and from the upper one.
        const TURNS: [u16; 32] = {
            let mut turns = [0; 32];
            let mut i = 0;
            while i < 32 {
                turns[i] = i as u16 / 2 + 16 * (i as u16 % 2);
                i += 1;
            }
            turns
        };
        // SAFETY: 64 bytes are there to read; the instruction asks for no alignment.
        let turns = unsafe { _mm512_loadu_si512(TURNS.as_ptr().cast()) };
        let both = _mm512_castps_si512(floats(_mm512_cvtne2ps_pbh(second, first)));
        _mm512_castsi512_ps(_mm512_permutexvar_epi16(turns, both))
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load_64(from: &[u8; 64]) -> __m512i {
        // SAFETY: 64 bytes are there to read; the instruction asks for no alignment.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    /// The same bits.
    #[inline]
    fn floats(pairs: __m512bh) -> __m512 {
        // SAFETY: both are 64 bytes that may be any.
        unsafe { std::mem::transmute(pairs) }
    }
}
