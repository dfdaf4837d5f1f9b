//! Logits on a device: calls on buffers of a PJRT client, without a copy of the logits to the host.
//!
//! A sampler with a plugin can sample a PJRT_Buffer. The buffer belongs to the sampler's client: the client that was
//! passed to nuc_sampler_create, or the client that the sampler created. nuc_sampler_get_info returns this client.
//! The tokens and the debug arrays stay on the device as buffers. Only the numbers that the caller wants are copied
//! to the host.
//!
//! A nuc_parameters contains the sampling parameters of the rows. The parameters stay on the device between calls. A
//! call uploads them only after a change. Each call takes the number of the step as an argument, and adds it to the
//! offset of every row. So a decode loop does not have to change the parameters.
//!
//!     nuc_parameters_create(sampler, &options, &parameters, &error);
//!     nuc_parameters_set(parameters, row, &row_parameters, &error);   for each row whose parameters change
//!     nuc_sample_start(sampler, NUC_PATH_AUTO, logits, parameters, step, NULL, &call, &error);
//!     ...                                                             work of the host while the device runs
//!     nuc_call_get_tokens(call, tokens, NULL, &error);                waits
//!     nuc_call_destroy(call, &error);
//!
//! The tokens are those of nuc_topk_topp_and_sample with the same logits, parameters and seeds, bit for bit. A device
//! can run several calls at the same time. Each call uses the parameters that were set before the call was started. The
//! first call with a new shape compiles its programs, unless nuc_prewarm has compiled them.
//!
//! Parameters and calls keep the sampler's backend alive. So the sampler, its parameters and its calls can be destroyed
//! in any order. Buffers do not keep the backend alive. If the sampler created the client, first destroy every buffer
//! of the client, including the buffers from nuc_call_take_buffer. Then destroy the last of these objects.
//!
//! This header does not need the header of PJRT, so pointers to PJRT types are `void *`. The library cannot check
//! that such a pointer is what its comment says.

use libc::c_void;

use super::sampling::nuc_dtype;

/// The parameters of the rows of a batch on the device. The type is opaque.
///
/// nuc_parameters_create creates the object, the caller owns it, and nuc_parameters_destroy frees it. Any number of
/// threads may use it at the same time. Only nuc_parameters_destroy must run alone. The object belongs to the sampler
/// that was passed to nuc_parameters_create, and calls with another sampler fail. The rules for fork are those of
/// nuc_sampler.
pub struct nuc_parameters {
    _opaque: [u8; 0],
}

/// A call that was started on the device. The type is opaque.
///
/// nuc_sample_start creates the object, the caller owns it, and nuc_call_destroy frees it. Any number of threads may
/// use it at the same time. Only nuc_call_destroy must run alone. The rules for fork are those of nuc_sampler.
pub struct nuc_call {
    _opaque: [u8; 0],
}

/// The shape of a batch on the device, and its options. A field that is zero has its default.
///
/// Initialize the struct with NUC_PARAMETERS_OPTIONS_INIT, then set at least `num_rows` and `vocab`. The caller owns
/// the struct.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_parameters_options {
    /// `sizeof(nuc_parameters_options)`, in the caller's version of this header.
    pub struct_size: usize,
    /// The number of rows of the logits, at least 1. With logits on a device, nuc_prewarm and nuc_compile_ahead accept
    /// at most 65536 rows.
    pub num_rows: usize,
    /// The number of elements per row, 1 to 16777216.
    pub vocab: usize,
    /// The element type of the logits. 0: NUC_DTYPE_F32.
    pub dtype: nuc_dtype,
    /// As in nuc_call_options.
    pub keep_ties: i32,
    /// As in nuc_call_options.
    pub use_replace_val: i32,
    /// As in nuc_call_options.
    pub replace_val: f32,
}

/// The sampling parameters of one row. The meaning of each value is that of the array of the same name in nuc_batch.
///
/// A struct of zeros means the defaults: every filter is off, the temperature is 1, and the seed is 0. For `top_p` and
/// `temperature`, zero is a valid value and not the default. So these two fields are used only if their flag is 1.
/// Initialize the struct with NUC_ROW_PARAMETERS_INIT. The caller owns it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_row_parameters {
    /// `sizeof(nuc_row_parameters)`, in the caller's version of this header.
    pub struct_size: usize,
    /// The seed of the row's random words.
    pub seed: u64,
    /// The offset of the row's random words at step 0. The step of a call is added to it, modulo 2^64.
    pub offset: u64,
    /// Top-k. 0: off.
    pub top_k: i32,
    /// Min-p. 0: off.
    pub min_p: f32,
    /// 1: use `top_p`. 0: top-p is off; `top_p` must then be 0.
    pub use_top_p: i32,
    /// Top-p.
    pub top_p: f32,
    /// 1: use `temperature`. 0: the temperature is 1; `temperature` must then be 0.
    pub use_temperature: i32,
    /// The temperature. Below 1e-5 the row is greedy.
    pub temperature: f32,
}

/// The numbers that a call on the device copies to the host.
pub type nuc_host_numbers = i32;

/// The tokens, 4 bytes per row. If a row has impossible parameters, nuc_sample_start fails.
pub const NUC_HOST_TOKENS: nuc_host_numbers = 0;
/// Every number of a row, 20 bytes per row: the token, the row status, and the debug arrays with one number per row.
/// An impossible parameter affects only its own row: see NUC_ROW_BAD_PARAMETER.
pub const NUC_HOST_ALL: nuc_host_numbers = 1;
/// No numbers. The tokens stay on the device. If a row has impossible parameters, nuc_sample_start fails.
pub const NUC_HOST_NONE: nuc_host_numbers = 2;

/// Options of nuc_sample_start. A field that is zero has its default. Initialize the struct with
/// NUC_START_OPTIONS_INIT. The caller owns it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_start_options {
    /// `sizeof(nuc_start_options)`, in the caller's version of this header.
    pub struct_size: usize,
    /// The numbers that are copied to the host. 0: NUC_HOST_TOKENS.
    pub host_numbers: nuc_host_numbers,
    /// The NUC_DEBUG_* bits of the debug arrays that stay on the device as buffers.
    pub debug_arrays: u32,
    /// 1: nuc_sample_start deletes the contents of the buffer of logits. A debug array of the same size can then use
    /// the memory of the logits. 0: the buffer keeps its contents.
    pub donate_logits: i32,
    /// Must be zero.
    pub reserved: i32,
}

/// A result of a call on the device, as a PJRT_Buffer. The arrays are dense and row-major.
pub type nuc_buffer = i32;

/// The tokens, S32 `[num_rows]`.
pub const NUC_BUFFER_TOKENS: nuc_buffer = 0;
/// `topk_logits_unsorted`, `[num_rows, vocab]`, as bits of the type of the logits: S32 for f32, U16 for bf16 and
/// f16.
/// Needs NUC_DEBUG_TOPK_LOGITS.
pub const NUC_BUFFER_TOPK_LOGITS: nuc_buffer = 1;
/// `topk_topp_unnorm_probs_i32_unsorted`, S32 `[num_rows, vocab]`. Needs NUC_DEBUG_TOPK_TOPP_PROBS.
pub const NUC_BUFFER_TOPK_TOPP_PROBS: nuc_buffer = 2;
/// `topk_indices_k`, S32 `[num_rows, min(max_k, vocab)]`. This buffer and the next two need NUC_DEBUG_K_SLICES.
pub const NUC_BUFFER_TOPK_INDICES_K: nuc_buffer = 3;
/// `topk_logits_k`, `[num_rows, min(max_k, vocab)]`, as bits of the type of the logits.
pub const NUC_BUFFER_TOPK_LOGITS_K: nuc_buffer = 4;
/// `topk_topp_unnorm_probs_i32_k`, S32 `[num_rows, min(max_k, vocab)]`.
pub const NUC_BUFFER_TOPK_TOPP_PROBS_K: nuc_buffer = 5;

/// A callback that runs once, when a call on the device has ended; see nuc_call_on_done.
///
/// The callback runs on a thread of the plugin. If the call has already ended, the callback runs on the thread that
/// calls nuc_call_on_done. It must return normally: no exception, no longjmp. The plugin's thread cannot do other work
/// before the callback returns, so the callback should be short.
///
/// The callback may call the functions of this library that do not wait for the device. It may read the results of its
/// own call and of other calls that have ended, and it may start calls whose programs are compiled. Inside a callback,
/// two kinds of functions return NUC_INVALID_ARGUMENT: functions that destroy an object, and functions that would wait
/// for a call or a prewarm that has not ended. These functions could wait for the thread that runs the callback.
pub type nuc_done_function = Option<unsafe extern "C" fn(user: *mut c_void)>;
