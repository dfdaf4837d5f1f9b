//! Arrays of a call: checked one by one, and against every other.

use libc::c_void;
use std::mem::size_of;

use super::pointers::{bad, check_pointer, Result};
use crate::dtype::{Dtype, LogitsMut};

/// Arrays of a call, so that each can be checked against every other.
#[derive(Default)]
pub(super) struct Regions {
    list: Vec<(&'static str, usize, usize, bool)>,
}

impl Regions {
    /// Checks alignment and size of an array and notes where it lies. Null is `None`.
    pub(super) fn note<T>(
        &mut self,
        pointer: *const T,
        len: Option<usize>,
        name: &'static str,
        written: bool,
    ) -> Result<Option<usize>> {
        if pointer.is_null() {
            return Ok(None);
        }
        check_pointer(pointer, name)?;
        let bytes = len.and_then(|len| len.checked_mul(size_of::<T>())).filter(|&b| b <= isize::MAX as usize);
        let start = pointer as usize;
        match (bytes, bytes.and_then(|bytes| start.checked_add(bytes))) {
            (Some(bytes), Some(end)) => {
                if bytes > 0 {
                    self.list.push((name, start, end, written));
                }
                Ok(Some(bytes / size_of::<T>()))
            }
            _ => bad(format!(
                "{name} would be larger than the address space: batch, vocab or row_stride is wrong"
            )),
        }
    }

    pub(super) fn check_overlap(&self) -> Result<()> {
        for (i, a) in self.list.iter().enumerate() {
            for b in &self.list[..i] {
                if (a.3 || b.3) && a.1 < b.2 && b.1 < a.2 {
                    return bad(format!(
                        "{} ({:#x} to {:#x}) overlaps {} ({:#x} to {:#x}); what is written may overlap nothing else",
                        a.0, a.1, a.2, b.0, b.1, b.2
                    ));
                }
            }
        }
        Ok(())
    }
}

/// # Safety
/// `pointer` is null or points to `len` elements, readable and not written during `'a`; alignment was checked.
pub(super) unsafe fn slice<'a, T>(pointer: *const T, len: Option<usize>) -> Option<&'a [T]> {
    // SAFETY: `len` is `Some` only where the pointer is not null and its size was checked.
    len.map(|len| unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// # Safety
/// `pointer` is null or points to `len` elements that nothing else touches during `'a`; alignment was checked.
pub(super) unsafe fn slice_mut<'a, T>(pointer: *mut T, len: Option<usize>) -> Option<&'a mut [T]> {
    // SAFETY: `len` is `Some` only where the pointer is not null and its size was checked.
    len.map(|len| unsafe { std::slice::from_raw_parts_mut(pointer, len) })
}

/// # Safety
/// As for [`slice_mut`], with elements of `dtype`.
pub(super) unsafe fn logits_mut<'a>(
    pointer: *mut c_void,
    len: Option<usize>,
    dtype: Dtype,
) -> Option<LogitsMut<'a>> {
    // SAFETY: passed on.
    unsafe {
        match dtype {
            Dtype::F32 => slice_mut(pointer.cast(), len).map(LogitsMut::F32),
            Dtype::Bf16 => slice_mut(pointer.cast(), len).map(LogitsMut::Bf16),
            Dtype::F16 => slice_mut(pointer.cast(), len).map(LogitsMut::F16),
        }
    }
}
