//! The weights of the entries of a row.

use crate::kernels::gpu::logits::{key_of, SliceLogits};
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::program_arrays::Column;
use crate::ptx::{Float, Int, Mask, Ptx, Shared, Wide, WideVariable};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::{order_key, MAX_FINITE_BITS, NEG_INF_KEY};
use crate::semantics::rules::{has_no_candidate, is_candidate, survives_top_k, top_p_is_off};
use crate::semantics::sizes::SUMMABLE;
use crate::semantics::top_p::target;
use crate::semantics::weights::{distance_bits, quantize, weight, ZERO_Q};

/// A weight is added in two parts, because a sum of weights exceeds 32 bits. The low part has this number of bits.
const LOW_BITS: u32 = 14;
/// The largest number of weights in one sum. The sums of their parts fit 31 bits.
pub(super) const LARGEST_SUM: usize = i32::MAX as usize >> LOW_BITS;

/// Adds the two parts of a weight to two sums in shared memory. The sums are element `place` of two arrays. The first
/// array has the sums of the low parts, and the second array has the sums of the high parts.
pub(super) fn add_in_parts(k: &Ptx, parts: [Shared; 2], place: Int, weight: Int) {
    k.add_shared(parts[0], place, k.and(weight, k.int((1 << LOW_BITS) - 1)));
    k.add_shared(parts[1], place, k.shr(weight, LOW_BITS));
}

/// Returns the sum of some weights. `low` is the sum of their low parts, and `high` is the sum of their high parts.
pub(super) fn sum_of_parts(k: &Ptx, low: Wide, high: Wide) -> Wide {
    k.wadd(low, k.wshl(high, LOW_BITS))
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

/// The sum of weights that top-p must reach. `total` is the sum of all weights.
pub(super) fn top_p_target(k: &Ptx, parameters: &Parameters<'_>, total: Wide) -> Wide {
    let (mantissa, shift) = (parameters.get(Column::TopPMantissa), parameters.get(Column::TopPShift));
    target(k, total, mantissa, shift)
}

/// The threshold and the last tie in a row without top-k.
pub(super) const NO_TOP_K: [i32; 2] = [NEG_INF_KEY, i32::MAX];

/// The values that determine the weights of a sampled row before top-p and min-p.
pub(super) struct Weights<'k> {
    k: &'k Ptx,
    max: Float,
    scale: Float,
    threshold: Int,
    last_tie: Int,
}

impl<'k> Weights<'k> {
    /// `threshold` and `last_tie` are the results of top-k.
    pub(super) fn new(
        k: &'k Ptx,
        parameters: &Parameters<'_>,
        max_key: Int,
        [threshold, last_tie]: [Int; 2],
    ) -> Weights<'k> {
        let max = k.from_bits(order_key(k, max_key));
        Weights { k, max, scale: k.from_bits(parameters.get(Column::Scale)), threshold, last_tie }
    }

    /// The weights of a row without top-k.
    pub(super) fn without_top_k(k: &'k Ptx, parameters: &Parameters<'_>, max_key: Int) -> Weights<'k> {
        Weights::new(k, parameters, max_key, NO_TOP_K.map(|value| k.int(value)))
    }

    /// Whether an entry is a candidate that top-k keeps.
    pub(super) fn survives(&self, key: Int, index: Int) -> Mask {
        let k = self.k;
        k.both(survives_top_k(k, key, index, self.threshold, self.last_tie), is_candidate(k, key))
    }

    /// The weight of an entry from its key and index.
    pub(super) fn of(&self, key: Int, index: Int) -> Int {
        let k = self.k;
        k.select(self.survives(key, index), self.of_kept(key), k.int(0))
    }

    /// The weight of a candidate that top-k keeps.
    pub(super) fn of_kept(&self, key: Int) -> Int {
        weight(self.k, self.distance(key))
    }

    /// The distance `q` of a key from the maximum.
    pub(super) fn q(&self, key: Int) -> Int {
        self.k.sub(self.distance(key), self.k.int(distance_bits(0)))
    }

    fn distance(&self, key: Int) -> Int {
        let k = self.k;
        quantize(k, self.max, k.from_bits(order_key(k, key)), self.scale)
    }

    /// Whether [`of_raw`](Weights::of_raw) is correct for the row.
    pub(super) fn accepts_raw(&self) -> Mask {
        // The difference of such a maximum and a subnormal number is the maximum. A smaller exponent would also be
        // possible. If the row contains +inf, its maximum is the largest finite number.
        const LEAST: i32 = (127 - 64) << 23;
        let k = self.k;
        let magnitude = k.and(k.to_bits(self.max), k.int(i32::MAX));
        k.both(k.lt(k.int(LEAST), magnitude), k.lt(magnitude, k.int(MAX_FINITE_BITS)))
    }

    /// The weight of a value that has not been cleaned, in a row without top-k. If the value is NaN, its distance is
    /// the largest one, like that of −inf.
    pub(super) fn of_raw(&self, value: Float) -> Int {
        weight(self.k, quantize(self.k, self.max, value, self.scale))
    }

    /// Calls `body` with the weights of the logits of a tile, in a row without top-k. Each call has the numbers and the
    /// weights of at most [`SUMMABLE`] logits. `accepts_raw` is the result of [`Weights::accepts_raw`].
    pub(super) fn of_tile(
        &self,
        logits: &SliceLogits<'_>,
        accepts_raw: Mask,
        body: impl Fn(&[usize], &[Int]),
    ) {
        let k = self.k;
        let numbers: Vec<usize> = (0..logits.values.len()).collect();
        let all = |weight: &dyn Fn(usize) -> Int| {
            for numbers in numbers.chunks(SUMMABLE.min(8)) {
                let weights: Vec<Int> = numbers.iter().map(|&number| weight(number)).collect();
                body(numbers, &weights);
            }
        };
        k.when_else(
            accepts_raw,
            || all(&|number| self.of_raw(logits.values[number])),
            || all(&|number| self.of(key_of(k, logits.values[number]), k.int(0))),
        );
    }
}

/// Adds at most [`SUMMABLE`] weights to a sum.
pub(super) fn add_all(k: &Ptx, sum: WideVariable, weights: impl Iterator<Item = Int>) {
    let some: Option<Int> = weights.reduce(|a, b| k.add(a, b));
    let some: Wide = k.widen(some.expect("there are weights"));
    k.set_wide(sum, k.wadd(k.get_wide(sum), some));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::arith::Scalar;
    use crate::semantics::weights::MAX_WEIGHT;

    #[test]
    fn weights_at_distances() {
        assert_eq!(weight_at(Scalar, 0), MAX_WEIGHT);
        assert_eq!([ZERO_Q - 1, ZERO_Q, ZERO_Q + 1, 1 << 24].map(|q| weight_at(Scalar, q)), [1, 0, 0, 0]);
    }
}
