//! The real binary, in fresh folders, with tiny models that the tests train themselves: what it prints, what it leaves
//! behind, and what it does when something is wrong.

// Everything here is test code, which may stop at once; the lint table excuses only functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(clippy::format_collect, clippy::type_complexity)] // tables of damages, spelled where they are read

mod cli;
mod dataset;
mod decode;
mod faults;
mod gpu;
mod kill;
mod quantize;
mod training;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The binary under test.
const ECOM: &str = env!("CARGO_BIN_EXE_ecom");

/// A new model that trains in about a second.
const TINY: &str = "--hidden 32 --layers 2 --heads 4 --vocab 400 --batch 8 --tokens 512 --epochs 100 --log-every 1";

/// [`TINY`], but for the flags that `more` gives.
fn tiny(more: &str) -> String {
    let (given, defaults) = (words(more), words(TINY));
    let kept = defaults.chunks(2).filter(|pair| !given.contains(&pair[0]));
    kept.flatten().cloned().chain(given.clone()).collect::<Vec<_>>().join(" ")
}

/// What a command came to.
struct Ran {
    /// `None` if a signal ended it.
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    /// The same, if the command succeeded.
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self
    }

    /// What is wrong with this as a refusal: the exit code, then exactly one line that starts with `error:`, holds
    /// `says`, and is no trace of a panic. Nothing may be on stdout.
    fn refusal(&self, code: i32, says: &str) -> Result<(), String> {
        let errors: Vec<&str> = self.err.lines().filter(|l| l.starts_with("error:")).collect();
        let wrong = |what: &str| {
            Err(format!("{what}\n  wanted exit {code} and {says:?}\n  found exit {:?}\n{}", self.code, self.err))
        };
        match errors.as_slice() {
            _ if self.err.contains("panicked") || self.err.contains("stack backtrace") => wrong("a panic"),
            _ if self.code != Some(code) => wrong("another exit code"),
            [one] if !one.contains(says) => wrong("another message"),
            [_] if !self.out.is_empty() => wrong("something on stdout"),
            [_] => Ok(()),
            _ => wrong("not one line of error"),
        }
    }

    #[track_caller]
    fn refused(&self, code: i32, says: &str) {
        if let Err(what) = self.refusal(code, says) {
            panic!("{what}");
        }
    }
}

/// The words of a line, cut at spaces outside single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (i, part) in line.split('\'').enumerate() {
        if i % 2 == 1 {
            words.push(part.to_string());
        } else {
            words.extend(part.split_whitespace().map(String::from));
        }
    }
    words
}

/// `ecom` with the words of `line`, to be run in `dir`. A backtrace would show, and no setting of the caller does.
fn command(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(ECOM);
    command.current_dir(dir).args(words(line)).stdin(Stdio::null());
    command.env("RUST_BACKTRACE", "1").env("COLUMNS", "100");
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "RAYON_NUM_THREADS"] {
        command.env_remove(name);
    }
    command
}

fn finish(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs `ecom` in `dir`.
fn ecom(dir: &Path, line: &str) -> Ran {
    finish(command(dir, line))
}

/// Runs a shell script in `dir`, in which `$ECOM` is the binary: for limits, pipes and the like.
fn shell(dir: &Path, script: &str) -> Ran {
    let mut sh = Command::new("sh");
    sh.current_dir(dir).args(["-c", script]).env("ECOM", ECOM).env("RUST_BACKTRACE", "1").stdin(Stdio::null());
    finish(sh)
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Compares with `snapshots/NAME.txt`: the exit code, stdout and stderr. `ECOM_BLESS=1` writes it instead. Only for what
/// does not depend on the machine.
#[track_caller]
fn snapshot(name: &str, ran: &Ran) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/e2e/snapshots/{name}.txt"));
    let code = ran.code.map_or("signal".into(), |c| c.to_string());
    let found = format!("exit {code}\n--- stdout\n{}--- stderr\n{}", ran.out, ran.err);
    if std::env::var_os("ECOM_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, found).unwrap();
        return;
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    let differs = wanted.lines().zip(found.lines()).position(|(w, f)| w != f);
    let line = differs.unwrap_or(wanted.lines().count().min(found.lines().count()));
    assert!(
        wanted == found,
        "{} differs from line {} on; ECOM_BLESS=1 accepts this:\n{found}",
        path.display(),
        line + 1
    );
}

/// `n` instructions of three tasks, in the project's own form.
fn rows(n: usize) -> Vec<Value> {
    let (things, colours) = (["bag", "shoe", "lamp", "scarf", "kettle"], ["red", "blue", "green", "black"]);
    let brands = ["Aro", "Bex", "Cimo", "Duna"];
    let row = |i: usize| {
        let (thing, colour, brand) = (things[i % 5], colours[i % 4], brands[i / 4 % 4]);
        let input = format!("{brand} {colour} {thing} no. {i}{}", ", soft and light".repeat(i % 3));
        let (task, paradigm, description, prompt, output) = match i % 3 {
            0 => ("F01", "CLS", "product colour", "Which colour is it?", colour.to_string()),
            1 => ("F02", "EXT", "brand extraction", "Name the brand.", brand.to_string()),
            _ => ("F03", "GEN", "title", "Write a short title.", format!("{colour} {thing} by {brand}")),
        };
        let candidates: &[&str] = if i.is_multiple_of(3) { &colours } else { &[] };
        json!({
            "id": format!("row-{i:02}"), "task": task, "paradigm": paradigm, "description": description,
            "prompt": prompt, "input": input, "candidates": candidates, "output": output,
        })
    };
    (0..n).map(row).collect()
}

/// Values as JSON Lines.
fn lines(rows: &[Value]) -> String {
    rows.iter().fold(String::new(), |mut text, row| {
        let _ = writeln!(text, "{row}");
        text
    })
}

fn write_rows(path: &Path, n: usize) {
    fs::write(path, lines(&rows(n))).unwrap();
}

/// A folder with `rows.jsonl`, and in `run` a model trained on it for 60 steps, with checkpoints of steps 58 and 60. One
/// for all tests, which copy what they change.
fn trained() -> &'static Path {
    static TRAINED: OnceLock<PathBuf> = OnceLock::new();
    TRAINED.get_or_init(|| {
        // A static is never dropped: this folder stays, and the next run takes it away.
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e");
        for old in fs::read_dir(&all).into_iter().flatten().flatten() {
            if !Path::new("/proc").join(old.file_name()).exists() {
                fs::remove_dir_all(old.path()).unwrap();
            }
        }
        let dir = all.join(std::process::id().to_string());
        fs::create_dir_all(&dir).unwrap();
        write_rows(&dir.join("rows.jsonl"), 40);
        ecom(&dir, &format!("train --data rows.jsonl --output run {TRAINED_AS}")).ok();
        dir
    })
}

/// The settings of [`trained`].
const TRAINED_AS: &str = "--hidden 32 --layers 2 --heads 4 --vocab 400 --batch 8 --tokens 512 --epochs 100 --log-every 1 \
                          --steps 60 --lr 0.01 --save-every 2";

/// Copies a file, or a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}

/// Every file below a folder by its path, with its SHA-256; folders with an empty one.
fn tree(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            if path.is_dir() {
                found.insert(name, String::new());
                folders.push(path);
            } else if path.is_file() {
                found.insert(name, sha256(&path));
            }
        }
    }
    found
}

fn sha256(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Sha256::digest(&bytes).iter().fold(String::new(), |mut hex, b| {
        let _ = write!(hex, "{b:02x}");
        hex
    })
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{l}: {e}"))).collect()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Changes a JSON file.
fn edit_json(path: &Path, change: impl FnOnce(&mut Map<String, Value>)) {
    let mut value = read_json(path);
    change(value.as_object_mut().unwrap());
    fs::write(path, value.to_string()).unwrap();
}

/// A safetensors file taken apart, to be changed byte by byte: what writes it again checks nothing.
struct Raw {
    header: Map<String, Value>,
    data: Vec<u8>,
}

impl Raw {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        Self { header: serde_json::from_slice(&bytes[8..8 + length]).unwrap(), data: bytes[8 + length..].to_vec() }
    }

    fn write(&self, path: &Path) {
        let header = Value::from(self.header.clone()).to_string();
        fs::write(path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &self.data].concat()).unwrap();
    }

    /// Changes the file at `path`.
    fn edit(path: &Path, change: impl FnOnce(&mut Self)) {
        let mut raw = Self::read(path);
        change(&mut raw);
        raw.write(path);
    }

    fn info(&mut self, name: &str) -> &mut Map<String, Value> {
        self.header.get_mut(name).unwrap_or_else(|| panic!("no tensor {name}")).as_object_mut().unwrap()
    }

    /// Changes an f32 tensor's numbers.
    fn numbers(&mut self, name: &str, change: impl FnOnce(&mut [f32])) {
        let at: [usize; 2] = serde_json::from_value(self.info(name)["data_offsets"].clone()).unwrap();
        let bytes = &mut self.data[at[0]..at[1]];
        let mut numbers: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        change(&mut numbers);
        for (b, x) in bytes.chunks_exact_mut(4).zip(&numbers) {
            b.copy_from_slice(&x.to_le_bytes());
        }
    }

    /// Adds a tensor of zeros at the end.
    fn add(&mut self, name: &str, shape: &[usize]) {
        let start = self.data.len();
        self.data.resize(start + 4 * shape.iter().product::<usize>(), 0);
        let offsets = [start, self.data.len()];
        self.header.insert(name.into(), json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets }));
    }
}
