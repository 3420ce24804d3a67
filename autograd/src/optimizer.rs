use kernels::adamw::{self, AdamW};
use tensor::{DType, Tensor};

use crate::{Error, Grads, Params, Result};

/// AdamW's constants (Loshchilov and Hutter, 2019) and the clipping of the gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub eps: f32,
    /// Decoupled weight decay, for parameters that decay.
    pub weight_decay: f32,
    /// The global norm to which larger gradients are scaled down; 0 leaves them.
    pub clip: f32,
}

impl Default for Settings {
    /// torch's defaults, no decay, no clipping.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, clip: 0.0 }
    }
}

/// AdamW with its state: the moments of every parameter and the number of steps taken.
#[derive(Debug)]
pub struct Optimizer {
    settings: Settings,
    moments: Vec<[Tensor; 2]>,
    steps: u64,
}

impl Optimizer {
    /// A fresh state for these parameters.
    ///
    /// # Errors
    /// None in practice: the shapes exist already.
    pub fn new(params: &Params, settings: Settings) -> Result<Self> {
        let zeros = |p: &crate::Param| {
            let zero = || Tensor::zeros(p.value.shape(), DType::F32);
            Ok([zero()?, zero()?])
        };
        Ok(Self { settings, moments: params.iter().map(zeros).collect::<tensor::Result<_>>()?, steps: 0 })
    }

    /// Steps taken so far.
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// The state as named tensors: `<parameter>.m` and `<parameter>.v`.
    pub fn state<'a>(&'a self, params: &'a Params) -> impl Iterator<Item = (String, &'a Tensor)> {
        params
            .iter()
            .zip(&self.moments)
            .flat_map(|(p, [m, v])| [(format!("{}.m", p.name), m), (format!("{}.v", p.name), v)])
    }

    /// Takes a saved state over; `find` gives the tensor of a name that [`Optimizer::state`] gave.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape or dtype, or the error of `find`.
    pub fn restore<E: From<Error>>(
        &mut self,
        params: &Params,
        steps: u64,
        mut find: impl FnMut(&str) -> std::result::Result<Option<Tensor>, E>,
    ) -> std::result::Result<(), E> {
        for (p, moments) in params.iter().zip(&mut self.moments) {
            for (moment, suffix) in moments.iter_mut().zip(["m", "v"]) {
                let name = format!("{}.{suffix}", p.name);
                let mismatch = |found: String| Error::Mismatch {
                    what: format!("optimiser state {name}"),
                    wanted: format!("f32 {:?}", moment.shape()),
                    found,
                };
                let Some(t) = find(&name)? else { return Err(mismatch("nothing".into()).into()) };
                if t.shape() != moment.shape() || t.dtype() != DType::F32 {
                    return Err(mismatch(format!("{} {:?}", t.dtype(), t.shape())).into());
                }
                *moment = t;
            }
        }
        self.steps = steps;
        Ok(())
    }

    /// The root of the sum of all squared gradients.
    ///
    /// # Errors
    /// None in practice: every gradient is f32.
    pub fn norm(grads: &Grads) -> Result<f64> {
        let mut sum = 0.0;
        for g in grads.iter() {
            sum += adamw::sum_of_squares(g)?;
        }
        Ok(sum.sqrt())
    }

    /// One step at learning rate `lr`: clips by the global norm `norm` (of [`Optimizer::norm`]), then updates every parameter.
    ///
    /// # Errors
    /// Parameters that are not f32, or not those the optimiser was made for.
    pub fn step(&mut self, params: &mut Params, grads: &Grads, norm: f64, lr: f32) -> Result<()> {
        if params.len() != self.moments.len() {
            return Err(Error::Mismatch {
                what: "parameters".into(),
                wanted: self.moments.len().to_string(),
                found: params.len().to_string(),
            });
        }
        let Settings { beta1, beta2, eps, weight_decay, clip } = self.settings;
        // As torch.nn.utils.clip_grad_norm_: the norm is nudged by 1e-6.
        let scale = if clip > 0.0 { (f64::from(clip) / (norm + 1e-6)).min(1.0) as f32 } else { 1.0 };
        self.steps += 1;
        for ((p, g), [m, v]) in params.iter_mut().zip(grads.iter()).zip(&mut self.moments) {
            let weight_decay = if p.decays { weight_decay } else { 0.0 };
            let adamw = AdamW { lr, beta1, beta2, eps, weight_decay };
            adamw::update(&mut p.value, g, m, v, &adamw, self.steps, scale)?;
        }
        Ok(())
    }
}
