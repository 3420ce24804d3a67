//! `amazon_pqa`: questions about products with evidence (passages or attributes), answers and relevance labels.
//!
//! | file | becomes |
//! |---|---|
//! | `het_answer_*` | a passage with a question and its written answer |
//! | `epqa_dev` | a passage with a question, answerable (2) or not (0; 1, in part, is no flag), maybe with an answer |
//! | `semi_data2text_*` | a product with attributes and a sentence as its description |
//! | `semi_attribute_ranking_dev` | an attribute as a passage with a question that it answers or not |

use std::io;

use super::attribute_text::attributes;
use super::clean::clean;
use super::table::{Layout, table};
use super::{RawFile, Rows, text_id};
use crate::instruction::Lang;
use crate::record::{Meta, Product, Question, Record, Review};

pub(super) fn read(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    let name = file.name.rsplit('/').next().unwrap_or_default();
    match name {
        _ if name.starts_with("het_answer") => {
            table(file, Layout::Tsv, ["question", "candidate", "answer"], rows, |rows, line, [asked, text, answer]| {
                let question = Question { answer: Some(clean(answer)), ..Question::default() };
                match evidence(text) {
                    Ok(text) => rows.push(line, passage(file, line, asked, asked, text, question)),
                    Err(what) => rows.bad(line, what),
                }
            })
        }
        _ if name.starts_with("epqa") => epqa(file, rows),
        _ if name.starts_with("semi_data2text") => {
            table(file, Layout::Tsv, ["data", "text"], rows, |rows, line, [data, text]| match attributes(data) {
                Ok(mut attributes) => {
                    attributes.retain(|a| !a.name.contains("normalized value"));
                    let meta = file.meta(line, Lang::En);
                    let description = Some(clean(text));
                    rows.push(line, Record::Product(Product { meta, description, attributes, ..Product::default() }));
                }
                Err(what) => rows.bad(line, what),
            })
        }
        _ => table(file, Layout::Tsv, ["question", "candidate", "label"], rows, |rows, line, [asked, data, label]| {
            let answerable = match label {
                "0" => false,
                "1" => true,
                _ => return rows.bad(line, format!("wanted label 0 or 1, found {label:?}")),
            };
            let question = Question { answerable: Some(answerable), ..Question::default() };
            match facts(data) {
                Ok(text) => rows.push(line, passage(file, line, asked, asked, text, question)),
                Err(what) => rows.bad(line, what),
            }
        }),
    }
}

fn epqa(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    let columns = ["question", "candidate", "title", "label", "answer"];
    table(file, Layout::Tsv, columns, rows, |rows, line, [asked, text, title, label, answer]| {
        let answerable = match label {
            "0" => Some(false),
            "1" => None,
            "2" => Some(true),
            _ => return rows.bad(line, format!("wanted label 0, 1 or 2, found {label:?}")),
        };
        let answer = Some(clean(answer)).filter(|answer| !answer.is_empty());
        let about = if title.is_empty() { asked } else { title };
        let question = Question { answer, answerable, ..Question::default() };
        match evidence(text) {
            Ok(text) => rows.push(line, passage(file, line, about, asked, text, question)),
            Err(what) => rows.bad(line, what),
        }
    })
}

/// The words of a piece of evidence: an answer to another question comes without that question, attributes as facts.
fn evidence(text: &str) -> Result<String, String> {
    let said = text.split(" Question: ").next().unwrap_or(text);
    if said.contains('{') && said.contains("value:") { facts(said) } else { Ok(clean(said)) }
}

/// Attributes as `name: value; name: value`.
fn facts(data: &str) -> Result<String, String> {
    if data.trim_start().starts_with("item_package_weight") {
        return Err("wanted a fact about the product, found the weight of its package".to_owned());
    }
    let attributes = attributes(data)?;
    // The same number once more.
    let told = attributes.iter().filter(|a| !a.name.contains("normalized value"));
    Ok(told.map(|a| format!("{}: {}", a.name, a.value)).collect::<Vec<_>>().join("; "))
}

/// A passage with one question; passages `about` the same product, or the same question where that is unknown, are one
/// group.
fn passage(file: &RawFile, line: usize, about: &str, asked: &str, text: String, question: Question) -> Record {
    let group = text_id(&format!("{}/about", file.folder()), &clean(about));
    let questions = vec![Question { text: clean(asked), ..question }];
    let meta = Meta { group, ..file.meta(line, Lang::En) };
    Record::Review(Review { meta, text, questions, ..Review::default() })
}

#[cfg(test)]
mod tests {
    use crate::raw::tests::{bad, products, reviews};

    #[test]
    fn evidence_becomes_a_passage() {
        let text = "question\tcandidate\tanswer\tsource\nhow  big?\t\"two 9\"\" plates\"\tnine inches\tCQA\n";
        let (found, _) = reviews(super::read, "amazon_pqa/het_answer_dev.tsv", text);
        assert_eq!((found[0].text.as_str(), found[0].questions[0].text.as_str()), ("two 9\" plates", "how big?"));
        assert_eq!(found[0].questions[0].answer.as_deref(), Some("nine inches"));

        let text = "question\tcandidate\tsource\ttitle\tlabel\tanswer\n\
                    q\ta\tr\tLamp\t2\tyes\nq2\tb\tr\tLamp\t1\t\nq\tc\tr\tLamp\t0\t\nq\tc\tr\tLamp\t\t\n";
        let (found, report) = reviews(super::read, "amazon_pqa/epqa_dev.tsv", text);
        let flags: Vec<_> = found.iter().map(|r| r.questions[0].answerable).collect();
        assert_eq!(flags, [Some(true), None, Some(false)]);
        assert_eq!((found[0].questions[0].answer.as_deref(), &found[2].questions[0].answer), (Some("yes"), &None));
        assert_eq!(found[0].meta.group, found[1].meta.group);
        assert_eq!(bad(&report), ["amazon_pqa/epqa_dev.tsv:5: wanted label 0, 1 or 2, found \"\""]);
    }

    #[test]
    fn evidence_is_words() {
        let size = "width:{ unit:inches, normalized_value:{ unit:inches, value:7 }, value:7 }";
        let text = format!(
            "question\tcandidate\ttitle\tlabel\tanswer\n\
             q\tit fits. Question: does it fit?\tLamp\t2\tyes\n\
             q\tsize: {{ {size} }}\tLamp\t0\t\n\
             q\titem_package_weight: {{ value:2 }}\tLamp\t0\t\n"
        );
        let (found, report) = reviews(super::read, "amazon_pqa/epqa_dev.tsv", &text);
        let texts: Vec<_> = found.iter().map(|r| r.text.as_str()).collect();
        assert_eq!(texts, ["it fits.", "size width: 7 inches"]);
        assert_eq!(bad(&report).len(), 1, "{:?}", bad(&report));
    }

    #[test]
    fn attributes_become_products_or_passages() {
        let text = "data\ttext\n\"color: { value:\"\"Red\"\" }\"\tIt is red.\ncolor\tIt.\n";
        let (found, report) = products(super::read, "amazon_pqa/semi_data2text_dev.tsv", text);
        assert_eq!(
            (found[0].attributes[0].value.as_str(), found[0].description.as_deref()),
            ("Red", Some("It is red."))
        );
        assert_eq!(bad(&report), ["amazon_pqa/semi_data2text_dev.tsv:3: wanted name: value, found \"color\""]);

        let text = "data\ttext\n\"width: { value:7, normalized_value:{ value:7 } }\"\tIt is wide.\n";
        let (found, _) = products(super::read, "amazon_pqa/semi_data2text_dev.tsv", text);
        assert_eq!(found[0].attributes.len(), 1);

        let text = "question\tcandidate\tlabel\nwhich?\tage_range: { value:2 }; { value:3 }\t1\n";
        let (found, _) = reviews(super::read, "amazon_pqa/semi_attribute_ranking_dev.tsv", text);
        assert_eq!(
            (found[0].text.as_str(), found[0].questions[0].answerable),
            ("age range: 2; age range: 3", Some(true))
        );
    }
}
