#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use rayon::prelude::*;
use tensor::unwritten;

use crate::simd::{self, Work, fma};

/// What the normalised rows are multiplied by and moved by, `[c]` each, and the variance's guard.
pub struct Affine<'a> {
    pub gamma: &'a [f32],
    pub beta: &'a [f32],
    pub eps: f32,
}

/// Rows to differentiate: `dy` and `x` `[t, c]`, `stats` `[t, 2]`, `gamma` `[c]`.
pub struct Rows<'a> {
    pub dy: &'a [f32],
    pub x: &'a [f32],
    pub stats: &'a [f32],
    pub gamma: &'a [f32],
}

/// Independent partial sums: two AVX2 registers of f64, four times, which hides an addition's latency.
const LANES: usize = 16;
/// Rows of one job. Part of the result: the gradients of gamma and beta are summed within such chunks, then over them.
const CHUNK: usize = 16;

/// The normalised rows `[t, c]` and their stats `[t, 2]`.
pub fn forward(x: &[f32], affine: &Affine) -> (Vec<f32>, Vec<f32>) {
    let c = affine.gamma.len();
    let (mut y, mut stats) = (unwritten(x.len()), unwritten(rows(x, c) * 2));
    let size = (CHUNK * c).max(1);
    (y.par_chunks_mut(size), stats.par_chunks_mut(CHUNK * 2), x.par_chunks(size)).into_par_iter().for_each(
        |(y, stats, x)| {
            for ((y, stats), x) in y.chunks_exact_mut(c).zip(stats.as_chunks_mut().0).zip(x.chunks_exact(c)) {
                *stats = simd::run(Row { y, x, affine });
            }
        },
    );
    (y, stats)
}

/// The sums x + residual `[t, c]`, their normalised rows `[t, c]`, and stats `[t, 2]`.
pub fn add_forward(x: &[f32], residual: &[f32], affine: &Affine) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let c = affine.gamma.len();
    let (mut sum, mut y, mut stats) = (unwritten(x.len()), unwritten(x.len()), unwritten(rows(x, c) * 2));
    let size = (CHUNK * c).max(1);
    (sum.par_chunks_mut(size), y.par_chunks_mut(size), stats.par_chunks_mut(CHUNK * 2), x.par_chunks(size))
        .into_par_iter()
        .zip(residual.par_chunks(size))
        .for_each(|((sum, y, stats, x), residual)| {
            let inputs = x.chunks_exact(c).zip(residual.chunks_exact(c));
            let outputs = sum.chunks_exact_mut(c).zip(y.chunks_exact_mut(c)).zip(stats.as_chunks_mut().0);
            for ((x, residual), ((sum, y), stats)) in inputs.zip(outputs) {
                for ((sum, x), residual) in sum.iter_mut().zip(x).zip(residual) {
                    *sum = x + residual;
                }
                *stats = simd::run(Row { y, x: sum, affine });
            }
        });
    (sum, y, stats)
}

/// The gradient of the rows `[t, c]`; the gradients of gamma and beta are added to `dgamma` and `dbeta` `[c]`.
pub fn backward(rows: &Rows, dgamma: &mut [f32], dbeta: &mut [f32]) -> Vec<f32> {
    let c = rows.gamma.len();
    let mut dx = unwritten(rows.x.len());
    let size = (CHUNK * c).max(1);
    let sums: Vec<Vec<[f64; 2]>> = dx
        .par_chunks_mut(size)
        .zip(rows.dy.par_chunks(size))
        .zip(rows.x.par_chunks(size).zip(rows.stats.par_chunks(CHUNK * 2)))
        .map(|((dx, dy), (x, stats))| {
            let mut sums = vec![[0.0; 2]; c];
            simd::run(Chunk { dx, sums: &mut sums, rows: Rows { dy, x, stats, gamma: rows.gamma } });
            sums
        })
        .collect();
    for (i, (dgamma, dbeta)) in dgamma.iter_mut().zip(dbeta).enumerate() {
        let total = sums.iter().fold([0.0; 2], |total, chunk| [total[0] + chunk[i][0], total[1] + chunk[i][1]]);
        *dgamma += total[0] as f32;
        *dbeta += total[1] as f32;
    }
    dx
}

fn rows(x: &[f32], c: usize) -> usize {
    x.len().checked_div(c).unwrap_or(0)
}

struct Row<'a> {
    y: &'a mut [f32],
    x: &'a [f32],
    affine: &'a Affine<'a>,
}

impl Work for Row<'_> {
    /// Mean, 1 / standard deviation.
    type Output = [f32; 2];

    #[inline(always)]
    fn call<const FMA: bool>(self) -> [f32; 2] {
        let n = self.x.len() as f64;
        let mean = sum(self.x, self.x, |x, _| f64::from(x)) / n;
        let variance = sum(self.x, self.x, |x, _| (f64::from(x) - mean) * (f64::from(x) - mean)) / n;
        let (mean, inverse) = (mean as f32, (1.0 / (variance + f64::from(self.affine.eps)).sqrt()) as f32);
        let affine = self.affine.gamma.iter().zip(self.affine.beta);
        for ((y, x), (gamma, beta)) in self.y.iter_mut().zip(self.x).zip(affine) {
            *y = fma::<FMA>((x - mean) * inverse, *gamma, *beta);
        }
        [mean, inverse]
    }
}

struct Chunk<'a> {
    dx: &'a mut [f32],
    sums: &'a mut [[f64; 2]],
    rows: Rows<'a>,
}

impl Work for Chunk<'_> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        let Rows { dy, x, stats, gamma } = self.rows;
        let c = gamma.len();
        // g · n and x̂ of the row at hand.
        let (mut g, mut normed) = (vec![0.0; c], vec![0.0; c]);
        let rows = dy.chunks_exact(c).zip(x.chunks_exact(c)).zip(stats.as_chunks::<2>().0);
        for (dx, ((dy, x), &[mean, inverse])) in self.dx.chunks_exact_mut(c).zip(rows) {
            for ((g, dy), gamma) in g.iter_mut().zip(dy).zip(gamma) {
                *g = dy * gamma;
            }
            for (normed, x) in normed.iter_mut().zip(x) {
                *normed = (x - mean) * inverse;
            }
            for (sums, (dy, normed)) in self.sums.iter_mut().zip(dy.iter().zip(&normed)) {
                sums[0] += f64::from(*dy) * f64::from(*normed);
                sums[1] += f64::from(*dy);
            }
            let mean_g = sum(&g, &g, |g, _| f64::from(g)) / c as f64;
            let mean_gx = sum(&g, &normed, |g, x| f64::from(g) * f64::from(x)) / c as f64;
            for ((dx, g), normed) in dx.iter_mut().zip(&g).zip(&normed) {
                let centred = f64::from(*g) - mean_g - f64::from(*normed) * mean_gx;
                *dx = (centred * f64::from(inverse)) as f32;
            }
        }
    }
}

/// Σ f(x, y) in lanes: element i always goes to lane i mod [`LANES`].
#[inline(always)]
fn sum(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        for l in 0..LANES {
            lanes[l] += f(x[l], y[l]);
        }
    }
    for (lane, (x, y)) in lanes.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *lane += f(*x, *y);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            lanes[l] += lanes[l + width];
        }
        width /= 2;
    }
    lanes[0]
}
