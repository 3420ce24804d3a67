//! Matrix times matrix in f32, after Goto & van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008),
//! and BLIS: both factors are copied in blocks to memory that the innermost loop reads in order; that loop keeps a
//! tile of 6 × 16 sums in registers. [`Products::Bf16`] are multiplied in tiles (`in_tiles.rs`) if the machine has those, else
//! in pairs, neighbours in k, if it multiplies such: twice the products in a tile of 6 × 32, summed in f32.
//!
//! The bits of `c[i, j]` depend on row i of `a`, column j of `b` and k alone: products are summed in order of k
//! within a block of 256 (of pairs, 512), from zero, and the blocks' sums are added to c in order; in tiles, see there. Neither
//! the tiling of m and n nor the number of threads takes part.

#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::in_tiles;
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
        Self {
            values: self.values,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }
}

/// What the factors of a product of many rows become on a CPU; its sums are f32. A GPU goes by their dtypes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// f32; forward, bf16 where the weights are, as with [`Products::Bf16`].
    #[default]
    Stored,
    /// bf16, rounded to the nearest, where the processor multiplies that faster: with AMX (under Linux) or AVX-512's dot product. f32 elsewhere.
    Bf16,
}

impl Products {
    /// Whether this processor multiplies bf16 faster than f32.
    pub fn has_bf16() -> bool {
        simd::has_bf16()
    }
}

/// What the machine multiplies: numbers, pairs of bf16, or tiles of bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Numbers,
    Pairs,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    Tiles,
}

impl Way {
    #[cfg(test)]
    pub fn is_here(self) -> bool {
        match self {
            Self::Numbers => true,
            Self::Pairs => simd::has_bf16(),
            Self::Tiles => Self::of(Products::Bf16) == self,
        }
    }

    fn of(products: Products) -> Self {
        match products {
            #[cfg(target_arch = "x86_64")]
            Products::Bf16 if crate::amx::is_here() => Self::Tiles,
            Products::Bf16 if simd::has_bf16() => Self::Pairs,
            _ => Self::Numbers,
        }
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
pub(crate) fn gemm(c: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, start: Start, products: Products) {
    gemm_then(c, a, b, start, products, |_, _, _| ());
}

/// As [`gemm`], and calls `finish(row, column, part)` once on each part of a row of c that is done, while it is in
/// the cache; `column` is that of the part's first element.
pub(crate) fn gemm_then<F>(c: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, start: Start, products: Products, finish: F)
where
    F: Fn(usize, usize, &mut [f32]) + Sync,
{
    multiply_by(Way::of(products), c, a, b, start, finish);
}

/// As [`gemm_then`], in a way that is here.
pub(super) fn multiply_by<F>(way: Way, c: &mut [f32], a: Matrix<'_>, b: Matrix<'_>, start: Start, finish: F)
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
    #[cfg(target_arch = "x86_64")]
    if way == Way::Tiles {
        return in_tiles::multiply(a, in_tiles::Right::Matrix(b), &output, start, finish);
    }
    let k = if way == Way::Pairs { k.div_ceil(2) } else { k };
    for depth in pieces(0..k, SHARED_DEPTH, SHARED_DEPTH) {
        let mut packed_b: Option<(Range<usize>, Packed<TILE_COLS>)> = None;
        for rows in pieces(0..m, SHARED_ROWS, TILE_ROWS) {
            let packed_a = pack::<TILE_ROWS>(a, rows.clone(), depth.clone(), way, alone);
            for cols in pieces(0..n, SHARED_COLS, TILE_COLS) {
                let packed_b = match packed_b.take() {
                    Some((there, packed)) if there == cols => packed_b.insert((there, packed)),
                    _ => {
                        let packed = pack::<TILE_COLS>(b.t(), cols.clone(), depth.clone(), way, alone);
                        packed_b.insert((cols.clone(), packed))
                    }
                };
                let across: Vec<_> = pieces(cols.clone(), TASK_COLS, TILE_COLS).collect();
                let down: Vec<_> = pieces(rows.clone(), TASK_ROWS, TILE_ROWS).collect();
                let task = |i: usize| {
                    let (rows, cols) = (down[i / across.len()].clone(), across[i % across.len()].clone());
                    let task = Task {
                        way,
                        a: packed_a.panels(rows.start),
                        b: packed_b.1.panels(cols.start),
                        depth: depth.len(),
                        rows: rows.clone(),
                        cols: cols.clone(),
                        start: if depth.start == 0 { start } else { Start::Add },
                        output: &output,
                    };
                    task.run();
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
    way: Way,
    /// The panels from the first row and the first column on.
    a: &'a [[f32; TILE_ROWS]],
    b: &'a [[f32; TILE_COLS]],
    depth: usize,
    rows: Range<usize>,
    cols: Range<usize>,
    start: Start,
    output: &'a Output<'a>,
}

impl Task<'_> {
    fn run(self) {
        #[cfg(target_arch = "x86_64")]
        match (self.way, simd::has_avx512()) {
            (Way::Pairs, _) => {
                assert!(simd::has_bf16(), "pairs are for machines that multiply them");
                // SAFETY: the instructions were just found.
                return unsafe { wide::pairs(&self) };
            }
            // SAFETY: the instructions were just found.
            (_, true) => return unsafe { wide::singles(&self) },
            (_, false) => {}
        }
        simd::run(self);
    }

    /// Blocks of k, and whether what c holds is of use then.
    #[inline(always)]
    fn blocks(&self) -> impl Iterator<Item = (Range<usize>, Start)> {
        let (all, start) = (self.depth, self.start);
        let start = move |first| if first == 0 { start } else { Start::Add };
        (0..all).step_by(DEPTH).map(move |first| (first..all.min(first + DEPTH), start(first)))
    }

    /// The panels of a, and the row of c with which each begins.
    #[inline(always)]
    fn panels_of_a(&self) -> impl Iterator<Item = (usize, &[[f32; TILE_ROWS]])> {
        self.rows.clone().step_by(TILE_ROWS).zip(self.a.chunks_exact(self.depth))
    }

    #[inline(always)]
    fn panels_of_b(&self) -> impl Iterator<Item = (usize, &[[f32; TILE_COLS]])> {
        self.cols.clone().step_by(TILE_COLS).zip(self.b.chunks_exact(self.depth))
    }

    /// Puts a tile where it belongs.
    #[inline(always)]
    fn write(&self, row: usize, col: usize, tile: &[[f32; TILE_COLS]; TILE_ROWS], start: Start) {
        for (i, sums) in (row..self.rows.end).zip(tile) {
            // SAFETY: a task alone writes to its rows and columns.
            let c = unsafe { self.output.part(i, col..self.cols.end.min(col + TILE_COLS)) };
            write(c, sums, start);
        }
    }
}

impl Work for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn call<const FMA: bool>(self) {
        for (depth, start) in self.blocks() {
            for (col, b) in self.panels_of_b() {
                for (row, a) in self.panels_of_a() {
                    let tile = multiply::<FMA>(&a[depth.clone()], &b[depth.clone()]);
                    self.write(row, col, &tile, start);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{TILE_COLS, TILE_ROWS, Task};
    use crate::linear::tile;

    #[target_feature(enable = "avx512f,avx512bf16,avx2,fma")]
    pub fn pairs(task: &Task<'_>) {
        by_two(task, |a, b, to| tile::wide::multiply_pairs(a, b, to));
    }

    #[target_feature(enable = "avx512f,avx2,fma")]
    pub fn singles(task: &Task<'_>) {
        by_two(task, |a, b, to| tile::wide::multiply_singles(a, b, to));
    }

    /// Two panels of columns at a time.
    #[inline(always)]
    fn by_two(task: &Task<'_>, multiply: impl Fn(&[[f32; TILE_ROWS]], [&[[f32; TILE_COLS]]; 2], &mut Tiles)) {
        for (depth, start) in task.blocks() {
            let mut panels = task.panels_of_b();
            while let Some((col, left)) = panels.next() {
                // An odd one out goes with itself, to nowhere.
                let right = panels.next();
                let both = [left, right.map_or(left, |(_, right)| right)].map(|b| &b[depth.clone()]);
                for (row, a) in task.panels_of_a() {
                    let mut tiles = [[[0.0; TILE_COLS]; TILE_ROWS]; 2];
                    multiply(&a[depth.clone()], both, &mut tiles);
                    task.write(row, col, &tiles[0], start);
                    if let Some((col, _)) = right {
                        task.write(row, col, &tiles[1], start);
                    }
                }
            }
        }
    }

    type Tiles = [[[f32; TILE_COLS]; TILE_ROWS]; 2];
}

/// Stores sums to a part of a row of c, or adds them.
#[inline(always)]
fn write(c: &mut [f32], sums: &[f32; TILE_COLS], start: Start) {
    // The whole width first, in a form of constant length.
    if let Ok(c) = <&mut [f32; TILE_COLS]>::try_from(&mut *c) {
        let mut all = *sums;
        if start == Start::Add {
            for i in 0..TILE_COLS {
                all[i] += c[i];
            }
        }
        *c = all;
        return;
    }
    match start {
        Start::Zero => c.iter_mut().zip(sums).for_each(|(c, &s)| *c = s),
        Start::Add => c.iter_mut().zip(sums).for_each(|(c, s)| *c += s),
    }
}
