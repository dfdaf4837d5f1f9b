//! The contract's operations on sixteen lanes of whatever SIMD the machine has.

use fearless_simd::{f32x16, i32x16, mask32x16, prelude::*, Simd};

use crate::semantics::arith::Arith;
use crate::semantics::clean::{clean, order_key};
use crate::semantics::weights::{quantize, weight};

/// Elements of one [`Lanes`] value.
pub(super) const LANES: usize = 16;

/// [`Arith`] over `f32x16` and `i32x16`.
#[derive(Clone, Copy)]
pub(super) struct Lanes<S: Simd>(pub(super) S);

macro_rules! lane_ops {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $body:expr;)*) => {
        $(#[inline(always)] fn $name(self, $($arg: $ty),*) -> $ret { $body })*
    };
}

impl<S: Simd> Arith for Lanes<S> {
    type Int = i32x16<S>;
    type Float = f32x16<S>;
    type Mask = mask32x16<S>;

    #[inline(always)]
    fn int(self, value: i32) -> i32x16<S> {
        i32x16::splat(self.0, value)
    }

    #[inline(always)]
    fn float(self, value: f32) -> f32x16<S> {
        f32x16::splat(self.0, value)
    }
    #[inline(always)]
    fn factor(self, value: f32) -> f32x16<S> {
        f32x16::splat(self.0, value)
    }

    lane_ops! {
        add(a: i32x16<S>, b: i32x16<S>) -> i32x16<S> = a + b;
        sub(a: i32x16<S>, b: i32x16<S>) -> i32x16<S> = a - b;
        and(a: i32x16<S>, b: i32x16<S>) -> i32x16<S> = a & b;
        or(a: i32x16<S>, b: i32x16<S>) -> i32x16<S> = a | b;
        xor(a: i32x16<S>, b: i32x16<S>) -> i32x16<S> = a ^ b;
        shl(a: i32x16<S>, by: u32) -> i32x16<S> = a << by;
        shr(a: i32x16<S>, by: u32) -> i32x16<S> = a >> by;
        fsub(a: f32x16<S>, b: f32x16<S>) -> f32x16<S> = a - b;
        fmul(a: f32x16<S>, b: f32x16<S>) -> f32x16<S> = a * b;
        // The plain conversion differs from the precise one only outside the range that the trait promises.
        trunc(a: f32x16<S>) -> i32x16<S> = a.to_int();
        to_float(a: i32x16<S>) -> f32x16<S> = a.to_float();
        to_bits(a: f32x16<S>) -> i32x16<S> = a.bitcast();
        from_bits(a: i32x16<S>) -> f32x16<S> = a.bitcast();
        lt(a: i32x16<S>, b: i32x16<S>) -> mask32x16<S> = a.simd_lt(b);
        eq(a: i32x16<S>, b: i32x16<S>) -> mask32x16<S> = a.simd_eq(b);
        flt(a: f32x16<S>, b: f32x16<S>) -> mask32x16<S> = a.simd_lt(b);
        both(a: mask32x16<S>, b: mask32x16<S>) -> mask32x16<S> = a & b;
        either(a: mask32x16<S>, b: mask32x16<S>) -> mask32x16<S> = a | b;
        not(a: mask32x16<S>) -> mask32x16<S> = !a;
        select(mask: mask32x16<S>, if_true: i32x16<S>, if_false: i32x16<S>) -> i32x16<S>
            = mask.select(if_true, if_false);
        fselect(mask: mask32x16<S>, if_true: f32x16<S>, if_false: f32x16<S>) -> f32x16<S>
            = mask.select(if_true, if_false);
    }
}

impl<S: Simd> Lanes<S> {
    /// The order keys of values that may be anything.
    #[inline(always)]
    pub(super) fn keys(self, x: f32x16<S>) -> i32x16<S> {
        order_key(self, clean(self, self.to_bits(x)))
    }

    /// The weights of values that are neither NaN nor +inf, under a cleaned `max`.
    ///
    /// Needs no cleaning: a subnormal is too small to change `q`, whether or not the machine flushes it.
    #[inline(always)]
    pub(super) fn weights(self, x: f32x16<S>, max: f32x16<S>, scale: f32x16<S>) -> i32x16<S> {
        weight(self, quantize(self, max, x, scale))
    }
}

/// A vector of consecutive elements.
#[inline(always)]
pub(super) fn load<S: Simd, T: SimdFrom<[E; LANES], S>, E: Copy>(simd: S, slice: &[E]) -> T {
    let array: [E; LANES] = slice.try_into().expect("a whole vector");
    array.simd_into(simd)
}

/// Appends the lanes that the mask selects at `at` and returns the position behind them. Overwrites up to
/// [`LANES`] elements from `at` on.
#[inline(always)]
pub(super) fn push<S: Simd>(out: &mut [i32], at: usize, values: i32x16<S>, mask: mask32x16<S>) -> usize {
    values.compress(mask).store_slice(&mut out[at..at + LANES]);
    at + mask.to_bitmask().count_ones() as usize
}

/// Vectors of weights that an unsigned 32-bit lane can add up: they are below 2^24.
pub(super) const SUMMABLE: usize = 256;

/// The sum of unsigned lanes.
#[inline(always)]
pub(super) fn total<S: Simd>(lanes: i32x16<S>) -> u64 {
    lanes.to_array().into_iter().map(|lane| u64::from(lane as u32)).sum()
}
