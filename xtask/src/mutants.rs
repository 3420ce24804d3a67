//! Bugs planted in the kernels, one at a time in a copy of them, and which of the kernels' tests and the simulator's checks finds
//! each. What is planted is listed in `kernels/mutants.tsv`, what came of it in `docs/MUTANTS.md`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

const TABLE: &str = "kernels/mutants.tsv";
const REPORT: &str = "docs/MUTANTS.md";
/// Longer than any kernel's tests take, bug or not.
const PATIENCE: Duration = Duration::from_mins(5);

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

    /// The tests that may find it.
    fn tests(&self) -> &str {
        match self.file.split_once('/') {
            // What all kernels share is tested by those that use it.
            Some(("cuda", "device.cuh")) => "layer_norm",
            Some(("cuda", _)) => "cuda::self_test",
            Some((folder, _)) => folder,
            None => "",
        }
    }

    /// The operation that it is in, or that is tested for it.
    fn folder(&self) -> &str {
        self.tests().split("::").next().unwrap_or_default()
    }

    fn plant(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(&self.file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let times = text.matches(&self.from).count();
        if times != 1 {
            bail!("{TABLE}: {}: wanted this once, found {times} times: {}", self.file, self.from);
        }
        Ok(std::fs::write(&path, text.replace(&self.from, &self.to))?)
    }
}

/// Plants the bugs, those in files whose name holds `only` if it is given. Each must be found; all together keep the report.
pub fn run(root: &Path, only: Option<&str>) -> anyhow::Result<()> {
    let table = std::fs::read_to_string(root.join(TABLE)).context(TABLE)?;
    let lines = table.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    let mut mutants = lines.map(Mutant::read).collect::<anyhow::Result<Vec<_>>>()?;
    mutants.retain(|m| only.is_none_or(|only| m.file.contains(only)));
    let mut report = String::from(
        "# Planted bugs\n\nBugs planted in the kernels one at a time, and what finds each: in a plain run on the five simulated GPUs, and in one that \
         checks each\naccess to memory (`ECOM_SIM_CHECK=1`). *Value* is a test's tolerance or law; what else is named is the simulator's own check. Made \
         by\n`cargo xtask mutants` from `kernels/mutants.tsv`.\n\n| file | kind | instead of | stands | plain | checked |\n|---|---|---|---|---|---|\n",
    );
    let mut missed = Vec::new();
    for mutant in &mutants {
        let copy = copy_of_kernels(root, mutant.folder())?;
        mutant.plant(&copy)?;
        let found = [false, true].map(|checked| find(root, &copy, mutant.tests(), checked));
        let [plain, checked] = found;
        let (plain, checked) = (plain?, checked?);
        let code = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        let line = format!(
            "| {} | {} | `{}` | `{}` | {} | {} |",
            mutant.file,
            mutant.kind,
            code(&mutant.from),
            code(&mutant.to),
            plain.as_deref().unwrap_or("-"),
            checked.as_deref().unwrap_or("-")
        );
        let _ = writeln!(std::io::stderr(), "{line}");
        let _ = writeln!(report, "{line}");
        if plain.is_none() && checked.is_none() {
            missed.push(line);
        }
    }
    let _ = writeln!(report, "\n{} bugs, {} found.", mutants.len(), mutants.len() - missed.len());
    if only.is_none() {
        std::fs::write(root.join(REPORT), report)?;
    }
    if missed.is_empty() { Ok(()) } else { bail!("not found:\n{}", missed.join("\n")) }
}

/// An operation's kernels and what all share, copied to where they can be spoiled. The others are left out: they would be
/// compiled too.
fn copy_of_kernels(root: &Path, operation: &str) -> anyhow::Result<PathBuf> {
    let copy = crate::cuda::downloads().join("mutants").join(operation);
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
            if file.extension().is_some_and(|e| e == "cu" || e == "cuh" || e == "ptx") {
                std::fs::copy(&file, to.join(file.file_name().unwrap_or_default()))?;
            }
        }
    }
    Ok(copy.canonicalize()?)
}

/// What finds the bug: a check by name and place, or `value`; `None` if the tests pass.
fn find(root: &Path, copy: &Path, tests: &str, checked: bool) -> anyhow::Result<Option<String>> {
    let log = copy.join("log.txt");
    let file = std::fs::File::create(&log)?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--quiet", "-p", "kernels", "--lib", "--", tests]).current_dir(root);
    command.env("ECOM_SIM_SOURCES", copy).env("ECOM_REQUIRE_SIM", "1").env("RUST_BACKTRACE", "0");
    // The first failure will do.
    command.env("PROPTEST_MAX_SHRINK_ITERS", "0").env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
    if checked {
        command.env("ECOM_SIM_CHECK", "1");
    }
    let mut child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Ok(Some("does not end".into()));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let log = std::fs::read_to_string(&log)?;
    if status.success() {
        return Ok(None);
    }
    if !log.contains("test result: FAILED") && !log.contains("simulated GPU: ") {
        bail!("the tests did not run:\n{log}");
    }
    Ok(Some(log.lines().find_map(check).unwrap_or_else(|| "value".into())))
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
    } else if says(&["not waited for", "before it has waited"]) {
        "wait"
    } else if says(&["nobody can go on", "while other"]) {
        "barrier"
    } else {
        return None;
    };
    let place = fault.split(' ').find(|word| word.contains(".cu") && word.contains(':'));
    Some(format!("{name} {}", place.unwrap_or_default().trim_end_matches(':')).trim().to_owned())
}
