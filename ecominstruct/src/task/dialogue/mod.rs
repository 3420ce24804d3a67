//! Tasks on dialogues: what the customer wants, what was said, who spoke, and what comes next.
//!
//! The input is a window: one turn a line with its speaker, the last eight turns at most, from a customer's turn on where
//! earlier ones are left out. What is asked about is its last turn, or what would come after it.

mod act;
mod intent;
mod reply;
mod slot;
mod summary;
#[cfg(test)]
pub(super) mod tests;

use std::ops::RangeInclusive;

use super::block::Block;
use super::{GateKind, Make, Task};
use crate::instruction::{DataType, Lang, Paradigm, Strategy, is_han};
use crate::record::{Dialogue, Speaker};
use crate::shingle::{distinct, hash_chars, shared};
use crate::splitmix::SplitMix;

const FINAL: Task = Task {
    id: "",
    dtype: DataType::Dialogue,
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
    Task { id: "F24", draft: Make::From(intent::of_last_turn), ..FINAL },
    Task { id: "F25", paradigm: Paradigm::Oth, draft: Make::From(slot::values), ..FINAL },
    Task { id: "F26", paradigm: Paradigm::Gen, draft: Make::From(reply::write), ..FINAL },
    Task { id: "F27", draft: Make::From(act::of_last_turn), ..FINAL },
    Task { id: "F28", paradigm: Paradigm::Gen, draft: Make::From(summary::write), ..FINAL },
    Task {
        id: "F29",
        paradigm: Paradigm::Ext,
        draft: Make::Never("help articles and which of them answers a dialogue"),
        ..FINAL
    },
    Task {
        id: "F35",
        draft: Make::Never("pairs of delivery addresses, judged same, partly same or different"),
        ..FINAL
    },
    Task { id: "A48", parents: &["F26", "F27"], draft: Make::From(act::who_speaks), ..SIMPLE },
    Task {
        id: "A49",
        paradigm: Paradigm::Ext,
        parents: &["F26"],
        gate: Some(GateKind::Select),
        draft: Make::From(reply::choose),
        ..MIXED
    },
    Task { id: "A50", parents: &["F26"], draft: Make::From(reply::which_first), ..MIXED },
    Task { id: "A51", parents: &["F24"], gate: Some(GateKind::Match), draft: Make::From(intent::confirm), ..SIMPLE },
    Task { id: "A52", parents: &["F24"], gate: Some(GateKind::Match), draft: Make::From(intent::compare), ..MIXED },
    Task { id: "A53", paradigm: Paradigm::Ext, parents: &["F25"], draft: Make::From(slot::value), ..SIMPLE },
    Task { id: "A54", parents: &["F25"], draft: Make::From(slot::names), ..SIMPLE },
    Task {
        id: "A55",
        paradigm: Paradigm::Gen,
        parents: &["F24", "F25"],
        strategy: Strategy::Reversal,
        draft: Make::From(intent::phrase),
        ..FINAL
    },
    Task { id: "A56", parents: &["F26"], gate: Some(GateKind::Match), draft: Make::From(reply::judge), ..MIXED },
    Task {
        id: "A68",
        paradigm: Paradigm::Ext,
        parents: &["F28"],
        gate: Some(GateKind::Select),
        draft: Make::From(summary::choose),
        ..MIXED
    },
];

/// Most turns of a window.
const TURNS: usize = 8;

/// Dialogues looked at where a whole block would take too long.
const LOOKED_AT: usize = 1024;

/// Most characters of an input.
fn most(lang: Lang) -> usize {
    match lang {
        Lang::En => 2_400,
        Lang::Zh => 900,
    }
}

/// A text on one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A turn as a line that names its speaker.
fn line(speaker: Speaker, text: &str, lang: Lang) -> String {
    let name = match (lang, speaker) {
        (Lang::En, Speaker::Customer) => "Customer: ",
        (Lang::En, Speaker::Agent) => "Agent: ",
        (Lang::Zh, Speaker::Customer) => "用户：",
        (Lang::Zh, Speaker::Agent) => "客服：",
    };
    format!("{name}{}", one_line(text))
}

/// Which of the turns before `end` are shown: the last eight that fit; where earlier ones are left out, from a customer's
/// turn on. `None` where the last one alone does not fit.
fn window(d: &Dialogue, end: usize) -> Option<std::ops::Range<usize>> {
    let turns = d.turns.get(..end)?;
    let size = |t: &crate::record::Turn| t.text.chars().count() + 10;
    let mut start = end;
    let mut room = most(d.meta.lang);
    while start > 0 && end - start < TURNS {
        room = match room.checked_sub(size(&turns[start - 1])) {
            Some(room) => room,
            None => break,
        };
        start -= 1;
    }
    while start > 0 && turns.get(start).is_some_and(|t| t.speaker == Speaker::Agent) {
        start += 1;
    }
    (start < end).then_some(start..end)
}

/// The lines of some turns; turns without words are left out.
fn lines(d: &Dialogue, turns: std::ops::Range<usize>) -> Vec<String> {
    let turns = d.turns.get(turns).unwrap_or_default();
    let said = turns.iter().filter(|t| !t.text.trim().is_empty());
    said.map(|t| line(t.speaker, &t.text, d.meta.lang)).collect()
}

/// The window before turn `end`, as text.
fn shown(d: &Dialogue, end: usize) -> Option<String> {
    let lines = lines(d, window(d, end)?);
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// The whole dialogue as text; `None` where it is too long.
fn whole(d: &Dialogue) -> Option<String> {
    let text = lines(d, 0..d.turns.len()).join("\n");
    (!text.is_empty() && text.chars().count() <= most(d.meta.lang)).then_some(text)
}

/// Number of words, of characters in Chinese.
fn length(text: &str, lang: Lang) -> usize {
    match lang {
        Lang::En => text.split_whitespace().filter(|w| w.contains(char::is_alphanumeric)).count(),
        Lang::Zh => text.chars().filter(|c| c.is_alphanumeric()).count(),
    }
}

/// Whether a turn says something: three words, four characters in Chinese.
fn says_something(text: &str, lang: Lang) -> bool {
    length(text, lang) >= if lang == Lang::Zh { 4 } else { 3 }
}

/// Shared words (Chinese: characters) of two texts over all their words, in hundredths.
fn likeness(a: &str, b: &str) -> usize {
    let terms = |text: &str| {
        let lower = text.to_lowercase();
        let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
        let mut terms = Vec::new();
        for word in words {
            if word.contains(is_han) {
                terms.extend(word.chars().map(|c| hash_chars([c])));
            } else {
                terms.push(hash_chars(word.chars()));
            }
        }
        distinct(terms)
    };
    let (a, b) = (terms(a), terms(b));
    let both = shared(&a, &b);
    100 * both / (a.len() + b.len() - both).max(1)
}

/// `gold` and a number of `others` drawn from `extra`, in random order; all of them where there are not that many. `None`
/// where fewer than two come together.
pub(super) fn among(
    gold: &[&str],
    mut others: Vec<&str>,
    extra: RangeInclusive<usize>,
    rng: &mut SplitMix,
) -> Option<Vec<String>> {
    let wanted = extra.start() + rng.below(extra.end() + 1 - extra.start());
    rng.shuffle(&mut others);
    let mut list: Vec<String> = gold.iter().chain(others.iter().take(wanted)).map(|&s| s.to_owned()).collect();
    rng.shuffle(&mut list);
    (list.len() >= 2).then_some(list)
}

/// Numbers of the dialogues around `at`, all of a small block, without `at` itself.
fn around(block: &Block, at: usize) -> impl Iterator<Item = usize> {
    let n = block.dialogues.len();
    (1..n.min(LOOKED_AT)).map(move |i| (at + i) % n)
}
