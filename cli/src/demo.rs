//! The default of `ecom train`: the demo shop's instructions, and what is shown of a model trained on them.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::bail;
use bloom::Bloom;
use clap::Parser;
use ecominstruct::build::manifest::{HeldOutEntry, Manifest};
use ecominstruct::eval_set::{self, EvalSet};
use ecominstruct::instruction::Instruction;
use ecominstruct::shop;

use crate::data;
use crate::dataset;
use crate::eval::{self, Answering, SetResult};
use crate::failure::visible;
use crate::generate::DecodingArgs;
use crate::report::say;
use crate::text::Text;

/// The last file that a finished demo leaves in its output folder: what it printed.
pub const LAST_FILE: &str = "report.txt";

/// Folder of the instructions within the output folder.
const DATA: &str = "data";

/// The demo shop's instructions.
pub struct Demo {
    train: Vec<Instruction>,
    seen: Vec<EvalSet>,
    unseen: Vec<EvalSet>,
}

impl Demo {
    /// Builds the shop of this seed into `OUTPUT/data`, in the place of an earlier one, and reads it.
    pub fn build(output: &Path, seed: u64) -> anyhow::Result<Self> {
        let folder = output.join(DATA);
        let taken = std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
        let ours = |m: &Manifest| m.sources.iter().all(|s| shop::SOURCES.iter().any(|ours| ours.0 == s.name));
        if taken && !Manifest::read(&folder).is_ok_and(|m| ours(&m)) {
            bail!("{} is there and not the demo's: name another --output", folder.display());
        }
        say("building the demo shop's instructions");
        dataset::build_demo(&folder, seed)?;
        Self::read(output)
    }

    /// Whether [`Demo::build`] left something to read.
    pub fn is_built(output: &Path) -> bool {
        output.join(DATA).join("manifest.json").is_file()
    }

    /// Reads what [`Demo::build`] left.
    pub fn read(output: &Path) -> anyhow::Result<Self> {
        let folder = output.join(DATA);
        let manifest = Manifest::read(&folder)?;
        let sets = |task_seen: bool| {
            let list = manifest.heldout.iter().filter(|h| h.task_seen == task_seen);
            list.map(|h| set(&folder, h)).collect::<anyhow::Result<Vec<_>>>()
        };
        Ok(Self { train: data::read(&folder.join("train.jsonl"), 0)?, seen: sets(true)?, unseen: sets(false)? })
    }

    /// Takes away the mark of a finished demo: from now on its output folder holds one that is under way.
    pub fn unfinish(output: &Path) -> anyhow::Result<()> {
        let path = output.join(LAST_FILE);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(tensor::Error::io("remove", &path)(e).into()),
            _ => Ok(()),
        }
    }

    /// What is trained on.
    pub fn train(&self) -> &[Instruction] {
        &self.train
    }

    /// Evaluates the model on held-out products and on tasks it never saw, and shows some of its answers. The table is the
    /// command's result, and is left in the output folder.
    pub fn report(&self, model: &Bloom, text: &Text, output: &Path) -> anyhow::Result<()> {
        let mut out = String::new();
        say("evaluating on held-out products");
        let (seen, answers) = evaluate(model, text, &self.seen)?;
        let (unseen, _) = evaluate(model, text, &self.unseen)?;
        let _ = writeln!(out, "Seen tasks, held-out products:\n\n{}", eval::table(&seen));
        let _ = writeln!(out, "Tasks that training never saw, held-out products:\n\n{}", eval::table(&unseen));
        let _ = writeln!(out, "Seen tasks:   {}", summary(&seen));
        let _ = writeln!(out, "Unseen tasks: {}\n", summary(&unseen));
        out.push_str(&samples(&self.seen, &answers));
        tensor::durable::write(&output.join(LAST_FILE), |file| file.write_all(out.as_bytes()))?;
        Ok(std::io::stdout().write_all(out.as_bytes())?)
    }
}

/// A held-out set, by the name that the recipe gives it.
fn set(folder: &Path, held: &HeldOutEntry) -> anyhow::Result<EvalSet> {
    let path = folder.join("heldout").join(format!("{}.jsonl", held.name));
    let rows = data::read(&path, 0)?;
    match eval_set::from_instructions(&rows)?.pop() {
        Some(set) => Ok(EvalSet { name: held.name.clone(), ..set }),
        None => bail!("{}: wanted at least one instruction, found none", path.display()),
    }
}

fn evaluate(model: &Bloom, text: &Text, sets: &[EvalSet]) -> anyhow::Result<(Vec<SetResult>, Vec<Vec<String>>)> {
    #[derive(Parser)]
    struct Defaults {
        #[command(flatten)]
        decoding: DecodingArgs,
    }
    let mut decoding = Defaults::try_parse_from(["ecom"])?.decoding;
    decoding.max_new_tokens = 96;
    decoding.batch = 32;
    let answers = Answering { model, text, decoding: &decoding, prompt_tokens: 800 }.freely(sets)?;
    Ok((eval::score(sets, &answers, 0)?, answers))
}

fn summary(results: &[SetResult]) -> String {
    let ahead = results.iter().filter(|r| r.model().strict.headline > r.best_trivial()).count();
    let mean = |f: &dyn Fn(&SetResult) -> f64| results.iter().map(f).sum::<f64>() / results.len().max(1) as f64;
    format!(
        "{:.1} on average, against {:.1} for the best trivial answer to each; ahead on {ahead} of {}.",
        mean(&|r| r.model().strict.headline),
        mean(&SetResult::best_trivial),
        results.len()
    )
}

/// The first item of some sets, with its answer.
fn samples(sets: &[EvalSet], answers: &[Vec<String>]) -> String {
    let mut out = String::from("Some answers:\n");
    for (set, answers) in sets.iter().zip(answers).step_by(sets.len().div_ceil(8).max(1)) {
        if let (Some(item), Some(answer)) = (set.items.first(), answers.first()) {
            let _ = writeln!(out, "\n  {}: {}", set.name, visible(&item.text));
            let _ = writeln!(out, "    answer: {}\n    gold:   {}", visible(answer), visible(&item.gold));
        }
    }
    out
}
