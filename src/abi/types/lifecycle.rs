//! Creating and destroying samplers.

use libc::{c_char, c_void};

/// The backend of a sampler.
pub type nuc_backend = i32;

/// The default: a PJRT plugin if `plugin_path` or the environment variable NUCLEUS_PJRT_PLUGIN names one; otherwise
/// the built-in backend.
pub const NUC_BACKEND_AUTO: nuc_backend = 0;
/// The multi-threaded SIMD code of this library. It runs on the CPU and needs no plugin.
pub const NUC_BACKEND_BUILTIN: nuc_backend = 1;
/// A PJRT plugin. Creating the sampler fails if no plugin is named.
pub const NUC_BACKEND_PJRT: nuc_backend = 2;

/// The type of the value of a nuc_client_option.
pub type nuc_option_type = i32;

/// The value is `string_value`.
pub const NUC_OPTION_STRING: nuc_option_type = 0;
/// The value is `int64_value`.
pub const NUC_OPTION_INT64: nuc_option_type = 1;
/// The value is `float_value`.
pub const NUC_OPTION_FLOAT: nuc_option_type = 2;
/// The value is `int64_value`: 0 is false, anything else is true.
pub const NUC_OPTION_BOOL: nuc_option_type = 3;

/// One option for a plugin. The plugin's documentation lists its options; an example is `preallocate`, a
/// NUC_OPTION_BOOL of the CUDA plugin.
///
/// The caller owns the struct and its strings, and may free them when the call returns. Use the names and types that
/// the plugin documents: some plugins end the process if an option has the wrong type, and this library cannot prevent
/// that. This struct is an element of arrays, so it has no struct_size and its size never changes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_client_option {
    /// The name, NUL-terminated UTF-8.
    pub name: *const c_char,
    /// Selects the field that contains the value.
    pub r#type: nuc_option_type,
    /// A single-precision value. PJRT has no double-precision options.
    pub float_value: f32,
    /// An integer, or a bool (0 or 1).
    pub int64_value: i64,
    /// NUL-terminated UTF-8.
    pub string_value: *const c_char,
    /// Must be zero.
    pub reserved: [u64; 2],
}

/// A sampler: a backend, its threads or its device, and the programs compiled for it. The type is opaque.
///
/// nuc_sampler_create creates a sampler, the caller owns it, and nuc_sampler_destroy frees it. Any number of
/// threads may use the same sampler at the same time. Only nuc_sampler_destroy must run alone.
///
/// A sampler belongs to the process that created it. In a child process after fork, every call with it returns
/// NUC_INVALID_ARGUMENT, and nuc_sampler_destroy returns NUC_OK without freeing anything.
pub struct nuc_sampler {
    _opaque: [u8; 0],
}

/// Options for nuc_sampler_create. A field that is zero has its default.
///
/// The caller owns the struct and everything that it points to, and may free all of it when nuc_sampler_create returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_sampler_options {
    /// `sizeof(nuc_sampler_options)`, in the caller's version of this header.
    pub struct_size: usize,
    /// The backend. 0: NUC_BACKEND_AUTO.
    pub backend: nuc_backend,
    /// The index of the device among the client's addressable devices, counted from 0.
    pub device_index: i32,
    /// The path of a PJRT plugin's shared library, NUL-terminated UTF-8. Null or empty: the environment variable
    /// NUCLEUS_PJRT_PLUGIN. Ignored with NUC_BACKEND_BUILTIN.
    pub plugin_path: *const c_char,
    /// An array of `num_client_options` options for the plugin's client.
    pub client_options: *const nuc_client_option,
    /// The length of `client_options`, at most 1024.
    pub num_client_options: usize,
    /// The number of slots of the bounded path: the largest k that the path accepts, and the width of the k-slices.
    /// 1 to 1024. 0: 128.
    pub max_k: usize,
    /// The largest number of compiled programs in memory. If it is exceeded, the least recently used program is
    /// evicted. Programs that nuc_prewarm compiled are never evicted. A batch that uses both paths needs two programs
    /// at the same time, or three programs if the logits are on a device. 0: 64.
    pub cache_capacity: usize,
    /// The number of threads of the built-in backend, at most 1024. 1: only the calling thread. More: the sampler
    /// starts this number of threads. At most this number of threads, including the calling thread, work on a large
    /// call. If the system cannot start all threads, the sampler logs a warning and uses the threads that started. A
    /// new sampler measures its first calls. During the first tens of calls, it can use fewer threads.
    /// `platform_version` of nuc_sampler_info contains the number of threads that work on calls. 0: one thread per
    /// core, at most 1024.
    pub num_threads: usize,
    /// A directory of compiled programs, NUL-terminated UTF-8: the output of nuc_compile_ahead or of the command
    /// `nucleus compile`, or programs that `write_programs` saved. Null or empty: the environment variable
    /// NUCLEUS_PROGRAM_DIR; if it is not set, no directory is used. The built-in backend ignores the directory.
    ///
    /// Before a sampler compiles a program, it looks for the program's file in this directory. If the file is damaged,
    /// or was compiled for another plugin or device, the sampler compiles the program and logs the reason. A relative
    /// path is resolved when the sampler is created.
    ///
    /// Write access to this directory is equivalent to code execution in this process. So the library does not use a
    /// directory or file that belongs to another user (except root), or that other users can write to, unless the
    /// environment variable NUCLEUS_TRUST_PROGRAM_DIR is 1. A directory with the sticky bit may be writable by other
    /// users.
    pub program_dir: *const c_char,
    /// 1: the sampler writes each program that it compiles to `program_dir`, and creates the directory if it does not
    /// exist. The next process then loads the programs. A failed write is logged and has no other effect. 0: the
    /// directory must exist and is only read.
    pub write_programs: i32,
    /// Must be zero.
    pub reserved: i32,
    /// The table of a PJRT plugin that the caller has loaded and initialized, `const PJRT_Api *`. It must stay valid
    /// until the process ends. Null: the sampler loads a plugin, or uses the built-in backend.
    pub pjrt_api: *const c_void,
    /// A client of the caller, `PJRT_Client *`, created with the plugin of `pjrt_api`. The sampler uses the client and
    /// does not destroy it. The client must outlive the sampler and its nuc_parameters, nuc_call and nuc_prewarming
    /// objects. Null if and only if `pjrt_api` is null.
    ///
    /// With a client, `backend` must not be NUC_BACKEND_BUILTIN, `plugin_path` must be null, and `num_client_options`
    /// must be 0. The environment variable NUCLEUS_PJRT_PLUGIN is then ignored.
    ///
    /// With a client and a `program_dir`, the library reads the file that contains the plugin's functions. It finds the
    /// file's path in /proc/self/maps (Linux). If the file was replaced or removed after the caller loaded it,
    /// nuc_sampler_create returns NUC_PLUGIN_NOT_FOUND. But if this library itself loaded the plugin earlier, the
    /// library still has the file open, and nuc_sampler_create succeeds.
    pub pjrt_client: *mut c_void,
    /// The largest size of `program_dir` in bytes. After each write, the sampler removes the least recently used
    /// programs until the directory fits. It does not remove the program that it has just written, and it does not
    /// remove programs that any process has used during the last minute. 0: unlimited. Ignored if `write_programs` is
    /// 0.
    pub program_dir_capacity: u64,
    /// An array of `num_row_buckets` numbers of rows, ascending, each from 1 to 65536. The sampler compiles programs
    /// for these numbers of rows, and pads each batch to the next of them. More numbers mean less padding, but more
    /// programs. A batch in host memory that has more rows than the last number runs in pieces. Null if
    /// `num_row_buckets` is 0. The built-in backend ignores the list.
    ///
    /// With logits on a device, a program samples the buffer without padding if all rows take the same path. If the
    /// rows take both paths, each path has its own program, and the list applies to the rows of each path.
    pub row_buckets: *const usize,
    /// The length of `row_buckets`, at most 64. 0: the powers of two from 1 to 128.
    pub num_row_buckets: usize,
}
