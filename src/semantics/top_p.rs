//! The nucleus target: `ceil(p · total)` with p taken as the exact rational value of its f32.

use super::arith::WideArith;

/// p as the device needs it: `p = mantissa · 2^−(24 + shift)`, or off (`mantissa == 0`).
///
/// `mantissa` has at most 24 bits and `shift` is capped at 63, past which the target is 1 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopP {
    /// 0 where top-p is off.
    pub mantissa: i32,
    /// 0 to 63.
    pub shift: i32,
}

impl TopP {
    /// Top-p off: every weight stays.
    pub const OFF: TopP = TopP { mantissa: 0, shift: 0 };

    /// From the caller's p, which is not NaN. p ≥ 1 is off; p ≤ 0 keeps the maximum's ties (target 1).
    pub fn new(p: f32) -> TopP {
        if p >= 1.0 {
            return TopP::OFF;
        }
        if p <= 0.0 {
            return TopP { mantissa: 1, shift: 63 };
        }
        let bits = p.to_bits() as i32;
        let (exponent, fraction) = (bits >> 23, bits & 0x7f_ffff);
        // value = mantissa · 2^-down; p < 1 makes down at least 24
        let (mantissa, down) =
            if exponent == 0 { (fraction, 149) } else { (fraction | 0x80_0000, 150 - exponent) };
        TopP { mantissa, shift: (down - 24).min(63) }
    }
}

/// `max(1, ceil(mantissa · total / 2^(24 + shift)))` for `0 < total < 2^48`. Meaningless where `mantissa` is 0.
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
    // ceil: is anything set below bit 24 + shift? (floor << shift) compares as floor · 2^shift without a variable
    // left shift: upper's low bits are nonzero exactly where adding 2^shift − 1 carries.
    let mask = a.wshr(a.wide(u64::MAX >> 1), wsub_from_63(a, shift));
    let rest = a.wor(a.wand(upper, mask), lower);
    let zero = a.wide(0);
    let ceil = a.wselect(a.weq(rest, zero), floor, a.wadd(floor, a.wide(1)));
    a.wselect(a.weq(ceil, zero), a.wide(1), ceil)
}

/// `63 − shift` for `shift` in 0..=63, as an exclusive or, so that no wide subtraction is needed.
#[inline(always)]
fn wsub_from_63<A: WideArith>(a: A, shift: A::Wide) -> A::Wide {
    let low = a.xor(a.low(shift), a.int(63));
    a.widen(low)
}
