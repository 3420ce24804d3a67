//! Tasks on search queries: what is searched for, which products satisfy it, and which queries mean the same.
//!
//! Judgements are few, so wrong products and wrong queries are mostly unjudged ones. They are taken near by in words, and
//! checked: a product that has all the query's words that a right one has, or that shares a query with it, is never wrong.

mod category;
mod pairs;
mod relevance;
mod segments;
#[cfg(test)]
mod tests;
mod words;

use super::block::Block;
use super::{GateKind, Make, Task};
use crate::instruction::{DataType, Paradigm, Strategy};
use crate::record::{Grade, Product, Query};

const FINAL: Task = Task {
    id: "",
    dtype: DataType::Query,
    paradigm: Paradigm::Cls,
    strategy: Strategy::None,
    parents: &[],
    twin: false,
    gate: None,
    draft: Make::Never(""),
};
const SIMPLE: Task = Task { strategy: Strategy::Simplification, ..FINAL };
const MIXED: Task = Task { strategy: Strategy::Recombination, ..FINAL };

pub(super) const TASKS: &[Task] = &[
    Task { id: "F30", draft: Make::From(relevance::grade), ..FINAL },
    Task {
        id: "F31",
        paradigm: Paradigm::Ext,
        twin: true,
        gate: Some(GateKind::Select),
        draft: Make::From(relevance::choose_product),
        ..FINAL
    },
    Task { id: "F32", paradigm: Paradigm::Oth, draft: Make::From(segments::typed), ..FINAL },
    Task { id: "F33", draft: Make::From(category::of_query), ..FINAL },
    Task { id: "F34", paradigm: Paradigm::Gen, draft: Make::From(pairs::rewrite), ..FINAL },
    Task {
        id: "A57",
        parents: &["F30", "F31"],
        twin: true,
        gate: Some(GateKind::Match),
        draft: Make::From(relevance::fits),
        ..MIXED
    },
    Task {
        id: "A58",
        paradigm: Paradigm::Gen,
        strategy: Strategy::Reversal,
        parents: &["F31", "F34"],
        draft: Make::From(relevance::write_query),
        ..FINAL
    },
    Task { id: "A59", paradigm: Paradigm::Ext, parents: &["F32", "F33"], draft: Make::From(segments::core), ..SIMPLE },
    Task { id: "A60", paradigm: Paradigm::Gen, parents: &["F32"], draft: Make::From(segments::split), ..SIMPLE },
    Task { id: "A61", parents: &["F34"], gate: Some(GateKind::Match), draft: Make::From(pairs::compare), ..MIXED },
    Task {
        id: "A62",
        paradigm: Paradigm::Ext,
        parents: &["F31"],
        twin: true,
        gate: Some(GateKind::Select),
        draft: Make::From(relevance::choose_query),
        ..MIXED
    },
    Task { id: "A63", paradigm: Paradigm::Ext, parents: &["F32"], draft: Make::From(segments::modifiers), ..SIMPLE },
    Task { id: "A64", parents: &["F33"], gate: Some(GateKind::Match), draft: Make::From(category::same), ..MIXED },
];

/// Most characters of a title that is shown.
const TITLE: usize = 400;

/// The title of product `at`, where there is one that can be shown.
fn title(block: &Block, at: usize) -> Option<&str> {
    let title = block.products.get(at).map(|p: &Product| p.title.trim())?;
    (!title.is_empty() && title.chars().count() <= TITLE).then_some(title)
}

/// Products of this grade that have a title, in the order of the judgements.
fn judged(block: &Block, query: &Query, grade: Grade) -> Vec<usize> {
    let of_grade = query.judged.iter().filter(|j| j.grade == grade);
    of_grade.filter_map(|j| block.product(&j.product)).filter(|&p| title(block, p).is_some()).collect()
}

/// Whether the query was judged against product `at`, whatever the grade.
fn knows(block: &Block, query: &Query, at: usize) -> bool {
    block.products.get(at).is_some_and(|p| query.judged.iter().any(|j| j.product == p.meta.raw_id))
}

/// Whether some query found both this product and one of `right` exact.
fn together(block: &Block, at: usize, right: &[usize]) -> bool {
    let exact = block.queries_of_product(at).iter().filter(|q| q.1 == Grade::Exact);
    exact
        .filter_map(|q| block.queries.get(q.0))
        .any(|q| judged(block, q, Grade::Exact).iter().any(|p| right.contains(p)))
}

/// `raw_id` of a product.
fn product_id(block: &Block, at: usize) -> Option<String> {
    block.products.get(at).map(|p| p.meta.raw_id.clone())
}
