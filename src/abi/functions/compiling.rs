//! Compiling before the first call.

use crate::abi::arrays::Array;
use crate::abi::guard::guard;
use crate::abi::handle;
use crate::abi::log;
use crate::abi::memory::Memory;
use crate::abi::options;
use crate::abi::types::{nuc_compile_ahead_options, nuc_error, nuc_prewarm_spec, nuc_sampler, nuc_status};
use crate::compile_ahead::compile_ahead;

/// Compiles every program that the calls described by `spec` can need, so that no later call waits for the compiler.
/// The built-in backend compiles nothing; the function then returns immediately. Any number of threads may call it with
/// the same sampler.
///
/// The programs depend on vocab, dtype, path, `keep_ties`, the set of debug arrays, and the number of rows, rounded up
/// to a power of two. They do not depend on top_k, top_p, min_p, temperature, seeds, random words or replace_val.
///
/// The programs stay in memory until the sampler is destroyed; they are never evicted.
///
/// Errors: NUC_INVALID_ARGUMENT, also if the programs of all calls of this function together exceed `cache_capacity`
/// (the message states their number); NUC_DEVICE_ERROR if the plugin cannot compile; NUC_OUT_OF_MEMORY.
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
        let (sampler, calls) =
            unsafe { (handle::borrow(sampler)?.sampler(), options::prewarm_spec(memory, spec)?) };
        memory.check_overlap()?;
        sampler.prewarm(&calls)
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
/// A file matches only the plugin build, the kind, number and arrangement of devices, and the compiler flags
/// (environment variables XLA_FLAGS and LIBTPU_INIT_ARGS) for which it was compiled. A sampler with any other of these
/// ignores the file and compiles the program.
///
/// If `topology` is set, this host does not need a device: libtpu compiles for TPUs on any x86-64 Linux host. Set these
/// environment variables for libtpu:
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
