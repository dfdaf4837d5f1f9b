//! What top-p, min-p and the draw ask of a row, whoever adds up its weights.

use super::context::Block;
use crate::kernels::Column;
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::Value;
use crate::semantics::arith::Arith;
use crate::semantics::clean::{order_key, NEG_INF_KEY};
use crate::semantics::weights::{quantize, weight};
use crate::semantics::{draw, top_p};

/// A row's parameters of weighing and drawing, read once.
pub(super) struct Nucleus {
    pub(super) max: Value,
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

    /// The weight of a cleaned logit.
    pub(super) fn weight_of(&self, b: &Block<'_>, clean: Value) -> Value {
        weight(b.k, quantize(b.k, self.max, clean, self.scale))
    }

    /// The weight of a raw logit that is a candidate.
    pub(super) fn weight_of_raw(&self, b: &Block<'_>, x: Value) -> Value {
        // Cleaning would make a zero of a subnormal, too. That far down it changes no q: where the difference does not
        // round it away, the maximum is so small itself that q is 0 either way.
        self.weight_of(b, b.k.fmin(x, b.k.f32(f32::MAX)))
    }

    /// The weight of the logit that a key stands for; 0 for −inf.
    pub(super) fn weight_of_key(&self, b: &Block<'_>, key: Value) -> Value {
        let k = b.k;
        let candidate = k.lt(k.i32(NEG_INF_KEY), key);
        let weight = self.weight_of(b, k.from_bits(order_key(k, key)));
        k.choose(candidate, weight, k.i32(0))
    }

    /// About how far below the maximum an entry weighs so little that a whole row of such would weigh `weight`.
    pub(super) fn distance_of(&self, b: &Block<'_>, weight: Wide) -> Value {
        let k = b.k;
        let octaves = k.fsub(k.f32(24.0 + (b.spec.vocab as f32).log2()), b.log2(weight));
        let step = k.divide(k.f32((1 << 18) as f32), self.scale);
        k.fmul(k.fmin(octaves, k.f32(24.0)), step)
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
