//! Launches of `linear.cu`.

use tensor::{DType, Device, Gpu, Tensor};

use super::{Epilogue, OP};
use crate::Result;
use crate::cuda::cublaslt::{self, Addresses, Layout};
use crate::cuda::{Arg, Code, Grid, Matrix, address, launch};
use crate::error::of;

const CODE: Code = Code { op: OP, ptx: include_str!("linear.ptx") };
const HOPPER: Code = Code { op: "linear_hopper", ptx: include_str!("linear_hopper.ptx") };

/// Rows and columns of the result that a block makes, as `TILE` of the kernels.
const TILE: usize = 128;
/// Three tiles of both factors of bf16, or a tile's sums, in bytes.
const TENSOR_SHARED: usize = 3 * 2 * TILE * 64 * 2;
/// Four of both factors, which begin at a multiple of 1024.
const HOPPER_SHARED: usize = 4 * 2 * TILE * 64 * 2 + 1024;
const PLAIN_SHARED: usize = TILE * (TILE + 8) * size_of::<f32>();
/// Columns of the result that a block of two warps makes of few rows.
const FEW_COLUMNS: usize = 8;
/// Rows whose columns a block sums, as `CHUNK` of the kernel.
const CHUNK: usize = 256;
/// A weight's gradient has a sum over all rows for each element. With fewer tiles than this the sums are cut into parts, of
/// no fewer than so many products, as fewer blocks would leave a large GPU idle.
const BLOCKS: usize = 256;
const PART: usize = 512;
/// Products of two factors are summed in whole tiles so deep.
const DEPTH: usize = 64;

/// Columns that a block finishes, as `FINISHED` of the kernel.
const FINISHED: usize = 1024;

/// Where among a product's arguments the left factor is; the right one follows.
const LEFT: usize = 2;

/// Bits of the kernels' `flags`.
const GELU: usize = 1;
const F32: usize = 2;
const ADD: usize = 4;

/// What is done to the sums of a product.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    bias: Option<&'a Tensor>,
    residual: Option<&'a Tensor>,
    flags: usize,
}

impl<'a> Finish<'a> {
    /// They are stored as f32.
    pub const STORED: Self = Self { bias: None, residual: None, flags: F32 };
    /// They are added to f32.
    pub const ADDED: Self = Self { flags: F32 | ADD, ..Self::STORED };

    pub fn new(bias: Option<&'a Tensor>, epilogue: Epilogue<'a>, dtype: DType) -> Self {
        let f32 = if dtype == DType::F32 { F32 } else { 0 };
        let (residual, gelu) = match epilogue {
            Epilogue::None => (None, 0),
            Epilogue::Gelu => (None, GELU),
            Epilogue::Residual(residual) => (Some(residual), 0),
        };
        Self { bias, residual, flags: f32 | gelu }
    }
}

/// `x · Wᵀ`, finished, as `dtype`, which is that of x or f32.
pub(crate) fn forward(
    gpu: &Gpu,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    epilogue: Epilogue<'_>,
    dtype: DType,
) -> Result<Tensor> {
    let [(t, k), (n, _)] = dims([x, w])?;
    let mut y = undefined(gpu, &[t, n], dtype)?;
    let product = Product { name: "forward", left: (x, 0), right: (w, 0), sizes: [t, n, k], depth: k };
    product.launch(gpu, Arg::Out(&mut y), None, Finish::new(bias, epilogue, dtype))?;
    Ok(y)
}

/// `x · Wᵀ + b` and `gelu` of it.
pub(super) fn forward_gelu_saved(gpu: &Gpu, x: &Tensor, w: &Tensor, bias: &Tensor) -> Result<(Tensor, Tensor)> {
    let [(t, k), (n, _)] = dims([x, w])?;
    let (mut pre, mut y) = (undefined(gpu, &[t, n], x.dtype())?, undefined(gpu, &[t, n], x.dtype())?);
    let product = Product { name: "forward", left: (x, 0), right: (w, 0), sizes: [t, n, k], depth: k };
    product.launch(gpu, Arg::Out(&mut y), Some(&mut pre), Finish::new(Some(bias), Epilogue::Gelu, x.dtype()))?;
    Ok((pre, y))
}

/// `dy · W`
pub(crate) fn backward_input(gpu: &Gpu, dy: &Tensor, w: &Tensor) -> Result<Tensor> {
    let [(t, n), (_, k)] = dims([dy, w])?;
    let mut dx = undefined(gpu, &[t, k], dy.dtype())?;
    let product = Product { name: "backward_input", left: (dy, 0), right: (w, 0), sizes: [t, k, n], depth: n };
    product.launch(gpu, Arg::Out(&mut dx), None, Finish::new(None, Epilogue::None, dy.dtype()))?;
    Ok(dx)
}

/// `dw += dyᵀ · x` with dw f32.
pub(crate) fn backward_weight(gpu: &Gpu, dy: &Tensor, x: &Tensor, dw: &mut Tensor) -> Result<()> {
    let [(t, n), (_, k)] = dims([dy, x])?;
    let depth = depth(gpu, [n, k], t);
    let product = Product { name: "backward_weight", left: (dy, 0), right: (x, 0), sizes: [n, k, t], depth };
    if product.parts() == 1 {
        return product.launch(gpu, Arg::Out(dw), None, Finish::ADDED);
    }
    product.add_in_parts(gpu, dw)
}

/// How many of `k` products a block sums, for a result of so many rows and columns. From these alone, since it decides on the order of
/// the sums.
pub(crate) fn depth(gpu: &Gpu, [rows, columns]: [usize; 2], k: usize) -> usize {
    let tiles = rows.div_ceil(TILE) * columns.div_ceil(TILE);
    let parts = match cublaslt::of_gpu(gpu) {
        Some(_) => 1,
        None => BLOCKS.checked_div(tiles).unwrap_or(1).min(k / PART).max(1),
    };
    k.div_ceil(parts).next_multiple_of(DEPTH)
}

/// `db += Σ_t dy` with db f32.
pub(super) fn backward_bias(gpu: &Gpu, dy: &Tensor, db: &mut Tensor) -> Result<()> {
    let (t, n) = dy.dims2().map_err(of(OP))?;
    let chunks = t.div_ceil(CHUNK);
    if chunks == 0 {
        return Ok(());
    }
    let mut sums = undefined(gpu, &[chunks, n], DType::F32)?;
    let grid = Grid { blocks: [chunks, n.div_ceil(32), 1], ..Grid::new(0, 256) };
    let mut args = [Arg::Out(&mut sums), Arg::In(dy), Arg::Size(t), Arg::Size(n)];
    launch(gpu, &CODE, &format!("linear_sum_columns_{}", dy.dtype()), grid, &mut args)?;
    add_parts(gpu, db, &sums)
}

/// As [`forward`] with the kernels for few rows.
pub(crate) fn few_rows(
    gpu: &Gpu,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    epilogue: Epilogue<'_>,
    dtype: DType,
) -> Result<Tensor> {
    let [(t, k), (n, _)] = dims([x, w])?;
    let mut y = undefined(gpu, &[t, n], dtype)?;
    let finish = Finish::new(bias, epilogue, dtype);
    let mut args = [
        Arg::Out(&mut y),
        Arg::In(x),
        Arg::In(w),
        optional(finish.bias),
        optional(finish.residual),
        Arg::Size(t),
        Arg::Size(n),
        Arg::Size(k),
        Arg::Size(finish.flags),
    ];
    // The same bits from both; the one for fewer rows has more warps at work.
    let few = if t <= 4 { 4 } else { 16 };
    let name = format!("linear_{few}_rows_{}_{}", x.dtype(), w.dtype());
    let blocks = if t == 0 { 0 } else { n.div_ceil(FEW_COLUMNS) };
    launch(gpu, &CODE, &name, Grid::new(blocks, 64), &mut args)?;
    Ok(y)
}

/// `dy · gelu'(pre)`
pub(super) fn gelu_backward(gpu: &Gpu, dy: &Tensor, pre: &Tensor) -> Result<Tensor> {
    let mut dx = undefined(gpu, dy.shape(), dy.dtype())?;
    let count = dy.elements();
    let mut args = [Arg::Out(&mut dx), Arg::In(dy), Arg::In(pre), Arg::Size(count)];
    // A thread takes 16 bytes.
    let grid = Grid::new(count.div_ceil(256 * 16 / dy.dtype().size()), 256);
    launch(gpu, &CODE, &format!("linear_gelu_backward_{}", dy.dtype()), grid, &mut args)?;
    Ok(dx)
}

/// A product of two matrices.
pub(crate) struct Product<'a> {
    /// The kernel's, without dtypes.
    pub name: &'static str,
    /// The factors, and the element that each begins at.
    pub left: (&'a Tensor, usize),
    pub right: (&'a Tensor, usize),
    /// Rows, columns, products.
    pub sizes: [usize; 3],
    /// How many products a block sums: all, or a multiple of [`DEPTH`], as boxes do not end there.
    pub depth: usize,
}

impl Product<'_> {
    /// How many blocks share the sum of an element.
    fn parts(&self) -> usize {
        self.sizes[2].div_ceil(self.depth.max(1)).max(1)
    }

    /// Adds the product to `to`, which is f32: each part by itself first.
    fn add_in_parts(&self, gpu: &Gpu, to: &mut Tensor) -> Result<()> {
        let [rows, columns, _] = self.sizes;
        let mut sums = undefined(gpu, &[self.parts(), rows, columns], DType::F32)?;
        self.launch(gpu, Arg::Out(&mut sums), None, Finish::STORED)?;
        add_parts(gpu, to, &sums)
    }

    /// As [`launch`](Self::launch), also where a block does not sum all products.
    pub fn launch_in_parts(&self, gpu: &Gpu, y: Arg, finish: Finish<'_>) -> Result<()> {
        if self.parts() == 1 {
            return self.launch(gpu, y, None, finish);
        }
        let [rows, columns, _] = self.sizes;
        let mut sums = Tensor::zeros_on(&Device::Cuda(gpu.clone()), &[rows, columns], DType::F32).map_err(of(OP))?;
        self.add_in_parts(gpu, &mut sums)?;
        self.finish(gpu, y, None, &sums, finish)
    }

    /// What is done to the sums `[rows, columns]`, which are f32.
    fn finish(&self, gpu: &Gpu, y: Arg, pre: Option<&mut Tensor>, sums: &Tensor, finish: Finish<'_>) -> Result<()> {
        let [rows, columns, _] = self.sizes;
        let mut args = [
            y,
            pre.map_or(Arg::None, Arg::Out),
            Arg::In(sums),
            optional(finish.bias),
            optional(finish.residual),
            Arg::Size(rows),
            Arg::Size(columns),
            Arg::Size(finish.flags),
        ];
        let grid = Grid { blocks: [rows, columns.div_ceil(FINISHED), 1], ..Grid::new(0, FINISHED / 4) };
        launch(gpu, &CODE, &format!("linear_finish_{}", self.left.0.dtype()), grid, &mut args)
    }

    /// Where a block does not sum all products, `y` has a matrix for each of its parts.
    pub fn launch(&self, gpu: &Gpu, mut y: Arg, mut pre: Option<&mut Tensor>, finish: Finish<'_>) -> Result<()> {
        if self.by_cublaslt(gpu, &mut y, pre.as_deref_mut(), finish)? {
            return Ok(());
        }
        let Self { name, left: (left, left_from), right: (right, right_from), sizes: [rows, columns, k], depth } =
            *self;
        let blocks = [rows.div_ceil(TILE) * columns.div_ceil(TILE), 1, self.parts()];
        let mut args = [
            y,
            pre.map_or(Arg::None, Arg::Out),
            Arg::InFrom(left, left_from),
            Arg::InFrom(right, right_from),
            optional(finish.bias),
            optional(finish.residual),
            Arg::Size(rows),
            Arg::Size(columns),
            Arg::Size(k),
            Arg::Size(depth),
            Arg::Size(finish.flags),
        ];
        let grid = |threads, shared_bytes| Grid { blocks, threads, shared_bytes };
        if left.dtype() == DType::BF16 && right.dtype() == DType::BF16 && gpu.hopper().map_err(of(OP))? {
            // Of a factor either its map or its address.
            let mut args = Vec::from(args);
            for (at, matrix) in [LEFT, LEFT + 1].into_iter().zip(self.factors()) {
                let map = matrix.has_map(gpu, OP)?.then_some(matrix);
                if map.is_some() {
                    args[at] = Arg::None;
                }
                args.push(Arg::Map(map));
            }
            return launch(gpu, &HOPPER, &format!("linear_hopper_{name}"), grid(256, HOPPER_SHARED), &mut args);
        }
        let name = format!("linear_{name}_{}_{}", left.dtype(), right.dtype());
        let plain = left.dtype() != DType::BF16;
        let grid = if plain { grid(256, PLAIN_SHARED) } else { grid(128, TENSOR_SHARED) };
        launch(gpu, &CODE, &name, grid, &mut args)
    }
}

impl<'a> Product<'a> {
    /// How the factors lie in memory.
    fn layouts(&self) -> [Layout; 2] {
        match self.name {
            "forward" => [Layout::Along, Layout::Along],
            "backward_input" => [Layout::Along, Layout::Across],
            _ => [Layout::Across, Layout::Across],
        }
    }

    /// The factors as they lie in memory.
    fn factors(&self) -> [Matrix<'a>; 2] {
        let [rows, columns, k] = self.sizes;
        let [left, right] = self.layouts();
        let matrix = |(tensor, from): (&'a Tensor, usize), count, layout| match layout {
            Layout::Along => Matrix { tensor, from, lines: count, columns: k },
            Layout::Across => Matrix { tensor, from, lines: k, columns: count },
        };
        [matrix(self.left, rows, left), matrix(self.right, columns, right)]
    }

    /// By cuBLASLt, if it is used and has this product: with all that is done to the sums, where it means the same by it, which
    /// nobody has seen of its GELU; otherwise it leaves the sums as f32.
    fn by_cublaslt(&self, gpu: &Gpu, y: &mut Arg, pre: Option<&mut Tensor>, finish: Finish<'_>) -> Result<bool> {
        let Some(library) = cublaslt::of_gpu(gpu) else { return Ok(false) };
        let Self { left: (left, left_from), right: (right, right_from), sizes, depth, .. } = *self;
        let [rows, columns, k] = sizes;
        if left.dtype() != right.dtype() || sizes.contains(&0) || depth < k {
            return Ok(false);
        }
        let mut at = Addresses {
            left: address(gpu, OP, &mut Arg::InFrom(left, left_from))?,
            right: address(gpu, OP, &mut Arg::InFrom(right, right_from))?,
            bias: address(gpu, OP, &mut optional(finish.bias))?,
            y: address(gpu, OP, y)?,
        };
        let alignments = |at: &Addresses| [at.left, at.right, at.y].map(cublaslt::alignment);
        let product = cublaslt::Product {
            sizes,
            layouts: self.layouts(),
            from: left.dtype(),
            to: if finish.flags & F32 == 0 { left.dtype() } else { DType::F32 },
            bias: finish.bias.is_some(),
            add: finish.flags & ADD != 0,
            alignments: alignments(&at),
        };
        // It adds a bias of the result's type only, and ours are f32.
        let biased = finish.bias.is_some() && product.to != DType::F32;
        let plain = !biased && pre.is_none() && finish.residual.is_none() && finish.flags & GELU == 0;
        if plain && library.multiply(gpu, OP, product, at)? {
            return Ok(true);
        }
        let mut sums = undefined(gpu, &[rows, columns], DType::F32)?;
        at.y = sums.gpu_pointer_mut(gpu).map_err(of(OP))?;
        let product =
            cublaslt::Product { to: DType::F32, bias: false, add: false, alignments: alignments(&at), ..product };
        if !library.multiply(gpu, OP, product, at)? {
            return Ok(false);
        }
        self.finish(gpu, std::mem::replace(y, Arg::None), pre, &sums, finish)?;
        Ok(true)
    }
}

/// `to += Σ parts` in their order, with a first axis for the parts.
fn add_parts(gpu: &Gpu, to: &mut Tensor, parts: &Tensor) -> Result<()> {
    let (count, n) = (parts.shape()[0], to.elements());
    let mut args = [Arg::Out(to), Arg::In(parts), Arg::Size(count), Arg::Size(n)];
    launch(gpu, &CODE, "linear_add_parts", Grid::new(n.div_ceil(256), 256), &mut args)
}

fn optional(tensor: Option<&Tensor>) -> Arg<'_> {
    tensor.map_or(Arg::None, Arg::In)
}

fn undefined(gpu: &Gpu, sizes: &[usize], dtype: DType) -> Result<Tensor> {
    Tensor::undefined(gpu, sizes, dtype).map_err(of(OP))
}

fn dims(tensors: [&Tensor; 2]) -> Result<[(usize, usize); 2]> {
    let [a, b] = tensors.map(|x| x.dims2().map_err(of(OP)));
    Ok([a?, b?])
}
