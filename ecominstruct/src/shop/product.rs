//! Products and their titles.

use std::collections::BTreeSet;

use super::world::{Category, Value, World};
use super::{Attribute, Listing, Product, Span, chance, pick};
use crate::splitmix::SplitMix;

/// Products per category and language.
const PER_CATEGORY: usize = 30;

/// Kinds of product per category of which some are held out, and how many of each. Three of a kind make choices that the
/// kind does not settle.
const HELDOUT_KINDS: usize = 2;
const HELDOUT_OF_A_KIND: usize = 3;

/// All products of a language, without listings. Brand, kind and first attribute together are unique: no held-out product
/// has the short name of a trained one.
pub(super) fn products(world: &World, rng: &mut SplitMix) -> Vec<Product> {
    let mut taken = BTreeSet::new();
    let mut products = Vec::new();
    for (c, category) in world.categories.iter().enumerate() {
        let kinds = category.items.len().max(1);
        for i in 0..PER_CATEGORY {
            let (kind, round) = (i % kinds, i / kinds);
            let product = loop {
                let product = draw(world, category, kind, rng);
                if taken.insert((product.brand, product.item, product.attributes.first().map(|a| a.value))) {
                    break product;
                }
            };
            products.push(Product {
                id: format!("p-{}-{:03}", world.lang.name(), products.len()),
                heldout: (kind + kinds - c % kinds) % kinds < HELDOUT_KINDS && round < HELDOUT_OF_A_KIND,
                ..product
            });
        }
    }
    products
}

fn draw(world: &World, category: &Category, kind: usize, rng: &mut SplitMix) -> Product {
    let (item, alias) = category.items.get(kind).map_or(("", ""), |i| (i.name, i.alias));
    let mut attributes = Vec::new();
    for inventory in &category.attributes {
        if let Some(&Value { name, family }) = inventory.values.get(rng.below(inventory.values.len())) {
            attributes.push(Attribute { name: inventory.name, value: name, family });
        }
    }
    Product {
        id: String::new(),
        lang: world.lang,
        category: category.name,
        brand: pick(rng, &world.brands),
        item,
        alias,
        attributes,
        modifier: pick(rng, &category.modifiers),
        purpose: pick(rng, &category.uses),
        heldout: false,
        listings: Vec::new(),
    }
}

/// A title in one of the patterns, with some of its parts left out but at least two of brand and attributes in.
pub(super) fn listing(world: &World, product: &Product, rng: &mut SplitMix) -> Listing {
    loop {
        let pattern = pick(rng, &world.words.list("shop", "titles"));
        let mut left_out = Vec::new();
        for (slot, percent) in [("brand", 18), ("mod", 30), ("use", 20), ("a0", 25), ("a1", 25), ("a2", 25)] {
            if chance(rng, percent) {
                left_out.push(slot);
            }
        }
        let value = |slot: &str| if left_out.contains(&slot) { None } else { product.slot(slot) };
        let listing = write(world, pattern, value, product);
        if listing.spans.len() >= 2 {
            return listing;
        }
    }
}

/// The title that names everything.
pub(super) fn complete_listing(world: &World, product: &Product) -> Listing {
    write(world, world.words.line("shop", "complete title"), |slot| product.slot(slot), product)
}

/// A title by the pattern under `key`, from the slots in `shown`.
pub(super) fn name_by(world: &World, key: &str, product: &Product, shown: &[&str]) -> String {
    let slot = |slot: &str| if shown.contains(&slot) { product.slot(slot) } else { None };
    write(world, world.words.line("shop", key), slot, product).title
}

impl Product {
    /// The value of a slot of the title patterns; none where `slot` is no slot but literal text.
    pub(super) fn slot(&self, slot: &str) -> Option<&'static str> {
        match slot {
            "brand" => Some(self.brand),
            "item" => Some(self.item),
            "mod" => Some(self.modifier),
            "use" => Some(self.purpose),
            _ => self.attribute(slot).map(|a| a.value),
        }
    }

    /// The attribute in slot `a0`, `a1` or `a2`.
    pub(super) fn attribute(&self, slot: &str) -> Option<&Attribute> {
        let index: usize = slot.strip_prefix('a')?.parse().ok()?;
        self.attributes.get(index)
    }

    /// The attribute name in slot `slot`, or the word for brand.
    fn span_name(&self, world: &World, slot: &str) -> Option<&'static str> {
        if slot == "brand" { Some(world.brand_name()) } else { self.attribute(slot).map(|a| a.name) }
    }
}

/// Writes a title. A pattern is words apart by spaces; a word is slots and literal text joined by `&` (`_` is a space). A
/// word whose slots are all missing goes, with the literal words before it; `,` takes no space before it.
fn write(world: &World, pattern: &str, value: impl Fn(&str) -> Option<&'static str>, product: &Product) -> Listing {
    let is_slot = |piece: &str| product.slot(piece).is_some();
    let mut listing = Listing { id: String::new(), title: String::new(), spans: Vec::new() };
    let mut pending = String::new();
    for word in pattern.split(' ') {
        let slots: Vec<&str> = word.split('&').filter(|piece| is_slot(piece)).collect();
        if slots.is_empty() {
            pending = if word == "," { ",".to_owned() } else { format!(" {word}") };
            continue;
        }
        if slots.iter().all(|slot| value(slot).is_none()) {
            continue;
        }
        if !listing.title.is_empty() {
            listing.title.push_str(&pending);
            listing.title.push(' ');
        }
        pending.clear();
        for piece in word.split('&') {
            let start = listing.title.len();
            if !is_slot(piece) {
                listing.title.push_str(&piece.replace('_', " "));
            } else if let Some(text) = value(piece) {
                listing.title.push_str(text);
                if let Some(name) = product.span_name(world, piece) {
                    listing.spans.push(Span { name, start, end: listing.title.len() });
                }
            }
        }
    }
    listing
}
