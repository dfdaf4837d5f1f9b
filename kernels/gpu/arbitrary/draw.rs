//! The last kernel: the draw, and the results of each row.

use super::division::Division;
use super::records::{Records, Scanned, NARROWED, WIDE};
use super::row_block::RowBlock;
use super::top_p::{self, RowArrays};
use super::weigh::{has_top_p, is_drawn};
use crate::kernels::gpu::layout::LARGEST_VOCAB;
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::gpu::results::{Results, Threshold};
use crate::kernels::program_arrays::{Column, ResultRow};
use crate::kernels::spec::Spec;
use crate::ptx::{Ptx, Wide, WARP};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::order_key;
use crate::semantics::draw::remainder_by_digits;
use crate::semantics::rules::{has_no_candidate, kept_weight, reported_token};
use crate::semantics::weights::MAX_WEIGHT;

/// The number of bits per step of the remainder. The total of the longest row leaves this many of 64 bits free.
const DIGIT_BITS: u32 = 16;
const _: () = assert!((LARGEST_VOCAB as u64 * MAX_WEIGHT as u64) <= 1 << (64 - DIGIT_BITS));

/// Writes the kernel, with one block per row. Its arguments are the logits, the parameters, the row arrays, the sums of
/// the slices of rows without top-p, the sums of the slices above the bin of top-p, the
/// [`Narrowed`](super::records::Narrowed) rows and the second table of top-p, the step if `seeded`, and the results:
/// the numbers `[RESULTS, batch]` and the thresholds `[THRESHOLDS, batch]`.
pub(super) fn write(k: &Ptx, spec: &Spec, division: &Division, seeded: bool) {
    let [logits, parameters] = [(); 2].map(|()| k.argument());
    let arrays = RowArrays::arguments(k);
    let (sums, above) = (Records::argument(k, WIDE), Records::argument(k, WIDE));
    let narrowed = Records::argument(k, NARROWED);
    let table = [(); 2].map(|()| k.argument());
    let step = seeded.then(|| k.argument());
    let row = k.block();
    let results = Results::arguments(k, spec, row);
    let block = RowBlock::new(k, division);
    let parameters = Parameters::new(k, parameters, row);
    let max_key = arrays.max_key(row);
    let no_candidate = has_no_candidate(k, max_key);
    let is_drawn = is_drawn(k, &parameters, max_key);

    // A row that is not drawn has only the weight of the maximum, or no weight.
    let total = k.wide_variable(k.wselect(no_candidate, k.wide(0), k.wide(MAX_WEIGHT as u64)));
    let least = k.variable(parameters.get(Column::MinWeight));
    k.when(is_drawn, || {
        k.when_else(
            has_top_p(k, &parameters, max_key),
            || k.set(least, top_p::finish(&block, &parameters, &narrowed, &above, table)),
            || {
                block.fill_slices(|slice| block.once(|| sums.load_wide(block.number(slice), 0)));
            },
        );
        k.set_wide(total, block.total(division.padded_slices()));
    });
    let remainder = remainder(&block, &parameters, step, k.get_wide(total));
    let least = k.get(least);
    k.when(is_drawn, || {
        let target = k.wadd(remainder, k.wide(1));
        let (slice, before) = block.cross(division.padded_slices(), target);
        let weights = arrays.weights(&parameters, row);
        let rows = (spec, logits, parameters.row_of_logits(spec));
        let kept = |key, index| kept_weight(k, weights.of(order_key(k, key), index), least);
        block.find_in_slice(rows, slice, k.wide_difference(target, before), kept, |index| {
            results.number(ResultRow::NextToken, index);
        });
    });

    k.when(block.is_first(), || {
        let greedy = arrays.rows.load(row, Scanned::Greedy as usize);
        let greedy = reported_token(k, no_candidate, greedy);
        k.when(k.not(is_drawn), || results.number(ResultRow::NextToken, greedy));
        results.number(ResultRow::Greedy, greedy);
        results.number(ResultRow::RandomHigh, k.high(remainder));
        results.number(ResultRow::RandomLow, k.low(remainder));
        results.status(arrays.rows.load(row, Scanned::Status as usize), no_candidate);
        let [threshold, last_tie] = arrays.top_k(row);
        results.threshold(Threshold::MaxKey, max_key);
        results.threshold(Threshold::TopK, threshold);
        results.threshold(Threshold::LastTie, last_tie);
        results.threshold(Threshold::LeastWeight, least);
    });
}

/// Returns the remainder of the draw. Only one warp computes it, because the other warps would slow it down.
fn remainder(block: &RowBlock<'_>, parameters: &Parameters<'_>, step: Option<Wide>, total: Wide) -> Wide {
    let k = block.k;
    let shared = k.shared(2);
    k.when(k.lt(block.block.thread, k.int(WARP as i32)), || {
        let remainder = remainder_by_digits(k, parameters.random_words(step), total, DIGIT_BITS);
        k.when(block.is_first(), || k.store_shared_wide(shared, k.int(0), remainder));
    });
    k.barrier();
    k.load_shared_wide(shared, k.int(0))
}
