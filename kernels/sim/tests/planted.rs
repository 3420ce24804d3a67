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
const TABLE: [(&str, Find, Find); 38] = [
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
    ("boxes_right", Nothing, Nothing),
    ("boxes_no_wait", Value, Fault("that was not waited for")),
    ("boxes_never_waited_for", Fault("before it has waited"), Fault("before it has waited")),
    ("boxes_of_the_phase_before", Value, Fault("planted.cu:")),
    ("boxes_of_fewer_bytes", Fault("8192 bytes of those expected do not come"), Fault("nobody can go on")),
    ("boxes_of_more_bytes", Fault("where 4096 more are expected"), Fault("where 4096 more are expected")),
    ("boxes_of_another_size", Fault("4096 bytes of those expected do not come"), Fault("nobody can go on")),
    ("boxes_nobody_expects", Fault("where 0 more are expected"), Fault("where 0 more are expected")),
    ("boxes_twice_at_a_time", Fault("are expected again"), Fault("are expected again")),
    ("boxes_of_arrivals_not_published", Fault("not published"), Fault("not published")),
    ("boxes_of_arrivals_not_made", Fault("that nothing has written"), Fault("that nothing has written")),
    ("boxes_of_arrivals_without_a_barrier", Fault("that nothing has written"), Fault("planted.cu:")),
    ("boxes_while_others_read", Fault("nobody can go on"), Fault(NO_BARRIER)),
    ("boxes_misaligned", Fault("no multiple of 128"), Fault("no multiple of 128")),
    ("boxes_past_the_end", Fault("past the end of this shared memory"), Fault("writes 8192 bytes out of bounds")),
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
            simulator::skip("no g++ for planted bugs");
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

/// What a map of a matrix is made of, as the driver takes it.
struct Matrix {
    address: u64,
    rank: u32,
    sizes: [u64; 2],
    pitch: u64,
    lines: [u32; 2],
    swizzle: i32,
}

impl Matrix {
    /// Two lines of 128 bytes.
    const TWO_LINES: Self = Self { address: 0, rank: 2, sizes: [64, 2], pitch: 128, lines: [64, 64], swizzle: 3 };
}

/// Aligned as the driver wants it.
#[repr(align(64))]
struct Map([u64; 16]);

#[test]
fn matrices_that_no_map_can_have_are_refused() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/planted.cu");
    let Some(folder) = simulator::folder_of(&source, Mode::Plain).unwrap() else { return };
    let driver = Driver::load(&folder);
    let at = driver.allocate(0, 256);
    let two = Matrix { address: at, ..Matrix::TWO_LINES };
    let refused = [
        ("no multiple of 16 bytes", Matrix { address: at + 8, ..two }),
        ("0 dimensions", Matrix { rank: 0, ..two }),
        ("6 dimensions", Matrix { rank: 6, ..two }),
        ("a size of 0", Matrix { sizes: [0, 2], ..two }),
        ("a size of 4294967297", Matrix { sizes: [64, (1 << 32) + 1], ..two }),
        ("136 bytes apart", Matrix { pitch: 136, ..two }),
        ("1099511627776 bytes apart", Matrix { pitch: 1 << 40, ..two }),
        ("less than one apart", Matrix { pitch: 112, ..two }),
        ("a box of 0", Matrix { lines: [64, 0], ..two }),
        ("a box of 257", Matrix { lines: [64, 257], ..two }),
        ("a box of no multiple of 16 bytes", Matrix { lines: [60, 64], ..two }),
        ("longer than what is permuted", Matrix { lines: [72, 64], ..two }),
        ("not simulated", Matrix { swizzle: 2, ..two }),
        ("beyond an allocation", Matrix { sizes: [64, 3], ..two }),
    ];
    let mut map = Map([0; 16]);
    for (why, matrix) in refused {
        assert_ne!(driver.map(&mut map, &matrix), 0, "{why}");
        assert!(driver.complaint().contains(why), "{why}: {}", driver.complaint());
    }
    assert_eq!(driver.map(&mut map, &two), 0);
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

type Encode = unsafe extern "C" fn(
    *mut u64,
    i32,
    u32,
    *mut c_void,
    *const u64,
    *const u64,
    *const u32,
    *const u32,
    i32,
    i32,
    i32,
    i32,
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

    /// Memory of a device, which is the one at hand from now on.
    fn allocate(&self, device: i32, bytes: usize) -> Pointer {
        let retain: unsafe extern "C" fn(*mut *mut c_void, i32) -> i32 = self.function("cuDevicePrimaryCtxRetain");
        let set: unsafe extern "C" fn(*mut c_void) -> i32 = self.function("cuCtxSetCurrent");
        let allocate: unsafe extern "C" fn(*mut Pointer, usize) -> i32 = self.function("cuMemAlloc_v2");
        let (mut context, mut pointer) = (std::ptr::null_mut(), 0);
        // SAFETY: writes one address.
        assert_eq!(unsafe { retain(&raw mut context, device) }, 0);
        // SAFETY: a device's context, valid as long as the library is loaded.
        assert_eq!(unsafe { set(context) }, 0);
        // SAFETY: writes one address.
        assert_eq!(unsafe { allocate(&raw mut pointer, bytes) }, 0);
        pointer
    }

    /// Writes the map of a matrix of bf16; the driver's answer.
    fn map(&self, to: &mut Map, matrix: &Matrix) -> i32 {
        let encode: Encode = self.function("cuTensorMapEncodeTiled");
        let Matrix { address, rank, sizes, pitch, lines, swizzle } = matrix;
        let (to, address) = (to.0.as_mut_ptr(), *address as *mut c_void);
        let steps = [1u32, 1];
        // SAFETY: lists of two numbers, or one, of which no more are read; a map is written.
        unsafe {
            encode(to, 9, *rank, address, sizes.as_ptr(), pitch, lines.as_ptr(), steps.as_ptr(), 0, *swizzle, 0, 0)
        }
    }

    /// What was wrong last in this thread.
    fn complaint(&self) -> String {
        let complaint: unsafe extern "C" fn() -> *const c_char = self.function("simulator_complaint");
        // SAFETY: takes nothing.
        let text = unsafe { complaint() };
        // SAFETY: a text of this thread's, until the next call.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    fn run(&self, device: i32, kernel: &str, x: &[f32]) -> Result<Vec<f32>, String> {
        let free: unsafe extern "C" fn(Pointer) -> i32 = self.function("cuMemFree_v2");
        let upload: unsafe extern "C" fn(Pointer, *const c_void, usize) -> i32 = self.function("cuMemcpyHtoD_v2");
        let download: unsafe extern "C" fn(*mut c_void, Pointer, usize) -> i32 = self.function("cuMemcpyDtoH_v2");
        let load: unsafe extern "C" fn(*mut *mut c_void, *const c_char) -> i32 = self.function("cuModuleLoadData");
        let get: unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const c_char) -> i32 =
            self.function("cuModuleGetFunction");
        let launch: Launch = self.function("cuLaunchKernel");
        let boxes = kernel.starts_with("boxes_");
        let second = if boxes { ".align 64 .b8 b[128]" } else { ".u64 b" };
        let ptx = format!(
            ".version 8.0\n.target sm_80\n.visible .entry {kernel}(\n.param .u64 a,\n.param {second},\n.param .u32 c\n)\n\
             .maxntid 64, 1, 1\n{{"
        );
        let (ptx, name) = (CString::new(ptx).unwrap(), CString::new(kernel).unwrap());
        let (mut module, mut function) = (std::ptr::null_mut(), std::ptr::null_mut());
        let bytes = size_of_val(x);
        let (mut from, mut to, mut n) = (self.allocate(device, bytes), self.allocate(device, bytes), x.len() as u32);
        let mut out = vec![0.0f32; x.len()];
        // SAFETY: as many bytes as were allocated.
        assert_eq!(unsafe { upload(from, x.as_ptr().cast(), bytes) }, 0);
        // SAFETY: a text that ends with zero.
        assert_eq!(unsafe { load(&raw mut module, ptx.as_ptr()) }, 0, "{kernel}");
        // SAFETY: a module that was just loaded.
        assert_eq!(unsafe { get(&raw mut function, module, name.as_ptr()) }, 0);
        let mut map = Map([0; 16]);
        if boxes {
            let lines = if kernel.ends_with("of_another_size") { 32 } else { 64 };
            let matrix = Matrix { address: from, lines: [64, lines], ..Matrix::TWO_LINES };
            assert_eq!(self.map(&mut map, &matrix), 0);
        }
        let second: *mut c_void = if boxes { (&raw mut map).cast() } else { (&raw mut from).cast() };
        let mut arguments: [*mut c_void; 3] = [(&raw mut to).cast(), second, (&raw mut n).cast()];
        let blocks = x.len().div_ceil(64) as u32;
        let nothing = std::ptr::null_mut();
        // SAFETY: three arguments of the kernel's types.
        let code =
            unsafe { launch(function, blocks, 1, 1, 64, 1, 1, 0, nothing, arguments.as_mut_ptr(), nothing.cast()) };
        let fault = self.complaint();
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
