//! `ecom quantize`: a model with its matrices in 8 or 4 bits, and what that does to it.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use bloom::{Bloom, Dtype};
use clap::{ArgGroup, Args};
use ecominstruct::eval_set;
use ecominstruct::pack::Example;
use tensor::DType;
use tensor::durable::Folder;

use crate::eval::Answering;
use crate::generate::{DEMO_MODEL, DecodingArgs};
use crate::memory::{size, thousands};
use crate::report::say;
use crate::settings::OverflowChoice;
use crate::text::Text;
use crate::{data, eval};

/// Arguments of `ecom quantize`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("measures").multiple(true))]
pub struct QuantizeArgs {
    /// Model folder [default: runs/demo/model, which `ecom train` makes]
    #[arg(long, short, value_name = "DIR", default_value = DEMO_MODEL, hide_default_value = true)]
    model: PathBuf,
    /// Folder for the quantised model, which must not be there
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Bits of a weight: 8, nearly without loss, or 4
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(4..=8))]
    bits: u8,
    /// Instruction file (.jsonl) that the weights are fitted to, best of what the model is for: 8,192 tokens from all over it
    #[arg(long, value_name = "FILE", group = "measures")]
    calibrate: Option<PathBuf>,
    /// Instruction file (.jsonl) to measure loss and scores with, before and after; may be given several times
    #[arg(long, value_name = "FILE", group = "measures")]
    verify: Vec<PathBuf>,
    /// Take only the first N instructions of each
    #[arg(long, value_name = "N", requires = "verify")]
    limit: Option<usize>,
    /// Tokens of an instruction at most; longer prompts lose their beginning
    #[arg(long, value_name = "N", default_value_t = 1024, requires = "measures")]
    length: usize,
    #[command(flatten)]
    decoding: DecodingArgs,
}

/// Tokens of a row in which losses are taken.
const ROW: usize = 2048;
/// Tokens that weights are fitted to, at most: a block's activations of all of them are held at once.
const FITTED: usize = 8192;

/// Runs `ecom quantize`.
pub fn run(args: &QuantizeArgs) -> anyhow::Result<()> {
    let format = match args.bits {
        8 => DType::Q8,
        4 => DType::Q4,
        other => bail!("--bits: wanted 8 or 4, found {other}"),
    };
    args.decoding.check(1)?;
    if args.output.exists() {
        bail!("{}: it is there already; name another --output", args.output.display());
    }
    let fitted = args.calibrate.as_deref().map(|path| data::read(path, 0)).transpose()?;
    let files = args.verify.iter().map(|path| File::read(path, args)).collect::<anyhow::Result<Vec<_>>>()?;
    let text = Text::load(&args.model)?;
    let model = Bloom::load(&args.model, Dtype::Stored)?;
    if let Some(found) = model.quantized() {
        bail!("{}: its weights are in {found} already; quantise what they were made of", args.model.display());
    }
    let before = files.iter().map(|f| f.measure(&model, &text, args)).collect::<anyhow::Result<Vec<_>>>()?;
    let bytes = |model: &Bloom| model.params().iter().map(|p| p.value.size() as u64).sum::<u64>();
    let was = bytes(&model);
    let model = match fitted {
        Some(rows) => {
            let examples = data::encode(&rows, &text, args.length, OverflowChoice::TruncatePrompt)?.examples;
            let some = spread(&examples);
            if some.is_empty() {
                bail!("--calibrate: wanted instructions of up to {FITTED} tokens, found none");
            }
            let batch = data::batch(some.iter().copied())?;
            say(&format!("fitting to {} instructions, {} tokens", some.len(), thousands(batch.ids.len() as u64)));
            model.quantize_for(format, &batch.ids, &batch.bounds)?
        }
        None => model.quantize(format)?,
    };
    let folder = Folder::new(&args.output)?;
    model.save(folder.path())?;
    text.save(folder.path())?;
    // What is measured is what was written.
    let model = Bloom::load(folder.path(), Dtype::Stored)?;
    folder.commit()?;
    say(&format!("{}: {} of weights, from {}", args.output.display(), size(bytes(&model)), size(was)));
    if files.is_empty() {
        return Ok(());
    }
    let after = files.iter().map(|f| f.measure(&model, &text, args)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut out = std::io::stdout();
    writeln!(out, "{:<32} {:>7} {:>12} {:>12} {:>8}  {:>7} {:>7}", "", "", "perplexity", "", "", "strict", "")?;
    let names = ["file", "rows", "before", "after", "change", "before", "after"];
    let [file, rows, b, a, change, score_b, score_a] = names;
    writeln!(out, "{file:<32} {rows:>7} {b:>12} {a:>12} {change:>8}  {score_b:>7} {score_a:>7}")?;
    for ((file, before), after) in files.iter().zip(before).zip(after) {
        let (was, is) = (before.loss.exp(), after.loss.exp());
        writeln!(
            out,
            "{:<32} {:>7} {was:>12.4} {is:>12.4} {:>+7.2}%  {:>7.2} {:>7.2}",
            file.name,
            thousands(file.rows.len() as u64),
            100.0 * (is / was - 1.0),
            before.score,
            after.score
        )?;
    }
    Ok(())
}

/// Examples from all over the file, of [`FITTED`] tokens together at most.
fn spread(examples: &[Example]) -> Vec<&Example> {
    let tokens = |e: &Example| e.prompt.len() + e.response.len();
    let step = examples.iter().map(tokens).sum::<usize>().div_ceil(FITTED).max(1);
    let mut left = FITTED;
    let fits = |e: &&Example| {
        let fits = tokens(e) <= left;
        left -= if fits { tokens(e) } else { 0 };
        fits
    };
    examples.iter().step_by(step).filter(fits).collect()
}

/// A file to measure with.
struct File {
    name: String,
    rows: Vec<ecominstruct::instruction::Instruction>,
    sets: Vec<eval_set::EvalSet>,
}

/// What a model makes of a file.
struct Measured {
    /// In nats, over the tokens of the answers.
    loss: f64,
    /// The strict score, mean over the file's sets.
    score: f64,
}

impl File {
    fn read(path: &Path, args: &QuantizeArgs) -> anyhow::Result<Self> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut rows = data::read(path, 0)?;
        let mut sets = eval_set::read_all(&[path.to_path_buf()], 0)?;
        if let Some(limit) = args.limit {
            rows.truncate(limit);
            sets.iter_mut().for_each(|s| s.items.truncate(limit));
        }
        if rows.is_empty() {
            bail!("{}: --limit leaves no instruction", path.display());
        }
        Ok(Self { name, rows, sets })
    }

    fn measure(&self, model: &Bloom, text: &Text, args: &QuantizeArgs) -> anyhow::Result<Measured> {
        let examples: Vec<Example> =
            data::encode(&self.rows, text, args.length, OverflowChoice::TruncatePrompt)?.examples;
        let loss = data::mean_loss(model, &examples, ROW)?;
        let answering = Answering { model, text, decoding: &args.decoding, prompt_tokens: args.length };
        let answers = answering.freely(&self.sets)?;
        let results = eval::score(&self.sets, &answers, 0)?;
        let score = results.iter().map(|r| r.model().strict.headline).sum::<f64>() / results.len().max(1) as f64;
        Ok(Measured { loss, score })
    }
}
