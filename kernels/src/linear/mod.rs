//! The linear layer `y = x · Wᵀ + b` as in `torch.nn.Linear`, and what BLOOM puts behind it: the tanh form of GELU
//! (`bloom_gelu_forward` and `bloom_gelu_back` of Hugging Face's `modeling_bloom.py`) or a residual.
//!
//! Many rows (training, prefill) go through [`forward`] and its variants, a blocked matrix multiplication; few rows
//! (decode) through [`few_rows`], which reads the weights once and is bound by memory. The two sum in different
//! orders, so they agree within rounding, not bit for bit. Within each, a row's bits do not depend on the other rows.
//! Many rows are rounded to bf16 first where W is bf16, or where [`Products::Bf16`] are asked for, and the machine multiplies bf16, in tiles or
//! in pairs; sums stay f32.
//!
//! Weights of 8 or 4 bits ([`quantize`]) go one way for few rows and for many, unless the machine multiplies tiles of bf16: then
//! many rows do that, and so do the weights.
//!
//! Activations (x, y, pre, the residual and their gradients) are f32, on a GPU also bf16, with bf16 weights then. Biases and the
//! gradients of parameters are f32.

#![allow(clippy::inline_always)] // a requirement of `simd::Work`

pub(crate) mod cuda;
mod few_rows;
mod gelu;
pub(crate) mod gemm;
#[cfg(target_arch = "x86_64")]
mod in_tiles;
mod output;
mod pack;
pub(crate) mod quantized;
#[cfg(test)]
mod spec;
mod tile;

use rayon::prelude::*;
use tensor::{DType, Device, Gpu, Tensor};

use crate::error::{expect, float, of};
use crate::simd::{self, Work};
use crate::{Error, Result};
pub use gemm::Products;
use gemm::{Matrix, Start, Values, gemm, gemm_then};
pub(crate) use output::Output;
pub(crate) use pack::Widen;
#[cfg(target_arch = "x86_64")]
pub(crate) use pack::{aligned, transpose};
pub use quantized::{dequantize, first_bad_scale, gram, quantize, quantize_for};

const OP: &str = "linear";

/// What [`few_rows`] does to `x · Wᵀ + b` before it is stored.
#[derive(Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing.
    None,
    /// The tanh form of GELU.
    Gelu,
    /// Adds a tensor `[t, n]`.
    Residual(&'a Tensor),
}

/// `x · Wᵀ + b` with x `[t, k]`, w `[n, k]` (f32 or bf16, on a CPU also quantised), b `[n]`: `[t, n]`, of the dtype of x.
///
/// # Errors
/// Shapes or dtypes that do not go together.
pub fn forward(x: &Tensor, w: &Tensor, b: &Tensor, products: Products) -> Result<Tensor> {
    many_rows("linear::forward", x, w, b, Epilogue::None, products)
}

/// `x · Wᵀ + b + residual`, shapes as in [`forward`], the residual `[t, n]`.
///
/// # Errors
/// As [`forward`].
pub fn forward_residual(x: &Tensor, w: &Tensor, b: &Tensor, residual: &Tensor, products: Products) -> Result<Tensor> {
    many_rows("linear::forward_residual", x, w, b, Epilogue::Residual(residual), products)
}

/// `gelu(x · Wᵀ + b)`, shapes as in [`forward`].
///
/// # Errors
/// As [`forward`].
pub fn forward_gelu(x: &Tensor, w: &Tensor, b: &Tensor, products: Products) -> Result<Tensor> {
    many_rows("linear::forward_gelu", x, w, b, Epilogue::Gelu, products)
}

/// For training: `pre = x · Wᵀ + b`, which [`gelu_backward`] needs, and `gelu(pre)`; shapes as in [`forward`].
///
/// # Errors
/// As [`forward`].
pub fn forward_gelu_saved(x: &Tensor, w: &Tensor, b: &Tensor, products: Products) -> Result<(Tensor, Tensor)> {
    let op = "linear::forward_gelu_saved";
    if let Device::Cuda(gpu) = x.device() {
        sizes(op, x, w, Some(b), Epilogue::None)?;
        dtypes(op, x, w, Some(b), Epilogue::None)?;
        return cuda::forward_gelu_saved(gpu, x, w, b);
    }
    let pre = many_rows(op, x, w, b, Epilogue::None, products)?;
    let mut y = Tensor::unwritten(pre.shape()).map_err(of(op))?;
    let from = pre.values::<f32>().map_err(of(op))?.par_chunks(CHUNK);
    let to = y.values_mut::<f32>().map_err(of(op))?.par_chunks_mut(CHUNK);
    from.zip(to).for_each(|(from, to)| {
        to.copy_from_slice(from);
        gelu::forward(to);
    });
    Ok((pre, y))
}

/// `dy · gelu'(pre)`, all of one shape and dtype.
///
/// # Errors
/// Different shapes or dtypes.
pub fn gelu_backward(dy: &Tensor, pre: &Tensor) -> Result<Tensor> {
    let op = "linear::gelu_backward";
    expect(op, "shape of pre", pre.shape(), dy.shape())?;
    if let Device::Cuda(gpu) = dy.device() {
        expect(op, "dtype of pre", pre.dtype(), float(op, "dtype of dy", dy)?)?;
        return cuda::gelu_backward(gpu, dy, pre);
    }
    let mut dx = Tensor::unwritten(dy.shape()).map_err(of(op))?;
    let pre = pre.values::<f32>().map_err(of(op))?.par_chunks(CHUNK);
    let dy = dy.values::<f32>().map_err(of(op))?.par_chunks(CHUNK);
    let to = dx.values_mut::<f32>().map_err(of(op))?.par_chunks_mut(CHUNK);
    dy.zip(pre).zip(to).for_each(|((dy, pre), to)| gelu::backward(dy, pre, to));
    Ok(dx)
}

/// `dx = dy · W` with dy `[t, n]`, w `[n, k]`: `[t, k]`.
///
/// # Errors
/// Shapes or dtypes that do not go together.
pub fn backward_input(dy: &Tensor, w: &Tensor, products: Products) -> Result<Tensor> {
    let op = "linear::backward_input";
    let (t, n) = dy.dims2().map_err(of(op))?;
    let (wn, k) = w.dims2().map_err(of(op))?;
    expect(op, "rows of the weight", wn, n)?;
    if let Device::Cuda(gpu) = dy.device() {
        dtypes(op, dy, w, None, Epilogue::None)?;
        return cuda::backward_input(gpu, dy, w);
    }
    let dy = Matrix::row_major(activations(op, dy)?, t, n);
    let w = Matrix::row_major(weights(op, w)?, n, k);
    let mut dx = Tensor::unwritten(&[t, k]).map_err(of(op))?;
    gemm(dx.values_mut().map_err(of(op))?, dy, w, Start::Zero, products);
    Ok(dx)
}

/// `dw += dyᵀ · x` and `db += Σ_t dy` with dy `[t, n]`, x `[t, k]`, dw `[n, k]`, db `[n]`.
///
/// # Errors
/// Shapes or dtypes that do not go together; then nothing was added.
pub fn backward_weight(dy: &Tensor, x: &Tensor, dw: &mut Tensor, db: &mut Tensor, products: Products) -> Result<()> {
    let op = "linear::backward_weight";
    let (t, n) = dy.dims2().map_err(of(op))?;
    let (xt, k) = x.dims2().map_err(of(op))?;
    expect(op, "rows of x", xt, t)?;
    expect(op, "shape of dw", dw.shape(), &[n, k])?;
    expect(op, "shape of db", db.shape(), &[n])?;
    if let Device::Cuda(gpu) = dy.device() {
        expect(op, "dtype of x", x.dtype(), float(op, "dtype of dy", dy)?)?;
        expect(op, "dtype of dw", dw.dtype(), DType::F32)?;
        expect(op, "dtype of db", db.dtype(), DType::F32)?;
        db.gpu_pointer(gpu).map_err(of(op))?;
        cuda::backward_weight(gpu, dy, x, dw)?;
        return cuda::backward_bias(gpu, dy, db);
    }
    let dy_values = dy.values::<f32>().map_err(of(op))?;
    let x = Matrix::row_major(activations(op, x)?, t, k);
    let db = db.values_mut::<f32>().map_err(of(op))?;
    let dy = Matrix::row_major(Values::F32(dy_values), t, n);
    gemm(dw.values_mut().map_err(of(op))?, dy.t(), x, Start::Add, products);
    // Each column is summed in order of t by one thread.
    db.par_chunks_mut(COLUMNS).enumerate().for_each(|(i, db)| {
        let mut sums = [0.0f32; COLUMNS];
        for row in dy_values.chunks_exact(n) {
            sums.iter_mut().zip(&row[i * COLUMNS..n.min((i + 1) * COLUMNS)]).for_each(|(sum, dy)| *sum += dy);
        }
        db.iter_mut().zip(sums).for_each(|(db, sum)| *db += sum);
    });
    Ok(())
}

/// As [`forward`], for a handful of rows (decode): x `[t, k]`, w `[n, k]`, b `[n]`: `[t, n]`. The weights are read once
/// for all rows, on a GPU for 16 of them.
///
/// # Errors
/// Shapes or dtypes that do not go together.
pub fn few_rows(x: &Tensor, w: &Tensor, b: Option<&Tensor>, epilogue: Epilogue<'_>) -> Result<Tensor> {
    let op = "linear::few_rows";
    let (t, k, n) = sizes(op, x, w, b, epilogue)?;
    if let Device::Cuda(gpu) = x.device() {
        return cuda::few_rows(gpu, x, w, b, epilogue, dtypes(op, x, w, b, epilogue)?);
    }
    let finish = Finish::new(op, n, b, epilogue)?;
    let x = x.values::<f32>().map_err(of(op))?;
    let mut y = Tensor::unwritten(&[t, n]).map_err(of(op))?;
    if w.dtype().tile().is_some() {
        let apply = |row: usize, col: usize, part: &mut [f32]| finish.apply(row, col, part);
        quantized::multiply(op, x, w, y.values_mut().map_err(of(op))?, apply)?;
        return Ok(y);
    }
    let w = weights(op, w)?;
    let output = Output::new(y.values_mut().map_err(of(op))?, n);
    match w {
        Values::F32(w) => few_rows::multiply(x, w, k, &output, [t, n], |row, col, part| finish.apply(row, col, part)),
        Values::Bf16(w) => few_rows::multiply(x, w, k, &output, [t, n], |row, col, part| finish.apply(row, col, part)),
    }
    Ok(y)
}

/// The version of cuBLASLt, as in 120000, if it is what multiplies many rows on this GPU: it is to be used, and is there.
pub fn cublaslt(gpu: &Gpu) -> Option<usize> {
    crate::cuda::cublaslt::version(gpu)
}

/// Elements that a thread takes at a time, where every element is on its own: 64 KiB.
const CHUNK: usize = 1 << 14;
/// Columns of dy that a thread sums at a time: 1 KiB of each row.
const COLUMNS: usize = 256;

fn many_rows(
    op: &'static str,
    x: &Tensor,
    w: &Tensor,
    b: &Tensor,
    epilogue: Epilogue<'_>,
    products: Products,
) -> Result<Tensor> {
    let (t, k, n) = sizes(op, x, w, Some(b), epilogue)?;
    if let Device::Cuda(gpu) = x.device() {
        return cuda::forward(gpu, x, w, Some(b), epilogue, dtypes(op, x, w, Some(b), epilogue)?);
    }
    let finish = Finish::new(op, n, Some(b), epilogue)?;
    let then = |row: usize, col: usize, part: &mut [f32]| finish.apply(row, col, part);
    let mut y = Tensor::unwritten(&[t, n]).map_err(of(op))?;
    let to = y.values_mut().map_err(of(op))?;
    if w.dtype().tile().is_some() {
        quantized::many_rows(op, x.values().map_err(of(op))?, w, to, then)?;
        return Ok(y);
    }
    let products = if w.dtype() == DType::BF16 { Products::Bf16 } else { products };
    let (x, w) = (Matrix::row_major(activations(op, x)?, t, k), Matrix::row_major(weights(op, w)?, n, k));
    gemm_then(to, x, w.t(), Start::Zero, products, then);
    Ok(y)
}

/// t, k and n, where all shapes go together.
fn sizes(
    op: &'static str,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    epilogue: Epilogue<'_>,
) -> Result<(usize, usize, usize)> {
    let (t, k) = x.dims2().map_err(of(op))?;
    let (n, wk) = w.dims2().map_err(of(op))?;
    expect(op, "columns of the weight", wk, k)?;
    if let Some(bias) = bias {
        expect(op, "shape of the bias", bias.shape(), &[n])?;
    }
    if let Epilogue::Residual(residual) = epilogue {
        expect(op, "shape of the residual", residual.shape(), &[t, n])?;
    }
    Ok((t, k, n))
}

/// The dtype of activations on a GPU, where all dtypes go together.
fn dtypes(op: &'static str, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, epilogue: Epilogue<'_>) -> Result<DType> {
    match (x.dtype(), w.dtype()) {
        (DType::F32, DType::F32 | DType::BF16) | (DType::BF16, DType::BF16) => {}
        (x, w) => {
            let wanted = "f32 with f32 or bf16, or bf16 with bf16".into();
            return Err(Error::Argument { op, what: "dtypes", wanted, found: format!("{x} with {w}") });
        }
    }
    if let Some(bias) = bias {
        expect(op, "dtype of the bias", bias.dtype(), DType::F32)?;
    }
    if let Epilogue::Residual(residual) = epilogue {
        expect(op, "dtype of the residual", residual.dtype(), x.dtype())?;
    }
    Ok(x.dtype())
}

fn activations<'a>(op: &'static str, x: &'a Tensor) -> Result<Values<'a>> {
    Ok(Values::F32(x.values().map_err(of(op))?))
}

fn weights<'a>(op: &'static str, w: &'a Tensor) -> Result<Values<'a>> {
    Ok(match w.dtype() {
        DType::BF16 => Values::Bf16(w.values().map_err(of(op))?),
        _ => Values::F32(w.values().map_err(of(op))?),
    })
}

/// What is done to a part of a row of `x · Wᵀ`.
struct Finish<'a> {
    n: usize,
    bias: Option<&'a [f32]>,
    residual: Option<&'a [f32]>,
    gelu: bool,
}

impl<'a> Finish<'a> {
    fn new(op: &'static str, n: usize, bias: Option<&'a Tensor>, epilogue: Epilogue<'a>) -> Result<Self> {
        let bias = bias.map(|bias| bias.values().map_err(of(op))).transpose()?;
        let residual = match epilogue {
            Epilogue::Residual(residual) => Some(residual.values().map_err(of(op))?),
            Epilogue::None | Epilogue::Gelu => None,
        };
        Ok(Self { n, bias, residual, gelu: matches!(epilogue, Epilogue::Gelu) })
    }

    fn apply(&self, row: usize, col: usize, part: &mut [f32]) {
        if let Some(bias) = self.bias {
            simd::run(AddTo(part, &bias[col..]));
        }
        if let Some(residual) = self.residual {
            simd::run(AddTo(part, &residual[row * self.n + col..]));
        }
        if self.gelu {
            gelu::forward(part);
        }
    }
}

/// Adds as many numbers as there are to add to.
struct AddTo<'a>(&'a mut [f32], &'a [f32]);

impl Work for AddTo<'_> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        self.0.iter_mut().zip(self.1).for_each(|(y, x)| *y += x);
    }
}
