//! The errors of the library. The C ABI turns them into a status and a message.

use crate::pjrt;

/// The error of a call. Its display text is the message that the caller reads.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// An argument is wrong. The text names the argument, its value, and what would be right.
    #[error("{0}")]
    InvalidArgument(String),
    /// The named plugin does not exist, or none is named.
    #[error("{0}")]
    PluginNotFound(String),
    /// Memory, threads or another resource of this host ran out. The same call can succeed later.
    #[error("{0}")]
    OutOfMemory(String),
    /// A file or directory could not be read or written.
    #[error("{0}")]
    Io(String),
    /// The plugin or its device failed.
    #[error(transparent)]
    Pjrt(#[from] pjrt::Error),
    /// A plugin returned something that no correct plugin returns, or this library has a defect.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// An [`Error::InvalidArgument`].
    pub fn argument(message: impl Into<String>) -> Error {
        Error::InvalidArgument(message.into())
    }

    /// An [`Error::OutOfMemory`]: `bytes` could not be allocated for `purpose`.
    pub fn out_of_memory(bytes: usize, purpose: &str) -> Error {
        Error::OutOfMemory(format!("out of memory: {bytes} bytes for {purpose} could not be allocated"))
    }
}
