//! Thresholds: searched in order keys, compared in floats.

use super::context::Block;
use super::sampling::Nucleus;
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Kernel, Reduce, Value};
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

/// What a search learns at one place.
pub(super) struct Probe {
    /// The place is not beyond what is searched for.
    pub(super) reaches: Value,
    /// No place further up is needed, if this one reaches.
    pub(super) exact: Option<Value>,
}

/// The largest `t` in `low..high` that reaches, given that `low` does and that from some place on none does.
///
/// Rows are searched together, each quartering its range until the last is done: three places cost little more than one,
/// for the time goes into waiting for sums over lanes. `steps` quarterings are made between two looks at whether all
/// rows are done, for a look costs as much as one.
pub(super) fn search(
    k: &Kernel,
    label: &str,
    low: Value,
    high: Value,
    steps: usize,
    probe: impl Fn(Value) -> Probe,
) -> Value {
    let (low, high) = (k.splat(low), k.splat(high));
    let [low, _] = k.while_loop(
        label,
        [low, high],
        |[low, high]| k.any(k.lt(k.add(low, k.i32(1)), high)),
        |[mut low, mut high]| {
            for _ in 0..steps {
                (low, high) = quarter(k, low, high, &probe);
            }
            [low, high]
        },
    );
    low
}

/// [`search`] over a range whose length is known to be at most `most` in every row: nothing is looked at on the way.
pub(super) fn search_within(
    k: &Kernel,
    label: &str,
    range: [Value; 2],
    most: usize,
    probe: impl Fn(Value) -> Probe,
) -> [Value; 2] {
    let (mut left, mut steps) = (most, 0);
    while left > 1 {
        left = left.div_ceil(4);
        steps += 1;
    }
    search_steps(k, label, range, steps, probe)
}

/// The range in which a [`search`] over `range` is after so many steps.
pub(super) fn search_steps(
    k: &Kernel,
    label: &str,
    range: [Value; 2],
    steps: usize,
    probe: impl Fn(Value) -> Probe,
) -> [Value; 2] {
    k.for_each(label, k.i32(steps as i32), range, |_, [low, high]| {
        let (low, high) = quarter(k, low, high, &probe);
        [low, high]
    })
}

/// One step of a search. A row whose range holds one place is done and stays as it is.
fn quarter(k: &Kernel, low: Value, high: Value, probe: &impl Fn(Value) -> Probe) -> (Value, Value) {
    // Unsigned, since a range of keys can be longer than an integer is positive.
    let part = k.shift_right_zero(k.add(k.sub(high, low), k.i32(3)), k.i32(2));
    let middle = k.add(low, k.add(part, part));
    let places = [k.add(low, part), middle, k.add(middle, part)];
    let probes = places.map(|place| {
        let Probe { reaches, exact } = probe(place);
        Probe { reaches: k.both(k.lt(place, high), reaches), exact }
    });
    let (mut new_low, mut new_high) = (low, high);
    for (&place, probe) in places.iter().zip(&probes).rev() {
        new_high = k.choose(k.either(probe.reaches, k.ge(place, high)), new_high, place);
    }
    for (&place, probe) in places.iter().zip(&probes) {
        new_low = k.choose(probe.reaches, place, new_low);
        if let Some(exact) = probe.exact {
            new_high = k.choose(k.both(probe.reaches, exact), k.add(place, k.i32(1)), new_high);
        }
    }
    (new_low, new_high)
}

/// [`search`] by halves, where a probe is a pass over the rows.
pub(super) fn bisect(
    k: &Kernel,
    label: &str,
    low: Value,
    high: Value,
    probe: impl Fn(Value) -> Probe,
) -> Value {
    let open = |low: Value, high: Value| k.lt(k.add(low, k.i32(1)), high);
    let [low, _] = k.while_loop(
        label,
        [k.splat(low), k.splat(high)],
        |[low, high]| k.any(open(low, high)),
        |[low, high]| {
            // The floor of the average, without overflow.
            let middle = k.add(k.and(low, high), k.shr(k.xor(low, high), 1));
            let probe = probe(middle);
            let going = open(low, high);
            let up = k.both(going, probe.reaches);
            let down = k.both(going, k.not(probe.reaches));
            let high = k.choose(down, middle, high);
            let done = probe.exact.map(|exact| k.choose(k.both(up, exact), k.add(middle, k.i32(1)), high));
            [k.choose(up, middle, low), done.unwrap_or(high)]
        },
    );
    low
}

/// [`bisect`] for a top-p threshold, a key whose weight is sought, with places guessed where the weight below them is
/// about what may be left out: its logarithm is nearly a straight line in the logit. That is the false position method
/// in its Illinois variant (Dowell and Jarratt 1971), in doubt halved. `probe` is given the weight of a place, and returns
/// whether it reaches, and the weight below it.
///
/// The state: the ends of the range, which are keys; what they weigh; their logits; log₂ of the weights below them, halved
/// towards the aim where an end has stayed too long; which end moved last; the number of the turn.
pub(super) fn interpolate(
    b: &Block<'_>,
    nucleus: &Nucleus,
    label: &str,
    (low, high): (Value, Value),
    (total, allowed): (Wide, Wide),
    probe: impl Fn(Value) -> (Value, Wide),
) -> Value {
    let k = b.k;
    // Any place between the ends is as right as any other, so nothing here needs to be exact.
    let aim = b.log2(allowed);
    let far = k.fsub(nucleus.max, nucleus.distance_of(b, allowed));
    let start = [
        k.splat(low),
        k.splat(high),
        nucleus.weight_of_key(b, b.long(low)),
        k.splat(k.i32(1 << 24)),
        far,
        nucleus.max,
        k.fsub(aim, k.f32(4.0)),
        b.log2(total),
        k.splat(k.i32(0)),
        k.i32(0),
    ];
    // Places between two that weigh the same, or next to it, have nothing to add.
    let open = |low: Value, high: Value, light: Value, heavy: Value| {
        k.both(k.lt(k.add(low, k.i32(1)), high), k.lt(k.add(light, k.i32(1)), heavy))
    };
    let [_, _, light, ..] = k.while_loop(
        label,
        start,
        |[low, high, light, heavy, ..]| k.any(open(low, high, light, heavy)),
        |[low, high, light, heavy, low_logit, high_logit, low_log, high_log, side, turn]| {
            let part = k.divide(k.fsub(aim, low_log), k.fsub(high_log, low_log));
            let part = k.fmax(k.fmin(part, k.f32(0.98)), k.f32(0.02));
            let logit = k.fadd(low_logit, k.fmul(part, k.fsub(high_logit, low_logit)));
            let guess = k.max(k.min(b.short(keys(k, logit)), k.sub(high, k.i32(1))), k.add(low, k.i32(1)));
            // Every fourth time the middle, so that it ends soon whatever the row looks like.
            let middle = k.add(k.and(low, high), k.shr(k.xor(low, high), 1));
            let halve = k.splat(k.eq(k.and(turn, k.i32(3)), k.i32(3)));
            let going = open(low, high, light, heavy);
            let place = k.choose(going, k.choose(halve, middle, guess), low);

            let weight = nucleus.weight_of_key(b, b.long(place));
            let (reaches, below) = probe(weight);
            let (up, down) = (k.both(going, reaches), k.both(going, k.not(reaches)));
            let logit = k.from_bits(order_key(k, b.long(place)));
            let log = b.log2(below);
            // An end that stays while the other moves twice is given half the say.
            let half = |end: Value| k.fmul(k.fadd(end, aim), k.f32(0.5));
            let low_again = k.both(up, k.eq(side, k.i32(1)));
            let high_again = k.both(down, k.eq(side, k.i32(-1)));
            [
                k.choose(up, place, low),
                k.choose(down, place, high),
                k.choose(up, weight, light),
                k.choose(down, weight, heavy),
                k.choose(up, logit, low_logit),
                k.choose(down, logit, high_logit),
                k.choose(up, log, k.choose(high_again, half(low_log), low_log)),
                k.choose(down, log, k.choose(low_again, half(high_log), high_log)),
                k.choose(up, k.i32(1), k.choose(down, k.i32(-1), side)),
                k.add(turn, k.i32(1)),
            ]
        },
    );
    light
}
