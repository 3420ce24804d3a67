//! Made instructions wait on disk, spread over buckets by a random order, until it is known which of them stay. So the
//! output is shuffled as a whole, and only one bucket of it is ever in memory.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Buckets. With 2.5 million instructions of 800 bytes, one holds 8 MB.
const BUCKETS: usize = 256;

/// One waiting instruction.
#[derive(Debug)]
pub(super) struct Entry {
    /// Place in the output: smaller first.
    pub(super) order: u64,
    pub(super) key: u64,
    pub(super) unit: u32,
    pub(super) class: String,
    /// The row as it is written.
    pub(super) line: Vec<u8>,
}

/// The buckets of one build, in a folder that goes when this does.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    files: Vec<BufWriter<File>>,
}

impl Spool {
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let open = |n| Ok(BufWriter::with_capacity(1 << 15, File::create(folder.join(format!("{n:03}")))?));
        Ok(Self { folder: folder.to_path_buf(), files: (0..BUCKETS).map(open).collect::<io::Result<_>>()? })
    }

    pub(super) fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let bucket = (entry.order >> 56) as usize * BUCKETS / 256;
        let Some(file) = self.files.get_mut(bucket) else { return Ok(()) };
        file.write_all(&entry.order.to_le_bytes())?;
        file.write_all(&entry.key.to_le_bytes())?;
        file.write_all(&entry.unit.to_le_bytes())?;
        file.write_all(&(entry.class.len() as u32).to_le_bytes())?;
        file.write_all(&(entry.line.len() as u32).to_le_bytes())?;
        file.write_all(entry.class.as_bytes())?;
        file.write_all(&entry.line)
    }

    /// Hands out all entries that `keep` lets pass, in their order.
    pub(super) fn drain(
        mut self,
        keep: &dyn Fn(&Entry) -> bool,
        visit: &mut dyn FnMut(Entry) -> io::Result<()>,
    ) -> io::Result<()> {
        self.files.iter_mut().try_for_each(Write::flush)?;
        self.files.clear();
        for n in 0..BUCKETS {
            let path = self.folder.join(format!("{n:03}"));
            let mut file = BufReader::with_capacity(1 << 18, File::open(&path)?);
            let mut entries = Vec::new();
            let mut head = [0u8; 28];
            loop {
                match file.read_exact(&mut head) {
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
                    Err(e) => return Err(e),
                }
                let u64_at = |at: usize| head[at..at + 8].iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
                let u32_at = |at: usize| head[at..at + 4].iter().rev().fold(0u32, |n, &b| n << 8 | u32::from(b));
                let mut class = vec![0; u32_at(20) as usize];
                file.read_exact(&mut class)?;
                let mut line = vec![0; u32_at(24) as usize];
                file.read_exact(&mut line)?;
                let class = String::from_utf8(class).map_err(io::Error::other)?;
                let entry = Entry { order: u64_at(0), key: u64_at(8), unit: u32_at(16), class, line };
                if keep(&entry) {
                    entries.push(entry);
                }
            }
            fs::remove_file(&path)?;
            entries.sort_by(|a, b| (a.order, &a.line).cmp(&(b.order, &b.line)));
            entries.into_iter().try_for_each(&mut *visit)?;
        }
        Ok(())
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
            let line = format!("row {i}").into_bytes();
            spool.add(&Entry { order, key: order ^ 1, unit: i as u32, class: format!("类{}", i % 3), line }).unwrap();
        }
        let mut seen = Vec::new();
        let keep = |e: &Entry| e.unit.is_multiple_of(2);
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
