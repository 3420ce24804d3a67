//! `ecom tokenizer`: train one on text or instructions, or see what one does to a text.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use tensor::durable::Folder;

use crate::data;
use crate::report::say;
use crate::text::Text;

/// Arguments of `ecom tokenizer`.
#[derive(Args, Debug)]
pub struct TokenizerArgs {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Train a byte-level BPE as BLOOM's: its pre-tokeniser expression, its special ids
    Train {
        /// Text files, or instructions where the name ends in .jsonl
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Tokens in all, the 4 special ones and the 256 bytes included
        #[arg(long, value_name = "N", default_value_t = 16384)]
        vocab: usize,
        /// Folder for tokenizer.json and the files beside it
        #[arg(long, short, value_name = "DIR")]
        output: PathBuf,
    },
    /// Print the ids and pieces of a text, as JSON
    Encode {
        /// Tokenizer folder or tokenizer.json
        #[arg(long, short, value_name = "PATH")]
        tokenizer: PathBuf,
        /// The text
        text: String,
    },
    /// Print the text of some ids
    Decode {
        /// Tokenizer folder or tokenizer.json
        #[arg(long, short, value_name = "PATH")]
        tokenizer: PathBuf,
        /// The ids
        #[arg(required = true)]
        ids: Vec<u32>,
    },
}

/// Runs `ecom tokenizer`.
pub fn run(args: TokenizerArgs) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match args.command {
        Action::Train { files, vocab, output } => {
            if output.join("config.json").exists() {
                bail!(
                    "{}: a model is there, whose weights know another tokenizer; name another --output",
                    output.display()
                );
            }
            let mut texts = Vec::new();
            for path in &files {
                read(path, &mut texts)?;
            }
            if texts.is_empty() {
                bail!("no text to train on in {} files", files.len());
            }
            let text = Text::train(texts.into_iter(), vocab)?;
            if output.is_dir() {
                // What else is in the folder stays.
                text.save(&output)?;
            } else {
                let folder = Folder::new(&output)?;
                text.save(folder.path())?;
                folder.commit()?;
            }
            say(&format!("{} tokens: {}", text.len(), output.display()));
        }
        Action::Encode { tokenizer, text } => {
            let tokenizer = Text::load(&tokenizer)?;
            let ids = tokenizer.encode(&text)?;
            let pieces: Vec<String> = ids.iter().map(|&id| tokenizer.decode(&[id])).collect();
            writeln!(out, "{}", json!({ "ids": ids, "pieces": pieces }))?;
        }
        Action::Decode { tokenizer, ids } => {
            let tokenizer = Text::load(&tokenizer)?;
            if let Some(id) = ids.iter().find(|&&id| id as usize >= tokenizer.len()) {
                bail!("id {id}: wanted one below {}", tokenizer.len());
            }
            writeln!(out, "{}", tokenizer.decode(&ids))?;
        }
    }
    Ok(())
}

fn read(path: &Path, texts: &mut Vec<String>) -> anyhow::Result<()> {
    if path.extension().is_some_and(|e| e == "jsonl") {
        texts.extend(data::read(path, 0)?.iter().flat_map(data::texts));
        return Ok(());
    }
    let file = std::fs::File::open(path).with_context(|| format!("{}: cannot read", path.display()))?;
    for (i, line) in BufReader::new(file).lines().enumerate() {
        texts.push(line.with_context(|| format!("{}:{}: cannot read", path.display(), i + 1))?);
    }
    Ok(())
}
