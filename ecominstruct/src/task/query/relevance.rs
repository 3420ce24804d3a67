//! Which products satisfy a query, and which query leads to a product.

use super::words::{covered, jaccard, lacks_number, shared, words};
use super::{judged, knows, product_id, title, together};
use crate::record::{Grade, Query};
use crate::splitmix::SplitMix;
use crate::task::block::Block;
use crate::task::{Answer, Draft, chance, either, pick, select};

/// Near texts looked at.
const NEAR: usize = 16;

/// F30: query + title -> exact, partial or irrelevant.
pub(super) fn grade(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let query = block.queries.get(at)?;
    let wanted = rng.below(3);
    let grade = *[Grade::Exact, Grade::Partial, Grade::Irrelevant].get(wanted)?;
    let asked = words(&query.text);
    let mut open = judged(block, query, grade);
    // Raters now and then agree on a product that has no word of the query.
    open.retain(|&p| grade != Grade::Exact || title(block, p).is_some_and(|t| shared(&asked, &words(t)) > 0));
    let product = match pick(rng, &open) {
        Some(&product) => product,
        None if grade == Grade::Irrelevant => {
            let &right = pick(rng, &judged(block, query, Grade::Exact))?;
            wrong(block, query, right, rng).into_iter().next()?
        }
        None => return None,
    };
    on_pair(block, query, product, Answer::Nth(wanted))
}

/// A57: query + title -> relevant or not. Wrong products are judged irrelevant or near by in words and unjudged.
pub(super) fn fits(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let query = block.queries.get(at)?;
    let exact = exact(block, query);
    if chance(rng, 50) {
        return on_pair(block, query, *pick(rng, &exact)?, either(true));
    }
    let irrelevant = judged(block, query, Grade::Irrelevant);
    let product = match pick(rng, &irrelevant) {
        Some(&product) if chance(rng, 60) => product,
        _ => {
            let &right = pick(rng, &exact)?;
            wrong(block, query, right, rng).into_iter().next()?
        }
    };
    on_pair(block, query, product, either(false))
}

/// F31: query + titles -> the one that fits. The others are judged irrelevant, or near by in words and unjudged, or else judged
/// partial. Two in three of the choices that counting words would solve are left out.
pub(super) fn choose_product(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let query = block.queries.get(at)?;
    let &right = pick(rng, &exact(block, query))?;
    let wanted = 3 + rng.below(5);
    let (mut worse, mut partial) = (judged(block, query, Grade::Irrelevant), judged(block, query, Grade::Partial));
    rng.shuffle(&mut partial);
    if worse.len() < wanted {
        worse.extend(wrong(block, query, right, rng));
    }
    worse.extend(partial);
    let gold = title(block, right)?;
    let mut others: Vec<(usize, &str)> = Vec::new();
    for p in worse {
        let Some(text) = title(block, p) else { continue };
        let new = !text.eq_ignore_ascii_case(gold) && others.iter().all(|o| !o.1.eq_ignore_ascii_case(text));
        if new && others.len() < wanted {
            others.push((p, text));
        }
    }
    let asked = words(&query.text);
    let best = others.iter().map(|o| shared(&asked, &words(o.1))).max()?;
    let easy = shared(&asked, &words(gold)) > best;
    if others.len() < 3 || (easy && chance(rng, 67)) {
        return None;
    }
    let ids = others.iter().filter_map(|o| product_id(block, o.0)).chain(product_id(block, right));
    let candidates = select(gold, others.iter().map(|o| o.1.to_owned()), rng)?;
    let answer = Answer::Spans(vec![gold.to_owned()]);
    Some(Draft::new("query", query.text.trim(), answer).candidates(candidates).others(ids))
}

/// A58: title -> a query that it satisfies, and of which it has at least half of the words, all numbers and the last word
/// among them.
pub(super) fn write_query(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let query = block.queries.get(at)?;
    let asked = words(&query.text);
    let seen = |p: &usize| title(block, *p).is_some_and(|t| names(&asked, &words(t)));
    let right: Vec<usize> = exact(block, query).into_iter().filter(seen).collect();
    let &product = pick(rng, &right)?;
    let answer = Answer::Text(query.text.trim().to_owned());
    Some(Draft::new("title", title(block, product)?, answer).others(product_id(block, product)))
}

/// Whether a title has half of the words of a query, and of these its numbers and, by itself, its last word, which is mostly
/// the thing.
pub(super) fn names(asked: &[String], title: &[String]) -> bool {
    let has = covered(asked, title);
    let thing = asked.last().is_some_and(|last| covered(std::slice::from_ref(last), title) == [true]);
    let numbers = asked.iter().zip(&has).all(|(word, &has)| has || !word.contains(char::is_numeric));
    thing && numbers && 2 * has.iter().filter(|&&h| h).count() >= asked.len()
}

/// A62: title + four queries -> the one that it satisfies. The others have words of the title, but not all of theirs
/// are in it. Most of the choices that counting words would solve are left out.
pub(super) fn choose_query(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let query = block.queries.get(at)?;
    let exact = exact(block, query);
    let asked = words(&query.text);
    let has = |p: usize| title(block, p).map_or(0, |t| shared(&asked, &words(t)));
    let open: Vec<usize> = exact.iter().copied().filter(|&p| 3 * has(p) >= asked.len().max(1)).collect();
    let &product = pick(rng, &open)?;
    let text = title(block, product)?;
    let (own, seen) = (has(product), words(text));
    let differs = |i: usize| {
        let Some(other) = block.queries.get(i) else { return false };
        let its = words(&other.text);
        let here = shared(&its, &seen);
        i != at
            && here < its.len()
            && (3 * here <= 2 * its.len() || here < own)
            && !knows(block, other, product)
            && jaccard(&its, &asked) < 60
            && shared(&its, &asked) < its.len()
            && !judged(block, other, Grade::Exact).iter().any(|p| exact.contains(p) || together(block, *p, &[product]))
    };
    let mut near = block.near_queries().near(text, NEAR, |_| true);
    for i in block.near_queries().near(&query.text, NEAR / 2, |_| true) {
        if !near.contains(&i) {
            near.push(i);
        }
    }
    rng.shuffle(&mut near);
    // In thousandths of the query's words.
    let share = |q: &Query| {
        let its = words(&q.text);
        1000 * shared(&its, &seen) / its.len().max(1)
    };
    let wrong: Vec<&Query> =
        near.into_iter().filter(|&i| differs(i)).filter_map(|i| block.queries.get(i)).take(3).collect();
    let easy = share(query) > wrong.iter().map(|q| share(q)).max()?;
    if wrong.len() < 3 || (easy && chance(rng, 85)) {
        return None;
    }
    let candidates = select(query.text.trim(), wrong.iter().map(|q| q.text.trim().to_owned()), rng)?;
    let ids = wrong.iter().map(|q| q.meta.raw_id.clone()).chain(product_id(block, product));
    let answer = Answer::Spans(vec![query.text.trim().to_owned()]);
    Some(Draft::new("title", text, answer).candidates(candidates).others(ids))
}

/// The draft about a query and a product.
fn on_pair(block: &Block, query: &Query, product: usize, answer: Answer) -> Option<Draft> {
    let draft = Draft::new("query", query.text.trim(), answer).part("title", title(block, product)?);
    (!query.text.trim().is_empty()).then(|| draft.others(product_id(block, product)))
}

/// Products judged exact, but for those of which the title does not tell why.
fn exact(block: &Block, query: &Query) -> Vec<usize> {
    let clear = |p: &usize| title(block, *p).is_some_and(|t| !lacks_number(&query.text, &words(t)));
    judged(block, query, Grade::Exact).into_iter().filter(clear).collect()
}

/// Unjudged products that do not satisfy the query, though they are near it or near a right one in words: each lacks a word of
/// the query that the right one has, and one in three of all its words. In random order.
fn wrong(block: &Block, query: &Query, right: usize, rng: &mut SplitMix) -> Vec<usize> {
    let exact = judged(block, query, Grade::Exact);
    let Some(gold) = title(block, right) else { return Vec::new() };
    let (asked, gold_words) = (words(&query.text), words(gold));
    let gold_has = covered(&asked, &gold_words);
    let fits = |p: usize| {
        let Some(text) = title(block, p) else { return false };
        if knows(block, query, p) {
            return false;
        }
        let seen = words(text);
        let has = covered(&asked, &seen);
        gold_has.iter().zip(&has).any(|(&gold, &has)| gold && !has)
            && 3 * has.iter().filter(|&&h| h).count() <= 2 * asked.len()
            && 10 * seen.iter().filter(|w| gold_words.contains(w)).count() < 8 * gold_words.len()
            && !together(block, p, &exact)
    };
    let mut near = block.near_products().near(&query.text, NEAR, |_| true);
    for p in block.near_products().near(gold, NEAR, |_| true) {
        if !near.contains(&p) {
            near.push(p);
        }
    }
    rng.shuffle(&mut near);
    near.into_iter().filter(|&p| fits(p)).take(8).collect()
}
