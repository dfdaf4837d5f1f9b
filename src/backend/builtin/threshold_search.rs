//! Threshold search: finds the largest threshold for which the values at or above it reach a given count or sum.
//!
//! Top-k and top-p use the same search: top-k counts keys, and top-p sums weights. The search does not sort. Each pass
//! measures the values at or above three pivots, narrows the bracket that holds the threshold, and removes the values
//! outside it.

use fearless_simd::{dispatch, i32x16, prelude::*, Level, Simd};

use super::lanes::{load, push, total, Lanes, WeightSum, LANES};
use crate::semantics::arith::Arith;
use crate::semantics::sizes::SUMMABLE;

/// The value that pads an array to whole vectors. Every threshold is larger.
pub(super) const PAD: i32 = i32::MIN;

/// See [`Goal::hint`].
pub(super) const NO_HINT: i32 = i32::MAX;

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
    /// The measure of the values at or above `low`, if it is known.
    pub(super) reached: Option<u64>,
    /// The largest value, or an upper bound on it.
    pub(super) high: i32,
    /// The threshold is probably at most this value. [`NO_HINT`] if there is no estimate.
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
/// The search stops when the measure is within the tolerance of the target. The threshold may then differ from every
/// value. The values at or above it are correct.
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

/// Pads an array of `len` elements to whole vectors with [`PAD`].
pub(super) fn pad(values: &mut [i32], len: usize) {
    values[len..len.next_multiple_of(LANES)].fill(PAD);
}

#[inline(always)]
fn search_impl<S: Simd, const SUM: bool>(simd: S, values: &[i32], spare: &mut [i32], goal: Goal) -> Found {
    // The bracket: the threshold lies in `low..=high`, and `above` is the measure of the values above `high`.
    let (mut low, mut high, mut above) = (goal.low, goal.high, 0);
    // After the first pass: the length of the part of `spare` that holds the values in the bracket, including padding.
    let mut narrowed: Option<usize> = None;
    let mut hint = goal.hint;
    // The measure of the values at or above `low`, once it is known.
    let mut reached = goal.reached;
    if let Some(all) = reached.filter(|_| low < hint && hint < high) {
        // Few values are between `low` and the hint, so one pass that collects them leaves little to measure.
        let (len, least, most) = narrow(simd, values, spare, low, hint);
        let over_hint = all - measures::<S, SUM, 1>(simd, &spare[..len], [low])[0];
        if over_hint < goal.target {
            narrowed = Some(len);
            (low, high, above) = (least, most, over_hint);
        } else {
            (low, reached) = (hint + 1, Some(over_hint));
        }
        hint = NO_HINT;
    }
    while low < high {
        let active = match narrowed {
            None => values,
            Some(len) => &spare[..len],
        };
        let pivots = pivots::<SUM>(low, high, hint);
        let measured = measures::<S, SUM, 3>(simd, active, pivots);
        let enough = |i: usize| above + measured[i] >= goal.target;
        if let Some(i) = (0..3).rev().find(|&i| enough(i)) {
            low = pivots[i];
            let measure = above + measured[i];
            if measure <= goal.target + goal.tolerance {
                return Found { threshold: low, measure };
            }
            reached = Some(measure);
        }
        if let Some(i) = (0..3).find(|&i| !enough(i)) {
            high = pivots[i] - 1;
            above += measured[i];
        }
        // Without the measure of `low`, the values above the bracket must be removed before it is computed.
        if low == high && reached.is_some() {
            break;
        }
        let (len, least, most) = match narrowed {
            None => narrow(simd, values, spare, low, high),
            Some(len) => narrow_in_place(simd, spare, len, low, high),
        };
        narrowed = Some(len);
        hint = NO_HINT;
        (low, high) = (least, most);
    }
    // No value lies between a pivot and the least value at or above it.
    if let Some(measure) = reached {
        return Found { threshold: low, measure };
    }
    let active = match narrowed {
        None => values,
        Some(len) => &spare[..len],
    };
    Found { threshold: low, measure: above + measures::<S, SUM, 1>(simd, active, [low])[0] }
}

/// Three pivots in `low + 1..=high`. They divide the bracket. In the first pass, they divide the part of the bracket
/// below the hint. If the hint is `low` or `high`, the threshold is probably `low` or `high`, because many values are
/// equal to it. The first and the last pivot then show whether this is so. The pivots for keys are evenly spaced, because
/// keys are already approximately logarithmic. The pivots for weights are geometrically spaced, because most weights are
/// small.
#[inline(always)]
fn pivots<const SUM: bool>(low: i32, high: i32, hint: i32) -> [i32; 3] {
    let scaled = |x: i32| if SUM { i64::from((x as f32).to_bits()) } else { i64::from(x) };
    let is_end = hint <= low || hint == high;
    let (from, to) = (scaled(low), scaled(if is_end { high } else { hint.min(high) }));
    let (first, parts) = match hint {
        _ if is_end => (0, 2),
        _ if hint < high => (1, 3),
        _ => (1, 4),
    };
    [0, 1, 2].map(|i| {
        let at = from + ((to - from) * (first + i) + parts - 1) / parts;
        let pivot = if SUM { f32::from_bits(at as u32) as i32 } else { at as i32 };
        pivot.clamp(low + 1, high)
    })
}

/// For each pivot, the measure of the values at or above it.
#[inline(always)]
fn measures<S: Simd, const SUM: bool, const N: usize>(simd: S, values: &[i32], pivots: [i32; N]) -> [u64; N] {
    let a = Lanes(simd);
    let mut limits = [a.int(0); N];
    for i in 0..N {
        limits[i] = a.int(pivots[i]);
    }
    let mut sums = [WeightSum::new(simd); N];
    let mut counts = [a.int(0); N];
    for vectors in values.as_chunks::<LANES>().0.chunks(SUMMABLE) {
        let mut lanes = [a.int(0); N];
        for vector in vectors {
            let x: i32x16<S> = load(simd, vector);
            for i in 0..N {
                let part = if SUM { x } else { a.int(1) };
                lanes[i] += x.simd_ge(limits[i]).select(part, a.int(0));
            }
        }
        for i in 0..N {
            if SUM {
                sums[i].add(lanes[i]);
            } else {
                counts[i] += lanes[i];
            }
        }
    }
    let mut totals = [0; N];
    for i in 0..N {
        totals[i] = if SUM { sums[i].total() } else { total(counts[i]) };
    }
    totals
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
        for round in 0..600 {
            let len = 1 + random() as usize % 700;
            let range = [2, 30, MAX_WEIGHT as u32 + 1][round % 3];
            let mut values: Vec<i32> = (0..len).map(|_| (random() % range).max(1) as i32).collect();
            values.resize(len.next_multiple_of(LANES), PAD);
            let measure = if round % 2 == 0 { Measure::Count } else { Measure::Sum };
            let all = if measure == Measure::Sum {
                values[..len].iter().map(|&value| value as u64).sum()
            } else {
                len as u64
            };
            let target = 1 + u64::from(random()) * 977 % all;
            let hint = match round % 5 {
                0 | 1 => values[random() as usize % len],
                2 => 1,
                3 => MAX_WEIGHT,
                _ => NO_HINT,
            };
            let reached = (round % 7 < 4).then_some(all);
            let goal = Goal { measure, target, tolerance: 0, low: 1, reached, high: MAX_WEIGHT, hint };
            let found = search(Level::new(), &values, &mut vec![0; values.len()], goal);
            let expected = sorted(&values[..len], measure, target);
            assert_eq!(found.measure, expected.measure, "{target} of {len}");
            // No value lies between the threshold and the expected one.
            let between = |value: &&i32| (found.threshold..expected.threshold).contains(*value);
            assert_eq!(values.iter().filter(between).count(), 0);
            assert!(found.threshold <= expected.threshold);
        }
    }
}
