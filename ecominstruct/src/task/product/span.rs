//! Tasks on one mention: A03, A07, A08, A11.

use super::super::block::Block;
use super::super::{Answer, Draft, chance, either, pick, select};
use super::facts::{Mention, has_value, inventory, is_similar, kinds, mentions};
use super::words::{alike, fold, is_plain, is_telling, place, sized};
use crate::instruction::{Lang, is_han};
use crate::record::{Product, Span};
use crate::splitmix::SplitMix;

/// A mention, no bare number, whose words stand once in the title and have one type there, as (product, mentions,
/// number).
fn single<'a>(block: &'a Block, at: usize, rng: &mut SplitMix) -> Option<(&'a Product, Vec<Mention<'a>>, usize)> {
    let product = block.products.get(at)?;
    let found = mentions(product)?;
    let once = |m: &Mention<'_>| {
        is_telling(m.text)
            && product.title.matches(m.text).count() == 1
            && found.iter().filter(|other| other.span == m.span).count() == 1
    };
    let open: Vec<usize> = (0..found.len()).filter(|&i| found.get(i).is_some_and(once)).collect();
    let number = *pick(rng, &open)?;
    Some((product, found, number))
}

/// A type other than `kind` that the words surely do not have.
fn wrong_type<'a>(
    block: &'a Block,
    product: &Product,
    m: &Mention<'_>,
    not: &[&str],
    rng: &mut SplitMix,
) -> Option<&'a str> {
    let mut passed: Vec<&str> = not.to_vec();
    for _ in 0..8 {
        let name = inventory(block, product).distractor(m.kind, &passed, rng)?;
        if is_plain(name)
            && if product.spans.is_empty() {
                !is_similar(name, m.kind) && !has_value(block, name, m.text)
            } else {
                !is_mention(block, name, m.text)
            }
        {
            return Some(name);
        }
        passed.push(name);
    }
    None
}

/// A03. Title and words → their type.
pub(super) fn type_of(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, found, number) = single(block, at, rng)?;
    let m = found.get(number)?;
    let mut types = vec![m.kind];
    for _ in 0..3 + rng.below(7) {
        match wrong_type(block, product, m, &types, rng) {
            Some(other) => types.push(other),
            None => break,
        }
    }
    if types.len() < 2 {
        return None;
    }
    rng.shuffle(&mut types);
    let types: Vec<String> = types.into_iter().map(str::to_owned).collect();
    let answer = Answer::Labels(vec![m.kind.to_owned()]);
    sized(block, Draft::new("title", &product.title, answer).fill("span", m.text).candidates(types))
}

/// A08. Title, words and type → whether that is their type. Wrong types occur in the title as well, where there are
/// others.
pub(super) fn has_type(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, found, number) = single(block, at, rng)?;
    let m = found.get(number)?;
    let yes = chance(rng, 50);
    let others: Vec<&str> = kinds(&found)
        .into_iter()
        .filter(|k| *k != m.kind && !is_similar(k, m.kind))
        .filter(|k| !is_mention(block, k, m.text))
        .collect();
    let kind = match pick(rng, &others).filter(|_| chance(rng, 50)) {
        _ if yes => m.kind,
        Some(other) => other,
        None => wrong_type(block, product, m, &[m.kind], rng)?,
    };
    sized(block, Draft::new("title", &product.title, either(yes)).fill("span", m.text).fill("type", kind))
}

/// A07. Title and words → whether they are one whole mention; else one edge is one to three words (characters, in
/// Chinese) off.
pub(super) fn is_whole(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| !p.spans.is_empty())?;
    let (_, found, number) = single(block, at, rng)?;
    let m = found.get(number)?;
    let yes = chance(rng, 50);
    let known = |words: &str| found.iter().any(|other| other.text == words) || is_mention(block, m.kind, words);
    let fits = |words: &&str| is_plain(words) && product.title.matches(*words).count() == 1 && !known(words);
    let words =
        if yes { m.text } else { (0..6).filter_map(|_| cut(&product.title, m.span, block.lang, rng)).find(fits)? };
    sized(block, Draft::new("title", &product.title, either(yes)).fill("span", words))
}

/// Whether these words are a whole mention of this type elsewhere.
fn is_mention(block: &Block, kind: &str, words: &str) -> bool {
    block.words_of_kind(kind).contains(words)
}

/// The words at `span` with one edge moved.
fn cut<'a>(title: &'a str, span: Span, lang: Lang, rng: &mut SplitMix) -> Option<&'a str> {
    // Between English words there are two borders: the end of one and the start of the next.
    let borders = if lang == Lang::En { 2 } else { 1 };
    let steps = borders * (1 + rng.below(3));
    let start = rng.below(2) == 0;
    let edges = edges(title, lang);
    let from = edges.iter().position(|&e| e == if start { span.start } else { span.end })?;
    let to = if rng.below(2) == 0 { from.checked_sub(steps)? } else { from + steps };
    let edge = *edges.get(to)?;
    let moved = if start { Span { start: edge, ..span } } else { Span { end: edge, ..span } };
    if moved.start >= moved.end {
        return None;
    }
    let words = title.get(moved.start..moved.end)?.trim();
    let bare = |text: &str| text.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
    let old = span.of(title)?;
    (!words.is_empty() && bare(words) == words && bare(words) != bare(old)).then_some(words)
}

/// Places where a mention could begin or end: word borders, or in Chinese around each character that is not part of a
/// Latin word.
fn edges(title: &str, lang: Lang) -> Vec<usize> {
    let inside = |a: char, b: char| match lang {
        Lang::En => !a.is_whitespace() && !b.is_whitespace(),
        Lang::Zh => !is_han(a) && !is_han(b) && a.is_alphanumeric() && b.is_alphanumeric(),
    };
    let mut edges = vec![0];
    let mut last: Option<char> = None;
    for (i, c) in title.char_indices() {
        if last.is_some_and(|last| !inside(last, c)) {
            edges.push(i);
        }
        last = Some(c);
    }
    edges.push(title.len());
    edges
}

/// Types whose words nobody could choose by what stands around them: any of several fits.
const OPEN: [&str; 23] = [
    "颜色",
    "品牌",
    "型号",
    "适配品牌",
    "适配型号",
    "修饰",
    "风格",
    "功能",
    "规格",
    "尺寸",
    "图案",
    "color",
    "color(s)",
    "brand",
    "brand name",
    "flavor",
    "scent",
    "age",
    "age range",
    "gender",
    "size",
    "specialty",
    "hair type",
];

/// A11. Title with a gap, four options → the one that was there. The others have the same type and come from other
/// titles, of other categories where there are any; numbers are no gap that anybody could fill.
pub(super) fn gap(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, found, number) = single(block, at, rng)?;
    let m = found.get(number)?;
    let worded = |text: &str| is_telling(text) && is_plain(text) && !text.contains(|c: char| c.is_ascii_digit());
    if !worded(m.text) || found.len() < 2 || OPEN.contains(&&*fold(m.kind)) {
        return None;
    }
    let (mut options, mut others): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for _ in 0..32 {
        let (other, text) = of_same_type(block, product, m.kind, rng)?;
        let far = product.leaf().is_none() || other.leaf() != product.leaf();
        let fits = options.len() < 3
            && far
            && other.meta.raw_id != product.meta.raw_id
            && worded(text)
            && !alike(text, m.text)
            && place(&product.title, text).is_none()
            && !is_usual(block, product, m.kind, text)
            && !options.iter().any(|o| alike(o, text));
        if fits {
            options.push(text.to_owned());
            others.push(other.meta.raw_id.clone());
        }
        if options.len() == 3 {
            break;
        }
    }
    if options.len() < 3 {
        return None;
    }
    let masked = format!("{}[MASK]{}", product.title.get(..m.span.start)?, product.title.get(m.span.end..)?);
    let options = select(m.text, options, rng)?;
    let draft = Draft::new("title", masked, Answer::Spans(vec![m.text.to_owned()])).candidates(options);
    sized(block, draft.others(others))
}

/// Whether products of the same leaf category have this value as well, so that it would fit the gap no worse.
fn is_usual(block: &Block, product: &Product, name: &str, value: &str) -> bool {
    let Some(leaf) = product.leaf().filter(|_| product.spans.is_empty()) else { return false };
    block.leaf_has_value(leaf, name, value)
}

fn of_same_type<'a>(
    block: &'a Block,
    product: &Product,
    kind: &str,
    rng: &mut SplitMix,
) -> Option<(&'a Product, &'a str)> {
    if product.spans.is_empty() {
        let &(p, a) = pick(rng, block.attributes_of_name(kind))?;
        let other = block.products.get(p)?;
        return Some((other, other.attributes.get(a)?.value.as_str()));
    }
    let &(p, s) = pick(rng, block.spans_of_kind(kind))?;
    let other = block.products.get(p)?;
    Some((other, other.spans.get(s)?.span.of(&other.title)?))
}
