//! `AdamW` as in `torch.optim.AdamW`: Loshchilov & Hutter, "Decoupled Weight Decay Regularization" (2019), with bias
//! correction and ε outside the root.

mod cpu;
#[cfg(test)]
mod spec;

use tensor::Tensor;

use crate::error::{expect, of};
use crate::{Error, Result};

/// The settings of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of squared gradients.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Fraction of the weight taken off per unit of learning rate.
    pub weight_decay: f32,
}

/// `Σ g²` of an f32 tensor of any shape, in f64; the same bits for any number of threads.
///
/// # Errors
/// Not f32.
pub fn sum_of_squares(g: &Tensor) -> Result<f64> {
    Ok(cpu::sum_of_squares(g.values().map_err(of("adamw::sum_of_squares"))?))
}

/// One step on a weight, its gradient and its two moments, all f32 of one shape. `step` counts from 1. The gradient
/// is multiplied by `grad_scale` first, as for clipping.
///
/// # Errors
/// Different shapes, not f32, or step 0; then nothing was changed.
pub fn update(
    w: &mut Tensor,
    g: &Tensor,
    m: &mut Tensor,
    v: &mut Tensor,
    settings: &AdamW,
    step: u64,
    grad_scale: f32,
) -> Result<()> {
    let op = "adamw::update";
    if step == 0 {
        return Err(Error::Argument { op, what: "step", wanted: "1 or more".into(), found: "0".into() });
    }
    expect(op, "shape of the gradient", g.shape(), w.shape())?;
    expect(op, "shape of the first moment", m.shape(), w.shape())?;
    expect(op, "shape of the second moment", v.shape(), w.shape())?;
    let g = g.values().map_err(of(op))?;
    let (w, m, v) = (w.values_mut().map_err(of(op))?, m.values_mut().map_err(of(op))?, v.values_mut().map_err(of(op))?);
    cpu::update(w, g, m, v, &cpu::Factors::new(settings, step, grad_scale));
    Ok(())
}
