//! Versions of the C API.

use std::fmt;

/// The oldest minor version that is taken: the one of the bindings. The API only appends, so every struct and table
/// entry of the bindings lies where they say in all later minors of major 0. An older plugin has a shorter table, and
/// no plugin that old has ever been tried.
pub const MIN_API_MINOR: i32 = 54;

/// The version of the C API that a plugin was compiled against.
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
