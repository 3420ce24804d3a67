//! What the agent answers.

use std::collections::BTreeSet;

use super::{LOOKED_AT, around, length, likeness, most, one_line, says_something, shown};
use crate::instruction::{Lang, is_han};
use crate::record::{Dialogue, Speaker};
use crate::splitmix::SplitMix;
use crate::task::block::Block;
use crate::task::{Answer, Draft, chance, either, pick, select};

/// F26: window up to a customer turn -> the agent's reply.
pub(super) fn write(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let d = block.dialogues.get(at)?;
    let (end, reply) = gold(block, at, rng)?;
    let text = shown(d, end)?;
    told(&reply, &text).then(|| Draft::new("dialogue", text, Answer::Text(reply)))
}

/// Whether the dialogue has the numbers and, in Chinese, the Latin words of a reply: what an agent looks up nobody can write.
pub(super) fn told(reply: &str, dialogue: &str) -> bool {
    let (reply, dialogue) = (reply.to_ascii_lowercase(), dialogue.to_ascii_lowercase());
    let chinese = reply.contains(is_han);
    let mut words = reply.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    words.all(|w| !(chinese || w.contains(|c: char| c.is_ascii_digit())) || dialogue.contains(w))
}

/// A49: window + four replies -> the one that was given. Half of the others come from a dialogue about the same thing.
pub(super) fn choose(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let d = block.dialogues.get(at)?;
    let (end, reply) = gold(block, at, rng)?;
    let text = shown(d, end)?;
    let mut others: Vec<(String, String)> = Vec::new();
    for _ in 0..3 {
        let close = chance(rng, 50);
        let other = wrong(block, at, end, &reply, close, rng)?;
        if others.iter().any(|o| likeness(&o.0, &other.0) > 60) {
            return None;
        }
        others.push(other);
    }
    let candidates = select(&reply, others.iter().map(|o| o.0.clone()), rng)?;
    let used: BTreeSet<String> = others.into_iter().map(|o| o.1).filter(|id| *id != d.meta.raw_id).collect();
    Some(Draft::new("dialogue", text, Answer::Spans(vec![reply])).candidates(candidates).others(used))
}

/// A50: one side's question and the other's answer, in either order -> which was sent first. Either side asks as often.
pub(super) fn which_first(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let d = block.dialogues.get(at)?;
    let lang = d.meta.lang;
    let enough = if lang == Lang::Zh { 6 } else { 4 };
    let full = |t: &crate::record::Turn| length(&t.text, lang) >= enough && t.text.chars().count() <= most(lang) / 3;
    let asker = if chance(rng, 50) { Speaker::Customer } else { Speaker::Agent };
    let pairs: Vec<(&str, &str)> = d
        .turns
        .windows(2)
        .filter(|w| w[0].speaker == asker && w[1].speaker != asker && full(&w[0]) && full(&w[1]))
        .map(|w| (w[0].text.as_str(), w[1].text.as_str()))
        .filter(|(first, then)| asks(first) && !asks(then) && (lang == Lang::En || about_the_same(first, then)))
        .collect();
    let &(first, then) = pick(rng, &pairs)?;
    if generic(block, at, if asker == Speaker::Agent { first } else { then }) {
        return None;
    }
    let a_first = chance(rng, 50);
    let (a, b) = if a_first { (first, then) } else { (then, first) };
    Some(Draft::new("utterance_a", one_line(a), either(a_first)).part("utterance_b", one_line(b)))
}

/// Whether two Chinese characters in a row stand in both texts.
pub(super) fn about_the_same(a: &str, b: &str) -> bool {
    let chars: Vec<char> = a.chars().collect();
    chars.windows(2).any(|pair| pair.iter().all(|&c| is_han(c)) && b.contains(&pair.iter().collect::<String>()))
}

/// A56: window + reply -> fits or not. Half of the wrong replies come from a dialogue about the same thing.
pub(super) fn judge(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let d = block.dialogues.get(at)?;
    let (end, reply) = gold(block, at, rng)?;
    let text = shown(d, end)?;
    if chance(rng, 50) {
        return Some(Draft::new("dialogue", text, either(true)).part("reply", reply));
    }
    let close = chance(rng, 50);
    let (other, id) = wrong(block, at, end, &reply, close, rng)?;
    Some(Draft::new("dialogue", text, either(false)).part("reply", other).others((id != d.meta.raw_id).then_some(id)))
}

/// A place right after a customer turn, and the reply given there: one of the reference replies where there are such, else
/// the agent's turn. Never one that is very short or said again and again.
fn gold(block: &Block, at: usize, rng: &mut SplitMix) -> Option<(usize, String)> {
    let d = block.dialogues.get(at)?;
    let end = d.turns.len();
    if asked(d, end) && !d.replies.is_empty() {
        let good: Vec<&String> = d.replies.iter().filter(|r| usable(r, d.meta.lang)).collect();
        return pick(rng, &good).map(|r| (end, one_line(r)));
    }
    let mut places: Vec<usize> = (1..end)
        .filter(|&i| asked(d, i))
        .filter(|&i| d.turns.get(i).is_some_and(|t| t.speaker == Speaker::Agent && usable(&t.text, d.meta.lang)))
        .collect();
    rng.shuffle(&mut places);
    let place = places.into_iter().take(4).find(|&i| d.turns.get(i).is_some_and(|t| !generic(block, at, &t.text)))?;
    Some((place, one_line(&d.turns.get(place)?.text)))
}

/// Whether the turn before `end` is a customer's and has something to reply to.
fn asked(d: &Dialogue, end: usize) -> bool {
    let enough = if d.meta.lang == Lang::Zh { 3 } else { 2 };
    let last = end.checked_sub(1).and_then(|i| d.turns.get(i));
    last.is_some_and(|t| t.speaker == Speaker::Customer && length(&t.text, d.meta.lang) >= enough)
}

/// Phrases of courtesy. A reply that holds one fits nearly anywhere.
const COURTESY: [&str; 49] = [
    "anything else",
    "welcome",
    "thank",
    "have a good",
    "have a nice",
    "have a great",
    "a minute",
    "a moment",
    "帮到您",
    "帮您的",
    "帮助您",
    "帮助的",
    "为您服务",
    "为您效劳",
    "帮您处理",
    "不客气",
    "太客气",
    "感谢您",
    "祝您",
    "稍等",
    "how can i help",
    "how may i help",
    "let me check",
    "let me see",
    "sorry",
    "apolog",
    "抱歉",
    "对不起",
    "谢谢",
    "再见",
    "放心",
    "查一下",
    "看一下",
    "核实一下",
    "查询一下",
    "等一下",
    "请讲",
    "请说",
    "其他问题",
    "别的问题",
    "什么问题",
    "愉快",
    "您好",
    "有什么",
    "可以帮",
    "订单号",
    "哪个订单",
    "哪一个订单",
    "哪笔订单",
];

/// Fewest characters of a reply: "no problem" of any kind fits nearly anywhere, too.
const SHORT: usize = 8;

/// Whether a reply says something besides courtesies, and not too much, in words.
fn usable(text: &str, lang: Lang) -> bool {
    let size = SHORT..=most(lang) / 6;
    let fits = says_something(text, lang) && size.contains(&text.chars().count()) && !text.contains("http");
    let lower = if fits { text.to_lowercase() } else { return false };
    !COURTESY.iter().any(|phrase| lower.contains(phrase))
}

/// Whether agents say this three times or more in the dialogues around.
fn generic(block: &Block, at: usize, text: &str) -> bool {
    let all = block.dialogues_where_agents_say(text);
    let n = block.dialogues.len();
    let before = |end: usize| all.partition_point(|&i| i < end);
    // From `at` on, around the end to the first ones again.
    let end = at + n.min(LOOKED_AT);
    before(end) - before(at) + before(end.saturating_sub(n)) >= 3
}

/// A reply that was not given here, of about the length of the one that was, with the `raw_id` of its dialogue: from a
/// dialogue with the same intent or topic, from a far part of the same one or from one with alike words where `close`, else
/// from any.
fn wrong(
    block: &Block,
    at: usize,
    end: usize,
    right: &str,
    close: bool,
    rng: &mut SplitMix,
) -> Option<(String, String)> {
    let d = block.dialogues.get(at)?;
    let near = if close { related(block, at, end, rng) } else { Vec::new() };
    let far = |_: usize| {
        let i = rng.below(block.dialogues.len());
        block.dialogues.get(i).map(|o| (i, rng.below(o.turns.len())))
    };
    let drawn: Vec<(usize, usize)> =
        if near.is_empty() { (0..24).filter_map(far).filter(|p| p.0 != at).collect() } else { near };
    let long = length(right, d.meta.lang);
    let mut found: Vec<(usize, usize, &str)> = Vec::new();
    for (i, turn) in drawn {
        let other = block.dialogues.get(i)?;
        let Some(reply) = other.turns.get(turn).filter(|t| t.speaker == Speaker::Agent) else { continue };
        let said = d.turns.iter().take(end).any(|t| t.text == reply.text);
        let mut right = std::iter::once(right).chain(d.replies.iter().map(String::as_str));
        if usable(&reply.text, d.meta.lang) && !said && right.all(|r| likeness(&reply.text, r) < 40) {
            found.push((length(&reply.text, d.meta.lang).abs_diff(long), i, &reply.text));
        }
        if found.len() == 6 {
            break;
        }
    }
    found.sort_unstable();
    let &(_, i, text) = found.iter().find(|f| !generic(block, f.1, f.2))?;
    Some((one_line(text), block.dialogues.get(i)?.meta.raw_id.clone()))
}

/// Turns that talk about the same thing, in random order: those of a few dialogues with the same intent or topic, or else of
/// those that end alike, and the same dialogue's turns far from here.
fn related(block: &Block, at: usize, end: usize, rng: &mut SplitMix) -> Vec<(usize, usize)> {
    let Some(d) = block.dialogues.get(at) else { return Vec::new() };
    let mut same: Vec<usize> = if let Some(intent) = &d.intent {
        block.dialogues_of_intent(intent).iter().copied().filter(|&i| i != at).collect()
    } else if d.topic.is_some() {
        around(block, at).filter(|&i| block.dialogues.get(i).is_some_and(|o| o.topic == d.topic)).collect()
    } else {
        let asked = end.checked_sub(1).and_then(|i| d.turns.get(i)).map_or("", |t| &t.text);
        block.near_dialogues().near(asked, 4, |i| i != at)
    };
    rng.shuffle(&mut same);
    let mut places: Vec<(usize, usize)> =
        (0..d.turns.len()).filter(|&i| i + super::TURNS < end || i > end + 3).map(|i| (at, i)).collect();
    for i in same.into_iter().take(4) {
        places.extend((0..block.dialogues.get(i).map_or(0, |o| o.turns.len())).map(|turn| (i, turn)));
    }
    rng.shuffle(&mut places);
    places
}

/// Whether a text asks something.
fn asks(text: &str) -> bool {
    let end = text.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '?' && c != '？');
    text.contains(['?', '？']) || end.ends_with(['吗', '呢'])
}
