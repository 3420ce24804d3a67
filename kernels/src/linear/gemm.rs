//! Matrix times matrix in f32, after Goto & van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008),
//! and BLIS: both factors are copied in blocks to memory that the innermost loop reads in order; that loop keeps a
//! tile of 6 × 16 sums in registers.
//!
//! The bits of `c[i, j]` depend on row i of `a`, column j of `b` and k alone: products are summed in order of k
//! within a block of 256, from zero, and the blocks' sums are added to c in order. Neither the tiling of m and n nor
//! the number of threads takes part.

#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::output::Output;
use super::pack::{Packed, pack};
use super::tile::{COLS as TILE_COLS, ROWS as TILE_ROWS, multiply};
use crate::simd::{self, Work};

/// Products per block of k: 16 columns of b are 16 KiB, half of the first-level cache.
const DEPTH: usize = 256;
/// At most one task's part of c: its rows of a, 96 KiB, stay in the second-level cache, and so does its part of c.
const TASK_ROWS: usize = 96;
const TASK_COLS: usize = 256;
/// Copied at most at once, shared by all threads: 7.5 MiB of a and 4 MiB of b.
const SHARED_DEPTH: usize = 4 * DEPTH;
const SHARED_ROWS: usize = 1920;
const SHARED_COLS: usize = 1024;
/// Below so many multiplications, waking other threads costs more than it saves.
const ALONE: usize = 1 << 18;

/// A matrix's elements.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

/// A view of a matrix: element (i, j) is at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub values: Values<'a>,
    pub rows: usize,
    pub cols: usize,
    pub row_stride: usize,
    pub col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A contiguous row-major matrix.
    pub fn row_major(values: Values<'a>, rows: usize, cols: usize) -> Self {
        Self { values, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The transpose, over the same memory.
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// What c holds before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Nothing of use: it is overwritten.
    Zero,
    /// Numbers to add to.
    Add,
}

/// `c = a · b` or `c += a · b`, with c `[m, n]` row-major and contiguous, a `[m, k]`, b `[k, n]`. The caller has
/// checked the shapes.
pub(crate) fn gemm(c: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, start: Start) {
    gemm_then(c, a, b, start, |_, _, _| ());
}

/// As [`gemm`], and calls `finish(row, column, part)` once on each part of a row of c that is done, while it is in
/// the cache; `column` is that of the part's first element.
pub(crate) fn gemm_then<F>(c: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, start: Start, finish: F)
where
    F: Fn(usize, usize, &mut [f32]) + Sync,
{
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert!(b.rows == k && m.checked_mul(n) == Some(c.len()), "gemm shapes are the caller's to check");
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        for (i, row) in c.chunks_exact_mut(n).enumerate() {
            if start == Start::Zero {
                row.fill(0.0);
            }
            finish(i, 0, row);
        }
        return;
    }
    let alone = m.saturating_mul(n).saturating_mul(k) <= ALONE;
    let output = Output::new(c, n);
    for depth in pieces(0..k, SHARED_DEPTH, SHARED_DEPTH) {
        let mut packed_b: Option<(Range<usize>, Packed<TILE_COLS>)> = None;
        for rows in pieces(0..m, SHARED_ROWS, TILE_ROWS) {
            let packed_a = pack::<TILE_ROWS>(a, rows.clone(), depth.clone(), alone);
            for cols in pieces(0..n, SHARED_COLS, TILE_COLS) {
                let packed_b = match packed_b.take() {
                    Some((there, packed)) if there == cols => packed_b.insert((there, packed)),
                    _ => packed_b.insert((cols.clone(), pack::<TILE_COLS>(b.t(), cols.clone(), depth.clone(), alone))),
                };
                let across: Vec<_> = pieces(cols.clone(), TASK_COLS, TILE_COLS).collect();
                let down: Vec<_> = pieces(rows.clone(), TASK_ROWS, TILE_ROWS).collect();
                let task = |i: usize| {
                    let (rows, cols) = (down[i / across.len()].clone(), across[i % across.len()].clone());
                    simd::run(Task {
                        a: packed_a.panels(rows.start),
                        b: packed_b.1.panels(cols.start),
                        depth: depth.len(),
                        rows: rows.clone(),
                        cols: cols.clone(),
                        start: if depth.start == 0 { start } else { Start::Add },
                        output: &output,
                    });
                    if depth.end == k {
                        for row in rows {
                            // SAFETY: a task alone writes to its rows and columns.
                            finish(row, cols.start, unsafe { output.part(row, cols.clone()) });
                        }
                    }
                };
                if alone {
                    (0..down.len() * across.len()).for_each(task);
                } else {
                    (0..down.len() * across.len()).into_par_iter().with_max_len(1).for_each(task);
                }
            }
        }
    }
}

/// `range` in as few pieces as `most` allows, about equal, each but the last a multiple of `unit`, which divides
/// `most`.
fn pieces(range: Range<usize>, most: usize, unit: usize) -> impl Iterator<Item = Range<usize>> {
    let size = range.len().div_ceil(range.len().div_ceil(most).max(1)).next_multiple_of(unit).max(unit);
    range.clone().step_by(size).map(move |i| i..range.end.min(i + size))
}

/// One task's part of c and what it is made of.
struct Task<'a> {
    /// The panels from the first row and the first column on.
    a: &'a [[f32; TILE_ROWS]],
    b: &'a [[f32; TILE_COLS]],
    depth: usize,
    rows: Range<usize>,
    cols: Range<usize>,
    start: Start,
    output: &'a Output<'a>,
}

impl Work for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        for first in (0..self.depth).step_by(DEPTH) {
            let depth = first..self.depth.min(first + DEPTH);
            let start = if first == 0 { self.start } else { Start::Add };
            for (col, b) in self.cols.clone().step_by(TILE_COLS).zip(self.b.chunks_exact(self.depth)) {
                let cols = col..self.cols.end.min(col + TILE_COLS);
                for (row, a) in self.rows.clone().step_by(TILE_ROWS).zip(self.a.chunks_exact(self.depth)) {
                    let tile = multiply::<FMA>(&a[depth.clone()], &b[depth.clone()]);
                    for (i, sums) in (row..self.rows.end).zip(&tile) {
                        // SAFETY: a task alone writes to its rows and columns.
                        let c = unsafe { self.output.part(i, cols.clone()) };
                        write(c, sums, start);
                    }
                }
            }
        }
    }
}

/// Stores sums to a part of a row of c, or adds them.
#[inline(always)]
fn write(c: &mut [f32], sums: &[f32; TILE_COLS], start: Start) {
    // The whole width first, in a form of constant length.
    if let Ok(c) = <&mut [f32; TILE_COLS]>::try_from(&mut *c) {
        match start {
            Start::Zero => *c = *sums,
            Start::Add => c.iter_mut().zip(sums).for_each(|(c, s)| *c += s),
        }
        return;
    }
    match start {
        Start::Zero => c.iter_mut().zip(sums).for_each(|(c, &s)| *c = s),
        Start::Add => c.iter_mut().zip(sums).for_each(|(c, s)| *c += s),
    }
}
