use kernels::elementwise;
use kernels::linear::Products;
use tensor::{DType, Tensor};

use crate::Result;

/// A parameter's place in [`Params`] and [`Grads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParamId(pub(crate) usize);

/// A named tensor that training changes.
#[derive(Clone, Debug)]
pub struct Param {
    /// Its name in a checkpoint.
    pub name: String,
    /// Its value.
    pub value: Tensor,
    /// Whether weight decay applies: its optimiser group.
    pub decays: bool,
}

/// All parameters of a model, in a fixed order.
#[derive(Clone, Debug, Default)]
pub struct Params {
    all: Vec<Param>,
    /// How a CPU multiplies many rows by them, forward and backward.
    pub products: Products,
}

impl Params {
    /// Adds a parameter. Matrices decay; biases and norms (one axis) do not.
    pub fn add(&mut self, name: impl Into<String>, value: Tensor) -> ParamId {
        let decays = value.shape().len() > 1;
        self.all.push(Param { name: name.into(), value, decays });
        ParamId(self.all.len() - 1)
    }

    /// The value of a parameter.
    pub fn value(&self, id: ParamId) -> &Tensor {
        &self.all[id.0].value
    }

    /// The value of a parameter, to change.
    pub fn value_mut(&mut self, id: ParamId) -> &mut Tensor {
        &mut self.all[id.0].value
    }

    /// All parameters, in the order they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Param> {
        self.all.iter()
    }

    /// All parameters, to change.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Param> {
        self.all.iter_mut()
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many numbers there are in all.
    pub fn elements(&self) -> usize {
        self.iter().map(|p| p.value.elements()).sum()
    }
}

/// One f32 gradient for each parameter, of its shape, to which backward passes add.
#[derive(Debug)]
pub struct Grads(Vec<Tensor>);

impl Grads {
    /// Zeros for every parameter, where it is.
    ///
    /// # Errors
    /// What a GPU says: the shapes exist already.
    pub fn zeros(params: &Params) -> Result<Self> {
        let zeros = |p: &Param| Tensor::zeros_on(p.value.device(), p.value.shape(), DType::F32);
        Ok(Self(params.iter().map(zeros).collect::<tensor::Result<_>>()?))
    }

    /// The gradient of a parameter.
    pub fn get(&self, id: ParamId) -> &Tensor {
        &self.0[id.0]
    }

    /// The gradient of a parameter, to add to.
    pub fn get_mut(&mut self, id: ParamId) -> &mut Tensor {
        &mut self.0[id.0]
    }

    /// The gradients of two different parameters, to add to; `None` if they are the same one.
    pub(crate) fn pair_mut(&mut self, a: ParamId, b: ParamId) -> Option<(&mut Tensor, &mut Tensor)> {
        let [a, b] = self.0.get_disjoint_mut([a.0, b.0]).ok()?;
        Some((a, b))
    }

    /// All gradients, in the order of the parameters.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Tensor> {
        self.0.iter()
    }

    /// Sets every gradient to zero, keeping the memory.
    ///
    /// # Errors
    /// What a GPU says.
    pub fn clear(&mut self) -> Result<()> {
        self.0.iter_mut().try_for_each(|g| Ok(elementwise::clear(g)?))
    }
}
