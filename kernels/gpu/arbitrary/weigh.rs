//! The weights of the entries of a row, and the bins by which top-p selects them.

use super::table::Shape;
use crate::kernels::gpu::logits::raw_bound;
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::program_arrays::Column;
use crate::ptx::{Float, Int, Mask, Ptx};
use crate::semantics::arith::Arith;
use crate::semantics::clean::{order_key, NEG_INF_KEY};
use crate::semantics::rules::{
    has_no_candidate, is_candidate, survives_top_k, top_p_is_off, LEAST_CANDIDATE_KEY,
};
use crate::semantics::sizes::WEIGHT_BITS;
use crate::semantics::weights::{distance_bits, quantize, weight, ZERO_Q};

/// The number of bits of the mantissa of a weight that select its bin.
const MANTISSA_BITS: u32 = 6;
/// The number of bits of a binary32 number below those.
const DROPPED_BITS: u32 = 23 - MANTISSA_BITS;
/// The exponent and the bits of the mantissa of the largest weight.
const LARGEST: i32 = (127 + WEIGHT_BITS as i32) << MANTISSA_BITS;

/// The table of weights: a bin contains the sum of the weights with the same exponent and the same first bits of the
/// mantissa. The largest weight has bin 0.
pub(super) const BY_WEIGHT: Shape = Shape { bins: 2048, words: 2 };
/// The table of the distances that belong to one bin of [`BY_WEIGHT`]: a bin contains the number of entries with one
/// distance.
pub(super) const BY_DISTANCE: Shape = Shape { bins: 6144, words: 1 };
/// The number of a bin after all bins.
pub(super) const NO_BIN: i32 = BY_WEIGHT.bins as i32;
/// The first of the bins of [`BY_WEIGHT`] that contain only one weight. All bins after it contain only one weight too.
pub(super) const FIRST_SINGLE: i32 =
    LARGEST - ((127 + MANTISSA_BITS as i32) << MANTISSA_BITS | ((1 << MANTISSA_BITS) - 1));

/// The bin of a weight that is not 0. The conversion to binary32 may round, but a larger weight never gets a smaller
/// number, so the bins are in order.
pub(super) fn bin_of<A: Arith>(a: A, weight: A::Int) -> A::Int {
    a.sub(a.int(LARGEST), a.shr(a.to_bits(a.to_float(weight)), DROPPED_BITS))
}

/// The only weight of a bin, which is [`FIRST_SINGLE`] or a later one.
pub(super) fn single_weight<A: Arith>(a: A, bin: A::Int) -> A::Int {
    a.trunc(a.from_bits(a.shl(a.sub(a.int(LARGEST), bin), DROPPED_BITS)))
}

/// The weight at a distance `q` from the maximum, in the units of the contract.
pub(super) fn weight_at<A: Arith>(a: A, q: A::Int) -> A::Int {
    let q = a.select(a.lt(q, a.int(ZERO_Q)), q, a.int(ZERO_Q));
    weight(a, a.add(q, a.int(distance_bits(0))))
}

/// Whether the token of a row is drawn: the row is not greedy and has a candidate.
pub(super) fn is_drawn(k: &Ptx, parameters: &Parameters<'_>, max_key: Int) -> Mask {
    k.both(k.eq(parameters.get(Column::Greedy), k.int(0)), k.not(has_no_candidate(k, max_key)))
}

/// Whether the token of a row is drawn with top-p.
pub(super) fn has_top_p(k: &Ptx, parameters: &Parameters<'_>, max_key: Int) -> Mask {
    let off = top_p_is_off(k, has_no_candidate(k, max_key), parameters.get(Column::TopPMantissa));
    k.both(is_drawn(k, parameters, max_key), k.not(off))
}

/// The values that determine the weights of a sampled row before top-p and min-p.
pub(super) struct Weights<'k> {
    k: &'k Ptx,
    max: Float,
    scale: Float,
    threshold: Int,
    last_tie: Int,
}

impl<'k> Weights<'k> {
    pub(super) fn new(
        k: &'k Ptx,
        parameters: &Parameters<'_>,
        max_key: Int,
        [threshold, last_tie]: [Int; 2],
    ) -> Weights<'k> {
        let max = k.from_bits(order_key(k, max_key));
        Weights { k, max, scale: k.from_bits(parameters.get(Column::Scale)), threshold, last_tie }
    }

    /// Whether an entry is a candidate that top-k keeps.
    pub(super) fn survives(&self, key: Int, index: Int) -> Mask {
        let k = self.k;
        k.both(survives_top_k(k, key, index, self.threshold, self.last_tie), is_candidate(k, key))
    }

    /// The weight of an entry, from the bits of its cleaned value.
    pub(super) fn of(&self, bits: Int, index: Int) -> Int {
        let k = self.k;
        k.select(self.survives(order_key(k, bits), index), weight(k, self.distance(bits)), k.int(0))
    }

    /// The distance `q` from the maximum of the cleaned value with these bits.
    pub(super) fn q(&self, bits: Int) -> Int {
        self.k.sub(self.distance(bits), self.k.int(distance_bits(0)))
    }

    fn distance(&self, bits: Int) -> Int {
        quantize(self.k, self.max, self.k.from_bits(bits), self.scale)
    }

    /// Whether top-k removes entries of the row.
    pub(super) fn has_top_k(&self) -> Mask {
        self.k.lt(self.k.int(NEG_INF_KEY), self.threshold)
    }

    /// A number that the values of all entries with a weight reach, and few others. NaN does not reach it.
    pub(super) fn raw_bound(&self) -> Float {
        let k = self.k;
        raw_bound(k, k.max(self.threshold, k.int(LEAST_CANDIDATE_KEY)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::arith::Scalar;
    use crate::semantics::weights::MAX_WEIGHT;

    #[test]
    fn bins_never_decrease_and_have_few_distances() {
        let (mut bin, mut first) = (0, 0);
        for q in 0..=ZERO_Q {
            let weight = weight_at(Scalar, q);
            let next = if weight == 0 { NO_BIN } else { bin_of(Scalar, weight) };
            assert!(next >= bin, "q = {q}");
            if next != bin {
                assert!(bin >= FIRST_SINGLE || q - first <= BY_DISTANCE.bins as i32, "bin {bin}");
                (bin, first) = (next, q);
            }
        }
        assert_eq!((bin, bin_of(Scalar, MAX_WEIGHT)), (NO_BIN, 0));
        assert!(bin_of(Scalar, 1) < NO_BIN);
    }

    #[test]
    fn small_weights_have_a_bin_each() {
        let bins: Vec<i32> = (1..=128).map(|weight| bin_of(Scalar, weight)).collect();
        assert!(bins.windows(2).all(|pair| pair[0] > pair[1]));
        assert_eq!((bins[126], bins[127]), (FIRST_SINGLE, FIRST_SINGLE - 1));
        assert_eq!(bin_of(Scalar, 129), bins[127]);
        for weight in 1..128 {
            assert_eq!(single_weight(Scalar, bin_of(Scalar, weight)), weight);
        }
    }
}
