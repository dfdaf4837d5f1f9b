//! Information about a sampler: its platform, its devices and its counters.

use libc::{c_char, c_void};

/// Counters of a sampler since it was created. The built-in backend compiles nothing, so its counters of programs stay
/// 0.
///
/// The last fields describe latencies: the number of calls, the median, and the 99th percentile in nanoseconds. A call
/// is counted when it ends, and only if it succeeds. Percentiles are within 1.6% of the exact value. They are 0 if no
/// call was counted. There are three latencies:
///
/// - enqueue: from the start of a call until its programs are in the queue of the device. This includes uploading the
///   inputs and compiling missing programs. With logits on a device, it is the duration of nuc_sample_start.
/// - execute: from the end of enqueue until the results are on the host. With NUC_HOST_NONE, until the device has
///   finished.
/// - total: the whole call.
///
/// Calls of the built-in backend and of nuc_reference_topk_topp_and_sample have no queue. They count only in total.
///
/// Initialize the struct with NUC_SAMPLER_STATS_INIT. The caller owns it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct nuc_sampler_stats {
    /// `sizeof(nuc_sampler_stats)`, in the caller's version of this header. Set it before the call.
    pub struct_size: usize,
    /// The number of programs compiled.
    pub compiles: u64,
    /// The number of lookups that found a program, or waited while another thread compiled it.
    pub hits: u64,
    /// The number of programs evicted because the cache was full.
    pub evictions: u64,
    /// The number of compilations that failed.
    pub failures: u64,
    /// The time spent compiling, in nanoseconds, summed over threads.
    pub compile_ns: u64,
    /// The number of programs in memory now.
    pub programs: u64,
    /// The number of programs loaded from `program_dir` instead of compiled.
    pub loaded: u64,
    /// The number of programs in memory that nuc_prewarm compiled or loaded. They are never evicted, and count toward
    /// `cache_capacity`.
    pub pinned: u64,
    /// The number of programs that were compiled for one call and not kept, because the programs of nuc_prewarm filled
    /// the cache.
    pub not_kept: u64,
    /// The number of files that the sampler removed from `program_dir` because of `program_dir_capacity`.
    pub program_files_evicted: u64,
    /// The size of all programs in `program_dir`, in bytes. The sampler measures it when it is created and after it
    /// writes a program. 0 if `write_programs` is 0.
    pub program_dir_bytes: u64,
    /// The number of calls that were counted in enqueue.
    pub enqueue_count: u64,
    /// The median of enqueue, in nanoseconds.
    pub enqueue_p50_ns: u64,
    /// The 99th percentile of enqueue, in nanoseconds.
    pub enqueue_p99_ns: u64,
    /// The number of calls that were counted in execute.
    pub execute_count: u64,
    /// The median of execute, in nanoseconds.
    pub execute_p50_ns: u64,
    /// The 99th percentile of execute, in nanoseconds.
    pub execute_p99_ns: u64,
    /// The number of calls that were counted in total.
    pub total_count: u64,
    /// The median of total, in nanoseconds.
    pub total_p50_ns: u64,
    /// The 99th percentile of total, in nanoseconds.
    pub total_p99_ns: u64,
}

/// A description of a sampler's platform. The strings are NUL-terminated UTF-8. They belong to the sampler and are
/// valid until it is destroyed. A plugin's strings can contain line breaks.
///
/// Initialize the struct with NUC_SAMPLER_INFO_INIT. The caller owns it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_sampler_info {
    /// `sizeof(nuc_sampler_info)`, in the caller's version of this header. Set it before the call.
    pub struct_size: usize,
    /// `builtin`, or the plugin's name for its platform, for example `cpu`, `cuda` or `tpu`.
    pub platform_name: *const c_char,
    /// The plugin's version string. For the built-in backend: its instruction set and number of threads.
    pub platform_version: *const c_char,
    /// The major version of the plugin's PJRT C API; 0 on the built-in backend.
    pub pjrt_api_major: i32,
    /// The minor version of the plugin's PJRT C API; 0 on the built-in backend.
    pub pjrt_api_minor: i32,
    /// The number of devices that `device_index` can select.
    pub num_devices: usize,
    /// The number of slots of the bounded path.
    pub max_k: usize,
    /// The table of the plugin, `const PJRT_Api *`; null on the built-in backend. It is valid until the process ends.
    pub pjrt_api: *const c_void,
    /// The client, `PJRT_Client *`, for making buffers; null on the built-in backend. It belongs to the sampler, or to
    /// the caller who passed it to nuc_sampler_create. Do not destroy the sampler's client.
    pub pjrt_client: *mut c_void,
}

/// One device of a sampler's client. The strings are NUL-terminated UTF-8. They belong to the sampler and are valid
/// until it is destroyed.
///
/// Initialize the struct with NUC_DEVICE_INFO_INIT. The caller owns it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_device_info {
    /// `sizeof(nuc_device_info)`, in the caller's version of this header. Set it before the call.
    pub struct_size: usize,
    /// The plugin's description of the device, in human-readable form.
    pub description: *const c_char,
    /// The plugin's name for the kind of device.
    pub kind: *const c_char,
    /// The plugin's global id of the device.
    pub id: i32,
    /// Always zero.
    pub reserved: i32,
}
