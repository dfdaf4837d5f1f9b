//! Searches for the top-p threshold, for the top-k threshold, and for a bound from the cells. Each probe of a search is
//! a pass over the entries of a block.
//!
//! The logarithm of the sum of the weights below a logit is nearly a linear function of the logit. The same is true for
//! the logarithm of the number of entries above a logit. So each step interpolates between the ends of the range. This
//! is the Illinois variant of the false position method (M. Dowell and P. Jarratt, "A modified regula falsi method for
//! computing the root of an equation", BIT 11, 1971). After the first steps, every second step halves the range
//! instead. This bounds the number of steps for any row.

use super::context::Context;
use super::keys::{float_of_key, order_keys};
use super::threshold_search::{is_open, middle};
use crate::mlir::mosaic::Value;
use crate::semantics::arith::Arith;
use crate::semantics::clean::NEG_INF_KEY;

/// A search interpolates in this number of steps before it starts to halve the range in every second step.
const INTERPOLATIONS: i32 = 5;
/// The number of values in a [`Range`].
const VALUES: usize = 10;

/// The state of a search. The threshold is in `low..high`.
#[derive(Clone, Copy)]
pub(super) struct Range {
    /// The ends, as short keys. The row reaches `low`, but not `high`.
    pub(super) low: Value,
    pub(super) high: Value,
    /// The values of the ends: see [`Probed::value`].
    pub(super) low_value: Value,
    pub(super) high_value: Value,
    /// The logits of the ends.
    low_logit: Value,
    high_logit: Value,
    /// The logarithms of the ends: see [`Probed::log`]. If the same end moves in two consecutive steps, the Illinois
    /// method changes the logarithm of the other end. It halves the distance of this logarithm from the aim.
    low_log: Value,
    high_log: Value,
    /// The end that moved last: 1 for `low`, −1 for `high`, 0 before the first step.
    moved: Value,
    /// The number of the step: a scalar.
    step: Value,
}

/// The result of a probe at a place.
pub(super) struct Probed {
    /// Whether the row reaches the place: the threshold is at or above the place.
    pub(super) reaches: Value,
    /// A number that decides whether the search is done: see [`Search::open`].
    pub(super) value: Value,
    /// A number that is nearly a linear function of the logit at the place. It is usually a logarithm. It need not be
    /// exact.
    pub(super) log: Value,
    /// The entries of the row that are next to the place, if they are known.
    pub(super) neighbors: Option<Neighbors>,
}

/// The logits of the entries next to a place. The ends of a range move to these entries, because no probe is necessary
/// between two adjacent entries. This saves steps near the threshold.
#[derive(Clone, Copy)]
pub(super) struct Neighbors {
    /// The largest logit below the place.
    pub(super) below: Value,
    /// The least logit at or above the place.
    pub(super) above: Value,
}

/// One of the two points between which the first step of a search interpolates.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub(super) logit: Value,
    pub(super) log: Value,
}

/// A search for the largest place that each row reaches. A place is a short key.
pub(super) struct Search<'a, O, P> {
    pub(super) label: &'a str,
    /// Every row reaches the first place, and no row reaches the second place. If the two places of a row differ by 1,
    /// the row is not searched.
    pub(super) places: [Value; 2],
    /// The values of these places.
    pub(super) values: [Value; 2],
    /// The points where the interpolation starts. They need not be the ends of the range, because every result of the
    /// interpolation is limited to the range.
    pub(super) ends: [End; 2],
    /// The logarithm at the threshold.
    pub(super) aim: Value,
    /// Receives the values of the ends of the range. Returns whether the search must continue.
    pub(super) open: O,
    /// Receives the order key of a place and the number of the step, and returns the result of the probe.
    pub(super) probe: P,
    /// The largest number of steps, if it is limited. A limited search can end before all rows are done.
    pub(super) most_steps: Option<i32>,
}

impl Range {
    fn to_array(self) -> [Value; VALUES] {
        let Range { low, high, low_value, high_value, low_logit, high_logit, .. } = self;
        let Range { low_log, high_log, moved, step, .. } = self;
        [low, high, low_value, high_value, low_logit, high_logit, low_log, high_log, moved, step]
    }

    fn from_array(values: [Value; VALUES]) -> Range {
        let [low, high, low_value, high_value, low_logit, high_logit, low_log, high_log, moved, step] =
            values;
        Range { low, high, low_value, high_value, low_logit, high_logit, low_log, high_log, moved, step }
    }

    /// Returns the next place to probe. Any place between the ends is correct, so rounding does not matter here.
    fn guess(&self, cx: &Context<'_>, aim: Value) -> Value {
        let k = cx.k;
        let part = k.divide(k.fsub(aim, self.low_log), k.fsub(self.high_log, self.low_log));
        let part = k.fmax(k.fmin(part, k.f32(0.98)), k.f32(0.02));
        let length = k.fsub(self.high_logit, self.low_logit);
        let logit = k.fadd(self.low_logit, k.fmul(part, length));
        let key = cx.short_key(order_keys(k, logit));
        let guess = k.max(k.min(key, k.sub(self.high, k.i32(1))), k.add(self.low, k.i32(1)));
        let middle = middle(k, self.low, self.high);
        let odd = k.eq(k.and(self.step, k.i32(1)), k.i32(1));
        let halve = k.splat(k.both(odd, k.lt(k.i32(INTERPOLATIONS), self.step)));
        // The result of the interpolation has no meaning if an end or the difference of the ends is not finite.
        let finite = k.above(k.f32(f32::MAX), length);
        k.choose(k.both(finite, k.not(halve)), guess, middle)
    }

    /// Returns the range after a probe. In the rows of `open`, one end moves to the probed place or to a neighbor of
    /// this place.
    fn narrowed(self, cx: &Context<'_>, aim: Value, place: Value, probed: &Probed, open: Value) -> Range {
        let k = cx.k;
        let logit = float_of_key(k, cx.full_key(place));
        let up = k.both(open, probed.reaches);
        let down = k.both(open, k.not(probed.reaches));
        let (mut low, mut high, mut low_logit, mut high_logit) = (place, place, logit, logit);
        if let Some(Neighbors { below, above }) = probed.neighbors {
            let [below_key, above_key] = [below, above].map(|logit| cx.short_key(order_keys(k, logit)));
            low = k.max(place, k.min(above_key, k.sub(self.high, k.i32(1))));
            high = k.max(k.min(place, k.add(below_key, k.i32(1))), k.add(self.low, k.i32(1)));
            let known =
                k.both(k.lt(k.i32(NEG_INF_KEY), order_keys(k, above)), k.above(k.f32(f32::INFINITY), below));
            low_logit = k.choose(known, above, logit);
            high_logit = k.choose(known, below, logit);
        }
        let halved = |end: Value| k.fmul(k.fadd(end, aim), k.f32(0.5));
        let low_again = k.both(up, k.eq(self.moved, k.i32(1)));
        let high_again = k.both(down, k.eq(self.moved, k.i32(-1)));
        Range {
            low: k.choose(up, low, self.low),
            high: k.choose(down, high, self.high),
            low_value: k.choose(up, probed.value, self.low_value),
            high_value: k.choose(down, probed.value, self.high_value),
            low_logit: k.choose(up, low_logit, self.low_logit),
            high_logit: k.choose(down, high_logit, self.high_logit),
            low_log: k.choose(up, probed.log, k.choose(high_again, halved(self.low_log), self.low_log)),
            high_log: k.choose(down, probed.log, k.choose(low_again, halved(self.high_log), self.high_log)),
            moved: k.choose(up, k.i32(1), k.choose(down, k.i32(-1), self.moved)),
            step: k.add(self.step, k.i32(1)),
        }
    }
}

impl<O: Fn(Value, Value) -> Value, P: Fn(Value, Value) -> Probed> Search<'_, O, P> {
    /// Returns the range at the end of the search.
    pub(super) fn run(&self, cx: &Context<'_>) -> Range {
        let k = cx.k;
        let [low, high] = self.places.map(|place| k.splat(place));
        let [low_value, high_value] = self.values.map(|value| k.splat(value));
        let [low_logit, high_logit] = self.ends.map(|end| k.splat(end.logit));
        let [low_log, high_log] = self.ends.map(|end| k.splat(end.log));
        let (moved, step) = (k.splat(k.i32(0)), k.i32(0));
        let aim = k.splat(self.aim);
        let start =
            Range { low, high, low_value, high_value, low_logit, high_logit, low_log, high_log, moved, step };
        let open = |range: &Range| {
            k.both(is_open(k, range.low, range.high), (self.open)(range.low_value, range.high_value))
        };
        let found = k.while_loop(
            self.label,
            start.to_array(),
            |state| {
                let range = Range::from_array(state);
                let open = k.any(open(&range));
                self.most_steps.map_or(open, |most| k.both(open, k.lt(range.step, k.i32(most))))
            },
            |state| {
                let range = Range::from_array(state);
                let open = open(&range);
                let place = k.choose(open, range.guess(cx, aim), range.low);
                let probed = (self.probe)(cx.full_key(place), range.step);
                range.narrowed(cx, aim, place, &probed, open).to_array()
            },
        );
        Range::from_array(found)
    }
}
