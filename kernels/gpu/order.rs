//! Entries as 64-bit integers that have the order of top-k.

use crate::ptx::{Int, Mask, Ptx, Wide};
use crate::semantics::arith::{Arith, WideArith};

/// An entry of a row. Its bits, as an unsigned integer, are larger for an entry that is earlier in the order (key
/// descending, index ascending). A place without an entry has the bits 0, which are after every entry.
#[derive(Clone, Copy)]
pub(super) struct Order {
    low: Int,
    high: Int,
}

impl Order {
    /// The halves of a place without an entry.
    pub(super) const NONE: [i32; 2] = [0, 0];

    pub(super) fn new(k: &Ptx, key: Int, index: Int) -> Order {
        // An exclusive or with the sign bit maps signed integers to unsigned integers of the same order.
        Order { low: k.xor(index, k.int(-1)), high: k.xor(key, k.int(i32::MIN)) }
    }

    /// The entry with these bits, the low half first.
    pub(super) fn of_halves([low, high]: [Int; 2]) -> Order {
        Order { low, high }
    }

    pub(super) fn halves(self) -> [Int; 2] {
        [self.low, self.high]
    }

    /// The order key; `i32::MIN` for a place without an entry.
    pub(super) fn key(self, k: &Ptx) -> Int {
        k.xor(self.high, k.int(i32::MIN))
    }

    /// The index in the row; −1 for a place without an entry.
    pub(super) fn index(self, k: &Ptx) -> Int {
        k.xor(self.low, k.int(-1))
    }

    /// Whether this entry is before `other`.
    pub(super) fn is_before(self, k: &Ptx, other: Order) -> Mask {
        k.wlt(other.bits(k), self.bits(k))
    }

    fn bits(self, k: &Ptx) -> Wide {
        k.join(self.low, self.high)
    }
}
