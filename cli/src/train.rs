//! `ecom train`: from instruction files, or the demo shop, to a trained model.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use autograd::{Curve, Schedule};
use bloom::{Bloom, Config, Dtype, Plan, PlanFor, Recompute, Trainer};
use clap::Args;
use ecominstruct::instruction::Instruction;
use ecominstruct::pack::{self, Example};
use kernels::linear::Products;
use kernels::sample::Philox;
use sha2::{Digest, Sha256};
use tensor::Device;
use tensor::durable::{self, Folder};

use crate::checkpoint::{self, Found, State};
use crate::data;
use crate::demo;
use crate::device;
use crate::failure::{self, Failure};
use crate::memory;
use crate::on_a_worker;
use crate::report::{Entry, Log, Progress, say};
use crate::settings::{Recipe, RecomputeChoice, Run, ScheduleChoice, Settings};
use crate::signals::Signals;
use crate::text::Text;

/// Arguments of `ecom train`.
#[derive(Args, Debug)]
pub struct TrainArgs {
    /// TOML file with any of these settings (`weight_decay = 0.1`); flags beat it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Go on from the newest checkpoint in the output folder, bit for bit; the model is the checkpoint's, not --model's
    #[arg(long)]
    resume: bool,
    /// Replace what an earlier run left in the output folder
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Stream of the generator that orders the data; the weights' streams are the small numbers.
const ORDER: u64 = 1 << 40;

/// What training learns from.
struct Material {
    text: Text,
    examples: Vec<Example>,
    heldout: Vec<Example>,
    /// SHA-256 of all tokens in order.
    sha256: String,
}

/// Runs `ecom train`; the exit code is 0, or a signal's.
pub fn run(args: TrainArgs) -> anyhow::Result<u8> {
    let started = Instant::now();
    let file = args.config.as_deref().map(Settings::read).transpose()?.unwrap_or_default();
    let run = args.settings.or(file).decide()?;
    // Before all that takes time.
    let device = run.device.open()?;
    let demo = run.data.is_empty();
    // A folder that is not there yet is made once there is something to put into it; the demo's data are that at once.
    let early = demo || run.output.is_dir();
    let old = early.then(|| Place::take(&run, args.resume, args.overwrite)).transpose()?;
    let shop = match demo {
        true if args.resume && demo::Demo::is_built(&run.output) => Some(demo::Demo::read(&run.output)?),
        true => Some(demo::Demo::build(&run.output, run.recipe.seed)?),
        false => None,
    };
    let material = gather(&run, shop.as_ref())?;
    let place = old.map_or_else(|| Place::take(&run, args.resume, args.overwrite), Ok)?;
    let found = if args.resume { checkpoint::latest(&run.output, |w| say(&format!("warning: {w}")))? } else { None };
    if let Some(found) = &found {
        found.must_fit(&run.recipe, &material.sha256)?;
        say(&format!("resuming from {}", found.folder.display()));
    } else if let (true, Some(first)) = (args.resume, place.work()) {
        bail!("{}: no checkpoint beside it is whole; start again with --overwrite", first.display());
    } else if args.resume {
        say("no checkpoint yet: starting from the beginning");
    }
    let (trainer, schedule) = start(&run, &device, &material, found.as_ref())?;
    if found.is_none() {
        place.clear()?;
    }
    if demo {
        demo::Demo::unfinish(&run.output)?;
    }
    // Until here a signal ends the program at once; nothing would be lost by it.
    let signals = Signals::listen()?;
    let mut job = Job { run: &run, material: &material, trainer, schedule, signals: &signals };
    if let Some(code) = on_a_worker(|| job.train())? {
        return Ok(code);
    }
    let model = job.trainer.into_model();
    let folder = save_model(&run.output, &model, &material.text)?;
    say(&format!("model: {} ({:.0} s)", folder.display(), started.elapsed().as_secs_f64()));
    if let Some(shop) = shop {
        on_a_worker(|| shop.report(&model, &material.text, &run.output))?;
    }
    Ok(signals.exit_code().unwrap_or(0))
}

/// The output folder, locked.
struct Place {
    _lock: File,
    /// What an earlier run left there.
    earlier: Vec<PathBuf>,
}

impl Place {
    /// Makes the output folder, takes its lock, and refuses to mix with an earlier run unless told to.
    fn take(run: &Run, resume: bool, overwrite: bool) -> anyhow::Result<Self> {
        let output = run.output.as_path();
        std::fs::create_dir_all(output).map_err(tensor::Error::io("create the folder", output))?;
        let path = output.join(".lock");
        let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut lock = open.map_err(tensor::Error::io("create", &path))?;
        if lock.try_lock().is_err() {
            let pid = std::fs::read_to_string(&path).unwrap_or_default();
            let message = format!("{}: another process is training here (pid {})", output.display(), pid.trim());
            return Err(Failure { code: failure::LOCKED, message }.into());
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(tensor::Error::io("write", &path))?;
        durable::sweep(output)?;
        let mut earlier = Vec::new();
        for entry in std::fs::read_dir(output)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("checkpoint-") || ["model", "log.jsonl", "tensorboard"].contains(&name.as_str()) {
                earlier.push(entry.path());
            }
        }
        earlier.sort();
        // A finished demo is made anew without asking: it is the same again.
        let demo = run.data.is_empty() && output.join(demo::LAST_FILE).is_file();
        if let Some(first) = earlier.first().filter(|_| !resume && !overwrite && !demo) {
            bail!(
                "{} is there from an earlier run: go on with --resume, replace it with --overwrite, or name another --output",
                first.display()
            );
        }
        let place = Self { _lock: lock, earlier };
        if !resume {
            let mut inputs = run.data.iter().chain(&run.model).chain(&run.tokenizer).chain(&run.heldout);
            if let Some((input, old)) = inputs.find_map(|input| Some((input, place.holds(input)?))) {
                bail!("{}: --overwrite would remove it with {}; name another --output", input.display(), old.display());
            }
        }
        Ok(place)
    }

    /// The first checkpoint or model of the earlier run; a run that was stopped before its first checkpoint has neither.
    fn work(&self) -> Option<&PathBuf> {
        let name = |p: &PathBuf| p.file_name().is_some_and(|n| n != "log.jsonl" && n != "tensorboard");
        self.earlier.iter().find(|p| name(p))
    }

    /// What of the earlier run a path is or lies in.
    fn holds(&self, path: &Path) -> Option<&PathBuf> {
        let path = path.canonicalize().ok()?;
        self.earlier.iter().find(|old| old.canonicalize().is_ok_and(|old| path.starts_with(old)))
    }

    /// Removes what an earlier run left, now that there is a model to train in its place.
    fn clear(&self) -> anyhow::Result<()> {
        for path in &self.earlier {
            let gone = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            gone.map_err(tensor::Error::io("remove", path))?;
        }
        Ok(())
    }
}

/// Reads the instructions, finds or trains the tokenizer, and turns text into tokens.
fn gather(run: &Run, shop: Option<&demo::Demo>) -> anyhow::Result<Material> {
    let (train, heldout): (Vec<Instruction>, Vec<Instruction>) = match shop {
        Some(shop) => (shop.train().to_vec(), Vec::new()),
        None => {
            let mut train = Vec::new();
            for path in &run.data {
                train.extend(data::read(path, run.skip_bad_rows)?);
            }
            let heldout = run.heldout.as_deref().map(|p| data::read(p, run.skip_bad_rows)).transpose()?;
            (train, heldout.unwrap_or_default())
        }
    };
    let text = match (&run.tokenizer, &run.model, run.recipe.new_model) {
        (Some(path), _, _) | (None, Some(path), _) => Text::load(path)?,
        (None, None, new) => {
            let vocab = new.map_or(0, |m| m.vocab);
            say(&format!("training a tokenizer of {vocab} tokens"));
            Text::train(train.iter().flat_map(data::texts), vocab)?
        }
    };
    let prepared = data::encode(&train, &text, run.recipe.length, run.recipe.overflow)?;
    say(&format!("data: {}", prepared.lengths));
    let heldout = if heldout.is_empty() {
        Vec::new()
    } else {
        let prepared = data::encode(&heldout, &text, run.recipe.length, run.recipe.overflow)?;
        say(&format!("held out: {}", prepared.lengths));
        prepared.examples
    };
    let mut hash = Sha256::new();
    for e in &prepared.examples {
        for part in [&e.prompt, &e.response] {
            hash.update((part.len() as u64).to_le_bytes());
            part.iter().for_each(|id| hash.update(id.to_le_bytes()));
        }
    }
    Ok(Material { text, examples: prepared.examples, heldout, sha256: checkpoint::hex(&hash.finalize()) })
}

/// Loads or makes the model, after its memory was planned.
fn start(
    run: &Run,
    device: &Device,
    material: &Material,
    found: Option<&Found>,
) -> anyhow::Result<(Trainer, Schedule)> {
    let r = &run.recipe;
    let source = found.map(|f| f.folder.as_path()).or(run.model.as_deref());
    let config = match (source, r.new_model) {
        (Some(folder), _) => Config::read(&folder.join("config.json"))?,
        (None, Some(m)) => Config::new(m.hidden, m.layers, m.heads, material.text.len().next_multiple_of(64))?,
        (None, None) => bail!("no model: name one with --model"),
    };
    if let (Some(folder), Some(format)) = (source, config.quantized()) {
        bail!("{}: its weights are in {format}: train what they were made of, and quantise again", folder.display());
    }
    let recompute = plan(&config, run, material, device)?;
    let mut model = match found {
        Some(found) => found.model()?,
        None => match &run.model {
            Some(folder) => Bloom::load(folder, Dtype::Stored)?,
            None => Bloom::random(config, r.seed)?,
        },
    };
    let (tokens, rows) = (material.text.len(), model.vocab());
    if tokens > rows {
        bail!("the tokenizer has {tokens} tokens, but the model only {rows} rows in its vocabulary");
    }
    // The saved model must name the tokens that it was trained with, whichever tokenizer its start came with.
    model.set_special_ids(material.text.bos(), material.text.eos(), material.text.pad());
    let settings =
        autograd::Settings { beta1: r.beta1, beta2: r.beta2, eps: 1e-8, weight_decay: r.weight_decay, clip: r.clip };
    let mut trainer = Trainer::new(model, settings, recompute, device)?;
    if r.bf16 {
        if device == &Device::Cpu && !Products::has_bf16() {
            say("this processor multiplies bf16 no faster than f32: --bf16 changes nothing here");
        }
        trainer.set_products(Products::Bf16);
    }
    if let Some(found) = found {
        found.restore(&mut trainer)?;
    }
    let total = r.total_steps(material.examples.len());
    let warmup = (f64::from(r.warmup) * total as f64).ceil() as u64;
    let curve = match r.schedule {
        ScheduleChoice::Cosine => Curve::Cosine,
        ScheduleChoice::Linear => Curve::Linear,
        ScheduleChoice::Constant => Curve::Constant,
    };
    Ok((trainer, Schedule { peak: r.lr, warmup, total, curve }))
}

/// Prints the memory plan and decides about recomputation; an error if it cannot fit.
fn plan(config: &Config, run: &Run, material: &Material, device: &Device) -> anyhow::Result<Recompute> {
    let mut lengths: Vec<usize> = material.examples.iter().map(|e| e.prompt.len() + e.response.len()).collect();
    lengths.sort_unstable_by_key(|&n| std::cmp::Reverse(n));
    let (longest, all) = (lengths.first().copied().unwrap_or(0), lengths.iter().sum::<usize>());
    // A step has no more tokens than its instructions.
    let widest: usize = lengths.iter().take(run.recipe.batch).sum();
    let answers: usize = material.examples.iter().map(|e| e.response.len()).sum();
    let tokens = run.recipe.tokens.max(longest).min(widest);
    let targets = (tokens * answers).div_ceil(all.max(1));
    let job = |recompute| PlanFor::Training { tokens, targets, recompute };
    let of = |recompute| Plan::new(config, job(recompute), device::memory_of(device));
    let available = device::available(device);
    let recompute = match run.recompute {
        RecomputeChoice::Off => Recompute::Keep,
        RecomputeChoice::Auto if available.is_none_or(|a| of(Recompute::Keep).total() < a / 10 * 8) => Recompute::Keep,
        RecomputeChoice::On | RecomputeChoice::Auto => Recompute::Again,
    };
    let plan = of(recompute);
    let how = if recompute == Recompute::Again { "blocks recomputed" } else { "blocks kept" };
    say(&format!(
        "model: {} parameters ({} × {} layers, {} heads, vocabulary {}), {how}",
        memory::thousands(config.parameters() as u64),
        config.hidden,
        config.layers,
        config.heads,
        config.vocab
    ));
    if device != &Device::Cpu {
        say(&format!("device: {}", device::describe(device)));
    }
    say(&format!("memory: {}", memory::describe(&plan, available)));
    let advice = "fewer --tokens in a row, --recompute on, or a smaller model";
    memory::must_fit(&plan, available, advice)?;
    Ok(recompute)
}

fn save_model(output: &Path, model: &Bloom, text: &Text) -> anyhow::Result<PathBuf> {
    let target = output.join("model");
    let folder = Folder::new(&target)?;
    model.save(folder.path())?;
    text.save(folder.path())?;
    folder.commit_replacing()?;
    Ok(target)
}

impl Recipe {
    /// Optimiser steps of one pass over `n` instructions; the last one may be smaller.
    fn steps_per_epoch(&self, n: usize) -> u64 {
        n.div_ceil(self.batch) as u64
    }

    fn total_steps(&self, n: usize) -> u64 {
        let all = self.epochs.saturating_mul(self.steps_per_epoch(n));
        self.steps.map_or(all, |s| s.min(all))
    }
}

/// A run under way.
struct Job<'a> {
    run: &'a Run,
    material: &'a Material,
    trainer: Trainer,
    schedule: Schedule,
    signals: &'a Signals,
}

/// What one step did.
struct Done {
    loss: f64,
    lr: f32,
    grad_norm: f64,
    tokens: usize,
    targets: usize,
    seconds: f64,
}

impl Job<'_> {
    /// Takes the steps that are left. Returns a signal's exit code if one ended the run.
    fn train(&mut self) -> anyhow::Result<Option<u8>> {
        let total = self.schedule.total;
        let first = self.trainer.optimizer().steps();
        let mut log = Log::open(&self.run.output, first)?;
        let mut progress = Progress::new("step", first, total);
        for step in first + 1..=total {
            if let Some(code) = self.signals.exit_code() {
                let folder = self.save(step - 1)?;
                progress.line(&format!("stopped by a signal; {} saved, go on with --resume", folder.display()));
                return Ok(Some(code));
            }
            let done = self.step(step)?;
            let saves = self.run.save_every > 0 && step % self.run.save_every == 0;
            let logs = step % self.run.log_every == 0 || step == 1 || step == total;
            if logs || saves {
                let heldout = (saves || step == total) && !self.material.heldout.is_empty();
                let heldout_loss = if heldout { Some(self.heldout_loss()?) } else { None };
                log.write(&self.entry(step, &done, heldout_loss))?;
                if let Some(loss) = heldout_loss {
                    progress.line(&format!("step {step}: held-out loss {loss:.4}"));
                }
            }
            progress.at(
                step,
                &format!("loss {:.4} lr {:.2e} {:.0} tokens/s", done.loss, done.lr, done.tokens as f64 / done.seconds),
            );
            if saves && step != total {
                self.save(step)?;
            }
        }
        progress.finish();
        if first < total {
            self.save(total)?;
        }
        Ok(None)
    }

    fn entry(&self, step: u64, done: &Done, heldout_loss: Option<f64>) -> Entry {
        let per_epoch = self.run.recipe.steps_per_epoch(self.material.examples.len());
        Entry {
            step,
            epoch: step as f64 / per_epoch as f64,
            loss: done.loss,
            lr: done.lr,
            grad_norm: done.grad_norm,
            tokens_per_second: done.tokens as f64 / done.seconds,
            useful: done.targets as f64 / done.tokens as f64,
            heldout_loss,
        }
    }

    fn save(&self, step: u64) -> anyhow::Result<PathBuf> {
        let (recipe, data_sha256) = (self.run.recipe.clone(), self.material.sha256.clone());
        let state = State { step, recipe, data_sha256 };
        checkpoint::save(&self.run.output, &self.trainer, &self.material.text, &state, self.run.keep)
            .with_context(|| format!("cannot save the checkpoint of step {step}"))
    }

    /// One optimiser step: its instructions in packed rows, the loss over all their targets, the update.
    fn step(&mut self, step: u64) -> anyhow::Result<Done> {
        let started = Instant::now();
        let examples = &self.material.examples;
        let chosen = self.chosen(step);
        let targets: usize = chosen.iter().map(|&i| examples[i as usize].response.len()).sum();
        let scale = 1.0 / targets as f32;
        let mut loss = 0.0;
        let mut tokens = 0;
        for row in pack::micro_batches(examples, &chosen, self.run.recipe.tokens) {
            let row = &chosen[row];
            let batch = data::batch(row.iter().map(|&i| &examples[i as usize]))?;
            tokens += batch.ids.len();
            let losses = self.trainer.accumulate(&batch, scale)?;
            self.must_be_finite(step, row, &losses)?;
            loss += losses.iter().map(|&l| f64::from(l)).sum::<f64>();
        }
        let lr = self.schedule.rate(step);
        let norm = self.trainer.grad_norm()?;
        self.trainer.update(&norm, lr)?;
        // After the update, which does without it: on a GPU both are under way.
        let grad_norm = norm.value()?;
        if !grad_norm.is_finite() {
            bail!(
                "step {step}: the gradient is {grad_norm} though every loss is finite; rows {}; nothing was updated",
                self.names(&chosen)
            );
        }
        Ok(Done {
            loss: loss / targets as f64,
            lr,
            grad_norm,
            tokens,
            targets,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// The instructions of a step, from the order of its epoch.
    fn chosen(&self, step: u64) -> Vec<u32> {
        let r = &self.run.recipe;
        let n = self.material.examples.len();
        let (epoch, within) = ((step - 1) / r.steps_per_epoch(n), (step - 1) % r.steps_per_epoch(n));
        let order = Philox::new(r.seed, ORDER + epoch).permutation(n);
        let from = within as usize * r.batch;
        order[from..(from + r.batch).min(n)].to_vec()
    }

    fn must_be_finite(&self, step: u64, row: &[u32], losses: &[f32]) -> anyhow::Result<()> {
        if losses.iter().all(|l| l.is_finite()) {
            return Ok(());
        }
        let mut at = 0;
        let bad = row.iter().filter(|&&i| {
            let n = self.material.examples[i as usize].response.len();
            at += n;
            losses[at - n..at].iter().any(|l| !l.is_finite())
        });
        let bad: Vec<u32> = bad.copied().collect();
        bail!("step {step}: the loss is not a finite number; rows {}; nothing was updated", self.names(&bad))
    }

    fn names(&self, rows: &[u32]) -> String {
        let name = |&i: &u32| failure::visible(&self.material.examples[i as usize].id);
        let shown: Vec<String> = rows.iter().take(8).map(name).collect();
        let more = rows.len().saturating_sub(8);
        shown.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
    }

    /// The mean loss over the held-out targets; in main memory the saved model's, however training multiplies.
    fn heldout_loss(&self) -> anyhow::Result<f64> {
        let exact = (self.trainer.model().device() == &Device::Cpu).then(|| self.trainer.exact_model());
        let model = exact.as_ref().unwrap_or(self.trainer.model());
        data::mean_loss(model, &self.material.heldout, self.run.recipe.tokens)
    }
}
