//! A mutant of a TPU kernel has one changed comparison, shift or constant. The interpreter makes and runs the mutants
//! (`tests/interpreter/mutation.py`). If no row catches a mutant, the tests lack a row, or the change does not affect
//! the results. The interpreter proves the second reason for some mutants. `mutants.txt` gives reasons for others. The
//! remaining survivors are listed as open: nobody has examined them.
//!
//! `make test` runs a sample of caught mutants. `make test-mutants` runs all mutants without a proof or a rule. It
//! fails if a surviving mutant is not in the list.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::paths::{cases_of, many_ties, spec_of, MAX_K};
use super::{equal_rows, limit_rows, mutant_rows};
use crate::common::tpu::chip;
use nucleus::dtype::Dtype;
use nucleus::kernels::{tpu, Column, Path as Way, Spec, COLUMNS};
use nucleus::semantics::weights::MAX_WEIGHT;
use rand::prelude::*;
use serde_json::json;

/// The kernels: a name, the path, the number of rows, the type, and whether the program returns the wide arrays. The
/// interpreter runs blocks of one row fast, and other blocks have almost the same operations.
const KERNELS: [(&str, Way, usize, Dtype, bool); 2] = [
    ("bounded", Way::Bounded(MAX_K), 1, Dtype::F32, true),
    ("arbitrary", Way::Arbitrary, 1, Dtype::Bf16, false),
];
/// The number of additional rows with many ties. The rows of `paths.rs` take every branch, but few of them take several
/// branches of the passes.
const MORE_TIES: usize = 30;
/// The mode in which all mutants are run.
const ALL: &str = "all";

/// Writes the facts with which the interpreter proves that mutants do not change results: the text of the kernel for
/// readers, which contains notes, and the ranges of the columns of the parameters.
fn write_facts(spec: &Spec, directory: &Path) {
    let mut columns = vec![None; COLUMNS];
    let known = [
        (Column::K, spec.vocab as i64 - 1),
        (Column::Greedy, 1),
        (Column::TopPMantissa, (1 << 24) - 1),
        (Column::TopPShift, 63),
        (Column::MinWeight, i64::from(MAX_WEIGHT)),
    ];
    for (column, most) in known {
        columns[column as usize] = Some([0, most]);
    }
    fs::write(directory.join("kernel.txt"), tpu::kernel_text_with_sources(spec, &chip("v5e"))).unwrap();
    fs::write(directory.join("columns.json"), json!(columns).to_string()).unwrap();
}

/// Runs mutants of all kernels. Returns true if every mutant is caught or listed. `mode` is part of the names of the
/// directories, because the tests run at the same time.
fn run(mode: &str, arguments: &[&str]) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directories: Vec<PathBuf> = KERNELS
        .into_iter()
        .map(|(name, path, batch, dtype, debug)| {
            let mut cases = cases_of(&format!("mutants_{mode}_{name}"), "v5e", path, batch, dtype, debug);
            let (spec, mut rng) = (spec_of(path, batch, dtype, debug), StdRng::seed_from_u64(16));
            for _ in 0..MORE_TIES {
                cases.add(&spec, &chip("v5e"), &many_ties(&spec, &mut rng));
            }
            // The rows of `paths.rs` catch the sample.
            if mode == ALL {
                let rows = [mutant_rows::problems, limit_rows::problems, equal_rows::problems];
                let problems: Vec<_> = rows.iter().flat_map(|rows| rows(&spec)).collect();
                let notes = json!({ "sample": false });
                problems.iter().for_each(|row| cases.add_with(&spec, &chip("v5e"), row, notes.clone()));
            }
            write_facts(&spec, cases.directory());
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
    assert!(run("sample", &["--sample"]), "run `make test-mutants` and see CONTRIBUTING.md");
}

#[test]
fn all() {
    let Ok(arguments) = std::env::var("NUCLEUS_TPU_MUTANTS") else {
        println!(
            "skipped: it takes many minutes; `make test-mutants` sets NUCLEUS_TPU_MUTANTS and runs them"
        );
        return;
    };
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    assert!(run(ALL, &arguments), "the list and the mutants that survive differ");
}
