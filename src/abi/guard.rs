//! The boundary that nothing unwinds across: every C function runs its body in here.

use libc::c_char;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::float_environment::FloatEnvironment;
use super::types::nuc_error;
use super::types::nuc_status::{self, *};
use crate::error::Error;
use crate::pjrt::{self, ErrorKind};

/// Runs `body`, turns its error or panic into a status, and describes it in `error`.
///
/// # Safety
/// `error` is null or points to a writable `nuc_error`.
pub(super) unsafe fn guard(error: *mut nuc_error, body: impl FnOnce() -> Result<(), Error>) -> nuc_status {
    // Unwind safety: what a panic could leave half-done is the call's own state, which is dropped, and the
    // caches behind a handle, whose locks are held over no code that can panic half-way. The message and the log
    // are made in here too: a logger of the host may panic.
    let described = catch_unwind(AssertUnwindSafe(|| {
        let _environment = FloatEnvironment::standard();
        let outcome = body();
        pjrt::log_release_failures();
        match outcome {
            Ok(()) => (NUC_OK, String::new()),
            Err(failure) => {
                let (code, message) = (status(&failure), failure.to_string());
                log::debug!("{code:?}: {message}");
                (code, message)
            }
        }
    }));
    let (code, message) = described.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        (NUC_INTERNAL, format!("internal defect, please report it: {text}"))
    });
    if !error.is_null() && error.is_aligned() {
        // SAFETY: not null, aligned, and the caller vouches for the memory.
        let error = unsafe { &mut *error };
        error.code = code as i32;
        error.message = [0; 508];
        // One byte stays for the terminator; a character is not cut in half.
        let fits =
            (0..=message.len().min(error.message.len() - 1)).rev().find(|&n| message.is_char_boundary(n));
        let bytes = &message.as_bytes()[..fits.unwrap_or(0)];
        error.message.iter_mut().zip(bytes).for_each(|(slot, &byte)| *slot = byte as c_char);
    }
    code
}

fn status(error: &Error) -> nuc_status {
    match error {
        Error::InvalidArgument(_) => NUC_INVALID_ARGUMENT,
        Error::PluginNotFound(_) => NUC_PLUGIN_NOT_FOUND,
        Error::OutOfMemory(_) => NUC_OUT_OF_MEMORY,
        Error::Io(_) => NUC_IO_ERROR,
        Error::Internal(_) => NUC_INTERNAL,
        Error::Shared(error) => status(error),
        Error::Pjrt(error) => match error.kind() {
            ErrorKind::NotFound => NUC_PLUGIN_NOT_FOUND,
            ErrorKind::NotAPlugin => NUC_PLUGIN_INVALID,
            ErrorKind::ApiVersion => NUC_PLUGIN_VERSION,
            ErrorKind::Argument => NUC_INVALID_ARGUMENT,
            ErrorKind::OutOfMemory => NUC_OUT_OF_MEMORY,
            ErrorKind::Misbehaved => NUC_INTERNAL,
            _ => NUC_DEVICE_ERROR,
        },
    }
}
