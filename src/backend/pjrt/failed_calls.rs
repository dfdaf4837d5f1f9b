//! Counts the calls with logits on a device that have failed.
//!
//! A call uploads parameters and the number of its step, and later calls use these buffers again. A call does not wait
//! for its uploads. If an upload fails later, all calls that use its buffer fail. Therefore, after a failed call, the
//! next call uploads everything again. It does this after every kind of failure, because failures are rare.

use std::sync::atomic::{AtomicU64, Ordering};

/// The number of failed calls of a sampler.
#[derive(Default)]
pub(super) struct FailedCalls(AtomicU64);

impl FailedCalls {
    /// Counts a failed call. This must happen before the caller can know of the failure.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of failed calls. An upload must not be used if this number was smaller when the upload was made.
    pub(super) fn count(&self) -> u64 {
        // A relaxed load is sufficient. A caller learns of a failure through a lock, or from the call itself. In both
        // cases, `add` has already counted the failure. So every later load includes the failure.
        self.0.load(Ordering::Relaxed)
    }
}
