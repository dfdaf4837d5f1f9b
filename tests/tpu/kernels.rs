//! Tests of the TPU kernels without a TPU. The interpreter in `tests/interpreter` runs the program that libtpu would
//! receive. Every output array must be bit-identical to that of the built-in backend.
//!
//! The cases represent the full grid of `tests/tpu/grid.rs`. They take a few minutes.

use std::path::PathBuf;

use crate::common::kernel_cases::Suite;
use crate::common::tpu::{chip, kinds_from, layouts, problem_of, some_hundredths, spec, Cases};
use crate::common::*;
use nucleus::dtype::Dtype;
use nucleus::kernels::{tpu, Chip, Path as Way};
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use rand::prelude::*;

/// The cases that all devices with kernels share.
fn suite() -> Suite<Chip> {
    Suite {
        directory: directory(),
        devices: ["v5e", "tpu7x", "v4", "v6e"].map(chip).to_vec(),
        options: &[&[]],
        vocab: 4099,
        long: &[32_000, 128_256],
        thin: 1,
    }
}

crate::kernel_tests!(suite());

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tpu")
}

fn cases(name: &str) -> Cases {
    Cases::new(directory().join(name))
}

/// Every memory layout of the kernel: one or two buffers, with and without stored weights, short and long cells, and
/// streamed rows. The size of vector memory determines the layout.
#[test]
fn layouts_of_every_size_of_memory() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut cases = cases("layouts");
    let mut start = 0;
    // The bounded kernel stores no cells. So it has no separate layouts for short and for long cells.
    for (path, dtype, least) in [(Way::Arbitrary, Dtype::F32, 6), (Way::Bounded(128), Dtype::Bf16, 4)] {
        let spec = spec(path, 16, 60_000, dtype, true);
        let chips = layouts(&spec);
        assert!(chips.len() >= least, "{}: {} layouts", spec.name(), chips.len());
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

/// Large logits that the kernel gathers into one lane of the survivors, or into two lanes. The distance between the two
/// lanes is half of the lanes. In some cases all large logits fit. In the other cases there are too many of them, so
/// the kernel must sample the block by passes.
#[test]
fn lanes_that_overflow() {
    const VOCAB: usize = 64_000;
    const GROUP: usize = 32;
    let mut rng = StdRng::seed_from_u64(6);
    let mut cases = cases("overflow");
    for (path, debug) in [(Way::Bounded(64), true), (Way::Bounded(128), false), (Way::Arbitrary, false)] {
        let spec = spec(path, 8, VOCAB, Dtype::F32, debug);
        for counts in [[5, 0], [8, 0], [9, 0], [5, 5], [6, 4], [6, 5], [12, 8]] {
            let mut problem = problem_of(&spec, vec![RowKind::Normal; 8], &mut rng);
            let mut large = Vec::new();
            let all: usize = counts.iter().sum();
            for row in 0..8 {
                for (part, &count) in counts.iter().enumerate() {
                    for group in 0..count {
                        // Gathering rotates an entry by the number of its group, so its lane is its column plus this
                        // number.
                        let column = (128 + 64 * part + row - group) % 128;
                        let register = group * GROUP + 3 * part;
                        large.push((row, register * 128 + column, 50.0 + group as f32));
                    }
                }
                let k = all as i32 + row as i32 - 3;
                problem.rows[row] =
                    RowParams::new(k.max(1), 1.0, 0.0, 3.0, random_words(rng.random(), 1), VOCAB);
            }
            problem.put(large);
            cases.add(&spec, &chip("v5e"), &problem);
        }
    }
    cases.check(&[]);
}

/// Many groups have two large logits. The longer rows have two batches of groups, and the second batch is short. The
/// indices of the two logits of a group differ by 256. So they are in one group both with and without packing.
#[test]
fn crowded_groups_in_many_batches() {
    const BATCH: usize = 32 * 8 * 128;
    let mut rng = StdRng::seed_from_u64(16);
    let mut cases = cases("crowded");
    let programs =
        [(280_000, Dtype::F32, "v5e"), (280_000, Dtype::Bf16, "v6e"), (70_000, Dtype::Bf16, "v6e")];
    for (vocab, dtype, generation) in programs {
        let spec = spec(Way::Bounded(64), 8, vocab, dtype, false);
        let mut problem = problem_of(&spec, vec![RowKind::Normal; 8], &mut rng);
        let mut large = Vec::new();
        for row in 0..8 {
            let first = 2051 * row;
            for (number, first) in (first..vocab - 256).step_by(BATCH).enumerate() {
                large.extend([(row, first, 40.0 + number as f32), (row, first + 256, 50.0 + number as f32)]);
            }
            let k = 15 + row as i32;
            problem.rows[row] = RowParams::new(k, 1.0, 0.0, 10.0, random_words(rng.random(), 1), vocab);
        }
        problem.put(large);
        cases.add(&spec, &chip(generation), &problem);
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
            [[7, 0, 0, 0], [5, 3, 0, 0], [5, 4, 0, 0], [3, 3, 3, 2], [3, 3, 3, 3], [3, 4, 3, 3], [4, 6, 6, 6]]
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

#[test]
fn subnormals_flushed() {
    suite().with_options("flush", &["--flush"], true, 8);
}

/// The cases exclude rows that contain a NaN. If a maximum hides NaNs, their status is wrong, and their token may be
/// wrong. A check on hardware verifies that maxima do not hide NaNs (docs/hardware-checklist.md).
#[test]
fn maxima_that_hide_nans() {
    suite().with_options("nan_max", &["--nan-max=ignore"], false, 8);
}

/// Uninitialized memory contains large numbers. It includes the memory after the end of a list, and the rows and
/// columns that pad a block.
#[test]
fn memory_that_holds_large_numbers() {
    suite().with_options("garbage", &["--garbage=large"], true, 8);
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
    suite().with_options("eager", &["--dma=eager"], true, 16);
}

/// A device with two cores. Each core processes half of the blocks, and the interpreter runs the cores in both orders.
/// Batches of 40 rows have five blocks, so one block of padding is added. The test runs every third program. The paths
/// alternate in the list of programs, so this selection contains both paths.
#[test]
fn two_cores() {
    let mut rng = StdRng::seed_from_u64(15);
    for (number, options) in [&[][..], &["--reverse-parallel"]].into_iter().enumerate() {
        let mut cases = cases(&format!("two_cores_{number}"));
        let programs = [(16, 4099), (40, 1000), (64, 10_000)].into_iter().flat_map(|(batch, vocab)| {
            [(Way::Bounded(64), Dtype::Bf16, false), (Way::Arbitrary, Dtype::F32, true)]
                .map(|(path, dtype, debug)| spec(path, batch, vocab, dtype, debug))
        });
        for spec in thinned(programs, 3) {
            let text = tpu::kernel_text(&spec, &chip("v5p"));
            assert!(text.contains("dimension_semantics<parallel>"), "libtpu does not split {}", spec.name());
            cases.add(&spec, &chip("v5p"), &problem_of(&spec, kinds_from(number, spec.batch), &mut rng));
        }
        cases.check(options);
    }
    // Each core processes several blocks, in different memory layouts.
    let spec = spec(Way::Bounded(64), 32, 60_000, Dtype::Bf16, false);
    let mut cases = cases("two_cores_layouts");
    for one in thinned(layouts(&spec), 4) {
        let chip = Chip { tensor_cores: 2, ..one };
        cases.add(&spec, &chip, &problem_of(&spec, kinds_from(0, 32), &mut rng));
    }
    cases.check(&[]);
}

/// The text depends only on the layout, not on other properties of a chip.
#[test]
fn programs_depend_on_the_layout_alone() {
    for path in [Way::Bounded(64), Way::Bounded(128), Way::Arbitrary] {
        let spec = spec(path, 8, 1000, Dtype::Bf16, true);
        let text = |name| tpu::emit(&spec, &chip(name));
        assert_eq!(text("v5e"), text("v6e"));
        assert_eq!(
            text("v5e"),
            tpu::emit(&spec, &Chip { clock_hz: 1, hbm_bytes_per_second: 1, ..chip("v5e") })
        );
    }
}
