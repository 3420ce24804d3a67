//! Causal self-attention with linear biases (`ALiBi`, Press et al., arXiv:2108.12409) as BLOOM has it, without ever
//! holding a t × t matrix (FlashAttention-2, Dao, arXiv:2307.08691), on rows packed from several documents.
//!
//! The fused projection `qkv` `[t, 3c]` is read in place: a row is `[h, 3, d]`, the query, key and value of each head
//! (`modeling_bloom.py`, `BloomAttention._split_heads`). `bounds` are the documents' first rows and, last, t. Within a
//! document, for query i and keys j ≤ i,
//!
//! s(i, j) = q(i) · k(j) / √d + slope(h) · (j − i), out(i) = Σ softmax(s(i, ·))(j) · v(j).
//!
//! Hugging Face adds slope · j; the difference, slope · i, is the same for a whole row, and softmax drops it.
//! A document's results depend on nothing outside of it, to the bit, nor on the number of threads.
//!
//! Over keys and values kept in bf16, a processor with AMX rounds queries and weights to bf16 as well (`in_tiles.rs`).
//!
//! On a GPU everything is also bf16 if `qkv` is. Products are then those of tensor cores for the head sizes of BLOOM, 64, 80,
//! 96 and 128: the softmax and dS are rounded to bf16 where they are multiplied. The backward pass goes over the tiles of
//! queries for dq and over those of keys for dk and dv, so that every sum has one owner and one order.

mod backward;
mod cache;
mod cuda;
mod decode;
mod forward;
#[cfg(target_arch = "x86_64")]
mod in_tiles;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod spec;
mod tile;

use std::ops::Range;

use rayon::prelude::*;
use tensor::{DType, Device, Tensor, unwritten};

pub use cache::{KvCache, Since, append};
use tile::{Joined, Rows};

use crate::error::{expect, float, of};
use crate::linear::Output;
use crate::{Error, Result, simd};

const OP: &str = "attention";

/// Queries of one task of the forward pass.
const QUERIES: usize = 128;

/// The heads' slopes `[h]`, as `build_alibi_tensor` of `modeling_bloom.py`, whose bases and powers are f32 too. With p the
/// largest power of two ≤ h: 2^(−8/p · 1…p), then every other one of the slopes of 2p heads.
pub fn slopes(heads: usize) -> Vec<f32> {
    let Some(log) = heads.checked_ilog2() else { return vec![] };
    let base = |log: u32| f64::from((-(2f64.powi(3 - log.cast_signed()))).exp2() as f32);
    let (power, base, extra) = (1usize << log, base(log), base(log + 1));
    let slope = |i: usize| {
        if i < power { base.powf((i + 1) as f64) } else { extra.powf((2 * (i - power) + 1) as f64) }
    };
    (0..heads).map(|i| slope(i) as f32).collect()
}

/// The attention's output `[t, c]` from `qkv` `[t, 3c]` (f32, on a GPU also bf16), and what [`backward`] wants of each row's
/// softmax, f32: the largest score m and Σ exp(s − m) of every head `[t, 2h]`, on a GPU with m in units of ln 2. (Their usual
/// summary, m + ln Σ, has lost digits where m is large.)
///
/// # Errors
/// Shapes or dtypes that do not fit, or bounds that do not ascend from 0 to t.
pub fn forward(qkv: &Tensor, bounds: &[u32], heads: usize) -> Result<(Tensor, Tensor)> {
    let shape = Sizes::of(qkv, heads)?;
    let documents = documents(bounds, shape.t)?;
    if let Device::Cuda(gpu) = qkv.device() {
        float(OP, "qkv's dtype", qkv)?;
        return cuda::forward(gpu, qkv, &shape, &documents).map(<(Tensor, Tensor)>::from);
    }
    let values = floats(qkv)?;
    let sources = documents.iter().map(|rows| Source { rows: rows.clone(), keys: Keys::New }).collect::<Vec<_>>();
    attend(values, &shape, &sources)
}

/// The attention's output `[t, c]` for new tokens that follow those already cached: as [`forward`] (but for what AMX rounds), with the keys and
/// values of `layer` of one cache per document, to which [`append`] has added those of `qkv` `[t, 3c]` already.
///
/// # Errors
/// Shapes, dtypes or bounds that do not fit, another number of caches than documents, or a cache that lacks them.
pub fn extend(qkv: &Tensor, bounds: &[u32], caches: &[&KvCache], layer: usize) -> Result<Tensor> {
    let Some(first) = caches.first() else { return nothing(qkv) };
    let shape = Sizes::of(qkv, first.heads())?;
    let documents = documents(bounds, shape.t)?;
    expect(OP, "caches", caches.len(), documents.len())?;
    for (cache, rows) in caches.iter().zip(&documents) {
        cache.check(qkv, &shape, layer, rows.len())?;
    }
    if let Device::Cuda(gpu) = qkv.device() {
        return cuda::extend(gpu, qkv, &shape, &documents, caches, layer);
    }
    let sources = documents
        .into_iter()
        .zip(caches)
        .map(|(rows, &cache)| Source { rows, keys: Keys::Cached(cache, layer) })
        .collect::<Vec<_>>();
    Ok(attend(floats(qkv)?, &shape, &sources)?.0)
}

/// The attention's output `[t, c]` for documents that each follow what a cache holds, several of them perhaps the same one: as
/// [`extend`], to the bit, but their own keys and values, those of `qkv` `[t, 3c]`, are in no cache. In main memory only.
///
/// # Errors
/// Shapes, dtypes or bounds that do not fit, another number of caches than documents, or rows on a GPU.
pub fn branch(qkv: &Tensor, bounds: &[u32], caches: &[&KvCache], layer: usize) -> Result<Tensor> {
    let Some(first) = caches.first() else { return nothing(qkv) };
    let shape = Sizes::of(qkv, first.heads())?;
    let documents = documents(bounds, shape.t)?;
    expect(OP, "caches", caches.len(), documents.len())?;
    expect(OP, "the device of branches", qkv.device(), &Device::Cpu)?;
    for cache in caches {
        cache.check(qkv, &shape, layer, 0)?;
    }
    let sources = documents
        .into_iter()
        .zip(caches)
        .map(|(rows, &cache)| Source { rows, keys: Keys::After(cache, layer) })
        .collect::<Vec<_>>();
    Ok(attend(floats(qkv)?, &shape, &sources)?.0)
}

/// The attention's output `[b, c]` for one new token per sequence, `qkv` `[b, 3c]`, with the keys and values of `layer` of
/// one cache per sequence, to which [`append`] has added the new token's already. `since` is for a captured step.
///
/// # Errors
/// Shapes or dtypes that do not fit, another number of caches than rows, or an empty cache.
pub fn decode(qkv: &Tensor, caches: &[&KvCache], layer: usize, since: Option<&Since>) -> Result<Tensor> {
    let Some(first) = caches.first() else { return nothing(qkv) };
    let shape = Sizes::of(qkv, first.heads())?;
    expect(OP, "caches", caches.len(), shape.t)?;
    for cache in caches {
        cache.check(qkv, &shape, layer, 1)?;
    }
    if let Device::Cuda(gpu) = qkv.device() {
        return cuda::decode(gpu, qkv, &shape, caches, layer, since);
    }
    let (slopes, values) = (slopes(shape.heads), floats(qkv)?);
    let mut out = unwritten(shape.t * shape.c());
    out.par_chunks_exact_mut(shape.d).enumerate().for_each(|(i, out)| {
        let (row, head) = (i / shape.heads, i % shape.heads);
        let [keys, rows] = caches[row].rows(layer, head);
        let query = &values[shape.at(row, head, 0)..][..shape.d];
        simd::run(decode::Token { out, query, keys, values: rows, slope: slopes[head] });
    });
    Tensor::new(&[shape.t, shape.c()], out).map_err(of(OP))
}

/// The gradient `dqkv` `[t, 3c]` from `dout` `[t, c]` and what [`forward`] was given (`qkv`) and gave (`out`, `stats`), all of
/// one dtype but `stats`, which is f32.
///
/// # Errors
/// Shapes or dtypes that do not fit, or bounds that do not ascend from 0 to t.
pub fn backward(
    dout: &Tensor,
    qkv: &Tensor,
    out: &Tensor,
    stats: &Tensor,
    bounds: &[u32],
    heads: usize,
) -> Result<Tensor> {
    let shape = Sizes::of(qkv, heads)?;
    let documents = documents(bounds, shape.t)?;
    let (t, c, d) = (shape.t, shape.c(), shape.d);
    expect(OP, "dout's shape", dout.shape(), &[t, c])?;
    expect(OP, "out's shape", out.shape(), &[t, c])?;
    expect(OP, "stats' shape", stats.shape(), &[t, 2 * heads])?;
    if let Device::Cuda(gpu) = qkv.device() {
        let dtype = float(OP, "qkv's dtype", qkv)?;
        expect(OP, "dout's dtype", dout.dtype(), dtype)?;
        expect(OP, "out's dtype", out.dtype(), dtype)?;
        expect(OP, "stats' dtype", stats.dtype(), DType::F32)?;
        return cuda::backward(gpu, dout, &cuda::Passed { qkv, out, stats }, &shape, &documents);
    }
    let (dout, qkv, out, stats) = (floats(dout)?, floats(qkv)?, floats(out)?, floats(stats)?);
    let slopes = slopes(heads);
    let mut dqkv = unwritten(t * 3 * c);
    for rows in documents.into_iter().filter(|rows| !rows.is_empty()) {
        let (start, count) = (rows.start, rows.len());
        let gradients: Vec<Vec<f32>> = (0..heads)
            .into_par_iter()
            .with_max_len(1)
            .map(|head| {
                let part = |i| Rows { values: &qkv[shape.at(start, head, i)..], stride: 3 * c, count, size: d };
                let wide = start * c + head * d;
                simd::run(backward::Head {
                    queries: part(0),
                    keys: part(1),
                    values: part(2),
                    out: Rows { values: &out[wide..], stride: c, count, size: d },
                    dout: Rows { values: &dout[wide..], stride: c, count, size: d },
                    stats: Rows { values: &stats[2 * (start * heads + head)..], stride: 2 * heads, count, size: 2 },
                    slope: slopes[head],
                })
            })
            .collect();
        dqkv[start * 3 * c..][..count * 3 * c].par_chunks_exact_mut(3 * c).enumerate().for_each(|(i, row)| {
            for (row, gradient) in row.chunks_exact_mut(3 * d).zip(&gradients) {
                row.copy_from_slice(&gradient[i * 3 * d..][..3 * d]);
            }
        });
    }
    Tensor::new(&[t, 3 * c], dqkv).map_err(of(OP))
}

/// A document's new rows, and where its keys and values are.
struct Source<'a> {
    rows: Range<usize>,
    keys: Keys<'a>,
}

/// Where keys and values are.
#[derive(Clone, Copy)]
enum Keys<'a> {
    /// In the new rows.
    New,
    /// In a layer of a cache, those of the new rows too.
    Cached(&'a KvCache, usize),
    /// In a layer of a cache, and then in the new rows.
    After(&'a KvCache, usize),
}

fn attend(qkv: &[f32], shape: &Sizes, sources: &[Source]) -> Result<(Tensor, Tensor)> {
    let &Sizes { t, heads, d } = shape;
    let (c, slopes) = (shape.c(), slopes(heads));
    let blocks = |rows: &Range<usize>| rows.clone().step_by(QUERIES);
    let tasks: Vec<(&Source, usize, usize)> = sources
        .iter()
        .flat_map(|source| blocks(&source.rows).flat_map(move |row| (0..heads).map(move |head| (source, row, head))))
        .collect();
    let (mut out, mut stats) = (unwritten(t * c), unwritten(t * heads * 2));
    let (all, all_stats) = (Output::new(&mut out, c), Output::new(&mut stats, 2 * heads));
    tasks.par_iter().with_max_len(1).for_each(|&(source, row, head)| {
        let (start, end) = (source.rows.start, source.rows.end);
        let part =
            |from: usize, i, count| Rows { values: &qkv[shape.at(from, head, i)..], stride: 3 * c, count, size: d };
        let new = [1, 2].map(|i| part(start, i, end - start));
        let [keys, values] = match source.keys {
            Keys::New => new.map(Joined::from),
            Keys::Cached(cache, layer) => cache.rows(layer, head).map(Joined::from),
            Keys::After(cache, layer) => {
                let [keys, values] = cache.rows(layer, head);
                let [new_keys, new_values] = new;
                [Joined { before: keys, after: new_keys }, Joined { before: values, after: new_values }]
            }
        };
        let past = keys.count() - (end - start);
        let queries = part(row, 0, QUERIES.min(end - row));
        let block = forward::Block { queries, keys, values, first: past + row - start, slope: slopes[head] };
        let (rows, of_rows) = block.run();
        for (i, (from, of_row)) in rows.chunks_exact(d).zip(of_rows).enumerate() {
            // SAFETY: a task alone writes to the columns of its head in its rows.
            let to = unsafe { all.part(row + i, head * d..(head + 1) * d) };
            // SAFETY: as above.
            let to_stats = unsafe { all_stats.part(row + i, 2 * head..2 * (head + 1)) };
            to.copy_from_slice(from);
            to_stats.copy_from_slice(&of_row);
        }
    });
    Ok((Tensor::new(&[t, c], out).map_err(of(OP))?, Tensor::new(&[t, 2 * heads], stats).map_err(of(OP))?))
}

/// The sizes of a fused projection.
struct Sizes {
    t: usize,
    heads: usize,
    d: usize,
}

impl Sizes {
    fn of(qkv: &Tensor, heads: usize) -> Result<Self> {
        let (t, width) = qkv.dims2().map_err(of(OP))?;
        if heads == 0 || width == 0 || !width.is_multiple_of(3 * heads) {
            let (wanted, found) = (format!("a multiple of 3 · {heads} heads"), width.to_string());
            return Err(Error::Argument { op: OP, what: "the width of qkv", wanted, found });
        }
        Ok(Self { t, heads, d: width / (3 * heads) })
    }

    fn c(&self) -> usize {
        self.heads * self.d
    }

    /// Where a row's query (0), key (1) or value (2) of a head begins.
    fn at(&self, row: usize, head: usize, part: usize) -> usize {
        (row * self.heads + head) * 3 * self.d + part * self.d
    }
}

/// The rows of each document.
fn documents(bounds: &[u32], t: usize) -> Result<Vec<Range<usize>>> {
    let ascending = bounds.is_sorted() && bounds.first() == Some(&0);
    if !ascending || bounds.last().map(|&end| end as usize) != Some(t) {
        let (wanted, found) = (format!("ascending from 0 to {t}"), format!("{bounds:?}"));
        return Err(Error::Argument { op: OP, what: "bounds", wanted, found });
    }
    Ok(bounds.windows(2).map(|pair| pair[0] as usize..pair[1] as usize).collect())
}

/// The output for no sequences at all.
fn nothing(qkv: &Tensor) -> Result<Tensor> {
    let (t, width) = qkv.dims2().map_err(of(OP))?;
    expect(OP, "rows without a cache", t, 0)?;
    Tensor::zeros_on(qkv.device(), &[0, width / 3], qkv.dtype()).map_err(of(OP))
}

fn floats(x: &Tensor) -> Result<&[f32]> {
    x.values::<f32>().map_err(of(OP))
}
