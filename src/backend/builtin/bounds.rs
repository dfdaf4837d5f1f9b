//! Converts order keys to float bounds. A raw logit is at least the bound if and only if the order key of its cleaned
//! value is at least the key.
//!
//! With these bounds, the passes over a row compare raw floats and do not clean them.

use crate::semantics::arith::Scalar;
use crate::semantics::clean::{clean, order_key, MAX_FINITE_BITS};

pub(super) use crate::semantics::rules::LEAST_CANDIDATE_KEY as LEAST_KEY;

/// The order key of a logit that has not been cleaned.
pub(super) fn key_of(value: f32) -> i32 {
    order_key(Scalar, clean(Scalar, value.to_bits() as i32))
}

/// The least float whose cleaned order key is at least `key`. `key` should be at least [`LEAST_KEY`].
pub(super) fn bound_of_key(key: i32) -> f32 {
    const MIN_NORMAL: i32 = 0x0080_0000;
    const MAX_NEGATIVE: i32 = -MIN_NORMAL;
    let bits = match key {
        // Cleaning changes −0 and every subnormal to 0.
        MAX_NEGATIVE..=0 => 0x807f_ffff_u32 as i32,
        1..MIN_NORMAL => MIN_NORMAL,
        _ if key > 0 => key.min(MAX_FINITE_BITS),
        _ => order_key(Scalar, key.max(LEAST_KEY)),
    };
    f32::from_bits(bits as u32)
}

/// The lower limit of a pass that collects the entries of a row in order.
///
/// A pass for top-k does not need all ties. Once k entries are collected, an entry that equals the bound is after k
/// entries in the order (key descending, position ascending), so top-k never keeps it. From then on the pass collects
/// only entries above the bound. The pass decides this before each block. So the number of entries before a block
/// determines which entries of the block were collected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// All entries that are at least this bound are collected, until `enough` entries are collected.
    pub(super) bound: f32,
    /// The bound once `enough` entries are collected.
    pub(super) later: f32,
    /// The number of collected entries from which `later` is the bound.
    pub(super) enough: usize,
}

impl Limit {
    /// Collects every entry that is at least `bound`.
    pub(super) fn fixed(bound: f32) -> Limit {
        Limit { bound, later: bound, enough: usize::MAX }
    }

    /// Collects the entries that are at least `bound` and that can be among the first `k` entries.
    pub(super) fn of_first(k: usize, bound: f32) -> Limit {
        Limit { bound, later: bound_of_key(key_of(bound) + 1), enough: k }
    }

    /// The bound for a block, given the number of entries that were collected before it.
    #[inline(always)]
    pub(super) fn at(&self, collected: usize) -> f32 {
        if collected >= self.enough {
            // `black_box` makes the compiler emit a branch, which the processor can predict. With a conditional move,
            // each block would wait until the entries of the previous block are counted.
            std::hint::black_box(self.later)
        } else {
            self.bound
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A raw float is at least the bound of a key if and only if its own key is at least that key.
    #[test]
    fn bounds_divide_raw_floats_as_keys_divide_cleaned_ones() {
        let magnitudes =
            [0, 1, 0x7f_fffe, 0x7f_ffff, 0x80_0000, 0x80_0001, 0x3f80_0000, 0x7f7f_fffe, 0x7f7f_ffff];
        let all: Vec<u32> = magnitudes.iter().flat_map(|&bits| [bits, bits | 0x8000_0000]).collect();
        for &bits in &all {
            // The threshold search also returns keys that no cleaned value has.
            let key = order_key(Scalar, bits as i32);
            for x in all.iter().copied().chain([0x7f80_0000, 0xff80_0000]) {
                let x = f32::from_bits(x);
                assert_eq!(x >= bound_of_key(key), key_of(x) >= key, "{x:e} and key {key}");
            }
        }
    }
}
