//! `jd_title_ner` and `taobao_ner`: Chinese titles with typed mentions, one character and its BIO tag a line.
//!
//! `taobao_ner` also holds short texts that look like searches: what has at most 16 characters, a product mention and
//! another mention becomes a query with typed segments, all else a product.

use std::io;

use super::clean::clean_with;
use super::table::lines;
use super::{RawFile, Rows};
use crate::instruction::Lang;
use crate::record::{Product, Query, Record, Span, TypedSpan};

/// Names inferred from the commonest values of each code (`label_names_inferred.json` of the data); the contest
/// published none. Mentions of other codes are left out: what they mark is not what a reader of such a name would find
/// (sizes as decoration, models without a mark).
const JD: [(&str, &str); 5] = [("1", "品牌"), ("4", "商品"), ("8", "适用人群"), ("12", "材质"), ("16", "颜色")];
/// The fourth code, `MISC`, is a rest of places, sizes and names that no name says anything about.
const TAOBAO: [(&str, &str); 3] = [("HCCX", "商品"), ("HPPX", "品牌"), ("XH", "型号")];
/// Longest text of a query, in characters.
const QUERY: usize = 16;

pub(super) fn read_jd(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    titles(file, &JD, rows, |file, title| Record::Product(title.product(file)))
}

pub(super) fn read_taobao(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    titles(file, &TAOBAO, rows, |file, title| {
        let short = title.text.chars().count() <= QUERY && title.spans.len() >= 2;
        if short && title.spans.iter().any(|span| span.kind == "商品") {
            Record::Query(Query {
                meta: file.meta(title.line, Lang::Zh),
                text: title.text,
                segments: title.spans,
                core: Some("商品".into()),
                ..Query::default()
            })
        } else {
            Record::Product(title.product(file))
        }
    })
}

/// A title in the making.
#[derive(Default)]
struct Title {
    line: usize,
    text: String,
    spans: Vec<TypedSpan>,
    /// Code of the mention that the last character belongs to, and whether that code has a name.
    open: Option<(String, Named)>,
    wrong: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    Yes,
    No,
}

impl Title {
    fn product(self, file: &RawFile) -> Product {
        let brand = self.spans.iter().find(|span| span.kind == "品牌").and_then(|span| span.span.of(&self.text));
        Product {
            meta: file.meta(self.line, Lang::Zh),
            brand: brand.map(str::to_owned),
            title: self.text,
            spans: self.spans,
            ..Product::default()
        }
    }

    fn add(&mut self, names: &[(&str, &str)], row: &str) -> Result<(), String> {
        // A space is a character like any other: the tag follows the last one.
        let (character, tag) =
            row.rsplit_once(' ').ok_or_else(|| format!("wanted a character and a tag, found {row:?}"))?;
        let start = self.text.len();
        self.text.push_str(character);
        if let Some(code) = tag.strip_prefix("B-") {
            let name = names.iter().find(|(known, _)| *known == code);
            self.open = Some((code.into(), if name.is_some() { Named::Yes } else { Named::No }));
            if let Some((_, name)) = name {
                self.spans.push(TypedSpan { span: Span { start, end: self.text.len() }, kind: (*name).into() });
            }
        } else if let Some(code) = tag.strip_prefix("I-") {
            match &self.open {
                Some((open, named)) if open == code => {
                    if let (Named::Yes, Some(last)) = (named, self.spans.last_mut()) {
                        last.span.end = self.text.len();
                    }
                }
                _ => return Err(format!("wanted B-{code} before {tag}")),
            }
        } else if tag == "O" {
            self.open = None;
        } else {
            return Err(format!("wanted O, B-type or I-type, found {tag:?}"));
        }
        Ok(())
    }

    fn clean(&mut self) {
        let mut spans: Vec<Span> = self.spans.iter().map(|span| span.span).collect();
        self.text = clean_with(&self.text, &mut spans);
        for (typed, span) in self.spans.iter_mut().zip(spans) {
            typed.span = span;
        }
    }
}

fn titles(
    file: &RawFile,
    names: &[(&str, &str)],
    rows: &mut Rows<'_>,
    record: impl Fn(&RawFile, Title) -> Record,
) -> io::Result<()> {
    let finish = |rows: &mut Rows<'_>, title: &mut Title| {
        let mut title = std::mem::take(title);
        match title.wrong.take() {
            Some(what) => rows.bad(title.line, what),
            None if title.line > 0 => {
                title.clean();
                let line = title.line;
                rows.push(line, record(file, title));
            }
            None => {}
        }
    };
    let mut title = Title::default();
    lines(file, rows, |rows, line, row| {
        if row.is_empty() {
            return finish(rows, &mut title);
        }
        if title.line == 0 {
            title.line = line;
        }
        if title.wrong.is_none()
            && let Err(what) = title.add(names, row)
        {
            title.wrong = Some(what);
        }
    })?;
    finish(rows, &mut title);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::raw::tests::{bad, read};
    use crate::record::{Record, TypedSpan};

    fn tagged(text: &str, spans: &[TypedSpan]) -> Vec<String> {
        spans.iter().map(|s| format!("{}={}", s.kind, s.span.of(text).unwrap())).collect()
    }

    #[test]
    fn codes_become_names_and_unnamed_ones_go() {
        let text = "甲 B-1\n乙 I-1\n  O\n  O\n红 B-16\n大 B-16\n号 B-9\n码 I-9\n\n灯 I-4\n\n灯 B-4";
        let (found, report) = read(super::read_jd, "jd_title_ner/a.txt", text);
        let [Record::Product(first), Record::Product(last)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(first.title, "甲乙 红大号码");
        assert_eq!(tagged(&first.title, &first.spans), ["品牌=甲乙", "颜色=红", "颜色=大"]);
        assert_eq!(first.brand.as_deref(), Some("甲乙"));
        assert_eq!((last.title.as_str(), last.meta.raw_id.as_str()), ("灯", "jd_title_ner/a.txt:12"));
        assert_eq!(bad(&report), ["jd_title_ner/a.txt:10: wanted B-4 before I-4"]);
    }

    #[test]
    fn short_texts_are_queries() {
        let long = "长 O\n".repeat(15);
        let text = format!("红 B-HPPX\n灯 B-HCCX\n大 B-MISC\n\n{long}红 B-XH\n灯 B-HCCX\n\n大 B-MISC\n灯 B-HCCX\n");
        let (found, _) = read(super::read_taobao, "taobao_ner/a.txt", &text);
        let [Record::Query(query), Record::Product(long), Record::Product(_)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(tagged(&query.text, &query.segments), ["品牌=红", "商品=灯"]);
        assert_eq!(query.core.as_deref(), Some("商品"));
        assert_eq!(long.spans.len(), 2);
    }
}
