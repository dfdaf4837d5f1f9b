//! The target of top-p: `ceil(p · total)`, where p is the exact rational value of its f32.

use super::arith::{Scalar, WideArith};

/// p in the form that devices need: `p = mantissa · 2^−(24 + shift)`. A mantissa of 0 turns top-p off.
///
/// `mantissa` has at most 24 bits. `shift` is at most 63: a larger shift would result in the same target, 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopP {
    /// 0 if top-p is off.
    pub mantissa: i32,
    /// 0 to 63.
    pub shift: i32,
}

impl TopP {
    /// Top-p off: every weight stays.
    pub const OFF: TopP = TopP { mantissa: 0, shift: 0 };

    /// Converts p, which is not NaN. p ≥ 1 turns top-p off. p ≤ 0 keeps the maximum and its ties, because the target
    /// is 1.
    pub fn new(p: f32) -> TopP {
        if p >= 1.0 {
            return TopP::OFF;
        }
        if p <= 0.0 {
            return TopP { mantissa: 1, shift: 63 };
        }
        let bits = p.to_bits() as i32;
        let (exponent, fraction) = (bits >> 23, bits & 0x7f_ffff);
        // p = mantissa · 2^-down, and down is at least 24 because p < 1.
        let (mantissa, down) =
            if exponent == 0 { (fraction, 149) } else { (fraction | 0x80_0000, 150 - exponent) };
        TopP { mantissa, shift: (down - 24).min(63) }
    }

    /// Returns [`target`] for `total`, computed on the host.
    pub fn target(self, total: u64) -> u64 {
        target(Scalar, total, self.mantissa, self.shift)
    }
}

/// `max(1, ceil(mantissa · total / 2^(24 + shift)))` for `0 < total ≤ 2^52`. The result has no meaning if `mantissa`
/// is 0.
#[inline(always)]
pub fn target<A: WideArith>(a: A, total: A::Wide, mantissa: A::Int, shift: A::Int) -> A::Wide {
    let low24 = a.wide(0xff_ffff);
    let m = a.widen(mantissa);
    let high_product = a.wmul(a.wshr(total, a.wide(24)), m);
    let low_product = a.wmul(a.wand(total, low24), m);
    // mantissa · total = upper · 2^24 + lower
    let upper = a.wadd(high_product, a.wshr(low_product, a.wide(24)));
    let lower = a.wand(low_product, low24);
    let shift = a.widen(shift);
    let floor = a.wshr(upper, shift);
    // The ceiling is one more than the floor if a bit below bit 24 + shift is set. The mask has the low `shift` bits
    // set. It is computed by a shift to the right, because the trait has no variable shift to the left.
    let mask = a.wshr(a.wide(u64::MAX >> 1), wsub_from_63(a, shift));
    let rest = a.wor(a.wand(upper, mask), lower);
    let zero = a.wide(0);
    let ceil = a.wselect(a.weq(rest, zero), floor, a.wadd(floor, a.wide(1)));
    a.wselect(a.weq(ceil, zero), a.wide(1), ceil)
}

/// `63 − shift` for `shift` in 0..=63. An exclusive or avoids a wide subtraction.
#[inline(always)]
fn wsub_from_63<A: WideArith>(a: A, shift: A::Wide) -> A::Wide {
    let low = a.xor(a.low(shift), a.int(63));
    a.widen(low)
}
