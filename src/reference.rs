//! The reference implementation. It sorts whole rows and sums in 128-bit integers, so that a reader can verify it
//! easily.
//!
//! It shares only the definitions of the numbers with the other backends: cleaning, `q` and `W`. It implements the
//! order of top-k, the target of top-p, the kept weights and the remainder independently, so that a comparison is
//! meaningful.

use std::cmp::Reverse;

use crate::batch::{Batch, CallOptions};
use crate::dtype::{Dtype, Logits};
use crate::error::Error;
use crate::memory;
use crate::outputs::{Outputs, RowArrays, RowOutcome, ROW_HAD_INF, ROW_HAD_NAN, ROW_NO_CANDIDATE};
use crate::parallel;
use crate::semantics::arith::Scalar;
use crate::semantics::clean::{clean, is_nan, order_key, NEG_INF_BITS};
use crate::semantics::params::RowParams;
use crate::semantics::weights::{quantize, weight, MAX_WEIGHT};

/// The memory for one row, 17 bytes per element. It can be reused for other rows.
#[derive(Debug)]
pub struct Scratch {
    /// The cleaned logits, as f32 bits.
    cleaned: Vec<i32>,
    /// The indices in the order of top-k.
    order: Vec<u32>,
    /// Whether top-k keeps the entry.
    kept: Vec<bool>,
    weights: Vec<i32>,
    descending: Vec<i32>,
}

impl Scratch {
    /// Memory for rows of `vocab` elements.
    pub fn new(vocab: usize) -> Result<Scratch, Error> {
        const PURPOSE: &str = "a row of the reference";
        Ok(Scratch {
            cleaned: memory::zeroed(vocab, PURPOSE)?,
            order: memory::zeroed(vocab, PURPOSE)?,
            kept: memory::filled(vocab, false, PURPOSE)?,
            weights: memory::zeroed(vocab, PURPOSE)?,
            descending: memory::zeroed(vocab, PURPOSE)?,
        })
    }
}

/// Samples one row and fills the arrays that are wanted. `scratch` has the length of the row.
pub fn sample_row(
    row: Logits<'_>,
    params: &RowParams,
    options: CallOptions,
    arrays: &mut RowArrays<'_>,
    scratch: &mut Scratch,
) -> RowOutcome {
    let dtype = row.dtype();
    let (had_nan, had_inf) = clean_row(row, scratch);
    sort(scratch);
    keep(params, options, scratch);

    let maximum = scratch.order[0] as usize;
    let no_candidate = scratch.cleaned[maximum] == NEG_INF_BITS;
    let greedy_sampled = if no_candidate { -1 } else { maximum as i32 };
    weigh(params, maximum, scratch);
    if !no_candidate {
        top_p(params, scratch);
    }
    scratch.weights.iter_mut().filter(|w| **w < params.min_weight).for_each(|w| *w = 0);
    let (next_token, remainder) = draw(params, &scratch.weights);

    write(row, dtype, dtype.round(options.replace_val), scratch, arrays);
    RowOutcome {
        next_token,
        greedy_sampled,
        random_unnorm_cdf_sampled: remainder,
        status: bit(no_candidate, ROW_NO_CANDIDATE) | bit(had_nan, ROW_HAD_NAN) | bit(had_inf, ROW_HAD_INF),
    }
}

/// `bit` if the condition is true, else 0.
fn bit(condition: bool, bit: u32) -> u32 {
    if condition {
        bit
    } else {
        0
    }
}

/// Cleans every entry. Returns whether the row contains a NaN, and whether it contains a +inf.
fn clean_row(row: Logits<'_>, scratch: &mut Scratch) -> (bool, bool) {
    let (mut had_nan, mut had_inf) = (false, false);
    for (i, slot) in scratch.cleaned.iter_mut().enumerate() {
        let bits = row.dtype().widen(row.bits(i)) as i32;
        had_nan |= is_nan(Scalar, bits);
        had_inf |= f32::from_bits(bits as u32) == f32::INFINITY;
        *slot = clean(Scalar, bits);
    }
    (had_nan, had_inf)
}

/// Orders the entries: value descending, then index ascending.
fn sort(scratch: &mut Scratch) {
    let Scratch { cleaned, order, .. } = scratch;
    order.iter_mut().enumerate().for_each(|(i, slot)| *slot = i as u32);
    // All keys are different, so every sort has the same result. An unstable sort allocates nothing.
    order.sort_unstable_by_key(|&i| (Reverse(order_key(Scalar, cleaned[i as usize])), i));
}

/// Marks the entries that top-k keeps.
fn keep(params: &RowParams, options: CallOptions, scratch: &mut Scratch) {
    let Scratch { cleaned, order, kept, .. } = scratch;
    let k = if params.k == 0 { order.len() } else { params.k as usize };
    let threshold = cleaned[order[k - 1] as usize];
    for (rank, &i) in order.iter().enumerate() {
        let i = i as usize;
        kept[i] = rank < k || (!options.stable && cleaned[i] == threshold);
    }
}

/// Computes the weights of the entries that top-k kept.
fn weigh(params: &RowParams, maximum: usize, scratch: &mut Scratch) {
    let Scratch { cleaned, kept, weights, .. } = scratch;
    let largest = f32::from_bits(cleaned[maximum] as u32);
    for (i, slot) in weights.iter_mut().enumerate() {
        *slot = match cleaned[i] {
            _ if !kept[i] => 0,
            NEG_INF_BITS => 0,
            _ if params.greedy && i == maximum => MAX_WEIGHT,
            _ if params.greedy => 0,
            bits => weight(Scalar, quantize(Scalar, largest, f32::from_bits(bits as u32), params.scale)),
        };
    }
}

/// Sets the weights that top-p does not keep to 0. At least one weight is not 0.
fn top_p(params: &RowParams, scratch: &mut Scratch) {
    if params.top_p.mantissa == 0 {
        return;
    }
    let Scratch { weights, descending, .. } = scratch;
    let total: u128 = weights.iter().map(|&w| w as u128).sum();
    let product = params.top_p.mantissa as u128 * total;
    let target = product.div_ceil(1 << (24 + params.top_p.shift)).max(1);
    descending.copy_from_slice(weights);
    descending.sort_unstable_by_key(|&w| Reverse(w));
    let mut sum = 0u128;
    let threshold = *descending
        .iter()
        .find(|&&w| {
            sum += w as u128;
            sum >= target
        })
        .expect("the target is at most the total");
    weights.iter_mut().filter(|w| **w < threshold).for_each(|w| *w = 0);
}

/// The token, and the random number modulo the total of the weights.
fn draw(params: &RowParams, weights: &[i32]) -> (i32, u64) {
    let total: u128 = weights.iter().map(|&w| w as u128).sum();
    let number = params.words.iter().fold(0u128, |number, &word| number << 32 | u128::from(word));
    let remainder = if total == 0 { 0 } else { number % total };
    let mut sum = 0u128;
    let token = weights.iter().position(|&w| {
        sum += w as u128;
        sum > remainder
    });
    (token.map_or(-1, |i| i as i32), remainder as u64)
}

fn write(row: Logits<'_>, dtype: Dtype, replace: u32, scratch: &Scratch, arrays: &mut RowArrays<'_>) {
    let Scratch { kept, weights, .. } = scratch;
    if let Some(out) = &mut arrays.topk_logits {
        for (i, &kept) in kept.iter().enumerate() {
            out.set(i, if kept { dtype.clean(row.bits(i)) } else { replace });
        }
    }
    if let Some(out) = &mut arrays.weights {
        out.copy_from_slice(weights);
    }
    let mut kept_indices = (0..row.len()).filter(|&i| kept[i]);
    for slot in 0..arrays.slots() {
        match kept_indices.next() {
            Some(i) => arrays.set_slot(slot, i as i32, dtype.clean(row.bits(i)), weights[i]),
            None => arrays.set_slot(slot, -1, replace, 0),
        }
    }
}

/// Calls [`sample_row`] for every row of a batch, on several threads. Fills every output that is wanted, or returns
/// an error and writes none.
pub fn sample_batch(batch: &Batch<'_>, outputs: &mut Outputs<'_>) -> Result<(), Error> {
    // Everything that can fail runs before the first write. If a helper's scratch cannot be allocated, the call only
    // takes longer.
    let mut outcomes = memory::filled(batch.len(), RowOutcome::default(), "the outcomes of the rows")?;
    let own = Scratch::new(batch.vocab())?;
    let helpers = (1..parallel::num_threads(batch.len())).map_while(|_| Scratch::new(batch.vocab()).ok());
    let helpers: Vec<Scratch> = helpers.collect();
    let mut arrays = outputs.take_rows(batch.len())?;
    let rows = outcomes.iter_mut().zip(&mut arrays).enumerate();
    parallel::for_each_with(rows, own, helpers, |scratch, (row, (outcome, arrays))| {
        *outcome = sample_row(batch.row(row), &batch.rows()[row], batch.options(), arrays, scratch);
        Ok(())
    })?;
    outputs.set_outcomes(&outcomes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_does_not_fit_into_memory_is_an_error() {
        assert!(matches!(Scratch::new(usize::MAX / 8).unwrap_err(), Error::OutOfMemory(_)));
    }
}
