//! `ecom generate`: one instruction from the command line, or a file of them.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::bail;
use bloom::{Bloom, Decoding, Dtype, Finish, Generation, Plan, PlanFor, Sizes};
use clap::Args;
use ecominstruct::instruction::Instruction;
use ecominstruct::prompt;
use kernels::sample::Sampling;
use serde_json::json;
use tensor::Device;

use crate::device::{self, DeviceChoice};
use crate::failure::visible;
use crate::memory;
use crate::report::Progress;
use crate::text::{Stream, Text};

mod questions;

/// Where `ecom train` without arguments leaves its model.
pub const DEMO_MODEL: &str = "runs/demo/model";

/// Arguments of `ecom generate`.
#[derive(Args, Debug)]
pub struct GenerateArgs {
    /// The question, put in the layout that training uses
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    prompt: Option<String>,
    /// The text that the question is about: a title, a review, a dialogue
    #[arg(long, value_name = "TEXT", default_value = "", conflicts_with_all = ["from", "raw"])]
    input: String,
    /// The task's name, for the first line of the prompt
    #[arg(long, value_name = "TEXT", default_value = "", conflicts_with_all = ["from", "raw"])]
    task: String,
    /// Give the model the question as it is, without the layout
    #[arg(long, conflicts_with = "from")]
    raw: bool,
    /// JSON Lines with instructions in EcomInstruct, Alpaca or messages form, or {"text": …} for raw prompts; `-` is stdin
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// JSON Lines with the answers [default: stdout]
    #[arg(long, value_name = "FILE", requires = "from", conflicts_with = "prompt")]
    to: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    decoding: DecodingArgs,
    /// Answers for each prompt
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1)]
    answers: usize,
    /// Text that ends an answer and is left out of it; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

/// Which model, and how it is held.
#[derive(Args, Debug)]
pub struct ModelArgs {
    /// Model folder [default: runs/demo/model, which `ecom train` makes]
    #[arg(long, short, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Tokenizer folder or tokenizer.json [default: the model's]
    #[arg(long, value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
    /// Where to compute
    #[arg(long, value_name = "WHERE", default_value = "cpu")]
    pub device: DeviceChoice,
    /// Hold the weights as: stored (bf16, f32, quantised; f16 becomes f32), f32, bf16
    #[arg(long, value_name = "DTYPE", default_value = "stored", value_parser = ["stored", "f32", "bf16"])]
    pub dtype: String,
}

/// How tokens are chosen.
#[derive(Args, Debug)]
pub struct DecodingArgs {
    /// New tokens at most
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_new_tokens: usize,
    /// Draw at random, at this temperature; without it and the next three, the likeliest token is taken
    #[arg(long, value_name = "X", conflicts_with = "beams")]
    pub temperature: Option<f32>,
    /// Draw among the K likeliest tokens
    #[arg(long, value_name = "K", conflicts_with = "beams")]
    pub top_k: Option<usize>,
    /// Draw among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", conflicts_with = "beams")]
    pub top_p: Option<f32>,
    /// Draw among tokens at least this likely, relative to the likeliest
    #[arg(long, value_name = "P", conflicts_with = "beams")]
    pub min_p: Option<f32>,
    /// Search with this many beams instead
    #[arg(long, value_name = "N")]
    pub beams: Option<usize>,
    /// Power of the length that a beam's log-probability is divided by
    #[arg(long, value_name = "X", default_value_t = 1.0, requires = "beams", allow_negative_numbers = true)]
    pub length_penalty: f32,
    /// Over 1: tokens that were said already become less likely
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub repetition_penalty: f32,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Sequences that run side by side; the answers do not depend on it
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub batch: usize,
}

impl ModelArgs {
    /// Loads the model and its tokenizer, after the memory was planned for sequences of `tokens`.
    pub fn load(&self, batch: usize, tokens: usize) -> anyhow::Result<(Bloom, Text)> {
        self.load_for(|sizes| PlanFor::Generation { batch, tokens, sizes })
    }

    /// The same, planned for a job, given the bytes of numbers.
    pub fn load_for(&self, job: impl Fn(Sizes) -> PlanFor) -> anyhow::Result<(Bloom, Text)> {
        let folder = match &self.model {
            Some(folder) => folder.as_path(),
            None if Path::new(DEMO_MODEL).is_dir() => Path::new(DEMO_MODEL),
            None => bail!("no model: name one with --model, or make the demo's with `ecom train`"),
        };
        let dtype = match self.dtype.as_str() {
            "f32" => Dtype::F32,
            "bf16" => Dtype::Bf16,
            _ => Dtype::Stored,
        };
        let config = bloom::Config::read(&folder.join("config.json"))?;
        // Stored weights are views of the file, which the system can drop; only a conversion must fit in memory.
        let device = self.device.open()?;
        let [weight, cached] = match dtype {
            Dtype::F32 => [4, 4],
            Dtype::Bf16 => [2, 2],
            Dtype::Stored if config.quantized().is_some() && device == Device::Cpu => [1, 2],
            // They may be f32.
            Dtype::Stored => [2, 4],
        };
        let plan = Plan::new(&config, job(Sizes { weight, cached }), device::memory_of(&device));
        memory::must_fit(&plan, device::available(&device), "--dtype bf16, a smaller --batch, or a smaller model")?;
        // Side by side: a tokenizer of 250,000 tokens takes as long to read as a model's weights to look through.
        let tokenizer = self.tokenizer.as_deref().unwrap_or(folder);
        let (text, model) = rayon::join(|| Text::load(tokenizer), || Bloom::load(folder, dtype));
        let (text, model) = (text?, model?);
        if text.len() > model.vocab() {
            let (tokens, rows) = (text.len(), model.vocab());
            bail!(
                "{}: the tokenizer has {tokens} tokens, but the model only {rows} rows in its vocabulary",
                folder.display()
            );
        }
        Ok((model.to_device(&device)?, text))
    }
}

/// Answers to one prompt at most: the draws of each have a stream of their own, numbered in 20 bits.
const MOST_ANSWERS: usize = 1 << 20;

impl DecodingArgs {
    /// Refuses numbers that make no sense before anything is loaded for them.
    ///
    /// # Errors
    /// No batch; no answers, or more than can be told apart.
    pub fn check(&self, answers: usize) -> anyhow::Result<()> {
        if self.batch == 0 {
            bail!("batch: wanted at least 1, found 0");
        }
        if !(1..=MOST_ANSWERS).contains(&answers) {
            bail!("answers: wanted 1 to {MOST_ANSWERS}, found {answers}");
        }
        Ok(())
    }

    /// Sequences that are held at a time: a batch, or all answers to one prompt where those are more.
    pub fn side_by_side(&self, answers: usize) -> usize {
        self.batch.max(answers).max(self.beams.unwrap_or(0))
    }

    /// The settings for `model`'s generation.
    pub fn settings(&self, text: &Text, answers: usize) -> Generation {
        let draws = self.temperature.is_some() || self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some();
        let decoding = match self.beams {
            Some(beams) => Decoding::Beam { beams, length_penalty: self.length_penalty },
            None if draws => Decoding::Sample(Sampling {
                temperature: self.temperature.unwrap_or(1.0),
                top_k: self.top_k.unwrap_or(0),
                top_p: self.top_p.unwrap_or(1.0),
                min_p: self.min_p.unwrap_or(0.0),
                ..Sampling::default()
            }),
            None => Decoding::Greedy,
        };
        Generation {
            decoding,
            answers,
            max_new_tokens: self.max_new_tokens,
            eos: text.eos(),
            limit: text.len(),
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            first: 0,
            batch: self.batch,
        }
    }
}

/// Runs `ecom generate`.
pub fn run(args: &GenerateArgs) -> anyhow::Result<()> {
    if args.stop.iter().any(String::is_empty) {
        bail!("--stop: wanted some text, found none");
    }
    args.decoding.check(args.answers)?;
    match &args.from {
        Some(from) => answer_file(args, from),
        None => answer_one(args),
    }
}

impl GenerateArgs {
    /// The model, its tokenizer and the settings, for prompts of at most `longest` bytes.
    fn load(&self, longest: usize) -> anyhow::Result<(Bloom, Text, Generation)> {
        let tokens = longest.min(2048).saturating_add(self.decoding.max_new_tokens);
        let (model, text) = self.model.load(self.decoding.side_by_side(self.answers), tokens)?;
        let settings = self.decoding.settings(&text, self.answers);
        Ok((model, text, settings))
    }
}

/// The prompt of the command line, answered on stdout: piece by piece where that is a terminal.
fn answer_one(args: &GenerateArgs) -> anyhow::Result<()> {
    let prompt = args.prompt.clone().unwrap_or_default();
    let (input, description) = (args.input.clone(), args.task.clone());
    let question = if args.raw {
        prompt
    } else {
        prompt::render(&Instruction { prompt, input, description, ..Instruction::default() }).prompt
    };
    let (model, text, settings) = args.load(question.len())?;
    let live = args.answers == 1 && args.decoding.beams.is_none() && std::io::stdout().is_terminal();
    let mut answers: Vec<Answer> = (0..args.answers).map(|_| Answer::new(&text, &args.stop)).collect();
    let mut failed = None;
    let completions = model.generate(&[text.encode(&question)?], &settings, &mut |_, answer, id| {
        let a = &mut answers[answer];
        let piece = a.push(id);
        if live && let Err(e) = show(&piece) {
            failed = Some(e);
            return false;
        }
        !a.stopped
    })?;
    device::tell_of_graphs(model.device());
    if let Some(e) = failed {
        return Err(e.into());
    }
    if live {
        show(&answers[0].finish())?;
        return Ok(show("\n")?);
    }
    let mut out = Vec::new();
    for (n, c) in completions.iter().flatten().enumerate() {
        if args.answers > 1 {
            writeln!(out, "--- answer {}", n + 1)?;
        }
        writeln!(out, "{}", cut(&text.decode(&c.ids), &args.stop).0)?;
    }
    Ok(std::io::stdout().write_all(&out)?)
}

/// The questions of a file, answered in JSON Lines.
fn answer_file(args: &GenerateArgs, from: &Path) -> anyhow::Result<()> {
    if let Some(to) = &args.to {
        can_write(to)?;
    }
    let questions = questions::read(from)?;
    let (model, text, mut settings) = args.load(questions.iter().map(|q| q.text.len()).max().unwrap_or(0))?;
    let prompts = questions.iter().map(|q| text.encode(&q.text)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut progress = Progress::new("prompts", 0, questions.len() as u64);
    let name = visible(&from.display().to_string());
    let mut out = Vec::new();
    // A few batches at a time, so that progress shows; how prompts are grouped changes no answer.
    let together = (args.decoding.batch.saturating_mul(4) / args.answers).max(1);
    for (questions, prompts) in questions.chunks(together).zip(prompts.chunks(together)) {
        let mut answers: Vec<Vec<Answer>> =
            questions.iter().map(|_| (0..args.answers).map(|_| Answer::new(&text, &args.stop)).collect()).collect();
        let completions = model.generate(prompts, &settings, &mut |prompt, answer, id| {
            let a = &mut answers[prompt][answer];
            a.push(id);
            !a.stopped
        })?;
        for (question, completions) in questions.iter().zip(&completions) {
            for (n, c) in completions.iter().enumerate() {
                let (answer, stopped) = cut(&text.decode(&c.ids), &args.stop);
                let finish = match c.finish {
                    _ if stopped => "stop",
                    Finish::Eos => "eos",
                    Finish::Length => "length",
                    Finish::Stopped => "stop",
                };
                let mut line = json!({ "id": question.id, "output": answer, "finish": finish, "tokens": c.ids.len() });
                if args.answers > 1 {
                    line["answer"] = json!(n + 1);
                }
                if let Some(score) = c.score {
                    line["score"] = json!(score);
                }
                writeln!(out, "{line}")?;
            }
        }
        settings.first += prompts.len() as u64;
        progress.at(settings.first, &name);
    }
    progress.finish();
    device::tell_of_graphs(model.device());
    match &args.to {
        Some(path) => Ok(tensor::durable::write(path, |file| file.write_all(&out))?),
        None => Ok(std::io::stdout().write_all(&out)?),
    }
}

/// Refuses a place where no file can be written, before the work that it is for. What is there stays as it is.
///
/// # Errors
/// What [`tensor::durable::write`] would say.
pub fn can_write(path: &Path) -> anyhow::Result<()> {
    let mut reached = false;
    let tried = tensor::durable::write(path, |_| {
        reached = true;
        Err(std::io::Error::other("only tried"))
    });
    if reached { Ok(()) } else { Ok(tried?) }
}

fn show(piece: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(piece.as_bytes())?;
    out.flush()
}

/// Cuts an answer at the first stop text.
fn cut(answer: &str, stops: &[String]) -> (String, bool) {
    match stops.iter().filter_map(|s| answer.find(s.as_str())).min() {
        Some(at) => (answer[..at].to_string(), true),
        None => (answer.to_string(), false),
    }
}

/// An answer as it grows: what may be shown of it, and whether a stop text came.
struct Answer<'a> {
    stream: Option<Stream<'a>>,
    stops: &'a [String],
    text: String,
    shown: usize,
    stopped: bool,
}

impl<'a> Answer<'a> {
    fn new(text: &'a Text, stops: &'a [String]) -> Self {
        Self { stream: Some(text.stream()), stops, text: String::new(), shown: 0, stopped: false }
    }

    /// Takes a token; returns what can be shown now. Text that may be the start of a stop text is held back.
    fn push(&mut self, id: u32) -> String {
        if let Some(piece) = self.stream.as_mut().and_then(|s| s.push(id)) {
            self.text.push_str(&piece);
        }
        let (kept, stopped) = cut(&self.text, self.stops);
        if stopped {
            self.stopped = true;
            self.text = kept;
            return self.rest(self.text.len());
        }
        let held = (1..=self.text.len())
            .rev()
            .filter(|&n| self.text.is_char_boundary(self.text.len() - n))
            .find(|&n| self.stops.iter().any(|s| s.starts_with(&self.text[self.text.len() - n..])))
            .unwrap_or(0);
        self.rest(self.text.len() - held)
    }

    /// The end of the text, once no token follows.
    fn finish(&mut self) -> String {
        if !self.stopped {
            let last = self.stream.take().and_then(Stream::finish);
            self.text.push_str(last.as_deref().unwrap_or_default());
            self.text = cut(&self.text, self.stops).0;
        }
        self.rest(self.text.len())
    }

    fn rest(&mut self, to: usize) -> String {
        let to = to.max(self.shown.min(self.text.len()));
        let piece = self.text[self.shown.min(to)..to].to_string();
        self.shown = to;
        piece
    }
}
