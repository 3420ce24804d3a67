//! `online_shopping_reviews` and `waimai_reviews`: Chinese reviews with a polarity.

use std::io;

use super::clean::clean;
use super::table::{Layout, table};
use super::{RawFile, Rows};
use crate::instruction::Lang;
use crate::record::{Polarity, Record, Review};

pub(super) fn read_shopping(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    table(file, Layout::Csv, ["cat", "label", "review"], rows, |rows, line, [category, label, text]| {
        if category == "蒙牛" {
            return rows.bad(line, "wanted a review of a product, found talk about the company 蒙牛");
        }
        push(file, rows, line, Some(category), label, text);
    })
}

pub(super) fn read_waimai(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    table(file, Layout::Csv, ["label", "review"], rows, |rows, line, [label, text]| {
        push(file, rows, line, None, label, text);
    })
}

fn push(file: &RawFile, rows: &mut Rows<'_>, line: usize, category: Option<&str>, label: &str, text: &str) {
    let polarity = match label {
        "0" => Polarity::Negative,
        "1" => Polarity::Positive,
        _ => return rows.bad(line, format!("wanted label 0 or 1, found {label:?}")),
    };
    let review = Review {
        meta: file.meta(line, Lang::Zh),
        text: clean(text),
        polarity: Some(polarity),
        category: category.into_iter().map(clean).collect(),
        ..Review::default()
    };
    rows.push(line, Record::Review(review));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::tests::{bad, reviews};

    #[test]
    fn labels_become_polarities() {
        let (found, report) = reviews(
            read_shopping,
            "online_shopping_reviews/a.csv",
            "cat,label,review\n灯,1,很 亮\n灯,2,亮\n蒙牛,1,好\n",
        );
        assert_eq!((found[0].polarity, found[0].category[0].as_str()), (Some(Polarity::Positive), "灯"));
        let wanted = [
            "online_shopping_reviews/a.csv:3: wanted label 0 or 1, found \"2\"",
            "online_shopping_reviews/a.csv:4: wanted a review of a product, found talk about the company 蒙牛",
        ];
        assert_eq!(bad(&report), wanted);
        let (found, report) = reviews(read_waimai, "waimai_reviews/a.csv", "label,review\n0,冷\n0,\n");
        assert_eq!((found[0].polarity, found[0].category.len()), (Some(Polarity::Negative), 0));
        assert_eq!(bad(&report), ["waimai_reviews/a.csv:3: wanted a clean text as review, found nothing"]);
    }
}
