//! What a run says while it goes: a bar on a terminal, plain lines elsewhere, and its log files.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::tensorboard::EventFile;

/// Progress on stderr.
pub struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    total: u64,
    started: Instant,
    said: Instant,
}

/// Seconds between two plain lines.
const QUIET: u64 = 10;

impl Progress {
    /// Progress through `total` units, from unit `start` on.
    pub fn new(what: &'static str, start: u64, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_position(start);
            let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            let bar_part = if colour { "{bar:32.cyan/dim}" } else { "{bar:32}" };
            let style = ProgressStyle::with_template(&format!("{{prefix}} {bar_part} {{pos}}/{{len}} {{eta}} {{msg}}"));
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(what);
            bar
        });
        Self { bar, what, total, started: Instant::now(), said: Instant::now() }
    }

    /// Unit `at` is done.
    pub fn at(&mut self, at: u64, message: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(at);
                bar.set_message(message.to_string());
            }
            None if self.said.elapsed().as_secs() >= QUIET || at == self.total => {
                self.said = Instant::now();
                say(&format!(
                    "{} {at}/{} {message} ({:.0} s)",
                    self.what,
                    self.total,
                    self.started.elapsed().as_secs_f64()
                ));
            }
            None => {}
        }
    }

    /// A line that stays, above the bar.
    pub fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => say(line),
        }
    }

    /// The end: the bar goes.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line on stderr. A closed stderr is no reason to stop.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// One line of `log.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Optimiser steps taken.
    pub step: u64,
    /// Passes over the data so far.
    pub epoch: f64,
    /// Mean loss in nats over the targets of this step.
    pub loss: f64,
    /// Learning rate of this step.
    pub lr: f32,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens a second, over this step.
    pub tokens_per_second: f64,
    /// Tokens of this step that were learned from, of all its tokens; no token is padding.
    pub useful: f64,
    /// Mean loss on the held-out file, where it was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heldout_loss: Option<f64>,
}

/// `log.jsonl` and a TensorBoard event file in the output folder.
pub struct Log {
    lines: File,
    events: EventFile,
}

impl Log {
    /// Opens the log; a resumed run's later lines are cut off, so that each step is there once.
    pub fn open(output: &Path, resumed_at: u64) -> anyhow::Result<Self> {
        let path = output.join("log.jsonl");
        let cannot = || format!("{}: cannot write", path.display());
        let old = if resumed_at > 0 { std::fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        let step = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?.get("step")?.as_u64();
        tensor::durable::write(&path, |out| {
            let kept = old.lines().filter(|l| step(l).is_some_and(|s| s <= resumed_at));
            kept.into_iter().try_for_each(|line| writeln!(out, "{line}"))
        })?;
        let lines = File::options().append(true).open(&path).with_context(cannot)?;
        Ok(Self { lines, events: EventFile::create(&output.join("tensorboard"))? })
    }

    /// Writes one entry to both.
    pub fn write(&mut self, entry: &Entry) -> anyhow::Result<()> {
        writeln!(self.lines, "{}", serde_json::to_string(entry)?).context("log.jsonl: cannot write")?;
        for (tag, value) in [
            ("train/loss", entry.loss),
            ("train/learning_rate", f64::from(entry.lr)),
            ("train/grad_norm", entry.grad_norm),
            ("train/tokens_per_second", entry.tokens_per_second),
            ("train/useful", entry.useful),
        ] {
            self.events.scalar(tag, value as f32, entry.step)?;
        }
        if let Some(loss) = entry.heldout_loss {
            self.events.scalar("heldout/loss", loss as f32, entry.step)?;
        }
        self.events.flush()
    }
}
