//! Creating and destroying samplers.

use crate::abi::device;
use crate::abi::guard::{guard, with_slot};
use crate::abi::handle;
use crate::abi::log;
use crate::abi::memory::Memory;
use crate::abi::objects::SamplerObject;
use crate::abi::options;
use crate::abi::types::{nuc_error, nuc_sampler, nuc_sampler_options, nuc_status};
use crate::sampler::Sampler;

/// Creates a sampler and writes its handle to `*sampler`. The caller owns the handle and frees it with
/// nuc_sampler_destroy. `options` may be null, which means all defaults. Any thread may call this function.
///
/// With a plugin, this function loads the plugin's library, which stays loaded until the process ends, and creates a
/// client. That can take seconds. With `pjrt_client` it uses the client of the caller.
///
/// Errors: NUC_INVALID_ARGUMENT; NUC_PLUGIN_NOT_FOUND, NUC_PLUGIN_INVALID and NUC_PLUGIN_VERSION; NUC_DEVICE_ERROR if
/// the plugin finds no device or cannot create a client; NUC_IO_ERROR for `program_dir`; NUC_OUT_OF_MEMORY if memory
/// runs out, or if no thread for the plugin can be started. After an error `*sampler` is null.
///
/// # Safety
/// `options` is null or points to a nuc_sampler_options whose strings are NUL-terminated, and whose `pjrt_api` and
/// `pjrt_client` are what their comments say. `sampler` points to a writable pointer. `error` is null or points to a
/// nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_create(
    options: *const nuc_sampler_options,
    sampler: *mut *mut nuc_sampler,
    error: *mut nuc_error,
) -> nuc_status {
    let make = |memory: &mut Memory| {
        log::read_environment();
        // SAFETY: the caller guarantees the options.
        let (options, client) = unsafe { options::sampler_options(memory, options)? };
        memory.check_overlap()?;
        let created = match client {
            None => Sampler::new(&options)?,
            // SAFETY: the caller guarantees the plugin's table and the client.
            Some(client) => Sampler::with_client(unsafe { client.borrow()? }, &options)?,
        };
        Ok(handle::create(SamplerObject::new(created)))
    };
    // SAFETY: the caller guarantees `sampler` and `error`.
    unsafe { with_slot(sampler, "sampler", error, make) }
}

/// Frees a sampler and everything that it owns: its threads, its compiled programs, its client, and the strings of its
/// getters. Null is allowed. The nuc_parameters, nuc_call and nuc_prewarming objects of the sampler keep its programs
/// and its client until the last of these objects is destroyed. A prewarm that is running continues. After this
/// function returns, the handle and all its copies in other threads are invalid. This function must not be called in a
/// callback of nuc_call_on_done.
///
/// No other call may use the handle at the same time or later. As long as the handle's memory is not reused, the
/// library detects that the handle was destroyed and returns NUC_INVALID_ARGUMENT.
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
    unsafe { guard(error, |_| device::destroy(sampler, "nuc_sampler_destroy")) }
}
