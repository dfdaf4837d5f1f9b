//! Structs that start with `struct_size`, so that callers with older and newer versions of the header can use them.
//!
//! A caller with an older header passes a shorter struct: the missing fields keep their defaults. A caller with a
//! newer header passes a longer one: the part that this library does not know must be zero.

use std::mem::{size_of, MaybeUninit};

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
    /// The macro of the header that initializes the struct.
    const INIT: &'static str;
    /// Every size that the struct has had, ascending: the size in version 1 of the ABI, then the size after each
    /// addition of fields.
    const SIZES: &'static [usize];
}

macro_rules! c_structs {
    ($($name:ident, $init:literal, [$($appended:ident)*];)*) => {$(
        // SAFETY: `types` declares it as `repr(C)` with `struct_size` first, and its fields are integers, floats and
        // pointers.
        unsafe impl CStruct for $name {
            const NAME: &'static str = stringify!($name);
            const INIT: &'static str = $init;
            // No struct has padding, so the older struct ends where the first added field starts.
            const SIZES: &'static [usize] = &[$(std::mem::offset_of!($name, $appended),)* size_of::<$name>()];
        }
    )*};
}

// Each struct with its macro and, in order, the first field of each addition since version 1 of the ABI.
c_structs! {
    nuc_error, "NUC_ERROR_INIT", [];
    nuc_sampler_options, "NUC_SAMPLER_OPTIONS_INIT", [pjrt_api program_dir_capacity row_buckets];
    nuc_call_options, "NUC_CALL_OPTIONS_INIT", [];
    nuc_batch, "NUC_BATCH_INIT", [];
    nuc_debug_arrays, "NUC_DEBUG_ARRAYS_INIT", [];
    nuc_prewarm_spec, "NUC_PREWARM_SPEC_INIT", [logits];
    nuc_prewarm_progress, "NUC_PREWARM_PROGRESS_INIT", [];
    nuc_compile_ahead_options, "NUC_COMPILE_AHEAD_OPTIONS_INIT", [output_dir_capacity row_buckets];
    nuc_sampler_stats, "NUC_SAMPLER_STATS_INIT", [program_files_evicted enqueue_count];
    nuc_sampler_info, "NUC_SAMPLER_INFO_INIT", [pjrt_api];
    nuc_device_info, "NUC_DEVICE_INFO_INIT", [];
    nuc_parameters_options, "NUC_PARAMETERS_OPTIONS_INIT", [];
    nuc_row_parameters, "NUC_ROW_PARAMETERS_INIT", [];
    nuc_start_options, "NUC_START_OPTIONS_INIT", [donate_logits];
    nuc_emit_options, "NUC_EMIT_OPTIONS_INIT", [];
}

/// A struct whose fields are all zero and null, except `struct_size`.
pub(super) fn initialized<T: CStruct>() -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the first field of T is `struct_size: usize`, and every bit pattern of T is valid.
    unsafe {
        value.as_mut_ptr().cast::<usize>().write(size_of::<T>());
        value.assume_init()
    }
}

/// Reads a struct of the caller. Fields that the caller's header does not have are zero, which means their defaults.
///
/// # Safety
/// `pointer` is null or points to `struct_size` readable bytes, where `struct_size` is its first field.
pub(super) unsafe fn read_struct<T: CStruct>(memory: &mut Memory, pointer: *const T) -> Result<T> {
    // SAFETY: the same contract.
    let size = unsafe { checked_size(pointer)? };
    memory.add(T::NAME, pointer as usize, size, Use::Read)?;
    let mut value: T = initialized();
    // SAFETY: at least this many bytes are readable and fit `value`; every bit pattern of T is valid.
    unsafe {
        std::ptr::copy_nonoverlapping(
            pointer.cast::<u8>(),
            std::ptr::from_mut(&mut value).cast::<u8>(),
            size.min(size_of::<T>()),
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
    let size = unsafe { checked_address_and_size(pointer)? };
    memory.add(T::NAME, pointer as usize, size, Use::Written)?;
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

/// Checks the address and the `struct_size` of a struct that the library reads. Returns the size. The bytes after the
/// last field that this library knows must be zero.
///
/// # Safety
/// As for [`read_struct`].
pub(super) unsafe fn checked_size<T: CStruct>(pointer: *const T) -> Result<usize> {
    // SAFETY: the same contract.
    let size = unsafe { checked_address_and_size(pointer)? };
    for at in size_of::<T>()..size {
        // SAFETY: within the struct_size bytes that the caller guarantees.
        if unsafe { *pointer.cast::<u8>().add(at) } != 0 {
            return bad(
                T::NAME,
                format!(
                    "{}.struct_size is {size}, more than the {} bytes that this library knows, and the rest is not \
                     zero; use a newer version of this library",
                    T::NAME,
                    size_of::<T>()
                ),
            );
        }
    }
    Ok(size)
}

/// # Safety
/// As for [`read_struct`].
unsafe fn checked_address_and_size<T: CStruct>(pointer: *const T) -> Result<usize> {
    check_pointer(pointer, T::NAME)?;
    // SAFETY: not null, aligned for T and so for usize; the caller guarantees the first field.
    let size = unsafe { *pointer.cast::<usize>() };
    check_size::<T>(size)?;
    Ok(size)
}

/// Checks that the struct had this size in some version of the header.
fn check_size<T: CStruct>(size: usize) -> Result<()> {
    if T::SIZES.contains(&size) || (size > size_of::<T>() && size <= LARGEST_SIZE) {
        return Ok(());
    }
    let sizes: Vec<String> = T::SIZES.iter().map(usize::to_string).collect();
    bad(
        T::NAME,
        format!(
            "{}.struct_size is {size}; it must be sizeof({}), which is {} in this version of the library: initialize \
             the struct with {}",
            T::NAME,
            T::NAME,
            sizes.join(" or "),
            T::INIT
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of version 1. A struct that grows keeps its old sizes.
    #[test]
    fn sizes_are_those_of_every_version() {
        assert_eq!(nuc_error::SIZES, [1024]);
        assert_eq!(nuc_sampler_options::SIZES, [80, 96, 104, 120]);
        assert_eq!(nuc_call_options::SIZES, [24]);
        assert_eq!(nuc_batch::SIZES, [104]);
        assert_eq!(nuc_debug_arrays::SIZES, [80]);
        assert_eq!(nuc_prewarm_spec::SIZES, [40, 64]);
        assert_eq!(nuc_prewarm_progress::SIZES, [32]);
        assert_eq!(nuc_compile_ahead_options::SIZES, [104, 112, 136]);
        assert_eq!(nuc_sampler_stats::SIZES, [80, 96, 168]);
        assert_eq!(nuc_sampler_info::SIZES, [48, 64]);
        assert_eq!(nuc_device_info::SIZES, [32]);
        assert_eq!(nuc_parameters_options::SIZES, [40]);
        assert_eq!(nuc_row_parameters::SIZES, [48]);
        assert_eq!(nuc_start_options::SIZES, [16, 24]);
        assert_eq!(nuc_emit_options::SIZES, [64]);
    }

    /// A struct that has grown: version 1 ended before `second`, and a later version before `third`.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Grown {
        struct_size: usize,
        first: u64,
        second: u64,
        third: u32,
        reserved: u32,
    }

    c_structs! { Grown, "GROWN_INIT", [second third]; }

    fn grown(struct_size: usize) -> Grown {
        Grown { struct_size, first: 1, second: 2, third: 3, reserved: 0 }
    }

    #[test]
    fn a_size_that_cuts_a_field_is_refused() {
        assert_eq!(Grown::SIZES, [16, 24, 32]);
        let message = check_size::<Grown>(20).unwrap_err().to_string();
        assert!(
            message.contains("Grown.struct_size is 20") && message.contains("16 or 24 or 32"),
            "{message}"
        );
        for size in [16, 24, 32, 40, 4096] {
            check_size::<Grown>(size).unwrap();
        }
        for size in [0, 1, 8, 15, 17, 23, 25, 31, 4097, usize::MAX] {
            check_size::<Grown>(size).unwrap_err();
        }
    }

    /// Fields that an older header does not have are zero, and a getter does not write them.
    #[test]
    fn an_older_caller_has_fewer_fields() {
        for (size, second, third) in [(16, 0, 0), (24, 2, 0), (32, 2, 3)] {
            let mut theirs = grown(size);
            // SAFETY: a local struct.
            let read = unsafe { read_struct(&mut Memory::new(), &theirs) }.unwrap();
            assert_eq!((read.first, read.second, read.third), (1, second, third));
            let value = Grown { struct_size: 0, first: 7, second: 7, third: 7, reserved: 0 };
            // SAFETY: a local struct.
            unsafe { write_struct(&mut Memory::new(), &mut theirs, value) }.unwrap();
            let written = |new: u64, old: u64, is_known: bool| if is_known { new } else { old };
            assert_eq!((theirs.struct_size, theirs.first), (size, 7));
            assert_eq!(theirs.second, written(7, 2, size >= 24));
            assert_eq!(u64::from(theirs.third), written(7, 3, size >= 32));
        }
    }
}
