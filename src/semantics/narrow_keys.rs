//! Order keys of 16-bit logits in 16 bits.
//!
//! [`order_key`](super::clean::order_key) maps every cleaned logit to a 32-bit key. A 16-bit type has at most 2¹⁶
//! values, so 16 bits are enough to order them. A search over 16-bit keys needs half as many steps.
//!
//! There are two forms. [`narrow_key`] orders the raw bits of any 16-bit float type before cleaning.
//! [`short_key`] shortens the 32-bit key of a cleaned logit, and [`full_key`] restores it. The short
//! key of bf16 has 16 bits, and that of f16 has 19 bits.

use super::arith::Arith;

/// The bits of +inf in f32.
const F32_INFINITY: i32 = 0x7f80_0000;

/// The order key of the bits of a 16-bit float, both sign-extended to 32 bits. The function is its own inverse.
///
/// The keys of NaNs are outside the range of keys from −inf to +inf. The key of −0 is one less than the key of +0.
#[inline(always)]
pub fn narrow_key<A: Arith>(a: A, bits: A::Int) -> A::Int {
    a.xor(bits, a.and(a.shr(bits, 15), a.int(0x7fff)))
}

/// The order key of a cleaned logit without its lowest `unused` bits, which have no meaning. The order stays the same.
/// `unused` is [`Dtype::unused_key_bits`](crate::dtype::Dtype::unused_key_bits) of the type of the logit.
///
/// The lowest bits of the full key are 0 for +0 and positive values. They are 1 for negative values and for the largest
/// finite f32, which replaces +inf. If they are 1, adding 1 carries into the other bits. Otherwise the other bits do
/// not change.
#[inline(always)]
pub fn short_key<A: Arith>(a: A, key: A::Int, unused: u32) -> A::Int {
    if unused == 0 {
        return key;
    }
    a.shr(a.add(key, a.int(1)), unused)
}

/// The order key that [`short_key`] shortened.
#[inline(always)]
pub fn full_key<A: Arith>(a: A, short: A::Int, unused: u32) -> A::Int {
    if unused == 0 {
        return short;
    }
    let ones = a.either(a.lt(short, a.int(0)), a.eq(short, a.int(F32_INFINITY >> unused)));
    a.sub(a.shl(short, unused), a.select(ones, a.int(1), a.int(0)))
}

#[cfg(test)]
mod tests {
    use super::super::arith::Scalar;
    use super::super::clean::{clean, is_nan, order_key, widen_bf16, widen_f16};
    use super::*;
    use crate::dtype::Dtype;

    /// Every bit pattern of a 16-bit type, with its f32 bits.
    fn patterns(widen: fn(Scalar, i32) -> i32) -> impl Iterator<Item = (u16, i32)> {
        (0..=u16::MAX).map(move |bits| (bits, widen(Scalar, i32::from(bits))))
    }

    fn key_of_bits(bits: u16) -> i32 {
        narrow_key(Scalar, i32::from(bits as i16))
    }

    #[test]
    fn narrow_keys_order_like_the_values() {
        for widen in [widen_bf16, widen_f16] {
            let mut numbers: Vec<(i32, f32)> = patterns(widen)
                .filter(|&(_, wide)| !is_nan(Scalar, wide))
                .map(|(bits, wide)| (key_of_bits(bits), f32::from_bits(wide as u32)))
                .collect();
            numbers.sort_by_key(|&(key, _)| key);
            assert!(numbers.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
            let (least, most) = (numbers[0].0, numbers[numbers.len() - 1].0);
            for (bits, wide) in patterns(widen) {
                let key = key_of_bits(bits);
                assert_eq!(narrow_key(Scalar, key) as u16, bits);
                assert_eq!(key < least || key > most, is_nan(Scalar, wide), "{bits:#06x}");
            }
        }
    }

    #[test]
    fn short_keys_order_like_the_full_keys_and_restore_them() {
        for (dtype, widen) in [(Dtype::Bf16, widen_bf16 as fn(Scalar, i32) -> i32), (Dtype::F16, widen_f16)] {
            let unused = dtype.unused_key_bits();
            let mut keys: Vec<i32> =
                patterns(widen).map(|(_, wide)| order_key(Scalar, clean(Scalar, wide))).collect();
            keys.sort_unstable();
            keys.dedup();
            let short: Vec<i32> = keys.iter().map(|&key| short_key(Scalar, key, unused)).collect();
            assert!(short.windows(2).all(|pair| pair[0] < pair[1]));
            for (&key, &short) in keys.iter().zip(&short) {
                assert!(dtype == Dtype::F16 || i32::from(short as i16) == short, "a bf16 logit has 16 bits");
                assert_eq!(full_key(Scalar, short, unused), key, "{key:#x}");
            }
        }
        let unused = Dtype::F32.unused_key_bits();
        assert_eq!((short_key(Scalar, -5, unused), full_key(Scalar, -5, unused)), (-5, -5));
    }
}
