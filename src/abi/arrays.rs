//! Array arguments of a call.

use libc::c_void;
use std::mem::size_of;

use super::memory::{Memory, Use};
use super::pointers::{bad, check_pointer, Result};
use crate::dtype::{Dtype, Logits, LogitsMut};

/// An array of the caller: its address, its length, and whether the call reads or writes it.
///
/// Its pointer is checked, and its memory is registered for the overlap check. A null pointer means that the caller
/// did not pass the array.
pub(super) struct Array<T> {
    pointer: *mut T,
    len: usize,
    usage: Use,
}

impl<T> Array<T> {
    /// An array of `len` elements that the call reads. `len` is `None` if its computation overflowed.
    pub(super) fn read(
        memory: &mut Memory,
        name: &'static str,
        pointer: *const T,
        len: Option<usize>,
    ) -> Result<Array<T>> {
        Array::new(memory, name, pointer.cast_mut(), len, Use::Read)
    }

    /// An array of `len` elements that the call writes. `len` is `None` if its computation overflowed.
    pub(super) fn written(
        memory: &mut Memory,
        name: &'static str,
        pointer: *mut T,
        len: Option<usize>,
    ) -> Result<Array<T>> {
        Array::new(memory, name, pointer, len, Use::Written)
    }

    fn new(
        memory: &mut Memory,
        name: &'static str,
        pointer: *mut T,
        len: Option<usize>,
        usage: Use,
    ) -> Result<Array<T>> {
        if pointer.is_null() {
            return Ok(Array { pointer, len: 0, usage });
        }
        check_pointer(pointer, name)?;
        let largest = isize::MAX as usize / size_of::<T>();
        let Some(len) = len.filter(|&len| len <= largest) else {
            return bad(
                name,
                format!(
                    "{name} would be larger than the address space; check num_rows, vocab and row_stride"
                ),
            );
        };
        memory.add(name, pointer as usize, len * size_of::<T>(), usage)?;
        Ok(Array { pointer, len, usage })
    }

    /// The elements; `None` if the caller did not pass the array.
    ///
    /// # Safety
    /// The overlap check of the call has passed. The memory is readable, and nothing writes it during `'a`.
    pub(super) unsafe fn get<'a>(self) -> Option<&'a [T]> {
        debug_assert!(self.usage == Use::Read);
        // SAFETY: not null, aligned, and of a checked size; the caller guarantees the rest.
        (!self.pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(self.pointer, self.len) })
    }

    /// The elements, for writing; `None` if the caller did not pass the array.
    ///
    /// # Safety
    /// The overlap check of the call has passed. The memory is writable, and nothing else accesses it during `'a`.
    pub(super) unsafe fn get_mut<'a>(self) -> Option<&'a mut [T]> {
        debug_assert!(self.usage == Use::Written);
        // SAFETY: not null, aligned, and of a checked size; the caller guarantees the rest.
        (!self.pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts_mut(self.pointer, self.len) })
    }
}

/// An [`Array`] whose element type is the type of the logits.
pub(super) enum LogitsArray {
    F32(Array<f32>),
    Bf16(Array<u16>),
    F16(Array<u16>),
}

impl LogitsArray {
    pub(super) fn read(
        memory: &mut Memory,
        name: &'static str,
        pointer: *const c_void,
        len: Option<usize>,
        dtype: Dtype,
    ) -> Result<LogitsArray> {
        LogitsArray::new(memory, name, pointer.cast_mut(), len, dtype, Use::Read)
    }

    pub(super) fn written(
        memory: &mut Memory,
        name: &'static str,
        pointer: *mut c_void,
        len: Option<usize>,
        dtype: Dtype,
    ) -> Result<LogitsArray> {
        LogitsArray::new(memory, name, pointer, len, dtype, Use::Written)
    }

    fn new(
        memory: &mut Memory,
        name: &'static str,
        pointer: *mut c_void,
        len: Option<usize>,
        dtype: Dtype,
        usage: Use,
    ) -> Result<LogitsArray> {
        Ok(match dtype {
            Dtype::F32 => LogitsArray::F32(Array::new(memory, name, pointer.cast(), len, usage)?),
            Dtype::Bf16 => LogitsArray::Bf16(Array::new(memory, name, pointer.cast(), len, usage)?),
            Dtype::F16 => LogitsArray::F16(Array::new(memory, name, pointer.cast(), len, usage)?),
        })
    }

    /// The logits; empty if the caller did not pass the array.
    ///
    /// # Safety
    /// The requirements are those of [`Array::get`].
    pub(super) unsafe fn get<'a>(self) -> Logits<'a> {
        // SAFETY: the same contract.
        unsafe {
            match self {
                LogitsArray::F32(array) => Logits::F32(array.get().unwrap_or_default()),
                LogitsArray::Bf16(array) => Logits::Bf16(array.get().unwrap_or_default()),
                LogitsArray::F16(array) => Logits::F16(array.get().unwrap_or_default()),
            }
        }
    }

    /// The array, for writing; `None` if the caller did not pass it.
    ///
    /// # Safety
    /// The requirements are those of [`Array::get_mut`].
    pub(super) unsafe fn get_mut<'a>(self) -> Option<LogitsMut<'a>> {
        // SAFETY: the same contract.
        unsafe {
            match self {
                LogitsArray::F32(array) => array.get_mut().map(LogitsMut::F32),
                LogitsArray::Bf16(array) => array.get_mut().map(LogitsMut::Bf16),
                LogitsArray::F16(array) => array.get_mut().map(LogitsMut::F16),
            }
        }
    }
}
