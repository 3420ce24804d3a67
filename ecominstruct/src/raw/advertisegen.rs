//! `advertisegen`: attributes of clothes (`名#值*名#值…`) and advertising copy for them.
//!
//! Rows whose copy holds a mask (`<UNK>`, `BRAND`) are left out as bad rows: nobody can tell what stood there.
//! The pair 图案 线条 (pattern: lines) is left out: it was guessed from words on the cut.

use std::borrow::Cow;
use std::io;

use serde::Deserialize;

use super::clean::clean;
use super::table::lines;
use super::{RawFile, Rows};
use crate::instruction::Lang;
use crate::record::{Attribute, Product, Record};

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    content: Cow<'a, str>,
    #[serde(borrow)]
    summary: Cow<'a, str>,
}

pub(super) fn read(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    lines(file, rows, |rows, line, text| {
        let row: Row<'_> = match serde_json::from_str(text) {
            Ok(row) => row,
            Err(e) => return rows.bad(line, e.to_string()),
        };
        if let Some(mask) = ["<UNK>", "BRAND"].into_iter().find(|mask| row.summary.contains(mask)) {
            return rows.bad(line, format!("wanted copy without masks, found {mask}"));
        }
        let mut product =
            Product { meta: file.meta(line, Lang::Zh), description: Some(clean(&row.summary)), ..Product::default() };
        for pair in row.content.split('*') {
            let Some((name, value)) = pair.split_once('#') else {
                return rows.bad(line, format!("wanted name#value, found {pair:?}"));
            };
            let (name, value) = (clean(name), clean(value));
            if name == "图案" && value == "线条" {
                continue;
            }
            if name == "类型" {
                product.category.push(value.clone());
            }
            product.attributes.push(Attribute { name, value, span: None });
        }
        rows.push(line, Record::Product(product));
    })
}

#[cfg(test)]
mod tests {
    use crate::raw::tests::{bad, products};

    #[test]
    fn pairs_become_attributes_and_masks_are_refused() {
        let text = "{\"content\":\"类型#裙*图案#线条*颜色#红色\",\"summary\":\"一条红裙\"}\n{\"content\":\"类型#裙\",\"summary\":\"BRAND裙\"}\n\
                    {\"content\":\"类型\",\"summary\":\"裙\"}\n";
        let (found, report) = products(super::read, "advertisegen/dev.json", text);
        assert_eq!((found[0].leaf(), found[0].attributes.len()), (Some("裙"), 2));
        assert_eq!(bad(&report)[0], "advertisegen/dev.json:2: wanted copy without masks, found BRAND");
        assert_eq!(bad(&report)[1], "advertisegen/dev.json:3: wanted name#value, found \"类型\"");
    }
}
