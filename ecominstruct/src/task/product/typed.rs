//! Tasks on all mentions of some types: F01, A01, A02, A04, A05, A06, A09, A10 and F11.

use super::super::block::Block;
use super::super::{Answer, Draft, chance, either, pick};
use super::copy::{adds, hides_brand};
use super::facts::{Mention, absent, inventory, is_brand, is_complete, kinds, mentions, with_absent, words_of};
use super::words::{coverage, distinct, fold, is_plain, place, reads_as_title, sized, tokens};
use crate::instruction::{Entity, is_han};
use crate::record::{Product, Span};
use crate::splitmix::SplitMix;

/// Product and mentions of a typed annotation (not of attributes), where nothing seems to have been passed over.
fn annotated(block: &Block, at: usize) -> Option<(&Product, Vec<Mention<'_>>)> {
    let product = block.products.get(at).filter(|p| !p.spans.is_empty() && !block.has_unmarked(p))?;
    Some((product, mentions(product)?))
}

/// Product and mentions of any kind, where nothing seems to have been passed over.
fn mentioned(block: &Block, at: usize) -> Option<(&Product, Vec<Mention<'_>>)> {
    let product = block.products.get(at).filter(|p| !block.has_unmarked(p))?;
    Some((product, mentions(product)?))
}

/// The words of each candidate type, in the order of the candidates.
pub(super) fn by_type(candidates: &[String], mentions: &[Mention<'_>]) -> Vec<Entity> {
    let words = |kind: &String| words_of(mentions, |m| m.kind == kind);
    let of =
        |kind: &String| words(kind).into_iter().map(|text| Entity { kind: kind.clone(), text }).collect::<Vec<_>>();
    candidates.iter().flat_map(of).collect()
}

/// F01. Title and types → the words of each type.
pub(super) fn entities(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, found) = annotated(block, at)?;
    let types = block.kinds().choices(&kinds(&found), 0..=8, rng)?;
    let answer = Answer::Entities(by_type(&types, &found));
    sized(block, Draft::new("title", &product.title, answer).candidates(types))
}

/// A01. Title and types → the words of all of them; one time in five no type occurs.
pub(super) fn untyped(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, found) = mentioned(block, at)?;
    let mut present = kinds(&found);
    rng.shuffle(&mut present);
    let complete = is_complete(product);
    let (gold, extra) = if complete && chance(rng, 20) {
        (0, 2..=4)
    } else {
        (1 + rng.below(present.len().min(4)), if complete { 1..=3 } else { 0..=0 })
    };
    present.truncate(gold);
    let types = with_absent(block, product, &present, extra, rng)?;
    let words = words_of(&found, |m| types.iter().any(|t| t == m.kind));
    sized(block, Draft::new("title", &product.title, Answer::Spans(words)).candidates(types))
}

/// A02. Title and one type → its words; four times in ten it does not occur.
pub(super) fn one_type(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, found) = mentioned(block, at)?;
    let kind = present_or_absent(block, product, &found, 40, rng)?;
    let words = words_of(&found, |m| m.kind == kind);
    sized(block, Draft::new("title", &product.title, Answer::Spans(words)).fill("type", kind))
}

/// A type that occurs, or `percent` times in a hundred, where that can be told, one that does not.
fn present_or_absent<'a>(
    block: &'a Block,
    product: &'a Product,
    found: &[Mention<'a>],
    percent: usize,
    rng: &mut SplitMix,
) -> Option<&'a str> {
    let present = kinds(found);
    let with = *pick(rng, &present)?;
    if is_complete(product) && chance(rng, percent) { absent(block, product, with, &present, rng) } else { Some(with) }
}

/// A04. Title and type → whether it occurs.
pub(super) fn occurs(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, found) = mentioned(block, at)?;
    if !is_complete(product) {
        return None;
    }
    let kind = present_or_absent(block, product, &found, 50, rng)?;
    let answer = either(found.iter().any(|m| m.kind == kind));
    sized(block, Draft::new("title", &product.title, answer).fill("type", kind))
}

/// A05. Title and type → how often it occurs, 0 to 5. A text that is mentioned twice leaves open what to count.
pub(super) fn count(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, found) = annotated(block, at)?;
    let present = kinds(&found);
    let times = |kind: &str| found.iter().filter(|m| m.kind == kind).count();
    let mut counts = distinct(present.iter().map(|kind| times(kind)));
    counts.sort_unstable();
    // Rare numbers get their share: first a number, then a type that occurs so often.
    let kind = if chance(rng, 17) {
        absent(block, product, pick(rng, &present)?, &present, rng)?
    } else {
        let n = *pick(rng, &counts)?;
        let fitting: Vec<&str> = present.iter().copied().filter(|kind| times(kind) == n).collect();
        *pick(rng, &fitting)?
    };
    let number = times(kind);
    if number > 5 || words_of(&found, |m| m.kind == kind).len() != number {
        return None;
    }
    let draft = Draft::new("title", &product.title, Answer::Text(number.to_string())).fill("type", kind);
    sized(block, Draft { class: Some(number.to_string()), ..draft })
}

/// A06. Title and types → those that occur.
pub(super) fn types_present(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, found) = mentioned(block, at)?;
    if !is_complete(product) {
        return None;
    }
    let gold = kinds(&found);
    let types = with_absent(block, product, &gold, 3..=9, rng)?;
    if types.len() == gold.len() {
        return None;
    }
    let present = types.iter().filter(|t| gold.contains(&t.as_str())).cloned().collect();
    sized(block, Draft::new("title", &product.title, Answer::Labels(present)).candidates(types))
}

/// A09. Title and a typed list with one mention missing → that mention; three times in ten none is missing. The type of
/// the missing one has others on the list, so that what the list should hold can be seen.
pub(super) fn overlooked(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, found) = annotated(block, at)?;
    let listed = kinds(&found);
    let full: Vec<Entity> = listed
        .iter()
        .flat_map(|&kind| words_of(&found, |m| m.kind == kind).into_iter().map(move |w| (kind, w)))
        .map(|(kind, text)| Entity { kind: kind.to_owned(), text })
        .collect();
    let repeated = full.iter().enumerate().any(|(i, e)| full.iter().take(i).any(|other| other.text == e.text));
    let open: Vec<&Entity> =
        full.iter().filter(|e| full.iter().filter(|other| other.kind == e.kind).count() >= 2).collect();
    if full.len() < 3 || repeated || passed_over(block, product, &found) {
        return None;
    }
    let missing: Option<&Entity> = if chance(rng, 30) { None } else { Some(pick(rng, &open)?) };
    let line = |kind: &&str| {
        let words: Vec<&str> =
            full.iter().filter(|e| e.kind == **kind && Some(*e) != missing).map(|e| e.text.as_str()).collect();
        format!("{kind}: {}", words.join(", "))
    };
    let list: Vec<String> = listed.iter().map(line).collect();
    let answer = Answer::Spans(missing.iter().map(|e| e.text.clone()).collect());
    sized(block, Draft::new("title", &product.title, answer).part("list", list.join("; ")))
}

/// Whether the title seems to have mentions of the listed types that were not annotated: codes, or words that are
/// mentions elsewhere.
fn passed_over(block: &Block, product: &Product, found: &[Mention<'_>]) -> bool {
    let mut rest = product.title.clone();
    for m in found {
        rest.replace_range(m.span.start..m.span.end, &" ".repeat(m.text.len()));
    }
    let mixed = |word: &str| {
        word.len() >= 3 && word.contains(|c: char| c.is_ascii_digit()) && word.contains(|c: char| c.is_alphabetic())
    };
    let several = |start: usize, end: usize| {
        rest.get(start..end).is_some_and(|part| part.chars().filter(|&c| is_han(c)).nth(1).is_some())
    };
    let known = |kind: &str| block.words_of_kind(kind).any_in(&rest, several);
    tokens(&rest).iter().any(mixed) || kinds(found).into_iter().any(known)
}

/// A10. Typed words → title. The words must make up most of it, or nobody could guess the rest.
pub(super) fn from_entities(block: &Block, at: usize, _: &mut SplitMix) -> Option<Draft> {
    let (product, found) = mentioned(block, at)?;
    let texts = words_of(&found, |_| true);
    let overlap = found.windows(2).any(|pair| matches!(pair, [a, b] if b.span.start < a.span.end));
    if overlap || texts.len() < 2 || !reads_as_title(&product.title) || coverage(&product.title, &texts.join(" ")) < 75
    {
        return None;
    }
    let list: Vec<String> = kinds(&found)
        .iter()
        .map(|kind| format!("{kind}: {}", words_of(&found, |m| m.kind == *kind).join(", ")))
        .collect();
    let list = list.join("; ");
    if hides_brand(product, &list) || adds(&product.title, &list) || ends_oddly(product, &found) {
        return None;
    }
    sized(block, Draft::new("list", list, Answer::Text(product.title.clone())))
}

/// Whether a title has numbers outside its mentions, or ends with a sign.
pub(super) fn ends_oddly(product: &Product, found: &[Mention<'_>]) -> bool {
    let outside = |at: usize| found.iter().all(|m| at < m.span.start || m.span.end <= at);
    let closing = |c: char| c.is_alphanumeric() || matches!(c, ')' | '）' | '】' | '"' | '%');
    product.title.char_indices().any(|(at, c)| c.is_ascii_digit() && outside(at)) || !product.title.ends_with(closing)
}

/// F11. Title → brand, as far as it is known that the title names it or does not.
pub(super) fn brand(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| !p.title.is_empty())?;
    let found = mentions(product).unwrap_or_default();
    let mut words = words_of(&found, |m| is_brand(m.kind));
    if let Some(brand) = product.brand.as_deref().filter(|_| words.is_empty() && product.spans.is_empty()) {
        match place(&product.title, brand).and_then(|span| span.of(&product.title)) {
            Some(named) if is_plain(named) => words.push(named.to_owned()),
            None if coverage(brand, &product.title) == 0 => {}
            _ => return None,
        }
    } else if words.is_empty() {
        let brand_kind = inventory(block, product).names().iter().find(|name| is_brand(name))?;
        let sure = is_complete(product) && !found.is_empty() && !product.attributes.iter().any(|a| is_brand(&a.name));
        // Words for a brand or model that the product fits are words for a brand all the same.
        if found.iter().any(|m| m.kind.contains("品牌") || m.kind == "适配型号") {
            return None;
        }
        // The annotation alone is not enough where attributes are concerned: a known brand of the block must not be
        // there.
        if !sure || (product.spans.is_empty() && names_one_of(block, product, brand_kind)) {
            return None;
        }
    }
    if words.iter().any(|brand| is_no_brand(block, product, brand)) || (words.is_empty() && block.has_unmarked(product))
    {
        return None;
    }
    // Titles without a brand would else be a third of all in some sources.
    if words.is_empty() && !chance(rng, 15) {
        return None;
    }
    sized(block, Draft::new("title", &product.title, Answer::Spans(words)))
}

/// Whether the words are a value of another attribute, or begin with another brand and go on with a line of its products.
fn is_no_brand(block: &Block, product: &Product, words: &str) -> bool {
    let words = fold(words);
    let names = inventory(block, product).names();
    let other = names.iter().any(|name| !is_brand(name) && block.values_of_name(name).contains(&words));
    let brands = || names.iter().filter(|name| is_brand(name)).map(|name| block.values_of_name(name));
    product.spans.is_empty()
        && (other || words.match_indices(' ').any(|(at, _)| brands().any(|all| all.contains(&words[..at]))))
}

fn names_one_of(block: &Block, product: &Product, name: &str) -> bool {
    let title = fold(&product.title);
    block.values_of_name(name).any_in(&title, |start, end| Span { start, end }.is_whole(&title))
}
