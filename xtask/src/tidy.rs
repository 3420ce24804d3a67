//! Rules of `docs/ARCHITECTURE.md` and `docs/STYLE.md` that no compiler checks.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The longest file that needs no reason.
const LONG: usize = 600;

/// Which crates of the workspace a crate may use: the order of dependencies, nothing points back.
const MAY_USE: [(&str, &[&str]); 5] = [
    ("tensor", &[]),
    ("kernels", &["tensor"]),
    ("autograd", &["tensor", "kernels"]),
    ("bloom", &["tensor", "kernels", "autograd"]),
    ("ecominstruct", &[]),
];
const CRATES: [&str; 5] = ["tensor", "kernels", "autograd", "bloom", "ecominstruct"];

/// Prints every breach and fails if there is one.
pub fn check(root: &Path) -> anyhow::Result<()> {
    let mut breaches = Vec::new();
    for (name, may_use) in MAY_USE {
        let path = root.join(name).join("Cargo.toml");
        let manifest = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let normal = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for other in CRATES {
            let used =
                normal.lines().any(|l| l.starts_with(&format!("{other}.")) || l.starts_with(&format!("{other} =")));
            if used && !may_use.contains(&other) {
                breaches.push(format!("{name}/Cargo.toml: {name} may not use {other}"));
            }
        }
    }
    for path in sources(root)? {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let shown = path.strip_prefix(root).unwrap_or(&path);
        let krate = shown.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
        let test_file =
            shown.components().any(|c| ["tests", "spec.rs", "tests.rs"].iter().any(|t| c.as_os_str() == *t))
                || shown.starts_with("kernels/sim");
        let lines = text.lines().count();
        if lines > LONG {
            breaches.push(format!("{}: {lines} lines, over {LONG}: split it", shown.display()));
        }
        for (i, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let place = format!("{}:{}", shown.display(), i + 1);
            let spelled = krate != "xtask"; // this file itself names what it looks for
            let unsafe_code = spelled && ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|u| code.contains(u));
            if unsafe_code && !["tensor", "kernels"].contains(&krate.as_str()) && !test_file {
                breaches.push(format!("{place}: unsafe code outside tensor and kernels"));
            }
            if krate != "xtask" && line.contains("#[ignore") {
                breaches.push(format!("{place}: an ignored test"));
            }
            let environment = code.contains("std::env::") || code.contains("env::var");
            if environment && CRATES.contains(&krate.as_str()) && !test_file && !in_tests(&text, i) {
                breaches.push(format!("{place}: only cli reads the environment"));
            }
        }
    }
    if breaches.is_empty() {
        return Ok(());
    }
    bail!("{}", breaches.join("\n"))
}

/// Whether line `i` comes after the start of the file's test module.
fn in_tests(text: &str, i: usize) -> bool {
    text.lines().take(i).any(|l| l.trim() == "#[cfg(test)]")
}

/// All Rust files of the workspace, sorted.
fn sources(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> =
        ["tensor", "kernels", "autograd", "bloom", "ecominstruct", "cli", "tests", "benches", "xtask"]
            .map(|f| root.join(f))
            .into();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() && path.file_name().is_some_and(|n| n != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
