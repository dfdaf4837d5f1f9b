//! Constructed rows that catch mutants of the TPU kernels. Each row has values or indices at a limit of the kernels.
//! Random rows rarely have such values or indices.

use crate::common::*;
use nucleus::dtype::Dtype;
use nucleus::kernels::{Path as Way, Spec};
use nucleus::semantics::arith::Scalar;
use nucleus::semantics::params::{scale, RowParams};
use nucleus::semantics::weights::{distance_bits, quantize, weight, MAX_WEIGHT};
use rand::prelude::*;

use super::mutant_rows::{choose_others, one_row, random_parameters, Choice};

/// The number of entries of a stripe, of a chunk, and of the part of a chunk that a cell register summarizes. The rows
/// of this file are for kernels with one row per block, whose layout has these numbers.
pub(super) const STRIPE: usize = 8192;
pub(super) const CHUNK: usize = 4096;
const CELLS: usize = 1024;
/// A logit without a weight.
pub(super) const FAR: f32 = -1000.0;
/// With this temperature, a logit that is `x` below the maximum has the weight 2^(28 − x).
pub(super) const OCTAVES: f32 = std::f32::consts::LOG2_E;
/// The largest p below 1. The target of top-p is the total minus a part in 2²⁴.
const ALMOST_ONE: f32 = 1.0 - 1.0 / (1 << 24) as f32;

/// Returns all rows of this file. Each is a batch of one row.
pub(super) fn problems(spec: &Spec) -> Vec<Problem> {
    let mut problems: Vec<Problem> = (0..90).map(|seed| probed_indices(spec, seed)).collect();
    problems.extend((0..60).map(|seed| around_zero(spec, seed)));
    problems.extend((3..=5).map(|entries| deep_lane(spec, entries)));
    problems.extend([false, true].map(|deep| first_entry_in_full_lane(spec, deep)));
    for (max, below) in [(0.0, -f32::MIN_POSITIVE), (5.0, 5.0_f32.next_down())] {
        problems.extend([0.0, 1.0].map(|temperature| below_maximum(spec, max, below, temperature)));
    }
    problems.extend((0..30).map(|seed| larger_after_ties(spec, seed)));
    problems.extend([53, 128].map(|distance| adjacent_weights(spec, distance)));
    problems.push(fewer_candidates_than_k(spec));
    problems.push(greedy_by_passes(spec));
    problems.push(odd_total(spec));
    problems.push(last_index(spec));
    for eighth in 1..8 {
        problems.extend([false, true].map(|deep| entries_at_eighths(spec, eighth, deep)));
        problems.push(two_entries_in_a_range(spec, 2 * eighth));
        problems.push(two_entries_in_a_range(spec, 2 * eighth + 1));
        if spec.dtype == Dtype::F32 {
            problems.extend([8 * eighth, 24 + eighth].map(|rank| spaced_keys(spec, rank, &[0])));
            problems.push(spaced_keys(spec, 4 * eighth + 1, &[0, 5]));
        }
    }
    if spec.path == Way::Arbitrary {
        problems.push(cells_around_zero(spec));
        problems.push(many_candidates_and_nan(spec));
        problems.extend([0, 6000].map(|k| infinities(spec, k)));
        problems.extend([0, 2500].map(|k| largest_temperature(spec, k)));
        let offsets = [1e-6, 2e-6, 3e-6, 1e-5, 2e-5, 3e-5, 6e-5, 1e-4, 2e-4, 5e-4];
        problems.extend(offsets.map(|offset| close_total(spec, false, offset)));
        problems.extend(offsets.map(|offset| close_total(spec, true, -offset)));
    }
    problems
}

/// Returns a row from its entries that are not [`FAR`].
pub(super) fn sparse_row(
    spec: &Spec,
    entries: impl IntoIterator<Item = (usize, f32)>,
    params: RowParams,
) -> Problem {
    let mut logits = vec![FAR; spec.vocab];
    entries.into_iter().for_each(|(index, x)| logits[index] = x);
    one_row(spec, logits, params, &mut StdRng::seed_from_u64(1))
}

/// Returns the parameters of a row. The remainder of the draw is `number` if the total is larger than `number`.
pub(super) fn params(spec: &Spec, k: usize, p: f32, temperature: f32, number: u64) -> RowParams {
    let words = [0, 0, (number >> 32) as u32, number as u32];
    RowParams::new(k as i32, p, 0.0, temperature, words, spec.vocab)
}

/// Returns an index that a search in eight parts per step probes.
fn probed_index(vocab: usize, rng: &mut StdRng) -> usize {
    let (mut place, mut length) = (0, vocab);
    let steps = rng.random_range(1..7);
    for _ in 0..steps {
        length = length.div_ceil(8);
        place += length * rng.random_range(0..8);
    }
    place.min(vocab - 1)
}

/// Returns a row with ties at the first indices, and at the indices where an eighth of the row begins. The last kept
/// tie is at the start of an eighth, and the draw selects it. If `deep`, a larger entry is above it in its lane.
fn entries_at_eighths(spec: &Spec, eighth: usize, deep: bool) -> Problem {
    let length = spec.vocab / 8;
    let last = eighth * length;
    let mut entries: Vec<(usize, f32)> =
        (0..6).chain((1..8).map(|number| number * length)).map(|i| (i, 3.0)).collect();
    let (mut k, mut before) = (6 + eighth, 5 + eighth as u64);
    if deep {
        let (stripe, lane) = (last / STRIPE * STRIPE, last % 128);
        // The kernel pushes entries of later groups and of crowded lanes later.
        let above = match last % STRIPE < CHUNK {
            true => vec![stripe + CHUNK + (lane + 127) % 128],
            false => [128, 256].map(|register| stripe + register + (lane + 1) % 128).to_vec(),
        };
        k += above.len();
        before += above.iter().filter(|&&index| index < last).count() as u64;
        entries.extend(above.into_iter().map(|index| (index, 3.0_f32.next_up())));
    }
    sparse_row(spec, entries, params(spec, k, 1.0, 1.0, before * MAX_WEIGHT as u64))
}

/// Returns a row with two entries among the first indices. The draw selects the second one. The distance of their
/// indices is `number`, rounded down to an even number. If `number` is odd, a larger entry is above the second one in
/// its lane.
fn two_entries_in_a_range(spec: &Spec, number: usize) -> Problem {
    let (index, top) = (number / 2 * 2, MAX_WEIGHT as u64);
    let above = (number % 2 == 1).then_some((CHUNK + index - 1, 3.0));
    let entries = [(0, 3.0), (index, 3.0)].into_iter().chain(above);
    sparse_row(spec, entries, params(spec, 2 + number % 2, 1.0, 1.0, top))
}

/// Returns a row whose keys form one series for each number in `offsets`. The number is the first key of the series.
/// The distance between the keys of a series is eight times the number of series. The threshold of top-p is the entry
/// with this rank from below. The search with eight parts per step probes the multiples of 8.
fn spaced_keys(spec: &Spec, rank: usize, offsets: &[u32]) -> Problem {
    let top = 5.0_f32.to_bits();
    let step = 8 * offsets.len() as u32;
    let mut keys: Vec<u32> =
        (0..504 / step).flat_map(|number| offsets.iter().map(move |offset| number * step + offset)).collect();
    keys.push(504);
    let logit = |key: u32| f32::from_bits(top - 504 + key);
    let temperature = (logit(504) - logit(0)) * OCTAVES / 6.0;
    let weight =
        |key: u32| f64::from(weight(Scalar, quantize(Scalar, logit(504), logit(key), scale(temperature))));
    let sum = |keys: &[u32]| keys.iter().map(|&key| weight(key)).sum::<f64>();
    let p = (sum(&keys[rank + 1..]) + weight(keys[rank]) / 2.0) / sum(&keys);
    let entries: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(number, &key)| (number % 5 * STRIPE + number / 5, logit(key)))
        .collect();
    sparse_row(spec, entries, params(spec, keys.len(), p as f32, temperature, 7_777_777_777))
}

/// Returns a row with close logits, at indices that searches for an index probe. The searches for a threshold probe
/// most keys of these logits.
fn probed_indices(spec: &Spec, seed: u64) -> Problem {
    let rng = &mut StdRng::seed_from_u64(seed);
    let unit = if spec.dtype == Dtype::F32 { 1 } else { 1 << 16 };
    let levels = [3, 8, 30, 64, 600][rng.random_range(0..5)];
    let top = [5.0_f32, 1.0, -3.0][rng.random_range(0..3)];
    let level = |number: u32| match top > 0.0 {
        true => f32::from_bits(top.to_bits() - unit * number),
        false => f32::from_bits(top.to_bits() + unit * number),
    };
    let mut logits = vec![FAR; spec.vocab];
    for _ in 0..rng.random_range(2..120) {
        let index = probed_index(spec.vocab, rng);
        logits[index] = level(rng.random_range(0..levels));
        let near = index + rng.random_range(1..10);
        if rng.random_bool(0.4) && near < spec.vocab {
            logits[near] = level(rng.random_range(0..levels));
        }
    }
    let step = (top - level(levels)) / [4.0, 20.0][rng.random_range(0..2)];
    let mut problem = one_row(spec, logits, params(spec, 1, 1.0, 1.0, 0), rng);
    random_parameters(spec, &mut problem, step, false, rng);
    problem
}

/// Returns a row with entries around zero. Cleaning maps some of them to zero. Top-k keeps all entries down to some
/// key, or a few entries less.
fn around_zero(spec: &Spec, seed: u64) -> Problem {
    let rng = &mut StdRng::seed_from_u64(seed);
    let least = f32::MIN_POSITIVE;
    let subnormal = if spec.dtype == Dtype::F32 { 0x007f_ffff } else { 0x007f_0000 };
    let zeros = [f32::from_bits(subnormal), 1e-40, 0.0, -0.0, -1e-40, -f32::from_bits(subnormal)];
    let levels: [&[f32]; 7] = [&[1.0], &[2.0 * least], &[least], &zeros, &[-least], &[-2.0 * least], &[-1.0]];
    let mut logits = vec![[FAR, f32::NEG_INFINITY][rng.random_range(0..2)]; spec.vocab];
    let mut order: Vec<usize> = (0..spec.vocab).collect();
    order.shuffle(rng);
    let mut places = order.into_iter();
    let (mut reached, mut ends) = (0, Vec::new());
    for level in levels {
        let count = [0, 1, 5, 40, 300, 700, 3000][rng.random_range(0..7)];
        for place in places.by_ref().take(count) {
            logits[place] = *level.choose(rng).unwrap();
        }
        reached += count;
        ends.push(reached);
    }
    let most = if let Way::Bounded(max_k) = spec.path { max_k } else { spec.vocab - 1 };
    let k = ends.choose(rng).unwrap() + rng.random_range(0..22);
    let choice = Choice {
        k: k.saturating_sub(20).clamp(1, most) as i32,
        temperature: [1.0, 0.05][rng.random_range(0..2)],
    };
    let mut problem = one_row(spec, logits, params(spec, 1, 1.0, 1.0, 0), rng);
    choose_others(spec, &mut problem, choice, false, rng);
    problem
}

/// Returns a row with equal survivors. Entry 0 is the first of those in its lane. Top-k keeps entry 0, and the draw
/// selects it.
fn deep_lane(spec: &Spec, entries: usize) -> Problem {
    let indices = indices_of_a_lane(entries);
    sparse_row(spec, indices.into_iter().map(|index| (index, 20.0)), params(spec, 2, 1.0, 10.0, 0))
}

/// Returns a row in which entry 0 is the lowest entry of its lane in the copy of stripe 0. This lane has one entry more
/// than slots, so entry 0 moves to another lane. If `deep`, an entry of stripe 0 is above it. The draw selects entry 0.
/// In this copy, the search for the drawn index probes place 20,000, which is the middle of the row. Entry 0 is the
/// only entry before this place that top-p keeps.
fn first_entry_in_full_lane(spec: &Spec, deep: bool) -> Problem {
    // A copy rotates the entries of an earlier stripe by 16 lanes per stripe. A lane of a stripe has space for two
    // entries.
    let lane = |stripe: usize| stripe * STRIPE + 16 * stripe;
    let mut kept = vec![0, spec.vocab / 2];
    kept.extend([3, 4].into_iter().flat_map(|stripe| [lane(stripe), lane(stripe) + CHUNK - 1]));
    let mut others = Vec::new();
    if deep {
        others.push(CHUNK + 127);
    } else {
        kept.push(lane(2) + CHUNK - 1);
    }
    // On the path for any k, a lane has one slot more.
    if spec.path == Way::Arbitrary {
        others.push(lane(1));
    }
    // With these entries, at least k bins contain an entry. Otherwise, the bound from the bins would be the logit of
    // the rest of the row.
    others.extend((0..20).map(|number| 20_021 + number * 53));
    let kept = kept.into_iter().map(|index| (index, 20.0));
    let others = others.into_iter().map(|index| (index, 10.0));
    sparse_row(spec, kept.chain(others), params(spec, 8, 0.9, OCTAVES, 0))
}

/// Returns the indices of survivors. The kernel gathers `entries` of them into lane 0, and entry 0 is the first of
/// these.
pub(super) fn indices_of_a_lane(entries: usize) -> Vec<usize> {
    // The second group register is rotated by one lane.
    let mut indices = vec![0, CHUNK + 127];
    // Entry `i` of a crowded lane moves by `i` lanes. The list of crowded lanes contains the first lane, the last lane,
    // the second lane, the second last lane, and so on. The lanes from the end move by 64 more lanes.
    for number in 0..entries - 2 {
        let crowded = |lane: usize, entry: usize| [CHUNK + lane, CHUNK + entry * 128 + lane];
        indices.extend(crowded(121 + number, 7 - number));
        if entries > 3 {
            indices.extend(crowded(126 - number, 1));
        }
    }
    indices
}

/// Returns a row with one maximum, the next float below it at a lower index, and many ties.
fn below_maximum(spec: &Spec, max: f32, below: f32, temperature: f32) -> Problem {
    let ties = (0..4000).map(|number| (number * 9 + 2000, max - 3.0));
    let k = if spec.path == Way::Arbitrary { 3000 } else { 20 };
    let entries = ties.chain([(100, below), (30_000, max)]);
    sparse_row(spec, entries, params(spec, k, 1.0, temperature, 12_345_678_901))
}

/// Returns a row in which the draw selects a larger entry after the last kept tie. Between them are ties that top-k
/// does not keep. All of them are usually in one chunk.
fn larger_after_ties(spec: &Spec, seed: u64) -> Problem {
    let rng = &mut StdRng::seed_from_u64(seed);
    let (ties, larger) = ([500, 4000, 12_000][rng.random_range(0..3)], rng.random_range(2..40));
    let most = if let Way::Bounded(max_k) = spec.path { max_k } else { larger + ties / 2 };
    let k = rng.random_range(larger + 1..=most);
    let mut places = rand::seq::index::sample(rng, spec.vocab, ties + larger).into_vec();
    let mut tied = places.split_off(larger);
    places.sort_unstable();
    tied.sort_unstable();
    let last = tied[k - larger - 1];
    // One larger entry is after the last kept tie.
    let drawn = (last + rng.random_range(1..2000)).min(spec.vocab - 1);
    tied.retain(|&place| place != drawn);
    places[0] = drawn;
    let (tie, top) = (weight_below(1.0) as u64, MAX_WEIGHT as u64);
    let before = places.iter().filter(|&&place| place < drawn).count() as u64;
    let number = (k - larger) as u64 * tie + before * top + [0, 1, top - 1][rng.random_range(0..3)];
    let entries =
        tied.into_iter().map(|place| (place, -1.0)).chain(places.into_iter().map(|place| (place, 0.0)));
    sparse_row(spec, entries, params(spec, k, 1.0, OCTAVES, number))
}

/// Returns a row in which top-p removes the weight 1 and keeps the weight 2. Both are the least weights that a search
/// can distinguish. Many ties have no weight. `distance` is the distance of the other entries. With a distance of 128,
/// all of them are in one lane. This lane has no space for them, so the search takes more steps.
fn adjacent_weights(spec: &Spec, distance: usize) -> Problem {
    let weights = [(1, 0.0), (30, 26.375), (10, 27.0), (10, 28.0)];
    for ((_, below), expected) in weights.into_iter().zip([MAX_WEIGHT, 3, 2, 1]) {
        assert_eq!(weight_below(below), expected);
    }
    let logits = weights.into_iter().flat_map(|(count, below)| vec![-below; count]);
    let ties = (0..4000).map(|number| (number * 8 + 7500, -40.0));
    let entries = logits.enumerate().map(|(number, x)| (number * distance + 1, x)).chain(ties);
    let number = MAX_WEIGHT as u64 + 115;
    sparse_row(spec, entries, params(spec, 56, ALMOST_ONE, OCTAVES, number))
}

/// Returns a row in which top-k keeps all numbers and some entries of −inf.
fn fewer_candidates_than_k(spec: &Spec) -> Problem {
    let entries =
        (0..spec.vocab).map(|index| (index, if index % 1000 == 70 { 3.0 } else { f32::NEG_INFINITY }));
    sparse_row(spec, entries, params(spec, 60, 1.0, 1.0, 0))
}

/// Returns a greedy row with a NaN. It has so many maxima that the kernel samples it by passes over all logits. The
/// first maximum is in the first chunk of a stripe.
fn greedy_by_passes(spec: &Spec) -> Problem {
    let entries = (0..5000).map(|number| (2 * STRIPE + 3618 + 3 * number, 3.0)).chain([(100, f32::NAN)]);
    sparse_row(spec, entries, params(spec, 20, 1.0, 0.0, 12_345_678_901))
}

/// Returns a row whose total is odd. The target of top-p is one more than the weight of the maximum. If the total were
/// one less, the target would be the weight of the maximum.
fn odd_total(spec: &Spec) -> Problem {
    assert_eq!(weight_below(28.0), 1);
    let entries = (0..18).map(|number| (number * 53, if number == 0 { 0.0 } else { -28.0 }));
    sparse_row(spec, entries, params(spec, 18, ALMOST_ONE, OCTAVES, MAX_WEIGHT as u64 + 3))
}

/// Returns a row in which the draw selects the last entry.
fn last_index(spec: &Spec) -> Problem {
    let entries = [(17, 3.0), (20_000, 3.0), (spec.vocab - 1, 3.0)];
    sparse_row(spec, entries, params(spec, 3, 1.0, 1.0, 3 * MAX_WEIGHT as u64 - 1))
}

/// Returns a row with zeros and with the largest negative normal number, each in a cell of its own. Top-k keeps all
/// zeros, and some of the negative numbers.
fn cells_around_zero(spec: &Spec) -> Problem {
    let entries = (0..3000).map(|number| {
        let (stripe, place) = (number / 750, number % 750);
        let index = stripe * STRIPE + place / 128 * CELLS + place % 128;
        (index, [0.0, -f32::MIN_POSITIVE][number % 2])
    });
    sparse_row(spec, entries, params(spec, 2500, 1.0, 1.0, 2400 * MAX_WEIGHT as u64 + 5))
}

/// Returns a row with many entries of +inf and of the largest finite number. Top-k keeps `k` entries, or all if `k` is
/// 0.
fn infinities(spec: &Spec, k: usize) -> Problem {
    let largest = f32::from_bits(0x7f7f_0000);
    let entries = (0..7000).map(|number| (number * 5, [f32::INFINITY, largest, f32::INFINITY][number % 3]));
    sparse_row(spec, entries, params(spec, k, 1.0, 1.0, 4000 * MAX_WEIGHT as u64 + 9))
}

/// Returns a row in which every number has nearly the weight of the maximum.
fn largest_temperature(spec: &Spec, k: usize) -> Problem {
    let entries = (0..9).map(|number| (number * 4000, number as f32));
    sparse_row(spec, entries, params(spec, k, 1.0, f32::MAX, 4000 * MAX_WEIGHT as u64 + 9))
}

/// Returns a row with some NaNs. The candidate list would have space for its candidates.
fn many_candidates_and_nan(spec: &Spec) -> Problem {
    let rng = &mut StdRng::seed_from_u64(3);
    let mut logits: Vec<f32> = (0..spec.vocab).map(|_| rng.random_range(-4.0..4.0)).collect();
    (0..40).for_each(|_| logits[rng.random_range(0..spec.vocab)] = f32::NAN);
    one_row(spec, logits, params(spec, 2500, 1.0, 1.0, 123_456_789_012), rng)
}

/// Returns a row with top-p alone, in which a small error of the total changes the threshold of top-p. Most entries
/// that have a weight have the same one. If this weight differed by the share `offset`, the threshold would be another
/// one. The ratio of this weight to the approximate weight is the largest one if `largest`, otherwise the least one. So
/// one of the bounds of the total is near the total.
fn close_total(spec: &Spec, largest: bool, offset: f64) -> Problem {
    let ratio = |below: f32| f64::from(weight_below(below)) / near_weight(below);
    let few = (0..128).map(|part| 1.0 + part as f32 / 128.0);
    let order = |a: &f32, b: &f32| ratio(*a).total_cmp(&ratio(*b));
    let below = if largest { few.max_by(order) } else { few.min_by(order) }.unwrap();
    let weights = [0.0, 0.5, below].map(|below| f64::from(weight_below(below)));
    let counts = [40, 60, 10_000];
    let first = 40.0 * weights[0];
    let total = first + 60.0 * weights[1] + 10_000.0 * weights[2] * (1.0 + offset);
    // The largest entries have different lanes. Entry 0 is one of them.
    let places = |number: usize| match number {
        0..100 => number % 5 * STRIPE + number / 5 * 129,
        _ => (number - 100) * 3 + 13,
    };
    let logits = counts.into_iter().zip([0.0, -0.5, -below]).flat_map(|(count, x)| vec![x; count]);
    let mut used = std::collections::HashSet::new();
    let entries = logits.enumerate().map(|(number, x)| {
        let mut index = places(number);
        while !used.insert(index) {
            index += 1;
        }
        (index, x)
    });
    let entries: Vec<_> = entries.collect();
    sparse_row(spec, entries, params(spec, 0, (first / total) as f32, OCTAVES, first as u64))
}

/// Returns the weight of a logit that is this number of octaves below the maximum.
pub(super) fn weight_below(octaves: f32) -> i32 {
    weight(Scalar, quantize(Scalar, 0.0, -octaves, scale(OCTAVES)))
}

/// Returns about three times the weight, as the bounds of the total compute it: the sum of three floats whose bits are
/// linear functions of the distance.
fn near_weight(octaves: f32) -> f64 {
    let distance = quantize(Scalar, 0.0, -octaves, scale(OCTAVES)) - distance_bits(0);
    let third = (1 << 23) / 3;
    let power = |number: i32| {
        f64::from(f32::from_bits((((127 + 28) << 23) + number * third - (distance << 5)) as u32))
    };
    power(0) + 0.793_700_5 * power(1) + 0.629_960_5 * power(2)
}
