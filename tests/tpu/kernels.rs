//! The TPU kernels without a TPU: the program that libtpu would receive is run by an interpreter of its own making
//! (`tests/tpu/interpreter`), and every output array must equal the built-in backend's, bit for bit. A set that
//! represents the grid of `tests/tpu_grid.rs`, in a few minutes.

use std::path::PathBuf;

use crate::common::tpu::{chip, kinds_from, layouts, problem_of, some_hundredths, spec, Cases};
use crate::common::*;
use nucleus::dtype::Dtype;
use nucleus::kernels::{tpu, Chip, Path as Way, Spec};
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use rand::prelude::*;

const PATHS: [Way; 3] = [Way::Bounded(64), Way::Bounded(128), Way::Arbitrary];
const DTYPES: [Dtype; 3] = [Dtype::Bf16, Dtype::F32, Dtype::F16];

fn cases(name: &str) -> Cases {
    Cases::new(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tpu").join(name))
}

/// Batches of rows of one kind, which all go the same way through the kernel.
fn each_kind_alone(name: &str, vocab: usize, dtype: Dtype) {
    let mut rng = StdRng::seed_from_u64(1);
    let mut cases = cases(name);
    let programs = [Way::Bounded(64), Way::Arbitrary]
        .into_iter()
        .flat_map(|path| [false, true].map(|debug| spec(path, 8, vocab, dtype, debug)));
    let programs = thinned(programs, 3);
    for spec in &programs {
        for kind in ROW_KINDS {
            cases.add(spec, &chip("v5e"), &problem_of(spec, vec![kind; 8], &mut rng));
        }
    }
    assert_eq!(cases.check(&[]).cases, programs.len() * ROW_KINDS.len());
}

#[test]
fn each_kind_of_row_alone_bf16() {
    each_kind_alone("alone_bf16", 4099, Dtype::Bf16);
}

#[test]
fn each_kind_of_row_alone_f32() {
    each_kind_alone("alone_f32", 4099, Dtype::F32);
}

#[test]
fn each_kind_of_row_alone_f16() {
    each_kind_alone("alone_f16", 1000, Dtype::F16);
}

#[test]
fn kinds_side_by_side() {
    let mut rng = StdRng::seed_from_u64(2);
    let mut cases = cases("side_by_side");
    let (mut start, mut turn) = (0, 0);
    let mut specs = Vec::new();
    for vocab in [1, 2, 50, 127, 129, 1000, 4099] {
        for (path, batch) in PATHS.into_iter().zip([16, 1, 8]) {
            for debug in [false, true] {
                // Over all vocabularies, every type with every path, plain and debug.
                specs.push(spec(path, batch, vocab, DTYPES[turn % 3], debug));
                turn += 1;
            }
        }
        turn += 1;
    }
    for spec in thinned(specs, 5) {
        cases.add(&spec, &chip("v6e"), &problem_of(&spec, kinds_from(start, spec.batch), &mut rng));
        start += spec.batch;
    }
    cases.check(&[]);
}

#[test]
fn long_rows() {
    let mut rng = StdRng::seed_from_u64(3);
    let mut cases = cases("long_rows");
    let mut programs = Vec::new();
    for vocab in [32_000, 128_256] {
        for path in [Way::Bounded(128), Way::Arbitrary] {
            for (dtype, debug, name) in
                [(Dtype::Bf16, false, "v5e"), (Dtype::Bf16, true, "tpu7x"), (Dtype::F32, true, "v4")]
            {
                programs.push((spec(path, 16, vocab, dtype, debug), name));
            }
        }
    }
    for (number, (spec, name)) in thinned(programs, 5).into_iter().enumerate() {
        cases.add(&spec, &chip(name), &problem_of(&spec, kinds_from(16 * number, 16), &mut rng));
    }
    cases.check(&[]);
}

/// A call of 13 rows as the library makes it: of 16 rows, of which the last real one fills up what is missing.
#[test]
fn rows_that_fill_a_bucket() {
    let mut rng = StdRng::seed_from_u64(4);
    let mut cases = cases("thirteen");
    let programs = PATHS
        .into_iter()
        .flat_map(|path| [Dtype::Bf16, Dtype::F32].map(|dtype| spec(path, 16, 1000, dtype, true)));
    for spec in thinned(programs, 5) {
        let mut problem = problem_of(&spec, kinds_from(4, 16), &mut rng);
        let mut bits = problem.bits.clone();
        for row in 13..16 {
            bits.copy_within(12 * spec.vocab..13 * spec.vocab, row * spec.vocab);
            problem.rows[row] = problem.rows[12];
            problem.kinds[row] = problem.kinds[12];
        }
        problem.set_bits(bits);
        cases.add(&spec, &chip("v5e"), &problem);
    }
    cases.check(&[]);
}

/// Every layout that a size of vector memory leads to: one buffer or two, with and without kept weights, short cells
/// and long, streamed.
#[test]
fn layouts_of_every_size_of_memory() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut cases = cases("layouts");
    let mut start = 0;
    for (path, dtype, debug) in [(Way::Arbitrary, Dtype::F32, true), (Way::Bounded(128), Dtype::Bf16, true)] {
        let spec = spec(path, 16, 60_000, dtype, debug);
        let chips = layouts(&spec);
        assert!(chips.len() >= 6, "{}: {} layouts", spec.name(), chips.len());
        for chip in thinned(chips, 4) {
            cases.add(&spec, &chip, &problem_of(&spec, kinds_from(start, 16), &mut rng));
            if path == Way::Arbitrary {
                cases.add(&spec, &chip, &some_hundredths(&spec, kinds_from(start, 16), &mut rng));
            }
            start += 16;
        }
    }
    cases.check(&[]);
}

/// Large logits that all fall into one lane of the survivors, from the few that it has room for to many more, and in
/// several of the short stacks that they go through: what a lane loses must send the block another way.
#[test]
fn lanes_that_overflow() {
    const CHUNK: usize = 64;
    const CELL: usize = 8;
    let mut rng = StdRng::seed_from_u64(6);
    let mut cases = cases("overflow");
    for (path, debug) in [(Way::Bounded(64), true), (Way::Bounded(128), false), (Way::Arbitrary, false)] {
        let spec = spec(path, 8, 32_000, Dtype::F32, debug);
        for counts in [[2; 4], [3, 0, 1, 0], [5, 0, 1, 0], [1, 0, 5, 1], [8, 1, 0, 0], [4, 4, 4, 4]] {
            let mut problem = problem_of(&spec, vec![RowKind::Normal; 8], &mut rng);
            let mut large = Vec::new();
            let all: usize = counts.iter().sum();
            for row in 0..8 {
                for (chunk, &count) in counts.iter().enumerate() {
                    for cell in 0..count {
                        // Where a cell's lane lands is its column and how far the cell is rotated.
                        let column = (256 + row - chunk - 16 * cell) % 128;
                        let index = (chunk * CHUNK + cell * CELL) * 128 + column;
                        large.push((row, index % spec.vocab, 50.0 + cell as f32));
                    }
                }
                let k = all as i32 + row as i32 - 3;
                problem.rows[row] =
                    RowParams::new(k.max(1), 1.0, 0.0, 3.0, random_words(rng.random(), 1), 32_000);
            }
            problem.put(large);
            cases.add(&spec, &chip("v5e"), &problem);
        }
    }
    cases.check(&[]);
}

/// The same for the list, whose lanes are columns of a chunk: the large logits of one, so many to each sixteen registers.
#[test]
fn lists_that_overflow() {
    const VOCAB: usize = 40_000;
    let mut rng = StdRng::seed_from_u64(13);
    let mut cases = cases("list_overflow");
    for debug in [false, true] {
        let spec = spec(Way::Arbitrary, 8, VOCAB, Dtype::F32, debug);
        for counts in
            [[5, 0, 0, 0], [6, 0, 0, 0], [7, 0, 0, 0], [3, 3, 3, 2], [3, 3, 3, 3], [3, 4, 3, 3], [4, 6, 6, 6]]
        {
            let mut problem = problem_of(&spec, vec![RowKind::Normal; 8], &mut rng);
            let mut large = Vec::new();
            for row in 0..8 {
                let column = rng.random_range(0..128);
                let registers =
                    counts.iter().enumerate().flat_map(|(i, &n)| (0..n).map(move |j| 16 * i + 2 * j));
                for (number, register) in registers.enumerate() {
                    large.push((row, (64 + register) * 128 + column, 50.0 + number as f32));
                }
                problem.rows[row] =
                    RowParams::new(500 + row as i32, 1.0, 0.0, 3.0, random_words(rng.random(), 1), VOCAB);
            }
            problem.put(large);
            cases.add(&spec, &chip("v5e"), &problem);
        }
    }
    cases.check(&[]);
}

/// Logits that weigh 1 or 0 by a rounding, 24 octaves below the maximum. Were they passed over as too small to weigh
/// anything, the total would be another, and so would its remainder, the draw.
#[test]
fn the_least_weights() {
    const VOCAB: usize = 4099;
    const MAX: f32 = 4.0;
    let mut rng = StdRng::seed_from_u64(10);
    let mut cases = cases("least_weights");
    let variants = PATHS.into_iter().zip([true, false, true]).chain([(Way::Arbitrary, false)]);
    let programs = variants.flat_map(|(path, debug)| DTYPES.map(|dtype| spec(path, 8, VOCAB, dtype, debug)));
    for spec in thinned(programs, 5) {
        let (path, dtype) = (spec.path, spec.dtype);
        let mut problem = problem_of(&spec, vec![RowKind::Constant; 8], &mut rng);
        let mut bits = vec![dtype.round(-1000.0); 8 * VOCAB];
        for row in 0..8 {
            let distance = [8.0, 12.0, 16.0, 48.0][row % 4];
            let at_24_octaves = std::f32::consts::LOG2_E * distance / 24.0;
            let temperature = f32::from_bits(at_24_octaves.to_bits() + row as u32 - 3);
            let logits = &mut bits[row * VOCAB..][..VOCAB];
            // Few enough for the kernel's short way.
            for _ in 0..30 {
                logits[rng.random_range(1..VOCAB)] = dtype.round(MAX - distance);
            }
            logits[0] = dtype.round(MAX);
            let k = if path == Way::Arbitrary && row % 2 == 0 { 0 } else { 50 };
            let p = 1.0 - 1.0 / 16_777_216.0;
            problem.rows[row] = RowParams::new(k, p, 0.0, temperature, random_words(rng.random(), 1), VOCAB);
        }
        problem.set_bits(bits);
        cases.add(&spec, &chip("v5e"), &problem);
    }
    cases.check(&[]);
}

#[test]
fn ties_that_all_stay() {
    let mut rng = StdRng::seed_from_u64(6);
    let mut cases = cases("unstable");
    let programs = [(50, true), (4099, true), (32_000, false)]
        .into_iter()
        .flat_map(|(vocab, debug)| DTYPES.map(|dtype| spec(Way::Arbitrary, 16, vocab, dtype, debug)));
    for program in thinned(programs, 4) {
        let spec = Spec { stable: false, ..program };
        let kinds = [RowKind::Tied, RowKind::Constant, RowKind::Normal, RowKind::NegativeZero];
        let kinds = kinds.into_iter().cycle().take(16).collect();
        cases.add(&spec, &chip("v5e"), &problem_of(&spec, kinds, &mut rng));
    }
    cases.check(&[]);
}

#[test]
fn other_values_for_what_is_masked() {
    let mut rng = StdRng::seed_from_u64(7);
    let mut cases = cases("replaced");
    for path in [Way::Bounded(64), Way::Arbitrary] {
        for dtype in DTYPES {
            for replace_val in [f32::NEG_INFINITY, 0.0, -1.0e38, 1e-40] {
                let spec = spec(path, 8, 1000, dtype, true);
                let mut problem = problem_of(&spec, kinds_from(0, 8), &mut rng);
                problem.options.replace_val = replace_val;
                cases.add(&spec, &chip("v5e"), &problem);
            }
        }
    }
    cases.check(&[]);
}

/// Both paths on every kind of row, with options of the interpreter: what hardware may do otherwise.
fn otherwise(name: &str, options: &[&str], with_nan: bool, batch: usize) {
    let kinds: Vec<RowKind> = ROW_KINDS
        .into_iter()
        .filter(|kind| with_nan || !matches!(kind, RowKind::SomeNan | RowKind::AllNan))
        .collect();
    let mut rng = StdRng::seed_from_u64(8);
    let mut cases = cases(name);
    let programs = [Way::Bounded(64), Way::Arbitrary]
        .into_iter()
        .flat_map(|path| [Dtype::Bf16, Dtype::F32].map(|dtype| spec(path, batch, 4099, dtype, true)));
    for spec in thinned(programs, 3) {
        // Two rounds: the kinds do not fill one batch of eight.
        for start in (0..kinds.len()).step_by(batch) {
            let some = (start..start + batch).map(|i| kinds[i % kinds.len()]).collect();
            cases.add(&spec, &chip("v5e"), &problem_of(&spec, some, &mut rng));
        }
    }
    cases.check(options);
}

#[test]
fn subnormals_flushed() {
    otherwise("flush", &["--flush"], true, 8);
}

/// Rows with a NaN are left out: where a maximum hides NaNs their status cannot be right, nor always their token. A TPU
/// shows whether it does (docs/hardware-checklist.md).
#[test]
fn maxima_that_hide_nans() {
    otherwise("nan_max", &["--nan-max=ignore"], false, 8);
}

/// What nobody has written passes comparisons, too: the end of a list, the rows and columns that fill a block.
#[test]
fn memory_that_holds_large_numbers() {
    otherwise("garbage", &["--garbage=large"], true, 8);
    let mut rng = StdRng::seed_from_u64(10);
    let mut cases = cases("garbage_lists");
    for dtype in [Dtype::Bf16, Dtype::F32] {
        // Five chunks: they fill no whole number of the list's passes.
        let spec = spec(Way::Arbitrary, 8, 40_000, dtype, false);
        cases.add(&spec, &chip("v5e"), &some_hundredths(&spec, vec![RowKind::Normal; 8], &mut rng));
    }
    cases.check(&["--garbage=large"]);
}

#[test]
fn copies_that_are_done_at_once() {
    otherwise("eager", &["--dma=eager"], true, 16);
}

#[test]
fn blocks_in_the_other_order() {
    otherwise("reverse", &["--reverse-parallel"], true, 16);
}

/// A comparison that cannot fail would show nothing.
#[test]
fn one_wrong_bit_is_found() {
    let mut rng = StdRng::seed_from_u64(9);
    let mut cases = cases("wrong");
    let spec = spec(Way::Bounded(64), 8, 1000, Dtype::F32, false);
    for _ in 0..2 {
        cases.add(&spec, &chip("v5e"), &problem_of(&spec, kinds_from(0, 8), &mut rng));
    }
    assert_eq!(cases.run(&[]).unwrap().cases, 2);
    cases.spoil(1);
    let said = cases.run(&[]).unwrap_err();
    assert!(said.contains("1 mismatches") && said.contains("output 0 at [0, 0]"), "{said}");
    assert!(said.contains("1 of 2 cases pass"), "{said}");
}

/// What is compiled for a chip does not depend on which other is asked about, and names no sizes that it must not.
#[test]
fn programs_depend_on_the_layout_alone() {
    for path in PATHS {
        let spec = spec(path, 8, 1000, Dtype::Bf16, true);
        let text = |name| tpu::emit(&spec, &chip(name));
        assert_eq!(text("v5e"), text("v6e"));
        assert_eq!(
            text("v5e"),
            tpu::emit(&spec, &Chip { clock_hz: 1, hbm_bytes_per_second: 1, ..chip("v5e") })
        );
    }
}
