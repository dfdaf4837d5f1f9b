//! The search for a top-p threshold by passes over the entries.
//!
//! The logarithm of the weight below a logit is nearly a linear function of the logit. So each step interpolates
//! between the ends of the range. This is the Illinois variant of the false position method (M. Dowell and P. Jarratt,
//! "A modified regula falsi method for computing the root of an equation", BIT 11, 1971). Every fourth step halves the
//! range instead. This bounds the number of steps for any row.

use super::context::Context;
use super::keys::{float_of_key, order_keys};
use super::lane_sums::approximate_log2;
use super::sampling::Sampling;
use super::threshold_search::{is_open, middle};
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Kernel, Value};
use crate::semantics::arith::Arith;
use crate::semantics::weights::MAX_WEIGHT;

/// The number of values in a [`Range`].
const VALUES: usize = 10;

/// The state of a search. The threshold is between `low` and `high`.
#[derive(Clone, Copy)]
struct Range {
    /// The ends, as short keys. `low` reaches the target, but `high` does not.
    low: Value,
    high: Value,
    /// The weights of the ends.
    low_weight: Value,
    high_weight: Value,
    /// The logits of the ends.
    low_logit: Value,
    high_logit: Value,
    /// log₂ of the weight below each end. If one end moves twice in a row, the Illinois method halves the other
    /// end's distance from the aim.
    low_log: Value,
    high_log: Value,
    /// The end that moved last: 1 for `low`, −1 for `high`.
    moved: Value,
    /// The number of the step: a scalar.
    step: Value,
}

impl Range {
    fn to_array(self) -> [Value; VALUES] {
        let Range { low, high, low_weight, high_weight, low_logit, high_logit, .. } = self;
        let Range { low_log, high_log, moved, step, .. } = self;
        [low, high, low_weight, high_weight, low_logit, high_logit, low_log, high_log, moved, step]
    }

    fn from_array(values: [Value; VALUES]) -> Range {
        let [low, high, low_weight, high_weight, low_logit, high_logit, low_log, high_log, moved, step] =
            values;
        Range { low, high, low_weight, high_weight, low_logit, high_logit, low_log, high_log, moved, step }
    }

    /// Whether a place between the ends can have a weight that differs from the weights of the ends.
    fn is_open(&self, k: &Kernel) -> Value {
        k.both(is_open(k, self.low, self.high), is_open(k, self.low_weight, self.high_weight))
    }

    /// Returns the next place to probe. Any place between the ends is correct, so rounding does not matter here.
    fn guess(&self, cx: &Context<'_>, aim: Value) -> Value {
        let k = cx.k;
        let part = k.divide(k.fsub(aim, self.low_log), k.fsub(self.high_log, self.low_log));
        let part = k.fmax(k.fmin(part, k.f32(0.98)), k.f32(0.02));
        let logit = k.fadd(self.low_logit, k.fmul(part, k.fsub(self.high_logit, self.low_logit)));
        let key = cx.short_key(order_keys(k, logit));
        let guess = k.max(k.min(key, k.sub(self.high, k.i32(1))), k.add(self.low, k.i32(1)));
        let middle = middle(k, self.low, self.high);
        let halve = k.splat(k.eq(k.and(self.step, k.i32(3)), k.i32(3)));
        k.choose(halve, middle, guess)
    }

    /// Returns the range after a probe. `up` and `down` say which end moves to the probed place.
    fn narrowed(self, k: &Kernel, aim: Value, [up, down]: [Value; 2], probed: &Probed) -> Range {
        let halved = |end: Value| k.fmul(k.fadd(end, aim), k.f32(0.5));
        let low_again = k.both(up, k.eq(self.moved, k.i32(1)));
        let high_again = k.both(down, k.eq(self.moved, k.i32(-1)));
        Range {
            low: k.choose(up, probed.place, self.low),
            high: k.choose(down, probed.place, self.high),
            low_weight: k.choose(up, probed.weight, self.low_weight),
            high_weight: k.choose(down, probed.weight, self.high_weight),
            low_logit: k.choose(up, probed.logit, self.low_logit),
            high_logit: k.choose(down, probed.logit, self.high_logit),
            low_log: k.choose(up, probed.log, k.choose(high_again, halved(self.low_log), self.low_log)),
            high_log: k.choose(down, probed.log, k.choose(low_again, halved(self.high_log), self.high_log)),
            moved: k.choose(up, k.i32(1), k.choose(down, k.i32(-1), self.moved)),
            step: k.add(self.step, k.i32(1)),
        }
    }
}

/// The result of a probe at a place: the place (a short key), its weight, its logit, and log₂ of the sum of all smaller
/// weights.
struct Probed {
    place: Value,
    weight: Value,
    logit: Value,
    log: Value,
}

/// Returns the top-p threshold of each row. The threshold is a weight: that of a short key in `low..high`.
///
/// `total` is the sum of all weights. `allowed` is the part of this sum that top-p may remove. `probe` receives a
/// weight and returns two values. The first is whether the sum of all weights at or above this weight reaches the
/// target. The second is the sum of all weights below this weight.
pub(super) fn search_top_p(
    cx: &Context<'_>,
    sampling: &Sampling,
    (low, high): (Value, Value),
    (total, allowed): (Wide, Wide),
    probe: impl Fn(Value) -> (Value, Wide),
) -> Value {
    let k = cx.k;
    let aim = approximate_log2(k, allowed);
    let low_logit = k.fsub(sampling.max, sampling.distance_of(cx, allowed));
    let start = Range {
        low: k.splat(low),
        high: k.splat(high),
        low_weight: sampling.weight_of_key(cx, cx.full_key(low)),
        high_weight: k.splat(k.i32(MAX_WEIGHT + 1)),
        low_logit,
        high_logit: sampling.max,
        low_log: k.fsub(aim, k.f32(4.0)),
        high_log: approximate_log2(k, total),
        moved: k.splat(k.i32(0)),
        step: k.i32(0),
    };
    let found = k.while_loop(
        "top-p threshold, one pass per step",
        start.to_array(),
        |state| k.any(Range::from_array(state).is_open(k)),
        |state| {
            let range = Range::from_array(state);
            let guess = range.guess(cx, aim);
            let open = range.is_open(k);
            let place = k.choose(open, guess, range.low);

            let weight = sampling.weight_of_key(cx, cx.full_key(place));
            let (reaches, below) = probe(weight);
            let moves = [k.both(open, reaches), k.both(open, k.not(reaches))];
            let logit = float_of_key(k, cx.full_key(place));
            let log = approximate_log2(k, below);
            range.narrowed(k, aim, moves, &Probed { place, weight, logit, log }).to_array()
        },
    );
    Range::from_array(found).low_weight
}
