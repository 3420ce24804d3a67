//! Safetensors files: eight bytes of length, a JSON header, the numbers, little-endian.
//! Format: <https://github.com/huggingface/safetensors#format>.
//!
//! Files are read by memory map, so a model that is stored in the wanted dtype costs no memory of the process.
//! A file that is cut short by someone else *while it is mapped* ends the process with SIGBUS; files written by
//! [`save`] and by [`crate::durable`] are replaced by renaming and never cut.

mod header;
mod write;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ::safetensors::Dtype;
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;

use crate::{DType, Error, Result, Shape, TILE, Tensor};
use header::{Unique, one_line};
pub use write::{save, save_sharded};

#[cfg(target_endian = "big")]
compile_error!("safetensors files are little-endian and are used in place");

/// The largest index file that is read, in bytes. BLOOM-176B's has 60 thousand.
const INDEX_LIMIT: u64 = 4 << 20;

/// All tensors of a model folder or of one file, by name.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Entry {
    map: Arc<Mmap>,
    file: Arc<Path>,
    info: Info,
    /// In the file.
    bytes: Range<usize>,
}

/// What a file says about a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The sizes of the axes.
    pub shape: Vec<usize>,
    /// The number format in the file.
    pub stored: Stored,
}

/// The number formats of a file, as far as they can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// 32-bit IEEE float.
    F32,
    /// bfloat16.
    BF16,
    /// 16-bit IEEE float; converted when read.
    F16,
    /// Unsigned 32-bit integer.
    U32,
    /// Anything else, which cannot be read.
    Other(Dtype),
}

impl Checkpoint {
    /// Opens a `.safetensors` file, or a folder: its `model.safetensors`, else the shards that its
    /// `model.safetensors.index.json` lists. Headers are checked in full, numbers are not looked at.
    ///
    /// # Errors
    /// No such file; a file that is not what the format demands to the last byte; an index and shards that
    /// disagree; a `PyTorch` file, which can hold programs and is not read.
    pub fn open(path: &Path) -> Result<Self> {
        let mut checkpoint = Self { path: path.into(), tensors: BTreeMap::new(), metadata: BTreeMap::new() };
        if !path.is_dir() {
            checkpoint.add(path)?;
            return Ok(checkpoint);
        }
        let single = path.join("model.safetensors");
        let index = path.join("model.safetensors.index.json");
        if single.exists() {
            checkpoint.add(&single)?;
        } else if index.exists() {
            checkpoint.add_shards(path, &index)?;
        } else {
            refuse_pickle(path, &path.join("pytorch_model.bin"))?;
            refuse_pickle(path, &path.join("pytorch_model.bin.index.json"))?;
            return Err(malformed(path, "wanted model.safetensors or model.safetensors.index.json, found neither"));
        }
        Ok(checkpoint)
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// What the file says about a tensor; `None` if there is none of that name.
    pub fn info(&self, name: &str) -> Option<&Info> {
        self.tensors.get(name).map(|entry| &entry.info)
    }

    /// The free text entries of the file (of all shards, where a later one wins).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The file or folder this was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensor of that name, or `None`. Where the stored format is the wanted one the result is a view of the
    /// file; else the numbers are converted (16 to 32 bits exactly, to bf16 with rounding to nearest even).
    /// `dtype: None` wants the stored format, and f32 for stored f16.
    ///
    /// # Errors
    /// A stored format that cannot be converted to the wanted one, or more than four axes.
    pub fn load(&self, name: &str, dtype: Option<DType>) -> Result<Option<Tensor>> {
        let Some(Entry { map, file, info, bytes }) = self.tensors.get(name) else { return Ok(None) };
        let bad = |what: &str| malformed(file, format!("tensor {}: {what}", one_line(name)));
        let shape = Shape::new(&info.shape)
            .map_err(|_| bad(&format!("wanted at most four axes, found {}", one_line(&format!("{:?}", info.shape)))))?;
        let stored = match info.stored {
            Stored::F32 => DType::F32,
            Stored::BF16 => DType::BF16,
            Stored::U32 => DType::U32,
            Stored::F16 => {
                let numbers = map[bytes.clone()].chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32());
                return match dtype.unwrap_or(DType::F32) {
                    DType::F32 => Tensor::new(&info.shape, numbers.collect()).map(Some),
                    DType::BF16 => Tensor::new(&info.shape, numbers.map(bf16::from_f32).collect()).map(Some),
                    wanted => Err(bad(&format!("wanted {wanted}, found F16"))),
                };
            }
            Stored::Other(found) => return Err(bad(&format!("wanted F32, BF16, F16 or U32, found {found}"))),
        };
        let tensor = match Tensor::mapped(shape, stored, map, bytes.clone()) {
            Some(tensor) => tensor,
            None => copied(shape, stored, &map[bytes.clone()])?,
        };
        let wanted = dtype.unwrap_or(stored);
        tensor.to_dtype(wanted).map(Some).map_err(|_| bad(&format!("wanted {wanted}, found {stored}")))
    }

    /// Whether two tensors hold the same bytes in the same shape and format; `false` where one is not there.
    pub fn same(&self, a: &str, b: &str) -> bool {
        let [a, b] = [a, b].map(|name| self.tensors.get(name));
        a.zip(b).is_some_and(|(a, b)| a.info == b.info && a.map[a.bytes.clone()] == b.map[b.bytes.clone()])
    }

    /// Quantised weights `[n, k]` of that name, or `None`: in the file they are bytes `[n / 16, k / 32, tile]`, rounded up. The
    /// result is a view of the file.
    ///
    /// # Errors
    /// Another stored format or shape.
    pub fn load_quantized(&self, name: &str, dtype: DType, sizes: [usize; 2]) -> Result<Option<Tensor>> {
        let Some(Entry { map, file, info, bytes }) = self.tensors.get(name) else { return Ok(None) };
        let wanted = tiles(dtype, &sizes).unwrap_or_default();
        let found = |what: String| malformed(file, format!("tensor {}: {what}", one_line(name)));
        if info.stored != Stored::Other(Dtype::U8) || info.shape != wanted {
            let what =
                format!("wanted U8 {wanted:?} for {dtype} weights {sizes:?}, found {:?} {:?}", info.stored, info.shape);
            return Err(found(one_line(&what)));
        }
        match Tensor::mapped(Shape::new(&sizes)?, dtype, map, bytes.clone()) {
            Some(tensor) => Ok(Some(tensor)),
            None => Err(found("its bytes do not fill its shape".into())),
        }
    }

    /// Adds a file's tensors and returns their names, sorted.
    fn add(&mut self, path: &Path) -> Result<Vec<String>> {
        let map = Arc::new(map(path)?);
        let file: Arc<Path> = path.into();
        let (header, data) = header::read(path, &map)?;
        let mut names = Vec::with_capacity(header.tensors.len());
        for (name, info) in header.tensors {
            let bytes = data + info.data_offsets.0..data + info.data_offsets.1;
            let info = Info { shape: info.shape, stored: info.dtype.into() };
            let entry = Entry { map: map.clone(), file: file.clone(), info, bytes };
            if let Some(other) = self.tensors.insert(name.clone(), entry) {
                let what = format!("tensor {} is also in {}", one_line(&name), other.file.display());
                return Err(malformed(path, what));
            }
            names.push(name);
        }
        self.metadata.extend(header.metadata);
        Ok(names)
    }

    fn add_shards(&mut self, folder: &Path, index: &Path) -> Result<()> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: Unique<String>,
        }
        let text = read_limited(index)?;
        let Index { weight_map: Unique(listed) } =
            serde_json::from_slice(&text).map_err(|e| malformed(index, one_line(&e.to_string())))?;
        let mut shards = BTreeMap::<&str, Vec<&str>>::new();
        for (name, shard) in &listed {
            shards.entry(shard).or_default().push(name);
        }
        for (shard, listed_here) in shards {
            if !is_plain_name(shard) {
                let what =
                    format!("wanted a shard's plain file name ending in .safetensors, found {}", one_line(shard));
                return Err(malformed(index, what));
            }
            let path = folder.join(shard);
            let here = self.add(&path)?;
            // Both are sorted.
            let missing = |name: &&&str| here.binary_search_by(|h| h.as_str().cmp(name)).is_err();
            if let Some(name) = listed_here.iter().find(missing) {
                return Err(malformed(&path, format!("wanted tensor {} by the index, found none", one_line(name))));
            }
            if let Some(name) = here.iter().find(|name| listed_here.binary_search(&name.as_str()).is_err()) {
                let what = format!("found tensor {}, which the index does not place here", one_line(name));
                return Err(malformed(&path, what));
            }
        }
        Ok(())
    }
}

impl From<Dtype> for Stored {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::BF16 => Self::BF16,
            Dtype::F16 => Self::F16,
            Dtype::U32 => Self::U32,
            other => Self::Other(other),
        }
    }
}

/// The index of the first number that is infinite or not a number. Integers are always finite.
pub fn first_non_finite(tensor: &Tensor) -> Option<usize> {
    // All exponents' bits are set in what is infinite or no number.
    let float = tensor.values::<f32>().ok().and_then(|all| first(all, |x| !x.to_bits() & 0x7F80_0000 == 0));
    float.or_else(|| tensor.values::<bf16>().ok().and_then(|all| first(all, |x| !x.to_bits() & 0x7F80 == 0)))
}

/// The index of the first that is bad. Parts in which none is are looked through without a branch, as fast as memory gives them.
fn first<T: Copy + Sync>(all: &[T], bad: impl Fn(T) -> bool + Sync) -> Option<usize> {
    const PART: usize = 1 << 14;
    let any = |part: &[T]| part.iter().map(|&x| u32::from(bad(x))).sum::<u32>() > 0;
    let part = all.par_chunks(PART).position_first(any)?;
    all[part * PART..].iter().position(|&x| bad(x)).map(|at| part * PART + at)
}

fn map(path: &Path) -> Result<Mmap> {
    // Asked before opening, which would wait on a pipe.
    let kind = fs::metadata(path).map_err(Error::io("open", path))?;
    if !kind.is_file() {
        return Err(malformed(path, "wanted a file, found something else"));
    }
    refuse_pickle(path, path)?;
    let file = File::open(path).map_err(Error::io("open", path))?;
    if kind.len() < 8 {
        return Err(malformed(path, format!("wanted at least 8 bytes, found {}", kind.len())));
    }
    // SAFETY: the map is read-only and private to this module's views. Bytes changed by others are still bytes, and
    // every bit pattern is a number; a file cut short meanwhile is the SIGBUS that the module's text warns of.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
    // Where the system can: fewer, larger pages are read faster. Nothing but speed is lost where it cannot.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}

/// Refuses `PyTorch`'s pickles by name: reading one can run whatever it contains.
fn refuse_pickle(shown: &Path, file: &Path) -> Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let pickled = [".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".pkl"].iter().any(|end| name.ends_with(end));
    if pickled && file.exists() {
        let what = format!(
            "{name} is a PyTorch file, which can hold programs; convert it to safetensors first \
             (transformers: from_pretrained, then save_pretrained)"
        );
        return Err(malformed(shown, what));
    }
    Ok(())
}

fn copied(shape: Shape, dtype: DType, bytes: &[u8]) -> Result<Tensor> {
    match dtype {
        DType::F32 => Tensor::new(shape.sizes(), bytemuck::pod_collect_to_vec::<u8, f32>(bytes)),
        DType::BF16 => Tensor::new(shape.sizes(), bytemuck::pod_collect_to_vec::<u8, bf16>(bytes)),
        _ => Tensor::new(shape.sizes(), bytemuck::pod_collect_to_vec::<u8, u32>(bytes)),
    }
}

/// The shape in a file of quantised weights `[n, k]`.
fn tiles(dtype: DType, sizes: &[usize]) -> Option<Vec<usize>> {
    match (dtype.tile(), sizes) {
        (Some(tile), &[n, k]) => Some(vec![n.div_ceil(TILE[0]), k.div_ceil(TILE[1]), tile]),
        _ => None,
    }
}

fn read_limited(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(Error::io("open", path))?;
    file.take(INDEX_LIMIT + 1).read_to_end(&mut text).map_err(Error::io("read", path))?;
    if text.len() as u64 > INDEX_LIMIT {
        return Err(malformed(path, format!("wanted at most {INDEX_LIMIT} bytes, found more")));
    }
    Ok(text)
}

fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name);
    plain && !name.contains(['/', '\\', '\0']) && name.ends_with(".safetensors")
}

fn malformed(path: &Path, what: impl Into<String>) -> Error {
    Error::Malformed { path: path.into(), what: what.into() }
}

#[cfg(test)]
mod tests;
