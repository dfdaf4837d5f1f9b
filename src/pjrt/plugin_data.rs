//! Copying what a plugin owns.

use std::ffi::c_char;

/// Copies a string of the plugin's; null gives an empty one.
///
/// # Safety
/// `data` must be null or good for `size` bytes.
pub(super) unsafe fn string(data: *const c_char, size: usize) -> String {
    // SAFETY: the caller's promise.
    String::from_utf8_lossy(unsafe { slice(data.cast::<u8>(), size) }).into_owned()
}

/// An array of the plugin's; null gives an empty one, as C does with no elements and Rust does not.
///
/// # Safety
/// `data` must be null or good for `len` elements for as long as the result is used.
pub(super) unsafe fn slice<'a, T>(data: *const T, len: usize) -> &'a [T] {
    if data.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(data, len) }
}
