//! How likely given answers are: each prompt is read once, its answers are its branches, and the head sees their rows only.

use std::collections::VecDeque;

use kernels::attention::KvCache;
use kernels::cross_entropy;
use tensor::Device;

use crate::generate::{PREFILL, next_prompts, overflow};
use crate::prefix::{Read, Reader, order};
use crate::{Bloom, Error, Result};

impl Bloom {
    /// The log-likelihood of each answer `answers[i][j]` to prompt i, in nats: the sum over its ids, among which whoever asks puts the
    /// end of text. To the bit, those of [`Bloom::losses`] on prompt and answer in one document; `batch` prompts are held at a time,
    /// which changes nothing.
    ///
    /// # Errors
    /// A prompt or an answer without ids, an id at or beyond the vocabulary, another number of lists of answers than prompts, or weights
    /// so large that the logits overflow.
    pub fn score(&self, prompts: &[Vec<u32>], answers: &[Vec<Vec<u32>>], batch: usize) -> Result<Vec<Vec<f64>>> {
        if answers.len() != prompts.len() {
            return Err(Error::Input(format!("{} lists of answers to {} prompts", answers.len(), prompts.len())));
        }
        let empty = |ids: &Vec<u32>| ids.is_empty();
        if let Some(at) = prompts.iter().zip(answers).position(|(p, a)| p.is_empty() || a.iter().any(empty)) {
            return Err(Error::Input(format!("prompt {}: wanted at least one token in it and each answer", at + 1)));
        }
        self.awake(|| self.score_all(prompts, answers, batch))
    }

    fn score_all(&self, prompts: &[Vec<u32>], answers: &[Vec<Vec<u32>>], batch: usize) -> Result<Vec<Vec<f64>>> {
        let mut scores: Vec<Vec<f64>> = answers.iter().map(|all| vec![0.0; all.len()]).collect();
        let mut waiting = VecDeque::from(order(prompts));
        let mut reader = Reader::new(self, 0);
        while !waiting.is_empty() {
            let next = next_prompts(&mut waiting, prompts, batch.max(1));
            if self.device() == &Device::Cpu {
                for read in reader.read(prompts, &next, waiting.front().copied())? {
                    self.first_tokens(&read, answers, &mut scores)?;
                    self.other_tokens(&read, answers, &mut scores)?;
                }
            } else {
                self.whole(prompts, &next, answers, &mut scores)?;
            }
        }
        if scores.iter().flatten().all(|score| score.is_finite()) { Ok(scores) } else { Err(overflow()) }
    }

    /// The answers' first tokens, all from the last row of their prompt.
    fn first_tokens(&self, read: &Read, answers: &[Vec<Vec<u32>>], scores: &mut [Vec<f64>]) -> Result<()> {
        let mut targets = Vec::new();
        for (row, &prompt) in (0..).zip(&read.prompts) {
            targets.extend(answers[prompt].iter().map(|answer| (row, answer[0])));
        }
        let losses = cross_entropy::of_targets(&read.states, self.params.value(self.layout.head), &targets)?;
        let all =
            read.prompts.iter().flat_map(|&prompt| (0..answers[prompt].len()).map(move |answer| (prompt, answer)));
        all.zip(losses).for_each(|((prompt, answer), loss)| scores[prompt][answer] -= f64::from(loss));
        Ok(())
    }

    /// The tokens after the first, each from the row of the one before; as many answers at a time as a prompt may have tokens.
    fn other_tokens(&self, read: &Read, answers: &[Vec<Vec<u32>>], scores: &mut [Vec<f64>]) -> Result<()> {
        let longer = read.prompts.iter().zip(&read.caches).flat_map(|(&prompt, cache)| {
            let several = answers[prompt].iter().enumerate().filter(|(_, ids)| ids.len() > 1);
            several.map(move |(answer, ids)| (prompt, answer, ids, cache))
        });
        let mut some: Vec<(usize, usize, &Vec<u32>, &KvCache)> = Vec::new();
        let mut tokens = 0;
        for one in longer {
            if tokens + one.2.len() > PREFILL && !some.is_empty() {
                self.branch(&some, scores)?;
                some.clear();
                tokens = 0;
            }
            tokens += one.2.len();
            some.push(one);
        }
        if some.is_empty() { Ok(()) } else { self.branch(&some, scores) }
    }

    fn branch(&self, some: &[(usize, usize, &Vec<u32>, &KvCache)], scores: &mut [Vec<f64>]) -> Result<()> {
        let (mut ids, mut bounds, mut targets) = (Vec::new(), vec![0], Vec::new());
        for (_, _, answer, _) in some {
            ids.extend_from_slice(&answer[..answer.len() - 1]);
            bounds.push(ids.len() as u32);
            targets.extend_from_slice(&answer[1..]);
        }
        let caches: Vec<&KvCache> = some.iter().map(|(.., cache)| *cache).collect();
        let states = self.branches(&ids, &bounds, &caches)?;
        let losses = cross_entropy::forward(&states, self.params.value(self.layout.head), &targets)?;
        let mut losses = losses.values::<f32>()?.iter();
        for (prompt, answer, ids, _) in some {
            losses.by_ref().take(ids.len() - 1).for_each(|&loss| scores[*prompt][*answer] -= f64::from(loss));
        }
        Ok(())
    }

    /// On a GPU, whose attention has no branches: prompts and answers as documents, a chunk after the other.
    fn whole(
        &self,
        prompts: &[Vec<u32>],
        which: &[usize],
        answers: &[Vec<Vec<u32>>],
        scores: &mut [Vec<f64>],
    ) -> Result<()> {
        let all = which.iter().flat_map(|&prompt| (0..answers[prompt].len()).map(move |answer| (prompt, answer)));
        let mut all = all.peekable();
        while all.peek().is_some() {
            let (mut ids, mut bounds, mut rows, mut targets) = (Vec::new(), vec![0], Vec::new(), Vec::new());
            let mut some = Vec::new();
            while let Some((prompt, answer)) = all.next_if(|&(prompt, answer)| {
                ids.is_empty() || ids.len() + prompts[prompt].len() + answers[prompt][answer].len() <= PREFILL
            }) {
                let answer_ids = &answers[prompt][answer];
                ids.extend_from_slice(&prompts[prompt]);
                rows.extend((0..answer_ids.len()).map(|i| (ids.len() - 1 + i) as u32));
                ids.extend_from_slice(&answer_ids[..answer_ids.len() - 1]);
                bounds.push(ids.len() as u32);
                targets.extend_from_slice(answer_ids);
                some.push((prompt, answer));
            }
            let mut losses = self.losses(&ids, &bounds, &rows, &targets)?.into_iter();
            for (prompt, answer) in some {
                let own = losses.by_ref().take(answers[prompt][answer].len());
                own.for_each(|loss| scores[prompt][answer] -= f64::from(loss));
            }
        }
        Ok(())
    }
}
