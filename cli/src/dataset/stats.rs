//! `ecom data stats`: what a data file consists of.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use ecominstruct::instruction::Instruction;
use ecominstruct::prompt;
use ecominstruct::read::{BadRows, Format, Reader};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;

use super::training_file;
use crate::failure::visible;
use crate::memory::thousands;
use crate::text::Text;

/// Arguments of `ecom data stats`.
#[derive(Args, Debug)]
pub struct StatsArgs {
    /// Data folder, or one .jsonl file
    path: PathBuf,
    /// Count tokens with this tokenizer
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Rows tokenised in one go.
const CHUNK: usize = 4_096;

/// Counts of a file.
#[derive(Debug, Default)]
struct Stats {
    rows: usize,
    /// By what, then by name.
    counts: [BTreeMap<String, usize>; 5],
    answers: BTreeMap<String, Vec<u32>>,
    prompt_tokens: Vec<u32>,
    response_tokens: Vec<u32>,
}

const BY: [&str; 5] = ["paradigm", "language", "prompt language", "source", "task"];

/// Lengths at 50, 95 and 99 %, and the largest.
#[derive(Debug, Clone, Copy, Serialize)]
struct Lengths {
    median: u32,
    p95: u32,
    p99: u32,
    longest: u32,
    sum: u64,
}

impl Lengths {
    fn of(values: &[u32]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Self {
            median: at(50).unwrap_or_default(),
            p95: at(95).unwrap_or_default(),
            p99: at(99).unwrap_or_default(),
            longest: sorted.last().copied().unwrap_or_default(),
            sum: sorted.iter().map(|&n| u64::from(n)).sum(),
        }
    }
}

impl std::fmt::Display for Lengths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "median {}, 95 % {}, 99 % {}, longest {}", self.median, self.p95, self.p99, self.longest)
    }
}

/// Runs `ecom data stats`.
pub fn run(args: &StatsArgs) -> anyhow::Result<()> {
    let text = args.tokenizer.as_deref().map(Text::load).transpose()?;
    let path = training_file(&args.path)?;
    let stats = Stats::read(&path, text.as_ref())?;
    if stats.rows == 0 {
        bail!("{}: wanted instructions, found none", path.display());
    }
    let heldout = heldout(&args.path)?;
    let out = if args.json { stats.json(&heldout) } else { stats.table(&path, &heldout) };
    Ok(std::io::stdout().write_all(out.as_bytes())?)
}

/// Rows of the held-out files of a folder.
fn heldout(path: &Path) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut found = BTreeMap::new();
    for part in ["heldout", "heldout-paraphrase"] {
        let Ok(entries) = std::fs::read_dir(path.join(part)) else { continue };
        for entry in entries {
            let file = entry?.path();
            if file.extension().is_some_and(|e| e == "jsonl") {
                let rows = Reader::open(&file, Format::Auto, BadRows::Error)?;
                let rows = rows.map(|row| row.map(|_| 1)).sum::<Result<usize, _>>()?;
                let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                found.insert(format!("{part}/{name}"), rows);
            }
        }
    }
    Ok(found)
}

impl Stats {
    fn read(path: &Path, text: Option<&Text>) -> anyhow::Result<Self> {
        let mut stats = Self::default();
        let mut reader = Reader::open(path, Format::Auto, BadRows::Error)?;
        loop {
            let rows = reader.by_ref().take(CHUNK).collect::<Result<Vec<Instruction>, _>>()?;
            if rows.is_empty() {
                return Ok(stats);
            }
            rows.iter().for_each(|row| stats.add(row));
            if let Some(text) = text {
                let count = |row: &Instruction| -> anyhow::Result<(u32, u32)> {
                    let rendered = prompt::render(row);
                    let n = |s: &str| text.encode(s).map(|ids| ids.len() as u32).with_context(|| row.id.clone());
                    Ok((n(&rendered.prompt)?, n(&rendered.response)?))
                };
                let counts = rows.par_iter().map(count).collect::<anyhow::Result<Vec<_>>>()?;
                stats.prompt_tokens.extend(counts.iter().map(|c| c.0));
                stats.response_tokens.extend(counts.iter().map(|c| c.1));
            }
        }
    }

    fn add(&mut self, row: &Instruction) {
        self.rows += 1;
        let or = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let names = [
            row.paradigm.name().to_owned(),
            row.lang.name().to_owned(),
            row.prompt_lang.name().to_owned(),
            or(&row.source),
            or(&row.task),
        ];
        for (counts, name) in self.counts.iter_mut().zip(names) {
            *counts.entry(name).or_default() += 1;
        }
        let length = row.output.chars().count() as u32;
        self.answers.entry(row.paradigm.name().to_owned()).or_default().push(length);
    }

    fn tokens(&self) -> Option<(Lengths, Lengths)> {
        (!self.prompt_tokens.is_empty()).then(|| (Lengths::of(&self.prompt_tokens), Lengths::of(&self.response_tokens)))
    }

    fn json(&self, heldout: &BTreeMap<String, usize>) -> String {
        let mut all = serde_json::Map::new();
        all.insert("instructions".into(), self.rows.into());
        for (by, counts) in BY.iter().zip(&self.counts) {
            all.insert((*by).replace(' ', "_"), json!(counts));
        }
        let answers: BTreeMap<&String, Lengths> = self.answers.iter().map(|(p, n)| (p, Lengths::of(n))).collect();
        all.insert("answer_characters".into(), json!(answers));
        if let Some((prompt, response)) = self.tokens() {
            all.insert("prompt_tokens".into(), json!(prompt));
            all.insert("response_tokens".into(), json!(response));
        }
        all.insert("heldout".into(), json!(heldout));
        format!("{:#}\n", serde_json::Value::Object(all))
    }

    fn table(&self, path: &Path, heldout: &BTreeMap<String, usize>) -> String {
        let mut out = format!("{}: {} instructions\n", path.display(), thousands(self.rows as u64));
        for (by, counts) in BY.iter().zip(&self.counts) {
            let _ = writeln!(out, "\nby {by}");
            for (name, n) in counts {
                let share = 100.0 * *n as f64 / self.rows.max(1) as f64;
                let _ = writeln!(out, "  {:<32} {:>9} {share:>5.1} %", visible(name), thousands(*n as u64));
            }
        }
        let _ = writeln!(out, "\nanswers, in characters");
        for (paradigm, lengths) in &self.answers {
            let _ = writeln!(out, "  {paradigm}  {}", Lengths::of(lengths));
        }
        if let Some((prompt, response)) = self.tokens() {
            let _ = writeln!(out, "\ntokens\n  prompts    {prompt}; {} in all", thousands(prompt.sum));
            let _ = writeln!(out, "  responses  {response}; {} in all", thousands(response.sum));
        }
        if !heldout.is_empty() {
            let _ = writeln!(out, "\nheld out");
            for (name, rows) in heldout {
                let _ = writeln!(out, "  {:<50} {rows:>6}", visible(name));
            }
        }
        out
    }
}
