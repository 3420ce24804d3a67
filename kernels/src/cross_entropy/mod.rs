//! The language model's head and its loss in one: logits = hidden · tableᵀ with the (tied) embedding table `[v, c]`, and
//! for each row the cross entropy with its target, log Σ exp(logits) − logits(target), in nats.
//!
//! With BLOOM's vocabulary of 250,880 a row of logits is 980 KiB. They are computed for a chunk of rows at a time and
//! never kept: the backward pass, dlogits = scale · (softmax − onehot(target)), dhidden = dlogits · table and dtable +=
//! dlogitsᵀ · hidden, follows at once (as in Liger Kernel, arXiv:2410.10989). A row's loss and its `dhidden` do not
//! depend on the other rows.

mod cpu;
mod cuda;
mod product;
#[cfg(test)]
mod spec;

use half::bf16;
use rayon::prelude::*;
use tensor::{DType, Device, Tensor, unwritten};

use crate::error::{expect, float, of};
use crate::linear::gemm::{Matrix, Start, Values, gemm};
use crate::linear::{self, Epilogue, Products, quantized};
use crate::{Error, Result, embedding, simd};

const OP: &str = "cross_entropy";

/// Rows of a chunk: their logits take at most 256 MiB, but no fewer than 16 rows, as the table is read once for each chunk. Whole tiles
/// of a GPU's product, which are of 128 rows, where there is one. From v alone, since it decides on the order of the sums of `dtable`.
fn chunk_rows(v: usize) -> usize {
    let rows = (1usize << 28).checked_div(4 * v).unwrap_or(0).clamp(16, 1024);
    if rows < 128 { rows } else { rows / 128 * 128 }
}

/// The loss of each row in nats `[r]` (f32), of `hidden` `[r, c]` (f32, on a GPU also bf16) under the head `table` `[v, c]` (f32 or
/// bf16; bf16 with bf16 rows; on a CPU also quantised) with the ids `targets` `[r]`.
///
/// # Errors
/// Shapes or dtypes that do not fit, or a target that is not below v.
pub fn forward(hidden: &Tensor, table: &Tensor, targets: &[u32]) -> Result<Tensor> {
    check(hidden, table, targets)?;
    if let Device::Cuda(gpu) = hidden.device() {
        return cuda::forward(gpu, hidden, table, targets);
    }
    let head = Head::new(hidden, table, targets)?;
    let mut losses = Vec::with_capacity(targets.len());
    head.chunks(Products::Stored, |logits, _, targets| {
        losses.par_extend(
            logits
                .par_chunks_exact(head.v)
                .zip(targets)
                .map(|(row, &target)| simd::run(cpu::Loss { logits: row, target: target as usize }).loss),
        );
        Ok(())
    })?;
    Tensor::new(&[targets.len()], losses).map_err(of(OP))
}

/// The losses in nats, as [`forward`], of several targets a row: `targets` are pairs of a row of `hidden` `[r, c]`, never one before
/// those of earlier pairs, and an id. A row meets the head once, however many targets it has.
///
/// # Errors
/// Shapes or dtypes that do not fit, rows that go back or are not below r, or a target that is not below v.
pub fn of_targets(hidden: &Tensor, table: &Tensor, targets: &[(u32, u32)]) -> Result<Vec<f32>> {
    let (r, _) = width(hidden, table)?;
    let ids: Vec<u32> = targets.iter().map(|(_, id)| *id).collect();
    check_targets(&ids, table)?;
    let ascend = targets.is_sorted_by_key(|(row, _)| row) && targets.last().is_none_or(|(row, _)| (*row as usize) < r);
    if !ascend {
        let found = targets.iter().map(|(row, _)| row).max().map_or(String::new(), u32::to_string);
        return Err(Error::Argument {
            op: OP,
            what: "the targets' rows",
            wanted: format!("ascending below {r}"),
            found,
        });
    }
    if hidden.device() != &Device::Cpu {
        let rows: Vec<u32> = targets.iter().map(|(row, _)| *row).collect();
        let losses = forward(&embedding::forward(hidden, &rows)?, table, &ids)?;
        return Ok(losses.to_device(&Device::Cpu).map_err(of(OP))?.values().map_err(of(OP))?.to_vec());
    }
    let none = vec![0; r];
    let head = Head::new(hidden, table, &none)?;
    let mut losses = Vec::with_capacity(targets.len());
    let (mut first, mut rest) = (0, targets);
    head.chunks(Products::Stored, |logits, _, chunk| {
        let (own, others) = rest.split_at(rest.partition_point(|(row, _)| (*row as usize) < first + chunk.len()));
        losses.par_extend(own.par_iter().map(|&(row, target)| {
            let logits = &logits[(row as usize - first) * head.v..][..head.v];
            simd::run(cpu::Loss { logits, target: target as usize }).loss
        }));
        first += chunk.len();
        rest = others;
        Ok(())
    })?;
    Ok(losses)
}

/// The loss of each row in nats `[r]`, as [`forward`], and the gradients of `scale` · Σ losses: by `hidden`, returned
/// `[r, c]` in its dtype; by the table, added to `dtable` `[v, c]`, f32.
///
/// # Errors
/// Shapes or dtypes that do not fit, or a target that is not below v.
pub fn forward_backward(
    hidden: &Tensor,
    table: &Tensor,
    targets: &[u32],
    scale: f32,
    dtable: &mut Tensor,
    products: Products,
) -> Result<(Tensor, Tensor)> {
    check(hidden, table, targets)?;
    expect(OP, "dtable's shape", dtable.shape(), table.shape())?;
    expect(OP, "dtable's dtype", dtable.dtype(), DType::F32)?;
    float(OP, "the table's dtype", table)?;
    if let Device::Cuda(gpu) = hidden.device() {
        return cuda::forward_backward(gpu, hidden, table, targets, scale, dtable);
    }
    let head = Head::new(hidden, table, targets)?;
    let dtable = dtable.values_mut::<f32>().map_err(of(OP))?;
    let (v, c) = (head.v, head.c);
    let mut losses = Vec::with_capacity(targets.len());
    let mut dhidden = unwritten(targets.len() * c);
    let mut rest = dhidden.as_mut_slice();
    let table = head.values()?;
    head.chunks(products, |logits, hidden, targets| {
        losses.par_extend(logits.par_chunks_exact_mut(v).zip(targets).map(|(logits, &target)| {
            let softmax = simd::run(cpu::Loss { logits, target: target as usize });
            simd::run(cpu::Gradient { logits, softmax, scale });
            logits[target as usize] -= scale;
            softmax.loss
        }));
        let rows = targets.len();
        let (part, others) = std::mem::take(&mut rest).split_at_mut(rows * c);
        rest = others;
        let dlogits = Matrix::row_major(Values::F32(logits), rows, v);
        gemm(part, dlogits, Matrix::row_major(table, v, c), Start::Zero, products);
        gemm(dtable, dlogits.t(), Matrix::row_major(Values::F32(hidden), rows, c), Start::Add, products);
        Ok(())
    })?;
    let losses = Tensor::new(&[targets.len()], losses).map_err(of(OP))?;
    Ok((losses, Tensor::new(&[targets.len(), c], dhidden).map_err(of(OP))?))
}

/// The logits `[b, v]` (f32) of a few rows `hidden` `[b, c]` (f32, on a GPU also bf16) under the head `table` `[v, c]` (f32 or bf16;
/// bf16 with bf16 rows; on a CPU also quantised), to sample from.
///
/// # Errors
/// Shapes or dtypes that do not fit.
pub fn logits(hidden: &Tensor, table: &Tensor) -> Result<Tensor> {
    if let Device::Cuda(gpu) = hidden.device() {
        width(hidden, table)?;
        return product::logits(gpu, hidden, table);
    }
    linear::few_rows(hidden, table, None, Epilogue::None)
}

fn check(hidden: &Tensor, table: &Tensor, targets: &[u32]) -> Result<()> {
    let (r, _) = width(hidden, table)?;
    expect(OP, "targets", targets.len(), r)?;
    check_targets(targets, table)
}

fn check_targets(targets: &[u32], table: &Tensor) -> Result<()> {
    let (v, _) = table.dims2().map_err(of(OP))?;
    if let Some(target) = targets.iter().find(|&&target| target as usize >= v) {
        let (wanted, found) = (format!("less than {v}"), target.to_string());
        return Err(Error::Argument { op: OP, what: "a target", wanted, found });
    }
    Ok(())
}

/// r and v.
fn width(hidden: &Tensor, table: &Tensor) -> Result<(usize, usize)> {
    let (r, c) = hidden.dims2().map_err(of(OP))?;
    let (v, width) = table.dims2().map_err(of(OP))?;
    expect(OP, "the table's width", width, c)?;
    if table.dtype().tile().is_none() {
        float(OP, "the table's dtype", table)?;
    }
    if float(OP, "hidden's dtype", hidden)? == DType::BF16 {
        expect(OP, "the table's dtype, with bf16 rows", table.dtype(), DType::BF16)?;
    }
    Ok((r, v))
}

/// Arguments that were checked, in main memory.
struct Head<'a> {
    hidden: &'a [f32],
    table: &'a Tensor,
    targets: &'a [u32],
    v: usize,
    c: usize,
}

impl<'a> Head<'a> {
    fn new(hidden: &'a Tensor, table: &'a Tensor, targets: &'a [u32]) -> Result<Self> {
        let (v, c) = table.dims2().map_err(of(OP))?;
        Ok(Self { hidden: hidden.values().map_err(of(OP))?, table, targets, v, c })
    }

    /// The table, unless it is quantised.
    fn values(&self) -> Result<Values<'a>> {
        Ok(match self.table.dtype() {
            DType::BF16 => Values::Bf16(self.table.values::<bf16>().map_err(of(OP))?),
            _ => Values::F32(self.table.values().map_err(of(OP))?),
        })
    }

    /// Calls `each` with the logits, the hidden rows and the targets of every chunk, in order.
    fn chunks(&self, products: Products, mut each: impl FnMut(&mut [f32], &[f32], &[u32]) -> Result<()>) -> Result<()> {
        let size = chunk_rows(self.v);
        let mut logits = unwritten(size.min(self.targets.len()) * self.v);
        for (i, targets) in self.targets.chunks(size).enumerate() {
            let hidden = &self.hidden[i * size * self.c..][..targets.len() * self.c];
            let logits = &mut logits[..targets.len() * self.v];
            if self.table.dtype().tile().is_some() {
                quantized::multiply(OP, hidden, self.table, logits, |_, _, _| {})?;
            } else {
                let table = Matrix::row_major(self.values()?, self.v, self.c).t();
                let hidden = Matrix::row_major(Values::F32(hidden), targets.len(), self.c);
                gemm(logits, hidden, table, Start::Zero, products);
            }
            each(logits, hidden, targets)?;
        }
        Ok(())
    }
}
