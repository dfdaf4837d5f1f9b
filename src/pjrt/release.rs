//! Failures to destroy objects of a plugin. `Drop` can neither return nor log them: values are dropped while callers
//! hold locks, and a log function may call this library again. So the failures are stored until they can be logged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Further failures are only counted.
const MOST_KEPT: usize = 16;

struct Failures {
    kept: Vec<String>,
    dropped: usize,
}

static FAILURES: Mutex<Failures> = Mutex::new(Failures { kept: Vec::new(), dropped: 0 });

/// Whether there is anything to log. With it, the common case takes no lock.
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

/// Logs, as warnings, the failures to destroy plugin objects since the last call. Returns quickly if there are none.
/// Call it where no lock is held, for example at the end of each call of the C ABI.
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
