//! Positions of order keys in a search.

use crate::dtype::Dtype;
use crate::ptx::{Int, Ptx};
use crate::semantics::arith::Arith;

/// The positions of the keys of a row. A key with a larger position is less. The values of a 16-bit type have only a
/// few of the keys. So the low bits of a position have no meaning, and a search need not separate them.
pub(super) struct Positions<'k> {
    k: &'k Ptx,
    /// The number of low bits that are equal in all values of the type: 0 in positive values and 1 in negative ones.
    unused: u32,
    /// The rank of the largest key.
    first: Int,
    /// The position of a key is this number minus the key.
    zero: Int,
}

impl<'k> Positions<'k> {
    pub(super) fn new(k: &'k Ptx, dtype: Dtype, max_key: Int) -> Positions<'k> {
        // A subnormal binary16 number is a normal number with a shorter mantissa in binary32.
        let unused = match dtype {
            Dtype::F32 => 0,
            Dtype::Bf16 => 16,
            Dtype::F16 => 13,
        };
        let first = rank(k, unused, max_key);
        Positions { k, unused, first, zero: k.shl(first, unused) }
    }

    /// The number of low bits of a position that have no meaning. The positions of two different values also differ in
    /// other bits, because the other bits are the difference of the ranks of the largest key and the value.
    pub(super) fn unused(&self) -> u32 {
        self.unused
    }

    /// The position of a key, as an unsigned integer.
    pub(super) fn of(&self, key: Int) -> Int {
        self.k.sub(self.zero, key)
    }

    /// The position of a key minus `start`. All keys of a loop share the first subtraction.
    pub(super) fn from(&self, start: Int, key: Int) -> Int {
        self.k.sub(self.k.sub(self.zero, start), key)
    }

    /// The key of the value at a position, whatever its low bits are. No value is between this key and the values at
    /// later positions.
    pub(super) fn key_at(&self, position: Int) -> Int {
        let k = self.k;
        let distance =
            if self.unused == 0 { position } else { k.shr_by(position, k.int(self.unused as i32)) };
        key_of_rank(k, self.unused, k.sub(self.first, distance))
    }
}

/// The key divided by `2^unused`, rounded up.
///
/// Keys of positive values have `unused` low bits that are 0, and those of negative values have low bits that are 1.
/// +inf becomes the largest finite f32, whose low bits are 1 too. So each value has its own rank.
fn rank<A: Arith>(a: A, unused: u32, key: A::Int) -> A::Int {
    if unused == 0 {
        return key;
    }
    a.shr(a.add(key, a.int((1 << unused) - 1)), unused)
}

/// The key of the value with this rank.
fn key_of_rank<A: Arith>(a: A, unused: u32, rank: A::Int) -> A::Int {
    if unused == 0 {
        return rank;
    }
    // The largest finite f32 has the rank that +inf would have without cleaning.
    let infinity = a.int(0x7f80_0000 >> unused);
    let has_zeros = a.both(a.le(a.int(0), rank), a.lt(rank, infinity));
    a.sub(a.shl(rank, unused), a.select(has_zeros, a.int(0), a.int(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::arith::Scalar;
    use crate::semantics::clean::{clean, order_key, widen_bf16, widen_f16};

    /// Each value of a 16-bit type has its own rank, in the same order, and the rank determines its key.
    #[test]
    fn every_value_has_its_own_rank() {
        for unused in [16, 13] {
            let widen = |bits| if unused == 16 { widen_bf16(Scalar, bits) } else { widen_f16(Scalar, bits) };
            let mut keys: Vec<i32> =
                (0..1 << 16).map(|bits| order_key(Scalar, clean(Scalar, widen(bits)))).collect();
            keys.sort_unstable();
            keys.dedup();
            let ranks: Vec<i32> = keys.iter().map(|&key| rank(Scalar, unused, key)).collect();
            assert!(ranks.windows(2).all(|pair| pair[0] < pair[1]));
            for (&key, &rank) in keys.iter().zip(&ranks) {
                assert_eq!(key_of_rank(Scalar, unused, rank), key, "{key:#x}");
            }
        }
        assert_eq!((rank(Scalar, 0, -5), key_of_rank(Scalar, 0, -5)), (-5, -5));
    }
}
