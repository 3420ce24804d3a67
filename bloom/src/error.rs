use std::path::PathBuf;

/// What can go wrong with a model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation or a tape refused.
    #[error(transparent)]
    Autograd(#[from] autograd::Error),
    /// An operation refused its arguments.
    #[error(transparent)]
    Kernel(#[from] kernels::Error),
    /// A file or a tensor is not what it should be.
    #[error(transparent)]
    Tensor(#[from] tensor::Error),
    /// A configuration that is not a BLOOM's.
    #[error("{}: {what}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What was wanted and what was found.
        what: String,
    },
    /// Weights that do not make the model that the configuration describes.
    #[error("{}: {what}", path.display())]
    Weights {
        /// The folder or file.
        path: PathBuf,
        /// What was wanted and what was found.
        what: String,
    },
    /// Ids, bounds or settings that a model cannot work with.
    #[error("{0}")]
    Input(String),
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
