//! Exact sums over the lanes of a register, and over the stripes of a row. The hardware adds lanes only as floats.
//!
//! A row has up to eight stripes ([`Kernel`]). Functions for a stripe add the lanes of each sublane.

use super::keys::EXPONENT;
use super::layout::{CANDIDATE_DEPTH, CHUNK, MORE_CANDIDATES};
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Kernel, Reduce, Value, LANES};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::sizes::{SUMMABLE, WEIGHT_BITS};

/// Returns the sum of the lanes of each row. All lanes of the result contain it. The lanes of the operand are floats
/// that contain small whole numbers: their sum is at most 2²⁴.
pub(super) fn count_lanes(k: &Kernel, ones: Value) -> Value {
    k.rounded(k.over_row(Reduce::Add, ones))
}

/// Returns the sum of the lanes of each row. All lanes of the result contain it. The lanes of the operand are unsigned
/// 32-bit integers.
pub(super) fn sum_lanes(k: &Kernel, value: Value) -> Wide {
    // The sums over the stripes are integers, because the sum of a row can exceed the exact range of a float.
    join_halves(k, halves_of_stripe(k, value).map(|half| k.over_stripes(Reduce::Add, half)))
}

/// Notes the largest upper word of a sum of at most `weights` weights. Returns the sum.
pub(super) fn noted_sum(k: &Kernel, sum: Wide, weights: usize) -> Wide {
    Wide { high: k.at_most_noted(sum.high, largest_upper_word(weights)), ..sum }
}

/// Returns the sum of the lanes of each row, shifted by 32 bits. The lanes of the operand are the upper words of sums
/// of weights. All these sums together contain at most `weights` weights.
pub(super) fn sum_of_upper_words(k: &Kernel, words: Value, weights: usize) -> Wide {
    let sum = sum_lanes(k, words);
    let sum = Wide { low: k.at_most_noted(sum.low, largest_upper_word(weights)), ..sum };
    k.wshl(k.wshl(sum, 16), 16)
}

/// Returns the largest upper word of a sum of `weights` weights.
fn largest_upper_word(weights: usize) -> i32 {
    ((weights << WEIGHT_BITS) >> u32::BITS) as i32
}

/// Like [`sum_lanes`], but for each stripe.
pub(super) fn sum_stripe(k: &Kernel, value: Value) -> Wide {
    join_halves(k, halves_of_stripe(k, value))
}

/// Returns the sum of the low 16 bits and the sum of the high 16 bits of each stripe's lanes. They are exact as floats.
fn halves_of_stripe(k: &Kernel, value: Value) -> [Value; 2] {
    [k.and(value, k.i32(0xffff)), k.shift_right_zero(value, k.i32(16))]
        .map(|half| k.rounded(k.over_lanes(Reduce::Add, k.to_float(half))))
}

fn join_halves(k: &Kernel, [low, high]: [Value; 2]) -> Wide {
    k.wadd(k.widen(low), k.wshl(k.widen(high), 16))
}

/// A sum of weights in each lane. It consists of two numbers: the sum of the low 16 bits and the sum of the high 16
/// bits of 32-bit partial sums.
#[derive(Clone, Copy)]
pub(super) struct Halves {
    pub(super) low: Value,
    pub(super) high: Value,
}

impl Halves {
    /// Returns the sum of registers of weights. `weights(i)` returns register `i`.
    pub(super) fn sum_of(
        k: &Kernel,
        registers: std::ops::Range<usize>,
        weights: impl Fn(usize) -> Value,
    ) -> Halves {
        // The sum of each group fits 32 bits. Consecutive registers belong to different groups, so an addition does not
        // wait for the previous one.
        let groups = registers.len().div_ceil(SUMMABLE);
        let mut sums: Vec<Option<Value>> = vec![None; groups];
        for (number, register) in registers.enumerate() {
            let (sum, value) = (&mut sums[number % groups], weights(register));
            *sum = Some(sum.map_or(value, |sum| k.add(sum, value)));
        }
        let halves = sums
            .into_iter()
            .flatten()
            .map(|sum| Halves { low: k.and(sum, k.i32(0xffff)), high: k.shift_right_zero(sum, k.i32(16)) });
        halves.reduce(|a, b| a.plus(k, b)).expect("at least one register")
    }

    pub(super) fn plus(self, k: &Kernel, other: Halves) -> Halves {
        Halves { low: k.add(self.low, other.low), high: k.add(self.high, other.high) }
    }

    /// Returns the sum of the lanes of each stripe. Each lane must be the sum of at most [`CHUNK`] weights. All lanes
    /// of the result contain the sum.
    pub(super) fn over_stripe(self, k: &Kernel) -> Wide {
        // A lane is at most 64 · 2²⁸ = 2³⁴, so it has two digits of at most 2¹⁷. The sums of the digits over 128 lanes
        // are at most 2²⁴. They are exact as floats.
        const DIGIT_BITS: u32 = 17;
        const {
            assert!(CANDIDATE_DEPTH + MORE_CANDIDATES <= CHUNK);
            assert!(CHUNK << WEIGHT_BITS <= 1 << (2 * DIGIT_BITS));
            assert!(LANES << DIGIT_BITS <= 1 << 24);
        }
        let high = k.add(self.high, k.shift_right_zero(self.low, k.i32(16)));
        let carried = k.shl(k.and(high, k.i32(1)), 16);
        let low = k.or(k.and(self.low, k.i32(0xffff)), carried);
        let [low, high] = [low, k.shift_right_zero(high, k.i32(1))]
            .map(|digit| k.widen(k.rounded(k.over_lanes(Reduce::Add, k.to_float(digit)))));
        k.wadd(low, k.wshl(high, DIGIT_BITS))
    }

    /// Returns the sum of the lanes of each row, for any number of weights. All lanes of the result contain the sum.
    pub(super) fn total(self, k: &Kernel) -> Wide {
        k.wadd(sum_lanes(k, self.low), k.wshl(sum_lanes(k, self.high), 16))
    }
}

/// Returns the inclusive prefix sums of each row. The order is that of the stripes, and of the lanes within a stripe.
pub(super) fn inclusive_sums(k: &Kernel, value: Wide) -> Wide {
    let sums = inclusive_sums_of_stripes(k, value);
    match k.stripes() {
        1 => sums,
        _ => k.wadd(sums, sum_of_stripes_before(k, value)),
    }
}

/// Returns the sum of all earlier stripes of the row.
pub(super) fn sum_of_stripes_before(k: &Kernel, value: Wide) -> Wide {
    let low = sum_stripe(k, value.low);
    let own = match value.is_short() {
        true => low,
        false => k.wadd(low, k.wshl(k.wshl(sum_stripe(k, value.high), 16), 16)),
    };
    let stripe = k.stripe();
    let mut sums = own;
    let mut by = 1;
    while by < k.stripes() {
        let from = Wide { low: k.rotate_stripes(sums.low, by), high: k.rotate_stripes(sums.high, by) };
        let with = k.wadd(sums, from);
        sums = k.wselect(k.ge(stripe, k.i32(by as i32)), with, sums);
        by *= 2;
    }
    k.wsub(sums, own)
}

/// Returns the inclusive prefix sums of the lanes of each stripe.
fn inclusive_sums_of_stripes(k: &Kernel, value: Wide) -> Wide {
    let lane = k.lane();
    let mut sums = value;
    let mut by = 1;
    while by < LANES {
        let amount = k.i32(by as i32);
        let high = if sums.is_short() { k.i32(0) } else { k.rotate(sums.high, amount) };
        let from = Wide { low: k.rotate(sums.low, amount), high };
        let with = k.wadd(sums, from);
        sums = k.wselect(k.ge(lane, amount), with, sums);
        by *= 2;
    }
    sums
}

/// Returns the binary logarithm of a number of at least 1, with an error below 0.01. The bits of a float, read as an
/// integer, are nearly a linear function of its logarithm.
pub(super) fn approximate_log2(k: &Kernel, value: Wide) -> Value {
    approximate_log2_of_float(k, k.near(value))
}

/// Like [`approximate_log2`], but for a float.
pub(super) fn approximate_log2_of_float(k: &Kernel, value: Value) -> Value {
    let bits = k.sub(k.bits(value), k.i32(127 << EXPONENT));
    let linear = k.fmul(k.to_float(bits), k.f32(1.0 / (1 << EXPONENT) as f32));
    let fraction = k.fsub(linear, k.floor(linear));
    let curve = k.fmul(fraction, k.fsub(k.f32(1.0), fraction));
    k.fadd(linear, k.fmul(curve, k.f32(0.346)))
}

/// Returns the number of true masks in each lane, as a float. Each mask is one register.
pub(super) fn ones(k: &Kernel, masks: impl Iterator<Item = Value>) -> Value {
    let ones = masks.map(|mask| k.choose(mask, k.f32(1.0), k.f32(0.0)));
    if k.copies() > 1 {
        return sum_in_pairs(k, ones.collect());
    }
    ones.reduce(|a, b| k.fadd(a, b)).expect("at least one mask")
}

/// Returns the sum of registers of floats, lane by lane. The additions of pairs do not depend on each other. If rows
/// have copies, a step of a search has so few other operations that it would wait for dependent additions.
fn sum_in_pairs(k: &Kernel, mut terms: Vec<Value>) -> Value {
    while terms.len() > 1 {
        let sum = |pair: &[Value]| pair.iter().copied().reduce(|a, b| k.fadd(a, b));
        terms = terms.chunks(2).map(|pair| sum(pair).expect("a pair has a register")).collect();
    }
    terms[0]
}

const SPLIT_BITS: u32 = WEIGHT_BITS / 2;

/// A number as two floats: `high · 2¹⁴ + low`.
///
/// The parts of a weight are at most 2¹⁴. So for up to 2¹⁰ weights, the sum of the high parts and the sum of the low
/// parts are at most 2²⁴. These sums are exact as floats in any order, so the hardware can add the lanes.
#[derive(Clone, Copy)]
pub(super) struct Split {
    pub(super) high: Value,
    pub(super) low: Value,
}

impl Split {
    /// The largest number of weights whose sums of parts are exact.
    pub(super) const WEIGHTS: usize = 1 << (24 - SPLIT_BITS);

    pub(super) fn new(k: &Kernel, value: Wide) -> Split {
        let high = k.wshr(value, k.wide(u64::from(SPLIT_BITS))).low;
        let low = k.and(value.low, k.i32((1 << SPLIT_BITS) - 1));
        Split { high: k.to_float(high), low: k.to_float(low) }
    }

    /// Returns a sum for each lane: the sum of the numbers in `parts` whose mask is true. `mask` receives the position
    /// of a number in `parts`.
    pub(super) fn sum_where(k: &Kernel, parts: &[Split], mask: impl Fn(usize) -> Value) -> Split {
        let zero = k.f32(0.0);
        let terms = parts.iter().enumerate().map(|(i, part)| {
            let mask = mask(i);
            (k.choose(mask, part.high, zero), k.choose(mask, part.low, zero))
        });
        if k.copies() > 1 {
            let (high, low) = terms.unzip();
            return Split { high: sum_in_pairs(k, high), low: sum_in_pairs(k, low) };
        }
        let sums = terms.reduce(|a, b| (k.fadd(a.0, b.0), k.fadd(a.1, b.1))).expect("at least one number");
        Split { high: sums.0, low: sums.1 }
    }

    /// Adds the lanes of each row.
    pub(super) fn over_row(self, k: &Kernel) -> Split {
        Split { high: k.over_row(Reduce::Add, self.high), low: k.over_row(Reduce::Add, self.low) }
    }

    /// Returns the two parts as a list. A search adds the lanes of each part.
    pub(super) fn terms(self) -> Vec<Value> {
        vec![self.high, self.low]
    }

    /// Returns the number whose two parts are `sums`, in the order of [`terms`](Split::terms).
    pub(super) fn from_terms(sums: &[Value]) -> Split {
        Split { high: sums[0], low: sums[1] }
    }

    /// Returns the number that a sum of parts represents.
    pub(super) fn number(&self, k: &Kernel) -> Wide {
        let (high, low) = (k.rounded(self.high), k.rounded(self.low));
        k.wadd(k.wshl(k.widen(high), SPLIT_BITS), k.widen(low))
    }

    /// Whether `self <= other`. Both can be sums of several numbers, so a low part can exceed 2¹⁴.
    #[track_caller]
    pub(super) fn is_at_most(&self, k: &Kernel, other: &Split) -> Value {
        // The differences of the parts are exact. Rounding their sum does not change its sign.
        let high = k.fmul(k.fsub(other.high, self.high), k.f32((1 << SPLIT_BITS) as f32));
        k.at_least(k.fadd(high, k.fsub(other.low, self.low)), k.f32(0.0))
    }
}
