//! `subjqa`: questions about reviews, with the words that answer them or none.
//!
//! A review is asked about in several rows: its raw id is the hash of its text and it is emitted once for each
//! question.

use std::io;

use super::clean::clean_with;
use super::table::{Layout, table};
use super::{RawFile, Rows, clean::clean, text_id};
use crate::instruction::Lang;
use crate::record::{Meta, Question, Record, Review, Span};

/// What the publisher put at the end of every review as the answer to questions without one.
const NONE: &str = "ANSWERNOTFOUND";
const COLUMNS: [&str; 8] = [
    "item_id",
    "domain",
    "question",
    "review",
    "human_ans_spans",
    "human_ans_indices",
    "is_ques_subjective",
    "question_subj_level",
];

pub(super) fn read(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    table(
        file,
        Layout::Csv,
        COLUMNS,
        rows,
        |rows, line, [item, domain, question, review, answer, indices, subjective, level]| {
            let text = review.trim_end();
            let text = text.strip_suffix(NONE).unwrap_or(text);
            let mut span = None;
            if answer != NONE {
                let at = chars(indices).and_then(|(start, end)| Span::from_chars(text, start, end));
                match at {
                    Some(at) if at.of(text) == Some(answer) => span = Some(at),
                    _ => {
                        return rows
                            .bad(line, format!("wanted the answer at characters {indices}, found other words there"));
                    }
                }
            }
            // The flag was worked out from the words, the level (1 is the most subjective) asked of people.
            let subjective = match (subjective, level) {
                ("True", "1" | "2") => Some(true),
                ("False", "4" | "5") => Some(false),
                ("True" | "False", "1" | "2" | "3" | "4" | "5") => None,
                _ => {
                    let found = format!("{subjective:?} and {level:?}");
                    return rows.bad(line, format!("wanted True or False and a level from 1 to 5, found {found}"));
                }
            };
            let mut spans: Vec<Span> = span.into_iter().collect();
            let text = clean_with(text, &mut spans);
            let question = Question {
                text: clean(question),
                span: spans.first().copied(),
                answer: None,
                answerable: Some(answer != NONE),
                subjective,
            };
            let raw_id = text_id(file.folder(), &text);
            // Amazon's own product id, which other sources use as well.
            let group = if item.is_empty() { raw_id.clone() } else { format!("asin:{item}") };
            let review = Review {
                meta: Meta { raw_id, group, lang: Lang::En },
                text,
                category: vec![clean(domain)],
                questions: vec![question],
                ..Review::default()
            };
            rows.push(line, Record::Review(review));
        },
    )
}

/// The two numbers of `(3, 14)`.
fn chars(indices: &str) -> Option<(usize, usize)> {
    let (start, end) = indices.trim().strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    Some((start.trim().parse().ok()?, end.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use crate::raw::tests::{bad, reviews};

    #[test]
    fn answers_stay_in_place_when_the_text_is_cleaned() {
        let text = "item_id,domain,question,review,human_ans_spans,human_ans_indices,is_ques_subjective,question_subj_level\n\
                    B0,grocery,How  is it?,\"Né  &amp; sweet. ANSWERNOTFOUND\",sweet,\"(10, 15)\",True,2\n\
                    B0,grocery,Price?,\"Né  &amp; sweet. ANSWERNOTFOUND\",ANSWERNOTFOUND,\"(17, 31)\",False,1\n\
                    B0,grocery,Price?,Sweet. ANSWERNOTFOUND,weet,\"(0, 4)\",False,5\n";
        let (found, report) = reviews(super::read, "subjqa/a.csv", text);
        let (first, second) = (&found[0], &found[1]);
        assert_eq!(first.text, "Né & sweet.");
        assert_eq!(first.questions[0].span.and_then(|s| s.of(&first.text)), Some("sweet"));
        assert_eq!((first.questions[0].answerable, first.questions[0].subjective), (Some(true), Some(true)));
        assert_eq!((second.questions[0].answerable, second.questions[0].span), (Some(false), None));
        assert_eq!(second.questions[0].subjective, None, "flag and level differ");
        assert_eq!((&first.meta.raw_id, &first.meta.group), (&second.meta.raw_id, &"asin:B0".to_owned()));
        assert_eq!(bad(&report), ["subjqa/a.csv:4: wanted the answer at characters (0, 4), found other words there"]);
    }
}
