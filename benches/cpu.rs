//! Measures the speed of the built-in backend. Prints one JSON object per line to standard output.
//!
//! `ratio` is the time of a call divided by the time of a plain maximum of the same rows. Both measurements alternate,
//! so that a slow or busy machine changes the ratio little. Arguments that are not flags select cases by name.

use std::hint::black_box;
use std::time::{Duration, Instant};

use fearless_simd::Level;
use half::{bf16, f16};
use nucleus::backend::builtin::{max_scan, BuiltinBackend};
use nucleus::batch::{Batch, CallOptions};
use nucleus::dtype::{Dtype, Logits};
use nucleus::outputs::Outputs;
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use rand::rngs::StdRng;
use rand::SeedableRng;
use rand_distr::{Distribution, Normal};

/// The name and the parameters of each case: k, p, temperature.
const CASES: [(&str, i32, f32, f32); 6] = [
    ("greedy", 0, 1.0, 0.0),
    ("k64", 64, 0.95, 1.0),
    ("k5000", 5000, 0.95, 1.0),
    ("top_p_alone", 0, 0.95, 1.0),
    ("min_p_alone", 0, 1.0, 1.0),
    ("plain", 0, 1.0, 1.0),
];

enum Array {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    F16(Vec<u16>),
}

impl Array {
    fn new(values: &[f32], dtype: Dtype) -> Array {
        match dtype {
            Dtype::F32 => Array::F32(values.to_vec()),
            Dtype::Bf16 => Array::Bf16(values.iter().map(|&x| bf16::from_f32(x).to_bits()).collect()),
            Dtype::F16 => Array::F16(values.iter().map(|&x| f16::from_f32(x).to_bits()).collect()),
        }
    }

    fn logits(&self) -> Logits<'_> {
        match self {
            Array::F32(x) => Logits::F32(x),
            Array::Bf16(x) => Logits::Bf16(x),
            Array::F16(x) => Logits::F16(x),
        }
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn time(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// The median times of `baseline` and `subject`, which run alternately.
fn compare(mut baseline: impl FnMut(), mut subject: impl FnMut()) -> (f64, f64) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while before.len() < 51 || (start.elapsed() < Duration::from_millis(250) && before.len() < 5001) {
        // Each runs twice, and only the second run is timed. The first run fills the caches.
        baseline();
        before.push(time(&mut baseline));
        subject();
        after.push(time(&mut subject));
    }
    (median(before), median(after))
}

/// f32 rows in which the passes can skip only few elements, on one thread.
fn worst_cases(vocab: usize, single: &BuiltinBackend, wanted: impl Fn(&str) -> bool) {
    type Fill = fn(usize) -> f32;
    let fills: [(&str, Fill); 3] =
        [("constant", |_| 1.0), ("ascending", |i| i as f32 * 1e-4), ("two_values", |i| (i % 2) as f32)];
    for (fill, value) in fills {
        let logits: Vec<f32> = (0..vocab).map(value).collect();
        for (case, k, p, temperature) in CASES {
            let case = format!("{case}_{fill}");
            if !wanted(&case) {
                continue;
            }
            let batch = Batch::from_params(
                Logits::F32(&logits),
                vocab,
                vocab,
                vec![RowParams::new(k, p, 0.0, temperature, random_words(1, 2), vocab)],
                CallOptions::default(),
            )
            .unwrap();
            let mut tokens = [0];
            let scan = || {
                black_box(max_scan(Level::new(), black_box(batch.logits())));
            };
            let (baseline, subject) = compare(scan, || {
                let mut outputs = Outputs { tokens: Some(&mut tokens), ..Outputs::default() };
                single.sample(black_box(&batch), &mut outputs);
            });
            report("cpu-1", Dtype::F32, 1, vocab, &case, (baseline, subject));
        }
    }
}

fn report(
    backend: &str,
    dtype: Dtype,
    rows: usize,
    vocab: usize,
    case: &str,
    (baseline, subject): (f64, f64),
) {
    let dtype = format!("{dtype:?}").to_lowercase();
    let line = serde_json::json!({
        "name": format!("sampling/{case}/{dtype}/{rows}x{vocab}"),
        "backend": backend,
        "batch": rows,
        "vocab": vocab,
        "dtype": dtype,
        "case": case,
        "median_us": (subject * 100.0).round() / 100.0,
        "ratio": (subject / baseline * 100.0).round() / 100.0,
        "baseline": "max scan on one thread",
    });
    println!("{line}");
}

fn main() {
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |case: &str| chosen.is_empty() || chosen.iter().any(|name| case.contains(name.as_str()));
    let level = Level::new();
    let single = BuiltinBackend::new(1).expect("no threads to start");
    let all = BuiltinBackend::new(0).expect("threads start");
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let normal = Normal::new(0.0_f32, 3.0).expect("a valid deviation");
    let mut rng = StdRng::seed_from_u64(1);

    for (backend, rows, name) in [(&single, 1, "cpu-1".to_owned()), (&all, 16, format!("cpu-{cores}"))] {
        for vocab in [32_768, 128_256, 262_144] {
            let values: Vec<f32> = (0..rows * vocab).map(|_| normal.sample(&mut rng)).collect();
            for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
                let array = Array::new(&values, dtype);
                let report = |case: &str, figures| report(&name, dtype, rows, vocab, case, figures);
                let scan = || {
                    for row in 0..rows {
                        black_box(max_scan(level, black_box(array.logits().slice(row * vocab, vocab))));
                    }
                };
                let wanted =
                    |case: &str| chosen.is_empty() || chosen.iter().any(|name| case.contains(name.as_str()));
                if wanted("scan") {
                    report("scan", compare(scan, scan));
                }
                for (case, k, p, temperature) in CASES.into_iter().filter(|case| wanted(case.0)) {
                    let min_p = if case == "min_p_alone" { 0.05 } else { 0.0 };
                    let params = |row| {
                        let words = random_words(1, row as u64);
                        RowParams::new(k, p, min_p, temperature, words, vocab)
                    };
                    let mut batch = Batch::from_params(
                        array.logits(),
                        vocab,
                        vocab,
                        (0..rows).map(params).collect(),
                        CallOptions::default(),
                    )
                    .unwrap();
                    let mut tokens = vec![0; rows];
                    let mut turn = 0;
                    let sample = || {
                        // New random numbers in each call, as in practice, so that the draw ends at different indices.
                        turn += 1;
                        for (row, params) in batch.rows_mut().iter_mut().enumerate() {
                            params.words = random_words(turn, row as u64);
                        }
                        let mut outputs = Outputs { tokens: Some(&mut tokens), ..Outputs::default() };
                        backend.sample(black_box(&batch), &mut outputs);
                        black_box(&tokens);
                    };
                    report(case, compare(scan, sample));
                }
            }
        }
    }
    worst_cases(128_256, &single, wanted);
}
