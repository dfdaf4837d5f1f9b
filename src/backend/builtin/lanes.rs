//! The sampling arithmetic on sixteen SIMD lanes, for any width of the machine's registers.

use fearless_simd::{f32x16, i32x16, mask32x16, prelude::*, u32x16, Simd};

use crate::semantics::arith::Arith;
use crate::semantics::clean::{clean, order_key};
use crate::semantics::sizes::SUMMABLE;

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

    // A weight with a conversion needs fewer operations. SSE has no instruction that shifts each lane by a different
    // number.
    const WEIGHS_BY_SHIFTS: bool = false;

    #[inline(always)]
    fn int(self, value: i32) -> i32x16<S> {
        i32x16::splat(self.0, value)
    }

    #[inline(always)]
    fn float(self, value: f32) -> f32x16<S> {
        f32x16::splat(self.0, value)
    }

    // This is a minimum of the bits of the floats as integers. On AMD Zen 5, more units compute minima of integers than
    // minima of floats. The result is the same. Floats from +0 have the same order as their bits. All other floats
    // are negative as integers, so they are below `limit`, which is positive. `a` is NaN only for −inf − (−inf). That
    // occurs only in rows without a candidate, whose weights are not used.
    #[inline(always)]
    fn at_most(self, a: f32x16<S>, limit: f32) -> f32x16<S> {
        debug_assert!(limit > 0.0, "the bits of floats below +0 have a different order");
        self.from_bits(self.to_bits(a).min(self.int(limit.to_bits() as i32)))
    }

    lane_ops! {
        add(a: i32x16<S>, b: i32x16<S>) -> i32x16<S> = a + b;
        sub(a: i32x16<S>, b: i32x16<S>) -> i32x16<S> = a - b;
        and(a: i32x16<S>, b: i32x16<S>) -> i32x16<S> = a & b;
        or(a: i32x16<S>, b: i32x16<S>) -> i32x16<S> = a | b;
        xor(a: i32x16<S>, b: i32x16<S>) -> i32x16<S> = a ^ b;
        shl(a: i32x16<S>, by: u32) -> i32x16<S> = a << by;
        shr(a: i32x16<S>, by: u32) -> i32x16<S> = a >> by;
        shr_by(a: i32x16<S>, by: i32x16<S>) -> i32x16<S>
            = (a.bitcast::<u32x16<S>>() >> (by & 31).bitcast::<u32x16<S>>()).bitcast();
        fadd(a: f32x16<S>, b: f32x16<S>) -> f32x16<S> = a + b;
        fsub(a: f32x16<S>, b: f32x16<S>) -> f32x16<S> = a - b;
        fmul(a: f32x16<S>, b: f32x16<S>) -> f32x16<S> = a * b;
        // The intrinsics are separate instructions, and LLVM never contracts them.
        mul_then_add(a: f32x16<S>, b: f32x16<S>, addend: f32x16<S>) -> f32x16<S> = a * b + addend;
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
    /// The larger of `a` and `limit`. `a` is not NaN, and `limit` is at least +0. For the reason why the bits are
    /// compared as integers, see `at_most` above.
    #[inline(always)]
    pub(super) fn at_least(self, a: f32x16<S>, limit: f32) -> f32x16<S> {
        debug_assert!(limit.is_sign_positive(), "the bits of floats below +0 have a different order");
        self.from_bits(self.to_bits(a).max(self.int(limit.to_bits() as i32)))
    }

    /// The order keys of logits that have not been cleaned.
    #[inline(always)]
    pub(super) fn keys(self, x: f32x16<S>) -> i32x16<S> {
        order_key(self, clean(self, self.to_bits(x)))
    }
}

/// The number of 32-bit lanes of a register.
#[inline(always)]
pub(super) fn lanes_of<S: Simd>(_simd: S) -> usize {
    S::f32s::LEN
}

/// Loads a vector of consecutive elements.
#[inline(always)]
pub(super) fn load<S: Simd, T: SimdFrom<[E; LANES], S>, E: Copy>(simd: S, slice: &[E]) -> T {
    let array: [E; LANES] = slice.try_into().expect("a whole vector");
    array.simd_into(simd)
}

/// Writes the lanes that the mask selects to `out[at..]`. Returns the position after them. The rest of
/// `out[at..at + LANES]` gets arbitrary values.
#[inline(always)]
pub(super) fn push<S: Simd>(out: &mut [i32], at: usize, values: i32x16<S>, mask: mask32x16<S>) -> usize {
    let out = &mut out[at..at + LANES];
    if S::f32s::LEN == LANES / 2 {
        // One permutation compacts a register of eight lanes. Compacting two registers together needs more than two
        // permutations.
        let (low, high) = values.split();
        let (low_mask, high_mask) = values.simd.split_mask32x16(mask);
        let count = low_mask.to_bitmask().count_ones() as usize % (LANES / 2 + 1);
        // `compress` also sets the other lanes to 0, which takes one more instruction. Their values are not needed.
        low.compress_merge(low_mask, low).store_slice(&mut out[..LANES / 2]);
        high.compress_merge(high_mask, high).store_slice(&mut out[count..count + LANES / 2]);
        at + count + high_mask.to_bitmask().count_ones() as usize
    } else {
        values.compress(mask).store_slice(out);
        at + mask.to_bitmask().count_ones() as usize
    }
}

/// A sum of any number of weights, in 32-bit lanes.
#[derive(Clone, Copy)]
pub(super) struct WeightSum<S: Simd> {
    /// Per lane: the sum of the low 16 bits, and the sum of the high 16 bits, of the values that were added.
    halves: [i32x16<S>; 2],
    /// The number of additions to the lanes.
    additions: u32,
    /// The sum of the values that are no longer in the lanes.
    rest: u64,
}

impl<S: Simd> WeightSum<S> {
    /// This number of 16-bit halves can be added without overflow of an unsigned 32-bit lane.
    const ADDITIONS: u32 = 1 << 16;

    #[inline(always)]
    pub(super) fn new(simd: S) -> Self {
        WeightSum { halves: [i32x16::splat(simd, 0); 2], additions: 0, rest: 0 }
    }

    /// Adds lanes of unsigned integers. Each lane is the sum of at most [`SUMMABLE`] weights.
    #[inline(always)]
    pub(super) fn add(&mut self, lanes: i32x16<S>) {
        if self.additions == Self::ADDITIONS {
            let [low, high] = self.halves;
            let rest = self.rest + total_of_halves(&low.to_array(), &high.to_array());
            *self = WeightSum { rest, ..WeightSum::new(lanes.simd) };
        }
        self.additions += 1;
        let [low, high] = halves(lanes);
        self.halves[0] += low;
        self.halves[1] += high;
    }

    /// The sum of all lanes of all values that were added.
    #[inline(always)]
    pub(super) fn total(&self) -> u64 {
        self.rest + total(self.halves[0]) + (total(self.halves[1]) << 16)
    }
}

/// Returns the sum of the lanes of a [`WeightSum`].
// The function is not inlined. Otherwise, the compiler may extract the lanes in each iteration of the caller's loop,
// although the sum is needed only in rows of millions of logits.
#[cold]
#[inline(never)]
fn total_of_halves(low: &[i32; LANES], high: &[i32; LANES]) -> u64 {
    low.iter().zip(high).map(|(&low, &high)| u64::from(low as u32) + (u64::from(high as u32) << 16)).sum()
}

/// Splits each lane into its low 16 bits and its high 16 bits. Both halves are unsigned integers.
#[inline(always)]
pub(super) fn halves<S: Simd>(lanes: i32x16<S>) -> [i32x16<S>; 2] {
    [lanes & 0xffff, (lanes.bitcast::<u32x16<S>>() >> 16_u32).bitcast()]
}

/// The sum of the lanes as unsigned integers.
#[inline(always)]
pub(super) fn total<S: Simd>(lanes: i32x16<S>) -> u64 {
    lanes.to_array().into_iter().map(|lane| u64::from(lane as u32)).sum()
}

/// The sum of any number of weights.
#[inline(always)]
pub(super) fn sum_of_weights<S: Simd>(simd: S, weights: &[i32]) -> u64 {
    let (vectors, rest) = weights.as_chunks::<LANES>();
    let mut sum = WeightSum::new(simd);
    for vectors in vectors.chunks(SUMMABLE) {
        let mut lanes = i32x16::splat(simd, 0);
        for vector in vectors {
            lanes += load::<S, i32x16<S>, i32>(simd, vector);
        }
        sum.add(lanes);
    }
    sum.total() + rest.iter().map(|&weight| weight as u64).sum::<u64>()
}

/// The best instruction set of this machine, AVX2 if the machine has it, and the instruction set that every machine
/// has.
#[cfg(test)]
pub(super) fn levels() -> impl Iterator<Item = fearless_simd::Level> {
    use fearless_simd::Level;

    let best = Level::new();
    #[cfg(target_arch = "x86_64")]
    let next = best.as_avx2().map(|token| token.level());
    #[cfg(not(target_arch = "x86_64"))]
    let next = None;
    [Some(best), next, Some(Level::baseline())].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use fearless_simd::{dispatch, Level};

    use super::*;

    /// Adds the largest lane value more often than the lanes can hold, so that they must be emptied in between.
    #[test]
    fn sums_of_weights_do_not_overflow() {
        let additions = (1_u64 << 16) + 3;
        let total = dispatch!(Level::new(), simd => {
            let mut sum = WeightSum::new(simd);
            for _ in 0..additions {
                sum.add(i32x16::splat(simd, -1));
            }
            sum.total()
        });
        assert_eq!(total, additions * LANES as u64 * u64::from(u32::MAX));
    }
}
