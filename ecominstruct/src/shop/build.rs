//! Puts the shop together, held-out products first, so that nothing said about them is said again.

use std::collections::BTreeSet;

use super::product::{complete_listing, listing, products};
use super::review::{Plan, review};
use super::world::World;
use super::{Dialogue, Listing, Polarity, Product, Query, Review, Shop};
use super::{dialogue, query};
use crate::instruction::Lang;
use crate::splitmix::SplitMix;

/// Texts per product.
const LISTINGS: usize = 4;
const QUERIES: usize = 8;
const DIALOGUES: usize = 3;
const PLANS: [Plan; 7] = [
    Plan::Agree(Polarity::Positive),
    Plan::Agree(Polarity::Negative),
    Plan::Contrast,
    Plan::Contrast,
    Plan::Agree(Polarity::Positive),
    Plan::Agree(Polarity::Negative),
    Plan::Neutral,
];

/// Attempts at a text that has not been used before; then the text is left out.
const TRIES: usize = 64;

pub(super) fn build(seed: u64) -> Shop {
    let worlds = [World::load(Lang::En), World::load(Lang::Zh)];
    let mut shop =
        Shop { products: vec![], reviews: vec![], queries: vec![], dialogues: vec![], seed, worlds: worlds.map(|w| w) };
    for at in 0..shop.worlds.len() {
        let mut rng = SplitMix::stream(seed, at as u64);
        let first = shop.products.len();
        shop.products.extend(products(&shop.worlds[at], &mut rng));
        let mut firewalls = <[Firewall; 4]>::default();
        for heldout in [true, false] {
            for index in first..shop.products.len() {
                if shop.products[index].heldout == heldout {
                    let mut rng = SplitMix::stream(seed, 1000 + index as u64);
                    stock(&mut shop, at, index, &mut firewalls, &mut rng);
                }
            }
        }
    }
    shop
}

/// All that is said about one product.
fn stock(shop: &mut Shop, world: usize, index: usize, firewalls: &mut [Firewall; 4], rng: &mut SplitMix) {
    let Shop { products, reviews, queries, dialogues, worlds, .. } = shop;
    let (world, product) = (&worlds[world], &mut products[index]);
    let heldout = product.heldout;
    let [titles, opinions, searches, talks] = firewalls;
    for i in 0..LISTINGS {
        let draw = |rng: &mut SplitMix| {
            if i == 0 { complete_listing(world, product) } else { listing(world, product, rng) }
        };
        if let Some(found) = titles.find(heldout, rng, draw, |l| &l.title) {
            product.listings.push(Listing { id: format!("{}-l{i}", product.id), ..found });
        }
    }
    let product: &Product = product;
    for (i, plan) in PLANS.into_iter().enumerate() {
        if let Some(found) = opinions.find(heldout, rng, |rng| review(world, product, plan, rng), |r| &r.text) {
            reviews.push(Review { id: format!("{}-r{i}", product.id), product: index, ..found });
        }
    }
    for i in 0..QUERIES {
        let draw = |rng: &mut SplitMix| query::query(world, product, i % 2 == 0, rng);
        if let Some(found) = searches.find_exact(rng, draw, |q| &q.text) {
            queries.push(Query { id: format!("{}-q{i}", product.id), product: index, ..found });
        }
    }
    for i in 0..DIALOGUES {
        // Neighbours get different intents, and so do the held-out ones.
        let intent = index * DIALOGUES + i + index / 9;
        let draw = |rng: &mut SplitMix| dialogue::dialogue(world, product, intent, rng);
        if let Some(found) = talks.find(heldout, rng, draw, |d| &d.text) {
            dialogues.push(Dialogue { id: format!("{}-d{i}", product.id), product: index, ..found });
        }
    }
}

/// For one kind of text: lets each pass once, and no trained text that contains a held-out one.
#[derive(Default)]
struct Firewall {
    seen: BTreeSet<String>,
    heldout: Vec<String>,
}

impl Firewall {
    fn find<T>(
        &mut self,
        heldout: bool,
        rng: &mut SplitMix,
        mut draw: impl FnMut(&mut SplitMix) -> T,
        text: impl Fn(&T) -> &String,
    ) -> Option<T> {
        for _ in 0..TRIES {
            let found = draw(rng);
            let new = text(&found);
            if (heldout || !self.heldout.iter().any(|old| new.contains(old.as_str()))) && self.seen.insert(new.clone())
            {
                if heldout {
                    self.heldout.push(new.clone());
                }
                return Some(found);
            }
        }
        None
    }

    /// As [`Self::find`] for searches, which are too short for parts of them to tell anything: a search is used once.
    fn find_exact<T>(
        &mut self,
        rng: &mut SplitMix,
        mut draw: impl FnMut(&mut SplitMix) -> T,
        text: impl Fn(&T) -> &String,
    ) -> Option<T> {
        (0..TRIES).map(|_| draw(rng)).find(|found| self.seen.insert(text(found).clone()))
    }
}
