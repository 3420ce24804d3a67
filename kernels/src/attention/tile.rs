//! The blocked products that attention is made of. Queries lie across the lanes of vectors, so that a softmax over keys
//! needs no sums within a vector; keys, or the elements of a head, are the rows of a tile held in registers.

#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use half::bf16;

use crate::linear::Widen;
use crate::simd::{fma, to_bf16};

/// Queries side by side: two AVX2 registers.
pub const LANES: usize = 16;
/// Rows of a tile: twelve registers of sums, and three for what is multiplied.
pub const ROWS: usize = 6;
/// Keys of one step, a multiple of [`ROWS`]: with d = 64, they and their values fill three quarters of a 32 KiB cache.
pub const KEYS: usize = 48;

pub type Lane = [f32; LANES];
pub type Tile = [Lane; ROWS];

/// `count` rows of `size` elements, `stride` apart.
#[derive(Clone, Copy)]
pub struct Rows<'a, T = f32> {
    pub values: &'a [T],
    pub stride: usize,
    pub count: usize,
    pub size: usize,
}

impl<'a, T> Rows<'a, T> {
    /// Row `i`, if there is one.
    #[inline(always)]
    pub fn row(&self, i: usize) -> Option<&'a [T]> {
        (i < self.count).then(|| &self.values[i * self.stride..][..self.size])
    }
}

impl<T> Rows<'_, T> {
    /// Asks for row `i`, if there is one, to read it later.
    #[inline(always)]
    pub fn ask(&self, i: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(row) = self.row(i) {
            crate::simd::wide::ask::<{ std::arch::x86_64::_MM_HINT_T0 }>(row.as_ptr().cast(), size_of_val(row));
        }
    }
}

impl Rows<'_> {
    /// Rows `first..first + 16` across lanes: `lanes[p][l]` is element p of row `first + l`, or 0 past the end.
    #[inline(always)]
    pub fn across(&self, first: usize, lanes: &mut [Lane]) {
        for l in 0..LANES {
            match self.row(first + l) {
                Some(row) => lanes.iter_mut().zip(row).for_each(|(lane, x)| lane[l] = *x),
                None => lanes.iter_mut().for_each(|lane| lane[l] = 0.0),
            }
        }
    }

    /// `count` rows from `first` on as tiles of rows: `panels[tile * size + p][r]` is element p of row `6 · tile + r`.
    #[inline(always)]
    pub fn by_rows(&self, first: usize, count: usize, panels: &mut [[f32; ROWS]]) {
        for (tile, panel) in panels.chunks_exact_mut(self.size).take(count.div_ceil(ROWS)).enumerate() {
            for r in 0..ROWS {
                match self.row(first + tile * ROWS + r) {
                    Some(row) => panel.iter_mut().zip(row).for_each(|(p, x)| p[r] = *x),
                    None => panel.iter_mut().for_each(|p| p[r] = 0.0),
                }
            }
        }
    }

    /// `count` rows from `first` on as tiles of elements: `panels[tile * KEYS + j][r]` is element `6 · tile + r` of row j.
    #[inline(always)]
    pub fn by_elements(&self, first: usize, count: usize, panels: &mut [[f32; ROWS]]) {
        for j in 0..count.next_multiple_of(ROWS) {
            let row = self.row(first + j).unwrap_or(&[]);
            let (whole, rest) = row.as_chunks::<ROWS>();
            for (panel, x) in panels.chunks_exact_mut(KEYS).zip(whole) {
                panel[j] = *x;
            }
            for panel in panels.chunks_exact_mut(KEYS).skip(whole.len()) {
                panel[j] = [0.0; ROWS];
                panel[j][..rest.len()].copy_from_slice(rest);
            }
        }
    }

    /// `out[e * count + i]` is elements `16 · e..` of row i, 0 past the end of the rows, up to `count`, or of a row.
    #[inline(always)]
    pub fn by_lanes(&self, count: usize, out: &mut [Lane]) {
        for i in 0..count {
            let row = self.row(i).unwrap_or(&[]);
            for (e, out) in out.iter_mut().skip(i).step_by(count).enumerate() {
                let part = row.get(e * LANES..).unwrap_or(&[]);
                let part = &part[..part.len().min(LANES)];
                out[..part.len()].copy_from_slice(part);
                out[part.len()..].fill(0.0);
            }
        }
    }
}

/// Rows as a cache keeps them.
#[derive(Clone, Copy)]
pub enum Kept<'a> {
    F32(Rows<'a>),
    Bf16(Rows<'a, bf16>),
}

/// Rows of a cache, and the rows that follow them elsewhere, which are taken as the cache would keep them.
#[derive(Clone, Copy)]
pub struct Joined<'a> {
    pub before: Kept<'a>,
    pub after: Rows<'a>,
}

impl<'a> From<Rows<'a>> for Joined<'a> {
    fn from(after: Rows<'a>) -> Self {
        Self { before: Kept::F32(Rows { values: &[], count: 0, ..after }), after }
    }
}

impl<'a> From<Kept<'a>> for Joined<'a> {
    fn from(before: Kept<'a>) -> Self {
        let (stride, size) = match before {
            Kept::F32(rows) => (rows.stride, rows.size),
            Kept::Bf16(rows) => (rows.stride, rows.size),
        };
        Self { before, after: Rows { values: &[], stride, count: 0, size } }
    }
}

impl<'a> Joined<'a> {
    const fn border(&self) -> usize {
        match self.before {
            Kept::F32(rows) => rows.count,
            Kept::Bf16(rows) => rows.count,
        }
    }

    pub const fn count(&self) -> usize {
        self.border() + self.after.count
    }

    #[cfg(target_arch = "x86_64")]
    pub const fn are_kept_in_bf16(&self) -> bool {
        matches!(self.before, Kept::Bf16(_))
    }

    /// Rows among which are the `count` rows from `first` on, and the place of the first. They are copied if they are of both parts, or
    /// bf16.
    #[inline(always)]
    pub fn tile<'t>(&self, first: usize, count: usize, copied: &'t mut Vec<f32>) -> (Rows<'t>, usize)
    where
        'a: 't,
    {
        let (border, size) = (self.border(), self.after.size);
        if let Kept::F32(before) = self.before {
            if first >= border {
                return (self.after, first - border);
            }
            if first + count <= border {
                return (before, first);
            }
        }
        copied.resize(count * size, 0.0);
        for (i, to) in (first..).zip(copied.chunks_exact_mut(size)) {
            match self.before {
                Kept::F32(before) if i < border => to.copy_from_slice(before.row(i).unwrap_or(&[])),
                Kept::F32(_) => to.copy_from_slice(self.after.row(i - border).unwrap_or(&[])),
                Kept::Bf16(before) if i < border => {
                    to.iter_mut().zip(before.row(i).unwrap_or(&[])).for_each(|(to, x)| *to = x.widen());
                }
                Kept::Bf16(_) => {
                    let row = self.after.row(i - border).unwrap_or(&[]);
                    to.iter_mut().zip(row).for_each(|(to, &x)| *to = to_bf16(x).widen());
                }
            }
        }
        (Rows { values: copied, stride: size, count, size }, 0)
    }
}

/// `sums[r] + Σ_p a[p][r] · b[p]`, in order of p.
#[inline(always)]
pub fn product<const FMA: bool>(sums: Tile, a: &[[f32; ROWS]], b: &[Lane]) -> Tile {
    let mut sums = sums;
    for (a, b) in a.iter().zip(b) {
        for (sums, &a) in sums.iter_mut().zip(a) {
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum = fma::<FMA>(a, b, *sum);
            }
        }
    }
    sums
}

/// `sums[r] + Σ_l a[r][l] · b[l]`, in order of l: a sum over queries.
#[inline(always)]
pub fn product_over_lanes<const FMA: bool>(sums: Tile, a: &Tile, b: &[Lane; LANES]) -> Tile {
    let mut sums = sums;
    for (l, b) in b.iter().enumerate() {
        for (sums, a) in sums.iter_mut().zip(a) {
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum = fma::<FMA>(a[l], b, *sum);
            }
        }
    }
    sums
}
