//! What an answer must keep to: which ids may follow those it has. [`Choices`] is the rule of a closed set of answers.

use std::collections::BTreeMap;

use kernels::sample::{self, Choice, Sampling};

/// Given the ids of an answer so far and how many more it may have, the ids that may follow, ascending: the end of text among
/// them where the answer may end, and none after which it could not end within the tokens that are left.
pub type Rule<'a> = dyn Fn(&[u32], usize) -> Vec<u32> + Sync + 'a;

/// The next token among those allowed, as [`sample::choose`] would take it if all others were impossible; `None` where none is
/// allowed, or one is not among the `logits` `[v]`.
pub(crate) fn choose_among(logits: &[f32], allowed: &[u32], sampling: &Sampling, choice: &Choice) -> Option<u32> {
    let mut few = allowed.iter().map(|&id| logits.get(id as usize).copied()).collect::<Option<Vec<f32>>>()?;
    if sampling.repetition_penalty != 1.0 {
        let seen = choice.seen.iter().filter_map(|id| Some(allowed.binary_search(id).ok()? as u32));
        sample::penalize(&mut few, &seen.collect::<Vec<_>>(), sampling.repetition_penalty);
    }
    allowed.get(sample::sample(&few, sampling, choice.uniform) as usize).copied()
}

/// A closed set of answers: one of some labels, or several of them with a separator between.
#[derive(Clone, Debug)]
pub struct Choices {
    /// The labels as the first of an answer, then as a later one, with the separator before them.
    tries: [Trie; 2],
    eos: u32,
}

/// How an answer so far can be read: where in which trie it is, and the labels it has named.
#[derive(Clone, Debug, PartialEq)]
struct Reading {
    trie: usize,
    node: usize,
    named: Vec<usize>,
}

impl Choices {
    /// One of the answers, each the ids of a label, which `eos` ends.
    pub fn one(labels: &[Vec<u32>], eos: u32) -> Self {
        Self { tries: [Trie::new(labels), Trie::new(&[])], eos }
    }

    /// One or more of the labels, none twice; `later` are the same labels as they are written behind another, each with the
    /// separator before it.
    pub fn several(labels: &[Vec<u32>], later: &[Vec<u32>], eos: u32) -> Self {
        Self { tries: [Trie::new(labels), Trie::new(later)], eos }
    }

    /// The ids that may follow, as [`Rule`] wants them.
    pub fn next(&self, answer: &[u32], left: usize) -> Vec<u32> {
        let mut readings = vec![Reading { trie: 0, node: 0, named: Vec::new() }];
        for &id in answer {
            let mut now = Vec::new();
            for reading in &readings {
                self.follow(reading, |next, next_id| {
                    if next_id == id && !now.contains(&next) {
                        now.push(next);
                    }
                });
            }
            readings = now;
        }
        let mut allowed = Vec::new();
        for reading in &readings {
            let Reading { trie, node, named } = reading;
            if self.tries[*trie].label(*node, named).is_some() {
                allowed.push(self.eos);
            }
            self.follow(reading, |next, id| {
                let rest = self.tries[next.trie].to_end(next.node, &next.named);
                if rest.is_some_and(|rest| rest < left) {
                    allowed.push(id);
                }
            });
        }
        allowed.sort_unstable();
        allowed.dedup();
        allowed
    }

    /// Calls `each` with what the reading can become, and by which id.
    fn follow(&self, reading: &Reading, mut each: impl FnMut(Reading, u32)) {
        let Reading { trie, node, named } = reading;
        for (&id, &node) in &self.tries[*trie].nodes[*node].children {
            each(Reading { trie: *trie, node, named: named.clone() }, id);
        }
        if let Some(label) = self.tries[*trie].label(*node, named) {
            let named = [&named[..], &[label]].concat();
            for (&id, &node) in &self.tries[1].nodes[0].children {
                each(Reading { trie: 1, node, named: named.clone() }, id);
            }
        }
    }
}

/// Sequences of ids by their beginnings.
#[derive(Clone, Debug)]
struct Trie {
    /// The first is the root.
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    children: BTreeMap<u32, usize>,
    /// The label that is whole here.
    label: Option<usize>,
}

impl Trie {
    /// Of equal sequences, the first counts; empty ones are no answers.
    fn new(labels: &[Vec<u32>]) -> Self {
        let mut nodes = vec![Node::default()];
        for (label, ids) in labels.iter().enumerate().filter(|(_, ids)| !ids.is_empty()) {
            let mut at = 0;
            for &id in ids {
                at = if let Some(&child) = nodes[at].children.get(&id) {
                    child
                } else {
                    let child = nodes.len();
                    nodes[at].children.insert(id, child);
                    nodes.push(Node::default());
                    child
                };
            }
            nodes[at].label.get_or_insert(label);
        }
        Self { nodes }
    }

    /// The label that is whole at a node, unless it was named before.
    fn label(&self, node: usize, named: &[usize]) -> Option<usize> {
        self.nodes[node].label.filter(|label| !named.contains(label))
    }

    /// The fewest tokens from a node to where a label that was not named is whole.
    fn to_end(&self, node: usize, named: &[usize]) -> Option<usize> {
        let mut level = vec![node];
        let mut tokens = 0;
        while !level.is_empty() {
            if level.iter().any(|&node| self.label(node, named).is_some()) {
                return Some(tokens);
            }
            level = level.iter().flat_map(|&node| self.nodes[node].children.values().copied()).collect();
            tokens += 1;
        }
        None
    }
}
