//! Positions of order keys in a search.

use crate::dtype::Dtype;
use crate::ptx::{Int, Ptx};
use crate::semantics::arith::Arith;
use crate::semantics::narrow_keys::{full_key, short_key};

/// The positions of the keys of a row. A smaller key has a larger position. The values of a 16-bit type use only a few
/// of the keys. So the low bits of their positions have no meaning, and a search can ignore these bits.
pub(super) struct Positions<'k> {
    k: &'k Ptx,
    /// The number of low bits of a key that have no meaning: see [`Dtype::unused_key_bits`].
    unused: u32,
    /// The short key of the maximum.
    first: Int,
    /// The position of a key is this number minus the key.
    zero: Int,
}

impl<'k> Positions<'k> {
    pub(super) fn new(k: &'k Ptx, dtype: Dtype, max_key: Int) -> Positions<'k> {
        let unused = dtype.unused_key_bits();
        let first = short_key(k, max_key, unused);
        Positions { k, unused, first, zero: k.shl(first, unused) }
    }

    /// The number of low bits of a position that have no meaning. The other bits are the short key of the maximum minus
    /// that of the value. So the other bits are different for two different values.
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
        full_key(k, k.sub(self.first, distance), self.unused)
    }
}
