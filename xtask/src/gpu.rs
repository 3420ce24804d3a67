//! What a machine with a GPU and without Rust needs to test and time this: binaries and one script, in a folder to copy there.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// The order is that in which it is cheapest to fail. `REHEARSE=1`: small, and without the tools that know no simulator. `SKIPS`
/// stands for [`crate::skips`].
const SCRIPT: &str = r#"#!/bin/sh
# Tests and timings on a GPU: ./run.sh [PATH/gpu_peer.py]. Everything is printed; the exit code is that of the first test to fail.
set -eu
cd "$(dirname "$0")"
export ECOM_REQUIRE_CUDA=1 RUST_BACKTRACE=0 PROPTEST_DISABLE_FAILURE_PERSISTENCE=1
unset ECOM_REQUIRE_SIM ECOM_SIM_CHECK
peer=${1:-}
say() { printf '\n== %s\n' "$1"; }
say "what is here"
./ecom doctor || { code=$?; echo "run.sh: no GPU that can be used, nothing is run" >&2; exit $code; }
failed=0
# What fails does not keep the rest from being learned.
try() { "$@" || { code=$?; say "failed ($code): $*"; [ $failed -ne 0 ] || failed=$code; }; }
say "the instructions: what the kernels are written with"
try ./kernels self_test --test-threads=1
if [ "${REHEARSE:-}" ]; then
    say "each operation: a part, rehearsed"
    try ./kernels layer_norm --test-threads=1
else
    say "each operation: its laws, at drawn sizes"
    try ./kernels --test-threads=1
fi
say "a whole model: training and generation against the CPU"
# The loss curve is one of its tests; the CPU takes minutes for its own.
[ "${REHEARSE:-}" ] || export ECOM_CURVE=560m
try ./model --nocapture --test-threads=1
say "timings"
if [ "${REHEARSE:-}" ]; then
    try ./bench --test
    # Of the simulated GPUs the first of that kind.
    try env ECOM_SIM_GPU=3 ./bench --test --hopper
else
    # A process each: freed memory stays with one, and what fails fails alone.
    for shape in 560m 1b7 7b1; do try ./bench $shape; done
    say "timings with the kernels for compute capability 9.0 alone"
    for shape in 560m 1b7 7b1; do try ./bench $shape --hopper; done
fi
if [ "$peer" ]; then
    say "peer: roofline"
    try python3 "$peer" roofline
    for shape in 560m 1b7 7b1; do
        # Not all of them fit in every GPU.
        for what in "train --peer torch" "train --peer hf" "generate --peer hf"; do
            say "peer: $what --shape $shape"
            python3 "$peer" $what --shape $shape || echo "failed"
        done
    done
fi
if [ "${REHEARSE:-}" ]; then
    :
elif command -v compute-sanitizer >/dev/null; then
    # Last, as it is slow.
    export PROPTEST_CASES=2
    for tool in memcheck racecheck synccheck initcheck; do
        say "compute-sanitizer: $tool"
        # Tests provoke errors of the driver, which are no findings.
        [ $tool = memcheck ] && quiet="--report-api-errors no" || quiet=
        try compute-sanitizer --tool $tool $quiet --error-exitcode 9 ./kernels SKIPS --test-threads=1
    done
else
    say "compute-sanitizer is not here: skipped"
fi
say "done"
exit $failed
"#;

/// Fills `gpu/` in the target folder and prints the command; or runs it here, small, on the simulator.
pub fn run(root: &Path, rehearse: bool) -> anyhow::Result<()> {
    let folder = crate::cuda::downloads().with_file_name("gpu");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let profile = if rehearse { "dev" } else { "release" };
    // In one command, so that nothing is built twice. A bench brings its package's programs along.
    let built = build(
        root,
        &["test", "--no-run", "--profile", profile],
        &["-p", "kernels", "-p", "bloom", "-p", "ecom", "--lib", "--test", "cuda", "--bench", "gpu"],
    )?;
    for (target, name) in [("kernels", "kernels"), ("cuda", "model"), ("gpu", "bench"), ("ecom", "ecom")] {
        let binary = executable(&built, target)?;
        std::fs::copy(binary, folder.join(name)).with_context(|| binary.display().to_string())?;
    }
    let script = folder.join("run.sh");
    std::fs::write(&script, SCRIPT.replace("SKIPS", &crate::skips()))?;
    if !rehearse {
        writeln!(
            std::io::stdout(),
            "copy {} to a machine with a GPU, and there: sh run.sh [PATH/gpu_peer.py]",
            folder.display()
        )?;
        return Ok(());
    }
    let mut script_here = Command::new("sh");
    script_here.arg(&script).env("REHEARSE", "1").env("LD_LIBRARY_PATH", simulator(root)?);
    let status = script_here.status()?;
    if status.success() { Ok(()) } else { bail!("{}: {status}", script.display()) }
}

/// Builds something; the executables that cargo tells of.
pub fn build(root: &Path, command: &[&str], targets: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(command).args(targets).arg("--message-format=json").current_dir(root);
    let output = cargo.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("cargo {} {}: {}", command.join(" "), targets.join(" "), output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let path = |line: &str| Some(line.split("\"executable\":\"").nth(1)?.split('"').next()?.into());
    Ok(text.lines().filter_map(path).collect())
}

/// That of a program, or of a test or bench, whose file's name goes on with a hash.
pub fn executable<'a>(built: &'a [PathBuf], target: &str) -> anyhow::Result<&'a Path> {
    let named = |path: &&PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.split('-').next() == Some(target)
    };
    built.iter().find(named).map(PathBuf::as_path).with_context(|| format!("cargo told of no executable {target}"))
}

/// The folder of the simulated driver, built if it is not there.
fn simulator(root: &Path) -> anyhow::Result<PathBuf> {
    let built = build(root, &["build"], &["-p", "simulator", "--example", "folder"])?;
    let output = Command::new(executable(&built, "folder")?).stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("no simulated driver: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().into())
}
