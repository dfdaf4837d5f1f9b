//! The safe Rust interface. `lib.rs` re-exports it. It adds no behaviour. It checks the lengths of slices, and
//! passes everything else on to the modules that the C ABI uses too.
#![deny(missing_docs)]

mod batch;
mod debug_arrays;
#[cfg(feature = "pjrt")]
pub mod device;
mod error;
mod logits;
mod outputs;
#[cfg(feature = "pjrt")]
pub mod programs;
mod row_status;
mod sampler;

/// Logs each failure to destroy a plugin object. Each public function that runs a call calls this function at its
/// end.
fn log_release_failures() {
    #[cfg(feature = "pjrt")]
    crate::pjrt::log_release_failures();
}

pub use self::batch::Batch;
pub use self::debug_arrays::{DebugArrays, KSlices};
pub use self::error::Error;
pub use self::logits::LogitsArray;
pub use self::outputs::Outputs;
pub use self::row_status::RowStatus;
pub use self::sampler::{Sampled, Sampler, SamplerBuilder};
