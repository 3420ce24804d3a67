use kernels::sample;

use crate::{Completion, Finish, Generation};

/// Beam search over one prompt, as transformers' `GenerationMixin._beam_search` with `early_stopping=False`: a step
/// keeps the best continuations that go on, twice as many being looked at; those among the best that end are
/// finished, scored by log-probability over lengthᵖ; the search ends when no running hypothesis could still beat the
/// worst finished one at the present length.
pub struct BeamSearch {
    beams: usize,
    length_penalty: f32,
    prompt: usize,
    running: Vec<Hypothesis>,
    /// At most `beams`, the best first; the token that ended them included.
    finished: Vec<(f32, Vec<u32>, Finish)>,
    done: bool,
}

struct Hypothesis {
    /// The prompt's tokens and the new ones.
    ids: Vec<u32>,
    log_probability: f32,
}

/// One more token for one of the running hypotheses.
struct Candidate {
    parent: usize,
    id: u32,
    log_probability: f32,
}

impl BeamSearch {
    /// A search that has read the prompt and awaits the logits after it.
    pub fn new(prompt: &[u32], beams: usize, length_penalty: f32) -> Self {
        let running = vec![Hypothesis { ids: prompt.to_vec(), log_probability: 0.0 }];
        Self { beams, length_penalty, prompt: prompt.len(), running, finished: Vec::new(), done: false }
    }

    /// Whether nothing can change any more.
    pub const fn is_done(&self) -> bool {
        self.done
    }

    /// The newest token of each running hypothesis.
    pub fn last_tokens(&self) -> impl Iterator<Item = u32> {
        self.running.iter().filter_map(|h| h.ids.last().copied())
    }

    /// Takes the logits `[running, v]` after each running hypothesis. Returns, for each hypothesis that runs on, which
    /// one it continues.
    pub fn advance(&mut self, logits: &[f32], settings: &Generation) -> Vec<usize> {
        let length = self.running[0].ids.len() + 1 - self.prompt;
        let at_end = length == settings.max_new_tokens;
        let candidates = self.candidates(logits, settings);
        let mut next = Vec::new();
        let mut parents = Vec::new();
        for (rank, c) in candidates.into_iter().enumerate() {
            let ends = c.id == settings.eos;
            let mut ids = self.running[c.parent].ids.clone();
            ids.push(c.id);
            if ends || at_end {
                if rank < self.beams {
                    let score = c.log_probability / (length as f32).powf(self.length_penalty);
                    let finish = if ends { Finish::Eos } else { Finish::Length };
                    // Equal scores keep the order in which they came.
                    let place = self.finished.partition_point(|(s, ..)| *s >= score);
                    self.finished.insert(place, (score, ids, finish));
                    self.finished.truncate(self.beams);
                }
            } else if next.len() < self.beams {
                parents.push(c.parent);
                next.push(Hypothesis { ids, log_probability: c.log_probability });
            }
        }
        self.running = next;
        let best = self.running.first().map(|h| h.log_probability / (length as f32).powf(self.length_penalty));
        let worst = self.finished.get(self.beams - 1).map_or(f32::NEG_INFINITY, |(s, ..)| *s);
        self.done = best.is_none_or(|best| best <= worst);
        parents
    }

    /// The best continuations of all hypotheses, best first: twice as many as beams, so that enough run on even if
    /// every one of the best ends here.
    fn candidates(&self, logits: &[f32], settings: &Generation) -> Vec<Candidate> {
        let wanted = 2 * self.beams;
        let mut all: Vec<Candidate> = Vec::new();
        let v = logits.len() / self.running.len();
        for (parent, (h, logits)) in self.running.iter().zip(logits.chunks_exact(v)).enumerate() {
            let mut scores = logits.to_vec();
            sample::log_softmax(&mut scores);
            settings.process(&mut scores, &h.ids);
            // Only the best `wanted` of each can be among the best of all.
            let mut order: Vec<u32> =
                (0..scores.len() as u32).filter(|&i| scores[i as usize] > f32::NEG_INFINITY).collect();
            let better = |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b));
            if order.len() > wanted {
                order.select_nth_unstable_by(wanted - 1, better);
                order.truncate(wanted);
            }
            order.sort_unstable_by(better);
            all.extend(order.into_iter().map(|id| Candidate {
                parent,
                id,
                log_probability: h.log_probability + scores[id as usize],
            }));
        }
        all.sort_by(|a, b| b.log_probability.total_cmp(&a.log_probability).then(a.parent.cmp(&b.parent)));
        all.truncate(wanted);
        all
    }

    /// The best answers, best first.
    pub fn take_best(&mut self, answers: usize) -> Vec<Completion> {
        let best = self.finished.drain(..).take(answers);
        best.map(|(score, mut ids, finish)| {
            let mut ids = ids.split_off(self.prompt);
            if finish == Finish::Eos {
                ids.pop();
            }
            Completion { ids, score: Some(score), finish }
        })
        .collect()
    }
}
