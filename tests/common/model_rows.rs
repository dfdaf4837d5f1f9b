//! Rows of logits like those of language models, for tests and benchmarks.
//!
//! Most logits are normally distributed with mean 0. The maximum is 19 to 26. Below the maximum there are sixty top
//! entries. The gaps between them are exponentially distributed with mean 0.25.

// Each program that includes this file uses only a part of it.
#![allow(dead_code, unreachable_pub)]

use rand::rngs::StdRng;
use rand::Rng;
use rand_distr::{Distribution, Exp, Normal};

/// The standard deviation of most logits.
pub const DEVIATION: f32 = 3.5;
const GAPS_PER_UNIT: f32 = 4.0;
const TOP_ENTRIES: usize = 60;

/// Returns a row with a random maximum.
pub fn model_row(vocab: usize, rng: &mut StdRng) -> Vec<f32> {
    let mut row = body(vocab, rng);
    add_top(&mut row, rng);
    row
}

/// Adds a random maximum and the top entries to normally distributed logits with mean 0 and standard deviation
/// [`DEVIATION`].
pub fn add_top(row: &mut [f32], rng: &mut StdRng) {
    let max = rng.random_range(19.0..26.0);
    set_top_entries(row, max, rng);
}

/// Returns a row with this maximum.
pub fn model_row_with_maximum(max: f32, vocab: usize, rng: &mut StdRng) -> Vec<f32> {
    let mut row = body(vocab, rng);
    set_top_entries(&mut row, max, rng);
    row
}

fn body(vocab: usize, rng: &mut StdRng) -> Vec<f32> {
    let normal = Normal::new(0.0, DEVIATION).expect("a valid deviation");
    (0..vocab).map(|_| normal.sample(rng)).collect()
}

/// Sets random elements of a row to the maximum and to the top entries.
fn set_top_entries(row: &mut [f32], max: f32, rng: &mut StdRng) {
    let gap = Exp::new(GAPS_PER_UNIT).expect("a valid rate");
    let mut top = max;
    for _ in 0..=TOP_ENTRIES {
        row[rng.random_range(0..row.len())] = top;
        top -= gap.sample(rng);
    }
}
