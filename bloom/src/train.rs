use std::sync::Arc;

use autograd::{GradNorm, Grads, Optimizer, Settings, Tape, head_loss};
use kernels::linear::Products;
use tensor::{DType, Device, Tensor};

use crate::model::Attend;
use crate::{Bloom, Error, Result};

/// Documents packed into one row of tokens, and what is to be learned from them.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The tokens of all documents, one after the other.
    pub ids: Vec<u32>,
    /// Where each document starts, and the end of the last.
    pub bounds: Vec<u32>,
    /// Positions whose next token is learned.
    pub rows: Vec<u32>,
    /// What comes next there.
    pub targets: Vec<u32>,
}

/// Whether a block's inner values are kept for the backward pass or computed again from the block's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    /// Keep them: faster.
    Keep,
    /// Compute them again: memory for one block instead of all.
    Again,
}

/// A model in training: weights, their gradients, the optimiser.
///
/// In main memory weights are f32 and their own masters, and products are f32 or, by [`Trainer::set_products`], bf16. On a GPU matrices are
/// bf16, and so are activations and their gradients; the optimiser works on f32 masters. Norms and biases are f32 everywhere.
pub struct Trainer {
    model: Bloom,
    grads: Grads,
    optimizer: Optimizer,
    recompute: Recompute,
}

impl Trainer {
    /// Takes a model over, to train it on `device`.
    ///
    /// # Errors
    /// What a GPU says, such as that its memory is full.
    pub fn new(model: Bloom, settings: Settings, recompute: Recompute, device: &Device) -> Result<Self> {
        let matrices = if device == &Device::Cpu { DType::F32 } else { DType::BF16 };
        Self::with_matrices(model, settings, recompute, device, matrices)
    }

    /// As [`new`](Self::new), with matrices held as f32 or bf16 on either device; activations are f32 on a CPU all the same.
    ///
    /// # Errors
    /// As there.
    pub fn with_matrices(
        mut model: Bloom,
        settings: Settings,
        recompute: Recompute,
        device: &Device,
        matrices: DType,
    ) -> Result<Self> {
        for p in model.params.iter_mut() {
            // Converted before it goes to a GPU, one weight at a time: a stored model need not fit into main memory.
            p.value = p.value.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.to_device(device)?;
            if device == &Device::Cpu {
                // A copy of its own now, not at its first update: until the last of them the mapped file would stay, too.
                p.value.values_mut::<f32>()?;
            }
        }
        let optimizer = Optimizer::new(&mut model.params, settings, matrices)?;
        let grads = Grads::zeros(&model.params)?;
        Ok(Self { model, grads, optimizer, recompute })
    }

    /// How it multiplies from now on, in main memory; a GPU goes by its matrices. Weights, gradients and sums stay f32.
    pub const fn set_products(&mut self, products: Products) {
        self.model.params.products = products;
    }

    /// The model as it computes now.
    pub const fn model(&self) -> &Bloom {
        &self.model
    }

    /// The model in f32, as a checkpoint holds it; memory is shared.
    pub fn exact_model(&self) -> Bloom {
        let mut params = self.model.params.clone();
        params.products = Products::default();
        for (p, master) in params.iter_mut().zip(self.optimizer.masters(&self.model.params)) {
            p.value = master.clone();
        }
        Bloom { params, config: self.model.config.clone(), layout: self.model.layout.clone() }
    }

    /// The gradients gathered since the last update.
    pub const fn grads(&self) -> &Grads {
        &self.grads
    }

    /// The optimiser, to save its state; its parameters are the [`exact_model`](Self::exact_model)'s.
    pub const fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// Takes a saved optimiser state over; see [`Optimizer::restore`].
    ///
    /// # Errors
    /// As there.
    pub fn restore<E: From<autograd::Error>>(
        &mut self,
        steps: u64,
        find: impl FnMut(&str) -> std::result::Result<Option<Tensor>, E>,
    ) -> std::result::Result<(), E> {
        self.optimizer.restore(&self.model.params, steps, find)
    }

    /// The trained model in f32, without what training needed.
    pub fn into_model(self) -> Bloom {
        self.exact_model()
    }

    /// Adds the gradient of `scale · Σ losses` of one packed batch. Returns the loss in nats at each of its rows.
    /// A step's `scale` is one over the number of targets in all its batches, so that how the step is cut does not matter.
    ///
    /// # Errors
    /// A batch whose parts do not go together.
    pub fn accumulate(&mut self, batch: &Batch, scale: f32) -> Result<Vec<f32>> {
        let model = &self.model;
        let (ids, bounds) = model.check(&batch.ids, &batch.bounds)?;
        if batch.rows.len() != batch.targets.len() {
            let (rows, targets) = (batch.rows.len(), batch.targets.len());
            return Err(Error::Input(format!("{targets} targets for {rows} rows")));
        }
        let rows: Arc<[u32]> = batch.rows.as_slice().into();
        let params = &model.params;
        let keep = self.recompute == Recompute::Keep;

        // One tape for the embedding, one for each block, one for the end. A block's tape is made in the forward pass
        // or, from the block's kept input, in the backward pass.
        let mut first = Tape::recording(params);
        let embedded = model.embed(&mut first, &ids)?;
        let mut x = embedded.value().clone();
        let mut blocks = Vec::with_capacity(model.config.layers);
        for layer in 0..model.config.layers {
            let mut tape = if keep { Tape::recording(params) } else { Tape::off(params) };
            let input = tape.input(x.clone());
            let output = model.block(&mut tape, layer, &input, &mut Attend::Packed(&bounds))?;
            x = output.value().clone();
            blocks.push((input, keep.then_some((tape, output))));
        }
        let mut last = Tape::recording(params);
        let input = last.input(x);
        let hidden = model.finish(&mut last, &input, &rows)?;
        let (losses, dhidden) = head_loss(&hidden, model.layout.head, &batch.targets, scale, params, &mut self.grads)?;

        let dead = || Error::Input("a gradient vanished between blocks".into());
        let mut dx = last.backward(&hidden, dhidden, &mut self.grads)?.take(&input).ok_or_else(dead)?;
        for (layer, (input, kept)) in blocks.into_iter().enumerate().rev() {
            let (input, tape, output) = if let Some((tape, output)) = kept {
                (input, tape, output)
            } else {
                let mut tape = Tape::recording(params);
                let input = tape.input(input.value().clone());
                let output = model.block(&mut tape, layer, &input, &mut Attend::Packed(&bounds))?;
                (input, tape, output)
            };
            dx = tape.backward(&output, dx, &mut self.grads)?.take(&input).ok_or_else(dead)?;
        }
        first.backward(&embedded, dx, &mut self.grads)?;
        // Last, as a GPU is waited for.
        Ok(losses.to_device(&Device::Cpu)?.values()?.to_vec())
    }

    /// The global norm of the gathered gradient.
    ///
    /// # Errors
    /// What a GPU says.
    pub fn grad_norm(&self) -> Result<GradNorm> {
        Ok(self.optimizer.norm(&self.grads)?)
    }

    /// Updates the weights at learning rate `lr`, unless the norm of the gradients, [`Trainer::grad_norm`], is not finite; and clears
    /// the gradients.
    ///
    /// # Errors
    /// What a GPU says: shapes and dtypes were checked before.
    pub fn update(&mut self, norm: &GradNorm, lr: f32) -> Result<()> {
        self.optimizer.step(&mut self.model.params, &self.grads, norm, lr)?;
        Ok(self.grads.clear()?)
    }
}
