//! A set of hashes that says quickly that most others are not in it.

use std::collections::HashSet;

use crate::shingle::Plain;

/// A bit for each hash: a clear bit is a hash that was never added, a set one may be another's. Eight bits a hash, so that
/// one in eight of the others is let pass.
#[derive(Debug, Clone)]
pub(super) struct Sketch {
    words: Vec<u64>,
    mask: u64,
}

impl Sketch {
    /// Of all these hashes.
    pub(super) fn new(hashes: impl ExactSizeIterator<Item = u64>) -> Self {
        let bits = (8 * hashes.len() as u64).next_power_of_two().max(64);
        let mut sketch = Self { words: vec![0; (bits / 64) as usize], mask: bits - 1 };
        hashes.for_each(|hash| sketch.add(hash));
        sketch
    }

    /// Whether there is room for another hash without letting many more pass.
    pub(super) fn has_room(&self, hashes: usize) -> bool {
        8 * hashes as u64 <= self.mask + 1
    }

    pub(super) fn add(&mut self, hash: u64) {
        let bit = hash & self.mask;
        if let Some(word) = self.words.get_mut((bit / 64) as usize) {
            *word |= 1 << (bit % 64);
        }
    }

    pub(super) fn may_hold(&self, hash: u64) -> bool {
        let bit = hash & self.mask;
        self.words.get((bit / 64) as usize).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }
}

impl Default for Sketch {
    fn default() -> Self {
        Self::new([].into_iter())
    }
}

/// A set of hashes behind its sketch.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    all: HashSet<u64, Plain>,
    sketch: Sketch,
}

impl Hashes {
    pub(super) fn contains(&self, hash: u64) -> bool {
        self.sketch.may_hold(hash) && self.all.contains(&hash)
    }
}

impl Extend<u64> for Hashes {
    fn extend<I: IntoIterator<Item = u64>>(&mut self, hashes: I) {
        for hash in hashes {
            self.all.insert(hash);
            if self.sketch.has_room(self.all.len()) {
                self.sketch.add(hash);
            } else {
                self.sketch = Sketch::new(self.all.iter().copied().collect::<Vec<_>>().into_iter());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::splitmix::SplitMix;

    #[test]
    fn what_was_added_is_there_and_most_else_is_not() {
        let mut rng = SplitMix::new(1);
        let mut hashes = Hashes::default();
        let added: Vec<u64> = (0..1000).map(|_| rng.next_u64()).collect();
        for hash in &added {
            assert!(!hashes.contains(*hash));
            hashes.extend([*hash]);
        }
        assert!(added.iter().all(|hash| hashes.contains(*hash) && hashes.sketch.may_hold(*hash)));
        // At most one bit in eight is set: of 1,000 others 125 pass on average, with a standard deviation of 10.5.
        let others = (0..1000).filter(|_| hashes.sketch.may_hold(rng.next_u64())).count();
        assert!(others < 125 + 6 * 11, "{others}");
    }
}
