//! Weights of kept entries, the top-p target, the draw, and the five numbers that a row reports.

use super::inputs::Inputs;
use crate::kernels::program_arrays::Column;
use crate::mlir::stablehlo::{Hlo, Value};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::order_key;
use crate::semantics::draw;
use crate::semantics::rules::{self, has_weight, is_candidate, reported_token, row_status, top_p_is_off};
use crate::semantics::top_p;
use crate::semantics::weights::{quantize, weight};

/// The result of the draw in each row.
pub(in crate::kernels) struct Draw {
    pub(in crate::kernels) remainder: Value,
    pub(in crate::kernels) next: Value,
}

/// Returns the weights, before top-p and min-p, of entries with these order keys.
///
/// `kept` is whether top-k keeps the entry. `is_greedy` is whether a greedy row selects the entry.
pub(in crate::kernels) fn weights(
    h: &Hlo,
    inputs: &Inputs,
    keys: Value,
    kept: Value,
    is_greedy: Value,
) -> Value {
    let value = |keys| h.from_bits(order_key(h, keys));
    let scale = h.from_bits(inputs.param(h, Column::Scale));
    let sampled = weight(h, quantize(h, value(inputs.max_key), value(keys), scale));
    let sampled_row = h.eq(inputs.param(h, Column::Greedy), h.int(0));
    let survives = h.both(kept, is_candidate(h, keys));
    h.select(has_weight(h, survives, sampled_row, is_greedy), sampled, h.int(0))
}

/// Whether top-p is off in each row, and the sum of weights that top-p must reach if it is on.
pub(in crate::kernels) fn top_p_target(h: &Hlo, inputs: &Inputs, weights: Value) -> (Value, Value) {
    let mantissa = inputs.param(h, Column::TopPMantissa);
    let off = top_p_is_off(h, inputs.no_candidate, mantissa);
    (off, top_p::target(h, h.wide_sum(weights), mantissa, inputs.param(h, Column::TopPShift)))
}

/// Returns the least weight that survives both top-p and min-p. `threshold` is the threshold of top-p. It is 0 where
/// top-p is off.
pub(in crate::kernels) fn least_weight(h: &Hlo, inputs: &Inputs, threshold: Value) -> Value {
    rules::least_weight(h, threshold, inputs.param(h, Column::MinWeight))
}

/// Returns `U mod total` of each row.
pub(in crate::kernels) fn draw_remainder(h: &Hlo, inputs: &Inputs, total: Value) -> Value {
    draw::remainder(h, Column::WORDS.map(|column| inputs.param(h, column)), total)
}

/// Returns the five numbers of each row, in the order of [`ResultRow`](crate::kernels::program_arrays::ResultRow).
pub(in crate::kernels) fn row_results(h: &Hlo, inputs: &Inputs, greedy: Value, draw: &Draw) -> Value {
    let greedy = reported_token(h, inputs.no_candidate, greedy);
    let next = reported_token(h, inputs.no_candidate, draw.next);
    let status = row_status(h, inputs.no_candidate, inputs.had_nan(h), inputs.had_inf(h));
    h.stack(&[next, greedy, h.high(draw.remainder), h.low(draw.remainder), status])
}
