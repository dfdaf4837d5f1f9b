//! The C ABI: functions over opaque handles and flat structs.
//!
//! This file contains the exported functions, and `types.rs` contains the structs. Their doc comments are the
//! manual: cbindgen copies them into the header. `structs`, `options` and `calls` turn raw arguments into checked
//! Rust values, with the help of `pointers`, `enums`, `arrays` and `memory`. `guard` and `message` turn errors and
//! panics into statuses and messages. `handle` and `info` own the data behind a handle.
#![allow(unsafe_code)]
// The names follow C conventions.
#![allow(non_camel_case_types)]

mod arrays;
mod calls;
mod enums;
mod float_environment;
mod guard;
mod handle;
mod info;
mod log;
mod memory;
mod message;
mod options;
mod pointers;
mod sigpipe;
mod structs;
mod types;

use libc::{c_char, c_void};

use self::arrays::Array;
use self::calls::Call;
use self::guard::guard;
use self::pointers::{bad, check_pointer};
use crate::compile_ahead::compile_ahead;
use crate::plan::Entry;
use crate::sampler::Sampler;
pub use handle::nuc_sampler;
pub use types::*;

/// Returns the version of this library, "major.minor.patch". The string is NUL-terminated and valid until the process
/// ends. Any thread may call this function.
#[no_mangle]
pub extern "C" fn nuc_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The version of the ABI that this header describes. A library also supports callers of every smaller version.
pub const NUC_ABI_VERSION: u32 = 1;

/// Returns the `NUC_ABI_VERSION` of the loaded library. Any thread may call this function.
#[no_mangle]
pub extern "C" fn nuc_abi_version() -> u32 {
    NUC_ABI_VERSION
}

/// Returns the name of a status, for example "NUC_INVALID_ARGUMENT", or "unknown status" if `status` is not a
/// `nuc_status`. The string is NUL-terminated and valid until the process ends. The `nuc_error` of the call explains
/// why the call failed. Any thread may call this function.
#[no_mangle]
pub extern "C" fn nuc_status_string(status: i32) -> *const c_char {
    let names: [(nuc_status, &std::ffi::CStr); 9] = [
        (nuc_status::NUC_OK, c"NUC_OK"),
        (nuc_status::NUC_INVALID_ARGUMENT, c"NUC_INVALID_ARGUMENT"),
        (nuc_status::NUC_PLUGIN_NOT_FOUND, c"NUC_PLUGIN_NOT_FOUND"),
        (nuc_status::NUC_PLUGIN_INVALID, c"NUC_PLUGIN_INVALID"),
        (nuc_status::NUC_PLUGIN_VERSION, c"NUC_PLUGIN_VERSION"),
        (nuc_status::NUC_DEVICE_ERROR, c"NUC_DEVICE_ERROR"),
        (nuc_status::NUC_INTERNAL, c"NUC_INTERNAL"),
        (nuc_status::NUC_OUT_OF_MEMORY, c"NUC_OUT_OF_MEMORY"),
        (nuc_status::NUC_IO_ERROR, c"NUC_IO_ERROR"),
    ];
    let known = names.iter().find(|(known, _)| *known as i32 == status);
    known.map_or(c"unknown status", |(_, name)| name).as_ptr()
}

/// Sets where the library's log goes, for the whole process. Messages up to `level`, a `nuc_log_level`, go to the
/// callback `log`, or to standard error if `log` is null.
///
/// A later call replaces an earlier one. The earlier callback can still be running in another thread when the later
/// call returns. Any thread may call this function. The library does not access the memory behind `user`.
///
/// If this function was not called before the first `nuc_sampler_create` or `nuc_compile_ahead`, the environment
/// variable `NUCLEUS_LOG` (off, error, warning, info or debug) sets the level for standard error. The variable is
/// read once. A value that is not a level is reported once on standard error and ignored. Without the variable,
/// nothing is logged. A closed standard error is not an error: the library does not let its messages raise SIGPIPE.
///
/// Errors: `NUC_INVALID_ARGUMENT` if `level` is not a `nuc_log_level`, or if the process is a Rust program that
/// already has a logger.
///
/// # Safety
/// Any thread may call `log` with `user` until the process ends, or until another `nuc_set_log` has replaced the
/// callback and every call that began before has returned. `error` is null or points to a `nuc_error`.
#[no_mangle]
pub unsafe extern "C" fn nuc_set_log(
    log: nuc_log_function,
    user: *mut c_void,
    level: i32,
    error: *mut nuc_error,
) -> nuc_status {
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, |_| log::set(log, user, level)) }
}

/// Sends the library's messages up to `level` to standard error, like `nuc_set_log` without a callback. For callers
/// in Rust.
pub fn log_to_standard_error(level: nuc_log_level) -> Result<(), crate::error::Error> {
    log::set(None, std::ptr::null_mut(), level as i32)
}

/// Fills `options` with the defaults that its fields document. Pass `sizeof(nuc_sampler_options)` as `struct_size`. The
/// caller owns the struct. Any thread may call this function.
///
/// Errors: `NUC_INVALID_ARGUMENT` for a null or misaligned pointer and for a `struct_size` that no version of the
/// struct has.
///
/// # Safety
/// `options` points to `struct_size` writable bytes. `error` is null or points to a `nuc_error`.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_options_init(
    options: *mut nuc_sampler_options,
    struct_size: usize,
    error: *mut nuc_error,
) -> nuc_status {
    let defaults = options::default_sampler_options();
    // SAFETY: the caller guarantees both pointers.
    unsafe { guard(error, |memory| structs::init_struct(memory, options, struct_size, defaults)) }
}

/// Creates a sampler and writes its handle to `*sampler`. The caller owns the handle and frees it with
/// `nuc_sampler_destroy`. `options` may be null, which means all defaults. Any thread may call this function.
///
/// With a plugin, this function loads the plugin's library, which stays loaded until the process ends, and creates a
/// client. That can take seconds.
///
/// Errors: `NUC_INVALID_ARGUMENT`; `NUC_PLUGIN_NOT_FOUND`, `NUC_PLUGIN_INVALID` and `NUC_PLUGIN_VERSION`;
/// `NUC_DEVICE_ERROR` if the plugin finds no device or cannot create a client; `NUC_IO_ERROR` for `program_dir`;
/// `NUC_OUT_OF_MEMORY` if memory or threads run out. After an error `*sampler` is unchanged.
///
/// # Safety
/// `options` is null or points to a `nuc_sampler_options` whose strings are NUL-terminated. `sampler` points to a
/// writable pointer. `error` is null or points to a `nuc_error`.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_create(
    options: *const nuc_sampler_options,
    sampler: *mut *mut nuc_sampler,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut memory::Memory| {
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

/// Frees a sampler and everything that it owns: its threads, its compiled programs, its client, and the strings of
/// its getters. Null is allowed. After the call the handle is invalid, and so are all copies of it in other threads.
///
/// No other call may use the handle at the same time or later. As long as the handle's memory is not reused, the
/// library detects that the handle was destroyed and returns `NUC_INVALID_ARGUMENT`.
///
/// In a child process after `fork`, this function does nothing and returns `NUC_OK`. The sampler's memory in the
/// child is not freed.
///
/// Errors: `NUC_INVALID_ARGUMENT` if `sampler` is not a sampler.
///
/// # Safety
/// `sampler` is null or a handle from `nuc_sampler_create` that was not destroyed. `error` is null or points to a
/// `nuc_error`.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_destroy(sampler: *mut nuc_sampler, error: *mut nuc_error) -> nuc_status {
    // SAFETY: the caller guarantees the handle and `error`.
    unsafe { guard(error, |_| handle::destroy(sampler)) }
}

/// Fills `options` with the defaults that its fields document. Pass `sizeof(nuc_call_options)` as `struct_size`. The
/// caller owns the struct. Any thread may call this function.
///
/// Errors: `NUC_INVALID_ARGUMENT` for a null or misaligned pointer and for a `struct_size` that no version of the
/// struct has.
///
/// # Safety
/// `options` points to `struct_size` writable bytes. `error` is null or points to a `nuc_error`.
#[no_mangle]
pub unsafe extern "C" fn nuc_call_options_init(
    options: *mut nuc_call_options,
    struct_size: usize,
    error: *mut nuc_error,
) -> nuc_status {
    let defaults = options::default_call_options();
    // SAFETY: the caller guarantees both pointers.
    unsafe { guard(error, |memory| structs::init_struct(memory, options, struct_size, defaults)) }
}

/// Chooses the next token of every row: cleans the logits, applies top-k, temperature, top-p and min-p, and draws.
///
/// `tokens` `[batch]` receives the token of each row, or −1 if the row has no finite candidate. It must not be null
/// unless `batch` is 0. `row_status` `[batch]` receives the `NUC_ROW_*` bits of each row; null if not wanted.
/// `options` may be null, which means all defaults. `debug` may be null, which means that no intermediate array is
/// wanted.
///
/// The function selects a path for each row. Rows with 1 <= k <= max_k use the bounded path, the others use the
/// arbitrary path, so one row with a large k does not slow down the others. With `stable = 0` on a plugin, every row
/// uses the arbitrary path. A row's token depends only on its own logits, parameters and random words. It does not
/// depend on the path, the other rows of the batch, or the backend.
///
/// The caller owns all memory; the library keeps no pointer to it. Memory that the call writes must not overlap any
/// other memory that the call receives, including the structs and `error`. Any number of threads may call this
/// function with the same sampler.
///
/// Errors: `NUC_INVALID_ARGUMENT`; `NUC_OUT_OF_MEMORY`; and on a plugin `NUC_DEVICE_ERROR` and `NUC_INTERNAL`. A
/// call that fails writes no output.
///
/// # Safety
/// `sampler` is a live handle. Every other pointer is null or points to as much memory as its shape requires, and no
/// other thread writes that memory during the call.
#[no_mangle]
pub unsafe extern "C" fn nuc_topk_topp_and_sample(
    sampler: *const nuc_sampler,
    batch: *const nuc_batch,
    options: *const nuc_call_options,
    tokens: *mut i32,
    row_status: *mut u32,
    debug: *const nuc_debug_arrays,
    error: *mut nuc_error,
) -> nuc_status {
    // SAFETY: the same contract.
    unsafe { Call { sampler, batch, options, tokens, row_status, debug, error }.run(Entry::Automatic) }
}

/// Like `nuc_topk_topp_and_sample`, but every row uses the arbitrary path. It searches thresholds over the whole row
/// and accepts every k. It does not accept k-slices. Ownership, thread-safety and errors are the same.
///
/// # Safety
/// As for `nuc_topk_topp_and_sample`.
#[no_mangle]
pub unsafe extern "C" fn nuc_arbitrary_topk_topp_and_sample(
    sampler: *const nuc_sampler,
    batch: *const nuc_batch,
    options: *const nuc_call_options,
    tokens: *mut i32,
    row_status: *mut u32,
    debug: *const nuc_debug_arrays,
    error: *mut nuc_error,
) -> nuc_status {
    // SAFETY: the same contract.
    unsafe { Call { sampler, batch, options, tokens, row_status, debug, error }.run(Entry::Arbitrary) }
}

/// Like `nuc_topk_topp_and_sample`, but every row uses the bounded path, which first reduces the row to max_k
/// candidates. Every row needs 1 <= k <= max_k, or vocab <= max_k; otherwise the call returns
/// `NUC_INVALID_ARGUMENT`. With `stable = 0` ties can outnumber max_k, so the rows of a sampler with a plugin then
/// use the arbitrary path. Ownership, thread-safety and errors are the same.
///
/// # Safety
/// As for `nuc_topk_topp_and_sample`.
#[no_mangle]
pub unsafe extern "C" fn nuc_bounded_topk_topp_and_sample(
    sampler: *const nuc_sampler,
    batch: *const nuc_batch,
    options: *const nuc_call_options,
    tokens: *mut i32,
    row_status: *mut u32,
    debug: *const nuc_debug_arrays,
    error: *mut nuc_error,
) -> nuc_status {
    // SAFETY: the same contract.
    unsafe { Call { sampler, batch, options, tokens, row_status, debug, error }.run(Entry::Bounded) }
}

/// Like `nuc_topk_topp_and_sample`, but sorts each row on the CPU and sums in 128-bit integers. It is slow, but
/// simple enough to serve as the reference for the other functions. It works with a sampler of any backend and does
/// not use the sampler's device. Ownership, thread-safety and errors are the same. Each working thread needs 17
/// bytes of memory per element of a row.
///
/// # Safety
/// As for `nuc_topk_topp_and_sample`.
#[no_mangle]
pub unsafe extern "C" fn nuc_reference_topk_topp_and_sample(
    sampler: *const nuc_sampler,
    batch: *const nuc_batch,
    options: *const nuc_call_options,
    tokens: *mut i32,
    row_status: *mut u32,
    debug: *const nuc_debug_arrays,
    error: *mut nuc_error,
) -> nuc_status {
    // SAFETY: the same contract.
    unsafe { Call { sampler, batch, options, tokens, row_status, debug, error }.run(Entry::Reference) }
}

/// Compiles every program that the calls described by `spec` can need, so that no later call waits for the compiler.
/// On the built-in backend it succeeds at once. Any number of threads may call this function with the same sampler.
///
/// Other values of k, p, min_p, temperature, seeds or replace_val never need another program. Another vocab, dtype,
/// path, `stable` or set of wide arrays does. So does a number of rows above the next power of two.
///
/// The programs stay in memory until the sampler is destroyed; they are never evicted.
///
/// Errors: `NUC_INVALID_ARGUMENT`, also if the programs of all calls of this function together exceed
/// `cache_capacity` (the message states their number); `NUC_DEVICE_ERROR` if the plugin cannot compile;
/// `NUC_OUT_OF_MEMORY`.
///
/// # Safety
/// `sampler` is a live handle. `spec` points to a `nuc_prewarm_spec`. `error` is null or points to a `nuc_error`.
#[no_mangle]
pub unsafe extern "C" fn nuc_prewarm(
    sampler: *const nuc_sampler,
    spec: *const nuc_prewarm_spec,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut memory::Memory| {
        // SAFETY: the caller guarantees the pointers.
        let (sampler, calls) =
            unsafe { (handle::borrow(sampler)?.sampler(), options::prewarm_spec(memory, spec)?) };
        memory.check_overlap()?;
        sampler.prewarm(&calls)
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Fills `options` with the defaults that its fields document. Pass `sizeof(nuc_compile_ahead_options)` as
/// `struct_size`. The caller owns the struct. Any thread may call this function.
///
/// Errors: `NUC_INVALID_ARGUMENT` for a null or misaligned pointer and for a `struct_size` that no version of the
/// struct has.
///
/// # Safety
/// `options` points to `struct_size` writable bytes. `error` is null or points to a `nuc_error`.
#[no_mangle]
pub unsafe extern "C" fn nuc_compile_ahead_options_init(
    options: *mut nuc_compile_ahead_options,
    struct_size: usize,
    error: *mut nuc_error,
) -> nuc_status {
    let defaults = options::default_compile_ahead_options();
    // SAFETY: the caller guarantees both pointers.
    unsafe { guard(error, |memory| structs::init_struct(memory, options, struct_size, defaults)) }
}

/// Compiles the programs that calls will need and writes each one to a file in `output_dir`. A sampler whose
/// `program_dir` is that directory loads the programs instead of compiling them, so a server starts faster. Any
/// thread may call this function.
///
/// A file fits only the plugin build, the kind, number and arrangement of devices, and the compiler flags
/// (environment variables `XLA_FLAGS` and `LIBTPU_INIT_ARGS`) for which it was compiled. A sampler with any other of
/// these ignores the file and compiles the program.
///
/// With the name of a topology, this host does not need a device: libtpu compiles for TPUs on any x86-64 Linux host.
/// Set these environment variables for libtpu:
///
/// - `TPU_SKIP_MDS_QUERY=1` and `TPU_WORKER_HOSTNAMES=localhost`: without them libtpu queries a metadata server,
///   which can take minutes;
/// - `ALLOW_MULTIPLE_LIBTPU_LOAD=1`: if several processes compile at the same time, or another process uses the TPU.
///
/// Set them before the process starts, or at least before the plugin is first loaded. This library does not set them,
/// because no library can safely change the environment of a process with threads. The command `nucleus compile` sets
/// them itself. On a host without a TPU, this function and `nuc_sampler_create` check for `TPU_SKIP_MDS_QUERY` before
/// they start libtpu, and return `NUC_DEVICE_ERROR` if it is missing.
///
/// Errors: `NUC_INVALID_ARGUMENT`; `NUC_PLUGIN_NOT_FOUND`, `NUC_PLUGIN_INVALID` and `NUC_PLUGIN_VERSION`;
/// `NUC_DEVICE_ERROR` if the plugin cannot compile or, without a topology, finds no device; `NUC_IO_ERROR` if a file
/// cannot be written; `NUC_OUT_OF_MEMORY`. After an error, files that were already written stay, and
/// `programs_written` is unchanged.
///
/// # Safety
/// `options` points to a `nuc_compile_ahead_options` whose strings are NUL-terminated and whose arrays have the
/// lengths that its fields state. `error` is null or points to a `nuc_error`.
#[no_mangle]
pub unsafe extern "C" fn nuc_compile_ahead(
    options: *const nuc_compile_ahead_options,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut memory::Memory| {
        log::read_environment();
        // SAFETY: the caller guarantees the options.
        let (options, count) = unsafe { options::compile_ahead_options(memory, options)? };
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

/// Writes the current counters of a sampler to `stats`. The caller owns the struct and sets its `struct_size` before
/// the call. Any number of threads may call this function with the same sampler.
///
/// Errors: `NUC_INVALID_ARGUMENT`.
///
/// # Safety
/// `sampler` is a live handle. `stats` points to a writable `nuc_sampler_stats`. `error` is null or points to a
/// `nuc_error`.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_get_stats(
    sampler: *const nuc_sampler,
    stats: *mut nuc_sampler_stats,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut memory::Memory| {
        // SAFETY: the caller guarantees the handle.
        let counters = unsafe { handle::borrow(sampler)?.sampler().stats() };
        let value = nuc_sampler_stats {
            struct_size: 0,
            compiles: counters.compiles,
            hits: counters.hits,
            evictions: counters.evictions,
            failures: counters.failures,
            compile_ns: counters.compile_ns,
            programs: counters.programs,
            loaded: counters.loaded,
            pinned: counters.pinned,
            not_kept: counters.not_kept,
        };
        // SAFETY: the caller guarantees the struct.
        unsafe { structs::write_struct(memory, stats, value) }
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Writes a description of a sampler to `info`. The caller owns the struct and sets its `struct_size` before the
/// call. The strings belong to the sampler and are valid until it is destroyed. Any number of threads may call this
/// function with the same sampler.
///
/// Errors: `NUC_INVALID_ARGUMENT`.
///
/// # Safety
/// `sampler` is a live handle. `info` points to a writable `nuc_sampler_info`. `error` is null or points to a
/// `nuc_error`.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_get_info(
    sampler: *const nuc_sampler,
    info: *mut nuc_sampler_info,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut memory::Memory| {
        // SAFETY: the caller guarantees the handle.
        let handle = unsafe { handle::borrow(sampler)? };
        let strings = handle.strings();
        let value = nuc_sampler_info {
            struct_size: 0,
            platform_name: strings.platform_name.as_ptr(),
            platform_version: strings.platform_version.as_ptr(),
            pjrt_api_major: strings.api.0,
            pjrt_api_minor: strings.api.1,
            num_devices: strings.devices.len(),
            max_k: handle.sampler().max_k(),
        };
        // SAFETY: the caller guarantees the struct.
        unsafe { structs::write_struct(memory, info, value) }
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Writes a description of the device `index`, counted from 0, to `device`. The number of devices is in
/// `nuc_sampler_info`. The caller owns the struct and sets its `struct_size` before the call. The strings belong to
/// the sampler and are valid until it is destroyed. Any number of threads may call this function with the same
/// sampler.
///
/// Errors: `NUC_INVALID_ARGUMENT`, also if there is no such device.
///
/// # Safety
/// `sampler` is a live handle. `device` points to a writable `nuc_device_info`. `error` is null or points to a
/// `nuc_error`.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_get_device(
    sampler: *const nuc_sampler,
    index: usize,
    device: *mut nuc_device_info,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut memory::Memory| {
        // SAFETY: the caller guarantees the handle.
        let devices = unsafe { &handle::borrow(sampler)?.strings().devices };
        let Some(found) = devices.get(index) else {
            return bad(format!(
                "index is {index}; it must be less than the number of devices, {}",
                devices.len()
            ));
        };
        let value = nuc_device_info {
            struct_size: 0,
            description: found.description.as_ptr(),
            kind: found.kind.as_ptr(),
            id: found.id,
            reserved: 0,
        };
        // SAFETY: the caller guarantees the struct.
        unsafe { structs::write_struct(memory, device, value) }
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}
