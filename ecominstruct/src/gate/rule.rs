//! Cases as numbers, and the rule that looks at overlap alone.

use super::Case;
use crate::instruction::Lang;
use crate::shingle::{Folded, distinct, grams, mix, shared};

/// Measures of overlap between two texts, each in [0, 1].
const MEASURES: usize = 5;
/// Words or characters of a text that are looked at.
const LONG: usize = 256;
/// Hashed features of the regression.
pub(super) const FEATURES: usize = 1 << 16;

/// A case as numbers: one choice for a match, one for each candidate of a selection.
pub(super) struct Encoded {
    pub(super) choices: Vec<Choice>,
    pub(super) answer: Answer,
}

/// The right answer.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// The two texts match, or do not.
    Match(bool),
    /// The place among the choices.
    Select(usize),
}

/// Two texts as numbers.
pub(super) struct Choice {
    measures: [f32; MEASURES],
    /// Places below [`FEATURES`].
    pub(super) features: Vec<u32>,
}

impl Encoded {
    pub(super) fn new(case: &Case<'_>, lang: Lang) -> Self {
        match case {
            Case::Match { first, second, yes } => {
                let choice = Choice::new(&Side::new(first, lang), &Side::new(second, lang), lang, Answer::Match(*yes));
                Self { choices: vec![choice], answer: Answer::Match(*yes) }
            }
            Case::Select { question, candidates, gold } => {
                let (question, answer) = (Side::new(question, lang), Answer::Select(*gold));
                let choice = |text: &&str| Choice::new(&question, &Side::new(text, lang), lang, answer);
                Self { choices: candidates.iter().map(choice).collect(), answer }
            }
        }
    }

    /// 1 for a matching pair, 0 otherwise.
    pub(super) fn label(&self) -> usize {
        usize::from(matches!(self.answer, Answer::Match(true)))
    }
}

/// One text: sorted, each hash once.
struct Side {
    /// Words, or Chinese characters.
    units: Vec<u64>,
    /// Pairs of letters, or of Chinese characters.
    pairs: Vec<u64>,
}

impl Side {
    fn new(text: &str, lang: Lang) -> Self {
        let mut folded = Folded::new(text, lang);
        folded.units.truncate(LONG);
        let pairs = match lang {
            Lang::En => distinct(grams(&folded.letters(), 2).take(6 * LONG)),
            Lang::Zh => distinct(grams(&folded.units, 2)),
        };
        Self { units: distinct(folded.units), pairs }
    }
}

impl Choice {
    fn new(first: &Side, second: &Side, lang: Lang, answer: Answer) -> Self {
        let [units, pairs] = [(&first.units, &second.units), (&first.pairs, &second.pairs)].map(|(a, b)| {
            let both = shared(a, b) as f32;
            let of = |whole: usize| if whole == 0 { 0.0 } else { both / whole as f32 };
            [of(a.len() + b.len() - both as usize), of(a.len()), of(b.len())]
        });
        let measures = [units[0], units[1], units[2], pairs[0], pairs[1].max(pairs[2])];
        let mut features: Vec<u32> = (0..MEASURES).map(|m| feature(m, (measures[m] * 10.0) as u64)).collect();
        add(&mut features, &first.units, &second.units, answer);
        if lang == Lang::Zh {
            add(&mut features, &first.pairs, &second.pairs, answer);
        }
        Self { measures, features }
    }
}

/// Words of either text, in one of them, in both. The question's words are the same for all candidates of a selection,
/// which they cannot tell apart: left out there.
fn add(features: &mut Vec<u32>, first: &[u64], second: &[u64], answer: Answer) {
    const FIRST: usize = MEASURES;
    if matches!(answer, Answer::Match(_)) {
        features.extend(first.iter().map(|&word| feature(FIRST, word)));
    }
    features.extend(second.iter().map(|&word| feature(FIRST + 1, word)));
    let (mut i, mut j) = (0, 0);
    loop {
        let (kind, word) = match (first.get(i), second.get(j)) {
            (Some(a), Some(b)) if a == b => (FIRST + 2, *a),
            (Some(a), Some(b)) => (FIRST + 3, *a.min(b)),
            (Some(word), None) | (None, Some(word)) => (FIRST + 3, *word),
            (None, None) => break,
        };
        features.push(feature(kind, word));
        i += usize::from(first.get(i) == Some(&word));
        j += usize::from(second.get(j) == Some(&word));
    }
}

fn feature(kind: usize, value: u64) -> u32 {
    (mix(value ^ (kind as u64) << 56) % FEATURES as u64) as u32
}

/// A threshold on one measure for matches, and one measure to choose candidates by.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rule {
    threshold: Threshold,
    select: Direction,
}

/// A measure, and whether more of it speaks for a match.
#[derive(Debug, Clone, Copy, Default)]
struct Direction {
    measure: usize,
    less: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Threshold {
    direction: Direction,
    /// The least value of the upper side.
    least: f32,
}

impl Rule {
    /// The best of all measures, thresholds and directions on `cases`.
    pub(super) fn fit(cases: &[&Encoded]) -> Self {
        let mut best = (Self::default(), 0);
        for measure in 0..MEASURES {
            let mut values: Vec<(f32, bool)> = Vec::new();
            for case in cases {
                if let (Answer::Match(yes), Some(choice)) = (case.answer, case.choices.first()) {
                    values.push((choice.measures[measure], yes));
                }
            }
            values.sort_by(|a, b| a.0.total_cmp(&b.0));
            // Right answers with the upper side, from `at` on, for yes; all others are right the other way round.
            let mut right = values.iter().filter(|(_, yes)| *yes).count();
            for at in 0..=values.len() {
                let least = values.get(at).map_or(f32::INFINITY, |value| value.0);
                if at == 0 || values[at - 1].0 < least {
                    for (less, right) in [(false, right), (true, values.len() - right)] {
                        if right > best.1 {
                            let direction = Direction { measure, less };
                            best = (Self { threshold: Threshold { direction, least }, ..best.0 }, right);
                        }
                    }
                }
                if let Some((_, yes)) = values.get(at) {
                    right = if *yes { right - 1 } else { right + 1 };
                }
            }
        }
        let mut most = -1.0;
        for direction in (0..MEASURES).flat_map(|measure| [false, true].map(|less| Direction { measure, less })) {
            let tried = Self { select: direction, ..best.0 };
            let credit = cases.iter().filter(|c| matches!(c.answer, Answer::Select(_))).map(|c| tried.credit(c)).sum();
            if credit > most {
                (most, best.0) = (credit, tried);
            }
        }
        best.0
    }

    /// 1 for a right answer, 0 for a wrong one, the chance of a right guess where candidates tie.
    pub(super) fn credit(&self, case: &Encoded) -> f64 {
        match case.answer {
            Answer::Match(yes) => {
                let Threshold { direction, least } = self.threshold;
                let upper = case.choices.first().is_some_and(|choice| choice.measures[direction.measure] >= least);
                f64::from(u8::from((upper != direction.less) == yes))
            }
            Answer::Select(gold) => {
                let sign = if self.select.less { -1.0 } else { 1.0 };
                let value = |choice: &Choice| sign * choice.measures[self.select.measure];
                let best = case.choices.iter().map(value).fold(f32::NEG_INFINITY, f32::max);
                let ties = case.choices.iter().filter(|choice| value(choice) == best).count();
                let right = case.choices.get(gold).is_some_and(|choice| value(choice) == best);
                if right { 1.0 / ties as f64 } else { 0.0 }
            }
        }
    }
}
