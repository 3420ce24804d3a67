//! What a training run is told: a TOML file and flags of the same names, flags first.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, CommandFactory, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::device::DeviceChoice;

/// Every setting, where it is given. One list serves the command line and the file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Model folder to start from (config.json, *.safetensors, tokenizer.json). Without it a new model is made
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Instruction files: JSON Lines in EcomInstruct, Alpaca or messages form. Without any, the demo shop
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub data: Option<Vec<PathBuf>>,
    /// Instruction file whose loss is reported while training, never learned from
    #[arg(long, value_name = "FILE")]
    pub heldout: Option<PathBuf>,
    /// Folder for checkpoints, logs and the trained model [default: runs/demo without --data, else runs/train]
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Tokenizer folder or tokenizer.json [default: the model's; for a new model, trained on the data]
    #[arg(long, value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
    /// New model: width of a token's state
    #[arg(long, value_name = "N", help_heading = "New model")]
    pub hidden: Option<usize>,
    /// New model: number of blocks
    #[arg(long, value_name = "N", help_heading = "New model")]
    pub layers: Option<usize>,
    /// New model: attention heads
    #[arg(long, value_name = "N", help_heading = "New model")]
    pub heads: Option<usize>,
    /// New model: size of the tokenizer trained for it
    #[arg(long, value_name = "N", help_heading = "New model")]
    pub vocab: Option<usize>,
    /// Passes over the data [default: 3]
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    pub epochs: Option<u64>,
    /// Stop after this many steps; the schedule follows
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    pub steps: Option<u64>,
    /// Instructions in one optimiser step [default: 128; new model: 32; demo: 8]
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    pub batch: Option<usize>,
    /// Tokens packed into one row, the unit of memory; a step takes as many rows as it needs [default: 4096]
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    pub tokens: Option<usize>,
    /// Tokens of one instruction at most, prompt and response [default: 1024]
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    pub length: Option<usize>,
    /// What to do with a longer one [default: drop]
    #[arg(long, value_name = "HOW", help_heading = "Optimisation")]
    pub overflow: Option<OverflowChoice>,
    /// Peak learning rate [default: 2e-5; new model: 2e-3; demo: 3e-3]
    #[arg(long, value_name = "X", help_heading = "Optimisation")]
    pub lr: Option<f32>,
    /// Share of the steps in which the rate rises [default: 0.03]
    #[arg(long, value_name = "X", help_heading = "Optimisation")]
    pub warmup: Option<f32>,
    /// How the rate falls after that [default: cosine]
    #[arg(long, value_name = "HOW", help_heading = "Optimisation")]
    pub schedule: Option<ScheduleChoice>,
    /// Decoupled weight decay of matrices [default: 0; new model: 0.01]
    #[arg(long, value_name = "X", help_heading = "Optimisation")]
    pub weight_decay: Option<f32>,
    /// AdamW's decay of the mean gradient [default: 0.9]
    #[arg(long, value_name = "X", help_heading = "Optimisation")]
    pub beta1: Option<f32>,
    /// AdamW's decay of the mean squared gradient [default: 0.999; new model: 0.98]
    #[arg(long, value_name = "X", help_heading = "Optimisation")]
    pub beta2: Option<f32>,
    /// Global norm to which larger gradients are scaled down; 0 turns it off [default: 1]
    #[arg(long, value_name = "X", help_heading = "Optimisation")]
    pub clip: Option<f32>,
    /// Seed of the weights, the order of the data and the demo shop [default: 0]
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    pub seed: Option<u64>,
    /// Where to train [default: cpu]
    #[arg(long, value_name = "WHERE", help_heading = "Machine")]
    pub device: Option<DeviceChoice>,
    /// Whether to compute a block's inner values again in the backward pass, to save memory [default: auto]
    #[arg(long, value_name = "WHEN", help_heading = "Machine")]
    pub recompute: Option<RecomputeChoice>,
    /// Multiply in bf16 where the processor can, with f32 weights and sums, as on a GPU anyway: faster, a little less exact
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Machine")]
    pub bf16: Option<bool>,
    /// Steps between checkpoints; 0 saves none but the last [default: 200]
    #[arg(long, value_name = "N", help_heading = "Checkpoints")]
    pub save_every: Option<u64>,
    /// Checkpoints kept, the newest [default: 2]
    #[arg(long, value_name = "N", help_heading = "Checkpoints")]
    pub keep: Option<usize>,
    /// Steps between lines of the log [default: 10]
    #[arg(long, value_name = "N", help_heading = "Checkpoints")]
    pub log_every: Option<u64>,
    /// Bad lines in a data file to skip before giving up [default: 0]
    #[arg(long, value_name = "N")]
    pub skip_bad_rows: Option<u64>,
}

/// What happens to an instruction that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverflowChoice {
    /// It is left out, and counted
    Drop,
    /// Its prompt loses its beginning
    TruncatePrompt,
    /// Its end is cut off, the end of the response and the end-of-text token with it
    Truncate,
    /// Training does not start
    Error,
}

/// How the learning rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleChoice {
    /// Half a cosine
    Cosine,
    /// A straight line
    Linear,
    /// Not at all
    Constant,
}

/// When blocks are computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecomputeChoice {
    /// Where memory would not do otherwise
    Auto,
    /// Always
    On,
    /// Never
    Off,
}

/// The shape of a new model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewModel {
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub vocab: usize,
}

/// A run with every setting decided. What decides the weights is in `recipe`.
#[derive(Clone, Debug)]
pub struct Run {
    pub model: Option<PathBuf>,
    pub data: Vec<PathBuf>,
    pub heldout: Option<PathBuf>,
    pub output: PathBuf,
    pub tokenizer: Option<PathBuf>,
    pub device: DeviceChoice,
    pub recompute: RecomputeChoice,
    pub save_every: u64,
    pub keep: usize,
    pub log_every: u64,
    pub skip_bad_rows: u64,
    pub recipe: Recipe,
}

/// The settings that decide the weights, bit for bit, beside the data and the model they start from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    pub new_model: Option<NewModel>,
    pub epochs: u64,
    pub steps: Option<u64>,
    pub batch: usize,
    pub tokens: usize,
    pub length: usize,
    pub overflow: OverflowChoice,
    pub lr: f32,
    pub warmup: f32,
    pub schedule: ScheduleChoice,
    pub weight_decay: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub clip: f32,
    pub seed: u64,
    /// Whether a CPU that can multiplies in bf16; kept on any machine, so that a run may move. Checkpoints older than this setting did not.
    #[serde(default)]
    pub bf16: bool,
}

impl Settings {
    /// Reads a TOML file; its keys are the flags' names with `_` for `-`.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
        let at = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
        let table: toml::Table = toml::from_str(&text).map_err(|e| {
            let line = e.span().map_or(1, |s| at(s.start));
            anyhow::anyhow!("{}:{line}: {}", path.display(), e.message().replace('\n', ", "))
        })?;
        let known = known_keys();
        for key in table.keys() {
            if !known.contains(key) {
                let line = text
                    .lines()
                    .position(|l| l.trim_start().trim_start_matches(['[', '"']).starts_with(key))
                    .unwrap_or(0)
                    + 1;
                let nearest =
                    known.iter().max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
                let hint = nearest.filter(|n| strsim::jaro_winkler(n, key) > 0.75);
                let hint = match key.as_str() {
                    "threads" | "resume" | "overwrite" => "; it is a flag only".to_owned(),
                    _ => hint.map_or(String::new(), |n| format!("; did you mean `{n}`?")),
                };
                bail!("{}:{line}: unknown key `{key}`{hint}", path.display());
            }
        }
        toml::from_str(&text).map_err(|e| {
            let line = e.span().map_or(1, |s| at(s.start));
            anyhow::anyhow!("{}:{line}: {}", path.display(), e.message().replace('\n', ", "))
        })
    }

    /// These settings, and where they are silent, `other`'s.
    pub fn or(self, other: Self) -> Self {
        macro_rules! either { ($($field:ident)*) => { Self { $($field: self.$field.or(other.$field)),* } } }
        either!(model data heldout output tokenizer hidden layers heads vocab epochs steps batch tokens length overflow
            lr warmup schedule weight_decay beta1 beta2 clip seed device recompute bf16 save_every keep log_every skip_bad_rows)
    }

    /// Decides every setting: the paper's values for a given model, a preset for a new one.
    pub fn decide(self) -> anyhow::Result<Run> {
        let fresh = self.model.is_none();
        let demo = self.data.is_none();
        if !fresh && [self.hidden, self.layers, self.heads, self.vocab].iter().any(Option::is_some) {
            bail!("--hidden, --layers, --heads and --vocab shape a new model: they cannot go with --model");
        }
        if !fresh && demo {
            bail!("--model needs --data: instruction files to train on");
        }
        if demo && (self.heldout.is_some() || self.skip_bad_rows.is_some()) {
            bail!("--heldout and --skip-bad-rows need --data: without it the demo shop is trained on");
        }
        let size = if demo { DEMO } else { SMALL };
        let new_model = fresh.then(|| NewModel {
            hidden: self.hidden.unwrap_or(size.hidden),
            layers: self.layers.unwrap_or(size.layers),
            heads: self.heads.unwrap_or(size.heads),
            vocab: self.vocab.unwrap_or(size.vocab),
        });
        let output = self.output.unwrap_or_else(|| if demo { "runs/demo".into() } else { "runs/train".into() });
        let run = Run {
            model: self.model,
            data: self.data.unwrap_or_default(),
            heldout: self.heldout,
            output,
            tokenizer: self.tokenizer,
            device: self.device.unwrap_or_default(),
            recompute: self.recompute.unwrap_or(RecomputeChoice::Auto),
            save_every: self.save_every.unwrap_or(200),
            keep: self.keep.unwrap_or(2),
            log_every: self.log_every.unwrap_or(10),
            skip_bad_rows: self.skip_bad_rows.unwrap_or(0),
            recipe: Recipe {
                new_model,
                epochs: self.epochs.unwrap_or(3),
                steps: self.steps,
                batch: self.batch.unwrap_or(if demo {
                    8
                } else if fresh {
                    32
                } else {
                    128
                }),
                tokens: self.tokens.unwrap_or(4096),
                length: self.length.unwrap_or(1024),
                overflow: self.overflow.unwrap_or(OverflowChoice::Drop),
                lr: self.lr.unwrap_or(if demo {
                    3e-3
                } else if fresh {
                    2e-3
                } else {
                    2e-5
                }),
                warmup: self.warmup.unwrap_or(0.03),
                schedule: self.schedule.unwrap_or(ScheduleChoice::Cosine),
                weight_decay: self.weight_decay.unwrap_or(if fresh { 0.01 } else { 0.0 }),
                beta1: self.beta1.unwrap_or(0.9),
                beta2: self.beta2.unwrap_or(if fresh { 0.98 } else { 0.999 }),
                clip: self.clip.unwrap_or(1.0),
                seed: self.seed.unwrap_or(0),
                bf16: self.bf16.unwrap_or(false),
            },
        };
        run.check()?;
        Ok(run)
    }
}

/// Found by trial on two cores: small steps, many of them, teach copying and classifying within minutes.
const DEMO: NewModel = NewModel { hidden: 128, layers: 4, heads: 4, vocab: 2048 };
const SMALL: NewModel = NewModel { hidden: 384, layers: 6, heads: 6, vocab: 16384 };

impl Run {
    fn check(&self) -> anyhow::Result<()> {
        let r = &self.recipe;
        for (name, value) in [
            ("epochs", r.epochs),
            ("steps", r.steps.unwrap_or(1)),
            ("batch", r.batch as u64),
            ("tokens", r.tokens as u64),
            ("log-every", self.log_every),
            ("keep", self.keep as u64),
        ] {
            if value == 0 {
                bail!("{name}: wanted at least 1, found 0");
            }
        }
        if r.length < 2 {
            bail!("length: wanted at least 2, found {}", r.length);
        }
        let range = |name: &str, value: f32, low: f32, high: f32| {
            if value >= low && value <= high { Ok(()) } else { bail!("{name}: wanted {low} to {high}, found {value}") }
        };
        range("lr", r.lr, 0.0, 1.0)?;
        range("warmup", r.warmup, 0.0, 1.0)?;
        range("weight-decay", r.weight_decay, 0.0, 1.0)?;
        range("beta1", r.beta1, 0.0, 0.999_999)?;
        range("beta2", r.beta2, 0.0, 0.999_999_9)?;
        range("clip", r.clip, 0.0, f32::MAX)?;
        if let Some(m) = r.new_model {
            bloom::Config::new(m.hidden, m.layers, m.heads, m.vocab)?;
            if !(300..=1_000_000).contains(&m.vocab) {
                let least = "300 (256 bytes, 4 special tokens and some merges)";
                bail!("vocab: wanted from {least} to 1,000,000, found {}", m.vocab);
            }
        }
        Ok(())
    }
}

/// The names of all settings, as the file spells them.
fn known_keys() -> Vec<String> {
    #[derive(clap::Parser)]
    struct All {
        #[command(flatten)]
        _settings: Settings,
    }
    let command = All::command();
    command.get_arguments().map(|a| a.get_id().to_string()).filter(|id| id != "help").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Settings> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.toml");
        std::fs::write(&path, text).unwrap();
        Settings::read(&path)
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_defaults() {
        let file = read("lr = 1e-3\nbatch = 7\ndata = [\"x.jsonl\"]\nweight_decay = 0.5").unwrap();
        let flags = Settings { batch: Some(9), ..Settings::default() };
        let run = flags.or(file).decide().unwrap();
        assert_eq!((run.recipe.batch, run.recipe.lr, run.recipe.weight_decay), (9, 1e-3, 0.5));
        assert_eq!((run.recipe.length, run.recipe.epochs), (1024, 3));
    }

    #[test]
    fn the_papers_values_hold_for_a_given_model() {
        let s = Settings { model: Some("m".into()), data: Some(vec!["d".into()]), ..Settings::default() };
        let r = s.decide().unwrap().recipe;
        assert_eq!((r.lr, r.weight_decay, r.warmup, r.batch, r.length, r.epochs), (2e-5, 0.0, 0.03, 128, 1024, 3));
        assert_eq!((r.beta1, r.beta2, r.schedule), (0.9, 0.999, ScheduleChoice::Cosine));
    }

    #[test]
    fn wrong_files_name_the_line_and_the_likely_key() {
        for (text, wanted) in [
            ("lr = 1\n\nbacth = 3", ":3: unknown key `bacth`; did you mean `batch`?"),
            ("zzz = 1", ":1: unknown key `zzz`"),
            ("lr = \"x\"", ":1: invalid type"),
            ("batch = -1", ":1: invalid value"),
            ("a b", ":1: "),
            ("schedule = \"cosin\"", "unknown variant `cosin`"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(wanted) && !message.contains('\n'), "{text}: {message}");
        }
        assert!(Settings { clip: Some(f32::NAN), ..Settings::default() }.decide().is_err());
    }
}
