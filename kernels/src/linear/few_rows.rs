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
        if k > 0 {
            Dots { x, w: &w[first * k..cols.end * k], k, rows: t, first, output }.run();
        }
        for row in 0..t {
            // SAFETY: a task alone writes to its columns.
            let part = unsafe { output.part(row, cols.clone()) };
            if k == 0 {
                part.fill(0.0);
            }
            finish(row, first, part);
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
        self.all::<FMA, 8>();
    }
}

impl<T: Widen> Dots<'_, T> {
    fn run(self) {
        #[cfg(target_arch = "x86_64")]
        if simd::has_avx512() {
            // SAFETY: the features were found on this machine.
            return unsafe { wide::all_512(&self) };
        }
        simd::run(self);
    }

    /// All that there is to do, with registers of `WIDTH` numbers.
    ///
    /// One row of x goes along one row of w after the other: that is the order in which memory is fastest. Several rows of x are
    /// worth several of w, of which the next come to the second-level cache meanwhile.
    #[inline(always)]
    fn all<const FMA: bool, const WIDTH: usize>(&self) {
        if self.rows == 1 {
            self.rows_of_w::<FMA, WIDTH, 1>();
        } else if WIDTH == 16 {
            self.rows_of_w::<FMA, WIDTH, 4>();
        } else {
            self.rows_of_w::<FMA, WIDTH, 2>();
        }
    }

    /// `N` rows of w at a time, and those that are left one by one.
    #[inline(always)]
    fn rows_of_w<const FMA: bool, const WIDTH: usize, const N: usize>(&self) {
        let mut col = self.first;
        for w in self.w.chunks(N * self.k) {
            if let Some(w) = split::<T, N>(w, self.k) {
                self.rows_of_x::<FMA, WIDTH, N>(col, w);
                col += N;
            } else {
                for w in w.chunks_exact(self.k) {
                    self.rows_of_x::<FMA, WIDTH, 1>(col, [w]);
                    col += 1;
                }
            }
        }
    }

    /// All rows of x with `N` rows of w, which stay in the first-level cache.
    #[inline(always)]
    fn rows_of_x<const FMA: bool, const WIDTH: usize, const N: usize>(&self, col: usize, w: [&[T]; N]) {
        let mut row = 0;
        while row < self.rows {
            row += match (self.rows - row, WIDTH) {
                (1, _) => self.block::<FMA, WIDTH, 1, N>(row, col, w),
                (2, _) | (4, 8) => self.block::<FMA, WIDTH, 2, N>(row, col, w),
                (3 | 5 | 6, _) | (_, 8) => self.block::<FMA, WIDTH, 3, N>(row, col, w),
                _ => self.block::<FMA, WIDTH, 4, N>(row, col, w),
            };
        }
    }

    #[inline(always)]
    fn block<const FMA: bool, const WIDTH: usize, const M: usize, const N: usize>(
        &self,
        row: usize,
        col: usize,
        w: [&[T]; N],
    ) -> usize {
        if let Some(x) = split::<f32, M>(&self.x[row * self.k..(row + M) * self.k], self.k) {
            for (i, dots) in dots::<FMA, WIDTH, T, M, N>(x, w).iter().enumerate() {
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
fn dots<const FMA: bool, const WIDTH: usize, T: Widen, const M: usize, const N: usize>(
    x: [&[f32]; M],
    w: [&[T]; N],
) -> [[f32; N]; M] {
    let mut lanes = [[[0.0f32; LANES]; N]; M];
    #[cfg(target_arch = "x86_64")]
    if FMA {
        let (whole_x, whole_w) = (x.map(|x| x.as_chunks::<LANES>().0), w.map(|w| w.as_chunks::<LANES>().0));
        let steps = whole_x[0].len();
        assert!(whole_x.iter().all(|x| x.len() == steps), "rows of one length");
        assert!(whole_w.iter().all(|w| w.len() == steps), "rows of one length");
        if WIDTH == 16 {
            // SAFETY: that width means that AVX-512 is here; the lengths were just checked.
            unsafe { wide::dots_512(steps, &whole_x, &whole_w, &mut lanes) };
        } else {
            // SAFETY: on this architecture `FMA` means that AVX2 and FMA are here; the lengths were just checked.
            unsafe { wide::dots(steps, &whole_x, &whole_w, &mut lanes) };
        }
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
            let lanes = &lanes[i][j];
            let (x, w) = (x[i].as_chunks::<LANES>().1, w[j].as_chunks::<LANES>().1);
            let mut eight = [0.0; 8];
            for l in 0..8 {
                eight[l] = lanes[l] + lanes[l + 8];
            }
            let mut four = [0.0; 4];
            for l in 0..4 {
                four[l] = eight[l] + eight[l + 4];
            }
            let mut sum = (four[0] + four[2]) + (four[1] + four[3]);
            for (&x, w) in x.iter().zip(w) {
                sum = simd::fma::<FMA>(x, w.widen(), sum);
            }
            sums[i][j] = sum;
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{_MM_HINT_T1, _mm256_fmadd_ps, _mm256_setzero_ps, _mm512_fmadd_ps, _mm512_setzero_ps};

    use super::{Dots, LANES, Widen};
    use crate::simd::wide::{self, load, load_512, store, store_512};

    /// How far ahead of the row at hand rows of w are asked for.
    const AHEAD: usize = 16 << 10;

    /// As [`Dots::all`].
    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    pub fn all_512<T: Widen>(dots: &Dots<'_, T>) {
        dots.all::<true, 16>();
    }

    /// Asks for what a step further on will read: `N` groups of lanes, those before it being `step · N`. Rows lie one behind the
    /// other, and are asked for in that order, whatever the order in which they are read.
    #[inline(always)]
    fn ask<T, const N: usize>(first: &[[T; LANES]], step: usize) {
        let bytes = N * LANES * size_of::<T>();
        wide::ask::<_MM_HINT_T1>(first.as_ptr().cast::<u8>().wrapping_add(AHEAD + step * bytes), bytes);
    }

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
            ask::<T, N>(w[0], step);
            for half in 0..2 {
                let mut ws = [_mm256_setzero_ps(); N];
                for (to, w) in ws.iter_mut().zip(w) {
                    // SAFETY: `step` is below the number of groups.
                    let w = unsafe { w.get_unchecked(step) };
                    // SAFETY: AVX2 is here.
                    *to = unsafe { T::widen_8(&w.as_chunks::<8>().0[half]) };
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

    /// As [`dots`], the same bits, of at most 16 pairs of rows.
    ///
    /// # Safety
    /// Every row has `steps` groups of lanes.
    #[target_feature(enable = "avx512f,avx2,fma")]
    #[inline]
    pub unsafe fn dots_512<T: Widen, const M: usize, const N: usize>(
        steps: usize,
        x: &[&[[f32; LANES]]; M],
        w: &[&[[T; LANES]]; N],
        to: &mut [[[f32; LANES]; N]; M],
    ) {
        let mut sums = [[_mm512_setzero_ps(); N]; M];
        for step in 0..steps {
            ask::<T, N>(w[0], step);
            let mut ws = [_mm512_setzero_ps(); N];
            for (to, w) in ws.iter_mut().zip(w) {
                // SAFETY: `step` is below the number of groups.
                let w = unsafe { w.get_unchecked(step) };
                // SAFETY: AVX-512F is here.
                *to = unsafe { T::widen_16(w) };
            }
            for (sums, x) in sums.iter_mut().zip(x) {
                // SAFETY: `step` is below the number of groups.
                let x = load_512(unsafe { x.get_unchecked(step) });
                for (sum, &w) in sums.iter_mut().zip(&ws) {
                    *sum = _mm512_fmadd_ps(x, w, *sum);
                }
            }
        }
        for (to, sum) in to.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
            store_512(to, *sum);
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
#[allow(clippy::unwrap_used)] // how a test fails
mod tests {
    use half::bf16;

    use super::{Dots, Output, wide};
    use crate::simd;

    /// Numbers of all sizes, so that sums in another order are other sums.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mixed = |i: u32| (i ^ seed).wrapping_mul(0x9e37_79b9).rotate_left(13).wrapping_mul(0x85eb_ca6b);
        (0..count as u32)
            .map(|i| ((mixed(i) >> 8) as f32 / (1 << 23) as f32 - 1.0) * 2f32.powi((i % 9).cast_signed()))
            .collect()
    }

    #[test]
    fn wider_registers_give_the_same_bits() {
        if !simd::has_avx512() {
            println!("skipped: no AVX-512 here");
            return;
        }
        for (rows, n, k) in [(1, 5, 1031), (2, 9, 64), (3, 4, 17), (5, 7, 256), (7, 6, 33), (8, 13, 100), (9, 3, 15)] {
            let (x, w) = (numbers(rows * k, 1), numbers(n * k, 2));
            let short: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
            let mut got = [(); 4].map(|()| vec![0.0f32; rows * n]);
            {
                let [wide_f32, f32s, wide_bf16, bf16s] = &mut got;
                let [wide_f32, f32s, wide_bf16, bf16s] =
                    [wide_f32, f32s, wide_bf16, bf16s].map(|to| Output::new(to.as_mut_slice(), n));
                // SAFETY: the features were found on this machine.
                unsafe { wide::all_512(&Dots { x: &x, w: &w, k, rows, first: 0, output: &wide_f32 }) };
                simd::run(Dots { x: &x, w: &w, k, rows, first: 0, output: &f32s });
                // SAFETY: as above.
                unsafe { wide::all_512(&Dots { x: &x, w: &short, k, rows, first: 0, output: &wide_bf16 }) };
                simd::run(Dots { x: &x, w: &short, k, rows, first: 0, output: &bf16s });
            }
            let bits = got.map(|all| all.into_iter().map(f32::to_bits).collect::<Vec<_>>());
            assert!(bits[0].iter().any(|&b| b != 0), "{rows} rows, {n} columns, {k} products");
            assert_eq!(bits[0], bits[1], "f32, {rows} rows, {n} columns, {k} products");
            assert_eq!(bits[2], bits[3], "bf16, {rows} rows, {n} columns, {k} products");
        }
    }
}
