//! A tape of BLOOM's fused operations, their gradients, and the optimiser. Knows no model.
//!
//! The forward pass is written once, against [`Tape`]: recording for training, [`Tape::off`] for prefill and
//! [`Tape::decode`] for one token at a time. Weight gradients are added straight into the buffers of [`Grads`].

mod error;
mod optimizer;
mod params;
mod schedule;
#[cfg(test)]
mod spec;
mod tape;

pub use error::{Error, Result};
pub use kernels::adamw::Norm as GradNorm;
pub use optimizer::{Optimizer, Settings};
pub use params::{Grads, Param, ParamId, Params};
pub use schedule::{Curve, Schedule};
pub use tape::{Linear, NodeGrads, Norm, Tape, Var, head_loss};
