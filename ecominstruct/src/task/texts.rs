//! Sets of texts, for the question whether one of them stands in another text.

use rustc_hash::FxHashSet;

/// Texts, each once.
#[derive(Debug, Default)]
pub struct Texts {
    all: FxHashSet<String>,
    longest: usize,
}

impl<'a> FromIterator<&'a str> for Texts {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        let mut all = Self::default();
        for text in texts.into_iter().filter(|text| !text.is_empty()) {
            if !all.all.contains(text) {
                all.longest = all.longest.max(text.len());
                all.all.insert(text.to_owned());
            }
        }
        all
    }
}

impl Texts {
    /// Whether `text` is one of them.
    pub fn contains(&self, text: &str) -> bool {
        self.all.contains(text)
    }

    /// Whether one of them stands in `text`, at bytes `start..end` that `fits` lets pass. Costs as much as `text` has
    /// parts no longer than the longest of them, however many they are.
    pub fn any_in(&self, text: &str, fits: impl Fn(usize, usize) -> bool) -> bool {
        let edges: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        edges.iter().enumerate().any(|(i, &start)| {
            let ends = edges[i + 1..].iter().take_while(|&&end| end - start <= self.longest);
            ends.into_iter()
                .any(|&end| fits(start, end) && text.get(start..end).is_some_and(|part| self.all.contains(part)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_are_found_as_by_searching_for_each(
            texts in prop::collection::vec("[ab红]{0,4}", 0..6), text in "[ab红 ]{0,12}"
        ) {
            let all: Texts = texts.iter().map(String::as_str).collect();
            let wanted = texts.iter().any(|t| !t.is_empty() && text.contains(t.as_str()));
            prop_assert_eq!(all.any_in(&text, |_, _| true), wanted);
            prop_assert!(!all.any_in(&text, |_, _| false));
            prop_assert!(texts.iter().all(|t| t.is_empty() || all.contains(t)));
        }
    }
}
