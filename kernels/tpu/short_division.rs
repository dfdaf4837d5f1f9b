//! The remainder of the draw for totals of at most 2^[`TOTAL_BITS`]: a long division with few steps.
//!
//! A draw is a chain of dependent steps, so each step must be short. The remainders between the steps are signed. A
//! step subtracts the multiple of the divisor that is nearest according to an estimate. So it needs no comparison. Only
//! the last remainder is corrected.

use crate::mlir::mosaic::{Kernel, Value};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::draw::digit;
use crate::semantics::weights::MAX_WEIGHT;

/// The number of bits of the largest total.
pub(super) const TOTAL_BITS: u32 = 38;
/// The number of bits of a digit.
///
/// An estimate of a quotient has a relative error of at most 9.25 · 2⁻²⁴: see [`Divisor::new`] and [`Pair::step`]. In
/// units of 2⁻²⁴, the error is 2 for the divisor as a float, 2.25 for its reciprocal, and 3 for the estimate. The two
/// conversions of large integers add 1 each if they do not round to the nearest float.
///
/// Let a remainder be between −m and m times the divisor. Then the quotient is at most m · 2²⁰. Its error is at most
/// 0.579 · m. Rounding it to an integer adds 0.5, and the digit adds 2⁻⁸. With m = 1.2, the sum of the three is less
/// than m. So every remainder is between −1.2 and 1.2 times the divisor.
const DIGIT: u32 = 20;
/// The number of bits of the lower part of a [`Pair`]. A quotient is less than 2²¹, so the product of a quotient and
/// the lower part of a divisor fits 32 bits.
const LOWER: u32 = 10;
const LOWER_MASK: i32 = (1 << LOWER) - 1;

/// The operations that the division needs, beyond those of the sampling contract.
pub(super) trait Division: WideArith {
    /// `a * b`, wrapping.
    fn product(self, a: Self::Int, b: Self::Int) -> Self::Int;
    /// `a / b`, with a relative error below 2⁻¹³.
    fn rough_quotient(self, a: Self::Float, b: Self::Float) -> Self::Float;
    /// Converts to the nearest integer. The magnitude of `a` is below 2³¹.
    fn nearest(self, a: Self::Float) -> Self::Int;
}

impl Division for &Kernel {
    fn product(self, a: Value, b: Value) -> Value {
        self.mul(a, b)
    }

    fn rough_quotient(self, a: Value, b: Value) -> Value {
        self.divide(a, b)
    }

    fn nearest(self, a: Value) -> Value {
        self.rounded(a)
    }
}

/// A signed number with a magnitude below 2⁴¹: `upper · 2^LOWER + lower`. The magnitude of `lower` is below 2^LOWER.
struct Pair<A: Arith> {
    upper: A::Int,
    lower: A::Int,
}

/// A divisor, with values derived from it.
struct Divisor<A: Arith> {
    pair: Pair<A>,
    /// Approximations of 2^`DIGIT` divided by the divisor, times the unit of each part of a [`Pair`].
    per_upper: A::Float,
    per_lower: A::Float,
}

/// `U mod total`, or 0 if `total` is 0. The result is the same as that of
/// [`remainder`](crate::semantics::draw::remainder). `total` is at most 2^[`TOTAL_BITS`].
pub(super) fn remainder<A: Division>(a: A, words: [A::Int; 4], total: A::Wide) -> A::Wide {
    let nothing = a.weq(total, a.wide(0));
    let total = a.wselect(nothing, a.wide(MAX_WEIGHT as u64), total);
    let divisor = Divisor::new(a, total);
    // The divisor is at least 2²⁸, so 28 bits are less than the divisor. They are the first remainder.
    const STEPS: u32 = 5;
    const { assert!(128 - STEPS * DIGIT == 28 && MAX_WEIGHT == 1 << 28) };
    let mut rest = Pair::new(a, digit(a, words, STEPS * DIGIT, 28));
    for step in (0..STEPS).rev() {
        rest = rest.step(a, a.low(digit(a, words, step * DIGIT, DIGIT)), &divisor);
    }
    a.wselect(nothing, a.wide(0), rest.corrected(a, &divisor).wide(a))
}

impl<A: Division> Divisor<A> {
    fn new(a: A, total: A::Wide) -> Divisor<A> {
        let pair = Pair::new(a, total);
        let upper = a.fmul(a.to_float(pair.upper), a.float((1 << LOWER) as f32));
        let scale = 1.0 / (1 << DIGIT) as f32;
        let scaled = a.fmul(a.fadd(upper, a.to_float(pair.lower)), a.float(scale));
        // This is one step of Newton's method. Its relative error is the square of the relative error of the rough
        // quotient, plus a few rounding errors.
        let rough = a.rough_quotient(a.float(1.0), scaled);
        let error = a.fsub(a.float(1.0), a.fmul(scaled, rough));
        let inverse = a.mul_then_add(rough, error, rough);
        Divisor { pair, per_upper: a.fmul(inverse, a.float((1 << LOWER) as f32)), per_lower: inverse }
    }
}

impl<A: Division> Pair<A> {
    fn new(a: A, value: A::Wide) -> Pair<A> {
        let upper = a.low(a.wshr(value, a.wide(u64::from(LOWER))));
        Pair { upper, lower: a.and(a.low(value), a.int(LOWER_MASK)) }
    }

    fn wide(&self, a: A) -> A::Wide {
        a.wor(a.wshl(a.widen(self.upper), LOWER), a.widen(self.lower))
    }

    /// Returns the remainder after the next digit of the long division.
    fn step(&self, a: A, digit: A::Int, divisor: &Divisor<A>) -> Pair<A> {
        // The digit changes the quotient by less than 2⁻⁸.
        let estimate = a.mul_then_add(
            a.to_float(self.upper),
            divisor.per_upper,
            a.fmul(a.to_float(self.lower), divisor.per_lower),
        );
        let quotient = a.nearest(estimate);
        let lower_product = a.product(quotient, divisor.pair.lower);
        // The upper parts wrap. This does not matter, because the upper part of the result fits 32 bits.
        let low_bits = a.add(a.shl(self.upper, LOWER), self.lower);
        let dividend = a.add(a.shl(low_bits, DIGIT - LOWER), a.shr(digit, LOWER));
        // The two products are ready at the same time. So each is an operand of an operation that does not need the
        // other product.
        let upper =
            a.sub(a.sub(dividend, a.product(quotient, divisor.pair.upper)), a.shr(lower_product, LOWER));
        let lower = a.sub(a.and(digit, a.int(LOWER_MASK)), a.and(lower_product, a.int(LOWER_MASK)));
        Pair { upper, lower }
    }

    /// Moves what does not fit the lower part to the upper part, so that the lower part is not negative.
    fn carried(&self, a: A) -> Pair<A> {
        Pair {
            upper: a.add(self.upper, a.shr(self.lower, LOWER)),
            lower: a.and(self.lower, a.int(LOWER_MASK)),
        }
    }

    /// Adds or subtracts the divisor, so that the result is at least 0 and less than the divisor. The number must be
    /// between −2 and 2 times the divisor.
    fn corrected(&self, a: A, divisor: &Divisor<A>) -> Pair<A> {
        // All sums are computed at once. Their signs select one of them.
        let Pair { upper, lower } = &divisor.pair;
        let plus =
            |pair: &Pair<A>| Pair { upper: a.add(pair.upper, *upper), lower: a.add(pair.lower, *lower) };
        let less = Pair { upper: a.sub(self.upper, *upper), lower: a.sub(self.lower, *lower) }.carried(a);
        let more = plus(self);
        let [same, more, most] = [self.carried(a), more.carried(a), plus(&more).carried(a)];
        let is_negative = |pair: &Pair<A>| a.lt(pair.upper, a.int(0));
        let choose = |mask: A::Mask, yes: &Pair<A>, no: &Pair<A>| Pair {
            upper: a.select(mask, yes.upper, no.upper),
            lower: a.select(mask, yes.lower, no.lower),
        };
        let of_negative = choose(is_negative(&more), &most, &more);
        let of_positive = choose(is_negative(&less), &same, &less);
        choose(is_negative(&same), &of_negative, &of_positive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::arith::Scalar;
    use crate::semantics::draw::check_remainder;
    use rand::prelude::*;

    impl Division for Scalar {
        fn product(self, a: i32, b: i32) -> i32 {
            a.wrapping_mul(b)
        }

        fn rough_quotient(self, a: f32, b: f32) -> f32 {
            a / b * (1.0 + 1.0 / (1 << 13) as f32)
        }

        fn nearest(self, a: f32) -> i32 {
            a.round_ties_even() as i32
        }
    }

    fn check(number: u128, total: u64) {
        check_remainder(|words, total| remainder(Scalar, words, total), number, total);
    }

    #[test]
    fn equals_the_exact_remainder() {
        let mut rng = StdRng::seed_from_u64(12);
        let (least, most) = (MAX_WEIGHT as u64, 1u64 << TOTAL_BITS);
        for number in [0, 1, u128::MAX] {
            check(number, 0);
        }
        for i in 0..400_000 {
            let total = match i % 4 {
                0 => rng.random_range(least..=most),
                1 => (most >> rng.random_range(0..11)).min(most) - rng.random_range(0..3),
                2 => (least << rng.random_range(0..11)).min(most - 2) + rng.random_range(0..3),
                _ => rng.random_range(least..1 << 29),
            };
            let total = total.max(least);
            let random: u128 = rng.random();
            let multiple = random / u128::from(total) * u128::from(total);
            for number in
                [random, random >> rng.random_range(0..128), multiple, multiple.wrapping_sub(1), multiple + 1]
            {
                check(number, total);
            }
        }
    }
}
