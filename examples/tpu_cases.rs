//! Writes the cases for `scripts/tpu_table.py`, which counts their cycles. The interpreter in `tests/interpreter` reads
//! the directory of the cases. The notes of each case name its cells in the table.
//!
//! ```text
//! cargo run --example tpu_cases -- DIRECTORY [WORD ...]
//! ```
//!
//! The words select the cases that the program writes. There are four kinds of words: a number of rows, the name of a
//! generation, a type, and the title of a column. If the command has words of a kind, a case must match one of the
//! words of this kind. Without words, the program writes all cases.

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

/// For each column of the tables: its title, the path, k, p, and the kind of rows.
const COLUMNS: [(&str, Way, i32, f32, RowKind); 8] = [
    ("bounded random", Way::Bounded(MAX_K), MAX_K as i32, 0.95, RowKind::Normal),
    ("bounded worst", Way::Bounded(MAX_K), MAX_K as i32, 0.95, RowKind::SourceWorstCase),
    ("arbitrary k=5000", Way::Arbitrary, 5000, 0.95, RowKind::Normal),
    ("top-p random", Way::Arbitrary, 0, 0.95, RowKind::Normal),
    ("top-p peaked", Way::Arbitrary, 0, 0.95, RowKind::Peaked),
    ("plain draw", Way::Arbitrary, 0, 1.0, RowKind::Normal),
    ("model p=.95", Way::Arbitrary, 0, 0.95, RowKind::Model),
    ("model p=.99", Way::Arbitrary, 0, 0.99, RowKind::Model),
];

/// The generation, the number of rows and the type of each row of the tables.
fn lines() -> Vec<(&'static str, usize, Dtype)> {
    let mut lines = Vec::new();
    for name in ["v5e", "v6e", "tpu7x"] {
        for batch in [1, 2, 4, 8, 16, 128] {
            lines.extend([(name, batch, Dtype::F32), (name, batch, Dtype::Bf16)]);
        }
    }
    // The devices of v5p have two cores.
    lines.extend(
        [8, 16].into_iter().flat_map(|batch| [("v5p", batch, Dtype::F32), ("v5p", batch, Dtype::Bf16)]),
    );
    lines
}

fn name_of(dtype: Dtype) -> String {
    format!("{dtype:?}").to_lowercase()
}

/// The words that select cases. `properties` selects lines of the tables, and `titles` selects columns.
struct Words {
    properties: Vec<String>,
    titles: Vec<String>,
}

impl Words {
    fn of(words: impl Iterator<Item = String>) -> Words {
        let (titles, properties): (Vec<String>, Vec<String>) =
            words.partition(|word| COLUMNS.iter().any(|column| column.0 == word));
        let known: Vec<String> = lines().into_iter().flat_map(Words::properties_of).collect();
        let unknown = properties.iter().find(|&word| !known.contains(word));
        assert!(unknown.is_none(), "{unknown:?} selects no case");
        Words { properties, titles }
    }

    /// Returns the words that select a line, one of each kind: the generation, the number of rows, and the type.
    fn properties_of((name, batch, dtype): (&str, usize, Dtype)) -> [String; 3] {
        [name.to_owned(), batch.to_string(), name_of(dtype)]
    }

    fn include(&self, line: (&str, usize, Dtype)) -> bool {
        (0..3).all(|kind| {
            let mut others = lines().into_iter().map(|other| Words::properties_of(other)[kind].clone());
            self.properties.contains(&Words::properties_of(line)[kind])
                || !others.any(|other| self.properties.contains(&other))
        })
    }

    fn include_column(&self, title: &str) -> bool {
        self.titles.is_empty() || self.titles.iter().any(|word| word == title)
    }
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
    let wanted = Words::of(std::env::args().skip(2));
    for (name, batch, dtype) in lines() {
        if !wanted.include((name, batch, dtype)) {
            continue;
        }
        let chip = chip(name);
        let (_, topology) = GENERATIONS.into_iter().find(|known| known.0 == name).expect("a generation");
        for (column, (title, path, ..)) in COLUMNS.into_iter().enumerate() {
            if !wanted.include_column(title) {
                continue;
            }
            let spec = spec(path, batch, VOCAB, dtype, false);
            let line = json!({
                "column": title, "chip": name, "topology": topology, "batch": batch, "vocab": VOCAB,
                "dtype": name_of(dtype), "max_k": MAX_K,
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
        let (_, _, k, p, kind) = COLUMNS[column];
        let mut rng = StdRng::seed_from_u64(11);
        let words = |rng: &mut StdRng| random_words(rng.random(), rng.random());
        // On a device with two cores, each core processes a copy of the same rows. So both cores need the same number
        // of passes.
        let cores = tpu::cores(&spec, &chip);
        let different = spec.batch / cores;
        let rows: Vec<_> =
            (0..different).map(|_| RowParams::new(k, p, 0.0, 1.0, words(&mut rng), VOCAB)).collect();
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
