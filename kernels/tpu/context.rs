//! What every stage of a kernel works with: the builder, the block's rows and their parameters.

use super::layout::Layout;
use super::stream::Rows;
use crate::dtype::Dtype;
use crate::kernels::{Column, Path, Spec};
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Kernel, Memory, Reduce, Value, LANES};
use crate::semantics::arith::{Arith, WideArith};

/// The bits of +inf in bf16.
const BF16_INFINITY: i32 = 0x7f80;

/// One block of eight rows. Values of a row are registers that hold them in every lane.
pub(super) struct Block<'a> {
    pub(super) k: &'a Kernel,
    pub(super) spec: Spec,
    pub(super) layout: Layout,
    pub(super) rows: Rows<'a>,
    /// The parameters, `[8, 128]`: a row's columns along its lanes.
    pub(super) params: Memory,
}

/// A number below 2³⁶ as floats: `high · 2¹² + low`. Sums of both parts are exact, in any order, for up to 2¹² lanes of
/// weights, so that the hardware's float sums over lanes can be used.
#[derive(Clone, Copy)]
pub(super) struct Split {
    pub(super) high: Value,
    pub(super) low: Value,
}

const SPLIT_BITS: i32 = 12;

/// What a block's rows end with.
#[derive(Clone, Copy)]
pub(super) struct Outcome {
    pub(super) next: Value,
    pub(super) greedy: Value,
    pub(super) remainder: Wide,
    /// The least order key that top-k keeps.
    pub(super) threshold: Value,
    /// The last index at which it keeps that key.
    pub(super) last_tie: Value,
    /// The least weight that top-p and min-p keep.
    pub(super) least_weight: Value,
}

impl Outcome {
    /// How many values it is.
    pub(super) const VALUES: usize = 7;

    pub(super) fn flat(self) -> Vec<Value> {
        let Outcome { next, greedy, remainder, threshold, last_tie, least_weight } = self;
        vec![next, greedy, remainder.low, remainder.high, threshold, last_tie, least_weight]
    }

    pub(super) fn from_flat(flat: &[Value]) -> Outcome {
        let [next, greedy, low, high, threshold, last_tie, least_weight] =
            flat.try_into().expect("as many values as an outcome flattens to");
        Outcome { next, greedy, remainder: Wide { low, high }, threshold, last_tie, least_weight }
    }
}

impl Block<'_> {
    pub(super) fn param(&self, column: Column) -> Value {
        self.k.lane_of(&self.params, column as usize)
    }

    /// Whether the caller will see which entries top-k kept, even those that weigh nothing.
    pub(super) fn shows_top_k(&self) -> bool {
        self.spec.wanted.topk_logits || self.spec.wanted.slices
    }

    /// A key in as few bits as tell this type's logits apart, in the same order.
    pub(super) fn short(&self, key: Value) -> Value {
        let k = self.k;
        match self.spec.dtype {
            // The low half of a bf16's key is 0 or, in negative ones and in what +inf became, all ones.
            Dtype::Bf16 => k.shr(k.add(key, k.i32(1)), 16),
            _ => key,
        }
    }

    /// The key that [`short`](Block::short) came from.
    pub(super) fn long(&self, short: Value) -> Value {
        let k = self.k;
        match self.spec.dtype {
            Dtype::Bf16 => {
                let ones = k.either(k.lt(short, k.i32(0)), k.eq(short, k.i32(BF16_INFINITY)));
                k.sub(k.shl(short, 16), k.choose(ones, k.i32(1), k.i32(0)))
            }
            _ => short,
        }
    }

    /// Quarterings between two looks at whether a search is done.
    pub(super) fn steps(&self) -> usize {
        2
    }

    /// Slots of the k-slices that a row can fill.
    pub(super) fn slots(&self) -> usize {
        match self.spec.path {
            Path::Bounded(max_k) => max_k.min(self.spec.vocab),
            Path::Arbitrary => 0,
        }
    }

    /// Adds up a row's lanes, which are unsigned.
    pub(super) fn sum_lanes(&self, value: Value) -> Wide {
        let k = self.k;
        // As floats, which the hardware adds, in halves whose sums are exact.
        let add = |half: Value| k.trunc(k.over_lanes(Reduce::Add, k.to_float(half)));
        let low = add(k.and(value, k.i32(0xffff)));
        let high = add(k.shift_right_zero(value, k.i32(16)));
        k.wadd(k.widen(low), k.wshl(k.widen(high), 16))
    }

    /// A number in two parts.
    pub(super) fn split(&self, value: Wide) -> Split {
        let k = self.k;
        let high = k.wshr(value, k.wide(SPLIT_BITS as u64)).low;
        let low = k.and(value.low, k.i32((1 << SPLIT_BITS) - 1));
        Split { high: k.to_float(high), low: k.to_float(low) }
    }

    /// The number that a sum of parts stands for.
    pub(super) fn number(&self, sum: &Split) -> Wide {
        let k = self.k;
        let (high, low) = (k.trunc(sum.high), k.trunc(sum.low));
        match self.spec.path {
            // At most 128 weights below 2²⁴ are kept.
            Path::Bounded(_) => k.widen(k.add(k.shl(high, SPLIT_BITS as u32), low)),
            Path::Arbitrary => k.wadd(k.wshl(k.widen(high), SPLIT_BITS as u32), k.widen(low)),
        }
    }

    /// `a < b`, of sums of parts; the low part of one may be larger than a part is.
    pub(super) fn less(&self, a: &Split, b: &Split) -> Value {
        let k = self.k;
        let unit = k.f32(1.0 / (1 << SPLIT_BITS) as f32);
        // a − b in units of the high part, rounded down: every step of it is exact.
        let low = k.floor(k.fmul(k.fsub(a.low, b.low), unit));
        k.flt(k.fadd(k.fsub(a.high, b.high), low), k.f32(0.0))
    }

    /// The binary logarithm of a number of at least 1, within a tenth: the bits of a float are nearly that.
    pub(super) fn log2(&self, value: Wide) -> Value {
        let k = self.k;
        let bits = k.sub(k.bits(k.near(value)), k.i32(127 << 23));
        k.fmul(k.to_float(bits), k.f32(1.0 / (1 << 23) as f32))
    }

    /// Sums of a row's lanes up to and with each lane.
    pub(super) fn sums_up_to(&self, value: Wide) -> Wide {
        let k = self.k;
        let lane = k.lane();
        let mut sums = value;
        let mut by = 1;
        while by < LANES {
            let amount = k.i32(by as i32);
            let high = if sums.is_short() { k.i32(0) } else { k.rotate(sums.high, amount) };
            let from = Wide { low: k.rotate(sums.low, amount), high };
            let with = k.wadd(sums, from);
            sums = k.wselect(k.ge(lane, amount), with, sums);
            by *= 2;
        }
        sums
    }
}
