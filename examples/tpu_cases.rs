//! Writes the cases for `scripts/tpu_table.py`, which counts their cycles. The interpreter in `tests/interpreter` reads
//! the directory of the cases. The notes of each case name its cells in the table.
//!
//! ```text
//! cargo run --example tpu_cases -- DIRECTORY [BATCH ...]
//! ```
//!
//! If numbers of rows are given, only their cases are written.

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::PathBuf;

use common::tpu::{chip, spec, Cases, GENERATIONS};
use common::{Problem, RowKind};
use nucleus::dtype::Dtype;
use nucleus::kernels::{tpu, Chip, Path as Way, Spec};
use nucleus::semantics::params::RowParams;
use nucleus::semantics::philox::random_words;
use rand::prelude::*;
use serde_json::json;

const VOCAB: usize = 262_144;
const MAX_K: usize = 64;
const P: f32 = 0.95;

/// The name of the column, the path, k, and the kind of rows.
const COLUMNS: [(&str, Way, i32, RowKind); 5] = [
    ("bounded random", Way::Bounded(MAX_K), MAX_K as i32, RowKind::Normal),
    ("bounded worst", Way::Bounded(MAX_K), MAX_K as i32, RowKind::SourceWorstCase),
    ("arbitrary k=5000", Way::Arbitrary, 5000, RowKind::Normal),
    ("top-p random", Way::Arbitrary, 0, RowKind::Normal),
    ("top-p peaked", Way::Arbitrary, 0, RowKind::Peaked),
];

/// The generation, the number of rows and the type of each row of the tables.
fn lines() -> Vec<(&'static str, usize, Dtype)> {
    let mut lines = Vec::new();
    for name in ["v5e", "v6e", "tpu7x"] {
        for batch in [1, 2, 4, 8, 16, 128] {
            lines.extend([(name, batch, Dtype::F32), (name, batch, Dtype::Bf16)]);
        }
    }
    // A device with two cores.
    lines.extend(
        [8, 16].into_iter().flat_map(|batch| [("v5p", batch, Dtype::F32), ("v5p", batch, Dtype::Bf16)]),
    );
    lines
}

/// A program, its input, and the rows of the table that show it.
struct Case {
    text: String,
    spec: Spec,
    chip: Chip,
    column: usize,
    lines: Vec<serde_json::Value>,
}

fn main() {
    let directory = PathBuf::from(std::env::args().nth(1).expect("usage: tpu_cases DIRECTORY"));
    let mut list: Vec<Case> = Vec::new();
    let batches: Vec<usize> =
        std::env::args().skip(2).map(|batch| batch.parse().expect("a number of rows")).collect();
    for (name, batch, dtype) in lines() {
        if !batches.is_empty() && !batches.contains(&batch) {
            continue;
        }
        let chip = chip(name);
        let (_, topology) = GENERATIONS.into_iter().find(|known| known.0 == name).expect("a generation");
        for (column, (title, path, ..)) in COLUMNS.into_iter().enumerate() {
            let spec = spec(path, batch, VOCAB, dtype, false);
            let line = json!({
                "column": title, "chip": name, "topology": topology, "batch": batch, "vocab": VOCAB,
                "dtype": format!("{dtype:?}").to_lowercase(), "max_k": MAX_K,
                "path": if path == Way::Arbitrary { "arbitrary" } else { "bounded" },
                "hbm_bytes": batch * VOCAB * dtype.size(),
                "hbm_bytes_per_second": chip.hbm_bytes_per_second, "clock_hz": chip.clock_hz,
            });
            let text = tpu::emit(&spec, &chip);
            // If generations have the same text, their kernels run the same number of iterations.
            match list.iter_mut().find(|case| case.text == text && case.column == column) {
                Some(case) => case.lines.push(line),
                None => list.push(Case { text, spec, chip, column, lines: vec![line] }),
            }
        }
    }
    let mut cases = Cases::new(directory);
    list.sort_by_key(|case| case.spec.name());
    for Case { spec, chip, column, lines, .. } in list {
        let (.., k, kind) = COLUMNS[column];
        let mut rng = StdRng::seed_from_u64(11);
        let words = |rng: &mut StdRng| random_words(rng.random(), rng.random());
        // On a device with two cores, both cores process equal rows, so that they need equal numbers of passes.
        let cores = tpu::cores(&spec, &chip);
        let different = spec.batch / cores;
        let rows: Vec<_> =
            (0..different).map(|_| RowParams::new(k, P, 0.0, 1.0, words(&mut rng), VOCAB)).collect();
        let mut problem = Problem::new(spec.dtype, VOCAB, vec![kind; different], rows.clone(), &mut rng);
        if cores > 1 {
            let bits = problem.bits.repeat(cores);
            problem = Problem::new(spec.dtype, VOCAB, vec![kind; spec.batch], rows.repeat(cores), &mut rng);
            problem.set_bits(bits);
        }
        cases.add_with(&spec, &chip, &problem, json!(lines));
    }
    println!("tpu_cases: {} cases", cases.finish());
}
