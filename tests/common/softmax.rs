//! Rows of logits, and the distance between the softmax of a row and the weights that the library draws from.
//!
//! `examples/softmax_distance.rs` prints the table in `docs/semantics.md`. `tests/library/softmax.rs` checks its
//! limits.

use rand::prelude::*;
use rand_distr::Normal;

use super::model_rows::model_row;

/// A kind of row: its name in the table, its generator, and the largest distance that the tests allow.
pub struct Kind {
    pub name: &'static str,
    pub row: fn(usize, &mut StdRng) -> Vec<f32>,
    pub limit: f64,
}

/// The kinds of rows in the table.
pub const KINDS: [Kind; 6] = [
    Kind { name: "normal, standard deviation 3", row: normal, limit: 1e-5 },
    Kind { name: "one logit at 16, all others 0", row: one_at_16, limit: 1.5e-4 },
    Kind { name: "Zipf: the logit of rank r is −ln r", row: zipf, limit: 1e-5 },
    Kind { name: "as a model makes it", row: model_row, limit: 1e-5 },
    Kind { name: "peaked: 0.5 less per rank", row: peaked, limit: 1e-5 },
    Kind { name: "uniform between 0 and 30", row: uniform, limit: 1e-5 },
];

fn normal(vocab: usize, rng: &mut StdRng) -> Vec<f32> {
    let normal = Normal::new(0.0_f32, 3.0).unwrap();
    (0..vocab).map(|_| normal.sample(rng)).collect()
}

fn one_at_16(vocab: usize, rng: &mut StdRng) -> Vec<f32> {
    let mut row = vec![0.0; vocab];
    row[rng.random_range(0..vocab)] = 16.0;
    row
}

fn zipf(vocab: usize, rng: &mut StdRng) -> Vec<f32> {
    let mut row: Vec<f32> = (1..=vocab).map(|rank| -(rank as f32).ln()).collect();
    row.shuffle(rng);
    row
}

fn peaked(vocab: usize, rng: &mut StdRng) -> Vec<f32> {
    let mut row: Vec<f32> = (0..vocab).map(|rank| -0.5 * rank as f32).collect();
    row.shuffle(rng);
    row
}

fn uniform(vocab: usize, rng: &mut StdRng) -> Vec<f32> {
    (0..vocab).map(|_| rng.random_range(0.0..30.0)).collect()
}

/// The probabilities of a row by the softmax, in f64.
pub fn softmax(row: &[f32], temperature: f32) -> Vec<f64> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f64> =
        row.iter().map(|&x| ((f64::from(x) - f64::from(max)) / f64::from(temperature)).exp()).collect();
    // Adding the small terms first makes the error of the sum negligible.
    let mut sorted = exp.clone();
    sorted.sort_by(f64::total_cmp);
    let total: f64 = sorted.iter().sum();
    exp.into_iter().map(|x| x / total).collect()
}

/// The total variation distance between the softmax of a row and its weights: half the sum of the absolute differences
/// of probabilities. The probability of every event differs by at most this distance.
pub fn distance(row: &[f32], temperature: f32, weights: &[i32]) -> f64 {
    let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
    let differences =
        softmax(row, temperature).into_iter().zip(weights).map(|(p, &w)| (p - f64::from(w) / total).abs());
    differences.sum::<f64>() / 2.0
}
