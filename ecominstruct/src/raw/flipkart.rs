//! `flipkart_products`: name, category path, brand, description, specifications as a Ruby hash, prices.

use std::io;

use serde::Deserialize;

use super::clean::{clean, find};
use super::table::{Layout, table};
use super::{RawFile, Rows};
use crate::instruction::Lang;
use crate::record::{Attribute, Product, Record};

const COLUMNS: [&str; 7] = [
    "product_name",
    "product_category_tree",
    "brand",
    "description",
    "product_specifications",
    "retail_price",
    "discounted_price",
];

/// Names whose values are whole titles or parcels.
const LOOSE: [&str; 2] = ["Model Name", "Sales Package"];

pub(super) fn read(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    table(
        file,
        Layout::Csv,
        COLUMNS,
        rows,
        |rows, line, [title, tree, brand, description, specifications, retail, discounted]| {
            let title = clean(title);
            let brand = Some(clean(brand)).filter(|brand| !brand.is_empty());
            let facts = match facts(specifications) {
                Ok(facts) => facts,
                Err(what) => return rows.bad(line, what),
            };
            let prices = [("retail price", retail), ("discounted price", discounted)];
            let facts = facts.into_iter().chain(prices.map(|(name, value)| (name.to_owned(), clean(value))));
            let attributes = facts.filter(|(name, value)| !value.is_empty() && !LOOSE.contains(&name.as_str()));
            let attributes = attributes.map(|(name, value)| {
                let span = find(&title, &value);
                Attribute { name, value, span }
            });
            let product = Product {
                meta: file.meta(line, Lang::En),
                attributes: attributes.collect(),
                category: path(tree, &title, brand.as_deref()),
                description: Some(clean(description)).filter(|text| !text.is_empty()),
                brand,
                title,
                ..Product::default()
            };
            rows.push(line, Record::Product(product));
        },
    )
}

/// The path `["a >> b >> title..."]` without what is no category at its end: the (shortened) title, the shop within the
/// shop of a brand.
fn path(tree: &str, title: &str, brand: Option<&str>) -> Vec<String> {
    let tree = tree.trim().trim_start_matches("[\"").trim_end_matches("\"]");
    let mut path: Vec<String> = tree.split(" >> ").map(|part| clean(&part.replace("\\\"", "\""))).collect();
    let begins = |text: &str, with: &str| text.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with));
    if let Some(last) = path.last().filter(|_| path.len() > 1) {
        let stem = last.trim_end_matches('.').trim_end();
        if last.ends_with("...") || begins(title, stem) || begins(last, title) {
            path.pop();
        }
    }
    if let [.., parent, last] = &path[..] {
        let by_brand = brand.is_some_and(|brand| begins(last, brand));
        // `Watches >> Acme Watches` above a title that begins with `Acme`.
        let by_name = last.strip_suffix(parent.as_str()).is_some_and(|name| name.ends_with(' ') && begins(title, name));
        if by_brand || by_name {
            path.pop();
        }
    }
    path.retain(|part| !part.is_empty());
    path
}

#[derive(Deserialize)]
struct Hash {
    product_specification: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(Fact),
    Many(Vec<Fact>),
}

#[derive(Deserialize)]
struct Fact {
    key: Option<String>,
    value: Option<String>,
}

/// Names and values; a value without a name says nothing and is passed over.
fn facts(hash: &str) -> Result<Vec<(String, String)>, String> {
    if hash.trim().is_empty() {
        return Ok(Vec::new());
    }
    let hash: Hash = serde_json::from_str(&to_json(hash)).map_err(|e| format!("specifications: {e}"))?;
    let facts = match hash.product_specification {
        None => Vec::new(),
        Some(OneOrMany::One(fact)) => vec![fact],
        Some(OneOrMany::Many(facts)) => facts,
    };
    let named = facts.into_iter().filter_map(|fact| Some((clean(&fact.key?), clean(&fact.value?))));
    Ok(named.filter(|(name, _)| !name.is_empty()).collect())
}

/// Ruby writes `=>` for `:` and `nil` for `null`; strings are the same but for `\#` and `\e`.
fn to_json(ruby: &str) -> String {
    let mut json = String::with_capacity(ruby.len());
    for (i, part) in quoted(ruby).enumerate() {
        if i % 2 == 0 {
            json.push_str(&part.replace("=>", ":").replace("nil", "null"));
        } else {
            json.push('"');
            json.push_str(&part.replace("\\#", "#").replace("\\e", " "));
            json.push('"');
        }
    }
    json
}

/// The parts outside and inside of double quotes, in turn.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let border = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        border
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::tests::{bad, products};

    #[test]
    fn ruby_hashes_become_attributes() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let many = r#"{"product_specification"=>[{"key"=>"Size", "value"=>"2\" => nil"}, {"value"=>"loose"}]}"#;
        assert_eq!(facts(many).unwrap(), [pair("Size", "2\" => nil")]);
        assert_eq!(facts(r#"{"product_specification"=>{"key"=>"A", "value"=>"\#b"}}"#).unwrap(), [pair("A", "#b")]);
        assert_eq!(facts(r#"{"product_specification"=>nil}"#).unwrap(), []);
        assert!(facts("{").is_err());
    }

    #[test]
    fn a_path_ends_with_a_category() {
        assert_eq!(
            path(r#"["Home >> Curtains >> Acme Door Cur..."]"#, "Acme Door Curtain", None),
            ["Home", "Curtains"]
        );
        assert_eq!(
            path(r#"["Home >> Curtains >> Acme Curtains >> Acme Red"]"#, "Acme Red", Some("Acme")),
            ["Home", "Curtains"]
        );
        assert_eq!(path(r#"["Watches >> Acme Watches"]"#, "Acme 5 Watch", None), ["Watches"]);
        assert_eq!(path(r#"["Watches >> Wrist Watches"]"#, "Acme 5 Watch", None), ["Watches", "Wrist Watches"]);
        assert_eq!(path(r#"["Acme Red"]"#, "Acme Red", Some("Acme")), ["Acme Red"]);
    }

    #[test]
    fn a_row_becomes_a_product() {
        let text = "product_name,product_category_tree,brand,description,\
                    product_specifications,retail_price,discounted_price\n\
                    Acme Red Bowl,\"[\"\"Kitchen >> Bowls\"\"]\",,Good <b>bowl</b>,\
                    \"{\"\"product_specification\"\"=>[{\"\"key\"\"=>\"\"Color\"\", \
                    \"\"value\"\"=>\"\"Red\"\"}]}\",90,80\nA,x,,,{,,\n";
        let (found, report) = products(read, "flipkart_products/a.csv", text);
        assert_eq!(found[0].description.as_deref(), Some("Good bowl"));
        let facts: Vec<_> =
            found[0].attributes.iter().map(|a| (a.name.as_str(), a.value.as_str(), a.span.is_some())).collect();
        assert_eq!(facts, [("Color", "Red", true), ("retail price", "90", false), ("discounted price", "80", false)]);
        assert!(bad(&report)[0].starts_with("flipkart_products/a.csv:3: specifications: "));
    }
}
