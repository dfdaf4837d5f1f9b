//! The structs and constants of the C ABI. Their comments are the manual: cbindgen copies them into the header.
//!
//! Fields that C sets to an enumerator are plain integers here, for C can set them to anything.

use libc::{c_char, c_void};

/// What every function returns: `NUC_OK` or the reason nothing was done. `nuc_status_string` names it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum nuc_status {
    /// The call did what was asked; its outputs are written.
    NUC_OK = 0,
    /// An argument is wrong. The message names it, its value, and what would be right. Calling again with the same
    /// arguments fails again.
    NUC_INVALID_ARGUMENT = 1,
    /// The plugin's file does not exist, or no plugin is named where one is needed.
    NUC_PLUGIN_NOT_FOUND = 2,
    /// The file exists but is no PJRT plugin, or the system cannot load it (the message has the loader's words).
    NUC_PLUGIN_INVALID = 3,
    /// The plugin speaks a version of the PJRT C API that this library does not.
    NUC_PLUGIN_VERSION = 4,
    /// The plugin or its device failed: no device, out of device memory, a compile or an execution that failed. The
    /// message has the plugin's own words.
    NUC_DEVICE_ERROR = 5,
    /// A defect of this library or an impossible answer of a plugin. The handle stays usable.
    NUC_INTERNAL = 6,
    /// Memory, threads or another resource of the host or the device ran out. No output was written; the same call may
    /// succeed when the load is lower.
    NUC_OUT_OF_MEMORY = 7,
    /// A file or directory could not be read or written: a full disk, a missing permission. The message names it.
    NUC_IO_ERROR = 8,
}

/// How much is logged; each level includes those before it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum nuc_log_level {
    /// Nothing, which is where every process starts.
    NUC_LOG_OFF = 0,
    /// What failed although nobody can be told.
    NUC_LOG_ERROR = 1,
    /// What works, but not as it was meant to: a compiled program that does not fit and is compiled anew.
    NUC_LOG_WARNING = 2,
    /// What is compiled ahead of time.
    NUC_LOG_INFO = 3,
    /// What is loaded, compiled and written, and every call that fails.
    NUC_LOG_DEBUG = 4,
}

/// Receives a message of the log: `user` as it was given to `nuc_set_log`, a `nuc_log_level`, and terminated UTF-8 that is
/// gone when the function returns, one line but for what a plugin says in more. It is called by whichever thread has
/// something to say, by several at once. It must return (no exception, no longjmp), and must not call
/// `nuc_sampler_destroy`.
pub type nuc_log_function =
    Option<unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char)>;

/// Details of a failure, in memory of the caller. Every function takes a pointer to one as its last argument, or
/// null. It is written by every call that gets it (unless it is not aligned): on success `code` is `NUC_OK` and the
/// message empty. There is no thread-local error state, so any thread, goroutine or task may make any call.
#[repr(C)]
pub struct nuc_error {
    /// The status that the function returned.
    pub code: i32,
    /// UTF-8, always terminated, cut short where it does not fit.
    pub message: [c_char; 508],
}

/// A sampler: a backend with its threads or its device, and the programs compiled for it. Opaque. Made by
/// `nuc_sampler_create`, owned by the caller, ended by `nuc_sampler_destroy`. Any number of threads may use one
/// handle at once in any function but `nuc_sampler_destroy`.
pub struct nuc_sampler {
    pub(super) sampler: crate::sampler::Sampler,
    /// Terminated copies of what the getters hand out, so that the pointers live as long as the handle.
    pub(super) strings: super::info::Strings,
}

/// Which backend a sampler uses.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum nuc_backend {
    /// A PJRT plugin if one is named by `plugin_path` or the environment variable `NUCLEUS_PJRT_PLUGIN`, else the
    /// built-in backend.
    NUC_BACKEND_AUTO = 0,
    /// The multi-threaded SIMD code of this library, on the host.
    NUC_BACKEND_BUILTIN = 1,
    /// A PJRT plugin; it is an error if none is named.
    NUC_BACKEND_PJRT = 2,
}

/// The type of a client option's value.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum nuc_option_type {
    /// `string_value` is used.
    NUC_OPTION_STRING = 0,
    /// `int64_value` is used.
    NUC_OPTION_INT64 = 1,
    /// `float_value` is used.
    NUC_OPTION_FLOAT = 2,
    /// `int64_value` is used, 0 or 1.
    NUC_OPTION_BOOL = 3,
}

/// One option for the plugin's client, as the plugin's documentation names it; for instance `preallocate`, a
/// `NUC_OPTION_BOOL`, for the CUDA plugin's allocator. Zero it, then set the fields. The caller owns it and may free
/// it after `nuc_sampler_create`. Names and types must be the plugin's own: some plugins end the process on an option
/// of the wrong type, which no caller can prevent.
#[repr(C)]
pub struct nuc_client_option {
    /// Terminated UTF-8.
    pub name: *const c_char,
    /// A `nuc_option_type`: which of the fields below holds the value.
    pub r#type: i32,
    /// Single precision, as PJRT has it.
    pub float_value: f32,
    /// Also holds a bool, 0 or 1.
    pub int64_value: i64,
    /// Terminated UTF-8.
    pub string_value: *const c_char,
    /// Zero; for values of other types.
    pub reserved: [u64; 2],
}

/// How to make a sampler. Fill it with `nuc_sampler_options_init`, change what should differ, pass it to
/// `nuc_sampler_create`; it may be freed after that.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_sampler_options {
    /// `sizeof(nuc_sampler_options)` as the caller's header has it.
    pub struct_size: usize,
    /// A `nuc_backend`. Default: `NUC_BACKEND_AUTO`.
    pub backend: i32,
    /// Index of the device among the client's addressable devices. Default: 0.
    pub device_index: i32,
    /// Path of a PJRT plugin's shared library, terminated UTF-8. Null (default): the environment variable
    /// `NUCLEUS_PJRT_PLUGIN`. Not looked at with `NUC_BACKEND_BUILTIN`.
    pub plugin_path: *const c_char,
    /// Options for the plugin's client, `num_client_options` of them. Default: null.
    pub client_options: *const nuc_client_option,
    /// Length of `client_options`. Default: 0.
    pub num_client_options: usize,
    /// Slots of the bounded path: the largest k it takes, and the width of the k-slices. 1 to 1024; default 128.
    pub max_k: usize,
    /// Compiled programs kept before the least recently used is dropped. At least 1; default 64. A batch that mixes
    /// paths needs two at once.
    pub cache_capacity: usize,
    /// Threads of the built-in backend. 1: none but the caller's. More: a pool of so many, which the caller waits for
    /// where a call is large enough to share. 0 (default): one a core.
    pub num_threads: usize,
    /// Folder of compiled programs, terminated UTF-8: what `nuc_compile_ahead` and `nucleus compile` wrote, or what
    /// `write_programs` keeps. Before a program is compiled, its file is looked for there; a file that is damaged, or
    /// that was made for another plugin or device, is logged (`nuc_set_log`) and left alone, and the program is
    /// compiled. A relative path counts from where the process is as the sampler is made. Null (default): the
    /// environment variable `NUCLEUS_PROGRAM_DIR`; where that is not set, none. Not looked at by the built-in backend.
    /// The device runs what lies there: nobody should write to the folder who may not run code in the process.
    pub program_dir: *const c_char,
    /// 1: programs that had to be compiled are written to `program_dir`, which is made if it is not there, so that the
    /// next process loads them. Nothing is ever deleted there. A file that cannot be written is logged and costs a later
    /// compile. 0 (default): the folder, which must be there, is only read.
    pub write_programs: i32,
    /// Zero; keeps the layout free of padding.
    pub reserved: i32,
}

/// The type of a logits array.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum nuc_dtype {
    /// IEEE binary32, 4 bytes an element.
    NUC_DTYPE_F32 = 0,
    /// bfloat16, 2 bytes an element.
    NUC_DTYPE_BF16 = 1,
    /// IEEE binary16, 2 bytes an element.
    NUC_DTYPE_F16 = 2,
}

/// A batch of logits and the parameters of its rows, all in memory of the caller, read during the call only.
/// Zero the struct, set `struct_size`, then set what is used. A null parameter array means its default in every
/// row; otherwise it has `batch` elements.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_batch {
    /// `sizeof(nuc_batch)` as the caller's header has it.
    pub struct_size: usize,
    /// Logits, `[batch, vocab]`, row after row, aligned to their element. Any value is legal: NaN counts as −inf
    /// and is reported in `row_status`, +inf as the largest finite f32, −0 and subnormals (as f32) as +0.
    pub logits: *const c_void,
    /// A `nuc_dtype`.
    pub dtype: i32,
    /// Zero; keeps the layout free of padding.
    pub reserved: i32,
    /// Rows. With 0 rows a call succeeds and writes nothing.
    pub batch: usize,
    /// Elements of a row, 1 to 16777216.
    pub vocab: usize,
    /// Elements from the start of one row to the start of the next, at least `vocab`; 0 means `vocab`. What lies between
    /// rows is not looked at, but all of `(batch - 1) * row_stride + vocab` elements must be readable, and written by no
    /// one during the call.
    pub row_stride: usize,
    /// Top-k: exactly this many survive, ties by lowest index. k <= 0 or k >= vocab: off. Default: off.
    pub k: *const i32,
    /// Top-p: the smallest set of largest weights that sums to at least p of the total survives, ties at its
    /// border too. p >= 1: off; p <= 0: only the maximum's ties. NaN is an error. Default: off.
    pub p: *const f32,
    /// Min-p: weights of at least min_p times the maximum's survive. min_p <= 0: off; above 1 counts as 1. NaN is
    /// an error. Default: off.
    pub min_p: *const f32,
    /// Temperature, finite and at least 0. Below 1e-5 the row takes the maximum. Default: 1.
    pub temperature: *const f32,
    /// Random words, `[batch][4]`, the most significant first: the 128-bit number that decides the draw. Null:
    /// made from `seed` and `offset`.
    pub random_words: *const u32,
    /// Seed of each row's random words: Philox4x32-10 with key = seed, counter = (offset, 0). Default: 0. Must be
    /// null where `random_words` is not.
    pub seed: *const u64,
    /// Offset of each row's random words. The same seed and offset draw the same again: pass the step's number
    /// here, or any other value that changes from step to step. Default: 0. Must be null where `random_words` is
    /// not.
    pub offset: *const u64,
}

/// Options that hold for a whole call. Fill with `nuc_call_options_init`, change what should differ.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_call_options {
    /// `sizeof(nuc_call_options)` as the caller's header has it.
    pub struct_size: usize,
    /// 1 (default): top-k keeps exactly k, ties at its threshold by lowest index. 0: every tie at the threshold
    /// stays, so more than k can.
    pub stable: i32,
    /// What `topk_logits_unsorted` holds where top-k masked an entry, rounded to the logits' type. Default: -1e12.
    /// Not NaN.
    pub replace_val: f32,
}

/// Bit of `row_status`: the row has no finite candidate (all −inf or NaN); its token is −1.
pub const NUC_ROW_NO_CANDIDATE: u32 = 1;
/// Bit of `row_status`: the row held a NaN, which counted as −inf; its token is valid unless the other bit is set.
pub const NUC_ROW_HAD_NAN: u32 = 2;

/// Intermediate arrays, each stage of the algorithm whole, for validation. Zero the struct, set `struct_size`, then
/// point what is wanted at arrays of the caller; a null pointer means not wanted, and costs nothing. They are
/// written on success only, may not overlap anything else, and are bit-identical on every backend.
///
/// The k-slices belong to the bounded path: with them every row needs 1 <= k <= max_k (or a vocab of at most
/// max_k), in `nuc_arbitrary_topk_topp_and_sample` they are an error. Their width is the sampler's max_k. A row's
/// slots hold what top-k kept in ascending index order; with `stable` = 0 ties can outnumber the slots, and then
/// the first max_k kept entries are there.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_debug_arrays {
    /// `sizeof(nuc_debug_arrays)` as the caller's header has it.
    pub struct_size: usize,
    /// `[batch]`: lowest index of the row's maximum; −1 where there is no candidate.
    pub greedy_sampled: *mut i32,
    /// `[batch, vocab]` of the logits' type, dense: the cleaned logit where top-k kept it, else `replace_val`. (In
    /// bf16 and f16 a +inf stays +inf: the largest finite f32 rounds to it.)
    pub topk_logits_unsorted: *mut c_void,
    /// `[batch, vocab]`, dense: the integer weight, 0 to 2^24 - 1, where top-k, top-p and min-p kept the entry,
    /// else 0.
    pub topk_topp_unnorm_probs_i32_unsorted: *mut i32,
    /// `[batch]`: bits 32 to 63 of r, the random number modulo the total of the kept weights.
    pub random_unnorm_cdf_sampled_high: *mut u32,
    /// `[batch]`: bits 0 to 31 of r.
    pub random_unnorm_cdf_sampled_low: *mut u32,
    /// `[batch]`: lowest index whose inclusive prefix sum of kept weights exceeds r; −1 where there is no
    /// candidate.
    pub next_tokens: *mut i32,
    /// `[batch, max_k]`: indices that top-k kept, ascending; −1 in unused slots.
    pub topk_indices_k: *mut i32,
    /// `[batch, max_k]` of the logits' type: `topk_logits_unsorted` at those indices; `replace_val` in unused slots.
    pub topk_logits_k: *mut c_void,
    /// `[batch, max_k]`: `topk_topp_unnorm_probs_i32_unsorted` at those indices; 0 in unused slots.
    pub topk_topp_unnorm_probs_i32_k: *mut i32,
}

/// An entry point, for `nuc_prewarm`.
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

/// Bit of `nuc_prewarm_spec.wide_arrays`: calls will ask for `topk_logits_unsorted`.
pub const NUC_WIDE_TOPK_LOGITS: u32 = 1;
/// Bit of `nuc_prewarm_spec.wide_arrays`: calls will ask for `topk_topp_unnorm_probs_i32_unsorted`.
pub const NUC_WIDE_PROBS: u32 = 2;
/// Bit of `nuc_prewarm_spec.wide_arrays`: calls will ask for a k-slice.
pub const NUC_WIDE_K_SLICES: u32 = 4;

/// Calls to compile for ahead of the first. Zero it, set `struct_size`, then the rest.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_prewarm_spec {
    /// `sizeof(nuc_prewarm_spec)` as the caller's header has it.
    pub struct_size: usize,
    /// A `nuc_path`.
    pub path: i32,
    /// A `nuc_dtype`.
    pub dtype: i32,
    /// Largest number of rows of a call, at least 1. Programs are compiled for every smaller number too: a batch
    /// that mixes paths runs as smaller ones.
    pub batch: usize,
    /// Elements of a row.
    pub vocab: usize,
    /// 1 if calls will pass `stable` = 0, else 0.
    pub unstable: i32,
    /// `NUC_WIDE_*` bits of the wide arrays that calls will ask for; 0 for none.
    pub wide_arrays: u32,
}

/// Counters of a sampler since it was made. All of them stay 0 on the built-in backend, which compiles nothing.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct nuc_sampler_stats {
    /// `sizeof(nuc_sampler_stats)` as the caller's header has it; set before the call.
    pub struct_size: usize,
    /// Programs compiled.
    pub compiles: u64,
    /// Look-ups that found a program, or waited for another thread's compile of it.
    pub hits: u64,
    /// Programs dropped because the cache was full.
    pub evictions: u64,
    /// Compiles that failed.
    pub failures: u64,
    /// Nanoseconds spent compiling, summed over threads.
    pub compile_ns: u64,
    /// Programs held now.
    pub programs: u64,
    /// Programs loaded from `program_dir` instead of compiled.
    pub loaded: u64,
}

/// What to compile ahead of time, for what device, and where to put it. Fill it with `nuc_compile_ahead_options_init`,
/// then set at least `output_dir`, `batches`, `num_batches`, `vocab` and `dtype`. All of it is the caller's, read during
/// the call only.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_compile_ahead_options {
    /// `sizeof(nuc_compile_ahead_options)` as the caller's header has it.
    pub struct_size: usize,
    /// Path of the PJRT plugin's shared library, terminated UTF-8. Null (default): the environment variable
    /// `NUCLEUS_PJRT_PLUGIN`.
    pub plugin_path: *const c_char,
    /// The plugin's name of a topology that this host need not have, terminated UTF-8: for libtpu a generation and its
    /// chips, such as `v5e:2x2`. It must be the topology that the serving host's client sees. Null (default): the
    /// devices of this host, on which the plugin makes a client; all that plugins for CPUs and GPUs offer.
    pub topology: *const c_char,
    /// Options for the topology, or for the client, `num_plugin_options` of them. Default: null.
    pub plugin_options: *const nuc_client_option,
    /// Length of `plugin_options`. Default: 0.
    pub num_plugin_options: usize,
    /// Folder for the files, terminated UTF-8; made if it is not there. One folder can hold the programs of several
    /// plugins and topologies. Its place does not matter: it may be copied to the serving hosts.
    pub output_dir: *const c_char,
    /// Numbers of rows of the calls to compile for, `num_batches` of them, each at least 1. A call's rows are padded to a
    /// power of two and run in pieces of at most 128.
    pub batches: *const usize,
    /// Length of `batches`.
    pub num_batches: usize,
    /// Elements of a row.
    pub vocab: usize,
    /// As the serving samplers will have it. Default: 128.
    pub max_k: usize,
    /// A `nuc_dtype`. Default: `NUC_DTYPE_F32`.
    pub dtype: i32,
    /// A `nuc_path`: the function that will be called. Default: `NUC_PATH_AUTO`, the programs of both paths.
    pub path: i32,
    /// As the calls will pass it, 1 or 0. Default: 1.
    pub stable: i32,
    /// `NUC_WIDE_*` bits of the wide arrays that calls will ask for. Default: 0, none.
    pub wide_arrays: u32,
    /// 1: compile for every smaller number of rows too, as `nuc_prewarm` does: a batch that mixes paths runs as smaller
    /// ones. Default: 0.
    pub smaller_batches: i32,
    /// Zero; keeps the layout free of padding.
    pub reserved: i32,
    /// Receives the number of files written; null (default) if not wanted.
    pub programs_written: *mut usize,
}

/// What a sampler runs on. Strings are terminated UTF-8, belong to the sampler and live as long as it does.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_sampler_info {
    /// `sizeof(nuc_sampler_info)` as the caller's header has it; set before the call.
    pub struct_size: usize,
    /// `builtin`, or the plugin's name of its platform (`cpu`, `cuda`, `tpu`).
    pub platform_name: *const c_char,
    /// The plugin's version string, or the instruction set of the built-in backend.
    pub platform_version: *const c_char,
    /// Version of the plugin's PJRT C API; 0 and 0 on the built-in backend.
    pub pjrt_api_major: i32,
    /// See `pjrt_api_major`.
    pub pjrt_api_minor: i32,
    /// Devices that `device_index` can choose from.
    pub num_devices: usize,
    /// Slots of the bounded path.
    pub max_k: usize,
}

/// One device. Strings as in `nuc_sampler_info`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_device_info {
    /// `sizeof(nuc_device_info)` as the caller's header has it; set before the call.
    pub struct_size: usize,
    /// The plugin's description, in one line.
    pub description: *const c_char,
    /// The plugin's name of the kind of device.
    pub kind: *const c_char,
    /// The plugin's global id of the device.
    pub id: i32,
    /// Zero; keeps the layout free of padding.
    pub reserved: i32,
}
