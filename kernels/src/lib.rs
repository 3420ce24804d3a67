//! The fused operations of BLOOM, forward and backward. Each folder holds one operation: `mod.rs` the maths, its
//! source, the public functions and shape checks; `cpu.rs` the loops; `NAME.cu` the CUDA kernels and `cuda.rs` their launches;
//! `spec.rs` the f64 reference and the tests.
//!
//! Sizes are named once: b batch, t tokens, h heads, d head size, c hidden size, v vocabulary, n and k the output
//! and input width of a linear layer. Activations and their gradients are f32, on a GPU also bf16 (sums are f32 all the same); weights
//! are f32 or bf16; gradients of weights are f32 and added to what is there. Every sum has a fixed order, so that results do not depend on the number of threads, nor a row's result on the other rows.

pub mod adamw;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod cross_entropy;
mod cuda;
pub mod elementwise;
pub mod embedding;
mod error;
pub mod layer_norm;
pub mod linear;
pub mod sample;
mod simd;
#[cfg(test)]
mod spec;
mod warm;

pub use error::{Error, Result};
pub use warm::warm;
