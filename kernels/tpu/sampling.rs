//! The parameters for weights and draws in each row, and values derived from them.

use super::context::Context;
use super::keys::float_of_key;
use super::lane_sums::approximate_log2;
use super::short_division;
use crate::kernels::program_arrays::Column;
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Kernel, Value};
use crate::semantics::arith::{Arith, LongDivision};
use crate::semantics::rules::{self, has_no_candidate, is_candidate, top_p_is_off};
use crate::semantics::sizes::{TOTAL_BITS, WEIGHT_BITS};
use crate::semantics::weights::{quantize, weight, MAX_WEIGHT, OCTAVE_BITS};
use crate::semantics::{draw, top_p};

/// The parameters of a block's rows. They are read once.
pub(super) struct Sampling {
    /// The order key of the maximum.
    pub(super) max_key: Value,
    pub(super) no_candidate: Value,
    /// The maximum itself, or 0 in a row without a candidate.
    pub(super) max: Value,
    pub(super) greedy_row: Value,
    scale: Value,
    mantissa: Value,
    shift: Value,
    min_weight: Value,
}

impl Sampling {
    pub(super) fn new(cx: &Context<'_>, max_key: Value) -> Sampling {
        let k = cx.k;
        let no_candidate = has_no_candidate(k, max_key);
        Sampling {
            // In a row without a candidate, the distance from −inf would be NaN.
            max: k.choose(no_candidate, k.f32(0.0), float_of_key(k, max_key)),
            scale: k.from_bits(cx.param(Column::Scale)),
            greedy_row: k.eq(cx.param(Column::Greedy), k.i32(1)),
            mantissa: cx.param(Column::TopPMantissa),
            shift: cx.param(Column::TopPShift),
            min_weight: cx.param(Column::MinWeight),
            max_key,
            no_candidate,
        }
    }

    /// Returns the distance of a cleaned logit from the maximum, in the form of
    /// [`distance_bits`](crate::semantics::weights::distance_bits).
    pub(super) fn distance(&self, cx: &Context<'_>, clean: Value) -> Value {
        quantize(cx.k, self.max, clean, self.scale)
    }

    /// Returns the weight by temperature of a cleaned logit.
    pub(super) fn weight_of(&self, cx: &Context<'_>, clean: Value) -> Value {
        cx.k.at_most_noted(weight(cx.k, self.distance(cx, clean)), MAX_WEIGHT)
    }

    /// Returns the weight by temperature of a raw logit that is a candidate.
    pub(super) fn weight_of_raw(&self, cx: &Context<'_>, x: Value) -> Value {
        // Cleaning would also turn a subnormal into zero, but this function does not. This does not change q: either
        // the subtraction from the maximum rounds the difference away, or the maximum is so small that q is 0 in both
        // cases.
        self.weight_of(cx, cx.k.fmin(x, cx.k.f32(f32::MAX)))
    }

    /// Returns the weight by temperature of the logit with this order key. The weight of −inf is 0.
    pub(super) fn weight_of_key(&self, cx: &Context<'_>, key: Value) -> Value {
        let k = cx.k;
        let candidate = is_candidate(k, key);
        let weight = self.weight_of(cx, float_of_key(k, key));
        k.choose(candidate, weight, k.i32(0))
    }

    /// Returns an approximate distance below the maximum. If every entry of a row were at this distance, the sum of
    /// their weights would be about `weight`.
    pub(super) fn distance_of(&self, cx: &Context<'_>, weight: Wide) -> Value {
        let k = cx.k;
        let largest = WEIGHT_BITS as f32 + (cx.spec.vocab as f32).log2();
        let octaves = k.fsub(k.f32(largest), approximate_log2(k, weight));
        let step = self.distance_of_octaves(cx, 1.0);
        k.fmul(k.fmin(octaves, k.f32(WEIGHT_BITS as f32)), step)
    }

    /// Whether top-p is off in each row, and the sum of weights that top-p must reach if it is on.
    pub(super) fn top_p_target(&self, cx: &Context<'_>, total: Wide) -> (Value, Wide) {
        let off = top_p_is_off(cx.k, self.no_candidate, self.mantissa);
        (off, top_p::target(cx.k, total, self.mantissa, self.shift))
    }

    /// Returns the difference of two logits whose weights differ by the factor 2 to the power `octaves`.
    pub(super) fn distance_of_octaves(&self, cx: &Context<'_>, octaves: f32) -> Value {
        let k = cx.k;
        k.divide(k.f32(octaves * (1 << OCTAVE_BITS) as f32), self.scale)
    }

    /// Whether a row has top-p and is not greedy.
    pub(super) fn has_top_p(&self, cx: &Context<'_>) -> Value {
        let k = cx.k;
        let off = top_p_is_off(k, self.no_candidate, self.mantissa);
        k.not(k.either(off, self.greedy_row))
    }

    /// Returns p as a float, rounded down. It has no meaning in a row without top-p.
    pub(super) fn near_p(&self, cx: &Context<'_>) -> Value {
        let k = cx.k;
        let shift = k.min(self.shift, k.i32(31));
        k.fmul(k.to_float(k.shift_right_zero(self.mantissa, shift)), k.f32(1.0 / (1 << 24) as f32))
    }

    /// Returns the least weight that survives both top-p and min-p. `threshold` is the threshold of top-p.
    pub(super) fn least_weight(&self, cx: &Context<'_>, top_p_off: Value, threshold: Value) -> Value {
        let k = cx.k;
        rules::least_weight(k, k.choose(top_p_off, k.i32(0), threshold), self.min_weight)
    }

    /// Returns `U mod total`.
    pub(super) fn remainder(&self, cx: &Context<'_>, total: Wide) -> Wide {
        // With digits of `n` bits, the division supports totals of at most 2^(64 − n). So longer rows need shorter
        // digits.
        let total_bits = WEIGHT_BITS + cx.spec.vocab.next_power_of_two().trailing_zeros();
        let longest = <&Kernel>::DIGIT_BITS;
        let digit_bits = if total_bits + longest <= 64 { longest } else { 64 - TOTAL_BITS };
        draw::remainder_by_digits(cx.k, Self::words(cx), total, digit_bits)
    }

    /// Like [`remainder`](Sampling::remainder), but only for totals of at most 2^[`short_division::TOTAL_BITS`]. It
    /// takes less time.
    pub(super) fn remainder_of_short(&self, cx: &Context<'_>, total: Wide) -> Wide {
        short_division::remainder(cx.k, Self::words(cx), total)
    }

    fn words(cx: &Context<'_>) -> [Value; 4] {
        Column::WORDS.map(|column| cx.param(column))
    }
}
