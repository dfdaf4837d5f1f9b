//! Compares every output of the built-in backend with the reference, bit for bit. Also tests the largest batch and
//! running out of memory.

use fearless_simd::{Level, Simd};
use half::{bf16, f16};
use nucleus::backend::builtin::{sample_row, BuiltinBackend, Scratch};
use nucleus::batch::{Batch, CallOptions};
use nucleus::dtype::{Dtype, Logits, LogitsMut};
use nucleus::error::Error;
use nucleus::outputs::{Outputs, RowArrays, RowOutcome};
use nucleus::reference;
use nucleus::semantics::params::RowParams;
use nucleus::semantics::sizes::TOTAL_BITS;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Normal};

use crate::common::model_rows::model_row_with_maximum;

/// A row of logits of any of the three types.
enum Row {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    F16(Vec<u16>),
}

impl Row {
    fn new(values: &[f32], dtype: Dtype) -> Row {
        match dtype {
            Dtype::F32 => Row::F32(values.to_vec()),
            Dtype::Bf16 => Row::Bf16(values.iter().map(|&x| bf16::from_f32(x).to_bits()).collect()),
            Dtype::F16 => Row::F16(values.iter().map(|&x| f16::from_f32(x).to_bits()).collect()),
        }
    }

    fn logits(&self) -> Logits<'_> {
        match self {
            Row::F32(x) => Logits::F32(x),
            Row::Bf16(x) => Logits::Bf16(x),
            Row::F16(x) => Logits::F16(x),
        }
    }
}

/// The wide outputs of a row.
struct Arrays {
    topk_logits: Row,
    weights: Vec<i32>,
    indices_k: Vec<i32>,
    topk_logits_k: Row,
    weights_k: Vec<i32>,
}

fn borrow(row: &mut Row) -> LogitsMut<'_> {
    match row {
        Row::F32(x) => LogitsMut::F32(x),
        Row::Bf16(x) => LogitsMut::Bf16(x),
        Row::F16(x) => LogitsMut::F16(x),
    }
}

fn bits(row: &Row) -> Vec<u32> {
    (0..row.logits().len()).map(|i| row.logits().bits(i)).collect()
}

impl Arrays {
    fn new(dtype: Dtype, vocab: usize, slots: usize) -> Arrays {
        Arrays {
            topk_logits: Row::new(&vec![7.0; vocab], dtype),
            weights: vec![7; vocab],
            indices_k: vec![7; slots],
            topk_logits_k: Row::new(&vec![7.0; slots], dtype),
            weights_k: vec![7; slots],
        }
    }

    fn borrow(&mut self) -> RowArrays<'_> {
        RowArrays {
            topk_logits: Some(borrow(&mut self.topk_logits)),
            weights: Some(&mut self.weights),
            indices_k: Some(&mut self.indices_k),
            topk_logits_k: Some(borrow(&mut self.topk_logits_k)),
            weights_k: Some(&mut self.weights_k),
        }
    }

    fn assert_same(&self, other: &Arrays, case: &str) {
        let same = |name: &str, a: &[i32], b: &[i32]| {
            if let Some(i) = (0..a.len()).find(|&i| a[i] != b[i]) {
                panic!("{case}: {name}[{i}] is {}, should be {}", a[i], b[i]);
            }
        };
        let ints = |row: &Row| bits(row).into_iter().map(|x| x as i32).collect::<Vec<_>>();
        same("topk_logits", &ints(&self.topk_logits), &ints(&other.topk_logits));
        same("weights", &self.weights, &other.weights);
        same("indices_k", &self.indices_k, &other.indices_k);
        same("topk_logits_k", &ints(&self.topk_logits_k), &ints(&other.topk_logits_k));
        same("weights_k", &self.weights_k, &other.weights_k);
    }
}

/// Every instruction set of this machine, the best first.
fn levels() -> Vec<Level> {
    let best = Level::new();
    let mut levels = vec![best];
    #[cfg(target_arch = "x86_64")]
    levels.extend(
        [
            best.as_avx2().map(|token| token.level()),
            best.as_sse4_2().map(|token| token.level()),
            best.as_sse2().map(|token| token.level()),
        ]
        .into_iter()
        .flatten(),
    );
    levels
}

/// The contents of a row.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Normal,
    /// Few distinct values.
    Tied,
    Constant,
    /// Mostly −inf.
    Masked,
    AllMasked,
    AllNan,
    OneHot,
    /// Mostly zeros and subnormals of both signs.
    Denormal,
    Huge,
    WithNan,
    /// NaN, ±inf, ±0, a subnormal and ordinary values.
    Everything,
    Ascending,
    Descending,
    Negative,
    /// Nearly constant, with a few peaks that a sample can miss.
    Spikes,
    /// Logits like those of language models. Most are normally distributed. The gaps between sixty top entries are
    /// exponentially distributed.
    Model,
    /// One maximum above equal entries.
    OneMaximum,
}

const KINDS: [Kind; 17] = [
    Kind::Normal,
    Kind::Tied,
    Kind::Constant,
    Kind::Masked,
    Kind::AllMasked,
    Kind::AllNan,
    Kind::OneHot,
    Kind::Denormal,
    Kind::Huge,
    Kind::WithNan,
    Kind::Everything,
    Kind::Ascending,
    Kind::Descending,
    Kind::Negative,
    Kind::Spikes,
    Kind::Model,
    Kind::OneMaximum,
];

fn values(kind: Kind, vocab: usize, rng: &mut StdRng) -> Vec<f32> {
    let normal = Normal::new(0.0_f32, 3.0).unwrap();
    let special = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-40, -1e-40, f32::MAX];
    let tiny = [0.0, -0.0, 1e-40, -1e-40, f32::MIN_POSITIVE, -f32::MIN_POSITIVE, 1e-45, 6e-8, -6e-8];
    let hot = rng.random_range(0..vocab);
    if matches!(kind, Kind::Model) {
        return model_row_with_maximum(rng.random_range(17.0..26.0), vocab, rng);
    }
    (0..vocab)
        .map(|i| {
            let x = normal.sample(rng);
            match kind {
                Kind::Normal => x,
                Kind::Tied => (x / 3.0).round(),
                Kind::Constant => 1.5,
                Kind::Masked => {
                    if rng.random_ratio(1, 50) {
                        x
                    } else {
                        f32::NEG_INFINITY
                    }
                }
                Kind::AllMasked => f32::NEG_INFINITY,
                Kind::AllNan => f32::NAN,
                Kind::OneHot => {
                    if i == hot {
                        40.0
                    } else {
                        0.0
                    }
                }
                Kind::Denormal => tiny[rng.random_range(0..tiny.len())],
                Kind::Huge => x * 1e38,
                Kind::WithNan => {
                    if rng.random_ratio(1, 100) {
                        f32::NAN
                    } else {
                        x
                    }
                }
                Kind::Everything => {
                    if rng.random_ratio(1, 3) {
                        special[rng.random_range(0..9)]
                    } else {
                        x
                    }
                }
                Kind::OneMaximum => {
                    if i == hot {
                        1.0
                    } else {
                        0.0
                    }
                }
                Kind::Model => unreachable!("the whole row was made above"),
                Kind::Ascending => i as f32 * 1e-3,
                Kind::Descending => -(i as f32) * 1e-3,
                Kind::Negative => -x.abs() - 1.0,
                Kind::Spikes => {
                    if rng.random_ratio(1, 1 + vocab as u32 / 20) {
                        9.0 + x
                    } else {
                        x * 1e-3
                    }
                }
            }
        })
        .collect()
}

#[derive(Clone, Copy, Debug)]
struct Parameters {
    k: i32,
    p: f32,
    min_p: f32,
    temperature: f32,
    stable: bool,
}

fn check(
    row: &Row,
    parameters: Parameters,
    levels: &[Level],
    parts: usize,
    scratch: &mut Scratch,
    rng: &mut StdRng,
    what: &str,
) {
    let logits = row.logits();
    let vocab = logits.len();
    let params = RowParams::new(
        parameters.k,
        parameters.p,
        parameters.min_p,
        parameters.temperature,
        rng.random(),
        vocab,
    );
    let options = CallOptions { stable: parameters.stable, replace_val: -1e12 };
    let slots = (params.k as usize).clamp(3, 100);
    let mut expected = Arrays::new(logits.dtype(), vocab, slots);
    let outcome = {
        let mut scratch = reference::Scratch::new(logits.len()).unwrap();
        reference::sample_row(logits, &params, options, &mut expected.borrow(), &mut scratch)
    };
    for &level in levels {
        let case = format!("{what}, {:?}, vocab {vocab}, {parameters:?}, {level:?}", logits.dtype());
        let mut arrays = Arrays::new(logits.dtype(), vocab, slots);
        let got = sample_row(level, parts, logits, &params, options, &mut arrays.borrow(), scratch).unwrap();
        assert_eq!(got, outcome, "{case}");
        arrays.assert_same(&expected, &case);
        let got =
            sample_row(level, parts, logits, &params, options, &mut RowArrays::default(), scratch).unwrap();
        assert_eq!(got, outcome, "{case}, no arrays");
    }
}

const P: [f32; 6] = [0.0, 1e-30, 0.5, 0.95, 1.0 - 1.0 / 16_777_216.0, 1.0];
const T: [f32; 6] = [0.0, 1e-6, 0.1, 1.0, 10.0, 1e30];
const MIN_P: [f32; 4] = [0.0, 0.05, 1.0, 2.0];
const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];

fn random_parameters(vocab: usize, rng: &mut StdRng) -> Parameters {
    let ks = [0, 1, 2, 63, 64, 128, 129, 500, 5000, vocab as i32 / 2, vocab as i32 - 1];
    Parameters {
        k: ks[rng.random_range(0..ks.len())],
        p: P[rng.random_range(0..P.len())],
        min_p: if rng.random_ratio(1, 2) { 0.0 } else { MIN_P[rng.random_range(0..MIN_P.len())] },
        temperature: if rng.random_ratio(1, 2) { 1.0 } else { T[rng.random_range(0..T.len())] },
        stable: rng.random(),
    }
}

fn sweep(vocab: usize, rounds: usize, levels: &[Level], seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut scratch = Scratch::default();
    for kind in KINDS {
        let values = values(kind, vocab, &mut rng);
        for dtype in DTYPES {
            let row = Row::new(&values, dtype);
            for _ in 0..rounds {
                let parameters = random_parameters(vocab, &mut rng);
                check(&row, parameters, levels, 1, &mut scratch, &mut rng, &format!("{kind:?}"));
            }
        }
    }
}

#[test]
fn small_rows_match_the_reference_at_every_level() {
    for (i, vocab) in [1, 2, 15, 16, 17, 127, 128, 129, 1000].into_iter().enumerate() {
        sweep(vocab, 40, &levels(), i as u64);
    }
}

#[test]
fn every_parameter_combination_matches_the_reference() {
    let mut rng = StdRng::seed_from_u64(100);
    let mut scratch = Scratch::default();
    let level = [Level::new()];
    for kind in [Kind::Normal, Kind::Tied, Kind::Everything] {
        let vocab = 300;
        let row = Row::new(&values(kind, vocab, &mut rng), Dtype::F32);
        for k in [0, 1, 2, 63, 64, 128, 129, 299] {
            for p in P {
                for temperature in T {
                    for min_p in MIN_P {
                        for stable in [false, true] {
                            let parameters = Parameters { k, p, min_p, temperature, stable };
                            check(&row, parameters, &level, 1, &mut scratch, &mut rng, &format!("{kind:?}"));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn rows_of_32_000_match_the_reference_at_every_level() {
    sweep(32_000, 2, &levels(), 200);
}

/// Rows like those of language models: normally distributed logits, and a few large entries above them. Top-p keeps few
/// entries. The backend finds them with bounds on the sum of the other weights. Some values of p equal the share of a
/// number of largest entries. In these cases the bounds cannot decide.
#[test]
fn peaked_rows_match_the_reference_at_every_level() {
    let mut rng = StdRng::seed_from_u64(400);
    let mut scratch = Scratch::default();
    for round in 0..6 {
        let vocab = [8192, 8200, 20_011][round % 3];
        let (gap, above) = (rng.random_range(0.05..0.8_f32), rng.random_range(12.0..26.0_f32));
        let body = Normal::new(0.0_f32, [3.5, 0.5][round % 2]).unwrap();
        let mut values: Vec<f32> = (0..vocab).map(|_| body.sample(&mut rng)).collect();
        for rank in 0..60 {
            // Some of the large entries tie.
            values[rng.random_range(0..vocab)] = above - gap * (rank / (1 + round % 3)) as f32;
        }
        let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for dtype in DTYPES {
            let row = Row::new(&values, dtype);
            for temperature in [0.3_f32, 1.0, 2.0] {
                let mut shares: Vec<f64> =
                    values.iter().map(|&x| (f64::from(x - max) / f64::from(temperature)).exp()).collect();
                shares.sort_by(|a, b| b.total_cmp(a));
                let total: f64 = shares.iter().sum();
                let of_largest = |count: usize| (shares[..count].iter().sum::<f64>() / total) as f32;
                for p in [of_largest(3), of_largest(20), of_largest(200), 0.5, 0.95, 0.999] {
                    let min_p = if rng.random_ratio(1, 4) { 0.01 } else { 0.0 };
                    let parameters = Parameters { k: 0, p, min_p, temperature, stable: true };
                    check(&row, parameters, &levels(), 1, &mut scratch, &mut rng, "peaked");
                }
            }
        }
    }
}

#[test]
fn rows_of_128_256_match_the_reference() {
    sweep(128_256, 2, &[Level::new()], 300);
}

#[test]
fn rows_of_262_144_and_more_match_the_reference() {
    sweep(262_144, 1, &[Level::new()], 301);
    let mut rng = StdRng::seed_from_u64(302);
    let row = Row::new(&values(Kind::Normal, 1 << 20, &mut rng), Dtype::F32);
    for k in [0, 64, 5000] {
        let parameters = Parameters { k, p: 0.95, min_p: 0.0, temperature: 1.0, stable: true };
        check(&row, parameters, &[Level::new()], 1, &mut Scratch::default(), &mut rng, "1 Mi");
    }
}

/// Rows without top-k. In some rows, the largest entries alone decide top-p. In other rows, only few logits have a
/// weight. The maxima are far enough above the other logits that both kinds of rows occur. In some rows, the bounds on
/// the sum of the other weights cannot decide.
#[test]
fn rows_as_models_make_them_match_the_reference() {
    let mut rng = StdRng::seed_from_u64(303);
    let mut scratch = Scratch::default();
    let levels = levels();
    for (vocab, max) in [(9000, 20.0), (33_000, 18.0), (49_152, 22.5), (49_152, 26.0), (128_256, 19.5)] {
        let mut values = model_row_with_maximum(max, vocab, &mut rng);
        for special in [0.0, f32::NEG_INFINITY, f32::NAN, f32::INFINITY] {
            values[vocab / 3] = special;
            for dtype in DTYPES {
                let row = Row::new(&values, dtype);
                for temperature in [0.1, 0.7, 1.0, 1.5] {
                    let p = [0.5, 0.9, 0.95, 0.99, 0.999, 1.0][rng.random_range(0..6)];
                    let min_p = [0.0, 0.0, 1e-6, 0.05][rng.random_range(0..4)];
                    let parameters = Parameters { k: 0, p, min_p, temperature, stable: rng.random() };
                    let level = [levels[rng.random_range(0..levels.len())]];
                    let what = format!("model row, maximum {max}, with {special}");
                    check(&row, parameters, &level, 1, &mut scratch, &mut rng, &what);
                }
            }
        }
    }
}

/// Rows without top-k in which few logits of the first part have a weight above 0. For such a row, one pass scans the
/// row and collects the logits that may have a weight. The rows differ in the number of these logits in the other
/// parts, and in the place of the maximum.
#[test]
fn rows_with_few_weights_at_the_start_match_the_reference() {
    /// The pass divides the row into chunks of this number of logits.
    const CHUNK: usize = 8192;
    let mut rng = StdRng::seed_from_u64(306);
    let mut scratch = Scratch::default();
    for vocab in [8192, 8193, 17_000, 2 * CHUNK + 128, 40_003] {
        let body: Vec<f32> = (0..vocab).map(|_| rng.random_range(-50.0..10.0_f32)).collect();
        let with_ends = |i: usize, first: usize, value: f32, end: f32| match i {
            _ if i == first => value,
            _ if i + 10 == vocab => end,
            _ if i.is_multiple_of(10) => -1.0 - (i % 7) as f32,
            _ => -1000.0,
        };
        let at_border = |i: usize| [0, 1, CHUNK - 1].contains(&(i % CHUNK)) || i == vocab - 1;
        let rows: [(&str, Vec<f32>); 8] = [
            ("many", body.clone()),
            // Most blocks of the later chunks have no weight above 0.
            ("at borders", (0..vocab).map(|i| if at_border(i) || i < 1000 { 9.0 } else { -40.0 }).collect()),
            ("late maximum", (0..vocab).map(|i| if i == vocab - 2 { 25.0 } else { body[i] }).collect()),
            ("dense end", (0..vocab).map(|i| if i < CHUNK { body[i] } else { 10.0 }).collect()),
            ("rising", (0..vocab).map(|i| body[i] + (i / CHUNK) as f32 * 12.0).collect()),
            // A zero and a subnormal are equal after cleaning. So the greedy token is the first of them.
            ("zero and subnormal", (0..vocab).map(|i| with_ends(i, 10, 0.0, 1e-40)).collect()),
            ("subnormal and zero", (0..vocab).map(|i| with_ends(i, vocab / 2, -1e-40, 0.0)).collect()),
            ("first maximum", (0..vocab).map(|i| if i == 0 { 12.0 } else { body[i].min(9.0) }).collect()),
        ];
        for (name, values) in rows {
            for special in [None, Some(f32::NEG_INFINITY), Some(f32::NAN), Some(f32::INFINITY)] {
                let mut values = values.clone();
                if let Some(special) = special {
                    values[vocab - 5] = special;
                }
                let dtype = DTYPES[rng.random_range(0..3)];
                let row = Row::new(&values, dtype);
                for p in [0.5, 0.95, 0.99, 0.999_99, 1.0] {
                    let min_p = if rng.random_ratio(1, 4) { 1e-3 } else { 0.0 };
                    let temperature = [0.7, 1.0][rng.random_range(0..2)];
                    let parameters = Parameters { k: 0, p, min_p, temperature, stable: true };
                    for parts in [1, 2] {
                        check(&row, parameters, &levels(), parts, &mut scratch, &mut rng, name);
                    }
                }
            }
        }
    }
}

/// In these rows, p is the share of some largest entries, rounded to f32, or one of the two adjacent floats. Bounds on
/// the total cannot decide these rows.
#[test]
fn peaked_rows_at_the_edge_of_top_p_match_the_reference() {
    let mut rng = StdRng::seed_from_u64(304);
    let mut scratch = Scratch::default();
    let vocab = 40_000;
    let row = Row::new(&model_row_with_maximum(20.0, vocab, &mut rng), Dtype::F32);
    let options = CallOptions::default();
    let mut arrays = Arrays::new(Dtype::F32, vocab, 1);
    let params = RowParams::new(0, 1.0, 0.0, 1.0, [1; 4], vocab);
    let mut reference_scratch = reference::Scratch::new(vocab).unwrap();
    reference::sample_row(row.logits(), &params, options, &mut arrays.borrow(), &mut reference_scratch);
    let mut weights: Vec<f64> = arrays.weights.iter().map(|&weight| f64::from(weight)).collect();
    weights.sort_by(|a, b| b.total_cmp(a));
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    for &weight in &weights[..40] {
        sum += weight;
        let p = (sum / total) as f32;
        for p in [p.next_down(), p, p.next_up()] {
            let parameters = Parameters { k: 0, p, min_p: 0.0, temperature: 1.0, stable: true };
            check(&row, parameters, &[Level::new()], 1, &mut scratch, &mut rng, "edge");
        }
    }
}

/// Top-k collects only some of the ties at its bound.
#[test]
fn ties_at_the_bound_of_top_k_match_the_reference() {
    let mut rng = StdRng::seed_from_u64(305);
    let mut scratch = Scratch::default();
    let vocab = 40_000;
    let fills: [fn(usize) -> f32; 5] = [
        |_| -2.5,
        |i| if i % 1000 == 999 { 1.0 } else { 0.0 },
        |i| (i % 3) as f32,
        |i| [0.0, -0.0, 1e-40, -1e-40, -1.0][i % 5],
        |i| if i % 7 == 0 { f32::MAX } else { f32::NEG_INFINITY },
    ];
    for fill in fills {
        let values: Vec<f32> = (0..vocab).map(fill).collect();
        for dtype in DTYPES {
            let row = Row::new(&values, dtype);
            for k in [1, 40, 41, 64, 385, 5000, 13_333, 39_999] {
                let (p, stable) = ([0.5, 1.0][rng.random_range(0..2)], rng.random());
                let parameters = Parameters { k, p, min_p: 0.0, temperature: 1.0, stable };
                check(&row, parameters, &levels(), 1, &mut scratch, &mut rng, "ties");
            }
        }
    }
}

#[test]
fn splitting_a_row_changes_nothing() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    pool.install(|| {
        let mut rng = StdRng::seed_from_u64(400);
        let mut scratch = Scratch::default();
        for vocab in [130, 40_000] {
            for kind in KINDS {
                let row = Row::new(&values(kind, vocab, &mut rng), Dtype::F32);
                for parts in [2, 3, 7] {
                    let parameters = random_parameters(vocab, &mut rng);
                    check(
                        &row,
                        parameters,
                        &[Level::new()],
                        parts,
                        &mut scratch,
                        &mut rng,
                        &format!("{kind:?}, {parts} parts"),
                    );
                }
            }
        }
    });
}

/// Every output of a batch.
#[derive(Debug, Default, PartialEq)]
struct Answers {
    tokens: Vec<i32>,
    status: Vec<u32>,
    greedy: Vec<i32>,
    high: Vec<u32>,
    low: Vec<u32>,
    next: Vec<i32>,
    weights: Vec<i32>,
    indices_k: Vec<i32>,
    topk_logits_k: Vec<u32>,
}

fn answers(batch: &Batch<'_>, slots: usize, sample: impl FnOnce(&Batch<'_>, &mut Outputs<'_>)) -> Answers {
    let rows = batch.len();
    let mut answers = Answers {
        tokens: vec![7; rows],
        status: vec![7; rows],
        greedy: vec![7; rows],
        high: vec![7; rows],
        low: vec![7; rows],
        next: vec![7; rows],
        weights: vec![7; rows * batch.vocab()],
        indices_k: vec![7; rows * slots],
        topk_logits_k: vec![],
    };
    let mut topk_logits_k = vec![7.0_f32; rows * slots];
    let mut outputs = Outputs {
        tokens: Some(&mut answers.tokens),
        row_status: Some(&mut answers.status),
        greedy_sampled: Some(&mut answers.greedy),
        random_high: Some(&mut answers.high),
        random_low: Some(&mut answers.low),
        next_tokens: Some(&mut answers.next),
        wide: RowArrays {
            weights: Some(&mut answers.weights),
            indices_k: Some(&mut answers.indices_k),
            topk_logits_k: Some(LogitsMut::F32(&mut topk_logits_k)),
            ..RowArrays::default()
        },
    };
    sample(batch, &mut outputs);
    answers.topk_logits_k = topk_logits_k.into_iter().map(f32::to_bits).collect();
    answers
}

#[test]
fn a_batch_is_the_same_on_any_number_of_threads() {
    let mut rng = StdRng::seed_from_u64(500);
    for (rows, vocab) in [(0, 10), (1, 5), (7, 300), (5, 40_000), (1, 200_000), (40, 3000)] {
        let row_stride = vocab + 3;
        let mut logits = vec![f32::NAN; rows * row_stride];
        for row in logits.chunks_mut(row_stride) {
            let kind = KINDS[rng.random_range(0..KINDS.len())];
            row[..vocab].copy_from_slice(&values(kind, vocab, &mut rng));
        }
        let params = (0..rows).map(|_| {
            let parameters = random_parameters(vocab, &mut rng);
            RowParams::new(
                parameters.k,
                parameters.p,
                parameters.min_p,
                parameters.temperature,
                rng.random(),
                vocab,
            )
        });
        let elements = if rows == 0 { 0 } else { (rows - 1) * row_stride + vocab };
        let batch = Batch::from_params(
            Logits::F32(&logits[..elements]),
            vocab,
            row_stride,
            params.collect(),
            CallOptions::default(),
        )
        .unwrap();
        let expected = answers(&batch, 4, |batch, outputs| reference::sample_batch(batch, outputs).unwrap());
        for threads in [1, 2, 5] {
            let backend = BuiltinBackend::new(threads);
            for _ in 0..2 {
                let got = answers(&batch, 4, |batch, outputs| backend.sample(batch, outputs).unwrap());
                assert!(got == expected, "{rows} rows of {vocab} on {threads} threads");
            }
        }
    }
}

#[test]
fn a_call_may_want_no_output() {
    let logits = [1.0, 2.0, 3.0];
    let batch = Batch::from_params(
        Logits::F32(&logits),
        3,
        3,
        vec![RowParams::new(0, 1.0, 0.0, 1.0, [0; 4], 3)],
        CallOptions::default(),
    )
    .unwrap();
    BuiltinBackend::new(1).sample(&batch, &mut Outputs::default()).unwrap();
    let outcome: RowOutcome = sample_row(
        Level::new(),
        1,
        batch.row(0),
        &batch.rows()[0],
        batch.options(),
        &mut RowArrays::default(),
        &mut Scratch::default(),
    )
    .unwrap();
    assert_eq!(outcome.greedy_sampled, 2);
}

const LARGEST_VOCAB: usize = 1 << 24;

/// 128 rows of 2^24 elements with gaps between them. Element offsets exceed 2^32, and the total weight of a row is
/// 2^52, the largest possible total.
#[test]
fn the_largest_batch_does_not_overflow() {
    let (rows, row_stride) = (128, 2 * LARGEST_VOCAB + (1 << 20));
    let elements = (rows - 1) * row_stride + LARGEST_VOCAB;
    assert!(elements > u32::MAX as usize);
    // Zeroed pages that are only read use no physical memory.
    let Ok(mut logits) = bytemuck::allocation::try_zeroed_slice_box::<u16>(elements) else {
        println!("skipped: this machine does not allocate {} MB of zeroed pages", elements >> 19);
        return;
    };
    let last = |row: usize| row * row_stride + LARGEST_VOCAB - 1;
    for row in [0, 126, 127] {
        logits[last(row)] = bf16::from_f32(20.0).to_bits();
    }
    // The largest remainder of a row of equal weights. It selects the last element.
    let total = 1_u64 << TOTAL_BITS;
    let words = [0, 0, ((total - 1) >> 32) as u32, (total - 1) as u32];
    let params = |row| match row {
        124 => RowParams::new(0, 1.0, 0.0, 1.0, words, LARGEST_VOCAB),
        125 => RowParams::new(0, 1.0 - 1.0 / 16_777_216.0, 0.0, 1.0, words, LARGEST_VOCAB),
        126 => RowParams::new(0, 0.5, 0.0, 1.0, [1; 4], LARGEST_VOCAB),
        127 => RowParams::new(3, 0.5, 0.0, 1.0, [1; 4], LARGEST_VOCAB),
        _ => RowParams::new(0, 1.0, 0.0, 0.0, [1; 4], LARGEST_VOCAB),
    };
    let params = (0..rows).map(params).collect();
    let logits = Logits::Bf16(&logits);
    let batch =
        Batch::from_params(logits, LARGEST_VOCAB, row_stride, params, CallOptions::default()).unwrap();
    for threads in [1, 3] {
        let mut tokens = vec![7; rows];
        let mut outputs = Outputs { tokens: Some(&mut tokens), ..Outputs::default() };
        BuiltinBackend::new(threads).sample(&batch, &mut outputs).unwrap();
        let last = LARGEST_VOCAB as i32 - 1;
        assert_eq!((tokens[0], tokens[124], tokens[125]), (last, last, last), "{threads} threads");
        assert_eq!((tokens[126], tokens[127]), (last, last), "{threads} threads");
        assert!(tokens[1..124].iter().all(|&token| token == 0), "{threads} threads");
    }
}

/// This environment variable is set in the child process, which runs out of memory.
const CHILD: &str = "NUCLEUS_TEST_OUT_OF_MEMORY";

#[test]
fn running_out_of_memory_is_an_error_that_writes_nothing() {
    if std::env::var_os(CHILD).is_none() {
        let name = "builtin_backend::running_out_of_memory_is_an_error_that_writes_nothing";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            // glibc maps 128 MiB for the heap of a new thread and unmaps the unused part at once. If
            // `with_address_space` measured the process in between, its limit would be too high.
            .env("MALLOC_ARENA_MAX", "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        return;
    }
    let mut logits = vec![0.0_f32; 2 * LARGEST_VOCAB];
    let plain = (|| RowParams::new(0, 0.9, 0.0, 1.0, [1; 4], LARGEST_VOCAB), "top-p alone");
    let top_k = (|| RowParams::new(9, 0.9, 0.0, 1.0, [1; 4], LARGEST_VOCAB), "top-k");
    let cases: [(&dyn Fn() -> RowParams, &str); 2] = [(&plain.0, plain.1), (&top_k.0, top_k.1)];
    for threads in [1, 2] {
        for (params, what) in cases {
            // The first limit is too low for the scratch. The second one is too low only for the cleaned copy of the
            // second row.
            let scratch_mb = if what == "top-k" { 202 } else { 138 };
            for (limit_mb, nan) in [(100, false), (scratch_mb + 30, true)] {
                logits[LARGEST_VOCAB + 5] = if nan { f32::NAN } else { 0.0 };
                let rows = vec![params(), params()];
                let options = CallOptions::default();
                let batch =
                    Batch::from_params(Logits::F32(&logits), LARGEST_VOCAB, 0, rows, options).unwrap();
                let backend = BuiltinBackend::new(threads);
                let mut tokens = [7; 2];
                let limited = with_address_space(limit_mb << 20, || {
                    let mut outputs = Outputs { tokens: Some(&mut tokens), ..Outputs::default() };
                    backend.sample(&batch, &mut outputs)
                });
                let case = format!("{what}, {threads} threads, {limit_mb} MB");
                assert!(matches!(limited, Err(Error::OutOfMemory(_))), "{case}: {limited:?}");
                assert_eq!(tokens, [7; 2], "{case}");
                // The backend works again when enough memory is available.
                let mut outputs = Outputs { tokens: Some(&mut tokens), ..Outputs::default() };
                backend.sample(&batch, &mut outputs).unwrap();
                assert!(tokens.iter().all(|&token| token != 7), "{case}");
            }
        }
    }
}

/// Runs `work` while the process can map only `bytes` more bytes of memory.
fn with_address_space<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').next().unwrap().parse().unwrap();
    let limit = |bytes: u64| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the structure is valid for the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    };
    limit((pages * 4096 + bytes) as u64);
    let result = work();
    limit(libc::RLIM_INFINITY);
    result
}
