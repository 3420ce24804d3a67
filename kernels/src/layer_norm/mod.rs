//! Layer normalisation over the last axis (Ba et al., arXiv:1607.06450), as `torch.nn.LayerNorm`:
//!
//! y = gamma · x̂ + beta, x̂ = (x − mean) / √(variance + eps), the variance over c, not c − 1.
//!
//! With g = gamma · dy: dx = (g − mean(g) − x̂ · mean(g · x̂)) / √(variance + eps); dgamma = Σ dy · x̂ and dbeta = Σ dy over
//! the rows. The variance is taken in a second pass over the row, about its mean, and the sums over a row and over rows
//! are f64: the mean of numbers far from zero would otherwise eat the digits of x̂.

mod cpu;
mod cuda;
#[cfg(test)]
mod spec;

use tensor::{DType, Device, Tensor};

use crate::Result;
use crate::error::{expect, float, of};

const OP: &str = "layer_norm";

/// What [`forward`] gives.
#[derive(Clone, Debug)]
pub struct Normed {
    /// The normalised rows `[t, c]`, of the dtype of x.
    pub y: Tensor,
    /// Each row's mean and 1 / √(variance + eps) `[t, 2]`, f32.
    pub stats: Tensor,
}

/// Normalises the rows of `x` `[t, c]` (f32, on a GPU also bf16); `gamma` and `beta` `[c]` are f32 or bf16.
///
/// # Errors
/// Shapes or dtypes that do not fit.
pub fn forward(x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f32) -> Result<Normed> {
    let (t, c) = x.dims2().map_err(of(OP))?;
    parameters(&[(gamma, "gamma"), (beta, "beta")], c)?;
    if let Device::Cuda(gpu) = x.device() {
        float(OP, "x's dtype", x)?;
        return cuda::forward(gpu, x, gamma, beta, eps);
    }
    let (gamma, beta) = (near(gamma)?, near(beta)?);
    let affine = cpu::Affine { gamma: floats(&gamma)?, beta: floats(&beta)?, eps };
    let (y, stats) = cpu::forward(floats(x)?, &affine);
    Ok(Normed { y: tensor([t, c], y)?, stats: tensor([t, 2], stats)? })
}

/// `x + residual` `[t, c]` and its normalised rows, in one pass.
///
/// # Errors
/// Shapes or dtypes that do not fit.
pub fn add_forward(x: &Tensor, residual: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f32) -> Result<(Tensor, Normed)> {
    let (t, c) = x.dims2().map_err(of(OP))?;
    expect(OP, "residual's shape", residual.shape(), x.shape())?;
    parameters(&[(gamma, "gamma"), (beta, "beta")], c)?;
    if let Device::Cuda(gpu) = x.device() {
        expect(OP, "residual's dtype", residual.dtype(), float(OP, "x's dtype", x)?)?;
        return cuda::add_forward(gpu, x, residual, gamma, beta, eps);
    }
    let (gamma, beta) = (near(gamma)?, near(beta)?);
    let affine = cpu::Affine { gamma: floats(&gamma)?, beta: floats(&beta)?, eps };
    let (sum, y, stats) = cpu::add_forward(floats(x)?, floats(residual)?, &affine);
    Ok((tensor([t, c], sum)?, Normed { y: tensor([t, c], y)?, stats: tensor([t, 2], stats)? }))
}

/// The gradient `dx` `[t, c]` of the rows `x` `[t, c]` that were normalised, from `dy` `[t, c]` and the `stats` `[t, 2]` of
/// [`forward`]. The gradients of gamma and beta are added to `dgamma` and `dbeta` `[c]`, f32.
///
/// # Errors
/// Shapes or dtypes that do not fit.
pub fn backward(
    dy: &Tensor,
    x: &Tensor,
    gamma: &Tensor,
    stats: &Tensor,
    dgamma: &mut Tensor,
    dbeta: &mut Tensor,
) -> Result<Tensor> {
    let (t, c) = x.dims2().map_err(of(OP))?;
    expect(OP, "dy's shape", dy.shape(), x.shape())?;
    expect(OP, "stats' shape", stats.shape(), &[t, 2])?;
    expect(OP, "dgamma's shape", dgamma.shape(), &[c])?;
    expect(OP, "dbeta's shape", dbeta.shape(), &[c])?;
    parameters(&[(gamma, "gamma")], c)?;
    if let Device::Cuda(gpu) = x.device() {
        expect(OP, "dy's dtype", dy.dtype(), float(OP, "x's dtype", x)?)?;
        for (f32, what) in [(stats, "stats' dtype"), (dgamma, "dgamma's dtype"), (dbeta, "dbeta's dtype")] {
            expect(OP, what, f32.dtype(), DType::F32)?;
        }
        return cuda::backward(gpu, dy, x, gamma, stats, dgamma, dbeta);
    }
    let gamma = near(gamma)?;
    let rows = cpu::Rows { dy: floats(dy)?, x: floats(x)?, stats: floats(stats)?, gamma: floats(&gamma)? };
    let dgamma = dgamma.values_mut::<f32>().map_err(of(OP))?;
    let dbeta = dbeta.values_mut::<f32>().map_err(of(OP))?;
    tensor([t, c], cpu::backward(&rows, dgamma, dbeta))
}

/// Checks the shapes of gamma and beta `[c]`, and that they are floats of one dtype.
fn parameters(all: &[(&Tensor, &'static str)], c: usize) -> Result<()> {
    for (x, what) in all {
        expect(OP, what, x.shape(), &[c])?;
        expect(OP, what, float(OP, what, x)?, all[0].0.dtype())?;
    }
    Ok(())
}

fn near(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::F32).map_err(of(OP))
}

fn floats(x: &Tensor) -> Result<&[f32]> {
    x.values::<f32>().map_err(of(OP))
}

fn tensor(sizes: [usize; 2], values: Vec<f32>) -> Result<Tensor> {
    Tensor::new(&sizes, values).map_err(of(OP))
}
