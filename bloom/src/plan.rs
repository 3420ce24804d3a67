use crate::generate::PREFILL;
use crate::model::PIECE;
use crate::{Config, Recompute};

/// What memory is planned for.
#[derive(Clone, Copy, Debug)]
pub enum PlanFor {
    /// A training step.
    Training {
        /// Tokens of the largest packed row.
        tokens: usize,
        /// Rows among them that are learned from.
        targets: usize,
        /// Whether blocks are computed again.
        recompute: Recompute,
    },
    /// Generation.
    Generation {
        /// Sequences side by side.
        batch: usize,
        /// Tokens of each, prompt and answer.
        tokens: usize,
        /// Bytes of one number.
        sizes: Sizes,
    },
    /// Likelihoods of given answers.
    Scoring {
        /// Prompts side by side.
        batch: usize,
        /// Tokens of each, prompt and answer.
        tokens: usize,
        /// Bytes of one number.
        sizes: Sizes,
    },
}

/// Bytes of one number.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of a weight.
    pub weight: usize,
    /// Of keys and values in main memory: 4 beside f32 weights, else 2.
    pub cached: usize,
}

/// Whose memory is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The machine's: everything is f32, and weights are their own masters.
    Main,
    /// A GPU's: matrices and activations are bf16, with f32 masters in training.
    Gpu,
}

/// Bytes by part, from the configuration alone: nothing is allocated to make it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name and bytes of each part.
    pub parts: Vec<(&'static str, u64)>,
}

impl Plan {
    /// The memory that a job needs of the machine, or of a GPU.
    pub fn new(config: &Config, job: PlanFor, memory: Memory) -> Self {
        // Numbers beyond reason, which anyone can ask for, stay large instead of wrapping around.
        let times = |factors: &[u64]| factors.iter().fold(1u64, |product, &f| product.saturating_mul(f));
        let p = config.parameters() as u64;
        // Bytes of an activation.
        let size = if memory == Memory::Gpu { 2 } else { 4 };
        let (c, v, l) = (config.hidden as u64, config.vocab as u64, config.layers as u64);
        let h = config.heads as u64;
        let parts = match job {
            PlanFor::Training { tokens, targets, recompute } => {
                let (t, r) = (tokens as u64, targets as u64);
                // Kept by one block's tape, per token: input, two norms and the sum between (4c), qkv (3c), attention's
                // output (c), the wide layer before and after GELU (8c); statistics and log-sum-exp in f32.
                let block = times(&[t, 16 * c * size + (h + 4) * 4]);
                // The backward pass holds, at its widest, the gradients of the wide layer's two values and of its input.
                let working = times(&[t, 10 * c, size]);
                let kept = match recompute {
                    Recompute::Keep => times(&[l, block]),
                    Recompute::Again => times(&[l, t, c, size]).saturating_add(block),
                };
                let mut parts = match memory {
                    Memory::Main => vec![("weights (f32)", p * 4)],
                    Memory::Gpu => vec![("matrices (bf16)", config.matrices() as u64 * 2), ("masters (f32)", p * 4)],
                };
                let logits = times(&[chunk_rows(v).min(r.max(1)), v]);
                parts.extend([
                    ("gradients (f32)", p * 4),
                    ("AdamW moments (f32)", p * 8),
                    ("activations", kept.saturating_add(working)),
                    ("logits of a chunk", logits.saturating_mul(4)),
                ]);
                // In main memory they take the place of the logits.
                if memory == Memory::Gpu {
                    parts.push(("their gradients (bf16)", logits.saturating_mul(2)));
                }
                parts
            }
            PlanFor::Generation { batch, tokens, sizes } | PlanFor::Scoring { batch, tokens, sizes } => {
                let (b, t) = (batch as u64, tokens as u64);
                // The last prompt is kept, for what the next one shares.
                let held = b.saturating_add(1);
                let all = b.saturating_mul(t).min(t.saturating_add(PREFILL as u64));
                let at_once = match (job, memory) {
                    (PlanFor::Generation { .. }, Memory::Main) => all.min(b.max(PIECE as u64)),
                    _ => all,
                };
                let rows = times(&[2, b]);
                let rows = if matches!(job, PlanFor::Scoring { .. }) { rows.max(chunk_rows(v)) } else { rows };
                vec![
                    ("weights", p * sizes.weight as u64),
                    match memory {
                        Memory::Main => ("keys and values", times(&[held, t, l, 2 * c, sizes.cached as u64])),
                        Memory::Gpu => ("keys and values", times(&[held, t, l, 2 * c, sizes.weight as u64])),
                    },
                    ("activations", times(&[at_once, 12 * c, 4])),
                    ("logits", times(&[rows, v, 4])),
                ]
            }
        };
        Self { parts }
    }

    /// All parts together, in bytes.
    pub fn total(&self) -> u64 {
        self.parts.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes))
    }
}

/// Rows whose logits are held at a time, as `kernels::cross_entropy` has it.
fn chunk_rows(v: u64) -> u64 {
    let rows = ((1 << 28) / (4 * v)).clamp(16, 1024);
    if rows < 128 { rows } else { rows / 128 * 128 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // how a test fails
mod tests {
    use super::*;

    /// Bytes of the parts whose names hold one of these.
    fn part(config: &Config, targets: usize, memory: Memory, names: &[&str]) -> u64 {
        let job = PlanFor::Training { tokens: 4096, targets, recompute: Recompute::Again };
        let parts = Plan::new(config, job, memory).parts;
        parts.iter().filter(|(name, _)| names.iter().any(|n| name.contains(n))).map(|(_, bytes)| bytes).sum()
    }

    #[test]
    fn a_gpu_holds_a_chunks_logits_and_their_gradients() {
        let config = Config::new(1024, 24, 16, 250_880).unwrap();
        // 267 rows are the most that 256 MiB hold, and 128 are a tile.
        for (targets, rows) in [(10, 10), (256, 256), (5000, 256)] {
            let both = |memory| part(&config, targets, memory, &["logits", "their gradients"]);
            assert_eq!(both(Memory::Main), rows * 250_880 * 4);
            assert_eq!(both(Memory::Gpu), rows * 250_880 * (4 + 2));
        }
    }

    #[test]
    fn a_prompt_is_kept_and_scoring_has_the_logits_of_a_chunk() {
        let config = Config::new(1024, 24, 16, 250_880).unwrap();
        let bytes = |job, name: &str| {
            let parts = Plan::new(&config, job, Memory::Main).parts;
            parts.iter().filter(|(part, _)| part.starts_with(name)).map(|(_, bytes)| bytes).sum::<u64>()
        };
        let (batch, tokens, sizes) = (8, 100, Sizes { weight: 4, cached: 4 });
        let generation = PlanFor::Generation { batch, tokens, sizes };
        let scoring = PlanFor::Scoring { batch, tokens, sizes };
        for job in [generation, scoring] {
            assert_eq!(bytes(job, "keys and values"), 9 * 100 * 24 * 2 * 1024 * 4);
        }
        let quantized = PlanFor::Generation { batch, tokens, sizes: Sizes { weight: 1, cached: 2 } };
        assert_eq!(bytes(quantized, "keys and values"), 9 * 100 * 24 * 2 * 1024 * 2);
        assert_eq!(bytes(generation, "logits"), 2 * 8 * 250_880 * 4);
        assert_eq!(bytes(scoring, "logits"), 256 * 250_880 * 4);
    }
}
