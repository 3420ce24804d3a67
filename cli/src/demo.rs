//! The embedded default: the demo shop's instructions, and what is shown of a model trained on them.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use bloom::Bloom;
use clap::Parser;
use ecominstruct::eval_set::{self, EvalSet};
use ecominstruct::instruction::Instruction;
use ecominstruct::shop::{self, DemoData, Shop};

use crate::eval::{self, SetResult};
use crate::failure::visible;
use crate::generate::DecodingArgs;
use crate::report::say;
use crate::text::Text;

/// The last file that a finished demo leaves in its output folder.
pub const LAST_FILE: &str = "heldout-task.jsonl";

/// The demo shop's instructions.
pub struct Demo(DemoData);

impl Demo {
    /// The shop of this seed: the same seed, the same shop.
    pub fn open(seed: u64) -> Self {
        Self(shop::instructions(&Shop::open(seed)))
    }

    /// What is trained on.
    pub fn train(&self) -> &[Instruction] {
        &self.0.train
    }

    /// Evaluates the model on held-out products and on a task it never saw, and shows some of its answers. The table is
    /// the command's result; the held-out instructions are left in the output folder.
    pub fn report(&self, model: &Bloom, text: &Text, output: &Path) -> anyhow::Result<()> {
        let mut out = String::new();
        let seen = eval_set::from_instructions(&self.0.heldout_seen)?;
        let unseen = eval_set::from_instructions(&self.0.heldout_task)?;
        say("evaluating on held-out products");
        let (seen_results, seen_answers) = evaluate(model, text, &seen)?;
        let (unseen_results, _) = evaluate(model, text, &unseen)?;
        let _ = writeln!(out, "Seen tasks, held-out products:\n\n{}", eval::table(&seen_results));
        let _ = writeln!(out, "A task that training never saw:\n\n{}", eval::table(&unseen_results));
        let ahead = seen_results.iter().filter(|r| r.model().strict.headline > r.best_trivial()).count();
        let mean = |f: &dyn Fn(&SetResult) -> f64| seen_results.iter().map(f).sum::<f64>() / seen_results.len() as f64;
        let _ = writeln!(
            out,
            "Seen tasks: {:.1} on average, against {:.1} for the best trivial answer to each; ahead on {ahead} of {}.\n",
            mean(&|r| r.model().strict.headline),
            mean(&SetResult::best_trivial),
            seen_results.len()
        );
        out.push_str(&samples(&seen, &seen_answers));
        for (name, rows) in [("heldout.jsonl", &self.0.heldout_seen), (LAST_FILE, &self.0.heldout_task)] {
            tensor::durable::write(&output.join(name), |file| {
                rows.iter().try_for_each(|row| writeln!(file, "{}", serde_json::to_string(row)?))
            })?;
        }
        Ok(std::io::stdout().write_all(out.as_bytes())?)
    }
}

fn evaluate(model: &Bloom, text: &Text, sets: &[EvalSet]) -> anyhow::Result<(Vec<SetResult>, Vec<Vec<String>>)> {
    #[derive(Parser)]
    struct Defaults {
        #[command(flatten)]
        decoding: DecodingArgs,
    }
    let mut decoding = Defaults::try_parse_from(["ecom"])?.decoding;
    decoding.max_new_tokens = 48;
    decoding.batch = 32;
    let answers = eval::answer(model, text, sets, &decoding, 800)?;
    Ok((eval::score(sets, &answers, 0)?, answers))
}

/// The first item of every other set, with its answer.
fn samples(sets: &[EvalSet], answers: &[Vec<String>]) -> String {
    let mut out = String::from("Some answers:\n");
    for (set, answers) in sets.iter().zip(answers).step_by(sets.len().div_ceil(6).max(1)) {
        if let (Some(item), Some(answer)) = (set.items.first(), answers.first()) {
            let _ = writeln!(out, "\n  {}: {}", set.name, visible(&item.text));
            let _ = writeln!(out, "    answer: {}\n    gold:   {}", visible(answer), visible(&item.gold));
        }
    }
    out
}
