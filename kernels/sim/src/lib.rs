//! For tests: the GPUs to test on. Those of a CUDA driver if it has one, otherwise five simulated ones, which differ in the
//! order in which they run a kernel's threads.
//!
//! The simulator (`cpp/`) and the kernels are compiled by g++ into one library that poses as the driver, `libcuda.so`, so that
//! what is tested is all of the code, from a tensor to its kernel and back. Nothing of it is in the `ecom` binary.
//!
//! With `ECOM_SIM_CHECK=1` one simulated GPU checks each access of a kernel to memory: bounds, alignment, whether it was written,
//! and races; see `cpp/checker.hpp`.
//!
//! Without a GPU and without g++ there is none to test on, and tests say so. `ECOM_REQUIRE_SIM=1` demands the simulator, and
//! `ECOM_REQUIRE_CUDA=1` a real GPU.

mod build;

pub use build::Mode;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::{Library, Symbol};
use tensor::{Device, Gpu};

/// Makes it a failure that the simulator cannot be built; it is then taken even where there is a GPU.
pub const REQUIRE_SIM: &str = "ECOM_REQUIRE_SIM";
/// Has each access to memory by a simulated kernel checked: one GPU, slower. It is then taken even where there is a real one.
pub const CHECK: &str = "ECOM_SIM_CHECK";
/// Leaves one simulated GPU of all, by its number, for a program that takes the first: 0 has compute capability 8.0, 1 has 8.6, 2 has 8.9,
/// those from 3 on have 9.0.
pub const ONLY: &str = "ECOM_SIM_GPU";
/// Names a folder whose kernels are simulated instead of those of the project: for kernels that are broken on purpose.
pub const SOURCES: &str = "ECOM_SIM_SOURCES";
/// Makes it a failure that there is no GPU.
pub const REQUIRE_CUDA: &str = "ECOM_REQUIRE_CUDA";

/// The GPUs to test on; the same ones at every call.
///
/// # Panics
/// What was demanded is not there.
#[allow(clippy::panic, clippy::print_stderr)] // for tests only
pub fn gpus() -> &'static [Device] {
    static GPUS: OnceLock<Vec<Device>> = OnceLock::new();
    GPUS.get_or_init(|| {
        let [sim, check, cuda] = [REQUIRE_SIM, CHECK, REQUIRE_CUDA].map(|name| std::env::var_os(name).is_some());
        let sim = sim || check;
        if sim || !(cuda || a_gpu_is_here()) {
            match folder() {
                Ok(Some(folder)) => load(&folder),
                Ok(None) if !sim => {
                    skip("nothing runs on GPUs here, as there is none, and no g++ for simulated ones");
                    return vec![];
                }
                Ok(None) => panic!("no g++ for simulated GPUs"),
                Err(why) => panic!("simulated GPUs: {why}"),
            }
        }
        let open = |i| Gpu::open(i).map(Device::Cuda);
        // A simulator has more, for those who want a newer one under every schedule.
        let count = if LIBRARIES.get().is_some() { Gpu::count().min(5) } else { Gpu::count() };
        match (0..count).map(open).collect::<Result<Vec<_>, _>>() {
            Ok(gpus) if !gpus.is_empty() => gpus,
            Ok(_) => panic!("no GPU"),
            Err(e) => panic!("{e}"),
        }
    })
}

/// Says that something is skipped, also where the output of tests that pass is not shown.
pub fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// The main memory and then the [`gpus`].
pub fn devices() -> impl Iterator<Item = &'static Device> {
    std::iter::once(&Device::Cpu).chain(gpus())
}

/// A folder with the library, for `LD_LIBRARY_PATH` of another process. Built if it is not there yet; `None` without g++.
///
/// # Errors
/// What g++ says.
pub fn folder() -> Result<Option<PathBuf>, String> {
    build::folder(if std::env::var_os(CHECK).is_some() { Mode::Checked } else { Mode::Plain }, None)
}

/// As [`folder`], with the kernels of one file instead of the project's.
///
/// # Errors
/// What g++ says.
pub fn folder_of(kernels: &Path, mode: Mode) -> Result<Option<PathBuf>, String> {
    build::folder(mode, Some(kernels))
}

/// The graphs that simulated GPUs have launched; `None` where no simulator is loaded.
pub fn graphs_launched() -> Option<u64> {
    count(b"simulator_graphs_launched\0")
}

/// Has simulated GPUs refuse this thread's graphs when they are whole, or take them again; `false` where no simulator is loaded.
#[allow(clippy::expect_used)] // for tests only
pub fn refuse_graphs(refuse: bool) -> bool {
    let Some([driver, _]) = LIBRARIES.get() else { return false };
    // SAFETY: `void simulator_refuse_graphs(bool)` of `cpp/graph.cpp`.
    let set: Symbol<unsafe extern "C" fn(bool)> =
        unsafe { driver.get(b"simulator_refuse_graphs\0") }.expect("a switch of the simulator");
    // SAFETY: sets a variable of this thread.
    unsafe { set(refuse) };
    true
}

/// The products that the simulated cuBLASLt was asked for; `None` where no simulator is loaded.
pub fn products() -> Option<u64> {
    count(b"simulator_products\0")
}

#[allow(clippy::expect_used)] // for tests only
fn count(name: &[u8]) -> Option<u64> {
    let libraries = LIBRARIES.get()?;
    // SAFETY: `uint64_t NAME()` of `cpp/graph.cpp` or `cublaslt/cublaslt.cpp`.
    let count = |library: &Library| unsafe { library.get::<unsafe extern "C" fn() -> u64>(name) }.map(|f| *f);
    let counted = libraries.iter().find_map(|library| count(library).ok()).expect("a count of the simulator");
    // SAFETY: reads a number.
    Some(unsafe { counted() })
}

static LIBRARIES: OnceLock<[Library; 2]> = OnceLock::new();

/// Loads the libraries under the names by which a driver and cuBLASLt are looked for first, for good.
#[allow(clippy::panic)] // for tests only
fn load(folder: &Path) {
    let libraries = [build::LIBRARY, build::CUBLASLT].map(|name| {
        // SAFETY: its initialisers put kernels on a list.
        unsafe { Library::new(folder.join(name)) }.unwrap_or_else(|e| panic!("{e}"))
    });
    // Once in a process.
    let _ = LIBRARIES.set(libraries);
}

/// Asked by hand, so that a driver that has no GPU is not taken up for good.
fn a_gpu_is_here() -> bool {
    // SAFETY: the driver's initialisers are NVIDIA's.
    let Ok(driver) = (unsafe { Library::new("libcuda.so.1") }) else { return false };
    // SAFETY: `CUresult cuInit(unsigned)` of the driver API.
    let init: Result<Symbol<unsafe extern "C" fn(u32) -> u32>, _> = unsafe { driver.get(b"cuInit\0") };
    // SAFETY: `CUresult cuDeviceGetCount(int *)` of the driver API.
    let count: Result<Symbol<unsafe extern "C" fn(*mut i32) -> u32>, _> = unsafe { driver.get(b"cuDeviceGetCount\0") };
    let (Ok(init), Ok(count)) = (init, count) else { return false };
    let mut found = 0;
    // SAFETY: takes no flags.
    let begun = unsafe { init(0) } == 0;
    // SAFETY: writes one number.
    begun && unsafe { count(&raw mut found) } == 0 && found > 0
}
