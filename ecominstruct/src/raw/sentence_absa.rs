//! `absa_tv_tshirt` and `zh_product_absa`: three lines an item, a sentence with `$T$`, the aspect that stands there,
//! its polarity.
//!
//! One sentence gives several items, one for each aspect: the raw id is the hash of the sentence with the aspect put
//! back. Where `$T$` stands more than once, the aspect is put back everywhere and its first place is kept.

use std::io;

use super::clean::clean_with;
use super::table::lines;
use super::{RawFile, Rows, text_id};
use crate::instruction::Lang;
use crate::record::{Meta, Opinion, Polarity, Record, Review, Span};

pub(super) fn read_en(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    read(file, rows, Lang::En, |text, _| text)
}

/// Camera, notebook and phone put a space between all characters.
pub(super) fn read_zh(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    let spaced = !file.name.contains("shampoo");
    read(file, rows, Lang::Zh, |text, span| if spaced { unspaced(&text, span) } else { text })
}

fn read(file: &RawFile, rows: &mut Rows<'_>, lang: Lang, join: impl Fn(String, &mut Span) -> String) -> io::Result<()> {
    let mut item = [String::new(), String::new()];
    let mut have = 0;
    lines(file, rows, |rows, line, text| {
        if have < 2 {
            item[have].clear();
            item[have].push_str(text);
            have += 1;
            return;
        }
        have = 0;
        let (sentence, aspect) = (&item[0], item[1].trim());
        let first = line - 2;
        let polarity = match text.trim() {
            "Positive" => Polarity::Positive,
            "Negative" => Polarity::Negative,
            "Neutral" => Polarity::Neutral,
            other => return rows.bad(line, format!("wanted Positive, Negative or Neutral, found {other:?}")),
        };
        if polarity == Polarity::Neutral && file.name.contains("shampoo") {
            return rows
                .bad(line, "wanted Positive or Negative, found Neutral, which stands for praise and blame there");
        }
        let Some(start) = sentence.find("$T$") else {
            return rows.bad(first, "wanted $T$ in the sentence, found none");
        };
        let mut span = Span { start, end: start + aspect.len() };
        let text = join(sentence.replace("$T$", aspect), &mut span);
        let text = clean_with(&text, std::slice::from_mut(&mut span));
        // Some Chinese "aspects" are half a sentence.
        let clause = |words: &str| words == text || words.contains(['的', '很']) || words.contains("比较");
        let vague = lang == Lang::Zh && span.of(&text).is_none_or(clause);
        let opinion = (!vague).then_some(Opinion { aspect: Some(span), opinion: None, category: None, polarity });
        let meta = Meta { raw_id: text_id(file.folder(), &text), group: String::new(), lang };
        rows.push(
            first,
            Record::Review(Review { meta, text, opinions: opinion.into_iter().collect(), ..Review::default() }),
        );
    })?;
    if have > 0 {
        rows.bad(0, format!("wanted three lines for each item, found {have} at the end"));
    }
    Ok(())
}

/// `text` without the spaces that do not part two ASCII words; `span` moves along.
fn unspaced(text: &str, span: &mut Span) -> String {
    let bytes = text.as_bytes();
    let word = |i: Option<usize>| i.and_then(|i| bytes.get(i)).is_some_and(u8::is_ascii_alphanumeric);
    let mut out = String::with_capacity(text.len());
    let (mut start, mut end) = (0, 0);
    for (i, c) in text.char_indices() {
        if i == span.start {
            start = out.len();
        }
        if c != ' ' || (word(i.checked_sub(1)) && word(Some(i + 1))) {
            out.push(c);
        }
        if i + c.len_utf8() == span.end {
            end = out.len();
        }
    }
    *span = Span { start, end };
    out
}

#[cfg(test)]
mod tests {
    use crate::raw::tests::{bad, reviews};
    use crate::record::Polarity;

    #[test]
    fn aspects_are_put_back() {
        let text = "bad $T$  here, no $T$\ncolor\nNegative\nbad color  here, no $T$\ncolor\nPositive\n\
                    none\nx\nNeutral\n$T$\nx\nnone\n$T$\n";
        let (found, report) = reviews(super::read_en, "absa_tv_tshirt/a.seg", text);
        assert_eq!(found[0].text, "bad color here, no color");
        let words: Vec<_> = found.iter().map(|r| r.opinions[0].aspect.unwrap().start).collect();
        assert_eq!(words, [4, 19]);
        assert_eq!(found[0].meta.raw_id, found[1].meta.raw_id);
        assert_eq!(bad(&report)[0], "absa_tv_tshirt/a.seg:7: wanted $T$ in the sentence, found none");
        assert_eq!(bad(&report)[1], "absa_tv_tshirt/a.seg:12: wanted Positive, Negative or Neutral, found \"none\"");
        assert_eq!(bad(&report).len(), 3);
    }

    #[test]
    fn neutral_shampoo_is_left_out() {
        let text = "$T$好\n香味\nNeutral\n$T$好\n香味\nPositive\n";
        let (found, report) = reviews(super::read_zh, "zh_product_absa/shampoo.test.txt", text);
        assert_eq!((found.len(), bad(&report).len()), (1, 1));
        assert_eq!(found[0].opinions[0].polarity, Polarity::Positive);
        assert_eq!(reviews(super::read_zh, "zh_product_absa/phone.test.txt", text).0.len(), 2);
    }

    #[test]
    fn chinese_characters_close_up() {
        let (found, _) =
            reviews(super::read_zh, "zh_product_absa/phone.train.txt", "这 $T$ of it 好\n屏 幕 A 1\nPositive\n");
        assert_eq!(found[0].text, "这屏幕A 1 of it好");
        assert_eq!(found[0].opinions[0].aspect.and_then(|s| s.of(&found[0].text)), Some("屏幕A 1"));
    }
}
