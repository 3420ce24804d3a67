//! `EcomInstruct`: raw shop data to instructions, prompts, evaluation sets, scores, baselines and packing.
//!
//! Nothing here knows tensors or tokenizers: text comes in, text or token ids go out.

pub mod baseline;
pub mod build;
pub mod check;
pub mod dedup;
pub mod eval_set;
pub mod firewall;
pub mod gate;
pub mod instruction;
pub mod pack;
pub mod prompt;
pub mod raw;
pub mod read;
pub mod record;
pub mod score;
pub mod shape;
mod shingle;
pub mod shop;
pub mod splitmix;
pub mod task;
pub mod wording;
