//! Searches for thresholds. The threshold of a row is the largest place that the row reaches.
//!
//! All rows of a block are searched together until every row is done.

use crate::mlir::mosaic::{Kernel, Value};
use crate::semantics::arith::Arith;

/// After this number of quarterings, the search checks whether all rows are done. A check costs as much as a
/// quartering.
const STEPS_PER_CHECK: usize = 2;

/// The result of a search's probe at one place.
pub(super) struct Probe {
    /// Whether the row reaches the place: the place is at or below the threshold.
    pub(super) reaches: Value,
    /// Whether the search may stop at this place, if the row reaches it.
    pub(super) exact: Option<Value>,
}

impl Probe {
    /// Returns the probe for the number of entries at or above a place. The search is for a place that `wanted` entries
    /// reach.
    pub(super) fn count(k: &Kernel, count: Value, wanted: Value) -> Probe {
        Probe { reaches: k.ge(count, wanted), exact: Some(k.eq(count, wanted)) }
    }
}

/// Returns, for each row, the largest place in `low..high` that the row reaches. Every row must reach `low`. If a row
/// does not reach a place, it must not reach any larger place.
///
/// Each step probes three places and quarters the range. Three probes cost little more than one, because most of the
/// time is the latency of sums over lanes.
pub(super) fn search(
    k: &Kernel,
    label: &str,
    low: Value,
    high: Value,
    probe: impl Fn(Value) -> Probe,
) -> Value {
    let (low, high) = (k.splat(low), k.splat(high));
    let [low, _] = k.while_loop(
        label,
        [low, high],
        |[low, high]| k.any(is_open(k, low, high)),
        |[mut low, mut high]| {
            for _ in 0..STEPS_PER_CHECK {
                (low, high) = quarter(k, low, high, &probe);
            }
            [low, high]
        },
    );
    low
}

/// Like [`search`], but over a range of at most `length` places in every row. It does not check whether the rows are
/// done.
pub(super) fn search_within(
    k: &Kernel,
    label: &str,
    range: [Value; 2],
    length: usize,
    probe: impl Fn(Value) -> Probe,
) -> Value {
    let (mut left, mut steps) = (length, 0);
    while left > 1 {
        left = left.div_ceil(4);
        steps += 1;
    }
    search_steps(k, label, range, steps, probe)[0]
}

/// Returns the range that remains of `range` after this number of quarterings of a [`search`].
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

/// Like [`search`], but halves the range in each step. It is for probes that are passes over the rows.
pub(super) fn bisect(
    k: &Kernel,
    label: &str,
    low: Value,
    high: Value,
    probe: impl Fn(Value) -> Probe,
) -> Value {
    let [low, _] = k.while_loop(
        label,
        [k.splat(low), k.splat(high)],
        |[low, high]| k.any(is_open(k, low, high)),
        |[low, high]| {
            let middle = middle(k, low, high);
            let probe = probe(middle);
            let open = is_open(k, low, high);
            let up = k.both(open, probe.reaches);
            let down = k.both(open, k.not(probe.reaches));
            let high = k.choose(down, middle, high);
            let done = probe.exact.map(|exact| k.choose(k.both(up, exact), k.add(middle, k.i32(1)), high));
            [k.choose(up, middle, low), done.unwrap_or(high)]
        },
    );
    low
}

/// Whether more than one place is left between `low` and `high`.
pub(super) fn is_open(k: &Kernel, low: Value, high: Value) -> Value {
    k.lt(k.add(low, k.i32(1)), high)
}

/// Returns the floor of the average. It cannot overflow.
pub(super) fn middle(k: &Kernel, low: Value, high: Value) -> Value {
    k.add(k.and(low, high), k.shr(k.xor(low, high), 1))
}

/// Makes one step of a search. A row whose range contains one place is done and does not change.
fn quarter(k: &Kernel, low: Value, high: Value, probe: &impl Fn(Value) -> Probe) -> (Value, Value) {
    // The shift is unsigned, because a range of keys can be longer than the largest signed integer.
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
