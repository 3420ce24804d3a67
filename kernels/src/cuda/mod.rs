//! How kernels get onto a GPU: an operation's PTX is loaded when the first of its kernels is launched, and a launch is
//! checked against what the PTX says of the kernel's parameters.

pub(crate) mod cublaslt;
mod map;
mod ptx;
#[cfg(test)]
mod self_test;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::driver::{CudaFunction, CudaModule, DriverError, result, sys};
use cudarc::nvrtc::Ptx;
use tensor::{Gpu, Tensor};

pub(crate) use self::map::Matrix;
use self::ptx::Kind;
use crate::error::of;
use crate::{Error, Result};

/// The kernels of one operation: its name, and its PTX as `cargo xtask ptx` has made it.
pub(crate) struct Code {
    pub op: &'static str,
    pub ptx: &'static str,
}

/// How many blocks of how many threads (whole warps), and the shared memory that each block is given at launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub blocks: [usize; 3],
    pub threads: usize,
    pub shared_bytes: usize,
}

impl Grid {
    /// So many blocks in a row.
    pub fn new(blocks: usize, threads: usize) -> Self {
        Self { blocks: [blocks, 1, 1], threads, shared_bytes: 0 }
    }
}

/// An argument of a kernel.
pub(crate) enum Arg<'a> {
    /// A tensor to read; the kernel gets its address.
    In(&'a Tensor),
    /// A tensor to write to; memory that it shares is copied first.
    Out(&'a mut Tensor),
    /// As `In`, from an element on.
    InFrom(&'a Tensor, usize),
    /// As `Out`, from an element on.
    OutFrom(&'a mut Tensor, usize),
    /// A struct, as 64-bit words. Addresses among them are of tensors of this GPU that the caller has borrowed.
    Words(&'a [u64]),
    /// A matrix to read, as a map; or a map of nothing.
    Map(Option<Matrix<'a>>),
    /// A size or a count.
    Size(usize),
    /// A number.
    F32(f32),
    /// No tensor where there may be one: a null pointer.
    None,
}

/// What a GPU has loaded.
#[derive(Default)]
struct Loaded {
    tables: Mutex<Tables>,
    cublaslt: OnceLock<Option<cublaslt::CublasLt>>,
}

#[derive(Default)]
struct Tables {
    modules: HashMap<&'static str, Arc<CudaModule>>,
    kernels: HashMap<String, Arc<Kernel>>,
}

struct Kernel {
    function: CudaFunction,
    parameters: Vec<ptx::Parameter>,
    /// The most shared memory that it was allowed to be given at launch so far.
    shared_bytes: Mutex<usize>,
}

/// What a kernel may have without asking, with what is its own from the start.
const SHARED_FOR_ALL: usize = 48 << 10;

/// Puts kernel `name` of `code` on the stream of `gpu`. A grid without blocks is nothing to do.
///
/// # Errors
/// Arguments that are not what the kernel takes, or are on another device; sizes beyond 32 bits; what the driver says.
pub(crate) fn launch(gpu: &Gpu, code: &Code, name: &str, grid: Grid, args: &mut [Arg]) -> Result<()> {
    if grid.blocks.contains(&0) {
        return Ok(());
    }
    let kernel = kernel(gpu, code, name)?;
    let op = code.op;
    let fail = |e: DriverError| Error::Gpu { op, kernel: name.into(), reason: format!("{e:?}") };
    gpu.stream().context().bind_to_thread().map_err(fail)?;
    let words = args.iter_mut().map(|arg| word(gpu, op, arg)).collect::<Result<Vec<_>>>()?;
    check(op, name, &kernel.parameters, &words)?;
    let narrow = |n: usize| u32::try_from(n).map_err(|_| misfit(op, "a launch", "sizes of 32 bits", n));
    let [x, y, z] = grid.blocks;
    let (blocks, threads, shared) =
        ((narrow(x)?, narrow(y)?, narrow(z)?), narrow(grid.threads)?, narrow(grid.shared_bytes)?);
    kernel.allow_shared(grid.shared_bytes).map_err(fail)?;
    let mut pointers: Vec<*mut c_void> =
        words.iter().map(|word| word.value.as_ptr().cast_mut().cast::<c_void>()).collect();
    // SAFETY: there is a pointer to a value of the right size for each parameter, read during the call. The addresses among them,
    // in maps too, are of live memory of this GPU, which is freed in the order of this same stream; that the kernel stays within it,
    // given these sizes, is what its tests are for.
    unsafe {
        result::launch_kernel(
            kernel.function.cu_function(),
            blocks,
            (threads, 1, 1),
            shared,
            gpu.stream().cu_stream(),
            &mut pointers,
        )
    }
    .map_err(fail)
}

/// Where a tensor argument is, or null.
///
/// # Errors
/// It is on another device, or what the driver says.
pub(crate) fn address(gpu: &Gpu, op: &'static str, arg: &mut Arg) -> Result<u64> {
    Ok(word(gpu, op, arg)?.value.first().copied().unwrap_or(0))
}

/// An argument as the driver takes it, in the first bytes.
struct Word<'a> {
    value: Cow<'a, [u64]>,
    parameter: ptx::Parameter,
}

fn word<'a>(gpu: &Gpu, op: &'static str, arg: &'a mut Arg) -> Result<Word<'a>> {
    let one = |bits: u64, size, kind| Word { value: Cow::Owned(vec![bits]), parameter: ptx::Parameter { size, kind } };
    let pointer = |address| one(address, 8, Kind::Bits);
    let from = |tensor: &Tensor, element: usize| match tensor.elements() {
        n if element > n => Err(misfit(op, "a tensor's first element", &format!("at most {n}"), element)),
        _ => Ok((element * tensor.dtype().size()) as u64),
    };
    Ok(match arg {
        Arg::In(tensor) => pointer(tensor.gpu_pointer(gpu).map_err(of(op))?),
        Arg::Out(tensor) => pointer(tensor.gpu_pointer_mut(gpu).map_err(of(op))?),
        Arg::InFrom(tensor, element) => pointer(tensor.gpu_pointer(gpu).map_err(of(op))? + from(tensor, *element)?),
        Arg::OutFrom(tensor, element) => {
            let offset = from(tensor, *element)?;
            pointer(tensor.gpu_pointer_mut(gpu).map_err(of(op))? + offset)
        }
        Arg::Words(words) => Word {
            value: Cow::Borrowed(words),
            parameter: ptx::Parameter { size: size_of_val(*words), kind: Kind::Bits },
        },
        Arg::Map(matrix) => {
            let words = matrix.map_or(Ok([0; map::BYTES / 8]), |matrix| matrix.map(gpu, op))?;
            Word { value: Cow::Owned(words.into()), parameter: ptx::Parameter { size: map::BYTES, kind: Kind::Map } }
        }
        Arg::None => pointer(0),
        Arg::Size(n) => one(u32::try_from(*n).map_err(|_| misfit(op, "a size", "32 bits", *n))?.into(), 4, Kind::Bits),
        Arg::F32(x) => one(x.to_bits().into(), 4, Kind::Float),
    })
}

fn check(op: &'static str, name: &str, parameters: &[ptx::Parameter], words: &[Word]) -> Result<()> {
    let found: Vec<_> = words.iter().map(|word| word.parameter).collect();
    if found == parameters {
        return Ok(());
    }
    let wanted = format!("{parameters:?}");
    Err(Error::Argument { op, what: "a kernel's parameters", wanted, found: format!("{found:?} for {name}") })
}

fn misfit(op: &'static str, what: &'static str, wanted: &str, found: usize) -> Error {
    Error::Argument { op, what, wanted: wanted.into(), found: found.to_string() }
}

/// Finds a kernel, and loads its module if it is the first of it.
fn kernel(gpu: &Gpu, code: &Code, name: &str) -> Result<Arc<Kernel>> {
    let op = code.op;
    let fail = |reason: String| Error::Gpu { op, kernel: name.into(), reason };
    let loaded = gpu.attached::<Loaded>().ok_or_else(|| fail("the GPU is in other hands".into()))?;
    let mut tables = loaded.tables.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kernel) = tables.kernels.get(name) {
        return Ok(kernel.clone());
    }
    let module = match tables.modules.get(op) {
        Some(module) => module.clone(),
        None => {
            let context = gpu.stream().context();
            let module = context.load_module(Ptx::from_src(code.ptx)).map_err(|e| fail(format!("{e:?}")))?;
            tables.modules.insert(op, module.clone());
            module
        }
    };
    let function = module.load_function(name).map_err(|e| fail(format!("{e:?}")))?;
    let parameters = ptx::parameters(code.ptx, name).ok_or_else(|| fail("the PTX lacks its parameters".into()))?;
    let own = function.shared_size_bytes().map_err(|e| fail(format!("{e:?}")))?;
    let left = SHARED_FOR_ALL.saturating_sub(usize::try_from(own).unwrap_or(0));
    let kernel = Arc::new(Kernel { function, parameters, shared_bytes: Mutex::new(left) });
    tables.kernels.insert(name.into(), kernel.clone());
    Ok(kernel)
}

impl Kernel {
    fn allow_shared(&self, bytes: usize) -> std::result::Result<(), DriverError> {
        let mut allowed = self.shared_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > *allowed {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            self.function.set_attribute(attribute, i32::try_from(bytes).unwrap_or(i32::MAX))?;
            *allowed = bytes;
        }
        Ok(())
    }
}
