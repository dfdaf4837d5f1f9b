//! Passes over the entries of a block. They compute counts, sums, and the index where a running sum exceeds a bound.
//!
//! A pass processes all logits or the candidate list. The list has the same form as the logits, but fewer registers.

use std::cell::RefCell;

use super::candidate_list::{CandidateList, MoreCandidates};
use super::context::{Context, NO_INDEX};
use super::interpolation::Neighbors;
use super::keys::edge_below;
use super::lane_stack::LaneStack;
use super::lane_sums::{
    count_lanes, inclusive_sums, noted_sum, sum_lanes, sum_of_upper_words, sum_stripe, Halves,
};
use super::layout::{Residence, CANDIDATE_CHUNKS, CANDIDATE_DEPTH, MORE_CANDIDATES};
use crate::mlir::mosaic::wide::Wide;
use crate::mlir::mosaic::{Elem, Kernel, Memory, Reduce, Space, Value, LANES, SUBLANES};
use crate::semantics::arith::{Arith, WideArith};
use crate::semantics::weights::MAX_WEIGHT;

/// The number of independent counts in a pass. With several counts, an addition does not wait for the previous
/// one.
const PARTS: usize = 4;

/// The number of levels of the stack of [`Passes::few_entries`].
const FEW_DEPTH: usize = 8;
/// The number of levels of the stack for one iteration of that pass. Each pair is a number of iterations and a number
/// of levels. A pair applies to passes with at least this number of iterations, and the first pair that applies is
/// used. With fewer iterations, one iteration finds more of the entries, so it needs more levels.
const FEW_PER_ITERATION: [(usize, usize); 3] = [(24, 3), (4, 4), (0, FEW_DEPTH)];

/// The sample of the weights contains about one chunk out of this number of chunks.
const CHUNKS_PER_SAMPLE: usize = 16;
/// Rows with fewer chunks have no sample.
const LEAST_CHUNKS: usize = 8;

/// The memory that passes use.
pub(super) struct Passes {
    /// The weights of the block's logits, if the layout has space for them.
    weights: Option<Memory>,
    /// A copy of the chunks of one sum, for each stripe. Different rows can have different chunks.
    focus: Memory,
}

/// The entries that a pass processes.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// All logits.
    AllLogits,
    /// The entries at or above a bound, grouped by chunk. Within a chunk they have no order. Unused places contain
    /// −inf.
    Candidates(&'a CandidateList),
}

/// The entries from which [`Passes::locate`] computes values.
#[derive(Clone, Copy)]
pub(super) enum Content {
    /// Raw logits.
    Logits,
    /// The stored weights of all logits, as the bits of floats.
    Weights,
}

/// The registers of one iteration of a pass.
pub(super) struct Iteration<'a> {
    logits: &'a Memory,
    /// The weights of these logits, if the layout has space for them. The first pass over weights writes them.
    weights: Option<Memory>,
    /// The number of the first chunk of the iteration.
    chunk: Value,
    chunks: usize,
    registers_per_chunk: usize,
}

/// The name of a pass, and the largest number of chunks that it processes per iteration.
pub(super) type Label<'a> = (&'a str, usize);

impl Passes {
    /// Allocates the memory.
    pub(super) fn new(cx: &Context<'_>) -> Passes {
        let width = cx.layout.padded() * LANES;
        let weights =
            cx.layout.keep_weights.then(|| cx.k.scratch(Elem::I32, &[SUBLANES, width], Space::Vmem));
        let focus = cx.k.scratch(Elem::F32, &[SUBLANES, cx.layout.summed() * LANES], Space::Vmem);
        Passes { weights, focus }
    }

    /// Makes one pass over the source. The last iteration over a candidate list is for [`more_candidates`].
    fn pass(
        &self,
        cx: &Context<'_>,
        source: Source<'_>,
        label: Label<'_>,
        start: &[Value],
        each: impl Fn(&Iteration<'_>, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let state = self.pass_by_chunk(cx, source, label, start, &each);
        match source {
            Source::AllLogits => state,
            Source::Candidates(list) => each(&more_candidates(cx, list), &state),
        }
    }

    /// Makes one pass over the source, without [`more_candidates`].
    fn pass_by_chunk(
        &self,
        cx: &Context<'_>,
        source: Source<'_>,
        (label, together): Label<'_>,
        start: &[Value],
        each: impl Fn(&Iteration<'_>, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let k = cx.k;
        match source {
            Source::AllLogits => cx.logits.pass_by(label, together, start, |logits, chunk, chunks, state| {
                let registers_per_chunk = cx.layout.chunk;
                let at = k.mul(chunk, k.i32(registers_per_chunk as i32));
                let registers = |all| k.registers(all, at, chunks * registers_per_chunk);
                let weights = self.weights.as_ref().map(registers);
                each(&Iteration { logits, weights, chunk, chunks, registers_per_chunk }, state)
            }),
            Source::Candidates(list) => {
                list.pass(cx, label, start, |logits, weights, chunk, chunks, state| {
                    let weights = Some(weights.clone());
                    let registers_per_chunk = CANDIDATE_DEPTH;
                    each(&Iteration { logits, weights, chunk, chunks, registers_per_chunk }, state)
                })
            }
        }
    }

    /// Counts the logits of each row above each of the floats `edges`. This takes one pass.
    pub(super) fn count<const N: usize>(
        &self,
        cx: &Context<'_>,
        source: Source<'_>,
        label: &str,
        edges: [Value; N],
    ) -> [Value; N] {
        let k = cx.k;
        let start = vec![k.splat(k.f32(0.0)); N * PARTS];
        let counts = self.pass(cx, source, (label, 2), &start, |iteration, state| {
            let mut state = state.to_vec();
            for register in iteration.all() {
                let x = iteration.logit(cx, register);
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

    /// For each row, counts the logits in a list that are above the float `edge`. Also returns the logits next to
    /// `edge`.
    pub(super) fn count_in_list(
        &self,
        cx: &Context<'_>,
        list: &CandidateList,
        label: &str,
        edge: Value,
    ) -> (Value, Neighbors) {
        let k = cx.k;
        let start = [vec![k.splat(k.f32(0.0)); PARTS], self.no_neighbors(cx)].concat();
        let state = self.pass(cx, Source::Candidates(list), (label, 1), &start, |iteration, state| {
            let mut state = state.to_vec();
            for register in iteration.all() {
                let x = iteration.logit(cx, register);
                let (above, part) = (k.above(x, edge), register % PARTS);
                state[part] = k.fadd(state[part], k.choose(above, k.f32(1.0), k.f32(0.0)));
                update_neighbors(k, &mut state[PARTS..], part, above, x);
            }
            state
        });
        let count = state[1..PARTS].iter().fold(state[0], |sum, &part| k.fadd(sum, part));
        (count_lanes(k, count), neighbors(k, &state[PARTS..]))
    }

    /// Returns the sum of the weights that are at least `least`. Also returns two logits: the largest logit whose
    /// weight is below `least`, and the least logit whose weight is at least `least`. `weight` returns the weights of a
    /// register. Entries without a weight are ignored.
    pub(super) fn sum_with_neighbors(
        &self,
        cx: &Context<'_>,
        source: Source<'_>,
        label: &str,
        least: Value,
        weight: impl Fn(&Iteration<'_>, usize) -> Value,
    ) -> (Wide, Neighbors) {
        let k = cx.k;
        let start = [vec![k.splat(k.i32(0)); 2], self.no_neighbors(cx)].concat();
        let state = self.pass(cx, source, (label, 1), &start, |iteration, state| {
            let found = RefCell::new(state[2..].to_vec());
            let sum = iteration.sum(cx, iteration.all(), |iteration, register| {
                let weight = weight(iteration, register);
                let small = k.lt(weight, least);
                // An entry without a weight does not change the sum, so the search need not distinguish it from others.
                // If such entries are ignored, NaNs are ignored too.
                let has_weight = k.lt(k.i32(0), weight);
                let x = k.choose(has_weight, iteration.logit(cx, register), k.f32(f32::NEG_INFINITY));
                update_neighbors(k, &mut found.borrow_mut(), register % PARTS, k.not(small), x);
                k.choose(small, k.i32(0), weight)
            });
            let Halves { low, high } = sum.plus(k, Halves { low: state[0], high: state[1] });
            [vec![low, high], found.into_inner()].concat()
        });
        (Halves { low: state[0], high: state[1] }.total(k), neighbors(k, &state[2..]))
    }

    /// Collects the entries for which `entry` returns a true mask. `entry` receives a register. It returns this mask,
    /// and a value for each entry. `empty` is less than every value. Returns the values in a few registers. Also
    /// returns a scalar: whether a lane had more such entries than space.
    pub(super) fn few_entries(
        &self,
        cx: &Context<'_>,
        source: Source<'_>,
        label: &str,
        empty: Value,
        entry: impl Fn(&Iteration<'_>, usize) -> (Value, Value),
    ) -> (Vec<Value>, Value) {
        let k = cx.k;
        let empty = k.splat(empty);
        let is_used = |value: Value| match value.ty().elem() {
            Elem::I32 => k.lt(empty, value),
            _ => k.above(value, empty),
        };
        let iterations = match source {
            Source::AllLogits => cx.layout.chunks,
            Source::Candidates(_) => cx.layout.list_iterations(),
        };
        let (_, levels) =
            FEW_PER_ITERATION.into_iter().find(|few| iterations >= few.0).expect("the last is 0");
        let one_if_used = |value: Value, other: Value| k.choose(is_used(value), k.i32(1), other);
        let start = [LaneStack::empty(FEW_DEPTH, [empty]).flat(), vec![k.splat(k.i32(0))]].concat();
        let state = self.pass(cx, source, (label, 1), &start, |iteration, state| {
            let (&lost, stack) = state.split_last().expect("the state is not empty");
            let mut stack = LaneStack::<1>::from_flat(stack);
            let mut short = LaneStack::empty(levels, [empty]);
            for register in iteration.all() {
                let (mask, value) = entry(iteration, register);
                short.push_where(k, mask, [value]);
            }
            stack.append(k, &short, is_used);
            [stack.flat(), vec![one_if_used(short.overflow, lost)]].concat()
        });
        let (&lost, stack) = state.split_last().expect("the state is not empty");
        let stack = LaneStack::<1>::from_flat(stack);
        let lost = one_if_used(stack.overflow, lost);
        let [values] = stack.fields;
        (values, k.any(k.lt(k.i32(0), lost)))
    }

    /// Returns the state of a pass that has found no neighbors.
    fn no_neighbors(&self, cx: &Context<'_>) -> Vec<Value> {
        let k = cx.k;
        let none = |limit| vec![k.splat(k.f32(limit)); PARTS];
        [none(f32::NEG_INFINITY), none(f32::INFINITY)].concat()
    }

    /// Returns the sum over all entries of the values that `value` returns for each register.
    pub(super) fn sum(
        &self,
        cx: &Context<'_>,
        source: Source<'_>,
        label: Label<'_>,
        value: impl Fn(&Iteration<'_>, usize) -> Value,
    ) -> Wide {
        let k = cx.k;
        let start = [k.splat(k.i32(0)); 2];
        let sums = self.pass(cx, source, label, &start, |iteration, state| {
            let sum = iteration.sum(cx, iteration.all(), &value);
            // The sums of the 16-bit halves do not overflow over all iterations.
            let Halves { low, high } = sum.plus(k, Halves { low: state[0], high: state[1] });
            vec![low, high]
        });
        Halves { low: sums[0], high: sums[1] }.total(k)
    }

    /// Returns the sum of all weights. `weight` returns the weight of a raw logit.
    pub(super) fn total_weight(&self, cx: &Context<'_>, weight: impl Fn(Value) -> Value) -> Wide {
        let sum = self.sum(cx, Source::AllLogits, ("total weight", 1), |iteration, register| {
            weight(iteration.logit(cx, register))
        });
        noted_sum(cx.k, sum, cx.spec.vocab)
    }

    /// Computes [`sum`](Passes::sum) for each chunk. Lane `i` of a stripe contains the sum of chunk `i` of the stripe.
    /// In the longest rows, each lane contains the sum of several consecutive chunks instead
    /// ([`Layout::chunks_per_sum`]).
    ///
    /// [`Layout::chunks_per_sum`]: super::layout::Layout::chunks_per_sum
    pub(super) fn chunk_sums(
        &self,
        cx: &Context<'_>,
        source: Source<'_>,
        label: Label<'_>,
        value: impl Fn(&Iteration<'_>, usize) -> Value,
    ) -> Wide {
        let k = cx.k;
        let in_lanes = |count: usize, value: &dyn Fn(usize) -> Value| {
            let Halves { low, high } = Halves::sum_of(k, 0..count, value);
            [low, high]
        };
        let in_stripe = |[low, high]: [Value; 2]| {
            let sum = Halves { low, high }.over_stripe(k);
            [sum.low, sum.high]
        };
        let parts = self.by_chunk(cx, source, label, value, in_lanes, in_stripe);
        let parts = parts.into_iter().map(|[low, high]| Wide { low, high });
        parts.reduce(|a, b| k.wadd(a, b)).expect("a sum has chunks")
    }

    /// Counts the entries of each chunk for which `mask` is true. Lane `i` of a stripe contains the count of chunk `i`
    /// of the stripe. In the longest rows, each lane contains the count of several consecutive chunks instead.
    pub(super) fn chunk_counts(
        &self,
        cx: &Context<'_>,
        source: Source<'_>,
        label: Label<'_>,
        mask: impl Fn(&Iteration<'_>, usize) -> Value,
    ) -> Value {
        let k = cx.k;
        let one = |iteration: &Iteration<'_>, register: usize| k.one_where(mask(iteration, register));
        let in_lanes = |count: usize, one: &dyn Fn(usize) -> Value| {
            [(0..count).map(one).reduce(|a, b| k.add(a, b)).expect("a chunk has registers")]
        };
        let in_stripe = |[count]: [Value; 1]| [k.trunc(k.over_lanes(Reduce::Add, k.to_float(count)))];
        let parts = self.by_chunk(cx, source, label, one, in_lanes, in_stripe);
        parts.into_iter().map(|[counts]| counts).reduce(|a, b| k.add(a, b)).expect("a count has chunks")
    }

    /// Adds values of each chunk. `value` returns the values of a register. `in_lanes` receives the number of registers
    /// of a chunk, and a function that returns the values of one of these registers. It returns sums of these values
    /// for each lane. `in_stripe` adds the lanes of these sums. If `n` chunks share one sum, there are `n` results.
    /// Lane `i` of result `j` contains the sums of chunk `n · i + j` of the stripe.
    ///
    /// Each iteration calls `in_stripe` for the chunks of the previous iteration. So it need not wait for its own sums
    /// over lanes, which have a long latency.
    fn by_chunk<const N: usize>(
        &self,
        cx: &Context<'_>,
        source: Source<'_>,
        (label, together): Label<'_>,
        value: impl Fn(&Iteration<'_>, usize) -> Value,
        in_lanes: impl Fn(usize, &dyn Fn(usize) -> Value) -> [Value; N],
        in_stripe: impl Fn([Value; N]) -> [Value; N],
    ) -> Vec<[Value; N]> {
        let (k, parts) = (cx.k, cx.layout.chunks_per_sum);
        let lane = k.lane();
        let (together, chunks) = match source {
            Source::AllLogits => (cx.logits.together(together), cx.layout.chunks),
            Source::Candidates(_) => (CANDIDATE_CHUNKS, cx.layout.list_registers() / CANDIDATE_DEPTH),
        };
        // The values of [`more_candidates`], and the numbers of their chunks.
        let more: Vec<[Value; 2]> = match source {
            Source::AllLogits => Vec::new(),
            Source::Candidates(list) => {
                let iteration = more_candidates(cx, list);
                let registers = iteration.all();
                registers.map(|i| [value(&iteration, i), list.more().chunks(cx, i)]).collect()
            }
        };
        let chunks_of_lanes: Vec<Value> = match parts {
            1 => vec![lane],
            _ => (0..parts).map(|part| k.add(k.mul(lane, k.i32(parts as i32)), k.i32(part as i32))).collect(),
        };
        // The state consists of the results and of the values of the previous iteration's chunks.
        let combined = |state: &[Value], first: Value| -> Vec<Value> {
            let (results, previous) = state.split_at(N * parts);
            let mut results = results.to_vec();
            for (number, values) in previous.chunks(N).enumerate() {
                let chunk = k.add(first, k.i32(number as i32));
                let here: Vec<Value> = chunks_of_lanes.iter().map(|&chunks| k.eq(chunks, chunk)).collect();
                let values = in_stripe(std::array::from_fn(|i| values[i]));
                for (results, here) in results.chunks_mut(N).zip(here) {
                    for (result, value) in results.iter_mut().zip(values) {
                        *result = k.choose(here, value, *result);
                    }
                }
            }
            results
        };
        // If this zero were a constant, libtpu would give it a layout that repeats one sublane. libtpu does not compile
        // a loop whose initial state has this layout.
        let zero = k.add(k.shr(lane, LANES.trailing_zeros()), k.shr(k.sublane(), SUBLANES.trailing_zeros()));
        let start = vec![zero; N * (parts + together)];
        let state = self.pass_by_chunk(cx, source, (label, together), &start, |iteration, state| {
            assert_eq!(iteration.chunks, together);
            let mut next = combined(state, k.sub(iteration.chunk, k.i32(together as i32)));
            for chunk in 0..together {
                let own = iteration.registers_per_chunk;
                next.extend(in_lanes(own + more.len(), &|i| match i.checked_sub(own) {
                    None => value(iteration, chunk * own + i),
                    Some(i) => {
                        let [value, chunk_of_value] = more[i];
                        let number = k.add(iteration.chunk, k.i32(chunk as i32));
                        k.choose(k.eq(chunk_of_value, number), value, k.i32(0))
                    }
                }));
            }
            next
        });
        let results = combined(&state, k.i32((chunks - together) as i32));
        results.chunks(N).map(|result| std::array::from_fn(|i| result[i])).collect()
    }

    /// Returns the lowest index of each row's maximum.
    pub(super) fn greedy(&self, cx: &Context<'_>, max_key: Value) -> Value {
        let k = cx.k;
        let edge = edge_below(k, max_key);
        let none = k.splat(k.i32(NO_INDEX));
        let found = cx.logits.pass("first maximum, in the logits", &[none], |chunk, number, state| {
            let first = k.add(cx.in_stripe(k.lane()), k.mul(number, k.i32((cx.layout.chunk * LANES) as i32)));
            let mut least = state[0];
            for register in 0..cx.layout.chunk {
                let at = k.i32((register * LANES) as i32);
                let here = k.above(k.load(chunk, at), edge);
                least = k.min(least, k.choose(here, k.add(first, at), none));
            }
            vec![least]
        });
        k.trunc(k.over_row(Reduce::Min, k.to_float(found[0])))
    }

    /// Returns the share of all weights that [`sum_of_sample`](Passes::sum_of_sample) adds. Returns `None` if there is
    /// no sample.
    pub(super) fn sample_share(&self, cx: &Context<'_>) -> Option<f32> {
        let chunks = cx.layout.chunks;
        (self.keep_weights() && chunks >= LEAST_CHUNKS).then(|| samples(chunks) as f32 / chunks as f32)
    }

    /// Returns the sum of the values that `value` returns for the stored weights of some chunks.
    pub(super) fn sum_of_sample(&self, cx: &Context<'_>, value: impl Fn(Value) -> Value) -> Wide {
        let (k, layout) = (cx.k, cx.layout);
        let weights = self.weights.as_ref().expect("the caller checks that weights are stored");
        let samples = samples(layout.chunks);
        let sums = (0..samples).map(|sample| {
            let chunk = (2 * sample + 1) * layout.chunks / (2 * samples);
            let registers = k.registers(weights, k.i32((chunk * layout.chunk) as i32), layout.chunk);
            Halves::sum_of(k, 0..layout.chunk, |register| {
                value(k.load(&registers, k.i32((register * LANES) as i32)))
            })
        });
        let sum = sums.reduce(|a, b| a.plus(k, b)).expect("there is a sample");
        sum.total(k)
    }

    /// Whether the weights of all logits are stored.
    pub(super) fn keep_weights(&self) -> bool {
        self.weights.is_some()
    }

    /// Finds the first index at which the running sum of values exceeds `bound`. If the sum never exceeds it, the
    /// result can be any index.
    ///
    /// `value` receives logits or weights, as `content` says, and their indices. `sums` are the chunk sums of the
    /// results of `value`. The search first finds the chunk, then the register in this chunk, and then the lane in this
    /// register. If several chunks share one sum, the search treats them as one chunk.
    pub(super) fn locate(
        &self,
        cx: &Context<'_>,
        sums: Wide,
        bound: Wide,
        content: Content,
        value: impl Fn(Value, Value) -> Value,
    ) -> Value {
        let (k, layout) = (cx.k, cx.layout);
        let (place, bound) = first_lane_beyond(cx, sums, bound);
        let chunk = k.min(lane_of(cx, place), k.i32(layout.sums() as i32 - 1));
        self.focus_on(cx, chunk, content);
        match k.stripes() {
            1 => self.locate_in_chunk(cx, chunk, bound, value),
            _ => self.locate_in_stripe(cx, k.shr(place, LANES.trailing_zeros()), chunk, bound, value),
        }
    }

    /// Finds the index in a chunk at which the running sum of the values exceeds `bound`. The rows must have one
    /// stripe.
    fn locate_in_chunk(
        &self,
        cx: &Context<'_>,
        chunk: Value,
        bound: Wide,
        value: impl Fn(Value, Value) -> Value,
    ) -> Value {
        let (k, layout) = (cx.k, cx.layout);
        let lane = k.lane();
        let first = k.mul(chunk, k.i32((layout.summed() * LANES) as i32));
        let zero = k.splat(k.i32(0));
        let mut sums = Wide { low: zero, high: zero };
        let at = |register: usize| k.i32((register * LANES) as i32);
        // The value of each entry replaces its logit. It is an integer, stored as the bits of a float.
        let values: Vec<Value> = (0..layout.summed())
            .map(|register| {
                let x = k.load(&self.focus, at(register));
                let value = value(x, k.add(first, k.add(lane, at(register))));
                k.store(&self.focus, at(register), k.from_bits(value));
                value
            })
            .collect();
        for (number, &register) in values.iter().enumerate() {
            let sum = sum_lanes(k, register);
            let here = k.eq(lane, k.i32(number as i32));
            sums = k.wselect(here, sum, sums);
        }
        let (register, bound) = first_lane_beyond(cx, sums, bound);
        let mut values = zero;
        for number in 0..layout.summed() {
            let content = k.bits(k.load(&self.focus, at(number)));
            values = k.choose(k.eq(register, k.i32(number as i32)), content, values);
        }
        let (column, _) = first_lane_beyond(cx, k.widen(values), bound);
        k.add(first, k.add(k.shl(register, LANES.trailing_zeros()), column))
    }

    /// Like [`locate_in_chunk`](Passes::locate_in_chunk), but for rows that have several stripes. The chunk is a chunk
    /// of `stripe`.
    fn locate_in_stripe(
        &self,
        cx: &Context<'_>,
        stripe: Value,
        chunk: Value,
        bound: Wide,
        value: impl Fn(Value, Value) -> Value,
    ) -> Value {
        let (k, layout) = (cx.k, cx.layout);
        let (lane, zero) = (k.lane(), k.splat(k.i32(0)));
        let first = k.mul(chunk, k.i32((layout.summed() * LANES) as i32));
        let first = k.add(first, k.mul(stripe, k.i32(layout.stripe() as i32)));
        // The chunk is distributed over all stripes, in groups of one register per stripe. Stripe `s` receives the
        // registers `s · groups` to `(s + 1) · groups - 1`.
        let (stripes, groups) = (k.stripes(), layout.summed() / k.stripes());
        let own = k.eq(k.stripe(), stripe);
        let first_of_stripe = k.add(first, k.add(lane, k.mul(k.stripe(), k.i32((groups * LANES) as i32))));
        let mut sums = Wide { low: zero, high: zero };
        let mut values = Vec::new();
        for group in 0..groups {
            let register = |s: usize| {
                let x = k.load(&self.focus, k.i32(((s * groups + group) * LANES) as i32));
                k.choose(own, k.bits(x), zero)
            };
            let x = k.from_bits(k.or_of_stripes((0..stripes).map(register).collect()));
            let value = value(x, k.add(first_of_stripe, k.i32((group * LANES) as i32)));
            sums = k.wselect(k.eq(lane, k.i32(group as i32)), sum_stripe(k, value), sums);
            values.push(value);
        }
        let (place, bound) = first_lane_beyond(cx, sums, bound);
        let (stripe, group) = (k.shr(place, LANES.trailing_zeros()), lane_of(cx, place));
        let chosen = values
            .into_iter()
            .enumerate()
            .fold(zero, |chosen, (number, value)| k.choose(k.eq(group, k.i32(number as i32)), value, chosen));
        let chosen = k.choose(k.eq(k.stripe(), stripe), chosen, zero);
        let (place, _) = first_lane_beyond(cx, k.widen(chosen), bound);
        let register = k.add(k.mul(stripe, k.i32(groups as i32)), group);
        k.add(first, k.add(k.shl(register, LANES.trailing_zeros()), lane_of(cx, place)))
    }

    /// Copies the chunks of one sum of each stripe to `focus`. `chunk` contains the number of this sum for each row.
    fn focus_on(&self, cx: &Context<'_>, chunk: Value, content: Content) {
        let (k, layout) = (cx.k, cx.layout);
        let rows = layout.rows as i32;
        let source = |number: Value, part: usize| {
            let at = k.mul(number, k.i32(layout.summed() as i32));
            let at = if part == 0 { at } else { k.add(at, k.i32((part * layout.chunk) as i32)) };
            match content {
                Content::Logits => cx.logits.look_up(at, layout.chunk),
                Content::Weights => {
                    let weights = self.weights.as_ref().expect("the caller checks that weights are stored");
                    k.registers(weights, at, layout.chunk)
                }
            }
        };
        let float = |content: Value| match content.ty().elem() {
            Elem::I32 => k.from_bits(content),
            _ => content,
        };
        if layout.rows == SUBLANES && layout.residence != Residence::Streamed {
            // One select per row and register takes less time than a loop that copies one row per iteration.
            let here: Vec<Value> = (1..rows).map(|row| k.eq(k.sublane(), k.i32(row))).collect();
            let chunks: Vec<Memory> = (0..rows)
                .map(|row| {
                    let this = k.eq(k.sublane(), k.i32(row));
                    let number = k.over_all(Reduce::Max, k.choose(this, k.to_float(chunk), k.f32(0.0)));
                    source(k.truncate_scalar(number), 0)
                })
                .collect();
            for register in 0..layout.chunk {
                let at = k.i32((register * LANES) as i32);
                let mut rows = chunks.iter().map(|chunk| k.load(chunk, at));
                let first = rows.next().expect("a block has rows");
                let merged = rows.zip(&here).fold(first, |merged, (row, &here)| k.choose(here, row, merged));
                k.store(&self.focus, at, float(merged));
            }
            return;
        }
        let row_of_sublane = match k.stripes() {
            1 => k.sublane(),
            _ => k.and(k.sublane(), k.i32(rows - 1)),
        };
        k.for_each("copy a chunk of each row", k.i32(rows), [], |row, []| {
            let this = k.eq(row_of_sublane, row);
            let number = k.over_all(Reduce::Max, k.choose(this, k.to_float(chunk), k.f32(0.0)));
            let number = k.truncate_scalar(number);
            for part in 0..layout.chunks_per_sum {
                let rows = source(number, part);
                for register in 0..layout.chunk {
                    let copied = float(k.load(&rows, k.i32((register * LANES) as i32)));
                    let to = k.i32(((part * layout.chunk + register) * LANES) as i32);
                    let kept = match layout.rows {
                        1 => copied,
                        _ => k.choose(this, copied, k.load(&self.focus, to)),
                    };
                    k.store(&self.focus, to, kept);
                }
            }
            []
        });
    }
}

/// Returns the iteration for the candidates that do not fit the registers of their chunk in the list.
fn more_candidates<'a>(cx: &Context<'_>, list: &'a CandidateList) -> Iteration<'a> {
    let MoreCandidates { logits, weights, .. } = list.more();
    Iteration {
        logits,
        weights: Some(weights.clone()),
        chunk: cx.k.i32(0),
        chunks: 1,
        registers_per_chunk: MORE_CANDIDATES,
    }
}

/// Adds the entries of a register to the state of a pass that finds neighbors of a place. `above` is true for the
/// entries at or above the place.
fn update_neighbors(k: &Kernel, state: &mut [Value], part: usize, above: Value, x: Value) {
    let [below_none, above_none] = [f32::NEG_INFINITY, f32::INFINITY].map(|limit| k.f32(limit));
    state[part] = k.fmax(state[part], k.choose(above, below_none, x));
    state[PARTS + part] = k.fmin(state[PARTS + part], k.choose(above, x, above_none));
}

/// Returns the neighbors of each row from the state of a pass.
fn neighbors(k: &Kernel, state: &[Value]) -> Neighbors {
    let (below, above) = state.split_at(PARTS);
    let below = below[1..].iter().fold(below[0], |a, &b| k.fmax(a, b));
    let above = above[1..].iter().fold(above[0], |a, &b| k.fmin(a, b));
    Neighbors { below: k.over_row(Reduce::Max, below), above: k.over_row(Reduce::Min, above) }
}

/// Returns the number of chunks of the sample.
fn samples(chunks: usize) -> usize {
    (chunks / CHUNKS_PER_SAMPLE).max(1)
}

/// Returns the first place at which the running sum of a row's values exceeds `bound`, and `bound` minus the sum of the
/// values before this place. A place is the number of a lane, counted through all stripes of the row.
fn first_lane_beyond(cx: &Context<'_>, values: Wide, bound: Wide) -> (Value, Wide) {
    let k = cx.k;
    let sums = inclusive_sums(k, values);
    let passed = k.not(k.wlt(bound, sums));
    let lane = count_lanes(k, k.choose(passed, k.f32(1.0), k.f32(0.0)));
    let before = |part: Value| k.choose(passed, part, k.i32(0));
    let low = sum_lanes(k, before(values.low));
    let before = match values.is_short() {
        true => low,
        false => k.wadd(low, sum_of_upper_words(k, before(values.high), cx.spec.vocab)),
    };
    (lane, k.wsub(bound, before))
}

/// Returns the lane of a place that [`first_lane_beyond`] returned.
fn lane_of(cx: &Context<'_>, place: Value) -> Value {
    match cx.k.stripes() {
        1 => place,
        _ => cx.k.and(place, cx.k.i32(LANES as i32 - 1)),
    }
}

/// Returns the sum of chunk sums.
pub(super) fn total(cx: &Context<'_>, sums: Wide) -> Wide {
    let k = cx.k;
    let low = sum_lanes(k, sums.low);
    noted_sum(k, k.wadd(low, sum_of_upper_words(k, sums.high, cx.spec.vocab)), cx.spec.vocab)
}

impl Iteration<'_> {
    /// Returns all registers of the iteration.
    fn all(&self) -> std::ops::Range<usize> {
        0..self.chunks * self.registers_per_chunk
    }

    /// Returns the raw logits of a register.
    pub(super) fn logit(&self, cx: &Context<'_>, register: usize) -> Value {
        cx.k.load(self.logits, cx.k.i32((register * LANES) as i32))
    }

    /// Returns the weights of a register, if they are stored.
    pub(super) fn kept_weight(&self, cx: &Context<'_>, register: usize) -> Option<Value> {
        let load = |weights| cx.k.load(weights, cx.k.i32((register * LANES) as i32));
        self.weights.as_ref().map(|weights| cx.k.at_most_noted(load(weights), MAX_WEIGHT))
    }

    /// Stores the weights of a register, if there is space.
    pub(super) fn keep_weight(&self, cx: &Context<'_>, register: usize, weight: Value) {
        if let Some(weights) = &self.weights {
            cx.k.store(weights, cx.k.i32((register * LANES) as i32), weight);
        }
    }

    /// Returns the sum over registers of the values that `value` returns. Each lane has its own sum.
    fn sum(
        &self,
        cx: &Context<'_>,
        registers: std::ops::Range<usize>,
        value: impl Fn(&Self, usize) -> Value,
    ) -> Halves {
        Halves::sum_of(cx.k, registers, |register| value(self, register))
    }
}
