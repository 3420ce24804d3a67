//! Few rows times a large weight: every dot product on its own, the weights read once and in order.
//!
//! A dot product sums over 16 lanes in order of k, then the lanes pairwise, then what k leaves over 16 in order; so
//! its bits depend on its row of x and its row of w alone.

#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use rayon::prelude::*;

use super::output::Output;
use super::pack::Widen;
use crate::simd::{self, Work};

/// Rows of w that a task takes.
const TASK: usize = 64;
const LANES: usize = 16;
/// Up to so many weights, waking other threads costs more than it saves.
const ALONE: usize = 1 << 15;

/// `output[t, n] = x[t, k] · w[n, k]ᵀ`, then `finish(row, column, part)` on each part of a row of it.
pub(super) fn multiply<T: Widen + Sync>(
    x: &[f32],
    w: &[T],
    k: usize,
    output: &Output<'_>,
    [t, n]: [usize; 2],
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let task = |i: usize| {
        let first = i * TASK;
        let cols = first..n.min(first + TASK);
        simd::run(Dots { x, w: &w[first * k..cols.end * k], k, rows: t, first, output });
        for row in 0..t {
            // SAFETY: a task alone writes to its columns.
            finish(row, first, unsafe { output.part(row, cols.clone()) });
        }
    };
    let tasks = n.div_ceil(TASK);
    if n.saturating_mul(k) <= ALONE {
        (0..tasks).for_each(task);
    } else {
        (0..tasks).into_par_iter().for_each(task);
    }
}

/// A task: some rows of w, and the column of the output that the first of them makes.
struct Dots<'a, T> {
    x: &'a [f32],
    w: &'a [T],
    k: usize,
    rows: usize,
    first: usize,
    output: &'a Output<'a>,
}

impl<T: Widen> Work for Dots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        if self.k == 0 {
            return; // The output is zero already.
        }
        if self.rows == 1 {
            self.rows_of_w::<4>(
                |col, w| {
                    self.block::<FMA, 1, 4>(0, col, w);
                },
                |col, w| {
                    self.block::<FMA, 1, 1>(0, col, w);
                },
            );
        } else {
            self.rows_of_w::<2>(|col, w| self.rows_of_x::<FMA, 2>(col, w), |col, w| self.rows_of_x::<FMA, 1>(col, w));
        }
    }
}

impl<'a, T: Widen> Dots<'a, T> {
    /// Calls `some` with `N` rows of w at a time and their first column of the output, and `one` with each that is left.
    #[inline(always)]
    fn rows_of_w<const N: usize>(&self, some: impl Fn(usize, [&'a [T]; N]), one: impl Fn(usize, [&'a [T]; 1])) {
        let mut col = self.first;
        for w in self.w.chunks(N * self.k) {
            if let Some(w) = split::<T, N>(w, self.k) {
                some(col, w);
                col += N;
            } else {
                for w in w.chunks_exact(self.k) {
                    one(col, [w]);
                    col += 1;
                }
            }
        }
    }

    /// All rows of x with `N` rows of w, which stay in the first-level cache.
    #[inline(always)]
    fn rows_of_x<const FMA: bool, const N: usize>(&self, col: usize, w: [&[T]; N]) {
        let mut row = 0;
        while row < self.rows {
            row += match self.rows - row {
                1 => self.block::<FMA, 1, N>(row, col, w),
                2 | 4 => self.block::<FMA, 2, N>(row, col, w),
                _ => self.block::<FMA, 3, N>(row, col, w),
            };
        }
    }

    #[inline(always)]
    fn block<const FMA: bool, const M: usize, const N: usize>(&self, row: usize, col: usize, w: [&[T]; N]) -> usize {
        if let Some(x) = split::<f32, M>(&self.x[row * self.k..(row + M) * self.k], self.k) {
            for (i, dots) in dots::<FMA, T, M, N>(x, w).iter().enumerate() {
                // SAFETY: a task alone writes to its columns.
                unsafe { self.output.part(row + i, col..col + N) }.copy_from_slice(dots);
            }
        }
        M
    }
}

/// `values` as exactly `N` rows of `k`.
#[inline(always)]
fn split<T, const N: usize>(values: &[T], k: usize) -> Option<[&[T]; N]> {
    (values.len() == N * k).then(|| std::array::from_fn(|i| &values[i * k..(i + 1) * k]))
}

/// The dot products of `M` rows of x with `N` rows of w, all of one length.
#[inline(always)]
fn dots<const FMA: bool, T: Widen, const M: usize, const N: usize>(x: [&[f32]; M], w: [&[T]; N]) -> [[f32; N]; M] {
    let mut lanes = [[[0.0f32; LANES]; N]; M];
    #[cfg(target_arch = "x86_64")]
    if FMA {
        let (whole_x, whole_w) = (x.map(|x| x.as_chunks::<LANES>().0), w.map(|w| w.as_chunks::<LANES>().0));
        let steps = whole_x[0].len();
        assert!(whole_x.iter().all(|x| x.len() == steps), "rows of one length");
        assert!(whole_w.iter().all(|w| w.len() == steps), "rows of one length");
        // SAFETY: on this architecture `FMA` means that AVX2 and FMA are here; the lengths were just checked.
        unsafe { wide::dots(steps, &whole_x, &whole_w, &mut lanes) };
        return total::<FMA, T, M, N>(x, w, &lanes);
    }
    for (x, lanes) in x.iter().zip(&mut lanes) {
        for (w, lanes) in w.iter().zip(lanes) {
            for (x, w) in x.as_chunks::<LANES>().0.iter().zip(w.as_chunks::<LANES>().0) {
                for ((lane, &x), w) in lanes.iter_mut().zip(x).zip(w) {
                    *lane = simd::fma::<FMA>(x, w.widen(), *lane);
                }
            }
        }
    }
    total::<FMA, T, M, N>(x, w, &lanes)
}

/// Sums the lanes, and adds the products that fill no lane.
#[inline(always)]
fn total<const FMA: bool, T: Widen, const M: usize, const N: usize>(
    x: [&[f32]; M],
    w: [&[T]; N],
    lanes: &[[[f32; LANES]; N]; M],
) -> [[f32; N]; M] {
    let mut sums = [[0.0; N]; M];
    for i in 0..M {
        for j in 0..N {
            let mut lanes = lanes[i][j];
            for half in [8, 4, 2, 1] {
                for l in 0..half {
                    lanes[l] += lanes[l + half];
                }
            }
            let (x, w) = (x[i].as_chunks::<LANES>().1, w[j].as_chunks::<LANES>().1);
            sums[i][j] = x.iter().zip(w).fold(lanes[0], |sum, (&x, w)| simd::fma::<FMA>(x, w.widen(), sum));
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_setzero_ps};

    use super::{LANES, Widen};
    use crate::simd::wide::{load, store};

    /// The products of whole lanes, summed by lane, of at most 6 pairs of rows.
    ///
    /// # Safety
    /// Every row has `steps` groups of lanes.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub unsafe fn dots<T: Widen, const M: usize, const N: usize>(
        steps: usize,
        x: &[&[[f32; LANES]]; M],
        w: &[&[[T; LANES]]; N],
        to: &mut [[[f32; LANES]; N]; M],
    ) {
        let mut sums = [[[_mm256_setzero_ps(); 2]; N]; M];
        for step in 0..steps {
            for half in 0..2 {
                let mut ws = [_mm256_setzero_ps(); N];
                for (to, w) in ws.iter_mut().zip(w) {
                    // SAFETY: `step` is below the number of groups.
                    let w = unsafe { w.get_unchecked(step) };
                    *to = load(&w.as_chunks::<8>().0[half].map(T::widen));
                }
                for (sums, x) in sums.iter_mut().zip(x) {
                    // SAFETY: `step` is below the number of groups.
                    let x = unsafe { x.get_unchecked(step) };
                    let x = load(&x.as_chunks::<8>().0[half]);
                    for (sums, &w) in sums.iter_mut().zip(&ws) {
                        sums[half] = _mm256_fmadd_ps(x, w, sums[half]);
                    }
                }
            }
        }
        for (to, sums) in to.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
            for (to, &sum) in to.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
                store(to, sum);
            }
        }
    }
}
