//! The exported functions of the C ABI, one file per topic. Their doc comments are the manual: the generator in
//! `tests/library/header.rs` copies them into the header.

mod compiling;
mod errors;
mod information;
mod lifecycle;
mod logging;
mod sampling;
mod versions;

pub use compiling::*;
pub use errors::*;
pub use information::*;
pub use lifecycle::*;
pub use logging::*;
pub use sampling::*;
pub use versions::*;
