//! Finds texts that were seen before, exactly or nearly. The first in order stays.
//!
//! **Memory.** A text given to [`Dedup::insert_exact`] takes 19 to 39 bytes. A text that [`Dedup::insert_near`] keeps
//! takes at most 100: 48 of signature, 38 to 47 of table, and the spare room of a vector.
//!
//! **Near** is a Jaccard similarity of 0.8 over runs of 3 words (English) or 5 characters (Chinese), estimated by
//! `MinHash` (Broder 1997): of 48 random orders of all runs, the share in which two texts have the same first run. One
//! byte of each first run is kept (b-bit `MinHash`, Li and König 2010). The estimate's standard deviation is 0.06 at
//! 0.8; a pair of similarity 0.9 is found in 98 of 100 cases, one of 0.8 in half, one of 0.6 in 1 of 1,000. Texts are
//! compared that agree in 4 neighbouring bytes of the signature, in any of 8 places.

use std::collections::HashSet;

use crate::instruction::Lang;
use crate::shingle::{Folded, Plain, grams, hash_normal, mix};
use crate::splitmix::SplitMix;

/// What was seen before.
#[derive(Debug)]
pub struct Dedup {
    exact: HashSet<u128, Plain>,
    orders: [(i32, i32); SIGNATURE],
    signatures: Vec<Signature>,
    slots: Vec<u32>,
    used: usize,
}

/// Random orders of all runs.
const SIGNATURE: usize = 48;
/// Bytes of a signature that make one key.
const BAND: usize = 4;
/// Keys of a signature.
const BANDS: usize = 8;
/// Equal bytes of a near duplicate: 48 × (0.8 + 0.2 / 256), as unequal runs share a byte once in 256 times.
const EQUAL: usize = 39;
/// Texts with one key that are looked at; more of them are near each other anyway.
const SAME_KEY: usize = 8;
/// Lower bits of a slot: the text's number, from 1 on; 0 is an empty slot. The upper 6 are of the key.
const NUMBER: u32 = (1 << 26) - 1;

/// What two texts are compared by.
pub(crate) type Signature = [u8; SIGNATURE];

impl Default for Dedup {
    fn default() -> Self {
        Self::new()
    }
}

impl Dedup {
    /// Nothing seen yet.
    pub fn new() -> Self {
        let mut rng = SplitMix::new(0x6D69_6E68_6173_6821);
        let orders = std::array::from_fn(|_| {
            let bits = rng.next_u64();
            ((bits as u32 | 1).cast_signed(), ((bits >> 32) as u32).cast_signed())
        });
        Self { exact: HashSet::default(), orders, signatures: Vec::new(), slots: Vec::new(), used: 0 }
    }

    /// Whether `parts` are new: no earlier ones were the same up to case, width and white space (128-bit hash).
    /// Punctuation counts, and so do the borders between parts.
    pub fn insert_exact(&mut self, parts: &[&str]) -> bool {
        let hash = parts.iter().fold(0x6C62_272E_07BB_0142_62B8_2175_6295_C58D, |hash, part| hash_normal(hash, part));
        self.exact.insert(hash)
    }

    /// Whether `text` is new: no earlier new one is near it. Case, width, white space, punctuation and symbols do not
    /// count; a text without letters or digits is always new. Texts beyond 67 million are compared with those only.
    pub fn insert_near(&mut self, text: &str) -> bool {
        self.insert(self.signature(text))
    }

    /// [`Dedup::insert_near`] of the text that gave this signature.
    pub(crate) fn insert(&mut self, signature: Option<Signature>) -> bool {
        let Some(signature) = signature else { return true };
        if (0..BANDS).any(|band| self.seen(&signature, band)) {
            return false;
        }
        if self.signatures.len() >= NUMBER as usize {
            return true;
        }
        if self.signatures.len() == self.signatures.capacity() {
            self.signatures.reserve_exact(self.signatures.len() / 16 + 64);
        }
        self.signatures.push(signature);
        if (self.used + BANDS) * 20 > self.slots.len() * 17 {
            self.grow();
        } else {
            self.enter(self.signatures.len());
        }
        true
    }

    /// `None` for a text without units. A text too short for a run is one run itself.
    pub(crate) fn signature(&self, text: &str) -> Option<Signature> {
        let lang = Lang::detect(text);
        let units = Folded::new(text, lang).units;
        let run = if lang == Lang::En { 3 } else { 5 };
        let mut first = [i32::MAX; SIGNATURE];
        for gram in grams(&units, run.min(units.len())) {
            let gram = ((gram >> 32) as u32).cast_signed();
            for (first, (factor, offset)) in first.iter_mut().zip(&self.orders) {
                *first = (*first).min(gram.wrapping_mul(*factor).wrapping_add(*offset));
            }
        }
        (!units.is_empty()).then(|| first.map(|run| run.cast_unsigned() as u8))
    }

    fn seen(&self, signature: &Signature, band: usize) -> bool {
        let key = key(signature, band);
        self.occupied(key).filter(|slot| tag(*slot) == tag(key)).filter_map(|slot| self.text(slot)).any(|other| {
            let equal = signature.iter().zip(other).filter(|(a, b)| a == b).count();
            equal >= EQUAL
        })
    }

    /// The slots from a key's place on, up to the first empty one.
    fn occupied(&self, key: u32) -> impl Iterator<Item = u32> {
        let home = self.home(key);
        let slots = self.slots[home..].iter().chain(&self.slots[..home]);
        slots.copied().take_while(|slot| *slot != 0)
    }

    fn home(&self, key: u32) -> usize {
        ((mix(u64::from(key)) >> 32) as usize * self.slots.len()) >> 32
    }

    fn text(&self, slot: u32) -> Option<&Signature> {
        self.signatures.get(((slot & NUMBER) as usize).checked_sub(1)?)
    }

    /// Enters the keys of text `number`, counted from 1.
    fn enter(&mut self, number: usize) {
        let Some(&signature) = self.text(number as u32) else { return };
        for band in 0..BANDS {
            let key = key(&signature, band);
            let (mut past, mut same) = (0, 0);
            for slot in self.occupied(key) {
                past += 1;
                same += usize::from(tag(slot) == tag(key) && self.has_key(slot, key));
            }
            if same < SAME_KEY {
                let at = (self.home(key) + past) % self.slots.len();
                self.slots[at] = tag(key) | number as u32;
                self.used += 1;
            }
        }
    }

    fn has_key(&self, slot: u32, wanted: u32) -> bool {
        self.text(slot).is_some_and(|other| (0..BANDS).any(|band| key(other, band) == wanted))
    }

    /// A quarter more slots, and all texts entered anew: full to between 0.68 and 0.85.
    fn grow(&mut self) {
        let length = self.slots.len() * 5 / 4 + 64;
        self.slots = Vec::new();
        self.slots.resize(length, 0);
        self.used = 0;
        (1..=self.signatures.len()).for_each(|number| self.enter(number));
    }
}

/// The bytes of a band, mixed with its place.
fn key(signature: &Signature, band: usize) -> u32 {
    let bytes = signature[band * BAND..].iter().take(BAND).fold(band as u64, |key, byte| key << 8 | u64::from(*byte));
    (mix(bytes) >> 32) as u32
}

/// The part of a key, or of a slot, that tells most other keys apart.
fn tag(key: u32) -> u32 {
    key & !NUMBER
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shingle::{distinct, shared};

    fn words(rng: &mut SplitMix, n: usize) -> Vec<String> {
        (0..n).map(|_| format!("w{}", rng.below(5000))).collect()
    }

    #[test]
    fn exact_is_up_to_case_width_and_space() {
        let mut seen = Dedup::new();
        assert!(seen.insert_exact(&["F01", "Red  lamp", "1.5"]));
        assert!(!seen.insert_exact(&["f01", " red lamp", "１.5"]));
        assert!(seen.insert_exact(&["F01", "Red lamp", "15"]));
        assert!(seen.insert_exact(&["F01", "Red lamp 1.5"]));
        assert!(seen.insert_exact(&["F01", "Red", "lamp 1.5"]));
        assert!(seen.insert_exact(&[]) && seen.insert_exact(&[""]) && !seen.insert_exact(&[" "]));
    }

    #[test]
    fn near_is_a_matter_of_similarity() {
        let mut rng = SplitMix::new(1);
        let (mut found, mut wrong, mut bias) = ([0; 3], 0, 0.0);
        for _ in 0..300 {
            // One changed word at the end of n words leaves n − 3 of n − 1 runs.
            let text = words(&mut rng, 60);
            let mut near = text.clone();
            near[59] = "other".into();
            let mut far = text.clone();
            (0..3).for_each(|i| far[10 + i * 15] = "other".into());
            let mut seen = Dedup::new();
            assert!(seen.insert_near(&text.join(" ")));
            found[0] += usize::from(!seen.insert_near(&text.join("  ").to_uppercase()));
            found[1] += usize::from(!seen.insert_near(&near.join(" ")));
            wrong += usize::from(!seen.insert_near(&far.join(" ")));
            found[2] += usize::from(seen.insert_near(&words(&mut rng, 60).join(" ")));
            let runs = |text: &[String]| distinct(grams(&Folded::new(&text.join(" "), Lang::En).units, 3));
            let (a, b) = (runs(&text), runs(&far));
            let both = shared(&a, &b);
            let signatures = [&text, &far].map(|t| seen.signature(&t.join(" ")).unwrap());
            let equal = signatures[0].iter().zip(&signatures[1]).filter(|(a, b)| a == b).count();
            bias += equal as f64 / SIGNATURE as f64 - both as f64 / (a.len() + b.len() - both) as f64;
        }
        // Similarities 1, 0.97, 0.73 and 0. The estimate's bias over 300 × 48 orders: 1 / 256 × 0.3, deviation 0.004.
        assert_eq!(found, [300, 300, 300]);
        assert!(wrong < 90, "{wrong} of 300 at 0.73");
        assert!((bias / 300.0).abs() < 0.016, "{}", bias / 300.0);
    }

    #[test]
    fn many_texts_stay_small_and_found() {
        let mut rng = SplitMix::new(2);
        let mut seen = Dedup::new();
        let texts: Vec<String> = (0..20_000).map(|_| words(&mut rng, 12).join(" ")).collect();
        let new = texts.iter().filter(|text| seen.insert_near(text)).count();
        assert!(new >= 19_990, "{new}");
        assert!(texts.iter().all(|text| !seen.insert_near(text)));
        let bytes = seen.signatures.capacity() * SIGNATURE + seen.slots.capacity() * 4;
        assert!(bytes <= 100 * new, "{} bytes a text", bytes / new);
    }

    #[test]
    fn a_crowd_with_one_key_is_bounded() {
        let mut seen = Dedup::new();
        // Half of every text is the same, so that many share keys and none is near another.
        let mut rng = SplitMix::new(3);
        let half = words(&mut rng, 30).join(" ");
        let new = (0..2000).filter(|_| seen.insert_near(&format!("{half} {}", words(&mut rng, 12).join(" ")))).count();
        assert!(new > 1000, "{new}");
        assert!(seen.used <= BANDS * new);
    }

    #[test]
    fn short_and_chinese_texts() {
        let mut seen = Dedup::new();
        assert!(seen.insert_near("red lamp") && !seen.insert_near("Red Lamp!") && seen.insert_near("blue lamp"));
        assert!(seen.insert_near("黄铜台灯") && !seen.insert_near("黄铜 台灯。") && seen.insert_near("黄铜吊灯"));
        assert!(seen.insert_near("!?") && seen.insert_near("!?") && seen.insert_near(""));
    }
}
