//! The types and constants of the C ABI, one file per topic. Their doc comments are the manual: the generator in
//! `tests/library/header.rs` copies them into the header.
//!
//! An enumeration is an integer type and constants, because C can set a field to any value.

mod compiling;
mod debug_arrays;
mod errors;
mod information;
mod lifecycle;
mod logging;
mod sampling;
mod versions;

pub use compiling::*;
pub use debug_arrays::*;
pub use errors::*;
pub use information::*;
pub use lifecycle::*;
pub use logging::*;
pub use sampling::*;
pub use versions::*;
