use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use autograd::{Linear, Norm, ParamId, Params, Tape};
use kernels::linear;
use kernels::sample::Philox;
use rayon::prelude::*;
use tensor::safetensors::{self, Checkpoint};
use tensor::{DType, Tensor};

use crate::model::{Attend, Block, Layout};
use crate::{Bloom, Config, Error, Result};

/// In which format weights are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// As in the file: bf16, f32 or quantised; f16 becomes f32, which holds every f16 exactly.
    Stored,
    /// f32.
    F32,
    /// bf16, rounded to nearest even.
    Bf16,
}

/// Files over this many bytes are cut into shards, as transformers does.
const SHARD: usize = 5_000_000_000;
const HEAD: &str = "lm_head.weight";

impl Bloom {
    /// Loads a model folder: `config.json` and `model.safetensors`, or its shards with their index. Names may carry the
    /// `transformer.` prefix or not; `lm_head.weight` may be there or not. The vocabulary is the embedding's.
    ///
    /// # Errors
    /// A file that is missing or malformed; a weight that is missing, unexpected, misshaped or not finite; weights that another
    /// program quantised.
    pub fn load(folder: &Path, dtype: Dtype) -> Result<Self> {
        let mut config = Config::read(&folder.join("config.json"))?;
        let file = Checkpoint::open(folder)?;
        let wrong = |what: String| Error::Weights { path: folder.into(), what };
        let names: BTreeSet<&str> = file.names().collect();
        let prefix = if names.iter().any(|n| n.starts_with("transformer.")) { "transformer." } else { "" };

        let table = format!("{prefix}word_embeddings.weight");
        let quantized = config.quantized();
        match file.info(&table).map(|i| i.shape.clone()) {
            Some(_) if quantized.is_some() => {}
            Some(shape) if shape.len() == 2 && shape[1] == config.hidden && shape[0] > 0 => config.vocab = shape[0],
            Some(shape) => {
                return Err(wrong(format!("{table}: wanted [vocabulary, {}], found {shape:?}", config.hidden)));
            }
            None => return Err(wrong(format!("no tensor {table}"))),
        }
        // A head of its own is kept only where it really differs from the embedding.
        let own_head = names.contains(HEAD) && !file.same(HEAD, &table);
        if own_head && config.tied {
            let what = format!("{HEAD} differs from {table}, but config.json says tie_word_embeddings");
            return Err(wrong(what));
        }
        if !own_head && !config.tied && !names.contains(HEAD) {
            return Err(wrong(format!("no tensor {HEAD}, but config.json says the head is not tied")));
        }
        config.tied = !own_head;

        let plan = Weights::of(&config);
        let stored = |name: &str| if name == HEAD { name.to_string() } else { format!("{prefix}{name}") };
        let wanted: BTreeSet<String> = plan.0.iter().map(|(name, _)| stored(name)).collect();
        let missing: Vec<&String> = wanted.iter().filter(|n| !names.contains(n.as_str())).collect();
        let extra: Vec<&&str> = names.iter().filter(|n| **n != HEAD && !wanted.contains(**n)).collect();
        if let Some(what) = differences(&missing, &extra) {
            return Err(wrong(what));
        }
        let mut tensors = Vec::with_capacity(plan.0.len());
        for (name, shape) in &plan.0 {
            let name = stored(name);
            let wanted = match dtype {
                Dtype::Stored => None,
                Dtype::F32 => Some(DType::F32),
                Dtype::Bf16 => Some(DType::BF16),
            };
            let none = || wrong(format!("no tensor {name}"));
            let t = match (quantized, &shape[..]) {
                (Some(format), &[n, k]) => {
                    let t = file.load_quantized(&name, format, [n, k])?.ok_or_else(none)?;
                    match wanted {
                        Some(wanted) => linear::dequantize(&t)?.to_dtype(wanted)?,
                        None => t,
                    }
                }
                _ => file.load(&name, wanted)?.ok_or_else(none)?,
            };
            if t.shape() != shape {
                return Err(wrong(format!("{name}: wanted {shape:?}, found {:?}", t.shape())));
            }
            if t.dtype() == DType::U32 {
                return Err(wrong(format!("{name}: wanted F32, BF16 or F16, found U32")));
            }
            // Norms and biases are small and used as f32 everywhere.
            tensors.push(if shape.len() == 1 { t.to_dtype(DType::F32)? } else { t });
        }
        let bad = plan.0.par_iter().zip(&tensors).find_map_first(|((name, _), t)| {
            if t.dtype().tile().is_some() {
                let at = linear::first_bad_scale(t)?;
                return Some(format!("{}: a scale of tile {at} is not a finite number", stored(name)));
            }
            safetensors::first_non_finite(t).map(|at| format!("{}: element {at} is not a finite number", stored(name)))
        });
        if quantized.is_some() && dtype != Dtype::Stored {
            config.set_quantized(None);
        }
        match bad {
            Some(what) => Err(wrong(what)),
            None => Ok(Self::assemble(config, plan, tensors)),
        }
    }

    /// The same model with its matrices in 8 or 4 bits ([`DType::Q8`], [`DType::Q4`]); norms and biases stay. It can answer and be
    /// evaluated, on a CPU; not trained.
    ///
    /// # Errors
    /// Another format, or weights that are quantised already.
    pub fn quantize(mut self, dtype: DType) -> Result<Self> {
        for p in self.params.iter_mut().filter(|p| p.value.shape().len() == 2) {
            p.value = linear::quantize(&p.value, dtype)?;
        }
        self.config.set_quantized(Some(dtype));
        Ok(self)
    }

    /// As [`Bloom::quantize`], with codes chosen for documents like these, in one row of tokens ([`linear::quantize_for`]): block after
    /// block, each given what the quantised ones before it make of them. The embedding and the head are as they are without.
    ///
    /// # Errors
    /// As [`Bloom::quantize`]; ids at or beyond v, or bounds that do not go with them.
    pub fn quantize_for(mut self, dtype: DType, ids: &[u32], bounds: &[u32]) -> Result<Self> {
        let (ids, bounds) = self.check(ids, bounds)?;
        let table = self.params.value_mut(self.layout.embedding);
        *table = linear::quantize(table, dtype)?;
        let mut x = self.embed(&mut Tape::off(&self.params), &ids)?.value().clone();
        for layer in 0..self.config.layers {
            let mut tape = Tape::recording(&self.params);
            let input = tape.input(x.clone());
            self.block(&mut tape, layer, &input, &mut Attend::Packed(&bounds))?;
            let given = tape.linear_inputs().map(|(weight, x)| Ok((weight, linear::gram(x)?)));
            let given = given.collect::<Result<Vec<_>>>()?;
            drop(tape);
            for (weight, gram) in given {
                let w = self.params.value_mut(weight);
                *w = linear::quantize_for(w, dtype, &gram)?;
            }
            let mut tape = Tape::off(&self.params);
            let input = tape.input(x);
            x = self.block(&mut tape, layer, &input, &mut Attend::Packed(&bounds))?.value().clone();
        }
        let rest = self.params.iter_mut().filter(|p| p.value.shape().len() == 2 && p.value.dtype() != dtype);
        for p in rest {
            p.value = linear::quantize(&p.value, dtype)?;
        }
        self.config.set_quantized(Some(dtype));
        Ok(self)
    }

    /// The format of quantised matrices.
    pub fn quantized(&self) -> Option<DType> {
        let dtype = self.params.value(self.layout.embedding).dtype();
        dtype.tile().map(|_| dtype)
    }

    /// A new model with random weights: normal with variance 2/(5c) (Nguyen and Salazar, 2019, as BLOOM's own training
    /// set it), the two projections that end a block's branches divided by √(2l); norms are the identity, biases zero.
    ///
    /// # Errors
    /// None in practice: the shapes follow from the configuration.
    pub fn random(config: Config, seed: u64) -> Result<Self> {
        let plan = Weights::of(&config);
        let std = (2.0 / (5.0 * config.hidden as f64)).sqrt();
        let shrink = 1.0 / (2.0 * config.layers as f64).sqrt();
        let mut tensors = Vec::with_capacity(plan.0.len());
        for (i, (name, shape)) in plan.0.iter().enumerate() {
            let n = shape.iter().product();
            let values = if shape.len() == 1 {
                vec![
                    if name.contains("layernorm") || name.contains("ln_f") {
                        u8::from(name.ends_with("weight"))
                    } else {
                        0
                    };
                    n
                ]
                .into_iter()
                .map(f32::from)
                .collect()
            } else {
                let ends = name.ends_with("dense.weight") || name.ends_with("dense_4h_to_h.weight");
                normal(n, seed, i as u64, if ends { std * shrink } else { std })
            };
            tensors.push(Tensor::new(shape, values)?);
        }
        Ok(Self::assemble(config, plan, tensors))
    }

    /// Writes `config.json`, `generation_config.json` and the weights in Hugging Face's layout, as transformers loads them.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let mut config = self.config.to_json();
        let matrix = self.params.value(self.layout.embedding).dtype();
        config["dtype"] = if matrix == DType::BF16 { "bfloat16" } else { "float32" }.into();
        if let Some(map) = config.as_object_mut() {
            map.remove("torch_dtype");
        }
        let generation = serde_json::json!({
            "_from_model_config": true,
            "bos_token_id": config["bos_token_id"],
            "eos_token_id": config["eos_token_id"],
            "pad_token_id": config["pad_token_id"],
        });
        for (name, value) in [("config.json", &config), ("generation_config.json", &generation)] {
            let text = format!("{value:#}\n");
            tensor::durable::write(&folder.join(name), |out| out.write_all(text.as_bytes()))?;
        }
        let tensors: Vec<(&str, &Tensor)> = self.params.iter().map(|p| (p.name.as_str(), &p.value)).collect();
        Ok(safetensors::save_sharded(folder, &tensors, SHARD)?)
    }

    fn assemble(config: Config, plan: Weights, tensors: Vec<Tensor>) -> Self {
        let mut params = Params::default();
        let mut ids = BTreeMap::new();
        for ((name, _), value) in plan.0.into_iter().zip(tensors) {
            let full = if name == HEAD { name.clone() } else { format!("transformer.{name}") };
            ids.insert(name, params.add(full, value));
        }
        let layout = Layout::find(&config, &ids);
        Self { config, params, layout }
    }
}

impl Layout {
    /// `ids` holds every name of [`Weights::of`] the same configuration.
    fn find(config: &Config, ids: &BTreeMap<String, ParamId>) -> Self {
        let norm = |name: &str| Norm {
            gamma: ids[&format!("{name}.weight")],
            beta: ids[&format!("{name}.bias")],
            eps: config.eps,
        };
        let linear = |name: &str| Linear { weight: ids[&format!("{name}.weight")], bias: ids[&format!("{name}.bias")] };
        let embedding = ids["word_embeddings.weight"];
        Self {
            embedding,
            embedding_norm: norm("word_embeddings_layernorm"),
            blocks: (0..config.layers)
                .map(|i| Block {
                    attention_norm: norm(&format!("h.{i}.input_layernorm")),
                    qkv: linear(&format!("h.{i}.self_attention.query_key_value")),
                    dense: linear(&format!("h.{i}.self_attention.dense")),
                    mlp_norm: norm(&format!("h.{i}.post_attention_layernorm")),
                    up: linear(&format!("h.{i}.mlp.dense_h_to_4h")),
                    down: linear(&format!("h.{i}.mlp.dense_4h_to_h")),
                })
                .collect(),
            final_norm: norm("ln_f"),
            head: ids.get(HEAD).copied().unwrap_or(embedding),
        }
    }
}

/// Every weight of a configuration, without prefix, with its shape, in the order of the forward pass.
struct Weights(Vec<(String, Vec<usize>)>);

impl Weights {
    fn of(config: &Config) -> Self {
        let c = config.hidden;
        let mut all: Vec<(String, Vec<usize>)> = Vec::new();
        let mut pair = |name: &str, weight: Vec<usize>| {
            let bias = vec![weight[0]];
            all.push((format!("{name}.weight"), weight));
            all.push((format!("{name}.bias"), bias));
        };
        pair("word_embeddings_layernorm", vec![c]);
        for i in 0..config.layers {
            pair(&format!("h.{i}.input_layernorm"), vec![c]);
            pair(&format!("h.{i}.self_attention.query_key_value"), vec![3 * c, c]);
            pair(&format!("h.{i}.self_attention.dense"), vec![c, c]);
            pair(&format!("h.{i}.post_attention_layernorm"), vec![c]);
            pair(&format!("h.{i}.mlp.dense_h_to_4h"), vec![4 * c, c]);
            pair(&format!("h.{i}.mlp.dense_4h_to_h"), vec![c, 4 * c]);
        }
        pair("ln_f", vec![c]);
        all.insert(0, ("word_embeddings.weight".into(), vec![config.vocab, c]));
        if !config.tied {
            all.push((HEAD.into(), vec![config.vocab, c]));
        }
        Self(all)
    }
}

fn differences(missing: &[&String], extra: &[&&str]) -> Option<String> {
    let list = |names: &[String]| {
        let shown: Vec<&str> = names.iter().take(4).map(String::as_str).collect();
        let more = names.len().saturating_sub(4);
        shown.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
    };
    let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let extra: Vec<String> = extra.iter().map(ToString::to_string).collect();
    match (missing.is_empty(), extra.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!("missing tensors: {}", list(&missing))),
        (true, false) => Some(format!("unexpected tensors: {}", list(&extra))),
        (false, false) => Some(format!("missing tensors: {}; unexpected tensors: {}", list(&missing), list(&extra))),
    }
}

/// Normal numbers by Box and Muller, each from its own counter.
fn normal(n: usize, seed: u64, stream: u64, std: f64) -> Vec<f32> {
    let philox = Philox::new(seed, stream);
    let one = |i: usize| {
        let u = 1.0 - philox.uniform(2 * i as u64);
        let turn = std::f64::consts::TAU * philox.uniform(2 * i as u64 + 1);
        (std * (-2.0 * u.ln()).sqrt() * turn.cos()) as f32
    };
    (0..n).into_par_iter().map(one).collect()
}
