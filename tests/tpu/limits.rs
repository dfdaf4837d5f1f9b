//! Programs near the limits of the library: up to 1,024 slots, and rows of up to 2²⁴ entries.

use std::path::PathBuf;

use crate::common::tpu::{chip, kinds_from, layouts, problem_of, spec, Cases};
use crate::common::*;
use nucleus::dtype::Dtype;
use nucleus::kernels::{Path as Way, Spec};
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use rand::prelude::*;

fn cases(name: &str) -> Cases {
    Cases::new(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tpu").join(name))
}

/// Returns the parameters of a row. The temperature is high, so most entries have a large weight.
fn row(spec: &Spec, k: usize, p: f32, rng: &mut StdRng) -> RowParams {
    RowParams::new(k as i32, p, 0.0, 30.0, random_words(rng.random(), rng.random()), spec.vocab)
}

/// Programs with more slots than lanes. In some programs, a row has no more entries than slots.
#[test]
fn many_slots() {
    let mut rng = StdRng::seed_from_u64(41);
    let mut cases = cases("many_slots");
    let mut programs = Vec::new();
    for (vocab, max_k) in [(4099, 1000), (40_000, 1024), (1000, 1024), (300, 129)] {
        for batch in [8, 1, 2, 16, 4, 3] {
            for (dtype, debug) in [(Dtype::F32, true), (Dtype::Bf16, true), (Dtype::F32, false)] {
                programs.push(spec(Way::Bounded(max_k), batch, vocab, dtype, debug));
            }
        }
    }
    for (number, spec) in thinned(programs, 7).into_iter().enumerate() {
        let mut problem = problem_of(&spec, kinds_from(5 * number, spec.batch), &mut rng);
        for params in problem.rows.iter_mut().step_by(2) {
            *params = row(&spec, rng.random_range(1..=spec.slots()), 0.95, &mut rng);
        }
        cases.add(&spec, &chip(["v5e", "v6e"][number % 2]), &problem);
    }
    let spec = spec(Way::Bounded(300), 8, 30_000, Dtype::F32, true);
    for chip in thinned(layouts(&spec), 7) {
        cases.add(&spec, &chip, &problem_of(&spec, kinds_from(3, 8), &mut rng));
    }
    cases.check(&[]);
}

/// The k-slices of programs with more slots than lanes. The cases take each way of sampling. In some rows, all kept
/// entries are at one end of the row, so the pass skips the other chunks.
#[test]
fn slices_of_many_slots() {
    const VOCAB: usize = 40_000;
    let mut rng = StdRng::seed_from_u64(44);
    for batch in thinned([8, 1, 4], 2) {
        let mut cases = cases(&format!("many_slices_{batch}"));
        let spec = spec(Way::Bounded(1000), batch, VOCAB, Dtype::F32, true);
        let kinds = [RowKind::Normal, RowKind::Normal, RowKind::Constant, RowKind::SomeNan];
        for (kind, ks) in kinds.into_iter().zip([1..30, 500..1000, 1..1000, 700..1000]) {
            let mut problem = problem_of(&spec, vec![kind; batch], &mut rng);
            for params in &mut problem.rows {
                *params = row(&spec, rng.random_range(ks.clone()), 0.95, &mut rng);
            }
            cases.add(&spec, &chip("v5e"), &problem);
        }
        for first in [0, VOCAB - 1000] {
            let mut problem = problem_of(&spec, vec![RowKind::Normal; batch], &mut rng);
            problem.put(
                (0..batch).flat_map(|row| (first..first + 1000).map(move |i| (row, i, 40.0 + row as f32))),
            );
            for params in &mut problem.rows {
                *params = row(&spec, rng.random_range(900..=1000), 1.0, &mut rng);
            }
            cases.add(&spec, &chip("v5e"), &problem);
        }
        cases.run(&[]).unwrap_or_else(|said| panic!("{said}"));
        let ways = ["decided", "chunks of the k-slices / a chunk can have kept entries"]
            .into_iter()
            .flat_map(|branch| [format!("{branch}: then"), format!("{branch}: else")]);
        let list = ["decided / over the candidate list: then", "decided / over the candidate list: else"];
        for way in ways.chain(list.map(str::to_owned)) {
            assert!(cases.took(&way), "no case took {way:?}");
        }
    }
}

/// A row has more chunks than a register has lanes, so it needs several stripes. So a block has fewer than eight rows,
/// and the batch has several blocks. The last block has padding rows.
#[test]
fn several_blocks_of_stripes() {
    const VOCAB: usize = (1 << 20) + 5000;
    let mut rng = StdRng::seed_from_u64(42);
    let mut cases = cases("blocks_of_stripes");
    for (path, generation) in thinned([(Way::Bounded(1000), "v6e"), (Way::Arbitrary, "v5p")], 2) {
        let spec = spec(path, 5, VOCAB, Dtype::Bf16, true);
        cases.add(&spec, &chip(generation), &problem_of(&spec, kinds_from(0, 5), &mut rng));
    }
    cases.check(&[]);
}

/// The rows need three blocks of four rows. Two cores process the blocks, so the program adds a block that contains
/// only padding rows.
#[test]
fn a_padding_block_of_stripes() {
    const VOCAB: usize = (1 << 20) + 5000;
    let mut rng = StdRng::seed_from_u64(46);
    let mut cases = cases("padding_block_of_stripes");
    let spec = spec(Way::Bounded(64), 9, VOCAB, Dtype::Bf16, false);
    assert_eq!(chip("v5p").tensor_cores, 2);
    let mut problem = problem_of(&spec, vec![RowKind::Normal; 9], &mut rng);
    problem.rows = Problem::random_rows(9, VOCAB, Some(64), &mut rng);
    cases.add(&spec, &chip("v5p"), &problem);
    cases.check_all(&[&[], &["--reverse-parallel"]], |_| ());
}

/// Top-p alone on rows with more than 2²⁰ entries, in which few entries have most of the weight. The bounds of the
/// total have a larger error than in shorter rows, and decide the threshold.
#[test]
fn peaked_rows_of_many_entries() {
    const VOCAB: usize = (1 << 20) + 5000;
    let mut rng = StdRng::seed_from_u64(47);
    let largest = "the largest entries may suffice / few cells reach the threshold / survivors suffice";
    for (batch, generation, dtype) in [(1, "v5e", Dtype::F32), (4, "v6e", Dtype::Bf16)] {
        let mut cases = cases(&format!("peaked_rows_of_many_entries_{batch}"));
        let spec = spec(Way::Arbitrary, batch, VOCAB, dtype, false);
        let mut problem = problem_of(&spec, vec![RowKind::Normal; batch], &mut rng);
        let peaks = |row| (0..20).map(move |i| (row, 50_021 * i + 7 * row, 24.0 - i as f32 / 4.0));
        problem.put((0..batch).flat_map(peaks));
        for params in &mut problem.rows {
            *params = RowParams::new(0, 0.95, 0.0, 1.0, random_words(rng.random(), 1), VOCAB);
        }
        cases.add(&spec, &chip(generation), &problem);
        cases.run(&[]).unwrap_or_else(|said| panic!("{said}"));
        assert!(cases.took(&format!("{largest} / some entries with a weight are no survivors: then")));
        assert!(cases.took("decided: then") && !cases.took("decided: else"));
    }
}

/// Rows with so many chunks that two chunks share one sum. The total of the constant row is 2⁵². This is the largest
/// total of any row.
#[test]
fn longest_rows() {
    const LONGEST: usize = 1 << 24;
    let mut rng = StdRng::seed_from_u64(43);
    let mut cases = cases("longest_rows");
    let (any, some) = (Way::Arbitrary, Way::Bounded(64));
    let programs = [
        ("v5e", any, LONGEST, Dtype::Bf16, vec![RowKind::Constant], 0, 0.95),
        ("v4", any, LONGEST, Dtype::Bf16, vec![RowKind::Normal], 0, 1.0),
        // The number of chunks is odd, and the layout rounds it up to an even number. The second row is greedy.
        ("v5e", any, (1 << 23) + 9000, Dtype::F32, vec![RowKind::Tied; 2], 100_000, 0.9),
        ("tpu7x", any, LONGEST, Dtype::F32, vec![RowKind::Normal], 3000, 0.95),
        ("v6e", some, LONGEST, Dtype::Bf16, vec![RowKind::Normal], 50, 0.95),
    ];
    for (generation, path, vocab, dtype, kinds, k, p) in thinned(programs, 3) {
        let spec = spec(path, kinds.len(), vocab, dtype, false);
        let mut problem = problem_of(&spec, kinds, &mut rng);
        for (number, params) in problem.rows.iter_mut().enumerate() {
            *params = row(&spec, k, p, &mut rng);
            if number == 1 {
                *params = RowParams::new(k as i32, p, 0.0, 0.0, params.words, vocab);
            }
        }
        cases.add(&spec, &chip(generation), &problem);
    }
    cases.check(&[]);
}

/// Rows with many kept ties of a large weight and few larger logits. The larger logits do not reach the target of
/// top-p. The missing sum is larger than the sum of all entries that a lane stack can contain.
#[test]
fn many_ties_of_a_large_weight() {
    const VOCAB: usize = 262_144;
    const LARGER: usize = 100;
    let mut rng = StdRng::seed_from_u64(45);
    let mut cases = cases("many_ties_of_a_large_weight");
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let spec = spec(Way::Arbitrary, 8, VOCAB, dtype, false);
        let mut problem = problem_of(&spec, vec![RowKind::Constant; 8], &mut rng);
        let mut logits = vec![0.0; 8 * VOCAB];
        for (row, params) in problem.rows.iter_mut().enumerate() {
            for (number, index) in rand::seq::index::sample(&mut rng, VOCAB, LARGER).into_iter().enumerate() {
                logits[row * VOCAB + index] = (number + 1) as f32 / 1024.0;
            }
            let p = (row + 2) as f32 / 10.0;
            let words = random_words(rng.random(), 1);
            *params = RowParams::new(200_000, p, 0.0, 1.0, words, VOCAB);
        }
        problem.set_bits(logits.into_iter().map(|x| spec.dtype.round(x)).collect());
        cases.add(&spec, &chip("v5e"), &problem);
    }
    cases.check(&[]);
}
