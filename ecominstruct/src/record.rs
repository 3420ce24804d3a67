//! The four basic data types of `EcomInstruct` as canonical records with gold annotations.
//!
//! Every source is mapped to these by an adapter (`raw`); every task is derived from these (`task`), so neither knows the
//! other. An annotation that a source does not have is empty, and a task that needs it passes the record over.
//! Source: `EcomGPT` (arXiv 2308.06966), section "Chain-of-Task tasks": product information, user reviews, user dialogues,
//! search queries.

use crate::instruction::Lang;

/// What every record keeps about where it came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Unique within its source and the same in every run: `file:line` or an id of the data itself.
    pub raw_id: String,
    /// Product, cluster, query or session: records that share one stay on one side of any split. Never empty.
    pub group: String,
    /// Language of the texts.
    pub lang: Lang,
}

/// A record of any of the four types.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Product information.
    Product(Product),
    /// A user review, or another passage that is asked about.
    Review(Review),
    /// A dialogue.
    Dialogue(Dialogue),
    /// A search query.
    Query(Query),
}

impl Record {
    /// Where it came from.
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Product(r) => &r.meta,
            Self::Review(r) => &r.meta,
            Self::Dialogue(r) => &r.meta,
            Self::Query(r) => &r.meta,
        }
    }
}

/// Bytes `start..end` of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The words; `None` where the span is empty, out of range or cuts a character.
    pub fn of(self, text: &str) -> Option<&str> {
        text.get(self.start..self.end).filter(|words| !words.is_empty())
    }

    /// From offsets in characters (code points) of `text`.
    pub fn from_chars(text: &str, start: usize, end: usize) -> Option<Self> {
        let at = |n: usize| text.char_indices().map(|(i, _)| i).chain([text.len()]).nth(n);
        let span = Self { start: at(start)?, end: at(end)? };
        span.of(text).map(|_| span)
    }

    /// The first place of `words` in `text` that begins and ends at word borders (any place, for Chinese words); `None`
    /// where there is none.
    pub fn find(text: &str, words: &str) -> Option<Self> {
        if words.is_empty() {
            return None;
        }
        text.match_indices(words).map(|(start, _)| Self { start, end: start + words.len() }).find(|s| s.is_whole(text))
    }

    /// Whether the words begin and end at borders of ASCII words.
    pub fn is_whole(self, text: &str) -> bool {
        // A byte of another character is no ASCII letter.
        let bytes = text.as_bytes();
        let joins = |at: usize| {
            let before = at.checked_sub(1).and_then(|i| bytes.get(i));
            before.zip(bytes.get(at)).is_some_and(|(a, b)| a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric())
        };
        !joins(self.start) && !joins(self.end)
    }
}

/// A span with a type, such as a brand in a title.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedSpan {
    /// Where, in the title.
    pub span: Span,
    /// Type name, readable in the record's language.
    pub kind: String,
}

/// Product information: one listing of one product.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Product {
    /// Where it came from.
    pub meta: Meta,
    /// The listing's title. Empty where the source has only attributes and a text.
    pub title: String,
    /// A shorter or normalised title of the same product.
    pub short_title: Option<String>,
    /// Selling text.
    pub description: Option<String>,
    /// From the department down to the leaf; one element where the source has one level; empty where it has none.
    pub category: Vec<String>,
    /// Name and value pairs, in the source's order. Names repeat where there are several values.
    pub attributes: Vec<Attribute>,
    /// Whether a name missing from `attributes` is known to have no value in the title (a full annotation of the title).
    pub attributes_complete: bool,
    /// Typed mentions in the title (entity annotation), in order, without overlap.
    pub spans: Vec<TypedSpan>,
    /// Brand, or where a span or attribute tells it: its text.
    pub brand: Option<String>,
    /// Key of the product that this listing offers; equal for the same product.
    pub cluster: Option<String>,
    /// Listings that were judged against this one.
    pub judged: Vec<Pair>,
}

impl Product {
    /// The leaf category.
    pub fn leaf(&self) -> Option<&str> {
        self.category.last().map(String::as_str)
    }
}

/// A fact about a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Name (`color`).
    pub name: String,
    /// Value (`navy`).
    pub value: String,
    /// Where the title states it, where it was annotated or found there.
    pub span: Option<Span>,
}

/// A judgement that two listings offer the same product, or do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// `raw_id` of the other listing, of the same source and split.
    pub other: String,
    /// Whether it is the same product.
    pub same: bool,
}

/// Praise, blame or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Polarity {
    /// Praise.
    Positive,
    /// Blame.
    Negative,
    /// Neither, or both.
    Neutral,
}

/// A user review, or another passage (product page, bullet points) that questions are asked about.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Review {
    /// Where it came from.
    pub meta: Meta,
    /// The text.
    pub text: String,
    /// The reviewer's own title.
    pub headline: Option<String>,
    /// Rating, 1 to 5.
    pub stars: Option<u8>,
    /// Overall polarity.
    pub polarity: Option<Polarity>,
    /// Whether the reviewer recommends the product.
    pub recommended: Option<bool>,
    /// Votes that found the review helpful.
    pub helpful: Option<u32>,
    /// Kind of product under review, from the department down to the leaf, as in [`Product::category`].
    pub category: Vec<String>,
    /// Aspect categories judged (`battery life`), one polarity each; a category with both is left out.
    pub topics: Vec<Topic>,
    /// Judgements, in order of the text.
    pub opinions: Vec<Opinion>,
    /// Whether `opinions` lists all judgements of the text (so that none means none).
    pub opinions_complete: bool,
    /// Questions asked about this text.
    pub questions: Vec<Question>,
    /// Whether the text is an opinion rather than a fact.
    pub subjective: Option<bool>,
}

/// A category of aspects with its polarity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Readable name in the record's language.
    pub name: String,
    /// How it is judged.
    pub polarity: Polarity,
}

/// One judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opinion {
    /// What is judged; `None` where it is only implied.
    pub aspect: Option<Span>,
    /// The judging words; `None` where implied or not annotated.
    pub opinion: Option<Span>,
    /// Category of the aspect, where annotated.
    pub category: Option<String>,
    /// How it is judged.
    pub polarity: Polarity,
}

/// A question about a passage.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Question {
    /// The question.
    pub text: String,
    /// Where the passage answers it.
    pub span: Option<Span>,
    /// A written answer in own words.
    pub answer: Option<String>,
    /// Whether the passage answers it.
    pub answerable: Option<bool>,
    /// Whether the question asks for an opinion rather than a fact.
    pub subjective: Option<bool>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Speaker {
    /// The shopper.
    #[default]
    Customer,
    /// The shop.
    Agent,
}

/// A dialogue; a single utterance is a dialogue of one turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dialogue {
    /// Where it came from.
    pub meta: Meta,
    /// The turns, in order.
    pub turns: Vec<Turn>,
    /// What the customer wants in the last customer turn.
    pub intent: Option<String>,
    /// What was agreed on, as name and value.
    pub slots: Vec<Attribute>,
    /// Summary of the whole.
    pub summary: Option<String>,
    /// Reference replies to the last turn, where the dialogue ends with the customer.
    pub replies: Vec<String>,
    /// Goal or topic of the whole.
    pub topic: Option<String>,
}

/// One turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    /// Who speaks.
    pub speaker: Speaker,
    /// What is said.
    pub text: String,
    /// Dialogue acts, most voted first; empty where not annotated.
    pub acts: Vec<String>,
}

/// A search query.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    /// Where it came from.
    pub meta: Meta,
    /// What was typed.
    pub text: String,
    /// Department searched in.
    pub category: Option<String>,
    /// Typed segments, in order, without overlap.
    pub segments: Vec<TypedSpan>,
    /// Type name that marks the core product among `segments`.
    pub core: Option<String>,
    /// Judged products.
    pub judged: Vec<Judged>,
}

/// How relevant a product is to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// `raw_id` of the [`Product`], of the same source and split.
    pub product: String,
    /// How relevant.
    pub grade: Grade,
}

/// Relevance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// Not what was searched for.
    Irrelevant,
    /// Something of it.
    Partial,
    /// Judged, but raters did not agree whether it is partial or exact: never asked about.
    Unclear,
    /// What was searched for.
    Exact,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_whole_characters_and_whole_words() {
        let text = "红色 T-shirt XL, shirt";
        assert_eq!(Span::from_chars(text, 0, 2).and_then(|s| s.of(text)), Some("红色"));
        assert_eq!(Span::from_chars(text, 3, 99), None);
        assert_eq!(Span { start: 1, end: 3 }.of(text), None);
        assert_eq!(Span::find(text, "XL").and_then(|s| s.of(text)), Some("XL"));
        assert_eq!(Span::find(text, "X"), None);
        assert_eq!(Span::find("a shirts shirt", "shirt"), Some(Span { start: 9, end: 14 }));
        assert_eq!(Span::find(text, "色"), Some(Span { start: 3, end: 6 }));
    }
}
