//! The sampling functions.

use std::ptr::null;

use libc::c_void;

use crate::abi::calls::Call;
use crate::abi::enums::entry;
use crate::abi::structs::initialized;
use crate::abi::types::*;
use crate::plan::Entry;

/// Chooses the next token of every row: cleans the logits, applies top-k, temperature, top-p and min-p, and draws.
///
/// `tokens` `[num_rows]` receives the token of each row, or -1 if the row has none (see `row_status`). It must not be
/// null unless `num_rows` is 0. `row_status` `[num_rows]` receives the NUC_ROW_* bits of each row; it may be null.
/// `options` may be null, which means all defaults. `debug` may be null, which means no intermediate arrays.
///
/// With `row_status`, an impossible parameter affects only its own row: see NUC_ROW_BAD_PARAMETER. Without it, the call
/// returns NUC_INVALID_ARGUMENT, and `error` names the argument and the row. A row in which all logits are NaN or -inf
/// does not fail the call: its token is -1.
///
/// The function selects a path for each row. Rows with 1 <= k <= max_k use the bounded path. Greedy rows also use it,
/// unless a debug array shows what top-k keeps. Other rows use the arbitrary path, so one row with a large k does not
/// slow down the others. With `keep_ties` on a plugin, every row uses the arbitrary path. A row's token depends only on
/// its own logits, parameters and random words. It does not depend on the path, the other rows of the batch, or the
/// backend. If the call requests k-slices, a row is sampled only if 1 <= top_k <= max_k or vocab <= max_k. Other rows
/// get NUC_ROW_BAD_PARAMETER.
///
/// The caller owns all memory; the library keeps no pointer to it. Memory that the call writes must not overlap any
/// other memory that the call receives, including the structs and `error`. Any number of threads may call this function
/// with the same sampler.
///
/// Errors: NUC_INVALID_ARGUMENT; NUC_OUT_OF_MEMORY; and on a plugin NUC_DEVICE_ERROR and NUC_INTERNAL. A call that
/// fails writes no output.
///
/// # Safety
/// `sampler` is a live handle. Every other pointer is null or points to as much memory as its shape requires, and no
/// other thread writes that memory during the call.
#[no_mangle]
pub unsafe extern "C" fn nuc_topk_topp_and_sample(
    sampler: *const nuc_sampler,
    batch: *const nuc_batch,
    options: *const nuc_call_options,
    tokens: *mut i32,
    row_status: *mut u32,
    debug: *const nuc_debug_arrays,
    error: *mut nuc_error,
) -> nuc_status {
    // SAFETY: the same contract.
    unsafe { Call { sampler, batch, options, tokens, row_status, debug, error }.run(Ok(Entry::Automatic)) }
}

/// Like nuc_topk_topp_and_sample, but every row uses the arbitrary path. It searches thresholds over the whole row and
/// accepts every k. It does not accept k-slices. Ownership, thread-safety and errors are the same.
///
/// # Safety
/// As for nuc_topk_topp_and_sample.
#[no_mangle]
pub unsafe extern "C" fn nuc_arbitrary_topk_topp_and_sample(
    sampler: *const nuc_sampler,
    batch: *const nuc_batch,
    options: *const nuc_call_options,
    tokens: *mut i32,
    row_status: *mut u32,
    debug: *const nuc_debug_arrays,
    error: *mut nuc_error,
) -> nuc_status {
    // SAFETY: the same contract.
    unsafe { Call { sampler, batch, options, tokens, row_status, debug, error }.run(Ok(Entry::Arbitrary)) }
}

/// Like nuc_topk_topp_and_sample, but every row uses the bounded path, which first reduces the row to max_k candidates.
/// Every row, also a greedy one, needs 1 <= k <= max_k, or vocab <= max_k; another k is impossible: see
/// NUC_ROW_BAD_PARAMETER. With `keep_ties` the kept entries can outnumber max_k, so the rows of a sampler with a plugin
/// then use the arbitrary path. Ownership, thread-safety and errors are the same.
///
/// # Safety
/// As for nuc_topk_topp_and_sample.
#[no_mangle]
pub unsafe extern "C" fn nuc_bounded_topk_topp_and_sample(
    sampler: *const nuc_sampler,
    batch: *const nuc_batch,
    options: *const nuc_call_options,
    tokens: *mut i32,
    row_status: *mut u32,
    debug: *const nuc_debug_arrays,
    error: *mut nuc_error,
) -> nuc_status {
    // SAFETY: the same contract.
    unsafe { Call { sampler, batch, options, tokens, row_status, debug, error }.run(Ok(Entry::Bounded)) }
}

/// Like nuc_topk_topp_and_sample, but sorts each row on the CPU and sums in 128-bit integers. It is slow, but simple
/// enough to serve as the reference for the other functions. It works with a sampler of any backend and does not use
/// the sampler's device. Ownership, thread-safety and errors are the same. Each working thread needs 17 bytes of memory
/// per element of a row.
///
/// # Safety
/// As for nuc_topk_topp_and_sample.
#[no_mangle]
pub unsafe extern "C" fn nuc_reference_topk_topp_and_sample(
    sampler: *const nuc_sampler,
    batch: *const nuc_batch,
    options: *const nuc_call_options,
    tokens: *mut i32,
    row_status: *mut u32,
    debug: *const nuc_debug_arrays,
    error: *mut nuc_error,
) -> nuc_status {
    // SAFETY: the same contract.
    unsafe { Call { sampler, batch, options, tokens, row_status, debug, error }.run(Ok(Entry::Reference)) }
}

/// Runs the sampling function that `path` selects. This function takes plain arguments instead of structs. It is for
/// languages that cannot pass a struct with pointers, for example Go with cgo. Each argument has the meaning of the
/// field of the same name in nuc_batch or nuc_call_options. `replace_val` and the debug arrays are not available.
/// `error` need not contain a pointer, because its `full_message` may be null. Ownership, thread-safety and errors are
/// those of the other sampling functions.
///
/// # Safety
/// As for nuc_topk_topp_and_sample.
#[no_mangle]
#[allow(clippy::too_many_arguments)] // The purpose of this function is to avoid structs.
pub unsafe extern "C" fn nuc_sample_flat(
    sampler: *const nuc_sampler,
    path: nuc_path,
    logits: *const c_void,
    dtype: nuc_dtype,
    num_rows: usize,
    vocab: usize,
    row_stride: usize,
    top_k: *const i32,
    top_p: *const f32,
    min_p: *const f32,
    temperature: *const f32,
    random_words: *const u32,
    seed: *const u64,
    offset: *const u64,
    keep_ties: i32,
    tokens: *mut i32,
    row_status: *mut u32,
    error: *mut nuc_error,
) -> nuc_status {
    let batch = nuc_batch {
        logits,
        dtype,
        num_rows,
        vocab,
        row_stride,
        top_k,
        top_p,
        min_p,
        temperature,
        random_words,
        seed,
        offset,
        ..initialized()
    };
    let options = nuc_call_options { keep_ties, ..initialized() };
    let call = Call { sampler, batch: &batch, options: &options, tokens, row_status, debug: null(), error };
    // SAFETY: the caller guarantees the arrays, and the structs are local.
    unsafe { call.run(entry(path)) }
}
