//! `laptop_acos`: tokenised review sentences with (aspect, category, polarity, opinion), spans counted in tokens.

use std::io;

use super::clean::clean_with;
use super::table::lines;
use super::{RawFile, Rows};
use crate::instruction::Lang;
use crate::record::{Opinion, Polarity, Record, Review, Span, Topic};

pub(super) fn read(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    lines(file, rows, |rows, line, text| match review(text) {
        Ok(review) => rows.push(line, Record::Review(Review { meta: file.meta(line, Lang::En), ..review })),
        Err(what) => rows.bad(line, what),
    })
}

fn review(row: &str) -> Result<Review, String> {
    let mut fields = row.split('\t');
    let raw = fields.next().unwrap_or_default();
    let mut tokens = Vec::new();
    let mut start = 0;
    for token in raw.split(' ') {
        tokens.push(Span { start, end: start + token.len() });
        start += token.len() + 1;
    }
    let mut found = Vec::new();
    for quad in fields {
        let parts: Vec<&str> = quad.split(' ').collect();
        let [aspect, category, polarity, opinion] = parts[..] else {
            return Err(format!("wanted aspect, category, polarity and opinion, found {quad:?}"));
        };
        let polarity = match polarity {
            "0" => Polarity::Negative,
            "1" => Polarity::Neutral,
            "2" => Polarity::Positive,
            _ => return Err(format!("wanted polarity 0, 1 or 2, found {polarity:?}")),
        };
        found.push((span(aspect, &tokens)?, span(opinion, &tokens)?, readable(category), polarity));
    }
    let mut spans: Vec<Span> = found.iter().flat_map(|f| [f.0, f.1]).flatten().collect();
    let text = joined(&clean_with(raw, &mut spans), &mut spans);
    if let Some(cut) = spans.iter().find(|span| cuts_word(&text, **span)) {
        return Err(format!("wanted whole words, found {:?}", cut.of(&text).unwrap_or_default()));
    }
    let mut spans = spans.into_iter();
    let mut opinions: Vec<Opinion> = Vec::with_capacity(found.len());
    for (aspect, opinion, category, polarity) in found {
        let aspect = aspect.and_then(|_| spans.next());
        let opinion = opinion.and_then(|_| spans.next());
        opinions.push(Opinion { aspect, opinion, category: Some(category), polarity });
    }
    opinions.sort_by_key(place);
    // Where somebody found neither praise nor blame, what was marked is a matter of taste.
    let opinions_complete = opinions.iter().all(|o| o.polarity != Polarity::Neutral);
    Ok(Review { text, topics: topics(&opinions), opinions, opinions_complete, ..Review::default() })
}

/// `3,5` as bytes of tokens 3 and 4; `None` for `-1,-1`, what is only implied.
fn span(range: &str, tokens: &[Span]) -> Result<Option<Span>, String> {
    if range == "-1,-1" {
        return Ok(None);
    }
    let wrong = || format!("wanted a range of {} tokens, found {range:?}", tokens.len());
    let (first, end) = range.split_once(',').ok_or_else(wrong)?;
    let (first, end): (usize, usize) = (first.parse().map_err(|_| wrong())?, end.parse().map_err(|_| wrong())?);
    let words = tokens.get(first..end).ok_or_else(wrong)?;
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return Err(wrong()) };
    Ok(Some(Span { start: first.start, end: last.end }))
}

/// `text` without the spaces that tokenising put before marks and around apostrophes (`don ' t`, `it ' s`, ` .`); the spans
/// move along.
fn joined(text: &str, spans: &mut [Span]) -> String {
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let at = |i: Option<usize>| i.and_then(|i| chars.get(i)).map_or(' ', |c| c.1);
    let apostrophe = |i: Option<usize>| matches!(at(i), '\'' | '’');
    // Of `n ' t`, where a single or short ending follows, not of a quotation.
    let ending = |i: usize| {
        let word: String = chars.iter().skip(i).map(|c| c.1).take_while(|c| c.is_alphabetic()).collect();
        ["t", "s", "m", "d", "re", "ve", "ll"].contains(&word.to_lowercase().as_str())
    };
    let mut out = String::with_capacity(text.len());
    let mut places = vec![0; text.len() + 1];
    for (i, &(start, c)) in chars.iter().enumerate() {
        places[start] = out.len();
        let (before, after) = (i.checked_sub(1), Some(i + 1));
        let letter = at(before).is_alphabetic();
        let drop = c == ' '
            && ((letter && apostrophe(after) && at(Some(i + 2)) == ' ' && ending(i + 3))
                || (apostrophe(before)
                    && i >= 3
                    && at(Some(i - 2)) == ' '
                    && ending(i + 1)
                    && at(Some(i - 3)).is_alphabetic())
                || matches!(at(after), '.' | ',' | '!' | '?' | ';' | ':' | ')' | '%')
                || matches!(at(before), '(' | '$'));
        if !drop {
            out.push(c);
        }
    }
    places[text.len()] = out.len();
    for span in spans {
        *span = Span { start: places[span.start], end: places[span.end] };
    }
    out
}

/// Whether a span begins or ends within a word or its apostrophe.
fn cuts_word(text: &str, span: Span) -> bool {
    let inside = |at: usize| {
        let (before, after) = text.split_at(at);
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '\'' | '’'));
        part(before.chars().next_back()) && part(after.chars().next())
    };
    inside(span.start) || inside(span.end)
}

/// Order in the text: by the first word that is stated; what is implied comes last.
pub(super) fn place(opinion: &Opinion) -> (usize, usize) {
    let start = |span: Option<Span>| span.map(|s| s.start);
    let first = [start(opinion.aspect), start(opinion.opinion)].into_iter().flatten().min();
    (first.unwrap_or(usize::MAX), start(opinion.opinion).unwrap_or(usize::MAX))
}

/// The categories of `opinions`, in order, with their polarity; one that is judged in several ways is left out.
pub(super) fn topics(opinions: &[Opinion]) -> Vec<Topic> {
    let mut topics: Vec<(Topic, bool)> = Vec::new();
    for Opinion { category, polarity, .. } in opinions {
        let Some(name) = category else { continue };
        match topics.iter_mut().find(|(topic, _)| topic.name == *name) {
            Some((topic, one)) => *one &= topic.polarity == *polarity,
            None => topics.push((Topic { name: name.clone(), polarity: *polarity }, true)),
        }
    }
    topics.into_iter().filter_map(|(topic, one)| one.then_some(topic)).collect()
}

/// `FANS&COOLING#DESIGN_FEATURES` as `fans & cooling design features`; abbreviations stay upper-case.
fn readable(category: &str) -> String {
    let spaced = category.replace(['#', '_'], " ").replace('&', " & ");
    let word = |word: &str| if matches!(word, "OS" | "CPU") { word.to_owned() } else { word.to_lowercase() };
    spaced.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::tests::{bad, reviews};

    #[test]
    fn token_ranges_become_words() {
        let text = "the é keys feel  soft\t-1,-1 LAPTOP#GENERAL 1 -1,-1\t1,3 KEYBOARD#DESIGN_FEATURES 2 5,6\n\
                    bad\t0,2 OS#PRICE 0 -1,-1\nbad\t0,1 OS#PRICE 7 -1,-1\nbad\tOS#PRICE\n";
        let (found, report) = reviews(super::read, "laptop_acos/a.tsv", text);
        let (text, opinions) = (&found[0].text, &found[0].opinions);
        assert_eq!(text, "the é keys feel soft");
        assert_eq!(opinions[0].aspect.and_then(|s| s.of(text)), Some("é keys"));
        assert_eq!(opinions[0].opinion.and_then(|s| s.of(text)), Some("soft"));
        assert_eq!((opinions[0].polarity, opinions[1].aspect), (Polarity::Positive, None));
        assert_eq!(found[0].topics[0].name, "keyboard design features");
        assert_eq!(bad(&report)[0], "laptop_acos/a.tsv:2: wanted a range of 1 tokens, found \"0,2\"");
        assert_eq!(bad(&report)[1], "laptop_acos/a.tsv:3: wanted polarity 0, 1 or 2, found \"7\"");
        assert_eq!(bad(&report).len(), 3);
    }

    #[test]
    fn words_and_marks_close_up() {
        let text = "it doesn ' t charge ( well ) , it ' s slow .\t-1,-1 OS#PRICE 0 1,5\n\
                    it doesn ' t charge .\t-1,-1 OS#PRICE 0 2,5\n";
        let (found, report) = reviews(super::read, "laptop_acos/a.tsv", text);
        assert_eq!(found[0].text, "it doesn't charge (well), it's slow.");
        assert_eq!(found[0].opinions[0].opinion.and_then(|s| s.of(&found[0].text)), Some("doesn't charge"));
        assert_eq!(bad(&report), ["laptop_acos/a.tsv:2: wanted whole words, found \"'t charge\""]);
    }

    #[test]
    fn topics_judged_both_ways_are_left_out() {
        let opinion =
            |name: &str, polarity| Opinion { aspect: None, opinion: None, category: Some(name.into()), polarity };
        let list = [
            opinion("a", Polarity::Positive),
            opinion("b", Polarity::Negative),
            opinion("a", Polarity::Neutral),
            opinion("b", Polarity::Negative),
        ];
        assert_eq!(topics(&list), [Topic { name: "b".into(), polarity: Polarity::Negative }]);
        assert_eq!(readable("FANS&COOLING#GENERAL"), "fans & cooling general");
    }
}
