use crate::{Error, Result};

/// At most four axes, row-major, the last one contiguous.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    sizes: [usize; 4],
    axes: usize,
}

impl Shape {
    /// A shape of up to four axes.
    ///
    /// # Errors
    /// More than four axes, or a number of elements that overflows.
    pub fn new(sizes: &[usize]) -> Result<Self> {
        let bad = |wanted: &str| Error::Shape { wanted: wanted.into(), found: sizes.to_vec() };
        if sizes.len() > 4 {
            return Err(bad("at most four axes"));
        }
        // Bytes of the widest element must stay addressable too.
        sizes
            .iter()
            .try_fold(4usize, |n, &s| n.checked_mul(s))
            .filter(|&n| isize::try_from(n).is_ok())
            .ok_or_else(|| bad("a size that fits in memory"))?;
        let mut all = [1; 4];
        all[..sizes.len()].copy_from_slice(sizes);
        Ok(Self { sizes: all, axes: sizes.len() })
    }

    /// The sizes of the axes.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes[..self.axes]
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.sizes().iter().product()
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.sizes().fmt(f)
    }
}
