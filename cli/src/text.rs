//! Text and token ids: BLOOM's byte-level BPE, or any other byte-level BPE of a `tokenizer.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer, TokenizerBuilder};

/// BLOOM's words: an optional space, then characters that are neither white space nor one of the listed. Onig reads
/// the inner brackets as a nested class, so that `(`, `|` and `)` are listed too.
const WORDS: &str = r" ?[^(\s|[.,!?…。，、।۔،])]+";

/// BLOOM's special tokens, in the order of their ids from 0.
const SPECIAL: [&str; 4] = ["<unk>", "<s>", "</s>", "<pad>"];

/// The largest `tokenizer.json` that is read, in bytes. BLOOM's has 14.5 million.
const LIMIT: u64 = 100_000_000;

/// The largest vocabulary that is learned: the trainer takes memory for it at once. BLOOM's has 250,680 entries.
const MOST_ENTRIES: usize = 1_000_000;

/// A tokenizer.
///
/// Text is only ever text: what looks like a special token in it (`</s>` in a review) is encoded letter by letter and
/// never becomes a control id. Control ids come from [`Text::bos`], [`Text::eos`] and [`Text::pad`] alone.
pub struct Text {
    tokenizer: Tokenizer,
    /// What is or will be in `tokenizer.json`.
    json: Vec<u8>,
    names: Names,
    special: BTreeMap<u32, String>,
    bos: u32,
    eos: u32,
    pad: u32,
    len: usize,
}

/// The texts of the special tokens.
struct Names {
    unk: String,
    bos: String,
    eos: String,
    pad: String,
}

impl Text {
    /// Reads a `tokenizer.json`, or the one in a folder. The special tokens are BLOOM's, unless a
    /// `tokenizer_config.json` beside it names others.
    ///
    /// # Errors
    /// No such file, not a byte-level tokenizer, a special token that it lacks, or padding that equals the end of
    /// text: a model trained so never learns to stop.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
        let shown = file.display();
        let size = fs::metadata(&file).with_context(|| format!("{shown}: cannot open"))?.len();
        ensure!(size <= LIMIT, "{shown}: wanted at most {LIMIT} bytes, found {size}");
        let json = fs::read(&file).with_context(|| format!("{shown}: cannot read"))?;
        let tokenizer = Tokenizer::from_bytes(&json).map_err(|e| anyhow!("{shown}: not a tokenizer: {e}"))?;
        let names = Names::beside(&file)?;
        Self::new(tokenizer, json, names).with_context(|| shown.to_string())
    }

    /// Learns a tokenizer like BLOOM's from texts. The same texts in the same order give the same tokenizer, for any
    /// number of threads. Texts too few for `vocab_size` give a smaller one; see [`Text::len`].
    ///
    /// # Errors
    /// A vocabulary without room for the special tokens and the 256 bytes, or one beyond reason.
    pub fn train(texts: impl Iterator<Item = String> + Send, vocab_size: usize) -> anyhow::Result<Self> {
        let smallest = SPECIAL.len() + 256;
        ensure!(vocab_size >= smallest, "vocabulary: wanted at least {smallest} entries, found {vocab_size}");
        ensure!(vocab_size <= MOST_ENTRIES, "vocabulary: wanted at most {MOST_ENTRIES} entries, found {vocab_size}");
        let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Isolated, false)
            .map_err(|e| anyhow!("{e}"))?;
        let split = Sequence::new(vec![words.into(), ByteLevel::new(false, true, false).into()]);
        let mut tokenizer = TokenizerBuilder::<BPE, tokenizers::NormalizerWrapper, _, _, _>::new()
            .with_model(BPE::default())
            .with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(split)))
            .with_post_processor(Some(tokenizers::PostProcessorWrapper::ByteLevel(ByteLevel::new(true, false, false))))
            .with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::new(true, true, false))))
            .build()
            .map_err(|e| anyhow!("{e}"))?;
        let mut trainer = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(SPECIAL.iter().map(|&name| AddedToken::from(name, true)).collect())
            .build();
        // A merge that spelled a special token would yield its id for mere text.
        let texts = texts.flat_map(|text| cut(&text, &SPECIAL).into_iter().map(str::to_owned).collect::<Vec<_>>());
        tokenizer.train(&mut trainer, texts).map_err(|e| anyhow!("cannot train a tokenizer: {e}"))?;
        let json = tokenizer.to_string(false).map_err(|e| anyhow!("{e}"))?.into_bytes();
        // Read back, so that a trained tokenizer is the very one that a later load finds.
        let tokenizer = Tokenizer::from_bytes(&json).map_err(|e| anyhow!("{e}"))?;
        Self::new(tokenizer, json, Names::bloom())
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` into a folder, as transformers
    /// reads them. A loaded tokenizer is written byte for byte.
    ///
    /// # Errors
    /// A file cannot be written; each is whole or as before.
    pub fn save(&self, folder: &Path) -> anyhow::Result<()> {
        let Names { unk, bos, eos, pad } = &self.names;
        let special = serde_json::json!({ "bos_token": bos, "eos_token": eos, "unk_token": unk, "pad_token": pad });
        let config = serde_json::json!({
            "unk_token": unk, "eos_token": eos, "bos_token": bos, "pad_token": pad,
            "add_prefix_space": false, "clean_up_tokenization_spaces": false,
            "model_input_names": ["input_ids", "attention_mask"],
            "padding_side": "left", "tokenizer_class": "BloomTokenizerFast",
        });
        tensor::durable::write(&folder.join("tokenizer.json"), |out| out.write_all(&self.json))?;
        tensor::durable::write(&folder.join("tokenizer_config.json"), |out| writeln!(out, "{config:#}"))?;
        tensor::durable::write(&folder.join("special_tokens_map.json"), |out| writeln!(out, "{special:#}"))?;
        Ok(())
    }

    /// The ids of a text, without any special token before, in or after it.
    ///
    /// # Errors
    /// The tokenizer cannot encode it, which a byte-level one always can.
    pub fn encode(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let ids = self.encode_piece(text)?;
        if !ids.iter().any(|id| self.special.contains_key(id)) {
            return Ok(ids);
        }
        // A tokenizer can have learnt to merge letters to a special token's text; so these letters are kept apart.
        let names: Vec<_> = self.special.values().map(String::as_str).collect();
        let mut ids = Vec::with_capacity(ids.len());
        for piece in cut(text, &names) {
            ids.extend(self.encode_piece(piece)?);
        }
        match ids.iter().find_map(|id| self.special.get(id)) {
            Some(name) => bail!("the tokenizer turns text into the special token {name}"),
            None => Ok(ids),
        }
    }

    /// The text of ids. Special tokens and ids beyond the vocabulary have none; bytes that are no characters become
    /// the replacement character.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            self.push_bytes(id, &mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// [`Text::decode`] one id at a time.
    pub fn stream(&self) -> Stream<'_> {
        Stream { text: self, bytes: Vec::new() }
    }

    /// The number of ids, special ones included: every id is below it.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// The id that begins a text (`<s>`), which BLOOM does not use.
    pub const fn bos(&self) -> u32 {
        self.bos
    }

    /// The id that ends a text (`</s>`).
    pub const fn eos(&self) -> u32 {
        self.eos
    }

    /// The id that fills up a batch (`<pad>`), never the same as [`Text::eos`].
    pub const fn pad(&self) -> u32 {
        self.pad
    }

    fn new(mut tokenizer: Tokenizer, json: Vec<u8>, names: Names) -> anyhow::Result<Self> {
        ensure!(
            matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_))),
            "wanted a byte-level tokenizer, whose decoder is ByteLevel"
        );
        tokenizer.set_encode_special_tokens(true);
        tokenizer.with_padding(None).with_truncation(None).map_err(|e| anyhow!("{e}"))?;
        let id = |what: &str, name: &str| {
            tokenizer.token_to_id(name).with_context(|| format!("wanted the {what} token {name}, found none"))
        };
        let (bos, eos, pad) = (id("bos", &names.bos)?, id("eos", &names.eos)?, id("pad", &names.pad)?);
        id("unk", &names.unk)?;
        ensure!(
            pad != eos,
            "wanted a pad token of its own, found that {} is both pad and eos, and a model would not learn to stop",
            names.eos
        );
        let mut special: BTreeMap<_, _> = tokenizer
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, token)| (id, token.content))
            .collect();
        special.extend([(bos, names.bos.clone()), (eos, names.eos.clone()), (pad, names.pad.clone())]);
        let len = tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        Ok(Self { tokenizer, json, names, special, bos, eos, pad, len })
    }

    fn encode_piece(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(|e| anyhow!("cannot encode: {e}"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Adds a token's bytes, which special ones do not have.
    pub fn push_bytes(&self, id: u32, bytes: &mut Vec<u8>) {
        if self.special.contains_key(&id) {
            return;
        }
        let Some(token) = self.tokenizer.id_to_token(id) else { return };
        let before = bytes.len();
        for c in token.chars() {
            let Some(byte) = byte_of(c) else {
                // A token that was added as plain text.
                bytes.truncate(before);
                bytes.extend(token.as_bytes());
                return;
            };
            bytes.push(byte);
        }
    }
}

impl Names {
    fn bloom() -> Self {
        let [unk, bos, eos, pad] = SPECIAL.map(String::from);
        Self { unk, bos, eos, pad }
    }

    /// BLOOM's, where a `tokenizer_config.json` in the same folder does not say otherwise.
    fn beside(file: &Path) -> anyhow::Result<Self> {
        let mut names = Self::bloom();
        let path = file.with_file_name("tokenizer_config.json");
        if !path.exists() {
            return Ok(names);
        }
        let shown = path.display();
        let text = fs::read(&path).with_context(|| format!("{shown}: cannot read"))?;
        let config: serde_json::Value = serde_json::from_slice(&text).with_context(|| format!("{shown}: not JSON"))?;
        let fields = [
            ("unk_token", &mut names.unk),
            ("bos_token", &mut names.bos),
            ("eos_token", &mut names.eos),
            ("pad_token", &mut names.pad),
        ];
        for (key, name) in fields {
            // Either the text itself or an object with the text as its content.
            let found = &config[key];
            if let Some(found) = found.as_str().or_else(|| found["content"].as_str()) {
                found.clone_into(name);
            }
        }
        Ok(names)
    }
}

/// Decodes as ids arrive.
pub struct Stream<'a> {
    text: &'a Text,
    /// The beginning of a character whose rest is still to come: at most three bytes.
    bytes: Vec<u8>,
}

impl Stream<'_> {
    /// The characters that this id completes. All pieces together, with that of [`Stream::finish`], are the decoded
    /// text; none is ever taken back.
    pub fn push(&mut self, id: u32) -> Option<String> {
        self.text.push_bytes(id, &mut self.bytes);
        let mut whole = String::new();
        let mut done = 0;
        for chunk in self.bytes.utf8_chunks() {
            let after = done + chunk.valid().len() + chunk.invalid().len();
            whole.push_str(chunk.valid());
            let incomplete = after == self.bytes.len()
                && std::str::from_utf8(chunk.invalid()).is_err_and(|e| e.error_len().is_none());
            if incomplete {
                done += chunk.valid().len();
                break;
            }
            if !chunk.invalid().is_empty() {
                whole.push(char::REPLACEMENT_CHARACTER);
            }
            done = after;
        }
        self.bytes.drain(..done);
        (!whole.is_empty()).then_some(whole)
    }

    /// What is left of a character that was never completed.
    pub fn finish(self) -> Option<String> {
        (!self.bytes.is_empty()).then(|| String::from_utf8_lossy(&self.bytes).into_owned())
    }
}

/// The byte that a character of a byte-level token stands for: itself where printable in Latin-1, and else the n-th
/// unprintable one for the character 256 + n (GPT-2, `encoder.py`, `bytes_to_unicode`).
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        own @ (33..=126 | 161..=172 | 174..=255) => u8::try_from(own).ok(),
        low @ 256..=288 => u8::try_from(low - 256).ok(),
        middle @ 289..=322 => u8::try_from(middle - 289 + 127).ok(),
        323 => Some(173),
        _ => None,
    }
}

/// The text in pieces, cut after the first character of each of the names in it, so that no piece contains one.
fn cut<'a>(text: &'a str, names: &[&str]) -> Vec<&'a str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (at, c) in text.char_indices() {
        if names.iter().any(|name| !name.is_empty() && text[at..].starts_with(name)) {
            let end = at + c.len_utf8();
            pieces.push(&text[start..end]);
            start = end;
        }
    }
    pieces.push(&text[start..]);
    pieces
}

pub use vocabulary::Vocabulary;

mod vocabulary;

#[cfg(test)]
mod tests;
