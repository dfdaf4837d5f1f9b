//! Speed of the built-in backend: one JSON object per line on standard output.
//!
//! A figure contains the median time of a call in microseconds, and the ratio of this time to the median time of a
//! baseline. The benchmark measures the call and the baseline alternately, so that the load and the speed of the
//! machine have little effect on the ratio.
//!
//! The baseline of figures named `sampling/…` computes only the maximum of the same rows on one thread. Figures named
//! `threads/…` compare the default number of threads with one thread. Figures named `threads_after_pause/…` do the same
//! with a pause before each call. The threads go to sleep during the pause.
//!
//! Arguments that are not flags select figures. A figure is measured if its name contains one of the arguments.

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

/// The parameters of every row of a call.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    k: i32,
    p: f32,
    min_p: f32,
    temperature: f32,
}

const fn case(name: &'static str, k: i32, p: f32, min_p: f32, temperature: f32) -> Case {
    Case { name, k, p, min_p, temperature }
}

const CASES: [Case; 6] = [
    case("greedy", 0, 1.0, 0.0, 0.0),
    case("k64", 64, 0.95, 0.0, 1.0),
    case("k5000", 5000, 0.95, 0.0, 1.0),
    case("top_p_alone", 0, 0.95, 0.0, 1.0),
    case("min_p_alone", 0, 1.0, 0.05, 1.0),
    case("plain", 0, 1.0, 0.0, 1.0),
];
/// The cases that compare numbers of threads.
const THREAD_CASES: [Case; 3] = [CASES[0], CASES[1], CASES[3]];
const THREAD_VOCAB: usize = 128_256;
const PAUSE: Duration = Duration::from_millis(1);

const MAX_SCAN: &str = "max scan on one thread";
const ONE_THREAD: &str = "one thread";

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

/// A batch that is sampled repeatedly. Each call uses different random numbers, as real calls do.
struct Subject<'a> {
    batch: Batch<'a>,
    tokens: Vec<i32>,
    turn: u64,
}

impl<'a> Subject<'a> {
    fn new(logits: Logits<'a>, rows: usize, case: Case) -> Subject<'a> {
        let vocab = logits.len() / rows;
        let words = random_words(1, 2);
        let params = RowParams::new(case.k, case.p, case.min_p, case.temperature, words, vocab);
        let batch =
            Batch::from_params(logits, vocab, vocab, vec![params; rows], CallOptions::default()).unwrap();
        Subject { batch, tokens: vec![0; rows], turn: 0 }
    }

    fn sample(&mut self, backend: &BuiltinBackend) {
        self.turn += 1;
        for (row, params) in self.batch.rows_mut().iter_mut().enumerate() {
            params.words = random_words(self.turn, row as u64);
        }
        let mut outputs = Outputs { tokens: Some(&mut self.tokens), ..Outputs::default() };
        backend.sample(black_box(&self.batch), &mut outputs).expect("there is enough memory");
        black_box(&self.tokens);
    }
}

/// Computes the maximum of each row.
fn scan_rows(array: &Array, rows: usize) {
    let vocab = array.logits().len() / rows;
    for row in 0..rows {
        let row = array.logits().slice(row * vocab, vocab);
        black_box(max_scan(Level::new(), black_box(row)));
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

/// Measures a baseline and a subject alternately and returns their medians. Calls `prepare` before each timed run.
fn compare(mut prepare: impl FnMut(), mut baseline: impl FnMut(), mut subject: impl FnMut()) -> (f64, f64) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while before.len() < 51 || (start.elapsed() < Duration::from_millis(250) && before.len() < 5001) {
        // Each function runs twice, and only the second run is timed. So its data is in the caches as its own first run
        // left it.
        baseline();
        prepare();
        before.push(time(&mut baseline));
        subject();
        prepare();
        after.push(time(&mut subject));
    }
    (median(before), median(after))
}

/// The backends to measure, and the names of the selected figures.
struct Bench {
    one: BuiltinBackend,
    all: BuiltinBackend,
    chosen: Vec<String>,
}

/// The properties that identify a figure.
struct Figure<'a> {
    family: &'a str,
    case: &'a str,
    dtype: Dtype,
    rows: usize,
    vocab: usize,
}

impl Bench {
    fn wants(&self, figure: &Figure<'_>) -> bool {
        let name = figure.name();
        self.chosen.is_empty() || self.chosen.iter().any(|chosen| name.contains(chosen.as_str()))
    }

    /// Prints a figure.
    fn report(
        &self,
        figure: &Figure<'_>,
        backend: &BuiltinBackend,
        baseline: &str,
        (before, after): (f64, f64),
    ) {
        let line = serde_json::json!({
            "name": figure.name(),
            "backend": "builtin",
            "instruction_set": backend.instruction_set(),
            "threads": backend.threads(),
            "batch": figure.rows,
            "vocab": figure.vocab,
            "dtype": dtype_name(figure.dtype),
            "case": figure.case,
            "median_us": (after * 100.0).round() / 100.0,
            "ratio": (after / before * 100.0).round() / 100.0,
            "baseline": baseline,
        });
        println!("{line}");
    }

    /// Compares every case with the computation of the maximum of the same rows.
    fn sampling(&self, backend: &BuiltinBackend, values: &[f32], dtype: Dtype, rows: usize, cases: &[Case]) {
        let (array, vocab) = (Array::new(values, dtype), values.len() / rows);
        let figure = Figure { family: "sampling", case: "scan", dtype, rows, vocab };
        if self.wants(&figure) {
            let scan = || scan_rows(&array, rows);
            self.report(&figure, &self.one, MAX_SCAN, compare(|| (), scan, scan));
        }
        for &case in cases {
            self.one_case(backend, &array, rows, case, case.name);
        }
    }

    fn one_case(&self, backend: &BuiltinBackend, array: &Array, rows: usize, case: Case, name: &str) {
        let (dtype, vocab) = (array.logits().dtype(), array.logits().len() / rows);
        let figure = Figure { family: "sampling", case: name, dtype, rows, vocab };
        if !self.wants(&figure) {
            return;
        }
        let mut subject = Subject::new(array.logits(), rows, case);
        let medians = compare(|| (), || scan_rows(array, rows), || subject.sample(backend));
        self.report(&figure, backend, MAX_SCAN, medians);
    }

    /// Measures f32 rows in which the passes can skip few blocks, on one thread.
    fn worst_cases(&self, vocab: usize) {
        type Fill = fn(usize) -> f32;
        let fills: [(&str, Fill); 3] =
            [("constant", |_| 1.0), ("ascending", |i| i as f32 * 1e-4), ("two_values", |i| (i % 2) as f32)];
        for (fill, value) in fills {
            let array = Array::F32((0..vocab).map(value).collect());
            for case in CASES {
                self.one_case(&self.one, &array, 1, case, &format!("{}_{fill}", case.name));
            }
        }
    }

    /// Compares the default number of threads with one thread. No call should be slower with the default number.
    fn threads(&self, values: &[f32]) {
        let mut worst: Option<(f64, String)> = None;
        for (family, pause) in [("threads", None), ("threads_after_pause", Some(PAUSE))] {
            for case in THREAD_CASES {
                for rows in [1, 2, 16, 32] {
                    let (dtype, vocab) = (Dtype::F32, THREAD_VOCAB);
                    let figure = Figure { family, case: case.name, dtype, rows, vocab };
                    if !self.wants(&figure) {
                        continue;
                    }
                    let logits = Logits::F32(&values[..rows * vocab]);
                    let mut subjects = [(); 2].map(|()| Subject::new(logits, rows, case));
                    let [baseline, subject] = &mut subjects;
                    let medians = compare(
                        || pause.into_iter().for_each(std::thread::sleep),
                        || baseline.sample(&self.one),
                        || subject.sample(&self.all),
                    );
                    self.report(&figure, &self.all, ONE_THREAD, medians);
                    let ratio = medians.1 / medians.0;
                    if worst.as_ref().is_none_or(|(worst, _)| ratio > *worst) {
                        worst = Some((ratio, figure.name()));
                    }
                }
            }
        }
        if let Some((ratio, name)) = worst {
            eprintln!("threads: the largest ratio to one thread is {ratio:.2}, of {name}; the limit is 1.1");
        }
    }
}

impl Figure<'_> {
    fn name(&self) -> String {
        let Figure { family, case, dtype, rows, vocab } = self;
        format!("{family}/{case}/{}/{rows}x{vocab}", dtype_name(*dtype))
    }
}

fn dtype_name(dtype: Dtype) -> String {
    format!("{dtype:?}").to_lowercase()
}

fn main() {
    let chosen = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let bench = Bench { one: BuiltinBackend::new(1), all: BuiltinBackend::new(0), chosen };
    let normal = Normal::new(0.0_f32, 3.0).expect("a valid deviation");
    let mut rng = StdRng::seed_from_u64(1);
    let mut random = |len: usize| -> Vec<f32> { (0..len).map(|_| normal.sample(&mut rng)).collect() };

    for (backend, rows) in [(&bench.one, 1), (&bench.all, 16)] {
        for vocab in [32_768, 128_256, 262_144] {
            let values = random(rows * vocab);
            for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
                bench.sampling(backend, &values, dtype, rows, &CASES);
            }
        }
    }
    bench.worst_cases(128_256);
    bench.threads(&random(32 * THREAD_VOCAB));
}
