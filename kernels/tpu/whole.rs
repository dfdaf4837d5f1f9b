//! Top-k, top-p and the draw over whole rows, pass by pass: exact for any row and any k.

use super::block::{Block, Outcome};
use super::few::Slices;
use super::nucleus::Nucleus;
use super::threshold::{bisect, count_lanes, just_below, keys, Probe};
use crate::kernels::Column;
use crate::mosaic::wide::Wide;
use crate::mosaic::{Elem, Memory, Reduce, Space, Value, LANES, SUBLANES};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::NEG_INF_KEY;
use crate::semantics::weights::MAX_WEIGHT;

/// Counts and sums that a pass keeps apart, so that they do not wait for one another.
const PARTS: usize = 4;

/// Memory of this way through.
pub(super) struct Whole {
    /// Weights of the block's rows, where there is room for them.
    weights: Option<Memory>,
    /// One chunk of each row, each row's own.
    focus: Memory,
}

/// Which entries top-k keeps, as floats to compare raw logits with.
#[derive(Clone, Copy)]
struct Kept {
    /// Logits above are at the threshold or above it.
    reaches: Value,
    /// Logits above are above the threshold.
    exceeds: Value,
    last_tie: Value,
}

impl Whole {
    pub(super) fn new(b: &Block<'_>) -> Whole {
        let width = b.layout.padded() * LANES;
        let weights = b.layout.keep_weights.then(|| b.k.scratch(Elem::I32, &[SUBLANES, width], Space::Vmem));
        let focus = b.k.scratch(Elem::I32, &[SUBLANES, b.layout.chunk * LANES], Space::Vmem);
        Whole { weights, focus }
    }

    /// How many of each row's logits are above the floats of `edges`, in one pass.
    fn count_above<const N: usize>(&self, b: &Block<'_>, label: &str, edges: [Value; N]) -> [Value; N] {
        let k = b.k;
        let start = vec![k.splat(k.f32(0.0)); N * PARTS];
        let counts = b.rows.pass(label, &start, |chunk, _, state| {
            let mut state = state.to_vec();
            for register in 0..b.layout.chunk {
                let x = k.load(chunk, k.i32((register * LANES) as i32));
                for (i, &edge) in edges.iter().enumerate() {
                    let part = i * PARTS + register % PARTS;
                    let one = k.choose(k.above(x, edge), k.f32(1.0), k.f32(0.0));
                    state[part] = k.fadd(state[part], one);
                }
            }
            state
        });
        std::array::from_fn(|i| {
            let parts = &counts[i * PARTS..(i + 1) * PARTS];
            let sum = parts[1..].iter().fold(parts[0], |sum, &part| k.fadd(sum, part));
            count_lanes(k, sum)
        })
    }

    /// Indices of the entries of one register of a chunk.
    fn indices(&self, b: &Block<'_>, chunk: Value, register: usize) -> Value {
        let k = b.k;
        let first = k.mul(chunk, k.i32((b.layout.chunk * LANES) as i32));
        k.add(k.lane(), k.add(first, k.i32((register * LANES) as i32)))
    }

    /// Chooses among all logits; as many of each row reach `bound` as its top-k keeps.
    pub(super) fn choose(
        &self,
        b: &Block<'_>,
        nucleus: &Nucleus,
        max_key: Value,
        bound: Value,
        slices: Option<&Slices>,
    ) -> Outcome {
        let k = b.k;
        let greedy = self.greedy(b, max_key);

        k.comment("top-k");
        let wanted = b.param(Column::K);
        let on = k.lt(k.i32(0), wanted);
        let lowest = b.short(bound);
        let high = k.choose(on, k.add(b.short(max_key), k.i32(1)), k.add(lowest, k.i32(1)));
        let found = bisect(k, "top-k threshold, a pass each", lowest, high, |middle| {
            let edge = just_below(k, b.long(middle));
            let [count] = self.count_above(b, "count", [edge]);
            Probe { reaches: k.ge(count, wanted), exact: Some(k.eq(count, wanted)) }
        });
        let threshold = k.choose(on, b.long(found), k.i32(NEG_INF_KEY));
        let reaches = just_below(k, threshold);
        // Where even −inf is kept, every candidate is above the threshold.
        let lowest_kept = k.eq(threshold, k.i32(NEG_INF_KEY));
        let above_found = just_below(k, b.long(k.add(found, k.i32(1))));
        let exceeds = k.choose(lowest_kept, k.f32(f32::NEG_INFINITY), above_found);
        let [reached, above] = self.count_above(b, "count ties", [reaches, exceeds]);
        // Every entry reaches the key of −inf, NaN too; the comparison with a float cannot say so.
        let reached = k.choose(lowest_kept, k.i32(b.spec.vocab as i32), reached);
        let crowded = k.both(on, k.lt(wanted, reached));
        let last_tie = k.splat(k.i32(i32::MAX));
        let last_tie = if b.spec.stable {
            let open = k.sub(k.sub(wanted, above), k.i32(1));
            let tie = |x: Value| {
                let reached = k.either(lowest_kept, k.above(x, reaches));
                let ones = k.both(reached, k.not(k.above(x, exceeds)));
                k.choose(ones, k.i32(1), k.i32(0))
            };
            let found = k.if_else(
                "ties at the top-k threshold",
                k.any(crowded),
                || {
                    let sums = self.chunk_sums(b, "ties of each chunk", |chunk, _, register| {
                        tie(k.load(chunk, k.i32((register * LANES) as i32)))
                    });
                    let at = k.choose(crowded, open, k.i32(0));
                    let value = |chunk: &Memory, _: Value, register: usize| {
                        tie(k.load(chunk, k.i32((register * LANES) as i32)))
                    };
                    vec![self.locate(b, sums, k.widen(at), value)]
                },
                || vec![last_tie],
            );
            k.choose(crowded, found[0], last_tie)
        } else {
            last_tie
        };
        let kept = Kept { reaches, exceeds, last_tie };

        k.comment("weights");
        let weigh = |chunk: &Memory, number: Value, register: usize| {
            self.weigh(b, nucleus, kept, greedy, chunk, number, register)
        };
        let first = self.chunk_sums(b, "weights", |chunk, number, register| {
            let weight = weigh(chunk, number, register);
            if let Some(weights) = &self.weights {
                let at = k.mul(number, k.i32(b.layout.chunk as i32));
                let to = k.registers(weights, at, b.layout.chunk);
                k.store(&to, k.i32((register * LANES) as i32), weight);
            }
            weight
        });
        let total = self.total(b, first);

        k.comment("top-p and min-p");
        let (off, target) = nucleus.target(b, total);
        let beyond = k.choose(off, k.i32(2), k.i32(MAX_WEIGHT + 1));
        let again = |chunk: &Memory, number: Value, register: usize| match &self.weights {
            Some(weights) => {
                let at = k.mul(number, k.i32(b.layout.chunk as i32));
                k.load(&k.registers(weights, at, b.layout.chunk), k.i32((register * LANES) as i32))
            }
            None => weigh(chunk, number, register),
        };
        let theta = bisect(k, "top-p threshold, a pass each", k.i32(1), beyond, |middle| {
            let sum = self.sum(b, "sum", |chunk, number, register| {
                let weight = again(chunk, number, register);
                k.choose(k.ge(weight, middle), weight, k.i32(0))
            });
            Probe { reaches: k.not(k.wlt(sum, target)), exact: None }
        });
        let least_weight = nucleus.least(b, k.choose(off, k.i32(0), theta));

        k.comment("the draw");
        let drawn = |chunk: &Memory, number: Value, register: usize| {
            let weight = again(chunk, number, register);
            k.choose(k.ge(weight, least_weight), weight, k.i32(0))
        };
        let sums = self.chunk_sums(b, "what may be drawn", drawn);
        let remainder = nucleus.remainder(b, self.total(b, sums));
        let next = self.locate(b, sums, remainder, drawn);
        if let Some(slices) = slices {
            self.write_slices(b, slices, kept, lowest_kept, drawn);
        }
        Outcome { next, greedy, remainder, threshold, last_tie, least_weight }
    }

    /// The lowest index of the maximum.
    fn greedy(&self, b: &Block<'_>, max_key: Value) -> Value {
        let k = b.k;
        let below = just_below(k, max_key);
        let start = vec![k.splat(k.i32(i32::MAX)); PARTS];
        let found = b.rows.pass("first of the maxima", &start, |chunk, number, state| {
            let mut state = state.to_vec();
            for register in 0..b.layout.chunk {
                let x = k.load(chunk, k.i32((register * LANES) as i32));
                let index = k.choose(k.above(x, below), self.indices(b, number, register), k.i32(1 << 24));
                state[register % PARTS] = k.min(state[register % PARTS], index);
            }
            state
        });
        let least = found[1..].iter().fold(found[0], |a, &b| k.min(a, b));
        k.trunc(k.over_lanes(Reduce::Min, k.to_float(least)))
    }

    fn is_kept(&self, b: &Block<'_>, kept: Kept, x: Value, index: Value) -> Value {
        let k = b.k;
        let tie = k.both(k.above(x, kept.reaches), k.ge(kept.last_tie, index));
        k.either(k.above(x, kept.exceeds), tie)
    }

    #[allow(clippy::too_many_arguments)]
    fn weigh(
        &self,
        b: &Block<'_>,
        nucleus: &Nucleus,
        kept: Kept,
        greedy: Value,
        chunk: &Memory,
        number: Value,
        register: usize,
    ) -> Value {
        let k = b.k;
        let x = k.load(chunk, k.i32((register * LANES) as i32));
        let index = self.indices(b, number, register);
        let flat = k.lt(k.and(k.bits(x), k.i32(i32::MAX)), k.i32(0x0080_0000));
        let clean = k.fmin(k.choose(flat, k.f32(0.0), x), k.f32(f32::MAX));
        let weight = nucleus.weigh(b, clean, k.eq(index, greedy));
        // −inf and NaN are kept by no comparison: they weigh nothing.
        let candidate = k.above(x, k.f32(f32::NEG_INFINITY));
        k.choose(k.both(candidate, self.is_kept(b, kept, x, index)), weight, k.i32(0))
    }

    /// The sum of what `value` gives for each register of the row.
    fn sum(&self, b: &Block<'_>, label: &str, value: impl Fn(&Memory, Value, usize) -> Value) -> Wide {
        let k = b.k;
        let start = [k.splat(k.i32(0)); 2];
        let sums = b.rows.pass(label, &start, |chunk, number, state| {
            let sum = self.chunk_sum(b, chunk, number, &value);
            // In halves, whose sums over chunks do not overflow.
            vec![
                k.add(state[0], k.and(sum, k.i32(0xffff))),
                k.add(state[1], k.shift_right_zero(sum, k.i32(16))),
            ]
        });
        let (low, high) = (b.sum_lanes(sums[0]), b.sum_lanes(sums[1]));
        k.wadd(low, k.wshl(high, 16))
    }

    /// Sums of a chunk's registers, lane by lane.
    fn chunk_sum(
        &self,
        b: &Block<'_>,
        chunk: &Memory,
        number: Value,
        value: impl Fn(&Memory, Value, usize) -> Value,
    ) -> Value {
        let k = b.k;
        let mut parts: [Option<Value>; PARTS] = [None; PARTS];
        for register in 0..b.layout.chunk {
            let value = value(chunk, number, register);
            let part = &mut parts[register % PARTS];
            *part = Some(part.map_or(value, |sum| k.add(sum, value)));
        }
        parts.into_iter().flatten().reduce(|a, b| k.add(a, b)).expect("a chunk is not empty")
    }

    /// The sum of each chunk, chunk `i` in lane `i`.
    fn chunk_sums(&self, b: &Block<'_>, label: &str, value: impl Fn(&Memory, Value, usize) -> Value) -> Wide {
        let k = b.k;
        let lane = k.lane();
        let start = [k.splat(k.i32(0)); 2];
        let sums = b.rows.pass(label, &start, |chunk, number, state| {
            let sum = b.sum_lanes(self.chunk_sum(b, chunk, number, &value));
            let here = k.eq(lane, number);
            vec![k.choose(here, sum.low, state[0]), k.choose(here, sum.high, state[1])]
        });
        Wide { low: sums[0], high: sums[1] }
    }

    /// The sum of chunk sums.
    fn total(&self, b: &Block<'_>, sums: Wide) -> Wide {
        let k = b.k;
        k.wadd(b.sum_lanes(sums.low), k.wshl(k.wshl(b.sum_lanes(sums.high), 16), 16))
    }

    /// The first index up to and with which the values of a row add up to more than `bound`; `sums` are the values'
    /// chunk sums. Any index where they do not.
    fn locate(
        &self,
        b: &Block<'_>,
        sums: Wide,
        bound: Wide,
        value: impl Fn(&Memory, Value, usize) -> Value,
    ) -> Value {
        let (k, layout) = (b.k, b.layout);
        let (chunk, bound) = self.first_lane(b, sums, bound);
        let chunk = k.min(chunk, k.i32(layout.chunks as i32 - 1));
        self.gather(b, chunk, value);

        let lane = k.lane();
        let zero = k.splat(k.i32(0));
        let mut sums = Wide { low: zero, high: zero };
        let registers: Vec<Value> =
            (0..layout.chunk).map(|register| k.load(&self.focus, k.i32((register * LANES) as i32))).collect();
        for (number, &register) in registers.iter().enumerate() {
            let sum = b.sum_lanes(register);
            let here = k.eq(lane, k.i32(number as i32));
            sums = k.wselect(here, sum, sums);
        }
        let (register, bound) = self.first_lane(b, sums, bound);
        let mut values = zero;
        for (number, &content) in registers.iter().enumerate() {
            values = k.choose(k.eq(register, k.i32(number as i32)), content, values);
        }
        let (column, _) = self.first_lane(b, k.widen(values), bound);
        let register = k.add(k.mul(chunk, k.i32(layout.chunk as i32)), register);
        k.add(k.shl(register, LANES.trailing_zeros()), column)
    }

    /// The first lane up to and with which the values of a row add up to more than `bound`, and what of `bound` is left
    /// there.
    fn first_lane(&self, b: &Block<'_>, values: Wide, bound: Wide) -> (Value, Wide) {
        let k = b.k;
        let sums = b.sums_up_to(values);
        let passed = k.not(k.wlt(bound, sums));
        let lane = count_lanes(k, k.choose(passed, k.f32(1.0), k.f32(0.0)));
        // The values before that lane.
        let before = |part: Value| b.sum_lanes(k.choose(passed, part, k.i32(0)));
        let low = before(values.low);
        let before = match values.is_short() {
            true => low,
            false => k.wadd(low, k.wshl(k.wshl(before(values.high), 16), 16)),
        };
        (lane, k.wsub(bound, before))
    }

    /// Brings `value` of each row's own chunk into focus.
    fn gather(&self, b: &Block<'_>, chunk: Value, value: impl Fn(&Memory, Value, usize) -> Value) {
        let (k, layout) = (b.k, b.layout);
        let sublane = k.sublane();
        k.for_each("each row's chunk", k.i32(SUBLANES as i32), [], |row, []| {
            let this = k.eq(sublane, row);
            let number = k.over_all(Reduce::Max, k.choose(this, k.to_float(chunk), k.f32(0.0)));
            let number = k.truncate_scalar(number);
            let rows = b.rows.look_up(k.mul(number, k.i32(layout.chunk as i32)), layout.chunk);
            for register in 0..layout.chunk {
                let at = k.i32((register * LANES) as i32);
                let held = k.load(&self.focus, at);
                k.store(&self.focus, at, k.choose(this, value(&rows, number, register), held));
            }
            []
        });
    }

    /// The kept entries by ascending index, one a slot, a pass each: only the debug variant of rows that the survivors'
    /// way could not take comes here.
    fn write_slices(
        &self,
        b: &Block<'_>,
        slices: &Slices,
        kept: Kept,
        lowest_kept: Value,
        drawn: impl Fn(&Memory, Value, usize) -> Value,
    ) {
        let k = b.k;
        let (lane, none) = (k.lane(), 1 << 24);
        let start = [k.splat(k.i32(-1)), k.splat(k.i32(-1)), k.splat(k.i32(0)), k.splat(k.i32(0))];
        let slots = b.slots();
        let [_, indices, slot_keys, weights] =
            k.for_each("slots of the k-slices", k.i32(slots as i32), start, |slot, state| {
                let [previous, indices, held_keys, held_weights] = state;
                let start = [k.splat(k.i32(none)), k.splat(k.i32(0)), k.splat(k.i32(0))];
                let next = b.rows.pass("the next kept entry", &start, |chunk, number, state| {
                    let mut state = state.to_vec();
                    for register in 0..b.layout.chunk {
                        let x = k.load(chunk, k.i32((register * LANES) as i32));
                        let index = self.indices(b, number, register);
                        let low = k.both(lowest_kept, k.ge(kept.last_tie, index));
                        let low = k.both(low, k.lt(index, k.i32(b.spec.vocab as i32)));
                        let mask = k.either(self.is_kept(b, kept, x, index), low);
                        let first = k.both(k.lt(previous, index), k.lt(index, state[0]));
                        let mask = k.both(mask, first);
                        let weight = drawn(chunk, number, register);
                        for (held, new) in state.iter_mut().zip([index, keys(k, x), weight]) {
                            *held = k.choose(mask, new, *held);
                        }
                    }
                    state
                });
                let index = k.trunc(k.over_lanes(Reduce::Min, k.to_float(next[0])));
                let here = k.both(k.eq(next[0], index), k.lt(index, k.i32(none)));
                let pick = |value: Value| {
                    let high = b.pick(here, k.shift_right_zero(value, k.i32(16)));
                    k.or(k.shl(high, 16), b.pick(here, k.and(value, k.i32(0xffff))))
                };
                let found = k.both(k.eq(lane, slot), k.lt(index, k.i32(none)));
                [
                    index,
                    k.choose(found, index, indices),
                    k.choose(found, pick(next[1]), held_keys),
                    k.choose(found, pick(next[2]), held_weights),
                ]
            });
        let start = k.i32(0);
        k.store(&slices.indices, start, indices);
        k.store(&slices.keys, start, slot_keys);
        k.store(&slices.weights, start, weights);
    }
}
