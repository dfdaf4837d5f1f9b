//! The remainder of the draw: a long division with two steps.
//!
//! A draw is a chain of dependent instructions, so the chain must be short. The remainders between the steps are
//! integers in binary64. They are signed: a step subtracts the multiple of the divisor that is nearest according to an
//! estimate, so it needs no comparison. Only the last remainder is corrected.

use super::layout::LARGEST_VOCAB;
use crate::ptx::{Double, Ptx, Wide};
use crate::semantics::arith::WideArith;
use crate::semantics::weights::MAX_WEIGHT;

/// The number of bits of a digit. The random number has 128 bits: a first digit of 28 bits, and two digits.
///
/// Let `d` be the divisor. A step divides a remainder times 2⁵⁰ by `d`. The magnitude of each remainder is below
/// 1.15·`d`, so the magnitude of the quotient is below 1.15·2⁵⁰. The relative error of the reciprocal is at most 2⁻⁵³,
/// so the error of the quotient is below 0.15. Rounding it to an integer adds at most 0.5. So the magnitude of the
/// rest is below 0.65·`d`. The digit is divided by `d` in the same way. Its quotient is at most 2²², so the magnitude
/// of its rest is at most (0.5 + 2⁻³⁰)·`d`. The sum of the two rests is the next remainder. Its magnitude is below
/// 1.15·`d`. The first remainder is the first digit. It is less than `d`, because `d` is at least 2²⁸.
const DIGIT: u32 = 50;
const FIRST: u32 = 28;
const _: () = assert!(FIRST + 2 * DIGIT == 128 && MAX_WEIGHT == 1 << FIRST);
/// The last remainder plus `2·d` is at most 3.15·`d`, and an integer of binary64 is exact up to 2⁵³.
const LARGEST_TOTAL: u64 = 1 << 51;
const _: () = assert!(LARGEST_VOCAB as u64 * MAX_WEIGHT as u64 <= LARGEST_TOTAL);
/// The sum of this number and a number with a magnitude of at most 2⁵¹ is rounded to an integer.
const ROUNDING: f64 = (3_u64 << 51) as f64;

/// The operations that the division needs, beyond those of the sampling contract.
pub(super) trait Binary64Arith: WideArith {
    /// A binary64 number. Every operation rounds to nearest even.
    type Double: Copy;

    /// The constant `value`.
    fn double(self, value: f64) -> Self::Double;
    /// Converts an integer below 2⁵³.
    fn double_of(self, value: Self::Wide) -> Self::Double;
    /// Converts an integer that is not negative.
    fn wide_of(self, value: Self::Double) -> Self::Wide;
    /// `1 / a`.
    fn reciprocal(self, a: Self::Double) -> Self::Double;
    /// `a + b`.
    fn double_add(self, a: Self::Double, b: Self::Double) -> Self::Double;
    /// `a - b`.
    fn double_sub(self, a: Self::Double, b: Self::Double) -> Self::Double;
    /// `a * b`.
    fn double_mul(self, a: Self::Double, b: Self::Double) -> Self::Double;
    /// `a * b + c`, rounded once.
    fn fused(self, a: Self::Double, b: Self::Double, c: Self::Double) -> Self::Double;
    /// `a - b`, wrapping.
    fn difference(self, a: Self::Wide, b: Self::Wide) -> Self::Wide;
}

impl Binary64Arith for &Ptx {
    type Double = Double;

    fn double(self, value: f64) -> Double {
        Ptx::double(self, value)
    }

    fn double_of(self, value: Wide) -> Double {
        Ptx::double_of(self, value)
    }

    fn wide_of(self, value: Double) -> Wide {
        Ptx::wide_of(self, value)
    }

    fn reciprocal(self, a: Double) -> Double {
        self.double_reciprocal(a)
    }

    fn double_add(self, a: Double, b: Double) -> Double {
        Ptx::double_add(self, a, b)
    }

    fn double_sub(self, a: Double, b: Double) -> Double {
        Ptx::double_sub(self, a, b)
    }

    fn double_mul(self, a: Double, b: Double) -> Double {
        Ptx::double_mul(self, a, b)
    }

    fn fused(self, a: Double, b: Double, c: Double) -> Double {
        self.double_fma(a, b, c)
    }

    fn difference(self, a: Wide, b: Wide) -> Wide {
        self.wide_difference(a, b)
    }
}

/// `U mod total`, or 0 if `total` is 0. The result is the same as that of
/// [`remainder`](crate::semantics::draw::remainder), with the same conditions. `total` is at most [`LARGEST_TOTAL`].
pub(super) fn remainder<A: Binary64Arith>(a: A, words: [A::Int; 4], total: A::Wide) -> A::Wide {
    // The digits do not depend on the total, so a GPU can compute them while it waits for the total.
    let join = |high: usize| a.wor(a.wshl(a.widen(words[high]), 32), a.widen(words[high + 1]));
    let (high, low) = (join(0), join(2));
    let mask = a.wide((1 << DIGIT) - 1);
    let middle = a.wor(a.wshl(high, 64 - DIGIT), a.wshr(low, a.wide(u64::from(DIGIT))));
    let first = a.double_of(a.wshr(high, a.wide(u64::from(64 - FIRST))));
    let digits = [middle, low].map(|bits| a.double_of(a.wand(bits, mask)));

    let nothing = a.weq(total, a.wide(0));
    let total = a.wselect(nothing, a.wide(MAX_WEIGHT as u64), total);
    let divisor = a.double_of(total);
    let inverse = a.reciprocal(divisor);
    let unit = a.double((1_u64 << DIGIT) as f64);
    let inverse_of_unit = a.double_mul(inverse, unit);
    // Subtracts the nearest multiple of the divisor. `estimate` is the quotient plus `ROUNDING`, rounded.
    let reduced = |dividend, estimate| {
        let negated = a.double_sub(a.double(ROUNDING), estimate);
        a.fused(negated, divisor, dividend)
    };
    let [middle, last] = digits.map(|digit| reduced(digit, a.fused(digit, inverse, a.double(ROUNDING))));
    let step = |rest, digit| {
        let estimate = a.fused(rest, inverse_of_unit, a.double(ROUNDING));
        a.double_add(reduced(a.double_mul(rest, unit), estimate), digit)
    };
    // With twice the divisor, the last remainder is not negative.
    let last = a.double_add(last, a.double_add(divisor, divisor));
    let rest = a.wide_of(step(step(first, middle), last));

    let twice = a.wshl(total, 1);
    let thrice = a.wadd(twice, total);
    let choose = |limit, above: A::Wide, below: A::Wide| a.wselect(a.wlt(rest, limit), below, above);
    let less = |multiple| a.difference(rest, multiple);
    let of_small = choose(total, less(total), rest);
    let of_large = choose(thrice, less(thrice), less(twice));
    a.wselect(nothing, a.wide(0), choose(twice, of_large, of_small))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::arith::Scalar;
    use crate::semantics::draw::check_remainder;
    use rand::prelude::*;

    impl Binary64Arith for Scalar {
        type Double = f64;

        fn double(self, value: f64) -> f64 {
            value
        }

        fn double_of(self, value: u64) -> f64 {
            assert!(value <= 1 << 53);
            value as f64
        }

        fn wide_of(self, value: f64) -> u64 {
            assert!(value >= 0.0);
            value as u64
        }

        fn reciprocal(self, a: f64) -> f64 {
            1.0 / a
        }

        fn double_add(self, a: f64, b: f64) -> f64 {
            a + b
        }

        fn double_sub(self, a: f64, b: f64) -> f64 {
            a - b
        }

        fn double_mul(self, a: f64, b: f64) -> f64 {
            a * b
        }

        fn fused(self, a: f64, b: f64, c: f64) -> f64 {
            a.mul_add(b, c)
        }

        fn difference(self, a: u64, b: u64) -> u64 {
            a.wrapping_sub(b)
        }
    }

    fn check(number: u128, total: u64) {
        check_remainder(|words, total| remainder(Scalar, words, total), number, total);
    }

    /// The quotient of a step is close to a number of the form `n + 1/2`. So the estimate can be rounded up or down,
    /// and the rest of the step has nearly its largest magnitude.
    #[test]
    fn equals_the_exact_remainder_if_an_estimate_is_near_a_tie() {
        let mut rng = StdRng::seed_from_u64(13);
        let mut near = 0;
        for i in 0..100_000 {
            let total =
                (MAX_WEIGHT as u64) << rng.random_range(0..23) | rng.random_range(0..MAX_WEIGHT as u64);
            // If `i` is even, `rest` is the first digit. Otherwise, the first digit is 0 and `rest` is the second one.
            let shift = if i % 2 == 0 { 2 * DIGIT } else { DIGIT };
            let most = if i % 2 == 0 { MAX_WEIGHT as u64 } else { total / 2 };
            let rest = u128::from(rng.random_range(1..most) >> rng.random_range(0..28));
            let dividend = rest << DIGIT;
            let quotient = dividend / u128::from(total);
            let twice = 2 * quotient + 1;
            let total = ((2 * dividend + quotient) / twice) as u64;
            if !(MAX_WEIGHT as u64..=LARGEST_TOTAL).contains(&total) || rest >= u128::from(total) {
                continue;
            }
            let from_tie = (2 * dividend).abs_diff(twice * u128::from(total));
            near += usize::from(from_tie < u128::from(total >> 10));
            let digits: u128 = rng.random::<u128>() & ((1 << shift) - 1);
            for low in [0, digits, (1 << shift) - 1] {
                check(rest << shift | low, total);
            }
        }
        assert!(near > 20_000, "only {near} quotients are near a tie");
    }

    #[test]
    fn equals_the_exact_remainder() {
        let mut rng = StdRng::seed_from_u64(12);
        let (least, most) = (MAX_WEIGHT as u64, LARGEST_TOTAL);
        for number in [0, 1, u128::MAX] {
            check(number, 0);
        }
        let powers = (28..=51).map(|power| 1_u64 << power);
        let near_powers = powers.flat_map(|power| (power - 2..=power + 2).chain([power / 2 * 3 + 1]));
        let near_powers: Vec<u64> = near_powers.filter(|total| (least..=most).contains(total)).collect();
        for i in 0..100_000 {
            let (bits, zeros) = (rng.random_range(0..24), rng.random_range(0..128));
            let total = match i % 4 {
                0 => rng.random_range(least..=most),
                1 => near_powers[i / 4 % near_powers.len()],
                2 => rng.random_range(least..=least << bits),
                _ => least * rng.random_range(1..1 << 23),
            };
            let random: u128 = rng.random();
            let multiple = random / u128::from(total) * u128::from(total);
            // The remainder is then half of the total.
            let half = multiple.wrapping_add(u128::from(total / 2));
            for number in [
                random,
                random >> zeros,
                multiple,
                multiple.wrapping_sub(1),
                multiple + 1,
                half,
                half + 1,
                u128::MAX,
                u128::MAX << zeros,
            ] {
                check(number, total);
            }
        }
    }
}
