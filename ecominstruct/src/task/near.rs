//! Which texts of a block look alike: an inverted index over words (English) or character pairs (Chinese), scored like BM25.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use crate::instruction::is_han;

/// Index over the texts of one list.
#[derive(Debug, Default)]
pub struct Near {
    postings: FxHashMap<u64, Vec<u32>>,
    texts: usize,
}

/// Rarest terms of a question that are looked up, and texts per term that are looked at.
const TERMS: usize = 8;
const POSTINGS: usize = 256;

impl Near {
    /// Indexes the texts; numbers are places in the list.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut near = Self::default();
        for (i, text) in texts.into_iter().enumerate() {
            near.texts = i + 1;
            let mut terms = terms(text);
            terms.sort_unstable();
            terms.dedup();
            for term in terms {
                near.postings.entry(term).or_default().push(i as u32);
            }
        }
        near
    }

    /// Up to `k` texts nearest to `text`, best first, among those that `wanted` lets pass.
    pub fn near(&self, text: &str, k: usize, mut wanted: impl FnMut(usize) -> bool) -> Vec<usize> {
        let mut terms = terms(text);
        terms.sort_unstable();
        terms.dedup();
        let mut lists: Vec<&Vec<u32>> = terms.iter().filter_map(|t| self.postings.get(t)).collect();
        lists.sort_by_key(|l| l.len());
        let mut hits: Vec<(u32, f32)> = Vec::with_capacity(TERMS * POSTINGS);
        for list in lists.into_iter().take(TERMS) {
            let n = list.len() as f32;
            let weight = ((self.texts as f32 - n + 0.5) / (n + 0.5) + 1.0).ln();
            // Where a term is common, a stretch that depends on the text keeps the choice varied and the cost bounded.
            let start = if list.len() > POSTINGS { text.len() * 7919 % (list.len() - POSTINGS) } else { 0 };
            hits.extend(list.iter().skip(start).take(POSTINGS).map(|&at| (at, weight)));
        }
        // Rarest terms first within a text, so that the sums have one order.
        hits.sort_by_key(|hit| hit.0);
        let sums = hits.chunk_by(|a, b| a.0 == b.0).map(|same| (same.iter().map(|h| h.1).sum::<f32>(), same[0].0));
        // Scores are positive, so that their bits are in their order; the first text of equal ones comes first.
        let mut best: BinaryHeap<(u32, Reverse<u32>)> =
            sums.map(|(score, at)| (score.to_bits(), Reverse(at))).collect();
        let mut found = Vec::with_capacity(k);
        while found.len() < k {
            let Some((_, Reverse(at))) = best.pop() else { break };
            if wanted(at as usize) {
                found.push(at as usize);
            }
        }
        found
    }
}

/// Words in lower case; for Chinese, pairs of neighbouring characters. Hashed (FNV-1a).
fn terms(text: &str) -> Vec<u64> {
    const START: u64 = 0xCBF2_9CE4_8422_2325;
    let step = |hash: u64, c: char| (hash ^ u64::from(u32::from(c))).wrapping_mul(0x0100_0000_01B3);
    let mut out = Vec::new();
    let (mut word, mut last_han) = (START, None);
    for c in text.chars().chain([' ']) {
        if is_han(c) {
            if let Some(last) = last_han {
                out.push(step(step(START, last), c));
            }
            last_han = Some(c);
        } else {
            last_han = None;
        }
        if c.is_alphanumeric() && !is_han(c) {
            word = c.to_lowercase().fold(word, step);
        } else if word != START {
            out.push(word);
            word = START;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_rare_words_come_first() {
        let texts = ["red running shoes", "blue running shoes", "steel kettle", "red kettle", "红色跑鞋", "红色水壶"];
        let near = Near::new(texts);
        assert_eq!(near.near("Kettle, steel", 2, |_| true), [2, 3]);
        assert_eq!(near.near("Kettle, steel", 2, |at| at != 2), [3]);
        assert_eq!(near.near("蓝色跑鞋", 3, |_| true), [4]);
        assert!(near.near("sofa", 3, |_| true).is_empty());
    }
}
