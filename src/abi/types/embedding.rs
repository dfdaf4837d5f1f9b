//! Programs to embed: the sampler as a function of the caller's own program.
//!
//! A framework that builds its decode step as a StableHLO module can call the sampler inside it. nuc_emit returns the
//! text of one private function. nuc_pack_parameters fills the array of parameters that the function takes. Both work
//! without a sampler and without a plugin.
//!
//!     func.func private @nucleus_sample(
//!         %logits:     tensor<num_rows x vocab x f32>,      or bf16 or f16
//!         %parameters: tensor<num_rows x 13 x i32>,         NUC_PARAMETER_COLUMNS columns
//!         %step:       tensor<ui64>)
//!       -> (tensor<num_rows x i32>,                         the tokens; -1 if a row has no candidate
//!           tensor<5 x num_rows x i32>,                     next_tokens, greedy_sampled, the bits 32 to 63 and 0 to 31
//!                                                           of r, and the row status
//!           ...)                                            the debug arrays, in the order of their NUC_DEBUG_* bits
//!
//! The function adds the step to the offset of every row, modulo 2^64. So a loop of many steps can run on the device
//! with one array of parameters. Its results are those of separate calls, bit for bit.
//!
//! The function calls no other function and uses no global symbol. Its name is the only name that it adds to the
//! module. The text refers to no data on the host. On a device with layouts the logits must be row-major. Debug arrays
//! of logits contain the bits of the logits: i32 for f32, ui16 for bf16 and f16. NUC_DEBUG_K_SLICES adds three
//! arrays, `[num_rows, min(max_k, vocab)]`: indices, logits and weights.

use libc::c_char;

use super::sampling::{nuc_dtype, nuc_path};

/// The number of columns of the array of nuc_pack_parameters.
pub const NUC_PARAMETER_COLUMNS: u32 = 13;

/// A function to embed. A field that is zero has its default.
///
/// Initialize the struct with NUC_EMIT_OPTIONS_INIT, then set at least `num_rows` and `vocab`. The caller owns the
/// struct and its strings, and may free them when the call returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_emit_options {
    /// `sizeof(nuc_emit_options)`, in the caller's version of this header.
    pub struct_size: usize,
    /// The number of rows, 1 to 65536.
    pub num_rows: usize,
    /// The number of elements per row, 1 to 16777216.
    pub vocab: usize,
    /// The number of slots of the bounded path, 1 to 1024. 0: 128.
    pub max_k: usize,
    /// The target, NUL-terminated: `portable`, a TPU generation (`v4`, `v5e`, `v5p`, `v6e`, `tpu7x`), or a GPU model
    /// (`gh200`, `h100`, `h200`, `a100`, `gb200`, `b200`, `l40`, `l4`, `a10`). For a TPU or a GPU, the function
    /// contains a kernel if there is one for its shape. Null or empty: `portable`, which runs on every plugin.
    pub target: *const c_char,
    /// The name of the function, NUL-terminated: letters, digits, `_`, `$` and `.`, not starting with a digit. Null
    /// or empty: `nucleus_sample`.
    pub name: *const c_char,
    /// The element type of the logits. 0: NUC_DTYPE_F32.
    pub dtype: nuc_dtype,
    /// The path of all rows. NUC_PATH_ARBITRARY accepts every k. NUC_PATH_BOUNDED needs 1 <= k <= max_k in every row
    /// that is not greedy, and no `keep_ties`. 0, NUC_PATH_AUTO: the bounded path if vocab <= max_k and `keep_ties`
    /// is 0, otherwise the arbitrary path.
    pub path: nuc_path,
    /// As in nuc_call_options.
    pub keep_ties: i32,
    /// The NUC_DEBUG_* bits of the debug arrays that the function returns. NUC_DEBUG_K_SLICES needs the bounded path.
    pub debug_arrays: u32,
}
