//! `ecom doctor`: what a GPU would be used with, and whether each operation gives there what it gives on the processor.

use std::io::Write;

use clap::Args;
use kernels::adamw::{self, AdamW, Weight};
use kernels::attention::KvCache;
use kernels::linear::{Epilogue, Products};
use kernels::sample::{self, Choice, Sampling};
use kernels::{attention, cross_entropy, embedding, layer_norm, linear};
use tensor::{DType, Device, Gpu, Tensor};

use crate::device;
use crate::failure::{self, visible};
use crate::memory::size;

/// Arguments of `ecom doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {}

/// Rows, width and documents of what is computed.
const T: usize = 37;
const C: usize = 128;
const HEADS: usize = 2;
const BOUNDS: [u32; 3] = [0, 16, 37];
const VOCAB: usize = 301;

/// An operation, computed on a device from the same numbers each time: what came out, and how many numbers were summed for it.
struct Check {
    op: &'static str,
    run: fn(&Device) -> anyhow::Result<(Tensor, usize)>,
}

const CHECKS: [Check; 11] = [
    Check { op: "embedding", run: |device| Ok((embedding::forward(&matrix(device, VOCAB, C)?, &ids())?, 1)) },
    Check {
        op: "layer_norm",
        run: |device| {
            let (gamma, beta) = (vector(device, C)?, vector(device, C)?);
            Ok((layer_norm::forward(&rows(device, T, C)?, &gamma, &beta, 1e-5)?.y, C))
        },
    },
    Check {
        op: "linear",
        run: |device| {
            let (x, w, b) = (rows(device, T, C)?, matrix(device, 3 * C, C)?, vector(device, 3 * C)?);
            Ok((linear::forward(&x, &w, &b, Products::Stored)?, C))
        },
    },
    Check {
        op: "linear, few",
        run: |device| {
            let (x, w, b) = (rows(device, 3, C)?, matrix(device, 3 * C, C)?, vector(device, 3 * C)?);
            Ok((linear::few_rows(&x, &w, Some(&b), Epilogue::None)?, C))
        },
    },
    Check {
        op: "linear, back",
        run: |device| {
            let (dy, x) = (rows(device, T, 3 * C)?, rows(device, T, C)?);
            let mut dw = Tensor::zeros_on(device, &[3 * C, C], DType::F32)?;
            let mut db = Tensor::zeros_on(device, &[3 * C], DType::F32)?;
            linear::backward_weight(&dy, &x, &mut dw, &mut db, Products::Stored)?;
            Ok((dw, T))
        },
    },
    Check { op: "attention", run: |device| Ok((attention::forward(&rows(device, T, 3 * C)?, &BOUNDS, HEADS)?.0, C)) },
    Check {
        op: "attn., token",
        run: |device| {
            let mut cache = KvCache::new(1, HEADS, C / HEADS, DType::F32);
            attention::append(&rows(device, T, 3 * C)?, &[0, T as u32], &mut [&mut cache], 0, None)?;
            let token = rows(device, 1, 3 * C)?;
            attention::append(&token, &[0, 1], &mut [&mut cache], 0, None)?;
            Ok((attention::decode(&token, &[&cache], 0, None)?, C))
        },
    },
    Check {
        op: "attn., back",
        run: |device| {
            let (qkv, dout) = (rows(device, T, 3 * C)?, rows(device, T, C)?);
            let (out, stats) = attention::forward(&qkv, &BOUNDS, HEADS)?;
            Ok((attention::backward(&dout, &qkv, &out, &stats, &BOUNDS, HEADS)?, C))
        },
    },
    Check {
        op: "cross_entropy",
        run: |device| {
            let losses = cross_entropy::forward(&rows(device, T, C)?, &matrix(device, VOCAB, C)?, &ids())?;
            Ok((losses, C))
        },
    },
    Check {
        op: "adamw",
        run: |device| {
            let [mut value, gradient] = [numbers(device, DType::F32, &[T, C])?, numbers(device, DType::F32, &[T, C])?];
            let zeros = || Tensor::zeros_on(device, &[T, C], DType::F32);
            let (mut m, mut v) = (zeros()?, zeros()?);
            let settings = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.98, eps: 1e-8, weight_decay: 0.1 };
            let norm = adamw::norm(&[&gradient], 1.0)?;
            let weight = Weight {
                value: &mut value,
                master: None,
                gradient: &gradient,
                moments: [&mut m, &mut v],
                decays: true,
            };
            adamw::update(&mut [weight], &settings, 1, &norm)?;
            Ok((value, 16))
        },
    },
    Check {
        op: "sample",
        run: |device| {
            let logits = numbers(device, DType::F32, &[T, VOCAB])?;
            let settings = Sampling { temperature: 0.8, top_k: 50, top_p: 0.9, ..Sampling::default() };
            let choices: Vec<Choice> =
                (0..T).map(|row| Choice { row, seen: &[], uniform: (row as f64 + 0.5) / T as f64 }).collect();
            let chosen = sample::choose(&logits, VOCAB, &settings, &choices)?;
            // The chosen tokens' own logits: far from another's.
            let near = logits.to_device(&Device::Cpu)?;
            let near = near.values::<f32>()?;
            let values = chosen.iter().enumerate().map(|(row, c)| near[row * VOCAB + c.token as usize]).collect();
            Ok((Tensor::new(&[T], values)?, 1))
        },
    },
];

/// Runs `ecom doctor`; the exit code is 0 if a GPU can be used.
pub fn run(_: &DoctorArgs) -> anyhow::Result<u8> {
    let mut out = std::io::stdout();
    let Some((major, minor)) = Gpu::driver() else {
        writeln!(out, "driver   none: no libcuda.so.1 that can be loaded; --device cpu is what there is")?;
        return Ok(failure::NO_GPU);
    };
    let count = Gpu::count();
    writeln!(out, "driver   for CUDA {major}.{minor}, {}", library())?;
    writeln!(out, "kernels  ecom's own, PTX for compute capability 8.0, compiled by the driver when first used")?;
    if count == 0 {
        writeln!(out, "GPU      none; --device cpu is what there is")?;
        return Ok(failure::NO_GPU);
    }
    if let Some(old) = device::old_driver() {
        writeln!(out, "         {old}")?;
        return Ok(failure::NO_GPU);
    }
    let mut fine = true;
    for ordinal in 0..count {
        let used = if ordinal == 0 { "" } else { " (not used; CUDA_VISIBLE_DEVICES would choose it)" };
        match describe(ordinal) {
            Ok(text) => writeln!(out, "GPU {ordinal}    {text}{used}")?,
            Err(e) => {
                writeln!(out, "GPU {ordinal}    {}{used}", visible(&format!("{e:#}")))?;
                fine &= ordinal != 0;
            }
        }
    }
    if !fine {
        return Ok(failure::NO_GPU);
    }
    let gpu = Gpu::open_to_use(0, device::use_of())?;
    writeln!(out, "products {}", products(&gpu)?)?;
    writeln!(out, "graphs   {}", visible(&graphs(&gpu)))?;
    let device = Device::Cuda(gpu);
    for check in &CHECKS {
        let verdict = match compare(check, &device) {
            Ok(share) if share <= 1.0 => {
                format!("as on the processor (off by {:.0} % of what rounding explains)", 100.0 * share)
            }
            Ok(share) => {
                fine = false;
                format!("WRONG: off by {share:.1} times what rounding explains")
            }
            Err(e) => {
                fine = false;
                format!("FAILED: {}", visible(&format!("{e:#}")))
            }
        };
        writeln!(out, "{:<14} {verdict}", check.op)?;
    }
    writeln!(out, "{}", if fine { "--device cuda can be used" } else { "--device cuda cannot be used" })?;
    Ok(if fine { 0 } else { failure::NO_GPU })
}

fn describe(ordinal: usize) -> anyhow::Result<String> {
    let gpu = Gpu::open(ordinal)?;
    let ((major, minor), (free, total)) = (gpu.compute_capability()?, gpu.memory()?);
    let old = if major < device::OLDEST { "; too old: wanted 8.0 or newer" } else { "" };
    Ok(format!(
        "{}: compute capability {major}.{minor}{old}, {} of {} free",
        visible(&device::describe(&Device::Cuda(gpu))),
        size(free as u64),
        size(total as u64)
    ))
}

/// What multiplies matrices of many rows.
fn products(gpu: &Gpu) -> anyhow::Result<String> {
    let own = if gpu.hopper()? { "ecom's own kernels, those for 9.0 alone" } else { "ecom's own kernels" };
    Ok(match linear::cublaslt(gpu) {
        // As the library counts: 12.3.4 is 120304.
        Some(v) => format!("by cuBLASLt {}.{}.{}, as ECOM_CUBLASLT=1 says", v / 10_000, v / 100 % 100, v % 100),
        None if gpu.use_of().cublaslt => format!("by {own}: no cuBLASLt that can be loaded"),
        None => format!("by {own} (not tried on a real GPU: ECOM_CUBLASLT=1, and for 9.0 ECOM_HOPPER=1)"),
    })
}

/// Whether CUDA graphs are used.
fn graphs(gpu: &Gpu) -> String {
    if !gpu.use_of().graphs {
        return "not used, as ECOM_GRAPHS=0 says".into();
    }
    if !gpu.captures() {
        return "not used: this driver allocates no memory in the order of a stream".into();
    }
    match gpu.capture(|| Tensor::zeros_on(&Device::Cuda(gpu.clone()), &[1], DType::F32)) {
        Ok(_) => "used: a decoding step is captured and launched as one".into(),
        Err(e) => format!("not used: {e}"),
    }
}

/// The driver's library, as the system has loaded it.
fn library() -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let path = maps.lines().filter_map(|l| l.split_whitespace().last()).find(|p| p.contains("/libcuda.so"));
    visible(path.unwrap_or("libcuda.so"))
}

/// The difference between the two devices' results, as a share of what rounding explains: of the number where that is the largest.
fn compare(check: &Check, device: &Device) -> anyhow::Result<f64> {
    let ((near, terms), (far, _)) = ((check.run)(&Device::Cpu)?, (check.run)(device)?);
    let unit = if far.dtype() == DType::BF16 { 2f64.powi(-8) } else { 2f64.powi(-23) };
    let far = far.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let (near, far) = (near.values::<f32>()?, far.values::<f32>()?);
    // A sum of n numbers of at most 1 is off by n² f32 roundings at worst; what is stored is rounded once more, and so is what goes into
    // the products of attention. Twice, as both may be off.
    let of_sums = (terms * terms) as f64 * 2f64.powi(-24);
    let share = |(&near, &far): (&f32, &f32)| {
        let off = (f64::from(near) - f64::from(far)).abs();
        off / (2.0 * (unit * f64::from(near).abs().max(1.0) + of_sums))
    };
    Ok(near.iter().zip(far).map(share).fold(0.0, |most, x| if x.is_nan() { f64::INFINITY } else { most.max(x) }))
}

/// Numbers within ±1 that are exact in bf16, of which every shape gets the same ones.
fn numbers(device: &Device, dtype: DType, sizes: &[usize]) -> anyhow::Result<Tensor> {
    let n = sizes.iter().product::<usize>();
    let values: Vec<f32> = (0..n).map(|i| (i * i % 251) as f32 / 125.0 - 1.0).collect();
    let rounded = Tensor::new(sizes, values)?.to_dtype(DType::BF16)?;
    Ok(rounded.to_dtype(dtype)?.to_device(device)?)
}

/// Activations: f32 on the processor, bf16 on a GPU.
fn rows(device: &Device, t: usize, c: usize) -> anyhow::Result<Tensor> {
    let dtype = if device == &Device::Cpu { DType::F32 } else { DType::BF16 };
    numbers(device, dtype, &[t, c])
}

fn matrix(device: &Device, n: usize, k: usize) -> anyhow::Result<Tensor> {
    numbers(device, DType::BF16, &[n, k])
}

fn vector(device: &Device, n: usize) -> anyhow::Result<Tensor> {
    numbers(device, DType::F32, &[n])
}

fn ids() -> Vec<u32> {
    (0..T as u32).map(|i| i * 97 % VOCAB as u32).collect()
}
