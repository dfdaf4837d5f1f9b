//! Constructed rows that catch mutants of the TPU kernels. In each row, a value that a kernel computes equals the value
//! that it is compared with. The values are sums of weights, numbers of entries, or logits next to zero.

use super::limit_rows::{indices_of_a_lane, params, sparse_row, weight_below, CHUNK, OCTAVES, STRIPE};
use crate::common::*;
use nucleus::dtype::Dtype;
use nucleus::kernels::{Path as Way, Spec};
use nucleus::semantics::arith::Scalar;
use nucleus::semantics::params::scale;
use nucleus::semantics::top_p::TopP;
use nucleus::semantics::weights::{quantize, weight, MAX_WEIGHT};

/// The largest logit of the rows of [`exact_target`]. In these rows, an octave is a few units of the last place, so the
/// temperature is small. A row with a temperature below 10⁻⁵ is greedy. This logit is so large that the temperature is
/// above this limit.
const TOP: f32 = 120.0;

/// Returns all rows of this file. Each is a batch of one row.
pub(super) fn problems(spec: &Spec) -> Vec<Problem> {
    // The target is the sum of the weights of the levels above the least one.
    let two = [(3, 0), (6, 1)];
    let seven_of_eight = [(1, 0), (7, 7), (18, 8)];
    let eight_of_nine = [(1, 0), (23, 8), (18, 9)];
    let shares = [(&two[..], 0.5), (&seven_of_eight, 0.9375), (&eight_of_nine, 0.96875)];
    let mut problems = Vec::new();
    for (counts, p) in shares {
        for step in [1, 4, 7] {
            for ties in [0, 4000] {
                problems.push(exact_target(spec, counts, p, step, ties));
            }
        }
    }
    if spec.path == Way::Arbitrary {
        problems.push(target_at_the_bound(spec));
        problems.push(listed_and_nan(spec));
        for chunk in [0, 1] {
            let rows = [(11, false), (11, true), (10, true)];
            problems.extend(rows.map(|(count, crowded)| least_negative_numbers(spec, chunk, count, crowded)));
        }
        problems.extend([600, 650].map(|k| zeros_in_a_few_bins(spec, k)));
    }
    problems.extend((2..=5).map(|entries| threshold_in_a_deep_lane(spec, entries)));
    problems.extend([0, 1].map(|level| threshold_below_maximum(spec, level)));
    for chunk in [0, 1] {
        problems.extend([10, 11].map(|lanes| crowded_in_one_stripe(spec, chunk, lanes)));
    }
    for (last, block) in [(511, 254), (4095, 1012), (8191, 4094)] {
        for lower in [false, true] {
            problems.extend([0, 1, 2].map(|deep| last_two_values(spec, last, block, lower, deep)));
        }
    }
    if spec.dtype == Dtype::F32 {
        // Keys of bf16 have 16 bits, so four steps leave one place.
        problems
            .extend([0, 1, 2].map(|deep| last_two_values(spec, (1 << 17) - 1, (1 << 16) - 2, false, deep)));
    }
    problems.extend([1, 5, 9, 13].map(|part| adjacent_to_the_threshold(spec, 992 + part)));
    let most = if spec.path == Way::Arbitrary { 9 } else { 4 };
    for chunk in 1..most {
        problems.extend([13, 41].map(|distance| first_tie_of_a_chunk(spec, chunk, distance)));
        problems.push(tied_negative_numbers(spec, chunk));
    }
    problems
}

/// Returns the number at this distance below [`TOP`], in units of the last place of the type.
fn below_top(spec: &Spec, steps: i32) -> f32 {
    let unit = if spec.dtype == Dtype::F32 { 1 } else { 1 << 16 };
    f32::from_bits((TOP.to_bits() as i32 - unit * steps) as u32)
}

/// Returns a row whose logits have a few levels. `counts` contains the number of entries of each level, and its
/// distance below the maximum in octaves. An octave is `step` units of the last place. With this `p`, the target of
/// top-p is the sum of the weights of all levels except the last one. If `ties` is 0, top-k removes some entries of the
/// last level. Otherwise, the row also has `ties` equal entries without a weight. Top-k removes some of these, and the
/// kernel samples the row by passes.
fn exact_target(spec: &Spec, counts: &[(usize, i32)], p: f32, step: i32, ties: usize) -> Problem {
    let octave = TOP - below_top(spec, step);
    let weight = |octaves: i32| weight_below(octaves as f32) as u64;
    let total: u64 = counts.iter().map(|&(count, octaves)| count as u64 * weight(octaves)).sum();
    let (&(last, least), _) = counts.split_last().unwrap();
    assert_eq!((total - last as u64 * weight(least)) as f64, f64::from(p) * total as f64);
    let mut logits: Vec<f32> =
        counts.iter().flat_map(|&(count, octaves)| vec![below_top(spec, step * octaves); count]).collect();
    let kept: usize = counts.iter().map(|&(count, _)| count).sum();
    let k = if ties == 0 { kept } else { kept + 4 };
    match ties {
        0 => logits.extend(vec![below_top(spec, step * least); 3]),
        _ => logits.extend(vec![TOP - 40.0 * octave; ties]),
    }
    let entries = logits.into_iter().enumerate().map(|(number, x)| (number * 7 % spec.vocab, x));
    // This is the largest remainder. It draws an entry of the last level if top-p keeps this level.
    sparse_row(spec, entries, params(spec, k, p, OCTAVES * octave, total - 1))
}

/// Returns a row in which top-p keeps only entry 0, and several survivors are in its lane. The keys of the entries are
/// consecutive, so the search for the threshold probes the key of entry 0.
fn threshold_in_a_deep_lane(spec: &Spec, entries: usize) -> Problem {
    let indices = indices_of_a_lane(entries);
    let k = indices.len() - 1;
    let logit = |index| below_top(spec, if index == 0 { 0 } else { 1 });
    let entries = indices.into_iter().map(|index| (index, logit(index)));
    sparse_row(spec, entries, params(spec, k, 1e-6, 1.0, MAX_WEIGHT as u64 + 1))
}

/// Returns a row in which top-p keeps the maximum and the next smaller entry, which is the threshold. The threshold is
/// at this level of the stack of its lane, and a smaller entry is at the other level. The keys of the three entries are
/// consecutive, so the search ends at the key of the threshold. The draw selects the threshold.
fn threshold_below_maximum(spec: &Spec, level: usize) -> Problem {
    let octave = TOP - below_top(spec, 1);
    // The kernel pushes the second of these entries above the first.
    let lane = indices_of_a_lane(2);
    let entries = [(30_000, 0), (lane[1 - level], 1), (lane[level], 2)];
    let entries = entries.map(|(index, steps)| (index, below_top(spec, steps)));
    sparse_row(spec, entries, params(spec, entries.len(), 0.6, OCTAVES * octave, 0))
}

/// Returns a row with entries at the places `2 * block` and `2 * block + 1` of the search for the threshold of top-p.
/// The search begins with the places from 0 to `last`. Its steps divide the range by 16, so a later range contains only
/// these two places. The threshold is the lower one if `lower`, otherwise the other one. The target of top-p is the sum
/// of the weights down to the threshold. The lower entry is the first entry that the draw can select. If `deep` is 1,
/// another entry is above it in its lane. If `deep` is 2, it and the other entry are in one lane of each copy.
fn last_two_values(spec: &Spec, last: i32, block: i32, lower: bool, deep: usize) -> Problem {
    let logit = |place: i32| below_top(spec, last - place);
    let places = [last, 2 * block + 1, 2 * block];
    let reached = if lower { 3 } else { 2 };
    // The target is rounded, so some temperatures do not have a p with this target.
    let (temperature, p) = (0..10_000)
        .map(|number| (TOP - logit(0)) * OCTAVES / (6.0 + number as f32 / 1e4))
        .find_map(|temperature| {
            let weight =
                |place| weight(Scalar, quantize(Scalar, TOP, logit(place), scale(temperature))) as u64;
            let target: u64 = places[..reached].iter().map(|&place| weight(place)).sum();
            // Top-k keeps one entry of the lowest place.
            let total = places.iter().map(|&place| weight(place)).sum::<u64>() + weight(0);
            let p = (target as f64 / total as f64) as f32;
            (TopP::new(p).target(total) == target).then_some((temperature, p))
        })
        .expect("a temperature has such a p");
    let tie = if deep == 1 { indices_of_a_lane(2)[1] } else { 30_001 };
    // A copy rotates the entries of stripe 2 by 32 lanes less than those of stripe 0.
    let second = 2 * STRIPE + 32 + if deep == 2 { 0 } else { 5 };
    let ties = [tie, 30_002, 30_003].map(|index| (index, 0));
    let entries = [35_000, second, 0].into_iter().zip(places).chain(ties);
    let entries = entries.map(|(index, place)| (index, logit(place)));
    sparse_row(spec, entries, params(spec, 4, p, temperature, 0))
}

/// Returns a row with entries at the places `place` and `place - 1` of the search for the threshold of top-k, which
/// begins with the places from 0 to 4095. Two steps leave a range of 16 places. Top-k keeps the entry at `place`, which
/// is the threshold, but not the other one.
fn adjacent_to_the_threshold(spec: &Spec, place: i32) -> Problem {
    const LAST: i32 = 4095;
    let logit = |place: i32| below_top(spec, LAST - place);
    // The largest entries are in one group. So they are in one bin, and the bound is place 0.
    let entries = [(5, place - 1), (133, place), (261, LAST), (30_001, 0), (30_002, 0), (30_003, 0)];
    let entries = entries.map(|(index, place)| (index, logit(place)));
    sparse_row(spec, entries, params(spec, 2, 1.0, (TOP - logit(0)) * OCTAVES / 6.0, 0))
}

/// Returns a row with top-p alone. The other entries have no weight, but the upper bound of the total includes a
/// possible weight of them. This upper bound gives a threshold. The sum of the weights above this threshold is equal to
/// the least target.
fn target_at_the_bound(spec: &Spec) -> Problem {
    let entries = (0..60).map(|number| (number * 129, if number < 20 { 10.0 } else { 9.0 }));
    sparse_row(spec, entries, params(spec, 0, 0.5, OCTAVES, 40 * MAX_WEIGHT as u64 - 1))
}

/// Returns a row with top-p alone. The largest entries include the zeros, but not the largest negative normal numbers,
/// which are next to zero. Without the weight of one of these numbers, the target of top-p would be less than the sum
/// of the weights of the maxima. The row has `negative` such negative numbers. They are in the given chunk of their
/// stripe. If `crowded` is true, the group of each negative number also contains two zeros. The kernel processes eight
/// crowded lanes in one iteration. If three lanes are left, another iteration processes them. If two lanes are left, a
/// third loop processes them.
fn least_negative_numbers(spec: &Spec, chunk: usize, negative: usize, crowded: bool) -> Problem {
    let weights = [0.0, 1.0].map(|octaves| weight_below(octaves) as u64);
    let (maxima, zeros) = (30, 60);
    let sum = |others: usize| maxima as u64 * weights[0] + others as u64 * weights[1];
    let p = sum(0) as f64 / (sum(zeros + negative) as f64 - weights[1] as f64 / 2.0);
    let mut entries = vec![];
    for number in 0..negative {
        let index = chunk * CHUNK + 1024 + 110 + number;
        entries.push((index, -f32::MIN_POSITIVE));
        if crowded {
            entries.extend([(index + 128, 0.0), (index + 256, 0.0)]);
        }
    }
    let others = maxima + zeros - (entries.len() - negative);
    entries.extend((0..others).map(|number| {
        let index = number * 37 % 4 * STRIPE + number;
        (index, if number < maxima { 1.0 } else { 0.0 })
    }));
    sparse_row(spec, entries, params(spec, 0, p as f32, OCTAVES, sum(zeros / 2)))
}

/// Returns a row with a NaN and with top-p alone. The candidate list would have space for the largest entries, but they
/// do not reach the target.
fn listed_and_nan(spec: &Spec) -> Problem {
    let logit = |index: usize| if index.is_multiple_of(17) { 3.0 } else { 0.0 };
    let entries = (0..spec.vocab).map(|index| (index, if index == 70 { f32::NAN } else { logit(index) }));
    sparse_row(spec, entries, params(spec, 0, 0.9, 1.0, 3001 * MAX_WEIGHT as u64))
}

/// Returns a row in which some lanes of stripe 1 are crowded, because their groups have two zeros. The same groups of
/// stripe 0 have one zero, and the largest negative normal number. This number is next to the threshold, which is zero.
/// Top-k keeps all zeros of stripe 0 and some of the others. See [`least_negative_numbers`] for the effect of the
/// number of lanes.
fn crowded_in_one_stripe(spec: &Spec, chunk: usize, lanes: usize) -> Problem {
    let entries = (0..lanes).flat_map(|number| {
        let index = chunk * CHUNK + 1024 + 110 + number;
        let other = index + STRIPE;
        [(index, 0.0), (index + 128, -f32::MIN_POSITIVE), (other, 0.0), (other + 128, 0.0)]
    });
    let k = 2 * lanes - 2;
    sparse_row(spec, entries, params(spec, k, 1.0, 1.0, k as u64 * MAX_WEIGHT as u64 - 1))
}

/// Returns a row with four zeros in each of 250 cells, and the largest negative normal number in 500 other cells. The
/// number of bins with a zero is less than k. So the bound is below the threshold, which is zero.
fn zeros_in_a_few_bins(spec: &Spec, k: usize) -> Problem {
    let zeros = (0..1000)
        .map(|number| (3 * STRIPE + number / 500 * CHUNK + number % 4 * 128 + number % 500 / 4, 0.0));
    let negative =
        (0..500).map(|number| ([0, 1, 2, 4][number / 128] * STRIPE + number % 128, -f32::MIN_POSITIVE));
    sparse_row(spec, negative.chain(zeros), params(spec, k, 1.0, 1.0, k as u64 * MAX_WEIGHT as u64 - 1))
}

/// Returns a row with ties at this distance from each other. The last kept tie is the first tie of the given chunk, and
/// the draw selects it.
fn first_tie_of_a_chunk(spec: &Spec, chunk: usize, distance: usize) -> Problem {
    let ties = (0..spec.vocab).filter(|index| index % CHUNK % distance == 1);
    let k = ties.clone().filter(|index| index / CHUNK < chunk).count() + 1;
    let k = if let Way::Bounded(max_k) = spec.path { k.min(max_k) } else { k };
    let entries = ties.map(|index| (index, 3.0));
    sparse_row(spec, entries, params(spec, k, 1.0, 1.0, k as u64 * MAX_WEIGHT as u64 - 1))
}

/// Returns a row in which many entries are the largest negative normal number. The draw selects the last one that top-k
/// keeps.
fn tied_negative_numbers(spec: &Spec, part: usize) -> Problem {
    let most = if let Way::Bounded(max_k) = spec.path { max_k } else { 12_000 };
    let k = most * part / 10 + 7;
    let entries = (0..13_000).map(|number| (number * 3, -f32::MIN_POSITIVE)).chain([(1, 0.0), (30_001, 0.0)]);
    sparse_row(spec, entries, params(spec, k, 1.0, 1.0, k as u64 * MAX_WEIGHT as u64 - 1))
}
