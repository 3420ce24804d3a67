use std::sync::Arc;

use kernels::{attention, cross_entropy, elementwise, embedding, layer_norm, linear};
use tensor::Tensor;

use crate::{Error, Grads, ParamId, Params, Result};

/// A tensor that a tape knows: the result of an operation, or an input.
#[derive(Clone, Debug)]
pub struct Var {
    node: usize,
    value: Tensor,
}

impl Var {
    /// The numbers.
    pub const fn value(&self) -> &Tensor {
        &self.value
    }
}

/// The operations of a forward pass, in order, with what their backward passes need.
pub struct Tape<'p> {
    params: &'p Params,
    /// `None` when nothing is recorded.
    ops: Option<Vec<Op>>,
    nodes: usize,
    rows: Rows,
}

/// Which kernel a linear layer takes. The choice is the caller's and not the batch size's, so that a row's bits do
/// not depend on how many rows came with it.
#[derive(Clone, Copy, PartialEq)]
enum Rows {
    Many,
    Few,
}

/// One recorded operation: the nodes it read and wrote, and the tensors its backward pass reads.
enum Op {
    Embedding { ids: Arc<[u32]>, table: ParamId, out: usize },
    Gather { x: usize, len: usize, rows: Arc<[u32]>, out: usize },
    LayerNorm { x: Var, norm: Norm, stats: Tensor, out: usize },
    AddLayerNorm { x: usize, residual: usize, sum: Var, norm: Norm, stats: Tensor, out: usize },
    Linear { x: Var, layer: Linear, out: usize },
    LinearResidual { x: Var, layer: Linear, residual: usize, out: usize },
    LinearGelu { x: Var, layer: Linear, pre: Tensor, out: usize },
    Attention { qkv: Var, lse: Tensor, bounds: Arc<[u32]>, heads: usize, out: Var },
}

/// The parameters of a layer norm: gain and shift `[c]`, and what is added to the variance.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// Gain `[c]`.
    pub gamma: ParamId,
    /// Shift `[c]`.
    pub beta: ParamId,
    /// Added to the variance.
    pub eps: f32,
}

/// The parameters of a linear layer, as torch keeps them.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Weight `[n, k]`.
    pub weight: ParamId,
    /// Bias `[n]`.
    pub bias: ParamId,
}

impl<'p> Tape<'p> {
    /// A tape that records, for training.
    pub const fn recording(params: &'p Params) -> Self {
        Self { params, ops: Some(Vec::new()), nodes: 0, rows: Rows::Many }
    }

    /// A tape that only computes: many rows at a time, for evaluation, prefill and recomputed blocks.
    pub const fn off(params: &'p Params) -> Self {
        Self { params, ops: None, nodes: 0, rows: Rows::Many }
    }

    /// A tape that only computes, one new token for each sequence: linear layers stream their weights once.
    pub const fn decode(params: &'p Params) -> Self {
        Self { params, ops: None, nodes: 0, rows: Rows::Few }
    }

    /// The parameters that the operations read.
    pub const fn params(&self) -> &'p Params {
        self.params
    }

    /// Puts a tensor on the tape from outside.
    pub const fn input(&mut self, value: Tensor) -> Var {
        self.node(value)
    }

    const fn node(&mut self, value: Tensor) -> Var {
        self.nodes += 1;
        Var { node: self.nodes - 1, value }
    }

    /// What the weights of the linear layers that were recorded were given: `[t, k]`.
    pub fn linear_inputs(&self) -> impl Iterator<Item = (ParamId, &Tensor)> {
        self.ops.iter().flatten().filter_map(|op| match op {
            Op::Linear { x, layer, .. } | Op::LinearGelu { x, layer, .. } | Op::LinearResidual { x, layer, .. } => {
                Some((layer.weight, &x.value))
            }
            _ => None,
        })
    }

    fn record(&mut self, op: impl FnOnce() -> Op) {
        if let Some(ops) = &mut self.ops {
            ops.push(op());
        }
    }

    /// Rows of the table `[v, c]` by id: `[t, c]`.
    ///
    /// # Errors
    /// An id at or beyond v.
    pub fn embedding(&mut self, table: ParamId, ids: &Arc<[u32]>) -> Result<Var> {
        let y = embedding::forward(self.params.value(table), ids)?;
        let y = self.node(y);
        self.record(|| Op::Embedding { ids: ids.clone(), table, out: y.node });
        Ok(y)
    }

    /// Chosen rows of `x`, `[t, c]` to `[r, c]`.
    ///
    /// # Errors
    /// A row at or beyond t.
    pub fn gather(&mut self, x: &Var, rows: &Arc<[u32]>) -> Result<Var> {
        let (len, _) = x.value.dims2()?;
        let y = embedding::forward(&x.value, rows)?;
        let y = self.node(y);
        self.record(|| Op::Gather { x: x.node, len, rows: rows.clone(), out: y.node });
        Ok(y)
    }

    /// Layer norm of each row of `x`, `[t, c]`.
    ///
    /// # Errors
    /// Shapes that do not go together.
    pub fn layer_norm(&mut self, x: &Var, norm: Norm) -> Result<Var> {
        let (gamma, beta) = (self.params.value(norm.gamma), self.params.value(norm.beta));
        let layer_norm::Normed { y, stats } = layer_norm::forward(&x.value, gamma, beta, norm.eps)?;
        let y = self.node(y);
        self.record(|| Op::LayerNorm { x: x.clone(), norm, stats, out: y.node });
        Ok(y)
    }

    /// `x + residual` and its layer norm, both `[t, c]`, in one pass.
    ///
    /// # Errors
    /// Shapes that do not go together.
    pub fn add_layer_norm(&mut self, x: &Var, residual: &Var, norm: Norm) -> Result<(Var, Var)> {
        let (gamma, beta) = (self.params.value(norm.gamma), self.params.value(norm.beta));
        let (sum, layer_norm::Normed { y, stats }) =
            layer_norm::add_forward(&x.value, &residual.value, gamma, beta, norm.eps)?;
        let (sum, y) = (self.node(sum), self.node(y));
        self.record(|| Op::AddLayerNorm {
            x: x.node,
            residual: residual.node,
            sum: sum.clone(),
            norm,
            stats,
            out: y.node,
        });
        Ok((sum, y))
    }

    /// `x · weightᵀ + bias`, `[t, k]` to `[t, n]`.
    ///
    /// # Errors
    /// Shapes that do not go together.
    pub fn linear(&mut self, x: &Var, layer: Linear) -> Result<Var> {
        let (w, b) = (self.params.value(layer.weight), self.params.value(layer.bias));
        let y = match self.rows {
            Rows::Many => linear::forward(&x.value, w, b, self.params.products)?,
            Rows::Few => linear::few_rows(&x.value, w, Some(b), linear::Epilogue::None)?,
        };
        let y = self.node(y);
        self.record(|| Op::Linear { x: x.clone(), layer, out: y.node });
        Ok(y)
    }

    /// `x · weightᵀ + bias + residual`, `[t, k]` to `[t, n]`.
    ///
    /// # Errors
    /// Shapes that do not go together.
    pub fn linear_residual(&mut self, x: &Var, layer: Linear, residual: &Var) -> Result<Var> {
        let (w, b) = (self.params.value(layer.weight), self.params.value(layer.bias));
        let y = match self.rows {
            Rows::Many => linear::forward_residual(&x.value, w, b, &residual.value, self.params.products)?,
            Rows::Few => linear::few_rows(&x.value, w, Some(b), linear::Epilogue::Residual(&residual.value))?,
        };
        let y = self.node(y);
        self.record(|| Op::LinearResidual { x: x.clone(), layer, residual: residual.node, out: y.node });
        Ok(y)
    }

    /// `gelu(x · weightᵀ + bias)` in the tanh form, `[t, k]` to `[t, n]`.
    ///
    /// # Errors
    /// Shapes that do not go together.
    pub fn linear_gelu(&mut self, x: &Var, layer: Linear) -> Result<Var> {
        let (w, b) = (self.params.value(layer.weight), self.params.value(layer.bias));
        if self.ops.is_some() {
            let (pre, y) = linear::forward_gelu_saved(&x.value, w, b, self.params.products)?;
            let y = self.node(y);
            self.record(|| Op::LinearGelu { x: x.clone(), layer, pre, out: y.node });
            return Ok(y);
        }
        let y = match self.rows {
            Rows::Many => linear::forward_gelu(&x.value, w, b, self.params.products)?,
            Rows::Few => linear::few_rows(&x.value, w, Some(b), linear::Epilogue::Gelu)?,
        };
        Ok(self.node(y))
    }

    /// Causal ALiBi attention within each document, from the fused projection `[t, 3c]` to `[t, c]`.
    ///
    /// # Errors
    /// Shapes or bounds that do not go together.
    pub fn attention(&mut self, qkv: &Var, bounds: &Arc<[u32]>, heads: usize) -> Result<Var> {
        let (out, lse) = attention::forward(&qkv.value, bounds, heads)?;
        let out = self.node(out);
        self.record(|| Op::Attention { qkv: qkv.clone(), lse, bounds: bounds.clone(), heads, out: out.clone() });
        Ok(out)
    }

    /// Takes the gradient back from `out`, whose own gradient is `dout`, adding to `grads` what falls on parameters.
    /// The result holds what falls on the inputs. Uses the tape up; memory is freed as the pass goes.
    ///
    /// # Errors
    /// A tape that does not record, or shapes that do not go together.
    pub fn backward(self, out: &Var, dout: Tensor, grads: &mut Grads) -> Result<NodeGrads> {
        let mut ops = self.ops.ok_or(Error::NotRecording)?;
        let mut by_node = NodeGrads((0..self.nodes).map(|_| None).collect());
        by_node.add(out.node, dout)?;
        while let Some(op) = ops.pop() {
            op.backward(self.params, &mut by_node, grads)?;
        }
        Ok(by_node)
    }
}

impl Op {
    fn backward(self, params: &Params, nodes: &mut NodeGrads, grads: &mut Grads) -> Result<()> {
        match self {
            Self::Embedding { ids, table, out } => {
                if let Some(dy) = nodes.0[out].take() {
                    embedding::backward(&dy, &ids, grads.get_mut(table))?;
                }
            }
            Self::Gather { x, len, rows, out } => {
                if let Some(dy) = nodes.0[out].take() {
                    nodes.add(x, embedding::gather_backward(&dy, &rows, len)?)?;
                }
            }
            Self::LayerNorm { x, norm, stats, out } => {
                if let Some(dy) = nodes.0[out].take() {
                    let dx = norm.backward(&dy, &x.value, &stats, params, grads)?;
                    nodes.add(x.node, dx)?;
                }
            }
            Self::AddLayerNorm { x, residual, sum, norm, stats, out } => {
                if let Some(dy) = nodes.0[out].take() {
                    let dsum = norm.backward(&dy, &sum.value, &stats, params, grads)?;
                    nodes.add(sum.node, dsum)?;
                }
                if let Some(dsum) = nodes.0[sum.node].take() {
                    nodes.add(residual, dsum.clone())?;
                    nodes.add(x, dsum)?;
                }
            }
            Self::Linear { x, layer, out } => {
                if let Some(dy) = nodes.0[out].take() {
                    nodes.add(x.node, layer.backward(&dy, &x.value, params, grads)?)?;
                }
            }
            Self::LinearResidual { x, layer, residual, out } => {
                if let Some(dy) = nodes.0[out].take() {
                    nodes.add(x.node, layer.backward(&dy, &x.value, params, grads)?)?;
                    nodes.add(residual, dy)?;
                }
            }
            Self::LinearGelu { x, layer, pre, out } => {
                if let Some(dy) = nodes.0[out].take() {
                    let dpre = linear::gelu_backward(&dy, &pre)?;
                    nodes.add(x.node, layer.backward(&dpre, &x.value, params, grads)?)?;
                }
            }
            Self::Attention { qkv, lse, bounds, heads, out } => {
                if let Some(dout) = nodes.0[out.node].take() {
                    let dqkv = attention::backward(&dout, &qkv.value, &out.value, &lse, &bounds, heads)?;
                    nodes.add(qkv.node, dqkv)?;
                }
            }
        }
        Ok(())
    }
}

impl Norm {
    fn backward(self, dy: &Tensor, x: &Tensor, stats: &Tensor, params: &Params, grads: &mut Grads) -> Result<Tensor> {
        let (dgamma, dbeta) = two(grads, self.gamma, self.beta)?;
        Ok(layer_norm::backward(dy, x, params.value(self.gamma), stats, dgamma, dbeta)?)
    }
}

impl Linear {
    fn backward(self, dy: &Tensor, x: &Tensor, params: &Params, grads: &mut Grads) -> Result<Tensor> {
        let (dw, db) = two(grads, self.weight, self.bias)?;
        linear::backward_weight(dy, x, dw, db, params.products)?;
        Ok(linear::backward_input(dy, params.value(self.weight), params.products)?)
    }
}

fn two(grads: &mut Grads, a: ParamId, b: ParamId) -> Result<(&mut Tensor, &mut Tensor)> {
    grads.pair_mut(a, b).ok_or_else(|| Error::Mismatch {
        what: "parameters of a layer".into(),
        wanted: "two different ones".into(),
        found: format!("{a:?} and {b:?}"),
    })
}

/// The gradients that fell on a tape's nodes.
pub struct NodeGrads(Vec<Option<Tensor>>);

impl NodeGrads {
    /// The gradient of an input; `None` if nothing depended on it.
    pub fn take(&mut self, var: &Var) -> Option<Tensor> {
        self.0.get_mut(var.node)?.take()
    }

    fn add(&mut self, node: usize, grad: Tensor) -> Result<()> {
        match &mut self.0[node] {
            empty @ None => *empty = Some(grad),
            Some(sum) => elementwise::add(sum, &grad)?,
        }
        Ok(())
    }
}

/// The loss of a model's head on chosen rows, and its gradient. `hidden` `[r, c]` are the rows, after the last layer
/// norm; `head` is the table `[v, c]`; `scale` multiplies the sum of the losses before the gradient is taken.
/// Returns each row's loss in nats `[r]` and the gradient of `hidden`; what falls on the head is added to `grads`.
///
/// # Errors
/// Shapes that do not go together, or a target at or beyond v.
pub fn head_loss(
    hidden: &Var,
    head: ParamId,
    targets: &[u32],
    scale: f32,
    params: &Params,
    grads: &mut Grads,
) -> Result<(Tensor, Tensor)> {
    let (table, to) = (params.value(head), grads.get_mut(head));
    Ok(cross_entropy::forward_backward(&hidden.value, table, targets, scale, to, params.products)?)
}
