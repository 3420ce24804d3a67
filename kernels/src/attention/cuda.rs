//! Launches of the kernels of attention: on tensor cores for bf16 and the head sizes of BLOOM, otherwise plain ones. For two of those
//! sizes there are kernels for compute capability 9.0 alone.

use std::f64::consts::LOG2_E;
use std::ops::Range;

use tensor::{DType, Device, Gpu, Tensor};

use super::cache::KvCache;
use super::{OP, Since, Sizes, slopes};
use crate::cuda::{Arg, Code, Grid, launch};
use crate::error::of;
use crate::{Error, Result};

static PLAIN: Code = Code { op: "attention_plain", ptx: include_str!("attention_plain.ptx") };
static DECODE: Code = Code { op: "attention_decode", ptx: include_str!("attention_decode.ptx") };

/// Kernels for one head size on tensor cores, and the rows of a tile and of a step of their three passes, as their files say.
struct Sized {
    d: usize,
    code: Code,
    forward: [usize; 2],
    queries: [usize; 2],
    keys: [usize; 2],
}

macro_rules! sized {
    ($name:literal, $d:literal, $forward:expr, $queries:expr, $keys:expr) => {
        Sized {
            d: $d,
            code: Code { op: concat!("attention_", $name), ptx: include_str!(concat!("attention_", $name, ".ptx")) },
            forward: $forward,
            queries: $queries,
            keys: $keys,
        }
    };
}

static SIZES: [Sized; 4] = [
    sized!("64", 64, [128, 64], [64, 64], [64, 32]),
    sized!("80", 80, [128, 32], [64, 64], [64, 32]),
    sized!("96", 96, [64, 64], [64, 32], [64, 32]),
    sized!("128", 128, [64, 32], [64, 32], [64, 32]),
];

/// The same for compute capability 9.0 alone.
static HOPPER: [Sized; 2] = [
    sized!("64_hopper", 64, [128, 128], [128, 64], [128, 64]),
    sized!("128_hopper", 128, [128, 64], [128, 64], [128, 64]),
];

/// Rows of a tile and of a step of the plain kernels, and their largest head.
const SIDE: usize = 32;
const LARGEST: usize = 128;

/// Tokens of a cache that one block of `attention_decode.cu` reads, and sequences of one launch.
const SPLIT: usize = 256;
const SEQUENCES: usize = 128;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Tensor,
    Hopper,
}

/// The kernels for a head size, and its sizes.
struct Kernels {
    code: &'static Code,
    kind: Kind,
    forward: [usize; 2],
    queries: [usize; 2],
    keys: [usize; 2],
}

impl Kernels {
    fn of(gpu: &Gpu, qkv: &Tensor, sizes: &Sizes) -> Result<Self> {
        let d = sizes.d;
        if d > LARGEST {
            let (wanted, found) = (format!("at most {LARGEST} on a GPU"), d.to_string());
            return Err(Error::Argument { op: OP, what: "the head size", wanted, found });
        }
        let sized = |all: &'static [Sized], kind| {
            let sized = all.iter().find(|sized| sized.d == d && qkv.dtype() == DType::BF16);
            sized.map(|&Sized { ref code, forward, queries, keys, .. }| Self { code, kind, forward, queries, keys })
        };
        let hopper = if gpu.hopper().map_err(of(OP))? { sized(&HOPPER, Kind::Hopper) } else { None };
        let [forward, queries, keys] = [[SIDE; 2]; 3];
        let plain = Self { code: &PLAIN, kind: Kind::Plain, forward, queries, keys };
        Ok(hopper.or_else(|| sized(&SIZES, Kind::Tensor)).unwrap_or(plain))
    }

    /// A kernel's name: `attention_64` has an `attention_forward_64`.
    fn name(&self, pass: &str, dtype: DType) -> String {
        let name = self.code.op.replacen(OP, &format!("{OP}_{pass}"), 1);
        if self.plain() { format!("{name}_{dtype}") } else { name }
    }

    fn plain(&self) -> bool {
        self.kind == Kind::Plain
    }

    /// Memory for so many rows of a head.
    fn bytes(&self, rows: usize, d: usize) -> usize {
        match self.kind {
            Kind::Plain => rows * (d.next_multiple_of(32) + 1) * 4,
            Kind::Tensor => rows * (d + 8) * 2,
            // They begin at a multiple of 1024.
            Kind::Hopper => rows * d * 2 + 1024,
        }
    }

    /// The launch of a pass whose blocks keep `kept` rows, and have two stages of a step's two kinds of rows (one, if plain),
    /// the second of which is at first `guests` rows.
    fn grid(&self, plan: &Plan, d: usize, kept: usize, step: usize, guests: usize) -> Grid {
        let staged = if self.plain() { guests + 2 * step } else { 2 * step + guests.max(2 * step) };
        let threads = if self.kind == Kind::Hopper { 256 } else { 128 };
        Grid { shared_bytes: self.bytes(kept + staged, d), ..Grid::new(plan.blocks, threads) }
    }
}

/// The new rows of a document, and how many tokens of it there are before them.
pub(super) struct Source {
    pub rows: Range<usize>,
    pub past: usize,
}

impl Source {
    /// Documents without a past.
    pub fn all(documents: &[Range<usize>]) -> Vec<Self> {
        documents.iter().map(|rows| Self { rows: rows.clone(), past: 0 }).collect()
    }
}

/// Tiles in the order in which they are begun, and then the heads' slopes: `Tile` and `slope_of` of `attention.cuh`.
struct Plan {
    tiles: Tensor,
    blocks: usize,
}

/// What a tile's work grows with.
#[derive(Clone, Copy)]
enum Work {
    /// The tokens before it: the tile is of queries.
    Before,
    /// The tokens after it: the tile is of keys.
    After,
}

impl Plan {
    fn new(gpu: &Gpu, sizes: &Sizes, sources: &[Source], rows: usize, work: Work) -> Result<Self> {
        let mut tiles = Vec::new();
        for (i, Source { rows: all, past }) in sources.iter().enumerate() {
            tiles.extend(all.clone().step_by(rows).map(|row| [row, all.end, past + row - all.start, i]));
        }
        // The longest first, so that none is left to the end.
        tiles.sort_by_key(|&[row, end, position, _]| match work {
            Work::Before => std::cmp::Reverse(position + rows.min(end - row)),
            Work::After => std::cmp::Reverse(end - row),
        });
        let mut words = tiles.iter().flatten().map(|&x| narrow(x)).collect::<Result<Vec<u32>>>()?;
        words.extend(binary_slopes(sizes.heads));
        Ok(Self { tiles: on(gpu, &words)?, blocks: tiles.len() * sizes.heads })
    }
}

pub(super) fn forward(gpu: &Gpu, qkv: &Tensor, sizes: &Sizes, documents: &[Range<usize>]) -> Result<[Tensor; 2]> {
    attend(gpu, qkv, sizes, &Source::all(documents), Arg::None)
}

/// With the keys and values of one cache for each document.
pub(super) fn extend(
    gpu: &Gpu,
    qkv: &Tensor,
    sizes: &Sizes,
    documents: &[Range<usize>],
    caches: &[&KvCache],
    layer: usize,
) -> Result<Tensor> {
    let sources = documents.iter().zip(caches).map(|(rows, cache)| {
        let past = cache.count(layer) - rows.len();
        Source { rows: rows.clone(), past }
    });
    let sources: Vec<Source> = sources.collect();
    let mut words = Vec::with_capacity(2 * caches.len());
    for cache in caches {
        // A cache without memory is of no tokens, and no tile reads it.
        let address = cache.memory(layer).map_or(Ok(0), |memory| memory.gpu_pointer(gpu)).map_err(of(OP))?;
        words.extend([address as u32, (address >> 32) as u32]);
    }
    let addresses = on(gpu, &words)?;
    let [out, _] = attend(gpu, qkv, sizes, &sources, Arg::In(&addresses))?;
    Ok(out)
}

fn attend(gpu: &Gpu, qkv: &Tensor, sizes: &Sizes, sources: &[Source], caches: Arg) -> Result<[Tensor; 2]> {
    let &Sizes { t, heads, d } = sizes;
    let kernels = Kernels::of(gpu, qkv, sizes)?;
    let [tile, step] = kernels.forward;
    let plan = Plan::new(gpu, sizes, sources, tile, Work::Before)?;
    let mut out = undefined(gpu, &[t, sizes.c()], qkv.dtype())?;
    let mut stats = undefined(gpu, &[t, 2 * heads], DType::F32)?;
    // Queries go to registers from the second stage, or are kept.
    let (kept, guests) = if kernels.kind == Kind::Hopper { (tile, 0) } else { (0, tile) };
    let grid = kernels.grid(&plan, d, kept, step, guests);
    let mut args =
        vec![Arg::Out(&mut out), Arg::Out(&mut stats), Arg::In(qkv), Arg::In(&plan.tiles), caches, Arg::Size(heads)];
    if kernels.plain() {
        args.push(Arg::Size(d));
    }
    args.push(Arg::F32(binary_scale(d)));
    launch(gpu, kernels.code, &kernels.name("forward", qkv.dtype()), grid, &mut args)?;
    Ok([out, stats])
}

/// What the forward pass was given and gave.
pub(super) struct Passed<'a> {
    pub qkv: &'a Tensor,
    pub out: &'a Tensor,
    pub stats: &'a Tensor,
}

pub(super) fn backward(
    gpu: &Gpu,
    dout: &Tensor,
    passed: &Passed,
    sizes: &Sizes,
    documents: &[Range<usize>],
) -> Result<Tensor> {
    let &Sizes { t, heads, d } = sizes;
    let &Passed { qkv, out, stats } = passed;
    let kernels = Kernels::of(gpu, qkv, sizes)?;
    let mut dqkv = undefined(gpu, qkv.shape(), qkv.dtype())?;
    let mut of_rows = undefined(gpu, &[t, heads, 4], DType::F32)?;
    let sources = Source::all(documents);
    let sized = |args: &mut Vec<Arg>| {
        args.push(Arg::Size(heads));
        if kernels.plain() {
            args.push(Arg::Size(d));
        }
        args.extend([Arg::F32(binary_scale(d)), Arg::F32(super::forward::scale(d))]);
    };

    let [tile, step] = kernels.queries;
    let plan = Plan::new(gpu, sizes, &sources, tile, Work::Before)?;
    // Queries and gradients are kept; the plain kernel needs no outputs.
    let guests = if kernels.plain() { 0 } else { tile };
    let grid = kernels.grid(&plan, d, 2 * tile, step, guests);
    let mut args = vec![Arg::Out(&mut dqkv), Arg::Out(&mut of_rows), Arg::In(dout), Arg::In(qkv), Arg::In(out)];
    args.extend([Arg::In(stats), Arg::In(&plan.tiles)]);
    sized(&mut args);
    launch(gpu, kernels.code, &kernels.name("backward_queries", qkv.dtype()), grid, &mut args)?;

    let [tile, step] = kernels.keys;
    let plan = Plan::new(gpu, sizes, &sources, tile, Work::After)?;
    let grid = kernels.grid(&plan, d, 2 * tile, step, 0);
    // And of each query of both stages four numbers.
    let shared_bytes = grid.shared_bytes + if kernels.plain() { 0 } else { 2 * step * 16 };
    let mut args = vec![Arg::Out(&mut dqkv), Arg::In(dout), Arg::In(qkv), Arg::In(&of_rows), Arg::In(&plan.tiles)];
    sized(&mut args);
    launch(gpu, kernels.code, &kernels.name("backward_keys", qkv.dtype()), Grid { shared_bytes, ..grid }, &mut args)?;
    Ok(dqkv)
}

/// Copies the keys and values of the documents' rows behind the tokens of their caches.
pub(super) fn append(
    gpu: &Gpu,
    qkv: &Tensor,
    sizes: &Sizes,
    documents: &[Range<usize>],
    caches: &mut [&mut KvCache],
    layer: usize,
    since: Option<&Since>,
) -> Result<()> {
    for (cache, rows) in caches.iter_mut().zip(documents) {
        cache.reserve(gpu, qkv.dtype(), layer, rows.len())?;
    }
    for (caches, documents) in caches.chunks_mut(SEQUENCES).zip(documents.chunks(SEQUENCES)) {
        let mut table = Table::default();
        for (cache, rows) in caches.iter_mut().zip(documents) {
            let count = cache.count(layer);
            let Some(memory) = cache.memory_mut(layer) else { continue }; // nothing to add to no tokens
            table.add(memory.gpu_pointer_mut(gpu).map_err(of(OP))?, count, rows)?;
        }
        let longest = documents.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
        let name = format!("attention_append_{}", qkv.dtype());
        let grid = Grid { blocks: [longest, table.len(), 1], ..Grid::new(0, 256) };
        let mut args =
            [Arg::In(qkv), Arg::Words(&table.words), count_of(since), Arg::Size(sizes.heads), Arg::Size(sizes.d)];
        launch(gpu, &DECODE, &name, grid, &mut args)?;
        for (cache, rows) in caches.iter_mut().zip(documents) {
            cache.add(layer, rows.len());
        }
    }
    Ok(())
}

/// The memory `to`, which is longer, begins with the first `elements` of `from`, an even number.
pub(super) fn copy(gpu: &Gpu, to: &mut Tensor, from: &Tensor, elements: usize) -> Result<()> {
    let words = elements * from.dtype().size() / 4;
    let grid = Grid::new(words.div_ceil(256).min(1024), 256);
    launch(gpu, &DECODE, "attention_move", grid, &mut [Arg::Out(to), Arg::In(from), Arg::Size(words)])
}

/// One row for each cache.
pub(super) fn decode(
    gpu: &Gpu,
    qkv: &Tensor,
    sizes: &Sizes,
    caches: &[&KvCache],
    layer: usize,
    since: Option<&Since>,
) -> Result<Tensor> {
    let &Sizes { t, heads, d } = sizes;
    Kernels::of(gpu, qkv, sizes)?; // for its checks
    let mut out = undefined(gpu, &[t, sizes.c()], qkv.dtype())?;
    // Every cache that has tokens has them, and all are the same.
    let Some(slopes) = caches.first().and_then(|cache| cache.slopes()) else { return Ok(out) };
    for (i, caches) in caches.chunks(SEQUENCES).enumerate() {
        let mut table = Table::default();
        let mut most = 0;
        for (j, cache) in caches.iter().enumerate() {
            let Some(memory) = cache.memory(layer) else { continue }; // never: its tokens have been counted
            let row = i * SEQUENCES + j;
            table.add(memory.gpu_pointer(gpu).map_err(of(OP))?, cache.count(layer), &(row..row + 1))?;
            // Not of the tokens, as a captured step is launched again for more of them; blocks without any end at once.
            most = most.max(cache.capacity(layer));
        }
        let splits = most.div_ceil(SPLIT);
        let mut parts = undefined(gpu, &[table.len(), splits, heads, d + 2], DType::F32)?;
        let mut args = [
            Arg::Out(&mut out),
            Arg::Out(&mut parts),
            Arg::In(qkv),
            Arg::In(slopes),
            Arg::Words(&table.words),
            count_of(since),
            Arg::Size(heads),
            Arg::Size(d),
            Arg::F32(binary_scale(d)),
        ];
        let grid = Grid { blocks: [heads, splits, table.len()], ..Grid::new(0, 256) };
        launch(gpu, &DECODE, &format!("attention_decode_{}", qkv.dtype()), grid, &mut args)?;
        if splits > 1 {
            let mut args = [
                Arg::Out(&mut out),
                Arg::In(&parts),
                Arg::Words(&table.words),
                count_of(since),
                Arg::Size(splits),
                Arg::Size(heads),
                Arg::Size(d),
            ];
            let grid = Grid { blocks: [heads, table.len(), 1], ..Grid::new(0, 128) };
            launch(gpu, &DECODE, &format!("attention_join_{}", qkv.dtype()), grid, &mut args)?;
        }
    }
    Ok(out)
}

/// One more, at the end of a captured step.
pub(super) fn count(gpu: &Gpu, since: &mut Tensor) -> Result<()> {
    launch(gpu, &DECODE, "attention_count", Grid::new(1, 32), &mut [Arg::Out(since)])
}

fn count_of(since: Option<&Since>) -> Arg<'_> {
    since.map_or(Arg::None, |since| Arg::In(&since.0))
}

/// `Sequences` of `attention_decode.cu`: address, count, first and last row, three words each.
struct Table {
    words: [u64; 3 * SEQUENCES],
    filled: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { words: [0; 3 * SEQUENCES], filled: 0 }
    }
}

impl Table {
    fn add(&mut self, address: u64, count: usize, rows: &Range<usize>) -> Result<()> {
        let low_high = |low: usize, high: usize| Ok(u64::from(narrow(low)?) | u64::from(narrow(high)?) << 32);
        let words = [address, low_high(count, rows.start)?, low_high(rows.end, 0)?];
        self.words[3 * self.filled..][..3].copy_from_slice(&words);
        self.filled += 1;
        Ok(())
    }

    const fn len(&self) -> usize {
        self.filled
    }
}

/// The factor of q · k, and the heads' slopes, for scores in units of ln 2.
fn binary_scale(d: usize) -> f32 {
    (LOG2_E / (d as f64).sqrt()) as f32
}

fn binary_slopes(heads: usize) -> impl Iterator<Item = u32> {
    slopes(heads).into_iter().map(|slope| ((f64::from(slope) * LOG2_E) as f32).to_bits())
}

/// The bits of [`binary_slopes`] on a GPU.
pub(super) fn slopes_on(gpu: &Gpu, heads: usize) -> Result<Tensor> {
    on(gpu, &binary_slopes(heads).collect::<Vec<_>>())
}

fn narrow(x: usize) -> Result<u32> {
    let misfit = |_| Error::Argument { op: OP, what: "a row", wanted: "32 bits".into(), found: x.to_string() };
    u32::try_from(x).map_err(misfit)
}

fn on(gpu: &Gpu, words: &[u32]) -> Result<Tensor> {
    Tensor::new(&[words.len()], words.to_vec()).and_then(|x| x.to_device(&Device::Cuda(gpu.clone()))).map_err(of(OP))
}

fn undefined(gpu: &Gpu, sizes: &[usize], dtype: DType) -> Result<Tensor> {
    Tensor::undefined(gpu, sizes, dtype).map_err(of(OP))
}
