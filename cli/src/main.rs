//! The `ecom` program: arguments, exit codes, and what goes to stdout and stderr.

mod checkpoint;
mod data;
mod dataset;
mod demo;
mod device;
mod doctor;
mod eval;
mod failure;
mod generate;
mod inspect;
mod memory;
mod plan;
mod quantize;
mod report;
mod settings;
mod signals;
mod tensorboard;
mod text;
mod tokenizer;
mod train;

use std::io::ErrorKind;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};

use crate::report::say;

/// Building data makes and drops many short texts on several threads.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Train BLOOM on e-commerce instructions, generate with it, evaluate it. One binary, no Python.
///
/// `ecom train` alone trains a small model on a demo shop in a few minutes; `ecom generate` then answers with it.
#[derive(Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Results go to stdout, everything else to stderr. Colour is left out where NO_COLOR is set.\n\
                  Exit codes: 0 success; 2 wrong arguments, configuration or data; 3 not enough memory;\n\
                  4 a disk that is full or a file that may not be written; 5 the output folder is in use;\n\
                  6 no GPU that can be used (doctor); 130 and 143 ended by a signal, with a checkpoint;\n\
                  141 whoever read stdout stopped reading."
)]
struct Ecom {
    /// Threads to compute with [default: all cores]
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model on instructions; without arguments, a small one on a demo shop
    #[command(after_help = train_help())]
    Train(Box<train::TrainArgs>),
    /// Answer an instruction, or a file of them
    #[command(after_help = generate_help())]
    Generate(Box<generate::GenerateArgs>),
    /// Score a model, or answers made elsewhere, on task folders or instruction files
    #[command(after_help = eval_help())]
    Eval(Box<eval::EvalArgs>),
    /// Build instruction data from raw data sets; count, check, show and trace it
    #[command(after_help = data_help())]
    Data(dataset::DataArgs),
    /// Train a tokenizer, or try one
    Tokenizer(tokenizer::TokenizerArgs),
    /// Say how much memory a model needs, before anything is allocated
    Plan(plan::PlanArgs),
    /// Write a model with its matrices in 8 or 4 bits, to answer with on a processor
    #[command(after_help = quantize_help())]
    Quantize(quantize::QuantizeArgs),
    /// Describe a model folder, an instruction file or a data folder
    Inspect(inspect::InspectArgs),
    /// Say which GPU and driver there are, and try each operation there
    Doctor(doctor::DoctorArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

const fn train_help() -> &'static str {
    "Examples:\n  \
     ecom train                                       the demo shop, a small model from scratch\n  \
     ecom train --data shop.jsonl --output runs/shop  a new model on your instructions\n  \
     ecom train --model bloomz-560m --data shop.jsonl --heldout held.jsonl --output runs/560m\n  \
     ecom train --config run.toml --resume            go on where a run stopped"
}

const fn generate_help() -> &'static str {
    "Examples:\n  \
     ecom generate 'Which brand is named? None if absent.' --task 'brand extraction' --input 'Norvik Canvas Tote Bag'\n  \
     ecom generate --model runs/shop/model --from questions.jsonl --to answers.jsonl --batch 16\n  \
     ecom generate --raw 'Once upon a time' --temperature 0.8 --top-p 0.95 --seed 7"
}

const fn eval_help() -> &'static str {
    "Examples:\n  \
     ecom eval --model runs/shop/model data/ecominstruct_eval\n  \
     ecom eval heldout.jsonl --json > scores.json\n  \
     ecom eval heldout.jsonl --decode rank\n  \
     ecom eval data/ecominstruct_eval --predictions answers.jsonl"
}

const fn quantize_help() -> &'static str {
    "Examples:\n  \
     ecom quantize --model bloomz-560m --output bloomz-560m-q8\n  \
     ecom quantize --bits 4 --model runs/shop/model --output shop-q4 --verify held.jsonl"
}

const fn data_help() -> &'static str {
    "Examples:\n  \
     ecom data build --data data --output ecominstruct    the known data sets, in data/raw\n  \
     ecom data check ecominstruct                         is it what it should be?\n  \
     ecom data show ecominstruct --task F12 -n 2\n  \
     ecom data trace ecominstruct F12:waimai_reviews/waimai_10k.csv:7"
}

fn main() -> ExitCode {
    // clap ends the process itself after --help and for wrong arguments, with code 0 and 2.
    let arguments = Ecom::parse();
    match run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(e)
            if e.chain()
                .any(|c| c.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)) =>
        {
            // Whoever read our output has seen enough.
            ExitCode::from(141)
        }
        Err(e) => {
            say(&format!("error: {}", failure::line(&e)));
            ExitCode::from(failure::code(&e))
        }
    }
}

fn run(arguments: Ecom) -> anyhow::Result<u8> {
    if let Some(threads) = arguments.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot start the threads")?;
    }
    match arguments.command {
        Command::Train(args) => train::run(*args),
        Command::Generate(args) => on_a_worker(|| generate::run(&args).map(|()| 0)),
        Command::Eval(args) => on_a_worker(|| eval::run(&args).map(|()| 0)),
        Command::Data(args) => dataset::run(&args),
        Command::Tokenizer(args) => tokenizer::run(args).map(|()| 0),
        Command::Plan(args) => plan::run(&args).map(|()| 0),
        Command::Quantize(args) => on_a_worker(|| quantize::run(&args).map(|()| 0)),
        Command::Inspect(args) => inspect::run(&args).map(|()| 0),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Ecom::command(), "ecom", &mut script);
            std::io::Write::write_all(&mut std::io::stdout(), &script)?;
            Ok(0)
        }
    }
}

/// Runs what computes with a model on one of the threads that share the work. Any other thread sleeps through each operation, of which a
/// token has hundreds, and is woken after it. What waits for threads of its own, as the builder of data does, must not be run here: they may
/// have work for this one.
fn on_a_worker<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| run())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Ecom::command().debug_assert();
    }
}
