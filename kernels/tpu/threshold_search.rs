//! Searches for thresholds. The threshold of a row is the largest place that the row reaches.
//!
//! All rows of a block are searched together until every row is done.
//!
//! If the stripes of a row are copies ([`Kernel::in_copies`]), each copy probes different places. Then one sum over
//! lanes gives the results for one place of each copy.

use super::lane_sums::ones;
use crate::mlir::mosaic::{Kernel, Reduce, Value, SUBLANES};
use crate::semantics::arith::Arith;

/// If rows have no copies, a search checks after this number of steps whether all rows are done. A check costs as much
/// as a step. A search for a value always makes this number of steps per check, because its check also counts values.
const STEPS_PER_CHECK: usize = 2;

/// The number of places that each copy of a row probes in one step.
const PLACES_OF_COPY: usize = 2;

/// Returns the number of parts into which a step divides the range.
pub(super) fn parts_per_step(k: &Kernel) -> usize {
    match k.copies() {
        1 => 4,
        copies => PLACES_OF_COPY * copies,
    }
}

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

/// The question that a search asks at each place.
pub(super) struct Question<P, D> {
    /// Receives a place and returns registers of floats. Their sums over the row must be exact.
    pub(super) terms: P,
    /// Receives these sums and returns the probe.
    pub(super) decide: D,
}

impl<P: Fn(Value) -> Vec<Value>, D: Fn(&[Value]) -> Probe> Question<P, D> {
    fn probe(&self, k: &Kernel, place: Value) -> Probe {
        let terms = (self.terms)(place);
        let sums: Vec<Value> = terms.iter().map(|&term| k.over_row(Reduce::Add, term)).collect();
        (self.decide)(&sums)
    }
}

/// Returns, for each row, the largest place in `low..high` that the row reaches. Every row must reach `low`. If a row
/// does not reach a place, it must not reach any larger place.
///
/// Each step probes three places and quarters the range. Three probes cost little more than one, because most of the
/// time is the latency of sums over lanes. The copies of a row together probe more places.
pub(super) fn search(
    k: &Kernel,
    label: &str,
    low: Value,
    high: Value,
    question: &Question<impl Fn(Value) -> Vec<Value>, impl Fn(&[Value]) -> Probe>,
) -> Value {
    let (low, high) = (k.splat(low), k.splat(high));
    let steps = if k.copies() == 1 { STEPS_PER_CHECK } else { 1 };
    let [low, _] = k.while_loop(
        label,
        [low, high],
        |[low, high]| k.any_row(is_open(k, low, high)),
        |[mut low, mut high]| {
            for _ in 0..steps {
                (low, high) = step(k, low, high, question);
            }
            [low, high]
        },
    );
    low
}

/// Like [`search`], for ranges that usually need several steps. The first two steps are before the loop. So the loop
/// checks its condition one time less, and the compiler can schedule these steps together with other operations.
pub(super) fn search_after_steps(
    k: &Kernel,
    label: &str,
    [low, high]: [Value; 2],
    question: &Question<impl Fn(Value) -> Vec<Value>, impl Fn(&[Value]) -> Probe>,
) -> Value {
    let (low, high) = (0..STEPS_PER_CHECK).fold((low, high), |(low, high), _| step(k, low, high, question));
    search(k, label, low, high, question)
}

/// Like [`search`], for thresholds that are usually near the lower end of the range. The first step probes the places
/// `low + length / 2^shift` for each of the `shifts`, which must decrease. It is before the loop, together with `steps`
/// more steps, so the compiler can move it between other operations. If rows have copies, a step divides the range into
/// parts of the same length.
pub(super) fn search_from_low(
    k: &Kernel,
    label: &str,
    [low, high]: [Value; 2],
    (shifts, steps): ([u32; 3], usize),
    question: &Question<impl Fn(Value) -> Vec<Value>, impl Fn(&[Value]) -> Probe>,
) -> Value {
    if k.copies() > 1 {
        return search_after_steps(k, label, [low, high], question);
    }
    let length = k.sub(high, low);
    let places = shifts.map(|shift| {
        let rounded = k.add(length, k.i32((1 << shift) - 1));
        k.add(low, k.shift_right_zero(rounded, k.i32(shift as i32)))
    });
    let first = probe_three(k, low, high, places, |place| question.probe(k, place));
    let (low, high) = (0..steps).fold(first, |(low, high), _| step(k, low, high, question));
    search(k, label, low, high, question)
}

/// Like [`search`], but the result is one of the `values` of the row: the least value at or above the place that
/// [`search`] returns. So a row is done when its range contains only one of the values.
///
/// `float` converts values to floats in the same order, because the hardware finds the least lane only among floats.
/// Returns the float of the result.
pub(super) fn search_for_value(
    k: &Kernel,
    label: &str,
    range: [Value; 2],
    values: &[Value],
    question: &Question<impl Fn(Value) -> Vec<Value>, impl Fn(&[Value]) -> Probe>,
    float: impl Fn(Value) -> Value,
) -> Value {
    let steps = |[mut low, mut high]: [Value; 2]| {
        for _ in 0..STEPS_PER_CHECK {
            (low, high) = step(k, low, high, question);
        }
        let inside = |&value: &Value| k.both(k.ge(value, low), k.lt(value, high));
        let inside = ones(k, values.iter().map(inside));
        let several = k.above(k.over_row(Reduce::Add, inside), k.f32(1.0));
        [low, k.choose(several, high, k.add(low, k.i32(1)))]
    };
    let range = range.map(|end| k.splat(end));
    // In small batches, the first iteration is before the loop. So the loop checks its condition one time less.
    let range = if is_small(k) { steps(range) } else { range };
    let [low, _] = k.while_loop(label, range, |[low, high]| k.any_row(is_open(k, low, high)), steps);
    let reached = |&value: &Value| k.choose(k.ge(value, low), float(value), k.f32(f32::INFINITY));
    let least = values.iter().map(reached).reduce(|a, b| k.fmin(a, b)).expect("there are values");
    k.over_row(Reduce::Min, least)
}

/// Like [`search`], but over a range of at most `length` places in every row. It does not check whether the rows are
/// done.
pub(super) fn search_within(
    k: &Kernel,
    label: &str,
    range: [Value; 2],
    length: usize,
    question: &Question<impl Fn(Value) -> Vec<Value>, impl Fn(&[Value]) -> Probe>,
) -> Value {
    let (mut left, mut steps) = (length, 0);
    while left > 1 {
        left = left.div_ceil(parts_per_step(k));
        steps += 1;
    }
    loop_of_steps(k, label, range, steps, question)[0]
}

/// Returns the range that remains of `range` after this number of steps of a [`search`]. `length` is the length of the
/// range. At least the first step is before the loop. If the range is constant, the sums of this step do not wait for
/// the values that `question` compares them with.
pub(super) fn search_steps(
    k: &Kernel,
    label: &str,
    [low, high]: [Value; 2],
    (length, steps): (usize, usize),
    question: &Question<impl Fn(Value) -> Vec<Value>, impl Fn(&[Value]) -> Probe>,
) -> [Value; 2] {
    if is_small(k) {
        // The parts are constants, so the places of a step wait only for the lower end of the range.
        let mut range = (low, high, length);
        for _ in 0..steps {
            let part = range.2.div_ceil(parts_per_step(k));
            let (low, high) = step_of(k, range.0, range.1, k.i32(part as i32), question);
            range = (low, high, part);
        }
        return [range.0, range.1];
    }
    let (low, high) = step(k, low, high, question);
    loop_of_steps(k, label, [low, high], steps - 1, question)
}

fn loop_of_steps(
    k: &Kernel,
    label: &str,
    range: [Value; 2],
    steps: usize,
    question: &Question<impl Fn(Value) -> Vec<Value>, impl Fn(&[Value]) -> Probe>,
) -> [Value; 2] {
    k.for_each(label, k.i32(steps as i32), range, |_, [low, high]| {
        let (low, high) = step(k, low, high, question);
        [low, high]
    })
}

/// Whether more than one place is left between `low` and `high`.
pub(super) fn is_open(k: &Kernel, low: Value, high: Value) -> Value {
    k.lt(k.add(low, k.i32(1)), high)
}

/// Returns the floor of the average. It cannot overflow.
pub(super) fn middle(k: &Kernel, low: Value, high: Value) -> Value {
    k.add(k.and(low, high), k.shr(k.xor(low, high), 1))
}

/// Makes one step of a search. If the range of a row contains one place, it does not change. More than three probes in
/// each sublane would take more time, because their values would not fit the registers.
fn step(
    k: &Kernel,
    low: Value,
    high: Value,
    question: &Question<impl Fn(Value) -> Vec<Value>, impl Fn(&[Value]) -> Probe>,
) -> (Value, Value) {
    step_of(k, low, high, part_of(k, low, high), question)
}

/// Makes one step of a search. `part` is the length of the parts.
fn step_of(
    k: &Kernel,
    low: Value,
    high: Value,
    part: Value,
    question: &Question<impl Fn(Value) -> Vec<Value>, impl Fn(&[Value]) -> Probe>,
) -> (Value, Value) {
    let probe = |place| question.probe(k, place);
    match k.copies() {
        1 => quarter(k, low, high, part, probe),
        _ => divide(k, low, high, part, probe),
    }
}

/// Whether the rows of a block have several stripes. Their steps take little time, so they need not be in a loop.
fn is_small(k: &Kernel) -> bool {
    k.stripes() * k.copies() > 1
}

/// Returns the length of the parts into which a step divides a range, rounded up.
fn part_of(k: &Kernel, low: Value, high: Value) -> Value {
    let parts = parts_per_step(k) as i32;
    // The shift is unsigned, because a range of keys can be longer than the largest signed integer.
    let rounded = k.add(k.sub(high, low), k.i32(parts - 1));
    k.shift_right_zero(rounded, k.i32(parts.trailing_zeros() as i32))
}

/// Makes a step in which each copy of a row probes [`PLACES_OF_COPY`] places. The step divides the range into parts of
/// the length `part`. The last part can be shorter.
fn divide(
    k: &Kernel,
    low: Value,
    high: Value,
    part: Value,
    probe: impl Fn(Value) -> Probe,
) -> (Value, Value) {
    // More than the number of places of a step.
    const EXACT: i32 = 64;
    const { assert!(PLACES_OF_COPY * SUBLANES < EXACT as usize) };
    let copy = k.copy();
    let probed = (0..PLACES_OF_COPY).map(|number| {
        let copy = k.add(copy, k.i32((number * k.copies()) as i32));
        let place = k.add(low, k.mul(copy, part));
        let Probe { reaches, exact } = probe(place);
        // The first copy probes `low` first. Every row reaches `low`, so this probe does not count.
        let inside = k.lt(place, high);
        let inside = if number == 0 { k.both(inside, k.lt(k.i32(0), copy)) } else { inside };
        let one = match exact {
            Some(exact) => k.choose(exact, k.i32(1 + EXACT), k.i32(1)),
            None => k.i32(1),
        };
        (k.choose(k.both(reaches, inside), one, k.i32(0)), exact.is_some())
    });
    let (sum, has_exact) = probed.reduce(|a, b| (k.add(a.0, b.0), a.1)).expect("a copy probes a place");
    let sum = k.over_copies(Reduce::Add, sum);
    // The places that the row reaches come before the other places. If any of them is exact, the last of them is exact.
    let (reached, above) = match has_exact {
        true => (k.and(sum, k.i32(EXACT - 1)), k.choose(k.ge(sum, k.i32(EXACT)), k.i32(1), part)),
        false => (sum, part),
    };
    let new_low = k.add(low, k.mul(part, reached));
    (new_low, k.min(high, k.add(new_low, above)))
}

/// Makes a step that divides the range into quarters of the length `part`.
fn quarter(
    k: &Kernel,
    low: Value,
    high: Value,
    part: Value,
    probe: impl Fn(Value) -> Probe,
) -> (Value, Value) {
    let middle = k.add(low, k.add(part, part));
    probe_three(k, low, high, [k.add(low, part), middle, k.add(middle, part)], probe)
}

/// Makes a step that probes three places in ascending order. The first place is above `low`.
fn probe_three(
    k: &Kernel,
    low: Value,
    high: Value,
    places: [Value; 3],
    probe: impl Fn(Value) -> Probe,
) -> (Value, Value) {
    // A place after the range becomes the last place of the range.
    let last = k.sub(high, k.i32(1));
    let places = places.map(|place| k.min(place, last));
    let probes = places.map(&probe);
    // The row reaches `low`, and the places that it reaches come before the other places. The last place that it
    // reaches is `low` or one of the three places. `lows` and `highs` are the ends of the range that remains in each
    // case.
    let next = k.add(low, k.i32(1));
    let end_after = |number: usize, end: Value| match probes[number].exact {
        Some(exact) => k.choose(exact, k.add(places[number], k.i32(1)), end),
        None => end,
    };
    let lows = [low, places[0], places[1], places[2]];
    let highs = [
        k.choose(k.lt(places[0], next), next, places[0]),
        end_after(0, places[1]),
        end_after(1, places[2]),
        end_after(2, high),
    ];
    let reaches = probes.each_ref().map(|probe| probe.reaches);
    let of_last_reached = |values: [Value; 4]| {
        let upper = k.choose(reaches[2], values[3], values[2]);
        let lower = k.choose(reaches[0], values[1], values[0]);
        k.choose(reaches[1], upper, lower)
    };
    (of_last_reached(lows), of_last_reached(highs))
}
