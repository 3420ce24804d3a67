use std::path::{Path, PathBuf};

use crate::{DType, Device};

/// What can go wrong with memory and files of numbers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// What was attempted, as in "cannot …".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file's content is not what its format demands.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was wanted and what was found.
        what: String,
    },
    /// A tensor has another shape than was asked for.
    #[error("shape: wanted {wanted}, found {found:?}")]
    Shape {
        /// The shape in words, such as `[t, c]` or a number of elements.
        wanted: String,
        /// The shape there is.
        found: Vec<usize>,
    },
    /// A tensor holds another number format than was asked for.
    #[error("dtype: wanted {wanted}, found {found}")]
    DType {
        /// The format asked for.
        wanted: DType,
        /// The format there is.
        found: DType,
    },
    /// A tensor is in another memory than was asked for.
    #[error("device: wanted {wanted}, found {found}")]
    Device {
        /// The device asked for.
        wanted: Device,
        /// The device it is on.
        found: Device,
    },
    /// A GPU or its driver refused.
    #[error("cannot {action} {what}: {reason}")]
    Gpu {
        /// What was attempted, as in "cannot …".
        action: &'static str,
        /// On what.
        what: String,
        /// The driver's reason.
        reason: String,
    },
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Io`], for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
