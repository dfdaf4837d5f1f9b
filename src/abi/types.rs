//! The structs and constants of the C ABI. Their doc comments are the manual: cbindgen copies them into the header.
//!
//! Fields that contain an enumerator are plain integers here, because C can set them to any value.

use libc::{c_char, c_void};

/// The result of a call. Every function that can fail returns a status. `nuc_status_string` returns its name, and
/// the `nuc_error` of the call explains the failure. A call that returns anything but `NUC_OK` wrote no output.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum nuc_status {
    /// The call succeeded and wrote its outputs.
    NUC_OK = 0,
    /// An argument is wrong. The message names the argument, its value, and what would be right. Repeating the call
    /// fails again.
    NUC_INVALID_ARGUMENT = 1,
    /// The plugin's file does not exist, or a plugin is needed but not named.
    NUC_PLUGIN_NOT_FOUND = 2,
    /// The file is not a PJRT plugin, or the system cannot load it. The message quotes the dynamic loader.
    NUC_PLUGIN_INVALID = 3,
    /// The plugin implements a version of the PJRT C API that this library does not support.
    NUC_PLUGIN_VERSION = 4,
    /// The plugin or its device failed: there is no device, or a compilation or an execution failed. The message quotes
    /// the plugin.
    NUC_DEVICE_ERROR = 5,
    /// This library has a defect, or the plugin returned something that no correct plugin returns. The sampler stays
    /// usable. Please report it.
    NUC_INTERNAL = 6,
    /// The host or the device ran out of memory, threads or another resource. The same call can succeed later, so a
    /// server can reduce its load and try again. Every function can return it.
    NUC_OUT_OF_MEMORY = 7,
    /// A file or directory could not be created, read or written, for example because the disk is full or a permission
    /// is missing. The message names it. `nuc_sampler_create` returns it for `program_dir`, and `nuc_compile_ahead` for
    /// `output_dir`.
    NUC_IO_ERROR = 8,
}

/// How much the library logs. Each level includes the levels before it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum nuc_log_level {
    /// Nothing. This is the default.
    NUC_LOG_OFF = 0,
    /// Failures that no return value can report.
    NUC_LOG_ERROR = 1,
    /// The library continued after a problem. For example, a compiled program could not be loaded and is compiled
    /// again.
    NUC_LOG_WARNING = 2,
    /// The programs that `nuc_compile_ahead` compiles.
    NUC_LOG_INFO = 3,
    /// Every program that is loaded, compiled or written, and every call that fails.
    NUC_LOG_DEBUG = 4,
}

/// A callback that receives log messages; see `nuc_set_log`.
///
/// `user` is the pointer that was passed to `nuc_set_log`. `level` is a `nuc_log_level`. `message` is one line of
/// NUL-terminated UTF-8, without control characters, valid only during the callback.
///
/// Any thread can call the callback, and several threads can call it at the same time. It must return normally: no
/// exception, no `longjmp`. It may call other functions of this library, but not `nuc_sampler_destroy`.
pub type nuc_log_function =
    Option<unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char)>;

/// The reason why a call failed. The caller owns the memory. The last argument of every function that can fail
/// points to a `nuc_error`, or is null.
///
/// Every call writes the `nuc_error` that it receives. After a success `code` is `NUC_OK` and the message is empty.
/// The library keeps no error state, so any thread, goroutine or task can make any call. The library ignores a
/// pointer that is not aligned to 4 bytes.
#[repr(C)]
pub struct nuc_error {
    /// The `nuc_status` that the function returned.
    pub code: i32,
    /// One line of UTF-8, always NUL-terminated, without control characters. A message that is too long is shortened in
    /// the middle of its longest words, so that the reason stays readable.
    pub message: [c_char; 508],
}

/// The backend of a sampler.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum nuc_backend {
    /// A PJRT plugin if `plugin_path` or the environment variable `NUCLEUS_PJRT_PLUGIN` names one; otherwise the
    /// built-in backend.
    NUC_BACKEND_AUTO = 0,
    /// The multi-threaded SIMD code of this library. It runs on the CPU and needs no plugin.
    NUC_BACKEND_BUILTIN = 1,
    /// A PJRT plugin. Fails if no plugin is named.
    NUC_BACKEND_PJRT = 2,
}

/// The type of the value of a `nuc_client_option`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum nuc_option_type {
    /// The value is `string_value`.
    NUC_OPTION_STRING = 0,
    /// The value is `int64_value`.
    NUC_OPTION_INT64 = 1,
    /// The value is `float_value`.
    NUC_OPTION_FLOAT = 2,
    /// The value is `int64_value`: 0 is false, anything else is true.
    NUC_OPTION_BOOL = 3,
}

/// One option for a plugin. The plugin's documentation lists its options; an example is `preallocate`, a
/// `NUC_OPTION_BOOL` of the CUDA plugin.
///
/// Set the struct to zero, then set the fields. The caller owns the struct and its strings and may free them when
/// the call returns. Use the names and types that the plugin documents: some plugins end the process if an option
/// has the wrong type, and this library cannot prevent it.
#[repr(C)]
pub struct nuc_client_option {
    /// The name, NUL-terminated UTF-8.
    pub name: *const c_char,
    /// A `nuc_option_type`. It selects the field that contains the value.
    pub r#type: i32,
    /// A single-precision value. PJRT has no double-precision options.
    pub float_value: f32,
    /// An integer, or a bool (0 or 1).
    pub int64_value: i64,
    /// NUL-terminated UTF-8.
    pub string_value: *const c_char,
    /// Must be zero.
    pub reserved: [u64; 2],
}

/// Options for `nuc_sampler_create`.
///
/// Initialize the struct with `nuc_sampler_options_init`, then change fields. The caller owns the struct and everything
/// that it points to, and may free all of it when `nuc_sampler_create` returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_sampler_options {
    /// `sizeof(nuc_sampler_options)`, in the caller's version of this header.
    pub struct_size: usize,
    /// A `nuc_backend`. Default: `NUC_BACKEND_AUTO`.
    pub backend: i32,
    /// The index of the device among the client's addressable devices. Default: 0.
    pub device_index: i32,
    /// The path of a PJRT plugin's shared library, NUL-terminated UTF-8. Null or empty (default): the environment
    /// variable `NUCLEUS_PJRT_PLUGIN`. Ignored with `NUC_BACKEND_BUILTIN`.
    pub plugin_path: *const c_char,
    /// An array of `num_client_options` options for the plugin's client. Default: null.
    pub client_options: *const nuc_client_option,
    /// The length of `client_options`, at most 1024. Default: 0.
    pub num_client_options: usize,
    /// The number of slots of the bounded path: the largest k that the path accepts, and the width of the k-slices.
    /// 1 to 1024; default 128.
    pub max_k: usize,
    /// The largest number of compiled programs in memory. If it is exceeded, the least recently used program is
    /// evicted. Programs that `nuc_prewarm` compiled are never evicted. At least 1; default 64. A batch that uses
    /// both paths needs two programs at the same time.
    pub cache_capacity: usize,
    /// The number of threads of the built-in backend, at most 4096. 1: only the calling thread. More: a thread pool
    /// of this size runs large calls, and the calling thread waits. 0 (default): one thread per core.
    pub num_threads: usize,
    /// A directory of compiled programs, NUL-terminated UTF-8: the output of `nuc_compile_ahead` or of the command
    /// `nucleus compile`, or programs that `write_programs` saved. Null or empty (default): the environment variable
    /// `NUCLEUS_PROGRAM_DIR`; if it is not set, no directory is used. The built-in backend ignores the directory.
    ///
    /// Before a sampler compiles a program, it looks for the program's file in this directory. If the file is
    /// damaged, or was compiled for another plugin or device, the sampler compiles the program and logs the reason.
    /// A relative path is resolved when the sampler is created.
    ///
    /// Write access to this directory is equivalent to code execution in this process. So the library does not use a
    /// directory or file that belongs to another user (except root), or that other users can write to, unless the
    /// environment variable `NUCLEUS_TRUST_PROGRAM_DIR` is 1. A directory with the sticky bit may be writable by
    /// other users.
    pub program_dir: *const c_char,
    /// 1: the sampler writes each program that it compiles to `program_dir`, and creates the directory if it does not
    /// exist. The next process then loads the programs. A failed write is logged and has no other effect. 0 (default):
    /// the directory must exist and is only read.
    pub write_programs: i32,
    /// Must be zero.
    pub reserved: i32,
}

/// The element type of a logits array.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum nuc_dtype {
    /// IEEE 754 binary32, 4 bytes per element.
    NUC_DTYPE_F32 = 0,
    /// bfloat16, 2 bytes per element.
    NUC_DTYPE_BF16 = 1,
    /// IEEE 754 binary16, 2 bytes per element.
    NUC_DTYPE_F16 = 2,
}

/// A batch of logits, and the sampling parameters of its rows.
///
/// Set the struct to zero, set `struct_size`, then set the fields that you use. The caller owns the struct and all of
/// its arrays. A call reads them and keeps no pointer to them. No thread may write them during the call.
///
/// Every parameter array has `batch` elements unless its comment says otherwise. If an array is null, every row has
/// the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_batch {
    /// `sizeof(nuc_batch)`, in the caller's version of this header.
    pub struct_size: usize,
    /// The logits, `[batch, vocab]`, row-major, aligned to their element type. Every value is allowed: a NaN counts as
    /// −inf and sets `NUC_ROW_HAD_NAN`, +inf counts as the largest finite f32, and −0 and f32 subnormals count as +0.
    pub logits: *const c_void,
    /// A `nuc_dtype`.
    pub dtype: i32,
    /// Must be zero.
    pub reserved: i32,
    /// The number of rows. A call with 0 rows succeeds and writes no output.
    pub batch: usize,
    /// The number of elements per row, 1 to 16777216.
    pub vocab: usize,
    /// The distance between the starts of two rows, in elements: at least `vocab`, or 0, which means `vocab`. Elements
    /// between two rows are ignored, but all `(batch - 1) * row_stride + vocab` elements must be readable memory.
    pub row_stride: usize,
    /// Top-k: exactly k entries survive; the lower index wins a tie. k <= 0 or k >= vocab: off. Default: off.
    pub k: *const i32,
    /// Top-p: the smallest set of the largest weights whose sum is at least p times the total survives, together with
    /// every entry that ties with its smallest weight. p >= 1: off. p <= 0: only the maximum and its ties survive. A
    /// NaN is an error. Default: off.
    pub p: *const f32,
    /// Min-p: entries whose weight is at least min_p times the largest weight survive. min_p <= 0: off. A value above 1
    /// counts as 1. A NaN is an error. Default: off.
    pub min_p: *const f32,
    /// The temperature, finite and at least 0. Below 1e-5 the row is greedy: its token is the maximum. Default: 1.
    pub temperature: *const f32,
    /// The random words, `[batch][4]`: one 128-bit number per row, the most significant word first. The draw uses
    /// this number. Null: the words are computed from `seed` and `offset`.
    pub random_words: *const u32,
    /// The seed of the row's random words, which are Philox4x32-10 with key = seed and counter = (offset, 0).
    /// Default: 0. Must be null if `random_words` is not.
    pub seed: *const u64,
    /// The offset of the row's random words. The same seed and offset produce the same random words, so change the
    /// offset at every step, for example to the number of the step. Default: 0. Must be null if `random_words` is
    /// not.
    pub offset: *const u64,
}

/// Options of one sampling call, for all of its rows.
///
/// Initialize the struct with `nuc_call_options_init`, then change fields; or pass null for the defaults. The caller
/// owns the struct. A struct whose fields are all zero except `struct_size` is an error: it was probably not
/// initialized, and `stable = 0` would change results. To use `stable = 0` with a `replace_val` of zero, set
/// `replace_val` to `-0.0f`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_call_options {
    /// `sizeof(nuc_call_options)`, in the caller's version of this header.
    pub struct_size: usize,
    /// 1 (default): top-k keeps exactly k entries; the lower index wins a tie at the threshold. 0: top-k keeps every
    /// entry that ties with the threshold, which can be more than k.
    pub stable: i32,
    /// The value of `topk_logits_unsorted` where top-k removed the entry, rounded to the type of the logits. Must not
    /// be NaN. Default: -1e12.
    pub replace_val: f32,
}

/// A bit of `row_status`: the row has no finite candidate, because every logit is −inf or NaN. The row's token is −1.
pub const NUC_ROW_NO_CANDIDATE: u32 = 1;
/// A bit of `row_status`: the row contains a NaN, which counted as −inf. The token is valid unless
/// `NUC_ROW_NO_CANDIDATE` is also set.
pub const NUC_ROW_HAD_NAN: u32 = 2;

/// The intermediate arrays of a sampling call, for validation. They are bit-identical on every backend.
///
/// Set the struct to zero, set `struct_size`, then point the fields that you want to your own arrays. The library
/// does not compute an array whose field is null. It writes the arrays only if the call succeeds. The arrays must
/// not overlap any other memory that the call receives.
///
/// The k-slices (`topk_indices_k`, `topk_logits_k`, `topk_topp_unnorm_probs_i32_k`) belong to the bounded path. If
/// you request one, every row needs 1 <= k <= max_k, or vocab <= max_k. `nuc_arbitrary_topk_topp_and_sample` does
/// not accept them. A row's slots contain the entries that top-k kept, in ascending order of index. With
/// `stable = 0` ties can outnumber the slots; the slots then contain the first max_k of the kept entries.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_debug_arrays {
    /// `sizeof(nuc_debug_arrays)`, in the caller's version of this header.
    pub struct_size: usize,
    /// `[batch]`: the lowest index of the row's maximum; −1 if there is no candidate.
    pub greedy_sampled: *mut i32,
    /// `[batch, vocab]`, dense, of the type of the logits: the cleaned logit if top-k kept the entry, else
    /// `replace_val`. In bf16 and f16 a +inf stays +inf, because the largest finite f32 rounds to it.
    pub topk_logits_unsorted: *mut c_void,
    /// `[batch, vocab]`, dense: the integer weight, 0 to 2^24 - 1, if top-k, top-p and min-p kept the entry, else 0.
    pub topk_topp_unnorm_probs_i32_unsorted: *mut i32,
    /// `[batch]`: bits 32 to 63 of r, the random number modulo the total of the kept weights.
    pub random_unnorm_cdf_sampled_high: *mut u32,
    /// `[batch]`: bits 0 to 31 of r.
    pub random_unnorm_cdf_sampled_low: *mut u32,
    /// `[batch]`: the lowest index whose inclusive prefix sum of kept weights exceeds r; −1 if there is no candidate.
    pub next_tokens: *mut i32,
    /// `[batch, max_k]`: the indices that top-k kept, ascending; −1 in unused slots.
    pub topk_indices_k: *mut i32,
    /// `[batch, max_k]`, of the type of the logits: `topk_logits_unsorted` at those indices; `replace_val` in unused
    /// slots.
    pub topk_logits_k: *mut c_void,
    /// `[batch, max_k]`: `topk_topp_unnorm_probs_i32_unsorted` at those indices; 0 in unused slots.
    pub topk_topp_unnorm_probs_i32_k: *mut i32,
}

/// A sampling function, for `nuc_prewarm` and `nuc_compile_ahead`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum nuc_path {
    /// `nuc_topk_topp_and_sample`.
    NUC_PATH_AUTO = 0,
    /// `nuc_arbitrary_topk_topp_and_sample`.
    NUC_PATH_ARBITRARY = 1,
    /// `nuc_bounded_topk_topp_and_sample`.
    NUC_PATH_BOUNDED = 2,
}

/// A bit of `wide_arrays`: calls will request `topk_logits_unsorted`.
pub const NUC_WIDE_TOPK_LOGITS: u32 = 1;
/// A bit of `wide_arrays`: calls will request `topk_topp_unnorm_probs_i32_unsorted`.
pub const NUC_WIDE_PROBS: u32 = 2;
/// A bit of `wide_arrays`: calls will request one or more k-slices.
pub const NUC_WIDE_K_SLICES: u32 = 4;

/// The calls that `nuc_prewarm` compiles programs for. Set the struct to zero, set `struct_size`, then set the other
/// fields. The caller owns the struct.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_prewarm_spec {
    /// `sizeof(nuc_prewarm_spec)`, in the caller's version of this header.
    pub struct_size: usize,
    /// A `nuc_path`.
    pub path: i32,
    /// A `nuc_dtype`.
    pub dtype: i32,
    /// The largest number of rows of a call, at least 1. Programs for all smaller powers of two are compiled too,
    /// because a batch that uses both paths runs as several smaller ones.
    pub batch: usize,
    /// The number of elements per row.
    pub vocab: usize,
    /// 1 if calls will pass `stable = 0`, else 0.
    pub unstable: i32,
    /// The `NUC_WIDE_*` bits of the wide arrays that calls will request; 0 for none.
    pub wide_arrays: u32,
}

/// Counters of a sampler since it was created. The built-in backend compiles nothing, so its counters stay 0.
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
    /// The number of programs in memory that `nuc_prewarm` compiled or loaded. They are never evicted, and count toward
    /// `cache_capacity`.
    pub pinned: u64,
    /// The number of programs that were compiled for one call and not kept, because pinned programs filled the cache.
    pub not_kept: u64,
}

/// Options for `nuc_compile_ahead`: what to compile, for which device, and where to write it.
///
/// Initialize the struct with `nuc_compile_ahead_options_init`, then set at least `output_dir`, `batches`,
/// `num_batches`, `vocab` and `dtype`. The caller owns the struct and everything that it points to, and may free all
/// of it when the call returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_compile_ahead_options {
    /// `sizeof(nuc_compile_ahead_options)`, in the caller's version of this header.
    pub struct_size: usize,
    /// The path of the PJRT plugin's shared library, NUL-terminated UTF-8. Null or empty (default): the environment
    /// variable `NUCLEUS_PJRT_PLUGIN`.
    pub plugin_path: *const c_char,
    /// The plugin's name for a topology, NUL-terminated UTF-8. It describes the devices to compile for, which this
    /// host need not have. For libtpu it is a TPU generation and the arrangement of its chips, for example
    /// `v5e:2x2`. It must equal the topology of the host that will load the programs. Null or empty (default): the
    /// devices of this host. Plugins for CPUs and GPUs support only the default.
    pub topology: *const c_char,
    /// An array of `num_plugin_options` options for the topology, or for the client if `topology` is null. Default:
    /// null.
    pub plugin_options: *const nuc_client_option,
    /// The length of `plugin_options`, at most 1024. Default: 0.
    pub num_plugin_options: usize,
    /// The output directory, NUL-terminated UTF-8. It is created if it does not exist. One directory can contain the
    /// programs of several plugins and topologies, and can be copied to other hosts.
    pub output_dir: *const c_char,
    /// An array of `num_batches` batch sizes: the numbers of rows of the calls to compile for, each at least 1. The
    /// rows of a call are padded to a power of two and run in pieces of at most 128 rows.
    pub batches: *const usize,
    /// The length of `batches`, 1 to 4096.
    pub num_batches: usize,
    /// The number of elements per row.
    pub vocab: usize,
    /// The `max_k` of the samplers that will load the programs. Default: 128.
    pub max_k: usize,
    /// A `nuc_dtype`. Default: `NUC_DTYPE_F32`.
    pub dtype: i32,
    /// A `nuc_path`: the function that will be called. Default: `NUC_PATH_AUTO`, which compiles the programs of both
    /// paths.
    pub path: i32,
    /// The value of `stable` that calls will pass, 1 or 0. Default: 1.
    pub stable: i32,
    /// The `NUC_WIDE_*` bits of the wide arrays that calls will request. Default: 0, none.
    pub wide_arrays: u32,
    /// 1: also compile for smaller numbers of rows, like `nuc_prewarm`, because a batch that uses both paths runs as
    /// several smaller ones. Default: 0.
    pub smaller_batches: i32,
    /// Must be zero.
    pub reserved: i32,
    /// Receives the number of files written, if the call succeeds. Null (default): not wanted.
    pub programs_written: *mut usize,
}

/// A description of a sampler's platform. The strings are NUL-terminated UTF-8. They belong to the sampler and are
/// valid until it is destroyed. A plugin's strings can contain line breaks.
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
}

/// One device of a sampler's client. The strings are NUL-terminated UTF-8. They belong to the sampler and are valid
/// until it is destroyed.
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
