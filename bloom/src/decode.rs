//! Decoding, step after step. On a GPU a step is hundreds of short launches, which take the processor longer to ask for than the
//! GPU to do; so, as long as the same sequences run, a step is captured and then launched as one.

use kernels::attention::{KvCache, Since};
use kernels::embedding::Ids;
use tensor::{Device, Gpu, Graph, Tensor};

use crate::{Bloom, Result};

/// The steps of a generation.
pub(crate) struct Decoder<'m> {
    model: &'m Bloom,
    /// Where the caches and their tokens were after the last step.
    places: Vec<u64>,
    captured: Option<Captured>,
}

/// A step that can be launched for the next token.
struct Captured {
    logits: Tensor,
    graph: Graph,
    /// What its launches read that is not among the caches or the weights.
    ids: Ids,
    _since: Since,
}

impl<'m> Decoder<'m> {
    pub const fn new(model: &'m Bloom) -> Self {
        Self { model, places: Vec::new(), captured: None }
    }

    /// Reads one more token of each sequence; the logits after it `[b, v]` are there until the next step.
    pub fn step(&mut self, ids: &[u32], caches: &mut [&mut KvCache]) -> Result<Tensor> {
        match self.model.device() {
            Device::Cuda(gpu) if gpu.captures() => self.step_on(gpu, ids, caches),
            _ => self.plain(ids, caches),
        }
    }

    /// The first step of other sequences, and one that takes new memory for a cache, is as any; it also loads what it launches. The
    /// second is captured, the others are repetitions.
    fn step_on(&mut self, gpu: &Gpu, ids: &[u32], caches: &mut [&mut KvCache]) -> Result<Tensor> {
        // Caches of other sequences may be where those of earlier ones were.
        let is_whole = self.captured.as_ref().is_none_or(|captured| captured.graph.is_whole());
        let go_on = is_whole && places(gpu, caches)? == self.places && caches.iter().all(|cache| cache.has_room());
        if !go_on {
            self.captured = None;
            let logits = self.plain(ids, caches)?;
            self.places = places(gpu, caches)?;
            return Ok(logits);
        }
        let logits = if let Some(captured) = &mut self.captured {
            captured.ids.replace(ids)?;
            captured.graph.launch()?;
            caches.iter_mut().for_each(|cache| cache.step());
            captured.logits.clone()
        } else {
            let before: Vec<usize> = caches.iter().map(|cache| cache.len()).collect();
            match Captured::new(self.model, gpu, ids, caches) {
                Ok(captured) => self.captured.insert(captured).logits.clone(),
                Err(e) => {
                    // This driver cannot do it after all.
                    gpu.give_up_captures(e.to_string());
                    caches.iter_mut().zip(before).for_each(|(cache, tokens)| cache.truncate(tokens));
                    return self.plain(ids, caches);
                }
            }
        };
        self.places = places(gpu, caches)?;
        Ok(logits)
    }

    fn plain(&self, ids: &[u32], caches: &mut [&mut KvCache]) -> Result<Tensor> {
        self.model.decode(&Ids::new(self.model.device(), ids, self.model.vocab())?, caches, None)
    }
}

impl Captured {
    fn new(model: &Bloom, gpu: &Gpu, ids: &[u32], caches: &mut [&mut KvCache]) -> Result<Self> {
        let ids = Ids::new(model.device(), ids, model.vocab())?;
        let mut since = Since::none(gpu)?;
        let (logits, graph) = gpu.capture(|| {
            let logits = model.decode(&ids, caches, Some(&since))?;
            since.count(gpu)?;
            Ok::<_, crate::Error>(logits)
        })?;
        Ok(Self { logits, graph, ids, _since: since })
    }
}

fn places(gpu: &Gpu, caches: &[&mut KvCache]) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for cache in caches {
        all.extend(cache.places(gpu)?);
    }
    Ok(all)
}
