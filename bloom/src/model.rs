use std::sync::Arc;

use autograd::{Linear, Norm, ParamId, Params, Tape, Var};
use kernels::attention::{self, KvCache, Since};
use kernels::{cross_entropy, embedding, linear, warm};
use tensor::{DType, Device, Tensor};

use crate::{Config, Error, Result};

/// Shared by the operations of a tape.
type Ids = Arc<[u32]>;

/// Tokens of prompts that go through the blocks together in main memory: more would be no faster, and take more room.
pub(crate) const PIECE: usize = 512;

/// A BLOOM with its weights.
#[derive(Clone, Debug)]
pub struct Bloom {
    pub(crate) config: Config,
    pub(crate) params: Params,
    pub(crate) layout: Layout,
}

/// Where each weight is among the parameters.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub embedding: ParamId,
    pub embedding_norm: Norm,
    pub blocks: Vec<Block>,
    pub final_norm: Norm,
    /// The embedding, unless the head is a matrix of its own.
    pub head: ParamId,
}

/// One block's weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub attention_norm: Norm,
    pub qkv: Linear,
    pub dense: Linear,
    pub mlp_norm: Norm,
    pub up: Linear,
    pub down: Linear,
}

/// What a block's attention reads and where keys and values go.
pub(crate) enum Attend<'a, 'c> {
    /// Documents in one row of tokens, nothing kept.
    Packed(&'a Arc<[u32]>),
    /// Documents in one row of tokens, each following what its cache holds and added to it.
    Prefill(&'a Arc<[u32]>, &'a mut [&'c mut KvCache]),
    /// Documents in one row of tokens, each following what its cache holds, which stays as it is.
    Branch(&'a Arc<[u32]>, &'a [&'c KvCache]),
    /// One new token for each cache, and those since the step was captured, if it is.
    Decode(&'a mut [&'c mut KvCache], Option<&'a Since>),
}

impl Bloom {
    /// The shape.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Takes over the special ids of the tokenizer that the model is trained with.
    pub fn set_special_ids(&mut self, bos: u32, eos: u32, pad: u32) {
        self.config.set_special_ids(bos, eos, pad);
    }

    /// The weights.
    pub const fn params(&self) -> &Params {
        &self.params
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        self.params.value(self.layout.embedding).device()
    }

    /// Moves the weights to a device, one after the other. A GPU gets quantised ones as bf16.
    ///
    /// # Errors
    /// What a GPU says, such as that its memory is full.
    pub fn to_device(mut self, device: &Device) -> Result<Self> {
        let unpacks = device != &Device::Cpu;
        for p in self.params.iter_mut() {
            if unpacks && p.value.dtype().tile().is_some() {
                p.value = linear::dequantize(&p.value)?.to_dtype(DType::BF16)?;
            }
            p.value = p.value.to_device(device)?;
        }
        if unpacks {
            self.config.set_quantized(None);
        }
        Ok(self)
    }

    /// Runs `work`, in main memory with all threads [`warm`].
    pub(crate) fn awake<R>(&self, work: impl FnOnce() -> R) -> R {
        if self.device() == &Device::Cpu { warm(work) } else { work() }
    }

    /// Puts every parameter in the optimiser's decaying group, biases and norms too, as torch's AdamW does by default.
    pub fn decay_everything(&mut self) {
        self.params.iter_mut().for_each(|p| p.decays = true);
    }

    /// v, from the embedding itself.
    pub const fn vocab(&self) -> usize {
        self.config.vocab
    }

    /// Embeds `ids` and normalises them: `[t, c]`.
    pub(crate) fn embed(&self, tape: &mut Tape, ids: &Arc<[u32]>) -> Result<Var> {
        let x = tape.embedding(self.layout.embedding, ids)?;
        Ok(tape.layer_norm(&x, self.layout.embedding_norm)?)
    }

    /// Block `layer`: `[t, c]` to `[t, c]`.
    pub(crate) fn block(&self, tape: &mut Tape, layer: usize, x: &Var, attend: &mut Attend) -> Result<Var> {
        let block = &self.layout.blocks[layer];
        let heads = self.config.heads;
        let normed = tape.layer_norm(x, block.attention_norm)?;
        let qkv = tape.linear(&normed, block.qkv)?;
        let attended = match attend {
            Attend::Packed(bounds) => tape.attention(&qkv, bounds, heads)?,
            Attend::Prefill(bounds, caches) => {
                attention::append(qkv.value(), bounds, caches, layer, None)?;
                // From the cache, whether all of a prompt is new or not: what a row reads does not depend on that.
                let caches: Vec<&KvCache> = caches.iter().map(|c| &**c).collect();
                tape.input(attention::extend(qkv.value(), bounds, &caches, layer)?)
            }
            Attend::Branch(bounds, caches) => tape.input(attention::branch(qkv.value(), bounds, caches, layer)?),
            Attend::Decode(caches, since) => {
                let each: Vec<u32> = (0..=caches.len() as u32).collect();
                attention::append(qkv.value(), &each, caches, layer, *since)?;
                let caches: Vec<&KvCache> = caches.iter().map(|c| &**c).collect();
                tape.input(attention::decode(qkv.value(), &caches, layer, *since)?)
            }
        };
        let attended = tape.linear(&attended, block.dense)?;
        let residual = if self.config.residual_after_norm { &normed } else { x };
        let (sum, normed) = tape.add_layer_norm(&attended, residual, block.mlp_norm)?;
        let up = tape.linear_gelu(&normed, block.up)?;
        let residual = if self.config.residual_after_norm { &normed } else { &sum };
        Ok(tape.linear_residual(&up, block.down, residual)?)
    }

    /// The rows of `x` that the head will see, through the last layer norm: `[r, c]`.
    pub(crate) fn finish(&self, tape: &mut Tape, x: &Var, rows: &Arc<[u32]>) -> Result<Var> {
        let x = tape.gather(x, rows)?;
        Ok(tape.layer_norm(&x, self.layout.final_norm)?)
    }

    /// The states after the embedding, after each block, and after the last layer norm, of documents in one row of
    /// tokens: l + 2 tensors `[t, c]`.
    ///
    /// # Errors
    /// Ids at or beyond v, or bounds that do not go with them.
    pub fn hidden_states(&self, ids: &[u32], bounds: &[u32]) -> Result<Vec<Tensor>> {
        let (ids, bounds) = self.check(ids, bounds)?;
        let mut tape = Tape::off(&self.params);
        let mut x = self.embed(&mut tape, &ids)?;
        let mut states = vec![x.value().clone()];
        for layer in 0..self.config.layers {
            x = self.block(&mut tape, layer, &x, &mut Attend::Packed(&bounds))?;
            states.push(x.value().clone());
        }
        let rows: Arc<[u32]> = (0..ids.len() as u32).collect();
        states.push(self.finish(&mut tape, &x, &rows)?.value().clone());
        Ok(states)
    }

    /// The logits at chosen positions `rows` of documents in one row of tokens: `[r, v]`.
    ///
    /// # Errors
    /// Ids at or beyond v, or bounds or rows that do not go with them.
    pub fn logits(&self, ids: &[u32], bounds: &[u32], rows: &[u32]) -> Result<Tensor> {
        let hidden = self.states_of_rows(ids, bounds, rows)?;
        Ok(cross_entropy::logits(&hidden, self.params.value(self.layout.head))?)
    }

    /// The loss in nats of predicting `targets` at positions `rows` of documents in one row of tokens.
    ///
    /// # Errors
    /// Ids or targets at or beyond v, or bounds or rows that do not go with them.
    pub fn losses(&self, ids: &[u32], bounds: &[u32], rows: &[u32], targets: &[u32]) -> Result<Vec<f32>> {
        let hidden = self.states_of_rows(ids, bounds, rows)?;
        let losses = cross_entropy::forward(&hidden, self.params.value(self.layout.head), targets)?;
        Ok(losses.to_device(&Device::Cpu)?.values()?.to_vec())
    }

    fn states_of_rows(&self, ids: &[u32], bounds: &[u32], rows: &[u32]) -> Result<Tensor> {
        let (ids, bounds) = self.check(ids, bounds)?;
        let mut tape = Tape::off(&self.params);
        let mut x = self.embed(&mut tape, &ids)?;
        // In main memory as if behind caches that hold nothing: keys and values are what generation would see.
        let none = vec![self.cache(); bounds.len() - 1];
        let none: Vec<&KvCache> = none.iter().collect();
        let cached = self.device() == &Device::Cpu;
        let mut attend = if cached { Attend::Branch(&bounds, &none) } else { Attend::Packed(&bounds) };
        for layer in 0..self.config.layers {
            x = self.block(&mut tape, layer, &x, &mut attend)?;
        }
        Ok(self.finish(&mut tape, &x, &rows.into())?.value().clone())
    }

    /// Reads the prompts, one after the other in `ids`, each behind what is in its cache; returns the state that the head is to see
    /// after each: `[b, c]`.
    pub(crate) fn prefill(&self, ids: &[u32], bounds: &[u32], caches: &mut [&mut KvCache]) -> Result<Tensor> {
        let (ids, bounds) = self.check(ids, bounds)?;
        if bounds.windows(2).any(|w| w[0] == w[1]) {
            return Err(Error::Input("an empty prompt: wanted at least one token".into()));
        }
        if self.device() != &Device::Cpu {
            return self.piece(&ids, &bounds, caches, &bounds[1..]);
        }
        // In pieces about equal, which changes no bit: what a token reads of earlier ones is in its cache.
        let size = ids.len().div_ceil(ids.len().div_ceil(PIECE).max(1)).max(1);
        let mut states = Vec::with_capacity((bounds.len() - 1) * self.config.hidden);
        for (i, ids) in ids.chunks(size).enumerate() {
            let [start, end] = [i * size, i * size + ids.len()].map(|at| at as u32);
            let first = bounds[1..].partition_point(|&b| b <= start);
            let last = bounds.partition_point(|&b| b < end);
            let within = |&b: &u32| b.clamp(start, end) - start;
            let (here, ends): (Vec<u32>, Vec<u32>) = (
                bounds[first..=last].iter().map(within).collect(),
                bounds[first + 1..=last].iter().filter(|&&b| b <= end).map(within).collect(),
            );
            let piece = self.piece(&ids.into(), &here.into(), &mut caches[first..last], &ends)?;
            states.extend_from_slice(piece.values::<f32>()?);
        }
        Ok(Tensor::new(&[bounds.len() - 1, self.config.hidden], states)?)
    }

    /// As [`prefill`](Self::prefill), at one go; the states are those before `ends`, `[e, c]`.
    fn piece(&self, ids: &Ids, bounds: &Ids, caches: &mut [&mut KvCache], ends: &[u32]) -> Result<Tensor> {
        let mut tape = Tape::off(&self.params);
        let mut x = self.embed(&mut tape, ids)?;
        for layer in 0..self.config.layers {
            x = self.block(&mut tape, layer, &x, &mut Attend::Prefill(bounds, caches))?;
        }
        let rows: Arc<[u32]> = ends.iter().map(|end| end - 1).collect();
        Ok(self.finish(&mut tape, &x, &rows)?.value().clone())
    }

    /// The states that the head is to see `[t, c]` of documents that each follow a cache, perhaps the same one, and are added to none.
    /// On a CPU only.
    pub(crate) fn branches(&self, ids: &[u32], bounds: &[u32], caches: &[&KvCache]) -> Result<Tensor> {
        let (ids, bounds) = self.check(ids, bounds)?;
        let mut tape = Tape::off(&self.params);
        let mut x = self.embed(&mut tape, &ids)?;
        for layer in 0..self.config.layers {
            x = self.block(&mut tape, layer, &x, &mut Attend::Branch(&bounds, caches))?;
        }
        Ok(tape.layer_norm(&x, self.layout.final_norm)?.value().clone())
    }

    /// Reads one more token of each sequence; returns the logits after it: `[b, v]`. `since` is for a step that is captured.
    pub(crate) fn decode(
        &self,
        ids: &embedding::Ids,
        caches: &mut [&mut KvCache],
        since: Option<&Since>,
    ) -> Result<Tensor> {
        let mut tape = Tape::decode(&self.params);
        let x = tape.input(embedding::rows(self.params.value(self.layout.embedding), ids)?);
        let mut x = tape.layer_norm(&x, self.layout.embedding_norm)?;
        for layer in 0..self.config.layers {
            x = self.block(&mut tape, layer, &x, &mut Attend::Decode(caches, since))?;
        }
        let x = tape.layer_norm(&x, self.layout.final_norm)?;
        self.head(x.value())
    }

    /// The logits `[b, v]` of a few states `[b, c]`.
    pub(crate) fn head(&self, states: &Tensor) -> Result<Tensor> {
        Ok(cross_entropy::logits(states, self.params.value(self.layout.head))?)
    }

    /// A cache for one sequence: in main memory f32 if the weights are, else bf16, as a GPU would have it.
    pub(crate) fn cache(&self) -> KvCache {
        let weights = self.layout.blocks.first().map(|block| self.params.value(block.qkv.weight).dtype());
        let dtype = if weights == Some(DType::F32) { DType::F32 } else { DType::BF16 };
        KvCache::new(self.config.layers, self.config.heads, self.config.head_dim(), dtype)
    }

    pub(crate) fn check(&self, ids: &[u32], bounds: &[u32]) -> Result<(Ids, Ids)> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab()) {
            return Err(Error::Input(format!("token id {id}: the model has {} rows in its vocabulary", self.vocab())));
        }
        let ends = bounds.first() == Some(&0) && bounds.last().map(|&b| b as usize) == Some(ids.len());
        if !ends || bounds.windows(2).any(|w| w[0] > w[1]) {
            return Err(Error::Input(format!("document bounds do not divide {} tokens", ids.len())));
        }
        Ok((ids.into(), bounds.into()))
    }
}
