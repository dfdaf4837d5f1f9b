//! The contract's operations on sixteen lanes of whatever SIMD the machine has.

use fearless_simd::{f32x16, i32x16, mask32x16, prelude::*, Simd};

use super::format::BLOCK;
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

    // Where NaN can reach this, in −inf − (−inf), the weight is masked, whatever the machine's minimum says.
    #[inline(always)]
    fn at_most(self, a: f32x16<S>, limit: f32) -> f32x16<S> {
        a.min(f32x16::splat(self.0, limit))
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

    /// [`Self::weights`] of four vectors, as many at a time as make four registers.
    #[inline(always)]
    pub(super) fn weights4(self, x: [f32x16<S>; 4], max: f32x16<S>, scale: f32x16<S>) -> [i32x16<S>; 4] {
        if S::f32s::LEN >= LANES {
            let four = Several::<_, 4>(self);
            weight(four, quantize(four, [max; 4], x, [scale; 4]))
        } else if S::f32s::LEN == LANES / 2 {
            let two = Several::<_, 2>(self);
            let [a, b] = weight(two, quantize(two, [max; 2], [x[0], x[1]], [scale; 2]));
            let [c, d] = weight(two, quantize(two, [max; 2], [x[2], x[3]], [scale; 2]));
            [a, b, c, d]
        } else {
            [
                self.weights(x[0], max, scale),
                self.weights(x[1], max, scale),
                self.weights(x[2], max, scale),
                self.weights(x[3], max, scale),
            ]
        }
    }
}

/// Several values at a time, each operation on all of them before the next one: what depends on what is then far enough
/// apart that a core need not wait.
#[derive(Clone, Copy)]
pub(super) struct Several<A, const N: usize>(pub(super) A);

macro_rules! each {
    ($($name:ident($a:ident: $from:ident $(, $b:ident: $by:ident)*) -> $to:ident;)*) => {
        $(#[inline(always)]
        fn $name(self, $a: [A::$from; N] $(, $b: [A::$by; N])*) -> [A::$to; N] {
            let mut out = [self.0.$name($a[0] $(, $b[0])*); N];
            for i in 1..N {
                out[i] = self.0.$name($a[i] $(, $b[i])*);
            }
            out
        })*
    };
}

impl<A: Arith, const N: usize> Arith for Several<A, N> {
    type Int = [A::Int; N];
    type Float = [A::Float; N];
    type Mask = [A::Mask; N];

    each! {
        add(a: Int, b: Int) -> Int;
        sub(a: Int, b: Int) -> Int;
        and(a: Int, b: Int) -> Int;
        or(a: Int, b: Int) -> Int;
        xor(a: Int, b: Int) -> Int;
        fsub(a: Float, b: Float) -> Float;
        fmul(a: Float, b: Float) -> Float;
        trunc(a: Float) -> Int;
        to_float(a: Int) -> Float;
        to_bits(a: Float) -> Int;
        from_bits(a: Int) -> Float;
        lt(a: Int, b: Int) -> Mask;
        eq(a: Int, b: Int) -> Mask;
        flt(a: Float, b: Float) -> Mask;
        both(a: Mask, b: Mask) -> Mask;
        either(a: Mask, b: Mask) -> Mask;
        not(a: Mask) -> Mask;
        select(mask: Mask, if_true: Int, if_false: Int) -> Int;
        fselect(mask: Mask, if_true: Float, if_false: Float) -> Float;
    }

    #[inline(always)]
    fn at_most(self, a: [A::Float; N], limit: f32) -> [A::Float; N] {
        let mut out = a;
        for x in &mut out {
            *x = self.0.at_most(*x, limit);
        }
        out
    }

    #[inline(always)]
    fn int(self, value: i32) -> [A::Int; N] {
        [self.0.int(value); N]
    }

    #[inline(always)]
    fn float(self, value: f32) -> [A::Float; N] {
        [self.0.float(value); N]
    }

    #[inline(always)]
    fn factor(self, value: f32) -> [A::Float; N] {
        [self.0.factor(value); N]
    }

    #[inline(always)]
    fn shl(self, a: [A::Int; N], by: u32) -> [A::Int; N] {
        let mut out = a;
        for x in &mut out {
            *x = self.0.shl(*x, by);
        }
        out
    }

    #[inline(always)]
    fn shr(self, a: [A::Int; N], by: u32) -> [A::Int; N] {
        let mut out = a;
        for x in &mut out {
            *x = self.0.shr(*x, by);
        }
        out
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

/// Where a block's entries are collected. One check of the bounds serves the whole block.
pub(super) struct Room<'a> {
    out: &'a mut [i32; BLOCK + LANES],
    len: usize,
}

impl<'a> Room<'a> {
    #[inline(always)]
    pub(super) fn new(out: &'a mut [i32], at: usize) -> Self {
        let out = (&mut out[at..at + BLOCK + LANES]).try_into().expect("as long as the slice");
        Room { out, len: 0 }
    }

    /// Appends the lanes that the mask selects; called at most once for each vector of a block.
    #[inline(always)]
    pub(super) fn push<S: Simd>(&mut self, values: i32x16<S>, mask: mask32x16<S>) {
        // Before the last vector the length is below that of a block, which the compiler is told so.
        let at = self.len % BLOCK;
        self.len += mask.to_bitmask().count_ones() as usize;
        values.compress(mask).store_slice(&mut self.out[at..at + LANES]);
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// Vectors of weights that an unsigned 32-bit lane can add up: they are below 2^24.
pub(super) const SUMMABLE: usize = 256;

/// The sum of unsigned lanes.
#[inline(always)]
pub(super) fn total<S: Simd>(lanes: i32x16<S>) -> u64 {
    lanes.to_array().into_iter().map(|lane| u64::from(lane as u32)).sum()
}
