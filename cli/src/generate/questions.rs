//! The questions of a file: instructions whose answers may be missing, or raw prompts.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use ecominstruct::prompt;
use ecominstruct::read::{Fault, ReadError};
use serde_json::{Map, Value, json};

use crate::data;

/// One prompt of a file.
pub struct Question {
    pub id: Value,
    pub text: String,
}

/// Reads the questions of a file, or of stdin where it is called `-`. A row without an id is called by its line.
pub fn read(path: &Path) -> anyhow::Result<Vec<Question>> {
    let name = path.display().to_string();
    let mut content = Vec::new();
    if name == "-" {
        std::io::stdin().read_to_end(&mut content).context("cannot read stdin")?;
    } else {
        std::fs::File::open(path)
            .and_then(|mut f| f.read_to_end(&mut content))
            .with_context(|| format!("{name}: cannot read"))?;
    }
    let mut questions = Vec::new();
    for (i, line) in content.split(|&b| b == b'\n').enumerate() {
        if let Some(asked) = question(line, &name, i + 1, questions.len() + 1)? {
            questions.push(asked);
        }
    }
    if questions.is_empty() {
        bail!("{name}: wanted at least one line, found none");
    }
    Ok(questions)
}

/// Line `at` of the file, which would be prompt `number`; `None` if it is blank.
fn question(line: &[u8], name: &str, at: usize, number: usize) -> anyhow::Result<Option<Question>> {
    let place = format!("{name}:{at}");
    let line =
        str::from_utf8(line).map_err(|e| anyhow!("{place}: invalid UTF-8 at byte {} of the line", e.valid_up_to()))?;
    let line = line.strip_prefix('\u{feff}').unwrap_or(line).trim();
    if line.is_empty() {
        return Ok(None);
    }
    let row = match data::parse_line(line, name, at) {
        Err(e) if !e.downcast_ref::<ReadError>().is_some_and(|e| may_lack_an_answer(&e.fault)) => return Err(e),
        row => row,
    };
    let mut value: Map<String, Value> = serde_json::from_str(line).map_err(|e| anyhow!("{place}: broken JSON: {e}"))?;
    let id = value.get("id").cloned().unwrap_or_else(|| json!(format!("line {at}")));
    if value.contains_key("text") {
        return Ok(Some(Question { id, text: raw(&value, &place, number)? }));
    }
    let row = match row {
        Ok(row) => row,
        Err(_) => {
            put_in_what_may_lack(&mut value);
            data::parse_line(&Value::Object(value).to_string(), name, at)?
        }
    };
    Ok(Some(Question { id, text: prompt::render(&row).prompt }))
}

/// Whether a row that the readers of training data refuse so could be a question.
fn may_lack_an_answer(fault: &Fault) -> bool {
    match fault {
        Fault::Keys(what) => !what.starts_with("duplicate field"),
        Fault::EmptyOutput | Fault::Turns(_) => true,
        _ => false,
    }
}

/// Puts in what a question may lack and a row of training data must have: the answer, and in the project's own form the
/// task's name and the input.
fn put_in_what_may_lack(row: &mut Map<String, Value>) {
    if let Some(Value::Array(turns)) = row.get_mut("messages") {
        if turns.last().and_then(|t| t.get("role")).is_none_or(|role| role != "assistant") {
            turns.push(json!({ "role": "assistant", "content": "-" }));
        }
        return;
    }
    let blank = |v: &Value| v.is_null() || v.as_str().is_some_and(|v| v.trim().is_empty());
    if row.get("output").is_none_or(blank) {
        row.insert("output".into(), json!("-"));
    }
    if row.contains_key("prompt") && !row.contains_key("instruction") {
        for key in ["description", "input"] {
            row.entry(key).or_insert_with(|| json!(""));
        }
    }
}

/// The text of a raw prompt.
fn raw(row: &Map<String, Value>, place: &str, number: usize) -> anyhow::Result<String> {
    if let Some(key) = row.keys().find(|key| !["id", "text"].contains(&key.as_str())) {
        bail!("{place}: unknown key {key:?}: wanted only \"id\" beside \"text\"");
    }
    if let Some((key, _)) = row.iter().find(|(_, value)| value.as_str().is_some_and(|v| v.contains('\0'))) {
        bail!("{place}: NUL character in {key:?}");
    }
    match row.get("text").and_then(Value::as_str) {
        Some("") => bail!("{place}: prompt {number} is empty: wanted some \"text\""),
        Some(text) => Ok(text.to_owned()),
        None => bail!("{place}: key \"text\": wanted a string"),
    }
}
