//! Made instructions wait on disk, spread over buckets by a random order, until it is known which of them stay. So the
//! output is shuffled as a whole, and only one bucket of it is ever in memory.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use rayon::prelude::*;

/// Buckets. With 2.5 million instructions of 800 bytes, one holds 8 MB.
const BUCKETS: usize = 256;

/// One waiting instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry<'a> {
    /// Place in the output: smaller first.
    pub(super) order: u64,
    /// The row as it is written.
    pub(super) line: &'a [u8],
    pub(super) key: u64,
    pub(super) unit: u32,
    pub(super) class: &'a str,
}

/// The buckets of one build, in a folder that goes when this does.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    files: Vec<BufWriter<File>>,
}

/// Bytes before an entry's class and line: order, key, unit, and the lengths of both.
const HEAD: usize = 28;

impl Spool {
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let open = |n| Ok(BufWriter::with_capacity(1 << 15, File::create(folder.join(format!("{n:03}")))?));
        Ok(Self { folder: folder.to_path_buf(), files: (0..BUCKETS).map(open).collect::<io::Result<_>>()? })
    }

    pub(super) fn add(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let bucket = (entry.order >> 56) as usize * BUCKETS / 256;
        let Some(file) = self.files.get_mut(bucket) else { return Ok(()) };
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&entry.order.to_le_bytes());
        head[8..16].copy_from_slice(&entry.key.to_le_bytes());
        head[16..20].copy_from_slice(&entry.unit.to_le_bytes());
        head[20..24].copy_from_slice(&(entry.class.len() as u32).to_le_bytes());
        head[24..].copy_from_slice(&(entry.line.len() as u32).to_le_bytes());
        file.write_all(&head)?;
        file.write_all(entry.class.as_bytes())?;
        file.write_all(entry.line)
    }

    /// Hands out all entries that `keep` lets pass, in their order. Other threads read ahead and sort.
    pub(super) fn drain(
        mut self,
        keep: &(dyn Fn(&Entry<'_>) -> bool + Sync),
        visit: &mut dyn FnMut(&Entry<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.files.iter_mut().try_for_each(Write::flush)?;
        self.files.clear();
        let folder = &self.folder;
        std::thread::scope(|scope| {
            let (sender, buckets) = sync_channel(AHEAD);
            scope.spawn(move || {
                for first in (0..BUCKETS).step_by(AHEAD) {
                    let some: Vec<_> = (first..first + AHEAD)
                        .into_par_iter()
                        .map(|n| bucket(&folder.join(format!("{n:03}")), keep))
                        .collect();
                    if some.into_iter().any(|bucket| sender.send(bucket).is_err()) {
                        return;
                    }
                }
            });
            for bucket in buckets {
                let (bytes, places) = bucket?;
                places.iter().filter_map(|&at| Entry::at(&bytes, at)).try_for_each(|(entry, _)| visit(&entry))?;
            }
            Ok(())
        })
    }
}

/// Buckets that are read and sorted at a time.
const AHEAD: usize = 4;

/// The bytes of a bucket and where in them the entries begin that `keep` lets pass, in their order. The file goes.
fn bucket(path: &Path, keep: &(dyn Fn(&Entry<'_>) -> bool + Sync)) -> io::Result<(Vec<u8>, Vec<usize>)> {
    let bytes = fs::read(path)?;
    fs::remove_file(path)?;
    let mut entries = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (entry, next) =
            Entry::at(&bytes, at).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a torn temporary file"))?;
        if keep(&entry) {
            entries.push((entry, at));
        }
        at = next;
    }
    entries.sort_unstable();
    let places = entries.into_iter().map(|e| e.1).collect();
    Ok((bytes, places))
}

impl<'a> Entry<'a> {
    /// The entry that begins at a place, and where the next one does.
    fn at(bytes: &'a [u8], at: usize) -> Option<(Self, usize)> {
        let (head, rest) = bytes.get(at..)?.split_first_chunk::<HEAD>()?;
        let number = |from: usize, to: usize| head[from..to].iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
        let (class, line) = (number(20, 24) as usize, number(24, 28) as usize);
        let class_bytes = rest.get(..class)?;
        let entry = Self {
            order: number(0, 8),
            line: rest.get(class..class + line)?,
            key: number(8, 16),
            unit: number(16, 20) as u32,
            class: std::str::from_utf8(class_bytes).ok()?,
        };
        Some((entry, at + HEAD + class + line))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::splitmix::SplitMix;

    #[test]
    fn entries_come_back_in_order_and_the_folder_goes() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("spool");
        let mut spool = Spool::create(&place).unwrap();
        let mut rng = SplitMix::new(1);
        let orders: Vec<u64> = (0..1000).map(|_| rng.next_u64()).collect();
        for (i, &order) in orders.iter().enumerate() {
            let (line, class) = (format!("row {i}"), format!("类{}", i % 3));
            let line = line.as_bytes();
            spool.add(&Entry { order, key: order ^ 1, unit: i as u32, class: &class, line }).unwrap();
        }
        let mut seen = Vec::new();
        let keep = |e: &Entry<'_>| e.unit.is_multiple_of(2);
        spool
            .drain(&keep, &mut |e| {
                assert_eq!(e.key, e.order ^ 1);
                assert_eq!(e.line, format!("row {}", e.unit).into_bytes());
                assert_eq!(e.class, format!("类{}", e.unit % 3));
                seen.push(e.order);
                Ok(())
            })
            .unwrap();
        let mut wanted: Vec<u64> = orders.into_iter().step_by(2).collect();
        wanted.sort_unstable();
        assert_eq!(seen, wanted);
        assert!(!place.exists());
    }
}
