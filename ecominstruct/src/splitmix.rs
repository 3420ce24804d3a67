//! Small seeded random numbers, the same on every machine.

/// `SplitMix64` (Steele, Lea, Flood 2014). One stream per (seed, index), so that item 7 draws the same numbers whether or
/// not items 0 to 6 were drawn before.
#[derive(Debug, Clone)]
pub struct SplitMix(u64);

impl SplitMix {
    /// A generator with this state.
    pub fn new(state: u64) -> Self {
        Self(state)
    }

    /// The stream of item `index` under `seed`.
    pub fn stream(seed: u64, index: u64) -> Self {
        Self(Self(seed).next_u64() ^ Self(index.wrapping_mul(0xD134_2543_DE82_EF95)).next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`, 0 where `n` is 0. The bias is below `n`/2⁶⁴.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next_u64() % n as u64) as usize }
    }

    /// Shuffles in place (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // First outputs for state 0 of the reference implementation (xoshiro.di.unimi.it/splitmix64.c).
        let mut rng = SplitMix::new(0);
        assert_eq!(rng.next_u64(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(rng.next_u64(), 0x6E78_9E6A_A1B9_65F4);
        assert_ne!(SplitMix::stream(1, 0).next_u64(), SplitMix::stream(0, 1).next_u64());
    }

    #[test]
    fn shuffle_keeps_all() {
        let mut items: Vec<_> = (0..50).collect();
        SplitMix::new(3).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
