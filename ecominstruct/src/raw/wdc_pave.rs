//! `wdc_pave`: titles and descriptions with values for the attributes of their category, each with where it stands.

use std::io;

use serde::Deserialize;
use serde_json::Value;

use super::clean::clean;
use super::extract_gpt::stated;
use super::table::{Pairs, lines};
use super::{RawFile, Rows};
use crate::instruction::Lang;
use crate::record::{Attribute, Product, Record};

#[derive(Deserialize)]
struct Row {
    category: String,
    input_title: String,
    input_description: Option<String>,
    target_scores: Pairs<String, Pairs<String, Value>>,
}

pub(super) fn read(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    lines(file, rows, |rows, line, text| {
        let product = serde_json::from_str(text).map_err(|e| e.to_string()).and_then(|row| product(&row));
        match product {
            Ok(product) => {
                let product = Product { meta: file.meta(line, Lang::En), ..product };
                rows.push(line, Record::Product(product));
            }
            Err(what) => rows.bad(line, what),
        }
    })
}

/// Values that stand in the title (part 0) get a span there; those of the description (part 1) alone get none.
fn product(row: &Row) -> Result<Product, String> {
    let title = clean(&row.input_title);
    let mut attributes = Vec::new();
    for (name, values) in &row.target_scores.0 {
        for (value, place) in values.0.iter().filter(|(value, _)| value != "n/a") {
            let value = clean(value);
            let parts = place.get("pid").and_then(Value::as_array).ok_or("wanted a list \"pid\" for each value")?;
            let span = if parts.contains(&0.into()) { stated(&title, &value)? } else { None };
            attributes.push(Attribute { name: clean(name), value, span });
        }
    }
    let horsepower = |a: &Attribute| a.name == "Manufacturer" && a.value == "HP";
    let maker = |a: &Attribute| a.name == "Manufacturer" && !COMPAQ.iter().any(|name| a.value.starts_with(name));
    if attributes.iter().any(maker) {
        attributes.retain(|a| !horsepower(a));
    }
    let described = row.input_description.as_deref().map(|text| copy(&clean(text))).filter(|text| !text.is_empty());
    let brand =
        attributes.iter().find(|a| matches!(a.name.as_str(), "Brand" | "Manufacturer")).map(|a| a.value.clone());
    let category = clean(&row.category);
    let misplaced = ["Grocery And Gourmet Food", "Jewelry"].contains(&category.as_str())
        && TABLEWARE.iter().any(|name| title.contains(name));
    let category = if misplaced { Vec::new() } else { vec![category] };
    Ok(Product {
        title,
        description: described,
        category,
        attributes,
        attributes_complete: true,
        brand,
        ..Product::default()
    })
}

/// Names of the maker that `HP` stands for; beside another one it is horsepower.
const COMPAQ: [&str; 4] = ["HP", "Hewlett", "Compaq", "Proliant"];

/// Makers of glass, china and coffee machines, some of which the source filed under food and jewelry.
const TABLEWARE: [&str; 7] =
    ["Waterford", "Wedgwood", "Royal Albert", "Royal Doulton", "Stolzle", "Anchor Hocking", "Mr. Coffee"];

/// The selling text of a description, without the tables that stood around it on the page.
fn copy(text: &str) -> String {
    const TABLES: [&str; 5] = ["ALTERNATE ITEM", "UPC:", "COLOR:", "INNER PACKAGING", "Part Number"];
    let text = text.strip_prefix("Description:").unwrap_or(text);
    let end = TABLES.iter().filter_map(|table| text.find(table)).min().unwrap_or(text.len());
    text.split_at(end).0.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use crate::raw::tests::{bad, products};

    #[test]
    fn only_values_of_the_title_have_a_span() {
        let text = concat!(
            r#"{"id":1,"category":"Office","input_title":"Acme Tape 9 m","input_description":"Clear &amp; strong","#,
            r#""target_scores":"#,
            r#"{"Brand":{"Acme":{"pid":[0,1],"score":1}},"Color":{"Clear":{"pid":[1],"score":1}},"Width":{"n/a":1}}}"#,
            "\n",
            r#"{"category":"Office","input_title":"Tape","input_description":null,"#,
            r#""target_scores":{"Brand":{"Acme":{"pid":[0]}}}}"#,
        );
        let (found, report) = products(super::read, "wdc_pave/test.jsonl", text);
        let spans: Vec<_> = found[0].attributes.iter().map(|a| a.span.is_some()).collect();
        assert_eq!(spans, [true, false]);
        assert_eq!(found[0].description.as_deref(), Some("Clear & strong"));
        assert_eq!(bad(&report), ["wdc_pave/test.jsonl:2: wanted a value from the title, found \"Acme\""]);
    }

    #[test]
    fn tables_horsepower_and_misplaced_glasses_go() {
        let text = concat!(
            r#"{"category":"Jewelry","input_title":"Waterford Bowl 2 HP Acme","input_description":"Description:A bowl.UPC:12","#,
            r#""target_scores":{"Manufacturer":{"HP":{"pid":[0]},"Acme":{"pid":[0]}}}}"#,
            "\n",
            r#"{"category":"Jewelry","input_title":"Compaq HP disk","input_description":null,"#,
            r#""target_scores":{"Manufacturer":{"HP":{"pid":[0]},"Compaq":{"pid":[0]}}}}"#,
        );
        let (found, _) = products(super::read, "wdc_pave/test.jsonl", text);
        assert_eq!(found[0].description.as_deref(), Some("A bowl."));
        assert!(found[0].category.is_empty() && found[0].attributes.len() == 1);
        assert!(found[1].leaf() == Some("Jewelry") && found[1].attributes.len() == 2);
    }
}
