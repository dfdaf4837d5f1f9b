//! Compares the weights with the softmax in f64, and top-p with its rule in real numbers.
//!
//! The rule: keep the smallest set of the most probable entries whose probability is at least p, and every entry that
//! ties with its least probable one.

use crate::common::softmax::{distance, softmax, KINDS};
use crate::common::*;
use nucleus::dtype::Dtype;
use nucleus::plan::Entry;
use nucleus::semantics::params::RowParams;
use rand::prelude::*;

/// The weights of an f32 row after top-p, from every entry point that accepts the row.
fn weights(row: &[f32], p: f32, temperature: f32) -> Vec<i32> {
    let params = vec![RowParams::new(0, p, 0.0, temperature, [0; 4], row.len())];
    let mut rng = StdRng::seed_from_u64(0);
    let mut problem = Problem::new(Dtype::F32, row.len(), vec![RowKind::Constant], params, &mut rng);
    problem.set_bits(row.iter().map(|x| x.to_bits()).collect());
    let sampler = builtin(1);
    let weights = sample(&sampler, Entry::Automatic, &problem, FULL_WIDTH).weights;
    assert_eq!(sample(&sampler, Entry::Reference, &problem, FULL_WIDTH).weights, weights);
    weights
}

fn kept(row: &[f32], p: f32) -> Vec<usize> {
    let weights = weights(row, p, 1.0);
    (0..row.len()).filter(|&i| weights[i] > 0).collect()
}

#[test]
fn weights_are_close_to_the_softmax() {
    const VOCAB: usize = 128_256;
    for kind in KINDS {
        let mut rng = StdRng::seed_from_u64(1);
        let row = (kind.row)(VOCAB, &mut rng);
        for temperature in [0.5, 1.0, 2.0] {
            let far = distance(&row, temperature, &weights(&row, 1.0, temperature));
            // The bound in docs/semantics.md: V·2⁻²⁹ + 2⁻¹⁷.
            let bound = VOCAB as f64 / f64::from(1 << 29) + 1.0 / f64::from(1 << 17);
            assert!(far <= bound, "{}, T = {temperature}: {far:.1e}", kind.name);
            assert!(temperature != 1.0 || far <= kind.limit, "{}: {far:.1e}", kind.name);
        }
    }
}

/// If all shares are powers of two, all weights are exact. So top-p keeps exactly the entries that the rule keeps.
#[test]
fn shares_that_are_powers_of_two_are_cut_exactly() {
    let logits = |shares: &[f64]| -> Vec<f32> { shares.iter().map(|share| share.ln() as f32).collect() };
    assert_eq!(kept(&logits(&[0.5, 0.25, 0.25]), 0.5), [0]);
    assert_eq!(kept(&logits(&[0.5, 0.25, 0.125, 0.125]), 0.75), [0, 1]);

    let mut rng = StdRng::seed_from_u64(3);
    for _ in 0..400 {
        // No share is less than 2⁻¹². So the rounding error of every logit is less than half a unit of q.
        let mut shares = vec![1.0_f64];
        for _ in 0..rng.random_range(1..60) {
            let split = rng.random_range(0..shares.len());
            if shares[split] > 1.0 / 4096.0 {
                shares[split] /= 2.0;
                shares.push(shares[split]);
            }
        }
        shares.shuffle(&mut rng);
        let row = logits(&shares);
        let mut descending = shares.clone();
        descending.sort_by(|a, b| b.total_cmp(a));
        let mut sum = 0.0;
        for &share in &descending[..descending.len() - 1] {
            sum += share;
            for p in [sum as f32, (sum as f32).next_down(), (sum as f32).next_up()] {
                let mut reached = 0.0;
                let least = descending.iter().find(|&&share| {
                    reached += share;
                    reached >= f64::from(p)
                });
                let least = *least.expect("p is below 1");
                let right: Vec<usize> = (0..shares.len()).filter(|&i| shares[i] >= least).collect();
                assert_eq!(kept(&row, p), right, "p = {p}, shares {shares:?}");
            }
        }
    }
}

/// The kept entries have at least the probability p. Without the least probable of them, the others have less. The
/// tolerance covers the rounding of the weights.
#[test]
fn top_p_keeps_the_probability_p() {
    const TOLERANCE: f64 = 1e-5;
    for (kind, vocab) in KINDS.iter().zip([128_256, 50_000, 128_256, 49_152, 1000, 32_000]) {
        let mut rng = StdRng::seed_from_u64(5);
        let row = (kind.row)(vocab, &mut rng);
        let shares = softmax(&row, 1.0);
        for p in [0.5_f32, 0.9, 0.95, 0.99, 0.999] {
            let kept = kept(&row, p);
            let mass: f64 = kept.iter().map(|&i| shares[i]).sum();
            assert!(mass >= f64::from(p) - TOLERANCE, "{}, p = {p}: {mass}", kind.name);
            let least = kept.iter().map(|&i| row[i]).fold(f32::INFINITY, f32::min);
            let without: f64 = kept.iter().filter(|&&i| row[i] > least).map(|&i| shares[i]).sum();
            assert!(without < f64::from(p) + 2.0 * TOLERANCE, "{}, p = {p}: {without}", kind.name);
        }
    }
}

/// A row with one large logit. All other logits are equal. Top-p keeps the others if and only if the probability of the
/// large one is less than p. Earlier versions had weights of 24 bits. A weight was then 0 if its logit was more than
/// 16.6 below the maximum. So top-p removed the others.
#[test]
fn a_flat_rest_is_kept_if_its_share_is_needed() {
    const VOCAB: usize = 128_256;
    for gap in [10.0_f32, 14.0, 16.0, 16.7, 17.5, 18.0, 19.0] {
        let mut row = vec![-gap; VOCAB];
        row[77] = 0.0;
        let top = softmax(&row, 1.0)[77];
        for p in [0.5_f32, 0.9, 0.95, 0.99, 0.995, 0.999] {
            if (f64::from(p) - top).abs() > 2e-4 {
                let right = if f64::from(p) <= top { 1 } else { VOCAB };
                assert_eq!(kept(&row, p).len(), right, "{gap} below, p = {p}, the top has {top}");
            }
        }
    }
}
