//! What top-p, min-p and the draw ask of a row, whoever adds up its weights.

use super::block::Block;
use crate::kernels::Column;
use crate::mosaic::wide::Wide;
use crate::mosaic::Value;
use crate::semantics::arith::Arith;
use crate::semantics::clean::order_key;
use crate::semantics::weights::{quantize, weight, MAX_WEIGHT};
use crate::semantics::{draw, top_p};

/// A row's parameters of weighing and drawing, read once.
pub(super) struct Nucleus {
    max: Value,
    scale: Value,
    pub(super) greedy_row: Value,
    mantissa: Value,
    shift: Value,
    min_weight: Value,
    no_candidate: Value,
}

impl Nucleus {
    pub(super) fn new(b: &Block<'_>, max_key: Value, no_candidate: Value) -> Nucleus {
        let k = b.k;
        Nucleus {
            // A distance from −inf would be NaN.
            max: k.choose(no_candidate, k.f32(0.0), k.from_bits(order_key(k, max_key))),
            scale: k.from_bits(b.param(Column::Scale)),
            greedy_row: k.eq(b.param(Column::Greedy), k.i32(1)),
            mantissa: b.param(Column::TopPMantissa),
            shift: b.param(Column::TopPShift),
            min_weight: b.param(Column::MinWeight),
            no_candidate,
        }
    }

    /// The weight of a cleaned logit that is kept.
    pub(super) fn weigh(&self, b: &Block<'_>, clean: Value, is_greedy: Value) -> Value {
        let k = b.k;
        let sampled = weight(k, quantize(k, self.max, clean, self.scale));
        let greedy = k.choose(is_greedy, k.i32(MAX_WEIGHT), k.i32(0));
        k.choose(self.greedy_row, greedy, sampled)
    }

    /// Rows where top-p is off, and in the others the sum of weights that the nucleus must reach.
    pub(super) fn target(&self, b: &Block<'_>, total: Wide) -> (Value, Wide) {
        let k = b.k;
        let off = k.either(self.no_candidate, k.eq(self.mantissa, k.i32(0)));
        (off, top_p::target(k, total, self.mantissa, self.shift))
    }

    /// The least weight kept, given that of the nucleus.
    pub(super) fn least(&self, b: &Block<'_>, threshold: Value) -> Value {
        let k = b.k;
        k.choose(k.lt(threshold, self.min_weight), self.min_weight, threshold)
    }

    /// `U mod total`.
    pub(super) fn remainder(&self, b: &Block<'_>, total: Wide) -> Wide {
        let words = [Column::Word0, Column::Word1, Column::Word2, Column::Word3].map(|c| b.param(c));
        draw::remainder(b.k, words, total)
    }
}
