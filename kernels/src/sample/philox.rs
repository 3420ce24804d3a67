/// A counter-based random generator, Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011):
/// a number depends on seed, stream and counter alone, so that nothing need be stored to resume, and threads may draw in
/// any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    seed: u64,
    stream: u64,
}

impl Philox {
    /// The generator of a `seed`; its `stream`s are independent of each other.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { seed, stream }
    }

    /// Four random words. The seed is the key; the counter's low words are `counter`, its high words the stream.
    pub fn at(&self, counter: u64) -> [u32; 4] {
        let ([c0, c1], [c2, c3]) = (words(counter), words(self.stream));
        rounds([c0, c1, c2, c3], words(self.seed))
    }

    /// A number in [0, 1), a multiple of 2⁻⁵³, from the first two words.
    pub fn uniform(&self, counter: u64) -> f64 {
        const STEP: f64 = 1.0 / (1u64 << 53) as f64;
        (self.long(counter) >> 11) as f64 * STEP
    }

    /// The numbers below `n` in a random order, each order equally likely (Fisher and Yates; the numbers below i + 1
    /// drawn without bias as in Lemire, arXiv:1805.10941). Uses the counters from 0 on. `n` is at most 2³².
    pub fn permutation(&self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..=u32::MAX).take(n).collect();
        let mut counter = 0;
        for i in (1..order.len()).rev() {
            let choices = i as u64 + 1;
            let unfair = choices.wrapping_neg() % choices; // 2⁶⁴ mod choices
            let chosen = loop {
                let product = u128::from(self.long(counter)) * u128::from(choices);
                counter += 1;
                if product as u64 >= unfair {
                    break (product >> 64) as usize;
                }
            };
            order.swap(i, chosen);
        }
        order
    }

    fn long(&self, counter: u64) -> u64 {
        let [low, high, ..] = self.at(counter);
        u64::from(high) << 32 | u64::from(low)
    }
}

/// Ten rounds of the cipher.
pub(super) fn rounds(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [c0, c1, c2, c3] = counter;
        let ([low0, high0], [low1, high1]) = (words(u64::from(c0) * 0xD251_1F53), words(u64::from(c2) * 0xCD9E_8D57));
        counter = [high1 ^ c1 ^ key[0], low1, high0 ^ c3 ^ key[1], low0];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// Low word first.
fn words(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}
