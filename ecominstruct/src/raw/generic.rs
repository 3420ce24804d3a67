//! A user's own tables: which column is what, in a mapping file, instead of an adapter in Rust.
//!
//! ```toml
//! language = "auto"
//!
//! [product]
//! title = "name"
//! category = "path"
//! category_separator = " > "
//! attribute_columns = ["color", "size"]
//! ```
//!
//! The table's name is the kind of record: `product`, `review`, `dialogue` or `query`. A file has one kind.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;

use self::columns::Cells;
use super::{RawFile, Rows};
use crate::instruction::Lang;
use crate::record::{Grade, Polarity};

mod columns;
mod dialogue;
mod source;

#[cfg(test)]
mod tests;

/// What the columns of a user's files mean. Exactly one of the four tables must be there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// File format; by the file's ending where absent.
    pub format: Option<Format>,
    /// Language of the texts.
    #[serde(default)]
    pub language: Language,
    /// Columns of products.
    pub product: Option<ProductColumns>,
    /// Columns of reviews.
    pub review: Option<ReviewColumns>,
    /// Columns of dialogues.
    pub dialogue: Option<DialogueColumns>,
    /// Columns of queries.
    pub query: Option<QueryColumns>,
}

impl Mapping {
    /// How many kinds of record it has columns for.
    pub(crate) fn kinds(&self) -> usize {
        let all = [self.product.is_some(), self.review.is_some(), self.dialogue.is_some(), self.query.is_some()];
        all.into_iter().filter(|there| *there).count()
    }
}

/// Format of a user's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Commas and quotes, with a header line.
    Csv,
    /// Tabs and quotes, with a header line.
    Tsv,
    /// Tabs, with a header line; quotes are characters like any other.
    PlainTsv,
    /// A JSON object on each line.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}

/// Language of a user's texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// English.
    En,
    /// Chinese.
    Zh,
    /// By the letters of each text ([`Lang::detect`]).
    #[default]
    Auto,
}

impl Language {
    fn of(self, text: &str) -> Lang {
        match self {
            Self::En => Lang::En,
            Self::Zh => Lang::Zh,
            Self::Auto => Lang::detect(text),
        }
    }
}

/// Names of the columns of a product; all may be absent, but not title, description and attributes together.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductColumns {
    /// Unique id; file and line where absent.
    pub id: Option<String>,
    /// Rows that must stay on one side of a split; the cluster, or the id, where absent.
    pub group: Option<String>,
    /// Title.
    pub title: Option<String>,
    /// Shorter title.
    pub short_title: Option<String>,
    /// Selling text.
    pub description: Option<String>,
    /// Category: one, a list, or a path.
    pub category: Option<String>,
    /// What parts the elements of a path.
    pub category_separator: Option<String>,
    /// Columns that each are an attribute of their name.
    #[serde(default)]
    pub attribute_columns: Vec<String>,
    /// A column of attributes: a JSON object, a JSON list of `{"name", "value"}`, or text as `name:value;name:value`.
    pub attributes: Option<String>,
    /// What parts the attributes of such a text; `;` where absent.
    pub attribute_separator: Option<String>,
    /// What parts a name from its value; `:` where absent.
    pub value_separator: Option<String>,
    /// Brand.
    pub brand: Option<String>,
    /// Key of the product that several listings offer.
    pub cluster: Option<String>,
}

/// Names of the columns of a review; only the text must be there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewColumns {
    /// Unique id; file and line where absent.
    pub id: Option<String>,
    /// Rows that must stay on one side of a split, such as the product's id.
    pub group: Option<String>,
    /// Text.
    pub text: String,
    /// The reviewer's title.
    pub headline: Option<String>,
    /// Rating, 1 to 5.
    pub stars: Option<String>,
    /// Overall polarity; told by the stars where absent.
    pub polarity: Option<String>,
    /// What the values of that column mean; `positive`, `negative` and `neutral` where absent.
    #[serde(default)]
    pub polarity_values: BTreeMap<String, PolarityName>,
    /// Whether the product is recommended: true/false, yes/no or 1/0.
    pub recommended: Option<String>,
    /// Votes that found the review helpful.
    pub helpful: Option<String>,
    /// Category: one, a list, or a path.
    pub category: Option<String>,
    /// What parts the elements of a path.
    pub category_separator: Option<String>,
    /// A question about the text.
    pub question: Option<String>,
    /// Its answer; a span where the text has these words, a written answer otherwise.
    pub answer: Option<String>,
}

/// [`Polarity`] by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolarityName {
    /// Praise.
    Positive,
    /// Blame.
    Negative,
    /// Neither, or both.
    Neutral,
}

impl From<PolarityName> for Polarity {
    fn from(name: PolarityName) -> Self {
        match name {
            PolarityName::Positive => Self::Positive,
            PolarityName::Negative => Self::Negative,
            PolarityName::Neutral => Self::Neutral,
        }
    }
}

/// Names of the columns of a dialogue: either `turns`, or `id`, `speaker` and `text` with a turn in each row.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DialogueColumns {
    /// Unique id; file and line where absent. Rows that follow each other with the same id are one dialogue if `turns`
    /// is absent.
    pub id: Option<String>,
    /// Rows that must stay on one side of a split.
    pub group: Option<String>,
    /// A JSON list of `{"speaker", "text"}`.
    pub turns: Option<String>,
    /// Who speaks; the key within `turns` where that is given (`speaker` where absent).
    pub speaker: Option<String>,
    /// What is said; the key within `turns` where that is given (`text` where absent).
    pub text: Option<String>,
    /// Names of the customer; `customer`, `user`, `client` and `buyer` where absent.
    #[serde(default)]
    pub customer: Vec<String>,
    /// Names of the shop; `agent`, `assistant`, `shop` and `seller` where absent.
    #[serde(default)]
    pub agent: Vec<String>,
    /// What the customer wants in the last customer turn.
    pub intent: Option<String>,
}

/// Names of the columns of a query; only the text must be there.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryColumns {
    /// Unique id; the hash of the text where absent.
    pub id: Option<String>,
    /// What was typed.
    pub text: String,
    /// Department searched in.
    pub category: Option<String>,
    /// Title of a product that was judged.
    pub product: Option<String>,
    /// How relevant it is.
    pub grade: Option<String>,
    /// What the values of that column mean; `exact`, `partial` and `irrelevant` where absent.
    #[serde(default)]
    pub grade_values: BTreeMap<String, GradeName>,
}

/// [`Grade`] by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GradeName {
    /// Not what was searched for.
    Irrelevant,
    /// Something of it.
    Partial,
    /// What was searched for.
    Exact,
}

impl From<GradeName> for Grade {
    fn from(name: GradeName) -> Self {
        match name {
            GradeName::Irrelevant => Self::Irrelevant,
            GradeName::Partial => Self::Partial,
            GradeName::Exact => Self::Exact,
        }
    }
}

/// Reads `file` as `mapping` says.
///
/// # Errors
/// If the file cannot be read, lacks a column, or the mapping does not say what it is; the message names the file and
/// what was wanted. Bad rows are no errors; they are counted in `rows`.
pub fn read(file: &RawFile, mapping: &Mapping, rows: &mut Rows<'_>) -> io::Result<()> {
    let format = match mapping.format {
        Some(format) => format,
        None => source::by_name(&file.name).ok_or_else(|| {
            file.invalid("wanted a name that ends in .csv, .tsv, .jsonl or .parquet, or a format in the mapping")
        })?,
    };
    let language = mapping.language;
    match (&mapping.product, &mapping.review, &mapping.dialogue, &mapping.query) {
        (Some(columns), None, None, None) => {
            let wanted = columns.wanted();
            source::read(file, format, &wanted, rows, &mut |rows, line, values| match columns.record(
                &Cells { wanted: &wanted, values },
                file,
                line,
                language,
            ) {
                Ok(record) => rows.push(line, record),
                Err(what) => rows.bad(line, what),
            })
        }
        (None, Some(columns), None, None) => {
            let wanted = columns.wanted();
            source::read(file, format, &wanted, rows, &mut |rows, line, values| match columns.record(
                &Cells { wanted: &wanted, values },
                file,
                line,
                language,
            ) {
                Ok(record) => rows.push(line, record),
                Err(what) => rows.bad(line, what),
            })
        }
        (None, None, Some(columns), None) => dialogue::read(file, format, columns, language, rows),
        (None, None, None, Some(columns)) => {
            if columns.product.is_some() != columns.grade.is_some() {
                return Err(file.invalid("wanted both product and grade in [query], or neither"));
            }
            let wanted = columns.wanted();
            source::read(file, format, &wanted, rows, &mut |rows, line, values| match columns.records(
                &Cells { wanted: &wanted, values },
                file,
                language,
            ) {
                Ok((product, query)) => {
                    if let Some(product) = product {
                        rows.push(line, product);
                    }
                    rows.push(line, query);
                }
                Err(what) => rows.bad(line, what),
            })
        }
        _ => Err(file.invalid("wanted one of [product], [review], [dialogue] and [query] in the mapping")),
    }
}
