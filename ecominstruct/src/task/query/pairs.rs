//! Queries that mean the same: those that found the same product exact.

use super::words::{covered, jaccard, shared, words};
use super::{judged, knows};
use crate::record::{Grade, Query};
use crate::splitmix::SplitMix;
use crate::task::block::Block;
use crate::task::{Answer, Draft, chance, either, pick};

/// Shared words, in hundredths, from which on one shared exact product is enough for a rewrite.
const CLOSE: usize = 30;

/// F34: query -> another one for the same need, that adds a word or two but no number. They share three in ten of their
/// words or two exact products.
pub(super) fn rewrite(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let query = block.queries.get(at)?;
    let own = words(&query.text);
    let known = |i: &usize| {
        let its = block.queries.get(*i).map_or_else(Vec::new, |q| words(&q.text));
        let has = covered(&its, &own);
        let new: Vec<&String> = its.iter().zip(has).filter(|w| !w.1).map(|w| w.0).collect();
        let close = jaccard(&own, &its) >= CLOSE || both_exact(block, query, *i) >= 2;
        close && new.len() <= 2.min(its.len() / 2) && !new.iter().any(|w| w.contains(char::is_numeric))
    };
    let same: Vec<usize> = same_need(block, at, query).into_iter().filter(known).collect();
    let other = block.queries.get(*pick(rng, &same)?)?;
    let answer = Answer::Text(other.text.trim().to_owned());
    Some(Draft::new("query", query.text.trim(), answer).others([other.meta.raw_id.clone()]))
}

/// A61: two queries -> same or different need. Different are near ones in words without a product in common.
pub(super) fn compare(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let query = block.queries.get(at)?;
    let same = chance(rng, 50);
    let others = if same { same_need(block, at, query) } else { other_need(block, at, query) };
    let other = block.queries.get(*pick(rng, &others)?)?;
    let (a, b) = if chance(rng, 50) { (query, other) } else { (other, query) };
    let draft = Draft::new("query_a", a.text.trim(), either(same)).part("query_b", b.text.trim());
    Some(draft.others([other.meta.raw_id.clone()]))
}

/// Queries that share an exact product and half of the words of the shorter one, but are worded differently.
fn same_need(block: &Block, at: usize, query: &Query) -> Vec<usize> {
    let own = words(&query.text);
    let mut found: Vec<usize> = Vec::new();
    for product in judged(block, query, Grade::Exact) {
        for &(i, grade) in block.queries_of_product(product) {
            let Some(other) = block.queries.get(i) else { continue };
            let its = words(&other.text);
            let both = shared(&own, &its).min(shared(&its, &own));
            let alike = both > 0 && 2 * both >= own.len().min(its.len()) && jaccard(&own, &its) < 60;
            if i != at && grade == Grade::Exact && alike && !found.contains(&i) {
                found.push(i);
            }
        }
    }
    found
}

/// How many products both queries found exact.
fn both_exact(block: &Block, query: &Query, other: usize) -> usize {
    let exact = |q: &Query| judged(block, q, Grade::Exact);
    let its = block.queries.get(other).map_or_else(Vec::new, exact);
    exact(query).iter().filter(|p| its.contains(p)).count()
}

/// Near queries without a judged product in common; each has words that the other lacks.
fn other_need(block: &Block, at: usize, query: &Query) -> Vec<usize> {
    let own = words(&query.text);
    let apart = |i: usize| {
        let Some(other) = block.queries.get(i) else { return false };
        let its = words(&other.text);
        i != at
            && !other.judged.is_empty()
            && jaccard(&own, &its) < 60
            && shared(&own, &its) < own.len()
            && shared(&its, &own) < its.len()
            && !other.judged.iter().filter_map(|j| block.product(&j.product)).any(|p| knows(block, query, p))
    };
    if query.judged.is_empty() {
        return Vec::new();
    }
    let near = block.near_queries().near(&query.text, 16, |_| true);
    near.into_iter().filter(|&i| apart(i)).take(4).collect()
}
