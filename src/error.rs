//! What can go wrong in the library, before it becomes a status and a message of the C ABI.

use std::sync::Arc;

use crate::pjrt;

/// An error of a call. Its display text is the message that the caller reads.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument is wrong: the text names it, its value, and what would be right.
    #[error("{0}")]
    InvalidArgument(String),
    /// No plugin at the path that was named, or none named.
    #[error("{0}")]
    PluginNotFound(String),
    /// The plugin, or the device behind it, refused.
    #[error(transparent)]
    Pjrt(#[from] pjrt::Error),
    /// The plugin answered something that no correct plugin answers, or this library is wrong.
    #[error("{0}")]
    Internal(String),
    /// Of an attempt that several calls waited for.
    #[error(transparent)]
    Shared(Arc<Error>),
}

impl Error {
    /// An [`Error::InvalidArgument`].
    pub fn argument(message: impl Into<String>) -> Error {
        Error::InvalidArgument(message.into())
    }
}
