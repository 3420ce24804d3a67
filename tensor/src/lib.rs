//! Memory for numbers: contiguous tensors of f32, bf16 or u32 on a device, read from safetensors files by
//! memory map and written back durably. Knows no operation.

mod dtype;
pub mod durable;
mod error;
pub mod safetensors;
mod shape;
mod tensor;

pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use shape::Shape;
pub use tensor::{Device, Tensor};

pub use half::bf16;
