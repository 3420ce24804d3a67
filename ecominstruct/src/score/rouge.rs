//! ROUGE-L as in the Python package `rouge` 1.0.1 (`rouge_l_summary_level`, `exclusive=True`).
//!
//! Sentences are split at full stops, words at white space. The score counts *distinct* words: the union over all sentence
//! pairs of the words on their longest common subsequences, over the distinct words of either side. So unsegmented Chinese
//! is one word, and a repeated word counts once.

use std::collections::BTreeSet;

/// White space as Python's `str.split` and `str.strip` see it: Unicode's, and the four separators U+001C to U+001F.
pub(crate) fn python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&c)
}

/// F score in [0, 1); `None` where the package raises, which is where a side is empty or all full stops.
pub(crate) fn rouge_l(prediction: &str, gold: &str) -> Option<f64> {
    let (prediction, gold) = (sentences(prediction), sentences(gold));
    if prediction.is_empty() || gold.is_empty() {
        return None;
    }
    let mut common = BTreeSet::new();
    for reference in &gold {
        for hypothesis in &prediction {
            add_common(reference, hypothesis, &mut common);
        }
    }
    let distinct = |side: &[Vec<&str>]| side.iter().flatten().collect::<BTreeSet<_>>().len() as f64;
    let (p, r) = (common.len() as f64 / distinct(&prediction), common.len() as f64 / distinct(&gold));
    Some(2.0 * ((p * r) / (p + r + 1e-8)))
}

/// A sentence of white space only counts as one empty word, as in the package.
fn sentences(text: &str) -> Vec<Vec<&str>> {
    fn words(sentence: &str) -> Vec<&str> {
        let words: Vec<&str> = sentence.split(python_space).filter(|w| !w.is_empty()).collect();
        if words.is_empty() { vec![""] } else { words }
    }
    text.split('.').filter(|s| !s.is_empty()).map(words).collect()
}

/// Adds the words of the longest common subsequence of `x` and `y` that the package's walk back from the end finds: ties
/// go to the shorter `y`.
fn add_common<'a>(x: &[&'a str], y: &[&str], common: &mut BTreeSet<&'a str>) {
    let width = y.len() + 1;
    let mut table = vec![0u32; (x.len() + 1) * width];
    for (i, word) in x.iter().enumerate() {
        for (j, other) in y.iter().enumerate() {
            table[(i + 1) * width + j + 1] = if word == other {
                table[i * width + j] + 1
            } else {
                table[i * width + j + 1].max(table[(i + 1) * width + j])
            };
        }
    }
    let (mut i, mut j) = (x.len(), y.len());
    while i > 0 && j > 0 {
        if x[i - 1] == y[j - 1] {
            common.insert(x[i - 1]);
            (i, j) = (i - 1, j - 1);
        } else if table[(i - 1) * width + j] > table[i * width + j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
}
