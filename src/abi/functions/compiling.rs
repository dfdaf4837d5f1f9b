//! Compiling before the first call.

use crate::abi::arrays::Array;
use crate::abi::callbacks::check_outside;
use crate::abi::device;
use crate::abi::guard::{guard, with_slot};
use crate::abi::handle;
use crate::abi::log;
use crate::abi::memory::Memory;
use crate::abi::options;
use crate::abi::structs;
use crate::abi::types::{
    nuc_compile_ahead_options, nuc_error, nuc_prewarm_progress, nuc_prewarm_spec, nuc_prewarming,
    nuc_sampler, nuc_status,
};
use crate::backend::pjrt::prewarming::Prewarming;
use crate::compile_ahead::compile_ahead;
use crate::error::Error;

/// Compiles every program that the calls described by `spec` can need, so that no later call waits for the compiler.
/// The built-in backend compiles nothing; the function then returns immediately. Any number of threads may call it with
/// the same sampler, and other threads may sample at the same time.
///
/// For one sampler, the programs depend only on the properties of the calls in `spec`. They do not depend on top_k,
/// top_p, min_p, temperature, seeds, random words or replace_val. They also do not depend on the paths that the rows of
/// a batch take. So a server that prewarms for every shape of its calls compiles nothing later.
///
/// With logits in host memory, the number of rows is rounded up to one of the sampler's `row_buckets`. With logits on a
/// device, the programs depend on the exact number of rows of the buffer. If the rows of a call can take both paths, a
/// buffer of n <= 128 rows needs up to 4 log2(n) + 5 programs with the default `row_buckets`. The logarithm is rounded
/// up. NUC_HOST_ALL needs two more programs.
///
/// One kind of program is not prewarmed. If the layout of logits on a device is not row-major, a small program copies
/// the logits; see nuc_sample_start. The first call with this layout compiles the program. Choose `cache_capacity` so
/// that this program fits too.
///
/// On a GPU, the function also runs each program once, with logits of zeros, because the driver translates the kernels
/// of a program in its first run. Each thread of the prewarm needs device memory for the logits of one call. Programs
/// with more than 256 MiB of logits do not run. If a run fails, the function still succeeds.
///
/// The programs stay in memory until the sampler is destroyed; they are never evicted.
///
/// Errors: NUC_INVALID_ARGUMENT, also if the programs of all calls of this function together exceed `cache_capacity`
/// (the message states their number), or if the logits are on a device and the sampler uses the built-in backend;
/// NUC_DEVICE_ERROR if the plugin cannot compile; NUC_OUT_OF_MEMORY.
///
/// # Safety
/// `sampler` is a live handle. `spec` points to a nuc_prewarm_spec. `error` is null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_prewarm(
    sampler: *const nuc_sampler,
    spec: *const nuc_prewarm_spec,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut Memory| {
        // SAFETY: the caller guarantees the pointers.
        let (sampler, (calls, num_threads)) =
            unsafe { (handle::borrow(sampler)?.sampler(), options::prewarm_spec(memory, spec)?) };
        memory.check_overlap()?;
        sampler.prewarm_on(&calls, num_threads)
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Starts nuc_prewarm in the background, and writes the handle of the prewarm to `*prewarming`. The caller owns the
/// handle and frees it with nuc_prewarming_destroy. Sampling calls can run at the same time. If a call needs a program
/// that the prewarm is compiling, the call waits for this program. Several prewarms can run at the same time. Any
/// number of threads may call this function with the same sampler.
///
/// Errors: NUC_INVALID_ARGUMENT, also if the programs exceed `cache_capacity`, or if the logits are on a device and the
/// sampler uses the built-in backend; NUC_OUT_OF_MEMORY. After an error `*prewarming` is null. nuc_prewarming_wait
/// returns the errors of the compilations.
///
/// # Safety
/// `sampler` is a live handle. `spec` points to a nuc_prewarm_spec, and `prewarming` to a writable pointer. `error` is
/// null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_prewarm_start(
    sampler: *const nuc_sampler,
    spec: *const nuc_prewarm_spec,
    prewarming: *mut *mut nuc_prewarming,
    error: *mut nuc_error,
) -> nuc_status {
    let make = |memory: &mut Memory| {
        // SAFETY: the caller guarantees the pointers.
        let (sampler, (calls, num_threads)) =
            unsafe { (handle::borrow(sampler)?.sampler(), options::prewarm_spec(memory, spec)?) };
        memory.check_overlap()?;
        Ok(handle::create(sampler.start_prewarm(&calls, num_threads)?))
    };
    // SAFETY: the caller guarantees `prewarming` and `error`.
    unsafe { with_slot(prewarming, "prewarming", error, make) }
}

/// Writes the progress of a prewarm to `progress`. The caller owns the struct and sets its `struct_size` before the
/// call. The function does not wait. Any thread may call this function, also in a callback.
///
/// Errors: NUC_INVALID_ARGUMENT. If the prewarm failed, this function still succeeds.
///
/// # Safety
/// `prewarming` is a live handle. `progress` points to a writable nuc_prewarm_progress. `error` is null or points to a
/// nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_prewarming_get_progress(
    prewarming: *const nuc_prewarming,
    progress: *mut nuc_prewarm_progress,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut Memory| {
        // SAFETY: the caller guarantees the handle.
        let prewarming = unsafe { handle::borrow(prewarming)? };
        // This is read before `done`. So if the prewarm has ended, `done` is final.
        let has_ended = i32::from(prewarming.has_ended());
        let (done, total) = (prewarming.done(), prewarming.total());
        let value = nuc_prewarm_progress { struct_size: 0, done, total, has_ended, reserved: 0 };
        // SAFETY: the caller guarantees the struct.
        unsafe { structs::write_struct(memory, progress, value) }
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Waits until a prewarm has ended, for at most `timeout_ns` nanoseconds. UINT64_MAX: no limit. 0: does not wait. Any
/// number of threads may wait for the same prewarm.
///
/// Errors: NUC_TIMEOUT if the prewarm has not ended; the prewarm continues, and this function can be called again.
/// NUC_DEVICE_ERROR, NUC_OUT_OF_MEMORY or NUC_INTERNAL if a program could not be compiled; the programs that were
/// compiled stay in memory. NUC_CANCELLED if the prewarm was cancelled before all programs were compiled.
/// NUC_INVALID_ARGUMENT, also if the function would have to wait in a callback of nuc_call_on_done, or in a callback of
/// nuc_set_log for which the prewarm may wait.
///
/// # Safety
/// `prewarming` is a live handle. `error` is null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_prewarming_wait(
    prewarming: *const nuc_prewarming,
    timeout_ns: u64,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |_: &mut Memory| {
        // SAFETY: the caller guarantees the handle.
        let prewarming: &Prewarming = unsafe { handle::borrow(prewarming)? };
        if timeout_ns > 0 && !prewarming.has_ended() {
            check_outside("prewarming", "nuc_prewarming_wait")?;
        }
        match prewarming.wait(options::timeout(timeout_ns))? {
            true => Ok(()),
            false => Err(Error::Timeout(format!(
                "the prewarm has not ended after {timeout_ns} ns, with {} of {} programs ready; it goes on",
                prewarming.done(),
                prewarming.total()
            ))),
        }
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Cancels a prewarm. The prewarm finishes the compilations that are running, and starts no further ones. Programs that
/// were compiled stay in memory. The function does not wait. It has no effect on a prewarm that has ended. Any thread
/// may call this function, also in a callback.
///
/// Errors: NUC_INVALID_ARGUMENT.
///
/// # Safety
/// `prewarming` is a live handle. `error` is null or points to a nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_prewarming_cancel(
    prewarming: *const nuc_prewarming,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |_: &mut Memory| {
        // SAFETY: the caller guarantees the handle.
        unsafe { handle::borrow(prewarming)? }.cancel();
        Ok(())
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Frees a prewarm. Null is allowed. If the prewarm has not ended, the function cancels it and waits for the
/// compilations that are running. Programs that were compiled stay in memory. No other call may use the handle at the
/// same time or later. In a child process after fork, this function does nothing, like nuc_sampler_destroy. It must not
/// be called in a callback of nuc_call_on_done or nuc_set_log.
///
/// Destroy every prewarm before the process ends. Many plugins crash if the process ends during a compilation.
///
/// Errors: NUC_INVALID_ARGUMENT if `prewarming` is not a nuc_prewarming, or in a callback. If the prewarm failed, this
/// function still succeeds.
///
/// # Safety
/// `prewarming` is null or a handle from nuc_prewarm_start that was not destroyed. `error` is null or points to a
/// nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_prewarming_destroy(
    prewarming: *mut nuc_prewarming,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |_: &mut Memory| {
        if !prewarming.is_null() {
            // SAFETY: the caller guarantees the handle.
            if let Ok(object) = unsafe { handle::borrow(prewarming) } {
                object.check_may_wait()?;
            }
        }
        // SAFETY: the same contract.
        unsafe { device::destroy(prewarming, "nuc_prewarming_destroy") }
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Compiles the programs that calls will need and writes each one to a file in `output_dir`. A sampler whose
/// `program_dir` is that directory loads the programs instead of compiling them, so a server starts faster. Any thread
/// may call this function.
///
/// `*programs_written` receives the number of files written. The pointer may be null.
///
/// A sampler loads a file only if the plugin build, the kind, number and arrangement of devices, and the compiler flags
/// (environment variables XLA_FLAGS and LIBTPU_INIT_ARGS) are those for which the file was compiled. For a CPU, the
/// model and the features of the processor must also be the same. If one of these differs, the sampler ignores the file
/// and compiles the program.
///
/// If `topology` is set, this host needs no device. For example, libtpu compiles for TPUs on any x86-64 Linux host. Set
/// these environment variables for libtpu:
///
/// - TPU_SKIP_MDS_QUERY=1 and TPU_WORKER_HOSTNAMES=localhost: without them libtpu queries a metadata server, which can
///   take minutes;
/// - ALLOW_MULTIPLE_LIBTPU_LOAD=1: if several processes compile at the same time, or another process uses the TPU.
///
/// Set them before the process starts, or at least before the plugin is first loaded. This library does not set them,
/// because a library cannot safely change the environment of a process that has several threads. The command `nucleus
/// compile` sets them itself. On a host without a TPU, this function and nuc_sampler_create check for
/// TPU_SKIP_MDS_QUERY before they start libtpu, and return NUC_DEVICE_ERROR if it is missing.
///
/// Errors: NUC_INVALID_ARGUMENT; NUC_PLUGIN_NOT_FOUND, NUC_PLUGIN_INVALID and NUC_PLUGIN_VERSION; NUC_DEVICE_ERROR if
/// the plugin cannot compile or, without a topology, finds no device; NUC_IO_ERROR if a file cannot be written;
/// NUC_OUT_OF_MEMORY. After an error, files that were already written stay, and `*programs_written` is unchanged.
///
/// # Safety
/// `options` points to a nuc_compile_ahead_options whose strings are NUL-terminated and whose arrays have the lengths
/// that its fields state. `programs_written` is null or points to a writable size_t. `error` is null or points to a
/// nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_compile_ahead(
    options: *const nuc_compile_ahead_options,
    programs_written: *mut usize,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut Memory| {
        let count = Array::written(memory, "programs_written", programs_written, Some(1))?;
        log::read_environment();
        // SAFETY: the caller guarantees the options.
        let options = unsafe { options::compile_ahead_options(memory, options)? };
        let written = compile_ahead(&options, &|_| {})?;
        // SAFETY: nothing overlaps it; the caller guarantees the memory.
        if let Some([count]) = unsafe { count.get_mut() } {
            *count = written.len();
        }
        Ok(())
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}
