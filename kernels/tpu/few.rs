//! Top-k, top-p and the draw over few survivors, all of them in registers.

use super::block::{Block, Outcome};
use super::cells::{key_of, Gathered};
use super::nucleus::Nucleus;
use super::threshold::{bisect, count_lanes};
use crate::kernels::Column;
use crate::mosaic::wide::Wide;
use crate::mosaic::{Memory, Reduce, Value, LANES};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::{order_key, NEG_INF_KEY};

/// The key of a slot that holds no survivor: survivors are above it.
const NO_KEY: i32 = NEG_INF_KEY;

/// Survivors, ready to be searched.
pub(super) struct Few {
    keys: Vec<Value>,
    indices: Vec<Value>,
    /// How many each row has.
    count: Value,
}

/// Where the k-slices are written: indices, order keys and weights, `[8, 128]` each.
pub(super) struct Slices {
    pub(super) indices: Memory,
    pub(super) keys: Memory,
    pub(super) weights: Memory,
}

impl Few {
    pub(super) fn new(b: &Block<'_>, gathered: &Gathered) -> Few {
        let k = b.k;
        let slot = |(&value, &index): (&Value, &Value)| {
            let used = k.ge(index, k.i32(0));
            let key = k.choose(used, key_of(b, value), k.i32(NO_KEY));
            (key, k.choose(used, k.f32(1.0), k.f32(0.0)))
        };
        let slots: Vec<_> = gathered.values.iter().zip(&gathered.indices).map(slot).collect();
        let ones = slots.iter().skip(1).fold(slots[0].1, |sum, slot| k.fadd(sum, slot.1));
        Few {
            keys: slots.iter().map(|slot| slot.0).collect(),
            indices: gathered.indices.clone(),
            count: count_lanes(k, ones),
        }
    }

    /// Whether every row has as many survivors as its top-k keeps: a scalar.
    pub(super) fn enough(&self, b: &Block<'_>) -> Value {
        let k = b.k;
        let wanted = b.param(Column::K);
        // Without top-k the slices hold the whole row, also what weighs nothing.
        let all = k.i32(if b.spec.wanted.slices { b.spec.vocab as i32 } else { 0 });
        let short = k.lt(self.count, k.choose(k.eq(wanted, k.i32(0)), all, wanted));
        k.not(k.any(short))
    }

    fn slots(&self) -> std::ops::Range<usize> {
        0..self.keys.len()
    }

    /// In how many slots the mask holds, of each row.
    fn count_where(&self, b: &Block<'_>, mask: impl Fn(usize) -> Value) -> Value {
        let k = b.k;
        let ones = self.slots().map(|i| k.choose(mask(i), k.f32(1.0), k.f32(0.0)));
        count_lanes(k, ones.reduce(|a, b| k.fadd(a, b)).expect("at least one slot"))
    }

    /// The sum of the values of slots where the mask holds, of each row.
    fn sum_where(&self, b: &Block<'_>, values: &[Value], mask: impl Fn(usize) -> Value) -> Wide {
        let k = b.k;
        let terms = self.slots().map(|i| k.choose(mask(i), values[i], k.i32(0)));
        b.sum_lanes(terms.reduce(|a, b| k.add(a, b)).expect("at least one slot"))
    }

    /// The least of the values, below 2²⁴, of slots where the mask holds; 2²⁴ where there is none.
    fn least_where(&self, b: &Block<'_>, values: &[Value], mask: impl Fn(usize) -> Value) -> Value {
        let k = b.k;
        let none = k.i32(1 << 24);
        let terms = self.slots().map(|i| k.choose(mask(i), values[i], none));
        let least = terms.reduce(|a, b| k.min(a, b)).expect("at least one slot");
        k.trunc(k.over_lanes(Reduce::Min, k.to_float(least)))
    }

    /// Chooses among the survivors of `bound`, a key that as many logits of each row reach as its top-k keeps.
    pub(super) fn choose(
        &self,
        b: &Block<'_>,
        nucleus: &Nucleus,
        max_key: Value,
        bound: Value,
        slices: Option<&Slices>,
    ) -> Outcome {
        let k = b.k;
        let greedy = self.least_where(b, &self.indices, |i| k.eq(self.keys[i], max_key));

        k.comment("top-k");
        let wanted = b.param(Column::K);
        let crowded = k.both(k.lt(k.i32(0), wanted), k.lt(wanted, self.count));
        let lowest = b.short(bound);
        let beyond = k.add(b.short(max_key), k.i32(1));
        let high = k.choose(crowded, beyond, k.add(lowest, k.i32(1)));
        let short_keys: Vec<Value> = self.keys.iter().map(|&key| b.short(key)).collect();
        let threshold = bisect(k, "top-k threshold", lowest, high, b.steps(), |middle| {
            let count = self.count_where(b, |i| k.ge(short_keys[i], middle));
            (k.ge(count, wanted), k.eq(count, wanted))
        });
        let above = self.count_where(b, |i| k.lt(threshold, short_keys[i]));
        let reached = self.count_where(b, |i| k.ge(short_keys[i], threshold));
        let tied = k.both(crowded, k.lt(wanted, reached));
        let tied = if b.spec.stable { tied } else { k.both(tied, k.bool(false)) };
        let open_ties = k.sub(wanted, above);
        let last_tie = bisect(
            k,
            "last tie that top-k keeps",
            k.i32(0),
            k.choose(tied, k.i32(b.spec.vocab as i32), k.i32(1)),
            b.steps(),
            |middle| {
                let tie = |i: usize| {
                    k.both(k.eq(short_keys[i], threshold), k.lt(self.indices[i], middle))
                };
                let count = self.count_where(b, tie);
                (k.lt(count, open_ties), k.bool(false))
            },
        );
        let last_tie = k.choose(tied, last_tie, k.i32(i32::MAX));
        let kept: Vec<Value> = self
            .slots()
            .map(|i| {
                let tie = k.both(k.eq(short_keys[i], threshold), k.ge(last_tie, self.indices[i]));
                let used = k.ge(self.indices[i], k.i32(0));
                k.both(used, k.either(k.lt(threshold, short_keys[i]), tie))
            })
            .collect();

        k.comment("weights");
        let weights: Vec<Value> = self
            .slots()
            .map(|i| {
                let clean = k.from_bits(order_key(k, self.keys[i]));
                let weight = nucleus.weigh(b, clean, k.eq(self.indices[i], greedy));
                k.choose(kept[i], weight, k.i32(0))
            })
            .collect();

        k.comment("top-p and min-p");
        let total = self.sum_where(b, &weights, |_| k.bool(true));
        let (off, target) = nucleus.target(b, total);
        let high = k.choose(off, k.add(threshold, k.i32(1)), beyond);
        let edge = bisect(k, "top-p threshold", threshold, high, b.steps(), |middle| {
            let sum = self.sum_where(b, &weights, |i| k.ge(short_keys[i], middle));
            (k.not(k.wlt(sum, target)), k.bool(false))
        });
        let inside = |i: usize| k.both(k.ge(short_keys[i], edge), k.lt(k.i32(0), weights[i]));
        let theta = k.choose(off, k.i32(0), self.least_where(b, &weights, inside));
        let least_weight = nucleus.least(b, theta);
        let drawn: Vec<Value> = weights
            .iter()
            .map(|&weight| k.choose(k.ge(weight, least_weight), weight, k.i32(0)))
            .collect();

        k.comment("the draw");
        let remainder = nucleus.remainder(b, self.sum_where(b, &drawn, |_| k.bool(true)));
        let next = bisect(
            k,
            "the token drawn",
            k.i32(0),
            k.splat(k.i32(b.spec.vocab as i32)),
            b.steps(),
            |middle| {
                let sum = self.sum_where(b, &drawn, |i| k.lt(self.indices[i], middle));
                (k.not(k.wlt(remainder, sum)), k.bool(false))
            },
        );
        if let Some(slices) = slices {
            self.write_slices(b, slices, &kept, &drawn);
        }
        let off = k.eq(wanted, k.i32(0));
        let threshold = k.choose(off, k.i32(NEG_INF_KEY), b.long(threshold));
        Outcome { next, greedy, remainder, threshold, last_tie, least_weight }
    }

    /// The kept entries by ascending index, one a slot.
    fn write_slices(&self, b: &Block<'_>, slices: &Slices, kept: &[Value], weights: &[Value]) {
        let k = b.k;
        let lane = k.lane();
        let none = 1 << 24;
        let start = [k.splat(k.i32(-1)), k.splat(k.i32(-1)), k.splat(k.i32(0)), k.splat(k.i32(0))];
        let [_, indices, keys, weights] =
            k.for_each("slots of the k-slices", k.i32(LANES as i32), start, |slot, state| {
                let [previous, indices, keys, sums] = state;
                let later = |i: usize| k.both(kept[i], k.lt(previous, self.indices[i]));
                let index = self.least_where(b, &self.indices, later);
                let here = |i: usize| k.eq(self.indices[i], index);
                let weight = self.sum_where(b, weights, here).low;
                // A key's bits, as the two halves of which sums are exact.
                let high_bits: Vec<Value> =
                    self.keys.iter().map(|&key| k.shift_right_zero(key, k.i32(16))).collect();
                let low_bits: Vec<Value> = self.keys.iter().map(|&key| k.and(key, k.i32(0xffff))).collect();
                let high = self.sum_where(b, &high_bits, here).low;
                let key = k.or(k.shl(high, 16), self.sum_where(b, &low_bits, here).low);
                let found = k.both(k.eq(lane, slot), k.lt(index, k.i32(none)));
                [
                    index,
                    k.choose(found, index, indices),
                    k.choose(found, key, keys),
                    k.choose(found, weight, sums),
                ]
            });
        let start = k.i32(0);
        k.store(&slices.indices, start, indices);
        k.store(&slices.keys, start, keys);
        k.store(&slices.weights, start, weights);
    }
}
