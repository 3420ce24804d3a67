//! Bugs planted in the kernels, one at a time in a copy of them, and which of the kernels' tests and the simulator's checks finds
//! each. What is planted is listed in `kernels/mutants.tsv`, what came of it in `docs/MUTANTS.md`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::gpu;

const TABLE: &str = "kernels/mutants.tsv";
const REPORT: &str = "docs/MUTANTS.md";
/// Longer than any test takes, with the compiler, bug or not.
const PATIENCE: Duration = Duration::from_mins(10);

/// One bug.
struct Mutant {
    file: String,
    kind: String,
    from: String,
    to: String,
}

impl Mutant {
    fn read(line: &str) -> anyhow::Result<Self> {
        let fields: Vec<String> = line.split('\t').map(|f| f.replace("\\n", "\n")).collect();
        let [file, kind, from, to] = <[String; 4]>::try_from(fields)
            .map_err(|fields| anyhow::anyhow!("{TABLE}: wanted 4 fields, found {}: {line}", fields.len()))?;
        Ok(Self { file, kind, from, to })
    }

    /// The operation that it is in, whose tests may find it. What all kernels share is tested by those that use it.
    fn operation(&self) -> &str {
        match self.file.as_str() {
            "cuda/device.cuh" => return "layer_norm",
            "cuda/hopper.cuh" => return "linear",
            _ => {}
        }
        self.file.split('/').next().unwrap_or_default()
    }

    /// Whether it is in a kernel for compute capability 9.0 alone, which tests of others do not launch.
    fn hopper(&self) -> bool {
        self.file.contains("hopper")
    }

    /// Whether the checked run has something to say when the plain one has found the bug: where it is.
    fn has_a_place(&self) -> bool {
        ["race", "bounds", "wait", "arrivals", "barrier", "unwritten", "alignment"].contains(&self.kind.as_str())
    }

    /// Its file's text with it.
    fn spoil(&self, folder: &Path) -> anyhow::Result<String> {
        let path = folder.join(&self.file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let times = text.matches(&self.from).count();
        if times != 1 {
            bail!("{TABLE}: {}: wanted this once, found {times} times: {}", self.file, self.from);
        }
        Ok(text.replace(&self.from, &self.to))
    }

    /// The beginning of its row in the report.
    fn row(&self) -> String {
        let code = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        format!("| {} | {} | `{}` | `{}` |", self.file, self.kind, code(&self.from), code(&self.to))
    }
}

/// Plants the bugs, those in files whose name holds `only` if it is given. Each must be found. The report keeps what it says of the
/// others.
pub fn run(root: &Path, only: Option<&str>) -> anyhow::Result<()> {
    let mutants = read(root)?;
    let known = std::fs::read_to_string(root.join(REPORT)).unwrap_or_default();
    let mut report = String::from(
        "# Planted bugs\n\nBugs planted in the kernels one at a time, and what finds each: in a plain run on the five simulated GPUs, and in one that \
         checks each\naccess to memory (`ECOM_SIM_CHECK=1`). *Value* is a test's tolerance or law, *crash* the end of the program by memory that it \
         spoiled;\nwhat else is named is the simulator's own check. The checked run is left out where a plain one has found a bug of the kind \
         *value*.\nMade by `cargo xtask mutants` from `kernels/mutants.tsv`.\n\n| file | kind | instead of | stands | plain | checked |\n|---|---|---|---|---|---|\n",
    );
    let tests = Tests::build(root)?;
    let (mut missed, mut unknown) = (Vec::new(), 0);
    for mutant in &mutants {
        let row = mutant.row();
        let line = if only.is_none_or(|only| mutant.file.contains(only)) {
            let found = tests.find_in_both(root, mutant);
            let line = match &found {
                Ok([plain, checked]) => format!("{row} {plain} | {checked} |"),
                Err(e) => format!("{row} {e:#} | |"),
            };
            let _ = writeln!(std::io::stderr(), "{line}");
            if found.is_err() || line.ends_with("| - | - |") {
                missed.push(line.clone());
            }
            line
        } else if let Some(line) = known.lines().find(|line| line.starts_with(&row)) {
            line.to_owned()
        } else {
            unknown += 1;
            continue;
        };
        let _ = writeln!(report, "{line}");
    }
    if !missed.is_empty() {
        bail!("not found:\n{}", missed.join("\n"));
    }
    if unknown > 0 {
        bail!("{REPORT}: not written, as it says nothing of {unknown} others: run them all");
    }
    let _ = writeln!(report, "\n{} bugs, all found.", mutants.len());
    Ok(std::fs::write(root.join(REPORT), report)?)
}

/// All in the table, each of which fits the kernels as they are.
fn read(root: &Path) -> anyhow::Result<Vec<Mutant>> {
    let table = std::fs::read_to_string(root.join(TABLE)).context(TABLE)?;
    let lines = table.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    let mutants = lines.map(Mutant::read).collect::<anyhow::Result<Vec<_>>>()?;
    mutants.iter().try_for_each(|mutant| mutant.spoil(&root.join("kernels/src")).map(drop))?;
    Ok(mutants)
}

/// Where all of this happens.
fn folder() -> anyhow::Result<PathBuf> {
    let folder = crate::cuda::downloads().join("mutants");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// An operation's kernels and what all share, copied to where they can be spoiled. The others are left out: they would be
/// compiled too; so are those that the tests do not launch.
fn copy_of_kernels(root: &Path, mutant: &Mutant) -> anyhow::Result<PathBuf> {
    let operation = mutant.operation();
    let copy = folder()?.join(operation);
    let _ = std::fs::remove_dir_all(&copy);
    for folder in std::fs::read_dir(root.join("kernels/src"))? {
        let folder = folder?.path();
        let name = folder.file_name().unwrap_or_default();
        // The head's products are the linear layer's.
        let needed = name == operation || name == "cuda" || (operation == "cross_entropy" && name == "linear");
        if !folder.is_dir() || !needed {
            continue;
        }
        let to = copy.join(folder.file_name().unwrap_or_default());
        std::fs::create_dir_all(&to)?;
        for file in std::fs::read_dir(&folder)? {
            let file = file?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let launched = !mutant.hopper() || ["hopper", "decode", "linear."].iter().any(|part| name.contains(part));
            let wanted = file.extension().is_some_and(|e| e == "cuh" || launched && (e == "cu" || e == "ptx"));
            if wanted {
                std::fs::copy(&file, to.join(file.file_name().unwrap_or_default()))?;
            }
        }
    }
    Ok(copy.canonicalize()?)
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Plain,
    Checked,
}

/// The kernels' tests, built once.
struct Tests {
    /// In a folder of its own, as what it compiles is kept beside it.
    program: PathBuf,
    /// Where cargo would run it.
    folder: PathBuf,
    names: Vec<String>,
}

impl Tests {
    fn build(root: &Path) -> anyhow::Result<Self> {
        let built = gpu::build(root, &["test", "--no-run"], &["-p", "kernels", "--lib"])?;
        let home = folder()?;
        let program = home.join("kernels");
        std::fs::copy(gpu::executable(&built, "kernels")?, &program)?;
        let output = Command::new(&program).args(["--list", "--format", "terse"]).output()?;
        let list = String::from_utf8_lossy(&output.stdout);
        let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
        let mut names: Vec<String> =
            names.filter(|name| !crate::NO_GPU.iter().any(|part| name.contains(part))).map(str::to_owned).collect();
        // Those first that find most.
        names.sort_by_key(|name| !name.contains("gpu"));
        Ok(Self { program, folder: root.join("kernels"), names })
    }

    /// What a plain and a checked run find, as the report has it.
    fn find_in_both(&self, root: &Path, mutant: &Mutant) -> anyhow::Result<[String; 2]> {
        let copy = copy_of_kernels(root, mutant)?;
        std::fs::write(copy.join(&mutant.file), mutant.spoil(&copy)?)?;
        let plain = self.find(&copy, mutant, Mode::Plain)?;
        let nothing = || "-".to_owned();
        if plain.is_some() && !mutant.has_a_place() {
            return Ok([plain.unwrap_or_else(nothing), String::new()]);
        }
        let checked = self.find(&copy, mutant, Mode::Checked)?;
        Ok([plain, checked].map(|found| found.unwrap_or_else(nothing)))
    }

    /// What finds the bug: a check by name and place, or `value`; `None` if the operation's tests pass.
    fn find(&self, copy: &Path, mutant: &Mutant, mode: Mode) -> anyhow::Result<Option<String>> {
        // One after the other, as the first failure will do.
        let may_find = |name: &&String| {
            name.split("::").next() == Some(mutant.operation()) && (!mutant.hopper() || name.contains("hopper"))
        };
        for name in self.names.iter().filter(may_find) {
            let log = copy.join("log.txt");
            let file = std::fs::File::create(&log)?;
            let mut command = Command::new(&self.program);
            command.args(["--exact", name]).current_dir(&self.folder);
            command.env("ECOM_SIM_SOURCES", copy).env("ECOM_REQUIRE_SIM", "1").env("RUST_BACKTRACE", "0");
            command.env("PROPTEST_MAX_SHRINK_ITERS", "0").env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
            if mode == Mode::Checked {
                command.env("ECOM_SIM_CHECK", "1");
            }
            let started = Instant::now();
            let mut child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
            let status = loop {
                if let Some(status) = child.try_wait()? {
                    break status;
                }
                if started.elapsed() > PATIENCE {
                    child.kill()?;
                    child.wait()?;
                    return Ok(Some("does not end".into()));
                }
                std::thread::sleep(Duration::from_millis(20));
            };
            if status.success() {
                continue;
            }
            let log = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
            let crash = status.code().is_none();
            // A bug that does not compile is none.
            if !(crash || log.contains("test result: FAILED")) || log.contains("simulated GPUs: ") {
                bail!("{name} did not run: {}", log.replace('\n', " "));
            }
            let other = if crash { "crash" } else { "value" };
            return Ok(Some(log.lines().find_map(check).unwrap_or_else(|| other.into())));
        }
        Ok(None)
    }
}

/// Names the check that a fault is told by, with its place.
fn check(line: &str) -> Option<String> {
    let fault = line.split("simulated GPU: ").nth(1)?;
    let says = |parts: &[&str]| parts.iter().any(|part| fault.contains(part));
    let name = if says(&["race: "]) {
        "race"
    } else if says(&["out of bounds", "past the end", "before the start", "beyond an allocation"]) {
        "bounds"
    } else if says(&["misaligned", "no multiple of"]) {
        "alignment"
    } else if says(&["nothing has written"]) {
        "unwritten"
    } else if says(&["not waited for", "before it has waited", "not published"]) {
        "wait"
    } else if says(&["are expected", "expected do not come", "said what to expect"]) {
        "arrivals"
    } else if says(&["nobody can go on", "while other", "was not there"]) {
        "barrier"
    } else {
        return None;
    };
    let place = fault.split(' ').find(|word| word.contains(".cu") && word.contains(':'));
    Some(format!("{name} {}", place.unwrap_or_default().trim_end_matches(':')).trim().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // how a test fails
mod tests {
    use super::*;

    /// Without running any of them: that takes hours.
    #[test]
    fn each_bug_fits_the_kernels_and_is_in_the_report() {
        let root = crate::root();
        let report = std::fs::read_to_string(root.join(REPORT)).unwrap();
        let mutants = read(&root).unwrap();
        assert!(report.contains(&format!("\n{} bugs, all found.", mutants.len())));
        for row in mutants.iter().map(Mutant::row) {
            assert!(report.lines().any(|line| line.starts_with(&row)), "{REPORT} lacks {row}");
        }
    }
}
