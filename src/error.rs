//! The errors of the library. The C ABI turns them into a status and a message.

use std::fmt;

#[cfg(feature = "pjrt")]
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
    #[cfg(feature = "pjrt")]
    #[error(transparent)]
    Pjrt(#[from] pjrt::Error),
    /// A plugin returned something that no correct plugin returns, or this library has a defect.
    #[error("{0}")]
    Internal(String),
}

/// The kind of an error. A program can decide by it what to do; the message is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is wrong. The message states the argument, its value, and a correct value. The same call would fail
    /// again.
    InvalidArgument,
    /// The plugin's file does not exist, or no plugin is named although the call needs one.
    PluginNotFound,
    /// The file is not a PJRT plugin, or the system cannot load it. The message quotes the dynamic loader.
    PluginInvalid,
    /// The plugin implements a version of the PJRT C API that this library does not support.
    PluginVersion,
    /// The plugin or its device failed: there is no device, or a compilation or an execution failed. The message quotes
    /// the plugin.
    Device,
    /// This library has a defect, or the plugin returned a result that no correct plugin returns. Please report it. The
    /// sampler stays usable.
    Internal,
    /// The host or the device ran out of memory, threads or another resource. The same call can succeed later.
    OutOfMemory,
    /// A file or directory could not be created, read or written. The message names it.
    Io,
    /// The time to wait ended before the work did. The work continues.
    Timeout,
    /// The caller cancelled the work before it was complete.
    Cancelled,
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
    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::InvalidArgument(_) => ErrorKind::InvalidArgument,
            Error::PluginNotFound(_) => ErrorKind::PluginNotFound,
            Error::OutOfMemory(_) => ErrorKind::OutOfMemory,
            Error::Io(_) => ErrorKind::Io,
            Error::Timeout(_) => ErrorKind::Timeout,
            Error::Cancelled(_) => ErrorKind::Cancelled,
            #[cfg(feature = "pjrt")]
            Error::Pjrt(error) => match error.kind() {
                pjrt::ErrorKind::NotFound => ErrorKind::PluginNotFound,
                pjrt::ErrorKind::NotAPlugin => ErrorKind::PluginInvalid,
                pjrt::ErrorKind::ApiVersion => ErrorKind::PluginVersion,
                pjrt::ErrorKind::Argument => ErrorKind::InvalidArgument,
                pjrt::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
                pjrt::ErrorKind::Misbehaved => ErrorKind::Internal,
                _ => ErrorKind::Device,
            },
            Error::Internal(_) => ErrorKind::Internal,
        }
    }

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
