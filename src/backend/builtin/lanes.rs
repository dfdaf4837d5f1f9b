//! The sampling arithmetic on sixteen SIMD lanes, for any width of the machine's registers.

use fearless_simd::{f32x16, i32x16, mask32x16, prelude::*, Simd};

use crate::semantics::arith::Arith;
use crate::semantics::clean::{clean, order_key};

/// The number of elements in a vector.
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

    // `a` is NaN only for −inf − (−inf). That occurs only in rows without a candidate, whose weights are not used. So
    // the machine's minimum may return any value for NaN.
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
        // The fast conversion differs from the exact one only outside the range that the trait allows.
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
        le(a: i32x16<S>, b: i32x16<S>) -> mask32x16<S> = a.simd_le(b);
        max(a: i32x16<S>, b: i32x16<S>) -> i32x16<S> = a.max(b);
        select(mask: mask32x16<S>, if_true: i32x16<S>, if_false: i32x16<S>) -> i32x16<S>
            = mask.select(if_true, if_false);
        fselect(mask: mask32x16<S>, if_true: f32x16<S>, if_false: f32x16<S>) -> f32x16<S>
            = mask.select(if_true, if_false);
    }
}

impl<S: Simd> Lanes<S> {
    /// The order keys of logits that have not been cleaned.
    #[inline(always)]
    pub(super) fn keys(self, x: f32x16<S>) -> i32x16<S> {
        order_key(self, clean(self, self.to_bits(x)))
    }
}

/// Loads a vector of consecutive elements.
#[inline(always)]
pub(super) fn load<S: Simd, T: SimdFrom<[E; LANES], S>, E: Copy>(simd: S, slice: &[E]) -> T {
    let array: [E; LANES] = slice.try_into().expect("a whole vector");
    array.simd_into(simd)
}

/// Writes the lanes that the mask selects to `out[at..]`. Returns the position after them. Overwrites all of
/// `out[at..at + LANES]`.
#[inline(always)]
pub(super) fn push<S: Simd>(out: &mut [i32], at: usize, values: i32x16<S>, mask: mask32x16<S>) -> usize {
    values.compress(mask).store_slice(&mut out[at..at + LANES]);
    at + mask.to_bitmask().count_ones() as usize
}

/// The number of weights that an unsigned 32-bit lane can add without overflow. A weight is below 2^24.
pub(super) const SUMMABLE: usize = 256;

/// The sum of the lanes as unsigned integers.
#[inline(always)]
pub(super) fn total<S: Simd>(lanes: i32x16<S>) -> u64 {
    lanes.to_array().into_iter().map(|lane| u64::from(lane as u32)).sum()
}

/// The sum of any number of weights.
#[inline(always)]
pub(super) fn sum_of_weights<S: Simd>(simd: S, weights: &[i32]) -> u64 {
    let mut sum = 0;
    for chunk in weights.chunks(SUMMABLE * LANES) {
        let mut lanes = i32x16::splat(simd, 0);
        for vector in chunk.chunks_exact(LANES) {
            lanes += load::<S, i32x16<S>, i32>(simd, vector);
        }
        sum += total(lanes);
    }
    let rest = &weights[weights.len() / LANES * LANES..];
    sum + rest.iter().map(|&weight| weight as u64).sum::<u64>()
}
