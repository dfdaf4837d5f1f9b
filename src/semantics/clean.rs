//! Cleaning of logits, and the order for comparing them.
//!
//! All comparisons here are integer comparisons of bits. Accelerators flush subnormal floats at different points, so a
//! float comparison near zero could give different results on different devices. An integer comparison cannot.

use super::arith::Arith;

/// The largest finite f32 as bits. +inf becomes this value.
pub const MAX_FINITE_BITS: i32 = 0x7f7f_ffff;
/// −inf as bits. NaN becomes this value. It is not a candidate.
pub const NEG_INF_BITS: i32 = 0xff80_0000_u32 as i32;
/// The [`order_key`] of −inf, the least key of a cleaned value.
pub const NEG_INF_KEY: i32 = NEG_INF_BITS ^ 0x7fff_ffff;

const EXPONENT: i32 = 0x7f80_0000;
const MAGNITUDE: i32 = 0x7fff_ffff;

/// Converts a bf16 number, given as its zero-extended bits, to f32 bits. The conversion is exact.
#[inline(always)]
pub fn widen_bf16<A: Arith>(a: A, bits: A::Int) -> A::Int {
    a.shl(bits, 16)
}

/// Converts a binary16 number, given as its zero-extended bits, to f32 bits. The conversion is exact.
///
/// A binary16 subnormal becomes a normal f32. A device's conversion instruction may flush it to zero, so this function
/// does not use that instruction.
#[inline(always)]
pub fn widen_f16<A: Arith>(a: A, bits: A::Int) -> A::Int {
    let sign = a.shl(a.and(bits, a.int(0x8000)), 16);
    let exponent = a.and(bits, a.int(0x7c00));
    let mantissa = a.and(bits, a.int(0x03ff));
    let normal = a.add(a.shl(a.and(bits, a.int(0x7fff)), 13), a.int((127 - 15) << 23));
    let special = a.or(a.int(EXPONENT), a.shl(mantissa, 13));
    let subnormal = a.to_bits(a.fmul(a.to_float(mantissa), a.float(1.0 / 16_777_216.0)));
    let magnitude = a.select(
        a.eq(exponent, a.int(0)),
        subnormal,
        a.select(a.eq(exponent, a.int(0x7c00)), special, normal),
    );
    a.or(sign, magnitude)
}

/// Whether f32 bits are a NaN.
#[inline(always)]
pub fn is_nan<A: Arith>(a: A, bits: A::Int) -> A::Mask {
    a.lt(a.int(EXPONENT), a.and(bits, a.int(MAGNITUDE)))
}

/// Whether f32 bits are +inf.
#[inline(always)]
pub fn is_infinity<A: Arith>(a: A, bits: A::Int) -> A::Mask {
    a.eq(bits, a.int(EXPONENT))
}

/// Cleans f32 bits: NaN → −inf, +inf → the largest finite f32, −0 and subnormals → +0.
#[inline(always)]
pub fn clean<A: Arith>(a: A, bits: A::Int) -> A::Int {
    let magnitude = a.and(bits, a.int(MAGNITUDE));
    let flushed = a.select(a.lt(magnitude, a.int(0x0080_0000)), a.int(0), bits);
    let finite = a.select(is_infinity(a, bits), a.int(MAX_FINITE_BITS), flushed);
    a.select(is_nan(a, bits), a.int(NEG_INF_BITS), finite)
}

/// Maps cleaned bits to integers that have the same order as the values. The function is its own inverse.
#[inline(always)]
pub fn order_key<A: Arith>(a: A, bits: A::Int) -> A::Int {
    a.xor(bits, a.and(a.shr(bits, 31), a.int(MAGNITUDE)))
}

/// A cleaned value as bits of a 16-bit type, from the original 16 bits and their f32 bits.
///
/// Cleaning changes NaN (to −inf) and values that are zero or subnormal as f32 (to +0). +inf stays, because the largest
/// finite f32 rounds to it in both 16-bit types.
#[inline(always)]
pub fn clean_narrow<A: Arith>(a: A, narrow: A::Int, wide_bits: A::Int, neg_inf: i32) -> A::Int {
    let zero = a.lt(a.and(wide_bits, a.int(MAGNITUDE)), a.int(0x0080_0000));
    let flushed = a.select(zero, a.int(0), narrow);
    a.select(is_nan(a, wide_bits), a.int(neg_inf), flushed)
}
