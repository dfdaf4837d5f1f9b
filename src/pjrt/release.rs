//! Failures to destroy objects of a plugin. `Drop` cannot return them. It also cannot log them, because callers may
//! hold locks when they drop a value, and a log function may call this library again. So the failures are stored until
//! they can be logged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The largest number of stored failures. Further failures are only counted.
const MOST_KEPT: usize = 16;

struct Failures {
    kept: Vec<String>,
    dropped: usize,
}

static FAILURES: Mutex<Failures> = Mutex::new(Failures { kept: Vec::new(), dropped: 0 });

/// Whether any failure is stored. This flag avoids the lock in the common case.
static PENDING: AtomicBool = AtomicBool::new(false);

/// Stores a failure until [`log_release_failures`] logs it.
pub(super) fn record(failure: String) {
    let mut failures = FAILURES.lock().unwrap_or_else(PoisonError::into_inner);
    if failures.kept.len() < MOST_KEPT {
        failures.kept.push(failure);
    } else {
        failures.dropped += 1;
    }
    PENDING.store(true, Ordering::Release);
}

/// Logs the stored failures to destroy plugin objects, as warnings, and clears them. Returns quickly if there are none.
/// Call it while no lock is held, for example at the end of each call of the C ABI.
pub fn log_release_failures() {
    if !PENDING.load(Ordering::Acquire) {
        return;
    }
    let (kept, dropped) = take();
    for failure in kept {
        log::warn!("{failure}");
    }
    if dropped > 0 {
        log::warn!("{dropped} more objects of PJRT plugins could not be released");
    }
}

fn take() -> (Vec<String>, usize) {
    let mut failures = FAILURES.lock().unwrap_or_else(PoisonError::into_inner);
    PENDING.store(false, Ordering::Release);
    (std::mem::take(&mut failures.kept), std::mem::take(&mut failures.dropped))
}

/// The failures that are waiting to be logged.
#[cfg(test)]
pub(super) fn pending() -> Vec<String> {
    FAILURES.lock().unwrap_or_else(PoisonError::into_inner).kept.clone()
}
