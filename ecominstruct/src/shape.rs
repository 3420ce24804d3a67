//! What answers look like, whatever they say: the form of a set's answers, and the answers of spans that one item can have.

use crate::eval_set::{EvalItem, EvalSet};
use crate::instruction::{Gold, Paradigm, is_han};

/// What all answers to a set look like. It follows from its kind, what its items offer, and the gold answers as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One of the labels or texts that are offered.
    One,
    /// One or several of the labels that are offered, none twice.
    Several,
    /// A span of the text.
    Span,
    /// Spans of the text.
    Spans,
    /// Lines of a type and its spans of the text.
    Typed,
    /// Anything.
    Free,
}

/// Of ten items, those whose gold answers are in the text where a set's answers are spans.
const COPIED: usize = 9;

impl Form {
    /// The form of a set's answers.
    pub fn of(set: &EvalSet) -> Self {
        let every = |test: &dyn Fn(&EvalItem) -> bool| set.items.iter().all(test);
        let copied = |item: &&EvalItem| match &item.answer {
            Gold::Spans(spans) => spans.iter().all(|s| item.text.contains(s.as_str())),
            Gold::Entities(entities) => entities.iter().all(|e| item.text.contains(e.text.as_str())),
            Gold::Labels(_) | Gold::Text(_) => false,
        };
        let offers = every(&|item| !offered(set, item).is_empty());
        let copies = 10 * set.items.iter().filter(copied).count() >= COPIED * set.items.len();
        let single = every(&|item| matches!(&item.answer, Gold::Spans(s) if s.len() == 1));
        match set.kind.paradigm() {
            Paradigm::Cls if !offers => Self::Free,
            Paradigm::Cls if every(&|item| matches!(&item.answer, Gold::Labels(l) if l.len() == 1)) => Self::One,
            Paradigm::Cls => Self::Several,
            Paradigm::Ext if single && every(&|item| !item.candidates.is_empty()) => Self::One,
            Paradigm::Ext if copies && single => Self::Span,
            Paradigm::Ext if copies => Self::Spans,
            Paradigm::Oth if copies && offers => Self::Typed,
            _ => Self::Free,
        }
    }
}

/// The labels, types or texts that an item's answer is made of: its own, or else its set's.
pub fn offered<'a>(set: &'a EvalSet, item: &'a EvalItem) -> &'a [String] {
    if item.candidates.is_empty() { &set.labels } else { &item.candidates }
}

/// The answers of spans to one item, byte by byte: a span of the text, a list of them, `None`, or lines of types with their lists. A
/// span begins and ends with words (characters, where they are written without spaces) and is within a line.
#[derive(Debug, Clone)]
pub struct Shape {
    text: Vec<u8>,
    /// Where spans can begin, by their first byte.
    starts: Vec<Vec<usize>>,
    /// For each place of the text, how many bytes further a span can end; `None` if it cannot within the line.
    to_end: Vec<Option<usize>>,
    /// Between spans; empty if there is only one.
    separator: Vec<u8>,
    none: bool,
    /// The beginnings of the lines, such as `Brand: `, in order; none where answers have no types.
    lines: Vec<Vec<u8>>,
    /// The fewest bytes of a span, and of a value, which may be `None`. Without any span, more than there are.
    span: usize,
    value: usize,
}

/// How the beginning of an answer can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reading {
    line: usize,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Within the beginning of a line, before this byte of it.
    Line(usize),
    /// Before a line's first value.
    First,
    /// Before another value.
    Next,
    /// Within a span, before this byte of the text.
    Span(usize),
    /// Within the separator.
    Separator(usize),
    /// Within `None`.
    None(usize),
}

const NONE: &[u8] = b"None";

/// More bytes than an answer has.
const NEVER: usize = usize::MAX / 4;

impl Shape {
    /// The answers to an item of a set whose form is [`Form::Span`], [`Form::Spans`] or [`Form::Typed`]; of the text from byte `from`
    /// on, should the prompt have lost what is before. `None` may be said where the question offers it, and of any type.
    pub fn new(form: Form, set: &EvalSet, item: &EvalItem, from: usize) -> Self {
        let typed = form == Form::Typed;
        let from = (from..item.text.len()).find(|&at| item.text.is_char_boundary(at)).unwrap_or(item.text.len());
        let text = &item.text[from..];
        let types = if typed { offered(set, item) } else { &[] };
        let mut starts = vec![Vec::new(); 256];
        let mut to_end = vec![None; text.len() + 1];
        let mut before: Option<char> = None;
        for (at, c) in text.char_indices() {
            let border = before.is_none_or(|b| !(in_word(b) && in_word(c)));
            if border && !c.is_whitespace() {
                starts[usize::from(text.as_bytes()[at])].push(at);
            }
            if border && before.is_some_and(|b| !b.is_whitespace()) {
                to_end[at] = Some(0);
            }
            before = Some(c);
        }
        if before.is_some_and(|b| !b.is_whitespace()) {
            to_end[text.len()] = Some(0);
        }
        for at in (0..text.len()).rev().filter(|&at| text.as_bytes()[at] != b'\n') {
            to_end[at] = to_end[at].or_else(|| Some(to_end[at + 1]? + 1));
        }
        let spans = starts.iter().flatten().filter_map(|&at| Some(to_end[at + 1]? + 1));
        let span = spans.min().unwrap_or(NEVER);
        let none = typed || item.prompt.replacen(&item.text, "", 1).contains("None");
        Self {
            text: text.as_bytes().to_vec(),
            starts,
            to_end,
            separator: if form == Form::Span { Vec::new() } else { set.label_sep.clone().into_bytes() },
            none,
            lines: types.iter().map(|t| format!("{t}: ").into_bytes()).collect(),
            span,
            value: if none { span.min(NONE.len()) } else { span },
        }
    }

    /// The readings of an answer of which nothing is there yet.
    pub fn begin(&self) -> Vec<Reading> {
        if self.lines.is_empty() {
            return vec![Reading { line: 0, place: Place::First }];
        }
        (0..self.lines.len()).map(|line| Reading { line, place: Place::Line(0) }).collect()
    }

    /// What the readings become with one more byte; none are left if no answer has it there.
    pub fn step(&self, readings: &[Reading], byte: u8) -> Vec<Reading> {
        let mut next = Vec::new();
        for &Reading { line, place } in readings {
            let mut to = |place| next.push(Reading { line, place });
            match place {
                Place::Line(at) if self.lines[line][at] == byte => {
                    to(if at + 1 == self.lines[line].len() { Place::First } else { Place::Line(at + 1) });
                }
                Place::First | Place::Next => {
                    self.starts[usize::from(byte)].iter().for_each(|at| to(Place::Span(at + 1)));
                    if place == Place::First && self.none && byte == NONE[0] {
                        to(Place::None(1));
                    }
                }
                Place::Span(at) => {
                    if byte != b'\n' && self.text.get(at) == Some(&byte) && self.to_end[at + 1].is_some() {
                        to(Place::Span(at + 1));
                    }
                    if self.to_end[at] == Some(0) {
                        if self.separator.first() == Some(&byte) {
                            to(self.separated(1));
                        }
                        self.next_lines(line, byte, &mut next);
                    }
                }
                Place::Separator(at) if self.separator[at] == byte => to(self.separated(at + 1)),
                Place::None(at) if NONE.get(at) == Some(&byte) => to(Place::None(at + 1)),
                Place::None(at) if at == NONE.len() => self.next_lines(line, byte, &mut next),
                _ => {}
            }
        }
        next.sort_unstable();
        next.dedup();
        next
    }

    /// The bytes with which [`Shape::step`] leaves readings, and perhaps some others, ascending.
    pub fn bytes(&self, readings: &[Reading]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &Reading { line, place } in readings {
            match place {
                Place::Line(at) => bytes.push(self.lines[line][at]),
                Place::First | Place::Next => {
                    bytes.extend((0..=255u8).filter(|&byte| !self.starts[usize::from(byte)].is_empty()));
                    bytes.push(NONE[0]);
                }
                Place::Span(at) => {
                    bytes.extend(self.text.get(at));
                    bytes.extend(self.separator.first());
                    bytes.push(b'\n');
                }
                Place::Separator(at) => bytes.push(self.separator[at]),
                Place::None(at) => bytes.push(*NONE.get(at).unwrap_or(&b'\n')),
            }
        }
        bytes.sort_unstable();
        bytes.dedup();
        bytes
    }

    /// The fewest bytes after which an answer so read can end: 0 where it can end here.
    pub fn rest(&self, readings: &[Reading]) -> Option<usize> {
        let of_one = |&Reading { line, place }: &Reading| match place {
            Place::Line(at) => self.lines[line].len() - at + self.value,
            Place::First => self.value,
            // `None` is no second value.
            Place::Next => self.span,
            Place::Separator(at) => self.separator.len() - at + self.span,
            Place::Span(at) => self.to_end[at].unwrap_or(NEVER),
            Place::None(at) => NONE.len() - at,
        };
        readings.iter().map(of_one).min().filter(|&bytes| bytes < NEVER)
    }

    fn separated(&self, at: usize) -> Place {
        if at == self.separator.len() { Place::Next } else { Place::Separator(at) }
    }

    /// The lines that may follow line `line`, after a line feed.
    fn next_lines(&self, line: usize, byte: u8, next: &mut Vec<Reading>) {
        if byte == b'\n' {
            next.extend((line + 1..self.lines.len()).map(|line| Reading { line, place: Place::Line(0) }));
        }
    }
}

/// Whether the character is part of a word that no span cuts.
fn in_word(c: char) -> bool {
    c.is_alphanumeric() && !is_han(c)
}
