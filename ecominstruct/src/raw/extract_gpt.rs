//! `ae110k_attributes` and `oa_mine_attributes`: titles with values for the attributes of their category
//! (`ExtractGPT`).
//!
//! An attribute that is listed with `n/a`, or not listed, has no value in the title: the annotation counts as complete.

use std::borrow::Cow;
use std::io;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::clean::{clean, find};
use super::table::{Pairs, lines};
use super::{RawFile, Rows};
use crate::instruction::Lang;
use crate::record::{Attribute, Product, Record, Span};

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    input: Cow<'a, str>,
    #[serde(borrow)]
    category: Cow<'a, str>,
    target_scores: Pairs<String, Pairs<String, IgnoredAny>>,
}

pub(super) fn read(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    lines(file, rows, |rows, line, text| match serde_json::from_str::<Row<'_>>(text) {
        Ok(row) => match product(&row) {
            Ok(product) => {
                let product = Product { meta: file.meta(line, Lang::En), ..product };
                rows.push(line, Record::Product(product));
            }
            Err(what) => rows.bad(line, what),
        },
        Err(e) => rows.bad(line, e.to_string()),
    })
}

/// Names that so much of a title fits that nobody marked all of it.
const OPEN: [&str; 4] = ["Benefit", "Health benefit", "Specialty", "Sub brand"];

fn product(row: &Row<'_>) -> Result<Product, String> {
    let title = clean(&row.input);
    let mut attributes = Vec::new();
    let told = row.target_scores.0.iter().filter(|(name, _)| !OPEN.iter().any(|open| name.eq_ignore_ascii_case(open)));
    for (name, values) in told {
        for (value, _) in values.0.iter().filter(|(value, _)| value != "n/a") {
            let value = clean(value);
            let span = stated(&title, &value)?;
            attributes.push(Attribute { name: clean(name), value, span });
        }
    }
    let brand = attributes.iter().find(|a| matches!(a.name.as_str(), "Brand" | "Brand Name")).map(|a| a.value.clone());
    let category = vec![clean(&row.category)];
    Ok(Product { title, category, attributes, attributes_complete: true, brand, ..Product::default() })
}

/// Where the title has a value that was annotated there, be it next to a digit (`40` of `40W`); `None` where it is only part
/// of a longer word (`Men` of `Mens`).
pub(super) fn stated(title: &str, value: &str) -> Result<Option<Span>, String> {
    if let Some(span) = find(title, value) {
        return Ok(Some(span));
    }
    let start = title.find(value).ok_or_else(|| format!("wanted a value from the title, found {value:?}"))?;
    let end = start + value.len();
    let letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
    let cut = |at: usize| {
        let (before, after) = title.split_at(at);
        letter(before.chars().next_back()) && letter(after.chars().next())
    };
    Ok((!cut(start) && !cut(end)).then_some(Span { start, end }))
}

#[cfg(test)]
mod tests {
    use crate::raw::tests::{bad, products};

    #[test]
    fn values_have_their_place_in_the_title() {
        let text = concat!(
            r#"{"input":"Acme T5 Lamp  40W","category":"Lamp","#,
            r#""target_scores":{"Brand":{"Acme":1},"Power":{"40":1},"Size":{"n/a":1}}}"#,
            "\n",
            r#"{"input":"Acme","category":"Lamp","target_scores":{"Color":{"red":1}}}"#,
            "\n{\n"
        );
        let (found, report) = products(super::read, "oa_mine_attributes/train.jsonl", text);
        let product = &found[0];
        assert_eq!((product.title.as_str(), product.leaf()), ("Acme T5 Lamp 40W", Some("Lamp")));
        let words: Vec<_> = product.attributes.iter().map(|a| a.span.unwrap().of(&product.title).unwrap()).collect();
        assert_eq!(words, ["Acme", "40"]);
        assert_eq!(super::stated("Mens cap", "Men"), Ok(None));
        assert!(product.attributes_complete && product.brand.as_deref() == Some("Acme"));
        assert_eq!(product.meta.raw_id, "oa_mine_attributes/train.jsonl:1");
        assert_eq!(product.meta.group, product.meta.raw_id);
        assert_eq!(bad(&report)[0], "oa_mine_attributes/train.jsonl:2: wanted a value from the title, found \"red\"");
        assert!(bad(&report)[1].starts_with("oa_mine_attributes/train.jsonl:3: EOF"));
    }
}
