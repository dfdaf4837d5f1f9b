//! The digits of the order keys, by which top-k selects.

use super::table::Shape;
use crate::kernels::gpu::parameters::Parameters;
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Spec;
use crate::ptx::{Int, Mask, Ptx};
use crate::semantics::arith::Arith;

/// A digit of an order key after [`reversed`]. So a larger key comes first in the order of its digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Digit {
    First,
    Second,
    Third,
}

impl Digit {
    /// The number of bits of the digit, and the number of bits after it.
    pub(super) const fn bits(self) -> (u32, u32) {
        match self {
            Digit::First => (11, 21),
            Digit::Second => (11, 10),
            Digit::Third => (10, 0),
        }
    }

    /// The table of the digit. A bin contains the number of keys.
    pub(super) const fn shape(self) -> Shape {
        Shape { bins: 1 << self.bits().0, words: 1 }
    }

    /// The digit of a key.
    pub(super) fn of(self, k: &Ptx, key: Int) -> Int {
        let (bits, after) = self.bits();
        let digit = k.shr_by(reversed(k, key), k.int(after as i32));
        if self == Digit::First {
            return digit;
        }
        k.and(digit, k.int((1 << bits) - 1))
    }

    /// All digits of a key before this one, which is not the first digit.
    pub(super) fn before(self, k: &Ptx, key: Int) -> Int {
        let (bits, after) = self.bits();
        k.shr_by(reversed(k, key), k.int((bits + after) as i32))
    }
}

/// Maps keys to unsigned integers of the opposite order, and back.
pub(super) fn reversed(k: &Ptx, key: Int) -> Int {
    k.xor(key, k.int(i32::MAX))
}

/// Whether the results of a row depend on top-k. The results of a greedy row depend on it only if they include the
/// entries that top-k kept.
pub(super) fn needs_top_k(k: &Ptx, spec: &Spec, parameters: &Parameters<'_>) -> Mask {
    let has_top_k = k.lt(k.int(0), parameters.get(Column::K));
    if spec.wanted.shows_top_k() {
        return has_top_k;
    }
    k.both(has_top_k, k.eq(parameters.get(Column::Greedy), k.int(0)))
}
