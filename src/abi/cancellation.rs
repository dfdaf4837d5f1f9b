//! Thread cancellation (POSIX `pthread_cancel`) during a call.
//!
//! The C library cancels a thread by unwinding its stack from a function such as `write`. Rust functions cannot be
//! unwound in this way: the C library then ends the process. So a call disables cancellation, and a request stays
//! pending until the call has returned.

use std::ffi::c_int;

extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// The value of `PTHREAD_CANCEL_DISABLE` on Linux. The crate `libc` does not define this constant for Linux.
const DISABLE: c_int = 1;

/// While a value exists, its thread is not cancelled. Dropping it restores the previous state.
pub(super) struct NoCancellation {
    before: c_int,
}

impl NoCancellation {
    pub(super) fn begin() -> Self {
        NoCancellation { before: set(DISABLE) }
    }
}

impl Drop for NoCancellation {
    fn drop(&mut self) {
        set(self.before);
    }
}

/// Sets the state of the calling thread and returns the previous one.
fn set(state: c_int) -> c_int {
    let mut before = state;
    // SAFETY: the function only writes to `before`. A state that the function returned or defines is valid.
    unsafe { pthread_setcancelstate(state, &mut before) };
    before
}
