#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use super::tile::{Joined, KEYS, LANES, Lane, ROWS, Rows, Tile, product};
use crate::simd::{self, Work, fma};

/// One head's attention for a block of queries.
pub struct Block<'a> {
    pub queries: Rows<'a>,
    /// The document's keys and values from its beginning.
    pub keys: Joined<'a>,
    pub values: Joined<'a>,
    /// The position of the first query among the keys.
    pub first: usize,
    pub slope: f32,
}

impl Block<'_> {
    pub fn run(self) -> (Vec<f32>, Vec<[f32; 2]>) {
        #[cfg(target_arch = "x86_64")]
        if self.keys.are_kept_in_bf16() && self.queries.size.is_multiple_of(2) && crate::amx::is_here() {
            return simd::run(super::in_tiles::InTiles(self));
        }
        simd::run(self)
    }
}

impl Work for Block<'_> {
    /// Output rows `[n, d]`; the largest score and the sum of exponentials of each `[n]`.
    type Output = (Vec<f32>, Vec<[f32; 2]>);

    #[inline(always)]
    fn call<const FMA: bool>(self) -> Self::Output {
        let (n, d) = (self.queries.count, self.queries.size);
        let tiles = d.div_ceil(ROWS);
        // Not `collect`, which is compiled apart, without the wide instructions.
        let mut groups = Vec::with_capacity(n.div_ceil(LANES));
        for i in (0..n).step_by(LANES) {
            groups.push(Group::new(&self, i));
        }
        let keys = self.first + n;
        let mut key_panels = vec![[0.0; ROWS]; KEYS / ROWS * d];
        let mut value_panels = vec![[0.0; ROWS]; tiles * KEYS];
        let mut weights = [[0.0; LANES]; KEYS];
        let mut across = Vec::new();
        for from in (0..keys).step_by(KEYS) {
            let count = KEYS.min(keys - from);
            let (rows, first) = self.keys.tile(from, count, &mut across);
            rows.by_rows(first, count, &mut key_panels);
            let (rows, first) = self.values.tile(from, count, &mut across);
            rows.by_elements(first, count, &mut value_panels);
            for group in &mut groups {
                // No key past the group's last query.
                let seen = count.min((group.first + LANES).saturating_sub(from));
                if seen > 0 {
                    let weights = &mut weights[..seen.next_multiple_of(ROWS)];
                    group.step::<FMA>(from, &key_panels, &value_panels, weights);
                }
            }
        }
        let mut out = vec![0.0; n * d];
        for (rows, group) in out.chunks_mut(LANES * d).zip(&groups) {
            for (l, row) in rows.chunks_exact_mut(d).enumerate() {
                let elements = group.out.as_flattened().iter();
                row.iter_mut().zip(elements).for_each(|(x, lane)| *x = lane[l] / group.sum[l]);
            }
        }
        let stats = groups.iter().flat_map(|group| (0..LANES).map(|l| [group.max[l], group.sum[l]]));
        (out, stats.take(n).collect())
    }
}

/// Sixteen queries on their way through the keys (online softmax).
struct Group {
    /// `[d]`
    queries: Vec<Lane>,
    /// The weighted sum of values `[d]`, not yet divided by `sum`.
    out: Vec<Tile>,
    max: Lane,
    sum: Lane,
    /// The position of the first query.
    first: usize,
    scale: f32,
    slope: f32,
}

impl Group {
    #[inline(always)]
    fn new(block: &Block, i: usize) -> Self {
        let d = block.queries.size;
        let mut queries = vec![[0.0; LANES]; d];
        block.queries.across(i, &mut queries);
        Self {
            queries,
            out: vec![[[0.0; LANES]; ROWS]; d.div_ceil(ROWS)],
            max: [f32::NEG_INFINITY; LANES],
            sum: [0.0; LANES],
            first: block.first + i,
            scale: scale(d),
            slope: block.slope,
        }
    }

    /// Takes in the keys and values from position `from` on, as many as there is room for `weights`.
    #[inline(always)]
    fn step<const FMA: bool>(
        &mut self,
        from: usize,
        keys: &[[f32; ROWS]],
        values: &[[f32; ROWS]],
        weights: &mut [Lane],
    ) {
        let bias = Bias { first: self.first, scale: self.scale, slope: self.slope };
        let mut max = self.max;
        let scores = weights.as_chunks_mut::<ROWS>().0.iter_mut().zip(keys.chunks_exact(self.queries.len()));
        for (tile, (scores, keys)) in scores.enumerate() {
            *scores = product::<FMA>([[0.0; LANES]; ROWS], keys, &self.queries);
            for (r, lane) in scores.iter_mut().enumerate() {
                bias.add::<FMA>(from + tile * ROWS + r, lane);
                for l in 0..LANES {
                    max[l] = if lane[l] > max[l] { lane[l] } else { max[l] };
                }
            }
        }
        let mut shrink = [0.0; LANES];
        for l in 0..LANES {
            shrink[l] = simd::exp::<FMA>(self.max[l] - max[l]);
            self.sum[l] *= shrink[l];
        }
        self.max = max;
        for lane in weights.iter_mut() {
            for l in 0..LANES {
                lane[l] = simd::exp::<FMA>(lane[l] - max[l]);
                self.sum[l] += lane[l];
            }
        }
        for (out, values) in self.out.iter_mut().zip(values.chunks_exact(KEYS)) {
            for lane in out.iter_mut() {
                for l in 0..LANES {
                    lane[l] *= shrink[l];
                }
            }
            *out = product::<FMA>(*out, values, weights);
        }
    }
}

/// 1 / √d.
pub fn scale(d: usize) -> f32 {
    (1.0 / (d as f64).sqrt()) as f32
}

/// What turns products of sixteen queries with a key into scores.
pub struct Bias {
    /// The position of the first query.
    pub first: usize,
    pub scale: f32,
    pub slope: f32,
}

impl Bias {
    /// The scores of key `j`; −∞ for queries before it.
    #[inline(always)]
    pub fn add<const FMA: bool>(&self, j: usize, lane: &mut Lane) {
        // Positions are below 2³², distances within a block's reach of those that matter: exact below 2²⁴.
        let distance = j as f32 - self.first as f32;
        for (l, x) in lane.iter_mut().enumerate() {
            let distance = distance - l as f32;
            let score = fma::<FMA>(*x, self.scale, self.slope * distance);
            *x = if distance > 0.0 { f32::NEG_INFINITY } else { score };
        }
    }
}
