//! The gate of match and select tasks: a set that word overlap or a bag of words can answer teaches nothing more.
//!
//! Two judges answer every case. The **rule** looks at overlap alone: for a match, the best threshold on the best of a
//! few measures; for a selection, the candidate with most (or least) of it. It is fitted on the cases it judges, which
//! is in its favour. The **regression** is logistic, on the words of both texts, shared or not, in five-fold
//! cross-validation. Both must stay below the bar: 75 % for two labels, 60 % for four candidates ([`bar`]). Source:
//! specification of the hard-negative gate, section 4.5.4.
//!
//! [`harden`] brings a set below the bar by leaving out some of the cases that the judges get right, drawn at random
//! (adversarial filtering, Zellers et al. 2018).

mod regression;
mod rule;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::instruction::Lang;
use crate::shingle::mix;
use crate::splitmix::SplitMix;
use regression::Weights;
use rule::{Encoded, Rule};

/// A question of a match or select task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Case<'a> {
    /// Whether two texts belong together.
    Match {
        /// One text, such as a query.
        first: &'a str,
        /// The other, such as a title.
        second: &'a str,
        /// Whether they do.
        yes: bool,
    },
    /// Which candidate belongs to a text.
    Select {
        /// The text.
        question: &'a str,
        /// What to choose from.
        candidates: Vec<&'a str>,
        /// Place of the right one.
        gold: usize,
    },
}

/// How well the judges answer a set, in percent of the cases.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// Number of cases.
    pub n: usize,
    /// A blind answer: the more frequent label, or any candidate.
    pub chance: f64,
    /// The overlap rule.
    pub rule: f64,
    /// The regression, on cases it has not seen.
    pub regression: f64,
    /// What neither may reach.
    pub bar: f64,
    /// Whether neither does.
    pub passes: bool,
}

/// The two judges, fitted, and which cases they let into a set.
#[derive(Debug, Clone)]
pub struct Gate {
    lang: Lang,
    verdict: Verdict,
    rule: Rule,
    weights: Weights,
    /// Share to keep, by label, by whether the rule is right, by whether the regression is.
    shares: [[[f64; 2]; 2]; 2],
}

/// A set brought below the bar.
#[derive(Debug, Clone)]
pub struct Hardened {
    /// Places of the cases that stay, in order; empty where too few would.
    pub keep: Vec<usize>,
    /// The judges on all cases.
    pub before: Verdict,
    /// The judges on the cases that stay, or where none do, on the last that were tried.
    pub after: Verdict,
    /// The judges of all cases, who admit others as they did these.
    pub gate: Gate,
}

/// Rounds of thinning and judging anew.
const ROUNDS: usize = 6;
/// Percent below the bar that thinning aims at, as the judges learn the thinned set anew.
const BELOW: f64 = 1.5;

/// The accuracy, in percent, that is too good for a question whose blind answer is right in `chance` percent: the
/// share 13/30 + chance/750 of the way from chance to 100. That is 75 for two labels (chance 50), 60 for four
/// candidates (25), and 44.7 for fifty (2).
pub fn bar(chance: f64) -> f64 {
    chance + (100.0 - chance) * (13.0 / 30.0 + chance / 750.0)
}

impl Gate {
    /// Learns both judges from `cases` and admits every case.
    pub fn fit(cases: &[Case<'_>], lang: Lang, seed: u64) -> Self {
        let encoded = encode(cases, lang);
        let all: Vec<usize> = (0..cases.len()).collect();
        let judged = Judged::new(&encoded, &all, seed);
        Self::new(&encoded, &judged, lang, seed)
    }

    fn new(encoded: &[Encoded], judged: &Judged, lang: Lang, seed: u64) -> Self {
        let all: Vec<&Encoded> = encoded.iter().collect();
        let weights = Weights::train(&all, seed);
        Self { lang, verdict: judged.verdict, rule: judged.rule, weights, shares: [[[1.0; 2]; 2]; 2] }
    }

    /// How well the judges answer the cases they were learned from.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whether another case may enter, for builds too large for [`harden`]: with the share of its like that [`harden`]
    /// kept, like being the label and which judges are right. `draw` is any random number of the case; the answer
    /// depends on nothing else.
    pub fn admits(&self, case: &Case<'_>, draw: u64) -> bool {
        let case = Encoded::new(case, self.lang);
        let [rule, regression] = [self.rule.credit(&case) >= 0.5, self.weights.right(&case)];
        let share = self.shares[case.label()][usize::from(rule)][usize::from(regression)];
        ((mix(draw) >> 11) as f64 / (1u64 << 53) as f64) < share
    }
}

/// Leaves out cases until both judges are below the bar: only cases that a judge above it gets right, first those that
/// both do, as many of either label as its share of the cases. `keep` is empty if fewer than `floor` cases would stay
/// or a few rounds do not suffice.
pub fn harden(cases: &[Case<'_>], lang: Lang, seed: u64, floor: usize) -> Hardened {
    let encoded = encode(cases, lang);
    let mut keep: Vec<usize> = (0..cases.len()).collect();
    let first = Judged::new(&encoded, &keep, seed);
    let mut gate = Gate::new(&encoded, &first, lang, seed);
    let before = first.verdict;
    let mut last = Judged { right: first.right.clone(), ..first };
    for round in 1..=ROUNDS {
        if last.verdict.passes {
            break;
        }
        let fewer = thin(&encoded, &keep, &last, &mut SplitMix::stream(seed, round as u64));
        if fewer.len() < floor.max(1) || fewer.len() == keep.len() {
            break;
        }
        keep = fewer;
        last = Judged::new(&encoded, &keep, seed);
    }
    if !last.verdict.passes || keep.len() < floor {
        keep.clear();
    }
    gate.shares = shares(&encoded, &first.right, &keep);
    Hardened { keep, before, after: last.verdict, gate }
}

fn encode(cases: &[Case<'_>], lang: Lang) -> Vec<Encoded> {
    cases.iter().map(|case| Encoded::new(case, lang)).collect()
}

/// What the judges say about some of the cases.
struct Judged {
    verdict: Verdict,
    rule: Rule,
    /// Rule and regression, for each of these cases.
    right: Vec<[bool; 2]>,
}

impl Judged {
    fn new(encoded: &[Encoded], keep: &[usize], seed: u64) -> Self {
        let cases: Vec<&Encoded> = keep.iter().filter_map(|&i| encoded.get(i)).collect();
        let rule = Rule::fit(&cases);
        let credits: Vec<f64> = cases.iter().map(|case| rule.credit(case)).collect();
        let answered = regression::cross_validate(&cases, seed);
        let percent = |sum: f64| 100.0 * sum / cases.len().max(1) as f64;
        let yes = cases.iter().filter(|case| case.label() == 1).count() as f64;
        let matches = cases.iter().filter(|case| case.choices.len() == 1).count() as f64;
        let blind: f64 =
            cases.iter().filter(|c| c.choices.len() != 1).map(|c| 1.0 / c.choices.len().max(1) as f64).sum();
        let verdict = Verdict {
            n: cases.len(),
            chance: percent(blind + yes.max(matches - yes)),
            rule: percent(credits.iter().sum()),
            regression: percent(answered.iter().filter(|right| **right).count() as f64),
            bar: bar(percent(blind + 0.5 * matches)),
            passes: false,
        };
        let passes = verdict.rule < verdict.bar && verdict.regression < verdict.bar;
        let right = credits.iter().zip(answered).map(|(credit, right)| [*credit >= 0.5, right]).collect();
        Self { verdict: Verdict { passes, ..verdict }, rule, right }
    }
}

/// The cases of `keep` that stay.
fn thin(encoded: &[Encoded], keep: &[usize], judged: &Judged, rng: &mut SplitMix) -> Vec<usize> {
    let Verdict { n, rule, regression, bar, .. } = judged.verdict;
    let target = (bar - BELOW) / 100.0;
    // Without m right answers, (right − m) / (n − m) = target.
    let surplus = [rule, regression].map(|percent| {
        let right = percent / 100.0 * n as f64;
        if percent >= bar { (right - target * n as f64) / (1.0 - target) } else { 0.0 }
    });
    let mut by_label = [vec![], vec![]];
    for (place, &case) in keep.iter().enumerate() {
        by_label[encoded[case].label()].push(place);
    }
    let drops = by_label.each_ref().map(|places| {
        let wanted = surplus.map(|m| (m * places.len() as f64 / n.max(1) as f64).ceil() as usize);
        let mut places = places.clone();
        rng.shuffle(&mut places);
        let with = |right: [bool; 2]| places.iter().copied().filter(move |&place| judged.right[place] == right);
        let mut drops: Vec<usize> = with([true, true]).take(wanted[0].max(wanted[1])).collect();
        let both = drops.len();
        drops.extend(with([true, false]).take(wanted[0].saturating_sub(both)));
        drops.extend(with([false, true]).take(wanted[1].saturating_sub(both)));
        drops
    });
    // The same share of either label, whichever has fewer to give.
    let share = by_label.iter().zip(&drops).filter(|(all, _)| !all.is_empty());
    let share = share.map(|(all, drops)| drops.len() as f64 / all.len() as f64).fold(1.0, f64::min);
    let mut gone = vec![false; keep.len()];
    for (all, drops) in by_label.iter().zip(&drops) {
        let number = (share * all.len() as f64).round() as usize;
        drops.iter().take(number).for_each(|&place| gone[place] = true);
    }
    keep.iter().zip(gone).filter(|(_, gone)| !gone).map(|(&case, _)| case).collect()
}

/// Share of the cases in `keep`, by label and by which judges are right; 1 where there is none to go by.
fn shares(encoded: &[Encoded], right: &[[bool; 2]], keep: &[usize]) -> [[[f64; 2]; 2]; 2] {
    let mut counts = [[[(0usize, 0usize); 2]; 2]; 2];
    let mut kept = keep.iter().peekable();
    for (i, (case, [rule, regression])) in encoded.iter().zip(right).enumerate() {
        let count = &mut counts[case.label()][usize::from(*rule)][usize::from(*regression)];
        count.0 += usize::from(kept.next_if_eq(&&i).is_some());
        count.1 += 1;
    }
    counts.map(|label| label.map(|rule| rule.map(|(kept, all)| if all == 0 { 1.0 } else { kept as f64 / all as f64 })))
}
