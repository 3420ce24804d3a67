//! Finds the most similar of many sets, exactly.
//!
//! Prefix filter (Chaudhuri et al. 2006; Wang, Li, Feng 2012): put the pieces of all sets in one order. Two sets of
//! Jaccard similarity 0.7 share at least `a = ⌈0.7 n⌉` pieces of either, hence at least m of the first `n − a + m` of
//! both. Rare pieces come first, so few sets share that many, and these are compared in full.

use std::collections::HashMap;

use crate::shingle::{Plain, mix, shared};

/// Similarity to be found, in tenths: counting needs no rounding.
const TENTHS: usize = 7;
/// Shared first pieces that make two sets worth comparing.
const SHARED: usize = 3;

/// Sets of hashes: sorted, each once.
#[derive(Debug, Default)]
pub(super) struct Similar {
    sets: Vec<Box<[u32]>>,
    /// First pieces of each set.
    firsts: Postings,
    /// How many sets held a piece when there were `counted` of them: the order of pieces. All known pieces are here,
    /// those that came later with 0.
    counts: HashMap<u64, u32, Plain>,
    counted: usize,
    largest: usize,
}

impl Similar {
    pub(super) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    pub(super) fn add(&mut self, set: Vec<u32>) {
        self.largest = self.largest.max(set.len());
        self.sets.push(set.into());
        if self.sets.len() > 2 * self.counted {
            self.count();
        } else {
            let id = self.sets.len() - 1;
            for piece in &self.sets[id] {
                self.counts.entry(mix(u64::from(*piece))).or_default();
            }
            self.enter(id);
        }
    }

    /// The greatest similarity with a set, where that is at least 0.7; 0 or less than 0.7 otherwise.
    pub(super) fn best(&self, set: &[u32]) -> f64 {
        // Most rows end here: more of their pieces are unknown than may be.
        let mut unknown = set.iter().filter(|piece| !self.counts.contains_key(&mix(u64::from(**piece))));
        if TENTHS * set.len() > 10 * self.largest || unknown.nth(set.len() - overlap(set.len())).is_some() {
            return 0.0;
        }
        let mut sharing: Vec<u32> = self.firsts_of(set).flat_map(|piece| self.firsts.texts(piece)).collect();
        sharing.sort_unstable();
        let mut best = 0.0f64;
        for same in sharing.chunk_by(|a, b| a == b) {
            let Some(other) = same.first().and_then(|&id| self.sets.get(id as usize)) else { continue };
            let (small, large) = (set.len().min(other.len()), set.len().max(other.len()));
            if 10 * small >= TENTHS * large && same.len() >= SHARED.min(overlap(small)) {
                let both = shared(set, other);
                best = best.max(both as f64 / (small + large - both) as f64);
            }
        }
        best
    }

    /// Orders the pieces anew by how many sets hold them, each time the sets have doubled.
    fn count(&mut self) {
        self.counted = self.sets.len();
        self.counts.clear();
        for piece in self.sets.iter().flatten() {
            *self.counts.entry(mix(u64::from(*piece))).or_default() += 1;
        }
        self.firsts = Postings::default();
        (0..self.sets.len()).for_each(|id| self.enter(id));
    }

    fn enter(&mut self, id: usize) {
        let firsts: Vec<u64> = self.sets.get(id).map(|set| self.firsts_of(set).collect()).unwrap_or_default();
        firsts.iter().for_each(|piece| self.firsts.add(*piece, id as u32));
    }

    /// The pieces of a set that come first in the order, mixed.
    fn firsts_of(&self, set: &[u32]) -> impl Iterator<Item = u64> {
        let need = overlap(set.len());
        let number = set.len() - need + SHARED.min(need);
        let place = |piece: &u32| {
            let piece = mix(u64::from(*piece));
            (self.counts.get(&piece).copied().unwrap_or(0), piece)
        };
        let mut order: Vec<(u32, u64)> = set.iter().map(place).collect();
        if number < order.len() {
            order.select_nth_unstable(number);
            order.truncate(number);
        }
        order.into_iter().map(|(_, piece)| piece)
    }
}

/// Pieces that a set of `n` shares with any set of similarity 0.7.
fn overlap(n: usize) -> usize {
    (TENTHS * n).div_ceil(10)
}

/// Which texts hold a hash: a linked list for each hash, all in one vector.
#[derive(Debug, Default)]
pub(super) struct Postings {
    first: HashMap<u64, u32, Plain>,
    /// A text and the place of the next one, or `END`.
    texts: Vec<(u32, u32)>,
}

const END: u32 = u32::MAX;

impl Postings {
    pub(super) fn add(&mut self, hash: u64, text: u32) {
        let place = self.texts.len() as u32;
        let next = self.first.insert(hash, place).unwrap_or(END);
        self.texts.push((text, next));
    }

    pub(super) fn holds(&self, hash: u64) -> bool {
        self.first.contains_key(&hash)
    }

    pub(super) fn texts(&self, hash: u64) -> impl Iterator<Item = u32> {
        let mut next = self.first.get(&hash).copied().unwrap_or(END);
        std::iter::from_fn(move || {
            let (text, following) = *self.texts.get(next as usize)?;
            next = following;
            Some(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shingle::distinct;
    use crate::splitmix::SplitMix;

    #[test]
    fn found_exactly_where_it_is() {
        // Against all pairs one by one; some pieces are in most sets, some in few.
        let mut rng = SplitMix::new(5);
        let mut piece = |n: usize| (rng.below(n) * rng.below(n)) as u32;
        let mut near = 0;
        for pieces in [4, 6, 20] {
            let sets: Vec<Vec<u32>> =
                (0..400).map(|i| distinct((0..=i % (2 * pieces)).map(|_| piece(pieces)))).collect();
            let mut index = Similar::default();
            sets[..200].iter().for_each(|set| index.add(set.clone()));
            for set in &sets[200..] {
                let jaccard = |other: &Vec<u32>| {
                    let both = shared(set, other);
                    both as f64 / (set.len() + other.len() - both) as f64
                };
                let wanted = sets[..200].iter().map(jaccard).fold(0.0, f64::max);
                let found = index.best(set);
                assert!(if wanted >= 0.7 { found == wanted } else { found < 0.7 }, "{found} {wanted}");
                near += usize::from(wanted >= 0.7);
            }
        }
        assert!((100..500).contains(&near), "{near} of 600");
    }
}
