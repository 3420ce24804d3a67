//! Reading prompts, each from where it parts from one that was read before: prompts of one task begin alike, and so do several
//! questions about one text. A row's bits depend on nothing but the row, so what is shared changes no answer.

use kernels::attention::KvCache;
use tensor::Tensor;

use crate::{Bloom, Result};

/// Tokens that two prompts must share for one to go on from the other: copying keys and values is not free.
const SHARED: usize = 8;

/// Tokens that reading some prompts after others must save: every pass goes over all the weights again.
const PASS: usize = 32;

/// The most tokens that a cache gets room for before there are any.
const ROOM: usize = 1024;

/// The prompts' places in order of their tokens. In it, no earlier prompt shares more with one than the one just before.
pub(crate) fn order(prompts: &[Vec<u32>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by(|&a, &b| prompts[a].cmp(&prompts[b]).then(a.cmp(&b)));
    order
}

/// What reads prompts, in their [`order`].
pub(crate) struct Reader<'m> {
    model: &'m Bloom,
    /// The tokens that caches get room for behind a prompt.
    room: usize,
    /// The last prompt that was read, if the next one shares some of it.
    last: Option<(Vec<u32>, KvCache)>,
}

/// Prompts that were read together.
pub(crate) struct Read {
    /// Their places.
    pub prompts: Vec<usize>,
    /// What the head is to see after each: `[b, c]`.
    pub states: Tensor,
    /// One for each.
    pub caches: Vec<KvCache>,
}

/// Where a prompt is read from.
#[derive(Clone, Copy)]
struct Start {
    /// The prompt whose first tokens it shares: an earlier one of those asked for, or, without a place, the last one before them.
    from: Option<usize>,
    /// How many tokens those are.
    tokens: usize,
    /// The pass it is read in.
    pass: usize,
}

impl<'m> Reader<'m> {
    /// A reader of prompts that up to `more` tokens will follow.
    pub fn new(model: &'m Bloom, more: usize) -> Self {
        Self { model, room: more.min(ROOM), last: None }
    }

    /// Reads prompts into caches. `next` is the one that will be read after them.
    pub fn read(&mut self, prompts: &[Vec<u32>], which: &[usize], next: Option<usize>) -> Result<Vec<Read>> {
        let starts = self.starts(prompts, which);
        let passes = starts.iter().map(|s| s.pass + 1).max().unwrap_or(0);
        let mut read: Vec<Read> = Vec::with_capacity(passes);
        // Where each prompt's cache is: the pass, and its place in it.
        let mut places = vec![(0, 0); which.len()];
        for pass in 0..passes {
            let (mut ids, mut bounds) = (Vec::new(), vec![0]);
            let (mut now, mut caches) = (Vec::new(), Vec::new());
            for (i, start) in starts.iter().enumerate().filter(|(_, s)| s.pass == pass) {
                ids.extend_from_slice(&prompts[which[i]][start.tokens..]);
                bounds.push(ids.len() as u32);
                places[i] = (pass, now.len());
                now.push(which[i]);
                let from = match start.from {
                    Some(from) => Some(&read[places[from].0].caches[places[from].1]),
                    None => self.last.as_ref().map(|(_, cache)| cache),
                };
                let room = prompts[which[i]].len() + self.room;
                caches.push(match from {
                    Some(from) if start.tokens > 0 => from.first(start.tokens, room),
                    _ => self.model.cache().with_room(room),
                });
            }
            let states = self.model.prefill(&ids, &bounds, &mut caches.iter_mut().collect::<Vec<_>>())?;
            read.push(Read { prompts: now, states, caches });
        }
        self.last = match (which.last(), places.last(), next) {
            (Some(&last), Some(&(pass, place)), Some(next)) if shared(&prompts[last], &prompts[next]) >= SHARED => {
                let cache = &read[pass].caches[place];
                Some((prompts[last].clone(), cache.first(cache.len(), 0)))
            }
            _ => None,
        };
        Ok(read)
    }

    /// Where to read each prompt from, so that few tokens are read, in few passes.
    fn starts(&self, prompts: &[Vec<u32>], which: &[usize]) -> Vec<Start> {
        let mut starts: Vec<Start> = Vec::with_capacity(which.len());
        for (i, &prompt) in which.iter().enumerate() {
            let of_last = self.last.as_ref().map_or(0, |(last, _)| shared(last, &prompts[prompt]));
            let mut best = Start { from: None, tokens: if of_last < SHARED { 0 } else { of_last }, pass: 0 };
            let gain = |s: &Start| s.tokens.cast_signed() - (PASS * s.pass).cast_signed();
            for from in 0..i {
                let tokens = shared(&prompts[which[from]], &prompts[prompt]);
                let start = Start { from: Some(from), tokens, pass: starts[from].pass + 1 };
                if gain(&start) > gain(&best) {
                    best = start;
                }
            }
            starts.push(best);
        }
        starts
    }
}

/// The number of tokens that begin both. One of the second is always left to read: what follows it is asked for.
fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(&b[..b.len().saturating_sub(1)]).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // how a test fails
mod tests {
    use super::*;
    use crate::Config;

    /// 64 tokens of a task, 40 of one of two texts, and a question.
    fn prompts() -> Vec<Vec<u32>> {
        let text = |i: u32| (0..40).map(move |j| 60 + (j * (i + 3)) % 30);
        (0..8u32).map(|i| (0..64).map(|j| j % 50).chain(text(i % 2)).chain([95, i, 90]).collect()).collect()
    }

    #[test]
    fn what_prompts_share_is_read_once() {
        let model = Bloom::random(Config::new(16, 2, 2, 100).unwrap(), 1).unwrap();
        let prompts = prompts();
        let order = order(&prompts);
        assert_eq!(order, [0, 2, 4, 6, 1, 3, 5, 7], "those with one text are together");
        let mut reader = Reader::new(&model, 0);
        // The first one whole; the others of its text, and the first one of the other text; in a third pass the rest of those.
        let tokens = |reader: &Reader, which: &[usize]| -> Vec<(usize, usize)> {
            reader.starts(&prompts, which).iter().map(|s| (s.pass, s.tokens)).collect()
        };
        let first = [(0, 0), (1, 105), (1, 105), (1, 105), (1, 65), (2, 105)];
        assert_eq!(tokens(&reader, &order[..6]), first);
        let read = reader.read(&prompts, &order[..6], Some(order[6])).unwrap();
        assert_eq!(read.iter().map(|r| r.prompts.len()).collect::<Vec<_>>(), [1, 4, 1]);
        // What was read last serves those that come after.
        assert_eq!(tokens(&reader, &order[6..]), [(0, 105), (0, 105)]);
        let rest = reader.read(&prompts, &order[6..], None).unwrap();
        assert!(reader.last.is_none() && rest.len() == 1);
        for read in read.iter().chain(&rest) {
            for (i, &prompt) in read.prompts.iter().enumerate() {
                assert_eq!(read.caches[i].len(), prompts[prompt].len());
                let alone = Reader::new(&model, 0).read(&prompts, &[prompt], None).unwrap().remove(0);
                let c = read.states.dims2().unwrap().1;
                let own = &read.states.values::<f32>().unwrap()[i * c..][..c];
                assert_eq!(own, alone.states.values::<f32>().unwrap(), "prompt {prompt}");
            }
        }
    }
}
