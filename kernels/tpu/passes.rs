//! Top-k, top-p and the draw by passes: over whole rows, which is exact for any row and any k, or over a list of those
//! entries that can matter, which is the same with fewer registers to a pass.
//!
//! Ties at the top-k threshold are alike in all but their index, so they are counted and never weighed one by one: a
//! pass sees only what is above the threshold, and arithmetic adds the ties that are kept.

use super::candidate_list::List;
use super::context::{Block, Outcome};
use super::sampling::Nucleus;
use super::survivors::Slices;
use super::threshold_search::{bisect, count_lanes, interpolate, just_below, keys, Probe};
use crate::kernels::Column;
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Elem, Memory, Reduce, Space, Value, LANES, SUBLANES};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::clean::NEG_INF_KEY;

/// Counts and sums that a pass keeps apart, so that they do not wait for one another.
const PARTS: usize = 4;

/// Memory of this way through.
pub(super) struct Whole {
    /// Weights of the block's rows, where there is room for them.
    weights: Option<Memory>,
    /// One chunk of each row, each row's own.
    focus: Memory,
}

/// What the passes go over.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// All logits, as they are.
    Rows,
    /// Those at or above a bound, chunk by chunk in no order; −inf where there is none.
    List(&'a List),
}

/// One turn of a pass.
struct Turn<'a> {
    logits: &'a Memory,
    /// Of these logits, once they are known.
    weights: Option<Memory>,
    /// Its first chunk.
    chunk: Value,
    chunks: usize,
    /// Registers of a chunk.
    registers: usize,
}

/// Which entries top-k keeps: logits above the float `edge`, and `ties` that are at the threshold, up to and with
/// `last_tie`.
#[derive(Clone, Copy)]
struct Kept {
    /// Where all ties are kept this lies just below the threshold, else at it.
    edge: Value,
    /// Logits above this float are at the threshold or above it.
    below_threshold: Value,
    /// A key.
    threshold: Value,
    ties: Value,
    last_tie: Value,
    /// What a tie weighs.
    tie_weight: Value,
}

impl Whole {
    pub(super) fn new(b: &Block<'_>) -> Whole {
        let width = b.layout.padded() * LANES;
        let weights = b.layout.keep_weights.then(|| b.k.scratch(Elem::I32, &[SUBLANES, width], Space::Vmem));
        let focus = b.k.scratch(Elem::F32, &[SUBLANES, b.layout.chunk * LANES], Space::Vmem);
        Whole { weights, focus }
    }

    /// One pass; `each` sees a turn's registers, up to `together` chunks of a row's.
    fn pass(
        &self,
        b: &Block<'_>,
        source: Source<'_>,
        (label, together): (&str, usize),
        start: &[Value],
        each: impl Fn(&Turn<'_>, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let k = b.k;
        match source {
            Source::Rows => b.rows.pass_by(label, together, start, |logits, chunk, chunks, state| {
                let registers = b.layout.chunk;
                let at = k.mul(chunk, k.i32(registers as i32));
                let weights = self.weights.as_ref().map(|all| k.registers(all, at, chunks * registers));
                each(&Turn { logits, weights, chunk, chunks, registers }, state)
            }),
            Source::List(list) => list.pass(b, label, start, |logits, weights, chunk, chunks, state| {
                let weights = Some(weights.clone());
                each(&Turn { logits, weights, chunk, chunks, registers: List::DEPTH }, state)
            }),
        }
    }

    /// How many of each row's logits are above the floats of `edges`, in one pass.
    fn count<const N: usize>(
        &self,
        b: &Block<'_>,
        source: Source<'_>,
        label: &str,
        edges: [Value; N],
    ) -> [Value; N] {
        let k = b.k;
        let start = vec![k.splat(k.f32(0.0)); N * PARTS];
        let counts = self.pass(b, source, (label, 2), &start, |turn, state| {
            let mut state = state.to_vec();
            for register in turn.all() {
                let x = turn.logit(b, register);
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

    /// The lowest index of each row's maximum, by a pass.
    pub(super) fn greedy(&self, b: &Block<'_>, max_key: Value) -> Value {
        let k = b.k;
        let edge = just_below(k, max_key);
        let none = k.splat(k.i32(1 << 24));
        let found = b.rows.pass("first of the maxima, in the rows", &[none], |chunk, number, state| {
            let first = k.add(k.lane(), k.mul(number, k.i32((b.layout.chunk * LANES) as i32)));
            let mut least = state[0];
            for register in 0..b.layout.chunk {
                let at = k.i32((register * LANES) as i32);
                let here = k.above(k.load(chunk, at), edge);
                least = k.min(least, k.choose(here, k.add(first, at), none));
            }
            vec![least]
        });
        k.trunc(k.over_lanes(Reduce::Min, k.to_float(found[0])))
    }

    /// Chooses among the entries of `source`, which are all that can matter. As many of each row reach `bound` as its
    /// top-k keeps.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn choose(
        &self,
        b: &Block<'_>,
        source: Source<'_>,
        nucleus: &Nucleus,
        max_key: Value,
        greedy: Value,
        bound: Value,
        slices: Option<&Slices>,
    ) -> Outcome {
        let k = b.k;
        let (top_k, tie_counts) = self.top_k(b, source, nucleus, max_key, bound);
        let (kept, tie_counts) = self.or_greedy(b, nucleus, top_k, tie_counts, max_key, greedy);

        k.comment("weights");
        let total = self.weigh_all(b, source, nucleus, kept);
        let total = k.wadd(total, k.product_of_words(kept.ties, kept.tie_weight));

        k.comment("top-p and min-p");
        let (off, target) = nucleus.target(b, total);
        let lowest = b.short(kept.threshold);
        let beyond = k.add(b.short(max_key), k.i32(1));
        let closed = k.either(off, nucleus.greedy_row);
        let high = k.choose(closed, k.add(lowest, k.i32(1)), beyond);
        let theta = self.nucleus_weight(b, source, nucleus, kept, total, target, (lowest, high));
        let least_weight = nucleus.least(b, k.choose(off, k.i32(0), theta));

        k.comment("the draw");
        let sums = self.chunk_sums(b, source, "what may be drawn", |turn, register| {
            let weight = self.weight(b, nucleus, kept, turn, register);
            k.choose(k.ge(weight, least_weight), weight, k.i32(0))
        });
        let tie_weight = k.choose(k.ge(kept.tie_weight, least_weight), kept.tie_weight, k.i32(0));
        let ties = self.kept_ties(b, kept, tie_counts);
        let sums = k.wadd(sums, k.product_of_words(ties, tie_weight));
        let remainder = nucleus.remainder(b, self.total(b, sums));
        let drawn = |x: Value, index: Value| {
            let weight = nucleus.weight_of_raw(b, x);
            let above = k.both(k.above(x, kept.edge), k.ge(weight, least_weight));
            let tie = k.both(k.eq(keys(k, x), kept.threshold), k.ge(kept.last_tie, index));
            let tie = k.both(tie, k.lt(k.i32(0), kept.ties));
            k.choose(above, weight, k.choose(tie, tie_weight, k.i32(0)))
        };
        let next = self.locate(b, sums, remainder, drawn);

        if let Some(slices) = slices {
            self.write_slices(b, slices, top_k, drawn);
        }
        let Kept { threshold, last_tie, .. } = top_k;
        Outcome { next, greedy, remainder, threshold, last_tie, least_weight }
    }

    /// The top-k threshold, its ties, and how many ties each chunk has, chunk `i` in lane `i`.
    fn top_k(
        &self,
        b: &Block<'_>,
        source: Source<'_>,
        nucleus: &Nucleus,
        max_key: Value,
        bound: Value,
    ) -> (Kept, Value) {
        let k = b.k;
        k.comment("top-k");
        let wanted = b.param(Column::K);
        let on = k.lt(k.i32(0), wanted);
        let lowest = b.short(bound);
        let high = k.choose(on, k.add(b.short(max_key), k.i32(1)), k.add(lowest, k.i32(1)));
        let found = bisect(k, "top-k threshold, a pass each", lowest, high, |middle| {
            let edge = just_below(k, b.long(middle));
            let [count] = self.count(b, source, "count", [edge]);
            Probe { reaches: k.ge(count, wanted), exact: Some(k.eq(count, wanted)) }
        });
        let threshold = k.choose(on, b.long(found), k.i32(NEG_INF_KEY));
        // Where even −inf is kept, every candidate is above the threshold.
        let lowest_kept = k.eq(threshold, k.i32(NEG_INF_KEY));
        let below_threshold = k.choose(lowest_kept, k.f32(f32::NEG_INFINITY), just_below(k, threshold));
        let at_threshold = just_below(k, b.long(k.add(found, k.i32(1))));
        let at_threshold = k.choose(lowest_kept, k.f32(f32::NEG_INFINITY), at_threshold);
        let none = k.splat(k.i32(0));
        let last = k.splat(k.i32(i32::MAX));
        let all = k.choose(lowest_kept, k.i32(b.spec.vocab as i32), none);
        let ties = k.if_else(
            "top-k in a row",
            k.any(on),
            || {
                let [reached, above] = self.count(b, source, "count ties", [below_threshold, at_threshold]);
                // Every entry reaches the key of −inf, NaN too; the comparison with a float cannot say so.
                let reached = k.choose(lowest_kept, all, reached);
                let crowded = k.both(on, k.lt(wanted, reached));
                let crowded = if b.spec.stable { crowded } else { k.both(crowded, k.bool(false)) };
                let open = k.choose(crowded, k.sub(wanted, above), none);
                let found = k.if_else(
                    "ties at the top-k threshold",
                    k.any(crowded),
                    || self.find_ties(b, source, threshold, below_threshold, at_threshold, open),
                    || vec![last, none],
                );
                vec![open, k.choose(crowded, found[0], last), found[1]]
            },
            || vec![none, last, none],
        );
        let (open, last_tie, counts) = (ties[0], ties[1], ties[2]);

        let crowded = k.lt(none, open);
        let kept = Kept {
            edge: k.choose(crowded, at_threshold, below_threshold),
            below_threshold,
            threshold,
            ties: open,
            last_tie,
            tie_weight: nucleus.weight_of_key(b, threshold),
        };
        (kept, counts)
    }

    /// What is drawn from, where greedy rows take their maximum alone: it is kept as a tie is.
    fn or_greedy(
        &self,
        b: &Block<'_>,
        nucleus: &Nucleus,
        kept: Kept,
        counts: Value,
        max_key: Value,
        greedy: Value,
    ) -> (Kept, Value) {
        let k = b.k;
        let is_greedy = nucleus.greedy_row;
        let chunk = match b.layout.chunks {
            1 => k.splat(k.i32(0)),
            _ => k.shr(greedy, (b.layout.chunk * LANES).trailing_zeros()),
        };
        let one = k.choose(k.eq(k.lane(), chunk), k.i32(1), k.i32(0));
        let threshold = k.choose(is_greedy, max_key, kept.threshold);
        let drawn = Kept {
            edge: k.choose(is_greedy, k.f32(f32::INFINITY), kept.edge),
            below_threshold: kept.below_threshold,
            threshold,
            ties: k.choose(is_greedy, k.i32(1), kept.ties),
            last_tie: k.choose(is_greedy, greedy, kept.last_tie),
            tie_weight: nucleus.weight_of_key(b, threshold),
        };
        (drawn, k.choose(is_greedy, one, counts))
    }

    /// The last tie of each row that top-k keeps, and the ties of each chunk. `open` is how many are kept, 0 where the
    /// question does not arise.
    fn find_ties(
        &self,
        b: &Block<'_>,
        source: Source<'_>,
        threshold: Value,
        below_threshold: Value,
        at_threshold: Value,
        open: Value,
    ) -> Vec<Value> {
        let k = b.k;
        let lowest = k.eq(threshold, k.i32(NEG_INF_KEY));
        let one_if_tie = |x: Value| {
            let reaches = k.either(lowest, k.above(x, below_threshold));
            k.choose(k.both(reaches, k.not(k.above(x, at_threshold))), k.i32(1), k.i32(0))
        };
        let counted = |source: Source<'_>| {
            self.chunk_sums(b, source, "ties of each chunk", |turn, register| {
                one_if_tie(turn.logit(b, register))
            })
        };
        let sums = match source {
            Source::Rows => counted(source),
            // Entries of −inf are in no list.
            Source::List(_) => {
                let rows = k.any(k.both(lowest, k.lt(k.i32(0), open)));
                let flat = |sums: Wide| vec![sums.low, sums.high];
                let sums =
                    k.if_else("ties at -inf", rows, || flat(counted(Source::Rows)), || flat(counted(source)));
                Wide { low: sums[0], high: sums[1] }
            }
        };
        let before_last = k.choose(k.lt(k.i32(0), open), k.sub(open, k.i32(1)), k.i32(0));
        let last = self.locate(b, sums, k.widen(before_last), |x, _| one_if_tie(x));
        vec![last, sums.low]
    }

    /// How many of each chunk's ties are kept, chunk `i` in lane `i`.
    fn kept_ties(&self, b: &Block<'_>, kept: Kept, counts: Value) -> Value {
        let k = b.k;
        let before = k.sub(b.sums_up_to(k.widen(counts)).low, counts);
        let left = k.sub(kept.ties, before);
        k.choose(k.lt(left, k.i32(0)), k.i32(0), k.min(left, counts))
    }

    /// Weighs what is above the edge, keeps the weights where there is room, and adds them up.
    fn weigh_all(&self, b: &Block<'_>, source: Source<'_>, nucleus: &Nucleus, kept: Kept) -> Wide {
        let k = b.k;
        self.sum(b, source, ("weights", 1), |turn, register| {
            let weight = self.fresh_weight(b, nucleus, kept, turn.logit(b, register));
            if let Some(weights) = &turn.weights {
                k.store(weights, k.i32((register * LANES) as i32), weight);
            }
            weight
        })
    }

    /// The weight of a raw logit if it is above the edge.
    fn fresh_weight(&self, b: &Block<'_>, nucleus: &Nucleus, kept: Kept, x: Value) -> Value {
        let k = b.k;
        k.choose(k.above(x, kept.edge), nucleus.weight_of_raw(b, x), k.i32(0))
    }

    /// The weight of a turn's register, kept or weighed again.
    fn weight(
        &self,
        b: &Block<'_>,
        nucleus: &Nucleus,
        kept: Kept,
        turn: &Turn<'_>,
        register: usize,
    ) -> Value {
        match &turn.weights {
            Some(weights) => b.k.load(weights, b.k.i32((register * LANES) as i32)),
            None => self.fresh_weight(b, nucleus, kept, turn.logit(b, register)),
        }
    }

    /// The largest weight such that entries which weigh as much weigh `target` together. It is sought by key, in
    /// `lowest..high`.
    #[allow(clippy::too_many_arguments)]
    fn nucleus_weight(
        &self,
        b: &Block<'_>,
        source: Source<'_>,
        nucleus: &Nucleus,
        kept: Kept,
        total: Wide,
        target: Wide,
        range: (Value, Value),
    ) -> Value {
        let k = b.k;
        let shares = (total, k.wsub(total, target));
        interpolate(b, nucleus, "top-p threshold, a pass each", range, shares, |least| {
            let sum = self.sum(b, source, ("sum", 2), |turn, register| {
                let weight = self.weight(b, nucleus, kept, turn, register);
                k.choose(k.ge(weight, least), weight, k.i32(0))
            });
            (k.not(k.wlt(sum, target)), k.wsub(total, sum))
        })
    }

    /// The sum of what `value` gives for each register.
    fn sum(
        &self,
        b: &Block<'_>,
        source: Source<'_>,
        (label, together): (&str, usize),
        value: impl Fn(&Turn<'_>, usize) -> Value,
    ) -> Wide {
        let k = b.k;
        let start = [k.splat(k.i32(0)); 2];
        let sums = self.pass(b, source, (label, together), &start, |turn, state| {
            let sum = turn.sum(b, turn.all(), &value);
            // In halves, whose sums over turns do not overflow.
            vec![
                k.add(state[0], k.and(sum, k.i32(0xffff))),
                k.add(state[1], k.shift_right_zero(sum, k.i32(16))),
            ]
        });
        let (low, high) = (b.sum_lanes(sums[0]), b.sum_lanes(sums[1]));
        k.wadd(low, k.wshl(high, 16))
    }

    /// The sum of each chunk, chunk `i` in lane `i`.
    fn chunk_sums(
        &self,
        b: &Block<'_>,
        source: Source<'_>,
        label: &str,
        value: impl Fn(&Turn<'_>, usize) -> Value,
    ) -> Wide {
        let k = b.k;
        let lane = k.lane();
        let start = [k.splat(k.i32(0)); 2];
        let sums = self.pass(b, source, (label, 1), &start, |turn, state| {
            let mut sums = Wide { low: state[0], high: state[1] };
            for chunk in 0..turn.chunks {
                let registers = chunk * turn.registers..(chunk + 1) * turn.registers;
                let sum = b.sum_lanes(turn.sum(b, registers, &value));
                let here = k.eq(lane, k.add(turn.chunk, k.i32(chunk as i32)));
                sums = k.wselect(here, sum, sums);
            }
            vec![sums.low, sums.high]
        });
        Wide { low: sums[0], high: sums[1] }
    }

    /// The sum of chunk sums.
    fn total(&self, b: &Block<'_>, sums: Wide) -> Wide {
        let k = b.k;
        k.wadd(b.sum_lanes(sums.low), k.wshl(k.wshl(b.sum_lanes(sums.high), 16), 16))
    }

    /// The first index up to and with which what `value` gives for a raw logit and its index adds up to more than
    /// `bound`; `sums` are the chunk sums of that. Any index where it does not.
    fn locate(&self, b: &Block<'_>, sums: Wide, bound: Wide, value: impl Fn(Value, Value) -> Value) -> Value {
        let (k, layout) = (b.k, b.layout);
        let (chunk, bound) = self.first_lane(b, sums, bound);
        let chunk = k.min(chunk, k.i32(layout.chunks as i32 - 1));
        self.gather(b, chunk);

        let lane = k.lane();
        let first = k.mul(chunk, k.i32((layout.chunk * LANES) as i32));
        let zero = k.splat(k.i32(0));
        let mut sums = Wide { low: zero, high: zero };
        let at = |register: usize| k.i32((register * LANES) as i32);
        // What each entry is worth takes the place of its logit, an integer as a float's bits.
        let worth: Vec<Value> = (0..layout.chunk)
            .map(|register| {
                let x = k.load(&self.focus, at(register));
                let value = value(x, k.add(first, k.add(lane, at(register))));
                k.store(&self.focus, at(register), k.from_bits(value));
                value
            })
            .collect();
        for (number, &register) in worth.iter().enumerate() {
            let sum = b.sum_lanes(register);
            let here = k.eq(lane, k.i32(number as i32));
            sums = k.wselect(here, sum, sums);
        }
        let (register, bound) = self.first_lane(b, sums, bound);
        let mut values = zero;
        for number in 0..layout.chunk {
            let content = k.bits(k.load(&self.focus, at(number)));
            values = k.choose(k.eq(register, k.i32(number as i32)), content, values);
        }
        let (column, _) = self.first_lane(b, k.widen(values), bound);
        k.add(first, k.add(k.shl(register, LANES.trailing_zeros()), column))
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

    /// Brings each row's own chunk into focus.
    fn gather(&self, b: &Block<'_>, chunk: Value) {
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
                k.store(&self.focus, at, k.choose(this, k.load(&rows, at), held));
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
        top_k: Kept,
        drawn: impl Fn(Value, Value) -> Value,
    ) {
        let k = b.k;
        let (lane, none) = (k.lane(), 1 << 24);
        let lowest = k.eq(top_k.threshold, k.i32(NEG_INF_KEY));
        let last = k.min(top_k.last_tie, k.i32(b.spec.vocab as i32 - 1));
        let start = [k.splat(k.i32(-1)), k.splat(k.i32(-1)), k.splat(k.i32(0)), k.splat(k.i32(0))];
        let [_, indices, slot_keys, weights] =
            k.for_each("slots of the k-slices", k.i32(b.slots() as i32), start, |slot, state| {
                let [previous, indices, held_keys, held_weights] = state;
                let start = [k.splat(k.i32(none)), k.splat(k.f32(0.0))];
                let next = b.rows.pass("the next kept entry", &start, |chunk, number, state| {
                    let [mut least, mut logit] = [state[0], state[1]];
                    let first = k.add(lane, k.mul(number, k.i32((b.layout.chunk * LANES) as i32)));
                    for register in 0..b.layout.chunk {
                        let at = k.i32((register * LANES) as i32);
                        let (x, index) = (k.load(chunk, at), k.add(first, at));
                        let tie =
                            k.both(k.either(lowest, k.above(x, top_k.below_threshold)), k.ge(last, index));
                        let kept = k.either(k.above(x, top_k.edge), tie);
                        let first = k.both(k.lt(previous, index), k.lt(index, least));
                        let mask = k.both(kept, first);
                        least = k.choose(mask, index, least);
                        logit = k.choose(mask, x, logit);
                    }
                    vec![least, logit]
                });
                let index = k.trunc(k.over_lanes(Reduce::Min, k.to_float(next[0])));
                let here = k.both(k.eq(next[0], index), k.lt(index, k.i32(none)));
                let bits = b.sum_lanes(k.choose(here, k.bits(next[1]), k.i32(0))).low;
                let x = k.from_bits(bits);
                let found = k.both(k.eq(lane, slot), k.lt(index, k.i32(none)));
                [
                    index,
                    k.choose(found, index, indices),
                    k.choose(found, keys(k, x), held_keys),
                    k.choose(found, drawn(x, index), held_weights),
                ]
            });
        let start = k.i32(0);
        k.store(&slices.indices, start, indices);
        k.store(&slices.keys, start, slot_keys);
        k.store(&slices.weights, start, weights);
    }
}

impl Turn<'_> {
    fn all(&self) -> std::ops::Range<usize> {
        0..self.chunks * self.registers
    }

    fn logit(&self, b: &Block<'_>, register: usize) -> Value {
        b.k.load(self.logits, b.k.i32((register * LANES) as i32))
    }

    /// Sums of registers, lane by lane.
    fn sum(
        &self,
        b: &Block<'_>,
        registers: std::ops::Range<usize>,
        value: impl Fn(&Self, usize) -> Value,
    ) -> Value {
        let k = b.k;
        let mut parts: [Option<Value>; PARTS] = [None; PARTS];
        for register in registers {
            let value = value(self, register);
            let part = &mut parts[register % PARTS];
            *part = Some(part.map_or(value, |sum| k.add(sum, value)));
        }
        parts.into_iter().flatten().reduce(|a, b| k.add(a, b)).expect("a chunk is not empty")
    }
}
