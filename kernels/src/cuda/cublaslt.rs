//! Products of matrices by cuBLASLt, where it is to be used (`tensor::UseOf`) and installed. It stores matrices column by column,
//! ours go row by row: so the transposed product is asked for, of the factors in the other order.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;
use tensor::{DType, Gpu, Tensor};

use super::Loaded;
use crate::error::of;
use crate::{Error, Result};

/// Memory that a product may be given beside its matrices.
const WORKSPACE: usize = 32 << 20;
/// Products whose sizes are remembered; packed rows have ever other ones.
const PLANS: usize = 1 << 12;

/// `CUBLAS_OP_T`, which cudarc has among the functions of cuBLAS.
const TRANSPOSED: i32 = 1;

/// The library, with what it said of products so far: how to compute them, or that it cannot.
pub(crate) struct CublasLt(Mutex<Opened>);

struct Opened {
    handle: sys::cublasLtHandle_t,
    plans: HashMap<Product, Option<Plan>>,
}

// SAFETY: a handle and descriptors belong to no thread, and only one at a time uses them, as they are in a mutex.
unsafe impl Send for Opened {}

/// How a factor of k products lies in memory, row by row: its rows are the result's rows (or columns) or the products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Layout {
    Along,
    Across,
}

/// `y [rows, columns] = left · right (+ bias [columns]) (+ y)`, summed in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Product {
    /// Rows, columns, products; none is 0.
    pub sizes: [usize; 3],
    /// Of left and right.
    pub layouts: [Layout; 2],
    /// Of left and right, both; f32 or bf16.
    pub from: DType,
    /// Of y.
    pub to: DType,
    /// A bias in f32 is added, which it does to y in f32 only.
    pub bias: bool,
    /// y is added.
    pub add: bool,
    /// Of left, right and y, in bytes, by their addresses.
    pub alignments: [u32; 3],
}

/// Addresses of live memory of a GPU.
#[derive(Clone, Copy)]
pub(crate) struct Addresses {
    pub left: u64,
    pub right: u64,
    pub bias: u64,
    pub y: u64,
}

/// The largest alignment of an address that a library may ask for.
pub(crate) fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(8)
}

/// How a product is computed.
struct Plan {
    desc: Desc,
    left: Matrix,
    right: Matrix,
    y: Matrix,
    algorithm: sys::cublasLtMatmulAlgo_t,
    workspace: usize,
}

/// The library for this GPU, if it is to be used and is there.
pub(crate) fn of_gpu(gpu: &Gpu) -> Option<&CublasLt> {
    if !gpu.use_of().cublaslt {
        return None;
    }
    gpu.attached::<Loaded>()?.cublaslt.get_or_init(|| CublasLt::open(gpu)).as_ref()
}

/// Its version, as in 120000.
pub(crate) fn version(gpu: &Gpu) -> Option<usize> {
    of_gpu(gpu)?;
    // SAFETY: the library is there; the function takes nothing and gives a number.
    Some(unsafe { sys::cublasLtGetVersion() })
}

impl CublasLt {
    fn open(gpu: &Gpu) -> Option<Self> {
        // SAFETY: loads the library and drops it again; its initialisers are NVIDIA's (or a test's).
        if !unsafe { sys::is_culib_present() } {
            return None;
        }
        gpu.stream().context().bind_to_thread().ok()?;
        let handle = result::create_handle().ok()?;
        Some(Self(Mutex::new(Opened { handle, plans: HashMap::new() })))
    }

    /// Puts the product on the stream; `false` if the library does not have it.
    ///
    /// # Errors
    /// What the library says.
    pub fn multiply(&self, gpu: &Gpu, op: &'static str, product: Product, at: Addresses) -> Result<bool> {
        let fail = |e: CublasError| Error::Gpu { op, kernel: "cublasLtMatmul".into(), reason: format!("{e:?}") };
        let driver = |e| Error::Gpu { op, kernel: "cublasLtMatmul".into(), reason: format!("{e:?}") };
        gpu.stream().context().bind_to_thread().map_err(driver)?;
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Opened { handle, plans } = &mut *opened;
        if plans.len() >= PLANS && !plans.contains_key(&product) {
            plans.clear();
        }
        let plan = match plans.entry(product) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Plan::new(*handle, &product).map_err(fail)?)
            }
        };
        let Some(plan) = plan else { return Ok(false) };
        if product.bias {
            let pointer = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            plan.desc.set(pointer, &at.bias).map_err(fail)?;
        }
        let (alpha, beta) = (1.0f32, if product.add { 1.0f32 } else { 0.0 });
        let bytes = plan.workspace.max(4);
        let mut workspace = Tensor::undefined(gpu, &[bytes.div_ceil(4)], DType::U32).map_err(of(op))?;
        let workspace = workspace.gpu_pointer_mut(gpu).map_err(of(op))?;
        let pointer = |address: u64| std::ptr::with_exposed_provenance_mut::<c_void>(address as usize);
        // SAFETY: the descriptors are of matrices of these sizes at these addresses, which are of live memory of this GPU, as is the
        // workspace; all is freed in the order of this same stream. The two factors are read during the call.
        unsafe {
            result::matmul(
                *handle,
                plan.desc.0,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                pointer(at.right),
                plan.right.0,
                pointer(at.left),
                plan.left.0,
                pointer(at.y),
                plan.y.0,
                pointer(at.y),
                plan.y.0,
                &raw const plan.algorithm,
                pointer(workspace),
                plan.workspace,
                gpu.stream().cu_stream().cast(),
            )
        }
        .map_err(fail)?;
        Ok(true)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.plans.clear();
        // SAFETY: it was created, and is not used again.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

impl Plan {
    /// `None` if the library does not have this product.
    fn new(handle: sys::cublasLtHandle_t, product: &Product) -> std::result::Result<Option<Self>, CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        use sys::cublasLtMatmulPreferenceAttributes_t as Wish;
        let [rows, columns, k] = product.sizes.map(|n| n as u64);
        let desc = Desc::new()?;
        // Row by row [columns, k] is column by column [k, columns].
        let right = match product.layouts[1] {
            Layout::Along => {
                desc.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
                Matrix::new(product.from, k, columns)?
            }
            Layout::Across => Matrix::new(product.from, columns, k)?,
        };
        let left = match product.layouts[0] {
            Layout::Along => Matrix::new(product.from, k, rows)?,
            Layout::Across => {
                desc.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &TRANSPOSED)?;
                Matrix::new(product.from, rows, k)?
            }
        };
        let y = Matrix::new(product.to, columns, rows)?;
        if product.bias {
            desc.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS)?;
            desc.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &sys::cudaDataType_t::CUDA_R_32F)?;
        }
        let wishes = Wishes::new()?;
        wishes.set(Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE)?;
        let [of_left, of_right, of_y] = product.alignments;
        wishes.set(Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &of_right)?;
        wishes.set(Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &of_left)?;
        wishes.set(Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &of_y)?;
        wishes.set(Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &of_y)?;
        // SAFETY: the handle and all descriptors are live.
        let found = unsafe { result::get_matmul_algo_heuristic(handle, desc.0, right.0, left.0, y.0, y.0, wishes.0) };
        match found {
            Ok(found) => Ok(Some(Self { desc, left, right, y, algorithm: found.algo, workspace: found.workspaceSize })),
            // Not supported, or a wish that this version of the library does not know: our own kernels do it.
            Err(_) => Ok(None),
        }
    }
}

/// A description of a product, which is destroyed in the end; as the others.
struct Desc(sys::cublasLtMatmulDesc_t);
struct Matrix(sys::cublasLtMatrixLayout_t);
struct Wishes(sys::cublasLtMatmulPreference_t);

impl Desc {
    /// Sums in f32, and not in TF32.
    fn new() -> std::result::Result<Self, CublasError> {
        let (sums, scale) = (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType_t::CUDA_R_32F);
        result::create_matmul_desc(sums, scale).map(Self)
    }

    fn set<T>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, to: &T) -> std::result::Result<(), CublasError> {
        // SAFETY: the description is live; the value is read during the call, and the library checks its size.
        unsafe { result::set_matmul_desc_attribute(self.0, attribute, std::ptr::from_ref(to).cast(), size_of::<T>()) }
    }
}

impl Matrix {
    /// Column by column, without gaps.
    fn new(dtype: DType, rows: u64, columns: u64) -> std::result::Result<Self, CublasError> {
        let dtype = match dtype {
            DType::BF16 => sys::cudaDataType_t::CUDA_R_16BF,
            _ => sys::cudaDataType_t::CUDA_R_32F,
        };
        result::create_matrix_layout(dtype, rows, columns, rows.cast_signed()).map(Self)
    }
}

impl Wishes {
    fn new() -> std::result::Result<Self, CublasError> {
        result::create_matmul_pref().map(Self)
    }

    fn set<T>(&self, wish: sys::cublasLtMatmulPreferenceAttributes_t, to: &T) -> std::result::Result<(), CublasError> {
        // SAFETY: the preferences are live; the value is read during the call, and the library checks its size.
        unsafe { result::set_matmul_pref_attribute(self.0, wish, std::ptr::from_ref(to).cast(), size_of::<T>()) }
    }
}

impl Drop for Desc {
    fn drop(&mut self) {
        // SAFETY: it was created, and is not used again.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

impl Drop for Matrix {
    fn drop(&mut self) {
        // SAFETY: it was created, and is not used again.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

impl Drop for Wishes {
    fn drop(&mut self) {
        // SAFETY: it was created, and is not used again.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}
