//! `ecom eval`: a model's answers, or answers made elsewhere, scored beside answers that need no model.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bloom::PlanFor;
use clap::Args;
use ecominstruct::baseline::{self, Policy};
use ecominstruct::eval_set::{self, EvalSet};
use ecominstruct::score::strict::Detail;
use ecominstruct::score::{legacy, strict};
use ecominstruct::shape::Form;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::device;
use crate::generate::{DecodingArgs, ModelArgs, can_write};

pub use answers::{Answering, Decode};

mod answers;

/// Arguments of `ecom eval`.
#[derive(Args, Debug)]
pub struct EvalArgs {
    /// Released task folders, folders of them, or instruction files (.jsonl)
    #[arg(required = true, value_name = "PATH")]
    sets: Vec<PathBuf>,
    /// Score these answers instead of a model's: JSON Lines with "set", "id" and "prediction"
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "tokenizer"])]
    predictions: Option<PathBuf>,
    /// Write the model's answers here, in the form that --predictions reads
    #[arg(long, value_name = "FILE", conflicts_with = "predictions")]
    save: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// How answers are made
    #[arg(long, value_enum, value_name = "HOW", default_value_t, conflicts_with = "predictions")]
    decode: Decode,
    #[command(flatten)]
    decoding: DecodingArgs,
    /// Tokens of a prompt at most; a longer one loses its beginning, as in the released evaluation
    #[arg(long, value_name = "N", default_value_t = 800)]
    prompt_tokens: usize,
    /// Take only the first N items of each set
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Seed of the candidate lists drawn from large label sets, and of the random answers
    #[arg(long, value_name = "N", default_value_t = 0)]
    candidate_seed: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs `ecom eval`.
pub fn run(args: &EvalArgs) -> anyhow::Result<()> {
    args.decoding.check(1)?;
    if args.prompt_tokens == 0 {
        bail!("--prompt-tokens: wanted at least 1, found 0: every prompt would be empty");
    }
    if args.decode != Decode::Free && args.decoding.beams.is_some() {
        bail!("--decode {}: wanted no --beams, which search without constraints", args.decode.name());
    }
    if let Some(path) = &args.save {
        can_write(path)?;
    }
    let mut sets = eval_set::read_all(&args.sets, args.candidate_seed)?;
    // Before items are left out: an answer to one of those is no mistake.
    let found = args.predictions.as_ref().map(|path| read_answers(path, &sets)).transpose()?;
    sets.retain(|s| !s.items.is_empty());
    // A set's form is that of all its items.
    let forms: Vec<Form> = sets.iter().map(Form::of).collect();
    let ways: Vec<(Decode, Form)> = forms.iter().map(|form| (args.decode.of(*form), *form)).collect();
    if let Some(limit) = args.limit {
        sets.iter_mut().for_each(|s| s.items.truncate(limit));
    }
    sets.retain(|s| !s.items.is_empty());
    if sets.is_empty() {
        bail!("nothing to evaluate: --limit leaves no item");
    }
    let answers = match (&args.predictions, found) {
        (Some(path), Some(found)) => in_order(path, found, &sets)?,
        _ => {
            let longest = args.prompt_tokens.saturating_add(args.decoding.max_new_tokens);
            let (batch, ranks) = (args.decoding.side_by_side(1), args.decode == Decode::Rank);
            let (model, text) = if ranks {
                args.model.load_for(|sizes| PlanFor::Scoring { batch, tokens: longest, sizes })?
            } else {
                args.model.load(batch, longest)?
            };
            let (decoding, prompt_tokens) = (&args.decoding, args.prompt_tokens);
            let answers = Answering { model: &model, text: &text, decoding, prompt_tokens }.answer(&sets, &ways)?;
            device::tell_of_graphs(model.device());
            answers
        }
    };
    if let Some(path) = &args.save {
        save_answers(path, &sets, &answers)?;
    }
    let mut results = score(&sets, &answers, args.candidate_seed)?;
    if args.predictions.is_none() {
        results.iter_mut().zip(&ways).for_each(|(result, (decode, _))| result.decode = Some(*decode));
    }
    let report = if args.json {
        format!("{:#}\n", to_json(&results))
    } else {
        table(&results) + &ways_taken(args.decode, &results)
    };
    Ok(std::io::stdout().write_all(report.as_bytes())?)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    set: String,
    id: String,
    prediction: String,
}

fn save_answers(path: &Path, sets: &[EvalSet], answers: &[Vec<String>]) -> anyhow::Result<()> {
    let mut out = Vec::new();
    for (set, answers) in sets.iter().zip(answers) {
        for (item, prediction) in set.items.iter().zip(answers) {
            let line = Answer { set: set.name.clone(), id: item.id.clone(), prediction: prediction.clone() };
            writeln!(out, "{}", serde_json::to_string(&line)?)?;
        }
    }
    Ok(tensor::durable::write(path, |file| file.write_all(&out))?)
}

/// Answers by set and id.
type Found = HashMap<(String, String), String>;

/// Reads answers, each to another item of the sets.
fn read_answers(path: &Path, sets: &[EvalSet]) -> anyhow::Result<Found> {
    let asked: BTreeMap<&str, BTreeSet<&str>> =
        sets.iter().map(|s| (s.name.as_str(), s.items.iter().map(|i| i.id.as_str()).collect())).collect();
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{name}: cannot read"))?;
    let mut found = Found::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let a: Answer = serde_json::from_str(line).map_err(|e| {
            // Its own place is within the line.
            let whole = e.to_string();
            let what = whole.rsplit_once(" at line ").map_or(whole.as_str(), |(what, _)| what);
            anyhow::anyhow!("{name}:{}: {what}", i + 1)
        })?;
        match asked.get(a.set.as_str()) {
            None => bail!("{name}:{}: no set {} was asked", i + 1, a.set),
            Some(ids) if !ids.contains(a.id.as_str()) => bail!("{name}:{}: no item {} is in {}", i + 1, a.id, a.set),
            Some(_) => {}
        }
        if found.insert((a.set.clone(), a.id.clone()), a.prediction).is_some() {
            bail!("{name}:{}: a second answer to {} of {}", i + 1, a.id, a.set);
        }
    }
    Ok(found)
}

/// Answers in the order of the sets; every item must have one.
fn in_order(path: &Path, mut found: Found, sets: &[EvalSet]) -> anyhow::Result<Vec<Vec<String>>> {
    let name = path.display();
    let mut all = Vec::new();
    for set in sets {
        let mut answers = Vec::with_capacity(set.items.len());
        for item in &set.items {
            let answer = found.remove(&(set.name.clone(), item.id.clone()));
            answers.push(answer.with_context(|| format!("{name}: no answer to {} of {}", item.id, set.name))?);
        }
        all.push(answers);
    }
    Ok(all)
}

/// One set's scores: the model's, or whoever's the answers are, and the trivial ones'.
pub struct SetResult {
    pub name: String,
    pub items: usize,
    /// How the answers were made, where a model made them here.
    pub decode: Option<Decode>,
    pub rows: Vec<Scored>,
}

/// Scores of one set of answers.
pub struct Scored {
    /// `model`, `constant`, `random` or `lexical`.
    pub who: &'static str,
    /// What a trivial policy did.
    pub rule: Option<String>,
    pub strict: strict::Strict,
    pub legacy: legacy::Legacy,
}

impl SetResult {
    /// The answers' own scores.
    pub fn model(&self) -> &Scored {
        &self.rows[0]
    }

    /// The best strict headline of the trivial answers.
    pub fn best_trivial(&self) -> f64 {
        self.rows[1..].iter().map(|r| r.strict.headline).fold(0.0, f64::max)
    }
}

/// Scores every set, beside the constant, random and lexical answers.
pub fn score(sets: &[EvalSet], answers: &[Vec<String>], seed: u64) -> anyhow::Result<Vec<SetResult>> {
    let mut results = Vec::new();
    for (set, answers) in sets.iter().zip(answers) {
        let scored = |who, rule, answers: &[String]| -> anyhow::Result<Scored> {
            Ok(Scored { who, rule, strict: strict::score(set, answers)?, legacy: legacy::score(set, answers)? })
        };
        let mut rows = vec![scored("model", None, answers)?];
        for (who, policy) in
            [("constant", Policy::Constant), ("random", Policy::Random { seed }), ("lexical", Policy::Lexical)]
        {
            if let Some(b) = baseline::predict(set, policy) {
                rows.push(scored(who, Some(b.rule), &b.predictions)?);
            }
        }
        results.push(SetResult { name: set.name.clone(), items: set.items.len(), decode: None, rows });
    }
    Ok(results)
}

/// A table: a line for each set and each who, and means over the sets.
pub fn table(results: &[SetResult]) -> String {
    let width = results.iter().map(|r| r.name.chars().count()).max().unwrap_or(0).max(20);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<width$} {:>5}  {:<9} {:>7} {:<18} {:>7}  {:>7} {:>7} {:>7}",
        "", "", "", "strict", "", "empty or", "legacy", "legacy", "legacy"
    );
    let _ = writeln!(
        out,
        "{:<width$} {:>5}  {:<9} {:>7} {:<18} {:>7}  {:>7} {:>7} {:>7}",
        "set", "items", "", "score", "(what it is)", "invalid", "microF1", "macroF1", "ROUGE-L"
    );
    for r in results {
        for (i, row) in r.rows.iter().enumerate() {
            let (name, items) = if i == 0 { (r.name.as_str(), r.items.to_string()) } else { ("", String::new()) };
            let what = if i == 0 { row.strict.headline_name } else { "" };
            let (l, s) = (&row.legacy, &row.strict);
            let _ = writeln!(
                out,
                "{name:<width$} {items:>5}  {:<9} {:>7.2} {what:<18} {:>6.1}%  {:>7.2} {:>7.2} {:>7.2}",
                row.who,
                s.headline,
                invalid(s),
                l.micro.f1,
                l.macro_.f1,
                l.rouge_l
            );
        }
    }
    if results.len() > 1 {
        for who in ["model", "constant", "random", "lexical"] {
            let (n, strict, rouge) = means(results, who);
            if n > 0 {
                let _ = writeln!(
                    out,
                    "{:<width$} {n:>5}  {who:<9} {strict:>7.2} {:<18} {:>7}  {:>7} {:>7} {rouge:>7.2}",
                    "mean over sets", "", "", "", ""
                );
            }
        }
    }
    out
}

/// How each set was answered, where another way than the free one was asked for.
fn ways_taken(asked: Decode, results: &[SetResult]) -> String {
    let mut out = String::new();
    for decode in [Decode::Rank, Decode::Constrained, Decode::Free].into_iter().filter(|_| asked != Decode::Free) {
        let sets = results.iter().filter(|r| r.decode == Some(decode));
        let names: Vec<&str> = sets.map(|r| r.name.as_str()).collect();
        if !names.is_empty() {
            let _ = writeln!(out, "{} answers: {}", decode.name(), names.join(", "));
        }
    }
    out
}

/// Sets with answers of `who`, and the means of their strict headlines and legacy ROUGE-L. The released folder that is
/// not in the official list stays out.
fn means(results: &[SetResult], who: &str) -> (usize, f64, f64) {
    let official = results.iter().filter(|r| r.name != eval_set::EXTRA);
    let rows: Vec<&Scored> = official.filter_map(|r| r.rows.iter().find(|s| s.who == who)).collect();
    let mean = |f: &dyn Fn(&Scored) -> f64| rows.iter().map(|r| f(r)).sum::<f64>() / rows.len().max(1) as f64;
    (rows.len(), mean(&|r| r.strict.headline), mean(&|r| r.legacy.rouge_l))
}

/// Answers that cannot be right, in percent: labels that were not offered, or nothing at all.
fn invalid(s: &strict::Strict) -> f64 {
    match s.detail {
        Detail::Cls { invalid, .. } => invalid,
        _ => 100.0 * s.empty as f64 / s.items.max(1) as f64,
    }
}

fn to_json(results: &[SetResult]) -> serde_json::Value {
    let sets: Vec<_> = results
        .iter()
        .map(|r| {
            let rows: Vec<_> = r.rows.iter().map(scored_json).collect();
            json!({ "set": r.name, "items": r.items, "decode": r.decode.map(Decode::name), "scores": rows })
        })
        .collect();
    let means: Vec<_> = ["model", "constant", "random", "lexical"]
        .into_iter()
        .map(|who| (who, means(results, who)))
        .filter(|(_, (n, ..))| *n > 0)
        .map(|(who, (n, strict, rouge))| json!({ "who": who, "sets": n, "strict": strict, "legacy_rouge_l": rouge }))
        .collect();
    json!({ "schema": "ecom-eval-1", "sets": sets, "means": means })
}

fn scored_json(row: &Scored) -> serde_json::Value {
    let detail = match &row.strict.detail {
        Detail::Cls { accuracy, macro_f1, balanced_accuracy, sample_f1, micro_f1, invalid } => json!({
            "accuracy": accuracy, "macro_f1": macro_f1, "balanced_accuracy": balanced_accuracy,
            "sample_f1": sample_f1, "micro_f1": micro_f1, "invalid": invalid,
        }),
        Detail::Ext { list_f1, exact, token_f1 } => json!({ "list_f1": list_f1, "exact": exact, "token_f1": token_f1 }),
        Detail::Oth { entity_f1, span_f1 } => json!({ "entity_f1": entity_f1, "span_f1": span_f1 }),
        Detail::Gen { rouge_l, length_ratio, faithfulness } => {
            json!({ "rouge_l": rouge_l, "length_ratio": length_ratio, "faithfulness": faithfulness })
        }
    };
    let (l, prf) = (&row.legacy, |p: &legacy::Prf| json!({ "p": p.p, "r": p.r, "f1": p.f1 }));
    json!({
        "who": row.who,
        "rule": row.rule,
        "strict": { "score": row.strict.headline, "name": row.strict.headline_name, "empty": row.strict.empty, "detail": detail },
        "legacy": {
            "micro": prf(&l.micro), "macro": prf(&l.macro_), "accuracy": l.accuracy, "rouge_l": l.rouge_l,
            "rouge_undefined": l.undefined, "empty": l.empty,
        },
    })
}
