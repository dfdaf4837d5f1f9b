//! Reading logits of the three types into f32 lanes.

use fearless_simd::{f32x16, i16x32, i32x16, prelude::*, u16x32, u32x16, Simd};

use super::lanes::{load, Lanes, LANES};
use crate::dtype::{BF16_NEG_INF, F16_NEG_INF};
use crate::semantics::arith::Arith;
use crate::semantics::clean::{widen_bf16, widen_f16};

/// Elements of a block: what the scan keeps sixteen maxima of.
pub(super) const BLOCK: usize = 128;
/// Vectors in a block.
pub(super) const VECTORS: usize = BLOCK / LANES;

/// Runs a statement on each vector of a block in order: `for_vectors!(S, F, simd, block, x => …)`.
// Not an iterator: what std compiles for one outside this crate's `inline(always)` lacks the machine's instructions.
// Not unrolled either: the scalar and 128-bit levels would take minutes to compile.
macro_rules! for_vectors {
    ($format:ty, $simd:expr, $block:expr, $x:ident => $body:expr) => {
        for pair in $block.as_chunks::<{ 2 * $crate::backend::builtin::lanes::LANES }>().0 {
            let [first, second] = <$format as $crate::backend::builtin::format::Format>::pair($simd, pair);
            {
                let $x = first;
                $body
            }
            {
                let $x = second;
                $body
            }
        }
    };
}
pub(super) use for_vectors;

/// A logits type.
pub(super) trait Format {
    /// An element as it lies in memory.
    type Bits: Copy + Send + Sync;
    /// Pads the last block: never a candidate.
    const NEG_INF: Self::Bits;

    /// 32 consecutive elements, in order.
    fn pair<S: Simd>(simd: S, bits: &[Self::Bits; 2 * LANES]) -> [f32x16<S>; 2];

    /// Maxima of a block, each over eight elements of it, and a float that is NaN if an element was. The maxima
    /// mean nothing in a block with a NaN.
    #[inline(always)]
    fn summary<S: Simd>(simd: S, block: &[Self::Bits; BLOCK]) -> (f32x16<S>, f32x16<S>) {
        let (chunks, _) = block.as_chunks::<{ 2 * LANES }>();
        let [a, b] = Self::pair(simd, &chunks[0]);
        let [c, d] = Self::pair(simd, &chunks[1]);
        let [e, f] = Self::pair(simd, &chunks[2]);
        let [g, h] = Self::pair(simd, &chunks[3]);
        combine([a, b, c, d, e, f, g, h])
    }
}

/// A 16-bit logits type: sign and magnitude, infinity the largest that is not a NaN.
pub(super) trait Half: Format<Bits = u16> {
    /// The f32 bits of an element given as its 16 bits, zero-extended. Exact.
    fn widen<A: Arith>(a: A, bits: A::Int) -> A::Int;
}

impl Half for Bf16 {
    #[inline(always)]
    fn widen<A: Arith>(a: A, bits: A::Int) -> A::Int {
        widen_bf16(a, bits)
    }
}

impl Half for F16 {
    #[inline(always)]
    fn widen<A: Arith>(a: A, bits: A::Int) -> A::Int {
        widen_f16(a, bits)
    }
}

/// Maxima, and a sum that is NaN if an element is. The sum can also be NaN where +inf is about, which costs time
/// but not correctness.
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

impl Format for F32 {
    type Bits = f32;
    const NEG_INF: f32 = f32::NEG_INFINITY;

    #[inline(always)]
    fn pair<S: Simd>(simd: S, bits: &[f32; 2 * LANES]) -> [f32x16<S>; 2] {
        [load(simd, &bits[..LANES]), load(simd, &bits[LANES..])]
    }
}

impl Format for Bf16 {
    type Bits = u16;
    const NEG_INF: u16 = BF16_NEG_INF as u16;

    #[inline(always)]
    fn pair<S: Simd>(simd: S, bits: &[u16; 2 * LANES]) -> [f32x16<S>; 2] {
        // What `widen_bf16` does, in one shuffle a vector instead of a widening and a shift.
        let zero = u16x32::splat(simd, 0);
        let bits = u16x32::simd_from(simd, *bits);
        [zero.zip_low(bits).bitcast(), zero.zip_high(bits).bitcast()]
    }

    // Order does not matter here, so a vector of pairs is split into its even and its odd elements, which needs no
    // shuffles.
    #[inline(always)]
    fn summary<S: Simd>(simd: S, block: &[u16; BLOCK]) -> (f32x16<S>, f32x16<S>) {
        let a = Lanes(simd);
        let (chunks, _) = block.as_chunks::<{ 2 * LANES }>();
        let [a0, a1] = split(a, &chunks[0]);
        let [b0, b1] = split(a, &chunks[1]);
        let [c0, c1] = split(a, &chunks[2]);
        let [d0, d1] = split(a, &chunks[3]);
        combine([a0, a1, b0, b1, c0, c1, d0, d1])
    }
}

/// 32 bfloat16 elements as f32: the even ones and the odd ones.
#[inline(always)]
fn split<S: Simd>(a: Lanes<S>, bits: &[u16; 2 * LANES]) -> [f32x16<S>; 2] {
    let both: i32x16<S> = u16x32::simd_from(a.0, *bits).bitcast();
    [a.from_bits(widen_bf16(a, both)), a.from_bits(a.and(both, a.int(0xffff_0000_u32 as i32)))]
}

impl Format for F16 {
    type Bits = u16;
    const NEG_INF: u16 = F16_NEG_INF as u16;

    #[inline(always)]
    fn pair<S: Simd>(simd: S, bits: &[u16; 2 * LANES]) -> [f32x16<S>; 2] {
        let a = Lanes(simd);
        let [low, high] = widened(simd, bits);
        [a.from_bits(widen_f16(a, low)), a.from_bits(widen_f16(a, high))]
    }

    // Widening binary16 is dear, so the maximum is taken over 16-bit order keys and widened afterwards.
    #[inline(always)]
    fn summary<S: Simd>(simd: S, block: &[u16; BLOCK]) -> (f32x16<S>, f32x16<S>) {
        let a = Lanes(simd);
        let (chunks, _) = block.as_chunks::<{ 2 * LANES }>();
        let mut max = i16x32::splat(simd, i16::MIN);
        let mut magnitude = u16x32::splat(simd, 0);
        for chunk in chunks {
            let bits = u16x32::simd_from(simd, *chunk);
            max = max.max(key16(bits.bitcast()));
            magnitude = magnitude.max(bits & 0x7fff);
        }
        let [low, high] = widened(simd, &key16(max).bitcast::<u16x32<S>>().to_array());
        let max = a.from_bits(widen_f16(a, low)).max(a.from_bits(widen_f16(a, high)));
        let [low, high] = widened(simd, &magnitude.to_array());
        let nan = a.lt(a.int(0x7c00), low.max(high));
        (max, a.from_bits(a.select(nan, a.int(f32::NAN.to_bits() as i32), a.int(0))))
    }
}

/// Maps the bits of a 16-bit logits type to integers that order like the values do. Its own inverse.
#[inline(always)]
pub(super) fn key16<S: Simd>(bits: i16x32<S>) -> i16x32<S> {
    let sign: u16x32<S> = (bits >> 15_u32).bitcast();
    bits ^ (sign >> 1_u32).bitcast::<i16x32<S>>()
}

#[inline(always)]
fn widened<S: Simd>(simd: S, bits: &[u16; 2 * LANES]) -> [i32x16<S>; 2] {
    let (low, high): (u32x16<S>, u32x16<S>) = u16x32::simd_from(simd, *bits).widen();
    [low.bitcast(), high.bitcast()]
}

/// A row cut into blocks; the last one is padded.
pub(super) struct Blocks<'a, F: Format> {
    whole: &'a [[F::Bits; BLOCK]],
    tail: [F::Bits; BLOCK],
}

impl<'a, F: Format> Blocks<'a, F> {
    #[inline(always)]
    pub(super) fn new(row: &'a [F::Bits]) -> Self {
        let (whole, rest) = row.as_chunks::<BLOCK>();
        let mut tail = [F::NEG_INF; BLOCK];
        tail[..rest.len()].copy_from_slice(rest);
        Blocks { whole, tail }
    }

    /// The block at `index`; what lies past the row's end reads as the tail.
    #[inline(always)]
    pub(super) fn get(&self, index: usize) -> &[F::Bits; BLOCK] {
        self.whole.get(index).unwrap_or(&self.tail)
    }
}

/// Runs a kernel on a row of whichever type: `with_format!(row, slice, F => kernel::<_, F>(simd, slice))`.
macro_rules! with_format {
    ($row:expr, $slice:ident, $format:ident => $body:expr) => {
        match $row {
            $crate::dtype::Logits::F32($slice) => {
                type $format = $crate::backend::builtin::format::F32;
                $body
            }
            $crate::dtype::Logits::Bf16($slice) => {
                type $format = $crate::backend::builtin::format::Bf16;
                $body
            }
            $crate::dtype::Logits::F16($slice) => {
                type $format = $crate::backend::builtin::format::F16;
                $body
            }
        }
    };
}
pub(super) use with_format;
