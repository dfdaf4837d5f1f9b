//! Weights of kept entries, what top-p and min-p ask of them, and the draw's result.

use super::rows::Row;
use crate::kernels::Column;
use crate::mlir::stablehlo::{Hlo, Value};
use crate::semantics::arith::Arith;
use crate::semantics::clean::{order_key, NEG_INF_KEY};
use crate::semantics::draw::remainder;
use crate::semantics::top_p;
use crate::semantics::weights::{quantize, weight, MAX_WEIGHT};

/// What the draw gave in each row.
pub(in crate::kernels) struct Draw {
    pub(in crate::kernels) remainder: Value,
    pub(in crate::kernels) next: Value,
}

/// Integer weights of entries with these order keys; 0 where not `kept`. `is_greedy` marks the entry that a
/// greedy row takes.
pub(in crate::kernels) fn weights(h: &Hlo, row: &Row, keys: Value, kept: Value, is_greedy: Value) -> Value {
    let value = |keys| h.from_bits(order_key(h, keys));
    let scale = h.from_bits(row.param(h, Column::Scale));
    let sampled = weight(h, quantize(h, value(row.max_key), value(keys), scale));
    let greedy = h.select(is_greedy, h.int(MAX_WEIGHT), h.int(0));
    let greedy_row = h.eq(row.param(h, Column::Greedy), h.int(1));
    let candidate = h.both(kept, h.lt(h.int(NEG_INF_KEY), keys));
    h.select(candidate, h.select(greedy_row, greedy, sampled), h.int(0))
}

/// Rows where top-p is off, and in the others the sum of weights that the nucleus must reach.
pub(in crate::kernels) fn top_p_target(h: &Hlo, row: &Row, weights: Value) -> (Value, Value) {
    let mantissa = row.param(h, Column::TopPMantissa);
    let off = h.either(row.no_candidate, h.eq(mantissa, h.int(0)));
    (off, top_p::target(h, h.wide_sum(weights), mantissa, row.param(h, Column::TopPShift)))
}

/// The least weight that both top-p, whose threshold is given, and min-p keep.
pub(in crate::kernels) fn and_min_p(h: &Hlo, row: &Row, threshold: Value) -> Value {
    let min_weight = row.param(h, Column::MinWeight);
    h.select(h.lt(threshold, min_weight), min_weight, threshold)
}

/// `U mod total` of each row.
pub(in crate::kernels) fn draw_remainder(h: &Hlo, row: &Row, total: Value) -> Value {
    let words = [Column::Word0, Column::Word1, Column::Word2, Column::Word3].map(|c| row.param(h, c));
    remainder(h, words, total)
}
