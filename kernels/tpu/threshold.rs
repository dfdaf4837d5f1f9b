//! Thresholds: searched in order keys, compared in floats.

use crate::mosaic::{Kernel, Reduce, Value};
use crate::semantics::arith::Arith;
use crate::semantics::clean::{clean, order_key, MAX_FINITE_BITS};

/// Key of the least positive normal number; nothing cleaned lies between it and zero.
const LEAST_POSITIVE: i32 = 0x0080_0000;
/// Key of the negative normal number next to zero.
const LEAST_NEGATIVE: i32 = -LEAST_POSITIVE - 1;

/// Order keys of raw logits.
pub(super) fn keys(k: &Kernel, raw: Value) -> Value {
    order_key(k, clean(k, k.bits(raw)))
}

/// The float `b` such that `x > b` holds for exactly those raw logits whose key is at least `threshold`, a key above
/// that of −inf.
///
/// It holds as well on a machine that flushes subnormals, and NaN, being −inf, fails it: no pass has to clean.
pub(super) fn just_below(k: &Kernel, threshold: Value) -> Value {
    let below = k.from_bits(order_key(k, k.sub(threshold, k.i32(1))));
    // Zero, of either sign and subnormals among it, is above the negative normal numbers, and below the positive
    // ones whether flushed or not.
    let positive = k.lt(k.i32(0), threshold);
    let near_zero = k.both(k.lt(k.i32(LEAST_NEGATIVE), threshold), k.ge(k.i32(LEAST_POSITIVE), threshold));
    let zeros = k.choose(positive, k.f32(f32::from_bits(0x007f_ffff)), k.f32(-f32::MIN_POSITIVE));
    // +inf is as large as the largest finite number, no larger.
    let beyond = k.lt(k.i32(MAX_FINITE_BITS), threshold);
    k.choose(beyond, k.f32(f32::INFINITY), k.choose(near_zero, zeros, below))
}

/// A number that a row has in every lane, as a float that its lanes add up to.
pub(super) fn count_lanes(k: &Kernel, ones: Value) -> Value {
    k.trunc(k.over_lanes(Reduce::Add, ones))
}

/// The largest `t` in `low..high` with `reaches(t)`, given that `reaches(low)` and that it fails from some point on;
/// `exact(t)` may say that no larger one is needed.
///
/// Rows are searched together, until the last is done; `steps` halvings between two looks at whether all are, for
/// a look costs as much as a halving.
pub(super) fn bisect(
    k: &Kernel,
    label: &str,
    low: Value,
    high: Value,
    steps: usize,
    probe: impl Fn(Value) -> (Value, Value),
) -> Value {
    let open = |low: Value, high: Value| k.lt(k.add(low, k.i32(1)), high);
    let (low, high) = (k.splat(low), k.splat(high));
    let [low, _] = k.while_loop(
        label,
        [low, high],
        |[low, high]| k.any(open(low, high)),
        |[mut low, mut high]| {
            for _ in 0..steps {
                // The floor of the average, without overflow.
                let middle = k.add(k.and(low, high), k.shr(k.xor(low, high), 1));
                let (reaches, exact) = probe(middle);
                let going = open(low, high);
                let up = k.both(going, reaches);
                let down = k.both(going, k.not(reaches));
                low = k.choose(up, middle, low);
                high = k.choose(down, middle, high);
                // Done: nothing is left between.
                high = k.choose(k.both(up, exact), k.add(middle, k.i32(1)), high);
            }
            [low, high]
        },
    );
    low
}
