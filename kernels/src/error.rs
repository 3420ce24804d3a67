use tensor::{DType, Tensor};

/// What can be wrong with an operation's arguments.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A shape, dtype or memory error from the tensor itself.
    #[error("{op}: {source}")]
    Tensor {
        /// The operation.
        op: &'static str,
        /// The reason.
        source: tensor::Error,
    },
    /// An argument does not go with the others.
    #[error("{op}: {what}: wanted {wanted}, found {found}")]
    Argument {
        /// The operation.
        op: &'static str,
        /// The argument.
        what: &'static str,
        /// What would have fitted.
        wanted: String,
        /// What was given.
        found: String,
    },
    /// A kernel could not be loaded or launched.
    #[error("{op}: kernel {kernel}: {reason}")]
    Gpu {
        /// The operation.
        op: &'static str,
        /// The kernel.
        kernel: String,
        /// The driver's reason.
        reason: String,
    },
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Wraps a tensor error with the operation's name, for `map_err`.
pub(crate) fn of(op: &'static str) -> impl Fn(tensor::Error) -> Error {
    move |source| Error::Tensor { op, source }
}

/// An error unless `found == wanted`.
#[allow(clippy::needless_pass_by_value)] // sizes, shapes and counts: nothing worth a reference
pub(crate) fn expect<T: PartialEq + std::fmt::Debug>(
    op: &'static str,
    what: &'static str,
    found: T,
    wanted: T,
) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(Error::Argument { op, what, wanted: format!("{wanted:?}"), found: format!("{found:?}") })
}

/// The dtype of `x`, which must be f32 or bf16.
pub(crate) fn float(op: &'static str, what: &'static str, x: &Tensor) -> Result<DType> {
    match x.dtype() {
        float @ (DType::F32 | DType::BF16) => Ok(float),
        other => Err(Error::Argument { op, what, wanted: "f32 or bf16".into(), found: other.to_string() }),
    }
}
