//! `mg_shopdial`: shop dialogues with dialogue acts by votes, as one JSON array.
//!
//! The goal of each turn (search, recommendation, …) is not read: a turn has no place for it, and it changes within a
//! dialogue.

use std::io;

use serde::Deserialize;

use super::clean::clean;
use super::table::objects;
use super::{RawFile, Rows};
use crate::instruction::Lang;
use crate::record::{Dialogue, Meta, Record, Speaker, Turn};

#[derive(Deserialize)]
struct Row {
    id: String,
    utterances: Vec<Utterance>,
}

#[derive(Deserialize)]
struct Utterance {
    participant: String,
    #[serde(rename = "utterance")]
    text: String,
    intents: Vec<(String, f64)>,
}

pub(super) fn read(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    for (line, object) in objects(&file.text()?) {
        match serde_json::from_str(object).map_err(|e| e.to_string()).and_then(dialogue) {
            Ok((id, dialogue)) => {
                let meta = Meta { raw_id: format!("{}#{id}", file.name), group: String::new(), lang: Lang::En };
                rows.push(line, Record::Dialogue(Dialogue { meta, ..dialogue }));
            }
            Err(what) => rows.bad(line, what),
        }
    }
    Ok(())
}

fn dialogue(row: Row) -> Result<(String, Dialogue), String> {
    let mut turns = Vec::with_capacity(row.utterances.len());
    for Utterance { participant, text, mut intents } in row.utterances {
        let speaker = match participant.as_str() {
            "Client" => Speaker::Customer,
            "Wizard" => Speaker::Agent,
            other => return Err(format!("wanted Client or Wizard, found {other:?}")),
        };
        intents.sort_by(|a, b| b.1.total_cmp(&a.1));
        let acts = intents.iter().map(|(name, _)| readable(name)).collect();
        turns.push(Turn { speaker, text: clean(&text), acts });
    }
    let topic = topic(row.id.split(':').next().unwrap_or_default());
    Ok((row.id, Dialogue { turns, topic: Some(topic), ..Dialogue::default() }))
}

/// What the names stand for in the paper (`MG-ShopDial`, table of intents).
fn readable(act: &str) -> String {
    match act {
        "greeting" => "greetings",
        "interaction" => "interaction structuring",
        "disclose" => "disclose",
        "clarify" => "clarification question",
        "o_question" => "other question",
        "elicit" => "elicit preferences",
        "pf" => "positive feedback",
        "nf" => "negative feedback",
        other => return clean(&other.replace('_', " ")),
    }
    .to_owned()
}

/// The first part of an id, with the spaces put back.
fn topic(name: &str) -> String {
    match name {
        "Cellphones&Accessories" => "cell phones & accessories".into(),
        "SportsandOutdoors" => "sports and outdoors".into(),
        "Officeproducts" => "office products".into(),
        _ => clean(&name.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use crate::raw::tests::{bad, dialogues};
    use crate::record::Speaker;

    #[test]
    fn acts_are_ordered_by_votes() {
        let text = r#"[
 {"id": "Books:1", "metadata": {}, "utterances": [
  {"participant": "Wizard", "utterance": "Hi ", "intents": [["pf", 2.0], ["greeting", 3.0]]}]},
 {"id": "Books:2", "utterances": [{"participant": "Nobody", "utterance": "Hi", "intents": []}]},
 {"id": "Books:3", "utterances": []}
]"#;
        let (found, report) = dialogues(super::read, "mg_shopdial/a.json", text);
        let turn = &found[0].turns[0];
        assert_eq!((turn.speaker, turn.text.as_str()), (Speaker::Agent, "Hi"));
        assert_eq!(turn.acts, ["greetings", "positive feedback"]);
        assert_eq!(
            (found[0].topic.as_deref(), found[0].meta.raw_id.as_str()),
            (Some("books"), "mg_shopdial/a.json#Books:1")
        );
        assert_eq!(bad(&report)[0], "mg_shopdial/a.json:4: wanted Client or Wizard, found \"Nobody\"");
        assert_eq!(bad(&report)[1], "mg_shopdial/a.json:5: wanted at least one turn, found none");
    }
}
