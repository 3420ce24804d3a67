//! Tasks on product information: F01 to F11, A01 to A32, A66 and A67.

mod attribute;
mod category;
mod copy;
mod facts;
mod mixup;
mod offer;
mod sheet;
mod span;
#[cfg(test)]
mod tests;
mod typed;
pub(super) mod words;

use Paradigm::{Cls, Ext, Gen, Oth};
use Strategy::{Recombination, Reversal, Simplification};

use super::block::Block;
use super::{Draft, GateKind, Make, Task};
use crate::instruction::{DataType, Paradigm, Strategy};
use crate::splitmix::SplitMix;

type Maker = fn(&Block, usize, &mut SplitMix) -> Option<Draft>;
type Parents = &'static [&'static str];

pub(super) const TASKS: &[Task] = &[
    twin(last("F01", Oth, typed::entities)),
    twin(last("F02", Oth, attribute::values)),
    twin(last("F03", Cls, category::department)),
    twin(last("F04", Cls, category::leaf)),
    matching(twin(last("F05", Cls, offer::is_same))),
    matching(twin(last("F06", Cls, mixup::consistent))),
    twin(last("F07", Gen, copy::title)),
    last("F08", Gen, copy::shorter),
    last("F09", Gen, copy::description),
    lost("F10", Cls, Strategy::None, &[]),
    last("F11", Ext, typed::brand),
    twin(step("A01", Ext, Simplification, &["F01", "F02"], typed::untyped)),
    twin(step("A02", Ext, Simplification, &["F01", "F02"], typed::one_type)),
    step("A03", Cls, Simplification, &["F01", "F02"], span::type_of),
    step("A04", Cls, Simplification, &["F01", "F02"], typed::occurs),
    step("A05", Gen, Simplification, &["F01"], typed::count),
    step("A06", Cls, Simplification, &["F01", "F02"], typed::types_present),
    step("A07", Cls, Simplification, &["F01"], span::is_whole),
    step("A08", Cls, Simplification, &["F01", "F02"], span::has_type),
    step("A09", Ext, Simplification, &["F01"], typed::overlooked),
    step("A10", Gen, Reversal, &["F01", "F02"], typed::from_entities),
    step("A11", Ext, Recombination, &["F01", "F02"], span::gap),
    step("A12", Cls, Simplification, &["F02"], attribute::names_stated),
    step("A13", Cls, Simplification, &["F02"], attribute::name_of),
    step("A14", Ext, Simplification, &["F07", "F06"], sheet::look_up),
    step("A15", Gen, Simplification, &["F07"], sheet::tidy),
    // Whether the title holds the value is the question itself, so the gate on word overlap does not apply.
    twin(step("A16", Cls, Simplification, &["F06", "F02"], attribute::is_said)),
    step("A17", Ext, Simplification, &["F06", "F07"], sheet::used_in_title),
    matching(twin(step("A18", Cls, Recombination, &["F05", "F06"], mixup::belongs))),
    step("A19", Ext, Recombination, &["F06"], mixup::wrong_pair),
    selecting(twin(step("A20", Ext, Recombination, &["F06", "F07"], mixup::title_of))),
    step("A21", Cls, Simplification, &["F02"], sheet::lacking),
    twin(step("A22", Gen, Reversal, &["F07"], attribute::facts_of_title)),
    step("A23", Gen, Recombination, &["F05"], sheet::differences),
    step("A24", Gen, Recombination, &["F05", "F10"], sheet::common),
    matching(step("A25", Cls, Simplification, &["F03", "F04"], category::is_in)),
    matching(step("A26", Cls, Recombination, &["F04"], category::same_category)),
    selecting(step("A27", Ext, Recombination, &["F04"], category::odd_one)),
    step("A28", Cls, Simplification, &["F03", "F04"], category::parent),
    selecting(twin(step("A29", Ext, Reversal, &["F04"], category::member))),
    selecting(twin(step("A30", Ext, Recombination, &["F05"], offer::duplicate))),
    step("A31", Oth, Simplification, &["F05"], offer::details),
    lost("A32", Cls, Reversal, &["F10"]),
    selecting(step("A66", Ext, Recombination, &["F09"], copy::which_description)),
    twin(step("A67", Gen, Reversal, &["F08", "F09"], copy::title_of_text)),
];

const fn last(id: &'static str, paradigm: Paradigm, draft: Maker) -> Task {
    step(id, paradigm, Strategy::None, &[], draft)
}

const fn step(id: &'static str, paradigm: Paradigm, strategy: Strategy, parents: Parents, draft: Maker) -> Task {
    let draft = Make::From(draft);
    Task { id, dtype: DataType::Product, paradigm, strategy, parents, twin: false, gate: None, draft }
}

const fn lost(id: &'static str, paradigm: Paradigm, strategy: Strategy, parents: Parents) -> Task {
    let draft = Make::Never("a record that says which product replaces or complements which");
    Task { id, dtype: DataType::Product, paradigm, strategy, parents, twin: false, gate: None, draft }
}

const fn twin(task: Task) -> Task {
    Task { twin: true, ..task }
}

const fn matching(task: Task) -> Task {
    Task { gate: Some(GateKind::Match), ..task }
}

const fn selecting(task: Task) -> Task {
    Task { gate: Some(GateKind::Select), ..task }
}
