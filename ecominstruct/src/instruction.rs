//! The instruction record: one question with its answer, six text parts kept apart, and where it came from.
//!
//! On disk a record is one JSON object per line. Only `description`, `prompt`, `input` and `output` must be there; every
//! other key has a default, and a key that is not listed here is an error.

use serde::{Deserialize, Serialize};

/// One instruction with its answer (JSON Lines, one object a line).
///
/// The text parts stay separate so that leaving one out (no description, no constraint) is a matter of rendering, not of
/// another data set. `Instruction::default()` is an empty record to fill in with `..`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instruction {
    /// Unique name of the record, such as `A03-oamine-000123-v1`.
    #[serde(default)]
    pub id: String,
    /// Task id, such as `F01` or `A03`.
    #[serde(default)]
    pub task: String,
    /// Final task, atomic (Chain-of-Task) task, or control.
    #[serde(default)]
    pub kind: Kind,
    /// Final tasks an atomic task was derived from; empty for final tasks.
    #[serde(default)]
    pub parents: Vec<String>,
    /// How an atomic task was derived from its parents.
    #[serde(default)]
    pub strategy: Strategy,
    /// Basic data type of the source row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<DataType>,
    /// Paradigm, which decides how an answer is scored.
    #[serde(default)]
    pub paradigm: Paradigm,
    /// Language of `input` and `output`.
    #[serde(default)]
    pub lang: Lang,
    /// Language of `description`, `prompt` and `constraint`.
    #[serde(default)]
    pub prompt_lang: Lang,
    /// Name of the raw data set.
    #[serde(default)]
    pub source: String,
    /// Split of the raw data set: `train`, `dev`, `test` or empty.
    #[serde(default)]
    pub source_split: String,
    /// Raw rows this record was made from.
    #[serde(default)]
    pub raw_ids: Vec<String>,
    /// Product, cluster or dialogue; records that share one must stay on one side of any split.
    #[serde(default)]
    pub group: String,
    /// Name of the task definition, put in the header of the prompt; may be empty.
    pub description: String,
    /// The question, one of several paraphrases.
    pub prompt: String,
    /// The text the question is about; may be empty.
    pub input: String,
    /// Labels or entity types to choose from, in the order shown; empty where there are none.
    #[serde(default)]
    pub candidates: Vec<String>,
    /// Constraint on the form of the answer; may be empty.
    #[serde(default)]
    pub constraint: String,
    /// The answer to learn.
    pub output: String,
    /// The answer with its structure, for scoring; scoring falls back to reading `output` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<Gold>,
    /// Template that gave `prompt`, such as `A03-en-2`.
    #[serde(default)]
    pub template_id: String,
    /// Number of candidates shown; redundant with `candidates`, kept for tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_candidates: Option<u32>,
    /// Whether this is the same content in another output format.
    #[serde(default)]
    pub format_twin: bool,
    /// Tokens of the rendered prompt, where someone counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tok_in: Option<u32>,
    /// Tokens of the answer, where someone counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tok_out: Option<u32>,
}

/// What a record is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A task somebody wants solved.
    #[default]
    Final,
    /// A Chain-of-Task step derived from the gold answer of a final task.
    Atomic,
    /// A control for an experiment.
    Control,
}

/// How an atomic task is derived (`EcomGPT`, section "Chain-of-Task tasks").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Strategy {
    /// Task simplification.
    #[serde(rename = "S")]
    Simplification,
    /// Task reversal.
    #[serde(rename = "R")]
    Reversal,
    /// Sample recombination.
    #[serde(rename = "M")]
    Recombination,
    /// Not derived.
    #[default]
    #[serde(rename = "none")]
    None,
}

/// Basic data type of a raw row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DataType {
    /// Product information.
    #[serde(rename = "P")]
    Product,
    /// User review.
    #[serde(rename = "R")]
    Review,
    /// Dialogue.
    #[serde(rename = "D")]
    Dialogue,
    /// Search query.
    #[serde(rename = "Q")]
    Query,
}

/// Paradigm of a task, which decides the score (see `score::strict`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Paradigm {
    /// Classification: one label or several out of a list.
    Cls,
    /// Extraction: spans of the input.
    Ext,
    /// Generation: free text.
    #[default]
    Gen,
    /// Other: typed entities, one line per type.
    Oth,
}

impl Paradigm {
    /// `CLS`, `EXT`, `GEN` or `OTH`, as on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cls => "CLS",
            Self::Ext => "EXT",
            Self::Gen => "GEN",
            Self::Oth => "OTH",
        }
    }
}

/// Language of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Chinese.
    Zh,
}

impl Lang {
    /// Chinese if at least a fifth of the letters are Han characters, English otherwise. Product titles mix Latin brand
    /// names into Chinese, so a majority would be too much to ask.
    pub fn detect(text: &str) -> Self {
        if text.is_ascii() {
            return Self::En;
        }
        let (mut han, mut letters) = (0usize, 0usize);
        for c in text.chars().filter(|c| c.is_alphabetic()) {
            letters += 1;
            han += usize::from(is_han(c));
        }
        if han > 0 && han * 5 >= letters { Self::Zh } else { Self::En }
    }

    /// `en` or `zh`, as on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }
}

/// Whether `c` is written without spaces between words: Han ideographs (all blocks) and kana.
pub(crate) fn is_han(c: char) -> bool {
    matches!(u32::from(c), 0x3040..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x2_0000..=0x3_FFFF)
}

/// The answer with its structure. On disk an object with one key: `{"labels": ["Food"]}`,
/// `{"spans": ["red", "blue"]}`, `{"entities": [{"type": "Brand", "text": "Acme"}]}`, `{"text": "…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gold {
    /// The right labels, one or several.
    Labels(Vec<String>),
    /// Spans copied from the input; a multiset, empty where nothing fits.
    Spans(Vec<String>),
    /// Typed entities; a multiset, types without entities are left out.
    Entities(Vec<Entity>),
    /// Free text.
    Text(String),
}

/// A typed entity of the input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entity {
    /// Type name, one of the record's `candidates`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The words of the input.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimal_record_reads_and_full_record_round_trips() {
        let minimal = r#"{"description":"d","prompt":"p","input":"i","output":"o"}"#;
        let read: Instruction = serde_json::from_str(minimal).unwrap();
        assert_eq!(read.paradigm, Paradigm::Gen);
        let full = Instruction {
            id: "A03-x-1-v1".into(),
            task: "A03".into(),
            kind: Kind::Atomic,
            parents: vec!["F01".into()],
            strategy: Strategy::Simplification,
            dtype: Some(DataType::Product),
            paradigm: Paradigm::Oth,
            lang: Lang::Zh,
            gold: Some(Gold::Entities(vec![Entity { kind: "颜色".into(), text: "红".into() }])),
            n_candidates: Some(3),
            ..read
        };
        let line = serde_json::to_string(&full).unwrap();
        for part in [
            r#""kind":"atomic""#,
            r#""strategy":"S""#,
            r#""dtype":"P""#,
            r#""paradigm":"OTH""#,
            r#""lang":"zh""#,
            r#""gold":{"entities":[{"type":"颜色","text":"红"}]}"#,
        ] {
            assert!(line.contains(part), "{part} not in {line}");
        }
        assert_eq!(serde_json::from_str::<Instruction>(&line).unwrap(), full);
    }

    #[test]
    fn unknown_and_missing_keys_are_errors() {
        let unknown = r#"{"description":"d","prompt":"p","input":"i","output":"o","lable":1}"#;
        assert!(serde_json::from_str::<Instruction>(unknown).unwrap_err().to_string().contains("lable"));
        let missing = r#"{"description":"d","prompt":"p","input":"i"}"#;
        assert!(serde_json::from_str::<Instruction>(missing).unwrap_err().to_string().contains("output"));
    }

    #[test]
    fn language_is_read_from_the_text() {
        assert_eq!(Lang::detect("Red shoes"), Lang::En);
        assert_eq!(Lang::detect("Galanz P70D20TL 微波炉家用"), Lang::Zh);
        assert_eq!(Lang::detect(""), Lang::En);
        assert_eq!(Lang::detect("123 + 4"), Lang::En);
    }
}
