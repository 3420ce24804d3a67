//! Tasks on attribute sheets alone or beside the title: A14, A15, A17, A21, A23, A24.

use super::super::block::Block;
use super::super::{Answer, Draft, chance, pick};
use super::facts::{Pair, entry, is_similar, is_stated, pair_lines, pairs, sheet, some_pairs, values};
use super::words::{alike, distinct, is_plain, is_telling, same, sized, touches};
use crate::record::Product;
use crate::splitmix::SplitMix;

/// A14. Sheet and name → its values; three times in ten the sheet does not have it.
pub(super) fn look_up(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at)?;
    let shown = some_pairs(product, rng)?;
    let names = distinct(shown.iter().map(|p| p.0));
    let name = if chance(rng, 30) { other_name(block, product, &names, rng)? } else { pick(rng, &names)? };
    let found: Vec<String> = values(&shown, name).into_iter().map(str::to_owned).collect();
    if !is_plain(name) || !found.iter().all(|value| is_plain(value)) {
        return None;
    }
    sized(block, Draft::new("attributes", sheet(&shown), Answer::Spans(found)).fill("attr", name))
}

/// A name that is not like any of the product's.
fn other_name<'a>(block: &'a Block, product: &Product, not: &[&str], rng: &mut SplitMix) -> Option<&'a str> {
    // Of a handful of names always the same one would be missing.
    if block.attribute_names(product.leaf()).len() < 8 {
        return None;
    }
    let mut passed = not.to_vec();
    for _ in 0..8 {
        let with = pick(rng, not)?;
        let name = block.attribute_names(product.leaf()).distractor(with, &passed, rng)?;
        if is_plain(name) && !product.attributes.iter().any(|a| is_similar(&a.name, name)) {
            return Some(name);
        }
        passed.push(name);
    }
    None
}

/// A15. Sheet in one of six notations → a line for each pair.
pub(super) fn tidy(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    const NOTATIONS: [[&str; 4]; 6] = [
        ["", ": ", "", "; "],
        ["", "=", "", " | "],
        ["", "#", "", "*"],
        ["", " -> ", "", ", "],
        ["\"", "\":\"", "\"", ","],
        ["[", "] ", "", " "],
    ];
    let product = block.products.get(at)?;
    let shown = some_pairs(product, rng)?;
    let &[before, between, after, apart] = pick(rng, &NOTATIONS)?;
    let signs = [before, between, after, apart].map(str::trim);
    let clash = |text: &str| signs.iter().any(|sign| !sign.is_empty() && text.contains(*sign));
    if shown.iter().any(|&(name, value)| clash(name) || clash(value)) {
        return None;
    }
    let written: Vec<String> =
        shown.iter().map(|(name, value)| format!("{before}{name}{between}{value}{after}")).collect();
    sized(block, Draft::new("attributes", written.join(apart), Answer::Text(pair_lines(&shown))))
}

/// A17. Title and sheet → the pairs whose value the title states. Pairs that it states in part are not shown.
pub(super) fn used_in_title(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| !p.title.is_empty())?;
    let clear = |value: &str| is_stated(&product.title, value) || !touches(&product.title, value);
    let mut shown = some_pairs(product, rng)?;
    shown.retain(|&(_, value)| clear(value) && is_plain(value) && is_telling(value));
    let used: Vec<String> =
        shown.iter().filter(|(_, value)| is_stated(&product.title, value)).map(|&pair| entry(pair)).collect();
    if shown.len() < 3 || used.len() == shown.len() || (used.is_empty() && !chance(rng, 25)) {
        return None;
    }
    sized(block, Draft::new("title", &product.title, Answer::Spans(used)).part("attributes", sheet(&shown)))
}

/// A21. Sheet and names → those that it lacks.
pub(super) fn lacking(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at)?;
    let shown = some_pairs(product, rng)?;
    let mut names = distinct(shown.iter().map(|p| p.0));
    rng.shuffle(&mut names);
    names.truncate(1 + rng.below(4));
    let (given, absent) = (names.len(), 1 + rng.below(3));
    for _ in 0..absent {
        if let Some(other) = other_name(block, product, &names, rng) {
            names.push(other);
        }
    }
    let lacking: Vec<&str> = names.iter().skip(given).copied().collect();
    if lacking.is_empty() || !names.iter().all(|name| is_plain(name)) {
        return None;
    }
    rng.shuffle(&mut names);
    let answer = names.iter().filter(|name| lacking.contains(name)).map(|&name| name.to_owned()).collect();
    let candidates = names.iter().map(|&name| name.to_owned()).collect();
    sized(block, Draft::new("attributes", sheet(&shown), Answer::Labels(answer)).candidates(candidates))
}

/// Two sheets of the same leaf category with the same names, one value each, and the names whose values are the same or
/// differ. Names whose values may mean the same or name the category are not shown.
struct TwoSheets<'a> {
    a: Vec<Pair<'a>>,
    b: Vec<Pair<'a>>,
    other: &'a Product,
}

impl<'a> TwoSheets<'a> {
    fn new(block: &'a Block, at: usize, rng: &mut SplitMix) -> Option<Self> {
        let product = block.products.get(at)?;
        let mine = pairs(product);
        let fellows = block.products_of_leaf(product.leaf()?);
        for _ in 0..8 {
            let other = block.products.get(*pick(rng, fellows)?)?;
            if other.meta.raw_id == product.meta.raw_id {
                continue;
            }
            let theirs = pairs(other);
            let one = |list: &[Pair<'a>], name: &str| match values(list, name).as_slice() {
                &[value] => Some(value),
                _ => None,
            };
            let is_category = |value: &str| product.category.iter().chain(&other.category).any(|c| same(c, value));
            let both = |&(name, value): &Pair<'a>| {
                let (_, other) = (one(&mine, name)?, one(&theirs, name)?);
                if is_category(value) || is_category(other) {
                    return None;
                }
                (same(value, other) || !alike(value, other)).then_some(((name, value), (name, other)))
            };
            let (mut a, mut b): (Vec<_>, Vec<_>) = mine.iter().filter_map(both).unzip();
            while a.len() > 8 {
                let at = rng.below(a.len());
                a.remove(at);
                b.remove(at);
            }
            let equal = a.iter().zip(&b).filter(|(x, y)| same(x.1, y.1)).count();
            if a.len() >= 3 && equal >= 1 && equal < a.len() {
                return Some(Self { a, b, other });
            }
        }
        None
    }

    fn draft(self, answer: String, rng: &mut SplitMix) -> Draft {
        let mut b = self.b;
        rng.shuffle(&mut b);
        let draft = Draft::new("attributes_a", sheet(&self.a), Answer::Text(answer)).part("attributes_b", sheet(&b));
        draft.others([self.other.meta.raw_id.clone()])
    }
}

/// A23. Two sheets → the names on which they differ.
pub(super) fn differences(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let two = TwoSheets::new(block, at, rng)?;
    let names: Vec<&str> = two.a.iter().zip(&two.b).filter(|(x, y)| !same(x.1, y.1)).map(|(x, _)| x.0).collect();
    let answer = names.join(", ");
    sized(block, two.draft(answer, rng))
}

/// A24. Two sheets → the pairs that they share.
pub(super) fn common(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let two = TwoSheets::new(block, at, rng)?;
    let shared: Vec<Pair<'_>> = two.a.iter().zip(&two.b).filter(|(x, y)| same(x.1, y.1)).map(|(x, _)| *x).collect();
    let answer = pair_lines(&shared);
    sized(block, two.draft(answer, rng))
}
