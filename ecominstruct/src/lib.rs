//! `EcomInstruct`: instruction records, prompts, evaluation sets, scores, baselines and packing.
//!
//! Nothing here knows tensors or tokenizers: text comes in, text or token ids go out.

pub mod baseline;
pub mod eval_set;
pub mod instruction;
pub mod pack;
pub mod prompt;
pub mod read;
pub mod score;
pub mod shop;
pub mod splitmix;
