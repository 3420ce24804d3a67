#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use super::forward::{Bias, scale};
use super::tile::{KEYS, LANES, Lane, ROWS, Rows, Tile, product, product_over_lanes};
use crate::simd::{self, Work, fma};

/// One head of one document, whole: the sums over queries and over keys both have one order.
pub struct Head<'a> {
    pub queries: Rows<'a>,
    pub keys: Rows<'a>,
    pub values: Rows<'a>,
    pub out: Rows<'a>,
    pub dout: Rows<'a>,
    /// Rows of two elements: the largest score, and the sum of exponentials of scores less that.
    pub stats: Rows<'a>,
    pub slope: f32,
}

impl Work for Head<'_> {
    /// The gradients of the document's queries, keys and values `[n, 3, d]`.
    type Output = Vec<f32>;

    /// With P the softmax, dP = dout · vᵀ and D = Σ dout ∘ out of a row (FlashAttention-2, section 2.3.2):
    /// dv = Pᵀ · dout, dS = P ∘ (dP − D), dq = dS · k / √d, dk = dSᵀ · q / √d.
    #[inline(always)]
    fn call<const FMA: bool>(self) -> Vec<f32> {
        let (n, d) = (self.queries.count, self.queries.size);
        let padded = n.next_multiple_of(LANES);
        // Not `collect`, which is compiled apart, without the wide instructions.
        let mut groups = Vec::with_capacity(n.div_ceil(LANES));
        for i in (0..n).step_by(LANES) {
            groups.push(Group::new::<FMA>(&self, i));
        }
        let vectors = d.div_ceil(LANES);
        let (mut queries, mut dout) = (vec![[0.0; LANES]; vectors * padded], vec![[0.0; LANES]; vectors * padded]);
        self.queries.by_lanes(padded, &mut queries);
        self.dout.by_lanes(padded, &mut dout);
        let mut gradient = vec![0.0; n * 3 * d];
        let mut panels = Panels {
            keys: vec![[0.0; ROWS]; KEYS / ROWS * d],
            values: vec![[0.0; ROWS]; KEYS / ROWS * d],
            key_elements: vec![[0.0; ROWS]; d.div_ceil(ROWS) * KEYS],
        };
        let mut weights = [[[0.0; LANES]; ROWS]; KEYS / ROWS];
        let mut dscores = weights;
        for from in (0..n).step_by(KEYS) {
            let count = KEYS.min(n - from);
            self.keys.by_rows(from, count, &mut panels.keys);
            self.values.by_rows(from, count, &mut panels.values);
            self.keys.by_elements(from, count, &mut panels.key_elements);
            // [vectors][tiles of keys]
            let zeros = vec![[[0.0; LANES]; ROWS]; vectors * (KEYS / ROWS)];
            let (mut dkeys, mut dvalues) = (zeros.clone(), zeros);
            for (g, group) in groups.iter_mut().enumerate().skip(from / LANES) {
                let tiles = count.min((g + 1) * LANES - from).div_ceil(ROWS);
                group.step::<FMA>(from, &panels, &mut weights[..tiles], &mut dscores[..tiles]);
                for e in 0..vectors {
                    let at = e * padded + g * LANES;
                    let (Some(q), Some(dy)) = (queries[at..].first_chunk(), dout[at..].first_chunk()) else { continue };
                    let sums = e * (KEYS / ROWS)..e * (KEYS / ROWS) + tiles;
                    for (sum, weights) in dvalues[sums.clone()].iter_mut().zip(&weights) {
                        *sum = product_over_lanes::<FMA>(*sum, weights, dy);
                    }
                    for (sum, dscores) in dkeys[sums].iter_mut().zip(&dscores) {
                        *sum = product_over_lanes::<FMA>(*sum, dscores, q);
                    }
                }
            }
            for (j, row) in gradient.chunks_exact_mut(3 * d).skip(from).take(count).enumerate() {
                let (dk, dv) = row[d..].split_at_mut(d);
                for (dx, sums) in [(dk, &dkeys), (dv, &dvalues)] {
                    for (dx, tiles) in dx.chunks_mut(LANES).zip(sums.chunks_exact(KEYS / ROWS)) {
                        dx.copy_from_slice(&tiles[j / ROWS][j % ROWS][..dx.len()]);
                    }
                }
            }
        }
        for (rows, group) in gradient.chunks_mut(LANES * 3 * d).zip(&groups) {
            for (l, row) in rows.chunks_exact_mut(3 * d).enumerate() {
                row[..d].iter_mut().zip(group.dqueries.as_flattened()).for_each(|(x, lane)| *x = lane[l]);
            }
        }
        gradient
    }
}

/// A block of keys and values, as the products want them.
struct Panels {
    keys: Vec<[f32; ROWS]>,
    values: Vec<[f32; ROWS]>,
    key_elements: Vec<[f32; ROWS]>,
}

/// Sixteen queries, `[d]` each across lanes.
struct Group {
    queries: Vec<Lane>,
    dout: Vec<Lane>,
    dqueries: Vec<Tile>,
    max: Lane,
    /// 1 / sum.
    share: Lane,
    /// D: Σ dout ∘ out.
    product: Lane,
    bias: Bias,
}

impl Group {
    #[inline(always)]
    fn new<const FMA: bool>(head: &Head, first: usize) -> Self {
        let d = head.queries.size;
        let (mut queries, mut dout) = (vec![[0.0; LANES]; d], vec![[0.0; LANES]; d]);
        head.queries.across(first, &mut queries);
        head.dout.across(first, &mut dout);
        let mut stats = [[0.0; LANES]; 2];
        head.stats.across(first, &mut stats);
        let [max, sum] = stats;
        let mut out = vec![[0.0; LANES]; d];
        head.out.across(first, &mut out);
        // In the order and roundings of dP, so that a softmax of one weight gives a dS of exactly zero.
        let mut product = [0.0; LANES];
        for (out, dout) in out.iter().zip(&dout) {
            for l in 0..LANES {
                product[l] = fma::<FMA>(out[l], dout[l], product[l]);
            }
        }
        let bias = Bias { first, scale: scale(d), slope: head.slope };
        Self {
            queries,
            dout,
            dqueries: vec![[[0.0; LANES]; ROWS]; d.div_ceil(ROWS)],
            max,
            share: sum.map(|sum| if sum > 0.0 { 1.0 / sum } else { sum }),
            product,
            bias,
        }
    }

    /// P and dS / √d of the keys from `from` on, as many as there is room for; adds to dq.
    #[inline(always)]
    fn step<const FMA: bool>(&mut self, from: usize, panels: &Panels, weights: &mut [Tile], dscores: &mut [Tile]) {
        let d = self.queries.len();
        let panels_of_rows = panels.keys.chunks_exact(d).zip(panels.values.chunks_exact(d));
        let tiled = weights.iter_mut().zip(&mut *dscores).zip(panels_of_rows);
        for (tile, ((weights, dscores), (keys, values))) in tiled.enumerate() {
            *weights = product::<FMA>([[0.0; LANES]; ROWS], keys, &self.queries);
            *dscores = product::<FMA>([[0.0; LANES]; ROWS], values, &self.dout);
            for (r, (weights, dscores)) in weights.iter_mut().zip(dscores).enumerate() {
                self.bias.add::<FMA>(from + tile * ROWS + r, weights);
                for l in 0..LANES {
                    weights[l] = simd::exp::<FMA>(weights[l] - self.max[l]) * self.share[l];
                    dscores[l] = weights[l] * (dscores[l] - self.product[l]) * self.bias.scale;
                }
            }
        }
        for (dq, keys) in self.dqueries.iter_mut().zip(panels.key_elements.chunks_exact(KEYS)) {
            *dq = product::<FMA>(*dq, keys, dscores.as_flattened());
        }
    }
}
