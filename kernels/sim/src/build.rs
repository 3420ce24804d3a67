//! Compiles the simulator with the kernels, as far as that was not done before: what is compiled is kept under a name that
//! is a hash of all that went into it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The library's file and soname: the first name that the driver is looked for by.
pub const LIBRARY: &str = "libcuda.so";
/// The same of cuBLASLt, which works on the memory of the other.
pub const CUBLASLT: &str = "libcublasLt.so";

/// No contraction: like the device's compiler, this one fuses a product and a sum only where a kernel writes `fmaf`.
const FLAGS: [&str; 8] =
    ["-std=c++17", "-O2", "-g1", "-fPIC", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unknown-pragmas"];

/// One file to compile: its text, after which a kernel's file names the kernels in it.
struct Unit {
    name: String,
    kernels: bool,
    text: String,
}

/// What a kernel's accesses are checked by: hooks that g++ calls before each, which are the simulator's.
const CHECKED: [&str; 5] =
    ["-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0", "-fno-tree-vectorize", "-g", "-DSIM_CHECK"];

/// Whether the kernels' accesses to memory are checked, each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only what goes beyond an allocation is seen, by what it leaves there.
    Plain,
    /// Each one, by `cpp/checker.cpp`.
    Checked,
}

/// The folder of the library; `None` without g++.
pub fn folder(mode: Mode, planted: Option<&Path>) -> Result<Option<PathBuf>, String> {
    // One at a time in this process, and in another one by the lock on a file.
    static BUILD: Mutex<()> = Mutex::new(());
    if Command::new("g++").arg("--version").output().is_err() {
        return Ok(None);
    }
    let _guard = BUILD.lock();
    let cache = cache()?;
    fs::create_dir_all(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
    let lock = fs::File::create(cache.join("lock")).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    build(&cache, mode, planted).map(Some)
}

fn build(cache: &Path, mode: Mode, planted: Option<&Path>) -> Result<PathBuf, String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cpp = sources.join("cpp");
    let kernels = sources_of_kernels();
    let include = kernels.join("cuda");
    let mut flags: Vec<OsString> = FLAGS.map(OsString::from).into();
    flags.extend(machine().map(OsString::from));
    // Kernels that are broken on purpose may leave something unused.
    if std::env::var_os(crate::SOURCES).is_none() {
        flags.push("-Werror".into());
    }
    if mode == Mode::Checked {
        flags.extend(CHECKED[1..].iter().map(OsString::from));
    }
    for folder in [&cpp, &include] {
        flags.extend(["-I".into(), folder.clone().into_os_string()]);
    }
    // What a file may include goes into its hash: for the simulator's own what all kernels share, for a kernel everything.
    let mut common = format!("{flags:?}");
    let folders = folders(&kernels)?;
    for header in files(&cpp, "hpp")?.into_iter().chain(files(&include, "cuh")?) {
        common += &read(&header)?;
    }
    let mut of_kernels = String::new();
    for folder in &folders {
        for header in files(folder, "cuh")? {
            of_kernels += &read(&header)?;
        }
    }
    let mut units = Vec::new();
    for file in files(&cpp, "cpp")? {
        units.push(Unit {
            name: stem(&file),
            kernels: false,
            text: format!("#include \"{}\"\n", file.display()) + &line_of(&read(&file)?),
        });
    }
    let groups: Vec<Vec<PathBuf>> = match planted {
        Some(file) => vec![vec![file.into()]],
        None => folders.iter().map(|folder| files(folder, "cu")).collect::<Result<_, _>>()?,
    };
    for files in groups {
        for file in files {
            // In a namespace without a name, as two operations may have functions of one name.
            let enroll = entries(&file)?.join(")\nENROLL(");
            let text = format!("namespace {{\n#include \"{}\"\nENROLL({enroll})\n}}\n", file.display());
            units.push(Unit {
                name: stem(&file),
                kernels: true,
                text: format!("#include \"device.cuh\"\n#include \"hopper.hpp\"\n{text}{}", line_of(&read(&file)?)),
            });
        }
    }
    let mut objects: Vec<PathBuf> = Vec::new();
    let mut jobs = Vec::new();
    for unit in &units {
        let included = if unit.kernels { of_kernels.as_str() } else { "" };
        let object = cache.join(format!("{}-{:016x}.o", unit.name, hash(&[&common, included, &unit.text])));
        if !object.exists() {
            let source = object.with_extension("cpp");
            fs::write(&source, &unit.text).map_err(|e| format!("{}: {e}", source.display()))?;
            let hooks = (unit.kernels && mode == Mode::Checked).then_some(CHECKED[0]);
            jobs.push((source, object.clone(), hooks));
        }
        objects.push(object);
    }
    let cublaslt = sources.join("cublaslt/cublaslt.cpp");
    let object = cache.join(format!("cublaslt-{:016x}.o", hash(&[&common, &read(&cublaslt)?])));
    if !object.exists() {
        jobs.push((cublaslt, object.clone(), None));
    }
    all(&jobs, &flags)?;
    let names: Vec<String> = objects.iter().chain([&object]).map(|o| o.display().to_string()).collect();
    let folder = cache.join(format!("{:016x}", hash(&names.iter().map(String::as_str).collect::<Vec<_>>())));
    let library = folder.join(LIBRARY);
    if !library.exists() {
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut link = Command::new("g++");
        link.args(["-shared", "-Wl,-z,defs", "-Wl,-Bsymbolic"]).arg(format!("-Wl,-soname,{LIBRARY}")).args(&objects);
        into_place(&mut link, &library)?;
    }
    let beside = folder.join(CUBLASLT);
    if !beside.exists() {
        let mut link = Command::new("g++");
        link.args(["-shared", "-Wl,-z,defs", "-Wl,-rpath,$ORIGIN"]).arg(format!("-Wl,-soname,{CUBLASLT}"));
        link.arg(object).arg(&library);
        into_place(&mut link, &beside)?;
    }
    Ok(folder)
}

/// The folder of the kernels' sources: another one than the project's where the environment names it.
fn sources_of_kernels() -> PathBuf {
    std::env::var_os(crate::SOURCES).map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../src"), PathBuf::from)
}

/// Compiles all, as many at a time as there are cores.
fn all(jobs: &[(PathBuf, PathBuf, Option<&str>)], flags: &[OsString]) -> Result<(), String> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || -> Result<(), String> {
        while let Some((source, object, more)) = jobs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            into_place(Command::new("g++").args(flags).args(more).arg("-c").arg(source), object)?;
        }
        Ok(())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
    })
}

/// Runs a compiler; its output appears whole.
fn into_place(compiler: &mut Command, path: &Path) -> Result<(), String> {
    let fresh = path.with_extension("new");
    let output = compiler.arg("-o").arg(&fresh).output().map_err(|e| format!("g++: {e}"))?;
    if !output.status.success() {
        return Err(format!("g++: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    fs::rename(&fresh, path).map_err(|e| format!("{}: {e}", path.display()))
}

/// `simulator` in the folder that holds this test's executable.
fn cache() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let folder = program.parent().ok_or("an executable without a folder")?;
    let inner = folder.ends_with("deps") || folder.ends_with("examples");
    let profile = if inner { folder.parent().unwrap_or(folder) } else { folder };
    Ok(profile.join("simulator"))
}

/// Flags for what this machine can do: without FMA, `fmaf` would be a slow routine.
fn machine() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("bmi2") {
        return Some("-march=x86-64-v3");
    }
    None
}

/// The kernels of a file: those that its PTX has, or that it names itself, if it is not the project's.
fn entries(file: &Path) -> Result<Vec<String>, String> {
    let ptx = file.with_extension("ptx");
    let name = |part: &str| part.split('(').next().map(str::to_owned);
    if ptx.exists() {
        return Ok(read(&ptx)?.split(".entry ").skip(1).filter_map(name).collect());
    }
    if file.starts_with(sources_of_kernels()) {
        return Err(format!("{} is not there: run `cargo xtask ptx`", ptx.display()));
    }
    let text = read(file)?;
    let after = |part: &str| name(part.split_once(") ")?.1);
    Ok(text.split("\nKERNEL(").skip(1).filter_map(after).collect())
}

/// A comment that makes a unit's hash that of the file it includes.
fn line_of(text: &str) -> String {
    format!("// {:016x}\n", hash(&[text]))
}

/// FNV-1a, 64 bits.
fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xFF]));
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    entries_of(folder, |path| path.extension().is_some_and(|e| e == extension))
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>, String> {
    entries_of(folder, Path::is_dir)
}

fn entries_of(folder: &Path, keep: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|p| keep(p)).collect();
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
