//! The error of the Rust interface.

use std::fmt;

use crate::error::{Error as InternalError, ErrorKind};

/// The reason why a call failed. Its `Display` text is a message for people.
///
/// A call that fails writes no output.
#[derive(Clone, Debug)]
pub struct Error(InternalError);

impl Error {
    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind()
    }

    /// The name of the argument at fault, for example `"temperature"`: a method of this interface, or a field of the C
    /// header, which has the same names. `None` if no single argument is at fault.
    pub fn argument(&self) -> Option<&'static str> {
        match &self.0 {
            InternalError::InvalidArgument(wrong) => wrong.argument,
            _ => None,
        }
    }

    /// The index of the row at fault, counted from 0. `None` if no single row is at fault.
    pub fn row(&self) -> Option<usize> {
        match &self.0 {
            InternalError::InvalidArgument(wrong) => wrong.row,
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// There is no source: the message contains the text of every cause.
impl std::error::Error for Error {}

#[doc(hidden)]
impl From<InternalError> for Error {
    fn from(error: InternalError) -> Error {
        Error(error)
    }
}
