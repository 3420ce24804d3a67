//! What is done to each number on its own where no operation does it on the way: the sum of two gradients of one value, zeros before
//! a step, conversion between f32 and bf16.

mod cuda;
#[cfg(test)]
mod spec;

use half::bf16;
use rayon::prelude::*;
use tensor::{DType, Device, Tensor};

use crate::Result;
use crate::error::{expect, float, of};

const OP: &str = "elementwise";

/// Elements that a thread takes at a time: 64 KiB.
const CHUNK: usize = 1 << 14;

/// `sum += x`, of one shape and one dtype: f32, on a GPU also bf16.
///
/// # Errors
/// Shapes, dtypes or devices that do not go together; then nothing was added.
pub fn add(sum: &mut Tensor, x: &Tensor) -> Result<()> {
    expect(OP, "shape of what is added", x.shape(), sum.shape())?;
    expect(OP, "dtype of what is added", x.dtype(), float(OP, "dtype of the sum", sum)?)?;
    if let Device::Cuda(gpu) = x.device() {
        return cuda::add(gpu, sum, x);
    }
    let x = x.values::<f32>().map_err(of(OP))?.par_chunks(CHUNK);
    let chunks = sum.values_mut::<f32>().map_err(of(OP))?.par_chunks_mut(CHUNK).zip(x);
    chunks.for_each(|(sum, x)| sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x));
    Ok(())
}

/// Sets every number to zero, keeping the memory.
///
/// # Errors
/// What a GPU says.
pub fn clear(x: &mut Tensor) -> Result<()> {
    if x.device() == &Device::Cpu && x.dtype() == DType::F32 {
        let chunks = x.values_mut::<f32>().map_err(of(OP))?.par_chunks_mut(CHUNK);
        chunks.for_each(|chunk| chunk.fill(0.0));
        return Ok(());
    }
    x.clear().map_err(of(OP))
}

/// The same numbers as f32 or bf16 (rounded to nearest even), where they are; the same memory if they are that already.
///
/// # Errors
/// From or to u32, or what a GPU says.
pub fn convert(x: &Tensor, dtype: DType) -> Result<Tensor> {
    float(OP, "dtype to convert from", x)?;
    match (x.device(), dtype) {
        (_, same) if same == x.dtype() => Ok(x.clone()),
        (Device::Cuda(gpu), DType::F32 | DType::BF16) => cuda::convert(gpu, x, dtype),
        _ => x.to_dtype(dtype).map_err(of(OP)),
    }
}

/// `y = x`, rounded to nearest even, of one shape; y is bf16 and x f32, on the CPU.
pub(crate) fn narrow(y: &mut [bf16], x: &[f32]) {
    let chunks = y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
    chunks.for_each(|(y, x)| y.iter_mut().zip(x).for_each(|(y, &x)| *y = bf16::from_f32(x)));
}
