//! Compiling the programs of a plugin before the first call needs them. The built-in backend compiles nothing.

use libc::c_char;

use super::device::nuc_host_numbers;
use super::lifecycle::nuc_client_option;
use super::sampling::{nuc_dtype, nuc_path};

/// Where the logits of calls are.
pub type nuc_logits_place = i32;

/// In host memory, for nuc_topk_topp_and_sample and the other functions that take a nuc_batch.
pub const NUC_LOGITS_ON_HOST: nuc_logits_place = 0;
/// In a PJRT_Buffer, for nuc_sample_start and nuc_sample_on_device.
pub const NUC_LOGITS_ON_DEVICE: nuc_logits_place = 1;

/// The calls that nuc_prewarm and nuc_prewarm_start compile programs for. Initialize the struct with
/// NUC_PREWARM_SPEC_INIT, then set at least `num_rows` and `vocab`. The caller owns the struct.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_prewarm_spec {
    /// `sizeof(nuc_prewarm_spec)`, in the caller's version of this header.
    pub struct_size: usize,
    /// The function that will be called. 0: NUC_PATH_AUTO.
    pub path: nuc_path,
    /// The element type of the logits. 0: NUC_DTYPE_F32.
    pub dtype: nuc_dtype,
    /// With logits in host memory: the largest number of rows of a call, at least 1. Programs for fewer rows are
    /// compiled too.
    ///
    /// With logits on a device: the number of rows of the buffer, 1 to 65536. The programs depend on this number. If
    /// calls use buffers with different numbers of rows, prewarm once for each number.
    pub num_rows: usize,
    /// The number of elements per row, 1 to 16777216.
    pub vocab: usize,
    /// The value of `keep_ties` that calls will pass.
    pub keep_ties: i32,
    /// The NUC_DEBUG_* bits of the debug arrays that calls will request. Debug arrays without a bit need no other
    /// program.
    pub debug_arrays: u32,
    /// Where the logits are. 0: NUC_LOGITS_ON_HOST.
    pub logits: nuc_logits_place,
    /// 1: the buffer of the logits has the dimensions `[num_rows, 1, vocab]`. 0: `[num_rows, vocab]`. Must be 0 if the
    /// logits are in host memory.
    pub has_middle_dimension: i32,
    /// The `host_numbers` of the calls. NUC_HOST_ALL needs two more programs, for rows with impossible parameters. Use
    /// NUC_HOST_ALL also for calls of nuc_sample_on_device with `row_status`. Must be 0 if the logits are in host
    /// memory.
    pub host_numbers: nuc_host_numbers,
    /// Must be zero.
    pub reserved: i32,
    /// The largest number of programs that are compiled at the same time. 0: one per core. The compiler itself can use
    /// several threads per program.
    pub num_threads: usize,
}

/// A prewarm that runs in the background. The type is opaque.
///
/// nuc_prewarm_start creates the object, the caller owns it, and nuc_prewarming_destroy frees it. Any number of threads
/// may use it at the same time. Only nuc_prewarming_destroy must run alone. The rules for fork are those of
/// nuc_sampler.
///
/// The object keeps the sampler's backend alive, so the sampler can be destroyed first. The prewarm then continues
/// until all its programs are compiled, a compilation fails, or the caller cancels the prewarm.
pub struct nuc_prewarming {
    _opaque: [u8; 0],
}

/// The progress of a prewarm. Initialize the struct with NUC_PREWARM_PROGRESS_INIT. The caller owns it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_prewarm_progress {
    /// `sizeof(nuc_prewarm_progress)`, in the caller's version of this header. Set it before the call.
    pub struct_size: usize,
    /// The number of programs that are ready.
    pub done: usize,
    /// The number of programs of the prewarm. 0 on the built-in backend.
    pub total: usize,
    /// 1: the prewarm has ended, and nuc_prewarming_wait returns its result without waiting. 0: it is running.
    pub has_ended: i32,
    /// Always zero.
    pub reserved: i32,
}

/// Options for nuc_compile_ahead: what to compile, for which device, and where to write it. A field that is zero has
/// its default.
///
/// Initialize the struct with NUC_COMPILE_AHEAD_OPTIONS_INIT, then set at least `output_dir`, `row_counts`,
/// `num_row_counts` and `vocab`. The caller owns the struct and everything that it points to, and may free all of it
/// when the call returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_compile_ahead_options {
    /// `sizeof(nuc_compile_ahead_options)`, in the caller's version of this header.
    pub struct_size: usize,
    /// The path of the PJRT plugin's shared library, NUL-terminated UTF-8. Null or empty: the environment variable
    /// NUCLEUS_PJRT_PLUGIN.
    pub plugin_path: *const c_char,
    /// The plugin's name for a topology, NUL-terminated UTF-8. A topology describes the devices to compile for. This
    /// host need not have these devices. With libtpu the name consists of a TPU generation and the arrangement of its
    /// chips, for example `v5e:2x2`. The topology must equal that of the host that will load the programs. Null or
    /// empty: the devices of this host. Plugins for CPUs and GPUs support only this default.
    pub topology: *const c_char,
    /// An array of `num_plugin_options` options for the topology, or for the client if `topology` is null.
    pub plugin_options: *const nuc_client_option,
    /// The length of `plugin_options`, at most 1024.
    pub num_plugin_options: usize,
    /// The output directory, NUL-terminated UTF-8. It is created if it does not exist. One directory can contain the
    /// programs of several plugins and topologies, and can be copied to other hosts.
    pub output_dir: *const c_char,
    /// An array of length `num_row_counts`: the numbers of rows of the calls to compile for, each at least 1. With
    /// logits in host memory, each number is rounded up to a number in `row_buckets`. Calls with more rows than the
    /// largest number in `row_buckets` run in pieces.
    pub row_counts: *const usize,
    /// The length of `row_counts`, 1 to 4096.
    pub num_row_counts: usize,
    /// The number of elements per row, 1 to 16777216.
    pub vocab: usize,
    /// The `max_k` of the samplers that will load the programs, 1 to 1024. 0: 128.
    pub max_k: usize,
    /// The element type of the logits. 0: NUC_DTYPE_F32.
    pub dtype: nuc_dtype,
    /// The function that will be called. 0: NUC_PATH_AUTO, which compiles the programs of both paths.
    pub path: nuc_path,
    /// The value of `keep_ties` that calls will pass.
    pub keep_ties: i32,
    /// The NUC_DEBUG_* bits of the debug arrays that calls will request. Debug arrays without a bit need no other
    /// program.
    pub debug_arrays: u32,
    /// 1: also compile for smaller numbers of rows, like nuc_prewarm, because a batch that uses both paths runs as
    /// several smaller ones. 0: compile only for `row_counts`.
    pub smaller_row_counts: i32,
    /// Must be zero.
    pub reserved: i32,
    /// The largest size of `output_dir` in bytes. After the last write, the least recently used programs are removed
    /// until the directory fits. Programs that this call wrote, and programs that any process has used during the last
    /// minute, are not removed. 0: unlimited.
    pub output_dir_capacity: u64,
    /// The `row_buckets` of the samplers that will load the programs.
    pub row_buckets: *const usize,
    /// The length of `row_buckets`, at most 64. 0: the powers of two from 1 to 128.
    pub num_row_buckets: usize,
    /// Where the logits of the calls are. 0: NUC_LOGITS_ON_HOST.
    ///
    /// With NUC_LOGITS_ON_DEVICE, each element of `row_counts` is the number of rows of a buffer, 1 to 65536. If
    /// `smaller_row_counts` is 1, this function also writes the programs of buffers whose rows take both paths. Two
    /// kinds of small programs are never written: the programs for rows with impossible parameters, and the programs
    /// that copy logits whose layout is not row-major. A sampler compiles these programs when it needs them.
    pub logits: nuc_logits_place,
    /// As in nuc_prewarm_spec.
    pub has_middle_dimension: i32,
}
