//! The simulator's own test: kernels with one thing wrong each (`planted.cu`), and what finds it, in a plain run under all
//! schedules and in a run that checks every access.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)] // how a test fails and tells

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};

use libloading::{Library, Symbol};
use simulator::Mode;

/// What finds a kernel's bug.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Find {
    /// Nothing; or there is nothing.
    Nothing,
    /// A wrong answer under one of the schedules.
    Value,
    /// A fault whose text holds this.
    Fault(&'static str),
}
use Find::{Fault, Nothing, Value};

const NO_BARRIER: &str = "at the same time by";

/// Kernel, what a plain run finds, what a checked run finds.
const TABLE: [(&str, Find, Find); 23] = [
    ("right", Nothing, Nothing),
    ("right_in_rounds", Nothing, Nothing),
    ("right_asynchronous", Nothing, Nothing),
    ("no_barrier", Value, Fault("planted.cu:")),
    ("no_barrier_at_the_end_of_a_loop", Value, Fault(NO_BARRIER)),
    ("warp_barrier_for_a_block", Value, Fault("planted.cu:")),
    ("barrier_in_a_branch", Fault("nobody can go on"), Fault("nobody can go on")),
    ("two_barriers", Fault("at a barrier, while others are at"), Fault("at a barrier, while others are at")),
    ("half_a_shuffle", Fault("nobody can go on"), Fault("nobody can go on")),
    (
        "stores_past_the_end",
        Fault("0 bytes past the end of global memory"),
        Fault("writes 4 bytes out of bounds: 0 bytes past"),
    ),
    ("loads_past_the_end", Nothing, Fault("reads 4 bytes out of bounds: 0 bytes past the end of global memory")),
    ("shared_past_the_end", Fault("past the end of this shared memory"), Fault("writes 4 bytes out of bounds")),
    ("misaligned", Nothing, Fault("misaligned: 8 bytes")),
    ("reads_what_it_should_write", Value, Fault("that nothing has written")),
    ("reads_shared_memory_first", Nothing, Fault("that nothing has written")),
    ("no_wait", Value, Fault("that was not waited for")),
    ("waits_for_too_few", Value, Fault("that was not waited for")),
    ("never_waits", Fault("before it has waited"), Fault("before it has waited")),
    ("waits_without_a_barrier", Value, Fault("planted.cu:")),
    ("a_shuffle_for_a_barrier", Nothing, Fault(NO_BARRIER)),
    ("all_write_the_same", Nothing, Fault(NO_BARRIER)),
    ("blocks_write_the_same", Nothing, Fault(NO_BARRIER)),
    ("blocks_read_each_other", Nothing, Fault(NO_BARRIER)),
];

/// Numbers in a launch: two blocks, the last not full.
const N: usize = 68;

#[test]
fn every_planted_bug_is_found() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/planted.cu");
    let mut wrong = Vec::new();
    for mode in [Mode::Plain, Mode::Checked] {
        let Some(folder) = simulator::folder_of(&source, mode).unwrap() else {
            assert!(std::env::var_os(simulator::REQUIRE_SIM).is_none(), "no g++ for simulated GPUs");
            eprintln!("skipped: no g++");
            return;
        };
        let driver = Driver::load(&folder);
        for (name, plain, checked) in TABLE {
            let wanted = if mode == Mode::Plain { plain } else { checked };
            let found = driver.find(name);
            let right = match (wanted, &found) {
                (Fault(part), Found::Fault(text)) => {
                    // A checked access is told with its line in this file.
                    text.contains(part)
                        && (!text.contains("bytes") || mode == Mode::Plain || text.contains("planted.cu:"))
                }
                (Value, Found::Value) | (Nothing, Found::Nothing) => true,
                _ => false,
            };
            if !right {
                wrong.push(format!("{name}, {mode:?}: wanted {wanted:?}, found {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[derive(Debug)]
enum Found {
    Nothing,
    Value,
    Fault(#[allow(dead_code)] String),
}

/// The fake driver, called as cudarc calls it.
struct Driver {
    library: Library,
    devices: i32,
}

type Pointer = u64;
type Launch = unsafe extern "C" fn(
    *mut c_void,
    u32,
    u32,
    u32,
    u32,
    u32,
    u32,
    u32,
    *mut c_void,
    *mut *mut c_void,
    *mut *mut c_void,
) -> i32;

impl Driver {
    fn load(folder: &Path) -> Self {
        let path: PathBuf = folder.join("libcuda.so");
        // SAFETY: its initialisers put kernels on a list.
        let library = unsafe { Library::new(path) }.unwrap();
        let mut driver = Self { library, devices: 0 };
        let mut devices = 0;
        let count: unsafe extern "C" fn(*mut i32) -> i32 = driver.function("cuDeviceGetCount");
        // SAFETY: writes one number.
        unsafe { count(&raw mut devices) };
        driver.devices = devices;
        driver
    }

    fn function<F: Copy>(&self, name: &str) -> F {
        // SAFETY: the types below are those of the driver's interface.
        let symbol: Symbol<F> = unsafe { self.library.get(name.as_bytes()) }.unwrap();
        *symbol
    }

    /// Runs a kernel on each device.
    fn find(&self, kernel: &str) -> Found {
        let x: Vec<f32> = (0..N).map(|i| i as f32 + 1.0).collect();
        let read = |i: usize| x.get(i).copied().unwrap_or(0.0);
        let wanted: Vec<f32> = (0..64).map(|i| read(63 - i)).collect();
        for device in 0..self.devices {
            match self.run(device, kernel, &x) {
                Err(fault) => return Found::Fault(fault),
                Ok(out) if out[..64] != wanted => return Found::Value,
                Ok(_) => {}
            }
        }
        Found::Nothing
    }

    fn run(&self, device: i32, kernel: &str, x: &[f32]) -> Result<Vec<f32>, String> {
        let retain: unsafe extern "C" fn(*mut *mut c_void, i32) -> i32 = self.function("cuDevicePrimaryCtxRetain");
        let set: unsafe extern "C" fn(*mut c_void) -> i32 = self.function("cuCtxSetCurrent");
        let allocate: unsafe extern "C" fn(*mut Pointer, usize) -> i32 = self.function("cuMemAlloc_v2");
        let free: unsafe extern "C" fn(Pointer) -> i32 = self.function("cuMemFree_v2");
        let upload: unsafe extern "C" fn(Pointer, *const c_void, usize) -> i32 = self.function("cuMemcpyHtoD_v2");
        let download: unsafe extern "C" fn(*mut c_void, Pointer, usize) -> i32 = self.function("cuMemcpyDtoH_v2");
        let load: unsafe extern "C" fn(*mut *mut c_void, *const c_char) -> i32 = self.function("cuModuleLoadData");
        let get: unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const c_char) -> i32 =
            self.function("cuModuleGetFunction");
        let launch: Launch = self.function("cuLaunchKernel");
        let complaint: unsafe extern "C" fn() -> *const c_char = self.function("simulator_complaint");
        let ptx = format!(
            ".version 8.0\n.target sm_80\n.visible .entry {kernel}(\n.param .u64 a,\n.param .u64 b,\n.param .u32 c\n)\n\
             .maxntid 64, 1, 1\n{{"
        );
        let (ptx, name) = (CString::new(ptx).unwrap(), CString::new(kernel).unwrap());
        let (mut context, mut module, mut function) =
            (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        let bytes = size_of_val(x);
        let (mut from, mut to, mut n) = (0u64, 0u64, x.len() as u32);
        let mut out = vec![0.0f32; x.len()];
        // SAFETY: writes one address.
        assert_eq!(unsafe { retain(&raw mut context, device) }, 0);
        // SAFETY: a device's context, valid as long as the library is loaded.
        assert_eq!(unsafe { set(context) }, 0);
        // SAFETY: writes one address.
        assert_eq!(unsafe { allocate(&raw mut from, bytes) }, 0);
        // SAFETY: writes one address.
        assert_eq!(unsafe { allocate(&raw mut to, bytes) }, 0);
        // SAFETY: as many bytes as were allocated.
        assert_eq!(unsafe { upload(from, x.as_ptr().cast(), bytes) }, 0);
        // SAFETY: a text that ends with zero.
        assert_eq!(unsafe { load(&raw mut module, ptx.as_ptr()) }, 0, "{kernel}");
        // SAFETY: a module that was just loaded.
        assert_eq!(unsafe { get(&raw mut function, module, name.as_ptr()) }, 0);
        let mut arguments: [*mut c_void; 3] = [(&raw mut to).cast(), (&raw mut from).cast(), (&raw mut n).cast()];
        let blocks = x.len().div_ceil(64) as u32;
        let nothing = std::ptr::null_mut();
        // SAFETY: three arguments of the kernel's types.
        let code =
            unsafe { launch(function, blocks, 1, 1, 64, 1, 1, 0, nothing, arguments.as_mut_ptr(), nothing.cast()) };
        // SAFETY: takes nothing.
        let text = unsafe { complaint() };
        // SAFETY: a text of this thread's, until the next call.
        let fault = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        if code != 0 {
            return Err(fault);
        }
        // SAFETY: as many bytes as were allocated.
        let read = unsafe { download(out.as_mut_ptr().cast(), to, bytes) };
        for pointer in [from, to] {
            // SAFETY: allocated above.
            unsafe { free(pointer) };
        }
        if read == 0 { Ok(out) } else { Err(fault) }
    }
}
