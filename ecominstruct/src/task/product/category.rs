//! Tasks on categories: F03, F04, A25 to A29.

use super::super::block::Block;
use super::super::{Answer, Draft, chance, either, pick, select};
use super::facts::{sheet, some_pairs};
use super::words::{alike, same, sized, tokens, touches};
use crate::record::Product;
use crate::splitmix::SplitMix;

/// Largest set of departments that is shown as a whole.
const DEPARTMENTS: usize = 12;

/// Fewest leaf categories of a block for questions whether two products share one.
const LEAVES: usize = 8;

/// Whether a text without a title tells the product's category: it names it and, where there are few categories, none of the
/// others.
pub(super) fn evident(block: &Block, product: &Product) -> bool {
    let (Some(leaf), true, Some(text)) = (product.leaf(), product.title.is_empty(), product.description.as_deref())
    else {
        return true;
    };
    let style = product.attributes.iter().any(|a| a.name.ends_with("样式") && text.contains(&a.value));
    let few = block.departments().len() <= DEPARTMENTS;
    let other = few && block.leaves().names().iter().any(|name| name != leaf && text.contains(name.as_str()));
    (style || text.contains(leaf)) && !other
}

/// What a product is called by: its title, else its description.
fn subject(product: &Product) -> Option<(&'static str, &str)> {
    match product.description.as_deref() {
        _ if !product.title.is_empty() => Some(("title", &product.title)),
        Some(text) => Some(("description", text)),
        None => None,
    }
}

/// Title, three times in ten with attributes that do not name the category.
fn shown(product: &Product, rng: &mut SplitMix) -> Option<Draft> {
    let (field, text) = subject(product)?;
    let draft = Draft::new(field, text, Answer::default());
    if field != "title" || !chance(rng, 30) {
        return Some(draft);
    }
    let mut shown = some_pairs(product, rng).unwrap_or_default();
    shown.retain(|(_, value)| !product.category.iter().any(|c| same(c, value)));
    Some(if shown.is_empty() { draft } else { draft.part("attributes", sheet(&shown)) })
}

/// F03. Title → department: out of all where these are few, else out of eight to twelve. A single level of categories
/// counts as departments where there are few, else as leaf categories.
pub(super) fn department(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| evident(block, p))?;
    let all = block.departments();
    let gold = product.category.first().filter(|_| product.category.len() >= 2 || all.len() <= DEPARTMENTS)?;
    let extra = if all.len() <= DEPARTMENTS { DEPARTMENTS..=DEPARTMENTS } else { 7..=DEPARTMENTS - 1 };
    let labels = all.choices(&[gold], extra, rng)?;
    let draft = shown(product, rng)?;
    sized(block, Draft { answer: Answer::Labels(vec![gold.clone()]), ..draft }.candidates(labels))
}

/// F04. Title → leaf category among ten to thirty, none of them above the right one.
pub(super) fn leaf(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at)?;
    let gold =
        leaf_of(block, product).filter(|_| product.category.len() >= 2 || block.departments().len() > DEPARTMENTS)?;
    let (mut labels, mut passed) = (vec![gold.to_owned()], vec![gold]);
    let wanted = 10 + rng.below(21);
    for _ in 0..4 * wanted {
        let Some(other) = block.leaves().distractor(gold, &passed, rng).filter(|_| labels.len() < wanted) else {
            break;
        };
        passed.push(other);
        if is_other(block, product, other) {
            labels.push(other.to_owned());
        }
    }
    if labels.len() < 2 {
        return None;
    }
    rng.shuffle(&mut labels);
    let draft = shown(product, rng)?;
    sized(block, Draft { answer: Answer::Labels(vec![gold.to_owned()]), ..draft }.candidates(labels))
}

/// Fewest products of a leaf category that is asked about.
const PRODUCTS: u32 = 3;

/// Whether a product surely is not in this category: it is none of its own, nor has a name that is part of the name of
/// one.
fn is_other(block: &Block, product: &Product, category: &str) -> bool {
    block.leaves().count(category) >= PRODUCTS && !product.category.iter().any(|own| alike(own, category))
}

/// A leaf category that the product surely is not in: in `siblings` of a hundred cases a sibling, else any other.
fn other_leaf<'a>(block: &'a Block, product: &Product, siblings: usize, rng: &mut SplitMix) -> Option<&'a str> {
    let gold = product.leaf()?;
    let mut passed: Vec<&str> = product.category.iter().map(String::as_str).collect();
    for _ in 0..12 {
        let leaves = block.leaves();
        let near = chance(rng, siblings);
        let other = if near { leaves.confusable(gold, &passed, rng) } else { leaves.distractor(gold, &passed, rng) }?;
        if is_other(block, product, other) {
            return Some(other);
        }
        passed.push(other);
    }
    None
}

/// The leaf category, unless it holds fewer than three products, is not evident or looks like the shop of a brand (`Acme Watches` for
/// `Acme A5 watch`).
fn leaf_of<'a>(block: &Block, product: &'a Product) -> Option<&'a str> {
    let leaf = product.leaf()?;
    let tells = || {
        let words = tokens(leaf);
        let branded = || words.len() >= 2 && tokens(&product.title).get(0) == words.get(0);
        block.leaves().count(leaf) >= PRODUCTS && !branded() && evident(block, product)
    };
    block.telling_leaf(product, tells).then_some(leaf)
}

/// Whether two products surely are in different categories.
fn apart(block: &Block, a: &Product, b: &Product) -> bool {
    match (leaf_of(block, a), leaf_of(block, b)) {
        (Some(x), Some(y)) => is_other(block, a, y) && is_other(block, b, x),
        _ => false,
    }
}

/// A25. Title and category → whether it is in it; seven in ten wrong ones are siblings.
pub(super) fn is_in(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at)?;
    let (field, text) = subject(product)?;
    let gold = leaf_of(block, product)?;
    let yes = chance(rng, 50);
    let category = if yes {
        gold
    } else {
        match pick(rng, &named_in(block, product, text)) {
            Some(named) if chance(rng, 60) => named,
            _ => other_leaf(block, product, 70, rng)?,
        }
    };
    sized(block, Draft::new(field, text, either(yes)).fill("cat", plain(category)?))
}

/// Categories that a product is not in although words of their names stand in its text, where the block has few enough of them.
fn named_in<'a>(block: &'a Block, product: &Product, text: &str) -> Vec<&'a str> {
    let names = block.leaves().names();
    let few = if names.len() <= 200 { names } else { &[] };
    few.iter().map(String::as_str).filter(|name| touches(text, name) && is_other(block, product, name)).collect()
}

fn plain(category: &str) -> Option<&str> {
    Some(category).filter(|c| !c.contains(['{', '}', '\n']))
}

/// Another product of the leaf category with another title, drawn at random.
fn fellow<'a>(block: &'a Block, product: &Product, leaf: &str, rng: &mut SplitMix) -> Option<&'a Product> {
    let fellows = block.products_of_leaf(leaf);
    let mut drawn = (0..8).filter_map(|_| block.products.get(*pick(rng, fellows)?));
    drawn.find(|p| {
        p.meta.raw_id != product.meta.raw_id
            && leaf_of(block, p).is_some()
            && subject(p).zip(subject(product)).is_some_and(|(a, b)| a.0 == b.0 && !same(a.1, b.1))
    })
}

/// A26. Two titles → same category or not. Half of the different ones are alike in title, the others of sibling
/// categories.
pub(super) fn same_category(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|_| block.leaves().len() >= LEAVES)?;
    let (field, text) = subject(product)?;
    let leaf = leaf_of(block, product)?;
    let yes = chance(rng, 50);
    let other = if yes {
        fellow(block, product, leaf, rng)?
    } else {
        let near = block.near_products();
        let differs = |i: usize| block.products.get(i).is_some_and(|p| apart(block, p, product));
        let like = if chance(rng, 50) { near.near(text, 4, differs) } else { Vec::new() };
        match pick(rng, &like).and_then(|&i| block.products.get(i)) {
            Some(other) => other,
            None => fellow(block, product, other_leaf(block, product, 100, rng)?, rng)?,
        }
    };
    if !yes && !apart(block, product, other) {
        return None;
    }
    let (other_field, other_text) = subject(other)?;
    if other_field != field || same(text, other_text) {
        return None;
    }
    let draft = Draft::new("item_a", text, either(yes)).part("item_b", other_text);
    sized(block, draft.others([other.meta.raw_id.clone()]))
}

/// Titles of other products of this leaf category, all different.
fn fellows<'a>(
    block: &'a Block,
    product: &Product,
    leaf: &str,
    count: usize,
    rng: &mut SplitMix,
) -> Option<Vec<&'a Product>> {
    let mut found: Vec<&Product> = Vec::new();
    for _ in 0..4 * count {
        if let Some(other) = fellow(block, product, leaf, rng).filter(|p| !p.title.is_empty())
            && found.len() < count
            && !found.iter().any(|p| same(&p.title, &other.title))
        {
            found.push(other);
        }
    }
    (found.len() == count).then_some(found)
}

/// A27. Four titles, three of one leaf category → the other one, of a sibling category.
pub(super) fn odd_one(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| !p.title.is_empty() && leaf_of(block, p).is_some())?;
    if block.leaves().len() < LEAVES {
        return None;
    }
    let leaf = other_leaf(block, product, 100, rng)?;
    let others = fellows(block, product, leaf, 3, rng)?;
    if !others.iter().all(|other| apart(block, product, other)) {
        return None;
    }
    let titles = select(&product.title, others.iter().map(|p| p.title.clone()), rng)?;
    let draft = Draft { answer: Answer::Spans(vec![product.title.clone()]), ..Draft::default() };
    sized(block, draft.candidates(titles).others(others.iter().map(|p| p.meta.raw_id.clone())))
}

/// A28. Leaf category → its department, where it has the same one in the whole block.
pub(super) fn parent(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| p.category.len() >= 2)?;
    let (gold, leaf) = (product.category.first()?, leaf_of(block, product)?);
    let others = block.products_of_leaf(leaf).iter().filter_map(|&i| block.products.get(i));
    if gold == leaf || !others.into_iter().all(|p| p.category.first() == Some(gold)) {
        return None;
    }
    let all = block.departments();
    let extra = if all.len() <= DEPARTMENTS { DEPARTMENTS..=DEPARTMENTS } else { 7..=DEPARTMENTS - 1 };
    let labels = all.choices(&[gold], extra, rng)?;
    let draft = Draft { answer: Answer::Labels(vec![gold.clone()]), ..Draft::default() };
    Some(draft.fill("cat", plain(leaf)?).candidates(labels))
}

/// Whether the block has few leaf categories, all of them large.
fn few(block: &Block) -> bool {
    block.leaves().len() <= DEPARTMENTS && block.departments().len() == block.leaves().len()
}

/// A29. Category and four titles → the one that is in it; the others have words of the category's name, or are of sibling
/// categories.
pub(super) fn member(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| !p.title.is_empty())?;
    let gold = leaf_of(block, product).filter(|leaf| !few(block) || touches(&product.title, leaf))?;
    let mut others: Vec<&Product> = Vec::new();
    let named = |i: usize| {
        block
            .products
            .get(i)
            .is_some_and(|p| !p.title.is_empty() && apart(block, product, p) && touches(&p.title, gold))
    };
    let mut open = block.near_products().near(gold, 8, named);
    rng.shuffle(&mut open);
    for other in open.into_iter().filter_map(|i| block.products.get(i)).take(2 + rng.below(2)) {
        if !others.iter().any(|p| same(&p.title, &other.title)) {
            others.push(other);
        }
    }
    for _ in 0..12 {
        let leaf = other_leaf(block, product, 100, rng)?;
        if let Some(other) = fellow(block, product, leaf, rng)
            && others.len() < 3
            && apart(block, product, other)
            && !other.title.is_empty()
            && !others.iter().any(|p| same(&p.title, &other.title))
        {
            others.push(other);
        }
    }
    // Among few categories, words of two in a title leave both open.
    let open = |p: &&Product| block.leaves().names().iter().filter(|name| touches(&p.title, name)).count() > 1;
    if others.len() < 3 || (few(block) && others.iter().chain([&product]).any(open)) {
        return None;
    }
    let titles = select(&product.title, others.iter().map(|p| p.title.clone()), rng)?;
    let draft = Draft { answer: Answer::Spans(vec![product.title.clone()]), ..Draft::default() };
    let draft = draft.fill("cat", plain(gold)?).candidates(titles);
    sized(block, draft.others(others.iter().map(|p| p.meta.raw_id.clone())))
}
