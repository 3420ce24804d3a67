//! Checkpoints: folders named `checkpoint-STEP` that appear whole, list their files with sizes and SHA-256 in
//! `manifest.json`, and hold all that a run needs to go on bit for bit. Which one is the latest is read from the
//! folder names; no pointer file can go stale.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use bloom::{Bloom, Dtype, Trainer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tensor::durable::{self, Folder};
use tensor::safetensors;

use crate::settings::Recipe;
use crate::text::Text;

const MANIFEST: &str = "manifest.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "training.json";

/// What a run is at a step, beside its weights and optimiser. The order of the data and every random draw follow from
/// the recipe's seed and the step, so no generator's state is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimiser steps taken.
    pub step: u64,
    /// The settings that decide the weights.
    pub recipe: Recipe,
    /// SHA-256 of the tokens trained on, in order.
    pub data_sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    sha256: String,
}

/// A checkpoint that was found whole.
pub struct Found {
    pub folder: PathBuf,
    pub state: State,
}

/// Writes the checkpoint of `state` under `output`, then removes all but the newest `keep`.
pub fn save(output: &Path, trainer: &Trainer, text: &Text, state: &State, keep: usize) -> anyhow::Result<PathBuf> {
    let target = output.join(format!("checkpoint-{}", state.step));
    let folder = Folder::new(&target)?;
    let model = trainer.exact_model();
    model.save(folder.path())?;
    text.save(folder.path())?;
    let moments: Vec<(String, &tensor::Tensor)> = trainer.optimizer().state(model.params()).collect();
    let moments: Vec<(&str, &tensor::Tensor)> = moments.iter().map(|(name, t)| (name.as_str(), *t)).collect();
    safetensors::save(&folder.path().join(OPTIMIZER), &moments, &BTreeMap::new())?;
    write_json(&folder.path().join(STATE), state)?;
    write_json(&folder.path().join(MANIFEST), &manifest(folder.path())?)?;
    folder.commit_replacing()?;

    let mut all = list(output)?;
    // Newer ones were passed over when this run began: they are broken, and do not count.
    all.retain(|(step, _)| *step <= state.step);
    all.sort_unstable_by_key(|(step, _)| std::cmp::Reverse(*step));
    for (_, old) in all.into_iter().skip(keep) {
        std::fs::remove_dir_all(&old).with_context(|| format!("{}: cannot remove", old.display()))?;
    }
    Ok(target)
}

/// The newest checkpoint under `output` whose files are all what its manifest says; what is wrong with newer ones is
/// told to `warn`.
pub fn latest(output: &Path, mut warn: impl FnMut(String)) -> anyhow::Result<Option<Found>> {
    let mut all = list(output)?;
    all.sort_unstable_by_key(|(step, _)| std::cmp::Reverse(*step));
    for (_, folder) in all {
        match verify(&folder) {
            Ok(state) => return Ok(Some(Found { folder, state })),
            Err(e) => warn(format!("passing over {}: {e:#}", folder.display())),
        }
    }
    Ok(None)
}

impl Found {
    /// The model with the weights of this checkpoint.
    pub fn model(&self) -> anyhow::Result<Bloom> {
        Ok(Bloom::load(&self.folder, Dtype::F32)?)
    }

    /// Gives the trainer its optimiser's state back.
    pub fn restore(&self, trainer: &mut Trainer) -> anyhow::Result<()> {
        let file = safetensors::Checkpoint::open(&self.folder.join(OPTIMIZER))?;
        trainer
            .restore(self.state.step, |name| file.load(name, None).map_err(|e| autograd::Error::from(e).into()))
            .map_err(|e: RestoreError| anyhow!(e.0).context(format!("{}", self.folder.join(OPTIMIZER).display())))
    }

    /// Refuses to go on with other data or with settings that would change the result, naming each.
    pub fn must_fit(&self, recipe: &Recipe, data_sha256: &str) -> anyhow::Result<()> {
        // By way of text, so that an f32 shows as it was given and not as the f64 nearest to it.
        let value = |r: &Recipe| serde_json::from_str::<serde_json::Value>(&serde_json::to_string(r)?);
        let (was, now) = (value(&self.state.recipe)?, value(recipe)?);
        let mut changes = Vec::new();
        if let (Some(was), Some(now)) = (was.as_object(), now.as_object()) {
            for (key, value) in now {
                if was.get(key) != Some(value) {
                    changes.push(format!("{key} was {}, is {value}", was.get(key).unwrap_or(&serde_json::Value::Null)));
                }
            }
        }
        if data_sha256 != self.state.data_sha256 {
            changes.push("the training data is another".into());
        }
        if changes.is_empty() {
            return Ok(());
        }
        bail!("cannot resume {}: {}", self.folder.display(), changes.join("; "))
    }
}

struct RestoreError(autograd::Error);

impl From<autograd::Error> for RestoreError {
    fn from(e: autograd::Error) -> Self {
        Self(e)
    }
}

fn list(output: &Path) -> anyhow::Result<Vec<(u64, PathBuf)>> {
    let cannot = || format!("{}: cannot read the folder", output.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(output).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|n| n.strip_prefix("checkpoint-")).and_then(|n| n.parse().ok());
        if let (Some(step), true) = (step, entry.path().is_dir()) {
            found.push((step, entry.path()));
        }
    }
    Ok(found)
}

fn verify(folder: &Path) -> anyhow::Result<State> {
    let wanted: BTreeMap<String, Entry> = read_json(&folder.join(MANIFEST))?;
    for (name, entry) in &wanted {
        let path = folder.join(name);
        let bytes = std::fs::metadata(&path).with_context(|| format!("{name}: missing"))?.len();
        if bytes != entry.bytes {
            bail!("{name}: wanted {} bytes, found {bytes}", entry.bytes);
        }
        if sha256(&path)? != entry.sha256 {
            bail!("{name}: its SHA-256 is not the manifest's");
        }
    }
    for name in [STATE, OPTIMIZER, "config.json"] {
        if !wanted.contains_key(name) {
            bail!("{MANIFEST} does not list {name}");
        }
    }
    read_json(&folder.join(STATE))
}

fn manifest(folder: &Path) -> anyhow::Result<BTreeMap<String, Entry>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|n| anyhow!("{}: not UTF-8", n.display()))?;
        all.insert(name, Entry { bytes: entry.metadata()?.len(), sha256: sha256(&entry.path())? });
    }
    Ok(all)
}

fn sha256(path: &Path) -> anyhow::Result<String> {
    let cannot = || format!("{}: cannot read", path.display());
    let mut file = File::open(path).with_context(cannot)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let n = file.read(&mut buffer).with_context(cannot)?;
        if n == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..n]);
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).filter_map(|d| char::from_digit(d.into(), 16)).collect()
}

fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(durable::write(path, |out| out.write_all(&text))?)
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> anyhow::Result<T> {
    let name = path.file_name().unwrap_or_default().display();
    let text = std::fs::read(path).with_context(|| format!("{name}: cannot read"))?;
    serde_json::from_slice(&text).with_context(|| format!("{name}: broken"))
}
