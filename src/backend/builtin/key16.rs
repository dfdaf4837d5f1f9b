//! Order keys of the 16-bit logits types. The keys are 16-bit integers in the same order as the values.
//!
//! [`narrow_key`] defines the keys. The values are not cleaned. The keys of NaNs are below the key of −inf or above the
//! key of +inf.

use fearless_simd::{i16x32, prelude::*, u16x32, Simd};

use crate::semantics::arith::{Arith, Scalar};
use crate::semantics::narrow_keys::narrow_key;

/// A 16-bit logits type.
pub(super) trait Float16 {
    /// The bits of −inf.
    const NEG_INF_BITS: u16;

    /// Converts an element, given as its zero-extended bits, to f32 bits. The conversion is exact.
    fn widen<A: Arith>(a: A, bits: A::Int) -> A::Int;
}

/// Maps the bits of 32 elements to their keys. The function is its own inverse.
///
/// This is [`narrow_key`] on 16-bit lanes, which [`Arith`] does not support. A register holds twice as many 16-bit
/// lanes as 32-bit lanes.
#[inline(always)]
pub(super) fn keys<S: Simd>(bits: i16x32<S>) -> i16x32<S> {
    let sign: u16x32<S> = (bits >> 15_u32).bitcast();
    bits ^ (sign >> 1_u32).bitcast::<i16x32<S>>()
}

/// Maps the bits of one element to its key: [`keys`] without SIMD.
pub(super) fn key_of(bits: u16) -> i16 {
    narrow_key(Scalar, i32::from(bits as i16)) as i16
}

/// The key of −inf.
pub(super) fn least_key<F: Float16>() -> i16 {
    key_of(F::NEG_INF_BITS)
}

/// The key of +inf.
pub(super) fn largest_key<F: Float16>() -> i16 {
    -1 - least_key::<F>()
}

/// The value that has this key.
pub(super) fn value_of<F: Float16>(key: i16) -> f32 {
    let bits = key_of(key as u16) as u16;
    f32::from_bits(F::widen(Scalar, i32::from(bits)) as u32)
}

/// The least key whose value is at least `bound`. `bound` is finite.
pub(super) fn least_key_at_least<F: Float16>(bound: f32) -> i16 {
    let (mut below, mut reaches) = (least_key::<F>(), largest_key::<F>());
    while reaches - 1 > below {
        let middle = ((i32::from(below) + i32::from(reaches)) >> 1) as i16;
        if value_of::<F>(middle) >= bound {
            reaches = middle;
        } else {
            below = middle;
        }
    }
    reaches
}

#[cfg(test)]
mod tests {
    use fearless_simd::{dispatch, Level};

    use super::super::bounds::{bound_of_key, LEAST_KEY};
    use super::super::element::{Bf16, F16};
    use super::*;

    #[test]
    fn keys_of_vectors_are_the_keys_of_their_elements() {
        let level = Level::new();
        for first in (0..1_u32 << 16).step_by(32) {
            let bits: [i16; 32] = std::array::from_fn(|i| (first + i as u32) as u16 as i16);
            let found: [i16; 32] = dispatch!(level, simd => keys(i16x32::simd_from(simd, bits)).into());
            assert_eq!(found, bits.map(|bits| key_of(bits as u16)), "from {first:#x}");
        }
    }

    /// An element is at least the bound if and only if its key is at least the key of the bound.
    #[test]
    fn least_keys_divide_elements_as_bounds_do() {
        fn check<F: Float16>(bound: f32) {
            let least = least_key_at_least::<F>(bound);
            for bits in 0..=u16::MAX {
                let value = f32::from_bits(F::widen(Scalar, i32::from(bits)) as u32);
                if !value.is_nan() {
                    assert_eq!(key_of(bits) >= least, value >= bound, "{bits:#x}, bound {bound}");
                }
            }
        }
        for key in [LEAST_KEY, -0x4123_4567, -1, 0, 1, 0x0080_0000, 0x3f80_0000, 0x4123_4567, 0x7f7f_ffff] {
            check::<Bf16>(bound_of_key(key));
            check::<F16>(bound_of_key(key));
        }
    }
}
