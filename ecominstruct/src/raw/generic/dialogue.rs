//! A user's dialogues: a list of turns in each row, or a turn in each row.

use std::io;

use serde_json::Value;

use super::columns::{Cells, text, wrong};
use super::{DialogueColumns, Format, Language, source};
use crate::raw::{RawFile, Rows};
use crate::record::{Dialogue, Record, Speaker, Turn};

pub(super) fn read(
    file: &RawFile,
    format: Format,
    columns: &DialogueColumns,
    language: Language,
    rows: &mut Rows<'_>,
) -> io::Result<()> {
    match (&columns.turns, &columns.id, &columns.speaker, &columns.text) {
        (Some(turns), ..) => lists(file, format, columns, turns, language, rows),
        (None, Some(id), Some(speaker), Some(said)) => {
            grouped(file, format, columns, [id, speaker, said], language, rows)
        }
        _ => Err(file.invalid("wanted turns in [dialogue], or id, speaker and text")),
    }
}

/// A dialogue in each row.
fn lists(
    file: &RawFile,
    format: Format,
    columns: &DialogueColumns,
    turns: &String,
    language: Language,
    rows: &mut Rows<'_>,
) -> io::Result<()> {
    let others = [&columns.id, &columns.group, &columns.intent];
    let wanted: Vec<String> = others.into_iter().flatten().chain([turns]).cloned().collect();
    source::read(file, format, &wanted, rows, &mut |rows, line, values| {
        let cells = Cells { wanted: &wanted, values };
        let record = || {
            let meta = cells.meta(file, line, columns.id.as_ref(), columns.group.as_ref())?;
            let Value::Array(list) = cells.json(turns)? else {
                return Err(wrong(Some(turns), "a list of turns", "something else"));
            };
            let turns = list.iter().map(|turn| listed(turn, columns)).collect::<Result<Vec<_>, _>>()?;
            Ok(Dialogue { meta, turns, intent: cells.text(columns.intent.as_ref())?, ..Dialogue::default() })
        };
        match record() {
            Ok(dialogue) => push(rows, line, dialogue, language),
            Err(what) => rows.bad(line, what),
        }
    })
}

fn listed(turn: &Value, columns: &DialogueColumns) -> Result<Turn, String> {
    let key = |name: Option<&String>, default: &str| {
        let name = name.map_or(default, String::as_str);
        let value = turn.get(name).ok_or_else(|| format!("wanted {name:?} in each turn, found none"))?;
        text(value).map_err(|found| format!("wanted a text as {name:?} of each turn, found {found}"))
    };
    let speaker = key(columns.speaker.as_ref(), "speaker")?.unwrap_or_default();
    let text = key(columns.text.as_ref(), "text")?.unwrap_or_default();
    Ok(Turn { speaker: columns.who(&speaker)?, text, acts: Vec::new() })
}

/// A dialogue whose rows are being read.
struct Open {
    /// Line of its first row.
    line: usize,
    dialogue: Dialogue,
    /// The first row that was wrong, and what was.
    fault: Option<(usize, String)>,
}

/// A turn in each row. One bad row makes its dialogue bad: without it, the others would answer the wrong words.
fn grouped(
    file: &RawFile,
    format: Format,
    columns: &DialogueColumns,
    [id, speaker, said]: [&String; 3],
    language: Language,
    rows: &mut Rows<'_>,
) -> io::Result<()> {
    let others = [&columns.group, &columns.intent];
    let wanted: Vec<String> = others.into_iter().flatten().chain([id, speaker, said]).cloned().collect();
    let mut open: Option<Open> = None;
    let finish = |rows: &mut Rows<'_>, open: Option<Open>| match open {
        Some(Open { fault: Some((line, what)), .. }) => rows.bad(line, what),
        Some(Open { line, dialogue, fault: None }) => push(rows, line, dialogue, language),
        None => {}
    };
    source::read(file, format, &wanted, rows, &mut |rows, line, values| {
        let cells = Cells { wanted: &wanted, values };
        let meta = match cells.meta(file, line, Some(id), columns.group.as_ref()) {
            Ok(meta) => meta,
            Err(what) => return rows.bad(line, what),
        };
        if open.as_ref().is_none_or(|open| open.dialogue.meta.raw_id != meta.raw_id) {
            let last = open.replace(Open { line, dialogue: Dialogue { meta, ..Dialogue::default() }, fault: None });
            finish(rows, last);
        }
        let Some(Open { dialogue, fault, .. }) = &mut open else { return };
        let turn = || {
            let speaker = columns.who(&cells.text(Some(speaker))?.unwrap_or_default())?;
            let text = cells.text(Some(said))?.ok_or_else(|| wrong(Some(said), "a text", "nothing"))?;
            Ok((Turn { speaker, text, acts: Vec::new() }, cells.text(columns.intent.as_ref())?))
        };
        match turn() {
            Ok((turn, intent)) => {
                // The last customer turn's intent is the dialogue's.
                if turn.speaker == Speaker::Customer {
                    dialogue.intent = intent;
                }
                dialogue.turns.push(turn);
            }
            Err(what) => {
                fault.get_or_insert((line, what));
            }
        }
    })?;
    finish(rows, open);
    Ok(())
}

fn push(rows: &mut Rows<'_>, line: usize, mut dialogue: Dialogue, language: Language) {
    let all: Vec<&str> = dialogue.turns.iter().map(|turn| turn.text.as_str()).collect();
    dialogue.meta.lang = language.of(&all.join(" "));
    rows.push(line, Record::Dialogue(dialogue));
}

impl DialogueColumns {
    fn who(&self, name: &str) -> Result<Speaker, String> {
        let is = |own: &[String], usual: [&str; 4]| {
            if own.is_empty() {
                usual.iter().any(|n| n.eq_ignore_ascii_case(name))
            } else {
                own.iter().any(|n| n == name)
            }
        };
        if is(&self.customer, ["customer", "user", "client", "buyer"]) {
            Ok(Speaker::Customer)
        } else if is(&self.agent, ["agent", "assistant", "shop", "seller"]) {
            Ok(Speaker::Agent)
        } else {
            Err(format!("wanted a speaker that customer or agent in [dialogue] names, found {name:?}"))
        }
    }
}
