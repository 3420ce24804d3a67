//! `ecom plan`: memory by part, from the configuration alone.

use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use bloom::{Config, Memory, Plan, PlanFor, Recompute, Sizes};
use clap::Args;
use serde_json::json;
use tensor::Gpu;

use crate::device::{self, DeviceChoice};
use crate::memory::{size, thousands};

/// Arguments of `ecom plan`.
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// Model folder or config.json, or a published size: 560m, 1b1, 1b7, 3b, 7b1
    model: PathBuf,
    /// Tokens packed into one training row
    #[arg(long, value_name = "N", default_value_t = 4096)]
    tokens: usize,
    /// Share of the tokens that are responses
    #[arg(long, value_name = "X", default_value_t = 0.15)]
    response: f64,
    /// Sequences side by side in generation
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,
    /// Tokens of each, prompt and answer
    #[arg(long, value_name = "N", default_value_t = 1024)]
    length: usize,
    /// Whose memory to plan; a GPU need not be there
    #[arg(long, value_name = "WHERE", default_value = "cpu")]
    device: DeviceChoice,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The published sizes: hidden size, layers, heads.
const PUBLISHED: [(&str, [usize; 3]); 5] = [
    ("560m", [1024, 24, 16]),
    ("1b1", [1536, 24, 16]),
    ("1b7", [2048, 24, 16]),
    ("3b", [2560, 30, 32]),
    ("7b1", [4096, 30, 32]),
];

/// Runs `ecom plan`.
pub fn run(args: &PlanArgs) -> anyhow::Result<()> {
    if !(0.0..=1.0).contains(&args.response) {
        bail!("--response: wanted 0 to 1, found {}", args.response);
    }
    let config = match PUBLISHED.iter().find(|(name, _)| args.model.as_os_str() == *name) {
        Some((_, [hidden, layers, heads])) => Config::new(*hidden, *layers, *heads, 250_880)?,
        None if args.model.is_dir() => Config::read(&args.model.join("config.json"))?,
        None => Config::read(&args.model)?,
    };
    let targets = (args.tokens as f64 * args.response).ceil() as usize;
    let training = |recompute| PlanFor::Training { tokens: args.tokens, targets, recompute };
    let generation = |size| {
        let sizes = Sizes { weight: size, cached: size };
        PlanFor::Generation { batch: args.batch, tokens: args.length, sizes }
    };
    let jobs = [
        ("training, blocks kept", training(Recompute::Keep)),
        ("training, blocks recomputed", training(Recompute::Again)),
        ("generation, f32 weights", generation(4)),
        ("generation, bf16 weights", generation(2)),
    ];
    let (memory, available) = match args.device {
        // A plan needs no GPU.
        DeviceChoice::Cuda if Gpu::count() == 0 => (Memory::Gpu, None),
        choice => {
            let device = choice.open()?;
            (device::memory_of(&device), device::available(&device))
        }
    };
    let plans: Vec<(&str, Plan)> =
        jobs.into_iter().map(|(name, job)| (name, Plan::new(&config, job, memory))).collect();
    let mut out = std::io::stdout();
    if args.json {
        let jobs: serde_json::Map<String, serde_json::Value> = plans
            .iter()
            .map(|(name, plan)| {
                let parts: serde_json::Map<_, _> =
                    plan.parts.iter().map(|(n, b)| ((*n).to_string(), json!(b))).collect();
                ((*name).to_string(), json!({ "bytes": plan.total(), "parts": parts }))
            })
            .collect();
        let all = json!({ "parameters": config.parameters(), "available": available, "jobs": jobs });
        return Ok(writeln!(out, "{all:#}")?);
    }
    writeln!(out, "{} parameters", thousands(config.parameters() as u64))?;
    for (name, plan) in &plans {
        let fits = available.map_or("", |a| if plan.total() > a { "  does not fit here" } else { "  fits here" });
        writeln!(out, "\n{name:<36} {:>10}{fits}", size(plan.total()))?;
        for (part, bytes) in &plan.parts {
            writeln!(out, "  {part:<34} {:>10}", size(*bytes))?;
        }
    }
    Ok(())
}
