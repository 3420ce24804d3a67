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
            let facts = [("gender", gender), ("color", color), ("season", season), ("year", year), ("usage", usage)];
            let attributes = facts.into_iter().map(|(name, value)| (name, clean(value)));
            let attributes = attributes.filter(|(_, value)| !value.is_empty() && value != "NA").map(|(name, value)| {
                let span = find(&title, &value);
                Attribute { name: name.into(), value, span }
            });
            let product = Product {
                meta: file.meta(line, Lang::En),
                attributes: attributes.collect(),
                category: [master, sub, article].map(clean).into(),
                title,
                ..Product::default()
            };
            rows.push(line, Record::Product(product));
        },
    )
}

#[cfg(test)]
mod tests {
    use crate::raw::tests::products;

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
