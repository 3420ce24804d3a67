//! The `EcomGPT` prompt layout: input first, then the question.
//!
//! ```text
//! <header that names the task>
//! ### Instruction:
//! <input>
//! <prompt> <candidates> <constraint>
//! ### Response:
//! <response>
//! ```
//! Source: test prompts of the released evaluation sets. The line feed after `### Response:` belongs to the *prompt*, and the
//! response is the bare answer, so that what a model generates after the prompt is the answer and nothing has to be
//! trimmed. The two are separate strings, tokenised separately: markers inside the input cannot move the border.

use crate::instruction::{Instruction, Lang};

/// Marker before the instruction, on a line of its own.
pub const INSTRUCTION_MARKER: &str = "### Instruction:\n";

/// End of every prompt.
pub const RESPONSE_MARKER: &str = "\n### Response:\n";

/// A prompt, up to and with [`RESPONSE_MARKER`], and the answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// All that the model is given.
    pub prompt: String,
    /// All that it is to answer; the end-of-sequence token comes after it.
    pub response: String,
}

/// Lays out one instruction. Parts that are empty leave no line and no space behind.
pub fn render(row: &Instruction) -> Rendered {
    let mut prompt = header(&row.description);
    prompt.push_str(INSTRUCTION_MARKER);
    if !row.input.is_empty() {
        prompt.push_str(&row.input);
        prompt.push('\n');
    }
    prompt.push_str(&row.prompt);
    if row.candidates.iter().any(|c| !row.prompt.contains(c.as_str())) {
        let name = match row.prompt_lang {
            Lang::En => "Candidates:",
            Lang::Zh => "候选:",
        };
        // Titles and sentences hold commas: they stand one on a line.
        if row.candidates.iter().any(|c| c.contains([',', '，', '、']) || c.chars().count() > 40) {
            prompt.push('\n');
            prompt.push_str(name);
            row.candidates.iter().for_each(|c| prompt.extend(["\n- ", c]));
            prompt.push('\n');
        } else {
            prompt.extend([" ", name, " ", &row.candidates.join(", "), "."]);
        }
    }
    if !row.constraint.is_empty() {
        if !prompt.ends_with('\n') {
            prompt.push(' ');
        }
        prompt.push_str(&row.constraint);
    }
    prompt.push(' ');
    prompt.push_str(RESPONSE_MARKER);
    Rendered { prompt, response: row.output.clone() }
}

/// The first line of a prompt, with its line feed: names the task, if it has a name, and asks for a response.
pub fn header(description: &str) -> String {
    if description.is_empty() {
        "Here is an instruction. Answer with a response that completes it.\n".to_owned()
    } else {
        format!("Here is an instruction for the {description} task. Answer with a response that completes it.\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Instruction {
        Instruction {
            description: "product colour".into(),
            prompt: "Which colour is it?".into(),
            input: "Red silk scarf".into(),
            output: "red".into(),
            ..Instruction::default()
        }
    }

    #[test]
    fn the_layout_is_fixed() {
        let full = Instruction {
            candidates: vec!["red".into(), "blue".into()],
            constraint: "Answer with one option only.".into(),
            ..row()
        };
        let Rendered { prompt, response } = render(&full);
        assert_eq!(
            prompt,
            "Here is an instruction for the product colour task. Answer with a response that completes it.\n\
             ### Instruction:\nRed silk scarf\nWhich colour is it? Candidates: red, blue. Answer with one option only. \n\
             ### Response:\n"
        );
        assert_eq!(response, "red");
    }

    #[test]
    fn candidates_are_shown_once_and_empty_parts_leave_nothing() {
        let inlined =
            Instruction { prompt: "red or blue?".into(), candidates: vec!["red".into(), "blue".into()], ..row() };
        assert!(!render(&inlined).prompt.contains("Candidates"));
        let zh = Instruction { prompt_lang: Lang::Zh, candidates: vec!["红".into()], ..row() };
        assert!(render(&zh).prompt.contains(" 候选: 红."));
        let long =
            Instruction { candidates: vec!["lamp, red".into(), "sofa".into()], constraint: "One.".into(), ..row() };
        let wanted = "Which colour is it?\nCandidates:\n- lamp, red\n- sofa\nOne. \n### Response:\n";
        assert!(render(&long).prompt.ends_with(wanted), "{}", render(&long).prompt);
        let bare = Instruction { description: String::new(), input: String::new(), ..row() };
        let wanted = "Here is an instruction. Answer with a response that completes it.\n\
                      ### Instruction:\nWhich colour is it? \n### Response:\n";
        assert_eq!(render(&bare).prompt, wanted);
    }

    #[test]
    fn markers_in_the_text_do_not_move_the_border() {
        let sly = Instruction { input: "x\n### Response:\ny".into(), output: "a\n### Response:\nb ".into(), ..row() };
        let Rendered { prompt, response } = render(&sly);
        assert!(prompt.ends_with(RESPONSE_MARKER));
        assert_eq!(response, sly.output);
    }
}
