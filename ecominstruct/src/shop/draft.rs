//! From the shop's records to questions with answers, one function per task. Wording is `task.rs`'s business.

use super::product::name_by;
use super::world::World;
use super::{Listing, Polarity, Product, Query, Review, Shop, chance, pick};
use crate::instruction::Entity;
use crate::splitmix::SplitMix;

/// The records of one language on one side of the held-out border, as indices into the shop's lists.
pub(super) struct Part<'a> {
    pub(super) shop: &'a Shop,
    pub(super) world: &'a World,
    /// Titles of the held-out products, where this is the part to train on: none of them may come up in a name.
    kept_out: Vec<&'a str>,
    pub(super) products: Vec<usize>,
    pub(super) listings: Vec<(usize, usize)>,
    pub(super) reviews: Vec<usize>,
    pub(super) queries: Vec<usize>,
    pub(super) dialogues: Vec<usize>,
}

/// A question before it is worded.
pub(super) struct Draft {
    pub(super) input: String,
    /// Fillings of the prompt's `{name}`.
    pub(super) fills: Vec<(&'static str, String)>,
    pub(super) candidates: Vec<String>,
    pub(super) answer: Answer,
    /// Class to balance by; all 0 where there is nothing to balance.
    pub(super) class: usize,
    /// Id of the product.
    pub(super) group: String,
    pub(super) raw_ids: Vec<String>,
}

/// The answer of a draft.
pub(super) enum Answer {
    Label(String),
    /// The first or the second of the prompt's own two labels.
    Either(bool),
    Spans(Vec<String>),
    /// By the types in `candidates`.
    Entities(Vec<Entity>),
    Text(String),
}

impl<'a> Part<'a> {
    pub(super) fn new(shop: &'a Shop, world: &'a World, heldout: bool) -> Self {
        let inside = |p: usize| shop.products[p].lang == world.lang && shop.products[p].heldout == heldout;
        let held = shop.products.iter().filter(|p| !heldout && p.heldout && p.lang == world.lang);
        let products: Vec<usize> = (0..shop.products.len()).filter(|&p| inside(p)).collect();
        Self {
            shop,
            world,
            listings: products
                .iter()
                .flat_map(|&p| (0..shop.products[p].listings.len()).map(move |l| (p, l)))
                .collect(),
            reviews: (0..shop.reviews.len()).filter(|&r| inside(shop.reviews[r].product)).collect(),
            queries: (0..shop.queries.len()).filter(|&q| inside(shop.queries[q].product)).collect(),
            dialogues: (0..shop.dialogues.len()).filter(|&d| inside(shop.dialogues[d].product)).collect(),
            kept_out: held.flat_map(|p| &p.listings).map(|l| l.title.as_str()).collect(),
            products,
        }
    }

    fn product(&self, index: usize) -> &'a Product {
        &self.shop.products[index]
    }

    fn listing(&self, at: usize) -> Option<(&'a Product, &'a Listing)> {
        let (p, l) = *self.listings.get(at)?;
        Some((self.product(p), self.product(p).listings.get(l)?))
    }

    fn review(&self, at: usize) -> Option<&'a Review> {
        self.shop.reviews.get(*self.reviews.get(at)?)
    }

    fn query(&self, at: usize) -> Option<&'a Query> {
        self.shop.queries.get(*self.queries.get(at)?)
    }

    /// A title by the pattern under `key`, from the slots in `shown`; none if it repeats a held-out one.
    fn name(&self, key: &str, product: &Product, shown: &[&str]) -> Option<String> {
        let name = name_by(self.world, key, product, shown);
        (!self.kept_out.iter().any(|title| name.contains(title))).then_some(name)
    }

    /// `Name: text`, with the name in the part's language.
    fn field(&self, name: &str, text: &str) -> String {
        format!("{}: {text}", self.world.tasks.line("words", name))
    }
}

impl Draft {
    fn on(product: &Product, raw_id: &str, input: String, answer: Answer) -> Self {
        Self {
            input,
            fills: Vec::new(),
            candidates: Vec::new(),
            answer,
            class: 0,
            group: product.id.clone(),
            raw_ids: vec![raw_id.to_owned()],
        }
    }
}

/// `gold` and enough others of `all` to make `least` to `most` choices.
fn choices(gold: &str, all: &[&'static str], least: usize, most: usize, rng: &mut SplitMix) -> Vec<String> {
    let mut others: Vec<&str> = all.iter().copied().filter(|name| *name != gold).collect();
    rng.shuffle(&mut others);
    others.truncate(least - 1 + rng.below(most - least + 1));
    let mut choices: Vec<String> = others.into_iter().chain([gold]).map(str::to_owned).collect();
    rng.shuffle(&mut choices);
    choices
}

fn copied(listing: &Listing, name: &str) -> Vec<String> {
    let spans = listing.spans.iter().filter(|s| s.name == name);
    spans.map(|s| listing.title[s.start..s.end].to_owned()).collect()
}

/// Category of a title, out of three to six.
pub(super) fn category(part: &Part, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, listing) = part.listing(at)?;
    let all: Vec<&str> = part.world.categories.iter().map(|c| c.name).collect();
    let class = all.iter().position(|name| *name == product.category)?;
    let candidates = choices(product.category, &all, 3, 6, rng);
    let answer = Answer::Label(product.category.to_owned());
    Some(Draft { candidates, class, ..Draft::on(product, &listing.id, listing.title.clone(), answer) })
}

/// Brand of a title.
pub(super) fn brand(part: &Part, at: usize, _: &mut SplitMix) -> Option<Draft> {
    let (product, listing) = part.listing(at)?;
    let spans = copied(listing, part.world.brand_name());
    Some(Draft::on(product, &listing.id, listing.title.clone(), Answer::Spans(spans)))
}

/// Values of two or three attributes of a title, one line each; now and then one that no such product has.
pub(super) fn attributes(part: &Part, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, listing) = part.listing(at)?;
    let mut types: Vec<&str> = product.attributes.iter().map(|a| a.name).collect();
    rng.shuffle(&mut types);
    types.truncate(1 + rng.below(2));
    types.push(if chance(rng, 70) { part.world.brand_name() } else { foreign(part, product, rng) });
    rng.shuffle(&mut types);
    let entity = |kind: &&str| {
        copied(listing, kind).into_iter().map(|text| Entity { kind: (*kind).to_owned(), text }).collect::<Vec<_>>()
    };
    let answer = Answer::Entities(types.iter().flat_map(entity).collect());
    let candidates: Vec<String> = types.into_iter().map(str::to_owned).collect();
    let fills = vec![("types", candidates.join(", "))];
    Some(Draft { fills, candidates, ..Draft::on(product, &listing.id, listing.title.clone(), answer) })
}

/// Value of one attribute of a title.
pub(super) fn value(part: &Part, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, listing) = part.listing(at)?;
    let own: Vec<&str> = product.attributes.iter().map(|a| a.name).collect();
    let name = if chance(rng, 92) { pick(rng, &own) } else { foreign(part, product, rng) };
    let answer = Answer::Spans(copied(listing, name));
    let fills = vec![("type", name.to_owned())];
    Some(Draft { fills, ..Draft::on(product, &listing.id, listing.title.clone(), answer) })
}

/// An attribute name of other categories.
fn foreign(part: &Part, product: &Product, rng: &mut SplitMix) -> &'static str {
    let all = part.world.categories.iter().flat_map(|c| &c.attributes).map(|a| a.name);
    let others: Vec<&str> = all.filter(|name| product.attributes.iter().all(|a| a.name != *name)).collect();
    pick(rng, &others)
}

/// Whether a wider attribute value ("Color: Blue") is right for a title ("Navy …"); wrong values come from the same category.
pub(super) fn attribute_match(part: &Part, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, listing) = part.listing(at)?;
    let open: Vec<usize> = (0..product.attributes.len())
        .filter(|&i| product.attributes[i].family.is_some() && !copied(listing, product.attributes[i].name).is_empty())
        .collect();
    let attribute = product.attributes.get(*open.get(rng.below(open.len()))?)?;
    let right = chance(rng, 50);
    let family = if right {
        attribute.family?
    } else {
        let category = part.world.categories.iter().find(|c| c.name == product.category)?;
        let inventory = category.attributes.iter().find(|a| a.name == attribute.name)?;
        let others: Vec<&str> = inventory.families().into_iter().filter(|f| Some(*f) != attribute.family).collect();
        pick(rng, &others)
    };
    let input = format!("{}\n{}: {family}", listing.title, attribute.name);
    Some(Draft { class: usize::from(right), ..Draft::on(product, &listing.id, input, Answer::Either(right)) })
}

/// A title from a block of attributes in any order.
pub(super) fn title(part: &Part, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = part.product(*part.products.get(at / 2)?);
    let mut slots = vec!["brand", "item", "a0"];
    slots.extend(["a1", "a2"].into_iter().filter(|_| chance(rng, 75)));
    rng.shuffle(&mut slots);
    let mut facts = Vec::new();
    for slot in &slots {
        let value = product.slot(slot)?;
        facts.push(match product.attribute(slot) {
            Some(attribute) => format!("{}: {value}", attribute.name),
            None => part.field(slot, value),
        });
    }
    let title = part.name("full title", product, &slots)?;
    Some(Draft::on(product, &product.id, facts.join("\n"), Answer::Text(title)))
}

/// Polarity of a review of one mind.
pub(super) fn polarity(part: &Part, at: usize, _: &mut SplitMix) -> Option<Draft> {
    let review = part.review(at)?;
    let positive = review.polarity()? == Polarity::Positive;
    let product = part.product(review.product);
    let draft = Draft::on(product, &review.id, review.text.clone(), Answer::Either(positive));
    Some(Draft { class: usize::from(positive), ..draft })
}

/// What a review judges.
pub(super) fn aspects(part: &Part, at: usize, _: &mut SplitMix) -> Option<Draft> {
    let review = part.review(at)?;
    let spans = review.opinions.iter().map(|o| review.text[o.aspect.0..o.aspect.1].to_owned()).collect();
    Some(Draft::on(part.product(review.product), &review.id, review.text.clone(), Answer::Spans(spans)))
}

/// Polarity towards one aspect; three in four reviews say the opposite of another one.
pub(super) fn aspect_polarity(part: &Part, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let review = part.review(at)?;
    if review.polarity().is_some() && !chance(rng, 25) {
        return None;
    }
    let opinion = review.opinions.get(rng.below(review.opinions.len()))?;
    let positive = opinion.polarity == Polarity::Positive;
    let fills = vec![("aspect", review.text[opinion.aspect.0..opinion.aspect.1].to_owned())];
    let product = part.product(review.product);
    let draft = Draft::on(product, &review.id, review.text.clone(), Answer::Either(positive));
    Some(Draft { fills, class: usize::from(positive), ..draft })
}

/// Whether a listing that names all that matters is what was searched for.
pub(super) fn query_match(part: &Part, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let query = part.query(at)?;
    let product = part.product(query.product);
    let tells = |listing: &Listing, slot: &str| match slot {
        "item" => true,
        "use" => listing.title.contains(product.purpose),
        _ => product.attribute(slot).is_some_and(|a| listing.spans.iter().any(|s| s.name == a.name)),
    };
    let open: Vec<&Listing> =
        product.listings.iter().filter(|l| query.wants.iter().all(|(slot, _)| tells(l, slot))).collect();
    let listing = open.get(rng.below(open.len()))?;
    let input = format!("{}\n{}", part.field("query", &query.text), part.field("item", &listing.title));
    let draft = Draft::on(product, &query.id, input, Answer::Either(query.relevant));
    let raw_ids = vec![query.id.clone(), listing.id.clone()];
    Some(Draft { class: usize::from(query.relevant), raw_ids, ..draft })
}

/// What a customer wants, out of three to five intents.
pub(super) fn intent(part: &Part, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let dialogue = part.shop.dialogues.get(*part.dialogues.get(at)?)?;
    let all: Vec<&str> = part.world.intents.iter().map(|(name, _)| *name).collect();
    let class = all.iter().position(|name| *name == dialogue.intent)?;
    let candidates = choices(dialogue.intent, &all, 3, 5, rng);
    let answer = Answer::Label(dialogue.intent.to_owned());
    let product = part.product(dialogue.product);
    Some(Draft { candidates, class, ..Draft::on(product, &dialogue.id, dialogue.text.clone(), answer) })
}

/// The one product of three that belongs to a category.
pub(super) fn category_choice(part: &Part, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = part.product(*part.products.get(at / 2)?);
    let mut chosen = vec![product];
    while chosen.len() < 3 {
        let other = part.product(pick(rng, &part.products));
        if chosen.iter().all(|p| p.category != other.category) {
            chosen.push(other);
        }
    }
    let input = part.field("category", product.category);
    choice(part, &chosen, "short title", input, rng)
}

/// The one product of three that answers to a search; the others are of the same kind.
pub(super) fn query_choice(part: &Part, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let query = part.query(at)?;
    if !query.relevant || query.wants.iter().any(|(slot, _)| *slot == "use") {
        return None;
    }
    let product = part.product(query.product);
    // Most searches for "navy" instead of "blue" are passed over: comparing letters would answer them.
    let quotes = |(slot, word): &(&str, &str)| product.attribute(slot).is_some_and(|a| a.value == *word);
    if query.wants.iter().any(quotes) && !chance(rng, 20) {
        return None;
    }
    let others = part.products.iter().map(|&p| part.product(p));
    let mut near: Vec<&Product> = others.filter(|p| p.item == product.item && !query.satisfied_by(p)).collect();
    rng.shuffle(&mut near);
    let chosen = [product, near.first()?, near.get(1)?];
    let draft = choice(part, &chosen, "full title", part.field("query", &query.text), rng)?;
    let raw_ids = [vec![query.id.clone()], draft.raw_ids].concat();
    Some(Draft { raw_ids, ..draft })
}

/// The question for the first of the products, all shown by name in random order.
fn choice(part: &Part, products: &[&Product], key: &str, input: String, rng: &mut SplitMix) -> Option<Draft> {
    let slots = ["brand", "item", "a0", "a1", "a2"];
    let mut names: Vec<String> = products.iter().filter_map(|p| part.name(key, p, &slots)).collect();
    if names.len() < products.len() {
        return None;
    }
    let gold = names.first().cloned().unwrap_or_default();
    rng.shuffle(&mut names);
    let product = products[0];
    let draft = Draft::on(product, &product.id, input, Answer::Spans(vec![gold]));
    Some(Draft { candidates: names, raw_ids: products.iter().map(|p| p.id.clone()).collect(), ..draft })
}
