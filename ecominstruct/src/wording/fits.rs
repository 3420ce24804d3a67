//! Whether the words of an instruction are those of the template that it names.

use super::{Wording, joined};
use crate::instruction::{Instruction, Lang};
use crate::task::Task;

impl Wording {
    /// The template with this number (from 1, or `generic`) of a task.
    pub fn template(&self, task: &Task, lang: Lang, number: &str) -> Option<&str> {
        if number == "generic" {
            return self.generic.get(task.paradigm.name()).map(|g| g.of(lang).as_str());
        }
        let at = number.parse::<usize>().ok()?.checked_sub(1)?;
        self.tasks.get(task.id)?.list(lang).get(at).map(String::as_str)
    }

    /// What of a row's description, prompt and constraint the template with this number does not give: what was wanted, what was
    /// found. What data filled into the template may be anything but nothing.
    pub fn misfit(&self, task: &Task, number: &str, row: &Instruction) -> Option<String> {
        let lang = row.prompt_lang;
        let name = self.name(task.id, lang);
        if !row.description.is_empty() && row.description != name {
            return Some(format!("description: wanted {name:?} or none, found {:?}", row.description));
        }
        let constraint = self.tasks.get(task.id).and_then(|t| self.constraint.get(&t.constraint));
        let constraint = constraint.map_or("", |c| c.of(lang).as_str());
        if !row.constraint.is_empty() && row.constraint != constraint {
            return Some(format!("constraint: wanted {constraint:?} or none, found {:?}", row.constraint));
        }
        let template = self.template(task, lang, number)?;
        let (texts, filled) = (Pieces::of(template, &row.candidates), &row.prompt);
        (!texts.fit(filled)).then(|| format!("prompt: wanted {template:?}, filled, found {filled:?}"))
    }
}

/// The words of a template between its gaps.
struct Pieces(Vec<String>);

impl Pieces {
    /// The list of candidates is known; what else fills a gap is not.
    fn of(template: &str, candidates: &[String]) -> Self {
        let mut pieces = vec![String::new()];
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            if let Some(open) = pieces.last_mut() {
                open.push_str(before);
                if super::LISTS.contains(&name) {
                    open.push_str(&joined(candidates));
                }
            }
            if !super::LISTS.contains(&name) {
                pieces.push(String::new());
            }
            rest = after;
        }
        if let Some(open) = pieces.last_mut() {
            open.push_str(rest);
        }
        Self(pieces)
    }

    /// Whether `text` is these pieces with something in each gap. Finding each piece as early as it can be leaves the most room
    /// for the rest.
    fn fit(&self, text: &str) -> bool {
        let (Some((first, others)), text) = (self.0.split_first(), text) else { return false };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
        let Some((last, middle)) = others.split_last() else { return rest.is_empty() };
        for piece in middle {
            let Some(from) = rest.chars().next().map(char::len_utf8) else { return false };
            let Some(at) = rest[from..].find(piece.as_str()) else { return false };
            rest = &rest[from + at + piece.len()..];
        }
        rest.strip_suffix(last.as_str()).is_some_and(|gap| !gap.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(template: &str, candidates: &[&str], text: &str) -> bool {
        Pieces::of(template, &candidates.iter().map(|&c| c.to_owned()).collect::<Vec<_>>()).fit(text)
    }

    #[test]
    fn gaps_are_filled_with_something_and_lists_with_the_candidates() {
        assert!(fits("Is it red?", &[], "Is it red?") && !fits("Is it red?", &[], "Is it red??"));
        assert!(fits("Has {value} in {name}.", &[], "Has a in in in b."));
        assert!(!fits("Has {value} in {name}.", &[], "Has a in ."));
        assert!(!fits("Has {value} in {name}.", &[], "Has  in b"));
        assert!(fits("{value}是{name}吗", &[], "红是颜色吗") && !fits("{value}是{name}吗", &[], "是颜色吗"));
        assert!(fits("One of {labels}: {value}?", &["a", "b"], "One of a, b: c?"));
        assert!(fits("One of {labels}.", &["a", "b, c"], "One of a; b, c."));
        assert!(!fits("One of {labels}.", &["b", "a"], "One of a, b."));
        assert!(!fits("{a}{b}", &[], "x") && fits("{a}{b}", &[], "xy") && !fits("{a}", &[], ""));
    }
}
