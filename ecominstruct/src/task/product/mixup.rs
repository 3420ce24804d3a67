//! Tasks on sheets that may belong to another product: F06, A18, A19, A20.

use super::super::block::Block;
use super::super::{Answer, Draft, chance, either, pick, select};
use super::attribute::stated_pairs;
use super::facts::{Pair, entry, is_stated, other_value, pairs, sheet, some_pairs, values};
use super::words::{alike, fold, is_plain, same, sized, touches};
use crate::record::Product;
use crate::splitmix::SplitMix;

/// Names that a product may have several values for at once, so that another value contradicts nothing.
const SEVERAL: [&str; 8] =
    ["specialty", "benefit", "health benefit", "reusability", "diet", "specific uses", "closure type", "type"];

/// A product whose title states something that its sheet of three pairs or more says, of a name that has one value.
fn checkable(block: &Block, at: usize) -> Option<(&Product, Vec<Pair<'_>>)> {
    let product = block.products.get(at).filter(|p| !p.title.is_empty())?;
    let mut stated = stated_pairs(product);
    stated.retain(|(name, _)| !SEVERAL.contains(&&*fold(name)));
    (!stated.is_empty() && pairs(product).len() >= 3).then_some((product, stated))
}

/// The sheet of another product that contradicts what the title states: it has the name with values that are not the
/// title's.
fn foreign_sheet<'a>(
    block: &'a Block,
    product: &Product,
    stated: &[Pair<'_>],
    other: usize,
    rng: &mut SplitMix,
) -> Option<(&'a Product, Vec<Pair<'a>>)> {
    let other = block.products.get(other)?;
    if same(&other.title, &product.title) || (product.cluster.is_some() && product.cluster == other.cluster) {
        return None;
    }
    let shown = some_pairs(other, rng)?;
    stated.iter().any(|pair| contradicts(product, *pair, &shown)).then_some((other, shown))
}

/// Whether a sheet has the name of a pair that the title states, with values that the title does not.
fn contradicts(product: &Product, (name, value): Pair<'_>, sheet: &[Pair<'_>]) -> bool {
    let theirs = values(sheet, name);
    !theirs.is_empty() && theirs.iter().all(|v| !alike(v, value) && !touches(&product.title, v))
}

/// Whose sheets are taken.
#[derive(Clone, Copy, PartialEq)]
enum Donor {
    /// Products of the same leaf category, near ones first.
    Kin,
    /// Any product.
    Anyone,
}

/// The sheet of another product.
fn swapped<'a>(
    block: &'a Block,
    at: usize,
    stated: &[Pair<'_>],
    donor: Donor,
    rng: &mut SplitMix,
) -> Option<(&'a Product, Vec<Pair<'a>>)> {
    let product = block.products.get(at)?;
    let kin = |i: usize| i != at && block.products.get(i).is_some_and(|p| p.leaf() == product.leaf());
    let open: Vec<usize> = match donor {
        Donor::Anyone => (0..8).map(|_| rng.below(block.products.len())).filter(|&i| i != at).collect(),
        Donor::Kin => {
            let mut open = block.near_products().near(&product.title, 16, kin);
            let fellows = product.leaf().map_or(&[][..], |leaf| block.products_of_leaf(leaf));
            open.extend((0..8).filter_map(|_| pick(rng, fellows)).filter(|&&i| i != at));
            open
        }
    };
    // The sheet that agrees most with the title is the one that has to be read.
    let fitting: Vec<_> = open.into_iter().filter_map(|i| foreign_sheet(block, product, stated, i, rng)).collect();
    let agreeing = |shown: &[Pair<'_>]| shown.iter().filter(|(_, v)| is_stated(&product.title, v)).count();
    let most = fitting.iter().map(|(_, shown)| agreeing(shown)).max()?;
    let best: Vec<_> =
        fitting.into_iter().filter(|(_, shown)| donor == Donor::Anyone || agreeing(shown) == most).collect();
    let number = rng.below(best.len());
    best.into_iter().nth(number)
}

/// The product's sheet with one value that the title states replaced, and the wrong pair.
fn corrupted<'a>(
    block: &'a Block,
    at: usize,
    stated: &[Pair<'a>],
    rng: &mut SplitMix,
) -> Option<(Vec<Pair<'a>>, Pair<'a>, &'a Product)> {
    let product = block.products.get(at)?;
    let &(name, value) = pick(rng, stated)?;
    let mut shown = some_pairs(product, rng)?;
    if values(&pairs(product), name).len() != 1 || has_several(block, name) {
        return None;
    }
    let digits = |text: &str| text.contains(|c: char| c.is_ascii_digit());
    let fits = |wrong: &str| {
        let several = fold(wrong).starts_with("multi");
        digits(wrong) == digits(value) && (is_range(value) || !is_range(wrong)) && !several
    };
    let (other, wrong) = (0..4).find_map(|_| other_value(block, at, name, rng).filter(|(_, wrong)| fits(wrong)))?;
    let place = shown.iter().position(|pair| *pair == (name, value))?;
    *shown.get_mut(place)? = (name, wrong);
    Some((shown, (name, wrong), block.products.get(other)?))
}

/// Whether products often have several values of this name.
fn has_several(block: &Block, name: &str) -> bool {
    let all = block.attributes_of_name(name);
    let again = all.windows(2).filter(|pair| matches!(pair, [a, b] if a.0 == b.0)).count();
    10 * again > all.len()
}

/// Whether a value gives bounds (`5-10 kg`, `2 to 3 years`), which may hold the true number.
fn is_range(value: &str) -> bool {
    let numbers = |sign: &str| {
        value.split_once(sign).is_some_and(|(a, b)| {
            a.trim_end().ends_with(|c: char| c.is_ascii_digit())
                && b.trim_start().starts_with(|c: char| c.is_ascii_digit())
        })
    };
    ["-", "–", "~", " to "].into_iter().any(numbers)
}

/// The product's sheet, unless it has another value beside one that the title states, as sheets of several shops put together do.
fn own_sheet<'a>(product: &'a Product, stated: &[Pair<'_>], rng: &mut SplitMix) -> Option<Vec<Pair<'a>>> {
    let shown = some_pairs(product, rng)?;
    let clash = |&(name, value): &Pair<'_>| {
        stated.iter().any(|s| s.0 == name && !alike(s.1, value)) && !touches(&product.title, value)
    };
    (!shown.iter().any(clash)).then_some(shown)
}

/// F06. Title and sheet → consistent or not: half of the wrong sheets are those of a product like it, three in ten have
/// one wrong value, the others are of any product.
pub(super) fn consistent(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, stated) = checkable(block, at)?;
    let yes = chance(rng, 50);
    let (shown, other) = if yes {
        (own_sheet(product, &stated, rng)?, None)
    } else {
        match rng.below(10) {
            0..5 => swapped(block, at, &stated, Donor::Kin, rng).map(|(other, shown)| (shown, Some(other))),
            5..8 => corrupted(block, at, &stated, rng).map(|(shown, _, other)| (shown, Some(other))),
            _ => swapped(block, at, &stated, Donor::Anyone, rng).map(|(other, shown)| (shown, Some(other))),
        }?
    };
    together(block, product, &stated, shown, other, rng)
}

/// A18. Title and sheet → belonging together or mixed up: sheets of the same category in seven of ten wrong cases.
pub(super) fn belongs(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, stated) = checkable(block, at)?;
    let yes = chance(rng, 50);
    let (shown, other) = if yes {
        (own_sheet(product, &stated, rng)?, None)
    } else {
        let donor = if chance(rng, 30) { Donor::Anyone } else { Donor::Kin };
        let (other, shown) = swapped(block, at, &stated, donor, rng)?;
        (shown, Some(other))
    };
    together(block, product, &stated, shown, other, rng)
}

fn together(
    block: &Block,
    product: &Product,
    stated: &[Pair<'_>],
    mut shown: Vec<Pair<'_>>,
    other: Option<&Product>,
    rng: &mut SplitMix,
) -> Option<Draft> {
    let yes = other.is_none();
    // One or two pairs must do for the decision; the number of words that title and sheet share must not.
    let decides = |&(name, value): &Pair<'_>| {
        if yes {
            is_stated(&product.title, value)
        } else {
            stated.iter().any(|s| contradicts(product, *s, &[(name, value)]))
        }
    };
    let enough = if yes { 1 + rng.below(2) } else { 1 };
    let mut deciding: Vec<usize> = (0..shown.len()).filter(|&i| shown.get(i).is_some_and(decides)).collect();
    if deciding.is_empty() {
        return None;
    }
    while deciding.len() > enough && shown.len() > 3 {
        let at = deciding.remove(rng.below(deciding.len()));
        shown.remove(at);
        deciding.iter_mut().filter(|i| **i > at).for_each(|i| *i -= 1);
    }
    let draft = Draft::new("title", &product.title, either(yes)).part("attributes", sheet(&shown));
    sized(block, draft.others(other.map(|p| p.meta.raw_id.clone())))
}

/// A19. Title and sheet with one value replaced → the wrong pair.
pub(super) fn wrong_pair(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, stated) = checkable(block, at)?;
    let (shown, wrong, other) = corrupted(block, at, &stated, rng)?;
    let text = entry(wrong);
    if !is_plain(&text) || shown.iter().filter(|pair| **pair == wrong).count() != 1 {
        return None;
    }
    let draft = Draft::new("title", &product.title, Answer::Spans(vec![text])).part("attributes", sheet(&shown));
    sized(block, draft.others([other.meta.raw_id.clone()]))
}

/// A20. Sheet and four titles → the title that goes with it. The others are near ones of the same leaf category, all with another
/// value for one pair that the right one states; of the other pairs those are shown that do not give it away as well.
pub(super) fn title_of(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (product, stated) = checkable(block, at)?;
    let key = *pick(rng, &stated)?;
    let differs = |other: &Product| {
        let said = pairs(other);
        let said = values(&said, key.0);
        !other.title.is_empty()
            && !same(&other.title, &product.title)
            && !said.is_empty()
            && said.iter().all(|v| !alike(v, key.1))
            && !touches(&other.title, key.1)
    };
    let kin = |i: usize| i != at && block.products.get(i).is_some_and(|p| p.leaf() == product.leaf() && differs(p));
    let mut open = block.near_products().near(&product.title, 8, kin);
    rng.shuffle(&mut open);
    let others: Vec<&Product> = open.iter().take(3).filter_map(|&i| block.products.get(i)).collect();
    if others.len() < 3 {
        return None;
    }
    let mut shown = some_pairs(product, rng)?;
    if !shown.contains(&key) {
        shown.push(key);
    }
    for pair in stated.iter().filter(|pair| **pair != key) {
        let alone = !others.iter().any(|other| is_stated(&other.title, pair.1));
        if alone && shown.len() > 3 {
            shown.retain(|p| p != pair);
        }
    }
    let titles = select(&product.title, others.iter().map(|p| p.title.clone()), rng)?;
    let draft = Draft::new("attributes", sheet(&shown), Answer::Spans(vec![product.title.clone()]));
    sized(block, draft.candidates(titles).others(others.iter().map(|p| p.meta.raw_id.clone())))
}
