//! `AdamW` as in `torch.optim.AdamW`: Loshchilov & Hutter, "Decoupled Weight Decay Regularization" (2019), with bias
//! correction and ε outside the root; before it, clipping by the global norm as in `torch.nn.utils.clip_grad_norm_`.
//!
//! All weights are updated at once. On a GPU nothing comes back to the host between the gradients and the weights: the norm stays
//! there, and the update reads from it whether to scale the gradients and whether to do anything.

mod cpu;
mod cuda;
#[cfg(test)]
mod spec;

use half::bf16;
use tensor::{DType, Device, Tensor};

use crate::error::{expect, of};
use crate::{Error, Result, elementwise};

const OP: &str = "adamw";

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
    /// Fraction of a weight that decays taken off per unit of learning rate.
    pub weight_decay: f32,
}

/// A weight in a step, with all that goes with it, of one shape.
#[derive(Debug)]
pub struct Weight<'a> {
    /// The weight: f32, or bf16 where it has a master.
    pub value: &'a mut Tensor,
    /// Its exact value, f32, from which a bf16 weight is rounded after each step.
    pub master: Option<&'a mut Tensor>,
    /// Its gradient, f32.
    pub gradient: &'a Tensor,
    /// Means of the gradient and of its square, f32.
    pub moments: [&'a mut Tensor; 2],
    /// Whether weight decay applies.
    pub decays: bool,
}

/// The global norm of all gradients, where they are, and how they are scaled to clip it.
#[derive(Clone, Debug)]
pub struct Norm(Place);

#[derive(Clone, Debug)]
enum Place {
    Cpu {
        norm: f64,
        scale: f32,
    },
    /// The same two numbers in a tensor `[2]`.
    Gpu(Tensor),
}

impl Norm {
    /// The norm. Waits for a GPU to have computed it.
    ///
    /// # Errors
    /// What a GPU says.
    pub fn value(&self) -> Result<f64> {
        match &self.0 {
            Place::Cpu { norm, .. } => Ok(*norm),
            Place::Gpu(there) => {
                let here = there.to_device(&Device::Cpu).map_err(of(OP))?;
                Ok(here.values::<f32>().map_err(of(OP))?.first().copied().unwrap_or(f32::NAN).into())
            }
        }
    }
}

/// The root of `Σ g²` over all gradients, f32 tensors of any shape; the sum is f64 in a fixed order. An [`update`] by it scales
/// them so that it is at most `clip`; 0 leaves them.
///
/// # Errors
/// Gradients that are not f32 or not all on one device.
pub fn norm(gradients: &[&Tensor], clip: f32) -> Result<Norm> {
    let device = gradients.first().map_or(&Device::Cpu, |g| g.device());
    for g in gradients {
        expect(OP, "dtype of a gradient", g.dtype(), DType::F32)?;
        expect(OP, "device of a gradient", g.device(), device)?;
    }
    if let Device::Cuda(gpu) = device {
        return Ok(Norm(Place::Gpu(cuda::norm(gpu, gradients, clip)?)));
    }
    let mut sum = 0.0;
    for g in gradients {
        sum += cpu::sum_of_squares(g.values().map_err(of(OP))?);
    }
    // As on a GPU, a norm beyond f32 is infinite.
    let norm = if sum.sqrt() as f32 == f32::INFINITY { f64::INFINITY } else { sum.sqrt() };
    // torch too nudges the norm by 1e-6.
    let scale = if clip > 0.0 { (f64::from(clip) / (norm + 1e-6)).min(1.0) as f32 } else { 1.0 };
    Ok(Norm(Place::Cpu { norm, scale }))
}

/// One step, the `step`th from 1 on, on all weights. Where the norm of their gradients is not finite (as f32), nothing is changed.
///
/// # Errors
/// Shapes, dtypes or devices that do not go together, or step 0; then nothing was changed.
pub fn update(weights: &mut [Weight], settings: &AdamW, step: u64, norm: &Norm) -> Result<()> {
    if step == 0 {
        return Err(Error::Argument { op: OP, what: "step", wanted: "1 or more".into(), found: "0".into() });
    }
    let device = match &norm.0 {
        Place::Gpu(there) => there.device(),
        Place::Cpu { .. } => &Device::Cpu,
    };
    weights.iter().try_for_each(|weight| weight.check(device))?;
    let factors = [0.0, settings.weight_decay].map(|weight_decay| AdamW { weight_decay, ..*settings });
    let factors = factors.map(|settings| cpu::Factors::new(&settings, step));
    match (&norm.0, device) {
        (Place::Gpu(norm), Device::Cuda(gpu)) => cuda::update(gpu, weights, norm, &factors),
        (&Place::Cpu { norm, scale }, _) if norm.is_finite() => {
            for weight in weights {
                weight.update(scale, &factors[usize::from(weight.decays)])?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

impl Weight<'_> {
    fn check(&self, device: &Device) -> Result<()> {
        let Self { value, master, gradient, moments: [m, v], .. } = self;
        let dtype = if master.is_some() { DType::BF16 } else { DType::F32 };
        let mut all = vec![(&**value, dtype), (*gradient, DType::F32), (&**m, DType::F32), (&**v, DType::F32)];
        all.extend(master.as_deref().map(|master| (master, DType::F32)));
        for (x, dtype) in all {
            expect(OP, "a shape", x.shape(), value.shape())?;
            expect(OP, "a dtype", x.dtype(), dtype)?;
            expect(OP, "a device", x.device(), device)?;
        }
        Ok(())
    }

    fn update(&mut self, scale: f32, factors: &cpu::Factors) -> Result<()> {
        let Self { value, master, gradient, moments: [m, v], .. } = self;
        let g = gradient.values().map_err(of(OP))?;
        let moments = [m.values_mut().map_err(of(OP))?, v.values_mut().map_err(of(OP))?];
        let Some(master) = master else {
            cpu::update(value.values_mut().map_err(of(OP))?, g, moments, scale, factors);
            return Ok(());
        };
        let w = master.values_mut().map_err(of(OP))?;
        cpu::update(w, g, moments, scale, factors);
        elementwise::narrow(value.values_mut::<bf16>().map_err(of(OP))?, w);
        Ok(())
    }
}
