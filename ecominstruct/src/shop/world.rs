//! The word tables of one language in typed form.

use super::words::{Words, split};
use crate::instruction::Lang;

/// All that can be said in one language.
#[derive(Debug)]
pub(super) struct World {
    pub(super) lang: Lang,
    pub(super) words: Words,
    pub(super) brands: Vec<&'static str>,
    pub(super) categories: Vec<Category>,
    pub(super) praise: Vec<&'static str>,
    pub(super) blame: Vec<&'static str>,
    pub(super) days: Vec<&'static str>,
    /// Intent names with the ways to say them.
    pub(super) intents: Vec<(&'static str, Vec<&'static str>)>,
}

/// What the products of a category have in common.
#[derive(Debug)]
pub(super) struct Category {
    pub(super) name: &'static str,
    pub(super) items: Vec<Item>,
    pub(super) attributes: Vec<Inventory>,
    pub(super) modifiers: Vec<&'static str>,
    pub(super) uses: Vec<&'static str>,
    pub(super) aspects: Vec<Aspect>,
}

/// A kind of product, and another word for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) name: &'static str,
    pub(super) alias: &'static str,
}

/// The values an attribute can take in a category.
#[derive(Debug)]
pub(super) struct Inventory {
    pub(super) name: &'static str,
    pub(super) values: Vec<Value>,
}

/// A value, and the wider term it falls under where there is one (navy: blue).
#[derive(Debug, Clone, Copy)]
pub(super) struct Value {
    pub(super) name: &'static str,
    pub(super) family: Option<&'static str>,
}

/// Something reviewers judge, with words that only fit it.
#[derive(Debug)]
pub(super) struct Aspect {
    pub(super) name: &'static str,
    /// What it is an aspect of: itself, or where it belongs to one department only, the quality of the product.
    pub(super) topic: &'static str,
    pub(super) praise: Vec<&'static str>,
    pub(super) blame: Vec<&'static str>,
}

impl World {
    pub(super) fn load(lang: Lang) -> Self {
        let words = Words::parse(match lang {
            Lang::En => include_str!("words.en.txt"),
            Lang::Zh => include_str!("words.zh.txt"),
        });
        let categories =
            words.list("shop", "categories").into_iter().map(|name| Category::load(&words, name)).collect();
        Self {
            lang,
            brands: words.list("shop", "brands"),
            categories,
            praise: words.list("opinions", "positive"),
            blame: words.list("opinions", "negative"),
            days: words.list("clauses", "days"),
            intents: words.lines("intents").iter().map(|(name, ways)| (*name, split(ways))).collect(),
            words,
        }
    }

    /// A product word as it is written inside a sentence.
    pub(super) fn in_text(&self, word: &str) -> String {
        match self.lang {
            Lang::En => word.to_lowercase(),
            Lang::Zh => word.to_owned(),
        }
    }
}

impl Category {
    fn load(words: &Words, name: &'static str) -> Self {
        let section = format!("category {name}");
        let item = |text: &'static str| {
            let (name, alias) = text.split_once(" = ").unwrap_or((text, text));
            Item { name, alias }
        };
        let attribute = |name: &'static str| Inventory::load(words, &section, name);
        let quality = words.line("names", "quality");
        let own = format!("aspects {name}");
        let mut all: Vec<Aspect> = words.lines(&own).iter().map(|(n, v)| Aspect::parse(n, quality, v)).collect();
        all.extend(words.lines("aspects any").iter().map(|(n, v)| Aspect::parse(n, n, v)));
        Self {
            name,
            items: words.list(&section, "items").into_iter().map(item).collect(),
            attributes: words.list(&section, "attributes").into_iter().map(attribute).collect(),
            modifiers: words.list(&section, "mod"),
            uses: words.list(&section, "use"),
            aspects: all,
        }
    }
}

impl Inventory {
    /// The category lists either the values themselves or the families it takes from a shared table; without a line of its
    /// own it takes all families.
    fn load(words: &Words, section: &str, name: &'static str) -> Self {
        let own = words.list(section, name);
        let shared = words.lines(&format!("attribute {name}"));
        let values = if shared.is_empty() {
            own.into_iter().map(|name| Value { name, family: None }).collect()
        } else {
            let taken = shared.iter().filter(|(family, _)| own.is_empty() || own.contains(family));
            taken
                .flat_map(|(family, values)| split(values).into_iter().map(|name| Value { name, family: Some(family) }))
                .collect()
        };
        Self { name, values }
    }
}

impl Aspect {
    fn parse(name: &'static str, topic: &'static str, words: &'static str) -> Self {
        let (praise, blame) = words.split_once(" / ").unwrap_or((words, words));
        Self { name, topic, praise: split(praise), blame: split(blame) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn both_tables_are_complete_and_parallel() {
        let worlds = [Lang::En, Lang::Zh].map(World::load);
        for world in &worlds {
            assert_eq!(world.categories.len(), 10);
            assert_eq!((world.brands.len(), world.intents.len(), world.days.len()), (24, 9, 7));
            for c in &world.categories {
                assert_eq!((c.items.len(), c.attributes.len(), c.aspects.len()), (6, 3, 9), "{}", c.name);
                assert_eq!((c.modifiers.len(), c.uses.len()), (6, 4), "{}", c.name);
                for a in &c.attributes {
                    assert!(a.values.len() >= 4, "{} {}", c.name, a.name);
                }
                for a in &c.aspects {
                    assert_eq!((a.praise.len(), a.blame.len()), (2, 2), "{} {}", c.name, a.name);
                }
            }
            assert!(world.intents.iter().all(|(_, ways)| ways.len() == 6));
            assert!(world.intents.iter().all(|(name, _)| !world.words.list("answers", name).is_empty()));
            for (section, keys) in [
                ("shop", &["complete title", "short title", "titles", "query patterns"][..]),
                ("names", &["brand", "item", "mod", "use", "quality", "n", "day"]),
                ("clauses", &["plain", "negated", "contrast", "agree", "one", "fillers", "persons", "headline"]),
                ("dialogue", &["hellos", "openings", "things", "replies", "shapes", "summary"]),
                ("acts", &["hello", "opening", "reply", "request"]),
            ] {
                for key in keys {
                    assert!(!world.words.list(section, key).is_empty(), "{section} {key}");
                }
            }
        }
        for (en, zh) in worlds[0].categories.iter().zip(&worlds[1].categories) {
            for (a, b) in en.attributes.iter().zip(&zh.attributes) {
                let families = |a: &Inventory| a.values.iter().filter_map(|v| v.family).collect::<BTreeSet<_>>().len();
                assert_eq!((a.values.len(), families(a)), (b.values.len(), families(b)), "{}", en.name);
            }
        }
    }

    #[test]
    fn no_value_hides_another_value_of_its_attribute() {
        // Otherwise a title could name one value and contain the other, and the gold span would be a matter of taste.
        for world in [Lang::En, Lang::Zh].map(World::load) {
            for c in &world.categories {
                for a in &c.attributes {
                    for (x, y) in a.values.iter().flat_map(|x| a.values.iter().map(move |y| (x, y))) {
                        let apart = x.name == y.name || !format!(" {} ", y.name).contains(&format!(" {} ", x.name));
                        assert!(apart, "{}: {} in {}", a.name, x.name, y.name);
                    }
                }
            }
        }
    }
}
