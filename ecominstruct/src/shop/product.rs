//! Products, their variants and the titles they are listed under.

use std::collections::BTreeSet;

use super::world::{Category, Value, World};
use super::{chance, pick};
use crate::record::{self, Attribute, Meta, Pair, Span, TypedSpan};
use crate::splitmix::SplitMix;

/// Products per department and language, and variants of each.
const PER_CATEGORY: usize = 12;
const VARIANTS: usize = 3;

/// One variant of a product: a jacket of a brand in navy, size M.
#[derive(Debug, Clone)]
pub(super) struct Variant {
    /// Department.
    pub(super) category: &'static str,
    pub(super) brand: &'static str,
    /// What it is (jacket), and another word for it (coat).
    pub(super) item: &'static str,
    pub(super) alias: &'static str,
    /// The three attributes of its department, in the department's order.
    pub(super) facts: Vec<Fact>,
    /// A selling point (slim fit).
    modifier: &'static str,
    /// For whom or what it is.
    purpose: &'static str,
}

/// An attribute: name (color), value (navy) and wider term (blue), where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) value: &'static str,
    pub(super) family: Option<&'static str>,
}

/// A title, and where it has which slot of its pattern.
#[derive(Debug, Clone, Default)]
pub(super) struct Title {
    pub(super) text: String,
    pub(super) slots: Vec<(&'static str, Span)>,
}

/// An offer of a variant.
#[derive(Debug)]
pub(super) struct Listing<'a> {
    pub(super) meta: Meta,
    pub(super) variant: &'a Variant,
    /// Key of the variant.
    pub(super) cluster: String,
    /// Number among the variant's listings.
    pub(super) number: usize,
    pub(super) title: Title,
}

/// The variants of all products of a language. Brand and kind together are unique, and so are the facts of a variant within
/// its product.
pub(super) fn products(world: &World, rng: &mut SplitMix) -> Vec<Vec<Variant>> {
    let mut taken = BTreeSet::new();
    let mut products = Vec::new();
    for category in &world.categories {
        for i in 0..PER_CATEGORY {
            let Some(item) = category.items.get(i % category.items.len().max(1)) else { continue };
            let mut brand = pick(rng, &world.brands);
            while !taken.insert((brand, item.name)) {
                brand = pick(rng, &world.brands);
            }
            let first = Variant {
                category: category.name,
                brand,
                item: item.name,
                alias: item.alias,
                facts: facts(category, rng),
                modifier: pick(rng, &category.modifiers),
                purpose: pick(rng, &category.uses),
            };
            let mut all = vec![first.facts.clone()];
            while all.len() < VARIANTS {
                let facts = facts(category, rng);
                if !all.contains(&facts) {
                    all.push(facts);
                }
            }
            products.push(all.into_iter().map(|facts| Variant { facts, ..first.clone() }).collect());
        }
    }
    products
}

fn facts(category: &Category, rng: &mut SplitMix) -> Vec<Fact> {
    let draw = |inventory: &super::world::Inventory, rng: &mut SplitMix| {
        let &Value { name: value, family } = inventory.values.get(rng.below(inventory.values.len()))?;
        Some(Fact { name: inventory.name, value, family })
    };
    category.attributes.iter().filter_map(|inventory| draw(inventory, rng)).collect()
}

impl Variant {
    /// The value of a slot of the patterns; none where `slot` is literal text.
    pub(super) fn slot(&self, slot: &str) -> Option<&'static str> {
        match slot {
            "brand" => Some(self.brand),
            "item" => Some(self.item),
            "mod" => Some(self.modifier),
            "use" => Some(self.purpose),
            _ => self.fact(slot).map(|f| f.value),
        }
    }

    /// The attribute in slot `a0`, `a1` or `a2`.
    pub(super) fn fact(&self, slot: &str) -> Option<&Fact> {
        let index: usize = slot.strip_prefix('a')?.parse().ok()?;
        self.facts.get(index)
    }

    /// What a slot is called: the attribute's name, or the table's word for the slot.
    pub(super) fn name(&self, world: &World, slot: &str) -> &'static str {
        self.fact(slot).map_or_else(|| world.words.line("names", slot), |f| f.name)
    }

    /// Title number `number`: the first names everything, the others leave out some, but state two of brand and attributes.
    pub(super) fn title(&self, world: &World, number: usize, rng: &mut SplitMix) -> Title {
        if number == 0 {
            return self.write(world.words.line("shop", "complete title"), |_| true);
        }
        loop {
            let pattern = pick(rng, &world.words.list("shop", "titles"));
            let mut left_out = Vec::new();
            for (slot, percent) in [("brand", 18), ("mod", 30), ("use", 20), ("a0", 25), ("a1", 25), ("a2", 25)] {
                if chance(rng, percent) {
                    left_out.push(slot);
                }
            }
            let title = self.write(pattern, |slot| !left_out.contains(&slot));
            if title.slots.iter().filter(|s| is_stated_fact(s.0)).count() >= 2 {
                return title;
            }
        }
    }

    /// Writes a title of the slots that `shown` lets pass. A pattern is words apart by spaces; a word is slots and literal text
    /// joined by `&` (`_` is a space). A word whose slots are all left out goes, with the literal words before it; `,` takes no
    /// space before it.
    fn write(&self, pattern: &'static str, shown: impl Fn(&str) -> bool) -> Title {
        let is_slot = |piece: &str| self.slot(piece).is_some();
        let mut title = Title::default();
        let mut pending = String::new();
        for word in pattern.split(' ') {
            let slots: Vec<&str> = word.split('&').filter(|piece| is_slot(piece)).collect();
            if slots.is_empty() {
                pending = if word == "," { ",".to_owned() } else { format!(" {word}") };
                continue;
            }
            if !slots.iter().any(|slot| shown(slot)) {
                continue;
            }
            if !title.text.is_empty() {
                title.text.push_str(&pending);
                title.text.push(' ');
            }
            pending.clear();
            for piece in word.split('&') {
                let start = title.text.len();
                match self.slot(piece) {
                    None => title.text.push_str(&piece.replace('_', " ")),
                    Some(value) if shown(piece) => {
                        title.text.push_str(value);
                        title.slots.push((piece, Span { start, end: title.text.len() }));
                    }
                    Some(_) => {}
                }
            }
        }
        title
    }
}

/// Whether a slot is the brand or an attribute.
fn is_stated_fact(slot: &str) -> bool {
    slot == "brand" || matches!(slot, "a0" | "a1" | "a2")
}

impl Listing<'_> {
    /// Whether the title states a slot.
    pub(super) fn states(&self, slot: &str) -> bool {
        self.title.slots.iter().any(|s| s.0 == slot)
    }
}

/// Listing `at` of a product as a record. What the title states is annotated as attributes; in every third one also as
/// typed mentions. Listings that name everything are judged against those of the other variants and against the next of their
/// own.
pub(super) fn record(world: &World, listings: &[Listing<'_>], at: usize) -> record::Product {
    let Some(Listing { meta, variant, cluster, number, title }) = listings.get(at) else {
        return record::Product::default();
    };
    let span_of = |&(slot, span): &(&'static str, Span)| TypedSpan { span, kind: variant.name(world, slot).to_owned() };
    let attribute = |&(slot, span): &(&'static str, Span)| Attribute {
        name: variant.name(world, slot).to_owned(),
        value: variant.slot(slot).unwrap_or_default().to_owned(),
        span: Some(span),
    };
    let stated = |slot: &str| title.slots.iter().any(|s| s.0 == slot);
    let short = variant.write(world.words.line("shop", "short title"), stated);
    let pair = |other: &Listing<'_>| Pair { other: other.meta.raw_id.clone(), same: other.cluster == *cluster };
    let judged = |other: &&Listing<'_>| other.number == usize::from(other.cluster == *cluster);
    record::Product {
        meta: meta.clone(),
        title: title.text.clone(),
        short_title: Some(short.text).filter(|_| short.slots.len() >= 2),
        description: None,
        category: vec![variant.category.to_owned(), variant.item.to_owned()],
        attributes: title.slots.iter().filter(|s| is_stated_fact(s.0)).map(attribute).collect(),
        attributes_complete: true,
        spans: if *number == 1 { title.slots.iter().map(span_of).collect() } else { Vec::new() },
        brand: Some(variant.brand.to_owned()),
        cluster: Some(cluster.clone()),
        judged: if *number == 0 { listings.iter().filter(judged).map(pair).collect() } else { Vec::new() },
    }
}
