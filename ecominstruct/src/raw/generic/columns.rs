//! Rows of values as products, reviews and queries.

use serde_json::{Map, Value};

use super::{Language, ProductColumns, QueryColumns, ReviewColumns};
use crate::raw::clean::{clean, find};
use crate::raw::star_reviews::{polarity, stars};
use crate::raw::{RawFile, text_id};
use crate::record::{Attribute, Grade, Judged, Meta, Polarity, Product, Query, Question, Record, Review};

/// The values of one row by column.
pub(super) struct Cells<'a> {
    pub(super) wanted: &'a [String],
    pub(super) values: &'a [Value],
}

impl Cells<'_> {
    fn get(&self, column: Option<&str>) -> &Value {
        let at = column.and_then(|column| self.wanted.iter().position(|name| name == column));
        at.and_then(|i| self.values.get(i)).unwrap_or(&Value::Null)
    }

    /// A clean text; `None` where there is no such column or it is empty.
    pub(super) fn text(&self, column: Option<&String>) -> Result<Option<String>, String> {
        let column = column.map(String::as_str);
        text(self.get(column)).map_err(|found| wrong(column, "a text", &found))
    }

    pub(super) fn json(&self, column: &str) -> Result<Value, String> {
        match self.get(Some(column)) {
            Value::String(text) => serde_json::from_str(text).map_err(|e| format!("wanted JSON in {column:?}: {e}")),
            value => Ok(value.clone()),
        }
    }

    fn list(&self, column: Option<&String>, separator: Option<&String>) -> Result<Vec<String>, String> {
        let column = column.map(String::as_str);
        let parts = match (self.get(column), separator) {
            (Value::Array(list), _) => {
                let part = |value| text(value).map_err(|found| wrong(column, "a list of texts", &found));
                return Ok(list.iter().map(part).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect());
            }
            (Value::String(text), Some(separator)) if !separator.is_empty() => {
                text.split(separator.as_str()).map(clean).collect()
            }
            (value, _) => {
                text(value).map_err(|found| wrong(column, "a text or a list", &found))?.into_iter().collect::<Vec<_>>()
            }
        };
        Ok(parts.into_iter().filter(|part| !part.is_empty()).collect())
    }

    /// Raw id and group from their columns; the raw id is file and line where there is none.
    pub(super) fn meta(
        &self,
        file: &RawFile,
        line: usize,
        id: Option<&String>,
        group: Option<&String>,
    ) -> Result<Meta, String> {
        let raw_id = match (id, self.text(id)?) {
            (None, _) => file.raw_id(line),
            (Some(_), Some(id)) => format!("{}#{id}", file.name),
            (Some(column), None) => return Err(wrong(Some(column), "an id", "nothing")),
        };
        Ok(Meta { raw_id, group: self.text(group)?.unwrap_or_default(), ..Meta::default() })
    }

    /// The meaning of a column's value.
    fn named<T: Copy>(
        &self,
        column: &str,
        values: &std::collections::BTreeMap<String, impl Into<T> + Copy>,
        names: &[(&str, T)],
    ) -> Result<Option<T>, String> {
        let Some(found) = self.text(Some(&column.to_owned()))? else { return Ok(None) };
        let known = if values.is_empty() {
            names.iter().find(|(name, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
        } else {
            values.get(&found).map(|value| (*value).into())
        };
        known.map(Some).ok_or_else(|| {
            let known: Vec<&str> = if values.is_empty() {
                names.iter().map(|(name, _)| *name).collect()
            } else {
                values.keys().map(String::as_str).collect()
            };
            wrong(Some(column), &format!("one of {}", known.join(", ")), &format!("{found:?}"))
        })
    }
}

pub(super) fn wrong(column: Option<&str>, wanted: &str, found: &str) -> String {
    format!("wanted {wanted} in column {:?}, found {found}", column.unwrap_or_default())
}

/// `Err` is what was found instead of a text.
pub(super) fn text(value: &Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(clean(text)).filter(|text| !text.is_empty())),
        Value::Bool(_) | Value::Number(_) => Ok(Some(value.to_string())),
        Value::Array(_) => Err("a list".into()),
        Value::Object(_) => Err("an object".into()),
    }
}

fn names<const N: usize>(columns: [Option<&String>; N]) -> Vec<String> {
    columns.into_iter().flatten().cloned().collect()
}

impl ProductColumns {
    pub(super) fn wanted(&self) -> Vec<String> {
        let own = [&self.id, &self.group, &self.title, &self.short_title, &self.description, &self.category];
        let more = [&self.attributes, &self.brand, &self.cluster];
        own.into_iter().chain(more).flatten().chain(&self.attribute_columns).cloned().collect()
    }

    pub(super) fn record(
        &self,
        cells: &Cells<'_>,
        file: &RawFile,
        line: usize,
        language: Language,
    ) -> Result<Record, String> {
        let title = cells.text(self.title.as_ref())?.unwrap_or_default();
        let description = cells.text(self.description.as_ref())?;
        let mut meta = cells.meta(file, line, self.id.as_ref(), self.group.as_ref())?;
        let cluster = cells.text(self.cluster.as_ref())?;
        if let (true, Some(cluster)) = (meta.group.is_empty(), &cluster) {
            meta.group.clone_from(cluster);
        }
        let mut facts = Vec::new();
        if let Some(column) = &self.attributes {
            self.facts(column, cells.get(Some(column)), &mut facts)?;
        }
        for column in &self.attribute_columns {
            let values = cells.list(Some(column), None)?;
            facts.extend(values.into_iter().map(|value| (clean(column), value)));
        }
        let shown = if title.is_empty() {
            description.as_deref().or(facts.first().map(|f| f.1.as_str()))
        } else {
            Some(title.as_str())
        };
        meta.lang = language.of(shown.unwrap_or_default());
        let attributes = facts.into_iter().map(|(name, value)| Attribute { span: find(&title, &value), name, value });
        Ok(Record::Product(Product {
            meta,
            short_title: cells.text(self.short_title.as_ref())?,
            category: cells.list(self.category.as_ref(), self.category_separator.as_ref())?,
            brand: cells.text(self.brand.as_ref())?,
            attributes: attributes.collect(),
            description,
            cluster,
            title,
            ..Product::default()
        }))
    }

    /// Names and values of an attribute column; empty values are passed over.
    fn facts(&self, column: &str, value: &Value, facts: &mut Vec<(String, String)>) -> Result<(), String> {
        match value {
            Value::Null => Ok(()),
            Value::Object(object) => pairs(column, object, facts),
            Value::Array(list) => list.iter().try_for_each(|item| match item {
                Value::Object(object) => {
                    let (Some(Value::String(name)), Some(value)) = (object.get("name"), object.get("value")) else {
                        return Err(wrong(Some(column), "\"name\" and \"value\" in each item", "other keys"));
                    };
                    pairs(column, &Map::from_iter([(name.clone(), value.clone())]), facts)
                }
                _ => Err(wrong(Some(column), "a list of objects", "something else")),
            }),
            Value::String(text) if text.trim_start().starts_with(['{', '[']) => {
                let value = serde_json::from_str(text).map_err(|e| format!("wanted JSON in column {column:?}: {e}"))?;
                self.facts(column, &value, facts)
            }
            Value::String(text) => {
                let separator = self.attribute_separator.as_deref().unwrap_or(";");
                let between = self.value_separator.as_deref().unwrap_or(":");
                for part in text.split(separator).filter(|part| !part.trim().is_empty()) {
                    let (name, value) = part
                        .split_once(between)
                        .ok_or_else(|| wrong(Some(column), &format!("name{between}value"), &format!("{part:?}")))?;
                    let (name, value) = (clean(name), clean(value));
                    if !value.is_empty() {
                        facts.push((name, value));
                    }
                }
                Ok(())
            }
            Value::Bool(_) | Value::Number(_) => Err(wrong(Some(column), "attributes", &value.to_string())),
        }
    }
}

fn pairs(column: &str, object: &Map<String, Value>, facts: &mut Vec<(String, String)>) -> Result<(), String> {
    for (name, value) in object {
        let one = std::slice::from_ref(value);
        for value in value.as_array().map_or(one, Vec::as_slice) {
            let value = text(value).map_err(|found| wrong(Some(column), &format!("a text for {name:?}"), &found))?;
            facts.extend(value.map(|value| (clean(name), value)));
        }
    }
    Ok(())
}

impl ReviewColumns {
    pub(super) fn wanted(&self) -> Vec<String> {
        let about =
            [&self.id, &self.group, &self.headline, &self.stars, &self.polarity, &self.recommended, &self.helpful];
        let more = [&self.category, &self.question, &self.answer];
        about.into_iter().chain(more).flatten().chain([&self.text]).cloned().collect()
    }

    pub(super) fn record(
        &self,
        cells: &Cells<'_>,
        file: &RawFile,
        line: usize,
        language: Language,
    ) -> Result<Record, String> {
        let text = cells.text(Some(&self.text))?.unwrap_or_default();
        let mut meta = cells.meta(file, line, self.id.as_ref(), self.group.as_ref())?;
        meta.lang = language.of(&text);
        let number = |column: Option<&String>, wanted| {
            let found = cells.text(column)?;
            Ok::<_, String>(
                found.map(|found| (wrong(column.map(String::as_str), wanted, &format!("{found:?}")), found)),
            )
        };
        let rating = number(self.stars.as_ref(), "1 to 5 stars")?;
        let rating = rating.map(|(what, found)| stars(&found).ok_or(what)).transpose()?;
        let votes = number(self.helpful.as_ref(), "a number")?;
        let votes = votes.map(|(what, found)| found.parse().map_err(|_| what)).transpose()?;
        let yes_no = [("true", true), ("false", false), ("yes", true), ("no", false), ("1", true), ("0", false)];
        let none = std::collections::BTreeMap::<String, bool>::new();
        let kinds =
            [("positive", Polarity::Positive), ("negative", Polarity::Negative), ("neutral", Polarity::Neutral)];
        let told = match &self.polarity {
            Some(column) => cells.named(column, &self.polarity_values, &kinds)?,
            None => rating.map(polarity),
        };
        let question = cells.text(self.question.as_ref())?.map(|question| (question, cells.text(self.answer.as_ref())));
        let questions = match question {
            None => Vec::new(),
            Some((question, answer)) => {
                let answer = answer?;
                let span = answer.as_deref().and_then(|answer| find(&text, answer));
                vec![Question {
                    text: question,
                    span,
                    answer: answer.filter(|_| span.is_none()),
                    ..Question::default()
                }]
            }
        };
        Ok(Record::Review(Review {
            meta,
            headline: cells.text(self.headline.as_ref())?,
            stars: rating,
            polarity: told,
            recommended: self.recommended.as_ref().map_or(Ok(None), |column| cells.named(column, &none, &yes_no))?,
            helpful: votes,
            category: cells.list(self.category.as_ref(), self.category_separator.as_ref())?,
            questions,
            text,
            ..Review::default()
        }))
    }
}

impl QueryColumns {
    pub(super) fn wanted(&self) -> Vec<String> {
        let mut wanted = names([self.id.as_ref(), self.category.as_ref(), self.product.as_ref(), self.grade.as_ref()]);
        wanted.push(self.text.clone());
        wanted
    }

    /// The judged product, where there is one, and the query.
    pub(super) fn records(
        &self,
        cells: &Cells<'_>,
        file: &RawFile,
        language: Language,
    ) -> Result<(Option<Record>, Record), String> {
        let text = cells.text(Some(&self.text))?.unwrap_or_default();
        let raw_id = match cells.text(self.id.as_ref())? {
            Some(id) => format!("{}#query-{id}", file.name),
            None => text_id(&format!("{}/query", file.name), &text),
        };
        let (mut product, mut judged) = (None, Vec::new());
        if let (Some(title), Some(grade)) = (cells.text(self.product.as_ref())?, &self.grade) {
            let grades = [("exact", Grade::Exact), ("partial", Grade::Partial), ("irrelevant", Grade::Irrelevant)];
            let grade = cells.named(grade, &self.grade_values, &grades)?;
            let grade = grade.ok_or_else(|| wrong(self.grade.as_deref(), "a grade", "nothing"))?;
            let raw_id = text_id(&format!("{}/product", file.name), &title);
            judged.push(Judged { product: raw_id.clone(), grade });
            let meta = Meta { raw_id, group: String::new(), lang: language.of(&title) };
            product = Some(Record::Product(Product { meta, title, ..Product::default() }));
        }
        let meta = Meta { raw_id, group: String::new(), lang: language.of(&text) };
        let category = cells.text(self.category.as_ref())?;
        Ok((product, Record::Query(Query { meta, text, category, judged, ..Query::default() })))
    }
}
