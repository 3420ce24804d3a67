use std::path::Path;

use serde_json::{Map, Value, json};
use tensor::{DType, TILE};

use crate::{Error, Result};

/// Where a configuration says how weights are quantised.
const QUANTIZATION: &str = "quantization_config";

const FORMATS: [DType; 2] = [DType::Q8, DType::Q4];

/// What it says of ours.
fn quantization(dtype: DType) -> Value {
    json!({ "quant_method": "ecom", "format": dtype.name(), "tile": TILE })
}

/// The shape of a BLOOM, from a Hugging Face `config.json` in either dialect: `n_embed` with `num_attention_heads`, or
/// `hidden_size` with `n_head`. Fields that do not concern us are kept and written back.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// c, the width of a token's state.
    pub hidden: usize,
    /// l, the number of blocks.
    pub layers: usize,
    /// h, the number of attention heads.
    pub heads: usize,
    /// v, the rows of the embedding. The tensor decides where the two differ (BLOOM: 250,880 rows, 250,680 tokens).
    pub vocab: usize,
    /// Added to the variance in every layer norm.
    pub eps: f32,
    /// Whether residuals start after the block's layer norm instead of before it.
    pub residual_after_norm: bool,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// The end-of-text id.
    pub eos: u32,
    /// All fields as read.
    rest: Map<String, Value>,
}

impl Config {
    /// A configuration for a new model, with the ids that BLOOM's tokenizer has.
    ///
    /// # Errors
    /// A hidden size that the heads do not divide, or a zero.
    pub fn new(hidden: usize, layers: usize, heads: usize, vocab: usize) -> Result<Self> {
        let config = Self {
            hidden,
            layers,
            heads,
            vocab,
            eps: 1e-5,
            residual_after_norm: false,
            tied: true,
            eos: 2,
            rest: Map::new(),
        };
        config.check().map_err(Error::Input)?;
        Ok(config)
    }

    /// The format of the matrices, where they are quantised.
    pub fn quantized(&self) -> Option<DType> {
        let found = self.rest.get(QUANTIZATION)?;
        FORMATS.into_iter().find(|&dtype| *found == quantization(dtype))
    }

    pub(crate) fn set_quantized(&mut self, dtype: Option<DType>) {
        match dtype {
            Some(dtype) => drop(self.rest.insert(QUANTIZATION.into(), quantization(dtype))),
            None => drop(self.rest.remove(QUANTIZATION)),
        }
    }

    /// See [`crate::Bloom::set_special_ids`].
    pub(crate) fn set_special_ids(&mut self, bos: u32, eos: u32, pad: u32) {
        self.eos = eos;
        self.rest.insert("bos_token_id".into(), json!(bos));
        self.rest.insert("pad_token_id".into(), json!(pad));
    }

    /// Reads `config.json`.
    ///
    /// # Errors
    /// A file that cannot be read, is no JSON object, is not a BLOOM's, or lacks a size.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(tensor::Error::io("read", path))?;
        let wrong = |what: String| Error::Config { path: path.into(), what };
        let value: Value = serde_json::from_str(&text).map_err(|e| wrong(format!("broken JSON: {e}")))?;
        let Value::Object(map) = value else { return Err(wrong("wanted a JSON object".into())) };
        Self::from_map(map).map_err(wrong)
    }

    fn from_map(map: Map<String, Value>) -> std::result::Result<Self, String> {
        if let Some(kind) = map.get("model_type")
            && kind != "bloom"
        {
            return Err(format!("model_type: wanted \"bloom\", found {kind}"));
        }
        let size = |names: &[&str]| -> std::result::Result<usize, String> {
            for name in names {
                match map.get(*name) {
                    None | Some(Value::Null) => {}
                    Some(v) => {
                        return v
                            .as_u64()
                            .and_then(|n| usize::try_from(n).ok())
                            .ok_or_else(|| format!("{name}: wanted a whole number, found {v}"));
                    }
                }
            }
            Err(format!("wanted {}, found neither", names.join(" or ")))
        };
        let flag = |name: &str, default: bool| match map.get(name) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(v) => Err(format!("{name}: wanted true or false, found {v}")),
        };
        let eps = match map.get("layer_norm_epsilon") {
            None | Some(Value::Null) => 1e-5,
            Some(v) => v.as_f64().ok_or_else(|| format!("layer_norm_epsilon: wanted a number, found {v}"))?,
        };
        let config = Self {
            hidden: size(&["hidden_size", "n_embed"])?,
            layers: size(&["n_layer", "num_hidden_layers"])?,
            heads: size(&["n_head", "num_attention_heads"])?,
            vocab: size(&["vocab_size"])?,
            eps: eps as f32,
            residual_after_norm: flag("apply_residual_connection_post_layernorm", false)?,
            tied: flag("tie_word_embeddings", true)?,
            eos: map.get("eos_token_id").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).unwrap_or(2),
            rest: Map::new(),
        };
        if let Some(inner) = map.get("n_inner").and_then(Value::as_u64)
            && inner != 4 * config.hidden as u64
        {
            return Err(format!("n_inner: wanted 4 × hidden size = {}, found {inner}", 4 * config.hidden));
        }
        config.check()?;
        let config = Self { rest: map, ..config };
        match config.rest.get(QUANTIZATION) {
            Some(found) if !found.is_null() && config.quantized().is_none() => {
                let wanted = FORMATS.map(|dtype| quantization(dtype).to_string()).join(" or ");
                Err(format!("{QUANTIZATION}: wanted {wanted}, found {found}"))
            }
            _ => Ok(config),
        }
    }

    fn check(&self) -> std::result::Result<(), String> {
        for (name, value, most) in [
            ("hidden size", self.hidden, 1 << 20),
            ("number of layers", self.layers, 1 << 16),
            ("number of heads", self.heads, 1 << 16),
            ("vocabulary", self.vocab, 1 << 31),
        ] {
            if value == 0 || value > most {
                return Err(format!("{name}: wanted 1 to {most}, found {value}"));
            }
        }
        if !self.hidden.is_multiple_of(self.heads) {
            return Err(format!("hidden size {}: wanted a multiple of the {} heads", self.hidden, self.heads));
        }
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            return Err(format!("layer_norm_epsilon: wanted a positive number, found {}", self.eps));
        }
        Ok(())
    }

    /// d, the size of one head.
    pub const fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// The number of parameters, the head counted only where it is not the embedding.
    pub const fn parameters(&self) -> usize {
        let c = self.hidden;
        let embedding = self.vocab * c;
        // Per block: two norms, qkv, dense, and the two layers of the feed-forward part, with their biases.
        let block = 4 * c + (3 * c * c + 3 * c) + (c * c + c) + (4 * c * c + 4 * c) + (4 * c * c + c);
        embedding + if self.tied { 0 } else { embedding } + self.layers * block + 4 * c
    }

    /// Those of the parameters that are in matrices: all but biases and norms.
    pub const fn matrices(&self) -> usize {
        let tables = if self.tied { 1 } else { 2 };
        tables * self.vocab * self.hidden + self.layers * 12 * self.hidden * self.hidden
    }

    /// The JSON that transformers reads: the fields as they were, with ours set.
    pub fn to_json(&self) -> Value {
        let mut map = self.rest.clone();
        let old = map.contains_key("n_embed");
        let (hidden, heads) = if old { ("n_embed", "num_attention_heads") } else { ("hidden_size", "n_head") };
        let ours = [
            ("architectures", json!(["BloomForCausalLM"])),
            ("model_type", json!("bloom")),
            (hidden, json!(self.hidden)),
            ("n_layer", json!(self.layers)),
            (heads, json!(self.heads)),
            ("vocab_size", json!(self.vocab)),
            ("layer_norm_epsilon", json!(self.eps.to_string().parse::<f64>().unwrap_or(1e-5))),
            ("apply_residual_connection_post_layernorm", json!(self.residual_after_norm)),
            ("tie_word_embeddings", json!(self.tied)),
            ("eos_token_id", json!(self.eos)),
        ];
        for (name, value) in ours {
            map.insert(name.into(), value);
        }
        let defaults = [
            ("unk_token_id", json!(0)),
            ("bos_token_id", json!(1)),
            ("pad_token_id", json!(3)),
            ("hidden_dropout", json!(0.0)),
            ("attention_dropout", json!(0.0)),
            ("initializer_range", json!(0.02)),
            ("use_cache", json!(true)),
        ];
        for (name, value) in defaults {
            map.entry(name).or_insert(value);
        }
        Value::Object(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        Config::read(&path)
    }

    #[test]
    fn both_dialects_read_alike_and_unknown_fields_survive() {
        let old =
            read(r#"{"n_embed":64,"num_attention_heads":4,"n_layer":2,"vocab_size":9,"seq_length":2048}"#).unwrap();
        let new = read(r#"{"hidden_size":64,"n_head":4,"n_layer":2,"vocab_size":9,"n_inner":null}"#).unwrap();
        assert_eq!((old.hidden, old.heads, old.layers, old.vocab), (new.hidden, new.heads, new.layers, new.vocab));
        let json = old.to_json();
        assert_eq!(json["seq_length"], 2048);
        assert_eq!(json["n_embed"], 64);
        assert!(json.get("hidden_size").is_none());
        assert_eq!(read(&new.to_json().to_string()).unwrap().to_json(), new.to_json());
        assert_eq!(json["layer_norm_epsilon"], 1e-5);
    }

    #[test]
    fn wrong_configurations_say_what_is_wrong() {
        for (text, part) in [
            ("[1]", "JSON object"),
            ("{", "broken JSON"),
            (r#"{"model_type":"gpt2"}"#, "model_type"),
            (r#"{"n_layer":2,"n_head":4,"vocab_size":9}"#, "hidden_size or n_embed"),
            (r#"{"hidden_size":"x","n_layer":2,"n_head":4,"vocab_size":9}"#, "whole number"),
            (r#"{"hidden_size":6,"n_layer":2,"n_head":4,"vocab_size":9}"#, "multiple of the 4 heads"),
            (r#"{"hidden_size":8,"n_layer":0,"n_head":4,"vocab_size":9}"#, "number of layers"),
            (r#"{"hidden_size":8,"n_layer":1,"n_head":4,"vocab_size":9,"n_inner":3}"#, "n_inner"),
            (r#"{"hidden_size":8,"n_layer":1,"n_head":4,"vocab_size":9,"layer_norm_epsilon":0}"#, "epsilon"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(part) && !message.contains('\n'), "{text}: {message}");
        }
    }

    #[test]
    fn parameter_counts_are_the_published_ones() {
        for (hidden, layers, heads, count) in [
            (1024, 24, 16, 559_214_592),
            (1536, 24, 16, 1_065_314_304),
            (2048, 24, 16, 1_722_408_960),
            (2560, 30, 32, 3_002_557_440),
            (4096, 30, 32, 7_069_016_064),
        ] {
            assert_eq!(Config::new(hidden, layers, heads, 250_880).unwrap().parameters(), count);
        }
    }
}
