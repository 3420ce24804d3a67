//! Tasks on offers of the same product: F05, A30, A31.

use super::super::block::Block;
use super::super::{Answer, Draft, chance, either, pick, select};
use super::facts::{pairs, sheet};
use super::words::{Words, distinct, same, sized, tokens};
use crate::instruction::Entity;
use crate::record::Product;
use crate::splitmix::SplitMix;

/// Title, with up to five attributes where the source judges listings by them.
fn offer(product: &Product) -> String {
    let facts = pairs(product);
    if product.cluster.is_some() || facts.is_empty() || facts.len() > 5 {
        return product.title.clone();
    }
    format!("{} ({})", product.title, sheet(&facts))
}

/// Judged listings, with whether they are the same product.
fn judged<'a>(block: &'a Block, product: &'a Product) -> impl Iterator<Item = (bool, &'a Product)> {
    let others =
        product.judged.iter().filter_map(|pair| Some((pair.same, block.products.get(block.product(&pair.other)?)?)));
    others.filter(|(_, other)| !other.title.is_empty() && !same(&offer(other), &offer(product)))
}

fn judged_different<'a>(block: &'a Block, product: &'a Product) -> Vec<&'a Product> {
    judged(block, product).filter(|(same, _)| !same).map(|(_, other)| other).collect()
}

/// Listings of the same product, by judgement or cluster, with another text.
fn duplicates<'a>(block: &'a Block, product: &'a Product) -> Vec<&'a Product> {
    let cluster = product.cluster.as_deref().map_or(&[][..], |c| block.products_of_cluster(c));
    let others = cluster.iter().filter_map(|&i| block.products.get(i));
    let others = others.filter(|other| !other.title.is_empty() && !same(&other.title, &product.title));
    judged(block, product).filter(|(same, _)| *same).map(|(_, other)| other).chain(others).collect()
}

/// Up to `k` listings of other clusters with titles like this one's, where the titles tell that the products are different
/// ones.
fn doubles(block: &Block, at: usize, k: usize) -> Vec<&Product> {
    let Some((product, cluster)) = block.products.get(at).and_then(|p| Some((p, p.cluster.as_ref()?))) else {
        return Vec::new();
    };
    let find = || {
        let title = tokens(&product.title);
        let other = |i: usize| {
            block.products.get(i).is_some_and(|p| {
                p.leaf() == product.leaf()
                    && p.cluster.as_ref().is_some_and(|c| c != cluster)
                    && differ(product, &title, p)
            })
        };
        block.near_products().near(&product.title, DOUBLES, other)
    };
    block.doubles(at, find).iter().take(k).filter_map(|&i| block.products.get(i)).collect()
}

/// Listings that are looked for; every task takes the nearest of them.
const DOUBLES: usize = 12;

/// Words of one text that the other does not have, not even inside others.
fn lacks<'a>(words: &'a Words, other: &Words) -> Vec<&'a str> {
    let there = |word: &str| other.contains(word) || (word.len() >= 3 && other.concat().contains(word));
    words.iter().filter(|word| !there(word)).collect()
}

/// Whether each title has words that the other lacks, and one that is special to its product's name is among them.
fn tell_apart(a: &Product, b: &Product) -> bool {
    differ(a, &tokens(&a.title), b)
}

/// [`tell_apart`], where the words of the first title are at hand.
fn differ(a: &Product, a_title: &Words, b: &Product) -> bool {
    let b_title = tokens(&b.title);
    let (of_a, of_b) = (lacks(a_title, &b_title), lacks(&b_title, a_title));
    if of_a.is_empty() || of_b.is_empty() {
        return false;
    }
    match (&a.short_title, &b.short_title) {
        (Some(x), Some(y)) => {
            let (x, y) = (tokens(x), tokens(y));
            lacks(&x, &y).iter().any(|word| of_a.contains(word)) && lacks(&y, &x).iter().any(|word| of_b.contains(word))
        }
        _ => true,
    }
}

/// A different product: as judged, or where there are clusters, in six of ten cases one with a title like it.
fn different<'a>(block: &'a Block, at: usize, rng: &mut SplitMix) -> Option<&'a Product> {
    let product = block.products.get(at)?;
    let known = judged_different(block, product);
    if product.cluster.is_some() && (known.is_empty() || chance(rng, 60)) {
        return pick(rng, &doubles(block, at, 6)).copied();
    }
    pick(rng, &known).copied()
}

/// F05. Two offers → the same product or not.
pub(super) fn is_same(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| !p.title.is_empty())?;
    let yes = chance(rng, 50);
    let other = if yes { *pick(rng, &duplicates(block, product))? } else { different(block, at, rng)? };
    let (mut a, mut b) = (offer(product), offer(other));
    if chance(rng, 50) {
        std::mem::swap(&mut a, &mut b);
    }
    sized(block, Draft::new("item_a", a, either(yes)).part("item_b", b).others([other.meta.raw_id.clone()]))
}

/// A30. Reference and four offers → the offer of the same product; the others are of products like it.
pub(super) fn duplicate(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| !p.title.is_empty())?;
    let right = *pick(rng, &duplicates(block, product))?;
    if clash_in_color(&product.title, &right.title) {
        return None;
    }
    let mut open =
        if product.cluster.is_some() { doubles(block, at, DOUBLES) } else { judged_different(block, product) };
    open.retain(|other| right.cluster.is_none() || tell_apart(right, other));
    rng.shuffle(&mut open);
    let mut others: Vec<&Product> = Vec::new();
    for other in open {
        let texts = others.iter().map(|p| offer(p)).chain([offer(right), offer(product)]);
        if others.len() < 3 && !texts.into_iter().any(|text| same(&text, &offer(other))) {
            others.push(other);
        }
    }
    if others.len() < 3 {
        return None;
    }
    let offers = select(&offer(right), others.iter().map(|p| offer(p)), rng)?;
    let used = others.iter().chain([&right]).map(|p| p.meta.raw_id.clone()).collect::<Vec<_>>();
    let draft = Draft::new("reference", offer(product), Answer::Spans(vec![offer(right)]));
    sized(block, draft.candidates(offers).others(used))
}

/// A31. Two offers of different products → sizes, amounts and codes that only one of them has, as lines `A: x, y` and `B: z`.
pub(super) fn details(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| !p.title.is_empty())?;
    let other = different(block, at, rng)?;
    let (a, b) = (&product.title, &other.title);
    let (a_words, b_words) = (tokens(a), tokens(b));
    let shared = a_words.iter().filter(|word| word.chars().count() >= 3 && b_words.contains(word)).count();
    let (of_a, of_b) = (special(a, b), special(b, a));
    if [a, b].into_iter().any(|title| is_torn(title))
        || shared < 2
        || of_a.is_empty()
        || of_b.is_empty()
        || of_a.len() + of_b.len() > 8
    {
        return None;
    }
    let typed = |kind: &str, words: Vec<String>| {
        let kind = kind.to_owned();
        words.into_iter().map(move |text| Entity { kind: kind.clone(), text }).collect::<Vec<_>>()
    };
    let answer = Answer::Entities([typed("A", of_a), typed("B", of_b)].concat());
    sized(block, Draft::new("item_a", a, answer).part("item_b", b).others([other.meta.raw_id.clone()]))
}

/// Words with digits, with the unit that follows a number, that the other text does not have, however it spaces them.
pub(super) fn special(text: &str, other: &str) -> Vec<String> {
    const UNITS: [&str; 34] = [
        "gb", "tb", "mb", "mm", "cm", "m", "in", "inch", "inches", "kg", "g", "mg", "lb", "lbs", "oz", "l", "ml", "cl",
        "w", "watt", "kw", "v", "mah", "mp", "hz", "ghz", "mhz", "rpm", "pack", "pcs", "ft", "litre", "btu", "qt",
    ];
    let words: Vec<&str> = text.split_whitespace().map(trimmed).collect();
    let other = tokens(other);
    let other: Vec<&str> = other.iter().collect();
    let mut found = Vec::new();
    for (i, word) in words.iter().enumerate() {
        if !word.contains(|c: char| c.is_ascii_digit()) || word.contains([',', ';', '/', '，', '、']) {
            continue;
        }
        let bare = word.chars().all(|c| c.is_ascii_digit() || c == '.');
        let unit = words.get(i + 1).filter(|next| bare && UNITS.contains(&next.to_lowercase().as_str()));
        let phrase = unit.map_or_else(|| (*word).to_owned(), |unit| format!("{word} {unit}"));
        let phrase = if text.contains(&phrase) { phrase } else { (*word).to_owned() };
        if !holds(&other, tokens(word).concat()) {
            found.push(phrase);
        }
    }
    distinct(found)
}

/// Whether numbers of a title are written so that they cannot be told apart from other words: `v10 .0`, `5 in 1`, `3rd`.
pub(super) fn is_torn(title: &str) -> bool {
    let title = title.to_lowercase();
    let words: Vec<&str> = title.split_whitespace().collect();
    let number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    let ordinal = |word: &&str| {
        let end = word.trim_end_matches(|c: char| !c.is_alphanumeric());
        number(end) && ["st", "nd", "rd", "th"].iter().any(|tail| end.ends_with(tail))
    };
    words.iter().any(|word| word.strip_prefix('.').is_some_and(number) || ordinal(word))
        || words.windows(2).any(|pair| matches!(pair, ["in", next] if number(next)))
}

/// Colours of listings.
const COLORS: [&str; 16] = [
    "black", "blue", "bronze", "brown", "cream", "gold", "green", "grey", "orange", "pink", "purple", "red", "silver",
    "steel", "white", "yellow",
];

/// Whether both titles name colours, and none in common.
pub(super) fn clash_in_color(a: &str, b: &str) -> bool {
    let named = |title: &str| -> Vec<&str> {
        let words = tokens(&title.to_lowercase().replace("gray", "grey"));
        COLORS.into_iter().filter(|color| words.contains(color)).collect()
    };
    let (a, b) = (named(a), named(b));
    !a.is_empty() && !b.is_empty() && !a.iter().any(|color| b.contains(color))
}

fn trimmed(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_alphanumeric())
}

/// Whether up to three words in a row make up `code`, or begin with it where it is a bare number and a unit follows.
fn holds(words: &[&str], code: &str) -> bool {
    let bare = code.chars().all(|c| c.is_ascii_digit());
    (1..=3).flat_map(|n| words.windows(n)).map(<[&str]>::concat).any(|run| {
        let number = run.trim_end_matches(char::is_alphabetic);
        run == code || (bare && number == code)
    })
}
