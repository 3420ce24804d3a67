//! Launches of `layer_norm.cu`.

use tensor::{DType, Gpu, Tensor};

use super::{Normed, OP};
use crate::Result;
use crate::cuda::{Arg, Code, Grid, launch};
use crate::error::of;

const CODE: Code = Code { op: OP, ptx: include_str!("layer_norm.ptx") };

/// Rows of one block of the backward pass, as `ROWS` of the kernel.
const ROWS: usize = 32;

pub(super) fn forward(gpu: &Gpu, x: &Tensor, gamma: &Tensor, beta: &Tensor, eps: f32) -> Result<Normed> {
    let (t, c) = x.dims2().map_err(of(OP))?;
    let mut normed = normed(gpu, x)?;
    let Normed { y, stats } = &mut normed;
    let mut args =
        [Arg::Out(y), Arg::Out(stats), Arg::In(x), Arg::In(gamma), Arg::In(beta), Arg::Size(c), Arg::F32(eps)];
    launch(gpu, &CODE, &name("forward", x, gamma), Grid::new(t, threads(c)), &mut args)?;
    Ok(normed)
}

pub(super) fn add_forward(
    gpu: &Gpu,
    x: &Tensor,
    residual: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f32,
) -> Result<(Tensor, Normed)> {
    let (t, c) = x.dims2().map_err(of(OP))?;
    let mut sum = Tensor::undefined(gpu, x.shape(), x.dtype()).map_err(of(OP))?;
    let mut normed = normed(gpu, x)?;
    let Normed { y, stats } = &mut normed;
    let mut args = [
        Arg::Out(&mut sum),
        Arg::Out(y),
        Arg::Out(stats),
        Arg::In(x),
        Arg::In(residual),
        Arg::In(gamma),
        Arg::In(beta),
        Arg::Size(c),
        Arg::F32(eps),
    ];
    launch(gpu, &CODE, &name("add_forward", x, gamma), Grid::new(t, threads(c)), &mut args)?;
    Ok((sum, normed))
}

pub(super) fn backward(
    gpu: &Gpu,
    dy: &Tensor,
    x: &Tensor,
    gamma: &Tensor,
    stats: &Tensor,
    dgamma: &mut Tensor,
    dbeta: &mut Tensor,
) -> Result<Tensor> {
    let (t, c) = x.dims2().map_err(of(OP))?;
    let chunks = t.div_ceil(ROWS);
    let mut dx = Tensor::undefined(gpu, x.shape(), x.dtype()).map_err(of(OP))?;
    let mut parts = Tensor::undefined(gpu, &[chunks, 2, c], DType::F32).map_err(of(OP))?;
    let mut args = [
        Arg::Out(&mut dx),
        Arg::Out(&mut parts),
        Arg::In(dy),
        Arg::In(x),
        Arg::In(gamma),
        Arg::In(stats),
        Arg::Size(t),
        Arg::Size(c),
    ];
    let grid = Grid { shared_bytes: 2 * c * size_of::<f32>(), ..Grid::new(chunks, threads(c)) };
    launch(gpu, &CODE, &name("backward", x, gamma), grid, &mut args)?;
    let mut args = [Arg::Out(dgamma), Arg::Out(dbeta), Arg::In(&parts), Arg::Size(chunks), Arg::Size(c)];
    let grid = Grid::new(if t == 0 { 0 } else { (2 * c).div_ceil(32) }, 32 * chunks.clamp(1, 32));
    launch(gpu, &CODE, "layer_norm_add_parts", grid, &mut args)?;
    Ok(dx)
}

/// Tensors for the result of normalising `x`.
fn normed(gpu: &Gpu, x: &Tensor) -> Result<Normed> {
    let y = Tensor::undefined(gpu, x.shape(), x.dtype()).map_err(of(OP))?;
    let stats = Tensor::undefined(gpu, &[x.shape()[0], 2], DType::F32).map_err(of(OP))?;
    Ok(Normed { y, stats })
}

/// Eight numbers a thread, which is a wide load of bf16, in whole warps.
fn threads(c: usize) -> usize {
    c.div_ceil(8).next_multiple_of(32).clamp(32, 256)
}

fn name(pass: &str, x: &Tensor, gamma: &Tensor) -> String {
    format!("layer_norm_{pass}_{}_{}", x.dtype(), gamma.dtype())
}
