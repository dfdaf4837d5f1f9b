//! Division of integers by constants.

use super::{Int, Ptx};
use crate::semantics::arith::Arith;

impl Ptx {
    /// `a / b` and `a % b` for `a` that is not negative. The assembler would emit a general division, also for a
    /// constant.
    pub fn divide(&self, a: Int, b: usize) -> (Int, Int) {
        let b = u32::try_from(b).expect("a divisor has 32 bits");
        let quotient = match Reciprocal::of(b) {
            None => self.int_op("shr.u32", &[&a, &b.ilog2()]),
            Some(Reciprocal { factor, shift }) => {
                let high = self.int_op("mul.hi.u32", &[&a, &factor]);
                self.int_op("shr.u32", &[&high, &shift])
            }
        };
        (quotient, self.sub(a, self.mul(quotient, b as usize)))
    }
}

/// A division by multiplication: `a / b` is `a · factor / 2^(32 + shift)`, rounded down, for `a` below 2³¹.
struct Reciprocal {
    factor: u32,
    shift: u32,
}

impl Reciprocal {
    /// Returns the reciprocal of `b`; `None` if `b` is a power of two.
    fn of(b: u32) -> Option<Reciprocal> {
        if b.is_power_of_two() {
            return None;
        }
        // 2^shift < b < 2^(shift + 1). So the factor is less than 2³². It exceeds 2^(32 + shift) / b by less than 1, so
        // the product exceeds a / b by less than a / 2^(32 + shift) < 1 / 2^(shift + 1) < 1 / b. Therefore, the product
        // is less than the next integer.
        let shift = b.ilog2();
        let factor = (1_u64 << (32 + shift)).div_ceil(u64::from(b));
        Some(Reciprocal { factor: u32::try_from(factor).expect("a factor has 32 bits"), shift })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_by_multiplication() {
        const MOST: u32 = i32::MAX as u32;
        let near_powers = (1..31).flat_map(|bit| [(1 << bit) - 1, (1 << bit) + 1, 3 << (bit - 1)]);
        for b in (3..5000).chain(near_powers).chain([128_256, 131_072 * 7, MOST - 1, MOST]) {
            let Some(Reciprocal { factor, shift }) = Reciprocal::of(b) else { continue };
            let ends = [0, 1, MOST / b / 2, MOST / b].map(|quotient| quotient * b);
            for a in ends.into_iter().flat_map(|end| [end.saturating_sub(1), end, end + b / 2]).chain([MOST])
            {
                let a = a.min(MOST);
                let product = (u64::from(a) * u64::from(factor)) >> 32 >> shift;
                assert_eq!(product, u64::from(a / b), "{a} / {b}");
            }
        }
    }
}
