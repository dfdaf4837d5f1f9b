//! Properties of the contract for any input. The tests check them with big integers, f64 arithmetic and statistics, not
//! with another implementation of the same rules.

use crate::common::*;
use nucleus::batch::CallOptions;
use nucleus::dtype::Dtype;
use nucleus::plan::Entry;
use nucleus::semantics::arith::Scalar;
use nucleus::semantics::draw::{remainder, remainder_by_digits, remainder_of_maximum};
use nucleus::semantics::params::{min_weight, RowParams};
use nucleus::semantics::philox::random_words;
use nucleus::semantics::sizes::TOTAL_BITS;
use nucleus::semantics::top_p::TopP;
use nucleus::semantics::weights::MAX_WEIGHT;
use num_bigint::BigUint;
use proptest::prelude::*;
use rand::{rngs::StdRng, Rng as _, SeedableRng as _};

/// p as a fraction of two big integers: numerator and denominator.
fn fraction(p: f32) -> (BigUint, BigUint) {
    let bits = p.to_bits();
    let (exponent, mantissa) = (bits >> 23, bits & 0x7f_ffff);
    let (mantissa, down) =
        if exponent == 0 { (mantissa, 149) } else { (mantissa | 0x80_0000, 150 - exponent) };
    (BigUint::from(mantissa), BigUint::from(1u8) << down)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn remainder_is_the_big_integer_remainder(words in any::<[u32; 4]>(), total in MAX_WEIGHT as u64..=1 << TOTAL_BITS) {
        let u = words.iter().fold(BigUint::default(), |u, &word| (u << 32) + BigUint::from(word));
        let want = u64::try_from(u % BigUint::from(total)).unwrap();
        let words = words.map(|word| word as i32);
        prop_assert_eq!(remainder(Scalar, words, total), want);
        // The TPU kernels use digits of 12 bits for the longest rows.
        prop_assert_eq!(remainder_by_digits(Scalar, words, total, 64 - TOTAL_BITS), want);
        let of_maximum = remainder(Scalar, words, MAX_WEIGHT as u64);
        prop_assert_eq!(remainder_of_maximum(Scalar, words, false) as u64, of_maximum);
        prop_assert_eq!(remainder_of_maximum(Scalar, words, true), 0);
    }

    /// Draws p from all f32 in (0, 1) by its bits, so that subnormals are as likely as other values.
    #[test]
    fn target_is_the_exact_ceiling(bits in 1u32..0x3f80_0000, total in 1u64..=1 << TOTAL_BITS) {
        let p = TopP::new(f32::from_bits(bits));
        let (numerator, denominator) = fraction(f32::from_bits(bits));
        let product = BigUint::from(total) * numerator;
        let want = (&product + &denominator - 1u8) / &denominator;
        let got = p.target(total);
        prop_assert_eq!(BigUint::from(got), want.max(BigUint::from(1u8)));
    }

    #[test]
    fn min_weight_is_the_exact_ceiling(bits in 1u32..0x3f80_0000) {
        let (numerator, denominator) = fraction(f32::from_bits(bits));
        let product = numerator * BigUint::from(MAX_WEIGHT as u32);
        let want = (&product + &denominator - 1u8) / &denominator;
        prop_assert_eq!(BigUint::from(min_weight(f32::from_bits(bits)) as u32), want);
    }
}

fn any_dtype() -> impl Strategy<Value = Dtype> {
    prop_oneof![Just(Dtype::F32), Just(Dtype::Bf16), Just(Dtype::F16)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// Rows of arbitrary bits with many repeated values, so that ties are common. The built-in backend equals the
    /// reference. Top-k keeps at most k entries. The token is one of them, and the drawn number is in the range of its
    /// weight.
    #[test]
    fn rows_of_any_bits_are_sampled_correctly(
        dtype in any_dtype(),
        palette in proptest::collection::vec(any::<u32>(), 1..40),
        vocab in 1usize..700,
        seed in any::<u64>(),
        k in -1i32..720,
        p in prop_oneof![0f32..1.1, Just(0.95), Just(1.0)],
        min_p in prop_oneof![Just(0.0f32), 0f32..1.0],
        temperature in prop_oneof![Just(0.0f32), Just(1.0), 1e-3f32..100.0],
        stable in any::<bool>(),
    ) {
        let mut rng = StdRng::seed_from_u64(seed);
        let row = RowParams::new(k, p, min_p, temperature, random_words(seed, 1), vocab);
        let mut problem = Problem::new(dtype, vocab, vec![RowKind::Normal], vec![row], &mut rng);
        let mask = if dtype == Dtype::F32 { u32::MAX } else { 0xffff };
        // Half of the entries are arbitrary bits, half are ordinary logits.
        let bits = (0..vocab).map(|i| match rng.random_bool(0.5) {
            true => palette[rng.random_range(0..palette.len())] & mask,
            false => problem.bits[i],
        });
        problem.set_bits(bits.collect());
        problem.options = CallOptions { stable, replace_val: f32::NEG_INFINITY };

        let want = sample(&builtin(1), Entry::Reference, &problem, FULL_WIDTH);
        let got = sample(&builtin(1), Entry::Automatic, &problem, FULL_WIDTH);
        assert_same(&problem, &got, &want, "built-in");

        let kept = want.weights.iter().filter(|&&w| w > 0).count();
        let limit = if row.k == 0 { vocab } else { row.k as usize };
        prop_assert!(!stable || kept <= limit);
        let total: u64 = want.weights.iter().map(|&w| w as u64).sum();
        let r = u64::from(want.random_high[0]) << 32 | u64::from(want.random_low[0]);
        match want.tokens[0] {
            -1 => prop_assert_eq!(total, 0),
            token => {
                prop_assert!(want.weights[token as usize] > 0);
                let before: u64 = want.weights[..token as usize].iter().map(|&w| w as u64).sum();
                prop_assert!(before <= r && r < before + want.weights[token as usize] as u64);
                prop_assert_eq!(want.weights[want.greedy_sampled[0] as usize], MAX_WEIGHT);
            }
        }
    }
}

/// Top-k keeps exactly k entries, even if thousands tie at the threshold. It keeps the ties with the lowest indices.
#[test]
fn top_k_keeps_exactly_k_entries() {
    let mut rng = StdRng::seed_from_u64(1);
    for k in [1, 63, 64, 65, 5000] {
        let rows = vec![RowParams::new(k, 1.0, 0.0, 1.0, [0; 4], 20_000)];
        let mut problem = Problem::new(Dtype::Bf16, 20_000, vec![RowKind::Tied], rows, &mut rng);
        problem.options.replace_val = f32::NEG_INFINITY;
        let answers = sample(&builtin(2), Entry::Automatic, &problem, FULL_WIDTH);
        let kept: Vec<usize> = (0..20_000).filter(|&i| answers.topk_logits[i] != 0xff80).collect();
        assert_eq!(kept.len(), k as usize);
        let value = |i: usize| f32::from_bits(problem.bits[i] << 16);
        let least = kept.iter().map(|&i| value(i)).fold(f32::INFINITY, f32::min);
        let last_tie = *kept.iter().filter(|&&i| value(i) == least).max().unwrap();
        for i in (0..20_000).filter(|i| !kept.contains(i)) {
            assert!(value(i) < least || (value(i) == least && i > last_tie));
        }
    }
}

/// The random number 0 selects the first entry that has a weight, not the first entry of the row.
#[test]
fn a_masked_token_is_never_drawn() {
    let mut rng = StdRng::seed_from_u64(2);
    let rows = vec![RowParams::new(3, 1.0, 0.0, 1.0, [0; 4], 5)];
    let mut problem = Problem::new(Dtype::F32, 5, vec![RowKind::Normal], rows, &mut rng);
    problem.set_bits([-9.0f32, -9.0, 2.0, 1.0, 1.5].map(f32::to_bits).to_vec());
    for entry in [Entry::Reference, Entry::Automatic] {
        assert_eq!(sample(&builtin(1), entry, &problem, PLAIN).tokens, [2]);
    }
}

/// The weights are proportional to the probabilities of a softmax in f64, for several temperatures.
#[test]
fn weights_are_the_softmax() {
    let mut rng = StdRng::seed_from_u64(4);
    for temperature in [0.3f32, 1.0, 4.0] {
        let rows = vec![RowParams::new(0, 1.0, 0.0, temperature, [0; 4], 1000)];
        let problem = Problem::new(Dtype::F32, 1000, vec![RowKind::Normal], rows, &mut rng);
        let weights = sample(&builtin(1), Entry::Automatic, &problem, FULL_WIDTH).weights;
        let logits: Vec<f64> = problem.f32s.iter().map(|&x| f64::from(x) / f64::from(temperature)).collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exact: f64 = logits.iter().map(|x| (x - max).exp()).sum();
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        for (x, &w) in logits.iter().zip(&weights) {
            let (want, got) = ((x - max).exp() / exact, f64::from(w) / total);
            // The relative error of a weight is at most 2⁻¹⁸, plus an absolute error of 2⁻²⁹ of the largest weight. The
            // step of q and the rounding of f32 double this error.
            assert!((want - got).abs() <= want * 1e-5 + 4e-9, "{want} {got}");
        }
    }
}

/// Pearson's chi-square test of many seeded draws against the kept weights. The seeds and the result are always the
/// same.
#[test]
fn draws_follow_the_weights() {
    const VOCAB: usize = 200;
    const DRAWS: usize = 256 * 1024;
    let mut rng = StdRng::seed_from_u64(7);
    let logits: Vec<u32> = make_row(RowKind::Normal, VOCAB, &mut rng).iter().map(|x| x.to_bits()).collect();
    let sampler = builtin(2);
    for (k, p) in [(0, 1.0), (50, 0.95)] {
        let mut seen = [0u64; VOCAB];
        let mut weights = vec![];
        for call in 0..DRAWS / 1024 {
            // One seed with increasing offsets, or one offset with increasing seeds.
            let words = |row: usize| match call % 2 {
                0 => random_words(42, (call * 1024 + row) as u64),
                _ => random_words((call * 1024 + row) as u64, 7),
            };
            let rows = (0..1024).map(|row| RowParams::new(k, p, 0.0, 1.5, words(row), VOCAB)).collect();
            let mut problem = Problem::new(Dtype::F32, VOCAB, vec![RowKind::Normal; 1024], rows, &mut rng);
            problem.set_bits(logits.repeat(1024));
            let ask = if call == 0 { FULL_WIDTH } else { PLAIN };
            let answers = sample(&sampler, Entry::Automatic, &problem, ask);
            answers.tokens.iter().for_each(|&token| seen[token as usize] += 1);
            if call == 0 {
                weights = answers.weights[..VOCAB].to_vec();
            }
        }
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        let (mut chi_square, mut freedom, mut rare) = (0.0, -1.0, (0.0, 0.0));
        for (&count, &w) in seen.iter().zip(&weights) {
            let expected = f64::from(w) / total * DRAWS as f64;
            if w == 0 {
                assert_eq!(count, 0, "a masked token was drawn");
            } else if expected < 10.0 {
                rare = (rare.0 + count as f64, rare.1 + expected);
            } else {
                chi_square += (count as f64 - expected).powi(2) / expected;
                freedom += 1.0;
            }
        }
        if rare.1 > 0.0 {
            chi_square += (rare.0 - rare.1).powi(2) / rare.1;
            freedom += 1.0;
        }
        // The Wilson–Hilferty approximation; 3.29 is the 0.9995 quantile of the normal distribution.
        let a = 2.0 / (9.0 * freedom);
        let critical = freedom * f64::powi(1.0 - a + 3.29 * f64::sqrt(a), 3);
        assert!(chi_square < critical, "k {k}, p {p}: chi-square {chi_square:.1}, critical {critical:.1}");
        assert!(freedom > 10.0);
    }
}

/// Rows with different seeds draw different tokens, and a row's token does not depend on the parameters of other rows.
#[test]
fn each_row_has_a_seed() {
    let mut rng = StdRng::seed_from_u64(8);
    let row = |seed, k, p| RowParams::new(k, p, 0.0, 1.0, random_words(seed, 3), 1000);
    let params = vec![row(1, 0, 1.0), row(2, 0, 1.0), row(3, 0, 1.0)];
    let mut problem = Problem::new(Dtype::F32, 1000, vec![RowKind::Normal; 3], params, &mut rng);
    let same = problem.bits[..1000].repeat(3);
    problem.set_bits(same);
    let sampler = builtin(1);
    let before = sample(&sampler, Entry::Automatic, &problem, PLAIN).tokens;
    assert!(before[0] != before[1] || before[1] != before[2]);
    problem.rows[2] = row(3, 5, 0.5);
    let after = sample(&sampler, Entry::Automatic, &problem, PLAIN).tokens;
    assert_eq!(before[..2], after[..2]);
}
