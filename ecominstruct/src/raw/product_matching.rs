//! `product_matching_er`: pairs of listings, `COL name VAL value …` ⇥ the same ⇥ 0 or 1 (DeepMatcher/Magellan
//! benchmark).
//!
//! A listing stands in many pairs, so its raw id is the hash of its text and it is emitted once for each pair; the
//! judgement hangs on the first of the two. Texts stay lower-cased and tokenised as published.

use std::io;

use super::clean::{clean, find};
use super::table::lines;
use super::{RawFile, Rows, text_id};
use crate::instruction::Lang;
use crate::record::{Attribute, Meta, Pair, Product, Record};

pub(super) fn read(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    let (set, _) = file.name.rsplit_once('/').unwrap_or((&file.name, ""));
    // Walmart's side has departments; Amazon's side of that set has anything.
    let first_has_category = set.ends_with("walmart_amazon");
    lines(file, rows, |rows, line, text| {
        let mut fields = text.split('\t');
        let (Some(a), Some(b), Some(label), None) = (fields.next(), fields.next(), fields.next(), fields.next()) else {
            return rows.bad(line, "wanted two listings and a label between tabs");
        };
        let same = match label {
            "0" => false,
            "1" => true,
            _ => return rows.bad(line, format!("wanted label 0 or 1, found {label:?}")),
        };
        let (Some(mut first), Some(mut second)) = (listing(set, a), listing(set, b)) else {
            return rows.bad(line, "wanted COL name VAL value in each listing");
        };
        if !first_has_category {
            first.category.clear();
        }
        second.category.clear();
        first.judged.push(Pair { other: second.meta.raw_id.clone(), same });
        rows.push(line, Record::Product(first));
        rows.push(line, Record::Product(second));
    })
}

/// `None` if `text` is not a list of columns.
fn listing(set: &str, text: &str) -> Option<Product> {
    let text = text.trim();
    let meta = Meta { raw_id: text_id(set, text), group: String::new(), lang: Lang::En };
    let mut product = Product { meta, ..Product::default() };
    for column in text.strip_prefix("COL ")?.split(" COL ") {
        let (name, value) = column.split_once(" VAL").or_else(|| Some((column.strip_suffix(" VAL")?, "")))?;
        let value = clean(value);
        // A price of nothing is a missing price.
        if value.is_empty() || (name == "price" && matches!(value.as_str(), "0.0" | "0")) {
            continue;
        }
        match name {
            "title" | "name" => product.title = value,
            "description" => product.description = Some(value),
            "category" => product.category.push(value),
            _ => {
                let name = if name == "modelno" { "model number" } else { name };
                if matches!(name, "brand" | "manufacturer") {
                    product.brand = Some(value.clone());
                }
                product.attributes.push(Attribute { name: name.into(), span: None, value });
            }
        }
    }
    for attribute in &mut product.attributes {
        let sound = attribute.name != "model number" || is_model(&attribute.value, product.brand.as_deref());
        attribute.span = find(&product.title, &attribute.value).filter(|_| sound);
    }
    Some(product)
}

/// Whether a value of the model column is a model number: one word with a digit, and not the brand.
fn is_model(value: &str, brand: Option<&str>) -> bool {
    let branded = brand.is_some_and(|brand| !brand.is_empty() && value.contains(brand));
    !value.contains(char::is_whitespace) && value.contains(|c: char| c.is_ascii_digit()) && !branded
}

#[cfg(test)]
mod tests {
    use super::is_model;
    use crate::raw::tests::{bad, products};

    #[test]
    fn a_model_number_is_one_word_with_a_digit() {
        for (value, brand, model) in [
            ("dcr5018", Some("sony"), true),
            ("dcr5018", None, true),
            ("dcr5018", Some(""), true),
            ("red 5018", None, false),
            ("standard", None, false),
            ("sony5018", Some("sony"), false),
        ] {
            assert_eq!(is_model(value, brand), model, "{value} {brand:?}");
        }
        let text = "COL title VAL oak lamp standard COL modelno VAL standard\tCOL title VAL oak lamp k9 COL modelno VAL k9\t1\n";
        let (found, _) = products(super::read, "product_matching_er/walmart_amazon/train.txt", text);
        let spans: Vec<bool> = found.iter().map(|p| p.attributes[0].span.is_some()).collect();
        assert_eq!(spans, [false, true]);
    }

    #[test]
    fn a_line_gives_two_listings_and_one_judgement() {
        let text = "COL title VAL oak desk lamp COL category VAL lighting \
                    COL brand VAL oak COL modelno VAL  COL price VAL 0.0 \t\
                    COL title VAL desk lamp by oak COL category VAL x COL brand VAL  COL price VAL 9.5\t1\n\
                    COL title VAL a\t1\n";
        let (found, report) = products(super::read, "product_matching_er/walmart_amazon/train.txt", text);
        assert_eq!(found[0].title, "oak desk lamp");
        assert_eq!(found[0].category, ["lighting"]);
        assert_eq!(found[0].brand.as_deref(), Some("oak"));
        assert_eq!(found[0].attributes.len(), 1);
        assert_eq!(found[0].attributes[0].span.and_then(|s| s.of(&found[0].title)), Some("oak"));
        assert!(found[0].judged[0].same && found[0].judged[0].other == found[1].meta.raw_id);
        assert!(found[1].category.is_empty() && found[1].attributes[0].name == "price");
        assert!(found[0].meta.raw_id.starts_with("product_matching_er/walmart_amazon#"));
        assert_eq!(
            bad(&report),
            ["product_matching_er/walmart_amazon/train.txt:2: wanted two listings and a label between tabs"]
        );
    }
}
