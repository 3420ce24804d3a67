//! Text as runs of hashed units, for comparing texts: words for English, characters for Chinese.
//!
//! Hashes are made of code points by integer arithmetic alone: the same on every machine and in every run.

use std::hash::{BuildHasherDefault, Hasher};

use unicode_normalization::UnicodeNormalization;

use crate::instruction::{Lang, is_han};
use crate::splitmix::SplitMix;

/// Multiplier of the polynomial over units; any odd number, as units are well mixed. This one is the golden ratio's.
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

/// A text without case, width, white space, punctuation and symbols, cut into the units of `score::parse::words`.
#[derive(Debug, Clone, Default)]
pub struct Folded {
    /// English: words with one space between. Chinese: the characters without any.
    pub text: String,
    /// One hash a word (English) or a letter, digit or Han character (Chinese).
    pub units: Vec<u64>,
    /// Letters and digits: a running hash, and their number.
    letters: (u64, usize),
}

impl Folded {
    /// Folds `text` by the rules of `lang`. NFKC and lower case as in `score::parse::normal`.
    pub fn new(text: &str, lang: Lang) -> Self {
        let room = text.len();
        let mut folded =
            Self { text: String::with_capacity(room), units: Vec::with_capacity(room / 4), letters: (0, 0) };
        let mut word = None;
        each_folded(text, |c| {
            if !is_alphanumeric(c) {
                folded.units.extend(word.take().map(mix));
                return;
            }
            folded.letters = (step(folded.letters.0, c), folded.letters.1 + 1);
            let alone = lang == Lang::Zh || is_han(c);
            if alone {
                folded.units.extend(word.take().map(mix));
            }
            if lang == Lang::En && word.is_none() && !folded.text.is_empty() {
                folded.text.push(' ');
            }
            folded.text.push(c);
            if alone {
                folded.units.push(mix(step(0, c)));
            } else {
                word = Some(step(word.unwrap_or(0), c));
            }
        });
        folded.units.extend(word.map(mix));
        folded
    }

    /// [`hash_letters`] of the text, without their number.
    pub fn letters_hash(&self) -> u64 {
        mix(self.letters.0 ^ self.letters.1 as u64)
    }

    /// One hash a character of `text`, spaces between words among them.
    pub fn letters(&self) -> Vec<u64> {
        self.text.chars().map(|c| mix(step(0, c))).collect()
    }
}

/// Hashes of all runs of `n` neighbours, in order; none where there are fewer than `n`, or where `n` is 0.
pub fn grams(units: &[u64], n: usize) -> impl Iterator<Item = u64> {
    // A polynomial over the last n units, modulo 2⁶⁴: the next one takes one product in and one out.
    let leaving = (0..n).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let mut sum = 0u64;
    units.iter().enumerate().filter_map(move |(i, unit)| {
        sum = sum.wrapping_mul(BASE).wrapping_add(*unit);
        if let Some(old) = i.checked_sub(n).and_then(|at| units.get(at)) {
            sum = sum.wrapping_sub(old.wrapping_mul(leaving));
        }
        (n > 0 && i + 1 >= n).then(|| mix(sum ^ n as u64))
    })
}

/// Sorted, each value once.
pub fn distinct<T: Ord>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// How many values two [`distinct`] lists share.
pub fn shared<T: Ord>(a: &[T], b: &[T]) -> usize {
    let (mut i, mut j, mut both) = (0, 0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        both += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    both
}

/// 128-bit FNV-1a over the code points of `score::parse::normal(text)`, from `state` on. Punctuation counts, white
/// space runs are one space.
pub fn hash_normal(state: u128, text: &str) -> u128 {
    let mut state = state;
    let (mut begun, mut space) = (false, false);
    each_folded(text, |c| {
        if c.is_whitespace() {
            space = begun;
        } else {
            if std::mem::take(&mut space) {
                state = fnv(state, ' ');
            }
            state = fnv(state, c);
            begun = true;
        }
    });
    // Not a character, so that parts keep their borders.
    (state ^ 0x11_0000).wrapping_mul(FNV_PRIME)
}

/// Hash of the letters and digits of `text` and their number: equal for texts that differ in case, width, white space,
/// punctuation and symbols only, whatever their language.
pub fn hash_letters(text: &str) -> (u64, usize) {
    let (mut state, mut number) = (0, 0);
    each_folded(text, |c| {
        if is_alphanumeric(c) {
            state = step(state, c);
            number += 1;
        }
    });
    (mix(state ^ number as u64), number)
}

/// Hash of a word.
pub fn hash_chars(word: impl IntoIterator<Item = char>) -> u64 {
    mix(word.into_iter().fold(0, step))
}

/// A bijection of 64 bits in which every input bit moves every output bit.
pub fn mix(value: u64) -> u64 {
    SplitMix::new(value).next_u64()
}

/// Hasher of keys that are hashes already.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Given(u64);

/// Builds [`Given`]: no random state, so the same in every run.
pub(crate) type Plain = BuildHasherDefault<Given>;

impl Hasher for Given {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = mix(self.0 ^ u64::from(*b)));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = mix(value as u64 ^ (value >> 64) as u64);
    }
}

const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013B;

fn fnv(state: u128, c: char) -> u128 {
    (state ^ u128::from(u32::from(c))).wrapping_mul(FNV_PRIME)
}

fn step(state: u64, c: char) -> u64 {
    (state.rotate_left(5) ^ u64::from(u32::from(c))).wrapping_mul(0xD134_2543_DE82_EF95)
}

fn is_alphanumeric(c: char) -> bool {
    match c {
        '\0'..='\u{7F}' => c.is_ascii_alphanumeric(),
        '\u{4E00}'..='\u{9FFF}' => true,
        _ => c.is_alphanumeric(),
    }
}

/// Gives `take` the characters of `text` in NFKC and lower case.
pub fn each_folded(text: &str, mut take: impl FnMut(char)) {
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let alone = chars.peek().is_none_or(|&(_, next)| plain(next).is_some());
        match plain(c) {
            Some(folded) if alone => take(folded),
            // From a plain character, which a mark behind it may join, up to the next plain one, which joins nothing
            // before.
            _ => {
                while chars.next_if(|&(_, c)| plain(c).is_none()).is_some() {}
                let end = chars.peek().map_or(text.len(), |&(end, _)| end);
                text[at..end].nfkc().flat_map(char::to_lowercase).for_each(&mut take);
            }
        }
    }
}

/// NFKC and lower case of a character that combines with nothing before it: nearly all of English and Chinese text.
fn plain(c: char) -> Option<char> {
    match c {
        '\0'..='\u{7F}' => Some(c.to_ascii_lowercase()),
        '\u{4E00}'..='\u{9FFF}' | '\u{3001}' | '\u{3002}' | '\u{2018}'..='\u{201D}' => Some(c),
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(u32::from(c) - 0xFEE0).map(|c| c.to_ascii_lowercase()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::parse::{normal, words};
    use proptest::prelude::*;

    #[test]
    fn folding_is_that_of_the_scores() {
        let text = "Ｔｈｅ 5-star\u{3000}LAMP，Ａ\u{301}e\u{301}\u{323} ﬁne…  红色 ㎏ ｶﾞ “Ok”！İ";
        let mut folded = String::new();
        each_folded(text, |c| folded.push(c));
        assert_eq!(folded.split_whitespace().collect::<Vec<_>>().join(" "), normal(text));
        assert_eq!(Folded::new(text, Lang::En).text, words(text, Lang::En).join(" "));
        assert_eq!(Folded::new(text, Lang::Zh).text, words(text, Lang::Zh).concat());
    }

    proptest! {
        #[test]
        fn folding_is_that_of_the_scores_for_any_text(
            text in concat!(
                r"[ -~\u{FF01}-\u{FF5E}\u{4E00}-\u{4E05}\u{300}-\u{323}\u{E0}-\u{EB}",
                r"\u{1100}-\u{11FF}\u{AC00}\u{FB01}\u{2026}\u{201C}\u{3000}]{0,30}",
            )
        ) {
            for lang in [Lang::En, Lang::Zh] {
                let wanted = words(&text, lang);
                let found = Folded::new(&text, lang);
                prop_assert_eq!(&found.text, &if lang == Lang::En { wanted.join(" ") } else { wanted.concat() });
                prop_assert_eq!(found.units.len(), wanted.len());
                prop_assert_eq!(found.letters_hash(), hash_letters(&text).0);
            }
            // Over the code points of the normal form as they are: folding that twice may compose letters further.
            let whole = normal(&text);
            prop_assert_eq!(hash_normal(7, &text), (whole.chars().fold(7, fnv) ^ 0x11_0000).wrapping_mul(FNV_PRIME));
            let letters: Vec<char> = whole.chars().filter(|&c| is_alphanumeric(c)).collect();
            let hash = mix(letters.iter().fold(0, |state, &c| step(state, c)) ^ letters.len() as u64);
            prop_assert_eq!(hash_letters(&text), (hash, letters.len()));
        }

        #[test]
        fn rolling_is_the_same_as_from_scratch(units in prop::collection::vec(any::<u64>(), 0..40), n in 0usize..12) {
            let rolled: Vec<u64> = grams(&units, n).collect();
            let fresh: Vec<u64> = if n == 0 { vec![] } else { units.windows(n).flat_map(|w| grams(w, n)).collect() };
            prop_assert_eq!(rolled, fresh);
        }
    }

    #[test]
    fn known_values_on_every_machine() {
        assert_eq!(hash_letters("A-1"), hash_letters("a１"));
        assert_eq!(hash_letters("A-1").0, mix(step(step(0, 'a'), '1') ^ 2));
        assert_eq!(step(0, 'a'), 97u64.wrapping_mul(0xD134_2543_DE82_EF95));
        assert_ne!(hash_normal(hash_normal(0, "ab"), "c"), hash_normal(hash_normal(0, "a"), "bc"));
        assert_ne!(hash_normal(0, "1.5"), hash_normal(0, "15"));
        assert_eq!(hash_normal(0, " a  b "), hash_normal(0, "Ａ b"));
    }

    #[test]
    fn sets_share() {
        let (a, b) = (distinct([3, 1, 2, 3]), distinct([2, 3, 9]));
        assert_eq!((a.len(), shared(&a, &b), shared(&b, &a), shared(&a, &[])), (3, 2, 2, 0));
    }
}
