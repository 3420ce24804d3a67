//! `ecom inspect`: what is in a model folder or an instruction file.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use bloom::{Bloom, Dtype};
use clap::Args;
use ecominstruct::instruction::Instruction;
use ecominstruct::prompt;

use crate::data;
use crate::failure::visible;
use crate::memory::{size, thousands};
use crate::text::Text;

/// Arguments of `ecom inspect`.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// Model folder, or instruction file (.jsonl)
    path: PathBuf,
    /// List every tensor of a model
    #[arg(long)]
    tensors: bool,
    /// Print this many rendered instructions of a data file
    #[arg(long, value_name = "N", default_value_t = 1)]
    show: usize,
    /// Count the tokens of a data file with this tokenizer
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Bad lines to skip before giving up
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip_bad_rows: u64,
}

/// Runs `ecom inspect`.
pub fn run(args: &InspectArgs) -> anyhow::Result<()> {
    if args.path.join("config.json").is_file() {
        return model(args);
    }
    if args.path.is_file() {
        return instructions(args);
    }
    bail!("{}: wanted a model folder with config.json, or an instruction file", args.path.display())
}

fn model(args: &InspectArgs) -> anyhow::Result<()> {
    let model = Bloom::load(&args.path, Dtype::Stored)?;
    let c = model.config();
    let mut out = std::io::stdout();
    let bytes: usize = model.params().iter().map(|p| p.value.bytes().len()).sum();
    writeln!(out, "BLOOM  {} parameters, {}", thousands(model.params().elements() as u64), size(bytes as u64))?;
    writeln!(out, "hidden {}, layers {}, heads {} of {}", c.hidden, c.layers, c.heads, c.head_dim())?;
    let head = if c.tied { "the embedding" } else { "a matrix of its own" };
    writeln!(out, "vocabulary {} rows, head: {head}", thousands(c.vocab as u64))?;
    match Text::load(&args.path) {
        Ok(text) => writeln!(out, "tokenizer {} tokens, end of text {}", thousands(text.len() as u64), text.eos())?,
        Err(e) => writeln!(out, "tokenizer: none ({e:#})")?,
    }
    writeln!(out, "every weight is a finite number")?;
    if args.tensors {
        for p in model.params().iter() {
            writeln!(out, "{:<64} {:>5} {:?}", p.name, p.value.dtype().name(), p.value.shape())?;
        }
    }
    Ok(())
}

fn instructions(args: &InspectArgs) -> anyhow::Result<()> {
    let rows = data::read(&args.path, args.skip_bad_rows)?;
    let mut out = std::io::stdout();
    writeln!(out, "{} instructions", thousands(rows.len() as u64))?;
    let mut tasks: BTreeMap<(String, String), usize> = BTreeMap::new();
    for row in &rows {
        let task = if row.task.is_empty() { "-" } else { &row.task };
        *tasks.entry((visible(task), row.lang.name().to_string())).or_default() += 1;
    }
    for ((task, lang), n) in tasks {
        writeln!(out, "  {task:<40} {lang:<3} {n:>8}")?;
    }
    if let Some(path) = &args.tokenizer {
        lengths(&mut out, &rows, path)?;
    }
    for row in rows.iter().take(args.show) {
        let rendered = prompt::render(row);
        writeln!(out, "\n--- {}\n{}{}", visible(&row.id), rendered.prompt, rendered.response)?;
    }
    Ok(())
}

fn lengths(out: &mut impl Write, rows: &[Instruction], tokenizer: &Path) -> anyhow::Result<()> {
    let text = Text::load(tokenizer)?;
    let examples = data::encode(rows, &text, usize::MAX, crate::settings::OverflowChoice::Drop)?;
    writeln!(out, "{}", examples.lengths)?;
    Ok(())
}
