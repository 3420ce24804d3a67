use half::bf16;

use crate::Shape;

/// The number formats a tensor can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit IEEE float: activations, gradients, optimiser state, and weights in training on a CPU.
    F32,
    /// bfloat16: weights at rest.
    BF16,
    /// Token ids.
    U32,
    /// Weights of 8 bits, only to multiply with: see [`Self::bytes`].
    Q8,
    /// Weights of 4 bits, only to multiply with.
    Q4,
}

/// Rows and columns of a tile of quantised weights.
pub const TILE: [usize; 2] = [16, 32];

impl DType {
    /// Bytes of one element, or of the smallest unit that must be aligned.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::BF16 => 2,
            Self::Q8 | Self::Q4 => 1,
        }
    }

    /// Bytes of a tile of quantised weights: a scale in f16 for each row, then the codes. `None` for other formats.
    pub const fn tile(self) -> Option<usize> {
        match self {
            Self::Q8 => Some(2 * TILE[0] + TILE[0] * TILE[1]),
            Self::Q4 => Some(2 * TILE[0] + TILE[0] * TILE[1] / 2),
            Self::F32 | Self::BF16 | Self::U32 => None,
        }
    }

    /// Bytes of a tensor. Quantised ones have two axes and are made of whole [`TILE`]s, those of 16 rows one after the other.
    pub fn bytes(self, shape: &Shape) -> usize {
        match (self.tile(), shape.sizes()) {
            (None, _) => shape.elements() * self.size(),
            (Some(tile), &[n, k]) => n.div_ceil(TILE[0]) * k.div_ceil(TILE[1]) * tile,
            (Some(_), _) => 0,
        }
    }

    /// The lower-case name used in configurations and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::BF16 => "bf16",
            Self::U32 => "u32",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for u32 {}
}

/// A Rust type that a tensor can hold. Closed: exactly the variants of [`DType`] that are numbers by themselves.
pub trait Element: bytemuck::Pod + Send + Sync + sealed::Sealed {
    /// The format's tag.
    const DTYPE: DType;
}
impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for bf16 {
    const DTYPE: DType = DType::BF16;
}
impl Element for u32 {
    const DTYPE: DType = DType::U32;
}
