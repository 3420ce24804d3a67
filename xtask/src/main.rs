//! Developer chores: `cargo xtask ci` runs all that CI runs, `cargo xtask tidy` the rules that no compiler checks, `cargo xtask
//! ptx` and `cargo xtask nvcc` what is compiled from the CUDA kernels (`--check` compares it with the tree), `cargo xtask
//! mutants` plants bugs in the kernels to see them found, `cargo xtask gpu` packs the tests and timings for a machine with a GPU.

mod cuda;
mod gpu;
mod mutants;
mod tidy;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, anyhow, bail};

/// In the names of those tests of the kernels that take long and have nothing to do with GPUs.
const NO_GPU: [&str; 4] = ["the_cpu_", "number_of_threads_changes", "of_the_reference", "three_hundred_tokens"];

fn main() -> ExitCode {
    let chore = std::env::args().nth(1).unwrap_or_default();
    let mode = match std::env::args().nth(2).as_deref() {
        None => Ok(cuda::Mode::Write),
        Some("--check") => Ok(cuda::Mode::Check),
        Some(other) => Err(anyhow!("no such argument: {other}")),
    };
    let done = match chore.as_str() {
        "ci" => ci(),
        "tidy" => tidy::check(&root()),
        "ptx" => mode.and_then(|mode| cuda::ptx(&root(), mode)),
        "gpu" => gpu::run(&root(), std::env::args().nth(2).as_deref() == Some("--rehearse")),
        "mutants" => mutants::run(&root(), std::env::args().nth(2).as_deref()),
        "nvcc" => mode.and_then(|mode| cuda::nvcc(&root(), mode)),
        _ => Err(anyhow!(
            "usage: cargo xtask ci | tidy | ptx [--check] | nvcc [--check] | mutants [FILE] | gpu [--rehearse]"
        )),
    };
    let Err(e) = done else { return ExitCode::SUCCESS };
    let _ = writeln!(std::io::stderr(), "{e:#}");
    ExitCode::FAILURE
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Everything that CI runs, in the order in which it is cheapest to fail.
fn ci() -> anyhow::Result<()> {
    tidy::check(&root())?;
    cargo("fmt --all --check", &[])?;
    cargo("clippy --workspace --all-targets -- -D warnings", &[])?;
    cargo("test --workspace", &[])?;
    cargo("doc --workspace --no-deps --quiet", &[("RUSTDOCFLAGS", "-D warnings")])?;
    cuda::ptx(&root(), cuda::Mode::Check)?;
    cuda::nvcc(&root(), cuda::Mode::Check)?;
    // Each bench once, to see that it runs; times are for machines that are not shared.
    cargo("bench -p ecom -- --test", &[])?;
    if no_simulator() {
        writeln!(
            std::io::stderr(),
            "skipped: no g++ to check the kernels' accesses to memory and to rehearse on simulated GPUs"
        )?;
        return Ok(());
    }
    let skips = skips();
    cargo(&format!("test --package kernels --lib -- {skips}"), &[("ECOM_SIM_CHECK", "1")])?;
    // What goes to a machine with a GPU.
    gpu::run(&root(), true)
}

/// Whether there is no g++ for simulated GPUs, and need not be.
fn no_simulator() -> bool {
    std::env::var_os("ECOM_REQUIRE_SIM").is_none() && Command::new("g++").arg("--version").output().is_err()
}

/// What leaves [`NO_GPU`] out of a run of the kernels' tests.
fn skips() -> String {
    NO_GPU.map(|part| format!("--skip {part}")).join(" ")
}

fn cargo(arguments: &str, env: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments.split(' ')).current_dir(root()).envs(env.iter().copied());
    let status = command.status().with_context(|| format!("cannot start cargo {arguments}"))?;
    if !status.success() {
        bail!("cargo {arguments}: {status}");
    }
    Ok(())
}
