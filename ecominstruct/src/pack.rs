//! From token ids to what a training step eats: length limits with a report, packing with masks by span, micro-batches.
//!
//! Prompt and response arrive as separate spans and stay so; which tokens bear loss follows from the spans alone and never
//! from searching for a marker. Every target is a response token or the end after it.

use std::ops::Range;

/// One tokenised instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// For messages.
    pub id: String,
    /// Tokens of the prompt; at least one, since the first response token is predicted from the last of them.
    pub prompt: Vec<u32>,
    /// Tokens of the response, with the end-of-sequence token at its end.
    pub response: Vec<u32>,
}

/// What to do with an example that is longer than the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overflow {
    /// Leave it out.
    #[default]
    Drop,
    /// Cut the start of the prompt; leave it out where the response with one prompt token is still too long.
    TruncatePrompt,
    /// Cut the end of the document, end-of-sequence token included; leave it out where no response token remains.
    Truncate,
    /// Fail.
    Error,
}

/// Why examples cannot be used for training.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Under [`Overflow::Error`].
    #[error("{id}: {tokens} tokens, over the limit of {limit}")]
    TooLong {
        /// The example.
        id: String,
        /// Prompt and response.
        tokens: usize,
        /// The limit.
        limit: usize,
    },
    /// Nothing to predict the first response token from.
    #[error("{0}: the prompt has no tokens")]
    EmptyPrompt(String),
    /// A set that would train on nothing.
    #[error(
        "no target token left: of {examples} examples {dropped} are over {limit} tokens and {without_target} have no response"
    )]
    NoTargets {
        /// Examples given.
        examples: usize,
        /// Dropped for length.
        dropped: usize,
        /// Without a response.
        without_target: usize,
        /// The limit.
        limit: usize,
    },
    /// More tokens than positions can be numbered (2³²).
    #[error("too many tokens for one pack")]
    TooMany,
}

/// Longest and percentiles (nearest rank) of a number of tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantiles {
    /// Median.
    pub p50: usize,
    /// 95th percentile.
    pub p95: usize,
    /// 99th percentile.
    pub p99: usize,
    /// Maximum.
    pub longest: usize,
}

impl Quantiles {
    fn of(mut lengths: Vec<usize>) -> Self {
        lengths.sort_unstable();
        let rank = |percent: usize| {
            let at = (lengths.len() * percent).div_ceil(100).max(1) - 1;
            lengths.get(at).copied().unwrap_or_default()
        };
        Self { p50: rank(50), p95: rank(95), p99: rank(99), longest: rank(100) }
    }
}

/// What [`fit`] found and did. Lengths are those before any cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lengths {
    /// Examples given.
    pub examples: usize,
    /// Examples kept.
    pub kept: usize,
    /// Dropped because over the limit.
    pub dropped: usize,
    /// Kept, but cut.
    pub truncated: usize,
    /// Dropped because the response has no tokens.
    pub without_target: usize,
    /// Lengths of the prompts.
    pub prompt: Quantiles,
    /// Lengths of the responses, end included.
    pub response: Quantiles,
    /// Target tokens of the kept examples.
    pub targets: usize,
}

/// Brings all examples to at most `limit` tokens (prompt and response together), in order.
///
/// # Errors
/// [`PackError::TooLong`] under [`Overflow::Error`]; [`PackError::EmptyPrompt`]; [`PackError::NoTargets`] if nothing is left.
pub fn fit(examples: Vec<Example>, limit: usize, overflow: Overflow) -> Result<(Vec<Example>, Lengths), PackError> {
    let mut lengths = Lengths {
        examples: examples.len(),
        prompt: Quantiles::of(examples.iter().map(|e| e.prompt.len()).collect()),
        response: Quantiles::of(examples.iter().map(|e| e.response.len()).collect()),
        ..Lengths::default()
    };
    let mut kept = Vec::with_capacity(examples.len());
    for mut example in examples {
        let (prompt, response) = (example.prompt.len(), example.response.len());
        if prompt == 0 {
            return Err(PackError::EmptyPrompt(example.id));
        }
        if response == 0 {
            lengths.without_target += 1;
            continue;
        }
        if prompt + response > limit {
            match overflow {
                Overflow::Error => return Err(PackError::TooLong { id: example.id, tokens: prompt + response, limit }),
                Overflow::TruncatePrompt if response < limit => drop(example.prompt.drain(..prompt + response - limit)),
                Overflow::Truncate if prompt < limit => example.response.truncate(limit - prompt),
                _ => {
                    lengths.dropped += 1;
                    continue;
                }
            }
            lengths.truncated += 1;
        }
        lengths.targets += example.response.len();
        kept.push(example);
    }
    lengths.kept = kept.len();
    if kept.is_empty() {
        let Lengths { examples, dropped, without_target, .. } = lengths;
        return Err(PackError::NoTargets { examples, dropped, without_target, limit });
    }
    Ok((kept, lengths))
}

/// Documents laid end to end. t tokens, d documents, n targets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// All tokens, prompt then response, document after document `[t]`.
    pub ids: Vec<u32>,
    /// Where each document starts, and the end of the last `[d + 1]`. Attention and positions must not cross these.
    pub bounds: Vec<u32>,
    /// Positions whose next token bears loss, ascending `[n]`. Each is in the same document as its target.
    pub rows: Vec<u32>,
    /// The token after each of `rows` `[n]`.
    pub targets: Vec<u32>,
}

impl Packed {
    /// Packs `examples` in order. An example without response tokens adds a document without targets.
    ///
    /// # Errors
    /// [`PackError::EmptyPrompt`]; [`PackError::TooMany`] from 2³² tokens on.
    pub fn new<'a>(examples: impl IntoIterator<Item = &'a Example>) -> Result<Self, PackError> {
        let mut pack = Self { bounds: vec![0], ..Self::default() };
        for example in examples {
            if example.prompt.is_empty() {
                return Err(PackError::EmptyPrompt(example.id.clone()));
            }
            pack.ids.extend_from_slice(&example.prompt);
            let first = pack.ids.len() - 1;
            pack.ids.extend_from_slice(&example.response);
            pack.targets.extend_from_slice(&example.response);
            let end = u32::try_from(pack.ids.len()).map_err(|_| PackError::TooMany)?;
            pack.rows.extend((first..first + example.response.len()).map(|row| row as u32));
            pack.bounds.push(end);
        }
        Ok(pack)
    }
}

/// Cuts `order` (indices into `examples`) into runs of at most `max_tokens` tokens. An example longer than that is a run of
/// its own; indices outside `examples` count as empty.
pub fn micro_batches(examples: &[Example], order: &[u32], max_tokens: usize) -> Vec<Range<usize>> {
    let (mut batches, mut start, mut tokens) = (Vec::new(), 0, 0usize);
    for (at, &index) in order.iter().enumerate() {
        let length = examples.get(index as usize).map_or(0, |e| e.prompt.len() + e.response.len());
        if at > start && tokens + length > max_tokens {
            batches.push(start..at);
            (start, tokens) = (at, 0);
        }
        tokens += length;
    }
    if start < order.len() {
        batches.push(start..order.len());
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EOS: u32 = 2;

    fn example(prompt: usize, response: usize) -> Example {
        let mut answer: Vec<u32> = (100..100 + response.saturating_sub(1) as u32).collect();
        if response > 0 {
            answer.push(EOS);
        }
        Example { id: format!("{prompt}+{response}"), prompt: (10..10 + prompt as u32).collect(), response: answer }
    }

    #[test]
    fn each_policy_on_a_long_example() {
        let cut = |overflow| fit(vec![example(6, 4), example(2, 2)], 5, overflow);
        let (kept, lengths) = cut(Overflow::Drop).unwrap();
        assert_eq!((kept.len(), lengths.dropped, lengths.truncated, lengths.targets), (1, 1, 0, 2));
        let (kept, lengths) = cut(Overflow::TruncatePrompt).unwrap();
        assert_eq!((kept[0].prompt.as_slice(), kept[0].response.len(), lengths.truncated), ([15].as_slice(), 4, 1));
        assert_eq!(cut(Overflow::Truncate).unwrap().1.dropped, 1);
        let (kept, _) = fit(vec![example(3, 4)], 5, Overflow::Truncate).unwrap();
        assert_eq!((kept[0].prompt.len(), kept[0].response.as_slice()), (3, [100, 101].as_slice()));
        assert_eq!(cut(Overflow::Error).unwrap_err().to_string(), "6+4: 10 tokens, over the limit of 5");
    }

    #[test]
    fn training_on_nothing_is_an_error_with_counts() {
        let rows = vec![example(9, 3); 8];
        let error = fit(rows.clone(), 9, Overflow::Truncate).unwrap_err();
        let wanted = "no target token left: of 8 examples 8 are over 9 tokens and 0 have no response";
        assert_eq!(error.to_string(), wanted);
        let mut mixed = rows[..1].to_vec();
        mixed.extend(vec![example(4, 2); 7]);
        assert_eq!(fit(mixed, 9, Overflow::Drop).unwrap().1.dropped, 1);
        assert!(matches!(
            fit(vec![example(3, 0)], 9, Overflow::Drop),
            Err(PackError::NoTargets { without_target: 1, .. })
        ));
        assert!(matches!(fit(vec![example(0, 3)], 9, Overflow::Drop), Err(PackError::EmptyPrompt(_))));
        assert!(matches!(Packed::new(&[example(0, 3)]), Err(PackError::EmptyPrompt(_))));
    }

    #[test]
    fn quantiles_by_nearest_rank() {
        let q = Quantiles::of((1..=200).collect());
        assert_eq!((q.p50, q.p95, q.p99, q.longest), (100, 190, 198, 200));
        assert_eq!(Quantiles::of(vec![]), Quantiles::default());
        assert_eq!(Quantiles::of(vec![7]), Quantiles { p50: 7, p95: 7, p99: 7, longest: 7 });
    }

    fn examples() -> impl Strategy<Value = Vec<Example>> {
        let tokens = |least| proptest::collection::vec(3u32..50, least..12);
        let one = (tokens(1), tokens(0)).prop_map(|(prompt, mut response)| {
            response.push(EOS);
            Example { id: String::new(), prompt, response }
        });
        proptest::collection::vec(one, 1..20)
    }

    proptest! {
        /// R1: the unmasked targets of each document are its response with its end, whatever the tokens are.
        #[test]
        fn targets_are_the_responses(all in examples()) {
            let pack = Packed::new(&all).unwrap();
            prop_assert_eq!(pack.bounds.len(), all.len() + 1);
            for (row, target) in pack.rows.iter().zip(&pack.targets) {
                prop_assert_eq!(pack.ids[*row as usize + 1], *target);
            }
            for (example, bounds) in all.iter().zip(pack.bounds.windows(2)) {
                let inside = |row: &u32| (bounds[0]..bounds[1]).contains(row);
                let found: Vec<u32> = pack.rows.iter().zip(&pack.targets).filter(|(r, _)| inside(r)).map(|(_, t)| *t).collect();
                prop_assert_eq!(&found, &example.response);
                // R6: no row predicts the first token of the next document.
                prop_assert!(!pack.rows.contains(&(bounds[1] - 1)));
                let document = [example.prompt.as_slice(), &example.response].concat();
                prop_assert_eq!(&pack.ids[bounds[0] as usize..bounds[1] as usize], document.as_slice());
            }
        }

        /// R6: packing two is the two packs side by side.
        #[test]
        fn packing_is_concatenation(a in examples(), b in examples()) {
            let (one, two) = (Packed::new(&a).unwrap(), Packed::new(&b).unwrap());
            let both = Packed::new(a.iter().chain(&b)).unwrap();
            let shift = one.ids.len() as u32;
            let joined = |x: &[u32], y: &[u32], by: u32| x.iter().copied().chain(y.iter().map(|v| v + by)).collect::<Vec<_>>();
            prop_assert_eq!(both.ids, joined(&one.ids, &two.ids, 0));
            prop_assert_eq!(both.targets, joined(&one.targets, &two.targets, 0));
            prop_assert_eq!(both.rows, joined(&one.rows, &two.rows, shift));
            prop_assert_eq!(both.bounds, joined(&one.bounds, &two.bounds[1..], shift));
        }

        #[test]
        fn fitting_keeps_to_the_limit(all in examples(), limit in 2usize..30, which in 0usize..3) {
            let overflow = [Overflow::Drop, Overflow::TruncatePrompt, Overflow::Truncate][which];
            if let Ok((kept, lengths)) = fit(all.clone(), limit, overflow) {
                prop_assert_eq!(lengths.kept + lengths.dropped + lengths.without_target, all.len());
                for example in &kept {
                    prop_assert!(example.prompt.len() + example.response.len() <= limit);
                    prop_assert!(!example.prompt.is_empty() && !example.response.is_empty());
                    prop_assert!(overflow == Overflow::Truncate || example.response.last() == Some(&EOS));
                }
            }
        }

        #[test]
        fn micro_batches_cover_the_order_once(all in examples(), max in 1usize..60, seed in any::<u64>()) {
            let mut order: Vec<u32> = (0..all.len() as u32).collect();
            crate::splitmix::SplitMix::new(seed).shuffle(&mut order);
            let batches = micro_batches(&all, &order, max);
            let covered: Vec<usize> = batches.iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..order.len()).collect::<Vec<_>>());
            for batch in batches {
                let tokens = |at: usize| all[order[at] as usize].prompt.len() + all[order[at] as usize].response.len();
                prop_assert!(batch.len() == 1 || batch.map(tokens).sum::<usize>() <= max);
            }
        }
    }
}
