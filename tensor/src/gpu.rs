//! GPUs by way of the CUDA driver, which is looked for when one is asked for: nothing here needs it to be installed.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use cudarc::driver::{CudaContext, CudaGraph, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DriverError, sys};

use crate::{Error, Result};

/// An opened GPU: a CUDA context, and the one stream on which everything happens in order. Cloning shares it.
#[derive(Clone)]
pub struct Gpu(Arc<Opened>);

struct Opened {
    /// First, as it is of the stream's context.
    attached: OnceLock<Box<dyn Any + Send + Sync>>,
    stream: Arc<CudaStream>,
    ordinal: usize,
    use_of: UseOf,
    /// The number of the capture by which what is asked of it now is put down, and done later; 0 for none.
    capturing: AtomicU64,
    captures: AtomicU64,
    /// The memory of others that the capture uses.
    used: Mutex<Vec<Weak<()>>>,
    /// Why nothing more is captured.
    refused: OnceLock<String>,
}

/// What of a GPU is used, where it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UseOf {
    /// Graphs: what is launched again and again is put down once, see [`Gpu::capture`].
    pub graphs: bool,
    /// cuBLASLt for products of matrices. It has been tried on a simulated GPU only, and a row's bits may depend on how many rows
    /// come with it.
    pub cublaslt: bool,
    /// Kernels for compute capability 9.0 alone. They have been tried on simulated GPUs only.
    pub hopper: bool,
}

impl Default for UseOf {
    /// What has no drawback.
    fn default() -> Self {
        Self { graphs: true, cublaslt: false, hopper: false }
    }
}

impl Gpu {
    /// The CUDA version that the driver is for, major and minor; `None` without a driver.
    pub fn driver() -> Option<(i32, i32)> {
        // SAFETY: loads the driver's library and drops it again; its initialisers are NVIDIA's (or a test's).
        if !unsafe { sys::is_culib_present() } {
            return None;
        }
        let mut version = 0;
        // SAFETY: writes one number.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().ok()?;
        Some((version / 1000, version % 1000 / 10))
    }

    /// How many GPUs there are; none without a driver.
    pub fn count() -> usize {
        // SAFETY: loads the driver's library and drops it again; its initialisers are NVIDIA's (or a test's).
        if !unsafe { sys::is_culib_present() } {
            return 0;
        }
        CudaContext::device_count().ok().and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
    }

    /// Opens GPU number `ordinal`. Each call makes a stream of its own: tensors of one do not go to the kernels of another.
    ///
    /// # Errors
    /// No such GPU, or what the driver says.
    pub fn open(ordinal: usize) -> Result<Self> {
        Self::open_to_use(ordinal, UseOf::default())
    }

    /// As [`open`](Self::open), to use of it what is said.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_to_use(ordinal: usize, use_of: UseOf) -> Result<Self> {
        let count = Self::count();
        if ordinal >= count {
            let reason = if count == 0 { "no CUDA driver, or no GPU".into() } else { format!("there are {count}") };
            return Err(Error::Gpu { action: "open GPU", what: ordinal.to_string(), reason });
        }
        let open = || -> std::result::Result<Arc<CudaStream>, DriverError> {
            let context = CudaContext::new(ordinal)?;
            // SAFETY: all work on this context's memory is put on one stream, which needs no events to keep its order.
            unsafe { context.disable_event_tracking() };
            // Not the default stream, which cannot be captured into a graph.
            let stream = context.new_stream()?;
            if context.has_async_alloc() {
                keep_freed_memory(&context)?;
            }
            Ok(stream)
        };
        let stream = open().map_err(failed("open GPU", ordinal))?;
        Ok(Self(Arc::new(Opened {
            stream,
            ordinal,
            use_of,
            capturing: AtomicU64::new(0),
            captures: AtomicU64::new(0),
            used: Mutex::default(),
            refused: OnceLock::new(),
            attached: OnceLock::new(),
        })))
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.0.ordinal
    }

    /// The product's name.
    ///
    /// # Errors
    /// What the driver says.
    pub fn name(&self) -> Result<String> {
        self.context().name().map_err(failed("ask the name of GPU", self.ordinal()))
    }

    /// Compute capability, major and minor.
    ///
    /// # Errors
    /// What the driver says.
    pub fn compute_capability(&self) -> Result<(i32, i32)> {
        self.context().compute_capability().map_err(failed("ask the compute capability of GPU", self.ordinal()))
    }

    /// Free and total memory, in bytes.
    ///
    /// # Errors
    /// What the driver says.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.context().mem_get_info().map_err(failed("ask the memory of GPU", self.ordinal()))
    }

    /// Waits for all that was asked of it.
    ///
    /// # Errors
    /// What went wrong in any of it.
    pub fn synchronize(&self) -> Result<()> {
        self.stream().synchronize().map_err(failed("synchronize GPU", self.ordinal()))
    }

    /// What of it is used, where it is there.
    pub fn use_of(&self) -> UseOf {
        self.0.use_of
    }

    /// Whether kernels for compute capability 9.0 alone are to be used, and this is it.
    ///
    /// # Errors
    /// What the driver says.
    pub fn hopper(&self) -> Result<bool> {
        Ok(self.0.use_of.hopper && self.compute_capability()? == (9, 0))
    }

    /// Whether work can be captured: graphs may be used, memory is allocated in the order of the stream, and nobody has given up.
    pub fn captures(&self) -> bool {
        self.0.use_of.graphs && self.context().has_async_alloc() && self.refused().is_none()
    }

    /// Has nothing more captured, as something was refused.
    pub fn give_up_captures(&self, why: String) {
        // The first reason stays.
        let _ = self.0.refused.set(why);
    }

    /// Why nothing more is captured, if somebody has given up.
    pub fn refused(&self) -> Option<&str> {
        self.0.refused.get().map(String::as_str)
    }

    /// Puts down what `work` asks of the stream, and then does it, once. Tensors that `work` makes and drops are there while
    /// the graph is launched; those that it returns, from a launch to the next, at the same place. It must not wait for the GPU, copy
    /// from or to main memory, or drop tensors of others; no other thread may ask anything of this GPU meanwhile. The graph can be
    /// launched as long as the memory of other tensors that it reads or writes is there.
    ///
    /// # Errors
    /// That of `work`, or what the driver says: that it cannot capture this, for one.
    pub fn capture<T, E: From<Error>>(
        &self,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<(T, Graph), E> {
        let fail = failed("capture the work of GPU", self.ordinal());
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let again = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        if let Err(e) = self.stream().begin_capture(mode) {
            return Err(fail(e).into());
        }
        let used = || std::mem::take(&mut *self.0.used.lock().unwrap_or_else(PoisonError::into_inner));
        used();
        self.0.capturing.store(self.0.captures.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let made = work();
        self.0.capturing.store(0, Ordering::Relaxed);
        // An error of a tensor that was dropped: it would be told instead of ending the capture.
        let dropped = self.context().check_err();
        let graph = self.stream().end_capture(again);
        let both = made.and_then(|made| {
            let graph = dropped.and(graph).and_then(|graph| {
                let graph = graph.ok_or(DriverError(sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED))?;
                graph.launch()?;
                Ok(graph)
            });
            Ok((made, Graph { work: graph.map_err(fail)?, gpu: self.clone(), uses: used() }))
        });
        if both.is_err() {
            // What was dropped had never been there to be freed, which cudarc would tell of at the next call.
            let _ = self.context().check_err();
        }
        both
    }

    /// The stream on which everything happens.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.0.stream
    }

    /// What another crate keeps for as long as this GPU is open, made at the first call. One type only; `None` for a second.
    pub fn attached<T: Any + Send + Sync + Default>(&self) -> Option<&T> {
        self.0.attached.get_or_init(|| Box::new(T::default())).downcast_ref()
    }

    /// An error while it captures: a graph would copy from or to main memory that is long gone, and a driver may not say so.
    fn check_not_capturing(&self, action: &'static str) -> Result<()> {
        if self.capture_number() == 0 {
            return Ok(());
        }
        let reason = "its work is being captured, for later".into();
        Err(Error::Gpu { action, what: self.ordinal().to_string(), reason })
    }

    /// Of the capture that goes on; 0 if none does.
    fn capture_number(&self) -> u64 {
        self.0.capturing.load(Ordering::Relaxed)
    }

    fn context(&self) -> &Arc<CudaContext> {
        self.0.stream.context()
    }
}

/// Work that is launched as often as wanted, see [`Gpu::capture`].
pub struct Graph {
    work: CudaGraph,
    gpu: Gpu,
    /// Of each memory that is not its own, as long as that is there.
    uses: Vec<Weak<()>>,
}

impl Graph {
    /// Whether the memory of the tensors that it uses is there.
    pub fn is_whole(&self) -> bool {
        self.uses.iter().all(|memory| memory.strong_count() > 0)
    }

    /// Puts all of the work on the stream.
    ///
    /// # Errors
    /// The memory of a tensor that it uses is gone, or what the driver says.
    pub fn launch(&self) -> Result<()> {
        if !self.is_whole() {
            let reason = "the memory of a tensor that it uses is gone".into();
            return Err(Error::Gpu { action: "launch a graph on GPU", what: self.gpu.ordinal().to_string(), reason });
        }
        self.work.launch().map_err(failed("launch a graph on GPU", self.gpu.ordinal()))
    }
}

impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
impl Eq for Gpu {}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cuda:{}", self.ordinal())
    }
}

/// Memory goes back to the pool of the device, not to the system, when it is freed: a step's tensors are the next step's.
fn keep_freed_memory(context: &CudaContext) -> std::result::Result<(), DriverError> {
    let mut pool = std::ptr::null_mut();
    // SAFETY: asks for the handle of a device that exists, and writes it where it may.
    unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device()) }.result()?;
    let mut all = u64::MAX;
    let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: this attribute of a pool is a u64, which is read during the call.
    unsafe { sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut all).cast()) }.result()
}

fn failed(action: &'static str, what: impl ToString) -> impl FnOnce(DriverError) -> Error {
    move |e| Error::Gpu { action, what: what.to_string(), reason: format!("{e:?}") }
}

/// Bytes in a GPU's memory.
pub(crate) struct GpuMemory {
    /// As [`crate::Device::Cuda`], to lend it.
    pub device: crate::Device,
    gpu: Gpu,
    slice: CudaSlice<u8>,
    bytes: usize,
    /// For graphs to know whether it is there.
    there: Arc<()>,
    /// The capture that has made it; 0 for none.
    made_by: u64,
}

impl GpuMemory {
    /// Memory with anything in it.
    pub fn new(gpu: &Gpu, bytes: usize) -> Result<Self> {
        // SAFETY: the bytes are undefined until a kernel or a copy on the same stream has written them, as callers must.
        let slice = unsafe { gpu.stream().alloc::<u8>(bytes.max(1)) };
        let slice = slice.map_err(failed("allocate on a GPU (bytes)", bytes))?;
        Ok(Self::of(gpu, slice, bytes))
    }

    fn of(gpu: &Gpu, slice: CudaSlice<u8>, bytes: usize) -> Self {
        let (there, made_by) = (Arc::default(), gpu.capture_number());
        Self { device: crate::Device::Cuda(gpu.clone()), gpu: gpu.clone(), slice, bytes, there, made_by }
    }

    /// Says so to the capture that goes on, if it is not its own.
    fn used(&self) {
        let capture = self.gpu.capture_number();
        if capture != 0 && capture != self.made_by {
            self.gpu.0.used.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&self.there));
        }
    }

    /// Sets every byte to zero.
    pub fn clear(&mut self) -> Result<()> {
        self.used();
        self.gpu.stream().memset_zeros(&mut self.slice).map_err(failed("clear memory of GPU", self.gpu.ordinal()))
    }

    /// Copies all of `from`, which is as long.
    pub fn write(&mut self, from: &[u8]) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        self.gpu.check_not_capturing("copy to GPU")?;
        self.gpu.stream().memcpy_htod(from, &mut self.slice).map_err(failed("copy to GPU", self.gpu.ordinal()))
    }

    /// All bytes, after everything before has been done.
    pub fn read(&self) -> Result<Vec<u8>> {
        if self.bytes == 0 {
            return Ok(vec![]);
        }
        self.gpu.check_not_capturing("copy from GPU")?;
        let mut to = self.gpu.stream().clone_dtoh(&self.slice).map_err(failed("copy from GPU", self.gpu.ordinal()))?;
        self.gpu.synchronize()?;
        to.truncate(self.bytes);
        Ok(to)
    }

    /// A copy in the same GPU's memory.
    pub fn duplicate(&self) -> Result<Self> {
        self.used();
        let slice = self.gpu.stream().clone_dtod(&self.slice).map_err(failed("copy within GPU", self.gpu.ordinal()))?;
        Ok(Self::of(&self.gpu, slice, self.bytes))
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Where it is. Good for work on the GPU's own stream: memory is freed in that stream's order.
    pub fn pointer(&self) -> u64 {
        self.used();
        self.slice.device_ptr(self.gpu.stream()).0
    }

    /// As [`pointer`](Self::pointer), to write to.
    pub fn pointer_mut(&mut self) -> u64 {
        self.used();
        self.slice.device_ptr_mut(self.gpu.stream()).0
    }
}
