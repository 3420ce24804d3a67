//! Takes out of a block what the firewall or the duplicates forbid.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::draft::rows;
use super::heldout::{spoken, texts};
use crate::dedup::{Dedup, Signature};
use crate::firewall::{Firewall, Hit};
use crate::record::Record;
use crate::task::block::Block;

/// What a source's blocks pass through, and what stayed behind.
pub(super) struct Sieve<'a> {
    pub(super) firewall: &'a Firewall,
    /// `None` where repetitions may pass.
    pub(super) dedup: Option<Dedup>,
    /// Records left out, by rule of the firewall.
    pub(super) walled: BTreeMap<String, usize>,
    /// Records left out because an earlier one is nearly the same.
    pub(super) repeated: usize,
}

impl Sieve<'_> {
    /// The block without those records.
    pub(super) fn sift(&mut self, block: Block) -> Block {
        let hits: Vec<Vec<Option<Hit>>> = rows(&block)
            .into_iter()
            .map(|(dtype, range)| {
                let row = |at| texts(&block, dtype, at).iter().find_map(|text| self.firewall.check(text));
                range.into_par_iter().map(row).collect()
            })
            .collect();
        let Block { source, split, lang, products, reviews, dialogues, queries, .. } = block;
        let mut open = Block::new(source, split, lang);
        let [p, r, d, q] = <[_; 4]>::try_from(hits).unwrap_or_default();
        let products = self.passed(products, p);
        products.into_iter().for_each(|record| open.push(Record::Product(record)));
        let queries = self.passed(queries, q);
        queries.into_iter().for_each(|record| open.push(Record::Query(record)));
        // Listings and queries repeat on purpose (several offers of one product); passages and talks do not.
        let reviews = self.passed(reviews, r);
        let signatures = self.signatures(&reviews, |review| review.text.clone());
        for (record, signature) in reviews.into_iter().zip(signatures) {
            if self.is_new(signature) {
                open.push(Record::Review(record));
            }
        }
        let dialogues = self.passed(dialogues, d);
        let signatures = self.signatures(&dialogues, spoken);
        for (record, signature) in dialogues.into_iter().zip(signatures) {
            if self.is_new(signature) {
                open.push(Record::Dialogue(record));
            }
        }
        open
    }

    fn passed<T>(&mut self, records: Vec<T>, hits: Vec<Option<Hit>>) -> Vec<T> {
        let pass = |(record, hit): (T, Option<Hit>)| match hit {
            Some(hit) => {
                *self.walled.entry(hit.name().to_owned()).or_default() += 1;
                None
            }
            None => Some(record),
        };
        records.into_iter().zip(hits).filter_map(pass).collect()
    }

    fn signatures<T: Sync>(&self, records: &[T], text: impl Fn(&T) -> String + Sync) -> Vec<Option<Signature>> {
        let signature = |record| self.dedup.as_ref().and_then(|dedup| dedup.signature(&text(record)));
        records.par_iter().map(signature).collect()
    }

    fn is_new(&mut self, signature: Option<Signature>) -> bool {
        let new = self.dedup.as_mut().is_none_or(|dedup| dedup.insert(signature));
        self.repeated += usize::from(!new);
        new
    }
}
