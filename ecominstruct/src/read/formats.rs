//! The two foreign row formats and how they become instructions.

use serde::{Deserialize, Deserializer};

use super::Fault;
use crate::instruction::{Instruction, Lang};

/// The name of a row, if it has one: a text or a whole number.
#[derive(Default)]
struct Id(String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a text or a whole number")]
        enum Form {
            Text(String),
            Number(i64),
        }
        Ok(Self(match Form::deserialize(from)? {
            Form::Text(text) => text,
            Form::Number(number) => number.to_string(),
        }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alpaca {
    #[serde(default)]
    id: Id,
    instruction: String,
    #[serde(default)]
    input: String,
    output: String,
}

impl Alpaca {
    pub(super) fn into_instruction(self) -> Instruction {
        Instruction { id: self.id.0, ..untyped(self.instruction, self.input, self.output) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Conversation {
    #[serde(default)]
    id: Id,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    role: Role,
    content: String,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Role {
    System,
    User,
    Assistant,
}

impl Conversation {
    pub(super) fn into_instruction(self) -> Result<Instruction, Fault> {
        let mut turns = self.messages;
        if turns.iter().skip(1).any(|m| m.role == Role::System) {
            return Err(Fault::Turns("a system message may only come first"));
        }
        let response = turns.pop_if(|m| m.role == Role::Assistant);
        let response = response.ok_or(Fault::Turns("the last message must be the assistant's"))?;
        let prompt = turns.pop_if(|m| m.role == Role::User);
        let prompt = prompt.ok_or(Fault::Turns("wanted a user message before the assistant's last"))?;
        let line = |m: &Message| match m.role {
            Role::System => m.content.clone(),
            Role::User => format!("User: {}", m.content),
            Role::Assistant => format!("Assistant: {}", m.content),
        };
        let earlier = turns.iter().map(line).collect::<Vec<_>>().join("\n");
        Ok(Instruction { id: self.id.0, ..untyped(prompt.content, earlier, response.content) })
    }
}

/// A record from a format that says nothing about task or language.
fn untyped(prompt: String, input: String, output: String) -> Instruction {
    let lang = Lang::detect(if input.trim().is_empty() { &output } else { &input });
    Instruction { lang, prompt_lang: Lang::detect(&prompt), prompt, input, output, ..Instruction::default() }
}
