//! Structs that start with `struct_size`, read from and written to callers of other versions of the header.

use std::mem::{offset_of, size_of};

use super::pointers::{bad, check_pointer, Result};
use super::types::*;

/// A struct of the ABI.
///
/// # Safety
/// It is `repr(C)`, its first field is `struct_size: usize`, and every bit pattern of it is valid.
pub(super) unsafe trait CStruct: Copy {
    /// In C.
    const NAME: &'static str;
    /// Where its last field of ABI version 1 ends: the shortest that a caller can have. Fields are only ever
    /// appended, and do not change this.
    const FIRST_SIZE: usize;
}

macro_rules! c_structs {
    ($($name:ident, $last:ident: $last_type:ty;)*) => {$(
        // SAFETY: `types.rs` declares it so, of integers, floats and pointers only.
        unsafe impl CStruct for $name {
            const NAME: &'static str = stringify!($name);
            const FIRST_SIZE: usize = offset_of!($name, $last) + size_of::<$last_type>();
        }
    )*};
}

c_structs! {
    nuc_sampler_options, num_threads: usize;
    nuc_call_options, replace_val: f32;
    nuc_batch, offset: *const u64;
    nuc_debug_arrays, topk_topp_unnorm_probs_i32_k: *mut i32;
    nuc_prewarm_spec, wide_arrays: u32;
    nuc_compile_ahead_options, programs_written: *mut usize;
    nuc_sampler_stats, programs: u64;
    nuc_sampler_info, max_k: usize;
    nuc_device_info, reserved: i32;
}

/// A struct that starts with `size_t struct_size`, from a caller whose header may be older (its struct is
/// shorter: the rest keeps `default`) or newer (longer: what this library does not know must be zero).
///
/// # Safety
/// `pointer` is null or points to `struct_size` readable bytes, where `struct_size` is its first field.
pub(super) unsafe fn read_struct<T: CStruct>(pointer: *const T, default: T) -> Result<T> {
    check_pointer(pointer, T::NAME)?;
    // SAFETY: not null, aligned for T and so for usize, and the caller vouches for the first field.
    let size = unsafe { *pointer.cast::<usize>() };
    check_struct_size::<T>(size)?;
    let known = size.min(size_of::<T>());
    for at in known..size {
        // SAFETY: within the struct_size bytes that the caller vouches for.
        if unsafe { *pointer.cast::<u8>().add(at) } != 0 {
            return bad(format!(
                "{}.struct_size is {size}, more than the {} bytes this library knows, and the rest is not zero: \
                 a newer library is needed",
                T::NAME,
                size_of::<T>()
            ));
        }
    }
    let mut value = default;
    // SAFETY: `known` bytes are readable there and fit `value`; T allows any bits.
    unsafe {
        std::ptr::copy_nonoverlapping(
            pointer.cast::<u8>(),
            std::ptr::from_mut(&mut value).cast::<u8>(),
            known,
        );
    }
    Ok(value)
}

/// Writes `value` into a struct of the caller, as far as its `struct_size` reaches, which stays.
///
/// # Safety
/// As for [`read_struct`], and the bytes are writable.
pub(super) unsafe fn write_struct<T: CStruct>(pointer: *mut T, value: T) -> Result<()> {
    check_pointer(pointer, T::NAME)?;
    // SAFETY: not null, aligned, and the caller vouches for the first field.
    let size = unsafe { *pointer.cast::<usize>() };
    check_struct_size::<T>(size)?;
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

/// Fills an options struct whose size the caller passes beside it.
///
/// # Safety
/// `pointer` is null or points to `size` writable bytes.
pub(super) unsafe fn init_struct<T: CStruct>(pointer: *mut T, size: usize, defaults: T) -> Result<()> {
    check_pointer(pointer, T::NAME)?;
    check_struct_size::<T>(size)?;
    let known = size.min(size_of::<T>());
    // SAFETY: `size` bytes are writable; all of them are set, zero where this library knows no field.
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

fn check_struct_size<T: CStruct>(size: usize) -> Result<()> {
    let (name, least) = (T::NAME, T::FIRST_SIZE);
    // No struct of this library will come near a page; more is an uninitialised field.
    if size < least || size > 4096 {
        return bad(format!("{name}.struct_size is {size}; set it to sizeof({name}), at least {least}"));
    }
    Ok(())
}
