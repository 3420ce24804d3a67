//! `home_depot_search`: queries with products and their relevance, the mean of raters from 1 to 3.
//!
//! Queries and products stand in many rows: their raw ids are hashes of their texts and both are emitted for each row.

use std::io;

use super::clean::clean;
use super::table::{Layout, table};
use super::{RawFile, Rows, text_id};
use crate::instruction::Lang;
use crate::record::{Grade, Judged, Meta, Product, Query, Record};

pub(super) fn read(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    let (products, queries) = (format!("{}/product", file.folder()), format!("{}/query", file.folder()));
    table(
        file,
        Layout::Csv,
        ["product_title", "search_term", "relevance"],
        rows,
        |rows, line, [title, query, relevance]| {
            let grade = match relevance.parse::<f64>() {
                Ok(relevance) if (1.0..=3.0).contains(&relevance) => grade(relevance),
                _ => return rows.bad(line, format!("wanted a relevance from 1 to 3, found {relevance:?}")),
            };
            let (title, text) = (clean(title), clean(query));
            let meta = |raw_id: String| Meta { raw_id, group: String::new(), lang: Lang::En };
            let product = Product { meta: meta(text_id(&products, &title)), title, ..Product::default() };
            let judged = vec![Judged { product: product.meta.raw_id.clone(), grade }];
            let query = Query { meta: meta(text_id(&queries, &text)), text, judged, ..Query::default() };
            rows.push(line, Record::Product(product));
            rows.push(line, Record::Query(query));
        },
    )
}

/// Exact where all raters said so, irrelevant where two of three did, partial near the middle. What lies between partial and
/// exact is unclear: it must not stand as unjudged, as if it might be drawn for a wrong product.
fn grade(relevance: f64) -> Grade {
    match relevance {
        r if r >= 3.0 => Grade::Exact,
        r if r <= 1.34 => Grade::Irrelevant,
        r if r <= 2.0 => Grade::Partial,
        _ => Grade::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::tests::{bad, read as records};

    #[test]
    fn a_row_gives_a_product_and_a_judged_query() {
        let text = "product_title,search_term,relevance\nOak  door,door,3\nOak door,wood door,1.33\nOak door,door,4\n";
        let (found, report) = records(read, "home_depot_search/a.csv", text);
        let [Record::Product(a), Record::Query(q), Record::Product(b), Record::Query(r)] = &found[..] else { panic!() };
        assert_eq!((a.title.as_str(), &a.meta.raw_id), ("Oak door", &b.meta.raw_id));
        assert_eq!((&q.judged[0].product, q.judged[0].grade), (&a.meta.raw_id, Grade::Exact));
        assert_eq!((r.judged[0].grade, grade(2.0)), (Grade::Irrelevant, Grade::Partial));
        assert_eq!([grade(2.67), grade(2.33), grade(1.67)], [Grade::Unclear, Grade::Unclear, Grade::Partial]);
        assert_eq!(q.meta.group, q.meta.raw_id);
        assert_eq!(bad(&report), ["home_depot_search/a.csv:4: wanted a relevance from 1 to 3, found \"4\""]);
    }
}
