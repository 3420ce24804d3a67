//! As [`super::forward`], where keys and values are kept in bf16 and the machine multiplies tiles ([`crate::amx`]): queries and weights are
//! rounded to bf16 where they are multiplied, as on a GPU's tensor cores; sums and the softmax are f32.

#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use super::forward::{Block, scale};
use super::tile::Joined;
use crate::amx::{LANES, PAIR, Registers, STEP, Tile, round, side_by_side, tiles_in};
use crate::linear::transpose;
use crate::simd::wide::{load_512, store_512};
use crate::simd::{self, Work, fma};

/// Keys of one step.
const KEYS: usize = 128;
const STEPS: usize = KEYS / STEP;
const LANE: [f32; LANES] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];

/// A block whose heads have an even size.
pub struct InTiles<'a>(pub Block<'a>);

impl Work for InTiles<'_> {
    /// As that of [`Block`].
    type Output = (Vec<f32>, Vec<[f32; 2]>);

    #[inline(always)]
    fn call<const FMA: bool>(self) -> Self::Output {
        let registers = Registers::open();
        let Self(block) = self;
        let (n, d) = (block.queries.count, block.queries.size);
        let (steps, wide) = (d.div_ceil(STEP), d.div_ceil(PAIR) * 2);
        let pairs = n.div_ceil(PAIR);
        let mut memory: [Vec<f32>; 7] = Default::default();
        let [queries, keys, values, scores, weights, part, out] = &mut memory;
        let queries = tiles_in(queries, pairs * 2 * steps);
        let keys = tiles_in(keys, KEYS / LANES * steps);
        let values = tiles_in(values, wide * STEPS);
        let scores = tiles_in(scores, 2 * KEYS / LANES);
        let weights = tiles_in(weights, 2 * STEPS);
        let part = tiles_in(part, 2 * wide);
        let out = tiles_in(out, pairs * 2 * wide);
        for (panel, tiles) in queries.chunks_exact_mut(steps).enumerate() {
            for i in 0..LANES {
                if let Some(row) = block.queries.row(panel * LANES + i) {
                    // SAFETY: its instructions are here, as the registers are.
                    unsafe { round(row, i, tiles) };
                }
            }
        }
        let mut softmax = vec![Softmax { max: f32::NEG_INFINITY, sum: [0.0; LANES] }; pairs * PAIR];
        let (mut across, mut row) = (Vec::new(), [0.0; KEYS]);
        for from in (0..block.first + n).step_by(KEYS) {
            let count = KEYS.min(block.first + n - from);
            keys_in_tiles(&block.keys, from, count, keys, &mut across);
            values_in_tiles(&block.values, from, count, values, &mut across);
            let pairs =
                queries.chunks_exact(2 * steps).zip(out.chunks_exact_mut(2 * wide)).zip(softmax.chunks_exact_mut(PAIR));
            for (pair, ((queries, out), softmax)) in pairs.enumerate() {
                let first = block.first + pair * PAIR;
                // No key past the last query.
                if first + PAIR <= from {
                    continue;
                }
                registers.multiply(queries, keys, steps, scores);
                let mut shrink = [0.0; PAIR];
                for (i, softmax) in softmax.iter_mut().enumerate().take(n - pair * PAIR) {
                    let tiles = &scores[i / LANES * (KEYS / LANES)..][..KEYS / LANES];
                    let distance = from as f32 - (first + i) as f32;
                    shrink[i] = softmax.step::<FMA>(tiles, i % LANES, distance, [scale(d), block.slope], &mut row);
                    // SAFETY: its instructions are here, as the registers are.
                    unsafe { round(&row, i % LANES, &mut weights[i / LANES * STEPS..][..STEPS]) };
                }
                registers.multiply(weights, values, STEPS, part);
                for ((out, part), shrink) in
                    out.chunks_exact_mut(wide).zip(part.chunks_exact(wide)).zip(shrink.as_chunks::<LANES>().0)
                {
                    for (out, part) in out.iter_mut().zip(part) {
                        for i in 0..LANES {
                            for l in 0..LANES {
                                out[i][l] = fma::<FMA>(out[i][l], shrink[i], part[i][l]);
                            }
                        }
                    }
                }
            }
        }
        let mut rows = vec![0.0; n * d];
        let mut stats = Vec::with_capacity(n);
        for (i, (row, softmax)) in rows.chunks_exact_mut(d).zip(&softmax).enumerate() {
            let sum = sum(softmax.sum);
            let tiles = &out[i / LANES * wide..][..wide];
            for (row, tile) in row.chunks_mut(LANES).zip(tiles) {
                row.iter_mut().zip(tile[i % LANES]).for_each(|(x, out)| *x = out / sum);
            }
            stats.push([softmax.max, sum]);
        }
        (rows, stats)
    }
}

/// A query's, on the way through its keys.
#[derive(Clone, Copy)]
struct Softmax {
    max: f32,
    sum: [f32; LANES],
}

impl Softmax {
    /// Takes in a row of scores, the first at `distance` from the query; gives their weights, and what earlier ones are to be multiplied by.
    #[inline(always)]
    fn step<const FMA: bool>(
        &mut self,
        scores: &[Tile],
        row: usize,
        distance: f32,
        [scale, slope]: [f32; 2],
        weights: &mut [f32; KEYS],
    ) -> f32 {
        let mut most = [f32::NEG_INFINITY; LANES];
        for (tile, (scores, to)) in scores.iter().zip(weights.as_chunks_mut::<LANES>().0).enumerate() {
            let distance = distance + (tile * LANES) as f32;
            let mut lane = scores[row];
            for l in 0..LANES {
                let distance = distance + LANE[l];
                let score = fma::<FMA>(lane[l], scale, slope * distance);
                lane[l] = if distance > 0.0 { f32::NEG_INFINITY } else { score };
                most[l] = if lane[l] > most[l] { lane[l] } else { most[l] };
            }
            *to = lane;
        }
        for half in [8, 4, 2, 1] {
            for l in 0..half {
                most[l] = if most[l] > most[l + half] { most[l] } else { most[l + half] };
            }
        }
        let max = if most[0] > self.max { most[0] } else { self.max };
        let shrink = simd::exp::<FMA>(self.max - max);
        self.max = max;
        for sum in &mut self.sum {
            *sum *= shrink;
        }
        for weights in weights.as_chunks_mut::<LANES>().0 {
            for (weight, sum) in weights.iter_mut().zip(&mut self.sum) {
                *weight = simd::exp::<FMA>(*weight - max);
                *sum += *weight;
            }
        }
        shrink
    }
}

/// In halves, which wide registers add at once.
#[inline(always)]
fn sum(mut terms: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            terms[l] += terms[l + half];
        }
    }
    terms[0]
}

/// `count` rows from `from` on as the right factor of a product with queries. Tiles for rows past those hold the last one.
#[inline(always)]
fn keys_in_tiles(keys: &Joined, from: usize, count: usize, to: &mut [Tile], across: &mut Vec<f32>) {
    let (rows, first) = keys.tile(from, count, across);
    let steps = to.len() / (KEYS / LANES);
    for (panel, to) in to.chunks_exact_mut(steps).enumerate() {
        let rows = std::array::from_fn(|i| {
            let row = rows.row(first + (panel * LANES + i).min(count - 1)).unwrap_or(&[]);
            row.as_chunks::<2>().0
        });
        // Beyond the elements there are the zeros of new memory.
        transpose::<true, _, LANES>(rows, &mut to.as_flattened_mut()[..rows[0].len()]);
    }
}

/// `count` rows from `from` on as the right factor of a product with weights, zeros past those.
#[inline(always)]
fn values_in_tiles(values: &Joined, from: usize, count: usize, to: &mut [Tile], across: &mut Vec<f32>) {
    let (rows, first) = values.tile(from, count, across);
    for pair in 0..KEYS / 2 {
        let [one, two] = [2 * pair, 2 * pair + 1].map(|i| rows.row(first + i).unwrap_or(&[]));
        let panels = to.chunks_exact_mut(STEPS);
        for (panel, to) in panels.enumerate() {
            // SAFETY: its instructions are here, as the registers are.
            unsafe { interleave([one, two], panel * LANES, &mut to[pair / LANES][pair % LANES]) };
        }
    }
}

/// 16 elements of two rows, from `first` on, as pairs; zeros past their end.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn interleave(rows: [&[f32]; 2], first: usize, to: &mut [f32; LANES]) {
    let mut both = [[0.0; LANES]; 2];
    for (to, row) in both.iter_mut().zip(rows) {
        let part = row.get(first..).unwrap_or(&[]);
        if let Some(part) = part.first_chunk() {
            *to = *part;
        } else {
            to[..part.len()].copy_from_slice(part);
        }
    }
    store_512(to, side_by_side([load_512(&both[0]), load_512(&both[1])]));
}
