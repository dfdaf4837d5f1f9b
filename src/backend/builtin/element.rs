//! The three element types of logits, and functions that read them as f32 vectors.

use std::hint::black_box;

use fearless_simd::{
    f32x16, f32x4, f32x8, i16x16, i16x32, i32x16, mask32x8, prelude::*, u16x16, u16x32, u32x16, Simd,
};

use super::key16::Float16;
use super::lanes::{load, Lanes, LANES};
use super::layout::{BIN, BLOCK};
use crate::dtype::{BF16_NEG_INF, F16_NEG_INF};
use crate::semantics::arith::{Arith, Scalar};
use crate::semantics::clean::{widen_bf16, widen_f16};

/// An element type of logits.
pub(super) trait Element {
    /// The stored form of an element.
    type Bits: Copy + Send + Sync;
    /// −inf. It pads the last block, because it is never a candidate.
    const NEG_INF: Self::Bits;
    /// Whether each of the [`BIN`] maxima of a block is the maximum of consecutive elements. For 16-bit types, such
    /// maxima would need more operations, because the scan reduces a block to one vector before it widens the elements.
    const CONSECUTIVE_BINS: bool;

    /// The value of an element.
    fn value(bits: Self::Bits) -> f32;

    /// Reads 32 consecutive elements, in order.
    fn pair<S: Simd>(simd: S, bits: &[Self::Bits; 2 * LANES]) -> [f32x16<S>; 2];

    /// Reads 32 consecutive elements, in any order.
    #[inline(always)]
    fn unordered_pair<S: Simd>(simd: S, bits: &[Self::Bits; 2 * LANES]) -> [f32x16<S>; 2] {
        Self::pair(simd, bits)
    }

    /// The part of a scan's state that shows whether an element was NaN.
    type Watch<S: Simd>: Copy;

    /// The state before the first element.
    fn watch<S: Simd>(simd: S) -> Self::Watch<S>;

    /// Returns NaN if an element was NaN. It can also return NaN if an element was +inf or if a sum overflowed. The row
    /// is then cleaned, which costs time but changes no result.
    fn poison<S: Simd>(watch: Self::Watch<S>) -> f32;

    /// Returns [`LANES`] maxima of a block, each over eight elements. They have no meaning if an element is NaN.
    fn maxima<S: Simd>(simd: S, block: &[Self::Bits; BLOCK], watch: &mut Self::Watch<S>) -> f32x16<S>;

    /// Returns the [`BIN`] maxima of a block that the scan records. Also updates [`LANES`] running maxima, each over
    /// eight elements of the block. They have no meaning if an element is NaN.
    fn all_maxima<S: Simd>(
        simd: S,
        block: &[Self::Bits; BLOCK],
        watch: &mut Self::Watch<S>,
        max: &mut [f32x8<S>; 2],
    ) -> f32x4<S>;
}

/// A 16-bit logits type.
pub(super) trait Element16: Element<Bits = u16> + Float16 {}

impl<E: Element<Bits = u16> + Float16> Element16 for E {}

pub(super) struct F32;
pub(super) struct Bf16;
pub(super) struct F16;

impl Element for F32 {
    type Bits = f32;
    type Watch<S: Simd> = Sum<S>;
    const NEG_INF: f32 = f32::NEG_INFINITY;
    const CONSECUTIVE_BINS: bool = true;

    #[inline(always)]
    fn value(bits: f32) -> f32 {
        bits
    }

    #[inline(always)]
    fn pair<S: Simd>(simd: S, bits: &[f32; 2 * LANES]) -> [f32x16<S>; 2] {
        [load(simd, &bits[..LANES]), load(simd, &bits[LANES..])]
    }

    #[inline(always)]
    fn watch<S: Simd>(simd: S) -> Sum<S> {
        Sum { sums: [f32x16::splat(simd, 0.0); BIN], one: f32x16::splat(simd, black_box(1.0)) }
    }

    #[inline(always)]
    fn poison<S: Simd>(watch: Sum<S>) -> f32 {
        let [a, b, c, d] = watch.sums;
        ((a + b) + (c + d)).reduce_sum()
    }

    #[inline(always)]
    fn maxima<S: Simd>(simd: S, block: &[f32; BLOCK], watch: &mut Sum<S>) -> f32x16<S> {
        let (pairs, _) = block.as_chunks::<{ 2 * LANES }>();
        let a = watch.max_of_pair(0, Self::pair(simd, &pairs[0]));
        let b = watch.max_of_pair(1, Self::pair(simd, &pairs[1]));
        let c = watch.max_of_pair(2, Self::pair(simd, &pairs[2]));
        let d = watch.max_of_pair(3, Self::pair(simd, &pairs[3]));
        a.max(b).max(c.max(d))
    }

    // The running maxima are updated one after another. So few values are needed at the same time, and sixteen
    // registers of eight lanes are sufficient.
    #[inline(always)]
    fn all_maxima<S: Simd>(
        simd: S,
        block: &[f32; BLOCK],
        watch: &mut Sum<S>,
        max: &mut [f32x8<S>; 2],
    ) -> f32x4<S> {
        let (pairs, _) = block.as_chunks::<{ 2 * LANES }>();
        let mut halves = [f32x8::splat(simd, 0.0); BIN];
        for i in 0..BIN {
            halves[i] = max_of_halves(watch.max_of_pair(i, Self::pair(simd, &pairs[i])));
            max[i % 2] = max[i % 2].max(halves[i]);
        }
        maxima_of_each(halves)
    }
}

const _: () = assert!(BLOCK == BIN * 2 * LANES);

/// The sum of the elements. It is NaN if an element is NaN. It is computed in parts, which are added at the end.
#[derive(Clone, Copy)]
pub(super) struct Sum<S: Simd> {
    sums: [f32x16<S>; BIN],
    /// The number 1. The compiler does not know this value, so it cannot replace `a · 1 + b` by `a + b`.
    one: f32x16<S>,
}

impl<S: Simd> Sum<S> {
    /// The number of parts of the sum. An addition waits for the previous addition to the same part, so there are
    /// several parts. With registers of eight lanes, four parts would need too many registers.
    const PARTS: usize = if S::f32s::LEN == LANES { BIN } else { 2 };

    /// Adds pair number `number` of a block to the sum. Returns the larger value of each lane.
    #[inline(always)]
    fn max_of_pair(&mut self, number: usize, [a, b]: [f32x16<S>; 2]) -> f32x16<S> {
        let sum = &mut self.sums[number % Self::PARTS];
        *sum = if S::f32s::LEN >= LANES / 2 {
            // On AMD Zen 5, additions and maxima run on the same units, and the maxima keep these units busy.
            // A fused multiply-add runs on other units.
            b.mul_add(self.one, a.mul_add(self.one, *sum))
        } else {
            (a + b) + *sum
        };
        a.max(b)
    }
}

/// The maximum of the lanes of each vector.
///
/// Each step computes maxima of two parts of each vector. So it halves the number of values of each vector. No step
/// before the last ones moves values between 128-bit blocks, because such moves are slow.
#[inline(always)]
fn maxima_of_each<S: Simd>(vectors: [f32x8<S>; 4]) -> f32x4<S> {
    let [a, b, c, d] = vectors;
    let (low, high) = (max_of_halves_of_blocks(a, b), max_of_halves_of_blocks(c, d));
    let ((a, b), (c, d)) = (low.split(), high.split());
    let (low, high) = (a.max(b), c.max(d));
    low.unzip_low(high).max(low.unzip_high(high))
}

/// The larger value of each pair of lanes `i` and `i + 8`.
#[inline(always)]
fn max_of_halves<S: Simd>(x: f32x16<S>) -> f32x8<S> {
    let (low, high) = x.split();
    low.max(high)
}

/// In each 128-bit block, the larger value of each pair of lanes `i` and `i + 2`. The first two lanes of a block of the
/// result are from `a`, and the other two are from `b`.
#[inline(always)]
fn max_of_halves_of_blocks<S: Simd>(a: f32x8<S>, b: f32x8<S>) -> f32x8<S> {
    let from_a = mask32x8::simd_from(a.simd, [-1, -1, 0, 0, -1, -1, 0, 0]);
    a.slide_within_blocks::<2>(b).max(from_a.select(a, b))
}

/// Returns four maxima. Maximum `i` is over the lanes `i`, `i + 4`, `i + 8` and `i + 12`.
#[inline(always)]
fn max_of_quarters<S: Simd>(x: f32x16<S>) -> f32x4<S> {
    let (low, high) = max_of_halves(x).split();
    low.max(high)
}

/// The functions of [`Element`] that the scan uses. They are the same for all 16-bit types.
macro_rules! scan_of_16_bits {
    () => {
        #[inline(always)]
        fn watch<S: Simd>(simd: S) -> Extremes<S> {
            Extremes { signed: i16x32::splat(simd, i16::MIN), unsigned: u16x32::splat(simd, 0) }
        }

        #[inline(always)]
        fn poison<S: Simd>(watch: Extremes<S>) -> f32 {
            watch.poison::<Self>()
        }

        #[inline(always)]
        fn maxima<S: Simd>(simd: S, block: &[u16; BLOCK], watch: &mut Extremes<S>) -> f32x16<S> {
            watch.maxima::<Self>(simd, block)
        }

        #[inline(always)]
        fn all_maxima<S: Simd>(
            simd: S,
            block: &[u16; BLOCK],
            watch: &mut Extremes<S>,
            max: &mut [f32x8<S>; 2],
        ) -> f32x4<S> {
            let of_block = watch.maxima::<Self>(simd, block);
            let (low, high) = of_block.split();
            *max = [max[0].max(low), max[1].max(high)];
            max_of_quarters(of_block)
        }
    };
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
    type Watch<S: Simd> = Extremes<S>;
    const NEG_INF: u16 = Self::NEG_INF_BITS;
    const CONSECUTIVE_BINS: bool = false;

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

    scan_of_16_bits!();
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
    type Watch<S: Simd> = Extremes<S>;
    const NEG_INF: u16 = Self::NEG_INF_BITS;
    const CONSECUTIVE_BINS: bool = false;

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

    scan_of_16_bits!();
}

/// The extremes of the bits of 16-bit elements, read as integers. A NaN is the largest integer of its sign.
#[derive(Clone, Copy)]
pub(super) struct Extremes<S: Simd> {
    signed: i16x32<S>,
    unsigned: u16x32<S>,
}

impl<S: Simd> Extremes<S> {
    #[inline(always)]
    fn poison<F: Float16>(self) -> f32 {
        let positive = self.signed.to_array().into_iter().fold(i16::MIN, i16::max);
        let negative = self.unsigned.to_array().into_iter().fold(0, u16::max);
        if positive > (F::NEG_INF_BITS & 0x7fff) as i16 || negative > F::NEG_INF_BITS {
            f32::NAN
        } else {
            0.0
        }
    }

    /// See [`Element::maxima`].
    ///
    /// Widening the elements takes longer than comparing their bits. If at least one element has the sign bit 0, the
    /// maximum is the element whose bits are the largest signed integer. Otherwise, the maximum is the element whose
    /// bits are the least unsigned integer.
    #[inline(always)]
    fn maxima<F: Float16>(&mut self, simd: S, block: &[u16; BLOCK]) -> f32x16<S> {
        let mut signed = i16x32::splat(simd, i16::MIN);
        let mut least = u16x32::splat(simd, u16::MAX);
        for chunk in block.as_chunks::<{ 2 * LANES }>().0 {
            let bits = u16x32::simd_from(simd, *chunk);
            signed = signed.max(bits.bitcast::<i16x32<S>>());
            least = least.min(bits);
            self.unsigned = self.unsigned.max(bits);
        }
        self.signed = self.signed.max(signed);
        let ((a, b), (c, d)) = (signed.split(), least.split());
        let (signed, least) = (a.max(b), c.min(d));
        let max: i16x16<S> = signed.simd_lt(0).select(least.bitcast(), signed);
        let a = Lanes(simd);
        let (low, high) = max.bitcast::<u16x16<S>>().widen();
        a.from_bits(F::widen(a, low.combine(high).bitcast()))
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
