//! A matrix that several threads write to, each its own rectangle.

#![allow(clippy::inline_always)] // a requirement of `simd::Work`

use std::marker::PhantomData;
use std::ops::Range;

/// A row-major matrix under construction.
pub(crate) struct Output<'a> {
    start: *mut f32,
    rows: usize,
    cols: usize,
    values: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for an exclusive borrow; `part` leaves it to its callers not to overlap.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    /// `values` as rows of `cols` elements.
    pub fn new(values: &'a mut [f32], cols: usize) -> Self {
        Self {
            start: values.as_mut_ptr(),
            rows: values.len().checked_div(cols).unwrap_or(0),
            cols,
            values: PhantomData,
        }
    }

    /// Part of a row.
    ///
    /// # Safety
    /// No two parts in use at the same time may overlap.
    // One exclusive borrow is handed out in disjoint pieces.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub unsafe fn part(&self, row: usize, cols: Range<usize>) -> &mut [f32] {
        assert!(row < self.rows && cols.start <= cols.end && cols.end <= self.cols, "a part inside the matrix");
        let start = self.start.wrapping_add(row * self.cols + cols.start);
        // SAFETY: the elements lie within the borrowed slice, and no other part in use has them.
        unsafe { std::slice::from_raw_parts_mut(start, cols.len()) }
    }
}
