//! Top-k. It first finds a bound that few entries reach, and then chooses exactly among the entries that reach it.

use std::ops::RangeInclusive;

use fearless_simd::{dispatch, f32x16, i32x16, prelude::*, Level, Simd};

use super::bounds::{bound_of_key, LEAST_KEY};
use super::element::{with_element, Element};
use super::lanes::{load, total, Lanes, LANES};
use super::strided_sample::strided_sample;
use super::threshold_search::{counts, measure, pad, search, Found, Goal, Measure, NO_HINT};
use crate::dtype::Logits;
use crate::semantics::arith::Arith;
use crate::semantics::rules::is_candidate;

/// A bound that at least `k` elements reach. The maxima are from disjoint parts of the row, so they are different
/// elements of the row. A bound that `k` maxima reach is therefore low enough. Returns `None` if fewer than `k` maxima
/// are above −inf.
pub(super) fn bound_from_maxima(
    level: Level,
    maxima: &[f32],
    k: usize,
    keys: &mut [i32],
    spare: &mut [i32],
) -> Option<f32> {
    // The maxima of disjoint sets of maxima are also different elements. There are fewer of them, so the search is
    // faster, and slightly more elements reach the bound.
    let largest = maxima.len() / (KEYS_PER_K * k).max(LANES);
    let sets = if largest > 1 { &[largest, 1][..] } else { &[1] };
    // A few additional elements may reach the bound. Collecting them costs less than more passes of the search, and
    // much less than a search after a wrong guess.
    let (guess_tolerance, tolerance) = (k / 4, k / 8);
    for &set in sets {
        let len = keys_of_sets(level, maxima, set, keys);
        let keys = &keys[..len];
        if let Some(key) = guess(level, keys, k, guess_tolerance) {
            return Some(bound_of_key(key));
        }
        if let Some(found) = search_keys(level, keys, spare, k, tolerance) {
            return Some(bound_of_key(found.threshold));
        }
    }
    None
}

/// If there are this many maxima per k, most of the k largest elements are in different parts of the row.
pub(super) const KEYS_PER_K: usize = 4;

/// The k for which [`guess`] is precise enough.
const GUESSED_K: RangeInclusive<usize> = LANES..=4 * LANES;
/// The number of the largest keys of a lane that [`guess`] uses.
const LARGEST_OF_LANE: usize = 5;

/// Guesses a key that at least `k` and at most `k + tolerance` keys reach. Returns `None` if the guess is wrong.
///
/// If the keys are in random order, the means of the n-th largest keys of all lanes are close to the keys at certain
/// ranks. The guess is between two of these means. It takes less time than a search.
fn guess(level: Level, keys: &[i32], k: usize, tolerance: usize) -> Option<i32> {
    if !GUESSED_K.contains(&k) {
        return None;
    }
    dispatch!(level, simd => guess_impl(simd, keys, k, tolerance))
}

#[inline(always)]
fn guess_impl<S: Simd>(simd: S, keys: &[i32], k: usize, tolerance: usize) -> Option<i32> {
    const PIVOTS: usize = 5;
    // The rank of the mean of the largest keys of all lanes.
    const FIRST_RANK: i64 = LANES as i64 / 2 + 1;
    let a = Lanes(simd);
    let mut largest = [a.int(i32::MIN); LARGEST_OF_LANE];
    for vector in keys.as_chunks::<LANES>().0 {
        let mut rest: i32x16<S> = load(simd, vector);
        for largest in &mut largest {
            (*largest, rest) = ((*largest).max(rest), (*largest).min(rest));
        }
    }
    let mut means = [0; LARGEST_OF_LANE];
    for i in 0..LARGEST_OF_LANE {
        means[i] = i64::from((largest[i] >> LANES.ilog2()).reduce_sum());
    }
    let rank = (k + tolerance / 4) as i64 - FIRST_RANK;
    let first = (rank / LANES as i64).clamp(0, LARGEST_OF_LANE as i64 - 2);
    let mean = means[first as usize];
    let distance = mean - means[first as usize + 1];
    // With this step, the keys of adjacent pivots differ less in rank than the tolerance.
    let step = (tolerance as i64 / 2).max(1);
    let mut pivots = [0; PIVOTS];
    for (i, pivot) in pivots.iter_mut().enumerate() {
        let rank = rank - first * LANES as i64 + (i as i64 - PIVOTS as i64 / 2) * step;
        let key = mean - distance * rank / LANES as i64;
        *pivot = key.clamp(i64::from(LEAST_KEY), i64::from(i32::MAX)) as i32;
    }
    let counts = counts(simd, keys, pivots);
    for i in 0..PIVOTS {
        if (k..=k + tolerance).contains(&(counts[i] as usize)) {
            return Some(pivots[i]);
        }
    }
    None
}

/// Writes the order keys of the maxima of sets of `set` vectors, lane by lane. Returns the number of keys.
fn keys_of_sets(level: Level, maxima: &[f32], set: usize, keys: &mut [i32]) -> usize {
    dispatch!(level, simd => {
        let a = Lanes(simd);
        let vectors = maxima.as_chunks::<LANES>().0;
        for (vectors, keys) in vectors.chunks(set).zip(keys.as_chunks_mut::<LANES>().0) {
            let mut max = a.float(f32::NEG_INFINITY);
            for vector in vectors {
                max = max.max(load::<_, f32x16<_>, f32>(simd, vector));
            }
            a.keys(max).store_slice(keys);
        }
    });
    maxima.len().div_ceil(set * LANES) * LANES
}

/// Finds the `k`-th largest key, or a lower threshold within the tolerance. Returns `None` if fewer than `k` keys are
/// above −inf.
fn search_keys(level: Level, keys: &[i32], spare: &mut [i32], k: usize, tolerance: usize) -> Option<Found> {
    let (candidates, low, high) = dispatch!(level, simd => extent(simd, keys));
    (candidates >= k).then(|| {
        let (target, tolerance) = (k as u64, tolerance as u64);
        let measure = Measure::Count;
        search(
            level,
            keys,
            spare,
            Goal { measure, target, tolerance, low, reached: candidates as u64, high, hint: NO_HINT },
        )
    })
}

/// The number of candidates among the keys, the least candidate, and the largest key.
#[inline(always)]
fn extent<S: Simd>(simd: S, keys: &[i32]) -> (usize, i32, i32) {
    let a = Lanes(simd);
    let (mut least, mut most) = (a.int(i32::MAX), a.int(i32::MIN));
    let mut count = a.int(0);
    for vector in keys.chunks_exact(LANES) {
        let x: i32x16<S> = load(simd, vector);
        let candidate = is_candidate(a, x);
        count += candidate.select(a.int(1), a.int(0));
        least = least.min(candidate.select(x, a.int(i32::MAX)));
        most = most.max(x);
    }
    (total(count) as usize, least.reduce_min(), most.reduce_max())
}

/// Estimates of a row's `k`-th largest element, from a sample of the row.
#[derive(Clone, Copy)]
pub(super) struct Estimate {
    /// Probably, slightly more than `k` elements are at least this bound.
    pub(super) bound: f32,
    /// Probably, slightly fewer than `k` elements have an order key of at least this value.
    pub(super) above: i32,
}

/// Estimates a row's `k`-th largest element. Returns `None` if the row is too short for a sample, or if the sample
/// gives no useful bound.
pub(super) fn estimate(
    level: Level,
    row: Logits<'_>,
    k: usize,
    keys: &mut [i32],
    spare: &mut [i32],
) -> Option<Estimate> {
    let vocab = row.len();
    let vectors = vocab / LANES;
    let wanted = (32 * vocab / k).clamp(2048, 8192) / LANES;
    if vectors < 2 * wanted {
        return None;
    }
    let len = wanted * LANES;
    sample_keys(level, row, vectors / wanted, &mut keys[..len]);
    // The number of the k largest elements that are in the sample approximately follows a Poisson distribution.
    let expected = k as f64 * len as f64 / vocab as f64;
    let rank = (expected + 4.0 * expected.sqrt() + 4.0).ceil() as usize;
    if rank > len * 7 / 8 {
        return None;
    }
    let bound = search_keys(level, &keys[..len], spare, rank, rank / 16)?.threshold;
    let rank = ((expected - 3.0 * expected.sqrt()) as usize).max(1);
    let above = search_keys(level, &keys[..len], spare, rank, rank / 4)?.threshold;
    Some(Estimate { bound: bound_of_key(bound), above })
}

/// Writes the order keys of every `stride`-th vector of a row.
fn sample_keys(level: Level, row: Logits<'_>, stride: usize, keys: &mut [i32]) {
    dispatch!(level, simd => with_element!(row, row, E => sample_keys_impl::<_, E>(simd, row, stride, keys)))
}

#[inline(always)]
fn sample_keys_impl<S: Simd, E: Element>(simd: S, row: &[E::Bits], stride: usize, keys: &mut [i32]) {
    strided_sample::<S, E>(
        simd,
        row,
        stride,
        keys,
        #[inline(always)]
        |x| Lanes(simd).keys(x),
    );
}

/// Replaces the bits of `len` values with their order keys, and pads the array.
pub(super) fn keys_in_place(level: Level, bits: &mut [i32], len: usize) {
    dispatch!(level, simd => {
        let a = Lanes(simd);
        for vector in bits[..len.next_multiple_of(LANES)].chunks_exact_mut(LANES) {
            a.keys(a.from_bits(load(simd, vector))).store_slice(vector);
        }
    });
    pad(bits, len);
}

/// The collected entries that top-k keeps: keys above `threshold`, and keys equal to it at positions up to `last_tie`.
/// See [`crate::semantics::rules::survives_top_k`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) threshold: i32,
    pub(super) last_tie: i32,
}

impl Kept {
    /// Keeps every candidate.
    pub(super) const ALL: Kept = Kept { threshold: LEAST_KEY, last_tie: i32::MAX };
}

/// Chooses the `k` largest collected keys exactly. If `stable` is false, it also keeps all ties. `keys` contains `len`
/// collected keys, padded to whole vectors. `len` is at least `k`, and all collected keys are in `low..=high`.
/// Probably, fewer than `k` keys are at least `above`.
pub(super) fn keep(
    level: Level,
    (keys, len): (&[i32], usize),
    spare: &mut [i32],
    k: usize,
    (low, above, high): (i32, i32, i32),
    stable: bool,
) -> Kept {
    let (target, reached) = (k as u64, len as u64);
    let goal = Goal { measure: Measure::Count, target, tolerance: 0, low, reached, high, hint: above };
    let Found { threshold, measure: reached } = search(level, keys, spare, goal);
    if reached == k as u64 || !stable {
        return Kept { threshold, last_tie: i32::MAX };
    }
    let more = measure(level, keys, Measure::Count, threshold + 1);
    Kept { threshold, last_tie: nth_equal(level, keys, threshold, k - more as usize) }
}

/// The position of the `n`-th key that equals `value`. `n` counts from 1.
fn nth_equal(level: Level, keys: &[i32], value: i32, n: usize) -> i32 {
    dispatch!(level, simd => nth_equal_impl(simd, keys, value, n))
}

#[inline(always)]
fn nth_equal_impl<S: Simd>(simd: S, keys: &[i32], value: i32, mut n: usize) -> i32 {
    for (i, vector) in keys.chunks_exact(LANES).enumerate() {
        let mut mask = load::<S, i32x16<S>, i32>(simd, vector).simd_eq(value).to_bitmask();
        let here = mask.count_ones() as usize;
        if here >= n {
            for _ in 1..n {
                mask &= mask - 1;
            }
            return (i * LANES) as i32 + mask.trailing_zeros() as i32;
        }
        n -= here;
    }
    i32::MAX
}

#[cfg(test)]
mod tests {
    use super::super::bounds::key_of;
    use super::*;

    fn random() -> impl FnMut() -> u32 {
        let mut state = 1_u32;
        move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        }
    }

    /// The guesses and the searches give a bound that at least `k` maxima reach.
    #[test]
    fn at_least_k_maxima_reach_the_bound() {
        let mut random = random();
        for round in 0..400 {
            let maxima: Vec<f32> = (0..LANES << (round % 7))
                .map(|i| match round % 5 {
                    0 => (random() % 3) as f32,
                    1 if random().is_multiple_of(2) => f32::NEG_INFINITY,
                    2 => -(i as f32),
                    3 => f32::MAX,
                    _ => random() as f32 - 1e7,
                })
                .collect();
            let candidates = maxima.iter().filter(|&&x| x > f32::NEG_INFINITY).count();
            for k in [1, 15, 16, 17, 40, 64, 65, 100] {
                let (mut keys, mut spare) = (vec![0; maxima.len()], vec![0; maxima.len()]);
                let bound = bound_from_maxima(Level::new(), &maxima, k, &mut keys, &mut spare);
                assert_eq!(
                    bound.is_some(),
                    k <= candidates,
                    "k = {k}, {candidates} candidates, round {round}"
                );
                let reaching = bound.map_or(k, |bound| maxima.iter().filter(|&&x| x >= bound).count());
                assert!(reaching >= k, "{reaching} maxima reach the bound for k = {k}, round {round}");
            }
        }
    }

    #[test]
    fn most_guesses_about_random_keys_are_correct() {
        let (mut random, mut correct) = (random(), 0);
        for _ in 0..100 {
            let keys: Vec<i32> = (0..16 * LANES).map(|_| key_of(random() as f32)).collect();
            if let Some(key) = guess(Level::new(), &keys, 64, 16) {
                let reaching = keys.iter().filter(|&&other| other >= key).count();
                assert!((64..=80).contains(&reaching), "{reaching} keys reach the guess");
                correct += 1;
            }
        }
        assert!(correct > 80, "only {correct} of 100 guesses are correct");
    }
}
