//! Reads strings and arrays that a plugin owns, and checks the properties that a caller can check.

use std::ffi::c_char;

use bytemuck::Zeroable;

use super::error::{Error, Result};
use super::text;

/// A plugin that returns a longer name or description is assumed to return garbage.
const LONGEST_NAME: usize = 1 << 20;

/// Copies a name, version or description that `function` returned. A null pointer with length 0 is an empty string.
///
/// # Safety
/// As for [`slice`].
pub(super) unsafe fn name(data: *const c_char, size: usize, function: &str) -> Result<String> {
    if size > LONGEST_NAME {
        return Err(Error::Misbehaved(format!("{function} returned a string of {size} bytes")));
    }
    // SAFETY: the caller guarantees this.
    Ok(text::name(unsafe { slice(data.cast::<u8>(), size, function)? }))
}

/// Borrows an array that `function` returned. A null pointer with length 0 is an empty array.
///
/// # Safety
/// `data` must be null, or misaligned, or valid for reads of `len` elements as long as the result is used.
pub(super) unsafe fn slice<'a, T>(data: *const T, len: usize, function: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() || !data.is_aligned() {
        return Err(Error::Misbehaved(format!("{function} returned {len} elements at address {data:p}")));
    }
    if len > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Error::Misbehaved(format!(
            "{function} returned {len} elements, more than memory can hold"
        )));
    }
    // SAFETY: neither null nor misaligned, and not longer than an allocation can be. The caller guarantees the rest.
    Ok(unsafe { std::slice::from_raw_parts(data, len) })
}

/// Copies values. The plugin decides their number, so the allocation may fail.
pub(super) fn copied<T: Copy>(values: &[T], purpose: &'static str) -> Result<Vec<T>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(values.len())
        .map_err(|_| Error::OutOfMemory { bytes: size_of_val(values), purpose })?;
    copy.extend_from_slice(values);
    Ok(copy)
}

/// Allocates zeroed memory for data of a plugin. The plugin decides the size, so the allocation is fallible.
pub(super) fn zeroed<T: Zeroable>(len: usize, purpose: &'static str) -> Result<Vec<T>> {
    let memory = bytemuck::allocation::try_zeroed_vec(len);
    memory.map_err(|()| Error::OutOfMemory { bytes: len.saturating_mul(size_of::<T>()), purpose })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pjrt::ErrorKind;

    #[test]
    fn pointers_and_lengths_are_checked() {
        let values = [1_u64, 2, 3];
        let start = values.as_ptr();
        // SAFETY: the only call that reads has the array's own length.
        unsafe {
            assert_eq!(slice(start, 3, "F").unwrap(), values);
            assert!(slice::<u64>(std::ptr::null(), 0, "F").unwrap().is_empty());
            for (data, len) in
                [(std::ptr::null(), 3), (start.byte_add(1), 2), (start, usize::MAX), (start, usize::MAX / 8)]
            {
                let error = slice(data, len, "PJRT_Test").unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Misbehaved);
                assert!(error.to_string().contains("PJRT_Test"), "{error}");
            }
            assert_eq!(name(c"text".as_ptr(), 4, "F").unwrap(), "text");
            assert_eq!(name(c"text".as_ptr(), usize::MAX, "F").unwrap_err().kind(), ErrorKind::Misbehaved);
        }
    }
}
