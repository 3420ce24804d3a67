//! The department that a query searches in.

use std::collections::BTreeSet;

use super::{judged, knows, product_id, title};
use crate::record::{Grade, Query};
use crate::splitmix::SplitMix;
use crate::task::block::Block;
use crate::task::dialogue::among;
use crate::task::{Answer, Draft, chance, either, pick};

/// Queries looked at for their departments, where a whole block would take too long.
const LOOKED_AT: usize = 1024;

/// F33: query -> department.
pub(super) fn of_query(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let query = block.queries.get(at)?;
    let own = category(query)?;
    let around = (0..block.queries.len().min(LOOKED_AT)).map(|i| (at + i) % block.queries.len());
    let queries = around.filter_map(|i| block.queries.get(i)).filter_map(category);
    let all: BTreeSet<&str> = queries.chain(block.departments().names().iter().map(String::as_str)).collect();
    let others = all.into_iter().filter(|&c| c != own).collect();
    let candidates = among(&[own], others, 7..=15, rng)?;
    Some(Draft::new("query", query.text.trim(), Answer::Labels(vec![own.to_owned()])).candidates(candidates))
}

/// A64: query + title -> same department or not. The product of another department is near the query or a right product in words.
pub(super) fn same(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let query = block.queries.get(at)?;
    let own = category(query)?;
    let path = |p: usize| block.products.get(p).map_or(&[][..], |p| p.category.as_slice());
    let yes = chance(rng, 50);
    let right: Vec<usize> =
        judged(block, query, Grade::Exact).into_iter().filter(|&p| path(p).iter().any(|c| c == own)).collect();
    let products = if yes {
        right
    } else {
        // Where product departments are named otherwise than the queries' ones, no product can be said to be of another.
        let known = block.departments().names().iter().any(|d| d == own);
        let other = |p: usize| {
            let path = path(p);
            !path.is_empty() && path.iter().all(|c| c != own) && title(block, p).is_some() && !knows(block, query, p)
        };
        let mut near = block.near_products().near(&query.text, 4, other);
        if let Some(gold) = pick(rng, &right).and_then(|&p| title(block, p)) {
            near.extend(block.near_products().near(gold, 4, other));
        }
        if known { near } else { Vec::new() }
    };
    let &product = pick(rng, &products)?;
    let draft = Draft::new("query", query.text.trim(), either(yes)).part("title", title(block, product)?);
    Some(draft.others(product_id(block, product)))
}

fn category(query: &Query) -> Option<&str> {
    query.category.as_deref().map(str::trim).filter(|c| !c.is_empty())
}
