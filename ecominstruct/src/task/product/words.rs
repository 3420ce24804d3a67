//! Comparing texts: which words they have, whether one states the other, whether they surely differ.

use std::borrow::Cow;

use rustc_hash::FxHashSet;

use super::super::Draft;
use super::super::block::Block;
use crate::instruction::{Lang, is_han};
use crate::record::Span;

/// Longest input in characters, candidates included: about 900 tokens.
fn longest(lang: Lang) -> usize {
    match lang {
        Lang::En => 2_400,
        Lang::Zh => 900,
    }
}

/// Length bounds of a generated text in characters; the upper one is about 128 tokens.
pub(super) fn is_short_text(block: &Block, text: &str) -> bool {
    let bounds = match block.lang {
        Lang::En => 20..=560,
        Lang::Zh => 10..=200,
    };
    bounds.contains(&text.chars().count())
}

/// The draft, unless its input is too long or a part is empty.
pub(super) fn sized(block: &Block, draft: Draft) -> Option<Draft> {
    let parts = draft.input.iter().map(|(_, text)| text);
    if parts.clone().any(|text| text.trim().is_empty()) {
        return None;
    }
    let length: usize = parts.chain(&draft.candidates).map(|text| text.chars().count()).sum();
    (length <= longest(block.lang)).then_some(draft)
}

/// Whether `text` survives as one value of a list answer (`a, b`) and as a filling of a prompt.
pub(super) fn is_plain(text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let digit = |at: Option<usize>| at.and_then(|i| chars.get(i)).is_some_and(char::is_ascii_digit);
    let cuts = |(i, c): (usize, &char)| match c {
        '，' | '、' | ';' | '；' | '\n' | '{' | '}' => true,
        ',' => !(digit(i.checked_sub(1)) && digit(Some(i + 1))),
        _ => false,
    };
    let word = text.trim();
    !word.is_empty() && word.len() == text.len() && !is_none(word) && !chars.iter().enumerate().any(cuts)
}

/// Whether a value reads as the answer that says that there is none.
pub(super) fn is_none(value: &str) -> bool {
    ["none", "无", "n/a", "na", "null"].contains(&&*fold(value))
}

/// In lower case as far as ASCII goes, so that byte offsets stay.
pub(super) fn fold(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) { text.to_ascii_lowercase().into() } else { text.into() }
}

/// Where `text` has `words` as whole words, whatever their case.
pub(super) fn place(text: &str, words: &str) -> Option<Span> {
    Span::find(&fold(text), &fold(words))
}

/// Whether a value is long enough that finding it in a text means something.
pub(super) fn is_telling(value: &str) -> bool {
    let letters = value.chars().filter(|c| c.is_alphabetic()).count();
    letters >= 2 || (letters == 1 && value.chars().any(|c| c.is_ascii_digit()))
}

/// The words of a text, one after the other in one string.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    text: String,
    ends: Vec<u32>,
}

impl Words {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn get(&self, at: usize) -> Option<&str> {
        let end = *self.ends.get(at)? as usize;
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |&start| start as usize);
        self.text.get(start..end)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    pub(super) fn contains(&self, word: &str) -> bool {
        self.iter().any(|own| own == word)
    }

    pub(super) fn starts_with(&self, other: &Self) -> bool {
        self.ends.starts_with(&other.ends) && self.text.starts_with(&other.text)
    }

    /// All words without anything between.
    pub(super) fn concat(&self) -> &str {
        &self.text
    }

    fn end(&mut self) {
        if self.ends.last().map_or(0, |&end| end as usize) < self.text.len() {
            self.ends.push(self.text.len() as u32);
        }
    }
}

/// Words in lower case: runs of letters and digits, Chinese characters one by one.
pub(super) fn tokens(text: &str) -> Words {
    let mut words = Words { text: String::with_capacity(text.len()), ends: Vec::with_capacity(text.len() / 4 + 1) };
    for c in text.chars() {
        match c {
            'a'..='z' | '0'..='9' => words.text.push(c),
            'A'..='Z' => words.text.push(c.to_ascii_lowercase()),
            _ if is_han(c) => {
                words.end();
                words.text.push(c);
                words.end();
            }
            _ if !c.is_ascii() && c.is_alphanumeric() => words.text.extend(c.to_lowercase()),
            _ => words.end(),
        }
    }
    words.end();
    words
}

/// Whether a title is one to learn from: no remains of a page around it, no words of its own repeated at its end.
pub(super) fn reads_as_title(title: &str) -> bool {
    let words = tokens(title);
    let words: Vec<&str> = words.iter().collect();
    let (head, tail) = words.split_at(words.len().saturating_sub(3));
    let debris = words.iter().any(|word| ["null", "wholesale", "restockit"].contains(word));
    // Chinese words are single characters here, which repeat in any title.
    let again = tail.iter().filter(|word| !word.contains(is_han) && head.contains(word)).count();
    !debris && !title.contains("Part# ") && again < 2
}

/// How many in a hundred of the words of `part` are words of `whole`.
pub(super) fn coverage(part: &str, whole: &str) -> usize {
    let (part, whole) = (tokens(part), tokens(whole));
    let whole: FxHashSet<&str> = whole.iter().collect();
    100 * part.iter().filter(|word| whole.contains(word)).count() / part.len().max(1)
}

/// Spellings of units of amount, each beside the one it is compared by; an empty one is passed over.
const SPELLINGS: [(&str, &str); 20] = [
    ("count", "ct"),
    ("fl", ""),
    ("fluid", ""),
    ("gram", "g"),
    ("grams", "g"),
    ("inch", "in"),
    ("inches", "in"),
    ("lbs", "lb"),
    ("ounce", "oz"),
    ("ounces", "oz"),
    ("pack", "ct"),
    ("packs", "ct"),
    ("pcs", "ct"),
    ("piece", "ct"),
    ("pieces", "ct"),
    ("pk", "ct"),
    ("pound", "lb"),
    ("pounds", "lb"),
    ("oz", "oz"),
    ("lb", "lb"),
];

/// Words with units apart from their numbers and in one spelling (`8oz`, `8 Ounces`).
fn measures(words: &Words) -> Vec<&str> {
    let spelling = |word: &str| SPELLINGS.iter().find(|s| s.0 == word).map(|s| s.1);
    let mut out = Vec::with_capacity(words.len() + 2);
    for word in words.iter() {
        let unit = word.trim_start_matches(|c: char| c.is_ascii_digit());
        match spelling(unit) {
            Some(unit_as) => {
                let number = word.strip_suffix(unit).unwrap_or_default();
                out.extend([number, unit_as].into_iter().filter(|part| !part.is_empty()));
            }
            None => out.push(word),
        }
    }
    if out.is_empty() { words.iter().collect() } else { out }
}

/// Whether two values may mean the same: all words of one are in the other, or they differ in punctuation or the
/// spelling of a unit only.
pub(super) fn alike(a: &str, b: &str) -> bool {
    let (a, b) = (tokens(a), tokens(b));
    let (a, b) = (measures(&a), measures(&b));
    let within = |x: &[&str], y: &[&str]| x.iter().all(|word| y.contains(word));
    within(&a, &b) || within(&b, &a) || a.concat() == b.concat()
}

/// Whether two texts are the same but for case, spaces and punctuation other than `+` and `%`.
pub(super) fn same(a: &str, b: &str) -> bool {
    bare(a).eq(bare(b))
}

/// The letters, digits, `+` and `%` of a text in lower case: what [`same`] compares.
pub(in crate::task) fn bare(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| c.is_alphanumeric() || matches!(c, '+' | '%')).flat_map(char::to_lowercase)
}

/// Whether a text has words like those of a value: the same ones, or longer or shorter forms (`men`, `mens`); in
/// Chinese, two characters in a row.
pub(super) fn touches(text: &str, value: &str) -> bool {
    let (words, value) = (tokens(text), tokens(value));
    let (words, value): (Vec<&str>, Vec<&str>) = (words.iter().collect(), value.iter().collect());
    let like = |a: &str, b: &str| a == b || (a.len() >= 3 && b.starts_with(a)) || (b.len() >= 3 && a.starts_with(b));
    let han = |word: &&str| word.chars().all(is_han);
    value.iter().filter(|v| !han(v)).any(|v| words.iter().any(|w| !han(w) && like(w, v)))
        || value.windows(2).any(|pair| pair.iter().all(han) && words.windows(2).any(|other| other == pair))
}

/// Letters and signs of a text in lower case with each run of digits put as `0`, for comparing sizes and codes by their
/// form.
pub(super) fn form(text: &str) -> impl Iterator<Item = char> {
    let mut digits = false;
    text.chars().filter_map(move |c| {
        let again = digits && c.is_ascii_digit();
        digits = c.is_ascii_digit();
        (!again).then(|| if digits { '0' } else { c.to_ascii_lowercase() })
    })
}

/// Without repetitions, the first of each kept, in the same order.
pub(super) fn distinct<T: PartialEq>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut out = Vec::new();
    for item in items {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}
