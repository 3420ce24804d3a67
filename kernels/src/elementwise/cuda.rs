//! Launches of `elementwise.cu`.

use tensor::{DType, Gpu, Tensor};

use super::OP;
use crate::Result;
use crate::cuda::{Arg, Code, Grid, launch};
use crate::error::of;

const CODE: Code = Code { op: OP, ptx: include_str!("elementwise.ptx") };

/// Numbers of a block, as `CHUNK` of the kernel.
const CHUNK: usize = 8192;

pub(super) fn add(gpu: &Gpu, sum: &mut Tensor, x: &Tensor) -> Result<()> {
    let n = x.elements();
    let name = format!("elementwise_add_{}", x.dtype());
    launch(gpu, &CODE, &name, grid(n), &mut [Arg::Out(sum), Arg::In(x), Arg::Size(n)])
}

pub(super) fn convert(gpu: &Gpu, x: &Tensor, dtype: DType) -> Result<Tensor> {
    let n = x.elements();
    let mut y = Tensor::undefined(gpu, x.shape(), dtype).map_err(of(OP))?;
    let name = format!("elementwise_convert_{}_{dtype}", x.dtype());
    launch(gpu, &CODE, &name, grid(n), &mut [Arg::Out(&mut y), Arg::In(x), Arg::Size(n)])?;
    Ok(y)
}

fn grid(n: usize) -> Grid {
    Grid::new(n.div_ceil(CHUNK), n.div_ceil(8).next_multiple_of(32).clamp(32, 256))
}
