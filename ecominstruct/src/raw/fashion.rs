//! `fashion_attributes`: titles with a path of three categories and five attributes.

use std::io;

use super::clean::{clean, find};
use super::table::{Layout, table};
use super::{RawFile, Rows};
use crate::instruction::Lang;
use crate::record::{Attribute, Product, Record};

const COLUMNS: [&str; 9] = [
    "productDisplayName",
    "masterCategory",
    "subCategory",
    "articleType",
    "gender",
    "baseColour",
    "season",
    "year",
    "usage",
];

pub(super) fn read(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    table(
        file,
        Layout::Csv,
        COLUMNS,
        rows,
        |rows, line, [title, master, sub, article, gender, color, season, year, usage]| {
            let title = clean(title);
            let semi = title.contains("Semi Formal");
            let facts = [("gender", gender), ("color", color), ("season", season), ("year", year), ("usage", usage)];
            let attributes = facts.into_iter().map(|(name, value)| (name, clean(value)));
            let attributes = attributes.filter(|(_, value)| !value.is_empty() && value != "NA").map(|(name, value)| {
                let span = find(&title, &value).filter(|_| !(semi && value == "Formal"));
                Attribute { name: name.into(), value, span }
            });
            let mut category: Vec<String> = [master, sub, article].map(clean).into();
            if !tells(&title, article) {
                category.clear();
            }
            let product = Product {
                meta: file.meta(line, Lang::En),
                attributes: attributes.collect(),
                category,
                title,
                ..Product::default()
            };
            rows.push(line, Record::Product(product));
        },
    )
}

/// Kinds whose names stand in titles of things that the shop files elsewhere.
const FILED_ELSEWHERE: [&str; 5] = ["Backpack", "Flats", "Handbag", "Heels", "Sandal"];

/// Whether a title tells the kind of thing: it does not say only that it is for children, that it is a top, which the shop
/// does not tell from T-shirts, or the name of another kind.
fn tells(title: &str, article: &str) -> bool {
    let has = |word: &str| title.contains(word);
    let other = |word: &&str| has(word) && !article.contains(*word);
    let elsewhere = has("Kidswear") || FILED_ELSEWHERE.iter().any(other) || has(" Top") && article == "Tshirts";
    !elsewhere
}

#[cfg(test)]
mod tests {
    use crate::raw::tests::products;

    #[test]
    fn titles_that_tell_another_kind_have_no_category() {
        for (title, article, told) in [
            ("Acme Women Flats", "Flats", true),
            ("Acme Women Flats", "Heels", false),
            ("Acme Girls Kidswear", "Tops", false),
            ("Acme Men Top", "Tshirts", false),
            ("Acme Men Laptop Bag", "Laptop Bag", true),
        ] {
            assert_eq!(super::tells(title, article), told, "{title}: {article}");
        }
    }

    #[test]
    fn semi_formal_is_not_formal() {
        let text = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName\n\
                    1,Men,Apparel,Topwear,Shirts,Blue,Summer,2011,Formal,Acme Semi Formal Shirt\n";
        let (found, _) = products(super::read, "fashion_attributes/a.csv", text);
        assert!(found[0].attributes.iter().all(|a| a.span.is_none()));
    }

    #[test]
    fn attributes_that_the_title_states_have_a_span() {
        let text = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName\n\
                    1,Men,Apparel,Topwear,Shirts,Blue,Summer,2011,NA,Acme Men blue Shirt\n";
        let (found, _) = products(super::read, "fashion_attributes/a.csv", text);
        assert_eq!(found[0].category, ["Apparel", "Topwear", "Shirts"]);
        let spans: Vec<_> =
            found[0].attributes.iter().map(|a| (a.name.as_str(), a.span.and_then(|s| s.of(&found[0].title)))).collect();
        assert_eq!(spans, [("gender", Some("Men")), ("color", Some("blue")), ("season", None), ("year", None)]);
    }
}
