//! Reviews.

use super::product::Variant;
use super::words::fill;
use super::world::{Aspect, Category, World};
use super::{chance, pick};
use crate::instruction::Lang;
use crate::record::{Opinion, Polarity, Review, Span, Topic};
use crate::splitmix::SplitMix;

/// What a review is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// One or two opinions of one polarity.
    Agree(Polarity),
    /// Two opinions of different polarity.
    Contrast,
    /// No opinion.
    Facts,
}

/// A review of `variant` by plan, with all annotations but its origin.
pub(super) fn review(world: &World, variant: &Variant, plan: Plan, rng: &mut SplitMix) -> Review {
    let category = vec![variant.category.to_owned(), variant.item.to_owned()];
    let mut review =
        Review { category, opinions_complete: true, subjective: Some(plan != Plan::Facts), ..Review::default() };
    let Some(kind) = world.categories.iter().find(|c| c.name == variant.category) else { return review };
    let first = chance(rng, 25);
    if first || plan == Plan::Facts {
        filler(world, variant, rng, &mut review.text);
    }
    let said = match plan {
        Plan::Agree(polarity) if chance(rng, 50) => clauses(world, kind, "one", &[polarity], rng, &mut review),
        Plan::Agree(polarity) => clauses(world, kind, "agree", &[polarity; 2], rng, &mut review),
        Plan::Contrast => {
            let mut both = [Polarity::Positive, Polarity::Negative];
            rng.shuffle(&mut both);
            clauses(world, kind, "contrast", &both, rng, &mut review)
        }
        Plan::Facts => {
            filler(world, variant, rng, &mut review.text);
            Vec::new()
        }
    };
    if !first && plan != Plan::Facts && chance(rng, 30) {
        filler(world, variant, rng, &mut review.text);
    }
    if world.lang == Lang::En {
        capitalise(&mut review.text);
    }
    judge(&mut review, plan);
    review.headline = said.first().filter(|c| plan != Plan::Contrast && !c.negated).map(|c| headline(world, c));
    review
}

/// What was used for one judgement.
struct Clause<'a> {
    aspect: &'a Aspect,
    word: &'static str,
    negated: bool,
}

/// Appends clauses, one per polarity and each on another aspect, joined by a pattern of the list `key`.
fn clauses<'a>(
    world: &World,
    category: &'a Category,
    key: &str,
    polarities: &[Polarity],
    rng: &mut SplitMix,
    review: &mut Review,
) -> Vec<Clause<'a>> {
    space(world, &mut review.text);
    let joiner = pick(rng, &world.words.list("clauses", key));
    let mut order: Vec<&Aspect> = category.aspects.iter().collect();
    rng.shuffle(&mut order);
    let Review { text, opinions, .. } = review;
    let mut left = polarities.iter().zip(order);
    let mut said = Vec::new();
    fill(text, joiner, &mut |text, _| {
        if let Some((polarity, aspect)) = left.next() {
            let (clause, opinion) = clause(world, aspect, *polarity, rng, text);
            said.push(clause);
            opinions.push(opinion);
        }
    });
    said
}

/// Appends one clause. Only words made for the aspect are negated ("not sturdy"): "not outstanding" is no blame. A negation
/// stays outside of the opinion's words.
fn clause<'a>(
    world: &World,
    aspect: &'a Aspect,
    polarity: Polarity,
    rng: &mut SplitMix,
    out: &mut String,
) -> (Clause<'a>, Opinion) {
    let negated = chance(rng, 20);
    let praises = (polarity == Polarity::Positive) != negated;
    let (own, any) = if praises { (&aspect.praise, &world.praise) } else { (&aspect.blame, &world.blame) };
    let word = if negated || chance(rng, 50) { pick(rng, own) } else { pick(rng, any) };
    let pattern = pick(rng, &world.words.list("clauses", if negated { "negated" } else { "plain" }));
    let mut opinion = Opinion { aspect: None, opinion: None, category: Some(aspect.topic.to_owned()), polarity };
    fill(out, pattern, &mut |out, slot| {
        let start = out.len();
        let (text, place) = if slot == "a" { (aspect.name, &mut opinion.aspect) } else { (word, &mut opinion.opinion) };
        out.push_str(text);
        *place = Some(Span { start, end: out.len() });
    });
    (Clause { aspect, word, negated }, opinion)
}

/// What follows from the opinions: polarity, stars, recommendation, topics that are judged in one way.
fn judge(review: &mut Review, plan: Plan) {
    let twice = review.opinions.len() >= 2;
    (review.polarity, review.stars, review.recommended) = match plan {
        Plan::Agree(Polarity::Positive) => (Some(Polarity::Positive), Some(if twice { 5 } else { 4 }), Some(true)),
        Plan::Agree(_) => (Some(Polarity::Negative), Some(if twice { 1 } else { 2 }), Some(false)),
        Plan::Contrast => (Some(Polarity::Neutral), Some(3), None),
        Plan::Facts => (None, None, None),
    };
    for opinion in &review.opinions {
        let name = opinion.category.clone().unwrap_or_default();
        let alone = |o: &Opinion| o.category != opinion.category || o.polarity == opinion.polarity;
        if review.opinions.iter().all(alone) && review.topics.iter().all(|t| t.name != name) {
            review.topics.push(Topic { name, polarity: opinion.polarity });
        }
    }
}

/// What is judged and how, in two or three words.
fn headline(world: &World, clause: &Clause<'_>) -> String {
    let mut out = String::new();
    fill(&mut out, world.words.line("clauses", "headline"), &mut |out, slot| {
        out.push_str(if slot == "a" { clause.aspect.name } else { clause.word });
    });
    if world.lang == Lang::En {
        capitalise(&mut out);
    }
    out
}

/// Appends a sentence that judges nothing.
fn filler(world: &World, variant: &Variant, rng: &mut SplitMix, out: &mut String) {
    space(world, out);
    let sentence = pick(rng, &world.words.list("clauses", "fillers"));
    fill(out, sentence, &mut |out, slot| {
        let word = match slot {
            "item" => world.in_text(variant.item),
            "day" => pick(rng, &world.days).to_owned(),
            "person" => pick(rng, &world.words.list("clauses", "persons")).to_owned(),
            "brand" => variant.brand.to_owned(),
            _ => world.in_text(variant.slot("a0").unwrap_or_default()),
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
