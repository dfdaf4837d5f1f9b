//! Callbacks of the caller that run when a call on the device ends.

use std::cell::Cell;

use libc::c_void;

use super::pointers::{bad, Result};
use super::types::nuc_done_function;
use crate::panics::Silence;
use crate::thread_flag::with_flag;

thread_local! {
    /// Whether this thread is running a callback.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// A callback and its argument.
pub(super) struct Callback {
    function: unsafe extern "C" fn(user: *mut c_void),
    user: *mut c_void,
}

// SAFETY: the caller of `nuc_call_on_done` guarantees that any thread may call the function with `user`.
unsafe impl Send for Callback {}

impl Callback {
    /// # Safety
    /// Any thread may call `function` with `user`, until it was called once.
    pub(super) unsafe fn new(function: nuc_done_function, user: *mut c_void) -> Result<Callback> {
        match function {
            Some(function) => Ok(Callback { function, user }),
            None => {
                bad("function", "function is null; it must be the function to call when the call has ended")
            }
        }
    }

    /// Runs the callback on this thread.
    pub(super) fn run(self) {
        with_flag(&RUNNING, || {
            let _silence = Silence::interrupt();
            // SAFETY: the creator of this value guarantees that any thread may call the function with `user`.
            unsafe { (self.function)(self.user) };
        });
    }
}

/// Returns an error if this thread runs a callback. Every function that can wait for a thread of the plugin calls this
/// function first. Otherwise, the callback could wait for its own thread.
pub(super) fn check_outside(name: &'static str, function: &str) -> Result<()> {
    if !RUNNING.get() {
        return Ok(());
    }
    bad(
        name,
        format!(
            "{name} is passed to {function} inside a callback of nuc_call_on_done, where waiting for the device could \
             never end; call {function} after the callback has returned, from another thread"
        ),
    )
}
