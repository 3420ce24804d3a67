//! Compilers for the CUDA kernels, from `PyPI`: `ptx` makes the PTX that is in the tree with NVRTC 12.0 (which drivers from CUDA
//! 12.0 on accept), `nvcc` compiles every kernel for the GPUs it may run on and keeps a table of what each needs.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow, bail};
use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};

/// The version that wrote the PTX in the tree: another one would write other bytes.
const NVRTC: &[&str] = &["nvidia-cuda-nvrtc-cu12==12.0.140"];
const NVCC: &[&str] = &[
    "nvidia-cuda-nvcc==13.0.*",
    "nvidia-nvvm==13.0.*",
    "nvidia-cuda-crt==13.0.*",
    "nvidia-cuda-runtime==13.0.*",
    "nvidia-cuda-cccl==13.0.*",
];
/// What nvcc compiles for: A100, H100 and H200 with what every GPU has, and with what only they have.
const TARGETS: [&str; 3] = ["sm_80", "sm_90", "sm_90a"];
/// What ends the name of a file whose kernels are for H100 and H200 alone.
const HOPPER: &str = "_hopper.cu";
/// Makes it an error that a compiler cannot be had.
const REQUIRED: &str = "ECOM_REQUIRE_NVCC";
/// Set in the process that has NVRTC in its library path.
const READY: &str = "ECOM_XTASK_NVRTC";
/// The table that [`nvcc`] keeps.
const TABLE: &str = "docs/KERNELS.md";

/// Whether to write or to compare with what is in the tree.
#[derive(Clone, Copy, PartialEq)]
pub enum Mode {
    Write,
    Check,
}

/// Compiles each `NAME.cu` of an operation to `NAME.ptx` beside it. A product and a sum are fused only where a kernel writes
/// `fmaf`, so that the simulator rounds as a GPU does.
pub fn ptx(root: &Path, mode: Mode) -> anyhow::Result<()> {
    if std::env::var_os(READY).is_none() {
        let Some(wheel) = wheel("nvrtc", NVRTC)? else { return Ok(()) };
        return with_nvrtc(&wheel.join("nvidia/cuda_nvrtc/lib"), mode);
    }
    let include = root.join("kernels/src/cuda").display().to_string();
    for source in kernels(root)? {
        let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&source).with_context(|| source.display().to_string())?;
        let folder = source.parent().unwrap_or(root).display().to_string();
        let compile = || {
            let options = CompileOptions {
                fmad: Some(false),
                options: vec!["--std=c++17".into()],
                include_paths: vec![include.clone(), folder.clone()],
                arch: Some(if name.ends_with(HOPPER) { "compute_90a" } else { "compute_80" }),
                name: Some(name.clone()),
                ..CompileOptions::default()
            };
            compile_ptx_with_opts(&text, options).map(|ptx| ptx.to_src()).map_err(|e| match e {
                cudarc::nvrtc::CompileError::CompileError { log, .. } => anyhow!("{}", log.to_string_lossy()),
                other => anyhow!("{name}: {other}"),
            })
        };
        let made = compile()?;
        if made != compile()? {
            bail!("{name}: two runs of NVRTC gave different PTX");
        }
        if !made.contains("\n.version 8.0\n") {
            bail!("{name}: this NVRTC is not 12.0");
        }
        keep(&source.with_extension("ptx"), &made, mode)?;
    }
    Ok(())
}

/// Runs [`ptx`] in a process that finds this NVRTC before any other.
fn with_nvrtc(libraries: &Path, mode: Mode) -> anyhow::Result<()> {
    let folder = downloads().join("nvrtc-first");
    std::fs::create_dir_all(&folder)?;
    let link = folder.join("libnvrtc.so");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(libraries.join("libnvrtc.so.12"), &link)?;
    let path = std::env::join_paths([folder.as_path(), libraries])?;
    let status = Command::new(std::env::current_exe()?)
        .arg("ptx")
        .args((mode == Mode::Check).then_some("--check"))
        .env("LD_LIBRARY_PATH", path)
        .env(READY, "1")
        .status()?;
    if status.success() { Ok(()) } else { bail!("ptx: {status}") }
}

/// Compiles every kernel for every target, with warnings and spilled registers as errors, and keeps the table.
pub fn nvcc(root: &Path, mode: Mode) -> anyhow::Result<()> {
    let Some(wheel) = wheel("nvcc", NVCC)? else { return Ok(()) };
    let nvcc = wheel.join("nvidia/cu13/bin/nvcc");
    let mut table = String::from(
        "# Kernels\n\nRegisters of a thread, and bytes of shared memory of a block that a kernel declares itself, as nvcc 13.0 compiles \
         them. No kernel\nspills registers to memory. Made by `cargo xtask nvcc`. Those with `hopper` in their file's name are used with `ECOM_HOPPER=1` only: \
         they have\nnever run on a real GPU, and nobody knows whether they are faster.\n",
    );
    for source in kernels(root)? {
        let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut rows: Vec<(String, Vec<String>)> = Vec::new();
        let targets = if source.to_string_lossy().ends_with(HOPPER) { &TARGETS[2..] } else { &TARGETS[..] };
        for target in targets {
            let output = Command::new(&nvcc)
                .args([
                    "-cubin",
                    "-std=c++17",
                    "-fmad=false",
                    "-Werror",
                    "all-warnings",
                    "-Xptxas",
                    "-v,-warn-spills,-Werror",
                ])
                .arg(format!("-arch={target}"))
                .arg("-I")
                .arg(root.join("kernels/src/cuda"))
                .arg("-o")
                .arg(downloads().join("kernel.cubin"))
                .arg(&source)
                .output()
                .with_context(|| nvcc.display().to_string())?;
            let log = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
            // Not a warning by name: products by four warps that are done one after the other, each waited for.
            if !output.status.success() || log.contains("serialized") {
                bail!("{name}.cu for {target}:\n{log}");
            }
            for (kernel, needs) in needs(&log) {
                match rows.iter_mut().find(|(name, _)| *name == kernel) {
                    Some((_, all)) => all.push(needs),
                    None => rows.push((kernel, vec![needs])),
                }
            }
        }
        rows.sort();
        let _ = write!(
            table,
            "\n## {name}\n\n| kernel | {} |\n|---|{}\n",
            targets.join(" | "),
            "--:|".repeat(targets.len())
        );
        for (kernel, needs) in rows {
            let _ = writeln!(table, "| `{kernel}` | {} |", needs.join(" | "));
        }
    }
    keep(&root.join(TABLE), &table, mode)
}

/// Each kernel's name with its registers and shared memory, from ptxas' log.
fn needs(log: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut kernel = None;
    for line in log.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            kernel = rest.split('\'').next().map(str::to_owned);
        }
        if let (Some(rest), Some(name)) = (line.split("Used ").nth(1), &kernel) {
            let number = |unit: &str| {
                rest.split(", ")
                    .find_map(|part| part.strip_suffix(unit).map(str::to_owned))
                    .unwrap_or_else(|| "0".into())
            };
            all.push((name.clone(), format!("{}, {} B", number(" registers"), number(" bytes smem"))));
            kernel = None;
        }
    }
    all
}

fn keep(path: &Path, text: &str, mode: Mode) -> anyhow::Result<()> {
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    match mode {
        _ if kept == text => Ok(()),
        Mode::Write => std::fs::write(path, text).with_context(|| path.display().to_string()),
        Mode::Check => {
            bail!("{}: not what its sources give; run `cargo xtask ptx` and `cargo xtask nvcc`", path.display())
        }
    }
}

/// All `.cu` files, sorted.
fn kernels(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in std::fs::read_dir(root.join("kernels/src"))? {
        let folder = folder?.path();
        if folder.is_dir() {
            for file in std::fs::read_dir(&folder)? {
                files.push(file?.path());
            }
        }
    }
    files.retain(|file| file.extension().is_some_and(|e| e == "cu"));
    files.sort();
    Ok(files)
}

pub fn downloads() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    target.join("cuda")
}

/// The folder that holds these packages, installed at the first call; `None` where that cannot be and need not.
fn wheel(name: &str, packages: &[&str]) -> anyhow::Result<Option<PathBuf>> {
    let folder = downloads().join(name);
    if folder.exists() {
        return Ok(Some(folder));
    }
    let fresh = downloads().join(format!("{name}.new"));
    let _ = std::fs::remove_dir_all(&fresh);
    let status = Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--root-user-action=ignore",
            "--no-deps",
        ])
        .arg("--target")
        .arg(&fresh)
        .args(packages)
        .status();
    let why = match status {
        Ok(status) if status.success() => {
            std::fs::rename(&fresh, &folder)?;
            return Ok(Some(folder));
        }
        Ok(status) => format!("pip: {status}"),
        Err(e) => format!("python3: {e}"),
    };
    if std::env::var_os(REQUIRED).is_some() {
        bail!("{}: {why}", packages.join(" "));
    }
    let _ = writeln!(std::io::stderr(), "skipped: no {name} ({why})");
    Ok(None)
}
