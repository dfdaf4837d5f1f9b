//! Structs that start with `struct_size`, so that callers with older and newer versions of the header can use them.
//!
//! A caller with an older header passes a shorter struct: the missing fields keep their defaults. A caller with a
//! newer header passes a longer one: the part that this library does not know must be zero.

use std::mem::{offset_of, size_of, MaybeUninit};

use super::memory::{Memory, Use};
use super::pointers::{bad, check_pointer, Result};
use super::types::*;

/// Larger than any struct of the ABI. A larger `struct_size` was not initialized.
const LARGEST_SIZE: usize = 4096;

/// A struct of the ABI.
///
/// # Safety
/// It is `repr(C)`, its first field is `struct_size: usize`, and every bit pattern of it is valid.
pub(super) unsafe trait CStruct: Copy {
    /// The name in C.
    const NAME: &'static str;
    /// The function that initializes the struct, if it has one.
    const INIT: Option<&'static str>;
    /// Every size that the struct has had, ascending: the size in version 1 of the ABI, then the size after each
    /// field that was appended since.
    const SIZES: &'static [usize];
}

macro_rules! c_structs {
    ($($name:ident, $init:expr, [$($appended:ident)*];)*) => {$(
        // SAFETY: `types.rs` declares it as `repr(C)` with `struct_size` first, and its fields are integers, floats
        // and pointers.
        unsafe impl CStruct for $name {
            const NAME: &'static str = stringify!($name);
            const INIT: Option<&'static str> = $init;
            // No struct has padding, so a field ends where the next one starts.
            const SIZES: &'static [usize] = &[$(offset_of!($name, $appended),)* size_of::<$name>()];
        }
    )*};
}

// Each struct with its init function and, in order, the fields that were appended since version 1 of the ABI.
c_structs! {
    nuc_sampler_options, Some("nuc_sampler_options_init"), [program_dir write_programs reserved];
    nuc_call_options, Some("nuc_call_options_init"), [];
    nuc_batch, None, [];
    nuc_debug_arrays, None, [];
    nuc_prewarm_spec, None, [];
    nuc_compile_ahead_options, Some("nuc_compile_ahead_options_init"), [];
    nuc_sampler_stats, None, [loaded pinned not_kept];
    nuc_sampler_info, None, [];
    nuc_device_info, None, [];
}

/// A struct whose fields are all zero and null.
pub(super) fn zeroed<T: CStruct>() -> T {
    // SAFETY: every bit pattern of T is valid.
    unsafe { MaybeUninit::<T>::zeroed().assume_init() }
}

/// Reads a struct of the caller. Fields that the caller's header does not have keep the values of `default`.
///
/// # Safety
/// `pointer` is null or points to `struct_size` readable bytes, where `struct_size` is its first field.
pub(super) unsafe fn read_struct<T: CStruct>(
    memory: &mut Memory,
    pointer: *const T,
    default: T,
) -> Result<T> {
    // SAFETY: the same contract.
    let size = unsafe { registered_size(memory, pointer, Use::Read)? };
    let known = size.min(size_of::<T>());
    for at in known..size {
        // SAFETY: within the struct_size bytes that the caller guarantees.
        if unsafe { *pointer.cast::<u8>().add(at) } != 0 {
            return bad(format!(
                "{}.struct_size is {size}, more than the {} bytes that this library knows, and the rest is not zero; \
                 use a newer version of this library",
                T::NAME,
                size_of::<T>()
            ));
        }
    }
    let mut value = default;
    // SAFETY: `known` bytes are readable and fit `value`; every bit pattern of T is valid.
    unsafe {
        std::ptr::copy_nonoverlapping(
            pointer.cast::<u8>(),
            std::ptr::from_mut(&mut value).cast::<u8>(),
            known,
        );
    }
    Ok(value)
}

/// Writes `value` into a struct of the caller. `struct_size` and the bytes after the known fields stay unchanged.
///
/// # Safety
/// As for [`read_struct`], and the bytes are writable.
pub(super) unsafe fn write_struct<T: CStruct>(memory: &mut Memory, pointer: *mut T, value: T) -> Result<()> {
    // SAFETY: the same contract.
    let size = unsafe { registered_size(memory, pointer, Use::Written)? };
    memory.check_overlap()?;
    let first = size_of::<usize>();
    let known = size.min(size_of::<T>());
    // SAFETY: both have `known` bytes, and a local value cannot overlap the caller's memory.
    unsafe {
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(&value).cast::<u8>().add(first),
            pointer.cast::<u8>().add(first),
            known - first,
        );
    }
    Ok(())
}

/// Fills an options struct of `size` bytes with its defaults, and the bytes after the known fields with zeros.
///
/// # Safety
/// `pointer` is null or points to `size` writable bytes.
pub(super) unsafe fn init_struct<T: CStruct>(
    memory: &mut Memory,
    pointer: *mut T,
    size: usize,
    defaults: T,
) -> Result<()> {
    check_pointer(pointer, T::NAME)?;
    if size == 0 {
        return bad(format!("struct_size is 0; pass sizeof({})", T::NAME));
    }
    check_size::<T>(size)?;
    memory.add(T::NAME, pointer as usize, size, Use::Written)?;
    memory.check_overlap()?;
    let known = size.min(size_of::<T>());
    // SAFETY: `size` bytes are writable, and `known` of them fit `defaults`.
    unsafe {
        std::ptr::write_bytes(pointer.cast::<u8>(), 0, size);
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(&defaults).cast::<u8>(),
            pointer.cast::<u8>(),
            known,
        );
        *pointer.cast::<usize>() = size;
    }
    Ok(())
}

/// Checks the `struct_size` of a struct of the caller, registers the struct in `memory`, and returns the size.
///
/// # Safety
/// As for [`read_struct`].
unsafe fn registered_size<T: CStruct>(memory: &mut Memory, pointer: *const T, usage: Use) -> Result<usize> {
    check_pointer(pointer, T::NAME)?;
    // SAFETY: not null, aligned for T and so for usize; the caller guarantees the first field.
    let size = unsafe { *pointer.cast::<usize>() };
    if size == 0 {
        let name = T::NAME;
        return bad(match T::INIT {
            Some(init) => format!("{name}.struct_size is 0; initialize the struct with {init}"),
            None => format!("{name}.struct_size is 0; set it to sizeof({name})"),
        });
    }
    check_size::<T>(size)?;
    memory.add(T::NAME, pointer as usize, size, usage)?;
    Ok(size)
}

/// Checks that the struct had this size in some version of the header.
fn check_size<T: CStruct>(size: usize) -> Result<()> {
    if T::SIZES.contains(&size) || (size > size_of::<T>() && size <= LARGEST_SIZE) {
        return Ok(());
    }
    let sizes: Vec<String> = T::SIZES.iter().map(usize::to_string).collect();
    bad(format!(
        "{}.struct_size is {size}; set it to sizeof({}), which is {} in this version of the library",
        T::NAME,
        T::NAME,
        sizes.join(" or ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of the structs that have grown, as the C header defines them.
    #[test]
    fn sizes_are_those_of_every_version() {
        assert_eq!(nuc_sampler_options::SIZES, [64, 72, 76, 80]);
        assert_eq!(nuc_sampler_stats::SIZES, [56, 64, 72, 80]);
        assert_eq!(nuc_call_options::SIZES, [16]);
    }

    #[test]
    fn a_size_that_cuts_a_field_is_refused() {
        let message = check_size::<nuc_sampler_options>(68).unwrap_err().to_string();
        assert!(
            message.contains("struct_size is 68") && message.contains("64 or 72 or 76 or 80"),
            "{message}"
        );
        for size in [64, 72, 76, 80, 88, 4096] {
            check_size::<nuc_sampler_options>(size).unwrap();
        }
        for size in [1, 8, 63, 65, 71, 73, 79, 4097, usize::MAX] {
            check_size::<nuc_sampler_options>(size).unwrap_err();
        }
    }
}
