//! The errors of the library. The C ABI turns them into a status and a message.

use std::fmt;

use crate::pjrt;

/// The error of a call. Its display text is the message that the caller reads.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// An argument is wrong.
    #[error("{0}")]
    InvalidArgument(WrongArgument),
    /// The named plugin does not exist, or none is named.
    #[error("{0}")]
    PluginNotFound(String),
    /// Memory, threads or another resource of this host ran out. The same call can succeed later.
    #[error("{0}")]
    OutOfMemory(String),
    /// A file or directory could not be read or written.
    #[error("{0}")]
    Io(String),
    /// The device did not finish within the time that the caller wants to wait. This is not a failure of the call.
    #[error("{0}")]
    Timeout(String),
    /// The caller cancelled the work before it was complete.
    #[error("{0}")]
    Cancelled(String),
    /// The plugin or its device failed.
    #[error(transparent)]
    Pjrt(#[from] pjrt::Error),
    /// A plugin returned something that no correct plugin returns, or this library has a defect.
    #[error("{0}")]
    Internal(String),
}

/// An argument that is wrong, and the reason.
#[derive(Clone, Debug)]
pub struct WrongArgument {
    /// The name of the argument in the C header. `None` if no single argument is wrong.
    pub argument: Option<&'static str>,
    /// The index of the wrong row. `None` if no single row is wrong.
    pub row: Option<usize>,
    /// The message. It states the argument, its value, and a correct value.
    pub message: String,
}

impl fmt::Display for WrongArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error {
    /// An [`Error::InvalidArgument`] that names no argument of the C header.
    pub fn argument(message: impl Into<String>) -> Error {
        Error::InvalidArgument(WrongArgument { argument: None, row: None, message: message.into() })
    }

    /// An [`Error::InvalidArgument`] about the argument `name`.
    pub fn named_argument(name: &'static str, message: impl Into<String>) -> Error {
        Error::InvalidArgument(WrongArgument { argument: Some(name), row: None, message: message.into() })
    }

    /// An [`Error::InvalidArgument`] about the element `row` of the parameter array `name`.
    pub fn row_argument(name: &'static str, row: usize, message: impl Into<String>) -> Error {
        Error::InvalidArgument(WrongArgument {
            argument: Some(name),
            row: Some(row),
            message: message.into(),
        })
    }

    /// An [`Error::OutOfMemory`]: `bytes` could not be allocated for `purpose`.
    pub fn out_of_memory(bytes: usize, purpose: &str) -> Error {
        Error::OutOfMemory(format!("out of memory: {bytes} bytes for {purpose} could not be allocated"))
    }
}
