//! Sampling of logits on a device.

use libc::c_void;

use crate::abi::arrays::Array;
use crate::abi::callbacks::{check_outside, Callback};
use crate::abi::device::{self, check_may_wait, Start, TokenArrays};
use crate::abi::guard::{guard, with_slot};
use crate::abi::handle;
use crate::abi::memory::Memory;
use crate::abi::options;
use crate::abi::pointers::check_pointer;
use crate::abi::types::*;
use crate::backend::pjrt::device_call::{DeviceWants, HostNumbers};
use crate::error::Error;

/// Creates the parameters of a batch on the sampler's device, and writes their handle to `*parameters`. Every row has
/// the defaults: plain sampling at temperature 1 with seed 0. The caller owns the handle and frees it with
/// nuc_parameters_destroy. Any number of threads may call this function with the same sampler.
///
/// Errors: NUC_INVALID_ARGUMENT, also if the sampler uses the built-in backend; NUC_OUT_OF_MEMORY. After an error
/// `*parameters` is null.
///
/// # Safety
/// `sampler` is a live handle. `options` points to a nuc_parameters_options, and `parameters` to a writable pointer.
/// `error` is null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_parameters_create(
    sampler: *const nuc_sampler,
    options: *const nuc_parameters_options,
    parameters: *mut *mut nuc_parameters,
    error: *mut nuc_error,
) -> nuc_status {
    // SAFETY: the caller guarantees the pointers.
    unsafe {
        with_slot(parameters, "parameters", error, |memory| {
            Ok(handle::create(device::create_parameters(memory, sampler, options)?))
        })
    }
}

/// Sets the parameters of the row `row`, counted from 0, for calls that start later. Calls that have started are not
/// affected. The next call uploads the parameters once. Any number of threads may call this function.
///
/// This function accepts an impossible value, for example a NaN temperature. Calls with this value fail, or report the
/// row as NUC_ROW_BAD_PARAMETER: see nuc_host_numbers.
///
/// Errors: NUC_INVALID_ARGUMENT, also if the parameters have no such row, or if a value is set without its flag.
///
/// # Safety
/// `parameters` is a live handle. `row_parameters` points to a nuc_row_parameters. `error` is null or points to a
/// nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_parameters_set(
    parameters: *mut nuc_parameters,
    row: usize,
    row_parameters: *const nuc_row_parameters,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut Memory| {
        // SAFETY: the caller guarantees the handle and the struct.
        let (object, settings) =
            unsafe { (handle::borrow(parameters)?, device::row_settings(memory, row_parameters)?) };
        memory.check_overlap()?;
        object.parameters.set(row, &settings)
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Frees a nuc_parameters. Null is allowed. Calls that were started with it continue. No other call may use the handle
/// at the same time or later. In a child process after fork, this function does nothing, like nuc_sampler_destroy. It
/// must not be called in a callback of nuc_call_on_done.
///
/// Errors: NUC_INVALID_ARGUMENT if `parameters` is not a nuc_parameters, or in a callback.
///
/// # Safety
/// `parameters` is null or a handle from nuc_parameters_create that was not destroyed. `error` is null or points to a
/// nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_parameters_destroy(
    parameters: *mut nuc_parameters,
    error: *mut nuc_error,
) -> nuc_status {
    // SAFETY: the caller guarantees the handle and `error`.
    unsafe { guard(error, |_| device::destroy(parameters, "nuc_parameters_destroy")) }
}

/// Starts to sample logits on the device, and writes the handle of the call to `*call`. The caller owns the handle and
/// frees it with nuc_call_destroy. The function compiles missing programs. It does not wait for other calls. It can
/// wait for a free slot in the plugin's queue, and until the plugin has read changed parameters from host memory. It
/// does not wait until they are on the device. If such an upload fails later, this call fails. Calls of the sampler
/// that use the same upload and were started before this call has ended fail too.
///
/// `logits` is a `PJRT_Buffer *` of the sampler's client in the default memory of the sampler's device. Its dimensions
/// are `[num_rows, vocab]` or `[num_rows, 1, vocab]`, and its element type is that of the parameters. If the layout is
/// not row-major, the device first copies the logits; the first call with this layout compiles a small program. The
/// device may still be computing the contents of the buffer. The programs of the call then wait on the device.
///
/// After this function has returned, the caller may destroy the buffer or donate it to another program. The library
/// does not change the buffer unless `donate_logits` is set in the options. With `donate_logits`, the contents are
/// deleted when this function returns successfully. After an error, the contents may or may not be deleted:
/// PJRT_Buffer_IsDeleted returns the state. The caller must destroy the buffer in every case.
///
/// A PJRT_Buffer is always on one device. If an array is replicated over several devices, pass the buffer on the
/// sampler's device. If an array is sharded by rows, create one sampler per device, and start one call per device with
/// the rows of its shard. If an array is sharded along the vocabulary, gather it first, for example in the program that
/// computes it. If a buffer has only some of the rows or logits, its dimensions do not match, and the call fails.
///
/// `step` is added to the offset of every row, modulo 2^64. `path` selects a path as in nuc_sample_flat. `options`
/// may be null, which means all defaults. Several calls can be in flight, also with the same parameters. Any number
/// of threads may call this function with the same sampler and the same parameters.
///
/// Errors: NUC_INVALID_ARGUMENT, also if the buffer does not match the parameters or the device (the message states the
/// difference), and if a row has impossible parameters (see nuc_host_numbers); NUC_OUT_OF_MEMORY, NUC_DEVICE_ERROR and
/// NUC_INTERNAL. After an error `*call` is null.
///
/// # Safety
/// `sampler` and `parameters` are live handles. `logits` is a live PJRT_Buffer of the sampler's client. `options` is
/// null or points to a nuc_start_options. `call` points to a writable pointer. `error` is null or points to a
/// nuc_error.
#[no_mangle]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn nuc_sample_start(
    sampler: *const nuc_sampler,
    path: nuc_path,
    logits: *mut c_void,
    parameters: *const nuc_parameters,
    step: u64,
    options: *const nuc_start_options,
    call: *mut *mut nuc_call,
    error: *mut nuc_error,
) -> nuc_status {
    let start = Start { sampler, path, logits, parameters, step };
    // SAFETY: the caller guarantees the pointers.
    unsafe {
        with_slot(call, "call", error, |memory| {
            let wants = device::start_options(memory, options)?;
            memory.check_overlap()?;
            Ok(handle::create(start.run(wants)?))
        })
    }
}

/// Samples logits on the device and waits for the tokens: nuc_sample_start, nuc_call_get_tokens and nuc_call_destroy in
/// one function. If a row has an impossible parameter and `row_status` is null, the call fails. If `row_status` is not
/// null, the parameter affects only its own row.
///
/// Errors: those of nuc_sample_start and nuc_call_get_tokens. A call that fails writes no output.
///
/// # Safety
/// As for nuc_sample_start and nuc_call_get_tokens.
#[no_mangle]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn nuc_sample_on_device(
    sampler: *const nuc_sampler,
    path: nuc_path,
    logits: *mut c_void,
    parameters: *const nuc_parameters,
    step: u64,
    tokens: *mut i32,
    row_status: *mut u32,
    error: *mut nuc_error,
) -> nuc_status {
    let start = Start { sampler, path, logits, parameters, step };
    let body = |memory: &mut Memory| {
        check_outside("sampler", "nuc_sample_on_device")?;
        let host = if row_status.is_null() { HostNumbers::Tokens } else { HostNumbers::All };
        // SAFETY: the caller guarantees the handles, the buffer and the arrays.
        unsafe {
            let arrays = TokenArrays::new(memory, start.rows()?, tokens, row_status)?;
            arrays.write(&start.run(DeviceWants { host, ..DeviceWants::default() })?)
        }
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Writes 1 to `*done` if a call has ended, else 0. A call ends when its numbers are on the host. With NUC_HOST_NONE,
/// it ends when the device has computed its results. A call that failed has also ended. This function does not wait.
/// Any thread may call this function.
///
/// Errors: NUC_INVALID_ARGUMENT.
///
/// # Safety
/// `call` is a live handle. `done` points to a writable int32_t. `error` is null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_call_is_done(
    call: *const nuc_call,
    done: *mut i32,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut Memory| {
        // SAFETY: the caller guarantees the handle.
        let object = unsafe { handle::borrow(call)? };
        check_pointer(done, "done")?;
        let done = Array::written(memory, "done", done, Some(1))?;
        memory.check_overlap()?;
        // SAFETY: the overlap check has passed, and the caller guarantees the memory.
        if let Some([done]) = unsafe { done.get_mut() } {
            *done = i32::from(object.call.is_done());
        }
        Ok(())
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Waits until a call has ended, for at most `timeout_ns` nanoseconds. UINT64_MAX: no limit. 0: does not wait. Any
/// number of threads may wait for the same call.
///
/// Errors: NUC_TIMEOUT if the call has not ended; the call continues, and this function can be called again.
/// NUC_DEVICE_ERROR, NUC_OUT_OF_MEMORY or NUC_INTERNAL if the call has failed. NUC_INVALID_ARGUMENT, also if the
/// function would have to wait in a callback of nuc_call_on_done.
///
/// # Safety
/// `call` is a live handle. `error` is null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_call_wait(
    call: *const nuc_call,
    timeout_ns: u64,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |_: &mut Memory| {
        // SAFETY: the caller guarantees the handle.
        let call = &unsafe { handle::borrow(call)? }.call;
        if timeout_ns > 0 {
            check_may_wait(call, "nuc_call_wait")?;
        }
        match call.wait(options::timeout(timeout_ns))? {
            true => Ok(()),
            false => Err(Error::Timeout(format!("the call has not ended after {timeout_ns} ns; it goes on"))),
        }
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Calls `function` with `user` once, when a call has ended. The callback runs on a thread of the plugin. If the call
/// has already ended, the callback runs on this thread before this function returns. The description of
/// nuc_done_function lists what a callback may do. A call can have several callbacks, which run in any order. Any
/// thread may call this function.
///
/// Errors: NUC_INVALID_ARGUMENT. After an error, the callback does not run.
///
/// # Safety
/// `call` is a live handle. `function` and `user` are valid on every thread until the callback has returned.
/// nuc_call_destroy waits for this. `error` is null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_call_on_done(
    call: *const nuc_call,
    function: nuc_done_function,
    user: *mut c_void,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |_: &mut Memory| {
        // SAFETY: the caller guarantees the handle, the function and `user`.
        let (object, callback) = unsafe { (handle::borrow(call)?, Callback::new(function, user)?) };
        object.call.on_done(move || callback.run());
        Ok(())
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Waits until a call has ended, and writes the tokens of its rows to `tokens` `[num_rows]`: -1 if a row has none.
/// `row_status` `[num_rows]` receives the NUC_ROW_* bits of each row; null if not wanted. It needs NUC_HOST_ALL. The
/// tokens can be read any number of times, from any thread.
///
/// Errors: NUC_INVALID_ARGUMENT, also if the call was started with NUC_HOST_NONE, and in a callback for a call that
/// has not ended; the error of the call if it has failed. A call that fails writes no output.
///
/// # Safety
/// `call` is a live handle. The arrays have `num_rows` writable elements. `error` is null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_call_get_tokens(
    call: *const nuc_call,
    tokens: *mut i32,
    row_status: *mut u32,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut Memory| {
        // SAFETY: the caller guarantees the handle and the arrays.
        unsafe {
            let object = handle::borrow(call)?;
            let arrays = TokenArrays::new(memory, object.call.rows(), tokens, row_status)?;
            check_may_wait(&object.call, "nuc_call_get_tokens")?;
            arrays.write(object)
        }
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Waits until a call has ended, and writes the debug arrays with one number per row: `greedy_sampled`,
/// `random_unnorm_cdf_sampled_high`, `random_unnorm_cdf_sampled_low` and `next_tokens`. Null arrays are skipped. The
/// other fields must be null, because those arrays are on the device. The call needs NUC_HOST_ALL. The numbers can be
/// read any number of times, from any thread.
///
/// Errors: those of nuc_call_get_tokens.
///
/// # Safety
/// `call` is a live handle. `debug` points to a nuc_debug_arrays whose arrays have `num_rows` writable elements.
/// `error` is null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_call_get_numbers(
    call: *const nuc_call,
    debug: *const nuc_debug_arrays,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut Memory| {
        // SAFETY: the caller guarantees the handle, the struct and its arrays.
        unsafe {
            let object = handle::borrow(call)?;
            check_may_wait(&object.call, "nuc_call_get_numbers")?;
            device::write_numbers(memory, object, debug)
        }
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Gives a result of a call to the caller, as a `PJRT_Buffer *` in `*buffer`. The caller destroys it with
/// PJRT_Buffer_Destroy before the client is destroyed. Each buffer can be taken once. This function does not wait for
/// the device. On a CPU, it can wait for the copy of at most 32 KiB. The device may still be computing the contents;
/// every use of the buffer in PJRT waits for them. The buffer stays valid after nuc_call_destroy. Any thread may call
/// this function.
///
/// Errors: NUC_INVALID_ARGUMENT if `which` is not a nuc_buffer, was not requested, or was already taken. After an
/// error `*buffer` is null.
///
/// # Safety
/// `call` is a live handle. `buffer` points to a writable pointer. `error` is null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_call_take_buffer(
    call: *mut nuc_call,
    which: nuc_buffer,
    buffer: *mut *mut c_void,
    error: *mut nuc_error,
) -> nuc_status {
    // SAFETY: the caller guarantees the pointers.
    unsafe {
        with_slot(buffer, "buffer", error, |memory| {
            memory.check_overlap()?;
            device::take_buffer(handle::borrow(call)?, which)
        })
    }
}

/// Frees a call and its buffers that were not taken. Null is allowed. A call can be destroyed at any time: the
/// function waits until the device has finished the call, and until the callbacks of the call have returned. No other
/// call may use the handle at the same time or later. In a child process after fork, this function does nothing, like
/// nuc_sampler_destroy. It must not be called in a callback of nuc_call_on_done.
///
/// Errors: NUC_INVALID_ARGUMENT if `call` is not a call, or in a callback. The failure of a call is not an error of
/// this function.
///
/// # Safety
/// `call` is null or a handle from nuc_sample_start that was not destroyed. `error` is null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_call_destroy(call: *mut nuc_call, error: *mut nuc_error) -> nuc_status {
    // SAFETY: the caller guarantees the handle and `error`.
    unsafe { guard(error, |_| device::destroy(call, "nuc_call_destroy")) }
}
