use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

use ::safetensors::Dtype;
use ::safetensors::tensor::TensorInfo;

use super::{header, malformed};
use crate::{DType, Device, Result, Tensor, durable};

/// Writes a file of named tensors, whole or not at all (see [`durable::write`]). The same tensors, in whatever order,
/// give the same bytes. `format: pt` is added to the metadata where it has no `format`; Hugging Face's loader wants it.
///
/// # Errors
/// Two tensors of one name, a header too long to be read back, or a failed write.
pub fn save(path: &Path, tensors: &[(&str, &Tensor)], metadata: &BTreeMap<String, String>) -> Result<()> {
    let mut ordered = tensors.to_vec();
    // Wide formats first, so that with a header of whole eights every tensor is aligned in the map.
    ordered.sort_by_key(|&(name, tensor)| (Reverse(tensor.dtype().size()), name));
    let mut metadata = metadata.clone();
    metadata.entry("format".into()).or_insert_with(|| "pt".into());

    let mut entries = serde_json::Map::new();
    entries.insert("__metadata__".into(), serde_json::json!(metadata));
    let mut end = 0;
    for (name, tensor) in &ordered {
        let start = end;
        end += tensor.size();
        let dtype = match tensor.dtype() {
            DType::F32 => Dtype::F32,
            DType::BF16 => Dtype::BF16,
            DType::U32 => Dtype::U32,
            DType::Q8 | DType::Q4 => Dtype::U8,
        };
        let shape = super::tiles(tensor.dtype(), tensor.shape()).unwrap_or_else(|| tensor.shape().to_vec());
        let info = TensorInfo { dtype, shape, data_offsets: (start, end) };
        let info = serde_json::to_value(info).map_err(|e| malformed(path, e.to_string()))?;
        if entries.insert((*name).into(), info).is_some() {
            return Err(malformed(path, format!("wanted distinct names of tensors, found {name} twice")));
        }
    }
    let mut text = serde_json::Value::from(entries).to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    if text.len() > header::LIMIT {
        return Err(malformed(path, format!("wanted a header of at most {} bytes, got {}", header::LIMIT, text.len())));
    }
    durable::write(path, |out| {
        out.write_all(&(text.len() as u64).to_le_bytes())?;
        out.write_all(text.as_bytes())?;
        ordered.iter().try_for_each(|(_, tensor)| {
            let near = tensor.to_device(&Device::Cpu).map_err(std::io::Error::other)?;
            out.write_all(near.bytes().map_err(std::io::Error::other)?)
        })
    })
}

/// Writes a model into a folder: `model.safetensors` if it fits in `max_shard_bytes` of numbers, else
/// `model-0000i-of-0000N.safetensors` and `model.safetensors.index.json`, as Hugging Face names and fills them
/// (in the order given; a tensor larger than the limit has a shard of its own).
///
/// Each file is whole or absent; for all of them together, let `folder` be a [`durable::Folder`]'s.
///
/// # Errors
/// As [`save`]; or shards are needed where the folder already holds a model, whose files they would mix with.
pub fn save_sharded(folder: &Path, tensors: &[(&str, &Tensor)], max_shard_bytes: usize) -> Result<()> {
    let metadata = BTreeMap::new();
    let mut shards: Vec<Vec<(&str, &Tensor)>> = vec![Vec::new()];
    let mut filled = 0;
    let mut total = 0;
    for &(name, tensor) in tensors {
        let bytes = tensor.size();
        if filled > 0 && filled + bytes > max_shard_bytes {
            shards.push(Vec::new());
            filled = 0;
        }
        if let Some(shard) = shards.last_mut() {
            shard.push((name, tensor));
        }
        filled += bytes;
        total += bytes;
    }
    if let [all] = shards.as_slice() {
        return save(&folder.join("model.safetensors"), all, &metadata);
    }
    let index = folder.join("model.safetensors.index.json");
    for there in [&folder.join("model.safetensors"), &index] {
        if there.exists() {
            return Err(malformed(there, "wanted a folder without a model to write shards to, found this file"));
        }
    }
    let mut places = BTreeMap::new();
    for (i, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        for (name, _) in shard {
            if places.insert(*name, file.clone()).is_some() {
                return Err(malformed(folder, format!("wanted distinct names of tensors, found {name} twice")));
            }
        }
        save(&folder.join(&file), shard, &metadata)?;
    }
    let listed = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": places });
    durable::write(&index, |out| writeln!(out, "{listed:#}"))
}
