//! Reviews.

use super::words::fill;
use super::world::{Category, World};
use super::{Opinion, Polarity, Product, Review, chance, pick};
use crate::instruction::Lang;
use crate::splitmix::SplitMix;

/// What a review is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// One or two opinions of one polarity.
    Agree(Polarity),
    /// Two opinions of different polarity.
    Contrast,
    /// Facts only.
    Neutral,
}

/// A review of `product` by plan; `product_index` goes into the record.
pub(super) fn review(world: &World, product: &Product, plan: Plan, rng: &mut SplitMix) -> Review {
    let mut review = Review { id: String::new(), product: 0, text: String::new(), opinions: Vec::new() };
    let Some(category) = world.categories.iter().find(|c| c.name == product.category) else { return review };
    let first = chance(rng, 25);
    if first || plan == Plan::Neutral {
        filler(world, product, rng, &mut review.text);
    }
    let before = review.text.len();
    match plan {
        Plan::Agree(polarity) if chance(rng, 50) => clauses(world, category, "one", &[polarity], rng, &mut review),
        Plan::Agree(polarity) => clauses(world, category, "agree", &[polarity; 2], rng, &mut review),
        Plan::Contrast if chance(rng, 50) => {
            clauses(world, category, "contrast", &[Polarity::Positive, Polarity::Negative], rng, &mut review);
        }
        Plan::Contrast => {
            clauses(world, category, "contrast", &[Polarity::Negative, Polarity::Positive], rng, &mut review);
        }
        Plan::Neutral => filler(world, product, rng, &mut review.text),
    }
    if before == 0 && chance(rng, 30) {
        filler(world, product, rng, &mut review.text);
    }
    if world.lang == Lang::En {
        capitalise(&mut review.text);
    }
    review
}

/// Appends clauses, one per polarity and each on another aspect, joined by a pattern of the list `key`.
fn clauses(
    world: &World,
    category: &Category,
    key: &str,
    polarities: &[Polarity],
    rng: &mut SplitMix,
    review: &mut Review,
) {
    space(world, &mut review.text);
    let joiner = pick(rng, &world.words.list("clauses", key));
    let mut order: Vec<usize> = (0..category.aspects.len()).collect();
    rng.shuffle(&mut order);
    let Review { text, opinions, .. } = review;
    let mut said = polarities.iter().zip(&order);
    fill(text, joiner, &mut |text, _| {
        if let Some((polarity, aspect)) = said.next() {
            opinions.push(clause(world, category, *aspect, *polarity, rng, text));
        }
    });
}

/// Appends one clause. Only words made for the aspect are negated ("not sturdy"): "not outstanding" is no blame.
fn clause(
    world: &World,
    category: &Category,
    aspect: usize,
    polarity: Polarity,
    rng: &mut SplitMix,
    out: &mut String,
) -> Opinion {
    let mut opinion = Opinion { aspect: (0, 0), opinion: (0, 0), polarity };
    let Some(aspect) = category.aspects.get(aspect) else { return opinion };
    let negated = chance(rng, 20);
    let praises = (polarity == Polarity::Positive) != negated;
    let (own, any) = if praises { (&aspect.praise, &world.praise) } else { (&aspect.blame, &world.blame) };
    let word = if negated || chance(rng, 50) { pick(rng, own) } else { pick(rng, any) };
    let pattern = pick(rng, &world.words.list("clauses", if negated { "negated" } else { "plain" }));
    fill(out, pattern, &mut |out, slot| {
        let start = out.len();
        let (text, place) = if slot == "a" { (aspect.name, &mut opinion.aspect) } else { (word, &mut opinion.opinion) };
        out.push_str(text);
        *place = (start, out.len());
    });
    opinion
}

/// Appends a sentence that judges nothing.
fn filler(world: &World, product: &Product, rng: &mut SplitMix, out: &mut String) {
    space(world, out);
    let sentence = pick(rng, &world.words.list("clauses", "fillers"));
    fill(out, sentence, &mut |out, slot| {
        let word = match slot {
            "item" => world.in_text(product.item),
            "day" => pick(rng, &world.days).to_owned(),
            "person" => pick(rng, &world.words.list("clauses", "persons")).to_owned(),
            "brand" => product.brand.to_owned(),
            _ => world.in_text(product.attributes.first().map_or("", |a| a.value)),
        };
        out.push_str(&word);
    });
}

fn space(world: &World, out: &mut String) {
    if world.lang == Lang::En && !out.is_empty() {
        out.push(' ');
    }
}

/// A capital at the start of each sentence; ASCII, so offsets stay.
fn capitalise(text: &mut String) {
    let mut start = true;
    *text = text
        .chars()
        .map(|c| {
            let c = if start { c.to_ascii_uppercase() } else { c };
            start = c == '.' || (start && c == ' ');
            c
        })
        .collect();
}
