//! Launches of `cross_entropy.cu`.

use tensor::{DType, Device, Gpu, Tensor};

use super::product::Chunk;
use super::{OP, chunk_rows};
use crate::Result;
use crate::cuda::{Arg, Code, Grid, launch};
use crate::error::of;

const CODE: Code = Code { op: OP, ptx: include_str!("cross_entropy.ptx") };

pub(super) fn forward(gpu: &Gpu, hidden: &Tensor, table: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let mut losses = Tensor::undefined(gpu, &[targets.len()], DType::F32).map_err(of(OP))?;
    let targets = upload(gpu, targets)?;
    each(gpu, hidden, table, |chunk, logits| {
        let Chunk { first, v, .. } = chunk;
        let mut args = [Arg::OutFrom(&mut losses, first), Arg::In(logits), Arg::InFrom(&targets, first), Arg::Size(v)];
        launch(gpu, &CODE, "cross_entropy_loss", grid(chunk), &mut args)
    })?;
    Ok(losses)
}

pub(super) fn forward_backward(
    gpu: &Gpu,
    hidden: &Tensor,
    table: &Tensor,
    targets: &[u32],
    scale: f32,
    dtable: &mut Tensor,
) -> Result<(Tensor, Tensor)> {
    let mut losses = Tensor::undefined(gpu, &[targets.len()], DType::F32).map_err(of(OP))?;
    let mut dhidden = Tensor::undefined(gpu, hidden.shape(), hidden.dtype()).map_err(of(OP))?;
    let targets = upload(gpu, targets)?;
    let mut narrow = None;
    each(gpu, hidden, table, |chunk, logits| {
        let Chunk { first, r, v, .. } = chunk;
        let losses = Arg::OutFrom(&mut losses, first);
        let [targets, size, scale] = [Arg::InFrom(&targets, first), Arg::Size(v), Arg::F32(scale)];
        let dlogits = if hidden.dtype() == DType::F32 {
            let mut args = [losses, Arg::Out(logits), targets, size, scale];
            launch(gpu, &CODE, "cross_entropy_gradient_f32", grid(chunk), &mut args)?;
            logits
        } else {
            // The first chunk is the largest.
            if narrow.is_none() {
                narrow = Some(Tensor::undefined(gpu, &[r, v], DType::BF16).map_err(of(OP))?);
            }
            let Some(dlogits) = &mut narrow else { return Ok(()) };
            let mut args = [losses, Arg::Out(dlogits), Arg::In(logits), targets, size, scale];
            launch(gpu, &CODE, "cross_entropy_gradient_bf16", grid(chunk), &mut args)?;
            dlogits
        };
        chunk.dhidden(gpu, &mut dhidden, dlogits, table)?;
        chunk.dtable(gpu, dtable, dlogits, hidden)
    })?;
    Ok((losses, dhidden))
}

/// Calls `each` with every chunk of rows, in order, and their logits in a tensor `[chunk_rows(v), v]` of which they are the first.
fn each(
    gpu: &Gpu,
    hidden: &Tensor,
    table: &Tensor,
    mut each: impl FnMut(Chunk, &mut Tensor) -> Result<()>,
) -> Result<()> {
    let (all, c) = hidden.dims2().map_err(of(OP))?;
    let (v, _) = table.dims2().map_err(of(OP))?;
    let size = chunk_rows(v);
    let mut logits = Tensor::undefined(gpu, &[size.min(all), v], DType::F32).map_err(of(OP))?;
    for first in (0..all).step_by(size) {
        let chunk = Chunk { first, r: size.min(all - first), v, c };
        chunk.logits(gpu, &mut logits, hidden, table)?;
        each(chunk, &mut logits)?;
    }
    Ok(())
}

/// A block for each row. From v alone, since it decides on the order of a row's sum.
fn grid(chunk: Chunk) -> Grid {
    Grid::new(chunk.r, chunk.v.div_ceil(8).next_multiple_of(32).clamp(32, 1024))
}

fn upload(gpu: &Gpu, targets: &[u32]) -> Result<Tensor> {
    let targets = Tensor::new(&[targets.len()], targets.to_vec()).map_err(of(OP))?;
    targets.to_device(&Device::Cuda(gpu.clone())).map_err(of(OP))
}
