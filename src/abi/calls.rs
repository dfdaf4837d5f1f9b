//! A sampling call: its raw arguments become a checked batch and its outputs.

use libc::c_void;
use std::mem::MaybeUninit;

use super::arrays::{logits_mut, slice, slice_mut, Regions};
use super::enums::{dtype, flag};
use super::options::default_call_options;
use super::pointers::{bad, check_pointer, Result};
use super::structs::read_struct;
use super::types::*;
use crate::batch::{
    check_vocab, num_elements, resolve_row_stride, Batch, CallOptions, RandomSource, RowArguments,
};
use crate::dtype::{Dtype, Logits};
use crate::outputs::{Outputs, RowArrays};

/// Checks a whole call and makes a problem of it.
///
/// # Safety
/// As the header says of the sampling functions. The result must not outlive the call.
pub(super) unsafe fn call<'a>(
    batch: *const nuc_batch,
    options: *const nuc_call_options,
    tokens: *mut i32,
    row_status: *mut u32,
    debug: *const nuc_debug_arrays,
    max_k: usize,
) -> Result<(Batch<'a>, Outputs<'a>)> {
    // SAFETY: integers and pointers, for which zero is valid.
    let (no_batch, no_debug) = unsafe {
        (
            MaybeUninit::<nuc_batch>::zeroed().assume_init(),
            MaybeUninit::<nuc_debug_arrays>::zeroed().assume_init(),
        )
    };
    // SAFETY: the caller vouches for struct_size, here and below.
    let b = unsafe { read_struct(batch, no_batch)? };
    let options = if options.is_null() {
        default_call_options()
    } else {
        // SAFETY: as above.
        unsafe { read_struct(options, default_call_options())? }
    };
    let d = if debug.is_null() {
        no_debug
    } else {
        // SAFETY: as above.
        unsafe { read_struct(debug, no_debug)? }
    };

    let stable = flag(options.stable, "stable")?;
    if b.reserved != 0 {
        return bad(format!("nuc_batch.reserved is {}; zero the struct before setting fields", b.reserved));
    }
    let dtype = dtype(b.dtype)?;
    check_vocab(b.vocab)?;
    let row_stride = resolve_row_stride(b.row_stride, b.vocab)?;
    let rows = b.batch;
    if rows > 0 {
        check_pointer(b.logits.cast::<u8>(), "logits")?;
        check_pointer(tokens, "tokens")?;
    }
    let has_seed_or_offset = !b.seed.is_null() || !b.offset.is_null();
    if !b.random_words.is_null() && has_seed_or_offset {
        return bad("random_words and seed or offset are both set; set random_words, or seed and offset");
    }

    let elements = num_elements(rows, b.vocab, row_stride);
    let (per_row, per_word) = (Some(rows), rows.checked_mul(4));
    let (wide, slots) = (rows.checked_mul(b.vocab), rows.checked_mul(max_k));

    let mut regions = Regions::default();
    let logits_len = match dtype {
        Dtype::F32 => regions.note(b.logits.cast::<f32>(), elements, "logits", false)?,
        Dtype::Bf16 | Dtype::F16 => regions.note(b.logits.cast::<u16>(), elements, "logits", false)?,
    };
    let k_len = regions.note(b.k, per_row, "k", false)?;
    let p_len = regions.note(b.p, per_row, "p", false)?;
    let min_p_len = regions.note(b.min_p, per_row, "min_p", false)?;
    let temperature_len = regions.note(b.temperature, per_row, "temperature", false)?;
    let words_len = regions.note(b.random_words, per_word, "random_words", false)?;
    let seed_len = regions.note(b.seed, per_row, "seed", false)?;
    let offset_len = regions.note(b.offset, per_row, "offset", false)?;
    let mut note_logits = |pointer: *mut c_void, len, name| match dtype {
        Dtype::F32 => regions.note(pointer.cast::<f32>(), len, name, true),
        Dtype::Bf16 | Dtype::F16 => regions.note(pointer.cast::<u16>(), len, name, true),
    };
    let topk_logits_len = note_logits(d.topk_logits_unsorted, wide, "topk_logits_unsorted")?;
    let topk_logits_k_len = note_logits(d.topk_logits_k, slots, "topk_logits_k")?;
    let tokens_len = regions.note(tokens, per_row, "tokens", true)?;
    let status_len = regions.note(row_status, per_row, "row_status", true)?;
    let greedy_len = regions.note(d.greedy_sampled, per_row, "greedy_sampled", true)?;
    let high_len =
        regions.note(d.random_unnorm_cdf_sampled_high, per_row, "random_unnorm_cdf_sampled_high", true)?;
    let low_len =
        regions.note(d.random_unnorm_cdf_sampled_low, per_row, "random_unnorm_cdf_sampled_low", true)?;
    let next_len = regions.note(d.next_tokens, per_row, "next_tokens", true)?;
    let probs = "topk_topp_unnorm_probs_i32_unsorted";
    let probs_len = regions.note(d.topk_topp_unnorm_probs_i32_unsorted, wide, probs, true)?;
    let indices_k_len = regions.note(d.topk_indices_k, slots, "topk_indices_k", true)?;
    let probs_k_len =
        regions.note(d.topk_topp_unnorm_probs_i32_k, slots, "topk_topp_unnorm_probs_i32_k", true)?;
    regions.check_overlap()?;

    // SAFETY: each pointer with a length is aligned, its size does not overflow, what is written overlaps nothing
    // else, and the caller vouches that the memory is there for the whole call, with no one else writing it.
    unsafe {
        let logits = match dtype {
            Dtype::F32 => Logits::F32(slice(b.logits.cast(), logits_len).unwrap_or(&[])),
            Dtype::Bf16 => Logits::Bf16(slice(b.logits.cast(), logits_len).unwrap_or(&[])),
            Dtype::F16 => Logits::F16(slice(b.logits.cast(), logits_len).unwrap_or(&[])),
        };
        let random = match slice(b.random_words, words_len) {
            Some(words) => RandomSource::Words(words),
            None => {
                RandomSource::Seeds { seed: slice(b.seed, seed_len), offset: slice(b.offset, offset_len) }
            }
        };
        let arguments = RowArguments {
            k: slice(b.k, k_len),
            p: slice(b.p, p_len),
            min_p: slice(b.min_p, min_p_len),
            temperature: slice(b.temperature, temperature_len),
            random,
        };
        let options = CallOptions { stable, replace_val: options.replace_val };
        let batch = Batch::new(logits, rows, b.vocab, row_stride, &arguments, options)?;
        let outputs = Outputs {
            tokens: slice_mut(tokens, tokens_len),
            row_status: slice_mut(row_status, status_len),
            greedy_sampled: slice_mut(d.greedy_sampled, greedy_len),
            random_high: slice_mut(d.random_unnorm_cdf_sampled_high, high_len),
            random_low: slice_mut(d.random_unnorm_cdf_sampled_low, low_len),
            next_tokens: slice_mut(d.next_tokens, next_len),
            wide: RowArrays {
                topk_logits: logits_mut(d.topk_logits_unsorted, topk_logits_len, dtype),
                weights: slice_mut(d.topk_topp_unnorm_probs_i32_unsorted, probs_len),
                indices_k: slice_mut(d.topk_indices_k, indices_k_len),
                topk_logits_k: logits_mut(d.topk_logits_k, topk_logits_k_len, dtype),
                weights_k: slice_mut(d.topk_topp_unnorm_probs_i32_k, probs_k_len),
            },
        };
        Ok((batch, outputs))
    }
}
