//! BLOOM (Le Scao et al., 2022; transformers' `modeling_bloom.py`): configuration, weights, forward pass, training
//! step, generation. Knows token ids, no text.

mod beam;
mod config;
mod decode;
mod error;
mod generate;
mod model;
mod plan;
mod prefix;
mod rule;
mod score;
mod train;
mod weights;

pub use beam::BeamSearch;
pub use config::Config;
pub use error::{Error, Result};
pub use generate::{Completion, Decoding, Finish, Generation};
pub use model::Bloom;
pub use plan::{Memory, Plan, PlanFor, Sizes};
pub use rule::{Choices, Rule};
pub use train::{Batch, Recompute, Trainer};
pub use weights::Dtype;
