//! Reads answers for the strict scores: normal forms, lists, typed lines, words.

use unicode_normalization::UnicodeNormalization;

use crate::eval_set::SetKind;
use crate::instruction::{Entity, Gold, Lang, is_han};

/// NFKC (full-width forms to ASCII), lower case, white space runs to one space, none at the ends.
pub fn normal(text: &str) -> String {
    let folded: String = text.nfkc().flat_map(char::to_lowercase).collect();
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The values of a list answer, in [`normal`] form: split at `, ; 、` (full width too) and line feeds, but not at a comma
/// between two digits; empty ones are left out. `None`, `none` or `无` alone is the empty list.
pub fn list(answer: &str) -> Vec<String> {
    let mut values: Vec<String> = split_list(answer).iter().map(|v| normal(v)).filter(|v| !v.is_empty()).collect();
    if matches!(values.as_slice(), [only] if is_none(only)) {
        values.clear();
    }
    values
}

fn is_none(value: &str) -> bool {
    matches!(value, "none" | "无")
}

fn split_list(answer: &str) -> Vec<String> {
    let chars: Vec<char> = answer.chars().collect();
    let digit = |at: Option<usize>| at.and_then(|i| chars.get(i)).is_some_and(char::is_ascii_digit);
    let mut parts = vec![String::new()];
    for (i, &c) in chars.iter().enumerate() {
        let cut = matches!(c, '，' | '、' | ';' | '；' | '\n')
            || (c == ',' && !(digit(i.checked_sub(1)) && digit(Some(i + 1))));
        match parts.last_mut() {
            Some(last) if !cut => last.push(c),
            _ => parts.push(String::new()),
        }
    }
    parts
}

/// `Type: a, b` lines as (type, value) pairs in [`normal`] form; `None` gives no pair. Lines without colon give none either.
pub fn typed_lines(answer: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for line in answer.lines() {
        if let Some((kind, values)) = line.split_once([':', '：']) {
            let kind = normal(kind);
            pairs.extend(list(values).into_iter().map(|v| (kind.clone(), v)));
        }
    }
    pairs
}

/// The labels of `answer`. One of `allowed` as a whole comes first, so that a label may hold a comma; then a list.
pub fn labels(answer: &str, allowed: &[String]) -> Vec<String> {
    let whole = normal(answer);
    if whole.is_empty() || allowed.iter().any(|a| normal(a) == whole) {
        return if whole.is_empty() { Vec::new() } else { vec![whole] };
    }
    let by_comma: Vec<String> = whole.split(", ").map(str::to_owned).collect();
    let mut found = if by_comma.iter().all(|l| allowed.iter().any(|a| normal(a) == *l)) {
        by_comma
    } else {
        split_list(answer).iter().map(|v| normal(v)).filter(|v| !v.is_empty()).collect()
    };
    found.sort();
    found.dedup();
    found
}

/// The structure of a gold answer that came as text only.
pub fn gold(kind: SetKind, output: &str, candidates: &[String]) -> Gold {
    let trimmed = output.trim();
    match kind {
        SetKind::Cls => {
            let as_given = |found: &String| candidates.iter().find(|c| normal(c) == *found).unwrap_or(found).clone();
            Gold::Labels(labels(output, candidates).iter().map(as_given).collect())
        }
        SetKind::Extract | SetKind::ConditionExtract if is_none(&normal(output)) => Gold::Spans(Vec::new()),
        SetKind::Extract if candidates.iter().any(|c| c == trimmed) => Gold::Spans(vec![trimmed.to_owned()]),
        SetKind::Extract | SetKind::ConditionExtract => {
            let parts = split_list(output);
            Gold::Spans(parts.iter().map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect())
        }
        SetKind::Ner => {
            let mut entities = Vec::new();
            for line in output.lines() {
                if let Some((kind, values)) = line.split_once([':', '：']) {
                    let values = split_list(values).into_iter().map(|v| v.trim().to_owned());
                    let values = values.filter(|v| !v.is_empty() && !is_none(&normal(v)));
                    entities.extend(values.map(|text| Entity { kind: kind.trim().to_owned(), text }));
                }
            }
            Gold::Entities(entities)
        }
        SetKind::Generate => Gold::Text(output.to_owned()),
    }
}

/// Tokens of [`normal`] text without white space and punctuation: for Chinese every character, for English runs of letters
/// and digits, with Han characters still one by one.
pub fn words(text: &str, lang: Lang) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut inside = false;
    for c in normal(text).chars() {
        if !c.is_alphanumeric() {
            inside = false;
        } else if lang == Lang::Zh || is_han(c) {
            words.push(c.into());
            inside = false;
        } else {
            match words.last_mut() {
                Some(last) if inside => last.push(c),
                _ => words.push(c.into()),
            }
            inside = true;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_folds_width_case_and_space() {
        assert_eq!(normal("  Ｆｏｏｄ　 Ａ\n b "), "food a b");
    }

    #[test]
    fn lists_split_where_people_write_separators() {
        assert_eq!(list("Red, blue；绿、黄\n1,000 g,x"), ["red", "blue", "绿", "黄", "1,000 g", "x"]);
        assert!(list("None").is_empty() && list(" 无 ").is_empty() && list("").is_empty());
        assert_eq!(list("None, red"), ["none", "red"]);
    }

    #[test]
    fn labels_may_hold_commas() {
        let allowed = ["Home, Garden".to_owned(), "Toys".to_owned(), "茶/零配".to_owned()];
        assert_eq!(labels("home, garden", &allowed), ["home, garden"]);
        assert_eq!(labels("Toys，茶/零配", &allowed), ["toys", "茶/零配"]);
        assert!(labels("  ", &allowed).is_empty());
    }

    #[test]
    fn typed_lines_drop_none() {
        let wanted = [("brand".to_owned(), "acme".to_owned()), ("颜色".to_owned(), "红".to_owned())];
        assert_eq!(typed_lines("Brand: Acme\nSize: None\n颜色：红\nno colon"), wanted);
    }

    #[test]
    fn words_by_language() {
        assert_eq!(words("A 5-star 红色 lamp.", Lang::En), ["a", "5", "star", "红", "色", "lamp"]);
        assert_eq!(words("红ab", Lang::Zh), ["红", "a", "b"]);
    }
}
