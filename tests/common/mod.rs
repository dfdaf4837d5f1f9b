//! Code that the test programs share: problems to sample, the comparison of every output array, and the selection of
//! cases.
// Each test program compiles this file and uses only a part of it.
#![allow(dead_code, unreachable_pub, unused_imports, missing_docs)]

pub mod interpreter;
pub mod kernel_cases;
pub mod model_rows;
pub mod probes;
pub mod selection;
pub mod softmax;
pub mod tpu;
pub mod vectors;

use std::path::PathBuf;
use std::sync::OnceLock;

use nucleus::batch::{Batch, CallOptions};
use nucleus::dtype::{Dtype, Logits, LogitsMut};
use nucleus::outputs::{Outputs, RowArrays};
use nucleus::plan::Entry;
use nucleus::sampler::{BackendChoice, Sampler, SamplerOptions};
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use rand::prelude::*;
use rand_distr::{Distribution, Normal};

pub use selection::{daily_seed, full, thinned};

/// The plugins of `make plugins`.
pub const PLUGINS: [&str; 3] = ["lammps-jax-pjrt-cpu", "fastatomstruct-xla-cpu", "xla-cpu-pjrt"];

/// Returns the path of a plugin that `make plugins` has downloaded.
pub fn plugin(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!(".cache/plugins/{name}.so"));
    assert!(path.exists(), "{} is missing: run `make plugins`", path.display());
    path
}

pub fn builtin(num_threads: usize) -> Sampler {
    let options =
        SamplerOptions { backend: BackendChoice::Builtin, num_threads, ..SamplerOptions::default() };
    Sampler::new(&options).unwrap()
}

/// Returns a sampler with an empty program cache.
pub fn with_plugin(name: &str) -> Sampler {
    with_slots(name, 128)
}

/// Returns a sampler with `max_k` slots and an empty program cache.
pub fn with_slots(name: &str, max_k: usize) -> Sampler {
    plugin_sampler(name, max_k, 8)
}

/// Returns the sampler for one of [`PLUGINS`]. All tests of a test program share it, so that each sampling program is
/// compiled only once.
pub fn shared_sampler(name: &'static str) -> &'static Sampler {
    static SAMPLERS: [OnceLock<Sampler>; PLUGINS.len()] = [const { OnceLock::new() }; PLUGINS.len()];
    let number = PLUGINS.iter().position(|&plugin| plugin == name).expect("one of PLUGINS");
    SAMPLERS[number].get_or_init(|| plugin_sampler(name, 128, 1024))
}

fn plugin_sampler(name: &str, max_k: usize, cache_capacity: usize) -> Sampler {
    let options = SamplerOptions {
        max_k,
        backend: BackendChoice::Pjrt,
        plugin: Some(plugin(name)),
        cache_capacity,
        ..SamplerOptions::default()
    };
    Sampler::new(&options).unwrap()
}

/// Classes of rows. Each class has revealed a different defect in samplers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    Normal,
    Peaked,
    Tied,
    Masked,
    AlmostAllMasked,
    NoCandidate,
    AllNan,
    SomeNan,
    Infinities,
    NegativeZero,
    Subnormal,
    Constant,
    OneHot,
    Huge,
    Ascending,
    Descending,
    SourceWorstCase,
    /// Logits like those of language models: see [`model_rows`].
    Model,
}

pub const ROW_KINDS: [RowKind; 17] = [
    RowKind::Normal,
    RowKind::Peaked,
    RowKind::Tied,
    RowKind::Masked,
    RowKind::AlmostAllMasked,
    RowKind::NoCandidate,
    RowKind::AllNan,
    RowKind::SomeNan,
    RowKind::Infinities,
    RowKind::NegativeZero,
    RowKind::Subnormal,
    RowKind::Constant,
    RowKind::OneHot,
    RowKind::Huge,
    RowKind::Ascending,
    RowKind::Descending,
    RowKind::SourceWorstCase,
];

pub fn make_row(kind: RowKind, vocab: usize, rng: &mut StdRng) -> Vec<f32> {
    let normal = Normal::new(0.0f32, 3.0).unwrap();
    let mut row: Vec<f32> = (0..vocab).map(|_| normal.sample(rng)).collect();
    let pick = |rng: &mut StdRng| rng.random_range(0..vocab);
    match kind {
        RowKind::Normal => {}
        RowKind::Peaked => {
            let mut order: Vec<usize> = (0..vocab).collect();
            order.shuffle(rng);
            for (rank, &i) in order.iter().enumerate() {
                row[i] = 20.0 - 0.5 * rank as f32;
            }
        }
        // There are few distinct values, so thousands of entries are equal at every threshold.
        RowKind::Tied => row.iter_mut().for_each(|x| *x = (*x / 2.0).round()),
        RowKind::Masked => row.iter_mut().for_each(|x| {
            if rng.random_bool(0.5) {
                *x = f32::NEG_INFINITY;
            }
        }),
        RowKind::AlmostAllMasked => {
            let keep = [pick(rng), pick(rng), pick(rng)];
            (0..vocab).filter(|i| !keep.contains(i)).for_each(|i| row[i] = f32::NEG_INFINITY);
        }
        RowKind::NoCandidate => row.fill(f32::NEG_INFINITY),
        RowKind::AllNan => row.fill(f32::NAN),
        RowKind::SomeNan => {
            for _ in 0..3 {
                row[pick(rng)] = f32::NAN;
                row[pick(rng)] = f32::from_bits(0xffc0_0001);
            }
        }
        RowKind::Infinities => {
            for _ in 0..3 {
                row[pick(rng)] = f32::INFINITY;
                row[pick(rng)] = f32::NEG_INFINITY;
            }
            row[pick(rng)] = f32::MAX;
        }
        RowKind::NegativeZero => row.iter_mut().for_each(|x| {
            *x = match rng.random_range(0..4) {
                0 => 0.0,
                1 => -0.0,
                2 => -1.0,
                _ => f32::from_bits(0x8000_0001),
            }
        }),
        RowKind::Subnormal => row.iter_mut().for_each(|x| {
            let bits = rng.random_range(0..0x0100_0000u32);
            *x = f32::from_bits(bits | u32::from(rng.random_bool(0.5)) << 31);
        }),
        RowKind::Constant => row.fill(1.5),
        RowKind::OneHot => {
            row.fill(-100.0);
            row[pick(rng)] = 100.0;
        }
        RowKind::Huge => row.iter_mut().for_each(|x| *x *= 1e37),
        RowKind::Ascending => row.sort_by(f32::total_cmp),
        RowKind::Descending => row.sort_by(|a, b| b.total_cmp(a)),
        RowKind::SourceWorstCase => row.iter_mut().skip(13).step_by(256).for_each(|x| *x += 100.0),
        RowKind::Model => {
            row.iter_mut().for_each(|x| *x *= model_rows::DEVIATION / 3.0);
            model_rows::add_top(&mut row, rng);
        }
    }
    row
}

pub const TOP_P: [f32; 8] = [0.0, 1e-30, 0.5, 0.95, 1.0 - 1.0 / 16_777_216.0, 1.0, 2.0, -1.0];
pub const TEMPERATURE: [f32; 6] = [0.0, 1e-6, 0.1, 1.0, 10.0, 1e30];
pub const MIN_P: [f32; 5] = [0.0, 0.05, 1.0, 2.0, 1e-9];

pub fn top_k_values(vocab: usize) -> [i32; 11] {
    let v = vocab as i32;
    [0, 1, 2, 63, 64, 128, 129, v - 1, v, v + 1, -1]
}

/// A batch that owns its logits and parameters.
#[derive(Clone, Debug)]
pub struct Problem {
    pub dtype: Dtype,
    pub vocab: usize,
    pub row_stride: usize,
    /// Bit patterns of the logits, in the low bits of each word.
    pub bits: Vec<u32>,
    pub kinds: Vec<RowKind>,
    pub rows: Vec<RowParams>,
    pub options: CallOptions,
    pub f32s: Vec<f32>,
    pub u16s: Vec<u16>,
}

impl Problem {
    pub fn new(
        dtype: Dtype,
        vocab: usize,
        kinds: Vec<RowKind>,
        rows: Vec<RowParams>,
        rng: &mut StdRng,
    ) -> Problem {
        let row_stride = vocab;
        let bits: Vec<u32> = kinds
            .iter()
            .flat_map(|&kind| make_row(kind, vocab, rng))
            .map(|value| dtype.round(value))
            .collect();
        let mut problem = Problem {
            dtype,
            vocab,
            row_stride,
            bits,
            kinds,
            rows,
            options: CallOptions::default(),
            f32s: vec![],
            u16s: vec![],
        };
        problem.set_bits(problem.bits.clone());
        problem
    }

    /// Replaces all logits by these bit patterns.
    pub fn set_bits(&mut self, bits: Vec<u32>) {
        match self.dtype {
            Dtype::F32 => self.f32s = bits.iter().map(|&b| f32::from_bits(b)).collect(),
            _ => self.u16s = bits.iter().map(|&b| b as u16).collect(),
        }
        self.bits = bits;
    }

    /// Replaces some logits. Each item contains the row, the index and the new value.
    pub fn put(&mut self, logits: impl IntoIterator<Item = (usize, usize, f32)>) {
        let mut bits = self.bits.clone();
        for (row, index, value) in logits {
            bits[row * self.row_stride + index] = self.dtype.round(value);
        }
        self.set_bits(bits);
    }

    /// Returns rows of every class, with parameters drawn from the lists above. `largest_k` limits k for the bounded
    /// path.
    pub fn random(
        dtype: Dtype,
        batch: usize,
        vocab: usize,
        largest_k: Option<i32>,
        rng: &mut StdRng,
    ) -> Problem {
        let kinds: Vec<RowKind> = (0..batch)
            .map(|row| {
                if row < ROW_KINDS.len() {
                    ROW_KINDS[(row + rng.random_range(0..17)) % 17]
                } else {
                    *ROW_KINDS.choose(rng).unwrap()
                }
            })
            .collect();
        let rows = Problem::random_rows(batch, vocab, largest_k, rng);
        Problem::new(dtype, vocab, kinds, rows, rng)
    }

    /// Returns parameters drawn from the lists above. `largest_k` limits k for the bounded path.
    pub fn random_rows(
        batch: usize,
        vocab: usize,
        largest_k: Option<i32>,
        rng: &mut StdRng,
    ) -> Vec<RowParams> {
        let ks: Vec<i32> = top_k_values(vocab)
            .into_iter()
            .filter(|&k| largest_k.is_none_or(|largest| k >= 1 && k <= largest || vocab as i32 <= largest))
            .collect();
        (0..batch)
            .map(|_| {
                RowParams::new(
                    *ks.choose(rng).unwrap(),
                    *TOP_P.choose(rng).unwrap(),
                    *MIN_P.choose(rng).unwrap(),
                    *TEMPERATURE.choose(rng).unwrap(),
                    random_words(rng.random(), rng.random()),
                    vocab,
                )
            })
            .collect()
    }

    pub fn batch(&self) -> Batch<'_> {
        let logits = match self.dtype {
            Dtype::F32 => Logits::F32(&self.f32s),
            Dtype::Bf16 => Logits::Bf16(&self.u16s),
            Dtype::F16 => Logits::F16(&self.u16s),
        };
        Batch::from_params(logits, self.vocab, self.row_stride, self.rows.clone(), self.options).unwrap()
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }
}

/// The optional output arrays that a call requests.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub topk_logits: bool,
    pub weights: bool,
    pub slices: bool,
}

pub const EVERYTHING: Ask = Ask { topk_logits: true, weights: true, slices: true };
pub const FULL_WIDTH: Ask = Ask { topk_logits: true, weights: true, slices: false };
pub const PLAIN: Ask = Ask { topk_logits: false, weights: false, slices: false };

/// Every output array. Logits are bit patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    pub tokens: Vec<i32>,
    pub row_status: Vec<u32>,
    pub greedy_sampled: Vec<i32>,
    pub random_high: Vec<u32>,
    pub random_low: Vec<u32>,
    pub next_tokens: Vec<i32>,
    pub topk_logits: Vec<u32>,
    pub weights: Vec<i32>,
    pub indices_k: Vec<i32>,
    pub topk_logits_k: Vec<u32>,
    pub weights_k: Vec<i32>,
}

/// An array of the logits' type. Its initial values are values that no sampler writes.
enum Store {
    F32(Vec<f32>),
    Narrow(Vec<u16>),
}

impl Store {
    fn new(dtype: Dtype, len: usize) -> Store {
        match dtype {
            Dtype::F32 => Store::F32(vec![f32::from_bits(0x7fab_cdef); len]),
            _ => Store::Narrow(vec![0x7fff; len]),
        }
    }
    fn view(&mut self, dtype: Dtype) -> LogitsMut<'_> {
        match (self, dtype) {
            (Store::F32(x), _) => LogitsMut::F32(x),
            (Store::Narrow(x), Dtype::Bf16) => LogitsMut::Bf16(x),
            (Store::Narrow(x), _) => LogitsMut::F16(x),
        }
    }
    fn bits(&self) -> Vec<u32> {
        match self {
            Store::F32(x) => x.iter().map(|v| v.to_bits()).collect(),
            Store::Narrow(x) => x.iter().map(|&v| u32::from(v)).collect(),
        }
    }
}

pub fn sample(sampler: &Sampler, entry: Entry, problem: &Problem, ask: Ask) -> Answers {
    let (rows, wide, slots) = (problem.len(), problem.len() * problem.vocab, problem.len() * sampler.max_k());
    let sized = |wanted: bool, len: usize| if wanted { len } else { 0 };
    let mut answers = Answers {
        tokens: vec![-7; rows],
        row_status: vec![77; rows],
        greedy_sampled: vec![-7; rows],
        random_high: vec![77; rows],
        random_low: vec![77; rows],
        next_tokens: vec![-7; rows],
        weights: vec![-7; sized(ask.weights, wide)],
        indices_k: vec![-7; sized(ask.slices, slots)],
        weights_k: vec![-7; sized(ask.slices, slots)],
        ..Answers::default()
    };
    let mut topk_logits = Store::new(problem.dtype, sized(ask.topk_logits, wide));
    let mut topk_logits_k = Store::new(problem.dtype, sized(ask.slices, slots));
    let mut outputs = Outputs {
        tokens: Some(&mut answers.tokens),
        row_status: Some(&mut answers.row_status),
        greedy_sampled: Some(&mut answers.greedy_sampled),
        random_high: Some(&mut answers.random_high),
        random_low: Some(&mut answers.random_low),
        next_tokens: Some(&mut answers.next_tokens),
        wide: RowArrays {
            topk_logits: ask.topk_logits.then(|| topk_logits.view(problem.dtype)),
            weights: ask.weights.then_some(&mut answers.weights[..]),
            indices_k: ask.slices.then_some(&mut answers.indices_k[..]),
            topk_logits_k: ask.slices.then(|| topk_logits_k.view(problem.dtype)),
            weights_k: ask.slices.then_some(&mut answers.weights_k[..]),
        },
    };
    sampler.sample(entry, &problem.batch(), &mut outputs).unwrap();
    answers.topk_logits = topk_logits.bits();
    answers.topk_logits_k = topk_logits_k.bits();
    answers
}

/// The result of comparing two sets of answers.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    pub values: usize,
    pub mismatches: usize,
    /// A description of the first mismatch.
    pub first: Option<String>,
}

/// Compares every value of every array.
pub fn compare(problem: &Problem, got: &Answers, want: &Answers) -> Comparison {
    fn field<T: PartialEq + std::fmt::LowerHex>(
        found: &mut Comparison,
        problem: &Problem,
        name: &str,
        got: &[T],
        want: &[T],
    ) {
        assert_eq!(got.len(), want.len(), "length of {name}");
        found.values += got.len();
        let wrong = (0..got.len()).filter(|&i| got[i] != want[i]);
        found.mismatches += wrong.clone().count();
        if let (None, Some(at)) = (&found.first, wrong.clone().next()) {
            let width = got.len() / problem.len();
            let row = at / width;
            found.first = Some(format!(
                "{name}[{row}][{}] is {:x}, want {:x} ({:?} row, {:?}, vocab {}, {:?}, {:?})",
                at % width,
                got[at],
                want[at],
                problem.kinds[row],
                problem.dtype,
                problem.vocab,
                problem.rows[row],
                problem.options,
            ));
        }
    }
    let mut found = Comparison::default();
    macro_rules! fields {
        ($($name:ident)*) => { $(field(&mut found, problem, stringify!($name), &got.$name, &want.$name);)* };
    }
    fields!(greedy_sampled row_status topk_logits weights random_high random_low next_tokens tokens
        indices_k topk_logits_k weights_k);
    found
}

/// Samples one batch of bf16 on each path and compares every output with the built-in backend.
pub fn answers_rightly(sampler: &Sampler, rows: usize, vocab: usize, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    for entry in [Entry::Bounded, Entry::Arbitrary] {
        let largest_k = (entry == Entry::Bounded).then_some(128);
        let problem = Problem::random(Dtype::Bf16, rows, vocab, largest_k, &mut rng);
        let (got, want) =
            (sample(sampler, entry, &problem, PLAIN), sample(&builtin(1), entry, &problem, PLAIN));
        assert_same(&problem, &got, &want, &format!("{entry:?}, {rows} rows of {vocab}"));
    }
}

/// Panics if any value differs, and describes the first difference.
pub fn assert_same(problem: &Problem, got: &Answers, want: &Answers, context: &str) {
    let found = compare(problem, got, want);
    if let Some(first) = found.first {
        panic!("{context}: {} of {} values differ; the first: {first}", found.mismatches, found.values);
    }
}

/// The shape of a call for comparing two backends.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub entry: Entry,
    pub dtype: Dtype,
    pub batch: usize,
    pub vocab: usize,
    pub stable: bool,
    pub ask: Ask,
}

/// The vocabulary sizes of [`shapes`].
pub const VOCABS: [usize; 11] = [1, 2, 127, 128, 129, 1000, 32_000, 128_256, 151_936, 262_144, 1 << 20];

/// Returns calls that cover every vocabulary, batch size, type, path and variant. They do not cover all combinations,
/// because a program takes about a second to compile. Large vocabularies have small batches.
pub fn shapes() -> Vec<Shape> {
    let dtypes = [Dtype::F32, Dtype::Bf16, Dtype::F16];
    let mut shapes = Vec::new();
    for (i, &vocab) in VOCABS.iter().enumerate() {
        let batches: &[usize] = match vocab {
            0..=1000 => &[1, 3, 8, 17, 128],
            1001..=32_000 => &[1, 17, 8],
            32_001..=262_144 => &[3, 8],
            _ => &[1],
        };
        for (j, &batch) in batches.iter().enumerate() {
            let dtype = dtypes[(i + j) % 3];
            let stable = (i + j) % 4 != 3;
            let shape = Shape { entry: Entry::Arbitrary, dtype, batch, vocab, stable, ask: FULL_WIDTH };
            shapes.push(shape);
            shapes.push(Shape { entry: Entry::Bounded, ask: EVERYTHING, stable: true, ..shape });
            let other = dtypes[(i + j + 1) % 3];
            shapes.push(Shape { entry: Entry::Automatic, dtype: other, ask: PLAIN, ..shape });
        }
    }
    // Without `stable`, all ties at the threshold survive, so there can be more survivors than slots.
    let dtype = Dtype::Bf16;
    shapes.push(Shape {
        entry: Entry::Bounded,
        dtype,
        batch: 17,
        vocab: 1000,
        stable: false,
        ask: EVERYTHING,
    });
    shapes
}

impl Shape {
    /// Returns a random problem of this shape.
    pub fn problem(&self, rng: &mut StdRng) -> Problem {
        let largest_k = (self.entry == Entry::Bounded).then_some(128);
        let mut problem = Problem::random(self.dtype, self.batch, self.vocab, largest_k, rng);
        problem.options.stable = self.stable;
        if rng.random_bool(0.3) {
            problem.options.replace_val = *[f32::NEG_INFINITY, 0.0, -1.0e38, 1e-40].choose(rng).unwrap();
        }
        problem
    }
}
