//! The cases that the interpreter runs for every device family with kernels. [`kernel_tests!`](crate::kernel_tests)
//! defines a test for each case.

use std::path::PathBuf;

use nucleus::dtype::Dtype;
use nucleus::kernels::{Path as Way, Spec};
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use nucleus::semantics::sizes::WEIGHT_BITS;
use rand::prelude::*;

use super::interpreter::{kinds_from, problem_of, spec, Cases, Checked, Device};
use super::{thinned, RowKind, ROW_KINDS};

const PATHS: [Way; 3] = [Way::Bounded(64), Way::Bounded(128), Way::Arbitrary];
const DTYPES: [Dtype; 3] = [Dtype::Bf16, Dtype::F32, Dtype::F16];

/// The cases for one family of devices.
pub struct Suite<D> {
    /// The directory of the cases.
    pub directory: PathBuf,
    /// Most cases use the first device. The case with rows of different kinds uses the last device. The case with long
    /// rows uses all devices in turn.
    pub devices: Vec<D>,
    /// Lists of options of the interpreter. Each case runs once with each list.
    pub options: &'static [&'static [&'static str]],
    /// The vocabulary of most cases.
    pub vocab: usize,
    /// The vocabularies of long rows.
    pub long: &'static [usize],
    /// The suite runs only one of every `thin` cases. With `thin` = 1, it runs all cases. If `thin` has no common
    /// factor with the length of a list of parameters, every value of the list still occurs (see [`thinned`]).
    pub thin: usize,
}

impl<D: Device> Suite<D> {
    fn cases(&self, name: &str) -> Cases {
        Cases::new(self.directory.join(name))
    }

    fn device(&self) -> &D {
        &self.devices[0]
    }

    fn thinned<T>(&self, cases: impl IntoIterator<Item = T>, every: usize) -> Vec<T> {
        thinned(cases, every * self.thin)
    }

    fn check(&self, cases: Cases) -> Checked {
        cases.check_all(self.options, |kernels| self.device().check_kernels(kernels))
    }

    /// Tests batches of rows of one kind. All rows take the same path through the kernel.
    pub fn each_kind_alone(&self, name: &str, vocab: usize, dtype: Dtype) {
        let mut rng = StdRng::seed_from_u64(1);
        let mut cases = self.cases(name);
        let programs = [Way::Bounded(64), Way::Arbitrary]
            .into_iter()
            .flat_map(|path| [false, true].map(|debug| spec(path, 8, vocab, dtype, debug)))
            .filter(|spec| self.device().supports(spec));
        let programs = thinned(programs, 3);
        let kinds = thinned(ROW_KINDS, self.thin);
        for spec in &programs {
            for &kind in &kinds {
                cases.add(spec, self.device(), &problem_of(spec, vec![kind; 8], &mut rng));
            }
        }
        assert_eq!(self.check(cases).cases, programs.len() * kinds.len() * self.options.len());
    }

    /// Tests batches with rows of different kinds.
    pub fn kinds_side_by_side(&self) {
        let mut rng = StdRng::seed_from_u64(2);
        let mut cases = self.cases("side_by_side");
        let (mut start, mut turn) = (0, 0);
        let mut specs = Vec::new();
        for vocab in [1, 2, 50, 127, 129, 1000, 4099] {
            for (path, batch) in PATHS.into_iter().zip([16, 1, 8]) {
                for debug in [false, true] {
                    // Together, the vocabularies cover every combination of type, path and `debug`.
                    specs.push(spec(path, batch, vocab, DTYPES[turn % 3], debug));
                    turn += 1;
                }
            }
            turn += 1;
        }
        for spec in self.thinned(specs, 5) {
            cases.add(
                &spec,
                self.devices.last().unwrap(),
                &problem_of(&spec, kinds_from(start, spec.batch), &mut rng),
            );
            start += spec.batch;
        }
        self.check(cases);
    }

    /// Tests long rows. Some have the length of real vocabularies.
    pub fn long_rows(&self) {
        let mut rng = StdRng::seed_from_u64(3);
        let mut cases = self.cases("long_rows");
        let mut programs = Vec::new();
        for &vocab in self.long {
            for path in [Way::Bounded(128), Way::Arbitrary] {
                for (number, (dtype, debug)) in
                    [(Dtype::Bf16, false), (Dtype::Bf16, true), (Dtype::F32, true)].into_iter().enumerate()
                {
                    let device = &self.devices[number % self.devices.len()];
                    programs.push((spec(path, 16, vocab, dtype, debug), device));
                }
            }
        }
        for (number, (spec, device)) in self.thinned(programs, 5).into_iter().enumerate() {
            cases.add(&spec, device, &problem_of(&spec, kinds_from(16 * number, 16), &mut rng));
        }
        self.check(cases);
    }

    /// Tests a call of 13 rows. Like the library, the test fills the bucket of 16 rows with copies of the last real
    /// row.
    pub fn rows_that_fill_a_bucket(&self) {
        let mut rng = StdRng::seed_from_u64(4);
        let mut cases = self.cases("thirteen");
        let programs = PATHS.into_iter().flat_map(|path| {
            [Dtype::Bf16, Dtype::F32].map(|dtype| spec(path, 16, self.vocab.min(1000), dtype, true))
        });
        for spec in self.thinned(programs, 5) {
            let mut problem = problem_of(&spec, kinds_from(4, 16), &mut rng);
            let mut bits = problem.bits.clone();
            for row in 13..16 {
                bits.copy_within(12 * spec.vocab..13 * spec.vocab, row * spec.vocab);
                problem.rows[row] = problem.rows[12];
                problem.kinds[row] = problem.kinds[12];
            }
            problem.set_bits(bits);
            cases.add(&spec, self.device(), &problem);
        }
        self.check(cases);
    }

    /// Tests functions for a decode step of the caller. They compute the random words in the program.
    pub fn embedded_functions(&self) {
        let mut rng = StdRng::seed_from_u64(21);
        let mut cases = self.cases("embedded");
        for (path, dtype, debug) in [
            (Way::Bounded(64), Dtype::Bf16, false),
            (Way::Arbitrary, Dtype::F32, false),
            (Way::Bounded(64), Dtype::F32, true),
        ] {
            let spec = spec(path, 10, self.vocab, dtype, debug);
            let mut problem = problem_of(&spec, kinds_from(0, 10), &mut rng);
            let seeds: Vec<u64> = (0..10).map(|_| rng.random()).collect();
            cases.add_embedded(&spec, self.device(), &mut problem, &seeds, 3);
        }
        self.check(cases);
    }

    /// Tests logits at the distance from the maximum where weights become 0. Their weight is 1 or 0, depending on
    /// rounding. If a kernel ignored a logit of weight 1, the total and the remainder of the draw would be different.
    pub fn the_least_weights(&self) {
        const MAX: f32 = 4.0;
        let (mut rng, vocab) = (StdRng::seed_from_u64(10), self.vocab);
        let mut cases = self.cases("least_weights");
        let variants = PATHS.into_iter().zip([true, false, true]).chain([(Way::Arbitrary, false)]);
        let programs =
            variants.flat_map(|(path, debug)| DTYPES.map(|dtype| spec(path, 8, vocab, dtype, debug)));
        for spec in self.thinned(programs, 5) {
            let (path, dtype) = (spec.path, spec.dtype);
            let mut problem = problem_of(&spec, vec![RowKind::Constant; 8], &mut rng);
            let mut bits = vec![dtype.round(-1000.0); 8 * vocab];
            for row in 0..8 {
                let distance = [8.0, 12.0, 16.0, 48.0][row % 4];
                let at_the_limit = std::f32::consts::LOG2_E * distance / (WEIGHT_BITS + 1) as f32;
                let temperature = f32::from_bits(at_the_limit.to_bits() + row as u32 - 3);
                let logits = &mut bits[row * vocab..][..vocab];
                // There are so few of these logits that the kernel samples from its list of survivors.
                for _ in 0..30 {
                    logits[rng.random_range(1..vocab)] = dtype.round(MAX - distance);
                }
                logits[0] = dtype.round(MAX);
                let k = if path == Way::Arbitrary && row % 2 == 0 { 0 } else { 50 };
                let p = 1.0 - 1.0 / 16_777_216.0;
                problem.rows[row] =
                    RowParams::new(k, p, 0.0, temperature, random_words(rng.random(), 1), vocab);
            }
            problem.set_bits(bits);
            cases.add(&spec, self.device(), &problem);
        }
        self.check(cases);
    }

    /// Tests `stable = false`: top-k keeps every tie.
    pub fn ties_that_are_all_kept(&self) {
        let mut rng = StdRng::seed_from_u64(6);
        let mut cases = self.cases("unstable");
        let programs = [(50, true), (self.vocab, true), (self.long[0], false)]
            .into_iter()
            .flat_map(|(vocab, debug)| DTYPES.map(|dtype| spec(Way::Arbitrary, 16, vocab, dtype, debug)));
        for program in self.thinned(programs, 4) {
            let spec = Spec { stable: false, ..program };
            let kinds = [RowKind::Tied, RowKind::Constant, RowKind::Normal, RowKind::NegativeZero];
            let kinds = kinds.into_iter().cycle().take(16).collect();
            cases.add(&spec, self.device(), &problem_of(&spec, kinds, &mut rng));
        }
        self.check(cases);
    }

    /// Tests values that replace the removed logits.
    pub fn replace_values(&self) {
        let mut rng = StdRng::seed_from_u64(7);
        let mut cases = self.cases("replaced");
        let values = [f32::NEG_INFINITY, 0.0, -1.0e38, 1e-40];
        let programs = [Way::Bounded(64), Way::Arbitrary]
            .into_iter()
            .flat_map(|path| DTYPES.map(|dtype| (path, dtype)))
            .flat_map(|(path, dtype)| values.map(|value| (path, dtype, value)));
        for (path, dtype, value) in thinned(programs, self.thin) {
            let spec = spec(path, 8, self.vocab.min(1000), dtype, true);
            let mut problem = problem_of(&spec, kinds_from(0, 8), &mut rng);
            problem.options.replace_val = value;
            cases.add(&spec, self.device(), &problem);
        }
        self.check(cases);
    }

    /// Tests both paths on every kind of row. The options of the interpreter select behaviour that may differ between
    /// hardware.
    pub fn with_options(&self, name: &str, options: &[&str], with_nan: bool, batch: usize) {
        let kinds: Vec<RowKind> = ROW_KINDS
            .into_iter()
            .filter(|kind| with_nan || !matches!(kind, RowKind::SomeNan | RowKind::AllNan))
            .collect();
        let mut rng = StdRng::seed_from_u64(8);
        let mut cases = self.cases(name);
        let programs = [Way::Bounded(64), Way::Arbitrary].into_iter().flat_map(|path| {
            [Dtype::Bf16, Dtype::F32].map(|dtype| spec(path, batch, self.vocab, dtype, true))
        });
        for spec in self.thinned(programs, 3) {
            // A batch has too few rows for all kinds, so there are several batches.
            for start in (0..kinds.len()).step_by(batch) {
                let some = (start..start + batch).map(|i| kinds[i % kinds.len()]).collect();
                cases.add(&spec, self.device(), &problem_of(&spec, some, &mut rng));
            }
        }
        cases.check_all(&[options], |kernels| self.device().check_kernels(kernels));
    }

    /// Tests programs with more slots than a row has elements.
    pub fn slots_beyond_the_vocabulary(&self) {
        let mut rng = StdRng::seed_from_u64(14);
        let mut cases = self.cases("slots");
        for (dtype, debug) in [(Dtype::F32, true), (Dtype::Bf16, true), (Dtype::Bf16, false)] {
            let spec = spec(Way::Bounded(200), 8, 100, dtype, debug);
            for start in [0, 8, 9] {
                cases.add(&spec, self.device(), &problem_of(&spec, kinds_from(start, 8), &mut rng));
            }
        }
        self.check(cases);
    }

    /// Tests that the comparison detects one changed bit.
    pub fn one_wrong_bit_is_found(&self) {
        let mut rng = StdRng::seed_from_u64(9);
        let mut cases = self.cases("wrong");
        let spec = spec(Way::Bounded(64), 8, 1000, Dtype::F32, false);
        for _ in 0..2 {
            cases.add(&spec, self.device(), &problem_of(&spec, kinds_from(0, 8), &mut rng));
        }
        assert_eq!(cases.run(&[]).unwrap().cases, 2);
        cases.spoil(1);
        let said = cases.run(&[]).unwrap_err();
        assert!(said.contains("1 mismatches") && said.contains("output 0 at [0, 0]"), "{said}");
        assert!(said.contains("1 of 2 cases pass"), "{said}");
    }
}

/// Defines a test for each case of a [`Suite`](crate::common::kernel_cases::Suite). The argument is an expression that
/// creates the suite.
#[macro_export]
macro_rules! kernel_tests {
    ($suite:expr) => {
        #[test]
        fn each_kind_of_row_alone_bf16() {
            let suite = $suite;
            suite.each_kind_alone("alone_bf16", suite.vocab, nucleus::dtype::Dtype::Bf16);
        }

        #[test]
        fn each_kind_of_row_alone_f32() {
            let suite = $suite;
            suite.each_kind_alone("alone_f32", suite.vocab, nucleus::dtype::Dtype::F32);
        }

        #[test]
        fn each_kind_of_row_alone_f16() {
            let suite = $suite;
            suite.each_kind_alone("alone_f16", suite.vocab.min(1000), nucleus::dtype::Dtype::F16);
        }

        $crate::kernel_tests! { @each $suite;
            kinds_side_by_side long_rows rows_that_fill_a_bucket embedded_functions the_least_weights
            ties_that_are_all_kept replace_values slots_beyond_the_vocabulary one_wrong_bit_is_found }
    };
    (@each $suite:expr; $($name:ident)*) => {
        $(#[test]
        fn $name() {
            $suite.$name();
        })*
    };
}
