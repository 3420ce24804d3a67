//! `cosmetics_reviews`: reviews with (aspect, opinion, category, polarity), offsets in characters, the labels in a
//! second file.

use std::collections::BTreeMap;
use std::io;

use super::clean::{clean, clean_with};
use super::laptop_acos::{place, topics};
use super::table::{Layout, table};
use super::{RawFile, Rows};
use crate::instruction::Lang;
use crate::record::{Opinion, Polarity, Record, Review, Span};

const LABELS: [&str; 9] =
    ["id", "AspectTerms", "A_start", "A_end", "OpinionTerms", "O_start", "O_end", "Categories", "Polarities"];

struct Label {
    /// Words and their first and last-plus-one character.
    aspect: Option<(String, usize, usize)>,
    opinion: Option<(String, usize, usize)>,
    category: String,
    polarity: Polarity,
}

pub(super) fn read(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    let labels = labels(&file.sibling("Train_labels.csv"), rows)?;
    table(file, Layout::Csv, ["id", "Reviews"], rows, |rows, line, [id, raw]| {
        let list = labels.get(id).map_or(&[][..], Vec::as_slice);
        let mut spans = Vec::new();
        for (words, start, end) in list.iter().flat_map(|label| [&label.aspect, &label.opinion]).flatten() {
            match Span::from_chars(raw, *start, *end) {
                Some(span) if span.of(raw) == Some(words) => spans.push(span),
                _ => {
                    return rows.bad(line, format!("wanted {words:?} at characters {start}..{end}, found other words"));
                }
            }
        }
        let text = clean_with(raw, &mut spans);
        let mut spans = spans.into_iter();
        let mut opinions = Vec::with_capacity(list.len());
        for Label { aspect, opinion, category, polarity } in list {
            let aspect = aspect.as_ref().and_then(|_| spans.next());
            let opinion = opinion.as_ref().and_then(|_| spans.next());
            let words = [aspect, opinion].into_iter().flatten().filter_map(|span| span.of(&text)).collect::<String>();
            let category = Some(category.clone()).filter(|category| is_telling(category, &words));
            opinions.push(Opinion { aspect, opinion, category, polarity: *polarity });
        }
        opinions.sort_by_key(place);
        let review = Review {
            meta: file.meta(line, Lang::Zh),
            text,
            topics: topics(&opinions),
            opinions,
            opinions_complete: true,
            ..Review::default()
        };
        rows.push(line, Record::Review(review));
    })
}

/// Whether a category says what is judged: nobody could tell an overall judgement from one of use, and gifts have no price.
fn is_telling(category: &str, words: &str) -> bool {
    match category {
        "整体" | "使用体验" => false,
        "价格" => !words.contains(['赠', '送', '礼']),
        _ => true,
    }
}

fn labels(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<BTreeMap<String, Vec<Label>>> {
    let mut labels: BTreeMap<String, Vec<Label>> = BTreeMap::new();
    let name = &file.name;
    table(file, Layout::Csv, LABELS, rows, |rows, line, [id, aspect, a, b, opinion, c, d, category, polarity]| {
        let polarity = match polarity {
            "正面" => Polarity::Positive,
            "负面" => Polarity::Negative,
            "中性" => Polarity::Neutral,
            _ => return rows.bad(line, format!("{name}: wanted 正面, 负面 or 中性, found {polarity:?}")),
        };
        let (Ok(aspect), Ok(opinion)) = (words(aspect, a, b), words(opinion, c, d)) else {
            return rows.bad(line, format!("{name}: wanted offsets for each term"));
        };
        let label = Label { aspect, opinion, category: clean(category), polarity };
        labels.entry(id.to_owned()).or_default().push(label);
    })?;
    Ok(labels)
}

/// `_` stands for what is only implied.
fn words(term: &str, start: &str, end: &str) -> Result<Option<(String, usize, usize)>, std::num::ParseIntError> {
    if term == "_" { Ok(None) } else { Ok(Some((term.to_owned(), start.trim().parse()?, end.trim().parse()?))) }
}

#[cfg(test)]
mod tests {
    use crate::raw::tests::{bad, raw_file, told};
    use crate::record::Record;

    #[test]
    fn labels_of_the_second_file_are_joined() {
        let (folder, file) =
            raw_file("cosmetics_reviews/Train_reviews.csv", "id,Reviews\n1,味道 好，贵\n2,好\n3,没有\n".as_bytes());
        let labels = "id,AspectTerms,A_start,A_end,OpinionTerms,O_start,O_end,Categories,Polarities\n\
                      1,_, , ,贵,5,6,价格,负面\n1,味道,0,2,好,3,4,气味,正面\n2,_, , ,差,0,1,整体,负面\n";
        std::fs::write(folder.path().join("cosmetics_reviews/Train_labels.csv"), labels).unwrap();
        let mut found = Vec::new();
        let report = told(&file, |rows| super::read(&file, rows).unwrap());
        let mut emit = |record| found.push(record);
        super::read(&file, &mut crate::raw::Rows::new(&file, &mut emit)).unwrap();
        let [Record::Review(first), Record::Review(last)] = &found[..] else { panic!("{found:?}") };
        let words = |n: usize| {
            let opinion = &first.opinions[n];
            (opinion.aspect.and_then(|s| s.of(&first.text)), opinion.opinion.and_then(|s| s.of(&first.text)))
        };
        assert_eq!((words(0), words(1)), ((Some("味道"), Some("好")), (None, Some("贵"))));
        assert_eq!(first.topics[0].name, "气味");
        assert!(last.opinions.is_empty() && last.opinions_complete);
        assert_eq!(
            bad(&report),
            ["cosmetics_reviews/Train_reviews.csv:3: wanted \"差\" at characters 0..1, found other words"]
        );
    }
}
