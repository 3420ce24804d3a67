//! Searches, with judged listings.

use super::product::{Listing, Variant};
use super::world::World;
use super::{chance, pick};
use crate::record::{Grade, Judged, Query, Span, TypedSpan};
use crate::splitmix::SplitMix;

/// A search that `variant` satisfies, in its own words or wider ones (blue coat for a navy jacket). Judged are those of the
/// product's listings whose titles tell: exact, if they have all that is wanted of the attributes; irrelevant, if nothing; else
/// partial.
pub(super) fn query(world: &World, variant: &Variant, listings: &[Listing<'_>], rng: &mut SplitMix) -> Query {
    let pattern = pick(rng, &world.words.list("shop", "query patterns"));
    let wants: Vec<(&str, &str)> =
        pattern.split(' ').filter_map(|slot| Some((slot, word(variant, slot, rng)?))).collect();
    let mut query = Query { category: Some(variant.category.to_owned()), ..Query::default() };
    for &(slot, word) in &wants {
        if !query.text.is_empty() {
            query.text.push(' ');
        }
        let start = query.text.len();
        query.text.push_str(&world.in_text(word));
        let kind = variant.name(world, slot).to_owned();
        query.segments.push(TypedSpan { span: Span { start, end: query.text.len() }, kind });
    }
    query.core = Some(variant.name(world, "item").to_owned());
    let telling = listings.iter().filter(|l| wants.iter().all(|(slot, _)| *slot == "item" || l.states(slot)));
    query.judged =
        telling.map(|l| Judged { product: l.meta.raw_id.clone(), grade: grade(l.variant, &wants) }).collect();
    query
}

/// A word for what the variant has in `slot`.
fn word(variant: &Variant, slot: &str, rng: &mut SplitMix) -> Option<&'static str> {
    let other = if slot == "item" { Some(variant.alias) } else { variant.fact(slot).and_then(|f| f.family) };
    match other {
        Some(other) if chance(rng, 50) => Some(other),
        _ => variant.slot(slot),
    }
}

fn grade(variant: &Variant, wants: &[(&str, &str)]) -> Grade {
    let facts: Vec<bool> = wants
        .iter()
        .filter_map(|(slot, word)| variant.fact(slot).map(|f| f.value == *word || f.family == Some(word)))
        .collect();
    match (facts.iter().all(|met| *met), facts.iter().any(|met| *met)) {
        (true, _) => Grade::Exact,
        (_, true) => Grade::Partial,
        _ => Grade::Irrelevant,
    }
}
