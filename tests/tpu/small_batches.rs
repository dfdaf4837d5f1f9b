//! Batches of one, two and four rows. Each row has several stripes (`kernels/tpu/layout.rs`).

use std::path::PathBuf;

use crate::common::tpu::{chip, kinds_from, layouts, problem_of, some_hundredths, spec, Cases};
use crate::common::*;
use nucleus::dtype::Dtype;
use nucleus::kernels::{Path as Way, Spec};
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use rand::prelude::*;

/// Batches of three rows have a block of four rows with one row of padding.
const BATCHES: [usize; 4] = [1, 2, 4, 3];
const PATHS: [Way; 3] = [Way::Bounded(64), Way::Arbitrary, Way::Bounded(128)];
const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];

fn cases(name: &str) -> Cases {
    Cases::new(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tpu").join(name))
}

/// Returns the programs for every number of rows, path, type and set of outputs.
fn programs(vocab: usize) -> Vec<Spec> {
    let mut programs = Vec::new();
    for batch in BATCHES {
        for path in PATHS {
            for dtype in DTYPES {
                programs.extend([true, false].map(|debug| spec(path, batch, vocab, dtype, debug)));
            }
        }
    }
    programs
}

/// Adds batches with every kind of row.
fn add_all_kinds(cases: &mut Cases, spec: &Spec, rng: &mut StdRng) {
    for start in (0..ROW_KINDS.len()).step_by(spec.batch) {
        cases.add(spec, &chip("v5e"), &problem_of(spec, kinds_from(start, spec.batch), rng));
    }
}

/// The stripes have one chunk, and the last stripes are padding.
#[test]
fn every_kind_of_row() {
    let mut rng = StdRng::seed_from_u64(31);
    let mut cases = cases("small_kinds");
    for spec in thinned(programs(4099), 37) {
        add_all_kinds(&mut cases, &spec, &mut rng);
    }
    cases.check(&[]);
}

/// The stripes have several chunks. In some rows the chunks are shorter than usual.
#[test]
fn stripes_of_several_chunks() {
    let mut rng = StdRng::seed_from_u64(32);
    let mut cases = cases("small_chunks");
    let programs = [40_000, 75_000, 128_256].into_iter().flat_map(programs);
    for (number, spec) in thinned(programs, 53).into_iter().enumerate() {
        cases.add(&spec, &chip("v6e"), &problem_of(&spec, kinds_from(3 * number, spec.batch), &mut rng));
        if spec.path == Way::Arbitrary {
            let kinds = vec![RowKind::Normal; spec.batch];
            cases.add(&spec, &chip("v6e"), &some_hundredths(&spec, kinds, &mut rng));
        }
    }
    cases.check(&[]);
}

/// The drawn entry and the last kept tie are at the start of the row, at its end, or near a border of two stripes.
#[test]
fn every_stripe_is_drawn() {
    const VOCAB: usize = 40_000;
    let mut rng = StdRng::seed_from_u64(33);
    let mut cases = cases("small_draws");
    let programs = [(Way::Bounded(64), false), (Way::Arbitrary, true), (Way::Arbitrary, false)]
        .into_iter()
        .flat_map(|(path, debug)| [1, 2, 4].map(|batch| spec(path, batch, VOCAB, Dtype::F32, debug)));
    for spec in thinned(programs, 5) {
        let stripe = VOCAB.div_ceil(8 / spec.batch * 128 * 32) * 128 * 32;
        for first in [0, stripe - 30, 2 * stripe - 30, VOCAB - 60] {
            // Sixty equal logits are at an end of the row, or on both sides of a border of two stripes. Top-k keeps
            // some of them.
            let mut problem = problem_of(&spec, vec![RowKind::Constant; spec.batch], &mut rng);
            let mut logits = vec![-1000.0; spec.batch * VOCAB];
            for (row, params) in problem.rows.iter_mut().enumerate() {
                let first = first.min(VOCAB - 60);
                logits[row * VOCAB + first..][..60].fill(3.0);
                let k = rng.random_range(20..60);
                *params = RowParams::new(k, 1.0, 0.0, 1.0, random_words(rng.random(), 1), VOCAB);
            }
            problem.set_bits(logits.into_iter().map(|x| spec.dtype.round(x)).collect());
            cases.add(&spec, &chip("v5e"), &problem);
        }
    }
    cases.check(&[]);
}

/// Rows with 1,152 survivors of the threshold, at most six per lane. In a block of four rows, they fit the lanes, but
/// floats cannot represent all sums of their weights. So the kernel must sample the block by passes.
#[test]
fn more_survivors_than_floats_can_add() {
    const VOCAB: usize = 40_000;
    const BATCH: usize = 4;
    const STRIPE: usize = 20_480;
    // In each stripe, the survivors fill these registers of the first chunk. They are in three cells of each lane.
    const REGISTERS: [&[usize]; 2] = [&[0, 2, 4, 6, 8], &[0, 2, 4, 6]];
    let mut rng = StdRng::seed_from_u64(36);
    let mut cases = cases("small_sums");
    let spec = spec(Way::Arbitrary, BATCH, VOCAB, Dtype::F32, false);
    let mut problem = problem_of(&spec, vec![RowKind::Constant; BATCH], &mut rng);
    let mut logits = vec![-1000.0f32; BATCH * VOCAB];
    for row in logits.chunks_mut(VOCAB) {
        for (stripe, registers) in REGISTERS.into_iter().enumerate() {
            for register in registers {
                let first = stripe * STRIPE + register * 128;
                row[first..][..128].iter_mut().for_each(|x| *x = rng.random_range(9.5..10.0));
            }
        }
    }
    problem.set_bits(logits.into_iter().map(f32::to_bits).collect());
    // The rows have no top-p. With top-p, the kernel would first try only the largest of these entries.
    for (row, params) in problem.rows.iter_mut().enumerate() {
        *params = RowParams::new(0, 1.0, 0.0, 1.0, random_words(1 + row as u64, 1), VOCAB);
    }
    cases.add(&spec, &chip("v5e"), &problem);
    cases.run(&[]).unwrap_or_else(|said| panic!("{said}"));
    assert!(cases
        .took("the largest entries may suffice / few cells reach the threshold / survivors suffice: else"));
}

/// The survivors of random rows and of the worst case fit the registers that receive their copies. Otherwise, the
/// kernel would sample these rows by passes, which takes five times as long.
#[test]
fn survivors_fit_with_their_copies() {
    const VOCAB: usize = 262_144;
    for (number, (batch, dtype)) in
        [(1, Dtype::Bf16), (1, Dtype::F32), (2, Dtype::Bf16)].into_iter().enumerate()
    {
        let mut rng = StdRng::seed_from_u64(11);
        let mut cases = cases(&format!("small_copies_{number}"));
        let spec = spec(Way::Bounded(64), batch, VOCAB, dtype, false);
        for kind in [RowKind::SourceWorstCase, RowKind::Normal] {
            let words = (0..batch).map(|_| random_words(rng.random(), rng.random()));
            let rows = words.map(|words| RowParams::new(64, 0.95, 0.0, 1.0, words, VOCAB)).collect();
            let problem = Problem::new(dtype, VOCAB, vec![kind; batch], rows, &mut rng);
            cases.add(&spec, &chip("v5e"), &problem);
        }
        cases.run(&[]).unwrap_or_else(|said| panic!("{said}"));
        assert!(
            cases.took("survivors suffice: then") && !cases.took("survivors suffice: else"),
            "{}",
            spec.name()
        );
    }
}

/// Functions for a decode step of the caller, which compute the random words in the program.
#[test]
fn embedded_functions() {
    let mut rng = StdRng::seed_from_u64(37);
    let mut cases = cases("small_embedded");
    for (path, batch) in [(Way::Bounded(64), 1), (Way::Arbitrary, 3)] {
        let spec = spec(path, batch, 4099, Dtype::Bf16, false);
        let mut problem = problem_of(&spec, kinds_from(0, batch), &mut rng);
        let seeds: Vec<u64> = (0..batch).map(|_| rng.random()).collect();
        cases.add_embedded(&spec, &chip("v5e"), &mut problem, &seeds, 3);
    }
    cases.check(&[]);
}

/// Every memory layout: the size of vector memory determines the layout.
#[test]
fn layouts_of_every_size_of_memory() {
    let mut rng = StdRng::seed_from_u64(34);
    let mut cases = cases("small_layouts");
    for (path, batch, dtype) in [(Way::Arbitrary, 1, Dtype::F32), (Way::Bounded(128), 4, Dtype::Bf16)] {
        let spec = spec(path, batch, 100_000, dtype, false);
        let chips = layouts(&spec);
        assert!(chips.len() >= 4, "{}: {} layouts", spec.name(), chips.len());
        for (number, chip) in thinned(chips, 5).into_iter().enumerate() {
            cases.add(&spec, &chip, &problem_of(&spec, kinds_from(4 * number, batch), &mut rng));
        }
    }
    cases.check(&[]);
}

/// Behaviour that may differ between hardware: see the tests with the same options in `kernels.rs`.
#[test]
fn behaviour_of_hardware() {
    let mut rng = StdRng::seed_from_u64(35);
    let options: [&[&str]; 3] = [&["--garbage=large"], &["--flush"], &["--nan-max=ignore"]];
    for (number, options) in options.into_iter().enumerate() {
        let mut cases = cases(&format!("small_options_{number}"));
        for spec in thinned([Way::Bounded(64), Way::Arbitrary], 2)
            .into_iter()
            .map(|path| spec(path, [1, 2, 4][number], 4099, Dtype::F32, false))
        {
            let kinds: Vec<RowKind> = thinned(ROW_KINDS, 3)
                .into_iter()
                .filter(|kind| number != 2 || !matches!(kind, RowKind::SomeNan | RowKind::AllNan))
                .collect();
            for kinds in kinds.chunks_exact(spec.batch) {
                cases.add(&spec, &chip("v5e"), &problem_of(&spec, kinds.to_vec(), &mut rng));
            }
        }
        cases.check(options);
    }
}
