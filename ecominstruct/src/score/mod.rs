//! Scores: [`legacy`] repeats the released scorer to the last digit, for comparison with published tables; [`strict`] is the
//! one to trust. Both take predictions as plain strings, never panic, and stay within 0 and 100.

pub mod legacy;
pub mod parse;
mod rouge;
pub mod strict;

/// Not one prediction per item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{set}: {found} predictions for {wanted} items")]
pub struct WrongCount {
    /// Name of the evaluation set.
    pub set: String,
    /// Items of the set.
    pub wanted: usize,
    /// Predictions given.
    pub found: usize,
}

/// `2pr/(p+r)`, 0 where both are 0.
fn f1(p: f64, r: f64) -> f64 {
    if p + r == 0.0 { 0.0 } else { 2.0 * p * r / (p + r) }
}

/// `a/b`, 0 where `b` is 0.
fn ratio(a: usize, b: usize) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}
