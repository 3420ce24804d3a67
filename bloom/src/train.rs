use std::sync::Arc;

use autograd::{Grads, Optimizer, Settings, Tape, head_loss};
use tensor::{DType, Tensor};

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
pub struct Trainer {
    model: Bloom,
    grads: Grads,
    optimizer: Optimizer,
    recompute: Recompute,
}

impl Trainer {
    /// Takes a model over. Its weights become f32, which are their own masters.
    ///
    /// # Errors
    /// None in practice: weights convert to f32.
    pub fn new(mut model: Bloom, settings: Settings, recompute: Recompute) -> Result<Self> {
        for p in model.params.iter_mut() {
            p.value = p.value.to_dtype(DType::F32)?;
        }
        let grads = Grads::zeros(&model.params)?;
        let optimizer = Optimizer::new(&model.params, settings)?;
        Ok(Self { model, grads, optimizer, recompute })
    }

    /// The model as it is now.
    pub const fn model(&self) -> &Bloom {
        &self.model
    }

    /// The gradients gathered since the last update.
    pub const fn grads(&self) -> &Grads {
        &self.grads
    }

    /// The optimiser, to save its state.
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

    /// The trained model, without what training needed.
    pub fn into_model(self) -> Bloom {
        self.model
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
        Ok(losses)
    }

    /// The global norm of the gathered gradient.
    ///
    /// # Errors
    /// None in practice: every gradient is f32.
    pub fn grad_norm(&self) -> Result<f64> {
        Ok(Optimizer::norm(&self.grads)?)
    }

    /// Updates the weights at learning rate `lr` and clears the gradients. `norm` is [`Trainer::grad_norm`].
    ///
    /// # Errors
    /// None in practice: shapes and dtypes were checked before.
    pub fn update(&mut self, norm: f64, lr: f32) -> Result<()> {
        self.optimizer.step(&mut self.model.params, &self.grads, norm, lr)?;
        Ok(self.grads.clear()?)
    }
}
