//! What is known of a product, in the shapes that the tasks ask about: typed mentions in the title, name–value pairs,
//! and names that it surely has nothing for.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::super::block::Block;
use super::super::inventory::Inventory;
use super::super::pick;
use super::words::{alike, distinct, fold, form, is_none, is_plain, is_telling, place, same, tokens};
use crate::instruction::Lang;
use crate::record::{Product, Span};
use crate::splitmix::SplitMix;

/// Words of a title with their type (or attribute name).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mention<'a> {
    /// Where.
    pub(super) span: Span,
    /// Type.
    pub(super) kind: &'a str,
    /// The words.
    pub(super) text: &'a str,
}

/// Mentions in the title, in its order: the typed spans, or where there are none the attributes with a place in the
/// title, without those inside a longer one of the same type. `None` where there are none of these either, or words of one cannot be put into a list.
pub(super) fn mentions(product: &Product) -> Option<Vec<Mention<'_>>> {
    let title = product.title.as_str();
    let spans = product.spans.iter().map(|s| (s.kind.as_str(), s.span));
    let attributes = product.attributes.iter().filter_map(|a| Some((a.name.as_str(), a.span?)));
    let attributes = attributes.filter(|_| product.spans.is_empty());
    let mut found = Vec::new();
    for (kind, span) in spans.chain(attributes) {
        let text = span.of(title)?;
        let usable = is_plain(text) && is_name(kind);
        if usable && (is_complete(product) || is_telling(text)) {
            found.push(Mention { span, kind, text });
        } else if is_complete(product) {
            return None;
        }
    }
    found.sort();
    found.dedup();
    let all = found.clone();
    let within = |m: &Mention<'_>, other: &Mention<'_>| {
        m.kind == other.kind && m.span != other.span && other.span.start <= m.span.start && m.span.end <= other.span.end
    };
    found.retain(|m| !all.iter().any(|other| within(m, other)));
    (!found.is_empty()).then_some(found)
}

/// The types of mentions, in the order of the text.
pub(super) fn kinds<'a>(mentions: &[Mention<'a>]) -> Vec<&'a str> {
    distinct(mentions.iter().map(|m| m.kind))
}

/// The different words of the mentions that `wanted` lets pass, in the order of the text.
pub(super) fn words_of(mentions: &[Mention<'_>], wanted: impl Fn(&Mention<'_>) -> bool) -> Vec<String> {
    distinct(mentions.iter().filter(|m| wanted(m)).map(|m| m.text.to_owned()))
}

/// Whether a type that is not among the mentions surely does not occur in the title.
pub(super) fn is_complete(product: &Product) -> bool {
    !product.spans.is_empty() || product.attributes_complete
}

/// All types that this product's mentions could have.
pub(super) fn inventory<'a>(block: &'a Block, product: &Product) -> &'a Inventory {
    if product.spans.is_empty() { block.attribute_names(product.leaf()) } else { block.kinds() }
}

fn is_name(name: &str) -> bool {
    is_plain(name) && !name.contains([':', '：']) && name.chars().count() <= 40
}

/// A type, easily confused with `with`, that surely does not occur in the title.
pub(super) fn absent<'a>(
    block: &'a Block,
    product: &Product,
    with: &str,
    not: &[&str],
    rng: &mut SplitMix,
) -> Option<&'a str> {
    Title::new(product, &product.title, LOOKS).absent(block, with, not, rng)
}

/// Values of an attribute that a title is searched for.
const LOOKS: usize = 32;

/// A title or other text, prepared for the question whether it may hold a value of some attribute.
struct Title<'a> {
    product: &'a Product,
    looks: usize,
    folded: Cow<'a, str>,
    forms: BTreeSet<String>,
}

impl<'a> Title<'a> {
    fn new(product: &'a Product, text: &'a str, looks: usize) -> Self {
        let forms = tokens(text).iter().map(|word| form(word).collect()).collect();
        Self { product, looks, folded: fold(text), forms }
    }

    fn absent<'b>(&self, block: &'b Block, with: &str, not: &[&str], rng: &mut SplitMix) -> Option<&'b str> {
        let names = inventory(block, self.product);
        let mut passed: Vec<&str> = not.to_vec();
        for _ in 0..8 {
            let name = names.distractor(with, &passed, rng)?;
            if !self.product.spans.is_empty() || (is_name(name) && !self.may_state(block, name)) {
                return Some(name);
            }
            passed.push(name);
        }
        None
    }

    /// Whether the title may hold a value for an attribute that is not annotated: the product has one of a similar
    /// name, or the title has words, or numbers of the form, that are values of it elsewhere. Annotators pass things
    /// over; a question must not.
    fn may_state(&self, block: &Block, name: &str) -> bool {
        let all = block.attributes_of_name(name);
        let mut some = all.iter().step_by(all.len() / self.looks + 1);
        self.product.attributes.iter().any(|a| is_similar(&a.name, name))
            || block.values_of_name(name).any_in(&self.folded, |start, end| Span { start, end }.is_whole(&self.folded))
            || some.any(|&(p, a)| {
                let value = block.products.get(p).and_then(|p| p.attributes.get(a)).map_or("", |a| a.value.as_str());
                value.contains(|c: char| c.is_ascii_digit())
                    && tokens(value).iter().all(|word| self.forms.contains(&form(word).collect::<String>()))
            })
    }
}

/// Names that sources use for the same thing.
const SYNONYMS: [&[&str]; 6] = [
    &["net content", "pack size", "pack quantity", "size", "volume", "load size", "supply size"],
    &["sub brand", "cereal type", "flavor"],
    &["图案", "颜色"],
    &["衣样式", "衣款式", "版型"],
    &["裙样式", "裙款式", "裙腰型", "裙型", "版型"],
    &["裤样式", "裤款式", "裤腰型", "裤型", "版型"],
];

/// Whether one name is part of the other, or both are names for the same thing.
pub(super) fn is_similar(a: &str, b: &str) -> bool {
    let (x, y) = (fold(a), fold(b));
    let grouped = SYNONYMS.iter().any(|names| names.contains(&&*x) && names.contains(&&*y));
    x.contains(&*y) || y.contains(&*x) || grouped || (is_brand(a) && is_brand(b))
}

/// Whether a type or attribute name is one for the brand.
pub(super) fn is_brand(name: &str) -> bool {
    ["brand", "brand name", "manufacturer", "品牌"].contains(&&*fold(name))
}

/// Whether an attribute has this value somewhere in the block, or one of the same form (`50mm`, `60mm`), so that the
/// value alone fits it as well.
pub(super) fn has_value(block: &Block, name: &str, value: &str) -> bool {
    const LOOKS: usize = 256;
    let all = block.attributes_of_name(name);
    let mut some =
        all.iter().step_by(all.len() / LOOKS + 1).filter_map(|&(p, a)| block.products.get(p)?.attributes.get(a));
    some.any(|a| form(&a.value).eq(form(value)))
}

/// `gold` and types that surely do not occur, in random order; `None` where fewer than two come together.
pub(super) fn with_absent(
    block: &Block,
    product: &Product,
    gold: &[&str],
    extra: RangeInclusive<usize>,
    rng: &mut SplitMix,
) -> Option<Vec<String>> {
    with_names(block, &Title::new(product, &product.title, LOOKS), gold, extra, rng)
}

/// As [`with_absent`], of title and description together.
pub(super) fn with_absent_of_text(
    block: &Block,
    product: &Product,
    gold: &[&str],
    extra: RangeInclusive<usize>,
    rng: &mut SplitMix,
) -> Option<Vec<String>> {
    let text = format!("{}\n{}", product.title, product.description.as_deref().unwrap_or_default());
    with_names(block, &Title::new(product, &text, usize::MAX), gold, extra, rng)
}

fn with_names(
    block: &Block,
    title: &Title<'_>,
    gold: &[&str],
    extra: RangeInclusive<usize>,
    rng: &mut SplitMix,
) -> Option<Vec<String>> {
    let wanted = extra.start() + rng.below(extra.end() + 1 - extra.start());
    let mut chosen: Vec<&str> = gold.to_vec();
    let not: Vec<&str> = mentions(title.product).map(|m| kinds(&m)).unwrap_or_default();
    for _ in 0..wanted {
        let with = pick(rng, gold).copied().unwrap_or_default();
        let taken: Vec<&str> = chosen.iter().chain(&not).copied().collect();
        match title.absent(block, with, &taken, rng) {
            Some(name) => chosen.push(name),
            None => break,
        }
    }
    let mut list: Vec<String> = chosen.into_iter().map(str::to_owned).collect();
    rng.shuffle(&mut list);
    (list.len() >= 2).then_some(list)
}

/// Name and value.
pub(super) type Pair<'a> = (&'a str, &'a str);

/// Pairs shown at most.
const SHOWN: usize = 12;

/// The pairs of a product that can be shown: no overlong ones, no repetitions, no prices, which say nothing of the
/// product.
pub(super) fn pairs(product: &Product) -> Vec<Pair<'_>> {
    let longest = match product.meta.lang {
        Lang::En => 80,
        Lang::Zh => 30,
    };
    let mut all: Vec<Pair<'_>> = Vec::new();
    for (name, value) in product.attributes.iter().map(|a| (a.name.as_str(), a.value.as_str())) {
        let shown = is_name(name)
            && !["price", "价格"].iter().any(|word| fold(name).contains(word))
            && !value.is_empty()
            && !value.contains(['\n', ';', '；'])
            && value.chars().count() <= longest
            && !is_none(value);
        if shown && !all.iter().any(|&(n, v)| n == name && same(v, value)) {
            all.push((name, value));
        }
    }
    all
}

/// At least three pairs, and no more than can be read at a glance: of longer lists a random part, in the same order.
pub(super) fn some_pairs<'a>(product: &'a Product, rng: &mut SplitMix) -> Option<Vec<Pair<'a>>> {
    let mut all = pairs(product);
    while all.len() > SHOWN {
        all.remove(rng.below(all.len()));
    }
    (all.len() >= 3).then_some(all)
}

/// `name: value`.
pub(super) fn entry((name, value): Pair<'_>) -> String {
    format!("{name}: {value}")
}

/// `name: value; name: value`.
pub(super) fn sheet(pairs: &[Pair<'_>]) -> String {
    pairs.iter().map(|&pair| entry(pair)).collect::<Vec<_>>().join("; ")
}

/// A `name: value` line for each pair.
pub(super) fn pair_lines(pairs: &[Pair<'_>]) -> String {
    pairs.iter().map(|&pair| entry(pair)).collect::<Vec<_>>().join("\n")
}

/// Whether the title states a value word for word.
pub(super) fn is_stated(title: &str, value: &str) -> bool {
    is_telling(value) && place(title, value).is_some()
}

/// All values of a name.
pub(super) fn values<'a>(pairs: &[Pair<'a>], name: &str) -> Vec<&'a str> {
    pairs.iter().filter(|(n, _)| *n == name).map(|(_, value)| *value).collect()
}

/// A value of `name` that another product has and this one surely has not, nor does its title state any of it; of the
/// same leaf category where one is found. With the number of the other product.
pub(super) fn other_value<'a>(block: &'a Block, at: usize, name: &str, rng: &mut SplitMix) -> Option<(usize, &'a str)> {
    let product = block.products.get(at)?;
    let own: Vec<&str> = product.attributes.iter().filter(|a| a.name == name).map(|a| a.value.as_str()).collect();
    let fits = |p: usize, value: &str| {
        p != at
            && value.chars().count() <= 60
            && is_plain(value)
            && !own.iter().any(|own| alike(own, value))
            && place(&product.title, value).is_none()
            && !alike(&product.title, value)
    };
    let kin = product.leaf().map_or(&[][..], |leaf| block.products_of_leaf(leaf));
    for _ in 0..24 {
        let Some(&p) = pick(rng, kin) else { break };
        let value = block.products.get(p)?.attributes.iter().find(|a| a.name == name).map(|a| a.value.as_str());
        if let Some(value) = value.filter(|value| fits(p, value)) {
            return Some((p, value));
        }
    }
    for _ in 0..12 {
        let &(p, a) = pick(rng, block.attributes_of_name(name))?;
        let value = block.products.get(p)?.attributes.get(a)?.value.as_str();
        if fits(p, value) {
            return Some((p, value));
        }
    }
    None
}
