//! A model's answers to evaluation sets: said freely, chosen by their likelihood, or said within what can be an answer.

use std::sync::Arc;

use anyhow::{Context, bail};
use bloom::{Bloom, Choices, Rule};
use clap::ValueEnum;
use ecominstruct::eval_set::{EvalItem, EvalSet};
use ecominstruct::shape::{Form, Shape, offered};

use crate::generate::DecodingArgs;
use crate::report::{self, Progress};
use crate::text::{Text, Vocabulary};

/// How answers are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Decode {
    /// Token by token, whatever the model says
    #[default]
    Free,
    /// The likeliest of the labels or texts that are offered, by the sum of its tokens' log-probabilities and that of the end. Sets where
    /// several labels may be right are constrained, others free
    Rank,
    /// Token by token, within the labels that are offered or, to extract, the spans of the text. Sets that ask for free text are free
    Constrained,
}

impl Decode {
    /// How a set's answers are made: as is asked for, where they have that form.
    pub fn of(self, form: Form) -> Self {
        match (self, form) {
            (Self::Rank, Form::One) => Self::Rank,
            (Self::Rank, Form::Several) => Self::Constrained,
            (Self::Free | Self::Rank, _) | (_, Form::Free) => Self::Free,
            (Self::Constrained, _) => Self::Constrained,
        }
    }

    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Rank => "rank",
            Self::Constrained => "constrained",
        }
    }
}

/// What answers sets.
pub struct Answering<'a> {
    pub model: &'a Bloom,
    pub text: &'a Text,
    pub decoding: &'a DecodingArgs,
    /// Tokens of a prompt at most; a longer one loses its beginning.
    pub prompt_tokens: usize,
}

/// Prompts that are scored at a time, times the batch: so that progress shows.
const CHUNK: usize = 8;

impl Answering<'_> {
    /// The free answer to every item of every set.
    pub fn freely(&self, sets: &[EvalSet]) -> anyhow::Result<Vec<Vec<String>>> {
        self.answer(sets, &vec![(Decode::Free, Form::Free); sets.len()])
    }

    /// The answer to every item of every set, each set answered in its own way.
    pub fn answer(&self, sets: &[EvalSet], ways: &[(Decode, Form)]) -> anyhow::Result<Vec<Vec<String>>> {
        let total: usize = sets.iter().map(|s| s.items.len()).sum();
        let mut progress = Progress::new("items", 0, total as u64);
        let constrained = ways.iter().any(|(decode, _)| *decode == Decode::Constrained);
        if constrained && self.decoding.max_new_tokens == 0 {
            bail!("--max-new-tokens: wanted at least 1 for constrained answers, found 0");
        }
        let vocabulary = constrained.then(|| Vocabulary::new(self.text));
        let mut first = 0;
        let mut all = Vec::new();
        for (set, &(decode, form)) in sets.iter().zip(ways) {
            all.push(match (decode, &vocabulary) {
                (Decode::Rank, _) => self.rank(set, first, &mut progress)?,
                (Decode::Constrained, Some(vocabulary)) => {
                    let rules = self.rules(set, form, vocabulary)?;
                    let rules: Vec<Option<&Rule>> = rules.iter().map(Option::as_deref).collect();
                    self.say(set, &rules, first, &mut progress)?
                }
                _ => self.say(set, &vec![None; set.items.len()], first, &mut progress)?,
            });
            first += set.items.len() as u64;
            progress.at(first, &set.name);
        }
        progress.finish();
        Ok(all)
    }

    /// Generated answers; how items are grouped changes none.
    fn say(
        &self,
        set: &EvalSet,
        rules: &[Option<&Rule>],
        first: u64,
        progress: &mut Progress,
    ) -> anyhow::Result<Vec<String>> {
        let mut settings = self.decoding.settings(self.text, 1);
        settings.first = first;
        let prompts = set.items.iter().map(|item| Ok(self.prompt(item)?.0)).collect::<anyhow::Result<Vec<_>>>()?;
        // Together, for what they share. A beam search says nothing before its end, so it goes a few batches at a time.
        let together =
            if self.decoding.beams.is_some() { self.decoding.batch.saturating_mul(4) } else { prompts.len().max(1) };
        let mut answers = Vec::with_capacity(prompts.len());
        for (prompts, rules) in prompts.chunks(together).zip(rules.chunks(together)) {
            let before = answers.len() as u64;
            let mut begun = vec![false; prompts.len()];
            let mut count = 0;
            let completions = self.model.generate_within(prompts, rules, &settings, &mut |prompt, _, _| {
                if !std::mem::replace(&mut begun[prompt], true) {
                    count += 1;
                    // The last one of all is done when it has ended.
                    progress.at((first + before + count).saturating_sub(1), &set.name);
                }
                true
            })?;
            let texts = completions.iter().map(|c| c.first().map_or_else(String::new, |c| self.text.decode(&c.ids)));
            answers.extend(texts);
            settings.first += prompts.len() as u64;
            progress.at(settings.first.saturating_sub(1), &set.name);
        }
        Ok(answers)
    }

    /// The likeliest of what each item offers, the first of several.
    fn rank(&self, set: &EvalSet, first: u64, progress: &mut Progress) -> anyhow::Result<Vec<String>> {
        let mut answers: Vec<String> = Vec::with_capacity(set.items.len());
        for items in set.items.chunks(self.decoding.batch.saturating_mul(CHUNK)) {
            let prompts = items.iter().map(|item| Ok(self.prompt(item)?.0)).collect::<anyhow::Result<Vec<_>>>()?;
            let ids = items.iter().map(|item| offered(set, item).iter().map(|label| self.response(label)).collect());
            let ids = ids.collect::<anyhow::Result<Vec<Vec<Vec<u32>>>>>()?;
            let scores = self.model.score(&prompts, &ids, self.decoding.batch)?;
            for (item, scores) in items.iter().zip(scores) {
                let mut best: Option<(f64, &String)> = None;
                for (score, label) in scores.into_iter().zip(offered(set, item)) {
                    if !label.is_empty() && best.is_none_or(|(most, _)| score > most) {
                        best = Some((score, label));
                    }
                }
                answers.push(best.map_or_else(String::new, |(_, label)| label.clone()));
            }
            progress.at((first + answers.len() as u64).saturating_sub(1), &set.name);
        }
        Ok(answers)
    }

    /// What the answer to each item must keep to; nothing, should that leave no answer, which is told.
    fn rules<'s>(
        &'s self,
        set: &'s EvalSet,
        form: Form,
        vocabulary: &'s Vocabulary,
    ) -> anyhow::Result<Vec<Option<Box<Rule<'s>>>>> {
        let mut rules: Vec<Option<Box<Rule<'s>>>> = Vec::with_capacity(set.items.len());
        // Items that offer the same share it.
        let mut last: Option<(&[String], Arc<Choices>)> = None;
        let most = self.decoding.max_new_tokens;
        let mut without = 0;
        for item in &set.items {
            let rule: Box<Rule<'s>> = if matches!(form, Form::One | Form::Several) {
                let labels = offered(set, item);
                let choices = match last.take() {
                    Some((same, choices)) if same == labels => choices,
                    _ => Arc::new(self.choices(form, labels, &set.label_sep)?),
                };
                last = Some((labels, Arc::clone(&choices)));
                Box::new(move |answer, left| choices.next(answer, left))
            } else {
                let shape = Shape::new(form, set, item, self.prompt(item)?.1);
                Box::new(move |answer, left| vocabulary.next(self.text, &shape, answer, left))
            };
            let leaves_some = !rule(&[], most).is_empty();
            without += usize::from(!leaves_some);
            rules.push(leaves_some.then_some(rule));
        }
        if without > 0 {
            let (name, items) = (&set.name, set.items.len());
            report::say(&format!(
                "{name}: {without} of {items} items are answered freely: nothing that they offer is shown in their prompt and \
                 within --max-new-tokens {most}"
            ));
        }
        Ok(rules)
    }

    fn choices(&self, form: Form, labels: &[String], separator: &str) -> anyhow::Result<Choices> {
        let encoded = |separator: &str| {
            labels.iter().map(|l| self.text.encode(&format!("{separator}{l}"))).collect::<anyhow::Result<Vec<_>>>()
        };
        Ok(match form {
            Form::Several => Choices::several(&encoded("")?, &encoded(separator)?, self.text.eos()),
            _ => Choices::one(&encoded("")?, self.text.eos()),
        })
    }

    /// An item's prompt, and how many bytes of the item's text it lacks because it would be too long.
    fn prompt(&self, item: &EvalItem) -> anyhow::Result<(Vec<u32>, usize)> {
        let mut ids = self.text.encode(&item.prompt)?;
        let lost = ids.len().saturating_sub(self.prompt_tokens);
        let mut bytes = Vec::new();
        ids.drain(..lost).for_each(|id| self.text.push_bytes(id, &mut bytes));
        let at = item.prompt.find(&item.text).unwrap_or(0);
        Ok((ids, bytes.len().saturating_sub(at)))
    }

    /// The ids of an answer, as training has them: with the end of text.
    fn response(&self, label: &str) -> anyhow::Result<Vec<u32>> {
        let mut ids = self.text.encode(label).with_context(|| format!("label {label:?}"))?;
        ids.push(self.text.eos());
        Ok(ids)
    }
}

#[cfg(test)]
mod tests;
