//! Sampling calls: turns raw arguments into a checked batch and its outputs.

use super::arrays::{Array, LogitsArray};
use super::enums::{check_reserved, dtype};
use super::guard::guard;
use super::handle;
use super::memory::Memory;
use super::options::call_options;
use super::pointers::{check_pointer, Result};
use super::structs::{initialized, read_struct};
use super::types::*;
use crate::batch::{
    check_vocab, num_elements, resolve_row_stride, Batch, CallOptions, RandomSource, RowArguments,
};
use crate::dtype::{Dtype, Logits};
use crate::outputs::{Outputs, RowArrays};
use crate::plan::Entry;
use crate::semantics::rules;

// The status bits of the header must equal the status bits of the rules.
const _: () = {
    assert!(NUC_ROW_NO_CANDIDATE == rules::ROW_NO_CANDIDATE);
    assert!(NUC_ROW_HAD_NAN == rules::ROW_HAD_NAN);
    assert!(NUC_ROW_HAD_INF == rules::ROW_HAD_INF);
    assert!(NUC_ROW_BAD_PARAMETER == rules::ROW_BAD_PARAMETER);
};

/// The arguments of a sampling function.
pub(super) struct Call {
    pub(super) sampler: *const nuc_sampler,
    pub(super) batch: *const nuc_batch,
    pub(super) options: *const nuc_call_options,
    pub(super) tokens: *mut i32,
    pub(super) row_status: *mut u32,
    pub(super) debug: *const nuc_debug_arrays,
    pub(super) error: *mut nuc_error,
}

impl Call {
    /// # Safety
    /// As for the sampling functions in the header.
    pub(super) unsafe fn run(self, entry: Result<Entry>) -> nuc_status {
        let body = |memory: &mut Memory| {
            let entry = entry?;
            // SAFETY: the caller guarantees the handle and the memory behind every pointer for the whole call.
            let (sampler, (batch, mut outputs)) = unsafe {
                let sampler = handle::borrow(self.sampler)?.sampler();
                (sampler, self.checked(memory, sampler.max_k())?)
            };
            sampler.sample(entry, &batch, &mut outputs)
        };
        // SAFETY: the caller guarantees `error`.
        unsafe { guard(self.error, body) }
    }

    /// Checks every argument except the parameters of the rows, which [`Batch::new`] checks.
    ///
    /// # Safety
    /// The structs are readable. During `'a`, nothing writes the arrays of the batch, and nothing else accesses the
    /// arrays of the results.
    unsafe fn checked<'a>(&self, memory: &mut Memory, max_k: usize) -> Result<(Batch<'a>, Outputs<'a>)> {
        // SAFETY: the caller guarantees the structs.
        let (batch, options, debug) = unsafe {
            (
                read_struct(memory, self.batch)?,
                call_options(memory, self.options)?,
                match self.debug.is_null() {
                    true => initialized(),
                    false => read_struct(memory, self.debug)?,
                },
            )
        };
        let shape = Shape::new(&batch, max_k)?;
        if shape.rows > 0 {
            check_pointer(batch.logits.cast::<u8>(), "logits")?;
            check_pointer(self.tokens, "tokens")?;
        }
        let inputs = Inputs::new(memory, &batch, &shape)?;
        let results = Results::new(memory, self.tokens, self.row_status, &debug, &shape)?;
        memory.check_overlap()?;
        // SAFETY: the overlap check has passed, and the caller guarantees the memory for the whole call.
        unsafe { Ok((inputs.batch(&shape, options)?, results.outputs())) }
    }
}

/// The checked shape of a call.
pub(super) struct Shape {
    pub(super) dtype: Dtype,
    pub(super) rows: usize,
    pub(super) vocab: usize,
    row_stride: usize,
    max_k: usize,
}

impl Shape {
    pub(super) fn new(batch: &nuc_batch, max_k: usize) -> Result<Shape> {
        check_reserved(batch.reserved, "reserved", "nuc_batch.reserved")?;
        check_vocab(batch.vocab)?;
        Ok(Shape {
            dtype: dtype(batch.dtype)?,
            rows: batch.num_rows,
            vocab: batch.vocab,
            row_stride: resolve_row_stride(batch.row_stride, batch.vocab)?,
            max_k,
        })
    }

    /// The length of an array with `width` elements per row; `None` if it overflows.
    fn elements(&self, width: usize) -> Option<usize> {
        self.rows.checked_mul(width)
    }
}

/// The arrays that a call reads.
pub(super) struct Inputs {
    logits: LogitsArray,
    top_k: Array<i32>,
    top_p: Array<f32>,
    min_p: Array<f32>,
    temperature: Array<f32>,
    random_words: Array<u32>,
    seed: Array<u64>,
    offset: Array<u64>,
}

impl Inputs {
    pub(super) fn new(memory: &mut Memory, batch: &nuc_batch, shape: &Shape) -> Result<Inputs> {
        let has_seed_or_offset = !batch.seed.is_null() || !batch.offset.is_null();
        RandomSource::check_only_one(!batch.random_words.is_null(), has_seed_or_offset)?;
        let elements = num_elements(shape.rows, shape.vocab, shape.row_stride);
        let per_row = Some(shape.rows);
        Ok(Inputs {
            logits: LogitsArray::read(memory, "logits", batch.logits, elements, shape.dtype)?,
            top_k: Array::read(memory, "top_k", batch.top_k, per_row)?,
            top_p: Array::read(memory, "top_p", batch.top_p, per_row)?,
            min_p: Array::read(memory, "min_p", batch.min_p, per_row)?,
            temperature: Array::read(memory, "temperature", batch.temperature, per_row)?,
            random_words: Array::read(memory, "random_words", batch.random_words, shape.elements(4))?,
            seed: Array::read(memory, "seed", batch.seed, per_row)?,
            offset: Array::read(memory, "offset", batch.offset, per_row)?,
        })
    }

    /// # Safety
    /// As for [`Array::get`].
    unsafe fn batch<'a>(self, shape: &Shape, options: CallOptions) -> Result<Batch<'a>> {
        // SAFETY: the same contract.
        let (logits, arguments) = unsafe { self.get() };
        Batch::new(logits, shape.rows, shape.vocab, shape.row_stride, &arguments, options)
    }

    /// The logits and the parameters of the rows.
    ///
    /// # Safety
    /// As for [`Array::get`].
    pub(super) unsafe fn get<'a>(self) -> (Logits<'a>, RowArguments<'a>) {
        // SAFETY: the same contract.
        unsafe {
            let random = match self.random_words.get() {
                Some(words) => RandomSource::Words(words),
                None => RandomSource::Seeds { seed: self.seed.get(), offset: self.offset.get() },
            };
            let (k, p) = (self.top_k.get(), self.top_p.get());
            let (min_p, temperature) = (self.min_p.get(), self.temperature.get());
            (self.logits.get(), RowArguments { k, p, min_p, temperature, random })
        }
    }
}

/// The arrays that a call writes.
struct Results {
    tokens: Array<i32>,
    row_status: Array<u32>,
    greedy_sampled: Array<i32>,
    topk_logits: LogitsArray,
    weights: Array<i32>,
    random_high: Array<u32>,
    random_low: Array<u32>,
    next_tokens: Array<i32>,
    indices_k: Array<i32>,
    topk_logits_k: LogitsArray,
    weights_k: Array<i32>,
}

impl Results {
    fn new(
        memory: &mut Memory,
        tokens: *mut i32,
        row_status: *mut u32,
        debug: &nuc_debug_arrays,
        shape: &Shape,
    ) -> Result<Results> {
        let (per_row, wide, slots) =
            (Some(shape.rows), shape.elements(shape.vocab), shape.elements(shape.max_k));
        let (high, low) = (debug.random_unnorm_cdf_sampled_high, debug.random_unnorm_cdf_sampled_low);
        let weights = debug.topk_topp_unnorm_probs_i32_unsorted;
        let weights_k = debug.topk_topp_unnorm_probs_i32_k;
        let (logits, logits_k) = (debug.topk_logits_unsorted, debug.topk_logits_k);
        Ok(Results {
            tokens: Array::written(memory, "tokens", tokens, per_row)?,
            row_status: Array::written(memory, "row_status", row_status, per_row)?,
            greedy_sampled: Array::written(memory, "greedy_sampled", debug.greedy_sampled, per_row)?,
            topk_logits: LogitsArray::written(memory, "topk_logits_unsorted", logits, wide, shape.dtype)?,
            weights: Array::written(memory, "topk_topp_unnorm_probs_i32_unsorted", weights, wide)?,
            random_high: Array::written(memory, "random_unnorm_cdf_sampled_high", high, per_row)?,
            random_low: Array::written(memory, "random_unnorm_cdf_sampled_low", low, per_row)?,
            next_tokens: Array::written(memory, "next_tokens", debug.next_tokens, per_row)?,
            indices_k: Array::written(memory, "topk_indices_k", debug.topk_indices_k, slots)?,
            topk_logits_k: LogitsArray::written(memory, "topk_logits_k", logits_k, slots, shape.dtype)?,
            weights_k: Array::written(memory, "topk_topp_unnorm_probs_i32_k", weights_k, slots)?,
        })
    }

    /// # Safety
    /// As for [`Array::get_mut`].
    unsafe fn outputs<'a>(self) -> Outputs<'a> {
        // SAFETY: the same contract.
        unsafe {
            Outputs {
                tokens: self.tokens.get_mut(),
                row_status: self.row_status.get_mut(),
                greedy_sampled: self.greedy_sampled.get_mut(),
                random_high: self.random_high.get_mut(),
                random_low: self.random_low.get_mut(),
                next_tokens: self.next_tokens.get_mut(),
                wide: RowArrays {
                    topk_logits: self.topk_logits.get_mut(),
                    weights: self.weights.get_mut(),
                    indices_k: self.indices_k.get_mut(),
                    topk_logits_k: self.topk_logits_k.get_mut(),
                    weights_k: self.weights_k.get_mut(),
                },
            }
        }
    }
}
