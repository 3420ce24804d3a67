//! `womens_clothing_reviews` and `fewsum_amazon`: reviews with stars, grouped by product.
//!
//! The written summaries of `fewsum_amazon` are not read: they sum up eight reviews, and no record holds several
//! reviews.

use std::io;

use super::clean::clean;
use super::table::{Layout, Table, table};
use super::{RawFile, Rows};
use crate::instruction::Lang;
use crate::record::{Meta, Polarity, Record, Review};

const WOMENS: [&str; 9] = [
    "Clothing ID",
    "Title",
    "Review Text",
    "Rating",
    "Recommended IND",
    "Positive Feedback Count",
    "Division Name",
    "Department Name",
    "Class Name",
];

pub(super) fn read_womens(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    let each = |rows: &mut Rows<'_>, line: usize, row: [&str; 9]| {
        let [id, title, text, rating, recommended, votes, division, department, class] = row;
        let (Some(stars), Ok(votes)) = (stars(rating), votes.parse()) else {
            return rows.bad(line, format!("wanted a rating and a number of votes, found {rating:?} and {votes:?}"));
        };
        let recommended = match recommended {
            "0" => false,
            "1" => true,
            _ => return rows.bad(line, format!("wanted 0 or 1 in Recommended IND, found {recommended:?}")),
        };
        let category = [division, department, class].map(clean).into_iter().filter(|name| !name.is_empty());
        let review = Review {
            meta: Meta { group: format!("{}/{id}", file.folder()), ..file.meta(line, Lang::En) },
            text: clean(text),
            headline: Some(clean(title)).filter(|title| !title.is_empty()),
            stars: Some(stars),
            polarity: clear_polarity(stars, recommended),
            recommended: Some(recommended),
            helpful: Some(votes),
            category: category.collect(),
            ..Review::default()
        };
        rows.push(line, Record::Review(review));
    };
    table(file, Layout::Csv, WOMENS, rows, each)
}

pub(super) fn read_fewsum(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    let mut table = Table::open(file, Layout::PlainTsv)?;
    let (category, product) = (table.column("cat")?, table.column("group_id")?);
    let mut pairs = [(0, 0); 8];
    for (n, pair) in pairs.iter_mut().enumerate() {
        *pair = (table.column(&format!("rev{}", n + 1))?, table.column(&format!("rating{}", n + 1))?);
    }
    while let Some((line, row)) = table.next(rows)? {
        for (n, (text, rating)) in pairs.iter().enumerate() {
            let Some(stars) = stars(&row[*rating]) else {
                rows.bad(line, format!("wanted a rating from 1 to 5, found {:?}", &row[*rating]));
                continue;
            };
            let raw_id = format!("{}#{}", file.raw_id(line), n + 1);
            // Amazon's own product id, which other sources use as well.
            let group = format!("asin:{}", &row[product]);
            let review = Review {
                meta: Meta { raw_id, group, lang: Lang::En },
                text: clean(&row[*text]),
                stars: Some(stars),
                polarity: clear_polarity(stars, stars > 3),
                category: vec![clean(&row[category].replace('_', " "))],
                ..Review::default()
            };
            rows.push(line, Record::Review(review));
        }
    }
    Ok(())
}

/// 1 to 5, also written `4.0`.
pub(super) fn stars(rating: &str) -> Option<u8> {
    let rating = rating.trim();
    rating.strip_suffix(".0").unwrap_or(rating).parse().ok().filter(|stars| (1..=5).contains(stars))
}

/// Four stars often come with blame, three with anything, and some praise what they advise against.
fn clear_polarity(stars: u8, recommended: bool) -> Option<Polarity> {
    match (stars, recommended) {
        (5, true) => Some(Polarity::Positive),
        (0..=2, false) => Some(Polarity::Negative),
        _ => None,
    }
}

/// What a number of stars says at least.
pub(super) fn polarity(stars: u8) -> Polarity {
    match stars {
        0..=2 => Polarity::Negative,
        3 => Polarity::Neutral,
        _ => Polarity::Positive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::tests::{bad, reviews};

    #[test]
    fn womens_reviews_keep_all_columns() {
        let text = format!("{}\n7,,\"Soft, warm\",4,1,3,General,Tops,Knits\n7,T,x,6,1,3,,,\n", WOMENS.join(","));
        let (found, report) = reviews(read_womens, "womens_clothing_reviews/a.csv", &text);
        let review = &found[0];
        assert_eq!((review.text.as_str(), review.headline.as_deref(), review.stars), ("Soft, warm", None, Some(4)));
        assert_eq!((review.polarity, review.helpful), (None, Some(3)));
        let clear: Vec<_> = [(5, true), (5, false), (4, true), (3, true), (2, false), (1, true)]
            .map(|r| clear_polarity(r.0, r.1))
            .into();
        assert_eq!(clear, [Some(Polarity::Positive), None, None, None, Some(Polarity::Negative), None]);
        let told: Vec<_> = (1..=5).map(polarity).collect();
        let [blame, praise] = [Polarity::Negative, Polarity::Positive];
        assert_eq!(told, [blame, blame, Polarity::Neutral, praise, praise]);
        assert_eq!(review.category, ["General", "Tops", "Knits"]);
        assert_eq!(review.meta.group, "womens_clothing_reviews/7");
        let wanted = "womens_clothing_reviews/a.csv:3: wanted a rating and a number of votes, found \"6\" and 3";
        assert!(bad(&report)[0].starts_with(&wanted[..60]), "{:?}", bad(&report));
    }

    #[test]
    fn fewsum_rows_hold_eight_reviews() {
        let names = |stem: &str, n: usize| (1..=n).map(|i| format!("{stem}{i}")).collect::<Vec<_>>().join("\t");
        let header = format!("cat\tgroup_id\t{}\t{}\t{}", names("rev", 8), names("summ", 3), names("rating", 8));
        let row = format!("home_kitchen\tB0\t{}\ts\ts\ts\t{}", ["a \"b"; 8].join("\t"), ["5.0"; 8].join("\t"));
        let (found, _) = reviews(read_fewsum, "fewsum_amazon/a.csv", &format!("{header}\n{row}\n"));
        assert_eq!(found.len(), 8);
        let row = row.replace("5.0", "4.0");
        let (four, _) = reviews(read_fewsum, "fewsum_amazon/a.csv", &format!("{header}\n{row}\n"));
        assert_eq!((found[0].polarity, four[0].polarity), (Some(Polarity::Positive), None));
        assert_eq!((found[7].text.as_str(), found[7].category[0].as_str()), ("a \"b", "home kitchen"));
        assert_eq!(
            (found[7].meta.raw_id.as_str(), found[7].meta.group.as_str()),
            ("fewsum_amazon/a.csv:2#8", "asin:B0")
        );
    }
}
