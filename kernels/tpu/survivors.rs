//! Computes top-k, top-p and the draw from few survivors. All survivors are in registers.

use super::context::{Context, Outcome, NO_INDEX};
use super::gather::Gathered;
use super::k_slices::{KSlices, Slot};
use super::keys::{float_of_key, order_keys};
use super::lane_sums::{count_lanes, noted_sum, ones, sum_lanes, Split};
use super::sampling::Sampling;
use super::short_division;
use super::threshold_search::{
    parts_per_step, search, search_for_value, search_from_low, search_steps, search_within, Probe, Question,
};
use super::total_bounds::Rest;
use crate::dtype::Dtype;
use crate::kernels::program_arrays::Column;
use crate::kernels::spec::Path;
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Reduce, Value, LANES};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::NEG_INF_KEY;
use crate::semantics::rules::{has_weight, kept_weight, survives_top_k};
use crate::semantics::sizes::WEIGHT_BITS;

/// The key of a slot without a survivor. Survivors are candidates, so their keys are above it.
const NO_KEY: i32 = NEG_INF_KEY;

// The total of the weights of the survivors fits the division of the draw.
const _: () = assert!(Split::WEIGHTS << WEIGHT_BITS <= 1 << short_division::TOTAL_BITS);

/// The survivors of a block's rows, in slots: one per lane, level and stripe.
pub(super) struct Survivors {
    keys: Vec<Value>,
    indices: Vec<Value>,
    /// The same indices as floats. A minimum of floats takes one operation; a minimum of integers takes two.
    float_indices: Vec<Value>,
    /// The number of survivors of each row.
    count: Value,
    /// A mask: whether a row has more survivors than slots, or than [`Split`] can add.
    overflow: Value,
}

/// The survivors that top-k keeps.
struct TopK {
    /// The short keys of the survivors.
    short_keys: Vec<Value>,
    /// A short key that is above the maximum.
    beyond: Value,
    /// The least short key that is kept.
    threshold: Value,
    /// The last index at which that key is kept.
    last_tie: Value,
    /// Whether each slot is kept.
    kept: Vec<Value>,
}

impl Survivors {
    pub(super) fn new(cx: &Context<'_>, gathered: &Gathered) -> Survivors {
        cx.among_survivors(|| Survivors::from_slots(cx, gathered))
    }

    fn from_slots(cx: &Context<'_>, gathered: &Gathered) -> Survivors {
        let k = cx.k;
        let slot = |(&value, &index): (&Value, &Value)| {
            let used = k.at_least(index, k.f32(0.0));
            let key = k.choose(used, order_keys(k, value), k.i32(NO_KEY));
            (key, k.choose(used, k.f32(1.0), k.f32(0.0)))
        };
        let slots: Vec<_> = gathered.values.iter().zip(&gathered.indices).map(slot).collect();
        let ones = slots.iter().skip(1).fold(slots[0].1, |sum, slot| k.fadd(sum, slot.1));
        let count = count_lanes(k, ones);
        let most = k.i32(Split::WEIGHTS as i32);
        let overflow = match slots.len() * LANES * k.stripes() <= Split::WEIGHTS {
            true => gathered.overflow,
            false => k.either(gathered.overflow, k.lt(most, count)),
        };
        Survivors {
            keys: slots.iter().map(|slot| slot.0).collect(),
            indices: gathered.indices.iter().map(|&index| k.rounded(index)).collect(),
            float_indices: gathered.indices.clone(),
            count,
            overflow,
        }
    }

    /// Returns a scalar: whether [`sample`](Survivors::sample) has all survivors and can add their weights.
    pub(super) fn fit(&self, cx: &Context<'_>) -> Value {
        cx.k.not(cx.k.any(self.overflow))
    }

    /// Returns a scalar: whether every row has at least as many survivors as its top-k keeps.
    pub(super) fn suffice(&self, cx: &Context<'_>) -> Value {
        let k = cx.k;
        let wanted = cx.param(Column::K);
        // Without top-k the slices contain the whole row, including entries with weight 0. If the row is longer than
        // the slots, k is never off, except for padding rows of a block.
        let whole = cx.spec.wanted.slices && cx.spec.vocab <= cx.spec.slots();
        let all = k.i32(if whole { cx.spec.vocab as i32 } else { 0 });
        let short = k.lt(self.count, k.choose(k.eq(wanted, k.i32(0)), all, wanted));
        k.not(k.any_row(short))
    }

    /// Calls `value` with the cleaned logit of each survivor. Returns the sum of the results in each lane of each
    /// stripe. Of several copies of a survivor, only one counts.
    pub(super) fn sum_floats(&self, cx: &Context<'_>, value: impl Fn(Value) -> Value) -> Value {
        let k = cx.k;
        let terms = self.slots().map(|i| {
            let used = k.ge(self.indices[i], k.i32(0));
            let used =
                if cx.layout.copies.is_some() { k.both(used, k.eq(k.stripe(), k.i32(0))) } else { used };
            k.choose(used, value(float_of_key(k, self.keys[i])), k.f32(0.0))
        });
        terms.reduce(|a, b| k.fadd(a, b)).expect("at least one slot")
    }

    /// Samples from the survivors. `bound` is a key. In each row, the number of logits that reach it is at least the
    /// number that top-k keeps. `rest` contains bounds of the sum of the weights of all other entries. Also returns a
    /// mask: whether these bounds decide the result of the row. If they do not, the result has no meaning.
    pub(super) fn sample(
        &self,
        cx: &Context<'_>,
        sampling: &Sampling,
        bound: Value,
        rest: &Rest,
        slices: Option<&KSlices>,
    ) -> (Outcome, Value) {
        cx.among_survivors(|| self.sample_from_slots(cx, sampling, bound, rest, slices))
    }

    fn sample_from_slots(
        &self,
        cx: &Context<'_>,
        sampling: &Sampling,
        bound: Value,
        rest: &Rest,
        slices: Option<&KSlices>,
    ) -> (Outcome, Value) {
        let k = cx.k;
        let greedy = self.least_index_where(cx, |i| k.eq(self.keys[i], sampling.max_key));

        k.comment("top-k");
        let wanted = cx.param(Column::K);
        let top_k = self.top_k(cx, sampling, wanted, bound);

        k.comment("weights");
        let sampled_row = k.not(sampling.greedy_row);
        let weigh = |i: usize| {
            let weight = sampling.weight_of(cx, float_of_key(k, self.keys[i]));
            let is_greedy = k.eq(self.indices[i], greedy);
            k.choose(has_weight(k, top_k.kept[i], sampled_row, is_greedy), weight, k.i32(0))
        };
        let weights: Vec<Value> = self.slots().map(weigh).collect();

        k.comment("top-p and min-p");
        let (least_weight, decided) = self.least_weight(cx, sampling, &top_k, &weights, rest);
        let weights: Vec<Value> = weights.iter().map(|&w| kept_weight(k, w, least_weight)).collect();

        k.comment("draw");
        let (next, remainder) = self.draw(cx, sampling, &weights);
        if let Some(slices) = slices {
            self.write_slices(cx, slices, &top_k.kept, &weights);
        }
        let off = k.eq(wanted, k.i32(0));
        let threshold = k.choose(off, k.i32(NEG_INF_KEY), cx.full_key(top_k.threshold));
        let outcome = Outcome { next, greedy, remainder, threshold, last_tie: top_k.last_tie, least_weight };
        (outcome, decided)
    }

    fn slots(&self) -> std::ops::Range<usize> {
        0..self.keys.len()
    }

    /// Returns the number of slots of each lane where the mask is true.
    fn ones_where(&self, cx: &Context<'_>, mask: impl Fn(usize) -> Value) -> Value {
        ones(cx.k, self.slots().map(mask))
    }

    /// Returns the number of slots of each row where the mask is true.
    fn count_where(&self, cx: &Context<'_>, mask: impl Fn(usize) -> Value) -> Value {
        count_lanes(cx.k, self.ones_where(cx, mask))
    }

    /// Returns the sum of `parts` over all slots of each row.
    fn sum(&self, cx: &Context<'_>, parts: &[Split]) -> Split {
        Split::sum_where(cx.k, parts, |_| cx.k.bool(true)).over_row(cx.k)
    }

    /// Returns the value of the slot where the mask is true. Each row has at most one. The result is 0 if there is
    /// none.
    fn value_where(&self, cx: &Context<'_>, values: &[Value], mask: impl Fn(usize) -> Value) -> Value {
        let k = cx.k;
        let terms = self.slots().map(|i| k.choose(mask(i), values[i], k.i32(0)));
        sum_lanes(k, terms.reduce(|a, b| k.or(a, b)).expect("at least one slot")).low
    }

    /// Returns the least index in the slots of each row where the mask is true. The result is [`NO_INDEX`] if there is
    /// no slot.
    fn least_index_where(&self, cx: &Context<'_>, mask: impl Fn(usize) -> Value) -> Value {
        let k = cx.k;
        let none = k.f32(NO_INDEX as f32);
        let terms = self.slots().map(|i| k.choose(mask(i), self.float_indices[i], none));
        let least = terms.reduce(|a, b| k.fmin(a, b)).expect("at least one slot");
        k.rounded(k.over_row(Reduce::Min, least))
    }

    /// Finds the entries that top-k keeps. A row with at most `wanted` survivors keeps all of them.
    fn top_k(&self, cx: &Context<'_>, sampling: &Sampling, wanted: Value, bound: Value) -> TopK {
        let k = cx.k;
        let crowded = k.both(k.lt(k.i32(0), wanted), k.lt(wanted, self.count));
        let lowest = cx.short_key(bound);
        let beyond = k.add(cx.short_key(sampling.max_key), k.i32(1));
        let high = k.choose(crowded, beyond, k.add(lowest, k.i32(1)));
        let short_keys: Vec<Value> = self.keys.iter().map(|&key| cx.short_key(key)).collect();
        let terms = |place| vec![self.ones_where(cx, |i| k.ge(short_keys[i], place))];
        let decide = |sums: &[Value]| Probe::count(k, k.rounded(sums[0]), wanted);
        let (label, question) = ("top-k threshold", Question { terms, decide });
        let threshold = match cx.spec.path {
            // The bound is usually near the threshold.
            Path::Bounded(_) => search_from_low(k, label, [lowest, high], ([5, 4, 2], 1), &question),
            Path::Arbitrary => search(k, label, lowest, high, &question),
        };
        let above = self.count_where(cx, |i| k.lt(threshold, short_keys[i]));
        let reached = self.count_where(cx, |i| k.ge(short_keys[i], threshold));
        let tied = k.both(crowded, k.lt(wanted, reached));
        let kept_ties = k.sub(wanted, above);
        let all = k.splat(k.i32(i32::MAX));
        let is_tie = |i: usize| k.eq(short_keys[i], threshold);
        let last_tie = match cx.spec.stable {
            true => {
                // A row with ties keeps at least one of them, because the k-th largest entry is one of them.
                let kept = k.choose(tied, kept_ties, k.i32(0));
                let most = k.largest_of_rows(k.to_float(kept));
                let some = k.above(most, k.f32(0.0));
                let find_last = || vec![self.last_tie(cx, is_tie, kept, most)];
                k.if_else("ties at the top-k threshold", some, find_last, || vec![all])[0]
            }
            false => all,
        };
        let last_tie = k.choose(tied, last_tie, all);
        let keep = |i: usize| {
            let used = k.ge(self.indices[i], k.i32(0));
            k.both(used, survives_top_k(k, short_keys[i], self.indices[i], threshold, last_tie))
        };
        let kept = self.slots().map(keep).collect();
        TopK { short_keys, beyond, threshold, last_tie, kept }
    }

    /// Returns the index of the last tie that each row keeps. `kept` is the number of ties that the row keeps. It is 0
    /// if the row keeps all ties. `most` is the largest of these numbers, as a scalar float.
    fn last_tie(&self, cx: &Context<'_>, is_tie: impl Fn(usize) -> Value, kept: Value, most: Value) -> Value {
        // Up to this number, ties are counted one by one. A search takes about as long as counting twice this number of
        // ties.
        const COUNTED: f32 = 5.0;
        let (k, vocab) = (cx.k, cx.spec.vocab);
        let few = k.at_least(k.f32(COUNTED), most);
        let counted = || {
            let start = [k.splat(k.i32(-1))];
            let count = k.truncate_scalar(most);
            let [last] = k.for_each("count kept ties", count, start, |number, [last]| {
                let later = |i: usize| k.both(is_tie(i), k.lt(last, self.indices[i]));
                [k.choose(k.lt(number, kept), self.least_index_where(cx, later), last)]
            });
            vec![last]
        };
        let searched = || {
            let terms = |place| {
                let earlier = |i: usize| k.both(is_tie(i), k.lt(self.indices[i], place));
                vec![self.ones_where(cx, earlier)]
            };
            let decide = |sums: &[Value]| Probe { reaches: k.lt(k.rounded(sums[0]), kept), exact: None };
            let question = Question { terms, decide };
            vec![search_within(k, "last kept tie", all_indices(cx), vocab, &question)]
        };
        k.if_else("few kept ties", few, counted, searched)[0]
    }

    /// Returns the least weight that survives both top-p and min-p. `weights` are the weights after top-k. Also returns
    /// whether this least weight is the same for every total that `rest` allows.
    fn least_weight(
        &self,
        cx: &Context<'_>,
        sampling: &Sampling,
        top_k: &TopK,
        weights: &[Value],
        rest: &Rest,
    ) -> (Value, Value) {
        let k = cx.k;
        let parts = split(cx, weights);
        let sum = noted_sum(k, self.sum(cx, &parts).number(k), Split::WEIGHTS);
        let (off, most) = sampling.top_p_target(cx, rest.most_with(k, sum));
        let target = Split::new(k, most);
        let high = k.choose(off, k.add(top_k.threshold, k.i32(1)), top_k.beyond);
        // Weights never increase with decreasing keys, so the search finds the key of the threshold.
        let terms = |place| Split::sum_where(k, &parts, |i| k.ge(top_k.short_keys[i], place)).terms();
        let decide =
            |sums: &[Value]| Probe { reaches: target.is_at_most(k, &Split::from_terms(sums)), exact: None };
        let question = Question { terms, decide };
        let (low, label) = (top_k.threshold, "top-p threshold");
        let edge = match (cx.spec.path, cx.spec.dtype) {
            // The survivors of top-k are in a short range, so they have few different 16-bit keys.
            (Path::Bounded(_), Dtype::Bf16) => {
                search_from_low(k, label, [low, high], ([4, 3, 2], 2), &question)
            }
            // A complete search would take many steps.
            (path, dtype) => {
                let range = match path {
                    // The range is short, so the probe is not necessary.
                    Path::Bounded(_) => [low, high],
                    Path::Arbitrary => self.near_maximum(cx, sampling, top_k, [low, high], &parts, &target),
                };
                let keys = &top_k.short_keys;
                match dtype {
                    Dtype::Bf16 => {
                        k.rounded(search_for_value(k, label, range, keys, &question, |key| k.to_float(key)))
                    }
                    Dtype::F32 | Dtype::F16 => {
                        let float = |key| float_of_key(k, key);
                        order_keys(k, search_for_value(k, label, range, keys, &question, float))
                    }
                }
            }
        };
        let least_weight = sampling.least_weight(cx, off, sampling.weight_of_key(cx, cx.full_key(edge)));
        if rest.is_nothing() {
            return (least_weight, k.bool(true));
        }
        // The threshold was found with the largest target. The least target has the same threshold if the sum of the
        // weights above the threshold is below the least target.
        let (_, least) = sampling.top_p_target(cx, rest.least_with(k, sum));
        let above = Split::sum_where(k, &parts, |i| k.lt(edge, top_k.short_keys[i])).over_row(k);
        let same = k.both(k.not(k.wlt(sum, most)), k.wlt(above.number(k), least));
        // Every entry that is not a survivor must have a weight below `least_weight`. Without top-k, `top_k.threshold`
        // is the bound of the survivors.
        let below = sampling.weight_of_key(cx, cx.full_key(k.sub(top_k.threshold, k.i32(1))));
        let same = k.both(same, k.lt(below, least_weight));
        (least_weight, k.either(off, same))
    }

    /// Shortens the range of keys that contains the threshold of top-p, with one probe near the maximum. The threshold
    /// is usually near the maximum. But without top-k, most keys of the range are keys of small numbers.
    fn near_maximum(
        &self,
        cx: &Context<'_>,
        sampling: &Sampling,
        top_k: &TopK,
        [low, high]: [Value; 2],
        parts: &[Split],
        target: &Split,
    ) -> [Value; 2] {
        const OCTAVES: f32 = 8.0;
        let k = cx.k;
        let near = k.fsub(sampling.max, sampling.distance_of_octaves(cx, OCTAVES));
        let place = cx.short_key(order_keys(k, near));
        let sum = Split::sum_where(k, parts, |i| k.ge(top_k.short_keys[i], place)).over_row(k);
        let reaches = target.is_at_most(k, &sum);
        let inside = k.both(k.lt(low, place), k.lt(place, high));
        let new_low = k.choose(k.both(inside, reaches), place, low);
        [new_low, k.choose(k.both(inside, k.not(reaches)), place, high)]
    }

    /// Draws an index by weight. Returns it with the remainder.
    fn draw(&self, cx: &Context<'_>, sampling: &Sampling, weights: &[Value]) -> (Value, Wide) {
        let k = cx.k;
        let parts = split(cx, weights);
        let total = noted_sum(k, self.sum(cx, &parts).number(k), Split::WEIGHTS);
        let remainder = sampling.remainder_of_short(cx, total);
        let bound = Split::new(k, remainder);
        // The drawn index is the last index for which the sum of the weights before it is at most the remainder.
        let terms = |place| Split::sum_where(k, &parts, |i| k.lt(self.indices[i], place)).terms();
        let decide =
            |sums: &[Value]| Probe { reaches: Split::from_terms(sums).is_at_most(k, &bound), exact: None };
        let next = self.drawn_index(cx, weights, &Question { terms, decide });
        // A half that is always zero is still a scalar constant, so it is converted to a register.
        (next, Wide { low: k.splat(remainder.low), high: k.splat(remainder.high) })
    }

    /// Returns the last index that `question` reports as reached. The entry at this index has a weight.
    fn drawn_index(
        &self,
        cx: &Context<'_>,
        weights: &[Value],
        question: &Question<impl Fn(Value) -> Vec<Value>, impl Fn(&[Value]) -> Probe>,
    ) -> Value {
        // If the range is divided into this number of parts, it rarely contains two survivors, even in a long row. If
        // it contains one survivor, this survivor is the result.
        const PARTS: usize = 1 << 12;
        let (k, vocab) = (cx.k, cx.spec.vocab);
        let rest = vocab.div_ceil(PARTS);
        if rest <= 4 {
            return search_within(k, "drawn index", all_indices(cx), vocab, question);
        }
        let steps = PARTS.ilog2() / parts_per_step(k).ilog2();
        let [low, high] =
            search_steps(k, "range of the drawn index", all_indices(cx), (vocab, steps as usize), question);
        let here = |i: usize| {
            let drawn = k.lt(k.i32(0), weights[i]);
            k.both(drawn, k.both(k.ge(self.indices[i], low), k.lt(self.indices[i], high)))
        };
        let several = k.lt(k.i32(1), self.count_where(cx, here));
        let only = self.least_index_where(cx, here);
        let close = || vec![search_within(k, "drawn index", [low, high], rest, question)];
        k.if_else("several survivors in the range", k.any_row(several), close, || vec![only])[0]
    }

    fn write_slices(&self, cx: &Context<'_>, slices: &KSlices, kept: &[Value], weights: &[Value]) {
        let k = cx.k;
        slices.write(cx, |previous| {
            let later = |i: usize| k.both(kept[i], k.lt(previous, self.indices[i]));
            let index = self.least_index_where(cx, later);
            let here = |i: usize| k.eq(self.indices[i], index);
            let weight = self.value_where(cx, weights, here);
            let key = self.value_where(cx, &self.keys, here);
            Slot { index, key, weight }
        });
    }
}

/// Returns the range of all indices of a row.
fn all_indices(cx: &Context<'_>) -> [Value; 2] {
    let k = cx.k;
    [k.i32(0), k.i32(cx.spec.vocab as i32)].map(|end| k.splat(end))
}

/// Splits weights into parts whose sums are exact.
fn split(cx: &Context<'_>, weights: &[Value]) -> Vec<Split> {
    weights.iter().map(|&weight| Split::new(cx.k, cx.k.widen(weight))).collect()
}
