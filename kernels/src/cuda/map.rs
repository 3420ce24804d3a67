//! How a matrix is described to what copies boxes of it to shared memory, on GPUs of compute capability 9.0.

use std::ffi::c_void;

use cudarc::driver::sys;
use tensor::{DType, Gpu, Tensor};

use super::{Arg, address};
use crate::{Error, Result};

/// Bytes of a map.
pub(super) const BYTES: usize = 128;
/// Lines of a box, and numbers of each, 128 bytes: as `copy_box` of `hopper.cuh`.
const BOX: [u32; 2] = [64, 64];

/// A matrix of bf16 in a tensor, from an element on, one line after the other.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub tensor: &'a Tensor,
    pub from: usize,
    pub lines: usize,
    pub columns: usize,
}

impl Matrix<'_> {
    /// Whether there can be a map of it: there is something in it, and all lines begin at multiples of 16 bytes.
    ///
    /// # Errors
    /// As of a launch with it.
    pub fn has_map(&self, gpu: &Gpu, op: &'static str) -> Result<bool> {
        let pitch = self.columns * DType::BF16.size();
        let at = address(gpu, op, &mut Arg::InFrom(self.tensor, self.from))?;
        Ok(self.lines > 0 && pitch > 0 && pitch.is_multiple_of(16) && at.is_multiple_of(16))
    }

    /// Its map. Zeros are beyond its ends.
    ///
    /// # Errors
    /// It is not in its tensor, or what the driver says.
    pub fn map(&self, gpu: &Gpu, op: &'static str) -> Result<[u64; BYTES / 8]> {
        let elements = self.lines.checked_mul(self.columns).and_then(|n| n.checked_add(self.from));
        if self.tensor.dtype() != DType::BF16 || elements.is_none_or(|n| n > self.tensor.elements()) {
            let wanted = format!("{} × {} of bf16 in its tensor, from {} on", self.lines, self.columns, self.from);
            let found = format!("{} of {}", self.tensor.elements(), self.tensor.dtype());
            return Err(Error::Argument { op, what: "a matrix", wanted, found });
        }
        let address = address(gpu, op, &mut Arg::InFrom(self.tensor, self.from))?;
        // The one that the driver has is aligned as it must be.
        let mut map = sys::CUtensorMap { opaque: [0; BYTES / 8] };
        let sizes = [self.columns as u64, self.lines as u64];
        let pitch = [(self.columns * DType::BF16.size()) as u64];
        let [lines, columns] = BOX;
        // SAFETY: reads two numbers of each list, one pitch, and writes the map, all during the call. It follows no address. The driver has
        // this call: it has loaded PTX of its time.
        unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                address as *mut c_void,
                sizes.as_ptr(),
                pitch.as_ptr(),
                [columns, lines].as_ptr(),
                [1, 1].as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        }
        .result()
        .map_err(|e| Error::Gpu { op, kernel: "a map of a matrix".into(), reason: format!("{e:?}") })?;
        Ok(map.opaque)
    }
}
