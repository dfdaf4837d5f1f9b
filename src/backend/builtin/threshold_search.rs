//! Threshold search: finds the largest threshold for which the values at or above it reach a given count or sum.
//!
//! Top-k and top-p use the same search: top-k counts keys, and top-p sums weights. The search does not sort. The range
//! that contains the threshold is called the bracket. If there is an estimate of the threshold, the first pass removes
//! the values above the estimate. Each other pass measures the values at or above a few pivots. Then it narrows the
//! bracket and removes the values outside the bracket. In short arrays, the first passes remove no values.

use fearless_simd::{dispatch, i32x16, prelude::*, Level, Simd};

use super::lanes::{load, push, total, Lanes, WeightSum, LANES};
use crate::semantics::arith::Arith;
use crate::semantics::sizes::SUMMABLE;

/// The value that pads an array to whole vectors. Every threshold is larger.
pub(super) const PAD: i32 = i32::MIN;

/// The value of [`Goal::hint`] if there is no estimate.
pub(super) const NO_HINT: i32 = i32::MAX;

/// The number of pivots that one pass of the search compares with the values. More pivots and their measures need more
/// registers.
const PIVOTS: usize = 3;

/// What the search measures.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// The number of values.
    Count,
    /// The sum of the values, which are weights.
    Sum,
}

/// What to search for.
#[derive(Clone, Copy)]
pub(super) struct Goal {
    pub(super) measure: Measure,
    /// The measure that the values at or above the threshold must reach; at least 1.
    pub(super) target: u64,
    /// The search may return any threshold whose measure exceeds the target by at most this.
    pub(super) tolerance: u64,
    /// A threshold that is known to reach the target. It is above [`PAD`].
    pub(super) low: i32,
    /// The measure of the values at or above `low`.
    pub(super) reached: u64,
    /// The largest value, or an upper bound on it.
    pub(super) high: i32,
    /// The threshold is probably at most this value. It is [`NO_HINT`] if there is no estimate. It is not used for
    /// short arrays.
    pub(super) hint: i32,
}

/// A threshold and the measure of the values at or above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) threshold: i32,
    pub(super) measure: u64,
}

/// Finds the threshold of `values`. `values` consists of whole vectors, padded with [`PAD`], and must reach the target.
/// `spare` is at least as long as `values`.
///
/// The threshold may differ from every value, but the values at or above it are correct. If the measure exceeds the
/// target by more than the tolerance, the threshold of a count is one of the values.
pub(super) fn search(level: Level, values: &[i32], spare: &mut [i32], goal: Goal) -> Found {
    dispatch!(level, simd => match goal.measure {
        Measure::Count => search_impl::<_, false>(simd, values, spare, goal),
        Measure::Sum => search_impl::<_, true>(simd, values, spare, goal),
    })
}

/// The measure of the values at or above `threshold`.
pub(super) fn measure(level: Level, values: &[i32], measure: Measure, threshold: i32) -> u64 {
    dispatch!(level, simd => match measure {
        Measure::Count => measures::<_, false, 1>(simd, values, [threshold])[0],
        Measure::Sum => measures::<_, true, 1>(simd, values, [threshold])[0],
    })
}

/// Copies the values that are at least `low` to `to`, in order, and pads them to whole vectors with [`PAD`]. `values`
/// consists of whole vectors. Returns the padded length.
pub(super) fn copy_at_least(level: Level, values: &[i32], to: &mut [i32], low: i32) -> usize {
    let len = dispatch!(level, simd => {
        let mut len = 0;
        for vector in values.as_chunks::<LANES>().0 {
            let x: i32x16<_> = load(simd, vector);
            len = push(to, len, x, x.simd_ge(low));
        }
        len
    });
    pad(to, len);
    len.next_multiple_of(LANES)
}

/// Pads an array of `len` elements to whole vectors with [`PAD`].
pub(super) fn pad(values: &mut [i32], len: usize) {
    values[len..len.next_multiple_of(LANES)].fill(PAD);
}

/// The range that contains the threshold, and the measures at its ends.
#[derive(Clone, Copy)]
struct Bracket {
    low: i32,
    high: i32,
    /// The measure of the values at or above `low`. It reaches the target.
    reached: u64,
    /// The measure of the values above `high`. It does not reach the target.
    above: u64,
}

impl Bracket {
    /// Whether `low` is a threshold that the search may return.
    #[inline(always)]
    fn is_narrow_enough<const SUM: bool>(&self, goal: &Goal) -> bool {
        // No weight in the bracket is below `low`. If the sum of the bracket is less than twice `low`, the bracket
        // contains only one weight.
        let one_weight = SUM && self.reached - self.above < 2 * self.low as u64;
        self.low >= self.high || one_weight || self.reached <= goal.target + goal.tolerance
    }

    /// Narrows the bracket to the part between two adjacent pivots. `active` contains all values in the bracket.
    /// `counted` is the measure of the values above the bracket that `active` does not contain.
    #[inline(always)]
    fn divide<S: Simd, const SUM: bool>(
        &mut self,
        simd: S,
        active: &[i32],
        counted: u64,
        goal: &Goal,
        pivots: [i32; PIVOTS],
    ) {
        let measured = measures::<S, SUM, PIVOTS>(simd, active, pivots);
        // The measures decrease, so the pivots that reach the target precede the other ones. These loops select values
        // without branches, because the processor could not predict the branches.
        let (mut low, mut high, mut reached, mut above) = (self.low, self.high, self.reached, self.above);
        for i in 0..PIVOTS {
            let measure = counted + measured[i];
            let enough = measure >= goal.target;
            (low, reached) = if enough { (pivots[i], measure) } else { (low, reached) };
        }
        for i in (0..PIVOTS).rev() {
            let measure = counted + measured[i];
            let enough = measure >= goal.target;
            (high, above) = if enough { (high, above) } else { (pivots[i] - 1, measure) };
        }
        *self = Bracket { low, high, reached, above };
    }
}

/// In an array of up to this length, measuring all values takes less time than removing the values outside the bracket.
const SHORT: usize = 16 * LANES;
/// The number of passes over a short array before values are removed.
const SHORT_PASSES: usize = 5;

#[inline(always)]
fn search_impl<S: Simd, const SUM: bool>(simd: S, values: &[i32], spare: &mut [i32], goal: Goal) -> Found {
    let mut bracket = Bracket { low: goal.low, high: goal.high, reached: goal.reached, above: 0 };
    // The length of the part of `spare` that holds the values in the bracket, including padding. `None` until the
    // values outside the bracket are removed.
    let mut narrowed: Option<usize> = None;
    let hint = goal.hint;
    let mut at_ends = hint <= bracket.low || hint == bracket.high;
    if values.len() <= SHORT {
        for _ in 0..SHORT_PASSES {
            if bracket.is_narrow_enough::<SUM>(&goal) {
                return Found { threshold: bracket.low, measure: bracket.reached };
            }
            let (low, high) = (bracket.low, bracket.high);
            bracket.divide::<S, SUM>(simd, values, 0, &goal, even_pivots::<SUM>(low, high));
        }
        let (len, least, most) = narrow(simd, values, spare, bracket.low, bracket.high);
        narrowed = Some(len);
        (bracket.low, bracket.high) = (least, most);
        at_ends = true;
    } else if bracket.low < hint && hint < bracket.high {
        // Usually, few values are between `low` and the hint. So this pass usually removes most values.
        let (len, least, most) = narrow(simd, values, spare, bracket.low, hint);
        let above_hint = bracket.reached - measures::<S, SUM, 1>(simd, &spare[..len], [bracket.low])[0];
        if above_hint < goal.target {
            narrowed = Some(len);
            bracket = Bracket { low: least, high: most, above: above_hint, ..bracket };
        } else {
            (bracket.low, bracket.reached) = (hint + 1, above_hint);
        }
    }
    while !bracket.is_narrow_enough::<SUM>(&goal) {
        let active = match narrowed {
            None => values,
            Some(len) => &spare[..len],
        };
        let Bracket { low, high, above, .. } = bracket;
        let pivots = if at_ends { end_pivots::<SUM>(low, high) } else { even_pivots::<SUM>(low, high) };
        bracket.divide::<S, SUM>(simd, active, above, &goal, pivots);
        if bracket.is_narrow_enough::<SUM>(&goal) {
            break;
        }
        let Bracket { low, high, .. } = bracket;
        let (len, least, most) = match narrowed {
            None => narrow(simd, values, spare, low, high),
            Some(len) => narrow_in_place(simd, spare, len, low, high),
        };
        narrowed = Some(len);
        at_ends = false;
        // No value lies between `low` and the least value of the bracket. So `reached` does not change.
        (bracket.low, bracket.high) = (least, most);
    }
    Found { threshold: bracket.low, measure: bracket.reached }
}

/// Returns pivots in `low + 1..=high` that divide the bracket into equal parts. The pivots for keys are evenly spaced,
/// because keys are already approximately logarithmic. The pivots for weights are geometrically spaced, because most
/// weights are small.
#[inline(always)]
fn even_pivots<const SUM: bool>(low: i32, high: i32) -> [i32; PIVOTS] {
    let mut pivots = [0; PIVOTS];
    for (i, pivot) in pivots.iter_mut().enumerate() {
        *pivot = pivot_at::<SUM>(low, high, i as u64 + 1, PIVOTS as u64 + 1);
    }
    pivots
}

/// Returns pivots for a threshold that is probably `low` or `high`, because many values are equal to the threshold. The
/// first pivot and the last pivot are at or near the ends of `low + 1..=high`. Their measures show whether the
/// threshold is at an end.
#[inline(always)]
fn end_pivots<const SUM: bool>(low: i32, high: i32) -> [i32; PIVOTS] {
    [low + 1, pivot_at::<SUM>(low, high, 1, 2), high]
}

/// The pivot at `number / parts` of the bracket.
#[inline(always)]
fn pivot_at<const SUM: bool>(low: i32, high: i32, number: u64, parts: u64) -> i32 {
    let scaled = |x: i32| if SUM { (x as f32).to_bits() as i32 } else { x };
    let (from, to) = (scaled(low), scaled(high));
    let distance = u64::from(to.wrapping_sub(from) as u32);
    let at = from.wrapping_add((distance * number).div_ceil(parts) as i32);
    let pivot = if SUM { f32::from_bits(at as u32) as i32 } else { at };
    pivot.clamp(low + 1, high)
}

/// For each pivot, the number of values at or above it.
#[inline(always)]
pub(super) fn counts<S: Simd, const N: usize>(simd: S, values: &[i32], pivots: [i32; N]) -> [u64; N] {
    measures::<S, false, N>(simd, values, pivots)
}

/// For each pivot, the measure of the values at or above it.
#[inline(always)]
fn measures<S: Simd, const SUM: bool, const N: usize>(simd: S, values: &[i32], pivots: [i32; N]) -> [u64; N] {
    let a = Lanes(simd);
    let mut limits = [a.int(0); N];
    for i in 0..N {
        limits[i] = a.int(pivots[i]);
    }
    let vectors = values.as_chunks::<LANES>().0;
    let mut totals = [0; N];
    if !SUM || vectors.len() <= SUMMABLE {
        let lanes = measures_of_lanes::<S, SUM, N>(simd, vectors, &limits);
        for i in 0..N {
            // A count fits 32 bits. Adding the lanes as 32-bit integers is faster than [`total`].
            totals[i] = if SUM { total(lanes[i]) } else { u64::from(lanes[i].reduce_sum() as u32) };
        }
        return totals;
    }
    let mut sums = [WeightSum::new(simd); N];
    for vectors in vectors.chunks(SUMMABLE) {
        let lanes = measures_of_lanes::<S, SUM, N>(simd, vectors, &limits);
        for i in 0..N {
            sums[i].add(lanes[i]);
        }
    }
    for i in 0..N {
        totals[i] = sums[i].total();
    }
    totals
}

/// The measures of the values of each lane. If `SUM` is true, there are at most [`SUMMABLE`] vectors.
#[inline(always)]
fn measures_of_lanes<S: Simd, const SUM: bool, const N: usize>(
    simd: S,
    vectors: &[[i32; LANES]],
    limits: &[i32x16<S>; N],
) -> [i32x16<S>; N] {
    let a = Lanes(simd);
    let mut lanes = [a.int(0); N];
    for vector in vectors {
        let x: i32x16<S> = load(simd, vector);
        for i in 0..N {
            let part = if SUM { x } else { a.int(1) };
            lanes[i] += x.simd_ge(limits[i]).select(part, a.int(0));
        }
    }
    lanes
}

/// Copies the values in `low..=high` to `to` and pads them to whole vectors. Returns the padded length, the least value
/// and the largest value.
#[inline(always)]
fn narrow<S: Simd>(simd: S, from: &[i32], to: &mut [i32], low: i32, high: i32) -> (usize, i32, i32) {
    let mut narrowing = Narrowing::new(simd, low, high);
    for vector in from.chunks_exact(LANES) {
        narrowing.push(load(simd, vector), to);
    }
    narrowing.finish(to)
}

/// [`narrow`] within one array. It only overwrites elements that it has already read.
#[inline(always)]
fn narrow_in_place<S: Simd>(
    simd: S,
    values: &mut [i32],
    len: usize,
    low: i32,
    high: i32,
) -> (usize, i32, i32) {
    let mut narrowing = Narrowing::new(simd, low, high);
    for at in (0..len).step_by(LANES) {
        narrowing.push(load(simd, &values[at..at + LANES]), values);
    }
    narrowing.finish(values)
}

struct Narrowing<S: Simd> {
    low: i32x16<S>,
    high: i32x16<S>,
    least: i32x16<S>,
    most: i32x16<S>,
    len: usize,
}

impl<S: Simd> Narrowing<S> {
    #[inline(always)]
    fn new(simd: S, low: i32, high: i32) -> Self {
        let a = Lanes(simd);
        let (least, most) = (a.int(i32::MAX), a.int(i32::MIN));
        Narrowing { low: a.int(low), high: a.int(high), least, most, len: 0 }
    }

    #[inline(always)]
    fn push(&mut self, x: i32x16<S>, to: &mut [i32]) {
        let inside = x.simd_ge(self.low) & x.simd_le(self.high);
        self.least = self.least.min(inside.select(x, self.least));
        self.most = self.most.max(inside.select(x, self.most));
        self.len = push(to, self.len, x, inside);
    }

    #[inline(always)]
    fn finish(self, to: &mut [i32]) -> (usize, i32, i32) {
        pad(to, self.len);
        (self.len.next_multiple_of(LANES), self.least.reduce_min(), self.most.reduce_max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::weights::MAX_WEIGHT;

    /// The threshold and its measure, computed by sorting.
    fn sorted(values: &[i32], measure: Measure, target: u64) -> Found {
        let mut descending = values.to_vec();
        descending.sort_unstable_by(|a, b| b.cmp(a));
        let part = |value: i32| if measure == Measure::Sum { value as u64 } else { 1 };
        let mut sum = 0;
        let reaches = |&&value: &&i32| {
            sum += part(value);
            sum >= target
        };
        let threshold = *descending.iter().find(reaches).expect("the target is reached");
        let measure = values.iter().filter(|&&value| value >= threshold).map(|&value| part(value)).sum();
        Found { threshold, measure }
    }

    #[test]
    fn finds_the_same_threshold_as_sorting() {
        let mut state = 1_u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 4
        };
        for round in 0..1200 {
            let len = 1 + random() as usize % 700;
            let range = [2, 30, MAX_WEIGHT as u32 + 1][round % 3];
            let measure = if round % 2 == 0 { Measure::Count } else { Measure::Sum };
            // Keys can be negative, but weights cannot.
            let least = if measure == Measure::Count { -(range as i32 / 2) } else { 1 };
            let mut values: Vec<i32> =
                (0..len).map(|_| (least + (random() % range) as i32).min(MAX_WEIGHT)).collect();
            values.resize(len.next_multiple_of(LANES), PAD);
            let any_value = |random: u32| values[random as usize % len];
            // Some values are below `low`.
            let low = if round % 4 < 2 { least } else { any_value(random()) };
            let part = |&value: &i32| if measure == Measure::Sum { value as u64 } else { 1 };
            let reached: u64 = values[..len].iter().filter(|&&value| value >= low).map(part).sum();
            let target = 1 + u64::from(random()) * 977 % reached;
            let tolerance = if round % 7 == 0 { target / 8 } else { 0 };
            let hint = match round % 5 {
                0 | 1 => any_value(random()),
                2 => low,
                3 => MAX_WEIGHT,
                _ => NO_HINT,
            };
            let goal = Goal { measure, target, tolerance, low, reached, high: MAX_WEIGHT, hint };
            let found = search(Level::new(), &values, &mut vec![0; values.len()], goal);
            let at_found: u64 =
                values[..len].iter().filter(|&&value| value >= found.threshold).map(part).sum();
            assert_eq!(found.measure, at_found, "the measure of the threshold");
            let expected = sorted(&values[..len], measure, target);
            assert!(found.threshold <= expected.threshold, "{target} of {len}");
            let most =
                if tolerance > 0 { expected.measure.max(target + tolerance) } else { expected.measure };
            assert!((expected.measure..=most).contains(&found.measure), "{target} of {len}");
        }
    }
}
