//! Tasks on attributes and the text that states them: F02, A12, A13, A16, A22.

use super::super::block::Block;
use super::super::{Answer, Draft, chance, either, pick};
use super::copy::hides_brand;
use super::facts::{
    Mention, entry, has_value, is_complete, is_similar, is_stated, kinds, mentions, other_value, pairs, with_absent,
    with_absent_of_text,
};
use super::typed::by_type;
use super::words::{alike, distinct, fold, is_plain, is_telling, place, same, sized};
use crate::instruction::Entity;
use crate::record::Product;
use crate::splitmix::SplitMix;

/// F02. Title (with description) and attributes → value of each. Names without a value only where the annotation is
/// complete.
pub(super) fn values(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| p.spans.is_empty())?;
    let found = mentions(product).unwrap_or_default();
    if product.description.is_some() && (found.is_empty() || chance(rng, 50)) {
        return described(block, product, rng);
    }
    let gold = kinds(&found);
    let extra = if is_complete(product) { 1..=10 } else { 0..=0 };
    let names = with_absent(block, product, &gold, extra, rng)?;
    let answer = Answer::Entities(by_type(&names, &found));
    sized(block, Draft::new("title", &product.title, answer).candidates(names))
}

/// F02 with the description: names all of whose values stand in title or description, word for word, and differ from
/// those of other names; with names that neither has a value for, where the annotation is complete.
fn described(block: &Block, product: &Product, rng: &mut SplitMix) -> Option<Draft> {
    let description = product.description.as_deref()?;
    let all = pairs(product);
    let stated = |value: &str| -> Option<String> {
        let within = |text: &str| place(text, value).and_then(|span| span.of(text).map(str::to_owned));
        within(&product.title).or_else(|| within(description)).filter(|text| is_telling(text) && is_plain(text))
    };
    let clear = |name: &str| {
        all.iter().filter(|p| p.0 == name).all(|&(_, value)| {
            stated(value).is_some() && !all.iter().any(|&(other, v)| other != name && alike(v, value))
        })
    };
    let names: Vec<&str> = distinct(all.iter().map(|p| p.0)).into_iter().filter(|name| clear(name)).collect();
    if names.len() < 2 {
        return None;
    }
    let extra = if is_complete(product) { 1..=5 } else { 0..=0 };
    let names = with_absent_of_text(block, product, &names, extra, rng)?;
    let text = format!("{}\n{description}", product.title);
    let of = |name: &String| {
        let values = all.iter().filter(|p| p.0 == *name).filter_map(|&(_, value)| stated(value));
        let mut values = distinct(values);
        values.sort_by_key(|value| text.find(value.as_str()));
        values.into_iter().map(|text| Entity { kind: name.clone(), text }).collect::<Vec<_>>()
    };
    let entities = names.iter().flat_map(of).collect();
    let draft = Draft { answer: Answer::Entities(entities), ..Draft::default() };
    let draft = if product.title.is_empty() { draft } else { draft.part("title", &product.title) };
    sized(block, draft.part("description", description).candidates(names))
}

/// A12. Title and attribute names → those that it gives a value for.
pub(super) fn names_stated(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| p.spans.is_empty() && is_complete(p))?;
    let found = mentions(product)?;
    let gold = kinds(&found);
    let names = with_absent(block, product, &gold, 3..=9, rng)?;
    if names.len() == gold.len() {
        return None;
    }
    let stated = names.iter().filter(|n| gold.contains(&n.as_str())).cloned().collect();
    sized(block, Draft::new("title", &product.title, Answer::Labels(stated)).candidates(names))
}

/// A13. Value (and category) → attribute name, among names that nowhere have such a value.
pub(super) fn name_of(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at)?;
    let all: Vec<_> = pairs(product).into_iter().filter(|(_, value)| is_telling(value) && is_plain(value)).collect();
    let &(name, value) = pick(rng, &all)?;
    let shown = product.category.iter().any(|c| same(c, value));
    if shown || product.attributes.iter().any(|a| a.name != name && alike(&a.value, value)) {
        return None;
    }
    let (mut names, mut passed) = (vec![name.to_owned()], vec![name]);
    let wanted = 1 + 4 + rng.below(6);
    for _ in 0..2 * wanted {
        let Some(other) = block.attribute_names(product.leaf()).distractor(name, &passed, rng) else { break };
        passed.push(other);
        if names.len() < wanted && is_plain(other) && !is_similar(other, name) && !has_value(block, other, value) {
            names.push(other.to_owned());
        }
    }
    if names.len() < 2 {
        return None;
    }
    rng.shuffle(&mut names);
    let answer = Answer::Labels(vec![name.to_owned()]);
    let input = product.leaf().map(|leaf| ("category", leaf.to_owned())).into_iter().collect();
    sized(block, Draft { input, answer, ..Draft::default() }.fill("value", value).candidates(names))
}

/// A16. Title, name and value → whether it states that; else the value is that of another product.
pub(super) fn is_said(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| p.spans.is_empty())?;
    let found = mentions(product)?;
    let open: Vec<&Mention<'_>> = found.iter().filter(|m| is_telling(m.text)).collect();
    let m = pick(rng, &open)?;
    let yes = chance(rng, 50);
    let (value, other) = if yes {
        (m.text, None)
    } else {
        let (other, value) = other_value(block, at, m.kind, rng)?;
        (value, block.products.get(other).map(|p| p.meta.raw_id.clone()))
    };
    let draft = Draft::new("title", &product.title, either(yes)).fill("attr", m.kind).fill("value", value);
    sized(block, draft.others(other))
}

/// A22. Title → the facts that it states, as pairs: two to ten, at least three where the annotation may not tell all.
pub(super) fn facts_of_title(block: &Block, at: usize, _: &mut SplitMix) -> Option<Draft> {
    // Types of entity annotations are the annotators' own: nobody would find them by reading.
    let product = block.products.get(at).filter(|p| p.spans.is_empty())?;
    let found = mentions(product)?;
    let lines = distinct(found.iter().map(|m| entry((m.kind, m.text))));
    let least = if is_complete(product) { 2 } else { 3 };
    let nameless = hides_brand(product, &lines.join(" "));
    let twice = found.windows(2).any(|pair| matches!(pair, [a, b] if a.span == b.span));
    if nameless || twice || !(least..=10).contains(&lines.len()) {
        return None;
    }
    // What is asked for is named: a title may state more than was annotated.
    let names = kinds(&found).join(", ");
    sized(block, Draft::new("title", &product.title, Answer::Text(lines.join("\n"))).fill("names", names))
}

/// The pairs whose value the title states, as far as it is no value of another name as well.
pub(super) fn stated_pairs(product: &Product) -> Vec<(&str, &str)> {
    let all = pairs(product);
    let clear = |&(name, value): &(&str, &str)| {
        let name = fold(name);
        is_stated(&product.title, value)
            && !is_yes_or_no(value)
            && !all.iter().any(|&(other, v)| fold(other) != name && same(v, value))
    };
    all.iter().filter(|pair| clear(pair)).copied().collect()
}

fn is_yes_or_no(value: &str) -> bool {
    ["yes", "no", "true", "false", "是", "否"].contains(&&*fold(value))
}
