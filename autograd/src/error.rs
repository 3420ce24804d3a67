/// What can go wrong on a tape.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation refused its arguments.
    #[error(transparent)]
    Kernel(#[from] kernels::Error),
    /// A tensor has another shape or dtype than was asked for.
    #[error(transparent)]
    Tensor(#[from] tensor::Error),
    /// Gradients were asked of a tape that does not record.
    #[error("this tape does not record: no gradients can be taken from it")]
    NotRecording,
    /// Two sets of tensors that must go together do not.
    #[error("{what}: wanted {wanted}, found {found}")]
    Mismatch {
        /// The set.
        what: String,
        /// What it should be.
        wanted: String,
        /// What it is.
        found: String,
    },
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
