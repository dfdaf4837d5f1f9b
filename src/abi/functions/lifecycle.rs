//! Creating and destroying samplers.

use crate::abi::arrays::Array;
use crate::abi::guard::guard;
use crate::abi::handle::{self, nuc_sampler};
use crate::abi::log;
use crate::abi::memory::Memory;
use crate::abi::options;
use crate::abi::pointers::check_pointer;
use crate::abi::types::{nuc_error, nuc_sampler_options, nuc_status};
use crate::sampler::Sampler;

/// Creates a sampler and writes its handle to `*sampler`. The caller owns the handle and frees it with
/// nuc_sampler_destroy. `options` may be null, which means all defaults. Any thread may call this function.
///
/// With a plugin, this function loads the plugin's library, which stays loaded until the process ends, and creates a
/// client. That can take seconds.
///
/// Errors: NUC_INVALID_ARGUMENT; NUC_PLUGIN_NOT_FOUND, NUC_PLUGIN_INVALID and NUC_PLUGIN_VERSION; NUC_DEVICE_ERROR if
/// the plugin finds no device or cannot create a client; NUC_IO_ERROR for `program_dir`; NUC_OUT_OF_MEMORY if memory or
/// threads run out. After an error `*sampler` is null.
///
/// # Safety
/// `options` is null or points to a nuc_sampler_options whose strings are NUL-terminated. `sampler` points to a
/// writable pointer. `error` is null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_create(
    options: *const nuc_sampler_options,
    sampler: *mut *mut nuc_sampler,
    error: *mut nuc_error,
) -> nuc_status {
    if !sampler.is_null() && sampler.is_aligned() {
        // SAFETY: the caller guarantees a writable pointer. It is null after every error, even after a panic.
        unsafe { *sampler = std::ptr::null_mut() };
    }
    let body = |memory: &mut Memory| {
        check_pointer(sampler, "sampler")?;
        let slot = Array::written(memory, "sampler", sampler, Some(1))?;
        log::read_environment();
        // SAFETY: the caller guarantees the options.
        let options = unsafe { options::sampler_options(memory, options)? };
        memory.check_overlap()?;
        let created = Sampler::new(&options)?;
        // SAFETY: nothing overlaps the slot; the caller guarantees the memory.
        if let Some([slot]) = unsafe { slot.get_mut() } {
            *slot = handle::create(created);
        }
        Ok(())
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Frees a sampler and everything that it owns: its threads, its compiled programs, its client, and the strings of its
/// getters. Null is allowed. After the call the handle is invalid, and so are all copies of it in other threads.
///
/// No other call may use the handle at the same time or later. As long as the handle's memory is not reused, the library
/// detects that the handle was destroyed and returns NUC_INVALID_ARGUMENT.
///
/// In a child process after fork, this function does nothing and returns NUC_OK. The sampler's memory in the child is
/// not freed.
///
/// Errors: NUC_INVALID_ARGUMENT if `sampler` is not a sampler.
///
/// # Safety
/// `sampler` is null or a handle from nuc_sampler_create that was not destroyed. `error` is null or points to a
/// nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_destroy(sampler: *mut nuc_sampler, error: *mut nuc_error) -> nuc_status {
    // SAFETY: the caller guarantees the handle and `error`.
    unsafe { guard(error, |_| handle::destroy(sampler)) }
}
