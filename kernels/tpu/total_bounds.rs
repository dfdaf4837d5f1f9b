//! Bounds of the total weight of a row, for rows whose top-p threshold is among the largest entries.
//!
//! The target of top-p is a share of the total weight of the row. If the weights of the largest entries reach this
//! target, the other entries affect the threshold only through the total. So the exact weights of the other entries are
//! often not necessary. A pass that computes approximate weights takes less than half the time of a pass that computes
//! exact weights. The error of the approximate weights is limited. So this file computes two bounds of the sum of the
//! weights of the other entries. If both bounds give the same threshold, the exact sum also gives this threshold.

use std::cell::Cell;

use super::context::Context;
use super::keys::{edge_below, EXPONENT};
use super::prefilter::Summary;
use super::sampling::Sampling;
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Kernel, Memory, Reduce, Value, LANES, SUBLANES};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::sizes::WEIGHT_BITS;
use crate::semantics::weights::{distance_bits, OCTAVE_BITS};

/// The number of independent sums in the pass. With several sums, an addition does not wait for the previous one.
const PARTS: usize = 2;
/// A weight is at least this multiple of its [`near_weight`], minus [`ROUNDING`].
const LEAST_RATIO: f32 = 0.31957;
/// A weight is at most this multiple of its [`near_weight`], plus [`ROUNDING`].
const LARGEST_RATIO: f32 = 0.32175;
/// The largest amount by which a weight is outside the range from [`LEAST_RATIO`] to [`LARGEST_RATIO`] times its
/// [`near_weight`].
const ROUNDING: f32 = 0.5;
/// The largest relative error of a sum of approximate weights. Each operation on positive floats adds a relative error
/// of at most 2⁻²⁴. A stripe has at most 2¹⁴ registers: 256 chunks of 64. So a weight goes through at most 290
/// operations: 31 additions in a chunk (two parts of 32 registers), 255 additions of chunks, one addition of the two
/// parts, and three operations of [`near_weight`].
const SUM_ERROR: f32 = 1.0 / (1 << 15) as f32;
/// If a row has more entries than this number, the error is twice [`SUM_ERROR`]: the sum over the lanes of such a row
/// can exceed 2²⁴, so it is rounded too. It has at most 130 dependent additions: three over the stripes, and 127 over
/// the lanes in any order.
const EXACT_ENTRIES: usize = 1 << 20;
/// The estimate of the total reads one chunk out of this number of chunks.
const CHUNKS_PER_SAMPLE: usize = 16;

/// Bounds of the sum of the weights of the entries that are not survivors.
pub(super) struct Rest {
    pub(super) least: Wide,
    pub(super) most: Wide,
}

impl Rest {
    /// Returns the bounds for rows in which every entry that has a weight is a survivor.
    pub(super) fn nothing(k: &Kernel) -> Rest {
        Rest { least: k.wide(0), most: k.wide(0) }
    }

    /// Whether both bounds are the constant 0.
    pub(super) fn is_nothing(&self) -> bool {
        [self.least, self.most].iter().all(|bound| bound.is_short() && bound.low.literal() == Some(0))
    }

    /// Returns the least total, given the sum of the weights of the survivors.
    pub(super) fn least_with(&self, k: &Kernel, sum: Wide) -> Wide {
        k.wadd(self.least, sum)
    }

    /// Returns the largest total, given the sum of the weights of the survivors.
    pub(super) fn most_with(&self, k: &Kernel, sum: Wide) -> Wide {
        k.wadd(self.most, sum)
    }

    pub(super) fn flat(&self, k: &Kernel) -> Vec<Value> {
        [self.least.low, self.least.high, self.most.low, self.most.high].map(|part| k.splat(part)).to_vec()
    }

    pub(super) fn from_flat(flat: &[Value]) -> Rest {
        Rest { least: Wide { low: flat[0], high: flat[1] }, most: Wide { low: flat[2], high: flat[3] } }
    }
}

/// The number of floats that [`powers`] returns.
const POWERS: usize = 3;

/// Returns three floats from which [`near_weight`] computes about three times the weight. `distance` is in the form of
/// [`distance_bits`].
///
/// The bits of a float, read as an integer, are nearly a linear function of the logarithm of the float. So a float
/// whose bits are a linear function of the distance is nearly a power of two. The error of this power depends on the
/// fraction of the octave. The fractions of the three floats differ by a third of an octave, so their errors nearly
/// cancel. The error of the sum is a ninth of the error of one float.
fn powers<A: Arith>(a: A, distance: A::Int) -> [A::Float; POWERS] {
    // All arithmetic is modulo 2³².
    let shift = EXPONENT - OCTAVE_BITS;
    let start = ((127 + WEIGHT_BITS as i32) << EXPONENT).wrapping_add(distance_bits(0) << shift);
    let scaled = a.shl(distance, shift);
    let third = (1 << EXPONENT) / 3;
    [start, start + third, start + 2 * third].map(|start| a.from_bits(a.sub(a.int(start), scaled)))
}

/// Returns an approximation of about three times a weight, given the [`powers`] of the weight. For a sum of weights,
/// the arguments are the sums of the powers. The weight or the sum of weights is between [`LEAST_RATIO`] and
/// [`LARGEST_RATIO`] times the result. In addition, each weight has an error of at most [`ROUNDING`].
fn near_weight<A: Arith>(a: A, [first, second, third]: [A::Float; POWERS]) -> A::Float {
    // 2 to the power −1/3, and its square.
    const FACTORS: [f32; 2] = [0.793_700_5, 0.629_960_5];
    let second = a.fmul(second, a.float(FACTORS[0]));
    let third = a.fmul(third, a.float(FACTORS[1]));
    a.fadd(a.fadd(first, second), third)
}

impl Sampling {
    /// Returns [`powers`] of a raw logit that is neither a NaN nor +inf.
    fn powers_of(&self, cx: &Context<'_>, x: Value) -> [Value; POWERS] {
        powers(cx.k, self.distance(cx, x))
    }
}

/// Returns two scalars. The first is true if the entries that reach `thresholds[0]` probably decide the top-p threshold
/// of every row in `open`. The second is the same for `thresholds[1]`. The thresholds are keys, and the second is not
/// above the first.
///
/// The function estimates the sum of the weights of the largest entries from the bins. It estimates the sum of the
/// other weights from some chunks of the logits.
pub(super) fn are_promising(
    cx: &Context<'_>,
    sampling: &Sampling,
    summary: &Summary,
    thresholds: [Value; 2],
    open: Value,
) -> [Value; 2] {
    let (k, layout) = (cx.k, cx.layout);
    let [edge, lower_edge] = thresholds.map(|threshold| edge_below(k, threshold));
    let near = |powers| near_weight(k, powers);
    let largest = summary.bins().map(|bin| near(sampling.powers_of(cx, bin)));
    let largest = sum_lanes_of_floats(k, k.fadd(largest[0], largest[1]));

    let samples = layout.chunks.div_ceil(CHUNKS_PER_SAMPLE);
    let zero = k.splat(k.f32(0.0));
    let sums = k.for_each_of(
        "sample of the rest",
        k.i32(samples as i32),
        &[zero; POWERS * PARTS + 1],
        |number, state| {
            let chunk = k.mul(number, k.i32(CHUNKS_PER_SAMPLE as i32));
            let chunk = cx.logits.look_up(k.mul(chunk, k.i32(layout.chunk as i32)), layout.chunk);
            let below = |x: Value| k.choose(k.above(x, edge), k.f32(f32::NEG_INFINITY), x);
            // One of the powers is exact enough for the second threshold.
            let lower = Cell::new(state[POWERS * PARTS]);
            let each = |x: Value, powers: [Value; POWERS]| {
                let power = k.choose(k.above(x, lower_edge), k.f32(0.0), powers[0]);
                lower.set(k.fadd(lower.get(), power));
            };
            let sums = chunk_sums(cx, sampling, &chunk, below, each);
            let sums = state.iter().zip(sums).map(|(&a, b)| k.fadd(a, b));
            sums.chain([lower.get()]).collect()
        },
    );
    let (&lower, sums) = sums.split_last().expect("the sum for the second threshold is the last");
    let scale = layout.chunks as f32 / samples as f32;
    let rest = k.fmul(sum_lanes_of_floats(k, near(in_all_parts(k, sums))), k.f32(scale));
    let lower_rest = k.fmul(sum_lanes_of_floats(k, lower), k.f32(scale * POWERS as f32));
    let total = k.fadd(largest, rest);
    let removed = k.fmul(k.fsub(k.f32(1.0), sampling.near_p(cx)), total);
    [rest, lower_rest].map(|rest| k.not(k.any(k.both(open, k.not(k.above(removed, rest))))))
}

/// Returns bounds of the sum of the weights of all entries that are not survivors. In the rows that are not in `open`,
/// the bounds are 0. Makes one pass. No row of the block may contain a NaN or +inf.
///
/// `sum_over_survivors` receives a function of a logit. For each lane, it returns the sum of the function's results for
/// the survivors in this lane.
pub(super) fn bounds(
    cx: &Context<'_>,
    sampling: &Sampling,
    open: Value,
    sum_over_survivors: impl FnOnce(&dyn Fn(Value) -> Value) -> Value,
) -> Rest {
    let (k, layout) = (cx.k, cx.layout);
    let zero = k.splat(k.f32(0.0));
    let sums = cx.logits.pass("bounds of the total", &[zero; POWERS * PARTS], |chunk, _, state| {
        let sums = chunk_sums(cx, sampling, chunk, |x| x, |_, _| {});
        state.iter().zip(sums).map(|(&a, b)| k.fadd(a, b)).collect()
    });
    let all = sum_lanes_of_floats(k, near_weight(k, in_all_parts(k, &sums)));
    let largest = sum_over_survivors(&|x| near_weight(k, sampling.powers_of(cx, x)));
    let largest = sum_lanes_of_floats(k, largest);

    let rest = k.fsub(all, largest);
    let sum_error = if cx.spec.vocab > EXACT_ENTRIES { 2.0 * SUM_ERROR } else { SUM_ERROR };
    let error = k.fmul(k.fadd(all, largest), k.f32(sum_error));
    // `rounding` includes the error of the sums over lanes and of the conversion to integers. Both round down.
    let rounding = ROUNDING * (layout.padded() * LANES * k.stripes()) as f32 + (SUBLANES * LANES + 1) as f32;
    let least = k.fsub(k.fmul(k.fsub(rest, error), k.f32(LEAST_RATIO)), k.f32(rounding));
    let most = k.fadd(k.fmul(k.fadd(rest, error), k.f32(LARGEST_RATIO)), k.f32(rounding));
    let wide = |bound: Value| {
        // The floats `high` and `low` are exact.
        const DIGIT: f32 = (1 << 24) as f32;
        let bound = k.choose(open, k.fmax(bound, k.f32(0.0)), k.f32(0.0));
        let high = k.floor(k.fmul(bound, k.f32(1.0 / DIGIT)));
        let low = k.fsub(bound, k.fmul(high, k.f32(DIGIT)));
        k.wadd(k.wshl(k.widen(k.trunc(high)), 24), k.widen(k.trunc(low)))
    };
    Rest { least: wide(least), most: wide(most) }
}

/// Returns the sums of [`powers`] over the registers of a chunk. There are [`PARTS`] sums of each power. `logit` is
/// applied to the logits before their powers are computed. `each` receives the results of `logit` and their powers.
fn chunk_sums(
    cx: &Context<'_>,
    sampling: &Sampling,
    chunk: &Memory,
    logit: impl Fn(Value) -> Value,
    each: impl Fn(Value, [Value; POWERS]),
) -> Vec<Value> {
    let k = cx.k;
    let mut sums: Vec<Option<Value>> = vec![None; POWERS * PARTS];
    for register in 0..cx.layout.chunk {
        let x = logit(k.load(chunk, k.i32((register * LANES) as i32)));
        let powers = sampling.powers_of(cx, x);
        each(x, powers);
        for (number, power) in powers.into_iter().enumerate() {
            let sum = &mut sums[POWERS * (register % PARTS) + number];
            *sum = Some(sum.map_or(power, |sum| k.fadd(sum, power)));
        }
    }
    sums.into_iter().map(|sum| sum.unwrap_or_else(|| k.splat(k.f32(0.0)))).collect()
}

/// Returns the sum of the lanes of each row. Each lane is rounded down to an integer before the sum. Each lane is a
/// float below 2⁴⁴.
///
/// The order in which the hardware adds lanes is unknown. So the function splits each lane into parts. If a row has at
/// most [`EXACT_ENTRIES`] entries, the sums of the parts are exact in any order.
fn sum_lanes_of_floats(k: &Kernel, value: Value) -> Value {
    const DIGIT: f32 = (1 << 14) as f32;
    let digit = |value: Value, unit: f32| {
        let digit = k.floor(k.fmul(value, k.f32(1.0 / unit)));
        (digit, k.fsub(value, k.fmul(digit, k.f32(unit))))
    };
    let (high, rest) = digit(value, DIGIT * DIGIT);
    let (middle, low) = digit(rest, DIGIT);
    let [high, middle, low] = [high, middle, k.floor(low)].map(|digit| k.over_row(Reduce::Add, digit));
    let upper = k.fadd(k.fmul(high, k.f32(DIGIT)), middle);
    k.fadd(k.fmul(upper, k.f32(DIGIT)), low)
}

/// Adds the [`PARTS`] sums of each power that [`chunk_sums`] returned.
fn in_all_parts(k: &Kernel, sums: &[Value]) -> [Value; POWERS] {
    std::array::from_fn(|number| {
        let parts = sums.iter().skip(number).step_by(POWERS).copied();
        parts.reduce(|a, b| k.fadd(a, b)).expect("there are parts")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::arith::Scalar;
    use crate::semantics::weights::{weight, ZERO_Q};

    #[test]
    fn every_weight_is_between_its_bounds() {
        let farthest = ZERO_Q + (1 << (OCTAVE_BITS - 1)) - 1;
        for q in 0..=farthest {
            let distance = distance_bits(q);
            let near = f64::from(near_weight(Scalar, powers(Scalar, distance)));
            let weight = f64::from(weight(Scalar, distance));
            let [least, most] = [LEAST_RATIO, LARGEST_RATIO].map(|ratio| near * f64::from(ratio));
            let rounding = f64::from(ROUNDING);
            assert!(
                least - rounding <= weight && weight <= most + rounding,
                "W({q}) = {weight}: {least} to {most}"
            );
        }
    }

    #[test]
    fn the_ratios_are_close() {
        let ratio = |q: i32| {
            let distance = distance_bits(q);
            weight(Scalar, distance) as f32 / near_weight(Scalar, powers(Scalar, distance))
        };
        let octave = 0..1 << OCTAVE_BITS;
        let least = octave.clone().map(ratio).fold(f32::INFINITY, f32::min);
        let largest = octave.map(ratio).fold(0.0, f32::max);
        assert!(least - LEAST_RATIO < 0.001 && LARGEST_RATIO - largest < 0.001, "{least} to {largest}");
    }
}
