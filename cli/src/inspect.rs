//! `ecom inspect`: what is in a model folder, an instruction file or a data folder.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use bloom::{Bloom, Dtype};
use clap::Args;
use ecominstruct::build::manifest::Manifest;
use ecominstruct::eval_set::{self, EvalError, EvalSet};
use ecominstruct::instruction::Instruction;
use ecominstruct::prompt;

use crate::data;
use crate::failure::visible;
use crate::memory::{size, thousands};
use crate::text::Text;

/// Arguments of `ecom inspect`.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// Model folder, or instruction file (.jsonl), or data folder
    path: PathBuf,
    /// List every tensor of a model
    #[arg(long)]
    tensors: bool,
    /// Print this many rendered instructions of an instruction file [default: 1]
    #[arg(long, value_name = "N")]
    show: Option<usize>,
    /// Count the tokens of an instruction file with this tokenizer
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Bad lines of an instruction file to skip before giving up [default: 0]
    #[arg(long, value_name = "N")]
    skip_bad_rows: Option<u64>,
}

/// Runs `ecom inspect`.
pub fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let path = args.path.as_path();
    if path.join("config.json").is_file() {
        args.refuse_for_instructions()?;
        return model(args);
    }
    if args.tensors {
        bail!("--tensors: wanted a model folder, found none in {}", path.display());
    }
    if path.is_file() {
        return instructions(args);
    }
    args.refuse_for_instructions()?;
    if path.join("manifest.json").is_file() && path.join("train.jsonl").is_file() {
        return built(path);
    }
    if path.join("model/config.json").is_file() {
        let model = path.join("model");
        bail!("{}: this is the folder of a run; its model is {}", path.display(), model.display());
    }
    let read = if path.is_dir() { eval_set::read(path, 0) } else { Err(EvalError::Empty(String::new())) };
    match read {
        Err(EvalError::Empty(_)) => {
            let wanted = "wanted a model folder with config.json, or an instruction file, or a data folder";
            bail!("{}: {wanted}", path.display())
        }
        sets => evaluation(&sets?),
    }
}

impl InspectArgs {
    /// Refuses flags that mean nothing for a folder.
    fn refuse_for_instructions(&self) -> anyhow::Result<()> {
        for (flag, given) in [
            ("--show", self.show.is_some()),
            ("--tokenizer", self.tokenizer.is_some()),
            ("--skip-bad-rows", self.skip_bad_rows.is_some()),
        ] {
            if given {
                bail!("{flag}: wanted an instruction file, found that {} is a folder", self.path.display());
            }
        }
        Ok(())
    }
}

fn model(args: &InspectArgs) -> anyhow::Result<()> {
    let model = Bloom::load(&args.path, Dtype::Stored)?;
    let c = model.config();
    let mut out = std::io::stdout();
    let bytes: usize = model.params().iter().map(|p| p.value.size()).sum();
    writeln!(out, "BLOOM  {} parameters, {}", thousands(model.params().elements() as u64), size(bytes as u64))?;
    writeln!(out, "hidden {}, layers {}, heads {} of {}", c.hidden, c.layers, c.heads, c.head_dim())?;
    let head = if c.tied { "the embedding" } else { "a matrix of its own" };
    writeln!(out, "vocabulary {} rows, head: {head}", thousands(c.vocab as u64))?;
    match Text::load(&args.path) {
        Ok(text) => writeln!(out, "tokenizer {} tokens, end of text {}", thousands(text.len() as u64), text.eos())?,
        Err(e) => writeln!(out, "tokenizer: none ({})", visible(&format!("{e:#}")))?,
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
    let rows = data::read(&args.path, args.skip_bad_rows.unwrap_or(0))?;
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
    for row in rows.iter().take(args.show.unwrap_or(1)) {
        let rendered = prompt::render(row);
        writeln!(out, "\n--- {}", visible(&row.id))?;
        for line in format!("{}{}", rendered.prompt, rendered.response).lines() {
            writeln!(out, "{}", visible(line))?;
        }
    }
    Ok(())
}

/// The folder of a build, by its manifest.
fn built(folder: &Path) -> anyhow::Result<()> {
    let manifest = Manifest::read(folder)?;
    let mut out = std::io::stdout();
    let (rows, tokens) = (thousands(manifest.instructions as u64), thousands(manifest.estimated_tokens));
    writeln!(out, "built by ecom {} with seed {}", visible(&manifest.version), manifest.seed)?;
    writeln!(out, "{rows} instructions to train on, about {tokens} tokens")?;
    for (by, counts) in
        [("language", &manifest.languages), ("paradigm", &manifest.paradigms), ("task", &manifest.tasks)]
    {
        writeln!(out, "\nby {by}")?;
        for (name, n) in counts {
            writeln!(out, "  {:<40} {:>9}", visible(name), thousands(*n as u64))?;
        }
    }
    if !manifest.heldout.is_empty() {
        writeln!(out, "\nheld out")?;
        for set in &manifest.heldout {
            let (name, items) = (visible(&set.name), thousands(set.items as u64));
            writeln!(out, "  {name:<40} {:<3} {:<3} {items:>9}", set.paradigm.name(), set.lang.name())?;
        }
    }
    writeln!(out, "\nfiles")?;
    for file in &manifest.files {
        let (rows, bytes) = (thousands(file.rows as u64), size(file.bytes));
        writeln!(out, "  {:<40} {rows:>9} {bytes:>11}", visible(&file.name))?;
    }
    Ok(())
}

/// Labels that are named; of more, their number says enough.
const NAMED: usize = 8;

/// Evaluation sets.
fn evaluation(sets: &[EvalSet]) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let items: usize = sets.iter().map(|s| s.items.len()).sum();
    writeln!(out, "{} evaluation sets, {} items", sets.len(), thousands(items as u64))?;
    let width = sets.iter().map(|s| visible(&s.name).chars().count()).max().unwrap_or(0);
    for set in sets {
        let (name, kind, lang) = (visible(&set.name), set.kind.name(), set.lang.name());
        write!(out, "  {name:<width$}  {kind:<17} {lang} {:>7} items", thousands(set.items.len() as u64))?;
        match set.labels.len() {
            0 => writeln!(out)?,
            n => {
                let named: Vec<String> = set.labels.iter().take(NAMED).map(|l| visible(l)).collect();
                let more = if n > NAMED { ", …" } else { "" };
                writeln!(out, "  {n} labels: {}{more}", named.join(", "))?;
            }
        }
    }
    Ok(())
}

fn lengths(out: &mut impl Write, rows: &[Instruction], tokenizer: &Path) -> anyhow::Result<()> {
    let text = Text::load(tokenizer)?;
    let examples = data::encode(rows, &text, usize::MAX, crate::settings::OverflowChoice::Drop)?;
    writeln!(out, "{}", examples.lengths)?;
    Ok(())
}
