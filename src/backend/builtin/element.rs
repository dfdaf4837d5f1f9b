//! The three element types of logits, and functions that read them as f32 vectors.

use fearless_simd::{f32x16, i16x32, i32x16, prelude::*, u16x32, u32x16, Simd};

use super::key16::{self, Float16};
use super::lanes::{load, Lanes, LANES};
use super::layout::{BLOCK, VECTORS};
use crate::dtype::{BF16_NEG_INF, F16_NEG_INF};
use crate::semantics::arith::{Arith, Scalar};
use crate::semantics::clean::{widen_bf16, widen_f16};

/// An element type of logits.
pub(super) trait Element {
    /// The stored form of an element.
    type Bits: Copy + Send + Sync;
    /// −inf. It pads the last block, because it is never a candidate.
    const NEG_INF: Self::Bits;

    /// The value of an element.
    fn value(bits: Self::Bits) -> f32;

    /// Reads 32 consecutive elements, in order.
    fn pair<S: Simd>(simd: S, bits: &[Self::Bits; 2 * LANES]) -> [f32x16<S>; 2];

    /// Reads 32 consecutive elements, in any order.
    #[inline(always)]
    fn unordered_pair<S: Simd>(simd: S, bits: &[Self::Bits; 2 * LANES]) -> [f32x16<S>; 2] {
        Self::pair(simd, bits)
    }

    /// Returns [`LANES`] maxima of a block, each over eight elements, and a second vector. If an element is NaN, a lane
    /// of the second vector is NaN, and the maxima have no meaning.
    #[inline(always)]
    fn summary<S: Simd>(simd: S, block: &[Self::Bits; BLOCK]) -> (f32x16<S>, f32x16<S>) {
        let (chunks, _) = block.as_chunks::<{ 2 * LANES }>();
        let [a, b] = Self::unordered_pair(simd, &chunks[0]);
        let [c, d] = Self::unordered_pair(simd, &chunks[1]);
        let [e, f] = Self::unordered_pair(simd, &chunks[2]);
        let [g, h] = Self::unordered_pair(simd, &chunks[3]);
        combine([a, b, c, d, e, f, g, h])
    }
}

/// A 16-bit logits type.
pub(super) trait Element16: Element<Bits = u16> + Float16 {}

impl<E: Element<Bits = u16> + Float16> Element16 for E {}

/// The maxima and the sums of the vectors, lane by lane. A sum is NaN if an element is NaN. It can also be NaN if an
/// element is +inf or a partial sum overflows. The row is then cleaned, which costs time but changes no result.
#[inline(always)]
fn combine<S: Simd>(x: [f32x16<S>; VECTORS]) -> (f32x16<S>, f32x16<S>) {
    let [a, b, c, d, e, f, g, h] = x;
    let max = (a.max(b).max(c.max(d))).max(e.max(f).max(g.max(h)));
    let sum = ((a + b) + (c + d)) + ((e + f) + (g + h));
    (max, sum)
}

pub(super) struct F32;
pub(super) struct Bf16;
pub(super) struct F16;

impl Element for F32 {
    type Bits = f32;
    const NEG_INF: f32 = f32::NEG_INFINITY;

    #[inline(always)]
    fn value(bits: f32) -> f32 {
        bits
    }

    #[inline(always)]
    fn pair<S: Simd>(simd: S, bits: &[f32; 2 * LANES]) -> [f32x16<S>; 2] {
        [load(simd, &bits[..LANES]), load(simd, &bits[LANES..])]
    }
}

impl Float16 for Bf16 {
    const NEG_INF_BITS: u16 = BF16_NEG_INF as u16;

    #[inline(always)]
    fn widen<A: Arith>(a: A, bits: A::Int) -> A::Int {
        widen_bf16(a, bits)
    }
}

impl Element for Bf16 {
    type Bits = u16;
    const NEG_INF: u16 = Self::NEG_INF_BITS;

    #[inline(always)]
    fn value(bits: u16) -> f32 {
        f32::from_bits(widen_bf16(Scalar, i32::from(bits)) as u32)
    }

    #[inline(always)]
    fn pair<S: Simd>(simd: S, bits: &[u16; 2 * LANES]) -> [f32x16<S>; 2] {
        // The result is the same as that of `widen_bf16`. This code needs one shuffle per vector instead of a widening
        // and a shift.
        let bits = u16x32::simd_from(simd, *bits);
        if S::f32s::LEN == LANES / 2 {
            let (low, high): (u32x16<S>, u32x16<S>) = bits.widen();
            return [(low << 16_u32).bitcast(), (high << 16_u32).bitcast()];
        }
        let zero = u16x32::splat(simd, 0);
        [zero.zip_low(bits).bitcast(), zero.zip_high(bits).bitcast()]
    }

    // Splitting a vector into even and odd elements needs no shuffle.
    #[inline(always)]
    fn unordered_pair<S: Simd>(simd: S, bits: &[u16; 2 * LANES]) -> [f32x16<S>; 2] {
        even_and_odd(Lanes(simd), bits)
    }
}

/// Splits 32 bfloat16 elements into the even and the odd elements, as f32.
#[inline(always)]
fn even_and_odd<S: Simd>(a: Lanes<S>, bits: &[u16; 2 * LANES]) -> [f32x16<S>; 2] {
    let both: i32x16<S> = u16x32::simd_from(a.0, *bits).bitcast();
    [a.from_bits(widen_bf16(a, both)), a.from_bits(a.and(both, a.int(0xffff_0000_u32 as i32)))]
}

impl Float16 for F16 {
    const NEG_INF_BITS: u16 = F16_NEG_INF as u16;

    #[inline(always)]
    fn widen<A: Arith>(a: A, bits: A::Int) -> A::Int {
        widen_f16(a, bits)
    }
}

impl Element for F16 {
    type Bits = u16;
    const NEG_INF: u16 = Self::NEG_INF_BITS;

    #[inline(always)]
    fn value(bits: u16) -> f32 {
        f32::from_bits(widen_f16(Scalar, i32::from(bits)) as u32)
    }

    #[inline(always)]
    fn pair<S: Simd>(simd: S, bits: &[u16; 2 * LANES]) -> [f32x16<S>; 2] {
        let a = Lanes(simd);
        let [low, high] = zero_extended(simd, bits);
        [a.from_bits(widen_f16(a, low)), a.from_bits(widen_f16(a, high))]
    }

    // Widening binary16 is slow. So this function computes the maxima of 16-bit order keys and widens only the maxima.
    #[inline(always)]
    fn summary<S: Simd>(simd: S, block: &[u16; BLOCK]) -> (f32x16<S>, f32x16<S>) {
        let a = Lanes(simd);
        let (chunks, _) = block.as_chunks::<{ 2 * LANES }>();
        let mut max = i16x32::splat(simd, i16::MIN);
        let mut magnitude = u16x32::splat(simd, 0);
        for chunk in chunks {
            let bits = u16x32::simd_from(simd, *chunk);
            max = max.max(key16::keys(bits.bitcast()));
            magnitude = magnitude.max(bits & 0x7fff);
        }
        let [low, high] = zero_extended(simd, &key16::keys(max).bitcast::<u16x32<S>>().to_array());
        let max = a.from_bits(widen_f16(a, low)).max(a.from_bits(widen_f16(a, high)));
        let [low, high] = zero_extended(simd, &magnitude.to_array());
        let nan = a.lt(a.int(0x7c00), low.max(high));
        (max, a.from_bits(a.select(nan, a.int(f32::NAN.to_bits() as i32), a.int(0))))
    }
}

#[inline(always)]
fn zero_extended<S: Simd>(simd: S, bits: &[u16; 2 * LANES]) -> [i32x16<S>; 2] {
    let (low, high): (u32x16<S>, u32x16<S>) = u16x32::simd_from(simd, *bits).widen();
    [low.bitcast(), high.bitcast()]
}

/// Calls a generic function with the element type of a row: `with_element!(row, slice, E => function::<_, E>(simd,
/// slice))`.
macro_rules! with_element {
    ($row:expr, $slice:ident, $element:ident => $body:expr) => {
        match $row {
            $crate::dtype::Logits::F32($slice) => {
                type $element = $crate::backend::builtin::element::F32;
                $body
            }
            $crate::dtype::Logits::Bf16($slice) => {
                type $element = $crate::backend::builtin::element::Bf16;
                $body
            }
            $crate::dtype::Logits::F16($slice) => {
                type $element = $crate::backend::builtin::element::F16;
                $body
            }
        }
    };
}
pub(super) use with_element;
