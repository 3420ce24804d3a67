//! Codes chosen with what a layer is given in mind (GPTQ, Frantar et al., arXiv:2210.17323): what rounding one weight does to the
//! outputs, the weights after it make good as far as their inputs go together with its own.
//!
//! With H = `XᵀX` of the inputs, the squared error of a row of outputs is (w − q) H (w − q)ᵀ. Let H = R Rᵀ with R upper triangular: it is
//! the sum over columns l of (Σ_{i ≤ l} e(i) R(i, l))², e = w − q. So, from the first column on, q(l) is what is nearest to
//! w(l) + Σ_{i < l} e(i) R(i, l) / R(l, l). This is GPTQ without its inverse of H.

use half::f16;
use rayon::prelude::*;
use tensor::{DType, Tensor};

use super::{BLOCK, Bits, Fit, OP, ROWS, checked, into_tile};
use crate::error::{expect, of};
use crate::linear::gemm::{Matrix, Products, Start, Values, gemm};
use crate::simd::{self, Work};
use crate::{Error, Result};

/// What is added to the diagonal of H, as a share of its mean: inputs that never occurred may still occur.
const DAMPING: f64 = 0.01;

/// `XᵀX` of a layer's inputs x `[t, k]`, f32: `[k, k]`.
///
/// # Errors
/// Another dtype or number of axes.
pub fn gram(x: &Tensor) -> Result<Tensor> {
    let (t, k) = x.dims2().map_err(of(OP))?;
    let x = Matrix::row_major(Values::F32(x.values().map_err(of(OP))?), t, k);
    let mut all = vec![0.0; k * k];
    gemm(&mut all, x.t(), x, Start::Zero, Products::Stored);
    Tensor::new(&[k, k], all).map_err(of(OP))
}

/// Quantises weights `[n, k]` as [`quantize`](super::quantize), with codes for inputs whose [`gram`] `[k, k]` is given.
///
/// # Errors
/// As [`quantize`](super::quantize); a gram of another shape, or one that is no number somewhere.
pub fn quantize_for(w: &Tensor, dtype: DType, gram: &Tensor) -> Result<Tensor> {
    let bits = Bits::of(OP, dtype)?;
    let (n, k) = w.dims2().map_err(of(OP))?;
    expect(OP, "the shape of the inputs' products", gram.shape(), &[k, k])?;
    let w = checked(w, bits)?;
    let values = w.values::<f32>().map_err(of(OP))?;
    let gram: &[f32] = gram.values().map_err(of(OP))?;
    // In f32, products of inputs of which one outweighs all others may need more.
    let Some(shares) = [DAMPING, 10.0 * DAMPING, 100.0 * DAMPING].iter().find_map(|&damping| shares(gram, k, damping))
    else {
        let wanted = "finite, of numbers that f32 holds".into();
        return Err(Error::Argument { op: OP, what: "the inputs' products", wanted, found: "others".into() });
    };
    let stride = k.div_ceil(BLOCK) * bits.tile();
    let mut tiles = vec![0u32; n.div_ceil(ROWS) * stride / 4];
    let rows_of_tiles = bytemuck::cast_slice_mut::<u32, u8>(&mut tiles).par_chunks_mut(stride.max(1));
    rows_of_tiles.zip(values.par_chunks(ROWS * k.max(1))).for_each(|(tiles, w)| {
        simd::run(Rounding { w, k, shares: &shares, bits, tiles });
    });
    Tensor::quantized([n, k], dtype, tiles).map_err(of(OP))
}

/// What the columns of R come to: `of[i · k + l]`, i < l, is R(i, l) / R(l, l); `squares[l]` is R(l, l)² over its mean.
struct Shares {
    of: Vec<f32>,
    squares: Vec<f32>,
}

/// `None` if H is no sum of squares.
fn shares(gram: &[f32], k: usize, damping: f64) -> Option<Shares> {
    let mean = (0..k).map(|i| f64::from(gram[i * k + i])).sum::<f64>() / k.max(1) as f64;
    let more = if mean > 0.0 { damping * mean } else { 1.0 };
    let mut r: Vec<f64> = gram.iter().map(|&x| f64::from(x)).collect();
    (0..k).for_each(|i| r[i * k + i] += more);
    // Cholesky's factorisation from the last column on.
    for l in (0..k).rev() {
        let (above, rest) = r.split_at_mut(l * k);
        let row = &mut rest[..k];
        let square = row[l] - dot(&row[l + 1..], &row[l + 1..]);
        if !(square.is_finite() && square > 0.0) {
            return None;
        }
        row[l] = square.sqrt();
        let row = &row[..];
        above.par_chunks_exact_mut(k).with_min_len(16).for_each(|other| {
            other[l] = (other[l] - dot(&other[l + 1..], &row[l + 1..])) / row[l];
        });
    }
    let diagonal: Vec<f64> = (0..k).map(|l| r[l * k + l]).collect();
    let mean = diagonal.iter().map(|x| x * x).sum::<f64>() / k.max(1) as f64;
    let of = r.par_chunks_exact(k.max(1)).flat_map_iter(|row| row.iter().zip(&diagonal).map(|(x, d)| (x / d) as f32));
    Some(Shares { of: of.collect(), squares: diagonal.iter().map(|x| (x * x / mean) as f32).collect() })
}

/// Eight sums side by side.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    let mut lanes = [0.0; 8];
    for (x, y) in x.iter().zip(y) {
        for l in 0..8 {
            lanes[l] += x[l] * y[l];
        }
    }
    lanes.iter().sum::<f64>() + x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum::<f64>()
}

/// Up to 16 rows of w, which become a row of tiles.
struct Rounding<'a> {
    w: &'a [f32],
    k: usize,
    shares: &'a Shares,
    bits: Bits,
    tiles: &'a mut [u8],
}

type Lanes = [f32; ROWS];

impl Work for Rounding<'_> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        let Self { w, k, shares, bits, tiles } = self;
        let rows = w.len() / k;
        // w − q of the columns that are done.
        let mut errors: Vec<Lanes> = Vec::with_capacity(k);
        for (first, tile) in (0..k).step_by(BLOCK).zip(tiles.chunks_exact_mut(bits.tile())) {
            let cols = BLOCK.min(k - first);
            let mut wanted = [[0.0f32; ROWS]; BLOCK];
            for (c, wanted) in wanted.iter_mut().enumerate().take(cols) {
                for row in 0..rows {
                    wanted[row] = w[row * k + first + c];
                }
            }
            for (i, error) in errors.iter().enumerate() {
                let shares = &shares.of[i * k + first..][..cols];
                for (wanted, &share) in wanted.iter_mut().zip(shares) {
                    for row in 0..ROWS {
                        wanted[row] = simd::fma::<FMA>(error[row], share, wanted[row]);
                    }
                }
            }
            // The scales that suit the block as it now is, columns by what their errors weigh.
            let mut weights = [0.0; BLOCK];
            weights[..cols].copy_from_slice(&shares.squares[first..first + cols]);
            let mut scales = [0.0f32; ROWS];
            for row in 0..rows {
                let block = std::array::from_fn(|c| wanted[c][row]);
                let (scale, _) = Fit { block: &block, weights: &weights, bits }.call::<FMA>();
                let scale = if scale.is_finite() { scale } else { f16::MAX };
                tile[2 * row..2 * row + 2].copy_from_slice(&scale.to_le_bytes());
                scales[row] = scale.to_f32();
            }
            let [least, most] = bits.range();
            for c in 0..cols {
                let mut error = [0.0; ROWS];
                for row in 0..rows {
                    let (want, scale) = (wanted[c][row], scales[row]);
                    let code = if scale == 0.0 { 0.0 } else { (want / scale).round_ties_even().clamp(least, most) };
                    into_tile(tile, bits, row, c, code as i32);
                    error[row] = w[row * k + first + c] - scale * code;
                }
                let shares = &shares.of[(first + c) * k + first..][..cols];
                for (wanted, &share) in wanted.iter_mut().zip(shares).skip(c + 1) {
                    for row in 0..ROWS {
                        wanted[row] = simd::fma::<FMA>(error[row], share, wanted[row]);
                    }
                }
                errors.push(error);
            }
            // Where there is neither row nor column, zeros, as everywhere.
            for row in 0..ROWS {
                for c in (if row < rows { cols } else { 0 })..BLOCK {
                    into_tile(tile, bits, row, c, 0);
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // how a test fails
mod tests {
    use super::super::{dequantize, quantize};
    use super::*;
    use crate::spec::{f32s, random};

    /// Inputs that go together: each is mostly the one before.
    fn inputs(t: usize, k: usize, seed: u64) -> Tensor {
        let mut x = random(t * k, seed, 1.0, 0.0);
        for row in x.chunks_mut(k) {
            (1..k).for_each(|l| row[l] += 0.9 * row[l - 1]);
        }
        Tensor::new(&[t, k], f32s(&x)).unwrap()
    }

    fn weights(n: usize, k: usize) -> Tensor {
        Tensor::new(&[n, k], f32s(&random(n * k, 7, 0.1, 0.0))).unwrap()
    }

    fn wide(x: &Tensor) -> Vec<f64> {
        x.values::<f32>().unwrap().iter().map(|&x| f64::from(x)).collect()
    }

    /// The solution of `a · x = b` by elimination.
    fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
        let n = b.len();
        for i in 0..n {
            for j in i + 1..n {
                let factor = a[j][i] / a[i][i];
                (i..n).for_each(|l| a[j][l] -= factor * a[i][l]);
                b[j] -= factor * b[i];
            }
        }
        for i in (0..n).rev() {
            let known: f64 = (i + 1..n).map(|l| a[i][l] * b[l]).sum();
            b[i] = (b[i] - known) / a[i][i];
        }
        b
    }

    #[test]
    fn each_code_is_the_nearest_to_what_the_errors_before_it_ask_for() {
        let (n, k) = (18, 45);
        let (w, x) = (weights(n, k), inputs(60, k, 3));
        let gram = gram(&x).unwrap();
        let mut h: Vec<Vec<f64>> = wide(&gram).chunks(k).map(<[f64]>::to_vec).collect();
        let mean = (0..k).map(|i| h[i][i]).sum::<f64>() / k as f64;
        (0..k).for_each(|i| h[i][i] += DAMPING * mean);
        for dtype in [DType::Q8, DType::Q4] {
            let q = quantize_for(&w, dtype, &gram).unwrap();
            let bits = Bits::of("test", dtype).unwrap();
            let (w, back) = (wide(&w), wide(&dequantize(&q).unwrap()));
            let (mut far, mut moved) = (0, 0);
            for row in 0..n {
                let (w, back) = (&w[row * k..][..k], &back[row * k..][..k]);
                let errors: Vec<f64> = w.iter().zip(back).map(|(w, q)| w - q).collect();
                for l in 0..k {
                    // With the columns before l as they are, the errors of the others that would be best: as GPTQ has it.
                    let rest = (l..k).map(|i| h[i][l..].to_vec()).collect();
                    let asked = (l..k).map(|i| -(0..l).map(|j| h[i][j] * errors[j]).sum::<f64>()).collect();
                    let want = w[l] - solve(rest, asked)[0];
                    let tile = &q.bytes().unwrap()[(row / ROWS * k.div_ceil(BLOCK) + l / BLOCK) * bits.tile()..];
                    let scale = f64::from(f16::from_le_bytes([tile[2 * (row % ROWS)], tile[2 * (row % ROWS) + 1]]));
                    let [least, most] = bits.range().map(f64::from);
                    let near = (want / scale).round_ties_even().clamp(least, most) * scale;
                    // Where it is halfway between two codes, rounding decides.
                    let step = scale.abs();
                    far += u32::from((near - back[l]).abs() > 1e-3 * step && (want - back[l]).abs() > 0.501 * step);
                    moved += u32::from((want - w[l]).abs() > 0.5 * step);
                }
            }
            assert!(far == 0 && moved > 0, "{far} codes are not the nearest; {moved} moved");
        }
    }

    #[test]
    fn outputs_are_nearer_than_without() {
        let (n, k) = (64, 200);
        let (w, x) = (weights(n, k), inputs(400, k, 5));
        let gram = gram(&x).unwrap();
        let other = wide(&inputs(100, k, 6));
        for dtype in [DType::Q8, DType::Q4] {
            // On inputs that it has not seen.
            let error = |q: &Tensor| -> f64 {
                let off: Vec<f64> = wide(&w).iter().zip(wide(&dequantize(q).unwrap())).map(|(w, q)| w - q).collect();
                let dot = |x: &[f64], e: &[f64]| x.iter().zip(e).map(|(x, e)| x * e).sum::<f64>().powi(2);
                other.chunks(k).flat_map(|x| off.chunks(k).map(move |e| dot(x, e))).sum()
            };
            let (fitted, plain) = (quantize_for(&w, dtype, &gram).unwrap(), quantize(&w, dtype).unwrap());
            assert!(error(&fitted) < 0.7 * error(&plain), "{} {}", error(&fitted), error(&plain));
        }
    }

    #[test]
    fn inputs_that_have_nothing_to_do_with_each_other_change_nothing() {
        let (w, k) = (weights(33, 70), 70);
        let alike: Vec<f32> = (0..k * k).map(|i| if i % (k + 1) == 0 { 3.0 } else { 0.0 }).collect();
        for gram in [alike, vec![0.0; k * k]] {
            let gram = Tensor::new(&[k, k], gram).unwrap();
            for dtype in [DType::Q8, DType::Q4] {
                let (fitted, plain) = (quantize_for(&w, dtype, &gram).unwrap(), quantize(&w, dtype).unwrap());
                assert_eq!(fitted.bytes().unwrap(), plain.bytes().unwrap());
            }
        }
    }

    #[test]
    fn wrong_arguments_are_errors() {
        let w = weights(4, 8);
        let gram = |value: f32, size: usize| Tensor::new(&[size, size], vec![value; size * size]).unwrap();
        assert!(quantize_for(&w, DType::Q4, &gram(1.0, 8)).is_ok());
        for (bad, part) in [(gram(1.0, 7), "shape"), (gram(f32::NAN, 8), "finite"), (gram(f32::INFINITY, 8), "finite")]
        {
            let text = quantize_for(&w, DType::Q4, &bad).unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        }
        assert!(quantize_for(&w, DType::F32, &gram(1.0, 8)).is_err());
    }
}
