//! Memory for numbers: contiguous tensors of f32, bf16 or u32 in main memory or a GPU's, read from safetensors files by
//! memory map and written back durably. Knows no operation.

mod dtype;
pub mod durable;
mod error;
mod gpu;
mod reuse;
pub mod safetensors;
mod shape;
mod tensor;

pub use dtype::{DType, Element, TILE};
pub use error::{Error, Result};
pub use gpu::{Gpu, Graph, UseOf};
pub use reuse::unwritten;
pub use shape::Shape;
pub use tensor::{Device, Tensor};

pub use half::bf16;
