//! Tasks on titles and selling texts: F07, F08, F09, A66, A67.

use super::super::block::Block;
use super::super::{Answer, Draft, chance, pick};
use super::category::evident;
use super::facts::{is_complete, is_stated, pairs, sheet, some_pairs};
use super::words::{coverage, fold, is_short_text, reads_as_title, same, sized, tokens, touches};
use crate::instruction::is_han;
use crate::record::Product;
use crate::splitmix::SplitMix;

/// F07. Sheet (with the category) → title, three quarters of which can be read off the input, all numbers among it.
pub(super) fn title(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| !p.title.is_empty() && reads_as_title(&p.title))?;
    let mut shown = some_pairs(product, rng)?;
    // What the title leaves out nobody could know to leave out.
    let stated = shown.iter().filter(|(_, value)| is_stated(&product.title, value)).count();
    if is_complete(product) && stated >= 3 {
        shown.retain(|(_, value)| is_stated(&product.title, value));
    }
    let text = sheet(&shown);
    let leaf = product.leaf().unwrap_or_default();
    let known = format!("{text} {leaf}");
    let told = digits(&known);
    let invented = !digits(&product.title).iter().all(|number| told.contains(number));
    if invented || hides_brand(product, &text) || coverage(&product.title, &known) < 75 || adds(&product.title, &known)
    {
        return None;
    }
    let draft = Draft::new("attributes", text, Answer::Text(product.title.clone()));
    sized(block, if leaf.is_empty() || chance(rng, 30) { draft } else { draft.part("category", leaf) })
}

/// Words of titles that tell nothing of the product.
const LIGHT: [&str; 12] =
    ["and", "pack", "packs", "count", "for", "from", "per", "piece", "pieces", "set", "the", "with"];

/// Whether a title has words that what is known of the product has in no form: nobody could come upon them.
pub(super) fn adds(title: &str, known: &str) -> bool {
    let told = |word: &str| {
        let letters = word.chars().all(char::is_alphabetic) && !word.contains(is_han);
        !letters || word.len() < 3 || LIGHT.contains(&word) || touches(known, word)
    };
    !tokens(title).iter().all(told)
}

/// Whether a Chinese text states a material, collar or sleeve that the block knows and `known` lacks, or Latin words that it lacks.
pub(super) fn invents(block: &Block, text: &str, known: &str) -> bool {
    let other = |start: usize, end: usize| {
        text.get(start..end)
            .is_some_and(|part| part.chars().filter(|&c| is_han(c)).nth(1).is_some() && !known.contains(part))
    };
    let checked = |name: &&String| name.ends_with("领型") || name.ends_with("袖型") || *name == "材质";
    let latin =
        |word: &str| word.len() >= 2 && word.bytes().all(|b| b.is_ascii_alphabetic()) && !fold(known).contains(word);
    text.contains(is_han)
        && (tokens(text).iter().any(latin)
            || block
                .attribute_names(None)
                .names()
                .iter()
                .filter(checked)
                .any(|n| block.values_of_name(n).any_in(text, other)))
}

/// Whether a title begins with the product's brand, and what is shown for writing it does not tell it.
pub(super) fn hides_brand(product: &Product, shown: &str) -> bool {
    let brand = tokens(product.brand.as_deref().unwrap_or_default());
    tokens(&product.title).starts_with(&brand) && !brand.iter().all(|word| tokens(shown).contains(word))
}

/// F08. Title → short title, made of its words, that still says what it is.
pub(super) fn shorter(block: &Block, at: usize, _: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| !p.title.is_empty())?;
    let short = product.short_title.as_deref()?;
    let words = tokens(&product.title);
    let kept = tokens(short);
    let numbers = kept.iter().filter(|w| w.contains(|c: char| c.is_ascii_digit())).all(|w| words.contains(w));
    let (long, brief) = (product.title.chars().count(), short.chars().count());
    // "KIR31AD40 white" says no longer what it is.
    let nameless = product.leaf().is_some_and(|leaf| !touches(short, leaf));
    if kept.is_empty()
        || !numbers
        || nameless
        || !reads_as_title(short)
        || 10 * brief > 8 * long
        || coverage(short, &product.title) < 80
    {
        return None;
    }
    sized(block, Draft::new("title", &product.title, Answer::Text(short.to_owned())))
}

/// F09. Title and sheet, as far as there are any → description.
pub(super) fn description(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| evident(block, p))?;
    let text = product.description.as_deref().filter(|text| is_short_text(block, text) && is_about_product(text))?;
    let shown = some_pairs(product, rng).unwrap_or_else(|| pairs(product));
    let draft = Draft { answer: Answer::Text(text.to_owned()), ..Draft::default() };
    let draft = if product.title.is_empty() { draft } else { draft.part("title", &product.title) };
    let draft = if shown.is_empty() { draft } else { draft.part("attributes", sheet(&shown)) };
    // A text that shares little with what is known of the product cannot be written from it.
    let known = shown.iter().map(|p| p.1).chain([product.title.as_str()]).collect::<Vec<_>>().join(" ");
    let told = digits(&known);
    let repeats = !product.title.is_empty() && tokens(text).starts_with(&tokens(&product.title));
    if repeats || joins(text) >= 2 || !digits(text).iter().all(|number| told.contains(number)) {
        return None;
    }
    if invents(block, text, &known) {
        return None;
    }
    let follows = tokens(&known).len() >= 3 && tokens(text).len() >= 10 && coverage(&known, text) >= 30;
    if follows && !same(text, &product.title) { sized(block, draft) } else { None }
}

/// Runs of digits.
fn digits(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty()).collect()
}

/// Places where a sentence begins without a space before it, as in tables of a page run together.
fn joins(text: &str) -> usize {
    let ends = |c: u8| c.is_ascii_lowercase() || c == b')';
    text.as_bytes().windows(2).filter(|pair| matches!(pair, [a, b] if ends(*a) && b.is_ascii_uppercase())).count()
}

/// A66. Title and four descriptions of the same leaf category → the number of the right one. Descriptions that repeat
/// their title are left out: matching them would take no reading.
pub(super) fn which_description(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| !p.title.is_empty())?;
    let own = unnamed(block, product)?;
    let leaf = product.leaf()?;
    let kin = |i: usize| {
        i != at && block.products.get(i).is_some_and(|p| p.leaf() == Some(leaf) && unnamed(block, p).is_some())
    };
    let mut open = block.near_products().near(&product.title, 8, kin);
    let fellows = block.products_of_leaf(leaf);
    open.extend((0..8).filter_map(|_| pick(rng, fellows).copied()).filter(|&i| kin(i)));
    let mut others: Vec<(&Product, &str)> = Vec::new();
    for other in open.into_iter().filter_map(|i| block.products.get(i)) {
        let text = unnamed(block, other)?;
        let new = !same(text, own) && !others.iter().any(|(_, seen)| same(seen, text));
        if others.len() < 3 && new && !same(&other.title, &product.title) && fold(own) != fold(text) {
            others.push((other, text));
        }
    }
    if others.len() < 3 {
        return None;
    }
    let mut texts: Vec<&str> = others.iter().map(|(_, text)| *text).chain([own]).collect();
    rng.shuffle(&mut texts);
    let number = 1 + texts.iter().position(|text| *text == own)?;
    let draft = Draft::new("title", &product.title, Answer::Spans(vec![number.to_string()]));
    let draft = texts.into_iter().fold(draft, |draft, text| draft.part("option", text));
    sized(block, draft.others(others.iter().map(|(p, _)| p.meta.raw_id.clone())))
}

/// Whether a description is none of the shop's ready-made sentences about itself, nor a page's table.
fn is_about_product(text: &str) -> bool {
    const OTHER: [&str; 8] =
        ["http", "www.", ".com", "free shipping", "cash on delivery", "包邮", "specifications of", "price: rs"];
    let text = fold(text);
    !OTHER.iter().any(|words| text.contains(words))
}

/// The description, if it is not long and does not repeat the title.
fn unnamed<'a>(block: &Block, product: &'a Product) -> Option<&'a str> {
    let text = product.description.as_deref().filter(|text| is_short_text(block, text) && is_about_product(text))?;
    let named = tokens(text).concat().contains(tokens(&product.title).concat());
    (!named && coverage(&product.title, text) >= 20).then_some(text)
}

/// A67. Description → title, most of which can be read off it, all numbers and the brand among it, though
/// it does not stand there word for word.
pub(super) fn title_of_text(block: &Block, at: usize, _: &mut SplitMix) -> Option<Draft> {
    let product = block.products.get(at).filter(|p| !p.title.is_empty() && reads_as_title(&p.title))?;
    let text = product.description.as_deref().filter(|text| is_about_product(text))?;
    let (given, title) = (tokens(text), tokens(&product.title));
    let said = |word: &str| given.contains(word);
    let numbers = title.iter().filter(|word| word.contains(|c: char| c.is_ascii_digit())).all(said);
    let brand = product.brand.as_deref().is_none_or(|brand| tokens(brand).iter().all(said));
    let (text_words, title_words): (Vec<&str>, Vec<&str>) = (given.iter().collect(), title.iter().collect());
    let copied = text_words.windows(title.len().max(1)).any(|run| run == title_words);
    if copied
        || !numbers
        || !brand
        || coverage(&product.title, text) < 70
        || same(text, &product.title)
        || given.len() < title.len()
    {
        return None;
    }
    sized(block, Draft::new("description", text, Answer::Text(product.title.clone())))
}
