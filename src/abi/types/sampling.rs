//! Sampling: batches of logits, their parameters, and the functions that choose tokens.

use libc::c_void;

/// The element type of a logits array.
pub type nuc_dtype = i32;

/// IEEE 754 binary32, 4 bytes per element.
pub const NUC_DTYPE_F32: nuc_dtype = 0;
/// bfloat16, 2 bytes per element.
pub const NUC_DTYPE_BF16: nuc_dtype = 1;
/// IEEE 754 binary16, 2 bytes per element.
pub const NUC_DTYPE_F16: nuc_dtype = 2;

/// A sampling function, for nuc_sample_flat, nuc_prewarm and nuc_compile_ahead.
pub type nuc_path = i32;

/// nuc_topk_topp_and_sample.
pub const NUC_PATH_AUTO: nuc_path = 0;
/// nuc_arbitrary_topk_topp_and_sample.
pub const NUC_PATH_ARBITRARY: nuc_path = 1;
/// nuc_bounded_topk_topp_and_sample.
pub const NUC_PATH_BOUNDED: nuc_path = 2;

/// A bit of `row_status`: the row has no finite candidate, because every logit is -inf or NaN. The row's token is -1.
pub const NUC_ROW_NO_CANDIDATE: u32 = 1;
/// A bit of `row_status`: the row contains a NaN, which counted as -inf. The token is valid unless
/// NUC_ROW_NO_CANDIDATE is also set.
pub const NUC_ROW_HAD_NAN: u32 = 2;
/// A bit of `row_status`: the row contains a +inf, which counted as the largest finite f32. The token is valid, but a
/// +inf usually means that the program that computed the logits has a defect.
pub const NUC_ROW_HAD_INF: u32 = 4;
/// A bit of `row_status`: a parameter of the row is impossible, so the row was not sampled. No other bit is set.
///
/// The impossible parameters are a NaN in `top_p` or `min_p`, a `temperature` that is negative, infinite or NaN, and,
/// on the bounded path or with k-slices, a `top_k` that does not fit max_k. The row's token, `greedy_sampled` and
/// `next_tokens` are -1, its weights and its r are 0, its logits are `replace_val`, and its slots are unused. The other
/// rows are sampled. Without `row_status`, the whole call fails with NUC_INVALID_ARGUMENT.
pub const NUC_ROW_BAD_PARAMETER: u32 = 8;

/// A batch of logits, and the sampling parameters of its rows.
///
/// Initialize the struct with NUC_BATCH_INIT, then set at least `logits`, `num_rows` and `vocab`. The caller owns the
/// struct and all of its arrays. A call reads them and keeps no pointer to them. No thread may write them during the
/// call.
///
/// Every parameter array has `num_rows` elements unless its comment says otherwise. If an array is null, every row has
/// the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_batch {
    /// `sizeof(nuc_batch)`, in the caller's version of this header.
    pub struct_size: usize,
    /// The logits, `[num_rows, vocab]`, row-major, aligned to their element type. Every value is allowed: a NaN counts
    /// as -inf and sets NUC_ROW_HAD_NAN, +inf counts as the largest finite f32 and sets NUC_ROW_HAD_INF, and -0 and f32
    /// subnormals count as +0. The built-in backend is up to 5% faster if each row starts at a multiple of 64 bytes.
    pub logits: *const c_void,
    /// The element type of `logits`. 0: NUC_DTYPE_F32.
    pub dtype: nuc_dtype,
    /// Must be zero.
    pub reserved: i32,
    /// The number of rows. With 0 rows, the call writes no output. The library still checks the other arguments.
    pub num_rows: usize,
    /// The number of elements per row, 1 to 16777216.
    pub vocab: usize,
    /// The distance between the starts of two rows, in elements: at least `vocab`. 0: `vocab`. Elements between two
    /// rows are ignored, but all `(num_rows - 1) * row_stride + vocab` elements must be readable memory.
    pub row_stride: usize,
    /// Top-k: exactly k entries survive; the lower index wins a tie. k <= 0 or k >= vocab: off. Default: off.
    pub top_k: *const i32,
    /// Top-p: entries survive in descending order of weight until the sum of their weights is at least p times the
    /// total weight. Entries whose weight equals that of the last of these entries also survive. The total weight is
    /// the sum over the entries that top-k kept. p >= 1: off. p <= 0: only the maximum and its ties survive. A NaN is
    /// impossible: see NUC_ROW_BAD_PARAMETER. Default: off.
    pub top_p: *const f32,
    /// Min-p: entries whose weight is at least min_p times the largest weight survive. min_p <= 0: off. A value above 1
    /// counts as 1. A NaN is impossible: see NUC_ROW_BAD_PARAMETER. Default: off.
    pub min_p: *const f32,
    /// The temperature T, finite and at least 0; other values are impossible: see NUC_ROW_BAD_PARAMETER. If T is below
    /// 1e-5 (rounded to f32), the row is greedy: its token is the maximum. Otherwise, a token whose logit is more than
    /// 20.102 * T below the maximum has the weight 0 and is never drawn. Default: 1.
    pub temperature: *const f32,
    /// The random words, `[num_rows][4]`: one 128-bit number per row, the most significant word first. The draw uses
    /// this number. Null: the words are computed from `seed` and `offset`.
    pub random_words: *const u32,
    /// The seed of the row's random words, which are Philox4x32-10 with key = seed and counter = (offset, 0). Give each
    /// request its own seed: rows with equal seed and offset use the same random number. Default: 0. Must be null if
    /// `random_words` is not.
    pub seed: *const u64,
    /// The offset of the row's random words. The same seed and offset produce the same random words, so change the
    /// offset at every step, for example to the number of the step. Default: 0. Must be null if `random_words` is not.
    pub offset: *const u64,
}

/// Options of one sampling call, for all of its rows. A field that is zero has its default. A null pointer to this
/// struct means all defaults. The caller owns the struct.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nuc_call_options {
    /// `sizeof(nuc_call_options)`, in the caller's version of this header.
    pub struct_size: usize,
    /// 0: top-k keeps exactly k entries; the lower index wins a tie at the threshold. 1: top-k keeps every entry that
    /// ties with the threshold, which can be more than k.
    pub keep_ties: i32,
    /// 1: use `replace_val`. 0: use -1e12; `replace_val` must then be 0.
    pub use_replace_val: i32,
    /// The value of `topk_logits_unsorted` where top-k removed the entry, rounded to the type of the logits. Must not
    /// be NaN.
    pub replace_val: f32,
    /// Must be zero.
    pub reserved: i32,
}
