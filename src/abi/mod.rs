//! The C ABI: flat functions over opaque handles. `types` holds the structs, `convert` checks arguments, `guard`
//! stops panics; here are the functions, whose comments are the header's.
#![allow(unsafe_code)]
// The names are C's.
#![allow(non_camel_case_types)]

mod convert;
mod float_environment;
mod guard;
mod info;
mod log;
mod structs;
mod types;

use libc::{c_char, c_void};

use crate::compile_ahead::compile_ahead;
use crate::error::Error;
use crate::plan::Entry;
use crate::sampler::Sampler;
use guard::guard;
pub use types::*;

/// Version of this library, `major.minor.patch`, terminated; valid for the life of the process.
#[no_mangle]
pub extern "C" fn nuc_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Version of the ABI that this header describes. A library with a larger one still serves callers of this one.
pub const NUC_ABI_VERSION: u32 = 1;

/// `NUC_ABI_VERSION` of the library that is loaded.
#[no_mangle]
pub extern "C" fn nuc_abi_version() -> u32 {
    NUC_ABI_VERSION
}

/// The name of a status, for instance "NUC_INVALID_ARGUMENT"; "unknown status" for a number that is none.
/// Terminated; valid for the life of the process. For what went wrong in a call, read its `nuc_error`.
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

/// Sends the library's log to `log`, or to standard error where `log` is null, from `level` (a `nuc_log_level`) on. A later
/// call replaces an earlier one, of which a message may still be under way in another thread. Where it was never called,
/// the environment variable `NUCLEUS_LOG` (off, error, warning, info, debug) decides what goes to standard error, as the
/// first sampler is made or the first program compiled ahead; where that is not set either, nothing is logged.
/// `NUC_INVALID_ARGUMENT` for a level that is none, or in a Rust process that has a logger already.
///
/// # Safety
/// `log` may be called with `user` from any thread for the rest of the process's life, or until no call is running
/// after another `nuc_set_log`.
#[no_mangle]
pub unsafe extern "C" fn nuc_set_log(
    log: nuc_log_function,
    user: *mut c_void,
    level: i32,
    error: *mut nuc_error,
) -> nuc_status {
    // SAFETY: the caller vouches for `error`.
    unsafe { guard(error, || log::set(log, user, level)) }
}

/// Sends the library's log to standard error from `level` on, as `nuc_set_log` does without a callback. For callers in
/// Rust.
pub fn log_to_standard_error(level: nuc_log_level) -> Result<(), Error> {
    log::set(None, std::ptr::null_mut(), level as i32)
}

/// Fills `options` with the defaults that its fields document. Pass `sizeof(nuc_sampler_options)`.
///
/// # Safety
/// `options` points to `struct_size` writable bytes.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_options_init(
    options: *mut nuc_sampler_options,
    struct_size: usize,
    error: *mut nuc_error,
) -> nuc_status {
    let defaults = convert::default_sampler_options();
    // SAFETY: the caller vouches for both pointers.
    unsafe { guard(error, || structs::init_struct(options, struct_size, defaults)) }
}

/// Makes a sampler and writes its handle to `*sampler`, to be ended by `nuc_sampler_destroy`. `options` may be
/// null: all defaults. With a plugin this loads the library (once a process; it is never unloaded) and makes a
/// client, which can take seconds. Errors: `NUC_INVALID_ARGUMENT`, the `NUC_PLUGIN_*` statuses, and
/// `NUC_DEVICE_ERROR` where the plugin finds no device.
///
/// # Safety
/// `options` is null or as documented, with terminated strings; `sampler` is writable.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_create(
    options: *const nuc_sampler_options,
    sampler: *mut *mut nuc_sampler,
    error: *mut nuc_error,
) -> nuc_status {
    let body = || {
        if sampler.is_null() || !sampler.is_aligned() {
            return Err(Error::argument(format!("sampler is {sampler:p}; it must point to a nuc_sampler *")));
        }
        log::from_environment()?;
        // SAFETY: the caller vouches for the options.
        let options = unsafe { convert::sampler_options(options)? };
        let made = Sampler::new(&options)?;
        let strings = info::Strings::of(&made);
        // SAFETY: checked above; the box is freed by nuc_sampler_destroy.
        unsafe { *sampler = Box::into_raw(Box::new(nuc_sampler { sampler: made, strings })) };
        Ok(())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { guard(error, body) }
}

/// Ends a sampler and everything it owns. Null is allowed. No other call may be using the handle, and none may
/// after.
///
/// # Safety
/// `sampler` is null or came from `nuc_sampler_create` and was not destroyed.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_destroy(sampler: *mut nuc_sampler, error: *mut nuc_error) -> nuc_status {
    let body = || {
        if !sampler.is_null() {
            // SAFETY: the caller vouches that this is a live handle, and its last use.
            drop(unsafe { Box::from_raw(sampler) });
        }
        Ok(())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { guard(error, body) }
}

/// Fills `options` with the defaults that its fields document. Pass `sizeof(nuc_call_options)`.
///
/// # Safety
/// `options` points to `struct_size` writable bytes.
#[no_mangle]
pub unsafe extern "C" fn nuc_call_options_init(
    options: *mut nuc_call_options,
    struct_size: usize,
    error: *mut nuc_error,
) -> nuc_status {
    let defaults = convert::default_call_options();
    // SAFETY: the caller vouches for both pointers.
    unsafe { guard(error, || structs::init_struct(options, struct_size, defaults)) }
}

/// Borrows the sampler behind a handle.
///
/// # Safety
/// `sampler` is null or a live handle.
unsafe fn handle<'a>(sampler: *const nuc_sampler) -> Result<&'a nuc_sampler, Error> {
    if sampler.is_null() || !sampler.is_aligned() {
        return Err(Error::argument(format!(
            "sampler is {sampler:p}; pass a handle from nuc_sampler_create"
        )));
    }
    // SAFETY: the caller vouches that the handle is live; all its methods take shared references.
    Ok(unsafe { &*sampler })
}

struct Call {
    sampler: *const nuc_sampler,
    batch: *const nuc_batch,
    options: *const nuc_call_options,
    tokens: *mut i32,
    row_status: *mut u32,
    debug: *const nuc_debug_arrays,
    error: *mut nuc_error,
}

impl Call {
    /// # Safety
    /// As the sampling functions document.
    unsafe fn run(self, entry: Entry) -> nuc_status {
        let body = || {
            // SAFETY: the caller vouches for the handle and for the memory behind every pointer.
            let (sampler, (batch, mut outputs)) = unsafe {
                let sampler = &handle(self.sampler)?.sampler;
                let (tokens, status) = (self.tokens, self.row_status);
                (
                    sampler,
                    convert::call(self.batch, self.options, tokens, status, self.debug, sampler.max_k())?,
                )
            };
            sampler.sample(entry, &batch, &mut outputs)
        };
        // SAFETY: the caller vouches for `error`.
        unsafe { guard(self.error, body) }
    }
}

/// Chooses the next token of every row: cleans the logits, applies top-k, temperature, top-p and min-p, and draws.
///
/// `tokens` `[batch]`, not null unless batch is 0, receives each row's token, or −1 where the row has no finite
/// candidate. `row_status` `[batch]` receives `NUC_ROW_*` bits; null if not wanted. `options` may be null (defaults), and `debug` too.
/// Picks the path row by row: rows with 1 <= k <= max_k run in the bounded kernel, others in the arbitrary one, so
/// a row does not pay for its batch mates (with `stable` = 0 on a plugin all run in the arbitrary one); the token of a
/// row depends on nothing but its own logits, parameters and random words. On an error no output is written.
///
/// # Safety
/// Every pointer is null or points to as much memory as its shape says, written by no one else during the call.
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
    // SAFETY: passed on.
    unsafe { Call { sampler, batch, options, tokens, row_status, debug, error }.run(Entry::Automatic) }
}

/// As `nuc_topk_topp_and_sample`, with every row in the arbitrary-k kernel, which searches thresholds over the
/// whole row for any k up to the vocabulary.
///
/// # Safety
/// As `nuc_topk_topp_and_sample`.
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
    // SAFETY: passed on.
    unsafe { Call { sampler, batch, options, tokens, row_status, debug, error }.run(Entry::Arbitrary) }
}

/// As `nuc_topk_topp_and_sample`, with every row in the bounded-k kernel, which filters the row down to max_k
/// candidates. Every row must have 1 <= k <= max_k (or a vocab of at most max_k), else `NUC_INVALID_ARGUMENT`. With
/// `stable` = 0 ties can outnumber max_k, and the rows run in the arbitrary kernel.
///
/// # Safety
/// As `nuc_topk_topp_and_sample`.
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
    // SAFETY: passed on.
    unsafe { Call { sampler, batch, options, tokens, row_status, debug, error }.run(Entry::Bounded) }
}

/// As `nuc_topk_topp_and_sample`, by sorting on the host in wide integers: slow and plain, the ground truth that the
/// others are compared with. Any backend's sampler will do; its device is not used.
///
/// # Safety
/// As `nuc_topk_topp_and_sample`.
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
    // SAFETY: passed on.
    unsafe { Call { sampler, batch, options, tokens, row_status, debug, error }.run(Entry::Reference) }
}

/// Compiles every program that calls described by `spec` can need, so that no request waits for a compiler. Changing
/// k, p, temperature, seeds or replace_val never compiles; a new vocab, dtype, path, `stable`, set of wide arrays, or
/// number of rows past the next power of two does. `NUC_INVALID_ARGUMENT` if the programs do not fit `cache_capacity`;
/// the message says how many there are. Succeeds at once on the built-in backend.
///
/// # Safety
/// `spec` points to a `nuc_prewarm_spec`.
#[no_mangle]
pub unsafe extern "C" fn nuc_prewarm(
    sampler: *const nuc_sampler,
    spec: *const nuc_prewarm_spec,
    error: *mut nuc_error,
) -> nuc_status {
    // SAFETY: the caller vouches for the pointers.
    unsafe { guard(error, || handle(sampler)?.sampler.prewarm(&convert::prewarm_spec(spec)?)) }
}

/// Fills `options` with the defaults that its fields document. Pass `sizeof(nuc_compile_ahead_options)`.
///
/// # Safety
/// `options` points to `struct_size` writable bytes.
#[no_mangle]
pub unsafe extern "C" fn nuc_compile_ahead_options_init(
    options: *mut nuc_compile_ahead_options,
    struct_size: usize,
    error: *mut nuc_error,
) -> nuc_status {
    let defaults = convert::default_compile_ahead_options();
    // SAFETY: the caller vouches for both pointers.
    unsafe { guard(error, || structs::init_struct(options, struct_size, defaults)) }
}

/// Compiles the programs that calls will need and writes each to a file, for samplers whose `program_dir` is the folder
/// of the files: they load instead of compiling. The files fit the plugin's build, the kind, number and arrangement of
/// devices and the compiler flags in the environment (`XLA_FLAGS`, `LIBTPU_INIT_ARGS`) that they were made with; samplers
/// on anything else compile as if there were none.
///
/// With a topology's name the host needs no such device: libtpu compiles for TPUs on any x86-64 Linux host. For that it
/// wants `TPU_SKIP_MDS_QUERY=1` and `TPU_WORKER_HOSTNAMES=localhost` in the environment, or it would ask a metadata
/// server for minutes, and `ALLOW_MULTIPLE_LIBTPU_LOAD=1` where several processes compile at once, or beside one that uses
/// the TPU. Set them before the plugin is first loaded in the process; best before it starts, since changing the
/// environment beside other threads is not safe, which is why this library does not. (The command `nucleus compile`
/// does.) On a host that shows no TPU this function checks that the first one is set, and says so with
/// `NUC_DEVICE_ERROR` before the plugin is started. A sampler with libtpu does the same.
///
/// On an error, files of programs that were done before it stay, and `programs_written` is not written.
///
/// # Safety
/// `options` is as documented, with terminated strings; `programs_written` in it is null or writable.
#[no_mangle]
pub unsafe extern "C" fn nuc_compile_ahead(
    options: *const nuc_compile_ahead_options,
    error: *mut nuc_error,
) -> nuc_status {
    let body = || {
        log::from_environment()?;
        // SAFETY: the caller vouches for the options.
        let (options, count) = unsafe { convert::ahead_options(options)? };
        let written = compile_ahead(&options, &|_| {})?;
        if !count.is_null() {
            // SAFETY: not null, its alignment was checked, and the caller vouches for the memory.
            unsafe { *count = written.len() };
        }
        Ok(())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { guard(error, body) }
}

/// Writes a snapshot of the sampler's counters to `stats`, whose `struct_size` is set.
///
/// # Safety
/// `stats` points to a writable `nuc_sampler_stats`.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_get_stats(
    sampler: *const nuc_sampler,
    stats: *mut nuc_sampler_stats,
    error: *mut nuc_error,
) -> nuc_status {
    let body = || {
        // SAFETY: the caller vouches for the pointers.
        let counters = unsafe { handle(sampler)?.sampler.stats() };
        let value = nuc_sampler_stats {
            struct_size: 0,
            compiles: counters.compiles,
            hits: counters.hits,
            evictions: counters.evictions,
            failures: counters.failures,
            compile_ns: counters.compile_ns,
            programs: counters.programs,
            loaded: counters.loaded,
        };
        // SAFETY: as above.
        unsafe { structs::write_struct(stats, value) }
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { guard(error, body) }
}

/// Writes what the sampler runs on to `info`, whose `struct_size` is set.
///
/// # Safety
/// `info` points to a writable `nuc_sampler_info`.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_get_info(
    sampler: *const nuc_sampler,
    info: *mut nuc_sampler_info,
    error: *mut nuc_error,
) -> nuc_status {
    let body = || {
        // SAFETY: the caller vouches for the pointers.
        let sampler = unsafe { handle(sampler)? };
        let value = nuc_sampler_info {
            struct_size: 0,
            platform_name: sampler.strings.platform_name.as_ptr(),
            platform_version: sampler.strings.platform_version.as_ptr(),
            pjrt_api_major: sampler.strings.api.0,
            pjrt_api_minor: sampler.strings.api.1,
            num_devices: sampler.strings.devices.len(),
            max_k: sampler.sampler.max_k(),
        };
        // SAFETY: as above.
        unsafe { structs::write_struct(info, value) }
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { guard(error, body) }
}

/// Writes a description of device `index`, counted from 0, to `device`, whose `struct_size` is set.
///
/// # Safety
/// `device` points to a writable `nuc_device_info`.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_get_device(
    sampler: *const nuc_sampler,
    index: usize,
    device: *mut nuc_device_info,
    error: *mut nuc_error,
) -> nuc_status {
    let body = || {
        // SAFETY: the caller vouches for the pointers.
        let devices = unsafe { &handle(sampler)?.strings.devices };
        let Some((id, kind, description)) = devices.get(index) else {
            return Err(Error::argument(format!(
                "index is {index}; the sampler has {} device(s), counted from 0",
                devices.len()
            )));
        };
        let value = nuc_device_info {
            struct_size: 0,
            description: description.as_ptr(),
            kind: kind.as_ptr(),
            id: *id,
            reserved: 0,
        };
        // SAFETY: as above.
        unsafe { structs::write_struct(device, value) }
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { guard(error, body) }
}
