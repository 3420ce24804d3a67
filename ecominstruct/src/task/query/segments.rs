//! The pieces of a query.

use crate::instruction::Entity;
use crate::record::Query;
use crate::splitmix::SplitMix;
use crate::task::block::Block;
use crate::task::{Answer, Draft};

/// F32: query + types -> the pieces of each type. Only where the pieces are all of the query.
pub(super) fn typed(block: &Block, at: usize, rng: &mut SplitMix) -> Option<Draft> {
    let query = block.queries.get(at)?;
    let pieces = pieces(query).filter(|_| rest(query) == 0)?;
    let mut kinds: Vec<&str> = Vec::new();
    for piece in &pieces {
        if !kinds.contains(&piece.kind) {
            kinds.push(piece.kind);
        }
    }
    let candidates = block.kinds().choices(&kinds, 1..=4, rng)?;
    let of = |kind: &String| {
        let mut texts: Vec<&str> = Vec::new();
        for piece in pieces.iter().filter(|p| p.kind == kind) {
            if !texts.contains(&piece.text) {
                texts.push(piece.text);
            }
        }
        texts.into_iter().map(|text| Entity { kind: kind.clone(), text: text.to_owned() }).collect::<Vec<_>>()
    };
    let entities = candidates.iter().flat_map(of).collect();
    Some(Draft::new("query", query.text.trim(), Answer::Entities(entities)).candidates(candidates))
}

/// A59: query -> its core product, where there is one, and other words.
pub(super) fn core(block: &Block, at: usize, _rng: &mut SplitMix) -> Option<Draft> {
    let query = block.queries.get(at)?;
    let pieces = pieces(query)?;
    let mut cores = pieces.iter().filter(|p| p.core);
    let only = cores.next().filter(|_| cores.next().is_none())?;
    let answer = Answer::Spans(vec![only.text.to_owned()]);
    (only.text != query.text.trim()).then(|| Draft::new("query", query.text.trim(), answer))
}

/// A60: query -> its pieces with ` / ` between them. Only where the pieces are all of the query.
pub(super) fn split(block: &Block, at: usize, _rng: &mut SplitMix) -> Option<Draft> {
    let query = block.queries.get(at)?;
    let pieces = pieces(query)?;
    let texts: Vec<&str> = pieces.iter().map(|p| p.text).collect();
    let clear = texts.len() >= 2 && rest(query) == 0 && !query.text.contains('/');
    clear.then(|| Draft::new("query", query.text.trim(), Answer::Text(texts.join(" / "))))
}

/// A63: query -> the pieces that narrow it down, or none. Only where the pieces are all of the query.
pub(super) fn modifiers(block: &Block, at: usize, _rng: &mut SplitMix) -> Option<Draft> {
    let query = block.queries.get(at)?;
    let pieces = pieces(query)?;
    let mut found: Vec<String> = Vec::new();
    for piece in pieces.iter().filter(|p| !p.core) {
        if !found.iter().any(|f| f == piece.text) {
            found.push(piece.text.to_owned());
        }
    }
    let clear = pieces.iter().any(|p| p.core) && rest(query) == 0;
    clear.then(|| Draft::new("query", query.text.trim(), Answer::Spans(found)))
}

/// A piece of a query.
struct Piece<'a> {
    text: &'a str,
    kind: &'a str,
    core: bool,
}

/// The pieces, in order; `None` where there are none, the query holds marks of another kind of text, or one cannot be an item of a list or is part of a Latin word or code.
fn pieces(query: &Query) -> Option<Vec<Piece<'_>>> {
    if query.text.contains(['&', '#', '[']) || query.text.contains("转卖") {
        return None;
    }
    let listed = |text: &str| !text.contains([',', ';', '，', '；', '、', '\n']);
    let piece = |s: &crate::record::TypedSpan| {
        let whole = !cuts(&query.text, s.span.start) && !cuts(&query.text, s.span.end);
        s.span.of(&query.text).map(str::trim).filter(|t| whole && !t.is_empty() && listed(t))
    };
    let known = query.segments.iter();
    let pieces: Option<Vec<Piece<'_>>> = known
        .map(|s| Some(Piece { text: piece(s)?, kind: &s.kind, core: query.core.as_ref() == Some(&s.kind) }))
        .collect();
    pieces.filter(|p| !p.is_empty())
}

/// Whether byte `at` is inside of a run of Latin letters and digits.
fn cuts(text: &str, at: usize) -> bool {
    let latin = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.split_at_checked(at).is_some_and(|(a, b)| latin(a.chars().next_back()) && latin(b.chars().next()))
}

/// Letters and digits outside of all pieces.
fn rest(query: &Query) -> usize {
    let inside = |i: usize| query.segments.iter().any(|s| (s.span.start..s.span.end).contains(&i));
    query.text.char_indices().filter(|&(i, c)| c.is_alphanumeric() && !inside(i)).count()
}
