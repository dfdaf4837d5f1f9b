//! Pointers and strings of the caller.

use libc::c_char;
use std::ffi::CStr;
use std::mem::align_of;
use std::path::PathBuf;

use crate::error::Error;

pub(super) type Result<T> = std::result::Result<T, Error>;

/// An [`Error::InvalidArgument`]: the argument, field or struct `name` is wrong.
pub(super) fn bad<T>(name: &'static str, message: impl Into<String>) -> Result<T> {
    Err(Error::named_argument(name, message))
}

/// Checks that a pointer is neither null nor misaligned.
pub(super) fn check_pointer<T>(pointer: *const T, name: &'static str) -> Result<()> {
    if pointer.is_null() {
        return bad(name, format!("{name} is null; it must point to the caller's memory"));
    }
    if !pointer.is_aligned() {
        let alignment = align_of::<T>();
        return bad(name, format!("{name} is {pointer:p}; it must be aligned to {alignment} bytes"));
    }
    Ok(())
}

/// A NUL-terminated string; null is `None`. `place` is where it is in the argument `name`.
///
/// # Safety
/// `pointer` is null or points to a NUL-terminated string that outlives `'a`.
pub(super) unsafe fn string<'a>(
    pointer: *const c_char,
    name: &'static str,
    place: &str,
) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller guarantees the terminator.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map(Some).or_else(|_| bad(name, format!("{place} is {text:?}; it must be valid UTF-8")))
}

/// A path; null and empty are `None`.
///
/// # Safety
/// As for [`string`].
pub(super) unsafe fn path(pointer: *const c_char, name: &'static str) -> Result<Option<PathBuf>> {
    // SAFETY: the same contract.
    let text = unsafe { string(pointer, name, name)? };
    Ok(text.filter(|path| !path.is_empty()).map(Into::into))
}
