//! From instruction files to tokens.

use std::io::Cursor;
use std::path::Path;

use anyhow::Context;
use bloom::{Batch, Bloom};
use ecominstruct::instruction::Instruction;
use ecominstruct::pack::{self, Example, Lengths, Overflow, Packed};
use ecominstruct::prompt;
use ecominstruct::read::{BadRows, Format, Reader};
use rayon::prelude::*;

use crate::memory::thousands;
use crate::report::say;
use crate::settings::OverflowChoice;
use crate::text::Text;

/// All instructions of a file, in any of the three forms. Up to `skip` bad lines are passed over, counted and shown.
pub fn read(path: &Path, skip: u64) -> anyhow::Result<Vec<Instruction>> {
    let bad = if skip == 0 { BadRows::Error } else { BadRows::Skip(usize::try_from(skip)?) };
    let mut reader = Reader::open(path, Format::Auto, bad)?;
    let rows = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
    let report = reader.report();
    for line in &report.first_skipped {
        say(&format!("skipped {line}"));
    }
    if report.skipped > 0 {
        say(&format!("{}: {} bad lines skipped", path.display(), report.skipped));
    }
    if rows.is_empty() {
        anyhow::bail!("{}: wanted at least one instruction, found none", path.display());
    }
    Ok(rows)
}

/// One line of the file called `name`, which is line `at` there.
pub fn parse_line(line: &str, name: &str, at: usize) -> anyhow::Result<Instruction> {
    let mut reader = Reader::new(Cursor::new(line), name, Format::Auto, BadRows::Error);
    match reader.next() {
        Some(Ok(row)) => Ok(row),
        Some(Err(mut e)) => {
            e.line = at;
            Err(e.into())
        }
        None => anyhow::bail!("{name}:{at}: wanted one instruction, found none"),
    }
}

/// The texts that a tokenizer is trained on.
pub fn texts(row: &Instruction) -> [String; 2] {
    let rendered = prompt::render(row);
    [rendered.prompt, rendered.response]
}

/// Instructions as tokens, and what their lengths are.
pub struct Prepared {
    pub examples: Vec<Example>,
    pub lengths: LengthReport,
}

/// [`Lengths`] to print.
pub struct LengthReport(Lengths);

impl std::fmt::Display for LengthReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let l = &self.0;
        write!(f, "{} of {} instructions", thousands(l.kept as u64), thousands(l.examples as u64))?;
        for (n, what) in [(l.dropped, "too long"), (l.truncated, "cut"), (l.without_target, "without an answer")] {
            if n > 0 {
                write!(f, ", {n} {what}")?;
            }
        }
        let (p, r) = (l.prompt, l.response);
        write!(f, "; tokens of prompts: median {}, 95 % {}, 99 % {}, longest {}", p.p50, p.p95, p.p99, p.longest)?;
        write!(f, "; of responses: {}, {}, {}, {}", r.p50, r.p95, r.p99, r.longest)?;
        write!(f, "; {} targets", thousands(l.targets as u64))
    }
}

/// Renders and tokenises. Prompt and response are tokenised apart and stay apart; the end-of-text token ends every response.
pub fn encode(rows: &[Instruction], text: &Text, limit: usize, overflow: OverflowChoice) -> anyhow::Result<Prepared> {
    let one = |row: &Instruction| {
        let rendered = prompt::render(row);
        let prompt = text.encode(&rendered.prompt).with_context(|| row.id.clone())?;
        let mut response = text.encode(&rendered.response).with_context(|| row.id.clone())?;
        response.push(text.eos());
        Ok(Example { id: row.id.clone(), prompt, response })
    };
    let examples = rows.par_iter().map(one).collect::<anyhow::Result<Vec<_>>>()?;
    let overflow = match overflow {
        OverflowChoice::Drop => Overflow::Drop,
        OverflowChoice::TruncatePrompt => Overflow::TruncatePrompt,
        OverflowChoice::Truncate => Overflow::Truncate,
        OverflowChoice::Error => Overflow::Error,
    };
    let (examples, lengths) = pack::fit(examples, limit, overflow)?;
    Ok(Prepared { examples, lengths: LengthReport(lengths) })
}

/// Examples in one packed row.
pub fn batch<'a>(examples: impl Iterator<Item = &'a Example>) -> anyhow::Result<Batch> {
    let Packed { ids, bounds, rows, targets } = Packed::new(examples)?;
    Ok(Batch { ids, bounds, rows, targets })
}

/// The mean loss in nats over all targets of some examples, with up to `tokens` of them in a row.
pub fn mean_loss(model: &Bloom, examples: &[Example], tokens: usize) -> anyhow::Result<f64> {
    let order: Vec<u32> = (0..examples.len() as u32).collect();
    let (mut sum, mut n) = (0.0, 0);
    for row in pack::micro_batches(examples, &order, tokens) {
        let b = batch(order[row].iter().map(|&i| &examples[i as usize]))?;
        let losses = model.losses(&b.ids, &b.bounds, &b.rows, &b.targets)?;
        sum += losses.iter().map(|&l| f64::from(l)).sum::<f64>();
        n += losses.len();
    }
    Ok(sum / n as f64)
}
