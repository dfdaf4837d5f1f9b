//! The ground truth: sorts whole rows and counts in 128-bit integers, so that it is plainly right.
//!
//! It shares with the other backends only what defines the numbers (cleaning, `q`, `W`); the top-k order, the
//! nucleus target and the remainder are computed another way here.

use std::cmp::Reverse;

use crate::batch::{Batch, CallOptions};
use crate::dtype::Logits;
use crate::outputs::{Outputs, RowArrays, RowOutcome, ROW_HAD_NAN, ROW_NO_CANDIDATE};
use crate::semantics::arith::Scalar;
use crate::semantics::clean::{clean, is_nan, order_key, NEG_INF_BITS};
use crate::semantics::params::RowParams;
use crate::semantics::weights::{quantize, weight, MAX_WEIGHT};

/// Samples one row and fills the arrays that are wanted.
pub fn sample_row(
    row: Logits<'_>,
    params: &RowParams,
    options: CallOptions,
    arrays: &mut RowArrays<'_>,
) -> RowOutcome {
    let dtype = row.dtype();
    let raw: Vec<i32> = (0..row.len()).map(|i| dtype.widen(row.bits(i)) as i32).collect();
    let cleaned: Vec<i32> = raw.iter().map(|&bits| clean(Scalar, bits)).collect();
    let key = |i: usize| order_key(Scalar, cleaned[i]);

    // Value descending, index ascending.
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by_key(|&i| (Reverse(key(i)), i));

    let no_candidate = cleaned[order[0]] == NEG_INF_BITS;
    let greedy_sampled = if no_candidate { -1 } else { order[0] as i32 };

    let k = if params.k == 0 { row.len() } else { params.k as usize };
    let least = key(order[k - 1]);
    let mut kept = vec![false; row.len()];
    for (rank, &i) in order.iter().enumerate() {
        kept[i] = rank < k || (!options.stable && key(i) == least);
    }

    let max = f32::from_bits(cleaned[order[0]] as u32);
    let mut weights: Vec<i32> = (0..row.len())
        .map(|i| {
            if !kept[i] || cleaned[i] == NEG_INF_BITS {
                0
            } else if params.greedy {
                if i as i32 == greedy_sampled {
                    MAX_WEIGHT
                } else {
                    0
                }
            } else {
                weight(Scalar, quantize(Scalar, max, f32::from_bits(cleaned[i] as u32), params.scale))
            }
        })
        .collect();

    if params.top_p.mantissa != 0 && !no_candidate {
        let total: u128 = weights.iter().map(|&w| w as u128).sum();
        let product = params.top_p.mantissa as u128 * total;
        let target = product.div_ceil(1 << (24 + params.top_p.shift)).max(1);
        let mut descending = weights.clone();
        descending.sort_by_key(|&w| Reverse(w));
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
    weights.iter_mut().filter(|w| **w < params.min_weight).for_each(|w| *w = 0);

    let total: u128 = weights.iter().map(|&w| w as u128).sum();
    let u = params.words.iter().fold(0u128, |u, &word| u << 32 | u128::from(word));
    let remainder = if total == 0 { 0 } else { u % total };
    let mut sum = 0u128;
    let next_token = weights
        .iter()
        .position(|&w| {
            sum += w as u128;
            sum > remainder
        })
        .map_or(-1, |i| i as i32);

    let replace = dtype.round(options.replace_val);
    if let Some(out) = &mut arrays.topk_logits {
        for (i, &kept) in kept.iter().enumerate() {
            out.set(i, if kept { dtype.clean(row.bits(i)) } else { replace });
        }
    }
    if let Some(out) = &mut arrays.weights {
        out.copy_from_slice(&weights);
    }
    let mut kept_indices = (0..row.len()).filter(|&i| kept[i]);
    for slot in 0..arrays.slots() {
        match kept_indices.next() {
            Some(i) => arrays.set_slot(slot, i as i32, dtype.clean(row.bits(i)), weights[i]),
            None => arrays.set_slot(slot, -1, replace, 0),
        }
    }

    let had_nan = raw.iter().any(|&bits| is_nan(Scalar, bits));
    RowOutcome {
        next_token,
        greedy_sampled,
        random_unnorm_cdf_sampled: remainder as u64,
        status: if no_candidate { ROW_NO_CANDIDATE } else { 0 } | if had_nan { ROW_HAD_NAN } else { 0 },
    }
}

/// [`sample_row`] over a batch, rows spread over threads of this call; fills every output that is wanted.
pub fn sample_batch(batch: &Batch<'_>, outputs: &mut Outputs<'_>) {
    let mut outcomes = vec![RowOutcome::default(); batch.len()];
    let mut arrays = outputs.take_rows(batch.len());
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let share = batch.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let shares = outcomes.chunks_mut(share).zip(arrays.chunks_mut(share)).enumerate();
        for (i, (outcomes, arrays)) in shares {
            let work = move || {
                for (j, (outcome, arrays)) in outcomes.iter_mut().zip(arrays).enumerate() {
                    let row = i * share + j;
                    *outcome = sample_row(batch.row(row), &batch.rows()[row], batch.options(), arrays);
                }
            };
            if batch.len() == 1 {
                work();
            } else {
                scope.spawn(work);
            }
        }
    });
    outputs.set_outcomes(&outcomes);
}
