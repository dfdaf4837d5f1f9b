//! Prints the table of distances in `docs/semantics.md`: the total variation distance between the probabilities of the
//! draw and the softmax of the logits.
//!
//! ```text
//! cargo run --release --example softmax_distance
//! ```

#[path = "../tests/common/mod.rs"]
mod common;

use common::{builtin, sample, softmax, Problem, RowKind, FULL_WIDTH};
use nucleus::dtype::Dtype;
use nucleus::plan::Entry;
use nucleus::semantics::params::RowParams;
use rand::prelude::*;

const VOCABS: [usize; 3] = [32_768, 128_256, 262_144];

fn main() {
    let sampler = builtin(1);
    println!("| logits | {} |", VOCABS.map(|vocab| format!("V = {vocab}")).join(" | "));
    println!("| --- |{}", " --- |".repeat(VOCABS.len()));
    for kind in softmax::KINDS {
        let distances = VOCABS.map(|vocab| {
            let mut rng = StdRng::seed_from_u64(1);
            let row = (kind.row)(vocab, &mut rng);
            let params = vec![RowParams::new(0, 1.0, 0.0, 1.0, [0; 4], vocab)];
            let mut problem = Problem::new(Dtype::F32, vocab, vec![RowKind::Constant], params, &mut rng);
            problem.set_bits(row.iter().map(|x| x.to_bits()).collect());
            let weights = sample(&sampler, Entry::Automatic, &problem, FULL_WIDTH).weights;
            format!("{:.1e}", softmax::distance(&row, 1.0, &weights))
        });
        println!("| {} | {} |", kind.name, distances.join(" | "));
    }
}
