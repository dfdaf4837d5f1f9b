//! Positions of order keys in a search.

use crate::dtype::Dtype;
use crate::ptx::{Int, Ptx};
use crate::semantics::arith::Arith;

/// The positions of the keys of a row. A smaller key has a larger position. The values of a 16-bit type use only a few
/// of the keys. So the low bits of their positions have no meaning, and a search can ignore these bits.
pub(super) struct Positions<'k> {
    k: &'k Ptx,
    /// The number of low bits of a key that have no meaning. They are 0 in the keys of positive values of the type, and
    /// 1 in the keys of negative values.
    unused: u32,
    /// The rank of the largest key.
    first: Int,
    /// The position of a key is this number minus the key.
    zero: Int,
}

impl<'k> Positions<'k> {
    pub(super) fn new(k: &'k Ptx, dtype: Dtype, max_key: Int) -> Positions<'k> {
        // In binary32, a subnormal binary16 number is a normal number with a shorter mantissa. So its low bits have no
        // meaning either.
        let unused = match dtype {
            Dtype::F32 => 0,
            Dtype::Bf16 => 16,
            Dtype::F16 => 13,
        };
        let first = rank(k, unused, max_key);
        Positions { k, unused, first, zero: k.shl(first, unused) }
    }

    /// The number of low bits of a position that have no meaning. The other bits are the rank of the largest key minus
    /// the rank of the value. So they are different for two different values.
    pub(super) fn unused(&self) -> u32 {
        self.unused
    }

    /// The position of a key, as an unsigned integer.
    pub(super) fn of(&self, key: Int) -> Int {
        self.k.sub(self.zero, key)
    }

    /// The position of a key minus `start`. A loop over keys computes the first subtraction only once.
    pub(super) fn from(&self, start: Int, key: Int) -> Int {
        self.k.sub(self.k.sub(self.zero, start), key)
    }

    /// Returns the key of the value at a position. The low bits of the position have no effect. No value is between
    /// this key and the values at later positions.
    pub(super) fn key_at(&self, position: Int) -> Int {
        let k = self.k;
        let distance =
            if self.unused == 0 { position } else { k.shr_by(position, k.int(self.unused as i32)) };
        key_of_rank(k, self.unused, k.sub(self.first, distance))
    }
}

/// The key divided by `2^unused`, rounded up.
///
/// The `unused` low bits of a key are 0 for a positive value and 1 for a negative value. Cleaning changes +inf to the
/// largest finite f32, whose low bits are also 1. So each value has its own rank.
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
