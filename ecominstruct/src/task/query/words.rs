//! Words of queries and titles, compared as a shopper would: plurals, misspellings and joined words are the same word.

use crate::instruction::is_han;

/// Words that say nothing about the product.
const EMPTY: [&str; 14] = ["a", "an", "and", "by", "for", "from", "in", "of", "on", "or", "the", "to", "with", "x"];

/// Words in lower case, letters and digits apart (`36inch` is two), Chinese characters one by one; each once, in order.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut last = ' ';
    let mut word = String::new();
    for c in text.chars().flat_map(char::to_lowercase).chain([' ']) {
        let joins = c.is_alphanumeric() && !is_han(c) && !is_han(last) && c.is_numeric() == last.is_numeric();
        if !joins && !word.is_empty() {
            let done = std::mem::take(&mut word);
            if !EMPTY.contains(&done.as_str()) && !words.contains(&done) {
                words.push(done);
            }
        }
        if c.is_alphanumeric() {
            word.push(c);
        }
        last = c;
    }
    words
}

/// Which of the words of a query a title has.
pub(super) fn covered(query: &[String], title: &[String]) -> Vec<bool> {
    let joined = title.concat();
    let has = |word: &str| {
        let root = word.strip_suffix('s').unwrap_or(word);
        title.iter().any(|t| alike(word, t)) || (root.len() >= 5 && root.is_ascii() && joined.contains(root))
    };
    let mut covered: Vec<bool> = query.iter().map(|w| has(w)).collect();
    for (i, pair) in query.windows(2).enumerate() {
        if pair.iter().all(|w| w.len() >= 3 && w.is_ascii()) && title.iter().any(|t| alike(&pair.concat(), t)) {
            covered[i] = true;
            covered[i + 1] = true;
        }
    }
    covered
}

/// Whether a query names an article or model number that the title does not have: nobody can see that they belong together.
pub(super) fn lacks_number(query: &str, title: &[String]) -> bool {
    let number = |w: &&str| w.len() >= 5 && w.chars().filter(char::is_ascii_digit).count() >= 3;
    query.split_whitespace().filter(number).any(|w| covered(&words(w), title).contains(&false))
}

/// How many of the words of `a` are in `b`.
pub(super) fn shared(a: &[String], b: &[String]) -> usize {
    covered(a, b).into_iter().filter(|&c| c).count()
}

/// Shared words over all words, in hundredths.
pub(super) fn jaccard(a: &[String], b: &[String]) -> usize {
    let both = shared(a, b).min(shared(b, a));
    100 * both / (a.len() + b.len() - both).max(1)
}

/// Whether two words are the same but for an ending or a slip of the pen.
fn alike(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    if a.contains(|c: char| c.is_numeric() || !c.is_ascii()) || b.contains(|c: char| c.is_numeric() || !c.is_ascii()) {
        return false;
    }
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    if plural(short, long) || (short.len() >= 4 && long.starts_with(short)) {
        return true;
    }
    let slips = match short.len() {
        0..4 => 0,
        4..7 => 1,
        _ => 2,
    };
    long.len() - short.len() <= slips && a.get(..1) == b.get(..1) && distance(a.as_bytes(), b.as_bytes()) <= slips
}

/// Whether `long` is the plural of `short`.
fn plural(short: &str, long: &str) -> bool {
    let ending = long.strip_prefix(short);
    matches!(ending, Some("s" | "es"))
        || short.strip_suffix('y').is_some_and(|root| long.strip_prefix(root) == Some("ies"))
}

/// Insertions, deletions, replacements and swaps of neighbours from `a` to `b` (optimal string alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (row[j] + usize::from(x != y)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_at_digits_and_between_han() {
        assert_eq!(words("36inch Gray vanities, 红鞋 the gray"), ["36", "inch", "gray", "vanities", "红", "鞋"]);
    }

    #[test]
    fn a_slip_is_the_same_word_and_another_number_is_not() {
        for (a, b) in
            [("toliet", "toilet"), ("vanities", "vanity"), ("faucett", "faucet"), ("paver", "pavers"), ("box", "boxes")]
        {
            assert!(alike(a, b) && alike(b, a), "{a} {b}");
        }
        for (a, b) in
            [("36", "30"), ("red", "rod"), ("door", "drop"), ("bed", "bad"), ("lamp", "damp"), ("tub", "tube")]
        {
            assert!(!alike(a, b), "{a} {b}");
        }
        assert_eq!(covered(&words("car ports undercabinet"), &words("Steel Carport, under cabinet")), [true; 3]);
        assert_eq!(covered(&words("红鞋带"), &words("蓝色鞋")), [false, true, false]);
    }

    #[test]
    fn an_unseen_number_is_told_from_a_size() {
        let title = words("Sola kettle 1000 ml, 12 in. x 12 in.");
        for (query, lacks) in
            [("sola cf552b", true), ("kettle 14254454", true), ("1000ml kettle", false), ("12x12 kettle", false)]
        {
            assert_eq!(lacks_number(query, &title), lacks, "{query}");
        }
    }

    #[test]
    fn distances_of_the_definition() {
        for (a, b, n) in
            [("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("abcd", "bd", 2), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), n, "{a} {b}");
        }
    }
}
