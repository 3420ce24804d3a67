//! Weights of 8 or 4 bits: `w = scale · (code − zero)`, a scale in f16 for 32 weights of a row, zero 128 or 8. Rows of x become 8
//! bits as well, a scale in f32 for 32 of them, so that products are sums of small whole numbers, which no order of adding changes.
//!
//! A tile holds 16 rows by 32 columns: 16 scales, then the codes, four of a row side by side, the same four of all rows after each
//! other: what AVX-512's dot product of bytes (VNNI) takes at one go, and a tile register (AMX) as it is. Of 4-bit codes, columns 8s to
//! 8s + 3 are the low halves of a byte and 8s + 4 to 8s + 7 the high ones.

#![allow(clippy::inline_always)] // a requirement of `simd::Work`

mod calibrated;
mod product;
#[cfg(test)]
mod spec;

use half::f16;
use rayon::prelude::*;
use tensor::{DType, TILE, Tensor};

pub use calibrated::{gram, quantize_for};

#[cfg(target_arch = "x86_64")]
use super::gemm::{Matrix, Start, Values};
#[cfg(target_arch = "x86_64")]
use super::in_tiles::{self, Right};
use super::output::Output;
use crate::error::{float, of};
use crate::simd::{self, Work};
use crate::{Error, Result};

const OP: &str = "quantize";
const ROWS: usize = TILE[0];
const BLOCK: usize = TILE[1];
/// Bytes of a tile's scales.
pub(super) const SCALES: usize = 2 * ROWS;

/// How codes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bits {
    Eight,
    Four,
}

impl Bits {
    pub fn of(op: &'static str, dtype: DType) -> Result<Self> {
        match dtype {
            DType::Q8 => Ok(Self::Eight),
            DType::Q4 => Ok(Self::Four),
            other => Err(Error::Argument {
                op,
                what: "dtype of the weight",
                wanted: "q8 or q4".into(),
                found: other.to_string(),
            }),
        }
    }

    pub const fn zero(self) -> i32 {
        match self {
            Self::Eight => 128,
            Self::Four => 8,
        }
    }

    /// The least code and the largest, less the zero.
    const fn range(self) -> [f32; 2] {
        match self {
            Self::Eight => [-127.0, 127.0],
            Self::Four => [-8.0, 7.0],
        }
    }

    /// Bytes of a tile.
    pub const fn tile(self) -> usize {
        match self {
            Self::Eight => SCALES + ROWS * BLOCK,
            Self::Four => SCALES + ROWS * BLOCK / 2,
        }
    }

    /// Where in a tile the code of a row and a column is, and by how much it is shifted.
    const fn place(self, row: usize, col: usize) -> (usize, u32) {
        let (group, at) = (col / 4, col % 4);
        match self {
            Self::Eight => (SCALES + 64 * group + 4 * row + at, 0),
            Self::Four => (SCALES + 64 * (group / 2) + 4 * row + at, 4 * (group % 2) as u32),
        }
    }

    const fn code(self, tile: &[u8], row: usize, col: usize) -> i32 {
        let (at, shift) = self.place(row, col);
        match self {
            Self::Eight => tile[at] as i32,
            Self::Four => (tile[at] >> shift) as i32 & 15,
        }
    }
}

/// Quantises weights `[n, k]` (f32 or bf16) to `dtype`, [`DType::Q8`] or [`DType::Q4`]: 8 bits to nearest, 4 bits with the scale of
/// each block that leaves the least sum of squares.
///
/// # Errors
/// Another dtype or number of axes; a weight that is none or too large for a scale in f16.
pub fn quantize(w: &Tensor, dtype: DType) -> Result<Tensor> {
    let bits = Bits::of(OP, dtype)?;
    let (n, k) = w.dims2().map_err(of(OP))?;
    let w = checked(w, bits)?;
    let values = w.values::<f32>().map_err(of(OP))?;
    let blocks = k.div_ceil(BLOCK);
    let mut tiles = vec![0u32; n.div_ceil(ROWS) * blocks * bits.tile() / 4];
    let rows_of_tiles = bytemuck::cast_slice_mut::<u32, u8>(&mut tiles).par_chunks_mut((blocks * bits.tile()).max(1));
    rows_of_tiles.enumerate().for_each(|(i, tiles)| {
        for (b, tile) in tiles.chunks_exact_mut(bits.tile()).enumerate() {
            for row in 0..ROWS {
                let mut block = [0.0f32; BLOCK];
                if i * ROWS + row < n {
                    let from = &values[(i * ROWS + row) * k..][..k][b * BLOCK..];
                    block.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
                }
                let (scale, codes) = simd::run(Fit { block: &block, weights: &[1.0; BLOCK], bits });
                tile[2 * row..2 * row + 2].copy_from_slice(&scale.to_le_bytes());
                codes.into_iter().enumerate().for_each(|(col, code)| into_tile(tile, bits, row, col, code));
            }
        }
    });
    Tensor::quantized([n, k], dtype, tiles).map_err(of(OP))
}

/// Weights in f32, none of them beyond what codes can stand for.
fn checked(w: &Tensor, bits: Bits) -> Result<Tensor> {
    float(OP, "dtype of the weight", w)?;
    let w = w.to_dtype(DType::F32).map_err(of(OP))?;
    // The largest whose scale is still a number of f16, whichever code it gets.
    let limit = f16::MAX.to_f32() * if bits == Bits::Eight { 127.0 } else { 6.5 };
    let bad = w.values::<f32>().map_err(of(OP))?.par_iter().find_first(|w| w.is_nan() || w.abs() > limit);
    if let Some(bad) = bad {
        let wanted = format!("numbers from -{limit} to {limit}");
        return Err(Error::Argument { op: OP, what: "weights", wanted, found: bad.to_string() });
    }
    Ok(w)
}

/// Puts a code into a tile of zeros.
#[inline(always)]
fn into_tile(tile: &mut [u8], bits: Bits, row: usize, col: usize, code: i32) {
    let (at, shift) = bits.place(row, col);
    tile[at] |= ((code + bits.zero()) as u8) << shift;
}

/// The weights that quantised ones stand for, in f32.
///
/// # Errors
/// A tensor that is not quantised, or not in main memory.
pub fn dequantize(w: &Tensor) -> Result<Tensor> {
    let (n, k) = w.dims2().map_err(of(OP))?;
    let mut values = vec![0.0; n * k];
    rows(w, 0..n, &mut values)?;
    Tensor::new(&[n, k], values).map_err(of(OP))
}

/// The first tile of quantised weights with a scale that is not a finite number; `None` if all are, or the tensor is another.
pub fn first_bad_scale(w: &Tensor) -> Option<usize> {
    let tile = w.dtype().tile()?;
    let finite = |scale: &[u8; 2]| f16::from_le_bytes(*scale).is_finite();
    w.bytes().ok()?.chunks_exact(tile).position(|tile| !tile[..SCALES].as_chunks::<2>().0.iter().all(finite))
}

/// Rows of quantised weights `[n, k]`, in f32, into `to`.
pub(crate) fn rows(w: &Tensor, which: impl IntoIterator<Item = usize>, to: &mut [f32]) -> Result<()> {
    let bits = Bits::of(OP, w.dtype())?;
    let (_, k) = w.dims2().map_err(of(OP))?;
    let bytes = w.bytes().map_err(of(OP))?;
    let stride = k.div_ceil(BLOCK) * bits.tile();
    for (row, to) in which.into_iter().zip(to.chunks_exact_mut(k.max(1))) {
        let tiles = bytes[row / ROWS * stride..][..stride].chunks_exact(bits.tile());
        let row = row % ROWS;
        for (tile, to) in tiles.zip(to.chunks_mut(BLOCK)) {
            let scale = f16::from_le_bytes([tile[2 * row], tile[2 * row + 1]]).to_f32();
            for (col, to) in to.iter_mut().enumerate() {
                *to = scale * (bits.code(tile, row, col) - bits.zero()) as f32;
            }
        }
    }
    Ok(())
}

/// `y[t, n] = x[t, k] · wᵀ`, then `finish(row, column, part)` on each part of a row of it.
pub(crate) fn multiply(
    op: &'static str,
    x: &[f32],
    w: &Tensor,
    y: &mut [f32],
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> Result<()> {
    let bits = Bits::of(op, w.dtype())?;
    let (n, k) = w.dims2().map_err(of(op))?;
    if k == 0 {
        y.fill(0.0);
        y.chunks_exact_mut(n.max(1)).enumerate().for_each(|(row, y)| finish(row, 0, y));
        return Ok(());
    }
    let x = product::Rows::new(product::Path::here(), x, k, bits);
    product::multiply(&x, w.bytes().map_err(of(op))?, bits, &Output::new(y, n), n, finish);
    Ok(())
}

/// As [`multiply`], of many rows: in bf16 where the machine multiplies tiles of it.
pub(super) fn many_rows(
    op: &'static str,
    x: &[f32],
    w: &Tensor,
    y: &mut [f32],
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> Result<()> {
    #[cfg(target_arch = "x86_64")]
    {
        let (n, k) = w.dims2().map_err(of(op))?;
        if n > 0 && k > 0 && crate::amx::is_here() {
            let x = Matrix::row_major(Values::F32(x), x.len() / k, k);
            let w = Right::Weights(w.bytes().map_err(of(op))?, Bits::of(op, w.dtype())?, [k, n]);
            in_tiles::multiply(x, w, &Output::new(y, n), Start::Zero, finish);
            return Ok(());
        }
    }
    multiply(op, x, w, y, finish)
}

/// Scales tried for a block of 4 bits: the weight of the largest magnitude falls on from -9.5 to -6.5, or on the other side of zero.
const TRIED: std::ops::RangeInclusive<i32> = -15..=15;

/// Finds the scale and the codes of a block, in which the square of a weight's error counts `weights` times.
struct Fit<'a> {
    block: &'a [f32; BLOCK],
    weights: &'a [f32; BLOCK],
    bits: Bits,
}

impl Work for Fit<'_> {
    type Output = (f16, [i32; BLOCK]);

    #[inline(always)]
    fn call<const FMA: bool>(self) -> Self::Output {
        match self.bits {
            Bits::Eight => nearest(self.block),
            Bits::Four => least_squares(self.block, self.weights),
        }
    }
}

/// 8 bits: the largest is ±127.
#[inline(always)]
fn nearest(block: &[f32; BLOCK]) -> (f16, [i32; BLOCK]) {
    let most = block.iter().fold(0.0f32, |most, w| most.max(w.abs()));
    let scale = f16::from_f32(most / 127.0);
    (scale, codes(block, scale.to_f32(), -127.0, 127.0).map(|code| code as i32))
}

/// 4 bits with the least weighted sum of squared errors, of the scales tried: for codes that are given, Σ w·code / Σ code², each term
/// with its weight, is the best scale.
#[inline(always)]
fn least_squares(block: &[f32; BLOCK], weights: &[f32; BLOCK]) -> (f16, [i32; BLOCK]) {
    let most = block.iter().fold(0.0f32, |most, &w| if w.abs() > most.abs() { w } else { most });
    let mut best = (f32::INFINITY, f16::ZERO, [0.0; BLOCK]);
    for step in TRIED {
        for side in [-8.0f32, 7.0] {
            let tried = most / (side + side.signum() * 0.1 * step as f32);
            let rough = codes(block, tried, -8.0, 7.0);
            let mut products = [0.0; BLOCK];
            let mut squares = [0.0; BLOCK];
            for i in 0..BLOCK {
                let weighted = weights[i] * rough[i];
                products[i] = block[i] * weighted;
                squares[i] = rough[i] * weighted;
            }
            let (with, own) = (sum(products), sum(squares));
            let scale = f16::from_f32(if own > 0.0 { with / own } else { 0.0 });
            let codes = codes(block, scale.to_f32(), -8.0, 7.0);
            let mut errors = [0.0; BLOCK];
            for i in 0..BLOCK {
                let error = block[i] - scale.to_f32() * codes[i];
                errors[i] = weights[i] * error * error;
            }
            let error = sum(errors);
            if error < best.0 {
                best = (error, scale, codes);
            }
        }
    }
    (best.1, best.2.map(|code| code as i32))
}

/// In halves, which wide registers add at once.
#[inline(always)]
fn sum(mut terms: [f32; BLOCK]) -> f32 {
    for half in [16, 8, 4, 2, 1] {
        for i in 0..half {
            terms[i] += terms[i + half];
        }
    }
    terms[0]
}

/// The nearest codes under a scale; zeros under none.
#[inline(always)]
fn codes(block: &[f32; BLOCK], scale: f32, least: f32, most: f32) -> [f32; BLOCK] {
    if scale == 0.0 {
        return [0.0; BLOCK];
    }
    block.map(|w| (w / scale).round_ties_even().clamp(least, most))
}
