//! Searches, with the judgement of one product.

use super::world::World;
use super::{Product, Query, chance, pick};
use crate::splitmix::SplitMix;

/// A search that `product` satisfies, or, where `relevant` is false, one that it misses by one word only: another family
/// of an attribute, another value, or another kind of product of the category.
pub(super) fn query(world: &World, product: &Product, relevant: bool, rng: &mut SplitMix) -> Query {
    let pattern = pick(rng, &world.words.list("shop", "query patterns"));
    let slots: Vec<&'static str> = pattern.split(' ').collect();
    let mut wants: Vec<_> = slots.iter().filter_map(|slot| Some((*slot, right(product, slot, rng)?))).collect();
    if !relevant {
        let open: Vec<usize> = (0..wants.len()).filter(|&i| wants[i].0 != "use").collect();
        let at = pick(rng, &open);
        if let Some(want) = wants.get_mut(at) {
            want.1 = wrong(world, product, want.0, rng).unwrap_or(want.1);
        }
    }
    let text: Vec<String> = wants.iter().map(|(_, word)| world.in_text(word)).collect();
    Query { id: String::new(), product: 0, text: text.join(" "), wants, relevant }
}

/// A word for what the product has in `slot`.
fn right(product: &Product, slot: &str, rng: &mut SplitMix) -> Option<&'static str> {
    let other = match slot {
        "item" => Some(product.alias),
        _ => product.attribute(slot).and_then(|a| a.family),
    };
    match other {
        Some(other) if chance(rng, 50) => Some(other),
        _ => product.slot(slot),
    }
}

/// A word of the same sort that the product does not answer to.
fn wrong(world: &World, product: &Product, slot: &str, rng: &mut SplitMix) -> Option<&'static str> {
    let category = world.categories.iter().find(|c| c.name == product.category)?;
    let words: Vec<&'static str> = if slot == "item" {
        let others = category.items.iter().filter(|i| i.name != product.item);
        others.flat_map(|i| [i.name, i.alias]).collect()
    } else {
        let own = product.attribute(slot)?;
        let inventory = category.attributes.iter().find(|a| a.name == own.name)?;
        let family = inventory.families();
        let wide = !family.is_empty() && chance(rng, 50);
        let values =
            inventory.values.iter().filter(|v| v.name != own.value && (v.family.is_none() || v.family != own.family));
        if wide {
            family.into_iter().filter(|f| Some(*f) != own.family).collect()
        } else {
            values.map(|v| v.name).collect()
        }
    };
    (!words.is_empty()).then(|| pick(rng, &words))
}

impl Query {
    /// Whether `product` answers to all that is wanted.
    pub(super) fn satisfied_by(&self, product: &Product) -> bool {
        self.wants.iter().all(|(slot, word)| {
            product.slot(slot) == Some(word)
                || (*slot == "item" && product.alias == *word)
                || product.attribute(slot).is_some_and(|a| a.family == Some(word))
        })
    }
}
