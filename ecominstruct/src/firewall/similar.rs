//! Finds the most similar of many sets, exactly.
//!
//! Prefix filter (Chaudhuri et al. 2006; Wang, Li, Feng 2012): put the pieces of all sets in one order. Two sets of
//! Jaccard similarity 0.7 share at least `a = ⌈0.7 n⌉` pieces of either, hence at least m of the first `n − a + m` of
//! both. Rare pieces come first, so few sets share that many, and these are compared in full.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::sketch::Sketch;
use crate::shingle::{Plain, mix, shared};

/// Similarity to be found, in tenths: counting needs no rounding.
const TENTHS: usize = 7;
/// Shared first pieces that make two sets worth comparing.
const SHARED: usize = 6;

/// Sets of hashes: sorted, each once.
#[derive(Debug, Default)]
pub(super) struct Similar {
    sets: Vec<Box<[u32]>>,
    /// Made when it is first asked for, and again after new sets came.
    index: OnceLock<Index>,
}

/// Which sets hold a piece among their first ones.
#[derive(Debug)]
struct Index {
    /// Numbers of the sets in order of size, and the sizes.
    by_size: Vec<u32>,
    sizes: Vec<u32>,
    /// All pieces of all sets, and which are surely none of them.
    pieces: HashMap<u64, Piece, Plain>,
    sketch: Sketch,
    /// Places in `by_size`, ascending for each piece.
    places: Vec<u32>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Piece {
    /// Sets that hold it: the order of pieces.
    count: u32,
    /// Its part of `places`.
    start: u32,
    end: u32,
}

impl Similar {
    pub(super) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    pub(super) fn add(&mut self, set: Vec<u32>) {
        self.sets.push(set.into());
        self.index = OnceLock::new();
    }

    /// Whether surely no set is similar to the set of `pieces`, which may repeat: so many of them are in no set. Where most
    /// rows end, before anything is sorted or looked up.
    pub(super) fn is_far(&self, pieces: &[u32]) -> bool {
        let index = self.index.get_or_init(|| Index::new(&self.sets));
        let mut known = 0;
        // Different places are different pieces: at least so many of them.
        let mut unknown = [0u64; 16];
        for piece in pieces {
            let piece = mix(u64::from(*piece));
            if index.sketch.may_hold(piece) {
                known += 1;
            } else {
                let place = piece >> 54;
                unknown[(place / 64) as usize] |= 1 << (place % 64);
            }
        }
        let unknown: u32 = unknown.iter().map(|word| word.count_ones()).sum();
        // A similar set shares no more than the known ones, and at least 7 tenths of all.
        TENTHS * unknown as usize > (10 - TENTHS) * known
    }

    /// The greatest similarity with a set, where that is at least 0.7; 0 or less than 0.7 otherwise.
    pub(super) fn best(&self, set: &[u32]) -> f64 {
        let index = self.index.get_or_init(|| Index::new(&self.sets));
        // Only sets of like size are similar enough.
        let first = index.sizes.partition_point(|&size| 10 * (size as usize) < TENTHS * set.len());
        let last = index.sizes.partition_point(|&size| TENTHS * (size as usize) <= 10 * set.len());
        let Some(&least) = index.sizes[first..last].first() else { return 0.0 };
        let Some(firsts) = index.firsts(set) else { return 0.0 };
        let enough = SHARED.min(overlap(set.len().min(least as usize))) as u8;
        let mut hits = vec![0u8; last - first];
        let mut best = 0.0f64;
        for (_, piece) in firsts {
            let places = &index.places[piece.start as usize..piece.end as usize];
            let from = places.partition_point(|&place| (place as usize) < first);
            for &place in places[from..].iter().take_while(|&&place| (place as usize) < last) {
                let hits = &mut hits[place as usize - first];
                *hits = hits.saturating_add(1);
                if *hits == enough {
                    let other = &self.sets[index.by_size[place as usize] as usize];
                    let both = shared(set, other);
                    best = best.max(both as f64 / (set.len() + other.len() - both) as f64);
                }
            }
        }
        best
    }
}

impl Index {
    fn new(sets: &[Box<[u32]>]) -> Self {
        let mut by_size: Vec<u32> = (0..sets.len() as u32).collect();
        by_size.sort_by_key(|&n| sets[n as usize].len());
        let sizes = by_size.iter().map(|&n| sets[n as usize].len() as u32).collect();
        let mut index =
            Self { by_size, sizes, pieces: HashMap::default(), sketch: Sketch::default(), places: Vec::new() };
        for piece in sets.iter().flatten() {
            index.pieces.entry(mix(u64::from(*piece))).or_default().count += 1;
        }
        index.sketch = Sketch::new(index.pieces.keys().copied());
        let mut entries: Vec<(u64, u32)> = Vec::new();
        for (place, &n) in index.by_size.iter().enumerate() {
            let firsts = index.firsts(&sets[n as usize]).unwrap_or_default();
            entries.extend(firsts.iter().map(|(piece, _)| (*piece, place as u32)));
        }
        entries.sort_unstable();
        for (at, (piece, place)) in entries.into_iter().enumerate() {
            index.places.push(place);
            if let Some(piece) = index.pieces.get_mut(&piece) {
                piece.start = if piece.end == 0 { at as u32 } else { piece.start };
                piece.end = at as u32 + 1;
            }
        }
        index
    }

    /// The pieces of a set that come first in the order, rare ones first. `None` where so many are in no set that none is
    /// similar: where most rows end.
    fn firsts(&self, set: &[u32]) -> Option<Vec<(u64, Piece)>> {
        let need = overlap(set.len());
        let mut known = Vec::with_capacity(set.len());
        let mut unknown = 0;
        for piece in set {
            let piece = mix(u64::from(*piece));
            match self.pieces.get(&piece) {
                Some(found) => known.push((piece, *found)),
                None => unknown += 1,
            }
            if unknown > set.len() - need {
                return None;
            }
        }
        // The unknown ones come before all others, and no set has them.
        let number = (set.len() - need + SHARED.min(need)).saturating_sub(unknown);
        if number < known.len() {
            known.select_nth_unstable_by_key(number, |(piece, found)| (found.count, *piece));
            known.truncate(number);
        }
        Some(known)
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
    sketch: Sketch,
    /// A text and the place of the next one, or `END`.
    texts: Vec<(u32, u32)>,
}

const END: u32 = u32::MAX;

impl Postings {
    pub(super) fn add(&mut self, hash: u64, text: u32) {
        let place = self.texts.len() as u32;
        let next = self.first.insert(hash, place).unwrap_or(END);
        self.texts.push((text, next));
        if self.sketch.has_room(self.first.len()) {
            self.sketch.add(hash);
        } else {
            self.sketch = Sketch::new(self.first.keys().copied());
        }
    }

    pub(super) fn holds(&self, hash: u64) -> bool {
        self.sketch.may_hold(hash) && self.first.contains_key(&hash)
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
        let (mut near, mut far) = (0, 0);
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
                assert!(wanted < 0.7 || !index.is_far(set), "{wanted}");
                far += usize::from(index.is_far(set));
                assert!(if wanted >= 0.7 { found == wanted } else { found < 0.7 }, "{found} {wanted}");
                near += usize::from(wanted >= 0.7);
            }
        }
        assert!((100..500).contains(&near), "{near} of 600");
        // Pieces that no set has.
        let other: Vec<u32> = (1000..1100).collect();
        let mut index = Similar::default();
        index.add((0..100).collect());
        assert!(index.is_far(&other) && !index.is_far(&[[1; 90], [1001; 90]].concat()), "{far}");
    }
}
