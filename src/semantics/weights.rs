//! Temperature and integer weights: `q`, the distance below the maximum in units of 2⁻¹⁸ octaves, and `W(q)`.
//!
//! Probabilities are integers, so their sums do not depend on the order of summation. The sampled token is therefore
//! independent of tiling, batch size, device and sharding.

use super::arith::Arith;
use super::sizes::WEIGHT_BITS;

/// The weight of the maximum.
pub const MAX_WEIGHT: i32 = 1 << WEIGHT_BITS;

/// The binary logarithm of the number of units of `q` per octave.
pub const OCTAVE_BITS: u32 = 18;
const OCTAVE: i32 = 1 << OCTAVE_BITS;
/// The smallest `q` whose weight is 0. At `WEIGHT_BITS + 1` octaves the weight is 1, because a half rounds up.
pub const ZERO_Q: i32 = (WEIGHT_BITS as i32 + 1) * OCTAVE + 1;
/// The largest distance in units of `q`: 29.5 octaves, where the weight is 0.
const FARTHEST: f32 = (WEIGHT_BITS as f32 + 1.5) * OCTAVE as f32;

/// In the first octave below the maximum, a right shift by this number turns 2²⁸ times the result of [`polynomial`]
/// into twice the weight. Each further octave adds 1 to the shift.
const FIRST_SHIFT: i32 = 30 - WEIGHT_BITS as i32;
/// The sum of this number and a smaller float is rounded to an integer. The low bits of the sum contain the integer.
pub const ROUNDING: f32 = (1 << 23) as f32;
const ROUNDING_BITS: i32 = 0x4b00_0000;

/// The encoding of a distance `q`, 0 to 29.5 octaves, that [`quantize`] returns: the bits of the float
/// `2²³ + FIRST_SHIFT · 2¹⁸ + q`. The low 18 bits contain the fraction of the octave. The five bits above them contain
/// the number of octaves plus `FIRST_SHIFT`.
pub const fn distance_bits(q: i32) -> i32 {
    ROUNDING_BITS + FIRST_SHIFT * OCTAVE + q
}

/// Returns [`distance_bits`] of `q = round(min((max − x) · scale, 29.5 · 2¹⁸))`, with `scale` from
/// [`super::params::scale`]. A half rounds to even.
///
/// `max` and `x` are cleaned. In a row without a candidate the difference is −inf − (−inf) = NaN. The minimum is a
/// comparison, which is false for NaN, so the result for NaN is the largest distance. The minimum separates the product
/// from the sum, so no compiler can fuse them.
#[inline(always)]
pub fn quantize<A: Arith>(a: A, max: A::Float, x: A::Float, scale: A::Float) -> A::Int {
    let distance = a.at_most(a.fmul(a.fsub(max, x), scale), FARTHEST);
    a.to_bits(a.fadd(distance, a.float(ROUNDING + (FIRST_SHIFT * OCTAVE) as f32)))
}

/// The coefficients of [`polynomial`], from the fourth power to the constant: a minimax approximation of
/// `8 · 2^(−y / 2¹⁸)` for `0 ≤ y < 2¹⁸`. They are rounded to floats in such a way that the polynomial never increases.
const COEFFICIENTS: [f32; 5] = [
    f32::from_bits(0x195f_de2b), // 0x1.bfbc56p-77
    f32::from_bits(0xa3da_00fc), // -0x1.b401f8p-56
    f32::from_bits(0x2df5_3427), // 0x1.ea684ep-36
    f32::from_bits(0xb7b1_6c9d), // -0x1.62d93ap-16
    8.0,
];

/// `W(q)`: the integer weight of a logit that is `q · 2⁻¹⁸` octaves below the maximum. `distance` is
/// [`distance_bits`]`(q)`.
///
/// `W(q)` is `2²⁸ · 2^(−q / 2¹⁸)`, rounded, with an error of at most 2⁻¹⁸ relative plus 0.5. It never increases.
#[inline(always)]
pub fn weight<A: Arith>(a: A, distance: A::Int) -> A::Int {
    if A::WEIGHS_BY_SHIFTS {
        weight_by_shifts(a, distance)
    } else {
        weight_by_exponent(a, distance)
    }
}

/// [`weight`], as the contract states it.
///
/// The bits of the polynomial, shifted left by 7, form an unsigned integer: 2²⁸ times the polynomial. The shift removes
/// the sign and all bits of the exponent except the lowest two. These are 01 below 8 and 10 at 8. They are the leading
/// one of the mantissa.
#[inline(always)]
fn weight_by_shifts<A: Arith>(a: A, distance: A::Int) -> A::Int {
    let u = a.to_bits(polynomial(a, distance, octaves(a, distance), COEFFICIENTS));
    let doubled = a.shr_by(a.shl(u, 7), a.shr(distance, OCTAVE_BITS));
    a.shr(a.add(doubled, a.int(1)), 1)
}

/// Computes the same weight with fewer operations. This function is for targets that convert floats to integers fast.
///
/// It subtracts the number of octaves from the exponent of the polynomial. To round the result to an integer, it adds
/// the largest float below 0.5 and truncates the sum. It does not add 0.5, because that sum can be rounded up to the
/// next integer. The sum of 0.5 and the added float is a tie, and is rounded to 1. So the weight 0.5 becomes 1.
#[inline(always)]
fn weight_by_exponent<A: Arith>(a: A, distance: A::Int) -> A::Int {
    const BELOW_HALF: f32 = 0.5_f32.next_down();
    let octaves = octaves(a, distance);
    let u = a.to_bits(polynomial(a, distance, octaves, SCALED_COEFFICIENTS));
    let weight = a.from_bits(a.sub(u, a.shl(octaves, EXPONENT_SHIFT)));
    a.trunc(a.fadd(weight, a.float(BELOW_HALF)))
}

/// This shift moves the number of octaves of a distance to the exponent of a float.
const EXPONENT_SHIFT: u32 = 23 - OCTAVE_BITS;

/// [`COEFFICIENTS`] for [`weight_by_exponent`], times a negative power of two. Rounding to nearest is symmetric, and no
/// intermediate result is subnormal. So the factor changes no rounding.
///
/// The factor compensates the difference between the exponents of the polynomial and the weight, and the bits that the
/// shift of `octaves` keeps of [`ROUNDING_BITS`]. These bits overflow into the sign, so the factor is negative.
const SCALED_COEFFICIENTS: [f32; 5] = {
    // At distance 0, the polynomial is 8 and the weight is 2²⁸.
    let at_maximum = (MAX_WEIGHT as f32).to_bits() + ((distance_bits(0) as u32) << EXPONENT_SHIFT);
    let factor = f32::from_bits(at_maximum) / 8.0;
    let [c4, c3, c2, c1, c0] = COEFFICIENTS;
    [c4 * factor, c3 * factor, c2 * factor, c1 * factor, c0 * factor]
};

/// The bits of a distance without the fraction of the octave.
#[inline(always)]
fn octaves<A: Arith>(a: A, distance: A::Int) -> A::Int {
    a.and(distance, a.int(!(OCTAVE - 1)))
}

/// With [`COEFFICIENTS`]: returns `8 · 2^(−y / 2¹⁸)`, where `y` is the fraction of the octave. The result is in (4, 8].
#[inline(always)]
fn polynomial<A: Arith>(a: A, distance: A::Int, octaves: A::Int, coefficients: [f32; 5]) -> A::Float {
    // Both floats are whole numbers below 2²⁴, so the difference is exact.
    let y = a.fsub(a.from_bits(distance), a.from_bits(octaves));
    // This is neither `map` nor a loop over an array. The compiler does not always inline their functions, and then
    // compiles them without the caller's instruction set.
    let [c4, c3, c2, c1, c0] = coefficients;
    let u = a.mul_then_add(a.float(c4), y, a.float(c3));
    let u = a.mul_then_add(u, y, a.float(c2));
    let u = a.mul_then_add(u, y, a.float(c1));
    a.mul_then_add(u, y, a.float(c0))
}

#[cfg(test)]
mod tests {
    use super::super::arith::Scalar;
    use super::super::sizes::SUMMABLE;
    use super::*;

    const MAX_Q: i32 = FARTHEST as i32;

    /// The formula as in `docs/semantics.md`.
    fn as_written(q: i32) -> i32 {
        let z = 8_388_608.0_f32 + 524_288.0 + q as f32;
        let y = f32::from_bits(z.to_bits() & 0x3ffff | 0x4b00_0000) - 8_388_608.0;
        // The coefficients in decimal and in f64, where they are exact.
        let [c4, c3, c2, c1] = [
            (1.7489675283432007, -77),
            (-1.7031550407409668, -56),
            (1.9156540632247925, -36),
            (-1.3861271142959595, -16),
        ]
        .map(|(factor, exponent): (f64, i32)| (factor * 2.0_f64.powi(exponent)) as f32);
        let u = (((c4 * y + c3) * y + c2) * y + c1) * y + 8.0;
        let m = (u.to_bits() << 7) >> ((z.to_bits() >> 18) & 31);
        ((m + 1) >> 1) as i32
    }

    #[test]
    fn weight_equals_the_formula_of_the_contract() {
        for q in 0..=MAX_Q {
            assert_eq!(weight(Scalar, distance_bits(q)), as_written(q), "q = {q}");
        }
    }

    /// Every `q` has the properties that the contract requires of `W`.
    #[test]
    fn weight_meets_its_contract_for_every_q() {
        assert_eq!(weight(Scalar, distance_bits(0)), MAX_WEIGHT);
        let mut previous = i32::MAX;
        for q in 0..=MAX_Q {
            let w = weight(Scalar, distance_bits(q));
            let exact = f64::from(MAX_WEIGHT) * (-f64::from(q) / f64::from(OCTAVE)).exp2();
            let allowed = exact / f64::from(1 << 18) + 0.5;
            assert!((f64::from(w) - exact).abs() <= allowed, "W({q}) = {w}, exact {exact}");
            assert!(w <= previous, "W increases at {q}");
            previous = w;
        }
        assert_eq!(previous, 0);
        let around = [ZERO_Q - 1, ZERO_Q].map(|q| weight(Scalar, distance_bits(q)));
        assert_eq!(around, [1, 0]);
    }

    /// The polynomial strictly decreases in every octave. So two distances have equal weights only through rounding.
    #[test]
    fn the_polynomial_strictly_decreases() {
        let value = |y| {
            let distance = distance_bits(y);
            polynomial(Scalar, distance, octaves(Scalar, distance), COEFFICIENTS)
        };
        let values: Vec<f32> = (0..OCTAVE).map(value).collect();
        assert!(values.windows(2).all(|pair| pair[0] > pair[1]));
        assert!(values[0] == 8.0 && values[OCTAVE as usize - 1] > 4.0);
    }

    #[test]
    fn both_computations_give_the_same_weight() {
        for q in 0..=MAX_Q {
            let distance = distance_bits(q);
            let both = [weight_by_shifts(Scalar, distance), weight_by_exponent(Scalar, distance)];
            assert_eq!(both[0], both[1], "q = {q}");
        }
    }

    #[test]
    fn distances_are_rounded_to_nearest_and_limited() {
        let quantized = |distance: f32| quantize(Scalar, distance, 0.0, 1.0) - distance_bits(0);
        let rounded = [0.0, 0.4, 0.5, 0.6, 1.5, 2.5, 1e6, 7e6].map(quantized);
        assert_eq!(rounded, [0, 0, 0, 1, 2, 2, 1_000_000, 7_000_000]);
        for beyond in [FARTHEST, 1e9, f32::INFINITY, f32::NAN] {
            assert_eq!(quantized(beyond), MAX_Q, "{beyond}");
        }
    }

    #[test]
    fn as_many_weights_as_stated_can_be_summed() {
        let sum = |count: usize| count as u64 * MAX_WEIGHT as u64;
        assert!(sum(SUMMABLE) <= u64::from(u32::MAX) && sum(SUMMABLE + 1) > u64::from(u32::MAX));
    }
}
