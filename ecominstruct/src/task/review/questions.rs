//! Tasks on questions about a passage.

use std::collections::BTreeSet;

use super::super::{Answer, Draft, chance, either, pick};
use super::kinds::{answer_kind, asks_for_measure, asks_for_opinion};
use super::sentences::{clauses, content, has_words, is_foreign, sentences, stated, words};
use super::{Block, length, limit, neighbours, shown};
use crate::instruction::is_han;
use crate::record::{Review, Span};
use crate::shingle::shared;
use crate::splitmix::SplitMix;

/// How far apart in a source passages lie that were judged for one question.
const APART: usize = 12;

/// Most characters of a question.
const LONGEST: usize = 250;

/// Words that begin what is only part of a sentence.
const JOINS: [&str; 9] = ["and", "because", "but", "for", "or", "so", "than", "that", "which"];

/// F19: passage, question -> words of the passage, where the passage says all that the question is about.
pub(super) fn answer(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (review, asked) = one(block, at, rng, |a| !a.spans.is_empty())?;
    let span = pick(rng, &asked.spans)?.of(&review.text)?.trim();
    let goes_on = span.split_whitespace().next().is_some_and(|w| JOINS.contains(&w.to_lowercase().as_str()));
    let (here, all) = stated(asked.text, block.said(at, content));
    let off = !asked.text.contains(is_han) && here < all;
    if 2 * length(span) > length(&review.text) || length(span) > limit(block.lang) / 6 || goes_on || off {
        return None;
    }
    Some(draft(review, asked.text, Answer::Spans(vec![span.to_owned()])))
}

/// F20: passage, question -> whether the passage answers it, as annotated.
pub(super) fn answerable(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let wanted = chance(rng, 50);
    // Of two questions in one, a passage may answer either.
    let single = |a: &Asked<'_>| a.text.matches(['?', '？']).count() < 2 && !a.text.contains(" and ");
    let found = one(block, at, rng, |a| a.answerable == Some(wanted) && single(a));
    let (review, asked) = found.or_else(|| one(block, at, rng, |a| a.answerable == Some(!wanted) && single(a)))?;
    Some(draft(review, asked.text, either(asked.answerable?)))
}

/// F23: question, or passage -> opinion or fact.
pub(super) fn subjective(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    // Many annotators took "How is the taste?" for a question about a fact.
    let told = |a: Asked<'_>| Some((a.text.to_owned(), a.subjective?)).filter(|t| t.1 || !asks_for_opinion(&t.0));
    let asked: Vec<(String, bool)> = questions(block, at).into_iter().filter_map(told).collect();
    if let Some((question, subjective)) = pick(rng, &asked) {
        return Some(Draft::new("question", question, either(*subjective)));
    }
    let review = shown(block, at)?;
    Some(Draft::new("text", &review.text, either(review.subjective?)))
}

/// A42: passage, answer -> question.
pub(super) fn ask(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (review, asked) = one(block, at, rng, |a| a.told().is_some() && !content(a.text).is_empty())?;
    let answer = asked.told()?;
    let shared = questions(block, at).iter().any(|a| a.text != asked.text && a.told() == Some(answer));
    // Nobody can ask for what is not shown: three quarters of what the question is about, all of short ones.
    let (here, all) = stated(asked.text, &content(&format!("{}\n{answer}", review.text)));
    let off = here == 0 || (!asked.text.contains(is_han) && 4 * (all - here) > all);
    if !has_words(answer, 3) || shared || off || length(answer) + length(&review.text) > limit(block.lang) {
        return None;
    }
    Some(Draft::new("text", &review.text, Answer::Text(asked.text.to_owned())).part("answer", answer))
}

/// A43: passage, question -> the sentence that holds the answer, where it lies in a single one of at least three.
pub(super) fn sentence(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (review, asked) = one(block, at, rng, |a| a.spans.len() == 1)?;
    let span = asked.spans.first()?;
    let all = sentences(&review.text);
    let found = all.iter().find(|s| s.start <= span.start && span.end <= s.end)?.of(&review.text)?;
    let repeated = review.text.matches(found).count() != 1;
    let long = 2 * length(found) > length(&review.text) || length(found) > limit(block.lang) / 6;
    if all.len() < 3 || repeated || long || found.contains('\n') {
        return None;
    }
    Some(draft(review, asked.text, Answer::Spans(vec![found.to_owned()])))
}

/// A44: passage, question, answer -> right or wrong. The wrong answer is another part of the passage, of like length
/// and about another thing.
pub(super) fn right(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (review, asked) = one(block, at, rng, |a| !a.spans.is_empty() && !content(a.text).is_empty())?;
    let edge = |c: char| c.is_whitespace() || c.is_ascii_punctuation() || "，。！？；：、…".contains(c);
    let gold = pick(rng, &asked.spans)?.of(&review.text)?.trim_matches(edge);
    let size = words(gold);
    if !(3..=40).contains(&size) || 2 * length(gold) > length(&review.text) {
        return None;
    }
    let gold_said = content(gold);
    let is_wrong = |s: &Span| {
        let apart = asked.spans.iter().all(|a| s.end <= a.start || a.end <= s.start);
        let part = s.of(&review.text).unwrap_or_default();
        let alike = (size.div_ceil(2)..=2 * size).contains(&words(part));
        let said = if apart && alike && !points_back(part) { content(part) } else { Vec::new() };
        !said.is_empty() && is_foreign(asked.text, &said) && 2 * shared(&said, &gold_said) < said.len()
    };
    let mut parts: BTreeSet<Span> = clauses(&review.text).into_iter().chain(sentences(&review.text)).collect();
    parts.extend(questions(block, at).iter().flat_map(|a| a.spans.iter().copied()));
    let wrong: Vec<&str> = parts.into_iter().filter(is_wrong).filter_map(|s| s.of(&review.text)).collect();
    // Looked for where the answer is right, too, so that both kinds come from like passages.
    let wrong = pick(rng, &wrong)?.trim_matches(edge);
    let yes = chance(rng, 50);
    // An answer that repeats the question is too easily right.
    if yes && !is_foreign(asked.text, &gold_said) && !chance(rng, 40) {
        return None;
    }
    Some(draft(review, asked.text, either(yes)).part("answer", if yes { gold } else { wrong }))
}

/// A45: passage, question -> related or not. The foreign question was asked about a like passage of another product; where
/// the passage holds a number, it asks for no measure.
pub(super) fn related(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (review, asked) = one(block, at, rng, |a| a.answered() && content(a.text).len() >= 2)?;
    let said = block.said(at, content);
    if chance(rng, 50) {
        // Most passages repeat the words of their questions, which foreign ones never do.
        let hard = is_foreign(asked.text, said) || chance(rng, 25);
        return hard.then(|| draft(review, asked.text, either(true)));
    }
    let room = limit(block.lang).saturating_sub(length(&review.text));
    let numbers = review.text.contains(char::is_numeric);
    let foreign = |other: usize| -> Vec<String> {
        let off = |text: &str| content(text).len() >= 2 && is_foreign(text, said);
        let clear = |text: &str| !numbers || !asks_for_measure(text, block.lang);
        let fits = |a: &Asked<'_>| a.answered() && length(a.text) <= room && off(a.text) && clear(a.text);
        questions(block, other).into_iter().filter(fits).map(|a| a.text.to_owned()).collect()
    };
    let other_product = |r: &Review| r.meta.group != review.meta.group && r.category == review.category;
    let others = neighbours(block, at, &review.text, 6, rng, |i, r| other_product(r) && !foreign(i).is_empty());
    let &(number, other) = pick(rng, &others)?;
    let asked = foreign(number);
    let question = pick(rng, &asked)?;
    Some(draft(review, question, either(false)).others([other.meta.raw_id.clone()]))
}

/// A46: question -> kind of its answer.
pub(super) fn kind(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let kind = |a: Asked<'_>| Some((a.text.to_owned(), answer_kind(a.text, block.lang)? as usize));
    let asked: Vec<(String, usize)> = questions(block, at).into_iter().filter_map(kind).collect();
    let (question, kind) = pick(rng, &asked)?;
    Some(Draft::new("question", question, Answer::Nth(*kind)))
}

/// A47: question, three passages -> number of the one that answers it. The others were judged not to, or are like the
/// question and of other products.
pub(super) fn passage(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let (review, asked) = one(block, at, rng, |a| a.answered() && !content(a.text).is_empty())?;
    let room = (limit(block.lang) - LONGEST) / 3;
    let fits = |r: &Review| has_words(&r.text, 3) && length(&r.text) <= room && !r.text.contains('\n');
    if !fits(review) {
        return None;
    }
    let near = block.reviews.iter().enumerate().take(at + APART + 1).skip(at.saturating_sub(APART));
    let refuses = |(other, r): (usize, &Review)| {
        let asks = r.questions.iter().any(|q| q.text.trim().eq_ignore_ascii_case(asked.text));
        let same = |a: &Asked<'_>| a.answerable == Some(false) && a.text.eq_ignore_ascii_case(asked.text);
        asks && questions(block, other).iter().any(same)
    };
    let mut others: Vec<&Review> = near.filter(|&(i, r)| fits(r) && refuses((i, r))).map(|(_, r)| r).collect();
    rng.shuffle(&mut others);
    if others.len() < 2 {
        let other_product = |r: &Review| r.meta.group != review.meta.group && r.category == review.category && fits(r);
        let unasked = |r: &Review| r.questions.iter().all(|q| !q.text.eq_ignore_ascii_case(asked.text));
        let wanted =
            |i: usize, r: &Review| other_product(r) && unasked(r) && is_foreign(asked.text, block.said(i, content));
        others.extend(neighbours(block, at, asked.text, 2, rng, wanted).into_iter().map(|(_, r)| r));
    }
    let mut shown: Vec<&Review> = vec![review];
    for other in others {
        if shown.len() < 3 && shown.iter().all(|s| s.text != other.text) {
            shown.push(other);
        }
    }
    let share = |r: &Review| stated(asked.text, &content(&r.text)).0;
    let plain = shown.iter().skip(1).all(|r| share(r) < share(review));
    // Where the right passage alone repeats the question's words, the task is too easy.
    if shown.len() < 3 || (plain && !chance(rng, 35)) {
        return None;
    }
    let others: Vec<String> = shown.iter().skip(1).map(|r| r.meta.raw_id.clone()).collect();
    rng.shuffle(&mut shown);
    let number = 1 + shown.iter().position(|r| r.text == review.text)?;
    let draft = Draft::new("question", asked.text, Answer::Spans(vec![number.to_string()])).others(others);
    Some(shown.iter().fold(draft, |draft, r| draft.part("option", &r.text)))
}

/// What all annotations of one question about one passage say together.
struct Asked<'a> {
    text: &'a str,
    /// Distinct, in order of the text.
    spans: Vec<Span>,
    quoted: Option<&'a str>,
    answer: Option<&'a str>,
    answerable: Option<bool>,
    subjective: Option<bool>,
}

impl<'a> Asked<'a> {
    /// Whether the passage answers it.
    fn answered(&self) -> bool {
        self.answerable == Some(true) || (self.answerable.is_none() && self.told().is_some())
    }

    /// The written answer, else the first quoted one.
    fn told(&self) -> Option<&'a str> {
        self.answer.or(self.quoted).filter(|_| self.answerable != Some(false))
    }
}

/// The questions of passage `at`, each once, without those whose annotations contradict each other or cannot be trusted.
fn questions(block: &Block, at: usize) -> Vec<Asked<'_>> {
    let Some(review) = block.reviews.get(at).filter(|r| !r.questions.is_empty()) else { return Vec::new() };
    let mut found: Vec<Asked<'_>> = Vec::with_capacity(review.questions.len());
    let mut clash: Vec<&str> = Vec::new();
    for question in &review.questions {
        let text = question.text.trim();
        if !has_words(text, 2) || length(text) > LONGEST || text.contains('\n') {
            continue;
        }
        let spans: Vec<Span> = question.span.into_iter().filter(|s| s.of(&review.text).is_some()).collect();
        // "I'm not sure, but …" answers another question.
        let sure = |a: &&str| !a.is_empty() && !a.to_lowercase().starts_with("i'm not sure");
        let answer = question.answer.as_deref().map(str::trim).filter(sure);
        let answerable = question.answerable.or((!spans.is_empty()).then_some(true));
        match found.iter_mut().find(|a| a.text.eq_ignore_ascii_case(text)) {
            None => {
                let subjective = question.subjective;
                found.push(Asked { text, spans, quoted: None, answer, answerable, subjective });
            }
            Some(old) => {
                let differ = |a: Option<bool>, b: Option<bool>| matches!((a, b), (Some(a), Some(b)) if a != b);
                if differ(old.answerable, answerable) || differ(old.subjective, question.subjective) {
                    clash.push(old.text);
                }
                old.spans.extend(spans);
                old.answer = old.answer.or(answer);
                old.answerable = old.answerable.or(answerable);
                old.subjective = old.subjective.or(question.subjective);
            }
        }
    }
    found.retain(|a| !clash.contains(&a.text) && is_sound(a, block, at));
    for asked in &mut found {
        asked.spans.sort_unstable();
        asked.spans.dedup();
        asked.quoted = asked.spans.first().and_then(|s| s.of(&review.text)).map(str::trim);
    }
    found
}

/// Whether a question goes with its passage. Where words of a review are marked as the answer, many questions are about
/// other things: they must share a word with the review, and be answered by two words at least. Of those after a place, a
/// time or the writer's own reasons hardly any is answered.
fn is_sound(asked: &Asked<'_>, block: &Block, at: usize) -> bool {
    if asked.answer.is_some() || (asked.spans.is_empty() && asked.subjective.is_none()) {
        return true;
    }
    let lower = asked.text.to_lowercase();
    if ["where ", "when ", "why do i "].iter().any(|start| lower.starts_with(start)) {
        return false;
    }
    let text = block.reviews.get(at).map_or("", |r| r.text.as_str());
    let marked: Vec<&str> = asked.spans.iter().filter_map(|s| s.of(text)).collect();
    let short = |span: &&str| !(has_words(span, 2) || (span.contains(is_han) && length(span) >= 2));
    if asked.answerable != Some(true) {
        return true;
    }
    let told = |s: &Span| {
        asked.spans.iter().any(|a| a.start < s.end && s.start < a.end) && {
            s.of(text).is_some_and(|sentence| stated(asked.text, &content(sentence)).0 > 0)
        }
    };
    !marked.iter().any(short) && (asked.spans.is_empty() || sentences(text).iter().any(told))
}

/// One of the questions that `wanted` lets pass, where it can be shown with its passage.
fn one<'a>(
    block: &'a Block,
    at: usize,
    rng: &mut SplitMix,
    wanted: impl Fn(&Asked<'_>) -> bool,
) -> Option<(&'a Review, Asked<'a>)> {
    let review = shown(block, at)?;
    let room = limit(block.lang).saturating_sub(length(&review.text));
    let mut open: Vec<Asked<'_>> = questions(block, at);
    open.retain(|a| length(a.text) <= room && wanted(a));
    let drawn = rng.below(open.len());
    (drawn < open.len()).then(|| (review, open.swap_remove(drawn)))
}

fn draft(review: &Review, question: &str, answer: Answer) -> Draft {
    Draft::new("text", &review.text, answer).part("question", question)
}

/// Whether words may point back to what was said before, so that nobody can say what they are about.
fn points_back(words: &str) -> bool {
    let lower = words.to_lowercase();
    let back = ["it", "its", "they", "them", "these", "those", "this", "that", "which", "s"];
    lower.split(|c: char| !c.is_alphanumeric()).any(|w| back.contains(&w)) || lower.contains(['它', '这', '那'])
}
