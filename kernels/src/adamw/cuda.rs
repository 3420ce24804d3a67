//! Launches of `adamw.cu`, each for as many tensors as its table takes.

use tensor::{DType, Gpu, Tensor};

use super::cpu::Factors;
use super::{OP, Weight};
use crate::Result;
use crate::cuda::{Arg, Code, Grid, launch};
use crate::error::of;

const CODE: Code = Code { op: OP, ptx: include_str!("adamw.ptx") };

/// Numbers of a block, as `CHUNK` of the kernels.
const CHUNK: usize = 16_384;
/// Tensors of a launch, as the kernels' tables have, and the words of each.
const GRADIENTS: usize = 160;
const GRADIENT: usize = 3;
const WEIGHTS: usize = 64;
const WEIGHT: usize = 7;

/// The norm of all gradients and what to scale them by to clip them: `[2]`.
pub(super) fn norm(gpu: &Gpu, gradients: &[&Tensor], clip: f32) -> Result<Tensor> {
    let blocks: usize = gradients.iter().map(|g| g.elements().div_ceil(CHUNK)).sum();
    // Sums are f64, two words each.
    let mut sums = Tensor::undefined(gpu, &[blocks, 2], DType::U32).map_err(of(OP))?;
    let mut done = 0;
    for some in gradients.chunks(GRADIENTS) {
        let mut table = Vec::with_capacity(GRADIENTS * GRADIENT);
        let mut first = 0;
        for g in some {
            table.extend([g.gpu_pointer(gpu).map_err(of(OP))?, g.elements() as u64, first as u64]);
            first += g.elements().div_ceil(CHUNK);
        }
        table.resize(GRADIENTS * GRADIENT, 0);
        let mut args = [Arg::OutFrom(&mut sums, 2 * done), Arg::Words(&table), Arg::Size(some.len())];
        launch(gpu, &CODE, "adamw_squares", Grid::new(first, 256), &mut args)?;
        done += first;
    }
    let mut norm = Tensor::undefined(gpu, &[2], DType::F32).map_err(of(OP))?;
    let threads = blocks.next_multiple_of(32).clamp(32, 1024);
    let mut args = [Arg::Out(&mut norm), Arg::In(&sums), Arg::Size(blocks), Arg::F32(clip)];
    launch(gpu, &CODE, "adamw_norm", Grid::new(1, threads), &mut args)?;
    Ok(norm)
}

pub(super) fn update(gpu: &Gpu, weights: &mut [Weight], norm: &Tensor, factors: &[Factors; 2]) -> Result<()> {
    for some in weights.chunks_mut(WEIGHTS) {
        let mut table = Vec::with_capacity(WEIGHTS * WEIGHT);
        let mut first = 0;
        for weight in &mut *some {
            let n = weight.value.elements();
            let address = |x: &mut Tensor| x.gpu_pointer_mut(gpu).map_err(of(OP));
            let value = address(weight.value)?;
            let (master, value) = match &mut weight.master {
                Some(master) => (address(master)?, value),
                None => (value, 0),
            };
            let [m, v] = [address(weight.moments[0])?, address(weight.moments[1])?];
            let g = weight.gradient.gpu_pointer(gpu).map_err(of(OP))?;
            let keep = factors[usize::from(weight.decays)].keep.to_bits();
            table.extend([master, value, g, m, v, n as u64, u64::from(keep) << 32 | first as u64]);
            first += n.div_ceil(CHUNK);
        }
        table.resize(WEIGHTS * WEIGHT, 0);
        let Factors { new1, beta2, new2, size, root, eps, .. } = factors[0];
        let mut args = vec![Arg::Words(&table), Arg::Size(some.len()), Arg::In(norm)];
        args.extend([new1, beta2, new2, size, root, eps].map(Arg::F32));
        launch(gpu, &CODE, "adamw_update", Grid::new(first, 256), &mut args)?;
    }
    Ok(())
}
