//! Compares every output array of every backend with the sorted reference, bit for bit.
//!
//! There is one suite. A macro instantiates it for the built-in backend, for each plugin, and for each type of logits.
//! A plugin takes about a second to compile a program, so plugins run only a part of the larger sets. `common::thinned`
//! selects this part by the daily seed. `make test-full` runs all cases.

use crate::common::tpu::kinds_from;
use crate::common::*;
use nucleus::dtype::Dtype;
use nucleus::kernels::Wanted;
use nucleus::plan::{CallShape, Entry, LogitsPlace};
use nucleus::sampler::Sampler;
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use rand::prelude::*;

/// The length of the rows in most cases: more than the slots of the bounded path, and not a multiple of a SIMD width.
const SHORT: usize = 129;

/// A backend, and the part of the large sets that it runs. Each number is a stride of [`thinned`].
struct Subject {
    sampler: Sampled,
    shapes: usize,
    /// The stride for the combinations of parameters. It is prime, so that each value of each list occurs.
    combinations: usize,
    /// The stride for the entry points that run these combinations, and for the row lengths that run each class.
    entries: usize,
}

enum Sampled {
    Builtin { threads: usize },
    Plugin(&'static str),
}

const ONE_THREAD: Subject =
    Subject { sampler: Sampled::Builtin { threads: 1 }, shapes: 1, combinations: 1, entries: 1 };
const TWO_THREADS: Subject =
    Subject { sampler: Sampled::Builtin { threads: 2 }, shapes: 1, combinations: 3, entries: 1 };
/// This plugin runs a part of the whole product. The other plugins run each class of row, and smaller parts of the
/// rest.
const API_115: Subject =
    Subject { sampler: Sampled::Plugin(PLUGINS[0]), shapes: 11, combinations: 23, entries: 1 };
const API_106: Subject =
    Subject { sampler: Sampled::Plugin(PLUGINS[1]), shapes: 41, combinations: 359, entries: 2 };
const API_81: Subject =
    Subject { sampler: Sampled::Plugin(PLUGINS[2]), shapes: 41, combinations: 359, entries: 2 };

impl Subject {
    /// Samples and compares with the sorted reference.
    fn agrees(&self, entry: Entry, problem: &Problem, ask: Ask, context: &str) {
        let want = sample(&builtin(0), Entry::Reference, problem, ask);
        assert_same(problem, &self.sample(entry, problem, ask), &want, context);
    }

    fn sample(&self, entry: Entry, problem: &Problem, ask: Ask) -> Answers {
        match self.sampler {
            Sampled::Builtin { threads } => sample(&builtin(threads), entry, problem, ask),
            Sampled::Plugin(name) => sample(shared_sampler(name), entry, problem, ask),
        }
    }

    /// A sampler that has not compiled any program yet.
    fn fresh_sampler(&self) -> Sampler {
        match self.sampler {
            Sampled::Builtin { threads } => builtin(threads),
            Sampled::Plugin(name) => with_plugin(name),
        }
    }
}

/// Every class of row, on both paths, in short and long rows.
fn every_class_of_row(subject: &Subject, dtype: Dtype) {
    let mut rng = StdRng::seed_from_u64(1);
    for (batch, vocab) in thinned([(128, SHORT), (ROW_KINDS.len(), 5000)], subject.entries) {
        for (entry, ask) in [(Entry::Arbitrary, FULL_WIDTH), (Entry::Bounded, EVERYTHING)] {
            let largest_k = (entry == Entry::Bounded).then_some(128);
            let rows = Problem::random_rows(batch, vocab, largest_k, &mut rng);
            let problem = Problem::new(dtype, vocab, kinds_from(0, batch), rows, &mut rng);
            subject.agrees(entry, &problem, ask, &format!("{entry:?} {dtype:?} {batch}x{vocab}"));
        }
    }
}

/// Every vocabulary, batch size, entry point and set of output arrays.
fn every_shape(subject: &Subject, dtype: Dtype) {
    let mut rng = StdRng::seed_from_u64(daily_seed());
    for shape in thinned(shapes().into_iter().filter(|shape| shape.dtype == dtype), subject.shapes) {
        let problem = shape.problem(&mut rng);
        subject.agrees(shape.entry, &problem, shape.ask, &format!("{shape:?}"));
    }
}

/// All combinations of k, p, temperature, min-p and class of row, in short rows.
fn every_combination_of_parameters(subject: &Subject, dtype: Dtype) {
    let mut rng = StdRng::seed_from_u64(daily_seed());
    let combinations = ROW_KINDS.into_iter().flat_map(|kind| {
        top_k_values(SHORT).into_iter().flat_map(move |k| {
            TOP_P.into_iter().flat_map(move |p| {
                TEMPERATURE.into_iter().flat_map(move |temperature| {
                    MIN_P.into_iter().map(move |min_p| (kind, k, p, temperature, min_p))
                })
            })
        })
    });
    let mut combinations = thinned(combinations, subject.combinations);
    // The last batch is filled with copies of the first rows. With a smaller batch, a plugin would have to compile more
    // programs.
    let missing = combinations.len().next_multiple_of(128) - combinations.len();
    combinations.extend_from_within(..missing.min(combinations.len()));
    for combinations in combinations.chunks(128) {
        let kinds = combinations.iter().map(|&(kind, ..)| kind).collect();
        let mut row = |&(_, k, p, temperature, min_p): &(RowKind, i32, f32, f32, f32)| {
            RowParams::new(k, p, min_p, temperature, random_words(rng.random(), rng.random()), SHORT)
        };
        let rows = combinations.iter().map(&mut row).collect();
        let problem = Problem::new(dtype, SHORT, kinds, rows, &mut rng);
        for entry in thinned([Entry::Automatic, Entry::Arbitrary], subject.entries) {
            subject.agrees(entry, &problem, FULL_WIDTH, &format!("{entry:?}"));
        }
    }
}

/// The results of a row depend neither on the other rows of the batch nor on its position.
fn batch_invariance(subject: &Subject) {
    let mut rng = StdRng::seed_from_u64(11);
    let many = Problem::random(Dtype::F32, 128, SHORT, None, &mut rng);
    let together = subject.sample(Entry::Automatic, &many, FULL_WIDTH);
    let wide = |row: usize| row * SHORT..(row + 1) * SHORT;
    for row in [0, 1, 63, 64, 100, 127] {
        let bits = many.bits[wide(row)].to_vec();
        let mut alone = many.clone();
        (alone.rows, alone.kinds) = (vec![many.rows[row]], vec![many.kinds[row]]);
        alone.set_bits(bits.clone());
        let answers = subject.sample(Entry::Automatic, &alone, FULL_WIDTH);
        assert_eq!(answers.tokens[0], together.tokens[row]);
        assert_eq!(answers.topk_logits, together.topk_logits[wide(row)]);
        assert_eq!(answers.weights, together.weights[wide(row)]);
        assert_eq!(answers.random_low[0], together.random_low[row]);

        let place = rng.random_range(0..128);
        let mut moved = many.clone();
        let mut all = many.bits.clone();
        all[wide(place)].copy_from_slice(&bits);
        moved.rows[place] = many.rows[row];
        moved.set_bits(all);
        let answers = subject.sample(Entry::Automatic, &moved, FULL_WIDTH);
        assert_eq!(answers.tokens[place], together.tokens[row]);
        assert_eq!(answers.weights[wide(place)], together.weights[wide(row)]);
    }
}

/// Rows with padding between them have the same results as dense rows. The padding holds NaN.
fn padding_between_rows(subject: &Subject) {
    const STRIDE: usize = SHORT + 21;
    let mut rng = StdRng::seed_from_u64(12);
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let dense = Problem::random(dtype, 128, SHORT, None, &mut rng);
        let want = subject.sample(Entry::Arbitrary, &dense, FULL_WIDTH);
        let mut strided = dense.clone();
        strided.row_stride = STRIDE;
        let mut bits = vec![dtype.round(f32::NAN); 127 * STRIDE + SHORT];
        for row in 0..128 {
            bits[row * STRIDE..][..SHORT].copy_from_slice(&dense.bits[row * SHORT..][..SHORT]);
        }
        strided.set_bits(bits);
        assert_same(&dense, &subject.sample(Entry::Arbitrary, &strided, FULL_WIDTH), &want, "strided");
    }
}

/// Several threads use one sampler at the same time, with equal and different shapes.
fn many_threads(subject: &Subject) {
    let sampler = subject.fresh_sampler();
    let mut rng = StdRng::seed_from_u64(13);
    let problems: Vec<Problem> = [(3, SHORT), (1, 2)]
        .map(|(batch, vocab)| Problem::random(Dtype::Bf16, batch, vocab, None, &mut rng))
        .into();
    let want: Vec<Answers> =
        problems.iter().map(|p| sample(&builtin(1), Entry::Reference, p, FULL_WIDTH)).collect();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (sampler, problems, want) = (&sampler, &problems, &want);
            scope.spawn(move || {
                for round in 0..12 {
                    let i = (thread + round) % problems.len();
                    let got = sample(sampler, Entry::Automatic, &problems[i], FULL_WIDTH);
                    assert_same(&problems[i], &got, &want[i], "threads");
                }
            });
        }
    });
}

/// Defines a test for each of these cases of the suite, with these arguments.
macro_rules! tests {
    ($arguments:tt; $($case:ident),*) => {$(
        #[test]
        fn $case() {
            crate::agreement::$case $arguments;
        }
    )*};
}

/// Defines the tests that depend on the type of logits, for each type.
macro_rules! tests_of_types {
    ($subject:ident; $($module:ident: $dtype:expr),*) => {$(
        mod $module {
            use crate::agreement::*;
            tests!((&$subject, $dtype); every_class_of_row, every_shape, every_combination_of_parameters);
        }
    )*};
}

/// Defines the suite for a backend.
macro_rules! instantiate {
    ($($backend:ident: $subject:ident;)*) => {$(
        mod $backend {
            use crate::agreement::*;
            tests!((&$subject); batch_invariance, padding_between_rows, many_threads);
            tests_of_types!($subject; f32: Dtype::F32, bf16: Dtype::Bf16, f16: Dtype::F16);
        }
    )*};
}

instantiate! {
    builtin_with_one_thread: ONE_THREAD;
    builtin_with_two_threads: TWO_THREADS;
    plugin_api_115: API_115;
    plugin_api_106: API_106;
    plugin_api_81: API_81;
}

/// Every class of row at the largest vocabularies, and with the smallest and the largest number of slots.
#[test]
fn plugin_agrees_on_every_class_of_long_rows_and_any_number_of_slots() {
    let reference = builtin(0);
    let mut rng = StdRng::seed_from_u64(21);
    let cases = [(262_144, 128), (1 << 20, 128), (1000, 1), (5000, 1024), (300, 1024)];
    for (vocab, max_k) in thinned(cases, 3) {
        let sampler = with_slots(PLUGINS[0], max_k);
        let builtin_reference = if max_k == 128 { &reference } else { &sampler };
        for (entry, ask) in [(Entry::Bounded, EVERYTHING), (Entry::Arbitrary, PLAIN)] {
            let largest_k = (entry == Entry::Bounded).then_some(max_k as i32);
            let problem = Problem::random(Dtype::Bf16, ROW_KINDS.len(), vocab, largest_k, &mut rng);
            let want = sample(builtin_reference, Entry::Reference, &problem, ask);
            assert_same(
                &problem,
                &sample(&sampler, entry, &problem, ask),
                &want,
                &format!("{entry:?} {max_k}"),
            );
        }
    }
}

fn calls(entry: Entry, batch: usize, vocab: usize) -> CallShape {
    let (dtype, wanted, logits) = (Dtype::F32, Wanted::default(), LogitsPlace::Host);
    CallShape { entry, batch, vocab, dtype, stable: true, wanted, logits }
}

/// A prewarm that needs more programs than the cache can hold fails and compiles nothing.
#[test]
fn prewarm_refuses_more_programs_than_the_cache_holds() {
    let sampler = with_plugin(PLUGINS[0]);
    sampler.prewarm(&calls(Entry::Automatic, 2, 100)).unwrap();
    assert_eq!(sampler.stats().compiles, 2); // Rows this short all fit the bounded path.
    let error = sampler.prewarm(&calls(Entry::Automatic, 128, 1000)).unwrap_err().to_string();
    assert!(error.contains("cache_capacity is 8") && error.contains("16 programs"), "{error}");
    assert_eq!(sampler.stats().compiles, 2);
}

/// k, p, temperature, seeds and the replacement value are inputs of a program. A change of them compiles nothing.
#[test]
fn only_shapes_compile() {
    let sampler = with_plugin(PLUGINS[0]);
    let mut rng = StdRng::seed_from_u64(5);
    let mut problem = Problem::random(Dtype::F32, 8, 1000, None, &mut rng);
    sample(&sampler, Entry::Arbitrary, &problem, PLAIN);
    assert_eq!(sampler.stats().compiles, 1);
    for round in 1..20u64 {
        let fresh = Problem::random(Dtype::F32, 5 + round as usize % 4, 1000, None, &mut rng);
        problem = Problem { options: problem.options, ..fresh };
        problem.options.replace_val = -(round as f32);
        sample(&sampler, Entry::Arbitrary, &problem, PLAIN);
        assert_eq!((sampler.stats().compiles, sampler.stats().hits), (1, round));
    }
    // A different stable flag or different requested arrays need another program.
    problem.options.stable = false;
    sample(&sampler, Entry::Arbitrary, &problem, PLAIN);
    assert_eq!(sampler.stats().compiles, 2);
    sample(&sampler, Entry::Arbitrary, &problem, FULL_WIDTH);
    assert_eq!(sampler.stats().compiles, 3);
}

/// A mixed batch runs its rows with a small k in the bounded program and its other rows in the arbitrary program. The
/// bucket of each program depends on its number of rows.
#[test]
fn mixed_batches_are_split() {
    let sampler = with_plugin(PLUGINS[0]);
    sampler.prewarm(&calls(Entry::Bounded, 4, 1000)).unwrap();
    sampler.prewarm(&calls(Entry::Arbitrary, 2, 1000)).unwrap();
    assert_eq!(sampler.stats().compiles, 5); // Buckets 1, 2, 4 and 1, 2.
    let mut rng = StdRng::seed_from_u64(6);
    let rows = [5, 0, 64, 500, 1, 128]
        .map(|k| RowParams::new(k, 0.9, 0.0, 1.0, random_words(k as u64, 0), 1000))
        .to_vec();
    let problem = Problem::new(Dtype::F32, 1000, vec![RowKind::Normal; 6], rows, &mut rng);
    let got = sample(&sampler, Entry::Automatic, &problem, PLAIN);
    assert_eq!((sampler.stats().compiles, sampler.stats().hits), (5, 2));
    assert_same(&problem, &got, &sample(&builtin(1), Entry::Reference, &problem, PLAIN), "mixed");
}
