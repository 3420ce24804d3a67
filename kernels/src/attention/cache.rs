use bytemuck::Zeroable;
use bytemuck::allocation::zeroed_vec;
use half::bf16;
use rayon::prelude::*;
use tensor::{DType, Device, Gpu, Tensor};

use super::tile::{Kept, Rows};
use super::{OP, Sizes, cuda, documents, floats};
use crate::Result;
use crate::error::{expect, float, of};
use crate::simd::{self, Work};
use crate::{Error, attention};

/// The keys and values of one sequence's tokens in every layer, where what is added first is: in main memory f32 or bf16, on a GPU in
/// its dtype. A clone is a copy (on a GPU, one that is made when either is added to).
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Layer>,
    heads: usize,
    head_dim: usize,
    /// In main memory.
    dtype: DType,
    /// On a GPU, the heads' slopes, so that no token brings them along.
    slopes: Option<Tensor>,
    /// For how many tokens memory is taken at least when it is taken.
    room: usize,
}

/// Keys and values [h, capacity, d], of which the first `count` of each head are filled; or, on a GPU, both together,
/// [capacity, h, 2, d].
#[derive(Clone, Debug)]
struct Layer {
    keys: Numbers,
    values: Numbers,
    gpu: Option<Tensor>,
    count: usize,
    capacity: usize,
}

/// Numbers in main memory.
#[derive(Clone, Debug)]
enum Numbers {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl KvCache {
    /// A cache of no tokens for a model of `layers` layers and `heads` heads of `head_dim` elements, which in main memory keeps them as
    /// bf16 if that is `dtype`, else as f32.
    pub fn new(layers: usize, heads: usize, head_dim: usize, dtype: DType) -> Self {
        let none = if dtype == DType::BF16 { Numbers::Bf16(vec![]) } else { Numbers::F32(vec![]) };
        let layer = Layer { keys: none.clone(), values: none, gpu: None, count: 0, capacity: 0 };
        Self { layers: vec![layer; layers], heads, head_dim, dtype, slopes: None, room: 0 }
    }

    /// The same, which takes memory for so many tokens at once, when it takes any.
    #[must_use]
    pub fn with_room(self, tokens: usize) -> Self {
        Self { room: tokens, ..self }
    }

    /// The number of tokens that every layer holds.
    pub fn len(&self) -> usize {
        self.layers.iter().map(|layer| layer.count).min().unwrap_or(0)
    }

    /// Whether some layer holds no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every layer has memory for one more token.
    pub fn has_room(&self) -> bool {
        self.layers.iter().all(|layer| layer.count < layer.capacity)
    }

    /// Says that a captured step, launched again, has added a token to every layer.
    pub fn step(&mut self) {
        self.layers.iter_mut().for_each(|layer| layer.count += 1);
    }

    /// Forgets all but the first tokens.
    pub fn truncate(&mut self, tokens: usize) {
        self.layers.iter_mut().for_each(|layer| layer.count = layer.count.min(tokens));
    }

    /// A copy of the first tokens, with room for `capacity`: in main memory at once, on a GPU when there is more to add than fits.
    #[must_use]
    pub fn first(&self, tokens: usize, capacity: usize) -> Self {
        let mut first =
            Self { slopes: self.slopes.clone(), room: capacity, ..Self::new(0, self.heads, self.head_dim, self.dtype) };
        for layer in &self.layers {
            let count = layer.count.min(tokens);
            first.layers.push(if layer.gpu.is_some() {
                Layer { count, ..layer.clone() }
            } else {
                layer.resized(count, capacity.max(count), self.heads, self.head_dim)
            });
        }
        first
    }

    /// What the launches of a decoding step hold on to: where a GPU's memory is, how much it can hold, and how many tokens are in it. As
    /// long as none is anything else, the step can be launched again.
    ///
    /// # Errors
    /// Tokens that are not on this GPU.
    pub fn places(&self, gpu: &Gpu) -> Result<Vec<u64>> {
        let memory = self.layers.iter().flat_map(|layer| &layer.gpu).chain(&self.slopes);
        let addresses = memory.map(|memory| memory.gpu_pointer(gpu).map_err(of(OP)));
        let sizes = self.layers.iter().flat_map(|layer| [Ok(layer.capacity as u64), Ok(layer.count as u64)]);
        addresses.chain(sizes).collect()
    }

    pub(super) fn heads(&self) -> usize {
        self.heads
    }

    /// A head's keys and values.
    pub(super) fn rows(&self, layer: usize, head: usize) -> [Kept<'_>; 2] {
        let (layer, size) = (&self.layers[layer], self.head_dim);
        let (from, count) = (head * layer.capacity * size, layer.count);
        [&layer.keys, &layer.values].map(|all| match all {
            Numbers::F32(all) => Kept::F32(Rows { values: &all[from..], stride: size, count, size }),
            Numbers::Bf16(all) => Kept::Bf16(Rows { values: &all[from..], stride: size, count, size }),
        })
    }

    /// The number of tokens of a layer.
    pub(super) fn count(&self, layer: usize) -> usize {
        self.layers[layer].count
    }

    /// The number of tokens that a layer has memory for.
    pub(super) fn capacity(&self, layer: usize) -> usize {
        self.layers[layer].capacity
    }

    /// A layer's memory on a GPU, if it has any.
    pub(super) fn memory(&self, layer: usize) -> Option<&Tensor> {
        self.layers[layer].gpu.as_ref()
    }

    /// As [`memory`](Self::memory), to add to.
    pub(super) fn memory_mut(&mut self, layer: usize) -> Option<&mut Tensor> {
        self.layers[layer].gpu.as_mut()
    }

    /// The heads' slopes on the GPU that has the tokens.
    pub(super) fn slopes(&self) -> Option<&Tensor> {
        self.slopes.as_ref()
    }

    /// Says that `more` tokens have been written behind the others.
    pub(super) fn add(&mut self, layer: usize, more: usize) {
        self.layers[layer].count += more;
    }

    /// Room on a GPU for `more` tokens of a layer.
    pub(super) fn reserve(&mut self, gpu: &Gpu, dtype: DType, layer: usize, more: usize) -> Result<()> {
        let (heads, head_dim) = (self.heads, self.head_dim);
        let layer = &mut self.layers[layer];
        let Some(capacity) = layer.grown(more, self.room) else { return Ok(()) };
        if self.slopes.as_ref().is_none_or(|slopes| slopes.gpu_pointer(gpu).is_err()) {
            self.slopes = Some(cuda::slopes_on(gpu, heads)?);
        }
        // Whole multiples of 16 bytes, whatever the head.
        let capacity = capacity.next_multiple_of(16);
        let mut grown = Tensor::undefined(gpu, &[capacity, heads, 2, head_dim], dtype).map_err(of(OP))?;
        if let Some(full) = &layer.gpu {
            cuda::copy(gpu, &mut grown, full, layer.count * heads * 2 * head_dim)?;
        }
        layer.gpu = Some(grown);
        layer.capacity = capacity;
        Ok(())
    }

    /// An error unless this cache is for heads like these, has that layer, in it at least `tokens` tokens, and these where
    /// `qkv` is and in its dtype.
    pub(super) fn check(&self, qkv: &Tensor, sizes: &Sizes, layer: usize, tokens: usize) -> Result<()> {
        expect(OP, "the cache's heads and head size", (self.heads, self.head_dim), (sizes.heads, sizes.d))?;
        let bad =
            |what, wanted: String, found: usize| Error::Argument { op: OP, what, wanted, found: found.to_string() };
        let found = self
            .layers
            .get(layer)
            .ok_or_else(|| bad("the cache's layer", format!("less than {}", self.layers.len()), layer))?;
        if found.count < tokens {
            return Err(bad("cached tokens", format!("{tokens} or more"), found.count));
        }
        if found.capacity > 0 {
            let (device, dtype) = found.gpu.as_ref().map_or((&Device::Cpu, DType::F32), |x| (x.device(), x.dtype()));
            expect(OP, "the cache's device", device, qkv.device())?;
            expect(OP, "the dtype of what the cache was given", dtype, qkv.dtype())?;
        }
        Ok(())
    }
}

impl Clone for KvCache {
    fn clone(&self) -> Self {
        let capacity = self.layers.iter().map(|layer| layer.capacity).max().unwrap_or(0);
        Self { room: self.room.max(capacity), ..self.first(usize::MAX, capacity) }
    }
}

impl Layer {
    /// The capacity with room for `more` tokens, if there is none yet: `foreseen` if that is enough, else at least the double.
    fn grown(&self, more: usize, foreseen: usize) -> Option<usize> {
        let needed = self.count + more;
        let capacity = if needed <= foreseen { foreseen } else { needed.max(2 * self.capacity) };
        (needed > self.capacity).then_some(capacity)
    }

    fn reserve(&mut self, more: usize, foreseen: usize, heads: usize, head_dim: usize) {
        if let Some(capacity) = self.grown(more, foreseen) {
            *self = self.resized(self.count, capacity, heads, head_dim);
        }
    }

    /// A copy of the first tokens in main memory, with room for `capacity`.
    fn resized(&self, count: usize, capacity: usize, heads: usize, head_dim: usize) -> Self {
        let [had, first, has] = [self.capacity, count, capacity].map(|tokens| tokens * head_dim);
        let copy = |all: &Numbers| match all {
            Numbers::F32(all) => Numbers::F32(resized(all, heads, [had, first, has])),
            Numbers::Bf16(all) => Numbers::Bf16(resized(all, heads, [had, first, has])),
        };
        Self { keys: copy(&self.keys), values: copy(&self.values), gpu: None, count, capacity }
    }
}

/// The `first` numbers of each head, of which there were `had` and will be `has`.
fn resized<T: Copy + Zeroable>(all: &[T], heads: usize, [had, first, has]: [usize; 3]) -> Vec<T> {
    // Zeroed by the system, if at all, when it is first used.
    let mut resized = zeroed_vec(heads * has);
    for head in 0..heads {
        resized[head * has..][..first].copy_from_slice(&all[head * had..][..first]);
    }
    resized
}

impl Numbers {
    /// Writes rows of `d` behind the first `count` of each head's `capacity`; `row` has the i-th of a head.
    fn write<'a>(
        &mut self,
        new: usize,
        [capacity, count, d]: [usize; 3],
        row: impl Fn(usize, usize) -> &'a [f32] + Sync,
    ) {
        match self {
            Self::F32(all) => write(all, new, [capacity, count, d], |to, head, i| to.copy_from_slice(row(head, i))),
            Self::Bf16(all) => {
                write(all, new, [capacity, count, d], |to, head, i| simd::run(Round { from: row(head, i), to }));
            }
        }
    }
}

fn write<T: Send>(
    all: &mut [T],
    new: usize,
    [capacity, count, d]: [usize; 3],
    write: impl Fn(&mut [T], usize, usize) + Sync,
) {
    let head = |(head, all): (usize, &mut [T])| {
        all[count * d..][..new * d].chunks_exact_mut(d).enumerate().for_each(|(i, to)| write(to, head, i));
    };
    if new == 0 {
        return;
    }
    // A token's rows are too few to wake other threads for.
    if new < 16 {
        all.chunks_exact_mut(capacity * d).enumerate().for_each(head);
    } else {
        all.par_chunks_exact_mut(capacity * d).enumerate().for_each(head);
    }
}

/// A row on its way to bf16.
struct Round<'a> {
    from: &'a [f32],
    to: &'a mut [bf16],
}

impl Work for Round<'_> {
    type Output = ();

    #[inline(always)]
    #[allow(clippy::inline_always)]
    fn call<const FMA: bool>(self) {
        self.to.iter_mut().zip(self.from).for_each(|(to, &x)| *to = simd::to_bf16(x));
    }
}

/// How many tokens each cache has been given by a decoding step that was captured on a GPU ([`Gpu::capture`]), since then. Its
/// launches cannot be told, so they look here.
pub struct Since(pub(super) Tensor);

impl Since {
    /// None yet.
    ///
    /// # Errors
    /// What the GPU says.
    pub fn none(gpu: &Gpu) -> Result<Self> {
        // One less, and counted: what counts is loaded then, before the capture.
        let less = Tensor::new(&[1], vec![u32::MAX]).and_then(|less| less.to_device(&Device::Cuda(gpu.clone())));
        let mut since = Self(less.map_err(of(OP))?);
        since.count(gpu)?;
        Ok(since)
    }

    /// One more: the end of a step.
    ///
    /// # Errors
    /// What the GPU says.
    pub fn count(&mut self, gpu: &Gpu) -> Result<()> {
        cuda::count(gpu, &mut self.0)
    }
}

/// Adds the keys and values of `qkv` `[t, 3c]` to `layer` of one cache per document: a whole prompt, or one new token. `since` is for
/// a captured step, whose caches must have room.
///
/// # Errors
/// Shapes, dtypes or bounds that do not fit, or another number of caches than documents.
pub fn append(
    qkv: &Tensor,
    bounds: &[u32],
    caches: &mut [&mut KvCache],
    layer: usize,
    since: Option<&Since>,
) -> Result<()> {
    let Some(heads) = caches.first().map(|cache| cache.heads) else { return attention::nothing(qkv).map(|_| ()) };
    let sizes = Sizes::of(qkv, heads)?;
    let documents = documents(bounds, sizes.t)?;
    expect(OP, "caches", caches.len(), documents.len())?;
    for cache in caches.iter() {
        cache.check(qkv, &sizes, layer, 0)?;
    }
    if let Device::Cuda(gpu) = qkv.device() {
        float(OP, "qkv's dtype", qkv)?;
        return cuda::append(gpu, qkv, &sizes, &documents, caches, layer, since);
    }
    let values = floats(qkv)?;
    let d = sizes.d;
    for (cache, rows) in caches.iter_mut().zip(documents) {
        let layer = &mut cache.layers[layer];
        layer.reserve(rows.len(), cache.room, heads, d);
        let place = [layer.capacity, layer.count, d];
        for (i, to) in [(1, &mut layer.keys), (2, &mut layer.values)] {
            to.write(rows.len(), place, |head, row| &values[sizes.at(rows.start + row, head, i)..][..d]);
        }
        layer.count += rows.len();
    }
    Ok(())
}
