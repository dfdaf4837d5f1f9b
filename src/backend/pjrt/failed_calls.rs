//! Counts the calls with logits on a device that have failed.
//!
//! A call uploads parameters and the number of its step, and later calls use these buffers again. A call does not wait
//! for its uploads. If an upload fails afterwards, the call fails, and so do other calls that use the buffer. So after a
//! failed call, the next call uploads everything again. This also happens after other failures, which are rare.

use std::sync::atomic::{AtomicU64, Ordering};

/// The number of failed calls of a sampler.
#[derive(Default)]
pub(super) struct FailedCalls(AtomicU64);

impl FailedCalls {
    /// Adds a call. Must happen before the caller learns of the failure.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of failed calls. Uploads that were made when there were fewer must not be used.
    pub(super) fn count(&self) -> u64 {
        // A caller learns of a failure through a lock, or from the call itself. So later loads have this failure.
        self.0.load(Ordering::Relaxed)
    }
}
