//! Label sets with their frequencies, and confusable distractors drawn from them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use rustc_hash::FxHashMap;

use crate::splitmix::SplitMix;

/// The labels of a block, how often each occurs, and which are easily confused.
#[derive(Debug, Default)]
pub struct Inventory {
    names: Vec<String>,
    counts: Vec<u32>,
    index: FxHashMap<String, usize>,
    /// For each label its most confusable others, nearest first.
    near: Vec<Vec<usize>>,
    /// How many of those are siblings or were seen together with it; the rest are only like it by name.
    kin: Vec<usize>,
    /// Running sums of the square roots of the counts, for drawing.
    weights: Vec<f64>,
}

/// Most confusable labels kept for each label.
const NEAR: usize = 12;

/// Labels compared by name at most; above that only siblings count as confusable.
const COMPARED: usize = 3_000;

impl Inventory {
    /// Of all label occurrences: each item holds the labels of one record, with the parent of each where there is one.
    /// Confusable are, in this order: labels with the same parent, labels seen in the same record, labels with similar names.
    pub fn new<'a>(records: impl IntoIterator<Item = Vec<(&'a str, Option<&'a str>)>>) -> Self {
        let mut labels: BTreeMap<&str, (u32, Option<&str>)> = BTreeMap::new();
        let mut together: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for record in records {
            let distinct: BTreeMap<&str, Option<&str>> = record.into_iter().collect();
            for (&label, &parent) in &distinct {
                let entry = labels.entry(label).or_default();
                entry.0 += 1;
                entry.1 = entry.1.or(parent);
            }
            if (2..=16).contains(&distinct.len()) {
                for &a in distinct.keys() {
                    for &b in distinct.keys().filter(|&&b| b != a) {
                        *together.entry((a, b)).or_default() += 1;
                    }
                }
            }
        }
        let names: Vec<String> = labels.keys().map(|&l| l.to_owned()).collect();
        let counts: Vec<u32> = labels.values().map(|v| v.0).collect();
        let index: FxHashMap<String, usize> = names.iter().cloned().zip(0..).collect();
        let parents: Vec<Option<&str>> = labels.values().map(|v| v.1).collect();
        let grams: Vec<BTreeSet<(char, char)>> = names.iter().map(|n| bigrams(n)).collect();
        let mut partners: Vec<Vec<(u32, usize)>> = vec![Vec::new(); names.len()];
        for ((a, b), n) in together {
            if let (Some(&a), Some(&b)) = (index.get(a), index.get(b)) {
                partners[a].push((n, b));
            }
        }
        let mut families: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (i, parent) in parents.iter().enumerate() {
            families.entry(parent.unwrap_or_default()).or_default().push(i);
        }
        let (near, kin): (Vec<Vec<usize>>, Vec<usize>) = (0..names.len())
            .map(|i| {
                let family = match parents[i] {
                    Some(parent) => families.get(parent).map_or(&[][..], Vec::as_slice),
                    None => &[],
                };
                let mut ranked: Vec<(u64, usize)> = Vec::new();
                let likeness = |j: usize| similarity(&grams[i], &grams[j]);
                ranked.extend(family.iter().filter(|&&j| j != i).map(|&j| (2_000_000 + likeness(j), j)));
                ranked.extend(partners[i].iter().map(|&(n, j)| (1_000_000 + u64::from(n), j)));
                if names.len() <= COMPARED {
                    ranked.extend((0..names.len()).filter(|&j| j != i).map(|j| (likeness(j), j)).filter(|r| r.0 > 0));
                }
                ranked.sort_by_key(|&(score, j)| (std::cmp::Reverse(score), j));
                let mut seen = BTreeSet::new();
                ranked.retain(|r| seen.insert(r.1));
                ranked.truncate(NEAR);
                let kin = ranked.iter().filter(|r| r.0 >= 1_000_000).count();
                (ranked.into_iter().map(|r| r.1).collect(), kin)
            })
            .unzip();
        let mut sum = 0.0;
        let weights = counts
            .iter()
            .map(|&n| {
                sum += f64::from(n).sqrt();
                sum
            })
            .collect();
        Self { names, counts, index, near, kin, weights }
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// All labels, in order of name.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many records have this label.
    pub fn count(&self, label: &str) -> u32 {
        self.index.get(label).map_or(0, |&i| self.counts[i])
    }

    /// A label other than those in `not`: half the time one that is easily confused with `with`, else drawn by the square root of its
    /// frequency (three in ten) or evenly (two in ten), as in the specification's rule for distractors. `None` where there is no other.
    pub fn distractor(&self, with: &str, not: &[&str], rng: &mut SplitMix) -> Option<&str> {
        for _ in 0..32 {
            let at = match rng.below(10) {
                0..5 => {
                    let near = self.index.get(with).map_or(&[][..], |&i| match self.kin[i] {
                        0 => self.near[i].as_slice(),
                        kin => &self.near[i][..kin],
                    });
                    match near.get(rng.below(near.len())) {
                        Some(&at) => at,
                        None => self.weighted(rng),
                    }
                }
                5..8 => self.weighted(rng),
                _ => rng.below(self.len()),
            };
            match self.names.get(at) {
                Some(name) if !not.contains(&name.as_str()) => return Some(name),
                _ => {}
            }
        }
        self.names.iter().map(String::as_str).find(|name| !not.contains(name))
    }

    /// A label that is easily confused with `with` and not in `not`: a sibling or one seen together with it, else one with a
    /// similar name, else any other one.
    pub fn confusable(&self, with: &str, not: &[&str], rng: &mut SplitMix) -> Option<&str> {
        let (near, kin) = self.index.get(with).map_or((&[][..], 0), |&i| (self.near[i].as_slice(), self.kin[i]));
        let open = |list: &[usize]| -> Vec<&str> {
            list.iter().map(|&i| self.names[i].as_str()).filter(|n| !not.contains(n)).collect()
        };
        let mut list = open(&near[..kin]);
        if list.is_empty() {
            list = open(&near[kin..]);
        }
        let open = list;
        match open.get(rng.below(open.len())) {
            Some(name) => Some(name),
            None => self.distractor(with, not, rng),
        }
    }

    /// `gold` and a number of others drawn from `extra`, in random order; all labels where `extra` reaches that many. The
    /// number of candidates does not depend on which labels are gold. `None` where fewer than two labels come together.
    pub fn choices(&self, gold: &[&str], extra: RangeInclusive<usize>, rng: &mut SplitMix) -> Option<Vec<String>> {
        let wanted = extra.start() + rng.below(extra.end() + 1 - extra.start());
        let mut chosen: Vec<&str> = Vec::with_capacity(gold.len() + wanted);
        for label in gold {
            if !chosen.contains(label) {
                chosen.push(label);
            }
        }
        let whole = chosen.len() + wanted;
        while chosen.len() < whole {
            let with = if gold.is_empty() { "" } else { gold[rng.below(gold.len())] };
            match self.distractor(with, &chosen, rng) {
                Some(other) => chosen.push(other),
                None => break,
            }
        }
        let mut list: Vec<String> = chosen.into_iter().map(str::to_owned).collect();
        rng.shuffle(&mut list);
        (list.len() >= 2).then_some(list)
    }

    fn weighted(&self, rng: &mut SplitMix) -> usize {
        let total = self.weights.last().copied().unwrap_or_default();
        let drawn = total * (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        self.weights.partition_point(|&sum| sum <= drawn)
    }
}

fn bigrams(name: &str) -> BTreeSet<(char, char)> {
    let chars: Vec<char> = name.chars().flat_map(char::to_lowercase).collect();
    chars.windows(2).map(|w| (w[0], w[1])).chain(chars.first().map(|&c| (' ', c))).collect()
}

/// Jaccard similarity in thousandths.
fn similarity(a: &BTreeSet<(char, char)>, b: &BTreeSet<(char, char)>) -> u64 {
    let both = a.intersection(b).count();
    (1000 * both / (a.len() + b.len() - both).max(1)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> Inventory {
        let rows = [("red shoes", "shoes"), ("blue shoes", "shoes"), ("desk lamp", "light"), ("floor lamp", "light")];
        Inventory::new(rows.iter().enumerate().flat_map(|(i, &(l, p))| vec![vec![(l, Some(p))]; i + 1]))
    }

    #[test]
    fn choices_hold_the_gold_and_as_many_others_as_drawn() {
        let shop = shop();
        let mut sizes = BTreeSet::new();
        for seed in 0..200 {
            let list = shop.choices(&["desk lamp"], 1..=2, &mut SplitMix::new(seed)).unwrap();
            assert!(list.contains(&"desk lamp".to_owned()));
            assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len(), "{list:?}");
            sizes.insert(list.len());
        }
        assert_eq!(sizes, BTreeSet::from([2, 3]));
        assert_eq!(shop.choices(&["desk lamp"], 9..=9, &mut SplitMix::new(1)).map(|l| l.len()), Some(4));
        assert_eq!(Inventory::default().choices(&["x"], 3..=3, &mut SplitMix::new(1)), None);
    }

    #[test]
    fn siblings_are_the_confusable_ones() {
        let shop = shop();
        for seed in 0..50 {
            let mut rng = SplitMix::new(seed);
            assert_eq!(shop.confusable("red shoes", &["red shoes"], &mut rng).unwrap(), "blue shoes");
            let other = shop.distractor("red shoes", &["red shoes", "blue shoes", "desk lamp"], &mut rng);
            assert_eq!(other, Some("floor lamp"));
        }
        let draws = (0..400)
            .filter(|&s| shop.distractor("red shoes", &["red shoes"], &mut SplitMix::new(s)) == Some("blue shoes"));
        let share = draws.count();
        assert!((200..360).contains(&share), "{share} of 400 distractors are the sibling");
    }
}
