//! `ecom data show`: single instructions, as a model sees them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, ValueEnum};
use ecominstruct::instruction::{Instruction, Lang};
use ecominstruct::prompt;
use ecominstruct::read::{BadRows, Format, Reader};
use ecominstruct::splitmix::SplitMix;
use ecominstruct::wording::Wording;

use super::{lines, training_file};
use crate::failure::visible;

/// Arguments of `ecom data show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Data folder, or one .jsonl file
    path: PathBuf,
    /// Only this task, such as F12; for held-out files, the name of the set
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// Only this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only texts in this language
    #[arg(long, value_enum, value_name = "LANG")]
    lang: Option<Language>,
    /// How many
    #[arg(short, value_name = "N", default_value_t = 5)]
    n: usize,
    /// Draw them at random with this seed [default: the first ones]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Language {
    /// English
    En,
    /// Chinese
    Zh,
}

/// Runs `ecom data show`.
pub fn run(args: &ShowArgs) -> anyhow::Result<()> {
    let path = training_file(&args.path)?;
    let lang = args.lang.map(|l| match l {
        Language::En => Lang::En,
        Language::Zh => Lang::Zh,
    });
    let wanted = |row: &Instruction| {
        args.task.as_ref().is_none_or(|t| *t == row.task)
            && args.source.as_ref().is_none_or(|s| *s == row.source)
            && lang.is_none_or(|l| l == row.lang)
    };
    // The rows with the smallest draws; without a seed, the first ones.
    let mut chosen: BTreeMap<u64, Instruction> = BTreeMap::new();
    let mut none = true;
    for (at, row) in Reader::open(&path, Format::Auto, BadRows::Error)?.enumerate() {
        let row = row?;
        none = false;
        if args.n == 0 || (args.seed.is_none() && chosen.len() == args.n) {
            break;
        }
        if !wanted(&row) {
            continue;
        }
        let key = args.seed.map_or(at as u64, |seed| SplitMix::stream(seed, at as u64).next_u64());
        chosen.insert(key, row);
        if chosen.len() > args.n {
            chosen.pop_last();
        }
    }
    if none {
        bail!("{}: wanted instructions, found none", path.display());
    }
    if chosen.is_empty() && args.n > 0 {
        bail!("{}: no instruction is like that", path.display());
    }
    let mut out = std::io::stdout();
    for row in chosen.values() {
        out.write_all(page(row)?.as_bytes())?;
    }
    Ok(())
}

/// One instruction.
fn page(row: &Instruction) -> anyhow::Result<String> {
    let mut out = format!("━━ {}\n", visible(&row.id));
    let rendered = prompt::render(row);
    let mut facts = Vec::new();
    if !row.task.is_empty() {
        let name = Wording::builtin().name(&row.task, Lang::En);
        let name = if name.is_empty() { &row.description } else { name };
        facts.push(format!("task {} ({name}), {}", row.task, row.paradigm.name()));
    }
    facts.push(format!("text {}, prompt {}", row.lang.name(), row.prompt_lang.name()));
    if !row.parents.is_empty() {
        facts.push(format!("derived from {}", row.parents.join(", ")));
    }
    if !row.source.is_empty() {
        facts.push(format!("source {} ({})", row.source, row.source_split));
    }
    if !row.template_id.is_empty() {
        facts.push(format!("template {}", row.template_id));
    }
    let _ = writeln!(out, "{}", visible(&facts.join("; ")));
    if !row.raw_ids.is_empty() {
        let _ = writeln!(out, "raw rows {}", visible(&row.raw_ids.join(", ")));
    }
    let _ = write!(out, "── prompt\n{}── response\n{}", lines(&rendered.prompt), lines(&rendered.response));
    if let Some(gold) = &row.gold {
        let _ = writeln!(out, "── gold\n{}", visible(&serde_json::to_string(gold)?));
    }
    out.push('\n');
    Ok(out)
}
