//! Launches of `sample.cu`.

use tensor::{DType, Device, Gpu, Tensor};

use super::{Choice, Chosen, OP, Sampling, distinct};
use crate::Result;
use crate::cuda::{Arg, Code, Grid, launch};
use crate::error::of;

const CODE: Code = Code { op: OP, ptx: include_str!("sample.ptx") };

pub(super) fn choose(
    gpu: &Gpu,
    logits: &Tensor,
    limit: usize,
    settings: &Sampling,
    choices: &[Choice],
) -> Result<Vec<Chosen>> {
    let (_, v) = logits.dims2().map_err(of(OP))?;
    let n = choices.len();
    let rows = choices.iter().map(|choice| choice.row as u32);
    // Each f64 first, as two words, then the rows.
    let bits = choices.iter().map(|choice| choice.uniform.to_bits());
    let there = upload(gpu, bits.flat_map(|bits| [bits as u32, (bits >> 32) as u32]).chain(rows.clone()).collect())?;
    // From the limit alone, since it decides on the order of the sums.
    let threads = limit.div_ceil(8).next_multiple_of(32).clamp(32, 512);
    let penalized = match settings.repetition_penalty {
        1.0 => None,
        penalty => {
            let mut starts = vec![0];
            let mut seen = vec![];
            for choice in choices {
                seen.extend(distinct(choice.seen).into_iter().filter(|&id| (id as usize) < limit));
                starts.push(seen.len() as u32);
            }
            let seen = upload(gpu, rows.clone().chain(starts).chain(seen).collect())?;
            let mut penalized = Tensor::undefined(gpu, &[n, limit], DType::F32).map_err(of(OP))?;
            let mut args = [
                Arg::Out(&mut penalized),
                Arg::In(logits),
                Arg::In(&seen),
                Arg::InFrom(&seen, n),
                Arg::InFrom(&seen, 2 * n + 1),
                Arg::Size(limit),
                Arg::Size(v),
                Arg::F32(penalty),
            ];
            launch(gpu, &CODE, "sample_penalize", Grid::new(n, threads), &mut args)?;
            Some(penalized)
        }
    };
    let (logits, rows, stride) = match &penalized {
        Some(penalized) => (penalized, Arg::None, limit),
        None => (logits, Arg::InFrom(&there, 2 * n), v),
    };
    let mut tokens = Tensor::undefined(gpu, &[n, 2], DType::U32).map_err(of(OP))?;
    let mut args = [
        Arg::Out(&mut tokens),
        Arg::In(logits),
        Arg::In(&there),
        rows,
        Arg::Size(limit),
        Arg::Size(stride),
        Arg::Size(settings.top_k.min(limit)),
        Arg::F32(settings.temperature),
        Arg::F32(settings.top_p),
        Arg::F32(settings.min_p),
    ];
    let grid = Grid { shared_bytes: 16 * threads * size_of::<f64>(), ..Grid::new(n, threads) };
    launch(gpu, &CODE, "sample_choose", grid, &mut args)?;
    let tokens = tokens.to_device(&Device::Cpu).map_err(of(OP))?;
    let tokens = tokens.values::<u32>().map_err(of(OP))?.chunks_exact(2);
    Ok(tokens.map(|chosen| Chosen { token: chosen[0], finite: chosen[1] == 1 }).collect())
}

fn upload(gpu: &Gpu, numbers: Vec<u32>) -> Result<Tensor> {
    Tensor::new(&[numbers.len()], numbers).and_then(|x| x.to_device(&Device::Cuda(gpu.clone()))).map_err(of(OP))
}
