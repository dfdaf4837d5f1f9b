//! Batches of one, two and four rows. Each row has several stripes (`kernels/tpu/layout.rs`).

use std::path::PathBuf;

use crate::common::tpu::{chip, problem_of, spec, Cases};
use crate::common::*;
use nucleus::dtype::Dtype;
use nucleus::kernels::{Path as Way, Spec};
use rand::prelude::*;

/// Batches of three rows have a block of four rows with one row of padding.
const BATCHES: [usize; 4] = [1, 2, 4, 3];
const PATHS: [Way; 3] = [Way::Bounded(64), Way::Arbitrary, Way::Bounded(128)];
const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];

fn cases(name: &str) -> Cases {
    Cases::new(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tpu").join(name))
}

fn programs(vocab: usize) -> impl Iterator<Item = Spec> {
    BATCHES.into_iter().flat_map(move |batch| {
        PATHS.into_iter().flat_map(move |path| {
            DTYPES.into_iter().flat_map(move |dtype| {
                [true, false].map(|debug| spec(path, batch, vocab, dtype, debug))
            })
        })
    })
}

/// Adds batches with every kind of row. The kinds of a batch are consecutive.
fn add_all_kinds(cases: &mut Cases, spec: &Spec, rng: &mut StdRng) {
    for start in (0..ROW_KINDS.len()).step_by(spec.batch) {
        let kinds = (start..start + spec.batch).map(|i| ROW_KINDS[i % ROW_KINDS.len()]).collect();
        cases.add(spec, &chip("v5e"), &problem_of(spec, kinds, rng));
    }
}

/// Every kind of row. The stripes have one chunk, and the last stripes are padding.
#[test]
fn every_kind_of_row() {
    let mut rng = StdRng::seed_from_u64(31);
    let mut cases = cases("small_kinds");
    for spec in thinned(programs(4099), 7) {
        add_all_kinds(&mut cases, &spec, &mut rng);
    }
    cases.check(&[]);
}
