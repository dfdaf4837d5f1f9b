//! The library's log.

use libc::{c_char, c_void};

/// How much the library logs. Each level includes the levels before it.
pub type nuc_log_level = i32;

/// Nothing. This is the default.
pub const NUC_LOG_OFF: nuc_log_level = 0;
/// Failures that no return value can report.
pub const NUC_LOG_ERROR: nuc_log_level = 1;
/// The library continued after a problem. For example, a compiled program could not be loaded and is compiled
/// again.
pub const NUC_LOG_WARNING: nuc_log_level = 2;
/// The programs that nuc_compile_ahead compiles.
pub const NUC_LOG_INFO: nuc_log_level = 3;
/// Every program that is loaded, compiled or written, and every call that fails.
pub const NUC_LOG_DEBUG: nuc_log_level = 4;

/// A callback that receives log messages; see nuc_set_log.
///
/// `user` is the pointer that was passed to nuc_set_log. `message` is one line of NUL-terminated UTF-8, without control
/// characters, valid only during the callback.
///
/// Any thread can call the callback, and several threads can call it at the same time. It must return normally: no
/// exception, no longjmp. It may call other functions of this library, but not nuc_sampler_destroy. It must not wait
/// for a prewarm or destroy a nuc_prewarming, because the prewarm may wait for the callback. On a thread for which a
/// prewarm may wait, these calls return NUC_INVALID_ARGUMENT.
pub type nuc_log_function =
    Option<unsafe extern "C" fn(user: *mut c_void, level: nuc_log_level, message: *const c_char)>;
