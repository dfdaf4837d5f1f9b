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
use super::lane_sums::Split;
use super::threshold_search::{is_open, middle};
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::Value;
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::NEG_INF_KEY;

/// A search interpolates in this number of steps before it starts to halve the range in every second step.
const INTERPOLATIONS: i32 = 5;
/// The number of values in a [`Range`].
const VALUES: usize = 14;
/// A range is narrow if it contains at most this number of entries. The number of entries in a range is an estimate.
const NARROW: f32 = 160.0;
// To estimate the number of entries in a range, the search for the top-p threshold divides their weight by the least
// weight. So a narrow range has at most `NARROW` entries, apart from the rounding of the estimate. The sum of the
// weights of so few entries is exact.
const _: () = assert!((NARROW as usize) < Split::WEIGHTS / 2);
/// An end of a wide range is near the threshold if at most this number of entries are between them. If only one end is
/// near, the next probe is on the other side of the threshold.
const NEAR: f32 = 110.0;
/// The distance of this probe from the threshold has two terms. The first term is this number of entries.
const MARGIN: f32 = 16.0;
/// The second term is this part of the distance between the near end and the threshold.
const PART_OF_DISTANCE: f32 = 0.15;

/// An end of the range of a search.
#[derive(Clone, Copy)]
pub(super) struct RangeEnd {
    /// The place, as a short key.
    pub(super) place: Value,
    /// The value of the place: see [`Probed::value`].
    pub(super) value: Value,
    /// The sum at the place: see [`Probed::sum`]. It has no meaning in a search without [`Search::narrow`].
    pub(super) sum: Wide,
    /// The logit of the place.
    logit: Value,
    /// The logarithm of the place: see [`Probed::log`]. If the same end moves in two consecutive steps, the Illinois
    /// method changes the logarithm of the other end. It halves the distance between this logarithm and the aim.
    log: Value,
}

/// The state of a search. The threshold is at or above the place of `low`, and below the place of `high`.
#[derive(Clone, Copy)]
pub(super) struct Range {
    /// The row reaches the place of this end.
    pub(super) low: RangeEnd,
    /// The row does not reach the place of this end.
    pub(super) high: RangeEnd,
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
    /// A count or a sum, depending on what is searched. For the top-k threshold, it is the number of entries at or
    /// above the place. For the top-p threshold, it is the sum of the weights of these entries. Only a search with
    /// [`Search::narrow`] needs it.
    pub(super) sum: Option<Wide>,
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
    /// Receives the order key of a place. Returns the result of the probe.
    pub(super) probe: P,
    /// The largest number of steps, if it is limited. A limited search can end before all rows are done.
    pub(super) most_steps: Option<i32>,
    /// If it is present, a row is done when its range is narrow.
    pub(super) narrow: Option<Narrow<'a>>,
}

/// The values and functions with which a search estimates the number of entries in a range.
pub(super) struct Narrow<'a> {
    /// The sums at the two places of [`Search::places`]: see [`Probed::sum`].
    pub(super) sums: [Wide; 2],
    /// A row reaches a place if the sum at the place is at least this number.
    pub(super) target: Wide,
    /// Receives the value of the lower end of a range. Returns a float: the least number that one entry of the range
    /// adds to the sum.
    pub(super) entry: &'a dyn Fn(Value) -> Value,
    /// Receives a float, which can be negative. Returns the logarithm at a place where the sum exceeds the target by
    /// this float.
    pub(super) log_beyond: &'a dyn Fn(Value) -> Value,
}

impl Narrow<'_> {
    /// Whether the range of a row is not narrow.
    pub(super) fn is_wide(&self, cx: &Context<'_>, range: &Range) -> Value {
        let k = cx.k;
        let inside = k.near(k.wsub(range.low.sum, range.high.sum));
        k.above(inside, k.fmul((self.entry)(range.low.value), k.f32(NARROW)))
    }

    /// Returns the logarithm at the place that the search should probe next. This is usually `aim`. If only one end of
    /// the range is near the threshold, the place is on the other side of the threshold. Then the other end also
    /// becomes near.
    fn aim(&self, cx: &Context<'_>, range: &Range, aim: Value) -> Value {
        let k = cx.k;
        let entry = (self.entry)(range.low.value);
        let side = |distance: Wide| {
            let distance = k.near(distance);
            let near = k.above(k.fmul(entry, k.f32(NEAR)), distance);
            let margin = k.fmul(entry, k.f32(MARGIN));
            (near, k.fadd(margin, k.fmul(distance, k.f32(PART_OF_DISTANCE))))
        };
        let (low_near, above) = side(k.wsub(range.low.sum, self.target));
        let (high_near, below) = side(k.wsub(self.target, range.high.sum));
        let beyond = k.choose(low_near, k.fsub(k.f32(0.0), above), below);
        let one = k.ne(k.one_where(low_near), k.one_where(high_near));
        k.choose(one, (self.log_beyond)(beyond), aim)
    }
}

impl Range {
    fn to_array(self) -> [Value; VALUES] {
        let Range { low, high, moved, step } = self;
        [
            low.sum.low,
            low.sum.high,
            high.sum.low,
            high.sum.high,
            low.place,
            high.place,
            low.value,
            high.value,
            low.logit,
            high.logit,
            low.log,
            high.log,
            moved,
            step,
        ]
    }

    fn from_array(values: [Value; VALUES]) -> Range {
        let end = |end: usize| RangeEnd {
            place: values[4 + end],
            value: values[6 + end],
            sum: Wide { low: values[2 * end], high: values[2 * end + 1] },
            logit: values[8 + end],
            log: values[10 + end],
        };
        Range { low: end(0), high: end(1), moved: values[12], step: values[13] }
    }

    /// Returns the next place to probe. Any place between the ends is correct, so rounding does not matter here.
    fn guess(&self, cx: &Context<'_>, aim: Value) -> Value {
        let k = cx.k;
        let part = k.divide(k.fsub(aim, self.low.log), k.fsub(self.high.log, self.low.log));
        let part = k.fmax(k.fmin(part, k.f32(0.98)), k.f32(0.02));
        let length = k.fsub(self.high.logit, self.low.logit);
        let logit = k.fadd(self.low.logit, k.fmul(part, length));
        let key = cx.short_key(order_keys(k, logit));
        let key = k.any_is_correct(key, "the probed place is limited to the range");
        let guess = k.max(k.min(key, k.sub(self.high.place, k.i32(1))), k.add(self.low.place, k.i32(1)));
        let middle = middle(k, self.low.place, self.high.place);
        let odd = k.eq(k.and(self.step, k.i32(1)), k.i32(1));
        let halve = k.splat(k.both(odd, k.lt(k.i32(INTERPOLATIONS), self.step)));
        // The result of the interpolation has no meaning if an end or the difference of the ends is not finite.
        let finite = k.above(k.f32(f32::MAX), length);
        let interpolate = k.both(finite, k.not(halve));
        let interpolate = k.any_is_correct(interpolate, "the search can probe any place in the range");
        k.choose(interpolate, guess, middle)
    }

    /// Returns the range after a probe. In the rows of `open`, one end moves to the probed place or to a neighbor of
    /// this place.
    fn narrowed(self, cx: &Context<'_>, aim: Value, place: Value, probed: &Probed, open: Value) -> Range {
        let k = cx.k;
        let logit = float_of_key(k, cx.full_key(place));
        let up = k.both(open, probed.reaches);
        let down = k.both(open, k.not(probed.reaches));
        let (mut places, mut logits) = ([place; 2], [logit; 2]);
        if let Some(Neighbors { below, above }) = probed.neighbors {
            let [below_key, above_key] = [below, above].map(|logit| cx.short_key(order_keys(k, logit)));
            places[0] = k.max(place, k.min(above_key, k.sub(self.high.place, k.i32(1))));
            places[1] = k.max(k.min(place, k.add(below_key, k.i32(1))), k.add(self.low.place, k.i32(1)));
            let known =
                k.both(k.lt(k.i32(NEG_INF_KEY), order_keys(k, above)), k.above(k.f32(f32::INFINITY), below));
            logits = [above, below].map(|neighbor| k.choose(known, neighbor, logit));
        }
        let halved = |end: Value| k.fmul(k.fadd(end, aim), k.f32(0.5));
        let low_again = k.both(up, k.eq(self.moved, k.i32(1)));
        let high_again = k.both(down, k.eq(self.moved, k.i32(-1)));
        let ends = [(up, high_again, self.low), (down, low_again, self.high)];
        let [low_place, high_place] = [0, 1].map(|i| k.choose(ends[i].0, places[i], ends[i].2.place));
        let [low_value, high_value] = ends.map(|(moves, _, end)| k.choose(moves, probed.value, end.value));
        let [low_sum, high_sum] =
            ends.map(|(moves, _, end)| probed.sum.map_or(end.sum, |sum| k.wselect(moves, sum, end.sum)));
        let [low_logit, high_logit] = [0, 1].map(|i| k.choose(ends[i].0, logits[i], ends[i].2.logit));
        let [low_log, high_log] = ends.map(|(moves, other_again, end)| {
            k.choose(moves, probed.log, k.choose(other_again, halved(end.log), end.log))
        });
        Range {
            low: RangeEnd {
                place: low_place,
                value: low_value,
                sum: low_sum,
                logit: low_logit,
                log: low_log,
            },
            high: RangeEnd {
                place: high_place,
                value: high_value,
                sum: high_sum,
                logit: high_logit,
                log: high_log,
            },
            moved: k.choose(up, k.i32(1), k.choose(down, k.i32(-1), self.moved)),
            step: k.add(self.step, k.i32(1)),
        }
    }
}

impl<O: Fn(Value, Value) -> Value, P: Fn(Value) -> Probed> Search<'_, O, P> {
    /// Returns the range at the end of the search.
    pub(super) fn run(&self, cx: &Context<'_>) -> Range {
        self.run_from(cx, self.start(cx))
    }

    /// Returns the range at the start of the search.
    fn start(&self, cx: &Context<'_>) -> Range {
        let k = cx.k;
        let places = self.places.map(|place| k.splat(place));
        let values = self.values.map(|value| k.splat(value));
        let zero = k.wide(0);
        let sums = self.narrow.as_ref().map_or([zero; 2], |narrow| narrow.sums);
        let sums = sums.map(|sum| Wide { low: k.splat(sum.low), high: k.splat(sum.high) });
        let logits = self.ends.map(|end| k.splat(end.logit));
        let logs = self.ends.map(|end| k.splat(end.log));
        let [low, high] = [0, 1].map(|i| RangeEnd {
            place: places[i],
            value: values[i],
            sum: sums[i],
            logit: logits[i],
            log: logs[i],
        });
        Range { low, high, moved: k.splat(k.i32(0)), step: k.i32(0) }
    }

    /// Whether the threshold of a row is not known yet.
    pub(super) fn is_open(&self, cx: &Context<'_>, range: &Range) -> Value {
        cx.k.both(
            is_open(cx.k, range.low.place, range.high.place),
            (self.open)(range.low.value, range.high.value),
        )
    }

    /// Whether the search of a row must continue.
    fn continues(&self, cx: &Context<'_>, range: &Range) -> Value {
        let open = self.is_open(cx, range);
        self.narrow.as_ref().map_or(open, |narrow| cx.k.both(open, narrow.is_wide(cx, range)))
    }

    /// Continues a search from a range. Returns the range at the end of the search.
    pub(super) fn run_from(&self, cx: &Context<'_>, start: Range) -> Range {
        let k = cx.k;
        let aim = k.splat(self.aim);
        let found = k.while_loop(
            self.label,
            start.to_array(),
            |state| {
                let range = Range::from_array(state);
                let open = k.any_row(self.continues(cx, &range));
                let within = |most| {
                    let within = k.lt(range.step, k.i32(most));
                    k.any_is_correct(within, "another search continues from the range of this search")
                };
                self.most_steps.map_or(open, |most| k.both(open, within(most)))
            },
            |state| {
                let range = Range::from_array(state);
                let open = self.continues(cx, &range);
                let next = self.narrow.as_ref().map_or(aim, |narrow| narrow.aim(cx, &range, aim));
                let place = k.choose(open, range.guess(cx, next), range.low.place);
                let probed = (self.probe)(cx.full_key(place));
                range.narrowed(cx, aim, place, &probed, open).to_array()
            },
        );
        Range::from_array(found)
    }
}
