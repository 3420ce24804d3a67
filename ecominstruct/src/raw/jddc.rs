//! `jddc_dialogues`: Chinese customer service. A sample of whole sessions, one message a row, and development sessions
//! whose questions have three reference replies each.
//!
//! The flags `is_transfer` and `is_repeat` hold for whole sessions and are not read: no record has a place for them.

use std::collections::BTreeMap;
use std::io;

use super::clean::clean;
use super::table::{Layout, lines, table};
use super::{RawFile, Rows};
use crate::instruction::Lang;
use crate::record::{Dialogue, Meta, Record, Speaker, Turn};

pub(super) fn read(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    if file.name.ends_with("dev_question.txt") { questions(file, rows) } else { sessions(file, rows) }
}

/// Sessions of messages; the rows of one stand together.
fn sessions(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    let mut open: Option<(String, usize, Vec<Turn>)> = None;
    let finish = |rows: &mut Rows<'_>, open: Option<(String, usize, Vec<Turn>)>| {
        if let Some((session, line, turns)) = open {
            let meta = Meta { raw_id: format!("{}#{session}", file.name), group: String::new(), lang: Lang::Zh };
            rows.push(line, Record::Dialogue(Dialogue { meta, turns, ..Dialogue::default() }));
        }
    };
    table(
        file,
        Layout::PlainTsv,
        ["session", "speaker", "content"],
        rows,
        |rows, line, [session, speaker, content]| {
            let speaker = match speaker {
                "user" => Speaker::Customer,
                "agent" => Speaker::Agent,
                _ => return rows.bad(line, format!("wanted user or agent, found {speaker:?}")),
            };
            if open.as_ref().is_none_or(|(id, ..)| id != session) {
                let last = open.replace((session.to_owned(), line, Vec::new()));
                finish(rows, last);
            }
            if let Some((_, _, turns)) = &mut open {
                turns.push(Turn { speaker, text: clean(content), acts: Vec::new() });
            }
        },
    )?;
    finish(rows, open);
    Ok(())
}

/// The development sessions: the context, then each question with its replies. The first reply, which the agent gave,
/// stands before the next question.
fn questions(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    let answers = answers(&file.sibling("dev_answer.txt"), rows)?;
    let mut session = String::new();
    let (mut turns, mut asked) = (Vec::new(), 0);
    lines(file, rows, |rows, line, text| {
        if text.is_empty() || text.starts_with("</") || text == "<context>" {
        } else if let Some(id) = text.strip_prefix("<session ").and_then(|rest| rest.strip_suffix('>')) {
            id.clone_into(&mut session);
            turns.clear();
            asked = 0;
        } else if let Some(said) = text.strip_prefix("Q:\t") {
            turns.push(Turn { speaker: Speaker::Customer, text: message(said), acts: Vec::new() });
        } else if let Some(said) = text.strip_prefix("A:\t") {
            turns.extend(replies(said).into_iter().next().map(said_by_agent));
        } else if let Some(said) = question(text) {
            asked += 1;
            let replies = answers.get(&session).and_then(|list| list.get(asked - 1)).cloned().unwrap_or_default();
            turns.push(Turn { speaker: Speaker::Customer, text: message(said), acts: Vec::new() });
            let group = format!("{}#{session}", file.name);
            let meta = Meta { raw_id: format!("{group}-{asked}"), group, lang: Lang::Zh };
            let reply = replies.first().cloned();
            if replies.is_empty() {
                rows.bad(line, "wanted reference replies, found none");
            } else {
                let dialogue = Dialogue { meta, turns: turns.clone(), replies, ..Dialogue::default() };
                rows.push(line, Record::Dialogue(dialogue));
            }
            turns.extend(reply.map(said_by_agent));
        } else {
            rows.bad(line, "wanted a session, Q:, A: or <Qn>, found something else");
        }
    })
}

fn said_by_agent(text: String) -> Turn {
    Turn { speaker: Speaker::Agent, text, acts: Vec::new() }
}

/// Replies to the questions of each session, in order.
fn answers(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<BTreeMap<String, Vec<Vec<String>>>> {
    let mut answers: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    let mut session = String::new();
    lines(file, rows, |_, _, text| {
        if let Some(id) = text.strip_prefix("<session ").and_then(|rest| rest.strip_suffix('>')) {
            id.clone_into(&mut session);
        } else if !text.is_empty() && !text.starts_with("</session") {
            answers.entry(session.clone()).or_default().push(replies(text));
        }
    })?;
    Ok(answers)
}

/// `a<sep>b<sep>NULL` as its texts, each once.
fn replies(text: &str) -> Vec<String> {
    let mut replies = Vec::new();
    for reply in text.split("<sep>").map(message).filter(|reply| !reply.is_empty() && reply != "NULL") {
        if !replies.contains(&reply) {
            replies.push(reply);
        }
    }
    replies
}

/// Several messages sent in a row count as one.
fn message(text: &str) -> String {
    clean(&text.replace("!@@@!", " "))
}

/// The text of `<Q1>text</Q1>`.
fn question(text: &str) -> Option<&str> {
    let (number, rest) = text.strip_prefix("<Q")?.split_once('>')?;
    rest.strip_suffix(&format!("</Q{number}>"))
}

#[cfg(test)]
mod tests {
    use crate::raw::Rows;
    use crate::raw::tests::{bad, dialogues, raw_file};
    use crate::record::{Record, Speaker};

    #[test]
    fn rows_of_a_session_become_its_turns() {
        let text = "session\tspeaker\tis_transfer\tis_repeat\tcontent\n\
                    1\tuser\t0\t0\t你 \"好\n1\tagent\t0\t0\t您好\n\
                    2\tuser\t0\t0\t在\n2\tbot\t0\t0\t在\n";
        let (found, report) = dialogues(super::read, "jddc_dialogues/a.tsv", text);
        assert_eq!((found.len(), found[0].turns.len(), found[1].turns.len()), (2, 2, 1));
        assert_eq!((found[0].turns[0].text.as_str(), found[0].turns[1].speaker), ("你 \"好", Speaker::Agent));
        assert_eq!(found[1].meta.raw_id, "jddc_dialogues/a.tsv#2");
        assert_eq!(bad(&report), ["jddc_dialogues/a.tsv:5: wanted user or agent, found \"bot\""]);
    }

    #[test]
    fn each_question_ends_a_dialogue_with_replies() {
        let text = "<session a>\n<context>\nQ:\t灯坏\nA:\t好<sep>行<sep>NULL\n</context>\n\
                    <Q1>换!@@@!吗</Q1>\n<Q2>谢</Q2>\n<Q3>?</Q3>\n</session a>\n";
        let (folder, file) = raw_file("jddc_dialogues/dev_question.txt", text.as_bytes());
        let answers =
            "<session a>\n可以<sep>可以<sep>能\n客气<sep>NULL<sep>NULL\nNULL<sep>NULL<sep>NULL\n</session a>\n";
        std::fs::write(folder.path().join("jddc_dialogues/dev_answer.txt"), answers).unwrap();
        let mut found = Vec::new();
        let mut emit = |record| found.push(record);
        let mut rows = Rows::new(&file, &mut emit);
        super::read(&file, &mut rows).unwrap();
        let report = rows.finish();
        let [Record::Dialogue(first), Record::Dialogue(second)] = &found[..] else { panic!("{found:?}") };
        let said: Vec<_> = second.turns.iter().map(|turn| turn.text.as_str()).collect();
        assert_eq!(said, ["灯坏", "好", "换 吗", "可以", "谢"]);
        assert_eq!((first.turns.len(), &first.replies[..]), (3, &["可以".to_owned(), "能".to_owned()][..]));
        assert_eq!(first.meta.group, second.meta.group);
        assert_eq!(bad(&report), ["jddc_dialogues/dev_question.txt:8: wanted reference replies, found none"]);
    }
}
