//! Reads sources into blocks, and decides which rows are held out.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::io;

use rustc_hash::{FxHashMap, FxHasher};

use super::recipe::{How, Source};
use super::{BuildError, Faults};
use crate::raw::{RawFile, Rows, Split, generic};
use crate::record::Record;
use crate::shop;
use crate::splitmix::SplitMix;
use crate::task::block::Block;

/// Records of a block. Everything that mixes rows stays in one, so this bounds memory and the reach of a distractor.
const BLOCK: usize = 32_768;

/// Held-out records kept of one source, split and language; further ones are left out of both sides.
const HELD: usize = 8_192;

/// A number that depends on the texts and nothing else.
pub(super) fn hash(parts: &[&str]) -> u64 {
    let mut hasher = FxHasher::default();
    for part in parts {
        hasher.write_u64(part.len() as u64);
        hasher.write(part.as_bytes());
    }
    SplitMix::new(hasher.finish()).next_u64()
}

/// Which records of a source are held out: decided by a hash of the group alone, so that neither seed nor recipe moves the border.
#[derive(Debug, Default)]
pub(super) struct Border {
    share: f64,
    /// Raw ids of records that a held-out record refers to, and that come along.
    along: BTreeSet<String>,
}

impl Border {
    /// Looks for records that held-out records refer to.
    pub(super) fn survey(source: &Source) -> Result<Self, BuildError> {
        let mut border = Self { share: source.heldout, along: BTreeSet::new() };
        if source.heldout > 0.0 && source.heldout < 1.0 {
            let mut along = BTreeSet::new();
            let mut faults = Faults::default();
            each_record(source, &mut faults, &mut |_, record| {
                if border.by_group(source, &record) {
                    match &record {
                        Record::Product(p) => along.extend(p.judged.iter().map(|j| j.other.clone())),
                        Record::Query(q) => along.extend(q.judged.iter().map(|j| j.product.clone())),
                        _ => {}
                    }
                }
                true
            })?;
            must_have_rows(source, &faults)?;
            border.along = along;
        }
        Ok(border)
    }

    fn by_group(&self, source: &Source, record: &Record) -> bool {
        let drawn = (hash(&[&source.name, &record.meta().group]) >> 11) as f64 / (1u64 << 53) as f64;
        drawn < self.share
    }

    /// Whether a record is held out.
    pub(super) fn holds(&self, source: &Source, record: &Record) -> bool {
        self.share > 0.0 && (self.by_group(source, record) || self.along.contains(&record.meta().raw_id))
    }
}

/// Reads all rows of a source into blocks of the training side, or of the held-out side.
pub(super) fn blocks(
    source: &Source,
    border: &Border,
    heldout: bool,
    faults: &mut Faults,
    emit: &mut dyn FnMut(Block) -> bool,
) -> Result<(), BuildError> {
    let mut open: BTreeMap<(Split, crate::instruction::Lang), Block> = BTreeMap::new();
    let mut going = true;
    each_record(source, faults, &mut |file, record| {
        if border.holds(source, &record) != heldout {
            return true;
        }
        let key = (file.split, record.meta().lang);
        let block = open.entry(key).or_insert_with(|| Block::new(source.name.clone(), key.0, key.1));
        if heldout {
            if block.len() < HELD {
                block.push(record);
            }
            return true;
        }
        block.push(record);
        if block.len() >= BLOCK {
            going = emit(std::mem::replace(block, Block::new(source.name.clone(), key.0, key.1)));
        }
        going
    })?;
    for (_, block) in open {
        if going && !block.is_empty() {
            going = emit(block);
        }
    }
    Ok(())
}

/// Every record of a source, in order of files and rows, until `visit` says no.
pub(super) fn each_record(
    source: &Source,
    faults: &mut Faults,
    visit: &mut dyn FnMut(&RawFile, Record) -> bool,
) -> Result<(), BuildError> {
    // An own id that stands for two things would mix them up. Known data sets repeat theirs on purpose.
    let mut ids: FxHashMap<u64, u64> = FxHashMap::default();
    let mut twice = Vec::new();
    let own = matches!(source.how, How::Mapped(_));
    for file in &source.files {
        let mut going = true;
        let mut pass = |record: Record| {
            let (kind, shown) = told(&record);
            let id = &record.meta().raw_id;
            if own && *ids.entry(hash(&[kind, id])).or_insert(hash(&[shown])) != hash(&[shown]) {
                twice.push(format!("{}: id {id:?} is there already, with another text", file.name));
            } else if going {
                going = visit(file, record);
            }
        };
        let mut rows = Rows::new(file, &mut pass);
        let read: io::Result<()> = match &source.how {
            How::Known(adapter) => (adapter.read)(file, &mut rows),
            How::Mapped(mapping) => generic::read(file, mapping, &mut rows),
            How::Made(lang, seed) => {
                shop::read(*lang, *seed, &mut rows);
                Ok(())
            }
        };
        let report = rows.finish();
        faults.records += report.records;
        faults.bad += report.bad;
        faults.first.extend(report.first_bad.into_iter().take(10usize.saturating_sub(faults.first.len())));
        read.map_err(|e| BuildError::io(&file.path, e))?;
        faults.records -= twice.len();
        faults.bad += twice.len();
        faults.first.extend(twice.drain(..).take(10usize.saturating_sub(faults.first.len())));
        if !going {
            return Ok(());
        }
    }
    Ok(())
}

/// Refuses a source that gave no good row, and names the first bad one.
pub(super) fn must_have_rows(source: &Source, faults: &Faults) -> Result<(), BuildError> {
    if faults.records == 0 {
        let first =
            faults.first.first().map_or_else(|| "its files hold no row".to_owned(), |first| format!("first {first}"));
        let what =
            format!("source {:?}: wanted at least one good row, found {} bad ones; {first}", source.name, faults.bad);
        return Err(BuildError::Rows(what));
    }
    Ok(())
}

/// The kind of a record, and the text that its annotations are about.
fn told(record: &Record) -> (&'static str, &str) {
    match record {
        Record::Product(p) => ("product", &p.title),
        Record::Review(r) => ("review", &r.text),
        Record::Dialogue(d) => ("dialogue", d.turns.last().map_or("", |t| &t.text)),
        Record::Query(q) => ("query", &q.text),
    }
}
