//! Sentences, clauses and content words of English and Chinese texts, by rule.

use std::sync::LazyLock;

use rustc_hash::FxHashSet;

use crate::instruction::is_han;
use crate::record::Span;
use crate::shingle::{distinct, hash_chars, shared};

/// Number of words; two Chinese characters count as one.
pub(super) fn words(text: &str) -> usize {
    count(text, usize::MAX)
}

/// Whether a text has at least `n` words: looks no further than that.
pub(super) fn has_words(text: &str, n: usize) -> bool {
    count(text, n) >= n
}

/// Words up to `enough`.
fn count(text: &str, enough: usize) -> usize {
    let (mut han, mut spaced, mut within) = (0, 0, false);
    for c in text.chars() {
        if is_han(c) {
            han += 1;
            within = false;
        } else if c.is_whitespace() {
            within = false;
        } else if !within && c.is_alphanumeric() {
            within = true;
            spaced += 1;
        }
        if han / 2 + spaced >= enough {
            break;
        }
    }
    han / 2 + spaced
}

/// The sentences, with their end marks.
pub(super) fn sentences(text: &str) -> Vec<Span> {
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let mut out = Vec::new();
    let mut start = 0;
    let mut i = 0;
    while let Some(&(_, c)) = chars.get(i) {
        let mut end = i + 1;
        if matches!(c, '.' | '!' | '?' | '…' | '。' | '！' | '？' | '；' | '\n') {
            while chars.get(end).is_some_and(|&(_, c)| is_closing(c)) {
                end += 1;
            }
            if ends_here(text, &chars, i, end) {
                let stop = chars.get(end).map_or(text.len(), |&(at, _)| at);
                out.extend(trimmed(text, start, stop, char::is_whitespace));
                start = stop;
            }
        }
        i = end;
    }
    out.extend(trimmed(text, start, text.len(), char::is_whitespace));
    out
}

/// The parts between punctuation marks, without them.
pub(super) fn clauses(text: &str) -> Vec<Span> {
    let edge = |c: char| c.is_whitespace() || (!c.is_alphanumeric() && !matches!(c, '%' | '$' | '°' | '+' | '#'));
    let mut out = Vec::new();
    for sentence in sentences(text) {
        let Some(inside) = sentence.of(text) else { continue };
        let mut start = 0;
        for (at, mark) in inside.match_indices([',', ';', ':', '(', ')', '，', '、', '：', '（', '）', '~', '～'])
        {
            let after = inside[at + mark.len()..].chars().next();
            if mark == "," && after.is_some_and(|c| c.is_ascii_digit()) {
                continue;
            }
            out.extend(trimmed(text, sentence.start + start, sentence.start + at, edge));
            start = at + mark.len();
        }
        out.extend(trimmed(text, sentence.start + start, sentence.end, edge));
    }
    out
}

/// What the text is about, as sorted hashes: its words in lower case without those that any shop text may hold, plural
/// endings cut; for Chinese, pairs of neighbouring characters.
pub(super) fn content(text: &str) -> Vec<u64> {
    let mut out = Vec::new();
    let (mut word, mut last) = (String::new(), ' ');
    for c in text.chars().filter(|c| !matches!(c, '\'' | '’')).chain([' ']) {
        let han = is_han(c);
        if c.is_alphanumeric() && !han {
            word.extend(c.to_lowercase());
        } else if !word.is_empty() {
            let kept = word.len() >= 3 || word.contains(|c: char| c.is_ascii_digit());
            if kept && !EVERYWHERE.contains(word.as_str()) {
                out.push(hash_chars(word.strip_suffix('s').filter(|w| w.len() >= 3).unwrap_or(&word).chars()));
            }
            word.clear();
        }
        if is_telling(last) && is_telling(c) {
            out.push(hash_chars([last, c]));
        }
        last = c;
    }
    distinct(out)
}

/// A Chinese character that is not among those that any shop text may hold.
fn is_telling(c: char) -> bool {
    is_han(c) && !"的了是我你他它很也不有在就都和这那吗呢吧啊么什怎个".contains(c)
}

/// Whether more than half of what the question is about (for Chinese, all of it) is not in what a passage says.
pub(super) fn is_foreign(question: &str, said: &[u64]) -> bool {
    let (stated, all) = stated(question, said);
    // Pairs of characters across word borders are in no passage.
    if question.contains(is_han) { all > 0 && stated == 0 } else { 2 * stated < all }
}

/// How much of what the question is about is in what a passage says, and how much there is.
pub(super) fn stated(question: &str, said: &[u64]) -> (usize, usize) {
    let about = content(question);
    (shared(&about, said), about.len())
}

/// English words of three letters and more that tell nothing about what a shop text is about.
static EVERYWHERE: LazyLock<FxHashSet<&str>> = LazyLock::new(|| {
    "about absolutely actually after again all also always amazon and any anyone are arent bad because been being \
     believe best better bit bought but buy came can cant come comes could definitely describe did didnt does doesnt \
     doing dont each else even ever every expected feel for from get gets glad going good got great had happy has \
     have having help her here him his hope hoping how hows ill impression impressions into isnt item items its ive \
     just know like liked little long look looks lot love loved made make makes many maybe mean more most much need \
     nice not now off one ones only ordered other our out over own people perfect please pretty product products \
     purchase put quite really received recommend review reviews same say see she should some something still stuff \
     such tell than that thats the their them then there these they thing things think this those thought too try two \
     use used very want wanted was wasnt way well went were what whats when where which while who why will wish with \
     wont work works worth would you your youre"
        .split(' ')
        .collect()
});

/// English words that end in a full stop inside sentences.
const SHORTENED: &[&str] = &[
    "approx", "co", "dept", "dr", "e.g", "est", "ft", "i.e", "in", "inc", "jr", "lb", "lbs", "max", "min", "mr", "mrs",
    "ms", "no", "oz", "pcs", "sq", "st", "vs", "yr",
];

fn is_closing(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…' | '。' | '！' | '？' | '"' | '\'' | ')' | '”' | '’' | '）' | '」' | '~' | '～')
}

/// Whether a sentence that has its first end mark at `mark` ends before `next` (both count characters).
fn ends_here(text: &str, chars: &[(usize, char)], mark: usize, next: usize) -> bool {
    let (at, sign) = chars[mark];
    let Some(&(_, after)) = chars.get(next) else { return true };
    if !sign.is_ascii() || sign == '\n' {
        return true;
    }
    let last = mark.checked_sub(1).and_then(|i| chars.get(i)).map_or(' ', |c| c.1);
    let next_word = chars.get(next + 1).map_or(' ', |c| c.1);
    if !after.is_whitespace() {
        // Many reviews lack the space: "no problems.Quality is fine".
        let word = next_word.is_alphabetic() || (matches!(after, 'A' | 'I') && next_word != '.');
        let whole = last.is_lowercase() || is_closing(last) || matches!(sign, '!' | '?');
        return is_han(after) || (whole && after.is_uppercase() && word);
    }
    let word = text[..at].rsplit(char::is_whitespace).next().unwrap_or_default().to_lowercase();
    let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
    let inside = sign == '.' && next == mark + 1 && next_word.is_lowercase();
    let shortened = SHORTENED.contains(&word) && (inside || matches!(word, "dr" | "mr" | "mrs" | "ms" | "vs"));
    let initial = word.chars().count() == 1 && word.chars().all(char::is_alphabetic) && word != "i" && inside;
    let pause = text[at..].starts_with("..") && next_word.is_lowercase();
    !(sign == '.' && (shortened || initial || pause))
}

fn trimmed(text: &str, start: usize, end: usize, edge: impl Fn(char) -> bool) -> Option<Span> {
    let part = text.get(start..end)?;
    let left = part.trim_start_matches(&edge);
    let start = start + part.len() - left.len();
    let whole = left.trim_end_matches(&edge);
    (!whole.is_empty()).then_some(Span { start, end: start + whole.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, spans: &[Span]) -> Vec<String> {
        spans.iter().filter_map(|s| s.of(text)).map(str::to_owned).collect()
    }

    #[test]
    fn sentences_end_where_a_reader_ends_them() {
        let text = "It's 5.5 in. wide vs. 6 in. for the old one. No problems.I say.Quality is \
                    fine!! \"So nice.\" I waited... and it came";
        let wanted = [
            "It's 5.5 in. wide vs. 6 in. for the old one.",
            "No problems.",
            "I say.",
            "Quality is fine!!",
            "\"So nice.\"",
            "I waited... and it came",
        ];
        assert_eq!(cut(text, &sentences(text)), wanted);
        let text = "WOW!Great lamp (so far).The U.S.A plug fits.A must";
        assert_eq!(cut(text, &sentences(text)), ["WOW!", "Great lamp (so far).", "The U.S.A plug fits.", "A must"]);
        let text = "很好用。物流快！！下次还来～ 谢谢";
        assert_eq!(cut(text, &sentences(text)), ["很好用。", "物流快！！", "下次还来～ 谢谢"]);
        assert!(sentences(" \n ").is_empty());
    }

    #[test]
    fn clauses_have_no_marks_at_their_ends() {
        let text = "Cheap (1,000 yen), but \"solid\": buy it!";
        assert_eq!(cut(text, &clauses(text)), ["Cheap", "1,000 yen", "but \"solid", "buy it"]);
    }

    #[test]
    fn content_leaves_what_the_text_is_about() {
        let asked = content("How long do the batterys of this charger's V2 last?");
        assert_eq!(asked.len(), 4);
        assert_eq!(shared(&content("Battery V2, charger and charger"), &asked), 3);
        assert!(content("How is the product?").is_empty());
        assert_eq!((content("电池怎么样"), content("电池电").len()), (content("电池"), 2));
    }

    #[test]
    fn words_count_both_scripts() {
        assert_eq!(words("a 5-star lamp - 红色台灯"), 5);
        assert_eq!([4, 5, 6].map(|n| has_words("a 5-star lamp - 红色台灯", n)), [true, true, false]);
    }
}
