//! Launches of `embedding.cu`.

use tensor::{DType, Device, Gpu, Tensor};

use super::groups::Groups;
use crate::Result;
use crate::cuda::{Arg, Code, Grid, launch};
use crate::error::of;

const OP: &str = "embedding";
const CODE: Code = Code { op: OP, ptx: include_str!("embedding.ptx") };

/// Threads of a block of the backward passes: `WARPS` of the kernel.
const SUMMING: usize = 4 * 32;

pub(super) fn forward(gpu: &Gpu, table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    rows(gpu, table, &upload(gpu, ids.to_vec())?)
}

/// `ids` are all below v.
pub(super) fn rows(gpu: &Gpu, table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let (_, c) = table.dims2().map_err(of(OP))?;
    let mut y = Tensor::undefined(gpu, &[ids.elements(), c], table.dtype()).map_err(of(OP))?;
    let mut args = [Arg::Out(&mut y), Arg::In(table), Arg::In(ids), Arg::Size(c)];
    let threads = c.div_ceil(wide(table, c)).next_multiple_of(32).clamp(32, 256);
    launch(gpu, &CODE, &name("forward", table), Grid::new(ids.elements(), threads), &mut args)?;
    Ok(y)
}

pub(super) fn backward(gpu: &Gpu, dy: &Tensor, ids: &[u32], dtable: &mut Tensor) -> Result<()> {
    let (_, c) = dy.dims2().map_err(of(OP))?;
    let Groups { ids, starts, order } = Groups::occurring(ids);
    let count = ids.len();
    let there = upload(gpu, [ids, starts, order].concat())?;
    let mut args = [
        Arg::Out(dtable),
        Arg::In(dy),
        Arg::In(&there),
        Arg::InFrom(&there, count),
        Arg::InFrom(&there, 2 * count + 1),
        Arg::Size(c),
    ];
    launch(gpu, &CODE, &name("backward", dy), grid(dy, count, c), &mut args)
}

pub(super) fn gather_backward(gpu: &Gpu, dy: &Tensor, rows: &[u32], t: usize) -> Result<Tensor> {
    let (_, c) = dy.dims2().map_err(of(OP))?;
    let mut dx = Tensor::undefined(gpu, &[t, c], dy.dtype()).map_err(of(OP))?;
    let Groups { starts, order, .. } = Groups::of_all(t, rows);
    let there = upload(gpu, [starts, order].concat())?;
    let mut args = [Arg::Out(&mut dx), Arg::In(dy), Arg::In(&there), Arg::InFrom(&there, t + 1), Arg::Size(c)];
    launch(gpu, &CODE, &name("gather_backward", dy), grid(dy, t, c), &mut args)?;
    Ok(dx)
}

/// A block for each group and each 32 lanes' columns.
fn grid(dy: &Tensor, groups: usize, c: usize) -> Grid {
    Grid { blocks: [groups, c.div_ceil(32 * wide(dy, c)), 1], threads: SUMMING, shared_bytes: 0 }
}

/// Numbers that a lane takes at a time.
fn wide(x: &Tensor, c: usize) -> usize {
    let wide = if x.dtype() == DType::BF16 { 8 } else { 4 };
    if c.is_multiple_of(wide) { wide } else { 1 }
}

fn upload(gpu: &Gpu, numbers: Vec<u32>) -> Result<Tensor> {
    Tensor::new(&[numbers.len()], numbers).and_then(|x| x.to_device(&Device::Cuda(gpu.clone()))).map_err(of(OP))
}

fn name(pass: &str, x: &Tensor) -> String {
    format!("embedding_{pass}_{}", x.dtype())
}
