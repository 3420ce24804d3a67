//! Puts drafts into words: the templates, and the rendering flags of the paper's ablations.
//!
//! The templates are a data file (`tasks.toml`), several paraphrases for each task and language. The last English paraphrase of a
//! task is held out of training, for a test of robustness against wording.

mod fits;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::eval_set::answer_text;
use crate::instruction::{Gold, Instruction, Lang, Paradigm};
use crate::record::Polarity;
use crate::splitmix::SplitMix;
use crate::task::{Answer, Draft, Task, polarity_mark};

/// All words that the program puts around data.
#[derive(Debug, Deserialize)]
pub struct Wording {
    constraint: BTreeMap<String, Both<String>>,
    generic: BTreeMap<String, Both<String>>,
    field: BTreeMap<String, Both<String>>,
    polarity: Both<Vec<String>>,
    #[serde(flatten)]
    tasks: BTreeMap<String, TaskWords>,
}

/// The words of one task.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskWords {
    name: Both<String>,
    en: Vec<String>,
    zh: Vec<String>,
    labels: Option<Both<Vec<Vec<String>>>>,
    labels3: Option<Both<Vec<Vec<String>>>>,
    constraint: String,
}

/// The same in both languages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Both<T> {
    en: T,
    zh: T,
}

impl<T> Both<T> {
    fn of(&self, lang: Lang) -> &T {
        match lang {
            Lang::En => &self.en,
            Lang::Zh => &self.zh,
        }
    }
}

/// How instructions are rendered. Each ablation of the paper's table 11 is one setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Style {
    /// Language of prompts.
    pub prompts: Prompts,
    /// Share of Chinese inputs that get a Chinese prompt under [`Prompts::English`].
    pub chinese_share: f64,
    /// Whether the header names the task.
    pub description: bool,
    /// Whether prompts end with a constraint on the form of the answer.
    pub constraint: bool,
    /// Whether all tasks of a paradigm share one prompt.
    pub generic: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { prompts: Prompts::English, chinese_share: 0.2, description: true, constraint: true, generic: false }
    }
}

/// Language of prompts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prompts {
    /// English for all inputs but the share of Chinese ones that [`Style::chinese_share`] names.
    #[default]
    English,
    /// Chinese for all inputs.
    Chinese,
    /// The language of the input.
    Input,
}

/// Which paraphrases may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paraphrases {
    /// All but the held-out one.
    Train,
    /// Only the held-out one.
    HeldOut,
}

impl Wording {
    /// The project's own words.
    pub fn builtin() -> &'static Self {
        static WORDING: OnceLock<Wording> = OnceLock::new();
        WORDING.get_or_init(|| {
            // Part of the program; a test reads it, so it cannot fail here.
            Self::parse(include_str!("tasks.toml")).unwrap_or_else(|_| Self {
                constraint: BTreeMap::new(),
                generic: BTreeMap::new(),
                field: BTreeMap::new(),
                polarity: Both { en: Vec::new(), zh: Vec::new() },
                tasks: BTreeMap::new(),
            })
        })
    }

    /// Reads a wording file.
    ///
    /// # Errors
    /// What the TOML parser says.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Name of a task, as its prompts' header says it; empty for an unknown one.
    pub fn name(&self, task: &str, lang: Lang) -> &str {
        self.tasks.get(task).map_or("", |t| t.name.of(lang))
    }

    /// Number of paraphrases of a task.
    pub fn paraphrases(&self, task: &str, lang: Lang) -> usize {
        self.tasks.get(task).map_or(0, |t| t.list(lang).len())
    }

    /// Words `draft`, whose texts are in `lang`. `None` where the wording does not know the task, or where a label of the
    /// draft is not among the wording's.
    ///
    /// Sets the fields of the record that words decide; `id`, `source` and the like are the caller's.
    pub fn word(
        &self,
        task: &Task,
        draft: &Draft,
        lang: Lang,
        style: &Style,
        paraphrases: Paraphrases,
        rng: &mut SplitMix,
    ) -> Option<Instruction> {
        let words = self.tasks.get(task.id)?;
        let prompt_lang = match style.prompts {
            Prompts::English if lang == Lang::Zh && rng.below(10_000) < (style.chinese_share * 10_000.0) as usize => {
                Lang::Zh
            }
            Prompts::English => Lang::En,
            Prompts::Chinese => Lang::Zh,
            Prompts::Input => lang,
        };
        let list = words.list(prompt_lang);
        let at = match (paraphrases, prompt_lang) {
            (Paraphrases::HeldOut, _) => list.len().checked_sub(1)?,
            (Paraphrases::Train, Lang::En) => rng.below(list.len().saturating_sub(1)),
            (Paraphrases::Train, Lang::Zh) => rng.below(list.len()),
        };
        let spoken = |text: &str| self.speak(text, prompt_lang);
        let mut candidates: Vec<String> = draft.candidates.iter().map(|c| spoken(c)).collect();
        let (gold, output) = match &draft.answer {
            Answer::Nth(n) => nth(words.labels.as_ref(), *n, at, prompt_lang, &mut candidates, rng)?,
            Answer::NthOfThree(n) => nth(words.labels3.as_ref(), *n, at, prompt_lang, &mut candidates, rng)?,
            Answer::Labels(labels) => {
                let labels: Vec<String> = labels.iter().map(|l| spoken(l)).collect();
                let output = labels.join(", ");
                (Gold::Labels(labels), output)
            }
            Answer::Spans(spans) => {
                let spans: Vec<String> = spans.iter().map(|s| spoken(s)).collect();
                let output = if spans.is_empty() { "None".to_owned() } else { spans.join(", ") };
                (Gold::Spans(spans), output)
            }
            Answer::Entities(entities) => {
                let mut entities = entities.clone();
                entities.iter_mut().for_each(|e| e.text = spoken(&e.text));
                let mut kinds = candidates.clone();
                if kinds.is_empty() {
                    entities.iter().for_each(|e| {
                        if !kinds.contains(&e.kind) {
                            kinds.push(e.kind.clone());
                        }
                    });
                }
                let gold = Gold::Entities(entities);
                let output = answer_text(&gold, &kinds, ", ");
                (gold, output)
            }
            Answer::Text(text) => {
                let text = spoken(text);
                (Gold::Text(text.clone()), text)
            }
        };
        let template = if style.generic {
            self.generic.get(task.paradigm.name()).map_or("", |g| g.of(prompt_lang))
        } else {
            list.get(at)?
        };
        let all = joined(&candidates);
        let fills = &draft.fills;
        let prompt = fill(template, |name| match name {
            _ if LISTS.contains(&name) => all.clone(),
            _ => fills.iter().find(|f| f.0 == name).map(|f| spoken(&f.1)).unwrap_or_default(),
        });
        let mut input = self.input(draft, prompt_lang);
        if style.generic {
            // One prompt for all tasks has no gaps: what would fill them goes into the input.
            for (name, text) in fills {
                let named = self.field.get(*name).map_or(*name, |f| f.of(prompt_lang));
                input = format!("{input}\n{named}: {}", spoken(text));
            }
        }
        let constraint = match self.constraint.get(&words.constraint) {
            Some(text) if style.constraint => text.of(prompt_lang).clone(),
            _ => String::new(),
        };
        let number = if style.generic { "generic".to_owned() } else { (at + 1).to_string() };
        Some(Instruction {
            task: task.id.to_owned(),
            kind: task.kind(),
            parents: task.parents.iter().map(|&p| p.to_owned()).collect(),
            strategy: task.strategy,
            dtype: Some(task.dtype),
            paradigm: task.paradigm,
            lang,
            prompt_lang,
            description: if style.description { words.name.of(prompt_lang).clone() } else { String::new() },
            prompt,
            input: input.trim().to_owned(),
            n_candidates: (!candidates.is_empty()).then_some(candidates.len() as u32),
            candidates,
            constraint,
            output,
            gold: Some(gold),
            template_id: format!("{}-{}-{number}", task.id, prompt_lang.name()),
            format_twin: task.twin,
            ..Instruction::default()
        })
    }

    /// The parts of the input: one alone as it is, several with their names, options with their numbers.
    fn input(&self, draft: &Draft, lang: Lang) -> String {
        if let [(field, text)] = draft.input.as_slice()
            && *field != "option"
        {
            return self.speak(text, lang);
        }
        let mut lines = Vec::with_capacity(draft.input.len());
        let mut number = 0;
        for (field, text) in &draft.input {
            let text = self.speak(text, lang);
            if *field == "option" {
                number += 1;
                lines.push(format!("{number}. {text}"));
            } else {
                let name = self.field.get(*field).map_or(*field, |f| f.of(lang));
                let gap = if text.contains('\n') { '\n' } else { ' ' };
                lines.push(format!("{name}:{gap}{text}"));
            }
        }
        lines.join("\n")
    }

    /// Puts the words of polarities in the place of their marks.
    fn speak(&self, text: &str, lang: Lang) -> String {
        let marks = [Polarity::Positive, Polarity::Negative, Polarity::Neutral].map(polarity_mark);
        // Their first byte; few other characters begin with it.
        if !text.as_bytes().contains(&0xEE) || !text.contains(marks) {
            return text.to_owned();
        }
        let mut spoken = text.to_owned();
        for (mark, word) in marks.into_iter().zip(self.polarity.of(lang)) {
            spoken = spoken.replace(mark, word);
        }
        spoken
    }
}

impl TaskWords {
    fn list(&self, lang: Lang) -> &[String] {
        match lang {
            Lang::En => &self.en,
            Lang::Zh => &self.zh,
        }
    }
}

/// Label `n` of the list that belongs to paraphrase `at`; the whole list, shuffled unless it is an order such as 1 to 5,
/// becomes the candidates.
fn nth(
    labels: Option<&Both<Vec<Vec<String>>>>,
    n: usize,
    at: usize,
    lang: Lang,
    candidates: &mut Vec<String>,
    rng: &mut SplitMix,
) -> Option<(Gold, String)> {
    let labels = labels?.of(lang).get(at)?;
    let label = labels.get(n)?.clone();
    candidates.clone_from(labels);
    if labels.iter().any(|l| l.parse::<u32>().is_err()) {
        rng.shuffle(candidates);
    }
    Some((Gold::Labels(vec![label.clone()]), label))
}

/// `template` with each `{name}` replaced.
fn fill(template: &str, mut slot: impl FnMut(&str) -> String) -> String {
    let mut out = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        out.push_str(&slot(name));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The gaps of a template that the candidates fill.
const LISTS: [&str; 4] = ["labels", "types", "attrs", "slots"];

/// Candidates as a prompt lists them.
fn joined(candidates: &[String]) -> String {
    let commas = candidates.iter().any(|c| c.contains([',', '，', '、']));
    candidates.join(if commas { "; " } else { ", " })
}

/// The paradigms that have a generic prompt.
pub const PARADIGMS: [Paradigm; 4] = [Paradigm::Cls, Paradigm::Ext, Paradigm::Gen, Paradigm::Oth];

#[cfg(test)]
mod tests;
