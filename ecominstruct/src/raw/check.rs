//! What every record must hold before it is handed on: clean texts, spans that lie in them, nothing empty.

use super::clean::is_tidy;
use crate::record::{Attribute, Dialogue, Product, Query, Record, Review, Span, TypedSpan};

/// `Ok` if every text of `record` is clean and every span names words; else what is wrong.
pub(super) fn check(record: &Record) -> Result<(), String> {
    let meta = record.meta();
    if meta.raw_id.is_empty() || meta.group.is_empty() {
        return Err("wanted a raw id and a group, found none".into());
    }
    match record {
        Record::Product(r) => product(r),
        Record::Review(r) => review(r),
        Record::Dialogue(r) => dialogue(r),
        Record::Query(r) => query(r),
    }
}

fn product(r: &Product) -> Result<(), String> {
    if r.title.is_empty() && r.description.is_none() && r.attributes.is_empty() {
        return Err("wanted a title, a description or attributes, found none".into());
    }
    if !r.title.is_empty() {
        text("title", &r.title)?;
    }
    for (what, value) in [("short title", &r.short_title), ("description", &r.description), ("brand", &r.brand)] {
        optional(what, value.as_deref())?;
    }
    texts("category", &r.category)?;
    attributes(&r.title, &r.attributes)?;
    typed(&r.title, &r.spans)?;
    if r.judged.iter().any(|pair| pair.other.is_empty()) {
        return Err("wanted the raw id of a judged listing, found none".into());
    }
    Ok(())
}

fn review(r: &Review) -> Result<(), String> {
    text("review", &r.text)?;
    optional("headline", r.headline.as_deref())?;
    texts("category", &r.category)?;
    if let Some(stars) = r.stars.filter(|stars| !(1..=5).contains(stars)) {
        return Err(format!("wanted 1 to 5 stars, found {stars}"));
    }
    for topic in &r.topics {
        text("topic", &topic.name)?;
    }
    for opinion in &r.opinions {
        for (what, at) in [("aspect", opinion.aspect), ("opinion", opinion.opinion)] {
            at.map_or(Ok(""), |at| span(what, &r.text, at))?;
        }
        optional("aspect category", opinion.category.as_deref())?;
    }
    for question in &r.questions {
        text("question", &question.text)?;
        optional("answer", question.answer.as_deref())?;
        question.span.map_or(Ok(""), |at| span("answer", &r.text, at))?;
    }
    Ok(())
}

fn dialogue(r: &Dialogue) -> Result<(), String> {
    if r.turns.is_empty() {
        return Err("wanted at least one turn, found none".into());
    }
    for turn in &r.turns {
        text("turn", &turn.text)?;
        texts("dialogue act", &turn.acts)?;
    }
    for (what, value) in [("intent", &r.intent), ("summary", &r.summary), ("topic", &r.topic)] {
        optional(what, value.as_deref())?;
    }
    attributes("", &r.slots)?;
    texts("reply", &r.replies)
}

fn query(r: &Query) -> Result<(), String> {
    text("query", &r.text)?;
    optional("category", r.category.as_deref())?;
    optional("core type", r.core.as_deref())?;
    typed(&r.text, &r.segments)?;
    if r.judged.iter().any(|judged| judged.product.is_empty()) {
        return Err("wanted the raw id of a judged product, found none".into());
    }
    Ok(())
}

fn attributes(title: &str, list: &[Attribute]) -> Result<(), String> {
    for Attribute { name, value, span: at } in list {
        text("attribute name", name)?;
        text("attribute value", value)?;
        let Some(at) = at else { continue };
        let words = span("attribute", title, *at)?;
        if !words.eq_ignore_ascii_case(value) && words.to_lowercase() != value.to_lowercase() {
            return Err(format!("wanted {value:?} of {name:?} at {}..{}, found {words:?}", at.start, at.end));
        }
    }
    Ok(())
}

fn typed(title: &str, spans: &[TypedSpan]) -> Result<(), String> {
    let mut last = 0;
    for TypedSpan { span: at, kind } in spans {
        text("type name", kind)?;
        span("mention", title, *at)?;
        if at.start < last {
            return Err(format!("wanted mentions in order without overlap, found one at {} before {last}", at.start));
        }
        last = at.end;
    }
    Ok(())
}

fn span<'a>(what: &str, text: &'a str, at: Span) -> Result<&'a str, String> {
    at.of(text).ok_or_else(|| {
        format!("wanted whole words as {what}, found bytes {}..{} of a text of {}", at.start, at.end, text.len())
    })
}

fn optional(what: &str, value: Option<&str>) -> Result<(), String> {
    value.map_or(Ok(()), |value| text(what, value))
}

fn texts(what: &str, list: &[String]) -> Result<(), String> {
    list.iter().try_for_each(|item| text(what, item))
}

/// Not empty, one line, no broken character.
fn text(what: &str, text: &str) -> Result<(), String> {
    if !text.is_empty() && is_tidy(text) {
        return Ok(());
    }
    let found = if text.is_empty() {
        "nothing"
    } else if text.contains('\0') {
        "a NUL character"
    } else if text.contains('\u{FFFD}') {
        "a character that was lost before (U+FFFD)"
    } else {
        "control characters or white space that is not single spaces"
    };
    Err(format!("wanted a clean text as {what}, found {found}"))
}
