//! A vocabulary in order of its tokens' bytes, to find those that can go on a text.

use std::ops::Range;

use ecominstruct::shape::{Reading, Shape};

use super::Text;

/// All tokens that have bytes, in order of these.
pub struct Vocabulary {
    tokens: Vec<(Box<[u8]>, u32)>,
    eos: u32,
}

impl Vocabulary {
    /// That of a tokenizer, without its special tokens.
    pub fn new(text: &Text) -> Self {
        let bytes = |id| {
            let mut bytes = Vec::new();
            text.push_bytes(id, &mut bytes);
            (bytes.into_boxed_slice(), id)
        };
        let mut tokens: Vec<_> = (0..text.len() as u32).map(bytes).filter(|(bytes, _)| !bytes.is_empty()).collect();
        tokens.sort_unstable();
        Self { tokens, eos: text.eos() }
    }

    /// The ids that may follow those of an answer, ascending, so that it keeps to the shape and can end within `left` tokens, as a byte is
    /// a token at worst; the end of text among them where it may end.
    pub fn next(&self, text: &Text, shape: &Shape, answer: &[u32], left: usize) -> Vec<u32> {
        let mut bytes = Vec::new();
        answer.iter().for_each(|&id| text.push_bytes(id, &mut bytes));
        let readings = bytes.into_iter().fold(shape.begin(), |readings, byte| shape.step(&readings, byte));
        let mut allowed = Vec::new();
        if !answer.is_empty() && shape.rest(&readings) == Some(0) {
            allowed.push(self.eos);
        }
        if left > 0 {
            self.walk(shape, &readings, (0..self.tokens.len(), 0), left - 1, &mut allowed);
        }
        allowed.sort_unstable();
        allowed
    }

    /// Adds the tokens among those of a range, which all have the same first `depth` bytes, that go on from the readings after these.
    fn walk(
        &self,
        shape: &Shape,
        readings: &[Reading],
        (range, depth): (Range<usize>, usize),
        left: usize,
        allowed: &mut Vec<u32>,
    ) {
        let of = |range: &Range<usize>, test: &dyn Fn(&[u8]) -> bool| {
            range.start + self.tokens[range.clone()].partition_point(|(bytes, _)| test(bytes))
        };
        let longer = of(&range, &|bytes| bytes.len() == depth);
        if depth > 0 && longer > range.start && shape.rest(readings).is_some_and(|rest| rest <= left) {
            allowed.extend(self.tokens[range.start..longer].iter().map(|(_, id)| *id));
        }
        let mut rest = longer..range.end;
        for byte in shape.bytes(readings) {
            rest.start = of(&rest, &|bytes| bytes[depth] < byte);
            let end = of(&rest, &|bytes| bytes[depth] <= byte);
            if rest.start < end {
                let next = shape.step(readings, byte);
                if !next.is_empty() {
                    self.walk(shape, &next, (rest.start..end, depth + 1), left, allowed);
                }
            }
            rest.start = end;
        }
    }
}
