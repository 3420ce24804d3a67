use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::Path;

use ::safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::malformed;
use crate::Result;

/// The longest header that is read, in bytes: room for tens of thousands of tensors. BLOOM-176B needs 100 thousand bytes
/// for its 846; the format's own limit of 100 million lets a small file ask for gigabytes of memory.
pub(super) const LIMIT: usize = 4 << 20;

/// A header whose every offset and size fits the file and each other.
pub(super) struct Header {
    pub tensors: BTreeMap<String, TensorInfo>,
    pub metadata: BTreeMap<String, String>,
}

/// The header and where the numbers begin.
pub(super) fn read(path: &Path, file: &[u8]) -> Result<(Header, usize)> {
    let bad = |what: String| malformed(path, what);
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(bad(format!("wanted at least 8 bytes, found {}", file.len())));
    };
    let length = u64::from_le_bytes(*length);
    let text = usize::try_from(length).ok().filter(|&n| n <= LIMIT).ok_or_else(|| {
        bad(format!("wanted a header of at most {LIMIT} bytes, found one of {length}; is this a safetensors file?"))
    })?;
    let Some((text, data)) = rest.split_at_checked(text) else {
        return Err(bad(format!("wanted a header of {length} bytes, found {} after the length", rest.len())));
    };
    // The format wants a brace first; serde_json would skip white space.
    if !text.starts_with(b"{") {
        return Err(bad("wanted a header that begins with '{', found something else".into()));
    }
    let header: Header =
        serde_json::from_slice(text).map_err(|e| bad(format!("header: {}", one_line(&e.to_string()))))?;
    let used = header.check().map_err(|what| bad(format!("header: {what}")))?;
    if used != data.len() {
        return Err(bad(format!("wanted {used} bytes of numbers, found {}", data.len())));
    }
    Ok((header, 8 + text.len()))
}

impl Header {
    /// The bytes that the tensors fill, one after the other, from 0 without holes.
    fn check(&self) -> std::result::Result<usize, String> {
        for (name, info) in &self.tensors {
            let (start, end) = info.data_offsets;
            let wanted = info
                .shape
                .iter()
                .try_fold(info.dtype.bitsize(), |n, &size| n.checked_mul(size))
                .filter(|bits| bits.is_multiple_of(8))
                .ok_or_else(|| {
                    format!("tensor {}: wanted a whole number of bytes, found {}", one_line(name), shown(info))
                })?
                / 8;
            if end.checked_sub(start) != Some(wanted) {
                return Err(format!(
                    "tensor {}: wanted {wanted} bytes for {}, found offsets {start} to {end}",
                    one_line(name),
                    shown(info)
                ));
            }
        }
        let mut tensors: Vec<_> = self.tensors.iter().map(|(name, info)| (name.clone(), info.clone())).collect();
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        // Gaps and overlaps.
        let checked = Metadata::new(None::<HashMap<_, _>>, tensors).map_err(|e| one_line(&e.to_string()))?;
        Ok(checked.data_len())
    }
}

fn shown(info: &TensorInfo) -> String {
    format!("{} {}", info.dtype, one_line(&format!("{:?}", info.shape)))
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Header, A::Error> {
                let mut tensors = BTreeMap::new();
                let mut metadata = None;
                while let Some(name) = map.next_key::<String>()? {
                    let repeated = if name == "__metadata__" {
                        metadata.replace(map.next_value::<Unique<String>>()?.0).is_some()
                    } else {
                        tensors.insert(name.clone(), map.next_value()?).is_some()
                    };
                    if repeated {
                        return Err(A::Error::custom(format!("{} is there twice", one_line(&name))));
                    }
                }
                Ok(Header { tensors, metadata: metadata.unwrap_or_default() })
            }
        }
        from.deserialize_map(Entries)
    }
}

/// An object without repeated keys, which serde's own maps would let win.
pub(super) struct Unique<T>(pub BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Entries<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = BTreeMap<String, T>;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value = map.next_value()?;
                    if entries.insert(key.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("{} is there twice", one_line(&key))));
                    }
                }
                Ok(entries)
            }
        }
        from.deserialize_map(Entries(std::marker::PhantomData)).map(Self)
    }
}

/// Text from a file, fit for a message: one line, no control characters, not long.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars() {
        if line.len() > 200 {
            line.push('…');
            break;
        }
        if c.is_control() {
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}
