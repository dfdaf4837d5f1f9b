//! Exact sums over the lanes of a register. The hardware adds lanes only as floats.

use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Kernel, Reduce, Value, LANES};
use crate::semantics::arith::{Arith, WideArith};

/// Returns the sum of the lanes of each row. All lanes of the result contain it. The lanes of the operand are floats
/// that contain small whole numbers.
pub(super) fn count_lanes(k: &Kernel, ones: Value) -> Value {
    k.trunc(k.over_lanes(Reduce::Add, ones))
}

/// Returns the sum of the lanes of each row. All lanes of the result contain it. The lanes of the operand are unsigned
/// 32-bit integers.
pub(super) fn sum_lanes(k: &Kernel, value: Value) -> Wide {
    // Sums of 16-bit halves are exact as floats.
    let add = |half: Value| count_lanes(k, k.to_float(half));
    let low = add(k.and(value, k.i32(0xffff)));
    let high = add(k.shift_right_zero(value, k.i32(16)));
    k.wadd(k.widen(low), k.wshl(k.widen(high), 16))
}

/// Returns the inclusive prefix sums of the lanes of each row.
pub(super) fn inclusive_sums(k: &Kernel, value: Wide) -> Wide {
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

/// Returns the binary logarithm of a number of at least 1, with an error below 0.1. The bits of a float, read as an
/// integer, are nearly a linear function of its logarithm.
pub(super) fn approximate_log2(k: &Kernel, value: Wide) -> Value {
    let bits = k.sub(k.bits(k.near(value)), k.i32(127 << 23));
    k.fmul(k.to_float(bits), k.f32(1.0 / (1 << 23) as f32))
}

const SPLIT_BITS: i32 = 12;

/// A number below 2³⁶ as two floats: `high · 2¹² + low`.
///
/// For up to 2¹² lanes of weights, the sum of the high parts and the sum of the low parts are exact in any order. So
/// the hardware can sum them over lanes as floats without an error.
#[derive(Clone, Copy)]
pub(super) struct Split {
    pub(super) high: Value,
    pub(super) low: Value,
}

impl Split {
    pub(super) fn new(k: &Kernel, value: Wide) -> Split {
        let high = k.wshr(value, k.wide(SPLIT_BITS as u64)).low;
        let low = k.and(value.low, k.i32((1 << SPLIT_BITS) - 1));
        Split { high: k.to_float(high), low: k.to_float(low) }
    }

    /// Returns the number that a sum of parts represents. `fits_word` means that the number is known to be below 2³².
    pub(super) fn number(&self, k: &Kernel, fits_word: bool) -> Wide {
        let (high, low) = (k.trunc(self.high), k.trunc(self.low));
        match fits_word {
            true => k.widen(k.add(k.shl(high, SPLIT_BITS as u32), low)),
            false => k.wadd(k.wshl(k.widen(high), SPLIT_BITS as u32), k.widen(low)),
        }
    }

    /// Whether `self < other`. Both may be sums of parts, so a low part may exceed 2¹².
    pub(super) fn is_less(&self, k: &Kernel, other: &Split) -> Value {
        let unit = k.f32(1.0 / (1 << SPLIT_BITS) as f32);
        // The difference in units of the high part, rounded down. Every operation is exact.
        let low = k.floor(k.fmul(k.fsub(self.low, other.low), unit));
        k.flt(k.fadd(k.fsub(self.high, other.high), low), k.f32(0.0))
    }
}
