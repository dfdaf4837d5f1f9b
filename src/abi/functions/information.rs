//! The getters of a sampler.

use std::ptr::{null, null_mut};

use crate::abi::guard::guard;
use crate::abi::handle;
use crate::abi::memory::Memory;
use crate::abi::pointers::bad;
use crate::abi::structs;
use crate::abi::types::{
    nuc_device_info, nuc_error, nuc_sampler, nuc_sampler_info, nuc_sampler_stats, nuc_status,
};
use crate::latency::LatencyStats;

/// Writes the current counters of a sampler to `stats`. The caller owns the struct and sets its `struct_size` before
/// the call. Any number of threads may call this function with the same sampler.
///
/// Errors: NUC_INVALID_ARGUMENT.
///
/// # Safety
/// `sampler` is a live handle. `stats` points to a writable nuc_sampler_stats. `error` is null or points to a
/// nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_get_stats(
    sampler: *const nuc_sampler,
    stats: *mut nuc_sampler_stats,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut Memory| {
        // SAFETY: the caller guarantees the handle.
        let sampler = unsafe { handle::borrow(sampler)?.sampler() };
        let (counters, files, latencies) =
            (sampler.stats(), sampler.program_dir_stats(), sampler.latencies());
        let LatencyStats { enqueue, execute, total } = latencies;
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
            program_files_evicted: files.evicted,
            program_dir_bytes: files.bytes,
            enqueue_count: enqueue.count,
            enqueue_p50_ns: enqueue.p50_ns,
            enqueue_p99_ns: enqueue.p99_ns,
            execute_count: execute.count,
            execute_p50_ns: execute.p50_ns,
            execute_p99_ns: execute.p99_ns,
            total_count: total.count,
            total_p50_ns: total.p50_ns,
            total_p99_ns: total.p99_ns,
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
/// Errors: NUC_INVALID_ARGUMENT.
///
/// # Safety
/// `sampler` is a live handle. `info` points to a writable nuc_sampler_info. `error` is null or points to a
/// nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_get_info(
    sampler: *const nuc_sampler,
    info: *mut nuc_sampler_info,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut Memory| {
        // SAFETY: the caller guarantees the handle.
        let handle = unsafe { handle::borrow(sampler)? };
        let (strings, client) = (handle.strings(), handle.sampler().client());
        let value = nuc_sampler_info {
            struct_size: 0,
            platform_name: strings.platform_name.as_ptr(),
            platform_version: strings.platform_version.as_ptr(),
            pjrt_api_major: strings.api.0,
            pjrt_api_minor: strings.api.1,
            num_devices: strings.devices.len(),
            max_k: handle.sampler().max_k(),
            pjrt_api: client.map_or(null(), |client| client.plugin().as_raw().cast()),
            pjrt_client: client.map_or(null_mut(), |client| client.as_raw().cast()),
        };
        // SAFETY: the caller guarantees the struct.
        unsafe { structs::write_struct(memory, info, value) }
    };
    // SAFETY: the caller guarantees `error`.
    unsafe { guard(error, body) }
}

/// Writes a description of the device `index`, counted from 0, to `device`. The number of devices is in
/// nuc_sampler_info. The caller owns the struct and sets its `struct_size` before the call. The strings belong to
/// the sampler and are valid until it is destroyed. Any number of threads may call this function with the same
/// sampler.
///
/// Errors: NUC_INVALID_ARGUMENT, also if there is no such device.
///
/// # Safety
/// `sampler` is a live handle. `device` points to a writable nuc_device_info. `error` is null or points to a
/// nuc_error.
#[no_mangle]
pub unsafe extern "C" fn nuc_sampler_get_device(
    sampler: *const nuc_sampler,
    index: usize,
    device: *mut nuc_device_info,
    error: *mut nuc_error,
) -> nuc_status {
    let body = |memory: &mut Memory| {
        // SAFETY: the caller guarantees the handle.
        let devices = unsafe { &handle::borrow(sampler)?.strings().devices };
        let Some(found) = devices.get(index) else {
            let count = devices.len();
            return bad(
                "index",
                format!("index is {index}; it must be less than the number of devices, {count}"),
            );
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
