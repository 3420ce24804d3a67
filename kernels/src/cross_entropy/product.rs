//! The three products of the head on a GPU, on a chunk of rows: the only place that says which kernels make them.

use tensor::{DType, Gpu, Tensor};

use super::chunk_rows;
use crate::Result;
use crate::cuda::Arg;
use crate::linear::Epilogue;
use crate::linear::cuda::{Finish, Product, depth, few_rows};

/// A chunk: `r` rows, from row `first` on, of width c, under a table `[v, c]`.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    pub first: usize,
    pub r: usize,
    pub v: usize,
    pub c: usize,
}

impl Chunk {
    /// `logits` `[r, v]` = hidden · tableᵀ, in f32.
    pub fn logits(self, gpu: &Gpu, logits: &mut Tensor, hidden: &Tensor, table: &Tensor) -> Result<()> {
        let Self { r, v, c, .. } = self;
        let product =
            Product { name: "forward", left: (hidden, self.start()), right: (table, 0), sizes: [r, v, c], depth: c };
        product.launch(gpu, Arg::Out(logits), None, Finish::STORED)
    }

    /// The chunk's rows of `dhidden` = `dlogits` `[r, v]` · table.
    pub fn dhidden(self, gpu: &Gpu, dhidden: &mut Tensor, dlogits: &Tensor, table: &Tensor) -> Result<()> {
        let Self { r, v, c, .. } = self;
        // Few elements, long sums. As in a whole chunk, since a row must not depend on how many others there are.
        let depth = depth(gpu, [chunk_rows(v), c], v);
        let product =
            Product { name: "backward_input", left: (dlogits, 0), right: (table, 0), sizes: [r, c, v], depth };
        let finish = Finish::new(None, Epilogue::None, dhidden.dtype());
        product.launch_in_parts(gpu, Arg::OutFrom(dhidden, self.start()), finish)
    }

    /// `dtable` += `dlogits` `[r, v]`ᵀ · hidden.
    pub fn dtable(self, gpu: &Gpu, dtable: &mut Tensor, dlogits: &Tensor, hidden: &Tensor) -> Result<()> {
        let Self { r, v, c, .. } = self;
        let right = (hidden, self.start());
        let product = Product { name: "backward_weight", left: (dlogits, 0), right, sizes: [v, c, r], depth: r };
        product.launch(gpu, Arg::Out(dtable), None, Finish::ADDED)
    }

    /// Its first element.
    fn start(self) -> usize {
        self.first * self.c
    }
}

/// The logits `[b, v]` of a few rows, in f32.
pub(super) fn logits(gpu: &Gpu, hidden: &Tensor, table: &Tensor) -> Result<Tensor> {
    few_rows(gpu, hidden, table, None, Epilogue::None, DType::F32)
}
