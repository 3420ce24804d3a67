//! `ecom data build`: a recipe to a data folder that appears whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use ecominstruct::build::manifest::Manifest;
use ecominstruct::build::recipe::Recipe;
use ecominstruct::build::{self, Output};
use tensor::durable::{self, Folder};
use toml::{Table, Value};

use super::{parse, plain};
use crate::failure::visible;
use crate::memory::thousands;
use crate::report::{Progress, say};

/// Name under which the recipe is kept beside the data.
pub const SAVED: &str = "recipe.toml";

/// Examples for the help text.
pub const EXAMPLES: &str = "Examples:\n  \
    ecom data build --output demo                         the demo shop, which needs no raw data\n  \
    ecom data build --data data --output ecominstruct     the known data sets, in data/raw\n  \
    ecom data build shop.toml --output shop               your own recipe: CSV, TSV, JSON Lines or Parquet\n  \
    ecom data build shop.toml --output chat --format messages --cap 200 --seed 7";

/// Arguments of `ecom data build`.
#[derive(Args, Debug)]
pub struct BuildArgs {
    /// Recipe [default: the demo shop's; with --data, the one for the known data sets]
    recipe: Option<PathBuf>,
    /// Folder that the recipe's paths start from; without a recipe, it holds `raw` and `ecominstruct_eval` [default: the recipe's folder]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder for the instructions, manifest.json, README.md (a data card) and recipe.toml
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Replace an earlier build in the output folder
    #[arg(long)]
    overwrite: bool,
    /// Seed of all draws, in the place of the recipe's
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Most instructions of a task, source and language, 0 for no limit; in the place of the recipe's
    #[arg(long, value_name = "N")]
    cap: Option<usize>,
    /// Form of the training file
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Form::Instruct)]
    format: Form,
}

/// Form of the training file.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// Records with all that is known: JSON Lines
    Instruct,
    /// id, instruction, input, output: JSON Lines
    Alpaca,
    /// id, messages of user and assistant: JSON Lines
    Messages,
    /// Prompt, response and record: Parquet
    Parquet,
}

/// Runs `ecom data build`.
pub fn run(args: &BuildArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut read = match (&args.recipe, &args.data) {
        (Some(path), data) => load(path, data.as_deref())?,
        (None, Some(data)) => {
            let text = Recipe::builtin();
            let recipe = parse(text, "built-in recipe", data)?;
            Read { recipe, table: text.parse()?, folder: Some(data.clone()) }
        }
        (None, None) => Read::demo()?,
    };
    if let Some(seed) = args.seed {
        read.seed(seed)?;
    }
    if let Some(cap) = args.cap {
        read.recipe.cap = cap;
        read.table.insert("cap".into(), Value::Integer(i64::try_from(cap)?));
    }
    placeable(&args.output)?;
    let taken = std::fs::read_dir(&args.output).is_ok_and(|mut entries| entries.next().is_some());
    if taken && !args.overwrite {
        bail!("{} is not empty: replace it with --overwrite, or name another --output", args.output.display());
    }
    if taken {
        replaceable(&args.output, args.recipe.as_deref(), &read.recipe)?;
    }
    let output = match args.format {
        Form::Instruct => Output::Instruct,
        Form::Alpaca => Output::Alpaca,
        Form::Messages => Output::Messages,
        Form::Parquet => Output::Parquet,
    };
    let (whole, manifest) = read.build(&args.output, output).map_err(|e| match &args.recipe {
        Some(path) => e.context(path.display().to_string()),
        None => e,
    })?;
    if args.overwrite {
        whole.commit_replacing()?;
    } else {
        whole.commit()?;
    }
    for source in manifest.sources.iter().filter(|s| s.bad_rows > 0) {
        let first = source.first_bad_rows.first().map_or("", String::as_str);
        say(&format!("{}: {} bad rows left out; first {first}", source.name, thousands(source.bad_rows as u64)));
    }
    let seconds = started.elapsed().as_secs_f64();
    say(&format!("{}: {:.0} instructions a second ({seconds:.0} s)", args.output.display(), made(&manifest) / seconds));
    Ok(std::io::stdout().write_all(summary(&manifest).as_bytes())?)
}

/// Whether a folder can get this name, before any work is done for it.
fn placeable(output: &Path) -> anyhow::Result<()> {
    let Ok(found) = std::fs::metadata(output) else { return Ok(()) };
    if !found.is_dir() {
        bail!("{}: wanted a folder, or a new name for one; found a file", output.display());
    }
    // A folder cannot be renamed over one where something is mounted.
    let disk = |path: &Path| std::fs::metadata(path).map(|found| found.dev());
    if let Some(parent) = output.canonicalize()?.parent()
        && disk(parent)? != found.dev()
    {
        bail!("{}: a disk is mounted there; name a folder within it", output.display());
    }
    Ok(())
}

/// Refuses to replace a folder that is not an earlier build, or holds anything else, or what is read from.
fn replaceable(output: &Path, file: Option<&Path>, recipe: &Recipe) -> anyhow::Result<()> {
    if !output.join("manifest.json").is_file() {
        bail!("{}: wanted an earlier build to replace, found a folder without manifest.json", output.display());
    }
    let folder = output.canonicalize()?;
    let read = file.into_iter().chain([recipe.raw.as_path()]);
    let read = read.chain(recipe.evaluation.iter().map(PathBuf::as_path));
    let read = read.chain(recipe.source.iter().flat_map(|s| &s.files).map(PathBuf::as_path));
    for path in read {
        if path.canonicalize().is_ok_and(|path| path.starts_with(&folder)) {
            bail!("{} would be replaced, and is read from: name another --output", path.display());
        }
    }
    let manifest = Manifest::read(output)?;
    let own = [SAVED, "manifest.json", "README.md"].map(PathBuf::from);
    let own: BTreeSet<PathBuf> = manifest.files.iter().map(|f| PathBuf::from(&f.name)).chain(own).collect();
    for path in files_in(output)? {
        if !path.strip_prefix(output).is_ok_and(|inner| own.contains(inner)) {
            bail!(
                "{}: not of the build that would be replaced; move it away, or name another --output",
                path.display()
            );
        }
    }
    Ok(())
}

/// All that is in a folder and is no folder.
fn files_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let cannot = || format!("{}: cannot read the folder", folder.display());
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        if entry.file_type().with_context(cannot)?.is_dir() {
            all.extend(files_in(&entry.path())?);
        } else {
            all.push(entry.path());
        }
    }
    all.sort();
    Ok(all)
}

/// Builds the demo shop of a seed into the folder `output`, in the place of what is there.
pub fn demo(output: &Path, seed: u64) -> anyhow::Result<()> {
    let mut read = Read::demo()?;
    read.seed(seed)?;
    Ok(read.build(output, Output::Instruct)?.0.commit_replacing()?)
}

/// Instructions that were made, kept or not.
fn made(manifest: &Manifest) -> f64 {
    manifest.units.iter().map(|u| u.made).sum::<usize>() as f64
}

/// A recipe, its text as a table, and the folder its paths start from, where it has any.
struct Read {
    recipe: Recipe,
    table: Table,
    folder: Option<PathBuf>,
}

impl Read {
    /// The demo shop's, which reads no file.
    fn demo() -> anyhow::Result<Self> {
        let text = Recipe::demo();
        Ok(Self { recipe: parse(text, "demo recipe", Path::new(""))?, table: text.parse()?, folder: None })
    }

    fn seed(&mut self, seed: u64) -> anyhow::Result<()> {
        self.recipe.seed = seed;
        self.table.insert("seed".into(), Value::Integer(i64::try_from(seed).context("--seed is over 2^63")?));
        Ok(())
    }

    /// Builds beside `target`, recipe included; the folder gets its name when it is committed.
    fn build(self, target: &Path, output: Output) -> anyhow::Result<(Folder, Manifest)> {
        if let Some(parent) = std::path::absolute(target)?.parent() {
            std::fs::create_dir_all(parent).map_err(tensor::Error::io("create the folder", parent))?;
            durable::sweep(parent)?;
        }
        let whole = Folder::new(target)?;
        let mut bars = Bars(None);
        let manifest = build::build(&self.recipe, whole.path(), output, &mut |step| bars.show(&step)).map_err(plain);
        bars.finish();
        let manifest = manifest?;
        let saved = whole.path().join(SAVED);
        std::fs::write(&saved, self.save()?).map_err(tensor::Error::io("write", &saved))?;
        Ok((whole, manifest))
    }

    /// The recipe as it is kept beside the data: with absolute paths, so that it finds its files from there.
    fn save(self) -> anyhow::Result<String> {
        let Self { mut table, folder, .. } = self;
        if let Some(folder) = folder {
            let place = |value: &mut Value| -> anyhow::Result<()> {
                if let Value::String(path) = value {
                    *path = std::path::absolute(folder.join(&*path))?.to_string_lossy().into_owned();
                }
                Ok(())
            };
            place(table.entry("raw").or_insert_with(|| Value::String("raw".into())))?;
            if let Some(Value::Array(paths)) = table.get_mut("evaluation") {
                paths.iter_mut().try_for_each(place)?;
            }
            for source in table.get_mut("source").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(Value::Array(files)) = source.get_mut("files") {
                    files.iter_mut().try_for_each(place)?;
                }
            }
        }
        Ok(format!("# The recipe that built this data; `ecom data trace` reads it.\n\n{}", toml::to_string(&table)?))
    }
}

fn load(path: &Path, data: Option<&Path>) -> anyhow::Result<Read> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let folder = data.or(path.parent()).unwrap_or(Path::new("")).to_path_buf();
    let recipe = parse(&text, &path.display().to_string(), &folder)?;
    Ok(Read { recipe, table: text.parse()?, folder: Some(folder) })
}

/// Reads the recipe at `path`; its paths start from `data`, or from its own folder.
pub fn read(path: &Path, data: Option<&Path>) -> anyhow::Result<Recipe> {
    load(path, data).map(|r| r.recipe)
}

/// A bar for reading, then one for writing.
struct Bars(Option<(&'static str, Progress)>);

impl Bars {
    fn show(&mut self, step: &build::Progress<'_>) {
        let (what, at, of, message) = match *step {
            build::Progress::Source { name, at, of, made } => {
                ("reading", at, of, format!("{name}; {} instructions so far", thousands(made as u64)))
            }
            build::Progress::Writing { at, of } => ("writing", at, of, String::new()),
        };
        if self.0.as_ref().is_none_or(|(open, _)| *open != what) {
            self.finish();
            self.0 = Some((what, Progress::new(what, 0, of as u64)));
        }
        if let Some((_, bar)) = &mut self.0 {
            bar.at(at as u64, &message);
        }
    }

    fn finish(&mut self) {
        if let Some((_, bar)) = self.0.take() {
            bar.finish();
        }
    }
}

/// What was built, for stdout.
fn summary(manifest: &Manifest) -> String {
    let mut out = String::new();
    let all = manifest.instructions.max(1) as f64;
    let units = manifest.kept_units().count();
    let _ = writeln!(
        out,
        "{} instructions of {} tasks in {units} units, about {} tokens",
        thousands(manifest.instructions as u64),
        manifest.tasks.len(),
        thousands(manifest.estimated_tokens)
    );
    let shares = |map: &BTreeMap<String, usize>| {
        let part = |(name, n): (&String, &usize)| {
            format!("{name} {} ({:.1} %)", thousands(*n as u64), 100.0 * *n as f64 / all)
        };
        map.iter().map(part).collect::<Vec<_>>().join(", ")
    };
    let _ = writeln!(out, "languages  {}", shares(&manifest.languages));
    let _ = writeln!(out, "paradigms  {}", shares(&manifest.paradigms));
    let sum = |f: &dyn Fn(&build::manifest::SourceEntry) -> usize| {
        thousands(manifest.sources.iter().map(f).sum::<usize>() as u64)
    };
    let _ = writeln!(
        out,
        "sources    {} of {} used; {} records, {} bad rows, {} near repeats",
        manifest.sources.iter().filter(|s| manifest.kept_units().any(|u| u.source == s.name)).count(),
        manifest.sources.len(),
        sum(&|s| s.records),
        sum(&|s| s.bad_rows),
        sum(&|s| s.repeated)
    );
    let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
    for (rule, n) in manifest.sources.iter().flat_map(|s| &s.walled) {
        *rows.entry(rule).or_default() += n;
    }
    let prompts: BTreeMap<&str, usize> =
        manifest.firewall_prompts.iter().map(|(rule, &n)| (rule.as_str(), n)).collect();
    let rules = |map: &BTreeMap<&str, usize>| match map.len() {
        0 => "none".to_owned(),
        _ => map.iter().map(|(rule, n)| format!("{rule} {}", thousands(*n as u64))).collect::<Vec<_>>().join(", "),
    };
    let _ = writeln!(out, "firewall   raw rows left out: {}; instructions: {}", rules(&rows), rules(&prompts));
    let gated: Vec<_> = manifest.units.iter().filter_map(|u| Some((u, u.gate_before.as_ref()?))).collect();
    let failed: Vec<_> = gated.iter().filter(|(_, before)| !before.passes).collect();
    let dropped: Vec<String> =
        failed.iter().filter(|(u, _)| u.kept == 0).map(|(u, _)| format!("{} {}", u.task, u.source)).collect();
    let _ = write!(out, "gates      {} of {} units failed at first", failed.len(), gated.len());
    let _ = match dropped.len() {
        0 => writeln!(out, "; all were hardened"),
        n => writeln!(out, ", {n} were dropped: {}", visible(&dropped.join(", "))),
    };
    let width = manifest.files.iter().map(|f| f.name.chars().count()).max().unwrap_or(0);
    let _ = writeln!(out, "\n{:<width$} {:>9} {:>12}  SHA-256", "file", "rows", "bytes");
    for f in &manifest.files {
        let (rows, bytes) = (thousands(f.rows as u64), thousands(f.bytes));
        let _ = writeln!(out, "{:<width$} {rows:>9} {bytes:>12}  {}", visible(&f.name), f.sha256);
    }
    out
}
