//! `ecom data`: builds instruction data from raw data sets, and looks at data: counts, checks, rows, and where a row comes from.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use ecominstruct::build::manifest::Manifest;
use ecominstruct::build::recipe::Recipe;
use ecominstruct::build::{BuildError, trace};
use ecominstruct::check;
use ecominstruct::instruction::{DataType, Lang, Strategy};
use ecominstruct::task::tasks;
use ecominstruct::wording::Wording;
use serde_json::json;

use crate::failure::{USAGE, visible};
use crate::memory::thousands;
use crate::report::Progress;

mod build;
mod show;
mod stats;

pub use build::demo as build_demo;

/// Arguments of `ecom data`.
#[derive(Args, Debug)]
pub struct DataArgs {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Build training and held-out instructions from raw data sets, by a recipe
    #[command(after_help = build::EXAMPLES)]
    Build(build::BuildArgs),
    /// Count instructions by task, source, language and paradigm, and measure answers
    Stats(stats::StatsArgs),
    /// Check data: schema, gold answers, balance, candidates, overlap with held-out sets; exit code 2 if a check fails
    Check {
        /// Data folder, or one .jsonl file
        path: PathBuf,
        /// Print the numbers behind each check as well
        #[arg(long)]
        details: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print instructions as a model sees them, with their gold answers
    Show(show::ShowArgs),
    /// Tell where an instruction comes from: its raw row, and each decision on the way; exit code 2 if the row gives another one
    Trace {
        /// Data folder, or the training file in it
        path: PathBuf,
        /// Id of an instruction, such as `F12:waimai_reviews/waimai_10k.csv:7`
        id: String,
        /// The recipe that built the data [default: the one saved with it]
        #[arg(long, value_name = "FILE")]
        recipe: Option<PathBuf>,
    },
    /// List the 103 tasks, and with a data folder which sources built them, or why none did
    Tasks {
        /// Data folder
        path: Option<PathBuf>,
    },
}

/// Runs `ecom data`; the exit code is not 0 if a check fails.
pub fn run(args: &DataArgs) -> anyhow::Result<u8> {
    match &args.command {
        Action::Build(args) => build::run(args).map(|()| 0),
        Action::Stats(args) => stats::run(args).map(|()| 0),
        Action::Check { path, details, json } => run_check(path, *details, *json),
        Action::Show(args) => show::run(args).map(|()| 0),
        Action::Trace { path, id, recipe } => run_trace(path, id, recipe.as_deref()),
        Action::Tasks { path } => run_tasks(path.as_deref()).map(|()| 0),
    }
}

/// The training file of a data folder, or the file itself.
fn training_file(path: &Path) -> anyhow::Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let file = path.join("train.jsonl");
    if file.is_file() {
        return Ok(file);
    }
    if path.join("train.parquet").is_file() {
        bail!(
            "{}: wanted train.jsonl, found train.parquet; build with --format instruct to look at it",
            path.display()
        );
    }
    bail!("{}: wanted a file, or a folder with train.jsonl", path.display())
}

fn run_check(path: &Path, details: bool, as_json: bool) -> anyhow::Result<u8> {
    let total = match Manifest::read(path) {
        Ok(manifest) => manifest.files.iter().map(|f| f.rows as u64).sum(),
        Err(_) => 0,
    };
    let mut progress = Progress::new("checking", 0, total);
    if path.join("train.parquet").is_file() {
        training_file(path)?;
    }
    let report = check::check(path, &mut |rows| progress.at(rows as u64, "rows"))?;
    progress.finish();
    let mut out = String::new();
    if as_json {
        let value = json!({ "passed": report.passed(), "files": report.files, "checks": report.checks });
        let _ = writeln!(out, "{value:#}");
    } else {
        let rows: usize = report.files.iter().map(|f| f.1).sum();
        let _ = writeln!(out, "{} files, {} rows", report.files.len(), thousands(rows as u64));
        for check in &report.checks {
            let verdict = if check.passed { "ok" } else { "FAILED" };
            let _ = writeln!(out, "{:<14} {verdict:<7} {}", check.name, visible(&check.found));
            for fault in &check.faults {
                let _ = writeln!(out, "               {}", visible(fault));
            }
            for line in check.detail.iter().filter(|_| details) {
                let _ = writeln!(out, "                 {}", visible(line));
            }
        }
        let failed = report.checks.iter().filter(|c| !c.passed).count();
        let _ = match failed {
            0 => writeln!(out, "all {} checks passed", report.checks.len()),
            n => writeln!(out, "{n} of {} checks failed", report.checks.len()),
        };
    }
    std::io::stdout().write_all(out.as_bytes())?;
    Ok(if report.passed() { 0 } else { USAGE })
}

fn run_trace(path: &Path, id: &str, recipe: Option<&Path>) -> anyhow::Result<u8> {
    std::fs::metadata(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    if !folder.join("manifest.json").is_file() {
        bail!("{}: wanted data that `ecom data build` made, found no manifest.json beside it", path.display());
    }
    let saved = folder.join(build::SAVED);
    if recipe.is_none() && !saved.is_file() {
        bail!("{}: wanted the recipe that built the data, found none; name it with --recipe", saved.display());
    }
    let recipe = build::read(recipe.unwrap_or(&saved), None)?;
    let story = trace::trace(&recipe, folder, id).map_err(plain)?;
    write!(std::io::stdout(), "{}", lines(&story.text))?;
    Ok(if story.holds { 0 } else { USAGE })
}

fn run_tasks(path: Option<&Path>) -> anyhow::Result<()> {
    let manifest = path.map(Manifest::read).transpose()?;
    let mut out = String::new();
    let last = if manifest.is_some() { "sources" } else { "" };
    let _ = writeln!(
        out,
        "{:<4} {:<38} {:<9} {:<8} {:<14} {:<8} {:<4} {last}",
        "id", "name", "data", "paradigm", "strategy", "parents", "twin"
    );
    for task in tasks() {
        let strategy = match task.strategy {
            Strategy::Simplification => "simplification",
            Strategy::Reversal => "reversal",
            Strategy::Recombination => "recombination",
            Strategy::None => "",
        };
        let dtype = match task.dtype {
            DataType::Product => "product",
            DataType::Review => "review",
            DataType::Dialogue => "dialogue",
            DataType::Query => "query",
        };
        let mut line = format!(
            "{:<4} {:<38} {dtype:<9} {:<8} {strategy:<14} {:<8} {:<4} ",
            task.id,
            Wording::builtin().name(task.id, Lang::En),
            task.paradigm.name(),
            task.parents.join(" "),
            if task.twin { "yes" } else { "" }
        );
        if let Some(manifest) = &manifest {
            let units: Vec<String> = manifest
                .kept_units()
                .filter(|u| u.task == task.id)
                .map(|u| format!("{} {} {}", u.source, u.lang.name(), u.kept))
                .collect();
            let built = units.join(", ");
            let _ = match manifest.not_built.get(task.id) {
                Some(why) => write!(line, "- {why}"),
                None => write!(line, "{built}"),
            };
        }
        let _ = writeln!(out, "{}", visible(line.trim_end()));
    }
    Ok(std::io::stdout().write_all(out.as_bytes())?)
}

/// An error of the builder without the word for where it was found: the file's name says that.
fn plain(error: BuildError) -> anyhow::Error {
    match error {
        BuildError::Recipe(what) => anyhow::anyhow!(what),
        other => other.into(),
    }
}

/// Text of several lines, made safe for a terminal.
fn lines(text: &str) -> String {
    text.lines().fold(String::with_capacity(text.len()), |mut out, line| {
        out.push_str(&visible(line));
        out.push('\n');
        out
    })
}

/// The recipe's own words for a key it does not know, cut down to the nearest one that it does.
fn teach(what: &str) -> String {
    let Some(rest) = what.strip_prefix("unknown field `") else { return what.to_owned() };
    let Some((key, rest)) = rest.split_once('`') else { return what.to_owned() };
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    let near = |name: &&str| strsim::jaro_winkler(name, key);
    let nearest = known.iter().copied().max_by(|a, b| near(a).total_cmp(&near(b))).filter(|n| near(n) > 0.75);
    match nearest {
        Some(nearest) => format!("unknown key `{key}`; did you mean `{nearest}`?"),
        None => format!("unknown key `{key}`; known are {}", known.join(", ")),
    }
}

/// Reads a recipe file whose paths are relative to it.
fn parse(text: &str, name: &str, folder: &Path) -> anyhow::Result<Recipe> {
    Recipe::parse(text, folder).map_err(|e| match e {
        BuildError::Recipe(what) => match what.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
            Some((line, what)) => anyhow::anyhow!("{name}:{line}: {}", teach(what)),
            None => anyhow::anyhow!("{name}: {what}"),
        },
        other => anyhow::Error::new(other).context(name.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_key_is_answered_with_the_nearest() {
        let what = "unknown field `sed`, expected one of `seed`, `raw`, `cap`";
        assert_eq!(teach(what), "unknown key `sed`; did you mean `seed`?");
        let what = "unknown field `xyz`, expected `seed` or `raw`";
        assert_eq!(teach(what), "unknown key `xyz`; known are seed, raw");
        assert_eq!(teach("invalid type: string"), "invalid type: string");
    }
}
