//! Cleaning of raw text: HTML entities and tags, control and invisible characters, runs of white space. Spans move
//! along.
//!
//! No Unicode normalisation: values and spans must stay as the source wrote them. NUL and U+FFFD are left in, so that
//! the record is refused later; they cannot be repaired.

use crate::record::Span;

/// `text` on one line without HTML or invisible characters, white space as single spaces, none at the ends.
pub fn clean(text: &str) -> String {
    clean_with(text, &mut [])
}

/// [`clean`], with `spans` of `text` moved to the same words of the result. White space at the ends of a span drops
/// off; a span of nothing else is empty afterwards.
pub fn clean_with(text: &str, spans: &mut [Span]) -> String {
    if is_clean(text, Markup::Is) { text.to_owned() } else { rewrite(text, spans) }
}

/// Whether `text` is one line without invisible, NUL or lost (U+FFFD) characters, with single spaces and none at the
/// ends.
pub fn is_tidy(text: &str) -> bool {
    is_clean(text, Markup::IsText)
}

/// Where the title states `value`: at word borders as written, or else in other ASCII case.
pub fn find(title: &str, value: &str) -> Option<Span> {
    if value.is_empty() || value.len() > title.len() {
        return None;
    }
    Span::find(title, value).or_else(|| {
        let (bytes, wanted) = (title.as_bytes(), value.as_bytes());
        let first = wanted[0].to_ascii_lowercase();
        let word = |i: Option<usize>| i.and_then(|i| bytes.get(i)).is_some_and(u8::is_ascii_alphanumeric);
        (0..=bytes.len() - wanted.len()).map(|start| Span { start, end: start + wanted.len() }).find(
            |&Span { start, end }| {
                bytes[start].to_ascii_lowercase() == first
                    && bytes[start..end].eq_ignore_ascii_case(wanted)
                    && title.is_char_boundary(start)
                    && title.is_char_boundary(end)
                    && !(word(start.checked_sub(1)) && word(Some(start)))
                    && !(word(Some(end)) && word(Some(end - 1)))
            },
        )
    })
}

/// Whether `&amp;` and `<br>` count as markup or as text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Markup {
    Is,
    IsText,
}

/// 1 where byte `b` may begin something to clean: controls, double spaces, markup, lead bytes of invisible characters.
/// Plain comparisons, so that the compiler takes many bytes at once.
fn suspect(b: u8, next: u8) -> u8 {
    let control = u8::from(b < 0x20) | u8::from(b == 0x7F);
    let markup = u8::from(b == b'&') | u8::from(b == b'<');
    let lead = u8::from(b == 0xC2) | u8::from((0xE1..=0xE3).contains(&b)) | u8::from(b == 0xEF);
    control | markup | lead | (u8::from(b == b' ') & u8::from(next == b' '))
}

fn is_clean(text: &str, markup: Markup) -> bool {
    let bytes = text.as_bytes();
    if bytes.first() == Some(&b' ') || bytes.last() == Some(&b' ') {
        return false;
    }
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min(at + 32);
        // The last byte has no neighbour; it is no space.
        let neighbours = &bytes[at + 1..bytes.len().min(end + 1)];
        let last = if neighbours.len() < end - at { suspect(bytes[end - 1], 0) } else { 0 };
        let any = bytes[at..end].iter().zip(neighbours).fold(last, |any, (&b, &next)| any | suspect(b, next));
        if any != 0 && !(at..end).all(|i| is_clean_at(text, i, markup)) {
            return false;
        }
        at = end;
    }
    true
}

fn is_clean_at(text: &str, i: usize, markup: Markup) -> bool {
    let bytes = text.as_bytes();
    let next = || (bytes.get(i + 1).copied(), bytes.get(i + 2).copied());
    match bytes[i] {
        b' ' => bytes.get(i + 1) != Some(&b' '),
        0 => markup == Markup::Is,
        0x01..0x20 | 0x7F => false,
        b'&' => markup == Markup::IsText || entity(&text[i..]).is_none(),
        b'<' => markup == Markup::IsText || tag(&text[i..]).is_none(),
        0xC2 => !matches!(next().0, Some(0x80..=0xA0 | 0xAD)),
        0xE1 => next() != (Some(0x9A), Some(0x80)),
        0xE2 => !matches!(next(), (Some(0x80), Some(0x80..=0x8F | 0xA8..=0xAF)) | (Some(0x81), Some(0x9F..=0xAF))),
        0xE3 => next() != (Some(0x80), Some(0x80)),
        0xEF => match next() {
            (Some(0xBB), Some(0xBF)) => false,
            (Some(0xBF), Some(0xBD)) => markup == Markup::Is,
            _ => true,
        },
        _ => true,
    }
}

/// What becomes of one piece of the input.
enum Piece {
    Char(char),
    Space,
    Nothing,
}

fn rewrite(text: &str, spans: &mut [Span]) -> String {
    let mut out = String::with_capacity(text.len());
    let width = if spans.is_empty() { 0 } else { text.len() + 1 };
    // For each byte of `text`: where what begins there begins in `out`, and where what ends before it ends.
    let (mut starts, mut ends) = (vec![usize::MAX; width], vec![0; width]);
    let (mut at, mut space) = (0, false);
    while let Some((len, piece)) = piece(&text[at..]) {
        match piece {
            Piece::Char(c) => {
                if space && !out.is_empty() {
                    out.push(' ');
                }
                space = false;
                if let Some(start) = starts.get_mut(at) {
                    *start = out.len();
                }
                out.push(c);
            }
            Piece::Space => space = true,
            Piece::Nothing => {}
        }
        at += len;
        if width > 0 {
            ends[at + 1 - len..=at].fill(out.len());
        }
    }
    for span in spans {
        let start = starts.get(span.start..).and_then(|rest| rest.iter().find(|&&s| s != usize::MAX));
        let end = ends.get(span.end).copied().unwrap_or(0);
        *span = Span { start: start.map_or(end, |&s| s.min(end)), end };
    }
    out
}

/// The first piece of `text` and its length in bytes; `None` at the end.
fn piece(text: &str) -> Option<(usize, Piece)> {
    let c = text.chars().next()?;
    let markup = match c {
        '&' => entity(text).map(|(len, c)| (len, kind(c))),
        '<' => tag(text),
        _ => None,
    };
    Some(markup.unwrap_or((c.len_utf8(), kind(c))))
}

fn kind(c: char) -> Piece {
    match c {
        '\0' => Piece::Char(c),
        '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{AD}' => {
            Piece::Nothing
        }
        c if c.is_whitespace() => Piece::Space,
        c if c.is_control() => Piece::Nothing,
        c => Piece::Char(c),
    }
}

/// Entities seen in shop texts; numeric ones are read as well.
const ENTITIES: [(&str, char); 30] = [
    ("amp", '&'),
    ("apos", '\''),
    ("bull", '•'),
    ("cent", '¢'),
    ("copy", '©'),
    ("deg", '°'),
    ("eacute", 'é'),
    ("euro", '€'),
    ("frac12", '½'),
    ("frac14", '¼'),
    ("frac34", '¾'),
    ("gt", '>'),
    ("hellip", '…'),
    ("ldquo", '“'),
    ("lsquo", '‘'),
    ("lt", '<'),
    ("mdash", '—'),
    ("middot", '·'),
    ("nbsp", '\u{A0}'),
    ("ndash", '–'),
    ("ocirc", 'ô'),
    ("plusmn", '±'),
    ("pound", '£'),
    ("quot", '"'),
    ("rdquo", '”'),
    ("reg", '®'),
    ("rsquo", '’'),
    ("times", '×'),
    ("trade", '™'),
    ("yen", '¥'),
];

/// The entity that `text` begins with, and its length.
fn entity(text: &str) -> Option<(usize, char)> {
    let len = text.bytes().take(10).position(|b| b == b';')?;
    let name = &text[1..len];
    let c = match name.strip_prefix('#') {
        Some(number) => {
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            code.ok().and_then(char::from_u32).filter(|&c| c.is_whitespace() || !c.is_control())?
        }
        None => ENTITIES.binary_search_by_key(&name, |e| e.0).ok().map(|i| ENTITIES[i].1)?,
    };
    Some((len + 1, c))
}

/// Tags that stand between words.
const BLOCKS: [&str; 25] = [
    "blockquote",
    "br",
    "center",
    "dd",
    "div",
    "dl",
    "dt",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "iframe",
    "img",
    "li",
    "ol",
    "p",
    "script",
    "table",
    "td",
    "th",
    "tr",
    "ul",
];
/// Tags that stand within words.
const INLINE: [&str; 12] = ["a", "b", "em", "font", "i", "small", "span", "strong", "sub", "sup", "tbody", "u"];

/// The HTML tag or comment that `text` begins with. Only known names: shops write `<new>` in titles too.
fn tag(text: &str) -> Option<(usize, Piece)> {
    if text.starts_with("<!--") {
        return text.find("-->").map(|end| (end + 3, Piece::Nothing));
    }
    let len = text[1..].bytes().take(2000).position(|b| matches!(b, b'<' | b'>'))? + 1;
    if text.as_bytes()[len] != b'>' {
        return None;
    }
    let inside = text[1..len].trim_start_matches('/');
    let name = inside.split(|c: char| !c.is_ascii_alphanumeric()).next()?.to_ascii_lowercase();
    if BLOCKS.binary_search(&name.as_str()).is_ok() {
        Some((len + 1, Piece::Space))
    } else {
        INLINE.binary_search(&name.as_str()).is_ok().then_some((len + 1, Piece::Nothing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn markup_and_white_space_go_and_texts_with_brackets_stay() {
        let cases = [
            ("plain 文本，好。", "plain 文本，好。"),
            ("  two\t spaces\r\n", "two spaces"),
            ("A &amp; B&nbsp;&#39;C&#x27;&hellip;", "A & B 'C'…"),
            ("one<br/>two<p class=\"x\">three</p> <b>bo</b>ld<!-- no -->", "one two three bold"),
            ("<new> 5 < 6 > 4, F&W; & co", "<new> 5 < 6 > 4, F&W; & co"),
            ("\u{FEFF}全\u{3000}角\u{200B}空", "全 角空"),
            ("a\u{1}b\u{85}c", "ab c"),
            ("soft\u{AD}hyphen", "softhyphen"),
        ];
        for (raw, wanted) in cases {
            assert_eq!(clean(raw), wanted);
            assert!(is_tidy(&clean(raw)), "{raw:?}");
        }
        assert_eq!(clean("a\0b\u{FFFD}"), "a\0b\u{FFFD}");
        assert!(!is_tidy("a\0b") && !is_tidy("a\u{FFFD}"));
        assert!(ENTITIES.is_sorted() && BLOCKS.is_sorted() && INLINE.is_sorted());
    }

    #[test]
    fn spans_follow_their_words() {
        let raw = "  the  <b>red&amp;blue</b>\n shirt ";
        let at = |words: &str| raw.find(words).map(|start| Span { start, end: start + words.len() }).unwrap();
        let mut spans = [at("red&amp;blue"), at("the"), at("shirt "), at("\n "), at("blue</b>\n shirt")];
        let text = clean_with(raw, &mut spans);
        assert_eq!(text, "the red&blue shirt");
        let words: Vec<_> = spans.iter().map(|s| s.of(&text)).collect();
        assert_eq!(words, [Some("red&blue"), Some("the"), Some("shirt"), None, Some("blue shirt")]);
    }

    #[test]
    fn values_are_found_in_any_case_at_word_borders() {
        let words = |title: &'static str, value| find(title, value).and_then(|s| s.of(title));
        assert_eq!(words("Blue SHIRT, shirts", "shirt"), Some("SHIRT"));
        assert_eq!(words("Shirts", "shirt"), None);
        assert_eq!(words("é Red", "red"), Some("Red"));
        assert_eq!(words("红色T恤", "t"), Some("T"));
    }

    const FLAWS: &str = "\t|\u{7F}|\u{A0}|\u{200B}|\u{3000}|  ";

    proptest! {
        #[test]
        fn cleaning_twice_changes_no_spacing(text in "[ \t\u{A0}\u{3000}\u{200B}a中，&;<>/bramp-]{0,80}") {
            let once = clean(&text);
            prop_assert!(is_tidy(&once), "{once:?}");
            prop_assert_eq!(is_tidy(&text), rewrite_spacing(&text) == text);
        }

        #[test]
        fn one_flaw_anywhere_is_seen(before in 0usize..70, after in 0usize..70, flaw in FLAWS) {
            let text = format!("a{}{flaw}{}b", "x".repeat(before), "y".repeat(after));
            prop_assert!(!is_tidy(&text) && is_tidy(&clean(&text)));
        }

        #[test]
        fn a_span_of_a_whole_word_stays_that_word(before in "[ a中\t&;]{0,12}", after in "[ a中\t&;]{0,12}") {
            let text = format!("{before} wörd {after}");
            let start = text.find("wörd").unwrap();
            let mut span = [Span { start, end: start + "wörd".len() }];
            let out = clean_with(&text, &mut span);
            prop_assert_eq!(span[0].of(&out), Some("wörd"));
        }
    }

    /// What `is_tidy` promises, said in another way.
    fn rewrite_spacing(text: &str) -> String {
        let seen: String = text.chars().filter(|c| !matches!(kind(*c), Piece::Nothing)).collect();
        seen.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
