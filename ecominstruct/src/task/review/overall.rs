//! Tasks on a review as a whole: polarity, stars, headline, usefulness.

use super::super::{Answer, Draft, chance, either, pick, select};
use super::sentences::{content, has_words, is_foreign};
use super::{Block, length, limit, neighbours, place, shown, strangers};
use crate::record::{Polarity, Review};
use crate::shingle::shared;
use crate::splitmix::SplitMix;

/// Most reviews looked through for one of the same product.
const MOST: usize = 50_000;

/// Chance finds tried for a partner that is judged by its labels alone.
const MANY: usize = 400;

/// Votes from which on a review counts as useful.
const VOTES: u32 = 5;

/// Characters from which on a text without an end mark was cut off.
const CUT: usize = 490;

/// Words of complaint. A review that holds one is not plainly happy, whatever its label.
const COMPLAINT: [&str; 32] = [
    " but ",
    "but,",
    "however",
    "unfortunately",
    "disappoint",
    "return",
    "broke",
    "complain",
    "wish ",
    "except",
    "although",
    "only thing",
    "downside",
    "too ",
    "not ",
    "n't ",
    "但",
    "不过",
    "可惜",
    "就是",
    "差",
    "失望",
    "坏",
    "慢",
    "退",
    "不",
    "没",
    "太",
    "一般",
    "有待",
    "问题",
    "遗憾",
];

/// F12: review -> positive or negative, or neutral where the block has that.
pub(super) fn polarity(block: &Block, at: usize, _: &mut SplitMix) -> Option<Draft> {
    let review = shown(block, at)?;
    let polarity = review.polarity?;
    let three = polarity == Polarity::Neutral || block.judges_neutrally();
    let answer = if three { Answer::NthOfThree(place(polarity)) } else { Answer::Nth(place(polarity)) };
    Some(Draft::new("review", &review.text, answer))
}

/// F13: review -> stars.
pub(super) fn stars(block: &Block, at: usize, _: &mut SplitMix) -> Option<Draft> {
    let review = shown(block, at).filter(|r| has_words(&r.text, 5))?;
    let stars = review.stars.filter(|s| (1..=5).contains(s))?;
    // What the source cut off may hold the reason, and few words do not tell three stars from four.
    let ends = review.text.ends_with(|c: char| !c.is_alphanumeric() && !matches!(c, ',' | '-'));
    let cut = length(&review.text) >= CUT && !ends;
    if cut || (matches!(stars, 2..=4) && !has_words(&review.text, 15)) {
        return None;
    }
    Some(Draft::new("review", &review.text, Answer::Nth(usize::from(stars) - 1)))
}

/// F21: review -> headline.
pub(super) fn headline(block: &Block, at: usize, _: &mut SplitMix) -> Option<Draft> {
    let review = shown(block, at).filter(|r| has_words(&r.text, 8))?;
    // Half of what it is about must stand in the review.
    let headline = telling_headline(review).filter(|h| !is_foreign(h, &content(&review.text)))?;
    Some(Draft::new("review", &review.text, Answer::Text(headline.to_owned())))
}

/// F22: review -> useful or not, by votes, among reviews of some length. One without votes counts as not useful only where
/// readers voted for another one of the same product: else perhaps nobody came.
pub(super) fn useful(block: &Block, at: usize, _: &mut SplitMix) -> Option<Draft> {
    let review = shown(block, at).filter(|r| has_words(&r.text, 20))?;
    let useful = match review.helpful? {
        0 if was_read(block, &review.meta.group) => false,
        VOTES.. => true,
        _ => return None,
    };
    Some(Draft::new("review", &review.text, either(useful)))
}

/// Whether a review of the group has the votes of a useful one.
fn was_read(block: &Block, group: &str) -> bool {
    let mut voted = block.reviews.iter().take(MOST).filter(|r| r.helpful.is_some_and(|n| n >= VOTES));
    voted.any(|r| r.meta.group == group)
}

/// A38: four reviews -> the negative one; the other three are positive, with five stars where there are stars, without a
/// word of complaint, and of like length.
pub(super) fn unhappy(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let short =
        |r: &Review| has_words(&r.text, 3) && length(&r.text) <= limit(block.lang) / 5 && !r.text.contains('\n');
    let review = shown(block, at).filter(|r| r.polarity == Some(Polarity::Negative) && short(r))?;
    if review.stars.is_some_and(|s| s > 2) {
        return None;
    }
    let size = review.text.len();
    let alike = |r: &Review| {
        r.polarity == Some(Polarity::Positive)
            && r.stars.is_none_or(|s| s == 5)
            && (2 * r.text.len() <= 3 * size && 3 * r.text.len() >= 2 * size)
            && r.category.first() == review.category.first()
            && short(r)
            && !complains(&r.text)
    };
    let others = strangers(block, at, Vec::new(), (3, MANY), rng, |_, r| alike(r));
    if others.len() < 3 {
        return None;
    }
    let list = select(&review.text, others.iter().map(|(_, r)| r.text.clone()), rng)?;
    let draft = Draft { answer: Answer::Spans(vec![review.text.clone()]), ..Draft::default() };
    Some(draft.candidates(list).others(others.iter().map(|(_, r)| r.meta.raw_id.clone())))
}

/// A39: two reviews -> A, B or equal, by stars that are equal or at least two apart.
pub(super) fn happier(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let half = |r: &Review| has_words(&r.text, 5) && length(&r.text) <= limit(block.lang) / 2;
    let review = shown(block, at).filter(|r| half(r))?;
    let stars = review.stars.filter(|s| (1..=5).contains(s))?;
    // How much two writers who are neither thrilled nor angry differ, their words do not tell.
    let tie = rng.below(3) == 0 && matches!(stars, 1 | 5);
    let apart = if tie { 0 } else { (2 + rng.below(3) as u8).min((stars - 1).max(5 - stars)) };
    let fits = |r: &Review| {
        let gap = r.stars.filter(|s| (1..=5).contains(s)).map(|s| s.abs_diff(stars));
        let wanted = gap.is_some_and(|g| if apart == 0 { g == 0 } else { g >= apart });
        // Five stars with a "but" are less than five stars.
        let plain = apart > 0 || stars < 5 || !(complains(&review.text) || complains(&r.text));
        wanted && plain && r.category == review.category && half(r)
    };
    let &(_, other) = strangers(block, at, Vec::new(), (1, MANY), rng, |_, r| fits(r)).first()?;
    let (a, b) = if chance(rng, 50) { (review, other) } else { (other, review) };
    let answer = match a.stars.cmp(&b.stars) {
        std::cmp::Ordering::Greater => 0,
        std::cmp::Ordering::Less => 1,
        std::cmp::Ordering::Equal => 2,
    };
    let draft = Draft::new("review_a", &a.text, Answer::Nth(answer)).part("review_b", &b.text);
    Some(draft.others([other.meta.raw_id.clone()]))
}

/// A65: review and headline -> its own or another's; the other's review is as positive and like it, of another
/// kind of product. The own one shares a word with the review, the other one none.
pub(super) fn own_headline(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let review = shown(block, at).filter(|r| has_words(&r.text, 8))?;
    let said = block.said(at, content);
    let shares = |h: &str| shared(&content(h), said) > 0;
    let own = telling_headline(review).filter(|h| !review.text.contains(h) && shares(h))?;
    let draft = |headline: &str, yes| Draft::new("review", &review.text, either(yes)).part("headline", headline);
    if chance(rng, 50) {
        return Some(draft(own, true));
    }
    let foreign = |r: &Review| {
        let equal = r.stars == review.stars && r.polarity == review.polarity && r.meta.group != review.meta.group;
        let other_kind = r.category.last() != review.category.last() || review.category.is_empty();
        let headline = if equal && other_kind { telling_headline(r) } else { None };
        headline.is_some_and(|h| !h.eq_ignore_ascii_case(own) && !shares(h))
    };
    let others = neighbours(block, at, &review.text, 12, rng, |_, r| foreign(r));
    let &(_, other) = pick(rng, &others)?;
    Some(draft(telling_headline(other)?, false).others([other.meta.raw_id.clone()]))
}

/// The headline, if it is whole, says something and is not the text itself.
fn telling_headline(review: &Review) -> Option<&str> {
    let headline = review.headline.as_deref().map(str::trim)?;
    let cut = headline.ends_with("..") || headline.ends_with('…');
    let goes_on = review.text.starts_with("..") || review.text.starts_with('…');
    let telling = has_words(headline, 2) && length(headline) <= 100 && !content(headline).is_empty();
    (telling && !cut && !goes_on && headline != review.text).then_some(headline)
}

/// Whether a text holds a word of complaint.
pub(super) fn complains(text: &str) -> bool {
    let lower = text.to_lowercase();
    COMPLAINT.iter().any(|word| lower.contains(word))
}
