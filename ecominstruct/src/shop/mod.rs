//! The demo shop: listings, reviews, dialogues and searches in English and Chinese, made from word tables and a seed.
//!
//! It is a source like any other, only that its records are made and not read: it gives a first training run something to
//! learn without a download. Since every text is put together from known parts, all annotations are gold by construction.
//! All that is said about one product shares its group, so the builder's border holds a product out with everything about it.
//!
//! The tables (`words.*.txt`) hold the vocabulary and the patterns of titles, sentences and turns.

mod dialogue;
mod product;
mod query;
mod review;
#[cfg(test)]
mod tests;
mod words;
mod world;

use std::collections::BTreeSet;

use self::product::{Listing, Variant, products};
use self::review::Plan;
use self::world::World;
use crate::instruction::Lang;
use crate::raw::Rows;
use crate::record::{Meta, Polarity, Record};
use crate::splitmix::SplitMix;

/// The shop's sources: one for each language.
pub const SOURCES: [(&str, Lang); 2] = [("shop_en", Lang::En), ("shop_zh", Lang::Zh)];

/// The shop's licence, for the manifest.
pub const LICENCE: &str = "none needed: made up";

/// Texts of each kind: titles and searches for a variant, the others for a product.
const LISTINGS: usize = 3;
const QUERIES: usize = 3;
const DIALOGUES: usize = 5;
const PLANS: [Plan; 10] = [
    Plan::Agree(Polarity::Positive),
    Plan::Agree(Polarity::Negative),
    Plan::Contrast,
    Plan::Agree(Polarity::Positive),
    Plan::Agree(Polarity::Negative),
    Plan::Contrast,
    Plan::Contrast,
    Plan::Agree(Polarity::Positive),
    Plan::Agree(Polarity::Negative),
    Plan::Facts,
];

/// Attempts at a text that nothing else in the shop says; then the text is left out.
const TRIES: usize = 64;

/// Hands the records of one language to `rows`; the same seed makes the same ones on every machine.
pub(crate) fn read(lang: Lang, seed: u64, rows: &mut Rows<'_>) {
    for (n, record) in records(lang, seed).into_iter().enumerate() {
        rows.push(n + 1, record);
    }
}

/// All records of a language: products of ten departments in three variants each, with listings, reviews, dialogues and searches.
fn records(lang: Lang, seed: u64) -> Vec<Record> {
    let world = World::load(lang);
    let mut stock =
        Stock { world: &world, source: source(lang), said: BTreeSet::new(), counts: [0; 4], records: Vec::new() };
    for (n, variants) in products(&world, &mut SplitMix::stream(seed, lang as u64)).iter().enumerate() {
        stock.product(n, variants, &mut SplitMix::stream(seed, (1 + n as u64) * 2 + lang as u64));
    }
    stock.records
}

fn source(lang: Lang) -> &'static str {
    SOURCES.iter().find(|s| s.1 == lang).map_or("", |s| s.0)
}

/// The shop while it is filled.
struct Stock<'a> {
    world: &'a World,
    source: &'static str,
    /// All texts so far: none is said twice, so that no held-out text is a trained one.
    said: BTreeSet<String>,
    /// Raw ids given, by kind.
    counts: [usize; 4],
    records: Vec<Record>,
}

const KINDS: [&str; 4] = ["listing", "review", "dialogue", "query"];

impl Stock<'_> {
    /// All that is said about product number `n`.
    fn product(&mut self, n: usize, variants: &[Variant], rng: &mut SplitMix) {
        let world = self.world;
        let group = format!("product-{n:03}");
        let mut listings: Vec<Listing<'_>> = Vec::new();
        for (v, variant) in variants.iter().enumerate() {
            for i in 0..LISTINGS {
                let draw = |rng: &mut SplitMix| variant.title(world, i, rng);
                let Some(title) = self.fresh(rng, draw, |t| &t.text) else { continue };
                let meta = self.meta(0, &group);
                listings.push(Listing { meta, variant, cluster: format!("{group}-{v}"), number: i, title });
            }
        }
        for at in 0..listings.len() {
            self.records.push(Record::Product(product::record(world, &listings, at)));
        }
        for (i, plan) in PLANS.into_iter().enumerate() {
            let Some(variant) = variants.get(i % variants.len().max(1)) else { continue };
            let draw = |rng: &mut SplitMix| review::review(world, variant, plan, rng);
            if let Some(mut review) = self.fresh(rng, draw, |r| &r.text) {
                review.meta = self.meta(1, &group);
                self.records.push(Record::Review(review));
            }
        }
        for i in 0..DIALOGUES {
            let Some(variant) = variants.get(i % variants.len().max(1)) else { continue };
            // Neighbours get different intents.
            let intent = n * DIALOGUES + i + n / 9;
            let draw = |rng: &mut SplitMix| dialogue::dialogue(world, variant, intent, rng);
            if let Some((mut dialogue, _)) = self.fresh(rng, draw, |d| &d.1) {
                dialogue.meta = self.meta(2, &group);
                self.records.push(Record::Dialogue(dialogue));
            }
        }
        for variant in variants {
            for _ in 0..QUERIES {
                let draw = |rng: &mut SplitMix| query::query(world, variant, &listings, rng);
                if let Some(mut query) = self.fresh(rng, draw, |q| &q.text) {
                    query.meta = self.meta(3, &group);
                    self.records.push(Record::Query(query));
                }
            }
        }
    }

    /// A text that nothing else in the shop says.
    fn fresh<T>(
        &mut self,
        rng: &mut SplitMix,
        mut draw: impl FnMut(&mut SplitMix) -> T,
        text: impl Fn(&T) -> &String,
    ) -> Option<T> {
        (0..TRIES).map(|_| draw(rng)).find(|found| self.said.insert(text(found).clone()))
    }

    fn meta(&mut self, kind: usize, group: &str) -> Meta {
        self.counts[kind] += 1;
        let raw_id = format!("{}/{}:{}", self.source, KINDS[kind], self.counts[kind]);
        Meta { raw_id, group: group.to_owned(), lang: self.world.lang }
    }
}

/// One of `items`, which must not be empty; the default of `T` if they are.
fn pick<T: Copy + Default>(rng: &mut SplitMix, items: &[T]) -> T {
    items.get(rng.below(items.len())).copied().unwrap_or_default()
}

/// True `percent` times in a hundred.
fn chance(rng: &mut SplitMix, percent: usize) -> bool {
    rng.below(100) < percent
}
