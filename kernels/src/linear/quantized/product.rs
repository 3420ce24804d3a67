//! Rows of x in 8 bits, times tiles: the same whole numbers on every machine, then one product and one sum in f32 for each block, in
//! the order of k. So a dot product's bits depend on its row of x and its row of w alone.

#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use half::f16;
use rayon::prelude::*;

use super::{BLOCK, Bits, Output, ROWS, SCALES};
#[cfg(target_arch = "x86_64")]
use crate::amx::Bytes;
use crate::simd::{self, Work};

/// Groups of four columns in a block.
const GROUPS: usize = BLOCK / 4;
/// Rows of tiles that a task takes.
const TASK: usize = 4;
/// Rows of x that pass a tile together.
const TOGETHER: usize = 8;
/// With tile registers, as many as one of them has, if there are more than a few.
const IN_TILES: usize = 16;
const FEW: usize = 4;
/// Up to so many products, waking other threads costs more than it saves.
const ALONE: usize = 1 << 16;

/// Rows of x in 8 bits for a path, those that pass a tile together side by side: of all of them block 0, then block 1, and so on.
pub(super) struct Rows {
    path: Path,
    /// From -127 to 127.
    codes: Vec<Block>,
    scales: Vec<f32>,
    /// What the weights' zero adds up to, negative.
    offsets: Vec<i32>,
    blocks: usize,
    count: usize,
}

/// The codes of a row in a block, by four. A tile register takes long to read what begins on one cache line and ends on the next.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Block([[i8; 4]; GROUPS]);

impl Rows {
    /// x `[t, k]`. A block with a number that is infinite or none has that for a scale. The path must be one that is here.
    pub fn new(path: Path, x: &[f32], k: usize, bits: Bits) -> Self {
        let path = path.with(bits);
        let (blocks, count) = (k.div_ceil(BLOCK), x.len().checked_div(k).unwrap_or(0));
        let size = blocks * together(path, count).map(|(_, places)| places).sum::<usize>();
        let mut all = Self {
            path,
            codes: vec![Block([[0; 4]; GROUPS]); size],
            scales: vec![0.0; size],
            offsets: vec![0; size],
            blocks,
            count,
        };
        if size == 0 {
            return all;
        }
        let most = IN_TILES * blocks;
        let others = all.scales.par_chunks_mut(most).zip(all.offsets.par_chunks_mut(most));
        let groups = x.par_chunks(IN_TILES * k).zip(all.codes.par_chunks_mut(most)).zip(others);
        groups.with_min_len(2).for_each(|((x, codes), (scales, offsets))| {
            let mut first = 0;
            for (rows, places) in together(path, x.len() / k) {
                let part = first * blocks..(first + places) * blocks;
                for row in 0..rows {
                    simd::run(Quantize {
                        x: &x[(first + row) * k..][..k],
                        codes: &mut codes[part.clone()],
                        scales: &mut scales[part.clone()],
                        offsets: &mut offsets[part.clone()],
                        place: (row, places),
                        zero: bits.zero(),
                    });
                }
                first += rows;
            }
        });
        all
    }
}

/// How many of `rows` rows pass a tile together, in order, and in how many places: 8 as long as there are as many, then 4, 2 and 1. More than
/// a few take 16 places in tiles, or 8, of which the last ones may stay empty.
fn together(path: Path, mut rows: usize) -> impl Iterator<Item = (usize, usize)> {
    std::iter::from_fn(move || {
        let next = if path.is_in_tiles() && rows > FEW {
            rows.min(IN_TILES)
        } else {
            rows.checked_ilog2().map_or(0, |power| TOGETHER.min(1 << power))
        };
        rows -= next;
        (next > 0).then(|| (next, next.next_power_of_two()))
    })
}

/// One row of x, and where it goes: one block of each group of blocks.
struct Quantize<'a> {
    x: &'a [f32],
    codes: &'a mut [Block],
    scales: &'a mut [f32],
    offsets: &'a mut [i32],
    /// Which of how many.
    place: (usize, usize),
    zero: i32,
}

impl Work for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        let (row, rows) = self.place;
        let blocks = self.codes.iter_mut().zip(self.scales).zip(self.offsets).skip(row).step_by(rows);
        for (x, ((codes, scale), offset)) in self.x.chunks(BLOCK).zip(blocks) {
            let mut block = [0.0f32; BLOCK];
            block[..x.len()].copy_from_slice(x);
            let (mut sizes, mut bad) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
            for i in 0..BLOCK {
                sizes[i] = block[i].abs();
                bad[i] = block[i] * 0.0;
            }
            // In halves, which wide registers compare at once. What is no number stays none by `bad`; a comparison may lose it.
            for half in [16, 8, 4, 2, 1] {
                for i in 0..half {
                    sizes[i] = if sizes[i] > sizes[i + half] { sizes[i] } else { sizes[i + half] };
                    bad[i] += bad[i + half];
                }
            }
            let most = sizes[0];
            *scale = most / 127.0 + bad[0];
            // Of the smallest numbers there is no inverse: they are zeros.
            let inverse = Some(127.0 / most).filter(|inverse| inverse.is_finite() && scale.is_finite()).unwrap_or(0.0);
            let mut sum = 0i32;
            for (code, x) in codes.0.as_flattened_mut().iter_mut().zip(block) {
                *code = (x * inverse + simd::ROUND).to_bits() as i8;
                sum += i32::from(*code);
            }
            *offset = -self.zero * sum;
        }
    }
}

/// Which instructions multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// AMX, for codes of 8 bits and rows enough; otherwise as the next one.
    #[cfg(target_arch = "x86_64")]
    Tiles,
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
            (Self::Tiles, has_vnni() && crate::amx::has_bytes()),
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

    fn is_in_tiles(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self == Self::Tiles;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// What it is for such codes: those of 4 bits would have to be stored as bytes first.
    fn with(self, bits: Bits) -> Self {
        let next = || Self::all().find(|path| !path.is_in_tiles()).unwrap_or(Self::Portable);
        if self.is_in_tiles() && bits == Bits::Four { next() } else { self }
    }

    /// The registers that it takes, if any, for so many rows.
    #[cfg(target_arch = "x86_64")]
    fn open(self, rows: usize) -> Option<Bytes> {
        (self == Self::Tiles && rows > FEW).then(Bytes::open)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn open(self, _: usize) -> Option<Bytes> {
        None
    }
}

/// No other machine has tile registers.
#[cfg(not(target_arch = "x86_64"))]
enum Bytes {}

#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
        && simd::has_avx2()
}

/// `output[t, n] = x · wᵀ` with w in tiles, then `finish(row, column, part)` on each part of a row of it.
pub(super) fn multiply(
    x: &Rows,
    tiles: &[u8],
    bits: Bits,
    output: &Output<'_>,
    n: usize,
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let stride = x.blocks * bits.tile();
    let task = |i: usize| {
        let tiles_here = i * TASK..n.div_ceil(ROWS).min((i + 1) * TASK);
        let registers = x.path.open(x.count);
        for tile in tiles_here.clone() {
            let cols = tile * ROWS..n.min((tile + 1) * ROWS);
            let tiles = &tiles[tile * stride..][..stride];
            let mut row = 0;
            for (rows, places) in together(x.path, x.count) {
                let mut sums = [[0.0f32; ROWS]; IN_TILES];
                let sums = &mut sums[..places];
                match bits {
                    Bits::Eight => some::<false>(x, registers.as_ref(), row, tiles, sums),
                    Bits::Four => some::<true>(x, registers.as_ref(), row, tiles, sums),
                }
                for (i, sums) in sums[..rows].iter().enumerate() {
                    // SAFETY: a task alone writes to its columns.
                    let part = unsafe { output.part(row + i, cols.clone()) };
                    part.copy_from_slice(&sums[..cols.len()]);
                }
                row += rows;
            }
        }
        let cols = tiles_here.start * ROWS..n.min(tiles_here.end * ROWS);
        for row in 0..x.count {
            // SAFETY: as above.
            finish(row, cols.start, unsafe { output.part(row, cols.clone()) });
        }
    };
    let tasks = n.div_ceil(TASK * ROWS);
    if n.saturating_mul(x.blocks * BLOCK) <= ALONE {
        (0..tasks).for_each(task);
    } else {
        (0..tasks).into_par_iter().for_each(task);
    }
}

/// Rows of x that pass together, from `row` on, times a row of tiles.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))] // there are no registers
fn some<const FOUR: bool>(x: &Rows, registers: Option<&Bytes>, row: usize, tiles: &[u8], sums: &mut [[f32; ROWS]]) {
    #[cfg(target_arch = "x86_64")]
    match (registers, sums.len()) {
        // SAFETY: where the registers are, so are the instructions.
        (Some(registers), 16) => return unsafe { wide::tiles::<16>(&mut Dots::new(x, row, tiles, sums), registers) },
        // SAFETY: as above.
        (Some(registers), 8) => return unsafe { wide::tiles::<8>(&mut Dots::new(x, row, tiles, sums), registers) },
        _ => {}
    }
    match sums.len() {
        8 => Dots::<FOUR, 8>::new(x, row, tiles, sums).run(x.path),
        4 => Dots::<FOUR, 4>::new(x, row, tiles, sums).run(x.path),
        2 => Dots::<FOUR, 2>::new(x, row, tiles, sums).run(x.path),
        _ => Dots::<FOUR, 1>::new(x, row, tiles, sums).run(x.path),
    }
}

/// `M` rows of x, block by block, and a row of tiles.
struct Dots<'a, const FOUR: bool, const M: usize> {
    codes: &'a [[Block; M]],
    scales: &'a [[f32; M]],
    offsets: &'a [[i32; M]],
    tiles: &'a [u8],
    /// Whether these rows are the first to pass the tiles, which come from memory then.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    first: bool,
    sums: &'a mut [[f32; ROWS]],
}

impl<'a, const FOUR: bool, const M: usize> Dots<'a, FOUR, M> {
    fn new(x: &'a Rows, row: usize, tiles: &'a [u8], sums: &'a mut [[f32; ROWS]]) -> Self {
        let of = row * x.blocks..(row + M) * x.blocks;
        Self {
            codes: x.codes[of.clone()].as_chunks().0,
            scales: x.scales[of.clone()].as_chunks().0,
            offsets: x.offsets[of].as_chunks().0,
            tiles,
            first: row == 0,
            sums,
        }
    }

    fn run(mut self, path: Path) {
        match path {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the path is one that is here, and so are its instructions.
            Path::Tiles | Path::Vnni => unsafe { wide::vnni(&mut self) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Path::Avx2 => unsafe { wide::avx2(&mut self) },
            Path::Portable => simd::run(self),
        }
    }

    /// Each tile with the blocks that it meets.
    #[inline(always)]
    fn blocks(&self) -> impl Iterator<Item = (&[u8], &[Block; M], &[f32; M], &[i32; M])> {
        let size = if FOUR { Bits::Four.tile() } else { Bits::Eight.tile() };
        let rows = self.codes.iter().zip(self.scales).zip(self.offsets);
        self.tiles.chunks_exact(size).zip(rows).map(|(tile, ((codes, scales), offsets))| (tile, codes, scales, offsets))
    }
}

/// The portable form.
impl<const FOUR: bool, const M: usize> Work for Dots<'_, FOUR, M> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        let bits = if FOUR { Bits::Four } else { Bits::Eight };
        let mut sums = [[0.0f32; ROWS]; M];
        for (tile, codes, scales, offsets) in self.blocks() {
            for m in 0..M {
                let x = codes[m].0.as_flattened();
                for (row, sum) in sums[m].iter_mut().enumerate() {
                    let mut dot = offsets[m];
                    for (col, &x) in x.iter().enumerate() {
                        dot += bits.code(tile, row, col) * i32::from(x);
                    }
                    let scale = f16::from_le_bytes([tile[2 * row], tile[2 * row + 1]]).to_f32();
                    // Rounded once, also where that takes a routine: the bits are the same everywhere.
                    *sum = (dot as f32).mul_add(scale * scales[m], *sum);
                }
            }
        }
        self.sums.copy_from_slice(&sums);
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m128i, _MM_HINT_T0, _MM_HINT_T1, _mm_loadu_si128, _mm256_abs_epi8, _mm256_add_epi32, _mm256_and_si256,
        _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps,
        _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_sign_epi8,
        _mm256_srli_epi16, _mm256_xor_si256, _mm512_add_epi32, _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_cvtph_ps,
        _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
        _mm512_setzero_ps, _mm512_setzero_si512, _mm512_srli_epi16,
    };

    use super::{Bytes, Dots, GROUPS, ROWS, SCALES, TOGETHER};
    use crate::simd::wide::{ask, load32, load64, store, store_512};

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

    /// How far ahead of the tile at hand the next ones are asked for, into the second-level cache.
    const FAR_AHEAD: usize = 16 << 10;

    /// The products with AVX-512 and its dot product of bytes.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,f16c,fma")]
    pub fn vnni<const FOUR: bool, const M: usize>(dots: &mut Dots<'_, FOUR, M>) {
        let low = _mm512_set1_epi8(15);
        let mut sums = [_mm512_setzero_ps(); M];
        for (tile, x, x_scales, offsets) in dots.blocks() {
            if dots.first {
                ask::<_MM_HINT_T1>(tile.as_ptr().wrapping_add(FAR_AHEAD), tile.len());
            }
            let (scales, codes) = tile.split_at(SCALES);
            let Some(scales) = scales.as_array::<SCALES>() else { return };
            let scales = _mm512_cvtph_ps(load32(scales));
            let codes = codes.as_chunks::<64>().0;
            // For few rows two sums in turn, so that one instruction need not wait for the one before.
            let mut even = offsets.map(|offset| _mm512_set1_epi32(offset));
            let mut odd = [_mm512_setzero_si512(); M];
            for pair in 0..GROUPS / 2 {
                let (w, v) = if FOUR {
                    let both = load64(&codes[pair]);
                    (_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16::<4>(both), low))
                } else {
                    (load64(&codes[2 * pair]), load64(&codes[2 * pair + 1]))
                };
                for m in 0..M {
                    even[m] = _mm512_dpbusd_epi32(even[m], w, _mm512_set1_epi32(word(x[m].0[2 * pair])));
                    let sum = if M < TOGETHER { &mut odd[m] } else { &mut even[m] };
                    *sum = _mm512_dpbusd_epi32(*sum, v, _mm512_set1_epi32(word(x[m].0[2 * pair + 1])));
                }
            }
            for m in 0..M {
                let dot = if M < TOGETHER { _mm512_add_epi32(even[m], odd[m]) } else { even[m] };
                let scale = _mm512_mul_ps(scales, _mm512_set1_ps(x_scales[m]));
                sums[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, sums[m]);
            }
        }
        for (to, sum) in dots.sums.iter_mut().zip(sums) {
            store_512(to, sum);
        }
    }

    /// On cache lines of its own.
    #[repr(align(64))]
    struct Lines<const M: usize>([[u8; 64]; M]);

    /// The products with tile registers, of 8 or 16 rows.
    #[target_feature(enable = "avx512f,avx2,f16c")]
    pub fn tiles<const M: usize>(dots: &mut Dots<'_, false, M>, registers: &Bytes) {
        let mut whole = Lines([[0; 64]; M]);
        let mut sums = [_mm512_setzero_ps(); M];
        for (tile, x, x_scales, offsets) in dots.blocks() {
            if dots.first {
                ask::<_MM_HINT_T1>(tile.as_ptr().wrapping_add(FAR_AHEAD), tile.len());
            }
            let (scales, codes) = tile.split_at(SCALES);
            let (Some(scales), Some(codes)) = (scales.as_array::<SCALES>(), codes.as_array()) else { return };
            let scales = _mm512_cvtph_ps(load32(scales));
            registers.multiply(x, codes, &mut whole.0);
            for m in 0..M {
                let dot = _mm512_add_epi32(load64(&whole.0[m]), _mm512_set1_epi32(offsets[m]));
                let scale = _mm512_mul_ps(scales, _mm512_set1_ps(x_scales[m]));
                sums[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, sums[m]);
            }
        }
        for (to, sum) in dots.sums.iter_mut().zip(sums) {
            store_512(to, sum);
        }
    }

    /// How far ahead of the tile at hand the next ones are asked for.
    const AHEAD: usize = 2 << 10;

    /// The products with AVX2, eight rows of a tile at a time. Machines that have no more than that do not read ahead far enough.
    #[target_feature(enable = "avx2,f16c,fma")]
    pub fn avx2<const FOUR: bool, const M: usize>(dots: &mut Dots<'_, FOUR, M>) {
        let (low, top, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi8(i8::MIN), _mm256_set1_epi16(1));
        let mut sums = [[_mm256_setzero_ps(); M]; 2];
        for (tile, x, x_scales, offsets) in dots.blocks() {
            ask::<_MM_HINT_T0>(tile.as_ptr().wrapping_add(AHEAD), tile.len());
            let (scales, codes) = tile.split_at(SCALES);
            let codes = codes.as_chunks::<32>().0;
            for (half, (scales, sums)) in scales.as_chunks::<ROWS>().0.iter().zip(&mut sums).enumerate() {
                let scales = _mm256_cvtph_ps(load16(scales));
                // 8-bit codes are taken with their sign, as two of them times 127 would not fit in 16 bits without.
                let mut all = offsets.map(|offset| _mm256_set1_epi32(if FOUR { offset } else { 0 }));
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
                        let x = _mm256_set1_epi32(word(x.0[group]));
                        let x = if FOUR { x } else { _mm256_sign_epi8(x, w) };
                        *all = _mm256_add_epi32(*all, _mm256_madd_epi16(_mm256_maddubs_epi16(size, x), ones));
                    }
                }
                for m in 0..M {
                    let scale = _mm256_mul_ps(scales, _mm256_set1_ps(x_scales[m]));
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
