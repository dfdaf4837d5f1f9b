//! Rows that take both sides of every branch of the TPU kernels, and enter every loop.
//!
//! The interpreter counts the branches and iterations. Random rows do not reach all of them.

use std::path::PathBuf;

use crate::common::tpu::{chip, problem_of, some_hundredths, spec, Cases};
use crate::common::*;
use nucleus::dtype::Dtype;
use nucleus::kernels::{Path as Way, Spec};
use nucleus::semantics::arith::Scalar;
use nucleus::semantics::params::{scale, RowParams};
use nucleus::semantics::philox::random_words;
use nucleus::semantics::weights::{quantize, weight, MAX_WEIGHT};
use rand::prelude::*;

/// If rows are longer than max_k, every row on the bounded path has top-k.
const NEVER_BOUNDED: [&str; 1] = ["survivors suffice / a row has top-k: else"];

/// A row has five chunks, and the last chunk is short. Five is not a multiple of the chunks per iteration over the
/// candidate list.
const VOCAB: usize = 40_000;
pub(super) const MAX_K: usize = 64;
/// This makes two blocks. The second block starts with the memory contents of the first block.
const TWO_BLOCKS: usize = 16;

/// Returns the spec of the programs of this file.
pub(super) fn spec_of(path: Way, batch: usize, dtype: Dtype, debug: bool) -> Spec {
    spec(path, batch, VOCAB, dtype, debug)
}

/// Returns cases of one program. Together, their rows take both sides of every branch.
pub(super) fn cases_of(
    name: &str,
    generation: &str,
    path: Way,
    batch: usize,
    dtype: Dtype,
    debug: bool,
) -> Cases {
    let mut rng = StdRng::seed_from_u64(12);
    let mut cases = Cases::new(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tpu").join(name));
    let spec = spec_of(path, batch, dtype, debug);
    for kinds in ROW_KINDS.chunks(batch.div_ceil(8)) {
        let kinds: Vec<RowKind> = (0..batch).map(|row| kinds[row / 8 % kinds.len()]).collect();
        let mut problems = vec![with_small_k(&spec, kinds.clone(), &mut rng)];
        if path == Way::Arbitrary {
            problems.push(problem_of(&spec, kinds.clone(), &mut rng));
            problems.push(some_hundredths(&spec, kinds, &mut rng));
        }
        problems.iter().for_each(|problem| cases.add(&spec, &chip(generation), problem));
    }
    // With few rows, a case takes fewer of the branches.
    for _ in 0..(TWO_BLOCKS / batch).min(6) {
        let problems = special_problems(&spec, &mut rng);
        problems.iter().for_each(|problem| cases.add(&spec, &chip(generation), problem));
    }
    cases
}

/// `generation` is the name of a chip. Chips that compute with packed bf16 divide a row into different groups.
fn every_branch_is_taken(name: &str, generation: &str, path: Way, batch: usize, dtype: Dtype, debug: bool) {
    let cases = cases_of(name, generation, path, batch, dtype, debug);
    cases.run(&[]).unwrap_or_else(|said| panic!("{said}"));
    let never = match path {
        Way::Bounded(_) => &NEVER_BOUNDED[..],
        Way::Arbitrary => &[],
    };
    assert_eq!(cases.never_taken(), never);
}

fn special_problems(spec: &Spec, rng: &mut StdRng) -> Vec<Problem> {
    let mut problems = vec![
        crowded_groups(spec, rng),
        full_groups(spec, rng),
        ten_crowded_lanes(spec, rng),
        close_ties(spec, 5, rng),
        close_ties(spec, 30, rng),
        exact_shares(spec, 3, rng),
        plain_draws(spec, RowKind::Constant, 40, rng),
        many_ties(spec, rng),
    ];
    if spec.path == Way::Arbitrary {
        problems.push(uneven_bins(spec, rng));
        problems.extend([120, 4000].map(|top| exact_shares(spec, top, rng)));
        problems.push(with_all_ties(spec, rng));
        // At temperature 0.29, a few percent of the entries have a weight above 0. With p = 0.9999, the largest entries
        // do not suffice.
        let without = [(0.29, 0.95), (0.29, 0.9999), (10.0, 0.95)];
        problems.extend(without.map(|(temperature, p)| without_top_k(spec, temperature, p, rng)));
        problems.push(normal_rows(spec, rng, |row| 3000 + row as i32));
        problems.push(close_logits_in_a_lane(spec, rng));
        problems.extend([0, 500].map(|k| plain_draws(spec, RowKind::Normal, k, rng)));
        problems.extend([0.5, 0.95, 0.9999].map(|p| like_models(spec, p, rng)));
    }
    if let Way::Bounded(_) = spec.path {
        problems.push(close_logits_in_a_lane(spec, rng));
    }
    if spec.path == Way::Arbitrary {
        problems.push(mostly_masked(spec, rng));
    }
    // In larger batches, other rows take this branch.
    if spec.batch < 8 && spec.path == Way::Arbitrary {
        problems.push(with_zero_maximum(spec, rng));
    }
    if spec.batch >= 4 {
        problems.push(full_lanes(spec, rng));
    }
    if spec.path == Way::Arbitrary {
        problems.extend([0.93, 0.95, 0.999].map(|p| power_laws(spec, p, rng)));
        problems.push(heavy_after_the_sample(spec, rng));
        problems.push(equal_weights(spec, rng));
        problems.push(gap_at_k(spec, rng));
    }
    if spec.path == Way::Arbitrary && spec.batch == 1 {
        problems.push(keys_on_both_sides_of_zero(spec, rng));
    }
    problems
}

/// Returns normal rows with the given k. The other parameters let almost all of the k entries survive.
fn normal_rows(spec: &Spec, rng: &mut StdRng, k: impl Fn(usize) -> i32) -> Problem {
    let mut problem = problem_of(spec, vec![RowKind::Normal; spec.batch], rng);
    for (row, params) in problem.rows.iter_mut().enumerate() {
        *params = RowParams::new(k(row), 0.999, 0.0, 10.0, random_words(rng.random(), 1), VOCAB);
    }
    problem
}

/// Returns rows with a small k, which leaves few survivors. The other parameters are random.
fn with_small_k(spec: &Spec, kinds: Vec<RowKind>, rng: &mut StdRng) -> Problem {
    let mut problem = problem_of(spec, kinds, rng);
    problem.rows = Problem::random_rows(spec.batch, VOCAB, Some(MAX_K as i32), rng);
    problem
}

/// Returns rows with two large logits in one group and three large logits in another group. A group is a column of up
/// to 56 registers of 128 lanes.
fn crowded_groups(spec: &Spec, rng: &mut StdRng) -> Problem {
    let mut problem = normal_rows(spec, rng, |row| 4 + row as i32 % 4);
    let large = |row: usize| {
        let places = [5 * 1024, 5 * 1024 + 128, 9 * 1024, 9 * 1024 + 256, 9 * 1024 + 384];
        places.into_iter().enumerate().map(move |(i, place)| (row, place + 3 * row, 40.0 + i as f32))
    };
    problem.put((0..spec.batch).flat_map(large));
    problem
}

/// Returns rows with eight different large logits in one group.
fn full_groups(spec: &Spec, rng: &mut StdRng) -> Problem {
    let mut problem = normal_rows(spec, rng, |row| 3 + row as i32 % 4);
    let large = |row: usize| (0..8).map(move |i| (row, 7 * 1024 + 128 * i + 3 * row, 40.0 + i as f32));
    problem.put((0..spec.batch).flat_map(large));
    problem
}

/// Returns rows with ten crowded lanes in a group register. There are two sets of them. One is for groups of
/// consecutive registers. The other is for packed groups, which have every second register.
fn ten_crowded_lanes(spec: &Spec, rng: &mut StdRng) -> Problem {
    let mut problem = normal_rows(spec, rng, |row| 40 + row as i32);
    let large = |row: usize| {
        (0..10).flat_map(move |i| {
            let place = move |step: usize, entry: usize| entry * step * 128 + 60 * step - 20 + row - i;
            [1, 2].into_iter().flat_map(move |step| {
                [(row, place(step, i), 60.0 + i as f32), (row, place(step, 12), 40.0 + i as f32)]
            })
        })
    };
    problem.put((0..spec.batch).flat_map(large));
    problem
}

/// Returns rows in which top-k keeps all candidates, which are a few percent of the entries, and some entries of −inf.
fn mostly_masked(spec: &Spec, rng: &mut StdRng) -> Problem {
    let mut problem = normal_rows(spec, rng, |row| 3000 + row as i32);
    let mut logits = vec![f32::NEG_INFINITY; spec.batch * VOCAB];
    for row in logits.chunks_mut(VOCAB) {
        for index in rand::seq::index::sample(rng, VOCAB, 900) {
            row[index] = rng.random_range(-3.0..3.0);
        }
    }
    problem.set_bits(logits.into_iter().map(|x| spec.dtype.round(x)).collect());
    problem
}

/// Returns rows in which top-k keeps a few percent of the entries, and the maximum is zero, with either sign.
fn with_zero_maximum(spec: &Spec, rng: &mut StdRng) -> Problem {
    let mut problem = normal_rows(spec, rng, |row| 500 + row as i32);
    let negative: Vec<u32> = problem
        .bits
        .iter()
        .map(|&bits| spec.dtype.round(-f32::from_bits(spec.dtype.widen(bits)).abs()))
        .collect();
    problem.set_bits(negative);
    problem.put((0..spec.batch).flat_map(|row| [(row, 777, 0.0), (row, 555, -0.0), (row, 30_000, 0.0)]));
    problem
}

/// Returns rows in which the number of kept entries is close to the number of bins. In every second row, the larger
/// logits are in half of the bins.
fn uneven_bins(spec: &Spec, rng: &mut StdRng) -> Problem {
    let mut problem = normal_rows(spec, rng, |row| 241 + row as i32);
    let large = |row: usize| (0..128).map(move |i| (row, i, 20.0 + i as f32 / 16.0));
    problem.put((0..spec.batch).step_by(2).flat_map(large));
    problem
}

/// Returns rows with forty consecutive equal logits. Top-k keeps `kept` of them.
fn close_ties(spec: &Spec, kept: i32, rng: &mut StdRng) -> Problem {
    let mut problem = normal_rows(spec, rng, |_| 1 + kept);
    let first: Vec<usize> = (0..spec.batch).map(|_| rng.random_range(1..VOCAB - 40)).collect();
    let ties = (0..spec.batch).flat_map(|row| (0..40).map(move |i| (row, i)));
    let ties: Vec<_> = ties.map(|(row, i)| (row, first[row] + i, 40.0)).collect();
    problem.put(ties.into_iter().chain((0..spec.batch).map(|row| (row, 0, 50.0))));
    problem
}

/// Returns rows that have many equal logits and up to 39 larger logits. The kernel samples these rows by passes,
/// because there are too many equal logits for the other methods. On the bounded path, top-k keeps some of the equal
/// logits. On the path for any k, it can also keep none or all of them, and some rows have no top-k. In bf16, a larger
/// logit can round to the value of the equal logits.
pub(super) fn many_ties(spec: &Spec, rng: &mut StdRng) -> Problem {
    let mut problem = problem_of(spec, vec![RowKind::Normal; spec.batch], rng);
    let mut logits = Vec::new();
    for row in 0..spec.batch {
        let (ties, larger) = (rng.random_range(300..4000), rng.random_range(0..40));
        let tie = [0.0, -0.0, 7.0, -3.5, 40.0][rng.random_range(0..5)];
        let mut values: Vec<f32> = (0..VOCAB).map(|_| tie - rng.random_range(0.5..30.0)).collect();
        for (number, index) in rand::seq::index::sample(rng, VOCAB, ties + larger).into_iter().enumerate() {
            values[index] = if number < ties { tie } else { tie + rng.random_range(0.1..6.0) };
        }
        logits.extend(values.into_iter().map(|x| spec.dtype.round(x)));
        let k = match spec.path {
            Way::Arbitrary => {
                [0, larger + 1, larger + ties, rng.random_range(1..6000)][rng.random_range(0..4)]
            }
            Way::Bounded(max_k) => rng.random_range(larger + 1..=max_k),
        };
        let p = [1.0, 0.95, rng.random_range(0.01..1.0)][rng.random_range(0..3)];
        let min_p = [0.0, 0.0, 1e-3, 0.2][rng.random_range(0..4)];
        let temperature = [0.3, 1.0, 2.5, 40.0][rng.random_range(0..4)];
        let words = random_words(rng.random(), rng.random());
        problem.rows[row] = RowParams::new(k as i32, p, min_p, temperature, words, VOCAB);
    }
    problem.set_bits(logits);
    problem
}

/// Returns rows in which a sum of weights equals the value that the kernel compares it with: the top-p target or the
/// remainder of the draw. In some rows the remainder is one less than the sum. In each row, `top` logits have the
/// largest weight, four times as many have a quarter of it, and all other logits have weight 0.
fn exact_shares(spec: &Spec, top: usize, rng: &mut StdRng) -> Problem {
    let temperature = std::f32::consts::LOG2_E / 2.0;
    let quarter = weight(Scalar, quantize(Scalar, 10.0, 9.0, scale(temperature)));
    assert_eq!(quarter, MAX_WEIGHT / 4);
    let mut problem = problem_of(spec, vec![RowKind::Constant; spec.batch], rng);
    let mut logits = vec![-1000.0; spec.batch * VOCAB];
    for (row, params) in problem.rows.iter_mut().enumerate() {
        for (number, index) in rand::seq::index::sample(rng, VOCAB, 5 * top).into_iter().enumerate() {
            logits[row * VOCAB + index] = if number < top { 10.0 } else { 9.0 };
        }
        // Top-p removes the small weights or keeps them. Top-k removes all small weights or half of them.
        let (k, p) = match row % 4 {
            0 => (5 * top, 0.5),
            1 => (5 * top, 0.5_f32.next_up()),
            2 => (top, 1.0),
            _ => (3 * top, 1.0),
        };
        let before = rng.random_range(1..=top as u64) * MAX_WEIGHT as u64 - row as u64 / 4 % 2;
        let words = [0, 0, (before >> 32) as u32, before as u32];
        *params = RowParams::new(k as i32, p, 0.0, temperature, words, VOCAB);
    }
    problem.set_bits(logits.into_iter().map(|x| spec.dtype.round(x)).collect());
    problem
}

/// Returns rows in which top-k keeps a few percent of the entries, including all ties at its threshold.
fn with_all_ties(spec: &Spec, rng: &mut StdRng) -> Problem {
    let mut problem = problem_of(spec, vec![RowKind::Normal; spec.batch], rng);
    for row in 0..spec.batch {
        let mut logits: Vec<f32> = problem.bits[row * VOCAB..][..VOCAB]
            .iter()
            .map(|&bits| f32::from_bits(spec.dtype.widen(bits)))
            .collect();
        logits.sort_by(|a, b| b.total_cmp(a));
        let k = logits.partition_point(|&x| x >= logits[500]);
        problem.rows[row] = RowParams::new(k as i32, 0.95, 0.0, 1.0, random_words(row as u64, 1), VOCAB);
    }
    problem
}

fn without_top_k(spec: &Spec, temperature: f32, p: f32, rng: &mut StdRng) -> Problem {
    let mut problem = problem_of(spec, vec![RowKind::Normal; spec.batch], rng);
    for params in &mut problem.rows {
        *params = RowParams::new(0, p, 0.0, temperature, random_words(rng.random(), 1), VOCAB);
    }
    problem
}

/// Returns rows with large logits that the kernel gathers into two lanes. These lanes have space for fewer logits. The
/// distance of the two lanes is 64. Each group register has two of the logits. The kernel rotates them by the number of
/// the group register, so the logits form two diagonals. The rows must have at most two stripes.
fn full_lanes(spec: &Spec, rng: &mut StdRng) -> Problem {
    let mut problem = normal_rows(spec, rng, |_| 20);
    // Here, only packed blocks have rows of two stripes. These rows have chunks of 32 registers. Other rows have chunks
    // of 64 registers. A chunk has two group registers. The first has register 0 of the chunk. In a chunk of 64
    // registers, the second has register 33, whether groups are packed or not.
    let registers: Vec<(usize, usize)> = match spec.batch {
        4 => (0..5).flat_map(|group| [(2 * group, 32 * group), (2 * group, 160 + 32 * group)]).collect(),
        _ => (0..10).map(|group| (group, group / 2 * 64 + group % 2 * 33)).collect(),
    };
    let large = |row: usize| {
        registers.iter().flat_map(move |&(group, register)| {
            let value = (40 + 2 * (register % 29)) as f32;
            [(30, value), (94, value + 1.0)].map(|(lane, x)| (row, 128 * register + lane + row - group, x))
        })
    };
    problem.put((0..spec.batch).flat_map(large).collect::<Vec<_>>());
    problem
}

/// Returns rows with many close logits in one lane. The stack of a lane has no space for all of them. The threshold is
/// one of these logits. In some rows, it is the threshold of top-k. In the other rows, it is the threshold of top-p. On
/// the bounded path, the rows also have many equal logits, so that the kernel samples them by passes.
fn close_logits_in_a_lane(spec: &Spec, rng: &mut StdRng) -> Problem {
    const CLOSE: usize = 24;
    let (large, small, most) = match spec.path {
        Way::Arbitrary => (1000, 400, None),
        Way::Bounded(max_k) => (max_k / 3, 1000, Some(max_k)),
    };
    let mut problem = problem_of(spec, vec![RowKind::Constant; spec.batch], rng);
    let mut logits = vec![-1000.0; spec.batch * VOCAB];
    for (row, params) in problem.rows.iter_mut().enumerate() {
        let logits = &mut logits[row * VOCAB..][..VOCAB];
        for (number, index) in rand::seq::index::sample(rng, VOCAB, large + small).into_iter().enumerate() {
            let below = if most.is_some() { 2.0 } else { rng.random_range(-5.0..2.0) };
            logits[index] = if number < large { 5.0 } else { below };
        }
        for number in 0..CLOSE {
            logits[128 * (row + number) + 7] = 3.0 + number as f32 / 200.0;
        }
        let at_least = |least: f32| logits.iter().copied().filter(move |&x| x >= least);
        let weights = |least: f32| -> f64 { at_least(least).map(|x| f64::from(x).exp()).sum() };
        let middle = (weights(4.0) + weights(3.0)) / 2.0;
        let (k, p) = match (rng.random_bool(0.5), most) {
            (true, _) => (at_least(4.0).count() + CLOSE / 2, 1.0),
            (false, None) => (0, (middle / weights(-6.0)) as f32),
            (false, Some(most)) => {
                let ties = (most - at_least(3.0).count()) as f64 * 2.0_f64.exp();
                (most, (middle / (weights(3.0) + ties)) as f32)
            }
        };
        *params = RowParams::new(k as i32, p, 0.0, 1.0, random_words(rng.random(), 1), VOCAB);
    }
    problem.set_bits(logits.into_iter().map(|x| spec.dtype.round(x)).collect());
    problem
}

/// Returns rows in which neither top-p nor min-p removes an entry.
fn plain_draws(spec: &Spec, kind: RowKind, k: i32, rng: &mut StdRng) -> Problem {
    let mut problem = problem_of(spec, vec![kind; spec.batch], rng);
    for params in &mut problem.rows {
        *params = RowParams::new(k, 1.0, 0.0, 1.0, random_words(rng.random(), 1), VOCAB);
    }
    problem
}

/// Returns rows whose largest entries have most of the weight.
fn like_models(spec: &Spec, p: f32, rng: &mut StdRng) -> Problem {
    let mut problem = problem_of(spec, vec![RowKind::Model; spec.batch], rng);
    for params in &mut problem.rows {
        *params = RowParams::new(0, p, 0.0, 1.0, random_words(rng.random(), 1), VOCAB);
    }
    problem
}

#[test]
fn bounded_plain() {
    every_branch_is_taken("ways_bounded", "v5e", Way::Bounded(MAX_K), TWO_BLOCKS, Dtype::Bf16, false);
}

#[test]
fn bounded_packed() {
    every_branch_is_taken("ways_packed", "v6e", Way::Bounded(MAX_K), TWO_BLOCKS, Dtype::Bf16, false);
}

#[test]
fn bounded_debug() {
    every_branch_is_taken("ways_bounded_debug", "v5e", Way::Bounded(MAX_K), TWO_BLOCKS, Dtype::F32, true);
}

#[test]
fn arbitrary_plain() {
    every_branch_is_taken("ways_arbitrary", "v5e", Way::Arbitrary, TWO_BLOCKS, Dtype::Bf16, false);
}

#[test]
fn arbitrary_debug() {
    every_branch_is_taken("ways_arbitrary_debug", "v5e", Way::Arbitrary, TWO_BLOCKS, Dtype::F32, true);
}

#[test]
fn bounded_one_row() {
    every_branch_is_taken("ways_bounded_1", "v5e", Way::Bounded(MAX_K), 1, Dtype::F32, true);
}

#[test]
fn arbitrary_one_row() {
    every_branch_is_taken("ways_arbitrary_1", "v6e", Way::Arbitrary, 1, Dtype::Bf16, false);
}

#[test]
fn arbitrary_two_rows() {
    every_branch_is_taken("ways_arbitrary_2", "v5e", Way::Arbitrary, 2, Dtype::F32, true);
}

#[test]
fn bounded_four_rows() {
    every_branch_is_taken("ways_bounded_4", "v6e", Way::Bounded(MAX_K), 4, Dtype::Bf16, false);
}

/// Returns rows in which the weight of the entry of rank `n` is about `n` to the power −1.5. With p = 0.95, the
/// threshold of top-p is an entry of rank 200 to 300. The kernel does not gather this entry, but lists it.
/// Some rows have top-k or are greedy.
fn power_laws(spec: &Spec, p: f32, rng: &mut StdRng) -> Problem {
    let mut problem = problem_of(spec, vec![RowKind::Normal; spec.batch], rng);
    let mut logits = Vec::new();
    for (row, params) in problem.rows.iter_mut().enumerate() {
        let mut ranks: Vec<u32> = (1..=VOCAB as u32).collect();
        ranks.shuffle(rng);
        logits.extend(ranks.into_iter().map(|rank| spec.dtype.round(-1.5 * (rank as f32).ln())));
        let (k, temperature) = match row % 8 {
            3 => (500, 1.0),
            5 => (0, 0.0),
            _ => (0, 1.0),
        };
        let min_p = if row % 8 == 6 { 0.001 } else { 0.0 };
        *params = RowParams::new(k, p, min_p, temperature, random_words(rng.random(), 1), VOCAB);
    }
    problem.set_bits(logits);
    problem
}

/// Returns rows in which many entries with small weights have much of the total weight. None of them is in the first
/// chunk, from which the kernel estimates the total. So the kernel fills the candidate list, but the list does not
/// suffice.
fn heavy_after_the_sample(spec: &Spec, rng: &mut StdRng) -> Problem {
    let mut problem = power_laws(spec, 0.95, rng);
    let stripes = 8 / spec.batch.min(8);
    let stripe = VOCAB.div_ceil(stripes);
    for (index, bits) in problem.bits.iter_mut().enumerate() {
        let x = f32::from_bits(spec.dtype.widen(*bits));
        let small = if index % VOCAB % stripe < stripe / 3 { -30.0 } else { -10.0 + x / 100.0 };
        if x < -9.5 {
            *bits = spec.dtype.round(small);
        }
    }
    problem.set_bits(problem.bits.clone());
    problem
}

/// Returns rows with two different large logits that have the same weight. Some of these entries reach the target of
/// top-p. But top-p alone keeps all of them, because it keeps ties.
fn equal_weights(spec: &Spec, rng: &mut StdRng) -> Problem {
    const TEMPERATURE: f32 = 1e5;
    let mut problem = problem_of(spec, vec![RowKind::Constant; spec.batch], rng);
    let mut logits: Vec<f32> = (0..spec.batch * VOCAB).map(|_| rng.random_range(-900.0..-500.0)).collect();
    for (row, params) in problem.rows.iter_mut().enumerate() {
        for (number, index) in rand::seq::index::sample(rng, VOCAB, 1300).into_iter().enumerate() {
            logits[row * VOCAB + index] = if number < 100 + 50 * (row % 8) { 10.0 } else { 9.9375 };
        }
        *params = RowParams::new(0, 0.001, 0.0, TEMPERATURE, random_words(rng.random(), 1), VOCAB);
    }
    let weights =
        [10.0, 9.9375, -500.0].map(|x| weight(Scalar, quantize(Scalar, 10.0, x, scale(TEMPERATURE))));
    assert!(weights[0] == weights[1] && weights[1] > weights[2]);
    problem.set_bits(logits.into_iter().map(|x| spec.dtype.round(x)).collect());
    problem
}

/// Returns rows with a wide gap below the logits that top-k keeps. The search for the threshold of top-k probes a place
/// in this gap. Exactly k entries reach this place, so the search knows that there are no ties.
fn gap_at_k(spec: &Spec, rng: &mut StdRng) -> Problem {
    const KEPT: usize = 700;
    let mut problem = normal_rows(spec, rng, |_| KEPT as i32);
    let mut logits: Vec<f32> = (0..spec.batch * VOCAB).map(|_| rng.random_range(-20.0..0.0)).collect();
    for row in logits.chunks_mut(VOCAB) {
        for index in rand::seq::index::sample(rng, VOCAB, KEPT) {
            row[index] = rng.random_range(7.5..8.0);
        }
    }
    problem.set_bits(logits.into_iter().map(|x| spec.dtype.round(x)).collect());
    problem
}

/// Returns rows in which the thresholds of top-k and top-p are on different sides of zero. There are many keys between
/// them, although the logits are close. The weight of the largest logit is more than eight octaves above the threshold
/// of top-p. So the search for this threshold takes more steps than usual, even in bf16.
fn keys_on_both_sides_of_zero(spec: &Spec, rng: &mut StdRng) -> Problem {
    const POSITIVE: usize = 150;
    const NEGATIVE: usize = 60;
    let mut problem = problem_of(spec, vec![RowKind::Constant; spec.batch], rng);
    let mut logits = vec![-14.0; spec.batch * VOCAB];
    for (row, params) in logits.chunks_mut(VOCAB).zip(&mut problem.rows) {
        let places = rand::seq::index::sample(rng, VOCAB, 1 + POSITIVE + NEGATIVE);
        for (number, index) in places.into_iter().enumerate() {
            row[index] = match number {
                0 => 5.87,
                1..=POSITIVE => rng.random_range(0.25..0.31),
                _ => rng.random_range(-0.5..-0.05),
            };
        }
        let k = POSITIVE as i32 + 6;
        *params = RowParams::new(k, 0.9, 0.0, 1.0, random_words(rng.random(), 1), VOCAB);
    }
    problem.set_bits(logits.into_iter().map(|x| spec.dtype.round(x)).collect());
    problem
}
