//! Weights of kept entries, and the draw's result.

use super::load::Row;
use crate::kernels::Column;
use crate::semantics::arith::Arith;
use crate::semantics::clean::{order_key, NEG_INF_KEY};
use crate::semantics::draw::remainder;
use crate::semantics::weights::{quantize, weight, MAX_WEIGHT};
use crate::stablehlo::{Hlo, Value};

/// What the draw gave in each row.
pub(super) struct Draw {
    pub(super) remainder: Value,
    pub(super) next: Value,
}

/// Integer weights of entries with these order keys; 0 where not `kept`. `is_greedy` marks the entry that a
/// greedy row takes.
pub(super) fn weights(h: &Hlo, row: &Row, keys: Value, kept: Value, is_greedy: Value) -> Value {
    let value = |keys| h.from_bits(order_key(h, keys));
    let scale = h.from_bits(row.param(h, Column::Scale));
    let sampled = weight(h, quantize(h, value(row.max_key), value(keys), scale));
    let greedy = h.select(is_greedy, h.int(MAX_WEIGHT), h.int(0));
    let greedy_row = h.eq(row.param(h, Column::Greedy), h.int(1));
    let candidate = h.both(kept, h.lt(h.int(NEG_INF_KEY), keys));
    h.select(candidate, h.select(greedy_row, greedy, sampled), h.int(0))
}

/// `U mod total` of each row.
pub(super) fn draw_remainder(h: &Hlo, row: &Row, total: Value) -> Value {
    let words = [Column::Word0, Column::Word1, Column::Word2, Column::Word3].map(|c| row.param(h, c));
    remainder(h, words, total)
}
