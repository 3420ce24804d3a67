//! Scalars for `TensorBoard`: event files, written by hand.
//!
//! A file is a row of records, each `length u64, crc of the length, data, crc of the data`, little-endian, with
//! masked CRC-32C (tensorflow `core/lib/io/record_writer.cc`, `core/lib/hash/crc32c.h`). The data is an `Event` of
//! `core/util/event.proto`, in protocol buffers' wire format.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

/// An event file of its own in a run's folder.
pub struct EventFile {
    out: BufWriter<File>,
    path: PathBuf,
    /// Nothing written yet, in a run that was begun by an earlier file.
    resumes: bool,
}

impl EventFile {
    /// A new file beside the earlier ones in `folder`, which is made if need be. `TensorBoard` reads the files of a
    /// folder in the order of their names and takes them for one run; the names count up.
    ///
    /// # Errors
    /// The folder or the file cannot be made.
    pub fn create(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("{}: cannot create the folder", folder.display()))?;
        for n in 1.. {
            let path = folder.join(format!("events.out.tfevents.{n:010}.ecom"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    let mut new = Self { out: BufWriter::new(file), path, resumes: n > 1 };
                    new.event(0, |event| bytes_field(event, 3, b"brain.Event:2"))?;
                    return Ok(new);
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).with_context(|| format!("{}: cannot create", path.display())),
            }
        }
        anyhow::bail!("{}: too many event files", folder.display())
    }

    /// Adds a value at a step. In a resumed run the first one makes `TensorBoard` forget what an earlier file says
    /// about this step and those after it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalar(&mut self, tag: &str, value: f32, step: u64) -> anyhow::Result<()> {
        if std::mem::take(&mut self.resumes) {
            // SessionLog { status: START }
            self.event(step, |event| bytes_field(event, 7, &[1 << 3, 1]))?;
        }
        let mut entry = Vec::new();
        bytes_field(&mut entry, 1, tag.as_bytes());
        entry.push(2 << 3 | FIXED32);
        entry.extend(value.to_le_bytes());
        let mut summary = Vec::new();
        bytes_field(&mut summary, 1, &entry);
        self.event(step, |event| bytes_field(event, 5, &summary))
    }

    /// Hands everything written so far to the system.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        self.out.flush().with_context(|| format!("{}: cannot write", self.path.display()))
    }

    fn event(&mut self, step: u64, what: impl FnOnce(&mut Vec<u8>)) -> anyhow::Result<()> {
        // A clock before 1970 is a broken one; the time is only shown.
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64());
        let mut event = vec![1 << 3 | FIXED64];
        event.extend(seconds.to_le_bytes());
        event.push(2 << 3);
        varint(&mut event, step);
        what(&mut event);
        self.out.write_all(&record(&event)).with_context(|| format!("{}: cannot write", self.path.display()))
    }
}

/// Wire types.
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

fn bytes_field(to: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    to.push(number << 3 | BYTES);
    varint(to, bytes.len() as u64);
    to.extend(bytes);
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), data, &masked_crc(data).to_le_bytes()].concat()
}

/// CRC-32C, rotated and offset so that a checksum of data with checksums in it is no weaker.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records of a file, after a check of every length and sum with a CRC of our own.
    fn records(path: &Path) -> Vec<Vec<u8>> {
        let bitwise = |bytes: &[u8]| {
            let mut crc = u32::MAX;
            for &byte in bytes {
                crc ^= u32::from(byte);
                for _ in 0..8 {
                    crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                }
            }
            let crc = !crc;
            crc.rotate_right(15).wrapping_add(0xa282_ead8)
        };
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut found = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk::<8>().unwrap();
            let (sum, after) = after.split_first_chunk::<4>().unwrap();
            assert_eq!(u32::from_le_bytes(*sum), bitwise(length));
            let (data, after) = after.split_at(u64::from_le_bytes(*length) as usize);
            let (sum, after) = after.split_first_chunk::<4>().unwrap();
            assert_eq!(u32::from_le_bytes(*sum), bitwise(data));
            found.push(data.to_vec());
            rest = after;
        }
        found
    }

    #[test]
    fn a_file_is_a_version_and_scalars_in_checked_records() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        let mut file = EventFile::create(&run).unwrap();
        file.scalar("loss", 1.5, 300).unwrap();
        file.flush().unwrap();
        let found = records(&run.join("events.out.tfevents.0000000001.ecom"));
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|event| event[0] == 0x09));
        assert_eq!(found[0][9..], *b"\x10\x00\x1a\x0dbrain.Event:2");
        // step = 300 is 0xac 0x02; the value's fields are the tag and 1.5 = 0x3fc00000.
        assert_eq!(found[1][9..], *b"\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\xc0\x3f");
        let time = f64::from_le_bytes(found[1][1..9].try_into().unwrap());
        assert!(time > 1.6e9);
    }

    #[test]
    fn a_resumed_run_has_a_later_file_that_says_where_it_starts() {
        let folder = tempfile::tempdir().unwrap();
        drop(EventFile::create(folder.path()).unwrap());
        let mut file = EventFile::create(folder.path()).unwrap();
        for step in 5..7 {
            file.scalar("loss", 0.0, step).unwrap();
        }
        drop(file);
        let found = records(&folder.path().join("events.out.tfevents.0000000002.ecom"));
        assert_eq!(found.len(), 4);
        assert_eq!(found[1][9..], [0x10, 5, 0x3a, 2, 0x08, 1]);
    }
}
