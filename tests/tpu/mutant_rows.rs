//! Random rows that catch mutants of the TPU kernels. A row is determined by its seed.
//!
//! The rows have few different logits, masked ranges, or many close logits. The parameters are often at a limit. Top-k
//! keeps all entries down to a value, or one entry more or less. p is the share of the entries down to a weight. The
//! remainder of the draw is the first or the last remainder that selects an entry.

use std::sync::OnceLock;

use crate::common::*;
use nucleus::kernels::{Path as Way, Spec};
use nucleus::plan::Entry;
use nucleus::sampler::Sampler;
use nucleus::semantics::params::RowParams;
use nucleus::semantics::top_p::TopP;
use nucleus::semantics::weights::MAX_WEIGHT;
use rand::prelude::*;
use rand_distr::{Distribution, Exp, Normal};

/// The seeds of rows that catch mutants that no other row of the tests catches. They were found among a few thousand
/// random rows.
const SEEDS: [u64; 216] = [
    1, 2, 3, 4, 5, 6, 13, 24, 27, 32, 38, 41, 44, 52, 57, 66, 70, 76, 1015, 1018, 1019, 1020, 1021, 1022,
    1023, 1024, 1025, 1028, 1029, 1031, 1033, 1037, 1040, 1044, 1046, 1047, 1052, 1060, 1064, 1065, 1067,
    1077, 1082, 1086, 1089, 1114, 1116, 1117, 1133, 1135, 1140, 1141, 1142, 1143, 1144, 1146, 1148, 1149,
    1154, 1155, 1156, 1157, 1158, 1162, 1168, 1175, 1185, 1192, 1196, 1201, 1203, 1204, 1207, 1215, 1216,
    1217, 1224, 1225, 1249, 1250, 1256, 1260, 1263, 1267, 1282, 1290, 1301, 1306, 1316, 1320, 1344, 1352,
    1369, 1382, 1390, 1437, 1457, 1465, 1542, 1562, 1586, 1592, 1607, 1665, 1678, 1681, 1687, 1718, 1748,
    1792, 1887, 1939, 1998, 2085, 2188, 2200, 2253, 2307, 2312, 2471, 3002, 3004, 3005, 3008, 3015, 3023,
    3038, 3044, 3045, 3053, 3079, 3088, 3142, 3154, 3165, 3182, 3210, 3218, 3277, 3291, 3304, 3307, 3372,
    3389, 3433, 3734, 3798, 3801, 3911, 3993, 4007, 4105, 4142, 4157, 4239, 1_003_000, 1_003_001, 1_003_002,
    1_003_005, 1_003_006, 1_003_014, 1_003_015, 1_003_020, 1_003_021, 1_003_023, 1_003_024, 1_003_026,
    1_003_028, 1_003_029, 1_003_032, 1_003_034, 1_003_035, 1_003_039, 1_003_047, 1_003_050, 1_003_063,
    1_003_066, 1_003_074, 1_003_077, 1_003_080, 1_003_086, 1_003_091, 1_003_104, 1_003_109, 1_003_116,
    1_003_117, 1_003_119, 1_003_120, 1_003_121, 1_003_134, 1_003_138, 1_003_147, 1_003_158, 1_003_167,
    1_003_188, 1_003_201, 1_003_215, 1_003_218, 1_003_234, 1_003_249, 1_003_272, 1_003_315, 1_003_341,
    1_003_384, 1_003_426, 1_003_512, 1_003_524, 1_003_564, 1_003_577, 1_003_738, 1_003_917, 1_003_920,
    1_003_974, 1_004_074, 1_004_140, 1_004_267,
];

/// Rows with a seed of at least this number have special logits.
const SPECIAL_LOGITS: u64 = 1_000_000;

/// Returns all rows of this file. Each is a batch of one row.
pub(super) fn problems(spec: &Spec) -> Vec<Problem> {
    let mut problems: Vec<Problem> = SEEDS.map(|seed| random_row(spec, seed)).into();
    problems.extend((0..30).map(|seed| tiny_p(spec, seed)));
    problems.extend([false, true].map(|many| whole_target(spec, many)));
    for k in [3, 12, 25, 30, 41, 52, 60] {
        problems.extend([2000, 4900].map(|more| drawn_tie(spec, k, more)));
    }
    problems
}

/// Returns a batch of one row.
pub(super) fn one_row(spec: &Spec, logits: Vec<f32>, params: RowParams, rng: &mut StdRng) -> Problem {
    let mut problem = Problem::new(spec.dtype, spec.vocab, vec![RowKind::Constant], vec![params], rng);
    problem.options.stable = spec.stable;
    problem.set_bits(logits.into_iter().map(|x| spec.dtype.round(x)).collect());
    problem
}

/// Returns the random row of a seed.
fn random_row(spec: &Spec, seed: u64) -> Problem {
    let rng = &mut StdRng::seed_from_u64(seed);
    let (mut logits, step) = match seed < SPECIAL_LOGITS {
        true => random_logits(spec.vocab, rng),
        false => special_logits(spec.vocab, rng),
    };
    for _ in 0..[0, 0, 1, 3][rng.random_range(0..4)] {
        mask_range(&mut logits, rng);
    }
    if rng.random_bool(0.2) {
        crowd_a_lane(&mut logits, rng);
    }
    if rng.random_bool(0.15) {
        put_special_values(&mut logits, rng);
    }
    let params = RowParams::new(1, 1.0, 0.0, 1.0, [0; 4], spec.vocab);
    let mut problem = one_row(spec, logits, params, rng);
    random_parameters(spec, &mut problem, step, seed >= SPECIAL_LOGITS, rng);
    problem
}

/// Returns a row in which the target of top-p is a multiple of 2³². The target is half of the total. The large entries
/// do not reach it, so top-p keeps all entries with a weight. The row is sampled from survivors, or by passes if there
/// are `many` entries.
fn whole_target(spec: &Spec, many: bool) -> Problem {
    // The weights of these entries are 2²⁸ and 2²⁷, so their sum is a multiple of 2³³.
    let (large, small) = if many && spec.path == Way::Arbitrary { (768, 2560) } else { (12, 40) };
    let ties = if many { 4000 } else { small };
    let params = RowParams::new(large + small, 0.5, 0.0, std::f32::consts::LOG2_E, [1, 2, 3, 4], spec.vocab);
    let mut logits = vec![-1000.0; spec.vocab];
    for number in 0..(large + ties) as usize {
        logits[(number * 37) % spec.vocab] = if number < large as usize { 10.0 } else { 9.0 };
    }
    one_row(spec, logits, params, &mut StdRng::seed_from_u64(1))
}

/// Returns a row with nine ties in each of the first seven eighths of the row, and `more` ties in the last eighth.
/// Top-k keeps `k` ties, and the draw selects the last one. There are too many ties for the survivors.
fn drawn_tie(spec: &Spec, k: i32, more: usize) -> Problem {
    let last = (k as u64 * MAX_WEIGHT as u64) - 1;
    let words = [0, 0, (last >> 32) as u32, last as u32];
    let params = RowParams::new(k, 1.0, 0.0, 1.0, words, spec.vocab);
    let rng = &mut StdRng::seed_from_u64(k as u64);
    let mut logits = vec![-1000.0; spec.vocab];
    let eighth = spec.vocab / 8;
    for part in 0..8 {
        let ties = if part < 7 { 9 } else { more };
        for place in rand::seq::index::sample(rng, eighth, ties) {
            logits[part * eighth + place] = 3.0;
        }
    }
    one_row(spec, logits, params, rng)
}

/// Returns a random row whose p is so small that the shift of [`TopP`] is 31 or 32.
fn tiny_p(spec: &Spec, seed: u64) -> Problem {
    let mut problem = random_row(spec, seed);
    problem.rows[0].top_p = TopP::new(1.25 * 2.0_f32.powi(-32 - (seed % 2) as i32));
    problem
}

/// Returns logits. If there are few different logits, also returns the distance between adjacent ones.
fn random_logits(vocab: usize, rng: &mut StdRng) -> (Vec<f32>, f32) {
    let top = [0.0, -0.0, 5.0, 17.5, -3.0, 40.0, 1e-38][rng.random_range(0..7)];
    let step = [1.0, 1.0, 0.5, 0.25, 3.0, 1e-3][rng.random_range(0..6)];
    let shape = rng.random_range(0..6);
    let mut logits = vec![if shape == 0 { f32::NEG_INFINITY } else { top - 200.0 * step }; vocab];
    match shape {
        0 | 1 => {
            // Each level has more entries than the one above it.
            let mut order: Vec<usize> = (0..vocab).collect();
            order.shuffle(rng);
            let (mut places, mut count, growth) =
                (order.into_iter(), rng.random_range(1..60), rng.random_range(1..6));
            for level in 0..rng.random_range(1..12) {
                for place in places.by_ref().take(count) {
                    logits[place] = top - step * level as f32;
                }
                count *= growth;
            }
        }
        2 => {
            let normal = Normal::new(top, 3.0).unwrap();
            logits.iter_mut().for_each(|x| *x = normal.sample(rng));
        }
        3 => {
            let below = Exp::new(1.0 / step).unwrap();
            logits.iter_mut().for_each(|x| *x = top - below.sample(rng));
        }
        4 => logits = model_rows::model_row(vocab, rng),
        _ => {
            // Most of these logits differ only in their last bits.
            let bits = (5.0_f32 * step).to_bits();
            let spread = 1 << rng.random_range(1..20);
            logits.iter_mut().for_each(|x| *x = f32::from_bits(bits - rng.random_range(0..spread)));
        }
    }
    (logits, step)
}

/// Returns logits that are mostly near the limits of the floats: infinity, the largest and the least normal numbers,
/// and 0. Each of them has a random number of entries. Also returns a random distance, which determines the
/// temperature.
fn special_logits(vocab: usize, rng: &mut StdRng) -> (Vec<f32>, f32) {
    let least = f32::MIN_POSITIVE;
    let mut levels =
        vec![f32::INFINITY, f32::MAX, f32::MAX.next_down(), 1.0, 2.0 * least, least.next_up(), least];
    levels.extend([1e-40, 0.0, -0.0, -least, -least.next_up(), -1.0, -3.0, f32::MIN.next_up(), f32::MIN]);
    let first = rng.random_range(0..levels.len());
    let mut logits = vec![[f32::NEG_INFINITY, f32::MIN, -1e30, -3.5][rng.random_range(0..4)]; vocab];
    let mut order: Vec<usize> = (0..vocab).collect();
    order.shuffle(rng);
    let mut places = order.into_iter();
    for &level in &levels[first..] {
        if rng.random_bool(0.6) {
            let count = [1, 2, 30, 130, 700, 3000][rng.random_range(0..6)];
            places.by_ref().take(count).for_each(|place| logits[place] = level);
        }
    }
    let step = [1.0, 1e-38, 1e37, 0.3][rng.random_range(0..4)];
    (logits, step)
}

/// Masks a range. It often starts and ends at the border of a register or of a stripe.
fn mask_range(logits: &mut [f32], rng: &mut StdRng) {
    let unit = [1, 128, 1024, logits.len() / 8][rng.random_range(0..4)];
    let units = logits.len() / unit;
    let start = rng.random_range(0..units);
    let end = rng.random_range(start..=units.min(start + units.div_ceil(2)));
    let mask = [f32::NEG_INFINITY, -1e30, f32::NAN][[0, 0, 0, 1, 1, 2][rng.random_range(0..6)]];
    logits[start * unit..end * unit].fill(mask);
}

/// Puts close logits into one lane of consecutive registers. They are near the largest logits.
fn crowd_a_lane(logits: &mut [f32], rng: &mut StdRng) {
    let largest = logits.iter().copied().filter(|x| !x.is_nan()).fold(f32::NEG_INFINITY, f32::max);
    let (count, stride) = (rng.random_range(2..30), [128, 256, 1024][rng.random_range(0..3)]);
    let (first, step) = (rng.random_range(0..128), [0.0, 1.0 / 64.0, 0.5][rng.random_range(0..3)]);
    let top = if largest.is_finite() { largest + rng.random_range(-2..2) as f32 } else { 0.0 };
    for number in 0..count {
        logits[(first + number * stride) % logits.len()] = top - step * number as f32;
    }
}

fn put_special_values(logits: &mut [f32], rng: &mut StdRng) {
    const VALUES: [f32; 9] = [
        f32::NAN,
        f32::INFINITY,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        -f32::MIN_POSITIVE,
        1e-40,
        0.0,
        -0.0,
    ];
    let values: Vec<f32> = VALUES.choose_multiple(rng, 2).copied().collect();
    for _ in 0..rng.random_range(1..8) {
        let place = rng.random_range(0..logits.len());
        logits[place] = *values.choose(rng).unwrap();
    }
}

/// The parameters that [`choose_others`] receives.
pub(super) struct Choice {
    pub(super) k: i32,
    pub(super) temperature: f32,
}

/// Chooses parameters for the logits of a row. `step` is the distance between adjacent logits.
pub(super) fn random_parameters(
    spec: &Spec,
    problem: &mut Problem,
    step: f32,
    special: bool,
    rng: &mut StdRng,
) {
    // With the first of these temperatures, the weights of adjacent logits often differ by a power of two.
    let octaves = std::f32::consts::LOG2_E * step;
    let temperature = [octaves, octaves / 2.0, 1.0, 0.3, 10.0, 0.0]
        [[0, 0, 0, 1, 1, 2, 2, 3, 4, 5][rng.random_range(0..10)]];
    let choice = Choice { k: choose_k(spec, problem, rng), temperature };
    choose_others(spec, problem, choice, special, rng);
}

/// Chooses p, min-p and the random number of a row.
pub(super) fn choose_others(
    spec: &Spec,
    problem: &mut Problem,
    choice: Choice,
    special: bool,
    rng: &mut StdRng,
) {
    let Choice { k, temperature } = choice;
    let with = |p, min_p, words| RowParams::new(k, p, min_p, temperature, words, spec.vocab);
    problem.rows[0] = with(1.0, 0.0, [0; 4]);
    let p = choose_p(&weights(spec, problem), special, rng);
    let min_p = [0.0, 0.0, 0.0, 0.25, 0.25_f32.next_up(), 1e-6, 1.0][rng.random_range(0..7)];
    problem.rows[0] = with(p, min_p, [0; 4]);
    let words = choose_words(&weights(spec, problem), rng);
    problem.rows[0] = with(p, min_p, words);
}

/// Returns a k that often keeps all entries down to some value, or one entry more or less.
fn choose_k(spec: &Spec, problem: &Problem, rng: &mut StdRng) -> i32 {
    let most = match spec.path {
        Way::Arbitrary if rng.random_bool(0.3) => return 0,
        Way::Arbitrary => [100, 2000, spec.vocab - 1][rng.random_range(0..3)],
        Way::Bounded(max_k) => max_k,
    };
    let mut values: Vec<f32> = problem
        .bits
        .iter()
        .map(|&bits| f32::from_bits(spec.dtype.widen(bits)))
        .filter(|x| !x.is_nan())
        .collect();
    values.sort_by(|a, b| b.total_cmp(a));
    let some = rng.random_range(1..=most);
    let Some(value) = values.get(some - 1) else { return some as i32 };
    let reached = values.partition_point(|x| x >= value);
    let k = [some, reached - 1, reached, reached + 1][rng.random_range(0..4)];
    k.clamp(1, most) as i32
}

/// Returns a p. Often, it is the share of the weights down to one of `weights`, or the next float above or below it.
fn choose_p(weights: &[i32], special: bool, rng: &mut StdRng) -> f32 {
    let least = weights.iter().copied().filter(|&w| w > 0).choose(rng).unwrap_or(0);
    let sum = |least| weights.iter().filter(|&&w| w >= least).map(|&w| f64::from(w)).sum::<f64>();
    let p = match rng.random_range(0..if special { 7 } else { 6 }) {
        6 => 2.0_f32.powi(-rng.random_range(24..60)) * 1.25,
        0 => 1.0,
        1 => [0.5, 0.25, 0.75, 0.125][rng.random_range(0..4)],
        2 => rng.random_range(0.0..1.0),
        3 => [1e-30, 1e-9, 0.95, 0.9999][rng.random_range(0..4)],
        _ => (sum(least) / sum(0).max(1.0)) as f32,
    };
    [p, p, p.next_up(), p.next_down()][rng.random_range(0..4)]
}

/// Returns random words. The remainder is often the first or the last one that selects some entry.
fn choose_words(weights: &[i32], rng: &mut StdRng) -> [u32; 4] {
    let total: u128 = weights.iter().map(|&w| w as u128).sum();
    let mut number: u128 = rng.random();
    if total > 0 && rng.random_bool(0.8) {
        let drawn = (0..weights.len()).filter(|&i| weights[i] > 0).choose(rng).unwrap();
        let before: u128 = weights[..drawn].iter().map(|&w| w as u128).sum();
        let remainder = if rng.random_bool(0.5) { before } else { before + weights[drawn] as u128 - 1 };
        let most = (u128::MAX - remainder) / total;
        let quotient = match rng.random_range(0..4) {
            0 => 0,
            1 => most,
            2 => (1 << rng.random_range(0..100)).min(most),
            _ => number % (most + 1),
        };
        number = quotient * total + remainder;
    }
    [96, 64, 32, 0].map(|shift| (number >> shift) as u32)
}

/// Returns the weights of a row after top-k, top-p and min-p.
fn weights(spec: &Spec, problem: &Problem) -> Vec<i32> {
    static SAMPLER: OnceLock<Sampler> = OnceLock::new();
    let sampler = SAMPLER.get_or_init(|| builtin(1));
    let entry = if spec.path == Way::Arbitrary { Entry::Arbitrary } else { Entry::Bounded };
    let ask = Ask { weights: true, ..PLAIN };
    sample(sampler, entry, problem, ask).weights
}
