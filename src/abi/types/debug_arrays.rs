//! Debug arrays: the intermediate results of a call, for validation. They are bit-identical on every backend.

use libc::c_void;

/// The intermediate arrays of a sampling call.
///
/// Initialize the struct with NUC_DEBUG_ARRAYS_INIT, then point the fields that you want to your own arrays. The
/// library does not compute an array whose field is null. It writes the arrays only if the call succeeds. The arrays
/// must not overlap any other memory that the call receives.
///
/// The k-slices (`topk_indices_k`, `topk_logits_k`, `topk_topp_unnorm_probs_i32_k`) belong to the bounded path. If you
/// request one, every row needs 1 <= k <= max_k, or vocab <= max_k. nuc_arbitrary_topk_topp_and_sample does not accept
/// them. A row's slots contain the entries that top-k kept, in ascending order of index. With `keep_ties` the kept
/// entries can outnumber the slots; the slots then contain the first max_k of them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_debug_arrays {
    /// `sizeof(nuc_debug_arrays)`, in the caller's version of this header.
    pub struct_size: usize,
    /// `[num_rows]`: the lowest index of the row's maximum; -1 if there is no candidate.
    pub greedy_sampled: *mut i32,
    /// `[num_rows, vocab]`, dense, of the type of the logits: the cleaned logit if top-k kept the entry, else
    /// `replace_val`. In bf16 and f16 a +inf stays +inf, because the largest finite f32 rounds to it.
    pub topk_logits_unsorted: *mut c_void,
    /// `[num_rows, vocab]`, dense: the integer weight, 0 to 2^28, if top-k, top-p and min-p kept the entry, else 0. The
    /// total of a row is at most 2^52, so it is exact in a double.
    pub topk_topp_unnorm_probs_i32_unsorted: *mut i32,
    /// `[num_rows]`: bits 32 to 63 of r, the random number modulo the total of the kept weights.
    pub random_unnorm_cdf_sampled_high: *mut u32,
    /// `[num_rows]`: bits 0 to 31 of r.
    pub random_unnorm_cdf_sampled_low: *mut u32,
    /// `[num_rows]`: the lowest index whose inclusive prefix sum of kept weights exceeds r; -1 if there is no
    /// candidate.
    pub next_tokens: *mut i32,
    /// `[num_rows, max_k]`, also if `vocab` is less than `max_k`: the indices that top-k kept, ascending; -1 in unused
    /// slots. The results of a call on the device are `[num_rows, min(max_k, vocab)]`.
    pub topk_indices_k: *mut i32,
    /// `[num_rows, max_k]`, of the type of the logits: `topk_logits_unsorted` at those indices; `replace_val` in unused
    /// slots.
    pub topk_logits_k: *mut c_void,
    /// `[num_rows, max_k]`: `topk_topp_unnorm_probs_i32_unsorted` at those indices; 0 in unused slots.
    pub topk_topp_unnorm_probs_i32_k: *mut i32,
}

/// A bit of the field `debug_arrays` of nuc_prewarm_spec and nuc_compile_ahead_options: calls will request
/// `topk_logits_unsorted`.
pub const NUC_DEBUG_TOPK_LOGITS: u32 = 1;
/// A bit of the field `debug_arrays`: calls will request `topk_topp_unnorm_probs_i32_unsorted`.
pub const NUC_DEBUG_TOPK_TOPP_PROBS: u32 = 2;
/// A bit of the field `debug_arrays`: calls will request one or more k-slices.
pub const NUC_DEBUG_K_SLICES: u32 = 4;
