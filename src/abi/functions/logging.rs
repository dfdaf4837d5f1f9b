//! The destination of the log.

use libc::c_void;

use crate::abi::guard::guard;
use crate::abi::log;
use crate::abi::types::{nuc_error, nuc_log_function, nuc_log_level, nuc_status};
use crate::error::Error;

/// Sets the destination of the library's log for the whole process. Messages up to `level` go to the callback `log`, or
/// to standard error if `log` is null.
///
/// A later call replaces an earlier one. The earlier callback can still be running in another thread when the later
/// call returns. Any thread may call this function. The library does not access the memory behind `user`.
///
/// If this function was not called before the first nuc_sampler_create or nuc_compile_ahead, the environment variable
/// NUCLEUS_LOG (off, error, warning, info or debug) sets the level for standard error. The variable is read once. A
/// value that is not a level is reported once on standard error and ignored. Without the variable, nothing is logged.
/// If standard error is closed, messages are lost; they do not raise SIGPIPE.
///
/// Errors: NUC_INVALID_ARGUMENT if `level` is not a nuc_log_level, or if the process is a Rust program that already has
/// a logger.
///
/// # Safety
/// Any thread may call `log` with `user` until the process ends, or until another nuc_set_log has replaced the callback
/// and every call that began before has returned. `error` is null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_set_log(
    log: nuc_log_function,
    user: *mut c_void,
    level: nuc_log_level,
    error: *mut nuc_error,
) -> nuc_status {
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, |_| log::set(log, user, level)) }
}

/// Sends the library's messages up to `level` to standard error, like `nuc_set_log` without a callback. For callers
/// in Rust.
pub fn log_to_standard_error(level: nuc_log_level) -> Result<(), Error> {
    log::set(None, std::ptr::null_mut(), level)
}

/// Returns the allowed values of the environment variable NUCLEUS_LOG. This function is for callers in Rust.
pub fn log_level_names() -> impl Iterator<Item = &'static str> {
    log::level_names()
}
