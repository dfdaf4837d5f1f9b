//! Order keys of raw logits, and the float edge below a key.

use crate::mlir::mosaic::{Kernel, Value};
use crate::semantics::arith::Arith;
use crate::semantics::clean::{clean, order_key, MAX_FINITE_BITS};

/// The number of the lowest exponent bit of a float.
pub(super) const EXPONENT: u32 = 23;

/// The key of the least positive normal number. No cleaned value is between it and zero.
const LEAST_POSITIVE: i32 = 0x0080_0000;
/// The key of the negative normal number nearest to zero.
const LEAST_NEGATIVE: i32 = -LEAST_POSITIVE - 1;

/// Returns the order keys of raw logits.
pub(super) fn order_keys(k: &Kernel, raw: Value) -> Value {
    order_key(k, clean(k, k.bits(raw)))
}

/// Returns the float with this order key.
pub(super) fn float_of_key(k: &Kernel, key: Value) -> Value {
    k.from_bits(order_key(k, key))
}

/// Returns the float `edge` with this property: `x > edge` is true if and only if the key of the raw logit `x` is at
/// least `threshold`. `threshold` is the key of a candidate.
///
/// The comparison is also correct on a core that flushes subnormals. It is false for a NaN, which counts as −inf. So
/// a pass over raw logits needs no cleaning.
pub(super) fn edge_below(k: &Kernel, threshold: Value) -> Value {
    let below = float_of_key(k, k.sub(threshold, k.i32(1)));
    // Subnormals and zeros of either sign count as zero. They must be above the negative normal numbers and below
    // the positive ones, whether they are flushed or not.
    let positive = k.lt(k.i32(0), threshold);
    let near_zero = k.both(k.lt(k.i32(LEAST_NEGATIVE), threshold), k.ge(k.i32(LEAST_POSITIVE), threshold));
    let zeros = k.choose(positive, k.f32(f32::from_bits(0x007f_ffff)), k.f32(-f32::MIN_POSITIVE));
    // +inf counts as the largest finite number, so nothing is above that number.
    let beyond = k.lt(k.i32(MAX_FINITE_BITS), threshold);
    k.choose(beyond, k.f32(f32::INFINITY), k.choose(near_zero, zeros, below))
}
