//! Compiling the programs of a plugin before the first call needs them. The built-in backend compiles nothing.

use libc::c_char;

use super::lifecycle::nuc_client_option;
use super::sampling::{nuc_dtype, nuc_path};

/// The calls that nuc_prewarm compiles programs for. Initialize the struct with NUC_PREWARM_SPEC_INIT, then set at least
/// `num_rows` and `vocab`. The caller owns the struct.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_prewarm_spec {
    /// `sizeof(nuc_prewarm_spec)`, in the caller's version of this header.
    pub struct_size: usize,
    /// The function that will be called. 0: NUC_PATH_AUTO.
    pub path: nuc_path,
    /// The element type of the logits. 0: NUC_DTYPE_F32.
    pub dtype: nuc_dtype,
    /// The largest number of rows of a call, at least 1. Programs for all smaller powers of two are compiled too,
    /// because a batch that uses both paths runs as several smaller ones.
    pub num_rows: usize,
    /// The number of elements per row, 1 to 16777216.
    pub vocab: usize,
    /// The value of `keep_ties` that calls will pass.
    pub keep_ties: i32,
    /// The NUC_DEBUG_* bits of the debug arrays that calls will request. Debug arrays without a bit need no other
    /// program.
    pub debug_arrays: u32,
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
    /// The plugin's name for a topology, NUL-terminated UTF-8. It describes the devices to compile for. This host need
    /// not have these devices. For libtpu it is a TPU generation and the arrangement of its chips, for example
    /// `v5e:2x2`. It must equal the topology of the host that will load the programs. Null or empty: the devices of
    /// this host. Plugins for CPUs and GPUs support only this default.
    pub topology: *const c_char,
    /// An array of `num_plugin_options` options for the topology, or for the client if `topology` is null.
    pub plugin_options: *const nuc_client_option,
    /// The length of `plugin_options`, at most 1024.
    pub num_plugin_options: usize,
    /// The output directory, NUL-terminated UTF-8. It is created if it does not exist. One directory can contain the
    /// programs of several plugins and topologies, and can be copied to other hosts.
    pub output_dir: *const c_char,
    /// An array of length `num_row_counts`: the numbers of rows of the calls to compile for, each at least 1. The rows
    /// of a call are padded to a power of two and run in pieces of at most 128 rows.
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
}
