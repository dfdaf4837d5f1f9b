//! Temperature and integer weights: `q`, the distance below the maximum in units of 2⁻¹⁸ octaves, and `W(q)`.
//!
//! Probabilities are integers, so their sums do not depend on the order of summation. The sampled token is therefore
//! independent of tiling, batch size, device and sharding.

use super::arith::Arith;

/// The weight of the maximum, `2²⁴ − 1`.
pub const MAX_WEIGHT: i32 = (1 << 24) - 1;
/// The largest `q`, far above [`ZERO_Q`].
pub const MAX_Q: i32 = 40 << 18;

/// The smallest `q` whose weight is 0.
///
/// Exactly 24 octaves below the maximum, the weight is still 1, because `2²⁴ · 2⁻²⁴` is 1. Only the weight of the
/// maximum itself is reduced, to 2²⁴ − 1.
pub const ZERO_Q: i32 = (24 << 18) + 1;

/// The constants of [`weight`]: 4 ln 2, 2⁻²⁵ and 2⁻²⁴/3.
///
/// XLA's algebraic simplifier combines the constants in a chain of products. It turns `(f·K)·(f·K)·C2` into
/// `(f·f)·(K²·C2)`, which rounds differently. These constants are therefore [`Arith::factor`]s. For the same reason
/// [`weight_of_cubic`] multiplies by powers of two through the exponent bits: the simplifier turned `(u · 2⁻²⁴)⁸` into
/// `u⁸ · 2⁻¹⁹²`, which is `inf · 0`.
pub const FACTORS: [f32; 3] = [2.772_588_7, 1.0 / 33_554_432.0, 1.0 / 50_331_648.0];

/// `q = trunc(min((max − x) · scale, MAX_Q))`, with `scale` from [`super::params::scale`].
///
/// `max` and `x` are cleaned. In a row without a candidate the difference is −inf − (−inf) = NaN. The minimum is
/// written as a comparison that NaN fails, so the conversion never receives a NaN.
#[inline(always)]
pub fn quantize<A: Arith>(a: A, max: A::Float, x: A::Float, scale: A::Float) -> A::Int {
    a.trunc(a.at_most(a.fmul(a.fsub(max, x), scale), MAX_Q as f32))
}

/// `W(q)`: the integer weight of a logit that is `q · 2⁻¹⁸` octaves below the maximum.
///
/// The error against `(2²⁴ − 1) · 2^(−q / 2¹⁸)` is at most `2⁻¹⁸` relative plus 1 absolute, and `W` never increases.
/// The algorithm approximates `2^(−fraction / 16)` by a cubic polynomial `u` and raises it to the sixteenth power by
/// four squarings. `p` is a sixteenth of the fractional exponent, in units of 2⁻²⁴.
#[inline(always)]
pub fn weight<A: Arith>(a: A, q: A::Int) -> A::Int {
    weight_of_cubic(a, q, cubic(a, q))
}

/// The first half of [`weight`]: `u − 2²⁴`. It is a separate function because SIMD code interleaves the two halves.
#[inline(always)]
pub fn cubic<A: Arith>(a: A, q: A::Int) -> A::Int {
    let [k, c2, c3] = FACTORS;
    let (k, c2, c3) = (a.factor(k), a.factor(c2), a.factor(c3));
    let p = a.fmul(a.to_float(a.and(q, a.int(0x3ffff))), k);
    let p2 = a.fmul(a.fmul(p, p), c2);
    let p3 = a.fmul(a.fmul(p2, p), c3);
    a.sub(a.trunc(p2), a.add(a.trunc(p), a.trunc(p3)))
}

/// The second half of [`weight`]. `below_one` is the result of [`cubic`].
#[inline(always)]
pub fn weight_of_cubic<A: Arith>(a: A, q: A::Int, below_one: A::Int) -> A::Int {
    const EXPONENT: u32 = 23;
    // `u · 2⁻²⁴` as a float. The floats between 1/2 and 1 are the multiples of 2⁻²⁴, and their bit patterns are
    // consecutive. So one integer addition replaces a conversion and a product.
    const ONE: i32 = 127 << EXPONENT;
    let mut power = a.from_bits(a.add(below_one, a.int(ONE)));
    for _ in 0..4 {
        power = a.fmul(power, power);
    }
    // Adding to the exponent multiplies by a power of two. No value here is 0 or leaves the normal range.
    const TWO_TO_24: i32 = 24 << EXPONENT;
    let octaves = a.shl(a.and(q, a.int(!0x3ffff)), EXPONENT - 18);
    let scaled = a.add(a.to_bits(power), a.sub(a.int(TWO_TO_24), octaves));
    a.trunc(a.at_most(a.from_bits(scaled), MAX_WEIGHT as f32))
}

#[cfg(test)]
mod tests {
    use super::super::arith::Scalar;
    use super::*;

    /// The formula as in `docs/semantics.md`, including the products with powers of two.
    fn as_written(q: i32) -> i32 {
        let k = (4.0 * std::f64::consts::LN_2) as f32;
        let (c2, c3) = (2.0f32.powi(-25), (2.0f64.powi(-24) / 3.0) as f32);
        let n = q >> 18;
        let p = (q & 0x3ffff) as f32 * k;
        let q2 = (p * p) * c2;
        let r = (q2 * p) * c3;
        let u = (1 << 24) - p as i32 + q2 as i32 - r as i32;
        let mut power = u as f32 * 2.0f32.powi(-24);
        for _ in 0..4 {
            power *= power;
        }
        MAX_WEIGHT.min((power * f32::from_bits(((151 - n) << 23) as u32)) as i32)
    }

    #[test]
    fn weight_equals_the_formula_of_the_contract() {
        for q in 0..=MAX_Q {
            assert_eq!(weight(Scalar, q), as_written(q), "q = {q}");
        }
    }

    /// The four properties that the contract requires of `W`, for every q.
    #[test]
    fn weight_meets_its_contract_for_every_q() {
        assert_eq!(weight(Scalar, 0), MAX_WEIGHT);
        let mut previous = i32::MAX;
        for q in 0..=MAX_Q {
            let w = weight(Scalar, q);
            let exact = f64::from(MAX_WEIGHT) * (-f64::from(q) / f64::from(1 << 18)).exp2();
            let allowed = exact / f64::from(1 << 18) + 1.0;
            assert!((f64::from(w) - exact).abs() <= allowed, "W({q}) = {w}, exact {exact}");
            assert!(w <= previous, "W increases at {q}");
            previous = w;
        }
        assert_eq!(previous, 0);
        assert_eq!((weight(Scalar, ZERO_Q - 1), weight(Scalar, ZERO_Q)), (1, 0));
    }
}
