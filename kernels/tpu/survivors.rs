//! Top-k, top-p and the draw over few survivors, all of them in registers.

use super::context::{Block, Outcome, Split};
use super::prefilter::{key_of, Gathered};
use super::sampling::Nucleus;
use super::threshold_search::{count_lanes, search, search_steps, search_within, Probe};
use crate::kernels::Column;
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Memory, Reduce, Value, LANES};
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
        // Without top-k the slices hold the whole row, also what weighs nothing. Longer rows without it only fill a block.
        let whole = b.spec.wanted.slices && b.spec.vocab <= b.slots();
        let all = k.i32(if whole { b.spec.vocab as i32 } else { 0 });
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

    /// Weights as the floats whose sums are exact.
    fn split(&self, b: &Block<'_>, weights: &[Value]) -> Vec<Split> {
        let short = |&weight: &Value| b.split(b.k.widen(weight));
        weights.iter().map(short).collect()
    }

    /// The sum of the weights of slots where the mask holds, of each row.
    fn sum_where(&self, b: &Block<'_>, parts: &[Split], mask: impl Fn(usize) -> Value) -> Split {
        let k = b.k;
        let zero = k.f32(0.0);
        let terms = self.slots().map(|i| {
            let mask = mask(i);
            (k.choose(mask, parts[i].high, zero), k.choose(mask, parts[i].low, zero))
        });
        let sums = terms.reduce(|a, b| (k.fadd(a.0, b.0), k.fadd(a.1, b.1))).expect("at least one slot");
        Split { high: k.over_lanes(Reduce::Add, sums.0), low: k.over_lanes(Reduce::Add, sums.1) }
    }

    /// The value of the one slot of each row where the mask holds; 0 where there is none.
    fn value_where(&self, b: &Block<'_>, values: &[Value], mask: impl Fn(usize) -> Value) -> Value {
        let k = b.k;
        let terms = self.slots().map(|i| k.choose(mask(i), values[i], k.i32(0)));
        b.sum_lanes(terms.reduce(|a, b| k.or(a, b)).expect("at least one slot")).low
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
        let threshold = search(k, "top-k threshold", lowest, high, b.steps(), |place| {
            let count = self.count_where(b, |i| k.ge(short_keys[i], place));
            Probe { reaches: k.ge(count, wanted), exact: Some(k.eq(count, wanted)) }
        });
        let above = self.count_where(b, |i| k.lt(threshold, short_keys[i]));
        let reached = self.count_where(b, |i| k.ge(short_keys[i], threshold));
        let tied = k.both(crowded, k.lt(wanted, reached));
        let open_ties = k.sub(wanted, above);
        let last = k.splat(k.i32(i32::MAX));
        let find_last = || vec![self.last_tie(b, &short_keys, threshold, tied, open_ties)];
        let last_tie = match b.spec.stable {
            true => k.if_else("ties at the top-k threshold", k.any(tied), find_last, || vec![last])[0],
            false => last,
        };
        let last_tie = k.choose(tied, last_tie, last);
        let kept: Vec<Value> = self
            .slots()
            .map(|i| {
                let tie = k.both(k.eq(short_keys[i], threshold), k.ge(last_tie, self.indices[i]));
                let used = k.ge(self.indices[i], k.i32(0));
                k.both(used, k.either(k.lt(threshold, short_keys[i]), tie))
            })
            .collect();

        k.comment("weights");
        // A greedy row draws from its maximum alone.
        let sampled = k.not(nucleus.greedy_row);
        let weights: Vec<Value> = self
            .slots()
            .map(|i| {
                let weight = nucleus.weight_of(b, k.from_bits(order_key(k, self.keys[i])));
                let drawn = k.either(sampled, k.eq(self.indices[i], greedy));
                k.choose(k.both(kept[i], drawn), weight, k.i32(0))
            })
            .collect();

        k.comment("top-p and min-p");
        let parts = self.split(b, &weights);
        let total = self.sum_where(b, &parts, |_| k.bool(true));
        let (off, target) = nucleus.target(b, b.number(&total));
        let target = b.split(target);
        let high = k.choose(off, k.add(threshold, k.i32(1)), beyond);
        let edge = search(k, "top-p threshold", threshold, high, b.steps(), |place| {
            let sum = self.sum_where(b, &parts, |i| k.ge(short_keys[i], place));
            Probe { reaches: k.not(b.less(&sum, &target)), exact: None }
        });
        let least_weight = nucleus.least(b, k.choose(off, k.i32(0), nucleus.weight_of_key(b, b.long(edge))));
        let drawn: Vec<Value> =
            weights.iter().map(|&weight| k.choose(k.ge(weight, least_weight), weight, k.i32(0))).collect();

        k.comment("the draw");
        let parts = self.split(b, &drawn);
        let total = self.sum_where(b, &parts, |_| k.bool(true));
        let remainder = nucleus.remainder(b, b.number(&total));
        let drawn_at = b.split(remainder);
        let next = self.token_drawn(b, &drawn, |place| {
            let sum = self.sum_where(b, &parts, |i| k.lt(self.indices[i], place));
            Probe { reaches: k.not(b.less(&drawn_at, &sum)), exact: None }
        });
        if let Some(slices) = slices {
            self.write_slices(b, slices, &kept, &drawn);
        }
        let off = k.eq(wanted, k.i32(0));
        let threshold = k.choose(off, k.i32(NEG_INF_KEY), b.long(threshold));
        // A half that is zero by construction has no lanes yet.
        let remainder = Wide { low: k.splat(remainder.low), high: k.splat(remainder.high) };
        Outcome { next, greedy, remainder, threshold, last_tie, least_weight }
    }

    /// The index that the draw falls on: the last place before which no more weight lies than was drawn.
    fn token_drawn(&self, b: &Block<'_>, weights: &[Value], probe: impl Fn(Value) -> Probe) -> Value {
        // A 4⁶th of a long row seldom holds two of its survivors, and then the one there is the answer.
        const STEPS: u32 = 6;
        let (k, vocab) = (b.k, b.spec.vocab);
        let start = [k.i32(0), k.i32(vocab as i32)].map(|end| k.splat(end));
        let rest = vocab.div_ceil(4usize.pow(STEPS));
        if rest <= 4 {
            return search_within(k, "the token drawn", start, vocab, probe)[0];
        }
        let [low, high] = search_steps(k, "where the token drawn is", start, STEPS as usize, &probe);
        let here = |i: usize| {
            let drawn = k.lt(k.i32(0), weights[i]);
            k.both(drawn, k.both(k.ge(self.indices[i], low), k.lt(self.indices[i], high)))
        };
        let several = k.lt(k.i32(1), self.count_where(b, here));
        let only = self.least_where(b, &self.indices, here);
        let close = || vec![search_within(k, "the token drawn", [low, high], rest, &probe)[0]];
        k.if_else("another is near the token drawn", k.any(several), close, || vec![only])[0]
    }

    /// The index of the last tie that rows where `tied` keep, of which they keep `open`.
    fn last_tie(
        &self,
        b: &Block<'_>,
        short_keys: &[Value],
        threshold: Value,
        tied: Value,
        open: Value,
    ) -> Value {
        // So many ties are counted off one by one; a search takes as long as about twice as many.
        const COUNTED: f32 = 5.0;
        let (k, vocab) = (b.k, b.spec.vocab);
        let is_tie = |i: usize| k.eq(short_keys[i], threshold);
        let open = k.choose(tied, open, k.i32(0));
        let most = k.over_all(Reduce::Max, k.to_float(open));
        let few = k.at_least(k.f32(COUNTED), most);
        let counted = || {
            let start = [k.splat(k.i32(-1))];
            let turns = k.truncate_scalar(most);
            let [last] = k.for_each("a tie that top-k keeps", turns, start, |turn, [last]| {
                let later = |i: usize| k.both(is_tie(i), k.lt(last, self.indices[i]));
                [k.choose(k.lt(turn, open), self.least_where(b, &self.indices, later), last)]
            });
            vec![last]
        };
        let searched = || {
            let range = [k.i32(0), k.i32(vocab as i32)].map(|end| k.splat(end));
            let [last, _] = search_within(k, "last tie that top-k keeps", range, vocab, |place| {
                let earlier = |i: usize| k.both(is_tie(i), k.lt(self.indices[i], place));
                Probe { reaches: k.lt(self.count_where(b, earlier), open), exact: None }
            });
            vec![last]
        };
        k.if_else("few ties to keep", few, counted, searched)[0]
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
                let weight = self.value_where(b, weights, here);
                let key = self.value_where(b, &self.keys, here);
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
