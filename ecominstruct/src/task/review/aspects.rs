//! Tasks on single judgements: what is judged (aspect), in which words (opinion), and how (polarity).

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Answer, Draft, chance, pick, polarity_mark};
use super::sentences::{clauses, content};
use super::topics::is_whole;
use super::{Block, length, place, shown};
use crate::instruction::{Entity, Lang, is_han};
use crate::record::{Opinion, Polarity, Review, Span};
use crate::shingle::shared;
use crate::splitmix::SplitMix;

/// Reviews looked at for a pair of words that is judged in two ways.
const LOOKED_AT: usize = 4_000;

/// F15: review -> what is judged, `None` where it is only implied.
pub(super) fn terms(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let review = complete(block, at)?;
    let terms = in_order(&review.text, review.opinions.iter().filter_map(|o| o.aspect))?;
    // Annotators passed over many a thing that they had a judgement of.
    if if terms.is_empty() { names_aspect(block, &review.text) } else { lacks_aspect(&review.opinions) } {
        return None;
    }
    // Where judgements often name nothing, `None` would be the answer too often.
    if terms.is_empty() && !chance(rng, 40) {
        return None;
    }
    Some(Draft::new("review", &review.text, Answer::Spans(terms)))
}

/// F16: review and aspect -> its polarity; half of the reviews with one polarity only are passed over.
pub(super) fn attitude(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let review = shown(block, at)?;
    let told: BTreeSet<(&str, Polarity)> =
        review.opinions.iter().filter_map(|o| Some((o.aspect?.of(&review.text)?, o.polarity))).collect();
    let mixed = told.iter().any(|t| told.first().is_some_and(|first| first.1 != t.1));
    let clear = |&&(aspect, polarity): &&(&str, Polarity)| {
        listable(aspect)
            && !is_judgement(aspect)
            && told.iter().all(|t| t.1 == polarity || !(t.0.contains(aspect) || aspect.contains(t.0)))
    };
    let open: Vec<&(&str, Polarity)> = told.iter().filter(clear).collect();
    let &&(aspect, polarity) = pick(rng, &open)?;
    if !mixed && chance(rng, 50) {
        return None;
    }
    let answer = if block.has_neutral_opinions() {
        Answer::NthOfThree(place(polarity))
    } else if LUKEWARM.iter().any(|word| review.text.contains(word)) {
        return None;
    } else {
        Answer::Nth(place(polarity))
    };
    Some(Draft::new("review", &review.text, answer).fill("aspect", aspect))
}

/// Neither praise nor blame, whatever a source without a neutral polarity makes of them.
const LUKEWARM: [&str; 4] = ["一般", "中等", "还行", "马马虎虎"];

/// F17: review -> `aspect: opinion / polarity` lines. Only reviews that name all they judge.
pub(super) fn triples(block: &Block, at: usize, _: &mut SplitMix) -> Option<Draft> {
    let review = complete(block, at)?;
    let entity = |t: &Triple<'_>| Entity { kind: t.0.to_owned(), text: format!("{} / {}", t.1, polarity_mark(t.2)) };
    let found = all_triples(review)?.iter().map(entity).collect();
    Some(Draft::new("review", &review.text, Answer::Entities(found)))
}

/// A34: review -> the judging words.
pub(super) fn opinion_words(block: &Block, at: usize, _: &mut SplitMix) -> Option<Draft> {
    let review = complete(block, at)?;
    let found = in_order(&review.text, review.opinions.iter().filter_map(|o| o.opinion))?;
    if has_unmarked(review) {
        return None;
    }
    (!found.is_empty()).then(|| Draft::new("review", &review.text, Answer::Spans(found)))
}

/// A35: review and aspect -> the words that judge it; half of the reviews with a single aspect are passed over.
pub(super) fn opinion_on(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let review = complete(block, at)?;
    let aspects = in_order(&review.text, review.opinions.iter().filter_map(|o| o.aspect))?;
    let aspect = pick(rng, &aspects)?;
    let about = |o: &&Opinion| o.aspect.and_then(|a| a.of(&review.text)) == Some(aspect);
    let opinions: Option<Vec<Span>> = review.opinions.iter().filter(about).map(|o| o.opinion).collect();
    let found = in_order(&review.text, opinions?)?;
    if found.is_empty() || (aspects.len() == 1 && chance(rng, 50)) {
        return None;
    }
    Some(Draft::new("review", &review.text, Answer::Spans(found)).fill("aspect", aspect))
}

/// A36: aspect and opinion -> polarity, where the two words are judged alike wherever they occur.
pub(super) fn pair(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let review = block.reviews.get(at)?;
    let told = |r: &'_ Review, o: &Opinion| -> Option<(String, String)> {
        Some((o.aspect?.of(&r.text)?.to_lowercase(), o.opinion?.of(&r.text)?.to_lowercase()))
    };
    let open: Vec<&Opinion> = review.opinions.iter().filter(|o| told(review, o).is_some()).collect();
    let chosen = *pick(rng, &open)?;
    let (aspect, opinion) = (chosen.aspect?.of(&review.text)?, chosen.opinion?.of(&review.text)?);
    let same = |r: &Review, o: &Opinion| {
        o.aspect.and_then(|s| s.of(&r.text)).is_some_and(|a| a.eq_ignore_ascii_case(aspect))
            && o.opinion.and_then(|s| s.of(&r.text)).is_some_and(|w| w.eq_ignore_ascii_case(opinion))
    };
    let clash = |r: &Review| r.opinions.iter().any(|o| o.polarity != chosen.polarity && same(r, o));
    let alone = !listable(aspect) || !listable(opinion) || is_pronoun(aspect);
    if alone || clash(review) || block.reviews.iter().take(LOOKED_AT).any(clash) {
        return None;
    }
    let draft = Draft { answer: Answer::Nth(place(chosen.polarity)), ..Draft::default() };
    Some(draft.fill("aspect", aspect).fill("opinion", opinion))
}

/// A37: review and polarity -> the aspects judged so; a fifth ask for a polarity that does not occur: `None`.
pub(super) fn judged_so(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let review = complete(block, at)?;
    let occurs = |p: Polarity| review.opinions.iter().any(|o| o.polarity == p);
    let absent = chance(rng, 20);
    let mut polarities = vec![Polarity::Positive, Polarity::Negative];
    if occurs(Polarity::Neutral) || chance(rng, 15) {
        polarities.push(Polarity::Neutral);
    }
    polarities.retain(|&p| occurs(p) != absent);
    let &polarity = pick(rng, &polarities)?;
    let (so, else_): (Vec<&Opinion>, Vec<&Opinion>) = review.opinions.iter().partition(|o| o.polarity == polarity);
    let found = in_order(&review.text, so.iter().filter_map(|o| o.aspect))?;
    let others = in_order(&review.text, else_.iter().filter_map(|o| o.aspect))?;
    if lacks_aspect(so.iter().copied()) || found.is_empty() != absent || found.iter().any(|f| others.contains(f)) {
        return None;
    }
    let fill = polarity_mark(polarity).to_string();
    Some(Draft::new("review", &review.text, Answer::Spans(found)).fill("polarity", fill))
}

/// A40: triples -> the review. Short ones, so that the triples hold most of what it says.
pub(super) fn compose(block: &Block, at: usize, _: &mut SplitMix) -> Option<Draft> {
    let review = complete(block, at)?;
    let triples = all_triples(review)?;
    let told: usize = triples.iter().map(|t| length(t.0) + length(t.1)).sum();
    let text = length(&review.text);
    // In tenths of what the triples hold.
    let most = if block.lang == Lang::Zh { 25 } else { 50 };
    if 10 * text > most * told || text <= told || masked(&review.text) {
        return None;
    }
    let line = |t: &Triple<'_>| format!("{} / {} / {}", t.0, t.1, polarity_mark(t.2));
    let list = triples.iter().map(line).collect::<Vec<_>>().join("; ");
    let (all, said) = (content(&review.text), content(&list));
    if block.lang == Lang::En && all.len() - shared(&all, &said) > ADDED {
        return None;
    }
    Some(Draft::new("list", list, Answer::Text(review.text.clone())))
}

/// Most content words of a review that its triples do not hold.
const ADDED: usize = 5;

/// Whether a text has signs in the place of words.
fn masked(text: &str) -> bool {
    ["*", "??", "？？"].iter().any(|signs| text.contains(signs))
}

/// A41: aspects with their polarities -> positive, negative, or mixed where both are as many; more than half of the
/// lists without praise or without blame are passed over.
pub(super) fn sum(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let review = block.reviews.get(at)?;
    let name = |o: &'_ Opinion| -> Option<String> {
        let words = o.aspect.and_then(|a| a.of(&review.text)).filter(|w| !is_pronoun(w));
        words.or(o.category.as_deref()).map(str::to_owned)
    };
    let mut list: Vec<(String, Polarity)> = Vec::new();
    for told in review.opinions.iter().filter_map(|o| Some((name(o)?, o.polarity))) {
        if !list.contains(&told) {
            list.push(told);
        }
    }
    if list.is_empty() {
        list.extend(review.topics.iter().map(|t| (t.name.clone(), t.polarity)));
    }
    list.retain(|l| !is_whole(&l.0));
    // One name, two judgements: nobody can say how many points that makes.
    if list.iter().any(|a| list.iter().any(|b| a.0.eq_ignore_ascii_case(&b.0) && a.1 != b.1)) {
        return None;
    }
    let count = |p: Polarity| list.iter().filter(|l| l.1 == p).count();
    let (good, bad) = (count(Polarity::Positive), count(Polarity::Negative));
    let neither = good == 0 && bad == 0;
    if list.len() < 2 || list.len() > 12 || neither || list.iter().any(|l| !listable(&l.0) || is_judgement(&l.0)) {
        return None;
    }
    if (good == 0 || bad == 0) && chance(rng, 60) {
        return None;
    }
    let answer = match good.cmp(&bad) {
        std::cmp::Ordering::Greater => 0,
        std::cmp::Ordering::Less => 1,
        std::cmp::Ordering::Equal => 2,
    };
    let lines: Vec<String> = list.iter().map(|(name, p)| format!("{name}: {}", polarity_mark(*p))).collect();
    Some(Draft::new("list", lines.join("; "), Answer::Nth(answer)))
}

/// Whether a judgement in words has no aspect, which often stands in the text all the same.
fn lacks_aspect<'a>(opinions: impl IntoIterator<Item = &'a Opinion>) -> bool {
    opinions.into_iter().any(|o| o.aspect.is_none() && o.opinion.is_some())
}

/// Whether words of the text are an aspect elsewhere.
fn names_aspect(block: &Block, text: &str) -> bool {
    let enough = |part: &str| length(part) >= 2;
    block
        .aspects()
        .any_in(text, |start, end| text.get(start..end).is_some_and(enough) && Span { start, end }.is_whole(text))
}

/// Marks of judgement. A clause with one has an opinion, annotated or not.
const MARKS: [&str; 12] = ["好", "不错", "没", "很", "太", "差", "棒", "赞", "非常", "喜欢", "满意", "推荐"];

/// Whether a Chinese clause seems to judge and no opinion is annotated in it.
pub(super) fn has_unmarked(review: &Review) -> bool {
    let judges = |words: &str| words.contains(is_han) && MARKS.iter().any(|mark| words.contains(mark));
    let marked =
        |c: &Span| review.opinions.iter().filter_map(|o| o.opinion).any(|o| o.start < c.end && c.start < o.end);
    clauses(&review.text).iter().any(|c| c.of(&review.text).is_some_and(judges) && !marked(c))
}

/// A review with all its judgements, at least one.
fn complete(block: &Block, at: usize) -> Option<&Review> {
    shown(block, at).filter(|r| r.opinions_complete && !r.opinions.is_empty())
}

/// Aspect, opinion, polarity.
type Triple<'a> = (&'a str, &'a str, Polarity);

/// All judgements in order of the text; `None` if one lacks a side, holds a mark of the answer's form, or contradicts
/// another.
fn all_triples(review: &Review) -> Option<Vec<Triple<'_>>> {
    let mut found: BTreeMap<(Span, Span), Triple<'_>> = BTreeMap::new();
    for told in &review.opinions {
        let (aspect, opinion) = (told.aspect?, told.opinion?);
        let triple = (aspect.of(&review.text)?, opinion.of(&review.text)?, told.polarity);
        let clash = found.insert((aspect, opinion), triple).is_some_and(|old| old.2 != told.polarity);
        if clash || !listable(triple.0) || !listable(triple.1) {
            return None;
        }
    }
    let mut triples: Vec<Triple<'_>> = Vec::with_capacity(found.len());
    for triple in found.into_values() {
        if !triples.contains(&triple) {
            triples.push(triple);
        }
    }
    Some(triples)
}

/// The words of the spans in order of the text, each once; `None` if one cannot stand in a list.
fn in_order(text: &str, spans: impl IntoIterator<Item = Span>) -> Option<Vec<String>> {
    let spans: BTreeSet<Span> = spans.into_iter().collect();
    let mut found: Vec<String> = Vec::with_capacity(spans.len());
    for span in spans {
        let words = span.of(text).filter(|w| listable(w))?;
        if !found.iter().any(|f| f == words) {
            found.push(words.to_owned());
        }
    }
    Some(found)
}

/// Whether the words can stand in a list, a line of a typed answer, or a prompt.
fn listable(words: &str) -> bool {
    let marks = [',', ';', ':', '/', '\n', '{', '}', '"', '，', '、', '；', '：', '“', '”'];
    words.trim() == words
        && !words.is_empty()
        && !words.contains(marks)
        && !words.eq_ignore_ascii_case("none")
        && words != "无"
}

/// Whether the aspect is no name of a thing but a judgement itself, as in sources that mark whole clauses.
fn is_judgement(aspect: &str) -> bool {
    ["很", "太", "非常", "不", "没", "了", "真", "超", "挺", "棒"].iter().any(|mark| aspect.contains(mark))
        || aspect.split_whitespace().count() > 5
        || length(aspect) > if aspect.contains(is_han) { 8 } else { 40 }
}

/// Whether the aspect says nothing without its text.
fn is_pronoun(aspect: &str) -> bool {
    let lower = aspect.to_lowercase();
    matches!(
        lower.as_str(),
        "it" | "this" | "that" | "these" | "those" | "they" | "them" | "one" | "its" | "它" | "这个"
    )
}
