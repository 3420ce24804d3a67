//! Units (one task, one source, one language): what could be made of each, what the gate says, and what is kept.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::recipe::Recipe;
use super::size::{Room, settle};
use crate::gate::{Case, Verdict, harden};
use crate::instruction::{Kind, Lang, Paradigm};
use crate::task::{GateKind, Task};

/// Cases of a gated unit that the gate looks at, at most.
const CASES: usize = 2_000;

/// One task of one source in one language.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) task: &'static Task,
    pub(super) source: usize,
    pub(super) lang: Lang,
    /// Keys of all that could be made, by class; only the smallest that the cap can use.
    classes: BTreeMap<String, Class>,
    /// Cases of the smallest keys, for the gate.
    cases: BTreeMap<u64, Sides>,
    /// Mean tokens of one instruction, estimated.
    tokens: (u64, u64),
    /// What the gate decided.
    pub(super) gate: Option<Gated>,
    /// Keys that may stay, where the gate took some away.
    hardened: Option<BTreeSet<u64>>,
}

#[derive(Debug, Default)]
struct Class {
    /// With the estimated tokens of each.
    keys: Vec<(u64, u32)>,
    seen: usize,
    /// Instructions to keep, set by [`balance`].
    quota: usize,
    /// The largest key kept.
    threshold: Option<u64>,
}

/// What the hard-negative gate found in a unit.
#[derive(Debug, Clone, Serialize)]
pub struct Gated {
    /// The shortcuts' accuracies on what was drawn.
    pub before: Verdict,
    /// The same on what is left; `None` where the unit was dropped.
    pub after: Option<Verdict>,
}

/// What is needed to know about a made instruction.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) key: u64,
    pub(super) class: String,
    pub(super) sides: Option<Sides>,
    pub(super) tokens: usize,
    /// Tokens with the answer that is written, which may be another row's.
    pub(super) written: usize,
}

/// The texts that the gate compares.
#[derive(Debug)]
pub(super) enum Sides {
    Match { first: String, second: String, yes: bool },
    Select { question: String, candidates: Vec<String>, gold: usize },
}

impl Sides {
    fn case(&self) -> Case<'_> {
        match self {
            Self::Match { first, second, yes } => Case::Match { first, second, yes: *yes },
            Self::Select { question, candidates, gold } => {
                Case::Select { question, candidates: candidates.iter().map(String::as_str).collect(), gold: *gold }
            }
        }
    }
}

impl Unit {
    pub(super) fn new(task: &'static Task, source: usize, lang: Lang) -> Self {
        Self {
            task,
            source,
            lang,
            classes: BTreeMap::new(),
            cases: BTreeMap::new(),
            tokens: (0, 0),
            gate: None,
            hardened: None,
        }
    }

    /// The largest key that can still be among those kept, for each class that has enough.
    pub(super) fn limits(&self, cap: usize) -> FxHashMap<String, u64> {
        let full = self.classes.iter().filter(|(_, class)| cap > 0 && class.keys.len() >= 2 * cap);
        full.filter_map(|(name, class)| Some((name.clone(), class.threshold?))).collect()
    }

    pub(super) fn add(&mut self, ticket: Ticket, cap: usize) {
        self.tokens.0 += ticket.tokens as u64;
        self.tokens.1 += 1;
        if let Some(sides) = ticket.sides
            && (self.cases.len() < CASES || self.cases.last_key_value().is_some_and(|(k, _)| *k > ticket.key))
        {
            self.cases.insert(ticket.key, sides);
            if self.cases.len() > CASES {
                self.cases.pop_last();
            }
        }
        let class = self.classes.entry(ticket.class).or_default();
        class.seen += 1;
        class.keys.push((ticket.key, ticket.written as u32));
        // Twice the cap, because the gate may take some away.
        if cap > 0 && class.keys.len() >= 4 * cap {
            class.keys.select_nth_unstable(2 * cap - 1);
            class.keys.truncate(2 * cap);
            class.threshold = class.keys.iter().map(|k| k.0).max();
        }
    }

    /// How many instructions could be made.
    pub(super) fn seen(&self) -> usize {
        self.classes.values().map(|c| c.seen).sum()
    }

    /// How many are to be kept.
    pub(super) fn quota(&self) -> usize {
        self.classes.values().map(|c| c.quota).sum()
    }

    /// Estimated tokens of those to be kept.
    pub(super) fn kept_tokens(&self) -> u64 {
        self.classes.values().flat_map(|c| c.keys.iter().take(c.quota)).map(|k| u64::from(k.1)).sum()
    }

    /// Estimated tokens of one instruction.
    pub(super) fn mean_tokens(&self) -> f64 {
        self.tokens.0 as f64 / self.tokens.1.max(1) as f64
    }

    /// Runs the gate, where the task has one.
    pub(super) fn run_gate(&mut self, seed: u64, floor: usize) {
        if self.task.gate.is_none() || self.cases.is_empty() {
            return;
        }
        let mut sides: Vec<(u64, Sides)> = std::mem::take(&mut self.cases).into_iter().collect();
        // A shortcut is measured on as many pairs that match as do not; the others are left out later anyway.
        let yes = |s: &Sides| matches!(s, Sides::Match { yes: true, .. });
        let ayes = sides.iter().filter(|s| yes(&s.1)).count();
        if self.task.gate == Some(GateKind::Match) {
            let mut room = [ayes.min(sides.len() - ayes); 2];
            sides.retain(|s| {
                let room = &mut room[usize::from(yes(&s.1))];
                let open = *room > 0;
                *room = room.saturating_sub(1);
                open
            });
        }
        let (keys, sides): (Vec<u64>, Vec<Sides>) = sides.into_iter().unzip();
        let cases: Vec<Case<'_>> = sides.iter().map(Sides::case).collect();
        let hard = harden(&cases, self.lang, seed, floor);
        if hard.keep.len() < cases.len() {
            let keep: BTreeSet<u64> = hard.keep.iter().map(|&i| keys[i]).collect();
            // Beyond the last key that was cut off at, only some of the keys are known, though all may be in the spool.
            for class in self.classes.values_mut() {
                let last = class.threshold.unwrap_or(u64::MAX);
                class.keys.retain(|k| k.0 <= last && keep.contains(&k.0));
            }
            self.hardened = Some(keep);
        }
        let after = (!hard.keep.is_empty()).then_some(hard.after);
        self.gate = Some(Gated { before: hard.before, after });
    }

    /// Sorts the keys and says how many of each class could be kept together: binary tasks evenly, few labels at most three to
    /// one, many labels by the square root of their frequency, absent answers between one in twenty and four in ten.
    fn balanced(&mut self, cap: usize) -> Vec<usize> {
        for class in self.classes.values_mut() {
            class.keys.sort_unstable();
            class.keys.dedup_by_key(|k| k.0);
        }
        let sizes: Vec<usize> = self.classes.values().map(|c| c.keys.len()).collect();
        let cap = if cap == 0 { usize::MAX } else { cap };
        let least = sizes.iter().copied().filter(|&n| n > 0).min().unwrap_or_default();
        let labelled = self.task.paradigm == Paradigm::Cls;
        let (total, number) = (sizes.iter().sum::<usize>(), sizes.len());
        let mut sorted = sizes.clone();
        sorted.sort_unstable();
        // Classes that are very rare do not drag the others down.
        let ratio = 3 * least.max(sorted.get(number / 2).copied().unwrap_or_default() / 3).max(1);
        let roots: f64 = sizes.iter().map(|&n| (n as f64).sqrt()).sum();
        let none = self.classes.get(NONE).map_or(0, |c| c.keys.len());
        let limit = |name: &str, n: usize| match number {
            // A question with one answer teaches nothing.
            1 if labelled => 0,
            0 | 1 => n,
            2 if labelled => least,
            3..=12 if labelled => n.min(ratio),
            _ if labelled => n.min(((n as f64).sqrt() / roots * cap.min(total) as f64 * 1.5).ceil() as usize),
            // Too few to teach when to say so: then none at all.
            _ if name == NONE && none * 19 < total - none => 0,
            _ if name == NONE => n.min((total - none) * 2 / 3),
            _ => n,
        };
        self.classes.iter().map(|(name, c)| limit(name, c.keys.len()).min(c.keys.len())).collect()
    }

    /// Whether there are two labels, which are kept equally often.
    fn even(&self, available: &[usize]) -> bool {
        self.task.paradigm == Paradigm::Cls && available.len() == 2
    }

    /// Shares `total` among the classes in proportion to `available`.
    fn share(&mut self, available: &[usize], total: usize) {
        let sum: usize = available.iter().sum();
        let total = total.min(sum);
        let binary = self.even(available);
        let mut left = total;
        for (i, (class, &n)) in self.classes.values_mut().zip(available).enumerate() {
            let rest: usize = available[i..].iter().sum();
            let part = if binary { total / 2 } else { (left * n + rest / 2) / rest.max(1) };
            class.quota = part.min(n);
            left -= class.quota.min(left);
            class.threshold = class.quota.checked_sub(1).and_then(|at| class.keys.get(at)).map(|k| k.0);
        }
    }

    /// Whether an instruction is among those kept.
    pub(super) fn keeps(&self, class: &str, key: u64) -> bool {
        self.hardened.as_ref().is_none_or(|keep| keep.contains(&key))
            && self.classes.get(class).and_then(|c| c.threshold).is_some_and(|last| key <= last)
    }

    /// Class sizes that were seen.
    pub(super) fn class_counts(&self) -> BTreeMap<&str, usize> {
        self.classes.iter().map(|(name, c)| (name.as_str(), c.seen)).collect()
    }
}

/// Class of an answer that says nothing fits.
pub(super) const NONE: &str = "None";

/// Decides how many instructions of each unit are kept, so that caps and shares of the recipe hold as far as the units reach.
pub(super) fn balance(units: &mut [Unit], sources: usize, recipe: &Recipe) {
    let available: Vec<Vec<usize>> = units.iter_mut().map(|u| u.balanced(recipe.cap)).collect();
    let cap = if recipe.cap == 0 { usize::MAX } else { recipe.cap };
    let most: Vec<usize> = available
        .iter()
        .map(|classes| match classes.iter().sum::<usize>().min(cap) {
            n if n < recipe.floor => 0,
            n => n,
        })
        .collect();
    let mut factor = vec![1.0f64; units.len()];
    let tokens: Vec<f64> = units.iter().map(Unit::mean_tokens).collect();
    let limit: usize = most.iter().sum();
    let size = if recipe.size == 0 { limit } else { recipe.size.min(limit) };
    let steps: Vec<usize> = units.iter().zip(&available).map(|(u, classes)| 1 + usize::from(u.even(classes))).collect();
    let fill = |factor: &[f64]| match recipe.size {
        0 => fill(&most, factor, recipe.alpha, size),
        _ => {
            let room = |((&most, f), &step): ((&usize, &f64), &usize)| Room {
                most,
                ceiling: most as f64 * f.min(1.0),
                floor: most.min(recipe.floor),
                weight: (most as f64).powf(recipe.alpha) * f,
                step,
            };
            settle(&most.iter().zip(factor).zip(&steps).map(room).collect::<Vec<_>>(), size)
        }
    };
    let mut kept = fill(&factor);
    if recipe.cap > 0 || recipe.size > 0 {
        // Many small steps: groups overlap, and a unit that was held back too far would not come back.
        for _ in 0..400 {
            let groups = groups(units, sources, recipe, &kept, &most, &tokens);
            if groups.iter().all(|wanted| *wanted > 0.999) {
                break;
            }
            factor.iter_mut().zip(groups).for_each(|(f, wanted)| *f *= wanted.powf(0.1));
            kept = fill(&factor);
        }
        // Below the floor a unit teaches little: it keeps the floor, or all it has.
        if recipe.size == 0 {
            kept.iter_mut().zip(&most).for_each(|(n, &most)| *n = (*n).max(most.min(recipe.floor)));
        }
    }
    for ((unit, classes), n) in units.iter_mut().zip(&available).zip(kept) {
        unit.share(classes, n);
    }
}

/// Instructions of each unit: proportional to its weight, but no more than it has; `size` together where they reach.
fn fill(most: &[usize], factor: &[f64], alpha: f64, size: usize) -> Vec<usize> {
    // A factor below one also lowers what a unit may give, or a unit that is short could never be held back.
    let ceiling: Vec<f64> = most.iter().zip(factor).map(|(&n, f)| n as f64 * f.min(1.0)).collect();
    let weight: Vec<f64> = most.iter().zip(factor).map(|(&n, f)| (n as f64).powf(alpha) * f).collect();
    let total = |scale: f64| -> f64 { ceiling.iter().zip(&weight).map(|(c, w)| c.min(w * scale)).sum() };
    let (mut low, mut high) = (0.0, 1e12);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if total(middle) < size as f64 { low = middle } else { high = middle }
    }
    ceiling.iter().zip(&weight).map(|(c, w)| c.min(w * high).round() as usize).collect()
}

/// For each unit the factor by which the groups it is in are too large; 1 where none is.
fn groups(
    units: &[Unit],
    sources: usize,
    recipe: &Recipe,
    kept: &[usize],
    available: &[usize],
    tokens: &[f64],
) -> Vec<f64> {
    let all: f64 = kept.iter().zip(tokens).map(|(&n, t)| n as f64 * t).sum();
    let rows: f64 = kept.iter().map(|&n| n as f64).sum();
    let mut factors = vec![1.0f64; units.len()];
    let mut lower = |of: &dyn Fn(&Unit) -> bool, share: f64, most: f64| {
        if share > most && most > 0.0 && share < 1.0 {
            // Taking x away from a group of weight g leaves (g - x) / (1 - x): solved for the factor.
            let factor = most * (1.0 - share) / (share * (1.0 - most));
            for (f, _) in factors.iter_mut().zip(units).filter(|(_, u)| of(u)) {
                *f = f.min(factor);
            }
        }
    };
    let part = |of: &dyn Fn(&Unit) -> bool| -> f64 {
        let group = units.iter().zip(kept).zip(tokens).filter(|((u, _), _)| of(u));
        group.map(|((_, &n), t)| n as f64 * t).sum::<f64>() / all.max(1.0)
    };
    // A paradigm that has less than half of its share gives nothing up for the balance of languages.
    let scarce = |u: &Unit| {
        let name = u.task.paradigm.name();
        let share = recipe.shares.paradigm.get(name).copied().unwrap_or(0.0);
        part(&|other: &Unit| other.task.paradigm.name() == name) < share / 2.0
    };
    let scarce: BTreeSet<&str> = units.iter().filter(|u| scarce(u)).map(|u| u.task.paradigm.name()).collect();
    for lang in [Lang::En, Lang::Zh] {
        let of = |u: &Unit| u.lang == lang;
        let share = units.iter().zip(kept).filter(|(u, _)| of(u)).map(|(_, &n)| n as f64).sum::<f64>() / rows.max(1.0);
        let gives = |u: &Unit| of(u) && !scarce.contains(u.task.paradigm.name());
        lower(&gives, share, 1.0 - recipe.shares.language);
    }
    for source in 0..sources {
        let of = |u: &Unit| u.source == source;
        lower(&of, part(&of), recipe.shares.source.max(1.0 / sources.max(1) as f64));
    }
    // Where the paradigms that are there could not fill the whole, each may have more.
    let limit = |most: f64| (most * 1.15).min(1.0);
    let there = |name: &str| units.iter().zip(available).any(|(u, &n)| n > 0 && u.task.paradigm.name() == name);
    let named = |name: &str| recipe.shares.paradigm.get(name).copied();
    let reach: f64 = ["CLS", "EXT", "GEN", "OTH"]
        .into_iter()
        .filter(|name| there(name))
        .map(|name| limit(named(name).unwrap_or(1.0)))
        .sum();
    for (name, &most) in &recipe.shares.paradigm {
        let of = |u: &Unit| u.task.paradigm.name() == name;
        lower(&of, part(&of), (limit(most) / reach.clamp(1e-9, 1.0)).min(1.0));
    }
    // A data type that has too little gets all it has; the others share the rest.
    let types: BTreeSet<_> = units.iter().map(|u| u.task.dtype).collect();
    let reach = |dtype| {
        let group = units.iter().zip(available).zip(tokens).filter(|((u, _), _)| u.task.dtype == dtype);
        group.map(|((_, &n), t)| n as f64 * t).sum::<f64>() / all.max(1.0)
    };
    for &dtype in &types {
        let others: f64 = types.iter().filter(|&&t| t != dtype).map(|&t| reach(t).min(recipe.shares.data_type)).sum();
        let of = |u: &Unit| u.task.dtype == dtype;
        lower(&of, part(&of), 1.0 - others);
    }
    factors
}

/// Whether atomic outputs of this unit are to be permuted.
pub(super) fn shuffled(unit: &Unit, recipe: &Recipe) -> bool {
    recipe.tasks.shuffle_atomic && unit.task.kind() == Kind::Atomic
}
