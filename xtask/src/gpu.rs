//! What a machine with a GPU and without Rust needs to test and time this: binaries and one script, in a folder to copy there.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// The order is that in which it is cheapest to fail. `REHEARSE=1`: small, and without the tools that know no simulator.
const SCRIPT: &str = r#"#!/bin/sh
# Tests and timings on a GPU: ./run.sh [PATH/gpu_peer.py]. Everything is printed; the exit code is that of the first test to fail.
set -eu
cd "$(dirname "$0")"
export ECOM_REQUIRE_CUDA=1 RUST_BACKTRACE=0
peer=${1:-}
say() { printf '\n== %s\n' "$1"; }
say "what is here"
./ecom doctor
say "the instructions: what the kernels are written with"
./kernels self_test --test-threads=1
if [ "${REHEARSE:-}" ]; then
    say "each operation: a part, rehearsed"
    ./kernels layer_norm --test-threads=1
else
    say "each operation: its laws, at drawn sizes"
    ./kernels --test-threads=1
    if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck synccheck initcheck; do
            say "compute-sanitizer: $tool"
            PROPTEST_CASES=2 compute-sanitizer --tool $tool --error-exitcode 9 ./kernels gpu --test-threads=1
        done
    else
        say "compute-sanitizer is not here: skipped"
    fi
fi
say "a whole model: training and generation against the CPU"
./model --nocapture --test-threads=1
say "timings"
if [ "${REHEARSE:-}" ]; then ./bench --test; else ./bench; fi
if [ "$peer" ]; then
    for what in "roofline" "train --shape 560m --peer torch" "train --shape 560m --peer hf" "generate --shape 560m --peer hf"; do
        say "peer: $what"
        python3 "$peer" $what || echo "failed"
    done
fi
say "done"
"#;

/// Fills `gpu/` in the target folder and prints the command; or runs it here, small, on the simulator.
pub fn run(root: &Path, rehearse: bool) -> anyhow::Result<()> {
    let folder = crate::cuda::downloads().with_file_name("gpu");
    std::fs::create_dir_all(&folder)?;
    let profile: &[&str] = if rehearse { &[] } else { &["--release"] };
    let bench: &[&str] = if rehearse { &["--profile", "dev"] } else { &[] };
    for (name, command, options, target) in [
        ("kernels", "test", profile, &["-p", "kernels", "--lib"][..]),
        ("model", "test", profile, &["-p", "bloom", "--test", "cuda"]),
        ("bench", "bench", bench, &["-p", "ecom", "--bench", "gpu"]),
        ("ecom", "build", profile, &["-p", "ecom", "--bin", "ecom"]),
    ] {
        let binary = build(root, command, options, target)?;
        let to = folder.join(name);
        let _ = std::fs::remove_file(&to);
        std::fs::copy(&binary, &to).with_context(|| binary.display().to_string())?;
    }
    let script = folder.join("run.sh");
    std::fs::write(&script, SCRIPT)?;
    if !rehearse {
        writeln!(
            std::io::stdout(),
            "copy {} to a machine with a GPU, and there: sh run.sh [PATH/gpu_peer.py]",
            folder.display()
        )?;
        return Ok(());
    }
    let status =
        Command::new("sh").arg(&script).env("REHEARSE", "1").env("LD_LIBRARY_PATH", simulator(&folder)?).status()?;
    if status.success() { Ok(()) } else { bail!("{}: {status}", script.display()) }
}

/// Builds something and finds its executable in what cargo says.
fn build(root: &Path, command: &str, options: &[&str], target: &[&str]) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg(command).args(options).args(target).arg("--message-format=json").current_dir(root);
    if command != "build" {
        cargo.arg("--no-run");
    }
    let output = cargo.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("cargo {command} {}: {}", target.join(" "), output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let path = text.lines().rev().find_map(|line| line.split("\"executable\":\"").nth(1)?.split('"').next());
    Ok(path.context("cargo named no executable")?.into())
}

/// The folder of the simulated driver: the newest that the tests have built.
fn simulator(folder: &Path) -> anyhow::Result<PathBuf> {
    let built = folder.with_file_name("debug").join("simulator");
    let mut all: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(&built).with_context(|| built.display().to_string())? {
        let library = entry?.path().join("libcuda.so");
        if let Ok(meta) = library.metadata() {
            all.push((meta.modified()?, library));
        }
    }
    all.sort();
    let newest = all.pop().and_then(|(_, library)| library.parent().map(Path::to_path_buf));
    newest.context("no simulated driver: run `cargo test -p kernels` first")
}
