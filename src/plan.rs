//! Which programs a call runs: rows → path → bucket → program.
//!
//! Sampling, prewarming and compiling ahead of time all use this module. So a prewarmed program is the program that
//! a later call looks up. The built-in backend runs no programs and needs only `entry`.

#[cfg(feature = "pjrt")]
pub(crate) mod buckets;
mod call_shape;
#[cfg(feature = "pjrt")]
pub(crate) mod device;
#[cfg(feature = "pjrt")]
pub(crate) mod distinct;
mod entry;
#[cfg(feature = "pjrt")]
mod k_slices;
#[cfg(feature = "pjrt")]
pub(crate) mod needed;
#[cfg(feature = "pjrt")]
mod paths;

#[cfg(feature = "pjrt")]
pub(crate) use buckets::check_rows;
#[cfg(feature = "pjrt")]
pub use buckets::{Buckets, LARGEST_BUCKET, LARGEST_DEFAULT_BUCKET, LARGEST_NUM_BUCKETS};
pub use call_shape::{CallShape, LogitsPlace};
pub(crate) use entry::{check_entry, check_max_k};
pub use entry::{Entry, DEFAULT_MAX_K, LARGEST_MAX_K};
#[cfg(feature = "pjrt")]
pub(crate) use k_slices::{check_slices, no_slices};
#[cfg(feature = "pjrt")]
pub(crate) use paths::{params_for, params_in_program, paths_of_rows, pieces, program, Piece};
