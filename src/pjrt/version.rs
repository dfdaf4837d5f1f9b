//! Versions of the PJRT C API.

use std::fmt;

/// The oldest minor version that is accepted: the version of the bindings. The API only appends. So in all later minor
/// versions of major version 0, every struct field and table entry is at the offset that the bindings expect. Older
/// plugins have shorter tables, and this library was never tested with such a plugin.
pub const MIN_API_MINOR: i32 = 54;

/// The version of the C API that a plugin was compiled with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ApiVersion {
    /// Changes when the layout of the API changes incompatibly.
    pub major: i32,
    /// Changes when the API grows.
    pub minor: i32,
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
