//! Token embedding (`torch.nn.Embedding`): one row of a table per token, and the sum of gradients by row. Also the choice of some
//! rows of a tensor, which is the same.

mod cpu;
mod cuda;
mod groups;
#[cfg(test)]
mod spec;

use tensor::{DType, Device, Tensor};

use crate::error::{expect, float, of};
use crate::linear::quantized;
use crate::{Error, Result};

/// Row `ids[i]` of the table `[v, c]` (f32 or bf16, on a CPU also quantised) for each token: `[t, c]` in f32, on a GPU in the table's
/// dtype.
///
/// # Errors
/// An id of v or more; a table of another rank or dtype.
pub fn forward(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let op = "embedding::forward";
    let (v, c) = table.dims2().map_err(of(op))?;
    check(op, ids, v)?;
    if let Device::Cuda(gpu) = table.device() {
        float(op, "the table's dtype", table)?;
        return cuda::forward(gpu, table, ids);
    }
    let mut y = Tensor::unwritten(&[ids.len(), c]).map_err(of(op))?;
    let rows = y.values_mut::<f32>().map_err(of(op))?;
    match table.dtype() {
        DType::Q8 | DType::Q4 => quantized::rows(table, ids.iter().map(|&id| id as usize), rows)?,
        DType::BF16 => cpu::forward(table.values::<half::bf16>().map_err(of(op))?, ids, c, rows, half::bf16::to_f32),
        _ => cpu::forward(table.values::<f32>().map_err(of(op))?, ids, c, rows, |x| x),
    }
    Ok(y)
}

/// Ids on a device, each below a bound, which others can replace in the same memory.
pub struct Ids {
    ids: Tensor,
    below: usize,
}

impl Ids {
    /// # Errors
    /// An id that is not below, or what a GPU says.
    pub fn new(device: &Device, ids: &[u32], below: usize) -> Result<Self> {
        let op = "embedding::Ids";
        check(op, ids, below)?;
        let ids = Tensor::new(&[ids.len()], ids.to_vec()).and_then(|ids| ids.to_device(device)).map_err(of(op))?;
        Ok(Self { ids, below })
    }

    /// As many others.
    ///
    /// # Errors
    /// An id that is not below, another number of them, or what a GPU says.
    pub fn replace(&mut self, ids: &[u32]) -> Result<()> {
        let op = "embedding::Ids";
        check(op, ids, self.below)?;
        self.ids.write(ids).map_err(of(op))
    }
}

/// As [`forward`], with ids that are where the table is.
///
/// # Errors
/// Ids that need not be below v, or are elsewhere; a table of another rank or dtype.
pub fn rows(table: &Tensor, ids: &Ids) -> Result<Tensor> {
    let op = "embedding::rows";
    let (v, _) = table.dims2().map_err(of(op))?;
    expect(op, "the bound of the ids", ids.below, v)?;
    match table.device() {
        Device::Cpu => forward(table, ids.ids.values().map_err(of(op))?),
        Device::Cuda(gpu) => {
            float(op, "the table's dtype", table)?;
            cuda::rows(gpu, table, &ids.ids)
        }
    }
}

/// `dtable[ids[i]] += dy[i]` with dy `[t, c]` in f32, on a GPU also bf16, and dtable `[v, c]` in f32. The gradients of a token
/// that occurs more than once are added in order of t; on a GPU in four parts, each in order of t.
///
/// # Errors
/// An id of v or more, or shapes or dtypes that do not go together; then nothing was added.
pub fn backward(dy: &Tensor, ids: &[u32], dtable: &mut Tensor) -> Result<()> {
    let op = "embedding::backward";
    let (v, c) = dtable.dims2().map_err(of(op))?;
    check(op, ids, v)?;
    expect(op, "shape of dy", dy.shape(), &[ids.len(), c])?;
    expect(op, "dtype of dtable", dtable.dtype(), DType::F32)?;
    if let Device::Cuda(gpu) = dtable.device().clone() {
        float(op, "dtype of dy", dy)?;
        return cuda::backward(&gpu, dy, ids, dtable);
    }
    let dy = dy.values::<f32>().map_err(of(op))?;
    cpu::backward(dy, ids, c, dtable.values_mut::<f32>().map_err(of(op))?);
    Ok(())
}

/// The gradient `[t, c]` of a tensor of whose rows `rows` were chosen, from `dy` `[r, c]` (f32, on a GPU also bf16), in the dtype of
/// dy: the sum for each row, zero for a row that was not chosen.
///
/// # Errors
/// A row of t or more, or a shape or dtype that does not fit.
pub fn gather_backward(dy: &Tensor, rows: &[u32], t: usize) -> Result<Tensor> {
    let op = "embedding::gather_backward";
    let (r, c) = dy.dims2().map_err(of(op))?;
    check(op, rows, t)?;
    expect(op, "rows of dy", r, rows.len())?;
    float(op, "dtype of dy", dy)?;
    if let Device::Cuda(gpu) = dy.device() {
        return cuda::gather_backward(gpu, dy, rows, t);
    }
    let mut dx = Tensor::zeros(&[t, c], DType::F32).map_err(of(op))?;
    cpu::backward(dy.values().map_err(of(op))?, rows, c, dx.values_mut().map_err(of(op))?);
    Ok(dx)
}

fn check(op: &'static str, ids: &[u32], v: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= v) {
        None => Ok(()),
        Some(id) => Err(Error::Argument { op, what: "token id", wanted: format!("below {v}"), found: id.to_string() }),
    }
}
