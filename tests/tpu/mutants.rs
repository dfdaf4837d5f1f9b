//! Mutants of the TPU kernels: each has one changed comparison, shift or constant. The interpreter makes and runs them
//! (`tests/interpreter/mutation.py`). The rows of `paths.rs` must catch each mutant, or `mutants.txt` must list it. A
//! mutant that no row catches shows that the tests lack a row, or that the change affects only the time of the kernel.
//!
//! `make test` runs a sample. `make test-mutants` runs all mutants.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::paths::{cases_of, many_ties, spec_of, MAX_K};
use crate::common::tpu::chip;
use nucleus::dtype::Dtype;
use nucleus::kernels::Path as Way;
use rand::prelude::*;

/// The kernels: the name of the directory of the cases, the path, the number of rows, the type, and whether the program
/// returns the wide arrays. Blocks of one row are fast to interpret, and other blocks have almost the same operations.
const KERNELS: [(&str, Way, usize, Dtype, bool); 2] = [
    ("mutants_bounded", Way::Bounded(MAX_K), 1, Dtype::F32, true),
    ("mutants_arbitrary", Way::Arbitrary, 1, Dtype::Bf16, false),
];
/// The number of additional rows with many ties. The rows of `paths.rs` take every branch, but few of them take several
/// branches of the passes.
const MORE_TIES: usize = 30;

/// Runs mutants of all kernels. Returns whether each is caught or listed.
fn run(arguments: &[&str]) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directories: Vec<PathBuf> = KERNELS
        .into_iter()
        .map(|(name, path, batch, dtype, debug)| {
            let mut cases = cases_of(name, path, batch, dtype, debug);
            let (spec, mut rng) = (spec_of(path, batch, dtype, debug), StdRng::seed_from_u64(16));
            for _ in 0..MORE_TIES {
                cases.add(&spec, &chip("v5e"), &many_ties(&spec, &mut rng));
            }
            let directory = cases.directory().to_owned();
            cases.finish();
            directory
        })
        .collect();
    let status = Command::new(root.join(".cache/interpreter/bin/python"))
        .args(["-m", "interpreter", "mutants", "--list"])
        .arg(root.join("tests/tpu/mutants.txt"))
        .args(arguments)
        .args(&directories)
        .env("PYTHONPATH", root.join("tests"))
        .status()
        .unwrap();
    status.success()
}

#[test]
fn a_sample() {
    assert!(run(&["--sample"]), "run `make test-mutants` and see CONTRIBUTING.md");
}

#[test]
fn all() {
    let Ok(arguments) = std::env::var("NUCLEUS_TPU_MUTANTS") else {
        println!(
            "skipped: all mutants take an hour; `make test-mutants` sets NUCLEUS_TPU_MUTANTS and runs them"
        );
        return;
    };
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    assert!(run(&arguments), "some mutants are neither caught nor listed");
}
