//! Token embedding (`torch.nn.Embedding`): one row of a table per token, and the sum of gradients by row.

mod cpu;
#[cfg(test)]
mod spec;

use tensor::{DType, Tensor};

use crate::error::{expect, of};
use crate::{Error, Result};

/// Row `ids[i]` of the table `[v, c]` (f32 or bf16) for each token: `[t, c]` in f32.
///
/// # Errors
/// An id of v or more; a table of another rank or dtype.
pub fn forward(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let op = "embedding::forward";
    let (v, c) = table.dims2().map_err(of(op))?;
    check(op, ids, v)?;
    let mut y = Tensor::zeros(&[ids.len(), c], DType::F32).map_err(of(op))?;
    let rows = y.values_mut::<f32>().map_err(of(op))?;
    match table.dtype() {
        DType::BF16 => cpu::forward(table.values::<half::bf16>().map_err(of(op))?, ids, c, rows, half::bf16::to_f32),
        _ => cpu::forward(table.values::<f32>().map_err(of(op))?, ids, c, rows, |x| x),
    }
    Ok(y)
}

/// `dtable[ids[i]] += dy[i]` with dy `[t, c]`, dtable `[v, c]`, both f32. The gradients of a token that occurs more
/// than once are added in order of t.
///
/// # Errors
/// An id of v or more, or shapes or dtypes that do not go together; then nothing was added.
pub fn backward(dy: &Tensor, ids: &[u32], dtable: &mut Tensor) -> Result<()> {
    let op = "embedding::backward";
    let (v, c) = dtable.dims2().map_err(of(op))?;
    check(op, ids, v)?;
    expect(op, "shape of dy", dy.shape(), &[ids.len(), c])?;
    let dy = dy.values::<f32>().map_err(of(op))?;
    cpu::backward(dy, ids, c, dtable.values_mut::<f32>().map_err(of(op))?);
    Ok(())
}

fn check(op: &'static str, ids: &[u32], v: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= v) {
        None => Ok(()),
        Some(id) => Err(Error::Argument { op, what: "token id", wanted: format!("below {v}"), found: id.to_string() }),
    }
}
