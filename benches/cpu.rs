//! Speed of the built-in backend: one JSON object per line on standard output.
//!
//! Each line is a figure. It contains the median time of a call in microseconds, and the ratio of this time to the
//! median time of a baseline. The benchmark measures the call and the baseline in turn. So the load and the speed of
//! the machine have little effect on the ratio.
//!
//! The first part of a name says what is measured:
//!
//! - `sampling`: the same call repeatedly, so its rows are in the caches. The baseline computes only the maximum of the
//!   same rows, on one thread and with the same instruction set.
//! - `cold`: 64 rows in turn, one row per call. The rows of float32 logits occupy 32 MB, so each row has left the
//!   caches of the core before its next turn. The baseline computes the maximum of the same rows in turn.
//! - `threads`: the default number of threads against one thread.
//! - `threads_after_pause`: the same with a pause before each call. The threads go to sleep during the pause.
//!
//! The last part of a name is the instruction set, unless it is the best one of this machine.
//!
//! Arguments that do not start with `-` select figures by name. A figure is measured if its name contains one of these
//! arguments. Without these arguments, all figures are measured.

#[path = "../tests/common/model_rows.rs"]
mod model_rows;

use std::hint::black_box;
use std::time::{Duration, Instant};

use fearless_simd::{Level, Simd};
use half::{bf16, f16};
use model_rows::model_row;
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

const GREEDY: Case = case("greedy", 0, 1.0, 0.0, 0.0);
const K64: Case = case("k64", 64, 0.95, 0.0, 1.0);
const TOP_P: Case = case("top_p_alone", 0, 0.95, 0.0, 1.0);
const PLAIN: Case = case("plain", 0, 1.0, 0.0, 1.0);
/// The cases of normal rows.
const CASES: [Case; 7] = [
    GREEDY,
    K64,
    case("k5000", 5000, 0.95, 0.0, 1.0),
    TOP_P,
    case("top_p_t2", 0, 0.95, 0.0, 2.0),
    case("min_p_alone", 0, 1.0, 0.05, 1.0),
    PLAIN,
];
/// The cases of rows like those of language models.
const MODEL_CASES: [Case; 8] = [
    K64,
    TOP_P,
    case("top_p_99", 0, 0.99, 0.0, 1.0),
    PLAIN,
    case("k64_t07", 64, 0.95, 0.0, 0.7),
    case("top_p_alone_t07", 0, 0.95, 0.0, 0.7),
    case("top_p_99_t07", 0, 0.99, 0.0, 0.7),
    case("plain_t07", 0, 1.0, 0.0, 0.7),
];
/// The cases of crafted rows: the cases of normal rows, and one with a low temperature.
const SHARP: Case = case("top_p_t01", 0, 0.5, 0.0, 0.1);
/// The cases that compare numbers of threads.
const THREAD_CASES: [Case; 3] = [GREEDY, K64, TOP_P];
const VOCABS: [usize; 3] = [32_768, 128_256, 262_144];
const MODEL_VOCABS: [usize; 3] = [49_152, 128_256, 262_144];
/// The vocabulary of figures that have only one vocabulary.
const VOCAB: usize = 128_256;
const COLD_ROWS: usize = 64;
const PAUSE: Duration = Duration::from_millis(1);

const MAX_SCAN: &str = "max scan on one thread";
const ONE_THREAD: &str = "one thread";

/// The contents of a row.
#[derive(Clone, Copy)]
enum Fill {
    /// Normal logits with standard deviation 3.
    Normal,
    /// Logits like those of language models: see [`model_rows`].
    Model,
    /// Slow rows: the passes can skip only few blocks, or many entries are equal or nearly equal.
    Crafted(Value),
}

/// The value of an entry, given its index.
type Value = fn(usize) -> f32;

const CRAFTED: [(&str, Value); 5] = [
    ("constant", |_| 1.0),
    ("ascending", |i| i as f32 * 1e-4),
    ("two_values", |i| (i % 2) as f32),
    ("near_zero", |i| {
        [0.0, -0.0, 1e-40, f32::MIN_POSITIVE, 1e-7, -6e-8][i * 2_654_435_761 % 4_294_967_296 % 6]
    }),
    ("one_maximum", |i| if i == 77_777 { 1.0 } else { 0.0 }),
];

impl Fill {
    fn row(self, vocab: usize, rng: &mut StdRng) -> Vec<f32> {
        match self {
            Fill::Normal => {
                let normal = Normal::new(0.0_f32, 3.0).expect("a valid deviation");
                (0..vocab).map(|_| normal.sample(rng)).collect()
            }
            Fill::Model => model_row(vocab, rng),
            Fill::Crafted(value) => (0..vocab).map(value).collect(),
        }
    }

    fn rows(self, rows: usize, vocab: usize, rng: &mut StdRng) -> Vec<f32> {
        (0..rows).flat_map(|_| self.row(vocab, rng)).collect()
    }
}

/// Logits whose first element is at a fixed offset from the start of a cache line. With narrow registers, the time of
/// the baseline depends on this offset.
enum Array {
    F32(Placed<f32>),
    Bf16(Placed<u16>),
    F16(Placed<u16>),
}

/// The offset at which the C library's `malloc` places large arrays: 16 bytes after the start of a cache line.
const AS_ALLOCATED: usize = 16;
/// The offset of an array at the start of a cache line.
const ALIGNED: usize = 0;

struct Placed<T> {
    memory: Vec<T>,
    start: usize,
}

impl<T: Copy + Default> Placed<T> {
    fn new(values: impl ExactSizeIterator<Item = T>, offset: usize) -> Placed<T> {
        let line = 64 / size_of::<T>();
        let mut memory: Vec<T> = Vec::with_capacity(values.len() + 2 * line);
        let start = memory.as_ptr().align_offset(64) + offset / size_of::<T>();
        memory.resize(start, T::default());
        memory.extend(values);
        Placed { memory, start }
    }

    fn values(&self) -> &[T] {
        &self.memory[self.start..]
    }
}

impl Array {
    fn new(values: &[f32], dtype: Dtype, offset: usize) -> Array {
        let values = values.iter();
        match dtype {
            Dtype::F32 => Array::F32(Placed::new(values.copied(), offset)),
            Dtype::Bf16 => Array::Bf16(Placed::new(values.map(|&x| bf16::from_f32(x).to_bits()), offset)),
            Dtype::F16 => Array::F16(Placed::new(values.map(|&x| f16::from_f32(x).to_bits()), offset)),
        }
    }

    fn logits(&self) -> Logits<'_> {
        match self {
            Array::F32(x) => Logits::F32(x.values()),
            Array::Bf16(x) => Logits::Bf16(x.values()),
            Array::F16(x) => Logits::F16(x.values()),
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
fn scan_rows(level: Level, logits: Logits<'_>, rows: usize) {
    let vocab = logits.len() / rows;
    for row in 0..rows {
        black_box(max_scan(level, black_box(logits.slice(row * vocab, vocab))));
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

/// Whether `number` rounds since `start` are sufficient for a median.
fn is_enough(number: usize, least: usize, start: Instant) -> bool {
    number >= least && (start.elapsed() >= Duration::from_millis(250) || number > 5000)
}

/// Measures a baseline and a subject alternately and returns their medians. Calls `prepare` before each timed run.
fn compare(mut prepare: impl FnMut(), mut baseline: impl FnMut(), mut subject: impl FnMut()) -> (f64, f64) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while !is_enough(before.len(), 31, start) {
        // Each function runs twice, and only the second run is timed. The first run fills the caches.
        baseline();
        prepare();
        before.push(time(&mut baseline));
        subject();
        prepare();
        after.push(time(&mut subject));
    }
    (median(before), median(after))
}

/// Measures a baseline and a subject on each of the rows in turn, and returns their medians.
fn compare_in_turn(
    rows: usize,
    mut baseline: impl FnMut(usize),
    mut subject: impl FnMut(usize),
) -> (f64, f64) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while !is_enough(before.len(), 5 * rows, start) {
        before.extend((0..rows).map(|row| time(|| baseline(row))));
        after.extend((0..rows).map(|row| time(|| subject(row))));
    }
    (median(before), median(after))
}

/// The properties that identify a figure.
struct Figure<'a> {
    family: &'a str,
    case: &'a str,
    dtype: Dtype,
    rows: usize,
    vocab: usize,
    /// The instruction set, if it is not the best one of this machine.
    narrower: Option<String>,
}

impl Figure<'_> {
    fn name(&self) -> String {
        let Figure { family, case, dtype, rows, vocab, narrower } = self;
        let name = format!("{family}/{case}/{}/{rows}x{vocab}", dtype_name(*dtype));
        narrower.iter().fold(name, |name, set| format!("{name}/{set}"))
    }
}

fn dtype_name(dtype: Dtype) -> String {
    format!("{dtype:?}").to_lowercase()
}

/// Selects the figures to measure and prints them.
struct Report {
    chosen: Vec<String>,
}

impl Report {
    /// Measures a figure and prints it, if it is selected. Returns the measured times.
    fn figure(
        &self,
        figure: &Figure<'_>,
        backend: &BuiltinBackend,
        baseline: &str,
        measure: impl FnOnce() -> (f64, f64),
    ) -> Option<(f64, f64)> {
        let name = figure.name();
        if !self.chosen.is_empty() && !self.chosen.iter().any(|chosen| name.contains(chosen.as_str())) {
            return None;
        }
        let (before, after) = measure();
        let line = serde_json::json!({
            "name": name,
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
        Some((before, after))
    }
}

/// A backend to measure, and its instruction set.
struct Bench<'r> {
    report: &'r Report,
    backend: BuiltinBackend,
    level: Level,
    is_best: bool,
}

impl Bench<'_> {
    fn new(report: &Report, level: Level, threads: usize) -> Bench<'_> {
        let backend = BuiltinBackend::with_level(level, threads);
        let best = BuiltinBackend::new(1).instruction_set();
        Bench { report, is_best: backend.instruction_set() == best, backend, level }
    }

    fn name<'a>(&self, family: &'a str, case: &'a str, array: &Array, rows: usize) -> Figure<'a> {
        let (dtype, vocab) = (array.logits().dtype(), array.logits().len() / rows);
        let narrower = (!self.is_best).then(|| self.backend.instruction_set());
        Figure { family, case, dtype, rows, vocab, narrower }
    }

    /// Compares the computation of the maximum with itself.
    fn scan(&self, array: &Array, rows: usize) {
        let scan = || scan_rows(self.level, array.logits(), rows);
        let figure = self.name("sampling", "scan", array, rows);
        self.report.figure(&figure, &self.backend, MAX_SCAN, || compare(|| (), scan, scan));
    }

    /// Compares calls of `rows` rows with the computation of the maximum of the same rows.
    fn cached(&self, array: &Array, rows: usize, case: Case, suffix: &str) {
        let name = format!("{}{suffix}", case.name);
        let figure = self.name("sampling", &name, array, rows);
        self.report.figure(&figure, &self.backend, MAX_SCAN, || {
            let mut subject = Subject::new(array.logits(), rows, case);
            let baseline = || scan_rows(self.level, array.logits(), rows);
            compare(|| (), baseline, || subject.sample(&self.backend))
        });
    }

    /// Compares calls of one row with the computation of the maximum of the same row. Each call takes the next row.
    fn cold(&self, array: &Array, case: Case, suffix: &str) {
        let vocab = array.logits().len() / COLD_ROWS;
        let name = format!("{}{suffix}", case.name);
        let mut figure = self.name("cold", &name, array, COLD_ROWS);
        figure.rows = 1;
        self.report.figure(&figure, &self.backend, MAX_SCAN, || {
            let row = |row: usize| array.logits().slice(row * vocab, vocab);
            let mut subjects: Vec<_> = (0..COLD_ROWS).map(|i| Subject::new(row(i), 1, case)).collect();
            let baseline = |i| scan_rows(self.level, row(i), 1);
            compare_in_turn(COLD_ROWS, baseline, |i| subjects[i].sample(&self.backend))
        });
    }

    /// Measures crafted rows, for which the passes may take longest.
    fn crafted(&self) {
        for (name, value) in CRAFTED {
            let row = Fill::Crafted(value).row(VOCAB, &mut StdRng::seed_from_u64(3));
            let array = Array::new(&row, Dtype::F32, AS_ALLOCATED);
            for case in CASES.into_iter().chain([SHARP]) {
                self.cached(&array, 1, case, &format!("_{name}"));
            }
        }
        // The figures of crafted rows at a low temperature are compared with this one.
        let row = Fill::Normal.row(VOCAB, &mut StdRng::seed_from_u64(4));
        let array = Array::new(&row, Dtype::F32, AS_ALLOCATED);
        self.cached(&array, 1, SHARP, "");
    }

    /// Measures rows like those of language models, in the caches and in turn.
    fn model_rows(&self, vocab: usize, dtypes: &[Dtype]) {
        let values = Fill::Model.rows(COLD_ROWS, vocab, &mut StdRng::seed_from_u64(2));
        for &dtype in dtypes {
            // One call with eight rows, because rows differ in the number of tokens that top-p keeps.
            let few = Array::new(&values[..8 * vocab], dtype, AS_ALLOCATED);
            let all = Array::new(&values, dtype, AS_ALLOCATED);
            for case in MODEL_CASES {
                self.cached(&few, 8, case, "_model");
                self.cold(&all, case, "_model");
            }
        }
    }
}

/// Compares the default number of threads with one thread. No call should be slower with the default number.
fn threads(report: &Report, one: &BuiltinBackend, all: &BuiltinBackend) {
    let values = Fill::Normal.rows(32, VOCAB, &mut StdRng::seed_from_u64(5));
    let mut worst: Option<(f64, String)> = None;
    for (family, pause) in [("threads", None), ("threads_after_pause", Some(PAUSE))] {
        for case in THREAD_CASES {
            for rows in [1, 2, 16, 32] {
                let dtype = Dtype::F32;
                let figure = Figure { family, case: case.name, dtype, rows, vocab: VOCAB, narrower: None };
                let medians = report.figure(&figure, all, ONE_THREAD, || {
                    let logits = Logits::F32(&values[..rows * VOCAB]);
                    let mut subjects = [(); 2].map(|()| Subject::new(logits, rows, case));
                    let [baseline, subject] = &mut subjects;
                    compare(
                        || pause.into_iter().for_each(std::thread::sleep),
                        || baseline.sample(one),
                        || subject.sample(all),
                    )
                });
                let Some(ratio) = medians.map(|(before, after)| after / before) else { continue };
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

/// The instruction sets of this machine that have their own code, the best first.
fn levels() -> Vec<Level> {
    let best = Level::new();
    let mut levels = vec![best];
    #[cfg(target_arch = "x86_64")]
    levels.extend(
        [best.as_avx2().map(|token| token.level()), best.as_sse4_2().map(|token| token.level())]
            .into_iter()
            .flatten(),
    );
    levels.dedup_by_key(|&mut level| BuiltinBackend::with_level(level, 1).instruction_set());
    levels
}

fn main() {
    let chosen = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let report = Report { chosen };
    let mut rng = StdRng::seed_from_u64(1);
    let all = Bench::new(&report, Level::new(), 0);
    for (i, level) in levels().into_iter().enumerate() {
        let one = Bench::new(&report, level, 1);
        let (vocabs, dtypes) = match i {
            0 => (&VOCABS[..], &[Dtype::F32, Dtype::Bf16, Dtype::F16][..]),
            1 => (&[VOCAB][..], &[Dtype::F32, Dtype::Bf16, Dtype::F16][..]),
            _ => (&[VOCAB][..], &[Dtype::F32][..]),
        };
        for (bench, rows) in [(&one, 1), (&all, 16)] {
            if rows > 1 && !one.is_best {
                continue;
            }
            for &vocab in vocabs {
                let values = Fill::Normal.rows(rows, vocab, &mut rng);
                for &dtype in dtypes {
                    let array = Array::new(&values, dtype, AS_ALLOCATED);
                    bench.scan(&array, rows);
                    CASES.into_iter().for_each(|case| bench.cached(&array, rows, case, ""));
                }
                if (rows, vocab) == (1, VOCAB) {
                    let array = Array::new(&values, Dtype::F32, ALIGNED);
                    CASES.into_iter().for_each(|case| bench.cached(&array, rows, case, "_aligned"));
                }
            }
        }
        let dtypes = if i < 2 { &[Dtype::F32, Dtype::Bf16][..] } else { &[] };
        let values = Fill::Normal.rows(COLD_ROWS, VOCAB, &mut rng);
        for &dtype in dtypes {
            let array = Array::new(&values, dtype, AS_ALLOCATED);
            CASES.into_iter().for_each(|case| one.cold(&array, case, ""));
        }
        if i < 2 {
            MODEL_VOCABS.into_iter().for_each(|vocab| one.model_rows(vocab, dtypes));
            one.crafted();
        }
    }
    threads(&report, &Bench::new(&report, Level::new(), 1).backend, &all.backend);
}
