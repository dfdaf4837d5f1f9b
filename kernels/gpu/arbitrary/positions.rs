//! Positions of order keys in a search.

use crate::dtype::Dtype;
use crate::ptx::{Int, Ptx};
use crate::semantics::arith::Arith;

/// The positions of the keys of a row: their distances from the largest key. All keys of the values of a 16-bit type
/// have the same low bits. The positions do not contain these bits, so a search needs fewer steps to separate them.
pub(super) struct Positions<'k> {
    k: &'k Ptx,
    /// The number of low bits that are equal in all values of the type: 0 in positive values and 1 in negative ones.
    unused: u32,
    /// The rank of the largest key.
    first: Int,
}

impl<'k> Positions<'k> {
    pub(super) fn new(k: &'k Ptx, dtype: Dtype, max_key: Int) -> Positions<'k> {
        // A subnormal binary16 number is a normal number with a shorter mantissa in binary32.
        let unused = match dtype {
            Dtype::F32 => 0,
            Dtype::Bf16 => 16,
            Dtype::F16 => 13,
        };
        Positions { k, unused, first: rank(k, unused, max_key) }
    }

    /// The position of a key. Different values have different positions. If a key is not one of a value, its position
    /// is the one of the next larger value.
    pub(super) fn of(&self, key: Int) -> Int {
        self.k.sub(self.first, rank(self.k, self.unused, key))
    }

    /// The key of the value at a position. No value is between this key and the values at the next position.
    pub(super) fn key_at(&self, position: Int) -> Int {
        key_of_rank(self.k, self.unused, self.k.sub(self.first, position))
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
