//! Tests of the TPU kernels without a TPU. The interpreter in `tests/interpreter` runs the program that libtpu
//! would receive. Every output array must be bit-identical to that of the built-in backend.
//!
//! The cases represent the full grid of `tests/tpu/grid.rs`. They take a few minutes.

use std::path::PathBuf;

use crate::common::tpu::{chip, kinds_from, layouts, problem_of, some_hundredths, spec, Cases};
use crate::common::*;
use nucleus::dtype::Dtype;
use nucleus::kernels::{tpu, Chip, Path as Way, Spec};
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use nucleus::semantics::sizes::WEIGHT_BITS;
use rand::prelude::*;

const PATHS: [Way; 3] = [Way::Bounded(64), Way::Bounded(128), Way::Arbitrary];
const DTYPES: [Dtype; 3] = [Dtype::Bf16, Dtype::F32, Dtype::F16];

fn cases(name: &str) -> Cases {
    Cases::new(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tpu").join(name))
}

/// Batches of rows of one kind. All rows take the same path through the kernel.
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
                // Together, the vocabularies cover every combination of type, path and plain or debug call.
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

/// A call of 13 rows. Like the library, the test fills the bucket of 16 rows with copies of the last real row.
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

/// Every memory layout of the kernel: one or two buffers, with and without stored weights, short and long cells, and
/// streamed rows. The size of vector memory determines the layout.
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

/// Large logits that are all gathered into one lane of the survivors. In some cases they fit the lane. In other cases
/// there are too many of them, in several of the short stacks. If a lane cannot hold all of them, the kernel must
/// sample the block by passes.
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
                        // The lane of an entry follows from its column and the rotation of its cell.
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

/// Large logits that are all in one lane of the candidate list. A lane of the list is a column of a chunk. `counts`
/// contains the number of large logits in each group of sixteen registers.
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

/// Functions for a decode step of the caller. They compute the random words in the program.
#[test]
fn embedded_functions() {
    let mut rng = StdRng::seed_from_u64(21);
    let mut cases = cases("embedded");
    for (path, dtype, debug) in [
        (Way::Bounded(64), Dtype::Bf16, false),
        (Way::Arbitrary, Dtype::F32, false),
        (Way::Bounded(64), Dtype::F32, true),
    ] {
        let spec = spec(path, 10, 4099, dtype, debug);
        let mut problem = problem_of(&spec, kinds_from(0, 10), &mut rng);
        let seeds: Vec<u64> = (0..10).map(|_| rng.random()).collect();
        cases.add_embedded(&spec, &chip("v5e"), &mut problem, &seeds, 3);
    }
    cases.check(&[]);
}

/// Logits at the distance where weights become 0. Their weight is 1 or 0, depending on rounding. If a kernel ignored a
/// logit of weight 1, the total and the remainder of the draw would be different.
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
            let at_the_limit = std::f32::consts::LOG2_E * distance / (WEIGHT_BITS + 1) as f32;
            let temperature = f32::from_bits(at_the_limit.to_bits() + row as u32 - 3);
            let logits = &mut bits[row * VOCAB..][..VOCAB];
            // These logits are few enough to be sampled from survivors.
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

/// `stable = 0`: top-k keeps every tie.
#[test]
fn ties_that_are_all_kept() {
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
fn replace_values() {
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

/// Tests both paths on every kind of row. The options of the interpreter select behaviour that may differ between
/// hardware.
fn with_options(name: &str, options: &[&str], with_nan: bool, batch: usize) {
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
        // One batch does not contain all kinds, so there are several batches.
        for start in (0..kinds.len()).step_by(batch) {
            let some = (start..start + batch).map(|i| kinds[i % kinds.len()]).collect();
            cases.add(&spec, &chip("v5e"), &problem_of(&spec, some, &mut rng));
        }
    }
    cases.check(options);
}

/// More slots than a row has elements.
#[test]
fn slots_beyond_the_vocabulary() {
    let mut rng = StdRng::seed_from_u64(14);
    let mut cases = cases("slots");
    for (dtype, debug) in [(Dtype::F32, true), (Dtype::Bf16, true), (Dtype::Bf16, false)] {
        let spec = spec(Way::Bounded(200), 8, 100, dtype, debug);
        assert!(tpu::supports(&spec));
        for start in [0, 8, 9] {
            cases.add(&spec, &chip("v5e"), &problem_of(&spec, kinds_from(start, 8), &mut rng));
        }
    }
    cases.check(&[]);
}

#[test]
fn subnormals_flushed() {
    with_options("flush", &["--flush"], true, 8);
}

/// The cases exclude rows that contain a NaN. If a maximum hides NaNs, their status is wrong, and their token may be
/// wrong. A check on hardware verifies that maxima do not hide NaNs (docs/hardware-checklist.md).
#[test]
fn maxima_that_hide_nans() {
    with_options("nan_max", &["--nan-max=ignore"], false, 8);
}

/// Uninitialized memory contains large numbers. It includes the memory after the end of a list, and the rows and
/// columns that pad a block.
#[test]
fn memory_that_holds_large_numbers() {
    with_options("garbage", &["--garbage=large"], true, 8);
    let mut rng = StdRng::seed_from_u64(10);
    let mut cases = cases("garbage_lists");
    for dtype in [Dtype::Bf16, Dtype::F32] {
        // Five chunks are not a multiple of the chunks per iteration over the candidate list.
        let spec = spec(Way::Arbitrary, 8, 40_000, dtype, false);
        cases.add(&spec, &chip("v5e"), &some_hundredths(&spec, vec![RowKind::Normal; 8], &mut rng));
    }
    cases.check(&["--garbage=large"]);
}

#[test]
fn copies_that_finish_at_once() {
    with_options("eager", &["--dma=eager"], true, 16);
}

#[test]
fn blocks_in_the_other_order() {
    with_options("reverse", &["--reverse-parallel"], true, 16);
}

/// The comparison must detect a changed bit.
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

/// The text depends only on the layout, not on other properties of a chip.
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
